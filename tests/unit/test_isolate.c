// SPDX-License-Identifier: Apache-2.0
/*
 * Each process gives itself up in a child, which then tries what it may not do any more.  Run as root the identity is
 * changed too; run as anybody else that part is left out.
 */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OTHER_ID 1899000001u

struct seen {
	int isolated;
	unsigned ids[6];
	long groups;
	int dumpable, core, parent_signal;
	char status[2048];
	int unshare_user, clone_user, ptrace_me, mount_tmp, socket_inet, exec_true, fork_child, unlink_name, bpf;
};

static int error_of(long r)
{
	return r < 0 ? errno : 0;
}

static void try_all(struct seen *s)
{
	uid_t r, e, v;
	gid_t a, b, c;
	struct rlimit core = {1, 1};

	getresuid(&r, &e, &v);
	getresgid(&a, &b, &c);
	const unsigned ids[] = {r, e, v, a, b, c};
	memcpy(s->ids, ids, sizeof(ids));
	s->groups = getgroups(0, NULL);
	s->dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
	getrlimit(RLIMIT_CORE, &core);
	s->core = (int)core.rlim_max;
	prctl(PR_GET_PDEATHSIG, &s->parent_signal, 0, 0, 0);
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ignore_result(read(fd, s->status, sizeof(s->status) - 1) < 0); /* an empty text fails the checks */
	s->unshare_user = error_of(unshare(CLONE_NEWUSER));
	s->ptrace_me = error_of(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	s->mount_tmp = error_of(syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL));
	s->bpf = error_of(syscall(SYS_bpf, 0, NULL, 0));
	s->socket_inet = error_of(close(socket(AF_INET, SOCK_STREAM, 0)));
	s->unlink_name = error_of(unlinkat(AT_FDCWD, "/nonexistent/name", 0));
	long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		_exit(0);
	s->clone_user = error_of(pid);
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	s->fork_child = error_of(child);
	char *const argv[] = {(char *)(uintptr_t)"true", NULL};
	execve("/nonexistent/true", argv, argv);
	s->exec_true = errno;
}

static struct seen run(enum isolate_process process)
{
	struct seen s = {0};
	struct sbx_err err = {0};
	pid_t parent = getpid();
	int ends[2];

	if (pipe(ends) < 0)
		abort();
	pid_t pid = fork();
	if (pid == 0) {
		s.isolated = isolate_self(process, OTHER_ID, parent, &err);
		if (s.isolated < 0)
			fprintf(stderr, "# %s\n", err.msg);
		else
			try_all(&s);
		ignore_result(write(ends[1], &s, sizeof(s)) < 0); /* a short answer fails the checks */
		_exit(0);
	}
	close(ends[1]);
	if (read(ends[0], &s, sizeof(s)) != (ssize_t)sizeof(s))
		s.isolated = -2;
	close(ends[0]);
	waitpid(pid, NULL, 0);
	return s;
}

static bool has(const struct seen *s, const char *line)
{
	return strstr(s->status, line) != NULL;
}

int main(void)
{
	static const struct {
		const char *name;
		enum isolate_process process;
		bool may_exec, may_unlink;
	} rows[] = {
		{"sandboxd", ISOLATE_SANDBOXD, true, true},
		{"gateway", ISOLATE_GATEWAY, false, true},
		{"dnsd", ISOLATE_DNSD, false, false},
	};
	bool root = geteuid() == 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *n = rows[i].name;
		const struct seen s = run(rows[i].process);

		if (!ok(s.isolated == 0, "%s: gives itself up", n))
			continue;
		ok(has(&s, "CapInh:\t0000000000000000\n") && has(&s, "CapPrm:\t0000000000000000\n") &&
			   has(&s, "CapEff:\t0000000000000000\n") && has(&s, "CapAmb:\t0000000000000000\n"),
		   "%s: no capability", n);
		ok(has(&s, "NoNewPrivs:\t1\n") && has(&s, "Seccomp:\t2\n"), "%s: no_new_privs, filtered", n);
		ok(s.dumpable == 0 && s.core == 0, "%s: not dumpable, no core", n);
		is_int(s.parent_signal, SIGTERM, "%s: ends with its parent", n);
		is_int(s.unshare_user, EPERM, "%s: no namespace", n);
		is_int(s.clone_user, EPERM, "%s: no namespace by clone", n);
		is_int(s.ptrace_me, EPERM, "%s: no ptrace", n);
		is_int(s.mount_tmp, EPERM, "%s: no mount", n);
		is_int(s.bpf, EPERM, "%s: no bpf", n);
		is_int(s.socket_inet, 0, "%s: sockets", n);
		is_int(s.exec_true, rows[i].may_exec ? ENOENT : EPERM, "%s: execve", n);
		is_int(s.fork_child, rows[i].may_exec ? 0 : EPERM, "%s: fork", n);
		is_int(s.unlink_name, rows[i].may_unlink ? ENOENT : EPERM, "%s: unlink", n);
		if (!root) {
			tap_skip("identity", "not run as root");
			continue;
		}
		ok(has(&s, "CapBnd:\t0000000000000000\n"), "%s: empty bounding set", n);
		bool same = s.groups == 0;
		for (size_t k = 0; k < ARRAY_SIZE(s.ids); k++)
			same = same && s.ids[k] == OTHER_ID;
		ok(same, "%s: all six ids, no supplementary group", n);
	}
	struct sbx_err err = {0};
	if (root)
		ok(isolate_self(ISOLATE_DNSD, 0, 0, &err) < 0, "root is no identity to change to");
	return tap_done();
}
