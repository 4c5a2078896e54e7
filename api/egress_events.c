// SPDX-License-Identifier: Apache-2.0
#include "api/egress_events.h"

#include "api/call.h"
#include "api/deny_hook.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/num.h"
#include "base/settings.h"
#include "netpolicy/overlay.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STREAMS_MAX	256u
#define STREAM_WAITING	(64u * 1024) /* bytes that wait for a slow reader, beside the pipe's own */
#define KEEP_ALIVE_MS	15000u	     /* proxies close what is silent for longer */
#define LINE_MAX_BYTES	2048u

struct stream {
	struct stream *next;
	struct egress_events *owner;
	uint8_t id[16];
	int fd; /* owned; write end */
	struct loop_fd *source;
	struct buf waiting;
	unsigned lost;
};

struct egress_events {
	struct loop *loop;
	const struct settings *settings;
	struct sandbox_manager *manager;
	struct journal *journal;
	struct loop_timer *keep_alive;
	struct deny_hook *hook; /* NULL: none is configured */
	struct policy *log_skip; /* owned; names whose allowed look-ups are not told; NULL: none */
	struct stream *streams;
	unsigned n_streams;
};

/* ---- streams ---- */

static void stream_free(struct stream *s)
{
	for (struct stream **at = &s->owner->streams; *at; at = &(*at)->next) {
		if (*at != s)
			continue;
		*at = s->next;
		break;
	}
	s->owner->n_streams--;
	loop_fd_remove(s->source);
	close_keep_errno(s->fd);
	buf_free(&s->waiting);
	free(s);
}

/* Return: false when the reader is gone, and so is @s */
static bool stream_flush(struct stream *s)
{
	while (buf_used(&s->waiting)) {
		ssize_t n = write(s->fd, buf_peek(&s->waiting), buf_used(&s->waiting));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			loop_fd_events(s->source, EPOLLOUT);
			return true;
		}
		if (n < 0) {
			stream_free(s);
			return false;
		}
		buf_consume(&s->waiting, (size_t)n);
	}
	loop_fd_events(s->source, 0);
	return true;
}

static void put_event(struct stream *s, const struct journal_event *e)
{
	if (buf_used(&s->waiting) > STREAM_WAITING) {
		s->lost++;
		return;
	}
	if (s->lost)
		buf_printf(&s->waiting, ": %u events were lost, this reader is too slow\n\n", s->lost);
	s->lost = 0;
	buf_printf(&s->waiting, "id: %llu\nevent: %s\ndata: ", (unsigned long long)e->number, journal_kind_name(e->kind));
	journal_json(e, JOURNAL_JSON_SANDBOX, &s->waiting);
	buf_puts(&s->waiting, "\n\n");
}

static void on_stream(void *arg, int fd, uint32_t events)
{
	struct stream *s = arg;

	(void)fd;
	if (events & (EPOLLERR | EPOLLHUP))
		stream_free(s);
	else if (events & EPOLLOUT)
		stream_flush(s);
}

static void on_keep_alive(void *arg)
{
	struct egress_events *ev = arg;

	for (struct stream *s = ev->streams, *next; s; s = next) {
		next = s->next;
		if (buf_used(&s->waiting))
			continue;
		buf_puts(&s->waiting, ": still here\n\n");
		stream_flush(s);
	}
	if (ev->streams)
		loop_timer_arm(ev->keep_alive, KEEP_ALIVE_MS);
}

int egress_events_stream(struct egress_events *ev, const uint8_t id[16], uint64_t after, struct sbx_err *err)
{
	struct stream *s;
	int fds[2];

	if (ev->n_streams >= STREAMS_MAX)
		return sbx_err_set(err, SBX_E_OVERLOADED, 0, "there are already %u streams of events", STREAMS_MAX);
	s = calloc(1, sizeof(*s));
	if (!s)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "stream of events");
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		free(s);
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "stream of events");
	}
	*s = (struct stream){.next = ev->streams, .owner = ev, .fd = fds[1]};
	memcpy(s->id, id, sizeof(s->id));
	ev->streams = s;
	ev->n_streams++;
	s->source = loop_fd_add(ev->loop, s->fd, 0, on_stream, s);
	if (!s->source) {
		stream_free(s);
		close_keep_errno(fds[0]);
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "stream of events");
	}
	buf_puts(&s->waiting, ": events follow\n\n");
	for (const struct journal_event *e; after != UINT64_MAX && (e = journal_next(ev->journal, id, after)); after = e->number)
		put_event(s, e);
	if (!stream_flush(s)) {
		close_keep_errno(fds[0]);
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "stream of events");
	}
	if (!loop_timer_armed(ev->keep_alive))
		loop_timer_arm(ev->keep_alive, KEEP_ALIVE_MS);
	return fds[0];
}

/* ---- in and out ---- */

static void to_sandbox(struct egress_events *ev, const struct journal_event *e)
{
	auto_buf line = {.max = LINE_MAX_BYTES};

	if (!ev->manager || !journal_is_denial(e))
		return;
	journal_json(e, 0, &line);
	buf_puts(&line, "\n");
	if (!line.failed)
		sandbox_denied(ev->manager, e->sandbox_id, buf_peek(&line), buf_used(&line));
}

static void on_published(void *arg, const struct journal_event *e)
{
	struct egress_events *ev = arg;

	to_sandbox(ev, e); /* first: whoever was denied waits for it */
	deny_hook_add(ev->hook, e);
	for (struct stream *s = ev->streams, *next; s; s = next) {
		next = s->next;
		if (memcmp(s->id, e->sandbox_id, sizeof(s->id)) != 0)
			continue;
		put_event(s, e);
		stream_flush(s);
	}
}

void egress_events_add(struct egress_events *ev, const struct sandbox *sandbox, const struct policy *policy, const struct egress_event *event)
{
	(void)sandbox; /* the event names it */
	if (!ev)
		return;
	if (event->kind == EGRESS_EVENT_DNS_ALLOWED && ev->log_skip && policy_decide_name(ev->log_skip, event->name, strlen(event->name)).allow)
		return;
	journal_add(ev->journal, event, policy);
}

void egress_events_gone(struct egress_events *ev, const struct sandbox *sandbox)
{
	if (!ev)
		return;
	for (struct stream *s = ev->streams, *next; s; s = next) {
		next = s->next;
		if (!memcmp(s->id, sandbox->id, sizeof(s->id)))
			stream_free(s);
	}
	journal_forget(ev->journal, sandbox->id);
}

void egress_events_set_starter(struct egress_events *ev, const struct fetch_starter *starter)
{
	deny_hook_set_starter(ev->hook, starter);
}

const struct deny_hook_counts *egress_events_hook(const struct egress_events *ev)
{
	return deny_hook_counts(ev->hook);
}

const struct journal *egress_events_journal(const struct egress_events *ev)
{
	return ev->journal;
}

void egress_events_set_manager(struct egress_events *ev, struct sandbox_manager *m)
{
	if (ev)
		ev->manager = m;
}

/* ---- answers ---- */

static bool names_stream(struct http_text accept)
{
	static const char type[] = "text/event-stream";

	for (size_t i = 0; i + sizeof(type) - 1 <= accept.len; i++)
		if (!strncasecmp(accept.data + i, type, sizeof(type) - 1))
			return true;
	return false;
}

static int read_after(const struct api_request *request, struct http_text query, uint64_t *ret, struct sbx_err *err)
{
	auto_free char *text = NULL;

	if (http_query_get(query, "after", &text) < 0 || (!text && request->last_event_id.len && !(text = http_text_dup(request->last_event_id))))
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "after: cannot be read");
	if (text && num_u64(text, strlen(text), UINT64_MAX - 1, ret) < 0)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "after: \"%.32s\" is no number of an event", text);
	return text != NULL;
}

int egress_events_answer(struct egress_events *ev, const struct sandbox *sandbox, const struct api_request *request, struct http_text query,
			 struct buf *body, struct api_answer *ret, struct sbx_err *err)
{
	auto_free char *follow = NULL;
	struct jw w = {.out = body};
	uint64_t after = 0;
	int known = read_after(request, query, &after, err);

	if (known < 0)
		return -1;
	if (http_query_get(query, "follow", &follow) < 0)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "follow: cannot be read");
	*ret = (struct api_answer){.status = 200, .content_type = "application/json", .headers = "Cache-Control: no-cache\r\n", .body = ""};
	if (names_stream(request->accept) || (follow && (!strcmp(follow, "true") || !strcmp(follow, "1")))) {
		int fd = egress_events_stream(ev, sandbox->id, known ? after : UINT64_MAX, err);

		if (fd < 0)
			return -1;
		ret->content_type = "text/event-stream";
		ret->headers = "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";
		ret->stream_fd = fd;
		return 0;
	}
	jw_object(&w);
	jw_key(&w, "items");
	jw_array(&w);
	for (const struct journal_event *e; (e = journal_next(ev->journal, sandbox->id, after)); after = e->number) {
		auto_buf text = {0};

		journal_json(e, JOURNAL_JSON_SANDBOX, &text);
		jw_raw(&w, buf_peek(&text), buf_used(&text));
	}
	jw_array_end(&w);
	jw_object_end(&w);
	ret->body = buf_str(body);
	ret->body_len = buf_used(body);
	return ret->body ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "events");
}

struct egress_events *egress_events_new(struct loop *loop, const struct settings *settings, const struct deny_hook_secret *secret,
					struct sbx_err *err)
{
	struct egress_events *ev = calloc(1, sizeof(*ev));

	if (!ev) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "egress events");
		return NULL;
	}
	*ev = (struct egress_events){.loop = loop, .settings = settings};
	const struct journal_hooks hooks = {.arg = ev, .published = on_published};
	ev->journal = journal_new(loop, &hooks, err);
	ev->keep_alive = loop_timer_new(loop, on_keep_alive, ev);
	bool failed = ev->journal && ev->keep_alive &&
		      (deny_hook_new(loop, settings, secret, &ev->hook, err) < 0 || overlay_names(settings->egress_log_skip, &ev->log_skip, err) < 0);
	if (ev->journal && ev->keep_alive && !failed)
		return ev;
	if (ev->journal && !failed)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "egress events");
	egress_events_free(ev);
	return NULL;
}

void egress_events_free(struct egress_events *ev)
{
	if (!ev)
		return;
	while (ev->streams)
		stream_free(ev->streams);
	deny_hook_free(ev->hook);
	policy_free(ev->log_skip);
	journal_free(ev->journal);
	loop_timer_free(ev->keep_alive);
	free(ev);
}
