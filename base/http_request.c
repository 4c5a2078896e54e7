// SPDX-License-Identifier: Apache-2.0
/* DOC: what a handler sees of its request, and how it takes the body. */
#include "base/http_server_int.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

/* Content is looked at in pieces of this size before it is passed on without a copy; less than the least is copied. */
#define PEEK_BYTES (512u * 1024)
#define PEEK_LEAST (16u * 1024)

/* ---- views of a request ---- */

static struct http_text text_at(const struct http_request *rq, struct http1_span span)
{
	return (struct http_text){rq->data + span.off, span.len};
}

struct http_text http_request_method(const struct http_request *req)
{
	return text_at(req, req->h.method);
}

bool http_request_is(const struct http_request *req, const char *method)
{
	return http_text_is(http_request_method(req), method);
}

struct http_text http_request_target(const struct http_request *req)
{
	return text_at(req, req->h.target);
}

struct http_text http_request_path(const struct http_request *req)
{
	struct http_text t = http_request_target(req);
	const char *mark = memchr(t.data, '?', t.len);

	if (mark)
		t.len = (size_t)(mark - t.data);
	return t;
}

struct http_text http_request_query(const struct http_request *req)
{
	struct http_text t = http_request_target(req);
	const char *mark = memchr(t.data, '?', t.len);

	if (!mark)
		return HTTP_NO_TEXT;
	return (struct http_text){mark + 1, (size_t)(t.data + t.len - mark) - 1};
}

struct http_text http_request_header(const struct http_request *req, const char *name)
{
	int i = http1_header(&req->h, req->data, name, 0);

	return i < 0 ? HTTP_NO_TEXT : text_at(req, req->h.headers[i].value);
}

size_t http_request_n_headers(const struct http_request *req)
{
	return req->h.n_headers;
}

void http_request_header_at(const struct http_request *req, size_t i, struct http_text *ret_name, struct http_text *ret_value)
{
	*ret_name = text_at(req, req->h.headers[i].name);
	*ret_value = text_at(req, req->h.headers[i].value);
}

const char *http_request_id(const struct http_request *req)
{
	return req->id;
}

const char *http_request_peer(const struct http_request *req)
{
	return req->conn->peer;
}

const char *http_request_peer_ip(const struct http_request *req)
{
	return req->conn->peer_ip;
}

const char *http_request_local(const struct http_request *req)
{
	return req->conn->local;
}

bool http_request_peer_uid(const struct http_request *req, uid_t *ret_uid)
{
	if (req->conn->has_uid)
		*ret_uid = req->conn->uid;
	return req->conn->has_uid;
}

unsigned http_request_listener(const struct http_request *req)
{
	return req->conn->tag;
}

int64_t http_request_body_length(const struct http_request *req)
{
	if (req->h.flags & HTTP1_CHUNKED)
		return -1;
	return (int64_t)req->h.length;
}

bool http_request_wants_upgrade(const struct http_request *req, const char *protocol)
{
	int i = http1_header(&req->h, req->data, "upgrade", 0);

	return i >= 0 && http1_header(&req->h, req->data, "upgrade", (uint32_t)i + 1) < 0 && req->h.minor == 1 &&
	       (req->h.flags & HTTP1_UPGRADE) && http_request_is(req, "GET") && http_request_body_length(req) == 0 &&
	       http_text_is_nocase(text_at(req, req->h.headers[i].value), protocol);
}

/* ---- taking the body ---- */

void http_request_accept(struct http_request *req, const struct http_request_ops *ops, void *user)
{
	req->ops = ops;
	req->user = user;
	req->paused = ops->flags & HTTP_BODY_PAUSED;
	/* the client may have shut its side down before anyone could say whether that matters */
	if (req->conn->rdhup_seen)
		http_conn_half_closed(req->conn);
	http_conn_kick(req->conn);
}

void *http_request_user(const struct http_request *req)
{
	return req->user;
}

void http_request_pause(struct http_request *req)
{
	req->paused = true;
}

void http_request_resume(struct http_request *req)
{
	if (!req->paused)
		return;
	req->paused = false;
	http_conn_kick(req->conn);
}

void http_request_pull(struct http_request *req)
{
	struct http_conn *conn = req->conn;

	req->paused = false;
	if (conn->busy || conn->in_start != conn->in_len)
		http_conn_kick(conn);
	else
		http_conn_pull(conn);
}

size_t http_request_peek(struct http_request *req, size_t most, const char **ret)
{
	static char seen[PEEK_BYTES];
	uint64_t direct = http1_body_direct(&req->body);

	most = most < sizeof(seen) ? most : sizeof(seen);
	if (direct < most)
		most = (size_t)direct;
	if (most < PEEK_LEAST)
		return 0;
	ssize_t n = recv(req->conn->fd, seen, most, MSG_PEEK | MSG_DONTWAIT);
	if (n < (ssize_t)PEEK_LEAST)
		return 0; /* little, the end or a failure: reading tells which */
	req->visible = (size_t)n;
	*ret = seen;
	return (size_t)n;
}

ssize_t http_request_splice(struct http_request *req, int pipe_fd, size_t n)
{
	size_t done = 0;

	assert(n <= req->visible);
	while (done < n) {
		ssize_t r = splice(req->conn->fd, NULL, pipe_fd, NULL, n - done, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno != EAGAIN && !done)
			return -errno;
		if (r <= 0)
			break;
		done += (size_t)r;
	}
	req->visible -= done;
	http1_body_skip(&req->body, done);
	return (ssize_t)done;
}
