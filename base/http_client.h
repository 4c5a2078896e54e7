/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: small blocking HTTP/1.1 client
 *
 * For the command line and for tests: one connection, one request at a time, keep-alive, streamed answers, upgrade to a
 * raw tunnel.  Answers go through base/http1, so a broken server gives an error and never an overrun.  Never used in a
 * process that has an event loop; the gateway's proxy reads answers with base/http1 itself.
 */
#ifndef BASE_HTTP_CLIENT_H
#define BASE_HTTP_CLIENT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct http_client;

/* Gives up to @size bytes of a request body in @out; Return: bytes, 0 at the end, -1 with @err set. */
typedef ssize_t http_client_source(void *arg, void *out, size_t size, struct sbx_err *err);

struct http_client_request {
	const char *method;
	const char *target;  /* raw: already percent-encoded, starts with '/' */
	const char *headers; /* "Name: value\r\n"... besides Host and the body's length; NULL for none */
	const void *body;    /* whole body, or */
	size_t body_len;
	http_client_source *source; /* a body that is streamed */
	void *source_arg;
	int64_t source_len; /* its exact length, or -1: chunked */
};

struct http_client_response {
	unsigned status;
	int64_t length; /* of the body, -1 when not known before its end */
};

/**
 * http_client_open_unix() - Connect to a Unix stream socket
 * @path:	Of the socket
 * @timeout_ms:	For connecting and for each read and write that makes no progress; 0: none
 * @err:	Filled on failure: SYSTEM (sys: ENOENT, ECONNREFUSED, EACCES ...), NO_MEMORY
 *
 * Return: the client, or NULL with @err set
 */
struct http_client *http_client_open_unix(const char *path, unsigned timeout_ms, struct sbx_err *err) SBX_WUR;
/** http_client_open_tcp() - Connect to @host (name, IPv4, or IPv6 without brackets) and @port; as http_client_open_unix() */
struct http_client *http_client_open_tcp(const char *host, unsigned port, unsigned timeout_ms, struct sbx_err *err) SBX_WUR;
/** http_client_free() - Close and release; NULL is fine */
void http_client_free(struct http_client *c);
/** http_client_timeout() - Change the bound on a read or write without progress; 0: none (streams of events) */
void http_client_timeout(struct http_client *c, unsigned timeout_ms);

/**
 * http_client_begin() - Send a request and read the head of its answer
 * @c:		The client; what is left of the answer before is read over; a connection that the server closed is opened again
 * @request:	What to send
 * @ret:	Status and length of the answer
 * @err:	Filled on failure: SYSTEM (also a time-out, sys ETIMEDOUT), PEER_GONE (closed), PROTOCOL (not HTTP), or what the
 *		source said
 *
 * Interim answers (1xx but 101) are passed over.  A GET or HEAD that meets the end of a connection used before is sent once more.
 *
 * Return: 0 for any status, or -1 with @err set
 */
int http_client_begin(struct http_client *c, const struct http_client_request *request, struct http_client_response *ret,
		      struct sbx_err *err) SBX_WUR;
/** http_client_header() - Value of header @name of the answer, NUL-terminated until the next begin; NULL when absent */
const char *http_client_header(struct http_client *c, const char *name);
/** http_client_read() - Up to @size bytes of the decoded body, as soon as there are any; Return: bytes, 0 at its end, -1 */
ssize_t http_client_read(struct http_client *c, void *out, size_t size, struct sbx_err *err) SBX_WUR;
/**
 * http_client_body() - Read the rest of the body
 * @c:		The client
 * @max:	More bytes than this are an error (LIMIT)
 * @ret_body:	Owned, NUL-terminated behind the last byte
 * @ret_len:	Its bytes; may be NULL
 * @err:	Filled on failure
 *
 * Return: 0, or -1 with @err set
 */
int http_client_body(struct http_client *c, size_t max, char **ret_body, size_t *ret_len, struct sbx_err *err) SBX_WUR;
/** http_client_fd() - The socket, to wait for it; see http_client_pending() */
int http_client_fd(const struct http_client *c);
/** http_client_pending() - Whether http_client_read() has bytes at hand without waiting for the socket */
bool http_client_pending(const struct http_client *c);
/** http_client_write() - After status 101: send raw bytes; http_client_read() then gives raw bytes; Return: 0 or -1 */
int http_client_write(struct http_client *c, const void *data, size_t n, struct sbx_err *err) SBX_WUR;

#endif
