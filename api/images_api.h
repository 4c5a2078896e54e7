/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: images, volumes and the host: this server's own routes
 *
 *   GET    /v1/images                     {"items":[image...]}; an image is {"name","ref","createdAt","bytes","layers",...}
 *   GET    /v1/images/{name}              one image; the name is percent-encoded, any spelling of the reference
 *   POST   /v1/images/{name}/tag?name=    201 with the image under its new name
 *   POST   /v1/images/pull                see images_pull.h
 *   POST   /v1/images/prune?all=true      200 {"images","layers","blobs","bytes"}; all: also images that no sandbox uses
 *   POST   /v1/sandboxes/{id}/commit      201 with the image: images_commit.h
 *   POST   /v1/images/gc?dryRun=&free=    200 {"dryRun","images":[...],"layers","blobs","bytes","imageBytes","disk"}: images_gc.h
 *   POST   /v1/images/fsck?repair=&quick= 200 {"repair","problems",...}: images_fsck.h
 *   GET    /v1/usage                      what images take on the disk, and what of it nobody uses
 *   DELETE /v1/images/{name}              204; layers that no other image uses are dropped, 409 while a sandbox uses one
 *   POST   /v1/images/import?name=&format=  201 with the image; body: a root file system as tar, format tar, tar.gz, tar.zst
 *   GET    /v1/volumes                    {"items":[{"name","inUse"}...]}: volumes that live sandboxes name
 *   POST   /v1/volumes?name=              201 {"name"}
 *   DELETE /v1/volumes/{name}             204, 409 while a sandbox uses it
 *   GET    /v1/host                       {"ok","rows":[{"name","verdict","found","costs"?,"mend"?}...]}
 *   GET    /v1/version                    {"version","api"}
 *
 * An import is begun and ended by the gateway with GW_IMPORT: it writes the body into a file that has no name, closes it
 * and says so.  From then on nobody can change it (a lease proves that no writer is left), its digest is taken a piece
 * a turn of the loop, and only then anything parses it: the broker's unpacker, in a user namespace of its own.
 */
#ifndef API_IMAGES_API_H
#define API_IMAGES_API_H

#include "api/call.h"

/** images_api_list() - GET /images; answers @call */
void images_api_list(struct api_call *call);
/** images_api_get() - GET /images/{name}; answers @call */
void images_api_get(struct api_call *call);
/** images_api_delete() - DELETE /images/{name}; answers @call */
void images_api_delete(struct api_call *call);
/** images_api_tag() - POST /images/{name}/tag; answers @call */
void images_api_tag(struct api_call *call);
/** images_api_prune() - POST /images/prune; answers @call */
void images_api_prune(struct api_call *call);
/** images_api_usage() - GET /usage; answers @call */
void images_api_usage(struct api_call *call);
/** images_api_volumes() - GET /volumes; answers @call */
void images_api_volumes(struct api_call *call);
/** images_api_volume_make() - POST /volumes?name=; answers @call */
void images_api_volume_make(struct api_call *call);
/** images_api_volume_drop() - DELETE /volumes/{name}; answers @call */
void images_api_volume_drop(struct api_call *call);
/** images_api_host() - GET /host: the broker's feature table; answers @call */
void images_api_host(struct api_call *call);
/** images_api_version() - GET /version; answers @call */
void images_api_version(struct api_call *call);

#endif
