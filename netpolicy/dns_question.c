/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Judging a question, and answering what needs nobody else: denied names, special names, types that are not passed on, and
 * what the sandbox asked a moment ago.  Nothing that the policy denies is ever seen by an upstream.
 */
#include "config.h"

#include <string.h>

#include "base/cleanup.h"

#include "netpolicy/dnsd_int.h"

struct dns_verdict dns_judge(const struct dnsd *d, const struct dns_sandbox *s, const char *text, size_t len, bool odd)
{
	return dns_judge_name(s->policy, d->doh, text, len, odd);
}

static void tell(struct dnsd *d, const struct dns_sandbox *s, const struct dns_asker *a, enum egress_event_kind kind,
		 const struct dns_verdict *v, enum dns_rcode rcode, const struct dns_answer *answer, const char *text)
{
	const struct dnsd_note note = {
		.kind = kind, .reason = v->reason, .rule = v->rule, .name = a->query.text, .name_len = a->query.text_len,
		.qtype = a->query.type, .rcode = (uint16_t)rcode, .addrs = answer && answer->type != DNS_TYPE_AAAA ? answer->addr : NULL,
		.addrs6 = answer && answer->type == DNS_TYPE_AAAA ? answer->addr6 : NULL,
		.n_addrs = answer ? answer->n_addrs : 0, .text = text,
	};

	dnsd_event(d, s, &note);
}

void dns_answer_denied(struct dnsd *d, const struct dns_sandbox *s, const struct dns_asker *a, const struct dns_verdict *v)
{
	d->counts.denied++;
	tell(d, s, a, EGRESS_EVENT_DNS_DENIED, v, DNS_NXDOMAIN, NULL, NULL);
	/* Without SOA nobody keeps it, and "a.test does not exist" says nothing about x.a.test (RFC 8020). */
	dns_reply(d, a, dns_error_build(&a->query, DNS_NXDOMAIN, DNS_EDE_BLOCKED, d->out + 2));
}

static void answer_empty(struct dnsd *d, const struct dns_asker *a)
{
	dns_reply(d, a, dns_error_build(&a->query, DNS_NOERROR, DNS_EDE_NONE, d->out + 2));
}

/* RFC 6761 6.3 */
static void answer_localhost(struct dnsd *d, const struct dns_asker *a)
{
	static const uint8_t loopback6[16] = {[15] = 1};
	static struct dns_records records;
	struct dns_answer answer = {.type = a->query.type};

	records.n = 0;
	records.len = 0;
	if (a->query.type == DNS_TYPE_A) {
		answer.addr[answer.n_addrs++] = INADDR_LOOPBACK;
	} else if (a->query.type == DNS_TYPE_AAAA) {
		records.data[0] = 0;
		records.data[1] = 16;
		memcpy(records.data + 2, loopback6, 16);
		records.len = 18;
		records.n = 1;
	}
	d->counts.answered++;
	dns_reply(d, a, dns_answer_build(&answer, &records, &a->query, 300, dns_room(a), d->out + 2));
}

/* Return: whether the type was dealt with */
static bool answer_by_type(struct dnsd *d, const struct dns_sandbox *s, const struct dns_asker *a, const struct dns_verdict *v)
{
	struct dns_verdict refused = *v;

	switch (dns_type_class(a->query.type)) {
	case DNS_TYPES_REFUSED:
		refused.reason = EGRESS_REASON_QTYPE;
		d->counts.denied++;
		tell(d, s, a, EGRESS_EVENT_DNS_DENIED, &refused, DNS_REFUSED, NULL, NULL);
		dns_reply(d, a, dns_error_build(&a->query, DNS_REFUSED, DNS_EDE_PROHIBITED, d->out + 2));
		return true;
	case DNS_TYPES_ANY:
		d->counts.answered++;
		dns_reply(d, a, dns_any_build(&a->query, d->out + 2));
		return true;
	case DNS_TYPES_ADDRESS6:
		if (d->settings.network_ipv6)
			break;
		d->counts.answered++;
		answer_empty(d, a);
		return true;
	case DNS_TYPES_PASS:
	case DNS_TYPES_ADDRESS:
	case DNS_TYPES_SERVICE:
		break;
	}
	return false;
}

static bool answer_static(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *a)
{
	struct dns_answer answer = {.type = a->query.type, .ttl_s = 60};

	if (!dns_hosts_find(d->hosts, a->query.text, a->query.text_len, &answer))
		return false;
	if (answer.n_addrs)
		dns_lookup_local(d, s, a, &answer);
	else
		answer_empty(d, a);
	return true;
}

static bool answer_cached(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *a, const struct dns_verdict *v)
{
	static struct dns_answer answer;
	uint32_t ttl_s;

	if (!dns_cache_get(d->cache, s, &a->query, loop_now_ms(d->loop), &answer, &ttl_s))
		return false;
	d->counts.cached++;
	d->counts.answered++;
	tell(d, s, a, EGRESS_EVENT_DNS_ALLOWED, v, answer.rcode, &answer, NULL);
	dns_reply(d, a, dns_answer_build(&answer, NULL, &a->query, ttl_s, dns_room(a), d->out + 2));
	return true;
}

/* ---- the brakes: a name that is passed on carries its letters outside ---- */

static void suspect(struct dnsd *d, const struct dns_sandbox *s, const struct dns_asker *a, const struct dns_verdict *v, const char *text)
{
	struct dns_verdict why = *v;

	why.reason = EGRESS_REASON_LIMIT;
	d->counts.tunnel_suspected++;
	tell(d, s, a, EGRESS_EVENT_TUNNEL_SUSPECTED, &why, DNS_NOERROR, NULL, text);
}

static void refuse_over_limit(struct dnsd *d, const struct dns_sandbox *s, const struct dns_asker *a, const struct dns_verdict *v,
			      const char *text)
{
	struct dns_verdict why = *v;

	why.reason = EGRESS_REASON_LIMIT;
	d->counts.rate_limited++;
	tell(d, s, a, EGRESS_EVENT_RATE_LIMITED, &why, DNS_REFUSED, NULL, text);
	dns_reply(d, a, dns_error_build(&a->query, DNS_REFUSED, DNS_EDE_PROHIBITED, d->out + 2));
}

/* Return: whether the question may go upstream; else it has been answered */
static bool within_limits(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *a, const struct dns_verdict *v)
{
	uint64_t now = loop_now_ms(d->loop);
	const struct dns_query *q = &a->query;
	enum dns_brake brake;
	bool first;
	size_t below;

	if (q->type == DNS_TYPE_TXT && !dns_bucket_take(&s->limits.txt, now, DNS_TXT_PER_SECOND, DNS_TXT_BURST)) {
		refuse_over_limit(d, s, a, v, "TXT questions a second");
		return false;
	}
	if (q->text_len > DNS_LONG_NAME || q->n_labels > DNS_MANY_LABELS)
		suspect(d, s, a, v, "a very long name");
	if (!v->which || v->which->kind != EGRESS_RULE_WILDCARD)
		return true;
	below = q->text_len - strlen(v->which->name) - 1;
	brake = dns_limits_child(&s->limits, now, v->rule, dns_hash(q->text, q->text_len, v->rule), q->text, below, &first);
	if (brake == DNS_BRAKE_SUSPECT)
		suspect(d, s, a, v, "many names below a wildcard look like data");
	if (brake != DNS_BRAKE_STOP)
		return true;
	if (first)
		suspect(d, s, a, v, "too many new names below a wildcard in a minute");
	refuse_over_limit(d, s, a, v, "new names below a wildcard in a minute");
	return false;
}

void dns_question(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *a)
{
	const struct dns_query *q = &a->query;
	struct dns_verdict v;

	if (!q->odd && dns_judge_is_local(q->text, q->text_len)) {
		answer_localhost(d, a);
		return;
	}
	v = dns_judge(d, s, q->text, q->text_len, q->odd);
	if (!v.allow) {
		dns_answer_denied(d, s, a, &v);
		return;
	}
	if (answer_by_type(d, s, a, &v) || answer_static(d, s, a) || answer_cached(d, s, a, &v))
		return;
	if (d->unlimited || within_limits(d, s, a, &v))
		dns_lookup_begin(d, s, a);
}
