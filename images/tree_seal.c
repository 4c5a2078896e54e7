// SPDX-License-Identifier: Apache-2.0
/*
 * One walk for both: it makes a record of each name, which is written, or compared with the next one of the seal.  What is cheap
 * to look at is compared before the content is read, so that what another owner has hidden from us is told as that.
 */
#include "images/tree_seal.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/path.h"
#include "images/dir_names.h"
#include "images/seal_content.h"
#include "images/tree_writer.h"
#include "images/unpack_result.h"
#include "images/xattr_rules.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define IO_BYTES     (64u * 1024)
#define LINK_BUCKETS 4096u
#define NO_ID	     UINT32_MAX /* none of a layer's */
#define XATTR_GONE   UINT32_MAX /* length of an attribute that is listed and cannot be read */

/* First record of a file that has several names. */
struct first_name {
	struct first_name *next;
	uint64_t inode;
	uint32_t record;
};

struct frame {
	int fd;
	struct dir_names_part part; /* owned */
	size_t at;
	size_t path_len; /* of the directory's own path */
};

/* The seal, on its way out or in. */
struct stream {
	int fd;
	uint8_t data[IO_BYTES];
	size_t at, n; /* reading: what is left; writing: n bytes wait */
	uint64_t left; /* reading: bytes of the file behind those, without the tail */
};

struct seal {
	bool compare;
	bool nobody_moved; /* SEAL_NOBODY_SHOWN */
	const struct seal_list *list;
	uint64_t max_entries;
	struct seal_content *content; /* owned */
	struct digest *digest;	      /* owned; writing: of the stream, reading: of it, first */
	struct digest *small;	      /* owned; links and attributes */
	struct frame frame[TREE_MAX_DEPTH + 1];
	size_t depth;
	char path[LIMIT_PATH_BYTES];
	struct first_name *links[LINK_BUCKETS];
	struct stream stream;
	/* comparing: the next record of the seal, and its path */
	bool have;
	struct seal_record want;
	char want_path[LIMIT_PATH_BYTES];
	uint32_t n_records;
	char *difference; /* SEAL_TEXT_BYTES */
	char late[SEAL_TEXT_BYTES]; /* a directory's time, which says less than what came or went in it */
	struct seal_counts counts;
	char names[TREE_MAX_XATTR_BYTES], value[TREE_MAX_XATTR_BYTES];
};

/* ---- the stream ---- */

static int flush(struct seal *s, struct sbx_err *err)
{
	int r = path_write_all(s->stream.fd, s->stream.data, s->stream.n);

	s->stream.n = 0;
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "write the seal") : 0;
}

static int put(struct seal *s, const void *data, size_t n, struct sbx_err *err)
{
	if (digest_update(s->digest, data, n, err) < 0)
		return -1;
	if (s->stream.n + n > sizeof(s->stream.data) && flush(s, err) < 0)
		return -1;
	memcpy(s->stream.data + s->stream.n, data, n); /* a record or a path: less than the buffer */
	s->stream.n += n;
	return 0;
}

static int fill(struct stream *st)
{
	size_t want = st->left < sizeof(st->data) ? (size_t)st->left : sizeof(st->data);
	ssize_t n;

	do
		n = read(st->fd, st->data, want);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : -EIO;
	st->at = 0;
	st->n = (size_t)n;
	st->left -= (uint64_t)n;
	return 0;
}

static int damaged(struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the seal of the layer is damaged");
}

static int take(struct seal *s, void *data, size_t n, struct sbx_err *err)
{
	for (char *to = data; n > 0;) {
		if (s->stream.at == s->stream.n) {
			int r = s->stream.left ? fill(&s->stream) : -EBADMSG;

			if (r < 0)
				return r == -EBADMSG ? damaged(err) : sbx_err_set(err, SBX_E_SYSTEM, -r, "read the seal");
		}
		size_t part = s->stream.n - s->stream.at < n ? s->stream.n - s->stream.at : n;
		memcpy(to, s->stream.data + s->stream.at, part);
		s->stream.at += part;
		to += part;
		n -= part;
	}
	return 0;
}

/* The next record of the seal into s->want, or none. */
static int next_record(struct seal *s, struct sbx_err *err)
{
	s->have = s->stream.at < s->stream.n || s->stream.left;
	if (!s->have)
		return 0;
	if (take(s, &s->want, sizeof(s->want), err) < 0)
		return -1;
	if (s->want.path_n >= sizeof(s->want_path) || take(s, s->want_path, s->want.path_n, err) < 0)
		return err->code ? -1 : damaged(err);
	s->want_path[s->want.path_n] = '\0';
	return memchr(s->want_path, '\0', s->want.path_n) ? damaged(err) : 0;
}

/* Before any of it is believed: a seal that a bad disk changed says nothing about the tree. */
static int check_seal(struct seal *s, struct sbx_err *err)
{
	struct stream *st = &s->stream;
	uint8_t is[DIGEST_BYTES];
	char magic[sizeof(SEAL_MAGIC) - 1];
	struct seal_tail tail;
	struct stat file;

	if (fstat(st->fd, &file) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "the seal");
	if (!S_ISREG(file.st_mode) || (uint64_t)file.st_size < sizeof(magic) + sizeof(tail))
		return damaged(err);
	st->left = (uint64_t)file.st_size - sizeof(tail);
	while (st->left) {
		int r = fill(st);

		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, -r, "read the seal");
		if (digest_update(s->digest, st->data, st->n, err) < 0)
			return -1;
	}
	if (digest_finish(s->digest, is, err) < 0)
		return -1;
	if (pread(st->fd, &tail, sizeof(tail), file.st_size - (off_t)sizeof(tail)) != (ssize_t)sizeof(tail))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "read the seal");
	if (tail.path_n != SEAL_TAIL || tail.zero || memcmp(tail.digest, is, sizeof(is)) != 0 || lseek(st->fd, 0, SEEK_SET) < 0)
		return damaged(err);
	st->at = st->n = 0;
	st->left = (uint64_t)file.st_size - sizeof(tail);
	if (take(s, magic, sizeof(magic), err) < 0)
		return -1;
	return memcmp(magic, SEAL_MAGIC, sizeof(magic)) ? damaged(err) : next_record(s, err);
}

static int end_seal(struct seal *s, struct sbx_err *err)
{
	struct seal_tail tail = {.path_n = SEAL_TAIL};

	if (digest_finish(s->digest, tail.digest, err) < 0)
		return -1;
	if (s->stream.n + sizeof(tail) > sizeof(s->stream.data) && flush(s, err) < 0)
		return -1;
	memcpy(s->stream.data + s->stream.n, &tail, sizeof(tail));
	s->stream.n += sizeof(tail);
	return flush(s, err);
}

/* ---- differences ---- */

static int differs(struct seal *s, const char *path, const char *fmt, ...) SBX_PRINTF(3, 4);

/* Always the first one: who finds it stops.  Return: 1 */
static int differs(struct seal *s, const char *path, const char *fmt, ...)
{
	int n = snprintf(s->difference, SEAL_TEXT_BYTES, "\"%.120s\": ", *path ? path : "/");
	va_list ap;

	va_start(ap, fmt);
	if (n > 0 && (size_t)n < SEAL_TEXT_BYTES)
		vsnprintf(s->difference + n, SEAL_TEXT_BYTES - (size_t)n, fmt, ap);
	va_end(ap);
	return 1;
}

/* Order of the walk: a directory, what is in it, its neighbours; so `/` is less than all other bytes. */
static int path_order(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	int x = !*a ? -1 : *a == '/' ? 0 : (unsigned char)*a, y = !*b ? -1 : *b == '/' ? 0 : (unsigned char)*b;
	return x - y;
}

static const char *kind_name(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symbolic link";
	case S_IFIFO:
		return "FIFO";
	case S_IFCHR:
	case S_IFBLK:
		return "device or whiteout";
	case S_IFSOCK:
		return "socket";
	default:
		return "thing of no known kind";
	}
}

/* What stat(2) tells.  Return: 0: the same, 1: it differs */
static int compare_looks(struct seal *s, const struct seal_record *is)
{
	const struct seal_record *was = &s->want;
	int order = s->have ? path_order(s->path, s->want_path) : -1;

	if (order > 0)
		return differs(s, s->want_path, "is gone");
	if (order < 0)
		return differs(s, s->path, "was not in the layer");
	if ((is->mode ^ was->mode) & S_IFMT)
		return differs(s, s->path, "is a %s, was a %s", kind_name(is->mode), kind_name(was->mode));
	if (is->mode != was->mode)
		return differs(s, s->path, "mode %04o, was %04o", is->mode & 07777, was->mode & 07777);
	if (is->uid == NO_ID || is->gid == NO_ID)
		return differs(s, s->path, "belongs to an id that is none of a layer's");
	if (is->uid != was->uid || is->gid != was->gid)
		return differs(s, s->path, "owner %u:%u, was %u:%u", is->uid, is->gid, was->uid, was->gid);
	if (is->same_as != was->same_as)
		return differs(s, s->path, is->same_as ? "is another file's name, was a file of its own" : "is a file of its own, was another's name");
	if (is->n_names != was->n_names)
		return differs(s, s->path, "has %u names, had %u", is->n_names, was->n_names);
	if (is->size != was->size)
		return differs(s, s->path, "size %llu, was %llu", (unsigned long long)is->size, (unsigned long long)was->size);
	return 0;
}

/* What had to be read; the time last, which mostly changes with something that says more.  Return: as above */
static int compare_rest(struct seal *s, const struct seal_record *is)
{
	const struct seal_record *was = &s->want;

	if (memcmp(is->content, was->content, sizeof(is->content)) != 0)
		return differs(s, s->path, S_ISLNK(is->mode) ? "leads elsewhere" : "its content is another");
	if (memcmp(is->xattrs, was->xattrs, sizeof(is->xattrs)) != 0)
		return differs(s, s->path, "its extended attributes are others");
	if (is->mtime_s == was->mtime_s && is->mtime_ns == was->mtime_ns)
		return 0;
	differs(s, s->path, "its time of modification is another");
	if (!S_ISDIR(is->mode))
		return 1;
	if (!*s->late)
		memcpy(s->late, s->difference, sizeof(s->late));
	*s->difference = '\0';
	return 0;
}

/* ---- one name ---- */

/* An ACL that names the nobody of the image: shown to us as another (SEAL_NOBODY_SHOWN). */
static void put_back_nobody(char *value, size_t n)
{
	struct posix_acl_xattr_entry entry;

	for (size_t at = sizeof(struct posix_acl_xattr_header); at + sizeof(entry) <= n; at += sizeof(entry)) {
		memcpy(&entry, value + at, sizeof(entry));
		uint32_t id = le32toh(entry.e_id);

		if (id == SEAL_NOBODY_SHOWN || id == SEAL_NOBODY_SHOWN + 1)
			entry.e_id = htole32(id - SEAL_NOBODY_SHOWN + SEAL_NOBODY);
		memcpy(value + at, &entry, sizeof(entry));
	}
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int take_xattr(struct seal *s, int fd, const char *name, struct sbx_err *err)
{
	ssize_t n = fgetxattr(fd, name, s->value, sizeof(s->value));
	uint32_t length = n < 0 ? XATTR_GONE : (uint32_t)n;

	/* one that cannot be read (EOVERFLOW: the capability of another root) is there all the same */
	if (n < 0 && (errno == EIO || errno == ENOMEM))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "attribute %.60s of \"%.100s\"", name, s->path);
	if (n > 0 && s->nobody_moved && (xattr_rule(name) == XATTR_ACL || xattr_rule(name) == XATTR_DEFAULT_ACL))
		put_back_nobody(s->value, (size_t)n);
	length = htole32(length);
	if (digest_update(s->small, name, strlen(name) + 1, err) < 0 || digest_update(s->small, &length, sizeof(length), err) < 0)
		return -1;
	return n > 0 ? digest_update(s->small, s->value, (size_t)n, err) : 0;
}

/* What a layer keeps, and whatever a user may set: an overlay's marks in user.* too. */
static int take_xattrs(struct seal *s, int fd, uint8_t out[DIGEST_BYTES], struct sbx_err *err)
{
	ssize_t n = flistxattr(fd, s->names, sizeof(s->names));
	size_t count = 0, cap = 0;

	if (n < 0 && (errno == ENOTSUP || errno == ENOSYS))
		return 0;
	if (n < 0 && (errno == ERANGE || errno == E2BIG)) {
		memset(out, 0xff, DIGEST_BYTES); /* the unpacker sets no such amount: the digest of nothing else */
		return 0;
	}
	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "attributes of \"%.120s\"", s->path);
	for (const char *name = s->names; name < s->names + n; name += strlen(name) + 1)
		cap++;
	auto_free const char **list = cap ? calloc(cap, sizeof(*list)) : NULL;
	if (cap && !list)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "attributes");
	for (const char *name = s->names; name < s->names + n; name += strlen(name) + 1)
		if (xattr_rule(name) != XATTR_DROP || !strncmp(name, "user.", 5))
			list[count++] = name;
	if (!count)
		return 0;
	qsort(list, count, sizeof(*list), by_text);
	if (digest_restart(s->small, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (take_xattr(s, fd, list[i], err) < 0)
			return -1;
	return digest_finish(s->small, out, err);
}

/* Return: 0; 1: its content differs from what could be read, or it was made unreadable (comparing); -1 with @err set */
static int take_file(struct seal *s, int dir_fd, const char *name, const struct stat *looks, struct seal_record *r, struct sbx_err *err)
{
	const struct seal_known *known = s->list ? seal_list_find(s->list, looks->st_ino) : NULL;
	struct stat st;

	if (known)
		memcpy(r->content, known->digest, sizeof(r->content));
	if (known && known->plain)
		return 0;
	auto_fd fd = dir_names_open(dir_fd, name, 0);
	if (fd < 0 && s->compare && (errno == EACCES || errno == EPERM || errno == ELOOP || errno == ENOENT))
		return differs(s, s->path, "cannot be opened: %s", strerrordesc_np(errno));
	if (fd < 0 || fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open \"%.120s\"", s->path);
	if (!S_ISREG(st.st_mode) || st.st_ino != looks->st_ino || st.st_size != looks->st_size)
		return sbx_err_set(err, SBX_E_SYSTEM, EBUSY, "\"%.120s\" became something else meanwhile", s->path);
	if (!known && seal_content_read(s->content, fd, r->size, r->content, &s->counts.bytes, err) < 0)
		return sbx_err_wrap(err, "\"%.120s\"", s->path);
	return take_xattrs(s, fd, r->xattrs, err);
}

static int take_link(struct seal *s, int dir_fd, const char *name, struct seal_record *r, struct sbx_err *err)
{
	char target[LIMIT_PATH_BYTES];
	ssize_t n = readlinkat(dir_fd, name, target, sizeof(target));

	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read the link \"%.120s\"", s->path);
	if (digest_restart(s->small, err) < 0 || digest_update(s->small, target, (size_t)n, err) < 0)
		return -1;
	return digest_finish(s->small, r->content, err);
}

/* Number of the first record of this file into @ret, 0 when it is this one; Return: 0, or -1 with @err set */
static int same_as(struct seal *s, uint64_t inode, uint32_t *ret, struct sbx_err *err)
{
	struct first_name **bucket = &s->links[(inode ^ (inode >> 12)) % LINK_BUCKETS], *l = *bucket;

	while (l && l->inode != inode)
		l = l->next;
	*ret = l ? l->record : 0;
	if (l)
		return 0;
	l = malloc(sizeof(*l));
	if (!l)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "hard links");
	*l = (struct first_name){.next = *bucket, .inode = inode, .record = s->n_records};
	*bucket = l;
	return 0;
}

static uint32_t id_of(const struct seal *s, uint32_t shown)
{
	if (!s->nobody_moved)
		return shown;
	if (shown == SEAL_NOBODY)
		return NO_ID;
	return shown == SEAL_NOBODY_SHOWN || shown == SEAL_NOBODY_SHOWN + 1 ? shown - SEAL_NOBODY_SHOWN + SEAL_NOBODY : shown;
}

static struct seal_record record_of(const struct seal *s, const struct stat *st)
{
	struct seal_record r = {
		.path_n = (uint32_t)strlen(s->path),
		.mode = st->st_mode,
		.uid = id_of(s, st->st_uid),
		.gid = id_of(s, st->st_gid),
		.mtime_s = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
		.n_names = S_ISDIR(st->st_mode) ? 0 : (uint32_t)st->st_nlink,
	};

	if (S_ISREG(st->st_mode))
		r.size = (uint64_t)st->st_size;
	else if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		r.size = st->st_rdev;
	return r;
}

/* @own_fd: the directory itself, when it is one.  Return: 0, 1 when it differs, -1 with @err set */
static int take_name(struct seal *s, int dir_fd, const char *name, int own_fd, const struct stat *st, struct sbx_err *err)
{
	struct seal_record r = record_of(s, st);
	int rc = 0;

	s->n_records++;
	if (s->n_records > s->max_entries)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %llu entries", (unsigned long long)s->max_entries);
	s->counts.entries++;
	if (r.n_names > 1 && same_as(s, st->st_ino, &r.same_as, err) < 0)
		return -1;
	if (s->compare && compare_looks(s, &r))
		return 1;
	if (own_fd >= 0)
		rc = take_xattrs(s, own_fd, r.xattrs, err);
	else if (S_ISREG(st->st_mode) && !r.same_as)
		rc = take_file(s, dir_fd, name, st, &r, err);
	else if (S_ISLNK(st->st_mode))
		rc = take_link(s, dir_fd, name, &r, err);
	if (rc)
		return rc;
	if (!s->compare)
		return put(s, &r, sizeof(r), err) < 0 ? -1 : put(s, s->path, r.path_n, err);
	return compare_rest(s, &r) ? 1 : next_record(s, err);
}

/* ---- the walk ---- */

static void pop(struct seal *s)
{
	struct frame *f = &s->frame[--s->depth];

	dir_names_free(f->part.names, f->part.n);
	close_keep_errno(f->fd);
}

static int read_part(struct seal *s, struct frame *f, const char *after, struct sbx_err *err)
{
	return dir_names_part(f->fd, s->path, after, FAULT_POINT("dir-names-part") ? 100 : DIR_NAMES_MAX_BYTES, &f->part, err);
}

/* The names behind those that were all taken. */
static int next_part(struct seal *s, struct frame *f, struct sbx_err *err)
{
	auto_free char *last = f->part.names[f->part.n - 1].text;

	dir_names_free(f->part.names, f->part.n - 1); /* before there are others: a part takes more memory than its names */
	f->part = (struct dir_names_part){0};
	f->at = 0;
	return read_part(s, f, last, err);
}

/* Takes @fd, also when it fails. */
static int push(struct seal *s, int fd, struct sbx_err *err)
{
	if (s->depth >= ARRAY_SIZE(s->frame)) {
		close_keep_errno(fd);
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %u directories deep", TREE_MAX_DEPTH);
	}
	struct frame *f = &s->frame[s->depth++];

	*f = (struct frame){.fd = fd, .path_len = strlen(s->path)};
	return read_part(s, f, NULL, err); /* pop() follows in any case */
}

static int take_directory(struct seal *s, int fd, struct sbx_err *err)
{
	struct stat st;
	int rc = fstat(fd, &st) < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "look at \"%.120s\"", s->path) : take_name(s, -1, "", fd, &st, err);

	if (rc == 0)
		return push(s, fd, err);
	close_keep_errno(fd);
	return rc;
}

static int step(struct seal *s, struct sbx_err *err)
{
	struct frame *f = &s->frame[s->depth - 1];
	struct stat st;

	s->path[f->path_len] = '\0';
	if (f->at == f->part.n && f->part.more && next_part(s, f, err) < 0)
		return -1;
	if (f->at == f->part.n) {
		pop(s);
		return 0;
	}
	const char *name = f->part.names[f->at++].text;
	int n = snprintf(s->path + f->path_len, sizeof(s->path) - f->path_len, "%s%s", f->path_len ? "/" : "", name);
	if (n < 0 || (size_t)n >= sizeof(s->path) - f->path_len)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "\"%.80s...\": path too long", s->path);
	if (fstatat(f->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "look at \"%.120s\"", s->path);
	if (!S_ISDIR(st.st_mode))
		return take_name(s, f->fd, name, -1, &st, err);
	int fd = dir_names_open(f->fd, name, O_DIRECTORY);
	if (fd < 0 && s->compare && (errno == EACCES || errno == EPERM || errno == EXDEV)) {
		const struct seal_record r = record_of(s, &st);

		/* most often it belongs to somebody else now, and that is what is told */
		return compare_looks(s, &r) ? 1 : differs(s, s->path, "cannot be opened: %s", strerrordesc_np(errno));
	}
	return fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "open \"%.120s\"", s->path) : take_directory(s, fd, err);
}

static int walk(struct seal *s, int root_fd, struct sbx_err *err)
{
	int root = fcntl(root_fd, F_DUPFD_CLOEXEC, 3);
	int rc = root < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "the tree") : take_directory(s, root, err);

	while (rc == 0 && s->depth)
		rc = step(s, err);
	return rc;
}

static void seal_free(struct seal *s)
{
	while (s->depth)
		pop(s);
	for (size_t i = 0; i < LINK_BUCKETS; i++)
		while (s->links[i]) {
			struct first_name *l = s->links[i];

			s->links[i] = l->next;
			free(l);
		}
	seal_content_free(s->content);
	digest_free(s->digest);
	digest_free(s->small);
	free(s);
}

static struct seal *seal_new(int fd, uint64_t max_entries, struct sbx_err *err)
{
	struct seal *s = calloc(1, sizeof(*s));

	if (!s) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "seal");
		return NULL;
	}
	s->stream.fd = fd;
	s->max_entries = max_entries < UINT32_MAX ? max_entries : UINT32_MAX - 1;
	s->content = seal_content_new(err);
	s->digest = s->content ? digest_new(err) : NULL;
	s->small = s->digest ? digest_new(err) : NULL;
	if (s->small)
		return s;
	seal_free(s);
	return NULL;
}

int tree_seal_write(int root_fd, const struct seal_list *list, uint64_t max_entries, int out_fd, struct sbx_err *err)
{
	struct seal *s = seal_new(out_fd, max_entries, err);

	if (!s)
		return -1;
	s->list = list;
	int rc = put(s, SEAL_MAGIC, sizeof(SEAL_MAGIC) - 1, err);
	if (rc == 0)
		rc = walk(s, root_fd, err);
	if (rc == 0)
		rc = end_seal(s, err);
	seal_free(s);
	return rc;
}

int tree_seal_compare(int root_fd, int seal_fd, uint64_t max_entries, bool nobody_moved, struct seal_counts *ret,
		      char difference[SEAL_TEXT_BYTES], struct sbx_err *err)
{
	struct seal *s = seal_new(seal_fd, max_entries, err);

	*ret = (struct seal_counts){0};
	*difference = '\0';
	if (!s)
		return -1;
	s->compare = true;
	s->nobody_moved = nobody_moved;
	s->difference = difference;
	int rc = check_seal(s, err);
	if (rc == 0)
		rc = walk(s, root_fd, err);
	if (rc == 0 && s->have)
		rc = differs(s, s->want_path, "is gone");
	if (rc == 0 && *s->late)
		memcpy(difference, s->late, SEAL_TEXT_BYTES);
	*ret = s->counts;
	seal_free(s);
	return rc < 0 ? -1 : 0;
}
