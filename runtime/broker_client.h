/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandboxd's side of the broker channel
 *
 * Calls are asynchronous: each carries a tag, its callback comes once (SANDBOX_LIST: once a slot), in any order.  When the
 * broker goes away, every call that was sent ends with PEER_GONE, since nobody can say how far it came; the client connects
 * again by itself and then tells its owner (hooks.ready), who asks what is there.  A call made while there is no
 * connection waits for the next one, at most BROKER_CLIENT_WAIT_MS.
 */
#ifndef RUNTIME_BROKER_CLIENT_H
#define RUNTIME_BROKER_CLIENT_H

#include "base/err.h"
#include "base/loop.h"
#include "runtime/broker/broker_msg.h"

#include <stdbool.h>

#define BROKER_CLIENT_WAIT_MS 20000u

struct broker_client;

struct broker_client_hooks {
	void *arg;
	/* The broker answered HELLO, at first or again after a restart. */
	void (*ready)(void *arg, const struct broker_hello_reply *hello);
	/* The connection broke; all sent calls were ended before. */
	void (*lost)(void *arg);
	void (*event)(void *arg, const struct broker_event_msg *event);
};

/*
 * How a call ended.  @reply is NULL when @err->code is set; otherwise its status is 0.  @fds are the callee's to close.
 */
typedef void broker_client_done(void *arg, const union broker_any *reply, const int *fds, size_t n_fds,
				const struct sbx_err *err);

/**
 * broker_client_new() - Begin to connect to the broker
 * @loop:	The loop
 * @path:	Of broker.sock; copied
 * @err:	Filled on failure: INVALID_REQUEST (path too long), NO_MEMORY
 *
 * Return: the client (broker_client_free() it), or NULL with @err set
 */
struct broker_client *broker_client_new(struct loop *loop, const char *path, struct sbx_err *err) SBX_WUR;
/** broker_client_free() - Close @c; calls under way are dropped without their callback; NULL is fine */
void broker_client_free(struct broker_client *c);
/** broker_client_set_hooks() - Who is told about @c; copied.  ready comes at once, from here, when it already is */
void broker_client_set_hooks(struct broker_client *c, const struct broker_client_hooks *hooks);
/** broker_client_hello() - What the broker said last, or NULL while @c is not connected */
const struct broker_hello_reply *broker_client_hello(const struct broker_client *c);

/**
 * broker_client_call() - Send one request
 * @c:		The client
 * @msg:	A request struct whose head needs only op and size; copied
 * @fd:		Descriptor to send along (LAYER_UNPACK), or -1; duplicated, stays the caller's
 * @done:	Called once later (SANDBOX_LIST: for each slot, last with slot BROKER_NO_SLOT), never from here
 * @arg:	Handed to @done
 *
 * Return: 0, or -1 with @err set: NO_MEMORY, LIMIT (too many calls wait), SYSTEM
 */
int broker_client_call(struct broker_client *c, const void *msg, int fd, broker_client_done *done, void *arg,
		       struct sbx_err *err) SBX_WUR;

/**
 * broker_client_slot() - broker_client_call() for the ops that name a slot
 * @c:		The client
 * @op:		CHANNEL_OPEN, SANDBOX_KILL, FREEZE, THAW, STAT or SOCKET_OPEN
 * @ref:	The slot's life
 * @arg_value:	Channel or address family, else 0
 * @done:	As above
 * @arg:	Handed to @done
 *
 * Return: as broker_client_call()
 */
int broker_client_slot(struct broker_client *c, enum broker_op op, struct broker_slot_ref ref, uint32_t arg_value,
		       broker_client_done *done, void *arg, struct sbx_err *err) SBX_WUR;

#endif
