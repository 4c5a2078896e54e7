/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a sandbox manager and a broker for tests of the API
 *
 * Keeps sandboxes in memory and makes none.  The published rules (which state allows what) are those of the real one, so that
 * the API's answers can be compared; what is slow in truth can be held back and let go by the test.
 */
#ifndef TESTS_UNIT_FAKE_MANAGER_H
#define TESTS_UNIT_FAKE_MANAGER_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"
#include "runtime/sandbox.h"

#define FAKE_SANDBOXES_MAX 64u

extern struct fake_state {
	struct sbx_err fail_next; /* code set: the next call that can fail does */
	bool hold;		  /* done callbacks wait for fake_release() */
	bool hold_unpack;	  /* the broker's answer to LAYER_UNPACK waits for fake_unpacked() */
	unsigned created, broker_calls;
	struct sandbox_spec *last; /* spec of the newest sandbox */
	union broker_any last_request;
	uint64_t layer_bytes;
	int exec_fds[2];
	char denied[2048]; /* the newest line for the sandbox's own log */
	unsigned n_denied;
} fake;

/** fake_manager_new() - Empty, with @hooks; what struct sandbox_manager is, only the fake knows */
struct sandbox_manager *fake_manager_new(const struct sandbox_hooks *hooks);
/** fake_manager_reset() - Forget all sandboxes */
void fake_manager_reset(void);
/** fake_release() - Let the callbacks go that were held; Return: how many */
unsigned fake_release(void);
/** fake_unpacked() - Let the answer to the held LAYER_UNPACK go */
void fake_unpacked(void);
/** fake_set_state() - Put the newest sandbox into @state with @reason */
void fake_set_state(enum sandbox_state state, const char *reason);
/** fake_newest() - The newest sandbox, or NULL */
struct sandbox *fake_newest(void);

#endif
