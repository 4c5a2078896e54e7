// SPDX-License-Identifier: Apache-2.0
#include "api/upstream.h"

#include "base/cleanup.h"
#include "base/http1.h"
#include "base/ws.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define CONNECT_MS 10000u
#define IN_FIRST   16384u
#define IN_BODY	   65536u
#define OUT_HIGH   (256u * 1024)
#define OUT_LOW	   (128u * 1024)
#define SMALL_PIECE 512u

enum phase { CONNECTING = 0, WAITING_HEAD, BODY, TUNNEL };

struct upstream {
	struct loop *loop;
	struct http_request *req;
	struct services_sandbox *counted; /* owned */
	int inet_fd, inet6_fd; /* owned; the one that is connected is also `fd` */
	int fd;
	unsigned attempt;
	uint32_t addr, port;
	size_t path_len; /* of the request's path, what lies behind the port */
	bool api_origin, upgrade, is_head, chunk_body, client_paused, client_done, eof, refused_body, shut_when_flushed, shut;
	enum phase phase;
	struct loop_fd *source;
	struct loop_timer *timer;
	struct buf out;
	char *in; /* owned */
	size_t in_start, in_len, in_cap;
	struct http1_scan scan;
	struct http1_head head;
	struct http1_body body;
	char accept[WS_ACCEPT_SIZE];
};

static void upstream_free(struct upstream *u)
{
	loop_fd_remove(u->source);
	loop_timer_free(u->timer);
	close_keep_errno(u->inet_fd);
	close_keep_errno(u->inet6_fd);
	services_release(u->counted);
	buf_free(&u->out);
	free(u->in);
	free(u);
}

/* Nothing usable came from inside. */
static void fail(struct upstream *u, const char *why)
{
	struct http_request *req = u->req;
	bool begun = http_response_begun(req);
	uint32_t port = u->port;

	upstream_free(u);
	if (begun)
		http_response_fail(req);
	else
		http_respond_code(req, SBX_E_BAD_GATEWAY, "port %u of the sandbox: %s", port, why);
}

static void update(struct upstream *u)
{
	uint32_t events = 0;

	if (!u->source)
		return;
	if (u->phase == CONNECTING)
		events = EPOLLOUT;
	else if (!u->eof && http_response_queued(u->req) < HTTP_QUEUE_HIGH_BYTES)
		events = EPOLLIN;
	if (buf_used(&u->out))
		events |= EPOLLOUT;
	loop_fd_events(u->source, events);
}

/* ---- towards the service ---- */

/* The service does not take any more; what it has to say about that may still come. */
static void stop_sending(struct upstream *u)
{
	u->refused_body = true;
	buf_clear(&u->out);
}

static void flush(struct upstream *u)
{
	while (buf_used(&u->out) && u->phase != CONNECTING) {
		ssize_t n = send(u->fd, buf_peek(&u->out), buf_used(&u->out), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			buf_consume(&u->out, (size_t)n);
		else if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		else
			stop_sending(u);
	}
	if (u->client_paused && buf_used(&u->out) < OUT_LOW) {
		u->client_paused = false;
		http_request_resume(u->req);
	}
	if (u->shut_when_flushed && !u->shut && !buf_used(&u->out) && u->phase == TUNNEL) {
		shutdown(u->fd, SHUT_WR);
		u->shut = true;
	}
}

static void client_bytes(void *user, struct http_request *req, const char *data, size_t n)
{
	struct upstream *u = user;

	(void)req;
	if (!u->refused_body) {
		if (u->phase != TUNNEL && u->chunk_body)
			buf_printf(&u->out, "%zx\r\n", n);
		buf_append(&u->out, data, n);
		if (u->phase != TUNNEL && u->chunk_body)
			buf_puts(&u->out, "\r\n");
		if (u->out.failed)
			stop_sending(u);
		/* tiny chunks leave together in the loop's next turn, not with a system call each */
		if (n >= SMALL_PIECE || u->phase == TUNNEL || !u->source)
			flush(u);
	}
	if (buf_used(&u->out) > OUT_HIGH && !u->client_paused) {
		u->client_paused = true;
		http_request_pause(u->req);
	}
	update(u);
}

static void client_end(void *user, struct http_request *req)
{
	struct upstream *u = user;

	(void)req;
	u->client_done = true;
	if (u->phase == TUNNEL) {
		u->shut_when_flushed = true;
		flush(u);
		if (u->eof) {
			http_response_end(u->req);
			upstream_free(u);
			return;
		}
	} else if (u->chunk_body && !u->refused_body) {
		buf_puts(&u->out, "0\r\n\r\n");
		flush(u);
	}
	update(u);
}

static void client_writable(void *user, struct http_request *req)
{
	(void)req;
	update(user);
}

static void client_gone(void *user, struct http_request *req)
{
	(void)req;
	upstream_free(user);
}

/* ---- towards the client ---- */

static bool passes_back(const struct upstream *u, struct http_text name)
{
	static const char *const hop[] = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
					  "te", "trailer", "transfer-encoding", "upgrade", "content-length", "x-request-id"};
	static const char *const whole_origin[] = {"service-worker-allowed", "clear-site-data", "strict-transport-security", "alt-svc"};

	for (size_t i = 0; i < ARRAY_SIZE(hop); i++)
		if (http_text_is_nocase(name, hop[i]))
			return false;
	/* on the API's origin a page of the sandbox must not reach beyond its own path */
	if (u->api_origin && !strncasecmp(name.data, "access-control-", name.len < 15 ? name.len : 15))
		return false;
	for (size_t i = 0; u->api_origin && i < ARRAY_SIZE(whole_origin); i++)
		if (http_text_is_nocase(name, whole_origin[i]))
			return false;
	return !http1_connection_names(&u->head, u->in + u->in_start, name.data, name.len);
}

/*
 * On the API's origin a cookie stays below the path that the service lives at: whatever Domain and Path it asked for are
 * replaced, or a sandbox could plant cookies for the API and for other sandboxes.
 */
static void confined_cookie(const struct upstream *u, struct http_text value, struct buf *out)
{
	struct http_text prefix = http_request_path(u->req);

	prefix.len -= u->path_len;
	for (size_t at = 0; at < value.len;) {
		const char *start = value.data + at, *semicolon = memchr(start, ';', value.len - at);
		size_t n = semicolon ? (size_t)(semicolon - start) : value.len - at, skip = 0;

		while (skip < n && (start[skip] == ' ' || start[skip] == '\t'))
			skip++;
		bool domain = n - skip >= 6 && !strncasecmp(start + skip, "domain", 6);
		bool path = n - skip >= 4 && !strncasecmp(start + skip, "path", 4);
		if (at == 0 || (!domain && !path)) {
			buf_puts(out, at ? "; " : "");
			buf_append(out, start + skip, n - skip);
		}
		at += n + 1;
	}
	buf_puts(out, "; Path=");
	buf_append(out, prefix.data, prefix.len);
}

static void answer_lines(const struct upstream *u, struct buf *out)
{
	const char *data = u->in + u->in_start;

	for (uint32_t i = 0; i < u->head.n_headers; i++) {
		const struct http1_header *h = &u->head.headers[i];
		struct http_text name = {data + h->name.off, h->name.len};

		if (!passes_back(u, name))
			continue;
		buf_append(out, name.data, name.len);
		buf_puts(out, ": ");
		struct http_text value = {data + h->value.off, h->value.len};
		if (u->api_origin && http_text_is_nocase(name, "set-cookie"))
			confined_cookie(u, value, out);
		else
			buf_append(out, value.data, value.len);
		buf_puts(out, "\r\n");
	}
	if (u->api_origin)
		buf_puts(out, "Content-Security-Policy: sandbox allow-scripts allow-forms allow-popups\r\n");
}

static bool accepts_handshake(const struct upstream *u)
{
	const char *data = u->in + u->in_start;
	int i = http1_header(&u->head, data, "sec-websocket-accept", 0);

	if (i < 0 || !http1_connection_names(&u->head, data, "upgrade", 7))
		return false;
	struct http_text accept = {data + u->head.headers[i].value.off, u->head.headers[i].value.len};
	return http_text_is(accept, u->accept);
}

/* The head of the answer is in the buffer.  Returns false when u is gone. */
static bool answer_head(struct upstream *u)
{
	auto_buf lines = {0};
	size_t head_bytes = u->scan.head_bytes;
	enum http1_result r = http1_response(&u->head, u->in + u->in_start, head_bytes);

	u->scan = (struct http1_scan){0};
	if (r != HTTP1_OK) {
		fail(u, "the service's answer is not well-formed HTTP");
		return false;
	}
	if (u->head.status < 200 && u->head.status != 101) {
		u->in_start += head_bytes; /* interim */
		return true;
	}
	if (u->head.status == 101 && (!u->upgrade || !accepts_handshake(u))) {
		fail(u, "the service changed the protocol without being asked");
		return false;
	}
	answer_lines(u, &lines);
	if (u->head.status == 101)
		buf_puts(&lines, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
	if (lines.failed) {
		fail(u, "out of memory");
		return false;
	}
	struct http_text text = {buf_peek(&lines), buf_used(&lines)};
	u->in_start += head_bytes;
	if (u->head.status == 101) {
		u->phase = TUNNEL;
		u->client_done = false; /* an empty body has ended; now it is the tunnel's turn */
		http_response_upgrade(u->req, text);
		return true;
	}
	int64_t length = u->head.flags & HTTP1_HAS_LENGTH ? (int64_t)u->head.length : -1;
	if (u->head.status == 204 || u->head.status == 304)
		length = -1;
	u->phase = BODY;
	http1_body_of_response(&u->body, &u->head, u->is_head);
	if (u->body.kind == HTTP1_BODY_NONE && !u->is_head && u->head.status != 304)
		length = length > 0 ? -1 : length;
	http_response_begin(u->req, u->head.status, NULL, text, length);
	if (u->in_start == u->in_len)
		http_response_flush(u->req);
	return true;
}

static void answer_done(struct upstream *u)
{
	struct http_request *req = u->req;

	upstream_free(u);
	http_response_end(req);
}

/* Hands on what was read.  Returns false when u is gone. */
static bool answer_bytes(struct upstream *u)
{
	struct http1_span piece;
	size_t used, n = 0;
	char *joined = u->in + u->in_start;

	while (u->phase == BODY) {
		enum http1_result r = http1_body_next(&u->body, u->in + u->in_start, u->in_len - u->in_start, &used, &piece);

		/* Chunks of one byte must not cost a system call each: what came in one read leaves in one write. */
		if (piece.len && joined + n != u->in + u->in_start + piece.off)
			memmove(joined + n, u->in + u->in_start + piece.off, piece.len);
		n += piece.len;
		u->in_start += used;
		if (r == HTTP1_OK)
			continue;
		if (n)
			http_response_write(u->req, joined, n);
		if (r == HTTP1_DONE || (u->eof && u->body.kind == HTTP1_BODY_UNTIL_CLOSE && r == HTTP1_MORE)) {
			answer_done(u);
			return false;
		}
		if (r != HTTP1_MORE || u->eof) {
			fail(u, "the service's answer is cut off");
			return false;
		}
		break;
	}
	if (u->phase == TUNNEL && u->in_start < u->in_len) {
		http_response_write(u->req, u->in + u->in_start, u->in_len - u->in_start);
		u->in_start = u->in_len;
	}
	return true;
}

/* Looks for heads in what was read.  Returns false when u is gone. */
static bool answer_heads(struct upstream *u)
{
	while (u->phase == WAITING_HEAD) {
		enum http1_result r = http1_scan(&u->scan, u->in + u->in_start, u->in_len - u->in_start);

		if (r == HTTP1_OK) {
			if (!answer_head(u))
				return false;
			continue;
		}
		if (r != HTTP1_MORE) {
			fail(u, "the service's answer is not well-formed HTTP");
			return false;
		}
		if (u->eof) {
			fail(u, "the service closed the connection without an answer");
			return false;
		}
		break;
	}
	return true;
}

static int make_room(struct upstream *u)
{
	if (u->in_start == u->in_len)
		u->in_start = u->in_len = 0;
	if (u->in_len < u->in_cap && (u->phase == WAITING_HEAD || u->in_cap >= IN_BODY || u->in_len))
		return 0;
	size_t cap = u->in_cap < IN_FIRST ? IN_FIRST : u->phase == WAITING_HEAD ? u->in_cap * 2 : IN_BODY;
	if (u->in_start && u->in_len == u->in_cap) {
		memmove(u->in, u->in + u->in_start, u->in_len - u->in_start);
		u->in_len -= u->in_start;
		u->in_start = 0;
		return 0;
	}
	if (cap <= u->in_cap)
		return 0;
	char *in = realloc(u->in, cap); /* heads are bounded by the scan, bodies by IN_BODY */
	if (!in)
		return -ENOMEM;
	u->in = in;
	u->in_cap = cap;
	return 0;
}

static void service_readable(struct upstream *u)
{
	if (make_room(u) < 0) {
		fail(u, "out of memory");
		return;
	}
	ssize_t n = recv(u->fd, u->in + u->in_len, u->in_cap - u->in_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		u->in_len += (size_t)n;
	else
		u->eof = true;
	if (n < 0 && u->phase != TUNNEL && u->body.kind == HTTP1_BODY_UNTIL_CLOSE) {
		fail(u, "the service broke the connection off");
		return;
	}
	if (!answer_heads(u) || !answer_bytes(u))
		return;
	if (u->phase == TUNNEL && u->eof) {
		if (u->client_done || n < 0) {
			answer_done(u);
			return;
		}
		http_tunnel_shutdown(u->req);
	}
	update(u);
}

/* ---- connecting: the service may listen on either loopback or on the sandbox's address only ---- */

static void try_next(struct upstream *u);

static void connected(struct upstream *u)
{
	int on = 1;

	loop_timer_disarm(u->timer);
	u->phase = WAITING_HEAD;
	ignore_result(setsockopt(u->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))); /* only slower without */
	flush(u);
	update(u);
}

static void service_event(void *arg, int fd, uint32_t events)
{
	struct upstream *u = arg;

	if (u->phase == CONNECTING) {
		int sys = 0;
		socklen_t n = sizeof(sys);

		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &n) < 0 || sys)
			try_next(u);
		else
			connected(u);
		return;
	}
	if (events & EPOLLOUT)
		flush(u);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		if (u->eof) { /* HUP comes again and again; nothing more can come from there */
			loop_fd_remove(u->source);
			u->source = NULL;
			return;
		}
		service_readable(u);
		return;
	}
	update(u);
}

static int connect_to(struct upstream *u, unsigned attempt)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)u->port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)u->port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	const struct sockaddr *to = (const struct sockaddr *)&in;
	socklen_t n = sizeof(in);

	in.sin_addr.s_addr = htonl(attempt == 0 ? INADDR_LOOPBACK : u->addr);
	u->fd = u->inet_fd;
	if (attempt == 1) {
		to = (const struct sockaddr *)&in6;
		n = sizeof(in6);
		u->fd = u->inet6_fd;
	} else if (attempt == 2 && !u->addr) {
		return -EADDRNOTAVAIL;
	}
	if (u->fd < 0)
		return -ENODEV;
	if (connect(u->fd, to, n) == 0)
		return 0;
	/* the kernel reports a refused earlier attempt on this socket once more, and then is ready for the next */
	if (errno == ECONNABORTED && connect(u->fd, to, n) == 0)
		return 0;
	return -errno;
}

static void try_next(struct upstream *u)
{
	loop_fd_remove(u->source);
	u->source = NULL;
	while (u->attempt < 3) {
		int r = connect_to(u, u->attempt++);

		if (r < 0 && r != -EINPROGRESS)
			continue;
		u->source = loop_fd_add(u->loop, u->fd, EPOLLOUT, service_event, u);
		if (!u->source)
			break;
		if (r == 0)
			connected(u);
		return;
	}
	fail(u, "nothing answers");
}

static void connect_timeout(void *arg)
{
	fail(arg, "nothing answers in time");
}

static void set_nonblocking(int fd)
{
	int flags = fd >= 0 ? fcntl(fd, F_GETFL) : -1;

	if (flags >= 0)
		ignore_result(fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0); /* cannot fail on a socket of ours */
}

bool upstream_check(struct http_request *req)
{
	struct http_text upgrade = http_request_header(req, "upgrade");

	if (!http_text_is_nocase(upgrade, "websocket"))
		return true; /* other protocols are not passed on: the header is dropped */
	struct http_text key = http_request_header(req, "sec-websocket-key");
	if (http_request_wants_upgrade(req, "websocket") && key.data && ws_key_is_valid(key.data, key.len) &&
	    http_text_is(http_request_header(req, "sec-websocket-version"), "13"))
		return true;
	http_respond_code(req, SBX_E_MALFORMED, "the WebSocket handshake is not well-formed");
	return false;
}

void upstream_start(struct http_request *req, const struct upstream_config *config)
{
	static const struct http_request_ops ops = {
		.body = client_bytes, .body_end = client_end, .writable = client_writable, .abort = client_gone};
	struct upstream *u = calloc(1, sizeof(*u));

	if (u)
		u->timer = loop_timer_new(config->loop, connect_timeout, u);
	if (!u || !u->timer) {
		free(u);
		close_keep_errno(config->inet_fd);
		close_keep_errno(config->inet6_fd);
		services_release(config->counted);
		http_respond_code(req, SBX_E_NO_MEMORY, "proxy");
		return;
	}
	u->loop = config->loop;
	u->req = req;
	u->counted = config->counted;
	u->inet_fd = config->inet_fd;
	u->inet6_fd = config->inet6_fd;
	u->fd = -1;
	u->addr = config->addr;
	u->port = config->port;
	u->path_len = config->path.len;
	u->api_origin = !(config->flags & UPSTREAM_DIRECT);
	u->upgrade = http_request_wants_upgrade(req, "websocket");
	u->is_head = http_request_is(req, "HEAD");
	u->chunk_body = http_request_body_length(req) < 0;
	u->client_done = !u->upgrade && http_request_body_length(req) == 0;
	set_nonblocking(u->inet_fd);
	set_nonblocking(u->inet6_fd);
	if (u->upgrade)
		ws_accept_key(http_request_header(req, "sec-websocket-key").data, u->accept);
	upstream_head(&u->out, req, config, u->upgrade);
	if (u->out.failed) {
		fail(u, "out of memory");
		return;
	}
	http_request_accept(req, &ops, u);
	loop_timer_arm(u->timer, CONNECT_MS);
	try_next(u);
}
