/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/dns_random.h"

#include <assert.h>
#include <string.h>

#include "base/num.h"

static uint8_t block[4096];
static size_t used = sizeof(block);

void dns_random(void *out, size_t n)
{
	assert(n <= 256);
	if (sizeof(block) - used < n) {
		random_bytes(block, sizeof(block));
		used = 0;
	}
	memcpy(out, block + used, n);
	explicit_bzero(block + used, n);
	used += n;
}

uint32_t dns_random_below(uint32_t end)
{
	uint32_t n;

	dns_random(&n, sizeof(n));
	/* The bias of 2^32 over at most 2^16 is below 0.002 %. */
	return n % end;
}
