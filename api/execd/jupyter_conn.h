/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one connection to a Jupyter server inside a sandbox
 *
 * The sockets were made by the broker in the sandbox's network namespace; here they are connected to loopback there, and
 * to nothing else.  REST questions follow each other on the connection, which then may become the channels socket of
 * a kernel (WebSocket, client side).  The server is hostile: heads, answers and messages are bounded, what is not
 * well-formed closes the connection, and nothing of it reaches another context.
 *
 *   CONNECTING -- ready --> OPEN -- ask --> WAITING -- answer --> OPEN -- upgrade --> UPGRADING -- opened --> SOCKET
 *        any -- closed: at most once; only jupyter_conn_free() is left to do
 */
#ifndef API_EXECD_JUPYTER_CONN_H
#define API_EXECD_JUPYTER_CONN_H

#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A list of kernels with their arguments; real ones have some KiB. */
#define JUPYTER_ANSWER_MAX  (1024u * 1024)
/* Longer ones are read over.  Our own drivers' values end at half of it. */
#define JUPYTER_MESSAGE_MAX (6u * 1024 * 1024)

struct jupyter_conn;

/* Each may free the connection. */
struct jupyter_conn_ops {
	void (*ready)(void *arg);					      /* connected */
	void (*answer)(void *arg, unsigned status, char *body, size_t n);     /* to the question asked last */
	void (*opened)(void *arg);					      /* the socket is there */
	void (*message)(void *arg, char *text, size_t n);		      /* one whole text message, which may be changed */
	void (*skipped)(void *arg, uint64_t bytes);			      /* one that was too long */
	void (*holding)(void *arg);					      /* a long message is not complete: see jupyter_conn_held() */
	void (*closed)(void *arg, const struct sbx_err *why);
};

struct jupyter_conn_config {
	struct loop *loop;
	int fds[2];	      /* unconnected TCP sockets, IPv4 and IPv6; taken over, also on failure; -1: none */
	uint32_t port;
	const char *token;    /* for the Authorization header; copied */
	uint64_t deadline_ms; /* as jupyter_conn_deadline() */
};

/**
 * jupyter_conn_new() - Connect; a server that does not listen yet is tried again until the deadline
 * @config:	Copied
 * @ops:	Static
 * @arg:	Handed to them
 *
 * Return: the connection, or NULL when out of memory; nothing is called before the loop's next turn
 */
struct jupyter_conn *jupyter_conn_new(const struct jupyter_conn_config *config, const struct jupyter_conn_ops *ops, void *arg);
/** jupyter_conn_free() - Close and release @c; NULL is fine; allowed in any callback */
void jupyter_conn_free(struct jupyter_conn *c);
/** jupyter_conn_deadline() - Let @c be closed when @ms have passed; 0: no more */
void jupyter_conn_deadline(struct jupyter_conn *c, uint64_t ms);
/** jupyter_conn_ask() - Send a request with the JSON text @body (NULL: none); `answer` or `closed` follows */
void jupyter_conn_ask(struct jupyter_conn *c, const char *method, const char *path, const char *body);
/** jupyter_conn_upgrade() - Ask for the WebSocket at @path; `opened` or `closed` follows */
void jupyter_conn_upgrade(struct jupyter_conn *c, const char *path);
/** jupyter_conn_send() - Send @n bytes of @text as one message */
void jupyter_conn_send(struct jupyter_conn *c, const char *text, size_t n);
/** jupyter_conn_pause() - Stop reading from @c (@on), or go on */
void jupyter_conn_pause(struct jupyter_conn *c, bool on);
/** jupyter_conn_held() - Bytes of an unfinished message that @c keeps */
size_t jupyter_conn_held(const struct jupyter_conn *c);

#endif
