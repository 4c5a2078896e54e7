/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: project quotas, where the file system of the state directory enforces them
 *
 * A directory of one life or of one volume gets a project id of its own and FS_XFLAG_PROJINHERIT before anything is in it, so
 * that every block and inode below is counted, also what overlayfs makes in its work directory.  A tenant cannot leave
 * the project: the kernel refuses another id, and the change of the inherit flag, to whoever is not in the first user namespace.
 */
#ifndef RUNTIME_DISK_QUOTA_H
#define RUNTIME_DISK_QUOTA_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct disk_figures {
	uint64_t used_bytes, limit_bytes; /* limit 0: none */
	uint64_t used_inodes, limit_inodes;
};

/** disk_quota_enforced() - Whether the file system of @dir_fd counts and enforces project quotas now */
bool disk_quota_enforced(int dir_fd);
/** disk_quota_tag() - Put the empty directory @dir_fd and what will be below it into @project; Return: 0 or -errno */
int disk_quota_tag(int dir_fd, uint32_t project) SBX_WUR;
/** disk_quota_project() - Project of @dir_fd into @ret, 0: none; Return: 0 or -errno */
int disk_quota_project(int dir_fd, uint32_t *ret) SBX_WUR;
/** disk_quota_limit() - Bound @project of the file system of @dir_fd; 0 bytes or inodes: no bound; Return: 0 or -errno */
int disk_quota_limit(int dir_fd, uint32_t project, uint64_t bytes, uint64_t inodes) SBX_WUR;
/** disk_quota_read() - What @project of the file system of @dir_fd uses and may; Return: 0 or -errno */
int disk_quota_read(int dir_fd, uint32_t project, struct disk_figures *ret) SBX_WUR;

#endif
