// SPDX-License-Identifier: Apache-2.0
/* One message as the broker receives it: first byte chooses the number of descriptors, the rest is the message. */
#include "base/err.h"
#include "base/path.h"
#include "runtime/broker/broker_decode.h"
#include "runtime/broker/egress_plan.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int good)
{
	if (!good)
		abort();
}

/* Rules that were let through can be worked out, and every question about them has an answer. */
static void policy(const struct broker_policy *p)
{
	struct egress_plan plan;
	struct sbx_err err = {0};

	check(p->n_rules <= BROKER_POLICY_PART);
	if (egress_plan_make(p->rule, p->n_rules, &plan, &err) < 0) {
		check(err.code == SBX_E_LIMIT && !plan.node && !plan.port);
		return;
	}
	check(plan.n_nodes <= p->n_rules);
	for (uint32_t i = 0; i < p->n_rules; i++) {
		uint16_t port = p->rule[i].n_ports ? p->rule[i].port[0] : 80;
		enum egress_decision d = egress_plan_decide(&plan, p->rule[i].addr, IPPROTO_TCP, port);

		check(d > EGRESS_DECISION_NONE && d <= EGRESS_DECISION_NEXT_PORT && d != EGRESS_DECISION_NEXT && d != EGRESS_DECISION_NEXT_PORT);
	}
	egress_plan_clear(&plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static union broker_any any;
	struct sbx_err err = {0};

	if (size < 1 || size - 1 > sizeof(any))
		return 0;
	memset(&any, 0, sizeof(any));
	memcpy(&any, data + 1, size - 1);
	if (broker_decode(&any, size - 1, data[0] & 3, &err) < 0) {
		check(err.code == SBX_E_PROTOCOL);
		return 0;
	}
	/* What the handlers rely on without looking again. */
	check(any.head.op > BROKER_OP_NONE && any.head.op < BROKER_OP_COUNT && any.head.size == size - 1);
	if (any.head.op == BROKER_OP_POLICY)
		policy(&any.policy);
	if (any.head.op == BROKER_OP_PIN || any.head.op == BROKER_OP_UNPIN)
		check(any.pin.n_addrs >= 1 && any.pin.n_addrs <= BROKER_PIN_ADDRS && any.pin.n_ports <= BROKER_RULE_PORTS &&
		      any.pin.lease_ms <= BROKER_PIN_MS);
	if (any.head.op != BROKER_OP_SANDBOX_CREATE)
		return 0;
	check(any.create.n_layers >= 1 && any.create.n_layers <= BROKER_MAX_LAYERS && any.create.n_volumes <= BROKER_MAX_VOLUMES);
	for (uint32_t i = 0; i < BROKER_MAX_VOLUMES; i++) {
		const struct broker_volume *v = &any.create.volume[i];

		check(strlen(v->rel) < sizeof(v->rel) && strlen(v->mount_path) < sizeof(v->mount_path));
		if (path_rel_ok(v->rel))
			check(v->rel[0] != '/' && !strstr(v->rel, "/../") && strncmp(v->rel, "../", 3) != 0);
	}
	return 0;
}
