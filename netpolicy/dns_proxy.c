/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP towards the sandboxes: messages are received and sent in batches, and who may ask is decided before anything is
 * parsed.  All sandboxes share the socket; the router holds each of them to its rate before it gets here.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#include "netpolicy/dnsd_int.h"

#define BATCH 64u

struct control {
	_Alignas(struct cmsghdr) uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
};

struct dns_proxy {
	struct dnsd *d;
	int fd, fd6; /* owned */
	struct loop_fd *source, *source6;
	unsigned n_out;
	struct mmsghdr in_msg[BATCH], out_msg[BATCH];
	struct iovec in_iov[BATCH], out_iov[BATCH];
	struct sockaddr_in in_from[BATCH], out_to[BATCH];
	struct control in_control[BATCH], out_control[BATCH];
	uint8_t in[BATCH][DNS_QUERY_MAX + 1];
	uint8_t out[BATCH][DNS_UDP_MAX];
};

/* ---- answers ---- */

void dns_proxy_flush(struct dns_proxy *p)
{
	unsigned sent = 0;

	while (p->fd >= 0 && sent < p->n_out) {
		int n = sendmmsg(p->fd, p->out_msg + sent, p->n_out - sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		/* One that cannot be sent (its sandbox is gone) does not hold up those behind it. */
		sent += n > 0 ? (unsigned)n : 1;
	}
	p->n_out = 0;
}

/* One by one: the name server that a sandbox is told has an IPv4 address, few ask by IPv6. */
static void reply6(const struct dns_proxy *p, const struct dns_asker *to, size_t len)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = {0};
	const struct in6_pktinfo info = {.ipi6_addr = to->via6};
	struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = to->from.sin_port};
	struct iovec iov = {p->d->out + 2, len};
	struct msghdr msg = {.msg_name = &at, .msg_namelen = sizeof(at), .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	ip6_write(ip6_of_slot(&p->d->settings.subnet6, ntohl(to->from.sin_addr.s_addr)), &at.sin6_addr);
	c->cmsg_level = IPPROTO_IPV6;
	c->cmsg_type = IPV6_PKTINFO;
	c->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(c), &info, sizeof(info));
	/* One that cannot be sent is asked for again. */
	ignore_result(p->fd6 >= 0 && sendmsg(p->fd6, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0);
}

void dns_proxy_reply(struct dns_proxy *p, const struct dns_asker *to, size_t len)
{
	struct in_pktinfo info = {.ipi_spec_dst = to->via};
	struct cmsghdr *c;
	unsigned i;

	if (to->over6) {
		reply6(p, to, len);
		return;
	}

	if (p->n_out == BATCH)
		dns_proxy_flush(p);
	i = p->n_out++;
	memcpy(p->out[i], p->d->out + 2, len);
	p->out_to[i] = to->from;
	p->out_iov[i] = (struct iovec){p->out[i], len};
	p->out_msg[i].msg_hdr = (struct msghdr){.msg_name = &p->out_to[i], .msg_namelen = sizeof(p->out_to[i]), .msg_iov = &p->out_iov[i],
						.msg_iovlen = 1, .msg_control = &p->out_control[i],
						.msg_controllen = sizeof(p->out_control[i])};
	c = CMSG_FIRSTHDR(&p->out_msg[i].msg_hdr);
	c->cmsg_level = IPPROTO_IP;
	c->cmsg_type = IP_PKTINFO;
	c->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(c), &info, sizeof(info));
}

void dns_reply(struct dnsd *d, const struct dns_asker *to, size_t len)
{
	if (!to->over_tcp)
		dns_proxy_reply(d->proxy, to, len);
	else if (to->conn)
		dns_tcp_reply(to->conn, len);
}

size_t dns_room(const struct dns_asker *to)
{
	return to->over_tcp ? DNS_ANSWER_MAX : to->query.udp_bytes;
}

/* ---- who may ask ---- */

struct dns_sandbox *dns_admit(struct dnsd *d, const struct sockaddr_in *from, uint32_t ifindex, bool *ret_over_rate)
{
	uint32_t addr = ntohl(from->sin_addr.s_addr);
	struct dns_sandbox *s = dns_sandboxes_find(d->sandboxes, addr);

	*ret_over_rate = false;
	d->counts.questions++;
	if (!s)
		return NULL;
	/* The router pins addresses to links; that both agree here is the second lock on the door. */
	if (ifindex && !s->ifindex)
		s->ifindex = ifindex;
	if (ifindex && s->ifindex != ifindex) {
		d->counts.wrong_link++;
		*ret_over_rate = true;
		return NULL;
	}
	if (!d->unlimited && !dns_bucket_take(&s->limits.questions, loop_now_ms(d->loop), DNS_RATE_PER_SECOND, DNS_RATE_BURST)) {
		struct dnsd_note note = {.kind = EGRESS_EVENT_RATE_LIMITED, .reason = EGRESS_REASON_LIMIT, .rule = EGRESS_NO_RULE,
					 .name = "", .text = "questions a second"};

		d->counts.rate_limited++;
		dnsd_event(d, s, &note);
		*ret_over_rate = true;
		return NULL;
	}
	return s;
}

/* ---- questions ---- */

/* @asker has everything but the question. */
static void question(struct dns_proxy *p, const uint8_t *data, size_t len, struct dns_asker *asker, uint32_t ifindex)
{
	struct dnsd *d = p->d;
	bool over;
	struct dns_sandbox *s = dns_admit(d, &asker->from, ifindex, &over);
	int r;

	if (over)
		return;
	asker->next = NULL;
	asker->conn = NULL;
	asker->over_tcp = false;
	r = dns_query_parse(data, len, &asker->query);
	if (r < 0)
		return;
	/* An address without a policy gets no name at all. */
	if (!r && !s)
		r = DNS_SERVFAIL;
	if (r > 0)
		dns_proxy_reply(p, asker, dns_error_build(&asker->query, (enum dns_rcode)r, DNS_EDE_NONE, d->out + 2));
	else
		dns_question(d, s, asker);
}

bool dns_source_of6(const struct dnsd *d, const struct sockaddr_in6 *from6, struct sockaddr_in *ret)
{
	struct ip6 addr = ip6_read(&from6->sin6_addr);

	if (from6->sin6_family != AF_INET6 || !ip6_in(addr, &d->settings.subnet6))
		return false;
	*ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = from6->sin6_port, .sin_addr.s_addr = htonl((uint32_t)addr.lo)};
	return true;
}

static void udp6_ready(void *arg, int fd, uint32_t events)
{
	struct dns_proxy *p = arg;

	(void)events;
	for (unsigned i = 0; i < BATCH; i++) {
		_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct in6_pktinfo))];
		struct sockaddr_in6 from;
		struct iovec iov = {p->in[0], sizeof(p->in[0])};
		struct msghdr h = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				   .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(fd, &h, MSG_DONTWAIT);
		struct in6_pktinfo via = {0};
		struct dns_asker asker = {.over6 = true};

		if (n < 0)
			break;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c))
			if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
				memcpy(&via, CMSG_DATA(c), sizeof(via));
		asker.via6 = via.ipi6_addr;
		if (dns_source_of6(p->d, &from, &asker.from))
			question(p, p->in[0], (size_t)n, &asker, via.ipi6_ifindex);
	}
	dnsd_turn(p->d);
}

static void udp_ready(void *arg, int fd, uint32_t events)
{
	struct dns_proxy *p = arg;
	struct dnsd *d = p->d;
	int n;

	(void)events;
	for (unsigned i = 0; i < BATCH; i++) {
		p->in_msg[i].msg_hdr.msg_namelen = sizeof(p->in_from[i]);
		p->in_msg[i].msg_hdr.msg_controllen = sizeof(p->in_control[i]);
	}
	n = recvmmsg(fd, p->in_msg, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		struct msghdr *h = &p->in_msg[i].msg_hdr;
		struct in_pktinfo via = {0};
		struct dns_asker asker;

		for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
			if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
				memcpy(&via, CMSG_DATA(c), sizeof(via));
		if (p->in_from[i].sin_family != AF_INET)
			continue;
		asker.over6 = false;
		asker.from = p->in_from[i];
		asker.via = via.ipi_spec_dst;
		question(p, p->in[i], p->in_msg[i].msg_len, &asker, (uint32_t)via.ipi_ifindex);
	}
	dnsd_turn(d);
}

/* ---- life ---- */

struct dns_proxy *dns_proxy_new(struct dnsd *d, struct sbx_err *err)
{
	struct dns_proxy *p = calloc(1, sizeof(*p));

	if (!p) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "name server");
		return NULL;
	}
	p->d = d;
	p->fd = p->fd6 = -1;
	for (unsigned i = 0; i < BATCH; i++) {
		p->in_iov[i] = (struct iovec){p->in[i], sizeof(p->in[i])};
		p->in_msg[i].msg_hdr = (struct msghdr){.msg_name = &p->in_from[i], .msg_iov = &p->in_iov[i], .msg_iovlen = 1,
						       .msg_control = &p->in_control[i]};
	}
	return p;
}

static void stop(struct dns_proxy *p)
{
	loop_fd_remove(p->source);
	p->source = NULL;
	replace_fd(&p->fd, -1);
}

void dns_proxy_free(struct dns_proxy *p)
{
	if (!p)
		return;
	stop(p);
	loop_fd_remove(p->source6);
	close_keep_errno(p->fd6);
	free(p);
}

int dns_proxy_listen6(struct dns_proxy *p, int udp_fd, struct sbx_err *err)
{
	auto_fd udp = udp_fd;
	struct loop_fd *source = loop_fd_add(p->d->loop, udp, EPOLLIN, udp6_ready, p);

	if (!source)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "serve the name server's IPv6 UDP socket");
	loop_fd_remove(p->source6);
	replace_fd(&p->fd6, take_fd(&udp));
	p->source6 = source;
	return 0;
}

int dns_proxy_listen(struct dns_proxy *p, int udp_fd, struct sbx_err *err)
{
	auto_fd udp = udp_fd;
	struct loop_fd *source = loop_fd_add(p->d->loop, udp, EPOLLIN, udp_ready, p);

	if (!source)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "serve the name server's UDP socket");
	/* What waits in the old socket is answered through it: nobody asks for it again before seconds have passed. */
	if (p->fd >= 0)
		udp_ready(p, p->fd, 0);
	dns_proxy_flush(p);
	stop(p);
	p->fd = take_fd(&udp);
	p->source = source;
	return 0;
}
