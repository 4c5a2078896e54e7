/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: JSON in and out
 *
 * Reading: jv_parse() first checks the raw bytes itself (RFC 8259 grammar, UTF-8, depth, no NUL even as \u0000, no lone
 * surrogate, nothing behind the value) and only then gives them to cJSON, which accepts more than it should; afterwards it
 * refuses an object with the same member twice.  Look-up is case-sensitive.  The tree is read-only; a getter on NULL
 * answers as for an absent member, so look-ups may be chained.
 *
 * Writing: struct jw streams straight into a struct buf.  It knows no null of its own (an absent member is not written); only
 * jw_value() passes one on.  Commas are
 * its business; the caller balances begin and end.  Invalid UTF-8 becomes U+FFFD, and < > & U+2028 U+2029 are escaped, so that
 * a reply is safe wherever it is pasted.
 */
#ifndef BASE_JV_H
#define BASE_JV_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jv; /* a value of a parsed document; the root owns all below it */

enum jv_type { JV_ABSENT = 0, JV_NULL, JV_BOOL, JV_NUMBER, JV_STRING, JV_ARRAY, JV_OBJECT };

/* Values in one document: the largest request that we serve, an argument list, has fewer. */
#define JV_VALUES_MAX 262144u

/**
 * jv_check() - Look at the raw bytes only: are they one well-formed JSON text that jv_parse() may build?
 * @data:	The bytes; need not end in NUL
 * @len:	Their number
 * @err:	Filled on failure: MALFORMED with the offset
 *
 * Return: 0, or -1 with @err set
 */
int jv_check(const void *data, size_t len, struct sbx_err *err) SBX_WUR;

/**
 * jv_parse() - Read one JSON text
 * @data:	The bytes; need not end in NUL
 * @len:	Their number; the caller has bounded it
 * @err:	Filled on failure: MALFORMED, NO_MEMORY
 *
 * Return: the root (jv_free() it), or NULL with @err set
 */
struct jv *jv_parse(const void *data, size_t len, struct sbx_err *err) SBX_WUR;
/**
 * jv_parse_first() - Read the first JSON text of @data and leave what follows it unread
 *
 * For bodies of the execd API, whose clients were never told about bytes behind the value.  Otherwise as jv_parse(), but that a
 * number which is written with a fraction or an exponent is none for jv_i64(), whatever its value.
 *
 * Return: the root (jv_free() it), or NULL with @err set
 */
struct jv *jv_parse_first(const void *data, size_t len, struct sbx_err *err) SBX_WUR;
/** jv_free() - Release the document whose root is @root; NULL is fine */
void jv_free(struct jv *root);

/** jv_type() - What @v is; JV_ABSENT for NULL */
enum jv_type jv_type(const struct jv *v);
/** jv_type_name() - "string", "object", ... for messages */
const char *jv_type_name(enum jv_type type);
/** jv_is_set() - Whether @v is there and not null */
bool jv_is_set(const struct jv *v);
/** jv_get() - Member @name of the object @object; Return: NULL when absent or when @object is no object */
const struct jv *jv_get(const struct jv *object, const char *name);
/** jv_find() - As jv_get(), but when no name is exactly @name the first one that differs in the case of ASCII letters only */
const struct jv *jv_find(const struct jv *object, const char *name);
/** jv_first() - First element or member of @container; Return: NULL when it has none or is no container */
const struct jv *jv_first(const struct jv *container);
/** jv_next() - The element or member behind @v; Return: NULL at the end */
const struct jv *jv_next(const struct jv *v);
/** jv_name() - Name of the member @v; Return: borrowed string, "" when it is not a member */
const char *jv_name(const struct jv *v);
/** jv_count() - Number of elements or members of @container; walks them */
size_t jv_count(const struct jv *container);
/** jv_str() - Text of the string @v, which has no NUL inside; Return: borrowed, NULL when @v is no string */
const char *jv_str(const struct jv *v);
/** jv_bool() - Read the boolean @v into @ret; Return: 0, or -EINVAL when it is none */
int jv_bool(const struct jv *v, bool *ret);
/**
 * jv_i64() - Read a number without fraction that a double holds exactly
 * @v:		The value
 * @ret:	Written on success
 *
 * Return: 0, -EINVAL (no number, or it has a fraction), -ERANGE (beyond 2^53)
 */
int jv_i64(const struct jv *v, int64_t *ret);
/** jv_double() - Read the number @v, which is finite, into @ret; Return: 0, or -EINVAL when it is none */
int jv_double(const struct jv *v, double *ret);

static inline void cleanup_jv(struct jv *const *v)
{
	jv_free(*v);
}
#define auto_jv __attribute__((cleanup(cleanup_jv))) struct jv *

/* A JSON text being written; zeroed but for `out` is ready. */
struct jw {
	struct buf *out; /* borrowed; its `failed` tells of lack of memory */
	bool comma;	 /* the next value or key needs one in front */
};

/** jw_object() - Open an object in @w, as a value or behind jw_key() */
void jw_object(struct jw *w);
/** jw_object_end() - Close the innermost object of @w */
void jw_object_end(struct jw *w);
/** jw_array() - Open an array in @w */
void jw_array(struct jw *w);
/** jw_array_end() - Close the innermost array of @w */
void jw_array_end(struct jw *w);
/** jw_key() - Write the name @key of the next member; the value must follow */
void jw_key(struct jw *w, const char *key);
/** jw_str() - Write the string @s as a value */
void jw_str(struct jw *w, const char *s);
/** jw_strn() - Write @n bytes of @s, which may be anything, as a string value */
void jw_strn(struct jw *w, const char *s, size_t n);
/** jw_i64() - Write the number @v as a value */
void jw_i64(struct jw *w, int64_t v);
/** jw_u64() - Write the number @v as a value */
void jw_u64(struct jw *w, uint64_t v);
/** jw_double() - Write @v in its shortest exact form, without ".0"; not finite becomes 0 */
void jw_double(struct jw *w, double v);
/** jw_bool() - Write the boolean @v as a value */
void jw_bool(struct jw *w, bool v);
/** jw_value() - Write @v, which jv_parse() made, with all below it: equal to what was read, null and the members' order included */
void jw_value(struct jw *w, const struct jv *v);
/** jw_raw() - Write @n bytes of @json, which already are one JSON value */
void jw_raw(struct jw *w, const char *json, size_t n);

/** jw_key_str() - Write the member @key with the string @s; nothing when @s is NULL */
void jw_key_str(struct jw *w, const char *key, const char *s);
/** jw_key_strs() - Write the member @key with the array of @list, which NULL ends; nothing when it is NULL or empty */
void jw_key_strs(struct jw *w, const char *key, char *const *list);
/** jw_key_i64() - Write the member @key with the number @v */
void jw_key_i64(struct jw *w, const char *key, int64_t v);
/** jw_key_u64() - Write the member @key with the number @v */
void jw_key_u64(struct jw *w, const char *key, uint64_t v);
/** jw_key_bool() - Write the member @key with the boolean @v */
void jw_key_bool(struct jw *w, const char *key, bool v);

#endif
