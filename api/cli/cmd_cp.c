// SPDX-License-Identifier: Apache-2.0
/*
 * cp: files and directories between the host and a sandbox, one file at a time.  Names that come out of a sandbox are
 * hostile: they are opened beneath the destination without following links, and modes lose setuid and setgid.
 */
#include "api/cli/client.h"

#include "base/cleanup.h"
#include "base/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_DEPTH 128
#define BOUNDARY  "sandboxctl-2c9b6f10d87e4a35"

struct copy {
	struct cli *cli;
	char id[UUID_SIZE];
	unsigned int n_skipped;
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int api_target(const struct copy *c, const char *route, const char *path, const char *more, struct buf *out,
		      struct sbx_err *err)
{
	buf_printf(out, "/sandboxes/%s/proxy/44772%s?path=", c->id, route);
	client_escape(out, path);
	buf_puts(out, more);
	return buf_str(out) ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
}

enum inside_kind { INSIDE_NONE = 0, INSIDE_FILE, INSIDE_DIRECTORY, INSIDE_OTHER };

static enum inside_kind kind_of(const struct jv *info)
{
	const char *type = jv_str(jv_get(info, "type"));

	if (type && !strcmp(type, "file"))
		return INSIDE_FILE;
	return type && !strcmp(type, "directory") ? INSIDE_DIRECTORY : INSIDE_OTHER;
}

/* What is at a path inside; a missing one is INSIDE_NONE and no error. */
static int look_inside(struct copy *c, const char *path, enum inside_kind *ret, struct sbx_err *err)
{
	auto_buf target = {0};
	struct jv *root = NULL;

	*ret = INSIDE_NONE;
	if (api_target(c, "/files/info", path, "", &target, err) < 0)
		return -1;
	if (client_call(c->cli, "GET", buf_str(&target), NULL, &root, err) < 0)
		return err->code == SBX_E_EXECD_FILE_NOT_FOUND ? 0 : -1;
	*ret = kind_of(jv_first(root));
	jv_free(root);
	return 0;
}

/* Permission bits as the API writes them: octal digits in a decimal number. */
static unsigned int mode_digits(mode_t mode)
{
	return (mode >> 6 & 7) * 100 + (mode >> 3 & 7) * 10 + (mode & 7);
}

/* --- into the sandbox --- */

struct form {
	struct buf head; /* what comes before the file, then what comes behind it */
	struct buf tail;
	int fd;
	uint64_t left;
};

static ssize_t form_source(void *arg, void *out, size_t size, struct sbx_err *err)
{
	struct form *f = arg;
	struct buf *text = buf_used(&f->head) ? &f->head : f->left ? NULL : &f->tail;

	if (text) {
		size_t n = buf_used(text) < size ? buf_used(text) : size;

		if (n > 0)
			memcpy(out, buf_peek(text), n);
		buf_consume(text, n);
		return (ssize_t)n;
	}
	ssize_t n = read(f->fd, out, f->left < size ? (size_t)f->left : size);
	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read");
	if (n == 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "it became shorter while it was read");
	f->left -= (uint64_t)n;
	return n;
}

static int upload_file(struct copy *c, int fd, const struct stat *st, const char *to, struct sbx_err *err)
{
	struct form f = {.fd = fd, .left = (uint64_t)st->st_size};
	struct jw w = {.out = &f.head};
	char target[160];
	struct http_client *http = client_http(c->cli, err);
	struct http_client_request request = {.method = "POST", .target = target, .source = form_source, .source_arg = &f,
					      .headers = "Content-Type: multipart/form-data; boundary=" BOUNDARY "\r\n"};
	struct http_client_response response;
	int rc = -1;

	snprintf(target, sizeof(target), "/sandboxes/%s/proxy/44772/files/upload", c->id);
	buf_puts(&f.head, "--" BOUNDARY "\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"metadata\"\r\n"
			  "Content-Type: application/json\r\n\r\n");
	jw_object(&w);
	jw_key_str(&w, "path", to);
	jw_key_u64(&w, "mode", mode_digits(st->st_mode));
	jw_object_end(&w);
	buf_puts(&f.head, "\r\n--" BOUNDARY "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n"
			  "Content-Type: application/octet-stream\r\n\r\n");
	buf_puts(&f.tail, "\r\n--" BOUNDARY "--\r\n");
	if (f.head.failed || f.tail.failed)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
	else if (http) {
		request.source_len = (int64_t)(buf_used(&f.head) + buf_used(&f.tail) + f.left);
		rc = client_begin(c->cli, http, &request, &response, err);
	}
	buf_free(&f.head);
	buf_free(&f.tail);
	return rc < 0 ? sbx_err_wrap(err, "copy to %.100s", to) : 0;
}

static int make_inside(struct copy *c, const char *path, mode_t mode, struct sbx_err *err)
{
	char target[160];
	auto_buf body = {0};
	struct jw w = {.out = &body};

	jw_object(&w);
	jw_key(&w, path);
	jw_object(&w);
	jw_key_u64(&w, "mode", mode_digits(mode));
	jw_object_end(&w);
	jw_object_end(&w);
	snprintf(target, sizeof(target), "/sandboxes/%s/proxy/44772/directories", c->id);
	if (client_call(c->cli, "POST", target, &body, NULL, err) < 0)
		return sbx_err_wrap(err, "make %.100s", path);
	return 0;
}

static int upload_any(struct copy *c, int dir_fd, const char *name, const char *to, unsigned int depth, struct sbx_err *err);

static int upload_directory(struct copy *c, int fd, const struct stat *st, const char *to, unsigned int depth, struct sbx_err *err)
{
	auto_dir dir = fdopendir(fd);

	if (!dir) {
		close_keep_errno(fd);
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "list the directory for %.100s", to);
	}
	if (make_inside(c, to, st->st_mode, err) < 0)
		return -1;
	for (struct dirent *e; (e = readdir(dir));) {
		auto_buf path = {0};

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		buf_printf(&path, "%s/%s", to, e->d_name);
		if (!buf_str(&path))
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "path");
		if (upload_any(c, dirfd(dir), e->d_name, buf_str(&path), depth + 1, err) < 0)
			return -1;
	}
	return 0;
}

static int upload_any(struct copy *c, int dir_fd, const char *name, const char *to, unsigned int depth, struct sbx_err *err)
{
	struct stat st;

	if (depth > MAX_DEPTH)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %d directories deep", MAX_DEPTH);
	/* the first name may be a link that the caller typed; below it links are not followed */
	int fd = openat(dir_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | (depth ? O_NOFOLLOW : 0));
	if (fd < 0 && errno == ELOOP) {
		c->n_skipped++;
		return 0;
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		int saved = errno;

		close_keep_errno(fd);
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, saved, "open %.100s", name);
	}
	if (S_ISDIR(st.st_mode))
		return upload_directory(c, fd, &st, to, depth, err);
	int rc = 0;
	if (S_ISREG(st.st_mode))
		rc = upload_file(c, fd, &st, to, err);
	else
		c->n_skipped++;
	close(fd);
	return rc;
}

/* @path without the slashes at its end; Return: it, to be freed, or NULL with @err set */
static char *without_slashes(const char *path, struct sbx_err *err)
{
	char *trimmed = strdup(path);

	if (!trimmed) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "path");
		return NULL;
	}
	for (size_t n = strlen(trimmed); n > 1 && trimmed[n - 1] == '/'; n--)
		trimmed[n - 1] = '\0';
	return trimmed;
}

static int copy_in(struct copy *c, const char *from, const char *to, struct sbx_err *err)
{
	enum inside_kind kind;
	auto_buf path = {0};
	auto_free char *trimmed = without_slashes(from, err);

	if (!trimmed || look_inside(c, to, &kind, err) < 0)
		return -1;
	buf_puts(&path, to);
	if (kind == INSIDE_DIRECTORY || to[strlen(to) - 1] == '/')
		buf_printf(&path, "%s%s", to[strlen(to) - 1] == '/' ? "" : "/", base_name(trimmed));
	if (!buf_str(&path))
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "path");
	return upload_any(c, AT_FDCWD, trimmed, buf_str(&path), 0, err);
}

/* --- out of the sandbox --- */

static int download_to(struct copy *c, const char *from, int fd, struct sbx_err *err)
{
	auto_buf target = {0};
	struct http_client *http = client_http(c->cli, err);
	struct http_client_request request = {.method = "GET"};
	struct http_client_response response;
	char block[65536];
	ssize_t n;

	if (!http || api_target(c, "/files/download", from, "", &target, err) < 0)
		return -1;
	request.target = buf_str(&target);
	if (client_begin(c->cli, http, &request, &response, err) < 0)
		return sbx_err_wrap(err, "copy %.100s", from);
	while ((n = http_client_read(http, block, sizeof(block), err)) > 0)
		for (ssize_t done = 0; done < n;) {
			ssize_t did = write(fd, block + done, (size_t)(n - done));

			if (did < 0 && errno == EINTR)
				continue;
			if (did < 0)
				return sbx_err_set(err, SBX_E_SYSTEM, errno, "write the copy of %.100s", from);
			done += did;
		}
	return n < 0 ? sbx_err_wrap(err, "copy %.100s", from) : 0;
}

static mode_t mode_of(const struct jv *info)
{
	int64_t digits = 0;

	if (jv_i64(jv_get(info, "mode"), &digits) < 0 || digits < 0 || digits > 777)
		digits = 644;
	return (mode_t)((digits / 100 % 10 & 7) << 6 | (digits / 10 % 10 & 7) << 3 | (digits % 10 & 7));
}

/* @rel is beneath @dir_fd and hostile. */
static int download_file(struct copy *c, const char *from, int dir_fd, const char *rel, mode_t mode, struct sbx_err *err)
{
	const char *slash = strrchr(rel, '/');
	char parent[4096];
	size_t n = slash ? (size_t)(slash - rel) : 0;

	if (!path_rel_ok(rel) || n >= sizeof(parent))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the sandbox names a file \"%.100s\": refused", rel);
	memcpy(parent, rel, n);
	parent[n] = '\0';
	auto_fd parent_fd = path_open_beneath(dir_fd, parent, O_PATH | O_DIRECTORY);
	if (parent_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -parent_fd, "open the directory of %.100s", rel);
	auto_fd fd = openat(parent_fd, slash ? slash + 1 : rel, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
			    mode & 0666);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make %.100s", rel);
	if (download_to(c, from, fd, err) < 0)
		return -1;
	/* the umask of the caller holds for what is copied, as with cp */
	mode_t mask = umask(0);
	umask(mask);
	if (fchmod(fd, mode & 0777 & ~mask) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "set the mode of %.100s", rel);
	return 0;
}

static int download_item(struct copy *c, const struct jv *info, const char *root, int dir_fd, struct sbx_err *err)
{
	const char *path = jv_str(jv_get(info, "path"));
	size_t n = strlen(root);

	if (!path || strncmp(path, root, n) != 0 || (n > 1 && path[n] != '/'))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the sandbox lists \"%.100s\" below %.60s", path ? path : "", root);
	const char *rel = path + n + (n > 1);
	if (!*rel)
		return 0;
	if (!path_rel_ok(rel))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the sandbox names a file \"%.100s\": refused", rel);
	switch (kind_of(info)) {
	case INSIDE_DIRECTORY: {
		auto_fd made = path_make_beneath(dir_fd, rel, 0755);

		return made < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -made, "make %.100s", rel) : 0;
	}
	case INSIDE_FILE:
		return download_file(c, path, dir_fd, rel, mode_of(info), err);
	case INSIDE_NONE:
	case INSIDE_OTHER:
	default:
		c->n_skipped++; /* links, devices, sockets: what they mean out here is not what they meant */
		return 0;
	}
}

static int download_directory(struct copy *c, const char *from, const char *to, struct sbx_err *err)
{
	auto_buf target = {0};
	struct jv *root = NULL;
	int rc = 0;

	if (mkdir(to, 0755) < 0 && errno != EEXIST)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make %.150s", to);
	auto_fd dir_fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open %.150s", to);
	if (api_target(c, "/directories/list", from, "&depth=1000", &target, err) < 0 ||
	    client_call(c->cli, "GET", buf_str(&target), NULL, &root, err) < 0)
		return sbx_err_wrap(err, "list %.100s", from);
	for (const struct jv *item = jv_first(root); item && rc == 0; item = jv_next(item))
		rc = download_item(c, item, from, dir_fd, err);
	jv_free(root);
	return rc;
}

static int copy_out(struct copy *c, const char *from, const char *to, struct sbx_err *err)
{
	enum inside_kind kind;
	struct stat st;
	auto_buf path = {0};
	auto_free char *trimmed = without_slashes(from, err);

	if (!trimmed || look_inside(c, trimmed, &kind, err) < 0)
		return -1;
	if (kind == INSIDE_NONE)
		return sbx_err_set(err, SBX_E_EXECD_FILE_NOT_FOUND, 0, "no %.150s in sandbox %.8s", from, c->id);
	buf_puts(&path, to);
	if (stat(to, &st) == 0 && S_ISDIR(st.st_mode))
		buf_printf(&path, "/%s", strcmp(trimmed, "/") ? base_name(trimmed) : ".");
	if (!buf_str(&path))
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "path");
	if (kind == INSIDE_DIRECTORY)
		return download_directory(c, trimmed, buf_str(&path), err);
	/* here the name is the caller's own, so it may be a link; devices such as /dev/stdout are fine too */
	auto_fd fd = open(buf_str(&path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make %.150s", to);
	return download_to(c, trimmed, fd, err);
}

/* "ID:PATH"; a name with a slash before the colon is a host path. */
static const char *inside_path(const char *text, size_t *ret_id_len)
{
	const char *colon = strchr(text, ':');

	*ret_id_len = colon ? (size_t)(colon - text) : 0;
	return colon && colon > text && !memchr(text, '/', *ret_id_len) ? colon + 1 : NULL;
}

int cmd_cp(struct cli *cli, const struct cli_args *args)
{
	const char *from = args->operands[0];
	const char *to = args->operands[1];
	size_t n_from;
	size_t n_to;
	const char *from_inside = inside_path(from, &n_from);
	const char *to_inside = inside_path(to, &n_to);
	struct copy c = {.cli = cli};
	struct sbx_err err = {0};
	char who[128];

	if (!from_inside == !to_inside) {
		cli_say("one of SRC and DST must be ID:PATH, the other a path of this host");
		return CLI_EXIT_USAGE;
	}
	snprintf(who, sizeof(who), "%.*s", (int)(from_inside ? n_from : n_to), from_inside ? from : to);
	const char *inside = from_inside ? from_inside : to_inside;
	if (inside[0] != '/') {
		cli_say("\"%s\": the path inside must be absolute, as in %s:/%s", inside, who, inside);
		return CLI_EXIT_USAGE;
	}
	if (client_find(cli, who, c.id, &err) < 0)
		return cli_fail(cli, &err);
	int rc = from_inside ? copy_out(&c, inside, to, &err) : copy_in(&c, from, inside, &err);
	if (rc < 0)
		return cli_fail(cli, &err);
	if (c.n_skipped)
		cli_say("%u links, devices or sockets were not copied", c.n_skipped);
	return 0;
}
