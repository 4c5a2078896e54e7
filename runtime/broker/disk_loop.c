// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/disk_loop.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/path.h"

#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/mount.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define CONTROL	      "/dev/loop-control"
#define PATH_SIZE     48
#define BLOCK_BYTES   4096u
#define TRIES_FREE    16 /* somebody else may take the device that was free */
#define TRIES_HELD    50 /* an image whose last mount is just going */
#define HELD_MS	      20
#define EXT4_SHUTDOWN _IOR('X', 125, uint32_t) /* EXT4_IOC_SHUTDOWN, which no header of user space has */
#define EXT4_RESIZE   _IOW('f', 16, uint64_t)  /* EXT4_IOC_RESIZE_FS */
/* The superblock; see the kernel's fs/ext4/ext4.h. */
#define SUPER_AT	  1024
#define SUPER_BYTES	  1024
#define SUPER_BLOCKS_LOW  0x4
#define SUPER_BLOCKS_HIGH 0x150
#define SHUTDOWN_DROP 2u		       /* EXT4_GOING_FLAGS_NOLOGFLUSH */

int disk_loop_ready(const char **what)
{
	char line[64];
	int found = 0;
	auto_fd control = open(CONTROL, O_RDWR | O_CLOEXEC);

	char path[PATH_SIZE];
	*what = CONTROL;
	int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	if (number < 0)
		return -errno;
	/* in a container the kernel's new devices have no node */
	*what = "the node of a free loop device";
	snprintf(path, sizeof(path), "/dev/loop%d", number);
	auto_fd device = open(path, O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -errno;
	*what = "ext4";
	auto_file types = fopen("/proc/filesystems", "re");
	while (types && fgets(line, sizeof(line), types))
		found |= strcmp(line, "\text4\n") == 0;
	if (found)
		return 0;
	/* A module that is not loaded is in no list: the first mount loads it. */
	auto_fd fs = (int)syscall(SYS_fsopen, "ext4", FSOPEN_CLOEXEC);
	return fs < 0 ? -errno : 0;
}

/* ---- devices ---- */

static int configure(int device, int image_fd)
{
	struct loop_config config = {
		.fd = (uint32_t)image_fd,
		.block_size = BLOCK_BYTES,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
	};

	if (ioctl(device, LOOP_CONFIGURE, &config) == 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
	return ioctl(device, LOOP_CONFIGURE, &config) < 0 ? -errno : 0;
}

static int attach(int image_fd, char path[PATH_SIZE], struct sbx_err *err)
{
	auto_fd control = open(CONTROL, O_RDWR | O_CLOEXEC);

	if (control < 0)
		return sbx_err_set(err, SBX_E_HOST_LACKS, errno, "%s: this host offers no loop devices", CONTROL);
	for (int i = 0; i < TRIES_FREE; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		if (number < 0)
			return sbx_err_set(err, SBX_E_HOST_LACKS, errno, "no loop device is free");
		snprintf(path, PATH_SIZE, "/dev/loop%d", number);
		auto_fd device = open(path, O_RDWR | O_CLOEXEC);
		if (device < 0)
			return sbx_err_set(err, SBX_E_HOST_LACKS, errno, "%s", path);
		int r = configure(device, image_fd);
		if (r == 0)
			return take_fd(&device);
		if (r != -EBUSY)
			return sbx_err_set(err, SBX_E_SYSTEM, -r, "attach an image to %s", path);
	}
	return sbx_err_set(err, SBX_E_SYSTEM, EBUSY, "every free loop device was taken by somebody else");
}

/* The device that has the file of @st, held open; Return: descriptor, or -ENOENT */
static int find(const struct stat *st, char path[PATH_SIZE])
{
	auto_dir dir = opendir("/sys/block");
	struct loop_info64 info;

	for (struct dirent *e; dir && (e = readdir(dir));) {
		if (strncmp(e->d_name, "loop", 4) != 0 || strlen(e->d_name) > 16)
			continue;
		snprintf(path, PATH_SIZE, "/dev/%.16s", e->d_name);
		/* for reading: the last close of a writer makes the host look at the device again, and these are mostly not ours */
		auto_fd device = open(path, O_RDONLY | O_CLOEXEC);
		if (device >= 0 && ioctl(device, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == st->st_ino && info.lo_device == st->st_dev)
			return take_fd(&device);
	}
	return -ENOENT;
}

static int open_device(int image_fd, char path[PATH_SIZE], struct sbx_err *err)
{
	struct stat st;

	if (fstat(image_fd, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "image of a disk");
	for (int i = 0; i < TRIES_HELD; i++) {
		/* The device keeps this very description open, and with it the lock. */
		if (flock(image_fd, LOCK_EX | LOCK_NB) == 0)
			return attach(image_fd, path, err);
		if (errno != EWOULDBLOCK)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "lock an image");
		int device = find(&st, path);
		if (device >= 0)
			return device;
		poll(NULL, 0, HELD_MS); /* it is between its device and nobody; the kernel tells no one when that ends */
	}
	return sbx_err_set(err, SBX_E_SYSTEM, EBUSY, "the image is held by another process");
}

/* ---- mounts ---- */

static int mount_ext4(const char *path, unsigned flags)
{
	const struct {
		const char *key, *value;
	} options[] = {
		{"source", path},
		{"errors", "remount-ro"}, /* whatever the superblock says: a broken image must not stop the host */
		{"noinit_itable", NULL}, /* zeros of a sparse file need no thread that writes them */
		{flags & DISK_LOOP_DISCARD ? "discard" : "nodiscard", NULL},
	};
	auto_fd fs = (int)syscall(SYS_fsopen, "ext4", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (syscall(SYS_fsconfig, fs, options[i].value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, options[i].key, options[i].value, 0) < 0)
			return -errno;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	int fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	return fd < 0 ? -errno : fd;
}

int disk_loop_mount(int image_fd, unsigned flags, struct sbx_err *err)
{
	char path[PATH_SIZE];
	/* Held until the mount is there: autoclear would take the device back before. */
	auto_fd device = open_device(image_fd, path, err);

	if (device < 0)
		return -1;
	if (FAULT_POINT("disk-attached"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	int fd = mount_ext4(path, flags);
	return fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -fd, "mount %s", path) : fd;
}

/* Opens the device @name if it has the file of @st; Return: descriptor, or -ENOENT */
static int open_that(const char *name, const struct stat *st, char path[PATH_SIZE])
{
	struct loop_info64 info;

	snprintf(path, PATH_SIZE, "/dev/%.16s", name);
	auto_fd device = open(path, O_RDONLY | O_CLOEXEC);
	bool is = device >= 0 && ioctl(device, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == st->st_ino && info.lo_device == st->st_dev;
	return is ? take_fd(&device) : -ENOENT;
}

static int open_known(dev_t dev, const struct stat *st, char path[PATH_SIZE])
{
	char link[PATH_SIZE], to[256];

	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	ssize_t n = dev ? readlink(link, to, sizeof(to) - 1) : -1;
	if (n <= 0)
		return -ENOENT;
	to[n] = '\0';
	const char *slash = strrchr(to, '/');
	return open_that(slash ? slash + 1 : to, st, path);
}

/* After a restart of ours: what the kernel says of each device in a file, so that no other than this one is opened. */
static int open_named(const char *name, const struct stat *st, char path[PATH_SIZE])
{
	auto_dir dir = opendir("/sys/block");
	size_t len = strlen(name);

	for (struct dirent *e; dir && (e = readdir(dir));) {
		char file[PATH_SIZE], text[4096 + 2];

		if (strncmp(e->d_name, "loop", 4) != 0 || strlen(e->d_name) > 16)
			continue;
		snprintf(file, sizeof(file), "%.16s/loop/backing_file", e->d_name);
		ssize_t n = path_read_head(dirfd(dir), file, text, sizeof(text));
		while (n > 0 && text[n - 1] == '\n')
			n--;
		if (n < (ssize_t)len || memcmp(text + n - len, name, len) != 0)
			continue;
		int device = open_that(e->d_name, st, path);
		if (device >= 0)
			return device;
	}
	return -ENOENT;
}

int disk_loop_again(int image_fd, dev_t *dev, const char *name, struct sbx_err *err)
{
	char path[PATH_SIZE];
	struct stat st, node;

	if (fstat(image_fd, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "image of a disk");
	auto_fd device = open_known(*dev, &st, path);
	if (device < 0)
		replace_fd(&device, open_named(name, &st, path));
	if (device < 0 || fstat(device, &node) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, EBUSY, "no device has the image of the disk");
	*dev = node.st_rdev;
	int fd = mount_ext4(path, 0);
	return fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -fd, "mount %s", path) : fd;
}

int disk_loop_grow(int image_fd, uint64_t bytes, unsigned flags, struct sbx_err *err)
{
	char path[PATH_SIZE];
	uint64_t blocks = bytes / BLOCK_BYTES;
	auto_fd device = open_device(image_fd, path, err);

	if (device < 0)
		return -1;
	if (ioctl(device, LOOP_SET_CAPACITY, 0) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "new size of %s", path);
	auto_fd mount = mount_ext4(path, flags);
	auto_fd root = mount < 0 ? mount : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, mount < 0 ? -mount : errno, "mount %s", path);
	if (FAULT_POINT("disk-longer"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (ioctl(root, EXT4_RESIZE, &blocks) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make the file system of %s larger", path);
	return 0;
}

bool disk_loop_filled(int image_fd, uint64_t bytes)
{
	uint8_t super[SUPER_BYTES];
	uint32_t low, high;

	if (pread(image_fd, super, sizeof(super), SUPER_AT) != (ssize_t)sizeof(super))
		return true; /* what is wrong with it is the mount's to say */
	memcpy(&low, super + SUPER_BLOCKS_LOW, sizeof(low));
	memcpy(&high, super + SUPER_BLOCKS_HIGH, sizeof(high));
	return ((uint64_t)le32toh(high) << 32 | le32toh(low)) >= bytes / BLOCK_BYTES;
}

void disk_loop_throw_away(int mount_fd)
{
	uint32_t how = SHUTDOWN_DROP;
	auto_fd mount = mount_fd;
	auto_fd root = mount < 0 ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* the mount's own descriptor takes no ioctl */

	if (root >= 0)
		ignore_result(ioctl(root, EXT4_SHUTDOWN, &how)); /* only time depends on it */
}
