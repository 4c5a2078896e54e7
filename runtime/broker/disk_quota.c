// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/disk_quota.h"

#include <errno.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QUOTA_BLOCK 1024u /* QIF_DQBLKSIZE: limits are in these, usage in bytes */
#define PROJECT_CMD(cmd) (((unsigned)(cmd) << SUBCMDSHIFT) | (PRJQUOTA & SUBCMDMASK))

/* By descriptor (Linux 5.14): neither the device nor a mount point has to be found. */
static int quota_call(int dir_fd, unsigned cmd, uint32_t id, void *data)
{
	return syscall(SYS_quotactl_fd, dir_fd, PROJECT_CMD(cmd), id, data) < 0 ? -errno : 0;
}

bool disk_quota_enforced(int dir_fd)
{
	struct fs_quota_statv state = {.qs_version = FS_QSTATV_VERSION1};
	const uint16_t both = FS_QUOTA_PDQ_ACCT | FS_QUOTA_PDQ_ENFD;

	/* XFS's call, but the kernel answers it for ext4 as well; a file system without any quota says ENOSYS. */
	return quota_call(dir_fd, Q_XGETQSTATV, 0, &state) == 0 && (state.qs_flags & both) == both;
}

int disk_quota_tag(int dir_fd, uint32_t project)
{
	struct fsxattr attr;

	if (ioctl(dir_fd, FS_IOC_FSGETXATTR, &attr) < 0)
		return -errno;
	attr.fsx_projid = project;
	attr.fsx_xflags |= FS_XFLAG_PROJINHERIT;
	return ioctl(dir_fd, FS_IOC_FSSETXATTR, &attr) < 0 ? -errno : 0;
}

int disk_quota_project(int dir_fd, uint32_t *ret)
{
	struct fsxattr attr;

	if (ioctl(dir_fd, FS_IOC_FSGETXATTR, &attr) < 0)
		return -errno;
	*ret = attr.fsx_projid;
	return 0;
}

int disk_quota_limit(int dir_fd, uint32_t project, uint64_t bytes, uint64_t inodes)
{
	struct if_dqblk limit = {
		.dqb_bhardlimit = bytes / QUOTA_BLOCK,
		.dqb_bsoftlimit = bytes / QUOTA_BLOCK,
		.dqb_ihardlimit = inodes,
		.dqb_isoftlimit = inodes,
		.dqb_valid = QIF_LIMITS,
	};

	return quota_call(dir_fd, Q_SETQUOTA, project, &limit);
}

int disk_quota_read(int dir_fd, uint32_t project, struct disk_figures *ret)
{
	struct if_dqblk now;

	memset(&now, 0, sizeof(now));
	int r = quota_call(dir_fd, Q_GETQUOTA, project, &now);
	if (r == 0)
		*ret = (struct disk_figures){.used_bytes = now.dqb_curspace,
					     .limit_bytes = now.dqb_bhardlimit * QUOTA_BLOCK,
					     .used_inodes = now.dqb_curinodes,
					     .limit_inodes = now.dqb_ihardlimit};
	return r;
}
