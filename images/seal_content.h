/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: digests of files, the same whether their bytes are seen while they are written or read later
 *
 * The digest of a content is SHA-256 over its blocks of 64 KiB that are not all zeros, each behind its number: holes and written
 * zeros are the same, and a large file that is mostly a hole costs little.  The size is not in it; who compares has it.
 *
 * A list of them by inode belongs to one tree that is being written.  What is not in the list, because it is full, has to be read.
 */
#ifndef IMAGES_SEAL_CONTENT_H
#define IMAGES_SEAL_CONTENT_H

#include "base/err.h"
#include "images/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- one content ---- */

struct seal_content;

/** seal_content_new() - Make one, for many files one after the other; Return: it (seal_content_free() it), or NULL with @err set */
struct seal_content *seal_content_new(struct sbx_err *err) SBX_WUR;
/** seal_content_free() - Release @c; NULL is fine */
void seal_content_free(struct seal_content *c);
/** seal_content_begin() - Begin a file, whatever came before; Return: 0, or -1 with @err set */
int seal_content_begin(struct seal_content *c, struct sbx_err *err) SBX_WUR;
/** seal_content_add() - @n bytes of @data stand at @offset, which never goes back; what is left out is zeros; Return: 0, or -1 with @err set */
int seal_content_add(struct seal_content *c, uint64_t offset, const void *data, size_t n, struct sbx_err *err) SBX_WUR;
/** seal_content_end() - End the file, which has @size bytes, and write its digest to @out; Return: 0, or -1 with @err set */
int seal_content_end(struct seal_content *c, uint64_t size, uint8_t out[DIGEST_BYTES], struct sbx_err *err) SBX_WUR;
/**
 * seal_content_read() - The digest of a file that is there
 * @c:		Used for it
 * @fd:		Regular file opened for reading; its offset changes
 * @size:	Its size
 * @out:	The digest
 * @ret_bytes:	Bytes that were read are added; holes are not
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int seal_content_read(struct seal_content *c, int fd, uint64_t size, uint8_t out[DIGEST_BYTES], uint64_t *ret_bytes, struct sbx_err *err) SBX_WUR;

/* ---- many, by inode ---- */

struct seal_list;

struct seal_known {
	uint64_t inode; /* 0: a free place */
	uint8_t digest[DIGEST_BYTES];
	bool plain; /* the file has no extended attributes at all */
};

/** seal_list_new() - Make an empty list; Return: it (seal_list_free() it), or NULL with @err set */
struct seal_list *seal_list_new(struct sbx_err *err) SBX_WUR;
/** seal_list_free() - Release @list; NULL is fine */
void seal_list_free(struct seal_list *list);
/** seal_list_put() - Remember @known, instead of what its inode number stood for before; a full list takes no new ones */
void seal_list_put(struct seal_list *list, const struct seal_known *known);
/** seal_list_find() - What is known of @inode; NULL: nothing; valid until the next seal_list_put() */
const struct seal_known *seal_list_find(const struct seal_list *list, uint64_t inode);

#endif
