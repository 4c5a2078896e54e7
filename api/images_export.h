/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: images that leave, as an OCI layout in a tar
 *
 *   GET /v1/images/{name}/export?compression=keep|gzip|zstd|none
 *
 * keep, what is done unless something else is asked for: layers, configuration and manifest leave as the bytes that they came
 * as, with the digests of their registry, as far as the blob store still has them.  They were compared with those digests when they
 * came, and are again while they leave; unpacking and packing anew would only make other bytes of the same files.  A layer
 * whose blob is gone (pruned) or never was (a root file system) is read from the store of layers by sandbox-unpack
 * (LAYER_CAPTURE) and packed with gzip; another compression does that to all of them.
 * Then the configuration is kept but for its diff_ids, and the manifest is new.  A Docker manifest becomes an OCI one with the same blobs.
 *
 * The answer begins when all layers are packed and its length is known; a child of sandboxd then writes it (export_stream.h).
 */
#ifndef API_IMAGES_EXPORT_H
#define API_IMAGES_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

struct api_call;

/** images_api_export() - GET /images/{name}/export; answers @call */
void images_api_export(struct api_call *call);
/** images_exports_want_layer() - Whether an export under way reads the layer @key */
bool images_exports_want_layer(const uint8_t key[32]);
/** images_exports_want_blob() - Whether an export under way reads the blob @digest */
bool images_exports_want_blob(const uint8_t digest[32]);

#endif
