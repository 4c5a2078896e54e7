/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel to sandboxd: policies come, events and answers about leases go.  A new policy is in force for names at once; its
 * ACK waits until the kernel has closed what only the old one allowed, over the next broker when this one dies.  Without
 * sandboxd everything goes on as it was.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/wallclock.h"

#include "netpolicy/dnsd_int.h"
#include "netpolicy/policy_wire.h"

#define RETRY_FIRST_MS 20u
#define RETRY_MAX_MS   2000u
#define CHANGES_MAX    4096u /* SETs whose addresses are being closed */
#define ACKS_MAX       4096u
#define SNDBUF_BYTES   (1 << 20)
#define BATCH	       64u

/* A SET that waits for the kernel. */
struct change {
	uint64_t tag; /* of the SET */
	uint64_t waiter; /* 0: not in use */
	unsigned n_open;
	bool waits; /* for a broker */
	int status;
	struct egress_ref ref;
};

struct dnsd_policy {
	struct dnsd *d;
	int fd; /* owned */
	struct loop_fd *source;
	struct loop_timer *retry;
	uint64_t retry_ms;
	bool synced; /* SYNCED came once */
	bool told;   /* and over this connection: sandboxd knows the sandboxes that events are about */
	uint64_t next_waiter, next_serial;
	struct change change[CHANGES_MAX];
	struct egress_ack *late; /* owned; ACKs that did not fit into the socket, ACKS_MAX of them */
	uint32_t n_late;
};

/* ---- sending ---- */

static int send_message(struct dnsd_policy *p, const void *msg, size_t size)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = size};

	return p->fd < 0 ? -ENOTCONN : fdpass_send(p->fd, &iov, 1, NULL, 0);
}

static void ack(struct dnsd_policy *p, uint64_t tag, int status, const char *text)
{
	struct egress_ack a = {.head = {.magic = EGRESS_MAGIC, .kind = EGRESS_ACK, .tag = tag, .size = sizeof(a)}, .status = status};

	if (text)
		memcpy(a.text, text, strnlen(text, sizeof(a.text) - 1));
	if (!p->n_late && send_message(p, &a, sizeof(a)) != -EAGAIN)
		return;
	/* More than ACKS_MAX questions at once nobody has; then sandboxd's own time-out speaks. */
	if (p->n_late < ACKS_MAX)
		p->late[p->n_late++] = a;
	loop_fd_events(p->source, EPOLLIN | EPOLLOUT);
}

static void send_late(struct dnsd_policy *p)
{
	uint32_t sent = 0;

	while (sent < p->n_late && send_message(p, &p->late[sent], sizeof(p->late[0])) != -EAGAIN)
		sent++;
	memmove(p->late, p->late + sent, (p->n_late - sent) * sizeof(p->late[0]));
	p->n_late -= sent;
	if (!p->n_late && p->source)
		loop_fd_events(p->source, EPOLLIN);
}

int dnsd_policy_event(struct dnsd_policy *p, const struct egress_event *e)
{
	if (!p->told)
		return -ENOTCONN;
	return p->n_late ? -EAGAIN : send_message(p, e, sizeof(*e));
}

/* ---- what a change of policy closes and opens ---- */

static struct change *change_new(struct dnsd_policy *p, uint64_t tag, struct egress_ref ref)
{
	for (unsigned i = 0; i < CHANGES_MAX; i++)
		if (!p->change[i].waiter) {
			p->change[i] = (struct change){.tag = tag, .waiter = ++p->next_waiter * CHANGES_MAX + i, .ref = ref};
			return &p->change[i];
		}
	return NULL;
}

static void change_done(struct dnsd_policy *p, struct change *c)
{
	if (c->n_open || (c->waits && !c->status))
		return;
	ack(p, c->tag, c->status, c->status ? "the kernel still has addresses open that the new policy does not allow" : NULL);
	c->waiter = 0;
}

void dnsd_policy_unpinned(struct dnsd_policy *p, const struct dnsd_unpin *unpin, int status)
{
	struct dns_sandbox *s = status ? NULL : dns_sandboxes_by_ref(p->d->sandboxes, unpin->ref);
	struct change *c = &p->change[unpin->waiter % CHANGES_MAX];

	if (s)
		dns_leases_shut_done(p->d->leases, s, unpin->serial);
	if (!unpin->waiter || c->waiter != unpin->waiter)
		return;
	c->n_open--;
	if (status == SBX_E_PEER_GONE)
		c->waits = true;
	else if (status)
		c->status = status;
	change_done(p, c);
}

/* Whether the name that owns a lease, and the names on its way, are still allowed; @ret: by which rule. */
static bool still_allowed(const struct dnsd *d, const struct dns_sandbox *s, const struct dns_lease *r, struct dns_verdict *ret)
{
	*ret = dns_judge(d, s, r->name, r->name_len, false);
	if (!ret->allow)
		return false;
	/* What was on the way but could not be noted is taken as denied when the policy denies anything by name. */
	if (r->flags & DNS_LEASE_VIA_CUT)
		for (uint32_t i = 0; s->policy && i < policy_count(s->policy); i++)
			if (policy_at(s->policy, i)->kind <= EGRESS_RULE_WILDCARD && !(policy_at(s->policy, i)->flags & EGRESS_RULE_ALLOW))
				return false;
	for (size_t at = 0; at < r->via_len; at += strlen(r->via + at) + 1) {
		struct dns_verdict v = dns_judge(d, s, r->via + at, strlen(r->via + at), strchr(r->via + at, '?') != NULL);

		if (!v.allow && v.by_rule)
			return false;
	}
	return true;
}

/* The ports are part of what the kernel has open; a rule with other ones is another opening. */
static bool ports_fit(const struct dns_lease *r, const struct policy_rule *rule)
{
	unsigned n = 0;

	for (unsigned i = 0; rule && i < rule->n_ports; i++)
		for (uint32_t port = rule->ports[i].first; port <= rule->ports[i].last; port++)
			if (n >= r->n_ports || r->port[n++] != port)
				return false;
	return n == r->n_ports;
}

/* Addresses with the same ports leave in one message: a policy may take thousands away. */
struct closing {
	const struct dns_sandbox *s;
	struct change *c; /* NULL: nobody waits */
	uint64_t serial;
	bool six; /* addr6 counts */
	union {
		uint32_t addr[EGRESS_PINS_MAX];
		struct ip6 addr6[DNS_ADDRS6_MAX];
	};
	uint32_t n, n_ports;
	uint16_t port[DNS_LEASE_PORTS];
	int failed; /* -errno of what could not be asked for */
};

static void closing_flush(struct dnsd_policy *p, struct closing *k)
{
	const struct dnsd_pin pin = {.sandbox = k->s, .addr = k->addr, .addr6 = k->six ? k->addr6 : NULL, .n_addrs = k->n, .port = k->port, .n_ports = k->n_ports};
	const struct dnsd_unpin unpin = {.ref = k->s->ref, .serial = k->serial, .waiter = k->c ? k->c->waiter : 0};
	int status = k->n ? dnsd_broker_unpin(p->d->broker, &pin, &unpin) : 0;

	if (status < 0)
		k->failed = status;
	else if (k->n && k->c)
		k->c->n_open++;
	k->n = 0;
	k->serial = ++p->next_serial;
}

static void close_lease(struct dnsd_policy *p, struct dns_sandbox *s, uint32_t index, const struct dns_lease *r, struct closing *k)
{
	const struct dns_lease gone = *r;

	if (!dns_leases_shut(p->d->leases, s, index))
		return;
	if (k->n == (k->six ? DNS_ADDRS6_MAX : EGRESS_PINS_MAX) || k->six == !!gone.addr || k->n_ports != gone.n_ports || memcmp(k->port, gone.port, gone.n_ports * sizeof(gone.port[0])) != 0)
		closing_flush(p, k);
	dns_leases_shut_asked(p->d->leases, index, k->serial);
	k->n_ports = gone.n_ports;
	memcpy(k->port, gone.port, sizeof(k->port));
	k->six = !gone.addr;
	if (k->six)
		k->addr6[k->n++] = gone.addr6;
	else
		k->addr[k->n++] = gone.addr;
}

static void open_again(struct dnsd *d, const struct dns_sandbox *s, struct dns_lease *r, uint64_t now)
{
	struct dnsd_pin pin = dnsd_pin_of(s, r);

	pin.lease_ms = (uint32_t)(r->until_ms - now);
	r->flags |= DNS_LEASE_PINNED;
	if (dnsd_broker_pin(d->broker, &pin, NULL) < 0)
		r->flags |= DNS_LEASE_UNSURE;
}

/* Goes through the leases after the policy was replaced; Return: 0 or -errno of what could not be asked for */
static int apply(struct dnsd_policy *p, struct dns_sandbox *s, struct change *c)
{
	struct dnsd *d = p->d;
	bool pinned = s->policy && !policy_default_allow(s->policy);
	struct closing closing = {.s = s, .c = c, .serial = ++p->next_serial};
	uint64_t now = mono_ms();
	uint32_t at = 0, next;

	dns_leases_expire(d->leases, s, now);
	for (struct dns_lease *r = dns_leases_next(d->leases, s, &at); r; at = next) {
		struct dns_lease *following;
		struct dns_verdict v;

		next = at;
		following = dns_leases_next(d->leases, s, &next);
		if (!still_allowed(d, s, r, &v) || (pinned && !ports_fit(r, v.which))) {
			close_lease(p, s, at, r, &closing);
		} else if (pinned && (r->flags & (DNS_LEASE_PINNED | DNS_LEASE_CLOSING)) != DNS_LEASE_PINNED && r->until_ms > now) {
			/*
			 * Allowed by default until now, and by name from now on: what the sandbox has resolved goes on working.  So does
			 * what the policy before took away, whether or not the kernel has closed it yet.
			 */
			if (dns_leases_keep(d->leases, s, at))
				open_again(d, s, r, now);
			else
				close_lease(p, s, at, r, &closing);
		}
		r = following;
	}
	closing_flush(p, &closing);
	return closing.failed;
}

/* ---- requests ---- */

static void forget_sandbox(struct dnsd *d, struct dns_sandbox *s)
{
	dns_lookup_drop(d, s);
	dns_tcp_drop(d->tcp, s);
	dns_cache_drop(d->cache, s);
	dns_leases_drop(d->leases, s);
	dns_sandboxes_remove(d->sandboxes, s);
}

static struct policy *read_policy(const struct egress_set *m, int fd, struct sbx_err *err)
{
	bool default_allow = m->flags & EGRESS_SET_DEFAULT_ALLOW;
	struct policy *policy;
	struct stat st;
	void *body;

	if (!m->n_rules && !m->body_bytes)
		return policy_wire_read("", 0, 0, default_allow, err);
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size != (off_t)m->body_bytes || m->body_bytes > EGRESS_BODY_MAX ||
	    m->n_rules > EGRESS_RULES_MAX) {
		sbx_err_set(err, SBX_E_PROTOCOL, 0, "the rules' file does not fit");
		return NULL;
	}
	/* Sealed: nobody can shorten or change it while it is read. */
	if (fcntl(fd, F_GET_SEALS) < 0 || (fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_WRITE)) {
		sbx_err_set(err, SBX_E_PROTOCOL, 0, "the rules' file is not sealed");
		return NULL;
	}
	body = mmap(NULL, m->body_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (body == MAP_FAILED) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "the rules' file");
		return NULL;
	}
	policy = policy_wire_read(body, m->body_bytes, m->n_rules, default_allow, err);
	munmap(body, m->body_bytes);
	return policy;
}

/* The struct for this life of this address; an older life of it ends. */
static struct dns_sandbox *sandbox_for(struct dnsd_policy *p, const struct egress_set *m)
{
	struct dnsd *d = p->d;
	struct dns_sandbox *s = dns_sandboxes_find(d->sandboxes, m->addr);

	if (s && (s->ref.slot != m->ref.slot || s->ref.generation != m->ref.generation)) {
		forget_sandbox(d, s);
		s = NULL;
	}
	if (s)
		return s;
	/* The same life with another address: it cannot be, so the older word is forgotten. */
	s = dns_sandboxes_by_ref(d->sandboxes, m->ref);
	if (s)
		forget_sandbox(d, s);
	s = dns_sandboxes_add(d->sandboxes, m->ref, m->addr, loop_now_ms(d->loop));
	if (s && !p->synced)
		dns_leases_adopt(d->leases, s);
	return s;
}

static void on_set(struct dnsd_policy *p, const struct egress_set *m, int fd)
{
	struct sbx_err err = {0};
	struct policy *policy = read_policy(m, fd, &err);
	struct dns_sandbox *s = policy ? sandbox_for(p, m) : NULL;
	struct change *c = s ? change_new(p, m->head.tag, m->ref) : NULL;
	int failed;

	if (!c) {
		/* The old policy stays in force; sandboxd does not tell its client that the new one is. */
		policy_free(policy);
		ack(p, m->head.tag, policy ? SBX_E_LIMIT : (int)err.code, policy ? "too many changes at once" : err.msg);
		return;
	}
	dnsd_events_policy(p->d->events, s, policy, m->policy_generation);
	policy_free(s->policy);
	s->policy = policy;
	s->flags = m->flags;
	s->policy_generation = m->policy_generation;
	memcpy(s->id, m->sandbox_id, sizeof(s->id));
	s->named = true;
	failed = apply(p, s, c);
	/* Without a broker the next one is waited for; sandboxd's patience is what ends that. */
	if (failed == -ENOTCONN)
		c->waits = true;
	else if (failed)
		c->status = SBX_E_LIMIT;
	change_done(p, c);
}

/* Asks again for what @s has still to close; @c may be NULL. */
static int close_again(struct dnsd_policy *p, struct dns_sandbox *s, struct change *c)
{
	struct closing closing = {.s = s, .c = c, .serial = ++p->next_serial};
	uint32_t at = 0, next;

	for (struct dns_lease *r = dns_leases_next(p->d->leases, s, &at); r; at = next) {
		struct dns_lease *following;

		next = at;
		following = dns_leases_next(p->d->leases, s, &next);
		if (r->flags & DNS_LEASE_CLOSING)
			close_lease(p, s, at, r, &closing);
		r = following;
	}
	closing_flush(p, &closing);
	return closing.failed;
}

/* Whether a change of @s waits for a broker. */
static bool is_waited_for(const struct dnsd_policy *p, const struct dns_sandbox *s)
{
	for (unsigned i = 0; i < CHANGES_MAX; i++)
		if (p->change[i].waiter && p->change[i].waits && p->change[i].ref.slot == s->ref.slot &&
		    p->change[i].ref.generation == s->ref.generation)
			return true;
	return false;
}

void dnsd_policy_close(struct dnsd_policy *p, struct dns_sandbox *s, uint32_t index)
{
	struct closing closing = {.s = s, .serial = ++p->next_serial};

	/* Without a broker the next one is asked; when too much waits already, dnsd_policy_close_rest() asks. */
	close_lease(p, s, index, dns_leases_at(p->d->leases, index), &closing);
	closing_flush(p, &closing);
}

void dnsd_policy_close_rest(struct dnsd_policy *p)
{
	for (struct dns_sandbox *s = dns_sandboxes_first(p->d->sandboxes); s; s = s->next)
		if (s->closing_elements && !is_waited_for(p, s) && close_again(p, s, NULL) < 0)
			log_warn("addresses that are no longer allowed stay open until the next connection to the broker, or their end");
}

void dnsd_policy_broker_up(struct dnsd_policy *p)
{
	dnsd_policy_close_rest(p);
	for (unsigned i = 0; i < CHANGES_MAX; i++) {
		struct change *c = &p->change[i];
		struct dns_sandbox *s = c->waiter && c->waits ? dns_sandboxes_by_ref(p->d->sandboxes, c->ref) : NULL;
		int failed = s ? close_again(p, s, c) : 0;

		if (!c->waiter || !c->waits)
			continue;
		c->waits = failed == -ENOTCONN;
		if (failed && !c->waits)
			c->status = SBX_E_LIMIT;
		change_done(p, c);
	}
}

static void on_synced(struct dnsd_policy *p)
{
	struct dnsd *d = p->d;

	for (struct dns_sandbox *s = dns_sandboxes_first(d->sandboxes), *next; s; s = next) {
		next = s->next;
		if (!s->named)
			forget_sandbox(d, s);
	}
	dns_leases_orphans(d->leases);
	p->synced = p->told = true;
	dnsd_events_flush(d->events);
}

static void on_drop(struct dnsd_policy *p, const struct egress_drop *m)
{
	struct dns_sandbox *s = dns_sandboxes_by_ref(p->d->sandboxes, m->ref);

	if (s)
		forget_sandbox(p->d, s);
	ack(p, m->head.tag, 0, NULL);
}

static void on_pins(struct dnsd_policy *p, const struct egress_pins *m)
{
	static struct egress_pins_reply r;
	const struct dns_sandbox *s = dns_sandboxes_by_ref(p->d->sandboxes, m->ref);
	size_t len = strnlen(m->name, sizeof(m->name) - 1);
	uint64_t now = mono_ms();
	const struct dns_lease *l;
	uint32_t at = 0;

	memset(&r, 0, sizeof(r));
	r.head = (struct egress_head){.magic = EGRESS_MAGIC, .kind = EGRESS_PINS_REPLY, .tag = m->head.tag, .size = sizeof(r)};
	r.status = s ? 0 : SBX_E_SANDBOX_NOT_FOUND;
	while (s && r.n_pins < EGRESS_PINS_MAX && (l = dns_leases_next(p->d->leases, s, &at))) {
		struct egress_pin *pin = &r.pin[r.n_pins];

		if (l->until_ms <= now || (len ? l->name_len != len || memcmp(l->name, m->name, len) != 0 : l->addr != m->addr || !ip6_same(l->addr6, m->addr6)))
			continue;
		pin->addr = l->addr;
		pin->addr6 = l->addr6;
		pin->lease_ms = (uint32_t)(l->until_ms - now);
		memcpy(pin->name, l->name, l->name_len);
		r.n_pins++;
	}
	/* Who asks can ask again. */
	if (send_message(p, &r, sizeof(r)) < 0)
		log_debug("sandboxd: leases could not be told");
}

static void on_counts(struct dnsd_policy *p, const struct egress_plain *m)
{
	const struct dnsd *d = p->d;
	const struct dnsd_counts *c = &d->counts;
	struct egress_counts_reply r = {
		.head = {.magic = EGRESS_MAGIC, .kind = EGRESS_COUNTS_REPLY, .tag = m->head.tag, .size = sizeof(r)},
		.questions = c->questions, .answered = c->answered, .denied = c->denied, .failed = c->failed,
		.rate_limited = c->rate_limited, .forged = dns_exchange_forged(d->exchange), .pins = c->pins,
		.pin_failures = c->pin_failures, .rebind_stripped = c->rebind_stripped, .tunnel_suspected = c->tunnel_suspected,
		.sni_allowed = c->sni_allowed, .sni_denied = c->sni_denied, .sni_unmatched = c->sni_unmatched,
		.packets_denied = c->packets_denied, .cached = c->cached, .leases = dns_leases_count(d->leases),
		.upstream_usec_sum = c->upstream_usec_sum, .upstream_count = c->upstream_count,
		.events_lost = c->events_lost, .events_held = dnsd_events_held(d->events),
	};

	if (send_message(p, &r, sizeof(r)) < 0)
		log_debug("sandboxd: counters could not be told");
}

/* ---- connection ---- */

static void lose(struct dnsd_policy *p, const char *why)
{
	if (p->fd >= 0)
		log_warn("sandboxd: %s; serving on with the policies known, connecting again", why);
	loop_fd_remove(p->source);
	p->source = NULL;
	replace_fd(&p->fd, -1);
	p->n_late = 0;
	p->told = false;
	memset(p->change, 0, sizeof(p->change));
	loop_timer_arm(p->retry, p->retry_ms);
	p->retry_ms = p->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : p->retry_ms * 2;
}

static const size_t sizes[EGRESS_KIND_COUNT] = {
	[EGRESS_HELLO_REPLY] = sizeof(struct egress_hello), [EGRESS_SET] = sizeof(struct egress_set),
	[EGRESS_DROP] = sizeof(struct egress_drop),	     [EGRESS_SYNCED] = sizeof(struct egress_plain),
	[EGRESS_PINS] = sizeof(struct egress_pins),	     [EGRESS_COUNTS] = sizeof(struct egress_plain),
};

static const char *got_message(struct dnsd_policy *p, const union egress_any *m, size_t n, int fd)
{
	if (n < sizeof(m->head) || m->head.magic != EGRESS_MAGIC || m->head.size != n || m->head.kind >= EGRESS_KIND_COUNT ||
	    sizes[m->head.kind] != n)
		return "sent a malformed message";
	switch (m->head.kind) {
	case EGRESS_HELLO_REPLY:
		if (m->hello.version != EGRESS_VERSION)
			return "speaks another version";
		p->retry_ms = RETRY_FIRST_MS;
		break;
	case EGRESS_SET:
		on_set(p, &m->set, fd);
		break;
	case EGRESS_DROP:
		on_drop(p, &m->drop);
		break;
	case EGRESS_SYNCED:
		on_synced(p);
		break;
	case EGRESS_PINS:
		on_pins(p, &m->pins);
		break;
	case EGRESS_COUNTS:
		on_counts(p, &m->plain);
		break;
	default:
		return "sent a message that is not for us";
	}
	return NULL;
}

static void policy_ready(void *arg, int fd, uint32_t events)
{
	static union egress_any m;
	struct dnsd_policy *p = arg;
	const char *wrong = NULL;

	if ((events & EPOLLOUT) && p->n_late)
		send_late(p);
	for (unsigned i = 0; i < BATCH && !wrong && p->fd == fd; i++) {
		int body = -1;
		size_t n_fds = 0;
		ssize_t n = fdpass_recv(fd, &m, sizeof(m), &body, 1, &n_fds);

		if (n == -EAGAIN || n == -EINTR)
			break;
		wrong = n < 0 ? strerror((int)-n) : n == 0 ? "closed the connection" : got_message(p, &m, (size_t)n, body);
		close_keep_errno(body);
	}
	if (wrong)
		lose(p, wrong);
	dnsd_turn(p->d);
}

static int open_policy(struct dnsd_policy *p)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct egress_hello hello = {.head = {.magic = EGRESS_MAGIC, .kind = EGRESS_HELLO, .size = sizeof(hello)}, .version = EGRESS_VERSION};
	auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int n = snprintf(to.sun_path, sizeof(to.sun_path), "%s/policy.sock", p->d->settings.run_dir), bytes = SNDBUF_BYTES;

	if (fd < 0 || n < 0 || (size_t)n >= sizeof(to.sun_path))
		return fd < 0 ? -errno : -ENAMETOOLONG;
	/* As many events as the host lets wait; with less there are more lost ones, which are counted. */
	ignore_result(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0);
	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	p->source = loop_fd_add(p->d->loop, fd, EPOLLIN, policy_ready, p);
	if (!p->source)
		return -errno;
	p->fd = take_fd(&fd);
	for (struct dns_sandbox *s = dns_sandboxes_first(p->d->sandboxes); s; s = s->next)
		s->named = false;
	return send_message(p, &hello, sizeof(hello));
}

static void connect_policy(void *arg)
{
	struct dnsd_policy *p = arg;
	int r = p->fd >= 0 ? 0 : open_policy(p);

	if (r < 0) {
		log_debug("sandboxd: %s", strerror(-r));
		lose(p, strerror(-r));
	}
}

void dnsd_policy_retry(struct dnsd_policy *p)
{
	if (p->fd < 0)
		loop_timer_arm(p->retry, 0);
}

struct dnsd_policy *dnsd_policy_new(struct dnsd *d, struct sbx_err *err)
{
	struct dnsd_policy *p = calloc(1, sizeof(*p));

	if (p) {
		p->d = d;
		p->fd = -1;
		p->retry_ms = RETRY_FIRST_MS;
		p->late = calloc(ACKS_MAX, sizeof(*p->late));
		p->retry = loop_timer_new(d->loop, connect_policy, p);
	}
	if (!p || !p->late || !p->retry) {
		dnsd_policy_free(p);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "channel to sandboxd");
		return NULL;
	}
	loop_timer_arm(p->retry, 0);
	return p;
}

void dnsd_policy_free(struct dnsd_policy *p)
{
	if (!p)
		return;
	loop_fd_remove(p->source);
	close_keep_errno(p->fd);
	loop_timer_free(p->retry);
	free(p->late);
	free(p);
}
