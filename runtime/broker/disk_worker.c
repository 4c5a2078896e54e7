// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/disk_worker.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fdpass.h"
#include "runtime/broker/capset.h"
#include "runtime/broker/disk_loop.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEMPLATES   8 /* sizes that need no mke2fs again; the oldest goes */
#define VOLUME_MODE 0755
#define SOCK_FD	    3
#define DIR_FD	    4
#define VOLUMES_FD  5
#define CHILDREN    32 /* above, a job is done in line */
#define HUGE_BYTES  (UINT64_C(64) << 30)

struct template {
	struct disk_form form;
	int fd; /* -1: none */
};

/* A job that a child does; its answer is its own, unless it is killed. */
struct child {
	pid_t pid;
	int pidfd;
	struct disk_job job;
};

struct worker {
	uid_t format_uid;
	struct template template[TEMPLATES];
	unsigned next;
	struct child child[CHILDREN];
	nfds_t n_children;
};

static int template_for(struct worker *w, const struct disk_form *form, struct sbx_err *err)
{
	for (size_t i = 0; i < TEMPLATES; i++) {
		const struct template *t = &w->template[i];

		if (t->fd >= 0 && t->form.bytes == form->bytes && t->form.bytes_per_inode == form->bytes_per_inode &&
		    t->form.journal == form->journal)
			return t->fd;
	}
	int fd = disk_format_template(DIR_FD, form, w->format_uid, err);
	if (fd < 0)
		return -1;
	struct template *t = &w->template[w->next++ % TEMPLATES];
	replace_fd(&t->fd, fd);
	t->form = *form;
	return fd;
}

/* btrfs would copy each block that the file system inside writes again; others refuse the flag and do not need it. */
static void write_in_place(int fd)
{
	int flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_NOCOW_FL;
		ignore_result(ioctl(fd, FS_IOC_SETFLAGS, &flags));
	}
}

/* Return: descriptor of the new image @name in @dir_fd; or -1 with @err set and no such file */
static int new_image(struct worker *w, const struct disk_form *form, int dir_fd, const char *name, struct sbx_err *err)
{
	int template = template_for(w, form, err);

	if (template < 0)
		return -1;
	auto_fd fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sbx_err_set(err, errno == ENOSPC ? SBX_E_STATE_FULL : SBX_E_SYSTEM, errno, "file for a new disk");
	write_in_place(fd);
	int r = disk_format_copy(template, fd, form->bytes);
	if (r == 0 && form->reserve && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)form->bytes) < 0)
		r = -errno;
	if (r == 0 && FAULT_POINT("disk-copied"))
		r = -EIO;
	if (r == 0)
		return take_fd(&fd);
	ignore_result(unlinkat(dir_fd, name, 0)); /* a left one goes at the next start */
	return sbx_err_set(err, r == -ENOSPC ? SBX_E_STATE_FULL : SBX_E_SYSTEM, -r, "write a new disk");
}

static int make(struct worker *w, const struct disk_job *job, struct sbx_err *err)
{
	auto_fd image = new_image(w, &job->form, DIR_FD, job->name, err);

	if (image < 0)
		return -1;
	int fd = disk_loop_mount(image, 0, err);
	if (fd < 0)
		ignore_result(unlinkat(DIR_FD, job->name, 0));
	return fd;
}

/* ---- volumes ---- */

/* The directory that sandboxes see is made once, while nobody else has the file system. */
static int fill_volume(int image, uint32_t owner, struct sbx_err *err)
{
	auto_fd mount = disk_loop_mount(image, 0, err);

	if (mount < 0)
		return -1;
	if (mkdirat(mount, DISK_VOLUME_DIR, VOLUME_MODE) < 0 || fchownat(mount, DISK_VOLUME_DIR, owner, owner, AT_SYMLINK_NOFOLLOW) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "directory of a new volume");
	auto_fd root = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root < 0 || syncfs(root) < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "write a new volume") : 0;
}

static void unmake(const char *name, int dir)
{
	if (dir >= 0)
		ignore_result(unlinkat(dir, DISK_IMAGE, 0));
	ignore_result(unlinkat(DIR_FD, name, AT_REMOVEDIR)); /* a left one goes at the next start */
}

/*
 * One rename publishes the directory with the image: what has the volume's name is whole, whenever we are killed.  A failure
 * leaves it unpublished; where that cannot be, it is there.
 */
static int publish(const char *name, const struct disk_job *job, int dir, struct sbx_err *err)
{
	if (FAULT_POINT("disk-volume"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (fsync(dir) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "write a new volume");
	if (renameat2(DIR_FD, name, VOLUMES_FD, job->name, RENAME_NOREPLACE) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "a volume of this name");
	int r = FAULT_POINT("disk-published") ? -EIO : fsync(VOLUMES_FD) < 0 ? -errno : 0;
	if (r == 0 || renameat2(VOLUMES_FD, job->name, DIR_FD, name, RENAME_NOREPLACE) < 0)
		return 0;
	return sbx_err_set(err, SBX_E_SYSTEM, -r, "write a new volume");
}

static int make_volume(struct worker *w, const struct disk_job *job, struct sbx_err *err)
{
	char name[DISK_NAME_BYTES + 32];
	struct stat st;

	if (fstatat(VOLUMES_FD, job->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return sbx_err_set(err, SBX_E_SYSTEM, EEXIST, "a volume of this name");
	snprintf(name, sizeof(name), "t%d.%.*s", (int)getpid(), (int)DISK_NAME_BYTES, job->name);
	/* EEXIST is what says that the volume was there: of the temporary name it says something else */
	if (mkdirat(DIR_FD, name, 0700) < 0)
		return sbx_err_set(err, errno == ENOSPC ? SBX_E_STATE_FULL : SBX_E_SYSTEM, errno == EEXIST ? EBUSY : errno, "directory of a new volume");
	auto_fd dir = openat(DIR_FD, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	auto_fd image = dir < 0 ? -1 : new_image(w, &job->form, dir, DISK_IMAGE, err);
	int r = image < 0 ? -1 : fill_volume(image, job->owner, err);
	if (r == 0 && fsync(image) < 0)
		r = sbx_err_set(err, SBX_E_SYSTEM, errno, "write a new volume");
	if (r == 0)
		r = publish(name, job, dir, err);
	if (r < 0)
		unmake(name, dir);
	return r;
}

/*
 * Safe: the directory and the image belong to root, which nothing that a sandbox makes in a volume ever does, so the image is
 * one that we made.
 */
static int open_volume(const struct disk_job *job, struct sbx_err *err)
{
	struct stat st;
	auto_fd dir = openat(VOLUMES_FD, job->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir < 0 || fstat(dir, &st) < 0 || st.st_uid != 0)
		return sbx_err_set(err, SBX_E_VOLUME_NOT_FOUND, errno, "volume %.63s", job->name);
	return take_fd(&dir);
}

static int open_image(const struct disk_job *job, int dir, struct stat *ret, struct sbx_err *err)
{
	auto_fd image = openat(dir, DISK_IMAGE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

	if (image < 0 || fstat(image, ret) < 0 || ret->st_uid != 0 || !S_ISREG(ret->st_mode))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "image of the volume %.63s", job->name);
	return take_fd(&image);
}

static int attach_volume(const struct disk_job *job, struct sbx_err *err)
{
	struct stat st;
	struct sbx_err unheard;
	unsigned flags = job->form.reserve ? 0 : DISK_LOOP_DISCARD; /* what is reserved is not given back */
	auto_fd dir = open_volume(job, err);
	auto_fd image = dir < 0 ? -1 : open_image(job, dir, &st, err);

	if (image < 0)
		return -1;
	if (!disk_loop_filled(image, (uint64_t)st.st_size) && capset_has_resource())
		ignore_result(disk_loop_grow(image, (uint64_t)st.st_size, flags, &unheard)); /* a growth that was cut off; it works as it is, too */
	return disk_loop_mount(image, flags, err);
}

/* One at a time, whoever asks: the file never becomes shorter.  Safe: as attach_volume(). */
static int grow_volume(const struct disk_job *job, struct sbx_err *err)
{
	struct stat st;
	auto_fd dir = open_volume(job, err);
	auto_fd image = dir < 0 ? -1 : open_image(job, dir, &st, err);

	if (image < 0)
		return -1;
	if (flock(dir, LOCK_EX) < 0 || fstat(image, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "image of the volume %.63s", job->name);
	const unsigned flags = job->form.reserve ? 0 : DISK_LOOP_DISCARD;
	uint64_t now = (uint64_t)st.st_size;
	/* A growth that was cut off is finished for those who have the volume already: who asks again is not told that it is there. */
	if (now >= job->form.bytes)
		return disk_loop_filled(image, now) || !capset_has_resource() ? 0 : disk_loop_grow(image, now, flags, err);
	if (!capset_has_resource())
		return sbx_err_set(err, SBX_E_VOLUME_SIZE, 0,
				   "the volume %.63s has %llu MiB, not %llu: this host lacks CAP_SYS_RESOURCE, without which it cannot be made larger",
				   job->name, (unsigned long long)(now >> 20), (unsigned long long)(job->form.bytes >> 20));
	if (job->form.reserve && fallocate(image, FALLOC_FL_KEEP_SIZE, (off_t)now, (off_t)(job->form.bytes - now)) < 0) {
		sbx_err_set(err, errno == ENOSPC ? SBX_E_STATE_FULL : SBX_E_SYSTEM, errno, "volume %.63s", job->name);
		ignore_result(ftruncate(image, (off_t)now)); /* gives back what it got, which its end does too */
		return -1;
	}
	if (ftruncate(image, (off_t)job->form.bytes) < 0)
		return sbx_err_set(err, errno == ENOSPC ? SBX_E_STATE_FULL : SBX_E_SYSTEM, errno, "volume %.63s", job->name);
	ignore_result(FAULT_POINT("volume-longer")); /* killed here: the file is longer, and nothing else */
	return disk_loop_grow(image, job->form.bytes, flags, err);
}

/* ---- jobs ---- */

static void answer(const struct disk_job *job, int fd, const struct sbx_err *err)
{
	struct disk_done done = {.kind = job->kind, .tag = job->tag, .bytes = job->form.bytes};
	struct iovec iov = {.iov_base = &done, .iov_len = sizeof(done)};

	memcpy(done.name, job->name, sizeof(done.name));
	if (err) {
		done.status = (int32_t)err->code;
		done.sys = err->sys;
		snprintf(done.text, sizeof(done.text), "%.*s", (int)sizeof(done.text) - 1, err->msg);
	}
	struct pollfd sock = {.fd = SOCK_FD, .events = POLLOUT};

	int r;

	do { /* several processes answer: the room that was there may be another's by now */
		while (poll(&sock, 1, -1) < 0 && errno == EINTR)
			;
		r = fdpass_send(SOCK_FD, &iov, 1, &fd, fd < 0 ? 0 : 1);
	} while (r == -EAGAIN);
	if (r < 0)
		_exit(1); /* the broker is gone: what was made goes with us */
}

static void serve(struct worker *w, const struct disk_job *job, int passed)
{
	struct sbx_err err = {0};
	auto_fd mount = -1;
	int r = 0;

	if (job->kind == DISK_JOB_END) {
		disk_loop_throw_away(passed);
		return;
	}
	if (job->kind == DISK_JOB_CLOSE) {
		ignore_result(FAULT_POINT("disk-close"));
		close_keep_errno(passed);
		return;
	}
	if (job->kind == DISK_JOB_VOLUME)
		r = make_volume(w, job, &err);
	else if (job->kind == DISK_JOB_GROW)
		r = grow_volume(job, &err);
	else
		r = mount = job->kind == DISK_JOB_MAKE ? make(w, job, &err) : attach_volume(job, &err);
	if (!FAULT_POINT("disk-made"))
		answer(job, mount, r < 0 ? &err : NULL);
}

static void child_ended(struct worker *w, nfds_t i)
{
	struct child ended = w->child[i];
	struct sbx_err err;
	int status = 0;

	w->child[i] = w->child[--w->n_children];
	close(ended.pidfd);
	while (waitpid(ended.pid, &status, 0) < 0 && errno == EINTR)
		;
	if ((WIFEXITED(status) && WEXITSTATUS(status) == 0) || ended.job.kind == DISK_JOB_END || ended.job.kind == DISK_JOB_CLOSE)
		return;
	sbx_err_set(&err, SBX_E_START_FAILED, 0, "the process that makes or mounts a disk ended");
	answer(&ended.job, -1, &err);
}

/* Until the broker says something; meanwhile children end. */
static void wait_for_job(struct worker *w)
{
	struct pollfd fds[1 + CHILDREN] = {{.fd = SOCK_FD, .events = POLLIN}};

	do {
		nfds_t n = w->n_children;

		for (nfds_t i = 0; i < n; i++)
			fds[1 + i] = (struct pollfd){.fd = w->child[i].pidfd, .events = POLLIN};
		if (poll(fds, 1 + n, -1) < 0)
			continue;
		for (nfds_t i = n; i-- > 0;) /* from the end: the last takes the place of one that goes */
			if (fds[1 + i].revents)
				child_ended(w, i);
	} while (!fds[0].revents);
}

/* Its template alone may take seconds, which nobody else should wait for. */
static bool is_huge(const struct disk_job *job)
{
	return (job->kind == DISK_JOB_MAKE || job->kind == DISK_JOB_VOLUME) && job->form.bytes > HUGE_BYTES;
}

/* Return: whether a child does the job now */
static bool delegate(struct worker *w, const struct disk_job *job, int passed)
{
	struct child *c = &w->child[w->n_children];
	int pidfd = -1;

	if ((job->kind == DISK_JOB_MAKE && !is_huge(job)) || w->n_children == CHILDREN)
		return false;
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
	if (pid < 0)
		return false;
	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
			_exit(1);
		serve(w, job, passed);
		_exit(0);
	}
	*c = (struct child){.pid = (pid_t)pid, .pidfd = pidfd, .job = *job};
	w->n_children++;
	close_keep_errno(passed);
	return true;
}

static void start(struct worker *w, const struct disk_job *job, int passed)
{
	struct sbx_err err;

	/* Made here, where later ones find it; a failure is told by who needs it. */
	if (job->kind == DISK_JOB_VOLUME && !is_huge(job))
		ignore_result(template_for(w, &job->form, &err));
	if (delegate(w, job, passed))
		return;
	if (!is_huge(job)) {
		serve(w, job, passed);
		return;
	}
	sbx_err_set(&err, SBX_E_LIMIT, 0, "too many disks are being made for one of this size; try again");
	answer(job, -1, &err);
}

_Noreturn void disk_worker_run(const struct disk_worker_config *config)
{
	static struct worker worker;
	struct disk_job job;
	int sock = fcntl(config->sock, F_DUPFD_CLOEXEC, 64), dir = fcntl(config->dir_fd, F_DUPFD_CLOEXEC, 64);
	int volumes = fcntl(config->volumes_fd, F_DUPFD_CLOEXEC, 64);

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || sock < 0 || dir < 0 || volumes < 0 || dup3(sock, SOCK_FD, O_CLOEXEC) < 0 ||
	    dup3(dir, DIR_FD, O_CLOEXEC) < 0 || dup3(volumes, VOLUMES_FD, O_CLOEXEC) < 0 || syscall(SYS_close_range, VOLUMES_FD + 1, ~0u, 0) < 0)
		_exit(1);
	worker.format_uid = config->format_uid;
	for (size_t i = 0; i < TEMPLATES; i++)
		worker.template[i].fd = -1;
	for (;;) {
		int fd = -1;
		size_t n_fds = 0;

		wait_for_job(&worker);
		ssize_t n = fdpass_recv(SOCK_FD, &job, sizeof(job), &fd, 1, &n_fds);

		if (n == -EAGAIN || n == -EINTR)
			continue;
		if (n != sizeof(job))
			_exit(n == 0 ? 0 : 1);
		job.name[sizeof(job.name) - 1] = '\0';
		start(&worker, &job, n_fds ? fd : -1);
	}
}
