/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: packet filter rules
 *
 * Two tables of this instance.  In the router namespace `inet sandboxd`: base chains drop; sources are pinned to their
 * interface before connection tracking; sandboxes reach the name server and what is neither another sandbox, nor the host,
 * nor metadata (169.254.0.0/16), nor a private range outside `allow`.  In the host's namespace
 * `inet sandboxd-<instance>`: masquerade, accept for forwarding and drop of input for the uplink; plus one accept rule in
 * each foreign forward chain that drops by default.  Losing the host's rules closes the network (netwatch.h), never opens it.
 *
 * libnftables may call exit(): it runs in a child that ends; the caller waits for it.  Not for hot paths (about 3 ms).
 */
#ifndef RUNTIME_FW_RULES_H
#define RUNTIME_FW_RULES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct links_host_addrs;

struct fw_rules_prefix {
	uint32_t addr; /* host byte order */
	uint32_t prefix; /* bits, 0 to 32 */
};

#define FW_RULES_ALLOW_MAX 64u

struct fw_rules_config {
	const char *instance;	   /* borrowed; [a-z0-9-] */
	const char *uplink_host;   /* borrowed; links_uplink_host() */
	const char *uplink_router; /* borrowed; links_uplink_router() */
	uint32_t subnet_addr;
	uint32_t subnet_prefix;
	struct fw_rules_prefix allow[FW_RULES_ALLOW_MAX]; /* network.allow_private */
	size_t n_allow;
	uint32_t dns_per_second; /* per sandbox; 0: 400 */
};

/**
 * fw_rules_parse_prefix() - Read "10.0.0.0/8" or "10.1.2.3" (then /32)
 * @text:	The text
 * @ret:	Filled on success; host bits must be 0
 *
 * Return: 0 or -EINVAL
 */
int fw_rules_parse_prefix(const char *text, struct fw_rules_prefix *ret);

/**
 * fw_rules_load_router() - Replace the table of the router namespace in one transaction
 * @config:	What to allow
 * @router_fd:	links_router_fd()
 * @addrs:	Addresses of the host
 * @err:	Filled on failure: SYSTEM with the text of libnftables
 *
 * Return: 0, or -1 with @err set and the rules as before
 */
int fw_rules_load_router(const struct fw_rules_config *config, int router_fd, const struct links_host_addrs *addrs,
			 struct sbx_err *err) SBX_WUR;
/** fw_rules_host_addrs() - Replace the set of host addresses in the router @router_fd by @addrs; Return: 0 or -1, @err set */
int fw_rules_host_addrs(int router_fd, const struct links_host_addrs *addrs, struct sbx_err *err) SBX_WUR;
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
/** fw_rules_try() - Load both rule sets in the calling process's network namespace (a probe's own); Return: 0, or -1 with @err set */
int fw_rules_try(struct sbx_err *err) SBX_WUR;

#endif
