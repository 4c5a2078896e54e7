// SPDX-License-Identifier: Apache-2.0
#include "api/gw_client.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BUCKETS	   256u
/* More requests than connections are never open. */
#define QUEUE_MAX  2048u
/* Nobody listens at the path: the monitor is about to bind it (nothing tells when). */
#define RETRY_MS   100u
/* A restarted sandboxd or gateway is back in some 50 ms, ten times that on a busy machine: clients wait and notice nothing. */
#define GRACE_MS   3000u
#define HELLO_TAG  1u

struct pending {
	struct pending *next;
	uint64_t tag;
	gw_done *done;
	void *arg;
};

struct queued {
	struct queued *next;
	size_t n;
	int fd;
	char data[];
};

struct gw_client {
	struct loop *loop;
	char *path; /* owned */
	struct gw_client_hooks hooks;
	int fd;
	struct loop_fd *source;
	struct loop_timer *retry;
	struct loop_timer *grace; /* armed: requests wait for the channel instead of failing */
	bool up;
	uint32_t flags;
	uint64_t next_tag;
	struct pending *pending[BUCKETS];
	struct queued *queue, **queue_end;
	size_t n_queued;
	char *message; /* owned, GW_MESSAGE_MAX */
	char *compose; /* owned, GW_MESSAGE_MAX */
};

/* Fixed part of each kind that sandboxd may send. */
static size_t fixed_size(uint32_t kind)
{
	switch (kind) {
	case GW_HELLO_REPLY:
		return sizeof(struct gw_hello_reply);
	case GW_HTTP_REPLY:
	case GW_PULL_REPLY:
		return sizeof(struct gw_http_reply);
	case GW_OPEN_REPLY:
		return sizeof(struct gw_open_reply);
	case GW_STATE:
		return sizeof(struct gw_state);
	case GW_STAT_REPLY:
		return sizeof(struct gw_stat_reply);
	case GW_IMPORT_REPLY:
		return sizeof(struct gw_import_reply);
	case GW_ACCESS_REPLY:
		return sizeof(struct gw_access_reply);
	default:
		return 0;
	}
}

static struct pending *take_pending(struct gw_client *c, uint64_t tag)
{
	for (struct pending **p = &c->pending[tag % BUCKETS]; *p; p = &(*p)->next)
		if ((*p)->tag == tag) {
			struct pending *found = *p;
			*p = found->next;
			return found;
		}
	return NULL;
}

static void fail_all(struct gw_client *c)
{
	struct sbx_err err = {0};

	sbx_err_set(&err, SBX_E_PEER_GONE, 0, "sandboxd is being restarted; try again");
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct pending *p; (p = c->pending[i]);) {
			c->pending[i] = p->next;
			p->done(p->arg, NULL, &err);
			free(p);
		}
}

static void drop_queue(struct gw_client *c)
{
	for (struct queued *q; (q = c->queue);) {
		c->queue = q->next;
		close_keep_errno(q->fd);
		free(q);
	}
	c->queue_end = &c->queue;
	c->n_queued = 0;
}

static void gw_connect(struct gw_client *c);

static void disconnect(struct gw_client *c, const char *why)
{
	bool was_up = c->up;

	if (was_up)
		log_warn("channel to sandboxd: %s", why);
	c->up = false;
	loop_fd_remove(c->source);
	c->source = NULL;
	close_keep_errno(take_fd(&c->fd));
	if (was_up) {
		/* what was under way may have been done or not: the client has to look */
		drop_queue(c);
		if (c->hooks.down)
			c->hooks.down(c->hooks.arg);
		fail_all(c);
		loop_timer_arm(c->grace, GRACE_MS);
	}
	loop_timer_arm(c->retry, was_up ? 0 : RETRY_MS);
}

static int send_message(struct gw_client *c, const void *data, size_t n, int fd)
{
	struct iovec iov = {(void *)(uintptr_t)data, n};

	return fdpass_send(c->fd, &iov, 1, &fd, fd >= 0);
}

static void flush_queue(struct gw_client *c)
{
	while (c->queue) {
		struct queued *q = c->queue;
		int r = send_message(c, q->data, q->n, q->fd);

		if (r == -EAGAIN)
			return;
		if (r < 0) {
			disconnect(c, strerror(-r));
			return;
		}
		c->queue = q->next;
		if (!c->queue)
			c->queue_end = &c->queue;
		c->n_queued--;
		close_keep_errno(q->fd);
		free(q);
	}
	loop_fd_events(c->source, EPOLLIN);
}

/* Sends or queues; takes fd over in any case. */
static int send_or_queue(struct gw_client *c, const void *data, size_t n, int fd)
{
	auto_fd owned = fd;
	int r = -EAGAIN;

	if (!c->queue && c->up)
		r = send_message(c, data, n, owned);
	if (r != -EAGAIN && r != -EPIPE && r != -ECONNRESET && r != -ENOTCONN)
		return r;
	if (c->n_queued >= QUEUE_MAX)
		return -ENOBUFS;
	struct queued *q = malloc(sizeof(*q) + n);
	if (!q)
		return -ENOMEM;
	*q = (struct queued){.n = n, .fd = take_fd(&owned)};
	memcpy(q->data, data, n);
	if (r != -EAGAIN)
		disconnect(c, "broken"); /* it never left: it may wait for the channel to come back */
	*c->queue_end = q;
	c->queue_end = &q->next;
	c->n_queued++;
	if (c->up)
		loop_fd_events(c->source, EPOLLIN | EPOLLOUT);
	return 0;
}

/* ---- what arrives ---- */

struct mapping {
	void *data;
	size_t n;
};

/* The last string lies in the attached file: sealed, so that it cannot shrink under our reads. */
static int map_body(struct gw_reply *reply, uint32_t length, struct mapping *map)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_WRITE;
	struct stat st;
	int have;

	if (!reply->n_fds)
		return -EPROTO;
	int fd = reply->fds[reply->n_fds - 1];
	have = fcntl(fd, F_GET_SEALS);
	if (have < 0 || (have & seals) != seals || fstat(fd, &st) < 0 || st.st_size < (off_t)length)
		return -EPROTO;
	if (!length)
		return 0;
	map->data = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map->data == MAP_FAILED) {
		map->data = NULL;
		return -ENOMEM;
	}
	map->n = length;
	return 0;
}

static int find_strings(struct gw_reply *reply, const char *data, size_t n, size_t fixed, struct mapping *map)
{
	const struct gw_head *head = reply->head;
	size_t at = fixed;

	if (head->n_strings > GW_MAX_STRINGS || head->body_fd > 1 || (head->body_fd && !head->n_strings))
		return -EPROTO;
	for (uint32_t i = 0; i < head->n_strings; i++) {
		if (head->body_fd && i == head->n_strings - 1) {
			int r = map_body(reply, head->length[i], map);
			if (r < 0)
				return r;
			reply->strings[i] = (struct http_text){map->data ? map->data : "", map->n};
			continue;
		}
		if (head->length[i] > n - at)
			return -EPROTO;
		reply->strings[i] = (struct http_text){data + at, head->length[i]};
		at += head->length[i];
	}
	return at == n ? 0 : -EPROTO;
}

static void hello_reply(struct gw_client *c, const struct gw_reply *reply)
{
	struct gw_hello_reply hello;

	memcpy(&hello, reply->head, sizeof(hello));
	c->flags = hello.flags;
	c->up = true;
	log_info("channel to sandboxd is up");
	loop_timer_disarm(c->grace);
	if (c->hooks.up)
		c->hooks.up(c->hooks.arg, hello.flags);
	flush_queue(c);
}

static int dispatch(struct gw_client *c, struct gw_reply *reply)
{
	uint32_t kind = reply->head->kind;

	if (kind == GW_STATE) {
		struct gw_state state;

		memcpy(&state, reply->head, sizeof(state));
		c->hooks.state(c->hooks.arg, &state);
		return 0;
	}
	if (kind == GW_HELLO_REPLY) {
		if (c->up)
			return -EPROTO;
		hello_reply(c, reply);
		return 0;
	}
	struct pending *p = take_pending(c, reply->head->tag);
	if (!p)
		return 0; /* cancelled */
	p->done(p->arg, reply, NULL);
	free(p);
	return 0;
}

/* Returns false when there is nothing (more) to read, or the channel is gone. */
static bool receive(struct gw_client *c)
{
	struct gw_reply reply = {.fds = {-1, -1, -1, -1}};
	struct mapping map = {0};
	struct gw_head head;
	ssize_t n = fdpass_recv(c->fd, c->message, GW_MESSAGE_MAX, reply.fds, GW_CLIENT_FDS, &reply.n_fds);
	int r = -EPROTO;

	if (n == -EAGAIN)
		return false;
	if (n <= 0) {
		disconnect(c, n == 0 ? "closed" : strerror((int)-n));
		return false;
	}
	if ((size_t)n >= sizeof(head)) {
		memcpy(&head, c->message, sizeof(head));
		size_t fixed = fixed_size(head.kind);
		reply.head = (const void *)c->message;
		if (head.magic == GW_MAGIC && fixed && (size_t)n >= fixed)
			r = find_strings(&reply, c->message, (size_t)n, fixed, &map);
		if (r == 0)
			r = dispatch(c, &reply);
	}
	if (map.data)
		munmap(map.data, map.n);
	for (size_t i = 0; i < reply.n_fds; i++)
		close_keep_errno(reply.fds[i]);
	if (r < 0)
		disconnect(c, "malformed message");
	return c->fd >= 0;
}

static void control_event(void *arg, int fd, uint32_t events)
{
	struct gw_client *c = arg;

	(void)fd;
	if (events & EPOLLOUT)
		flush_queue(c);
	if (c->fd >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		while (receive(c)) {
		}
}

/* ---- connecting ---- */

static void gw_connect(struct gw_client *c)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct gw_hello hello = {.head = {.magic = GW_MAGIC, .kind = GW_HELLO, .tag = HELLO_TAG}, .version = GW_VERSION};

	memcpy(addr.sun_path, c->path, strlen(c->path) + 1);
	auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		loop_timer_arm(c->retry, RETRY_MS);
		return;
	}
	c->source = loop_fd_add(c->loop, fd, EPOLLIN, control_event, c);
	if (!c->source) {
		loop_timer_arm(c->retry, RETRY_MS);
		return;
	}
	c->fd = take_fd(&fd);
	if (send_message(c, &hello, sizeof(hello), -1) < 0)
		disconnect(c, "hello");
}

static void grace_over(void *arg)
{
	struct gw_client *c = arg;

	drop_queue(c);
	fail_all(c);
}

static void retry(void *arg)
{
	struct gw_client *c = arg;

	if (c->fd < 0)
		gw_connect(c);
}

struct gw_client *gw_client_new(struct loop *loop, const char *path, const struct gw_client_hooks *hooks, struct sbx_err *err)
{
	struct gw_client *c = calloc(1, sizeof(*c));
	struct sockaddr_un addr;

	if (c) {
		*c = (struct gw_client){.loop = loop, .hooks = *hooks, .fd = -1, .next_tag = HELLO_TAG + 1, .flags = GW_HELLO_KEY_REQUIRED};
		c->queue_end = &c->queue;
		c->path = strdup(path);
		c->message = malloc(GW_MESSAGE_MAX);
		c->compose = malloc(GW_MESSAGE_MAX);
		c->retry = loop_timer_new(loop, retry, c);
		c->grace = loop_timer_new(loop, grace_over, c);
	}
	if (!c || !c->path || !c->message || !c->compose || !c->retry || !c->grace) {
		gw_client_free(c);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "channel to sandboxd");
		return NULL;
	}
	if (strlen(path) >= sizeof(addr.sun_path)) {
		gw_client_free(c);
		sbx_err_set(err, SBX_E_SYSTEM, ENAMETOOLONG, "channel to sandboxd");
		return NULL;
	}
	loop_timer_arm(c->grace, GRACE_MS);
	gw_connect(c);
	return c;
}

void gw_client_free(struct gw_client *c)
{
	if (!c)
		return;
	c->hooks.down = NULL;
	if (c->path && c->queue_end)
		fail_all(c);
	loop_fd_remove(c->source);
	close_keep_errno(c->fd);
	if (c->queue_end)
		drop_queue(c);
	loop_timer_free(c->retry);
	loop_timer_free(c->grace);
	free(c->path);
	free(c->message);
	free(c->compose);
	free(c);
}

bool gw_client_up(const struct gw_client *c)
{
	return c->up;
}

uint32_t gw_client_flags(const struct gw_client *c)
{
	return c->flags;
}

/* ---- requests ---- */

static int body_file(struct http_text body)
{
	auto_fd fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < body.len;) {
		ssize_t n = write(fd, body.data + at, body.len - at);
		if (n < 0)
			return -errno;
		at += (size_t)n;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	return take_fd(&fd);
}

uint64_t gw_client_send(struct gw_client *c, struct gw_head *message, size_t size, const struct http_text *strings,
			size_t n_strings, gw_done *done, void *arg, struct sbx_err *err)
{
	size_t at = size;
	auto_fd body_fd = -1;

	assert(n_strings <= GW_MAX_STRINGS && size <= 1024);
	if (!c->up && !loop_timer_armed(c->grace)) {
		sbx_err_set(err, SBX_E_PEER_GONE, 0, "sandboxd is being restarted; try again");
		return 0;
	}
	message->magic = GW_MAGIC;
	message->tag = c->next_tag++;
	message->n_strings = (uint32_t)n_strings;
	message->body_fd = 0;
	for (size_t i = 0; i < n_strings; i++) {
		struct http_text s = strings[i];

		if (s.len > UINT32_MAX) {
			sbx_err_set(err, SBX_E_TOO_LARGE, 0, "request");
			return 0;
		}
		message->length[i] = (uint32_t)s.len;
		if (i == n_strings - 1 && s.len > GW_INLINE_BODY) {
			body_fd = body_file(s);
			if (body_fd < 0) {
				sbx_err_set(err, SBX_E_SYSTEM, -body_fd, "pass a body on");
				return 0;
			}
			message->body_fd = 1;
		} else if (at + s.len > GW_MESSAGE_MAX) {
			/* target, id and headers together are bounded by the head's 64 KiB, but not by this */
			sbx_err_set(err, SBX_E_HEADERS_TOO_LARGE, 0, "the request head is too large to be passed on");
			return 0;
		} else if (s.len) {
			memcpy(c->compose + at, s.data, s.len);
			at += s.len;
		}
	}
	memcpy(c->compose, message, size);
	struct pending *p = malloc(sizeof(*p));
	if (!p) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
		return 0;
	}
	int r = send_or_queue(c, c->compose, at, take_fd(&body_fd));
	if (r < 0) {
		free(p);
		sbx_err_set(err, r == -ENOBUFS ? SBX_E_LIMIT : SBX_E_PEER_GONE, -r, "pass the request on");
		return 0;
	}
	if (!done) {
		free(p);
		return message->tag;
	}
	*p = (struct pending){.next = c->pending[message->tag % BUCKETS], .tag = message->tag, .done = done, .arg = arg};
	c->pending[message->tag % BUCKETS] = p;
	return message->tag;
}

void gw_client_cancel(struct gw_client *c, uint64_t tag)
{
	if (tag)
		free(take_pending(c, tag));
}
