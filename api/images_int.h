/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the image handlers share
 */
#ifndef API_IMAGES_INT_H
#define API_IMAGES_INT_H

#include "base/err.h"
#include "base/http_server.h"
#include "base/jv.h"

#include <stdbool.h>
#include <stdint.h>

struct api_call;
struct api_context;
struct image;

/** images_render() - Write @image as one JSON object to @w */
void images_render(struct jw *w, const struct image *image);
/** images_query_text() - Parameter @name of @query, owned, NULL when absent, into @ret; Return: 0, or -1 with @err set */
int images_query_text(struct http_text query, const char *name, char **ret, struct sbx_err *err) SBX_WUR;

/** images_query_switch() - Parameter @name of @query, true or false, false when absent, into @ret; Return: 0, or -1 with @err set */
int images_query_switch(struct http_text query, const char *name, bool *ret, struct sbx_err *err) SBX_WUR;
/**
 * images_spool() - Make a file for an archive or for layers on their way out
 * @context:	The server's
 * @purpose:	"import", for messages
 * @ret_read:	Read-only, the caller's
 * @ret_write:	Write-only, the caller's
 * @err:	Filled on failure: SYSTEM
 *
 * It has no name from the start of its life in our hands, so that nothing is left of it after a crash and nobody can open it a
 * second time.
 *
 * Return: 0, or -1 with @err set
 */
int images_spool(const struct api_context *context, const char *purpose, int *ret_read, int *ret_write, struct sbx_err *err) SBX_WUR;
/** images_reply_error() - Answer @call with @err; an image of the path that is not there is 404 */
void images_reply_error(struct api_call *call, struct sbx_err *err);
/** images_in_use() - Whether a sandbox of @context was made from @image of the store, or is being made from it */
bool images_in_use(const struct api_context *context, const struct image *image);
/**
 * images_may_remove() - Whether the name of @image may go
 * @context:	The server's
 * @image:	Of its store
 * @err:	Filled on failure: IMAGE_IN_USE, with the sandboxes' ids
 *
 * A further name of an image that sandboxes use may, as Docker users expect; the last one may not.
 *
 * Return: 0, or -1 with @err set
 */
int images_may_remove(const struct api_context *context, const struct image *image, struct sbx_err *err) SBX_WUR;
/** images_layer_wanted() - Whether a pull, import or commit of @context has the layer @key, or will; no image has it yet */
bool images_layer_wanted(const struct api_context *context, const uint8_t key[32]);
/** images_blob_wanted() - Likewise the blob @digest */
bool images_blob_wanted(const struct api_context *context, const uint8_t digest[32]);
/** images_image_wanted() - Whether something under way of @context reads @image of the store */
bool images_image_wanted(const struct api_context *context, const struct image *image);
/** images_drop_layer() - Let the broker remove the layer @key, unless an import or a pull has found it there */
void images_drop_layer(const struct api_context *context, const uint8_t key[32]);

#endif
