// SPDX-License-Identifier: Apache-2.0
#include "runtime/lifecycle.h"

#include "base/cleanup.h"

#include <string.h>

static const char *const state_names[] = {
	[SANDBOX_NONE] = "None",	 [SANDBOX_PENDING] = "Pending",	  [SANDBOX_RUNNING] = "Running",
	[SANDBOX_PAUSING] = "Pausing",	 [SANDBOX_PAUSED] = "Paused",	  [SANDBOX_RESUMING] = "Resuming",
	[SANDBOX_STOPPING] = "Stopping", [SANDBOX_TERMINATED] = "Terminated", [SANDBOX_FAILED] = "Failed",
};
_Static_assert(ARRAY_SIZE(state_names) == SANDBOX_STATE_COUNT, "a name for each state");

static const char *const event_names[] = {
	[LIFECYCLE_NONE] = "none",	 [LIFECYCLE_STARTED] = "started",   [LIFECYCLE_NOT_MADE] = "not made",
	[LIFECYCLE_PAUSE] = "pause",	 [LIFECYCLE_FROZEN] = "frozen",	    [LIFECYCLE_NOT_FROZEN] = "not frozen",
	[LIFECYCLE_RESUME] = "resume",	 [LIFECYCLE_THAWED] = "thawed",	    [LIFECYCLE_NOT_THAWED] = "not thawed",
	[LIFECYCLE_FINISHED] = "finished", [LIFECYCLE_DIED] = "died",	    [LIFECYCLE_DELETE] = "delete",
};
_Static_assert(ARRAY_SIZE(event_names) == LIFECYCLE_EVENT_COUNT, "a name for each event");

/*
 * What is not written here is refused.  The entrypoint may end while a freeze is under way: the end wins.  Delete is
 * allowed everywhere; a second one in Stopping waits for the first.
 */
static const uint8_t next_state[SANDBOX_STATE_COUNT][LIFECYCLE_EVENT_COUNT] = {
	[SANDBOX_PENDING] = {
		[LIFECYCLE_STARTED] = SANDBOX_RUNNING,
		[LIFECYCLE_NOT_MADE] = SANDBOX_FAILED,
		[LIFECYCLE_DIED] = SANDBOX_FAILED,
		[LIFECYCLE_DELETE] = SANDBOX_STOPPING,
	},
	[SANDBOX_RUNNING] = {
		[LIFECYCLE_PAUSE] = SANDBOX_PAUSING,
		[LIFECYCLE_FINISHED] = SANDBOX_TERMINATED,
		[LIFECYCLE_DIED] = SANDBOX_FAILED,
		[LIFECYCLE_DELETE] = SANDBOX_STOPPING,
	},
	[SANDBOX_PAUSING] = {
		[LIFECYCLE_FROZEN] = SANDBOX_PAUSED,
		[LIFECYCLE_NOT_FROZEN] = SANDBOX_RUNNING,
		[LIFECYCLE_FINISHED] = SANDBOX_TERMINATED,
		[LIFECYCLE_DIED] = SANDBOX_FAILED,
		[LIFECYCLE_DELETE] = SANDBOX_STOPPING,
	},
	[SANDBOX_PAUSED] = {
		[LIFECYCLE_RESUME] = SANDBOX_RESUMING,
		[LIFECYCLE_FINISHED] = SANDBOX_TERMINATED, /* its status was still unread when the freeze came */
		[LIFECYCLE_DIED] = SANDBOX_FAILED,
		[LIFECYCLE_DELETE] = SANDBOX_STOPPING,
	},
	[SANDBOX_RESUMING] = {
		[LIFECYCLE_THAWED] = SANDBOX_RUNNING,
		[LIFECYCLE_NOT_THAWED] = SANDBOX_PAUSED,
		[LIFECYCLE_FINISHED] = SANDBOX_TERMINATED,
		[LIFECYCLE_DIED] = SANDBOX_FAILED,
		[LIFECYCLE_DELETE] = SANDBOX_STOPPING,
	},
	[SANDBOX_STOPPING] = {[LIFECYCLE_DELETE] = SANDBOX_STOPPING},
	[SANDBOX_TERMINATED] = {[LIFECYCLE_DELETE] = SANDBOX_STOPPING},
	[SANDBOX_FAILED] = {[LIFECYCLE_DELETE] = SANDBOX_STOPPING},
};

enum sandbox_state lifecycle_next(enum sandbox_state state, enum lifecycle_event event)
{
	if ((unsigned)state >= SANDBOX_STATE_COUNT || (unsigned)event >= LIFECYCLE_EVENT_COUNT)
		return SANDBOX_NONE;
	return (enum sandbox_state)next_state[state][event];
}

const char *lifecycle_event_name(enum lifecycle_event event)
{
	return (unsigned)event < LIFECYCLE_EVENT_COUNT ? event_names[event] : "unknown";
}

const char *sandbox_state_name(enum sandbox_state state)
{
	return (unsigned)state < SANDBOX_STATE_COUNT ? state_names[state] : "Unknown";
}

enum sandbox_state lifecycle_state_from_name(const char *name)
{
	for (unsigned i = 1; i < SANDBOX_STATE_COUNT; i++)
		if (!strcmp(state_names[i], name))
			return (enum sandbox_state)i;
	return SANDBOX_NONE;
}

bool lifecycle_has_processes(enum sandbox_state state)
{
	return state != SANDBOX_NONE && state != SANDBOX_TERMINATED && state != SANDBOX_FAILED;
}
