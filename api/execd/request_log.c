// SPDX-License-Identifier: Apache-2.0
/*
 * EXECD_LOG_FILE: one JSON line per request, appended inside the sandbox.  Lines are collected and written by one file
 * operation at a time; the requests never wait for it.  Paths are logged without their query, so no token of a query
 * ends up in a file of the sandbox.
 */
#include "api/execd/execd_int.h"
#include "api/execd/fs_call.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/wallclock.h"

#include <string.h>

#define KEEP_BYTES (64u * 1024)
#define COLLECT_MS 50u

struct request_log {
	struct execd_box *box; /* borrowed: the box owns the log */
	struct loop_timer *timer;
	struct buf payload; /* of AGENT_FS_APPEND */
	struct buf lines;   /* not sent yet */
	struct agent_stream *stream;
	bool eof_sent, said_why;
	uint64_t n_dropped;
};

static void log_later(struct request_log *log)
{
	if (!loop_timer_armed(log->timer))
		loop_timer_arm(log->timer, COLLECT_MS);
}

static void log_send(void *arg)
{
	struct request_log *log = arg;
	struct sbx_err err;
	size_t room = agent_stream_room(log->stream), n = buf_used(&log->lines);

	if (log->eof_sent)
		return;
	n = n < room ? n : room;
	if (n && agent_stream_send(log->stream, AGENT_DATA, buf_peek(&log->lines), n, &err) == 0)
		buf_consume(&log->lines, n);
	if (buf_used(&log->lines))
		return; /* `writable` comes */
	log->eof_sent = true;
	agent_stream_control(log->stream, AGENT_EOF, 0);
}

static void log_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct request_log *log = arg;

	log->stream = NULL;
	if (end->reason != AGENT_OK && !log->said_why) {
		log->said_why = true;
		log_info("EXECD_LOG_FILE cannot be written in a sandbox: %.*s: %s", n < 160 ? (int)n : 160, text,
			 end->sys > 0 ? strerror(end->sys) : "refused");
	}
	if (end->reason != AGENT_OK)
		buf_clear(&log->lines);
	if (buf_used(&log->lines))
		log_later(log);
}

static void log_lost(void *arg, const struct sbx_err *why)
{
	struct request_log *log = arg;

	(void)why; /* the box goes with the channel */
	log->stream = NULL;
	buf_clear(&log->lines);
}

static void log_flush(void *arg)
{
	static const struct agent_stream_ops ops = {.writable = log_send, .ended = log_ended, .lost = log_lost};
	struct request_log *log = arg;
	struct sbx_err err;

	if (log->stream || !log->box->agent)
		return;
	log->stream = agent_stream_open(log->box->agent, AGENT_FS, 0, buf_peek(&log->payload), buf_used(&log->payload), &ops,
					log, &err);
	if (!log->stream) {
		log_later(log); /* all streams are in use; the buffer is bounded */
		return;
	}
	log->eof_sent = false;
	log_send(log);
}

struct request_log *request_log_new(struct execd_box *box, const char *path)
{
	struct request_log *log = calloc(1, sizeof(*log));
	struct fs_request r = {.op = AGENT_FS_APPEND, .strings = (const char *const[]){path, "", ""}, .n_strings = 3};
	struct sbx_err err;

	if (!log)
		return NULL;
	log->box = box;
	log->lines.max = KEEP_BYTES;
	log->timer = loop_timer_new(box->x->loop, log_flush, log);
	if (log->timer && fs_request_payload(&r, &log->payload, &err) == 0)
		return log;
	request_log_free(log);
	return NULL;
}

void request_log_free(struct request_log *log)
{
	if (!log)
		return;
	agent_stream_detach(log->stream);
	loop_timer_free(log->timer);
	buf_free(&log->payload);
	buf_free(&log->lines);
	free(log);
}

void request_log_add(struct request_log *log, const struct execd_call *call)
{
	auto_buf line = {0}, msg = {0};
	struct jw w = {.out = &line};
	struct http_text method = http_request_method(call->req);
	char when[RFC3339_SIZE];

	rfc3339_format(wall_usec() / 1000 * 1000, when);
	buf_printf(&msg, "Requested: %.*s - %.*s", (int)method.len, method.data, (int)call->path_len, call->path);
	jw_object(&w);
	jw_key_str(&w, "level", "info");
	jw_key_str(&w, "ts", when);
	jw_key(&w, "msg");
	jw_strn(&w, buf_peek(&msg), buf_used(&msg));
	jw_object_end(&w);
	buf_append(&line, "\n", 1);
	if (msg.failed || line.failed || buf_used(&log->lines) + buf_used(&line) > KEEP_BYTES) {
		log->n_dropped++;
		return;
	}
	buf_append(&log->lines, buf_peek(&line), buf_used(&line));
	if (!log->stream)
		log_later(log);
}
