/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: how often each digest is named
 *
 * A hash table from digests (keys of layers, digests of blobs) to a count and one number of the owner's.  Digests are
 * spread evenly already, so their first bytes are the hash.  Pointers into the table are valid until the next add.
 */
#ifndef IMAGES_DIGEST_MAP_H
#define IMAGES_DIGEST_MAP_H

#include "base/err.h"
#include "images/digest.h"

#include <stddef.h>
#include <stdint.h>

struct digest_entry {
	uint8_t digest[DIGEST_BYTES];
	uint32_t count; /* 0: the place is empty, or the digest was named once and is no more */
	uint32_t flags; /* the owner's */
	uint64_t value; /* the owner's */
};

/* Zeroed it is an empty map. */
struct digest_map {
	struct digest_entry *entry; /* owned */
	size_t n_taken, size;	    /* size: 0 or a power of two */
	uint8_t *taken;		    /* owned */
};

/** digest_map_clear() - Release what @map owns; it is empty then */
void digest_map_clear(struct digest_map *map);
/** digest_map_reserve() - Make room in @map for @n more digests, so that as many adds cannot fail; Return: 0 or -ENOMEM */
int digest_map_reserve(struct digest_map *map, size_t n) SBX_WUR;
/** digest_map_add() - Count @digest once more in @map; Return: its entry, or NULL when out of memory */
struct digest_entry *digest_map_add(struct digest_map *map, const uint8_t digest[DIGEST_BYTES]) SBX_WUR;
/** digest_map_find() - The entry of @digest in @map, NULL when its count is 0 */
struct digest_entry *digest_map_find(const struct digest_map *map, const uint8_t digest[DIGEST_BYTES]);
/** digest_map_drop() - Count @digest once less in @map; Return: how often it is named now */
uint32_t digest_map_drop(struct digest_map *map, const uint8_t digest[DIGEST_BYTES]);
/** digest_map_next() - Walk what @map holds (count above 0) in no order: NULL for @after gives the first; Return: NULL at the end */
struct digest_entry *digest_map_next(const struct digest_map *map, const struct digest_entry *after);

#endif
