// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_denied.h"

#include "base/cleanup.h"

#include <string.h>

#define CHUNK 1024u

/* The first byte behind a newline at or after @from. */
static uint32_t next_line(const struct agent_denied *log, uint32_t from)
{
	char chunk[CHUNK];

	while (from < log->bytes) {
		ssize_t n = pread(log->fd, chunk, sizeof(chunk), from);
		const char *end = n > 0 ? memchr(chunk, '\n', (size_t)n) : NULL;

		if (n <= 0)
			break;
		if (end)
			return from + (uint32_t)(end - chunk) + 1;
		from += (uint32_t)n;
	}
	return log->bytes;
}

static void drop_older_half(struct agent_denied *log)
{
	char chunk[CHUNK];
	uint32_t from = next_line(log, log->bytes / 2), to = 0;

	while (from < log->bytes) {
		ssize_t n = pread(log->fd, chunk, sizeof(chunk), from);

		if (n <= 0 || pwrite(log->fd, chunk, (size_t)n, to) != n)
			break;
		from += (uint32_t)n;
		to += (uint32_t)n;
	}
	if (ftruncate(log->fd, to) == 0)
		log->bytes = to;
}

void denied_append(struct agent_denied *log, const uint8_t *line, size_t n)
{
	if (log->fd < 0 || !n || line[n - 1] != '\n')
		return;
	if (log->bytes + n > AGENT_DENIED_BYTES)
		drop_older_half(log);
	if (log->bytes + n > AGENT_DENIED_BYTES)
		return;
	ssize_t done = pwrite(log->fd, line, n, log->bytes);
	if (done > 0)
		log->bytes += (uint32_t)done;
}
