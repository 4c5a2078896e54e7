/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: an OCI layout as one tar stream
 *
 * Made by a child of sandboxd (re-executed, sandboxd's own uid) from a plan: rows of {name, where the bytes are, digest}.  It hashes
 * what it copies and stops without the end of the archive at the first byte too many, too few or wrong, so that no reader takes a
 * broken layout for a whole one.  It also ends (by SIGALRM) when the
 * reader takes nothing for as long as its argument says.  The rows' order and fixed heads make the same image the same bytes.
 */
#ifndef IMAGES_EXPORT_STREAM_H
#define IMAGES_EXPORT_STREAM_H

#include "base/buf.h"
#include "images/digest.h"

#include <stddef.h>
#include <stdint.h>

#define EXPORT_STREAM_ARGUMENT "--export-image"
#define EXPORT_FD_BLOBS	       3 /* blob_store_dir() */
#define EXPORT_FD_SPOOL	       4 /* captured layers; /dev/null when there are none */
#define EXPORT_PLAN_MAGIC      0x31505845u /* "EXP1" */
#define EXPORT_ROWS_MAX	       160u /* 127 layers and five documents */

enum export_source {
	EXPORT_DIRECTORY = 0,
	EXPORT_PLAN,  /* the bytes stand in the plan itself, from offset */
	EXPORT_BLOB,  /* a complete blob of the store, by digest */
	EXPORT_SPOOL, /* in the spool, from offset */
};

struct export_row {
	char name[96];
	uint64_t offset, size;
	uint32_t source; /* enum export_source */
	uint32_t zero;
	uint8_t digest[DIGEST_BYTES];
};

struct export_plan_head {
	uint32_t magic;
	uint32_t n;
};

/** export_row_bytes() - Bytes that @row takes in the stream */
uint64_t export_row_bytes(const struct export_row *row);
/** export_stream_bytes() - Bytes of the stream of @n @rows */
uint64_t export_stream_bytes(const struct export_row *rows, size_t n);
/**
 * export_stream_main() - Be the child: the plan is descriptor 0, the stream goes to descriptor 1
 * @stall_seconds: So long may the reader take for one piece of 256 KiB; a decimal number
 *
 * Return: exit code; 0 when the whole stream was written
 */
int export_stream_main(const char *stall_seconds);

#endif
