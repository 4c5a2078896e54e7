/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: who may do what
 *
 * The lifecycle API needs the configured key; the Unix socket needs none, because the kernel says who speaks.  Without a
 * configured key (only when the operator wrote that down) every caller passes but web pages of another origin.  Ports
 * of a sandbox: 44772 needs its exec token or the key, 18080 its egress token or the key, user ports are open to who knows
 * the id.  Every comparison of a secret takes the same time wherever the first difference is.
 */
#ifndef API_AUTH_H
#define API_AUTH_H

#include "base/err.h"
#include "base/http_server.h"

#include <stdbool.h>

struct api_context;
struct sandbox;

struct auth_credentials {
	struct http_text api_key;
	struct http_text execd_token;
	struct http_text egress_token;
	struct http_text origin; /* "" or NULL: no page; only auth_lifecycle() looks at it */
	bool has_api_key;	 /* the header was there */
	bool unix_peer;
};

/**
 * auth_lifecycle() - May this caller use the lifecycle API?
 * @context:	Key and mode
 * @who:	What the caller showed
 * @ret_by_key:	Set on success: whether the key was what opened the door; may be NULL
 * @err:	Filled on refusal: MISSING_API_KEY, INVALID_API_KEY, FORBIDDEN_ORIGIN
 *
 * Return: 0, or -1 with @err set
 */
int auth_lifecycle(const struct api_context *context, const struct auth_credentials *who, bool *ret_by_key,
		   struct sbx_err *err) SBX_WUR;

/**
 * auth_exec() - May this caller use port 44772 of @sandbox?
 * @context:	Key and mode
 * @sandbox:	The sandbox; its tokens are compared
 * @who:	What the caller showed
 * @err:	Filled on refusal: UNAUTHORIZED
 *
 * Return: 0, or -1 with @err set
 */
int auth_exec(const struct api_context *context, const struct sandbox *sandbox, const struct auth_credentials *who,
	      struct sbx_err *err) SBX_WUR;

/** auth_egress() - Like auth_exec() for port 18080 of @sandbox: its egress token or the key */
int auth_egress(const struct api_context *context, const struct sandbox *sandbox, const struct auth_credentials *who,
		struct sbx_err *err) SBX_WUR;

/**
 * auth_exec_token() - What a client has to send as X-EXECD-ACCESS-TOKEN
 * @context:	Key and mode
 * @sandbox:	The sandbox
 *
 * The sandbox's own EXECD_ACCESS_TOKEN when its environment sets one, else the token made for it when a key is configured.
 *
 * Return: borrowed from @sandbox; NULL when none is required
 */
const char *auth_exec_token(const struct api_context *context, const struct sandbox *sandbox);

#endif
