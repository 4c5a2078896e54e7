// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/disk_format.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK_BYTES  4096u
#define IMAGE_FD     3
#define CPU_SECONDS  60u
#define WALL_SECONDS 60u
#define MEMORY_BYTES (2ull << 30)
#define NUMBER_TEXT  16
#define FEATURES                                                                                                              \
	"none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"

static const char *const programs[] = {"/usr/sbin/mke2fs", "/sbin/mke2fs"};

const char *disk_format_ready(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		if (access(programs[i], X_OK) == 0)
			return programs[i];
	return NULL;
}

/* ---- the child ---- */

static int confine(const struct disk_form *form, uid_t uid)
{
	const struct {
		__rlimit_resource_t resource;
		rlim_t value;
	} limits[] = {{RLIMIT_CPU, CPU_SECONDS}, {RLIMIT_AS, MEMORY_BYTES}, {RLIMIT_FSIZE, form->bytes}, {RLIMIT_CORE, 1}, {RLIMIT_NOFILE, 16}};

	if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		const struct rlimit limit = {limits[i].value, limits[i].value};

		if (setrlimit(limits[i].resource, &limit) < 0)
			return -errno;
	}
	/* The capabilities go with the exec: it is not root that executes. */
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	/* After the ids: a change of them clears it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -errno;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

_Noreturn static void run_mke2fs(const char *program, int image_fd, const struct disk_form *form, uid_t uid)
{
	char ratio[NUMBER_TEXT], block[NUMBER_TEXT];
	const char *argv[] = {"mke2fs", "-q", "-F", "-m", "0", "-I", "256", "-b", block, "-i", ratio, "-O",
			      form->journal ? FEATURES ",has_journal" : FEATURES, "-E",
			      form->journal ? "lazy_itable_init=1,lazy_journal_init=1,nodiscard" : "lazy_itable_init=1,nodiscard",
			      "/proc/self/fd/3", NULL};
	char *const envp[] = {(char *)(uintptr_t)"MKE2FS_CONFIG=/dev/null", (char *)(uintptr_t)"LC_ALL=C", NULL};

	snprintf(block, sizeof(block), "%u", BLOCK_BYTES);
	snprintf(ratio, sizeof(ratio), "%u", form->bytes_per_inode);
	int opened = open("/dev/null", O_RDWR | O_CLOEXEC);
	int null = opened < 0 ? -1 : fcntl(opened, F_DUPFD_CLOEXEC, 64);
	if (null < 0 || dup2(image_fd, IMAGE_FD) < 0)
		_exit(1);
	for (int fd = 0; fd < IMAGE_FD; fd++)
		if (dup2(null, fd) < 0)
			_exit(1);
	if (syscall(SYS_close_range, IMAGE_FD + 1, ~0u, 0) < 0 || confine(form, uid) < 0)
		_exit(1);
	/* The limit of its processor time does not end what waits for a disk. */
	sigset_t none;
	sigemptyset(&none);
	if (signal(SIGALRM, SIG_DFL) == SIG_ERR || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		_exit(1);
	alarm(WALL_SECONDS);
	execve(program, (char *const *)(uintptr_t)argv, envp);
	_exit(1);
}

/* ---- the caller's side ---- */

static int full_or(int sys, struct sbx_err *err, const char *what)
{
	return sbx_err_set(err, sys == ENOSPC || sys == EDQUOT ? SBX_E_STATE_FULL : SBX_E_SYSTEM, sys, "%s", what);
}

int disk_format_template(int dir_fd, const struct disk_form *form, uid_t uid, struct sbx_err *err)
{
	const char *program = disk_format_ready();
	int status = 0;

	if (!program)
		return sbx_err_set(err, SBX_E_HOST_LACKS, 0, "mke2fs (package e2fsprogs) is not installed");
	auto_fd fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	/* Above the child's own three, so that none of its dup2 closes it; its own until it is copied. */
	auto_fd high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 64);
	if (high < 0 || ftruncate(high, (off_t)form->bytes) < 0 || fchown(high, uid, uid) < 0)
		return full_or(errno, err, "file for a new disk");
	pid_t pid = fork();
	if (pid < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "start mke2fs");
	if (pid == 0)
		run_mke2fs(program, high, form, uid);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "wait for mke2fs");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "mke2fs failed (%s %d): the state directory may be full",
				   WIFEXITED(status) ? "exit" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	return take_fd(&high);
}

static bool all_zero(const char *data, size_t n)
{
	return data[0] == 0 && !memcmp(data, data + 1, n - 1);
}

/* One piece that the file system keeps as data; blocks of zeros in it stay holes. */
static int copy_piece(int from, int to, off_t at, off_t end)
{
	static char block[BLOCK_BYTES];

	for (; at < end; at += BLOCK_BYTES) {
		if (pread(from, block, sizeof(block), at) != (ssize_t)sizeof(block))
			return -EIO;
		if (all_zero(block, sizeof(block)))
			continue;
		ssize_t n = pwrite(to, block, sizeof(block), at);
		if (n != (ssize_t)sizeof(block))
			return n < 0 ? -errno : -ENOSPC;
	}
	return 0;
}

int disk_format_copy(int template_fd, int image_fd, uint64_t bytes)
{
	off_t at = 0;

	if (ftruncate(image_fd, (off_t)bytes) < 0)
		return -errno;
	while ((at = lseek(template_fd, at, SEEK_DATA)) >= 0) {
		off_t end = lseek(template_fd, at, SEEK_HOLE);
		int r = end < 0 ? -errno : copy_piece(template_fd, image_fd, at - at % BLOCK_BYTES, end);

		if (r < 0)
			return r;
		at = end;
	}
	return errno == ENXIO ? 0 : -errno;
}
