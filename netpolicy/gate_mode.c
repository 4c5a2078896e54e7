/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/gate_mode.h"

#include <string.h>

static const char *const names[] = {[GATE_OFF] = "off", [GATE_AUDIT] = "audit", [GATE_ENFORCE] = "enforce", [GATE_AUTO] = "auto"};
_Static_assert(sizeof(names) / sizeof(names[0]) == GATE_MODE_COUNT, "a mode has no name");

int gate_mode_read(const char *text, enum gate_mode *ret, struct sbx_err *err)
{
	for (unsigned i = 0; i < GATE_MODE_COUNT; i++)
		if (!strcmp(text, names[i])) {
			*ret = (enum gate_mode)i;
			return 0;
		}
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.tls_gate: \"%.20s\" is none of off, audit, enforce, auto", text);
}

const char *gate_mode_name(enum gate_mode mode)
{
	return (unsigned)mode < GATE_MODE_COUNT ? names[mode] : "unknown";
}

bool gate_mode_enforced(enum gate_mode mode, const struct policy *policy)
{
	return mode == GATE_ENFORCE || (mode == GATE_AUTO && (!policy || !policy_default_allow(policy)));
}

enum gate_mode gate_mode_of(enum gate_mode mode, const struct policy *policy)
{
	bool named = !policy_default_allow(policy);

	/* Where all is allowed and no rule is about a name there is nothing to judge by. */
	for (uint32_t i = 0; i < policy_count(policy) && !named; i++)
		named = policy_at(policy, i)->kind <= EGRESS_RULE_WILDCARD;
	if (mode == GATE_OFF || !named)
		return GATE_OFF;
	return gate_mode_enforced(mode, policy) ? GATE_ENFORCE : GATE_AUDIT;
}
