/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the sandboxes that may ask
 *
 * Found by their address, which the router pins to the link; the link that the first question came by is remembered, and a
 * question with the same address from another one is not answered.  What a sandbox has (policy, limits, counters) lives
 * and dies with its struct.
 */
#ifndef NETPOLICY_DNS_SANDBOX_H
#define NETPOLICY_DNS_SANDBOX_H

#include "netpolicy/dns_limits.h"
#include "netpolicy/policy.h"

#include <stdbool.h>
#include <stdint.h>

struct dns_cached;
struct dns_lookup;

struct dns_sandbox {
	struct dns_sandbox *next_by_addr, *next, *prev;
	struct egress_ref ref;
	uint8_t id[16];
	uint32_t addr;	/* IPv4, host byte order */
	uint32_t flags; /* enum egress_set_flags */
	uint64_t policy_generation;
	struct policy *policy; /* owned; there is one as soon as a question can come */
	uint32_t ifindex;      /* 0: not yet known */
	bool named;	       /* in the running synchronisation */
	struct dns_limits limits;
	uint32_t n_lookups, n_connections, n_outstanding_tcp;
	struct dns_lookup *lookups;	      /* list; owned by dns_lookup.c */
	struct dns_cached *cached, *cached_last; /* most recently used first; owned by dns_cache.c */
	uint32_t n_cached;
	uint32_t lease_first, lease_last; /* least recently touched first; owned by dns_lease.c; 0: none */
	uint32_t n_leases;
	uint32_t lease_elements; /* what they count, see egress_lease_count(), but for those that are being closed: */
	uint32_t closing_elements;
};

struct dns_sandboxes;

/** dns_sandboxes_new() - An empty table; Return: it or NULL (no memory) */
struct dns_sandboxes *dns_sandboxes_new(void);
/** dns_sandboxes_find() - Who has this address (host byte order); Return: NULL for nobody */
struct dns_sandbox *dns_sandboxes_find(const struct dns_sandboxes *t, uint32_t addr);
/** dns_sandboxes_by_ref() - Who is @ref in @t; Return: NULL for nobody */
struct dns_sandbox *dns_sandboxes_by_ref(const struct dns_sandboxes *t, struct egress_ref ref);
/** dns_sandboxes_add() - One with address @addr, of which there is none yet; Return: it or NULL (no memory) */
struct dns_sandbox *dns_sandboxes_add(struct dns_sandboxes *t, struct egress_ref ref, uint32_t addr, uint64_t now_ms);
/** dns_sandboxes_remove() - Take @s out and release it; its lookups, leases and cache entries are gone already */
void dns_sandboxes_remove(struct dns_sandboxes *t, struct dns_sandbox *s);
/** dns_sandboxes_first() - First of all in @t; go on with ->next */
struct dns_sandbox *dns_sandboxes_first(const struct dns_sandboxes *t);
/** dns_sandboxes_free() - Release @t, which is empty; NULL is fine */
void dns_sandboxes_free(struct dns_sandboxes *t);

#endif
