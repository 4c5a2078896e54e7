/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: launch, the child's half
 *
 * Runs in the process that clone3() made, as a copy of the broker, until it executes the agent.  It waits for the maps,
 * joins its groups, and sets every attribute that a process inherits from one table, so that a sandbox does not depend on
 * how the broker was started.
 */
#ifndef RUNTIME_LAUNCH_CHILD_H
#define RUNTIME_LAUNCH_CHILD_H

#include "base/err.h"

#include <stddef.h>

struct launch_child {
	int socket; /* the child's end, blocking */
	int agent_fd; /* sealed memory file */
	int null_fd;
	const int *join_fd; /* write "0" to each */
	int n_join;
};

/** launch_child_run() - Become sandbox-agent; reports LAUNCH_FAILED and exits when a step fails */
_Noreturn void launch_child_run(const struct launch_child *c);

/** launch_child_close_others() - Close all descriptors of this process but the @n in @keep, which is sorted (a negative one is none); Return: 0 or -errno */
int launch_child_close_others(int *keep, size_t n) SBX_WUR;

/** launch_child_normalise() - Give this process (the broker) the limits that its children start from */
void launch_child_normalise(void);

#endif
