// SPDX-License-Identifier: Apache-2.0
#include "base/http_server.h"

#include "base/cleanup.h"
#include "base/num.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

int http_header_add(struct buf *b, const char *name, const char *value, size_t value_len)
{
	for (size_t i = 0; i < value_len; i++) {
		unsigned char u = (unsigned char)value[i];
		if ((u < 0x20 && u != '\t') || u == 0x7f)
			return -EINVAL;
	}
	buf_puts(b, name);
	buf_puts(b, ": ");
	buf_append(b, value, value_len);
	return buf_puts(b, "\r\n");
}

bool http_text_is(struct http_text text, const char *s)
{
	size_t n = strlen(s);

	return text.data && text.len == n && !memcmp(text.data, s, n);
}

bool http_text_is_nocase(struct http_text text, const char *s)
{
	return text.data && text.len == strlen(s) && !strncasecmp(text.data, s, text.len);
}

char *http_text_dup(struct http_text text)
{
	char *s = malloc(text.len + 1);

	if (!s)
		return NULL;
	if (text.len)
		memcpy(s, text.data, text.len);
	s[text.len] = '\0';
	return s;
}

bool http_next_segment(struct http_text *path, struct http_text *ret_segment)
{
	if (!path->len || path->data[0] != '/')
		return false;
	const char *start = path->data + 1;
	size_t rest = path->len - 1;
	const char *slash = rest ? memchr(start, '/', rest) : NULL;
	size_t n = slash ? (size_t)(slash - start) : rest;

	*ret_segment = (struct http_text){start, n};
	*path = (struct http_text){start + n, rest - n};
	return true;
}

ssize_t http_decode(struct http_text text, bool plus, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];

		if (n + 1 >= size)
			return -ENAMETOOLONG;
		if (c == '%') {
			int high = i + 2 < text.len ? hex_digit(text.data[i + 1]) : -1;
			int low = i + 2 < text.len ? hex_digit(text.data[i + 2]) : -1;
			if (i + 2 >= text.len)
				return -EINVAL;
			if (high < 0 || low < 0 || (high == 0 && low == 0))
				return -EINVAL;
			c = (char)(high << 4 | low);
			i += 2;
		} else if (c == '+' && plus) {
			c = ' ';
		}
		out[n++] = c;
	}
	if (n >= size)
		return -ENAMETOOLONG;
	out[n] = '\0';
	return (ssize_t)n;
}

bool http_next_query(struct http_text *query, struct http_text *ret_name, struct http_text *ret_value)
{
	while (query->len && query->data[0] == '&') {
		query->data++;
		query->len--;
	}
	if (!query->len)
		return false;
	const char *amp = memchr(query->data, '&', query->len);
	size_t n = amp ? (size_t)(amp - query->data) : query->len;
	const char *eq = memchr(query->data, '=', n);
	size_t name_len = eq ? (size_t)(eq - query->data) : n;

	*ret_name = (struct http_text){query->data, name_len};
	*ret_value = eq ? (struct http_text){eq + 1, n - name_len - 1} : HTTP_NO_TEXT;
	query->data += n;
	query->len -= n;
	return true;
}

int http_query_get(struct http_text query, const char *name, char **ret_value)
{
	struct http_text raw_name, raw_value;

	*ret_value = NULL;
	while (http_next_query(&query, &raw_name, &raw_value)) {
		auto_free char *decoded = malloc(raw_name.len + 1);
		if (!decoded)
			return -ENOMEM;
		ssize_t n = http_decode(raw_name, true, decoded, raw_name.len + 1);
		if (n < 0)
			return (int)n;
		if (strcmp(decoded, name) != 0)
			continue;
		char *value = malloc(raw_value.len + 1);
		if (!value)
			return -ENOMEM;
		n = http_decode(raw_value, true, value, raw_value.len + 1);
		if (n < 0) {
			free(value);
			return (int)n;
		}
		*ret_value = value;
		return 0;
	}
	return 0;
}
