/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/dns_judge.h"

#include <string.h>

#include "netpolicy/fqdn.h"

/* Firefox asks for it, and leaves its own encrypted resolver off when it does not exist. */
static const char doh_canary[] = "use-application-dns.net";

static bool is(const char *text, size_t len, const char *name)
{
	return len == strlen(name) && !memcmp(text, name, len);
}

static bool is_or_below(const char *text, size_t len, const char *parent)
{
	return is(text, len, parent) || fqdn_is_below(text, len, parent);
}

/* Names that no public server has: they are asked for only when a rule means them. */
static bool is_local_only(const char *text, size_t len)
{
	return !memchr(text, '.', len) || is_or_below(text, len, "local") || is_or_below(text, len, "onion");
}

bool dns_judge_is_local(const char *text, size_t len)
{
	return is_or_below(text, len, "localhost");
}

struct dns_verdict dns_judge_name(const struct policy *policy, const struct dns_doh *doh, const char *text, size_t len, bool odd)
{
	struct dns_verdict v = {.allow = true, .reason = EGRESS_REASON_DEFAULT, .rule = EGRESS_NO_RULE};
	struct policy_verdict p;

	if (policy && !odd) {
		p = policy_decide_name(policy, text, len);
		v.allow = p.allow;
		v.reason = p.reason;
		v.rule = p.rule;
		v.by_rule = p.rule != EGRESS_NO_RULE;
		v.which = v.by_rule ? policy_at(policy, p.rule) : NULL;
	} else if (odd && policy && (policy_count(policy) || !policy_default_allow(policy))) {
		/* No rule can name it, also no rule that denies. */
		v.allow = false;
	}
	if (!v.allow || odd)
		return v;
	if (!v.by_rule && len && is_local_only(text, len)) {
		v.allow = false;
		return v;
	}
	if (is(text, len, doh_canary) || dns_doh_denies(doh, text, len, v.which)) {
		v.allow = false;
		v.by_rule = true;
		v.reason = EGRESS_REASON_DOH;
	}
	return v;
}
