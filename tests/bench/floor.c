// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: how many commands a second there can be
 *
 * Runs inside a sandbox: `SHELL -c true`, so many at once for so many seconds, found on the same path and begun by vfork(2), and
 * nothing else.  Static, because it is put into images of any kind.
 */
#include "base/num.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int start(const char *shell)
{
	static const char *const dirs[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
	static char path[64];
	const char *const argv[] = {shell, "-c", "true", NULL};
	pid_t pid = vfork();

	if (pid)
		return pid < 0 ? -1 : 0;
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dirs[i], shell);
		execve(path, (char *const *)(uintptr_t)argv, environ);
	}
	_exit(127);
}

int main(int argc, char **argv)
{
	uint32_t at_once = 0, seconds = 0, live = 0, n = 0;
	int status;

	if (argc < 4 || num_u32(argv[2], strlen(argv[2]), 1000, &at_once) < 0 ||
	    num_u32(argv[3], strlen(argv[3]), 3600, &seconds) < 0 || !at_once || !seconds) {
		fprintf(stderr, "usage: floor SHELL AT-ONCE SECONDS\n");
		return 2;
	}
	double begin = now_s(), end = begin + seconds;
	while (live || now_s() < end) {
		for (; live < at_once && now_s() < end; live++)
			if (start(argv[1]) < 0)
				return 1;
		if (!live)
			break;
		if (wait(&status) < 0 || status)
			return 1;
		live--;
		n++;
	}
	printf("rate %.0f\n", (double)n / (now_s() - begin));
	return 0;
}
