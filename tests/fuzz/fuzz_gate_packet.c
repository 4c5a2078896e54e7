/* SPDX-License-Identifier: Apache-2.0 */
/* A packet at the gate of TLS names: what was read lies within it, and a verdict leaves a header whose checksum fits. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "netpolicy/gate_packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gate_packet p, again;
	uint32_t sum = 0;
	uint8_t *copy;

	if (gate_packet_read(data, size, &p) < 0)
		return 0;
	assert(p.len <= size && p.seg.data >= data && p.seg.data + p.seg.len == data + p.len);
	copy = malloc(size);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	gate_packet_hops(copy, 66);
	/* TCP's checksum is not about the hop count. */
	assert(gate_packet_sum_fits(copy, &p) == gate_packet_sum_fits(data, &p));
	assert(gate_packet_read(copy, size, &again) == 0 && again.source == p.source && again.seg.seq == p.seg.seq && again.seg.len == p.seg.len);
	for (size_t i = 0; copy[0] >> 4 == 4 && i < 20; i += 2)
		sum += (uint32_t)copy[i] << 8 | copy[i + 1];
	assert(copy[0] >> 4 == 6 ? copy[7] == 66 : copy[8] == 66 && (sum & 0xffff) + (sum >> 16) == 0xffff);
	free(copy);
	return 0;
}
