// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/disk.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/path.h"
#include "base/reaper.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/disk_loop.h"
#include "runtime/broker/disk_worker.h"
#include "runtime/broker/idmap.h"
#include "runtime/broker/launch.h"
#include "runtime/broker/slot.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#define MIB		  (UINT64_C(1) << 20)
#define POOL_MAX	  64
#define FULL_DIVISOR	  20 /* below a twentieth free, only what fits is begun */
#define UPPER_MODE	  0755
#define PATH_SIZE	  64
#define ID_FORMAT	  0x3f000u /* below id_base, in our own range: mke2fs runs as it */
#define NAME_POOL	  "p%llu"
#define VOLUME_JOBS	  16
#define VOLUME_MODE	  0755

enum backend { BACKEND_NONE = 0, BACKEND_QUOTA, BACKEND_LOOP };

struct disk_mounts {
	uint32_t next; /* the one that is waited for */
	int fd[BROKER_MAX_VOLUMES]; /* -1: none */
};

struct volume_job {
	struct broker_asker asker;
	bool used;
};

struct ready {
	int fd; /* the mount */
	uint32_t mib;
	char name[DISK_NAME_BYTES];
};

struct disk {
	enum backend backend;
	char lacks[BROKER_TEXT_BYTES]; /* BACKEND_NONE: why */
	int dir_fd;
	uint32_t bytes_per_inode;
	struct ready ready[POOL_MAX];
	uint32_t n_ready, n_asked;
	uint32_t next_mib; /* what the pool is filled with; 0: with nothing */
	uint64_t number;   /* of the next image */
	struct volume_job volume_job[VOLUME_JOBS];
	uint32_t next_project; /* to be tried for the next volume */
	int sock;	   /* to the worker; -1: none runs */
	int pidfd;
	struct loop_fd *sock_source, *pid_source;
	struct reaper *reaper; /* owned; of workers that are no longer ours to ask */
};

/* ---- start ---- */

static void sweep(int dir_fd)
{
	auto_dir dir = path_dir(dir_fd);

	for (struct dirent *e; dir && (e = readdir(dir));) {
		if (e->d_name[0] == '.' || unlinkat(dir_fd, e->d_name, 0) == 0)
			continue;
		/* a volume that was being made: a directory of ours with the image at most */
		auto_fd half = path_open_beneath(dir_fd, e->d_name, O_RDONLY | O_DIRECTORY);
		if (half >= 0)
			ignore_result(unlinkat(half, DISK_IMAGE, 0));
		if (unlinkat(dir_fd, e->d_name, AT_REMOVEDIR) < 0)
			log_warn("disks/%.64s of an earlier broker stays: %s", e->d_name, strerror(errno));
	}
}

static void choose(struct broker *b, struct disk *d)
{
	const char *wish = b->settings.limits_disk_backend, *what = "";
	bool any = !strcmp(wish, "auto");
	int r = any || !strcmp(wish, "loop") ? disk_loop_ready(&what) : 0;

	if ((any || !strcmp(wish, "quota")) && disk_quota_enforced(b->state_fd))
		d->backend = BACKEND_QUOTA;
	else if (!strcmp(wish, "none"))
		snprintf(d->lacks, sizeof(d->lacks), "limits.disk_backend is \"none\"");
	else if (!strcmp(wish, "quota"))
		snprintf(d->lacks, sizeof(d->lacks), "the file system of the state directory enforces no project quotas");
	else if (r < 0)
		snprintf(d->lacks, sizeof(d->lacks), "no project quotas on the state directory, and no loop images: %s: %s", what, strerror(-r));
	else if (!disk_format_ready())
		snprintf(d->lacks, sizeof(d->lacks), "no project quotas on the state directory, and no mke2fs (package e2fsprogs) for loop images");
	else
		d->backend = BACKEND_LOOP;
}

int disk_init(struct broker *b, uint32_t mib, struct sbx_err *err)
{
	static const char *const wishes[] = {"auto", "quota", "loop", "none"};
	struct disk *d = calloc(1, sizeof(*d));
	bool known = false;

	if (!d)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "disks");
	*d = (struct disk){.sock = -1, .pidfd = -1, .bytes_per_inode = (uint32_t)b->settings.limits_disk_bytes_per_inode};
	b->disk = d;
	d->reaper = reaper_new(b->loop, NULL, NULL, err);
	if (!d->reaper)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(wishes); i++)
		known |= !strcmp(b->settings.limits_disk_backend, wishes[i]);
	if (!known)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "limits.disk_backend \"%.32s\" is not auto, quota, loop or none",
				   b->settings.limits_disk_backend);
	d->dir_fd = path_make_dir(b->state_fd, "disks", 0, 0, 0700);
	if (d->dir_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -d->dir_fd, "directory disks of the state directory");
	sweep(d->dir_fd);
	choose(b, d);
	disk_note(b, mib);
	log_info("disk limits: %s", d->backend == BACKEND_QUOTA ? "project quotas" : d->backend == BACKEND_LOOP ? "loop images" : d->lacks);
	return 0;
}

/* ---- what may be asked for ---- */

/* A disk of @mib MiB of which @more are not there yet. */
static int room_for(const struct broker *b, uint32_t mib, uint32_t more, struct sbx_err *err)
{
	struct statfs fs;

	if (fstatfs(b->state_fd, &fs) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", b->state_dir);
	uint64_t block = (uint64_t)fs.f_bsize, total = fs.f_blocks * block, left = fs.f_bavail * block;
	if (mib * MIB > total)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "a disk of %u MiB: the file system of the state directory has %llu MiB", mib,
				   (unsigned long long)(total / MIB));
	if (more * MIB > left && (b->settings.limits_disk_reserve || left < total / FULL_DIVISOR))
		return sbx_err_set(err, SBX_E_STATE_FULL, 0, "the file system of the state directory has %llu MiB left for a disk of %u MiB",
				   (unsigned long long)(left / MIB), mib);
	return 0;
}

int disk_check(const struct broker *b, uint32_t mib, struct sbx_err *err)
{
	if (!mib)
		return 0;
	if (b->disk->backend == BACKEND_NONE)
		return sbx_err_set(err, SBX_E_HOST_LACKS, 0, "disk limits cannot be enforced here: %s", b->disk->lacks);
	if (mib < LIMIT_DISK_MIN_MIB)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "a disk of %u MiB: it has to have %u MiB at least", mib, LIMIT_DISK_MIN_MIB);
	return room_for(b, mib, mib, err);
}

uint32_t disk_of_root(const struct broker *b, uint32_t mib)
{
	return b->disk->backend == BACKEND_LOOP && !FAULT_POINT("disk-unlimited") ? mib : 0;
}

void disk_note(struct broker *b, uint32_t mib)
{
	if (mib)
		b->disk->next_mib = mib;
}

/* ---- the worker ---- */

static void worker_gone(struct broker *b)
{
	struct disk *d = b->disk;
	struct sbx_err err;

	loop_fd_remove(d->sock_source);
	loop_fd_remove(d->pid_source);
	d->sock_source = d->pid_source = NULL;
	if (d->pidfd >= 0)
		reaper_kill(d->reaper, take_fd(&d->pidfd)); /* the loop does not wait for its end, and the next job finds another one */
	replace_fd(&d->sock, -1);
	d->n_asked = 0;
	sbx_err_set(&err, SBX_E_START_FAILED, 0, "the process that makes disks ended");
	log_error("%s", err.msg);
	for (uint32_t i = 0; i < VOLUME_JOBS; i++)
		if (d->volume_job[i].used) {
			d->volume_job[i].used = false;
			broker_volume_done(b, &d->volume_job[i].asker, false, &err);
		}
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++)
		if (b->slot[i].disk_waits || b->slot[i].volume_waits)
			launch_disk_done(b, &b->slot[i], &err);
}

static void worker_ended(void *arg, int fd, uint32_t events)
{
	(void)fd, (void)events;
	worker_gone(arg);
}

static void serve_waiters(struct broker *b)
{
	struct sbx_err err = {0};

	for (uint32_t i = 0; i < LIMIT_SANDBOXES && b->disk->n_ready; i++) {
		struct slot *s = &b->slot[i];

		if (!s->disk_waits)
			continue;
		int r = disk_take(b, s, s->disk_mib, &err);
		if (r)
			launch_disk_done(b, s, r < 0 ? &err : NULL);
	}
}

static void fail_waiters(struct broker *b, uint32_t mib, const struct sbx_err *err)
{
	bool told = false;

	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++)
		if (b->slot[i].disk_waits && b->slot[i].disk_mib == mib) {
			launch_disk_done(b, &b->slot[i], err);
			told = true;
		}
	if (!told)
		log_error("pool of disks: %s", err->msg);
	if (b->disk->next_mib == mib)
		b->disk->next_mib = 0; /* until a create asks again: else it fails for ever */
}

static void forget(struct broker *b, uint32_t at);

static void made(struct broker *b, const struct disk_done *done, int fd)
{
	struct disk *d = b->disk;
	struct sbx_err err;

	d->n_asked -= d->n_asked > 0;
	if (done->status) {
		sbx_err_set(&err, (enum sbx_err_code)done->status, 0, "%s", done->text);
		fail_waiters(b, (uint32_t)(done->bytes / MIB), &err);
		return;
	}
	if (d->n_ready == POOL_MAX)
		forget(b, 0); /* not this one: it may be what a create waits for */
	struct ready *ready = &d->ready[d->n_ready++];
	*ready = (struct ready){.fd = fd, .mib = (uint32_t)(done->bytes / MIB)};
	memcpy(ready->name, done->name, sizeof(ready->name));
	serve_waiters(b);
}

static void volume_made(struct broker *b, const struct disk_done *done)
{
	struct volume_job *job = done->tag < VOLUME_JOBS ? &b->disk->volume_job[done->tag] : NULL;
	struct sbx_err err;

	if (!job || !job->used)
		return;
	job->used = false;
	sbx_err_set(&err, (enum sbx_err_code)done->status, 0, "%s", done->text);
	/* there since it was looked for: two asked at once */
	bool existed = done->status ? done->sys == EEXIST : done->kind == DISK_JOB_GROW;
	broker_volume_done(b, &job->asker, existed, done->status && !existed ? &err : NULL);
}

static void give_back(struct broker *b, int fd);

static void volume_attached(struct broker *b, const struct disk_done *done, int fd)
{
	const struct broker_slot_ref ref = {.slot = (uint32_t)(done->tag >> 32), .generation = (uint32_t)done->tag};
	struct slot *s = slot_by_ref(b, &ref);
	struct sbx_err err;

	if (!s || !s->volume_waits || !s->mounts) {
		give_back(b, fd);
		return;
	}
	sbx_err_set(&err, (enum sbx_err_code)done->status, 0, "%s", done->text);
	s->mounts->fd[s->mounts->next] = fd;
	launch_disk_done(b, s, done->status ? &err : NULL);
}

static void on_worker(void *arg, int sock, uint32_t events)
{
	struct broker *b = arg;
	struct disk_done done;
	int fd = -1;
	size_t n_fds = 0;

	(void)events;
	ssize_t n = fdpass_recv(sock, &done, sizeof(done), &fd, 1, &n_fds);
	if (n == -EAGAIN)
		return;
	bool good = n == sizeof(done) && !done.name[sizeof(done.name) - 1] && !done.text[sizeof(done.text) - 1] && done.status >= 0 &&
		    done.status < SBX_E_COUNT && (done.kind != DISK_JOB_VOLUME && done.kind != DISK_JOB_GROW && !done.status ? n_fds == 1 : n_fds == 0);
	if (good && done.kind == DISK_JOB_MAKE) {
		made(b, &done, fd);
	} else if (good && done.kind == DISK_JOB_ATTACH) {
		volume_attached(b, &done, fd);
	} else if (good && (done.kind == DISK_JOB_VOLUME || done.kind == DISK_JOB_GROW)) {
		volume_made(b, &done);
	} else {
		close_keep_errno(fd); /* it is on its way out, or does not keep the protocol */
		worker_gone(b);
	}
}

static int start_worker(struct broker *b, struct sbx_err *err)
{
	struct disk *d = b->disk;
	int pair[2], pidfd = -1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "socket of the process that makes disks");
	auto_fd ours = pair[0];
	auto_fd theirs = pair[1];
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
	if (pid < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "start the process that makes disks");
	if (pid == 0)
		disk_worker_run(&(struct disk_worker_config){.sock = theirs, .dir_fd = d->dir_fd, .volumes_fd = b->volumes_fd, .format_uid = b->id_base - ID_FORMAT});
	d->pidfd = pidfd;
	d->sock = take_fd(&ours);
	d->sock_source = loop_fd_add(b->loop, d->sock, EPOLLIN, on_worker, b);
	d->pid_source = loop_fd_add(b->loop, d->pidfd, EPOLLIN, worker_ended, b);
	if (d->sock_source && d->pid_source)
		return 0;
	worker_gone(b);
	return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "watch the process that makes disks");
}

/* Whether it has ended, which the loop will hear of in this turn or the next. */
static bool worker_left(const struct disk *d)
{
	struct pollfd fds[2] = {{.fd = d->sock}, {.fd = d->pidfd, .events = POLLIN}};

	return poll(fds, ARRAY_SIZE(fds), 0) > 0;
}

/* What is sent to one that has ended goes to the next: who waited for the old one is told, who asks now is not. */
static int send_job(struct broker *b, const struct disk_job *job, int fd, struct sbx_err *err)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)job, .iov_len = sizeof(*job)};
	struct disk *d = b->disk;
	int r = -EPIPE;

	for (int i = 0; i < 2 && (r == -EPIPE || r == -ECONNRESET); i++) {
		if (d->sock >= 0 && (i || worker_left(d)))
			worker_gone(b);
		if (d->sock < 0 && start_worker(b, err) < 0)
			return -1;
		r = fdpass_send(d->sock, &iov, 1, &fd, fd < 0 ? 0 : 1);
	}
	return r < 0 ? sbx_err_set(err, r == -EAGAIN ? SBX_E_LIMIT : SBX_E_SYSTEM, -r, "ask for a disk") : 0;
}

static int ask_one(struct broker *b, uint32_t mib, struct sbx_err *err)
{
	struct disk *d = b->disk;
	struct disk_job job = {.kind = DISK_JOB_MAKE, .form = {.bytes = mib * MIB, .bytes_per_inode = d->bytes_per_inode, .reserve = b->settings.limits_disk_reserve}};

	snprintf(job.name, sizeof(job.name), NAME_POOL, (unsigned long long)d->number++);
	if (send_job(b, &job, -1, err) < 0)
		return -1;
	d->n_asked++;
	return 0;
}

static void throw_away(struct broker *b, int fd)
{
	const struct disk_job job = {.kind = DISK_JOB_END};
	struct sbx_err err;

	/* The last close writes or drops what is not written yet: that is not for the loop. */
	if (send_job(b, &job, fd, &err) < 0) {
		log_warn("%s: the broker ends a disk itself", err.msg);
		disk_loop_throw_away(fd);
		return;
	}
	close(fd);
}

/* The mount of a volume's image, perhaps the last one: as throw_away(), but what was written is kept. */
static void give_back(struct broker *b, int fd)
{
	const struct disk_job job = {.kind = DISK_JOB_CLOSE};
	struct sbx_err err;

	if (fd >= 0 && send_job(b, &job, fd, &err) < 0)
		log_warn("%s: the broker closes a volume itself", err.msg);
	close_keep_errno(fd);
}

/* ---- the pool ---- */

static uint32_t target(const struct broker *b)
{
	uint32_t want = (uint32_t)b->settings.pool_disks;

	return b->disk->backend == BACKEND_LOOP && b->disk->next_mib ? want < POOL_MAX ? want : POOL_MAX : 0;
}

static const struct ready *other_size(const struct disk *d)
{
	for (uint32_t i = 0; i < d->n_ready; i++)
		if (d->ready[i].mib != d->next_mib)
			return &d->ready[i];
	return NULL;
}

bool disk_pool_lacks(const struct broker *b)
{
	const struct disk *d = b->disk;

	/* one at a time: what a create waits for comes before */
	return d->n_asked == 0 && (d->n_ready < target(b) || (d->n_ready && other_size(d)));
}

static void forget(struct broker *b, uint32_t at)
{
	struct disk *d = b->disk;

	if (unlinkat(d->dir_fd, d->ready[at].name, 0) < 0)
		log_warn("image %s of the pool stays: %s", d->ready[at].name, strerror(errno));
	throw_away(b, d->ready[at].fd);
	d->ready[at] = d->ready[--d->n_ready];
}

void disk_pool_step(struct broker *b)
{
	struct disk *d = b->disk;
	const struct ready *old = other_size(d);
	struct sbx_err err;

	if (old && d->n_ready >= target(b))
		forget(b, (uint32_t)(old - d->ready));
	if (d->n_ready < target(b) && d->n_asked == 0 && ask_one(b, d->next_mib, &err) < 0) {
		log_error("pool of disks: %s", err.msg);
		d->next_mib = 0;
	}
}

/* ---- a life ---- */

/* Whole projects of a slot's own id range; the low bits of a generation come back after 65536 lives, long after its trash. */
static uint32_t project(const struct broker *b, const struct slot *s)
{
	return slot_base(b, s) + (s->generation & (BROKER_IDS_PER_SLOT - 1));
}

bool disk_by_quota(const struct broker *b)
{
	return b->disk->backend == BACKEND_QUOTA;
}

int disk_tag(const struct broker *b, const struct slot *s, int dir_fd)
{
	return b->disk->backend == BACKEND_QUOTA ? disk_quota_tag(dir_fd, project(b, s)) : 0;
}

/* The root of the file system becomes what the directory of a life is: its owner's, with upper and work. */
static int hand_over(struct broker *b, struct slot *s, int fd)
{
	uint32_t base = slot_base(b, s);

	if (fchownat(fd, "", base, base, AT_EMPTY_PATH) < 0)
		return -errno;
	idmap_act_as(base);
	int r = mkdirat(fd, "upper", UPPER_MODE) < 0 || mkdirat(fd, "work", 0700) < 0 ? -errno : 0;
	idmap_act_as(0);
	return r;
}

int disk_take(struct broker *b, struct slot *s, uint32_t mib, struct sbx_err *err)
{
	struct disk *d = b->disk;
	char name[32];
	struct stat st;
	uint32_t at = 0;

	s->disk_mib = mib;
	while (at < d->n_ready && d->ready[at].mib != mib)
		at++;
	if (at == d->n_ready) {
		if (!s->disk_waits && ask_one(b, mib, err) < 0)
			return -1;
		s->disk_waits = true;
		return 0;
	}
	launch_dir_name(s, name);
	auto_fd dir = path_open_beneath(b->sandboxes_fd, name, O_RDONLY | O_DIRECTORY);
	int r = dir < 0 ? dir : renameat(d->dir_fd, d->ready[at].name, dir, DISK_IMAGE) < 0 ? -errno : 0;
	if (r == 0 && FAULT_POINT("disk-taken"))
		r = -EIO;
	if (r == 0)
		r = hand_over(b, s, d->ready[at].fd);
	s->disk_waits = false;
	s->disk_fd = d->ready[at].fd;
	s->disk_dev = fstat(s->disk_fd, &st) < 0 ? 0 : st.st_dev;
	d->ready[at] = d->ready[--d->n_ready];
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "disk of slot %u", s->number) : 1;
}

int disk_limit(const struct broker *b, const struct slot *s, uint32_t mib, struct sbx_err *err)
{
	if (b->disk->backend != BACKEND_QUOTA || !mib)
		return 0;
	uint64_t bytes = mib * MIB;
	int r = FAULT_POINT("disk-unlimited") ? 0 : disk_quota_limit(b->state_fd, project(b, s), bytes, bytes / b->disk->bytes_per_inode);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "project quota of slot %u", s->number) : 0;
}

void disk_end(struct broker *b, struct slot *s)
{
	int fd = s->disk_fd;

	s->disk_fd = -1;
	s->disk_dev = 0;
	s->disk_waits = false;
	/* its sandbox was not made, so that ours may be the last mount */
	for (size_t i = 0; s->mounts && i < BROKER_MAX_VOLUMES; i++)
		give_back(b, take_fd(&s->mounts->fd[i]));
	disk_forget(s);
	if (fd >= 0)
		throw_away(b, fd);
	/* A project without limits and without files leaves no entry in the quota file. */
	if (b->disk->backend == BACKEND_QUOTA && disk_quota_limit(b->state_fd, project(b, s), 0, 0) < 0)
		log_debug("quota of slot %u: %s", s->number, strerror(errno));
}

/*
 * Also those of lives whose end we did not see (the host went off) and of volumes: a limit without files would stay in the quota file for
 * good, and meet whoever gets the project's number again.
 */
void disk_unlimit(const struct broker *b, int dir_fd)
{
	uint32_t id = 0;

	if (!b->disk || b->disk->backend != BACKEND_QUOTA || disk_quota_project(dir_fd, &id) < 0)
		return;
	bool life = id - b->id_base < LIMIT_SANDBOXES * BROKER_IDS_PER_SLOT, volume = id - b->volume_base < BROKER_IDS_PER_SLOT;
	if ((life || volume) && disk_quota_limit(b->state_fd, id, 0, 0) < 0)
		log_warn("limit of project %u stays: %s", id, strerror(errno));
}

/* -EPERM is -1: errors are told by @err, so only -ENOENT stands apart. */
int disk_again(struct slot *s, int dir_fd, struct sbx_err *err)
{
	char name[64] = "/";
	struct stat st;
	auto_fd image = openat(dir_fd, DISK_IMAGE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

	if (image < 0 && errno == ENOENT)
		return -ENOENT;
	/* its directory is the owner's of the sandbox, who has no way to it; the image is ours */
	if (image < 0 || fstat(image, &st) < 0 || st.st_uid != 0 || !S_ISREG(st.st_mode))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "image of a disk");
	launch_dir_name(s, name + 1);
	strncat(name, "/" DISK_IMAGE, sizeof(name) - strlen(name) - 1);
	return disk_loop_again(image, &s->disk_dev, name, err);
}

void disk_read(const struct broker *b, const struct slot *s, struct disk_figures *ret)
{
	char path[PATH_SIZE], image[PATH_SIZE];
	struct statfs fs;
	struct stat st;

	memset(ret, 0, sizeof(*ret));
	if (b->disk->backend == BACKEND_QUOTA) {
		if (disk_quota_read(b->state_fd, project(b, s), ret) < 0)
			memset(ret, 0, sizeof(*ret));
		return;
	}
	launch_dir_name(s, image);
	strncat(image, "/" DISK_IMAGE, sizeof(image) - strlen(image) - 1);
	/* The image tells after a restart too that there is a limit, the root what is used: its upper is all that is in it. */
	snprintf(path, sizeof(path), "/proc/%d/root", (int)s->pid);
	if (fstatat(b->sandboxes_fd, image, &st, AT_SYMLINK_NOFOLLOW) < 0 || statfs(path, &fs) < 0)
		return;
	uint64_t block = (uint64_t)fs.f_bsize;
	*ret = (struct disk_figures){.limit_bytes = (uint64_t)st.st_size,
				     .used_bytes = (uint64_t)st.st_size - fs.f_bavail * block,
				     .used_inodes = fs.f_files - fs.f_ffree,
				     .limit_inodes = fs.f_files};
}

/* ---- volumes ---- */

/* Made by us and not by a sandbox: nothing in a volume ever belongs to root of the host. */
static bool has_image(int dir_fd, struct stat *ret)
{
	return fstat(dir_fd, ret) == 0 && ret->st_uid == 0 && fstatat(dir_fd, DISK_IMAGE, ret, AT_SYMLINK_NOFOLLOW) == 0 && ret->st_uid == 0 &&
	       S_ISREG(ret->st_mode);
}

/* MiB that the volume holds at most; 0: no bound */
static uint64_t volume_mib(const struct broker *b, int dir_fd, uint32_t *ret_project)
{
	struct disk_figures now = {0};
	struct stat st;

	*ret_project = 0;
	if (has_image(dir_fd, &st))
		return (uint64_t)st.st_size / MIB;
	if (b->disk->backend != BACKEND_QUOTA || disk_quota_project(dir_fd, ret_project) < 0 || !*ret_project ||
	    disk_quota_read(b->state_fd, *ret_project, &now) < 0)
		return 0;
	return now.limit_bytes / MIB;
}

static int limit_volume(const struct broker *b, uint32_t project, uint32_t mib, struct sbx_err *err)
{
	int r = disk_quota_limit(b->state_fd, project, mib * MIB, mib * MIB / b->disk->bytes_per_inode);

	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "project quota of a volume") : 0;
}

static int ask_volume(struct broker *b, enum disk_job_kind kind, const char *claim, uint32_t mib, const struct broker_asker *asker, struct sbx_err *err)
{
	struct disk_job job = {.kind = kind,
			       .owner = b->volume_base,
			       .form = {.bytes = mib * MIB, .bytes_per_inode = b->disk->bytes_per_inode, .journal = true, .reserve = b->settings.limits_disk_reserve}};

	while (job.tag < VOLUME_JOBS && b->disk->volume_job[job.tag].used)
		job.tag++;
	if (job.tag == VOLUME_JOBS)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "%d volumes are being made or grow", VOLUME_JOBS);
	snprintf(job.name, sizeof(job.name), "%s", claim);
	if (send_job(b, &job, -1, err) < 0)
		return -1;
	b->disk->volume_job[job.tag] = (struct volume_job){.asker = *asker, .used = true};
	return 2;
}

/* Whether the file system has all of its image, where the volume has one: a growth that was cut off leaves a longer file only. */
static bool volume_filled(int dir_fd)
{
	struct stat st;
	auto_fd image = has_image(dir_fd, &st) ? openat(dir_fd, DISK_IMAGE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;

	return image < 0 || disk_loop_filled(image, (uint64_t)st.st_size);
}

/* One that is there and perhaps smaller. */
static int fits_volume(struct broker *b, const char *claim, int dir_fd, uint32_t mib, const struct broker_asker *asker, struct sbx_err *err)
{
	uint32_t project = 0;
	uint64_t now = volume_mib(b, dir_fd, &project);

	if (!now)
		return 1;
	if (now >= mib)
		return volume_filled(dir_fd) ? 1 : ask_volume(b, DISK_JOB_GROW, claim, mib, asker, err);
	if (room_for(b, mib, mib - (uint32_t)now, err) < 0)
		return -1;
	if (project)
		return limit_volume(b, project, mib, err) < 0 ? -1 : 1;
	return ask_volume(b, DISK_JOB_GROW, claim, mib, asker, err);
}

/* A project of the volumes' id range that no volume has; walks over them, which are few. */
static uint32_t free_project(struct broker *b)
{
	static uint8_t used[BROKER_IDS_PER_SLOT / 8];
	auto_dir dir = path_dir(b->volumes_fd);
	uint32_t project;

	memset(used, 0, sizeof(used));
	for (struct dirent *e; dir && (e = readdir(dir));) {
		auto_fd fd = e->d_name[0] == '.' ? -1 : path_open_beneath(b->volumes_fd, e->d_name, O_RDONLY | O_DIRECTORY);

		if (fd >= 0 && disk_quota_project(fd, &project) == 0 && project - b->volume_base < BROKER_IDS_PER_SLOT)
			used[(project - b->volume_base) / 8] |= (uint8_t)(1u << (project - b->volume_base) % 8);
	}
	for (uint32_t i = 0; i < BROKER_IDS_PER_SLOT; i++) {
		uint32_t at = b->disk->next_project++ % BROKER_IDS_PER_SLOT;

		if (!(used[at / 8] & 1u << at % 8))
			return b->volume_base + at;
	}
	return 0;
}

/* Under another name first: what has the volume's name is bounded. */
static int make_quota_volume(struct broker *b, const char *claim, uint32_t mib, struct sbx_err *err)
{
	uint32_t project = free_project(b);
	char name[DISK_NAME_BYTES];

	snprintf(name, sizeof(name), "t%s", claim);
	auto_fd dir = path_make_dir(b->disk->dir_fd, name, b->volume_base, b->volume_base, VOLUME_MODE);
	int r = dir < 0 ? dir : !project ? -ENOSPC : disk_quota_tag(dir, project);
	if (r == 0 && limit_volume(b, project, mib, err) == 0 && renameat2(b->disk->dir_fd, name, b->volumes_fd, claim, RENAME_NOREPLACE) == 0)
		return 0;
	r = r ? r : -errno;
	ignore_result(unlinkat(b->disk->dir_fd, name, AT_REMOVEDIR)); /* a left one goes at the next start */
	return sbx_err_set(err, SBX_E_VOLUME_CREATE_FAILED, -r, "volume %s", claim);
}

int disk_volume(struct broker *b, const char *claim, uint32_t mib, bool at_least, const struct broker_asker *asker, struct sbx_err *err)
{
	auto_fd dir = path_open_beneath(b->volumes_fd, claim, O_RDONLY | O_DIRECTORY);

	if (dir >= 0)
		return at_least ? fits_volume(b, claim, dir, mib, asker, err) : 1;
	if (dir != -ENOENT)
		return sbx_err_set(err, SBX_E_VOLUME_CREATE_FAILED, -dir, "volume %s", claim);
	if (disk_check(b, mib, err) < 0)
		return -1;
	return b->disk->backend == BACKEND_QUOTA ? make_quota_volume(b, claim, mib, err) : ask_volume(b, DISK_JOB_VOLUME, claim, mib, asker, err);
}

int disk_volumes(struct broker *b, struct slot *s, struct sbx_err *err)
{
	for (uint32_t i = 0; i < s->create->n_volumes; i++) {
		const struct broker_volume *v = &s->create->volume[i];
		struct disk_job job = {.kind = DISK_JOB_ATTACH, .tag = (uint64_t)s->number << 32 | s->generation, .form = {.reserve = b->settings.limits_disk_reserve}};
		struct stat st;

		if (v->kind != BROKER_VOLUME_NAMED || disk_volume_fd(s, i) >= 0)
			continue;
		auto_fd dir = path_open_beneath(b->volumes_fd, v->claim, O_RDONLY | O_DIRECTORY);
		if (dir < 0 || !has_image(dir, &st))
			continue;
		if (!s->mounts) {
			s->mounts = malloc(sizeof(*s->mounts));
			if (!s->mounts)
				return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "volumes of slot %u", s->number);
			for (size_t k = 0; k < BROKER_MAX_VOLUMES; k++)
				s->mounts->fd[k] = -1;
		}
		snprintf(job.name, sizeof(job.name), "%s", v->claim);
		if (send_job(b, &job, -1, err) < 0)
			return -1;
		s->mounts->next = i;
		s->volume_waits = true;
		return 0;
	}
	return 1;
}

int disk_volume_fd(const struct slot *s, uint32_t i)
{
	return s->mounts ? s->mounts->fd[i] : -1;
}

void disk_forget(struct slot *s)
{
	for (size_t i = 0; s->mounts && i < BROKER_MAX_VOLUMES; i++)
		close_keep_errno(s->mounts->fd[i]);
	free(s->mounts);
	s->mounts = NULL;
	s->volume_waits = false;
}
