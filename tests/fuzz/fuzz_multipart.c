// SPDX-License-Identifier: Apache-2.0
/* First byte: how many bytes come at once.  Then the Content-Type up to a newline, then the body. */
#include "api/execd/multipart.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct multipart m;
	const uint8_t *line = size ? memchr(data + 1, '\n', size - 1) : NULL;
	size_t step = size ? data[0] + 1u : 1, window = step, at = 0, turns = 0;

	if (!line || multipart_init(&m, (const char *)data + 1, (size_t)(line - data - 1)) < 0)
		return 0;
	const char *body = (const char *)line + 1;
	size_t n = size - (size_t)(line + 1 - data);
	while (at < n) {
		size_t used = 0, len = n - at < window ? n - at : window;
		/* an exact copy, so that a read behind the window is seen */
		char *copy = malloc(len);
		if (!copy)
			return 0;
		memcpy(copy, body + at, len);
		enum multipart_event event = multipart_step(&m, copy, len, &used);
		assert(used <= len);
		if (event == MULTIPART_DATA)
			assert(m.n && m.n == used && m.data >= copy && m.data + m.n <= copy + len);
		assert(memchr(m.name, '\0', sizeof(m.name)));
		free(copy);
		if (event == MULTIPART_ERROR || event == MULTIPART_END)
			return 0;
		at += used;
		if (event != MULTIPART_NEED_MORE || used) {
			window = step;
			assert(++turns < 4 * size + 16); /* every step uses input or changes state */
		} else if (len == n - at) {
			return 0;
		} else {
			window += step;
		}
	}
	return 0;
}
