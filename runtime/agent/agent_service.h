/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the service stage, after the shell stage has dropped everything
 */
#ifndef RUNTIME_AGENT_AGENT_SERVICE_H
#define RUNTIME_AGENT_AGENT_SERVICE_H

#include "runtime/agent/agent.h"

struct service;

/** service_new() - Set the loop up and have the entrypoint's child wait in advance; Return: for service_run(), or NULL */
struct service *service_new(struct agent *a);
/** service_run() - Serve both channels until killed; Return: never 0 */
int service_run(struct service *s);

#endif
