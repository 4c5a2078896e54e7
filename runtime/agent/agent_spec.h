/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: frames and the requests within them, read without trust
 *
 * Pure: bytes in, views into the same bytes out, no allocation, no I/O.  Compiled for the host by the unit tests and the
 * fuzz targets.
 */
#ifndef RUNTIME_AGENT_AGENT_SPEC_H
#define RUNTIME_AGENT_AGENT_SPEC_H

#include "runtime/agent_msg.h"

#include <stddef.h>

struct spec_view {
	struct agent_spec spec;
	const char *cwd;   /* all borrowed from the bytes given */
	const char *user;  /* "" when there is none */
	const char *args;  /* the first of spec.n_args strings, each behind the NUL of the one before */
	const char *env;   /* the first of spec.n_env strings */
	const uint8_t *text; /* DRIVER: its text */
	uint32_t text_bytes;
};

struct spec_fs {
	struct agent_fs fs;
	const char *strings; /* the first of fs.n_strings */
};

/**
 * spec_frame() - Take the frame at the start of @data apart
 * @ret:	Filled when a whole frame is there
 * @payload:	Set to its first payload byte
 *
 * Return: bytes of the whole frame, 0 when more bytes are needed, -EPROTO when no well-formed frame can begin like this
 */
int spec_frame(const uint8_t *data, size_t n, struct agent_frame *ret, const uint8_t **payload);

/** spec_read() - Read a struct agent_spec and its strings; @entrypoint: START's form, with the user; Return: 0 or -EPROTO */
int spec_read(const uint8_t *data, size_t n, int entrypoint, struct spec_view *ret);

/** spec_read_fs() - Read a struct agent_fs and what follows it; Return: 0 or -EPROTO */
int spec_read_fs(const uint8_t *data, size_t n, struct spec_fs *ret);

/** spec_next() - The string behind @s in a row of NUL-terminated strings */
const char *spec_next(const char *s);

#endif
