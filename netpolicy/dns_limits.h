/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: how much one sandbox may ask
 *
 * Buckets for questions and for TXT; and a brake for names below a wildcard, where a name that nobody asked before can carry
 * data out: so many new names, and so many bytes of them, a minute and rule.  What was asked in the same minute is free.
 */
#ifndef NETPOLICY_DNS_LIMITS_H
#define NETPOLICY_DNS_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_RATE_PER_SECOND 200u
#define DNS_RATE_BURST	    1000u /* package managers ask some hundred names at once */
#define DNS_TXT_PER_SECOND  10u
#define DNS_TXT_BURST	    30u
#define DNS_OUT_PER_SANDBOX 256u
#define DNS_CHILDREN_MAX    2000u
/*
 * Bytes of the part below the wildcard: at once, and a minute.  In any minute not more than the sum of both, so that a tunnel's
 * messages, with headers and the rest of the name, stay below 64 KiB.
 */
#define DNS_CHILD_BURST	    (24u * 1024)
#define DNS_CHILD_MINUTE    (20u * 1024)
#define DNS_ODD_CHILDREN    20u	 /* so many that look like data make an event */
#define DNS_LONG_NAME	    180u
#define DNS_MANY_LABELS	    24u
#define DNS_WILDS	    8u	 /* rules counted apart in a minute; more share the last place */

struct dns_bucket {
	uint32_t tokens;
	uint64_t filled_ms;
};

struct dns_wild {
	uint32_t rule;
	uint32_t children, odd; /* in this minute */
	bool told, stopped;
	struct dns_bucket bytes;
};

struct dns_limits {
	struct dns_bucket questions, txt;
	uint64_t minute; /* of the counts below */
	uint32_t n_wild;
	struct dns_wild wild[DNS_WILDS];
	uint64_t *seen; /* owned; bit set of names of this minute, made when first needed */
};

enum dns_brake {
	DNS_BRAKE_FREE = 0,
	DNS_BRAKE_SUSPECT, /* go on, and tell: the first time in this minute */
	DNS_BRAKE_STOP,	   /* refuse; tell when *ret_first */
};

/** dns_limits_init() - Full buckets at @now_ms */
void dns_limits_init(struct dns_limits *l, uint64_t now_ms);
/** dns_limits_free() - Release what @l owns */
void dns_limits_free(struct dns_limits *l);
/** dns_bucket_take() - Take one of @b, which gets @per_second up to @burst; Return: whether there was one */
bool dns_bucket_take(struct dns_bucket *b, uint64_t now_ms, uint32_t per_second, uint32_t burst);
/**
 * dns_limits_child() - A name below a wildcard is about to be asked upstream
 * @l:		Of the sandbox
 * @now_ms:	Now
 * @rule:	Index of the wildcard's rule
 * @hash:	Of the whole name, keyed
 * @child:	The part below the wildcard's name, without the last dot
 * @len:	Its length
 * @ret_first:	Whether this verdict is the first of its kind in this minute for the rule
 *
 * Return: what to do
 */
enum dns_brake dns_limits_child(struct dns_limits *l, uint64_t now_ms, uint32_t rule, uint64_t hash, const char *child, size_t len,
				bool *ret_first);
/** dns_looks_like_data() - Whether @child of @len bytes is long and mixed as no person names things */
bool dns_looks_like_data(const char *child, size_t len);

#endif
