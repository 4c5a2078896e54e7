/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: requests of sandboxctl to its daemon
 *
 * One connection, kept alive.  An answer that is not 2xx becomes a struct sbx_err with the code that errors.def has for it,
 * so that commands and cli_fail() can switch on it.
 */
#ifndef API_CLI_CLIENT_H
#define API_CLI_CLIENT_H

#include "api/cli/cli.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/http_client.h"
#include "base/jv.h"
#include "base/num.h"

/* Answers of the lifecycle API: a page of 200 sandboxes is some 200 KiB. */
#define CLIENT_BODY_MAX (16u * 1024 * 1024)
#define CLIENT_TIMEOUT_MS 120000u

/** client_free() - Close the connection of @cli, if there is one */
void client_free(struct cli *cli);
/** client_connect() - A further connection to the daemon of @cli; Return: it (http_client_free() it), or NULL with @err set */
struct http_client *client_connect(struct cli *cli, struct sbx_err *err) SBX_WUR;
/** client_http() - The connection of @cli, made at first use; Return: NULL with @err set when there is none */
struct http_client *client_http(struct cli *cli, struct sbx_err *err) SBX_WUR;

/**
 * client_begin() - Send a request with the key and read the head of its answer
 * @cli:	Whose daemon
 * @http:	A connection of client_connect() or client_http()
 * @request:	Its headers are added to ours
 * @ret:	Status and length; always 2xx or 101
 * @err:	Filled on failure: what the server said, PEER_GONE (not there), SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int client_begin(struct cli *cli, struct http_client *http, const struct http_client_request *request,
		 struct http_client_response *ret, struct sbx_err *err) SBX_WUR;

/**
 * client_call() - One request with a JSON answer
 * @cli:	Whose daemon
 * @method:	"GET"
 * @target:	Raw path and query
 * @body:	JSON to send, or NULL
 * @ret:	The document, jv_free() it; NULL when the answer was empty; the pointer may be NULL
 * @err:	Filled on failure
 *
 * Return: 0, or -1 with @err set
 */
int client_call(struct cli *cli, const char *method, const char *target, struct buf *body, struct jv **ret,
		struct sbx_err *err) SBX_WUR;

/**
 * client_create() - POST /v1/sandboxes, again while the daemon is only starting
 * @cli:	Whose daemon
 * @body:	The request; kept
 * @ret:	The answer, jv_free() it
 * @err:	Filled on failure
 *
 * A daemon that was just started answers before it has taken up the sandboxes of its last run; that takes a second.
 *
 * Return: 0, or -1 with @err set
 */
int client_create(struct cli *cli, struct buf *body, struct jv **ret, struct sbx_err *err) SBX_WUR;

/** client_escape() - Append @text to @out, percent-encoded for one segment or one query value */
void client_escape(struct buf *out, const char *text);

/**
 * client_find() - Turn what a person typed into the id of one sandbox
 * @cli:	Whose daemon
 * @text:	Whole id, its beginning, or the value of metadata "name"
 * @out:	The whole id
 * @err:	Filled on failure: SANDBOX_NOT_FOUND, CONFLICT-like INVALID_REQUEST when several match
 *
 * Return: 0, or -1 with @err set
 */
int client_find(struct cli *cli, const char *text, char out[UUID_SIZE], struct sbx_err *err) SBX_WUR;

/**
 * client_walk() - Visit every sandbox of a listing, page by page
 * @cli:	Whose daemon
 * @filter:	"&state=..." or ""
 * @visit:	Called with each item; a return value other than 0 ends the walk
 * @arg:	Handed to @visit
 * @err:	Filled on failure
 *
 * Return: 0, what @visit returned, or -1 with @err set
 */
int client_walk(struct cli *cli, const char *filter, int (*visit)(void *arg, const struct jv *item), void *arg,
		struct sbx_err *err) SBX_WUR;

/**
 * client_image() - What the daemon knows of an image
 * @cli:	Whose daemon
 * @image:	A name or id as users write it
 * @ret:	The image; the caller frees it
 * @err:	Filled on failure, with SBX_E_IMAGE_UNKNOWN when there is none of that name
 *
 * Return: 0, or -1 with @err set
 */
int client_image(struct cli *cli, const char *image, struct jv **ret, struct sbx_err *err) SBX_WUR;

/**
 * pull_for() - Before a create: pull its --image when it is not here, and show how that goes
 * @cli:	Whose daemon
 * @args:	Of run or create; --pull or the daemon's configuration say whether it may be pulled
 * @err:	Filled on failure
 *
 * Return: 0, or -1 with @err set
 */
int pull_for(struct cli *cli, const struct cli_args *args, struct sbx_err *err) SBX_WUR;

/**
 * client_events() - Follow the events of a pull, an import or a check, with bars on a terminal
 * @http:	Its answer has begun
 * @quiet:	Show nothing
 * @ret:	The last event, "done"; jv_free() it
 * @err:	Filled on failure: what the daemon said, PEER_GONE, PROTOCOL
 *
 * Return: 0, or -1 with @err set
 */
int client_events(struct http_client *http, bool quiet, struct jv **ret, struct sbx_err *err) SBX_WUR;

/**
 * client_check() - Have the store of images checked, with what is done meanwhile on standard error
 * @cli:	Whose daemon
 * @repair:	Remove what cannot be right
 * @quick:	Read neither blobs nor layers
 * @ret:	The last event, which has it as "report"; jv_free() it
 * @err:	Filled on failure
 *
 * Return: 0, or -1 with @err set
 */
int client_check(struct cli *cli, bool repair, bool quick, struct jv **ret, struct sbx_err *err) SBX_WUR;
/** client_show_check() - Print a report of client_check() when @cli wants tables; Return: exit code, 1 while errors are left */
int client_show_check(const struct cli *cli, const struct jv *report);

#endif
