/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: pulls for the API, and the broker behind them
 *
 *   POST /v1/images/pull  {"image", "auth"?: {"username","password"}, "policy"?: "always"|"missing"|"default"}
 *
 * (default: as images.pull_policy says; never is then an error for what is not here) is answered with events (text/event-stream), each one line of JSON: {"type":"progress","endpoint","bytes","total","layers":
 * [{"digest","size","bytes","state"}...]}, and last {"type":"done","image":{...}} or {"type":"error","error":{"code","message"}}.  The
 * gateway gets the reading end of a pipe and copies; whoever closes it leaves the pull.
 */
#ifndef API_IMAGES_PULL_H
#define API_IMAGES_PULL_H

#include "api/call.h"
#include "images/pull.h"

struct broker_client;

/**
 * images_pull_begin() - Pull what a request asks for
 * @context:	The server's; must have pulls
 * @body:	JSON of the request
 * @n:		Its bytes
 * @ret_fd:	Reading end of the events, the caller's to close
 * @err:	Filled on failure: MALFORMED, SCHEMA, INVALID_REQUEST, LIMIT, OVERLOADED, SYSTEM, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int images_pull_begin(const struct api_context *context, const char *body, size_t n, int *ret_fd, struct sbx_err *err) SBX_WUR;

/** images_pull_hooks() - What pulls need of @broker, which must outlive them; limits come from @settings */
struct image_pull_hooks images_pull_hooks(struct broker_client *broker, const struct settings *settings);
/** images_pull_serve() - Pulls take nothing away that @context needs, which outlives this until it is called with NULL */
void images_pull_serve(const struct api_context *context);

#endif
