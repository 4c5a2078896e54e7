// SPDX-License-Identifier: Apache-2.0
/* A broker alone: a sandbox on the host image lives, runs, is listed, frozen, killed, and leaves nothing. */
#include "tests/system/broker_test_client.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static bool drained(const struct btc *t)
{
	char text[256];

	for (int i = 0; i < 100; i++) {
		if (btc_count_leftovers(t, text, sizeof(text)) == 0)
			return true;
		poll(NULL, 0, 50);
	}
	printf("# left: %s\n", text);
	return false;
}

/* Whether broker and children let go of the mounts of sandboxes that ended, which one of them has for a moment. */
static bool no_mounts_held(const struct btc *t)
{
	char command[256];

	snprintf(command, sizeof(command), "! { for p in %d $(pgrep -P %d); do ls -l /proc/$p/fd; done 2>/dev/null | grep -q 'mnt:\\['; }", (int)t->pid, (int)t->pid);
	for (int i = 0; i < 200; i++) {
		FILE *f = popen(command, "re");

		if (f && pclose(f) == 0)
			return true;
		poll(NULL, 0, 50);
	}
	return false;
}

static void read_back(uint32_t pid, const char *path, char *out, size_t size)
{
	auto_fd root = btc_root(pid);
	auto_fd fd = openat(root, path, O_RDONLY);
	ssize_t n = read(fd, out, size - 1);

	out[n > 0 ? n : 0] = '\0';
}

static void one_life(struct btc *t)
{
	static const char *const argv[] = {"/bin/sh", "-c", "id -u > /out; cat /proc/self/uid_map >> /out; hostname >> /out; exit 7", NULL};
	static struct broker_create create;
	struct broker_create_reply made = {0};
	struct agent_status status = {0};
	union broker_any any;
	char out[512];
	int fds[2] = {-1, -1};

	btc_host_create(t, &create);
	uint64_t start = mono_usec();
	int r = btc_create(t, &create, &made, fds);
	printf("# create took %llu us\n", (unsigned long long)(mono_usec() - start));
	if (!ok(r == 0, "create on the host image: %d %s", r, made.text))
		return;
	r = btc_run(fds, argv, &status);
	ok(r == 0 && status.state == AGENT_STATE_ENDED && status.exit_code == 7, "the entrypoint ran and ended with 7 (%d, state %u, code %d, sys %d stage %u)", r,
	   status.state, status.exit_code, status.sys, status.stage);
	read_back(made.pid, "out", out, sizeof(out));
	ok(!strncmp(out, "0\n", 2), "it was root inside: %.60s", out);
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_STAT, made.ref, 0, &any, NULL) == 0 && any.stat_reply.cpu_usec > 0, "figures");
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_FREEZE, made.ref, 0, &any, NULL) == 0, "freeze");
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_THAW, made.ref, 0, &any, NULL) == 0, "thaw");
	int sock[2] = {-1, -1};
	ok(btc_slot_call(t, BROKER_OP_SOCKET_OPEN, made.ref, AF_INET, &any, sock) == 0 && sock[0] >= 0, "socket of its network");
	close_keep_errno(sock[0]);
	start = mono_usec();
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_KILL, made.ref, 0, &any, NULL) == 0, "kill");
	printf("# kill took %llu us\n", (unsigned long long)(mono_usec() - start));
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_STAT, made.ref, 0, &any, NULL) != 0, "the reference is dead afterwards");
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
}

static void put_into_trash(const struct btc *t, unsigned series, unsigned n)
{
	char name[160];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/state/trash/busy.%u.%u", t->dir, series, i);
		if (mkdir(name, 0755) < 0)
			return;
	}
}

enum { FEEDERS = 3, HEAD_START = 3000, NAMES_MAX = 1000000 };

/* Gives the worker of the trash more to do than it does, until these children are killed. */
static void keep_worker_busy(const struct btc *t, pid_t feeder[FEEDERS])
{
	put_into_trash(t, FEEDERS, HEAD_START);
	for (unsigned i = 0; i < FEEDERS; i++) {
		feeder[i] = fork();
		if (feeder[i])
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		put_into_trash(t, i, NAMES_MAX);
		_exit(0);
	}
}

/* Return: whether the file system that @watch_fd looks into is unmounted within 30 s */
static bool unmounted(int watch_fd)
{
	struct pollfd p = {.fd = watch_fd, .events = POLLIN};
	struct inotify_event event = {0}; /* none of a directory itself has a name behind it */

	while (!(event.mask & IN_UNMOUNT))
		if (poll(&p, 1, 30000) != 1 || read(watch_fd, &event, sizeof(event)) != (ssize_t)sizeof(event))
			return false;
	return true;
}

/* What a sandbox left in its memory file systems is the host's again, whatever the worker of the trash has to remove. */
static void mounts_end_beside_trash(struct btc *t)
{
	static struct broker_create create;
	struct broker_create_reply made = {0};
	union broker_any any;
	pid_t feeder[FEEDERS];
	char path[64];
	int fds[2] = {-1, -1};
	auto_fd watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	btc_host_create(t, &create);
	if (!ok(btc_create(t, &create, &made, fds) == 0, "another sandbox: %s", made.text))
		return;
	snprintf(path, sizeof(path), "/proc/%u/root/dev/shm", made.pid);
	ok(inotify_add_watch(watch, path, IN_DELETE_SELF) >= 0, "its /dev/shm is watched");
	keep_worker_busy(t, feeder);
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_KILL, made.ref, 0, &any, NULL) == 0, "killed");
	ok(unmounted(watch), "its mounts end while the worker of the trash is busy");
	for (unsigned i = 0; i < FEEDERS; i++) {
		int status = 0;

		ok(feeder[i] > 0 && kill(feeder[i], SIGKILL) == 0 && waitpid(feeder[i], &status, 0) == feeder[i] && WIFSIGNALED(status),
		   "which it was until now");
	}
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
}

int main(void)
{
	struct btc t;

	if (ok(btc_start(&t, "basic", "[pool]\ntarget = 0\n") == 0, "broker starts")) {
		one_life(&t);
		mounts_end_beside_trash(&t);
		ok(drained(&t), "nothing is left");
		ok(no_mounts_held(&t), "nobody has its mounts");
	}
	btc_stop(&t, tap_failed > 0 || getenv("SHOW_LOG"));
	return tap_done();
}
