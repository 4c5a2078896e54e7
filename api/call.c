// SPDX-License-Identifier: Apache-2.0
#include "api/call.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define JSON_TYPE "application/json"

void api_reply(struct api_call *call, const struct api_answer *answer)
{
	if (call->ended) {
		/* a handler answered twice: the first answer stands */
		log_error("internal: a request was answered twice");
		return;
	}
	call->ended = true;
	call->answer(call->answer_arg, answer);
	if (!call->in_handler)
		free(call);
}

void api_reply_json(struct api_call *call, uint32_t status, struct buf *body)
{
	const char *text = buf_str(body);

	if (!text) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	const struct api_answer answer = {
		.status = status, .content_type = JSON_TYPE, .headers = "", .body = text, .body_len = buf_used(body)};
	api_reply(call, &answer);
}

void api_reply_text(struct api_call *call, struct buf *body, const char *headers)
{
	const char *text = buf_str(body);

	if (!text) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	const struct api_answer answer = {.status = 200,
					  .content_type = "text/plain; charset=utf-8",
					  .headers = headers,
					  .body = text,
					  .body_len = buf_used(body)};
	api_reply(call, &answer);
}

void api_reply_empty(struct api_call *call, uint32_t status)
{
	const struct api_answer answer = {.status = status, .content_type = "", .headers = "", .body = ""};

	api_reply(call, &answer);
}

/* Errors whose text names files and system calls of ours: the log has it, the client gets the sentence of the table. */
static bool is_inside(enum sbx_err_code code)
{
	return code == SBX_E_SYSTEM || code == SBX_E_NO_MEMORY || code == SBX_E_PROTOCOL || code == SBX_E_NONE ||
	       code >= SBX_E_COUNT;
}

void api_error_body(const struct sbx_err *err, struct buf *out)
{
	struct jw w = {.out = out};
	bool inside = is_inside(err->code);

	if (inside)
		log_error("request failed: %s: %s", sbx_err_name(err->code), err->msg);
	jw_object(&w);
	jw_key_str(&w, "code", sbx_err_api_code(err->code));
	jw_key_str(&w, "message", inside || !err->msg[0] ? sbx_err_meaning(err->code) : err->msg);
	jw_object_end(&w);
}

void api_error_answer(const struct sbx_err *err, struct buf *body, struct api_answer *ret)
{
	static const char fallback[] = "{\"code\":\"GENERAL::UNKNOWN_ERROR\",\"message\":\"out of memory\"}";
	bool again = err->code == SBX_E_LIMIT || err->code == SBX_E_OVERLOADED || err->code == SBX_E_PEER_GONE;

	api_error_body(err, body);
	const char *text = buf_str(body);
	*ret = (struct api_answer){
		.status = (uint32_t)sbx_err_status(err->code),
		.content_type = JSON_TYPE,
		.headers = again ? "Retry-After: 1\r\n" : "",
		.body = text ? text : fallback,
		.body_len = text ? buf_used(body) : sizeof(fallback) - 1,
	};
}

void api_reply_error(struct api_call *call, const struct sbx_err *err)
{
	struct api_answer answer;
	auto_buf body = {0};

	api_error_answer(err, &body, &answer);
	api_reply(call, &answer);
}

void api_reply_code(struct api_call *call, enum sbx_err_code code, const char *fmt, ...)
{
	struct sbx_err err = {.code = code};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err.msg, sizeof(err.msg), fmt, ap);
	va_end(ap);
	api_reply_error(call, &err);
}

/* application/json or application/<anything>+json, with or without parameters */
static bool is_json_type(struct http_text type)
{
	static const char prefix[] = "application/";
	size_t n = 0;

	while (n < type.len && type.data[n] != ';' && type.data[n] != ' ' && type.data[n] != '\t')
		n++;
	if (n <= sizeof(prefix) - 1 || strncasecmp(type.data, prefix, sizeof(prefix) - 1) != 0)
		return false;
	const char *sub = type.data + sizeof(prefix) - 1;
	size_t len = n - (sizeof(prefix) - 1);
	return (len == 4 && !strncasecmp(sub, "json", 4)) || (len > 5 && !strncasecmp(sub + len - 5, "+json", 5));
}

int api_call_body(struct api_call *call, bool required, struct jv **ret)
{
	const struct api_request *r = call->request;
	struct sbx_err err = {0};

	*ret = NULL;
	if (!r->body.len) {
		if (!required)
			return 0;
		api_reply_code(call, SBX_E_SCHEMA, "body: a JSON object is required");
		return -1;
	}
	/*
	 * A page of another origin may send text/plain, or nothing, without asking first.  With a key that is no matter,
	 * because a page cannot guess it.
	 */
	bool trusted = call->authorised_by_key || r->unix_peer;
	if (r->content_type.len ? !is_json_type(r->content_type) : !trusted) {
		api_reply_code(call, SBX_E_SCHEMA, "body: the Content-Type must be application/json");
		return -1;
	}
	*ret = jv_parse(r->body.data, r->body.len, &err);
	if (!*ret) {
		api_reply_error(call, &err);
		return -1;
	}
	return 0;
}
