// SPDX-License-Identifier: Apache-2.0
#include "images/layer.h"

#include "base/limits.h"
#include "images/tar_io.h"
#include "images/tree_writer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a tar has beside the content: two headers and the padding of each entry with names of some length, blocks at the end. */
#define ENTRY_OVERHEAD	 4096u
#define ARCHIVE_OVERHEAD (1024u * 1024)

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

static int take_into_digest(void *arg, const void *data, size_t n, struct sbx_err *err)
{
	return digest_update(arg, data, n, err);
}

/* What stands behind the end of the archive belongs to the layer too. */
static int finish_stream(struct tar_reader *a, const struct layer_diff_id *diff_id, struct sbx_err *err)
{
	uint8_t is[DIGEST_BYTES];

	if (tar_reader_finish(a, err) < 0)
		return -1;
	if (!diff_id->wanted)
		return 0;
	if (digest_finish(diff_id->digest, is, err) < 0)
		return -1;
	if (!memcmp(is, diff_id->is, sizeof(is)))
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

/* "a/.wh.b/c": a marker is a file, and as a directory its name could not leave again. */
static bool below_marker(const char *clean)
{
	for (const char *slash = strchr(clean, '/'), *part = clean; slash; part = slash + 1, slash = strchr(part, '/'))
		if (starts(part, whiteout_prefix))
			return true;
	return false;
}

/*
 * Fills @to from the archive's entry.  Return: 1 when there is something to write, 0 to skip it, -1 with @err set.
 * @clean gives the name room.
 */
static int translate(const struct tar_entry *e, char *clean, struct tree_entry *to, struct sbx_err *err)
{
	if (tree_path_clean(e->path, clean, err) < 0)
		return -1;
	*to = (struct tree_entry){
		.path = clean,
		.mode = e->mode,
		.uid = (uint64_t)e->uid,
		.gid = (uint64_t)e->gid,
		.size = (uint64_t)e->size,
		.mtime_s = e->mtime_s,
		.mtime_ns = e->mtime_ns,
	};
	if (below_marker(clean))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": a whiteout is no directory", clean);
	if (starts(last_part(clean), whiteout_prefix)) {
		to->uid = to->gid = 0;
		return marker(clean, &to->kind, err);
	}
	if (e->hard_link) {
		to->kind = TREE_HARD_LINK;
		to->target = e->hard_link;
		return 1;
	}
	switch (e->type) {
	case S_IFREG:
		to->kind = TREE_FILE;
		return 1;
	case S_IFDIR:
		to->kind = TREE_DIRECTORY;
		return 1;
	case S_IFLNK:
		to->kind = TREE_SYMLINK;
		to->target = e->symlink;
		if (!to->target)
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": link without a text", clean);
		return 1;
	case S_IFIFO:
		to->kind = TREE_FIFO;
		return 1;
	case S_IFCHR:
	case S_IFBLK:
		if (e->whiteout) {
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

static int copy_data(struct tar_reader *a, struct tree_writer *w, const char *path, struct sbx_err *err)
{
	const void *data;
	size_t n;
	uint64_t offset, end = 0;
	int rc;

	while ((rc = tar_reader_data(a, &data, &n, &offset, err)) > 0) {
		/* a map of a sparse file may say anything; what readers could understand in two ways is refused */
		if (offset < end)
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.120s\": pieces of content overlap or go backwards", path);
		if (n > 0 && tree_data(w, offset, data, n, err) < 0)
			return -1;
		end = offset + n;
		uint64_t packed = tar_reader_packed(a);
		if (tree_bytes(w) > LAYER_RATIO_FROM_BYTES && packed > 0 && tree_bytes(w) / packed > LAYER_MAX_RATIO)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "the blob grows more than %u times: a decompression bomb",
					   LAYER_MAX_RATIO);
	}
	return rc < 0 ? sbx_err_wrap(err, "\"%.120s\"", path) : 0;
}

static int copy_xattrs(struct tar_reader *a, struct tree_writer *w, struct sbx_err *err)
{
	const char *name;
	const void *value;
	size_t n;

	while (tar_reader_xattr(a, &name, &value, &n))
		if (tree_xattr(w, name, value, n, err) < 0)
			return -1;
	return 0;
}

static int apply_entry(struct tar_reader *a, const struct tar_entry *e, struct tree_writer *w, struct sbx_err *err)
{
	char clean[LIMIT_PATH_BYTES];
	struct tree_entry entry;
	int what = translate(e, clean, &entry, err);

	if (what <= 0)
		return what;
	if (tree_begin(w, &entry, err) < 0)
		return -1;
	if (entry.kind == TREE_FILE && copy_data(a, w, clean, err) < 0)
		return -1;
	if (tree_owner(w, err) < 0 || copy_xattrs(a, w, err) < 0)
		return -1;
	return tree_end(w, err);
}

/* Whoever unpacks the layers below says that they are complete, or ends us. */
static int wait_for_lower(int ready_fd, struct sbx_err *err)
{
	ssize_t n;
	char byte;

	do
		n = ready_fd < 0 ? 1 : read(ready_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1 ? 0 : sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? errno : EPIPE, "wait for the layers below");
}

static int apply_entries(struct tar_reader *a, struct tree_writer *w, uint64_t max_entries, struct sbx_err *err)
{
	uint64_t seen = 0;
	struct tar_entry e;
	int got;

	while ((got = tar_reader_next(a, &e, err)) > 0) {
		if (++seen > max_entries) /* skipped ones count too */
			return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %llu entries", (unsigned long long)max_entries);
		if (apply_entry(a, &e, w, err) < 0)
			return -1;
	}
	if (got == 0 && seen == 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the archive holds no entries");
	return got;
}

int layer_apply(const struct layer_unpack *what, struct layer_counts *ret, struct sbx_err *err)
{
	auto_writer w = tree_writer_new(what->root_fd, what->max_entries, what->max_bytes, err);
	const struct tar_reader_config config = {
		.fd = what->blob_fd,
		.form = what->form,
		.max_bytes = what->max_bytes + what->max_entries * ENTRY_OVERHEAD + ARCHIVE_OVERHEAD,
		.arg = what->diff_id->digest,
		.tap = what->diff_id->wanted ? take_into_digest : NULL,
	};

	*ret = (struct layer_counts){0};
	if (!w || (what->seal_fd >= 0 && tree_seal(w, err) < 0))
		return -1;
	auto_tar_reader *a = tar_reader_new(&config, err);
	if (!a)
		return -1;
	int rc = apply_entries(a, w, what->max_entries, err);
	if (rc == 0)
		rc = finish_stream(a, what->diff_id, err);
	if (rc == 0)
		rc = wait_for_lower(what->ready_fd, err);
	for (size_t i = 0; rc == 0 && i < what->n_lower; i++)
		rc = tree_hide(w, what->lower_fds[i], err);
	if (rc == 0)
		rc = tree_adopt(w, what->lower_fds, what->n_lower, err);
	if (rc == 0)
		rc = tree_finish(w, err);
	if (rc == 0 && what->seal_fd >= 0)
		rc = tree_seal_end(w, what->seal_fd, err);
	ret->entries = tree_entries(w);
	ret->bytes = tree_bytes(w);
	return rc;
}
