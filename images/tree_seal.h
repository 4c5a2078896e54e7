/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the seal of a layer: what its tree was when it was published
 *
 * A file of one record for each name, in the order of a walk (struct seal_record, then the path without a NUL): kind, mode, owner,
 * time, size, digest of the content, digest of the attributes, number of names and which of them is the same file.  Behind them a
 * struct seal_tail with the digest of all before it.  It is made by the process that unpacked the layer, from the bytes that it
 * wrote; it is compared by one of the same kind, which can change nothing.  Trees and seals are hostile in both.
 *
 * Attributes that an unprivileged user namespace cannot see (trusted.*) and those of the host's security modules are not in it.
 */
#ifndef IMAGES_TREE_SEAL_H
#define IMAGES_TREE_SEAL_H

#include "base/err.h"
#include "images/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEAL_MAGIC	  "SBXSEAL1"
#define SEAL_TAIL	  UINT32_MAX /* path_n of a tail */
#define SEAL_TEXT_BYTES	  200u
#define SEAL_RECORD_BYTES 4352u /* of the longest name, for limits */

struct seal_record {
	uint32_t path_n; /* bytes of the path behind it; 0: the root */
	uint32_t mode;	 /* with the kind */
	uint32_t uid, gid;
	uint64_t size; /* of a file; of a device its number; else 0 */
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint32_t n_names; /* of what is no directory */
	uint32_t same_as; /* number of the first record of this file, counted from 1; 0: this is it */
	uint32_t zero;
	uint8_t content[DIGEST_BYTES]; /* a file's (seal_content.h), or of the text of a link; zero where same_as is not */
	uint8_t xattrs[DIGEST_BYTES];  /* zero: none */
};

struct seal_tail {
	uint32_t path_n; /* SEAL_TAIL */
	uint32_t zero;
	uint8_t digest[DIGEST_BYTES]; /* of all that stands before it */
};

struct seal_list;

struct seal_counts {
	uint64_t entries; /* names */
	uint64_t bytes;	  /* of content that was read */
};

/**
 * tree_seal_write() - Write the seal of a tree that nobody changes any more
 * @root_fd:	The tree
 * @list:	What is known of its files, from the bytes that were written; NULL: all are read
 * @max_entries: Names at most
 * @out_fd:	Empty regular file, opened for writing
 * @err:	Filled on failure: LIMIT, NO_MEMORY, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int tree_seal_write(int root_fd, const struct seal_list *list, uint64_t max_entries, int out_fd, struct sbx_err *err) SBX_WUR;

/**
 * tree_seal_compare() - Whether a tree is what its seal says
 * @root_fd:	The tree, read-only
 * @seal_fd:	Regular file, opened for reading
 * @max_entries: Names at most
 * @nobody_moved: The process has a user namespace as described at SEAL_NOBODY_SHOWN (unpack_result.h)
 * @ret:	What was looked at
 * @difference:	The first difference, with its path; "" when there is none
 * @err:	Filled on failure: IMAGE_INVALID (the seal itself is damaged), LIMIT, NO_MEMORY, SYSTEM; then nothing is known of the tree
 *
 * Return: 0, whether they differ or not; or -1 with @err set
 */
int tree_seal_compare(int root_fd, int seal_fd, uint64_t max_entries, bool nobody_moved, struct seal_counts *ret,
		      char difference[SEAL_TEXT_BYTES], struct sbx_err *err) SBX_WUR;

#endif
