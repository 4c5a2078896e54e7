/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: schema faults of a request
 *
 * Collects every fault of a body or query before any is answered.  The answer is 422 with both shapes that clients know:
 * {"code","message"} of the first fault, and "detail", a list of {"type","loc","msg"}.  At most SCHEMA_FAULTS_MAX are kept.
 * The typed getters read one member, note a fault when it is of another kind, and treat null as absent.
 */
#ifndef API_SCHEMA_H
#define API_SCHEMA_H

#include "base/buf.h"
#include "base/err.h"
#include "base/jv.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCHEMA_FAULTS_MAX 20u

struct api_call;

/* Where a value stands: a chain up to the root, on the callers' stacks. */
struct schema_at {
	const struct schema_at *up;
	const char *name; /* NULL: element `index` of an array */
	size_t index;
};

struct schema {
	struct buf detail; /* owned; JSON objects with commas between */
	struct jw writer;
	unsigned n;
	char first[SBX_ERR_MSG_SIZE];
};

/** schema_init() - Make @s ready */
void schema_init(struct schema *s);
/** schema_free() - Release what @s owns; NULL is fine */
void schema_free(struct schema *s);
/**
 * schema_fault() - Note one fault
 * @s:		The collector
 * @at:		Where the value stands
 * @type:	Short kind: "missing", "string_type", "value_error", ...
 * @fmt:	What is wrong, for people
 */
void schema_fault(struct schema *s, const struct schema_at *at, const char *type, const char *fmt, ...) SBX_PRINTF(4, 5);
/** schema_reply() - Answer @call with 422 when @s has faults; Return: whether it did */
bool schema_reply(struct schema *s, struct api_call *call);

/** schema_object() - Member @name of @object at @at, which must be an object when it is set; NULL when absent or wrong */
const struct jv *schema_object(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name);
/** schema_array() - Like schema_object() for an array */
const struct jv *schema_array(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name);
/** schema_str() - Like schema_object() for a string; Return: borrowed text, NULL when absent or wrong */
const char *schema_str(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name);
/** schema_str_needed() - Like schema_str(), and absence is a fault */
const char *schema_str_needed(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name);
/** schema_bool() - Like schema_object() for a boolean; Return: @fallback when absent or wrong */
bool schema_bool(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name, bool fallback);
/**
 * schema_member() - Member @name of @object, or, for the compatibility of older clients, its snake_case spelling
 *
 * Return: the value, NULL when neither is there
 */
const struct jv *schema_member(const struct jv *object, const char *name);

static inline void cleanup_schema(struct schema *s)
{
	schema_free(s);
}
#define auto_schema __attribute__((cleanup(cleanup_schema))) struct schema

#endif
