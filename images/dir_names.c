// SPDX-License-Identifier: Apache-2.0
#include "images/dir_names.h"

#include "base/cleanup.h"
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int dir_names_open(int dir_fd, const char *name, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned int)(flags | O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};

	return (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
}

int dir_names_compare(const void *a, const void *b)
{
	return strcmp(((const struct dir_name *)a)->text, ((const struct dir_name *)b)->text);
}

void dir_names_free(struct dir_name *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i].text);
	free(names);
}

struct reading {
	struct dir_name *names; /* owned */
	size_t n, cap, bytes;
	const char *last; /* names from it on are not wanted; NULL: all are; one of names[] */
	bool more;	  /* some were left out */
};

static size_t bytes_of(const struct dir_name *name)
{
	return strlen(name->text) + sizeof(*name);
}

static int add(struct reading *r, const char *name, struct sbx_err *err)
{
	if (r->n == r->cap) {
		size_t room = r->cap ? r->cap * 2 : 64;
		struct dir_name *more = realloc(r->names, room * sizeof(*more));

		if (!more)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "names");
		r->names = more;
		r->cap = room;
	}
	r->names[r->n] = (struct dir_name){.text = strdup(name)};
	if (!r->names[r->n].text)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "names");
	r->bytes += bytes_of(&r->names[r->n++]);
	return 0;
}

/* Keeps the first half, so that what comes next is not sorted for each name. */
static void cut(struct reading *r, size_t max_bytes)
{
	size_t kept = 0, bytes = 0;

	qsort(r->names, r->n, sizeof(*r->names), dir_names_compare);
	while (kept < r->n && (!kept || bytes + bytes_of(&r->names[kept]) <= max_bytes / 2))
		bytes += bytes_of(&r->names[kept++]);
	for (size_t i = kept; i < r->n; i++)
		free(r->names[i].text);
	r->more |= kept < r->n;
	r->n = kept;
	r->bytes = bytes;
	r->last = r->names[kept - 1].text;
}

/* @max_n: names at most, of a directory that is to be read whole */
static int read_all(DIR *dir, const char *after, size_t max_bytes, uint64_t max_n, const char *path, struct reading *r, struct sbx_err *err)
{
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(dir);

		if (!e && errno)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "read directory \"%.120s\"", path);
		if (!e)
			break;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || (after && strcmp(e->d_name, after) <= 0))
			continue;
		if (r->last && strcmp(e->d_name, r->last) > 0) {
			r->more = true;
			continue;
		}
		if (add(r, e->d_name, err) < 0)
			return -1;
		if (r->n > max_n)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.120s\": too many names", path);
		if (r->bytes > max_bytes && r->n > 1)
			cut(r, max_bytes);
		if (r->more && max_n != UINT64_MAX)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.120s\": too many names", path);
	}
	if (r->n)
		qsort(r->names, r->n, sizeof(*r->names), dir_names_compare);
	return 0;
}

static int read_names(int fd, const char *path, const char *after, size_t max_bytes, uint64_t max_n, struct reading *r, struct sbx_err *err)
{
	auto_dir dir = path_dir(fd);

	if (!dir)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read directory \"%.120s\"", path);
	if (read_all(dir, after, max_bytes, max_n, path, r, err) == 0)
		return 0;
	dir_names_free(r->names, r->n);
	return -1;
}

int dir_names_read(int fd, const char *path, uint64_t max, struct dir_name **ret, size_t *ret_n, struct sbx_err *err)
{
	struct reading r = {0};

	if (read_names(fd, path, NULL, DIR_NAMES_MAX_BYTES, max < UINT64_MAX ? max : UINT64_MAX - 1, &r, err) < 0)
		return -1;
	*ret = r.names;
	*ret_n = r.n;
	return 0;
}

int dir_names_part(int fd, const char *path, const char *after, size_t max_bytes, struct dir_names_part *ret, struct sbx_err *err)
{
	struct reading r = {0};

	if (read_names(fd, path, after, max_bytes, UINT64_MAX, &r, err) < 0)
		return -1;
	*ret = (struct dir_names_part){.names = r.names, .n = r.n, .more = r.more};
	return 0;
}
