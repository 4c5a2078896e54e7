// SPDX-License-Identifier: Apache-2.0
/*
 * Commands.  A foreground run:
 *
 *	client                 gateway                       agent
 *	POST /command -------> EXEC -----------------------> shell
 *	       init, ping <--- STARTED <--------------------
 *	   stdout, stderr <--- STDOUT, STDERR <------------- lines; CREDIT goes back as the client takes them
 *	complete or error <--- EXIT <----------------------- after the last output
 *
 * Nothing is answered before STARTED, so a request that cannot start gets a status of its own.
 */
#include "api/execd/command_spec.h"
#include "api/execd/escape.h"
#include "api/execd/event_stream.h"
#include "api/execd/execd_int.h"
#include "api/execd/line_split.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PING_MS	     3000u
#define START_MS     30000u
/* TERM, 3 s, KILL, and the answer of a slow host. */
#define INTERRUPT_MS 15000u

struct run {
	struct execd_box *box;
	struct http_request *req;
	struct agent_stream *stream; /* NULL before the body is here */
	struct loop_timer *ping_timer;
	uint8_t id[AGENT_ID_BYTES];
	bool background;
	char cwd[128]; /* as asked for, cut; for a message */
	struct line_split lines[2]; /* stdout, stderr */
	struct buf events;	    /* made from one frame, sent as one chunk */
	const char *type;	    /* of the lines being split */
	int64_t now_ms;
	size_t not_granted; /* bytes that wait for the client to take what is queued */
};

static int64_t wall_ms(void)
{
	return wall_usec() / 1000;
}

static void run_free(struct run *r)
{
	loop_timer_free(r->ping_timer);
	line_split_clear(&r->lines[0]);
	line_split_clear(&r->lines[1]);
	buf_free(&r->events);
	execd_box_unref(r->box);
	free(r);
}

static void run_refuse(struct run *r, const struct sbx_err *err)
{
	execd_respond_err(r->req, err);
	run_free(r);
}

/* A stream without its events would lie to the client about the output: it is cut instead. */
static bool send_events(struct run *r)
{
	if (r->events.failed)
		return false;
	if (buf_used(&r->events))
		http_response_write(r->req, buf_peek(&r->events), buf_used(&r->events));
	buf_clear(&r->events);
	return true;
}

static void begin_stream(struct run *r)
{
	char id[EXECD_ID_SIZE];

	hex_encode(r->id, sizeof(r->id), id);
	http_response_by_event(r->req);
	http_response_begin(r->req, 200, EVENT_STREAM_CONTENT_TYPE, HTTP_TEXT(EVENT_STREAM_HEADERS), -1);
	event_init(&r->events, id, wall_ms());
}

static void end_stream(struct run *r)
{
	if (r->events.failed)
		http_response_fail(r->req);
	else
		http_response_finish(r->req, buf_used(&r->events) ? buf_peek(&r->events) : NULL, buf_used(&r->events));
	run_free(r);
}

static void run_ping(void *arg)
{
	struct run *r = arg;

	loop_timer_arm(r->ping_timer, PING_MS);
	if (http_response_queued(r->req) > HTTP_QUEUE_HIGH_BYTES)
		return; /* a client that does not read needs no sign of life */
	event_ping(&r->events, wall_ms());
	send_events(r);
}

static void run_started(void *arg, const struct agent_started *started)
{
	struct run *r = arg;

	(void)started;
	agent_stream_deadline(r->stream, 0);
	if (r->background)
		return; /* END follows */
	begin_stream(r);
	http_response_hold(r->req); /* most often the end has come with the beginning: one packet, one wake-up of the client */
	send_events(r);
	loop_timer_arm(r->ping_timer, PING_MS);
}

static void run_settled(void *arg)
{
	struct run *r = arg;

	http_response_release(r->req);
}

static void line_to_event(void *arg, const char *line, size_t n)
{
	struct run *r = arg;

	event_line(&r->events, r->type, line, n, r->now_ms);
}

static void run_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct run *r = arg;
	bool is_stderr = type == AGENT_STDERR;

	r->type = is_stderr ? "stderr" : "stdout";
	r->now_ms = wall_ms();
	line_split_feed(&r->lines[is_stderr], (const char *)data, n, line_to_event, r);
	if (!send_events(r)) {
		agent_stream_detach(r->stream);
		http_response_fail(r->req);
		run_free(r);
		return;
	}
	r->not_granted += n;
	if (http_response_queued(r->req) <= HTTP_QUEUE_HIGH_BYTES) {
		agent_stream_grant(r->stream, r->not_granted);
		r->not_granted = 0;
	}
}

static void run_writable(void *user, struct http_request *req)
{
	struct run *r = user;

	(void)req;
	if (!r->stream)
		return;
	agent_stream_grant(r->stream, r->not_granted);
	r->not_granted = 0;
}

static void flush_lines(struct run *r)
{
	r->now_ms = wall_ms();
	r->type = "stdout";
	line_split_finish(&r->lines[0], line_to_event, r);
	r->type = "stderr";
	line_split_finish(&r->lines[1], line_to_event, r);
}

static void run_exited(void *arg, const struct agent_exit *result)
{
	struct run *r = arg;
	char value[16], text[64];

	r->stream = NULL;
	flush_lines(r);
	if (!result->code && !result->signal) {
		event_complete(&r->events, (result->ended_wall_usec - result->started_wall_usec) / 1000, wall_ms());
	} else {
		snprintf(value, sizeof(value), "%d", result->signal ? -1 : result->code);
		event_exit_text(result->code, result->signal, text, sizeof(text));
		event_error(&r->events, "CommandExecError", value, text, wall_ms());
	}
	end_stream(r);
}

/* An error behind `init` is an event: the status has left already. */
static void run_fail(struct run *r, const struct sbx_err *err)
{
	r->stream = NULL;
	if (!http_response_begun(r->req)) {
		run_refuse(r, err);
		return;
	}
	flush_lines(r);
	event_error(&r->events, "CommandExecError", "-1", err->msg, wall_ms());
	end_stream(r);
}

static void run_start_failed(struct run *r, const struct agent_end *end, const char *text, size_t n)
{
	struct sbx_err err;
	int len = n < 160 ? (int)n : 160;

	r->stream = NULL;
	switch ((enum agent_stage)end->value) {
	case AGENT_STAGE_CWD:
		sbx_err_set(&err, SBX_E_EXECD_BODY, end->sys > 0 ? end->sys : ENOENT,
			    "invalid request, validation error: working directory %.*s", len ? len : (int)strlen(r->cwd),
			    len ? text : r->cwd);
		run_refuse(r, &err);
		return;
	case AGENT_STAGE_SPEC:
		sbx_err_set(&err, SBX_E_EXECD_BODY, end->sys > 0 ? end->sys : 0, "invalid request, validation error: %.*s",
			    len, text);
		run_refuse(r, &err);
		return;
	case AGENT_STAGE_NONE:
	case AGENT_STAGE_FORK:
	case AGENT_STAGE_CGROUP:
	case AGENT_STAGE_USER:
	case AGENT_STAGE_IDENTITY:
	case AGENT_STAGE_FILTER:
	case AGENT_STAGE_EXEC:
	default:
		break;
	}
	/* what the published server does when the shell cannot be started */
	sbx_err_set(&err, SBX_E_EXECD_RUNTIME, end->sys > 0 ? end->sys : EIO, "start the command%s%.*s", len ? ": " : "", len,
		    text);
	begin_stream(r);
	event_error(&r->events, "CommandExecError", err.msg, err.msg, wall_ms());
	end_stream(r);
}

static void run_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct run *r = arg;
	struct sbx_err err;

	if (end->reason == AGENT_OK && r->background) {
		r->stream = NULL;
		begin_stream(r);
		event_complete(&r->events, 0, wall_ms());
		end_stream(r);
	} else if (end->reason == AGENT_FAILED_START && !http_response_begun(r->req)) {
		run_start_failed(r, end, text, n);
	} else {
		execd_end_err(end, text, n, &err);
		run_fail(r, &err);
	}
}

static void run_lost(void *arg, const struct sbx_err *why)
{
	run_fail(arg, why);
}

/* The client is gone; the command goes on and can still be asked for. */
static void run_abort(void *user, struct http_request *req)
{
	struct run *r = user;

	(void)req;
	agent_stream_detach(r->stream);
	run_free(r);
}

static void run_body(void *user, struct http_request *req, const char *body, size_t n)
{
	static const struct agent_stream_ops ops = {
		.started = run_started, .settled = run_settled, .data = run_data, .exited = run_exited, .ended = run_ended,
		.lost = run_lost};
	struct run *r = user;
	struct sbx_err err;
	auto_buf payload = {0};

	(void)req;
	random_bytes(r->id, sizeof(r->id));
	struct agent_client *agent = execd_box_agent(r->box, &err);
	if (!agent || command_spec_from_json(body, n, r->id, &payload, &r->background, &err) < 0) {
		run_refuse(r, &err);
		return;
	}
	/* the working directory is the first string of every spec */
	snprintf(r->cwd, sizeof(r->cwd), "%s", buf_peek(&payload) + sizeof(struct agent_exec) + sizeof(struct agent_spec));
	r->stream = agent_stream_open(agent, AGENT_EXEC, 0, buf_peek(&payload), buf_used(&payload), &ops, r, &err);
	if (!r->stream) {
		run_refuse(r, &err);
		return;
	}
	agent_stream_deadline(r->stream, START_MS);
}

/* Return: NULL with the request answered. */
static struct run *run_new(struct execd_box *box, struct http_request *req)
{
	struct run *r = calloc(1, sizeof(*r));

	if (r) {
		*r = (struct run){.box = execd_box_ref(box), .req = req};
		r->ping_timer = loop_timer_new(box->x->loop, run_ping, r);
	}
	if (r && r->ping_timer)
		return r;
	if (r)
		run_free(r);
	http_respond_code(req, SBX_E_NO_MEMORY, "out of memory");
	return NULL;
}

void command_run(const struct execd_match *match)
{
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.whole = run_body, .whole_max = EXECD_BODY_BYTES, .writable = run_writable, .abort = run_abort};
	struct run *r = run_new(match->box, match->call->req);

	if (r)
		http_request_accept(match->call->req, &ops, r);
}

void command_run_json(struct execd_box *box, struct http_request *req, const char *body, size_t n)
{
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.writable = run_writable, .abort = run_abort};
	struct run *r = run_new(box, req);

	if (!r)
		return;
	http_request_accept(req, &ops, r);
	run_body(r, req, body, n);
}

/* ---- questions about a command: one stream, one answer ---- */

struct question {
	struct execd_box *box;
	struct http_request *req;
	struct agent_stream *stream;
	uint8_t id[AGENT_ID_BYTES];
	char id_text[40];    /* as the client wrote it */
	uint64_t cursor;     /* logs: where the client wants to go on */
	size_t not_granted;  /* logs */
	uint32_t tail_lines; /* logs: not 0 collects the end of the output in `tail` */
	struct buf tail;     /* owned */
};

static void question_free(struct question *q)
{
	execd_box_unref(q->box);
	buf_free(&q->tail);
	free(q);
}

static void question_refuse(struct question *q, const struct sbx_err *err)
{
	q->stream = NULL;
	if (http_response_begun(q->req))
		http_response_fail(q->req);
	else
		execd_respond_err(q->req, err);
	question_free(q);
}

static void question_lost(void *arg, const struct sbx_err *why)
{
	question_refuse(arg, why);
}

static void question_abort(void *user, struct http_request *req)
{
	struct question *q = user;

	(void)req;
	agent_stream_detach(q->stream);
	question_free(q);
}

static bool question_ask(struct question *q, enum agent_type type, const void *payload, size_t n,
			 const struct agent_stream_ops *ops, uint32_t deadline_ms)
{
	struct sbx_err err;
	struct agent_client *agent = execd_box_agent(q->box, &err);

	q->stream = agent ? agent_stream_open(agent, type, 0, payload, n, ops, q, &err) : NULL;
	if (!q->stream) {
		question_refuse(q, &err);
		return false;
	}
	agent_stream_deadline(q->stream, deadline_ms);
	return true;
}

/* Starts a question about the command @id_text; @unknown is what a text that is no id means. */
static struct question *question_new(const struct execd_match *match, const char *id_text, enum sbx_err_code unknown,
				     const char *unknown_text)
{
	struct question *q = calloc(1, sizeof(*q));
	struct sbx_err err;

	if (!q) {
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return NULL;
	}
	*q = (struct question){.box = execd_box_ref(match->box), .req = match->call->req};
	snprintf(q->id_text, sizeof(q->id_text), "%s", id_text);
	/* the gateway asks for the entrypoint's output: the id stays zero */
	if (match->call->tail_lines || execd_parse_id(id_text, q->id) == 0)
		return q;
	sbx_err_set(&err, unknown, 0, "%s", unknown_text);
	question_refuse(q, &err);
	return NULL;
}

/* ---- interrupt ---- */

#define NO_SUCH_SESSION "error interruptting code context. no such session" /* the published text */

static void interrupt_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct question *q = arg;
	struct sbx_err err;

	switch ((enum agent_reason)end->reason) {
	case AGENT_OK:
		execd_respond_empty(q->req);
		question_free(q);
		return;
	case AGENT_NO_SUCH_COMMAND:
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, NO_SUCH_SESSION);
		break;
	case AGENT_NOT_RUNNING:
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "command session %s is not running", q->id_text);
		break;
	case AGENT_FAILED_SYS:
	case AGENT_FAILED_START:
	case AGENT_BUSY:
	case AGENT_BAD_REQUEST:
	case AGENT_ENDED:
	default:
		execd_end_err(end, text, n, &err);
		break;
	}
	question_refuse(q, &err);
}

void command_interrupt(const struct execd_match *match)
{
	static const struct agent_stream_ops stream_ops = {.ended = interrupt_ended, .lost = question_lost};
	static const struct http_request_ops ops = {.flags = HTTP_KEEP_ON_HALF_CLOSE, .abort = question_abort};
	auto_free char *id = NULL;

	if (!execd_query_path(match->call, "id", &id))
		return;
	struct question *q = question_new(match, id, SBX_E_EXECD_RUNTIME, NO_SUCH_SESSION);
	if (q && question_ask(q, AGENT_INTERRUPT, q->id, sizeof(q->id), &stream_ops, INTERRUPT_MS))
		http_request_accept(q->req, &ops, q);
}

/* ---- status ---- */

static void status_replied(void *arg, const struct agent_command_status *status, const char *text, size_t n)
{
	struct question *q = arg;
	char when[RFC3339_SIZE], exit_text[64];
	auto_buf body = {0};
	struct jw w = {.out = &body};

	jw_object(&w);
	jw_key_str(&w, "id", q->id_text);
	jw_key(&w, "content");
	jw_strn(&w, text, escape_utf8_cut(text, n)); /* the agent keeps the beginning of a long one */
	jw_key_bool(&w, "running", status->running);
	if (!status->running) {
		jw_key_i64(&w, "exit_code", status->signal ? -1 : status->code);
		event_exit_text(status->code, status->signal, exit_text, sizeof(exit_text));
		if (status->code || status->signal)
			jw_key_str(&w, "error", exit_text);
	}
	rfc3339_format(status->started_wall_usec, when);
	jw_key_str(&w, "started_at", when);
	if (!status->running) {
		rfc3339_format(status->ended_wall_usec, when);
		jw_key_str(&w, "finished_at", when);
	}
	jw_object_end(&w);
	execd_respond_json(q->req, &body);
	question_free(q);
}

static void status_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct question *q = arg;
	struct sbx_err err;

	execd_end_err(end, text, n, &err);
	if (end->reason == AGENT_NO_SUCH_COMMAND)
		sbx_err_set(&err, SBX_E_EXECD_COMMAND_NOT_FOUND, 0, "command not found: %s", q->id_text);
	question_refuse(q, &err);
}

void command_status(const struct execd_match *match)
{
	static const struct agent_stream_ops stream_ops = {
		.replied = status_replied, .ended = status_ended, .lost = question_lost};
	static const struct http_request_ops ops = {.flags = HTTP_KEEP_ON_HALF_CLOSE, .abort = question_abort};
	char unknown[96];

	snprintf(unknown, sizeof(unknown), "command not found: %.64s", match->params[0]);
	struct question *q = question_new(match, match->params[0], SBX_E_EXECD_COMMAND_NOT_FOUND, unknown);
	if (q && question_ask(q, AGENT_STATUS, q->id, sizeof(q->id), &stream_ops, EXECD_ANSWER_MS))
		http_request_accept(q->req, &ops, q);
}

/* ---- logs: the status says where the output ends now, so that the cursor can stand in the head ---- */

static void logs_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct question *q = arg;

	(void)type;
	if (q->tail_lines) {
		buf_append(&q->tail, data, n);
		agent_stream_grant(q->stream, n);
		return;
	}
	http_response_write(q->req, data, n);
	q->not_granted += n;
	if (http_response_queued(q->req) <= HTTP_QUEUE_HIGH_BYTES) {
		agent_stream_grant(q->stream, q->not_granted);
		q->not_granted = 0;
	}
}

static void logs_writable(void *user, struct http_request *req)
{
	struct question *q = user;

	(void)req;
	if (!q->stream)
		return;
	agent_stream_grant(q->stream, q->not_granted);
	q->not_granted = 0;
}

/* The last tail_lines lines of what was collected; a line that was cut at its front is left out. */
static void respond_tail(struct question *q)
{
	const char *text = buf_peek(&q->tail);
	size_t n = buf_used(&q->tail), from = n;
	uint32_t lines = 0;

	if (q->tail.failed) {
		http_respond_code(q->req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	/* the newline that ends the last line begins no further one */
	while (from > 0 && !(from < n && text[from - 1] == '\n' && ++lines == q->tail_lines))
		from--;
	if (!from && q->cursor)
		while (from < n && text[from++] != '\n')
			;
	http_respond(q->req, 200, "text/plain; charset=utf-8", HTTP_TEXT("Deprecation: true\r\n"), n ? text + from : NULL, n - from);
}

static void logs_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct question *q = arg;
	struct sbx_err err;

	if (end->reason == AGENT_OK && q->tail_lines) {
		respond_tail(q);
		question_free(q);
		return;
	}
	if (end->reason == AGENT_OK) {
		http_response_end(q->req);
		question_free(q);
		return;
	}
	execd_end_err(end, text, n, &err);
	question_refuse(q, &err);
}

static void logs_replied(void *arg, const struct agent_command_status *status, const char *text, size_t n)
{
	static const struct agent_stream_ops stream_ops = {.data = logs_data, .ended = logs_ended, .lost = question_lost};
	struct question *q = arg;
	char cursor[64];
	uint64_t end = status->output_bytes > q->cursor ? status->output_bytes : q->cursor;

	(void)text;
	(void)n;
	int len = snprintf(cursor, sizeof(cursor), "EXECD-COMMANDS-TAIL-CURSOR: %" PRIu64 "\r\n", end);
	struct http_text headers = {cursor, (size_t)len};
	if (end == q->cursor) {
		http_respond(q->req, 200, "text/plain; charset=utf-8", headers, NULL, 0);
		question_free(q);
		return;
	}
	if (q->tail_lines && end > EXECD_TAIL_BYTES)
		q->cursor = end - EXECD_TAIL_BYTES;
	struct agent_logs logs = {.offset = q->cursor, .max_bytes = end - q->cursor};
	memcpy(logs.id, q->id, sizeof(logs.id));
	if (!q->tail_lines)
		http_response_begin(q->req, 200, "text/plain; charset=utf-8", headers, -1);
	question_ask(q, AGENT_LOGS, &logs, sizeof(logs), &stream_ops, 0);
}

static void logs_unknown(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct question *q = arg;
	struct sbx_err err;

	if (end->reason == AGENT_NO_SUCH_COMMAND && q->tail_lines) { /* diagnostics of a sandbox without an entrypoint */
		respond_tail(q);
		question_free(q);
		return;
	}
	execd_end_err(end, text, n, &err);
	if (end->reason == AGENT_NO_SUCH_COMMAND)
		sbx_err_set(&err, SBX_E_EXECD_BODY, 0, "command not found: %s", q->id_text);
	question_refuse(q, &err);
}

/* Absent or not a number: from the start, as the published server reads it; a negative one is an error there, too. */
static bool read_cursor(const struct execd_call *call, uint64_t *ret)
{
	auto_free char *text = NULL;
	int64_t value;

	*ret = 0;
	if (!execd_query_one(call, "cursor", &text))
		return false;
	if (!text || num_i64(text, strlen(text), &value) < 0)
		return true;
	if (value < 0) {
		http_respond_code(call->req, SBX_E_EXECD_BODY, "'cursor' is negative");
		return false;
	}
	*ret = (uint64_t)value;
	return true;
}

void command_logs(const struct execd_match *match)
{
	static const struct agent_stream_ops stream_ops = {
		.replied = logs_replied, .ended = logs_unknown, .lost = question_lost};
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.writable = logs_writable, .abort = question_abort};
	uint64_t cursor;
	char unknown[96];

	if (!read_cursor(match->call, &cursor))
		return;
	snprintf(unknown, sizeof(unknown), "command not found: %.64s", match->params[0]);
	struct question *q = question_new(match, match->params[0], SBX_E_EXECD_BODY, unknown);
	if (!q)
		return;
	q->cursor = cursor;
	q->tail_lines = match->call->tail_lines;
	q->tail.max = EXECD_TAIL_BYTES;
	if (question_ask(q, AGENT_STATUS, q->id, sizeof(q->id), &stream_ops, EXECD_ANSWER_MS))
		http_request_accept(q->req, &ops, q);
}
