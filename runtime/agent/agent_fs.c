// SPDX-License-Identifier: Apache-2.0
/* The agent's side of file operations: one child each, its frames passed on, the upload handed down. */
#include "runtime/agent/agent_files.h"
#include "runtime/agent/agent_int.h"
#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"

#include <string.h>
#include <sys/socket.h>

#define GRANT_STEP   (AGENT_WINDOW / 4)
#define UPLOAD_BYTES (AGENT_WINDOW + AGENT_IN_FRAME)

__attribute__((noreturn)) static void child(const struct service *s, const struct spec_fs *req, int sock)
{
	sigset_t none;

	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	/* the inner namespace and the cgroups are still needed: they are above, and closed by files_main() */
	int at = fcntl(sock, F_DUPFD_CLOEXEC, 16);
	struct agent moved = *s->agent;
	if (moved.userns_fd == FILES_SOCKET_FD)
		moved.userns_fd = fcntl(moved.userns_fd, F_DUPFD_CLOEXEC, 16);
	for (uint32_t i = 0; i < moved.n_cgroup_fds; i++)
		if (moved.cgroup_fd[i] == FILES_SOCKET_FD)
			moved.cgroup_fd[i] = fcntl(moved.cgroup_fd[i], F_DUPFD_CLOEXEC, 16);
	if (at < 0 || dup3(at, FILES_SOCKET_FD, O_CLOEXEC) < 0)
		_exit(1);
	files_main(&moved, &moved.default_user, req);
}

void fs_start(struct service *s, struct stream *st)
{
	struct spec_fs req;
	int pair[2];

	if (spec_read_fs(st->bytes, st->size, &req)) {
		service_end(s, st, AGENT_BAD_REQUEST, 0, 0, "the file request is not well-formed");
		return;
	}
	if (s->status.state != AGENT_STATE_RUNNING) {
		service_end(s, st, AGENT_ENDED, 0, 0, "the sandbox is not running");
		return;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		service_end(s, st, AGENT_FAILED_START, errno, AGENT_STAGE_FORK, "");
		return;
	}
	pid_t pid = sysx_fork(spawn_cgroup(s->agent));
	if (pid == 0)
		child(s, &req, pair[1]);
	close(pair[1]);
	int r = pid < 0 ? pid : service_watch(s, &st->files, pair[0], true);
	if (r) {
		close(pair[0]);
		service_end(s, st, AGENT_FAILED_START, r, AGENT_STAGE_FORK, "");
		return;
	}
	s->assembly_bytes -= st->size;
	free(take_ptr(st->bytes));
	st->size = st->have = st->sent = 0;
	st->kind = STREAM_FILES;
	st->files_pid = pid;
}

int fs_input(struct service *s, struct stream *st, const uint8_t *data, uint32_t n)
{
	if (st->upload_eof || st->have + n > UPLOAD_BYTES)
		return -EPROTO;
	if (!st->bytes) {
		if (s->input_bytes + UPLOAD_BYTES > INT_INPUT_BYTES || !(st->bytes = malloc(UPLOAD_BYTES)))
			return -ENOMEM;
		st->size = UPLOAD_BYTES;
		s->input_bytes += UPLOAD_BYTES;
	}
	memcpy(st->bytes + st->have, data, n);
	st->have += n;
	return 0;
}

void fs_push(struct service *s, struct stream *st)
{
	while (st->sent < st->have && st->files.writable) {
		uint32_t part = st->have - st->sent < INT_IN_BYTES ? st->have - st->sent : INT_IN_BYTES;
		ssize_t n = send(st->files.fd, st->bytes + st->sent, part, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
			st->files.writable = 0;
			break;
		}
		/* a child that has failed already says so by END; the rest of the upload has nowhere to go */
		part = n < 0 ? st->have - st->sent : (uint32_t)n;
		st->sent += part;
		st->grant += part;
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
	if (st->upload_eof && !st->have && st->files.fd >= 0) {
		st->upload_eof = false;
		ignore_result(shutdown(st->files.fd, SHUT_WR)); /* the child has gone: END or EOF follows */
	}
}

static bool child_died(struct service *s, struct stream *st)
{
	service_end(s, st, AGENT_FAILED_SYS, EIO, 0, "the file operation was killed");
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
	service_commit(s, f.type, st->id, f.size);
	if (f.type == AGENT_END)
		service_free_stream(s, st);
	else
		st->credit -= f.size;
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
	for (uint32_t i = 0; i < LIMIT_STREAMS; i++)
		if (s->streams[i].kind == STREAM_FILES && s->streams[i].files_pid == pid) {
			s->streams[i].files_pid = 0;
			return true;
		}
	return false;
}
