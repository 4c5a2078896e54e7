/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the deny webhook (egress.deny_webhook)
 *
 * One POST for each denial that the journal tells: {"hostname", "timestamp", "source", "sandboxId"} as published sinks know
 * it, then kind, reason, rule and what else is known, then the configured attributes.  A sandbox-fetch process sends it from
 * the host, over http or https, one at a time and 5 s a try; no answer or a status from 500 on is tried again after 1, 2 and
 * 4 s, any other is final, and so is a certificate that does not hold; after five events that could not be delivered, events are thrown away for 30 s before the next is
 * tried.  At most DENY_HOOK_QUEUE events wait; more are dropped and counted.  Nothing here ever delays a lookup.
 */
#ifndef API_DENY_HOOK_H
#define API_DENY_HOOK_H

#include "base/err.h"
#include "base/loop.h"
#include "images/fetch_client.h"
#include "netpolicy/journal.h"

#include <stdint.h>

#define DENY_HOOK_QUEUE 256u

struct deny_hook;
struct settings;

/**
 * deny_hook_new() - Read the settings
 * @loop:	The loop
 * @settings:	egress.deny_webhook, egress.deny_webhook_ca and egress.deny_webhook_attributes
 * @ret:	The hook (deny_hook_free() it), or NULL when none is configured
 * @err:	Filled on failure: INVALID_REQUEST, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int deny_hook_new(struct loop *loop, const struct settings *settings, struct deny_hook **ret, struct sbx_err *err) SBX_WUR;
/** deny_hook_free() - End its process, with what was not sent; NULL is fine */
void deny_hook_free(struct deny_hook *h);
/** deny_hook_add() - Send @event, when it says that something did not get through; NULL is fine */
void deny_hook_add(struct deny_hook *h, const struct journal_event *event);
/** deny_hook_set_starter() - How its process is started; until then events wait; NULL is fine */
void deny_hook_set_starter(struct deny_hook *h, const struct fetch_starter *starter);

struct deny_hook_counts {
	uint64_t delivered, refused, failed; /* events: taken; not wanted by the sink; not delivered after all tries */
	uint64_t retries, untrusted;	     /* tries: after the first one; ended by a certificate that does not hold */
	uint64_t dropped;		     /* events that were not tried: too many, or the sink had failed too often */
};

/** deny_hook_counts() - What became of events; valid as long as @h; all 0 for NULL */
const struct deny_hook_counts *deny_hook_counts(const struct deny_hook *h);

#endif
