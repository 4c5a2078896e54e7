// SPDX-License-Identifier: Apache-2.0
/*
 * Trees are walked with an explicit stack.  LIST, SEARCH and copies name each directory by its path, which ends their
 * depth at LIMIT_PATH_BYTES; removal must reach deeper, holds one descriptor only and goes back by "..".
 */
#include "runtime/agent/agent_files.h"
#include "runtime/agent/agent_glob.h"
#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"
#include "base/limits.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the names of one directory ---- */

struct names {
	char **at; /* owned */
	size_t n, next;
};

static void names_clear(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->at[i]);
	free(names->at);
	*names = (struct names){0};
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_add(struct names *names, size_t *room, const char *name)
{
	if (names->n == *room) {
		*room = *room ? *room * 2 : 32;
		void *p = realloc(names->at, *room * sizeof(*names->at));

		if (!p)
			return -ENOMEM;
		names->at = p;
	}
	names->at[names->n] = strdup(name);
	return names->at[names->n++] ? 0 : -ENOMEM;
}

static int names_read(const char *path, struct names *ret)
{
	auto_dir dir = NULL;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	size_t room = 0;

	*ret = (struct names){0};
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		close_keep_errno(fd);
		return -errno;
	}
	for (struct dirent *e; (e = readdir(dir));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		int r = names_add(ret, &room, e->d_name);

		if (r) {
			names_clear(ret);
			return r;
		}
	}
	if (ret->n)
		qsort(ret->at, ret->n, sizeof(*ret->at), by_bytes);
	return 0;
}

/* ---- a tree, by path ---- */

struct walk {
	char path[LIMIT_PATH_BYTES];
	size_t len;    /* of path */
	size_t root;   /* length of the root's path with its slash: where the relative part begins */
	struct names *stack; /* owned */
	size_t *len_at; /* owned; path length of each level */
	size_t depth, room;
};

static int push(struct walk *w)
{
	if (w->depth == w->room) {
		size_t room = w->room ? w->room * 2 : 16;
		void *stack = realloc(w->stack, room * sizeof(*w->stack));

		if (!stack)
			return -ENOMEM;
		w->stack = stack;
		void *len_at = realloc(w->len_at, room * sizeof(*w->len_at));
		if (!len_at)
			return -ENOMEM;
		w->len_at = len_at;
		w->room = room;
	}
	int r = names_read(w->path, &w->stack[w->depth]);
	if (!r)
		w->len_at[w->depth++] = w->len;
	return r;
}

static void walk_clear(struct walk *w)
{
	while (w->depth)
		names_clear(&w->stack[--w->depth]);
	free(w->stack);
	free(w->len_at);
}

static int walk_begin(struct walk *w, const char *path)
{
	size_t n = strlen(path);

	*w = (struct walk){0};
	while (n > 1 && path[n - 1] == '/')
		n--;
	if (n >= sizeof(w->path))
		return -ENAMETOOLONG;
	memcpy(w->path, path, n);
	w->len = n;
	w->root = n == 1 ? 1 : n + 1;
	return push(w);
}

/* Steps to the next entry; its path is in w->path.  Return: 1, or 0 at the end.  Names too long for a path are passed over. */
static int walk_next(struct walk *w)
{
	while (w->depth) {
		struct names *names = &w->stack[w->depth - 1];

		w->len = w->len_at[w->depth - 1];
		if (names->next == names->n) {
			names_clear(&w->stack[--w->depth]);
			continue;
		}
		const char *name = names->at[names->next++];
		size_t n = strlen(name), slash = w->len > 1;
		if (w->len + slash + n >= sizeof(w->path))
			continue;
		w->path[w->len] = '/';
		memcpy(w->path + w->len + slash, name, n + 1);
		w->len += slash + n;
		return 1;
	}
	return 0;
}

static bool is_dir(const char *path)
{
	struct stat st;

	return !lstat(path, &st) && S_ISDIR(st.st_mode);
}

int walk_list(struct files_job *job, const char *path, uint32_t depth)
{
	struct walk w;
	struct stat st;

	if (lstat(path, &st) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		return -ELOOP;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	int r = depth ? walk_begin(&w, path) : 0;
	if (!depth || r) {
		if (depth)
			walk_clear(&w);
		return r;
	}
	while (!r && walk_next(&w)) {
		r = files_record(job, AT_FDCWD, w.path, w.path, 0);
		if (r == -ENOENT) { /* it went away meanwhile */
			r = 0;
			continue;
		}
		if (!r && w.depth < depth && is_dir(w.path)) {
			r = push(&w);
			if (r == -ENOENT || r == -EACCES || r == -EPERM)
				r = 0; /* gone, or not for this user: its own entry is still an answer */
		}
	}
	walk_clear(&w);
	return r;
}

int walk_search(struct files_job *job, const char *path, const char *pattern)
{
	auto_free char *real = realpath(path, NULL);
	struct glob g;
	struct walk w;

	if (!real)
		return -errno;
	int r = glob_compile(pattern, &g);
	if (r)
		return r == -E2BIG ? -EINVAL : r;
	if (!is_dir(real)) {
		const char *slash = strrchr(real, '/');

		r = glob_match(&g, slash ? slash + 1 : real) ? files_record(job, AT_FDCWD, real, real, 0) : 0;
		glob_clear(&g);
		return r;
	}
	r = walk_begin(&w, real);
	while (!r && walk_next(&w)) {
		if (is_dir(w.path)) {
			r = push(&w);
			if (r == -ENOENT || r == -EACCES || r == -EPERM || r == -ELOOP || r == -ENOTDIR)
				r = 0; /* gone, or not for this user: the rest is still an answer */
			continue;
		}
		if (!glob_match(&g, w.path + w.root))
			continue;
		r = files_record(job, AT_FDCWD, w.path, w.path, 0);
		if (r == -ENOENT)
			r = 0;
	}
	walk_clear(&w);
	glob_clear(&g);
	return r;
}

/* ---- copies ---- */

static int copy_file(const char *from, const char *to, const struct stat *st)
{
	uint8_t buf[16384];
	ssize_t n;
	auto_fd in = open(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	auto_fd out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (in < 0 || out < 0)
		return -errno;
	while ((n = read(in, buf, sizeof(buf))) > 0)
		for (ssize_t done = 0, r; done < n; done += r) {
			r = write(out, buf + done, (size_t)(n - done));
			if (r < 0)
				return -errno;
		}
	if (n < 0)
		return -errno;
	ignore_result(files_keep_xattrs(from, out)); /* as mv does: what the other file system cannot hold is lost */
	struct timespec times[2] = {st->st_atim, st->st_mtim};
	return futimens(out, times) < 0 ? -errno : 0;
}

static int copy_link(const char *from, const char *to)
{
	char text[LIMIT_PATH_BYTES];
	ssize_t n = readlink(from, text, sizeof(text));

	if (n < 0 || n == (ssize_t)sizeof(text))
		return n < 0 ? -errno : -ENAMETOOLONG;
	text[n] = 0;
	return sysx_ret(symlink(text, to));
}

/* Kind, content, mode and, as far as this user may, owner. */
static int copy_one(const char *from, const char *to, bool *ret_dir)
{
	struct stat st;

	if (lstat(from, &st) < 0)
		return -errno;
	*ret_dir = S_ISDIR(st.st_mode);
	int r = S_ISDIR(st.st_mode) ? sysx_ret(mkdir(to, 0700)) :
		S_ISREG(st.st_mode) ? copy_file(from, to, &st) :
		S_ISLNK(st.st_mode) ? copy_link(from, to) :
		S_ISFIFO(st.st_mode) ? sysx_ret(mkfifo(to, 0600)) :
				       -EOPNOTSUPP;
	if (r)
		return r;
	ignore_result(lchown(to, st.st_uid, st.st_gid)); /* as mv does: the copy is then ours */
	return S_ISLNK(st.st_mode) ? 0 : sysx_ret(chmod(to, st.st_mode & 07777));
}

int walk_copy(const char *from, const char *to)
{
	char target[LIMIT_PATH_BYTES];
	struct walk w;
	bool dir;
	int r = copy_one(from, to, &dir);

	if (r || !dir)
		return r;
	r = walk_begin(&w, from);
	while (!r && walk_next(&w)) {
		int n = snprintf(target, sizeof(target), "%s/%s", to, w.path + w.root);

		r = n >= (int)sizeof(target) ? -ENAMETOOLONG : copy_one(w.path, target, &dir);
		if (!r && dir)
			r = push(&w);
	}
	walk_clear(&w);
	return r;
}

/* ---- removal ---- */

struct level {
	char *name; /* owned; of this directory in its parent */
	dev_t dev;  /* of the parent */
	ino_t ino;
};

struct removal {
	int fd; /* the directory that is being emptied */
	struct level *stack; /* owned */
	size_t depth, room;
};

static int enter(struct removal *rm, const char *name)
{
	struct stat parent;

	if (fstat(rm->fd, &parent) < 0)
		return -errno;
	if (rm->depth == rm->room) {
		size_t room = rm->room ? rm->room * 2 : 32;
		void *p = realloc(rm->stack, room * sizeof(*rm->stack));

		if (!p)
			return -ENOMEM;
		rm->stack = p;
		rm->room = room;
	}
	auto_fd fd = openat(rm->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	char *copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	rm->stack[rm->depth++] = (struct level){.name = copy, .dev = parent.st_dev, .ino = parent.st_ino};
	replace_fd(&rm->fd, take_fd(&fd));
	return 0;
}

/* Back to the parent, which must be the one that we came from: somebody may have moved the directory meanwhile. */
static int leave(struct removal *rm)
{
	struct level *l = &rm->stack[rm->depth - 1];
	struct stat st;
	auto_fd up = openat(rm->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (up < 0 || fstat(up, &st) < 0)
		return -errno;
	if (st.st_dev != l->dev || st.st_ino != l->ino)
		return -EBUSY;
	if (unlinkat(up, l->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return -errno;
	free(l->name);
	rm->depth--;
	replace_fd(&rm->fd, take_fd(&up));
	return 0;
}

/* Removes entries of the current directory until one is a directory, which is entered.  Return: 1 when it is empty. */
static int empty_some(struct removal *rm)
{
	int fd = openat(rm->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_dir dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir) {
		close_keep_errno(fd);
		return -errno;
	}
	for (struct dirent *e; (e = readdir(dir));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!unlinkat(rm->fd, e->d_name, 0) || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM)
			return -errno;
		int sys = errno;
		int r = enter(rm, e->d_name);
		return r == -ENOTDIR ? -sys : r;
	}
	return 1;
}

int walk_remove(const char *path)
{
	struct removal rm = {.fd = -1};
	auto_free char *copy = strdup(path);
	int r = 0;

	if (!copy)
		return -ENOMEM;
	for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = 0;
	if (!unlink(copy) || errno == ENOENT || errno == ENOTDIR)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	rm.fd = open(copy, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (rm.fd < 0)
		return -errno;
	for (;;) {
		r = empty_some(&rm);
		if (r < 0)
			break;
		if (r == 0)
			continue;
		r = 0;
		if (!rm.depth)
			break;
		r = leave(&rm);
		if (r)
			break;
	}
	close(rm.fd);
	while (rm.depth)
		free(rm.stack[--rm.depth].name);
	free(rm.stack);
	if (r)
		return r;
	return rmdir(copy) < 0 && errno != ENOENT ? -errno : 0;
}
