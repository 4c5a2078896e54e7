// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/lifecycle_api.h"

#include "api/lifecycle/create_request.h"
#include "api/lifecycle/lifecycle_int.h"
#include "api/render.h"
#include "api/schema.h"
#include "base/cleanup.h"
#include "runtime/sandbox.h"

static void created(void *arg, const struct sandbox *sandbox, const struct sbx_err *err)
{
	struct api_call *call = arg;
	auto_buf body = {0}, headers = {0};
	struct jw w = {.out = &body};

	if (err->code || !sandbox) {
		struct sbx_err gone = {.code = SBX_E_START_FAILED, .msg = "the sandbox was removed while it was being made"};

		api_reply_error(call, err->code ? err : &gone);
		return;
	}
	render_sandbox(&w, sandbox, RENDER_CREATED);
	buf_printf(&headers, "Location: /v1/sandboxes/%s\r\n", sandbox->id_text);
	const char *text = buf_str(&body), *location = buf_str(&headers);
	if (!text || !location) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	const struct api_answer answer = {.status = 202,
					  .content_type = "application/json",
					  .headers = location,
					  .body = text,
					  .body_len = buf_used(&body)};
	api_reply(call, &answer);
}

void lifecycle_api_create(struct api_call *call)
{
	auto_jv body = NULL;
	auto_schema s;
	struct sbx_err err = {0};
	struct sandbox_spec spec = {0};

	schema_init(&s);
	if (api_call_body(call, true, &body) < 0)
		return;
	create_request_schema(&s, body);
	if (schema_reply(&s, call))
		return;
	if (create_request_take(body, call->context->settings, &spec, &err) < 0) {
		sandbox_spec_free(&spec);
		api_reply_error(call, &err);
		return;
	}
	sandbox_create(call->context->manager, &spec, created, call);
}
