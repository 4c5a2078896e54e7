// SPDX-License-Identifier: Apache-2.0
#include "api/execd/fs_call.h"

#include "base/cleanup.h"
#include "base/limits.h"

#include <errno.h>
#include <string.h>

/* Answers of lists and searches up to this size are kept whole, so that a late error still gets its status. */
#define KEEP_BYTES (256u * 1024)

int fs_request_payload(const struct fs_request *r, struct buf *out, struct sbx_err *err)
{
	struct agent_fs head = {.op = r->op,
				.flags = r->flags,
				.mode = r->mode,
				.depth = r->depth,
				.offset = r->offset,
				.length = r->length,
				.n_strings = (uint32_t)r->n_strings};
	size_t strings = 0;

	for (size_t i = 0; i < r->n_strings; i++) {
		size_t n = strlen(r->strings[i]) + 1;

		if (n > LIMIT_PATH_BYTES)
			return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "a path is longer than %u bytes", LIMIT_PATH_BYTES - 1);
		strings += n;
	}
	if (strings > LIMIT_SPAWN_BYTES)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "one request may hold %u bytes of paths", LIMIT_SPAWN_BYTES);
	head.string_bytes = (uint32_t)strings;
	buf_append(out, &head, sizeof(head));
	for (size_t i = 0; i < r->n_strings; i++)
		buf_append(out, r->strings[i], strlen(r->strings[i]) + 1);
	return out->failed ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "file request") : 0;
}

void fs_map_errno(enum agent_fs_op op, const struct agent_end *end, const char *text, size_t n, struct sbx_err *err)
{
	static const struct {
		enum agent_fs_op op;
		int sys;
		enum sbx_err_code code;
		const char *what;
	} rows[] = {
		{AGENT_FS_MOVE, EEXIST, SBX_E_EXECD_RUNTIME, "destination path already exists"},
		{AGENT_FS_UNLINK, EISDIR, SBX_E_EXECD_RUNTIME, "path is a directory"},
		{AGENT_FS_REPLACE, EISDIR, SBX_E_EXECD_RUNTIME, "path is a directory"},
		{AGENT_FS_READ, EISDIR, SBX_E_EXECD_BODY, "path is a directory"},
		{AGENT_FS_LIST, ELOOP, SBX_E_EXECD_BODY, "path is a symbolic link, refusing to traverse"},
		{AGENT_FS_LIST, ENOTDIR, SBX_E_EXECD_BODY, "path is not a directory"},
	};

	for (size_t i = 0; end->reason == AGENT_FAILED_SYS && i < ARRAY_SIZE(rows); i++)
		if (rows[i].op == op && rows[i].sys == end->sys) {
			sbx_err_set(err, rows[i].code, 0, "%s: %.*s", rows[i].what, n < 160 ? (int)n : 160, text);
			return;
		}
	if (op == AGENT_FS_SEARCH && end->reason == AGENT_BAD_REQUEST) /* its pattern: published as a failure, not as a bad request */
		sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, "%.*s", n < 200 ? (int)n : 200, text);
	else
		execd_end_err(end, text, n, err);
}

/* ---- the call ---- */

void fs_call_free(struct fs_call *call)
{
	if (call->ops->release)
		call->ops->release(call);
	for (size_t i = 0; i < call->n_payloads; i++)
		buf_free(&call->payloads[i]);
	for (size_t i = 0; i < call->n_names; i++) {
		free(call->names[i]);
		if (call->parts)
			buf_free(&call->parts[i]);
	}
	free(call->payloads);
	free(call->names);
	free(call->parts);
	buf_free(&call->body);
	execd_box_unref(call->box);
	free(call);
}

struct fs_call *fs_call_new(const struct execd_match *match, const struct fs_call_ops *ops)
{
	struct fs_call *call = calloc(1, sizeof(*call));

	if (!call) {
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return NULL;
	}
	*call = (struct fs_call){.ops = ops, .box = execd_box_ref(match->box), .req = match->call->req};
	call->writer.out = &call->body;
	return call;
}

void fs_call_refuse(struct fs_call *call, const struct sbx_err *err)
{
	if (call->streaming)
		http_response_fail(call->req); /* the client sees the cut */
	else
		execd_respond_err(call->req, err);
	fs_call_free(call);
}

int fs_call_add(struct fs_call *call, const struct fs_request *r, struct sbx_err *err)
{
	struct buf *payloads = reallocarray(call->payloads, call->n_payloads + 1, sizeof(*payloads));

	if (!payloads)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "file request");
	call->payloads = payloads;
	call->payloads[call->n_payloads] = (struct buf){0};
	return fs_request_payload(r, &call->payloads[call->n_payloads++], err);
}

static void call_lost(void *arg, const struct sbx_err *why)
{
	struct fs_call *call = arg;

	call->stream = NULL;
	fs_call_refuse(call, why);
}

/* Sends what has been made so far when it is too much to keep. */
static void spill(struct fs_call *call)
{
	if (!call->streaming && buf_used(&call->body) <= KEEP_BYTES)
		return;
	if (!call->streaming)
		http_response_begin(call->req, 200, "application/json; charset=utf-8", HTTP_NO_TEXT, -1);
	call->streaming = true;
	if (buf_used(&call->body))
		http_response_write(call->req, buf_peek(&call->body), buf_used(&call->body));
	buf_clear(&call->body);
}

static void call_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct fs_call *call = arg;
	struct sbx_err err;

	(void)type;
	sbx_err_set(&err, SBX_E_PROTOCOL, 0, "the agent of the sandbox sent data that nobody asked for");
	if (!call->ops->data || call->ops->data(call, data, n, &err) < 0) {
		agent_stream_detach(call->stream);
		fs_call_refuse(call, &err);
		return;
	}
	spill(call);
	call->not_granted += n;
	if (!call->streaming || http_response_queued(call->req) <= HTTP_QUEUE_HIGH_BYTES) {
		agent_stream_grant(call->stream, call->not_granted);
		call->not_granted = 0;
	}
}

static void call_writable(void *user, struct http_request *req)
{
	struct fs_call *call = user;

	(void)req;
	if (!call->stream)
		return;
	agent_stream_grant(call->stream, call->not_granted);
	call->not_granted = 0;
}

static void call_finish(struct fs_call *call)
{
	if (call->ops->finish)
		call->ops->finish(call);
	if (call->streaming) {
		spill(call);
		if (call->body.failed)
			http_response_fail(call->req);
		else
			http_response_end(call->req);
	} else if (call->ops->finish && (buf_used(&call->body) || call->body.failed)) {
		if (call->status && !call->body.failed)
			http_respond(call->req, call->status, "application/json; charset=utf-8", HTTP_NO_TEXT,
				     buf_peek(&call->body), buf_used(&call->body));
		else
			execd_respond_json(call->req, &call->body);
	} else {
		execd_respond_empty(call->req);
	}
	fs_call_free(call);
}

static void call_next(struct fs_call *call);

static void call_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct fs_call *call = arg;
	struct sbx_err err;

	call->stream = NULL;
	if (end->reason != AGENT_OK) {
		fs_map_errno(call->ops->op, end, text, n, &err);
		fs_call_refuse(call, &err);
		return;
	}
	call_next(call);
}

static void call_next(struct fs_call *call)
{
	static const struct agent_stream_ops ops = {.data = call_data, .ended = call_ended, .lost = call_lost};
	struct sbx_err err;

	if (call->next == call->n_payloads) {
		call_finish(call);
		return;
	}
	struct buf *payload = &call->payloads[call->next++];
	struct agent_client *agent = execd_box_agent(call->box, &err);
	call->stream = agent ? agent_stream_open(agent, AGENT_FS, 0, buf_peek(payload), buf_used(payload), &ops, call, &err) :
			       NULL;
	if (!call->stream)
		fs_call_refuse(call, &err);
	else
		buf_free(payload);
}

static void call_body(void *user, struct http_request *req, const char *body, size_t n)
{
	struct fs_call *call = user;
	struct sbx_err err;

	(void)req;
	if (call->ops->parse(call, body, n, &err) < 0)
		fs_call_refuse(call, &err);
	else
		call_next(call);
}

static void call_abort(void *user, struct http_request *req)
{
	struct fs_call *call = user;

	(void)req;
	agent_stream_detach(call->stream);
	fs_call_free(call);
}

void fs_call_start(struct fs_call *call)
{
	static const struct http_request_ops with_body = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.whole = call_body, .whole_max = EXECD_BODY_BYTES, .writable = call_writable, .abort = call_abort};
	static const struct http_request_ops without = {.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.writable = call_writable, .abort = call_abort};

	http_request_accept(call->req, call->ops->parse ? &with_body : &without, call);
	if (!call->ops->parse)
		call_next(call);
}
