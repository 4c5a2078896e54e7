/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the shell stage: from a clone of the broker to an agent without any power
 */
#ifndef RUNTIME_AGENT_AGENT_SHELL_H
#define RUNTIME_AGENT_AGENT_SHELL_H

#include "runtime/agent/agent.h"

/**
 * shell_run() - Play the shell's side of runtime/broker/launch_sync.h on LAUNCH_SOCKET_FD
 * @a:	Filled with what the service needs
 *
 * Return: 0 when the sandbox is armed and this process holds nothing it could lose; else the broker was told why
 */
int shell_run(struct agent *a);

#endif
