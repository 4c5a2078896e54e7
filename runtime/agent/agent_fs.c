// SPDX-License-Identifier: Apache-2.0
/*
 * The agent's side of file operations: one child each, its frames passed on, content handed down or up.
 *
 *	gateway --- bulk.in ---splice---> pipe ---splice---> file	WRITE
 *	gateway <-- bulk.out --splice---- pipe <--splice---- file	READ
 *
 * The agent moves content from one pipe to another: it never holds it, and knows exactly how much went.  Children cannot be
 * trusted with the FIFOs, since tenants may kill them between a write and the word about it.  What a child is too slow for waits
 * in bulk.in, until something for another one stands behind it there: then it is copied into memory of ours, as little as it is.
 */
#include "runtime/agent/agent_files.h"
#include "runtime/agent/agent_int.h"
#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define GRANT_STEP   (AGENT_WINDOW / 4)
#define UPLOAD_BYTES (AGENT_WINDOW + AGENT_IN_FRAME)
#define WIDE_UPLOAD_BYTES (AGENT_WIDE_WINDOW + AGENT_IN_FRAME)

struct ends { /* [0] ours, [1] the child's */
	int sock[2], pipe[2];
};

static int above_low(int fd)
{
	return fd > FILES_PIPE_FD ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 16);
}

__attribute__((noreturn)) static void child(const struct service *s, const struct spec_fs *req, const struct ends *e)
{
	sigset_t none;

	sigemptyset(&none);
	signal(SIGPIPE, SIG_IGN); /* a write that fails says so */
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	ignore_result(setrlimit(RLIMIT_DATA, &s->agent->data)); /* ours bounds the agent; it can only be lower */
	/* the inner namespace and the cgroups are still needed: they are above, and closed by files_main() */
	int sock = fcntl(e->sock[1], F_DUPFD_CLOEXEC, 16), pipe = e->pipe[1] < 0 ? -1 : fcntl(e->pipe[1], F_DUPFD_CLOEXEC, 16);
	struct agent moved = *s->agent;
	moved.userns_fd = above_low(moved.userns_fd);
	for (uint32_t i = 0; i < moved.n_cgroup_fds; i++)
		moved.cgroup_fd[i] = above_low(moved.cgroup_fd[i]);
	if (sock < 0 || dup3(sock, FILES_SOCKET_FD, O_CLOEXEC) < 0)
		_exit(1);
	if (e->pipe[1] >= 0 && (pipe < 0 || dup3(pipe, FILES_PIPE_FD, O_CLOEXEC) < 0))
		_exit(1);
	files_main(&moved, &moved.default_user, req);
}

static void ends_close(struct ends *e, int which)
{
	replace_fd(&e->sock[which], -1);
	replace_fd(&e->pipe[which], -1);
}

static bool takes_content(uint32_t op)
{
	return op == AGENT_FS_WRITE || op == AGENT_FS_APPEND || op == AGENT_FS_REPLACE;
}

static int ends_open(struct ends *e, uint32_t op)
{
	bool up = takes_content(op);
	int p[2];

	*e = (struct ends){{-1, -1}, {-1, -1}};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, e->sock) < 0)
		return -errno;
	if (!up && op != AGENT_FS_READ)
		return 0;
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	e->pipe[0] = p[up];
	e->pipe[1] = p[!up];
	return sysx_ret(fcntl(e->pipe[0], F_SETFL, O_NONBLOCK)); /* our end only: the flag belongs to the description */
}

void fs_start(struct service *s, struct stream *st)
{
	struct spec_fs req;
	struct ends e;

	if (spec_read_fs(st->bytes, st->size, &req)) {
		service_end(s, st, AGENT_BAD_REQUEST, 0, 0, "the file request is not well-formed");
		return;
	}
	if (s->status.state != AGENT_STATE_RUNNING) {
		service_end(s, st, AGENT_ENDED, 0, 0, "the sandbox is not running");
		return;
	}
	int r = ends_open(&e, req.fs.op);
	pid_t pid = r ? r : sysx_fork(spawn_cgroup(s->agent));
	if (pid == 0)
		child(s, &req, &e);
	ends_close(&e, 1);
	r = pid < 0 ? pid : service_watch(s, &st->files, e.sock[0], EPOLLIN);
	if (!r) {
		e.sock[0] = -1;
		if (e.pipe[0] >= 0 && !(r = service_watch(s, &st->content, e.pipe[0], takes_content(req.fs.op) ? EPOLLOUT : EPOLLIN)))
			e.pipe[0] = -1;
	}
	if (r) {
		ends_close(&e, 0);
		service_end(s, st, AGENT_FAILED_START, r, AGENT_STAGE_FORK, "");
		return;
	}
	s->assembly_bytes -= st->size;
	free(take_ptr(st->bytes));
	st->size = st->have = st->sent = 0;
	st->kind = STREAM_FILES;
	st->takes_content = takes_content(req.fs.op);
	st->files_pid = pid;
}

/* ---- content to the child ---- */

/* Where bytes wait that the pipe does not take now.  Return: 0, -EPROTO or -ENOMEM */
static int input_room(struct service *s, struct stream *st, uint32_t n)
{
	uint32_t need = st->have + n <= UPLOAD_BYTES ? UPLOAD_BYTES : WIDE_UPLOAD_BYTES, more = need - st->size;

	if (n > WIDE_UPLOAD_BYTES - st->have)
		return -EPROTO;
	if (need <= st->size)
		return 0;
	uint8_t *bytes = s->input_bytes + more > INT_INPUT_BYTES ? NULL : realloc(st->bytes, need);
	if (!bytes)
		return -ENOMEM;
	st->bytes = bytes;
	st->size = need;
	s->input_bytes += more;
	return 0;
}

/* Return: bytes that are dealt with, 0 when the child has to take some first. */
static uint32_t write_content(struct stream *st, const uint8_t *data, uint32_t n)
{
	ssize_t r = -1;

	if (st->content.fd < 0)
		return n; /* a child that has failed says so by END; the rest of the upload has nowhere to go */
	if (!st->content.writable)
		return 0;
	do
		r = write(st->content.fd, data, n);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN)
		st->content.writable = 0;
	if (r < 0)
		return errno == EAGAIN ? 0 : n;
	st->taken += (uint64_t)r;
	return (uint32_t)r;
}

/* Return: 0, or -EPROTO when they are not there. */
static int throw_away(struct service *s, uint32_t n)
{
	s->in_high |= 1; /* the scratch is touched */
	while (n) {
		ssize_t r = read(s->agent->bulk_in_fd, s->scratch, n < INT_SCRATCH_BYTES ? n : INT_SCRATCH_BYTES);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -EPROTO;
		n -= (uint32_t)r;
	}
	return 0;
}

static bool waits_in_front(const struct service *s, const struct stream *st)
{
	return s->front.stream == st && s->front.left;
}

void fs_front_drop(struct service *s, const struct stream *st)
{
	if (!waits_in_front(s, st))
		return;
	/* they were there when they were announced, and nobody else reads here */
	ignore_result(throw_away(s, s->front.left));
	s->front = (struct front){0};
}

/* What stands first in the FIFO goes to its child as it is, as far as the child's pipe takes it. */
static void front_move(struct service *s)
{
	struct stream *st = s->front.stream;

	while (s->front.left && !st->have && st->content.fd >= 0 && st->content.writable) {
		ssize_t r = splice(s->agent->bulk_in_fd, NULL, st->content.fd, NULL, s->front.left, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EPIPE) { /* as in write_content() */
			st->grant += s->front.left;
			fs_front_drop(s, st);
			return;
		}
		if (r <= 0) {
			st->content.writable = 0;
			return;
		}
		s->front.left -= (uint32_t)r;
		st->grant += (uint32_t)r;
		st->taken += (uint64_t)r;
	}
}

/* Something else has to pass: what stands first is taken out, at the cost of a copy.  Return: 0 or -EPROTO. */
static int front_settle(struct service *s)
{
	struct stream *st = s->front.stream;

	if (!s->front.left)
		return 0;
	if (input_room(s, st, s->front.left)) {
		service_end(s, st, AGENT_BUSY, 0, 0, "out of memory");
		return 0;
	}
	while (s->front.left) {
		ssize_t got = read(s->agent->bulk_in_fd, st->bytes + st->have, s->front.left);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return -EPROTO;
		st->have += (uint32_t)got;
		s->front.left -= (uint32_t)got;
	}
	return 0;
}

int fs_input(struct service *s, struct stream *st, const uint8_t *data, uint32_t n)
{
	if (st->upload_eof || !st->takes_content)
		return -EPROTO;
	int r = s->front.stream == st ? front_settle(s) : 0; /* what came before */
	if (r || st->kind != STREAM_FILES)
		return r;
	uint32_t done = st->have ? 0 : write_content(st, data, n);
	r = done < n ? input_room(s, st, n - done) : 0;
	st->grant += done;
	if (r || done == n)
		return r;
	memcpy(st->bytes + st->have, data + done, n - done);
	st->have += n - done;
	return 0;
}

/* Our end is open both ways. */
static bool fifo_is_full(const struct service *s)
{
	struct pollfd p = {.fd = s->agent->bulk_in_fd, .events = POLLOUT};

	return poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT);
}

int fs_skip(struct service *s, uint32_t n)
{
	int r = front_settle(s);

	return r ? r : throw_away(s, n);
}

static bool is_alone(const struct service *s, const struct stream *st)
{
	for (uint32_t i = 0; i < s->streams_top; i++)
		if (s->streams[i].takes_content && &s->streams[i] != st)
			return false;
	return true;
}

int fs_bulk(struct service *s, struct stream *st, uint32_t n)
{
	int there = 0, r = s->front.stream == st ? 0 : front_settle(s);

	if (r || st->upload_eof || !st->takes_content)
		return -EPROTO;
	if (!st->enlarged) {
		st->enlarged = true;
		ignore_result(fcntl(st->content.fd, F_SETPIPE_SZ, (int)INT_CONTENT_BYTES)); /* else it is only slower */
	}
	if (!st->wide && st->taken >= AGENT_WINDOW && is_alone(s, st) &&
	    fcntl(s->agent->bulk_in_fd, F_GETPIPE_SZ) >= (int)(2 * AGENT_WIDE_WINDOW)) {
		st->wide = true;
		st->grant += AGENT_WIDE_WINDOW - AGENT_WINDOW;
	}
	if (s->front.stream != st)
		s->front = (struct front){.stream = st};
	/* from here on, a move that brings nothing means that the child has to take some first */
	if (ioctl(s->agent->bulk_in_fd, FIONREAD, &there) < 0 || (uint32_t)there < s->front.left + n) {
		s->front.left = 0;
		return -EPROTO;
	}
	s->front.left += n;
	front_move(s);
	if (s->front.left && fifo_is_full(s)) /* others could not even get in */
		return front_settle(s);
	return 0;
}

static void complete_upload(struct service *s, struct stream *st)
{
	struct files_complete all = {.bytes = st->taken};

	st->upload_eof = st->takes_content = false;
	/* the first message in this direction always fits; a child that is gone has said END, or did not live to */
	ignore_result(send(st->files.fd, &all, sizeof(all), MSG_DONTWAIT | MSG_NOSIGNAL));
	service_unwatch(s, &st->content);
}

void fs_push(struct service *s, struct stream *st)
{
	while (st->sent < st->have) {
		uint32_t n = write_content(st, st->bytes + st->sent, st->have - st->sent);

		if (!n)
			break;
		st->sent += n;
		st->grant += n;
	}
	if (st->sent && st->sent < st->have)
		memmove(st->bytes, st->bytes + st->sent, st->have - st->sent);
	st->have -= st->sent;
	st->sent = 0;
	if (!st->have && st->bytes && s->input_bytes > INT_INPUT_BYTES / 2) {
		/* many uploads at once: only those hold room whose child is behind */
		s->input_bytes -= st->size;
		st->size = 0;
		free(take_ptr(st->bytes));
	}
	if (s->front.stream == st)
		front_move(s);
	if (st->upload_eof && !st->have && !waits_in_front(s, st) && st->files.fd >= 0)
		complete_upload(s, st);
}

/* ---- frames and content from the child ---- */

static bool child_died(struct service *s, struct stream *st)
{
	service_end(s, st, AGENT_FAILED_SYS, EIO, 0, "the file operation was killed");
	return true;
}

/* Passes on one piece of content.  Return: true when a frame was appended. */
static bool produce_content(struct service *s, struct stream *st)
{
	uint64_t n = (uint64_t)st->credit < INT_CONTENT_BYTES ? (uint64_t)st->credit : INT_CONTENT_BYTES;
	ssize_t r;

	if (!st->content.ready || st->credit <= 0)
		return false;
	if (s->bulk) {
		if (!s->bulk_out.writable)
			return false;
		do
			r = splice(st->content.fd, NULL, s->agent->bulk_out_fd, NULL, (size_t)n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		while (r < 0 && errno == EINTR);
		/* which of the two was it?  The pipe may have been filled since, but a FIFO that is full tells when it is not */
		struct pollfd out = {.fd = s->agent->bulk_out_fd, .events = POLLOUT};
		if (r < 0 && errno == EAGAIN && poll(&out, 1, 0) == 0) {
			s->bulk_out.writable = 0;
			return false;
		}
		if (r > 0)
			service_frame(s, AGENT_BULK, st->id, (uint32_t)r, NULL, 0, NULL, 0);
	} else {
		uint8_t *room = service_room(s, INT_DATA_BYTES);

		if (!room)
			return false;
		do
			r = read(st->content.fd, room, n < INT_DATA_BYTES ? (size_t)n : INT_DATA_BYTES);
		while (r < 0 && errno == EINTR);
		if (r > 0)
			service_commit(s, AGENT_DATA, st->id, (uint32_t)r);
	}
	if (r <= 0) {
		st->content.ready = 0; /* nothing there, or the child has closed its end */
		return false;
	}
	st->credit -= r;
	return true;
}

/* END came in @room: it is kept until the content, all of which was written before, has gone. */
static bool hold_end(struct service *s, struct stream *st, const uint8_t *room, uint32_t n)
{
	memcpy(&st->end, room, sizeof(st->end));
	if (st->end.text_bytes != n - sizeof(st->end) || st->end.text_bytes > sizeof(st->text))
		return child_died(s, st);
	memcpy(st->text, room + sizeof(st->end), st->end.text_bytes);
	st->ending = true;
	st->content.ready = st->content.fd >= 0;
	return false;
}

static bool produce_frame(struct service *s, struct stream *st)
{
	/* how much the next message holds is not known before it is read */
	uint8_t *room = st->files.ready && st->credit >= (int64_t)INT_DATA_BYTES ? service_room(s, INT_DATA_BYTES) : NULL;
	if (!room)
		return false;
	struct agent_frame f;
	ssize_t n;
	/* a child that ends with a part of the upload unread leaves a reset, once; its END is behind it */
	do
		n = recv(st->files.fd, room - sizeof(f), AGENT_OUT_FRAME, MSG_DONTWAIT);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0 && errno == EAGAIN) {
		st->files.ready = 0;
		return false;
	}
	if (n < (ssize_t)sizeof(f))
		return child_died(s, st);
	memcpy(&f, room - sizeof(f), sizeof(f));
	if (f.size != (size_t)n - sizeof(f) || (f.type != AGENT_DATA && f.type != AGENT_END) ||
	    (f.type == AGENT_END && f.size < sizeof(struct agent_end)))
		return child_died(s, st);
	if (f.type == AGENT_END)
		return hold_end(s, st, room, f.size);
	service_commit(s, AGENT_DATA, st->id, f.size);
	st->has_record = true;
	st->credit -= f.size;
	return true;
}

bool fs_produce(struct service *s, struct stream *st)
{
	/* the gateway is told early enough that it never has to stop, and not for every few bytes */
	if (st->grant >= GRANT_STEP) {
		service_frame(s, AGENT_CREDIT, st->id, st->grant, NULL, 0, NULL, 0);
		st->window += st->grant;
		st->grant = 0;
		return true;
	}
	if (!st->ending && produce_frame(s, st))
		return true;
	if (!st->takes_content && st->has_record && st->content.fd >= 0 && produce_content(s, st))
		return true;
	if (!st->ending || (st->has_record && st->content.fd >= 0 && st->content.ready))
		return false;
	service_frame(s, AGENT_END, st->id, 0, &st->end, sizeof(st->end), st->text, st->end.text_bytes);
	service_free_stream(s, st);
	return true;
}

void fs_cancel(struct service *s, struct stream *st)
{
	(void)s;
	/* not KILL: a half upload beside its target is removed by the child itself */
	if (st->files_pid > 0)
		kill(st->files_pid, SIGTERM);
}

bool fs_reaped(struct service *s, pid_t pid)
{
	for (uint32_t i = 0; i < s->streams_top; i++)
		if (s->streams[i].kind == STREAM_FILES && s->streams[i].files_pid == pid) {
			s->streams[i].files_pid = 0;
			return true;
		}
	return false;
}
