/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/cleanup.h"
#include "netpolicy/policy_wire.h"

static void put_u8(struct buf *out, size_t v)
{
	uint8_t b = (uint8_t)v;

	/* `out` remembers lack of memory. */
	ignore_result(buf_append(out, &b, 1));
}

/* Length of @text within what the layout holds, without cutting a character of UTF-8 in two. */
static size_t cut(const char *text)
{
	size_t n = strnlen(text, EGRESS_RULE_TEXT_BYTES - 1);

	if (text[n]) {
		while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
			n--;
	}
	return n;
}

static void write_rule(const struct policy_rule *r, struct buf *out)
{
	size_t n = strlen(r->name), n_text = cut(r->text);
	uint32_t addr = htonl(r->addr);

	put_u8(out, r->kind);
	put_u8(out, r->flags);
	put_u8(out, r->n_ports);
	put_u8(out, r->prefix);
	if (r->kind == EGRESS_RULE_IPV4) {
		ignore_result(buf_append(out, &addr, sizeof(addr)));
	} else if (r->kind == EGRESS_RULE_IPV6) {
		ignore_result(buf_append(out, r->addr6, sizeof(r->addr6)));
	} else {
		put_u8(out, n);
		ignore_result(buf_append(out, r->name, n));
	}
	ignore_result(buf_append(out, r->ports, r->n_ports * sizeof(*r->ports)));
	put_u8(out, n_text);
	ignore_result(buf_append(out, r->text, n_text));
}

void policy_wire_write(const struct policy *p, struct buf *out)
{
	for (uint32_t i = 0; i < policy_count(p); i++)
		write_rule(policy_at(p, i), out);
}

struct reader {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static void take(struct reader *r, void *to, size_t n)
{
	if (n > r->left) {
		r->bad = true;
		memset(to, 0, n);
		return;
	}
	memcpy(to, r->at, n);
	r->at += n;
	r->left -= n;
}

static size_t take_u8(struct reader *r)
{
	uint8_t v;

	take(r, &v, 1);
	return v;
}

/* What one rule points to while it is being read. */
struct parts {
	char name[FQDN_BYTES], text[EGRESS_RULE_TEXT_BYTES];
	struct policy_ports ports[EGRESS_RULE_PORTS];
};

static bool read_name(struct reader *r, struct parts *parts)
{
	char again[FQDN_BYTES];
	size_t n = take_u8(r);

	take(r, parts->name, n);
	parts->name[n] = '\0';
	/* Only what is canonical comes out as it went in. */
	return !r->bad && fqdn_canonical(parts->name, n, again) == (int)n && !memcmp(parts->name, again, n);
}

static bool read_addr(struct reader *r, struct policy_rule *rule)
{
	uint8_t bits = rule->prefix;
	uint32_t addr;

	if (rule->kind == EGRESS_RULE_IPV6) {
		take(r, rule->addr6, sizeof(rule->addr6));
		return bits <= 128;
	}
	take(r, &addr, sizeof(addr));
	rule->addr = ntohl(addr);
	return bits <= 32 && !(bits < 32 && rule->addr << bits);
}

static bool read_rule(struct reader *r, struct parts *parts, struct policy_rule *rule)
{
	size_t n;

	*rule = (struct policy_rule){.name = "", .ports = parts->ports, .text = parts->text};
	rule->kind = (enum egress_rule_kind)take_u8(r);
	rule->flags = (uint32_t)take_u8(r);
	rule->n_ports = (uint8_t)take_u8(r);
	rule->prefix = (uint8_t)take_u8(r);
	if (rule->flags & ~(uint32_t)(EGRESS_RULE_ALLOW | EGRESS_RULE_OPERATOR) || rule->n_ports > EGRESS_RULE_PORTS)
		return false;
	if (rule->kind == EGRESS_RULE_IPV4 || rule->kind == EGRESS_RULE_IPV6) {
		if (!read_addr(r, rule))
			return false;
	} else if (rule->kind == EGRESS_RULE_DOMAIN || rule->kind == EGRESS_RULE_WILDCARD) {
		if (rule->prefix || !read_name(r, parts))
			return false;
		rule->name = parts->name;
	} else {
		return false;
	}
	take(r, parts->ports, rule->n_ports * sizeof(*parts->ports));
	n = take_u8(r);
	take(r, parts->text, n);
	parts->text[n] = '\0';
	return !r->bad && strlen(parts->text) == n;
}

struct policy *policy_wire_read(const void *data, size_t len, uint32_t n_rules, bool default_allow, struct sbx_err *err)
{
	struct reader r = {.at = data, .left = len};
	struct policy_rule rule;
	struct policy *p;
	struct parts parts;
	int failed = 0;

	if (n_rules > EGRESS_RULES_MAX || len > EGRESS_BODY_MAX) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "%u rules in %zu bytes", n_rules, len);
		return NULL;
	}
	p = policy_new(default_allow);
	if (!p) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "read a policy");
		return NULL;
	}
	for (uint32_t i = 0; i < n_rules && !failed; i++) {
		if (!read_rule(&r, &parts, &rule))
			failed = sbx_err_set(err, SBX_E_PROTOCOL, 0, "rule %u does not read", i);
		else
			failed = policy_add(p, &rule, err);
	}
	if (!failed && r.left)
		failed = sbx_err_set(err, SBX_E_PROTOCOL, 0, "%zu bytes behind the last rule", r.left);
	if (!failed)
		failed = policy_seal(p, err);
	if (!failed)
		return p;
	policy_free(p);
	return NULL;
}
