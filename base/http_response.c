// SPDX-License-Identifier: Apache-2.0
#include "base/http_server_int.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/wallclock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

/* An unread rest of a body up to this size is read over, so that the connection can be kept. */
#define DRAIN_MAX 65536u
/* Past this the handler ignores the watermark: a bug, or an answer that no client needs. */
#define OUT_MAX	  (256u * 1024 * 1024)
#define PIECES	  6

static const char *reason_of(unsigned status)
{
	static const struct {
		unsigned status;
		const char *reason;
	} reasons[] = {
		{101, "Switching Protocols"}, {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {204, "No Content"},
		{206, "Partial Content"}, {301, "Moved Permanently"}, {302, "Found"}, {304, "Not Modified"},
		{307, "Temporary Redirect"}, {308, "Permanent Redirect"}, {400, "Bad Request"}, {401, "Unauthorized"},
		{403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {408, "Request Timeout"},
		{409, "Conflict"}, {413, "Content Too Large"}, {414, "URI Too Long"}, {416, "Range Not Satisfiable"},
		{421, "Misdirected Request"}, {422, "Unprocessable Content"}, {431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"},
		{503, "Service Unavailable"}, {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Status";
}

/* ---- output ---- */

void http_conn_flush(struct http_conn *conn)
{
	while (buf_used(&conn->out) && !conn->broken) {
		ssize_t n = send(conn->fd, buf_peek(&conn->out), buf_used(&conn->out), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			buf_consume(&conn->out, (size_t)n);
		else if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		else
			conn->broken = true;
	}
	/* a large answer is over: an idle connection holds little */
	if (!conn->rq && conn->out.cap > DRAIN_MAX)
		buf_free(&conn->out);
}

void http_conn_send(struct http_conn *conn, const struct iovec *iov, size_t n)
{
	size_t sent = 0;

	if (conn->broken || conn->dead)
		return;
	if (!buf_used(&conn->out) && !conn->held) {
		struct iovec pieces[PIECES];
		struct msghdr msg = {.msg_iov = pieces, .msg_iovlen = n};

		assert(n <= PIECES);
		memcpy(pieces, iov, n * sizeof(*iov));
		ssize_t r = sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r >= 0) {
			sent = (size_t)r;
		} else if (errno != EAGAIN && errno != EINTR) {
			conn->broken = true;
			http_conn_kick(conn);
			return;
		}
	}
	conn->out.max = OUT_MAX;
	for (size_t i = 0; i < n; i++) {
		size_t skip = sent < iov[i].iov_len ? sent : iov[i].iov_len;

		sent -= skip;
		if (skip < iov[i].iov_len)
			buf_append(&conn->out, (const char *)iov[i].iov_base + skip, iov[i].iov_len - skip);
	}
	if (conn->out.failed)
		conn->broken = true;
	if (conn->rq && buf_used(&conn->out) >= HTTP_QUEUE_HIGH_BYTES)
		conn->rq->high = true;
	/* who is busy updates the events at its end; else they are set here, or nobody would wait for the socket */
	if (conn->broken)
		http_conn_kick(conn);
	else if (!conn->busy && !conn->held && buf_used(&conn->out) && conn->rq)
		http_conn_update(conn);
}

static struct iovec piece(const void *data, size_t n)
{
	return (struct iovec){(void *)(uintptr_t)data, n};
}

/* ---- heads ---- */

static const char *date_line(struct http_server *server)
{
	int64_t now_s = wall_usec() / 1000000;

	if (now_s != server->date_s) {
		time_t t = (time_t)now_s;
		struct tm tm;

		gmtime_r(&t, &tm);
		strftime(server->date, sizeof(server->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		server->date_s = now_s;
	}
	return server->date;
}

static bool has_date(struct http_text lines)
{
	for (size_t at = 0; at + 5 < lines.len;) {
		if (!strncasecmp(lines.data + at, "date:", 5))
			return true;
		const char *lf = memchr(lines.data + at, '\n', lines.len - at);
		if (!lf)
			break;
		at = (size_t)(lf - lines.data) + 1;
	}
	return false;
}

static void head_begin(struct http_server *server, struct buf *b, unsigned status, const char *content_type, const char *id,
		       struct http_text headers)
{
	buf_printf(b, "HTTP/1.1 %u %s\r\n", status, reason_of(status));
	if (!has_date(headers))
		buf_printf(b, "Date: %s\r\n", date_line(server));
	buf_printf(b, "X-Request-ID: %s\r\n", id);
	if (content_type)
		buf_printf(b, "Content-Type: %s\r\n", content_type);
}

/* One line for each answer, with the id that the client got.  Not the query: it may hold what is nobody's business. */
static void log_answer(const struct http_request *rq, unsigned status)
{
	struct http_text method = http_request_method(rq), path = http_request_path(rq);

	log_debug("%s %.*s %.*s %u id=%s", rq->conn->peer, (int)method.len, method.data, (int)(path.len < 512 ? path.len : 512),
		  path.data, status, rq->id);
}

/* Whether the connection can be kept is known now, before the head says so. */
static void decide_close(struct http_request *rq)
{
	const struct http1_body *body = &rq->body;

	if (rq->body_complete || body->kind == HTTP1_BODY_NONE)
		return;
	if (rq->continue_due || body->kind != HTTP1_BODY_LENGTH || body->left > DRAIN_MAX)
		rq->close_after = true;
}

static void head_end(struct http_request *rq, struct buf *b, struct http_text headers)
{
	buf_append(b, headers.data, headers.len);
	if (buf_used(&rq->extra))
		buf_append(b, buf_peek(&rq->extra), buf_used(&rq->extra));
	if (rq->close_after)
		buf_puts(b, "Connection: close\r\n");
	else if (rq->h.minor == 0 || rq->by_event)
		buf_puts(b, "Connection: keep-alive\r\n");
	buf_puts(b, "\r\n");
}

void http_request_extra(struct http_request *req, struct http_text lines)
{
	buf_append(&req->extra, lines.data, lines.len);
}

void http_request_close_after(struct http_request *req)
{
	req->close_after = true;
}

/* ---- whole answers ---- */

void http_respond(struct http_request *req, unsigned status, const char *content_type, struct http_text headers,
		  const void *body, size_t n)
{
	struct http_conn *conn = req->conn;
	struct buf *b = &conn->server->scratch;
	bool no_body = status == 204 || status == 304;

	assert(req->answer == HTTP_ANSWER_NONE);
	log_answer(req, status);
	decide_close(req);
	buf_clear(b);
	head_begin(conn->server, b, status, content_type, req->id, headers);
	if (!no_body)
		buf_printf(b, "Content-Length: %zu\r\n", n);
	head_end(req, b, headers);
	struct iovec iov[2] = {piece(NULL, 0), piece(body, req->is_head || no_body ? 0 : n)};
	if (b->failed || req->extra.failed) {
		conn->broken = true;
	} else {
		iov[0] = piece(buf_peek(b), buf_used(b));
		http_conn_send(conn, iov, 2);
	}
	http_request_over(req, false);
}

static void error_body(struct buf *b, const char *code, const char *message)
{
	struct jw w = {.out = b};

	jw_object(&w);
	jw_key_str(&w, "code", code);
	jw_key_str(&w, "message", message);
	jw_object_end(&w);
}

static const char *visible_message(const struct sbx_err *err)
{
	/* a 500 may name paths and errnos of the host; other 5xx are our own sentences about what to do */
	if (sbx_err_status(err->code) == 500 || !err->msg[0])
		return sbx_err_meaning(err->code);
	return err->msg;
}

void http_respond_json_error(struct http_request *req, unsigned status, const char *code, const char *message)
{
	auto_buf b = {0};

	error_body(&b, code, message);
	http_respond(req, status, req->names_charset ? "application/json; charset=utf-8" : "application/json", HTTP_NO_TEXT,
		     b.failed ? "" : buf_peek(&b), b.failed ? 0 : buf_used(&b));
}

void http_response_name_charset(struct http_request *req)
{
	req->names_charset = true;
}

void http_respond_error(struct http_request *req, const struct sbx_err *err)
{
	http_respond_json_error(req, (unsigned)sbx_err_status(err->code), sbx_err_api_code(err->code), visible_message(err));
}

void http_respond_code(struct http_request *req, enum sbx_err_code code, const char *fmt, ...)
{
	struct sbx_err err = {.code = code};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err.msg, sizeof(err.msg), fmt, ap);
	va_end(ap);
	http_respond_error(req, &err);
}

void http_conn_error(struct http_conn *conn, const struct sbx_err *err, const char *id, bool as_text)
{
	struct buf *b = &conn->server->scratch;
	auto_buf body = {0};
	char fresh[33];

	if (!id) {
		http_new_id(fresh);
		id = fresh;
	}
	if (as_text)
		buf_printf(&body, "%s\n", visible_message(err));
	else
		error_body(&body, sbx_err_api_code(err->code), visible_message(err));
	buf_clear(b);
	head_begin(conn->server, b, (unsigned)sbx_err_status(err->code), as_text ? "text/plain; charset=utf-8" : "application/json", id,
		   HTTP_NO_TEXT);
	buf_printf(b, "Content-Length: %zu\r\nConnection: close\r\n\r\n", buf_used(&body));
	conn->closing = conn->must_linger = true;
	conn->draining = false;
	conn->in_start = conn->in_len = 0;
	if (b->failed || body.failed) {
		conn->broken = true;
		return;
	}
	struct iovec iov[2] = {piece(buf_peek(b), buf_used(b)), piece(buf_peek(&body), buf_used(&body))};
	http_conn_send(conn, iov, 2);
}

/* ---- streamed answers ---- */

void http_response_begin(struct http_request *req, unsigned status, const char *content_type, struct http_text headers,
			 int64_t length)
{
	assert(req->answer == HTTP_ANSWER_NONE);
	req->answer = HTTP_ANSWER_BEGUN;
	log_answer(req, status);
	decide_close(req);
	req->chunked = length < 0 && req->h.minor == 1 && status != 204 && status != 304;
	req->until_close = length < 0 && req->h.minor == 0;
	req->left = length;
	if (req->until_close)
		req->close_after = true;
	head_begin(req->conn->server, &req->head, status, content_type, req->id, headers);
	if (req->chunked)
		buf_puts(&req->head, "Transfer-Encoding: chunked\r\n");
	else if (length >= 0 && status != 204 && status != 304)
		buf_printf(&req->head, "Content-Length: %lld\r\n", (long long)length);
	head_end(req, &req->head, headers);
	if (req->head.failed || req->extra.failed) {
		req->conn->broken = true;
		http_conn_kick(req->conn);
	}
}

static void head_leaves(struct http_request *req, const struct iovec *iov, size_t n)
{
	struct iovec all[PIECES];
	size_t k = 0;

	if (req->answer == HTTP_ANSWER_BEGUN) {
		all[k++] = piece(buf_peek(&req->head), buf_used(&req->head));
		req->answer = HTTP_ANSWER_FLOWING;
	}
	if (!k && !n)
		return;
	memcpy(all + k, iov, n * sizeof(*iov));
	http_conn_send(req->conn, all, k + n);
	buf_free(&req->head);
}

void http_response_flush(struct http_request *req)
{
	struct iovec none = {0};

	if (req->answer == HTTP_ANSWER_BEGUN && !req->head.failed)
		head_leaves(req, &none, 0);
}

void http_response_by_event(struct http_request *req)
{
	req->by_event = true;
}

#define EVENT_END "\n\n"

static bool is_one_event(const char *data, size_t n)
{
	const char *end = memmem(data, n, EVENT_END, 2);

	return !end || end + 2 == data + n;
}

static void put_chunk(struct buf *b, const char *data, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	char size[18] = {[16] = '\r', [17] = '\n'};
	size_t at = 16;

	for (size_t left = n; left; left >>= 4)
		size[--at] = digits[left & 15];
	buf_append(b, size + at, sizeof(size) - at);
	buf_append(b, data, n);
	buf_append(b, "\r\n", 2);
}

/* All events of @data, each as one chunk, and @last behind them, in one packet. */
static void write_events(struct http_request *req, const char *data, size_t n, const char *last)
{
	struct buf *b = &req->conn->server->scratch;

	buf_clear(b);
	for (const char *from = data, *end = data + n; from < end;) {
		const char *stop = memmem(from, (size_t)(end - from), EVENT_END, 2);

		stop = stop ? stop + 2 : end;
		put_chunk(b, from, (size_t)(stop - from));
		from = stop;
	}
	buf_puts(b, last);
	if (b->failed) {
		req->conn->broken = true;
		http_conn_kick(req->conn);
		return;
	}
	struct iovec iov = piece(buf_peek(b), buf_used(b));
	head_leaves(req, &iov, 1);
	if (b->cap > DRAIN_MAX) /* all connections share it, and few have so much at once */
		buf_free(b);
}

void http_response_write(struct http_request *req, const void *data, size_t n)
{
	char size[24];
	struct iovec iov[3];
	size_t k = 0;

	assert(req->answer != HTTP_ANSWER_NONE);
	if (!n || req->conn->broken)
		return;
	if (req->is_head) {
		http_response_flush(req);
		return;
	}
	if (req->answer == HTTP_ANSWER_TUNNEL || (!req->chunked && req->until_close)) {
		iov[k++] = piece(data, n);
	} else if (req->by_event && req->chunked && !is_one_event(data, n)) {
		write_events(req, data, n, "");
		return;
	} else if (req->chunked) {
		int size_len = snprintf(size, sizeof(size), "%zx\r\n", n);
		iov[k++] = piece(size, (size_t)size_len);
		iov[k++] = piece(data, n);
		iov[k++] = piece("\r\n", 2);
	} else {
		if ((uint64_t)n > (uint64_t)req->left)
			n = (size_t)req->left; /* more than was announced would be read as the next answer */
		if (!n)
			return;
		req->left -= (int64_t)n;
		iov[k++] = piece(data, n);
	}
	head_leaves(req, iov, k);
}

/*
 * Where the host's congestion control paces what it sends (bbr), it does so to a client on the same machine, too: that costs
 * timers and waiting, and there is no queue on the way that it could spare.
 */
static void no_pacing(struct http_conn *conn)
{
	if (!conn->paced_by_default)
		return;
	conn->paced_by_default = false;
	if (!strncmp(conn->peer_ip, "127.", 4) || !strcmp(conn->peer_ip, "::1"))
		ignore_result(setsockopt(conn->fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)); /* else it is only slower */
}

size_t http_response_splice(struct http_request *req, int pipe_fd, size_t n)
{
	struct http_conn *conn = req->conn;
	size_t done = 0;

	if (req->chunked || req->until_close || req->is_head || req->answer == HTTP_ANSWER_TUNNEL)
		return 0;
	http_response_flush(req);
	if (req->answer != HTTP_ANSWER_FLOWING || conn->broken)
		return 0;
	if (buf_used(&conn->out)) { /* also when that is too little for `high`: the caller waits for `writable` */
		req->stuck = true;
		return 0;
	}
	if ((uint64_t)n > (uint64_t)req->left)
		n = (size_t)req->left;
	no_pacing(conn);
	while (done < n) {
		ssize_t r = splice(pipe_fd, NULL, conn->fd, NULL, n - done, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN)
			req->stuck = true;
		if (r <= 0)
			break; /* any other failure is met again by the next write, or by the reader of the pipe */
		done += (size_t)r;
	}
	req->left -= (int64_t)done;
	if (req->stuck && !conn->busy)
		http_conn_update(conn);
	return done;
}

void http_response_finish(struct http_request *req, const void *data, size_t n)
{
	static const char last[] = "\r\n0\r\n\r\n";
	char size[24];

	if (!n || !req->chunked || req->is_head || req->answer == HTTP_ANSWER_TUNNEL || req->conn->broken) {
		http_response_write(req, data, n);
		http_response_end(req);
		return;
	}
	if (req->by_event && !is_one_event(data, n)) {
		write_events(req, data, n, "0\r\n\r\n");
		http_request_over(req, false);
		return;
	}
	int size_len = snprintf(size, sizeof(size), "%zx\r\n", n);
	struct iovec iov[3] = {piece(size, (size_t)size_len), piece(data, n), piece(last, sizeof(last) - 1)};
	head_leaves(req, iov, 3);
	http_request_over(req, false);
}

size_t http_response_queued(const struct http_request *req)
{
	return buf_used(&req->conn->out);
}

bool http_response_begun(const struct http_request *req)
{
	return req->answer != HTTP_ANSWER_NONE;
}

void http_response_end(struct http_request *req)
{
	struct iovec last = piece("0\r\n\r\n", 5);

	assert(req->answer != HTTP_ANSWER_NONE);
	if (req->answer != HTTP_ANSWER_TUNNEL && !req->conn->broken) {
		bool final_chunk = req->chunked && !req->is_head;
		head_leaves(req, &last, final_chunk ? 1 : 0);
	}
	bool short_of = req->answer != HTTP_ANSWER_TUNNEL && !req->chunked && !req->until_close && !req->is_head && req->left > 0;
	if (short_of)
		req->close_after = true;
	http_request_over(req, false);
}

void http_response_fail(struct http_request *req)
{
	http_request_over(req, true);
}

void http_response_upgrade(struct http_request *req, struct http_text headers)
{
	auto_buf b = {0};

	assert(req->answer == HTTP_ANSWER_NONE && req->ops);
	log_answer(req, 101);
	buf_printf(&b, "HTTP/1.1 101 Switching Protocols\r\nX-Request-ID: %s\r\n", req->id);
	buf_append(&b, headers.data, headers.len);
	if (buf_used(&req->extra))
		buf_append(&b, buf_peek(&req->extra), buf_used(&req->extra));
	buf_puts(&b, "\r\n");
	req->answer = HTTP_ANSWER_TUNNEL;
	req->body_complete = req->end_told = false;
	if (b.failed) {
		req->conn->broken = true;
	} else {
		struct iovec iov = piece(buf_peek(&b), buf_used(&b));
		http_conn_send(req->conn, &iov, 1);
	}
	http_conn_kick(req->conn);
}

void http_tunnel_shutdown(struct http_request *req)
{
	req->conn->want_shut = true;
	if (!req->conn->busy)
		http_conn_kick(req->conn);
}
