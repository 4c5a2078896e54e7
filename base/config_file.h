/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a strict reader for a subset of TOML 1.0
 *
 * Tables, dotted keys, sub-tables, arrays of tables, basic and literal strings on one line, decimal integers, floats,
 * booleans, arrays (also over several lines), inline tables and comments.  Dates, multi-line strings and numbers
 * with other bases are refused, as is every repeated key.  The whole file is read into one tree before anything is used, so a
 * file with an error has no effect.  Input is bounded: CONFIG_FILE_MAX bytes, CONFIG_DEPTH_MAX levels.
 */
#ifndef BASE_CONFIG_FILE_H
#define BASE_CONFIG_FILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_FILE_MAX	 (1024u * 1024)
#define CONFIG_DEPTH_MAX 16u

enum config_type {
	CONFIG_NONE = 0,
	CONFIG_TEXT,
	CONFIG_INTEGER,
	CONFIG_FLOAT,
	CONFIG_BOOL,
	CONFIG_ARRAY,
	CONFIG_TABLE,
	CONFIG_TYPE_COUNT
};

struct config_value {
	enum config_type type;
	unsigned line;	/* where it stands, from 1 */
	char *key;	/* owned; NULL for the root and for members of an array */
	char *text;	/* owned; TEXT: no NUL inside, valid UTF-8 */
	int64_t integer;
	double real;
	bool boolean;
	unsigned origin; /* private to the reader: how a table came to be */
	struct config_value **member; /* owned, each owned; ARRAY and TABLE, in the order of the file */
	size_t n_members;
};

/**
 * config_parse() - Read a whole text
 * @name:	Shown in errors, usually the file's path
 * @text:	The text; need not be NUL-terminated
 * @n:		Its length in bytes
 * @err:	Filled on failure: INVALID_REQUEST with "name:line: what", NO_MEMORY
 *
 * Return: the root table (config_free() it), or NULL with @err set
 */
struct config_value *config_parse(const char *name, const char *text, size_t n, struct sbx_err *err) SBX_WUR;

/**
 * config_read() - Read a file
 * @path:	Its path
 * @err:	Filled on failure: as config_parse(), and SYSTEM when it cannot be read (err->sys is the errno)
 *
 * Return: the root table (config_free() it), or NULL with @err set
 */
struct config_value *config_read(const char *path, struct sbx_err *err) SBX_WUR;

/** config_free() - Release @value and all below it; NULL is fine */
void config_free(struct config_value *value);

/** config_get() - The member of @table with @key, or NULL */
const struct config_value *config_get(const struct config_value *table, const char *key);

/** config_type_name() - "a string", "an integer" ... for messages about a value of @type */
const char *config_type_name(enum config_type type);

static inline void cleanup_config(struct config_value *const *value)
{
	config_free(*value);
}
#define auto_config __attribute__((cleanup(cleanup_config))) struct config_value *

#endif
