/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: which part of a file a download wants
 *
 * Byte ranges (RFC 9110 14.1.2) as clients use them: of several only the first is served.  Line windows: lines are
 * cut at "\n", lose their "\r" and "\n" at the end and are joined by "\n", with none behind the last.
 */
#ifndef API_EXECD_RANGE_H
#define API_EXECD_RANGE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum range_kind { RANGE_ALL = 0, RANGE_FROM, RANGE_LAST };

struct range {
	enum range_kind kind;
	uint64_t first; /* FROM: offset of the first byte */
	uint64_t last;	/* FROM: offset of the last byte, UINT64_MAX: to the end; LAST: number of bytes */
};

/** range_parse() - Read a Range header of @n bytes into @ret; Return: 0, or -EINVAL */
int range_parse(const char *text, size_t n, struct range *ret);
/**
 * range_resolve() - Apply a range to a file
 * @range:	The range
 * @size:	Bytes of the file
 * @ret_first:	Offset of the first byte to send
 * @ret_n:	Bytes to send
 *
 * Return: 0, or -ERANGE when the file has no such part (an empty file has every part, empty)
 */
int range_resolve(const struct range *range, uint64_t size, uint64_t *ret_first, uint64_t *ret_n);

/* State of the line transform; zeroed is the start. */
struct range_lines {
	uint64_t held_cr; /* carriage returns that belong to the line only when something follows them */
	bool started;	  /* a line was begun */
	bool in_line;
};

/** range_lines() - Append @n bytes of file text, transformed, to @out */
void range_lines(struct range_lines *s, const char *data, size_t n, struct buf *out);

#endif
