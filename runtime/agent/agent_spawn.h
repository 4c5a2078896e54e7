/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: from the agent to a tenant's process
 *
 * spawn_process() forks; the child joins the tenants' cgroup, enters the inner user namespace, takes the tenant's identity,
 * cuts the capabilities to the table in agent_spawn.c, loads the payload filter and executes.  Until the exec it is not
 * dumpable: tenants of the same uid can neither trace it nor read its memory or descriptors.
 */
#ifndef RUNTIME_AGENT_AGENT_SPAWN_H
#define RUNTIME_AGENT_AGENT_SPAWN_H

#include "runtime/agent/agent.h"
#include "runtime/agent/agent_spec.h"

struct spawn_report { /* from the child, over a CLOEXEC descriptor: nothing but EOF is success */
	uint32_t stage;
	int32_t sys;
	struct users_identity who; /* entrypoint, stage NONE: its identity */
};

struct spawn_req {
	const struct agent *agent;
	const struct spec_view *view;
	int entrypoint;
	int stdin_fd, stdout_fd, stderr_fd; /* the child's ends; -1: /dev/null; unused with a terminal */
	int told_fd, tells_fd; /* a driver's ends of what it is told and what it tells */
	int report_fd; /* the child's end; with a terminal a socket that carries its master end to us */
	uint64_t tag;
};

/** spawn_process() - Start one process; Return: its pid, or a negative errno (nothing was started) */
pid_t spawn_process(const struct spawn_req *req);

/*
 * A spare is a child that waits with everything done which does not depend on the command: fork, cgroup, namespaces and
 * the filter are half of what starting `true` costs.  One waits for the entrypoint in a shell that has its root, and then one
 * in a sandbox that has been used in the last seconds.
 */
#define SPAWN_SPARE_BYTES 32768u

/** spawn_spare() - Fork one; @req: stdout, stderr and report; @order_fd: where it reads its order; Return: its pid or -errno */
pid_t spawn_spare(const struct spawn_req *req, int order_fd);

/**
 * spawn_order() - Tell a spare what to run
 * @entrypoint:	@spec is that of START
 * @merge:	Standard error goes where standard output goes
 * @spec:	struct agent_spec and its strings, at most SPAWN_SPARE_BYTES
 *
 * Return: 0, or a negative errno: it has died, or the order does not fit
 */
int spawn_order(int order_fd, uint64_t tag, int entrypoint, int merge, const uint8_t *spec, uint32_t n);

/** spawn_enter() - In a forked child: join the tenants' cgroup and enter the inner user namespace, all powers in it */
int spawn_enter(const struct agent *a, enum agent_stage *ret_stage);

/** spawn_identity() - Behind spawn_enter(): ids, groups and capabilities of @who, not dumpable; Return: 0 or -errno */
int spawn_identity(const struct users_identity *who);

/** spawn_cgroup() - The descriptor for sysx_fork(): the tenants' cgroup with version 2, else -1 */
int spawn_cgroup(const struct agent *a);

#endif
