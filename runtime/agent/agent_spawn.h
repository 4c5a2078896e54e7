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
 * set cut, which is half of what starting `true` costs.  It keeps one child that waits for the next order, shares its memory until
 * the exec, and is the agent's child and not its own (CLONE_PARENT); when that one has executed, or is dead, it makes the next.
 *
 *	agent                 launcher              child                     shared memory
 *	                      clone --------------> waits                     board.waits
 *	order --------------------------------------> taken                   slot.taken: it, or not at all
 *	                                            execve ...
 *	                      is woken by that                                slot.done
 *	                      clone --------------> waits                     board.waits
 *
 * What became of an order stands in memory that all three share, so that nobody is woken to hear that all is well.  Who takes an
 * order and who takes it back, because the launcher is gone, settle it by one exchange of slot.taken: it is never done twice.
 *
 * Tenants can end or stop both as they can any of their processes, since they are in their namespace, but not trace, read or
 * limit them: they have the agent's id and are not dumpable.  The child has a tenant's id only for some microseconds before the
 * exec, and was never dumpable.  An order that it did not carry out is carried out by spawn_process().
 */
#define SPAWN_SLOTS 64u

struct spawn_slot { /* of one order; the agent clears it before it sends that */
	_Atomic uint64_t taken; /* SPAWN_TAKEN() of the order's serial and of who has it; pid 0: nobody yet */
	_Atomic uint32_t stage; /* enum agent_stage: why it was not executed */
	_Atomic int32_t sys;	/* valid when `stage` is set */
	_Atomic uint32_t done;	/* executed, failed or dead: this slot is not written any more */
	_Atomic uint32_t tell;	/* by the agent, with the order: send a byte when it is done */
};

#define SPAWN_TAKEN(serial, pid) ((uint64_t)(serial) << 32 | (uint32_t)(pid))

struct spawn_board {
	_Atomic int32_t waits; /* the child made last; by the agent: 0 once that is reaped */
	struct spawn_slot slots[SPAWN_SLOTS];
};

/** spawn_launcher() - Fork one; @sock: its end of a SOCK_SEQPACKET; @board: shared memory; Return: its pid or -errno */
pid_t spawn_launcher(const struct agent *a, int sock, struct spawn_board *board);

struct spawn_order { /* to the launcher's child, before struct agent_spec and its strings; with standard output and, maybe, error */
	uint32_t slot;
	uint32_t serial; /* not 0 */
	uint32_t merge;	 /* standard error is standard output */
	uint32_t zero;
	uint64_t tag;
};

/** spawn_enter() - In a forked child: join the tenants' cgroup and enter the inner user namespace, all powers in it */
int spawn_enter(const struct agent *a, enum agent_stage *ret_stage);

/** spawn_identity() - Behind spawn_enter(): ids, groups and capabilities of @who, not dumpable; Return: 0 or -errno */
int spawn_identity(const struct users_identity *who);

/** spawn_cgroup() - The descriptor for sysx_fork(): the tenants' cgroup with version 2, else -1 */
int spawn_cgroup(const struct agent *a);

#endif
