// SPDX-License-Identifier: Apache-2.0
/* A Range header applied to files of several sizes; the rest of the text goes through the line transform. */
#include "api/execd/range.h"

#include <assert.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t sizes[] = {0, 1, 10, 1u << 20, INT64_MAX, UINT64_MAX};
	struct range range;

	if (range_parse((const char *)data, size, &range) == 0)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			uint64_t first, n;

			if (range_resolve(&range, sizes[i], &first, &n) == 0)
				assert(first <= sizes[i] && n <= sizes[i] - first);
		}
	struct buf out = {.max = 1u << 20};
	struct range_lines lines = {0};
	for (size_t at = 0; at < size; at += 3)
		range_lines(&lines, (const char *)data + at, size - at < 3 ? size - at : 3, &out);
	assert(buf_used(&out) <= size + 1);
	buf_free(&out);
	return 0;
}
