/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's stream: read whole, from each of its prefixes, and through a flow in segments whose sizes the first byte says.  What a
 * prefix was found to be stays so when more comes.
 */
#include "config.h"

#include <assert.h>
#include <string.h>

#include "base/limits.h"
#include "netpolicy/gate_flow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_prefixes(const uint8_t *data, size_t size)
{
	struct tls_hello whole, part;
	size_t at = 0;

	tls_hello_read(data, size, &whole);
	for (size_t n = 0; n < size; n += size > 512 ? 31 : 1) {
		tls_hello_read(data, n, &part);
		assert(part.used <= n && part.name_len == strlen(part.name));
		assert(part.found == TLS_HELLO_MORE || (part.found == whole.found && part.used == whole.used && !strcmp(part.name, whole.name)));
	}
	if (whole.used)
		(void)tls_hello_after(data + whole.used, size - whole.used, whole.early_data, &at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gate_flow f = {0};
	size_t each = size ? data[0] % 64 + 1u : 1, passed = 0;

	if (size < 2)
		return 0;
	data++;
	size--;
	read_prefixes(data, size);
	gate_flow_begin(&f, 1, 0);
	for (size_t at = 0; at < size; at += each) {
		struct gate_segment seg = {.seq = 2 + (uint32_t)at, .ack = (uint32_t)(at / 100), .flags = GATE_ACK, .data = data + at,
					   .len = size - at < each ? size - at : each};
		enum gate_said said = gate_flow_segment(&f, &seg, LIMIT_GATE_STREAM);

		if (said == GATE_JUDGE) {
			assert(f.hello.found != TLS_HELLO_MORE);
			if (f.hello.found == TLS_HELLO_BAD || f.hello.found == TLS_HELLO_OTHER)
				break;
			said = gate_flow_allowed(&f, true, 0);
		}
		if (said != GATE_PASS)
			break;
		passed += seg.len;
		assert(f.n == passed);
	}
	gate_flow_clear(&f);
	return 0;
}
