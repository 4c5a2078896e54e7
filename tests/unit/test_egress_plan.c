// SPDX-License-Identifier: Apache-2.0
/* What address rules mean: a table, then many small policies against a plain reading of the tiers. */
#include "runtime/broker/broker_decode.h"
#include "runtime/broker/egress_plan.h"
#include "runtime/broker/fw_rules.h"
#include "tests/tap.h"

#include "base/cleanup.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define ALLOW BROKER_RULE_ALLOW
#define OPER  BROKER_RULE_OPERATOR

static struct broker_ip_rule rule_of(uint32_t addr, uint32_t prefix, uint32_t flags, uint32_t n, uint16_t a, uint16_t b)
{
	return (struct broker_ip_rule){.addr = addr, .prefix = prefix, .flags = flags, .n_ports = n, .port = {a, b}};
}

/* The sentence of broker_msg.h, word by word. */
static enum egress_decision model(const struct broker_ip_rule *rule, size_t n, uint32_t addr, bool ports, uint16_t port)
{
	static const enum egress_decision whole[] = {EGRESS_DECISION_DENY_OPERATOR, EGRESS_DECISION_PASS, EGRESS_DECISION_DENY_USER, EGRESS_DECISION_PASS};
	bool other_port = false;

	for (unsigned tier = 0; tier < 4; tier++) {
		enum egress_decision found = EGRESS_DECISION_NONE;

		for (size_t i = 0; i < n; i++) {
			uint32_t mask = rule[i].prefix ? ~UINT32_C(0) << (32 - rule[i].prefix) : 0;
			bool allow = rule[i].flags & ALLOW;
			unsigned own = (rule[i].flags & OPER ? 0u : 2u) + (allow ? 1u : 0u);

			if (own != tier || (addr & mask) != rule[i].addr)
				continue;
			if (!rule[i].n_ports)
				found = whole[tier];
			for (uint32_t p = 0; p < rule[i].n_ports; p++)
				if (ports && rule[i].port[p] == port && found == EGRESS_DECISION_NONE)
					found = allow ? EGRESS_DECISION_PASS_PORT : whole[tier];
			other_port |= rule[i].n_ports && allow;
		}
		if (found != EGRESS_DECISION_NONE)
			return found;
	}
	return other_port ? EGRESS_DECISION_NEXT_PORT : EGRESS_DECISION_NEXT;
}

/* A port that a rule of the same tier names and a whole one covers may be told either way: both let it through but for 853. */
static bool same(enum egress_decision a, enum egress_decision b, uint16_t port)
{
	bool a_pass = a == EGRESS_DECISION_PASS || a == EGRESS_DECISION_PASS_PORT, b_pass = b == EGRESS_DECISION_PASS || b == EGRESS_DECISION_PASS_PORT;

	return a == b || (a_pass && b_pass && port != 853);
}

/* The same rule in IPv6: the net is that of the last bits. */
static struct broker_ip_rule mirror(struct broker_ip_rule r)
{
	r.addr6 = (struct ip6){UINT64_C(0x20010db800000000), r.addr};
	r.addr = 0;
	r.prefix += 96;
	r.flags |= BROKER_RULE_IPV6;
	return r;
}

static void differential(void)
{
	struct broker_ip_rule before[7];
	size_t n_before = 0;
	static const uint16_t port_of[] = {80, 443, 853, 22};
	unsigned seed = 7, wrong = 0, n_asked = 0;

	for (int round = 0; round < 4000; round++) {
		struct broker_ip_rule rule[7], both[14];
		struct egress_plan plan;
		struct sbx_err err;
		size_t n = (size_t)(rand_r(&seed) % 8);

		for (size_t i = 0; i < n; i++) {
			uint32_t prefix = rand_r(&seed) % 8 ? 28 + (uint32_t)(rand_r(&seed) % 5) : (uint32_t)(rand_r(&seed) % 2) * 8;
			uint32_t mask = prefix ? ~UINT32_C(0) << (32 - prefix) : 0;
			uint32_t n_ports = (uint32_t)(rand_r(&seed) % 3);

			rule[i] = rule_of((0x0a000000u | (uint32_t)(rand_r(&seed) & 15)) & mask, prefix, (uint32_t)rand_r(&seed) & 3, n_ports,
					  n_ports > 0 ? port_of[rand_r(&seed) % 4] : 0, n_ports > 1 ? port_of[rand_r(&seed) % 4] : 0);
		}
		memcpy(both, rule, sizeof(rule));
		for (size_t i = 0; i < n_before; i++)
			both[n + i] = mirror(before[i]);
		if (egress_plan_make(both, n + n_before, &plan, &err) < 0) {
			wrong++;
			continue;
		}
		for (uint32_t k = 0; k < 16; k++) {
			uint32_t addr = 0x0a000000u + k;
			uint16_t port = port_of[rand_r(&seed) % 4];
			bool ports = rand_r(&seed) % 4;
			enum egress_decision want = model(rule, n, addr, ports, port);
			enum egress_decision got = egress_plan_decide(&plan, addr, ports ? IPPROTO_TCP : IPPROTO_ICMP, port);

			struct ip6 addr6 = {UINT64_C(0x20010db800000000), addr};
			enum egress_decision want6 = model(before, n_before, addr, ports, port);
			enum egress_decision got6 = egress_plan_decide6(&plan, addr6, ports ? IPPROTO_TCP : IPPROTO_ICMPV6, port);

			n_asked++;
			wrong += !same(want6, got6, port);
			if (!same(want, got, port) && wrong++ < 5)
				printf("# round %d: 10.0.0.%u:%u want %d got %d\n", round, k, port, (int)want, (int)got);
		}
		egress_plan_clear(&plan);
		memcpy(before, rule, sizeof(rule));
		n_before = n;
	}
	ok(wrong == 0, "%u questions to 4000 small policies are answered as the tiers say (%u wrong)", n_asked, wrong);
}

static void limits(void)
{
	static struct broker_ip_rule many[BROKER_POLICY_RULES];
	struct egress_plan plan;
	struct sbx_err err = {0};

	for (uint32_t i = 0; i < BROKER_POLICY_RULES; i++)
		many[i] = rule_of(0x0a000000u + i, 32, ALLOW, 2, 80, 443);
	ok(egress_plan_make(many, BROKER_POLICY_RULES, &plan, &err) == 0 && plan.n_nodes == BROKER_POLICY_RULES && plan.n_ports == 3,
	   "4096 rules with the same ports share one list");
	egress_plan_clear(&plan);
	for (uint32_t i = 0; i < BROKER_POLICY_RULES; i++)
		many[i].port[0] = (uint16_t)(1000 + i % 300);
	ok(egress_plan_make(many, BROKER_POLICY_RULES, &plan, &err) < 0 && err.code == SBX_E_LIMIT && !plan.node, "300 different lists are refused");
	for (uint32_t i = 0; i < BROKER_POLICY_RULES; i++)
		many[i] = rule_of(0, 0, i % 4, 2, (uint16_t)(1 + 2 * i), (uint16_t)(2 + 2 * i));
	ok(egress_plan_make(many, BROKER_POLICY_RULES, &plan, &err) < 0 && err.code == SBX_E_LIMIT, "8192 ports of one net are refused");
	for (uint32_t i = 0; i < BROKER_POLICY_RULES; i++)
		many[i] = rule_of(0x0a000000u & (i % 33 ? ~UINT32_C(0) << (32 - i % 33) : 0), i % 33, i % 4, 0, 0, 0);
	ok(egress_plan_make(many, BROKER_POLICY_RULES, &plan, &err) == 0 && plan.n_nodes == 33, "all 33 prefix lengths nested");
	ok(egress_plan_decide(&plan, 0x0a000000, IPPROTO_TCP, 80) == EGRESS_DECISION_DENY_OPERATOR, "an operator's deny is among them");
	egress_plan_clear(&plan);
	ok(egress_plan_make(NULL, 0, &plan, &err) == 0 && egress_plan_decide(&plan, 1, IPPROTO_TCP, 80) == EGRESS_DECISION_NEXT, "no rules say nothing");
	egress_plan_clear(&plan);
}

static void decoding(void)
{
	static union broker_any any;
	struct sbx_err err;
	const struct broker_head policy = {.magic = BROKER_MAGIC, .op = BROKER_OP_POLICY, .size = sizeof(any.policy)};
	const struct broker_head pin = {.magic = BROKER_MAGIC, .op = BROKER_OP_PIN, .size = sizeof(any.pin)};

#define ROW(good, head_of, size, change, why) \
	do { \
		memset(&any, 0, sizeof(any)); \
		any.head = head_of; \
		change; \
		ok((broker_decode(&any, size, 0, &err) == 0) == (good), "decode: %s", why); \
	} while (0)
	ROW(true, policy, sizeof(any.policy), any.policy.flags = BROKER_POLICY_LAST, "an empty policy");
	ROW(false, policy, sizeof(any.policy), any.policy.flags = 8, "an unknown flag");
	ROW(false, policy, sizeof(any.policy), any.policy.n_rules = BROKER_POLICY_PART + 1, "too many rules in a part");
	ROW(false, policy, sizeof(any.policy), any.policy.first = BROKER_POLICY_RULES + 1, "a part behind the end");
	ROW(false, policy, sizeof(any.policy), any.policy.rule[0].addr = 1, "a rule behind the last");
	ROW(true, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0].addr = 0x0a000000, any.policy.rule[0].prefix = 8), "a net");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0].addr = 0x0a000001, any.policy.rule[0].prefix = 8), "host bits");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0].prefix = 33), "33 bits");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0].flags = 8), "an unknown flag of a rule");
	ROW(true, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0] = mirror(rule_of(5, 32, ALLOW, 0, 0, 0))), "an IPv6 address");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0] = mirror(rule_of(5, 31, ALLOW, 0, 0, 0))), "IPv6 host bits");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0] = mirror(rule_of(5, 33, ALLOW, 0, 0, 0))), "129 bits");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0].addr6.lo = 1), "an IPv6 address in a rule for IPv4");
	ROW(true, pin, sizeof(any.pin), (any.pin.n_addrs = 16, any.pin.ipv6 = 1, memset(any.pin.addr6, 1, sizeof(any.pin.addr6)), any.pin.lease_ms = 1), "16 IPv6 leases");
	ROW(false, pin, sizeof(any.pin), (any.pin.n_addrs = 17, any.pin.ipv6 = 1, memset(any.pin.addr6, 1, sizeof(any.pin.addr6)), any.pin.lease_ms = 1), "17 of them");
	ROW(false, pin, sizeof(any.pin), (any.pin.n_addrs = 1, any.pin.ipv6 = 1, any.pin.lease_ms = 1), "the address ::");
	ROW(false, pin, sizeof(any.pin), (any.pin.n_addrs = 1, any.pin.ipv6 = 2, any.pin.addr6[0].lo = 1, any.pin.lease_ms = 1), "a kind that is none");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0].n_ports = 1), "port 0");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0].n_ports = 17), "17 ports");
	ROW(false, policy, sizeof(any.policy), (any.policy.n_rules = 1, any.policy.rule[0].port[0] = 80), "a port that is not counted");
	ROW(true, pin, sizeof(any.pin), (any.pin.n_addrs = 1, any.pin.addr[0] = 1, any.pin.lease_ms = 1), "a lease");
	ROW(false, pin, sizeof(any.pin), (any.pin.n_addrs = 1, any.pin.addr[0] = 1), "a lease of no time");
	ROW(false, pin, sizeof(any.pin), (any.pin.n_addrs = 1, any.pin.addr[0] = 1, any.pin.lease_ms = BROKER_PIN_MS + 1), "a lease of more than a day");
	ROW(false, pin, sizeof(any.pin), (any.pin.n_addrs = 1, any.pin.lease_ms = 1), "address 0.0.0.0");
	ROW(false, pin, sizeof(any.pin), any.pin.lease_ms = 1, "no address");
	ROW(false, pin, sizeof(any.pin), (any.pin.n_addrs = BROKER_PIN_ADDRS + 1, any.pin.lease_ms = 1), "65 addresses");
#undef ROW
}

static void private_ranges(void)
{
	static const struct {
		const char *why;
		uint32_t addr;
		bool want;
	} rows[] = {
		{"10.0.0.0/8", 0x0a090005, true}, {"172.16.0.0/12", 0xac1fffff, true}, {"behind it", 0xac200000, false},
		{"192.168.0.0/16", 0xc0a80101, true}, {"carrier NAT", 0x64400001, true}, {"behind it", 0x64800000, false},
		{"loopback", 0x7f000001, true}, {"metadata", 0xa9fea9fe, true}, {"multicast", 0xe0000001, true},
		{"broadcast", 0xffffffff, true}, {"benchmarks", 0xc6130001, true}, {"this net", 0x00000001, true},
		{"a documentation net", 0xc633640a, false}, {"the internet", 0x08080808, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		ok(fw_rules_private(rows[i].addr) == rows[i].want, "private: %s", rows[i].why);
	static const struct {
		const char *addr;
		bool never, private;
	} sixes[] = {
		{"::", true, true}, {"::1", true, true}, {"::ffff:10.0.0.1", true, true}, {"::ffff:8.8.8.8", true, true}, {"::10.0.0.1", true, true},
		{"64:ff9b::10.0.0.1", true, true}, {"64:ff9b::808:808", true, true}, {"64:ff9b:1::1", true, true}, {"fe80::1", true, true},
		{"febf::1", true, true}, {"ff02::1", true, true}, {"fd00:ec2::254", true, true}, {"fd20:ce::254", true, true},
		{"fec0::1", false, true}, {"fc00::1", false, true}, {"fd12:3456::1", false, true}, {"2001::1", false, true},
		{"2001:2::1", false, true}, {"2002:a00:1::1", false, true}, {"100::1", false, true}, {"4000::1", false, true},
		{"2001:db8::1", false, false}, {"2001:200::1", false, false}, {"2a00:1450::1", false, false}, {"3fff::1", false, false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(sixes); i++) {
		struct ip6_prefix p;

		ok(ip6_parse(sixes[i].addr, &p) == 0 && p.prefix == 128 && ip6_never(p.addr) == sixes[i].never &&
			   ip6_private(p.addr) == sixes[i].private,
		   "IPv6: %s is %s", sixes[i].addr, sixes[i].never ? "never reached" : sixes[i].private ? "private" : "of the internet");
	}
	/* whether the host was given a network or a single address, its neighbours are these */
	static const char *const own[] = {"2001:db8:1:2::10", "fe80::1", "::1"};
	struct ip6 lan[ARRAY_SIZE(own)];
	struct ip6_prefix p;
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (ok(ip6_parse(own[i], &p) == 0, "%s", own[i])) {
			lan[i] = ip6_lan(p.addr);
			ok(ip6_none(lan[i]) == (i > 0), "%s %s a network around it", own[i], i ? "has not" : "has");
		}
	ok(ip6_parse("2001:db8:1:2:ffff::1", &p) == 0 && ip6_in_lan(p.addr, lan, 1), "a neighbour is in it");
	ok(ip6_parse("2001:db8:1:3::10", &p) == 0 && !ip6_in_lan(p.addr, lan, ARRAY_SIZE(lan)), "the next network is not");
}

int main(void)
{
	differential();
	limits();
	decoding();
	private_ranges();
	return tap_done();
}
