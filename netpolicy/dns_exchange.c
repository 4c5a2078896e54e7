/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets towards upstreams, and which question each of them waits for. */
#include "config.h"

#include "netpolicy/dns_exchange.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/wallclock.h"

#include "netpolicy/dns_random.h"

#define BUCKETS		32u
#define BATCH		32u
#define REPLY_BYTES	2048u /* we say 1232; longer ones are cut and refused */
/* A port serves so many questions or so long, then another one is taken when nobody waits on it. */
#define PORT_QUESTIONS	256u
#define PORT_USEC	20000000u

struct dns_socket {
	struct dns_exchange *x;
	uint8_t upstream;
	int fd; /* owned; -1: not open */
	struct loop_fd *source;
	unsigned n_out, asked, forged, late; /* late: tries that ended without their answer, which may still come */
	unsigned life; /* counts how often it was opened */
	uint64_t opened_usec;
	struct dns_try *bucket[BUCKETS];
};

/* One question over a connection of its own: length, message; then the same back. */
struct dns_tcp_out {
	struct dns_exchange *x;
	struct dns_try *t;
	int fd; /* owned */
	struct loop_fd *source;
	size_t out_len, out_at, in_have;
	uint8_t out[2 + DNS_QUERY_MAX];
	uint8_t in[2 + DNS_ANSWER_MAX];
};

struct batch {
	struct dns_socket *socket;
	unsigned n;
	struct iovec iov[BATCH];
	struct mmsghdr msg[BATCH];
	uint8_t data[BATCH][DNS_SENT_MAX + 16];
};

struct dns_exchange {
	struct loop *loop;
	struct dns_upstreams *upstreams;
	dns_exchange_handler *handler;
	dns_exchange_turn *turn;
	void *arg;
	struct dns_socket socket[DNS_UPSTREAMS_MAX][DNS_SOCKETS];
	uint8_t order[DNS_UPSTREAMS_MAX][DNS_SOCKETS];
	uint8_t next[DNS_UPSTREAMS_MAX];
	struct batch batch;
	unsigned n_tcp;
	uint64_t forged;
	uint8_t reply[BATCH][REPLY_BYTES];
};

static void udp_ready(void *arg, int fd, uint32_t events);

/* ---- sockets ---- */

static int open_towards(const struct dns_upstreams *u, unsigned upstream, int type)
{
	const struct sockaddr_storage *to = &u->addr[upstream];
	socklen_t len = to->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	auto_fd fd = socket(to->ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	/* The kernel takes a random port for each connected socket, and drops what comes from elsewhere. */
	if (fd < 0 || (connect(fd, (const struct sockaddr *)to, len) < 0 && errno != EINPROGRESS))
		return -errno;
	return take_fd(&fd);
}

static void socket_close(struct dns_socket *s)
{
	loop_fd_remove(s->source);
	s->source = NULL;
	replace_fd(&s->fd, -1);
	s->asked = s->forged = s->late = 0;
}

static int socket_open(struct dns_socket *s)
{
	int fd = open_towards(s->x->upstreams, s->upstream, SOCK_DGRAM);

	if (fd < 0)
		return fd;
	s->fd = fd;
	s->source = loop_fd_add(s->x->loop, fd, EPOLLIN, udp_ready, s);
	if (!s->source) {
		int r = -errno;

		replace_fd(&s->fd, -1);
		return r;
	}
	s->opened_usec = mono_usec();
	s->life++;
	return 0;
}

/* Fisher and Yates: each round takes the sockets in another order. */
static void shuffle(uint8_t order[DNS_SOCKETS])
{
	for (unsigned i = 0; i < DNS_SOCKETS; i++)
		order[i] = (uint8_t)i;
	for (unsigned i = DNS_SOCKETS - 1; i; i--) {
		unsigned j = dns_random_below(i + 1);
		uint8_t swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
}

/* All questions of one turn to one upstream share a socket, so that they leave with one call; the next turn takes the next. */
static struct dns_socket *pick(struct dns_exchange *x, unsigned upstream)
{
	struct dns_socket *s = x->batch.socket;

	if (s && s->upstream == upstream && x->batch.n < BATCH)
		return s;
	dns_exchange_flush(x);
	for (unsigned tries = 0; tries < DNS_SOCKETS; tries++) {
		if (!x->next[upstream])
			shuffle(x->order[upstream]);
		s = &x->socket[upstream][x->order[upstream][x->next[upstream]]];
		x->next[upstream] = (uint8_t)((x->next[upstream] + 1) % DNS_SOCKETS);
		if (s->fd >= 0 && !s->n_out && (s->asked >= PORT_QUESTIONS || mono_usec() - s->opened_usec > PORT_USEC))
			socket_close(s);
		if (s->fd >= 0 && s->asked >= 16 * PORT_QUESTIONS)
			continue;
		if (s->fd >= 0 || socket_open(s) == 0) {
			x->batch.socket = s;
			return s;
		}
		return NULL;
	}
	return NULL;
}

static void unlink_try(struct dns_try *t)
{
	struct dns_socket *s = t->socket;

	if (t->prev)
		t->prev->next = t->next;
	else
		s->bucket[t->id % BUCKETS] = t->next;
	if (t->next)
		t->next->prev = t->prev;
	s->n_out--;
	t->socket = NULL;
	t->next = t->prev = NULL;
}

static struct dns_try *find_try(const struct dns_socket *s, uint16_t id)
{
	struct dns_try *t = s->bucket[id % BUCKETS];

	while (t && t->id != id)
		t = t->next;
	return t;
}

static void deliver(struct dns_exchange *x, struct dns_try *t, enum dns_outcome outcome, const uint8_t *data, size_t len,
		    const struct dns_answer *answer)
{
	x->handler(x->arg, t, outcome, data, len, answer);
}

/* Everything that waits on this socket ends; it is opened again, with another port, when it is needed. */
static void socket_give_up(struct dns_socket *s, enum dns_outcome why)
{
	if (s->x->batch.socket == s)
		dns_exchange_flush(s->x);
	loop_fd_remove(s->source);
	s->source = NULL;
	replace_fd(&s->fd, -1);
	for (unsigned i = 0; i < BUCKETS; i++)
		while (s->bucket[i]) {
			struct dns_try *t = s->bucket[i];

			unlink_try(t);
			deliver(s->x, t, why, NULL, 0, NULL);
			/* The handler may have asked again through this very socket: those are new. */
			if (s->fd >= 0)
				return;
		}
	s->asked = s->forged = s->late = 0;
}

/* Return: false when the socket was given up */
static bool got_reply(struct dns_socket *s, const uint8_t *data, size_t len)
{
	struct dns_answer answer = {0};
	struct dns_try *t = len >= DNS_HEAD_BYTES ? find_try(s, (uint16_t)(data[0] << 8 | data[1])) : NULL;
	int r = t ? dns_answer_check(data, len, t->sent, &answer) : -EAGAIN;

	if (!t && s->late && len >= DNS_HEAD_BYTES) {
		s->late--;
		return true;
	}
	if (r == 0) {
		unlink_try(t);
		deliver(s->x, t, DNS_OUT_ANSWER, data, len, &answer);
		return s->fd >= 0;
	}
	s->x->forged++;
	if (r == -EILSEQ)
		deliver(s->x, t, DNS_OUT_SPELLING, data, len, &answer);
	if (++s->forged <= DNS_FORGED_MAX)
		return s->fd >= 0;
	socket_give_up(s, DNS_OUT_FORGED);
	return false;
}

static void udp_ready(void *arg, int fd, uint32_t events)
{
	struct dns_socket *s = arg;
	struct dns_exchange *x = s->x;
	struct mmsghdr msg[BATCH] = {0};
	struct iovec iov[BATCH];
	unsigned life = s->life;
	int n;

	(void)events;
	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){x->reply[i], REPLY_BYTES};
		msg[i].msg_hdr.msg_iov = &iov[i];
		msg[i].msg_hdr.msg_iovlen = 1;
	}
	n = recvmmsg(fd, msg, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		socket_give_up(s, DNS_OUT_FAILED); /* ECONNREFUSED and the like: nobody serves there */
	for (int i = 0; i < n; i++)
		if (!got_reply(s, x->reply[i], msg[i].msg_hdr.msg_flags & MSG_TRUNC ? 0 : msg[i].msg_len) || s->life != life)
			break;
	x->turn(x->arg);
}

/* ---- UDP ---- */

static size_t build(struct dns_try *t, const struct dns_query *query, const struct dns_upstreams *u, unsigned upstream, uint8_t *out)
{
	uint8_t mix[DNS_NAME_MAX / 8 + 1];
	size_t n;

	t->mixed = !u->state[upstream].no_mix;
	t->edns = !u->state[upstream].no_edns;
	if (t->mixed)
		dns_random(mix, sizeof(mix));
	n = dns_query_build(query, t->id, t->mixed ? mix : NULL, t->edns, out);
	memcpy(t->sent, out, n < sizeof(t->sent) ? n : sizeof(t->sent));
	t->upstream = (uint8_t)upstream;
	t->began_usec = mono_usec();
	return n;
}

int dns_exchange_udp(struct dns_exchange *x, struct dns_try *t, const struct dns_query *query, unsigned upstream)
{
	struct dns_socket *s = pick(x, upstream);
	struct batch *b = &x->batch;
	size_t len;

	if (!s)
		return -EMFILE;
	do
		dns_random(&t->id, sizeof(t->id));
	while (find_try(s, t->id));
	len = build(t, query, x->upstreams, upstream, b->data[b->n]);
	b->iov[b->n] = (struct iovec){b->data[b->n], len};
	b->msg[b->n].msg_hdr = (struct msghdr){.msg_iov = &b->iov[b->n], .msg_iovlen = 1};
	b->n++;
	t->socket = s;
	t->over_tcp = false;
	t->prev = NULL;
	t->next = s->bucket[t->id % BUCKETS];
	if (t->next)
		t->next->prev = t;
	s->bucket[t->id % BUCKETS] = t;
	s->n_out++;
	s->asked++;
	return 0;
}

void dns_exchange_flush(struct dns_exchange *x)
{
	struct batch *b = &x->batch;

	/* What cannot be sent is asked again by its timer. */
	if (b->n && b->socket->fd >= 0)
		ignore_result(sendmmsg(b->socket->fd, b->msg, b->n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0);
	b->n = 0;
	b->socket = NULL;
}

/* ---- TCP ---- */

static void tcp_free(struct dns_tcp_out *o)
{
	loop_fd_remove(o->source);
	close_keep_errno(o->fd);
	o->x->n_tcp--;
	free(o);
}

static void tcp_over(struct dns_tcp_out *o)
{
	struct dns_exchange *x = o->x;
	struct dns_try *t = o->t;

	t->tcp = NULL;
	tcp_free(o);
	deliver(x, t, DNS_OUT_FAILED, NULL, 0, NULL);
}

static void tcp_send(struct dns_tcp_out *o)
{
	ssize_t n = send(o->fd, o->out + o->out_at, o->out_len - o->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN) {
		tcp_over(o);
		return;
	}
	o->out_at += n > 0 ? (size_t)n : 0;
	if (o->out_at == o->out_len)
		loop_fd_events(o->source, EPOLLIN);
}

static void tcp_receive(struct dns_tcp_out *o)
{
	size_t want = o->in_have < 2 ? 2 : 2u + ((size_t)o->in[0] << 8 | o->in[1]);
	struct dns_exchange *x = o->x;
	struct dns_answer answer = {0};
	struct dns_try *t = o->t;
	ssize_t n = recv(o->fd, o->in + o->in_have, want - o->in_have, MSG_DONTWAIT);
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		tcp_over(o);
		return;
	}
	o->in_have += (size_t)n;
	if (o->in_have < 2 || o->in_have < 2u + ((size_t)o->in[0] << 8 | o->in[1]))
		return;
	r = dns_answer_check(o->in + 2, o->in_have - 2, t->sent, &answer);
	/* Over a connection nobody else can answer, so the spelling proves nothing. */
	if ((r && r != -EILSEQ) || answer.truncated) {
		tcp_over(o);
		return;
	}
	if (r == -EILSEQ)
		x->upstreams->state[t->upstream].no_mix = true;
	t->tcp = NULL;
	deliver(x, t, DNS_OUT_ANSWER, o->in + 2, o->in_have - 2, &answer);
	tcp_free(o);
}

static void tcp_ready(void *arg, int fd, uint32_t events)
{
	struct dns_tcp_out *o = arg;
	struct dns_exchange *x = o->x;

	(void)fd;
	if (events & EPOLLOUT)
		tcp_send(o);
	else
		tcp_receive(o);
	x->turn(x->arg);
}

int dns_exchange_tcp(struct dns_exchange *x, struct dns_try *t, const struct dns_query *query, unsigned upstream)
{
	struct dns_tcp_out *o = x->n_tcp < DNS_TCP_OUT_MAX ? malloc(sizeof(*o)) : NULL;
	size_t len;

	if (!o)
		return -ENOMEM;
	*o = (struct dns_tcp_out){.x = x, .t = t};
	o->fd = open_towards(x->upstreams, upstream, SOCK_STREAM);
	o->source = o->fd < 0 ? NULL : loop_fd_add(x->loop, o->fd, EPOLLOUT, tcp_ready, o);
	if (!o->source) {
		int r = o->fd < 0 ? o->fd : -errno;

		close_keep_errno(o->fd);
		free(o);
		return r;
	}
	x->n_tcp++;
	dns_random(&t->id, sizeof(t->id));
	len = build(t, query, x->upstreams, upstream, o->out + 2);
	o->out[0] = (uint8_t)(len >> 8);
	o->out[1] = (uint8_t)len;
	o->out_len = len + 2;
	t->tcp = o;
	t->over_tcp = true;
	return 0;
}

/* ---- life ---- */

bool dns_exchange_active(const struct dns_try *t)
{
	return t->socket || t->tcp;
}

void dns_exchange_end(struct dns_exchange *x, struct dns_try *t)
{
	(void)x;
	if (t->socket) {
		t->socket->late++;
		unlink_try(t);
	}
	if (t->tcp)
		tcp_free(t->tcp);
	t->tcp = NULL;
}

void dns_exchange_changed(struct dns_exchange *x)
{
	for (unsigned i = 0; i < DNS_UPSTREAMS_MAX; i++)
		for (unsigned j = 0; j < DNS_SOCKETS; j++)
			if (x->socket[i][j].fd >= 0)
				socket_give_up(&x->socket[i][j], DNS_OUT_FAILED);
	dns_exchange_flush(x);
}

uint64_t dns_exchange_forged(const struct dns_exchange *x)
{
	return x->forged;
}

struct dns_exchange *dns_exchange_new(struct loop *loop, struct dns_upstreams *upstreams, dns_exchange_handler *handler,
				      dns_exchange_turn *turn, void *arg, struct sbx_err *err)
{
	struct dns_exchange *x = calloc(1, sizeof(*x));

	if (!x) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sockets of the upstreams");
		return NULL;
	}
	x->loop = loop;
	x->upstreams = upstreams;
	x->handler = handler;
	x->turn = turn;
	x->arg = arg;
	for (unsigned i = 0; i < DNS_UPSTREAMS_MAX; i++)
		for (unsigned j = 0; j < DNS_SOCKETS; j++)
			x->socket[i][j] = (struct dns_socket){.x = x, .upstream = (uint8_t)i, .fd = -1};
	return x;
}

void dns_exchange_free(struct dns_exchange *x)
{
	if (!x)
		return;
	for (unsigned i = 0; i < DNS_UPSTREAMS_MAX; i++)
		for (unsigned j = 0; j < DNS_SOCKETS; j++)
			socket_close(&x->socket[i][j]);
	free(x);
}
