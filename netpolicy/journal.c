/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"
#include "base/wallclock.h"
#include "netpolicy/journal.h"

#define QTYPE_AAAA 28u
#define BUCKETS	      1024u
#define LOOK_BACK     32u /* a window's events that a new one is compared with */

struct kept {
	struct journal_event event;
	uint64_t mono_ms;
	uint32_t repeats; /* within the window, not told yet */
};

struct box {
	struct box *next, *next_dirty;
	uint8_t id[16];
	struct kept *ring[JOURNAL_SANDBOX_MAX]; /* owned; oldest at `first` */
	uint32_t first, n;
	bool dirty; /* some have repeats */
};

struct journal {
	struct loop *loop; /* borrowed */
	struct journal_hooks hooks;
	struct loop_timer *window; /* owned */
	struct box *bucket[BUCKETS]; /* own the boxes */
	struct box *dirty;
	uint64_t number;
	struct journal_counts counts;
};

static size_t bucket_of(const uint8_t id[16])
{
	return ((size_t)id[0] << 8 | id[1]) % BUCKETS; /* ids are random */
}

static struct box *find(const struct journal *j, const uint8_t id[16])
{
	for (struct box *b = j->bucket[bucket_of(id)]; b; b = b->next)
		if (!memcmp(b->id, id, 16))
			return b;
	return NULL;
}

static struct box *find_or_make(struct journal *j, const uint8_t id[16])
{
	struct box *b = find(j, id);

	if (b)
		return b;
	b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	memcpy(b->id, id, 16);
	b->next = j->bucket[bucket_of(id)];
	j->bucket[bucket_of(id)] = b;
	return b;
}

static void kept_free(struct journal *j, struct kept *k)
{
	free(k->event.name);
	free(k->event.rule);
	free(k->event.text);
	free(k);
	j->counts.kept--;
}

static struct kept *at(const struct box *b, uint32_t i)
{
	return b->ring[(b->first + i) % JOURNAL_SANDBOX_MAX];
}

static void drop_oldest(struct journal *j, struct box *b)
{
	kept_free(j, at(b, 0));
	b->first = (b->first + 1) % JOURNAL_SANDBOX_MAX;
	b->n--;
}

static bool denies(enum egress_event_kind kind)
{
	return kind == EGRESS_EVENT_DNS_DENIED || kind == EGRESS_EVENT_IP_DENIED || kind == EGRESS_EVENT_REBIND_STRIPPED ||
	       kind == EGRESS_EVENT_RATE_LIMITED || kind == EGRESS_EVENT_SNI_DENIED;
}

bool journal_is_denial(const struct journal_event *event)
{
	return denies(event->kind);
}

/* Takes the event over. */
static void publish(struct journal *j, struct box *b, struct kept *k)
{
	j->counts.kept++;
	if (b->n == JOURNAL_SANDBOX_MAX || (j->counts.kept > JOURNAL_ALL_MAX && b->n)) {
		drop_oldest(j, b);
		j->counts.evicted++;
	}
	if (j->counts.kept <= JOURNAL_ALL_MAX) {
		k->event.number = ++j->number;
		b->ring[(b->first + b->n++) % JOURNAL_SANDBOX_MAX] = k;
		j->hooks.published(j->hooks.arg, &k->event);
		return;
	}
	k->event.number = ++j->number;
	j->hooks.published(j->hooks.arg, &k->event);
	kept_free(j, k);
	j->counts.evicted++;
}

/* What was taken out of an answer is what the event is about. */
static uint32_t far_of(const struct egress_event *e)
{
	if (e->kind != EGRESS_EVENT_REBIND_STRIPPED || !e->n_addrs)
		return e->addr;
	return e->qtype == QTYPE_AAAA ? 0 : e->addrs[0];
}

static struct ip6 far6_of(const struct egress_event *e)
{
	bool stripped = e->kind == EGRESS_EVENT_REBIND_STRIPPED && e->n_addrs && e->qtype == QTYPE_AAAA;

	return stripped || (!e->addr && !e->n_addrs) ? e->addrs6[0] : (struct ip6){0};
}

static struct kept *copy_event(const struct egress_event *e, const struct policy *policy)
{
	const struct policy_rule *rule = policy && e->rule_index < policy_count(policy) ? policy_at(policy, e->rule_index) : NULL;
	struct kept *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->event = (struct journal_event){
		.wall_usec = e->wall_usec,
		.kind = (enum egress_event_kind)e->kind,
		.reason = (enum egress_reason)e->reason,
		.rule_index = rule ? e->rule_index : EGRESS_NO_RULE,
		.count = e->count,
		.addr = far_of(e),
		.addr6 = far6_of(e),
		.port = e->port,
		.qtype = e->qtype,
		.protocol = e->protocol,
		.name = strdup(e->name),
		.rule = strdup(rule ? rule->text : ""),
		.text = strdup(e->text),
	};
	memcpy(k->event.sandbox_id, e->sandbox_id, 16);
	if (rule) {
		k->event.rule_allow = rule->flags & EGRESS_RULE_ALLOW;
		k->event.rule_operator = rule->flags & EGRESS_RULE_OPERATOR;
		/* A client counts its own rules; the operator's stand in front of them. */
		for (uint32_t i = 0; i < e->rule_index && !k->event.rule_operator; i++)
			k->event.rule_index -= (policy_at(policy, i)->flags & EGRESS_RULE_OPERATOR) != 0;
	}
	if (k->event.name && k->event.rule && k->event.text)
		return k;
	free(k->event.name);
	free(k->event.rule);
	free(k->event.text);
	free(k);
	return NULL;
}

static bool alike(const struct journal_event *a, const struct egress_event *e)
{
	return (uint32_t)a->kind == e->kind && (uint32_t)a->reason == e->reason && a->addr == far_of(e) &&
	       ip6_same(a->addr6, far6_of(e)) && a->port == e->port &&
	       a->protocol == e->protocol && a->qtype == e->qtype && !strcmp(a->name, e->name);
}

static struct kept *repeated(const struct journal *j, const struct box *b, const struct egress_event *e)
{
	uint64_t now = loop_now_ms(j->loop);

	for (uint32_t i = 0; i < b->n && i < LOOK_BACK; i++) {
		struct kept *k = at(b, b->n - 1 - i);

		if (now - k->mono_ms >= JOURNAL_WINDOW_MS)
			return NULL;
		if (alike(&k->event, e))
			return k;
	}
	return NULL;
}

void journal_add(struct journal *j, const struct egress_event *event, const struct policy *policy)
{
	struct box *b = find_or_make(j, event->sandbox_id);
	struct kept *k = b ? repeated(j, b, event) : NULL;

	j->counts.events[event->kind] += event->count;
	if (denies((enum egress_event_kind)event->kind)) {
		j->counts.denied += event->count;
		j->counts.reasons[event->reason] += event->count;
	}
	if (k) {
		k->repeats += event->count;
		j->counts.coalesced++;
		if (!b->dirty) {
			b->dirty = true;
			b->next_dirty = j->dirty;
			j->dirty = b;
		}
		if (!loop_timer_armed(j->window))
			loop_timer_arm(j->window, JOURNAL_WINDOW_MS);
		return;
	}
	k = b ? copy_event(event, policy) : NULL;
	if (!k) {
		j->counts.lost++;
		return;
	}
	k->mono_ms = loop_now_ms(j->loop);
	publish(j, b, k);
}

static struct kept *again(const struct kept *k)
{
	struct kept *copy = malloc(sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *k;
	copy->event.name = strdup(k->event.name);
	copy->event.rule = strdup(k->event.rule);
	copy->event.text = strdup(k->event.text);
	copy->event.count = k->repeats;
	copy->event.wall_usec = wall_usec();
	copy->repeats = 0;
	if (copy->event.name && copy->event.rule && copy->event.text)
		return copy;
	free(copy->event.name);
	free(copy->event.rule);
	free(copy->event.text);
	free(copy);
	return NULL;
}

/* One event for what was not told; it opens a window of its own. */
static void tell_repeats(struct journal *j, struct box *b)
{
	struct kept *todo[JOURNAL_SANDBOX_MAX];
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		struct kept *k = at(b, i);

		if (!k->repeats)
			continue;
		struct kept *copy = again(k);

		if (copy) {
			copy->mono_ms = loop_now_ms(j->loop);
			todo[n++] = copy;
		} else {
			j->counts.lost++;
		}
		k->repeats = 0;
		k->mono_ms = 0; /* the copy stands for it from now on */
	}
	for (uint32_t i = 0; i < n; i++)
		publish(j, b, todo[i]);
}

static void on_window(void *arg)
{
	struct journal *j = arg;
	struct box *b = j->dirty, *next;

	j->dirty = NULL;
	for (; b; b = next) {
		next = b->next_dirty;
		b->dirty = false;
		b->next_dirty = NULL;
		tell_repeats(j, b);
	}
}

struct journal *journal_new(struct loop *loop, const struct journal_hooks *hooks, struct sbx_err *err)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (j) {
		*j = (struct journal){.loop = loop, .hooks = *hooks};
		j->window = loop_timer_new(loop, on_window, j);
		j->number = (uint64_t)wall_usec(); /* above every number of an earlier start */
	}
	if (j && j->window)
		return j;
	free(j);
	sbx_err_set(err, SBX_E_NO_MEMORY, 0, "egress journal");
	return NULL;
}

static void box_free(struct journal *j, struct box *b)
{
	if (b->dirty) {
		for (struct box **d = &j->dirty; *d; d = &(*d)->next_dirty) {
			if (*d != b)
				continue;
			*d = b->next_dirty;
			break;
		}
	}
	while (b->n)
		drop_oldest(j, b);
	free(b);
}

void journal_forget(struct journal *j, const uint8_t id[16])
{
	for (struct box **b = &j->bucket[bucket_of(id)]; *b; b = &(*b)->next) {
		struct box *gone = *b;

		if (memcmp(gone->id, id, 16) != 0)
			continue;
		*b = gone->next;
		box_free(j, gone);
		return;
	}
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < BUCKETS; i++) {
		while (j->bucket[i]) {
			struct box *b = j->bucket[i];

			j->bucket[i] = b->next;
			box_free(j, b);
		}
	}
	loop_timer_free(j->window);
	free(j);
}

const struct journal_event *journal_next(const struct journal *j, const uint8_t id[16], uint64_t after)
{
	const struct box *b = find(j, id);
	uint32_t low = 0, high = b ? b->n : 0;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (at(b, mid)->event.number <= after)
			low = mid + 1;
		else
			high = mid;
	}
	return b && low < b->n ? &at(b, low)->event : NULL;
}

uint64_t journal_last(const struct journal *j)
{
	return j->number;
}

const struct journal_counts *journal_counts(const struct journal *j)
{
	return &j->counts;
}

/* ---- as text ---- */

static const char *const kind_names[] = {
	[EGRESS_EVENT_NONE] = "none",
	[EGRESS_EVENT_DNS_ALLOWED] = "dns_allowed",
	[EGRESS_EVENT_DNS_DENIED] = "dns_denied",
	[EGRESS_EVENT_DNS_FAILED] = "dns_failed",
	[EGRESS_EVENT_IP_DENIED] = "ip_denied",
	[EGRESS_EVENT_REBIND_STRIPPED] = "rebind_stripped",
	[EGRESS_EVENT_TUNNEL_SUSPECTED] = "tunnel_suspected",
	[EGRESS_EVENT_RATE_LIMITED] = "rate_limited",
	[EGRESS_EVENT_SNI_DENIED] = "sni_denied",
	[EGRESS_EVENT_SNI_UNMATCHED] = "sni_unmatched",
};
_Static_assert(ARRAY_SIZE(kind_names) == EGRESS_EVENT_KIND_COUNT, "a kind has no name");

const char *journal_kind_name(enum egress_event_kind kind)
{
	return (unsigned)kind < EGRESS_EVENT_KIND_COUNT ? kind_names[kind] : "unknown";
}

static const char *qtype_name(uint16_t qtype)
{
	static const struct {
		uint16_t type;
		const char *name;
	} names[] = {{1, "A"}, {2, "NS"}, {5, "CNAME"}, {6, "SOA"}, {10, "NULL"}, {12, "PTR"}, {15, "MX"}, {16, "TXT"}, {28, "AAAA"}, {33, "SRV"},
		     {35, "NAPTR"}, {43, "DS"}, {44, "SSHFP"}, {48, "DNSKEY"}, {52, "TLSA"}, {64, "SVCB"}, {65, "HTTPS"}, {255, "ANY"}, {257, "CAA"}};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].type == qtype)
			return names[i].name;
	return NULL;
}

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : protocol == IPPROTO_ICMP ? "icmp" : NULL;
}

static const char *const reason_sentences[] = {
	[EGRESS_REASON_NONE] = "",
	[EGRESS_REASON_RULE] = "a rule denies it",
	[EGRESS_REASON_DEFAULT] = "no rule allows it, default deny",
	[EGRESS_REASON_METADATA] = "link-local, loopback and metadata addresses are never reachable",
	[EGRESS_REASON_HOST] = "addresses of the host are never reachable",
	[EGRESS_REASON_SANDBOX] = "other sandboxes are never reachable",
	[EGRESS_REASON_PRIVATE] = "private address that no rule names",
	[EGRESS_REASON_PORT] = "the rule for this destination does not open this port",
	[EGRESS_REASON_DOT] = "DNS over TLS (port 853) would get round the rules",
	[EGRESS_REASON_DOH] = "an encrypted resolver would get round the rules",
	[EGRESS_REASON_QUIC] = "QUIC is not passed under rules for names; use TCP",
	[EGRESS_REASON_PROTOCOL] = "only TCP, UDP and echo requests pass",
	[EGRESS_REASON_NO_LEASE] = "no allowed name that was looked up leads to this address; use the name",
	[EGRESS_REASON_QTYPE] = "this type of DNS question is not answered",
	[EGRESS_REASON_LIMIT] = "a limit of this sandbox is reached",
	[EGRESS_REASON_UPSTREAM] = "the name servers did not give an answer that can be believed",
	[EGRESS_REASON_NO_SNI] = "the TLS connection names no server, and only names are allowed here",
	[EGRESS_REASON_NOT_TLS] = "only TLS passes at this port, unless a rule allows the address",
	[EGRESS_REASON_BAD_HELLO] = "the TLS connection begins in a way that cannot be judged",
};
_Static_assert(ARRAY_SIZE(reason_sentences) == EGRESS_REASON_COUNT, "a reason has no sentence");

void journal_sentence(const struct journal_event *e, char *out, size_t size)
{
	if (e->reason == EGRESS_REASON_RULE && *e->rule)
		snprintf(out, size, "%srule %u \"%s %.150s\"", e->rule_operator ? "the operator's " : "", e->rule_index, e->rule_allow ? "allow" : "deny",
			 e->rule);
	else if (e->reason == EGRESS_REASON_PORT && *e->rule)
		snprintf(out, size, "%srule %u \"allow %.150s\" does not open port %u", e->rule_operator ? "the operator's " : "", e->rule_index, e->rule,
			 e->port);
	else
		snprintf(out, size, "%s", reason_sentences[e->reason]);
}

static void format_time(int64_t usec, char *out, size_t size)
{
	time_t s = (time_t)(usec / 1000000);
	struct tm tm;
	size_t n;

	gmtime_r(&s, &tm);
	n = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, size - n, ".%03dZ", (int)(usec / 1000 % 1000));
}

static void write_rule(const struct journal_event *e, struct jw *w)
{
	jw_key(w, "rule");
	jw_object(w);
	jw_key_i64(w, "index", e->rule_index);
	jw_key_str(w, "action", e->rule_allow ? "allow" : "deny");
	jw_key_str(w, "target", e->rule);
	if (e->rule_operator)
		jw_key_bool(w, "operator", true);
	jw_object_end(w);
}

void journal_json(const struct journal_event *e, unsigned flags, struct buf *out)
{
	struct jw w = {.out = out};
	char text[SBX_ERR_MSG_SIZE], id[UUID_SIZE], addr[INET6_ADDRSTRLEN];
	struct in_addr in = {htonl(e->addr)};

	jw_object(&w);
	jw_key_u64(&w, "id", e->number);
	format_time(e->wall_usec, text, sizeof(text));
	jw_key_str(&w, "time", text);
	if (flags & JOURNAL_JSON_SANDBOX) {
		uuid_format(e->sandbox_id, id);
		jw_key_str(&w, "sandboxId", id);
	}
	jw_key_str(&w, "kind", journal_kind_name(e->kind));
	jw_key_str(&w, "verdict", denies(e->kind) ? "denied" : e->kind == EGRESS_EVENT_DNS_FAILED ? "failed" :
						   e->kind == EGRESS_EVENT_TUNNEL_SUSPECTED	    ? "suspected" :
												      "allowed");
	if (*e->name)
		jw_key_str(&w, "name", e->name);
	if (e->addr)
		jw_key_str(&w, "address", inet_ntop(AF_INET, &in, addr, sizeof(addr)));
	else if (!ip6_none(e->addr6))
		jw_key_str(&w, "address", ip6_text(e->addr6, addr));
	if (e->port)
		jw_key_i64(&w, "port", e->port);
	if (e->protocol && protocol_name(e->protocol))
		jw_key_str(&w, "protocol", protocol_name(e->protocol));
	else if (e->protocol)
		jw_key_i64(&w, "protocol", e->protocol);
	if (e->qtype && qtype_name(e->qtype))
		jw_key_str(&w, "qtype", qtype_name(e->qtype));
	else if (e->qtype)
		jw_key_i64(&w, "qtype", e->qtype);
	if (*e->rule)
		write_rule(e, &w);
	jw_key_str(&w, "reason", policy_reason_name(e->reason));
	journal_sentence(e, text, sizeof(text));
	if (*text)
		jw_key_str(&w, "message", text);
	if (*e->text)
		jw_key_str(&w, "detail", e->text);
	jw_key_i64(&w, "count", e->count);
	jw_object_end(&w);
}
