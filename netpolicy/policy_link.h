/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandboxd's end of policy.sock, towards sandbox-dnsd
 *
 * Accepts one peer of the right uid; a newer connection of the same uid takes the place of the older one, which must then
 * belong to a dnsd that is gone.  Requests are asynchronous and end with one callback each; when the connection breaks, all
 * that were sent end with PEER_GONE, and after the next HELLO the owner sends everything again.  Nothing waits for a
 * connection here: who wants to wait looks at policy_link_up() and the hook.
 */
#ifndef NETPOLICY_POLICY_LINK_H
#define NETPOLICY_POLICY_LINK_H

#include "base/err.h"
#include "base/loop.h"
#include "netpolicy/egress_msg.h"
#include "netpolicy/policy.h"

#include <stdbool.h>
#include <sys/types.h>

struct policy_link;

struct policy_link_hooks {
	void *arg;
	/* dnsd said HELLO: policy_link_set() every live sandbox, then policy_link_synced(). */
	void (*hello)(void *arg);
	void (*lost)(void *arg);
	/* Strings are terminated and printable, numbers within their enums. */
	void (*event)(void *arg, const struct egress_event *event);
};

/* @reply is NULL when @err->code is set; else a message of the kind that answers the request. */
typedef void policy_link_done(void *arg, const union egress_any *reply, const struct sbx_err *err);

struct policy_link_target {
	struct egress_ref ref;
	uint8_t sandbox_id[16];
	uint32_t addr;			/* IPv4, host byte order */
	uint64_t policy_generation;
};

/**
 * policy_link_new() - Begin to accept
 * @loop:	sandboxd's loop
 * @listen_fd:	Listening SOCK_SEQPACKET, non-blocking; stays the caller's
 * @peer_uid:	Of dnsd; our own uid is taken too, for tests and a developer's start
 * @hooks:	Copied
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the link (policy_link_free() it), or NULL with @err set
 */
struct policy_link *policy_link_new(struct loop *loop, int listen_fd, uid_t peer_uid, const struct policy_link_hooks *hooks,
				    struct sbx_err *err) SBX_WUR;
/** policy_link_free() - Close @l; requests under way are dropped without their callback; NULL is fine */
void policy_link_free(struct policy_link *l);
/** policy_link_up() - Whether a dnsd is connected and said HELLO */
bool policy_link_up(const struct policy_link *l);

/**
 * policy_link_set() - Send the policy of one sandbox
 * @l:		The link, which is up
 * @target:	Whose
 * @policy:	Effective and sealed; copied
 * @done:	Called once later, never from here; NULL: nobody wants to know
 * @arg:	Handed to @done
 * @err:	Filled on failure: PEER_GONE, LIMIT, NO_MEMORY, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int policy_link_set(struct policy_link *l, const struct policy_link_target *target, const struct policy *policy, policy_link_done *done,
		    void *arg, struct sbx_err *err) SBX_WUR;
/** policy_link_drop() - The sandbox at @ref is gone; nothing to do when @l is not up */
void policy_link_drop(struct policy_link *l, struct egress_ref ref);
/** policy_link_synced() - All live sandboxes were named on @l since its hello */
void policy_link_synced(struct policy_link *l);
/** policy_link_pins() - Which addresses @name has open for @ref, or with @name "" which names @addr (0: @addr6); Return: as policy_link_set() */
int policy_link_pins(struct policy_link *l, struct egress_ref ref, const char *name, uint32_t addr, struct ip6 addr6, policy_link_done *done, void *arg,
		     struct sbx_err *err) SBX_WUR;
/** policy_link_counts() - Ask for dnsd's counters; Return: as policy_link_set() */
int policy_link_counts(struct policy_link *l, policy_link_done *done, void *arg, struct sbx_err *err) SBX_WUR;

#endif
