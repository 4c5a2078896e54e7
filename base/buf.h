/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: growing byte buffer with a consumed front
 *
 * data[head..len) is the content.  A failed allocation sets `failed` and every later append is a no-op, so a caller may
 * append many pieces and check once.  `max` bounds the content; passing it also sets `failed`.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	char *data; /* owned */
	size_t head, len, cap;
	size_t max; /* 0: no bound */
	bool failed;
};

/** buf_clear() - Forget the content and keep the memory; @b: any buffer, zeroed is valid */
void buf_clear(struct buf *b);
/** buf_free() - Release the memory and zero the struct; @b: any buffer or NULL */
void buf_free(struct buf *b);
/** buf_used() - Bytes of content; @b: any buffer */
size_t buf_used(const struct buf *b);
/** buf_peek() - Start of the content, valid until the next append; @b: any buffer; never NULL when buf_used() > 0 */
const char *buf_peek(const struct buf *b);
/** buf_consume() - Drop @n bytes from the front of @b; n <= buf_used(b) */
void buf_consume(struct buf *b, size_t n);
/**
 * buf_reserve() - Make room for @n more bytes behind the content of @b and return where they go
 *
 * Return: pointer to at least @n writable bytes, or NULL when out of memory or past max (b->failed is set)
 */
char *buf_reserve(struct buf *b, size_t n);
/** buf_commit() - Count @n bytes written behind the content of @b as content */
void buf_commit(struct buf *b, size_t n);
/** buf_append() - Copy @n bytes of @data to the end of @b; Return: 0 or -ENOMEM */
int buf_append(struct buf *b, const void *data, size_t n);
/** buf_puts() - Append the string @s without its NUL to @b; Return: 0 or -ENOMEM */
int buf_puts(struct buf *b, const char *s);
/** buf_printf() - Append formatted text to @b; Return: 0 or -ENOMEM */
int buf_printf(struct buf *b, const char *fmt, ...) SBX_PRINTF(2, 3);
/** buf_str() - NUL-terminate the content of @b and return it; "" when empty, NULL when b->failed */
const char *buf_str(struct buf *b);

static inline void cleanup_buf(struct buf *b)
{
	buf_free(b);
}
#define auto_buf __attribute__((cleanup(cleanup_buf))) struct buf

#endif
