/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cgroup interface against the kernel that this runs on (hybrid on one machine, version 2 in tests/vm): entry of agent and
 * tenants as in a launch, limits that bite, freezing, killing, removal.  Argument "v2" or "v1": which backend must be in use.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/wallclock.h"
#include "runtime/broker/cgroup.h"
#include "tests/tap.h"

#define AGENT_UID 1899000007u
#define MIB	  (1024ull * 1024)

static struct cgroup *cg;
static uint32_t generation = 1;

static pid_t clone_into(int fd)
{
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)(unsigned)fd};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int join(const int *fds, int n)
{
	for (int i = 0; i < n; i++)
		if (write(fds[i], "0", 1) != 1)
			return -errno;
	return 0;
}

typedef int tenant_main(void);

/*
 * What an agent does: enters by clone and `tasks`, loses every id, then puts a child into the tenant leaf.  The exit code of
 * the child comes back; 100 and above are failures to get there.
 */
static int agent_main(const struct cgroup_slot *cs, tenant_main *run)
{
	int status;
	pid_t pid;

	if (join(cs->join_fd, cs->n_join) < 0)
		return 100;
	if (setgroups(0, NULL) < 0 || setresgid(AGENT_UID, AGENT_UID, AGENT_UID) < 0 || setresuid(AGENT_UID, AGENT_UID, AGENT_UID) < 0)
		return 101;
	pid = cgroup_version(cg) == 2 ? clone_into(cs->tenant_fd[0]) : fork();
	if (pid < 0)
		return 102;
	if (!pid) {
		if (cgroup_version(cg) == 1 && join(cs->tenant_fd, cs->n_tenant) < 0)
			_exit(103);
		_exit(run());
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static pid_t launch(const struct cgroup_slot *cs, tenant_main *run)
{
	pid_t pid = clone_into(cs->into_fd);

	if (!pid)
		_exit(agent_main(cs, run));
	return pid;
}

static int finish(pid_t pid)
{
	int status = -1;

	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run_tenant(const struct cgroup_slot *cs, tenant_main *run)
{
	return finish(launch(cs, run));
}

static bool make(struct cgroup_slot *cs, const struct cgroup_limits *limits)
{
	struct sbx_err err = {0};

	cgroup_slot_init(cs);
	if (!ok(!cgroup_make(cg, 3, generation++, AGENT_UID, cs, &err), "make: %s", err.msg))
		return false;
	return ok(cgroup_limit(cg, cs, limits, 0, &err) == 0, "limits: %s", err.msg);
}

/* Waits for the event that says "empty", then removes. */
static void clear(struct cgroup_slot *cs)
{
	struct sbx_err err = {0};
	uint64_t until = mono_ms() + 5000;
	char name[CGROUP_NAME_SIZE];

	memcpy(name, cs->name, sizeof(name));
	while (cgroup_populated(cs) > 0 && mono_ms() < until) {
		struct pollfd p = {.fd = cs->events_fd, .events = POLLPRI};

		poll(&p, 1, 1000);
	}
	ok(cgroup_remove(cg, cs, &err) == 0, "%s removed: %s", name, err.msg);
}

/* ---- tenants ---- */

static int exit_7(void)
{
	return 7;
}

static int eat_64_mib(void)
{
	uint8_t *p = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 50;
	for (size_t i = 0; i < 64 * MIB; i += 4096)
		p[i] = 1;
	return 0;
}

/* Forks until the limit says no; the exit code is how many there were. */
static int fork_all(void)
{
	int n = 0;

	for (; n < 90; n++) {
		pid_t pid = fork();

		if (pid < 0)
			break;
		if (!pid) {
			pause();
			_exit(0);
		}
	}
	kill(0, SIGCONT);
	return errno == EAGAIN ? n : 99;
}

static int spin_600_ms(void)
{
	uint64_t until = mono_ms() + 600;
	struct rusage used;

	while (mono_ms() < until)
		;
	getrusage(RUSAGE_SELF, &used);
	/* tens of milliseconds of processor time */
	return (int)(used.ru_utime.tv_sec * 100 + used.ru_utime.tv_usec / 10000 + used.ru_stime.tv_usec / 10000);
}

static int sleep_long(void)
{
	pause();
	return 0;
}

/* ---- tests ---- */

static void test_entry(void)
{
	struct cgroup_limits none = {0};
	struct cgroup_figures f;
	struct cgroup_slot cs;
	struct sbx_err err = {0};

	if (!make(&cs, &none))
		return;
	is_int(run_tenant(&cs, exit_7), 7, "an agent without any privilege puts a tenant into its leaf");
	is_int(cgroup_stat(cg, &cs, &f, &err), 0, "figures: %s", err.msg);
	ok(f.memory_limit_bytes == UINT64_MAX && !f.pids_max && !f.cpu_millicores && !f.oom_kills, "no limits, no kills");
	clear(&cs);
	is_int(cgroup_remove(cg, &cs, &err), 0, "removing twice is fine");
}

static void test_memory(void)
{
	struct cgroup_limits limits = {.memory_bytes = 16 * MIB};
	struct cgroup_figures f = {0};
	struct cgroup_slot cs;
	struct sbx_err err = {0};
	uint64_t kills = 0;

	if (!make(&cs, &limits))
		return;
	is_int(cgroup_oom_kills(cg, &cs, &kills), 0, "oom counter before");
	is_int(kills, 0, "is 0");
	is_int(run_tenant(&cs, eat_64_mib), 128 + SIGKILL, "64 MiB in 16 MiB are killed; the agent is not");
	struct pollfd p = {.fd = cs.oom_fd, .events = (short)(cgroup_version(cg) == 1 ? POLLIN : POLLPRI)};

	ok(poll(&p, 1, 2000) == 1 && (p.revents & p.events), "the oom event came");
	is_int(cgroup_oom_kills(cg, &cs, &kills), 0, "oom counter after");
	is_int(kills, 1, "is 1");
	is_int(cgroup_stat(cg, &cs, &f, &err), 0, "figures: %s", err.msg);
	is_int(f.memory_limit_bytes, 16 * MIB, "limit is shown");
	ok(f.memory_peak_bytes > 8 * MIB && f.memory_peak_bytes <= 17 * MIB, "peak %llu KiB", (unsigned long long)f.memory_peak_bytes / 1024);
	limits.memory_bytes = 128 * MIB;
	is_int(cgroup_limit(cg, &cs, &limits, 0, &err), 0, "the limit can be raised: %s", err.msg);
	is_int(run_tenant(&cs, eat_64_mib), 0, "then 64 MiB fit");
	clear(&cs);
}

static void test_pids(void)
{
	struct cgroup_limits limits = {.pids_max = 20};
	struct cgroup_slot cs;
	struct sbx_err err = {0};
	uint64_t start;
	int n;

	if (!make(&cs, &limits))
		return;
	n = run_tenant(&cs, fork_all);
	ok(n >= 18 && n <= 19, "20 processes allowed: %d children", n);
	/* The bomb's children live on; the agent still gets a process into the system. */
	start = mono_ms();
	n = run_tenant(&cs, exit_7);
	ok(cgroup_version(cg) == 2 ? n == 102 || n == 7 : n == 7, "beside a full leaf the agent answers (%d) after %llu ms", n,
	   (unsigned long long)(mono_ms() - start));
	is_int(cgroup_populated(&cs), 1, "populated");
	is_int(cgroup_kill(cg, &cs, &err), 0, "kill: %s", err.msg);
	clear(&cs);
}

static void test_cpu(void)
{
	struct cgroup_limits limits = {.cpu_millicores = 200};
	struct cgroup_figures f = {0};
	struct cgroup_slot cs;
	struct sbx_err err = {0};
	int used;

	if (!make(&cs, &limits))
		return;
	used = run_tenant(&cs, spin_600_ms);
	ok(used >= 5 && used <= 20, "200 millicores for 600 ms: %d0 ms of processor time", used);
	is_int(cgroup_stat(cg, &cs, &f, &err), 0, "figures: %s", err.msg);
	is_int(f.cpu_millicores, 200, "limit is shown");
	ok(f.cpu_usec > 50000, "time used: %llu us", (unsigned long long)f.cpu_usec);
	limits.cpu_millicores = 10;
	is_int(cgroup_limit(cg, &cs, &limits, 0, &err), 0, "10m: %s", err.msg);
	limits.cpu_millicores = 1;
	is_int(cgroup_limit(cg, &cs, &limits, 0, &err), 0, "1m: %s", err.msg);
	is_int(cgroup_stat(cg, &cs, &f, &err), 0, "figures: %s", err.msg);
	is_int(f.cpu_millicores, 1, "1m is shown");
	clear(&cs);
}

static void test_freeze(void)
{
	struct cgroup_limits none = {0};
	struct cgroup_slot cs, again;
	struct sbx_err err = {0};
	uint64_t start = mono_usec();
	pid_t pid;

	if (!make(&cs, &none))
		return;
	pid = launch(&cs, sleep_long);
	is_int(cgroup_freeze(cg, &cs, &err), 0, "freeze: %s", err.msg);
	printf("# frozen after %llu us\n", (unsigned long long)(mono_usec() - start));
	is_int(cgroup_frozen(cg, &cs, &err), 1, "says frozen");
	cgroup_slot_init(&again);
	is_int(cgroup_adopt(cg, 3, generation - 1, &again, &err), 0, "a restarted broker finds it: %s", err.msg);
	is_int(cgroup_frozen(cg, &again, &err), 1, "and sees that it is frozen");
	is_int(cgroup_populated(&again), 1, "and populated");
	is_int(cgroup_thaw(cg, &again, &err), 0, "thaw: %s", err.msg);
	is_int(cgroup_frozen(cg, &cs, &err), 0, "says thawed");
	is_int(cgroup_freeze(cg, &cs, &err), 0, "freeze again: %s", err.msg);
	is_int(cgroup_remove(cg, &again, &err), -1, "a group with processes is not removed");
	is_int(err.sys, EBUSY, "because it is busy");
	cgroup_slot_close(&again);
	is_int(cgroup_kill(cg, &cs, &err), 0, "kill while frozen: %s", err.msg);
	is_int(finish(pid), 128 + SIGKILL, "the agent is killed");
	clear(&cs);
	is_int(cgroup_kill(cg, &cs, &err), 0, "kill of what is gone is fine: %s", err.msg);
}

static uint32_t n_found;

static void found(void *arg, uint32_t slot, uint32_t gen)
{
	(void)arg;
	n_found += slot == 3 && gen > 0;
}

static void test_names(void)
{
	struct cgroup_limits none = {0};
	struct cgroup_slot cs, twice;
	struct sbx_err err = {0};
	uint32_t used = generation;

	if (!make(&cs, &none))
		return;
	cgroup_slot_init(&twice);
	is_int(cgroup_make(cg, 3, used, AGENT_UID, &twice, &err), -1, "a name is not used twice");
	is_int(err.code, SBX_E_LIMIT, "and the error says so: %s", err.msg);
	is_int(cgroup_each(cg, found, NULL, &err), 0, "list: %s", err.msg);
	is_int(n_found, 1, "one group");
	is_int(cgroup_populated(&cs), 0, "nobody in it");
	clear(&cs);
	is_int(cgroup_adopt(cg, 3, used, &twice, &err), -1, "adopting what is gone fails");
	is_int(err.sys, ENOENT, "because there is none");
}

static void test_tiny(void)
{
	struct cgroup_limits limits = {.memory_bytes = 1 * MIB, .pids_max = 5, .cpu_millicores = 100};
	struct cgroup_slot cs;

	if (!make(&cs, &limits))
		return;
	is_int(run_tenant(&cs, exit_7) == 7 || run_tenant(&cs, exit_7) == 128 + SIGKILL, 1, "1 MiB is a limit like any other");
	clear(&cs);
}

int main(int argc, char **argv)
{
	struct sbx_err err = {0};

	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	cg = cgroup_open("testcg", &err);
	if (!ok(cg != NULL, "open: %s", cg ? cgroup_root_path(cg) : err.msg))
		return tap_done();
	printf("# version %u, features %#x\n", cgroup_version(cg), cgroup_features(cg));
	if (argc > 1)
		is_int(cgroup_version(cg), argv[1][1] - '0', "the backend asked for");
	ok((cgroup_features(cg) & (CGROUP_MEMORY | CGROUP_PIDS | CGROUP_CPU | CGROUP_FREEZE | CGROUP_KILL)) ==
		   (CGROUP_MEMORY | CGROUP_PIDS | CGROUP_CPU | CGROUP_FREEZE | CGROUP_KILL),
	   "this kernel has all that is tested");
	test_entry();
	test_memory();
	test_pids();
	test_cpu();
	test_freeze();
	test_names();
	test_tiny();
	is_int(cgroup_purge(cg, &err), 0, "purge: %s", err.msg);
	cgroup_free(cg);
	ok(cgroup_open("no/slash", &err) == NULL, "a path is no instance name");
	return tap_done();
}
