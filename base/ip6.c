/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "base/ip6.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/num.h"

static const struct ip6_prefix never[] = {
	{{UINT64_C(0), 0}, 8},
	{{UINT64_C(0xfe80000000000000), 0}, 10},
	{{UINT64_C(0xff00000000000000), 0}, 8},
	{{UINT64_C(0xfd000ec200000000), 0}, 32},   /* metadata of AWS */
	{{UINT64_C(0xfd2000ce00000000), 0}, 64},   /* and of Google */
};

static const struct ip6_prefix private_ranges[] = {
	{{UINT64_C(0), 0}, 3},
	{{UINT64_C(0x4000000000000000), 0}, 2},
	{{UINT64_C(0x8000000000000000), 0}, 1},
	{{UINT64_C(0x2001000000000000), 0}, 23},
	{{UINT64_C(0x2002000000000000), 0}, 16},
};

static uint64_t keep_bits(uint64_t word, uint32_t bits)
{
	return bits >= 64 ? word : bits ? word & ~UINT64_C(0) << (64 - bits) : 0;
}

struct ip6 ip6_mask(struct ip6 a, uint32_t prefix)
{
	return (struct ip6){keep_bits(a.hi, prefix), prefix > 64 ? keep_bits(a.lo, prefix - 64) : 0};
}

bool ip6_in(struct ip6 a, const struct ip6_prefix *p)
{
	return ip6_same(ip6_mask(a, p->prefix), p->addr);
}

bool ip6_in_any(struct ip6 a, const struct ip6_prefix *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (ip6_in(a, &list[i]))
			return true;
	return false;
}

struct ip6 ip6_of_slot(const struct ip6_prefix *subnet, uint32_t addr)
{
	return (struct ip6){subnet->addr.hi, subnet->addr.lo | addr};
}

struct ip6 ip6_read(const void *wire)
{
	uint64_t word[2];

	memcpy(word, wire, sizeof(word));
	return (struct ip6){be64toh(word[0]), be64toh(word[1])};
}

void ip6_write(struct ip6 a, void *wire)
{
	const uint64_t word[2] = {htobe64(a.hi), htobe64(a.lo)};

	memcpy(wire, word, sizeof(word));
}

const char *ip6_text(struct ip6 a, char out[INET6_ADDRSTRLEN])
{
	uint8_t wire[16];

	ip6_write(a, wire);
	return inet_ntop(AF_INET6, wire, out, INET6_ADDRSTRLEN);
}

int ip6_parse(const char *text, struct ip6_prefix *ret)
{
	size_t n = strcspn(text, "/");
	char addr[INET6_ADDRSTRLEN];
	struct ip6_prefix p = {.prefix = IP6_PREFIX_MAX};
	uint8_t wire[16];

	if (n >= sizeof(addr))
		return -EINVAL;
	memcpy(addr, text, n);
	addr[n] = '\0';
	if (inet_pton(AF_INET6, addr, wire) != 1)
		return -EINVAL;
	if (text[n] && num_u32(text + n + 1, strlen(text + n + 1), IP6_PREFIX_MAX, &p.prefix) < 0)
		return -EINVAL;
	p.addr = ip6_read(wire);
	if (!ip6_in(p.addr, &p))
		return -EINVAL;
	*ret = p;
	return 0;
}

bool ip6_never(struct ip6 a)
{
	return ip6_in_any(a, never, ARRAY_SIZE(never));
}

bool ip6_private(struct ip6 a)
{
	return ip6_in_any(a, private_ranges, ARRAY_SIZE(private_ranges));
}

const struct ip6_prefix *ip6_never_list(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(never);
	return never;
}

const struct ip6_prefix *ip6_private_list(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(private_ranges);
	return private_ranges;
}

struct ip6 ip6_lan(struct ip6 a)
{
	return ip6_never(a) ? (struct ip6){0} : ip6_mask(a, IP6_LAN_BITS);
}

bool ip6_in_lan(struct ip6 a, const struct ip6 *lan, size_t n)
{
	const struct ip6 net = ip6_mask(a, IP6_LAN_BITS);

	for (size_t i = 0; i < n; i++)
		if (ip6_same(net, lan[i]))
			return true;
	return false;
}
