/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forwarder.  A `pending` is one question on its way; it holds one upstream socket at a time and belongs either to a
 * UDP asker (address kept) or to a TCP connection (pointer, cleared when that one goes).
 */
#include "config.h"

#include "netpolicy/dns_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/num.h"

#include "netpolicy/dns_msg.h"

/* Resolvers inside give up after 5 s: four tries fit. */
#define TRY_MS	      1100u
#define TRIES	      4u
#define TCP_IDLE_MS   10000u
#define FORGED_MAX    16u /* wrong answers on one socket before it is given up */
#define BATCH	      32u /* messages of one listener in a turn of the loop */
#define RATE_BUCKETS  4096u

struct connection;

struct pending {
	struct pending *next, *prev; /* list of all */
	struct dns_proxy *proxy;
	struct dns_query query;
	struct sockaddr_in from;
	struct in_pktinfo via;	     /* how the question came, so the answer leaves the same way */
	struct connection *conn;     /* NULL: over UDP, or the connection is gone */
	bool over_tcp;		     /* asked over TCP by the sandbox */
	uint16_t id;
	unsigned tries, forged;
	size_t server;
	int fd; /* owned */
	struct loop_fd *source;
	struct loop_timer *timer;
	bool upstream_tcp;
	uint8_t *tcp; /* owned; answer over TCP with its two length bytes */
	size_t tcp_have, tcp_sent;
};

struct connection {
	struct connection *next, *prev;
	struct dns_proxy *proxy;
	struct sockaddr_in from;
	int fd; /* owned */
	struct loop_fd *source;
	struct loop_timer *timer;
	struct pending *asking; /* one question at a time; the rest waits in the socket */
	uint8_t in[2 + DNS_QUERY_MAX];
	size_t have;
	uint8_t *out; /* owned; what could not be sent at once */
	size_t out_len, out_at;
};

struct bucket {
	uint32_t addr;
	uint32_t tokens;
	uint64_t filled_ms;
};

struct dns_proxy {
	struct loop *loop;
	struct dns_upstreams *upstreams;
	int udp_fd, tcp_fd; /* owned */
	struct loop_fd *udp_source, *tcp_source;
	struct pending *pending;
	struct connection *connections;
	size_t n_pending, n_connections, next_server;
	struct dns_proxy_counts counts;
	struct bucket bucket[RATE_BUCKETS];
	uint64_t bucket_key;
	uint8_t answer[DNS_ANSWER_MAX + 2];
};

static void ask_next(struct pending *p);
static void connection_close(struct connection *c);
static void connection_serve(struct connection *c);

/* ---- shares ---- */

/* Sources that fall into one bucket take it from each other, which only makes the rate of a flood more generous to it. */
static bool within_rate(struct dns_proxy *proxy, uint32_t addr)
{
	uint64_t hash = (addr ^ proxy->bucket_key) * UINT64_C(0x9e3779b97f4a7c15), now = loop_now_ms(proxy->loop), fresh;
	struct bucket *b = &proxy->bucket[hash >> 52];

	if (b->addr != addr) {
		b->addr = addr;
		b->tokens = DNS_RATE_BURST;
		b->filled_ms = now;
	}
	fresh = (now - b->filled_ms) * DNS_RATE_PER_SECOND / 1000;
	if (fresh) {
		b->tokens = fresh + b->tokens > DNS_RATE_BURST ? DNS_RATE_BURST : b->tokens + (uint32_t)fresh;
		b->filled_ms = now;
	}
	if (!b->tokens)
		return false;
	b->tokens--;
	return true;
}

static size_t pending_of(const struct dns_proxy *proxy, uint32_t addr)
{
	size_t n = 0;

	for (const struct pending *p = proxy->pending; p; p = p->next)
		n += p->from.sin_addr.s_addr == addr;
	return n;
}

/* ---- answers to the sandbox ---- */

static void send_udp(struct dns_proxy *proxy, const struct pending *p, const uint8_t *data, size_t len)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control = {0};
	struct sockaddr_in to = p->from;
	struct in_pktinfo info = {.ipi_spec_dst = p->via.ipi_spec_dst};
	struct msghdr msg = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = IPPROTO_IP;
	c->cmsg_type = IP_PKTINFO;
	c->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(c), &info, sizeof(info));
	/* A full buffer or a sandbox that is gone: the asker asks again, or does not. */
	if (proxy->udp_fd >= 0)
		ignore_result(sendmsg(proxy->udp_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0);
}

static void send_tcp(struct connection *c, uint8_t *with_length, size_t len)
{
	ssize_t n;

	with_length[0] = (uint8_t)(len >> 8);
	with_length[1] = (uint8_t)len;
	len += 2;
	n = send(c->fd, with_length, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		connection_close(c);
		return;
	}
	loop_timer_arm(c->timer, TCP_IDLE_MS);
	if (n < 0)
		n = 0;
	if ((size_t)n == len)
		return;
	c->out = malloc(len - (size_t)n);
	if (!c->out) {
		connection_close(c);
		return;
	}
	c->out_len = len - (size_t)n;
	c->out_at = 0;
	memcpy(c->out, with_length + n, c->out_len);
	loop_fd_events(c->source, EPOLLOUT);
}

static void pending_free(struct pending *p)
{
	struct dns_proxy *proxy = p->proxy;

	loop_fd_remove(p->source);
	close_keep_errno(p->fd);
	loop_timer_free(p->timer);
	if (p->prev)
		p->prev->next = p->next;
	else
		proxy->pending = p->next;
	if (p->next)
		p->next->prev = p->prev;
	proxy->n_pending--;
	free(p->tcp);
	free(p);
}

/* Gives @len bytes at proxy->answer + 2 to the asker and ends the question. */
static void finish(struct pending *p, size_t len)
{
	struct dns_proxy *proxy = p->proxy;
	struct connection *c = p->conn;

	if (!p->over_tcp)
		send_udp(proxy, p, proxy->answer + 2, len);
	if (c)
		c->asking = NULL;
	pending_free(p);
	if (c) {
		send_tcp(c, proxy->answer, len);
		connection_serve(c);
	}
}

static void finish_error(struct pending *p, enum dns_rcode rcode)
{
	p->proxy->counts.failures++;
	finish(p, dns_error_build(&p->query, rcode, p->proxy->answer + 2));
}

static void finish_answer(struct pending *p, const uint8_t *data, const struct dns_answer *answer)
{
	p->proxy->counts.answers++;
	p->proxy->next_server = p->server;
	finish(p, dns_answer_build(data, answer, &p->query, p->over_tcp ? DNS_ANSWER_MAX : p->query.udp_bytes, p->proxy->answer + 2));
}

/* ---- asking an upstream ---- */

static void drop_upstream(struct pending *p)
{
	loop_fd_remove(p->source);
	p->source = NULL;
	replace_fd(&p->fd, -1);
	free(p->tcp);
	p->tcp = NULL;
	p->tcp_have = p->tcp_sent = 0;
	p->upstream_tcp = false;
	p->forged = 0;
}

static void ask_tcp(struct pending *p);

/* An answer that belongs to the question: give it back, ask again over TCP, or ask another server. */
static void got_answer(struct pending *p, const uint8_t *data, const struct dns_answer *answer)
{
	if (answer->truncated && !p->upstream_tcp)
		ask_tcp(p);
	else if ((answer->rcode == DNS_SERVFAIL || answer->rcode == DNS_REFUSED || answer->truncated) && p->tries < TRIES &&
		 p->proxy->upstreams->n > 1)
		ask_next(p);
	else
		finish_answer(p, data, answer);
}

static void upstream_udp_ready(void *arg, int fd, uint32_t events)
{
	static uint8_t buf[DNS_ANSWER_MAX];
	struct pending *p = arg;
	struct dns_answer answer;
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	int r;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* ECONNREFUSED and the like: nobody serves there. */
	if (n < 0) {
		ask_next(p);
		return;
	}
	r = dns_answer_check(buf, (size_t)n, &p->query, p->id, &answer);
	if (!r) {
		got_answer(p, buf, &answer);
	} else if (r == -EAGAIN && p->forged++ < FORGED_MAX) {
		p->proxy->counts.forged++;
	} else {
		ask_next(p);
	}
}

static int upstream_socket(struct pending *p, int type)
{
	const struct sockaddr_storage *to = &p->proxy->upstreams->addr[p->server];
	socklen_t len = to->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	auto_fd fd = socket(to->ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	/* The kernel takes a random port for each connected socket. */
	if (fd < 0 || (connect(fd, (const struct sockaddr *)to, len) < 0 && errno != EINPROGRESS))
		return -errno;
	return take_fd(&fd);
}

static bool ask_udp(struct pending *p)
{
	uint8_t msg[DNS_QUERY_MAX];
	size_t len;

	random_bytes(&p->id, sizeof(p->id));
	len = dns_query_build(&p->query, p->id, msg);
	p->fd = upstream_socket(p, SOCK_DGRAM);
	if (p->fd < 0 || send(p->fd, msg, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len)
		return false;
	p->source = loop_fd_add(p->proxy->loop, p->fd, EPOLLIN, upstream_udp_ready, p);
	return p->source != NULL;
}

static void ask_next(struct pending *p)
{
	struct dns_proxy *proxy = p->proxy;

	while (p->tries < TRIES && proxy->upstreams->n) {
		drop_upstream(p);
		p->server = (p->server + (p->tries ? 1 : 0)) % proxy->upstreams->n;
		p->tries++;
		loop_timer_arm(p->timer, TRY_MS);
		if (ask_udp(p))
			return;
	}
	finish_error(p, DNS_SERVFAIL);
}

static void try_over(void *arg)
{
	ask_next(arg);
}

/* ---- TCP to an upstream ---- */

static void upstream_tcp_send(struct pending *p)
{
	uint8_t msg[2 + DNS_QUERY_MAX];
	size_t len = dns_query_build(&p->query, p->id, msg + 2);
	ssize_t n;

	msg[0] = (uint8_t)(len >> 8);
	msg[1] = (uint8_t)len;
	n = send(p->fd, msg + p->tcp_sent, len + 2 - p->tcp_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		ask_next(p);
		return;
	}
	p->tcp_sent += n > 0 ? (size_t)n : 0;
	if (p->tcp_sent == len + 2)
		loop_fd_events(p->source, EPOLLIN);
}

static void upstream_tcp_receive(struct pending *p)
{
	size_t want = p->tcp_have < 2 ? 2 : 2u + ((size_t)p->tcp[0] << 8 | p->tcp[1]);
	struct dns_answer answer;
	ssize_t n = recv(p->fd, p->tcp + p->tcp_have, want - p->tcp_have, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		ask_next(p);
		return;
	}
	p->tcp_have += (size_t)n;
	if (p->tcp_have < 2 || p->tcp_have < 2u + ((size_t)p->tcp[0] << 8 | p->tcp[1]))
		return;
	if (dns_answer_check(p->tcp + 2, p->tcp_have - 2, &p->query, p->id, &answer) < 0)
		ask_next(p);
	else
		got_answer(p, p->tcp + 2, &answer);
}

static void upstream_tcp_ready(void *arg, int fd, uint32_t events)
{
	struct pending *p = arg;

	(void)fd;
	if (events & EPOLLOUT)
		upstream_tcp_send(p);
	else
		upstream_tcp_receive(p);
}

static void ask_tcp(struct pending *p)
{
	drop_upstream(p);
	p->upstream_tcp = true;
	p->tcp = malloc(2 + DNS_ANSWER_MAX);
	p->fd = p->tcp ? upstream_socket(p, SOCK_STREAM) : -1;
	p->source = p->fd < 0 ? NULL : loop_fd_add(p->proxy->loop, p->fd, EPOLLOUT, upstream_tcp_ready, p);
	random_bytes(&p->id, sizeof(p->id));
	loop_timer_arm(p->timer, TRY_MS);
	if (!p->source)
		ask_next(p);
}

/* ---- questions ---- */

static struct pending *pending_new(struct dns_proxy *proxy, const struct dns_query *query, const struct sockaddr_in *from)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->timer = loop_timer_new(proxy->loop, try_over, p);
	if (!p->timer) {
		free(p);
		return NULL;
	}
	p->proxy = proxy;
	p->query = *query;
	p->from = *from;
	p->fd = -1;
	/* Each question starts at the server that answered last time round; a silent one is left after one try. */
	p->server = proxy->next_server;
	p->next = proxy->pending;
	if (p->next)
		p->next->prev = p;
	proxy->pending = p;
	proxy->n_pending++;
	return p;
}

/* Whether this source may ask now; counts what is turned away. */
static bool admit(struct dns_proxy *proxy, uint32_t addr)
{
	proxy->counts.questions++;
	if (!within_rate(proxy, addr) || proxy->n_pending >= DNS_PENDING_MAX || pending_of(proxy, addr) >= DNS_PENDING_PER_SOURCE) {
		proxy->counts.over_rate++;
		return false;
	}
	return true;
}

static void refresh(struct dns_proxy *proxy)
{
	int r = dns_upstreams_refresh(proxy->upstreams);

	if (r < 0 && !proxy->upstreams->n)
		log_warn("no name servers: %s: %s", proxy->upstreams->resolv_conf, strerror(-r));
}

static void question_udp(struct dns_proxy *proxy, const uint8_t *data, size_t len, const struct sockaddr_in *from,
			 const struct in_pktinfo *via)
{
	struct pending answer_to = {.from = *from, .via = *via};
	struct dns_query query;
	struct pending *p;
	int r;

	if (!admit(proxy, from->sin_addr.s_addr))
		return;
	r = dns_query_parse(data, len, &query);
	if (r > 0) {
		proxy->counts.refused++;
		send_udp(proxy, &answer_to, proxy->answer, dns_error_build(&query, (enum dns_rcode)r, proxy->answer));
	}
	if (r)
		return;
	p = pending_new(proxy, &query, from);
	if (!p)
		return;
	p->via = *via;
	ask_next(p);
}

static bool receive_udp(struct dns_proxy *proxy)
{
	uint8_t buf[DNS_QUERY_MAX + 1];
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control;
	struct sockaddr_in from = {0};
	struct in_pktinfo via = {0};
	struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
	struct msghdr msg = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(proxy->udp_fd, &msg, MSG_DONTWAIT);

	if (n < 0)
		return errno == EINTR;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
			memcpy(&via, CMSG_DATA(c), sizeof(via));
	if (from.sin_family == AF_INET)
		question_udp(proxy, buf, (size_t)n, &from, &via);
	return true;
}

static void udp_ready(void *arg, int fd, uint32_t events)
{
	struct dns_proxy *proxy = arg;

	(void)fd;
	(void)events;
	refresh(proxy);
	for (unsigned i = 0; i < BATCH && proxy->udp_fd >= 0; i++)
		if (!receive_udp(proxy))
			return;
}

/* ---- TCP from a sandbox ---- */

static void connection_close(struct connection *c)
{
	struct dns_proxy *proxy = c->proxy;

	if (c->asking)
		c->asking->conn = NULL;
	loop_fd_remove(c->source);
	close_keep_errno(c->fd);
	loop_timer_free(c->timer);
	if (c->prev)
		c->prev->next = c->next;
	else
		proxy->connections = c->next;
	if (c->next)
		c->next->prev = c->prev;
	proxy->n_connections--;
	free(c->out);
	free(c);
}

static void connection_idle(void *arg)
{
	connection_close(arg);
}

/* One complete message is in c->in.  Return: false when the connection was closed */
static bool connection_question(struct connection *c, size_t len)
{
	struct dns_proxy *proxy = c->proxy;
	struct dns_query query;
	struct pending *p;
	int r;

	if (!admit(proxy, c->from.sin_addr.s_addr))
		return false;
	r = dns_query_parse(c->in + 2, len, &query);
	memmove(c->in, c->in + 2 + len, c->have - 2 - len);
	c->have -= 2 + len;
	if (r < 0)
		return false;
	p = pending_new(proxy, &query, &c->from);
	if (!p)
		return false;
	p->over_tcp = true;
	p->conn = c;
	c->asking = p;
	loop_fd_events(c->source, 0);
	loop_timer_disarm(c->timer);
	if (r > 0) {
		proxy->counts.refused++;
		finish(p, dns_error_build(&query, (enum dns_rcode)r, proxy->answer + 2));
	} else {
		ask_next(p);
	}
	return true;
}

/* Goes on with what has been read, when nothing is being asked or sent. */
static void connection_serve(struct connection *c)
{
	const struct connection *live = c->proxy->connections;
	size_t len;

	/* The send before this call may have closed it. */
	while (live && live != c)
		live = live->next;
	if (!live || c->asking || c->out)
		return;
	loop_fd_events(c->source, EPOLLIN);
	if (c->have < 2)
		return;
	len = (size_t)c->in[0] << 8 | c->in[1];
	if (len > DNS_QUERY_MAX || len < DNS_HEAD_BYTES || (c->have >= 2 + len && !connection_question(c, len)))
		connection_close(c);
}

static void connection_ready(void *arg, int fd, uint32_t events)
{
	struct connection *c = arg;
	ssize_t n;

	if (c->out && (events & EPOLLOUT)) {
		n = send(fd, c->out + c->out_at, c->out_len - c->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
		c->out_at += n > 0 ? (size_t)n : 0;
		if (c->out_at == c->out_len) {
			free(c->out);
			c->out = NULL;
			connection_serve(c);
			return;
		}
		if (n > 0 || (n < 0 && errno == EAGAIN))
			return;
		connection_close(c);
		return;
	}
	/* The peer is gone while a question is being asked, or there is something to read. */
	if (c->asking || c->out) {
		connection_close(c);
		return;
	}
	n = recv(fd, c->in + c->have, sizeof(c->in) - c->have, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		connection_close(c);
		return;
	}
	c->have += (size_t)n;
	refresh(c->proxy);
	connection_serve(c);
}

static size_t connections_of(const struct dns_proxy *proxy, uint32_t addr)
{
	size_t n = 0;

	for (const struct connection *c = proxy->connections; c; c = c->next)
		n += c->from.sin_addr.s_addr == addr;
	return n;
}

static void connection_new(struct dns_proxy *proxy, int fd, const struct sockaddr_in *from)
{
	struct connection *c;

	if (proxy->n_connections >= DNS_TCP_MAX || connections_of(proxy, from->sin_addr.s_addr) >= DNS_TCP_PER_SOURCE) {
		proxy->counts.over_rate++;
		close_keep_errno(fd);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		close_keep_errno(fd);
		return;
	}
	c->proxy = proxy;
	c->fd = fd;
	c->from = *from;
	c->next = proxy->connections;
	if (c->next)
		c->next->prev = c;
	proxy->connections = c;
	proxy->n_connections++;
	c->source = loop_fd_add(proxy->loop, fd, EPOLLIN, connection_ready, c);
	c->timer = loop_timer_new(proxy->loop, connection_idle, c);
	if (!c->source || !c->timer) {
		connection_close(c);
		return;
	}
	loop_timer_arm(c->timer, TCP_IDLE_MS);
}

static void tcp_ready(void *arg, int fd, uint32_t events)
{
	struct dns_proxy *proxy = arg;

	(void)events;
	for (unsigned i = 0; i < BATCH; i++) {
		struct sockaddr_in from = {0};
		socklen_t len = sizeof(from);
		int conn = accept4(fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (conn < 0)
			return;
		connection_new(proxy, conn, &from);
	}
}

/* ---- life ---- */

struct dns_proxy *dns_proxy_new(struct loop *loop, struct dns_upstreams *upstreams, struct sbx_err *err)
{
	struct dns_proxy *proxy = calloc(1, sizeof(*proxy));

	if (!proxy) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "name server");
		return NULL;
	}
	proxy->loop = loop;
	proxy->upstreams = upstreams;
	proxy->udp_fd = proxy->tcp_fd = -1;
	random_bytes(&proxy->bucket_key, sizeof(proxy->bucket_key));
	return proxy;
}

static void stop_listening(struct dns_proxy *proxy)
{
	loop_fd_remove(proxy->udp_source);
	loop_fd_remove(proxy->tcp_source);
	proxy->udp_source = proxy->tcp_source = NULL;
	replace_fd(&proxy->udp_fd, -1);
	replace_fd(&proxy->tcp_fd, -1);
}

void dns_proxy_free(struct dns_proxy *proxy)
{
	if (!proxy)
		return;
	while (proxy->connections)
		connection_close(proxy->connections);
	while (proxy->pending)
		pending_free(proxy->pending);
	stop_listening(proxy);
	free(proxy);
}

int dns_proxy_listen(struct dns_proxy *proxy, int udp_fd, int tcp_fd, struct sbx_err *err)
{
	auto_fd udp = udp_fd;
	auto_fd tcp = tcp_fd;
	struct loop_fd *udp_source = loop_fd_add(proxy->loop, udp, EPOLLIN, udp_ready, proxy);
	struct loop_fd *tcp_source = udp_source ? loop_fd_add(proxy->loop, tcp, EPOLLIN, tcp_ready, proxy) : NULL;

	if (!tcp_source) {
		int sys = errno;

		loop_fd_remove(udp_source);
		return sbx_err_set(err, SBX_E_SYSTEM, sys, "serve the name server's sockets");
	}
	stop_listening(proxy);
	proxy->udp_fd = take_fd(&udp);
	proxy->tcp_fd = take_fd(&tcp);
	proxy->udp_source = udp_source;
	proxy->tcp_source = tcp_source;
	return 0;
}

const struct dns_proxy_counts *dns_proxy_counts(const struct dns_proxy *proxy)
{
	return &proxy->counts;
}
