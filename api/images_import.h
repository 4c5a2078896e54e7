/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: importing a root file system
 *
 *   images_import_begin()  ->  a file without a name, its write end for whoever has the bytes
 *   images_import_done()   ->  lease, digest, layer key, broker's unpacker, index, answer
 *   images_import_drop()   ->  forget it, at any time
 *
 * Between begin and done the bytes are an attacker's; done refuses while anybody still has the file open for writing.
 */
#ifndef API_IMAGES_IMPORT_H
#define API_IMAGES_IMPORT_H

#include "api/call.h"
#include "base/err.h"
#include "base/http_server.h"

#include <stdbool.h>
#include <stdint.h>

struct images_import;
struct images_imports; /* those under way */

/** images_imports_new() - Make an empty set for @context, which is borrowed; Return: it, or NULL with @err set */
struct images_imports *images_imports_new(const struct api_context *context, struct sbx_err *err) SBX_WUR;
/** images_imports_free() - Drop every import of @set; their answers never come; NULL is fine */
void images_imports_free(struct images_imports *set);

/**
 * images_import_begin() - Prepare to take an image
 * @set:	The set
 * @query:	Raw query: name=, optional format=, env= (any number), workdir=, user=, cmd=
 * @owner:	Whose it is, for images_import_find() and images_imports_drop_owner()
 * @ret_write_fd: Write-only, the caller's to close; the other end must close it before done
 * @err:	Filled on failure: INVALID_REQUEST, LIMIT, SYSTEM, NO_MEMORY
 *
 * Return: the import, owned by the set, or NULL with @err set
 */
struct images_import *images_import_begin(struct images_imports *set, struct http_text query, const void *owner,
					  int *ret_write_fd, struct sbx_err *err) SBX_WUR;
/** images_import_handle() - Number that names @import in the set, never 0 */
uint64_t images_import_handle(const struct images_import *import);
/** images_import_max_bytes() - Bytes that @import takes at most */
uint64_t images_import_max_bytes(const struct images_import *import);
/** images_import_find() - The import of @owner with @handle that still takes bytes, or NULL */
struct images_import *images_import_find(struct images_imports *set, uint64_t handle, const void *owner);
/** images_import_done() - The bytes are complete: go on with @import; @answer comes once, perhaps before this returns */
void images_import_done(struct images_import *import, api_answer_fn *answer, void *arg);
/** images_imports_wants() - Whether an import of @set is between its digest and the index with the layer @key */
bool images_imports_wants(const struct images_imports *set, const uint8_t key[32]);
/** images_import_drop() - Forget @import, which still takes bytes */
void images_import_drop(struct images_import *import);
/** images_imports_drop_owner() - Forget all imports of @owner that still take bytes; those under way go on */
void images_imports_drop_owner(struct images_imports *set, const void *owner);

#endif
