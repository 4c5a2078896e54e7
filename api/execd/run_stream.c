// SPDX-License-Identifier: Apache-2.0
#include "api/execd/run_stream.h"

#include "api/execd/code_events.h"
#include "api/execd/event_stream.h"
#include "api/execd/execd_int.h"
#include "api/execd/fs_call.h"
#include "base/cleanup.h"
#include "base/wallclock.h"

#include <errno.h>
#include <string.h>

#define PING_MS 3000u

int64_t run_stream_now_ms(void)
{
	return wall_usec() / 1000;
}

static void ping(void *arg)
{
	struct run_stream *s = arg;

	loop_timer_arm(s->ping, PING_MS);
	if (run_stream_full(s))
		return; /* a client that does not read needs no sign of life */
	event_ping(&s->events, run_stream_now_ms());
	run_stream_send(s);
}

int run_stream_init(struct run_stream *s, struct loop *loop, struct http_request *req)
{
	*s = (struct run_stream){.req = req, .ping = loop_timer_new(loop, ping, s)};
	return s->ping ? 0 : -ENOMEM;
}

void run_stream_clear(struct run_stream *s)
{
	loop_timer_free(s->ping);
	s->ping = NULL;
	buf_free(&s->events);
}

void run_stream_begin(struct run_stream *s, const char *id)
{
	if (!s->req || http_response_begun(s->req))
		return;
	http_response_by_event(s->req);
	http_response_begin(s->req, 200, EVENT_STREAM_CONTENT_TYPE, HTTP_TEXT(EVENT_STREAM_HEADERS), -1);
	event_init(&s->events, id, run_stream_now_ms());
	loop_timer_arm(s->ping, PING_MS);
}

bool run_stream_send(struct run_stream *s)
{
	bool good = !s->events.failed;

	if (s->req && good && buf_used(&s->events))
		http_response_write(s->req, buf_peek(&s->events), buf_used(&s->events));
	buf_clear(&s->events);
	if (s->req && !good) {
		/* without its events the answer would lie about the output */
		loop_timer_disarm(s->ping);
		http_response_fail(s->req);
		s->req = NULL;
	}
	return good;
}

void run_stream_end(struct run_stream *s)
{
	loop_timer_disarm(s->ping);
	if (s->events.failed) {
		run_stream_send(s); /* fails the answer */
	} else if (s->req) {
		http_response_finish(s->req, buf_used(&s->events) ? buf_peek(&s->events) : NULL, buf_used(&s->events));
		buf_clear(&s->events);
	}
	s->req = NULL;
}

void run_stream_refuse(struct run_stream *s, const struct sbx_err *err)
{
	if (!s->req)
		return;
	if (http_response_begun(s->req)) {
		static const char name[] = "RUNTIME_ERROR";
		static const struct code_list no_lines = {NULL, NULL};

		code_event_error(&s->events, name, sizeof(name) - 1, err->msg, strlen(err->msg), no_lines, run_stream_now_ms());
		run_stream_end(s);
		return;
	}
	loop_timer_disarm(s->ping);
	execd_respond_err(s->req, err);
	s->req = NULL;
}

bool run_stream_full(const struct run_stream *s)
{
	return s->req && http_response_queued(s->req) > HTTP_QUEUE_HIGH_BYTES;
}

struct agent_stream *run_stream_mkdir(struct execd_box *box, const char *path, const struct agent_stream_ops *ops, void *arg,
				      struct sbx_err *err)
{
	const char *const strings[] = {path, "", ""};
	struct fs_request r = {.op = AGENT_FS_MKDIR, .strings = strings, .n_strings = 3};
	struct agent_client *agent = execd_box_agent(box, err);
	auto_buf payload = {0};

	if (!agent || fs_request_payload(&r, &payload, err) < 0)
		return NULL;
	struct agent_stream *stream =
		agent_stream_open(agent, AGENT_FS, 0, buf_peek(&payload), buf_used(&payload), ops, arg, err);
	if (stream)
		agent_stream_deadline(stream, EXECD_ANSWER_MS);
	return stream;
}
