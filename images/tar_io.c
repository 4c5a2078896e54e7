// SPDX-License-Identifier: Apache-2.0
#include "images/tar_io.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BLOCK (128u * 1024)

/* ---- reading ---- */

struct tar_reader {
	struct tar_reader_config config;
	struct archive *packed, *tar;
	struct archive_entry *entry; /* libarchive's */
	uint64_t bytes, from_file;
	char *block; /* owned */
	struct sbx_err err; /* why the first reader stopped */
};

static int reader_error(struct archive *a, const char *what, struct sbx_err *err)
{
	const char *text = archive_error_string(a);

	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s: %.150s", what, text ? text : "malformed archive");
}

/* What the first reader says is nearer to the cause. */
static int either_error(struct tar_reader *r, const char *what, struct sbx_err *err)
{
	if (!r->err.code)
		return reader_error(r->tar, what, err);
	*err = r->err;
	return -1;
}

static la_ssize_t stream_read(struct archive *a, void *arg, const void **ret)
{
	struct tar_reader *r = arg;
	la_int64_t offset;
	size_t n = 0;
	int rc = archive_read_data_block(r->packed, ret, &n, &offset);

	if (rc == ARCHIVE_EOF)
		return 0;
	if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) {
		reader_error(r->packed, "unpack the blob", &r->err);
	} else if (r->config.tap && r->config.tap(r->config.arg, *ret, n, &r->err) < 0) {
		/* said */
	} else if ((r->bytes += n) > r->config.max_bytes) {
		sbx_err_set(&r->err, SBX_E_LIMIT, 0, "the blob unpacks to more than %llu bytes", (unsigned long long)r->config.max_bytes);
	} else {
		return (la_ssize_t)n;
	}
	archive_set_error(a, -1, "%s", r->err.msg);
	return -1;
}

static la_ssize_t file_read(struct archive *a, void *arg, const void **ret)
{
	struct tar_reader *r = arg;
	uint64_t left = r->config.file_bytes ? r->config.file_bytes - r->from_file : READ_BLOCK;
	ssize_t n;

	do
		n = read(r->config.fd, r->block, left < READ_BLOCK ? (size_t)left : READ_BLOCK);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		archive_set_error(a, errno, "read: %s", strerror(errno));
	else
		r->from_file += (uint64_t)n;
	*ret = r->block;
	return n;
}

static int open_packed(struct tar_reader *r, struct sbx_err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	int rc;

	r->packed = a;
	if (!a)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive reader");
	rc = archive_read_support_format_raw(a);
	if (rc == ARCHIVE_OK && r->config.form == LAYER_GZIP)
		rc = archive_read_support_filter_gzip(a);
	if (rc == ARCHIVE_OK && r->config.form == LAYER_ZSTD)
		rc = archive_read_support_filter_zstd(a);
	if (rc == ARCHIVE_OK)
		rc = archive_read_open(a, r, NULL, file_read, NULL);
	if (rc == ARCHIVE_OK)
		rc = archive_read_next_header(a, &e);
	if (rc != ARCHIVE_OK)
		return reader_error(a, "open the blob", err);
	/* the library would unpack again what it finds packed within; no other reader of layers does, and the last one is the file */
	if (archive_filter_count(a) > 2)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the blob is packed more than once");
	return 0;
}

static int open_tar(struct tar_reader *r, struct sbx_err *err)
{
	int rc;

	r->tar = archive_read_new();
	if (!r->tar)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive reader");
	rc = archive_read_support_format_tar(r->tar);
	if (rc == ARCHIVE_OK)
		rc = archive_read_open(r->tar, r, NULL, stream_read, NULL);
	return rc == ARCHIVE_OK ? 0 : either_error(r, "open the archive", err);
}

struct tar_reader *tar_reader_new(const struct tar_reader_config *config, struct sbx_err *err)
{
	struct tar_reader *r = calloc(1, sizeof(*r));

	if (!r) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive reader");
		return NULL;
	}
	r->config = *config;
	r->block = malloc(READ_BLOCK);
	if (!r->block) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive reader");
		tar_reader_free(r);
		return NULL;
	}
	if (open_packed(r, err) < 0 || open_tar(r, err) < 0) {
		tar_reader_free(r);
		return NULL;
	}
	return r;
}

void tar_reader_free(struct tar_reader *r)
{
	if (!r)
		return;
	if (r->tar)
		archive_read_free(r->tar);
	if (r->packed)
		archive_read_free(r->packed);
	free(r->block);
	free(r);
}

/* Whether a warning is about how a name looks, or about a sparse file whose version is not 1.0 and whose map was understood. */
static bool is_harmless(struct archive *a)
{
	const char *text = archive_error_string(a);

	return archive_errno(a) == EILSEQ || (text && !strcmp(text, "Unrecognized GNU sparse file format"));
}

int tar_reader_next(struct tar_reader *r, struct tar_entry *ret, struct sbx_err *err)
{
	struct archive_entry *e;
	/*
	 * WARN is what names give that the C locale cannot show: they then come as the raw bytes of the archive, which
	 * is what a file system wants.  A damaged header is FATAL or RETRY; a PAX record that is damaged is WARN too, and
	 * the library would go on without it, with another name, owner or size than was meant: is_harmless().
	 */
	int got = archive_read_next_header(r->tar, &e);

	if (got == ARCHIVE_EOF)
		return 0;
	if (got != ARCHIVE_OK && !(got == ARCHIVE_WARN && is_harmless(r->tar)))
		return either_error(r, "read the archive", err);
	r->entry = e;
	archive_entry_xattr_reset(e);
	*ret = (struct tar_entry){
		.path = archive_entry_pathname(e),
		.hard_link = archive_entry_hardlink(e),
		.symlink = archive_entry_symlink(e),
		.type = archive_entry_filetype(e),
		.mode = (uint32_t)archive_entry_perm(e),
		.uid = archive_entry_uid(e),
		.gid = archive_entry_gid(e),
		.size = archive_entry_size_is_set(e) ? archive_entry_size(e) : 0,
		.mtime_s = archive_entry_mtime_is_set(e) ? archive_entry_mtime(e) : 0,
		.mtime_ns = archive_entry_mtime_is_set(e) ? (uint32_t)archive_entry_mtime_nsec(e) : 0,
		.sparse = archive_entry_sparse_count(e) > 0,
	};
	ret->whiteout = ret->type == S_IFCHR && archive_entry_rdevmajor(e) == 0 && archive_entry_rdevminor(e) == 0;
	if (!ret->path)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "an entry without a name");
	if (ret->uid < 0 || ret->gid < 0 || ret->size < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": negative owner or size", ret->path);
	return 1;
}

int tar_reader_data(struct tar_reader *r, const void **data, size_t *n, uint64_t *offset, struct sbx_err *err)
{
	la_int64_t at = 0;
	int rc = archive_read_data_block(r->tar, data, n, &at);

	if (rc == ARCHIVE_EOF)
		return 0;
	if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
		return either_error(r, "content", err);
	if (at < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "content: negative offset");
	*offset = (uint64_t)at;
	return 1;
}

bool tar_reader_xattr(struct tar_reader *r, const char **name, const void **value, size_t *n)
{
	while (archive_entry_xattr_next(r->entry, name, value, n) == ARCHIVE_OK)
		if (*name)
			return true;
	return false;
}

uint64_t tar_reader_packed(const struct tar_reader *r)
{
	la_int64_t n = archive_filter_bytes(r->packed, -1);

	return n > 0 ? (uint64_t)n : 0;
}

uint64_t tar_reader_position(const struct tar_reader *r)
{
	la_int64_t n = archive_filter_bytes(r->tar, 0);

	return n > 0 ? (uint64_t)n : 0;
}

int tar_reader_finish(struct tar_reader *r, struct sbx_err *err)
{
	const void *data;
	la_ssize_t n;

	do
		n = stream_read(r->tar, r, &data);
	while (n > 0);
	if (n == 0)
		return 0;
	*err = r->err;
	return -1;
}

/* ---- writing ---- */

struct tar_writer {
	struct tar_writer_config config;
	struct archive *tar, *packer;
	struct archive_entry *entry; /* owned */
	bool given_up; /* what comes now goes nowhere */
	struct sbx_err err;
};

static int writer_error(struct tar_writer *w, struct archive *a, struct sbx_err *err)
{
	const char *text = archive_error_string(a);

	if (w->err.code) {
		*err = w->err;
		return -1;
	}
	return sbx_err_set(err, SBX_E_SYSTEM, 0, "write the archive: %.150s", text ? text : "unknown");
}

static la_ssize_t write_plain(struct archive *a, void *arg, const void *data, size_t n)
{
	struct tar_writer *w = arg;

	if (w->given_up)
		return (la_ssize_t)n;
	if (w->config.plain(w->config.arg, data, n, &w->err) == 0) {
		if (archive_write_data(w->packer, data, n) == (la_ssize_t)n)
			return (la_ssize_t)n;
		writer_error(w, w->packer, &w->err);
	}
	archive_set_error(a, -1, "%s", w->err.msg);
	return -1;
}

static la_ssize_t write_packed(struct archive *a, void *arg, const void *data, size_t n)
{
	struct tar_writer *w = arg;

	if (w->given_up)
		return (la_ssize_t)n;
	if (w->config.packed(w->config.arg, data, n, &w->err) == 0)
		return (la_ssize_t)n;
	archive_set_error(a, -1, "%s", w->err.msg);
	return -1;
}

/* No padding of the last block; whole blocks before it. */
static int set_blocks(struct archive *a)
{
	int rc = archive_write_set_bytes_per_block(a, READ_BLOCK);

	return rc == ARCHIVE_OK ? archive_write_set_bytes_in_last_block(a, 1) : rc;
}

static int open_packer(struct tar_writer *w, struct sbx_err *err)
{
	struct archive *a = archive_write_new();
	int rc = ARCHIVE_OK;

	w->packer = a;
	if (!a)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive writer");
	if (w->config.form == LAYER_GZIP)
		rc = archive_write_add_filter_gzip(a);
	if (w->config.form == LAYER_ZSTD)
		rc = archive_write_add_filter_zstd(a);
	if (rc == ARCHIVE_OK && w->config.form == LAYER_GZIP) /* the same tree, the same blob */
		rc = archive_write_set_filter_option(a, "gzip", "timestamp", NULL);
	if (rc == ARCHIVE_OK)
		rc = archive_write_set_format_raw(a);
	if (rc == ARCHIVE_OK)
		rc = set_blocks(a);
	if (rc == ARCHIVE_OK)
		rc = archive_write_open(a, w, NULL, write_packed, NULL);
	if (rc != ARCHIVE_OK)
		return writer_error(w, a, err);
	/* "raw" is an archive of one file */
	archive_entry_clear(w->entry);
	archive_entry_set_filetype(w->entry, AE_IFREG);
	archive_entry_set_pathname(w->entry, "tar");
	return archive_write_header(a, w->entry) == ARCHIVE_OK ? 0 : writer_error(w, a, err);
}

static int open_writer(struct tar_writer *w, struct sbx_err *err)
{
	struct archive *a = archive_write_new();
	int rc;

	w->tar = a;
	if (!a)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive writer");
	rc = archive_write_set_format_pax(a);
	if (rc == ARCHIVE_OK)
		rc = archive_write_set_format_option(a, "pax", "xattrheader", "SCHILY");
	if (rc == ARCHIVE_OK)
		rc = set_blocks(a);
	if (rc == ARCHIVE_OK)
		rc = archive_write_open(a, w, NULL, write_plain, NULL);
	return rc == ARCHIVE_OK ? 0 : writer_error(w, a, err);
}

struct tar_writer *tar_writer_new(const struct tar_writer_config *config, struct sbx_err *err)
{
	struct tar_writer *w = calloc(1, sizeof(*w));

	if (w) {
		w->config = *config;
		w->entry = archive_entry_new();
	}
	if (!w || !w->entry)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive writer");
	else if (open_packer(w, err) == 0 && open_writer(w, err) == 0)
		return w;
	tar_writer_free(w);
	return NULL;
}

void tar_writer_free(struct tar_writer *w)
{
	if (!w)
		return;
	/* one that was not finished writes its end now; archive_write_fail() would prevent that, and leak the packer's memory */
	w->given_up = true;
	if (w->tar)
		archive_write_free(w->tar);
	if (w->packer)
		archive_write_free(w->packer);
	archive_entry_free(w->entry);
	free(w);
}

int tar_writer_begin(struct tar_writer *w, const struct tar_entry *e, struct sbx_err *err)
{
	struct archive_entry *to = archive_entry_clear(w->entry);

	if (!to)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive writer");
	archive_entry_copy_pathname(to, e->path);
	archive_entry_set_filetype(to, e->type);
	archive_entry_set_perm(to, (mode_t)e->mode);
	archive_entry_set_uid(to, e->uid);
	archive_entry_set_gid(to, e->gid);
	archive_entry_set_mtime(to, e->mtime_s, (long)e->mtime_ns);
	archive_entry_set_size(to, e->hard_link ? 0 : e->size);
	if (e->hard_link)
		archive_entry_copy_hardlink(to, e->hard_link);
	else if (e->symlink)
		archive_entry_copy_symlink(to, e->symlink);
	return 0;
}

void tar_writer_xattr(struct tar_writer *w, const char *name, const void *value, size_t n)
{
	archive_entry_xattr_add_entry(w->entry, name, value, n);
}

void tar_writer_extents(struct tar_writer *w, const struct tar_extent *extents, size_t n)
{
	la_int64_t size = archive_entry_size(w->entry);

	for (size_t i = 0; i < n; i++)
		archive_entry_sparse_add_entry(w->entry, extents[i].offset, extents[i].length);
	if (!n)
		archive_entry_sparse_add_entry(w->entry, size, 0);
}

int tar_writer_head(struct tar_writer *w, struct sbx_err *err)
{
	int rc = archive_write_header(w->tar, w->entry);

	/* WARN: a name that is no ASCII; it is then written as the bytes that it is */
	return rc == ARCHIVE_OK || rc == ARCHIVE_WARN ? 0 : writer_error(w, w->tar, err);
}

int tar_writer_data(struct tar_writer *w, const void *data, size_t n, struct sbx_err *err)
{
	for (const char *at = data; n;) {
		la_ssize_t done = archive_write_data(w->tar, at, n);

		if (done <= 0)
			return writer_error(w, w->tar, err);
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

int tar_writer_finish(struct tar_writer *w, struct sbx_err *err)
{
	if (archive_write_close(w->tar) != ARCHIVE_OK)
		return writer_error(w, w->tar, err);
	return archive_write_close(w->packer) == ARCHIVE_OK ? 0 : writer_error(w, w->packer, err);
}
