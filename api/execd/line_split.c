// SPDX-License-Identifier: Apache-2.0
#include "api/execd/line_split.h"

#include "api/execd/escape.h"
#include "base/limits.h"

#include <string.h>

static void line_over(struct line_split *s, const char *rest, size_t n, line_split_sink *sink, void *arg)
{
	if (!buf_used(&s->held)) {
		if (n || !s->in_pieces)
			sink(arg, rest, n);
	} else {
		buf_append(&s->held, rest, n);
		sink(arg, buf_peek(&s->held), buf_used(&s->held));
		buf_clear(&s->held);
	}
	s->in_pieces = false;
}

/* The bytes behind the last complete line wait here, a bounded number of them. */
static void hold(struct line_split *s, const char *data, size_t n, line_split_sink *sink, void *arg)
{
	while (n) {
		size_t room = LIMIT_EVENT_LINE_BYTES - buf_used(&s->held), part = n < room ? n : room;

		buf_append(&s->held, data, part);
		data += part;
		n -= part;
		if (buf_used(&s->held) < LIMIT_EVENT_LINE_BYTES)
			continue;
		size_t whole = escape_utf8_cut(buf_peek(&s->held), buf_used(&s->held));
		sink(arg, buf_peek(&s->held), whole);
		buf_consume(&s->held, whole);
		s->in_pieces = true;
	}
}

static const char *line_end(const char *from, const char *end)
{
	const char *lf = memchr(from, '\n', (size_t)(end - from));
	const char *cr = memchr(from, '\r', (size_t)((lf ? lf : end) - from));

	return cr ? cr : lf;
}

void line_split_feed(struct line_split *s, const char *data, size_t n, line_split_sink *sink, void *arg)
{
	const char *from = data, *end = data + n;

	while (from < end) {
		if (s->after_cr) {
			s->after_cr = false;
			if (*from == '\n') {
				from++;
				continue;
			}
		}
		const char *stop = line_end(from, end);
		if (!stop) {
			hold(s, from, (size_t)(end - from), sink, arg);
			return;
		}
		size_t length = (size_t)(stop - from);
		if (buf_used(&s->held) + length > LIMIT_EVENT_LINE_BYTES) {
			hold(s, from, length, sink, arg);
			from = stop;
			length = 0;
		}
		line_over(s, from, length, sink, arg);
		s->after_cr = *stop == '\r';
		from = stop + 1;
	}
}

void line_split_finish(struct line_split *s, line_split_sink *sink, void *arg)
{
	if (buf_used(&s->held))
		line_over(s, "", 0, sink, arg);
	line_split_clear(s);
}

void line_split_clear(struct line_split *s)
{
	buf_free(&s->held);
	*s = (struct line_split){0};
}
