/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what sandboxctl prints: aligned tables for people, JSON and YAML of the API's own objects for programs
 */
#ifndef API_CLI_OUT_H
#define API_CLI_OUT_H

#include "api/cli/cli.h"
#include "base/buf.h"
#include "base/jv.h"

#include <stddef.h>
#include <stdint.h>

#define OUT_MAX_COLUMNS 8

struct out_table;

/** out_table_new() - Begin a table whose heads are @heads, NULL-terminated; Return: it, or NULL without memory */
struct out_table *out_table_new(const char *const *heads) SBX_WUR;
/** out_table_cell() - Put @text (copied; control characters become '?') into the next cell of @t; NULL is "-" */
void out_table_cell(struct out_table *t, const char *text);
/** out_table_drop() - Forget the table; NULL is fine */
void out_table_drop(struct out_table *t);
/** out_table_print() - Print @t with aligned columns, and release it; Return: 0, or -1 when memory ran out */
int out_table_print(struct out_table *t) SBX_WUR;

/** out_value() - Print a document as JSON or YAML, as @format says */
void out_value(enum cli_format format, const struct jv *value);

/* What a command did, thing by thing: lines for people, one list for programs. */
struct out_done {
	enum cli_format format;
	struct buf json;
	struct jw w;
};

/** out_done_begin() - Start the list of @d for a command of @cli */
void out_done_begin(struct out_done *d, const struct cli *cli);
/** out_done_add() - Note that it was done to @name; @shown is what people get to see */
void out_done_add(struct out_done *d, const char *name, const char *shown);
/** out_done_end() - Print what is left to print of @d and release it */
void out_done_end(struct out_done *d);

/** out_age() - Write how long ago @wall_usec was ("12s", "5m", "3h", "2d") into @out of @size; "in ..." for the future */
void out_age(int64_t wall_usec, char *out, size_t size);
/** out_age_text() - out_age() of an RFC 3339 text; "-" when it is none */
void out_age_text(const char *rfc3339, char *out, size_t size);
/** out_bytes() - Write @bytes with a binary unit into @out of @size */
void out_bytes(uint64_t bytes, char *out, size_t size);

#endif
