// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent_control.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/limits.h"

#include <errno.h>
#include <string.h>

#define IN_PAYLOAD	    (AGENT_IN_FRAME - sizeof(struct agent_frame))
#define STATUSES_PER_WAKE_UP 8u


struct agent_control {
	int write_fd, read_fd;
	struct loop_fd *write_source, *read_source; /* owned */
	agent_control_handler *handler;
	void *arg;
	struct buf out; /* whole frames, in order */
	bool dead;	/* agent_control_free() was called inside the handler */
	bool in_handler;
};

static void release(struct agent_control *c)
{
	buf_free(&c->out);
	free(c);
}

static void tell(struct agent_control *c, const struct agent_status *status)
{
	c->in_handler = true;
	c->handler(c->arg, status);
	c->in_handler = false;
}

static bool status_ok(const struct agent_status *s)
{
	return s->magic == AGENT_STATUS_MAGIC && s->state >= AGENT_STATE_WAITING && s->state <= AGENT_STATE_ENDED;
}

static void on_readable(void *arg, int fd, uint32_t events)
{
	struct agent_control *c = arg;

	(void)events;
	for (unsigned i = 0; i < STATUSES_PER_WAKE_UP && !c->dead; i++) {
		struct agent_status status;
		ssize_t n = read(fd, &status, sizeof(status));

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		/* A status is written by one write of less than PIPE_BUF bytes, so a part of one is not the agent's doing. */
		bool good = n == (ssize_t)sizeof(status) && status_ok(&status);
		if (!good) {
			loop_fd_remove(c->read_source);
			c->read_source = NULL;
		}
		tell(c, good ? &status : NULL);
		if (!good)
			break;
	}
	if (c->dead)
		release(c);
}

static void flush(struct agent_control *c)
{
	while (buf_used(&c->out)) {
		const char *frame = buf_peek(&c->out);
		struct agent_frame head;

		memcpy(&head, frame, sizeof(head));
		size_t size = sizeof(head) + head.size;
		ssize_t n = write(c->write_fd, frame, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			loop_fd_events(c->write_source, EPOLLOUT);
			return;
		}
		if (n < 0) {
			/* EPIPE: nobody reads any more; the end of the agent is told by the other FIFO and the broker. */
			buf_clear(&c->out);
			break;
		}
		buf_consume(&c->out, size);
	}
	loop_fd_events(c->write_source, 0);
}

static void on_writable(void *arg, int fd, uint32_t events)
{
	struct agent_control *c = arg;

	(void)fd;
	if (events & EPOLLOUT)
		flush(c);
	if (events & (EPOLLERR | EPOLLHUP)) {
		/* Level-triggered: watched no longer, else the loop would spin until the sandbox is removed. */
		loop_fd_remove(c->write_source);
		c->write_source = NULL;
	}
}

struct agent_control *agent_control_new(struct loop *loop, int write_fd, int read_fd, agent_control_handler *handler, void *arg,
					struct sbx_err *err)
{
	struct agent_control *c = calloc(1, sizeof(*c));

	if (!c) {
		close_keep_errno(write_fd);
		close_keep_errno(read_fd);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "control channel");
		return NULL;
	}
	*c = (struct agent_control){.write_fd = write_fd, .read_fd = read_fd, .handler = handler, .arg = arg};
	c->read_source = loop_fd_add(loop, read_fd, EPOLLIN, on_readable, c);
	c->write_source = loop_fd_add(loop, write_fd, 0, on_writable, c);
	if (!c->read_source || !c->write_source) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "watch the control channel");
		agent_control_free(c);
		return NULL;
	}
	return c;
}

void agent_control_free(struct agent_control *c)
{
	if (!c || c->dead)
		return;
	loop_fd_remove(c->read_source);
	loop_fd_remove(c->write_source);
	close_keep_errno(c->read_fd);
	close_keep_errno(c->write_fd);
	c->dead = true;
	if (!c->in_handler)
		release(c);
}

static int put_frame(struct agent_control *c, enum agent_type type, uint32_t value, const char *payload, size_t n)
{
	const struct agent_frame head = {.size = (uint32_t)n, .type = (uint16_t)type, .value = value};

	buf_append(&c->out, &head, sizeof(head));
	buf_append(&c->out, payload, n);
	return c->out.failed ? -ENOMEM : 0;
}

struct measure {
	size_t strings, bytes;
};

static int measure_list(const char *what, const char *const *list, struct measure *m, struct sbx_err *err)
{
	for (; *list; list++) {
		size_t n = strlen(*list) + 1;

		m->strings++;
		m->bytes += n;
		if (n > LIMIT_SPAWN_STRING_BYTES)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: one string has %zu bytes, the kernel takes %u", what,
					   n - 1, LIMIT_SPAWN_STRING_BYTES - 1);
		if (m->strings > LIMIT_SPAWN_STRINGS || m->bytes > LIMIT_SPAWN_BYTES)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
					   "entrypoint and env: more than %u strings or %u bytes together", LIMIT_SPAWN_STRINGS,
					   LIMIT_SPAWN_BYTES);
	}
	return 0;
}

static int measure_start(const struct agent_start *start, struct measure *m, struct sbx_err *err)
{
	const char *const fixed[] = {start->cwd, start->user, NULL};

	*m = (struct measure){0};
	if (measure_list("image", fixed, m, err) < 0 || measure_list("entrypoint", start->args, m, err) < 0 ||
	    measure_list("env", start->env, m, err) < 0)
		return -1;
	return 0;
}

int agent_control_check(const struct agent_start *start, struct sbx_err *err)
{
	struct measure m;

	return measure_start(start, &m, err);
}

static void put_strings(struct buf *out, const char *const *list, uint32_t *ret_count)
{
	uint32_t n = 0;

	for (; list[n]; n++)
		buf_append(out, list[n], strlen(list[n]) + 1);
	*ret_count = n;
}

int agent_control_start(struct agent_control *c, const struct agent_start *start, struct sbx_err *err)
{
	const char *const fixed[] = {start->cwd, start->user, NULL};
	struct agent_spec spec = {.flags = start->flags | (*start->user ? (uint32_t)AGENT_SPEC_HAS_USER : 0)};
	auto_buf strings = {0};
	auto_buf whole = {0};
	struct measure m;
	uint32_t n_fixed;

	if (measure_start(start, &m, err) < 0)
		return -1;
	put_strings(&strings, fixed, &n_fixed);
	put_strings(&strings, start->args, &spec.n_args);
	put_strings(&strings, start->env, &spec.n_env);
	spec.string_bytes = (uint32_t)buf_used(&strings);
	buf_append(&whole, &spec, sizeof(spec));
	buf_append(&whole, buf_peek(&strings), buf_used(&strings));
	if (strings.failed || whole.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "start of the entrypoint");
	size_t total = buf_used(&whole);
	for (size_t at = 0; at < total;) {
		size_t n = total - at < IN_PAYLOAD ? total - at : IN_PAYLOAD;

		if (put_frame(c, at ? AGENT_MORE : AGENT_START, at ? 0 : (uint32_t)total, buf_peek(&whole) + at, n) < 0)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "start of the entrypoint");
		at += n;
	}
	flush(c);
	return 0;
}

int agent_control_query(struct agent_control *c, struct sbx_err *err)
{
	if (put_frame(c, AGENT_QUERY, 0, NULL, 0) < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "query of a sandbox");
	flush(c);
	return 0;
}

/* So many bytes wait at most for an agent that does not read. */
#define DENIED_WAITING_MAX 16384u

int agent_control_denied(struct agent_control *c, const char *line, size_t n)
{
	if (n > IN_PAYLOAD)
		return -EMSGSIZE;
	if (buf_used(&c->out) > DENIED_WAITING_MAX)
		return -EAGAIN;
	if (put_frame(c, AGENT_DENIED, 0, line, n) < 0)
		return -ENOMEM;
	flush(c);
	return 0;
}
