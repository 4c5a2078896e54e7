// SPDX-License-Identifier: Apache-2.0
/* A name from an archive that is accepted must be relative, without "..", and stay as it is when it is cleaned again. */
#include "base/limits.h"
#include "images/tree_writer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *name = malloc(size + 1);
	char out[LIMIT_PATH_BYTES];
	char again[LIMIT_PATH_BYTES];
	struct sbx_err err;

	if (!name)
		return 0;
	memcpy(name, data, size);
	name[size] = '\0';
	if (tree_path_clean(name, out, &err) < 0) {
		assert(err.code == SBX_E_IMAGE_INVALID);
	} else {
		size_t depth = 0;

		assert(out[0] != '/' && strlen(out) < sizeof(out));
		for (const char *part = out; *part; depth++) {
			size_t n = strcspn(part, "/");

			assert(n > 0 && n <= 255);
			assert(!(n == 1 && part[0] == '.') && !(n == 2 && part[0] == '.' && part[1] == '.'));
			part += n;
			assert(!*part || part[1]); /* no slash at the end */
			part += *part == '/';
		}
		assert(depth <= TREE_MAX_DEPTH);
		assert(tree_path_clean(out, again, &err) == 0 && !strcmp(out, again));
	}
	free(name);
	return 0;
}
