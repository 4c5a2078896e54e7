/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: control groups of the sandboxes
 *
 * One interface, two backends, chosen once by cgroup_detect.c: version 2, and version 1 with a v2 tree beside it ("hybrid"),
 * where memory, pids, cpu and devices are v1 hierarchies and freezing, killing and cpu.stat come from the v2 tree.
 *
 * A sandbox has one group "s<slot>.<generation>" with two leaves: `agent` (own small limits, so that a fork or memory bomb of
 * the tenants leaves pid 1 alive; on version 1 the memory of all agents is counted together) and `tenant` (the limits of the request).  Names are never used twice.  Freezing, killing
 * and the populated state concern both leaves together.
 *
 * How a process gets in, without the RCU grace period (7 ms) that a write of a foreign pid costs:
 *   the broker's clone3  CLONE_INTO_CGROUP with into_fd (v2: the agent leaf; hybrid: the group of the v2 tree)
 *   its child, at once   writes "0" to each of join_fd[0..n_join) while single-threaded (v2: n_join is 0)
 *   each tenant process  v2: the agent clones it with CLONE_INTO_CGROUP and tenant_fd[0]; hybrid: it writes "0" to each of
 *                        tenant_fd[0..n_tenant) itself; the descriptors were opened by root, whose credentials count
 * The cgroup namespace: on v2 (nsdelegate) a process may only move below the root of its cgroup namespace, so pid 1 must not
 * unshare it in the agent leaf.  The agent keeps the namespace that it was born with and each tenant process does
 * unshare(CLONE_NEWCGROUP) after it entered the tenant leaf (while it still has its capabilities): its root is then that leaf.
 *
 * Runs in: the broker (root).  Calls are synchronous; none allocates but cgroup_open().
 */
#ifndef RUNTIME_CGROUP_H
#define RUNTIME_CGROUP_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CGROUP_JOIN_MAX	  4
#define CGROUP_TENANT_MAX 3
#define CGROUP_NAME_SIZE  32

/* What the host can enforce. */
enum cgroup_feature {
	CGROUP_MEMORY = 1u << 0,
	CGROUP_SWAP = 1u << 1, /* a memory limit covers swap too */
	CGROUP_PIDS = 1u << 2,
	CGROUP_CPU = 1u << 3,
	CGROUP_FREEZE = 1u << 4,
	CGROUP_KILL = 1u << 5,
	CGROUP_DEVICES = 1u << 6, /* v1 only; on v2 nothing can make a device node anyway */
};

struct cgroup_slot {
	char name[CGROUP_NAME_SIZE];
	int into_fd;		   /* owned; CLONE_INTO_CGROUP of pid 1 */
	int join_fd[CGROUP_JOIN_MAX]; /* owned; the child writes "0" to each */
	int n_join;
	int tenant_fd[CGROUP_TENANT_MAX]; /* owned; handed to the agent (enum launch_setup_fd, LAUNCH_FD_TENANT_CGROUP on) */
	int n_tenant;
	int events_fd; /* owned; EPOLLPRI when `populated` or `frozen` changed: then cgroup_populated() */
	int oom_fd;    /* owned; -1 without memory control; watch for cgroup_oom_epoll(), then cgroup_oom_kills() */
};

struct cgroup_limits {
	uint64_t memory_bytes;	 /* 0: none */
	uint32_t pids_max;	 /* 0: none */
	uint32_t cpu_millicores; /* 0: none */
};

struct cgroup_figures {
	uint64_t memory_bytes;	     /* in use, inactive page cache not counted */
	uint64_t memory_limit_bytes; /* UINT64_MAX: none */
	uint64_t memory_peak_bytes;
	uint64_t oom_kills;
	uint64_t cpu_usec; /* agent included */
	uint32_t cpu_millicores; /* limit; 0: none */
	uint32_t pids;		 /* of the tenants */
	uint32_t pids_max;	 /* 0: none */
};

struct cgroup;

/**
 * cgroup_open() - Choose the backend and make or adopt the instance's root group
 * @instance:	Name of the instance, [a-z0-9-], at most 32
 * @err:	Filled on failure: HOST_LACKS (no usable hierarchy), SYSTEM
 *
 * On v2 the root is below the group that this process was started in when that is delegated, else
 * /sys/fs/cgroup/sandboxd-<instance>; processes that sit where children need controllers are moved to a leaf `own`.
 *
 * Return: the instance (cgroup_free() it), or NULL with @err set
 */
struct cgroup *cgroup_open(const char *instance, struct sbx_err *err) SBX_WUR;
/** cgroup_free() - Close what @cg holds open; groups stay; NULL is fine */
void cgroup_free(struct cgroup *cg);
/** cgroup_version() - 2, or 1 for the hybrid backend; @cg: open */
uint32_t cgroup_version(const struct cgroup *cg);
/** cgroup_features() - Mask of enum cgroup_feature of @cg */
uint32_t cgroup_features(const struct cgroup *cg);
/** cgroup_root_path() - Where the groups of @cg are (v2 tree), for messages */
const char *cgroup_root_path(const struct cgroup *cg);

/**
 * cgroup_limit_all() - Bound what all sandboxes of the instance take together, whatever each of them was promised
 * @cg:		The instance
 * @pids:	Processes, agents included; UINT64_MAX: none
 * @memory_bytes: Memory; UINT64_MAX: none
 * @err:	Filled on failure: SYSTEM
 *
 * What the host cannot count is passed over.
 *
 * Return: 0, or -1 with @err set
 */
int cgroup_limit_all(struct cgroup *cg, uint64_t pids, uint64_t memory_bytes, struct sbx_err *err) SBX_WUR;
/** cgroup_slot_init() - Make @cs empty: all descriptors -1 */
void cgroup_slot_init(struct cgroup_slot *cs);
/** cgroup_slot_close() - Close every descriptor of @cs and make it empty; the groups stay */
void cgroup_slot_close(struct cgroup_slot *cs);
/** cgroup_slot_take() - @cs becomes that of @slot and @generation, whose watches @events_fd and @oom_fd (-1: none) were opened by another process */
void cgroup_slot_take(struct cgroup_slot *cs, uint32_t slot, uint32_t generation, int events_fd, int oom_fd);
#define CGROUP_ROOTS_MAX 5
/** cgroup_roots() - Descriptors of @cg that making a group needs, into @ret_fd of CGROUP_ROOTS_MAX; Return: how many */
size_t cgroup_roots(const struct cgroup *cg, int *ret_fd);
/** cgroup_slot_close_entry() - Close into, join and tenant descriptors of @cs once pid 1 has them; the watches stay */
void cgroup_slot_close_entry(struct cgroup_slot *cs);

/**
 * cgroup_make() - Make the groups of one life of a slot
 * @cg:		The instance
 * @slot:	Slot number
 * @generation:	Never used before; part of the name
 * @agent_uid:	Host uid of the slot's agent, which may then place children into the tenant leaf (v2)
 * @cs:		Was cgroup_slot_init()ed; filled on success, empty on failure
 * @err:	Filled on failure: SYSTEM, CONFLICT-like LIMIT when the name exists
 *
 * Return: 0, or -1 with @err set and nothing left behind
 */
int cgroup_make(struct cgroup *cg, uint32_t slot, uint32_t generation, uid_t agent_uid, struct cgroup_slot *cs,
		struct sbx_err *err) SBX_WUR;
/**
 * cgroup_adopt() - Open the watches of groups that an earlier broker made
 * @cg:		The instance
 * @slot:	Slot number
 * @generation:	Of its record
 * @cs:		Was cgroup_slot_init()ed; gets events_fd and oom_fd, no entry descriptors
 * @err:	Filled on failure: SYSTEM (ENOENT: there is no such group)
 *
 * Return: 0, or -1 with @err set
 */
int cgroup_adopt(struct cgroup *cg, uint32_t slot, uint32_t generation, struct cgroup_slot *cs, struct sbx_err *err) SBX_WUR;
/** cgroup_discard() - End and remove what is there of the groups of @slot.@generation, some of which may never have been made */
int cgroup_discard(struct cgroup *cg, uint32_t slot, uint32_t generation, struct sbx_err *err) SBX_WUR;
/**
 * cgroup_limit() - Set the limits of the tenants
 * @cg:		The instance
 * @cs:		The groups
 * @limits:	What the request asks for; a memory limit includes "no swap"
 * @allow_lack:	Mask of enum cgroup_feature that the configuration allows to be missing on this host
 * @err:	Filled on failure: HOST_LACKS naming what cannot be enforced, INVALID_REQUEST (the kernel refuses the value)
 *
 * Return: mask of enum cgroup_feature asked for, missing and allowed to be (0: all enforced), or -1 with @err set
 */
int cgroup_limit(struct cgroup *cg, const struct cgroup_slot *cs, const struct cgroup_limits *limits, uint32_t allow_lack,
		 struct sbx_err *err) SBX_WUR;
/**
 * cgroup_freeze_begin() - Ask the kernel to stop or go on with every process
 * @cg:		The instance
 * @cs:		The groups
 * @freeze:	Which
 * @ret_events_fd: The caller's; EPOLLPRI when something changed: then cgroup_freeze_done()
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 1 when it is so already, 0 when it is not yet, or -1 with @err set
 */
int cgroup_freeze_begin(struct cgroup *cg, const struct cgroup_slot *cs, bool freeze, int *ret_events_fd, struct sbx_err *err) SBX_WUR;
/** cgroup_freeze_done() - Whether the group of @events_fd is as @freeze asked; Return: 1, 0 or -errno */
int cgroup_freeze_done(int events_fd, bool freeze) SBX_WUR;
/** cgroup_freeze() - Stop every process of @cs of @cg and wait until the kernel says so, at most 2 s; Return: 0 or -1, @err set */
int cgroup_freeze(struct cgroup *cg, const struct cgroup_slot *cs, struct sbx_err *err) SBX_WUR;
/** cgroup_thaw() - Let the processes of @cs of @cg run again and wait for it, at most 2 s; Return: 0 or -1, @err set */
int cgroup_thaw(struct cgroup *cg, const struct cgroup_slot *cs, struct sbx_err *err) SBX_WUR;
/** cgroup_frozen() - Whether @cs of @cg is frozen; Return: 1, 0, or -1 with @err set */
int cgroup_frozen(struct cgroup *cg, const struct cgroup_slot *cs, struct sbx_err *err) SBX_WUR;
/** cgroup_kill() - SIGKILL to every process of @cs of @cg, frozen or not; does not wait; gone is fine; Return: 0 or -1, @err set */
int cgroup_kill(struct cgroup *cg, const struct cgroup_slot *cs, struct sbx_err *err) SBX_WUR;
/** cgroup_populated() - Whether @cs has a process (zombies count until reaped); Return: 1, 0 (also when gone) or -errno */
int cgroup_populated(const struct cgroup_slot *cs);
/** cgroup_stat() - Read the figures of @cs of @cg into @ret; Return: 0, or -1 with @err set */
int cgroup_stat(struct cgroup *cg, const struct cgroup_slot *cs, struct cgroup_figures *ret, struct sbx_err *err) SBX_WUR;
/** cgroup_oom_epoll() - The epoll events that oom_fd of @cg's slots is to be watched for (EPOLLIN on v1, EPOLLPRI on v2) */
uint32_t cgroup_oom_epoll(const struct cgroup *cg);
/** cgroup_oom_kills() - Clear the event of @cs and read how many tenants of @cg the limit killed into @ret; Return: 0 or -errno */
int cgroup_oom_kills(struct cgroup *cg, const struct cgroup_slot *cs, uint64_t *ret) SBX_WUR;
/**
 * cgroup_remove() - Remove the groups; @cs is closed on success
 * @cg:		The instance
 * @cs:		The groups; must be empty of processes
 * @err:	Filled on failure: SYSTEM with sys EBUSY while a process is left (wait for events_fd and try again)
 *
 * Already gone is success.
 *
 * Return: 0, or -1 with @err set
 */
int cgroup_remove(struct cgroup *cg, struct cgroup_slot *cs, struct sbx_err *err) SBX_WUR;

typedef void cgroup_found(void *arg, uint32_t slot, uint32_t generation);
/** cgroup_each() - Call @found with @arg for every group "s<slot>.<generation>" of @cg; Return: 0, or -1 with @err set */
int cgroup_each(struct cgroup *cg, cgroup_found *found, void *arg, struct sbx_err *err) SBX_WUR;
/** cgroup_purge() - Remove the root group of @cg itself once it has no sandbox; Return: 0, or -1 with @err set */
int cgroup_purge(struct cgroup *cg, struct sbx_err *err) SBX_WUR;

#endif
