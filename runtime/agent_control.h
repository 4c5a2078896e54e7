/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandboxd's control channel to one sandbox-agent
 *
 * Two FIFO ends.  Towards the agent: START once, QUERY, STOP, each frame by one write of at most PIPE_BUF bytes.  From the
 * agent: struct agent_status, fixed size, hostile until checked.  What has not been read survives a restart of sandboxd.
 */
#ifndef RUNTIME_AGENT_CONTROL_H
#define RUNTIME_AGENT_CONTROL_H

#include "base/err.h"
#include "base/loop.h"
#include "runtime/agent_msg.h"

struct agent_control;

/* One status, checked: its state is one of enum agent_state.  @status is NULL when the agent is gone or breaks the protocol. */
typedef void agent_control_handler(void *arg, const struct agent_status *status);

/* What the entrypoint is started with; all borrowed. */
struct agent_start {
	const char *cwd;   /* "" or absolute */
	const char *user;  /* of the image; "" for root */
	const char *const *args; /* NULL-terminated, not empty */
	const char *const *env;  /* NULL-terminated */
	uint32_t flags;	   /* enum agent_spec_flags: SHELL */
};

/**
 * agent_control_new() - Take over the two ends of a control channel
 * @loop:	The loop
 * @write_fd:	Closed by agent_control_free(), also when this fails
 * @read_fd:	Likewise
 * @handler:	Called for each status
 * @arg:	Handed to @handler
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the channel (agent_control_free() it), or NULL with @err set
 */
struct agent_control *agent_control_new(struct loop *loop, int write_fd, int read_fd, agent_control_handler *handler, void *arg,
					struct sbx_err *err) SBX_WUR;
/** agent_control_free() - Close @c; NULL is fine; safe inside its handler */
void agent_control_free(struct agent_control *c);

/**
 * agent_control_check() - Whether @start fits the bounds of a start
 * @start:	What would be started
 * @err:	Filled on failure: INVALID_REQUEST (too many or too long arguments or environment)
 *
 * Return: 0, or -1 with @err set
 */
int agent_control_check(const struct agent_start *start, struct sbx_err *err) SBX_WUR;
/** agent_control_start() - Send START with @start on @c; Return: 0, or -1 with @err set (INVALID_REQUEST, NO_MEMORY) */
int agent_control_start(struct agent_control *c, const struct agent_start *start, struct sbx_err *err) SBX_WUR;
/** agent_control_query() - Ask on @c for the current status; Return: 0 or -1 with @err set (NO_MEMORY) */
int agent_control_query(struct agent_control *c, struct sbx_err *err) SBX_WUR;

/**
 * agent_control_denied() - Append a line to the sandbox's own log of what was denied
 * @c:		The channel
 * @line:	With its newline; at most AGENT_IN_FRAME less its head
 * @n:		Its length
 *
 * Return: 0, -EMSGSIZE, -ENOMEM, or -EAGAIN when the sandbox is behind (frozen, say): the line is lost
 */
int agent_control_denied(struct agent_control *c, const char *line, size_t n);

#endif
