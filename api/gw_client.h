/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the gateway's channel to sandboxd
 *
 * Requests of gw_msg.h with a tag each; answers come in any order through a callback, exactly once, unless the requester
 * cancels.  When sandboxd goes away every open request fails with PEER_GONE and the channel connects again by itself; it
 * is up once sandboxd has answered HELLO.  Requests made while it is down wait for it a short time, then fail, and once
 * that time is over they fail at once.
 */
#ifndef API_GW_CLIENT_H
#define API_GW_CLIENT_H

#include "api/gw_msg.h"
#include "base/err.h"
#include "base/http_server.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GW_CLIENT_FDS 4

struct gw_client;

struct gw_reply {
	const struct gw_head *head;		    /* the whole fixed part, of the size that goes with its kind */
	struct http_text strings[GW_MAX_STRINGS];   /* valid during the callback */
	int fds[GW_CLIENT_FDS];			    /* set to -1 what you keep; the rest is closed after the callback */
	size_t n_fds;
};

/* Exactly one of @reply and @err is not NULL. */
typedef void gw_done(void *arg, struct gw_reply *reply, const struct sbx_err *err);

struct gw_client_hooks {
	void *arg;
	void (*up)(void *arg, uint32_t hello_flags);
	void (*down)(void *arg);
	void (*state)(void *arg, const struct gw_state *state);
};

/**
 * gw_client_new() - Connect to sandboxd, and again whenever the channel breaks
 * @loop:	The gateway's loop
 * @path:	Of control.sock; copied
 * @hooks:	Copied
 * @err:	Filled on failure: NO_MEMORY.  That nobody listens yet is no failure
 *
 * Return: the channel, or NULL with @err set
 */
struct gw_client *gw_client_new(struct loop *loop, const char *path, const struct gw_client_hooks *hooks,
				struct sbx_err *err) SBX_WUR;
/** gw_client_free() - Release @c; open requests fail; NULL is fine */
void gw_client_free(struct gw_client *c);
/** gw_client_up() - Whether sandboxd has said hello */
bool gw_client_up(const struct gw_client *c);
/** gw_client_flags() - enum gw_hello_flags of the last hello; KEY_REQUIRED before the first */
uint32_t gw_client_flags(const struct gw_client *c);
/**
 * gw_client_send() - Send one request
 * @c:		The channel
 * @message:	Fixed part, with its kind set; head, tag and lengths are filled here
 * @size:	Of the fixed part
 * @strings:	@n_strings pieces, in the order of the kind's enum; the last may be longer than GW_INLINE_BODY
 * @done:	Gets the answer from the loop, never inside this call; NULL when there is no answer
 * @arg:	Handed to @done
 * @err:	Filled on failure: PEER_GONE (down), TOO_LARGE, LIMIT (too many wait), SYSTEM, NO_MEMORY
 *
 * Return: the tag (for gw_client_cancel()), or 0 with @err set and @done never called
 */
uint64_t gw_client_send(struct gw_client *c, struct gw_head *message, size_t size, const struct http_text *strings,
			size_t n_strings, gw_done *done, void *arg, struct sbx_err *err) SBX_WUR;
/** gw_client_cancel() - Nobody waits for the answer to @tag any more; 0 is fine */
void gw_client_cancel(struct gw_client *c, uint64_t tag);

#endif
