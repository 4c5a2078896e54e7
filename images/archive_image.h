/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the image in an archive
 *
 * Reads the documents of an OCI layout (index.json) or of `docker save` (manifest.json), decides which image is meant, and gives
 * what image_pull_local() needs: the manifest, whose digest was compared or which was made here from what `docker save` says,
 * and where each blob is.  Attestations and what is no image are passed over; several images without a word which one are
 * refused with their names.
 */
#ifndef IMAGES_ARCHIVE_IMAGE_H
#define IMAGES_ARCHIVE_IMAGE_H

#include "base/err.h"
#include "images/archive_index.h"
#include "images/image_ref.h"
#include "images/manifest.h"

#include <stddef.h>
#include <stdint.h>

struct archive_image {
	int fd; /* borrowed */
	struct archive_table table; /* owned */
	char *manifest; /* owned; a manifest or an index */
	size_t n_manifest;
	char type[MANIFEST_TYPE_BYTES]; /* what the layout says that it is, or "" */
	char name[IMAGE_REF_TEXT_BYTES]; /* what the archive calls it, or "" */
};

/**
 * archive_image_choose() - Find the image in an archive
 * @fd:		The archive; borrowed as long as @ret lives
 * @table:	Its members; taken over, also on failure
 * @kind:	OCI or DOCKER
 * @ref:	Which of several: a name that the archive gives; NULL: there must be one
 * @ret:	archive_image_clear() it
 * @err:	Filled on failure: IMAGE_INVALID, INVALID_REQUEST (which one?), NO_MEMORY, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int archive_image_choose(int fd, struct archive_table *table, enum archive_kind kind, const char *ref, struct archive_image *ret,
			 struct sbx_err *err) SBX_WUR;
/** archive_image_clear() - Release what @image owns; zeroed is fine */
void archive_image_clear(struct archive_image *image);
/** archive_image_find() - find of struct image_pull_local, for the struct archive_image @arg */
int archive_image_find(void *arg, const uint8_t digest[DIGEST_BYTES], int *ret_fd, uint64_t *ret_offset, uint64_t *ret_size);

#endif
