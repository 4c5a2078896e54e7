/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what was judged, remembered for a while
 *
 * A ring for each sandbox that something was judged for, and a bound on all together.  An event that repeats one of the
 * last second (same kind, name, address, port, reason) is not told again: one event at the end of the second says how often.
 * Each event has a number that counts up over all sandboxes and starts of the daemon, so that a reader can go on behind it.
 */
#ifndef NETPOLICY_JOURNAL_H
#define NETPOLICY_JOURNAL_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "netpolicy/egress_msg.h"
#include "netpolicy/policy.h"

#include <stdbool.h>
#include <stdint.h>

#define JOURNAL_SANDBOX_MAX 256u   /* events kept for one sandbox */
#define JOURNAL_ALL_MAX	    65536u /* for all; some 400 bytes each */
#define JOURNAL_WINDOW_MS   1000u

struct journal;

struct journal_event {
	uint64_t number;
	int64_t wall_usec;
	uint8_t sandbox_id[16];
	enum egress_event_kind kind;
	enum egress_reason reason;
	uint32_t rule_index; /* in what the client sees as `egress`, or of the operator's rules; EGRESS_NO_RULE: none */
	bool rule_allow, rule_operator;
	uint32_t count;
	uint32_t addr; /* IPv4, host byte order; 0: addr6 */
	struct ip6 addr6; /* none: the event has no address */
	uint16_t port, qtype;
	uint8_t protocol;
	char *name; /* owned, "" for none */
	char *rule; /* owned, target of the rule, "" for none */
	char *text; /* owned, "" for none */
};

struct journal_hooks {
	void *arg;
	void (*published)(void *arg, const struct journal_event *event);
};

/** journal_new() - An empty journal that tells @hooks of each event; Return: NULL with @err set (NO_MEMORY) */
struct journal *journal_new(struct loop *loop, const struct journal_hooks *hooks, struct sbx_err *err) SBX_WUR;
/** journal_free() - Release @j; NULL is fine */
void journal_free(struct journal *j);
/** journal_add() - Remember @event, judged by @policy (NULL: it has changed since) */
void journal_add(struct journal *j, const struct egress_event *event, const struct policy *policy);
/** journal_forget() - The sandbox @id is gone */
void journal_forget(struct journal *j, const uint8_t id[16]);
/** journal_next() - The first event of the sandbox @id with a number above @after; Return: NULL for none; valid until the next call that changes @j */
const struct journal_event *journal_next(const struct journal *j, const uint8_t id[16], uint64_t after);
/** journal_last() - The number of the newest event of all */
uint64_t journal_last(const struct journal *j);

struct journal_counts {
	uint64_t events[EGRESS_EVENT_KIND_COUNT]; /* repeats counted */
	uint64_t reasons[EGRESS_REASON_COUNT];	  /* of what was denied */
	uint64_t denied;			  /* of all kinds that deny */
	uint64_t coalesced, evicted, lost;	  /* lost: for lack of memory */
	uint32_t kept;
};
/** journal_counts() - Counters of @j since the start */
const struct journal_counts *journal_counts(const struct journal *j);

enum journal_json_flags {
	JOURNAL_JSON_SANDBOX = 1u << 0, /* say which sandbox */
};
/** journal_json() - Append @event as one JSON object to @out, without a newline */
void journal_json(const struct journal_event *event, unsigned flags, struct buf *out);
/** journal_is_denial() - Whether @event says that something did not get through */
bool journal_is_denial(const struct journal_event *event);
/** journal_kind_name() - "dns_denied" ... */
const char *journal_kind_name(enum egress_event_kind kind);
/** journal_sentence() - What an agent or a person should read: why, and which rule, into @out */
void journal_sentence(const struct journal_event *event, char *out, size_t size);

#endif
