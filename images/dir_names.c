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

int dir_names_read(int fd, const char *path, uint64_t max, struct dir_name **ret, size_t *ret_n, struct sbx_err *err)
{
	auto_dir dir = path_dir(fd);
	struct dir_name *names = NULL;
	size_t n = 0, cap = 0, bytes = 0;
	int rc = 0;

	if (!dir)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read directory \"%.120s\"", path);
	while (rc == 0) {
		errno = 0;
		struct dirent *e = readdir(dir);

		if (!e && errno)
			rc = sbx_err_set(err, SBX_E_SYSTEM, errno, "read directory \"%.120s\"", path);
		if (!e)
			break;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		bytes += strlen(e->d_name) + sizeof(*names);
		if (bytes > DIR_NAMES_MAX_BYTES || n >= max) {
			rc = sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.120s\": too many names", path);
			break;
		}
		if (n == cap) {
			size_t room = cap ? cap * 2 : 64;
			struct dir_name *more = realloc(names, room * sizeof(*more));

			if (!more) {
				rc = sbx_err_set(err, SBX_E_NO_MEMORY, 0, "names");
				break;
			}
			names = more;
			cap = room;
		}
		names[n] = (struct dir_name){.text = strdup(e->d_name)};
		if (!names[n++].text)
			rc = sbx_err_set(err, SBX_E_NO_MEMORY, 0, "names");
	}
	if (rc < 0) {
		dir_names_free(names, n);
		return -1;
	}
	if (n)
		qsort(names, n, sizeof(*names), dir_names_compare);
	*ret = names;
	*ret_n = n;
	return 0;
}
