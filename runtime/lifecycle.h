/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: which event is allowed in which state
 *
 * One table, next_state[state][event].  SANDBOX_NONE in it means that the event is refused there and changes nothing.  The
 * reasons and messages that go with a state are those that published clients know.
 */
#ifndef RUNTIME_LIFECYCLE_H
#define RUNTIME_LIFECYCLE_H

#include "runtime/sandbox.h"

enum lifecycle_event {
	LIFECYCLE_NONE = 0,
	LIFECYCLE_STARTED,	/* the agent executed the entrypoint */
	LIFECYCLE_NOT_MADE,	/* provisioning failed */
	LIFECYCLE_PAUSE,	/* asked for */
	LIFECYCLE_FROZEN,	/* the kernel says so */
	LIFECYCLE_NOT_FROZEN,	/* it refused */
	LIFECYCLE_RESUME,	/* asked for */
	LIFECYCLE_THAWED,	/* the kernel says so */
	LIFECYCLE_NOT_THAWED,	/* it refused */
	LIFECYCLE_FINISHED,	/* the entrypoint ended with 0 */
	LIFECYCLE_DIED,		/* it ended otherwise, or pid 1 is gone, or the host was restarted */
	LIFECYCLE_DELETE,	/* asked for, or expired */
	LIFECYCLE_EVENT_COUNT
};

/** lifecycle_next() - The state that @event leads to from @state, or SANDBOX_NONE when it is refused there */
enum sandbox_state lifecycle_next(enum sandbox_state state, enum lifecycle_event event);
/** lifecycle_event_name() - "started", "pause" ... of @event, for logs and tests */
const char *lifecycle_event_name(enum lifecycle_event event);
/** lifecycle_state_from_name() - The state that sandbox_state_name() calls @name, or SANDBOX_NONE */
enum sandbox_state lifecycle_state_from_name(const char *name);
/** lifecycle_has_processes() - Whether a sandbox in @state may have processes on the host */
bool lifecycle_has_processes(enum sandbox_state state);

#endif
