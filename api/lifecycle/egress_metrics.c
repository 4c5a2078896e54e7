// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: figures about egress, as JSON by the names that published tools know, or as Prometheus' text
 *
 * One table says what there is; both forms are written from it.  Figures of sandbox-dnsd are left out while it is away.
 */
#include "api/lifecycle/lifecycle_api.h"
#include "api/lifecycle/lifecycle_int.h"

#include "api/call.h"
#include "api/deny_hook.h"
#include "api/egress_events.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "netpolicy/policy_link.h"
#include "runtime/sandbox.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#define PROMETHEUS_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct figures {
	const struct egress_counts_reply *dnsd; /* NULL: away */
	const struct journal_counts *journal;
	const struct deny_hook_counts *hook;
	uint64_t rules;
};

enum source { DNSD, JOURNAL, HOOK };

/* Counters but for the last column. */
static const struct figure {
	const char *name, *help;
	enum source source;
	size_t at;
	bool gauge;
} table[] = {
#define D(field) DNSD, offsetof(struct egress_counts_reply, field)
#define J(field) JOURNAL, offsetof(struct journal_counts, field)
#define H(field) HOOK, offsetof(struct deny_hook_counts, field)
	{"egress.policy.denied_total", "look-ups that a policy denied", D(denied), false},
	{"egress.nftables.updates.count", "addresses that were opened for names", D(pins), false},
	{"egress.nftables.failures.count", "addresses that could not be opened", D(pin_failures), false},
	{"egress.dns.queries", "questions of sandboxes", D(questions), false},
	{"egress.dns.answered", "questions that were answered", D(answered), false},
	{"egress.dns.cached", "answers that were known", D(cached), false},
	{"egress.dns.failed", "look-ups that name servers failed", D(failed), false},
	{"egress.dns.rate_limited", "questions over a limit of their sandbox", D(rate_limited), false},
	{"egress.dns.forged", "answers of name servers that were not believed", D(forged), false},
	{"egress.leases", "addresses that names hold open", D(leases), true},
	{"egress.packets.denied", "refused packets that the kernel told", D(packets_denied), false},
	{"egress.sni.allowed", "TLS connections whose name was allowed", D(sni_allowed), false},
	{"egress.sni.denied", "TLS connections that were reset", D(sni_denied), false},
	{"egress.sni.unmatched", "TLS connections that would be reset, but the gate only watches", D(sni_unmatched), false},
	{"egress.events.lost", "events that found no place on their way", D(events_lost), false},
	{"egress.journal.coalesced", "events that repeated one of the last second", J(coalesced), false},
	{"egress.journal.evicted", "events that gave way to newer ones", J(evicted), false},
	{"egress.journal.lost", "events lost for lack of memory", J(lost), false},
	{"egress.webhook.delivered", "events that the webhook's sink took", H(delivered), false},
	{"egress.webhook.refused", "events that the sink did not want", H(refused), false},
	{"egress.webhook.failed", "events that could not be delivered", H(failed), false},
	{"egress.webhook.retries", "tries after the first one", H(retries), false},
	{"egress.webhook.untrusted", "tries that ended at the sink's certificate", H(untrusted), false},
	{"egress.webhook.dropped", "events that were not tried", H(dropped), false},
#undef D
#undef J
#undef H
};

/* Return: whether there is a value */
static bool value_of(const struct figures *f, const struct figure *row, uint64_t *ret)
{
	const void *from[] = {[DNSD] = f->dnsd, [JOURNAL] = f->journal, [HOOK] = f->hook};

	if (!from[row->source])
		return false;
	memcpy(ret, (const char *)from[row->source] + row->at, sizeof(*ret));
	return true;
}

/* ---- as JSON ---- */

static void write_json(const struct figures *f, struct buf *out)
{
	const struct journal_counts *c = f->journal;
	struct jw w = {.out = out};
	uint64_t n;

	jw_object(&w);
	if (f->dnsd) {
		jw_key(&w, "egress.dns.query.duration");
		jw_object(&w);
		jw_key_u64(&w, "count", f->dnsd->upstream_count);
		jw_key(&w, "sum");
		jw_double(&w, (double)f->dnsd->upstream_usec_sum / 1e6);
		jw_object_end(&w);
	}
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (value_of(f, &table[i], &n))
			jw_key_u64(&w, table[i].name, n);
	jw_key(&w, "egress.events");
	jw_object(&w);
	for (unsigned i = 1; i < EGRESS_EVENT_KIND_COUNT; i++)
		jw_key_u64(&w, journal_kind_name((enum egress_event_kind)i), c->events[i]);
	jw_object_end(&w);
	jw_key(&w, "egress.denied.reason");
	jw_object(&w);
	for (unsigned i = 1; i < EGRESS_REASON_COUNT; i++)
		jw_key_u64(&w, policy_reason_name((enum egress_reason)i), c->reasons[i]);
	jw_object_end(&w);
	jw_key_u64(&w, "egress.journal.kept", c->kept);
	jw_key_u64(&w, "egress.nftables.rules.count", f->rules);
	jw_object_end(&w);
}

/* ---- as Prometheus reads it ---- */

static void put_head(struct buf *out, const char *name, const char *suffix, const char *help, const char *type)
{
	char flat[80];
	size_t n = 0;

	for (; name[n] && n < sizeof(flat) - 1; n++)
		flat[n] = (char)(name[n] == '.' ? '_' : name[n]);
	flat[n] = '\0';
	if (help)
		buf_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", flat, suffix, help, flat, suffix, type);
	buf_printf(out, "%s%s", flat, suffix);
}

/* A counter's name ends in _total. */
static const char *suffix_of(const struct figure *row)
{
	size_t n = strlen(row->name);

	return row->gauge || (n > 6 && !strcmp(row->name + n - 6, "_total")) ? "" : "_total";
}

static void write_labelled(struct buf *out, const char *name, const char *help, const char *label, const uint64_t *value, unsigned n,
			   const char *(*name_of)(unsigned i))
{
	for (unsigned i = 1; i < n; i++) {
		put_head(out, name, "_total", i == 1 ? help : NULL, "counter");
		buf_printf(out, "{%s=\"%s\"} %llu\n", label, name_of(i), (unsigned long long)value[i]);
	}
}

static const char *kind_name(unsigned i)
{
	return journal_kind_name((enum egress_event_kind)i);
}

static const char *reason_name(unsigned i)
{
	return policy_reason_name((enum egress_reason)i);
}

static void write_prometheus(const struct figures *f, struct buf *out)
{
	uint64_t n;

	if (f->dnsd) {
		put_head(out, "egress.dns.query.duration", "_seconds", "time that name servers took", "summary");
		buf_printf(out, "_count %llu\n", (unsigned long long)f->dnsd->upstream_count);
		put_head(out, "egress.dns.query.duration", "_seconds_sum", NULL, NULL);
		buf_printf(out, " %.6f\n", (double)f->dnsd->upstream_usec_sum / 1e6);
	}
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (!value_of(f, &table[i], &n))
			continue;
		put_head(out, table[i].name, suffix_of(&table[i]), table[i].help, table[i].gauge ? "gauge" : "counter");
		buf_printf(out, " %llu\n", (unsigned long long)n);
	}
	write_labelled(out, "egress.events", "what was judged, by kind", "kind", f->journal->events, EGRESS_EVENT_KIND_COUNT, kind_name);
	write_labelled(out, "egress.denied.reason", "what was denied, by reason", "reason", f->journal->reasons, EGRESS_REASON_COUNT, reason_name);
	put_head(out, "egress.journal.kept", "", "events that can be read", "gauge");
	buf_printf(out, " %u\n", f->journal->kept);
	put_head(out, "egress.nftables.rules.count", "", "rules in force, of all sandboxes", "gauge");
	buf_printf(out, " %llu\n", (unsigned long long)f->rules);
}

/* ---- the answer ---- */

/* Prometheus says which format it wants; so may anybody. */
static bool wants_text(const struct api_call *call)
{
	static const char type[] = "text/plain";
	struct http_text accept = call->request->accept;
	auto_free char *format = NULL;

	if (http_query_get(call->query, "format", &format) == 0 && format)
		return !strcmp(format, "prometheus");
	for (size_t i = 0; i + sizeof(type) - 1 <= accept.len; i++)
		if (!strncasecmp(accept.data + i, type, sizeof(type) - 1))
			return true;
	return false;
}

static void answer(struct api_call *call, const union egress_any *reply, bool as_text)
{
	struct sandbox_manager *m = call->context->manager;
	struct figures f = {.dnsd = reply ? &reply->counts_reply : NULL, .journal = journal_counts(egress_events_journal(call->context->events)),
			    .hook = egress_events_hook(call->context->events)};
	auto_buf body = {0};

	for (const struct sandbox *s = sandbox_next(m, NULL); s; s = sandbox_next(m, s))
		if (s->addr)
			f.rules += policy_count(sandbox_effective_policy(s));
	if (!as_text) {
		write_json(&f, &body);
		api_reply_json(call, 200, &body);
		return;
	}
	write_prometheus(&f, &body);
	const char *text = buf_str(&body);
	const struct api_answer whole = {.status = 200, .content_type = PROMETHEUS_TYPE, .headers = "", .body = text ? text : "",
					 .body_len = text ? buf_used(&body) : 0};
	if (text)
		api_reply(call, &whole);
	else
		api_reply_code(call, SBX_E_NO_MEMORY, "figures");
}

/* Without dnsd there are no figures of it, and their absence says so. */
static void on_counts_json(void *arg, const union egress_any *reply, const struct sbx_err *err)
{
	(void)err;
	answer(arg, reply, false);
}

static void on_counts_text(void *arg, const union egress_any *reply, const struct sbx_err *err)
{
	(void)err;
	answer(arg, reply, true);
}

void lifecycle_api_egress_metrics(struct api_call *call)
{
	struct policy_link *link = sandbox_manager_link(call->context->manager);
	bool as_text = wants_text(call);
	struct sbx_err err;

	if (!policy_link_up(link) || policy_link_counts(link, as_text ? on_counts_text : on_counts_json, call, &err) < 0)
		answer(call, NULL, as_text);
}
