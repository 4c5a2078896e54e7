// SPDX-License-Identifier: Apache-2.0
/* image import: a file, stdin or a directory becomes one streamed request */
#include "api/cli/client.h"
#include "api/cli/out.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

struct blob {
	int fd;
	pid_t tar; /* -1: none */
	unsigned char first[4];
	size_t n_first, used_first;
	int64_t length; /* -1: not known */
};

static ssize_t read_some(int fd, void *out, size_t size)
{
	ssize_t n;

	do
		n = read(fd, out, size);
	while (n < 0 && errno == EINTR);
	return n;
}

/* A tar that broke off in the middle must not look like a whole one. */
static int wait_tar(struct blob *b, struct sbx_err *err)
{
	int status = 0;
	pid_t pid = b->tar;

	b->tar = -1;
	if (pid < 0)
		return 0;
	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "tar failed");
	return 0;
}

static ssize_t blob_source(void *arg, void *out, size_t size, struct sbx_err *err)
{
	struct blob *b = arg;

	if (b->used_first < b->n_first) {
		size_t n = b->n_first - b->used_first < size ? b->n_first - b->used_first : size;

		memcpy(out, b->first + b->used_first, n);
		b->used_first += n;
		return (ssize_t)n;
	}
	ssize_t n = read_some(b->fd, out, size);
	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read the image");
	if (n == 0 && wait_tar(b, err) < 0)
		return -1;
	return n;
}

/* What skopeo, umoci and buildah write; a root file system has none of these at its top. */
static bool is_layout(const char *directory)
{
	auto_fd dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return dir >= 0 && faccessat(dir, "oci-layout", F_OK, 0) == 0 && faccessat(dir, "index.json", F_OK, 0) == 0 &&
	       faccessat(dir, "blobs", F_OK, 0) == 0;
}

static int start_tar(struct blob *b, const char *directory, bool layout, struct sbx_err *err)
{
	int pipe_fd[2];

	if (pipe2(pipe_fd, O_CLOEXEC) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "pipe");
	b->tar = fork();
	if (b->tar == 0) {
		/* one file system: what is mounted in the tree (proc, sys) is not part of it; attributes: what a layer keeps */
		static const char *const argv[] = {"tar", "--numeric-owner", "--one-file-system", "--xattrs", "--xattrs-include=user.*",
						   "--xattrs-include=security.capability", "--xattrs-include=system.posix_acl_*",
						   "-c", "-f", "-", "-C"};
		static const char *const all[] = {".", NULL}, *const parts[] = {"oci-layout", "index.json", "blobs", NULL};
		const char *full[ARRAY_SIZE(argv) + 1 + ARRAY_SIZE(parts)];

		memcpy(full, argv, sizeof(argv));
		full[ARRAY_SIZE(argv)] = directory;
		if (layout)
			memcpy(full + ARRAY_SIZE(argv) + 1, parts, sizeof(parts));
		else
			memcpy(full + ARRAY_SIZE(argv) + 1, all, sizeof(all));
		if (dup2(pipe_fd[1], STDOUT_FILENO) < 0)
			_exit(126);
		execvp("tar", (char *const *)(uintptr_t)full); /* execvp() changes nothing behind its const */
		_exit(127);
	}
	close(pipe_fd[1]);
	if (b->tar < 0) {
		close(pipe_fd[0]);
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "start tar");
	}
	b->fd = pipe_fd[0];
	return 0;
}

static int open_blob(struct blob *b, const char *path, const char *kind, struct sbx_err *err)
{
	struct stat st;

	*b = (struct blob){.fd = -1, .tar = -1, .length = -1};
	if (!strcmp(path, "-")) {
		b->fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
		if (b->fd >= 0 && isatty(b->fd))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "stdin is a terminal; pipe a tar into it");
	} else {
		b->fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (b->fd < 0 || fstat(b->fd, &st) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "open %.150s", path);
	if (S_ISDIR(st.st_mode)) {
		close(b->fd);
		b->fd = -1;
		return start_tar(b, path, is_layout(path) && !(kind && !strcmp(kind, "rootfs")), err);
	}
	if (S_ISREG(st.st_mode) && strcmp(path, "-") != 0)
		b->length = (int64_t)st.st_size;
	return 0;
}

static const char *format_of(struct blob *b, struct sbx_err *err)
{
	while (b->n_first < sizeof(b->first)) {
		ssize_t n = read_some(b->fd, b->first + b->n_first, sizeof(b->first) - b->n_first);

		if (n < 0) {
			sbx_err_set(err, SBX_E_SYSTEM, errno, "read the image");
			return NULL;
		}
		if (n == 0)
			break;
		b->n_first += (size_t)n;
	}
	if (b->n_first >= 2 && !memcmp(b->first, "\x1f\x8b", 2))
		return "tar.gz";
	if (b->n_first == 4 && !memcmp(b->first, "\x28\xb5\x2f\xfd", 4))
		return "tar.zst";
	return "tar";
}

static void add_query(struct buf *target, const char *name, const char *value)
{
	if (!value)
		return;
	buf_printf(target, "&%s=", name);
	client_escape(target, value);
}

static int import(struct cli *cli, const struct cli_args *args, struct blob *b, struct jv **ret, struct sbx_err *err)
{
	const char *format = format_of(b, err);
	struct http_client *http = format ? client_http(cli, err) : NULL;
	struct http_client_request request = {.method = "POST", .headers = "Content-Type: application/x-tar\r\n",
					      .source = blob_source, .source_arg = b, .source_len = b->length};
	struct http_client_response response;
	auto_buf target = {0};
	const char *env;
	size_t at = 0;

	if (!http)
		return -1;
	buf_puts(&target, "/v1/images/import?events=true");
	add_query(&target, "name", args->operands[1]);
	add_query(&target, "kind", cli_text(args, "kind"));
	add_query(&target, "ref", cli_text(args, "ref"));
	add_query(&target, "format", cli_text(args, "format") ? cli_text(args, "format") : format);
	while ((env = cli_next(args, "env", &at)))
		add_query(&target, "env", env);
	add_query(&target, "workdir", cli_text(args, "workdir"));
	add_query(&target, "user", cli_text(args, "user"));
	add_query(&target, "cmd", cli_text(args, "cmd"));
	request.target = buf_str(&target);
	if (!request.target)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
	/* unpacking a few gigabytes takes longer than any other call */
	http_client_timeout(http, 0);
	if (client_begin(cli, http, &request, &response, err) < 0)
		return -1;
	return client_events(http, cli_flag(args, "quiet"), ret, err);
}

int cmd_image_import(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	auto_jv last = NULL;
	struct blob b;
	char size[32];
	int64_t bytes = 0;
	int rc = open_blob(&b, args->operands[0], cli_text(args, "kind"), &err);

	if (rc == 0)
		rc = import(cli, args, &b, &last, &err);
	close_keep_errno(b.fd);
	if (b.tar >= 0) { /* it ends by the closed pipe */
		struct sbx_err ignored;

		ignore_result(wait_tar(&b, &ignored) < 0);
	}
	if (rc < 0)
		return cli_fail(cli, &err);
	const struct jv *root = jv_get(last, "image");
	const char *name = jv_str(jv_get(root, "name"));
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, root);
	} else if (cli_flag(args, "quiet")) {
		printf("%s\n", name ? name : "");
	} else {

		if (jv_i64(jv_get(root, "bytes"), &bytes) < 0)
			bytes = 0;
		out_bytes((uint64_t)bytes, size, sizeof(size));
		printf("%s  %s   (sandboxctl run --image %s -it)\n", name ? name : "", size, name ? name : "NAME");
	}
	return 0;
}
