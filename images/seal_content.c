// SPDX-License-Identifier: Apache-2.0
#include "images/seal_content.h"

#include "base/cleanup.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES    (64u * 1024)
#define LIST_FIRST     1024u	     /* places; a power of two, as all sizes of it */
#define LIST_MAX       (2u * 1024 * 1024) /* places: 88 MiB, for a million files */
#define NO_BLOCK       UINT64_MAX

struct seal_content {
	struct digest *digest; /* owned */
	uint64_t block; /* number of the one in data; NO_BLOCK: none */
	size_t used;	/* bytes of it that were given or are zeros before those */
	uint8_t data[BLOCK_BYTES];
};

struct seal_list {
	struct seal_known *place; /* owned */
	size_t n, size;
};

/* ---- one content ---- */

struct seal_content *seal_content_new(struct sbx_err *err)
{
	struct seal_content *c = calloc(1, sizeof(*c));

	if (!c) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "digest of a file");
		return NULL;
	}
	c->block = NO_BLOCK;
	c->digest = digest_new(err);
	if (c->digest)
		return c;
	free(c);
	return NULL;
}

void seal_content_free(struct seal_content *c)
{
	if (!c)
		return;
	digest_free(c->digest);
	free(c);
}

int seal_content_begin(struct seal_content *c, struct sbx_err *err)
{
	c->block = NO_BLOCK;
	c->used = 0;
	return digest_restart(c->digest, err);
}

static int take_block(struct seal_content *c, uint64_t number, const uint8_t *data, size_t n, struct sbx_err *err)
{
	uint64_t head = htole64(number);

	/* all zeros: the first is, and each is like the one before it */
	if (!n || (!data[0] && !memcmp(data, data + 1, n - 1)))
		return 0;
	return digest_update(c->digest, &head, sizeof(head), err) < 0 ? -1 : digest_update(c->digest, data, n, err);
}

/* The block in hand is @n bytes long: what was not given of it is zeros. */
static int end_block(struct seal_content *c, size_t n, struct sbx_err *err)
{
	uint64_t number = c->block;

	if (number == NO_BLOCK)
		return 0;
	if (n > c->used)
		memset(c->data + c->used, 0, n - c->used);
	c->block = NO_BLOCK;
	c->used = 0;
	return take_block(c, number, c->data, n, err);
}

int seal_content_add(struct seal_content *c, uint64_t offset, const void *data, size_t n, struct sbx_err *err)
{
	const uint8_t *from = data;

	while (n > 0) {
		uint64_t number = offset / BLOCK_BYTES;
		size_t at = (size_t)(offset % BLOCK_BYTES), part = BLOCK_BYTES - at;

		if (part > n)
			part = n;
		if (number != c->block && end_block(c, BLOCK_BYTES, err) < 0)
			return -1;
		if (at < c->used)
			return sbx_err_set(err, SBX_E_SYSTEM, EINVAL, "digest of a file: content goes backwards");
		if (part == BLOCK_BYTES) {
			if (take_block(c, number, from, part, err) < 0)
				return -1;
		} else {
			c->block = number;
			memset(c->data + c->used, 0, at - c->used);
			memcpy(c->data + at, from, part);
			c->used = at + part;
		}
		from += part;
		offset += part;
		n -= part;
	}
	return 0;
}

int seal_content_end(struct seal_content *c, uint64_t size, uint8_t out[DIGEST_BYTES], struct sbx_err *err)
{
	uint64_t left = c->block == NO_BLOCK ? 0 : size - c->block * BLOCK_BYTES;

	if (end_block(c, left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES, err) < 0)
		return -1;
	return digest_finish(c->digest, out, err);
}

/* Where the next content begins at or behind @at; a file system that cannot tell has no holes. */
static uint64_t next_data(int fd, uint64_t at, uint64_t size)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA);

	if (data >= 0)
		return (uint64_t)data;
	return errno == ENXIO ? size : at;
}

int seal_content_read(struct seal_content *c, int fd, uint64_t size, uint8_t out[DIGEST_BYTES], uint64_t *ret_bytes, struct sbx_err *err)
{
	uint8_t *block = c->data; /* whole blocks are taken from it at once */
	uint64_t at = 0;

	if (seal_content_begin(c, err) < 0)
		return -1;
	while (at < size) {
		size_t want = size - at < BLOCK_BYTES ? (size_t)(size - at) : BLOCK_BYTES, got = 0;

		while (got < want) {
			ssize_t n = pread(fd, block + got, want - got, (off_t)(at + got));

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? errno : EIO, "read");
			got += (size_t)n;
		}
		if (take_block(c, at / BLOCK_BYTES, block, want, err) < 0)
			return -1;
		*ret_bytes += want;
		at += want;
		/* small files are worth no question; the block in which data begins is read whole */
		uint64_t data = at < size ? next_data(fd, at, size) : at;
		if (data > at)
			at = data < size ? data / BLOCK_BYTES * BLOCK_BYTES : size;
	}
	return digest_finish(c->digest, out, err);
}

/* ---- many ---- */

struct seal_list *seal_list_new(struct sbx_err *err)
{
	struct seal_list *list = calloc(1, sizeof(*list));

	if (list) {
		list->size = LIST_FIRST;
		list->place = calloc(list->size, sizeof(*list->place));
	}
	if (list && list->place)
		return list;
	free(list);
	sbx_err_set(err, SBX_E_NO_MEMORY, 0, "digests of files");
	return NULL;
}

void seal_list_free(struct seal_list *list)
{
	if (!list)
		return;
	free(list->place);
	free(list);
}

/* Inode numbers come from the kernel, not from the image: a simple spread is enough.  Return: its place, or a free one */
static struct seal_known *place_of(struct seal_known *place, size_t size, uint64_t inode)
{
	size_t at = (size_t)(inode * 0x9e3779b97f4a7c15u >> 32) & (size - 1);

	while (place[at].inode && place[at].inode != inode)
		at = (at + 1) & (size - 1);
	return &place[at];
}

static bool grow(struct seal_list *list)
{
	size_t size = list->size * 2;
	struct seal_known *more = size > LIST_MAX ? NULL : calloc(size, sizeof(*more));

	if (!more)
		return false;
	for (size_t i = 0; i < list->size; i++)
		if (list->place[i].inode)
			*place_of(more, size, list->place[i].inode) = list->place[i];
	free(list->place);
	list->place = more;
	list->size = size;
	return true;
}

void seal_list_put(struct seal_list *list, const struct seal_known *known)
{
	struct seal_known *place = place_of(list->place, list->size, known->inode);

	if (!known->inode)
		return;
	if (!place->inode) {
		if (list->n >= list->size / 2) {
			if (!grow(list))
				return;
			place = place_of(list->place, list->size, known->inode);
		}
		list->n++;
	}
	*place = *known;
}

const struct seal_known *seal_list_find(const struct seal_list *list, uint64_t inode)
{
	const struct seal_known *place = place_of(list->place, list->size, inode);

	return inode && place->inode ? place : NULL;
}
