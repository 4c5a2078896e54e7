/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandbox-fetch as the sender of the deny webhook
 *
 * One POST of JSON at a time, five seconds each, over http or https; certificates are checked against those of the system and
 * of one file more.  Redirects are not followed and what a sink says is not read.  When to try again is sandboxd's business.
 */
#ifndef IMAGES_FETCH_POST_H
#define IMAGES_FETCH_POST_H

#include "base/err.h"
#include "images/fetch_msg.h"

#include <stdbool.h>

struct fetch_poster;

struct fetch_poster_config {
	const char *url;     /* http or https; borrowed */
	const char *ca_file; /* trusted besides; "": none; borrowed */
	void *arg;
	void (*done)(void *arg, const struct fetch_done *done);
};

/** fetch_poster_new() - Make one for @config; Return: it (fetch_poster_free() it), or NULL with @err set (PROTOCOL, NO_MEMORY) */
struct fetch_poster *fetch_poster_new(const struct fetch_poster_config *config, struct sbx_err *err) SBX_WUR;
/** fetch_poster_free() - Release @p; a transfer under way ends untold; NULL is fine */
void fetch_poster_free(struct fetch_poster *p);
/** fetch_poster_post() - Send the body of @post, whose n fits; told by done() later, or at once when one is under way */
void fetch_poster_post(struct fetch_poster *p, const struct fetch_post *post);
/** fetch_poster_wait() - Let it go on until something happens; @fd also ends the wait; Return: whether @fd is readable */
bool fetch_poster_wait(struct fetch_poster *p, int fd);

#endif
