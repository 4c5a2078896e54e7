/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what http_server.c (connections, requests) and http_response.c (answers, output) share
 *
 * A connection holds one input buffer.  While a request is open its head lies there and must not move, because handlers
 * hold views into it; body bytes come behind it in [floor, in_cap) and are handed out from there.  Output that the socket
 * does not take at once is queued in `out`.
 *
 * No handler is ever called from inside one of its own calls: what cannot be done at once marks the connection and kicks
 * it, and the kick runs from the loop.
 */
#ifndef BASE_HTTP_SERVER_INT_H
#define BASE_HTTP_SERVER_INT_H

#include "base/http_peers.h"
#include "base/http1.h"
#include "base/http_server.h"

#include <sys/uio.h>

#define HTTP_ID_MAX   256u /* a longer X-Request-ID is replaced by one of ours */
#define HTTP_PEER_MAX 64u

enum http_timer_use { HTTP_TIMER_NONE = 0, HTTP_TIMER_IDLE, HTTP_TIMER_HEAD, HTTP_TIMER_BODY, HTTP_TIMER_LINGER };

struct http_conn {
	struct http_server *server;
	struct http_conn *prev, *next, *next_kicked;
	int fd;
	unsigned tag;
	struct loop_fd *source;
	struct loop_timer *timer;
	enum http_timer_use timer_use;
	char *in; /* owned; [in_start, in_len) is not consumed */
	size_t in_cap, in_start, in_len, floor;
	struct http1_scan scan;
	struct buf out;
	struct http_request *rq;  /* owned; NULL between requests */
	struct http1_body drain;  /* rest of a body that nobody took */
	uint64_t linger_bytes;	  /* read over after the last answer */
	unsigned busy;		  /* conn_process() runs */
	bool draining, eof, rdhup_seen, broken, closing, must_linger, lingering, shut, want_shut, dead, kicked, refuse, refuse_peer;
	bool held; /* what is sent is kept until its release */
	bool is_unix, has_uid;
	uid_t uid;
	bool paced_by_default; /* TCP, and nothing was said about its congestion control */
	struct http_peer *from; /* counted there; NULL: not counted */
	char peer[HTTP_PEER_MAX], peer_ip[HTTP_PEER_MAX], local[HTTP_PEER_MAX];
};

enum http_answer { HTTP_ANSWER_NONE = 0, HTTP_ANSWER_BEGUN, HTTP_ANSWER_FLOWING, HTTP_ANSWER_TUNNEL };

struct http_request {
	struct http_conn *conn;
	const char *data; /* the head's first byte, in conn->in */
	struct http1_body body;
	const struct http_request_ops *ops; /* NULL: not accepted */
	void *user;
	bool paused, body_complete, end_told, close_after, is_head, continue_due, high;
	size_t visible; /* inside `arrived`: bytes of the socket that were looked at */
	bool stuck; /* the socket took no more of what was to be spliced */
	enum http_answer answer;
	bool chunked, until_close;
	bool names_charset; /* of an error's JSON */
	bool by_event;	    /* each event is a chunk of its own */
	int64_t left;	   /* of a streamed answer with a length */
	struct buf head;   /* of a streamed answer, not sent yet */
	struct buf extra;  /* header lines for any answer */
	struct buf whole;
	char id[HTTP_ID_MAX + 1];
	struct http1_head h; /* last: only its used part is touched */
};

struct http_server {
	struct loop *loop;
	struct http_server_config config;
	struct http_conn *conns;
	struct http_peers peers;
	unsigned n_conns;
	struct http_listener *listeners;
	struct loop_timer *kick_timer;
	struct http_conn *kicked;
	struct buf scratch; /* a head being composed */
	int64_t date_s;
	char date[40];
};

/** http_conn_kick() - Let @conn be looked at from the loop, soon */
void http_conn_kick(struct http_conn *conn);
/** http_conn_send() - Send or queue @n pieces on @conn; a failure marks it broken and kicks it */
void http_conn_send(struct http_conn *conn, const struct iovec *iov, size_t n);
/** http_conn_flush() - Send what @conn has queued, as far as the socket takes it */
void http_conn_flush(struct http_conn *conn);
/** http_conn_update() - Bring events, timer and closing of @conn in line with its state; may release it */
void http_conn_update(struct http_conn *conn);
/** http_conn_pull() - Read what @conn's socket has now and serve it; may release @conn */
void http_conn_pull(struct http_conn *conn);
/** http_conn_half_closed() - The client of @conn sends no more: it is gone, unless the handler said that this is fine */
void http_conn_half_closed(struct http_conn *conn);
/** http_request_over() - The answer of @rq is complete or (@cut) broken off: release it and go on with its connection */
void http_request_over(struct http_request *rq, bool cut);
/** http_conn_error() - Answer @err on @conn without a request (its id is @id, or NULL for a new one), as JSON or @as_text, and close */
void http_conn_error(struct http_conn *conn, const struct sbx_err *err, const char *id, bool as_text);
/** http_new_id() - 32 hex digits into @out */
void http_new_id(char out[33]);

#endif
