/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/num.h"
#include "netpolicy/policy.h"
#include "netpolicy/policy_int.h"

struct policy *policy_new(bool default_allow)
{
	struct policy *p = calloc(1, sizeof(*p));

	if (p)
		p->default_allow = default_allow;
	return p;
}

void policy_free(struct policy *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; i < p->n_rules; i++)
		free(p->chunks[i]);
	free(p->chunks);
	free(p->rules);
	free(p->entries);
	free(p->table);
	free(p->by_addr);
	free(p);
}

void policy_rule_set(struct policy_rule *ret, const struct target *target, const char *text, uint32_t flags)
{
	*ret = (struct policy_rule){
		.kind = target->kind,
		.flags = flags,
		.name = target->name,
		.addr = target->addr,
		.prefix = target->prefix,
		.text = text,
	};
	memcpy(ret->addr6, target->addr6, sizeof(ret->addr6));
}

static int check_ports(const struct policy_rule *rule, struct sbx_err *err)
{
	uint32_t n = 0;

	if (rule->n_ports && !(rule->flags & EGRESS_RULE_ALLOW))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "ports narrow an allow rule; a deny rule closes the whole target");
	if (rule->n_ports > EGRESS_RULE_PORTS)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "a rule has at most %u ports", EGRESS_RULE_PORTS);
	for (uint32_t i = 0; i < rule->n_ports; i++) {
		if (!rule->ports[i].first || rule->ports[i].last < rule->ports[i].first)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "ports are 1 to 65535, the lower one first");
		n += (uint32_t)(rule->ports[i].last - rule->ports[i].first) + 1;
	}
	if (n > EGRESS_RULE_PORTS)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "a rule has at most %u ports, those of its ranges counted", EGRESS_RULE_PORTS);
	return 0;
}

/* Room for one more in both arrays; they grow together. */
static int grow(struct policy *p)
{
	uint32_t cap = p->cap_rules ? 2 * p->cap_rules : 8;
	struct policy_rule *rules;
	void **chunks;

	if (p->n_rules < p->cap_rules)
		return 0;
	rules = realloc(p->rules, cap * sizeof(*rules));
	if (!rules)
		return -1;
	p->rules = rules;
	chunks = realloc(p->chunks, cap * sizeof(*chunks));
	if (!chunks)
		return -1;
	p->chunks = chunks;
	p->cap_rules = cap;
	return 0;
}

int policy_add(struct policy *p, const struct policy_rule *rule, struct sbx_err *err)
{
	size_t ports = rule->n_ports * sizeof(*rule->ports), name = strlen(rule->name) + 1, text = strlen(rule->text) + 1;
	char *chunk;

	assert(!p->sealed);
	if (check_ports(rule, err))
		return -1;
	if (p->n_rules == EGRESS_RULES_MAX)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "a policy has at most %u rules, the operator's counted", EGRESS_RULES_MAX);
	chunk = grow(p) ? NULL : malloc(ports + name + text);
	if (!chunk)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "add a rule");
	p->rules[p->n_rules] = *rule;
	if (ports)
		memcpy(chunk, rule->ports, ports);
	p->rules[p->n_rules].ports = (const struct policy_ports *)(void *)chunk;
	p->rules[p->n_rules].name = memcpy(chunk + ports, rule->name, name);
	p->rules[p->n_rules].text = memcpy(chunk + ports + name, rule->text, text);
	p->chunks[p->n_rules++] = chunk;
	return 0;
}

uint32_t policy_count(const struct policy *p)
{
	return p->n_rules;
}

const struct policy_rule *policy_at(const struct policy *p, uint32_t index)
{
	assert(index < p->n_rules);
	return &p->rules[index];
}

bool policy_default_allow(const struct policy *p)
{
	return p->default_allow;
}

bool policy_rule_port(const struct policy_rule *rule, uint16_t port)
{
	if (!rule->n_ports)
		return port != POLICY_PORT_DOT;
	for (uint32_t i = 0; i < rule->n_ports; i++) {
		if (port >= rule->ports[i].first && port <= rule->ports[i].last)
			return true;
	}
	return false;
}

/* ---- names: one hash table of all suffixes that a rule names ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
	__extension__ unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The hash of "label.suffix" from the hash of "suffix", so that a walk from the right reads each byte once. */
static uint64_t hash_label(const struct policy *p, uint64_t hash, const char *label, size_t n)
{
	hash ^= p->seed[0] + n;
	while (n) {
		size_t take = n < 8 ? n : 8;
		uint64_t word = 0;

		memcpy(&word, label, take);
		hash = mix(hash ^ word, p->seed[1]);
		label += take;
		n -= take;
	}
	return hash;
}

/*
 * From the right: @start is where the next label begins and @depth counts labels.  Returns false when the name is used up.
 */
struct walk {
	const char *name;
	size_t start; /* of the suffix that was reached; the whole length at first */
	uint64_t hash;
	unsigned depth;
};

static bool walk_next(const struct policy *p, struct walk *w)
{
	size_t end = w->start, start;

	if (!end)
		return false;
	if (w->depth)
		end--; /* the dot */
	start = end;
	while (start && w->name[start - 1] != '.')
		start--;
	w->hash = hash_label(p, w->hash, w->name + start, end - start);
	w->start = start;
	w->depth++;
	return true;
}

static uint32_t *probe(const struct policy *p, const struct walk *w, size_t len)
{
	for (uint32_t i = (uint32_t)w->hash & p->table_mask;; i = (i + 1) & p->table_mask) {
		const struct policy_entry *e;

		if (!p->table[i])
			return &p->table[i];
		e = &p->entries[p->table[i] - 1];
		if (e->hash == w->hash && e->len == len - w->start && !memcmp(e->name, w->name + w->start, e->len))
			return &p->table[i];
	}
}

static void index_name(struct policy *p, uint32_t rule)
{
	const struct policy_rule *r = &p->rules[rule];
	struct walk w = {.name = r->name, .start = strlen(r->name)};
	size_t len = w.start;
	struct policy_entry *e;
	uint32_t *cell;

	while (walk_next(p, &w))
		;
	cell = probe(p, &w, len);
	if (!*cell) {
		p->entries[p->n_entries] = (struct policy_entry){
			.hash = w.hash, .name = r->name, .len = (uint32_t)len, .exact = EGRESS_NO_RULE, .below = EGRESS_NO_RULE,
		};
		*cell = ++p->n_entries;
		p->depths[w.depth / 64] |= 1ull << w.depth % 64;
	}
	e = &p->entries[*cell - 1];
	if (r->kind == EGRESS_RULE_WILDCARD)
		e->below = rule < e->below ? rule : e->below;
	else
		e->exact = rule < e->exact ? rule : e->exact;
}

static int seal_names(struct policy *p)
{
	uint32_t n = 0, cells = 8;

	for (uint32_t i = 0; i < p->n_rules; i++)
		n += p->rules[i].kind == EGRESS_RULE_DOMAIN || p->rules[i].kind == EGRESS_RULE_WILDCARD;
	if (!n)
		return 0;
	while (cells < 2 * n)
		cells *= 2;
	p->entries = calloc(n, sizeof(*p->entries));
	p->table = calloc(cells, sizeof(*p->table));
	if (!p->entries || !p->table)
		return -1;
	p->table_mask = cells - 1;
	random_bytes(p->seed, sizeof(p->seed));
	p->seed[1] |= 1;
	for (uint32_t i = 0; i < p->n_rules; i++) {
		if (p->rules[i].kind == EGRESS_RULE_DOMAIN || p->rules[i].kind == EGRESS_RULE_WILDCARD)
			index_name(p, i);
	}
	return 0;
}

int policy_seal(struct policy *p, struct sbx_err *err)
{
	assert(!p->sealed);
	if (seal_names(p) || policy_seal_addrs(p))
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "build the index of %u rules", p->n_rules);
	p->sealed = true;
	return 0;
}

struct policy_verdict policy_decide_name(const struct policy *p, const char *name, size_t len)
{
	struct walk w = {.name = name, .start = len};
	uint32_t best = EGRESS_NO_RULE;

	assert(p->sealed);
	while (p->table && w.depth + 1 < POLICY_DEPTHS && walk_next(p, &w)) {
		const struct policy_entry *e;
		uint32_t cell, found;

		if (!(p->depths[w.depth / 64] >> w.depth % 64 & 1))
			continue;
		cell = *probe(p, &w, len);
		if (!cell)
			continue;
		e = &p->entries[cell - 1];
		found = w.start ? e->below : e->exact;
		best = found < best ? found : best;
	}
	if (best == EGRESS_NO_RULE)
		return (struct policy_verdict){p->default_allow, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT};
	return (struct policy_verdict){p->rules[best].flags & EGRESS_RULE_ALLOW, best, EGRESS_REASON_RULE};
}
