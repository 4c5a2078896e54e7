/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/gate_packet.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#define IPV4_HEAD 20u
#define IPV6_HEAD 40u
#define TCP_HEAD  20u

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

/* Return: length of IP's head and, in ret->len, of the packet; 0: refused */
static size_t read_ip(const uint8_t *p, size_t len, struct gate_packet *ret)
{
	if (len >= IPV4_HEAD && p[0] == 0x45) {
		ret->len = be16(p + 2);
		ret->source = be32(p + 12);
		ret->target = be32(p + 16);
		/* more fragments, or not the first one */
		return p[9] == IPPROTO_TCP && !(be16(p + 6) & 0x3fff) && ret->source && ret->target ? IPV4_HEAD : 0;
	}
	if (len >= IPV6_HEAD && p[0] >> 4 == 6) {
		ret->len = IPV6_HEAD + be16(p + 4);
		ret->source6 = ip6_read(p + 8);
		ret->target6 = ip6_read(p + 24);
		return p[6] == IPPROTO_TCP ? IPV6_HEAD : 0;
	}
	return 0;
}

int gate_packet_read(const uint8_t *data, size_t len, struct gate_packet *ret)
{
	const uint8_t *tcp;
	size_t head, tcp_head;

	memset(ret, 0, sizeof(*ret));
	head = read_ip(data, len, ret);
	if (!head || ret->len > len || ret->len < head + TCP_HEAD)
		return -EBADMSG;
	tcp = data + head;
	tcp_head = (size_t)(tcp[12] >> 4) * 4;
	if (tcp_head < TCP_HEAD || tcp_head > ret->len - head)
		return -EBADMSG;
	ret->source_port = be16(tcp);
	ret->port = be16(tcp + 2);
	ret->seg.seq = be32(tcp + 4);
	ret->seg.ack = be32(tcp + 8);
	ret->seg.flags = tcp[13];
	ret->seg.data = tcp + tcp_head;
	ret->seg.len = ret->len - head - tcp_head;
	return 0;
}

static uint64_t sum_of(const uint8_t *data, size_t n)
{
	uint64_t sum = n & 1 ? (uint64_t)data[n - 1] << 8 : 0;

	for (size_t i = 0; i + 1 < n; i += 2)
		sum += be16(data + i);
	return sum;
}

bool gate_packet_sum_fits(const uint8_t *data, const struct gate_packet *p)
{
	const size_t head = p->source ? IPV4_HEAD : IPV6_HEAD, addrs = p->source ? 8 : 32;
	/* The addresses stand at the end of IP's head. */
	uint64_t sum = sum_of(data + head - addrs, addrs + p->len - head) + IPPROTO_TCP + (p->len - head);

	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

void gate_packet_hops(uint8_t *data, uint8_t hops)
{
	uint64_t sum;

	if (data[0] >> 4 == 6) {
		data[7] = hops;
		return;
	}
	data[8] = hops;
	data[10] = data[11] = 0;
	sum = sum_of(data, IPV4_HEAD);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~(sum + (sum >> 16)) & 0xffff;
	data[10] = (uint8_t)(sum >> 8);
	data[11] = (uint8_t)sum;
}
