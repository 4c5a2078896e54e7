/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/dns_sandbox.h"

#include <assert.h>
#include <stdlib.h>

#define BUCKETS 4096u

struct dns_sandboxes {
	struct dns_sandbox *first;
	struct dns_sandbox *by_addr[BUCKETS];
};

/* Addresses are handed out one behind the other: their low bits are the best hash. */
static struct dns_sandbox **bucket(const struct dns_sandboxes *t, uint32_t addr)
{
	return (struct dns_sandbox **)(uintptr_t)&t->by_addr[addr % BUCKETS];
}

struct dns_sandboxes *dns_sandboxes_new(void)
{
	return calloc(1, sizeof(struct dns_sandboxes));
}

struct dns_sandbox *dns_sandboxes_find(const struct dns_sandboxes *t, uint32_t addr)
{
	struct dns_sandbox *s = *bucket(t, addr);

	while (s && s->addr != addr)
		s = s->next_by_addr;
	return s;
}

struct dns_sandbox *dns_sandboxes_by_ref(const struct dns_sandboxes *t, struct egress_ref ref)
{
	struct dns_sandbox *s = t->first;

	while (s && (s->ref.slot != ref.slot || s->ref.generation != ref.generation))
		s = s->next;
	return s;
}

struct dns_sandbox *dns_sandboxes_add(struct dns_sandboxes *t, struct egress_ref ref, uint32_t addr, uint64_t now_ms)
{
	struct dns_sandbox *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->ref = ref;
	s->addr = addr;
	dns_limits_init(&s->limits, now_ms);
	s->next = t->first;
	if (s->next)
		s->next->prev = s;
	t->first = s;
	s->next_by_addr = *bucket(t, addr);
	*bucket(t, addr) = s;
	return s;
}

void dns_sandboxes_remove(struct dns_sandboxes *t, struct dns_sandbox *s)
{
	struct dns_sandbox **at = bucket(t, s->addr);

	assert(!s->lookups && !s->cached && !s->n_leases);
	while (*at != s)
		at = &(*at)->next_by_addr;
	*at = s->next_by_addr;
	if (s->prev)
		s->prev->next = s->next;
	else
		t->first = s->next;
	if (s->next)
		s->next->prev = s->prev;
	dns_limits_free(&s->limits);
	policy_free(s->policy);
	free(s);
}

struct dns_sandbox *dns_sandboxes_first(const struct dns_sandboxes *t)
{
	return t->first;
}

void dns_sandboxes_free(struct dns_sandboxes *t)
{
	free(t);
}
