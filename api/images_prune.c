// SPDX-License-Identifier: Apache-2.0
/* DOC: further names for images, what they take on the disk, and giving it back */
#include "api/images_api.h"

#include "api/images_import.h"
#include "api/images_int.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "images/blob_store.h"
#include "images/image_store.h"
#include "images/pull.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A partial blob without a writer is no use to anybody but the next pull; a prune that is asked for takes it at once. */
#define PARTIAL_AGE_S 0

static bool is_ready(struct api_call *call)
{
	if (call->context->images && call->context->blobs && call->context->pulls)
		return true;
	api_reply_code(call, SBX_E_OVERLOADED, "the image store is not ready");
	return false;
}

void images_api_tag(struct api_call *call)
{
	auto_free char *name = NULL;
	struct sbx_err err = {0};
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (!is_ready(call))
		return;
	if (images_query_text(call->query, "name", &name, &err) < 0) {
		api_reply_error(call, &err);
		return;
	}
	if (!name || !*name) {
		api_reply_code(call, SBX_E_INVALID_REQUEST, "name: the new name is required");
		return;
	}
	if (image_store_tag(call->context->images, call->param[0], name, &err) < 0) {
		images_reply_error(call, &err);
		return;
	}
	const struct image *image = image_store_find(call->context->images, name, &err);
	if (!image) {
		images_reply_error(call, &err);
		return;
	}
	images_render(&w, image);
	api_reply_json(call, 201, &body);
}

/* ---- usage ---- */

struct usage {
	const struct api_context *context;
	uint64_t n_images, n_layers, unpacked, unused_unpacked;
	uint64_t n_blobs, packed, unused_packed;
	uint64_t partial;
};

static void count_blob(void *arg, const uint8_t digest[DIGEST_BYTES], uint64_t bytes, int64_t used_wall_s)
{
	struct usage *u = arg;

	(void)used_wall_s;
	u->n_blobs++;
	u->packed += bytes;
	if (!image_store_blob_used(u->context->images, digest) && !image_pulls_wants_blob(u->context->pulls, digest))
		u->unused_packed += bytes;
}

/* Whether layer @index of @image is counted with an earlier image. */
static bool counted_elsewhere(struct image_store *store, const struct image *image, size_t index)
{
	for (const struct image *i = image_store_next(store, NULL); i && i != image; i = image_store_next(store, i))
		for (size_t k = 0; k < i->n_layers; k++)
			if (!memcmp(i->layers[k], image->layers[index], DIGEST_BYTES))
				return true;
	return false;
}

static void count_images(struct usage *u)
{
	struct image_store *store = u->context->images;

	for (const struct image *i = image_store_next(store, NULL); i; i = image_store_next(store, i)) {
		bool used = images_in_use(u->context, i->name);

		u->n_images++;
		for (size_t k = 0; k < i->n_layers; k++) {
			/* an imported image has one layer, whose size is the image's */
			uint64_t bytes = i->blobs ? i->blobs[k].unpacked : i->bytes / i->n_layers;

			if (counted_elsewhere(store, i, k))
				continue;
			u->n_layers++;
			u->unpacked += bytes;
			if (!used)
				u->unused_unpacked += bytes;
		}
	}
}

void images_api_usage(struct api_call *call)
{
	struct usage u = {.context = call->context};
	auto_buf body = {0};
	struct jw w = {.out = &body};
	struct sbx_err err = {0};

	if (!is_ready(call))
		return;
	count_images(&u);
	int r = blob_store_each(call->context->blobs, count_blob, &u);
	if (r == 0)
		r = blob_store_partial_bytes(call->context->blobs, &u.partial);
	if (r < 0) {
		sbx_err_set(&err, SBX_E_SYSTEM, -r, "blob store");
		api_reply_error(call, &err);
		return;
	}
	jw_object(&w);
	jw_key_u64(&w, "images", u.n_images);
	jw_key_u64(&w, "layers", u.n_layers);
	jw_key_u64(&w, "unpackedBytes", u.unpacked);
	jw_key_u64(&w, "unusedUnpackedBytes", u.unused_unpacked);
	jw_key_u64(&w, "blobs", u.n_blobs);
	jw_key_u64(&w, "packedBytes", u.packed);
	jw_key_u64(&w, "unusedPackedBytes", u.unused_packed);
	jw_key_u64(&w, "partialBytes", u.partial);
	jw_object_end(&w);
	api_reply_json(call, 200, &body);
}

/* ---- prune ---- */

struct pruning {
	const struct api_context *context;
	struct jw w;
	uint64_t n_blobs, blob_bytes, n_layers;
};

static void drop_layer(void *arg, const uint8_t key[DIGEST_BYTES])
{
	struct pruning *p = arg;

	p->n_layers++;
	images_drop_layer(p->context, key);
}

/* Images that no sandbox was made from.  The list changes under the walk, so each removal begins it again. */
static int prune_images(struct pruning *p, struct sbx_err *err)
{
	struct image_store *store = p->context->images;
	const struct image *i = image_store_next(store, NULL);

	while (i) {
		if (images_in_use(p->context, i->name)) {
			i = image_store_next(store, i);
			continue;
		}
		auto_free char *name = strdup(i->name);
		if (!name)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "prune");
		if (image_store_remove(store, name, drop_layer, p, err) < 0)
			return -1;
		jw_str(&p->w, name);
		i = image_store_next(store, NULL);
	}
	return 0;
}

static void prune_blob(void *arg, const uint8_t digest[DIGEST_BYTES], uint64_t bytes, int64_t used_wall_s)
{
	struct pruning *p = arg;

	(void)used_wall_s;
	if (image_store_blob_used(p->context->images, digest) || image_pulls_wants_blob(p->context->pulls, digest))
		return;
	int r = blob_store_remove(p->context->blobs, digest);
	if (r < 0) {
		log_warn("prune: a blob stays: %s", strerrordesc_np(-r));
		return;
	}
	p->n_blobs++;
	p->blob_bytes += bytes;
}

void images_api_prune(struct api_call *call)
{
	auto_free char *all = NULL;
	auto_buf body = {0};
	struct pruning p = {.context = call->context, .w = {.out = &body}};
	struct sbx_err err = {0};
	uint64_t partial = 0;

	if (!is_ready(call))
		return;
	if (images_query_text(call->query, "all", &all, &err) < 0) {
		api_reply_error(call, &err);
		return;
	}
	if (all && strcmp(all, "true") != 0 && strcmp(all, "false") != 0) {
		api_reply_code(call, SBX_E_INVALID_REQUEST, "all: true or false");
		return;
	}
	jw_object(&p.w);
	jw_key(&p.w, "images");
	jw_array(&p.w);
	if (all && !strcmp(all, "true") && prune_images(&p, &err) < 0) {
		api_reply_error(call, &err);
		return;
	}
	jw_array_end(&p.w);
	int r = blob_store_each(call->context->blobs, prune_blob, &p);
	if (r == 0)
		r = blob_store_sweep_partial(call->context->blobs, PARTIAL_AGE_S, &partial);
	if (r < 0) {
		sbx_err_set(&err, SBX_E_SYSTEM, -r, "blob store");
		api_reply_error(call, &err);
		return;
	}
	jw_key_u64(&p.w, "layers", p.n_layers);
	jw_key_u64(&p.w, "blobs", p.n_blobs + (uint64_t)r);
	jw_key_u64(&p.w, "bytes", p.blob_bytes + partial);
	jw_object_end(&p.w);
	api_reply_json(call, 200, &body);
}
