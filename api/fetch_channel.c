// SPDX-License-Identifier: Apache-2.0
#include "api/fetch_channel.h"

#include "api/monitor.h"
#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/num.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

struct asked {
	struct asked *next;
	uint64_t tag;
	fetch_started *started;
	void *to;
};

struct fetch_channel {
	struct loop *loop;
	struct loop_fd *source;
	int fd;
	struct asked *asked;
};

static void on_reply(void *arg, int fd, uint32_t events)
{
	struct fetch_channel *c = arg;
	struct monitor_fetch reply = {0};
	struct sbx_err err = {0};
	int fds[1];
	size_t n_fds = 0;

	(void)events;
	ssize_t n = fdpass_recv(fd, &reply, sizeof(reply), fds, 1, &n_fds);
	auto_fd auth = n_fds ? fds[0] : -1;
	if (n == 0) { /* the monitor is gone, and so are we soon */
		loop_fd_remove(c->source);
		c->source = NULL;
	}
	if (n != (ssize_t)sizeof(reply) || reply.magic != MONITOR_FETCH_MAGIC)
		return;
	for (struct asked **at = &c->asked; *at; at = &(*at)->next) {
		struct asked *a = *at;

		if (a->tag != reply.tag)
			continue;
		*at = a->next;
		if (reply.sys)
			sbx_err_set(&err, SBX_E_SYSTEM, reply.sys, "start sandbox-fetch");
		a->started(a->to, reply.sys ? -1 : take_fd(&auth), &err);
		free(a);
		return;
	}
}

static int ask(void *arg, int socket, fetch_started *started, void *to, struct sbx_err *err)
{
	struct fetch_channel *c = arg;
	struct monitor_fetch message = {.magic = MONITOR_FETCH_MAGIC};
	const struct iovec iov = {.iov_base = &message, .iov_len = sizeof(message)};
	struct asked *a = calloc(1, sizeof(*a));

	if (!a)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox-fetch");
	*a = (struct asked){.next = c->asked, .started = started, .to = to};
	random_bytes(&a->tag, sizeof(a->tag));
	message.tag = a->tag;
	int r = fdpass_send(c->fd, &iov, 1, &socket, 1);
	if (r < 0) {
		free(a);
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "ask the monitor for sandbox-fetch");
	}
	c->asked = a;
	return 0;
}

struct fetch_channel *fetch_channel_new(struct loop *loop, int fd, struct sbx_err *err)
{
	struct fetch_channel *c = calloc(1, sizeof(*c));

	if (c) {
		c->loop = loop;
		c->fd = fd;
		c->source = loop_fd_add(loop, fd, EPOLLIN, on_reply, c);
	}
	if (!c || !c->source) {
		free(c);
		sbx_err_set(err, SBX_E_SYSTEM, errno, "socket to the monitor: start sandboxd with --standalone");
		return NULL;
	}
	return c;
}

void fetch_channel_free(struct fetch_channel *c)
{
	if (!c)
		return;
	loop_fd_remove(c->source);
	while (c->asked) {
		struct asked *a = c->asked;

		c->asked = a->next;
		free(a);
	}
	free(c);
}

struct fetch_starter fetch_channel_starter(struct fetch_channel *c)
{
	return (struct fetch_starter){.arg = c, .start = ask};
}
