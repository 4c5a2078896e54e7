/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/dns_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define BUCKETS	    16384u
#define ENTRY_BYTES 640u
#define CHUNK	    64u

struct dns_cached {
	struct dns_cached *next_in_bucket, *next, *prev; /* of the sandbox, most recently used first */
	struct dns_sandbox *owner;
	uint64_t until_ms;
	uint64_t generation;
	uint64_t hash;
	uint16_t type;
	uint8_t text_len;
	uint8_t n_addrs;
	uint16_t names_len;
	/* the name, the fixed part of the answer, its addresses, its names */
	uint8_t data[ENTRY_BYTES - 72];
};

struct dns_cache {
	struct dns_cached *bucket[BUCKETS];
	struct dns_cached *unused;
	struct dns_cached *chunk[(DNS_CACHE_ALL + CHUNK - 1) / CHUNK]; /* owned */
	size_t n_made;
};

/* A multiply-rotate hash; the key is unknown to who chooses names, and entries are bounded anyway. */
uint64_t dns_hash(const void *data, size_t len, uint64_t more)
{
	static uint64_t key[2];
	const uint8_t *p = data;
	uint64_t h;

	if (!key[0])
		random_bytes(key, sizeof(key));
	h = key[0] ^ (more + len) * UINT64_C(0x9e3779b97f4a7c15);
	for (; len >= 8; len -= 8, p += 8) {
		uint64_t w;

		memcpy(&w, p, 8);
		h = (h ^ w) * (key[1] | 1);
		h ^= h >> 29;
	}
	for (; len; len--, p++) {
		h = (h ^ *p) * (key[1] | 1);
		h ^= h >> 29;
	}
	h *= UINT64_C(0xbf58476d1ce4e5b9);
	return h ^ h >> 32;
}

struct dns_cache *dns_cache_new(void)
{
	return calloc(1, sizeof(struct dns_cache));
}

void dns_cache_free(struct dns_cache *cache)
{
	for (size_t i = 0; cache && i < cache->n_made / CHUNK; i++)
		free(cache->chunk[i]);
	free(cache);
}

static uint64_t hash_of(const struct dns_sandbox *s, const struct dns_query *q)
{
	return dns_hash(q->text, q->text_len, (uint64_t)s->ref.generation << 32 | (uint64_t)q->type << 12 | (s->addr & 0xfff));
}

static void unlink_used(struct dns_cached *e)
{
	struct dns_sandbox *s = e->owner;

	if (e->prev)
		e->prev->next = e->next;
	else
		s->cached = e->next;
	if (e->next)
		e->next->prev = e->prev;
	else
		s->cached_last = e->prev;
}

static void link_used(struct dns_cached *e)
{
	struct dns_sandbox *s = e->owner;

	e->prev = NULL;
	e->next = s->cached;
	if (e->next)
		e->next->prev = e;
	else
		s->cached_last = e;
	s->cached = e;
}

static void drop(struct dns_cache *c, struct dns_cached *e)
{
	struct dns_cached **at = &c->bucket[e->hash % BUCKETS];

	while (*at != e)
		at = &(*at)->next_in_bucket;
	*at = e->next_in_bucket;
	unlink_used(e);
	e->owner->n_cached--;
	e->next = c->unused;
	c->unused = e;
}

static struct dns_cached *find(const struct dns_cache *c, const struct dns_sandbox *s, const struct dns_query *q, uint64_t hash)
{
	struct dns_cached *e = c->bucket[hash % BUCKETS];

	while (e && (e->hash != hash || e->owner != s || e->type != q->type || e->text_len != q->text_len ||
		     memcmp(e->data, q->text, q->text_len) != 0))
		e = e->next_in_bucket;
	return e;
}

bool dns_cache_get(struct dns_cache *c, struct dns_sandbox *s, const struct dns_query *q, uint64_t now_ms, struct dns_answer *ret,
		   uint32_t *ret_ttl_s)
{
	struct dns_cached *e = find(c, s, q, hash_of(s, q));
	const uint8_t *p;

	if (!e)
		return false;
	if (e->until_ms <= now_ms || e->generation != s->policy_generation) {
		drop(c, e);
		return false;
	}
	if (s->cached != e) {
		unlink_used(e);
		link_used(e);
	}
	p = e->data + e->text_len;
	memcpy(ret, p, offsetof(struct dns_answer, addr));
	p += offsetof(struct dns_answer, addr);
	memcpy(ret->addr, p, dns_answer_addr_bytes(ret));
	p += dns_answer_addr_bytes(ret);
	memcpy(ret->names, p, e->names_len);
	*ret_ttl_s = (uint32_t)((e->until_ms - now_ms + 999) / 1000);
	return true;
}

static struct dns_cached *entry_new(struct dns_cache *c, struct dns_sandbox *s)
{
	struct dns_cached *e;

	if (s->n_cached >= DNS_CACHE_SANDBOX || (!c->unused && c->n_made >= DNS_CACHE_ALL)) {
		/* Nobody's entries make room for another sandbox's. */
		if (!s->cached_last)
			return NULL;
		drop(c, s->cached_last);
	}
	if (!c->unused) {
		struct dns_cached *chunk = calloc(CHUNK, sizeof(*chunk));

		if (!chunk)
			return NULL;
		for (unsigned i = 0; i < CHUNK; i++) {
			chunk[i].next = c->unused;
			c->unused = &chunk[i];
		}
		c->chunk[c->n_made / CHUNK] = chunk;
		c->n_made += CHUNK;
	}
	e = c->unused;
	c->unused = e->next;
	return e;
}

void dns_cache_put(struct dns_cache *c, struct dns_sandbox *s, const struct dns_query *q, uint64_t now_ms, const struct dns_answer *a,
		   uint32_t ttl_s)
{
	size_t head = offsetof(struct dns_answer, addr), addrs = dns_answer_addr_bytes(a);
	uint64_t hash = hash_of(s, q);
	struct dns_cached *e = find(c, s, q, hash);
	uint8_t *p;

	_Static_assert(sizeof(struct dns_cached) <= ENTRY_BYTES, "an entry has its size");
	if (e)
		drop(c, e);
	if (!ttl_s || q->text_len + head + addrs + a->names_len > sizeof(e->data))
		return;
	e = entry_new(c, s);
	if (!e)
		return;
	*e = (struct dns_cached){.owner = s, .hash = hash, .type = q->type, .text_len = q->text_len, .n_addrs = a->n_addrs,
				 .names_len = a->names_len, .generation = s->policy_generation};
	e->until_ms = now_ms + (uint64_t)(ttl_s > DNS_CACHE_TTL_MAX ? DNS_CACHE_TTL_MAX : ttl_s) * 1000;
	p = e->data;
	memcpy(p, q->text, q->text_len);
	p += q->text_len;
	memcpy(p, a, head);
	p += head;
	memcpy(p, a->addr, addrs);
	memcpy(p + addrs, a->names, a->names_len);
	e->next_in_bucket = c->bucket[hash % BUCKETS];
	c->bucket[hash % BUCKETS] = e;
	link_used(e);
	s->n_cached++;
}

void dns_cache_drop(struct dns_cache *c, struct dns_sandbox *s)
{
	while (s->cached)
		drop(c, s->cached);
}
