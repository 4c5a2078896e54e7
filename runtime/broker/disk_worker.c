// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/disk_worker.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fdpass.h"
#include "runtime/broker/disk_loop.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TEMPLATES   8 /* sizes that need no mke2fs again; the oldest goes */
#define VOLUME_MODE 0755
#define SOCK_FD	    3
#define DIR_FD	    4

struct template {
	struct disk_form form;
	int fd; /* -1: none */
};

struct worker {
	uid_t format_uid;
	struct template template[TEMPLATES];
	unsigned next;
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

/* Return: descriptor of the new image @name; or -1 with @err set and no such file */
static int new_image(struct worker *w, const struct disk_form *form, const char *name, struct sbx_err *err)
{
	int template = template_for(w, form, err);

	if (template < 0)
		return -1;
	auto_fd fd = openat(DIR_FD, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sbx_err_set(err, errno == ENOSPC ? SBX_E_STATE_FULL : SBX_E_SYSTEM, errno, "file for a new disk");
	write_in_place(fd);
	int r = disk_format_copy(template, fd, form->bytes);
	if (r == 0 && FAULT_POINT("disk-copied"))
		r = -EIO;
	if (r == 0)
		return take_fd(&fd);
	ignore_result(unlinkat(DIR_FD, name, 0)); /* a left one goes at the next start */
	return sbx_err_set(err, r == -ENOSPC ? SBX_E_STATE_FULL : SBX_E_SYSTEM, -r, "write a new disk");
}

static int make(struct worker *w, const struct disk_job *job, struct sbx_err *err)
{
	auto_fd image = new_image(w, &job->form, job->name, err);

	if (image < 0)
		return -1;
	int fd = disk_loop_mount(image, 0, err);
	if (fd < 0)
		ignore_result(unlinkat(DIR_FD, job->name, 0));
	return fd;
}

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

/* Under another name first: what has the volume's name is whole, whenever we are killed. */
static int make_volume(struct worker *w, const struct disk_job *job, struct sbx_err *err)
{
	char name[DISK_NAME_BYTES + 2];

	snprintf(name, sizeof(name), "t%s", job->name);
	auto_fd image = new_image(w, &job->form, name, err);
	int r = image < 0 ? -1 : fill_volume(image, job->owner, err);
	if (r == 0 && FAULT_POINT("disk-volume"))
		r = sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (r == 0 && (fsync(image) < 0 || renameat2(DIR_FD, name, DIR_FD, job->name, RENAME_NOREPLACE) < 0 || fsync(DIR_FD) < 0))
		r = sbx_err_set(err, SBX_E_SYSTEM, errno, "publish a new volume");
	if (r < 0 && image >= 0)
		ignore_result(unlinkat(DIR_FD, name, 0));
	return r;
}

static void wait_for(short events)
{
	struct pollfd sock = {.fd = SOCK_FD, .events = events};

	while (poll(&sock, 1, -1) < 0 && errno == EINTR)
		;
}

static void answer(const struct disk_job *job, int fd, const struct sbx_err *err)
{
	struct disk_done done = {.kind = job->kind, .bytes = job->form.bytes};
	struct iovec iov = {.iov_base = &done, .iov_len = sizeof(done)};

	memcpy(done.name, job->name, sizeof(done.name));
	if (err) {
		done.status = (int32_t)err->code;
		done.sys = err->sys;
		snprintf(done.text, sizeof(done.text), "%.*s", (int)sizeof(done.text) - 1, err->msg);
	}
	wait_for(POLLOUT);
	if (fdpass_send(SOCK_FD, &iov, 1, &fd, fd < 0 ? 0 : 1) < 0)
		_exit(1); /* the broker is gone: what was made goes with us */
}

static void serve(struct worker *w, const struct disk_job *job, int passed)
{
	struct sbx_err err = {0};

	if (job->kind == DISK_JOB_END) {
		if (passed >= 0)
			disk_loop_throw_away(passed);
		return;
	}
	if (passed >= 0)
		close(passed);
	auto_fd fd = job->kind == DISK_JOB_MAKE ? make(w, job, &err) : -1;
	int r = job->kind == DISK_JOB_MAKE ? fd : job->kind == DISK_JOB_VOLUME ? make_volume(w, job, &err) : 0;
	if (FAULT_POINT("disk-made"))
		return;
	answer(job, fd, r < 0 ? &err : NULL);
}

_Noreturn void disk_worker_run(const struct disk_worker_config *config)
{
	static struct worker worker;
	struct disk_job job;
	int sock = fcntl(config->sock, F_DUPFD_CLOEXEC, 64), dir = fcntl(config->dir_fd, F_DUPFD_CLOEXEC, 64);

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || sock < 0 || dir < 0 || dup3(sock, SOCK_FD, O_CLOEXEC) < 0 ||
	    dup3(dir, DIR_FD, O_CLOEXEC) < 0 || syscall(SYS_close_range, DIR_FD + 1, ~0u, 0) < 0)
		_exit(1);
	worker.format_uid = config->format_uid;
	for (size_t i = 0; i < TEMPLATES; i++)
		worker.template[i].fd = -1;
	for (;;) {
		int fd = -1;
		size_t n_fds = 0;

		wait_for(POLLIN);
		ssize_t n = fdpass_recv(SOCK_FD, &job, sizeof(job), &fd, 1, &n_fds);

		if (n == -EAGAIN || n == -EINTR)
			continue;
		if (n != sizeof(job))
			_exit(n == 0 ? 0 : 1);
		job.name[sizeof(job.name) - 1] = '\0';
		serve(&worker, &job, n_fds ? fd : -1);
	}
}
