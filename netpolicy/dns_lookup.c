/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question on its way: upstreams are asked until one gives an answer that can be believed, its addresses are judged and
 * opened, and only then everybody who waits is told.  The policy is asked again before addresses are opened and once more
 * before the answer leaves, since it may have changed meanwhile.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/wallclock.h"

#include "netpolicy/dns_random.h"
#include "netpolicy/dnsd_int.h"

#define HEDGE_MS    1200u
#define TRIES	    4u
#define BUCKETS	    8192u
#define LOOKUPS_MAX 16384u
#define CHUNK	    32u
#define TTL_MAX_S   300u
#define LEASE_MIN_S 30u
#define LEASE_MORE_S 60u
/* Leases that open nothing (default allow) only remember names: they may not crowd out those that do. */
#define UNPINNED_SANDBOX 512u
#define UNPINNED_ALL	 (DNS_LEASES_ALL / 4 * 3)
#define PROBE_MS    2000u

struct dns_lookup {
	struct dns_lookup *next, *prev; /* of the sandbox */
	struct dns_lookup *next_in_bucket;
	struct dnsd *d;
	struct dns_sandbox *s;
	struct dns_query query; /* of the first asker */
	struct dns_asker *askers;
	uint64_t hash, began_ms;
	struct loop_timer *timer; /* kept when the lookup goes back to the pool */
	struct dns_try try[TRIES];
	uint32_t used; /* bit per upstream that was asked in this round */
	bool over_tcp, heard, local;
	int ticket; /* of the pin that is waited for; -1: none */
	uint64_t generation; /* of the policy under which it was pinned */
	struct dns_verdict verdict;
	uint32_t ttl_s;
	struct dns_answer answer;
};

/* Whether a silent server lives again. */
struct probe {
	struct dns_try try;
	struct dns_lookups *ls;
	struct loop_timer *timer;
};

struct dns_lookups {
	struct dnsd *d;
	struct dns_lookup *bucket[BUCKETS];
	struct dns_lookup *unused;
	struct dns_asker *unused_askers;
	size_t n_made;
	struct dns_records records;
	struct dns_answer answer;
	struct probe probe[DNS_UPSTREAMS_MAX];
};

static void ask_next(struct dns_lookup *l);

static uint64_t budget_ms(const struct dnsd *d)
{
	return (uint64_t)d->settings.dns_budget_ms;
}

static uint64_t probe_every_ms(const struct dnsd *d)
{
	return (uint64_t)d->settings.dns_probe_interval_seconds * 1000;
}

/* ---- pools ---- */

static struct dns_asker *asker_new(struct dns_lookups *ls, const struct dns_asker *from)
{
	struct dns_asker *a = ls->unused_askers;

	if (a)
		ls->unused_askers = a->next;
	else
		a = malloc(sizeof(*a));
	if (a)
		*a = *from;
	return a;
}

static void step(void *arg);

static struct dns_lookup *lookup_new(struct dns_lookups *ls)
{
	struct dns_lookup *l = ls->unused;
	struct loop_timer *timer;

	if (l) {
		ls->unused = l->next;
		timer = l->timer;
	} else {
		if (ls->n_made >= LOOKUPS_MAX)
			return NULL;
		l = malloc(sizeof(*l));
		timer = l ? loop_timer_new(ls->d->loop, step, l) : NULL;
		if (!timer) {
			free(l);
			return NULL;
		}
		ls->n_made++;
	}
	/* Not the arrays at the end: they are written before they are read. */
	memset(l, 0, offsetof(struct dns_lookup, try));
	for (unsigned i = 0; i < TRIES; i++) {
		l->try[i].socket = NULL;
		l->try[i].tcp = NULL;
		l->try[i].owner = l;
	}
	l->timer = timer;
	l->used = 0;
	l->over_tcp = l->heard = l->local = false;
	l->ticket = -1;
	l->ttl_s = 0;
	return l;
}

static void end_tries(struct dns_lookup *l)
{
	for (unsigned i = 0; i < TRIES; i++)
		if (dns_exchange_active(&l->try[i]))
			dns_exchange_end(l->d->exchange, &l->try[i]);
}

static void lookup_free(struct dns_lookup *l)
{
	struct dns_lookups *ls = l->d->lookups;
	struct dns_lookup **at = &ls->bucket[l->hash % BUCKETS];

	end_tries(l);
	loop_timer_disarm(l->timer);
	if (l->ticket >= 0)
		dnsd_broker_forget(l->d->broker, l->ticket);
	while (*at != l)
		at = &(*at)->next_in_bucket;
	*at = l->next_in_bucket;
	if (l->prev)
		l->prev->next = l->next;
	else
		l->s->lookups = l->next;
	if (l->next)
		l->next->prev = l->prev;
	l->s->n_lookups--;
	for (struct dns_asker *a = l->askers, *next; a; a = next) {
		next = a->next;
		a->next = ls->unused_askers;
		ls->unused_askers = a;
	}
	l->next = ls->unused;
	ls->unused = l;
}

/* ---- the end of a lookup ---- */

/* @of: whose addresses are told; NULL: none */
static void tell(struct dns_lookup *l, enum egress_event_kind kind, enum egress_reason reason, enum dns_rcode rcode,
		 const struct dns_answer *of, uint32_t n_addrs, const char *text)
{
	bool six = of && of->type == DNS_TYPE_AAAA;
	struct dnsd_note note = {.kind = kind, .reason = reason, .rule = l->verdict.rule, .name = l->query.text,
				 .name_len = l->query.text_len, .qtype = l->query.type, .rcode = (uint16_t)rcode, .addrs = of && !six ? of->addr : NULL,
				 .addrs6 = six ? of->addr6 : NULL,
				 .n_addrs = n_addrs, .text = text};

	for (const struct dns_asker *a = l->askers; a; a = a->next)
		note.count++;
	dnsd_event(l->d, l->s, &note);
}

static void fail(struct dns_lookup *l, enum dns_ede ede, const char *text)
{
	struct dnsd *d = l->d;

	d->counts.failed++;
	tell(l, EGRESS_EVENT_DNS_FAILED, EGRESS_REASON_UPSTREAM, DNS_SERVFAIL, NULL, 0, text);
	for (const struct dns_asker *a = l->askers; a; a = a->next)
		dns_reply(d, a, dns_error_build(&a->query, DNS_SERVFAIL, ede, d->out + 2));
	lookup_free(l);
}

/* As other limits are told: the sandbox hears REFUSED, and its log says why. */
static void refuse_limit(struct dns_lookup *l)
{
	struct dnsd *d = l->d;

	d->counts.rate_limited++;
	tell(l, EGRESS_EVENT_RATE_LIMITED, EGRESS_REASON_LIMIT, DNS_REFUSED, NULL, 0, "addresses open at once");
	for (const struct dns_asker *a = l->askers; a; a = a->next)
		dns_reply(d, a, dns_error_build(&a->query, DNS_REFUSED, DNS_EDE_PROHIBITED, d->out + 2));
	lookup_free(l);
}

static void deny(struct dns_lookup *l, const struct dns_verdict *v)
{
	for (const struct dns_asker *a = l->askers; a; a = a->next)
		dns_answer_denied(l->d, l->s, a, v);
	lookup_free(l);
}

static void succeed(struct dns_lookup *l, const struct dns_answer *answer, const struct dns_records *records)
{
	struct dnsd *d = l->d;

	tell(l, EGRESS_EVENT_DNS_ALLOWED, l->verdict.reason, answer->rcode, answer, answer->n_addrs, NULL);
	for (const struct dns_asker *a = l->askers; a; a = a->next) {
		d->counts.answered++;
		dns_reply(d, a, dns_answer_build(answer, records, &a->query, l->ttl_s, dns_room(a), d->out + 2));
	}
	lookup_free(l);
}

/* ---- judging what came ---- */

/* A rule that denies a name of the chain denies what leads there. */
static bool chain_denied(struct dns_lookup *l, const struct dns_answer *a, struct dns_verdict *ret)
{
	char text[DNS_TEXT_MAX];

	for (unsigned i = 0; i < a->n_links; i++) {
		bool odd;
		size_t len = dns_name_text(a->names + a->link_at[i], text, &odd);

		*ret = dns_judge(l->d, l->s, text, len, odd);
		if (!ret->allow && ret->by_rule)
			return true;
	}
	return false;
}

static enum egress_reason refused(const struct dns_lookup *l, const struct dns_answer *a, unsigned i)
{
	return a->type == DNS_TYPE_AAAA ? dns_guard_refuses6(l->d->guard, l->s->policy, a->addr6[i]) :
					  dns_guard_refuses(l->d->guard, l->s->policy, a->addr[i]);
}

static void move_addr(struct dns_answer *to, unsigned at, const struct dns_answer *from, unsigned i)
{
	if (from->type == DNS_TYPE_AAAA)
		to->addr6[at] = from->addr6[i];
	else
		to->addr[at] = from->addr[i];
}

static void strip(struct dns_lookup *l, struct dns_answer *a)
{
	static struct dns_answer gone; /* 5 KiB; only its addresses are used */
	enum egress_reason why = EGRESS_REASON_NONE;
	uint8_t kept = 0;

	gone.type = a->type;
	for (unsigned i = 0; i < a->n_addrs; i++) {
		enum egress_reason r = refused(l, a, i);

		if (r == EGRESS_REASON_NONE) {
			move_addr(a, kept++, a, i);
		} else {
			why = r;
			move_addr(&gone, a->n_stripped++, a, i);
		}
	}
	a->n_addrs = kept;
	if (!a->n_stripped)
		return;
	l->d->counts.rebind_stripped += a->n_stripped;
	tell(l, EGRESS_EVENT_REBIND_STRIPPED, why, DNS_NOERROR, &gone, a->n_stripped, "the answer led to addresses that a name may not open");
}

/* ---- opening addresses ---- */

/* Single ports of the rule that allows the name; the list that the kernel gets.  Return: their number, 0 is all, -ERANGE */
static int rule_ports(const struct policy_rule *rule, uint16_t out[DNS_LEASE_PORTS])
{
	unsigned n = 0;

	for (unsigned i = 0; rule && i < rule->n_ports; i++)
		for (uint32_t port = rule->ports[i].first; port <= rule->ports[i].last; port++) {
			if (n == DNS_LEASE_PORTS)
				return -ERANGE;
			out[n++] = (uint16_t)port;
		}
	return (int)n;
}

static size_t chain_names(const struct dns_answer *a, char out[DNS_LEASE_VIA + DNS_TEXT_MAX])
{
	size_t used = 0;

	for (unsigned i = 0; i < a->n_links; i++) {
		if (used > DNS_LEASE_VIA)
			return used;
		used += dns_name_text(a->names + a->link_at[i], out + used, NULL) + 1;
	}
	return used;
}

/* Notes the leases; Return: number of addresses in @grown that the kernel must be told of, or -errno */
static int take_leases(struct dns_lookup *l, const uint16_t *port, int n_ports, uint32_t lease_ms, bool pinned, struct dns_answer *grown)
{
	char via[DNS_LEASE_VIA + DNS_TEXT_MAX];
	struct dnsd *d = l->d;
	struct dns_lease_want want = {
		.port = port, .n_ports = (uint32_t)n_ports, .name = l->query.text, .name_len = l->query.text_len, .via = via,
		.via_len = chain_names(&l->answer, via), .flags = pinned ? DNS_LEASE_PINNED : 0, .now_ms = mono_ms(),
	};
	int n = 0;

	want.until_ms = want.now_ms + lease_ms;
	for (unsigned i = 0; i < l->answer.n_addrs; i++) {
		uint32_t given_way;
		bool grows;
		int r;

		if (!pinned && (l->s->n_leases >= UNPINNED_SANDBOX || dns_leases_count(d->leases) >= UNPINNED_ALL))
			dns_leases_expire(d->leases, l->s, want.now_ms);
		if (!pinned && (l->s->n_leases >= UNPINNED_SANDBOX || dns_leases_count(d->leases) >= UNPINNED_ALL))
			return 0;
		bool six = l->answer.type == DNS_TYPE_AAAA;
		want.addr = six ? 0 : l->answer.addr[i];
		want.addr6 = six ? l->answer.addr6[i] : (struct ip6){0};
		while (dns_leases_make_room(d->leases, l->s, &want, &given_way))
			if (given_way)
				dnsd_policy_close(d->policy, l->s, given_way);
		r = dns_leases_take(d->leases, l->s, &want, &grows);
		if (r < 0)
			return r;
		if (grows)
			move_addr(grown, (unsigned)n++, &l->answer, i);
	}
	return pinned ? n : 0;
}

/* Perhaps the kernel has opened them, perhaps not: the next answer asks again, and a change of policy closes them. */
static void doubt(struct dns_lookup *l)
{
	for (unsigned i = 0; i < l->answer.n_addrs; i++) {
		struct dns_lease *r;
		uint32_t at = 0;

		while ((r = l->answer.type == DNS_TYPE_AAAA ? dns_leases_find6(l->d->leases, l->s, l->answer.addr6[i], &at) :
							      dns_leases_find(l->d->leases, l->s, l->answer.addr[i], &at)))
			if (r->name_len == l->query.text_len && !memcmp(r->name, l->query.text, r->name_len))
				r->flags |= DNS_LEASE_UNSURE;
	}
}

static void opened(struct dns_lookup *l)
{
	struct dnsd *d = l->d;

	if (l->s->policy_generation != l->generation) {
		struct dns_verdict v = dns_judge(d, l->s, l->query.text, l->query.text_len, l->query.odd);

		if (!v.allow || chain_denied(l, &l->answer, &v)) {
			deny(l, &v);
			return;
		}
		l->verdict = v;
	}
	if (!l->local)
		dns_cache_put(d->cache, l->s, &l->query, loop_now_ms(d->loop), &l->answer, l->ttl_s);
	succeed(l, &l->answer, NULL);
}

void dns_lookup_pinned(struct dns_lookup *l, int status)
{
	l->ticket = -1;
	if (status) {
		l->d->counts.pin_failures++;
		doubt(l);
		if (status == SBX_E_LIMIT)
			refuse_limit(l);
		else
			fail(l, DNS_EDE_NONE, "the kernel did not open the addresses");
		return;
	}
	opened(l);
}

/* l->answer holds addresses that may be told. */
static void open_addresses(struct dns_lookup *l)
{
	struct dnsd *d = l->d;
	struct dns_sandbox *s = l->s;
	uint16_t port[DNS_LEASE_PORTS];
	static struct dns_answer grown; /* only its addresses are used */
	uint32_t lease_s = (l->answer.ttl_s < LEASE_MIN_S ? LEASE_MIN_S : l->answer.ttl_s) + LEASE_MORE_S;
	bool pinned = s->policy && !policy_default_allow(s->policy);
	int n_ports = rule_ports(l->verdict.which, port), n;

	/* An upstream that says "for a day" still gets asked again after TTL_MAX_S, so no lease needs to be longer than that. */
	if (lease_s > TTL_MAX_S + LEASE_MORE_S)
		lease_s = TTL_MAX_S + LEASE_MORE_S;
	l->generation = s->policy_generation;
	n = n_ports < 0 ? n_ports : !s->policy || l->query.odd ? 0 : take_leases(l, port, n_ports, lease_s * 1000, pinned, &grown);
	if (n > 0) {
		const struct dnsd_pin pin = {.sandbox = s, .addr = grown.addr,
					     .addr6 = l->answer.type == DNS_TYPE_AAAA ? grown.addr6 : NULL, .n_addrs = (uint32_t)n, .port = port, .n_ports = (uint32_t)n_ports,
					     .lease_ms = lease_s * 1000};

		l->ticket = dnsd_broker_pin(d->broker, &pin, l);
		if (l->ticket >= 0) {
			d->counts.pins += (uint64_t)n;
			return;
		}
		n = l->ticket;
		l->ticket = -1;
		doubt(l);
	}
	if (n < 0) {
		d->counts.pin_failures++;
		if (n == -ENOSPC)
			refuse_limit(l);
		else
			fail(l, DNS_EDE_NONE, "the addresses cannot be opened");
		return;
	}
	opened(l);
}

/* ---- an answer to be believed ---- */

static void conclude(struct dns_lookup *l, struct dns_answer *a, const struct dns_records *records)
{
	struct dnsd *d = l->d;
	struct dns_verdict v = dns_judge(d, l->s, l->query.text, l->query.text_len, l->query.odd);

	end_tries(l);
	if (!v.allow || chain_denied(l, a, &v)) {
		deny(l, &v);
		return;
	}
	l->verdict = v;
	if (a->n_addrs)
		strip(l, a);
	if (a->n_stripped && !a->n_addrs) {
		a->n_links = 0;
		a->names_len = 0;
		a->ttl_s = 0;
	}
	l->ttl_s = a->ttl_s > TTL_MAX_S ? TTL_MAX_S : a->ttl_s;
	if (a->n_addrs) {
		dns_answer_copy(&l->answer, a);
		open_addresses(l);
		return;
	}
	if (!records->n)
		dns_cache_put(d->cache, l->s, &l->query, loop_now_ms(d->loop), a, l->ttl_s);
	succeed(l, a, records->n ? records : NULL);
}

static bool any_try(const struct dns_lookup *l)
{
	for (unsigned i = 0; i < TRIES; i++)
		if (dns_exchange_active(&l->try[i]))
			return true;
	return false;
}

static struct dns_try *free_try(struct dns_lookup *l)
{
	for (unsigned i = 0; i < TRIES; i++)
		if (!dns_exchange_active(&l->try[i]))
			return &l->try[i];
	return NULL;
}

static void ask_tcp(struct dns_lookup *l, unsigned upstream)
{
	struct dns_try *t = free_try(l);

	l->over_tcp = true;
	if (!t || dns_exchange_tcp(l->d->exchange, t, &l->query, upstream) < 0)
		ask_next(l);
}

/* This server has nothing to say: another one, or the end when all have spoken. */
static void bad_answer(struct dns_lookup *l, const char *text)
{
	struct dnsd *d = l->d;

	if (dns_upstreams_choose(&d->upstreams, l->used) >= 0)
		ask_next(l);
	else if (!any_try(l))
		fail(l, DNS_EDE_NONE, text);
}

static void got_answer(struct dns_lookup *l, struct dns_try *t, const uint8_t *data, size_t len, const struct dns_answer *head)
{
	struct dnsd *d = l->d;
	struct dns_lookups *ls = d->lookups;
	struct dns_upstream_state *state = &d->upstreams.state[t->upstream];
	int r;

	l->heard = true;
	dns_upstreams_heard(&d->upstreams, t->upstream);
	d->counts.upstream_usec_sum += mono_usec() - t->began_usec;
	d->counts.upstream_count++;
	state->good_spelling += t->mixed;
	if (t->edns && (head->rcode == DNS_FORMERR || head->rcode == DNS_NOTIMP)) {
		struct dns_try *again = free_try(l);

		state->no_edns = true;
		if (!again || dns_exchange_udp(d->exchange, again, &l->query, t->upstream) < 0)
			bad_answer(l, "the server cannot read the question");
		return;
	}
	if (head->truncated) {
		ask_tcp(l, t->upstream);
		return;
	}
	if (head->rcode != DNS_NOERROR && head->rcode != DNS_NXDOMAIN) {
		bad_answer(l, "the servers refuse or fail");
		return;
	}
	r = dns_answer_read(data, len, &l->query, &ls->answer, &ls->records);
	if (r == -ELOOP) {
		end_tries(l);
		fail(l, DNS_EDE_NONE, "the chain of names is too long or a circle");
	} else if (r < 0) {
		/* Lost, as if it had not come: another server at once, the same one when its time is over. */
		if (dns_upstreams_choose(&d->upstreams, l->used) >= 0)
			ask_next(l);
	} else {
		conclude(l, &ls->answer, &ls->records);
	}
}

/* ---- asking ---- */

static void ask_next(struct dns_lookup *l)
{
	struct dnsd *d = l->d;
	int upstream = dns_upstreams_choose(&d->upstreams, l->used);

	while (upstream >= 0) {
		struct dns_try *t = free_try(l);

		if (!t)
			return;
		l->used |= 1u << upstream;
		if (dns_exchange_udp(d->exchange, t, &l->query, (unsigned)upstream) == 0)
			return;
		upstream = dns_upstreams_choose(&d->upstreams, l->used);
	}
}

static void probe_begin(struct dns_lookups *ls, unsigned upstream);

/* HEDGE_MS passed since the last question went out: a second server is asked, the first may still answer. */
static void step(void *arg)
{
	struct dns_lookup *l = arg;
	struct dnsd *d = l->d;
	uint64_t elapsed = mono_ms() - l->began_ms;

	for (unsigned i = 0; l->ticket < 0 && i < TRIES; i++) {
		struct dns_try *t = &l->try[i];

		if (t->socket && mono_usec() - t->began_usec >= HEDGE_MS * 900u && mono_usec() - t->began_usec < HEDGE_MS * 1900u &&
		    dns_upstreams_silent(&d->upstreams, t->upstream, false))
			probe_begin(d->lookups, t->upstream);
	}
	if (elapsed >= budget_ms(d)) {
		if (l->ticket >= 0)
			fail(l, DNS_EDE_NONE, "the kernel did not open the addresses in time");
		else
			fail(l, l->heard ? DNS_EDE_NETWORK : DNS_EDE_NO_AUTHORITY, "no server answered in time");
		dnsd_turn(d);
		return;
	}
	if (l->ticket < 0) {
		/* All were asked: round again, the first of them has been silent longest. */
		if (dns_upstreams_choose(&d->upstreams, l->used) < 0)
			l->used = 0;
		ask_next(l);
	}
	loop_timer_arm(l->timer, budget_ms(d) - elapsed < HEDGE_MS ? budget_ms(d) - elapsed : HEDGE_MS);
	dnsd_turn(d);
}

void dns_exchange_outcome(void *arg, struct dns_try *t, enum dns_outcome outcome, const uint8_t *data, size_t len,
			  const struct dns_answer *answer)
{
	struct dnsd *d = arg;
	struct dns_upstream_state *state = &d->upstreams.state[t->upstream];
	struct dns_lookup *l = t->owner;

	if (!l) {
		/* A probe: whatever it says, it lives. */
		if (outcome == DNS_OUT_ANSWER)
			dns_upstreams_heard(&d->upstreams, t->upstream);
		return;
	}
	switch (outcome) {
	case DNS_OUT_ANSWER:
		got_answer(l, t, data, len, answer);
		break;
	case DNS_OUT_SPELLING:
		/* Either somebody guesses, or this server writes names its own way.  A connection tells which. */
		state->bad_spelling++;
		if (!state->good_spelling && state->bad_spelling > 3)
			state->no_mix = true;
		if (!l->over_tcp)
			ask_tcp(l, t->upstream);
		break;
	case DNS_OUT_FORGED:
		ask_tcp(l, t->upstream);
		break;
	case DNS_OUT_FAILED:
		/* Many servers do not offer TCP; that says nothing about them. */
		if (!t->over_tcp && dns_upstreams_silent(&d->upstreams, t->upstream, true))
			probe_begin(d->lookups, t->upstream);
		ask_next(l);
		break;
	}
}

/* ---- beginning ---- */

static struct dns_lookup *find(const struct dns_lookups *ls, const struct dns_sandbox *s, const struct dns_query *q, uint64_t hash)
{
	struct dns_lookup *l = ls->bucket[hash % BUCKETS];

	while (l && (l->hash != hash || l->s != s || l->query.type != q->type || l->query.name_len != q->name_len ||
		     l->query.odd || q->odd || memcmp(l->query.text, q->text, q->text_len) != 0))
		l = l->next_in_bucket;
	return l;
}

static void turn_away(struct dnsd *d, const struct dns_sandbox *s, const struct dns_asker *a)
{
	const struct dnsd_note note = {.kind = EGRESS_EVENT_RATE_LIMITED, .reason = EGRESS_REASON_LIMIT, .rule = EGRESS_NO_RULE,
				       .name = "", .text = "questions at once"};

	d->counts.rate_limited++;
	dnsd_event(d, s, &note);
	if (a->over_tcp)
		dns_reply(d, a, dns_error_build(&a->query, DNS_REFUSED, DNS_EDE_NONE, d->out + 2));
}

static struct dns_lookup *begin(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *asker, uint64_t hash)
{
	struct dns_lookups *ls = d->lookups;
	struct dns_asker *a = asker_new(ls, asker);
	struct dns_lookup *l = a ? lookup_new(ls) : NULL;

	if (!l) {
		if (a) {
			a->next = ls->unused_askers;
			ls->unused_askers = a;
		}
		turn_away(d, s, asker);
		return NULL;
	}
	l->d = d;
	l->s = s;
	l->query = asker->query;
	l->askers = a;
	a->next = NULL;
	l->hash = hash;
	l->began_ms = mono_ms();
	l->verdict = dns_judge(d, s, l->query.text, l->query.text_len, l->query.odd);
	l->next_in_bucket = ls->bucket[hash % BUCKETS];
	ls->bucket[hash % BUCKETS] = l;
	l->next = s->lookups;
	if (l->next)
		l->next->prev = l;
	s->lookups = l;
	s->n_lookups++;
	loop_timer_arm(l->timer, budget_ms(d) < HEDGE_MS ? budget_ms(d) : HEDGE_MS);
	return l;
}

/* Who asks the same again while it is being asked waits too, as long as it is not too many. */
#define WAITERS_MAX 32u

static bool join(struct dnsd *d, struct dns_lookup *l, const struct dns_asker *asker)
{
	struct dns_asker *a = l->askers, *fresh;
	unsigned n = 1;

	for (; a->next; a = a->next, n++)
		;
	fresh = n < WAITERS_MAX ? asker_new(d->lookups, asker) : NULL;
	if (!fresh)
		return false;
	fresh->next = NULL;
	a->next = fresh;
	return true;
}

void dns_lookup_begin(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *asker)
{
	const struct dns_query *q = &asker->query;
	uint64_t hash = dns_hash(q->text, q->text_len, (uint64_t)s->ref.generation << 32 | (uint64_t)q->type << 12 | (s->addr & 0xfff));
	struct dns_lookup *l = find(d->lookups, s, q, hash);

	if (l) {
		if (!join(d, l, asker))
			turn_away(d, s, asker);
		return;
	}
	if (!d->unlimited && s->n_lookups >= DNS_OUT_PER_SANDBOX) {
		turn_away(d, s, asker);
		return;
	}
	l = begin(d, s, asker, hash);
	if (!l)
		return;
	if (!d->upstreams.n)
		fail(l, DNS_EDE_NO_AUTHORITY, "no name server is configured");
	else
		ask_next(l);
}

void dns_lookup_local(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *asker, const struct dns_answer *answer)
{
	struct dns_lookup *l = begin(d, s, asker, 0);

	if (!l)
		return;
	l->local = true;
	l->ttl_s = answer->ttl_s;
	dns_answer_copy(&l->answer, answer);
	open_addresses(l);
}

/* ---- ends from outside ---- */

void dns_lookup_drop(struct dnsd *d, struct dns_sandbox *s)
{
	(void)d;
	while (s->lookups)
		lookup_free(s->lookups);
}

void dns_lookup_conn_gone(struct dns_sandbox *s, const struct dns_conn *conn)
{
	for (struct dns_lookup *l = s->lookups; l; l = l->next)
		for (struct dns_asker *a = l->askers; a; a = a->next)
			if (a->conn == conn)
				a->conn = NULL;
}

void dns_reload_upstreams(struct dnsd *d)
{
	int r = dns_upstreams_refresh(&d->upstreams);

	if (r < 0)
		log_warn("%s: %s; keeping the %zu name servers known", d->upstreams.resolv_conf, strerror(-r), d->upstreams.n);
	if (r <= 0)
		return;
	log_info("%s changed: %zu name servers", d->upstreams.resolv_conf, d->upstreams.n);
	for (unsigned i = 0; i < DNS_UPSTREAMS_MAX; i++)
		dns_exchange_end(d->exchange, &d->lookups->probe[i].try);
	dns_exchange_changed(d->exchange);
	/* What went on through the old sockets was told "failed" and asked the new servers; these begin without a mark. */
	memset(d->upstreams.state, 0, sizeof(d->upstreams.state));
}

/* ---- probes ---- */

static void probe_over(void *arg)
{
	struct probe *p = arg;
	struct dnsd *d = p->ls->d;
	unsigned upstream = (unsigned)(p - p->ls->probe);

	if (upstream >= d->upstreams.n)
		return;
	if (dns_exchange_active(&p->try)) {
		dns_exchange_end(d->exchange, &p->try);
		d->upstreams.state[upstream].down = true;
		loop_timer_arm(p->timer, probe_every_ms(d) - PROBE_MS);
		return;
	}
	if (d->upstreams.state[upstream].down)
		probe_begin(p->ls, upstream);
	dnsd_turn(d);
}

static void probe_begin(struct dns_lookups *ls, unsigned upstream)
{
	static const struct dns_query root = {.type = DNS_TYPE_NS, .class = 1, .name_len = 1, .recursion_desired = true};
	struct probe *p = &ls->probe[upstream];

	if (upstream >= ls->d->upstreams.n || dns_exchange_active(&p->try) || loop_timer_armed(p->timer))
		return;
	p->try.owner = NULL;
	/* A port that is refused at once would be asked again without a pause. */
	if (dns_exchange_udp(ls->d->exchange, &p->try, &root, upstream) < 0)
		loop_timer_arm(p->timer, probe_every_ms(ls->d));
	else
		loop_timer_arm(p->timer, PROBE_MS);
}

/* ---- life ---- */

struct dns_lookups *dns_lookups_new(struct dnsd *d, struct sbx_err *err)
{
	struct dns_lookups *ls = calloc(1, sizeof(*ls));

	for (unsigned i = 0; ls && i < DNS_UPSTREAMS_MAX; i++) {
		ls->probe[i].ls = ls;
		ls->probe[i].timer = loop_timer_new(d->loop, probe_over, &ls->probe[i]);
		if (!ls->probe[i].timer) {
			free(ls);
			ls = NULL;
		}
	}
	if (!ls) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "look-ups");
		return NULL;
	}
	ls->d = d;
	return ls;
}

void dns_lookups_free(struct dns_lookups *ls)
{
	if (!ls)
		return;
	for (unsigned i = 0; i < DNS_UPSTREAMS_MAX; i++) {
		dns_exchange_end(ls->d->exchange, &ls->probe[i].try);
		loop_timer_free(ls->probe[i].timer);
	}
	for (struct dns_lookup *l; (l = ls->unused);) {
		ls->unused = l->next;
		loop_timer_free(l->timer);
		free(l);
	}
	for (struct dns_asker *a; (a = ls->unused_askers);) {
		ls->unused_askers = a->next;
		free(a);
	}
	free(ls);
}
