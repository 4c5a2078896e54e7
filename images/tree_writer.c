// SPDX-License-Identifier: Apache-2.0
#include "images/tree_writer.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/path.h"
#include "images/seal_content.h"
#include "images/tree_seal.h"
#include "images/xattr_rules.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* What is remembered about directories until tree_finish(): enough for every path of a million-entry image. */
#define MAX_DEFERRED_BYTES (256u * 1024 * 1024)

struct dir_time {
	char *path; /* owned; clean */
	struct timespec mtime;
};

/* A default ACL, which everything made in its directory would inherit: it is set when nothing more is made. */
struct dir_acl {
	char *path; /* owned; clean */
	void *value; /* owned */
	size_t n;
};

struct tree_writer {
	int root_fd; /* borrowed */
	uint64_t max_entries, max_bytes;
	uint64_t entries, bytes;
	/* The directory that the last entry was in; archives are sorted, so this saves most walks. */
	int parent_fd;
	char parent[LIMIT_PATH_BYTES];
	/* The entry under way. */
	enum tree_kind kind;
	int fd; /* FILE, DIRECTORY; else -1 */
	uint32_t mode, uid, gid;
	struct timespec mtime;
	uint64_t size;
	unsigned int n_xattrs;
	char path[LIMIT_PATH_BYTES];
	const char *name; /* last part, within path; "" for the root */
	struct dir_time *dirs; /* owned */
	size_t n_dirs, cap_dirs, dirs_bytes;
	struct dir_acl *acls; /* owned */
	size_t n_acls;
	char **opaque; /* owned; clean paths, perhaps twice */
	size_t n_opaque, cap_opaque;
	char **made; /* owned; directories that no entry had named when they were needed, perhaps twice */
	size_t n_made, cap_made;
	struct seal_content *content; /* owned; of the file under way; NULL: no seal is wanted */
	struct seal_list *sealed;     /* owned */
};

struct tree_writer *tree_writer_new(int root_fd, uint64_t max_entries, uint64_t max_bytes, struct sbx_err *err)
{
	struct tree_writer *w = calloc(1, sizeof(*w));

	if (!w) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "tree writer");
		return NULL;
	}
	w->root_fd = root_fd;
	w->max_entries = max_entries;
	w->max_bytes = max_bytes;
	w->parent_fd = w->fd = -1;
	return w;
}

void tree_writer_free(struct tree_writer *w)
{
	if (!w)
		return;
	close_keep_errno(w->fd);
	close_keep_errno(w->parent_fd);
	for (size_t i = 0; i < w->n_dirs; i++)
		free(w->dirs[i].path);
	free(w->dirs);
	for (size_t i = 0; i < w->n_acls; i++) {
		free(w->acls[i].path);
		free(w->acls[i].value);
	}
	free(w->acls);
	for (size_t i = 0; i < w->n_opaque; i++)
		free(w->opaque[i]);
	free(w->opaque);
	for (size_t i = 0; i < w->n_made; i++)
		free(w->made[i]);
	free(w->made);
	seal_content_free(w->content);
	seal_list_free(w->sealed);
	free(w);
}

int tree_seal(struct tree_writer *w, struct sbx_err *err)
{
	w->content = seal_content_new(err);
	w->sealed = w->content ? seal_list_new(err) : NULL;
	return w->sealed ? 0 : -1;
}

int tree_seal_end(struct tree_writer *w, int fd, struct sbx_err *err)
{
	return tree_seal_write(w->root_fd, w->sealed, w->max_entries + 1, fd, err); /* the root may have had no entry */
}

uint64_t tree_entries(const struct tree_writer *w)
{
	return w->entries;
}

uint64_t tree_bytes(const struct tree_writer *w)
{
	return w->bytes;
}

int tree_path_clean(const char *path, char *out, struct sbx_err *err)
{
	size_t used = 0;
	unsigned int depth = 0;

	if (path[0] == '/')
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": absolute name", path);
	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && path[0] == '.' && path[1] == '.')
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": name with ..", path);
		if (n > 0 && !(n == 1 && path[0] == '.')) {
			if (n > 255 || used + n + 2 > LIMIT_PATH_BYTES)
				return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.80s...\": name too long", path);
			if (++depth > TREE_MAX_DEPTH)
				return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "more than %u directories deep", TREE_MAX_DEPTH);
			if (used)
				out[used++] = '/';
			memcpy(out + used, path, n);
			used += n;
		}
		path += n + (path[n] == '/');
	}
	out[used] = '\0';
	return 0;
}

/* Opens a clean path beneath a layer's root; no link of any kind is followed. */
static int open_in(int root_fd, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned int)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};

	return (int)syscall(SYS_openat2, root_fd, *path ? path : ".", &how, sizeof(how));
}

static int open_beneath(const struct tree_writer *w, const char *path, int flags)
{
	return open_in(w->root_fd, path, flags);
}

static bool is_whiteout(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static int parent_error(const char *path, int error, struct sbx_err *err)
{
	/* ELOOP and EXDEV are openat2's words for what an archive is not allowed to do. */
	if (error == ELOOP || error == EXDEV || error == ENOTDIR)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": an ancestor is not a directory", path);
	return sbx_err_set(err, SBX_E_SYSTEM, error, "open directory of \"%.120s\"", path);
}

static int defer_bytes(struct tree_writer *w, size_t n, struct sbx_err *err)
{
	w->dirs_bytes += n;
	if (w->dirs_bytes > MAX_DEFERRED_BYTES)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "names of directories need more than %u bytes", MAX_DEFERRED_BYTES);
	return 0;
}

static int keep_path(struct tree_writer *w, const char *path, size_t n, char ***list, size_t *ret_n, size_t *ret_cap, struct sbx_err *err)
{
	if (*ret_n == *ret_cap) {
		size_t cap = *ret_cap ? *ret_cap * 2 : 16;
		char **more = realloc(*list, cap * sizeof(*more));

		if (!more)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "remember directories");
		*list = more;
		*ret_cap = cap;
	}
	if (defer_bytes(w, n + 1 + sizeof(char *), err) < 0)
		return -1;
	char *copy = strndup(path, n);
	if (!copy)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "remember directories");
	(*list)[(*ret_n)++] = copy;
	return 0;
}

/* What the layer hides, and has something below: a directory of its own.  Return: 0, or -1; @err is set when it should have gone well */
static int replace_whiteout(struct tree_writer *w, int at, const char *name, const char *path, size_t n, struct sbx_err *err)
{
	struct stat st;

	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !is_whiteout(&st)) {
		errno = ENOTDIR;
		return -1;
	}
	if (unlinkat(at, name, 0) < 0 || mkdirat(at, name, 0755) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make directory of \"%.120s\"", path);
	if (keep_path(w, path, n, &w->made, &w->n_made, &w->cap_made, err) < 0)
		return -1;
	return keep_path(w, path, n, &w->opaque, &w->n_opaque, &w->cap_opaque, err);
}

/* Makes the missing directories of the first @n bytes of @path, which are clean. */
static int make_ancestors(struct tree_writer *w, const char *path, size_t n, struct sbx_err *err)
{
	char part[LIMIT_PATH_BYTES];
	auto_fd at = open_beneath(w, "", O_PATH | O_DIRECTORY);

	if (at < 0)
		return parent_error(path, errno, err);
	for (size_t from = 0; from < n;) {
		size_t len = strcspn(path + from, "/");

		memcpy(part, path + from, len);
		part[len] = '\0';
		if (mkdirat(at, part, 0755) == 0) {
			if (++w->entries > w->max_entries)
				return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %llu entries",
						   (unsigned long long)w->max_entries);
			if (keep_path(w, path, from + len, &w->made, &w->n_made, &w->cap_made, err) < 0)
				return -1;
		} else if (errno != EEXIST) {
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "make directory of \"%.120s\"", path);
		}
		int next = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 && errno == ENOTDIR && replace_whiteout(w, at, part, path, from + len, err) == 0)
			next = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 && err && err->code)
			return -1;
		if (next < 0)
			return parent_error(path, errno, err);
		replace_fd(&at, next);
		from += len + 1;
	}
	return 0;
}

/* Opens the directory that holds the last part of @path; @ret_name points into @path. */
static int open_parent(struct tree_writer *w, const char *path, bool make, int *ret_fd, const char **ret_name,
		       struct sbx_err *err)
{
	char parent[LIMIT_PATH_BYTES];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;

	memcpy(parent, path, n);
	parent[n] = '\0';
	*ret_name = slash ? slash + 1 : path;
	if (w->parent_fd >= 0 && !strcmp(parent, w->parent)) {
		*ret_fd = w->parent_fd;
		return 0;
	}
	int fd = open_beneath(w, parent, O_PATH | O_DIRECTORY);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR) && make) {
		if (make_ancestors(w, path, n, err) < 0)
			return -1;
		fd = open_beneath(w, parent, O_PATH | O_DIRECTORY);
	}
	if (fd < 0)
		return parent_error(path, errno, err);
	replace_fd(&w->parent_fd, fd);
	memcpy(w->parent, parent, n + 1);
	*ret_fd = fd;
	return 0;
}

/* Removes what is below an open directory; the depth is bounded because only this file made the tree. */
static int remove_below(int dir_fd, unsigned int depth, struct sbx_err *err)
{
	if (depth > TREE_MAX_DEPTH)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "more than %u directories deep", TREE_MAX_DEPTH);
	auto_dir dir = path_dir(dir_fd);
	if (!dir)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read a directory to replace");
	for (struct dirent *e; (e = readdir(dir));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(dir_fd, e->d_name, 0) == 0)
			continue;
		if (errno != EISDIR && errno != EPERM)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "remove \"%.120s\"", e->d_name);
		auto_fd child = openat(dir_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (child < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "open \"%.120s\"", e->d_name);
		if (remove_below(child, depth + 1, err) < 0)
			return -1;
		if (unlinkat(dir_fd, e->d_name, AT_REMOVEDIR) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "remove directory \"%.120s\"", e->d_name);
	}
	return 0;
}

/* Default ACLs of a directory that goes, and of those below it, are not for what takes its place. */
static void forget_acls(struct tree_writer *w)
{
	size_t kept = 0, n = strlen(w->path);

	for (size_t i = 0; i < w->n_acls; i++) {
		const char *path = w->acls[i].path;

		if (!strncmp(path, w->path, n) && (!path[n] || path[n] == '/')) {
			free(w->acls[i].path);
			free(w->acls[i].value);
		} else {
			w->acls[kept++] = w->acls[i];
		}
	}
	w->n_acls = kept;
}

/* Makes sure that nothing has the name; directories go with all they hold. */
static int clear_name(struct tree_writer *w, int parent_fd, const char *name, struct sbx_err *err)
{
	if (unlinkat(parent_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "replace \"%.120s\"", w->path);
	auto_fd dir = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "replace \"%.120s\"", w->path);
	forget_acls(w);
	if (remove_below(dir, 1, err) < 0)
		return sbx_err_wrap(err, "replace \"%.80s\"", w->path);
	if (unlinkat(parent_fd, name, AT_REMOVEDIR) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "replace \"%.120s\"", w->path);
	return 0;
}

static int system_error(const struct tree_writer *w, const char *what, struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s \"%.120s\"", what, w->path);
}

static int make_file(struct tree_writer *w, int parent_fd, const struct tree_entry *entry, struct sbx_err *err)
{
	if (entry->size > w->max_bytes)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.120s\" has %llu bytes; the limit is %llu", w->path,
				   (unsigned long long)entry->size, (unsigned long long)w->max_bytes);
	if (clear_name(w, parent_fd, w->name, err) < 0)
		return -1;
	w->fd = openat(parent_fd, w->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (w->fd < 0)
		return system_error(w, "make file", err);
	return w->content ? seal_content_begin(w->content, err) : 0;
}

static int mark_opaque(struct tree_writer *w, struct sbx_err *err)
{
	return keep_path(w, w->path, strlen(w->path), &w->opaque, &w->n_opaque, &w->cap_opaque, err);
}

static int make_directory(struct tree_writer *w, int parent_fd, struct sbx_err *err)
{
	struct stat st;
	bool there;

	if (!*w->name) { /* the root */
		w->fd = open_beneath(w, "", O_RDONLY | O_DIRECTORY);
		return w->fd < 0 ? system_error(w, "open root", err) : 0;
	}
	there = fstatat(parent_fd, w->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	/* the layer hides what was there before and has a directory of its own in its place */
	if (there && is_whiteout(&st) && mark_opaque(w, err) < 0)
		return -1;
	if (!there || !S_ISDIR(st.st_mode)) {
		if (clear_name(w, parent_fd, w->name, err) < 0)
			return -1;
		if (mkdirat(parent_fd, w->name, 0755) < 0)
			return system_error(w, "make directory", err);
	}
	w->fd = openat(parent_fd, w->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return w->fd < 0 ? system_error(w, "open directory", err) : 0;
}

static int make_symlink(struct tree_writer *w, int parent_fd, const struct tree_entry *entry, struct sbx_err *err)
{
	size_t n = strlen(entry->target);

	/* The text is never followed here; inside, it is resolved against the sandbox's own root. */
	if (n == 0 || n >= LIMIT_PATH_BYTES)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": link text is empty or too long", w->path);
	if (clear_name(w, parent_fd, w->name, err) < 0)
		return -1;
	if (symlinkat(entry->target, parent_fd, w->name) < 0)
		return system_error(w, "make symbolic link", err);
	return 0;
}

static int make_hard_link(struct tree_writer *w, const struct tree_entry *entry, struct sbx_err *err)
{
	char target[LIMIT_PATH_BYTES];
	struct stat st;
	struct stat old;
	const char *target_name;
	const char *name;
	int fd;

	if (tree_path_clean(entry->target, target, err) < 0)
		return sbx_err_wrap(err, "hard link \"%.60s\"", w->path);
	if (!*target)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": hard link to the root", w->path);
	if (open_parent(w, target, false, &fd, &target_name, err) < 0) {
		if (err && err->sys == ENOENT)
			err->code = SBX_E_IMAGE_INVALID;
		return sbx_err_wrap(err, "hard link \"%.60s\"", w->path);
	}
	/* open_parent() keeps one descriptor only: this one must outlive the next walk */
	auto_fd target_parent = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (target_parent < 0)
		return system_error(w, "open target of", err);
	if (fstatat(target_parent, target_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.80s\": hard link to \"%.80s\", which is not there", w->path,
				   target);
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode) && !S_ISFIFO(st.st_mode))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.80s\": hard link to \"%.80s\", which is no file", w->path,
				   target);
	if (open_parent(w, w->path, true, &fd, &name, err) < 0)
		return -1;
	if (fstatat(fd, name, &old, AT_SYMLINK_NOFOLLOW) == 0 && old.st_ino == st.st_ino && old.st_dev == st.st_dev)
		return 0; /* a name linked to itself: replacing it would remove the only one */
	if (clear_name(w, fd, name, err) < 0)
		return -1;
	if (linkat(target_parent, target_name, fd, name, 0) == 0)
		return 0;
	if (errno == EMLINK)
		return sbx_err_set(err, SBX_E_LIMIT, EMLINK, "\"%.80s\": too many names of one file", w->path);
	return errno == ENOENT ? sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.80s\": hard link to itself", w->path) :
				 system_error(w, "link", err);
}

static int make_node(struct tree_writer *w, int parent_fd, mode_t mode, struct sbx_err *err)
{
	if (clear_name(w, parent_fd, w->name, err) < 0)
		return -1;
	/* umask is 0 (the caller sets it): a node gets its mode here, since fchmodat() would follow links */
	if (mknodat(parent_fd, w->name, mode, makedev(0, 0)) < 0)
		return system_error(w, "make node", err);
	return 0;
}

/* A marker speaks of lower layers only, so what this layer has already written stays, in whichever order they come. */
static int make_whiteout(struct tree_writer *w, int parent_fd, struct sbx_err *err)
{
	struct stat st;

	if (fstatat(parent_fd, w->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return S_ISDIR(st.st_mode) ? mark_opaque(w, err) : 0;
	return errno == ENOENT ? make_node(w, parent_fd, S_IFCHR, err) : system_error(w, "look at", err);
}

static int make_opaque(struct tree_writer *w, struct sbx_err *err)
{
	/* a marker may come without an entry for its directory */
	if (*w->path && make_ancestors(w, w->path, strlen(w->path), err) < 0)
		return -1;
	return mark_opaque(w, err);
}

static int make_entry(struct tree_writer *w, const struct tree_entry *entry, struct sbx_err *err)
{
	int parent_fd = -1;

	if (entry->kind == TREE_HARD_LINK)
		return make_hard_link(w, entry, err);
	if (entry->kind == TREE_OPAQUE)
		return make_opaque(w, err);
	w->name = w->path;
	if (*w->path && open_parent(w, w->path, true, &parent_fd, &w->name, err) < 0)
		return -1;
	switch (entry->kind) {
	case TREE_FILE:
		return make_file(w, parent_fd, entry, err);
	case TREE_DIRECTORY:
		return make_directory(w, parent_fd, err);
	case TREE_SYMLINK:
		return make_symlink(w, parent_fd, entry, err);
	case TREE_FIFO:
		return make_node(w, parent_fd, S_IFIFO | (mode_t)(w->mode & 07777), err);
	case TREE_WHITEOUT:
		return make_whiteout(w, parent_fd, err);
	case TREE_HARD_LINK:
	case TREE_OPAQUE:
	case TREE_NONE:
	default:
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": unknown kind of entry", w->path);
	}
}

int tree_begin(struct tree_writer *w, const struct tree_entry *entry, struct sbx_err *err)
{
	assert(w->kind == TREE_NONE);
	if (tree_path_clean(entry->path, w->path, err) < 0)
		return -1;
	if (!*w->path && entry->kind != TREE_DIRECTORY && entry->kind != TREE_OPAQUE)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "an entry that is no directory wants to be the root");
	if (entry->uid > TREE_MAX_ID || entry->gid > TREE_MAX_ID)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.100s\": owner %llu:%llu is outside 0..%u", w->path,
				   (unsigned long long)entry->uid, (unsigned long long)entry->gid, TREE_MAX_ID);
	if (++w->entries > w->max_entries)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %llu entries", (unsigned long long)w->max_entries);
	w->mode = entry->mode & 07777;
	w->uid = (uint32_t)entry->uid;
	w->gid = (uint32_t)entry->gid;
	w->mtime = (struct timespec){.tv_sec = entry->mtime_s, .tv_nsec = (long)(entry->mtime_ns % 1000000000u)};
	w->size = entry->size;
	w->n_xattrs = 0;
	if (!*w->path) /* a root that others may not enter (mktemp -d) would make an image for root only */
		w->mode |= 0555;
	if (make_entry(w, entry, err) < 0)
		return -1;
	w->kind = entry->kind;
	return 0;
}

int tree_data(struct tree_writer *w, uint64_t offset, const void *data, size_t n, struct sbx_err *err)
{
	const char *from = data;

	if (w->kind != TREE_FILE)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": content of something that is no file", w->path);
	if (n > w->max_bytes - w->bytes)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %llu bytes unpacked", (unsigned long long)w->max_bytes);
	if (offset > w->size || n > w->size - offset)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": content beyond its size", w->path);
	w->bytes += n;
	if (w->content && seal_content_add(w->content, offset, data, n, err) < 0)
		return -1;
	while (n > 0) {
		ssize_t did = pwrite(w->fd, from, n, (off_t)offset);

		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0)
			return system_error(w, "write", err);
		from += did;
		offset += (uint64_t)did;
		n -= (size_t)did;
	}
	return 0;
}

int tree_owner(struct tree_writer *w, struct sbx_err *err)
{
	int fd = w->parent_fd;
	const char *name = w->name;

	switch (w->kind) {
	case TREE_FILE:
	case TREE_DIRECTORY:
		/* chown clears setuid, so the mode comes after it */
		if (fchown(w->fd, w->uid, w->gid) < 0 || fchmod(w->fd, w->mode) < 0)
			return system_error(w, "set owner of", err);
		return 0;
	case TREE_SYMLINK:
	case TREE_FIFO:
		if (fchownat(fd, name, w->uid, w->gid, AT_SYMLINK_NOFOLLOW) < 0)
			return system_error(w, "set owner of", err);
		return 0;
	case TREE_HARD_LINK:
	case TREE_WHITEOUT:
	case TREE_OPAQUE:
	case TREE_NONE:
	default:
		return 0; /* a link shares its target's owner */
	}
}

static int defer_acl(struct tree_writer *w, const void *value, size_t n, struct sbx_err *err)
{
	struct dir_acl acl = {.n = n};

	if (w->n_acls == TREE_MAX_DEFAULT_ACLS)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %u directories with a default ACL", TREE_MAX_DEFAULT_ACLS);
	if (!w->acls)
		w->acls = calloc(TREE_MAX_DEFAULT_ACLS, sizeof(*w->acls));
	if (defer_bytes(w, strlen(w->path) + n, err) < 0)
		return -1;
	acl.path = w->acls ? strdup(w->path) : NULL;
	acl.value = acl.path ? malloc(n) : NULL;
	if (!acl.value) {
		free(acl.path);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "remember directories");
	}
	memcpy(acl.value, value, n);
	w->acls[w->n_acls++] = acl;
	return 0;
}

/* Unlike what is inert, an ACL that cannot be set as it is would leave a file open to others: only a file system without any may. */
static int acl_error(const char *path, struct sbx_err *err)
{
	if (errno == EOPNOTSUPP)
		return 0;
	if (errno == EINVAL || errno == EPERM || errno == EACCES)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": an ACL that is malformed or names an id outside 0..%u", path, TREE_MAX_ID);
	return sbx_err_set(err, SBX_E_SYSTEM, errno, "set the ACL of \"%.120s\"", path);
}

static int set_acl(struct tree_writer *w, const char *name, bool is_default, const void *value, size_t n, struct sbx_err *err)
{
	if (!xattr_acl_ok(value, n) || (is_default && w->kind != TREE_DIRECTORY)) {
		errno = EINVAL;
		return acl_error(w->path, err);
	}
	if (is_default)
		return defer_acl(w, value, n, err);
	return fsetxattr(w->fd, name, value, n, 0) == 0 ? 0 : acl_error(w->path, err);
}

int tree_xattr(struct tree_writer *w, const char *name, const void *value, size_t n, struct sbx_err *err)
{
	if (n > TREE_MAX_XATTR_BYTES || ++w->n_xattrs > TREE_MAX_XATTRS)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": extended attributes beyond the limits", w->path);
	enum xattr_rule rule = xattr_rule(name);

	if (w->fd < 0 || rule == XATTR_DROP)
		return 0;
	if (rule != XATTR_KEEP)
		return set_acl(w, name, rule == XATTR_DEFAULT_ACL, value, n, err);
	if (fsetxattr(w->fd, name, value, n, 0) == 0)
		return 0;
	/* A file system without them, or a capability blob that the kernel finds malformed: both only lose what is inert. */
	if (errno == EOPNOTSUPP || errno == EPERM || errno == EINVAL)
		return 0;
	if (errno == E2BIG || errno == ERANGE)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": an extended attribute beyond the limits", w->path);
	/* also said of an attribute that the file has no block for, on a disk with space */
	if (errno == ENOSPC)
		return sbx_err_set(err, SBX_E_LIMIT, ENOSPC, "\"%.120s\": no space for its attributes", w->path);
	return system_error(w, "set attribute of", err);
}

static int defer_time(struct tree_writer *w, struct sbx_err *err)
{
	size_t n = strlen(w->path) + 1;

	if (w->n_dirs == w->cap_dirs) {
		size_t cap = w->cap_dirs ? w->cap_dirs * 2 : 256;
		struct dir_time *more = realloc(w->dirs, cap * sizeof(*more));

		if (!more)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "remember directories");
		w->dirs = more;
		w->cap_dirs = cap;
	}
	if (defer_bytes(w, n, err) < 0)
		return -1;
	char *path = strdup(w->path);
	if (!path)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "remember directories");
	w->dirs[w->n_dirs++] = (struct dir_time){.path = path, .mtime = w->mtime};
	return 0;
}

/* What the seal says of the file @fd that is complete: taken from what was to be written, not from what the disk made of it. */
static int note_content(struct tree_writer *w, int fd, uint64_t inode, struct sbx_err *err)
{
	struct seal_known known = {.inode = inode};

	if (!w->content)
		return 0;
	known.plain = flistxattr(fd, NULL, 0) == 0;
	if (seal_content_end(w->content, w->size, known.digest, err) < 0)
		return -1;
	seal_list_put(w->sealed, &known);
	return 0;
}

int tree_end(struct tree_writer *w, struct sbx_err *err)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, w->mtime};
	auto_fd fd = take_fd(&w->fd);
	enum tree_kind kind = w->kind;

	w->kind = TREE_NONE;
	switch (kind) {
	case TREE_FILE: {
		struct stat st;

		if (fstat(fd, &st) < 0)
			return system_error(w, "stat", err);
		/* a hole at the end; never shorter, since tree_data() keeps within the size */
		if ((uint64_t)st.st_size < w->size && ftruncate(fd, (off_t)w->size) < 0)
			return system_error(w, "size", err);
		if (futimens(fd, times) < 0)
			return system_error(w, "set time of", err);
		return note_content(w, fd, st.st_ino, err);
	}
	case TREE_DIRECTORY:
		return defer_time(w, err);
	case TREE_SYMLINK:
	case TREE_FIFO:
		if (utimensat(w->parent_fd, w->name, times, AT_SYMLINK_NOFOLLOW) < 0)
			return system_error(w, "set time of", err);
		return 0;
	case TREE_HARD_LINK:
	case TREE_WHITEOUT:
	case TREE_OPAQUE:
	case TREE_NONE:
	default:
		return 0;
	}
}

static int hide_below(struct tree_writer *w, int own_fd, int lower_fd, unsigned int depth, struct sbx_err *err);

/* One name of a lower layer's directory: hidden, or gone into when both layers have a directory there. */
static int hide_name(struct tree_writer *w, int own_fd, int lower_fd, const char *name, unsigned int depth, struct sbx_err *err)
{
	struct stat lower;
	struct stat own;

	if (fstatat(lower_fd, name, &lower, AT_SYMLINK_NOFOLLOW) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "look at \"%.120s\" of a lower layer", name);
	if (is_whiteout(&lower))
		return 0;
	if (fstatat(own_fd, name, &own, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "look at \"%.120s\"", name);
		if (++w->entries > w->max_entries)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %llu entries", (unsigned long long)w->max_entries);
		return mknodat(own_fd, name, S_IFCHR, makedev(0, 0)) < 0 ?
			       sbx_err_set(err, SBX_E_SYSTEM, errno, "hide \"%.120s\"", name) : 0;
	}
	if (!S_ISDIR(own.st_mode) || !S_ISDIR(lower.st_mode))
		return 0;
	auto_fd own_child = openat(own_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	auto_fd lower_child = openat(lower_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (own_child < 0 || lower_child < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open \"%.120s\"", name);
	return hide_below(w, own_child, lower_child, depth + 1, err);
}

static int hide_below(struct tree_writer *w, int own_fd, int lower_fd, unsigned int depth, struct sbx_err *err)
{
	if (depth > TREE_MAX_DEPTH) /* lower layers were written under the same bound */
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "more than %u directories deep", TREE_MAX_DEPTH);
	auto_dir dir = path_dir(lower_fd);
	if (!dir)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read a directory of a lower layer");
	errno = 0;
	for (struct dirent *e; (e = readdir(dir)); errno = 0)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    hide_name(w, own_fd, lower_fd, e->d_name, depth, err) < 0)
			return -1;
	return errno ? sbx_err_set(err, SBX_E_SYSTEM, errno, "read a directory of a lower layer") : 0;
}

int tree_hide(struct tree_writer *w, int lower_fd, struct sbx_err *err)
{
	for (size_t i = 0; i < w->n_opaque; i++) {
		auto_fd own = open_beneath(w, w->opaque[i], O_RDONLY | O_DIRECTORY);
		auto_fd lower = open_in(lower_fd, w->opaque[i], O_RDONLY | O_DIRECTORY);

		/* Not there, or something else by now: then nothing is merged.  A lower link is covered by our directory. */
		if (own < 0 || lower < 0) {
			if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
				return sbx_err_set(err, SBX_E_SYSTEM, errno, "open opaque directory \"%.120s\"", w->opaque[i]);
			continue;
		}
		if (hide_below(w, own, lower, 1, err) < 0)
			return sbx_err_wrap(err, "opaque directory \"%.80s\"", w->opaque[i]);
	}
	return 0;
}

/* ---- directories that the layer only passes through ---- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int adopt_xattrs(int own, int lower, struct sbx_err *err)
{
	char names[TREE_MAX_XATTR_BYTES], value[TREE_MAX_XATTR_BYTES];
	ssize_t n = flistxattr(lower, names, sizeof(names));

	if (n < 0)
		return errno == ENOTSUP ? 0 : sbx_err_set(err, SBX_E_SYSTEM, errno, "attributes of a directory below");
	for (const char *name = names; name < names + n; name += strlen(name) + 1) {
		ssize_t size = xattr_rule(name) != XATTR_DROP ? fgetxattr(lower, name, value, sizeof(value)) : -1;

		if (size >= 0 && fsetxattr(own, name, value, (size_t)size, 0) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "attribute %.60s", name);
	}
	return 0;
}

/* The topmost lower layer that shows @path decides.  Return: its descriptor, or -1: there is nothing below */
static int find_below(const char *path, const int *lower_fds, size_t n_lower)
{
	for (size_t i = n_lower; i-- > 0;) {
		int fd = open_in(lower_fds[i], path, O_RDONLY | O_DIRECTORY);

		/* ENOENT: further down; anything else is a whiteout, or something that this directory has covered */
		if (fd >= 0 || errno != ENOENT)
			return fd;
	}
	return -1;
}

static int adopt(struct tree_writer *w, const char *path, const int *lower_fds, size_t n_lower, struct sbx_err *err)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
	auto_fd own = open_beneath(w, path, O_RDONLY | O_DIRECTORY);
	auto_fd lower = own < 0 ? -1 : find_below(path, lower_fds, n_lower);
	struct stat st;

	if (own < 0) /* a later entry has replaced it */
		return 0;
	if (lower >= 0) {
		if (fstat(lower, &st) < 0 || fchown(own, st.st_uid, st.st_gid) < 0 || fchmod(own, st.st_mode & 07777) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "take over directory \"%.120s\"", path);
		if (adopt_xattrs(own, lower, err) < 0)
			return -1;
		times[1] = st.st_mtim;
	}
	return futimens(own, times) < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "set time of \"%.120s\"", path) : 0;
}

int tree_adopt(struct tree_writer *w, const int *lower_fds, size_t n_lower, struct sbx_err *err)
{
	if (keep_path(w, "", 0, &w->made, &w->n_made, &w->cap_made, err) < 0)
		return -1;
	auto_free char **named = calloc(w->n_dirs + 1, sizeof(*named));
	if (!named)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "directories");
	for (size_t i = 0; i < w->n_dirs; i++)
		named[i] = w->dirs[i].path;
	qsort(named, w->n_dirs, sizeof(*named), by_text);
	for (size_t i = 0; i < w->n_made; i++) {
		bool has_entry = w->n_dirs && bsearch(&w->made[i], named, w->n_dirs, sizeof(*named), by_text);

		if (!has_entry && adopt(w, w->made[i], lower_fds, n_lower, err) < 0)
			return -1;
	}
	return 0;
}

static int set_default_acl(struct tree_writer *w, const struct dir_acl *acl, struct sbx_err *err)
{
	auto_fd fd = open_beneath(w, acl->path, O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "set the ACL of \"%.120s\"", acl->path);
	return fsetxattr(fd, "system.posix_acl_default", acl->value, acl->n, 0) == 0 ? 0 : acl_error(acl->path, err);
}

int tree_finish(struct tree_writer *w, struct sbx_err *err)
{
	for (size_t i = 0; i < w->n_acls; i++)
		if (set_default_acl(w, &w->acls[i], err) < 0)
			return -1;
	for (size_t i = 0; i < w->n_dirs; i++) {
		const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, w->dirs[i].mtime};
		auto_fd fd = open_beneath(w, w->dirs[i].path, O_RDONLY | O_DIRECTORY);

		/* a later entry may have replaced it by something else */
		if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
			continue;
		if (fd < 0 || futimens(fd, times) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "set time of \"%.120s\"", w->dirs[i].path);
	}
	return 0;
}
