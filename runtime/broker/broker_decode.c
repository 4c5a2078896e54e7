// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/broker_decode.h"

#include "base/cleanup.h"

#include <stdbool.h>
#include <string.h>

static bool string_ok(const char *s, size_t size)
{
	size_t n = strnlen(s, size);

	for (size_t i = n; i < size; i++)
		if (s[i])
			return false;
	return n < size;
}

static bool all_zero(const void *data, size_t n)
{
	const unsigned char *at = data;

	for (size_t i = 0; i < n; i++)
		if (at[i])
			return false;
	return true;
}

static const char *check_hello(const union broker_any *any)
{
	return any->hello.zero ? "reserved field" : NULL;
}

static const char *check_create(const union broker_any *any)
{
	const struct broker_create *c = &any->create;
	const uint32_t known = BROKER_CREATE_HOST_USR | BROKER_CREATE_NO_MEMORY_LIMIT | BROKER_CREATE_NO_PIDS_LIMIT |
			       BROKER_CREATE_NO_CPU_LIMIT | BROKER_CREATE_NO_SWAP_LIMIT | BROKER_CREATE_EGRESS_OPEN;

	if (c->flags & ~known)
		return "flags";
	if (c->n_layers == 0 || c->n_layers > BROKER_MAX_LAYERS || c->n_volumes > BROKER_MAX_VOLUMES)
		return "counts";
	if (!all_zero(c->layer[c->n_layers], sizeof(c->layer[0]) * (BROKER_MAX_LAYERS - c->n_layers)))
		return "layers behind the last";
	for (uint32_t i = 0; i < BROKER_MAX_VOLUMES; i++) {
		const struct broker_volume *v = &c->volume[i];

		if (i >= c->n_volumes ? !all_zero(v, sizeof(*v)) : v->zero != 0)
			return "volumes";
		if (!string_ok(v->claim, sizeof(v->claim)) || !string_ok(v->rel, sizeof(v->rel)) || !string_ok(v->sub, sizeof(v->sub)) ||
		    !string_ok(v->mount_path, sizeof(v->mount_path)))
			return "string of a volume";
	}
	return NULL;
}

static const char *check_slot(const union broker_any *any)
{
	return any->slot_req.zero ? "reserved field" : NULL;
}

static const char *check_plain(const union broker_any *any)
{
	return any->plain_req.zero ? "reserved field" : NULL;
}

static const char *check_layer(const union broker_any *any)
{
	const struct broker_layer_req *l = &any->layer_req;

	if (all_zero(l->key, sizeof(l->key)))
		return "layer key";
	if (l->n_lower >= BROKER_MAX_LAYERS || !all_zero(l->lower[l->n_lower], sizeof(l->lower) - l->n_lower * sizeof(l->lower[0])))
		return "lower layers";
	for (uint32_t i = 0; i < l->n_lower; i++)
		if (all_zero(l->lower[i], BROKER_KEY_BYTES))
			return "lower layer key";
	if (l->head.op == BROKER_OP_LAYER_UNPACK)
		return l->form < BROKER_FORM_TAR || l->form > BROKER_FORM_TAR_ZSTD || !l->max_bytes || !l->max_entries ? "form and bounds" : NULL;
	return l->form || l->max_bytes || l->max_entries || l->n_lower || !all_zero(l->diff_id, sizeof(l->diff_id)) ?
		       "fields of another request" :
		       NULL;
}

static const char *check_any(const union broker_any *any)
{
	(void)any;
	return NULL;
}

static const char *check_capture(const union broker_any *any)
{
	const struct broker_capture_req *c = &any->capture_req;

	if (c->form < BROKER_FORM_TAR || c->form > BROKER_FORM_TAR_ZSTD || !c->max_bytes || !c->max_entries)
		return "form and bounds";
	if (c->head.op == BROKER_OP_SANDBOX_CAPTURE)
		return c->kind > 1 || !all_zero(c->key, sizeof(c->key)) ? "fields of another request" : NULL;
	if (c->ref.slot || c->ref.generation)
		return "slot of another request";
	if (c->head.op == BROKER_OP_LAYER_CAPTURE)
		return c->kind || all_zero(c->key, sizeof(c->key)) ? "layer key" : NULL;
	return !all_zero(c->key, sizeof(c->key)) || (c->kind && c->kind != BROKER_ARCHIVE_OCI && c->kind != BROKER_ARCHIVE_DOCKER) ?
		       "kind of archive" :
		       NULL;
}

static const char *check_volume(const union broker_any *any)
{
	const struct broker_volume_req *v = &any->volume_req;

	if (v->at_least > 1 || (v->head.op == BROKER_OP_VOLUME_DROP && (v->size_mib || v->at_least)))
		return "fields of another request";
	return string_ok(v->claim, sizeof(v->claim)) ? NULL : "volume name";
}

static bool ports_ok(const uint16_t port[BROKER_RULE_PORTS], uint32_t n)
{
	for (uint32_t i = 0; i < BROKER_RULE_PORTS; i++)
		if (i < n ? port[i] == 0 : port[i] != 0)
			return false;
	return n <= BROKER_RULE_PORTS;
}

static const char *check_policy(const union broker_any *any)
{
	const struct broker_policy *p = &any->policy;
	const uint32_t known = BROKER_POLICY_DEFAULT_ALLOW | BROKER_POLICY_LAST | BROKER_POLICY_NAMES;

	if (p->zero || (p->flags & ~known))
		return "flags";
	if (p->n_rules > BROKER_POLICY_PART || p->first > BROKER_POLICY_RULES)
		return "counts";
	if (p->n_rules < BROKER_POLICY_PART && !all_zero(&p->rule[p->n_rules], sizeof(p->rule[0]) * (BROKER_POLICY_PART - p->n_rules)))
		return "rules behind the last";
	for (uint32_t i = 0; i < p->n_rules; i++) {
		const struct broker_ip_rule *rule = &p->rule[i];

		const struct ip6_prefix net6 = {rule->addr6, rule->prefix};
		bool six = rule->flags & BROKER_RULE_IPV6;

		if (six ? rule->addr || rule->prefix > IP6_PREFIX_MAX || !ip6_in(rule->addr6, &net6)
			: rule->prefix > 32 || (rule->prefix < 32 && (rule->addr & (UINT32_MAX >> rule->prefix))) || !ip6_none(rule->addr6))
			return "address of a rule";
		if ((rule->flags & ~(uint32_t)(BROKER_RULE_ALLOW | BROKER_RULE_OPERATOR | BROKER_RULE_IPV6)) || !ports_ok(rule->port, rule->n_ports))
			return "flags or ports of a rule";
	}
	return NULL;
}

static const char *check_pin(const union broker_any *any)
{
	const struct broker_pin *p = &any->pin;
	bool pin = p->head.op == BROKER_OP_PIN;

	if (p->ipv6 > 1 || p->n_addrs == 0 || p->n_addrs > (p->ipv6 ? BROKER_PIN_ADDRS6 : BROKER_PIN_ADDRS) || !ports_ok(p->port, p->n_ports))
		return "counts or ports";
	if (pin ? !p->lease_ms || p->lease_ms > BROKER_PIN_MS : p->lease_ms != 0)
		return "lease";
	for (uint32_t i = 0; p->ipv6 && i < BROKER_PIN_ADDRS6; i++)
		if (ip6_none(p->addr6[i]) != (i >= p->n_addrs))
			return "addresses";
	for (uint32_t i = 0; !p->ipv6 && i < BROKER_PIN_ADDRS; i++)
		if (i < p->n_addrs ? !p->addr[i] : p->addr[i] != 0)
			return "addresses";
	return NULL;
}

static const struct {
	size_t size;
	size_t n_fds;
	const char *(*check)(const union broker_any *any); /* Return: what is wrong, or NULL */
} forms[BROKER_OP_COUNT] = {
	[BROKER_OP_HELLO] = {sizeof(struct broker_hello), 0, check_hello},
	[BROKER_OP_SANDBOX_CREATE] = {sizeof(struct broker_create), 0, check_create},
	[BROKER_OP_CHANNEL_OPEN] = {sizeof(struct broker_slot_req), 0, check_slot},
	[BROKER_OP_SANDBOX_KILL] = {sizeof(struct broker_slot_req), 0, check_slot},
	[BROKER_OP_SANDBOX_FREEZE] = {sizeof(struct broker_slot_req), 0, check_slot},
	[BROKER_OP_SANDBOX_THAW] = {sizeof(struct broker_slot_req), 0, check_slot},
	[BROKER_OP_SANDBOX_STAT] = {sizeof(struct broker_slot_req), 0, check_slot},
	[BROKER_OP_SANDBOX_LIST] = {sizeof(struct broker_plain_req), 0, check_plain},
	[BROKER_OP_SOCKET_OPEN] = {sizeof(struct broker_slot_req), 0, check_slot},
	[BROKER_OP_LAYER_UNPACK] = {sizeof(struct broker_layer_req), 1, check_layer},
	[BROKER_OP_LAYER_STAT] = {sizeof(struct broker_layer_req), 0, check_layer},
	[BROKER_OP_LAYER_DROP] = {sizeof(struct broker_layer_req), 0, check_layer},
	[BROKER_OP_LAYER_VERIFY] = {sizeof(struct broker_layer_req), 0, check_layer},
	[BROKER_OP_LAYER_LIST] = {sizeof(struct broker_layers_req), 0, check_any},
	[BROKER_OP_LAYER_SWEEP] = {sizeof(struct broker_plain_req), 0, check_plain},
	[BROKER_OP_LAYER_CAPTURE] = {sizeof(struct broker_capture_req), 1, check_capture},
	[BROKER_OP_ARCHIVE_INDEX] = {sizeof(struct broker_capture_req), 1, check_capture},
	[BROKER_OP_SANDBOX_LAYERS] = {sizeof(struct broker_slot_req), 0, check_slot},
	[BROKER_OP_SANDBOX_CAPTURE] = {sizeof(struct broker_capture_req), 1, check_capture},
	[BROKER_OP_VOLUME_MAKE] = {sizeof(struct broker_volume_req), 0, check_volume},
	[BROKER_OP_VOLUME_DROP] = {sizeof(struct broker_volume_req), 0, check_volume},
	[BROKER_OP_HOST_ROW] = {sizeof(struct broker_plain_req), 0, check_plain},
	[BROKER_OP_FILES_DROP] = {sizeof(struct broker_slot_req), 0, check_slot},
	[BROKER_OP_DNS_SOCKETS] = {sizeof(struct broker_plain_req), 0, check_plain},
	[BROKER_OP_POLICY] = {sizeof(struct broker_policy), 0, check_policy},
	[BROKER_OP_PIN] = {sizeof(struct broker_pin), 0, check_pin},
	[BROKER_OP_UNPIN] = {sizeof(struct broker_pin), 0, check_pin},
	[BROKER_OP_LOG_SOCKET] = {sizeof(struct broker_plain_req), 0, check_plain},
	[BROKER_OP_GATE] = {sizeof(struct broker_plain_req), 0, check_plain},
	[BROKER_OP_FLOWS] = {sizeof(struct broker_plain_req), 0, check_plain},
};

int broker_decode(const union broker_any *any, size_t len, size_t n_fds, struct sbx_err *err)
{
	const struct broker_head *head = &any->head;

	if (len < sizeof(*head) || head->magic != BROKER_MAGIC || head->size != len || head->zero)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "head of a message of %zu bytes", len);
	if (head->op >= BROKER_OP_COUNT || !forms[head->op].check)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "unknown request %u", head->op);
	if (len != forms[head->op].size || n_fds != forms[head->op].n_fds)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "request %u with %zu bytes and %zu descriptors", head->op, len, n_fds);
	const char *wrong = forms[head->op].check(any);
	return wrong ? sbx_err_set(err, SBX_E_PROTOCOL, 0, "request %u: %s", head->op, wrong) : 0;
}
