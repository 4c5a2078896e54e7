/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the log of what was denied to the sandbox
 *
 * The file lies on a tmpfs of its own that tenants see read-only at AGENT_DENIED_LOG.  It is opened before there is a tenant
 * and never by a path again.  At AGENT_DENIED_BYTES the older half of its lines goes.
 */
#ifndef RUNTIME_AGENT_AGENT_DENIED_H
#define RUNTIME_AGENT_AGENT_DENIED_H

#include "runtime/agent/agent.h"

#include <stddef.h>
#include <stdint.h>

/** denied_append() - Append the @n bytes of @line, which end with a newline, to @log; what cannot be written is lost */
void denied_append(struct agent_denied *log, const uint8_t *line, size_t n);

#endif
