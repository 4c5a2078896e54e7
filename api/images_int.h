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

/** images_reply_error() - Answer @call with @err; an image of the path that is not there is 404 */
void images_reply_error(struct api_call *call, struct sbx_err *err);
/** images_in_use() - Whether a sandbox of @context was made from the image @canonical, or is being made from it */
bool images_in_use(const struct api_context *context, const char *canonical);
/** images_drop_layer() - Let the broker remove the layer @key, unless an import or a pull has found it there */
void images_drop_layer(const struct api_context *context, const uint8_t key[32]);

#endif
