/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the deny webhook (egress.deny_webhook)
 *
 * One POST for each denial that the journal tells: {"hostname", "timestamp", "source", "sandboxId"} as published sinks know
 * it, then kind, reason, rule and what else is known, then the configured attributes.  A sandbox-fetch process sends it from
 * the host, over http or https, one at a time and 5 s a try; no answer or a status from 500 on is tried again after 1, 2 and
 * 4 s, any other is final, and so is a certificate that does not hold; after five events that could not be delivered, events are thrown away for 30 s before the next is
 * tried.  At most DENY_HOOK_QUEUE events wait; more are dropped and counted.  Nothing here ever delays a lookup.
 *
 * With egress.deny_webhook_secret_file each try is signed: X-Sandboxd-Signature: t=SECONDS,v1=HEX, where HEX is HMAC-SHA256 under
 * the file's bytes (one newline at the end taken away) of "SECONDS." and the body.  Who knows the secret sees by it that
 * sandboxd sent this, and by the time that it is no old one again.
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

#define DENY_HOOK_SECRET_MIN 16u
#define DENY_HOOK_SECRET_MAX 1024u

struct deny_hook_secret {
	size_t n; /* 0: events are not signed */
	uint8_t data[DENY_HOOK_SECRET_MAX];
};

/**
 * deny_hook_read_secret() - Read egress.deny_webhook_secret_file, as long as the process is root
 * @settings:	Name it, or not
 * @ret:	Filled; empty when none is configured
 * @err:	Filled on failure: INVALID_REQUEST (not there, no regular file, readable for others than its owner, too short or long)
 *
 * Return: 0, or -1 with @err set
 */
int deny_hook_read_secret(const struct settings *settings, struct deny_hook_secret *ret, struct sbx_err *err) SBX_WUR;

/**
 * deny_hook_new() - Read the settings
 * @loop:	The loop
 * @settings:	egress.deny_webhook, egress.deny_webhook_ca and egress.deny_webhook_attributes
 * @secret:	What events are signed with; copied
 * @ret:	The hook (deny_hook_free() it), or NULL when none is configured
 * @err:	Filled on failure: INVALID_REQUEST, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int deny_hook_new(struct loop *loop, const struct settings *settings, const struct deny_hook_secret *secret, struct deny_hook **ret,
		  struct sbx_err *err) SBX_WUR;
/**
 * deny_hook_sign() - The value of the header that signs a try
 * @secret:	Not empty
 * @now_s:	Of the wall clock
 * @body:	What is posted
 * @n:		Its bytes
 * @out:	Filled
 * @err:	Filled on failure
 *
 * Return: 0, or -1 with @err set
 */
int deny_hook_sign(const struct deny_hook_secret *secret, int64_t now_s, const char *body, size_t n, char out[FETCH_SIGNATURE_BYTES],
		   struct sbx_err *err) SBX_WUR;
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
