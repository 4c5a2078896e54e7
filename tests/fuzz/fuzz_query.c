// SPDX-License-Identifier: Apache-2.0
/* Queries and paths as clients send them: every parameter and segment, decoded or refused, inside its bounds. */
#include "base/http_server.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(struct http_text text, bool plus)
{
	auto_free char *out = malloc(text.len + 1);
	char small[8];

	assert(out);
	ssize_t n = http_decode(text, plus, out, text.len + 1);
	/* a raw NUL cannot come: the reader of heads refuses it */
	assert(n == -EINVAL || (n >= 0 && (size_t)n <= text.len && (memchr(text.data, '\0', text.len) || strlen(out) == (size_t)n)));
	ssize_t cut = http_decode(text, plus, small, sizeof(small));
	assert(cut == n || cut == -ENAMETOOLONG || cut == -EINVAL);
	assert(cut < 0 || !memcmp(small, out, (size_t)n + 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_free char *text = malloc(size + 1); /* of exactly this size: a read behind it is found */
	const struct http_text whole = {text, size};
	struct http_text rest = whole, name, value;

	assert(text);
	memcpy(text, data, size);
	while (http_next_query(&rest, &name, &value)) {
		assert(name.data >= text && name.data + name.len <= text + size);
		assert(!value.data || (value.data >= text && value.data + value.len <= text + size));
		decode(name, true);
		if (value.data)
			decode(value, true);
	}
	for (int i = 0; i < 3; i++) {
		static const char *const names[] = {"path", "id", ""};
		char *one;

		if (http_query_get(whole, names[i], &one) == 0)
			free(one);
	}
	rest = whole;
	while (http_next_segment(&rest, &name)) {
		assert(name.data >= text && name.data + name.len <= text + size);
		decode(name, false);
	}
	return 0;
}
