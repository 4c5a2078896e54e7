// SPDX-License-Identifier: Apache-2.0
/* The agent's reader of frames and of the requests in them: every view must lie within the bytes given. */
#include "runtime/agent/agent_spec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const char *s, uint32_t n, const uint8_t *data, size_t size)
{
	for (uint32_t i = 0; i < n; i++, s = spec_next(s))
		if ((const uint8_t *)s < data || (const uint8_t *)s + strlen(s) >= data + size)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct agent_frame f;
	const uint8_t *payload;
	struct spec_view v;
	struct spec_fs fs;

	for (size_t at = 0; at < size;) {
		int n = spec_frame(data + at, size - at, &f, &payload);

		if (n <= 0)
			break;
		if (payload + f.size > data + size)
			abort();
		at += (size_t)n;
	}
	for (int entrypoint = 0; entrypoint < 2; entrypoint++)
		if (!spec_read(data, size, entrypoint, &v)) {
			walk(v.cwd, 1, data, size);
			walk(v.args, v.spec.n_args, data, size);
			walk(v.env, v.spec.n_env, data, size);
		}
	if (!spec_read_fs(data, size, &fs)) {
		walk(fs.strings, fs.fs.n_strings, data, size);
		if ((const uint8_t *)fs.strings + fs.fs.string_bytes != data + size)
			abort();
	}
	return 0;
}
