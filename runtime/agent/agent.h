/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the parts of sandbox-agent share
 *
 * The agent is pid 1 of a sandbox and not one of its tenants: it runs under an id of its own in the outer user namespace,
 * which owns the inner one, without any capability.  Owning the inner namespace is what lets it enter it, take any
 * identity there and signal any tenant, and what keeps tenants from doing anything to it.
 *
 * Rules: nothing in this process opens a path of the tenant (a FIFO or a stale mount would stop pid 1); whatever does is
 * a forked child.  Every queue is bounded.  Nothing blocks.
 */
#ifndef RUNTIME_AGENT_AGENT_H
#define RUNTIME_AGENT_AGENT_H

#include "runtime/agent/agent_users.h"
#include "runtime/agent_msg.h"

#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define AGENT_CGROUP_FDS 3
#define AGENT_DATA_BYTES (64ul << 20) /* what it may allocate; its kernel memory and cache are counted by its group */

struct agent_source { /* a descriptor in the event loop; edge-triggered: `ready` stays until a call said EAGAIN */
	int fd;
	uint8_t ready;
	uint8_t writable;
	uint8_t printed; /* there were bytes, not only an end */
};

/* The log of what was denied, see agent_denied.h. */
struct agent_denied {
	int fd; /* -1: none */
	uint32_t bytes;
};

struct sock_filter;

/* What the shell stage hands to the service. */
struct agent {
	int control_in_fd, control_out_fd, exec_in_fd, exec_out_fd, bulk_in_fd, bulk_out_fd;
	int spool_fd;
	int proc_fd;   /* root of our own /proc */
	int devpts_fd; /* root of the sandbox's devpts */
	int userns_fd; /* the tenants' user namespace */
	struct agent_denied denied;
	int cgroup_fd[AGENT_CGROUP_FDS];
	uint32_t n_cgroup_fds;
	uint32_t cgroup_version;
	uint32_t agent_uid;
	struct rlimit nofile; /* of every child; the agent itself needs as many as it may have */
	struct rlimit data;   /* likewise; the agent itself has AGENT_DATA_BYTES */
	struct sock_filter *payload_filter; /* owned; NULL: none (never in production: the broker always sends one) */
	uint32_t payload_filter_len;

	/* from START */
	uint8_t *start_bytes; /* owned; what the views below point into */
	const char *base_cwd, *base_env;
	uint32_t n_base_env;
	struct users_identity default_user; /* as the entrypoint's child resolved it */
};

#endif
