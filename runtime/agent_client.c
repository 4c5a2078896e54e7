// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent_client.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* A started agent answers in microseconds; a host that swaps may need seconds. */
#define HELLO_MS 10000u
/* The agent's last frames are in the FIFO when it dies; without an end of file there is nothing to wait for. */
#define DEAF_MS 1000u
/*
 * One turn of the loop serves this much of one sandbox, then the next one: so many bytes, so many frames, and so long.  The
 * time is what bounds it: a frame of empty lines becomes 16,384 events.  A long one is served in slices.
 */
#define READ_TURN_BYTES	 (64u * 1024)
#define READ_TURN_FRAMES 16u
#define READ_TURN_USEC	 1000u
#define READ_SLICE_BYTES 4096u
/* Unsent frames of one sandbox: one request of the largest size always fits beside uploads of other streams. */
#define OUT_BODY_BYTES	(512u * 1024)
#define OUT_MAX_BYTES	(OUT_BODY_BYTES + 2 * LIMIT_SPAWN_BYTES + AGENT_DRIVER_TEXT_MAX)
/* A queue that was larger than this gives its memory back when it is empty. */
#define KEEP_OUT_BYTES	(16u * 1024)
/* An agent that grants more than this lost count; ours grants what it consumed. */
#define MAX_SEND_CREDIT (16u * AGENT_WINDOW)
#define GRANT_STEP	(AGENT_WINDOW / 4)
/* Frames that were under way when a stream was detached: its credit, and this much of frames that need none. */
#define STALE_EXTRA_BYTES (AGENT_OUT_FRAME + 1024)
#define MAX_WAITERS	  256u
/* Interrupts and status calls must get through when long requests hold everything else. */
#define RESERVED_STREAMS 4u
#define SLOT_BITS	 6u
/*
 * While content is under way the bulk FIFOs hold two windows: one stream's bytes may wait there for its client, and the next
 * stream's still find room.  Who gets less (the kernel bounds what one user's pipes hold) copies more.
 */
#define BULK_FIFO_BYTES	 (2u * AGENT_WIDE_WINDOW)
#define BULK_FIFO_LESS	 (2u * AGENT_WINDOW)
#define IDLE_FIFO_BYTES	 (64u * 1024)
#define MAX_PAYLOAD_IN	 (AGENT_IN_FRAME - (uint32_t)sizeof(struct agent_frame))
#define MAX_PAYLOAD_OUT	 (AGENT_OUT_FRAME - (uint32_t)sizeof(struct agent_frame))

static_assert(LIMIT_STREAMS == 1u << SLOT_BITS, "a stream number's low bits are its slot");
static_assert(LIMIT_STREAMS <= 64, "a bit for each slot");
static_assert(sizeof(struct agent_frame) == 16, "layout of agent_msg.h");

struct agent_stream {
	struct agent_client *client;
	uint32_t number;
	enum agent_type type;
	bool started;	     /* EXEC: STARTED was seen */
	bool driver;	     /* EXEC: of a driver, which tells something besides its output */
	bool uses_bulk;	     /* its content goes or comes over the bulk channel */
	size_t receive_left; /* bytes that the agent may still send */
	size_t owed;	     /* consumed, not granted back yet */
	size_t send_left;    /* bytes that we may still send */
	const struct agent_stream_ops *ops;
	void *arg;
	struct loop_timer *deadline; /* owned; NULL: none */
	struct agent_stream *next_dead;
};

struct waiter {
	agent_client_ready *ready;
	void *arg;
};

struct agent_client {
	struct loop *loop;
	int write_fd, read_fd;		/* owned */
	int bulk_write_fd, bulk_read_fd; /* owned; -1: there is none */
	struct loop_fd *in, *out;	/* owned */
	struct loop_timer *hello_timer; /* owned; ends the wait for ATTACHED, or for the last frames of a dead agent */
	struct loop_timer *later;	/* owned; breaking and waiters, which must not run inside a caller */
	struct loop_timer *next_turn; /* owned; serves the backlog */
	struct loop_fd *bulk_room; /* owned; tells when bulk_write_fd takes more */
	bool bulk;	     /* both ends have a bulk channel */
	bool bulk_resized;   /* the FIFOs are larger than usual, or could not be made so */
	bool bulk_wide;	     /* bulk_read_fd holds two wide windows */
	bool bulk_waits;     /* bulk_read_fd is so large that content may wait there for its client */
	size_t n_bulk_users, next_offer;
	struct {
		struct agent_stream *stream; /* NULL: detached, its bytes are to be thrown away */
		size_t left;
	} front; /* bytes that stand first in bulk_read_fd and were announced */
	struct buf received; /* the beginning of a frame */
	struct buf unsent;
	uint8_t nonce[AGENT_NONCE_BYTES];
	bool attached, broken, freed, was_full;
	bool backlog; /* whole frames wait in `received` for the next turn */
	bool deaf; /* nothing reads our frames any more; what was sent to us before is still read */
	struct sbx_err why;
	unsigned busy; /* depth of callbacks: memory is released when it is 0 */
	struct agent_stream *slots[LIMIT_STREAMS];
	uint64_t unsettled; /* slots: got STARTED in this batch */
	uint32_t serials[LIMIT_STREAMS]; /* last one used in each slot */
	size_t n_streams, n_long;
	size_t stale_left; /* bytes that may still come for streams that were detached */
	struct agent_stream *dead;
	struct waiter *waiters; /* owned */
	size_t n_waiters, cap_waiters;
	agent_client_broken *on_broken;
	void *on_broken_arg;
};

/* Memory of one that is over stays until the outermost handler returns. */
static bool is_open(const struct agent_stream *s)
{
	return s->client->slots[s->number & (LIMIT_STREAMS - 1)] == s;
}

static bool is_long(enum agent_type type)
{
	return type == AGENT_EXEC || type == AGENT_FS || type == AGENT_LOGS;
}

/* ---- life of memory: everything that a callback may free waits until the outermost handler returns ---- */

static void release_dead(struct agent_client *c)
{
	if (c->busy)
		return;
	for (struct agent_stream *s; (s = c->dead);) {
		c->dead = s->next_dead;
		free(s);
	}
	if (!c->freed)
		return;
	buf_free(&c->received);
	buf_free(&c->unsent);
	free(c->waiters);
	free(c);
}

static void enter(struct agent_client *c)
{
	c->busy++;
}

static void flush(struct agent_client *c);
static void bulk_settle(struct agent_client *c);

/* What the callbacks queued leaves in one write. */
static void leave(struct agent_client *c)
{
	if (c->busy == 1 && c->front.left && !c->front.stream)
		bulk_settle(c);
	c->busy--;
	if (!c->busy && !c->broken && buf_used(&c->unsent))
		flush(c);
	release_dead(c);
}

/* A size that the kernel refuses is no failure: see BULK_FIFO_BYTES. */
static void bulk_resize(struct agent_client *c, int bytes)
{
	const int fd[] = {c->bulk_write_fd, c->bulk_read_fd};

	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		if (fcntl(fd[i], F_SETPIPE_SZ, bytes) < 0 && bytes > (int)BULK_FIFO_LESS)
			ignore_result(fcntl(fd[i], F_SETPIPE_SZ, (int)BULK_FIFO_LESS));
	int have = fcntl(c->bulk_read_fd, F_GETPIPE_SZ);
	c->bulk_waits = have >= (int)BULK_FIFO_LESS;
	c->bulk_wide = have >= (int)BULK_FIFO_BYTES;
	c->bulk_resized = bytes > (int)IDLE_FIFO_BYTES;
}

/* @many: more than the FIFOs hold by themselves */
static void bulk_use(struct agent_stream *s, bool many)
{
	struct agent_client *c = s->client;

	c->n_bulk_users += !s->uses_bulk;
	s->uses_bulk = true;
	if (many && !c->bulk_resized)
		bulk_resize(c, (int)BULK_FIFO_BYTES);
}

static void stream_drop(struct agent_stream *s)
{
	struct agent_client *c = s->client;

	if (c->front.stream == s)
		c->front.stream = NULL;
	if (s->uses_bulk && !--c->n_bulk_users && c->bulk_resized && !c->broken)
		bulk_resize(c, (int)IDLE_FIFO_BYTES);
	c->slots[s->number & (LIMIT_STREAMS - 1)] = NULL;
	c->unsettled &= ~(1ull << (s->number & (LIMIT_STREAMS - 1)));
	c->n_streams--;
	c->n_long -= is_long(s->type);
	loop_timer_free(s->deadline);
	s->deadline = NULL;
	s->next_dead = c->dead;
	c->dead = s;
}

/* ---- breaking ---- */

static void close_channel(struct agent_client *c)
{
	loop_fd_remove(c->in);
	loop_fd_remove(c->out);
	loop_fd_remove(c->bulk_room);
	c->in = c->out = c->bulk_room = NULL;
	c->front.left = 0;
	replace_fd(&c->read_fd, -1);
	replace_fd(&c->write_fd, -1);
	replace_fd(&c->bulk_write_fd, -1);
	replace_fd(&c->bulk_read_fd, -1);
	loop_timer_free(c->hello_timer);
	c->hello_timer = NULL;
}

static void tell_waiters(struct agent_client *c, const struct sbx_err *why)
{
	/* A waiter may cancel another one or register anew, so each is taken out before it is called. */
	while (c->n_waiters) {
		struct waiter w = c->waiters[--c->n_waiters];

		w.ready(w.arg, why);
	}
}

static void lose_all(struct agent_client *c, const struct sbx_err *why)
{
	enter(c);
	for (size_t i = 0; i < LIMIT_STREAMS; i++) {
		struct agent_stream *s = c->slots[i];

		if (!s)
			continue;
		stream_drop(s);
		if (s->ops->lost)
			s->ops->lost(s->arg, why);
	}
	tell_waiters(c, why);
	leave(c);
}

/* From the loop only. */
static void break_now(struct agent_client *c)
{
	enter(c);
	close_channel(c);
	lose_all(c, &c->why);
	if (c->on_broken && !c->freed)
		c->on_broken(c->on_broken_arg, &c->why);
	leave(c);
}

/* From anywhere: streams and owner hear of it in the next batch. */
static void break_later(struct agent_client *c)
{
	if (c->broken)
		return;
	c->broken = true;
	if (c->in)
		loop_fd_events(c->in, 0);
	if (c->out)
		loop_fd_events(c->out, 0);
	if (c->bulk_room)
		loop_fd_events(c->bulk_room, 0);
	loop_timer_arm(c->later, 0);
}

static void run_later(void *arg)
{
	struct agent_client *c = arg;

	enter(c);
	if (c->broken)
		break_now(c);
	else if (c->attached)
		tell_waiters(c, NULL);
	leave(c);
}

static void hello_missed(void *arg)
{
	struct agent_client *c = arg;

	if (c->deaf)
		sbx_err_set(&c->why, SBX_E_NOT_READY, 0, "the sandbox has ended");
	else
		sbx_err_set(&c->why, SBX_E_NOT_READY, 0, "the agent of the sandbox did not answer in %u ms", HELLO_MS);
	break_later(c);
}

static void go_deaf(struct agent_client *c)
{
	c->deaf = true;
	loop_fd_remove(c->out);
	loop_fd_remove(c->bulk_room);
	c->out = c->bulk_room = NULL;
	buf_clear(&c->unsent);
	loop_timer_arm(c->hello_timer, DEAF_MS);
}

/* ---- sending ---- */

/* Bytes of whole frames at the front of the queue that one write may carry without being split by the FIFO. */
static size_t writable_batch(const struct agent_client *c)
{
	size_t used = buf_used(&c->unsent), sum = 0;

	while (sum < used) {
		struct agent_frame head;

		memcpy(&head, buf_peek(&c->unsent) + sum, sizeof(head));
		if (sum + sizeof(head) + head.size > AGENT_IN_FRAME)
			break;
		sum += sizeof(head) + head.size;
	}
	return sum;
}

/* Another stream is asked first each time, since the first one may take all of it. */
static void offer_room(struct agent_client *c)
{
	size_t first = c->next_offer++;

	for (size_t i = 0; i < LIMIT_STREAMS && !c->broken && !c->freed; i++) {
		struct agent_stream *s = c->slots[(first + i) % LIMIT_STREAMS];

		if (s && s->ops->writable && agent_stream_room(s))
			s->ops->writable(s->arg);
	}
}

static void flush(struct agent_client *c)
{
	if (c->deaf) {
		buf_clear(&c->unsent);
		return;
	}
	while (!c->broken && buf_used(&c->unsent)) {
		size_t n = writable_batch(c);
		ssize_t done = write(c->write_fd, buf_peek(&c->unsent), n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EAGAIN)
			break;
		if (done < 0 || (size_t)done != n) {
			go_deaf(c);
			return;
		}
		buf_consume(&c->unsent, n);
	}
	if (!c->broken)
		loop_fd_events(c->out, buf_used(&c->unsent) ? EPOLLOUT : 0);
	if (!buf_used(&c->unsent) && c->unsent.cap > KEEP_OUT_BYTES)
		buf_free(&c->unsent);
	if (buf_used(&c->unsent) >= OUT_BODY_BYTES)
		c->was_full = true;
}

static int queue_frame(struct agent_client *c, enum agent_type type, uint32_t stream, uint32_t value, const void *payload,
		       size_t n)
{
	struct agent_frame head = {.size = (uint32_t)n, .type = (uint16_t)type, .stream = stream, .value = value};

	assert(n <= MAX_PAYLOAD_IN);
	if (buf_append(&c->unsent, &head, sizeof(head)) < 0 || buf_append(&c->unsent, payload, n) < 0) {
		sbx_err_set(&c->why, SBX_E_NOT_READY, 0, "the agent of the sandbox does not read its requests");
		break_later(c);
		return -1;
	}
	return 0;
}

static void can_write(void *arg, int fd, uint32_t events)
{
	struct agent_client *c = arg;

	(void)fd;
	if (c->broken)
		return;
	enter(c);
	if (events & (EPOLLERR | EPOLLHUP)) {
		go_deaf(c);
	} else {
		flush(c);
		if (c->was_full && buf_used(&c->unsent) <= OUT_BODY_BYTES / 2) {
			c->was_full = false;
			offer_room(c);
		}
	}
	leave(c);
}

static void can_write_bulk(void *arg, int fd, uint32_t events)
{
	struct agent_client *c = arg;

	(void)fd;
	if (c->broken)
		return;
	enter(c);
	if (events & (EPOLLERR | EPOLLHUP)) {
		go_deaf(c);
	} else {
		loop_fd_events(c->bulk_room, 0);
		offer_room(c);
	}
	leave(c);
}

/* ---- receiving: every rule of agent_msg.h that the agent can break ---- */

static void protocol_error(struct agent_client *c, const char *what)
{
	sbx_err_set(&c->why, SBX_E_PROTOCOL, 0, "agent of the sandbox: %s", what);
	log_warn("%s", c->why.msg);
	break_later(c);
}

/* Each returns NULL, or what the agent did wrong. */
static bool payload_type_fits(const struct agent_stream *s, enum agent_type type)
{
	if (type == AGENT_DATA)
		return s->type == AGENT_FS || s->type == AGENT_LOGS || (s->driver && s->started);
	return s->type == AGENT_EXEC && s->started;
}

static const char *got_payload(struct agent_stream *s, enum agent_type type, const uint8_t *data, size_t n)
{
	if (!n || !payload_type_fits(s, type))
		return "output that no request asked for";
	if (n > s->receive_left)
		return "more output than was granted";
	s->receive_left -= n;
	if (s->ops->data)
		s->ops->data(s->arg, type, data, n);
	else
		agent_stream_grant(s, n);
	return NULL;
}

/*
 * Announced content waits in the FIFO as long as it can go from there to its client without a copy.  It is read, and handed
 * out by `data`, as soon as something else has to pass: another stream's content, or the next frame of its own stream.
 */
static void bulk_settle(struct agent_client *c)
{
	static uint8_t content[READ_TURN_BYTES];

	while (c->front.left && !c->broken && !c->freed) {
		ssize_t n = read(c->bulk_read_fd, content, c->front.left < sizeof(content) ? c->front.left : sizeof(content));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			protocol_error(c, "content that is not there");
			return;
		}
		c->front.left -= (size_t)n;
		struct agent_stream *s = c->front.stream;
		if (s && s->ops->data)
			s->ops->data(s->arg, AGENT_DATA, content, (size_t)n);
		else if (s)
			agent_stream_grant(s, (size_t)n);
	}
}

static void bulk_pull(struct agent_client *c)
{
	struct agent_stream *s = c->front.stream;
	int there = 0;

	if (s && s->ops->bulk && c->front.left) {
		size_t took = s->ops->bulk(s->arg, c->bulk_read_fd, c->front.left);

		assert(took <= c->front.left);
		c->front.left -= took;
	}
	/* who says that bytes are there which are not would have us wait for a socket that is writable */
	if (!c->broken && c->front.left && (ioctl(c->bulk_read_fd, FIONREAD, &there) < 0 || (size_t)there < c->front.left))
		protocol_error(c, "content that is not there");
	else if (!c->front.stream || !c->front.stream->ops->bulk || !c->bulk_waits)
		bulk_settle(c);
}

static const char *got_bulk(struct agent_stream *s, uint32_t n)
{
	struct agent_client *c = s->client;

	if (!c->bulk || !n || s->type != AGENT_FS)
		return "output that no request asked for";
	if (n > s->receive_left)
		return "more output than was granted";
	s->receive_left -= n;
	if (c->front.stream != s) {
		bulk_settle(c); /* another stream's callbacks, which may end this one */
		if (c->broken || c->freed)
			return NULL;
		c->front.stream = is_open(s) ? s : NULL;
	}
	c->front.left += n;
	if (c->front.stream)
		bulk_use(s, n > IDLE_FIFO_BYTES / 2);
	bulk_pull(c);
	return NULL;
}

static const char *got_credit(struct agent_stream *s, uint32_t value)
{
	bool takes_input = s->type == AGENT_EXEC || s->type == AGENT_FS;

	if (!takes_input || !value || value > MAX_SEND_CREDIT - s->send_left)
		return "a credit that cannot be";
	s->send_left += value;
	if (s->ops->writable && agent_stream_room(s))
		s->ops->writable(s->arg);
	return NULL;
}

static const char *got_started(struct agent_stream *s, const uint8_t *data, size_t n)
{
	struct agent_started started;

	if (s->type != AGENT_EXEC || s->started || n != sizeof(started))
		return "a start out of place";
	memcpy(&started, data, sizeof(started));
	s->started = true;
	if (s->ops->settled)
		s->client->unsettled |= 1ull << (s->number & (LIMIT_STREAMS - 1));
	if (s->ops->started)
		s->ops->started(s->arg, &started);
	return NULL;
}

static const char *got_exit(struct agent_stream *s, const uint8_t *data, size_t n)
{
	struct agent_exit result;

	if (s->type != AGENT_EXEC || !s->started || n != sizeof(result))
		return "an exit out of place";
	memcpy(&result, data, sizeof(result));
	stream_drop(s);
	if (s->ops->exited)
		s->ops->exited(s->arg, &result);
	return NULL;
}

static const char *got_status(struct agent_stream *s, const uint8_t *data, size_t n)
{
	struct agent_command_status status;

	if (s->type != AGENT_STATUS || n < sizeof(status))
		return "a status out of place";
	memcpy(&status, data, sizeof(status));
	if (status.text_bytes != n - sizeof(status))
		return "a status whose text does not fit";
	stream_drop(s);
	if (s->ops->replied)
		s->ops->replied(s->arg, &status, (const char *)data + sizeof(status), status.text_bytes);
	return NULL;
}

static const char *got_end(struct agent_stream *s, const uint8_t *data, size_t n)
{
	struct agent_end end;

	if (n < sizeof(end))
		return "a short end";
	memcpy(&end, data, sizeof(end));
	if (end.text_bytes != n - sizeof(end) || end.reason > AGENT_ENDED || end.sys <= -4096 || end.sys >= 4096)
		return "an end that does not fit";
	end.sys = end.sys < 0 ? -end.sys : end.sys;
	stream_drop(s);
	if (s->ops->ended)
		s->ops->ended(s->arg, &end, (const char *)data + sizeof(end), end.text_bytes);
	return NULL;
}

static const char *dispatch(struct agent_stream *s, const struct agent_frame *head, const uint8_t *payload)
{
	struct agent_client *c = s->client;

	if (c->front.stream == s && head->type != AGENT_BULK && head->type != AGENT_CREDIT) {
		bulk_settle(c); /* what came before this frame is delivered before it */
		if (c->broken || c->freed || !is_open(s))
			return NULL;
	}
	switch (head->type) {
	case AGENT_BULK:
		if (head->size)
			break;
		return got_bulk(s, head->value);
	case AGENT_STDOUT:
	case AGENT_STDERR:
	case AGENT_DATA:
		return got_payload(s, head->type, payload, head->size);
	case AGENT_CREDIT:
		if (head->size)
			break;
		return got_credit(s, head->value);
	case AGENT_STARTED:
		return got_started(s, payload, head->size);
	case AGENT_EXIT:
		return got_exit(s, payload, head->size);
	case AGENT_STATUS_REPLY:
		return got_status(s, payload, head->size);
	case AGENT_END:
		return got_end(s, payload, head->size);
	default:
		break;
	}
	return "a frame of no known kind";
}

/* Frames of a stream that was detached while they were under way are thrown away, but only as many as can have been. */
static const char *got_frame(struct agent_client *c, const struct agent_frame *head, const uint8_t *payload)
{
	uint32_t slot = head->stream & (LIMIT_STREAMS - 1), serial = head->stream >> SLOT_BITS;
	struct agent_stream *s = c->slots[slot];

	if (s && s->number == head->stream)
		return dispatch(s, head, payload);
	if (!serial || serial > c->serials[slot])
		return "a frame for a request that never was";
	size_t bulk = head->type == AGENT_BULK ? head->value : 0;
	if (sizeof(*head) + head->size + bulk > c->stale_left || (bulk && !c->bulk))
		return "frames for a request that is over";
	c->stale_left -= sizeof(*head) + head->size + bulk;
	if (!bulk)
		return NULL;
	bulk_settle(c);
	c->front.stream = NULL;
	c->front.left += bulk;
	bulk_settle(c);
	return NULL;
}

static void attached_now(struct agent_client *c)
{
	c->attached = true;
	if (!c->deaf)
		loop_timer_disarm(c->hello_timer);
	tell_waiters(c, NULL);
}

/* What is being read; borrowed. */
struct input {
	const uint8_t *data;
	size_t n;
};

static void input_drop(struct input *in, size_t n)
{
	in->data += n;
	in->n -= n;
}

/* Skips to the ATTACHED frame with our nonce; an earlier gateway may have died in the middle of a frame. */
static void resynchronise(struct agent_client *c, struct input *in)
{
	const size_t whole = sizeof(struct agent_frame) + sizeof(struct agent_attach);

	while (in->n >= whole) {
		const uint8_t *nonce = memmem(in->data + sizeof(struct agent_frame), in->n - sizeof(struct agent_frame), c->nonce,
					      sizeof(c->nonce));
		struct agent_frame head;
		struct agent_attach attach;

		if (!nonce) {
			input_drop(in, in->n - (whole - 1));
			return;
		}
		input_drop(in, (size_t)(nonce - in->data) - sizeof(head));
		if (in->n < whole)
			return;
		memcpy(&head, in->data, sizeof(head));
		memcpy(&attach, in->data + sizeof(head), sizeof(attach));
		if (head.type != AGENT_ATTACHED || head.zero || head.size != sizeof(attach)) {
			input_drop(in, 1);
			continue;
		}
		input_drop(in, whole);
		c->bulk = c->bulk && (attach.flags & AGENT_ATTACH_BULK);
		if (attach.version == AGENT_VERSION)
			attached_now(c);
		else
			protocol_error(c, "it speaks another version");
		return;
	}
}

/* Output of a process has no boundaries: it may be served in slices. */
static bool in_slices(const struct agent_frame *head)
{
	return (head->type == AGENT_STDOUT || head->type == AGENT_STDERR) && head->size > READ_SLICE_BYTES;
}

/* Puts a head before what is left of a frame whose first slice was served: a whole frame again. */
static void behind_slice(struct agent_frame head, struct input *in)
{
	input_drop(in, READ_SLICE_BYTES);
	head.size -= READ_SLICE_BYTES;
	memcpy((uint8_t *)(uintptr_t)in->data, &head, sizeof(head)); /* scratch is ours, and the slice was taken */
}

/* Return: whether whole frames may be left because the turn was over. */
static bool parse_frames(struct agent_client *c, struct input *in)
{
	uint64_t until_usec = mono_usec() + READ_TURN_USEC;
	unsigned n_frames = 0;

	if (!c->attached)
		resynchronise(c, in);
	while (c->attached && !c->broken && !c->freed && in->n >= sizeof(struct agent_frame)) {
		struct agent_frame head;

		memcpy(&head, in->data, sizeof(head));
		const char *wrong = head.zero || head.size > MAX_PAYLOAD_OUT ? "a frame head that cannot be" : NULL;
		if (!wrong && in->n < sizeof(head) + head.size)
			return false;
		if (n_frames == READ_TURN_FRAMES || (n_frames && mono_usec() >= until_usec))
			return true;
		n_frames++;
		struct agent_frame first = head;
		first.size = in_slices(&head) ? READ_SLICE_BYTES : head.size;
		if (!wrong)
			wrong = got_frame(c, &first, in->data + sizeof(head));
		if (wrong) {
			protocol_error(c, wrong);
			return false;
		}
		if (first.size < head.size)
			behind_slice(head, in);
		else
			input_drop(in, sizeof(head) + head.size);
	}
	return false;
}

/*
 * All channels read into one buffer, which is free again when can_read() returns; only the beginning of an unfinished frame
 * is kept, so an idle sandbox holds no memory here.
 */
static uint8_t scratch[AGENT_OUT_FRAME + READ_TURN_BYTES];

static void settle_started(struct agent_client *c)
{
	for (uint32_t i = 0; c->unsettled; i++)
		if (c->unsettled & 1ull << i) {
			struct agent_stream *s = c->slots[i];

			c->unsettled &= ~(1ull << i);
			s->ops->settled(s->arg);
		}
}

static void parse_new(struct agent_client *c, size_t kept, size_t n)
{
	struct input in = {scratch, kept + n};

	buf_clear(&c->received);
	bool more = parse_frames(c, &in);
	settle_started(c);
	if (in.n && !c->broken && !c->freed && buf_append(&c->received, in.data, in.n) < 0) {
		sbx_err_set(&c->why, SBX_E_NO_MEMORY, 0, "answers of a sandbox");
		break_later(c);
	}
	if (!buf_used(&c->received))
		buf_free(&c->received);
	c->backlog = more && !c->broken && !c->freed;
	if (c->backlog)
		loop_timer_arm(c->next_turn, 0);
	if (c->in && !c->broken)
		loop_fd_events(c->in, c->backlog ? 0 : EPOLLIN);
}

static void can_read(void *arg, int fd, uint32_t events)
{
	struct agent_client *c = arg;
	size_t kept = buf_used(&c->received);

	(void)events;
	if (c->broken || c->backlog)
		return; /* EPOLLHUP cannot be switched off; the owner hears of it in this batch, or the next turn comes by itself */
	assert(kept <= AGENT_OUT_FRAME);
	if (kept)
		memcpy(scratch, buf_peek(&c->received), kept);
	enter(c);
	ssize_t n = read(fd, scratch + kept, READ_TURN_BYTES);
	if (n > 0) {
		parse_new(c, kept, (size_t)n);
	} else if (n == 0) {
		sbx_err_set(&c->why, SBX_E_NOT_READY, 0, "the sandbox has ended");
		break_later(c);
	} else if (errno != EAGAIN && errno != EINTR) {
		sbx_err_set(&c->why, SBX_E_NOT_READY, errno, "read from the agent of the sandbox");
		break_later(c);
	}
	leave(c);
}

/* What the last turn left: nothing more is read before it was served. */
static void next_turn(void *arg)
{
	struct agent_client *c = arg;
	size_t kept = buf_used(&c->received);

	if (c->broken || !c->backlog)
		return;
	c->backlog = false;
	memcpy(scratch, buf_peek(&c->received), kept);
	enter(c);
	parse_new(c, kept, 0);
	leave(c);
}

/* ---- the client ---- */

static int set_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

struct agent_client *agent_client_new(struct loop *loop, const int fds[AGENT_CHANNEL_FDS], agent_client_broken *broken, void *arg,
				      struct sbx_err *err)
{
	int write_fd = fds[0], read_fd = fds[1];
	struct agent_client *c = calloc(1, sizeof(*c));

	if (!c) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "exec channel");
		return NULL;
	}
	*c = (struct agent_client){.loop = loop, .write_fd = -1, .read_fd = -1, .bulk_write_fd = -1, .bulk_read_fd = -1, .on_broken = broken, .on_broken_arg = arg};
	c->received.max = sizeof(scratch);
	c->unsent.max = OUT_MAX_BYTES;
	c->hello_timer = loop_timer_new(loop, hello_missed, c);
	c->later = loop_timer_new(loop, run_later, c);
	c->next_turn = loop_timer_new(loop, next_turn, c);
	c->bulk = fds[2] >= 0 && fds[3] >= 0;
	if (set_nonblock(write_fd) == 0 && set_nonblock(read_fd) == 0 &&
	    (!c->bulk || (set_nonblock(fds[2]) == 0 && set_nonblock(fds[3]) == 0))) {
		c->in = loop_fd_add(loop, read_fd, EPOLLIN, can_read, c);
		c->out = loop_fd_add(loop, write_fd, 0, can_write, c);
		c->bulk_room = c->bulk ? loop_fd_add(loop, fds[2], 0, can_write_bulk, c) : NULL;
	}
	if (!c->hello_timer || !c->later || !c->next_turn || !c->in || !c->out || (c->bulk && !c->bulk_room)) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "watch the exec channel");
		agent_client_free(c, NULL);
		return NULL;
	}
	c->write_fd = write_fd;
	c->read_fd = read_fd;
	c->bulk_write_fd = fds[2];
	c->bulk_read_fd = fds[3];

	struct agent_attach attach = {.version = AGENT_VERSION, .flags = c->bulk ? AGENT_ATTACH_BULK : 0};
	random_bytes(c->nonce, sizeof(c->nonce));
	memcpy(attach.nonce, c->nonce, sizeof(attach.nonce));
	loop_timer_arm(c->hello_timer, HELLO_MS);
	if (queue_frame(c, AGENT_ATTACH, 0, 0, &attach, sizeof(attach)) == 0)
		flush(c);
	return c;
}

void agent_client_free(struct agent_client *c, const struct sbx_err *why)
{
	struct sbx_err gone = {.code = SBX_E_NOT_READY, .msg = "the sandbox has ended"};

	if (!c || c->freed)
		return;
	enter(c);
	c->broken = true;
	c->on_broken = NULL;
	close_channel(c);
	lose_all(c, why ? why : &gone);
	loop_timer_free(c->later);
	c->later = NULL;
	loop_timer_free(c->next_turn);
	c->next_turn = NULL;
	c->freed = true;
	leave(c);
}

bool agent_client_attached(const struct agent_client *c)
{
	return c->attached && !c->broken;
}

size_t agent_client_streams(const struct agent_client *c)
{
	return c->n_streams;
}

int agent_client_wait(struct agent_client *c, agent_client_ready *ready, void *arg, struct sbx_err *err)
{
	if (c->broken)
		return sbx_err_set(err, SBX_E_NOT_READY, 0, "the exec channel of the sandbox is closed");
	if (c->n_waiters >= MAX_WAITERS)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "%u requests wait for one sandbox", MAX_WAITERS);
	if (c->n_waiters == c->cap_waiters) {
		size_t cap = c->cap_waiters ? c->cap_waiters * 2 : 8;
		struct waiter *waiters = reallocarray(c->waiters, cap, sizeof(*waiters));

		if (!waiters)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "wait for a sandbox");
		c->waiters = waiters;
		c->cap_waiters = cap;
	}
	c->waiters[c->n_waiters++] = (struct waiter){ready, arg};
	if (c->attached)
		loop_timer_arm(c->later, 0);
	return 0;
}

void agent_client_wait_cancel(struct agent_client *c, const void *arg)
{
	for (size_t i = 0; i < c->n_waiters; i++)
		if (c->waiters[i].arg == arg) {
			c->waiters[i] = c->waiters[--c->n_waiters];
			return;
		}
}

/* ---- streams ---- */

static int free_slot(const struct agent_client *c, enum agent_type type)
{
	if (is_long(type) && c->n_long >= LIMIT_STREAMS - RESERVED_STREAMS)
		return -1;
	for (uint32_t i = 0; i < LIMIT_STREAMS; i++)
		if (!c->slots[i])
			return (int)i;
	return -1;
}

static bool is_driver(enum agent_type type, const void *payload, size_t n)
{
	struct agent_spec spec;

	if (type != AGENT_EXEC || n < sizeof(struct agent_exec) + sizeof(spec))
		return false;
	memcpy(&spec, (const char *)payload + sizeof(struct agent_exec), sizeof(spec));
	return spec.flags & AGENT_SPEC_DRIVER;
}

/* EXEC and FS say the size of the whole in the first frame and go on in MORE frames. */
static int queue_request(struct agent_client *c, enum agent_type type, uint32_t stream, uint32_t value, const void *payload,
			 size_t n)
{
	bool may_split = type == AGENT_EXEC || type == AGENT_FS;
	const char *from = payload;
	size_t first = n < MAX_PAYLOAD_IN ? n : MAX_PAYLOAD_IN;

	if (queue_frame(c, type, stream, may_split ? (uint32_t)n : value, from, first) < 0)
		return -1;
	for (size_t done = first; done < n;) {
		size_t part = n - done < MAX_PAYLOAD_IN ? n - done : MAX_PAYLOAD_IN;

		if (queue_frame(c, AGENT_MORE, stream, 0, from + done, part) < 0)
			return -1;
		done += part;
	}
	return 0;
}

struct agent_stream *agent_stream_open(struct agent_client *c, enum agent_type type, uint32_t value, const void *payload,
				       size_t n, const struct agent_stream_ops *ops, void *arg, struct sbx_err *err)
{
	bool may_split = type == AGENT_EXEC || type == AGENT_FS;
	size_t frames = n / MAX_PAYLOAD_IN + 1;
	int slot = free_slot(c, type);

	assert(may_split || n <= MAX_PAYLOAD_IN);
	if (c->broken) {
		sbx_err_set(err, SBX_E_NOT_READY, 0, "the exec channel of the sandbox is closed");
		return NULL;
	}
	if (slot < 0 || n > OUT_MAX_BYTES ||
	    buf_used(&c->unsent) + n + frames * sizeof(struct agent_frame) > OUT_MAX_BYTES) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "the sandbox serves %zu requests already; at most %u at once", c->n_streams,
			    LIMIT_STREAMS);
		return NULL;
	}
	struct agent_stream *s = calloc(1, sizeof(*s));
	if (!s) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request to a sandbox");
		return NULL;
	}
	c->serials[slot] = (c->serials[slot] + 1) & (UINT32_MAX >> SLOT_BITS);
	c->serials[slot] += !c->serials[slot]; /* number 0 belongs to ATTACH */
	*s = (struct agent_stream){
		.client = c,
		.number = c->serials[slot] << SLOT_BITS | (uint32_t)slot,
		.type = type,
		.driver = is_driver(type, payload, n),
		.receive_left = AGENT_WINDOW,
		.send_left = AGENT_WINDOW,
		.ops = ops,
		.arg = arg,
	};
	if (queue_request(c, type, s->number, value, payload, n) < 0) {
		*err = c->why;
		free(s);
		return NULL;
	}
	c->slots[slot] = s;
	c->n_streams++;
	c->n_long += is_long(type);
	if (!c->busy)
		flush(c);
	return s;
}

static void deadline_over(void *arg)
{
	struct agent_stream *s = arg;
	struct agent_client *c = s->client;
	struct sbx_err why;

	enter(c);
	const struct agent_stream_ops *ops = s->ops;
	void *ops_arg = s->arg;
	sbx_err_set(&why, SBX_E_NOT_READY, 0, "the sandbox did not answer in time");
	agent_stream_detach(s);
	if (ops->lost)
		ops->lost(ops_arg, &why);
	leave(c);
}

void agent_stream_deadline(struct agent_stream *s, uint32_t ms)
{
	if (!ms) {
		loop_timer_disarm(s->deadline);
		return;
	}
	if (!s->deadline)
		s->deadline = loop_timer_new(s->client->loop, deadline_over, s);
	if (s->deadline)
		loop_timer_arm(s->deadline, ms);
}

size_t agent_stream_room(const struct agent_stream *s)
{
	size_t unsent = buf_used(&s->client->unsent);
	size_t queue = unsent < OUT_BODY_BYTES ? OUT_BODY_BYTES - unsent : 0;

	return s->send_left < queue ? s->send_left : queue;
}

int agent_stream_send(struct agent_stream *s, enum agent_type type, const void *data, size_t n, struct sbx_err *err)
{
	struct agent_client *c = s->client;
	const char *from = data;

	assert(n <= s->send_left);
	for (size_t done = 0; done < n;) {
		size_t part = n - done < MAX_PAYLOAD_IN ? n - done : MAX_PAYLOAD_IN;

		if (c->broken || queue_frame(c, type, s->number, 0, from + done, part) < 0)
			return sbx_err_set(err, SBX_E_NOT_READY, 0, "the exec channel of the sandbox is closed");
		done += part;
	}
	s->send_left -= n;
	if (!c->busy)
		flush(c);
	return 0;
}

/* @done of @n bytes are in the bulk FIFO: now the frame that says whose they are.  Return: bytes sent. */
static size_t announce_bulk(struct agent_stream *s, ssize_t done, size_t n)
{
	struct agent_client *c = s->client;

	if (!c->bulk_resized && done < (ssize_t)n)
		bulk_use(s, true); /* for the next one; what is left now waits for the agent */
	if (done < (ssize_t)n)
		loop_fd_events(c->bulk_room, EPOLLOUT);
	if (done <= 0 || queue_frame(c, AGENT_BULK, s->number, (uint32_t)done, NULL, 0) < 0)
		return 0;
	s->send_left -= (size_t)done;
	if (!c->busy)
		flush(c);
	return (size_t)done;
}

/* Content over the bulk channel. */
static size_t write_bulk(struct agent_stream *s, const void *data, size_t n)
{
	struct agent_client *c = s->client;
	ssize_t done;

	bulk_use(s, false);
	do
		done = write(c->bulk_write_fd, data, n);
	while (done < 0 && errno == EINTR);
	if (done < 0 && errno != EAGAIN) {
		go_deaf(c);
		return 0;
	}
	return announce_bulk(s, done, n);
}

size_t agent_stream_credit(const struct agent_stream *s)
{
	return s->send_left;
}

ssize_t agent_stream_splice(struct agent_stream *s, ssize_t (*move)(void *arg, int fd, size_t n), void *arg, size_t n)
{
	struct agent_client *c = s->client;
	size_t most = n < s->send_left ? n : s->send_left;

	if (c->broken || c->deaf || !c->bulk || !c->attached)
		return -EOPNOTSUPP;
	if (!most)
		return 0;
	bulk_use(s, true);
	ssize_t done = move(arg, c->bulk_write_fd, most);
	return done < 0 ? done : (ssize_t)announce_bulk(s, done, most);
}

ssize_t agent_stream_offer(struct agent_stream *s, const void *data, size_t n, struct sbx_err *err)
{
	struct agent_client *c = s->client;
	size_t most = n < s->send_left ? n : s->send_left;

	if (c->broken)
		return sbx_err_set(err, SBX_E_NOT_READY, 0, "the exec channel of the sandbox is closed");
	if (!most || c->deaf)
		return 0;
	if (c->bulk && c->attached && most > MAX_PAYLOAD_IN)
		return (ssize_t)write_bulk(s, data, most);
	most = most < agent_stream_room(s) ? most : agent_stream_room(s);
	return agent_stream_send(s, AGENT_DATA, data, most, err) < 0 ? -1 : (ssize_t)most;
}

void agent_stream_pull(struct agent_stream *s)
{
	struct agent_client *c = s->client;

	if (c->broken || c->front.stream != s)
		return;
	enter(c);
	bulk_pull(c);
	leave(c);
}

void agent_stream_control(struct agent_stream *s, enum agent_type type, uint32_t value)
{
	struct agent_client *c = s->client;

	if (c->broken || queue_frame(c, type, s->number, value, NULL, 0) < 0)
		return; /* the owner hears `lost` */
	if (!c->busy)
		flush(c);
}

void agent_stream_grant(struct agent_stream *s, size_t n)
{
	struct agent_client *c = s->client;

	s->owed += n;
	if (s->owed < GRANT_STEP || c->broken)
		return;
	if (queue_frame(c, AGENT_CREDIT, s->number, (uint32_t)s->owed, NULL, 0) < 0)
		return;
	s->receive_left += s->owed;
	s->owed = 0;
	if (!c->busy)
		flush(c);
}

void agent_stream_widen(struct agent_stream *s)
{
	struct agent_client *c = s->client;

	if (c->broken || !c->bulk || !c->attached || c->n_bulk_users > s->uses_bulk)
		return;
	bulk_use(s, true);
	if (c->bulk_wide)
		agent_stream_grant(s, AGENT_WIDE_WINDOW - AGENT_WINDOW);
}

void agent_stream_detach(struct agent_stream *s)
{
	if (!s)
		return;
	struct agent_client *c = s->client;

	enter(c);
	if (!c->broken) {
		c->stale_left += s->receive_left + STALE_EXTRA_BYTES;
		/* the frame heads of that many bytes, at the worst one byte each, are not worth a tighter bound */
		c->stale_left += s->receive_left / 64 * sizeof(struct agent_frame);
		agent_stream_control(s, AGENT_DETACH, 0);
	}
	stream_drop(s);
	leave(c);
}
