/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the shell stage: from a clone of the broker to an agent without any power
 */
#ifndef RUNTIME_AGENT_AGENT_SHELL_H
#define RUNTIME_AGENT_AGENT_SHELL_H

#include "runtime/agent/agent.h"

/**
 * shell_root() - The shell's side of runtime/broker/launch_sync.h on LAUNCH_SOCKET_FD, up to the root
 * @a:	Filled with what the service needs
 *
 * Return: 0 when the root is in place and this process holds nothing it could lose; else the broker was told why
 */
int shell_root(struct agent *a);
/** shell_arm() - Behind shell_root(): say so, wait for the sandbox that it is for; Return: 0; else the broker was told why */
int shell_arm(void);

#endif
