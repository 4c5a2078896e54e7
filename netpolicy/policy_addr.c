/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "netpolicy/policy_int.h"

/* Never reachable: this network, loopback, link-local with the metadata services, multicast and what lies above. */
static const struct policy_range never[] = {
	{0x00000000u, 8}, {0x7f000000u, 8}, {0xa9fe0000u, 16}, {0xe0000000u, 3},
};
/* Closed until named: RFC 1918, RFC 6598, RFC 6890 (192.0.0.0/24), RFC 2544. */
static const struct policy_range private_ranges[] = {
	{0x0a000000u, 8}, {0x64400000u, 10}, {0xac100000u, 12}, {0xc0000000u, 24}, {0xc0a80000u, 16}, {0xc6120000u, 15},
};

static uint32_t mask_of(uint32_t prefix)
{
	return prefix ? ~0u << (32 - prefix) : 0;
}

static bool in_ranges(const struct policy_range *range, size_t n, uint32_t addr)
{
	for (size_t i = 0; i < n; i++) {
		if ((addr & mask_of(range[i].prefix)) == range[i].addr)
			return true;
	}
	return false;
}

static int by_prefix_and_addr(const void *a, const void *b, void *arg)
{
	const struct policy_rule *rules = arg;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;

	if (rules[i].prefix != rules[j].prefix)
		return rules[i].prefix < rules[j].prefix ? -1 : 1;
	if (rules[i].addr != rules[j].addr)
		return rules[i].addr < rules[j].addr ? -1 : 1;
	return i < j ? -1 : 1;
}

int policy_seal_addrs(struct policy *p)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->n_rules; i++) {
		n += p->rules[i].kind == EGRESS_RULE_IPV4;
		p->has6 |= p->rules[i].kind == EGRESS_RULE_IPV6;
	}
	if (!n)
		return 0;
	p->by_addr = calloc(n, sizeof(*p->by_addr));
	if (!p->by_addr)
		return -1;
	for (uint32_t i = 0; i < p->n_rules; i++) {
		if (p->rules[i].kind == EGRESS_RULE_IPV4)
			p->by_addr[p->n_by_addr++] = i;
	}
	qsort_r(p->by_addr, n, sizeof(*p->by_addr), by_prefix_and_addr, p->rules);
	for (uint32_t i = n; i-- > 0;) {
		uint32_t prefix = p->rules[p->by_addr[i]].prefix;

		p->prefix[prefix].first = i;
		p->prefix[prefix].n++;
	}
	return 0;
}

enum tier { OPERATOR_DENY, OPERATOR_ALLOW, USER_DENY, USER_ALLOW, N_TIERS };

/* What the address rules say: per tier the first rule that covers the flow. */
struct covered {
	uint32_t tier[N_TIERS];
	uint32_t other_port; /* first allow rule for the address that does not open the port */
};

static void cover(const struct policy *p, uint32_t index, uint16_t port, struct covered *c)
{
	const struct policy_rule *r = &p->rules[index];
	bool operator= r->flags & EGRESS_RULE_OPERATOR;
	enum tier tier = r->flags & EGRESS_RULE_ALLOW ? (operator? OPERATOR_ALLOW : USER_ALLOW)
						      : (operator? OPERATOR_DENY : USER_DENY);
	uint32_t *slot = &c->tier[tier];

	if (r->flags & EGRESS_RULE_ALLOW && !policy_rule_port(r, port))
		slot = &c->other_port;
	*slot = index < *slot ? index : *slot;
}

static void cover_all(const struct policy *p, uint32_t addr, uint16_t port, struct covered *c)
{
	for (uint32_t bits = 0; bits <= 32; bits++) {
		uint32_t low = p->prefix[bits].first, end = low + p->prefix[bits].n, high = end;
		uint32_t want = addr & mask_of(bits);

		while (low < high) {
			uint32_t mid = low + (high - low) / 2;

			if (p->rules[p->by_addr[mid]].addr < want)
				low = mid + 1;
			else
				high = mid;
		}
		for (; low < end && p->rules[p->by_addr[low]].addr == want; low++)
			cover(p, p->by_addr[low], port, c);
	}
}

/* Few policies have rules for IPv6, and this is asked by people: they are simply walked. */
static void cover_all6(const struct policy *p, struct ip6 addr, uint16_t port, struct covered *c)
{
	for (uint32_t i = 0; p->has6 && i < p->n_rules; i++) {
		const struct ip6_prefix net = {ip6_read(p->rules[i].addr6), p->rules[i].prefix};

		if (p->rules[i].kind == EGRESS_RULE_IPV6 && ip6_in(addr, &net))
			cover(p, i, port, c);
	}
}

static const struct covered nothing_covered = {
	{EGRESS_NO_RULE, EGRESS_NO_RULE, EGRESS_NO_RULE, EGRESS_NO_RULE}, EGRESS_NO_RULE,
};

static bool named_alone(const struct policy_guards *guards, uint32_t addr)
{
	for (size_t i = 0; i < guards->n_private_allowed; i++)
		if (guards->private_allowed[i].prefix == 32 && guards->private_allowed[i].addr == addr)
			return true;
	return false;
}

enum egress_reason policy_guard(const struct policy_guards *guards, uint32_t addr)
{
	if (in_ranges(never, ARRAY_SIZE(never), addr))
		return EGRESS_REASON_METADATA;
	if (guards && in_ranges(guards->host, guards->n_host, addr) && !named_alone(guards, addr))
		return EGRESS_REASON_HOST;
	if (guards && in_ranges(guards->sandboxes, guards->n_sandboxes, addr))
		return EGRESS_REASON_SANDBOX;
	return EGRESS_REASON_NONE;
}

static bool named_alone6(const struct policy_guards *guards, struct ip6 addr)
{
	for (size_t i = 0; i < guards->n_private_allowed6; i++)
		if (guards->private_allowed6[i].prefix == IP6_PREFIX_MAX && ip6_same(guards->private_allowed6[i].addr, addr))
			return true;
	return false;
}

enum egress_reason policy_guard6(const struct policy_guards *guards, struct ip6 addr)
{
	if (ip6_never(addr))
		return EGRESS_REASON_METADATA;
	for (size_t i = 0; guards && i < guards->n_host6; i++)
		if (ip6_same(guards->host6[i], addr) && !named_alone6(guards, addr))
			return EGRESS_REASON_HOST;
	return guards && guards->sandboxes6 && ip6_in(addr, guards->sandboxes6) ? EGRESS_REASON_SANDBOX : EGRESS_REASON_NONE;
}

static bool private6(const struct policy_guards *guards, struct ip6 addr)
{
	return ip6_private(addr) || (guards && ip6_in_lan(addr, guards->lan6, guards->n_lan6));
}

static bool closed_unless_named(const struct policy_guards *guards, const struct policy_flow *flow)
{
	if (!flow->addr)
		return private6(guards, flow->addr6) && !(guards && ip6_in_any(flow->addr6, guards->private_allowed6, guards->n_private_allowed6));
	return policy_is_private(flow->addr) && !(guards && in_ranges(guards->private_allowed, guards->n_private_allowed, flow->addr));
}

bool policy_is_private(uint32_t addr)
{
	return in_ranges(private_ranges, ARRAY_SIZE(private_ranges), addr);
}

static struct policy_verdict denied(enum egress_reason reason, uint32_t rule)
{
	return (struct policy_verdict){false, rule, reason};
}

struct policy_verdict policy_decide_addr(const struct policy *p, const struct policy_guards *guards, const struct policy_flow *flow)
{
	struct covered c = nothing_covered;
	enum egress_reason guard = flow->addr ? policy_guard(guards, flow->addr) : policy_guard6(guards, flow->addr6);
	bool quic = flow->protocol == IPPROTO_UDP && (flow->port == 443 || flow->port == 80) && !(guards && guards->quic);
	bool named;

	assert(p->sealed);
	if (guard)
		return denied(guard, EGRESS_NO_RULE);
	if (flow->addr)
		cover_all(p, flow->addr, flow->port, &c);
	else
		cover_all6(p, flow->addr6, flow->port, &c);
	if (c.tier[OPERATOR_DENY] != EGRESS_NO_RULE)
		return denied(EGRESS_REASON_RULE, c.tier[OPERATOR_DENY]);
	if (c.tier[OPERATOR_ALLOW] != EGRESS_NO_RULE)
		return (struct policy_verdict){true, c.tier[OPERATOR_ALLOW], EGRESS_REASON_RULE};
	if (c.tier[USER_DENY] != EGRESS_NO_RULE)
		return denied(EGRESS_REASON_RULE, c.tier[USER_DENY]);
	if (c.tier[USER_ALLOW] != EGRESS_NO_RULE)
		return (struct policy_verdict){true, c.tier[USER_ALLOW], EGRESS_REASON_RULE};
	if (flow->lease_rule != EGRESS_NO_RULE) {
		if (policy_rule_port(&p->rules[flow->lease_rule], flow->port))
			return quic ? denied(EGRESS_REASON_QUIC, flow->lease_rule) :
				      (struct policy_verdict){true, flow->lease_rule, EGRESS_REASON_RULE};
		c.other_port = flow->lease_rule < c.other_port ? flow->lease_rule : c.other_port;
	}
	named = c.other_port != EGRESS_NO_RULE;
	/* A rule that opens all ports does not mean this one, which would get round the rules for names. */
	if (named && flow->port == POLICY_PORT_DOT && !p->rules[c.other_port].n_ports)
		return denied(EGRESS_REASON_DOT, c.other_port);
	if (closed_unless_named(guards, flow))
		return denied(named ? EGRESS_REASON_PORT : EGRESS_REASON_PRIVATE, c.other_port);
	if (p->default_allow && p->table && quic)
		return denied(EGRESS_REASON_QUIC, EGRESS_NO_RULE);
	if (p->default_allow && p->table && flow->port == POLICY_PORT_DOT)
		return denied(EGRESS_REASON_DOT, EGRESS_NO_RULE);
	if (p->default_allow && p->table && flow->port == 443 && guards &&
	    (flow->addr ? in_ranges(guards->doh, guards->n_doh, flow->addr) : ip6_in_any(flow->addr6, guards->doh6, guards->n_doh6)))
		return denied(EGRESS_REASON_DOH, EGRESS_NO_RULE);
	if (p->default_allow)
		return (struct policy_verdict){true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT};
	return denied(named ? EGRESS_REASON_PORT : EGRESS_REASON_DEFAULT, c.other_port);
}

bool policy_addr_decides(const struct policy *p, uint32_t addr, struct ip6 addr6, uint16_t port)
{
	struct covered c = nothing_covered;

	assert(p->sealed);
	if (addr)
		cover_all(p, addr, port, &c);
	else
		cover_all6(p, addr6, port, &c);
	for (unsigned i = 0; i < N_TIERS; i++)
		if (c.tier[i] != EGRESS_NO_RULE)
			return true;
	return false;
}

static bool some_allow(const struct covered *c)
{
	return c->tier[OPERATOR_ALLOW] != EGRESS_NO_RULE || c->tier[USER_ALLOW] != EGRESS_NO_RULE || c->other_port != EGRESS_NO_RULE;
}

enum egress_reason policy_leads_to6(const struct policy *p, const struct policy_guards *guards, struct ip6 addr)
{
	enum egress_reason why = policy_guard6(guards, addr);
	struct covered c = nothing_covered;

	if (p)
		cover_all6(p, addr, 0, &c);
	if (why != EGRESS_REASON_NONE || !private6(guards, addr) || ip6_in_any(addr, guards->private_allowed6, guards->n_private_allowed6) ||
	    some_allow(&c))
		return why;
	return EGRESS_REASON_PRIVATE;
}

bool policy_addr_named(const struct policy *p, uint32_t addr)
{
	struct covered c = nothing_covered;

	/* Any port will do: which ones are open is the packet filter's business. */
	cover_all(p, addr, 0, &c);
	return some_allow(&c);
}

enum egress_reason policy_leads_to(const struct policy *p, const struct policy_guards *guards, uint32_t addr)
{
	enum egress_reason why = policy_guard(guards, addr);

	if (why != EGRESS_REASON_NONE || !policy_is_private(addr) ||
	    in_ranges(guards->private_allowed, guards->n_private_allowed, addr) || (p && policy_addr_named(p, addr)))
		return why;
	return EGRESS_REASON_PRIVATE;
}

static const char *const reason_names[] = {
	[EGRESS_REASON_NONE] = "none",		[EGRESS_REASON_RULE] = "rule",	       [EGRESS_REASON_DEFAULT] = "default",
	[EGRESS_REASON_METADATA] = "metadata",	[EGRESS_REASON_HOST] = "host",	       [EGRESS_REASON_SANDBOX] = "sandbox",
	[EGRESS_REASON_PRIVATE] = "private",	[EGRESS_REASON_PORT] = "port",	       [EGRESS_REASON_DOT] = "dot",
	[EGRESS_REASON_DOH] = "doh",		[EGRESS_REASON_QUIC] = "quic",	       [EGRESS_REASON_PROTOCOL] = "protocol",
	[EGRESS_REASON_NO_LEASE] = "no_lease",	[EGRESS_REASON_QTYPE] = "qtype",       [EGRESS_REASON_LIMIT] = "limit",
	[EGRESS_REASON_UPSTREAM] = "upstream",	[EGRESS_REASON_NO_SNI] = "no_sni",     [EGRESS_REASON_NOT_TLS] = "not_tls",
	[EGRESS_REASON_BAD_HELLO] = "bad_hello",
};
_Static_assert(ARRAY_SIZE(reason_names) == EGRESS_REASON_COUNT, "a reason has no name");

const char *policy_reason_name(enum egress_reason reason)
{
	return (unsigned)reason < EGRESS_REASON_COUNT ? reason_names[reason] : "unknown";
}
