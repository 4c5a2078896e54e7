/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/num.h"
#include "netpolicy/policy_json.h"

static int no_memory(struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "policy");
}

static int unknown_key(const struct jv *object, const char *const *known, size_t n, struct sbx_err *err)
{
	for (const struct jv *m = jv_first(object); m; m = jv_next(m)) {
		size_t i = 0;

		while (i < n && strcmp(jv_name(m), known[i]) != 0)
			i++;
		if (i == n)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "unknown key \"%.60s\"", jv_name(m));
	}
	return 0;
}

/* Absent, null and "" are deny; blanks and case do not count. */
static int read_action(const struct jv *v, const char *key, bool *ret_allow, struct sbx_err *err)
{
	const char *text = jv_str(v);
	size_t n;

	*ret_allow = false;
	if (!jv_is_set(v))
		return 0;
	if (!text)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s must be \"allow\" or \"deny\", not %s", key, jv_type_name(jv_type(v)));
	while (isspace((unsigned char)*text))
		text++;
	n = strlen(text);
	while (n && isspace((unsigned char)text[n - 1]))
		n--;
	if (n == 5 && !strncasecmp(text, "allow", n))
		*ret_allow = true;
	else if (n && !(n == 4 && !strncasecmp(text, "deny", n)))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s must be \"allow\" or \"deny\", not \"%.*s\"", key, n > 60 ? 60 : (int)n, text);
	return 0;
}

int policy_ports_read(const char *text, struct policy_ports *ret)
{
	const char *dash = strchr(text, '-');
	uint32_t first, last;
	size_t n = dash ? (size_t)(dash - text) : strlen(text);

	if (num_u32(text, n, UINT16_MAX, &first) < 0)
		return -EINVAL;
	last = first;
	if (dash && num_u32(dash + 1, strlen(dash + 1), UINT16_MAX, &last) < 0)
		return -EINVAL;
	*ret = (struct policy_ports){(uint16_t)first, (uint16_t)last};
	return first && last >= first ? 0 : -EINVAL;
}

static int read_ports(const struct jv *v, struct policy_ports ports[EGRESS_RULE_PORTS], uint8_t *ret_n, struct sbx_err *err)
{
	*ret_n = 0;
	if (!jv_is_set(v))
		return 0;
	if (jv_type(v) != JV_ARRAY || !jv_first(v))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "ports must be a non-empty array, or absent for all ports");
	for (const struct jv *p = jv_first(v); p; p = jv_next(p)) {
		int64_t number;
		bool good;

		if (*ret_n == EGRESS_RULE_PORTS)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "a rule has at most %u ports", EGRESS_RULE_PORTS);
		if (jv_str(p)) {
			good = !policy_ports_read(jv_str(p), &ports[*ret_n]);
		} else {
			good = !jv_i64(p, &number) && number >= 1 && number <= UINT16_MAX;
			if (good)
				ports[*ret_n] = (struct policy_ports){(uint16_t)number, (uint16_t)number};
		}
		if (!good)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "ports are numbers from 1 to 65535 or ranges such as \"8000-8003\"");
		++*ret_n;
	}
	return 0;
}

static char *trimmed(const char *text)
{
	size_t n;

	while (isspace((unsigned char)*text))
		text++;
	n = strlen(text);
	while (n && isspace((unsigned char)text[n - 1]))
		n--;
	return strndup(text, n);
}

static int read_rule(const struct jv *v, struct policy *p, struct sbx_err *err)
{
	static const char *const known[] = {"action", "target", "ports"};
	struct policy_ports ports[EGRESS_RULE_PORTS];
	const struct jv *target = jv_get(v, "target");
	auto_free char *text = NULL;
	struct policy_rule rule;
	struct target t;
	uint8_t n_ports;
	bool allow;

	if (jv_type(v) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "a rule must be an object, not %s", jv_type_name(jv_type(v)));
	if (unknown_key(v, known, ARRAY_SIZE(known), err) || read_action(jv_get(v, "action"), "action", &allow, err) ||
	    read_ports(jv_get(v, "ports"), ports, &n_ports, err))
		return -1;
	if (jv_is_set(target) && !jv_str(target))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "target must be a string, not %s", jv_type_name(jv_type(target)));
	if (target_parse(jv_str(target) ? jv_str(target) : "", &t, err))
		return -1;
	text = trimmed(jv_str(target));
	if (!text)
		return no_memory(err);
	policy_rule_set(&rule, &t, text, allow ? EGRESS_RULE_ALLOW : 0);
	rule.ports = ports;
	rule.n_ports = n_ports;
	return policy_add(p, &rule, err);
}

static int too_many(uint32_t n, uint32_t max, struct sbx_err *err)
{
	if (!max || n <= max)
		return 0;
	return sbx_err_set(err, SBX_E_TOO_LARGE, 0, "%u rules are more than egress.max_rules (%u)", n, max);
}

static int read_rules(const struct jv *array, uint32_t max, struct policy *p, struct sbx_err *err)
{
	size_t i = 0;

	if (too_many((uint32_t)jv_count(array), max, err))
		return -1;
	for (const struct jv *v = jv_first(array); v; v = jv_next(v), i++) {
		if (read_rule(v, p, err))
			return sbx_err_wrap(err, "egress[%zu]", i);
	}
	return policy_seal(p, err);
}

struct policy *policy_json_read(const struct jv *v, uint32_t rules_max, struct sbx_err *err)
{
	static const char *const known[] = {"defaultAction", "egress"};
	const struct jv *rules = jv_get(v, "egress");
	struct policy *p;
	bool allow;

	if (jv_is_set(v) && jv_type(v) != JV_OBJECT) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "a policy must be an object, not %s", jv_type_name(jv_type(v)));
		return NULL;
	}
	if (unknown_key(v, known, ARRAY_SIZE(known), err) || read_action(jv_get(v, "defaultAction"), "defaultAction", &allow, err))
		return NULL;
	if (jv_is_set(rules) && jv_type(rules) != JV_ARRAY) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress must be an array, not %s", jv_type_name(jv_type(rules)));
		return NULL;
	}
	p = policy_new(allow);
	if (!p)
		no_memory(err);
	else if (!read_rules(rules, rules_max, p, err))
		return p;
	policy_free(p);
	return NULL;
}

struct policy *policy_json_read_rules(const struct jv *v, uint32_t rules_max, struct sbx_err *err)
{
	struct policy *p;

	if (jv_type(v) != JV_ARRAY || !jv_first(v)) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the body must be a non-empty array of rules");
		return NULL;
	}
	p = policy_new(false);
	if (!p)
		no_memory(err);
	else if (!read_rules(v, rules_max, p, err))
		return p;
	policy_free(p);
	return NULL;
}

void policy_json_write_rule(const struct policy_rule *rule, struct jw *w)
{
	jw_object(w);
	jw_key_str(w, "action", rule->flags & EGRESS_RULE_ALLOW ? "allow" : "deny");
	jw_key_str(w, "target", rule->text);
	if (rule->n_ports) {
		jw_key(w, "ports");
		jw_array(w);
		for (uint32_t i = 0; i < rule->n_ports; i++) {
			char text[16];

			if (rule->ports[i].first == rule->ports[i].last) {
				jw_i64(w, rule->ports[i].first);
				continue;
			}
			snprintf(text, sizeof(text), "%u-%u", rule->ports[i].first, rule->ports[i].last);
			jw_str(w, text);
		}
		jw_array_end(w);
	}
	jw_object_end(w);
}

void policy_json_write(const struct policy *p, struct jw *w)
{
	jw_object(w);
	jw_key_str(w, "defaultAction", !p || policy_default_allow(p) ? "allow" : "deny");
	jw_key(w, "egress");
	jw_array(w);
	for (uint32_t i = 0; p && i < policy_count(p); i++)
		policy_json_write_rule(policy_at(p, i), w);
	jw_array_end(w);
	jw_object_end(w);
}

/* ---- keys of rules, sorted, so that a change of 4,096 rules stays fast ---- */

struct keys {
	char (*key)[TARGET_KEY_BYTES]; /* owned, sorted */
	size_t n;
};

static int compare_keys(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int keys_of(const struct policy *p, struct keys *ret, struct sbx_err *err)
{
	struct target t;

	ret->key = calloc(policy_count(p) ? policy_count(p) : 1, sizeof(*ret->key));
	if (!ret->key)
		return no_memory(err);
	for (uint32_t i = 0; i < policy_count(p); i++) {
		if (target_parse(policy_at(p, i)->text, &t, err))
			return -1;
		memcpy(ret->key[ret->n++], t.key, sizeof(t.key));
	}
	qsort(ret->key, ret->n, sizeof(*ret->key), compare_keys);
	return 0;
}

static bool has_key(const struct keys *keys, const char *key)
{
	return bsearch(key, keys->key, keys->n, sizeof(*keys->key), compare_keys) != NULL;
}

static void keys_free(struct keys *keys)
{
	free(keys->key);
}
#define auto_keys __attribute__((cleanup(keys_free))) struct keys

/* Appends the rules of @from that are not in @without; of doubled targets the first when @once. */
static int append(struct policy *to, const struct policy *from, const struct keys *without, bool once, struct sbx_err *err)
{
	auto_free char *seen = NULL;
	auto_keys own = {0};

	if (once) {
		if (keys_of(from, &own, err))
			return -1;
		seen = calloc(own.n ? own.n : 1, 1);
		if (!seen)
			return no_memory(err);
	}
	for (uint32_t i = 0; from && i < policy_count(from); i++) {
		const struct policy_rule *r = policy_at(from, i);
		struct target t;

		if (target_parse(r->text, &t, err))
			return -1;
		if (without && has_key(without, t.key))
			continue;
		if (once) {
			/* bsearch may find any of several equal keys: the first of them stands for all. */
			char(*at)[TARGET_KEY_BYTES] = bsearch(t.key, own.key, own.n, sizeof(*own.key), compare_keys);

			while (at > own.key && !strcmp(at[-1], t.key))
				at--;
			if (seen[at - own.key])
				continue;
			seen[at - own.key] = 1;
		}
		if (policy_add(to, r, err))
			return -1;
	}
	return 0;
}

struct policy *policy_merge(const struct policy *old, const struct policy *patch, uint32_t rules_max, struct sbx_err *err)
{
	struct policy *p = policy_new(!old || policy_default_allow(old));
	auto_keys named = {0};

	if (!p)
		no_memory(err);
	else if (!keys_of(patch, &named, err) && !append(p, patch, NULL, true, err) && !append(p, old, &named, false, err) &&
		 !too_many(policy_count(p), rules_max, err) && !policy_seal(p, err))
		return p;
	policy_free(p);
	return NULL;
}

static int read_targets(const struct jv *v, struct keys *ret, struct sbx_err *err)
{
	size_t i = 0;

	if (jv_type(v) != JV_ARRAY || !jv_first(v))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the body must be a non-empty array of targets");
	ret->key = calloc(jv_count(v), sizeof(*ret->key));
	if (!ret->key)
		return no_memory(err);
	for (const struct jv *s = jv_first(v); s; s = jv_next(s), i++) {
		struct target t;

		if (!jv_str(s))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "[%zu]: a target must be a string, not %s", i, jv_type_name(jv_type(s)));
		/* What cannot be in a policy is not found in it. */
		if (!target_parse(jv_str(s), &t, NULL))
			memcpy(ret->key[ret->n++], t.key, sizeof(t.key));
	}
	qsort(ret->key, ret->n, sizeof(*ret->key), compare_keys);
	return 0;
}

struct policy *policy_without(const struct policy *old, const struct jv *targets, uint32_t *ret_removed, struct sbx_err *err)
{
	struct policy *p = policy_new(!old || policy_default_allow(old));
	auto_keys named = {0};

	if (!p) {
		no_memory(err);
	} else if (!read_targets(targets, &named, err) && !append(p, old, &named, false, err) && !policy_seal(p, err)) {
		*ret_removed = (old ? policy_count(old) : 0) - policy_count(p);
		return p;
	}
	policy_free(p);
	return NULL;
}

struct policy *policy_effective(const struct policy *overlay, const struct policy *user, const struct policy_ports *domain_ports,
				uint8_t n_domain_ports, struct sbx_err *err)
{
	struct policy *p = policy_new(!user || policy_default_allow(user));
	int failed = p ? 0 : no_memory(err);

	for (uint32_t i = 0; !failed && overlay && i < policy_count(overlay); i++)
		failed = policy_add(p, policy_at(overlay, i), err);
	for (uint32_t i = 0; !failed && user && i < policy_count(user); i++) {
		struct policy_rule rule = *policy_at(user, i);

		if (!rule.n_ports && *rule.name && rule.flags & EGRESS_RULE_ALLOW) {
			rule.ports = domain_ports;
			rule.n_ports = n_domain_ports;
		}
		failed = policy_add(p, &rule, err);
	}
	if (!failed && !policy_seal(p, err))
		return p;
	policy_free(p);
	return NULL;
}
