// SPDX-License-Identifier: Apache-2.0
#include "api/services.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Identifiers are random: their first byte spreads them. */
#define BUCKETS 256u

struct services_sandbox {
	struct services_sandbox *next, **link;
	uint8_t id[16];
	unsigned n;
};

struct services {
	unsigned max;
	struct services_sandbox *bucket[BUCKETS]; /* of sandboxes that have a connection */
};

struct services *services_new(unsigned max, struct sbx_err *err)
{
	struct services *s = calloc(1, sizeof(*s));

	if (s)
		s->max = max;
	else
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "services");
	return s;
}

void services_free(struct services *services)
{
	for (size_t i = 0; services && i < BUCKETS; i++)
		assert(!services->bucket[i]);
	free(services);
}

static struct services_sandbox *add(struct services *s, const uint8_t id[16])
{
	struct services_sandbox **link = &s->bucket[id[0]], *sandbox = calloc(1, sizeof(*sandbox));

	if (!sandbox)
		return NULL;
	*sandbox = (struct services_sandbox){.next = *link, .link = link};
	memcpy(sandbox->id, id, sizeof(sandbox->id));
	if (*link)
		(*link)->link = &sandbox->next;
	*link = sandbox;
	return sandbox;
}

struct services_sandbox *services_take(struct services *services, const uint8_t id[16], struct sbx_err *err)
{
	struct services_sandbox *sandbox = services->bucket[id[0]];

	while (sandbox && memcmp(sandbox->id, id, sizeof(sandbox->id)))
		sandbox = sandbox->next;
	if (sandbox && sandbox->n >= services->max) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "%u connections to services of the sandbox are open already, as many as it may have",
			    sandbox->n);
		return NULL;
	}
	if (!sandbox && !(sandbox = add(services, id))) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "services");
		return NULL;
	}
	sandbox->n++;
	return sandbox;
}

void services_release(struct services_sandbox *sandbox)
{
	if (!sandbox || --sandbox->n)
		return;
	*sandbox->link = sandbox->next;
	if (sandbox->next)
		sandbox->next->link = sandbox->link;
	free(sandbox);
}
