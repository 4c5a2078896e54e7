/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the system calls that musl 1.2.3 has no wrapper for
 *
 * Primitives: >= 0, or a negative errno.  Constants come from the kernel's headers, structures that the kernel may grow
 * are declared here in the size that is used.
 */
#ifndef RUNTIME_AGENT_AGENT_SYS_H
#define RUNTIME_AGENT_AGENT_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

#define SYSX_RESOLVE_NO_MAGICLINKS 0x02u
#define SYSX_RESOLVE_NO_SYMLINKS   0x04u
#define SYSX_RESOLVE_BENEATH	   0x08u
#define SYSX_RESOLVE_IN_ROOT	   0x10u

#define SYSX_CLONE_INTO_CGROUP 0x200000000ull
#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif

#define SYSX_OPEN_TREE_CLONE	  1u
#define SYSX_MOVE_F_EMPTY_PATH	  4u
#define SYSX_MOVE_T_EMPTY_PATH	  0x40u
#define SYSX_FSCONFIG_SET_FLAG	  0u
#define SYSX_FSCONFIG_SET_STRING  1u
#define SYSX_FSCONFIG_CMD_CREATE  6u
#define SYSX_MOUNT_RDONLY	  1u
#define SYSX_MOUNT_NOSUID	  2u
#define SYSX_MOUNT_NODEV	  4u
#define SYSX_MOUNT_NOEXEC	  8u
#define SYSX_MOUNT_NOSYMFOLLOW	  0x200000u

struct sysx_mount_attr {
	uint64_t attr_set, attr_clr, propagation, userns_fd;
};

#define SYSX_STATX_BASIC 0x7ffu
#define SYSX_STATX_BTIME 0x800u

struct sysx_statx_time {
	int64_t sec;
	uint32_t nsec;
	int32_t zero;
};

struct sysx_statx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, zero;
	uint64_t ino, size, blocks, attributes_mask;
	struct sysx_statx_time atime, btime, ctime, mtime;
	uint64_t rest[16];
};

/** sysx_ret() - Turn libc's -1 and errno into a negative errno */
static inline int sysx_ret(long r)
{
	return r < 0 ? -errno : (int)r;
}

/** sysx_openat2() - openat2(2) with O_CLOEXEC added to @flags */
static inline int sysx_openat2(int dir_fd, const char *path, int flags, unsigned mode, unsigned resolve)
{
	uint64_t how[3] = {(uint64_t)(unsigned)(flags | O_CLOEXEC), mode, resolve};

	return sysx_ret(syscall(SYS_openat2, dir_fd, path, how, sizeof(how)));
}

/** sysx_statx() - statx(2) of the fields above */
static inline int sysx_statx(int dir_fd, const char *path, int flags, struct sysx_statx *ret)
{
	return sysx_ret(syscall(SYS_statx, dir_fd, path, flags, SYSX_STATX_BASIC | SYSX_STATX_BTIME, ret));
}

/** sysx_fork() - fork(2), the child in cgroup @cgroup_fd when that is >= 0 (version 2); Return: pid, 0, -errno */
static inline pid_t sysx_fork(int cgroup_fd)
{
	uint64_t args[11] = {0};

	args[4] = SIGCHLD;
	if (cgroup_fd >= 0) {
		args[0] = SYSX_CLONE_INTO_CGROUP;
		args[10] = (uint64_t)cgroup_fd;
	}
	return sysx_ret(syscall(SYS_clone3, args, sizeof(args)));
}

/** sysx_close_range() - Close the descriptors @first to @last */
static inline int sysx_close_range(unsigned first, unsigned last)
{
	return sysx_ret(syscall(SYS_close_range, first, last, 0));
}

/** sysx_pidfd_open() - pidfd_open(2) */
static inline int sysx_pidfd_open(pid_t pid)
{
	return sysx_ret(syscall(SYS_pidfd_open, pid, 0));
}

/** sysx_mono_usec() - The monotonic clock */
static inline int64_t sysx_mono_usec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/** sysx_wall_usec() - The wall clock */
static inline int64_t sysx_wall_usec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

#endif
