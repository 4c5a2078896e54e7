/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what is where in an image archive (OCI layout or docker save, as tar)
 *
 * sandbox-unpack walks the tar once ("--index", unpack_result.h) and appends a table of its members, so that sandboxd,
 * which reads no archive, can take each by offset and size.  A table holds plain files with known names only: "index.json",
 * "oci-layout", "manifest.json", "repositories", "blobs/<algorithm>/<hex>" and what `docker save` calls its files.  Links, which
 * old `docker save` makes for layers that are there twice, are resolved inside the table.  Everything else makes the archive a
 * root file system (kind not forced), or is refused.
 *
 * The table is as hostile as the archive: archive_table_load() checks every field, and every blob is hashed when it is taken.
 */
#ifndef IMAGES_ARCHIVE_INDEX_H
#define IMAGES_ARCHIVE_INDEX_H

#include "base/err.h"
#include "images/digest.h"
#include "images/layer_form.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARCHIVE_MEMBERS_MAX	4096u /* an image has 127 layers; an archive of thirty such images fits */
#define ARCHIVE_ENTRIES_MAX	65536u /* with directories and what is passed over */
#define ARCHIVE_NAME_BYTES	168u
#define ARCHIVE_TABLE_MAX_BYTES (4096u + ARCHIVE_MEMBERS_MAX * 256u)
#define ARCHIVE_TABLE_MAGIC	0x31544149u /* "IAT1" */

enum archive_kind {
	ARCHIVE_UNKNOWN = 0,
	ARCHIVE_ROOTFS, /* neither of the two: a root file system */
	ARCHIVE_OCI,
	ARCHIVE_DOCKER,
	ARCHIVE_KIND_COUNT
};

struct archive_member {
	uint64_t offset, size; /* in the file */
	uint8_t digest[DIGEST_BYTES]; /* of the content, but for blobs/: their name says it */
	uint32_t form; /* enum layer_form of the first bytes; LAYER_TAR for everything that is not packed */
	uint32_t is_blob; /* its name is blobs/sha256/<hex> */
	char name[ARCHIVE_NAME_BYTES];
};

struct archive_index_result {
	uint64_t n_members, table_offset;
	enum archive_kind kind;
};

/** archive_kind_parse() - "rootfs", "oci" or "docker"; Return: the kind, ARCHIVE_UNKNOWN for anything else */
enum archive_kind archive_kind_parse(const char *text);
/** archive_kind_name() - "rootfs", "oci", "docker"; Return: static string */
const char *archive_kind_name(enum archive_kind kind);
/** archive_name_known() - Whether the clean path @name is one that image archives have */
bool archive_name_known(const char *name);

/**
 * archive_index() - Walk an archive and append its table
 * @fd:		Regular file, read from its start, written behind its end
 * @form:	How it is packed; if it is, the plain form is appended too
 * @kind:	What it must be, ARCHIVE_UNKNOWN: find out
 * @max_entries: Members at most, with directories
 * @max_bytes:	Of the plain form
 * @ret:	Written on success; ROOTFS: without a table
 * @err:	Filled on failure: IMAGE_INVALID, LIMIT, NO_MEMORY, SYSTEM
 *
 * Return: 0, or -1 with @err set and the file longer than it was
 */
int archive_index(int fd, enum layer_form form, enum archive_kind kind, uint64_t max_entries, uint64_t max_bytes,
		  struct archive_index_result *ret, struct sbx_err *err) SBX_WUR;

/* ---- the reader's side ---- */

struct archive_table {
	struct archive_member *members; /* owned; sorted by name */
	size_t n;
};

/**
 * archive_table_load() - Read a table back, believing nothing
 * @fd:		The file
 * @offset:	Where the table begins
 * @n:		Its rows
 * @ret:	archive_table_clear() it
 * @err:	Filled on failure: IMAGE_INVALID (names, order, pieces outside what is before the table), NO_MEMORY, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int archive_table_load(int fd, uint64_t offset, uint64_t n, struct archive_table *ret, struct sbx_err *err) SBX_WUR;
/** archive_table_clear() - Release what @table owns */
void archive_table_clear(struct archive_table *table);
/** archive_table_find() - The member @name of @table, or NULL */
const struct archive_member *archive_table_find(const struct archive_table *table, const char *name);
/** archive_table_blob() - The member of @table with the blob @digest, by name or by content; or NULL */
const struct archive_member *archive_table_blob(const struct archive_table *table, const uint8_t digest[DIGEST_BYTES]);

#endif
