/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: tar in and out, plain or packed: the only user of libarchive, in sandbox-unpack alone
 *
 * Reading: two readers, one behind the other.  The first only unpacks, so that every byte of the tar can be shown to a tap (a
 * digest, a copy) and counted; the second reads the tar.  At most one filter is switched on: what is not cannot be reached by
 * hostile bytes.  Names come as the raw bytes of the archive.
 *
 * Writing: pax with the times of files to the nanosecond, attributes as SCHILY.xattr, holes as GNU.sparse 1.0; no times of
 * access or change, no names of users.  The same entries give the same bytes.
 */
#ifndef IMAGES_TAR_IO_H
#define IMAGES_TAR_IO_H

#include "base/err.h"
#include "images/layer_form.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tar_entry {
	const char *path;
	const char *hard_link; /* NULL: it is none */
	const char *symlink;   /* S_IFLNK */
	mode_t type;	       /* S_IFREG ... */
	uint32_t mode;	       /* permission bits */
	int64_t uid, gid, size;
	int64_t mtime_s;
	uint32_t mtime_ns;
	bool whiteout; /* character device 0/0 */
	bool sparse;   /* reading: it says where it has holes */
};

/* ---- reading ---- */

struct tar_reader;

struct tar_reader_config {
	int fd; /* read from its current offset to its end */
	uint64_t file_bytes; /* and no more than so many bytes; 0: all */
	enum layer_form form;
	uint64_t max_bytes; /* of the tar; more is LIMIT */
	void *arg;
	int (*tap)(void *arg, const void *data, size_t n, struct sbx_err *err); /* every byte of the tar; may be NULL */
};

/** tar_reader_new() - Open an archive; Return: the reader (tar_reader_free() it), or NULL with @err set: IMAGE_INVALID, LIMIT, NO_MEMORY */
struct tar_reader *tar_reader_new(const struct tar_reader_config *config, struct sbx_err *err) SBX_WUR;
/** tar_reader_free() - Release @r; NULL is fine */
void tar_reader_free(struct tar_reader *r);
/** tar_reader_next() - The next entry into @ret, valid until the next call; Return: 1, 0 at the end, -1 with @err set */
int tar_reader_next(struct tar_reader *r, struct tar_entry *ret, struct sbx_err *err) SBX_WUR;
/**
 * tar_reader_data() - A piece of the entry's content
 * @r:		The reader
 * @data:	Borrowed until the next call
 * @n:		Bytes
 * @offset:	Where it belongs; between pieces there are holes
 * @err:	Filled on failure: IMAGE_INVALID, or what the tap said
 *
 * Return: 1, 0 at the end, -1 with @err set
 */
int tar_reader_data(struct tar_reader *r, const void **data, size_t *n, uint64_t *offset, struct sbx_err *err) SBX_WUR;
/** tar_reader_xattr() - The next attribute of the entry; Return: whether there is one */
bool tar_reader_xattr(struct tar_reader *r, const char **name, const void **value, size_t *n);
/** tar_reader_packed() - Bytes taken from the file so far */
uint64_t tar_reader_packed(const struct tar_reader *r);
/** tar_reader_position() - Offset in the tar of the content of the entry just read */
uint64_t tar_reader_position(const struct tar_reader *r);
/** tar_reader_finish() - Read what stands behind the last entry, for the tap; Return: 0, or -1 with @err set */
int tar_reader_finish(struct tar_reader *r, struct sbx_err *err) SBX_WUR;

static inline void cleanup_tar_reader(struct tar_reader *const *r)
{
	tar_reader_free(*r);
}
#define auto_tar_reader __attribute__((cleanup(cleanup_tar_reader))) struct tar_reader

/* ---- writing ---- */

struct tar_writer;

struct tar_writer_config {
	enum layer_form form;
	void *arg;
	int (*plain)(void *arg, const void *data, size_t n, struct sbx_err *err);  /* every byte of the tar */
	int (*packed)(void *arg, const void *data, size_t n, struct sbx_err *err); /* every byte of the blob */
};

/* A piece of a file that is no hole. */
struct tar_extent {
	int64_t offset, length;
};

/** tar_writer_new() - Start an archive; Return: the writer (tar_writer_free() it), or NULL with @err set */
struct tar_writer *tar_writer_new(const struct tar_writer_config *config, struct sbx_err *err) SBX_WUR;
/** tar_writer_free() - Release @w, finished or not; NULL is fine */
void tar_writer_free(struct tar_writer *w);
/** tar_writer_begin() - Begin the entry @e, whose texts are copied; Return: 0, or -1 with @err set */
int tar_writer_begin(struct tar_writer *w, const struct tar_entry *e, struct sbx_err *err) SBX_WUR;
/** tar_writer_xattr() - Give the entry just begun an attribute, before tar_writer_head() */
void tar_writer_xattr(struct tar_writer *w, const char *name, const void *value, size_t n);
/** tar_writer_extents() - Say which parts of the file just begun are no holes, before tar_writer_head(); none: it is one hole */
void tar_writer_extents(struct tar_writer *w, const struct tar_extent *extents, size_t n);
/** tar_writer_head() - Write the head of the entry; Return: 0, or -1 with @err set */
int tar_writer_head(struct tar_writer *w, struct sbx_err *err) SBX_WUR;
/** tar_writer_data() - Write the next @n bytes of the file, zeros for its holes; Return: 0, or -1 with @err set */
int tar_writer_data(struct tar_writer *w, const void *data, size_t n, struct sbx_err *err) SBX_WUR;
/** tar_writer_finish() - End the archive; Return: 0, or -1 with @err set */
int tar_writer_finish(struct tar_writer *w, struct sbx_err *err) SBX_WUR;

#endif
