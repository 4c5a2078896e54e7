// SPDX-License-Identifier: Apache-2.0
/*
 * Frames of a code driver: whatever arrives, and however it is cut, the decoder hands on the same frames, and each list in
 * them becomes an event of bounded length that is valid JSON.
 */
#include "api/execd/code_events.h"
#include "base/jv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	size_t n;
	uint64_t sum;
};

static int sink(void *arg, char type, const uint8_t *payload, size_t n)
{
	struct seen *s = arg;
	struct code_list list = {payload, payload + n};
	auto_buf event = {0};
	struct sbx_err err;

	s->n++;
	s->sum = s->sum * 31 + (uint8_t)type;
	for (size_t i = 0; i < n; i++)
		s->sum = s->sum * 31 + payload[i];
	code_event_result(&event, list, 1);
	assert(!event.failed);
	if (code_list_check(list))
		code_event_error(&event, "a", 1, (const char *)payload, n, list, 1);
	for (char *at = event.data + event.head, *end; at && at < event.data + event.len; at = end + 2) {
		end = memmem(at, (size_t)(event.data + event.len - at), "\n\n", 2);
		assert(end && (size_t)(end - at) <= CODE_EVENT_BYTES);
		/* JSON that we write may hold more than JSON that we read, but never another line */
		assert(!memchr(at, '\n', (size_t)(end - at)));
		if (end - at < 4096)
			assert(jv_check(at, (size_t)(end - at), &err) == 0 || strstr(err.msg, "\\u0000") || memmem(at, (size_t)(end - at), "\\u0000", 6));
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct code_frames whole = {{0}}, pieces = {{0}};
	struct seen a = {0}, b = {0};

	int ra = code_frames_feed(&whole, data, size, sink, &a), rb = 0;
	for (size_t i = 0; i < size && !rb; i++)
		rb = code_frames_feed(&pieces, data + i, 1, sink, &b);
	assert(ra == rb && a.n == b.n && a.sum == b.sum);
	code_frames_clear(&whole);
	code_frames_clear(&pieces);
	return 0;
}
