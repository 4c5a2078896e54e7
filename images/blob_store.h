/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the store of blobs, named by what they hold
 *
 *	<sandboxd state>/blobs/sha256/<64 hex digits>	complete, synced, verified; never changed
 *	<sandboxd state>/blobs/partial/<64 hex digits>	begun: a prefix of the blob, or garbage; one writer at a time (flock)
 *
 * Manifests, configurations and packed layers lie here.  A blob gets its name by one rename, after all its bytes were taken
 * into the digest by the process that wrote them and the file was synced, so a name that is there is true whatever was
 * killed when.  Writing, hashing and syncing happen in a child (blob_receive_main()), never in a loop.  What a partial file
 * holds is hashed again before it is continued.
 *
 * Only sandboxd and its own children write here; they all run as its uid.
 */
#ifndef IMAGES_BLOB_STORE_H
#define IMAGES_BLOB_STORE_H

#include "base/err.h"
#include "images/digest.h"

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

struct blob_store;

/** blob_store_open() - Open the store below @state_dir_fd, making its folders; Return: it, or NULL with @err set */
struct blob_store *blob_store_open(int state_dir_fd, struct sbx_err *err) SBX_WUR;
/** blob_store_close() - Release @store; NULL is fine */
void blob_store_close(struct blob_store *store);
/** blob_store_dir() - Descriptor of the folder "blobs", for a child that receives; stays the store's */
int blob_store_dir(const struct blob_store *store);

/** blob_store_size() - Size of the complete blob @digest into @ret (may be NULL); Return: 0, -ENOENT or another -errno */
int blob_store_size(const struct blob_store *store, const uint8_t digest[DIGEST_BYTES], uint64_t *ret);
/** blob_store_get() - Open the complete blob @digest read-only; Return: descriptor, -ENOENT or another -errno */
int blob_store_get(const struct blob_store *store, const uint8_t digest[DIGEST_BYTES]);
/**
 * blob_store_read() - Read a small complete blob
 * @store:	The store
 * @digest:	Which
 * @max:	Bytes at most
 * @ret_data:	Owned by the caller; NUL-terminated behind the last byte
 * @ret_len:	Bytes
 * @err:	Filled on failure: SYSTEM (ENOENT: not there), LIMIT, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int blob_store_read(const struct blob_store *store, const uint8_t digest[DIGEST_BYTES], size_t max, char **ret_data,
		    size_t *ret_len, struct sbx_err *err) SBX_WUR;
/** blob_store_remove() - Remove the complete blob @digest; Return: 0, -ENOENT or another -errno */
int blob_store_remove(struct blob_store *store, const uint8_t digest[DIGEST_BYTES]);
/** blob_store_forget() - Remove what there is of the blob @digest, complete or begun; what a child holds open goes with the child */
void blob_store_forget(struct blob_store *store, const uint8_t digest[DIGEST_BYTES]);
/**
 * blob_store_each() - Walk the complete blobs in no order
 * @store:	The store
 * @each:	Called for each; may remove it
 * @arg:	Handed to @each
 *
 * Return: 0 or -errno
 */
int blob_store_each(const struct blob_store *store,
		    void (*each)(void *arg, const uint8_t digest[DIGEST_BYTES], uint64_t bytes, int64_t used_wall_s), void *arg);
/** blob_store_partial_bytes() - What begun blobs take, into @ret; Return: 0 or -errno */
int blob_store_partial_bytes(const struct blob_store *store, uint64_t *ret);
/**
 * blob_store_sweep_partial() - Remove what was begun and not continued
 * @store:	The store
 * @older_than_s: Seconds since the last write; what a child holds is never taken
 * @dry_run:	Only count what would be removed
 * @ret_bytes:	Bytes that were freed; may be NULL
 *
 * Return: files removed, or -errno
 */
int blob_store_sweep_partial(struct blob_store *store, int64_t older_than_s, bool dry_run, uint64_t *ret_bytes);

/* ---- the child that receives one blob ---- */

#define BLOB_RECEIVE_ARGUMENT "--receive-blob"
#define BLOB_FD_DIR	      3 /* blob_store_dir() */
#define BLOB_FD_REPORT	      4 /* pipe for struct blob_report */
#define BLOB_REPORT_MAGIC     0x31424c42u

enum blob_report_kind {
	BLOB_REPORT_HAVE = 1, /* so many bytes are there already: send what is behind them, or close the pipe at once */
	BLOB_REPORT_PROGRESS,
	BLOB_REPORT_END, /* the last one; status says how */
};

struct blob_report {
	uint32_t magic;
	uint32_t kind;	/* enum blob_report_kind */
	uint32_t status; /* END: enum sbx_err_code.  PEER_GONE: fewer bytes came, they are kept */
	uint32_t sys;
	uint64_t bytes; /* of the blob, so far */
	char text[160];
};

/**
 * blob_receive_main() - Be the child: descriptor 0, a pipe or a file, gives the bytes
 * @argc:	2 or 3
 * @argv:	Digest ("sha256:..."), exact size; where in the file it begins (0)
 *
 * Return: exit code; 0 when the blob is in the store
 */
int blob_receive_main(int argc, char **argv);

/* ---- the child that verifies all of them ---- */

#define BLOB_VERIFY_ARGUMENT "--verify-blobs"
#define BLOB_VERDICT_MAGIC   0x31565642u

enum blob_verdict_kind {
	BLOB_VERDICT_GOOD = 1,
	BLOB_VERDICT_WRONG,	 /* it has another digest than its name says */
	BLOB_VERDICT_UNREADABLE,
	BLOB_VERDICT_STRAY,	 /* no name of a blob, or no file */
	BLOB_VERDICT_END,	 /* the last one: all were looked at */
};

/* One each, on BLOB_FD_REPORT. */
struct blob_verdict {
	uint32_t magic;
	uint32_t kind; /* enum blob_verdict_kind */
	uint8_t digest[DIGEST_BYTES]; /* by its name; STRAY: zero, or what it would be */
	uint64_t bytes;
	char name[256];
};

/** blob_verify_main() - Be the child: hash each blob below BLOB_FD_DIR; Return: exit code; 0 when END was told */
int blob_verify_main(void);
/** blob_store_remove_stray() - Remove @name from the complete blobs, whatever it is; Return: 0 or -errno */
int blob_store_remove_stray(struct blob_store *store, const char *name);

#endif
