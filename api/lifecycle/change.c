// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/lifecycle_api.h"

#include "api/lifecycle/labels.h"
#include "api/lifecycle/lifecycle_int.h"
#include "api/render.h"
#include "api/schema.h"
#include "base/cleanup.h"
#include "base/wallclock.h"
#include "runtime/sandbox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- delete, pause, resume ---- */

static void deleted(void *arg, const struct sandbox *sandbox, const struct sbx_err *err)
{
	(void)sandbox;
	if (err->code)
		api_reply_error(arg, err);
	else
		api_reply_empty(arg, 204);
}

void lifecycle_api_delete(struct api_call *call)
{
	uint8_t id[16];

	if (!lifecycle_find_id(call, id))
		sandbox_delete(call->context->manager, id, deleted, call);
}

static void changed(void *arg, const struct sandbox *sandbox, const struct sbx_err *err)
{
	(void)sandbox;
	if (err->code)
		api_reply_error(arg, err);
	else
		api_reply_empty(arg, 202);
}

void lifecycle_api_pause(struct api_call *call)
{
	uint8_t id[16];

	if (!lifecycle_find_id(call, id))
		sandbox_pause(call->context->manager, id, changed, call);
}

void lifecycle_api_resume(struct api_call *call)
{
	uint8_t id[16];

	if (!lifecycle_find_id(call, id))
		sandbox_resume(call->context->manager, id, changed, call);
}

/* ---- renew ---- */

/* Numbers are seconds since 1970; past this they are milliseconds, as the clients' JSON libraries read them. */
#define EPOCH_MILLISECONDS_FROM 2e10
#define INSTANT_WALL_SEC_MAX	253402300799.0 /* 9999-12-31T23:59:59Z */

static int read_instant(const struct jv *v, int64_t *ret_wall_usec)
{
	const char *text = jv_str(v);
	double d;

	if (text)
		return rfc3339_parse(text, strlen(text), ret_wall_usec);
	if (jv_double(v, &d) < 0)
		return -1;
	if (fabs(d) > EPOCH_MILLISECONDS_FROM)
		d /= 1000;
	if (fabs(d) > INSTANT_WALL_SEC_MAX)
		return -1;
	*ret_wall_usec = (int64_t)(d * 1e6);
	return 0;
}

void lifecycle_api_renew(struct api_call *call)
{
	const struct schema_at root = {.name = "body"}, at = {.up = &root, .name = "expiresAt"};
	auto_schema s;
	auto_jv body = NULL;
	auto_buf out = {0};
	struct jw w = {.out = &out};
	struct sbx_err err = {0};
	int64_t expires_wall_usec = 0;
	uint8_t id[16];

	schema_init(&s);
	if (api_call_body(call, true, &body) < 0)
		return;
	const struct jv *v = schema_member(body, "expiresAt");
	if (jv_type(body) != JV_OBJECT)
		schema_fault(&s, &root, "model_type", "must be an object");
	else if (!v)
		schema_fault(&s, &at, "missing", "is required");
	else if (read_instant(v, &expires_wall_usec) < 0)
		schema_fault(&s, &at, "datetime_parsing", "must be an instant, such as 2030-01-01T00:00:00Z");
	if (schema_reply(&s, call) || lifecycle_find_id(call, id) < 0)
		return;
	const struct sandbox *sandbox = sandbox_renew(call->context->manager, id, expires_wall_usec, &err);
	if (!sandbox) {
		api_reply_error(call, &err);
		return;
	}
	jw_object(&w);
	render_instant(&w, "expiresAt", sandbox->expires_wall_usec);
	jw_object_end(&w);
	api_reply_json(call, 200, &out);
}

/* ---- metadata ---- */

static void patch_schema(struct schema *s, const struct jv *body)
{
	const struct schema_at root = {.name = "body"};

	if (jv_type(body) != JV_OBJECT) {
		schema_fault(s, &root, "dict_type", "must be an object of strings");
		return;
	}
	for (const struct jv *m = jv_first(body); m; m = jv_next(m)) {
		const struct schema_at at = {.up = &root, .name = jv_name(m)};

		if (jv_is_set(m) && !jv_str(m))
			schema_fault(s, &at, "string_type", "must be a string or null");
	}
}

/* Reserved keys are refused even with null; a key that breaks the label rules may be removed. */
static int patch_check(const struct jv *body, struct sbx_err *err)
{
	for (const struct jv *m = jv_first(body); m; m = jv_next(m))
		if (labels_is_reserved(jv_name(m)))
			return sbx_err_set(err, SBX_E_RESERVED_METADATA, 0, "metadata: the key \"%.80s\" has the reserved prefix", jv_name(m));
	for (const struct jv *m = jv_first(body); m; m = jv_next(m))
		if (jv_str(m) && labels_check(jv_name(m), jv_str(m), err) < 0)
			return -1;
	return 0;
}

static const struct sandbox *patch(struct api_call *call, const uint8_t id[16], const struct jv *body, struct sbx_err *err)
{
	size_t n = jv_count(body), i = 0;
	auto_free struct sandbox_pair *pairs = calloc(n + 1, sizeof(*pairs));
	const struct sandbox *sandbox = NULL;

	if (!pairs) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "metadata");
		return NULL;
	}
	for (const struct jv *m = jv_first(body); m; m = jv_next(m), i++) {
		pairs[i].key = strdup(jv_name(m));
		pairs[i].value = jv_str(m) ? strdup(jv_str(m)) : NULL;
		if (!pairs[i].key || (jv_str(m) && !pairs[i].value)) {
			sbx_err_set(err, SBX_E_NO_MEMORY, 0, "metadata");
			break;
		}
	}
	if (i == n)
		sandbox = sandbox_patch_metadata(call->context->manager, id, pairs, n, err);
	for (i = 0; i < n; i++) {
		free(pairs[i].key);
		free(pairs[i].value);
	}
	return sandbox;
}

void lifecycle_api_patch(struct api_call *call)
{
	auto_schema s;
	auto_jv body = NULL;
	struct sbx_err err = {0};
	uint8_t id[16];

	schema_init(&s);
	if (api_call_body(call, true, &body) < 0)
		return;
	patch_schema(&s, body);
	if (schema_reply(&s, call) || !lifecycle_find(call) || lifecycle_find_id(call, id) < 0)
		return;
	const struct sandbox *sandbox = patch_check(body, &err) < 0 ? NULL : patch(call, id, body, &err);
	if (sandbox)
		lifecycle_reply_sandbox(call, 200, sandbox);
	else
		api_reply_error(call, &err);
}
