/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a process gives away what it does not need
 *
 * sandboxd, sandbox-gateway, sandbox-dnsd and sandbox-fetch are started by the root monitor and call isolate_self() before they read one
 * hostile byte: identity, groups, every capability with the bounding set, no_new_privs, not dumpable, no core files, a seccomp deny list.
 * One table row per process says what is denied to it.  Not for the broker, whose filter and capabilities would be
 * inherited by every sandbox.
 */
#ifndef BASE_ISOLATE_H
#define BASE_ISOLATE_H

#include "base/err.h"

#include <sys/types.h>

enum isolate_process {
	ISOLATE_SANDBOXD = 1, /* may start a child of itself (checkpoint) */
	ISOLATE_GATEWAY,      /* may not execute anything */
	ISOLATE_DNSD,	      /* likewise, and opens no file for writing */
	ISOLATE_FETCH,	      /* threads yes (libcurl resolves names in one), programs no, opens no file for writing */
	ISOLATE_COUNT
};

/**
 * isolate_self() - Drop everything, for good
 * @process:	Which row of the table
 * @id:		Becomes real, effective and saved user and group; must not be 0
 * @parent:	Process whose end ends this one (SIGTERM), or 0 for none
 * @err:	Filled on failure: SYSTEM naming the step; the process must then end
 *
 * Run by somebody who is not root, the identity stays as it is and the rest is done: tests and a developer's own start.
 *
 * Return: 0, or -1 with @err set
 */
int isolate_self(enum isolate_process process, uid_t id, pid_t parent, struct sbx_err *err) SBX_WUR;

#endif
