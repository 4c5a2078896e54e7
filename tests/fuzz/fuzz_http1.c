// SPDX-License-Identifier: Apache-2.0
/* DOC: the HTTP/1.1 reader on arbitrary bytes: as a request, as a response, and their bodies in small steps. */
#include "base/http1.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void body(struct http1_body *b, const char *data, size_t n)
{
	size_t at = 0, end = 0;
	enum http1_result r = HTTP1_MORE;

	while (r == HTTP1_OK || (r == HTTP1_MORE && end < n)) {
		struct http1_span piece;
		size_t used;

		if (r == HTTP1_MORE)
			end = end + 7 > n ? n : end + 7;
		r = http1_body_next(b, data + at, end - at, &used, &piece);
		assert(used <= end - at && (size_t)piece.off + piece.len <= used);
		assert(r != HTTP1_OK || used || !piece.len);
		at += used;
	}
}

static void inside(const struct http1_head *head, size_t n)
{
	assert((size_t)head->target.off + head->target.len <= n && (size_t)head->host.off + head->host.len <= n);
	for (uint32_t i = 0; i < head->n_headers; i++) {
		assert((size_t)head->headers[i].name.off + head->headers[i].name.len <= n);
		assert((size_t)head->headers[i].value.off + head->headers[i].value.len <= n);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct http1_scan scan = {0}, slow = {0};
	struct http1_head head;
	struct http1_body b;
	enum http1_result r = http1_scan(&scan, text, size), r2 = HTTP1_MORE;

	for (size_t n = 0; n <= size && n < 2048 && r2 == HTTP1_MORE; n++)
		r2 = http1_scan(&slow, text, n);
	/* how the bytes arrived must not matter */
	assert(size >= 2048 || (r2 == r && slow.head_bytes == scan.head_bytes));
	if (r != HTTP1_OK)
		return 0;
	if (http1_request(&head, text, scan.head_bytes) == HTTP1_OK) {
		inside(&head, scan.head_bytes);
		assert(!((head.flags & HTTP1_CHUNKED) && (head.flags & HTTP1_HAS_LENGTH)));
		http1_body_of_request(&b, &head);
		body(&b, text + scan.head_bytes, size - scan.head_bytes);
	}
	if (http1_response(&head, text, scan.head_bytes) == HTTP1_OK) {
		inside(&head, scan.head_bytes);
		http1_body_of_response(&b, &head, false);
		body(&b, text + scan.head_bytes, size - scan.head_bytes);
	}
	return 0;
}
