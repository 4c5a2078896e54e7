/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: packets at the gate of TLS names
 *
 * What the router's interface of the gate gives: IP packets of sandboxes, unchanged, perhaps hostile.  Read with care, and
 * written back with the verdict in their hop count, which the router's rules read and put right again.
 */
#ifndef NETPOLICY_GATE_PACKET_H
#define NETPOLICY_GATE_PACKET_H

#include "base/ip6.h"
#include "netpolicy/gate_flow.h"

struct gate_packet {
	uint32_t source, target; /* IPv4, host byte order; 0: the others */
	struct ip6 source6, target6;
	uint16_t source_port, port;
	struct gate_segment seg; /* borrows the packet; now_ms is the caller's */
	size_t len;		 /* of the packet; what is behind it was none of it */
};

/**
 * gate_packet_read() - Read a whole packet of TCP
 * @data:	The packet
 * @len:	Its length
 * @ret:	Filled on success
 *
 * Options of IP, extension headers and fragments are refused: the router lets none past.
 *
 * Return: 0 or -EBADMSG
 */
int gate_packet_read(const uint8_t *data, size_t len, struct gate_packet *ret);
/** gate_packet_sum_fits() - Whether the checksum of TCP in @data, which gate_packet_read() took as @p, is right */
bool gate_packet_sum_fits(const uint8_t *data, const struct gate_packet *p);
/** gate_packet_hops() - Set the hop count of the packet @data, which gate_packet_read() took, to @hops; its checksum fits again */
void gate_packet_hops(uint8_t *data, uint8_t hops);

#endif
