// SPDX-License-Identifier: Apache-2.0
/* DOC: the WebSocket reader on arbitrary bytes, as server and as client, whole and byte by byte: the same must come out. */
#include "base/cleanup.h"
#include "base/ws.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t digest(bool server, const uint8_t *data, size_t size, size_t step)
{
	struct ws_reader r;
	auto_free uint8_t *copy = malloc(size + 1);
	uint64_t sum = 5381;
	size_t at = 0, end = 0;
	enum ws_event e = WS_MORE;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	ws_reader_init(&r, server, 1 << 20);
	while (e != WS_BAD && (e != WS_MORE || end < size)) {
		struct ws_piece p = {0};
		size_t used;

		if (e == WS_MORE)
			end = end + step > size ? size : end + step;
		e = ws_read(&r, copy + at, end - at, &used, &p);
		assert(used <= end - at);
		at += used;
		if (e == WS_CONTROL)
			assert(p.n <= WS_CONTROL_MAX && p.opcode >= WS_CLOSE);
		for (size_t i = 0; i < p.n && e != WS_BAD; i++)
			sum = sum * 33 + p.data[i];
		if (e == WS_CONTROL || (e == WS_DATA && p.last))
			sum = sum * 33 + (unsigned)p.opcode + 256;
		if (e == WS_BAD)
			sum = sum * 33 + p.close_code;
	}
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int server = 0; server < 2; server++) {
		uint64_t whole = digest(server, data, size, size + 1), slow = digest(server, data, size, 1);

		assert(whole == slow);
	}
	return 0;
}
