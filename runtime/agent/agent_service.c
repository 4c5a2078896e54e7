// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_service.h"

#include "runtime/agent/agent_denied.h"

#include "runtime/agent/agent_int.h"
#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define EVENTS	       32
#define FRAMES_A_TURN  64
#define ROUNDS_A_TURN  16
#define IDLE_KEEP_BYTES 8192u

/* ---- loop ---- */

int service_watch(struct service *s, struct agent_source *src, int fd, uint32_t events)
{
	uint32_t hangup = events & EPOLLIN ? EPOLLRDHUP : 0u;
	struct epoll_event ev = {.events = events | hangup | EPOLLET, .data.ptr = src};

	/* writable at first: the first EAGAIN says otherwise */
	*src = (struct agent_source){.fd = fd, .writable = (events & EPOLLOUT) != 0};
	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		src->fd = -1;
		return -errno;
	}
	return 0;
}

void service_unwatch(struct service *s, struct agent_source *src)
{
	if (src->fd < 0)
		return;
	/* removed before it is closed: a forked child may still hold the description */
	ignore_result(epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, src->fd, NULL));
	close(src->fd);
	*src = (struct agent_source){.fd = -1};
}

/* ---- output to the gateway ---- */

uint8_t *service_room(struct service *s, uint32_t n)
{
	if (s->out_have + sizeof(struct agent_frame) + n > INT_OUT_BYTES)
		return NULL;
	return s->out + s->out_have + sizeof(struct agent_frame);
}

void service_commit(struct service *s, uint16_t type, uint32_t stream, uint32_t n)
{
	struct agent_frame f = {.size = n, .type = type, .stream = stream};

	memcpy(s->out + s->out_have, &f, sizeof(f));
	s->out_have += (uint32_t)sizeof(f) + n;
	if (s->out_have > s->out_high)
		s->out_high = s->out_have;
}

void service_frame(struct service *s, uint16_t type, uint32_t stream, uint32_t value, const void *a, uint32_t a_n,
		   const void *b, uint32_t b_n)
{
	struct agent_frame *head = (struct agent_frame *)(void *)(s->out + s->out_have);
	uint8_t *at = s->out + s->out_have + sizeof(*head);
	struct agent_frame f = {.size = a_n + b_n, .type = type, .stream = stream, .value = value};

	memcpy(head, &f, sizeof(f));
	if (a_n)
		memcpy(at, a, a_n);
	if (b_n)
		memcpy(at + a_n, b, b_n);
	s->out_have += (uint32_t)sizeof(f) + f.size;
	if (s->out_have > s->out_high)
		s->out_high = s->out_have;
}

/* Return: true when everything has been taken by the FIFO. */
static bool flush(struct service *s)
{
	while (s->out_sent < s->out_have) {
		if (!s->exec_out.writable)
			return false;
		ssize_t n = write(s->exec_out.fd, s->out + s->out_sent, s->out_have - s->out_sent);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			/* full, or (EPIPE) nobody reads: wait for the next gateway either way */
			s->exec_out.writable = 0;
			return false;
		}
		s->out_sent += (uint32_t)n;
	}
	s->out_have = s->out_sent = 0;
	return true;
}

/* ---- streams ---- */

void service_free_stream(struct service *s, struct stream *st)
{
	if (st->kind == STREAM_ASSEMBLING)
		s->assembly_bytes -= st->size;
	else if (st->kind == STREAM_FILES)
		s->input_bytes -= st->size;
	fs_front_drop(s, st);
	free(st->bytes);
	if (st->files.fd > 0) /* 0 is /dev/null, and what a stream that was never opened holds */
		service_unwatch(s, &st->files);
	if (st->content.fd > 0)
		service_unwatch(s, &st->content);
	*st = (struct stream){0};
	while (s->streams_top && s->streams[s->streams_top - 1].kind == STREAM_FREE)
		s->streams_top--;
}

void service_end(struct service *s, struct stream *st, enum agent_reason reason, int sys, uint64_t value, const char *text)
{
	uint32_t id = st->id;
	size_t n = strlen(text);

	if (st->cmd && st->cmd->stream == st)
		st->cmd->stream = NULL;
	service_free_stream(s, st);
	st->kind = STREAM_END;
	st->id = id;
	if (st >= s->streams + s->streams_top)
		s->streams_top = (uint32_t)(st - s->streams) + 1;
	if (n > sizeof(st->text))
		n = sizeof(st->text);
	memcpy(st->text, text, n);
	st->end = (struct agent_end){.reason = reason, .sys = sys < 0 ? -sys : sys, .value = value,
				     .text_bytes = (uint32_t)n};
}

static struct stream *find_stream(struct service *s, uint32_t id)
{
	for (uint32_t i = 0; i < s->streams_top; i++)
		if (s->streams[i].kind != STREAM_FREE && s->streams[i].id == id)
			return &s->streams[i];
	return NULL;
}

static struct stream *open_stream(struct service *s, uint32_t id)
{
	for (uint32_t i = 0; i < LIMIT_STREAMS; i++) {
		struct stream *st = &s->streams[i];

		if (st->kind != STREAM_FREE)
			continue;
		*st = (struct stream){.kind = STREAM_END, .id = id, .credit = AGENT_WINDOW, .window = AGENT_WINDOW,
				      .files.fd = -1, .content.fd = -1};
		if (i >= s->streams_top)
			s->streams_top = i + 1;
		return st;
	}
	return NULL;
}

/* The client of @st is gone: its command goes on, its file operation does not. */
static void detach_stream(struct service *s, struct stream *st)
{
	if (st->kind == STREAM_COMMAND && st->cmd)
		cmd_detached(s, st->cmd);
	if (st->kind == STREAM_FILES)
		fs_cancel(s, st);
	service_free_stream(s, st);
}

static void drop_attachment(struct service *s)
{
	for (uint32_t i = 0; i < s->streams_top; i++)
		if (s->streams[i].kind != STREAM_FREE)
			detach_stream(s, &s->streams[i]);
	/* a frame that the FIFO holds the first part of has to be finished, whoever reads it */
	uint32_t at = 0;
	while (at < s->out_sent) {
		struct agent_frame f;

		memcpy(&f, s->out + at, sizeof(f));
		at += (uint32_t)sizeof(f) + f.size;
	}
	s->out_have = at;
	s->attached = false;
}

static bool produce_logs(struct service *s, struct stream *st)
{
	const struct spool *spool = &st->cmd->spool;
	uint64_t from;

	if (st->offset >= st->end_offset) {
		service_end(s, st, AGENT_OK, 0, st->offset, "");
		return true;
	}
	uint8_t *room = service_room(s, INT_SCRATCH_BYTES);
	if (!room || st->credit < (int64_t)INT_END_TEXT)
		return false;
	if (st->offset < spool->start) {
		char note[INT_END_TEXT];
		int n = snprintf(note, sizeof(note), "[%llu bytes of output are no longer kept]\n",
				 (unsigned long long)(spool->start - st->offset));

		memcpy(room, note, (size_t)n);
		st->offset = spool->start;
		st->credit -= n;
		service_commit(s, AGENT_DATA, st->id, (uint32_t)n);
		return true;
	}
	uint64_t want = st->end_offset - st->offset;
	if (want > INT_SCRATCH_BYTES)
		want = INT_SCRATCH_BYTES;
	if (want > (uint64_t)st->credit)
		want = (uint64_t)st->credit;
	ssize_t n = spool_read(spool, s->agent->spool_fd, st->offset, room, (size_t)want, &from);
	if (n <= 0) {
		service_end(s, st, n ? AGENT_FAILED_SYS : AGENT_OK, (int)n, from, "");
		return true;
	}
	st->offset = from + (uint64_t)n;
	st->credit -= n;
	service_commit(s, AGENT_DATA, st->id, (uint32_t)n);
	return true;
}

static void produce_status(struct service *s, struct stream *st)
{
	const struct cmd *c = st->cmd;
	struct agent_command_status msg = {
		.running = c->state != CMD_ENDED,
		.code = c->code,
		.signal = c->signal,
		.flags = c->exit_flags,
		.background = c->background,
		.text_bytes = (uint32_t)strlen(c->text),
		.started_wall_usec = c->started_wall_usec,
		.ended_wall_usec = c->ended_wall_usec,
		.output_bytes = c->spool.total,
	};

	service_frame(s, AGENT_STATUS_REPLY, st->id, 0, &msg, sizeof(msg), c->text, msg.text_bytes);
	service_free_stream(s, st);
}

/* Appends at most one frame of @st. */
static bool produce(struct service *s, struct stream *st)
{
	switch (st->kind) {
	case STREAM_FREE:
	case STREAM_ASSEMBLING:
	case STREAM_INTERRUPT:
		return false;
	case STREAM_COMMAND:
		return cmd_produce(s, st);
	case STREAM_FILES:
		return fs_produce(s, st);
	case STREAM_LOGS:
		return produce_logs(s, st);
	case STREAM_STATUS:
		produce_status(s, st);
		return true;
	case STREAM_END:
		service_frame(s, AGENT_END, st->id, 0, &st->end, sizeof(st->end), st->text, st->end.text_bytes);
		service_free_stream(s, st);
		return true;
	}
	return false;
}

/* Return: true when there may be more to do at once. */
static bool pump(struct service *s)
{
	bool any = true;

	if (s->out_have && !flush(s))
		return false;
	if (s->attach_reply) {
		service_frame(s, AGENT_ATTACHED, 0, 0, &s->attach, sizeof(s->attach), NULL, 0);
		s->attach_reply = false;
		s->attached = true;
	}
	/* one frame of each stream in turn, several frames a write */
	for (int frames = 0; any && frames < FRAMES_A_TURN;) {
		uint32_t n_open = s->streams_top;

		any = false;
		for (uint32_t i = 0; i < n_open; i++) {
			struct stream *st = &s->streams[(s->next_stream + i) % n_open];

			/* room for the largest frame that is not asked for by service_room() */
			if (st->kind == STREAM_FREE || s->out_have + INT_TEXT_BYTES + 256 > INT_OUT_BYTES)
				continue;
			if (produce(s, st)) {
				any = true;
				frames++;
			}
		}
		s->next_stream = (s->next_stream + 1) % LIMIT_STREAMS;
		if (s->out_have > AGENT_OUT_FRAME && !flush(s))
			return false;
	}
	bool more = s->out_have > 0;
	return flush(s) && more;
}

/* ---- frames from the gateway ---- */

static void begin_exec(struct service *s, struct stream *st)
{
	struct agent_exec head;
	struct spec_view view;
	enum agent_stage stage;
	struct cmd *c;
	static const uint8_t none[AGENT_ID_BYTES];

	if (st->size < sizeof(head)) {
		service_end(s, st, AGENT_BAD_REQUEST, 0, 0, "the request is too short");
		return;
	}
	memcpy(&head, st->bytes, sizeof(head));
	if (spec_read(st->bytes + sizeof(head), st->size - sizeof(head), 0, &view)) {
		service_end(s, st, AGENT_BAD_REQUEST, 0, 0, "the command's specification is not well-formed");
		return;
	}
	if (!memcmp(head.id, none, sizeof(none)) || cmd_find(s, head.id)) {
		service_end(s, st, AGENT_BAD_REQUEST, 0, 0, "the command's id is in use");
		return;
	}
	if (s->dead || s->status.state != AGENT_STATE_RUNNING) {
		service_end(s, st, AGENT_ENDED, 0, 0, "the sandbox is not running");
		return;
	}
	if (s->n_running >= INT_RUNNING_MAX) {
		service_end(s, st, AGENT_BUSY, 0, 0, "too many running commands");
		return;
	}
	int r = cmd_start(s, head.id, &view, false, &c, &stage);
	if (r) {
		service_end(s, st, AGENT_FAILED_START, r, stage, "");
		return;
	}
	s->assembly_bytes -= st->size;
	uint8_t *bytes = take_ptr(st->bytes);
	if (c->launched.slot >= 0) { /* the launcher may die before it has done it */
		c->launched.bytes = bytes;
		c->launched.n = st->size;
	} else {
		free(bytes);
	}
	st->kind = STREAM_COMMAND;
	st->cmd = c;
	c->stream = st;
}

static void assembled(struct service *s, struct stream *st)
{
	if (st->type == AGENT_EXEC) {
		if (s->told_env.fd < 0)
			begin_exec(s, st); /* else it waits, whole, for take_told_env() */
		return;
	}
	if (s->dead)
		service_end(s, st, AGENT_ENDED, 0, 0, "the sandbox is not running");
	else
		fs_start(s, st);
}

static int begin_request(struct service *s, const struct agent_frame *f, const uint8_t *payload)
{
	uint32_t max = (uint32_t)(sizeof(struct agent_exec) + sizeof(struct agent_spec)) + LIMIT_SPAWN_BYTES;

	if (f->type == AGENT_EXEC)
		max += AGENT_DRIVER_TEXT_MAX;
	else
		max = (uint32_t)sizeof(struct agent_fs) + LIMIT_API_BODY_BYTES;
	if (f->value < f->size || f->value > max)
		return -EPROTO;
	struct stream *st = open_stream(s, f->stream);
	if (!st)
		return 0;
	if (s->assembly_bytes + f->value > INT_ASSEMBLY_BYTES || !(st->bytes = malloc(f->value + 1))) {
		service_end(s, st, AGENT_BUSY, 0, 0, "too many requests at once");
		return 0;
	}
	st->kind = STREAM_ASSEMBLING;
	st->type = f->type;
	st->size = f->value;
	s->assembly_bytes += st->size;
	memcpy(st->bytes, payload, f->size);
	st->have = f->size;
	if (st->have == st->size)
		assembled(s, st);
	return 0;
}

static int more_request(struct service *s, struct stream *st, const struct agent_frame *f, const uint8_t *payload)
{
	if (!st)
		return 0; /* refused already */
	if (st->kind == STREAM_END)
		return 0;
	if (st->kind != STREAM_ASSEMBLING || f->size > st->size - st->have)
		return -EPROTO;
	memcpy(st->bytes + st->have, payload, f->size);
	st->have += f->size;
	if (st->have == st->size)
		assembled(s, st);
	return 0;
}

/* STATUS, LOGS, INTERRUPT, SIGNAL: all begin with the id of a command. */
static int about_command(struct service *s, struct stream *open, const struct agent_frame *f, const uint8_t *payload)
{
	if (f->size < AGENT_ID_BYTES)
		return -EPROTO;
	struct cmd *c = cmd_find(s, payload);
	if (f->type == AGENT_SIGNAL && (f->value == 0 || f->value > 64))
		return -EPROTO;
	if (f->type == AGENT_SIGNAL && open) {
		/* sent on the command's own stream: no answer there */
		if (c)
			ignore_result(cmd_signal(s, c, (int)f->value)); /* it may just have ended; EXIT says so */
		return 0;
	}
	if (open)
		return -EPROTO;
	struct stream *st = open_stream(s, f->stream);
	if (!st)
		return 0;
	if (!c) {
		service_end(s, st, AGENT_NO_SUCH_COMMAND, 0, 0, "");
		return 0;
	}
	st->cmd = c;
	if (f->type == AGENT_STATUS) {
		st->kind = STREAM_STATUS;
	} else if (f->type == AGENT_LOGS) {
		struct agent_logs req;

		if (f->size != sizeof(req)) {
			service_free_stream(s, st);
			return -EPROTO;
		}
		memcpy(&req, payload, sizeof(req));
		st->kind = STREAM_LOGS;
		st->offset = req.offset;
		st->end_offset = c->spool.total;
		if (req.max_bytes && req.offset < st->end_offset && req.max_bytes < st->end_offset - req.offset)
			st->end_offset = req.offset + req.max_bytes;
	} else if (c->state == CMD_ENDED) {
		service_end(s, st, AGENT_NOT_RUNNING, 0, 0, "");
	} else if (f->type == AGENT_INTERRUPT) {
		st->kind = STREAM_INTERRUPT;
		cmd_interrupt(s, c);
	} else {
		int r = cmd_signal(s, c, (int)f->value);

		service_end(s, st, r == -ESRCH ? AGENT_NOT_RUNNING : r ? AGENT_FAILED_SYS : AGENT_OK, r, 0, "");
	}
	return 0;
}

static int stream_bytes(struct service *s, struct stream *st, const struct agent_frame *f, const uint8_t *payload)
{
	int r = 0;

	if (!st || (st->kind != STREAM_COMMAND && st->kind != STREAM_FILES))
		return 0; /* it has just ended */
	if (f->size > st->window)
		return -EPROTO;
	st->window -= f->size;
	if (f->type == AGENT_STDIN && st->kind == STREAM_COMMAND)
		r = cmd_input(s, st->cmd, payload, f->size);
	else if (f->type == AGENT_DATA && st->kind == STREAM_FILES)
		r = fs_input(s, st, payload, f->size);
	else
		return -EPROTO;
	if (r == -ENOMEM) {
		service_end(s, st, AGENT_BUSY, 0, 0, "out of memory");
		r = 0;
	}
	return r;
}

static int stream_bulk(struct service *s, struct stream *st, uint32_t n)
{
	if (!s->bulk)
		return -EPROTO;
	/* what has just ended takes nothing any more, but its bytes stand in front of the next stream's */
	if (!st || st->kind != STREAM_FILES)
		return fs_skip(s, n);
	if (n > st->window)
		return -EPROTO;
	st->window -= n;
	return fs_bulk(s, st, n);
}

/* What an earlier gateway left behind means nothing to the next one; more than a FIFO holds is not there. */
static void empty_fifo(const struct service *s, int fd)
{
	for (uint32_t n = 0; n < INT_FIFO_MAX; n += INT_SCRATCH_BYTES)
		if (read(fd, s->scratch, INT_SCRATCH_BYTES) <= 0)
			return;
}

static void attach(struct service *s, const uint8_t *payload)
{
	struct agent_attach req;

	memcpy(&req, payload, sizeof(req));
	drop_attachment(s);
	empty_fifo(s, s->agent->bulk_in_fd);
	empty_fifo(s, s->agent->bulk_out_fd);
	s->in_high |= 1; /* the scratch has been touched */
	s->bulk = req.flags & AGENT_ATTACH_BULK;
	req.version = AGENT_VERSION;
	req.flags &= AGENT_ATTACH_BULK;
	s->attach = req;
	s->attach_reply = true;
}

static int exec_frame(struct service *s, const struct agent_frame *f, const uint8_t *payload)
{
	struct stream *st = find_stream(s, f->stream);

	switch ((enum agent_type)f->type) {
	case AGENT_ATTACH:
		if (f->size != sizeof(struct agent_attach))
			return -EPROTO;
		attach(s, payload);
		return 0;
	case AGENT_EXEC:
	case AGENT_FS:
		return st ? -EPROTO : begin_request(s, f, payload);
	case AGENT_MORE:
		return more_request(s, st, f, payload);
	case AGENT_STDIN:
	case AGENT_DATA:
		return stream_bytes(s, st, f, payload);
	case AGENT_STDIN_EOF:
		if (st && st->kind == STREAM_COMMAND)
			cmd_input_eof(s, st->cmd);
		return 0;
	case AGENT_BULK:
		return f->size ? -EPROTO : stream_bulk(s, st, f->value);
	case AGENT_EOF:
		if (st && st->kind == STREAM_FILES && st->takes_content) {
			st->upload_eof = true;
			fs_push(s, st);
		}
		return 0;
	case AGENT_RESIZE:
		if (st && st->kind == STREAM_COMMAND)
			cmd_resize(st->cmd, f->value);
		return 0;
	case AGENT_DETACH:
		if (st)
			detach_stream(s, st);
		return 0;
	case AGENT_CREDIT:
		if (st && st->credit < (int64_t)INT32_MAX)
			st->credit += f->value;
		return 0;
	case AGENT_SIGNAL:
	case AGENT_INTERRUPT:
	case AGENT_STATUS:
	case AGENT_LOGS:
		return about_command(s, st, f, payload);
	case AGENT_NONE:
	case AGENT_START:
	case AGENT_QUERY:
	case AGENT_STOP:
	case AGENT_DENIED:
	case AGENT_ATTACHED:
	case AGENT_STARTED:
	case AGENT_STDOUT:
	case AGENT_STDERR:
	case AGENT_EXIT:
	case AGENT_STATUS_REPLY:
	case AGENT_END:
		break;
	}
	return -EPROTO;
}

/*
 * With nobody attached, whatever arrives is the rest of an attachment that has ended: only ATTACH counts, and its place in
 * the bytes is not known after a malformed frame.
 */
static uint32_t find_attach(const struct service *s)
{
	uint32_t need = (uint32_t)(sizeof(struct agent_frame) + sizeof(struct agent_attach));

	for (uint32_t at = 0; at < s->in_have; at++) {
		struct agent_frame f;
		uint32_t version;

		if (s->in_have - at < need)
			return at;
		memcpy(&f, s->in + at, sizeof(f));
		memcpy(&version, s->in + at + sizeof(f) + AGENT_NONCE_BYTES, sizeof(version));
		if (f.type == AGENT_ATTACH && f.size == sizeof(struct agent_attach) && !f.zero && version == AGENT_VERSION)
			return at;
	}
	return s->in_have;
}

static void parse_exec(struct service *s)
{
	uint32_t at = 0;

	while (at < s->in_have) {
		struct agent_frame f;
		const uint8_t *payload;

		if (!s->attached && !s->attach_reply) {
			memmove(s->in, s->in + at, s->in_have - at);
			s->in_have -= at;
			at = find_attach(s);
			if (s->in_have - at < sizeof(f) + sizeof(struct agent_attach))
				break;
		}
		int n = spec_frame(s->in + at, s->in_have - at, &f, &payload);
		if (n == 0)
			break;
		if (n < 0 || exec_frame(s, &f, payload) == -EPROTO) {
			drop_attachment(s);
			s->attach_reply = false;
			n = n < 0 ? 1 : n;
		}
		at += (uint32_t)n;
	}
	memmove(s->in, s->in + at, s->in_have - at);
	s->in_have -= at;
}

/* Return: true when there may be more to read. */
static bool read_exec(struct service *s)
{
	uint32_t room = INT_IN_BYTES - s->in_have;
	ssize_t n = read(s->exec_in.fd, s->in + s->in_have, room);

	if (n < 0 && errno == EINTR)
		return true;
	if (n < (ssize_t)room)
		s->exec_in.ready = 0; /* it is empty, and what comes gives a new edge */
	if (n <= 0)
		return false;
	s->in_have += (uint32_t)n;
	if (s->in_have > s->in_high)
		s->in_high = s->in_have;
	parse_exec(s);
	return true;
}

/* ---- control channel ---- */

static void start_failed(struct service *s, enum agent_stage stage, int r)
{
	s->status.state = AGENT_STATE_START_FAILED;
	s->status.stage = stage;
	s->status.sys = -r;
	s->status_due = true;
	s->dead = true;
}

static void start_entry(struct service *s)
{
	static const uint8_t none[AGENT_ID_BYTES];
	struct agent *a = s->agent;
	struct spec_view view;
	enum agent_stage stage = AGENT_STAGE_SPEC;
	int r = spec_read(s->start, s->start_size, 1, &view);

	if (!r) {
		/* stays for good: every later command starts from it */
		a->start_bytes = take_ptr(s->start);
		a->base_cwd = view.cwd;
		a->base_env = view.env;
		a->n_base_env = view.spec.n_env;
		if (!view.spec.n_args) {
			/* no entrypoint: the sandbox is there for its commands, until it is deleted */
			s->status.state = AGENT_STATE_RUNNING;
			s->status.started_wall_usec = sysx_wall_usec();
			s->status_due = true;
			cmd_drop_spare(s, false); /* there is nothing for it */
			s->launcher_due = true;
			return;
		}
		r = cmd_start(s, none, &view, true, &s->entry, &stage);
	}
	if (r)
		start_failed(s, stage, r);
}

static void control_frame(struct service *s, const struct agent_frame *f, const uint8_t *payload)
{
	bool begin = f->type == AGENT_START;

	switch (f->type) {
	case AGENT_QUERY:
		s->status_due = true;
		return;
	case AGENT_STOP:
		if (s->entry && s->entry->pid && f->value && f->value <= 64)
			kill(-s->entry->group, (int)f->value);
		return;
	case AGENT_DENIED:
		denied_append(&s->agent->denied, payload, f->size);
		return;
	case AGENT_START:
	case AGENT_MORE:
		break;
	default:
		return;
	}
	if (s->status.state != AGENT_STATE_WAITING || (begin ? s->start != NULL : !s->start))
		return; /* only the first START counts, also after a restart of the daemon */
	if (begin) {
		if (f->value < f->size || f->value > LIMIT_SPAWN_BYTES + sizeof(struct agent_spec) ||
		    !(s->start = malloc(f->value + 1))) {
			start_failed(s, AGENT_STAGE_SPEC, -E2BIG);
			return;
		}
		s->start_size = f->value;
		s->start_have = 0;
	}
	if (f->size > s->start_size - s->start_have) {
		start_failed(s, AGENT_STAGE_SPEC, -EPROTO);
		return;
	}
	memcpy(s->start + s->start_have, payload, f->size);
	s->start_have += f->size;
	if (s->start_have == s->start_size)
		start_entry(s);
}

/*
 * sandboxd writes whole frames of at most PIPE_BUF bytes, so a read that begins at a frame ends at one when its size is a
 * multiple of nothing smaller: frames are read one by one.
 */
static bool read_control(struct service *s)
{
	struct agent_frame f;
	const uint8_t *payload;
	uint8_t *buf = s->scratch;
	ssize_t n = read(s->control_in.fd, buf, sizeof(f));

	s->in_high |= 1; /* the scratch has been touched */

	if (n != (ssize_t)sizeof(f)) {
		s->control_in.ready = 0;
		return false;
	}
	memcpy(&f, buf, sizeof(f));
	if (f.size && f.size <= AGENT_IN_FRAME - sizeof(f) &&
	    read(s->control_in.fd, buf + sizeof(f), f.size) != (ssize_t)f.size)
		return false;
	if (spec_frame(buf, sizeof(f) + f.size, &f, &payload) > 0)
		control_frame(s, &f, payload);
	return true;
}

/* ---- the environment that the entrypoint's shell tells ---- */

/* What a shell keeps for itself means nothing to another process. */
static bool is_the_shells(const char *entry)
{
	static const char *const own[] = {"_=", "SHLVL=", "PWD=", "OLDPWD="};

	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (!strncmp(entry, own[i], strlen(own[i])))
			return true;
	return false;
}

/* It is the tenant's word about the tenant's own processes: any of it is as good as what START said, when it fits. */
static void take_told_env(struct service *s)
{
	struct agent *a = s->agent;
	char *to = s->told, *end = s->told + s->told_have;
	uint32_t n = 0;

	if (s->told_have && s->told_have < INT_TOLD_BYTES && !end[-1]) {
		for (char *from = s->told, *next; from < end; from = next) {
			size_t len = strlen(from) + 1;

			next = from + len;
			if (*from == '=' || !strchr(from, '=') || is_the_shells(from) || n == LIMIT_SPAWN_STRINGS)
				continue;
			memmove(to, from, len);
			to += len;
			n++;
		}
		a->base_env = take_ptr(s->told); /* for good, as START's bytes are */
		a->n_base_env = n;
		launch_drop(s); /* it has the old one */
		s->launcher_due = true;
	}
	free(take_ptr(s->told));
	service_unwatch(s, &s->told_env);
	for (uint32_t i = 0; i < s->streams_top; i++) {
		struct stream *st = &s->streams[i];

		if (st->kind == STREAM_ASSEMBLING && st->type == AGENT_EXEC && st->have == st->size)
			begin_exec(s, st);
	}
}

static void read_told_env(struct service *s)
{
	if (!s->told && !(s->told = malloc(INT_TOLD_BYTES))) {
		take_told_env(s);
		return;
	}
	while (s->told_have < INT_TOLD_BYTES) {
		ssize_t n = read(s->told_env.fd, s->told + s->told_have, INT_TOLD_BYTES - s->told_have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			s->told_env.ready = 0;
			return;
		}
		if (n <= 0)
			break;
		s->told_have += (uint32_t)n;
	}
	take_told_env(s);
}

static void send_status(struct service *s)
{
	ssize_t n;

	if (!s->status_due || !s->control_out.writable)
		return;
	s->status.magic = AGENT_STATUS_MAGIC;
	n = write(s->control_out.fd, &s->status, sizeof(s->status));
	/* smaller than PIPE_BUF: whole or not at all */
	if (n == (ssize_t)sizeof(s->status))
		s->status_due = false;
	else if (errno != EINTR)
		s->control_out.writable = 0;
}

/* ---- children ---- */

static bool reap(struct service *s)
{
	struct signalfd_siginfo info[4];
	pid_t pid;
	int status;

	if (!s->signals.ready)
		return false;
	while (read(s->signals.fd, info, sizeof(info)) == (ssize_t)sizeof(info))
		;
	s->signals.ready = 0;
	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		if (pid == s->spare.pid)
			cmd_drop_spare(s, true);
		else if (launch_reaped(s, pid))
			cmd_relaunch(s);
		else if (!cmd_reaped(s, pid, status))
			fs_reaped(s, pid); /* else an orphan of the tenants: nobody waits for it */
	s->cmd_events = true;
	return true;
}

/* ---- the loop ---- */

static bool idle(const struct service *s)
{
	for (uint32_t i = 0; i < s->streams_top; i++)
		if (s->streams[i].kind != STREAM_FREE)
			return false;
	return !s->in_have && !s->out_have;
}

/*
 * The pages of buffers and streams go back to the kernel: an idle sandbox costs memory only for what it is.  While a
 * launcher waits, the next command is likely: then only when there are many.
 */
static void give_back(struct service *s)
{
	uint32_t keep = s->launcher.pid ? IDLE_KEEP_BYTES : 0;

	if ((s->in_high <= keep && s->out_high <= keep) || !idle(s))
		return;
	ignore_result(madvise(s->in, s->mapped_bytes, MADV_DONTNEED)); /* only a saving */
	s->in_high = s->out_high = 0;
}

/* Return: whether something happens within a moment. */
static bool soon(const struct service *s)
{
	struct pollfd p = {.fd = s->epoll_fd, .events = POLLIN};
	/* behind the first command a sandbox is as often deleted as used again; who asks at once twice gets it at once from then on */
	const struct timespec moment = {.tv_nsec = s->serial == 2 ? 5000000 : 200000};

	return ppoll(&p, 1, &moment, NULL) > 0;
}

/*
 * Bounded, because a child that prints without end keeps its pipe ready for ever, and what the kernel has to tell besides
 * is only heard in between.  Return: true when there is more to do at once.
 */
static bool turn(struct service *s)
{
	bool more = true;

	for (int round = 0; more && round < ROUNDS_A_TURN; round++) {
		more = reap(s);
		if (s->control_in.ready)
			more |= read_control(s);
		if (s->exec_in.ready)
			more |= read_exec(s);
		if (s->told_env.fd >= 0 && s->told_env.ready)
			read_told_env(s);
		if (s->cmd_events)
			cmd_walk(s);
		/* before the answers go out: what a child has taken is credit, which may be all that the gateway waits for */
		for (uint32_t i = 0; i < s->streams_top; i++)
			if (s->streams[i].kind == STREAM_FILES)
				fs_push(s, &s->streams[i]);
		more |= pump(s);
		more |= s->cmd_events;
		send_status(s);
	}
	/*
	 * All answers are out: what the next command needs can be done while the client thinks.  Whom an answer wakes mostly stands
	 * behind us in the queue of this processor, and would only run when the launcher does: it goes first.
	 */
	if (s->ahead_due && !more)
		cmd_make_ahead(s);
	if (s->launcher_due && !more && !soon(s))
		launch_make(s);
	return more;
}

static int wait_ms(struct service *s, bool more)
{
	int64_t now = sysx_mono_usec(), next = cmd_timers(s, now);

	if (more || s->cmd_events)
		return 0;
	if (next == INT64_MAX)
		return -1;
	int64_t ms = (next - now + 999) / 1000;
	return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

static int setup(struct service *s)
{
	struct agent *a = s->agent;
	sigset_t set;

	/* three descriptors for each running command, of which there may be more than the usual soft limit */
	if (getrlimit(RLIMIT_NOFILE, &a->nofile) < 0)
		return -errno;
	struct rlimit all = {a->nofile.rlim_max, a->nofile.rlim_max};
	if (setrlimit(RLIMIT_NOFILE, &all) < 0 || getrlimit(RLIMIT_DATA, &a->data) < 0)
		return -errno;
	/* our own bound, whatever our group's is; children get theirs back */
	struct rlimit data = {a->data.rlim_cur < AGENT_DATA_BYTES ? a->data.rlim_cur : AGENT_DATA_BYTES, a->data.rlim_max};
	if (setrlimit(RLIMIT_DATA, &data) < 0)
		return -errno;
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll_fd < 0)
		return -errno;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	s->mapped_bytes = INT_IN_BYTES + INT_OUT_BYTES + INT_SCRATCH_BYTES + LIMIT_STREAMS * sizeof(struct stream);
	s->in = mmap(NULL, s->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->in == MAP_FAILED)
		return -errno;
	s->scratch = s->in + INT_IN_BYTES;
	s->streams = (struct stream *)(void *)(s->scratch + INT_SCRATCH_BYTES);
	s->out = (uint8_t *)(s->streams + LIMIT_STREAMS);
	int *fifo[] = {&a->control_in_fd, &a->control_out_fd, &a->exec_in_fd, &a->exec_out_fd, &a->bulk_in_fd, &a->bulk_out_fd};
	for (size_t i = 0; i < ARRAY_SIZE(fifo); i++)
		if (fcntl(*fifo[i], F_SETFL, O_NONBLOCK) < 0)
			return -errno;
	/* our ends are open both ways: of those that we write to, what we wrote ourselves must not wake us */
	int r = service_watch(s, &s->signals, fd, EPOLLIN);
	if (!r)
		r = service_watch(s, &s->control_in, a->control_in_fd, EPOLLIN);
	if (!r)
		r = service_watch(s, &s->control_out, a->control_out_fd, EPOLLOUT);
	if (!r)
		r = service_watch(s, &s->exec_in, a->exec_in_fd, EPOLLIN);
	if (!r)
		r = service_watch(s, &s->exec_out, a->exec_out_fd, EPOLLOUT);
	if (!r)
		r = service_watch(s, &s->bulk_out, a->bulk_out_fd, EPOLLOUT);
	s->told_env.fd = s->launcher.sock.fd = -1;
	s->status.state = AGENT_STATE_WAITING;
	/* what was written before the loop began gives no edge */
	s->control_in.ready = s->exec_in.ready = s->signals.ready = 1;
	return r;
}

struct service *service_new(struct agent *a)
{
	struct service *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->agent = a;
	if (setup(s) < 0)
		return NULL; /* pid 1 ends, and with it everything */
	cmd_make_spare(s);
	return s;
}

int service_run(struct service *s)
{
	struct epoll_event ev[EVENTS];

	for (;;) {
		bool more = turn(s);

		if (!more)
			give_back(s);
		int n = epoll_wait(s->epoll_fd, ev, EVENTS, wait_ms(s, more));
		/* all marks are set before any is acted on, so nothing that this batch frees is touched by it */
		for (int i = 0; i < n; i++) {
			struct agent_source *src = ev[i].data.ptr;

			src->ready |= (ev[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
			src->printed |= (ev[i].events & EPOLLIN) != 0;
			src->writable |= (ev[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
		}
		s->cmd_events = true;
	}
}
