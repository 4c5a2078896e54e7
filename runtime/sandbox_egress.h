/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: policies of sandboxes, on their way into force (for the files of the sandbox manager)
 *
 * What a client asked for is spec.policy (NULL: everything is allowed) and its row.  What is enforced is the effective
 * policy: the operator's rules in front of it.  A change goes
 *
 *	made from what is in force -> effective -> dnsd SET -> broker POLICY -> row -> published, and the client is answered
 *
 * and a failure on the way has the old one SET and loaded again.  Changes of one sandbox wait for each other.  A sandbox that
 * nothing narrows needs neither: the broker opens it at its creation, and dnsd answers what it asks.
 *
 * Fail closed: a sandbox that has a policy is not started before both have it.  While dnsd is away a create or change with a policy
 * waits EGRESS_WAIT_MS and then fails typed; a sandbox without one starts, and gets its names when dnsd is back.  Whatever
 * comes back (dnsd, broker, or sandboxd itself) is told everything again; what cannot be told is tried again.
 */
#ifndef RUNTIME_SANDBOX_EGRESS_H
#define RUNTIME_SANDBOX_EGRESS_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "netpolicy/egress_msg.h"
#include "netpolicy/policy.h"

#include <stdbool.h>
#include <stdint.h>

#define EGRESS_WAIT_MS	5000u /* dnsd is started again within a fraction of it */
#define EGRESS_RETRY_MS 1000u
#define EGRESS_DENIED_LINES 64u /* a second, into the log that a sandbox reads itself */

struct egress_change;
struct overlay;
struct sandbox_entry;
struct sandbox_manager;

struct egress_entry {
	struct policy *effective;	/* owned; NULL: that of a sandbox without rules of its own */
	uint64_t generation;		/* of the last SET; counts up */
	struct egress_change *first, **last; /* owned; the first is under way */
	uint64_t denied_ms;		/* second in which lines were written into its log */
	unsigned n_denied;		/* lines in that second */
	bool reload;			/* what is in force has to be told again, before anything else */
	bool retry;			/* the same, when the timer fires */
};

struct egress_manager {
	struct policy_link *link;	/* owned; NULL: no dnsd (unit tests) */
	struct overlay *overlay;	/* owned; the operator's files; NULL: none are configured */
	uint64_t overlay_serial;	/* counts its changes */
	struct policy *none;		/* owned; effective policy of a sandbox without rules of its own */
	struct policy_ports domain_ports[EGRESS_RULE_PORTS];
	uint8_t n_domain_ports;
	struct loop_timer *wait;	/* owned; changes that wait for dnsd */
	struct loop_timer *again;	/* owned; what could not be told */
};

/** egress_row_text() - @policy as its row keeps it, "" for NULL, made in @out; Return: NULL when out of memory */
const char *egress_row_text(const struct policy *policy, struct buf *out);
/** egress_row_read() - The opposite; a text that does not read denies everything; @id is for the log; NULL for "" */
struct policy *egress_row_read(const char *text, const char *id);
/** egress_entry_init() - Make @e->egress ready; the struct is zero */
void egress_entry_init(struct sandbox_entry *e);
/** egress_entry_clear() - Release what @e->egress owns, without callbacks */
void egress_entry_clear(struct sandbox_entry *e);
/** egress_manager_init() - Settings of @m; Return: 0, or -1 with @err set (INVALID_REQUEST, NO_MEMORY) */
int egress_manager_init(struct sandbox_manager *m, struct sbx_err *err) SBX_WUR;
/** egress_manager_clear() - Release what @m->egress owns */
void egress_manager_clear(struct sandbox_manager *m);
/** egress_adopted() - @e has processes, made by an earlier sandboxd or an earlier broker: tell its policy again */
void egress_adopted(struct sandbox_entry *e);
/** egress_is_open() - Whether nothing narrows @e: the broker may open it at its creation */
bool egress_is_open(struct sandbox_entry *e);
/** egress_check() - Whether the policy of a new @e can be enforced; Return: 0, or -1 with @err set (TOO_LARGE, LIMIT, NO_MEMORY) */
int egress_check(struct sandbox_entry *e, struct sbx_err *err) SBX_WUR;
/**
 * egress_arm() - The broker made @e: put its policy into force
 * @e:		Pending, with a slot
 * @done:	Called once, perhaps before this returns; @err has code 0 when the entrypoint may be started
 */
void egress_arm(struct sandbox_entry *e, void (*done)(struct sandbox_entry *e, const struct sbx_err *err));
/** egress_rebuild() - Make the effective policy of @e anew from its own and the operator's rules; on failure the old one stays */
void egress_rebuild(struct sandbox_entry *e);
/** egress_running() - @e is up: changes that came while it was made may begin */
void egress_running(struct sandbox_entry *e);
/** egress_ended() - @e has no processes any more, or is being removed: who waits is told, and dnsd forgets @ref */
void egress_ended(struct sandbox_entry *e, struct egress_ref ref);

#endif
