/* SPDX-License-Identifier: Apache-2.0 */
/* Policies as JSON: what is taken, what is refused and how it is named, merging and removing. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "netpolicy/policy_json.h"
#include "tests/tap.h"

/* @json as a policy and written again; the error's message when it is refused. */
static char *round_trip(const char *json, uint32_t max)
{
	struct sbx_err err = {0};
	auto_jv v = jv_parse(json, strlen(json), &err);
	struct policy *p = v ? policy_json_read(v, max, &err) : NULL;
	auto_buf out = {0};
	struct jw w = {.out = &out};

	if (!p)
		return strdup(err.msg);
	policy_json_write(p, &w);
	policy_free(p);
	return strdup(buf_str(&out));
}

#define DENY_ALL "{\"defaultAction\":\"deny\",\"egress\":[]}"

static const struct {
	const char *why, *json, *want;
} good[] = {
	{"null", "null", DENY_ALL},
	{"empty object", "{}", DENY_ALL},
	{"null members", "{\"defaultAction\":null,\"egress\":null}", DENY_ALL},
	{"empty text", "{\"defaultAction\":\"\"}", DENY_ALL},
	{"allow all", "{\"defaultAction\":\"allow\"}", "{\"defaultAction\":\"allow\",\"egress\":[]}"},
	{"blanks and case of the action", "{\"defaultAction\":\" ALLOW\\n\"}", "{\"defaultAction\":\"allow\",\"egress\":[]}"},
	{"rule without action denies", "{\"egress\":[{\"target\":\"a.test\"}]}",
	 "{\"defaultAction\":\"deny\",\"egress\":[{\"action\":\"deny\",\"target\":\"a.test\"}]}"},
	{"the target stays as it was written", "{\"egress\":[{\"action\":\"allow\",\"target\":\" M\xc3\xbcnchen.Test. \"}]}",
	 "{\"defaultAction\":\"deny\",\"egress\":[{\"action\":\"allow\",\"target\":\"M\xc3\xbcnchen.Test.\"}]}"},
	{"ports", "{\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[443,\"8000-8003\",\"22\"]}]}",
	 "{\"defaultAction\":\"deny\",\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[443,\"8000-8003\",22]}]}"},
};

/* want: a part of the message */
static const struct {
	const char *why, *json, *want;
} bad[] = {
	{"array", "[]", "must be an object"},
	{"number", "7", "must be an object"},
	{"unknown word", "{\"defaultAction\":\"block\"}", "\"block\""},
	{"default of another type", "{\"defaultAction\":true}", "defaultAction"},
	{"key in another case", "{\"DefaultAction\":\"allow\"}", "DefaultAction"},
	{"unknown key", "{\"rules\":[]}", "\"rules\""},
	{"doubled key", "{\"defaultAction\":\"deny\",\"defaultAction\":\"allow\"}", "defaultAction"},
	{"egress of another type", "{\"egress\":{}}", "egress must be an array"},
	{"rule of another type", "{\"egress\":[\"a.test\"]}", "egress[0]"},
	{"null rule", "{\"egress\":[{\"target\":\"a.test\"},null]}", "egress[1]"},
	{"unknown action", "{\"egress\":[{\"action\":\"permit\",\"target\":\"a.test\"}]}", "egress[0]: action"},
	{"no target", "{\"egress\":[{\"action\":\"allow\"}]}", "egress[0]: the target is empty"},
	{"null target", "{\"egress\":[{\"action\":\"allow\",\"target\":null}]}", "egress[0]: the target is empty"},
	{"target of another type", "{\"egress\":[{\"action\":\"allow\",\"target\":1}]}", "egress[0]: target must be a string"},
	{"unknown key of a rule", "{\"egress\":[{\"target\":\"a.test\",\"Target\":\"b.test\"}]}", "egress[0]: unknown key \"Target\""},
	{"bad prefix", "{\"egress\":[{\"target\":\"10.0.0.0/33\"}]}", "10.0.0.0/33"},
	{"blank", "{\"egress\":[{\"target\":\"a b\"}]}", "\"a b\""},
	{"star", "{\"egress\":[{\"target\":\"*\"}]}", "\"*\""},
	{"star in a label", "{\"egress\":[{\"target\":\"*foo.test\"}]}", "\"*foo.test\""},
	{"third rule is bad", "{\"egress\":[{\"target\":\"a.test\"},{\"target\":\"b.test\"},{\"target\":\"\"}]}", "egress[2]"},
	{"too many", "{\"egress\":[{\"target\":\"a.test\"},{\"target\":\"b.test\"},{\"target\":\"c.test\"},{\"target\":\"d.test\"}]}", "max_rules"},
	{"no ports", "{\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[]}]}", "ports"},
	{"port 0", "{\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[0]}]}", "ports"},
	{"port 65536", "{\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[65536]}]}", "ports"},
	{"port and a half", "{\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[80.5]}]}", "ports"},
	{"range backwards", "{\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[\"9-8\"]}]}", "ports"},
	{"range too wide", "{\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[\"1-17\"]}]}", "ports"},
	{"half a range", "{\"egress\":[{\"action\":\"allow\",\"target\":\"a.test\",\"ports\":[\"1-\"]}]}", "ports"},
	{"ports of a deny", "{\"egress\":[{\"target\":\"a.test\",\"ports\":[80]}]}", "ports"},
	{"NUL in a target", "{\"egress\":[{\"action\":\"allow\",\"target\":\"ok.test\\u0000.evil\"}]}", ""},
	{"trailing bytes", "{} x", ""},
};

/* "+a -b" into a policy. */
static struct policy *short_form(const char *text, bool default_allow)
{
	struct policy *p = policy_new(default_allow);
	auto_free char *copy = strdup(text);
	struct sbx_err err = {0};
	char *rest = copy, *word;

	while ((word = strsep(&rest, " "))) {
		struct policy_rule rule;
		struct target t;

		if (!*word)
			continue;
		if (target_parse(word + 1, &t, &err))
			break;
		policy_rule_set(&rule, &t, word + 1, *word == '+' ? EGRESS_RULE_ALLOW : 0);
		if (policy_add(p, &rule, &err))
			break;
	}
	if (!err.code && !policy_seal(p, &err))
		return p;
	policy_free(p);
	return NULL;
}

static char *to_short(struct policy *p)
{
	auto_buf out = {0};

	for (uint32_t i = 0; p && i < policy_count(p); i++)
		buf_printf(&out, "%s%c%s", i ? " " : "", policy_at(p, i)->flags & EGRESS_RULE_ALLOW ? '+' : '-', policy_at(p, i)->text);
	return strdup(p ? buf_str(&out) : "(refused)");
}

static const struct {
	const char *why, *old, *patch, *want;
} merges[] = {
	{"the contract's example", "-*.a.test +b.test", "+x.a.test -B.test +b.test", "+x.a.test -B.test -*.a.test"},
	{"into nothing", "", "+a.test", "+a.test"},
	{"same rule again", "+a.test", "+a.test", "+a.test"},
	{"address and host range are two", "-198.51.100.11", "+198.51.100.11/32", "+198.51.100.11/32 -198.51.100.11"},
	{"one range in two spellings", "-10.1.2.3/8", "+10.0.0.0/8", "+10.0.0.0/8"},
	{"last dot", "+a.test.", "-a.test", "-a.test"},
	{"international", "+m\xc3\xbcnchen.test", "-xn--mnchen-3ya.test", "-xn--mnchen-3ya.test"},
	{"doubled old ones both go", "+a.test -a.test +b.test", "-A.test", "-A.test +b.test"},
};

static const struct {
	const char *why, *old, *targets, *want;
	uint32_t removed;
} removals[] = {
	{"one of two, one unknown", "+ok.test +oth.test", "[\"OTH.test\",\"nope.test\"]", "+ok.test", 1},
	{"none", "+ok.test", "[\"nope.test\"]", "+ok.test", 0},
	{"what is no target is unknown", "+ok.test", "[\"a b\",\"\"]", "+ok.test", 0},
	{"the last one", "+ok.test", "[\" ok.test. \"]", "", 1},
	{"all of one key", "+ok.test -ok.test", "[\"ok.test\"]", "", 2},
	{"empty array", "+ok.test", "[]", "(refused)", 0},
	{"object", "+ok.test", "{}", "(refused)", 0},
	{"null", "+ok.test", "null", "(refused)", 0},
	{"a number in it", "+ok.test", "[\"ok.test\",1]", "(refused)", 0},
};

static void test_changes(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(merges); i++) {
		struct policy *old = short_form(merges[i].old, true), *patch = short_form(merges[i].patch, false);
		struct sbx_err err = {0};
		struct policy *p = policy_merge(old, patch, 4, &err);
		auto_free char *got = to_short(p);

		is_str(got, merges[i].want, "merge: %s", merges[i].why);
		ok(p && policy_default_allow(p), "and the default stays");
		policy_free(old);
		policy_free(patch);
		policy_free(p);
	}
	struct policy *old = short_form("+a.test +b.test", false), *patch = short_form("+c.test", false);
	struct sbx_err err = {0};

	ok(!policy_merge(old, patch, 2, &err) && err.code == SBX_E_TOO_LARGE, "a third rule over a limit of two");
	policy_free(old);
	policy_free(patch);
	patch = short_form("+c.test", false);
	struct policy *p = policy_merge(NULL, patch, 2, &err);
	ok(p && policy_default_allow(p) && policy_count(p) == 1, "into a sandbox that had no policy");
	policy_free(patch);
	policy_free(p);
	for (size_t i = 0; i < ARRAY_SIZE(removals); i++) {
		auto_jv v = jv_parse(removals[i].targets, strlen(removals[i].targets), &err);
		uint32_t removed = 0;

		old = short_form(removals[i].old, false);
		p = policy_without(old, v, &removed, &err);
		auto_free char *got = to_short(p);
		is_str(got, removals[i].want, "remove: %s", removals[i].why);
		is_int(removed, removals[i].removed, "so many");
		policy_free(old);
		policy_free(p);
	}
}

static void test_effective(void)
{
	struct policy *overlay = short_form("-ok.test +10.0.0.1", false), *user = short_form("+ok.test -b.test +10.0.0.0/8", false);
	static const struct policy_ports ports[] = {{80, 80}, {443, 443}};
	struct sbx_err err = {0};
	struct policy *p = policy_effective(overlay, user, ports, 2, &err);
	auto_free char *got = to_short(p);

	is_str(got, "-ok.test +10.0.0.1 +ok.test -b.test +10.0.0.0/8", "operator's rules in front");
	is_int(policy_at(p, 2)->n_ports, 2, "an allowed name gets the configured ports");
	ok(!policy_at(p, 3)->n_ports && !policy_at(p, 4)->n_ports, "a denied name and an address do not");
	policy_free(p);
	p = policy_effective(NULL, NULL, NULL, 0, &err);
	ok(p && policy_default_allow(p) && !policy_count(p), "nothing and nothing allows everything");
	policy_free(p);
		policy_free(overlay);
		policy_free(user);
}

int main(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		auto_free char *got = round_trip(good[i].json, 3);

		is_str(got, good[i].want, "taken: %s", good[i].why);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		auto_free char *got = round_trip(bad[i].json, 3);

		if (!ok(*got != '{' && strstr(got, bad[i].want), "refused: %s", bad[i].why))
			printf("#   got: %s\n", got);
	}
	test_changes();
	test_effective();
	return tap_done();
}
