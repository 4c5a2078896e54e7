// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_net.h"

#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"

#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#define LO_IFINDEX 1

/* ---- sysctls ---- */

struct sysctl {
	const char *path, *value; /* path NULL ends */
	bool optional;		  /* a kernel without IPv6 has none of these */
};

/* Ports from 0 on are free, every group of the sandbox may ping. */
static const struct sysctl always[] = {
	{"sys/net/ipv4/ip_unprivileged_port_start", "0", false},
	{"sys/net/ipv4/ping_group_range", "0 65535", false},
	{0},
};

/* eth0 has none; lo is up with ::1. */
static const struct sysctl no_ipv6[] = {{"sys/net/ipv6/conf/eth0/disable_ipv6", "1", true}, {0}};

/* It configures nothing by itself; addr_gen_mode 1 is "none". */
static const struct sysctl with_ipv6[] = {
	{"sys/net/ipv6/conf/eth0/addr_gen_mode", "1", false},
	{"sys/net/ipv6/conf/eth0/accept_ra", "0", false},
	{"sys/net/ipv6/conf/eth0/accept_redirects", "0", false},
	{0},
};

static int write_sysctls(int proc_fd, const struct sysctl *list)
{
	for (; list->path; list++) {
		auto_fd fd = openat(proc_fd, list->path, O_WRONLY | O_CLOEXEC);
		size_t n = strlen(list->value);

		if (fd < 0 && errno == ENOENT && list->optional)
			continue;
		if (fd < 0 || write(fd, list->value, n) != (ssize_t)n)
			return -errno;
	}
	return 0;
}

/* ---- netlink ---- */

struct batch {
	_Alignas(struct nlmsghdr) uint8_t bytes[1024];
	uint32_t n;
	struct nlmsghdr *head; /* of the message being built */
};

static void *begin(struct batch *b, uint16_t type, uint16_t flags, uint32_t body)
{
	b->head = (struct nlmsghdr *)(void *)(b->bytes + b->n);
	*b->head = (struct nlmsghdr){.nlmsg_len = (uint32_t)NLMSG_LENGTH(body), .nlmsg_type = type,
				     .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags), .nlmsg_seq = b->n + 1};
	b->n += (uint32_t)NLMSG_ALIGN(b->head->nlmsg_len);
	return (uint8_t *)b->head + NLMSG_HDRLEN;
}

static void attr(struct batch *b, uint16_t type, const void *data, uint16_t n)
{
	struct rtattr *a = (struct rtattr *)(void *)(b->bytes + b->n);

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(n);
	memcpy((uint8_t *)a + RTA_LENGTH(0), data, n);
	b->n += (uint32_t)RTA_ALIGN(a->rta_len);
	b->head->nlmsg_len = (uint32_t)(b->bytes + b->n - (uint8_t *)b->head);
}

static void link_up(struct batch *b, uint32_t ifindex, unsigned flags)
{
	struct ifinfomsg *m = begin(b, RTM_NEWLINK, 0, sizeof(*m));

	flags |= IFF_UP;
	*m = (struct ifinfomsg){.ifi_family = AF_UNSPEC, .ifi_index = (int)ifindex, .ifi_flags = flags, .ifi_change = flags};
}

static void build(struct batch *b, const struct launch_setup *s)
{
	uint32_t oif = s->peer_ifindex;

	/* name and hardware address are those that the broker made it with */
	link_up(b, LO_IFINDEX, 0);
	link_up(b, oif, IFF_NOARP);

	struct ifaddrmsg *a = begin(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*a));
	*a = (struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = oif};
	attr(b, IFA_LOCAL, &s->addr, 4);
	attr(b, IFA_ADDRESS, &s->addr, 4);

	/* nobody answers ARP on this link, and nobody may fill the neighbour table that all namespaces share */
	struct ndmsg *n = begin(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*n));
	*n = (struct ndmsg){.ndm_family = AF_INET, .ndm_ifindex = (int)oif, .ndm_state = NUD_PERMANENT};
	attr(b, NDA_DST, &s->gateway_addr, 4);
	attr(b, NDA_LLADDR, s->gateway_mac, 6);

	/* via the gateway, never scope link: with an on-link route each destination would be a neighbour of its own */
	struct rtmsg *r = begin(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*r));
	*r = (struct rtmsg){.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
			    .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST, .rtm_flags = RTNH_F_ONLINK};
	attr(b, RTA_OIF, &oif, 4);
	attr(b, RTA_GATEWAY, &s->gateway_addr, 4);
}

/* The same in IPv6.  NODAD: nobody else can have the address, and waiting for their silence would take a second. */
static void build6(struct batch *b, const struct launch_setup *s)
{
	uint32_t oif = s->peer_ifindex, flags = IFA_F_NODAD | IFA_F_PERMANENT;

	struct ifaddrmsg *a = begin(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*a));
	*a = (struct ifaddrmsg){.ifa_family = AF_INET6, .ifa_prefixlen = 128, .ifa_flags = IFA_F_NODAD | IFA_F_PERMANENT, .ifa_index = oif};
	attr(b, IFA_LOCAL, s->addr6, 16);
	attr(b, IFA_ADDRESS, s->addr6, 16);
	attr(b, IFA_FLAGS, &flags, 4);

	struct ndmsg *n = begin(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*n));
	*n = (struct ndmsg){.ndm_family = AF_INET6, .ndm_ifindex = (int)oif, .ndm_state = NUD_PERMANENT};
	attr(b, NDA_DST, s->gateway6, 16);
	attr(b, NDA_LLADDR, s->gateway_mac, 6);

	struct rtmsg *r = begin(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*r));
	*r = (struct rtmsg){.rtm_family = AF_INET6, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
			    .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST, .rtm_flags = RTNH_F_ONLINK};
	attr(b, RTA_OIF, &oif, 4);
	attr(b, RTA_GATEWAY, s->gateway6, 16);
}

/* Each request that fails is answered, and the last one always; the first error is the result, the other answers are still taken. */
static int read_answers(int fd, uint32_t last)
{
	_Alignas(struct nlmsghdr) uint8_t buf[4096];
	int first = 0;

	for (bool done = false; !done;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		for (uint8_t *at = buf; at + NLMSG_HDRLEN <= buf + n;) {
			struct nlmsghdr h;
			int32_t error;

			memcpy(&h, at, sizeof(h));
			if (h.nlmsg_len < NLMSG_HDRLEN || h.nlmsg_len > (size_t)(buf + n - at))
				return -EPROTO;
			if (h.nlmsg_type == NLMSG_ERROR && h.nlmsg_len >= NLMSG_HDRLEN + sizeof(error)) {
				memcpy(&error, at + NLMSG_HDRLEN, sizeof(error));
				done = done || h.nlmsg_seq == last;
				if (error && !first)
					first = error;
			}
			at += NLMSG_ALIGN(h.nlmsg_len);
		}
	}
	return first;
}

int net_setup(const struct launch_setup *setup, int proc_fd)
{
	struct batch b = {0};
	int r = write_sysctls(proc_fd, always);

	if (!r)
		r = write_sysctls(proc_fd, setup->ipv6 ? with_ipv6 : no_ipv6);
	if (r)
		return r;
	auto_fd fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	build(&b, setup);
	if (setup->ipv6)
		build6(&b, setup);
	b.head->nlmsg_flags |= NLM_F_ACK;
	if (send(fd, b.bytes, b.n, 0) != (ssize_t)b.n)
		return -errno;
	return read_answers(fd, b.head->nlmsg_seq);
}
