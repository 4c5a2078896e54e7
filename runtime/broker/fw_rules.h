/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: packet filter rules
 *
 * Two tables of this instance.  In the router namespace `inet sandboxd`: base chains drop; sources are pinned to their
 * interface before connection tracking; sandboxes reach the name server; what else they reach is judged once for a flow, by
 * chains that are the same for all and the elements that fwset.h keeps for each: never another sandbox, the host or metadata
 * (169.254.0.0/16); then address rules; never a private range outside `allow`; then leases; then the default.  The judged flow
 * carries the policy's mark and needs one lookup a packet from then on.  In the host's namespace
 * `inet sandboxd-<instance>`: masquerade, accept for forwarding and drop of input for the uplink; plus one accept rule in
 * each foreign forward chain that drops by default.  Losing the host's rules closes the network (netwatch.h), never opens it.
 *
 * libnftables may call exit(): it runs in a child that ends; the caller waits for it.  Not for hot paths (about 3 ms).
 */
#ifndef RUNTIME_FW_RULES_H
#define RUNTIME_FW_RULES_H

#include "base/err.h"
#include "base/ip6.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

struct fw_rules_prefix {
	uint32_t addr; /* host byte order */
	uint32_t prefix; /* bits, 0 to 32 */
};

#define FW_RULES_ALLOW_MAX    64u
#define FW_RULES_DOH_MAX      256u
#define FW_RULES_ROUTER_TABLE "sandboxd" /* of family inet, in the router */

struct fw_rules_config {
	const char *instance;	   /* borrowed; [a-z0-9-] */
	const char *uplink_host;   /* borrowed; links_uplink_host() */
	const char *uplink_router; /* borrowed; links_uplink_router() */
	uint32_t subnet_addr;
	uint32_t subnet_prefix;
	struct fw_rules_prefix allow[FW_RULES_ALLOW_MAX]; /* network.allow_private */
	size_t n_allow;
	uint32_t dns_per_second; /* per sandbox; 0: 400 */
	struct fw_rules_prefix doh[FW_RULES_DOH_MAX]; /* encrypted resolvers, refused where names are judged */
	size_t n_doh;
	bool ipv6; /* sandboxes have it: what follows counts */
	struct ip6_prefix subnet6;
	struct ip6_prefix allow6[FW_RULES_ALLOW_MAX];
	size_t n_allow6;
	struct ip6_prefix doh6[FW_RULES_DOH_MAX];
	size_t n_doh6;
	bool gate; /* TLS connections are judged by their name: their beginnings go to LINKS_GATE */
	bool quic; /* UDP to 443 and 80 is let through where names are judged */
};

/**
 * fw_rules_parse_prefix() - Read "10.0.0.0/8" or "10.1.2.3" (then /32)
 * @text:	The text
 * @ret:	Filled on success; host bits must be 0
 *
 * Return: 0 or -EINVAL
 */
int fw_rules_parse_prefix(const char *text, struct fw_rules_prefix *ret);

/** fw_rules_private() - Whether @addr lies in a range that is never the internet (link-local, multicast and broadcast too) */
bool fw_rules_private(uint32_t addr);
/** fw_rules_allowed() - Whether network.allow_private of @config names @addr, by a prefix of at least @min_prefix bits */
bool fw_rules_allowed(const struct fw_rules_config *config, uint32_t addr, uint32_t min_prefix);
/**
 * fw_rules_load_router() - Replace the table of the router namespace in one transaction
 * @config:	What to allow
 * @router_fd:	links_router_fd()
 * @err:	Filled on failure: SYSTEM with the text of libnftables
 *
 * The new table knows no sandbox and lets nothing through: fill it by fwset.h, then fwset_release().
 *
 * Return: 0, or -1 with @err set and the rules as before
 */
int fw_rules_load_router(const struct fw_rules_config *config, int router_fd, struct sbx_err *err) SBX_WUR;
/** fw_rules_router_version() - A number that changes with the router's rules that @config gives, for fwset_ready() */
uint64_t fw_rules_router_version(const struct fw_rules_config *config);
/** fw_rules_load_host() - Replace this instance's table (@config) in the host's namespace, in one transaction; Return: 0 or -1, @err set */
int fw_rules_load_host(const struct fw_rules_config *config, struct sbx_err *err) SBX_WUR;
/**
 * fw_rules_host_list() - Text of this instance's table in the host's namespace, to see whether others changed it
 * @config:	Names the instance
 * @ret:	Empty buffer; filled when the table is there
 * @err:	Filled on failure
 *
 * Return: 1 (there), 0 (gone), or -1 with @err set
 */
int fw_rules_host_list(const struct fw_rules_config *config, struct buf *ret, struct sbx_err *err) SBX_WUR;
/**
 * fw_rules_foreign() - Add accept rules for the uplink where other programs' forward chains drop by default
 * @config:	Names uplink and instance (the rules carry it as comment)
 * @err:	Filled on failure
 *
 * Chains that have the rules already are left alone.  Docker's own chain for rules of others is used where it exists.
 *
 * Return: 1 when rules were added, 0 when nothing was missing, or -1 with @err set
 */
int fw_rules_foreign(const struct fw_rules_config *config, struct sbx_err *err) SBX_WUR;
/** fw_rules_purge_host() - Remove table and foreign accept rules of @config from the host; gone is fine; Return: 0 or -1, @err set */
int fw_rules_purge_host(const struct fw_rules_config *config, struct sbx_err *err) SBX_WUR;

struct fw_rules_others {
	uint32_t n_drop; /* forward chains of others that drop by default */
	bool docker, firewalld;
	bool legacy; /* iptables-legacy has a filter table, which nftables does not show */
};
/** fw_rules_look() - See what other programs' rules of the host do to forwarded packets, into @ret; Return: 0, or -1 with @err set */
int fw_rules_look(struct fw_rules_others *ret, struct sbx_err *err) SBX_WUR;
/** fw_rules_allowed6() - fw_rules_allowed() for IPv6 */
bool fw_rules_allowed6(const struct fw_rules_config *config, struct ip6 addr, uint32_t min_prefix);
/** fw_rules_try() - Load both rule sets (@ipv6: with IPv6, @gate: with the gate of TLS names) in the calling process's network namespace (a probe's own); Return: 0, or -1 with @err set */
int fw_rules_try(bool ipv6, bool gate, struct sbx_err *err) SBX_WUR;

#endif
