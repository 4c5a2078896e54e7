// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_root.h"

#include "runtime/agent/agent_sys.h"
#include "runtime/agent_msg.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define SAFE (SYSX_RESOLVE_IN_ROOT | SYSX_RESOLVE_NO_MAGICLINKS)

/*
 * One list: what of /proc and /sys a tenant must not see or change although it runs in its own
 * namespaces.  HIDE: a file becomes /dev/null, a directory an empty read-only one; RO: stays readable.
 */
enum mask_kind { MASK_HIDE = 1, MASK_RO };

struct mask {
	const char *path;
	enum mask_kind kind;
};

static const struct mask proc_masks[] = {
	{"acpi", MASK_HIDE},	      {"asound", MASK_HIDE},	{"bus", MASK_RO},	  {"fs", MASK_RO},
	{"interrupts", MASK_HIDE},    {"irq", MASK_RO},		{"kallsyms", MASK_HIDE},  {"kcore", MASK_HIDE},
	{"keys", MASK_HIDE},	      {"key-users", MASK_HIDE}, {"kmsg", MASK_HIDE},	  {"kpagecgroup", MASK_HIDE},
	{"kpagecount", MASK_HIDE},    {"kpageflags", MASK_HIDE}, {"latency_stats", MASK_HIDE}, {"mtrr", MASK_HIDE},
	{"sched_debug", MASK_HIDE},   {"scsi", MASK_HIDE},	{"slabinfo", MASK_HIDE},  {"sys", MASK_RO},
	{"sysrq-trigger", MASK_HIDE}, {"timer_list", MASK_HIDE}, {"timer_stats", MASK_HIDE}, {"vmallocinfo", MASK_HIDE},
};

static const struct mask sys_masks[] = {
	{"class/dmi", MASK_HIDE},      {"devices/virtual/dmi", MASK_HIDE}, {"devices/virtual/powercap", MASK_HIDE},
	{"class/powercap", MASK_HIDE}, {"firmware", MASK_HIDE},		   {"fs/bpf", MASK_HIDE},
	{"fs/cgroup", MASK_HIDE},      {"kernel/boot_params", MASK_HIDE},  {"kernel/debug", MASK_HIDE},
	{"kernel/security", MASK_HIDE}, {"kernel/tracing", MASK_HIDE},
};

/* ---- primitives ---- */

struct option {
	const char *key, *value; /* value NULL: a flag; key NULL ends */
};

static int mount_new(const char *type, const struct option *options, unsigned attrs)
{
	auto_fd fs = sysx_ret(syscall(SYS_fsopen, type, 1 /* FSOPEN_CLOEXEC */));

	if (fs < 0)
		return fs;
	for (const struct option *o = options; o && o->key; o++)
		if (syscall(SYS_fsconfig, fs, o->value ? SYSX_FSCONFIG_SET_STRING : SYSX_FSCONFIG_SET_FLAG, o->key, o->value,
			    0) < 0)
			return -errno;
	if (syscall(SYS_fsconfig, fs, SYSX_FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	return sysx_ret(syscall(SYS_fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, attrs));
}

static int mount_at(int mount_fd, int dir_fd, const char *path)
{
	unsigned flags = SYSX_MOVE_F_EMPTY_PATH | (*path ? 0 : SYSX_MOVE_T_EMPTY_PATH);

	return sysx_ret(syscall(SYS_move_mount, mount_fd, "", dir_fd, path, flags));
}

static int mount_clone(int dir_fd, const char *path)
{
	return sysx_ret(syscall(SYS_open_tree, dir_fd, path,
				SYSX_OPEN_TREE_CLONE | (unsigned)O_CLOEXEC | (*path ? 0 : 0x1000u /* AT_EMPTY_PATH */)));
}

static int mount_attr(int mount_fd, unsigned set)
{
	struct sysx_mount_attr attr = {.attr_set = set};

	return sysx_ret(syscall(SYS_mount_setattr, mount_fd, "", 0x1000u /* AT_EMPTY_PATH */, &attr, sizeof(attr)));
}

/* ---- masks ---- */

static int mask_file(int dev_fd, int target)
{
	struct stat st;
	auto_fd null = mount_clone(dev_fd, "null");

	if (null < 0)
		return null;
	/* CVE-2025-31133: what we bind must be the null device and nothing put in its place */
	if (fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return -ENODEV;
	return mount_at(null, target, "");
}

static int mask_one(int tree_fd, const struct mask *m, int dev_fd, int empty_fd)
{
	struct stat st;
	auto_fd target = sysx_openat2(tree_fd, m->path, O_PATH | O_NOFOLLOW, 0,
				      SYSX_RESOLVE_BENEATH | SYSX_RESOLVE_NO_SYMLINKS | SYSX_RESOLVE_NO_MAGICLINKS);

	if (target == -ENOENT)
		return 0; /* this kernel has no such entry */
	if (target < 0 || fstat(target, &st) < 0)
		return target < 0 ? target : -errno;
	if (m->kind == MASK_HIDE && !S_ISDIR(st.st_mode))
		return mask_file(dev_fd, target);
	auto_fd over = m->kind == MASK_HIDE ? mount_clone(empty_fd, "") : mount_clone(target, "");
	if (over < 0)
		return over;
	int r = mount_attr(over, SYSX_MOUNT_RDONLY | SYSX_MOUNT_NOSUID | SYSX_MOUNT_NODEV | SYSX_MOUNT_NOEXEC);
	return r ? r : mount_at(over, target, "");
}

static int mask_all(int tree_fd, const struct mask *masks, size_t n, int dev_fd, int empty_fd)
{
	for (size_t i = 0; i < n; i++) {
		int r = mask_one(tree_fd, &masks[i], dev_fd, empty_fd);

		if (r)
			return r;
	}
	return 0;
}

/* ---- pool time ---- */

static int stage_tree(int stage_fd, const char *name, int mount_fd)
{
	if (mount_fd < 0)
		return mount_fd;
	if (mkdirat(stage_fd, name, 0755) < 0)
		return -errno;
	return mount_at(mount_fd, stage_fd, name);
}

static int attach_new(const char *type, const struct option *options, unsigned attrs, int dir_fd, const char *path,
		      int *ret_fd)
{
	auto_fd fd = mount_new(type, options, attrs);

	if (fd < 0)
		return fd;
	int r = mount_at(fd, dir_fd, path);
	if (!r && ret_fd)
		*ret_fd = take_fd(&fd);
	return r;
}

/* The broker's /dev holds the six nodes and the directories pts, shm and mqueue, and is read-only. */
static int stage_dev(struct root_stage *s)
{
	static const struct option pts[] = {{"newinstance", NULL}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"},
					   /* all sandboxes together have kernel.pty.max - reserve, 3072 terminals */
					   {"max", "128"}, {0}};
	static const struct option shm[] = {{"size", "64m"}, {"mode", "1777"}, {0}};
	const unsigned attrs = SYSX_MOUNT_NOSUID | SYSX_MOUNT_NODEV | SYSX_MOUNT_NOEXEC;

	int r = stage_tree(s->stage_fd, "dev", s->dev_fd);
	/* a devpts must not be nodev: its nodes are terminals */
	if (!r)
		r = attach_new("devpts", pts, SYSX_MOUNT_NOSUID | SYSX_MOUNT_NOEXEC, s->dev_fd, "pts", &s->devpts_fd);
	if (!r)
		r = attach_new("tmpfs", shm, attrs, s->dev_fd, "shm", NULL);
	if (!r)
		r = attach_new("mqueue", NULL, attrs, s->dev_fd, "mqueue", NULL);
	return r;
}

/*
 * Return: descriptor of a read-only mount of a directory of the stage, or -errno.  No file system of its own: each one that is
 * mounted on the host costs every memory group a place in the kernel's table of what can be reclaimed, for good.
 */
static int read_only(int stage_fd, const char *dir)
{
	auto_fd fd = mount_clone(stage_fd, dir);

	if (fd < 0)
		return fd;
	int r = mount_attr(fd, SYSX_MOUNT_NOSUID | SYSX_MOUNT_NODEV | SYSX_MOUNT_NOEXEC | SYSX_MOUNT_RDONLY);
	return r ? r : take_fd(&fd);
}

/*
 * /run/sandbox: a file that only we write, through a descriptor that we hold since before there was a tenant, and a read-only
 * mount of its directory.  Nobody else reaches the stage, so what is in it can neither be filled up nor linked.
 */
static int stage_denied(struct root_stage *s)
{
	const char *name = strrchr(AGENT_DENIED_LOG, '/') + 1;

	if (mkdirat(s->stage_fd, "denied", 0755) < 0)
		return -errno;
	auto_fd dir = openat(s->stage_fd, "denied", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	s->denied_fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (s->denied_fd < 0 || fchmod(s->denied_fd, 0444) < 0)
		return -errno;
	s->denied_tree_fd = read_only(s->stage_fd, "denied");
	return s->denied_tree_fd < 0 ? s->denied_tree_fd : 0;
}

/* What hides a directory: an empty one, attached because older kernels clone nothing else. */
static int stage_empty(const struct root_stage *s, int *ret_fd)
{
	if (mkdirat(s->stage_fd, "nothing", 0755) < 0)
		return -errno;
	auto_fd fd = read_only(s->stage_fd, "nothing");
	int r = stage_tree(s->stage_fd, "empty", fd);
	if (!r)
		*ret_fd = take_fd(&fd);
	return r;
}

int root_proc(struct root_stage *s)
{
	*s = (struct root_stage){.stage_fd = -1, .proc_fd = -1, .sys_fd = -1, .dev_fd = -1, .devpts_fd = -1, .denied_fd = -1,
				 .denied_tree_fd = -1};
	/* nothing that happens here may reach the host's mount table */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	/* while the host's own /proc is in sight: the kernel makes a new one only where a full one is visible */
	s->proc_fd = mount_new("proc", NULL, SYSX_MOUNT_NOSUID | SYSX_MOUNT_NODEV | SYSX_MOUNT_NOEXEC);
	return s->proc_fd < 0 ? s->proc_fd : 0;
}

int root_stage(int dev_fd, struct root_stage *s, enum launch_stage *ret_stage)
{
	static const struct option small[] = {{"size", "192k"}, {"nr_inodes", "32"}, {"mode", "0755"}, {0}};
	const unsigned attrs = SYSX_MOUNT_NOSUID | SYSX_MOUNT_NODEV | SYSX_MOUNT_NOEXEC;
	auto_fd empty = -1;

	*ret_stage = LAUNCH_STAGE_PROC;
	s->dev_fd = dev_fd;
	/* as with root_proc() */
	s->sys_fd = mount_new("sysfs", NULL, attrs | SYSX_MOUNT_RDONLY);
	if (s->sys_fd < 0)
		return s->sys_fd;
	*ret_stage = LAUNCH_STAGE_STAGING;
	s->stage_fd = mount_new("tmpfs", small, attrs);
	if (s->stage_fd < 0)
		return s->stage_fd;
	/* /proc is the one directory that is there on every host; it is left a few lines below */
	int r = mount_at(s->stage_fd, AT_FDCWD, "/proc");
	if (r)
		return r;
	if (fchdir(s->stage_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	/* from here on no path leads to the host; on older kernels only attached trees can be mounted on or cloned */
	r = stage_tree(s->stage_fd, "proc", s->proc_fd);
	if (!r)
		r = stage_tree(s->stage_fd, "sys", s->sys_fd);
	if (r)
		return r;
	r = stage_empty(s, &empty);
	if (!r)
		r = stage_denied(s);
	if (r)
		return r;
	*ret_stage = LAUNCH_STAGE_DEV;
	r = stage_dev(s);
	if (r)
		return r;
	*ret_stage = LAUNCH_STAGE_MASK;
	r = mask_all(s->proc_fd, proc_masks, ARRAY_SIZE(proc_masks), s->dev_fd, empty);
	return r ? r : mask_all(s->sys_fd, sys_masks, ARRAY_SIZE(sys_masks), s->dev_fd, empty);
}

/* ---- when the image is known ---- */

/* A directory directly beneath the root, whatever the image has there. */
static int own_dir(int root_fd, const char *name)
{
	for (int tries = 0; tries < 2; tries++) {
		int fd = sysx_openat2(root_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0,
				      SYSX_RESOLVE_BENEATH | SYSX_RESOLVE_NO_SYMLINKS | SYSX_RESOLVE_NO_MAGICLINKS);

		if (fd >= 0 || tries)
			return fd;
		if (fd != -ENOENT && unlinkat(root_fd, name, 0) < 0)
			return -errno;
		if (mkdirat(root_fd, name, 0755) < 0)
			return -errno;
	}
	return -ELOOP;
}

static int move_tree(int tree_fd, int root_fd, const char *name)
{
	auto_fd dir = own_dir(root_fd, name);

	return dir < 0 ? dir : mount_at(tree_fd, dir, "");
}

/* Return: descriptor of the new file with @text in it, or -errno */
static int new_file(int dir_fd, const char *name, const char *text, mode_t mode)
{
	if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
		return -errno;
	/* O_EXCL: what is opened is what we made, neither a link nor a FIFO of the image */
	auto_fd fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	size_t n = strlen(text);
	if (fd < 0)
		return -errno;
	if (write(fd, text, n) != (ssize_t)n)
		return -EIO;
	return fchmod(fd, mode) < 0 ? -errno : take_fd(&fd);
}

static int etc_files(int root_fd, const struct launch_root *root, struct root_names *ret_names)
{
	char text[64];
	int etc = sysx_openat2(root_fd, "etc", O_PATH | O_DIRECTORY, 0, SAFE);

	if (etc < 0)
		etc = own_dir(root_fd, "etc");
	auto_fd dir = etc;
	if (dir < 0)
		return dir;
	snprintf(text, sizeof(text), "nameserver %.15s\noptions edns0 trust-ad\n", root->nameserver);
	auto_fd resolv = new_file(dir, "resolv.conf", text, 0644);
	if (resolv < 0)
		return resolv;
	ret_names->hosts_fd = new_file(dir, "hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", 0644);
	if (ret_names->hosts_fd < 0)
		return ret_names->hosts_fd;
	ret_names->hostname_fd = new_file(dir, "hostname", "", 0644);
	return ret_names->hostname_fd < 0 ? ret_names->hostname_fd : 0;
}

int root_name(struct root_names *names, const char *hostname)
{
	char text[96];
	int n = snprintf(text, sizeof(text), "127.0.1.1\t%.63s\n", hostname);
	const char *name = strchr(text, '\t') + 1;
	int r = write(names->hosts_fd, text, (size_t)n) == n ? 0 : -EIO;

	if (!r && write(names->hostname_fd, name, strlen(name)) != (ssize_t)strlen(name))
		r = -EIO;
	replace_fd(&names->hosts_fd, -1);
	replace_fd(&names->hostname_fd, -1);
	return r;
}

/* Opens the parent of the last component of @path beneath the root, making what is missing. */
static int make_parents(int root_fd, const char *path, const char **ret_name)
{
	char prefix[LAUNCH_MOUNT_BYTES];
	const char *s = path + strspn(path, "/");
	int dir = sysx_openat2(root_fd, ".", O_PATH | O_DIRECTORY, 0, SAFE);

	while (dir >= 0) {
		size_t n = strcspn(s, "/");
		const char *next = s + n + strspn(s + n, "/");
		auto_fd parent = dir;

		if (!n || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
			return -EINVAL;
		if (!*next) {
			*ret_name = s;
			return take_fd(&parent);
		}
		/* from the root each time: an absolute link of the image is then resolved at the root, as it will be later */
		size_t len = (size_t)(s + n - path);
		memcpy(prefix, path, len);
		prefix[len] = 0;
		dir = sysx_openat2(root_fd, prefix, O_PATH | O_DIRECTORY, 0, SAFE);
		if (dir == -ENOENT) {
			memcpy(prefix, s, n);
			prefix[n] = 0;
			if (mkdirat(parent, prefix, 0755) < 0)
				return -errno;
			dir = sysx_openat2(parent, prefix, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0,
					   SYSX_RESOLVE_BENEATH | SYSX_RESOLVE_NO_SYMLINKS);
		}
		s = next;
	}
	return dir;
}

static int bind_volume(int root_fd, const struct launch_volume *v, int mount_fd)
{
	char name[LAUNCH_MOUNT_BYTES];
	const char *last = "";

	if (!memchr(v->path, 0, sizeof(v->path)) || v->path[0] != '/')
		return -EINVAL;
	auto_fd parent = make_parents(root_fd, v->path, &last);
	if (parent < 0)
		return parent;
	size_t n = strcspn(last, "/");
	memcpy(name, last, n);
	name[n] = 0;
	int want = O_PATH | (v->is_file ? 0 : O_DIRECTORY);
	auto_fd target = sysx_openat2(root_fd, v->path, want, 0, SAFE);
	if (target == -ENOENT) {
		if (v->is_file) {
			auto_fd made = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);

			if (made < 0)
				return -errno;
		} else if (mkdirat(parent, name, 0755) < 0) {
			return -errno;
		}
		target = sysx_openat2(root_fd, v->path, want, 0, SAFE);
	}
	if (target < 0)
		return target;
	unsigned set = SYSX_MOUNT_NOSUID | SYSX_MOUNT_NODEV | (v->read_only ? SYSX_MOUNT_RDONLY : 0);
	int r = mount_attr(mount_fd, set);
	return r ? r : mount_at(mount_fd, target, "");
}

/* /opt/opensandbox/.env: programs inside append to it and every later command reads it; any user of the image may. */
static int env_file_place(int root_fd)
{
	const char *last;
	auto_fd parent = make_parents(root_fd, "/opt/opensandbox/.env", &last);

	if (parent < 0)
		return parent;
	auto_fd fd = openat(parent, ".env", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (fd < 0)
		return errno == EEXIST ? 0 : -errno;
	return fchmod(fd, 0666) < 0 ? -errno : 0;
}

/* Before the volumes: one that is named /run or /run/sandbox hides the log, it does not get a directory of ours. */
static int denied_place(int root_fd, int tree_fd)
{
	const char *last;
	auto_fd parent = make_parents(root_fd, "/run/sandbox", &last);

	return parent < 0 ? parent : move_tree(tree_fd, parent, last);
}

int root_mount(const struct root_stage *stage, const struct launch_root *m, const int *fd, struct root_names *ret_names,
	       enum launch_stage *ret_stage, uint32_t *ret_detail)
{
	int root = fd[0];

	*ret_stage = LAUNCH_STAGE_ROOT;
	/*
	 * Mounted over "/" of the staging and entered by chroot, which costs a tenth of a second pivot.  A chroot can be left
	 * by who may chroot again and holds a directory outside; here there is no outside: climbing from any directory ends
	 * at the staging's root, which this mount covers, so the kernel's walk comes back to this root.
	 */
	int r = mount_at(root, AT_FDCWD, "/");
	if (r)
		return r;
	fd++;
	if (m->flags & LAUNCH_ROOT_HOST_USR) {
		r = move_tree(*fd++, root, "usr");
		if (r)
			return r;
	}
	/* before any tree of ours is beneath the root, so that no link of the image can lead into one */
	*ret_stage = LAUNCH_STAGE_ETC;
	r = etc_files(root, m, ret_names);
	if (!r)
		r = env_file_place(root);
	if (!r)
		r = denied_place(root, stage->denied_tree_fd);
	if (r)
		return r;
	*ret_stage = LAUNCH_STAGE_VOLUME;
	for (uint32_t i = 0; i < m->n_volumes; i++) {
		*ret_detail = i;
		r = bind_volume(root, &m->volume[i], *fd++);
		if (r)
			return r;
	}
	*ret_detail = 0;
	/* last, so that a volume named /proc or /dev/x lies below and changes nothing */
	*ret_stage = LAUNCH_STAGE_PROC;
	r = move_tree(stage->proc_fd, root, "proc");
	if (!r)
		r = move_tree(stage->sys_fd, root, "sys");
	*ret_stage = r ? LAUNCH_STAGE_PROC : LAUNCH_STAGE_DEV;
	if (!r)
		r = move_tree(stage->dev_fd, root, "dev");
	if (r)
		return r;
	*ret_stage = LAUNCH_STAGE_ROOT;
	if (fchdir(root) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}
