/* SPDX-License-Identifier: Apache-2.0 */
/* The body of a SET; the first byte is the number of rules.  What is taken is written back byte for byte. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "netpolicy/policy_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_buf out = {0};
	struct policy *p;

	if (!size)
		return 0;
	p = policy_wire_read(data + 1, size - 1, data[0], false, NULL);
	if (!p)
		return 0;
	assert(policy_count(p) == data[0]);
	policy_decide_name(p, "www.a.test", 10);
	policy_wire_write(p, &out);
	assert(buf_used(&out) == size - 1 && (size == 1 || !memcmp(out.data + out.head, data + 1, size - 1)));
	policy_free(p);
	return 0;
}
