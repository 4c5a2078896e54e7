// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include "api/monitor_int.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"
#include "base/pidfd.h"
#include "base/wallclock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/close_range.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#define BACKOFF_FIRST_MS      50u
#define BACKOFF_LAST_MS	      2000u
#define STABLE_MS	      3000u /* a child that lived so long starts its back-off anew */
#define GIVE_UP_FAILURES      8u     /* of a child that was never stable */
#define SHUTDOWN_MS	      8000u
#define KEY_CHARACTERS	      43u

enum child_kind { CHILD_BROKER = 0, CHILD_DAEMON, CHILD_GATEWAY, CHILD_DNSD, CHILD_COUNT };

static const struct child_row {
	const char *name;
	const char *program; /* NULL: this one */
	const char *argument; /* NULL: none */
	bool wants_key;
	bool optional; /* a missing program is a warning */
} child_rows[CHILD_COUNT] = {
	[CHILD_BROKER] = {"broker", "sandbox-broker", NULL, false, false},
	[CHILD_DAEMON] = {"sandboxd", NULL, "--daemon", true, false},
	[CHILD_GATEWAY] = {"gateway", "sandbox-gateway", NULL, false, false},
	[CHILD_DNSD] = {"dnsd", "sandbox-dnsd", NULL, false, false},
};

struct monitor;

struct child {
	struct monitor *monitor; /* borrowed */
	enum child_kind kind;
	pid_t pid; /* 0: not running */
	uint64_t started_mono_ms;
	uint64_t delay_ms;
	unsigned failures;
	struct loop_timer *again; /* owned */
};

struct monitor {
	struct settings *settings; /* borrowed */
	struct loop *loop;	   /* owned */
	int state_fd, run_fd;
	int lock_fd, run_lock_fd, instance_lock_fd;
	int self_fd;
	int config_fd[2]; /* without and with the key */
	int api_fd, endpoint_fd, unix_fd, control_fd, policy_fd;
	int ready_fd, ready_child_fd;
	struct loop_fd *ready_source; /* owned */
	struct loop_timer *patience;  /* owned; armed while shutting down */
	struct child child[CHILD_COUNT];
	struct monitor_fetchers fetchers;
	bool stopping;
	int exit_code;
	bool announced;
};

/* ---- places ---- */

static int make_dirs(const char *path, mode_t mode, struct sbx_err *err)
{
	char part[1024];
	size_t n = strlen(path);

	if (n >= sizeof(part))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, ENAMETOOLONG, "%.80s", path);
	for (size_t i = 1; i <= n; i++) {
		if (path[i] && path[i] != '/')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, path[i] ? 0755 : mode) < 0 && errno != EEXIST)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "make the directory %s", part);
	}
	return 0;
}

/* overlayfs, which every sandbox needs, cannot have its upper layer on these; SQLite's log cannot live on the network ones. */
static const struct {
	unsigned long magic;
	const char *name;
} unfit_file_systems[] = {
	{NFS_SUPER_MAGIC, "NFS"},   {OVERLAYFS_SUPER_MAGIC, "overlay"}, {SMB_SUPER_MAGIC, "SMB"},
	{CIFS_SUPER_MAGIC, "CIFS"}, {SMB2_SUPER_MAGIC, "SMB"},	{V9FS_MAGIC, "9p"},
	{FUSE_SUPER_MAGIC, "FUSE"}, {CEPH_SUPER_MAGIC, "Ceph"},
};

static int check_file_system(const char *path, int fd, struct sbx_err *err)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "state directory %s", path);
	for (size_t i = 0; i < ARRAY_SIZE(unfit_file_systems); i++)
		if ((unsigned long)fs.f_type == unfit_file_systems[i].magic)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
					   "state directory %s is on %s, which cannot hold sandboxes: name one on a local disk "
					   "(ext4, xfs, btrfs, tmpfs) with --state-dir", path, unfit_file_systems[i].name);
	if (!(fs.f_bavail * (unsigned long)fs.f_bsize >> 20))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, ENOSPC, "state directory %s", path);
	return 0;
}

static int take_lock(int dir_fd, const char *dir, const char *file, int *ret, struct sbx_err *err)
{
	auto_fd fd = openat(dir_fd, file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s/%s", dir, file);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno == EWOULDBLOCK ? 0 : errno,
				   "%s is in use by another sandboxd: stop that one, or use another --state-dir and --instance", dir);
	*ret = take_fd(&fd);
	return 0;
}

static int open_state_dir(struct monitor *m, struct sbx_err *err)
{
	struct settings *s = m->settings;

	if (s->state_dir[0] != '/') {
		auto_free char *cwd = getcwd(NULL, 0);
		auto_free char *whole = NULL;

		if (!cwd || asprintf(&whole, "%s/%s", cwd, s->state_dir) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "state directory %s", s->state_dir);
		if (settings_set(s, "state_dir", whole, err) < 0)
			return -1;
	}
	if (make_dirs(s->state_dir, 0700, err) < 0)
		return -1;
	m->state_fd = open(s->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (m->state_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "state directory %s", s->state_dir);
	if (check_file_system(s->state_dir, m->state_fd, err) < 0)
		return -1;
	if (fchown(m->state_fd, 0, 0) < 0 || fchmod(m->state_fd, 0700) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "state directory %s: make it root's own", s->state_dir);
	return take_lock(m->state_fd, s->state_dir, "lock", &m->lock_fd, err);
}

/* Cgroups, links and tables carry the instance number, whatever directories the daemon was told to use. */
static int lock_instance(struct monitor *m, struct sbx_err *err)
{
	char file[48], path[sizeof("/run/sandboxd/") + sizeof(file)];

	if (make_dirs("/run/sandboxd", 0755, err) < 0)
		return -1;
	auto_fd dir = open("/run/sandboxd", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "/run/sandboxd");
	snprintf(file, sizeof(file), "instance-%lld.lock", (long long)m->settings->instance);
	snprintf(path, sizeof(path), "instance %lld", (long long)m->settings->instance);
	return take_lock(dir, path, file, &m->instance_lock_fd, err);
}

static int open_run_dir(struct monitor *m, struct sbx_err *err)
{
	const char *run = m->settings->run_dir;

	if (make_dirs(run, 0755, err) < 0)
		return -1;
	m->run_fd = open(run, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (m->run_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "run directory %s", run);
	if (fchown(m->run_fd, 0, 0) < 0 || fchmod(m->run_fd, 0755) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "run directory %s: make it root's own", run);
	return take_lock(m->run_fd, run, "lock", &m->run_lock_fd, err);
}

static uid_t wanted_owner;

static int own_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)type, (void)ftw;
	if (st->st_uid == wanted_owner && st->st_gid == wanted_owner)
		return 0;
	return lchown(path, wanted_owner, wanted_owner);
}

/* sandboxd's own folder; given to its id again when the configuration has changed that. */
static int make_daemon_dir(struct monitor *m, struct sbx_err *err)
{
	char path[1100];
	struct stat st;

	if (mkdirat(m->state_fd, "state", 0700) < 0 && errno != EEXIST)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s/state", m->settings->state_dir);
	if (fstatat(m->state_fd, "state", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s/state", m->settings->state_dir);
	if (!S_ISDIR(st.st_mode))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, ENOTDIR, "%s/state", m->settings->state_dir);
	wanted_owner = (uid_t)m->settings->isolation_sandboxd_uid;
	if (st.st_uid == wanted_owner && st.st_gid == wanted_owner)
		return 0;
	snprintf(path, sizeof(path), "%s/state", m->settings->state_dir);
	if (nftw(path, own_one, 16, FTW_PHYS | FTW_MOUNT) != 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s: give it to user %u", path, wanted_owner);
	return 0;
}

/* ---- files of the run directory ---- */

/* Written beside and renamed: a reader sees the old or the new one. */
static int put_file(struct monitor *m, const char *name, mode_t mode, uid_t owner, const char *text, struct sbx_err *err)
{
	char beside[64];

	snprintf(beside, sizeof(beside), ".%s.new", name);
	ignore_result(unlinkat(m->run_fd, beside, 0) < 0); /* usually not there */
	auto_fd fd = openat(m->run_fd, beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	size_t n = strlen(text);
	if (fd < 0 || write(fd, text, n) != (ssize_t)n || fchmod(fd, mode) < 0 || (owner && fchown(fd, owner, (gid_t)-1) < 0) ||
	    renameat(m->run_fd, beside, m->run_fd, name) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s/%s", m->settings->run_dir, name);
	return 0;
}

static int socket_owner(const struct settings *s, uid_t *ret, struct sbx_err *err)
{
	const char *name = s->server_unix_socket_owner;
	uint32_t id = 0;

	*ret = 0;
	if (!*name)
		return 0;
	if (num_u32(name, strlen(name), UINT32_MAX - 1, &id) == 0) {
		*ret = id;
		return 0;
	}
	const struct passwd *pw = getpwnam(name);
	if (!pw)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "server.unix_socket_owner: there is no user \"%s\"", name);
	*ret = pw->pw_uid;
	return 0;
}

/* ---- API key ---- */

static int read_key(int fd, char *out, size_t size)
{
	ssize_t n = read(fd, out, size - 1);

	if (n < 0)
		return -errno;
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return *out ? 0 : -ENODATA;
}

static void random_key(char out[KEY_CHARACTERS + 2])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint8_t raw[KEY_CHARACTERS];

	random_bytes(raw, sizeof(raw));
	for (size_t i = 0; i < sizeof(raw); i++)
		out[i] = digits[raw[i] & 63];
	out[KEY_CHARACTERS] = '\n';
	out[KEY_CHARACTERS + 1] = '\0';
}

/* Without a configured key one is made at the first start and kept in the state directory. */
static int have_key(struct monitor *m, struct sbx_err *err)
{
	struct settings *s = m->settings;
	char key[600];

	if (*s->server_api_key || s->server_insecure)
		return 0;
	auto_fd fd = openat(m->state_fd, "key", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno != ENOENT)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s/key", s->state_dir);
	if (fd < 0) {
		random_key(key);
		replace_fd(&fd, openat(m->state_fd, "key", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
		if (fd < 0 || write(fd, key, strlen(key)) != (ssize_t)strlen(key) || fsync(fd) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s/key", s->state_dir);
		key[KEY_CHARACTERS] = '\0';
	} else {
		int r = read_key(fd, key, sizeof(key));
		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, r, "%s/key: remove it to have a new one made", s->state_dir);
	}
	return settings_set(s, "server.api_key", key, err);
}

static int publish_key(struct monitor *m, struct sbx_err *err)
{
	char text[600];
	uid_t owner;

	if (socket_owner(m->settings, &owner, err) < 0)
		return -1;
	if (!*m->settings->server_api_key) {
		ignore_result(unlinkat(m->run_fd, "key", 0) < 0); /* of an earlier configuration, if at all */
		return 0;
	}
	snprintf(text, sizeof(text), "%s\n", m->settings->server_api_key);
	return put_file(m, "key", 0600, owner, text, err);
}

/* ---- listeners ---- */

union any_address {
	struct sockaddr any;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
};

static socklen_t fill_address(union any_address *a, const char *host, int64_t port)
{
	*a = (union any_address){0};
	if (!*host || !strcmp(host, "localhost"))
		host = "127.0.0.1";
	if (inet_pton(AF_INET6, host, &a->six.sin6_addr) == 1) {
		a->six.sin6_family = AF_INET6;
		a->six.sin6_port = htons((uint16_t)port);
		return sizeof(a->six);
	}
	if (inet_pton(AF_INET, host, &a->four.sin_addr) != 1)
		return 0;
	a->four.sin_family = AF_INET;
	a->four.sin_port = htons((uint16_t)port);
	return sizeof(a->four);
}

static int listen_tcp(const struct settings *s, int64_t port, const char *key, int *ret, int64_t *ret_port, struct sbx_err *err)
{
	union any_address a;
	socklen_t n = fill_address(&a, s->server_host, port);

	if (!n)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "server.host \"%s\" is not an address", s->server_host);
	auto_fd fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 || bind(fd, &a.any, n) < 0 ||
	    listen(fd, (int)s->server_backlog) < 0) {
		const char *hint = errno == EADDRINUSE ? "; another program has it: choose one, or 0" : "";
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "listen on %s port %lld (server.%s%s)", s->server_host, (long long)port, key,
				   hint);
	}
	n = sizeof(a);
	if (getsockname(fd, &a.any, &n) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "getsockname");
	*ret_port = ntohs(a.any.sa_family == AF_INET6 ? a.six.sin6_port : a.four.sin_port);
	*ret = take_fd(&fd);
	return 0;
}

static int listen_unix(struct monitor *m, const char *name, int type, uid_t owner, int *ret, struct sbx_err *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	auto_fd fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "socket");
	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", m->settings->run_dir, name) >= (int)sizeof(a.sun_path))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "run_dir %s is too long for a socket path", m->settings->run_dir);
	ignore_result(unlinkat(m->run_fd, name, 0) < 0); /* of the last run; the lock says that nobody uses it */
	mode_t before = umask(0177);
	int r = bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
	umask(before);
	if (r < 0 || fchownat(m->run_fd, name, owner, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0 ||
	    listen(fd, (int)m->settings->server_backlog) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, r < 0 ? -r : errno, "listen on %s", a.sun_path);
	*ret = take_fd(&fd);
	return 0;
}

static int set_port(struct settings *s, const char *key, int64_t port, struct sbx_err *err)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)port);
	return settings_set(s, key, text, err);
}

static void format_address(const struct settings *s, int64_t port, char *out, size_t size)
{
	const char *host = !*s->server_host || !strcmp(s->server_host, "localhost") ? "127.0.0.1" : s->server_host;

	snprintf(out, size, strchr(host, ':') ? "[%s]:%lld" : "%s:%lld", host, (long long)port);
}

static int open_listeners(struct monitor *m, struct sbx_err *err)
{
	struct settings *s = m->settings;
	char api[128], endpoint[128], text[300];
	int64_t port = 0, endpoint_port = 0;
	uid_t owner;

	if (socket_owner(s, &owner, err) < 0 || listen_tcp(s, s->server_port, "port", &m->api_fd, &port, err) < 0)
		return -1;
	if (listen_tcp(s, s->server_endpoint_port, "endpoint_port", &m->endpoint_fd, &endpoint_port, err) < 0)
		return -1;
	if (set_port(s, "server.port", port, err) < 0 || set_port(s, "server.endpoint_port", endpoint_port, err) < 0)
		return -1;
	if (listen_unix(m, "api.sock", SOCK_STREAM, owner, &m->unix_fd, err) < 0 ||
	    listen_unix(m, "control.sock", SOCK_SEQPACKET, (uid_t)s->isolation_gateway_uid, &m->control_fd, err) < 0 ||
	    listen_unix(m, "policy.sock", SOCK_SEQPACKET, (uid_t)s->isolation_dnsd_uid, &m->policy_fd, err) < 0)
		return -1;
	format_address(s, port, api, sizeof(api));
	format_address(s, endpoint_port, endpoint, sizeof(endpoint));
	snprintf(text, sizeof(text), "%s\n%s\n", api, endpoint);
	return put_file(m, "address", 0644, 0, text, err);
}

/* ---- children ---- */

static int write_config(const struct settings *s, unsigned flags, int *ret, struct sbx_err *err)
{
	auto_fd fd = memfd_create("sandboxd.toml", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	FILE *out = copy < 0 ? NULL : fdopen(copy, "w");

	if (!out) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "configuration for the children");
		close_keep_errno(copy);
		return -1;
	}
	settings_write(s, out, flags);
	if (fclose(out) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "configuration for the children");
	*ret = take_fd(&fd);
	return 0;
}

int monitor_open_program(int self_fd, const char *program)
{
	char path[4096];

	if (!program)
		return fcntl(self_fd, F_DUPFD_CLOEXEC, FIRST_SPARE_FD);
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (n > 0) {
		path[n] = '\0';
		char *slash = strrchr(path, '/');
		size_t room = slash ? sizeof(path) - (size_t)(slash + 1 - path) : 0;
		if (slash && snprintf(slash + 1, room, "%s", program) < (int)room) {
			int fd = open(path, O_PATH | O_CLOEXEC);
			if (fd >= 0)
				return fd;
		}
	}
	if (snprintf(path, sizeof(path), "%s/%s", SBX_LIBEXECDIR, program) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	int fd = open(path, O_PATH | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static size_t fds_of(const struct monitor *m, enum child_kind kind, struct fd_move out[8])
{
	size_t n = 0;

	out[n++] = (struct fd_move){m->config_fd[child_rows[kind].wants_key], MONITOR_FD_CONFIG};
	if (kind == CHILD_GATEWAY) {
		out[n++] = (struct fd_move){m->api_fd, MONITOR_FD_API};
		out[n++] = (struct fd_move){m->endpoint_fd, MONITOR_FD_ENDPOINT};
		out[n++] = (struct fd_move){m->unix_fd, MONITOR_FD_UNIX};
	} else if (kind == CHILD_DAEMON) {
		out[n++] = (struct fd_move){m->control_fd, MONITOR_FD_CONTROL};
		out[n++] = (struct fd_move){m->ready_child_fd, MONITOR_FD_READY};
		out[n++] = (struct fd_move){m->fetchers.daemon_fd, MONITOR_FD_FETCH};
		out[n++] = (struct fd_move){m->policy_fd, MONITOR_FD_POLICY};
	}
	return n;
}

/* SQLite opens by path, and the state directory's parents may be root's only: sandboxd sees its folder in the run directory. */
static const char *bind_daemon_dir(const struct monitor *m)
{
	char from[1100], to[1100];

	/* By path: a descriptor's mount belongs to the namespace that is left here. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return "private mount namespace";
	if (mkdirat(m->run_fd, "state", 0755) < 0 && errno != EEXIST)
		return "mkdir state";
	snprintf(to, sizeof(to), "%s/state", m->settings->run_dir);
	snprintf(from, sizeof(from), "%s/state", m->settings->state_dir);
	return mount(from, to, NULL, MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ||
			       mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ?
		       "bind the state directory" :
		       NULL;
}

const char *monitor_move_fds(struct fd_move *moves, size_t n)
{
	int last = 2;

	/* All copies first, above every target, so that no move overwrites one that is still needed. */
	for (size_t i = 0; i < n; i++) {
		moves[i].from = fcntl(moves[i].from, F_DUPFD_CLOEXEC, FIRST_SPARE_FD);
		if (moves[i].from < 0)
			return "descriptors";
	}
	for (size_t i = 0; i < n; i++) {
		if (dup2(moves[i].from, moves[i].to) < 0)
			return "descriptors";
		last = moves[i].to > last ? moves[i].to : last;
	}
	return close_range((unsigned)last + 1, ~0u, CLOSE_RANGE_CLOEXEC) < 0 ? "close_range" : NULL;
}

__attribute__((noreturn)) static void be_child(const struct monitor *m, enum child_kind kind, int program_fd, pid_t parent)
{
	const struct child_row *row = &child_rows[kind];
	char name[64], config[] = "/proc/self/fd/3";
	char *argv[6] = {name}, *envp[8];
	static char path_env[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", config_flag[] = "--config";
#ifdef SBX_FAULT_POINTS
	auto_free char *fault = NULL;
	auto_free char *fault_file = NULL;
#endif
	struct fd_move moves[8];
	size_t n_moves = fds_of(m, kind, moves), n_env = 0, n_args = 1;
	sigset_t none;

	snprintf(name, sizeof(name), "%s", row->program ? row->program : "sandboxd");
	if (row->argument)
		argv[n_args++] = (char *)(uintptr_t)row->argument;
	argv[n_args++] = config_flag;
	argv[n_args++] = config;
	envp[n_env++] = path_env;
#ifdef SBX_FAULT_POINTS
	if (getenv("SBX_FAULT") && asprintf(&fault, "SBX_FAULT=%s", getenv("SBX_FAULT")) > 0)
		envp[n_env++] = fault;
	if (getenv("SBX_FAULT_FILE") && asprintf(&fault_file, "SBX_FAULT_FILE=%s", getenv("SBX_FAULT_FILE")) > 0)
		envp[n_env++] = fault_file;
#endif
	envp[n_env] = NULL;
	argv[n_args] = NULL;
	sigemptyset(&none);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0); /* a ^C in the terminal is for the monitor, which ends its children in order */
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	if (getppid() != parent)
		_exit(1);
	const char *broken = kind == CHILD_DAEMON ? bind_daemon_dir(m) : NULL;
	int exec_fd = fcntl(program_fd, F_DUPFD_CLOEXEC, FIRST_SPARE_FD);
	if (!broken)
		broken = monitor_move_fds(moves, n_moves);
	if (!broken && (!freopen("/dev/null", "r", stdin) || chdir("/") < 0))
		broken = "standard input";
	if (!broken) {
		syscall(SYS_execveat, exec_fd, "", argv, envp, AT_EMPTY_PATH);
		broken = "execute it";
	}
	log_error("start %s: %s: %s", row->name, broken, strerrordesc_np(errno));
	_exit(127);
}

static void write_pids(struct monitor *m);

static void start_child(void *arg)
{
	struct child *c = arg;
	struct monitor *m = c->monitor;
	const struct child_row *row = &child_rows[c->kind];
	pid_t parent = getpid();

	auto_fd program_fd = monitor_open_program(m->self_fd, row->program);
	if (program_fd < 0) {
		log_error("%s: neither beside sandboxd nor in " SBX_LIBEXECDIR ": %s", row->program, strerrordesc_np(-program_fd));
		m->exit_code = 1;
		loop_quit(m->loop, 1);
		return;
	}
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		be_child(m, c->kind, program_fd, parent);
	if (pid < 0) {
		log_error("start %s: %s", row->name, strerrordesc_np(errno));
		loop_timer_arm(c->again, BACKOFF_LAST_MS);
		return;
	}
	c->pid = pid;
	c->started_mono_ms = mono_ms();
	log_info("%s started, pid %d", row->name, pid);
	write_pids(m);
}

/* Field 22 of /proc/PID/stat: a pid alone may be somebody else's by now. */
static bool start_time_of(pid_t pid, char out[32])
{
	char path[32], text[1024];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	char *at = strrchr(text, ')'); /* the name in field 2 may hold anything */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (!at || strcspn(at + 1, " ") >= 32)
		return false;
	snprintf(out, 32, "%.*s", (int)strcspn(at + 1, " "), at + 1);
	return true;
}

static void write_pids(struct monitor *m)
{
	char text[256], start[32];
	size_t n = (size_t)snprintf(text, sizeof(text), "%d\n", getpid());
	struct sbx_err err;

	for (size_t i = 0; i < CHILD_COUNT; i++)
		if (m->child[i].pid && start_time_of(m->child[i].pid, start))
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%d %s\n", m->child[i].pid, start);
	if (put_file(m, "pid", 0644, 0, text, &err) < 0)
		log_warn("%s", err.msg);
}

/* Children that outlived a monitor that was killed: their signal of its end may be on its way, or was lost. */
static void end_leftovers(struct monitor *m)
{
	char text[512];
	auto_fd fd = openat(m->run_fd, "pid", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n <= 0)
		return;
	text[n] = '\0';
	for (char *line = strchr(text, '\n'), *end; line && *++line; line = end) {
		char start[32];
		uint32_t pid = 0;

		end = strchr(line, '\n');
		if (!end)
			return;
		size_t digits = strcspn(line, " \n");
		if (num_u32(line, digits, INT32_MAX, &pid) < 0 || line[digits] != ' ')
			continue;
		*end = '\0';
		auto_fd pidfd = pidfd_of((pid_t)pid);
		bool same = pidfd >= 0 && start_time_of((pid_t)pid, start) && !strcmp(start, line + digits + 1);
		*end = '\n';
		if (!same)
			continue;
		log_warn("process %u of the last run is still there and is ended", pid);
		struct pollfd gone = {.fd = pidfd, .events = POLLIN};
		ignore_result(pidfd_signal(pidfd, SIGTERM)); /* it may just have ended */
		if (poll(&gone, 1, 2000) == 0) {
			pidfd_kill(pidfd);
			poll(&gone, 1, 5000);
		}
	}
}

static bool any_child(const struct monitor *m)
{
	for (size_t i = 0; i < CHILD_COUNT; i++)
		if (m->child[i].pid)
			return true;
	return false;
}

static void stop(struct monitor *m, int exit_code)
{
	if (m->stopping)
		return;
	m->stopping = true;
	m->exit_code = exit_code;
	for (size_t i = 0; i < CHILD_COUNT; i++) {
		loop_timer_disarm(m->child[i].again);
		if (m->child[i].pid)
			kill(m->child[i].pid, SIGTERM);
	}
	if (!any_child(m))
		loop_quit(m->loop, exit_code);
	else
		loop_timer_arm(m->patience, SHUTDOWN_MS);
}

static void out_of_patience(void *arg)
{
	struct monitor *m = arg;

	for (size_t i = 0; i < CHILD_COUNT; i++)
		if (m->child[i].pid) {
			log_warn("%s does not end, it is killed", child_rows[i].name);
			kill(m->child[i].pid, SIGKILL);
		}
}

static void child_ended(struct child *c, int status)
{
	struct monitor *m = c->monitor;
	const char *name = child_rows[c->kind].name;
	bool stable = mono_ms() - c->started_mono_ms >= STABLE_MS;

	c->pid = 0;
	if (m->stopping) {
		if (!any_child(m))
			loop_quit(m->loop, m->exit_code);
		return;
	}
	if (WIFSIGNALED(status))
		log_warn("%s was killed by signal %d and is started again", name, WTERMSIG(status));
	else
		log_warn("%s ended with status %d", name, WEXITSTATUS(status));
	if (stable) {
		c->failures = 0;
		c->delay_ms = 0;
	}
	c->failures++;
	if (WIFEXITED(status) && WEXITSTATUS(status) == MONITOR_EXIT_CONFIG) {
		log_error("%s cannot work with this configuration or on this host (see its line above): ending", name);
		stop(m, 1);
	} else if (c->failures > GIVE_UP_FAILURES && WIFEXITED(status)) {
		log_error("%s ended %u times in a row: ending", name, c->failures);
		stop(m, 1);
	} else {
		loop_timer_arm(c->again, c->delay_ms);
		c->delay_ms = !c->delay_ms ? BACKOFF_FIRST_MS : c->delay_ms * 2 > BACKOFF_LAST_MS ? BACKOFF_LAST_MS : c->delay_ms * 2;
	}
}

static void on_child(void *arg, const struct signalfd_siginfo *info)
{
	struct monitor *m = arg;
	int status;
	pid_t pid;

	(void)info;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		monitor_fetchers_ended(&m->fetchers, pid, status);
		for (size_t i = 0; i < CHILD_COUNT; i++)
			if (m->child[i].pid == pid)
				child_ended(&m->child[i], status);
	}
}

static void on_stop(void *arg, const struct signalfd_siginfo *info)
{
	struct monitor *m = arg;

	log_info("signal %u: ending; sandboxes go on", info->ssi_signo);
	stop(m, 0);
}

static void on_ignored(void *arg, const struct signalfd_siginfo *info)
{
	(void)arg, (void)info;
}

static void announce(struct monitor *m)
{
	const struct settings *s = m->settings;
	char api[128];

	if (m->announced)
		return;
	m->announced = true;
	format_address(s, s->server_port, api, sizeof(api));
	printf("sandboxd ready: http://%s   socket: %s/api.sock\n", api, s->run_dir);
	if (*s->server_api_key)
		printf("key: %s/key\n", s->run_dir);
	else
		printf("key: none is needed (server.insecure); only this machine can connect\n");
	fflush(stdout);
}

static void on_ready(void *arg, int fd, uint32_t events)
{
	struct monitor *m = arg;
	char bytes[64];

	(void)events;
	if (read(fd, bytes, sizeof(bytes)) > 0)
		announce(m);
}

/* ---- whole ---- */

static void monitor_init(struct monitor *m, struct settings *settings)
{
	*m = (struct monitor){.settings = settings};
	m->state_fd = m->run_fd = m->lock_fd = m->run_lock_fd = m->instance_lock_fd = m->self_fd = -1;
	m->config_fd[0] = m->config_fd[1] = -1;
	monitor_fetchers_init(&m->fetchers);
	m->api_fd = m->endpoint_fd = m->unix_fd = m->control_fd = m->policy_fd = m->ready_fd = m->ready_child_fd = -1;
}

static void monitor_clear(struct monitor *m)
{
	const int fds[] = {m->state_fd, m->run_fd,	m->lock_fd, m->run_lock_fd, m->instance_lock_fd, m->self_fd,	 m->config_fd[0],  m->config_fd[1],
			   m->api_fd,	m->endpoint_fd, m->unix_fd, m->control_fd, m->policy_fd, m->ready_fd, m->ready_child_fd};

	monitor_fetchers_clear(&m->fetchers);
	loop_fd_remove(m->ready_source);
	loop_timer_free(m->patience);
	for (size_t i = 0; i < CHILD_COUNT; i++)
		loop_timer_free(m->child[i].again);
	loop_free(m->loop);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close_keep_errno(fds[i]);
}

static int open_places(struct monitor *m, struct sbx_err *err)
{
	if (geteuid() != 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, EPERM, "--standalone needs root: sudo sandboxd --standalone ...");
	if (wall_usec() < WALL_SANE_USEC)
		log_warn("the clock says a year before 2020: expiry times follow it, and go along when it is set");
	m->self_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	if (m->self_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "/proc/self/exe (is /proc mounted?)");
	if (open_state_dir(m, err) < 0 || lock_instance(m, err) < 0 || open_run_dir(m, err) < 0 || make_daemon_dir(m, err) < 0)
		return -1;
	end_leftovers(m);
	return 0;
}

static int open_loop(struct monitor *m, struct sbx_err *err)
{
	int ready[2];

	m->loop = loop_new(err);
	if (!m->loop)
		return -1;
	if (pipe2(ready, O_CLOEXEC | O_NONBLOCK) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "pipe");
	m->ready_fd = ready[0];
	m->ready_child_fd = ready[1];
	m->ready_source = loop_fd_add(m->loop, m->ready_fd, EPOLLIN, on_ready, m);
	m->patience = loop_timer_new(m->loop, out_of_patience, m);
	for (size_t i = 0; i < CHILD_COUNT; i++) {
		m->child[i] = (struct child){.monitor = m, .kind = (enum child_kind)i};
		m->child[i].again = loop_timer_new(m->loop, start_child, &m->child[i]);
		if (!m->child[i].again)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "monitor");
	}
	if (!m->ready_source || !m->patience)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "monitor");
	if (loop_signal(m->loop, SIGCHLD, on_child, m, err) < 0 || loop_signal(m->loop, SIGTERM, on_stop, m, err) < 0 ||
	    loop_signal(m->loop, SIGINT, on_stop, m, err) < 0 || loop_signal(m->loop, SIGHUP, on_ignored, m, err) < 0 ||
	    loop_signal(m->loop, SIGPIPE, on_ignored, m, err) < 0)
		return -1;
	return 0;
}

static int run(struct monitor *m, struct sbx_err *err)
{
	if (open_places(m, err) < 0 || have_key(m, err) < 0 || open_loop(m, err) < 0 || open_listeners(m, err) < 0 ||
	    publish_key(m, err) < 0 || write_config(m->settings, SETTINGS_WITHOUT_KEY, &m->config_fd[0], err) < 0 ||
	    write_config(m->settings, 0, &m->config_fd[1], err) < 0)
		return -1;
	if (monitor_fetchers_open(&m->fetchers, m->loop, m->settings, m->self_fd, m->config_fd[0], err) < 0)
		return -1;
	for (size_t i = 0; i < CHILD_COUNT; i++)
		loop_timer_arm(m->child[i].again, 0);
	int r = loop_run(m->loop);
	for (size_t i = 0; i < CHILD_COUNT; i++) /* only after a failure of the loop itself */
		if (m->child[i].pid)
			kill(m->child[i].pid, SIGTERM);
	static const char *const names[] = {"api.sock", "control.sock", "policy.sock", "broker.sock", "address", "pid", "key"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		ignore_result(unlinkat(m->run_fd, names[i], 0) < 0); /* some are not there */
	if (r != 0 || m->exit_code)
		return sbx_err_set(err, SBX_E_SYSTEM, r < 0 ? -r : 0, "ended, see the lines above");
	return 0;
}

int monitor_run(struct settings *settings, struct sbx_err *err)
{
	struct monitor m;

	monitor_init(&m, settings);
	int r = run(&m, err);
	monitor_clear(&m);
	return r;
}

/* ---- purge ---- */

static int run_broker_purge(struct monitor *m, struct sbx_err *err)
{
	char name[] = "sandbox-broker", purge[] = "--purge", flag[] = "--config", config[] = "/proc/self/fd/3";
	char *argv[] = {name, purge, flag, config, NULL};
	char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
	char *envp[] = {path, NULL};
	int status;

	if (write_config(m->settings, SETTINGS_WITHOUT_KEY, &m->config_fd[0], err) < 0)
		return -1;
	auto_fd program_fd = monitor_open_program(m->self_fd, name);
	if (program_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -program_fd, "%s", name);
	pid_t pid = fork();
	if (pid == 0) {
		int config_fd = fcntl(m->config_fd[0], F_DUPFD_CLOEXEC, FIRST_SPARE_FD);
		int exec_fd = fcntl(program_fd, F_DUPFD_CLOEXEC, FIRST_SPARE_FD);
		if (dup2(config_fd, MONITOR_FD_CONFIG) == MONITOR_FD_CONFIG && close_range(4, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
			syscall(SYS_execveat, exec_fd, "", argv, envp, AT_EMPTY_PATH);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "run %s --purge", name);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "%s --purge failed, see the lines above", name);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)ftw;
	return type == FTW_DP ? rmdir(path) : unlink(path);
}

static int purge(struct monitor *m, struct sbx_err *err)
{
	static const char *const rows[] = {"state/sandboxd.db", "state/sandboxd.db-wal", "state/sandboxd.db-shm"};

	if (open_places(m, err) < 0 || run_broker_purge(m, err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (unlinkat(m->state_fd, rows[i], 0) < 0 && errno != ENOENT)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s/%s", m->settings->state_dir, rows[i]);
	/* FTW_MOUNT: whatever were still mounted below is not ours to empty. */
	if (nftw(m->settings->run_dir, remove_one, 16, FTW_PHYS | FTW_DEPTH | FTW_MOUNT) != 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "remove %s", m->settings->run_dir);
	return 0;
}

int monitor_purge(struct settings *settings, struct sbx_err *err)
{
	struct monitor m;

	monitor_init(&m, settings);
	int r = purge(&m, err);
	monitor_clear(&m);
	return r;
}
