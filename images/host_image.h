/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the lowest layer of the embedded `host` image
 *
 * The host's /usr is bound read-only by the broker; everything else that a program expects around it is made here: the
 * links of a merged /usr, an /etc copied from one list, and empty folders.  Only files that anybody on the host may read
 * are copied, checked by mode bits on every file and folder on the way, not only by the identity that runs this.
 */
#ifndef IMAGES_HOST_IMAGE_H
#define IMAGES_HOST_IMAGE_H

#include "base/err.h"
#include "images/layer.h"

/* The list of /etc copies some 1,500 entries and 2 MiB on Debian 12 with Java. */
#define HOST_IMAGE_MAX_ENTRIES 20000u
#define HOST_IMAGE_MAX_BYTES   (64ull * 1024 * 1024)

/**
 * host_image_build() - Write the skeleton into an empty directory
 * @host_root_fd: Root of the host's files, read only
 * @root_fd:	The directory; nobody else writes to it
 * @ret:	What was written; set on failure too
 * @err:	Filled on failure: HOST_LACKS (no merged /usr), LIMIT, NO_MEMORY, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int host_image_build(int host_root_fd, int root_fd, struct layer_counts *ret, struct sbx_err *err) SBX_WUR;

#endif
