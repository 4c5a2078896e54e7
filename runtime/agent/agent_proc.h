/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: finding and killing the processes of one command
 *
 * Which processes belong to a command has to survive setsid() and double forks.  Two marks are used together: descent
 * by parent pid, and a tag that the kernel hands on through fork and exec: the hard limit RLIMIT_RTTIME, which has no
 * effect on tasks that cannot be real-time (tenants cannot), is set to a number of the command before the first exec, and
 * can be lowered but never raised to another command's.  A process that lowers it and leaves the tree escapes its own
 * timeout, not the sandbox.
 *
 * To kill a tree that forks, every member is stopped first and the list is read again until it holds no new one.
 */
#ifndef RUNTIME_AGENT_AGENT_PROC_H
#define RUNTIME_AGENT_AGENT_PROC_H

#include "runtime/agent/agent.h"

/** proc_tag() - The value of RLIMIT_RTTIME that marks command @serial */
uint64_t proc_tag(uint32_t serial);

/** proc_kill_tree() - Kill @root, its descendants and all that carry @tag; never the caller */
void proc_kill_tree(const struct agent *a, pid_t root, uint64_t tag);

struct proc_look {
	char state; /* as in /proc/PID/stat: R runs or could, S and D wait, T is stopped, Z is dead */
	int executed; /* since it was forked */
};

/** proc_look() - What process @pid does at this moment; Return: 0 or a negative errno: it is gone */
int proc_look(const struct agent *a, pid_t pid, struct proc_look *ret);

struct proc_tail {
	int at_work; /* somebody runs, or waits for a disk */
	int fed;     /* somebody has a pipe as standard input, as who passes output on has */
};

/**
 * proc_tail() - What a command has left behind
 * @pipe_fd:	Any pipe of ours
 *
 * Looks at those who carry @tag among our children, which orphans are, and their descendants, PROC_TAIL_MAX at most: whoever
 * else there is in the sandbox costs a look at a limit, or nothing.  Of a kernel that does not tell children, nothing is known.
 */
void proc_tail(const struct agent *a, uint64_t tag, int pipe_fd, struct proc_tail *ret);

#define PROC_TAIL_MAX 64

/** proc_group_member() - A living process of group @pgid; Return: its pid, or 0 when the group is gone */
pid_t proc_group_member(const struct agent *a, pid_t pgid);

#endif
