/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: how a sandbox looks from outside
 *
 * No member is ever null: what is absent is not written.  entrypoint is always an array, instants are RFC 3339 in UTC, and
 * createdAt is the same in every answer.  Secrets of the sandbox (its environment, its tokens) are in none of them.
 */
#ifndef API_RENDER_H
#define API_RENDER_H

#include "base/jv.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sandbox;

enum render_form { RENDER_CREATED = 1 /* without image */, RENDER_FULL };

/** render_sandbox() - Write @sandbox as one JSON object to @w in @form */
void render_sandbox(struct jw *w, const struct sandbox *sandbox, enum render_form form);
/** render_instant() - Write the member @key with the instant @wall_usec to @w */
void render_instant(struct jw *w, const char *key, int64_t wall_usec);
/** render_pagination() - Write the pagination object of page @page of @page_size with @total items to @w as a value */
void render_pagination(struct jw *w, uint32_t page, uint32_t page_size, size_t total);
/** render_is_secret_name() - Whether the value of an environment variable called @name must be masked for people */
bool render_is_secret_name(const char *name);

#endif
