// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/unpacker.h"

#include "base/cleanup.h"
#include "base/pidfd.h"
#include "images/unpack_result.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/idmap.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAFE_FD 256 /* above all that a worker is given */

struct worker {
	const struct unpacker_job *job;
	int sync_fd, result_fd, unpack_fd;
};

/*
 * fds 0 (blob or file), 1 and 2 (the broker's log, so that a crash leaves a line), 3 (directory), 4 (result), from 5 the layers
 * below or the views, the pipe that says when they are complete, the file for the seal; behind them the program.
 */
static int worker_ready_fd(const struct worker *w)
{
	return UNPACK_LOWER_FD + (int)w->job->n_views;
}

static int worker_seal_fd(const struct worker *w)
{
	return worker_ready_fd(w) + (w->job->ready_fd > 0);
}

static int worker_program_fd(const struct worker *w)
{
	return worker_seal_fd(w) + (w->job->seal_fd > 0);
}

static int worker_descriptors(const struct worker *w)
{
	int lower[UNPACK_MAX_LOWER];
	int blob = fcntl(w->job->in_fd, F_DUPFD_CLOEXEC, SAFE_FD);
	int target = fcntl(w->job->target_fd, F_DUPFD_CLOEXEC, SAFE_FD);
	int result = fcntl(w->result_fd, F_DUPFD_CLOEXEC, SAFE_FD);
	int program = fcntl(w->unpack_fd, F_DUPFD_CLOEXEC, SAFE_FD);
	int ready = w->job->ready_fd > 0 ? fcntl(w->job->ready_fd, F_DUPFD_CLOEXEC, SAFE_FD) : 0;
	int seal = w->job->seal_fd > 0 ? fcntl(w->job->seal_fd, F_DUPFD_CLOEXEC, SAFE_FD) : 0;

	if (ready < 0 || seal < 0 || blob < 0 || target < 0 || result < 0 || program < 0)
		return -errno;
	for (size_t i = 0; i < w->job->n_views; i++) {
		lower[i] = fcntl(w->job->view_fds[i], F_DUPFD_CLOEXEC, SAFE_FD);
		if (lower[i] < 0)
			return -errno;
	}
	if (dup2(blob, 0) < 0 || dup2(2, 1) < 0 || dup2(target, UNPACK_TARGET_FD) < 0 || dup2(result, UNPACK_RESULT_FD) < 0)
		return -errno;
	for (size_t i = 0; i < w->job->n_views; i++)
		if (dup2(lower[i], UNPACK_LOWER_FD + (int)i) < 0)
			return -errno;
	if (ready > 0 && dup2(ready, worker_ready_fd(w)) < 0)
		return -errno;
	if (seal > 0 && dup2(seal, worker_seal_fd(w)) < 0)
		return -errno;
	if (dup3(program, worker_program_fd(w), O_CLOEXEC) < 0)
		return -errno;
	return syscall(SYS_close_range, worker_program_fd(w) + 1, ~0u, 0) < 0 ? -errno : 0;
}

_Noreturn static void run_worker(const struct worker *w)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
	struct rlimit no_core = {.rlim_cur = 1, .rlim_max = 1};
	char *envp[] = {NULL};
	sigset_t none;
	char byte;

	if (read(w->sync_fd, &byte, 1) != 1)
		_exit(1);
	sigemptyset(&none);
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		_exit(1);
	/* The host is visible (the program needs its libraries, the skeleton its /etc), yet nothing of it can be written. */
	if (syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		_exit(1);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0 || setrlimit(RLIMIT_CORE, &no_core) < 0 || chdir("/") < 0)
		_exit(1);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || worker_descriptors(w) < 0)
		_exit(1);
	syscall(SYS_execveat, worker_program_fd(w), "", w->job->argv, envp, AT_EMPTY_PATH);
	_exit(1);
}

int unpacker_start(struct broker *b, const struct unpacker_job *job, int *ret_result_fd)
{
	struct idmap_row rows[2] = {{.inside = 0, .outside = job->base, .count = BROKER_IDS_PER_SLOT}};
	size_t n_rows = 1;
	int sync[2], result[2];
	int pidfd = -1;

	if (job->nobody_moved) {
		rows[0].count = SEAL_NOBODY;
		rows[n_rows++] = (struct idmap_row){.inside = SEAL_NOBODY_SHOWN, .outside = job->base + SEAL_NOBODY,
						    .count = BROKER_IDS_PER_SLOT - SEAL_NOBODY};
	}
	if (pipe2(sync, O_CLOEXEC) < 0)
		return -errno;
	auto_fd sync_read = sync[0];
	auto_fd sync_write = sync[1];
	if (pipe2(result, O_CLOEXEC) < 0)
		return -errno;
	auto_fd result_read = result[0];
	auto_fd result_write = result[1];
	const struct worker w = {.job = job, .sync_fd = sync_read, .result_fd = result_write, .unpack_fd = b->unpack_fd};
	long pid = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
			   CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(sync_write);
		run_worker(&w);
	}
	int r = idmap_write((pid_t)pid, rows, rows, n_rows);
	if (r == 0 && (write(sync_write, "!", 1) != 1 || fcntl(result_read, F_SETFL, O_NONBLOCK) < 0))
		r = -errno;
	if (r < 0) {
		siginfo_t info;

		ignore_result(kill((pid_t)pid, SIGKILL)); /* our child, not reaped: it is there */
		ignore_result(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
		close(pidfd);
		return r;
	}
	*ret_result_fd = take_fd(&result_read);
	return pidfd;
}

void unpacker_end(int pidfd)
{
	siginfo_t info;

	pidfd_kill(pidfd);
	ignore_result(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
}

/* Both results begin alike and end in their text, so that one judge reads both. */
_Static_assert(offsetof(struct capture_result, status) == offsetof(struct unpack_result, status), "status stands at one place");
_Static_assert(offsetof(struct unpack_result, text) + UNPACK_TEXT_BYTES == sizeof(struct unpack_result), "text is last");
_Static_assert(offsetof(struct capture_result, text) + UNPACK_TEXT_BYTES == sizeof(struct capture_result), "text is last");

int unpacker_judge(int pidfd, int result_fd, void *ret, size_t size, uint32_t magic, struct sbx_err *err)
{
	char *text = (char *)ret + size - UNPACK_TEXT_BYTES;
	uint32_t got_magic;
	int32_t status;
	siginfo_t info = {0};

	if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "wait for sandbox-unpack");
	ssize_t n = read(result_fd, ret, size);
	memcpy(&got_magic, ret, sizeof(got_magic));
	memcpy(&status, (const char *)ret + offsetof(struct unpack_result, status), sizeof(status));
	if (n != (ssize_t)size || got_magic != magic || text[UNPACK_TEXT_BYTES - 1])
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "sandbox-unpack ended without a result (%s %d)",
				   info.si_code == CLD_EXITED ? "exit" : "signal", info.si_status);
	sbx_printable(text, UNPACK_TEXT_BYTES, text, UNPACK_TEXT_BYTES);
	if (status != 0) {
		enum sbx_err_code code = status == SBX_E_LIMIT || status == SBX_E_NO_MEMORY || status == SBX_E_SYSTEM ?
						 (enum sbx_err_code)status : SBX_E_IMAGE_INVALID;
		return sbx_err_set(err, code, 0, "%s", text);
	}
	if (info.si_code != CLD_EXITED || info.si_status != 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "sandbox-unpack failed after its result");
	return 0;
}
