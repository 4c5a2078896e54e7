/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what layers the broker has
 *
 * LAYER_LIST is answered in parts; this asks for all of them and hands over one map: flags of an entry are
 * enum broker_layer_flags, its value is when it was published, in seconds since 1970.
 */
#ifndef API_IMAGES_LAYERS_H
#define API_IMAGES_LAYERS_H

#include "base/err.h"
#include "images/digest_map.h"

struct broker_client;
struct images_layers;

/* @n_strays: names of the store that are no layers.  @layers may be taken over (zero it then); it is empty when @err->code is set.  The listing itself is gone. */
typedef void images_layers_done(void *arg, struct digest_map *layers, uint64_t n_strays, const struct sbx_err *err);

/**
 * images_layers_list() - Begin to ask
 * @broker:	Outlives the listing
 * @done:	Called once, later
 * @arg:	Handed to @done
 * @err:	Filled on failure: NO_MEMORY, LIMIT, OVERLOADED (no broker)
 *
 * Return: the listing, valid until @done is called; or NULL with @err set
 */
struct images_layers *images_layers_list(struct broker_client *broker, images_layers_done *done, void *arg, struct sbx_err *err) SBX_WUR;
/** images_layers_free() - Forget a listing: done is not called; NULL is fine */
void images_layers_free(struct images_layers *listing);

#endif
