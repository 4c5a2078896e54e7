// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/egress_plan.h"

#include "base/cleanup.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define N_TIERS	 4
#define MAX_NEST (IP6_PREFIX_MAX + 1)

/* A rule with its tier; sorted so that what is wider comes before what it holds. */
struct item {
	const struct broker_ip_rule *rule;
	struct ip6_prefix net; /* an IPv4 one stands in the first 32 bits: both kinds are worked out by the same steps, one by one */
	unsigned tier; /* 0 decides first */
};

/* All rules of one address and prefix: a slice of the sorted items, by tier. */
struct scope {
	struct ip6_prefix net;
	size_t first[N_TIERS + 1];
};

struct work {
	struct item *item;
	size_t n;
	struct egress_plan *plan;
	bool six;
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

static int compare(struct ip6 x, struct ip6 y)
{
	if (x.hi != y.hi)
		return x.hi < y.hi ? -1 : 1;
	return x.lo < y.lo ? -1 : x.lo > y.lo;
}

static int by_scope(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	int order = compare(x->net.addr, y->net.addr);

	if (order)
		return order;
	if (x->net.prefix != y->net.prefix)
		return x->net.prefix < y->net.prefix ? -1 : 1;
	return (int)x->tier - (int)y->tier;
}

static int by_prefix(const void *a, const void *b)
{
	const struct egress_node *x = a, *y = b;

	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static int by_prefix6(const void *a, const void *b)
{
	const struct egress_node6 *x = a, *y = b;

	if (x->net.prefix != y->net.prefix)
		return x->net.prefix < y->net.prefix ? -1 : 1;
	return compare(x->net.addr, y->net.addr);
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
	struct egress_plan *plan = w->plan;
	int r = collect(w, &s);
	uint32_t decision = s.rest;

	if (r == 0 && s.n)
		r = list_of(w, &s, &decision);
	if (r < 0)
		return r;
	if (w->six)
		plan->node6[plan->n_nodes6++] = (struct egress_node6){scope->net, decision};
	else
		plan->node[plan->n_nodes++] =
			(struct egress_node){.addr = (uint32_t)(scope->net.addr.hi >> 32), .prefix = scope->net.prefix, .decision = decision};
	return 0;
}

static int walk(struct work *w)
{
	for (size_t at = 0; at < w->n;) {
		struct scope scope = {.net = w->item[at].net};

		for (unsigned tier = 0; tier < N_TIERS; tier++) {
			scope.first[tier] = at;
			while (at < w->n && ip6_same(w->item[at].net.addr, scope.net.addr) &&
			       w->item[at].net.prefix == scope.net.prefix && w->item[at].tier == tier)
				at++;
		}
		scope.first[N_TIERS] = at;
		while (w->depth && (w->nest[w->depth - 1].net.prefix >= scope.net.prefix || !ip6_in(scope.net.addr, &w->nest[w->depth - 1].net)))
			w->depth--;
		w->nest[w->depth++] = scope; /* prefixes grow along it: at most MAX_NEST */
		int r = add_node(w, &scope);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The rules of one kind; numbers of lists go on. */
static int make_kind(struct work *w, const struct broker_ip_rule *rule, size_t n, bool six)
{
	w->n = w->depth = 0;
	w->six = six;
	for (size_t i = 0; i < n; i++) {
		const struct ip6_prefix four = {{(uint64_t)rule[i].addr << 32, 0}, rule[i].prefix}, as6 = {rule[i].addr6, rule[i].prefix};

		if (!!(rule[i].flags & BROKER_RULE_IPV6) != six)
			continue;
		w->item[w->n++] =
			(struct item){.rule = &rule[i], .net = six ? as6 : four,
				      .tier = (rule[i].flags & BROKER_RULE_OPERATOR ? 0u : 2u) + (rule[i].flags & BROKER_RULE_ALLOW ? 1u : 0u)};
	}
	qsort(w->item, w->n, sizeof(*w->item), by_scope);
	return walk(w);
}

int egress_plan_make(const struct broker_ip_rule *rule, size_t n, struct egress_plan *ret, struct sbx_err *err)
{
	auto_free struct item *item = calloc(n ? n : 1, sizeof(*item));
	struct egress_plan plan = {.node = calloc(n ? n : 1, sizeof(*plan.node)), .node6 = calloc(n ? n : 1, sizeof(*plan.node6))};
	static struct work w; /* 7 KiB */

	w = (struct work){.item = item, .plan = &plan};
	*ret = (struct egress_plan){0};
	if (!item || !plan.node || !plan.node6) {
		egress_plan_clear(&plan);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "address rules");
	}
	int r = make_kind(&w, rule, n, false);
	r = r < 0 ? r : make_kind(&w, rule, n, true);
	if (r < 0) {
		egress_plan_clear(&plan);
		return r == -ENOMEM ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "address rules")
				    : sbx_err_set(err, SBX_E_LIMIT, 0, "address rules name more than %u ports for one address or %u different lists of ports",
						  EGRESS_STEPS_MAX, EGRESS_LIST_MAX);
	}
	qsort(plan.node, plan.n_nodes, sizeof(*plan.node), by_prefix);
	qsort(plan.node6, plan.n_nodes6, sizeof(*plan.node6), by_prefix6);
	*ret = plan;
	return 0;
}

void egress_plan_clear(struct egress_plan *plan)
{
	free(plan->node);
	free(plan->node6);
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

static const struct egress_node6 *find_node6(const struct egress_plan *plan, struct ip6 addr)
{
	for (uint32_t prefix = IP6_PREFIX_MAX + 1; plan->n_nodes6 && prefix-- > 0;) {
		const struct egress_node6 key = {.net = {ip6_mask(addr, prefix), prefix}};
		const struct egress_node6 *node = bsearch(&key, plan->node6, plan->n_nodes6, sizeof(key), by_prefix6);

		if (node)
			return node;
	}
	return NULL;
}

static enum egress_decision decide(const struct egress_plan *plan, uint32_t decision, unsigned protocol, uint16_t port)
{
	bool ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;

	return decision < EGRESS_DECISION_LIST ? (enum egress_decision)decision : in_list(plan, decision, ports ? port : 0);
}

static bool opens_some(const struct egress_plan *plan, uint32_t decision)
{
	if (decision == EGRESS_DECISION_PASS)
		return true;
	for (size_t i = 0; decision >= EGRESS_DECISION_LIST && i < plan->n_ports; i++)
		if (plan->port[i].list == decision && (plan->port[i].decision == EGRESS_DECISION_PASS_PORT ||
						       plan->port[i].decision == EGRESS_DECISION_PASS))
			return true;
	return false;
}

enum egress_decision egress_plan_decide(const struct egress_plan *plan, uint32_t addr, unsigned protocol, uint16_t port)
{
	const struct egress_node *node = find_node(plan, addr);

	return node ? decide(plan, node->decision, protocol, port) : EGRESS_DECISION_NEXT;
}

bool egress_plan_names(const struct egress_plan *plan, uint32_t addr)
{
	const struct egress_node *node = find_node(plan, addr);

	return node && opens_some(plan, node->decision);
}

enum egress_decision egress_plan_decide6(const struct egress_plan *plan, struct ip6 addr, unsigned protocol, uint16_t port)
{
	const struct egress_node6 *node = find_node6(plan, addr);

	return node ? decide(plan, node->decision, protocol, port) : EGRESS_DECISION_NEXT;
}

bool egress_plan_names6(const struct egress_plan *plan, struct ip6 addr)
{
	const struct egress_node6 *node = find_node6(plan, addr);

	return node && opens_some(plan, node->decision);
}
