// SPDX-License-Identifier: Apache-2.0
#include "images/digest_map.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE 64u

/* Places are never given back: a count of 0 keeps the chain behind it, and growing leaves those out. */

static size_t place(const struct digest_map *map, const uint8_t digest[DIGEST_BYTES])
{
	uint64_t hash;
	size_t at;

	memcpy(&hash, digest, sizeof(hash));
	for (at = hash & (map->size - 1); map->taken[at]; at = (at + 1) & (map->size - 1))
		if (!memcmp(map->entry[at].digest, digest, DIGEST_BYTES))
			break;
	return at;
}

void digest_map_clear(struct digest_map *map)
{
	free(map->entry);
	free(map->taken);
	*map = (struct digest_map){0};
}

int digest_map_reserve(struct digest_map *map, size_t n)
{
	struct digest_map bigger = {.size = map->size ? map->size : FIRST_SIZE};

	if (map->size && (map->n_taken + n) * 4 <= map->size * 3)
		return 0;
	while ((map->n_taken + n) * 2 > bigger.size)
		bigger.size *= 2;
	bigger.entry = calloc(bigger.size, sizeof(*bigger.entry));
	bigger.taken = calloc(bigger.size, 1);
	if (!bigger.entry || !bigger.taken) {
		digest_map_clear(&bigger);
		return -ENOMEM;
	}
	for (size_t i = 0; i < map->size; i++) {
		if (!map->taken[i] || !map->entry[i].count)
			continue;
		size_t at = place(&bigger, map->entry[i].digest);

		bigger.entry[at] = map->entry[i];
		bigger.taken[at] = 1;
		bigger.n_taken++;
	}
	digest_map_clear(map);
	*map = bigger;
	return 0;
}

struct digest_entry *digest_map_add(struct digest_map *map, const uint8_t digest[DIGEST_BYTES])
{
	if (digest_map_reserve(map, 1) < 0)
		return NULL;
	struct digest_entry *e = &map->entry[place(map, digest)];
	if (!map->taken[e - map->entry]) {
		map->taken[e - map->entry] = 1;
		map->n_taken++;
		memcpy(e->digest, digest, DIGEST_BYTES);
	}
	if (!e->count++) {
		e->flags = 0;
		e->value = 0;
	}
	return e;
}

struct digest_entry *digest_map_find(const struct digest_map *map, const uint8_t digest[DIGEST_BYTES])
{
	struct digest_entry *e = map->size ? &map->entry[place(map, digest)] : NULL;

	return e && e->count ? e : NULL;
}

uint32_t digest_map_drop(struct digest_map *map, const uint8_t digest[DIGEST_BYTES])
{
	struct digest_entry *e = digest_map_find(map, digest);

	return e ? --e->count : 0;
}

struct digest_entry *digest_map_next(const struct digest_map *map, const struct digest_entry *after)
{
	for (size_t i = after ? (size_t)(after - map->entry) + 1 : 0; i < map->size; i++)
		if (map->taken[i] && map->entry[i].count)
			return &map->entry[i];
	return NULL;
}
