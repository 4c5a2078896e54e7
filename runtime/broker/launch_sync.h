/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the launch, step by step
 *
 * The broker makes a shell (a process with all its namespaces that waits), gives it a root and later arms it for one sandbox.
 * The launch socket is a SOCK_SEQPACKET pair, closed on both sides after ARMED.  Descriptors travel only towards the shell;
 * the broker receives without a control buffer.
 *
 * A shell may get its root while it waits, of the layers that the last create named: then only the limits, the host's name and
 * the entrypoint are left for the create that takes it, and that create names the same layers and no volume.  Any other create
 * takes a shell without a root, which then gets ROOT and ARM in one go.  The messages and what the shell does are the same.
 *
 *   broker                                          child (launch_child.c, then sandbox-agent's shell stage)
 *   ------                                          ------------------------------------------------------
 *   seteuid(B) clone3(all namespaces) seteuid(0)     (waits on the launch socket)
 *   write uid_map, gid_map
 *   LAUNCH_MAPPED                              -->   join cgroups (v1: write 0 to tasks), reset every inherited
 *   create veth into netns                           attribute, execveat(sealed agent)
 *   LAUNCH_SETUP {addresses} + descriptors     -->   addresses, mounts on a staging tmpfs, inner user namespace
 *                                              <--   LAUNCH_SHELL
 *   ... in the pool, without a root ...
 *   LAUNCH_ROOT {mounts} + descriptors         -->   root, volumes, files of /etc, masks, ids, no capability, filter,
 *                                                    a child that waits for the entrypoint
 *                                              <--   LAUNCH_ROOTED
 *   ... in the pool, with a root ...
 *   limits, host name of the UTS namespace
 *   LAUNCH_ARM {hostname}                      -->   the lines of /etc that name the host
 *                                              <--   LAUNCH_ARMED      (from here the control channel speaks)
 *   Nothing but the pool waits for SHELL and ROOTED: a create in line sends all messages behind each other.
 *   any step may fail:                         <--   LAUNCH_FAILED {stage, errno}
 */
#ifndef RUNTIME_BROKER_LAUNCH_SYNC_H
#define RUNTIME_BROKER_LAUNCH_SYNC_H

#include <stdint.h>

#define LAUNCH_SOCKET_FD 3 /* the agent finds its end of the launch socket here */
#define LAUNCH_MAX_FILTER 1024u /* instructions of one seccomp program */
#define LAUNCH_MOUNT_BYTES 1024u
#define LAUNCH_MAX_VOLUMES 16u

enum launch_msg {
	LAUNCH_MAPPED = 0x4c01,
	LAUNCH_SETUP,
	LAUNCH_ROOT,
	LAUNCH_ARM,
	LAUNCH_SHELL,
	LAUNCH_ROOTED,
	LAUNCH_ARMED,
	LAUNCH_FAILED,
};

/* Descriptors of SETUP, in this order. */
enum launch_setup_fd {
	LAUNCH_FD_CONTROL_IN = 0, /* agent's read end, a description of its own, opened O_RDWR so that it never sees EOF */
	LAUNCH_FD_CONTROL_OUT,
	LAUNCH_FD_EXEC_IN,
	LAUNCH_FD_EXEC_OUT,
	LAUNCH_FD_BULK_IN,	 /* content of uploads; what it is for is said on EXEC_IN */
	LAUNCH_FD_BULK_OUT,	 /* content of downloads */
	LAUNCH_FD_SPOOL,	 /* unlinked file beside the upper, read-write */
	LAUNCH_FD_DEV,		 /* detached read-only mount of the six device nodes */
	LAUNCH_FD_FILTER_AGENT,	 /* memfd: struct sock_filter array */
	LAUNCH_FD_FILTER_PAYLOAD, /* memfd: struct sock_filter array */
	LAUNCH_FD_TENANT_CGROUP, /* v2: directory of the tenants' leaf for CLONE_INTO_CGROUP; v1: first `tasks` file */
	LAUNCH_FD_TENANT_TASKS_1, /* v1: further `tasks` files; v2: absent (n_cgroup_fds tells) */
	LAUNCH_FD_TENANT_TASKS_2,
	LAUNCH_SETUP_FDS_MAX
};

struct launch_setup {
	uint32_t msg; /* LAUNCH_SETUP */
	uint32_t slot;
	uint32_t addr;	       /* network byte order */
	uint32_t gateway_addr; /* network byte order */
	uint8_t gateway_mac[6];
	uint8_t own_mac[6];
	uint32_t agent_uid;    /* id of the agent in the outer namespace: 65536 */
	uint32_t cgroup_version;
	uint32_t n_cgroup_fds;
	uint32_t filter_agent_len;   /* instructions */
	uint32_t filter_payload_len;
	uint32_t peer_ifindex; /* of eth0 inside */
	uint32_t ipv6;	       /* 1: the next two count */
	uint8_t addr6[16];
	uint8_t gateway6[16]; /* link-local; the same hardware address as gateway_addr */
};

/* Descriptors of ROOT: the root mount, then (HOST_USR) the /usr mount, then one mount per volume, then (SPOOL) a spool that replaces that of SETUP. */
enum launch_root_flags { LAUNCH_ROOT_HOST_USR = 1u << 0, LAUNCH_ROOT_SPOOL = 1u << 1 };

struct launch_volume {
	uint32_t read_only;
	uint32_t is_file; /* a regular file is bound, not a directory */
	char path[LAUNCH_MOUNT_BYTES]; /* named by the client; opened beneath the new root by the shell */
};

struct launch_root {
	uint32_t msg; /* LAUNCH_ROOT */
	uint32_t flags;
	uint32_t n_volumes;
	uint32_t zero;
	char nameserver[16]; /* dotted IPv4 */
	struct launch_volume volume[LAUNCH_MAX_VOLUMES];
};

struct launch_arm {
	uint32_t msg; /* LAUNCH_ARM */
	char hostname[64];
};

enum launch_stage {
	LAUNCH_STAGE_NONE = 0,
	LAUNCH_STAGE_CGROUP,
	LAUNCH_STAGE_ATTRIBUTES,
	LAUNCH_STAGE_EXEC,
	LAUNCH_STAGE_NETWORK,
	LAUNCH_STAGE_STAGING,
	LAUNCH_STAGE_PROC,
	LAUNCH_STAGE_DEV,
	LAUNCH_STAGE_USERNS,
	LAUNCH_STAGE_ROOT,
	LAUNCH_STAGE_VOLUME, /* detail: index of the volume */
	LAUNCH_STAGE_ETC,
	LAUNCH_STAGE_MASK,
	LAUNCH_STAGE_IDENTITY,
	LAUNCH_STAGE_FILTER,
	LAUNCH_STAGE_COUNT
};

struct launch_answer { /* SHELL, ROOTED, ARMED, FAILED */
	uint32_t msg;
	uint32_t stage;
	int32_t sys;
	uint32_t detail;
};

#endif
