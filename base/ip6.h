/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: IPv6 addresses as two numbers
 *
 * In host byte order, so that prefixes are shifts and a struct of messages needs no conversion.  All zero is "none".  What a
 * sandbox is called in IPv6 follows from its IPv4 address: the low 32 bits of the one are the other.
 */
#ifndef BASE_IP6_H
#define BASE_IP6_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IP6_PREFIX_MAX 128u

struct ip6 {
	uint64_t hi, lo;
};

struct ip6_prefix {
	struct ip6 addr; /* host bits 0 */
	uint32_t prefix; /* bits */
};

static inline bool ip6_same(struct ip6 a, struct ip6 b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

static inline bool ip6_none(struct ip6 a)
{
	return !a.hi && !a.lo;
}

/** ip6_mask() - @a with the bits behind @prefix cleared */
struct ip6 ip6_mask(struct ip6 a, uint32_t prefix);
/** ip6_in() - Whether @a lies in @p */
bool ip6_in(struct ip6 a, const struct ip6_prefix *p);
/** ip6_in_any() - Whether @a lies in one of the @n of @list */
bool ip6_in_any(struct ip6 a, const struct ip6_prefix *list, size_t n);
/** ip6_of_slot() - Address within @subnet (at most 96 bits) of what has the IPv4 address @addr (host byte order) */
struct ip6 ip6_of_slot(const struct ip6_prefix *subnet, uint32_t addr);
/** ip6_read() - From the 16 bytes of a packet or socket address at @wire */
struct ip6 ip6_read(const void *wire);
/** ip6_write() - @a as the 16 bytes of a packet into @wire */
void ip6_write(struct ip6 a, void *wire);
/** ip6_text() - @a as people write it into @out; Return: @out */
const char *ip6_text(struct ip6 a, char out[INET6_ADDRSTRLEN]);
/** ip6_parse() - Read "fd00::/8" or "2001:db8::1" (then /128); host bits must be 0; Return: 0 or -EINVAL */
int ip6_parse(const char *text, struct ip6_prefix *ret);

/*
 * DOC: which addresses are nobody's internet
 *
 * Never: 0000::/8 (unspecified, loopback, forms of IPv4 addresses, NAT64), link-local, multicast, metadata services.  What a
 * rule or network.allow_private may name: everything else outside of 2000::/3 (private fc00::/7 above all), and in it the
 * IETF's own 2001::/23 (Teredo, benchmarks) and 6to4, which wraps IPv4 addresses.  Not in these lists, since each host has its
 * own: the networks of a host's interfaces, which are of the internet by their addresses and private by what they are (ip6_lan()).
 */

#define IP6_LAN_BITS 64u

/**
 * ip6_lan() - The network of 64 bits around a host's address @a, whatever prefix it was given; none for link-local ones
 *
 * A host that got a single address (DHCPv6, most clouds) has neighbours all the same.
 */
struct ip6 ip6_lan(struct ip6 a);
/** ip6_in_lan() - Whether @a lies in one of the @n networks @lan */
bool ip6_in_lan(struct ip6 a, const struct ip6 *lan, size_t n);

/** ip6_never() - Whether no rule opens @a */
bool ip6_never(struct ip6 a);
/** ip6_private() - Whether @a is closed until a rule or the configuration names it */
bool ip6_private(struct ip6 a);
/** ip6_never_list() - The prefixes of ip6_never() into @ret_n; for the packet filter's text */
const struct ip6_prefix *ip6_never_list(size_t *ret_n);
/** ip6_private_list() - The prefixes of ip6_private() into @ret_n */
const struct ip6_prefix *ip6_private_list(size_t *ret_n);

#endif
