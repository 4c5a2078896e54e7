// SPDX-License-Identifier: Apache-2.0
#include "images/gc.h"

#include "images/digest_map.h"

#include <stdlib.h>
#include <string.h>

static int by_use(const void *a, const void *b)
{
	const struct gc_candidate *x = a, *y = b;

	if (x->image->used_wall_usec != y->image->used_wall_usec)
		return x->image->used_wall_usec < y->image->used_wall_usec ? -1 : 1;
	return strcmp(x->image->name, y->image->name);
}

/* What @image frees now that those counted in @gone are gone: layers whose last owner it is. */
static int take(const struct image_store *store, const struct image *image, struct digest_map *gone, uint64_t *ret)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < image->n_layers; i++) {
		struct digest_entry *e = digest_map_add(gone, image->layers[i]);

		if (!e)
			return -1;
		if (e->count < image_store_layer_refs(store, image->layers[i]))
			continue;
		bytes += image_store_layer_bytes(store, image->layers[i]) + (image->blobs ? image->blobs[i].bytes : 0);
	}
	*ret = bytes;
	return 0;
}

/* A registry has it: only then it comes back by itself. */
static bool comes_back(const struct image *image)
{
	return image->manifest[0] && !image->local;
}

static enum gc_reason judge(const struct gc_candidate *c, const struct gc_rules *rules, uint64_t freed)
{
	int64_t age_s = (rules->now_wall_usec - c->image->used_wall_usec) / 1000000;

	if (c->used)
		return GC_KEEP;
	if (rules->all)
		return GC_UNUSED;
	/* a clock that was set back makes no image old */
	if (!comes_back(c->image) || age_s < rules->min_age_s)
		return GC_KEEP;
	if (rules->max_age_s && age_s > rules->max_age_s)
		return GC_AGE;
	return freed < rules->want_bytes ? GC_SPACE : GC_KEEP;
}

int gc_plan(const struct image_store *store, struct gc_candidate *list, size_t n, const struct gc_rules *rules, uint64_t *ret_bytes,
	    struct sbx_err *err)
{
	struct digest_map gone = {0};
	uint64_t freed = 0;
	int chosen = 0;

	if (n)
		qsort(list, n, sizeof(*list), by_use);
	for (size_t i = 0; i < n; i++) {
		list[i].bytes = 0;
		list[i].reason = judge(&list[i], rules, freed);
		if (list[i].reason == GC_KEEP)
			continue;
		if (take(store, list[i].image, &gone, &list[i].bytes) < 0) {
			digest_map_clear(&gone);
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "collection of images");
		}
		freed += list[i].bytes;
		chosen++;
	}
	digest_map_clear(&gone);
	*ret_bytes = freed;
	return chosen;
}

uint64_t gc_wanted_bytes(uint64_t total, uint64_t available, unsigned high_percent, unsigned low_percent)
{
	uint64_t used = available < total ? total - available : 0;
	/* parts of a hundred first: a product of the whole could overflow */
	uint64_t high = total / 100 * high_percent + total % 100 * high_percent / 100;
	uint64_t low = total / 100 * low_percent + total % 100 * low_percent / 100;

	if (!high_percent || used <= high)
		return 0;
	return used - (low < high ? low : high);
}

const char *gc_reason_name(enum gc_reason reason)
{
	static const char *const names[GC_REASON_COUNT] = {
		[GC_KEEP] = "keep", [GC_AGE] = "age", [GC_SPACE] = "space", [GC_UNUSED] = "unused"};

	return reason < GC_REASON_COUNT ? names[reason] : names[GC_KEEP];
}
