/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one blob on its way into the store
 *
 * A blob_receive_main() child at one end, sandbox-fetch or a file of ours at the other, a pipe between them that sandboxd
 * never reads.  The child's word counts, since it hashed what it wrote; sandbox-fetch only says why something did not come.
 */
#ifndef IMAGES_PULL_TRANSFER_H
#define IMAGES_PULL_TRANSFER_H

#include "base/err.h"
#include "base/loop.h"
#include "base/reaper.h"
#include "images/blob_store.h"
#include "images/digest.h"

struct transfer;

struct transfer_config {
	struct loop *loop;
	struct reaper *reaper; /* of children that are ended; borrowed */
	const struct blob_store *blobs;
	const uint8_t *digest;
	uint64_t size;
	int file; /* holds the content; -1: it comes through a pipe */
	uint64_t file_offset; /* of the content in @file */
	void *arg;
	/* So many bytes are there: get what is behind them into @fd, which is closed after this.  Return: 0, or -1 with @err set */
	int (*wanted)(void *arg, uint64_t offset, int fd, struct sbx_err *err);
	void (*progress)(void *arg, uint64_t bytes);
	/* The child has ended; @resumed: it had begun with bytes of an earlier try */
	void (*ended)(void *arg, const struct sbx_err *err, bool resumed);
};

/** transfer_new() - Start the child; Return: the transfer (transfer_free() it), or NULL with @err set */
struct transfer *transfer_new(const struct transfer_config *config, struct sbx_err *err) SBX_WUR;
/** transfer_free() - Have the child ended if it lives, without waiting (what came is kept); allowed in callbacks; NULL is fine */
void transfer_free(struct transfer *t);

#endif
