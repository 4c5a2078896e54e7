// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/sockcut.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define WAIT_S 2

struct request {
	struct nlmsghdr head;
	struct inet_diag_req_v2 diag;
};

struct victims {
	sockcut_judge *judge;
	void *arg;
	struct inet_diag_req_v2 *list; /* owned */
	size_t n, room;
};

static int ask(int fd, uint16_t type, uint16_t flags, const struct inet_diag_req_v2 *diag)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct request req = {.head = {.nlmsg_len = sizeof(req), .nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)},
			      .diag = *diag};

	return sendto(fd, &req, sizeof(req), 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0 ? -errno : 0;
}

/* An IPv6 socket may speak IPv4 by mapped addresses. */
static bool ends_of(const struct inet_diag_msg *m, struct sockcut_ends *ret)
{
	static const uint32_t mapped[3] = {0, 0, UINT32_C(0xffff)};

	ret->near_port = ntohs(m->id.idiag_sport);
	ret->port = ntohs(m->id.idiag_dport);
	if (m->idiag_family == AF_INET6 &&
	    (m->id.idiag_dst[0] != mapped[0] || m->id.idiag_dst[1] != mapped[1] || m->id.idiag_dst[2] != htonl(mapped[2]))) {
		ret->addr6 = ip6_read(m->id.idiag_dst);
		return !ip6_none(ret->addr6);
	}
	ret->near_addr = ntohl(m->id.idiag_src[m->idiag_family == AF_INET6 ? 3 : 0]);
	ret->addr = ntohl(m->id.idiag_dst[m->idiag_family == AF_INET6 ? 3 : 0]);
	return ret->addr != 0;
}

static int take(struct victims *v, const struct inet_diag_msg *m, uint8_t protocol)
{
	struct sockcut_ends ends = {.protocol = protocol};

	if (!ends_of(m, &ends) || !v->judge(v->arg, &ends))
		return 0;
	if (v->n == v->room) {
		size_t room = v->room ? v->room * 2 : 64;
		struct inet_diag_req_v2 *more = reallocarray(v->list, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		v->list = more;
		v->room = room;
	}
	v->list[v->n++] = (struct inet_diag_req_v2){
		.sdiag_family = m->idiag_family, .sdiag_protocol = protocol, .idiag_states = UINT32_MAX, .id = m->id};
	return 0;
}

/* Reads answers up to the end of a dump or an acknowledgement; Return: 0 or -errno */
static int answers(int fd, struct victims *v, uint8_t protocol)
{
	static union {
		struct nlmsghdr head;
		uint8_t bytes[32768];
	} buf;

	for (;;) {
		ssize_t n = recv(fd, &buf, sizeof(buf), 0);
		unsigned left = n > 0 ? (unsigned)n : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		for (struct nlmsghdr *h = &buf.head; NLMSG_OK(h, left); h = (struct nlmsghdr *)(void *)NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((const struct nlmsgerr *)(const void *)((const uint8_t *)h + NLMSG_HDRLEN))->error;
			int r = v && h->nlmsg_len >= NLMSG_SPACE(sizeof(struct inet_diag_msg))
					? take(v, (const void *)((const uint8_t *)h + NLMSG_HDRLEN), protocol) : 0;
			if (r < 0)
				return r;
		}
	}
}

static int list_all(int fd, struct victims *v)
{
	static const uint8_t families[] = {AF_INET, AF_INET6}, protocols[] = {IPPROTO_TCP, IPPROTO_UDP};

	for (size_t f = 0; f < ARRAY_SIZE(families); f++)
		for (size_t p = 0; p < ARRAY_SIZE(protocols); p++) {
			const struct inet_diag_req_v2 req = {.sdiag_family = families[f], .sdiag_protocol = protocols[p],
							     .idiag_states = ~(1u << TCP_LISTEN | 1u << TCP_TIME_WAIT)};
			int r = ask(fd, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &req);

			r = r < 0 ? r : answers(fd, v, protocols[p]);
			if (r < 0 && r != -ENOENT) /* a kernel without IPv6 */
				return r;
		}
	return 0;
}

int sockcut_here(sockcut_judge *judge, void *arg)
{
	struct victims v = {.judge = judge, .arg = arg};
	struct timeval wait = {.tv_sec = WAIT_S};
	auto_fd fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	int ended = 0;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0)
		return -errno;
	int r = list_all(fd, &v);
	for (size_t i = 0; r == 0 && i < v.n; i++) {
		r = ask(fd, SOCK_DESTROY, NLM_F_ACK, &v.list[i]);
		r = r < 0 ? r : answers(fd, NULL, 0);
		ended += r == 0;
		if (r == -ENOENT) /* it ended by itself */
			r = 0;
	}
	free(v.list);
	return r < 0 ? r : ended;
}
