// SPDX-License-Identifier: Apache-2.0
#include "tests/system/broker_test_client.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/num.h"

#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#define CALL_MS	   60000 /* an emulated machine takes its time */
#define START_MS   300000
#define TEXT_SIZE  1024
#define SPEC_BYTES 3072

static void note(const char *what)
{
	printf("# %s: %s\n", what, strerror(errno));
	fflush(stdout);
}

static int run_shell(const char *command)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) != pid ? -1 : status;
}

static int write_config(const struct btc *t, const char *extra)
{
	char path[TEXT_SIZE];

	snprintf(path, sizeof(path), "%s/config", t->dir);
	FILE *f = fopen(path, "we");
	if (!f)
		return -1;
	/* a line for each process id: two tests at once share neither ids nor addresses */
	fprintf(f, "state_dir = \"%s/state\"\nrun_dir = \"%s/run\"\n%s\n", t->dir, t->dir, strncmp(extra, "!", 1) ? "" : extra + 1);
	const char *slots = getenv("BTC_SLOTS");
	fprintf(f, "[isolation]\nid_base = %u\nslots = %s\n[network]\nsubnet = \"10.%u.0.0/16\"\n%s", t->id_base, slots ? slots : "64",
		100 + (unsigned)getpid() % 100, strncmp(extra, "!", 1) ? extra : "");
	return fclose(f) == 0 ? 0 : -1;
}

/*
 * Ids that no other test has, until this process ends: two at once would count each other's processes as their own.  They lie below
 * those of daemon_lib.sh's instances; 64 slots fit between two.
 */
static int take_ids(uint32_t *ret)
{
	enum { RANGES = 30 };
	static uint32_t taken; /* a test that starts a second broker takes the same */
	char path[64];

	for (uint32_t i = 0; i < RANGES && !taken; i++) {
		uint32_t at = ((uint32_t)getpid() + i) % RANGES;

		snprintf(path, sizeof(path), "/run/lock/sandboxd-test-ids-%u", at);
		auto_fd fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			break;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		taken = 0x08000000 + at * 0x800000;
		take_fd(&fd); /* held until this process ends */
	}
	if (!taken)
		note("a range of ids that no other test has");
	*ret = taken;
	return taken ? 0 : -1;
}

int btc_spawn(struct btc *t, const char *env)
{
	char program[TEXT_SIZE + 32], config[TEXT_SIZE], log[TEXT_SIZE];

	snprintf(program, sizeof(program), "%s/sandbox-broker", t->build_dir);
	snprintf(config, sizeof(config), "%s/config", t->dir);
	snprintf(log, sizeof(log), "%s/broker.log", t->dir);
	t->pid = fork();
	if (t->pid)
		return t->pid < 0 ? -1 : 0;
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || dup2(fd, 2) < 0 || dup2(fd, 1) < 0)
		_exit(126);
	close(fd);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (env) {
		char *copy = strdup(env);

		if (!copy || putenv(copy))
			_exit(126);
	}
	execl(program, "sandbox-broker", "--config", config, "--instance", t->instance, (char *)NULL);
	_exit(127);
}

int btc_wait_end(struct btc *t)
{
	int status = 0;
	auto_fd pidfd = (int)syscall(SYS_pidfd_open, t->pid, 0);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	if (pidfd < 0 || poll(&p, 1, 10000) != 1 || waitpid(t->pid, &status, 0) != t->pid)
		return -1;
	t->pid = 0;
	return status;
}

int btc_connect(const struct btc *t, uint32_t uid)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(at.sun_path, sizeof(at.sun_path), "%s/run/broker.sock", t->dir);
	if (syscall(SYS_setresuid, -1, uid, -1) < 0)
		return -errno;
	int r = connect(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ? -errno : 0;
	if (syscall(SYS_setresuid, -1, 0, -1) < 0)
		abort();
	return r < 0 ? r : take_fd(&fd);
}

uint64_t btc_send(struct btc *t, int fd, void *msg, size_t size, uint32_t op, int pass)
{
	struct broker_head *head = msg;
	struct iovec iov = {.iov_base = msg, .iov_len = size};

	*head = (struct broker_head){.magic = BROKER_MAGIC, .op = op, .tag = ++t->tag, .size = (uint32_t)size};
	return fdpass_send(fd, &iov, 1, &pass, pass >= 0 ? 1 : 0) < 0 ? 0 : head->tag;
}

ssize_t btc_recv(int fd, union broker_any *out, int fds[2], int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int own[4] = {-1, -1, -1, -1};
	size_t n_fds = 0;

	int r = poll(&p, 1, timeout_ms);
	if (r != 1)
		return r < 0 ? -errno : -ETIME;
	ssize_t n = fdpass_recv(fd, out, sizeof(*out), own, 4, &n_fds);
	for (size_t i = 0; i < 4; i++)
		if (fds && i < 2)
			fds[i] = own[i];
		else
			close_keep_errno(own[i]);
	return n;
}

ssize_t btc_call(struct btc *t, void *msg, size_t size, uint32_t op, int pass, union broker_any *out, int fds[2])
{
	uint64_t tag = btc_send(t, t->fd, msg, size, op, pass);

	if (!tag)
		return -EPIPE;
	for (;;) {
		ssize_t n = btc_recv(t->fd, out, fds, CALL_MS);

		if (n <= 0 || out->head.tag == tag)
			return n;
		for (size_t i = 0; fds && i < 2; i++)
			close_keep_errno(fds[i]);
	}
}

int btc_hello(struct btc *t)
{
	struct broker_hello hello = {.version = BROKER_VERSION};
	union broker_any any;

	for (int i = 0; i < START_MS / 20; i++) {
		int status;

		t->fd = btc_connect(t, t->sandboxd_uid);
		/*
		 * The socket of a broker that has just ended takes connections for as long as a child of it has not ended too; those
		 * are closed without an answer.
		 */
		if (t->fd >= 0 && btc_call(t, &hello, sizeof(hello), BROKER_OP_HELLO, -1, &any, NULL) == sizeof(any.hello_reply)) {
			t->hello = any.hello_reply;
			return any.hello_reply.status ? -1 : 0;
		}
		close_keep_errno(t->fd);
		t->fd = -1;
		if (waitpid(t->pid, &status, WNOHANG) == t->pid) {
			printf("# the broker ended with status 0x%x\n", (unsigned)status);
			t->pid = 0;
			return -1;
		}
		poll(NULL, 0, 20); /* its start has no other sign than the socket */
	}
	return -1;
}

static bool isolated;

void btc_keep_netns(void)
{
	isolated = true;
}

int btc_start(struct btc *t, const char *name, const char *extra)
{
	const char *build = getenv("top_builddir");

	memset(t, 0, sizeof(*t));
	t->fd = -1;
	snprintf(t->build_dir, sizeof(t->build_dir), "%s", build ? build : ".");
	const char *base = getenv("BTC_DIR");
	snprintf(t->dir, sizeof(t->dir), "%.30s/sbx-%.16s.XXXXXX", base ? base : "/tmp", name);
	snprintf(t->instance, sizeof(t->instance), "t%d", (int)getpid());
	if (take_ids(&t->id_base) < 0)
		return -1;
	t->sandboxd_uid = t->id_base - 0x40000;
	t->dnsd_uid = t->id_base - 0x40000 + 2;
	/* traffic of a test stays in a network namespace of its own */
	if (!isolated && (unshare(CLONE_NEWNET) < 0 || run_shell("ip link set lo up") != 0)) {
		note("network namespace");
		return -1;
	}
	isolated = true;
	if (!mkdtemp(t->dir) || chmod(t->dir, 0755) < 0 || write_config(t, extra) < 0) {
		note("test directory");
		return -1;
	}
	return btc_spawn(t, NULL) < 0 ? -1 : btc_hello(t);
}

int btc_restart(struct btc *t)
{
	int status;

	if (t->pid > 0) {
		kill(t->pid, SIGKILL);
		waitpid(t->pid, &status, 0);
	}
	close_keep_errno(t->fd);
	char path[TEXT_SIZE];
	snprintf(path, sizeof(path), "%s/run/broker.sock", t->dir);
	unlink(path);
	return btc_spawn(t, NULL) < 0 ? -1 : btc_hello(t);
}

int btc_slot_call(struct btc *t, uint32_t op, struct broker_slot_ref ref, uint32_t arg, union broker_any *out, int fds[2])
{
	struct broker_slot_req req = {.ref = ref, .arg = arg};
	union broker_any own;

	out = out ? out : &own;
	ssize_t n = btc_call(t, &req, sizeof(req), op, -1, out, fds);
	return n <= 0 ? (n < 0 ? (int)n : -EPIPE) : out->reply.status; /* status stands at the same place in each reply */
}

void btc_host_create(const struct btc *t, struct broker_create *c)
{
	memset(c, 0, sizeof(*c));
	uuid_random(c->sandbox_id);
	c->flags = BROKER_CREATE_HOST_USR | BROKER_CREATE_EGRESS_OPEN;
	c->n_layers = 1;
	memcpy(c->layer[0], t->hello.host_image_key, BROKER_KEY_BYTES);
}

int btc_create(struct btc *t, struct broker_create *c, struct broker_create_reply *ret, int fds[2])
{
	union broker_any any;
	ssize_t n = btc_call(t, c, sizeof(*c), BROKER_OP_SANDBOX_CREATE, -1, &any, fds);

	if (n != sizeof(*ret))
		return n < 0 ? (int)n : -EPIPE;
	*ret = any.create_reply;
	return ret->status;
}

int btc_run_begin(const int fds[2], const char *const *argv)
{
	struct {
		struct agent_frame head;
		struct agent_spec spec;
		char text[SPEC_BYTES];
	} frame = {.head = {.type = AGENT_START}};
	size_t at = 2; /* cwd "" and user "" */

	for (size_t i = 0; argv[i]; i++) {
		size_t n = strlen(argv[i]) + 1;

		if (at + n > sizeof(frame.text))
			return -1;
		memcpy(frame.text + at, argv[i], n);
		at += n;
		frame.spec.n_args++;
	}
	const char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	memcpy(frame.text + at, path, sizeof(path));
	at += sizeof(path);
	frame.spec.n_env = 1;
	frame.spec.string_bytes = (uint32_t)at;
	frame.head.size = (uint32_t)(sizeof(frame.spec) + at);
	frame.head.value = frame.head.size;
	size_t size = sizeof(frame.head) + frame.head.size;
	return write(fds[0], &frame, size) == (ssize_t)size ? 0 : -1;
}

int btc_run_end(const int fds[2], struct agent_status *ret)
{
	for (;;) {
		struct pollfd p = {.fd = fds[1], .events = POLLIN};

		if (poll(&p, 1, CALL_MS) != 1)
			return -1;
		if (read(fds[1], ret, sizeof(*ret)) != (ssize_t)sizeof(*ret) || ret->magic != AGENT_STATUS_MAGIC)
			return -1;
		if (ret->state == AGENT_STATE_ENDED || ret->state == AGENT_STATE_START_FAILED)
			return 0;
	}
}

int btc_run(const int fds[2], const char *const *argv, struct agent_status *ret)
{
	return btc_run_begin(fds, argv) < 0 ? -1 : btc_run_end(fds, ret);
}

int btc_root(uint32_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%u/root", pid);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int count_lines(const char *command)
{
	FILE *f = popen(command, "re");
	int n = 0;

	if (!f)
		return -1;
	for (int c; (c = fgetc(f)) != EOF;)
		n += c == '\n';
	pclose(f);
	return n;
}

int btc_count_leftovers(const struct btc *t, char *text, size_t size)
{
	static const struct {
		const char *what, *command; /* %s: directory, then instance */
	} checks[] = {
		{"mounts", "grep -c -- '%s/state\\|nothing-%s' /proc/self/mounts | grep -v '^0$'"},
		{"sandbox directories", "ls %s/state/sandboxes # %s"},
		{"records", "ls %s/run/slots/*/record 2>/dev/null # %s"},
		{"groups", "find /sys/fs/cgroup -type d -path '*%.0s%s*' -name 's[0-9]*.[0-9]*'"},
	};
	int all = 0;

	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		char command[TEXT_SIZE];
		size_t used = strlen(text);

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(command, sizeof(command), checks[i].command, t->dir, t->instance);
#pragma GCC diagnostic pop
		int n = count_lines(command);
		if (n)
			snprintf(text + used, size - used, "%d %s; ", n, checks[i].what);
		all += n < 0 ? 1 : n;
	}
	return all;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	ignore_result(remove(path)); /* go on: what stays is seen in /tmp */
	return 0;
}

void btc_stop(struct btc *t, bool show_log)
{
	char command[TEXT_SIZE];
	struct broker_plain_req list = {0};
	struct broker_list_reply found[64];
	union broker_any any;
	size_t n = 0;

	if (t->fd >= 0 && btc_send(t, t->fd, &list, sizeof(list), BROKER_OP_SANDBOX_LIST, -1))
		while (btc_recv(t->fd, &any, NULL, 2000) == sizeof(any.list_reply) && any.list_reply.ref.slot != BROKER_NO_SLOT)
			if (n < ARRAY_SIZE(found))
				found[n++] = any.list_reply;
	for (size_t i = 0; i < n; i++)
		btc_slot_call(t, BROKER_OP_SANDBOX_KILL, found[i].ref, 0, NULL, NULL);
	if (t->pid > 0) {
		kill(t->pid, SIGTERM);
		if (btc_wait_end(t) < 0 && t->pid > 0)
			kill(t->pid, SIGKILL);
	}
	close_keep_errno(t->fd);
	if (show_log) {
		snprintf(command, sizeof(command), "sed 's/^/# log: /' %s/broker.log | tail -40", t->dir);
		ignore_result(run_shell(command));
	}
	snprintf(command, sizeof(command), "%s/sandbox-broker --config %s/config --instance %s --purge >/dev/null 2>&1 || echo '# purge failed'",
		 t->build_dir, t->dir, t->instance);
	ignore_result(run_shell(command));
	nftw(t->dir, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
