/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate of TLS names.  The router sends what sandboxes with rules for names begin towards port 443 through an interface
 * whose other end is here; each packet is dropped, or written back with a hop count that says what is to become of it.  A flow
 * that was released is the kernel's: it lives on when this process dies, and a packet of it costs nothing here.
 *
 * A packet of a flow whose beginning was not seen (this process is a new one) is reset: the client connects again.
 */
#include "config.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/wallclock.h"

#include "netpolicy/dnsd_int.h"
#include "netpolicy/gate_mode.h"
#include "netpolicy/gate_packet.h"
#include "runtime/broker/broker_msg.h"

#define BATCH	 64u
#define BUCKETS	 16384u
#define SOURCES	 8192u
#define SWEEP_MS 2000u
#define EVICT_MS 5000u /* a silent flow may give way to a new one after this */

struct entry {
	struct entry *next_in_bucket, *next, *prev; /* in the order of their beginning */
	struct egress_ref ref;
	uint32_t sandbox_addr, target;
	struct ip6 target6;
	uint16_t source_port, port;
	struct gate_flow flow;
};

struct dnsd_gate {
	struct dnsd *d;
	enum gate_mode mode;
	int fd; /* owned */
	struct loop_fd *source;
	struct loop_timer *sweep;
	struct entry *bucket[BUCKETS];
	struct entry *first, *last;
	uint32_t n;
	size_t n_bytes;
	struct share {
		uint16_t flows;
		size_t n_bytes;
	} of_source[SOURCES]; /* addresses of sandboxes follow each other: their low bits are distinct */
	uint8_t buf[65536];
};

/* ---- the table ---- */

static struct entry **place(struct dnsd_gate *g, uint32_t sandbox_addr, const struct gate_packet *p)
{
	uint64_t h = ((uint64_t)sandbox_addr << 32 ^ (uint64_t)p->target << 16 ^ (uint64_t)p->source_port << 8 ^ p->port) ^ p->target6.lo ^
		     (p->target6.hi << 1);
	struct entry **at;

	h *= UINT64_C(0x9e3779b97f4a7c15);
	at = &g->bucket[(h >> 40) % BUCKETS];
	while (*at && ((*at)->sandbox_addr != sandbox_addr || (*at)->target != p->target || (*at)->target6.hi != p->target6.hi ||
		       (*at)->target6.lo != p->target6.lo || (*at)->source_port != p->source_port || (*at)->port != p->port))
		at = &(*at)->next_in_bucket;
	return at;
}

/* @e has @before bytes less than it had, and what it has now more. */
static void count_bytes(struct dnsd_gate *g, const struct entry *e, size_t before)
{
	size_t *of_source = &g->of_source[e->sandbox_addr % SOURCES].n_bytes;

	g->n_bytes = g->n_bytes - before + e->flow.room;
	*of_source = *of_source - before + e->flow.room;
}

/* What @e may have: its sandbox's rest, so that some sandboxes that say half of their hellos take nothing from others. */
static size_t may_have(const struct dnsd_gate *g, const struct entry *e)
{
	const size_t of_all = LIMIT_GATE_BYTES_ALL - g->n_bytes;
	const size_t of_source = LIMIT_GATE_BYTES - g->of_source[e->sandbox_addr % SOURCES].n_bytes;

	return e->flow.room + (FAULT_POINT("gate-bytes") ? of_all : of_all < of_source ? of_all : of_source);
}

static void take_out(struct dnsd_gate *g, struct entry **at)
{
	struct entry *e = *at;

	*at = e->next_in_bucket;
	if (e->prev)
		e->prev->next = e->next;
	else
		g->first = e->next;
	if (e->next)
		e->next->prev = e->prev;
	else
		g->last = e->prev;
	g->n--;
	g->of_source[e->sandbox_addr % SOURCES].flows--;
	const size_t before = e->flow.room;
	gate_flow_clear(&e->flow);
	count_bytes(g, e, before);
	free(e);
}

static struct entry **place_of(struct dnsd_gate *g, const struct entry *e)
{
	const struct gate_packet p = {.target = e->target, .target6 = e->target6, .source_port = e->source_port, .port = e->port};

	return place(g, e->sandbox_addr, &p);
}

/* A sandbox at its bound loses its oldest flow that has said nothing, if that one had its time; nobody else's. */
static bool make_room(struct dnsd_gate *g, uint32_t sandbox_addr, uint64_t now)
{
	struct entry *e;

	if (g->n < LIMIT_GATE_FLOWS_ALL && (g->of_source[sandbox_addr % SOURCES].flows < LIMIT_GATE_FLOWS || FAULT_POINT("gate-flows")))
		return true;
	for (e = g->first; e && now - e->flow.since_ms > EVICT_MS; e = e->next)
		if (e->sandbox_addr == sandbox_addr && e->flow.state == GATE_SILENT) {
			take_out(g, place_of(g, e));
			return g->n < LIMIT_GATE_FLOWS_ALL;
		}
	return false;
}

static struct entry *put_in(struct dnsd_gate *g, const struct dns_sandbox *s, const struct gate_packet *p)
{
	struct entry *e = make_room(g, s->addr, p->seg.now_ms) ? calloc(1, sizeof(*e)) : NULL;
	struct entry **at;

	if (!e)
		return NULL;
	e->ref = s->ref;
	e->sandbox_addr = s->addr;
	e->target = p->target;
	e->target6 = p->target6;
	e->source_port = p->source_port;
	e->port = p->port;
	at = place(g, s->addr, p);
	e->next_in_bucket = *at;
	*at = e;
	e->prev = g->last;
	if (g->last)
		g->last->next = e;
	else
		g->first = e;
	g->last = e;
	g->n++;
	g->of_source[s->addr % SOURCES].flows++;
	return e;
}

static void sweep_due(void *arg)
{
	struct dnsd_gate *g = arg;
	uint64_t now = mono_ms();

	for (struct entry *e = g->first, *next; e; e = next) {
		next = e->next;
		if (gate_flow_over(&e->flow, now))
			take_out(g, place_of(g, e));
	}
	if (g->n)
		loop_timer_arm(g->sweep, SWEEP_MS);
}

/* ---- verdicts ---- */

static bool enforced(const struct dnsd_gate *g, const struct dns_sandbox *s)
{
	return gate_mode_enforced(g->mode, s->policy);
}

/* What the policy says to the hello.  Where names that no rule matches are allowed, so is what has no name. */
static bool judge(const struct dnsd_gate *g, const struct dns_sandbox *s, const struct entry *e, struct dnsd_note *note)
{
	const struct tls_hello *h = &e->flow.hello;
	bool open = s->policy && policy_default_allow(s->policy);
	struct dns_verdict v;

	if (h->found == TLS_HELLO_NAME) {
		v = dns_judge(g->d, s, h->name, h->name_len, false);
		note->name = h->name;
		note->name_len = h->name_len;
		note->reason = v.reason;
		note->rule = v.rule;
		if (v.allow && v.which && !policy_rule_port(v.which, e->port)) {
			note->reason = EGRESS_REASON_PORT;
			return false;
		}
		return s->policy && v.allow;
	}
	if (h->found == TLS_HELLO_NO_NAME || h->found == TLS_HELLO_OTHER) {
		note->reason = h->found == TLS_HELLO_OTHER ? EGRESS_REASON_NOT_TLS : EGRESS_REASON_NO_SNI;
		return open;
	}
	note->reason = EGRESS_REASON_BAD_HELLO;
	note->text = h->wrong;
	return false;
}

/* Return: what becomes of the packet whose hello was read; the event is told */
static enum gate_said judged(struct dnsd_gate *g, const struct dns_sandbox *s, struct entry *e, uint64_t now)
{
	struct dnsd_note note = {.rule = EGRESS_NO_RULE, .name = "", .addr = e->target, .addr6 = e->target6, .port = e->port, .protocol = IPPROTO_TCP};
	bool enforce = enforced(g, s), allow = judge(g, s, e, &note) || FAULT_POINT("gate-judge");

	if (allow)
		g->d->counts.sni_allowed++;
	else
		note.kind = enforce ? EGRESS_EVENT_SNI_DENIED : EGRESS_EVENT_SNI_UNMATCHED;
	if (!allow) {
		*(enforce ? &g->d->counts.sni_denied : &g->d->counts.sni_unmatched) += 1;
		dnsd_event(g->d, s, &note);
	}
	if (!allow && enforce)
		return GATE_DENY;
	/* What is no TLS has no second hello. */
	return gate_flow_allowed(&e->flow, enforce && e->flow.hello.found != TLS_HELLO_OTHER && !FAULT_POINT("gate-follow"), now);
}

static enum gate_said of_flow(struct dnsd_gate *g, const struct dns_sandbox *s, struct entry **at, const struct gate_packet *p)
{
	struct entry *e = *at;
	const size_t room = e->flow.room;
	enum gate_said said = gate_flow_segment(&e->flow, &p->seg, may_have(g, e));

	if (said == GATE_DENY && e->flow.hello.found == TLS_HELLO_BAD)
		said = GATE_JUDGE; /* it says why */
	if (said == GATE_JUDGE)
		said = judged(g, s, e, p->seg.now_ms);
	/* The flow may have more memory now, or none: take_out() subtracts what it has. */
	count_bytes(g, e, room);
	if (said == GATE_DENY || said == GATE_RELEASE || (said == GATE_PASS && (p->seg.flags & GATE_RST)))
		take_out(g, at);
	return said;
}

/*
 * Whether it takes a name to get where @p leads: only then is there something to judge.  What rules for addresses decide, and what
 * no name has opened, is the packet filter's with the SYN: it labels it, or refuses it.  Should the filter say otherwise all the
 * same, in the middle of a change, then the next packet is of a flow that is not known here.
 */
static bool needs_name(const struct dnsd_gate *g, const struct dns_sandbox *s, const struct gate_packet *p)
{
	uint32_t at = 0;

	if (!s->policy || FAULT_POINT("gate-every-syn"))
		return true;
	if (policy_addr_decides(s->policy, p->target, p->target6, p->port))
		return false;
	return policy_default_allow(s->policy) ||
	       (p->target ? dns_leases_find(g->d->leases, s, p->target, &at) : dns_leases_find6(g->d->leases, s, p->target6, &at)) != NULL;
}

static enum gate_said of_syn(struct dnsd_gate *g, const struct dns_sandbox *s, struct entry **at, const struct gate_packet *p)
{
	struct entry *e = *at;

	/*
	 * Bytes in a SYN are for servers that take them before the hand-shake: without them every server goes on.  What connection tracking
	 * takes for none (flags, checksum) ends no connection there, and so must begin nothing here.
	 */
	if (p->seg.len || (p->seg.flags & GATE_FLAGS) != GATE_SYN || !gate_packet_sum_fits(g->buf, p))
		return GATE_DROP;
	if (e && e->flow.first_seq == p->seg.seq + 1)
		return GATE_PASS;
	if (!needs_name(g, s, p)) {
		if (e)
			take_out(g, at);
		return GATE_PASS;
	}
	if (!e)
		e = put_in(g, s, p);
	if (!e)
		return GATE_DROP;
	const size_t before = e->flow.room;
	gate_flow_begin(&e->flow, p->seg.seq, p->seg.now_ms);
	count_bytes(g, e, before);
	if (g->n == 1)
		loop_timer_arm(g->sweep, SWEEP_MS);
	return GATE_BEGIN;
}

static uint32_t sandbox_of(const struct dnsd_gate *g, const struct gate_packet *p)
{
	return p->source ? p->source : ip6_in(p->source6, &g->d->settings.subnet6) ? (uint32_t)p->source6.lo : 0;
}

static enum gate_said of_packet(struct dnsd_gate *g, const struct gate_packet *p)
{
	const uint32_t from = sandbox_of(g, p);
	const struct dns_sandbox *s = from ? dns_sandboxes_find(g->d->sandboxes, from) : NULL;
	struct entry **at, *e;

	if (!s)
		return GATE_DROP;
	at = place(g, from, p);
	e = *at;
	if (e && (e->ref.slot != s->ref.slot || e->ref.generation != s->ref.generation)) {
		take_out(g, at);
		e = NULL;
	}
	if (p->seg.flags & GATE_SYN)
		return of_syn(g, s, at, p);
	if (e)
		return of_flow(g, s, at, p);
	if (p->seg.flags & GATE_RST)
		return GATE_DROP;
	return enforced(g, s) ? GATE_DENY : GATE_RELEASE;
}

/*
 * One that cannot be written is sent again by who sent it.  A SYN began its flow's record anew, and on its way it would have ended
 * a connection that still has those ports (fw_rules_gate.c): as it did not get there, what it began is forgotten.
 */
static void not_written(struct dnsd_gate *g, const struct gate_packet *p)
{
	struct entry **at = place(g, sandbox_of(g, p), p);

	log_debug("gate of TLS names: %s", strerror(errno));
	if ((p->seg.flags & GATE_SYN) && *at)
		take_out(g, at);
}

static void gate_ready(void *arg, int fd, uint32_t events)
{
	static const uint8_t hops[GATE_SAID_COUNT] = {
		[GATE_PASS] = BROKER_GATE_PASS, [GATE_RELEASE] = BROKER_GATE_RELEASE, [GATE_DENY] = BROKER_GATE_DENY,
		[GATE_BEGIN] = BROKER_GATE_BEGIN};
	struct dnsd_gate *g = arg;
	uint64_t now = mono_ms();

	(void)events;
	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = read(fd, g->buf, sizeof(g->buf));
		struct gate_packet p;
		enum gate_said said;

		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			/* The broker took it away; the next one gives another. */
			log_warn("gate of TLS names: %s", strerror(errno));
			dnsd_gate_device(g, -1);
			return;
		}
		if (n < 0)
			break;
		if (gate_packet_read(g->buf, (size_t)n, &p) < 0)
			continue;
		p.seg.now_ms = now;
		said = of_packet(g, &p);
		if (!hops[said])
			continue;
		gate_packet_hops(g->buf, hops[said]);
		if (write(fd, g->buf, p.len) < 0)
			not_written(g, &p);
	}
	dnsd_turn(g->d);
}

/* ---- life ---- */

struct dnsd_gate *dnsd_gate_new(struct dnsd *d, struct sbx_err *err)
{
	enum gate_mode mode;

	if (gate_mode_read(d->settings.egress_tls_gate, &mode, err) < 0)
		return NULL;
	struct dnsd_gate *g = calloc(1, sizeof(*g));
	if (g) {
		g->d = d;
		g->fd = -1;
		g->mode = mode;
		g->sweep = loop_timer_new(d->loop, sweep_due, g);
	}
	if (!g || !g->sweep) {
		free(g);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "gate of TLS names");
		return NULL;
	}
	return g;
}

bool dnsd_gate_wanted(const struct dnsd_gate *g)
{
	return g->mode != GATE_OFF;
}

void dnsd_gate_device(struct dnsd_gate *g, int fd)
{
	loop_fd_remove(g->source);
	g->source = NULL;
	replace_fd(&g->fd, fd);
	if (fd < 0)
		return;
	g->source = loop_fd_add(g->d->loop, fd, EPOLLIN, gate_ready, g);
	if (!g->source)
		log_error("gate of TLS names cannot be read: %s", strerror(errno));
}

void dnsd_gate_free(struct dnsd_gate *g)
{
	if (!g)
		return;
	dnsd_gate_device(g, -1);
	while (g->first)
		take_out(g, place_of(g, g->first));
	loop_timer_free(g->sweep);
	free(g);
}
