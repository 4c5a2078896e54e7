/* SPDX-License-Identifier: Apache-2.0 */
/* Names of encrypted resolvers in a small hash table: one probe per label of the question. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#include "base/settings.h"
#include "netpolicy/dns_judge.h"
#include "netpolicy/dns_cache.h"
#include "netpolicy/fqdn.h"

#define BUCKETS 1024u

enum mode { MODE_OFF, MODE_LIST, MODE_STRICT };

struct dns_doh {
	enum mode mode;
	size_t n;
	char *name[BUCKETS]; /* owned; canonical */
};

static size_t place(const struct dns_doh *doh, const char *name, size_t len)
{
	size_t at = dns_hash(name, len, 0) % BUCKETS;

	while (doh->name[at] && (strlen(doh->name[at]) != len || memcmp(doh->name[at], name, len) != 0))
		at = (at + 1) % BUCKETS;
	return at;
}

static int add(struct dns_doh *doh, const char *text, struct sbx_err *err)
{
	char name[FQDN_BYTES];
	int len = fqdn_canonical(text, strlen(text), name);
	size_t at;

	if (len < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.doh_list: \"%.60s\" is no name", text);
	at = place(doh, name, (size_t)len);
	if (doh->name[at])
		return 0;
	if (doh->n >= BUCKETS / 2)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.doh_list: more than %u names", BUCKETS / 2);
	doh->name[at] = strdup(name);
	if (!doh->name[at])
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "names of encrypted resolvers");
	doh->n++;
	return 0;
}

static int fill(struct dns_doh *doh, const struct settings *s, struct sbx_err *err)
{
	static const char *const built_in[] = {
#define DOH(name) name,
#include "netpolicy/doh_endpoints.def"
#undef DOH
	};

	for (size_t i = 0; i < ARRAY_SIZE(built_in); i++)
		if (add(doh, built_in[i], err) < 0)
			return -1;
	for (size_t i = 0; i < s->egress_doh_list.n; i++)
		if (add(doh, s->egress_doh_list.item[i], err) < 0)
			return -1;
	if (!strcmp(s->egress_doh, "off"))
		doh->mode = MODE_OFF;
	else if (!strcmp(s->egress_doh, "list"))
		doh->mode = MODE_LIST;
	else if (!strcmp(s->egress_doh, "strict"))
		doh->mode = MODE_STRICT;
	else
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.doh: \"%.20s\" is none of off, list, strict", s->egress_doh);
	return 0;
}

struct dns_doh *dns_doh_new(const struct settings *settings, struct sbx_err *err)
{
	struct dns_doh *doh = calloc(1, sizeof(*doh));

	if (!doh) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "names of encrypted resolvers");
		return NULL;
	}
	if (fill(doh, settings, err) < 0) {
		dns_doh_free(doh);
		return NULL;
	}
	return doh;
}

void dns_doh_free(struct dns_doh *doh)
{
	if (!doh)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		free(doh->name[i]);
	free(doh);
}

bool dns_doh_denies(const struct dns_doh *doh, const char *name, size_t len, const struct policy_rule *rule)
{
	if (doh->mode == MODE_OFF || (rule && (doh->mode == MODE_LIST || rule->kind == EGRESS_RULE_DOMAIN)))
		return false;
	while (len) {
		const char *dot = memchr(name, '.', len);

		if (doh->name[place(doh, name, len)])
			return true;
		len = dot ? len - (size_t)(dot + 1 - name) : 0;
		name = dot ? dot + 1 : name;
	}
	return false;
}
