/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events to sandboxd.  The first of its kind goes at once, so that a denial can be read by the sandbox within milliseconds; what
 * is alike within WINDOW_MS after it is counted and goes as one at the end.  The windows are bounded for each sandbox and in
 * all: what finds no place is counted as lost, never waited for.
 *
 * While sandboxd is away, or behind, the newest HELD events are kept and go when it has named all sandboxes again, each once.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/wallclock.h"

#include "netpolicy/dnsd_int.h"

#define WINDOW_MS	1000u
#define TICK_MS		200u
#define WINDOWS		4096u /* a ring in the order of their beginning */
#define WINDOWS_SANDBOX 256u
#define BUCKETS		4096u
#define SLOTS		4096u
#define HELD		1024u

struct window {
	uint64_t until_ms, hash;
	uint32_t next_in_bucket; /* index + 1; 0: end */
	uint32_t more;		 /* after the one that was sent */
	struct egress_event event;
};

struct dnsd_events {
	struct dnsd *d;
	struct loop_timer *timer;
	uint32_t head, n; /* of the ring */
	uint32_t bucket[BUCKETS];
	uint16_t of_slot[SLOTS]; /* windows of each slot */
	struct window window[WINDOWS];
	uint32_t held_head, n_held; /* of the ring of what could not be sent */
	struct egress_event held[HELD];
};

static uint64_t hash_of(const struct dns_sandbox *s, const struct dnsd_note *n)
{
	uint64_t where = ((uint64_t)n->addr << 24 | (uint64_t)n->port << 8 | n->protocol) ^ (n->addr6.hi * 31 + n->addr6.lo);

	return dns_hash(n->name, n->name_len, where ^ ((uint64_t)n->kind << 60 | (uint64_t)n->reason << 54) ^
						      (uint64_t)s->ref.generation << 32 ^ (uint64_t)s->addr << 17);
}

static struct window *find(struct dnsd_events *e, const struct dns_sandbox *s, const struct dnsd_note *n, uint64_t hash)
{
	for (uint32_t i = e->bucket[hash % BUCKETS]; i; i = e->window[i - 1].next_in_bucket) {
		struct window *w = &e->window[i - 1];

		if (w->hash == hash && w->event.kind == n->kind && w->event.ref.slot == s->ref.slot &&
		    w->event.ref.generation == s->ref.generation)
			return w;
	}
	return NULL;
}

static void fill(struct egress_event *ev, const struct dns_sandbox *s, const struct dnsd_note *n)
{
	memset(ev, 0, sizeof(*ev));
	ev->head = (struct egress_head){.magic = EGRESS_MAGIC, .kind = EGRESS_EVENT, .size = sizeof(*ev)};
	ev->ref = s->ref;
	memcpy(ev->sandbox_id, s->id, sizeof(ev->sandbox_id));
	ev->wall_usec = wall_usec();
	ev->kind = n->kind;
	ev->reason = n->reason;
	ev->rule_index = n->rule;
	ev->count = n->count ? n->count : 1;
	ev->addr = n->addr;
	ev->port = n->port;
	ev->protocol = n->protocol;
	ev->qtype = n->qtype;
	ev->rcode = n->rcode;
	const uint32_t room = n->addrs6 ? 2 : 8;
	ev->n_addrs = n->n_addrs < room ? n->n_addrs : room;
	for (uint32_t i = 0; n->addrs6 && i < ev->n_addrs; i++)
		ev->addrs6[i] = n->addrs6[i];
	for (uint32_t i = 0; !n->addrs6 && i < ev->n_addrs; i++)
		ev->addrs[i] = n->addrs[i];
	if (!ev->n_addrs)
		ev->addrs6[0] = n->addr6;
	ev->policy_generation = s->policy_generation;
	if (n->name_len)
		memcpy(ev->name, n->name, n->name_len < sizeof(ev->name) ? n->name_len : sizeof(ev->name) - 1);
	if (n->text)
		memcpy(ev->text, n->text, strnlen(n->text, sizeof(ev->text) - 1));
}

static void forget_first(struct dnsd_events *e)
{
	struct window *w = &e->window[e->head];
	uint32_t *at = &e->bucket[w->hash % BUCKETS];

	while (*at != e->head + 1)
		at = &e->window[*at - 1].next_in_bucket;
	*at = w->next_in_bucket;
	e->of_slot[w->event.ref.slot % SLOTS]--;
	e->head = (e->head + 1) % WINDOWS;
	e->n--;
}

static struct egress_event *held_at(struct dnsd_events *e, uint32_t i)
{
	return &e->held[(e->held_head + i) % HELD];
}

static void hold(struct dnsd_events *e, const struct egress_event *ev)
{
	if (e->n_held == HELD) {
		e->d->counts.events_lost += held_at(e, 0)->count;
		e->held_head = (e->held_head + 1) % HELD;
		e->n_held--;
	}
	*held_at(e, e->n_held++) = *ev;
}

void dnsd_events_flush(struct dnsd_events *e)
{
	int r = 0;

	while (e->n_held && (r = dnsd_policy_event(e->d->policy, held_at(e, 0))) == 0) {
		e->held_head = (e->held_head + 1) % HELD;
		e->n_held--;
	}
	if (r == -EAGAIN && !loop_timer_armed(e->timer))
		loop_timer_arm(e->timer, TICK_MS);
}

static void send_event(struct dnsd *d, const struct egress_event *ev)
{
	struct dnsd_events *e = d->events;

	if (!e->n_held && dnsd_policy_event(d->policy, ev) == 0)
		return;
	hold(e, ev);
	dnsd_events_flush(e);
}

static bool same_rule(const struct policy *a, const struct policy *b, uint32_t index)
{
	const struct policy_rule *x = a && index < policy_count(a) ? policy_at(a, index) : NULL;
	const struct policy_rule *y = b && index < policy_count(b) ? policy_at(b, index) : NULL;

	return x && y && x->flags == y->flags && !strcmp(x->text, y->text);
}

/* sandboxd counts from the beginning when it comes back; what is called rule 3 must be the rule that it was. */
static void restamp(struct egress_event *ev, const struct dns_sandbox *s, const struct policy *policy, uint64_t generation)
{
	if (ev->ref.slot != s->ref.slot || ev->ref.generation != s->ref.generation)
		return;
	if (ev->policy_generation != s->policy_generation || !same_rule(s->policy, policy, ev->rule_index))
		ev->rule_index = EGRESS_NO_RULE;
	ev->policy_generation = generation;
}

void dnsd_events_policy(struct dnsd_events *e, const struct dns_sandbox *s, const struct policy *policy, uint64_t generation)
{
	for (uint32_t i = 0; i < e->n_held; i++)
		restamp(held_at(e, i), s, policy, generation);
	for (uint32_t i = 0; i < e->n; i++)
		restamp(&e->window[(e->head + i) % WINDOWS].event, s, policy, generation);
}

uint32_t dnsd_events_held(const struct dnsd_events *e)
{
	return e->n_held;
}

static void tick(void *arg)
{
	struct dnsd_events *e = arg;
	uint64_t now = loop_now_ms(e->d->loop);

	while (e->n && e->window[e->head].until_ms <= now) {
		struct window *w = &e->window[e->head];

		if (w->more) {
			w->event.count = w->more;
			w->event.wall_usec = wall_usec();
			send_event(e->d, &w->event);
		}
		forget_first(e);
	}
	dnsd_events_flush(e);
	if (e->n && !loop_timer_armed(e->timer))
		loop_timer_arm(e->timer, TICK_MS);
}

static struct window *begin(struct dnsd_events *e, const struct dns_sandbox *s, const struct dnsd_note *n, uint64_t hash)
{
	uint32_t at = (e->head + e->n) % WINDOWS;
	struct window *w = &e->window[at];

	w->until_ms = loop_now_ms(e->d->loop) + WINDOW_MS;
	w->hash = hash;
	w->more = 0;
	w->next_in_bucket = e->bucket[hash % BUCKETS];
	e->bucket[hash % BUCKETS] = at + 1;
	e->n++;
	e->of_slot[s->ref.slot % SLOTS]++;
	fill(&w->event, s, n);
	if (!loop_timer_armed(e->timer))
		loop_timer_arm(e->timer, TICK_MS);
	return w;
}

void dnsd_event(struct dnsd *d, const struct dns_sandbox *s, const struct dnsd_note *n)
{
	struct dnsd_events *e = d->events;
	uint32_t count = n->count ? n->count : 1, bound = WINDOWS_SANDBOX;
	struct dnsd_note more;
	uint64_t hash = hash_of(s, n);
	struct window *w = find(e, s, n, hash);

	if (!w && e->of_slot[s->ref.slot % SLOTS] >= WINDOWS_SANDBOX) {
		/* One for all that cannot be told apart any more: it says how many. */
		more = (struct dnsd_note){.kind = n->kind, .reason = n->reason, .rule = EGRESS_NO_RULE, .name = "", .count = count,
					  .text = "more than can be told one by one"};
		n = &more;
		hash = hash_of(s, n);
		w = find(e, s, n, hash);
		bound = WINDOWS_SANDBOX + EGRESS_EVENT_KIND_COUNT * EGRESS_REASON_COUNT;
	}
	if (w) {
		w->more += count;
		return;
	}
	if (e->n == WINDOWS || e->of_slot[s->ref.slot % SLOTS] >= bound) {
		d->counts.events_lost += count;
		return;
	}
	send_event(d, &begin(e, s, n, hash)->event);
}

struct dnsd_events *dnsd_events_new(struct dnsd *d, struct sbx_err *err)
{
	struct dnsd_events *e = calloc(1, sizeof(*e));

	if (e)
		e->timer = loop_timer_new(d->loop, tick, e);
	if (!e || !e->timer) {
		free(e);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "events");
		return NULL;
	}
	e->d = d;
	return e;
}

void dnsd_events_free(struct dnsd_events *e)
{
	if (!e)
		return;
	loop_timer_free(e->timer);
	free(e);
}
