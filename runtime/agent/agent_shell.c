// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_shell.h"

#include "runtime/agent/agent_net.h"
#include "runtime/agent/agent_root.h"
#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"

#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>

#define ARM_FDS	 (3 + LAUNCH_MAX_VOLUMES)
#define MAX_FDS	 (ARM_FDS > LAUNCH_SETUP_FDS_MAX ? ARM_FDS : LAUNCH_SETUP_FDS_MAX)

struct shell {
	struct agent *agent;
	struct root_stage stage;
	struct root_names names;
	struct sock_filter *agent_filter; /* owned */
	uint32_t agent_filter_len;
	enum launch_stage at;
	uint32_t detail;
};

/* The one of this process: it waits with its root between two calls. */
static struct shell the_shell = {.stage = {.proc_fd = -1}, .names = {.hosts_fd = -1, .hostname_fd = -1}};

/* ---- messages ---- */

static int answer(uint32_t msg, const struct shell *sh, int r)
{
	struct launch_answer a = {.msg = msg, .stage = r ? sh->at : 0, .sys = -r, .detail = r ? sh->detail : 0};

	return write(LAUNCH_SOCKET_FD, &a, sizeof(a)) == (ssize_t)sizeof(a) ? 0 : -EPIPE;
}

/*
 * Takes one message of exactly @size bytes; its descriptors go to @fd, NULL: it has none.  Return: how many, or a negative
 * errno.
 */
static int receive(void *data, size_t size, uint32_t msg, int *fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control;
	struct iovec iov = {data, size};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = fd ? &control : NULL,
			   .msg_controllen = fd ? sizeof(control.room) : 0};
	ssize_t n;

	do
		n = recvmsg(LAUNCH_SOCKET_FD, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -EPIPE; /* the broker threw this shell away */
	struct cmsghdr *head = fd ? CMSG_FIRSTHDR(&m) : NULL;
	size_t n_fds = 0;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
		n_fds = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fd, CMSG_DATA(head), n_fds * sizeof(int));
	}
	if ((size_t)n != size || memcmp(data, &msg, sizeof(msg)) || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return -EPROTO;
	return (int)n_fds;
}

/* ---- pool time ---- */

static int read_filter(int fd, uint32_t len, struct sock_filter **ret)
{
	size_t size = len * sizeof(**ret);

	if (!len || len > LAUNCH_MAX_FILTER)
		return -EINVAL;
	struct sock_filter *f = malloc(size);
	if (!f)
		return -ENOMEM;
	if (pread(fd, f, size, 0) != (ssize_t)size) {
		free(f);
		return -EIO;
	}
	*ret = f;
	return 0;
}

static int take_setup(struct shell *sh, const struct launch_setup *m, const int *fd, int n)
{
	struct agent *a = sh->agent;

	if (m->n_cgroup_fds > AGENT_CGROUP_FDS || n != (int)(LAUNCH_FD_TENANT_CGROUP + m->n_cgroup_fds) ||
	    (m->cgroup_version != 1 && m->cgroup_version != 2))
		return -EPROTO;
	a->control_in_fd = fd[LAUNCH_FD_CONTROL_IN];
	a->control_out_fd = fd[LAUNCH_FD_CONTROL_OUT];
	a->exec_in_fd = fd[LAUNCH_FD_EXEC_IN];
	a->exec_out_fd = fd[LAUNCH_FD_EXEC_OUT];
	a->bulk_in_fd = fd[LAUNCH_FD_BULK_IN];
	a->bulk_out_fd = fd[LAUNCH_FD_BULK_OUT];
	a->spool_fd = fd[LAUNCH_FD_SPOOL];
	a->cgroup_version = m->cgroup_version;
	a->n_cgroup_fds = m->n_cgroup_fds;
	a->agent_uid = m->agent_uid;
	for (uint32_t i = 0; i < m->n_cgroup_fds; i++)
		a->cgroup_fd[i] = fd[LAUNCH_FD_TENANT_CGROUP + i];
	a->payload_filter_len = m->filter_payload_len;
	sh->agent_filter_len = m->filter_agent_len;
	int r = read_filter(fd[LAUNCH_FD_FILTER_AGENT], m->filter_agent_len, &sh->agent_filter);
	if (!r)
		r = read_filter(fd[LAUNCH_FD_FILTER_PAYLOAD], m->filter_payload_len, &a->payload_filter);
	close(fd[LAUNCH_FD_FILTER_AGENT]);
	close(fd[LAUNCH_FD_FILTER_PAYLOAD]);
	return r;
}

/* 0, 1 and 2 came from the broker; a tenant must not inherit what they are. */
static int null_stdio(int dev_fd)
{
	auto_fd null = openat(dev_fd, "null", O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (null < 0)
		return -errno;
	for (int i = 0; i < 3; i++)
		if (dup2(null, i) < 0)
			return -errno;
	return 0;
}

static int write_proc(int proc_fd, pid_t pid, const char *name, const char *text)
{
	char path[64];

	snprintf(path, sizeof(path), "%d/%s", (int)pid, name);
	auto_fd fd = openat(proc_fd, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
}

/*
 * The owner of a user namespace is the effective uid of who makes it, so this child takes the agent's.  It keeps its
 * capabilities, because some distributions forbid user namespaces to processes without any.
 */
__attribute__((noreturn)) static void userns_child(uint32_t uid, int ready_fd, int go_fd)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];
	char byte = 0;

	if (setresgid((gid_t)-1, uid, (gid_t)-1) < 0 || setresuid((uid_t)-1, uid, (uid_t)-1) < 0 ||
	    syscall(SYS_capget, &head, caps) < 0)
		_exit(1);
	caps[0].effective = caps[0].permitted;
	caps[1].effective = caps[1].permitted;
	/* a change of ids clears the flag, and then the files of /proc/PID belong to an id that no one here has */
	if (syscall(SYS_capset, &head, caps) < 0 || unshare(CLONE_NEWUSER) < 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
		_exit(1);
	ignore_result(write(ready_fd, &byte, 1)); /* the parent sees EOF otherwise */
	ignore_result(read(go_fd, &byte, 1));
	_exit(0);
}

static int make_userns(struct shell *sh)
{
	int ready[2], go[2];
	char path[64], byte;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	auto_fd ready_in = ready[0];
	auto_fd ready_out = ready[1];
	if (pipe2(go, O_CLOEXEC) < 0)
		return -errno;
	auto_fd go_in = go[0];
	auto_fd go_out = go[1];
	pid_t pid = sysx_fork(-1);
	if (pid < 0)
		return pid;
	if (pid == 0) {
		close(ready_in);
		close(go_out);
		userns_child(sh->agent->agent_uid, ready_out, go_in);
	}
	replace_fd(&ready_out, -1);
	int r = read(ready_in, &byte, 1) == 1 ? 0 : -EPERM;
	/* written by us, who are in the parent namespace with power over these ids: the child could only map its own */
	if (!r)
		r = write_proc(sh->stage.proc_fd, pid, "uid_map", "0 0 65536\n");
	if (!r)
		r = write_proc(sh->stage.proc_fd, pid, "gid_map", "0 0 65536\n");
	if (!r) {
		snprintf(path, sizeof(path), "%d/ns/user", (int)pid);
		r = sh->agent->userns_fd = openat(sh->stage.proc_fd, path, O_RDONLY | O_CLOEXEC);
		r = r < 0 ? -errno : 0;
	}
	replace_fd(&go_out, -1);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r;
}

static int set_up(struct shell *sh)
{
	struct launch_setup m;
	int fd[MAX_FDS];

	sh->at = LAUNCH_STAGE_EXEC;
	int n = receive(&m, sizeof(m), LAUNCH_SETUP, fd);
	if (n < 0)
		return n;
	int r = take_setup(sh, &m, fd, n);
	if (!r)
		r = null_stdio(fd[LAUNCH_FD_DEV]);
	if (r)
		return r;
	sh->at = LAUNCH_STAGE_PROC;
	r = root_proc(&sh->stage);
	if (r)
		return r;
	sh->at = LAUNCH_STAGE_NETWORK;
	r = net_setup(&m, sh->stage.proc_fd);
	if (r)
		return r;
	r = root_stage(fd[LAUNCH_FD_DEV], &sh->stage, &sh->at);
	if (r)
		return r;
	sh->at = LAUNCH_STAGE_USERNS;
	r = make_userns(sh);
	sh->agent->proc_fd = sh->stage.proc_fd;
	sh->agent->devpts_fd = sh->stage.devpts_fd;
	sh->agent->denied.fd = sh->stage.denied_fd;
	return r;
}

/* ---- when the image is known ---- */

static int take_root(struct shell *sh)
{
	int fd[MAX_FDS];
	/* 16 KiB that the stack of pid 1 must not keep */
	struct launch_root *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	sh->at = LAUNCH_STAGE_ROOT;
	if (m == MAP_FAILED)
		return -errno;
	int n = receive(m, sizeof(*m), LAUNCH_ROOT, fd);
	int r = n < 0 ? n : 0;
	if (!r && (m->n_volumes > LAUNCH_MAX_VOLUMES || !memchr(m->nameserver, 0, sizeof(m->nameserver)) ||
		   (uint32_t)n != 1u + (m->flags & LAUNCH_ROOT_HOST_USR ? 1u : 0u) + (m->flags & LAUNCH_ROOT_SPOOL ? 1u : 0u) + m->n_volumes))
		r = -EPROTO;
	if (!r && (m->flags & LAUNCH_ROOT_SPOOL))
		replace_fd(&sh->agent->spool_fd, fd[n - 1]);
	if (!r)
		r = root_mount(&sh->stage, m, fd, &sh->names, &sh->at, &sh->detail);
	munmap(m, sizeof(*m));
	return r;
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Closes everything above 2 that the service does not need, among it the mounts and the root's descriptor. */
static int close_others(const struct shell *sh)
{
	const struct agent *a = sh->agent;
	int keep[15 + AGENT_CGROUP_FDS] = {LAUNCH_SOCKET_FD, a->control_in_fd, a->control_out_fd, a->exec_in_fd,
					   a->exec_out_fd, a->bulk_in_fd, a->bulk_out_fd, a->spool_fd, a->proc_fd, a->devpts_fd,
					   a->userns_fd, sh->names.hosts_fd, sh->names.hostname_fd, a->denied.fd};
	size_t n = 14;
	unsigned from = 3;

	for (uint32_t i = 0; i < a->n_cgroup_fds; i++)
		keep[n++] = a->cgroup_fd[i];
	qsort(keep, n, sizeof(*keep), by_number);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] < (int)from)
			continue;
		int r = keep[i] > (int)from ? sysx_close_range(from, (unsigned)keep[i] - 1) : 0;
		if (r)
			return r;
		from = (unsigned)keep[i] + 1;
	}
	return sysx_close_range(from, ~0u);
}

/*
 * The order: the bounding set and securebits need SETPCAP, so they go first; groups and ids need SETGID and SETUID; then
 * the sets themselves.  Changing ids touches the dumpable flag, so that comes behind them.  no_new_privs comes before the
 * filter because a process without capabilities may load one only with it.
 *
 * The flag is set, not cleared: of a process that is not dumpable the files of /proc/PID belong to root of the user
 * namespace it was executed in, and that is the host id which tenant root has as well (it could raise our oom_score_adj
 * so: tried).  Dumpable, they belong to the agent's id, which no tenant has.  What the flag would otherwise open (ptrace,
 * mem, pidfd_getfd) needs the same id or a capability over the outer namespace.
 */
static int drop_powers(const struct agent *a)
{
	const unsigned bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
			      SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};
	struct rlimit core = {1, 1}; /* 0 would still run a core handler that is a pipe; see core(5) */

	for (unsigned cap = 0; cap < 64; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			if (errno == EINVAL && cap > CAP_AUDIT_READ)
				break;
			return -errno;
		}
	if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0)
		return -errno;
	if (setgroups(0, NULL) < 0 || setresgid(a->agent_uid, a->agent_uid, a->agent_uid) < 0 ||
	    setresuid(a->agent_uid, a->agent_uid, a->agent_uid) < 0)
		return -errno;
	if (syscall(SYS_capset, &head, none) < 0 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	if (setrlimit(RLIMIT_CORE, &core) < 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

static int root(struct shell *sh)
{
	int r = take_root(sh);

	if (r)
		return r;
	sh->at = LAUNCH_STAGE_IDENTITY;
	r = close_others(sh);
	if (!r)
		r = drop_powers(sh->agent);
	if (r)
		return r;
	sh->at = LAUNCH_STAGE_FILTER;
	struct sock_fprog prog = {.len = (unsigned short)sh->agent_filter_len, .filter = sh->agent_filter};
	r = sysx_ret(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0));
	free(take_ptr(sh->agent_filter));
	return r;
}

/* Return: @r */
static int end_badly(struct shell *sh, int r)
{
	if (r != -EPIPE)
		ignore_result(answer(LAUNCH_FAILED, sh, r)); /* a broker that is gone kills the sandbox with its cgroup */
	close(LAUNCH_SOCKET_FD);
	return r;
}

int shell_root(struct agent *a)
{
	struct shell *sh = &the_shell;

	sh->agent = a;
	int r = set_up(sh);
	if (!r)
		r = answer(LAUNCH_SHELL, sh, 0);
	if (!r)
		r = root(sh);
	return r ? end_badly(sh, r) : 0;
}

int shell_arm(void)
{
	struct shell *sh = &the_shell;
	struct launch_arm m;
	int r = answer(LAUNCH_ROOTED, sh, 0);

	sh->at = LAUNCH_STAGE_ETC;
	if (!r)
		r = receive(&m, sizeof(m), LAUNCH_ARM, NULL);
	if (!r && !memchr(m.hostname, 0, sizeof(m.hostname)))
		r = -EPROTO;
	if (!r)
		r = root_name(&sh->names, m.hostname);
	if (!r)
		r = answer(LAUNCH_ARMED, sh, 0);
	if (r)
		return end_badly(sh, r);
	close(LAUNCH_SOCKET_FD);
	return 0;
}
