// SPDX-License-Identifier: Apache-2.0
/* Not a test: prints how long the broker takes for create and kill, with the pool and without.  Arguments: pool target, then gap in ms, or number at
 * once and seconds. */
#include "tests/system/broker_test_client.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ROUNDS 200

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void print(const char *what, uint64_t *usec)
{
	qsort(usec, ROUNDS, sizeof(*usec), by_value);
	printf("%s p50 %llu us, p90 %llu, p99 %llu\n", what, (unsigned long long)usec[ROUNDS / 2], (unsigned long long)usec[ROUNDS * 9 / 10],
	       (unsigned long long)usec[ROUNDS * 99 / 100]);
}

/* CPU time of the broker alone, which does not depend on what else the machine does; nanoseconds. */
static unsigned long long broker_cpu(const struct btc *t)
{
	char path[64];
	unsigned long long ns = 0;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)t->pid);
	FILE *f = fopen(path, "re");
	if (f && fscanf(f, "%llu", &ns) != 1)
		ns = 0;
	if (f)
		fclose(f);
	return ns;
}

static int count_dir(const char *format, const struct btc *t)
{
	char path[128];
	int n = -2;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(path, sizeof(path), format, t->dir);
#pragma GCC diagnostic pop
	if (format[1] == 'p')
		snprintf(path, sizeof(path), "/proc/%d/fd", (int)t->pid);
	DIR *dir = opendir(path);
	for (; dir && readdir(dir); n++)
		;
	if (dir)
		closedir(dir);
	return n;
}

/* @k sandboxes at once, made and killed for @seconds; then what is left. */
static void churn(struct btc *t, int k, int seconds)
{
	static struct broker_create create;
	unsigned long cycles = 0, failed = 0;
	int in_flight = 0;
	int fd_before = count_dir("/proc", t);
	uint64_t end = mono_ms() + (uint64_t)seconds * 1000;

	while (mono_ms() < end || in_flight) {
		union broker_any any;
		int fds[2];

		while (in_flight < k && mono_ms() < end) {
			btc_host_create(t, &create);
			if (!btc_send(t, t->fd, &create, sizeof(create), BROKER_OP_SANDBOX_CREATE, -1))
				return;
			in_flight++;
		}
		if (btc_recv(t->fd, &any, fds, 20000) <= 0)
			break;
		close_keep_errno(fds[0]);
		close_keep_errno(fds[1]);
		if (any.head.op == BROKER_OP_SANDBOX_CREATE && any.create_reply.status == 0) {
			struct broker_slot_req kill_req = {.ref = any.create_reply.ref};

			btc_send(t, t->fd, &kill_req, sizeof(kill_req), BROKER_OP_SANDBOX_KILL, -1);
		} else if (any.head.op == BROKER_OP_SANDBOX_CREATE) {
			if (!failed++)
				printf("create: %s\n", any.create_reply.text);
			in_flight--;
		} else if (any.head.op == BROKER_OP_SANDBOX_KILL) {
			cycles++;
			in_flight--;
		}
	}
	printf("churn: %lu cycles in %d s, %lu failed; at the end %d directories, %d in the trash; ", cycles, seconds, failed,
	       count_dir("%s/state/sandboxes", t), count_dir("%s/state/trash", t));
	poll(NULL, 0, 2000);
	printf("2 s later %d, %d; descriptors %d -> %d\n", count_dir("%s/state/sandboxes", t), count_dir("%s/state/trash", t), fd_before,
	       count_dir("/proc", t));
}

int main(int argc, char **argv)
{
	static uint64_t create_usec[ROUNDS], kill_usec[ROUNDS];
	static struct broker_create create;
	struct btc t;
	char extra[64];
	int gap_ms = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 20;

	snprintf(extra, sizeof(extra), "[pool]\ntarget = %s\n", argc > 1 ? argv[1] : "0");
	if (btc_start(&t, "speed", extra) < 0) {
		btc_stop(&t, true);
		return 1;
	}
	poll(NULL, 0, 300);
	if (argc > 3) {
		churn(&t, gap_ms, (int)strtol(argv[3], NULL, 10));
		btc_stop(&t, getenv("SHOW_LOG") != NULL);
		return 0;
	}
	unsigned long long cpu = broker_cpu(&t);
	for (int i = 0; i < ROUNDS; i++) {
		struct broker_create_reply made;
		int fds[2];

		btc_host_create(&t, &create);
		uint64_t start = mono_usec();
		int r = btc_create(&t, &create, &made, fds);
		create_usec[i] = mono_usec() - start;
		if (r != 0) {
			printf("create %d: %d %s\n", i, r, made.text);
			break;
		}
		close(fds[0]);
		close(fds[1]);
		start = mono_usec();
		btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL);
		kill_usec[i] = mono_usec() - start;
		if (gap_ms)
			poll(NULL, 0, gap_ms);
	}
	printf("broker's CPU per cycle %llu us\n", (broker_cpu(&t) - cpu) / 1000 / ROUNDS);
	print("create", create_usec);
	print("kill", kill_usec);
	btc_stop(&t, getenv("SHOW_LOG") != NULL);
	return 0;
}
