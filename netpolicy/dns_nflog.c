/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/dns_nflog.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#define PREFIX	     "sbx"
#define PREFIX_BYTES (sizeof(PREFIX) - 1)

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

/* "sbx" and two digits, with or without a NUL */
static bool read_prefix(const uint8_t *p, size_t n, struct dns_packet *ret)
{
	n -= n && !p[n - 1];
	if (n != PREFIX_BYTES + 2 || memcmp(p, PREFIX, PREFIX_BYTES) != 0)
		return false;
	for (size_t i = PREFIX_BYTES; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		ret->refusal = ret->refusal * 10 + (uint32_t)(p[i] - '0');
	}
	return true;
}

static bool read_packet(const uint8_t *p, size_t n, struct dns_packet *ret)
{
	size_t head;

	if (n >= 40 && p[0] >> 4 == 6) {
		/* The router lets no extension header past: what follows the fixed header is it. */
		ret->protocol = p[6];
		ret->source = be32(p + 20);
		ret->target6 = ip6_read(p + 24);
		if ((ret->protocol == IPPROTO_TCP || ret->protocol == IPPROTO_UDP) && n >= 44)
			ret->port = be16(p + 42);
		return true;
	}
	if (n < 20 || p[0] >> 4 != 4)
		return false;
	head = (size_t)(p[0] & 15) * 4;
	if (head < 20 || head > n)
		return false;
	ret->protocol = p[9];
	ret->source = be32(p + 12);
	ret->target = be32(p + 16);
	/* Only the first fragment has ports. */
	if ((ret->protocol == IPPROTO_TCP || ret->protocol == IPPROTO_UDP || ret->protocol == IPPROTO_SCTP) && !(be16(p + 6) & 0x1fff) &&
	    n >= head + 4)
		ret->port = be16(p + head + 2);
	return true;
}

static bool read_attributes(const uint8_t *p, size_t n, struct dns_packet *ret)
{
	bool prefix = false, packet = false;

	while (n >= sizeof(struct nlattr)) {
		struct nlattr a;
		size_t step, len;

		memcpy(&a, p, sizeof(a));
		if (a.nla_len < sizeof(a) || a.nla_len > n)
			return false;
		len = a.nla_len - sizeof(a);
		if ((a.nla_type & NLA_TYPE_MASK) == NFULA_PREFIX) {
			if (prefix || !read_prefix(p + sizeof(a), len, ret))
				return false;
			prefix = true;
		} else if ((a.nla_type & NLA_TYPE_MASK) == NFULA_PAYLOAD) {
			if (packet || !read_packet(p + sizeof(a), len, ret))
				return false;
			packet = true;
		}
		step = NLA_ALIGN(a.nla_len);
		if (step >= n)
			break;
		p += step;
		n -= step;
	}
	return prefix && packet;
}

int dns_nflog_read(const uint8_t *data, size_t len, size_t *at, struct dns_packet *ret)
{
	while (*at < len) {
		const uint8_t *p = data + *at;
		size_t left = len - *at;
		struct nlmsghdr h;

		memset(ret, 0, sizeof(*ret));
		if (left < sizeof(h)) {
			*at = len;
			return -EBADMSG;
		}
		memcpy(&h, p, sizeof(h));
		if (h.nlmsg_len < sizeof(h) || h.nlmsg_len > left) {
			*at = len;
			return -EBADMSG;
		}
		*at = NLMSG_ALIGN(h.nlmsg_len) >= left ? len : *at + NLMSG_ALIGN(h.nlmsg_len);
		if (h.nlmsg_type == NLMSG_DONE)
			continue;
		if (h.nlmsg_type != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET) || h.nlmsg_len < sizeof(h) + sizeof(struct nfgenmsg))
			return -EBADMSG;
		p += sizeof(h) + sizeof(struct nfgenmsg);
		return read_attributes(p, h.nlmsg_len - sizeof(h) - sizeof(struct nfgenmsg), ret) ? 1 : -EBADMSG;
	}
	return 0;
}
