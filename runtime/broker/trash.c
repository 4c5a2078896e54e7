// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/trash.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/path.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/disk.h"
#include "runtime/broker/idmap.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define NAME_SIZE 64
#define DEPTH	  8 /* directories in each other that are open at once */

struct trash {
	int wake_fd;   /* our end of a SOCK_SEQPACKET pair; the worker ends when it is closed */
	int mounts_fd; /* likewise; its child for mounts */
	int pidfd;
	struct loop_fd *source;
	uint64_t number; /* of the next name */
};

/* ---- the worker: nothing below runs with an id of the host ---- */

static int worker_empty(int dir_fd, unsigned depth, uint64_t *number);

/* Not empty and too deep: to the top, where its turn comes.  No path, and no more descriptors than DEPTH, whatever the depth. */
static int worker_flatten(int dir_fd, const char *name, uint64_t *number)
{
	char top[NAME_SIZE];

	do
		snprintf(top, sizeof(top), "flat.%llu", (unsigned long long)(*number)++);
	while (renameat2(dir_fd, name, AT_FDCWD, top, RENAME_NOREPLACE) < 0 && errno == EEXIST);
	return 0;
}

static int worker_rmdir(int dir_fd, const char *name)
{
	return unlinkat(dir_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}

static int worker_unlink(int dir_fd, const struct dirent *e, unsigned depth, uint64_t *number)
{
	int r = e->d_type == DT_DIR ? -EISDIR : unlinkat(dir_fd, e->d_name, 0) == 0 ? 0 : -errno;

	if (r != -EISDIR && r != -EPERM)
		return r == -ENOENT ? 0 : r;
	r = worker_rmdir(dir_fd, e->d_name);
	if (r != -ENOTEMPTY && r != -EEXIST)
		return r;
	if (depth < DEPTH && worker_empty(openat(dir_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), depth + 1, number) == 0 &&
	    worker_rmdir(dir_fd, e->d_name) == 0)
		return 0;
	return worker_flatten(dir_fd, e->d_name, number);
}

/* Removes what is in @dir_fd, which it closes; Return: 0, or -errno of what could not be removed. */
static int worker_empty(int dir_fd, unsigned depth, uint64_t *number)
{
	int r = 0;

	if (dir_fd < 0)
		return -errno;
	ignore_result(fchmod(dir_fd, 0700)); /* a sticky bit of another owner; the removal below says what is wrong */
	DIR *dir = fdopendir(dir_fd);
	if (!dir) {
		close(dir_fd);
		return -ENOMEM;
	}
	for (struct dirent *e; (e = readdir(dir));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
			int failed = worker_unlink(dir_fd, e, depth, number);

			r = r ? r : failed;
		}
	closedir(dir);
	return r;
}

/* Empties one directory of the top and removes it; Return: 0, or -errno of what could not be removed. */
static int worker_directory(const char *name, uint64_t *number)
{
	int fd = openat(AT_FDCWD, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOTDIR || errno == ELOOP ? (unlink(name) < 0 ? -errno : 0) : -errno;
	int r = worker_empty(fd, 1, number);
	return rmdir(name) < 0 && errno != ENOENT ? (r ? r : -errno) : 0;
}

/* One walk over the top; Return: whether anything was removed that may have brought new names. */
static bool worker_round(uint64_t *number)
{
	bool progress = false;
	auto_dir dir = opendir(".");

	if (!dir)
		return false;
	for (struct dirent *e; (e = readdir(dir));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			progress |= worker_directory(e->d_name, number) == 0;
	return progress;
}

/* Waits for a message and takes all that there are; @held becomes the last one's descriptor, or -1.  Return: false when the broker is gone */
static bool worker_take(int fd, int *held)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char wake;

	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	for (;;) {
		int came[1];
		size_t n_came = 0;
		ssize_t n = fdpass_recv(fd, &wake, sizeof(wake), came, ARRAY_SIZE(came), &n_came);

		if (n <= 0)
			return n == -EAGAIN;
		replace_fd(held, n_came ? came[0] : -1);
	}
}

/*
 * Mounts end in a process of their own: a large tree must not keep what others had in their memory.  They come with one message, and
 * the next one says that the broker has let them go: the last who has them takes them down.
 */
_Noreturn static void mounts_worker(int mounts_fd)
{
	int held = -1;

	if (dup2(mounts_fd, 0) < 0 || syscall(SYS_close_range, 1, ~0u, 0) < 0)
		_exit(1);
	while (worker_take(0, &held))
		;
	_exit(0);
}

_Noreturn static void worker(int trash_fd, int wake_fd, int mounts_fd)
{
	uint64_t number = 0;
	int none = -1;
	char wake;

	/* the maps are there once the first byte arrives */
	if (read(wake_fd, &wake, 1) != 1)
		_exit(0);
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		_exit(1);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || fchdir(trash_fd) < 0 || chroot(".") < 0)
		_exit(1);
	pid_t child = fork();
	if (child == 0)
		mounts_worker(mounts_fd);
	if (child < 0 || dup2(wake_fd, 0) < 0 || syscall(SYS_close_range, 1, ~0u, 0) < 0)
		_exit(1);
	ignore_result(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7))); /* not idle: a busy disk would let the trash grow */
	while (worker_round(&number) || worker_take(0, &none))
		;
	_exit(0);
}

/* ---- the broker's side ---- */

static void worker_ended(void *arg, int fd, uint32_t events)
{
	struct broker *b = arg;
	siginfo_t info;

	(void)events;
	loop_fd_remove(b->trash->source);
	b->trash->source = NULL;
	ignore_result(waitid(P_PIDFD, (id_t)fd, &info, WEXITED)); /* the next trash_put() starts another */
	replace_fd(&b->trash->pidfd, -1);
	replace_fd(&b->trash->wake_fd, -1);
	replace_fd(&b->trash->mounts_fd, -1);
}

static int start_worker(struct broker *b)
{
	/* slots, layers, volumes: behind each other inside, so that an id here names one owner of these and none of the host */
	struct idmap_row row[] = {
		{.inside = 0, .outside = b->id_base, .count = LIMIT_SANDBOXES * BROKER_IDS_PER_SLOT},
		{.inside = LIMIT_SANDBOXES * BROKER_IDS_PER_SLOT, .outside = b->layer_base, .count = BROKER_IDS_PER_SLOT},
		{.inside = (LIMIT_SANDBOXES + 1) * BROKER_IDS_PER_SLOT, .outside = b->volume_base, .count = BROKER_IDS_PER_SLOT},
	};
	struct trash *t = b->trash;
	int wake[2], mounts[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, wake) < 0)
		return -errno;
	auto_fd our_wake = wake[0];
	auto_fd their_wake = wake[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, mounts) < 0)
		return -errno;
	auto_fd our_mounts = mounts[0];
	auto_fd their_mounts = mounts[1];
	int pidfd = -1;
	long pid = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(our_wake);
		close(our_mounts);
		worker(b->trash_fd, their_wake, their_mounts);
	}
	int r = idmap_write((pid_t)pid, row, row, ARRAY_SIZE(row));
	if (r == 0) {
		t->source = loop_fd_add(b->loop, pidfd, EPOLLIN, worker_ended, b);
		r = t->source ? 0 : -errno;
	}
	if (r < 0) {
		siginfo_t info;

		ignore_result(kill((pid_t)pid, SIGKILL)); /* our own child, not yet reaped: it is there */
		ignore_result(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
		loop_fd_remove(t->source);
		t->source = NULL;
		close(pidfd);
		return r;
	}
	t->pidfd = pidfd;
	t->wake_fd = take_fd(&our_wake);
	t->mounts_fd = take_fd(&our_mounts);
	return 0;
}

static int tell_worker(int sock, const int *fd, size_t n_fds)
{
	char byte = '!';
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};

	return fdpass_send(sock, &iov, 1, fd, n_fds);
}

static void wake(struct broker *b)
{
	int r = b->trash->wake_fd < 0 ? start_worker(b) : 0;

	if (r == 0)
		r = tell_worker(b->trash->wake_fd, NULL, 0);
	if (r < 0 && r != -EAGAIN) /* so many messages wake it as well */
		log_error("trash is not emptied: no worker: %s", strerror(-r));
}

void trash_mounts(struct broker *b, int fd)
{
	if (fd < 0)
		return;
	int r = b->trash->mounts_fd < 0 ? -ESRCH : tell_worker(b->trash->mounts_fd, &fd, 1);

	close(fd); /* what did not reach it ends here and now */
	if (r < 0 && r != -EAGAIN && r != -ESRCH) {
		log_warn("who ends mounts of sandboxes is gone: the broker does until the trash has another worker: %s", strerror(-r));
		replace_fd(&b->trash->mounts_fd, -1);
	} else if (r == 0) {
		ignore_result(tell_worker(b->trash->mounts_fd, NULL, 0)); /* lost: the next ones say it */
	}
}

int trash_put(struct broker *b, int dir_fd, const char *name, uint32_t owner)
{
	char to[NAME_SIZE * 2 + 16];
	struct stat st;
	auto_fd fd = path_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	snprintf(to, sizeof(to), "%.80s.%llu", name, (unsigned long long)b->trash->number++);
	if (renameat(dir_fd, name, b->trash_fd, to) < 0)
		return -errno;
	disk_unlimit(b, fd);
	/*
	 * Renaming into another parent changes "..", so the worker has to own the directory itself; a volume's may have another
	 * owner.  Not before: as long as it has its name, who owns a volume says what it is.
	 */
	if ((st.st_uid != owner || st.st_gid != owner) && fchown(fd, owner, owner) < 0)
		log_error("trash: %.80s waits for the next start: %s", to, strerror(errno));
	wake(b);
	return 0;
}

/* Root's are volumes with an image whose broker was killed before they were the worker's: nothing else of root gets here. */
static void take_over(struct broker *b)
{
	auto_dir dir = path_dir(b->trash_fd);
	struct stat st;

	for (struct dirent *e; dir && (e = readdir(dir));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || fstatat(b->trash_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    st.st_uid != 0 || !S_ISDIR(st.st_mode))
			continue;
		auto_fd fd = path_open_beneath(b->trash_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
		int r = fd < 0 ? fd : fchown(fd, b->volume_base, b->volume_base) < 0 ? -errno : 0;
		if (r < 0)
			log_error("trash/%.64s stays: %s", e->d_name, strerror(-r));
	}
}

void trash_start(struct broker *b)
{
	take_over(b); /* before the worker runs */
	wake(b);
}

int trash_init(struct broker *b)
{
	b->trash = calloc(1, sizeof(*b->trash));
	if (!b->trash)
		return -ENOMEM;
	b->trash->wake_fd = -1;
	b->trash->mounts_fd = -1;
	b->trash->pidfd = -1;
	/* names start anew with each broker; what an earlier one left has a smaller time in it */
	b->trash->number = (uint64_t)loop_now_ms(b->loop) << 20;
	return 0;
}
