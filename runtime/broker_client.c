// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker_client.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CALLS_MAX	    8192u
#define TAG_BUCKETS	    1024u
#define RECONNECT_FIRST_MS  5u
#define RECONNECT_LAST_MS   500u
#define FDS_PER_REPLY	    4u
#define REPLIES_PER_WAKE_UP 64u

struct call {
	struct call *next;	  /* in its tag's bucket once sent */
	struct call *queue_next; /* in the queue until sent */
	uint64_t tag;
	uint32_t op;
	int fd; /* owned; -1: none */
	broker_client_done *done;
	void *arg;
	size_t size;
	union broker_any *msg; /* owned; exactly size bytes; NULL once sent */
};

struct broker_client {
	struct loop *loop;
	struct sockaddr_un addr;
	int sock;
	struct loop_fd *source;		/* owned */
	struct loop_timer *reconnect;	/* owned */
	struct loop_timer *patience;	/* owned; armed while calls wait without a connection */
	uint64_t delay_ms;
	bool greeted;
	struct broker_hello_reply hello;
	struct broker_client_hooks hooks;
	uint64_t next_tag;
	size_t n_calls;
	struct call *queue, **queue_end;
	struct call *sent[TAG_BUCKETS];
	union broker_any in;
};

static void try_connect(void *arg);
static void flush(struct broker_client *c);

static void call_free(struct broker_client *c, struct call *call)
{
	close_keep_errno(call->fd);
	free(call->msg);
	free(call);
	c->n_calls--;
}

static void fail_call(struct broker_client *c, struct call *call, const struct sbx_err *err)
{
	broker_client_done *done = call->done;
	void *arg = call->arg;

	call_free(c, call);
	done(arg, NULL, NULL, 0, err);
}

static struct call *take_sent(struct broker_client *c, uint64_t tag)
{
	for (struct call **at = &c->sent[tag % TAG_BUCKETS]; *at; at = &(*at)->next) {
		struct call *call = *at;
		if (call->tag == tag) {
			*at = call->next;
			return call;
		}
	}
	return NULL;
}

static void put_sent(struct broker_client *c, struct call *call)
{
	call->next = c->sent[call->tag % TAG_BUCKETS];
	c->sent[call->tag % TAG_BUCKETS] = call;
}

/* ---- connection ---- */

static void disconnect(struct broker_client *c, const char *why)
{
	struct sbx_err err = {0};
	bool was = c->greeted;

	loop_fd_remove(c->source);
	c->source = NULL;
	replace_fd(&c->sock, -1);
	c->greeted = false;
	if (was)
		log_warn("broker: connection lost (%s)", why);
	/* The callbacks may make new calls; those wait in the queue. */
	sbx_err_set(&err, SBX_E_PEER_GONE, 0, "the broker is being restarted");
	struct call *gone = NULL;
	for (size_t b = 0; b < TAG_BUCKETS; b++)
		while (c->sent[b]) {
			struct call *call = c->sent[b];
			c->sent[b] = call->next;
			call->next = gone;
			gone = call;
		}
	while (gone) {
		struct call *call = gone;
		gone = call->next;
		fail_call(c, call, &err);
	}
	if (was && c->hooks.lost)
		c->hooks.lost(c->hooks.arg);
	if (c->queue && !loop_timer_armed(c->patience))
		loop_timer_arm(c->patience, BROKER_CLIENT_WAIT_MS);
	loop_timer_arm(c->reconnect, c->delay_ms);
	c->delay_ms = c->delay_ms * 2 > RECONNECT_LAST_MS ? RECONNECT_LAST_MS : c->delay_ms * 2;
}

static void patience_over(void *arg)
{
	struct broker_client *c = arg;
	struct sbx_err err;

	sbx_err_set(&err, SBX_E_PEER_GONE, 0, "the broker does not answer");
	struct call *waiting = c->queue;
	c->queue = NULL;
	c->queue_end = &c->queue;
	while (waiting) {
		struct call *call = waiting;
		waiting = call->queue_next;
		fail_call(c, call, &err);
	}
}

/* ---- receiving ---- */

/* The size that a reply to @op must have. */
static size_t reply_size(uint32_t op)
{
	switch (op) {
	case BROKER_OP_SANDBOX_CREATE:
		return sizeof(struct broker_create_reply);
	case BROKER_OP_SANDBOX_STAT:
		return sizeof(struct broker_stat_reply);
	case BROKER_OP_SANDBOX_LIST:
		return sizeof(struct broker_list_reply);
	case BROKER_OP_LAYER_UNPACK:
	case BROKER_OP_LAYER_STAT:
	case BROKER_OP_LAYER_DROP:
		return sizeof(struct broker_layer_reply);
	case BROKER_OP_LAYER_LIST:
		return sizeof(struct broker_layers_reply);
	case BROKER_OP_SANDBOX_LAYERS:
		return sizeof(struct broker_sandbox_layers_reply);
	case BROKER_OP_LAYER_CAPTURE:
	case BROKER_OP_SANDBOX_CAPTURE:
	case BROKER_OP_ARCHIVE_INDEX:
	case BROKER_OP_LAYER_VERIFY:
		return sizeof(struct broker_capture_reply);
	case BROKER_OP_HOST_ROW:
		return sizeof(struct broker_host_reply);
	case BROKER_OP_POLICY:
		return sizeof(struct broker_policy_reply);
	default:
		return sizeof(struct broker_reply);
	}
}

/* The status every reply has behind its head, and the text where it has one. */
static bool reply_failed(uint32_t op, const union broker_any *any, struct sbx_err *err)
{
	const char *text = "";
	int sys = 0;

	if (!any->reply.status)
		return false;
	switch (op) {
	case BROKER_OP_SANDBOX_CREATE:
		text = any->create_reply.text;
		sys = any->create_reply.sys;
		break;
	case BROKER_OP_SANDBOX_STAT:
		text = any->stat_reply.text;
		sys = any->stat_reply.sys;
		break;
	case BROKER_OP_POLICY:
		text = any->policy_reply.text;
		sys = any->policy_reply.sys;
		break;
	case BROKER_OP_LAYER_UNPACK:
	case BROKER_OP_LAYER_STAT:
	case BROKER_OP_LAYER_DROP:
		text = any->layer_reply.text;
		sys = any->layer_reply.sys;
		break;
	case BROKER_OP_LAYER_CAPTURE:
	case BROKER_OP_SANDBOX_CAPTURE:
	case BROKER_OP_ARCHIVE_INDEX:
	case BROKER_OP_LAYER_VERIFY:
		text = any->capture_reply.text;
		sys = any->capture_reply.sys;
		break;
	case BROKER_OP_SANDBOX_LIST:
	case BROKER_OP_LAYER_LIST:
	case BROKER_OP_HOST_ROW:
		break;
	default:
		text = any->reply.text;
		sys = any->reply.sys;
	}
	/* The text already names the errno: it is kept apart so that it is not named twice. */
	sbx_err_set(err, (enum sbx_err_code)any->reply.status, 0, "%.*s", (int)(BROKER_TEXT_BYTES - 1), text);
	err->sys = sys;
	return true;
}

static void close_fds(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

static bool got_hello(struct broker_client *c, size_t size)
{
	const struct broker_hello_reply *h = &c->in.hello_reply;

	if (size != sizeof(*h) || h->head.op != BROKER_OP_HELLO || h->version != BROKER_VERSION || h->status) {
		log_error("broker: refused us: version %u, status %s: %.*s", h->version,
			  sbx_err_name((enum sbx_err_code)h->status), (int)sizeof(h->text), h->text);
		return false;
	}
	c->hello = *h;
	c->greeted = true;
	c->delay_ms = RECONNECT_FIRST_MS;
	loop_timer_disarm(c->patience);
	if (c->hooks.ready)
		c->hooks.ready(c->hooks.arg, &c->hello);
	flush(c);
	return true;
}

/* One message; false when the broker broke the protocol. */
static bool got_message(struct broker_client *c, size_t size, int *fds, size_t n_fds)
{
	const struct broker_head *head = &c->in.head;
	struct sbx_err err = {0};

	if (size < sizeof(*head) || head->magic != BROKER_MAGIC || head->size != size) {
		close_fds(fds, n_fds);
		return false;
	}
	if (!c->greeted) {
		close_fds(fds, n_fds);
		return got_hello(c, size);
	}
	if (head->op > BROKER_EVENT_NONE) {
		close_fds(fds, n_fds);
		if (size != sizeof(struct broker_event_msg))
			return false;
		if (c->hooks.event)
			c->hooks.event(c->hooks.arg, &c->in.event);
		return true;
	}
	struct call *call = take_sent(c, head->tag);
	/* A refusal may come as a plain reply whatever the op. */
	bool plain = size == sizeof(struct broker_reply) && c->in.reply.status;
	if (!call || call->op != head->op || (size != reply_size(head->op) && !plain)) {
		close_fds(fds, n_fds);
		if (call)
			put_sent(c, call);
		return false;
	}
	bool more = call->op == BROKER_OP_SANDBOX_LIST && !plain && c->in.list_reply.ref.slot != BROKER_NO_SLOT;
	broker_client_done *done = call->done;
	void *arg = call->arg;
	if (more)
		put_sent(c, call);
	else
		call_free(c, call);
	if (reply_failed(plain ? BROKER_OP_SANDBOX_KILL : head->op, &c->in, &err)) {
		close_fds(fds, n_fds);
		done(arg, NULL, NULL, 0, &err);
	} else {
		done(arg, &c->in, fds, n_fds, &err);
	}
	return true;
}

static void on_readable(struct broker_client *c)
{
	int sock = c->sock;

	for (unsigned i = 0; i < REPLIES_PER_WAKE_UP && c->sock == sock; i++) {
		int fds[FDS_PER_REPLY];
		size_t n_fds = 0;
		ssize_t n = fdpass_recv(c->sock, &c->in, sizeof(c->in), fds, FDS_PER_REPLY, &n_fds);

		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			disconnect(c, n ? strerrordesc_np((int)-n) : "closed");
			return;
		}
		if (!got_message(c, (size_t)n, fds, n_fds)) {
			disconnect(c, "it broke the protocol");
			return;
		}
	}
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct broker_client *c = arg;

	(void)fd;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		on_readable(c);
	if (c->greeted && (events & EPOLLOUT))
		flush(c);
}

static void try_connect(void *arg)
{
	struct broker_client *c = arg;
	const struct broker_hello hello = {
		.head = {.magic = BROKER_MAGIC, .op = BROKER_OP_HELLO, .size = sizeof(hello)},
		.version = BROKER_VERSION,
	};
	const struct iovec iov = {(void *)(uintptr_t)&hello, sizeof(hello)};

	c->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->sock < 0 || connect(c->sock, (const struct sockaddr *)&c->addr, sizeof(c->addr)) < 0) {
		disconnect(c, "cannot connect");
		return;
	}
	/* Room for a burst of creates: each is some 35 KiB.  The kernel's bound may be lower, then EAGAIN queues. */
	ignore_result(setsockopt(c->sock, SOL_SOCKET, SO_SNDBUF, &(int){1 << 20}, sizeof(int)) < 0);
	int r = fdpass_send(c->sock, &iov, 1, NULL, 0);
	if (r == 0)
		c->source = loop_fd_add(c->loop, c->sock, EPOLLIN, on_event, c);
	if (!c->source)
		disconnect(c, "cannot say hello");
}

/* ---- sending ---- */

static void flush(struct broker_client *c)
{
	while (c->greeted && c->queue) {
		struct call *call = c->queue;
		const struct iovec iov = {call->msg, call->size};
		int r = fdpass_send(c->sock, &iov, 1, &call->fd, call->fd >= 0);

		if (r == -EAGAIN || r == -ENOBUFS) {
			loop_fd_events(c->source, EPOLLIN | EPOLLOUT);
			return;
		}
		if (r < 0) {
			/* Not from inside a caller of broker_client_call(): EPOLLHUP tells the loop. */
			return;
		}
		c->queue = call->queue_next;
		if (!c->queue)
			c->queue_end = &c->queue;
		free(call->msg);
		call->msg = NULL;
		replace_fd(&call->fd, -1);
		put_sent(c, call);
	}
	if (c->source)
		loop_fd_events(c->source, EPOLLIN);
}

int broker_client_call(struct broker_client *c, const void *msg, int fd, broker_client_done *done, void *arg, struct sbx_err *err)
{
	const struct broker_head *head = msg;

	if (c->n_calls >= CALLS_MAX)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "too many requests wait for the broker");
	struct call *call = calloc(1, sizeof(*call));
	union broker_any *copy = malloc(head->size);
	if (!call || !copy) {
		free(call);
		free(copy);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "broker request");
	}
	memcpy(copy, msg, head->size);
	*call = (struct call){.op = head->op, .fd = -1, .done = done, .arg = arg, .size = head->size, .msg = copy};
	c->n_calls++;
	if (fd >= 0) {
		call->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (call->fd < 0) {
			int saved = errno;
			call_free(c, call);
			return sbx_err_set(err, SBX_E_SYSTEM, saved, "duplicate a descriptor");
		}
	}
	call->tag = ++c->next_tag;
	copy->head.magic = BROKER_MAGIC;
	copy->head.tag = call->tag;
	copy->head.zero = 0;
	*c->queue_end = call;
	c->queue_end = &call->queue_next;
	if (c->greeted)
		flush(c);
	else if (!loop_timer_armed(c->patience))
		loop_timer_arm(c->patience, BROKER_CLIENT_WAIT_MS);
	return 0;
}

int broker_client_slot(struct broker_client *c, enum broker_op op, struct broker_slot_ref ref, uint32_t arg_value,
		       broker_client_done *done, void *arg, struct sbx_err *err)
{
	const struct broker_slot_req req = {
		.head = {.op = op, .size = sizeof(req)},
		.ref = ref,
		.arg = arg_value,
	};

	return broker_client_call(c, &req, -1, done, arg, err);
}

/* ---- life ---- */

struct broker_client *broker_client_new(struct loop *loop, const char *path, struct sbx_err *err)
{
	struct broker_client *c = calloc(1, sizeof(*c));

	if (!c) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "broker client");
		return NULL;
	}
	c->loop = loop;
	c->sock = -1;
	c->queue_end = &c->queue;
	c->delay_ms = RECONNECT_FIRST_MS;
	c->addr.sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(c->addr.sun_path)) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "socket path %s is too long", path);
		broker_client_free(c);
		return NULL;
	}
	memcpy(c->addr.sun_path, path, strlen(path) + 1);
	c->reconnect = loop_timer_new(loop, try_connect, c);
	c->patience = loop_timer_new(loop, patience_over, c);
	if (!c->reconnect || !c->patience) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "broker client");
		broker_client_free(c);
		return NULL;
	}
	loop_timer_arm(c->reconnect, 0);
	return c;
}

void broker_client_free(struct broker_client *c)
{
	if (!c)
		return;
	loop_fd_remove(c->source);
	close_keep_errno(c->sock);
	loop_timer_free(c->reconnect);
	loop_timer_free(c->patience);
	for (size_t b = 0; b < TAG_BUCKETS; b++)
		while (c->sent[b]) {
			struct call *call = c->sent[b];
			c->sent[b] = call->next;
			call_free(c, call);
		}
	while (c->queue) {
		struct call *call = c->queue;
		c->queue = call->queue_next;
		call_free(c, call);
	}
	free(c);
}

void broker_client_set_hooks(struct broker_client *c, const struct broker_client_hooks *hooks)
{
	c->hooks = *hooks;
	if (c->greeted && c->hooks.ready)
		c->hooks.ready(c->hooks.arg, &c->hello);
}

const struct broker_hello_reply *broker_client_hello(const struct broker_client *c)
{
	return c->greeted ? &c->hello : NULL;
}
