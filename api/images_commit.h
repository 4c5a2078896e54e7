/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a sandbox becomes an image
 *
 *   POST /v1/sandboxes/{id}/commit  {"name", "pause"?: true, "flatten"?: false, "message"?, "author"?,
 *				      "config"?: {"env"?: ["NAME=value"...], "entrypoint"?: [...], "cmd"?: [...], "workdir"?, "user"?}}
 *
 * 201 with the image: the layers that the sandbox was made from and one more with what it has written since.
 *
 *	hold -> SANDBOX_LAYERS -> SANDBOX_CAPTURE into a file without a name -> release -> blob store -> LAYER_UNPACK -> index
 *
 * The index entry is the one step that makes it visible; what a kill -9 leaves before it is a blob or a layer that no image
 * names, which the next collection takes.  The configuration is the image's own, changed by the request's; what the create
 * request gave the sandbox (variables, which may hold secrets, and its entrypoint) does not become part of the image.
 */
#ifndef API_IMAGES_COMMIT_H
#define API_IMAGES_COMMIT_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct api_call;
struct api_context;
struct images_commits; /* those under way */

/** images_commits_new() - Make an empty set for @context, which is borrowed; Return: it (images_commits_free() it), or NULL with @err set */
struct images_commits *images_commits_new(const struct api_context *context, struct sbx_err *err) SBX_WUR;
/** images_commits_free() - Break all off; NULL is fine */
void images_commits_free(struct images_commits *set);
/** images_commits_want_layer() - Whether a commit of @set lies upon the layer @key, or has made it */
bool images_commits_want_layer(const struct images_commits *set, const uint8_t key[32]);
/** images_commits_want_blob() - Whether a commit of @set has made the blob @digest */
bool images_commits_want_blob(const struct images_commits *set, const uint8_t digest[32]);

/** images_api_commit() - POST /sandboxes/{id}/commit; answers @call */
void images_api_commit(struct api_call *call);

#endif
