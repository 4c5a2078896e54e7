/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what changes in the router's table while it is in force
 *
 * fw_rules.h loads the table's chains once.  Everything that belongs to one sandbox is elements of shared hash sets and maps,
 * so neither a packet's way nor an added element costs more with more sandboxes:
 *
 *	modes	 source -> enum egress_mode
 *	stamps	 source -> mark that its flows get
 *	current	 source . mark: a flow with it was judged by the policy in force
 *	rules	 source . network . prefix -> enum egress_decision or a list's number
 *	ports	 source . list . port -> enum egress_decision
 *	lease	 source . address, with a timeout
 *	lease_port source . address . port, with a timeout
 *
 * modes6, stamps6, current6, rules6, lease6 and lease6_port are the same for the source's IPv6 address, when the router has IPv6.
 * Lists of ports are shared: an IPv6 source ends with the IPv4 one.
 *
 * No element holds a verdict: the kernel would walk all of a verdict map's chains again for each change.  Raw netlink by libmnl
 * (the only file that includes it): one acknowledged element costs about 5 us, by libnftables 50 us and more with each element.
 * A call is one transaction: after it all of it is in force, or nothing.
 *
 * Runs in: the broker.  CAP_NET_ADMIN over the router's namespace.
 */
#ifndef RUNTIME_FWSET_H
#define RUNTIME_FWSET_H

#include "base/err.h"
#include "runtime/broker/egress_plan.h"

#include <stddef.h>
#include <stdint.h>

/* Counted up with each change of the chains that fwset_release() makes or of what elements mean. */
#define FWSET_CHAINS_VERSION 1u
#define FWSET_CHAINS6_VERSION 1u /* of the IPv6 ones */

struct fwset;

/** fwset_open() - Open the channel to the router @router_fd (-1: the calling process's namespace); Return: it (fwset_free() it), or NULL, @err set */
struct fwset *fwset_open(int router_fd, struct sbx_err *err) SBX_WUR;
/** fwset_free() - Close @fw; the table stays; NULL is fine */
void fwset_free(struct fwset *fw);
/** fwset_subnet6() - From now on each source of @fw has an address in @subnet6 too (borrowed; NULL: none); the table has its sets */
void fwset_subnet6(struct fwset *fw, const struct ip6_prefix *subnet6);
/** fwset_port_id() - Netlink port of @fw: the kernel's notices carry it for changes of ours */
uint32_t fwset_port_id(const struct fwset *fw);

/**
 * fwset_ready() - Whether the router has the table of @version, filled and open
 * @fw:		The channel
 * @version:	fw_rules_router_version()
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 1, 0, or -1 with @err set
 */
int fwset_ready(struct fwset *fw, uint64_t version, struct sbx_err *err) SBX_WUR;
/** fwset_release() - Let packets through a table of @version that was just loaded and filled; Return: 0 or -1, @err set */
int fwset_release(struct fwset *fw, uint64_t version, struct sbx_err *err) SBX_WUR;
/**
 * fwset_probe() - See whether this kernel moves the timeout of an element that is added again (6.12), on one of its own
 * @fw:		The channel; the table is loaded
 * @err:	Filled on failure: SYSTEM
 *
 * Before it was called leases are renewed in the way that works on every kernel, at three times the cost.
 *
 * Return: 1 or 0, or -1 with @err set
 */
int fwset_probe(struct fwset *fw, struct sbx_err *err) SBX_WUR;
/** fwset_hosts() - Replace the set of the host's addresses by the @n of @addr (host byte order); Return: 0 or -1, @err set */
int fwset_hosts(struct fwset *fw, const uint32_t *addr, size_t n, struct sbx_err *err) SBX_WUR;
/**
 * fwset_hosts6() - fwset_hosts() for IPv6
 * @fw:		The channel
 * @addr:	The host's addresses
 * @n:		Their number
 * @lan:	Its networks, 64 bits each
 * @n_lan:	Their number
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 0, or -1 with @err set and both sets as they were
 */
int fwset_hosts6(struct fwset *fw, const struct ip6 *addr, size_t n, const struct ip6 *lan, size_t n_lan, struct sbx_err *err) SBX_WUR;

struct fwset_policy {
	uint32_t addr;	   /* of the sandbox, host byte order */
	uint32_t old_mark; /* 0: it has no policy */
	uint32_t mark;	   /* 0: take the policy away */
	enum egress_mode mode;
	const struct egress_plan *old_plan; /* borrowed; what is in the kernel now; NULL: none */
	const struct egress_plan *plan;	    /* borrowed; NULL: none */
};
/**
 * fwset_policy() - Put a policy in force, or take it away
 * @fw:		The channel
 * @p:		Old and new; only what differs is changed
 * @err:	Filled on failure: SYSTEM
 *
 * Flows with the old mark are judged again on their next packet, in either direction.
 *
 * Return: 0, or -1 with @err set and the old policy in force
 */
int fwset_policy(struct fwset *fw, const struct fwset_policy *p, struct sbx_err *err) SBX_WUR;

struct fwset_pin {
	uint32_t addr; /* far end, host byte order */
	struct ip6 addr6; /* it instead, unless it is none */
	uint32_t port; /* 0: all but 853 */
	uint64_t timeout_ms;
};
/** fwset_pin() - Open the @n addresses @pin for the sandbox @addr in @fw, or renew their timeouts; Return: 0 or -1, @err set */
int fwset_pin(struct fwset *fw, uint32_t addr, const struct fwset_pin *pin, size_t n, struct sbx_err *err) SBX_WUR;
/** fwset_unpin() - Close the @n addresses @pin for the sandbox @addr in @fw; gone is fine; Return: 0 or -1, @err set */
int fwset_unpin(struct fwset *fw, uint32_t addr, const struct fwset_pin *pin, size_t n, struct sbx_err *err) SBX_WUR;

/* A sandbox's stamp (mark) or one of its leases (pin; timeout_ms is what is left). */
typedef void fwset_found(void *arg, uint32_t addr, uint32_t mark, const struct fwset_pin *pin);
/** fwset_each() - Tell @found (with @arg) of all stamps and leases of the table of @fw; Return: 0 or -1, @err set */
int fwset_each(struct fwset *fw, fwset_found *found, void *arg, struct sbx_err *err) SBX_WUR;

#endif
