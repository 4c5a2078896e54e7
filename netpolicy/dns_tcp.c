/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP towards the sandboxes (RFC 7766): questions may follow each other without waiting, answers go out as they come.  A
 * connection that asks without reading is not read from any more; one that neither asks nor waits is closed, and so is one whose
 * question does not come to its end: byte by byte nobody holds a connection for longer than IDLE_MS.
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

#define IDLE_MS	       10000u
#define CONNS_MAX      2048u
#define CONNS_SANDBOX  20u
#define WAITING_MAX    100u /* of one sandbox over TCP */
#define OUT_STOP_BYTES 65536u
#define OUT_MAX_BYTES  (4u * (DNS_ANSWER_MAX + 2))
#define ACCEPT_BATCH   32u

struct dns_conn {
	struct dns_conn *next, *prev;
	struct dns_tcp *tcp;
	struct dns_sandbox *sandbox; /* found again for each question: sandboxes come and go */
	struct sockaddr_in from;
	struct in_addr via;
	int fd; /* owned */
	struct loop_fd *source;
	struct loop_timer *timer;
	unsigned waiting;
	bool serving, dead;
	size_t have;
	uint8_t in[2 + DNS_QUERY_MAX];
	uint8_t *out; /* owned; what could not be sent at once */
	size_t out_len, out_at;
};

struct dns_tcp {
	struct dnsd *d;
	int fd, fd6; /* owned */
	struct loop_fd *source, *source6;
	struct dns_conn *conns;
	unsigned n_conns;
};

static void serve(struct dns_conn *c);

static void conn_close(struct dns_conn *c)
{
	struct dns_tcp *t = c->tcp;

	if (c->dead)
		return;
	c->dead = true;
	if (c->sandbox) {
		dns_lookup_conn_gone(c->sandbox, c);
		c->sandbox->n_connections--;
		c->sandbox->n_outstanding_tcp -= c->waiting;
	}
	loop_fd_remove(c->source);
	replace_fd(&c->fd, -1);
	loop_timer_free(c->timer);
	if (c->prev)
		c->prev->next = c->next;
	else
		t->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	t->n_conns--;
	free(c->out);
	/* serve() is further up the stack and frees it. */
	if (!c->serving)
		free(c);
}

static void idle(void *arg)
{
	struct dns_conn *c = arg;

	if (c->waiting)
		loop_timer_arm(c->timer, IDLE_MS);
	else
		conn_close(c);
}

static void watch(struct dns_conn *c)
{
	bool full = c->out_len - c->out_at > OUT_STOP_BYTES || (c->sandbox && c->sandbox->n_outstanding_tcp >= WAITING_MAX);

	loop_fd_events(c->source, (full ? 0 : (uint32_t)EPOLLIN) | (c->out ? (uint32_t)EPOLLOUT : 0));
}

static bool send_out(struct dns_conn *c)
{
	ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	c->out_at += n > 0 ? (size_t)n : 0;
	if (n > 0)
		loop_timer_arm(c->timer, IDLE_MS);
	if (c->out_at == c->out_len) {
		free(c->out);
		c->out = NULL;
		c->out_len = c->out_at = 0;
	}
	return true;
}

/* Return: false when the connection must be closed */
static bool queue(struct dns_conn *c, const uint8_t *data, size_t len)
{
	uint8_t *out;

	if (c->out_at) {
		memmove(c->out, c->out + c->out_at, c->out_len - c->out_at);
		c->out_len -= c->out_at;
		c->out_at = 0;
	}
	if (c->out_len + len > OUT_MAX_BYTES)
		return false;
	out = realloc(c->out, c->out_len + len);
	if (!out)
		return false;
	memcpy(out + c->out_len, data, len);
	c->out = out;
	c->out_len += len;
	return true;
}

static void give(struct dns_conn *c, size_t len)
{
	uint8_t *data = c->tcp->d->out;
	ssize_t n = 0;

	if (c->dead)
		return;
	data[0] = (uint8_t)(len >> 8);
	data[1] = (uint8_t)len;
	len += 2;
	if (!c->out)
		n = send(c->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		conn_close(c);
		return;
	}
	n = n < 0 ? 0 : n;
	if ((size_t)n < len && !queue(c, data + n, len - (size_t)n)) {
		conn_close(c);
		return;
	}
	loop_timer_arm(c->timer, IDLE_MS);
	watch(c);
}

void dns_tcp_reply(struct dns_conn *c, size_t len)
{
	if (c->waiting) {
		c->waiting--;
		if (c->sandbox)
			c->sandbox->n_outstanding_tcp--;
	}
	give(c, len);
}

/* One complete message of @len bytes at c->in + 2. */
static void one_question(struct dns_conn *c, size_t len)
{
	struct dnsd *d = c->tcp->d;
	bool over;
	struct dns_sandbox *s = dns_admit(d, &c->from, 0, &over);
	struct dns_asker asker;
	int r;

	asker.next = NULL;
	asker.conn = c;
	asker.over_tcp = true;
	asker.over6 = false; /* the connection knows */
	asker.from = c->from;
	asker.via = c->via;
	r = dns_query_parse(c->in + 2, len, &asker.query);
	memmove(c->in, c->in + 2 + len, c->have - 2 - len);
	c->have -= 2 + len;
	loop_timer_arm(c->timer, IDLE_MS);
	/* Another sandbox has the address now, or none: what was asked before is not for it. */
	if (r < 0 || s != c->sandbox) {
		conn_close(c);
		return;
	}
	if (!r && over)
		r = DNS_REFUSED;
	if (!r && !s)
		r = DNS_SERVFAIL;
	c->waiting++;
	if (s)
		s->n_outstanding_tcp++;
	if (r > 0)
		dns_tcp_reply(c, dns_error_build(&asker.query, (enum dns_rcode)r, DNS_EDE_NONE, d->out + 2));
	else
		dns_question(d, s, &asker);
}

static void serve(struct dns_conn *c)
{
	c->serving = true;
	while (!c->dead && c->have >= 2 && !(c->sandbox && c->sandbox->n_outstanding_tcp >= WAITING_MAX)) {
		size_t len = (size_t)c->in[0] << 8 | c->in[1];

		if (len > DNS_QUERY_MAX || len < DNS_HEAD_BYTES) {
			conn_close(c);
			break;
		}
		if (c->have < 2 + len)
			break;
		one_question(c, len);
	}
	c->serving = false;
	if (c->dead)
		free(c);
	else
		watch(c);
}

static void conn_ready(void *arg, int fd, uint32_t events)
{
	struct dns_conn *c = arg;
	struct dnsd *d = c->tcp->d;
	ssize_t n;

	if ((events & EPOLLOUT) && c->out && !send_out(c)) {
		conn_close(c);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		/* There is always room: a complete message is taken out at once, unless too many wait. */
		n = c->have < sizeof(c->in) ? recv(fd, c->in + c->have, sizeof(c->in) - c->have, MSG_DONTWAIT) : -1;
		if (c->have < sizeof(c->in) && (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))) {
			conn_close(c);
			dnsd_turn(d);
			return;
		}
		if (c->have == sizeof(c->in) && (events & (EPOLLHUP | EPOLLERR))) {
			conn_close(c);
			return;
		}
		if (n > 0) {
			if (!c->have)
				loop_timer_arm(c->timer, IDLE_MS);
			c->have += (size_t)n;
		}
	}
	serve(c);
	dnsd_turn(d);
}

static void conn_new(struct dns_tcp *t, int fd, const struct sockaddr_in *from)
{
	struct dns_sandbox *s = dns_sandboxes_find(t->d->sandboxes, ntohl(from->sin_addr.s_addr));
	struct sockaddr_in local = {0};
	socklen_t len = sizeof(local);
	struct dns_conn *c;

	if (t->n_conns >= CONNS_MAX || (s && s->n_connections >= CONNS_SANDBOX && !t->d->unlimited)) {
		t->d->counts.rate_limited++;
		close_keep_errno(fd);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		close_keep_errno(fd);
		return;
	}
	if (getsockname(fd, (struct sockaddr *)&local, &len) == 0 && local.sin_family == AF_INET)
		c->via = local.sin_addr;
	c->tcp = t;
	c->fd = fd;
	c->from = *from;
	c->sandbox = s;
	if (s)
		s->n_connections++;
	c->next = t->conns;
	if (c->next)
		c->next->prev = c;
	t->conns = c;
	t->n_conns++;
	c->source = loop_fd_add(t->d->loop, fd, EPOLLIN, conn_ready, c);
	c->timer = loop_timer_new(t->d->loop, idle, c);
	if (!c->source || !c->timer) {
		conn_close(c);
		return;
	}
	loop_timer_arm(c->timer, IDLE_MS);
}

static void tcp_ready(void *arg, int fd, uint32_t events)
{
	struct dns_tcp *t = arg;

	(void)events;
	for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
		struct sockaddr_in from = {0};
		socklen_t len = sizeof(from);
		int conn = accept4(fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (conn < 0)
			return;
		conn_new(t, conn, &from);
	}
}

/* The same as over IPv4 from here on: who asks is named by the last word of its address. */
static void tcp6_ready(void *arg, int fd, uint32_t events)
{
	struct dns_tcp *t = arg;

	(void)events;
	for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
		struct sockaddr_in6 from6 = {0};
		struct sockaddr_in from;
		socklen_t len = sizeof(from6);
		int conn = accept4(fd, (struct sockaddr *)&from6, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (conn < 0)
			return;
		if (dns_source_of6(t->d, &from6, &from))
			conn_new(t, conn, &from);
		else
			close_keep_errno(conn);
	}
}

void dns_tcp_drop(struct dns_tcp *t, const struct dns_sandbox *s)
{
	for (struct dns_conn *c = t->conns, *next; c; c = next) {
		next = c->next;
		if (c->sandbox == s)
			conn_close(c);
	}
}

struct dns_tcp *dns_tcp_new(struct dnsd *d, struct sbx_err *err)
{
	struct dns_tcp *t = calloc(1, sizeof(*t));

	if (!t) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "name server over TCP");
		return NULL;
	}
	t->d = d;
	t->fd = t->fd6 = -1;
	return t;
}

void dns_tcp_free(struct dns_tcp *t)
{
	if (!t)
		return;
	while (t->conns)
		conn_close(t->conns);
	loop_fd_remove(t->source);
	loop_fd_remove(t->source6);
	close_keep_errno(t->fd);
	close_keep_errno(t->fd6);
	free(t);
}

int dns_tcp_listen(struct dns_tcp *t, int tcp_fd, struct sbx_err *err)
{
	auto_fd tcp = tcp_fd;
	struct loop_fd *source = loop_fd_add(t->d->loop, tcp, EPOLLIN, tcp_ready, t);

	if (!source)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "serve the name server's TCP socket");
	loop_fd_remove(t->source);
	replace_fd(&t->fd, take_fd(&tcp));
	t->source = source;
	return 0;
}

int dns_tcp_listen6(struct dns_tcp *t, int tcp_fd, struct sbx_err *err)
{
	auto_fd tcp = tcp_fd;
	struct loop_fd *source = loop_fd_add(t->d->loop, tcp, EPOLLIN, tcp6_ready, t);

	if (!source)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "serve the name server's IPv6 TCP socket");
	loop_fd_remove(t->source6);
	replace_fd(&t->fd6, take_fd(&tcp));
	t->source6 = source;
	return 0;
}
