/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/gate_table.h"

#include <stdlib.h>

#include "base/fault.h"
#include "base/limits.h"

#define BUCKETS 16384u
#define SOURCES 8192u

struct source {
	struct gate_entry *first, *last; /* in the order of their beginning */
	uint32_t flows;
	size_t n_bytes;
};

struct gate_table {
	struct gate_entry *bucket[BUCKETS];
	struct source source[SOURCES]; /* addresses of sandboxes follow each other: their low bits are distinct */
	uint32_t n;
	size_t n_bytes;
};

static bool same(const struct gate_key *a, const struct gate_key *b)
{
	return a->sandbox_addr == b->sandbox_addr && a->target == b->target && a->target6.hi == b->target6.hi && a->target6.lo == b->target6.lo &&
	       a->source_port == b->source_port && a->port == b->port;
}

static size_t bucket_of(const struct gate_key *k)
{
	const uint64_t h = ((uint64_t)k->sandbox_addr << 32 ^ (uint64_t)k->target << 16 ^ (uint64_t)k->source_port << 8 ^ k->port) ^ k->target6.lo ^
			   (k->target6.hi << 1);

	return (h * UINT64_C(0x9e3779b97f4a7c15) >> 40) % BUCKETS;
}

static struct source *source_of(struct gate_table *t, const struct gate_entry *e)
{
	return &t->source[e->key.sandbox_addr % SOURCES];
}

/* ---- the order of a sandbox's flows ---- */

static void put_last(struct source *s, struct gate_entry *e)
{
	e->next = NULL;
	e->prev = s->last;
	*(s->last ? &s->last->next : &s->first) = e;
	s->last = e;
}

static void unlink_entry(struct source *s, struct gate_entry *e)
{
	*(e->prev ? &e->prev->next : &s->first) = e->next;
	*(e->next ? &e->next->prev : &s->last) = e->prev;
}

/* ---- the table ---- */

struct gate_table *gate_table_new(void)
{
	return calloc(1, sizeof(struct gate_table));
}

uint32_t gate_table_count(const struct gate_table *t)
{
	return t->n;
}

struct gate_entry *gate_table_find(const struct gate_table *t, const struct gate_key *key)
{
	struct gate_entry *e = t->bucket[bucket_of(key)];

	while (e && !same(&e->key, key))
		e = e->next_in_bucket;
	return e;
}

void gate_table_kept(struct gate_table *t, const struct gate_entry *e, size_t before)
{
	struct source *s = source_of(t, e);

	t->n_bytes = t->n_bytes - before + e->flow.room;
	s->n_bytes = s->n_bytes - before + e->flow.room;
}

/* A sandbox's rest is its own: some sandboxes that say half of their hellos take nothing from others. */
size_t gate_table_may_keep(const struct gate_table *t, const struct gate_entry *e)
{
	const size_t of_all = LIMIT_GATE_BYTES_ALL - t->n_bytes;
	const size_t of_source = LIMIT_GATE_BYTES - t->source[e->key.sandbox_addr % SOURCES].n_bytes;

	return e->flow.room + (FAULT_POINT("gate-bytes") ? of_all : of_all < of_source ? of_all : of_source);
}

void gate_table_remove(struct gate_table *t, struct gate_entry *e)
{
	struct source *s = source_of(t, e);
	struct gate_entry **at = &t->bucket[bucket_of(&e->key)];
	const size_t before = e->flow.room;

	while (*at != e)
		at = &(*at)->next_in_bucket;
	*at = e->next_in_bucket;
	unlink_entry(s, e);
	t->n--;
	s->flows--;
	gate_flow_clear(&e->flow);
	gate_table_kept(t, e, before);
	free(e);
}

/* Walks flows of one sandbox only, and those of others whose address has the same low bits: a bound's worth of them. */
static bool make_room(struct gate_table *t, uint32_t sandbox_addr, uint64_t now_ms)
{
	struct source *s = &t->source[sandbox_addr % SOURCES];

	if (t->n < LIMIT_GATE_FLOWS_ALL && (s->flows < LIMIT_GATE_FLOWS || FAULT_POINT("gate-flows")))
		return true;
	for (struct gate_entry *e = s->first; e; e = e->next)
		if (e->key.sandbox_addr == sandbox_addr && e->flow.state == GATE_SILENT && now_ms - e->flow.since_ms > GATE_EVICT_MS) {
			gate_table_remove(t, e);
			return t->n < LIMIT_GATE_FLOWS_ALL;
		}
	return false;
}

struct gate_entry *gate_table_add(struct gate_table *t, const struct gate_key *key, uint64_t now_ms)
{
	struct gate_entry *e = make_room(t, key->sandbox_addr, now_ms) ? calloc(1, sizeof(*e)) : NULL;
	struct gate_entry **at = &t->bucket[bucket_of(key)];

	if (!e)
		return NULL;
	e->key = *key;
	e->next_in_bucket = *at;
	*at = e;
	put_last(source_of(t, e), e);
	source_of(t, e)->flows++;
	t->n++;
	return e;
}

void gate_table_begin(struct gate_table *t, struct gate_entry *e, uint32_t seq, uint64_t now_ms)
{
	const size_t before = e->flow.room;

	gate_flow_begin(&e->flow, seq, now_ms);
	gate_table_kept(t, e, before);
	unlink_entry(source_of(t, e), e);
	put_last(source_of(t, e), e);
}

uint32_t gate_table_sweep(struct gate_table *t, uint64_t now_ms)
{
	for (size_t i = 0; i < SOURCES; i++)
		for (struct gate_entry *e = t->source[i].first, *next; e; e = next) {
			next = e->next;
			if (gate_flow_over(&e->flow, now_ms))
				gate_table_remove(t, e);
		}
	return t->n;
}

void gate_table_free(struct gate_table *t)
{
	for (size_t i = 0; t && i < SOURCES; i++)
		while (t->source[i].first)
			gate_table_remove(t, t->source[i].first);
	free(t);
}
