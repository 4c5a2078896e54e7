/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what is said to a name
 *
 * A policy's rules, and what is true of names whatever they say: known encrypted resolvers and Firefox's canary, names that no
 * public server has, names with fixed addresses.  sandbox-dnsd answers by it, and sandboxd explains by it.
 */
#ifndef NETPOLICY_DNS_JUDGE_H
#define NETPOLICY_DNS_JUDGE_H

#include "base/err.h"
#include "netpolicy/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct settings;

struct dns_verdict {
	bool allow;
	bool by_rule; /* a rule decided, or the list of encrypted resolvers: an explicit verdict */
	enum egress_reason reason;
	uint32_t rule;
	const struct policy_rule *which; /* NULL: none; valid as long as the policy */
};

struct dns_doh;
struct dns_hosts;
struct dns_answer;

/**
 * dns_judge_name() - May this name be resolved?
 * @policy:	Sealed; NULL: none
 * @doh:	Encrypted resolvers
 * @text:	The name in canonical form
 * @len:	Its length
 * @odd:	It has none: no rule can mean it, and only a policy that has no rules lets it through
 *
 * Return: the verdict
 */
struct dns_verdict dns_judge_name(const struct policy *policy, const struct dns_doh *doh, const char *text, size_t len, bool odd);
/** dns_judge_is_local() - Whether the canonical @text of @len bytes is localhost or below: always answered, with loopback addresses */
bool dns_judge_is_local(const char *text, size_t len);

/* ---- dns_doh.c ---- */

/** dns_doh_new() - The names of known encrypted resolvers, the built-in ones and egress.doh_list; Return: NULL with @err set */
struct dns_doh *dns_doh_new(const struct settings *settings, struct sbx_err *err) SBX_WUR;
/** dns_doh_free() - Release it; NULL is fine */
void dns_doh_free(struct dns_doh *doh);
/** dns_doh_denies() - Whether a rule (NULL: none) is not enough to ask for the canonical @name of @len bytes */
bool dns_doh_denies(const struct dns_doh *doh, const char *name, size_t len, const struct policy_rule *rule);

/* ---- dns_hosts.c ---- */

/** dns_hosts_new() - dns.static_hosts of @settings; Return: NULL with @err set */
struct dns_hosts *dns_hosts_new(const struct settings *settings, struct sbx_err *err) SBX_WUR;
/** dns_hosts_free() - Release it; NULL is fine */
void dns_hosts_free(struct dns_hosts *hosts);
/**
 * dns_hosts_find() - What is listed for a name
 * @hosts:	The list
 * @name:	Canonical
 * @len:	Its bytes
 * @answer:	Of a type and without addresses; those of that type are added, as many as it holds
 *
 * Return: whether the name is listed, perhaps with addresses of the other type only
 */
bool dns_hosts_find(const struct dns_hosts *hosts, const char *name, size_t len, struct dns_answer *answer);

#endif
