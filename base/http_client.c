// SPDX-License-Identifier: Apache-2.0
#include "base/http_client.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/http1.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define BODY_ROOM (64u * 1024)
#define IN_SIZE	  (LIMIT_HTTP_HEAD_BYTES + BODY_ROOM)

struct http_client {
	int fd;
	char *path;    /* owned; of a Unix socket, or NULL */
	char *host;    /* owned */
	unsigned port;
	unsigned timeout_ms;
	char *in; /* owned; the head stays in front, the body comes behind it */
	size_t start, len, floor;
	struct http1_head head;
	struct http1_body body;
	bool has_answer, raw, must_close, body_done;
};

static int sys_error(struct sbx_err *err, int sys, const char *what)
{
	/* a socket's time-out is reported as EAGAIN */
	return sbx_err_set(err, SBX_E_SYSTEM, sys == EAGAIN ? ETIMEDOUT : sys, "%s", what);
}

static void set_timeouts(int fd, unsigned timeout_ms)
{
	struct timeval tv = {.tv_sec = (time_t)(timeout_ms / 1000), .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};

	/* without them a call may only wait longer */
	ignore_result(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	ignore_result(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
}

static int connect_unix(struct http_client *c, struct sbx_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(c->path) >= sizeof(addr.sun_path))
		return sbx_err_set(err, SBX_E_SYSTEM, ENAMETOOLONG, "connect to %s", c->path);
	memcpy(addr.sun_path, c->path, strlen(c->path) + 1);
	auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return sys_error(err, errno, "socket");
	set_timeouts(fd, c->timeout_ms);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "connect to %s", c->path);
	c->fd = take_fd(&fd);
	return 0;
}

static int connect_tcp(struct http_client *c, struct sbx_err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	char port[12];
	int sys = ECONNREFUSED;

	snprintf(port, sizeof(port), "%u", c->port);
	int r = getaddrinfo(c->host, port, &hints, &list);
	if (r != 0)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "resolve %s: %s", c->host, gai_strerror(r));
	for (struct addrinfo *a = list; a && c->fd < 0; a = a->ai_next) {
		auto_fd fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int on = 1;

		if (fd < 0) {
			sys = errno;
			continue;
		}
		set_timeouts(fd, c->timeout_ms);
		ignore_result(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))); /* only slower without */
		if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
			c->fd = take_fd(&fd);
		else
			sys = errno == EINPROGRESS ? ETIMEDOUT : errno;
	}
	freeaddrinfo(list);
	return c->fd >= 0 ? 0 : sbx_err_set(err, SBX_E_SYSTEM, sys, "connect to %s port %u", c->host, c->port);
}

static int reconnect(struct http_client *c, struct sbx_err *err)
{
	close_keep_errno(take_fd(&c->fd));
	c->start = c->len = c->floor = 0;
	c->has_answer = c->raw = c->must_close = false;
	return c->path ? connect_unix(c, err) : connect_tcp(c, err);
}

static struct http_client *client_open(const char *path, const char *host, unsigned port, unsigned timeout_ms,
				       struct sbx_err *err)
{
	struct http_client *c = calloc(1, sizeof(*c));

	if (c) {
		c->fd = -1;
		c->port = port;
		c->timeout_ms = timeout_ms;
		c->path = path ? strdup(path) : NULL;
		c->host = strdup(host);
		c->in = malloc(IN_SIZE);
	}
	if (!c || !c->host || !c->in || (path && !c->path))
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "HTTP client");
	else if (reconnect(c, err) == 0)
		return c;
	http_client_free(c);
	return NULL;
}

struct http_client *http_client_open_unix(const char *path, unsigned timeout_ms, struct sbx_err *err)
{
	return client_open(path, "localhost", 0, timeout_ms, err);
}

struct http_client *http_client_open_tcp(const char *host, unsigned port, unsigned timeout_ms, struct sbx_err *err)
{
	return client_open(NULL, host, port, timeout_ms, err);
}

void http_client_free(struct http_client *c)
{
	if (!c)
		return;
	close_keep_errno(c->fd);
	free(c->path);
	free(c->host);
	free(c->in);
	free(c);
}

void http_client_timeout(struct http_client *c, unsigned timeout_ms)
{
	c->timeout_ms = timeout_ms;
	set_timeouts(c->fd, timeout_ms);
}

static int send_all(struct http_client *c, const void *data, size_t n, struct sbx_err *err)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = send(c->fd, (const char *)data + at, n - at, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return errno == EPIPE || errno == ECONNRESET
				       ? sbx_err_set(err, SBX_E_PEER_GONE, errno, "the server closed the connection")
				       : sys_error(err, errno, "send");
		at += (size_t)r;
	}
	return 0;
}

/* Reads more input behind `len`.  Returns bytes, 0 at the end, -1 with err set. */
static ssize_t fill(struct http_client *c, struct sbx_err *err)
{
	ssize_t n;

	do
		n = recv(c->fd, c->in + c->len, IN_SIZE - c->len, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? sbx_err_set(err, SBX_E_PEER_GONE, errno, "the server broke the connection off")
					   : sys_error(err, errno, "receive");
	c->len += (size_t)n;
	return n;
}

static int send_head(struct http_client *c, const struct http_client_request *rq, struct sbx_err *err)
{
	auto_buf b = {0};
	bool v6 = strchr(c->host, ':') != NULL;

	buf_printf(&b, "%s %s HTTP/1.1\r\n", rq->method, rq->target);
	if (c->path)
		buf_puts(&b, "Host: localhost\r\n");
	else
		buf_printf(&b, v6 ? "Host: [%s]:%u\r\n" : "Host: %s:%u\r\n", c->host, c->port);
	if (rq->headers)
		buf_puts(&b, rq->headers);
	if (rq->source && rq->source_len < 0)
		buf_puts(&b, "Transfer-Encoding: chunked\r\n");
	else if (rq->source)
		buf_printf(&b, "Content-Length: %lld\r\n", (long long)rq->source_len);
	else if (rq->body_len || (strcmp(rq->method, "GET") != 0 && strcmp(rq->method, "HEAD") != 0))
		buf_printf(&b, "Content-Length: %zu\r\n", rq->body_len);
	buf_puts(&b, "\r\n");
	if (!rq->source)
		buf_append(&b, rq->body, rq->body_len);
	if (b.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
	return send_all(c, buf_peek(&b), buf_used(&b), err);
}

static int send_source(struct http_client *c, const struct http_client_request *rq, struct sbx_err *err)
{
	char block[16384 + 32];
	int64_t left = rq->source_len;

	for (;;) {
		ssize_t n = rq->source(rq->source_arg, block + 16, 16384, err);
		if (n < 0)
			return -1;
		if (rq->source_len >= 0) {
			if (n > left || (n == 0 && left))
				return sbx_err_set(err, SBX_E_SYSTEM, 0, "the body is not as long as was said");
			left -= n;
			if (n && send_all(c, block + 16, (size_t)n, err) < 0)
				return -1;
			if (!n || !left)
				return 0;
			continue;
		}
		if (!n)
			return send_all(c, "0\r\n\r\n", 5, err);
		char size[16];
		int digits = snprintf(size, sizeof(size), "%zx\r\n", (size_t)n);
		memcpy(block + 16 - digits, size, (size_t)digits);
		memcpy(block + 16 + n, "\r\n", 2);
		if (send_all(c, block + 16 - digits, (size_t)(digits + n + 2), err) < 0)
			return -1;
	}
}

/* Reads one head, past interim answers. */
static int read_head(struct http_client *c, bool to_head, struct sbx_err *err)
{
	for (;;) {
		struct http1_scan scan = {0};
		enum http1_result r;

		memmove(c->in, c->in + c->start, c->len - c->start);
		c->len -= c->start;
		c->start = 0;
		while ((r = http1_scan(&scan, c->in, c->len)) == HTTP1_MORE) {
			ssize_t n = fill(c, err);
			if (n < 0)
				return -1;
			if (n == 0)
				return sbx_err_set(err, SBX_E_PEER_GONE, 0, "the server closed the connection without an answer");
		}
		if (r == HTTP1_OK)
			r = http1_response(&c->head, c->in, scan.head_bytes);
		if (r != HTTP1_OK) {
			c->must_close = true;
			http1_error(err, r);
			if (err)
				err->code = SBX_E_PROTOCOL;
			return sbx_err_wrap(err, "not an HTTP answer");
		}
		c->start = c->floor = scan.head_bytes;
		if (c->head.status >= 200 || c->head.status == 101)
			break;
	}
	http1_body_of_response(&c->body, &c->head, to_head);
	c->raw = c->head.status == 101;
	c->has_answer = true;
	c->body_done = false;
	c->must_close = (c->head.flags & HTTP1_CLOSE) || c->body.kind == HTTP1_BODY_UNTIL_CLOSE || c->raw;
	return 0;
}

static int exchange(struct http_client *c, const struct http_client_request *rq, struct sbx_err *err)
{
	c->has_answer = false;
	if (send_head(c, rq, err) < 0 || (rq->source && send_source(c, rq, err) < 0)) {
		struct sbx_err ignored = {0};

		/* a server that refuses the body may have answered before it closed: that answer says more */
		if (!err || err->code != SBX_E_PEER_GONE || read_head(c, false, &ignored) < 0) {
			c->must_close = true;
			return -1;
		}
		c->must_close = true;
	} else if (read_head(c, !strcmp(rq->method, "HEAD"), err) < 0) {
		c->must_close = true;
		return -1;
	}
	return 0;
}

/* A server may close an idle connection while a request is on its way: what only reads is sent again (RFC 9112, 9.3.1). */
static bool may_repeat(const struct http_client *c, const struct http_client_request *rq, const struct sbx_err *err)
{
	return err->code == SBX_E_PEER_GONE && c->len == 0 && !rq->source && (!strcmp(rq->method, "GET") || !strcmp(rq->method, "HEAD"));
}

int http_client_begin(struct http_client *c, const struct http_client_request *rq, struct http_client_response *ret,
		      struct sbx_err *err)
{
	char over[4096];
	ssize_t n = 0;
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	bool used = c->fd >= 0 && c->has_answer;
	struct sbx_err first = {0};

	while (c->fd >= 0 && c->has_answer && !c->must_close && !c->body_done && (n = http_client_read(c, over, sizeof(over), NULL)) > 0) {
	}
	/* a readable idle connection was closed by the server, or holds what nobody asked for */
	if (c->fd < 0 || n < 0 || c->must_close || (c->has_answer && (c->start != c->len || poll(&p, 1, 0) != 0))) {
		if (reconnect(c, err) < 0)
			return -1;
		used = false;
	}
	if (exchange(c, rq, &first) < 0) {
		bool again = used && may_repeat(c, rq, &first);

		if (err && !again)
			*err = first;
		if (!again || reconnect(c, err) < 0 || exchange(c, rq, err) < 0)
			return -1;
	}
	ret->status = c->head.status;
	ret->length = c->body.kind == HTTP1_BODY_NONE ? 0 : c->body.kind == HTTP1_BODY_LENGTH ? (int64_t)c->body.left : -1;
	return 0;
}

const char *http_client_header(struct http_client *c, const char *name)
{
	int i = c->has_answer ? http1_header(&c->head, c->in, name, 0) : -1;

	if (i < 0)
		return NULL;
	struct http1_span v = c->head.headers[i].value;
	c->in[v.off + v.len] = '\0'; /* white space or the line's CR: read before, needed no more */
	return c->in + v.off;
}

ssize_t http_client_read(struct http_client *c, void *out, size_t size, struct sbx_err *err)
{
	while (c->has_answer && !c->body_done) {
		size_t used = 0;
		struct http1_span piece = {0};
		enum http1_result r = HTTP1_OK;
		size_t have = c->len - c->start;

		if (have > size)
			have = size; /* a piece never exceeds what the caller takes */
		if (c->raw) {
			piece.len = (uint32_t)have;
			used = have;
			r = have ? HTTP1_OK : HTTP1_MORE;
		} else {
			r = http1_body_next(&c->body, c->in + c->start, have, &used, &piece);
		}
		memcpy(out, c->in + c->start + piece.off, piece.len);
		c->start += used;
		if (r == HTTP1_DONE) {
			c->body_done = true;
			break;
		}
		if (piece.len)
			return (ssize_t)piece.len;
		if (r == HTTP1_OK || (r == HTTP1_MORE && c->start < c->len))
			continue;
		if (r != HTTP1_MORE) {
			c->must_close = true;
			http1_error(err, r);
			return sbx_err_wrap(err, "broken answer");
		}
		c->start = c->len = c->floor;
		ssize_t n = fill(c, err);
		if (n < 0) {
			c->must_close = true;
			return -1;
		}
		if (n == 0) {
			c->must_close = c->body_done = true;
			if (c->raw || c->body.kind == HTTP1_BODY_UNTIL_CLOSE)
				break;
			return sbx_err_set(err, SBX_E_PEER_GONE, 0, "the answer is cut off");
		}
	}
	return 0;
}

int http_client_body(struct http_client *c, size_t max, char **ret_body, size_t *ret_len, struct sbx_err *err)
{
	auto_buf b = {0};
	ssize_t n;

	for (;;) {
		char *room = buf_reserve(&b, 16384);
		if (!room)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "answer");
		n = http_client_read(c, room, 16384, err);
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		buf_commit(&b, (size_t)n);
		if (buf_used(&b) > max)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "the answer is larger than %zu bytes", max);
	}
	size_t len = buf_used(&b);
	char *body = malloc(len + 1);
	if (!body)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "answer");
	if (len)
		memcpy(body, buf_peek(&b), len);
	body[len] = '\0';
	*ret_body = body;
	if (ret_len)
		*ret_len = len;
	return 0;
}

int http_client_fd(const struct http_client *c)
{
	return c->fd;
}

bool http_client_pending(const struct http_client *c)
{
	return c->start < c->len;
}

int http_client_write(struct http_client *c, const void *data, size_t n, struct sbx_err *err)
{
	return send_all(c, data, n, err);
}
