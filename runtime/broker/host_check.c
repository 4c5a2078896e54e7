/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of the host, one function a row of host_check.def, and the check of the id range. */
#include "config.h"

#include "runtime/broker/host_check.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <limits.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/quota.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/num.h"
#include "base/path.h"
#include "base/settings.h"

#include "runtime/broker/cgroup.h"
#include "runtime/broker/disk_format.h"
#include "runtime/broker/disk_loop.h"
#include "runtime/broker/disk_quota.h"
#include "runtime/broker/fw_rules.h"
#include "runtime/broker/links.h"
#include "runtime/broker/sockcut.h"

#define KERNEL_MAJOR 6u
#define KERNEL_MINOR 1u

typedef enum host_verdict probe(const struct host_check_context *context, char *found, size_t size);

/* ---- tools ---- */

static int read_text(const char *path, char *buf, size_t size)
{
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

static int read_number(const char *path, uint64_t *ret)
{
	char text[64];
	int r = read_text(path, text, sizeof(text));

	return r ? r : num_u64(text, strspn(text, "0123456789"), UINT64_MAX, ret);
}

/* A sysctl that has to be @least; one that is not there counts as @missing. */
static enum host_verdict at_least(const char *path, uint64_t least, enum host_verdict missing, char *found, size_t size)
{
	char name[128];
	uint64_t value;
	size_t n;
	int r = snprintf(name, sizeof(name), "/proc/sys/%s", path);

	n = r > 0 ? strlen(found) : 0;
	if (r < 0 || read_number(name, &value) < 0) {
		snprintf(found + n, size - n, "%s%s is not there", n ? ", " : "", path);
		return missing;
	}
	snprintf(found + n, size - n, "%s%s = %llu", n ? ", " : "", path, (unsigned long long)value);
	return value >= least ? HOST_OK : HOST_WARN;
}

static enum host_verdict worse(enum host_verdict a, enum host_verdict b)
{
	return a > b ? a : b;
}

/* Runs @try_it in a child and gives its errno back: what it changes is its own and ends with it. */
static int in_child(int (*try_it)(const char *arg), const char *arg)
{
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return errno;
	if (!pid)
		_exit(try_it(arg));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

/* ---- kernel ---- */

static enum host_verdict probe_KERNEL(const struct host_check_context *context, char *found, size_t size)
{
	struct utsname u;
	uint32_t major = 0, minor = 0;
	const char *dot;

	(void)context;
	if (uname(&u) < 0)
		return HOST_FAIL;
	snprintf(found, size, "%s %.60s %.20s", u.sysname, u.release, u.machine);
	dot = strchr(u.release, '.');
	if (!dot || num_u32(u.release, (size_t)(dot - u.release), 1000, &major) < 0 ||
	    num_u32(dot + 1, strspn(dot + 1, "0123456789"), 100000, &minor) < 0)
		return HOST_FAIL;
	return major > KERNEL_MAJOR || (major == KERNEL_MAJOR && minor >= KERNEL_MINOR) ? HOST_OK : HOST_FAIL;
}

static int try_userns(const char *arg)
{
	(void)arg;
	return unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0 ? errno
																      : 0;
}

static enum host_verdict probe_USERNS(const struct host_check_context *context, char *found, size_t size)
{
	int sys = in_child(try_userns, NULL);

	(void)context;
	snprintf(found, size, "user, net, pid, mount, ipc, uts and cgroup namespaces: %s", sys ? strerror(sys) : "made");
	return sys ? HOST_FAIL : HOST_OK;
}

static enum host_verdict probe_USERNS_COUNT(const struct host_check_context *context, char *found, size_t size)
{
	enum host_verdict v;

	(void)context;
	*found = '\0';
	/* Two user namespaces for each sandbox and one for each of its layers' owner. */
	v = at_least("user/max_user_namespaces", 3 * LIMIT_SANDBOXES, HOST_FAIL, found, size);
	v = worse(v, at_least("user/max_net_namespaces", LIMIT_SANDBOXES, HOST_FAIL, found, size));
	return worse(v, at_least("user/max_mnt_namespaces", LIMIT_SANDBOXES, HOST_FAIL, found, size));
}

static int try_seccomp(const char *arg)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = {.len = 1, .filter = &allow};

	(void)arg;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return errno;
	return 0;
}

static enum host_verdict probe_SECCOMP(const struct host_check_context *context, char *found, size_t size)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;
	int sys = in_child(try_seccomp, NULL);

	(void)context;
	if (!sys && syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0)
		sys = errno;
	snprintf(found, size, "filter with kill_process: %s", sys ? strerror(sys) : "loads");
	return sys ? HOST_FAIL : HOST_OK;
}

static enum host_verdict probe_CORE(const struct host_check_context *context, char *found, size_t size)
{
	char pattern[128];

	(void)context;
	if (read_text("/proc/sys/kernel/core_pattern", pattern, sizeof(pattern)) < 0)
		return HOST_WARN;
	snprintf(found, size, "core_pattern = %s", pattern);
	return *pattern == '|' ? HOST_WARN : HOST_OK;
}

static enum host_verdict probe_PID_MAX(const struct host_check_context *context, char *found, size_t size)
{
	(void)context;
	*found = '\0';
	return at_least("kernel/pid_max", 65536, HOST_FAIL, found, size);
}

static enum host_verdict probe_UNPRIV(const struct host_check_context *context, char *found, size_t size)
{
	enum host_verdict v;

	(void)context;
	*found = '\0';
	v = at_least("kernel/unprivileged_bpf_disabled", 1, HOST_OK, found, size);
	v = worse(v, at_least("kernel/kptr_restrict", 1, HOST_OK, found, size));
	v = worse(v, at_least("kernel/dmesg_restrict", 1, HOST_OK, found, size));
	uint64_t uffd = 0;

	if (!read_number("/proc/sys/vm/unprivileged_userfaultfd", &uffd) && uffd) {
		size_t n = strlen(found);

		snprintf(found + n, size - n, ", vm/unprivileged_userfaultfd = 1");
		v = HOST_WARN;
	}
	return v;
}

static enum host_verdict probe_CLOCK(const struct host_check_context *context, char *found, size_t size)
{
	time_t now = time(NULL);
	struct tm tm = {0};

	(void)context;
	gmtime_r(&now, &tm);
	snprintf(found, size, "it is %04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
	return tm.tm_year + 1900 >= 2020 ? HOST_OK : HOST_FAIL;
}

/* ---- file systems ---- */

/* Idmapping needs a user namespace that is not ours: a child makes one and waits while we use it. */
static int idmap_with(const char *dir, pid_t pid)
{
	char path[48];
	auto_fd userns = -1;
	auto_fd tree = (int)syscall(SYS_open_tree, AT_FDCWD, dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (tree < 0)
		return errno;
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	userns = open(path, O_RDONLY | O_CLOEXEC);
	if (userns < 0)
		return errno;
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)(unsigned)userns};

	return syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ? errno : 0;
}

static int write_map(pid_t pid, const char *which)
{
	char path[48];
	auto_fd fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, which);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, "0 100000 1", 10) != 10 ? errno : 0;
}

static int try_idmap(const char *dir)
{
	int ready[2], r = 0;
	char byte;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return errno;
	pid = fork();
	if (pid < 0)
		return errno;
	if (!pid) {
		/* Says that the namespace is there (or ends without), then waits to be killed; never outlives the probe. */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || unshare(CLONE_NEWUSER) < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		r = EPERM;
	if (!r)
		r = write_map(pid, "uid_map");
	if (!r)
		r = write_map(pid, "gid_map");
	if (!r)
		r = idmap_with(dir, pid);
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(ready[0]);
	return r;
}

static const char *fs_name(const char *dir)
{
	static const struct {
		unsigned long magic;
		const char *name;
	} names[] = {
		{0xef53, "ext4"}, {0x58465342, "xfs"}, {0x9123683e, "btrfs"}, {0x01021994, "tmpfs"}, {0x794c7630, "overlay"},
		{0x6969, "nfs"}, {0x01021997, "9p"}, {0x65735546, "fuse"}, {0x2fc12fc1, "zfs"}, {0xf2f52010, "f2fs"},
	};
	struct statfs st;

	if (statfs(dir, &st) < 0)
		return "unknown file system";
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if ((unsigned long)st.f_type == names[i].magic)
			return names[i].name;
	return "other file system";
}

static enum host_verdict probe_IDMAP(const struct host_check_context *context, char *found, size_t size)
{
	int sys = in_child(try_idmap, context->state_dir);

	snprintf(found, size, "%s on %s: %s", context->state_dir, fs_name(context->state_dir), sys ? strerror(sys) : "idmapped mounts work");
	return sys ? HOST_FAIL : HOST_OK;
}

static int enter_private_mounts(void)
{
	return unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? errno : 0;
}

/* The upper has to be on the state directory's file system; one mount tells whether that one can be an upper. */
static int try_overlay(const char *state_dir)
{
	char top[300], path[400], options[1300];
	int r = enter_private_mounts();

	if (r)
		return r;
	if (snprintf(top, sizeof(top), "%.250s/.probe-XXXXXX", state_dir) < 0 || !mkdtemp(top))
		return errno;
	static const char *const dirs[] = {"lower", "upper", "work", "merged"};

	for (size_t i = 0; !r && i < ARRAY_SIZE(dirs); i++) {
		snprintf(path, sizeof(path), "%s/%s", top, dirs[i]);
		r = mkdir(path, 0700) < 0 ? errno : 0;
	}
	snprintf(options, sizeof(options), "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,volatile", top, top, top);
	if (!r) {
		r = mount("overlay", path, "overlay", MS_NOSUID | MS_NODEV, options) < 0 ? errno : 0;
		if (!r && umount2(path, MNT_DETACH) < 0)
			r = errno;
	}
	/* Nothing was written but the marker of a volatile mount; what cannot be removed shows in the state directory. */
	static const char *const leavings[] = {"work/work/incompat/volatile/dirty", "work/work/incompat/volatile", "work/work/incompat", "work/work", "work", "upper",
					       "lower", "merged"};

	for (size_t i = 0; i < ARRAY_SIZE(leavings); i++) {
		snprintf(path, sizeof(path), "%s/%s", top, leavings[i]);
		ignore_result(remove(path) < 0);
	}
	return rmdir(top) < 0 && !r ? errno : r;
}

static enum host_verdict probe_OVERLAY(const struct host_check_context *context, char *found, size_t size)
{
	int sys = in_child(try_overlay, context->state_dir);

	snprintf(found, size, "overlay with its upper on %s (%s): %s", context->state_dir, fs_name(context->state_dir),
		 sys ? strerror(sys) : "mounts");
	return sys ? HOST_FAIL : HOST_OK;
}

static int try_mount_api(const char *arg)
{
	int r = enter_private_mounts();
	auto_fd fs = r ? -1 : (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);

	(void)arg;
	if (r || fs < 0)
		return r ? r : errno;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return errno;
	auto_fd mnt = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);

	return mnt < 0 || syscall(SYS_move_mount, mnt, "", AT_FDCWD, "/mnt", MOVE_MOUNT_F_EMPTY_PATH) < 0 ? errno : 0;
}

static enum host_verdict probe_MOUNT_API(const struct host_check_context *context, char *found, size_t size)
{
	int sys = in_child(try_mount_api, NULL);

	(void)context;
	snprintf(found, size, "fsopen, fsmount, move_mount: %s", sys ? strerror(sys) : "work");
	return sys ? HOST_FAIL : HOST_OK;
}

static enum host_verdict probe_INOTIFY(const struct host_check_context *context, char *found, size_t size)
{
	enum host_verdict v;

	(void)context;
	*found = '\0';
	v = at_least("fs/inotify/max_user_instances", 128, HOST_FAIL, found, size);
	return worse(v, at_least("fs/inotify/max_user_watches", 65536, HOST_FAIL, found, size));
}

static enum host_verdict probe_MOUNT_MAX(const struct host_check_context *context, char *found, size_t size)
{
	(void)context;
	*found = '\0';
	return at_least("fs/mount-max", 10000, HOST_WARN, found, size);
}

/* In the order in which the broker chooses (disk.c), but for limits.disk_backend. */
static enum host_verdict probe_DISK(const struct host_check_context *context, char *found, size_t size)
{
	const char *what = "";
	auto_fd dir = open(context->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir >= 0 && disk_quota_enforced(dir)) {
		snprintf(found, size, "project quotas of %s on %s", fs_name(context->state_dir), context->state_dir);
		return HOST_OK;
	}
	int r = disk_loop_ready(&what);
	bool ready = r == 0 && disk_format_ready();
	if (r < 0)
		snprintf(found, size, "%s on %s without project quotas; no loop images: %s: %s", fs_name(context->state_dir), context->state_dir, what,
			 strerror(-r));
	else
		snprintf(found, size, "%s on %s without project quotas; %s", fs_name(context->state_dir), context->state_dir,
			 ready ? "loop images are used" : "no loop images: no mke2fs");
	return ready ? HOST_OK : HOST_WARN;
}

/* ---- cgroups ---- */

static enum host_verdict cgroup_has(const struct host_check_context *context, uint32_t feature, char *found, size_t size)
{
	if (!context->cg) {
		snprintf(found, size, "the cgroup tree could not be opened");
		return HOST_FAIL;
	}
	snprintf(found, size, "cgroup version %u%s at %s: %s", cgroup_version(context->cg), cgroup_version(context->cg) == 1 ? " hybrid" : "",
		 cgroup_root_path(context->cg), cgroup_features(context->cg) & feature ? "there" : "missing");
	return cgroup_features(context->cg) & feature ? HOST_OK : HOST_FAIL;
}

#define CGROUP_PROBE(id, feature) \
	static enum host_verdict probe_##id(const struct host_check_context *context, char *found, size_t size) \
	{ \
		return cgroup_has(context, feature, found, size); \
	}
CGROUP_PROBE(CG_MEMORY, CGROUP_MEMORY)
CGROUP_PROBE(CG_SWAP, CGROUP_SWAP)
CGROUP_PROBE(CG_PIDS, CGROUP_PIDS)
CGROUP_PROBE(CG_CPU, CGROUP_CPU)
CGROUP_PROBE(CG_FREEZE, CGROUP_FREEZE)
CGROUP_PROBE(CG_KILL, CGROUP_KILL)

/* ---- network ---- */

static int try_nft(const char *arg)
{
	struct sbx_err err;

	if (unshare(CLONE_NEWNET) < 0)
		return errno;
	return fw_rules_try(arg && *arg == '6', arg && *arg == 'g', &err) < 0 ? (err.sys > 0 && err.sys < 128 ? err.sys : EOPNOTSUPP) : 0;
}

static enum host_verdict probe_NFT(const struct host_check_context *context, char *found, size_t size)
{
	int sys = in_child(try_nft, NULL);

	(void)context;
	snprintf(found, size, "the router's and the host's rules in a namespace of their own: %s", sys ? strerror(sys) : "load");
	return sys ? HOST_FAIL : HOST_OK;
}

static enum host_verdict probe_IPV6(const struct host_check_context *context, char *found, size_t size)
{
	char off[16];
	int sys;

	if (!context->ipv6) {
		snprintf(found, size, "network.ipv6 is false: sandboxes have none");
		return HOST_OK;
	}
	if (path_read_head(AT_FDCWD, "/proc/sys/net/ipv6/conf/all/disable_ipv6", off, sizeof(off)) < 0 || *off != '0') {
		snprintf(found, size, "this kernel has no IPv6, or it is switched off (net.ipv6.conf.all.disable_ipv6)");
		return HOST_FAIL;
	}
	sys = in_child(try_nft, "6");
	snprintf(found, size, "the rules with IPv6 in a namespace of their own: %s", sys ? strerror(sys) : "load");
	return sys ? HOST_FAIL : HOST_OK;
}

static int try_gate(const char *arg)
{
	int r = try_nft(arg); /* which enters a namespace of its own */

	return r ? r : links_try_gate() < 0 ? EOPNOTSUPP : 0;
}

static enum host_verdict probe_GATE(const struct host_check_context *context, char *found, size_t size)
{
	int sys;

	if (!context->gate) {
		snprintf(found, size, "egress.tls_gate is off: a name opens its addresses whatever they are asked for");
		return HOST_OK;
	}
	sys = in_child(try_gate, "g");
	snprintf(found, size, "the rules with the gate, and /dev/net/tun, in a namespace of their own: %s", sys ? strerror(sys) : "made");
	return sys ? HOST_FAIL : HOST_OK;
}

static bool any_socket(void *arg, const struct sockcut_ends *ends)
{
	(void)arg;
	(void)ends;
	return true;
}

static int try_destroy(const char *arg)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	auto_fd fd = -1;

	(void)arg;
	if (unshare(CLONE_NEWNET) < 0 || links_try_lo_up() < 0)
		return EOPNOTSUPP;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&at, sizeof(at)) < 0)
		return errno;
	int r = sockcut_here(any_socket, NULL);
	return r == 1 ? 0 : r < 0 ? -r : EOPNOTSUPP;
}

static enum host_verdict probe_SOCK_DESTROY(const struct host_check_context *context, char *found, size_t size)
{
	int sys = in_child(try_destroy, NULL);

	(void)context;
	snprintf(found, size, "a socket in a namespace of its own: %s", sys ? strerror(sys) : "ended");
	return sys ? HOST_WARN : HOST_OK;
}

static int try_veth(const char *arg)
{
	(void)arg;
	if (unshare(CLONE_NEWNET) < 0)
		return errno;
	return links_try_veth() ? EOPNOTSUPP : 0;
}

static enum host_verdict probe_VETH(const struct host_check_context *context, char *found, size_t size)
{
	int sys = in_child(try_veth, NULL);

	(void)context;
	snprintf(found, size, "a veth pair: %s", sys ? strerror(sys) : "made");
	return sys ? HOST_FAIL : HOST_OK;
}

static enum host_verdict probe_FORWARD(const struct host_check_context *context, char *found, size_t size)
{
	char text[16];

	(void)context;
	if (read_text("/proc/sys/net/ipv4/ip_forward", text, sizeof(text)) < 0) {
		snprintf(found, size, "no IPv4 forwarding in this kernel");
		return HOST_FAIL;
	}
	snprintf(found, size, "ip_forward = %s; set for our uplink and the outgoing interface only, undone on purge", text);
	return HOST_OK;
}

static enum host_verdict probe_CONNTRACK(const struct host_check_context *context, char *found, size_t size)
{
	(void)context;
	*found = '\0';
	return at_least("net/netfilter/nf_conntrack_max", 65536, HOST_WARN, found, size);
}

static enum host_verdict probe_DOCKER(const struct host_check_context *context, char *found, size_t size)
{
	struct fw_rules_others others;
	struct sbx_err err;

	(void)context;
	if (fw_rules_look(&others, &err) < 0) {
		snprintf(found, size, "%s", err.msg);
		return HOST_WARN;
	}
	if (!access("/proc/net/ip_tables_names", R_OK) && others.legacy) {
		snprintf(found, size, "rules of iptables-legacy are loaded, which our rules cannot follow");
		return HOST_WARN;
	}
	snprintf(found, size, "%s%s%u forward chain(s) drop by default%s", others.docker ? "Docker is here; " : "",
		 others.firewalld ? "firewalld is here; " : "", others.n_drop, others.n_drop ? ": our uplink is accepted there" : "");
	return HOST_OK;
}

/* ---- host paths ---- */

/* Whether a user of the host who is neither owner nor in the group gets as far as @path: each directory on the way lets others pass. */
static bool others_reach(const char *path)
{
	char part[PATH_MAX];
	struct stat st;

	for (const char *end = path + 1;; end++) {
		if (*end && *end != '/')
			continue;
		int n = snprintf(part, sizeof(part), "%.*s", (int)(end - path), path);
		if (n < 0 || n >= (int)sizeof(part) || stat(part, &st) < 0 || !(st.st_mode & S_IXOTH))
			return false;
		if (!*end)
			return true;
	}
}

/*
 * Root inside acts as the owner of such a directory.  Where that is the host's root, a setuid file that a tenant leaves there is
 * real for everybody who can run it.
 */
static enum host_verdict probe_HOST_PATHS(const struct host_check_context *context, char *found, size_t size)
{
	const struct settings_texts *paths = context->host_paths;
	size_t n = paths ? paths->n : 0;

	for (size_t i = 0; i < n; i++) {
		const char *path = paths->item[i];
		struct statvfs fs;
		struct stat st;

		if (path[0] != '/' || stat(path, &st) < 0 || st.st_uid != 0 || statvfs(path, &fs) < 0 || (fs.f_flag & ST_NOSUID) ||
		    !others_reach(path))
			continue;
		snprintf(found, size, "%.120s belongs to root, lets others in and honours setuid", path);
		return HOST_WARN;
	}
	snprintf(found, size, "%zu allowed, none that others reach, root owns and setuid works on", n);
	return HOST_OK;
}

/* ---- our own limits ---- */

static enum host_verdict probe_NOFILE(const struct host_check_context *context, char *found, size_t size)
{
	struct rlimit limit;

	(void)context;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return HOST_WARN;
	snprintf(found, size, "RLIMIT_NOFILE %llu, hard %llu", (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
	return limit.rlim_max >= 16u * 1024 ? HOST_OK : HOST_WARN;
}

static enum host_verdict probe_SYS_RESOURCE(const struct host_check_context *context, char *found, size_t size)
{
	bool has = prctl(PR_CAPBSET_READ, 24 /* CAP_SYS_RESOURCE */, 0, 0, 0) == 1;

	(void)context;
	snprintf(found, size, "CAP_SYS_RESOURCE is %s", has ? "there" : "missing");
	return has ? HOST_OK : HOST_WARN;
}

/* ---- the table ---- */

static const struct {
	probe *probe;
	const char *name, *use, *costs, *mend;
	bool needed;
} rows[] = {
#define HOST_CHECK(id, name, need, use, costs, mend) [HOST_CHECK_##id] = {probe_##id, name, use, costs, mend, need},
#include "runtime/broker/host_check.def"
#undef HOST_CHECK
};
_Static_assert(ARRAY_SIZE(rows) == HOST_CHECK_COUNT && HOST_CHECK_COUNT <= 32, "one bit a row in broker_hello_reply");

int host_check_words(uint32_t id, enum host_verdict verdict, struct host_row *ret)
{
	if (id >= HOST_CHECK_COUNT)
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	ret->name = rows[id].name;
	ret->use = rows[id].use;
	ret->needed = rows[id].needed;
	ret->verdict = verdict;
	ret->costs = verdict == HOST_OK ? "" : rows[id].costs;
	ret->mend = verdict == HOST_OK ? "" : rows[id].mend;
	return 0;
}

int host_check_row(uint32_t id, const struct host_check_context *context, struct host_row *ret)
{
	char found[sizeof(ret->found)] = "";

	if (id >= HOST_CHECK_COUNT)
		return -EINVAL;
	int r = host_check_words(id, rows[id].probe(context, found, sizeof(found)), ret);
	memcpy(ret->found, found, sizeof(found));
	return r;
}

int host_check_start(const struct host_check_context *context, uint32_t *ret, struct sbx_err *err)
{
	uint32_t mask = 0;
	struct host_row row;

	for (uint32_t i = 0; i < HOST_CHECK_COUNT; i++) {
		if (host_check_row(i, context, &row) < 0)
			continue;
		if (row.verdict == HOST_OK)
			mask |= 1u << i;
		if (row.needed && row.verdict == HOST_FAIL)
			return sbx_err_set(err, SBX_E_HOST_LACKS, 0, "%s: %.90s; %s: %s", row.name, row.found, row.costs, row.mend);
	}
	if (ret)
		*ret = mask;
	return 0;
}

/* ---- ids ---- */

struct id_search {
	uint32_t first, count;
	const char *own_name;
	const char *file;
};

static bool overlaps(const struct id_search *s, uint64_t first, uint64_t count)
{
	return count && first < (uint64_t)s->first + s->count && s->first < first + count;
}

/* "name:x:1000:..." of passwd(5) and group(5). */
static int check_account(const struct id_search *s, char *field[], size_t n, unsigned line, struct sbx_err *err)
{
	uint32_t id;

	if (n < 3 || num_u32(field[2], strlen(field[2]), UINT32_MAX, &id) < 0 || !overlaps(s, id, 1) ||
	    (s->own_name && !strcmp(field[0], s->own_name)))
		return 0;
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "isolation.id_base: id %u belongs to \"%.32s\" (%s line %u)", id, field[0], s->file,
			   line);
}

/* "name:100000:65536" of subuid(5). */
static int check_range(const struct id_search *s, char *field[], size_t n, unsigned line, struct sbx_err *err)
{
	uint32_t first, count;

	if (n < 3 || num_u32(field[1], strlen(field[1]), UINT32_MAX, &first) < 0 ||
	    num_u32(field[2], strlen(field[2]), UINT32_MAX, &count) < 0 || !overlaps(s, first, count))
		return 0;
	if ((s->own_name && !strcmp(field[0], s->own_name)) || (first == s->first && count == s->count))
		return 0;
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
			   "isolation.id_base: our ids %u..%llu overlap the range %u:%u of \"%.32s\" (%s line %u)", s->first,
			   (unsigned long long)s->first + s->count - 1, first, count, field[0], s->file, line);
}

typedef int line_check(const struct id_search *s, char *field[], size_t n, unsigned line, struct sbx_err *err);

static int check_file(struct id_search *s, const char *dir, const char *name, line_check *check, struct sbx_err *err)
{
	char path[300], *field[4];
	auto_file f = NULL;
	auto_free char *text = NULL;
	size_t size = 0;

	snprintf(path, sizeof(path), "%.250s/%s", dir, name);
	s->file = path;
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : sbx_err_set(err, SBX_E_SYSTEM, errno, "open %s", path);
	for (unsigned line = 1; getline(&text, &size, f) > 0; line++) {
		char *rest = text;
		size_t n = 0;

		text[strcspn(text, "\n")] = '\0';
		while (n < ARRAY_SIZE(field) && rest)
			field[n++] = strsep(&rest, ":");
		if (*text != '#' && check(s, field, n, line, err) < 0)
			return -1;
	}
	return 0;
}

int host_check_ids_in(const char *etc_dir, uint32_t first, uint32_t count, const char *own_name, struct sbx_err *err)
{
	static const struct {
		const char *name;
		line_check *check;
	} files[] = {{"passwd", check_account}, {"group", check_account}, {"subuid", check_range}, {"subgid", check_range}};
	struct id_search s = {.first = first, .count = count, .own_name = own_name};

	if (!count || first < 65536 || (uint64_t)first + count > INT32_MAX)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "isolation.id_base: ids %u..%llu are not in 65536..2147483647", first,
				   (unsigned long long)first + count);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (check_file(&s, etc_dir, files[i].name, files[i].check, err) < 0)
			return -1;
	return 0;
}

int host_check_ids(uint32_t first, uint32_t count, const char *own_name, struct sbx_err *err)
{
	return host_check_ids_in("/etc", first, count, own_name, err);
}
