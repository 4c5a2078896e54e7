// SPDX-License-Identifier: Apache-2.0
#include "images/digest.h"

#include "base/num.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct digest {
	EVP_MD_CTX *ctx; /* owned */
	char block[65536];
};

struct digest *digest_new(struct sbx_err *err)
{
	struct digest *d = calloc(1, sizeof(*d));

	if (d)
		d->ctx = EVP_MD_CTX_new();
	if (!d || !d->ctx || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1) {
		digest_free(d);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "start a digest");
		return NULL;
	}
	return d;
}

int digest_restart(struct digest *d, struct sbx_err *err)
{
	if (EVP_DigestInit_ex(d->ctx, NULL, NULL) != 1) /* the same function as before */
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "start a digest anew");
	return 0;
}

void digest_free(struct digest *d)
{
	if (!d)
		return;
	EVP_MD_CTX_free(d->ctx);
	free(d);
}

int digest_update(struct digest *d, const void *data, size_t n, struct sbx_err *err)
{
	if (EVP_DigestUpdate(d->ctx, data, n) != 1)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "digest of %zu bytes failed", n);
	return 0;
}

int digest_finish(struct digest *d, uint8_t out[DIGEST_BYTES], struct sbx_err *err)
{
	unsigned int n = 0;

	if (EVP_DigestFinal_ex(d->ctx, out, &n) != 1 || n != DIGEST_BYTES)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "end of a digest failed");
	return 0;
}

static void cleanup_digest(struct digest *const *d)
{
	digest_free(*d);
}

int digest_bytes(const void *data, size_t n, uint8_t out[DIGEST_BYTES], struct sbx_err *err)
{
	__attribute__((cleanup(cleanup_digest))) struct digest *d = digest_new(err);

	if (!d || digest_update(d, data, n, err) < 0)
		return -1;
	return digest_finish(d, out, err);
}

int digest_hmac(const void *key, size_t key_n, const void *data, size_t n, uint8_t out[DIGEST_BYTES], struct sbx_err *err)
{
	unsigned int size = 0;

	if (key_n > INT_MAX || !HMAC(EVP_sha256(), key, (int)key_n, data, n, out, &size) || size != DIGEST_BYTES)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "HMAC of %zu bytes failed", n);
	return 0;
}

ssize_t digest_step(struct digest *d, int fd, size_t max, struct sbx_err *err)
{
	size_t done = 0;

	while (done < max) {
		size_t want = max - done < sizeof(d->block) ? max - done : sizeof(d->block);
		ssize_t n = read(fd, d->block, want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "read a blob");
		if (n == 0)
			break;
		if (digest_update(d, d->block, (size_t)n, err) < 0)
			return -1;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int digest_chain(const uint8_t *below, const uint8_t blob[DIGEST_BYTES], uint8_t ret_key[DIGEST_BYTES], struct sbx_err *err)
{
	uint8_t both[2 * DIGEST_BYTES];
	size_t n = 0;

	if (below) {
		memcpy(both, below, DIGEST_BYTES);
		n = DIGEST_BYTES;
	}
	memcpy(both + n, blob, DIGEST_BYTES);
	return digest_bytes(both, n + DIGEST_BYTES, ret_key, err);
}

void digest_format(const uint8_t digest[DIGEST_BYTES], char out[DIGEST_TEXT_SIZE])
{
	memcpy(out, "sha256:", 7);
	hex_encode(digest, DIGEST_BYTES, out + 7);
}

int digest_parse(const char *text, size_t n, uint8_t ret[DIGEST_BYTES])
{
	char hex[2 * DIGEST_BYTES + 1];

	if (n != 7 + 2 * DIGEST_BYTES || memcmp(text, "sha256:", 7) != 0)
		return -EINVAL;
	/* lower case only: one digest has one spelling */
	for (size_t i = 7; i < n; i++)
		if (text[i] >= 'A' && text[i] <= 'F')
			return -EINVAL;
	memcpy(hex, text + 7, 2 * DIGEST_BYTES);
	hex[2 * DIGEST_BYTES] = '\0';
	return hex_decode(hex, ret, DIGEST_BYTES);
}
