// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_MIN_CAP 256u

void buf_clear(struct buf *b)
{
	b->head = b->len = 0;
	b->failed = false;
}

void buf_free(struct buf *b)
{
	if (!b)
		return;
	free(b->data);
	*b = (struct buf){.max = b->max};
}

size_t buf_used(const struct buf *b)
{
	return b->len - b->head;
}

const char *buf_peek(const struct buf *b)
{
	return b->data ? b->data + b->head : NULL; /* no arithmetic on NULL */
}

void buf_consume(struct buf *b, size_t n)
{
	b->head += n;
	if (b->head >= b->len)
		b->head = b->len = 0;
}

char *buf_reserve(struct buf *b, size_t n)
{
	size_t used = buf_used(b);

	if (b->failed || n > SIZE_MAX / 4 || (b->max && used + n > b->max)) {
		b->failed = true;
		return NULL;
	}
	if (b->data && b->cap - b->len >= n)
		return b->data + b->len;
	if (b->head) {
		memmove(b->data, b->data + b->head, used);
		b->head = 0;
		b->len = used;
		if (b->cap - b->len >= n)
			return b->data + b->len;
	}
	size_t cap = b->cap ? b->cap : BUF_MIN_CAP;
	while (cap - used < n)
		cap *= 2;
	char *data = realloc(b->data, cap);
	if (!data) {
		b->failed = true;
		return NULL;
	}
	b->data = data;
	b->cap = cap;
	return b->data + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
	b->len += n;
}

int buf_append(struct buf *b, const void *data, size_t n)
{
	if (!n)
		return b->failed ? -ENOMEM : 0;
	char *to = buf_reserve(b, n);
	if (!to)
		return -ENOMEM;
	memcpy(to, data, n);
	b->len += n;
	return 0;
}

int buf_puts(struct buf *b, const char *s)
{
	return buf_append(b, s, strlen(s));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *to = n < 0 ? NULL : buf_reserve(b, (size_t)n + 1);
	if (to) {
		vsnprintf(to, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
	return to ? 0 : -ENOMEM;
}

const char *buf_str(struct buf *b)
{
	char *end = buf_reserve(b, 1);

	if (!end)
		return NULL;
	*end = '\0';
	return b->data ? b->data + b->head : NULL; /* no arithmetic on NULL */
}
