// SPDX-License-Identifier: Apache-2.0
#include "images/layer.h"

#include "base/limits.h"
#include "images/tree_writer.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define READ_BLOCK (128u * 1024)
/* What a tar has beside the content: two headers and the padding of each entry with names of some length, blocks at the end. */
#define ENTRY_OVERHEAD	 4096u
#define ARCHIVE_OVERHEAD (1024u * 1024)

static void free_reader(struct archive *const *a)
{
	if (*a)
		archive_read_free(*a);
}
#define auto_reader __attribute__((cleanup(free_reader))) struct archive *

static void free_writer(struct tree_writer *const *w)
{
	tree_writer_free(*w);
}
#define auto_writer __attribute__((cleanup(free_writer))) struct tree_writer *

enum layer_form layer_form_parse(const char *text)
{
	static const struct {
		const char *name;
		enum layer_form form;
	} forms[] = {{"tar", LAYER_TAR}, {"gzip", LAYER_GZIP}, {"zstd", LAYER_ZSTD}};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
		if (!strcmp(text, forms[i].name))
			return forms[i].form;
	return LAYER_FORM_NONE;
}

static int reader_error(struct archive *a, const char *what, struct sbx_err *err)
{
	const char *text = archive_error_string(a);

	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s: %.150s", what, text ? text : "malformed archive");
}

/*
 * Two readers, one behind the other: the first only unpacks, so that every byte of the tar can be taken into a digest and
 * counted, the second reads the tar.
 */
struct stream {
	struct archive *packed;
	struct layer_diff_id *diff_id;
	uint64_t bytes, max_bytes;
	struct sbx_err err; /* why reading stopped */
};

static la_ssize_t stream_read(struct archive *a, void *arg, const void **ret)
{
	struct stream *s = arg;
	la_int64_t offset;
	size_t n = 0;
	int rc = archive_read_data_block(s->packed, ret, &n, &offset);

	if (rc == ARCHIVE_EOF)
		return 0;
	if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) {
		reader_error(s->packed, "unpack the blob", &s->err);
	} else if (s->diff_id->wanted && digest_update(s->diff_id->digest, *ret, n, &s->err) < 0) {
		/* said */
	} else if ((s->bytes += n) > s->max_bytes) {
		sbx_err_set(&s->err, SBX_E_LIMIT, 0, "the blob unpacks to more than %llu bytes", (unsigned long long)s->max_bytes);
	} else {
		return (la_ssize_t)n;
	}
	archive_set_error(a, -1, "%s", s->err.msg);
	return -1;
}

static struct archive *open_packed(int blob_fd, enum layer_form form, struct sbx_err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	int rc;

	if (!a) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive reader");
		return NULL;
	}
	/* at most one filter: what is not switched on cannot be reached by a blob */
	rc = archive_read_support_format_raw(a);
	if (rc == ARCHIVE_OK && form == LAYER_GZIP)
		rc = archive_read_support_filter_gzip(a);
	if (rc == ARCHIVE_OK && form == LAYER_ZSTD)
		rc = archive_read_support_filter_zstd(a);
	if (rc == ARCHIVE_OK)
		rc = archive_read_open_fd(a, blob_fd, READ_BLOCK);
	if (rc == ARCHIVE_OK)
		rc = archive_read_next_header(a, &e);
	if (rc != ARCHIVE_OK) {
		reader_error(a, "open the blob", err);
		archive_read_free(a);
		return NULL;
	}
	return a;
}

static struct archive *open_reader(struct stream *s, struct sbx_err *err)
{
	struct archive *a = archive_read_new();
	int rc;

	if (!a) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive reader");
		return NULL;
	}
	rc = archive_read_support_format_tar(a);
	if (rc == ARCHIVE_OK)
		rc = archive_read_open(a, s, NULL, stream_read, NULL);
	if (rc != ARCHIVE_OK) {
		if (s->err.code)
			*err = s->err;
		else
			reader_error(a, "open the archive", err);
		archive_read_free(a);
		return NULL;
	}
	return a;
}

/* What stands behind the end of the archive belongs to the layer too. */
static int finish_stream(struct archive *a, struct stream *s, struct sbx_err *err)
{
	const void *data;
	la_ssize_t n;
	uint8_t is[DIGEST_BYTES];

	do
		n = stream_read(a, s, &data);
	while (n > 0);
	if (n < 0) {
		*err = s->err;
		return -1;
	}
	if (!s->diff_id->wanted)
		return 0;
	if (digest_finish(s->diff_id->digest, is, err) < 0)
		return -1;
	if (!memcmp(is, s->diff_id->is, sizeof(is)))
		return 0;
	char text[DIGEST_TEXT_SIZE];
	digest_format(is, text);
	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the unpacked layer has the digest %s, not that of the configuration", text);
}

static const char whiteout_prefix[] = ".wh.";
static const char opaque_name[] = ".wh..wh..opq";
static const char aufs_prefix[] = ".wh..wh.";

static bool starts(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Turns "a/.wh.b" in @clean into "a/b", and "a/.wh..wh..opq" into "a".  Return: 1, 0 to skip the entry, -1 with @err set */
static int marker(char *clean, enum tree_kind *ret_kind, struct sbx_err *err)
{
	char *last = clean + (last_part(clean) - clean);
	char *hidden = last + strlen(whiteout_prefix);

	if (!strcmp(last, opaque_name)) {
		*ret_kind = TREE_OPAQUE;
		*(last > clean ? last - 1 : last) = '\0';
		return 1;
	}
	if (starts(last, aufs_prefix))
		return 0;
	*ret_kind = TREE_WHITEOUT;
	if (!*hidden || !strcmp(hidden, ".") || !strcmp(hidden, ".."))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": whiteout of nothing", clean);
	memmove(last, hidden, strlen(hidden) + 1);
	return 1;
}

/*
 * Fills @to from the archive's entry.  Return: 1 when there is something to write, 0 to skip it, -1 with @err set.
 * @clean gives the name room.
 */
static int translate(struct archive_entry *e, char *clean, struct tree_entry *to, struct sbx_err *err)
{
	const char *path = archive_entry_pathname(e);
	const char *hard = archive_entry_hardlink(e);
	__LA_MODE_T type = archive_entry_filetype(e);

	if (!path)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "an entry without a name");
	if (tree_path_clean(path, clean, err) < 0)
		return -1;
	int64_t uid = archive_entry_uid(e);
	int64_t gid = archive_entry_gid(e);
	int64_t size = archive_entry_size_is_set(e) ? archive_entry_size(e) : 0;
	if (uid < 0 || gid < 0 || size < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": negative owner or size", clean);
	*to = (struct tree_entry){
		.path = clean,
		.mode = (uint32_t)archive_entry_perm(e),
		.uid = (uint64_t)uid,
		.gid = (uint64_t)gid,
		.size = (uint64_t)size,
		.mtime_s = archive_entry_mtime_is_set(e) ? archive_entry_mtime(e) : 0,
		.mtime_ns = archive_entry_mtime_is_set(e) ? (uint32_t)archive_entry_mtime_nsec(e) : 0,
	};
	if (starts(last_part(clean), whiteout_prefix)) {
		to->uid = to->gid = 0;
		return marker(clean, &to->kind, err);
	}
	if (hard) {
		to->kind = TREE_HARD_LINK;
		to->target = hard;
		return 1;
	}
	switch (type) {
	case AE_IFREG:
		to->kind = TREE_FILE;
		return 1;
	case AE_IFDIR:
		to->kind = TREE_DIRECTORY;
		return 1;
	case AE_IFLNK:
		to->kind = TREE_SYMLINK;
		to->target = archive_entry_symlink(e);
		if (!to->target)
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": link without a text", clean);
		return 1;
	case AE_IFIFO:
		to->kind = TREE_FIFO;
		return 1;
	case AE_IFCHR:
	case AE_IFBLK:
		if (type == AE_IFCHR && archive_entry_rdevmajor(e) == 0 && archive_entry_rdevminor(e) == 0) {
			to->kind = TREE_WHITEOUT;
			return 1;
		}
		if (!strncmp(clean, "dev/", 4))
			return 0;
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": device node outside dev/", clean);
	default:
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": unknown kind of entry", clean);
	}
}

static int copy_data(struct archive *a, struct archive *blob, struct tree_writer *w, const char *path, struct sbx_err *err)
{
	const void *data;
	size_t n;
	la_int64_t offset;
	int rc;

	while ((rc = archive_read_data_block(a, &data, &n, &offset)) == ARCHIVE_OK || rc == ARCHIVE_WARN) {
		if (offset < 0)
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": negative offset", path);
		if (n > 0 && tree_data(w, (uint64_t)offset, data, n, err) < 0)
			return -1;
		la_int64_t packed = archive_filter_bytes(blob, -1);
		if (tree_bytes(w) > LAYER_RATIO_FROM_BYTES && packed > 0 &&
		    tree_bytes(w) / (uint64_t)packed > LAYER_MAX_RATIO)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "the blob grows more than %u times: a decompression bomb",
					   LAYER_MAX_RATIO);
	}
	return rc == ARCHIVE_EOF ? 0 : reader_error(a, path, err);
}

static int copy_xattrs(struct archive_entry *e, struct tree_writer *w, struct sbx_err *err)
{
	const char *name;
	const void *value;
	size_t n;

	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &n) == ARCHIVE_OK)
		if (name && tree_xattr(w, name, value, n, err) < 0)
			return -1;
	return 0;
}

static int apply_entry(struct archive *a, struct archive *blob, struct archive_entry *e, struct tree_writer *w, struct sbx_err *err)
{
	char clean[LIMIT_PATH_BYTES];
	struct tree_entry entry;
	int what = translate(e, clean, &entry, err);

	if (what <= 0)
		return what;
	if (tree_begin(w, &entry, err) < 0)
		return -1;
	if (entry.kind == TREE_FILE && copy_data(a, blob, w, clean, err) < 0)
		return -1;
	if (tree_owner(w, err) < 0 || copy_xattrs(e, w, err) < 0)
		return -1;
	return tree_end(w, err);
}

int layer_apply(int blob_fd, enum layer_form form, int root_fd, uint64_t max_entries, uint64_t max_bytes, const int *lower_fds,
		size_t n_lower, struct layer_diff_id *diff_id, struct layer_counts *ret, struct sbx_err *err)
{
	auto_writer w = tree_writer_new(root_fd, max_entries, max_bytes, err);
	struct stream s = {.diff_id = diff_id, .max_bytes = max_bytes + max_entries * ENTRY_OVERHEAD + ARCHIVE_OVERHEAD};
	uint64_t seen = 0;
	int rc = 0;

	*ret = (struct layer_counts){0};
	if (!w)
		return -1;
	auto_reader blob = open_packed(blob_fd, form, err);
	if (!blob)
		return -1;
	s.packed = blob;
	auto_reader a = open_reader(&s, err);
	if (!a)
		return -1;
	while (rc == 0) {
		struct archive_entry *e;
		/*
		 * WARN is what names give that the C locale cannot show: they then come as the raw bytes of the archive, which
		 * is what a file system wants.  A damaged header is FATAL or RETRY.
		 */
		int got = archive_read_next_header(a, &e);

		if (got == ARCHIVE_EOF)
			break;
		if (got != ARCHIVE_OK && got != ARCHIVE_WARN && s.err.code)
			rc = sbx_err_set(err, s.err.code, 0, "%s", s.err.msg); /* what the first reader says is nearer to the cause */
		else if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
			rc = reader_error(a, "read the archive", err);
		else if (++seen > max_entries) /* skipped ones count too */
			rc = sbx_err_set(err, SBX_E_LIMIT, 0, "more than %llu entries", (unsigned long long)max_entries);
		else
			rc = apply_entry(a, blob, e, w, err);
	}
	if (rc == 0 && seen == 0)
		rc = sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the archive holds no entries");
	for (size_t i = 0; rc == 0 && i < n_lower; i++)
		rc = tree_hide(w, lower_fds[i], err);
	if (rc == 0)
		rc = finish_stream(a, &s, err);
	if (rc == 0)
		rc = tree_finish(w, err);
	ret->entries = tree_entries(w);
	ret->bytes = tree_bytes(w);
	return rc;
}
