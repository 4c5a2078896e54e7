/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the image handlers share
 */
#ifndef API_IMAGES_INT_H
#define API_IMAGES_INT_H

#include "base/err.h"
#include "base/http_server.h"
#include "base/jv.h"

struct image;

/** images_render() - Write @image as one JSON object to @w */
void images_render(struct jw *w, const struct image *image);
/** images_query_text() - Parameter @name of @query, owned, NULL when absent, into @ret; Return: 0, or -1 with @err set */
int images_query_text(struct http_text query, const char *name, char **ret, struct sbx_err *err) SBX_WUR;

#endif
