// SPDX-License-Identifier: Apache-2.0
#include "api/execd/jupyter_conn.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/http1.h"
#include "base/ws.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define AGAIN_MS   250u
#define READ_BYTES 65536u
/* What one turn of the loop takes before others have theirs. */
/* Answers to pings that wait: a server that does not read gets none, since the last ping is what counts (RFC 6455, 5.5.3). */
#define PONGS_MAX 4096u
#define TURN_READS 4

enum phase { CONNECTING = 0, OPEN, WAITING, UPGRADING, BODY, SOCKET, CLOSED };

struct jupyter_conn {
	struct loop *loop;
	const struct jupyter_conn_ops *ops;
	void *arg;
	int fds[2]; /* owned */
	int fd;	    /* the one of them that is connected or being connected */
	uint32_t port;
	unsigned attempt;
	char *token; /* owned */
	enum phase phase;
	struct loop_fd *source;
	struct loop_timer *again, *deadline;
	struct buf out, in, body; /* in: not read yet; body: of the answer, or the message so far */
	struct http1_scan scan;
	struct http1_head head;
	struct http1_body framing;
	unsigned status;
	char accept[WS_ACCEPT_SIZE];
	struct ws_reader reader;
	uint64_t message_bytes;
	bool skipping, paused, gone;
	unsigned busy;
};

static void conn_free(struct jupyter_conn *c)
{
	loop_timer_free(c->again);
	loop_timer_free(c->deadline);
	for (int i = 0; i < 2; i++)
		close_keep_errno(c->fds[i]);
	buf_free(&c->out);
	buf_free(&c->in);
	buf_free(&c->body);
	free(c->token);
	free(c);
}

static void enter(struct jupyter_conn *c)
{
	c->busy++;
}

static void leave(struct jupyter_conn *c)
{
	if (!--c->busy && c->gone)
		conn_free(c);
}

static void stop(struct jupyter_conn *c)
{
	loop_fd_remove(c->source);
	c->source = NULL;
	loop_timer_disarm(c->again);
	loop_timer_disarm(c->deadline);
	c->phase = CLOSED;
}

void jupyter_conn_free(struct jupyter_conn *c)
{
	if (!c || c->gone)
		return;
	stop(c);
	c->gone = true;
	if (!c->busy)
		conn_free(c);
}

static void fail(struct jupyter_conn *c, const char *why)
{
	struct sbx_err err;

	if (c->phase == CLOSED)
		return;
	stop(c);
	sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "the Jupyter server on port %u %s", c->port, why);
	c->ops->closed(c->arg, &err);
}

static void update(struct jupyter_conn *c)
{
	uint32_t events = c->phase > CONNECTING && !c->paused ? EPOLLIN : 0;

	if (c->phase == CONNECTING || buf_used(&c->out) || c->out.failed)
		events |= EPOLLOUT;
	if (c->source)
		loop_fd_events(c->source, events);
}

static void flush(struct jupyter_conn *c)
{
	if (c->phase == CONNECTING || c->phase == CLOSED)
		return;
	if (c->out.failed) {
		fail(c, "was told more than there is memory for");
		return;
	}
	while (buf_used(&c->out)) {
		ssize_t n = send(c->fd, buf_peek(&c->out), buf_used(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			buf_consume(&c->out, (size_t)n);
		} else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			break;
		} else {
			fail(c, "broke the connection off");
			return;
		}
	}
	update(c);
}

/* ---- connecting: it listens on one of the two loopbacks, now or soon ---- */

static void socket_event(void *arg, int fd, uint32_t events);
static void take_all(struct jupyter_conn *c);

static int connect_to(struct jupyter_conn *c, unsigned which)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)c->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)c->port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	const struct sockaddr *to = which ? (const struct sockaddr *)&in6 : (const struct sockaddr *)&in;
	socklen_t n = which ? sizeof(in6) : sizeof(in);

	c->fd = c->fds[which];
	if (c->fd < 0)
		return -ENODEV;
	/* the kernel reports a refused earlier attempt on this socket once more, and then is ready for the next */
	if (connect(c->fd, to, n) == 0 || (errno == ECONNABORTED && connect(c->fd, to, n) == 0))
		return 0;
	return -errno;
}

static void connected(struct jupyter_conn *c)
{
	int on = 1;

	c->phase = OPEN;
	ignore_result(setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))); /* only slower without */
	update(c);
	c->ops->ready(c->arg);
}

static void try_next(struct jupyter_conn *c)
{
	loop_fd_remove(c->source);
	c->source = NULL;
	for (; c->attempt < 2; c->attempt++) {
		int r = connect_to(c, c->attempt);

		if (r < 0 && r != -EINPROGRESS)
			continue;
		c->attempt++;
		c->source = loop_fd_add(c->loop, c->fd, EPOLLOUT, socket_event, c);
		if (!c->source)
			fail(c, "cannot be waited for");
		else if (!r)
			connected(c);
		return;
	}
	c->attempt = 0;
	loop_timer_arm(c->again, AGAIN_MS);
}

static void try_again(void *arg)
{
	struct jupyter_conn *c = arg;

	enter(c);
	if (c->phase == CONNECTING)
		try_next(c);
	else
		take_all(c); /* what was read before a pause */
	leave(c);
}

static void too_late(void *arg)
{
	struct jupyter_conn *c = arg;

	enter(c);
	fail(c, c->phase == CONNECTING ? "does not listen" : "does not answer in time");
	leave(c);
}

struct jupyter_conn *jupyter_conn_new(const struct jupyter_conn_config *config, const struct jupyter_conn_ops *ops, void *arg)
{
	struct jupyter_conn *c = calloc(1, sizeof(*c));

	if (!c) {
		for (int i = 0; i < 2; i++)
			close_keep_errno(config->fds[i]);
		return NULL;
	}
	*c = (struct jupyter_conn){.loop = config->loop, .ops = ops, .arg = arg, .fds = {config->fds[0], config->fds[1]}, .fd = -1, .port = config->port};
	c->again = loop_timer_new(c->loop, try_again, c);
	c->deadline = loop_timer_new(c->loop, too_late, c);
	c->token = strdup(config->token);
	c->body.max = JUPYTER_MESSAGE_MAX;
	for (int i = 0; i < 2; i++) {
		int flags = c->fds[i] >= 0 ? fcntl(c->fds[i], F_GETFL) : -1;

		if (flags >= 0)
			ignore_result(fcntl(c->fds[i], F_SETFL, flags | O_NONBLOCK) < 0); /* cannot fail on a socket of ours */
	}
	if (!c->again || !c->deadline || !c->token) {
		conn_free(c);
		return NULL;
	}
	jupyter_conn_deadline(c, config->deadline_ms);
	loop_timer_arm(c->again, 0);
	return c;
}

void jupyter_conn_deadline(struct jupyter_conn *c, uint64_t ms)
{
	if (ms)
		loop_timer_arm(c->deadline, ms);
	else
		loop_timer_disarm(c->deadline);
}

/* ---- asking ---- */

static void put_head(struct jupyter_conn *c, const char *method, const char *path)
{
	buf_printf(&c->out, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: token %s\r\n", method, path, c->port, c->token);
}

void jupyter_conn_ask(struct jupyter_conn *c, const char *method, const char *path, const char *body)
{
	if (c->phase != OPEN)
		return; /* `closed` has been called */
	c->phase = WAITING;
	put_head(c, method, path);
	if (body)
		buf_printf(&c->out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	else
		buf_printf(&c->out, "Accept: application/json\r\n%s\r\n", strcmp(method, "POST") ? "" : "Content-Length: 0\r\n");
	update(c); /* it leaves in the loop's next turn: a failure then meets nobody in the middle of something */
}

void jupyter_conn_upgrade(struct jupyter_conn *c, const char *path)
{
	char key[WS_KEY_CHARS + 1];

	if (c->phase != OPEN)
		return; /* `closed` has been called */
	c->phase = UPGRADING;
	ws_make_key(key);
	ws_accept_key(key, c->accept);
	put_head(c, "GET", path);
	buf_printf(&c->out, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", key);
	update(c); /* it leaves in the loop's next turn: a failure then meets nobody in the middle of something */
}

void jupyter_conn_send(struct jupyter_conn *c, const char *text, size_t n)
{
	if (c->phase != SOCKET)
		return; /* `closed` has been called */
	c->out.failed |= ws_write(&c->out, false, WS_TEXT, true, text, n) < 0;
	update(c); /* it leaves in the loop's next turn: a failure then meets nobody in the middle of something */
}

void jupyter_conn_pause(struct jupyter_conn *c, bool on)
{
	if (c->paused == on)
		return;
	c->paused = on;
	if (!on && !c->source && c->phase > CONNECTING && c->phase != CLOSED) {
		c->source = loop_fd_add(c->loop, c->fd, EPOLLIN, socket_event, c);
		if (!c->source)
			jupyter_conn_deadline(c, 1);
	}
	update(c);
	if (!on && buf_used(&c->in))
		loop_timer_arm(c->again, 0);
}

size_t jupyter_conn_held(const struct jupyter_conn *c)
{
	return buf_used(&c->body) + buf_used(&c->in) + buf_used(&c->out);
}

/* ---- answers ---- */

static bool accepts_socket(const struct jupyter_conn *c, const char *data)
{
	int i = http1_header(&c->head, data, "sec-websocket-accept", 0);

	return c->head.status == 101 && i >= 0 && http1_connection_names(&c->head, data, "upgrade", 7) &&
	       c->head.headers[i].value.len == strlen(c->accept) &&
	       !memcmp(data + c->head.headers[i].value.off, c->accept, strlen(c->accept));
}

/* A head is whole.  Return: whether reading goes on. */
static bool take_head(struct jupyter_conn *c)
{
	const char *data = buf_peek(&c->in);
	size_t n = c->scan.head_bytes;

	c->scan = (struct http1_scan){0};
	if (http1_response(&c->head, data, n) != HTTP1_OK) {
		fail(c, "does not speak HTTP");
		return false;
	}
	bool upgraded = c->phase == UPGRADING && accepts_socket(c, data);
	buf_consume(&c->in, n);
	if (upgraded) {
		c->phase = SOCKET;
		ws_reader_init(&c->reader, false, 0);
		c->ops->opened(c->arg);
		return c->phase == SOCKET;
	}
	if (c->head.status == 101 || (c->phase == UPGRADING && c->head.status >= 200)) {
		fail(c, c->head.status == 403 || c->head.status == 401 ? "refuses the token" : "does not open the kernel's socket");
		return false;
	}
	if (c->head.status < 200)
		return true; /* interim */
	c->status = c->head.status;
	c->phase = BODY;
	buf_clear(&c->body);
	http1_body_of_response(&c->framing, &c->head, false);
	return true;
}

static bool take_answer(struct jupyter_conn *c)
{
	char empty[1] = "";
	bool last = c->head.flags & HTTP1_CLOSE || c->framing.kind == HTTP1_BODY_UNTIL_CLOSE;
	struct buf body = c->body;

	c->body = (struct buf){.max = JUPYTER_MESSAGE_MAX};
	c->phase = OPEN;
	if (last) /* what is asked next on this connection would get no answer */
		stop(c);
	c->ops->answer(c->arg, c->status, buf_used(&body) ? body.data + body.head : empty, buf_used(&body));
	buf_free(&body);
	if (last && !c->gone) {
		struct sbx_err err;

		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "the Jupyter server on port %u closes each connection", c->port);
		c->ops->closed(c->arg, &err);
	}
	return c->phase != CLOSED;
}

static bool take_body(struct jupyter_conn *c)
{
	struct http1_span piece;
	size_t used;

	for (;;) {
		const char *data = buf_peek(&c->in);
		enum http1_result r = http1_body_next(&c->framing, data, buf_used(&c->in), &used, &piece);

		if (piece.len)
			buf_append(&c->body, data + piece.off, piece.len);
		buf_consume(&c->in, used);
		if (c->body.failed || buf_used(&c->body) > JUPYTER_ANSWER_MAX) {
			fail(c, "answers more than it may");
			return false;
		}
		if (r == HTTP1_DONE)
			return take_answer(c);
		if (r == HTTP1_MORE)
			return false;
		if (r != HTTP1_OK) {
			fail(c, "does not speak HTTP");
			return false;
		}
	}
}

/* ---- messages ---- */

static void take_piece(struct jupyter_conn *c, const struct ws_piece *piece)
{
	uint64_t bytes = c->message_bytes += piece->n;
	struct buf message = {0};
	bool skipped;

	c->skipping |= bytes > JUPYTER_MESSAGE_MAX || piece->opcode != WS_TEXT;
	if (!c->skipping && buf_append(&c->body, piece->data, piece->n) < 0)
		c->skipping = true;
	if (c->skipping)
		buf_free(&c->body);
	c->body.max = JUPYTER_MESSAGE_MAX;
	if (!piece->last)
		return;
	skipped = c->skipping && piece->opcode == WS_TEXT;
	message = c->body;
	c->body = (struct buf){.max = JUPYTER_MESSAGE_MAX};
	c->skipping = false;
	c->message_bytes = 0;
	if (skipped)
		c->ops->skipped(c->arg, bytes);
	else if (buf_used(&message))
		c->ops->message(c->arg, message.data + message.head, buf_used(&message));
	buf_free(&message);
}

static void take_control(struct jupyter_conn *c, const struct ws_piece *piece)
{
	if (piece->opcode == WS_CLOSE) {
		fail(c, "closed the kernel's socket");
	} else if (piece->opcode == WS_PING && buf_used(&c->out) < PONGS_MAX) {
		c->out.failed |= ws_write(&c->out, false, WS_PONG, true, piece->data, piece->n) < 0;
		flush(c);
	}
}

static bool take_frames(struct jupyter_conn *c)
{
	while (c->phase == SOCKET && buf_used(&c->in) && !c->paused) {
		struct ws_piece piece;
		size_t used;
		enum ws_event event = ws_read(&c->reader, (uint8_t *)c->in.data + c->in.head, buf_used(&c->in), &used, &piece);

		/* the piece lies in the buffer until more is read */
		if (event == WS_DATA)
			take_piece(c, &piece);
		else if (event == WS_CONTROL)
			take_control(c, &piece);
		else if (event == WS_BAD)
			fail(c, "does not speak WebSocket");
		buf_consume(&c->in, used);
		if (event == WS_MORE)
			break;
	}
	return false;
}

/* Hands on what was read, as far as it goes. */
static void take_all(struct jupyter_conn *c)
{
	bool more = true;

	while (more) {
		switch (c->phase) {
		case WAITING:
		case UPGRADING: {
			enum http1_result r = http1_scan(&c->scan, buf_peek(&c->in), buf_used(&c->in));

			if (r != HTTP1_OK && r != HTTP1_MORE)
				fail(c, "does not speak HTTP");
			more = r == HTTP1_OK && take_head(c);
			break;
		}
		case BODY:
			more = take_body(c);
			break;
		case SOCKET:
			more = take_frames(c);
			break;
		case OPEN:
			if (buf_used(&c->in))
				fail(c, "answers what nobody asked");
			more = false;
			break;
		case CONNECTING:
		case CLOSED:
		default:
			more = false;
		}
	}
}

static void ended(struct jupyter_conn *c)
{
	if (c->phase == BODY && c->framing.kind == HTTP1_BODY_UNTIL_CLOSE)
		take_answer(c);
	else
		fail(c, "broke the connection off");
}

static void readable(struct jupyter_conn *c)
{
	for (int i = 0; i < TURN_READS && c->phase != CLOSED && !c->paused; i++) {
		char *room = buf_reserve(&c->in, READ_BYTES);

		if (!room) {
			fail(c, "sends more than there is memory for");
			return;
		}
		ssize_t n = recv(c->fd, room, READ_BYTES, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0) {
			ended(c);
			return;
		}
		buf_commit(&c->in, (size_t)n);
		take_all(c);
	}
	if (c->phase != CLOSED && !buf_used(&c->in))
		buf_free(&c->in); /* an idle kernel holds no memory here */
	if (c->phase == SOCKET && buf_used(&c->body) > READ_BYTES)
		c->ops->holding(c->arg);
}

static void socket_event(void *arg, int fd, uint32_t events)
{
	struct jupyter_conn *c = arg;

	enter(c);
	if (c->phase == CONNECTING) {
		int sys = 0;
		socklen_t n = sizeof(sys);

		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &n) < 0 || sys)
			try_next(c);
		else
			connected(c);
	} else {
		if (events & EPOLLOUT)
			flush(c);
		if (c->paused && c->source && events & (EPOLLHUP | EPOLLERR)) {
			loop_fd_remove(c->source); /* it would be told again and again; what came is read after the pause */
			c->source = NULL;
		}
		if (c->phase != CLOSED && events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !c->paused)
			readable(c);
	}
	leave(c);
}
