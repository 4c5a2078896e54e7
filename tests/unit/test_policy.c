/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, targets, verdicts and their encoding.  The decision functions are also held against a plain model that knows no
 * index, over every policy of up to three rules from a small alphabet.
 */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "netpolicy/policy.h"
#include "netpolicy/policy_wire.h"
#include "netpolicy/target.h"
#include "tests/tap.h"

static const struct {
	const char *why, *text, *key; /* key NULL: refused, and the error has to name `says` */
	const char *says;
} targets[] = {
	{"name", "ok.test", "ok.test", NULL},
	{"case does not count", "OK.Test", "ok.test", NULL},
	{"one last dot does not count", "ok.test.", "ok.test", NULL},
	{"blanks around do not count", " \tok.test\n", "ok.test", NULL},
	{"single label", "db", "db", NULL},
	{"underscores of service names", "_svc._tcp.example.com", "_svc._tcp.example.com", NULL},
	{"hyphens within", "r3---sn-x.test", "r3---sn-x.test", NULL},
	{"international name", "m\xc3\xbcnchen.example", "xn--mnchen-3ya.example", NULL},
	{"international name in capitals", "M\xc3\x9cNCHEN.example", "xn--mnchen-3ya.example", NULL},
	{"international wildcard", "*.m\xc3\xbcnchen.example", "*.xn--mnchen-3ya.example", NULL},
	{"sharp s stays (non-transitional)", "stra\xc3\x9f" "e.test", "xn--strae-oqa.test", NULL},
	{"wildcard", "*.example.com", "*.example.com", NULL},
	{"wildcard below a top-level domain", "*.com", "*.com", NULL},
	{"address", "198.51.100.7", "198.51.100.7", NULL},
	{"range, host bits masked", "10.1.2.3/8", "10.0.0.0/8", NULL},
	{"everything", "0.0.0.0/0", "0.0.0.0/0", NULL},
	{"host range is not the plain address", "10.0.0.1/32", "10.0.0.1/32", NULL},
	{"IPv6", "2001:DB8::7", "2001:db8::7", NULL},
	{"IPv6 range", "2001:db8:ffff::/33", "2001:db8:8000::/33", NULL},
	{"IPv6 everything", "::/0", "::/0", NULL},
	{"IPv4 in IPv6", "::ffff:10.0.0.1", "10.0.0.1", NULL},
	{"IPv4 range in IPv6", "::ffff:10.1.0.0/104", "10.0.0.0/8", NULL},
	{"zone", "fe80::1%eth0", NULL, "zone"},
	{"prefix too long", "10.0.0.0/33", NULL, "prefix"},
	{"prefix with sign", "10.0.0.0/+8", NULL, "prefix"},
	{"prefix empty", "10.0.0.0/", NULL, "prefix"},
	{"IPv6 prefix too long", "2001:db8::/129", NULL, "prefix"},
	{"octal", "010.0.0.1", NULL, "IPv4"},
	{"three numbers", "1.2.3", NULL, "IPv4"},
	{"a number", "2130706433", NULL, "IPv4"},
	{"hex number", "0x7f.1", NULL, "IPv4"},
	{"hex last", "a.0x7F", NULL, "IPv4"},
	{"full-width digits", "\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1", NULL, "IPv4"},
	{"address with port", "1.2.3.4:80", NULL, "port"},
	{"name with port", "ok.test:443", NULL, "port"},
	{"URL", "https://a.b", NULL, "URL"},
	{"path", "a.b/c", NULL, "address"},
	{"blank inside", "a b", NULL, "neither"},
	{"star", "*", NULL, "defaultAction"},
	{"star and dot", "*.", NULL, "defaultAction"},
	{"star in a label", "*foo.test", NULL, "first label"},
	{"star in the middle", "a.*.com", NULL, "first label"},
	{"two stars", "*.*.com", NULL, "first label"},
	{"star of an address", "*.1.2.3", NULL, "IPv4"},
	{"empty", "", NULL, "empty"},
	{"blank", "  ", NULL, "empty"},
	{"root", ".", NULL, "neither"},
	{"two last dots", "ok.test..", NULL, "neither"},
	{"empty label", "ok..test", NULL, "neither"},
	{"first dot", ".ok.test", NULL, "neither"},
	{"zero-width joiner alone", "\xe2\x80\x8d", NULL, "international"},
	{"broken UTF-8", "\xc3.test", NULL, "international"},
	{"ideographic dots make a name", "ok\xe3\x80\x82test\xc3\xbc", "ok.xn--test-3ra", NULL},
	{"label of 64", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test", NULL, "63"},
	{"label of 63", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test",
	 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test", NULL},
};

static void test_targets(void)
{
	char text[TARGET_TEXT_MAX + 2];
	struct target t;

	for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
		struct sbx_err err = {0};
		int r = target_parse(targets[i].text, &t, &err);

		if (targets[i].key)
			is_str(r ? err.msg : t.key, targets[i].key, "target: %s", targets[i].why);
		else if (!ok(r && err.code == SBX_E_INVALID_REQUEST && strstr(err.msg, targets[i].says), "refused: %s", targets[i].why))
			printf("#   got: %s\n", r ? err.msg : t.key);
	}
	for (size_t n = 250; n <= 256; n++) {
		struct sbx_err err = {0};

		for (size_t i = 0; i < n; i++)
			text[i] = i % 2 ? '.' : 'a';
		text[n - 1] = 'a';
		text[n] = '\0';
		ok(!target_parse(text, &t, &err) == (n <= 253), "name of %zu bytes", n);
	}
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	struct sbx_err err = {0};

	ok(target_parse(text, &t, &err) && strstr(err.msg, "longer than"), "a target beyond the bound is refused before it is read");
}

static void test_below(void)
{
	ok(fqdn_is_below("x.a.test", 8, "a.test") && !fqdn_is_below("a.test", 6, "a.test") && !fqdn_is_below("xa.test", 7, "a.test"),
	   "below, itself, another label");
}

/* "+name" allows, "-name" denies; '!' in front makes it the operator's; ":80" at the end narrows. */
static struct policy *build(bool default_allow, const char *const *rules, size_t n)
{
	struct policy *p = policy_new(default_allow);
	struct sbx_err err = {0};

	for (size_t i = 0; p && i < n; i++) {
		struct policy_ports port = {80, 80}; /* ":80", or ":853" */
		const char *text = rules[i];
		struct policy_rule rule;
		char name[300];
		struct target t;
		uint32_t flags = *text == '!' ? EGRESS_RULE_OPERATOR : 0;
		size_t len;

		text += *text == '!';
		flags |= *text == '+' ? EGRESS_RULE_ALLOW : 0;
		snprintf(name, sizeof(name), "%s", text + 1);
		len = strlen(name);
		if (len > 3 && !strcmp(name + len - 3, ":80")) {
			name[len - 3] = '\0';
		} else if (len > 4 && !strcmp(name + len - 4, ":853")) {
			name[len - 4] = '\0';
			port = (struct policy_ports){853, 853};
		} else {
			len = 0;
		}
		if (target_parse(name, &t, &err))
			break;
		policy_rule_set(&rule, &t, name, flags);
		rule.ports = &port;
		rule.n_ports = len != 0;
		if (policy_add(p, &rule, &err))
			break;
	}
	if (p && !err.code && !policy_seal(p, &err))
		return p;
	printf("# %s\n", err.msg);
	policy_free(p);
	return NULL;
}

#define RULES(...) (const char *const[]){__VA_ARGS__}, ARRAY_SIZE(((const char *const[]){__VA_ARGS__}))

static const struct {
	const char *why;
	bool default_allow;
	const char *rules[4];
	const char *name;
	bool allow;
	uint32_t rule;
} names[] = {
	{"earlier wildcard wins", false, {"+*.a.test", "-x.a.test"}, "x.a.test", true, 0},
	{"earlier exact wins", false, {"-x.a.test", "+*.a.test"}, "x.a.test", false, 0},
	{"the other child", false, {"-x.a.test", "+*.a.test"}, "y.a.test", true, 1},
	{"wildcard is not the apex", false, {"+*.a.test"}, "a.test", false, EGRESS_NO_RULE},
	{"exact is not the child", false, {"+a.test"}, "x.a.test", false, EGRESS_NO_RULE},
	{"two wildcards, first of the list", false, {"+*.a.test", "+*.b.a.test"}, "q.b.a.test", true, 0},
	{"two wildcards, first is the deeper", false, {"-*.b.a.test", "+*.a.test"}, "q.b.a.test", false, 0},
	{"only address rules", true, {"-198.51.100.0/24"}, "ok.test", true, EGRESS_NO_RULE},
	{"any depth", false, {"+*.a.test"}, "y.x.a.test", true, 0},
	{"label boundary", false, {"+*.github.com"}, "evilgithub.com", false, EGRESS_NO_RULE},
	{"same pattern: the first", false, {"-a.test", "+a.test"}, "a.test", false, 0},
	{"operator's come first", false, {"!-ok.test", "+ok.test"}, "ok.test", false, 0},
	{"default allow, denied name", true, {"-oth.test"}, "oth.test", false, 0},
	{"default allow, other name", true, {"-oth.test"}, "ok.test", true, EGRESS_NO_RULE},
	{"no rules, deny", false, {NULL}, "ok.test", false, EGRESS_NO_RULE},
	{"no rules, allow", true, {NULL}, "ok.test", true, EGRESS_NO_RULE},
	{"root", false, {"+*.com"}, "", false, EGRESS_NO_RULE},
	{"below a top-level domain", false, {"+*.com"}, "a.b.com", true, 0},
};

static void test_names(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t n = 0;
		struct policy *p;
		struct policy_verdict v;

		while (n < 4 && names[i].rules[n])
			n++;
		p = build(names[i].default_allow, names[i].rules, n);
		v = policy_decide_name(p, names[i].name, strlen(names[i].name));
		ok(v.allow == names[i].allow && v.rule == names[i].rule &&
			   v.reason == (v.rule == EGRESS_NO_RULE ? EGRESS_REASON_DEFAULT : EGRESS_REASON_RULE),
		   "name: %s", names[i].why);
		policy_free(p);
	}
}

static const struct policy_range host_ranges[] = {{0xcb007105u, 32}, {0xcb007106u, 32}}, sandboxes_range = {0x0ad50000u, 16};
static const struct policy_range allowed_ranges[] = {{0x0a090000u, 16}, {0xcb007106u, 32}}, doh_range = {0x08080800u, 24};
static const struct policy_guards guards = {.host = host_ranges, .n_host = 2, .sandboxes = &sandboxes_range, .n_sandboxes = 1,
					    .private_allowed = allowed_ranges, .n_private_allowed = 2, .doh = &doh_range, .n_doh = 1};

static const struct {
	const char *why;
	bool default_allow;
	const char *rules[4];
	const char *addr;
	uint16_t port;
	uint32_t lease;
	bool allow;
	uint32_t rule;
	enum egress_reason reason;
} addrs[] = {
	{"default deny", false, {NULL}, "198.51.100.10", 443, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"default allow", true, {NULL}, "198.51.100.10", 443, EGRESS_NO_RULE, true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"allowed address", false, {"+198.51.100.10"}, "198.51.100.10", 443, EGRESS_NO_RULE, true, 0, EGRESS_REASON_RULE},
	{"deny beats allow, order", false, {"+198.51.100.0/24", "-198.51.100.11"}, "198.51.100.11", 443, EGRESS_NO_RULE, false, 1, EGRESS_REASON_RULE},
	{"deny beats allow, longer prefix", false, {"-198.51.100.0/24", "+198.51.100.11/32"}, "198.51.100.11", 1, EGRESS_NO_RULE, false, 0, EGRESS_REASON_RULE},
	{"beside the denied one", false, {"+198.51.100.0/24", "-198.51.100.11"}, "198.51.100.10", 443, EGRESS_NO_RULE, true, 0, EGRESS_REASON_RULE},
	{"operator allow beats user deny", false, {"!+198.51.100.10", "-198.51.100.0/24"}, "198.51.100.10", 443, EGRESS_NO_RULE, true, 0, EGRESS_REASON_RULE},
	{"operator deny beats operator allow", false, {"!-198.51.100.0/24", "!+198.51.100.10"}, "198.51.100.10", 443, EGRESS_NO_RULE, false, 0, EGRESS_REASON_RULE},
	{"operator deny beats a lease", false, {"!-198.51.100.0/24", "+ok.test"}, "198.51.100.10", 443, 1, false, 0, EGRESS_REASON_RULE},
	{"user deny beats a lease", true, {"-198.51.100.0/24", "+ok.test"}, "198.51.100.10", 443, 1, false, 0, EGRESS_REASON_RULE},
	{"lease", false, {"+ok.test"}, "198.51.100.10", 443, 0, true, 0, EGRESS_REASON_RULE},
	{"lease does not open 853", false, {"+ok.test"}, "198.51.100.10", 853, 0, false, 0, EGRESS_REASON_DOT},
	{"rule does not open 853", false, {"+198.51.100.10"}, "198.51.100.10", 853, EGRESS_NO_RULE, false, 0, EGRESS_REASON_DOT},
	{"default allow with rules for names does not open 853", true, {"-a.test"}, "198.51.100.10", 853, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_DOT},
	{"default allow without them does", true, {"-10.0.0.0/8"}, "198.51.100.10", 853, EGRESS_NO_RULE, true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"853 that a rule says", false, {"+198.51.100.10:853"}, "198.51.100.10", 853, EGRESS_NO_RULE, true, 0, EGRESS_REASON_RULE},
	{"narrowed rule, its port", false, {"+198.51.100.10:80"}, "198.51.100.10", 80, EGRESS_NO_RULE, true, 0, EGRESS_REASON_RULE},
	{"narrowed rule, other port", false, {"+198.51.100.10:80"}, "198.51.100.10", 22, EGRESS_NO_RULE, false, 0, EGRESS_REASON_PORT},
	{"narrowed name, other port", false, {"-x.test", "+ok.test:80"}, "198.51.100.10", 22, 1, false, 1, EGRESS_REASON_PORT},
	{"narrowed rule narrows no default", true, {"+198.51.100.10:80"}, "198.51.100.10", 22, EGRESS_NO_RULE, true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"private, default allow", true, {NULL}, "10.0.0.8", 5432, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_PRIVATE},
	{"private, named", false, {"+10.0.0.8"}, "10.0.0.8", 5432, EGRESS_NO_RULE, true, 0, EGRESS_REASON_RULE},
	{"private, named, other port", true, {"+10.0.0.8:80"}, "10.0.0.8", 5432, EGRESS_NO_RULE, false, 0, EGRESS_REASON_PORT},
	{"private, configured, default allow", true, {NULL}, "10.9.0.5", 80, EGRESS_NO_RULE, true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"private, configured, default deny", false, {NULL}, "10.9.0.5", 80, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"CGNAT", true, {NULL}, "100.64.0.1", 80, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_PRIVATE},
	{"just outside of CGNAT", true, {NULL}, "100.128.0.1", 80, EGRESS_NO_RULE, true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"metadata, named", true, {"!+169.254.169.254"}, "169.254.169.254", 80, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_METADATA},
	{"loopback, named", true, {"+127.0.0.0/8"}, "127.0.0.1", 80, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_METADATA},
	{"multicast, everything named", true, {"+0.0.0.0/0"}, "224.0.0.251", 5353, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_METADATA},
	{"host, named", true, {"+203.0.113.5"}, "203.0.113.5", 22, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_HOST},
	{"other sandbox, named", true, {"+10.213.0.9"}, "10.213.0.9", 22, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_SANDBOX},
	{"host, by the configuration, default allow", true, {NULL}, "203.0.113.6", 22, EGRESS_NO_RULE, true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"host, by the configuration, default deny", false, {NULL}, "203.0.113.6", 22, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"DNS over HTTPS where names are judged", true, {"-a.test"}, "8.8.8.8", 443, EGRESS_NO_RULE, false, EGRESS_NO_RULE, EGRESS_REASON_DOH},
	{"its other ports", true, {"-a.test"}, "8.8.8.8", 80, EGRESS_NO_RULE, true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"DNS over HTTPS where no name is", true, {"-10.0.0.0/8"}, "8.8.8.8", 443, EGRESS_NO_RULE, true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT},
	{"DNS over HTTPS by a rule for its address", true, {"+8.8.8.8", "-a.test"}, "8.8.8.8", 443, EGRESS_NO_RULE, true, 0, EGRESS_REASON_RULE},
	{"everything named", false, {"+0.0.0.0/0"}, "8.8.8.8", 80, EGRESS_NO_RULE, true, 0, EGRESS_REASON_RULE},
};

static void test_addrs(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++) {
		struct policy_flow flow = {.port = addrs[i].port, .protocol = IPPROTO_TCP, .lease_rule = addrs[i].lease};
		struct policy_verdict v;
		struct in_addr addr;
		struct policy *p;
		size_t n = 0;

		while (n < 4 && addrs[i].rules[n])
			n++;
		p = build(addrs[i].default_allow, addrs[i].rules, n);
		inet_pton(AF_INET, addrs[i].addr, &addr);
		flow.addr = ntohl(addr.s_addr);
		v = policy_decide_addr(p, &guards, &flow);
		if (!ok(v.allow == addrs[i].allow && v.rule == addrs[i].rule && v.reason == addrs[i].reason, "address: %s", addrs[i].why))
			printf("#   got: %d rule %u %s\n", v.allow, v.rule, policy_reason_name(v.reason));
		policy_free(p);
	}
}

/* ---- the plain model: as the contract says it, rule by rule ---- */

static bool model_matches(const struct policy_rule *r, const char *name)
{
	size_t n = strlen(name), m = strlen(r->name);

	if (r->kind == EGRESS_RULE_DOMAIN)
		return !strcmp(r->name, name);
	return r->kind == EGRESS_RULE_WILDCARD && n > m + 1 && !strcmp(name + n - m, r->name) && name[n - m - 1] == '.';
}

static struct policy_verdict model_name(const struct policy *p, const char *name)
{
	for (uint32_t i = 0; i < policy_count(p); i++) {
		const struct policy_rule *r = policy_at(p, i);

		if (model_matches(r, name))
			return (struct policy_verdict){r->flags & EGRESS_RULE_ALLOW, i, EGRESS_REASON_RULE};
	}
	return (struct policy_verdict){policy_default_allow(p), EGRESS_NO_RULE, EGRESS_REASON_DEFAULT};
}

/* Bit by bit, as the text of a rule means it; a flow without an IPv4 address has an IPv6 one. */
static bool model_covers(const struct policy_rule *r, const struct policy_flow *flow)
{
	uint8_t addr[16];

	if (r->kind == EGRESS_RULE_IPV4)
		return flow->addr && !(r->prefix && (flow->addr ^ r->addr) >> (32 - r->prefix));
	if (r->kind != EGRESS_RULE_IPV6 || flow->addr)
		return false;
	for (unsigned i = 0; i < 16; i++)
		addr[i] = (uint8_t)((i < 8 ? flow->addr6.hi : flow->addr6.lo) >> (56 - i % 8 * 8));
	for (unsigned bit = 0; bit < r->prefix; bit++)
		if ((addr[bit / 8] ^ r->addr6[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return true;
}

static uint32_t model_first(const struct policy *p, uint32_t flags, const struct policy_flow *flow, bool opens)
{
	for (uint32_t i = 0; i < policy_count(p); i++) {
		const struct policy_rule *r = policy_at(p, i);

		if (!model_covers(r, flow))
			continue;
		if ((r->flags & EGRESS_RULE_ALLOW) != (flags & EGRESS_RULE_ALLOW))
			continue;
		if (opens && r->flags != flags)
			continue;
		if (!(flags & EGRESS_RULE_ALLOW) || policy_rule_port(r, flow->port) == opens)
			return i;
	}
	return EGRESS_NO_RULE;
}

static struct policy_verdict model_addr(const struct policy *p, const struct policy_flow *flow)
{
	enum egress_reason guard = flow->addr ? policy_guard(&guards, flow->addr) : policy_guard6(&guards, flow->addr6);
	bool private = flow->addr ? policy_is_private(flow->addr) && flow->addr >> 16 != 0x0a09 : flow->addr6.hi >> 57 == 0xfc >> 1;
	uint32_t operator_deny = model_first(p, EGRESS_RULE_OPERATOR, flow, true);
	uint32_t operator_allow = model_first(p, EGRESS_RULE_OPERATOR | EGRESS_RULE_ALLOW, flow, true);
	uint32_t user_deny = model_first(p, 0, flow, true), user_allow = model_first(p, EGRESS_RULE_ALLOW, flow, true);
	uint32_t closed = model_first(p, EGRESS_RULE_ALLOW, flow, false);
	bool quic = flow->protocol == IPPROTO_UDP && (flow->port == 80 || flow->port == 443), has_names = false;
	bool lease = flow->lease_rule != EGRESS_NO_RULE, lease_opens = lease && policy_rule_port(policy_at(p, flow->lease_rule), flow->port);

	if (guard)
		return (struct policy_verdict){false, EGRESS_NO_RULE, guard};
	if (operator_deny != EGRESS_NO_RULE)
		return (struct policy_verdict){false, operator_deny, EGRESS_REASON_RULE};
	if (operator_allow != EGRESS_NO_RULE)
		return (struct policy_verdict){true, operator_allow, EGRESS_REASON_RULE};
	if (user_deny != EGRESS_NO_RULE)
		return (struct policy_verdict){false, user_deny, EGRESS_REASON_RULE};
	if (user_allow != EGRESS_NO_RULE)
		return (struct policy_verdict){true, user_allow, EGRESS_REASON_RULE};
	if (lease_opens && quic)
		return (struct policy_verdict){false, flow->lease_rule, EGRESS_REASON_QUIC};
	if (lease_opens)
		return (struct policy_verdict){true, flow->lease_rule, EGRESS_REASON_RULE};
	if (lease && flow->lease_rule < closed)
		closed = flow->lease_rule;
	if (closed != EGRESS_NO_RULE && flow->port == 853 && !policy_at(p, closed)->n_ports)
		return (struct policy_verdict){false, closed, EGRESS_REASON_DOT};
	if (private)
		return (struct policy_verdict){false, closed, closed == EGRESS_NO_RULE ? EGRESS_REASON_PRIVATE : EGRESS_REASON_PORT};
	for (uint32_t i = 0; i < policy_count(p); i++)
		has_names = has_names || *policy_at(p, i)->name;
	if (policy_default_allow(p) && has_names && (quic || flow->port == 853))
		return (struct policy_verdict){false, EGRESS_NO_RULE, quic ? EGRESS_REASON_QUIC : EGRESS_REASON_DOT};
	if (policy_default_allow(p) && has_names && flow->port == 443 && flow->addr >> 8 == 0x080808)
		return (struct policy_verdict){false, EGRESS_NO_RULE, EGRESS_REASON_DOH};
	if (policy_default_allow(p))
		return (struct policy_verdict){true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT};
	return (struct policy_verdict){false, closed, closed == EGRESS_NO_RULE ? EGRESS_REASON_DEFAULT : EGRESS_REASON_PORT};
}

static const char *const alphabet[] = {
	"+a.test", "-a.test", "+*.a.test", "-*.a.test", "+x.a.test", "-x.a.test", "-*.test", "+*.x.a.test:80", "!+a.test", "!-*.a.test",
	"+198.51.100.0/24", "-198.51.100.11", "+198.51.100.11:80", "!-198.51.100.0/28", "!+198.51.100.11", "+10.0.0.0/8", "-10.0.0.0/8",
	"+10.9.0.5:80", "-0.0.0.0/0", "+0.0.0.0/0:80", "+2001:db8::/32:80", "-2001:db8::1", "!+2001:db8::1", "+fd00::/8", "-::/0",
};
static const char *const asked[] = {"", "test", "a.test", "x.a.test", "y.a.test", "q.x.a.test", "xa.test", "b.test", "a.test.b"};
static const uint32_t reached[] = {0xc633640au, 0xc633640bu, 0xc6336420u, 0x0a000008u, 0x0a090005u, 0xa9fea9feu, 0x08080808u, 0x0ad50001u};
static const uint16_t ports[] = {80, 22, 443, 853};
/* in 2001:db8::/32 one that rules name and one beside it, one elsewhere, a private one, link-local, a mapped one */
static const struct ip6 reached6[] = {{UINT64_C(0x20010db8) << 32, 1}, {UINT64_C(0x20010db8) << 32, 2}, {UINT64_C(0x2a00) << 48, 1},
				      {UINT64_C(0xfd12) << 48, 1}, {UINT64_C(0xfe80) << 48, 1}, {0, UINT64_C(0xffff0a000001)}};

static bool same(struct policy_verdict a, struct policy_verdict b)
{
	return a.allow == b.allow && a.rule == b.rule && a.reason == b.reason;
}

static size_t compare(const struct policy *p, size_t *n_cases)
{
	size_t bad = 0;

	for (size_t i = 0; i < ARRAY_SIZE(asked); i++, ++*n_cases)
		bad += !same(policy_decide_name(p, asked[i], strlen(asked[i])), model_name(p, asked[i]));
	for (size_t i = 0; i < ARRAY_SIZE(reached) + ARRAY_SIZE(reached6); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(ports); j++) {
			for (uint32_t lease = 0; lease <= policy_count(p); lease++, ++*n_cases) {
				struct policy_flow flow = {.port = ports[j], .protocol = lease % 2 ? IPPROTO_TCP : IPPROTO_UDP,
							   .lease_rule = lease ? lease - 1 : EGRESS_NO_RULE};

				if (i < ARRAY_SIZE(reached))
					flow.addr = reached[i];
				else
					flow.addr6 = reached6[i - ARRAY_SIZE(reached)];

				/* A lease comes from a name rule that allows. */
				if (lease && (*policy_at(p, lease - 1)->name == '\0' || !(policy_at(p, lease - 1)->flags & EGRESS_RULE_ALLOW)))
					continue;
				bad += !same(policy_decide_addr(p, &guards, &flow), model_addr(p, &flow));
			}
		}
	}
	return bad;
}

/* What went through the encoding says the same. */
static bool survives(const struct policy *p)
{
	auto_buf body = {0};
	struct sbx_err err = {0};
	struct policy *again;
	bool good;

	policy_wire_write(p, &body);
	again = policy_wire_read(buf_peek(&body), buf_used(&body), policy_count(p), policy_default_allow(p), &err);
	good = again && policy_count(again) == policy_count(p);
	for (uint32_t i = 0; good && i < policy_count(p); i++) {
		const struct policy_rule *a = policy_at(p, i), *b = policy_at(again, i);

		good = a->kind == b->kind && a->flags == b->flags && a->addr == b->addr && a->prefix == b->prefix && a->n_ports == b->n_ports &&
		       !strcmp(a->name, b->name) && !strcmp(a->text, b->text) && !memcmp(a->addr6, b->addr6, 16) &&
		       (!a->n_ports || !memcmp(a->ports, b->ports, a->n_ports * sizeof(*a->ports)));
	}
	policy_free(again);
	return good;
}

static void test_model(void)
{
	size_t n = 0, bad = 0, lost = 0, cases = 0, a = ARRAY_SIZE(alphabet);

	for (size_t i = 0; i < 2 * (1 + a + a * a + a * a * a); i++) {
		size_t at = i / 2, len = at == 0 ? 0 : at <= a ? 1 : at <= a + a * a ? 2 : 3;
		const char *rules[3];
		struct policy *p;

		at -= len > 2 ? 1 + a + a * a : len > 1 ? 1 + a : len;
		for (size_t j = 0; j < len; j++, at /= a)
			rules[j] = alphabet[at % a];
		p = build(i % 2, rules, len);
		if (!p) {
			bad++;
			break;
		}
		bad += compare(p, &cases);
		lost += !survives(p);
		policy_free(p);
		n++;
	}
	is_int(bad, 0, "%zu policies, %zu verdicts as the plain model gives them", n, cases);
	is_int(lost, 0, "each of them survives the encoding");
}

static void test_wire(void)
{
	struct policy *p = build(false, RULES("+ok.test:80", "-*.b.test", "!+10.0.0.0/8", "+2001:db8::/32"));
	struct sbx_err err = {0};
	struct policy *again;
	auto_buf body = {0};
	size_t bad = 0, len;

	ok(p && survives(p), "four kinds of rules");
	policy_wire_write(p, &body);
	len = buf_used(&body);
	for (size_t n = 0; n < len; n++) {
		again = policy_wire_read(buf_peek(&body), n, 4, false, &err);
		bad += again != NULL;
		policy_free(again);
	}
	is_int(bad, 0, "no front part of it reads");
	again = policy_wire_read(buf_peek(&body), len, 3, false, &err);
	ok(!again && err.code == SBX_E_PROTOCOL, "nor with a rule left over");
	again = policy_wire_read(buf_peek(&body), len, 5, false, &err);
	ok(!again && err.code == SBX_E_PROTOCOL, "nor with one that is missing");
	again = policy_wire_read(buf_peek(&body), len, EGRESS_RULES_MAX + 1, false, &err);
	ok(!again && err.code == SBX_E_LIMIT, "nor with more than the bound");
	policy_free(p);
	for (size_t i = 0; i < len * 255; i++) {
		auto_buf twisted = {0};

		ignore_result(buf_append(&twisted, buf_peek(&body), len)); /* read below, or the sanitizer speaks */
		buf_reserve(&twisted, 1);
		twisted.data[i / 255] = (char)(twisted.data[i / 255] ^ (char)(1 + i % 255));
		policy_free(policy_wire_read(twisted.data, len, 4, false, &err));
	}
	ok(true, "%zu bodies with one byte changed do no harm", len * 255);
}

static void test_ports(void)
{
	struct policy_ports many[17], wide = {1, 17}, reversed = {9, 8}, zero = {0, 1}, range = {8000, 8003};
	struct policy *p = policy_new(false);
	struct policy_rule rule = {.kind = EGRESS_RULE_DOMAIN, .flags = EGRESS_RULE_ALLOW, .name = "a.test", .text = "a.test"};
	struct sbx_err err = {0};

	for (uint16_t i = 0; i < 17; i++)
		many[i] = (struct policy_ports){(uint16_t)(i + 1), (uint16_t)(i + 1)};
	rule.ports = many;
	rule.n_ports = 17;
	ok(policy_add(p, &rule, &err) && err.code == SBX_E_INVALID_REQUEST, "17 ports");
	rule.n_ports = 16;
	ok(!policy_add(p, &rule, &err), "16 ports");
	rule.n_ports = 1;
	rule.ports = &wide;
	ok(policy_add(p, &rule, &err) && err.code == SBX_E_INVALID_REQUEST, "a range of 17 ports");
	rule.ports = &reversed;
	ok(policy_add(p, &rule, &err) && err.code == SBX_E_INVALID_REQUEST, "a range backwards");
	rule.ports = &zero;
	ok(policy_add(p, &rule, &err) && err.code == SBX_E_INVALID_REQUEST, "port 0");
	rule.ports = &range;
	ok(!policy_add(p, &rule, &err) && policy_rule_port(&rule, 8003) && !policy_rule_port(&rule, 8004), "a range");
	rule.flags = 0;
	ok(policy_add(p, &rule, &err) && err.code == SBX_E_INVALID_REQUEST, "ports of a deny");
	rule.n_ports = 0;
	for (uint32_t i = policy_count(p); i < EGRESS_RULES_MAX; i++)
		ignore_result(policy_add(p, &rule, &err)); /* counted below */
	is_int(policy_count(p), EGRESS_RULES_MAX, "as many rules as there may be");
	ok(policy_add(p, &rule, &err) && err.code == SBX_E_LIMIT, "and no more");
	policy_free(p);
}

/* Look-ups in 4,096 rules, for the log: a figure, not a verdict. */
static void show_speed(void)
{
	static const char *const ask[] = {"n2047.some.example.test", "www.unknown.example.org", "a.b.c.n17.wild.test", "n4000.some.example.test"};
	struct policy *p = policy_new(false);
	struct sbx_err err = {0};
	struct timespec from, to;
	struct target t;
	size_t allowed = 0;

	for (uint32_t i = 0; i < 4096; i++) {
		struct policy_rule rule;
		char name[64];

		snprintf(name, sizeof(name), i % 4 ? "n%u.some.example.test" : "*.n%u.wild.test", i % 4 ? i : i + 1);
		if (target_parse(name, &t, &err))
			break;
		policy_rule_set(&rule, &t, name, EGRESS_RULE_ALLOW);
		if (policy_add(p, &rule, &err))
			break;
	}
	ok(!policy_seal(p, &err) && policy_count(p) == 4096, "4,096 rules");
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	for (size_t i = 0; i < 1000000; i++)
		allowed += policy_decide_name(p, ask[i % 4], strlen(ask[i % 4])).allow;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	printf("# %.1f ns a look-up in 4,096 rules\n",
	       (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6);
	is_int(allowed, 500000, "two of four names are named");
	policy_free(p);
}

int main(void)
{
	test_targets();
	test_below();
	test_names();
	test_addrs();
	test_ports();
	test_wire();
	test_model();
	show_speed();
	return tap_done();
}
