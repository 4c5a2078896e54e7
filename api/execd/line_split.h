/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: output of a command, cut into lines
 *
 * "\n", "\r" and "\r\n" end a line, also when the pair comes in two pieces.  A line is handed on when its end is seen,
 * the last one at line_split_finish().  A line of more than LIMIT_EVENT_LINE_BYTES is handed on in pieces, cut between
 * characters, so that neither this process nor a client's line buffer grows without bound.
 */
#ifndef API_EXECD_LINE_SPLIT_H
#define API_EXECD_LINE_SPLIT_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

struct line_split {
	struct buf held; /* the line so far */
	bool after_cr;	 /* a "\n" now belongs to the "\r" before */
	bool in_pieces;	 /* the line was longer than the bound: its empty rest is no line */
};

/* @line has no terminator; valid during the call. */
typedef void line_split_sink(void *arg, const char *line, size_t n);

/** line_split_feed() - Take @n bytes of @data; @sink gets each complete line; a full memory drops the held line's rest */
void line_split_feed(struct line_split *s, const char *data, size_t n, line_split_sink *sink, void *arg);
/** line_split_finish() - The output is over: @sink gets the last line if it had no end; @s can be used anew */
void line_split_finish(struct line_split *s, line_split_sink *sink, void *arg);
/** line_split_clear() - Release what @s holds */
void line_split_clear(struct line_split *s);

#endif
