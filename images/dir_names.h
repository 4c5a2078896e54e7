/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the names of a directory, sorted, and what stands below one of them, without following anything
 *
 * For walks of trees that others filled: each step is one name beneath the directory above it, so nothing in the tree leads out
 * of it, and the order does not depend on the file system.
 */
#ifndef IMAGES_DIR_NAMES_H
#define IMAGES_DIR_NAMES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIR_NAMES_MAX_BYTES (64u * 1024 * 1024) /* of one directory, or of one part of it */

struct dir_name {
	char *text;
	bool marked; /* the caller's */
};

/**
 * dir_names_read() - All names of a directory but "." and "..", sorted by their bytes
 * @fd:		The directory; stays the caller's, its offset too
 * @path:	For messages
 * @max:	Names at most
 * @ret:	dir_names_free() it
 * @ret_n:	How many
 * @err:	Filled on failure: LIMIT, NO_MEMORY, SYSTEM
 *
 * Return: 0, or -1 with @err set and @ret untouched
 */
int dir_names_read(int fd, const char *path, uint64_t max, struct dir_name **ret, size_t *ret_n, struct sbx_err *err) SBX_WUR;
struct dir_names_part {
	struct dir_name *names; /* dir_names_free() them */
	size_t n;
	bool more; /* there are names behind those */
};

/**
 * dir_names_part() - The first names of a directory, or the first behind one of them, sorted by their bytes
 * @fd:		The directory, which nobody changes; stays the caller's, its offset too
 * @path:	For messages
 * @after:	The last name of the part before; NULL: from the start
 * @max_bytes:	What a part may take, %DIR_NAMES_MAX_BYTES or less; one name is taken in any case
 * @ret:	The part
 * @err:	Filled on failure: NO_MEMORY, SYSTEM
 *
 * Each part reads the whole directory: for what has too many names for one.
 *
 * Return: 0, or -1 with @err set and @ret untouched
 */
int dir_names_part(int fd, const char *path, const char *after, size_t max_bytes, struct dir_names_part *ret, struct sbx_err *err) SBX_WUR;
/** dir_names_free() - Release @n names; NULL and 0 are fine */
void dir_names_free(struct dir_name *names, size_t n);
/** dir_names_compare() - Order of two struct dir_name, for qsort(3) and bsearch(3) */
int dir_names_compare(const void *a, const void *b);
/** dir_names_open() - Open @name in @dir_fd for reading, with more @flags; no link is followed, no FIFO waits; Return: descriptor, or -1 and errno */
int dir_names_open(int dir_fd, const char *name, int flags) SBX_WUR;

#endif
