/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: SHA-256 over raw bytes
 *
 * The only user of OpenSSL's EVP.  A blob's digest is taken over the bytes as they were received, before anything parses
 * them, so what a layer is called never depends on an unpacker.  A layer's key is the chain over blob digests: the key of
 * the first is SHA-256 of its digest, each later one SHA-256 of (key below, own digest).
 */
#ifndef IMAGES_DIGEST_H
#define IMAGES_DIGEST_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DIGEST_BYTES	 32
#define DIGEST_TEXT_SIZE 72 /* "sha256:" + 64 digits + NUL */

struct digest;

/** digest_new() - Start a digest; Return: it (digest_free() it) or NULL with @err set */
struct digest *digest_new(struct sbx_err *err) SBX_WUR;
/** digest_update() - Take @n more bytes of @data into @d; Return: 0, or -1 with @err set */
int digest_update(struct digest *d, const void *data, size_t n, struct sbx_err *err) SBX_WUR;
/** digest_finish() - End @d and write its value to @out; @d may only be freed or restarted after; Return: 0, or -1 with @err set */
int digest_finish(struct digest *d, uint8_t out[DIGEST_BYTES], struct sbx_err *err) SBX_WUR;
/** digest_restart() - Forget what @d was given, or ended with: as after digest_new(), but cheaper; Return: 0, or -1 with @err set */
int digest_restart(struct digest *d, struct sbx_err *err) SBX_WUR;
/** digest_free() - Release @d; NULL is fine */
void digest_free(struct digest *d);

/** digest_hmac() - HMAC-SHA256 (RFC 2104) of @n bytes of @data under @key of @key_n bytes, into @out; Return: 0, or -1 with @err set */
int digest_hmac(const void *key, size_t key_n, const void *data, size_t n, uint8_t out[DIGEST_BYTES], struct sbx_err *err) SBX_WUR;

/** digest_bytes() - Digest of @n bytes of @data in one call; Return: 0, or -1 with @err set */
int digest_bytes(const void *data, size_t n, uint8_t out[DIGEST_BYTES], struct sbx_err *err) SBX_WUR;

/**
 * digest_step() - Take at most @max bytes of a file into a digest, so that an event loop can stay responsive
 * @d:		Running digest
 * @fd:		Regular file; read from its current offset
 * @max:	Bytes at most in this call; 1 MiB takes about 0.6 ms with SHA instructions, 3 ms without
 * @err:	Filled on failure: SYSTEM
 *
 * Return: bytes taken (0: end of the file), or -1 with @err set
 */
ssize_t digest_step(struct digest *d, int fd, size_t max, struct sbx_err *err) SBX_WUR;

/** digest_chain() - Key of a layer over @below (NULL: lowest) with blob digest @blob, into @ret_key; Return: 0 or -1 */
int digest_chain(const uint8_t *below, const uint8_t blob[DIGEST_BYTES], uint8_t ret_key[DIGEST_BYTES],
		 struct sbx_err *err) SBX_WUR;

/** digest_format() - Write "sha256:<hex>" into @out */
void digest_format(const uint8_t digest[DIGEST_BYTES], char out[DIGEST_TEXT_SIZE]);
/** digest_parse() - Read "sha256:<64 hex digits>" and nothing else; Return: 0 or -EINVAL */
int digest_parse(const char *text, size_t n, uint8_t ret[DIGEST_BYTES]);

#endif
