/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the service stage, after the shell stage has dropped everything
 */
#ifndef RUNTIME_AGENT_AGENT_SERVICE_H
#define RUNTIME_AGENT_AGENT_SERVICE_H

#include "runtime/agent/agent.h"

/** service_run() - Serve both channels until killed; Return: only when the loop cannot be set up: a negative errno */
int service_run(struct agent *a);

#endif
