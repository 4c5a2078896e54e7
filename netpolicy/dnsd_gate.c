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
#include "base/log.h"
#include "base/wallclock.h"

#include "netpolicy/dnsd_int.h"
#include "netpolicy/gate_mode.h"
#include "netpolicy/gate_packet.h"
#include "netpolicy/gate_table.h"
#include "runtime/broker/broker_msg.h"

#define BATCH	 64u
#define SWEEP_MS 2000u

struct dnsd_gate {
	struct dnsd *d;
	enum gate_mode mode;
	int fd; /* owned */
	struct loop_fd *source;
	struct loop_timer *sweep;
	struct gate_table *table; /* owned */
	uint8_t buf[65536];
};

static void sweep_due(void *arg)
{
	struct dnsd_gate *g = arg;

	if (gate_table_sweep(g->table, mono_ms()))
		loop_timer_arm(g->sweep, SWEEP_MS);
}

static uint32_t sandbox_of(const struct dnsd_gate *g, const struct gate_packet *p)
{
	return p->source ? p->source : ip6_in(p->source6, &g->d->settings.subnet6) ? (uint32_t)p->source6.lo : 0;
}

static struct gate_key key_of(const struct dnsd_gate *g, const struct gate_packet *p)
{
	return (struct gate_key){
		.sandbox_addr = sandbox_of(g, p), .target = p->target, .target6 = p->target6, .source_port = p->source_port, .port = p->port};
}

/* ---- verdicts ---- */

static bool enforced(const struct dnsd_gate *g, const struct dns_sandbox *s)
{
	return gate_mode_enforced(g->mode, s->policy);
}

/* What the policy says to the hello.  Where names that no rule matches are allowed, so is what has no name. */
static bool judge(const struct dnsd_gate *g, const struct dns_sandbox *s, const struct gate_entry *e, struct dnsd_note *note)
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
		if (v.allow && v.which && !policy_rule_port(v.which, e->key.port)) {
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
static enum gate_said judged(struct dnsd_gate *g, const struct dns_sandbox *s, struct gate_entry *e, uint64_t now)
{
	struct dnsd_note note = {.rule = EGRESS_NO_RULE, .name = "", .addr = e->key.target, .addr6 = e->key.target6, .port = e->key.port, .protocol = IPPROTO_TCP};
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

static enum gate_said of_flow(struct dnsd_gate *g, const struct dns_sandbox *s, struct gate_entry *e, const struct gate_packet *p)
{
	const size_t room = e->flow.room;
	enum gate_said said = gate_flow_segment(&e->flow, &p->seg, gate_table_may_keep(g->table, e));

	if (said == GATE_DENY && e->flow.hello.found == TLS_HELLO_BAD)
		said = GATE_JUDGE; /* it says why */
	if (said == GATE_JUDGE)
		said = judged(g, s, e, p->seg.now_ms);
	/* The flow may have more memory now, or none: its end subtracts what it has. */
	gate_table_kept(g->table, e, room);
	if (said == GATE_DENY || said == GATE_RELEASE || (said == GATE_PASS && (p->seg.flags & GATE_RST)))
		gate_table_remove(g->table, e);
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

static enum gate_said of_syn(struct dnsd_gate *g, const struct dns_sandbox *s, const struct gate_key *key, struct gate_entry *e, const struct gate_packet *p)
{
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
			gate_table_remove(g->table, e);
		return GATE_PASS;
	}
	if (!e) {
		e = gate_table_add(g->table, key, p->seg.now_ms);
		if (!e)
			return GATE_DROP;
		e->ref = s->ref;
	}
	gate_table_begin(g->table, e, p->seg.seq, p->seg.now_ms);
	if (gate_table_count(g->table) == 1)
		loop_timer_arm(g->sweep, SWEEP_MS);
	return GATE_BEGIN;
}

static enum gate_said of_packet(struct dnsd_gate *g, const struct gate_packet *p)
{
	const struct gate_key key = key_of(g, p);
	const struct dns_sandbox *s = key.sandbox_addr ? dns_sandboxes_find(g->d->sandboxes, key.sandbox_addr) : NULL;
	struct gate_entry *e;

	if (!s)
		return GATE_DROP;
	e = gate_table_find(g->table, &key);
	if (e && (e->ref.slot != s->ref.slot || e->ref.generation != s->ref.generation)) {
		gate_table_remove(g->table, e);
		e = NULL;
	}
	if (p->seg.flags & GATE_SYN)
		return of_syn(g, s, &key, e, p);
	if (e)
		return of_flow(g, s, e, p);
	if (p->seg.flags & GATE_RST)
		return GATE_DROP;
	return enforced(g, s) ? GATE_DENY : GATE_RELEASE;
}

/*
 * One that cannot be written is sent again by who sent it.  A SYN with which its flow's record began would have ended on its way
 * a connection that still has those ports (fw_rules_gate.c): as it did not get there, what it began is forgotten.  One that came
 * again has begun nothing: its record is of the first, which did get there.
 */
static void not_written(struct dnsd_gate *g, const struct gate_packet *p, enum gate_said said)
{
	const struct gate_key key = key_of(g, p);
	struct gate_entry *e = said == GATE_BEGIN ? gate_table_find(g->table, &key) : NULL;

	log_debug("gate of TLS names: %s", strerror(errno));
	if (e)
		gate_table_remove(g->table, e);
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
		if (FAULT_POINT("gate-write") || write(fd, g->buf, p.len) < 0)
			not_written(g, &p, said);
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
		g->table = gate_table_new();
		g->sweep = loop_timer_new(d->loop, sweep_due, g);
	}
	if (!g || !g->table || !g->sweep) {
		dnsd_gate_free(g);
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
	gate_table_free(g->table);
	loop_timer_free(g->sweep);
	free(g);
}
