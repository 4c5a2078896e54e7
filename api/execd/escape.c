// SPDX-License-Identifier: Apache-2.0
#include "api/execd/escape.h"

#include <stdbool.h>
#include <stdint.h>

size_t escape_utf8_cut(const char *text, size_t n)
{
	const uint8_t *s = (const uint8_t *)text;

	for (size_t back = 1; back <= 3 && back <= n; back++) {
		uint8_t lead = s[n - back];

		if ((lead & 0xc0) == 0x80)
			continue;
		size_t whole = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 1;
		return whole > back ? n - back : n;
	}
	return n;
}

static bool is_token(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '-' || c == '_' ||
	       c == '~';
}

static void percent_encode(struct buf *out, const char *name)
{
	for (const uint8_t *s = (const uint8_t *)name; *s; s++)
		if (is_token(*s))
			buf_append(out, s, 1);
		else
			buf_printf(out, "%%%02X", *s);
}

void escape_attachment(struct buf *out, const char *name)
{
	bool plain = true;

	for (const uint8_t *s = (const uint8_t *)name; *s; s++)
		plain = plain && *s >= 0x20 && *s < 0x7f && *s != '"' && *s != '\\' && *s != '%';
	buf_puts(out, "attachment; filename=\"");
	if (plain) {
		buf_puts(out, name);
		buf_puts(out, "\"");
		return;
	}
	percent_encode(out, name);
	buf_puts(out, "\"; filename*=UTF-8''");
	percent_encode(out, name);
}
