/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: helper user namespaces, only there to say how a mount maps ids
 *
 * Nothing ever runs in one: a child makes it, the maps are written, its descriptor is taken and the child ends.  The
 * first number of a row is the id on disk, the second the host id that processes act as.  No message names either: both
 * come from the broker's own configuration or from fstat(2).
 */
#ifndef RUNTIME_IDMAP_H
#define RUNTIME_IDMAP_H

#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

struct idmap_row {
	uint32_t inside;
	uint32_t outside;
	uint32_t count;
};

/**
 * idmap_write() - Write the maps of a process's new user namespace
 * @pid:	The process
 * @uid:	Rows for users
 * @gid:	Rows for groups
 * @n:		Rows of each, 1 to 4
 *
 * Return: 0, or -errno
 */
int idmap_write(pid_t pid, const struct idmap_row *uid, const struct idmap_row *gid, size_t n) SBX_WUR;

/**
 * idmap_namespace() - Make a helper user namespace
 * @uid:	Rows for users
 * @gid:	Rows for groups
 * @n:		Rows of each
 * @err:	Filled on failure: SYSTEM
 *
 * Return: descriptor of the namespace, the caller's; or -1 with @err set
 */
int idmap_namespace(const struct idmap_row *uid, const struct idmap_row *gid, size_t n, struct sbx_err *err) SBX_WUR;

/**
 * idmap_act_as() - Let the files that this process makes belong to @id (user and group), with the rights of root; 0: to root again
 *
 * Aborts when the kernel does not do it: nothing may be made with the wrong owner.  Needs SECBIT_NO_SETUID_FIXUP.
 */
void idmap_act_as(uint32_t id);

#endif
