/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a directory tree becomes one OCI layer
 *
 * The one way from files on disk to a layer's tar, for export (a layer of the store) and for commit (the upper of a sandbox).
 * It runs in sandbox-unpack alone ("--capture", unpack_result.h), in a user namespace that maps the tree's id base to 0, so
 * what it reads and writes are container ids.  The tree is hostile: every name is reached by openat2 beneath the tree without
 * following links, and what is not a file, directory, link, FIFO or whiteout is left out (sockets) or refused (devices).
 *
 * The same tree gives the same bytes: names are sorted, no times of access or change, no names of users, hard links point at the
 * first name of their file, the packers are told to write no time.
 *
 * Whiteouts (character device 0/0) become ".wh.NAME".  Nobody in a user namespace can read trusted.overlay.opaque, so an
 * upper's opaque directories are found by comparing views: a name that @below_fd has in a directory of the tree and that @merged_fd
 * has not is hidden, and gets a ".wh.NAME" of its own.  Layers of the store have no opaque directories (layer.h).
 */
#ifndef IMAGES_LAYER_CAPTURE_H
#define IMAGES_LAYER_CAPTURE_H

#include "base/err.h"
#include "images/digest.h"
#include "images/layer_form.h"

#include <stddef.h>
#include <stdint.h>

#define LAYER_CAPTURE_SKIP_MAX 32u

struct layer_capture {
	int tree_fd;   /* the directory */
	int below_fd;  /* what lies below it as one view, or -1: nothing does, or nothing is opaque */
	int merged_fd; /* the tree upon that, as the kernel merges it; -1 with below_fd -1 */
	int out_fd;    /* the packed layer is written here, from its current offset */
	enum layer_form form;
	uint64_t max_entries;
	uint64_t max_bytes; /* of content, and of one file */
	const char *const *skip; /* relative paths that are left out, with all below them */
	size_t n_skip;
};

struct layer_captured {
	uint64_t entries, bytes; /* of the tree */
	uint64_t packed_bytes;
	uint8_t digest[DIGEST_BYTES];  /* of the packed bytes */
	uint8_t diff_id[DIGEST_BYTES]; /* of the tar */
};

/**
 * layer_capture() - Write a tree as a layer
 * @what:	The tree, where to, bounds
 * @ret:	Written on success
 * @err:	Filled on failure: IMAGE_INVALID (the tree holds what a layer cannot), LIMIT, NO_MEMORY, SYSTEM
 *
 * A file that changes its size meanwhile is cut or filled up with zeros: whoever wants one moment freezes the sandbox.
 *
 * Return: 0, or -1 with @err set and a part written
 */
int layer_capture(const struct layer_capture *what, struct layer_captured *ret, struct sbx_err *err) SBX_WUR;

#endif
