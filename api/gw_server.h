/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandboxd's end of the gateway channel
 *
 * Accepts connections of the gateway's uid on control.sock, checks every message against api/gw_msg.h and hands it to one
 * callback a kind.  Answers are sent by connection and tag; what the socket does not take at once waits in a bounded queue,
 * and a gateway that does not read is cut off.  A malformed message ends its connection: the other end is ours, so it is broken.
 */
#ifndef API_GW_SERVER_H
#define API_GW_SERVER_H

#include "api/gw_msg.h"
#include "base/err.h"
#include "base/http_server.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct gw_server;
struct gw_conn; /* one connection; counted, so that an answer may outlive it */

struct gw_server_hooks {
	void *arg;
	/* A message of this kind came; @head points at the whole fixed struct, @strings are views, both valid in the call. */
	void (*message)(void *arg, struct gw_conn *conn, const struct gw_head *head, const struct http_text *strings);
	/* @conn is closed: nothing can be sent any more; may be NULL */
	void (*closed)(void *arg, struct gw_conn *conn);
	/* The configuration as the gateway has to know it: enum gw_hello_flags. */
	uint32_t hello_flags;
};

/**
 * gw_server_new() - Begin to accept
 * @loop:	The loop
 * @listen_fd:	SOCK_SEQPACKET that listens; stays the caller's
 * @peer_uid:	Connections of other uids but root and our own are closed unheard
 * @hooks:	Copied
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the server (gw_server_free() it), or NULL with @err set
 */
struct gw_server *gw_server_new(struct loop *loop, int listen_fd, uid_t peer_uid, const struct gw_server_hooks *hooks,
				struct sbx_err *err) SBX_WUR;
/** gw_server_free() - Close all connections of @server; their gw_conn live on until the last gw_conn_unref() */
void gw_server_free(struct gw_server *server);
/** gw_server_adopt() - Take over one connected socket @fd as accept would; Return: 0 or -errno; the uid is checked too */
int gw_server_adopt(struct gw_server *server, int fd);
/** gw_server_broadcast() - Send @head (its struct is @size bytes) without strings to every connection that said hello */
void gw_server_broadcast(struct gw_server *server, const struct gw_head *head, size_t size);

/** gw_conn_ref() - Hold @conn; Return: @conn */
struct gw_conn *gw_conn_ref(struct gw_conn *conn);
/** gw_conn_unref() - Let @conn go */
void gw_conn_unref(struct gw_conn *conn);
/** gw_conn_is_open() - Whether somebody still hears what is sent to @conn */
bool gw_conn_is_open(const struct gw_conn *conn);

/**
 * gw_conn_send() - Send one message
 * @conn:	Where to; nothing happens when it is closed
 * @head:	First member of the fixed struct; magic, n_strings, lengths and body_fd are set here
 * @size:	Of the fixed struct
 * @strings:	@n_strings of them; the last goes into a sealed memfd when it is longer than GW_INLINE_BODY
 * @n_strings:	At most GW_MAX_STRINGS
 * @fds:	Sent along, stay the caller's; only where the kind has no body
 * @n_fds:	At most 2
 *
 * Return: 0, or -errno after which the connection is closed
 */
int gw_conn_send(struct gw_conn *conn, struct gw_head *head, size_t size, const struct http_text *strings, size_t n_strings,
		 const int *fds, size_t n_fds);

#endif
