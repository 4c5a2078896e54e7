// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/egress_plan.h"

#include "base/cleanup.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define N_TIERS	 4
#define MAX_NEST 33

/* A rule with its tier; sorted so that what is wider comes before what it holds. */
struct item {
	const struct broker_ip_rule *rule;
	unsigned tier; /* 0 decides first */
};

/* All rules of one address and prefix: a slice of the sorted items, by tier. */
struct scope {
	uint32_t addr, prefix;
	size_t first[N_TIERS + 1];
};

struct work {
	struct item *item;
	size_t n;
	struct egress_plan *plan;
	struct scope nest[MAX_NEST];
	size_t depth;
	uint32_t n_lists;
};

static const enum egress_decision tier_decision[N_TIERS] = {
	EGRESS_DECISION_DENY_OPERATOR, EGRESS_DECISION_PASS, EGRESS_DECISION_DENY_USER, EGRESS_DECISION_PASS,
};

static uint32_t mask_of(uint32_t prefix)
{
	return prefix ? ~UINT32_C(0) << (32 - prefix) : 0;
}

static int by_scope(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->rule->addr != y->rule->addr)
		return x->rule->addr < y->rule->addr ? -1 : 1;
	if (x->rule->prefix != y->rule->prefix)
		return x->rule->prefix < y->rule->prefix ? -1 : 1;
	return (int)x->tier - (int)y->tier;
}

static int by_prefix(const void *a, const void *b)
{
	const struct egress_node *x = a, *y = b;

	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

struct steps {
	struct egress_port step[EGRESS_STEPS_MAX + 1];
	size_t n;
	enum egress_decision rest;
};

/* The first decision for a port stands: tiers come in the order in which they decide. */
static int add_step(struct steps *s, uint32_t port, enum egress_decision decision)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->step[i].port == port)
			return 0;
	if (s->n == EGRESS_STEPS_MAX)
		return -E2BIG;
	s->step[s->n++] = (struct egress_port){.port = port, .decision = decision};
	return 0;
}

static bool tier_whole(const struct work *w, unsigned tier)
{
	for (size_t i = 0; i < w->depth; i++)
		for (size_t k = w->nest[i].first[tier]; k < w->nest[i].first[tier + 1]; k++)
			if (!w->item[k].rule->n_ports)
				return true;
	return false;
}

static int tier_ports(const struct work *w, unsigned tier, struct steps *s)
{
	bool allow = tier_decision[tier] == EGRESS_DECISION_PASS;
	int r = 0;

	for (size_t i = 0; !r && i < w->depth; i++)
		for (size_t k = w->nest[i].first[tier]; !r && k < w->nest[i].first[tier + 1]; k++) {
			const struct broker_ip_rule *rule = w->item[k].rule;

			for (uint32_t p = 0; !r && p < rule->n_ports; p++)
				r = add_step(s, rule->port[p], allow ? EGRESS_DECISION_PASS_PORT : tier_decision[tier]);
			if (allow)
				s->rest = EGRESS_DECISION_NEXT_PORT;
		}
	return r;
}

/* What all open scopes together say. */
static int collect(const struct work *w, struct steps *s)
{
	s->n = 0;
	s->rest = EGRESS_DECISION_NEXT;
	for (unsigned tier = 0; tier < N_TIERS; tier++) {
		if (tier_whole(w, tier)) {
			s->rest = tier_decision[tier];
			return 0;
		}
		int r = tier_ports(w, tier, s);
		if (r < 0)
			return r;
	}
	return 0;
}

static int by_port(const void *a, const void *b)
{
	const struct egress_port *x = a, *y = b;

	return x->port < y->port ? -1 : x->port > y->port;
}

static bool list_is(const struct egress_plan *plan, size_t at, const struct steps *s)
{
	if (plan->n_ports - at < s->n)
		return false;
	for (size_t i = 0; i < s->n; i++)
		if (plan->port[at + i].list != plan->port[at].list || plan->port[at + i].port != s->step[i].port ||
		    plan->port[at + i].decision != s->step[i].decision)
			return false;
	return at + s->n == plan->n_ports || plan->port[at + s->n].list != plan->port[at].list;
}

/* Most rules name the same few ports: equal lists are kept once. */
static int list_of(struct work *w, struct steps *s, uint32_t *ret)
{
	struct egress_plan *plan = w->plan;

	s->step[s->n++] = (struct egress_port){.port = 0, .decision = s->rest};
	qsort(s->step, s->n, sizeof(s->step[0]), by_port);
	for (size_t at = 0; at < plan->n_ports; at++)
		if ((at == 0 || plan->port[at - 1].list != plan->port[at].list) && list_is(plan, at, s)) {
			*ret = plan->port[at].list;
			return 0;
		}
	if (w->n_lists == EGRESS_LIST_MAX)
		return -E2BIG;
	struct egress_port *more = reallocarray(plan->port, plan->n_ports + s->n, sizeof(*more));
	if (!more)
		return -ENOMEM;
	plan->port = more;
	*ret = EGRESS_DECISION_LIST + w->n_lists++;
	for (size_t i = 0; i < s->n; i++) {
		more[plan->n_ports] = s->step[i];
		more[plan->n_ports++].list = *ret;
	}
	return 0;
}

static int add_node(struct work *w, const struct scope *scope)
{
	static struct steps s; /* 3 KiB; nothing here runs twice at once */
	struct egress_node *node = &w->plan->node[w->plan->n_nodes];
	int r = collect(w, &s);

	*node = (struct egress_node){.addr = scope->addr, .prefix = scope->prefix, .decision = s.rest};
	if (r == 0 && s.n)
		r = list_of(w, &s, &node->decision);
	w->plan->n_nodes += r == 0;
	return r;
}

static int walk(struct work *w)
{
	for (size_t at = 0; at < w->n;) {
		const struct broker_ip_rule *rule = w->item[at].rule;
		struct scope scope = {.addr = rule->addr, .prefix = rule->prefix};

		for (unsigned tier = 0; tier < N_TIERS; tier++) {
			scope.first[tier] = at;
			while (at < w->n && w->item[at].rule->addr == scope.addr && w->item[at].rule->prefix == scope.prefix &&
			       w->item[at].tier == tier)
				at++;
		}
		scope.first[N_TIERS] = at;
		while (w->depth && (w->nest[w->depth - 1].prefix >= scope.prefix ||
				    (scope.addr & mask_of(w->nest[w->depth - 1].prefix)) != w->nest[w->depth - 1].addr))
			w->depth--;
		w->nest[w->depth++] = scope; /* prefixes grow along it: at most 33 */
		int r = add_node(w, &scope);
		if (r < 0)
			return r;
	}
	return 0;
}

int egress_plan_make(const struct broker_ip_rule *rule, size_t n, struct egress_plan *ret, struct sbx_err *err)
{
	auto_free struct item *item = calloc(n ? n : 1, sizeof(*item));
	struct egress_plan plan = {.node = calloc(n ? n : 1, sizeof(*plan.node))};
	struct work w = {.item = item, .n = n, .plan = &plan};

	*ret = (struct egress_plan){0};
	if (!item || !plan.node) {
		egress_plan_clear(&plan);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "address rules");
	}
	for (size_t i = 0; i < n; i++)
		item[i] = (struct item){.rule = &rule[i],
					.tier = (rule[i].flags & BROKER_RULE_OPERATOR ? 0u : 2u) + (rule[i].flags & BROKER_RULE_ALLOW ? 1u : 0u)};
	qsort(item, n, sizeof(*item), by_scope);
	int r = walk(&w);
	if (r < 0) {
		egress_plan_clear(&plan);
		return r == -ENOMEM ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "address rules")
				    : sbx_err_set(err, SBX_E_LIMIT, 0, "address rules name more than %u ports for one address or %u different lists of ports",
						  EGRESS_STEPS_MAX, EGRESS_LIST_MAX);
	}
	qsort(plan.node, plan.n_nodes, sizeof(*plan.node), by_prefix);
	*ret = plan;
	return 0;
}

void egress_plan_clear(struct egress_plan *plan)
{
	free(plan->node);
	free(plan->port);
	*plan = (struct egress_plan){0};
}

static const struct egress_node *find_node(const struct egress_plan *plan, uint32_t addr)
{
	for (uint32_t prefix = 33; plan->n_nodes && prefix-- > 0;) {
		const struct egress_node key = {.addr = addr & mask_of(prefix), .prefix = prefix};
		const struct egress_node *node = bsearch(&key, plan->node, plan->n_nodes, sizeof(key), by_prefix);

		if (node)
			return node;
	}
	return NULL;
}

static enum egress_decision in_list(const struct egress_plan *plan, uint32_t list, uint16_t port)
{
	enum egress_decision rest = EGRESS_DECISION_NONE;

	for (size_t i = 0; i < plan->n_ports; i++) {
		if (plan->port[i].list != list)
			continue;
		if (plan->port[i].port == port)
			return (enum egress_decision)plan->port[i].decision;
		if (plan->port[i].port == 0)
			rest = (enum egress_decision)plan->port[i].decision;
	}
	return rest;
}

enum egress_decision egress_plan_decide(const struct egress_plan *plan, uint32_t addr, unsigned protocol, uint16_t port)
{
	const struct egress_node *node = find_node(plan, addr);
	bool ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;

	if (!node)
		return EGRESS_DECISION_NEXT;
	if (node->decision < EGRESS_DECISION_LIST)
		return (enum egress_decision)node->decision;
	return in_list(plan, node->decision, ports ? port : 0);
}

bool egress_plan_names(const struct egress_plan *plan, uint32_t addr)
{
	const struct egress_node *node = find_node(plan, addr);

	if (!node)
		return false;
	if (node->decision == EGRESS_DECISION_PASS)
		return true;
	for (size_t i = 0; node->decision >= EGRESS_DECISION_LIST && i < plan->n_ports; i++)
		if (plan->port[i].list == node->decision && (plan->port[i].decision == EGRESS_DECISION_PASS_PORT ||
							     plan->port[i].decision == EGRESS_DECISION_PASS))
			return true;
	return false;
}
