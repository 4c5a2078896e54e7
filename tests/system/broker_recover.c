// SPDX-License-Identifier: Apache-2.0
/*
 * kill -9 of the broker at each step of making and ending a sandbox: the next broker finds what lives and undoes the rest.
 * The same of its child that makes shells for the pool, which the broker itself survives.
 * Needs a build with fault points.
 */
#include "config.h"

#include "tests/system/broker_test_client.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/err.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
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

/* As /proc has it; 0: there is no such process. */
static char process_state(uint32_t pid)
{
	char path[64], text[512] = "";

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	auto_fd fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	const char *state = n > 0 ? strrchr(text, ')') : NULL;
	return state && state[1] ? state[2] : '\0';
}

/* A zombie that its new parent has not yet reaped is dead. */
static bool alive(uint32_t pid)
{
	char state = process_state(pid);

	return state && state != 'Z' && state != 'X';
}

static int make_one(struct btc *t, struct broker_create_reply *made, int fds[2])
{
	static struct broker_create create;

	btc_host_create(t, &create);
	return btc_create(t, &create, made, fds);
}

static void survives(struct btc *t)
{
	struct broker_create_reply made = {0};
	struct broker_plain_req list = {0};
	union broker_any any;
	int fds[2] = {-1, -1};
	bool found = false;

	if (!ok(make_one(t, &made, fds) == 0, "a sandbox lives: %s", made.text))
		return;
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_FREEZE, made.ref, 0, NULL, NULL) == 0, "it is frozen");
	ok(btc_restart(t) == 0, "kill -9 of the broker, and another one starts");
	ok(alive(made.pid), "pid 1 of the sandbox was not touched");
	ssize_t n = btc_call(t, &list, sizeof(list), BROKER_OP_SANDBOX_LIST, -1, &any, NULL);
	while (n == sizeof(any.list_reply) && any.list_reply.ref.slot != BROKER_NO_SLOT) {
		found |= any.list_reply.ref.slot == made.ref.slot && any.list_reply.ref.generation == made.ref.generation &&
			 any.list_reply.state == BROKER_SLOT_FROZEN && any.list_reply.pid == made.pid;
		n = btc_recv(t->fd, &any, NULL, 1000);
	}
	ok(found, "it is in the list, frozen, with its pid");
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_THAW, made.ref, 0, NULL, NULL) == 0, "it thaws");
	int channel[2] = {-1, -1};
	ok(btc_slot_call(t, BROKER_OP_CHANNEL_OPEN, made.ref, BROKER_CHANNEL_EXEC, NULL, channel) == 0 && channel[1] >= 0, "its channel opens");
	static const char *const argv[] = {"/bin/true", NULL};
	struct agent_status status = {0};
	ok(btc_run(fds, argv, &status) == 0 && status.exit_code == 0, "the agent serves as before");
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL) == 0, "it can be ended");
	ok(drained(t), "nothing is left of it");
	for (int i = 0; i < 2; i++) {
		close_keep_errno(fds[i]);
		close_keep_errno(channel[i]);
	}
}

/* What a reboot leaves: no record, no group, no process, only files. */
static void keeps_files(struct btc *t)
{
	const struct broker_slot_ref old = {.slot = 7, .generation = 4000000000u};
	struct broker_plain_req list = {0};
	union broker_any any;
	char path[160];
	unsigned found = 0;

	snprintf(path, sizeof(path), "%s/state/sandboxes/7.4000000000", t->dir);
	ok(mkdir(path, 0700) == 0, "files of another boot");
	snprintf(path, sizeof(path), "%s/state/sandboxes/7.4000000000/upper", t->dir);
	ok(mkdir(path, 0755) == 0 && btc_restart(t) == 0, "the broker starts");
	ssize_t n = btc_call(t, &list, sizeof(list), BROKER_OP_SANDBOX_LIST, -1, &any, NULL);
	while (n == sizeof(any.list_reply) && any.list_reply.ref.slot != BROKER_NO_SLOT) {
		found += any.list_reply.state == BROKER_SLOT_KEPT && any.list_reply.ref.slot == old.slot &&
			 any.list_reply.ref.generation == old.generation;
		n = btc_recv(t->fd, &any, NULL, 1000);
	}
	ok(found == 1 && access(path, F_OK) == 0, "it keeps them and says so");
	ok(btc_slot_call(t, BROKER_OP_FILES_DROP, old, 0, NULL, NULL) == 0 && access(path, F_OK) < 0, "they go when sandboxd says so");
	ok(btc_slot_call(t, BROKER_OP_FILES_DROP, old, 0, NULL, NULL) == 0, "gone is fine");
}

/* A group that the kernel does not get frozen holds up nobody but who asked. */
static void stuck_freeze(struct btc *t)
{
	struct broker_create_reply a = {0}, b = {0};
	int fds_a[2] = {-1, -1}, fds_b[2] = {-1, -1};
	union broker_any any;

	kill(t->pid, SIGTERM);
	btc_wait_end(t);
	close_keep_errno(t->fd);
	char sock[128];
	snprintf(sock, sizeof(sock), "%s/run/broker.sock", t->dir);
	unlink(sock);
	if (!ok(btc_spawn(t, "SBX_FAULT=freeze-stuck:fail") == 0 && btc_hello(t) == 0, "broker with a freezer that is stuck") ||
	    !ok(make_one(t, &a, fds_a) == 0 && make_one(t, &b, fds_b) == 0, "two sandboxes"))
		return;
	struct broker_slot_req req = {.ref = a.ref};
	uint64_t start = mono_ms(), tag = btc_send(t, t->fd, &req, sizeof(req), BROKER_OP_SANDBOX_FREEZE, -1);
	bool answered = false;
	int calls = 0, r = 0;
	while (r == 0 && calls < 5) {
		r = btc_slot_call(t, BROKER_OP_SANDBOX_STAT, b.ref, 0, &any, NULL);
		calls++;
	}
	/* meanwhile: the answer to the freeze is still to come behind them */
	ok(r == 0, "%d requests about the other are answered meanwhile, in %llu ms", calls, (unsigned long long)(mono_ms() - start));
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_FREEZE, a.ref, 0, NULL, NULL) == SBX_E_LIMIT, "a second freeze of the same is refused");
	while (!answered && btc_recv(t->fd, &any, NULL, 5000) > 0)
		answered = any.head.tag == tag;
	ok(answered && any.reply.status == SBX_E_PAUSE_FAILED, "the freeze is given up: %s", any.reply.text);
	ok(mono_ms() - start >= 1900, "after its two seconds");
	req = (struct broker_slot_req){.ref = a.ref};
	tag = btc_send(t, t->fd, &req, sizeof(req), BROKER_OP_SANDBOX_FREEZE, -1);
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_KILL, a.ref, 0, NULL, NULL) == 0, "a sandbox that is being frozen can be ended");
	for (answered = false; !answered && btc_recv(t->fd, &any, NULL, 5000) > 0;)
		answered = any.head.tag == tag;
	ok(answered && any.reply.status == SBX_E_NOT_RUNNING, "and who waits is told: %s", any.reply.text);
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_KILL, b.ref, 0, NULL, NULL) == 0 && drained(t), "nothing is left");
	for (int i = 0; i < 2; i++) {
		close_keep_errno(fds_a[i]);
		close_keep_errno(fds_b[i]);
	}
	ok(btc_restart(t) == 0, "a broker without that fault");
}

static void dies_at(struct btc *t, const char *point, bool while_killing)
{
	struct broker_create_reply made = {0};
	char env[128];
	int fds[2] = {-1, -1};

	snprintf(env, sizeof(env), "SBX_FAULT=%s:kill", point);
	/* end the one that runs, start one that is to die */
	kill(t->pid, SIGTERM);
	btc_wait_end(t);
	close_keep_errno(t->fd);
	t->fd = -1;
	char sock[128];
	snprintf(sock, sizeof(sock), "%s/run/broker.sock", t->dir);
	unlink(sock);
	if (!ok(btc_spawn(t, env) == 0 && btc_hello(t) == 0, "broker with %s starts", env))
		return;
	int r = make_one(t, &made, fds);
	if (while_killing) {
		ok(r == 0, "a sandbox lives");
		r = btc_slot_call(t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL);
	}
	ok(r != 0, "the broker died at %s", point);
	int status = btc_wait_end(t);
	ok(status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "by SIGKILL (0x%x)", (unsigned)status);
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	unlink(sock);
	close_keep_errno(t->fd);
	t->fd = -1;
	ok(btc_spawn(t, NULL) == 0 && btc_hello(t) == 0, "the next one starts");
	ok(drained(t), "and leaves nothing of the half made one");
	ok(made.pid == 0 || !alive(made.pid), "nor its pid 1");
	r = make_one(t, &made, fds);
	ok(r == 0, "and makes sandboxes: %s", made.text);
	if (r == 0) {
		r = btc_slot_call(t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL);
		ok(r == 0, "and ends them: %d", r);
	}
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	ok(drained(t), "which leave nothing");
}

/* ---- broker-shells ---- */

#define POOL "2"
#define AT_GENERATION 28 /* in a record, and behind it the state */

/* State of the life that @name ("slot.generation") is of, as its record says; 0: it has none. */
static uint32_t state_of(const struct btc *t, const char *name)
{
	uint32_t slot, generation, word[2] = {0};
	size_t n = strcspn(name, ".");
	char path[160];

	if (num_u32(name, n, UINT32_MAX, &slot) < 0 || !name[n] ||
	    num_u32(name + n + 1, strspn(name + n + 1, "0123456789"), UINT32_MAX, &generation) < 0)
		return 0;
	snprintf(path, sizeof(path), "%s/run/slots/%u/record", t->dir, slot);
	auto_fd fd = open(path, O_RDONLY);
	if (fd < 0 || pread(fd, word, sizeof(word), AT_GENERATION) != (ssize_t)sizeof(word))
		return 0;
	return word[0] == generation ? word[1] : 0;
}

/* Directories and groups, one a line; Return: whether each belongs to a shell that waits, and @n shells there are */
static bool only_shells(const struct btc *t, unsigned n, char *odd, size_t size)
{
	char command[256], line[128];
	unsigned shells = 0;
	bool good = true;

	snprintf(command, sizeof(command), "ls %s/state/sandboxes; find /sys/fs/cgroup -type d -path '*%s*' -name 's[0-9]*.[0-9]*' -printf '%%f\n'", t->dir,
		 t->instance);
	FILE *f = popen(command, "re");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		uint32_t state = state_of(t, *line == 's' ? line + 1 : line);

		line[strcspn(line, "\n")] = '\0';
		if (state != BROKER_SLOT_SHELL) {
			snprintf(odd, size, "%s is %u", line, state);
			good = false;
		}
		shells += *line != 's' && state == BROKER_SLOT_SHELL;
	}
	if (good && shells != n)
		snprintf(odd, size, "%u shells", shells);
	return pclose(f) == 0 && good && shells == n;
}

static bool pool_is_whole(const struct btc *t)
{
	char odd[160] = "";

	for (int i = 0; i < 400; i++) {
		if (only_shells(t, 2, odd, sizeof(odd)))
			return true;
		poll(NULL, 0, 50);
	}
	printf("# %s\n", odd);
	return false;
}

/* Pid of broker-shells, as its file says; 0: none. */
static uint32_t shells_pid(const struct btc *t)
{
	char path[160];
	uint32_t pid = 0;

	snprintf(path, sizeof(path), "%s/run/slots/shells", t->dir);
	auto_fd fd = open(path, O_RDONLY);
	return fd >= 0 && read(fd, &pid, sizeof(pid)) == (ssize_t)sizeof(pid) ? pid : 0;
}

static bool spawn_again(struct btc *t, const char *env)
{
	char sock[128];

	kill(t->pid, SIGTERM);
	btc_wait_end(t);
	close_keep_errno(t->fd);
	t->fd = -1;
	snprintf(sock, sizeof(sock), "%s/run/broker.sock", t->dir);
	unlink(sock);
	return ok(btc_spawn(t, env) == 0 && btc_hello(t) == 0, "broker with %s starts", env);
}

static void serves(struct btc *t)
{
	struct broker_create_reply made = {0};
	int fds[2] = {-1, -1};

	ok(make_one(t, &made, fds) == 0, "a sandbox is made: %s", made.text);
	ok(btc_slot_call(t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL) == 0, "and ended");
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	ok(pool_is_whole(t), "the pool is whole and nothing else is there");
}

static void shells_die_at(struct btc *t, const char *wish)
{
	char env[128];

	snprintf(env, sizeof(env), "SBX_FAULT=%s", wish);
	if (!spawn_again(t, env))
		return;
	ok(pool_is_whole(t), "%s: the pool fills all the same, and what was half made is gone", wish);
	serves(t);
}

/* More creates in one turn than there are shells: the others come by broker-shells, and by the broker where that fails. */
static void more_than_the_pool(struct btc *t, const char *wish, bool dies)
{
	enum { BURST = 5 };
	static struct broker_create create;
	struct broker_slot_ref ref[BURST];
	union broker_any any;
	char env[128];
	size_t sent = 0, made = 0, answered = 0, ended = 0;

	snprintf(env, sizeof(env), "SBX_FAULT=%s", wish);
	if (!spawn_again(t, env) || !ok(pool_is_whole(t), "its pool fills"))
		return;
	uint32_t before = shells_pid(t);
	btc_host_create(t, &create);
	for (; sent < BURST && btc_send(t, t->fd, &create, sizeof(create), BROKER_OP_SANDBOX_CREATE, -1); sent++)
		;
	while (answered < sent) {
		int fds[2] = {-1, -1};
		ssize_t n = btc_recv(t->fd, &any, fds, 20000);

		if (n <= 0)
			break;
		for (int i = 0; i < 2; i++)
			close_keep_errno(fds[i]);
		if (any.head.op != BROKER_OP_SANDBOX_CREATE)
			continue;
		answered++;
		if (any.create_reply.status)
			printf("# %s\n", any.create_reply.text);
		else
			ref[made++] = any.create_reply.ref;
	}
	ok(made == BURST, "%s: %zu of %d creates at once are made with a pool of " POOL, wish, made, BURST);
	for (size_t i = 0; i < made; i++)
		ended += btc_slot_call(t, BROKER_OP_SANDBOX_KILL, ref[i], 0, NULL, NULL) == 0;
	ok(ended == made && pool_is_whole(t), "they end, the pool is whole and nothing else is there");
	/* now, and not before: who made the shells of that pool has written who it is */
	ok((shells_pid(t) != before) == dies, "broker-shells %s", dies ? "died over it" : "lives");
}

/* The broker is killed while its child is in the middle of a shell: the next one ends that first. */
static void shells_outlive_broker(struct btc *t)
{
	uint32_t pid = 0;

	if (!spawn_again(t, "SBX_FAULT=shells-link:stop"))
		return;
	for (int i = 0; i < 400 && process_state(pid) != 'T'; i++) {
		poll(NULL, 0, 50);
		pid = shells_pid(t);
	}
	ok(process_state(pid) == 'T', "broker-shells stands still with a shell half made");
	ok(btc_restart(t) == 0, "kill -9 of the broker, and another one starts");
	ok(!alive(pid), "which has ended the old child");
	ok(pool_is_whole(t), "and undone what that had half made");
	/* and one that is killed when it has nothing to do */
	pid = shells_pid(t);
	ok(kill((pid_t)pid, SIGKILL) == 0, "kill -9 of broker-shells");
	serves(t);
	serves(t);
	ok(shells_pid(t) != pid && alive(shells_pid(t)), "there is another one");
}

int main(void)
{
	static const char *const making[] = {"launch-files", "launch-cgroup", "launch-clone", "launch-link", "arm-mounts", "overlay-mount"};
	static const char *const ending[] = {"kill-cgroup", "kill-trash"};
	struct btc t;

#ifndef SBX_FAULT_POINTS
	printf("1..0 # SKIP built without --enable-fault-points\n");
	return 0;
#endif
	if (ok(btc_start(&t, "recover", "[pool]\ntarget = 0\n") == 0, "broker starts")) {
		survives(&t);
		keeps_files(&t);
		stuck_freeze(&t);
		for (size_t i = 0; i < ARRAY_SIZE(making); i++)
			dies_at(&t, making[i], false);
		for (size_t i = 0; i < ARRAY_SIZE(ending); i++)
			dies_at(&t, ending[i], true);
	}
	btc_stop(&t, tap_failed > 0);
	if (ok(btc_start(&t, "shells", "[pool]\ntarget = " POOL "\n") == 0, "broker with a pool starts")) {
		ok(pool_is_whole(&t), "its pool fills");
		shells_die_at(&t, "shells-cgroup:kill");
		shells_die_at(&t, "shells-link:kill");
		shells_die_at(&t, "shells-link:fail");
		shells_die_at(&t, "shells-answer:fail");
		more_than_the_pool(&t, "nothing:kill", false);
		more_than_the_pool(&t, "shells-link:kill:3", true);
		more_than_the_pool(&t, "shells-cgroup:fail:4", false);
		shells_outlive_broker(&t);
	}
	btc_stop(&t, tap_failed > 0);
	return tap_done();
}
