// SPDX-License-Identifier: Apache-2.0
#include "base/path.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAME_BYTES 255

static bool component_ok(const char *at, size_t n)
{
	if (n == 0 || n > NAME_BYTES)
		return false;
	if (at[0] == '.' && (n == 1 || (n == 2 && at[1] == '.')))
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)at[i] < 0x20 || at[i] == 0x7f)
			return false;
	return true;
}

bool path_rel_ok(const char *rel)
{
	if (!*rel)
		return true;
	for (const char *at = rel;;) {
		size_t n = strcspn(at, "/");

		if (!component_ok(at, n))
			return false;
		if (!at[n])
			return true;
		at += n + 1;
	}
}

int path_open_beneath(int dir_fd, const char *rel, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, dir_fd, *rel ? rel : ".", &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

DIR *path_dir(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		close_keep_errno(fd);
	return dir;
}

/* The name is one component here, so mkdirat() itself follows nothing but an existing link, which it refuses. */
static int make_child(int dir_fd, const char *name, mode_t mode)
{
	struct stat parent;
	int fd = path_open_beneath(dir_fd, name, O_PATH | O_DIRECTORY);

	if (fd != -ENOENT)
		return fd;
	if (fstat(dir_fd, &parent) < 0)
		return -errno;
	if (mkdirat(dir_fd, name, mode) < 0)
		return errno == EEXIST ? path_open_beneath(dir_fd, name, O_PATH | O_DIRECTORY) : -errno;
	fd = path_open_beneath(dir_fd, name, O_PATH | O_DIRECTORY);
	if (fd >= 0 && fchownat(fd, "", parent.st_uid, parent.st_gid, AT_EMPTY_PATH) < 0) {
		int saved = -errno;

		close(fd);
		return saved;
	}
	return fd;
}

int path_make_beneath(int dir_fd, const char *rel, mode_t mode)
{
	char name[NAME_BYTES + 1];
	auto_fd at = path_open_beneath(dir_fd, "", O_PATH | O_DIRECTORY);

	if (!path_rel_ok(rel))
		return -EINVAL;
	while (at >= 0 && *rel) {
		size_t n = strcspn(rel, "/");

		memcpy(name, rel, n);
		name[n] = '\0';
		int next = make_child(at, name, mode);
		if (next < 0)
			return next;
		replace_fd(&at, next);
		rel += n + (rel[n] == '/');
	}
	return take_fd(&at);
}

int path_make_dir(int dir_fd, const char *name, uid_t uid, gid_t gid, mode_t mode)
{
	struct stat st;
	bool made = mkdirat(dir_fd, name, 0700) == 0;

	if (!made && errno != EEXIST)
		return -errno;
	auto_fd fd = path_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (fd < 0)
		return fd == -ENOTDIR || fd == -ELOOP ? -EEXIST : fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!made && (st.st_uid != uid || st.st_gid != gid || (st.st_mode & 07777) != mode))
		return -EEXIST;
	if (made && (((uid || gid) && fchown(fd, uid, gid) < 0) || (mode != 0700 && fchmod(fd, mode) < 0)))
		return -errno;
	return take_fd(&fd);
}

int path_write_file(int dir_fd, const char *name, const char *text, size_t len)
{
	auto_fd fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	ssize_t n = write(fd, text, len);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

int path_write_all(int fd, const void *data, size_t n)
{
	const char *from = data;

	while (n > 0) {
		ssize_t did = write(fd, from, n);

		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0)
			return -errno;
		from += did;
		n -= (size_t)did;
	}
	return 0;
}

/* Reads until the end or until @size - 1 bytes are there; *ret_whole tells which. */
static ssize_t read_text(int dir_fd, const char *name, char *out, size_t size, bool *ret_whole)
{
	auto_fd fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t used = 0;
	ssize_t n = 1;

	if (fd < 0)
		return -errno;
	while (n && used < size) {
		n = read(fd, out + used, size - used);
		if (n < 0)
			return -errno;
		used += (size_t)n;
	}
	*ret_whole = used < size;
	used -= !*ret_whole; /* the NUL takes the place of the last byte */
	out[used] = '\0';
	return (ssize_t)used;
}

ssize_t path_read_file(int dir_fd, const char *name, char *out, size_t size)
{
	bool whole = false;
	ssize_t n = read_text(dir_fd, name, out, size, &whole);

	return n < 0 || whole ? n : -EFBIG;
}

ssize_t path_read_head(int dir_fd, const char *name, char *out, size_t size)
{
	bool whole;

	return read_text(dir_fd, name, out, size, &whole);
}
