/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: HTTP/1.1 server on the event loop
 *
 * One request at a time per connection; pipelined ones wait in the connection's buffer.  A request belongs to its handler
 * from the `http_handler` call until exactly one of these ends it, after which no pointer to it may be used and no
 * callback comes any more:
 *
 *    handler calls http_respond(), http_respond_error(), http_respond_code(), http_response_end() or http_response_fail()
 *    the server calls ops->abort (the client vanished or broke the protocol; release what you hold, answer nothing)
 *
 * The handler may return at once and answer later from any loop callback, but then it must have called
 * http_request_accept(), so that it can be told of an abort (HTTP_BODY_PAUSED when it is too early for the body).  The body is not read before
 * http_request_accept() names who takes it (a client that sent `Expect: 100-continue` is told to go on then).  A body
 * nobody took is drained within a bound, or the connection is closed.  All answers carry X-Request-ID and, when they are
 * not streamed, Content-Length.  Text views point into the connection's buffer and live as long as the request.
 */
#ifndef BASE_HTTP_SERVER_H
#define BASE_HTTP_SERVER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct http_server;
struct http_request;

/* Bytes somewhere else; not NUL-terminated.  data is NULL when there is nothing (an absent header), not when empty. */
struct http_text {
	const char *data;
	size_t len;
};

#define HTTP_TEXT(literal) ((struct http_text){(literal), sizeof(literal) - 1})
#define HTTP_NO_TEXT	   ((struct http_text){NULL, 0})

/* Above this many queued bytes a handler should stop producing until `writable` comes (at half of it). */
#define HTTP_QUEUE_HIGH_BYTES (256u * 1024)

enum http_request_flags {
	HTTP_KEEP_ON_HALF_CLOSE = 1u << 0, /* a client that shut down its sending side still gets the answer; default: abort */
	HTTP_BODY_PAUSED = 1u << 1,	   /* start with the body paused */
	HTTP_TEXT_ERRORS = 1u << 2,	   /* what the server itself refuses is told as a line of text, not as JSON */
};

struct http_request_ops {
	unsigned flags; /* enum http_request_flags */
	/* Decoded body bytes as they arrive; valid during the call only. */
	void (*body)(void *user, struct http_request *req, const char *data, size_t n);
	/* Optional, for large bodies: something stands in the socket, and nothing before it waits here.  What is looked at with
	 * http_request_peek() and taken with http_request_splice(), both inside this call, does not come by `body`; all else
	 * does.  While the body is paused nothing more is read. */
	void (*arrived)(void *user, struct http_request *req);
	/* The body is complete (called once, also when it was empty); in a tunnel: the client sends no more. */
	void (*body_end)(void *user, struct http_request *req);
	/* Instead of body and body_end: called once with the whole body.  More than whole_max is answered 413 by the
	 * server, and the handler then sees `abort`. */
	void (*whole)(void *user, struct http_request *req, const char *body, size_t n);
	size_t whole_max;
	/* The queue fell below half of HTTP_QUEUE_HIGH_BYTES after it had been above HTTP_QUEUE_HIGH_BYTES. */
	void (*writable)(void *user, struct http_request *req);
	/* The client is gone: the request is over. */
	void (*abort)(void *user, struct http_request *req);
};

typedef void http_handler(void *arg, struct http_request *req);

struct http_server_config {
	unsigned max_connections; /* more are answered 503; 0: 1024 */
	unsigned max_per_address; /* of one client address, Unix sockets not counted; more are answered 503; 0: no bound */
	unsigned unix_reserve;	  /* so many more for Unix sockets alone */
	uint32_t head_ms;	  /* a head must be complete in this time; 0: LIMIT_HTTP_HEAD_MS */
	uint32_t idle_ms;	  /* a connection without a request, or a stalled body; 0: LIMIT_HTTP_IDLE_MS */
	http_handler *handler;
	void *arg;
};

/** http_server_new() - Make a server on @loop that calls @config->handler; Return: the server, or NULL with @err set */
struct http_server *http_server_new(struct loop *loop, const struct http_server_config *config, struct sbx_err *err) SBX_WUR;
/** http_server_free() - Close all connections of @server (handlers see `abort`) and release it; NULL is fine */
void http_server_free(struct http_server *server);
/**
 * http_server_listen() - Serve a listening socket
 * @server:	The server
 * @fd:		TCP or Unix stream socket that listens; stays the caller's and must outlive the server
 * @tag:	What http_request_listener() returns for its requests
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int http_server_listen(struct http_server *server, int fd, unsigned tag, struct sbx_err *err) SBX_WUR;
/** http_server_connection() - Serve one connected stream socket @fd, which becomes @server's; Return: 0 or -errno */
int http_server_connection(struct http_server *server, int fd, unsigned tag);
/** http_server_n_connections() - Connections that are open on @server */
unsigned http_server_n_connections(const struct http_server *server);

/* ---- what was asked ---- */

/** http_request_method() - "GET", any token, of @req */
struct http_text http_request_method(const struct http_request *req);
/** http_request_is() - Whether the method of @req is exactly @method */
bool http_request_is(const struct http_request *req, const char *method);
/** http_request_target() - Raw target of @req as sent; starts with '/', or is "*" */
struct http_text http_request_target(const struct http_request *req);
/** http_request_path() - Raw path of @req, up to the first '?' */
struct http_text http_request_path(const struct http_request *req);
/** http_request_query() - Raw query of @req after the '?'; data is NULL when there is no '?' */
struct http_text http_request_query(const struct http_request *req);
/** http_request_header() - First value of header @name (any case) of @req, trimmed; data NULL when absent */
struct http_text http_request_header(const struct http_request *req, const char *name);
/** http_request_n_headers() - Number of header lines of @req */
size_t http_request_n_headers(const struct http_request *req);
/** http_request_header_at() - Header line @i < http_request_n_headers(@req) into @ret_name and @ret_value */
void http_request_header_at(const struct http_request *req, size_t i, struct http_text *ret_name, struct http_text *ret_value);
/** http_request_id() - The request id of @req: trimmed X-Request-ID, or 32 hex digits made here; NUL-terminated */
const char *http_request_id(const struct http_request *req);
/** http_request_peer() - "192.0.2.7:5123", "[::1]:5123" or "unix:uid=0"; NUL-terminated */
const char *http_request_peer(const struct http_request *req);
/** http_request_peer_ip() - The address without port, "" for a Unix peer; NUL-terminated */
const char *http_request_peer_ip(const struct http_request *req);
/** http_request_local() - Address and port that the client of @req connected to: "127.0.0.1:8080"; "" for Unix */
const char *http_request_local(const struct http_request *req);
/** http_request_peer_uid() - Peer's uid by SO_PEERCRED into @ret_uid; Return: false when @req came over TCP */
bool http_request_peer_uid(const struct http_request *req, uid_t *ret_uid);
/** http_request_listener() - The tag given to http_server_listen() */
unsigned http_request_listener(const struct http_request *req);
/** http_request_body_length() - Content-Length of @req, 0 without a body, -1 when chunked */
int64_t http_request_body_length(const struct http_request *req);
/** http_request_wants_upgrade() - Whether @req is GET with Connection: upgrade and Upgrade naming only @protocol */
bool http_request_wants_upgrade(const struct http_request *req, const char *protocol);

/* ---- taking the body ---- */

/**
 * http_request_accept() - Say who takes the body and the other events; starts reading the body
 * @req:	The request
 * @ops:	Must live as long as the request (static const); may be replaced by another call
 * @user:	Handed to the callbacks
 *
 * When the body is already there, its callbacks run after the caller has returned to the loop or to http_handler's
 * caller, never inside this call.
 */
void http_request_accept(struct http_request *req, const struct http_request_ops *ops, void *user);
/** http_request_user() - The user pointer of http_request_accept() */
void *http_request_user(const struct http_request *req);
/** http_request_pause() - Take no more body bytes of @req for now (the client is slowed by TCP); allowed in callbacks */
void http_request_pause(struct http_request *req);
/** http_request_resume() - Go on taking body bytes; callbacks run later from the loop, never inside this call */
void http_request_resume(struct http_request *req);

/**
 * http_request_peek() - Look at content that stands in the socket
 * @req:	In its `arrived`
 * @most:	So much of it is enough
 * @ret:	Where it can be read, during `arrived`
 *
 * Return: bytes at *@ret; 0 when there is too little for the trouble: it comes by `body`
 */
size_t http_request_peek(struct http_request *req, size_t most, const char **ret);
/**
 * http_request_splice() - Move content from the socket into a pipe without a copy
 * @req:	In its `arrived`
 * @pipe_fd:	Write end of a pipe
 * @n:		At most so many bytes, no more than http_request_peek() returned
 *
 * Return: bytes moved (fewer than @n when the pipe is full), or a negative errno when this socket or pipe cannot do it
 */
ssize_t http_request_splice(struct http_request *req, int pipe_fd, size_t n) SBX_WUR;
/** http_request_pull() - As http_request_resume(), but what has arrived is handed out in this call; not from callbacks of @req */
void http_request_pull(struct http_request *req);

/* ---- answering ---- */

/** http_request_extra() - Append header lines @lines ("Name: value\r\n"...) to whatever answer @req gets; copied */
void http_request_extra(struct http_request *req, struct http_text lines);
/** http_request_close_after() - Close the connection after the answer of @req */
void http_request_close_after(struct http_request *req);

/**
 * http_respond() - Answer with a complete body and end the request
 * @req:	The request
 * @status:	200 to 599
 * @content_type:	NULL for none
 * @headers:	Further header lines, "Name: value\r\n"..., or HTTP_NO_TEXT (see http_header_add())
 * @body:	Copied or sent before the call returns; may be NULL when @n is 0; not sent for HEAD, 204 and 304
 * @n:		Its bytes; Content-Length says it, also when 0
 */
void http_respond(struct http_request *req, unsigned status, const char *content_type, struct http_text headers,
		  const void *body, size_t n);
/** http_response_name_charset() - Errors of @req are told as "application/json; charset=utf-8", as its API has them */
void http_response_name_charset(struct http_request *req);
/** http_respond_error() - End @req with the JSON {"code","message"} of @err; a 5xx message is errors.def's sentence */
void http_respond_error(struct http_request *req, const struct sbx_err *err);
/** http_respond_json_error() - End @req with the JSON {"code","message"} of the given texts and @status */
void http_respond_json_error(struct http_request *req, unsigned status, const char *code, const char *message);
/** http_respond_code() - End @req with the JSON error of @code and a message that the client may see */
void http_respond_code(struct http_request *req, enum sbx_err_code code, const char *fmt, ...) SBX_PRINTF(3, 4);

/**
 * http_response_begin() - Start a streamed answer; the head leaves with the first write or the end
 * @req:	The request
 * @status:	200 to 599
 * @content_type:	NULL for none
 * @headers:	Further header lines or HTTP_NO_TEXT
 * @length:	Exact number of bytes that will be written, or -1: chunked (an HTTP/1.0 client reads until close)
 */
void http_response_begin(struct http_request *req, unsigned status, const char *content_type, struct http_text headers,
			 int64_t length);
/**
 * http_response_by_event() - What is written to @req are events, each of which ends in an empty line: each is a chunk of its own
 *
 * Called before http_response_begin(); its head then says that the connection stays, as that of the published server does.
 */
void http_response_by_event(struct http_request *req);
/** http_response_flush() - Send the head of @req now, before the first byte is known */
void http_response_flush(struct http_request *req);
/**
 * http_response_hold() - Keep what is written until http_response_release() or the end of the answer, which then is one packet
 *
 * Only within one batch of work: what is kept is memory, and a client that waits.
 */
void http_response_hold(struct http_request *req);
/** http_response_release() - Send what was kept; `writable` may be called inside */
void http_response_release(struct http_request *req);
/** http_response_write() - Send @n > 0 bytes as one chunk at once; what the socket does not take is copied and queued */
void http_response_write(struct http_request *req, const void *data, size_t n);
/**
 * http_response_splice() - Send content out of a pipe without a copy
 * @req:	A streamed answer with a length; for any other, and while bytes are queued, nothing is taken
 * @pipe_fd:	Read end of a pipe, non-blocking
 * @n:		At most so many bytes
 *
 * Return: bytes taken; with fewer than @n `writable` comes when the client has made room, or the caller reads the rest
 */
size_t http_response_splice(struct http_request *req, int pipe_fd, size_t n);
/** http_response_queued() - Bytes of @req that the client has not taken; stop producing above HTTP_QUEUE_HIGH_BYTES */
size_t http_response_queued(const struct http_request *req);
/** http_response_begun() - Whether an answer of @req was begun */
bool http_response_begun(const struct http_request *req);
/**
 * http_response_finish() - Write the last bytes of a streamed answer and end the request
 * @req:	The request
 * @data:	As for http_response_write()
 * @n:		Its bytes; 0: as http_response_end()
 *
 * One piece on the wire, so that the client wakes up once for both.
 */
void http_response_finish(struct http_request *req, const void *data, size_t n);
/** http_response_end() - Finish the streamed answer and end the request; fewer bytes than @length closes the connection */
void http_response_end(struct http_request *req);
/** http_response_fail() - Break off: the connection is closed without a final chunk, so that the client sees the cut */
void http_response_fail(struct http_request *req);

/**
 * http_response_upgrade() - Answer 101 and turn the connection into a raw tunnel
 * @req:	The request; its ops stay: `body` now gets raw bytes, `body_end` says that the client sends no more
 * @headers:	Header lines of the 101, at least "Upgrade: ...\r\nConnection: Upgrade\r\n"
 *
 * From here http_response_write() sends raw bytes, http_tunnel_shutdown() ends our direction, and http_response_end()
 * closes after the queue is flushed.
 */
void http_response_upgrade(struct http_request *req, struct http_text headers);
/** http_tunnel_shutdown() - Send no more to the client of @req (after what is queued); its bytes still come */
void http_tunnel_shutdown(struct http_request *req);

/* ---- helpers for paths, queries and headers ---- */

/** http_header_add() - Append "name: value\r\n" to @b; Return: 0, -EINVAL (control character in @value) or -ENOMEM */
int http_header_add(struct buf *b, const char *name, const char *value, size_t value_len);
/** http_text_is() - Whether @text is exactly @s */
bool http_text_is(struct http_text text, const char *s);
/** http_text_is_nocase() - Whether @text is @s in any case */
bool http_text_is_nocase(struct http_text text, const char *s);
/** http_text_dup() - @text as an owned NUL-terminated string ("" when there is none); NULL when out of memory */
char *http_text_dup(struct http_text text) SBX_WUR;
/**
 * http_next_segment() - Take the next path segment off a raw path
 * @path:	Rest of the path, starts with '/' or is empty; moved behind the segment
 * @ret_segment:	Raw bytes between this '/' and the next
 *
 * Return: false at the end of the path ("/a/" gives "a" and then "")
 */
bool http_next_segment(struct http_text *path, struct http_text *ret_segment);
/**
 * http_decode() - Percent-decode once
 * @text:	Raw bytes
 * @plus:	Whether '+' means a space (queries, not paths)
 * @out:	Room for @size bytes; NUL-terminated on success
 * @size:	text.len + 1 is always enough
 *
 * Return: length, or -EINVAL (bad escape, or a NUL was encoded), -ENAMETOOLONG (@size)
 */
ssize_t http_decode(struct http_text text, bool plus, char *out, size_t size);
/**
 * http_next_query() - Take the next parameter off a raw query
 * @query:	Rest of the query; moved behind the parameter
 * @ret_name:	Raw name; decode with http_decode(..., true, ...)
 * @ret_value:	Raw value; data is NULL when there was no '='
 *
 * Return: false when none is left; empty parameters ("&&") are passed over
 */
bool http_next_query(struct http_text *query, struct http_text *ret_name, struct http_text *ret_value);
/**
 * http_query_get() - First value of a query parameter, decoded
 * @query:	Raw query
 * @name:	Decoded name to look for
 * @ret_value:	Owned string, the caller frees it; NULL when the parameter is absent
 *
 * Return: 0 also when absent, -EINVAL (bad escape in name or value) or -ENOMEM
 */
int http_query_get(struct http_text query, const char *name, char **ret_value) SBX_WUR;

#endif
