// SPDX-License-Identifier: Apache-2.0
#include "api/execd/range.h"

#include "base/num.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

static void trim(const char **text, size_t *n)
{
	while (*n && (**text == ' ' || **text == '\t')) {
		++*text;
		--*n;
	}
	while (*n && ((*text)[*n - 1] == ' ' || (*text)[*n - 1] == '\t'))
		--*n;
}

int range_parse(const char *text, size_t n, struct range *ret)
{
	struct range range = {.kind = RANGE_FROM, .last = UINT64_MAX};
	const char *comma, *dash;

	trim(&text, &n);
	if (n < 6 || strncasecmp(text, "bytes=", 6))
		return -EINVAL;
	text += 6;
	n -= 6;
	comma = memchr(text, ',', n);
	if (comma)
		n = (size_t)(comma - text);
	trim(&text, &n);
	dash = memchr(text, '-', n);
	if (!dash)
		return -EINVAL;
	size_t n_first = (size_t)(dash - text), n_last = n - n_first - 1;
	if (!n_first) {
		range.kind = RANGE_LAST;
		if (num_u64(dash + 1, n_last, UINT64_MAX - 1, &range.last) < 0)
			return -EINVAL;
	} else {
		if (num_u64(text, n_first, UINT64_MAX - 1, &range.first) < 0 ||
		    (n_last && num_u64(dash + 1, n_last, UINT64_MAX - 1, &range.last) < 0) || range.last < range.first)
			return -EINVAL;
	}
	*ret = range;
	return 0;
}

int range_resolve(const struct range *range, uint64_t size, uint64_t *ret_first, uint64_t *ret_n)
{
	*ret_first = 0;
	*ret_n = size;
	if (range->kind == RANGE_ALL || !size)
		return 0;
	if (range->kind == RANGE_LAST) {
		*ret_n = range->last < size ? range->last : size;
		*ret_first = size - *ret_n;
		return range->last ? 0 : -ERANGE;
	}
	if (range->first >= size)
		return -ERANGE;
	*ret_first = range->first;
	*ret_n = (range->last < size ? range->last + 1 : size) - range->first;
	return 0;
}

void range_lines(struct range_lines *s, const char *data, size_t n, struct buf *out)
{
	for (const char *end = data + n; data < end;) {
		if (!s->in_line) {
			if (s->started)
				buf_append(out, "\n", 1);
			s->started = s->in_line = true;
		}
		if (*data == '\n') {
			s->held_cr = 0;
			s->in_line = false;
			data++;
			continue;
		}
		if (*data == '\r') {
			s->held_cr++;
			data++;
			continue;
		}
		for (; s->held_cr; s->held_cr--)
			buf_append(out, "\r", 1);
		const char *stop = data;
		while (stop < end && *stop != '\n' && *stop != '\r')
			stop++;
		buf_append(out, data, (size_t)(stop - data));
		data = stop;
	}
}
