// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: runs sandbox-unpack as the broker does, for the system tests
 *
 * unpack_run PROGRAM DIRECTORY [ARGUMENT...] < blob
 * Root of a user namespace that maps 0..65535 to TEST_ID.., the directory as fd 3, a pipe as fd 4.  Prints
 * "exit N status NAME entries N bytes N text TEXT" and ends with the program's exit code.  Of --capture and --index it also
 * prints "packed N kind N digest HEX diff-id HEX" before the text; a directory named like the environment's UNPACK_BELOW and
 * UNPACK_MERGED becomes fd 5 and 6.
 */
#include "base/cleanup.h"
#include "base/err.h"
#include "base/num.h"
#include "images/digest.h"
#include "images/unpack_result.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define TEST_ID 1879048192u /* 0x70000000: below the ids of any installed daemon */

static int write_map(pid_t pid, const char *name)
{
	char path[64];
	char text[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	int n = snprintf(text, sizeof(text), "0 %u 65536\n", TEST_ID);
	auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, text, (size_t)n) == n ? 0 : -1;
}

static int open_view(const char *variable)
{
	const char *path = getenv(variable);

	return path ? open(path, O_RDONLY | O_DIRECTORY) : -1;
}

static void child(int go_fd, int ready_fd, int dir_fd, int result_fd, char **argv)
{
	int view[2] = {open_view("UNPACK_BELOW"), open_view("UNPACK_MERGED")};
	char c;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 || write(ready_fd, "r", 1) != 1 || read(go_fd, &c, 1) != 1)
		_exit(120);
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		_exit(121);
	/* out of the way first: the numbers may be those that are wanted */
	int dir = fcntl(dir_fd, F_DUPFD, 20);
	int result = fcntl(result_fd, F_DUPFD, 20);
	if (dup2(dir, UNPACK_TARGET_FD) < 0 || dup2(result, UNPACK_RESULT_FD) < 0)
		_exit(122);
	for (int i = 0; i < 2; i++) {
		int copy = view[i] < 0 ? -1 : fcntl(view[i], F_DUPFD, 20);

		if (copy >= 0 && dup2(copy, UNPACK_LOWER_FD + i) < 0)
			_exit(122);
		if (copy < 0)
			close(UNPACK_LOWER_FD + i);
	}
	if (close_range(UNPACK_LOWER_FD + 2, ~0u, 0) < 0)
		_exit(123);
	execv(argv[0], argv);
	_exit(124);
}

int main(int argc, char **argv)
{
	int go[2];
	int ready[2];
	int result[2];
	int status;
	char c;
	union {
		struct unpack_result unpacked;
		struct capture_result captured;
	} r = {0};

	if (argc < 3)
		return 2;
	int dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || (!getenv("UNPACK_KEEP") && fchown(dir, TEST_ID, TEST_ID) < 0) || pipe2(go, O_CLOEXEC) < 0 || pipe2(ready, O_CLOEXEC) < 0 ||
	    pipe2(result, O_CLOEXEC) < 0) {
		perror("unpack_run");
		return 125;
	}
	argv[2] = argv[1];
	pid_t pid = fork();
	if (pid == 0)
		child(go[0], ready[1], dir, result[1], argv + 2);
	close(result[1]);
	if (pid < 0 || read(ready[0], &c, 1) != 1 || write_map(pid, "uid_map") < 0 || write_map(pid, "gid_map") < 0 ||
	    write(go[1], "g", 1) != 1) {
		perror("unpack_run");
		return 125;
	}
	ssize_t n = read(result[0], &r, sizeof(r));
	if (waitpid(pid, &status, 0) < 0)
		return 125;
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	if (n == (ssize_t)sizeof(r.captured) && r.captured.magic == CAPTURE_RESULT_MAGIC) {
		char digest[2 * DIGEST_BYTES + 1], diff_id[2 * DIGEST_BYTES + 1];

		hex_encode(r.captured.digest, DIGEST_BYTES, digest);
		hex_encode(r.captured.diff_id, DIGEST_BYTES, diff_id);
		r.captured.text[sizeof(r.captured.text) - 1] = '\0';
		printf("exit %d status %s entries %llu bytes %llu packed %llu kind %u digest %s diff-id %s text %s\n", code,
		       sbx_err_name((enum sbx_err_code)r.captured.status), (unsigned long long)r.captured.entries,
		       (unsigned long long)r.captured.bytes, (unsigned long long)r.captured.packed_bytes, r.captured.kind, digest, diff_id,
		       r.captured.text);
		return code;
	}
	bool whole = n == (ssize_t)sizeof(r.unpacked) && r.unpacked.magic == UNPACK_RESULT_MAGIC;
	r.unpacked.text[sizeof(r.unpacked.text) - 1] = '\0';
	printf("exit %d status %s entries %llu bytes %llu text %s\n", code,
	       whole ? sbx_err_name((enum sbx_err_code)r.unpacked.status) : "none", (unsigned long long)r.unpacked.entries,
	       (unsigned long long)r.unpacked.bytes, r.unpacked.text);
	return code;
}
