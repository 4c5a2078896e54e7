/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the deny webhook (egress.deny_webhook)
 *
 * One POST for each denial that the journal tells: {"hostname", "timestamp", "source", "sandboxId"} as published sinks know
 * it, then kind, reason, rule and what else is known, then the configured attributes.  It is sent from the host by a child
 * that blocks as it likes: 5 s a try; a transport error or a status from 500 on is tried again after 1, 2 and 4 s, any other
 * is final; after five events that could not be delivered, events are thrown away for 30 s before the next is tried.
 * At most DENY_HOOK_QUEUE events wait; more are dropped and counted.  Nothing here ever delays a lookup.
 */
#ifndef API_DENY_HOOK_H
#define API_DENY_HOOK_H

#include "base/err.h"
#include "base/loop.h"
#include "netpolicy/journal.h"

#include <stdint.h>

#define DENY_HOOK_QUEUE 256u

struct deny_hook;
struct settings;

/**
 * deny_hook_new() - Read the settings
 * @loop:	The loop
 * @settings:	egress.deny_webhook and egress.deny_webhook_attributes
 * @ret:	The hook (deny_hook_free() it), or NULL when none is configured
 * @err:	Filled on failure: INVALID_REQUEST, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int deny_hook_new(struct loop *loop, const struct settings *settings, struct deny_hook **ret, struct sbx_err *err) SBX_WUR;
/** deny_hook_free() - End the child, with what it has not sent; NULL is fine */
void deny_hook_free(struct deny_hook *h);
/** deny_hook_add() - Send @event, when it says that something did not get through; NULL is fine */
void deny_hook_add(struct deny_hook *h, const struct journal_event *event);
/** deny_hook_reap() - After SIGCHLD: the child may have ended; NULL is fine */
void deny_hook_reap(struct deny_hook *h);
/** deny_hook_dropped() - Events that were not handed to the child; 0 for NULL */
uint64_t deny_hook_dropped(const struct deny_hook *h);

/** deny_hook_child() - Be the child: POST what comes on standard input to @url until it ends; Return: exit code */
int deny_hook_child(const char *url);

#endif
