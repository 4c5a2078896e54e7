// SPDX-License-Identifier: Apache-2.0
/* DOC: further names for images, what they take on the disk, and giving it back */
#include "api/images_api.h"

#include "api/images_gc.h"
#include "api/images_int.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "images/blob_store.h"
#include "images/digest_map.h"
#include "images/image_store.h"
#include "images/pull.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_ready(struct api_call *call)
{
	if (call->context->images && call->context->blobs && call->context->pulls && call->context->broker && call->context->gc)
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

static int count_images(struct usage *u)
{
	struct image_store *store = u->context->images;
	struct digest_map seen = {0};

	/* a layer is used when one of the images that have it is */
	for (const struct image *i = image_store_next(store, NULL); i; i = image_store_next(store, i)) {
		bool used = images_in_use(u->context, i);

		u->n_images++;
		for (size_t k = 0; k < i->n_layers; k++) {
			struct digest_entry *e = digest_map_add(&seen, i->layers[k]);

			if (!e) {
				digest_map_clear(&seen);
				return -ENOMEM;
			}
			e->flags |= used;
			e->value = image_store_layer_bytes(store, i->layers[k]);
		}
	}
	for (const struct digest_entry *e = digest_map_next(&seen, NULL); e; e = digest_map_next(&seen, e)) {
		u->n_layers++;
		u->unpacked += e->value;
		if (!e->flags)
			u->unused_unpacked += e->value;
	}
	digest_map_clear(&seen);
	return 0;
}

void images_api_usage(struct api_call *call)
{
	struct usage u = {.context = call->context};
	auto_buf body = {0};
	struct jw w = {.out = &body};
	struct sbx_err err = {0};

	if (!is_ready(call))
		return;
	int r = count_images(&u);
	if (r == 0)
		r = blob_store_each(call->context->blobs, count_blob, &u);
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

void images_api_prune(struct api_call *call)
{
	struct images_gc_request request = {.mode = IMAGES_GC_PRUNE};
	struct sbx_err err = {0};

	if (!is_ready(call))
		return;
	if (images_query_switch(call->query, "all", &request.all, &err) < 0)
		api_reply_error(call, &err);
	else
		images_gc_run(call->context->gc, &request, call);
}
