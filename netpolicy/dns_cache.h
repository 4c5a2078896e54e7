/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: answers that a sandbox got lately
 *
 * Keyed by sandbox, name and type: what one sandbox asked is never seen by another, neither its content nor its timing.
 * Addresses and "there is none" only; other types are asked anew.  An entry belongs to the policy generation under which
 * its chain was judged, and to nobody after a change.  Bounded for each sandbox and for all.
 */
#ifndef NETPOLICY_DNS_CACHE_H
#define NETPOLICY_DNS_CACHE_H

#include "netpolicy/dns_answer.h"
#include "netpolicy/dns_sandbox.h"

#define DNS_CACHE_SANDBOX 1024u /* entries of one sandbox */
#define DNS_CACHE_ALL	  65536u
#define DNS_CACHE_TTL_MAX 300u

struct dns_cache;

/** dns_cache_new() - An empty cache; Return: it or NULL (no memory) */
struct dns_cache *dns_cache_new(void);
/** dns_cache_free() - Release @cache, whose entries were dropped; NULL is fine */
void dns_cache_free(struct dns_cache *cache);
/**
 * dns_cache_get() - Look up an answer
 * @cache:	The cache
 * @s:		Who asks
 * @query:	What
 * @now_ms:	Now
 * @ret:	Filled when found
 * @ret_ttl_s:	Seconds that are left, at least 1
 *
 * Return: whether it was found
 */
bool dns_cache_get(struct dns_cache *cache, struct dns_sandbox *s, const struct dns_query *query, uint64_t now_ms, struct dns_answer *ret,
		   uint32_t *ret_ttl_s);
/** dns_cache_put() - Keep @answer to @query for @ttl_s seconds from @now_ms; what does not fit is not kept */
void dns_cache_put(struct dns_cache *cache, struct dns_sandbox *s, const struct dns_query *query, uint64_t now_ms,
		   const struct dns_answer *answer, uint32_t ttl_s);
/** dns_cache_drop() - Forget everything of @s */
void dns_cache_drop(struct dns_cache *cache, struct dns_sandbox *s);
/** dns_hash() - Keyed hash of @len bytes at @data and of @more; the key is random for each process */
uint64_t dns_hash(const void *data, size_t len, uint64_t more);

#endif
