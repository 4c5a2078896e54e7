/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events to sandboxd.  The first of its kind goes at once, so that a denial can be read by the sandbox within milliseconds; what
 * is alike within WINDOW_MS after it is counted and goes as one at the end.  The windows are bounded for each sandbox and in
 * all: what finds no place is counted as lost, never waited for.
 */
#include "config.h"

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
};

static uint64_t hash_of(const struct dns_sandbox *s, const struct dnsd_note *n)
{
	uint64_t where = (uint64_t)n->addr << 24 | (uint64_t)n->port << 8 | n->protocol;

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
	ev->n_addrs = n->n_addrs < 8 ? n->n_addrs : 8;
	for (uint32_t i = 0; i < ev->n_addrs; i++)
		ev->addrs[i] = n->addrs[i];
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

static void send_event(struct dnsd *d, const struct egress_event *ev)
{
	if (!dnsd_policy_event(d->policy, ev))
		d->counts.events_lost += ev->count;
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
	if (e->n)
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
