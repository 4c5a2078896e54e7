// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/idmap.h"

#include "base/cleanup.h"
#include "base/path.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAP_TEXT_SIZE 256
#define PROC_PATH_SIZE 48
#define STACK_BYTES    4096

static int write_map(pid_t pid, const char *file, const struct idmap_row *row, size_t n)
{
	char path[PROC_PATH_SIZE];
	char text[MAP_TEXT_SIZE];
	int len = 0;

	for (size_t i = 0; i < n; i++) {
		int more = snprintf(text + len, sizeof(text) - (size_t)len, "%u %u %u\n", row[i].inside, row[i].outside, row[i].count);

		if (more < 0 || more >= (int)sizeof(text) - len)
			return -E2BIG;
		len += more;
	}
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	return path_write_file(AT_FDCWD, path, text, (size_t)len);
}

int idmap_write(pid_t pid, const struct idmap_row *uid, const struct idmap_row *gid, size_t n)
{
	int r = write_map(pid, "uid_map", uid, n);

	return r < 0 ? r : write_map(pid, "gid_map", gid, n);
}

/* Until the parent (@arg: its number) kills us, or is killed.  Signals with handlers are blocked in the broker, so the call never returns to write the errno that we share. */
static int hold(void *arg)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != *(const pid_t *)arg)
		return 1;
	while (pause() < 0)
		;
	return 0;
}

int idmap_namespace(const struct idmap_row *uid, const struct idmap_row *gid, size_t n, struct sbx_err *err)
{
	static _Alignas(16) uint8_t stack[STACK_BYTES]; /* one such child at a time */
	pid_t parent = getpid();
	char path[PROC_PATH_SIZE];
	/* Shares our memory, so that no page table is copied for it, and touches nothing of it but this stack. */
	int pid = clone(hold, stack + sizeof(stack), CLONE_VM | CLONE_NEWUSER | SIGCHLD, &parent);

	if (pid < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "user namespace for an id map");
	int r = idmap_write((pid_t)pid, uid, gid, n);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	int fd = r < 0 ? r : open(path, O_RDONLY | O_CLOEXEC);
	if (r == 0 && fd < 0)
		r = -errno;
	kill((pid_t)pid, SIGKILL);
	while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "id map %u -> %u", uid[0].inside, uid[0].outside);
	return fd;
}

void idmap_act_as(uint32_t id)
{
	setfsgid(id);
	setfsuid(id);
	/* These calls have no error: -1 is no id and only asks. */
	if ((uint32_t)setfsgid((gid_t)-1) != id || (uint32_t)setfsuid((uid_t)-1) != id)
		abort();
}
