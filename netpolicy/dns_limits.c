/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/dns_limits.h"

#include <stdlib.h>
#include <string.h>

#define SEEN_BITS 131072u

void dns_limits_init(struct dns_limits *l, uint64_t now_ms)
{
	*l = (struct dns_limits){.questions = {DNS_RATE_BURST, now_ms}, .txt = {DNS_TXT_BURST, now_ms}};
}

void dns_limits_free(struct dns_limits *l)
{
	free(l->seen);
	l->seen = NULL;
}

bool dns_bucket_take(struct dns_bucket *b, uint64_t now_ms, uint32_t per_second, uint32_t burst)
{
	uint64_t fresh = (now_ms - b->filled_ms) * per_second / 1000;

	if (fresh) {
		b->tokens = fresh + b->tokens > burst ? burst : b->tokens + (uint32_t)fresh;
		b->filled_ms = now_ms;
	}
	if (!b->tokens)
		return false;
	b->tokens--;
	return true;
}

/*
 * Encoded data uses most of its alphabet and changes between letters and digits all the time: among 24 characters there are
 * 15 different ones (a person's name of that length has about 12), or a label is nearly full.
 */
bool dns_looks_like_data(const char *child, size_t len)
{
	uint64_t seen[4] = {0};
	unsigned distinct = 0, changes = 0;
	size_t label = 0, longest = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)child[i];

		label = c == '.' ? 0 : label + 1;
		longest = label > longest ? label : longest;
		distinct += !(seen[c / 64] >> (c % 64) & 1);
		seen[c / 64] |= UINT64_C(1) << (c % 64);
		if (i)
			changes += (c <= '9') != (child[i - 1] <= '9');
	}
	return longest >= 50 || (len >= 24 && (distinct >= 18 || (distinct >= 12 && changes * 4 >= len)));
}

static struct dns_wild *wild_of(struct dns_limits *l, uint32_t rule, uint64_t now_ms)
{
	for (uint32_t i = 0; i < l->n_wild; i++)
		if (l->wild[i].rule == rule)
			return &l->wild[i];
	if (l->n_wild == DNS_WILDS)
		return &l->wild[DNS_WILDS - 1];
	l->wild[l->n_wild] = (struct dns_wild){.rule = rule, .bytes = {DNS_CHILD_BURST, now_ms}};
	return &l->wild[l->n_wild++];
}

static void refill(struct dns_bucket *b, uint64_t now_ms)
{
	uint64_t fresh = (now_ms - b->filled_ms) * DNS_CHILD_MINUTE / 60000;

	if (!fresh)
		return;
	b->tokens = fresh + b->tokens > DNS_CHILD_BURST ? DNS_CHILD_BURST : b->tokens + (uint32_t)fresh;
	b->filled_ms = now_ms;
}

/* Counts begin anew; what is left of the bytes is kept, until a rule has all of them again. */
static void next_minute(struct dns_limits *l, uint64_t now_ms)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < l->n_wild; i++) {
		struct dns_wild *w = &l->wild[i];

		refill(&w->bytes, now_ms);
		if (w->bytes.tokens < DNS_CHILD_BURST)
			l->wild[kept++] = (struct dns_wild){.rule = w->rule, .bytes = w->bytes};
	}
	l->n_wild = kept;
	l->minute = now_ms / 60000;
	if (l->seen)
		memset(l->seen, 0, SEEN_BITS / 8);
}

/* Whether the name is new in this minute.  A collision of two names only counts one less. */
static bool is_new(struct dns_limits *l, uint64_t hash)
{
	uint64_t bit = hash % SEEN_BITS;

	if (!l->seen)
		l->seen = calloc(SEEN_BITS / 64, sizeof(*l->seen));
	if (!l->seen)
		return true;
	if (l->seen[bit / 64] >> (bit % 64) & 1)
		return false;
	l->seen[bit / 64] |= UINT64_C(1) << (bit % 64);
	return true;
}

enum dns_brake dns_limits_child(struct dns_limits *l, uint64_t now_ms, uint32_t rule, uint64_t hash, const char *child, size_t len,
				bool *ret_first)
{
	struct dns_wild *w;
	bool odd;

	*ret_first = false;
	if (l->minute != now_ms / 60000)
		next_minute(l, now_ms);
	w = wild_of(l, rule, now_ms);
	refill(&w->bytes, now_ms);
	if (w->children >= DNS_CHILDREN_MAX || w->bytes.tokens < len) {
		/* Known names still pass: only new ones carry something. */
		if (l->seen && l->seen[hash % SEEN_BITS / 64] >> (hash % 64) & 1)
			return DNS_BRAKE_FREE;
		*ret_first = !w->stopped;
		w->stopped = true;
		return DNS_BRAKE_STOP;
	}
	if (!is_new(l, hash))
		return DNS_BRAKE_FREE;
	odd = dns_looks_like_data(child, len);
	w->children++;
	w->bytes.tokens -= (uint32_t)len;
	w->odd += odd;
	if (w->odd < DNS_ODD_CHILDREN || w->told)
		return DNS_BRAKE_FREE;
	w->told = true;
	*ret_first = true;
	return DNS_BRAKE_SUSPECT;
}
