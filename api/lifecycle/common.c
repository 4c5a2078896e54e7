// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/lifecycle_int.h"

#include "api/render.h"
#include "api/schema.h"
#include "base/cleanup.h"
#include "base/num.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

int lifecycle_find_id(struct api_call *call, uint8_t id[16])
{
	if (!uuid_parse(call->param[0], id))
		return 0;
	api_reply_code(call, SBX_E_SANDBOX_NOT_FOUND, "no sandbox has the id \"%.64s\"", call->param[0]);
	return -1;
}

const struct sandbox *lifecycle_find(struct api_call *call)
{
	struct sbx_err err = {0};
	uint8_t id[16];

	if (lifecycle_find_id(call, id) < 0)
		return NULL;
	const struct sandbox *sandbox = sandbox_find(call->context->manager, id, &err);
	if (!sandbox)
		api_reply_error(call, &err);
	return sandbox;
}

void lifecycle_reply_sandbox(struct api_call *call, uint32_t status, const struct sandbox *sandbox)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};

	render_sandbox(&w, sandbox, RENDER_FULL);
	api_reply_json(call, status, &body);
}

static void query_fault(struct api_call *call, const char *name, const char *type, const char *text)
{
	auto_schema s;
	const struct schema_at root = {.name = "query"}, at = {.up = &root, .name = name};

	schema_init(&s);
	schema_fault(&s, &at, type, "%s", text);
	schema_reply(&s, call);
}

int lifecycle_query_text(struct api_call *call, const char *name, char **ret)
{
	int r = http_query_get(call->query, name, ret);

	if (r == -ENOMEM)
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
	else if (r < 0)
		query_fault(call, name, "value_error", "the query has a broken percent escape");
	return r < 0 ? -1 : 0;
}

int lifecycle_query_count(struct api_call *call, const char *name, uint32_t min, uint32_t max, uint32_t *ret)
{
	auto_free char *text = NULL;
	char why[64];
	uint32_t v;

	if (lifecycle_query_text(call, name, &text) < 0)
		return -1;
	if (!text)
		return 0;
	if (num_u32(text, strlen(text), max, &v) < 0 || v < min) {
		snprintf(why, sizeof(why), "must be a whole number from %u to %u", (unsigned)min, (unsigned)max);
		query_fault(call, name, "int_parsing", why);
		return -1;
	}
	*ret = v;
	return 0;
}

int lifecycle_query_bool(struct api_call *call, const char *name, bool *ret)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {{"true", true},   {"1", true},  {"yes", true}, {"on", true},  {"t", true},	 {"y", true},
		     {"false", false}, {"0", false}, {"no", false}, {"off", false}, {"f", false}, {"n", false}};
	auto_free char *text = NULL;

	if (lifecycle_query_text(call, name, &text) < 0)
		return -1;
	if (!text)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcasecmp(text, words[i].word) != 0)
			continue;
		*ret = words[i].value;
		return 0;
	}
	query_fault(call, name, "bool_parsing", "must be a boolean");
	return -1;
}
