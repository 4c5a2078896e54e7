// SPDX-License-Identifier: Apache-2.0
/*
 * A stack of open directories, no recursion and no path that is opened: each step is one name beneath the directory above it.
 * The names of a directory are read whole and sorted, so that the order does not depend on the file system.
 */
#include "images/layer_capture.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "images/dir_names.h"
#include "images/tar_io.h"
#include "images/tree_writer.h"
#include "images/xattr_rules.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define DATA_BLOCK	(1024u * 1024)
#define EXTENTS_MAX	4096u
#define SPARSE_SAVES	(1024 * 1024) /* a file is written with holes when that saves this much */
#define LINK_BUCKETS	4096u

/* First name of a file that has several. */
struct link_name {
	struct link_name *next;
	dev_t dev;
	ino_t ino;
	char path[];
};

struct frame {
	int tree_fd, below_fd, merged_fd; /* the last two -1: there is nothing below this directory */
	struct dir_name *names; /* owned, sorted; marked: not in the tree, a lower layer's, which the merged view lacks */
	size_t n, at;
	size_t path_len; /* of the directory's own path */
};

struct capture {
	const struct layer_capture *what;
	struct layer_captured *ret;
	struct tar_writer *out;
	struct digest *packed, *plain;
	struct frame frame[TREE_MAX_DEPTH + 1];
	size_t depth;
	char path[LIMIT_PATH_BYTES];
	struct link_name *links[LINK_BUCKETS];
	char *block; /* owned, DATA_BLOCK */
	char *zeros; /* owned, DATA_BLOCK */
};

/* ---- the stream ---- */

static int on_plain(void *arg, const void *data, size_t n, struct sbx_err *err)
{
	struct capture *c = arg;

	return digest_update(c->plain, data, n, err);
}

static int on_packed(void *arg, const void *data, size_t n, struct sbx_err *err)
{
	struct capture *c = arg;

	if (digest_update(c->packed, data, n, err) < 0)
		return -1;
	for (const char *at = data; n;) {
		ssize_t w = write(c->what->out_fd, at, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EFBIG)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "the packed layer is larger than allowed");
		if (w < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "write the layer");
		c->ret->packed_bytes += (uint64_t)w;
		at += w;
		n -= (size_t)w;
	}
	return 0;
}

/* ---- names ---- */

/*
 * Names that the layers below have in this directory, the tree has not, and the merged view has not either: an opaque directory
 * hides them.  They join the frame's names.
 */
static int add_hidden(struct capture *c, struct frame *f, struct sbx_err *err)
{
	struct dir_name *below = NULL;
	size_t n = 0, n_hidden = 0;

	if (f->below_fd < 0 || f->merged_fd < 0)
		return 0;
	if (dir_names_read(f->below_fd, c->path, c->what->max_entries, &below, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		struct stat st;

		if (f->n && bsearch(&below[i], f->names, f->n, sizeof(*below), dir_names_compare))
			continue;
		if (fstatat(f->merged_fd, below[i].text, &st, AT_SYMLINK_NOFOLLOW) == 0)
			continue;
		if (errno != ENOENT) {
			int sys = errno;

			dir_names_free(below, n);
			return sbx_err_set(err, SBX_E_SYSTEM, sys, "look at \"%.120s\"", c->path);
		}
		below[i].marked = true;
		n_hidden++;
	}
	struct dir_name *all = n_hidden ? realloc(f->names, (f->n + n_hidden) * sizeof(*all)) : f->names;
	if (n_hidden && !all) {
		dir_names_free(below, n);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "names");
	}
	f->names = all;
	for (size_t i = 0; i < n; i++) {
		if (below[i].marked)
			f->names[f->n++] = below[i];
		else
			free(below[i].text);
	}
	free(below);
	if (n_hidden)
		qsort(f->names, f->n, sizeof(*f->names), dir_names_compare);
	return 0;
}

static bool is_skipped(const struct capture *c)
{
	for (size_t i = 0; i < c->what->n_skip; i++)
		if (!strcmp(c->path, c->what->skip[i]))
			return true;
	return false;
}

/* ---- directories ---- */

static void pop(struct capture *c)
{
	struct frame *f = &c->frame[--c->depth];

	dir_names_free(f->names, f->n);
	close_keep_errno(f->tree_fd);
	close_keep_errno(f->below_fd);
	close_keep_errno(f->merged_fd);
}

/* Takes @tree_fd, @below_fd and @merged_fd, also when it fails. */
static int push(struct capture *c, int tree_fd, int below_fd, int merged_fd, struct sbx_err *err)
{
	if (c->depth >= ARRAY_SIZE(c->frame)) {
		close_keep_errno(tree_fd);
		close_keep_errno(below_fd);
		close_keep_errno(merged_fd);
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %u directories deep", TREE_MAX_DEPTH);
	}
	struct frame *f = &c->frame[c->depth++];

	*f = (struct frame){.tree_fd = tree_fd, .below_fd = below_fd, .merged_fd = merged_fd, .path_len = strlen(c->path)};
	/* pop() follows in any case */
	return dir_names_read(tree_fd, c->path, c->what->max_entries, &f->names, &f->n, err) < 0 ? -1 : add_hidden(c, f, err);
}

static int enter(struct capture *c, const struct frame *f, const char *name, int fd, struct sbx_err *err)
{
	int below = f->below_fd < 0 ? -1 : dir_names_open(f->below_fd, name, O_DIRECTORY);
	int merged = below < 0 ? -1 : dir_names_open(f->merged_fd, name, O_DIRECTORY);

	return push(c, fd, below, merged, err);
}

/* ---- entries ---- */

static int copy_xattrs(struct capture *c, int fd, struct sbx_err *err)
{
	char list[TREE_MAX_XATTR_BYTES];
	char *value = c->block;
	ssize_t n = flistxattr(fd, list, sizeof(list));

	if (n < 0 && (errno == ENOTSUP || errno == ENOSYS))
		return 0;
	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "attributes of \"%.120s\"", c->path);
	for (char *name = list; name < list + n; name += strlen(name) + 1) {
		enum xattr_rule rule = xattr_rule(name);

		if (rule == XATTR_DROP)
			continue;
		ssize_t size = fgetxattr(fd, name, value, TREE_MAX_XATTR_BYTES);
		/* a capability of another user namespace's root is nobody's here */
		if (size < 0 && (errno == ENODATA || errno == EOVERFLOW))
			continue;
		if (size < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "attribute %.60s of \"%.100s\"", name, c->path);
		if (rule != XATTR_KEEP && !xattr_acl_ok(value, (size_t)size))
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": an ACL names an id outside 0..%u", c->path, TREE_MAX_ID);
		tar_writer_xattr(c->out, name, value, (size_t)size);
	}
	return 0;
}

static int count_entry(struct capture *c, struct sbx_err *err)
{
	if (++c->ret->entries > c->what->max_entries)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %llu entries", (unsigned long long)c->what->max_entries);
	return 0;
}

static struct tar_entry entry_of(const struct capture *c, const struct stat *st)
{
	return (struct tar_entry){
		.path = c->path,
		.type = st->st_mode & S_IFMT,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.mtime_s = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
	};
}

static int check_owner(const struct capture *c, const struct stat *st, struct sbx_err *err)
{
	/* an owner that the user namespace does not map shows as 65534: it gains nothing by that */
	if (st->st_uid <= TREE_MAX_ID && st->st_gid <= TREE_MAX_ID)
		return 0;
	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": owner outside 0..%u", c->path, TREE_MAX_ID);
}

static int write_whiteout(struct capture *c, const struct frame *f, const char *name, struct sbx_err *err)
{
	char path[LIMIT_PATH_BYTES];
	int n = snprintf(path, sizeof(path), "%.*s%s.wh.%s", (int)f->path_len, c->path, f->path_len ? "/" : "", name);
	const struct tar_entry e = {.path = path, .type = S_IFREG, .mode = 0644};

	if (n < 0 || (size_t)n >= sizeof(path) || strlen(name) > 255 - 4)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.120s\": name too long for a whiteout", c->path);
	if (count_entry(c, err) < 0 || tar_writer_begin(c->out, &e, err) < 0)
		return -1;
	return tar_writer_head(c->out, err);
}

/* Return: 1 when the file was written as a link to an earlier name, 0 when it has to be written, -1 with @err set */
static int write_link(struct capture *c, const struct stat *st, struct sbx_err *err)
{
	struct link_name **bucket = &c->links[(st->st_ino ^ st->st_dev) % LINK_BUCKETS];

	for (struct link_name *l = *bucket; l; l = l->next) {
		if (l->ino != st->st_ino || l->dev != st->st_dev)
			continue;
		struct tar_entry e = entry_of(c, st);
		e.hard_link = l->path;
		return tar_writer_begin(c->out, &e, err) < 0 || tar_writer_head(c->out, err) < 0 ? -1 : 1;
	}
	size_t n = strlen(c->path) + 1;
	struct link_name *l = malloc(sizeof(*l) + n);
	if (!l)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "hard links");
	*l = (struct link_name){.next = *bucket, .dev = st->st_dev, .ino = st->st_ino};
	memcpy(l->path, c->path, n);
	*bucket = l;
	return 0;
}

/* What of the file is no hole; more pieces than we keep are given as one. */
static size_t find_extents(int fd, int64_t size, struct tar_extent *out)
{
	size_t n = 0;

	for (off_t at = 0; at < size && n < EXTENTS_MAX; n++) {
		off_t data = lseek(fd, at, SEEK_DATA);
		if (data < 0 || data >= size)
			break;
		off_t hole = n + 1 < EXTENTS_MAX ? lseek(fd, data, SEEK_HOLE) : size;
		if (hole < 0 || hole > size)
			hole = size;
		out[n] = (struct tar_extent){.offset = data, .length = hole - data};
		at = hole;
	}
	return n;
}

static int write_zeros(struct capture *c, int64_t n, struct sbx_err *err)
{
	while (n > 0) {
		size_t part = n < (int64_t)DATA_BLOCK ? (size_t)n : DATA_BLOCK;

		if (tar_writer_data(c->out, c->zeros, part, err) < 0)
			return -1;
		n -= (int64_t)part;
	}
	return 0;
}

static int write_extent(struct capture *c, int fd, int64_t at, int64_t end, struct sbx_err *err)
{
	while (at < end) {
		size_t part = end - at < (int64_t)DATA_BLOCK ? (size_t)(end - at) : DATA_BLOCK;
		ssize_t n = pread(fd, c->block, part, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "read \"%.120s\"", c->path);
		if (n == 0) /* it became shorter meanwhile */
			return write_zeros(c, end - at, err);
		if (tar_writer_data(c->out, c->block, (size_t)n, err) < 0)
			return -1;
		at += n;
	}
	return 0;
}

static int write_content(struct capture *c, int fd, int64_t size, const struct tar_extent *extents, size_t n, struct sbx_err *err)
{
	int64_t at = 0;

	for (size_t i = 0; i < n; i++) {
		if (write_zeros(c, extents[i].offset - at, err) < 0)
			return -1;
		at = extents[i].offset + extents[i].length;
		if (write_extent(c, fd, extents[i].offset, at, err) < 0)
			return -1;
	}
	return write_zeros(c, size - at, err);
}

static int write_file(struct capture *c, int dir_fd, const char *name, struct sbx_err *err)
{
	struct stat st;
	auto_fd fd = dir_names_open(dir_fd, name, 0);

	if (fd < 0 || fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open \"%.120s\"", c->path);
	if (!S_ISREG(st.st_mode))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\" became something else meanwhile", c->path);
	if (check_owner(c, &st, err) < 0)
		return -1;
	int linked = st.st_nlink > 1 ? write_link(c, &st, err) : 0;
	if (linked)
		return linked < 0 ? -1 : 0;
	struct tar_entry e = entry_of(c, &st);
	e.size = st.st_size;
	bool sparse = (int64_t)st.st_blocks * 512 + SPARSE_SAVES < st.st_size;
	auto_free struct tar_extent *extents = sparse ? calloc(EXTENTS_MAX, sizeof(*extents)) : NULL;
	struct tar_extent whole = {.offset = 0, .length = st.st_size};
	if (sparse && !extents)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "holes");
	size_t n = sparse ? find_extents(fd, st.st_size, extents) : 1;
	for (size_t i = 0; i < n; i++)
		c->ret->bytes += (uint64_t)(sparse ? extents[i].length : st.st_size);
	if (c->ret->bytes > c->what->max_bytes || (uint64_t)st.st_size > c->what->max_bytes)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.120s\": more than %llu bytes", c->path,
				   (unsigned long long)c->what->max_bytes);
	if (tar_writer_begin(c->out, &e, err) < 0 || copy_xattrs(c, fd, err) < 0)
		return -1;
	if (sparse)
		tar_writer_extents(c->out, extents, n);
	if (tar_writer_head(c->out, err) < 0)
		return -1;
	return write_content(c, fd, st.st_size, sparse ? extents : &whole, n, err);
}

static int write_directory(struct capture *c, int fd, const char *path, struct sbx_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "look at \"%.120s\"", c->path);
	if (check_owner(c, &st, err) < 0)
		return -1;
	struct tar_entry e = entry_of(c, &st);
	e.path = path;
	if (tar_writer_begin(c->out, &e, err) < 0 || copy_xattrs(c, fd, err) < 0)
		return -1;
	return tar_writer_head(c->out, err);
}

static int write_symlink(struct capture *c, int dir_fd, const char *name, const struct stat *st, struct sbx_err *err)
{
	char target[LIMIT_PATH_BYTES];
	ssize_t n = readlinkat(dir_fd, name, target, sizeof(target));
	struct tar_entry e = entry_of(c, st);

	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read the link \"%.120s\"", c->path);
	if ((size_t)n >= sizeof(target))
		return sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.120s\": the link's text is too long", c->path);
	target[n] = '\0';
	e.symlink = target;
	e.mode = 0777;
	if (check_owner(c, st, err) < 0 || tar_writer_begin(c->out, &e, err) < 0)
		return -1;
	return tar_writer_head(c->out, err);
}

static int write_plain_entry(struct capture *c, const struct stat *st, struct sbx_err *err)
{
	const struct tar_entry e = entry_of(c, st);

	if (check_owner(c, st, err) < 0 || tar_writer_begin(c->out, &e, err) < 0)
		return -1;
	return tar_writer_head(c->out, err);
}

/* The name @name of frame @f, whose whole path stands in c->path. */
static int write_name(struct capture *c, const struct frame *f, const char *name, struct sbx_err *err)
{
	struct stat st;

	if (fstatat(f->tree_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : sbx_err_set(err, SBX_E_SYSTEM, errno, "look at \"%.120s\"", c->path); /* removed meanwhile */
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0))
		return write_whiteout(c, f, name, err);
	if (S_ISSOCK(st.st_mode))
		return 0;
	if (!strncmp(name, ".wh.", 4))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": in a layer this name would hide another; rename it", c->path);
	if (count_entry(c, err) < 0)
		return -1;
	if (S_ISREG(st.st_mode))
		return write_file(c, f->tree_fd, name, err);
	if (S_ISLNK(st.st_mode))
		return write_symlink(c, f->tree_fd, name, &st, err);
	if (S_ISFIFO(st.st_mode))
		return write_plain_entry(c, &st, err);
	if (!S_ISDIR(st.st_mode))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": a device cannot be in a layer", c->path);
	int fd = dir_names_open(f->tree_fd, name, O_DIRECTORY);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open \"%.120s\"", c->path);
	if (write_directory(c, fd, c->path, err) < 0) {
		close(fd);
		return -1;
	}
	return enter(c, f, name, fd, err);
}

/* ---- the whole ---- */

static int step(struct capture *c, struct sbx_err *err)
{
	struct frame *f = &c->frame[c->depth - 1];

	c->path[f->path_len] = '\0';
	if (f->at == f->n) {
		pop(c);
		return 0;
	}
	const struct dir_name *name = &f->names[f->at++];
	int n = snprintf(c->path + f->path_len, sizeof(c->path) - f->path_len, "%s%s", f->path_len ? "/" : "", name->text);
	if (n < 0 || (size_t)n >= sizeof(c->path) - f->path_len)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.80s...\": path too long", c->path);
	if (is_skipped(c))
		return 0;
	return name->marked ? write_whiteout(c, f, name->text, err) : write_name(c, f, name->text, err);
}

static int dup_fd(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int walk(struct capture *c, struct sbx_err *err)
{
	int root = dup_fd(c->what->tree_fd);

	if (root < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "the tree");
	if (count_entry(c, err) < 0 || write_directory(c, root, "./", err) < 0) {
		close(root);
		return -1;
	}
	if (push(c, root, dup_fd(c->what->below_fd), dup_fd(c->what->merged_fd), err) < 0)
		return -1;
	while (c->depth)
		if (step(c, err) < 0)
			return -1;
	return tar_writer_finish(c->out, err);
}

static void capture_free(struct capture *c)
{
	while (c->depth)
		pop(c);
	tar_writer_free(c->out);
	digest_free(c->packed);
	digest_free(c->plain);
	for (size_t i = 0; i < LINK_BUCKETS; i++)
		while (c->links[i]) {
			struct link_name *l = c->links[i];

			c->links[i] = l->next;
			free(l);
		}
	free(c->block);
	free(c->zeros);
	free(c);
}

int layer_capture(const struct layer_capture *what, struct layer_captured *ret, struct sbx_err *err)
{
	struct capture *c = calloc(1, sizeof(*c));
	int rc = -1;

	*ret = (struct layer_captured){0};
	if (!c)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "capture");
	const struct tar_writer_config config = {.form = what->form, .arg = c, .plain = on_plain, .packed = on_packed};
	c->what = what;
	c->ret = ret;
	c->block = malloc(DATA_BLOCK);
	c->zeros = calloc(1, DATA_BLOCK);
	if (!c->block || !c->zeros)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "capture");
	else if ((c->packed = digest_new(err)) && (c->plain = digest_new(err)) && (c->out = tar_writer_new(&config, err)))
		rc = walk(c, err);
	if (rc == 0 && (digest_finish(c->packed, ret->digest, err) < 0 || digest_finish(c->plain, ret->diff_id, err) < 0))
		rc = -1;
	capture_free(c);
	return rc;
}
