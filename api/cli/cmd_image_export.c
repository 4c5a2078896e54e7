// SPDX-License-Identifier: Apache-2.0
/* image export: an OCI layout into a file, a directory or stdout */
#include "api/cli/client.h"
#include "api/cli/out.h"

#include "base/cleanup.h"
#include "base/path.h"
#include "base/wallclock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COPY_BYTES (256u * 1024)
#define PAUSE_MS   500u
#define PART       ".part" /* until the whole is there */

struct target {
	const char *path;
	char *part; /* owned; the file being written, or NULL */
	int fd;
	pid_t tar; /* -1: none */
};

static int open_file(struct target *t, struct sbx_err *err)
{
	if (asprintf(&t->part, "%s" PART, t->path) < 0) {
		t->part = NULL;
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export");
	}
	t->fd = open(t->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return t->fd < 0 ? sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "open %.150s", t->part) : 0;
}

/* The same stream, unpacked on the way: a directory that is new. */
static int open_directory(struct target *t, struct sbx_err *err)
{
	int pipe_fd[2];

	if (mkdir(t->path, 0755) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "make %.150s", t->path);
	if (pipe2(pipe_fd, O_CLOEXEC) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "pipe");
	t->tar = fork();
	if (t->tar == 0) {
		if (dup2(pipe_fd[0], STDIN_FILENO) < 0)
			_exit(126);
		execlp("tar", "tar", "--no-same-owner", "-x", "-f", "-", "-C", t->path, (char *)NULL);
		_exit(127);
	}
	close(pipe_fd[0]);
	t->fd = pipe_fd[1];
	return t->tar < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "start tar") : 0;
}

static int open_target(struct target *t, const char *path, bool directory, struct sbx_err *err)
{
	*t = (struct target){.path = path, .fd = -1, .tar = -1};
	if (directory)
		return open_directory(t, err);
	if (strcmp(path, "-") != 0)
		return open_file(t, err);
	if (isatty(STDOUT_FILENO))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "stdout is a terminal; name a file");
	t->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	return t->fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "stdout") : 0;
}

static int close_target(struct target *t, bool good, struct sbx_err *err)
{
	int status = 0, rc = good ? 0 : -1;

	if (t->fd >= 0 && close(take_fd(&t->fd)) < 0 && rc == 0)
		rc = sbx_err_set(err, SBX_E_SYSTEM, errno, "write %.150s", t->path);
	if (t->tar > 0 && (waitpid(t->tar, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) && rc == 0)
		rc = sbx_err_set(err, SBX_E_SYSTEM, 0, "tar failed; %.150s is not whole", t->path);
	if (t->part && rc == 0 && rename(t->part, t->path) < 0)
		rc = sbx_err_set(err, SBX_E_SYSTEM, errno, "rename %.150s", t->part);
	if (t->part && rc < 0)
		ignore_result(unlink(t->part) < 0); /* it may never have been made */
	free(t->part);
	return rc;
}

static void show(uint64_t done, int64_t total, bool last)
{
	char a[32], b[32];

	out_bytes(done, a, sizeof(a));
	out_bytes(total > 0 ? (uint64_t)total : 0, b, sizeof(b));
	fprintf(stderr, "\r\033[2K%s of %s%s", a, b, last ? "\n" : "");
}

static int copy(struct http_client *http, const struct http_client_response *response, struct target *t, bool quiet, uint64_t *ret,
		struct sbx_err *err)
{
	bool bars = !quiet && isatty(STDERR_FILENO) == 1;
	auto_free char *block = malloc(COPY_BYTES);
	uint64_t said_ms = 0;

	if (!block)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export");
	for (*ret = 0;;) {
		ssize_t n = http_client_read(http, block, COPY_BYTES, err);

		if (n < 0)
			return -1;
		if (n == 0)
			break;
		int r = path_write_all(t->fd, block, (size_t)n);
		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, -r, "write %.150s", t->path);
		*ret += (uint64_t)n;
		if (bars && mono_ms() - said_ms > PAUSE_MS) {
			show(*ret, response->length, false);
			said_ms = mono_ms();
		}
	}
	if (bars)
		show(*ret, response->length, true);
	if (response->length >= 0 && *ret != (uint64_t)response->length)
		return sbx_err_set(err, SBX_E_PEER_GONE, 0, "the daemon broke off; its log says why");
	return 0;
}

int cmd_image_export(struct cli *cli, const struct cli_args *args)
{
	const char *compression = cli_text(args, "compression");
	struct http_client_request request = {.method = "GET"};
	struct http_client_response response;
	struct sbx_err err = {0};
	auto_buf path = {0};
	struct target t;
	uint64_t bytes = 0;
	char digest[96] = "", size[32];

	signal(SIGPIPE, SIG_IGN);
	buf_puts(&path, "/v1/images/");
	client_escape(&path, args->operands[0]);
	buf_puts(&path, "/export");
	if (compression) {
		buf_puts(&path, "?compression=");
		client_escape(&path, compression);
	}
	request.target = buf_str(&path);
	struct http_client *http = request.target ? client_http(cli, &err) : NULL;
	if (!http)
		return cli_fail(cli, &err);
	http_client_timeout(http, 0); /* layers may have to be packed before the first byte */
	if (client_begin(cli, http, &request, &response, &err) < 0)
		return cli_fail(cli, &err);
	snprintf(digest, sizeof(digest), "%s", http_client_header(http, "etag") ? http_client_header(http, "etag") : "");
	int rc = open_target(&t, args->operands[1], cli_flag(args, "directory"), &err);
	if (rc == 0)
		rc = copy(http, &response, &t, cli_flag(args, "quiet"), &bytes, &err);
	if (close_target(&t, rc == 0, &err) < 0)
		return cli_fail(cli, &err);
	if (strcmp(args->operands[1], "-") != 0 && !cli_flag(args, "quiet")) {
		out_bytes(bytes, size, sizeof(size));
		printf("%s  %s  %s\n", args->operands[1], size, digest);
	}
	return 0;
}
