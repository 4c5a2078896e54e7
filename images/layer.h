/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: applies one layer blob (tar, plain or compressed) to a directory
 *
 * It runs in sandbox-unpack alone.  What is written goes through tree_writer.h, which decides what a name may do.  Device nodes are skipped below dev/ (a sandbox
 * has its own /dev; root file systems made by debootstrap carry a dozen) and refused elsewhere, but for overlay whiteouts.
 * OCI's ".wh.NAME" becomes a whiteout, and ".wh..wh..opq" hides what the lower layers have (tree_writer.h); other names that
 * start with ".wh..wh." are notes that AUFS left for itself, and are skipped.
 */
#ifndef IMAGES_LAYER_H
#define IMAGES_LAYER_H

#include "base/err.h"
#include "images/digest.h"
#include "images/layer_form.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A blob that grows more than this, once beyond the floor, is a bomb: gzip cannot pass 1032, real layers stay below 20. */
#define LAYER_MAX_RATIO	      2000u
#define LAYER_RATIO_FROM_BYTES (256ull * 1024 * 1024)

/* What the unpacked tar, every byte of it, must hash to. */
struct layer_diff_id {
	bool wanted; /* false: it is not looked at */
	struct digest *digest; /* running, new; the caller's */
	uint8_t is[DIGEST_BYTES];
};

struct layer_counts {
	uint64_t entries;
	uint64_t bytes;
};

/** layer_form_parse() - "tar", "gzip" or "zstd"; Return: the form, LAYER_FORM_NONE for anything else */
enum layer_form layer_form_parse(const char *text);

struct layer_unpack {
	int blob_fd; /* read from its current offset to its end */
	enum layer_form form; /* how it is packed; nothing is guessed */
	int root_fd; /* the empty directory; nobody else writes to it */
	uint64_t max_entries, max_bytes; /* entries, and bytes of content */
	const int *lower_fds; /* borrowed; directories of the layers below, lowest first */
	size_t n_lower;
	int ready_fd; /* a byte comes from it when they are complete; they are not looked into before; -1: they are */
	const struct layer_diff_id *diff_id; /* borrowed; what the unpacked bytes must hash to */
	int seal_fd; /* empty regular file, opened for writing, for the seal of the layer (tree_seal.h); -1: none is made */
};

/**
 * layer_apply() - Unpack a blob into an empty directory
 * @what:	The blob, the directory and the bounds
 * @ret:	What was written; set on failure too
 * @err:	Filled on failure: IMAGE_INVALID, LIMIT, NO_MEMORY, SYSTEM
 *
 * After a failure the directory holds a part and has to be thrown away.  The umask of the process must be 0.
 *
 * Return: 0, or -1 with @err set
 */
int layer_apply(const struct layer_unpack *what, struct layer_counts *ret, struct sbx_err *err) SBX_WUR;

#endif
