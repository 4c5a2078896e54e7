// SPDX-License-Identifier: Apache-2.0
#include "base/http_server_int.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/num.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#define DEFAULT_CONNECTIONS 1024u
/* Connections above the limit that are told so; more are closed without a word. */
#define REFUSED_AT_ONCE	    64u
#define ACCEPT_BATCH	    32
#define IN_FIRST	    4096u
#define BODY_ROOM	    (64u * 1024)
/* A client that is still sending after its answer: so much is read over, so long, to let it read the answer. */
#define LINGER_MS	    2000u
#define LINGER_BYTES	    (64u * 1024 * 1024)
/* Descriptors ran out: accept again after this time (nothing tells when one is free). */
#define ACCEPT_PAUSE_MS	    100u

struct http_listener {
	struct http_server *server;
	struct http_listener *next;
	int fd;
	unsigned tag;
	bool is_unix;
	struct loop_fd *source;
	struct loop_timer *pause;
};

static void conn_process(struct http_conn *conn);

/* ---- life of a connection ---- */

static void conn_release(struct http_conn *conn)
{
	free(conn->in);
	buf_free(&conn->out);
	free(conn);
}

/* Destroyed while someone further up still held it: the last one out releases it. */
static void conn_release_later(struct http_conn *conn)
{
	if (!conn->busy && !conn->kicked)
		conn_release(conn);
}

static void request_release(struct http_request *rq)
{
	buf_free(&rq->head);
	buf_free(&rq->extra);
	buf_free(&rq->whole);
	free(rq);
}

/* The handler sees `abort`, once; whatever it holds is released there. */
static void request_abort(struct http_conn *conn)
{
	struct http_request *rq = conn->rq;

	if (!rq)
		return;
	conn->busy++;
	if (rq->ops && rq->ops->abort)
		rq->ops->abort(rq->user, rq);
	conn->busy--;
	conn->rq = NULL;
	request_release(rq);
}

static void conn_destroy(struct http_conn *conn)
{
	struct http_server *server = conn->server;

	if (conn->dead)
		return;
	conn->dead = true;
	request_abort(conn);
	loop_fd_remove(conn->source);
	loop_timer_free(conn->timer);
	close(conn->fd);
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		server->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	server->n_conns--;
	http_peers_leave(&server->peers, conn->from);
	conn->from = NULL;
	conn_release_later(conn);
}

void http_conn_kick(struct http_conn *conn)
{
	struct http_server *server = conn->server;

	if (conn->busy || conn->kicked || conn->dead)
		return; /* who is busy looks again by itself */
	conn->kicked = true;
	conn->next_kicked = server->kicked;
	server->kicked = conn;
	if (!loop_timer_armed(server->kick_timer))
		loop_timer_arm(server->kick_timer, 0);
}

static void kicks_run(void *arg)
{
	struct http_server *server = arg;
	struct http_conn *list = take_ptr(server->kicked);

	while (list) {
		struct http_conn *conn = list;

		list = conn->next_kicked;
		conn->kicked = false;
		if (conn->dead)
			conn_release(conn);
		else
			conn_process(conn);
	}
}

/* ---- events and time ---- */

static bool body_wanted(const struct http_conn *conn)
{
	const struct http_request *rq = conn->rq;

	return rq && rq->ops && !rq->paused && !rq->body_complete;
}

static uint32_t events_wanted(const struct http_conn *conn)
{
	uint32_t events = 0;

	/* what may be taken from the socket without a copy stays there while it is paused */
	bool left_there = conn->rq && conn->rq->paused && conn->rq->ops && conn->rq->ops->arrived && !conn->lingering;
	if (!conn->eof && !left_there && (conn->in_len < conn->in_cap || !conn->in_cap || conn->lingering || conn->draining))
		events |= EPOLLIN;
	if (!conn->eof && !conn->rdhup_seen)
		events |= EPOLLRDHUP;
	if (buf_used(&conn->out) || (conn->rq && conn->rq->stuck))
		events |= EPOLLOUT;
	return events;
}

static void watch(struct http_conn *conn)
{
	if (conn->source)
		loop_fd_events(conn->source, events_wanted(conn));
}

static void timer_set(struct http_conn *conn, enum http_timer_use use)
{
	const struct http_server_config *config = &conn->server->config;

	/* the head's and the linger's time runs from their beginning; the others' from the last progress */
	if (use == conn->timer_use && (use == HTTP_TIMER_NONE || use == HTTP_TIMER_HEAD || use == HTTP_TIMER_LINGER))
		return;
	conn->timer_use = use;
	switch (use) {
	case HTTP_TIMER_NONE:
		loop_timer_disarm(conn->timer);
		break;
	case HTTP_TIMER_IDLE:
	case HTTP_TIMER_BODY:
		loop_timer_arm(conn->timer, config->idle_ms);
		break;
	case HTTP_TIMER_HEAD:
		loop_timer_arm(conn->timer, config->head_ms);
		break;
	case HTTP_TIMER_LINGER:
		loop_timer_arm(conn->timer, LINGER_MS);
		break;
	}
}

/* All is said.  A client that still sends would answer a plain close with a reset that may overtake our last bytes. */
static void conn_finish(struct http_conn *conn)
{
	if (conn->must_linger && !conn->eof) {
		if (!conn->lingering) {
			shutdown(conn->fd, SHUT_WR);
			conn->lingering = true;
		}
		timer_set(conn, HTTP_TIMER_LINGER);
		watch(conn);
		return;
	}
	conn_destroy(conn);
}

void http_conn_update(struct http_conn *conn)
{
	if (conn->dead || conn->busy)
		return;
	if (conn->broken) {
		conn_destroy(conn);
		return;
	}
	if (conn->want_shut && !conn->shut && !buf_used(&conn->out)) {
		shutdown(conn->fd, SHUT_WR);
		conn->shut = true;
	}
	bool idle = !conn->rq && !conn->draining && conn->in_start == conn->in_len;
	if (!conn->rq && !buf_used(&conn->out) && (conn->closing || (conn->eof && (idle || conn->draining)))) {
		conn_finish(conn);
		return;
	}
	watch(conn);
	if (idle && conn->in_cap > IN_FIRST) {
		free(conn->in); /* a large body is over: an idle connection holds little */
		conn->in = NULL;
		conn->in_cap = conn->in_start = conn->in_len = 0;
	}
	if (conn->rq)
		timer_set(conn, body_wanted(conn) && conn->rq->answer != HTTP_ANSWER_TUNNEL ? HTTP_TIMER_BODY : HTTP_TIMER_NONE);
	else if (conn->draining || conn->closing || idle)
		timer_set(conn, HTTP_TIMER_IDLE);
	else
		timer_set(conn, HTTP_TIMER_HEAD);
}

/* ---- requests ---- */

void http_new_id(char out[33])
{
	uint8_t id[16];

	random_bytes(id, sizeof(id));
	hex_encode(id, sizeof(id), out);
}

static void request_id(struct http_request *rq)
{
	struct http_text given = http_request_header(rq, "x-request-id");

	if (given.len && given.len <= HTTP_ID_MAX) {
		memcpy(rq->id, given.data, given.len);
		rq->id[given.len] = '\0';
	} else {
		http_new_id(rq->id);
	}
}

/* Room behind the head for the body, made before anyone holds a view into the buffer. */
static int room_for_body(struct http_conn *conn, const struct http1_body *body, bool tunnel)
{
	size_t behind = conn->in_len - conn->in_start - conn->scan.head_bytes;
	size_t want = BODY_ROOM;

	if (body->kind == HTTP1_BODY_NONE && !tunnel)
		return 0;
	if (body->kind == HTTP1_BODY_LENGTH && body->left < BODY_ROOM)
		want = (size_t)body->left;
	if (conn->in_cap - conn->in_start - conn->scan.head_bytes >= want)
		return 0;
	memmove(conn->in, conn->in + conn->in_start, conn->in_len - conn->in_start);
	conn->in_start = 0;
	conn->in_len = conn->scan.head_bytes + behind;
	char *in = realloc(conn->in, conn->scan.head_bytes + want + 1);
	if (!in)
		return -ENOMEM;
	conn->in = in;
	conn->in_cap = conn->scan.head_bytes + want + 1;
	return 0;
}

static void refuse(struct http_conn *conn, enum http1_result r)
{
	struct sbx_err err = {0};

	http1_error(&err, r);
	http_conn_error(conn, &err, NULL, false);
}

/* A whole head is in the buffer. */
static void request_start(struct http_conn *conn)
{
	struct http_request *rq = malloc(sizeof(*rq));
	struct http1_body body;
	enum http1_result r;

	if (!rq) {
		conn->broken = true;
		return;
	}
	memset(rq, 0, offsetof(struct http_request, h));
	r = http1_request(&rq->h, conn->in + conn->in_start, conn->scan.head_bytes);
	if (r != HTTP1_OK) {
		free(rq);
		refuse(conn, r);
		return;
	}
	http1_body_of_request(&body, &rq->h);
	if (room_for_body(conn, &body, rq->h.flags & HTTP1_UPGRADE) < 0) {
		free(rq);
		conn->broken = true;
		return;
	}
	rq->conn = conn;
	rq->data = conn->in + conn->in_start;
	rq->body = body;
	rq->is_head = http_request_is(rq, "HEAD");
	rq->close_after = rq->h.flags & HTTP1_CLOSE;
	rq->continue_due = (rq->h.flags & HTTP1_EXPECT_CONTINUE) && body.kind != HTTP1_BODY_NONE && rq->h.minor == 1;
	request_id(rq);
	conn->in_start += conn->scan.head_bytes;
	conn->floor = conn->in_start;
	conn->scan = (struct http1_scan){0};
	conn->rq = rq;
	timer_set(conn, HTTP_TIMER_NONE);
	if (conn->refuse) {
		rq->close_after = true;
		http_request_extra(rq, HTTP_TEXT("Retry-After: 1\r\n"));
		if (conn->refuse_peer)
			http_respond_code(rq, SBX_E_OVERLOADED, "%u connections of this address are open (server.limit_per_address)",
					  conn->server->config.max_per_address);
		else
			http_respond_code(rq, SBX_E_OVERLOADED, "%u connections are open", conn->server->config.max_connections);
		return;
	}
	conn->server->config.handler(conn->server->config.arg, rq);
	assert(conn->rq != rq || rq->ops); /* a handler answers or accepts before it returns */
}

/* Looks for the next head in what was read.  Returns false when more must be read first. */
static bool next_head(struct http_conn *conn)
{
	size_t n = conn->in_len - conn->in_start;

	if (!n || conn->closing) {
		conn->in_start = conn->in_len = 0;
		return false;
	}
	enum http1_result r = http1_scan(&conn->scan, conn->in + conn->in_start, n);
	if (r == HTTP1_OK) {
		request_start(conn);
		return true;
	}
	if (r != HTTP1_MORE) {
		refuse(conn, r);
		return true;
	}
	if (conn->eof) {
		conn->in_start = conn->in_len = 0;
		return false;
	}
	if (conn->in_len < conn->in_cap)
		return false;
	if (conn->in_start) {
		memmove(conn->in, conn->in + conn->in_start, n);
		conn->in_start = 0;
		conn->in_len = n;
		return false;
	}
	char *in = realloc(conn->in, conn->in_cap * 2); /* the scan refuses past LIMIT_HTTP_HEAD_BYTES */
	if (!in) {
		conn->broken = true;
		return false;
	}
	conn->in = in;
	conn->in_cap *= 2;
	return false;
}

/* The client's own fault ends an open request: the handler is told, then the client, if nothing was answered yet. */
static void request_refuse(struct http_conn *conn, const struct sbx_err *err)
{
	char id[HTTP_ID_MAX + 1];
	bool answered = conn->rq->answer != HTTP_ANSWER_NONE, as_text = conn->rq->ops && conn->rq->ops->flags & HTTP_TEXT_ERRORS;

	memcpy(id, conn->rq->id, sizeof(id));
	request_abort(conn);
	if (answered)
		conn->broken = true;
	else
		http_conn_error(conn, err, id, as_text);
}

static bool body_too_large(struct http_conn *conn, uint64_t n)
{
	struct http_request *rq = conn->rq;
	struct sbx_err err = {0};

	if (n <= rq->ops->whole_max)
		return false;
	sbx_err_set(&err, SBX_E_TOO_LARGE, 0, "the body is larger than %zu bytes", rq->ops->whole_max);
	request_refuse(conn, &err);
	return true;
}

static void body_ended(struct http_conn *conn)
{
	struct http_request *rq = conn->rq;

	if (rq->end_told)
		return;
	rq->body_complete = rq->end_told = true;
	if (rq->ops->whole)
		rq->ops->whole(rq->user, rq, buf_used(&rq->whole) ? buf_peek(&rq->whole) : "", buf_used(&rq->whole));
	else if (rq->ops->body_end)
		rq->ops->body_end(rq->user, rq);
}

/* A whole body that lies in the input buffer is handed over where it is. */
static bool whole_in_place(struct http_conn *conn)
{
	struct http_request *rq = conn->rq;

	if (!rq->ops->whole || rq->body.kind != HTTP1_BODY_LENGTH || buf_used(&rq->whole) ||
	    conn->in_len - conn->in_start < rq->body.left)
		return false;
	const char *body = conn->in + conn->in_start;
	size_t n = (size_t)rq->body.left;
	conn->in_start += n;
	rq->body.left = 0;
	rq->body_complete = rq->end_told = true;
	rq->ops->whole(rq->user, rq, body, n);
	return true;
}

static void tunnel_pump(struct http_conn *conn)
{
	struct http_request *rq = conn->rq;
	const char *data = conn->in + conn->in_start;
	size_t n = conn->in_len - conn->in_start;

	if (n) {
		conn->in_start = conn->in_len;
		if (rq->ops->body)
			rq->ops->body(rq->user, rq, data, n);
	} else {
		rq->body_complete = rq->end_told = true;
		if (rq->ops->body_end)
			rq->ops->body_end(rq->user, rq);
	}
}

/* Hands one piece of the body to the handler.  Returns false when there is nothing to do until something arrives. */
static bool request_pump(struct http_conn *conn)
{
	struct http_request *rq = conn->rq;
	struct http1_span piece;
	struct sbx_err err = {0};
	size_t used;

	if (!body_wanted(conn))
		return false;
	if (conn->in_start == conn->in_len)
		conn->in_start = conn->in_len = conn->floor;
	if (rq->answer == HTTP_ANSWER_TUNNEL) {
		if (conn->in_start == conn->in_len && !conn->eof)
			return false;
		tunnel_pump(conn);
		return true;
	}
	if (rq->continue_due) {
		struct iovec iov = {(void *)(uintptr_t) "HTTP/1.1 100 Continue\r\n\r\n", 25};

		rq->continue_due = false;
		http_conn_send(conn, &iov, 1);
	}
	if (rq->ops->whole && rq->body.kind == HTTP1_BODY_LENGTH && body_too_large(conn, rq->body.left + buf_used(&rq->whole)))
		return true;
	if (whole_in_place(conn))
		return true;
	enum http1_result r = http1_body_next(&rq->body, conn->in + conn->in_start, conn->in_len - conn->in_start, &used, &piece);
	const char *data = conn->in + conn->in_start + piece.off;
	conn->in_start += used;
	if (r == HTTP1_MORE)
		conn->in_start = conn->in_len = conn->floor;
	switch ((int)r) {
	case HTTP1_OK:
		if (!rq->ops->whole) {
			if (piece.len && rq->ops->body)
				rq->ops->body(rq->user, rq, data, piece.len);
			return true;
		}
		if (body_too_large(conn, buf_used(&rq->whole) + piece.len))
			return true;
		if (buf_append(&rq->whole, data, piece.len) < 0)
			conn->broken = true;
		return !conn->broken;
	case HTTP1_DONE:
		body_ended(conn);
		return true;
	case HTTP1_MORE:
		if (conn->eof)
			conn->broken = true;
		return false;
	default:
		http1_error(&err, r);
		request_refuse(conn, &err);
		return true;
	}
}

/* Reads over the rest of a body that nobody took. */
static bool drain(struct http_conn *conn)
{
	struct http1_span piece;
	size_t used;
	enum http1_result r = http1_body_next(&conn->drain, conn->in + conn->in_start, conn->in_len - conn->in_start, &used, &piece);

	conn->in_start += used;
	if (r == HTTP1_OK)
		return true;
	if (r == HTTP1_MORE) {
		conn->in_start = conn->in_len = 0;
		return false;
	}
	conn->draining = false;
	if (r != HTTP1_DONE)
		conn->closing = conn->must_linger = true;
	return true;
}

static void conn_process(struct http_conn *conn)
{
	conn->busy++;
	for (bool more = true; more && !conn->dead && !conn->broken;) {
		if (conn->rq)
			more = request_pump(conn);
		else if (conn->lingering)
			more = false;
		else if (conn->draining)
			more = drain(conn);
		else
			more = next_head(conn);
	}
	conn->busy--;
	if (conn->dead)
		conn_release_later(conn);
	else
		http_conn_update(conn);
}

void http_request_over(struct http_request *rq, bool cut)
{
	struct http_conn *conn = rq->conn;
	bool tunnel = rq->answer == HTTP_ANSWER_TUNNEL;

	if (conn->held) {
		conn->held = false;
		if (!cut)
			http_conn_flush(conn);
	}
	if (cut)
		conn->broken = true;
	if (rq->close_after || tunnel)
		conn->closing = true;
	if (tunnel)
		conn->must_linger = true;
	if (!tunnel && !rq->body_complete && rq->body.kind != HTTP1_BODY_NONE) {
		conn->drain = rq->body;
		conn->draining = true;
		conn->must_linger = conn->closing;
	}
	conn->rq = NULL;
	request_release(rq);
	if (conn->busy)
		return;
	if (!conn->broken && (conn->draining || conn->in_start < conn->in_len))
		http_conn_kick(conn);
	else
		http_conn_update(conn);
}

/* ---- socket events ---- */

static void linger_read(struct http_conn *conn)
{
	char over[16384];
	ssize_t n;

	while ((n = recv(conn->fd, over, sizeof(over), MSG_DONTWAIT)) > 0) {
		conn->linger_bytes += (size_t)n;
		if (conn->linger_bytes > LINGER_BYTES)
			break;
	}
	if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		conn_destroy(conn);
}

/* Lets the handler take content from the socket.  Return: whether it did, or wants nothing for now. */
static bool offer_arrived(struct http_conn *conn)
{
	struct http_request *rq = conn->rq;

	if (!rq || !rq->ops || !rq->ops->arrived || conn->in_start != conn->in_len || rq->body_complete || rq->continue_due)
		return false;
	uint64_t direct = http1_body_direct(&rq->body);
	if (!rq->paused && direct) {
		rq->ops->arrived(rq->user, rq);
		if (conn->dead || conn->rq != rq)
			return true;
		rq->visible = 0;
	}
	return rq->paused || http1_body_direct(&rq->body) < direct;
}

/* Returns false when the connection is gone. */
static bool conn_read(struct http_conn *conn)
{
	if (offer_arrived(conn))
		return true;
	if (!conn->in) {
		conn->in = malloc(IN_FIRST);
		if (!conn->in)
			return false;
		conn->in_cap = IN_FIRST;
	}
	if (!conn->rq && conn->in_start == conn->in_len)
		conn->in_start = conn->in_len = 0;
	if (conn->in_len == conn->in_cap)
		return true;
	ssize_t n = recv(conn->fd, conn->in + conn->in_len, conn->in_cap - conn->in_len, MSG_DONTWAIT);
	if (n > 0)
		conn->in_len += (size_t)n;
	else if (n == 0)
		conn->eof = true;
	else if (errno != EAGAIN && errno != EINTR)
		return false;
	return true;
}

/* The client sends no more.  It is gone, unless its request is complete and the handler says that half a close is fine. */
void http_conn_half_closed(struct http_conn *conn)
{
	struct http_request *rq = conn->rq;

	if (!rq || rq->answer == HTTP_ANSWER_TUNNEL)
		return;
	if (rq->ops && (rq->ops->flags & HTTP_KEEP_ON_HALF_CLOSE) && (rq->body_complete || rq->body.kind == HTTP1_BODY_NONE))
		return;
	if (rq->body_complete || rq->body.kind == HTTP1_BODY_NONE)
		conn->broken = true;
	/* else what is in the buffer is handed out first; request_pump() then meets the end */
}

/*
 * Both directions are shut.  What waits for an answer never gets it; a tunnel that we shut ourselves only ends, and its
 * last bytes are still read.  HUP cannot be masked, so the source goes once everything is read.
 */
static void conn_hung_up(struct http_conn *conn)
{
	if (!conn->rq || conn->rq->answer != HTTP_ANSWER_TUNNEL || !conn->shut) {
		conn->broken = true;
	} else if (conn->eof) {
		loop_fd_remove(conn->source);
		conn->source = NULL;
	}
}

static void queue_drained(struct http_conn *conn)
{
	struct http_request *rq = conn->rq;

	if (!rq || !(rq->high || rq->stuck) || buf_used(&conn->out) > HTTP_QUEUE_HIGH_BYTES / 2)
		return;
	rq->high = rq->stuck = false;
	if (rq->ops && rq->ops->writable)
		rq->ops->writable(rq->user, rq);
}

void http_response_hold(struct http_request *req)
{
	req->conn->held = true;
}

void http_response_release(struct http_request *req)
{
	struct http_conn *conn = req->conn;

	if (!conn->held)
		return;
	conn->held = false;
	if (conn->broken || conn->dead || !buf_used(&conn->out))
		return;
	conn->busy++;
	http_conn_flush(conn);
	queue_drained(conn);
	conn->busy--;
	if (conn->dead)
		conn_release_later(conn);
	else if (conn->broken)
		http_conn_kick(conn);
	else if (!conn->busy)
		http_conn_update(conn);
}

/* What was read or written may have ended @conn, or brought the next request. */
static void conn_leave(struct http_conn *conn)
{
	conn->busy--;
	if (conn->broken && !conn->dead)
		conn_destroy(conn);
	else if (conn->dead)
		conn_release_later(conn);
	else
		conn_process(conn);
}

static void conn_event(void *arg, int fd, uint32_t events)
{
	struct http_conn *conn = arg;

	(void)fd;
	if (conn->lingering) {
		if (events & (EPOLLHUP | EPOLLERR))
			conn_destroy(conn);
		else
			linger_read(conn);
		return;
	}
	conn->busy++;
	if (events & EPOLLOUT) {
		http_conn_flush(conn);
		queue_drained(conn);
	}
	if ((events & EPOLLIN) && !conn_read(conn))
		conn->broken = true;
	if (events & EPOLLERR)
		conn->broken = true;
	if (events & EPOLLHUP)
		conn_hung_up(conn);
	if ((events & EPOLLRDHUP) && !conn->rdhup_seen) {
		conn->rdhup_seen = true;
		http_conn_half_closed(conn);
	}
	conn_leave(conn);
}

void http_conn_pull(struct http_conn *conn)
{
	conn->busy++;
	if (!conn_read(conn))
		conn->broken = true;
	conn_leave(conn);
}

static void conn_timeout(void *arg)
{
	struct http_conn *conn = arg;
	enum http_timer_use use = conn->timer_use;
	struct sbx_err err = {0};

	conn->timer_use = HTTP_TIMER_NONE;
	if ((use == HTTP_TIMER_HEAD || use == HTTP_TIMER_BODY) && !buf_used(&conn->out)) {
		sbx_err_set(&err, SBX_E_REQUEST_TIMEOUT, 0, "the request did not arrive in time");
		conn->busy++;
		if (conn->rq)
			request_refuse(conn, &err);
		else
			http_conn_error(conn, &err, NULL, false);
		conn->busy--;
		conn->in_start = conn->in_len = 0;
		http_conn_update(conn);
		return;
	}
	conn_destroy(conn);
}

/* ---- accepting ---- */

static void name_of(const struct sockaddr_storage *addr, char *ip, char *with_port)
{
	char text[INET6_ADDRSTRLEN] = "";
	unsigned port = 0;
	bool v6 = addr->ss_family == AF_INET6;

	if (addr->ss_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, addr, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
		port = ntohs(in.sin_port);
	} else if (v6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, addr, sizeof(in6));
		if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
			inet_ntop(AF_INET, in6.sin6_addr.s6_addr + 12, text, sizeof(text));
			v6 = false;
		} else {
			inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(text));
		}
		port = ntohs(in6.sin6_port);
	}
	if (ip)
		snprintf(ip, HTTP_PEER_MAX, "%s", text);
	snprintf(with_port, HTTP_PEER_MAX, v6 ? "[%s]:%u" : "%s:%u", text, port);
}

static void conn_names(struct http_conn *conn)
{
	struct sockaddr_storage addr = {0};
	socklen_t n = sizeof(addr);

	if (getsockname(conn->fd, (struct sockaddr *)&addr, &n) < 0)
		return;
	conn->is_unix = addr.ss_family == AF_UNIX;
	if (conn->is_unix) {
		struct ucred cred;
		socklen_t size = sizeof(cred);

		conn->has_uid = getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) == 0;
		conn->uid = cred.uid;
		if (conn->has_uid)
			snprintf(conn->peer, sizeof(conn->peer), "unix:uid=%u", (unsigned)cred.uid);
		else
			snprintf(conn->peer, sizeof(conn->peer), "unix");
		return;
	}
	name_of(&addr, NULL, conn->local);
	n = sizeof(addr);
	memset(&addr, 0, sizeof(addr));
	if (getpeername(conn->fd, (struct sockaddr *)&addr, &n) == 0) {
		name_of(&addr, conn->peer_ip, conn->peer);
		conn->paced_by_default = true;
		conn->from = http_peers_enter(&conn->server->peers, &addr);
	}
	int on = 1, idle_s = 60;
	/* best effort: without them the connection is slower, or a dead peer is noticed later */
	ignore_result(setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	ignore_result(setsockopt(conn->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	ignore_result(setsockopt(conn->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s)));
}

/* Who has the Unix socket is known; strangers who hold every connection must not keep him out. */
static unsigned connections_for(const struct http_server *server, bool is_unix)
{
	unsigned reserve = is_unix ? server->config.unix_reserve : 0;

	return server->config.max_connections + (reserve ? REFUSED_AT_ONCE + reserve : 0);
}

int http_server_connection(struct http_server *server, int fd, unsigned tag)
{
	struct http_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return -ENOMEM;
	conn->server = server;
	conn->fd = fd;
	conn->tag = tag;
	conn->timer = loop_timer_new(server->loop, conn_timeout, conn);
	if (conn->timer)
		conn->source = loop_fd_add(server->loop, fd, EPOLLIN | EPOLLRDHUP, conn_event, conn);
	if (!conn->source) {
		int r = conn->timer ? -errno : -ENOMEM;
		loop_timer_free(conn->timer);
		free(conn);
		return r;
	}
	conn_names(conn);
	conn->refuse_peer = server->config.max_per_address && conn->from && conn->from->n > server->config.max_per_address;
	conn->refuse = conn->refuse_peer || server->n_conns >= connections_for(server, conn->is_unix);
	conn->next = server->conns;
	if (conn->next)
		conn->next->prev = conn;
	server->conns = conn;
	server->n_conns++;
	/* a client that connects and says nothing is a slow sender */
	timer_set(conn, HTTP_TIMER_HEAD);
	return 0;
}

static void accept_again(void *arg)
{
	struct http_listener *l = arg;

	loop_fd_events(l->source, EPOLLIN);
}

static void accept_event(void *arg, int fd, uint32_t events)
{
	struct http_listener *l = arg;

	(void)events;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int c = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (c < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
			log_warn("accept: %s", strerror(errno));
			loop_fd_events(l->source, 0);
			loop_timer_arm(l->pause, ACCEPT_PAUSE_MS);
			return;
		}
		if (c < 0)
			return;
		if (l->server->n_conns >= connections_for(l->server, l->is_unix) + REFUSED_AT_ONCE ||
		    http_server_connection(l->server, c, l->tag) < 0)
			close(c);
	}
}

int http_server_listen(struct http_server *server, int fd, unsigned tag, struct sbx_err *err)
{
	struct http_listener *l = calloc(1, sizeof(*l));

	if (!l)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "listener");
	int domain = 0;
	socklen_t n = sizeof(domain);
	ignore_result(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n)); /* cannot fail on a socket */
	*l = (struct http_listener){.server = server, .fd = fd, .tag = tag, .is_unix = domain == AF_UNIX};
	l->pause = loop_timer_new(server->loop, accept_again, l);
	if (l->pause)
		l->source = loop_fd_add(server->loop, fd, EPOLLIN, accept_event, l);
	if (!l->source) {
		int sys = errno;
		loop_timer_free(l->pause);
		free(l);
		return sbx_err_set(err, SBX_E_SYSTEM, sys, "watch listener");
	}
	l->next = server->listeners;
	server->listeners = l;
	return 0;
}

struct http_server *http_server_new(struct loop *loop, const struct http_server_config *config, struct sbx_err *err)
{
	struct http_server *server = calloc(1, sizeof(*server));

	if (server) {
		server->loop = loop;
		server->config = *config;
		if (!server->config.max_connections)
			server->config.max_connections = DEFAULT_CONNECTIONS;
		if (!server->config.head_ms)
			server->config.head_ms = LIMIT_HTTP_HEAD_MS;
		if (!server->config.idle_ms)
			server->config.idle_ms = LIMIT_HTTP_IDLE_MS;
		server->kick_timer = loop_timer_new(loop, kicks_run, server);
	}
	if (!server || !server->kick_timer) {
		free(server);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "HTTP server");
		return NULL;
	}
	return server;
}

void http_server_free(struct http_server *server)
{
	if (!server)
		return;
	while (server->conns)
		conn_destroy(server->conns);
	kicks_run(server);
	for (struct http_listener *l; (l = server->listeners);) {
		server->listeners = l->next;
		loop_fd_remove(l->source);
		loop_timer_free(l->pause);
		free(l);
	}
	loop_timer_free(server->kick_timer);
	buf_free(&server->scratch);
	free(server);
}

unsigned http_server_n_connections(const struct http_server *server)
{
	return server->n_conns;
}
