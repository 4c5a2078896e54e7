/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: strict reader of HTTP/1.1 heads and bodies (RFC 9112)
 *
 * Bytes in, offsets out: no allocation, no I/O, no state but the caller's structs.  Where the RFC lets a reader be
 * lenient, this one refuses, because a lenient reader in front of a strict one is how requests are smuggled: lines end in
 * CR LF, one Host, one length, chunked or a length and never both, no folding, no space before a colon.
 *
 * Use: http1_scan() on the growing input until it returns HTTP1_OK, then http1_request() or http1_response() once, then
 * http1_body_init() and http1_body_next() on what follows.
 */
#ifndef BASE_HTTP1_H
#define BASE_HTTP1_H

#include "base/err.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http1_result {
	HTTP1_OK = 0,
	HTTP1_MORE, /* not complete: call again with more bytes */
	HTTP1_DONE, /* the body is complete */
#define HTTP1_REFUSAL(name, code, text) HTTP1_##name,
#include "base/http1.def"
#undef HTTP1_REFUSAL
	HTTP1_RESULT_COUNT
};

/* A place in the caller's buffer. */
struct http1_span {
	uint32_t off, len;
};

struct http1_header {
	struct http1_span name, value; /* the value without the white space around it */
};

enum http1_flags {
	HTTP1_CHUNKED = 1u << 0,
	HTTP1_HAS_LENGTH = 1u << 1,
	HTTP1_CLOSE = 1u << 2,	      /* Connection: close, or 1.0 without keep-alive */
	HTTP1_UPGRADE = 1u << 3,      /* Connection: upgrade */
	HTTP1_EXPECT_CONTINUE = 1u << 4,
};

struct http1_head {
	struct http1_span method, target; /* requests */
	struct http1_span reason;	  /* responses */
	uint16_t status;		  /* responses */
	uint8_t minor;			  /* of the version: 0 or 1 */
	uint32_t flags;			  /* enum http1_flags */
	uint64_t length;		  /* Content-Length */
	struct http1_span host;
	uint32_t n_headers;
	struct http1_header headers[LIMIT_HTTP_HEADERS];
};

/* Start zeroed. */
struct http1_scan {
	size_t seen;	   /* bytes looked at */
	size_t line_start; /* of the line that is not complete */
	uint32_t n_lines;
	size_t head_bytes; /* set when complete, with the empty line */
};

enum http1_body_kind { HTTP1_BODY_NONE = 0, HTTP1_BODY_LENGTH, HTTP1_BODY_CHUNKED, HTTP1_BODY_UNTIL_CLOSE };

struct http1_body {
	enum http1_body_kind kind;
	uint64_t left; /* of the length or of the chunk */
	uint32_t state, line_bytes, n_trailers, digits;
};

/**
 * http1_scan() - Look for the end of a head in a growing buffer
 * @scan:	Zeroed before the first call
 * @data:	The whole buffer from the first byte of the head
 * @n:		Bytes in it now
 *
 * Costs nothing for bytes that were looked at before, and refuses as soon as a bound of limits.h is passed.
 *
 * Return: HTTP1_OK (scan->head_bytes is set), HTTP1_MORE or a refusal
 */
enum http1_result http1_scan(struct http1_scan *scan, const char *data, size_t n);
/** http1_request() - Read the request head of @n = head_bytes bytes at @data into @head; Return: HTTP1_OK or a refusal */
enum http1_result http1_request(struct http1_head *head, const char *data, size_t n);
/** http1_response() - Read the response head of @n = head_bytes bytes at @data into @head; Return: HTTP1_OK or a refusal */
enum http1_result http1_response(struct http1_head *head, const char *data, size_t n);
/**
 * http1_header() - Find a header
 * @head:	Read before
 * @data:	The buffer that it was read from
 * @name:	In any case
 * @from:	First index to look at
 *
 * Return: its index, or -1
 */
int http1_header(const struct http1_head *head, const char *data, const char *name, uint32_t from);
/** http1_connection_names() - Whether a Connection header of @head names @token (any case), @n bytes */
bool http1_connection_names(const struct http1_head *head, const char *data, const char *token, size_t n);
/** http1_list_has() - Whether the comma-separated list @list of @n bytes holds @token of @t bytes, in any case */
bool http1_list_has(const char *list, size_t n, const char *token, size_t t);

/** http1_body_of_request() - How the body of @head ends, into @body */
void http1_body_of_request(struct http1_body *body, const struct http1_head *head);
/** http1_body_of_response() - Likewise for an answer; @to_head: the request was HEAD */
void http1_body_of_response(struct http1_body *body, const struct http1_head *head, bool to_head);
/**
 * http1_body_next() - Take the next piece of a body
 * @body:	Set by http1_body_of_*()
 * @data:	Input that follows what was used before
 * @n:		Its bytes
 * @ret_used:	Bytes used up by this call, the piece included
 * @ret_piece:	Where the piece of content lies in @data; len may be 0
 *
 * Return: HTTP1_OK (call again), HTTP1_MORE (all of @data is used and more is needed), HTTP1_DONE (nothing is used behind
 * the end) or a refusal
 */
enum http1_result http1_body_next(struct http1_body *body, const char *data, size_t n, size_t *ret_used,
				  struct http1_span *ret_piece);

/**
 * http1_body_direct() - How many of the next bytes of the connection are content and nothing else
 * @body:	Of which all that was received has gone through http1_body_next()
 *
 * Return: their number; 0 when http1_body_next() has to see the next byte
 */
uint64_t http1_body_direct(const struct http1_body *body);
/** http1_body_skip() - @n of the bytes that http1_body_direct() tells of @body were taken past http1_body_next() */
void http1_body_skip(struct http1_body *body, uint64_t n);

/** http1_error() - Fill @err with the code and the text of the refusal @r; Return: -1 */
int http1_error(struct sbx_err *err, enum http1_result r);
/** http1_result_name() - Name of @r as in http1.def; Return: static string */
const char *http1_result_name(enum http1_result r);
/** http1_is_token() - Whether @n > 0 bytes of @s are all token characters (RFC 9110 5.6.2) */
bool http1_is_token(const char *s, size_t n);

#endif
