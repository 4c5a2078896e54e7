/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: from options to a create request
 */
#ifndef API_CLI_SPEC_H
#define API_CLI_SPEC_H

#include "api/cli/cli.h"
#include "base/buf.h"

#include <stdint.h>

struct jv;

/* A sandbox that only has to wait: pid 1 does so by itself, in any image. */
#define SPEC_WAIT "@idle"

/**
 * spec_seconds() - Read a time: "90", "90s", "30m", "2h", "1d"
 * @text:	What was typed
 * @ret:	Seconds
 * @err:	Filled on failure: INVALID_REQUEST
 *
 * Return: 0, or -1 with @err set
 */
int spec_seconds(const char *text, uint64_t *ret, struct sbx_err *err) SBX_WUR;

/** spec_size() - Read "512m", "2g", "512Mi" or bytes, and write the API's form into @out of 32; Return: 0, or -1 with @err set */
int spec_size(const char *text, char out[32], struct sbx_err *err) SBX_WUR;

/**
 * spec_env() - Split "NAME=VALUE", or "NAME" for the caller's value
 * @text:	What was typed
 * @name:	Gets the name, 256 bytes
 * @ret_value:	The value; NULL: NAME alone, and the caller has none
 * @err:	Filled on failure: INVALID_REQUEST
 *
 * Return: 0, or -1 with @err set
 */
int spec_env(const char *text, char name[256], const char **ret_value, struct sbx_err *err) SBX_WUR;

/* Metadata that a throw-away sandbox carries, with a value of its own, so that it is found again whatever happens. */
#define SPEC_RUN_LABEL "sandboxctl-run"

/* What the command adds to the options. */
struct spec_extra {
	const char *const *entrypoint; /* NULL-terminated; never empty */
	uint64_t default_timeout_s;    /* when --timeout is not given; 0: never */
	const char *run_label;	       /* value of SPEC_RUN_LABEL, or NULL */
};

/**
 * spec_create() - Write the body of POST /v1/sandboxes
 * @args:	Options that run and create share
 * @extra:	What the command adds
 * @out:	Gets the JSON
 * @err:	Filled on failure: INVALID_REQUEST
 *
 * Return: 0, or -1 with @err set
 */
int spec_create(const struct cli_args *args, const struct spec_extra *extra, struct buf *out, struct sbx_err *err) SBX_WUR;

/**
 * spec_image_command() - What an image runs by itself: its ENTRYPOINT and CMD
 * @cli:	Whose daemon
 * @image:	Name; "host" has none
 * @room:	Gets at most @n - 1 arguments and a NULL; they point into *@ret_keep
 * @n:		Room
 * @ret_keep:	Document that must outlive @room; jv_free() it
 * @err:	Filled on failure
 *
 * Return: number of arguments, 0 when the image names none, or -1 with @err set
 */

int spec_image_command(struct cli *cli, const char *image, const char **room, size_t n, struct jv **ret_keep,
		       struct sbx_err *err) SBX_WUR;

/** spec_quote() - Append @words, NULL-terminated, to @out as one command line for a POSIX shell */
void spec_quote(struct buf *out, const char *const *words);

#endif
