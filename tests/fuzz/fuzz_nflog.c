/* SPDX-License-Identifier: Apache-2.0 */
/* A datagram of the kernel's packet log. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>

#include "netpolicy/dns_nflog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dns_packet p;
	size_t at = 0, before = 0;

	while (dns_nflog_read(data, size, &at, &p)) {
		assert(at > before && at <= size);
		before = at;
	}
	return 0;
}
