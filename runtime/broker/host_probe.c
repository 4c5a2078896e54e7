// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/host_probe.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/pidfd.h"
#include "runtime/broker/host_check.h"

#include <assert.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAITERS	 16u
#define PROBE_MS 60000u /* an emulated machine loads modules for half a minute */

/* One row as the child saw it; texts that do not change are looked up by the parent. */
struct seen {
	uint32_t verdict;
	char found[200];
};

struct host_probe {
	int pidfd, read_fd; /* -1: none */
	struct loop_fd *source;
	struct loop_timer *deadline;
	bool have;
	struct seen row[HOST_CHECK_COUNT];
	struct {
		struct broker_asker asker;
		uint32_t number;
	} waiter[WAITERS];
	uint32_t n_waiters;
};

static_assert(sizeof(((struct host_probe *)0)->row) <= 65536, "the pipe takes it all: the child never waits for its reader");

static struct host_probe probe = {.pidfd = -1, .read_fd = -1};

static void answer_all(struct broker *b, const struct sbx_err *err)
{
	uint32_t n = probe.n_waiters;

	probe.n_waiters = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct seen *seen = &probe.row[probe.waiter[i].number];

		broker_host_row_done(b, &probe.waiter[i].asker, probe.waiter[i].number, seen->verdict, seen->found, err);
	}
}

static void probe_ended(void *arg, int fd, uint32_t events)
{
	struct broker *b = arg;
	siginfo_t info = {0};
	struct sbx_err err = {0};
	ssize_t n = 0;

	(void)events;
	bool good = waitid(P_PIDFD, (id_t)fd, &info, WEXITED) == 0 && info.si_code == CLD_EXITED && info.si_status == 0;
	if (good)
		n = read(probe.read_fd, probe.row, sizeof(probe.row));
	probe.have = n == (ssize_t)sizeof(probe.row);
	loop_timer_disarm(probe.deadline);
	loop_fd_remove(probe.source);
	probe.source = NULL;
	replace_fd(&probe.pidfd, -1);
	replace_fd(&probe.read_fd, -1);
	if (!probe.have)
		sbx_err_set(&err, SBX_E_SYSTEM, 0, "the probes of this host did not come to their end");
	answer_all(b, probe.have ? NULL : &err);
}

static void too_late(void *arg)
{
	(void)arg;
	pidfd_kill(probe.pidfd); /* its end is seen by the loop */
}

/* The child: a copy of the broker that touches none of its descriptors but the pipe. */
static _Noreturn void run_probes(const struct broker *b, int write_fd)
{
	static struct seen seen[HOST_CHECK_COUNT];
	struct host_check_context context = {
		.state_dir = b->state_dir, .cg = b->cg, .host_paths = &b->settings.storage_allowed_host_paths,
		.ipv6 = b->settings.network_ipv6,
		.gate = b->rules.gate};
	struct host_row row;

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	for (uint32_t i = 0; i < HOST_CHECK_COUNT; i++) {
		if (host_check_row(i, &context, &row) < 0)
			_exit(1);
		seen[i].verdict = (uint32_t)row.verdict;
		memcpy(seen[i].found, row.found, sizeof(seen[i].found));
	}
	if (FAULT_POINT("host-probe"))
		_exit(1);
	_exit(write(write_fd, seen, sizeof(seen)) == (ssize_t)sizeof(seen) ? 0 : 1);
}

static int start_probes(struct broker *b, struct sbx_err *err)
{
	int ends[2];

	if (!probe.deadline)
		probe.deadline = loop_timer_new(b->loop, too_late, NULL);
	if (!probe.deadline || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "probes of this host");
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &probe.pidfd, NULL, 0);
	if (pid == 0)
		run_probes(b, ends[1]);
	close_keep_errno(ends[1]);
	probe.read_fd = ends[0];
	probe.source = pid < 0 ? NULL : loop_fd_add(b->loop, probe.pidfd, EPOLLIN, probe_ended, b);
	if (probe.source) {
		loop_timer_arm(probe.deadline, PROBE_MS);
		return 0;
	}
	sbx_err_set(err, SBX_E_SYSTEM, errno, "a child for the probes of this host");
	replace_fd(&probe.pidfd, -1); /* the child, if there is one, has nobody to tell and ends */
	replace_fd(&probe.read_fd, -1);
	return -1;
}

int host_probe_ask(struct broker *b, uint32_t number, const struct broker_asker *asker, struct sbx_err *err)
{
	if (number >= HOST_CHECK_COUNT)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "row %u", number);
	bool running = probe.pidfd >= 0;
	if (!running && probe.have && number) {
		broker_host_row_done(b, asker, number, probe.row[number].verdict, probe.row[number].found, NULL);
		return 0;
	}
	if (probe.n_waiters == WAITERS)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "%u wait for the probes of this host already", WAITERS);
	if (!running && start_probes(b, err) < 0)
		return -1;
	probe.waiter[probe.n_waiters].asker = *asker;
	probe.waiter[probe.n_waiters++].number = number;
	return 0;
}
