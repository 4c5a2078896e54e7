/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: policies as clients write and read them
 *
 *   {"defaultAction": "deny", "egress": [{"action": "allow", "target": "pkg.example.org", "ports": [443, "8000-8003"]}]}
 *
 * Keys in exact case; an unknown or doubled key is an error that names it.  Absent, null and "" mean deny, for the default
 * as for a rule; nothing but allow and deny is taken.  "ports" is ours: published clients do not send it, and it is
 * written only where it was given.
 */
#ifndef NETPOLICY_POLICY_JSON_H
#define NETPOLICY_POLICY_JSON_H

#include "base/err.h"
#include "base/jv.h"
#include "netpolicy/policy.h"

/**
 * policy_json_read() - A policy object
 * @v:		The value; NULL and null are the empty object: deny everything
 * @rules_max:	More rules are TOO_LARGE; 0: only the bound of policy_add()
 * @err:	Filled on failure: INVALID_REQUEST with the place ("egress[2]: ..."), TOO_LARGE, NO_MEMORY
 *
 * Return: sealed, policy_free() it; NULL with @err set
 */
struct policy *policy_json_read(const struct jv *v, uint32_t rules_max, struct sbx_err *err) SBX_WUR;

/** policy_json_read_rules() - Like policy_json_read() for a non-empty array of rules; the default of the result means nothing */
struct policy *policy_json_read_rules(const struct jv *v, uint32_t rules_max, struct sbx_err *err) SBX_WUR;

/** policy_json_write() - Write @p as an object into @w; NULL is the policy that allows everything */
void policy_json_write(const struct policy *p, struct jw *w);
/** policy_json_write_rule() - Write one rule as an object with action, target and, where it has some, ports */
void policy_json_write_rule(const struct policy_rule *rule, struct jw *w);

/**
 * policy_merge() - PATCH: new rules in front, then the old ones whose target was not named
 * @old:	NULL: allow everything
 * @patch:	Of these the first with a target counts
 * @rules_max:	More in the result are TOO_LARGE; 0: only the bound of policy_add()
 * @err:	Filled on failure: TOO_LARGE, NO_MEMORY
 *
 * Return: sealed, with the default of @old; NULL with @err set
 */
struct policy *policy_merge(const struct policy *old, const struct policy *patch, uint32_t rules_max, struct sbx_err *err) SBX_WUR;

/**
 * policy_without() - DELETE: the rules whose target is not in a list
 * @old:	NULL: allow everything
 * @targets:	A non-empty array of strings; what is no target is found by its text
 * @ret_removed:	Rules that are gone
 * @err:	Filled on failure: INVALID_REQUEST, NO_MEMORY
 *
 * Return: sealed, with the default of @old; NULL with @err set
 */
struct policy *policy_without(const struct policy *old, const struct jv *targets, uint32_t *ret_removed, struct sbx_err *err) SBX_WUR;

/**
 * policy_effective() - What is enforced: the operator's rules, then the sandbox's
 * @overlay:	Sealed, rules with EGRESS_RULE_OPERATOR; NULL: none
 * @user:	NULL: allow everything
 * @domain_ports:	Ports of an allow rule for names that says none; NULL: all but 853
 * @n_domain_ports:	Their number
 * @err:	Filled on failure: LIMIT, NO_MEMORY
 *
 * Return: sealed; NULL with @err set
 */
struct policy *policy_effective(const struct policy *overlay, const struct policy *user, const struct policy_ports *domain_ports,
				uint8_t n_domain_ports, struct sbx_err *err) SBX_WUR;

/** policy_ports_read() - Read "443" or "8000-8003" into @ret; Return: 0 or -EINVAL */
int policy_ports_read(const char *text, struct policy_ports *ret);

#endif
