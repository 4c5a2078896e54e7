// SPDX-License-Identifier: Apache-2.0
/* A pattern, a NUL and a path. */
#include "runtime/agent/agent_glob.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct glob g;
	const uint8_t *nul = memchr(data, 0, size);

	if (!nul || size > 2 * GLOB_PATTERN_BYTES)
		return 0;
	size_t rest = size - (size_t)(nul - data) - 1;
	char *path = malloc(rest + 1);
	if (!path)
		return 0;
	memcpy(path, nul + 1, rest);
	path[rest] = 0;
	if (!glob_compile((const char *)data, &g)) {
		bool hit = glob_match(&g, path);

		if (!strcmp((const char *)data, "**") && !hit)
			abort();
		glob_clear(&g);
	}
	free(path);
	return 0;
}
