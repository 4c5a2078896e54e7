/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the kept output of commands
 *
 * One sparse file for all commands of a sandbox.  A command that printed more than SPOOL_HEAD bytes gets a region of
 * LIMIT_SPOOL_BYTES in it, used as a ring; less stays in memory, so that `true` and `echo` touch no file.  Offsets count
 * every byte ever printed.  What the ring (or a full disk) has dropped is gone; readers are told from where the rest starts.
 */
#ifndef RUNTIME_AGENT_AGENT_SPOOL_H
#define RUNTIME_AGENT_AGENT_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SPOOL_HEAD	1024u
#define SPOOL_NO_REGION UINT32_MAX
#define SPOOL_REGIONS	64u /* commands of one sandbox that can hold more than SPOOL_HEAD: 4 GiB at most on its disk */

struct spool {
	uint64_t total; /* bytes ever appended */
	uint64_t start; /* first offset that is still kept */
	uint8_t *head;	/* owned; SPOOL_HEAD bytes while region is SPOOL_NO_REGION */
	uint32_t region;
};

/** spool_init() - An empty spool */
void spool_init(struct spool *s);

/** spool_append() - Keep @n bytes; @file_fd: the spool file.  What cannot be written is dropped and counts as lost */
void spool_append(struct spool *s, int file_fd, const uint8_t *data, size_t n);

/**
 * spool_read() - Read up to @n bytes from @offset, or from the oldest kept byte behind it
 * @ret_offset:	Set to the offset of the first byte read
 *
 * Return: bytes, 0 at the end, or a negative errno
 */
ssize_t spool_read(const struct spool *s, int file_fd, uint64_t offset, uint8_t *out, size_t n, uint64_t *ret_offset);

/** spool_wants_region() - Whether appending @n bytes needs a region while none is free */
bool spool_wants_region(const struct spool *s, size_t n);

/** spool_forget() - Drop what is kept and give the region back; offsets go on */
void spool_forget(struct spool *s, int file_fd);

/** spool_drop() - Forget everything, give its disk space and its region back */
void spool_drop(struct spool *s, int file_fd);

#endif
