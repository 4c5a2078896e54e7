/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel to the broker: listeners, pins, unpins, the log of refused packets, addresses with live connections.  Pins are
 * collected in a turn of the loop and leave with one call; each has a ticket that finds who waits for it.  After a new
 * connection everything that should be open is asked for again.
 */
#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/wallclock.h"

#include "netpolicy/dnsd_int.h"
#include "runtime/broker/broker_msg.h"

#define RETRY_FIRST_MS 20u
#define RETRY_MAX_MS   2000u
#define TICKETS	       8192u /* pins under way; a power of two */
#define BATCH	       32u
#define QUEUE_MAX      4096u /* that did not fit into the socket */
#define RENEW_MS       30000u
#define RENEW_LEASE_MS 360000u
#define EXPIRE_MS      10000u

enum ticket_kind { TICKET_FREE = 0, TICKET_NOBODY, TICKET_LOOKUP, TICKET_UNPIN };

struct ticket {
	enum ticket_kind kind;
	uint32_t serial; /* upper half of the tag: a late reply meets no new ticket */
	uint32_t next_free;
	struct dns_lookup *lookup;
	struct dnsd_unpin unpin;
};

struct dnsd_broker {
	struct dnsd *d;
	int fd; /* owned */
	struct loop_fd *source;
	struct loop_timer *retry, *renew, *expire;
	uint64_t retry_ms;
	struct ticket ticket[TICKETS];
	uint32_t free_ticket; /* index + 1; 0: none */
	uint32_t serial;
	bool served; /* there were listeners once */
	uint32_t told_version; /* of a broker that we do not go with, which was logged; 0: none */
	struct broker_pin *queue; /* owned; QUEUE_MAX of them */
	uint32_t head, n;	  /* of the ring */
};

/* ---- tickets ---- */

static int ticket_new(struct dnsd_broker *b, enum ticket_kind kind)
{
	uint32_t i = b->free_ticket;

	if (!i)
		return -EBUSY;
	b->free_ticket = b->ticket[i - 1].next_free;
	b->ticket[i - 1] = (struct ticket){.kind = kind, .serial = ++b->serial};
	return (int)i - 1;
}

static void ticket_free(struct dnsd_broker *b, uint32_t i)
{
	b->ticket[i].kind = TICKET_FREE;
	b->ticket[i].next_free = b->free_ticket;
	b->free_ticket = i + 1;
}

void dnsd_broker_forget(struct dnsd_broker *b, int ticket)
{
	if (b->ticket[ticket].kind == TICKET_LOOKUP)
		b->ticket[ticket].kind = TICKET_NOBODY;
}

static void ticket_over(struct dnsd_broker *b, uint32_t i, int status)
{
	const struct ticket t = b->ticket[i];

	ticket_free(b, i);
	if (t.kind == TICKET_LOOKUP)
		dns_lookup_pinned(t.lookup, status);
	else if (t.kind == TICKET_UNPIN)
		dnsd_policy_unpinned(b->d->policy, &t.unpin, status);
}

/* ---- connection ---- */

static void lose(struct dnsd_broker *b, const char *why)
{
	if (b->fd >= 0 && !b->told_version)
		log_warn("broker: %s; serving on, connecting again", why);
	loop_fd_remove(b->source);
	b->source = NULL;
	replace_fd(&b->fd, -1);
	b->head = b->n = 0;
	loop_timer_disarm(b->renew);
	loop_timer_arm(b->retry, b->retry_ms);
	b->retry_ms = b->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : b->retry_ms * 2;
	for (uint32_t i = 0; i < TICKETS; i++)
		if (b->ticket[i].kind != TICKET_FREE)
			ticket_over(b, i, SBX_E_PEER_GONE);
}

static int send_plain(struct dnsd_broker *b, enum broker_op op, void *msg, size_t size)
{
	struct broker_head head = {.magic = BROKER_MAGIC, .op = (uint32_t)op, .size = (uint32_t)size};
	struct iovec iov = {.iov_base = msg, .iov_len = size};

	memcpy(msg, &head, sizeof(head));
	return fdpass_send(b->fd, &iov, 1, NULL, 0);
}

static int ask(struct dnsd_broker *b, enum broker_op op)
{
	struct broker_plain_req req = {0};

	return send_plain(b, op, &req, sizeof(req));
}

struct dnsd_pin dnsd_pin_of(const struct dns_sandbox *s, const struct dns_lease *lease)
{
	return (struct dnsd_pin){.sandbox = s, .addr = &lease->addr, .addr6 = lease->addr ? NULL : &lease->addr6, .n_addrs = 1,
				 .port = lease->port, .n_ports = lease->n_ports};
}

static int queue_pin(struct dnsd_broker *b, enum broker_op op, const struct dnsd_pin *pin, int ticket)
{
	struct broker_pin *m;

	if (b->n == QUEUE_MAX)
		return -EBUSY;
	m = &b->queue[(b->head + b->n++) % QUEUE_MAX];
	memset(m, 0, sizeof(*m));
	m->head = (struct broker_head){.magic = BROKER_MAGIC, .op = (uint32_t)op, .size = sizeof(*m),
				       .tag = (uint64_t)b->ticket[ticket].serial << 32 | (uint32_t)ticket};
	m->ref = (struct broker_slot_ref){pin->sandbox->ref.slot, pin->sandbox->ref.generation};
	m->n_addrs = pin->n_addrs;
	m->n_ports = pin->n_ports;
	m->lease_ms = pin->lease_ms;
	m->ipv6 = pin->addr6 != NULL;
	if (pin->addr6)
		memcpy(m->addr6, pin->addr6, pin->n_addrs * sizeof(m->addr6[0]));
	else
		memcpy(m->addr, pin->addr, pin->n_addrs * sizeof(m->addr[0]));
	if (pin->n_ports)
		memcpy(m->port, pin->port, pin->n_ports * sizeof(m->port[0]));
	return 0;
}

static int enqueue(struct dnsd_broker *b, enum broker_op op, const struct dnsd_pin *pin, enum ticket_kind kind)
{
	int ticket = b->fd < 0 ? -ENOTCONN : ticket_new(b, kind), r;

	if (ticket < 0)
		return ticket;
	r = queue_pin(b, op, pin, ticket);
	if (r < 0) {
		ticket_free(b, (uint32_t)ticket);
		return r;
	}
	return ticket;
}

int dnsd_broker_pin(struct dnsd_broker *b, const struct dnsd_pin *pin, struct dns_lookup *lookup)
{
	int ticket = enqueue(b, BROKER_OP_PIN, pin, lookup ? TICKET_LOOKUP : TICKET_NOBODY);

	if (ticket >= 0)
		b->ticket[ticket].lookup = lookup;
	return ticket;
}

int dnsd_broker_unpin(struct dnsd_broker *b, const struct dnsd_pin *pin, const struct dnsd_unpin *unpin)
{
	int ticket = enqueue(b, BROKER_OP_UNPIN, pin, unpin ? TICKET_UNPIN : TICKET_NOBODY);

	if (ticket >= 0 && unpin)
		b->ticket[ticket].unpin = *unpin;
	return ticket < 0 ? ticket : 0;
}

void dnsd_broker_flush(struct dnsd_broker *b)
{
	while (b->n && b->fd >= 0) {
		struct mmsghdr msg[BATCH] = {0};
		struct iovec iov[BATCH];
		unsigned n = b->n < BATCH ? b->n : BATCH;
		int sent;

		for (unsigned i = 0; i < n; i++) {
			iov[i] = (struct iovec){&b->queue[(b->head + i) % QUEUE_MAX], sizeof(struct broker_pin)};
			msg[i].msg_hdr.msg_iov = &iov[i];
			msg[i].msg_hdr.msg_iovlen = 1;
		}
		sent = sendmmsg(b->fd, msg, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN) {
			lose(b, strerror(errno));
			return;
		}
		if (sent > 0) {
			b->head = (b->head + (unsigned)sent) % QUEUE_MAX;
			b->n -= (unsigned)sent;
		}
		if (sent < 0)
			break;
	}
	if (b->source)
		loop_fd_events(b->source, EPOLLIN | (b->n ? (uint32_t)EPOLLOUT : 0));
}

/* ---- leases ---- */

/* Everything that is pinned, again: costs little when the kernel has it, and mends what was lost. */
static void pin_again(struct dnsd_broker *b)
{
	struct dnsd *d = b->d;
	uint64_t now = mono_ms();

	for (struct dns_sandbox *s = dns_sandboxes_first(d->sandboxes); s; s = s->next) {
		const struct dns_lease *r;
		uint32_t at = 0;

		while ((r = dns_leases_next(d->leases, s, &at))) {
			struct dnsd_pin pin = dnsd_pin_of(s, r);

			pin.lease_ms = (uint32_t)(r->until_ms - now);

			/* When there are more than can wait, the rest is opened as it is asked for. */
			if ((r->flags & (DNS_LEASE_PINNED | DNS_LEASE_CLOSING)) == DNS_LEASE_PINNED && r->until_ms > now &&
			    dnsd_broker_pin(b, &pin, NULL) < 0)
				return;
		}
	}
	dnsd_turn(d);
}

/* Connections live as long as they last; who reconnects to an address that it used a moment ago must reach it (pools do). */
static void renew(struct dnsd_broker *b, const struct broker_flow *f)
{
	struct dnsd *d = b->d;
	struct dns_sandbox *s = dns_sandboxes_by_ref(d->sandboxes, (struct egress_ref){f->ref.slot, f->ref.generation});
	uint64_t now = mono_ms();
	struct dns_lease *r;
	uint32_t at = 0;

	while (s && (r = f->addr ? dns_leases_find(d->leases, s, f->addr, &at) : dns_leases_find6(d->leases, s, f->addr6, &at))) {
		struct dnsd_pin pin = dnsd_pin_of(s, r);

		pin.lease_ms = RENEW_LEASE_MS;

		if ((r->flags & (DNS_LEASE_PINNED | DNS_LEASE_CLOSING)) != DNS_LEASE_PINNED || r->until_ms + DNS_LEASE_GRACE_MS < now)
			continue;
		/* Not more often than needed: half of it is still ahead. */
		if (r->until_ms > now + RENEW_LEASE_MS / 2)
			continue;
		r->until_ms = now + RENEW_LEASE_MS;
		if (dnsd_broker_pin(b, &pin, NULL) < 0)
			r->flags |= DNS_LEASE_UNSURE;
	}
}

static void renew_later(struct dnsd_broker *b)
{
	loop_timer_arm(b->renew, FAULT_POINT("dnsd-renew") ? RENEW_MS / 100 : RENEW_MS); /* a test's patience */
}

static void renew_due(void *arg)
{
	struct dnsd_broker *b = arg;

	renew_later(b);
	if (b->fd >= 0 && dns_leases_count(b->d->leases) && ask(b, BROKER_OP_FLOWS) < 0)
		log_warn("broker: live connections cannot be asked for");
}

static void expire_due(void *arg)
{
	struct dnsd_broker *b = arg;
	uint64_t now = mono_ms();

	loop_timer_arm(b->expire, EXPIRE_MS);
	for (struct dns_sandbox *s = dns_sandboxes_first(b->d->sandboxes); s; s = s->next)
		dns_leases_expire(b->d->leases, s, now);
	if (b->fd >= 0)
		dnsd_policy_close_rest(b->d->policy);
	dnsd_turn(b->d);
}

/* ---- replies ---- */

static const char *got_hello(struct dnsd_broker *b, const union broker_any *m, size_t n)
{
	if (n >= offsetof(struct broker_hello_reply, boot_id) && m->hello_reply.version != BROKER_VERSION) {
		/* Nothing is asked of it: what it does not know it would not do, and names would open more than they should. */
		if (b->told_version != m->hello_reply.version)
			log_error("broker: it is of version %u, this name server of %u: restart both; until then no name opens an address",
				  m->hello_reply.version, BROKER_VERSION);
		b->told_version = m->hello_reply.version;
		return "is of another version";
	}
	if (n != sizeof(m->hello_reply) || m->hello_reply.status)
		return "refused our hello";
	b->told_version = 0;
	return ask(b, BROKER_OP_DNS_SOCKETS) < 0 ? "cannot be written to" : NULL;
}

static const char *got_sockets(struct dnsd_broker *b, const union broker_any *m, size_t n, int *fds, size_t n_fds)
{
	struct dnsd *d = b->d;
	struct sbx_err err;

	if (n != sizeof(m->reply) || m->reply.status || (n_fds != 2 && n_fds != 4))
		return "gave no sockets";
	if (dns_proxy_listen(d->proxy, take_fd(&fds[0]), &err) < 0 || dns_tcp_listen(d->tcp, take_fd(&fds[1]), &err) < 0) {
		log_error("%s", err.msg);
		return "gave sockets that cannot be served";
	}
	if (n_fds == 4 && (dns_proxy_listen6(d->proxy, take_fd(&fds[2]), &err) < 0 || dns_tcp_listen6(d->tcp, take_fd(&fds[3]), &err) < 0)) {
		log_error("%s", err.msg);
		return "gave IPv6 sockets that cannot be served";
	}
	b->retry_ms = RETRY_FIRST_MS;
	if (b->served)
		log_info("served again through a new connection to the broker");
	else
		log_info("serving %zu name server(s) to the sandboxes", d->upstreams.n);
	b->served = true;
	/* The kernel gives the packets to one socket only, so ours of the former broker has to go first. */
	dnsd_log_socket(d->log, -1);
	/* Before the leases, which are queued: they may be more than the socket takes at once. */
	if (ask(b, BROKER_OP_LOG_SOCKET) < 0 || (dnsd_gate_wanted(d->gate) && ask(b, BROKER_OP_GATE) < 0))
		return "cannot be written to";
	dnsd_policy_broker_up(d->policy);
	pin_again(b);
	renew_later(b);
	return NULL;
}

static void got_log(struct dnsd_broker *b, const union broker_any *m, size_t n, int *fds, size_t n_fds)
{
	if (n == sizeof(m->reply) && !m->reply.status && n_fds == 1)
		dnsd_log_socket(b->d->log, take_fd(&fds[0]));
	else
		log_warn("broker: refused packets cannot be read: %.200s", n == sizeof(m->reply) ? m->reply.text : "malformed");
}

/* Without it nothing passes the gate: who wants it says so in the log, and the rules stay as they are. */
static void got_gate(struct dnsd_broker *b, const union broker_any *m, size_t n, int *fds, size_t n_fds)
{
	if (n == sizeof(m->reply) && !m->reply.status && n_fds == 1)
		dnsd_gate_device(b->d->gate, take_fd(&fds[0]));
	else
		log_error("broker: no interface for the gate of TLS names: %.200s", n == sizeof(m->reply) ? m->reply.text : "malformed");
}

static const char *got_pin(struct dnsd_broker *b, const union broker_any *m, size_t n)
{
	uint32_t i = (uint32_t)m->head.tag, serial = (uint32_t)(m->head.tag >> 32);

	if (n != sizeof(m->reply) || i >= TICKETS || b->ticket[i].kind == TICKET_FREE || b->ticket[i].serial != serial)
		return "answered a pin that was not asked for";
	if (m->reply.status)
		log_debug("broker: %s: %.200s", m->head.op == BROKER_OP_PIN ? "pin" : "unpin", m->reply.text);
	ticket_over(b, i, m->reply.status);
	return NULL;
}

static const char *got_flows(struct dnsd_broker *b, const union broker_any *m, size_t n)
{
	/* A broker that cannot say is not a broken one: leases then end with their time. */
	if (n == sizeof(m->reply) || (n == sizeof(m->flows_reply) && m->flows_reply.status))
		return NULL;
	if (n != sizeof(m->flows_reply) || m->flows_reply.n_flows > BROKER_FLOW_PAIRS)
		return "sent malformed connections";
	for (uint32_t i = 0; i < m->flows_reply.n_flows; i++)
		renew(b, &m->flows_reply.flow[i]);
	return NULL;
}

static const char *got_message(struct dnsd_broker *b, const union broker_any *m, size_t n, int *fds, size_t n_fds)
{
	if (n < sizeof(m->head) || m->head.magic != BROKER_MAGIC || m->head.size != (uint32_t)n)
		return "sent a malformed message";
	switch (m->head.op) {
	case BROKER_OP_HELLO:
		return got_hello(b, m, n);
	case BROKER_OP_DNS_SOCKETS:
		return got_sockets(b, m, n, fds, n_fds);
	case BROKER_OP_LOG_SOCKET:
		got_log(b, m, n, fds, n_fds);
		return NULL;
	case BROKER_OP_GATE:
		got_gate(b, m, n, fds, n_fds);
		return NULL;
	case BROKER_OP_PIN:
	case BROKER_OP_UNPIN:
		return got_pin(b, m, n);
	case BROKER_OP_FLOWS:
		return got_flows(b, m, n);
	default:
		return NULL;
	}
}

static void broker_ready(void *arg, int fd, uint32_t events)
{
	static union broker_any m;
	struct dnsd_broker *b = arg;
	const char *wrong = NULL;

	(void)events;
	for (unsigned i = 0; i < 2 * BATCH && !wrong && b->fd == fd; i++) {
		int fds[4] = {-1, -1, -1, -1};
		size_t n_fds = 0;
		ssize_t n = fdpass_recv(fd, &m, sizeof(m), fds, ARRAY_SIZE(fds), &n_fds);

		if (n == -EAGAIN || n == -EINTR)
			break;
		wrong = n < 0 ? strerror((int)-n) : n == 0 ? "closed the connection" : got_message(b, &m, (size_t)n, fds, n_fds);
		for (size_t j = 0; j < ARRAY_SIZE(fds); j++)
			close_keep_errno(fds[j]);
	}
	if (wrong)
		lose(b, wrong);
	dnsd_turn(b->d);
}

static int open_broker(struct dnsd_broker *b)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct broker_hello hello = {.version = BROKER_VERSION};
	auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int n = snprintf(to.sun_path, sizeof(to.sun_path), "%s/broker.sock", b->d->settings.run_dir);

	if (fd < 0 || n < 0 || (size_t)n >= sizeof(to.sun_path))
		return fd < 0 ? -errno : -ENAMETOOLONG;
	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	b->source = loop_fd_add(b->d->loop, fd, EPOLLIN, broker_ready, b);
	if (!b->source)
		return -errno;
	b->fd = take_fd(&fd);
	return send_plain(b, BROKER_OP_HELLO, &hello, sizeof(hello));
}

static void connect_broker(void *arg)
{
	struct dnsd_broker *b = arg;
	int r = b->fd >= 0 ? 0 : open_broker(b);

	if (r < 0) {
		log_debug("broker: %s", strerror(-r));
		lose(b, strerror(-r));
	}
}

void dnsd_broker_retry(struct dnsd_broker *b)
{
	if (b->fd < 0)
		loop_timer_arm(b->retry, 0);
}

struct dnsd_broker *dnsd_broker_new(struct dnsd *d, struct sbx_err *err)
{
	struct dnsd_broker *b = calloc(1, sizeof(*b));

	if (b) {
		b->d = d;
		b->fd = -1;
		b->retry_ms = RETRY_FIRST_MS;
		b->queue = calloc(QUEUE_MAX, sizeof(*b->queue));
		b->retry = loop_timer_new(d->loop, connect_broker, b);
		b->renew = loop_timer_new(d->loop, renew_due, b);
		b->expire = loop_timer_new(d->loop, expire_due, b);
	}
	if (!b || !b->queue || !b->retry || !b->renew || !b->expire) {
		dnsd_broker_free(b);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "channel to the broker");
		return NULL;
	}
	for (uint32_t i = TICKETS; i-- > 0;)
		ticket_free(b, i);
	loop_timer_arm(b->retry, 0);
	loop_timer_arm(b->expire, EXPIRE_MS);
	return b;
}

void dnsd_broker_free(struct dnsd_broker *b)
{
	if (!b)
		return;
	loop_fd_remove(b->source);
	close_keep_errno(b->fd);
	loop_timer_free(b->retry);
	loop_timer_free(b->renew);
	loop_timer_free(b->expire);
	free(b->queue);
	free(b);
}
