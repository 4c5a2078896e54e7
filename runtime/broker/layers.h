/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: image layers on disk
 *
 * <state dir>/layers/<key hex>, owned by ids S..S+65535, published by rename and then never changed.  What unpacks one is
 * sandbox-unpack in namespaces of its own, as root of a user namespace that maps 0..65535 to S: it is taken for hostile as soon
 * as it has read the first byte.  The rename happens after its pid namespace is empty.  The broker never reads the blob.
 *
 * <state dir>/seals/<key hex>, root's, 0600: what the layer was when it was published, written by the same process into a file that
 * the broker opened.  It gets its name before the layer gets its own, and the layer's directory says that it has one (an attribute
 * that only root of the host can set or see): a layer that says so and has none is damaged, another one is from an earlier version.
 * The `host` image's skeletons, which are made anew by each start, have none.
 */
#ifndef RUNTIME_LAYERS_H
#define RUNTIME_LAYERS_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"

#include <stdbool.h>

struct broker;
struct broker_asker;

/** layers_name() - Write the directory name of @key into @name */
void layers_name(const uint8_t key[BROKER_KEY_BYTES], char name[2 * BROKER_KEY_BYTES + 1]);
/** layers_present() - Whether @b has the layer @key */
bool layers_present(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES]);
/** layers_seal_open() - The seal of the layer @key of @b (images/tree_seal.h), for reading; Return: a descriptor, the caller's; or -errno */
int layers_seal_open(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES]) SBX_WUR;
/**
 * layers_unpack() - Start to unpack a blob; broker_unpack_done() comes later
 * @b:		The broker
 * @req:	Key, form, bounds
 * @blob_fd:	Regular file opened for reading only; stays the caller's
 * @asker:	Copied
 * @err:	Filled on failure: IMAGE_INVALID (not such a file), LIMIT (too many at once), SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int layers_unpack(struct broker *b, const struct broker_layer_req *req, int blob_fd, const struct broker_asker *asker,
		  struct sbx_err *err) SBX_WUR;
/** layers_drop() - Move the layer @key of @b to the trash; Return: 0, or -1 with @err set (IMAGE_NOT_FOUND, IMAGE_IN_USE) */
int layers_drop(struct broker *b, const uint8_t key[BROKER_KEY_BYTES], struct sbx_err *err) SBX_WUR;
/** layers_host_image() - Build the skeleton of the `host` image of @b and set host_key; waits for it; Return: 0 or -1, @err set */
int layers_host_image(struct broker *b, struct sbx_err *err) SBX_WUR;
/** layers_is_host_key() - Whether @key is that of a skeleton of the `host` image, of this broker or an earlier one */
bool layers_is_host_key(const uint8_t key[BROKER_KEY_BYTES]);
/** layers_sweep() - Move to the trash what was left unfinished and what is no layer; Return: how many */
int layers_sweep(struct broker *b);
/**
 * layers_list() - A part of what the store has
 * @b:		The broker
 * @cursor:	0, or what the last part said
 * @ret:	Filled but for its head
 * @err:	Filled on failure: SYSTEM
 *
 * Layers that are there from the first part to the last are named once; those that come or go meanwhile may be missing.
 *
 * Return: 0, or -1 with @err set
 */
int layers_list(struct broker *b, uint64_t cursor, struct broker_layers_reply *ret, struct sbx_err *err) SBX_WUR;

#endif
