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
 * A spare is a child that waits with everything done which does not depend on what is to be run: one waits for the entrypoint in
 * a shell that has its root.
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

/*
 * The launcher waits in a sandbox that is in use: in the tenants' cgroup and namespaces, with the filter loaded and the bounding
 * set cut, which is half of what starting `true` costs.  For each order it makes a child that shares its memory until the exec, as
 * vfork(2) does, and that is the agent's child and not its own (CLONE_PARENT).  What became of an order stands in memory that it
 * shares with the agent, so that nobody is woken to hear that all is well.
 *
 * Tenants can end or stop it as they can any of their processes, since it is in their namespace, but not trace, read or
 * limit it: it has the agent's id and is not dumpable.  Nor the child: that has its id only for some microseconds before the exec
 * and was never dumpable.  An order that it did not carry out is carried out by spawn_process().
 */
#define SPAWN_SLOTS 64u

struct spawn_slot { /* of one order; the agent clears it before it sends that */
	_Atomic int32_t pid;	/* written by the kernel before the child runs; 0: there is none yet */
	_Atomic uint32_t stage; /* enum agent_stage: why it was not executed */
	_Atomic int32_t sys;	/* valid when `stage` is set */
	_Atomic uint32_t done;	/* executed, failed or dead: this slot is not written any more */
	_Atomic uint32_t tell;	/* by the agent, with the order: send a byte when it is done */
};

/** spawn_launcher() - Fork one; @sock: its end of a SOCK_SEQPACKET; @slots: shared memory; Return: its pid or -errno */
pid_t spawn_launcher(const struct agent *a, int sock, struct spawn_slot *slots);

struct spawn_order { /* to the launcher, before struct agent_spec and its strings; with standard output and, maybe, error */
	uint32_t slot;
	uint32_t merge; /* standard error is standard output */
	uint64_t tag;
};

/** spawn_enter() - In a forked child: join the tenants' cgroup and enter the inner user namespace, all powers in it */
int spawn_enter(const struct agent *a, enum agent_stage *ret_stage);

/** spawn_identity() - Behind spawn_enter(): ids, groups and capabilities of @who, not dumpable; Return: 0 or -errno */
int spawn_identity(const struct users_identity *who);

/** spawn_cgroup() - The descriptor for sysx_fork(): the tenants' cgroup with version 2, else -1 */
int spawn_cgroup(const struct agent *a);

#endif
