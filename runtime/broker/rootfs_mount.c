// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/rootfs_mount.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/path.h"
#include "base/wallclock.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/disk.h"
#include "runtime/broker/idmap.h"
#include "runtime/broker/launch.h"
#include "runtime/broker/layers.h"
#include "runtime/broker/lowers.h"
#include "runtime/broker/root_ahead.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* <sys/mount.h> of glibc and <linux/mount.h> exclude each other; these are the constants that only the former has. */
extern int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
extern int umount2(const char *target, int flags);
#define UNMOUNT_DETACH 2

#define STAGE_OPTIONS "mode=0700,size=1m"
#define LOWER_NAME_SIZE 12
#define LOWER_DIR "l"
#define MERGED_FROM_LOWERS "../m"
#define FSCONFIG_STRING 256
#define OVERLAY_OPTIONS_SIZE 1024
#define UPPER_FD_FROM 32 /* the upper is always named by the same number, so that mountinfo inside tells nothing */
#define MODE_DIR 0755
#define RUN_PATH_SIZE 160

struct overlay_names {
	const int *fd; /* detached lowers, lowest first; NULL: they are named by lower */
	uint32_t n_fds;
	char lower[(BROKER_MAX_LAYERS + 1) * 4];
	char upper[48], work[48];
};

/* clang-format off */
static const struct { const char *name; mode_t mode; unsigned major, minor; } devices[] = {
	{"null",    0666, 1, 3},
	{"zero",    0666, 1, 5},
	{"full",    0666, 1, 7},
	{"random",  0666, 1, 8},
	{"urandom", 0666, 1, 9},
	{"tty",     0666, 5, 0},
};

static const struct { const char *name, *target; } dev_links[] = {
	{"fd",	   "/proc/self/fd"},
	{"stdin",  "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"ptmx",   "pts/ptmx"},
};
/* clang-format on */

static const char *const dev_dirs[] = {"pts", "shm", "mqueue"};
/* What the host's administrator put there is not part of the image. */
static const char *const usr_covers[] = {"usr/local", "usr/src"};

static int sys_open_tree(int dir_fd, const char *path, unsigned flags)
{
	long fd = syscall(SYS_open_tree, dir_fd, path, flags | OPEN_TREE_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

static int sys_mount_setattr(int fd, unsigned flags, struct mount_attr *attr)
{
	return syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | flags, attr, sizeof(*attr)) < 0 ? -errno : 0;
}

static int sys_move_mount(int from_fd, int to_dir_fd, const char *to)
{
	return syscall(SYS_move_mount, from_fd, "", to_dir_fd, to, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

int rootfs_clone(int dir_fd, const char *name, bool read_only, int ns_fd)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (read_only ? MOUNT_ATTR_RDONLY : 0),
		.propagation = MS_PRIVATE,
	};
	auto_fd fd = sys_open_tree(dir_fd, name, OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH));

	if (fd < 0)
		return fd;
	if (ns_fd >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (unsigned)ns_fd;
	}
	int r = sys_mount_setattr(fd, 0, &attr);
	return r < 0 ? r : take_fd(&fd);
}

static int make_dev(void)
{
	if (mkdir("dev", MODE_DIR) < 0 ||
	    mount("dev", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k,nr_inodes=64") < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		char path[32];

		snprintf(path, sizeof(path), "dev/%s", devices[i].name);
		if (mknod(path, S_IFCHR | devices[i].mode, makedev(devices[i].major, devices[i].minor)) < 0 ||
		    chmod(path, devices[i].mode) < 0)
			return -errno;
	}
	for (size_t i = 0; i < ARRAY_SIZE(dev_links); i++) {
		char path[32];

		snprintf(path, sizeof(path), "dev/%s", dev_links[i].name);
		if (symlink(dev_links[i].target, path) < 0)
			return -errno;
	}
	for (size_t i = 0; i < ARRAY_SIZE(dev_dirs); i++) {
		char path[32];

		snprintf(path, sizeof(path), "dev/%s", dev_dirs[i]);
		if (mkdir(path, MODE_DIR) < 0)
			return -errno;
	}
	return 0;
}

/* The host's /usr, made once: copies of it are one system call each. */
static int make_usr(void)
{
	struct stat st;
	auto_fd fd = rootfs_clone(AT_FDCWD, "/usr", true, -1);

	if (fd < 0)
		return fd;
	if (mkdir("usr", MODE_DIR) < 0)
		return -errno;
	int r = sys_move_mount(fd, AT_FDCWD, "usr");
	for (size_t i = 0; i < ARRAY_SIZE(usr_covers) && r == 0; i++)
		if (lstat(usr_covers[i], &st) == 0 && S_ISDIR(st.st_mode) &&
		    mount("none", usr_covers[i], "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=4k,nr_inodes=2") < 0)
			r = -errno;
	return r;
}

int rootfs_records(const char *run_dir, struct sbx_err *err)
{
	char path[RUN_PATH_SIZE];
	struct statfs fs;

	snprintf(path, sizeof(path), "%s/slots", run_dir);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make %s", path);
	if (statfs(path, &fs) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", path);
	if (fs.f_type == TMPFS_MAGIC)
		return 0;
	if (mount("slots", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700,size=64m") < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "tmpfs on %s", path);
	return 0;
}

/*
 * ext4 does not take an inode again for 5 s after its removal and finds that out by a linear scan of the group's bitmap: with
 * sandboxes coming and going in one group each new file costs up to a millisecond.  A "top directory" spreads its children
 * over the groups.  Other file systems refuse the flag and do not need it.
 */
void rootfs_spread(int fd)
{
	int flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && !(flags & FS_TOPDIR_FL)) {
		flags |= FS_TOPDIR_FL;
		ignore_result(ioctl(fd, FS_IOC_SETFLAGS, &flags)); /* only speed depends on it */
	}
}

int rootfs_enter(struct sbx_err *err)
{
	/* Slave: what the host mounts or unmounts later is seen here, what we do is not seen there. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "own mount namespace");
	return 0;
}

int rootfs_init(struct broker *b, struct sbx_err *err)
{
	char path[sizeof(b->run_dir) + 8];

	snprintf(path, sizeof(path), "%s/stage", b->run_dir);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make %s", path);
	if (mount("stage", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, STAGE_OPTIONS) < 0 ||
	    mount(NULL, path, NULL, MS_PRIVATE, NULL) < 0 || chdir(path) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "staging tmpfs");
	b->stage_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	b->upper_fd = fcntl(b->null_fd, F_DUPFD_CLOEXEC, UPPER_FD_FROM);
	if (b->stage_fd < 0 || b->upper_fd < 0 || mkdir("m", MODE_DIR) < 0 || mkdir("u", 0700) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "staging tmpfs");
	if (mkdir(LOWER_DIR, 0700) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "staging tmpfs");
	/* one more, for an upper that is looked at */
	for (unsigned i = 0; i <= BROKER_MAX_LAYERS; i++) {
		char name[LOWER_NAME_SIZE + sizeof(LOWER_DIR)];

		snprintf(name, sizeof(name), LOWER_DIR "/%u", i);
		if (mkdir(name, 0700) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "staging tmpfs");
	}
	int r = make_dev();
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "/dev of the sandboxes");
	if (!b->settings.images_host)
		return 0;
	r = make_usr();
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "/usr for the host image");
	b->has_usr = true;
	return 0;
}

/* A copy of the mount at @path, without what is mounted below it, to @to. */
static int take_along(const char *path, const char *to)
{
	auto_fd fd = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE);

	if (fd < 0)
		return fd;
	return mkdir(to, MODE_DIR) < 0 ? -errno : sys_move_mount(fd, AT_FDCWD, to);
}

/*
 * Whoever is cloned copies all mounts that its parent sees, and takes them off again.  The host's /proc and /sys come along because the
 * kernel makes new ones only where full ones are visible.  Only what is found by name is of the new namespace: the working directory is
 * the staging tmpfs, as ever.
 */
int rootfs_leave_host(struct broker *b)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("shells", "u", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=64k,nr_inodes=16") < 0)
		return -errno;
	int r = take_along("/proc", "u/proc");
	if (r == 0)
		r = take_along("/sys", "u/sys");
	if (r == 0)
		r = take_along("dev", "u/dev");
	auto_fd root = open("u", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r < 0 || root < 0)
		return r < 0 ? r : -errno;
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", UNMOUNT_DETACH) < 0 || chdir("/") < 0 ||
	    dup3(root, b->stage_fd, O_CLOEXEC) < 0)
		return -errno;
	return 0;
}

int rootfs_dev(struct broker *b)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};
	auto_fd fd = sys_open_tree(b->stage_fd, "dev", OPEN_TREE_CLONE);

	if (fd < 0)
		return fd;
	int r = sys_mount_setattr(fd, 0, &attr);
	return r < 0 ? r : take_fd(&fd);
}

int rootfs_usr(struct broker *b)
{
	return sys_open_tree(b->stage_fd, "usr", OPEN_TREE_CLONE | AT_RECURSIVE);
}

int rootfs_helper(struct broker *b, struct slot *s, struct sbx_err *err)
{
	struct idmap_row row = {.inside = b->layer_base, .outside = slot_base(b, s), .count = BROKER_IDS_PER_SLOT};

	if (s->layer_ns_fd < 0)
		s->layer_ns_fd = idmap_namespace(&row, &row, 1, err);
	return s->layer_ns_fd;
}

/*
 * Lowers are attached below a mount that is made for them alone: taking that off takes all of them, in one step.  One umount for
 * each would wait for an RCU grace period each.  While it is there it is the working directory, so that their names are short.
 */
static int lowers_begin(struct broker *b)
{
	auto_fd fd = sys_open_tree(b->stage_fd, LOWER_DIR, OPEN_TREE_CLONE);
	int r = fd < 0 ? fd : sys_move_mount(fd, b->stage_fd, LOWER_DIR);

	if (r == 0 && fchdir(fd) < 0) {
		r = -errno;
		if (umount2(LOWER_DIR, UNMOUNT_DETACH) < 0)
			log_error("a mount stays on the staging tmpfs: %s", strerror(errno));
	}
	return r < 0 ? r : take_fd(&fd);
}

static void lowers_end(struct broker *b, int lowers_fd)
{
	if (fchdir(b->stage_fd) < 0)
		abort(); /* every further name would be looked up in the wrong place */
	close(lowers_fd);
	if (umount2(LOWER_DIR, UNMOUNT_DETACH) < 0)
		log_error("layers stay on the staging tmpfs: %s", strerror(errno));
}

int rootfs_layer(struct broker *b, struct slot *s, const uint8_t *key, struct sbx_err *err)
{
	char name[BROKER_KEY_HEX];

	layers_name(key, name);
	int ns = FAULT_POINT("layer-unmapped") ? -1 : rootfs_helper(b, s, err);
	int fd = rootfs_clone(b->layers_fd, name, true, ns);
	if (fd == -EINVAL)
		return sbx_err_set(err, SBX_E_HOST_LACKS, 0,
				   "the file system of %s takes no id map, so no sandbox can own its files: put state_dir on ext4, xfs or btrfs",
				   b->state_dir);
	if (fd == -ENOENT)
		return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "layer %.12s is not in the store", name);
	return fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -fd, "layer %.12s", name) : fd;
}

static int attach_layer(struct broker *b, struct slot *s, int lowers_fd, const uint8_t *key, unsigned position, struct sbx_err *err)
{
	char at[LOWER_NAME_SIZE];
	auto_fd fd = rootfs_layer(b, s, key, err);

	if (fd < 0)
		return -1;
	snprintf(at, sizeof(at), "%u", position);
	int r = sys_move_mount(fd, lowers_fd, at);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "layer %u of slot %u", position, s->number) : 0;
}

/* Lowers are named by position, topmost first; everything is relative or by number, so nothing of the host's paths shows inside. */
static void overlay_names(const struct broker *b, uint32_t n_layers, struct overlay_names *out)
{
	int len = 0;

	for (uint32_t i = n_layers; i-- > 0;)
		len += snprintf(out->lower + len, sizeof(out->lower) - (size_t)len, "%u%s", i, i ? ":" : "");
	out->fd = NULL;
	out->n_fds = 0;
	snprintf(out->upper, sizeof(out->upper), "/proc/self/fd/%d/upper", b->upper_fd);
	snprintf(out->work, sizeof(out->work), "/proc/self/fd/%d/work", b->upper_fd);
}

/* The new interface gives a mount that is attached nowhere: one umount less, each of which waits for an RCU grace period. */
static int overlay_detached(const struct overlay_names *names)
{
	const struct {
		const char *key, *value;
	} options[] = {{"source", "overlay"}, {"upperdir", names->upper}, {"workdir", names->work}, {"volatile", NULL},
		       {"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "nofollow"}, {"lowerdir", names->lower}};
	auto_fd fs = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;
	for (uint32_t i = names->n_fds; i-- > 0;)
		if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "lowerdir+", NULL, names->fd[i]) < 0)
			return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(options) - (names->fd ? 1 : 0); i++)
		if (syscall(SYS_fsconfig, fs, options[i].value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, options[i].key, options[i].value, 0) < 0)
			return -errno;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	int fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	return fd < 0 ? -errno : fd;
}

/* fsconfig(2) takes no string of 256 bytes or more, which some 90 lowers need: the old interface does. */
static int overlay_attached(struct broker *b, const struct overlay_names *names)
{
	char options[OVERLAY_OPTIONS_SIZE];
	int len = snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s,volatile,index=off,metacopy=off,redirect_dir=nofollow",
			   names->lower, names->upper, names->work);

	if (len < 0 || len >= (int)sizeof(options))
		return -E2BIG;
	if (mount("overlay", MERGED_FROM_LOWERS, "overlay", MS_NOSUID | MS_NODEV, options) < 0)
		return -errno;
	int fd = sys_open_tree(b->stage_fd, "m", OPEN_TREE_CLONE);
	if (umount2(MERGED_FROM_LOWERS, UNMOUNT_DETACH) < 0)
		log_error("an overlay stays on the staging tmpfs: %s", strerror(errno));
	return fd;
}

/* overlayfs keeps the identity of who mounts: its work directory and its whiteouts then belong to the slot, not to host root. */
static int mount_overlay(struct broker *b, uint32_t owner, const struct overlay_names *names)
{
	if (FAULT_POINT("overlay-mount"))
		return -EIO;
	idmap_act_as(owner);
	int fd = names->fd || strlen(names->lower) < FSCONFIG_STRING ? overlay_detached(names) : overlay_attached(b, names);
	idmap_act_as(0);
	return fd;
}

int rootfs_attach(struct broker *b, int fd)
{
	return sys_move_mount(fd, b->stage_fd, "u");
}

void rootfs_detach(void)
{
	if (umount2("u", UNMOUNT_DETACH) < 0)
		log_error("a disk stays on the staging tmpfs: %s", strerror(errno));
}

/* Kernels before 6.15 take no detached mount for an upper.  Return: descriptor of its root, or -errno */
static int attach_disk(struct broker *b, int disk)
{
	int r = rootfs_attach(b, disk);

	if (r < 0)
		return r;
	int fd = fcntl(disk, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0)
		return fd;
	r = -errno;
	rootfs_detach();
	return r;
}

/* Where upper and work of a root are, and what lies below. */
struct root_parts {
	const struct broker_image *image;
	int files; /* directory, or with is_disk a mount that is attached nowhere */
	bool is_disk;
};

/* The upper and work of @parts become what upper_fd names; Return: whether that is a mount to be detached, or -errno */
static int upper_begin(struct broker *b, const struct root_parts *parts, bool detached)
{
	bool attach = parts->is_disk && !detached;
	auto_fd attached = attach ? attach_disk(b, parts->files) : -1;
	int from = attach ? attached : parts->files;
	int r = from < 0 ? from : dup3(from, b->upper_fd, O_CLOEXEC) < 0 ? -errno : 0;

	if (r < 0 && attached >= 0)
		rootfs_detach();
	return r < 0 ? r : attach;
}

static void upper_end(struct broker *b, bool attached)
{
	if (attached)
		rootfs_detach();
	if (dup3(b->null_fd, b->upper_fd, O_CLOEXEC) < 0)
		log_error("descriptor of an upper stays open: %s", strerror(errno));
}

/* Return: the root; or -errno: -EINVAL or -EOPNOTSUPP by a kernel that wants its mounts attached */
static int root_of_kept(struct broker *b, const struct slot *s, const struct root_parts *parts, const int *lowers)
{
	struct overlay_names names;
	int attached = upper_begin(b, parts, true);

	if (attached < 0)
		return attached;
	overlay_names(b, 0, &names);
	names.fd = lowers;
	names.n_fds = parts->image->n_layers;
	int fd = mount_overlay(b, slot_base(b, s), &names);
	upper_end(b, attached);
	return fd;
}

static int root_of_attached(struct broker *b, struct slot *s, const struct root_parts *parts, struct sbx_err *err)
{
	const struct broker_image *image = parts->image;
	struct overlay_names names;
	uint32_t attached = 0;
	int fd = -1, upper = upper_begin(b, parts, false);

	if (upper < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -upper, "files of slot %u", s->number);
	int lowers = lowers_begin(b);
	if (lowers < 0)
		sbx_err_set(err, SBX_E_SYSTEM, -lowers, "staging tmpfs");
	while (lowers >= 0 && attached < image->n_layers && attach_layer(b, s, lowers, image->layer[attached], attached, err) == 0)
		attached++;
	if (lowers >= 0 && attached == image->n_layers) {
		overlay_names(b, attached, &names);
		fd = mount_overlay(b, slot_base(b, s), &names);
		if (fd < 0)
			sbx_err_set(err, SBX_E_SYSTEM, -fd, "mount the root of slot %u (%u layers)", s->number, attached);
	}
	if (lowers >= 0)
		lowers_end(b, lowers);
	upper_end(b, upper);
	return fd < 0 ? -1 : fd;
}

static int mount_root(struct broker *b, struct slot *s, const struct root_parts *parts, struct sbx_err *err)
{
	const int *lowers;
	int kept = lowers_get(b, s, parts->image, &lowers, err);

	if (kept < 0)
		return -1;
	int fd = kept ? root_of_kept(b, s, parts, lowers) : -EINVAL;
	/* EINVAL by a mount that is attached nowhere, EOPNOTSUPP by a descriptor before overlayfs knew the new interface (6.5) */
	if (fd < 0 && fd != -EINVAL && fd != -EOPNOTSUPP)
		return sbx_err_set(err, SBX_E_SYSTEM, -fd, "mount the root of slot %u (%u layers)", s->number, parts->image->n_layers);
	if (fd < 0) {
		fd = root_of_attached(b, s, parts, err);
		if (fd >= 0 && kept)
			lowers_refuse(b); /* it was not the layers' fault */
	}
	return fd;
}

int rootfs_mount(struct broker *b, struct slot *s, const struct broker_image *image, int files, struct sbx_err *err)
{
	const struct root_parts parts = {.image = image, .files = files};
	uint64_t begun_mono_usec = mono_usec();
	int fd = mount_root(b, s, &parts, err);

	if (fd >= 0)
		log_debug("slot %u: root of %u layers in %llu us, ahead", s->number, image->n_layers, (unsigned long long)(mono_usec() - begun_mono_usec));
	return fd;
}

/* Of this very life: its directory, or its disk */
static int mount_own(struct broker *b, struct slot *s, const struct broker_image *image, struct sbx_err *err)
{
	struct root_parts parts = {.image = image, .files = s->disk_fd, .is_disk = s->disk_fd >= 0};
	char name[32];

	launch_dir_name(s, name);
	auto_fd files = parts.is_disk ? -1 : path_open_beneath(b->sandboxes_fd, name, O_RDONLY | O_DIRECTORY);
	if (!parts.is_disk)
		parts.files = files;
	if (parts.files < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -parts.files, "files of slot %u", s->number);
	return mount_root(b, s, &parts, err);
}

int rootfs_overlay(struct broker *b, struct slot *s, const struct broker_image *image, struct sbx_err *err)
{
	uint64_t begun_mono_usec = mono_usec();
	int fd = s->disk_fd < 0 ? root_ahead_take(b, s, image) : -1;
	bool ahead = fd >= 0;

	memcpy(s->use->layer, image->layer, sizeof(image->layer[0]) * image->n_layers);
	s->n_layers = image->n_layers;
	if (!ahead)
		fd = mount_own(b, s, image, err);
	if (s->create && s->disk_fd < 0)
		root_ahead_note(b, s, image);
	if (fd >= 0)
		log_debug("slot %u: root of %u layers in %llu us%s", s->number, s->n_layers, (unsigned long long)(mono_usec() - begun_mono_usec),
			  ahead ? ", mounted ahead" : s->create ? "" : ", for the pool");
	return fd;
}

/* ---- a look from outside ---- */

/* An overlay of the first @n trees of the staging, read-only: it has neither upper nor work. */
static int overlay_view(struct broker *b, uint32_t n)
{
	char lower[(BROKER_MAX_LAYERS + 1) * 4], options[OVERLAY_OPTIONS_SIZE];
	int len = 0;

	for (uint32_t i = n; i-- > 0;)
		len += snprintf(lower + len, sizeof(lower) - (size_t)len, "%u%s", i, i ? ":" : "");
	snprintf(options, sizeof(options), "lowerdir=%s,index=off,metacopy=off,redirect_dir=nofollow", lower);
	if (mount("overlay", MERGED_FROM_LOWERS, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0)
		return -errno;
	int fd = sys_open_tree(b->stage_fd, "m", OPEN_TREE_CLONE);
	if (umount2(MERGED_FROM_LOWERS, UNMOUNT_DETACH) < 0)
		log_error("an overlay stays on the staging tmpfs: %s", strerror(errno));
	return fd;
}

static int tree_root(int mount_fd)
{
	auto_fd mount_owned = mount_fd;
	int fd = mount_owned < 0 ? mount_owned : openat(mount_owned, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 && mount_owned >= 0 ? -errno : fd;
}

static int view_trees(struct broker *b, struct slot *s, struct rootfs_views *ret, struct sbx_err *err)
{
	char name[BROKER_KEY_HEX];
	int ns = rootfs_helper(b, s, err);

	if (ns < 0)
		return -1;
	layers_name(s->use->layer[0], name);
	/* an overlay without an upper wants two lowers at least */
	ret->below_fd = tree_root(s->n_layers == 1 ? rootfs_clone(b->layers_fd, name, true, ns) : overlay_view(b, s->n_layers));
	ret->merged_fd = tree_root(overlay_view(b, s->n_layers + 1));
	if (ret->below_fd >= 0 && ret->merged_fd >= 0)
		return 0;
	return sbx_err_set(err, SBX_E_SYSTEM, ret->below_fd < 0 ? -ret->below_fd : -ret->merged_fd, "look at the root of slot %u", s->number);
}

/* The layers of @s and above them @upper, which is put there; the views are taken, and all of it is taken off again. */
static int views_of(struct broker *b, struct slot *s, int upper, struct rootfs_views *ret, struct sbx_err *err)
{
	char top[LOWER_NAME_SIZE];
	uint32_t attached = 0;
	int rc = -1;

	int lowers = lowers_begin(b);
	if (lowers < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -lowers, "staging tmpfs");
	while (attached < s->n_layers && attach_layer(b, s, lowers, s->use->layer[attached], attached, err) == 0)
		attached++;
	if (attached == s->n_layers) {
		snprintf(top, sizeof(top), "%u", attached);
		int r = sys_move_mount(upper, lowers, top);

		rc = r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "upper of slot %u", s->number) : view_trees(b, s, ret, err);
	}
	lowers_end(b, lowers);
	return rc;
}

int rootfs_views(struct broker *b, struct slot *s, struct rootfs_views *ret, struct sbx_err *err)
{
	char name[32];
	struct rootfs_views views = {-1, -1, -1};

	launch_dir_name(s, name);
	auto_fd files = path_open_beneath(b->sandboxes_fd, name, O_RDONLY | O_DIRECTORY);
	if (files < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -files, "files of slot %u", s->number);
	/* with a limit they lie on a disk image of their own, which is mounted once more; only what is attached can be copied */
	auto_fd disk = disk_again(s, files, err);
	if (disk < 0 && disk != -ENOENT)
		return -1;
	int r = disk < 0 ? 0 : rootfs_attach(b, disk);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "disk of slot %u", s->number);
	auto_fd upper = rootfs_clone(disk < 0 ? files : disk, "upper", true, -1);
	auto_fd shown = rootfs_clone(disk < 0 ? files : disk, "upper", true, -1);
	if (disk >= 0)
		rootfs_detach();
	if (upper < 0 || shown < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, upper < 0 ? -upper : -shown, "files of slot %u", s->number);
	int rc = views_of(b, s, upper, &views, err);
	if (rc == 0)
		views.upper_fd = tree_root(take_fd(&shown));
	if (rc == 0 && views.upper_fd < 0)
		rc = sbx_err_set(err, SBX_E_SYSTEM, -views.upper_fd, "upper of slot %u", s->number);
	if (rc < 0) {
		close_keep_errno(views.below_fd);
		close_keep_errno(views.merged_fd);
		return -1;
	}
	*ret = views;
	return 0;
}
