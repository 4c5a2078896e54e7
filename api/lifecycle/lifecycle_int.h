/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the lifecycle handlers share
 */
#ifndef API_LIFECYCLE_LIFECYCLE_INT_H
#define API_LIFECYCLE_LIFECYCLE_INT_H

#include "api/call.h"
#include "base/buf.h"

#include <stdint.h>

struct sandbox;

/**
 * lifecycle_find() - The sandbox that the first path parameter names
 * @call:	A call in its handler; answered with SANDBOX_NOT_FOUND when there is none
 *
 * An id that is no UUID is as unknown as any other.
 *
 * Return: the sandbox, or NULL after having answered
 */
const struct sandbox *lifecycle_find(struct api_call *call);
/** lifecycle_find_id() - The id in the path of @call into @id; Return: 0, or -1 after having answered */
int lifecycle_find_id(struct api_call *call, uint8_t id[16]);
/** lifecycle_reply_sandbox() - Answer @call with @status and the whole @sandbox */
void lifecycle_reply_sandbox(struct api_call *call, uint32_t status, const struct sandbox *sandbox);

/**
 * lifecycle_query_count() - A whole number of the query
 * @call:	A call in its handler; answered with SCHEMA when the number is out of bounds
 * @name:	The parameter
 * @min:	Least value
 * @max:	Largest value
 * @ret:	Holds the default; written when the parameter is there
 *
 * Return: 0, or -1 after having answered
 */
int lifecycle_query_count(struct api_call *call, const char *name, uint32_t min, uint32_t max, uint32_t *ret);
/** lifecycle_query_bool() - Like lifecycle_query_count() for true/false/1/0/yes/no/on/off/t/f/y/n into @ret */
int lifecycle_query_bool(struct api_call *call, const char *name, bool *ret);
/** lifecycle_query_text() - Like lifecycle_query_count(), an owned text into @ret, NULL when absent */
int lifecycle_query_text(struct api_call *call, const char *name, char **ret);

#endif
