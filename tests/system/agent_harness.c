// SPDX-License-Identifier: Apache-2.0
#include "tests/system/agent_harness.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/num.h"
#include "runtime/agent/agent_sys.h"
#include "runtime/broker/profile.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define TIMEOUT_MS 60000

/* ---- the broker's part ---- */

static void die(const char *what)
{
	printf("Bail out! harness: %s: %s\n", what, strerror(errno));
	exit(99);
}

static int must(int r, const char *what)
{
	if (r < 0)
		die(what);
	return r;
}

static void write_text(const char *path, const char *text)
{
	auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die(path);
}

static int new_mount(const char *type)
{
	auto_fd fs = must((int)syscall(SYS_fsopen, type, 1), "fsopen");

	must((int)syscall(SYS_fsconfig, fs, SYSX_FSCONFIG_CMD_CREATE, NULL, NULL, 0), "fsconfig");
	return must((int)syscall(SYS_fsmount, fs, 1, SYSX_MOUNT_NOSUID), "fsmount");
}

static int clone_mount(const char *path, unsigned set)
{
	int fd = must((int)syscall(SYS_open_tree, AT_FDCWD, path, SYSX_OPEN_TREE_CLONE | (unsigned)O_CLOEXEC), path);
	struct sysx_mount_attr attr = {.attr_set = set};

	must((int)syscall(SYS_mount_setattr, fd, "", 0x1000, &attr, sizeof(attr)), "mount_setattr");
	return fd;
}

static int make_dev(void)
{
	static const struct {
		const char *name;
		unsigned major, minor;
	} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
	int fd = new_mount("tmpfs");
	struct sysx_mount_attr ro = {.attr_set = SYSX_MOUNT_RDONLY};

	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
		must(mknodat(fd, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), "mknod");
		must(fchmodat(fd, nodes[i].name, 0666, 0), "chmod");
	}
	must(mkdirat(fd, "pts", 0755) | mkdirat(fd, "shm", 0755) | mkdirat(fd, "mqueue", 0755), "mkdir");
	must(symlinkat("pts/ptmx", fd, "ptmx") | symlinkat("/proc/self/fd", fd, "fd"), "symlink");
	must((int)syscall(SYS_mount_setattr, fd, "", 0x1000, &ro, sizeof(ro)), "mount_setattr");
	return fd;
}

/* The static program of the tests, at /inside: in an empty image it is all there is. */
static void copy_inside(const char *root)
{
	const char *top = getenv("top_builddir");
	char path[4096], buf[65536];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/tests/system/agent_inside", top ? top : ".");
	auto_fd from = must(open(path, O_RDONLY | O_CLOEXEC), path);
	snprintf(path, sizeof(path), "%s/inside", root);
	auto_fd to = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755), path);
	while ((n = read(from, buf, sizeof(buf))) > 0)
		if (write(to, buf, (size_t)n) != n)
			die(path);
	must(fchmod(to, 0755), path);
}

/* The image: links to /usr, and the few files of /etc that programs look for. */
static void make_root(struct harness *h, const struct harness_opts *o)
{
	static const struct {
		const char *name, *text;
	} files[] = {
		{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"},
		{"etc/group", "root:x:0:\nuser:x:1000:\nextra:x:1500:user,other\n"},
	};
	static const char *const links[] = {"bin", "sbin", "lib", "lib64"};
	char path[256];

	snprintf(h->dir, sizeof(h->dir), "/tmp/sbx-agent-XXXXXX");
	if (!mkdtemp(h->dir))
		die("mkdtemp");
	chmod(h->dir, 0755);
	snprintf(h->root, sizeof(h->root), "%s/root", h->dir);
	must(mkdir(h->root, 0755) | chown(h->root, HARNESS_B, HARNESS_B), "root");
	if (!o->no_usr) {
		for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
			char target[32];

			snprintf(path, sizeof(path), "%s/%s", h->root, links[i]);
			snprintf(target, sizeof(target), "usr/%s", links[i]);
			must(symlink(target, path), path);
		}
		snprintf(path, sizeof(path), "%s/etc", h->root);
		must(mkdir(path, 0755) | chown(path, HARNESS_B, HARNESS_B), path);
		for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
			snprintf(path, sizeof(path), "%s/%s", h->root, files[i].name);
			auto_fd fd = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644), path);
			must((int)write(fd, files[i].text, strlen(files[i].text)), path);
			must(fchown(fd, HARNESS_B, HARNESS_B), path);
		}
		snprintf(path, sizeof(path), "%s/tmp", h->root);
		must(mkdir(path, 01777) | chmod(path, 01777) | chown(path, HARNESS_B, HARNESS_B), path);
	}
	copy_inside(h->root);
	if (o->image)
		o->image(h->root);
}

static int fifo_end(const struct harness *h, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", h->dir, name);
	if (mkfifo(path, 0600) < 0 && errno != EEXIST)
		die(path);
	return must(open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC), path);
}

__attribute__((noreturn)) static void launcher(int launch_fd, int agent_fd)
{
	static char *const none[] = {NULL};
	char *const ip[] = {(char[]){"ip"}, (char[]){"link"}, (char[]){"add"}, (char[]){"eth0"}, (char[]){"type"},
				   (char[]){"veth"}, (char[]){"peer"}, (char[]){"name"}, (char[]){"peer0"}, NULL};
	char byte;

	struct rlimit nofile = {1024, 4096}; /* as the broker's child sets it: soft for tenants, hard for the agent */

	if (setrlimit(RLIMIT_NOFILE, &nofile) < 0 || read(launch_fd, &byte, 1) != 1 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ||
	    sethostname("sandbox", 7) < 0)
		_exit(120);
	pid_t pid = fork();
	if (pid == 0) {
		execvp("ip", ip);
		_exit(121);
	}
	int status;
	if (waitpid(pid, &status, 0) < 0 || status)
		_exit(122);
	/* which number the link got is told to the harness, as the broker would know it */
	uint32_t ifindex = if_nametoindex("eth0");
	if (write(launch_fd, &ifindex, sizeof(ifindex)) != (ssize_t)sizeof(ifindex))
		_exit(123);
	int agent = fcntl(agent_fd, F_DUPFD_CLOEXEC, 64);
	if (dup2(launch_fd, LAUNCH_SOCKET_FD) < 0)
		_exit(124);
	sysx_close_range(LAUNCH_SOCKET_FD + 1, 63);
	sysx_close_range(65, ~0u);
	syscall(SYS_execveat, agent, "", none, none, 0x1000);
	_exit(125);
}

static pid_t clone_all(int launch_fd, int agent_fd)
{
	uint64_t args[11] = {CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS};

	args[4] = SIGCHLD;
	fflush(stdout);
	pid_t pid = must((int)syscall(SYS_clone3, args, sizeof(args)), "clone3");
	if (pid == 0)
		launcher(launch_fd, agent_fd);
	return pid;
}

static int wait_answer(struct harness *h, uint32_t want)
{
	struct launch_answer a = {0};
	struct pollfd p = {.fd = h->launch_fd, .events = POLLIN};

	if (poll(&p, 1, TIMEOUT_MS) != 1 || read(h->launch_fd, &a, sizeof(a)) != (ssize_t)sizeof(a))
		a = (struct launch_answer){.msg = 0, .sys = EPIPE};
	h->failed = a;
	return a.msg == want ? 0 : -1;
}

static int send_setup(struct harness *h, uint32_t ifindex)
{
	struct launch_setup m = {.msg = LAUNCH_SETUP, .addr = htonl(0x0a090001), .gateway_addr = htonl(0xa9fe0101),
				 .gateway_mac = {2, 0, 0, 0, 0, 1}, .own_mac = {2, 0, 0, 0, 0, 2}, .agent_uid = 65536,
				 .cgroup_version = 1, .peer_ifindex = ifindex};
	struct sbx_err err = {0};
	char path[128];
	int fd[LAUNCH_SETUP_FDS_MAX];

	fd[LAUNCH_FD_CONTROL_IN] = fifo_end(h, "control.in");
	fd[LAUNCH_FD_CONTROL_OUT] = fifo_end(h, "control.out");
	fd[LAUNCH_FD_EXEC_IN] = fifo_end(h, "exec.in");
	fd[LAUNCH_FD_EXEC_OUT] = fifo_end(h, "exec.out");
	fd[LAUNCH_FD_BULK_IN] = fifo_end(h, "bulk.in");
	fd[LAUNCH_FD_BULK_OUT] = fifo_end(h, "bulk.out");
	snprintf(path, sizeof(path), "%s/spool", h->dir);
	fd[LAUNCH_FD_SPOOL] = must(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), path);
	fd[LAUNCH_FD_DEV] = make_dev();
	fd[LAUNCH_FD_FILTER_AGENT] = profile_compile(PROFILE_AGENT, &m.filter_agent_len, &err);
	fd[LAUNCH_FD_FILTER_PAYLOAD] = profile_compile(PROFILE_PAYLOAD, &m.filter_payload_len, &err);
	if (fd[LAUNCH_FD_FILTER_AGENT] < 0 || fd[LAUNCH_FD_FILTER_PAYLOAD] < 0) {
		printf("# %s\n", err.msg);
		die("profile_compile");
	}
	int r = fdpass_send(h->launch_fd, &(struct iovec){&m, sizeof(m)}, 1, fd, LAUNCH_FD_TENANT_CGROUP);
	for (int i = 0; i < LAUNCH_FD_TENANT_CGROUP; i++)
		close(fd[i]);
	return r;
}

static int send_root(struct harness *h, const struct harness_opts *o)
{
	static struct launch_root m;
	char path[160];
	int fd[2 + 4], n = 0;

	m = (struct launch_root){.msg = LAUNCH_ROOT, .nameserver = "169.254.1.1"};
	fd[n++] = clone_mount(h->root, SYSX_MOUNT_NOSUID | SYSX_MOUNT_NODEV);
	if (!o->no_usr) {
		m.flags = LAUNCH_ROOT_HOST_USR;
		fd[n++] = clone_mount("/usr", SYSX_MOUNT_NOSUID | SYSX_MOUNT_NODEV | SYSX_MOUNT_RDONLY);
	}
	for (uint32_t i = 0; i < 4 && o->volume[i]; i++) {
		struct launch_volume *v = &m.volume[m.n_volumes++];

		v->is_file = o->volume_file[i];
		snprintf(v->path, sizeof(v->path), "%s", o->volume[i]);
		snprintf(path, sizeof(path), "%s/volume%u", h->dir, i);
		if (v->is_file)
			close(must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666), path));
		else
			must(mkdir(path, 0777), path);
		must(chmod(path, 0777), path);
		fd[n++] = clone_mount(path, 0);
	}
	int r = fdpass_send(h->launch_fd, &(struct iovec){&m, sizeof(m)}, 1, fd, (size_t)n);
	while (n--)
		close(fd[n]);
	return r;
}

static volatile sig_atomic_t live_pid;

/* A test that is stopped from outside takes its sandbox with it. */
static void on_stop(int signo)
{
	if (live_pid > 0)
		kill((pid_t)live_pid, SIGKILL);
	_exit(128 + signo);
}

int harness_launch(struct harness *h, const struct harness_opts *opts)
{
	static const struct harness_opts plain;
	const struct harness_opts *o = opts ? opts : &plain;
	const char *top = getenv("top_builddir");
	char path[4096], map[128];
	uint32_t ifindex = 0;
	int pair[2];

	*h = (struct harness){.launch_fd = -1, .next_stream = 1};
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, on_stop);
	signal(SIGINT, on_stop);
	make_root(h, o);
	snprintf(path, sizeof(path), "%s/sandbox-agent", top ? top : ".");
	auto_fd agent = must(open(path, O_RDONLY | O_CLOEXEC), path);
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
	h->launch_fd = pair[0];
	h->pid = clone_all(pair[1], agent);
	live_pid = (sig_atomic_t)h->pid;
	close(pair[1]);
	snprintf(map, sizeof(map), "0 %u 65536\n65536 %u 1\n", HARNESS_B, HARNESS_A);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)h->pid);
	write_text(path, map);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", (int)h->pid);
	write_text(path, map);
	must((int)write(h->launch_fd, "m", 1), "MAPPED");
	if (read(h->launch_fd, &ifindex, sizeof(ifindex)) != (ssize_t)sizeof(ifindex))
		die("launcher");
	must(send_setup(h, ifindex), "SETUP");
	h->control_out = fifo_end(h, "control.in");
	h->control_in = fifo_end(h, "control.out");
	h->exec_out = fifo_end(h, "exec.in");
	h->exec_in = fifo_end(h, "exec.out");
	h->bulk_out = fifo_end(h, "bulk.in");
	h->bulk_in = fifo_end(h, "bulk.out");
	if (wait_answer(h, LAUNCH_SHELL))
		return -1;
	must(send_root(h, o), "ROOT");
	if (wait_answer(h, LAUNCH_ROOTED))
		return -1;
	struct launch_arm arm = {.msg = LAUNCH_ARM, .hostname = "sandbox"};
	must(fdpass_send(h->launch_fd, &(struct iovec){&arm, sizeof(arm)}, 1, NULL, 0), "ARM");
	return wait_answer(h, LAUNCH_ARMED);
}

void harness_stop(struct harness *h)
{
	static char *const env[] = {NULL};
	char *rm[] = {(char[]){"rm"}, (char[]){"-rf"}, h->dir, NULL};

	if (h->pid > 0) {
		kill(h->pid, SIGKILL);
		waitpid(h->pid, NULL, 0);
		live_pid = 0;
	}
	int fds[] = {h->launch_fd, h->control_in, h->control_out, h->exec_in, h->exec_out, h->bulk_in, h->bulk_out};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] > 0)
			close(fds[i]);
	if (strncmp(h->dir, "/tmp/sbx-agent-", 15) != 0)
		return;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		execve("/bin/rm", rm, env);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
}

/* ---- the gateway's and sandboxd's part ---- */

static void write_all(int fd, const void *data, size_t n)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	ssize_t r;

	/* at most PIPE_BUF: whole or not at all */
	while ((r = write(fd, data, n)) < 0 && errno == EAGAIN)
		if (poll(&p, 1, TIMEOUT_MS) != 1)
			die("the agent does not read");
	if (r != (ssize_t)n)
		die("write to the agent");
}

static void send_on(int fd, uint16_t type, uint32_t stream, uint32_t value, const void *data, size_t n)
{
	uint8_t frame[AGENT_IN_FRAME];
	struct agent_frame f = {.size = (uint32_t)n, .type = type, .stream = stream, .value = value};

	memcpy(frame, &f, sizeof(f));
	if (n)
		memcpy(frame + sizeof(f), data, n);
	write_all(fd, frame, sizeof(f) + n);
}

void harness_send(struct harness *h, uint16_t type, uint32_t stream, uint32_t value, const void *data, size_t n)
{
	send_on(h->exec_out, type, stream, value, data, n);
}

void harness_control(struct harness *h, uint16_t type, uint32_t value)
{
	send_on(h->control_out, type, 0, value, NULL, 0);
}

/* A request of any size: the first frame, then MORE. */
static void send_long(int fd, uint16_t type, uint32_t stream, const uint8_t *data, size_t n)
{
	const size_t most = AGENT_IN_FRAME - sizeof(struct agent_frame);

	for (size_t at = 0; at == 0 || at < n;) {
		size_t part = n - at < most ? n - at : most;

		send_on(fd, at ? AGENT_MORE : type, stream, (uint32_t)n, data + at, part);
		at += part;
	}
}

int harness_recv(struct harness *h, int ms, struct agent_frame *f, uint8_t *payload)
{
	for (;;) {
		struct pollfd p = {.fd = h->exec_in, .events = POLLIN};

		if (h->have >= sizeof(*f)) {
			memcpy(f, h->buf, sizeof(*f));
			if (f->size > AGENT_OUT_FRAME - sizeof(*f))
				die("a frame of the agent is too long");
			if (h->have >= sizeof(*f) + f->size) {
				memcpy(payload, h->buf + sizeof(*f), f->size);
				h->have -= sizeof(*f) + f->size;
				memmove(h->buf, h->buf + sizeof(*f) + f->size, h->have);
				return (int)f->size;
			}
		}
		if (poll(&p, 1, ms) != 1)
			return -1;
		ssize_t n = read(h->exec_in, h->buf + h->have, sizeof(h->buf) - h->have);
		if (n > 0)
			h->have += (size_t)n;
	}
}

int harness_status(struct harness *h, int ms, struct agent_status *ret)
{
	struct pollfd p = {.fd = h->control_in, .events = POLLIN};

	if (poll(&p, 1, ms) != 1 || read(h->control_in, ret, sizeof(*ret)) != (ssize_t)sizeof(*ret))
		return -1;
	return ret->magic == AGENT_STATUS_MAGIC ? (int)ret->state : -1;
}

int harness_attach(struct harness *h)
{
	struct agent_attach req = {.version = AGENT_VERSION, .flags = h->attach_flags};
	static uint8_t payload[AGENT_OUT_FRAME];
	uint8_t frame[sizeof(struct agent_frame) + sizeof(req)];

	random_bytes(req.nonce, sizeof(req.nonce));
	harness_send(h, AGENT_ATTACH, 0, 0, &req, sizeof(req));
	h->have = 0;
	/* what is before the answer may begin in the middle of a frame: look for its bytes */
	struct agent_frame f = {.size = sizeof(req), .type = AGENT_ATTACHED};
	memcpy(frame, &f, sizeof(f));
	memcpy(frame + sizeof(f), &req, sizeof(req));
	for (;;) {
		struct pollfd p = {.fd = h->exec_in, .events = POLLIN};
		uint8_t *hit = memmem(h->buf, h->have, frame, sizeof(frame));

		if (hit) {
			h->have -= (size_t)(hit - h->buf) + sizeof(frame);
			memmove(h->buf, hit + sizeof(frame), h->have);
			return 0;
		}
		if (h->have > sizeof(frame)) {
			memmove(h->buf, h->buf + h->have - sizeof(frame), sizeof(frame));
			h->have = sizeof(frame);
		}
		if (poll(&p, 1, TIMEOUT_MS) != 1)
			return -1;
		ssize_t n = read(h->exec_in, payload, sizeof(payload));
		if (n > 0) {
			memcpy(h->buf + h->have, payload, (size_t)n);
			h->have += (size_t)n;
		}
	}
}

static size_t put(uint8_t *buf, size_t at, const char *s)
{
	size_t n = strlen(s) + 1;

	if (at + n > 700000)
		die("the request is too long for the harness");
	memcpy(buf + at, s, n);
	return at + n;
}

static size_t put_spec(uint8_t *buf, struct agent_spec spec, const char *cwd, const char *user, const char *const *args,
		       const char *const *env)
{
	size_t at = put(buf, sizeof(spec), cwd ? cwd : "");

	if (user)
		at = put(buf, at, user);
	for (spec.n_args = 0; args[spec.n_args]; spec.n_args++)
		at = put(buf, at, args[spec.n_args]);
	for (spec.n_env = 0; env && env[spec.n_env]; spec.n_env++)
		at = put(buf, at, env[spec.n_env]);
	spec.string_bytes = (uint32_t)(at - sizeof(spec));
	memcpy(buf, &spec, sizeof(spec));
	return at;
}

int harness_start(struct harness *h, const char *const *argv, const char *const *env, const char *user, const char *cwd)
{
	auto_free uint8_t *buf = calloc(1, 800000);
	struct agent_status st;

	send_long(h->control_out, AGENT_START, 0, buf, put_spec(buf, (struct agent_spec){0}, cwd, user ? user : "", argv, env));
	int state = harness_status(h, TIMEOUT_MS, &st);
	if (state == AGENT_STATE_RUNNING && harness_attach(h))
		return -1;
	return state;
}

int harness_up(struct harness *h, const struct harness_opts *opts)
{
	static const char *const argv[] = {"sleep", "infinity", NULL};
	static const char *const env[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "A=base", "EXECD_ENVS=/opt/opensandbox/.env",
					  NULL};

	if (harness_launch(h, opts)) {
		printf("# launch failed at stage %u: %s (%u)\n", h->failed.stage, strerror(h->failed.sys), h->failed.detail);
		return -1;
	}
	return harness_start(h, argv, env, "", "/") == AGENT_STATE_RUNNING ? 0 : -1;
}

void harness_begin(struct harness *h, struct harness_result *r, struct agent_spec spec, const char *cwd,
		   const char *const *args, const char *const *env)
{
	auto_free uint8_t *buf = calloc(1, 800000);

	*r = (struct harness_result){.stream = h->next_stream++};
	random_bytes(r->id, sizeof(r->id));
	memcpy(buf, r->id, sizeof(r->id));
	size_t n = put_spec(buf + sizeof(r->id), spec, cwd, NULL, args, env);
	if (spec.flags & AGENT_SPEC_DRIVER && h->driver_text) {
		memcpy(buf + sizeof(r->id) + n, h->driver_text, strlen(h->driver_text));
		n += strlen(h->driver_text);
	}
	send_long(h->exec_out, AGENT_EXEC, r->stream, buf, n + sizeof(r->id));
}

void harness_fs_begin(struct harness *h, struct harness_result *r, struct agent_fs fs, const char *const *strings)
{
	auto_free uint8_t *buf = calloc(1, 800000);
	size_t at = sizeof(fs);

	*r = (struct harness_result){.stream = h->next_stream++};
	for (fs.n_strings = 0; strings[fs.n_strings]; fs.n_strings++)
		at = put(buf, at, strings[fs.n_strings]);
	fs.string_bytes = (uint32_t)(at - sizeof(fs));
	memcpy(buf, &fs, sizeof(fs));
	send_long(h->exec_out, AGENT_FS, r->stream, buf, at);
}

void harness_replace(struct harness *h, struct harness_result *r, struct agent_fs fs, const struct harness_file *files, size_t n)
{
	uint8_t buf[2048];

	harness_fs_begin(h, r, fs, (const char *const[]){NULL});
	for (size_t i = 0; i < n; i++) {
		struct agent_fs_replace item = {.path_bytes = (uint32_t)strlen(files[i].path) + 1,
						.old_bytes = (uint32_t)strlen(files[i].old_text),
						.new_bytes = (uint32_t)strlen(files[i].new_text)};
		size_t at = sizeof(item);

		memcpy(buf, &item, sizeof(item));
		memcpy(buf + at, files[i].path, item.path_bytes);
		memcpy(buf + (at += item.path_bytes), files[i].old_text, item.old_bytes);
		memcpy(buf + (at += item.old_bytes), files[i].new_text, item.new_bytes);
		harness_send(h, AGENT_DATA, r->stream, 0, buf, at + item.new_bytes);
	}
	harness_send(h, AGENT_EOF, r->stream, 0, NULL, 0);
	if (harness_finish(h, r, 20000))
		r->end.reason = UINT32_MAX;
}

static void keep(char **to, size_t *have, const uint8_t *data, size_t n)
{
	char *p = realloc(*to, *have + n + 1);

	if (!p)
		die("memory");
	memcpy(p + *have, data, n);
	*have += n;
	p[*have] = 0;
	*to = p;
}

static void take_text(struct harness_result *r, const uint8_t *data, int n)
{
	if (n > (int)sizeof(r->text) - 1)
		n = (int)sizeof(r->text) - 1;
	memcpy(r->text, data, (size_t)(n > 0 ? n : 0));
	r->text[n > 0 ? n : 0] = 0;
}

static void take_frame(struct harness *h, struct harness_result *r, const struct agent_frame *f, const uint8_t *p, int n)
{
	switch (f->type) {
	case AGENT_STARTED:
		r->started = true;
		memcpy(&r->start, p, sizeof(r->start));
		break;
	case AGENT_STDOUT:
	case AGENT_DATA:
		keep(&r->out, &r->n_out, p, (size_t)n);
		harness_send(h, AGENT_CREDIT, r->stream, (uint32_t)n, NULL, 0);
		break;
	case AGENT_BULK:
		for (uint32_t left = f->value; left;) {
			static uint8_t content[65536];
			ssize_t got = read(h->bulk_in, content, left < sizeof(content) ? left : sizeof(content));

			if (got <= 0)
				die("content that is not there");
			keep(&r->out, &r->n_out, content, (size_t)got);
			left -= (uint32_t)got;
		}
		harness_send(h, AGENT_CREDIT, r->stream, f->value, NULL, 0);
		break;
	case AGENT_STDERR:
		keep(&r->err, &r->n_err, p, (size_t)n);
		harness_send(h, AGENT_CREDIT, r->stream, (uint32_t)n, NULL, 0);
		break;
	case AGENT_EXIT:
		r->exited = true;
		memcpy(&r->exit, p, sizeof(r->exit));
		break;
	case AGENT_END:
		r->ended = true;
		memcpy(&r->end, p, sizeof(r->end));
		take_text(r, p + sizeof(r->end), n - (int)sizeof(r->end));
		break;
	case AGENT_STATUS_REPLY:
		r->status_known = true;
		memcpy(&r->status, p, sizeof(r->status));
		take_text(r, p + sizeof(r->status), n - (int)sizeof(r->status));
		break;
	default:
		break;
	}
}

int harness_finish(struct harness *h, struct harness_result *r, int ms)
{
	static uint8_t payload[AGENT_OUT_FRAME];
	struct agent_frame f;

	while (!r->exited && !r->ended && !r->status_known) {
		int n = harness_recv(h, ms, &f, payload);

		if (n < 0)
			return -1;
		if (f.stream == r->stream)
			take_frame(h, r, &f, payload, n);
		else if (h->beside && f.stream == h->beside->stream)
			take_frame(h, h->beside, &f, payload, n);
	}
	if (!r->out)
		keep(&r->out, &r->n_out, payload, 0);
	if (!r->err)
		keep(&r->err, &r->n_err, payload, 0);
	return 0;
}

int harness_run(struct harness *h, struct harness_result *r, const char *command)
{
	const char *const args[] = {command, NULL};

	harness_begin(h, r, (struct agent_spec){.flags = AGENT_SPEC_SHELL}, "", args, NULL);
	if (harness_finish(h, r, TIMEOUT_MS))
		return -3;
	return r->exited ? r->exit.code : -2;
}

int harness_ask(struct harness *h, struct harness_result *r, uint16_t type, uint32_t value, const void *payload, size_t n)
{
	*r = (struct harness_result){.stream = h->next_stream++};
	harness_send(h, type, r->stream, value, payload, n);
	return harness_finish(h, r, TIMEOUT_MS);
}

void harness_clear(struct harness_result *r)
{
	free(r->out);
	free(r->err);
	*r = (struct harness_result){0};
}
