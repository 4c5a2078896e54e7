/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: mounts of the sandbox
 *
 * root_proc() and root_stage() run at pool time, before any image is known: they build /proc, /sys and /dev with their masks on a
 * staging tmpfs and leave the host's tree for good.  root_mount() runs when the image is known: it mounts the root over the staging,
 * writes the files of /etc, binds the volumes and moves the three trees beneath.  root_name() runs when the sandbox is known.
 *
 * What an image may contain at the places that we need: a directory is used; nothing there: it is made; a symlink, a FIFO or
 * a file at /proc, /sys or /dev is removed (in the sandbox's own upper layer; the image keeps it) and a directory made.
 * /etc and the volumes' places may be reached over the image's symlinks, resolved beneath the root by the kernel.
 */
#ifndef RUNTIME_AGENT_AGENT_ROOT_H
#define RUNTIME_AGENT_AGENT_ROOT_H

#include "runtime/broker/launch_sync.h"

struct root_stage {
	int stage_fd;  /* root of the staging tmpfs */
	int proc_fd, sys_fd, dev_fd, devpts_fd;
	int denied_fd;	    /* the log of what was denied, for writing */
	int denied_tree_fd; /* the same for the sandbox, read-only */
};

/** root_proc() - Begin @ret with a /proc, not masked yet, of which nothing can be seen by others; Return: 0 or -errno */
int root_proc(struct root_stage *ret);
/**
 * root_stage() - Build the other trees and leave the host's tree
 * @dev_fd:	LAUNCH_FD_DEV; taken over
 * @ret:	Begun by root_proc(); filled
 * @ret_stage:	On failure, where
 *
 * Return: 0 or -errno
 */
int root_stage(int dev_fd, struct root_stage *ret, enum launch_stage *ret_stage);

/* The files of /etc that name the host: opened while this process may still write them, -1 when closed. */
struct root_names {
	int hosts_fd, hostname_fd;
};

/**
 * root_mount() - Make @fd[0] the root of everything
 * @fd:		Descriptors of LAUNCH_ROOT in its order
 * @ret_names:	For root_name()
 * @ret_detail:	On failure at LAUNCH_STAGE_VOLUME, which
 *
 * Return: 0 or -errno
 */
int root_mount(const struct root_stage *stage, const struct launch_root *root, const int *fd, struct root_names *ret_names,
	       enum launch_stage *ret_stage, uint32_t *ret_detail);

/** root_name() - Write @hostname into the files of @names and close them; Return: 0 or -errno */
int root_name(struct root_names *names, const char *hostname);

#endif
