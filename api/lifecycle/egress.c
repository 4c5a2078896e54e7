// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: what the lifecycle API says about egress: the journal, and "would this sandbox reach NAME:PORT"
 */
#include "api/lifecycle/lifecycle_api.h"
#include "api/lifecycle/lifecycle_int.h"

#include "api/call.h"
#include "api/egress_events.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"
#include "base/settings.h"
#include "netpolicy/dns_answer.h"
#include "netpolicy/dns_judge.h"
#include "netpolicy/gate_mode.h"
#include "netpolicy/policy_json.h"
#include "netpolicy/policy_link.h"
#include "runtime/sandbox.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define RANGES_MAX 96u
#define LAST_MAX   5u
#define NAME_SERVER 0xa9fe0101u /* 169.254.1.1 */

/* ---- journal ---- */

void lifecycle_api_egress_events(struct api_call *call)
{
	const struct sandbox *s = lifecycle_find(call);
	struct sbx_err err = {0};
	auto_buf body = {0};
	struct api_answer answer;

	if (!s)
		return;
	if (egress_events_answer(call->context->events, s, call->request, call->query, &body, &answer, &err) < 0) {
		api_reply_error(call, &err);
		return;
	}
	api_reply(call, &answer);
	if (answer.stream_fd > 0)
		close_keep_errno(answer.stream_fd);
}

/* ---- explain ---- */

/* What is asked, and what is known so far; lives until the answer. */
struct asking {
	struct api_call *call;
	uint8_t id[16];
	char text[TARGET_TEXT_MAX + 1]; /* as asked, without the port */
	struct target target;
	uint32_t port; /* 0: any */
	uint8_t protocol;
};

/* An address of either kind. */
struct far {
	uint32_t addr; /* 0: six */
	struct ip6 six;
};

static struct far far_asked(const struct asking *a)
{
	if (a->target.kind == EGRESS_RULE_IPV6)
		return (struct far){.six = ip6_read(a->target.addr6)};
	return (struct far){.addr = a->target.kind == EGRESS_RULE_IPV4 ? a->target.addr : 0};
}

static const char *far_text(const struct far *far, char out[INET6_ADDRSTRLEN])
{
	struct in_addr in = {htonl(far->addr)};

	return far->addr ? inet_ntop(AF_INET, &in, out, INET6_ADDRSTRLEN) : ip6_text(far->six, out);
}

static bool far_none(const struct far *far)
{
	return !far->addr && ip6_none(far->six);
}

struct finding {
	struct policy_verdict v;
	const struct policy *policy;
	struct far far; /* that decided against an allowed name, or none */
	enum gate_mode gate; /* OFF: it has no say */
	char note[400];
};

static int read_port(struct asking *a, struct sbx_err *err)
{
	char *slash = strrchr(a->text, '/'), *colon;

	a->protocol = IPPROTO_TCP;
	if (slash && (!strcmp(slash, "/udp") || !strcmp(slash, "/tcp"))) {
		a->protocol = slash[1] == 'u' ? IPPROTO_UDP : IPPROTO_TCP;
		*slash = '\0';
	}
	colon = strrchr(a->text, ':');
	if (*a->text == '[') {
		char *end = strchr(a->text, ']');

		if (!end || (end[1] && end + 1 != colon))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "target: \"%.60s\" is not [ADDRESS] or [ADDRESS]:PORT", a->text);
		colon = end[1] ? colon : NULL;
		*end = '\0';
		memmove(a->text, a->text + 1, (size_t)(end - a->text));
	} else if (colon && strchr(a->text, ':') != colon) {
		return 0; /* an IPv6 address */
	}
	if (!colon)
		return 0;
	if (num_u32(colon + 1, strlen(colon + 1), UINT16_MAX, &a->port) < 0 || !a->port)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "target: \"%.20s\" is no port", colon + 1);
	*colon = '\0';
	return 0;
}

static int read_target(struct asking *a, struct sbx_err *err)
{
	if (read_port(a, err) < 0 || target_parse(a->text, &a->target, err))
		return -1;
	if (a->target.kind == EGRESS_RULE_WILDCARD || (a->target.kind == EGRESS_RULE_IPV4 && a->target.prefix != 32) ||
	    (a->target.kind == EGRESS_RULE_IPV6 && a->target.prefix != IP6_PREFIX_MAX))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "target: one name or address, not many");
	return 0;
}

static void add_range(struct policy_range *list, size_t *n, uint32_t addr, uint32_t prefix)
{
	if (*n < RANGES_MAX)
		list[(*n)++] = (struct policy_range){addr, prefix};
}

/* What the host says about every sandbox, as the packet filter and the name server have it. */
struct host_words {
	struct policy_range host[RANGES_MAX], sandboxes[1], allowed[RANGES_MAX], doh[RANGES_MAX * 3];
	struct ip6 host6[RANGES_MAX], lan6[RANGES_MAX];
	struct ip6_prefix allowed6[RANGES_MAX], doh6[RANGES_MAX];
	struct policy_guards guards;
	struct dns_doh *names; /* owned */
	struct dns_hosts *hosts; /* owned */
};

static void add_ranges(const struct settings_texts *from, struct policy_range *list, size_t *n)
{
	for (size_t i = 0; i < from->n; i++) {
		struct target t;

		if (!target_parse(from->item[i], &t, NULL) && t.kind == EGRESS_RULE_IPV4)
			add_range(list, n, t.addr, t.prefix);
	}
}

static void add_ranges6(const struct settings_texts *from, struct ip6_prefix *list, size_t *n)
{
	for (size_t i = 0; i < from->n && *n < RANGES_MAX; i++)
		if (ip6_parse(from->item[i], &list[*n]) == 0)
			(*n)++;
}

static void clear_words(struct host_words *h)
{
	dns_doh_free(h->names);
	dns_hosts_free(h->hosts);
}

static int fill_words(const struct settings *s, struct host_words *h, struct sbx_err *err)
{
	struct ifaddrs *all = NULL;

	*h = (struct host_words){.guards = {.host = h->host, .sandboxes = h->sandboxes, .private_allowed = h->allowed, .doh = h->doh,
						   .host6 = h->host6, .lan6 = h->lan6, .private_allowed6 = h->allowed6, .doh6 = h->doh6}};
	if (getifaddrs(&all) == 0) {
		for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
			struct sockaddr_in6 in6;
			struct sockaddr_in in;

			if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET6 && h->guards.n_host6 < RANGES_MAX) {
				memcpy(&in6, i->ifa_addr, sizeof(in6));
				h->host6[h->guards.n_host6++] = ip6_read(&in6.sin6_addr);
				h->lan6[h->guards.n_lan6++] = ip6_lan(ip6_read(&in6.sin6_addr));
			}
			if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET)
				continue;
			memcpy(&in, i->ifa_addr, sizeof(in));
			add_range(h->host, &h->guards.n_host, ntohl(in.sin_addr.s_addr), 32);
		}
		freeifaddrs(all);
	}
	h->guards.quic = s->egress_quic;
	add_range(h->sandboxes, &h->guards.n_sandboxes, s->subnet_addr, s->subnet_prefix);
	add_ranges(&s->network_allow_private, h->allowed, &h->guards.n_private_allowed);
	if (s->network_ipv6)
		h->guards.sandboxes6 = &s->subnet6;
	add_ranges6(&s->network_allow_private, h->allowed6, &h->guards.n_private_allowed6);
	if (strcmp(s->egress_doh, "off") != 0) {
		add_ranges(&s->egress_doh_addresses, h->doh, &h->guards.n_doh);
		add_ranges6(&s->egress_doh_addresses, h->doh6, &h->guards.n_doh6);
	}
	h->names = dns_doh_new(s, err);
	h->hosts = h->names ? dns_hosts_new(s, err) : NULL;
	return h->hosts ? 0 : -1;
}

/*
 * @lease_rule opened the address for a name.  Where all is allowed by default names open nothing, so nothing is held open by them
 * against what the filter says to everybody.  Without a port in the question one that a rule opens will do.
 */
static struct policy_verdict judge_addr(const struct asking *a, const struct host_words *h, const struct policy *p, const struct far *far,
					uint32_t lease_rule)
{
	struct policy_flow flow = {.addr = far->addr, .addr6 = far->six, .port = (uint16_t)(a->port ? a->port : 443), .protocol = a->protocol,
				   .lease_rule = policy_default_allow(p) ? EGRESS_NO_RULE : lease_rule};
	struct policy_verdict v = policy_decide_addr(p, &h->guards, &flow);

	if (a->port || v.allow || v.reason != EGRESS_REASON_PORT || v.rule == EGRESS_NO_RULE || !policy_at(p, v.rule)->n_ports)
		return v;
	flow.port = policy_at(p, v.rule)->ports[0].first;
	return policy_decide_addr(p, &h->guards, &flow);
}

/* Address that a name leads to which nobody has looked up: no rule is likely to be about it. */
#define SOME_ADDRESS 0xc0000201u /* 192.0.2.1 */

/* Where a name leads, as far as anybody knows. */
struct leads {
	struct far far[EGRESS_PINS_MAX + DNS_ADDRS_MAX + DNS_ADDRS6_MAX];
	uint32_t n;
	bool fixed; /* by the operator: not held against private ranges */
	bool guess;
};

static void take_fixed(const struct host_words *h, const char *name, struct leads *l)
{
	struct dns_answer four = {.type = DNS_TYPE_A}, six = {.type = DNS_TYPE_AAAA};

	if (!dns_hosts_find(h->hosts, name, strlen(name), &four))
		return;
	if (h->guards.sandboxes6)
		dns_hosts_find(h->hosts, name, strlen(name), &six);
	l->n = 0;
	for (unsigned i = 0; i < four.n_addrs; i++)
		l->far[l->n++] = (struct far){.addr = four.addr[i]};
	for (unsigned i = 0; i < six.n_addrs; i++)
		l->far[l->n++] = (struct far){.six = six.addr6[i]};
	/* One that has IPv6 addresses alone leads nowhere without it. */
	l->fixed = l->n > 0;
}

static void find_leads(const struct asking *a, const struct host_words *h, const struct egress_pins_reply *pins, struct leads *l)
{
	const struct journal *j = egress_events_journal(a->call->context->events);
	const char *name = a->target.name;
	uint64_t after = 0;

	*l = (struct leads){0};
	for (; pins && l->n < pins->n_pins; l->n++)
		l->far[l->n] = (struct far){pins->pin[l->n].addr, pins->pin[l->n].addr6};
	take_fixed(h, name, l);
	/* What was taken out of the last answer is not open, but known. */
	for (const struct journal_event *e; !l->n && (e = journal_next(j, a->id, after)); after = e->number)
		if (e->kind == EGRESS_EVENT_REBIND_STRIPPED && (e->addr || !ip6_none(e->addr6)) && !strcmp(e->name, name))
			l->far[0] = (struct far){e->addr, e->addr6};
	if (!l->n && !far_none(&l->far[0]))
		l->n = 1;
	if (l->n)
		return;
	l->far[l->n++] = (struct far){.addr = SOME_ADDRESS};
	l->guess = true;
}

static struct policy_verdict judge_lead(const struct asking *a, const struct host_words *h, const struct policy *p, const struct leads *l,
					const struct far *far, const struct dns_verdict *name)
{
	enum egress_reason why = l->fixed || l->guess ? EGRESS_REASON_NONE : far->addr ? policy_leads_to(p, &h->guards, far->addr) :
											 policy_leads_to6(p, &h->guards, far->six);
	struct policy_verdict v = {false, EGRESS_NO_RULE, why};

	if (why == EGRESS_REASON_NONE)
		v = judge_addr(a, h, p, far, name->rule);
	if (v.allow && v.rule == EGRESS_NO_RULE) {
		v.rule = name->rule;
		v.reason = name->reason;
	}
	return v;
}

static void judge_name(const struct asking *a, const struct host_words *h, const struct egress_pins_reply *pins, struct finding *f)
{
	const char *name = a->target.name;
	struct dns_verdict v = dns_judge_name(f->policy, h->names, name, strlen(name), false);
	struct leads leads;

	f->v = (struct policy_verdict){v.allow, v.rule, v.reason};
	if (dns_judge_is_local(name, strlen(name))) {
		f->v = (struct policy_verdict){true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT};
		snprintf(f->note, sizeof(f->note), "this is the sandbox itself");
		return;
	}
	if (!v.allow) {
		if (v.reason == EGRESS_REASON_DEFAULT && policy_default_allow(f->policy))
			snprintf(f->note, sizeof(f->note), "a name that no public server has is looked up only when a rule allows it");
		return;
	}
	find_leads(a, h, pins, &leads);
	/* A client tries one address behind the other: the first that passes is the answer. */
	for (uint32_t i = 0; i < leads.n; i++) {
		f->v = judge_lead(a, h, f->policy, &leads, &leads.far[i], &v);
		if (f->v.allow)
			break;
	}
	char text[INET6_ADDRSTRLEN];

	if (!leads.guess && !f->v.allow)
		f->far = leads.far[leads.n - 1];
	if (leads.guess)
		snprintf(f->note, sizeof(f->note), "it has not been looked up lately: rules for addresses may still be about where it leads");
	else if (!f->v.allow)
		snprintf(f->note, sizeof(f->note), "the name is allowed, its address %s is not", far_text(&leads.far[leads.n - 1], text));
}

/* By any of the names that lead there. */
static void judge_address(const struct asking *a, const struct host_words *h, const struct egress_pins_reply *pins, struct finding *f)
{
	const struct far far = far_asked(a);

	f->v = judge_addr(a, h, f->policy, &far, EGRESS_NO_RULE);
	for (uint32_t i = 0; pins && i < pins->n_pins && !f->v.allow && !policy_default_allow(f->policy); i++) {
		const char *name = pins->pin[i].name;
		struct dns_verdict v = dns_judge_name(f->policy, h->names, name, strlen(name), false);

		if (!v.allow || !v.which)
			continue;
		f->v = judge_addr(a, h, f->policy, &far, v.rule);
		if (f->v.allow && f->v.rule == v.rule)
			snprintf(f->note, sizeof(f->note), "open because %.150s was looked up", name);
	}
	/* The filter's own word for an address that only a name could have opened. */
	if (!f->v.allow && f->v.reason == EGRESS_REASON_DEFAULT)
		f->v.reason = EGRESS_REASON_NO_LEASE;
}

/* Whoever is asked by port 53 is the sandbox's name server, as soon as there is a policy. */
static bool is_name_server(const struct asking *a, const struct policy *p)
{
	if (a->port == 53 && a->target.kind == EGRESS_RULE_IPV6)
		return !policy_default_allow(p) || policy_count(p);
	return a->port == 53 && a->target.kind == EGRESS_RULE_IPV4 && a->target.addr < 0xe0000000u &&
	       (!policy_default_allow(p) || policy_count(p) || a->target.addr == NAME_SERVER);
}

/* What the gate of TLS names makes of it: it sees TCP to port 443, but for what a rule for addresses decides. */
static void judge_gate(const struct asking *a, struct finding *f)
{
	const struct policy_rule *rule = f->v.rule == EGRESS_NO_RULE ? NULL : policy_at(f->policy, f->v.rule);
	enum gate_mode mode;
	size_t n = strlen(f->note);
	const char *say;

	if (a->protocol != IPPROTO_TCP || a->port != GATE_PORT || (rule && rule->kind > EGRESS_RULE_WILDCARD) ||
	    dns_judge_is_local(a->target.name, strlen(a->target.name)) ||
	    gate_mode_read(a->call->context->settings->egress_tls_gate, &mode, NULL) < 0)
		return;
	f->gate = gate_mode_of(mode, f->policy);
	if (f->gate == GATE_OFF || (!f->v.allow && a->target.kind != EGRESS_RULE_DOMAIN))
		return;
	if (f->v.allow)
		say = f->gate == GATE_ENFORCE ? "its TLS connections pass by the name they ask for, which must be allowed" :
						"its TLS connections are told, and pass, when the name they ask for is not allowed";
	else
		say = f->gate == GATE_ENFORCE ? "a TLS connection that asks for it is reset, whatever its address" :
						"a TLS connection that asks for it, by an address that is open, is told and passes";
	snprintf(f->note + n, sizeof(f->note) - n, "%s%s", n ? "; " : "", say);
}

static int judge(const struct asking *a, const struct egress_pins_reply *pins, struct finding *f, struct sbx_err *err)
{
	struct host_words h;

	if (a->target.kind == EGRESS_RULE_IPV6 && !a->call->context->settings->network_ipv6) {
		f->v = (struct policy_verdict){false, EGRESS_NO_RULE, EGRESS_REASON_PROTOCOL};
		snprintf(f->note, sizeof(f->note), "sandboxes have no IPv6");
		return 0;
	}
	if (is_name_server(a, f->policy)) {
		f->v = (struct policy_verdict){true, EGRESS_NO_RULE, EGRESS_REASON_DEFAULT};
		snprintf(f->note, sizeof(f->note), "the sandbox's own name server answers at port 53 of every address");
		return 0;
	}
	int r = fill_words(a->call->context->settings, &h, err);
	if (r == 0 && a->target.kind == EGRESS_RULE_DOMAIN)
		judge_name(a, &h, pins, f);
	else if (r == 0)
		judge_address(a, &h, pins, f);
	if (r == 0)
		judge_gate(a, f);
	clear_words(&h);
	return r;
}

static bool about(const struct asking *a, const struct journal_event *e)
{
	if (!journal_is_denial(e) || (a->port && e->port && e->port != a->port))
		return false;
	const struct far far = far_asked(a);
	return a->target.kind == EGRESS_RULE_DOMAIN ? !strcmp(e->name, a->target.name) : e->addr == far.addr && ip6_same(e->addr6, far.six);
}

static void write_last(struct jw *w, const struct asking *a)
{
	const struct journal *j = egress_events_journal(a->call->context->events);
	uint64_t number[LAST_MAX];
	uint32_t n = 0, tries = 0;
	uint64_t after = 0;

	for (const struct journal_event *e; (e = journal_next(j, a->id, after)); after = e->number) {
		if (!about(a, e))
			continue;
		number[n++ % LAST_MAX] = e->number;
		tries += e->count;
	}
	jw_key_i64(w, "tries", tries);
	jw_key(w, "last");
	jw_array(w);
	for (uint32_t i = 0; i < n && i < LAST_MAX; i++) {
		auto_buf text = {0};

		journal_json(journal_next(j, a->id, number[(n - 1 - i) % LAST_MAX] - 1), 0, &text);
		jw_raw(w, buf_peek(&text), buf_used(&text));
	}
	jw_array_end(w);
}

/* The change that would let it through; nothing where no rule can. */
static void write_remedy(struct jw *w, const struct asking *a, const struct finding *f)
{
	const struct policy_rule *rule = f->v.rule == EGRESS_NO_RULE ? NULL : policy_at(f->policy, f->v.rule);

	if (f->v.allow || f->v.reason == EGRESS_REASON_METADATA || f->v.reason == EGRESS_REASON_HOST || f->v.reason == EGRESS_REASON_SANDBOX ||
	    f->v.reason == EGRESS_REASON_PROTOCOL || f->v.reason == EGRESS_REASON_DOT || f->v.reason == EGRESS_REASON_QUIC || (rule && rule->flags & EGRESS_RULE_OPERATOR))
		return;
	char addr[INET6_ADDRSTRLEN];

	jw_key(w, "remedy");
	jw_object(w);
	if (f->v.reason == EGRESS_REASON_PRIVATE && !far_none(&f->far)) {
		jw_key_str(w, "allow", far_text(&f->far, addr)); /* no rule for a name opens such an address */
	} else if (f->v.reason == EGRESS_REASON_RULE && rule && !*rule->name) {
		jw_key_str(w, "remove", rule->text); /* a deny of addresses beats every allow of the same hand */
	} else {
		jw_key_str(w, "allow", f->v.reason == EGRESS_REASON_PORT && rule ? rule->text : a->text);
		if (f->v.reason == EGRESS_REASON_PORT && a->port)
			jw_key_i64(w, "port", a->port);
	}
	jw_object_end(w);
}

static void write_rule(struct jw *w, const struct finding *f)
{
	const struct policy_rule *rule = f->v.rule == EGRESS_NO_RULE ? NULL : policy_at(f->policy, f->v.rule);
	uint32_t index = f->v.rule;

	if (!rule)
		return;
	for (uint32_t i = 0; i < f->v.rule && !(rule->flags & EGRESS_RULE_OPERATOR); i++)
		index -= (policy_at(f->policy, i)->flags & EGRESS_RULE_OPERATOR) != 0;
	jw_key(w, "rule");
	jw_object(w);
	jw_key_i64(w, "index", index);
	jw_key_bool(w, "operator", rule->flags & EGRESS_RULE_OPERATOR);
	jw_key(w, "rule");
	policy_json_write_rule(rule, w);
	jw_object_end(w);
}

static void write_addresses(struct jw *w, const struct egress_pins_reply *pins)
{
	jw_key(w, "open");
	jw_array(w);
	for (uint32_t i = 0; pins && i < pins->n_pins; i++) {
		const struct far far = {pins->pin[i].addr, pins->pin[i].addr6};
		char addr[INET6_ADDRSTRLEN];

		jw_object(w);
		jw_key_str(w, "name", pins->pin[i].name);
		jw_key_str(w, "address", far_text(&far, addr));
		jw_key_i64(w, "leaseMs", pins->pin[i].lease_ms);
		jw_object_end(w);
	}
	jw_array_end(w);
}

static void write_finding(struct jw *w, const struct asking *a, const struct finding *f, const struct egress_pins_reply *pins)
{
	struct journal_event as_event = {.reason = f->v.reason, .port = (uint16_t)a->port, .rule = (char[]){""}};
	char sentence[SBX_ERR_MSG_SIZE];

	jw_object(w);
	jw_key_str(w, "target", a->text);
	if (a->port)
		jw_key_i64(w, "port", a->port);
	jw_key_str(w, "protocol", a->protocol == IPPROTO_UDP ? "udp" : "tcp");
	jw_key_str(w, "verdict", f->v.allow ? "allowed" : "denied");
	jw_key_str(w, "reason", policy_reason_name(f->v.reason));
	write_rule(w, f);
	if (f->v.allow)
		snprintf(sentence, sizeof(sentence), "%s", f->v.rule == EGRESS_NO_RULE ? "no rule is about it, default allow" : "a rule allows it");
	else
		journal_sentence(&as_event, sentence, sizeof(sentence));
	jw_key_str(w, "message", sentence);
	if (f->note[0])
		jw_key_str(w, "note", f->note);
	if (f->gate != GATE_OFF)
		jw_key_str(w, "tlsGate", gate_mode_name(f->gate));
	write_addresses(w, pins);
	write_last(w, a);
	write_remedy(w, a, f);
	jw_object_end(w);
}

static void answer(struct asking *a, const struct egress_pins_reply *pins)
{
	struct sbx_err err = {0};
	const struct sandbox *s = sandbox_find(a->call->context->manager, a->id, &err);

	if (!s) {
		api_reply_error(a->call, &err);
	} else {
		struct finding f = {.policy = sandbox_effective_policy(s)};
		auto_buf body = {0};
		struct jw w = {.out = &body};

		if (judge(a, pins, &f, &err) < 0) {
			api_reply_error(a->call, &err);
		} else {
			write_finding(&w, a, &f, pins);
			api_reply_json(a->call, 200, &body);
		}
	}
	free(a);
}

static void on_pins(void *arg, const union egress_any *reply, const struct sbx_err *err)
{
	(void)err; /* what dnsd has open is more to know; the verdict does not need it */
	answer(arg, reply && !reply->pins_reply.status ? &reply->pins_reply : NULL);
}

void lifecycle_api_egress_explain(struct api_call *call)
{
	const struct sandbox *s = lifecycle_find(call);
	auto_free char *target = NULL;
	struct sbx_err err = {0};
	struct asking *a;

	if (!s || lifecycle_query_text(call, "target", &target) < 0)
		return;
	if (!target || strlen(target) > TARGET_TEXT_MAX) {
		api_reply_code(call, SBX_E_SCHEMA, "target: NAME, NAME:PORT, ADDRESS or ADDRESS:PORT, with /udp behind it where that is meant");
		return;
	}
	a = calloc(1, sizeof(*a));
	if (!a) {
		api_reply_code(call, SBX_E_NO_MEMORY, "explain");
		return;
	}
	a->call = call;
	memcpy(a->id, s->id, sizeof(a->id));
	memcpy(a->text, target, strlen(target) + 1);
	if (read_target(a, &err) < 0) {
		free(a);
		api_reply_error(call, &err);
		return;
	}
	struct policy_link *link = sandbox_manager_link(call->context->manager);
	const struct egress_ref ref = {s->slot, s->generation};
	const struct far far = far_asked(a);
	bool name = a->target.kind == EGRESS_RULE_DOMAIN;
	if (!policy_link_up(link) || !s->addr ||
	    policy_link_pins(link, ref, name ? a->target.name : "", far.addr, far.six, on_pins, a, &err) < 0)
		answer(a, NULL);
}
