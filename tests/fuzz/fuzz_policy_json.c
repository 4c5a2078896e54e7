/* SPDX-License-Identifier: Apache-2.0 */
/* A policy as a client writes it: what is taken says the same after it was written again, and after its encoding. */
#include "config.h"

#include <assert.h>
#include <string.h>

#include "base/buf.h"
#include "netpolicy/policy_json.h"
#include "netpolicy/policy_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct policy *p)
{
	auto_buf text = {0}, again_text = {0}, body = {0};
	struct jw w = {.out = &text}, again_w = {.out = &again_text};
	struct sbx_err err = {0};
	uint32_t removed;

	policy_json_write(p, &w);
	auto_jv v = jv_parse(buf_peek(&text), buf_used(&text), &err);
	struct policy *again = policy_json_read(v, 0, &err);
	assert(v && again);
	policy_json_write(again, &again_w);
	assert(!strcmp(buf_str(&text), buf_str(&again_text)));
	policy_free(again);
	policy_wire_write(p, &body);
	again = policy_wire_read(buf_peek(&body), buf_used(&body), policy_count(p), policy_default_allow(p), &err);
	assert(again);
	for (uint32_t i = 0; i < policy_count(p); i++) {
		const char *name = policy_at(p, i)->name;
		struct policy_verdict a = policy_decide_name(p, name, strlen(name)), b = policy_decide_name(again, name, strlen(name));

		assert(a.allow == b.allow && a.rule == b.rule);
	}
	policy_free(again);
	again = policy_merge(p, p, 0, &err);
	assert(again && policy_count(again) <= policy_count(p));
	policy_free(again);
	again = policy_without(p, jv_get(v, "egress"), &removed, &err);
	policy_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sbx_err err = {0};
	auto_jv v = jv_parse(data, size, &err);
	struct policy *p;

	if (!v)
		return 0;
	p = jv_type(v) == JV_ARRAY ? policy_json_read_rules(v, 0, &err) : policy_json_read(v, 64, &err);
	if (p)
		check(p);
	policy_free(p);
	return 0;
}
