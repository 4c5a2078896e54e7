/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what sandbox-unpack says to the one who started it
 *
 * sandbox-unpack --form tar|gzip|zstd --max-bytes N --max-entries N [--lower N] [--diff-id HEX] [--wait] [--seal]
 *	stdin: the blob; fd 3: the empty directory that becomes the layer; fd 4: write end of a pipe for the result; with
 *	--lower N also fd 5 to fd 4+N: the N layers below it, lowest first, read-only (what an opaque directory has to hide), and with
 *	--wait fd 5+N: a pipe; they are complete, and looked into, when a byte comes from it; with --seal
 *	behind all these an empty file, open for writing: the seal of the layer (tree_seal.h)
 * sandbox-unpack --host-skeleton
 *	fd 3, fd 4 as above; reads the host's world-readable files of the `host` image's list
 * sandbox-unpack --capture tar|gzip|zstd --max-bytes N --max-entries N [--views] [--skip PATH]...
 *	the other way round: fd 3 a tree, read-only; stdin: a file open for writing, which becomes the layer; fd 4 as above, but
 *	a struct capture_result; with --views fd 5 the layers below as one view, fd 6 the tree upon them (layer_capture.h)
 * sandbox-unpack --index tar|gzip|zstd --max-bytes N --max-entries N [--kind oci|docker]
 *	stdin: an archive, open for reading and writing; behind its end come its plain form, when it is packed, and a table of
 *	its members (archive_index.h); fd 4 as above, but a struct capture_result
 *
 * sandbox-unpack --verify --max-entries N
 *	stdin: the seal of a layer, fd 3 its tree, both read-only; fd 4 as above, but a struct capture_result whose text is the first
 *	difference
 *
 * It runs as root of a user namespace that maps 0..65535 (--verify: 65534 and 65535 to SEAL_NOBODY_SHOWN and up), with no network.  It writes exactly one struct of its kind
 * (less than PIPE_BUF bytes, so whole or not at all) and exits 0 when status is 0, else 1.  The reader treats it as
 * hostile: magic, status range and the NUL of text are checked; a pipe closed without a struct means that it was killed.
 */
#ifndef IMAGES_UNPACK_RESULT_H
#define IMAGES_UNPACK_RESULT_H

#include <stdint.h>

#define UNPACK_RESULT_MAGIC 0x314b5055u /* "UPK1" */
#define UNPACK_TEXT_BYTES   200u

/*
 * Who compares (--verify) has a user namespace that maps all ids of layers, but 65534 and 65535 to others: the kernel shows 65534 for
 * what it does not map, and so the nobody of an image can be told from somebody of the host.
 */
#define SEAL_NOBODY	  65534u
#define SEAL_NOBODY_SHOWN 100000u

#define UNPACK_TARGET_FD 3
#define UNPACK_RESULT_FD 4
#define UNPACK_LOWER_FD	 5 /* the first of them */
#define UNPACK_MAX_LOWER 126u

struct unpack_result {
	uint32_t magic;
	int32_t status;	  /* 0, or an enum sbx_err_code: IMAGE_INVALID (the blob), LIMIT, NO_MEMORY, SYSTEM */
	uint64_t entries; /* written */
	uint64_t bytes;	  /* of file content */
	char text[UNPACK_TEXT_BYTES]; /* printable ASCII, NUL-terminated; names the entry; "" when status is 0 */
};

/* Said by a process that came to its end: one that was killed has said nothing about the layer. */
enum seal_verdict { SEAL_UNKNOWN = 0, SEAL_SAME, SEAL_ALTERED };

#define CAPTURE_RESULT_MAGIC 0x31504143u /* "CAP1" */

struct capture_result {
	uint32_t magic;
	int32_t status; /* as above */
	uint64_t entries; /* --index: rows of the table; --verify: names of the tree that were looked at */
	uint64_t bytes;	  /* --index: where the table begins; --verify: that were read */
	uint64_t packed_bytes;
	uint32_t kind; /* --index: enum archive_kind; --verify: enum seal_verdict */
	uint32_t zero;
	uint8_t digest[32];
	uint8_t diff_id[32];
	char text[UNPACK_TEXT_BYTES];
};

#endif
