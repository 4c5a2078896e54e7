// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/launch_child.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "runtime/broker/launch_sync.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/ioprio.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define AGENT_FD	4 /* CLOEXEC; the launch socket is below it */
#define OOM_SCORE_ADJ	"200" /* a sandbox goes before the host's services, whatever ours is */
#define CPU_MASK_BYTES	1024 /* 8192 processors */
#define CHILD_JOIN_MAX	8

/*
 * Limits of every process of a sandbox.  A core limit of 1 (not 0) is what stops a piped core_pattern, see profile.def.
 * What a host does not grant (a hard limit below ours, without CAP_SYS_RESOURCE) is taken as high as it goes.
 */
static const struct {
	int resource;
	rlim_t soft, hard;
} limits[] = {
	{RLIMIT_CORE, 1, 1},
	{RLIMIT_NOFILE, 1024, 524288},
	{RLIMIT_STACK, 8ul << 20, RLIM_INFINITY},
	{RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY},
	{RLIMIT_DATA, RLIM_INFINITY, RLIM_INFINITY},
	{RLIMIT_RSS, RLIM_INFINITY, RLIM_INFINITY},
	{RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY},
	{RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY},
	{RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY}, /* the pids controller counts */
	{RLIMIT_MEMLOCK, 8ul << 20, 8ul << 20},
	{RLIMIT_LOCKS, RLIM_INFINITY, RLIM_INFINITY},
	{RLIMIT_SIGPENDING, 4096, 4096},
	{RLIMIT_MSGQUEUE, 819200, 819200},
	{RLIMIT_NICE, 0, 0},
	{RLIMIT_RTPRIO, 0, 0},
	{RLIMIT_RTTIME, RLIM_INFINITY, RLIM_INFINITY},
};

static int set_limit(size_t i, bool both)
{
	struct rlimit now;

	if (getrlimit((__rlimit_resource_t)limits[i].resource, &now) < 0)
		return -errno;
	struct rlimit want = {.rlim_cur = limits[i].soft, .rlim_max = limits[i].hard};
	if (!both && want.rlim_max < now.rlim_max)
		want.rlim_max = now.rlim_max; /* the broker itself is only ever raised */
	if (!both)
		want.rlim_cur = now.rlim_cur > want.rlim_cur ? now.rlim_cur : want.rlim_max;
	if (setrlimit((__rlimit_resource_t)limits[i].resource, &want) == 0)
		return 0;
	if (want.rlim_max > now.rlim_max)
		want.rlim_max = now.rlim_max;
	if (want.rlim_cur > want.rlim_max)
		want.rlim_cur = want.rlim_max;
	return setrlimit((__rlimit_resource_t)limits[i].resource, &want) < 0 ? -errno : 0;
}

void launch_child_normalise(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		if (limits[i].resource == RLIMIT_NOFILE || limits[i].hard == RLIM_INFINITY)
			ignore_result(set_limit(i, false)); /* as high as this host lets us: the child reports what fails */
	if (getpriority(PRIO_PROCESS, 0) > 0)
		ignore_result(setpriority(PRIO_PROCESS, 0, 0)); /* without CAP_SYS_NICE sandboxes are as nice as we are */
}

static int set_limits(void)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(limits) && r == 0; i++)
		if (limits[i].resource != RLIMIT_CORE || !FAULT_POINT("core-limit"))
			r = set_limit(i, true);
	return r;
}

static int reset_ids(void)
{
	/* The effective user was changed around the clone, which clears this; without it /proc/self belongs to host root. */
	if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
		return -errno;
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return -errno;
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? -errno : 0;
}

static int reset_signals(void)
{
	struct sigaction act = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int signo = 1; signo <= SIGRTMAX; signo++) /* KILL, STOP and libc's own refuse: they cannot be changed at all */
		ignore_result(sigaction(signo, &act, NULL));
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

static int reset_oom(void)
{
	auto_fd fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	/* Lowering needs CAP_SYS_RESOURCE of the host; ours being higher than that already protects the host as well. */
	if (write(fd, OOM_SCORE_ADJ, strlen(OOM_SCORE_ADJ)) < 0 && errno != EACCES)
		return -errno;
	return 0;
}

static int reset_scheduling(void)
{
	struct sched_param param = {.sched_priority = 0};
	unsigned char all[CPU_MASK_BYTES];

	memset(all, 0xff, sizeof(all));
	if (sched_setscheduler(0, SCHED_OTHER, &param) < 0)
		return -errno;
	/* Lowering a nice value needs the host's CAP_SYS_NICE: launch_child_normalise() did that in the broker. */
	if (getpriority(PRIO_PROCESS, 0) < 0 && setpriority(PRIO_PROCESS, 0, 0) < 0)
		return -errno;
	if (syscall(SYS_sched_setaffinity, 0, sizeof(all), all) < 0)
		return -errno;
	if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_NONE, 0)) < 0)
		return -errno;
	return prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0) < 0 ? -errno : 0;
}

static int reset_process(void)
{
	umask(022);
	if (personality(0) < 0 || prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) < 0 || prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
		return -errno;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	/* A fresh session keyring: keys of ours stay ours.  Kernels without keyrings have none to inherit. */
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
		return -errno;
	if (setsid() < 0 && errno != EPERM) /* EPERM: pid 1 leads its session already */
		return -errno;
	return chdir("/") < 0 ? -errno : 0;
}

/* Every attribute that survives clone and exec is set here; golden output of a test holds them to it. */
static int (*const attributes[])(void) = {reset_ids, reset_signals, reset_oom, reset_scheduling, reset_process};

_Noreturn static void fail(int socket, enum launch_stage stage, int sys, uint32_t detail)
{
	struct launch_answer answer = {.msg = LAUNCH_FAILED, .stage = stage, .sys = sys, .detail = detail};

	ignore_result(send(socket, &answer, sizeof(answer), MSG_NOSIGNAL)); /* nobody else could be told */
	_exit(1);
}

static void wait_mapped(int socket)
{
	uint32_t msg = 0;
	ssize_t n;

	do
		n = recv(socket, &msg, sizeof(msg), 0);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(msg) || msg != LAUNCH_MAPPED)
		_exit(1); /* the broker gave up or is gone */
}

/* Descriptors: 0 to 2 /dev/null, 3 the launch socket, 4 the agent (closed by the exec), nothing else. */
static int set_descriptors(const struct launch_child *c)
{
	/* above all targets first, so that no dup2 closes one that is still needed */
	int socket = fcntl(c->socket, F_DUPFD_CLOEXEC, 64);
	int agent = fcntl(c->agent_fd, F_DUPFD_CLOEXEC, 64);
	int null = fcntl(c->null_fd, F_DUPFD_CLOEXEC, 64);

	if (socket < 0 || agent < 0 || null < 0)
		return -errno;
	for (int fd = 0; fd < LAUNCH_SOCKET_FD; fd++)
		if (dup2(null, fd) < 0)
			return -errno;
	if (dup2(socket, LAUNCH_SOCKET_FD) < 0 || dup3(agent, AGENT_FD, O_CLOEXEC) < 0)
		return -errno;
	return syscall(SYS_close_range, AGENT_FD + 1, ~0u, 0) < 0 ? -errno : 0;
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

int launch_child_close_others(int *keep, size_t n)
{
	int from = 0;

	qsort(keep, n, sizeof(keep[0]), by_number);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] > from && syscall(SYS_close_range, from, keep[i] - 1, 0) < 0)
			return -errno;
		from = keep[i] >= from ? keep[i] + 1 : from;
	}
	return syscall(SYS_close_range, from, ~0u, 0) < 0 ? -errno : 0;
}

/*
 * The copy of the broker's descriptors goes first of all: a broker that is killed must be seen to be gone by its clients and
 * by this process, which else would hold its own other end of the launch socket.
 */
static int close_others(const struct launch_child *c)
{
	int keep[6 + CHILD_JOIN_MAX] = {0, 1, 2, c->socket, c->agent_fd, c->null_fd}; /* the first three are replaced later */
	size_t n = 6;

	for (int i = 0; i < c->n_join && n < ARRAY_SIZE(keep); i++)
		keep[n++] = c->join_fd[i];
	return launch_child_close_others(keep, n);
}

_Noreturn void launch_child_run(const struct launch_child *c)
{
	static char name[] = "sandbox-agent";
	char *argv[] = {name, NULL};
	char *envp[] = {NULL};

	int r = close_others(c);
	if (r < 0)
		fail(c->socket, LAUNCH_STAGE_ATTRIBUTES, -r, UINT32_MAX);
	wait_mapped(c->socket);
	for (int i = 0; i < c->n_join; i++)
		if (write(c->join_fd[i], "0", 1) < 0)
			fail(c->socket, LAUNCH_STAGE_CGROUP, errno, (uint32_t)i);
	/* the fault point leaves out all but the identity, so that a test can be seen to notice */
	for (size_t i = 0; i < (FAULT_POINT("child-attributes") ? 1 : ARRAY_SIZE(attributes)); i++) {
		r = attributes[i]();
		if (r < 0)
			fail(c->socket, LAUNCH_STAGE_ATTRIBUTES, -r, (uint32_t)i);
	}
	r = set_descriptors(c);
	if (r < 0)
		fail(c->socket, LAUNCH_STAGE_EXEC, -r, 0);
	/* Last: with the broker's own hundreds of descriptors still open, a low RLIMIT_NOFILE would refuse every open above. */
	r = set_limits();
	if (r < 0)
		fail(LAUNCH_SOCKET_FD, LAUNCH_STAGE_ATTRIBUTES, -r, ARRAY_SIZE(attributes));
	syscall(SYS_execveat, AGENT_FD, "", argv, envp, AT_EMPTY_PATH);
	fail(LAUNCH_SOCKET_FD, LAUNCH_STAGE_EXEC, errno, 1);
}
