/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: inside of struct policy, for policy.c (names) and policy_addr.c (addresses)
 */
#ifndef NETPOLICY_POLICY_INT_H
#define NETPOLICY_POLICY_INT_H

#include "netpolicy/policy.h"

#define POLICY_DEPTHS 128u /* labels of a name at most, and one */

/* One name that rules mention. */
struct policy_entry {
	uint64_t hash;
	const char *name; /* of a rule */
	uint32_t len;
	uint32_t exact; /* lowest index of a rule for the name itself, or EGRESS_NO_RULE */
	uint32_t below; /* the same for the wildcard */
};

struct policy {
	struct policy_rule *rules; /* owned */
	void **chunks;		   /* owned, each owned: what the rules point to */
	uint32_t n_rules, cap_rules;
	bool default_allow, sealed;

	struct policy_entry *entries; /* owned */
	uint32_t n_entries;
	uint32_t *table; /* owned; index into entries plus 1; NULL: no rule has a name */
	uint32_t table_mask;
	uint64_t seed[2];
	uint64_t depths[POLICY_DEPTHS / 64]; /* bit d: an entry has d labels */

	uint32_t *by_addr; /* owned; IPV4 rules by prefix, address, index */
	uint32_t n_by_addr;
	struct {
		uint32_t first, n;
	} prefix[33]; /* part of by_addr with this prefix */
	bool has6;    /* some rule is for IPv6 addresses */
};

/** policy_seal_addrs() - Sort the address rules of @p; Return: 0, or -1 when out of memory */
int policy_seal_addrs(struct policy *p);

#endif
