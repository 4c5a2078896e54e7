/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: looking for what cannot be right in the store of images
 *
 *   POST /v1/images/fsck?repair=&quick=&events=   200 {"repair","problems":[{"kind","level","what","detail","repaired"}...],
 *					    "images","layers","layersCompared","layerBytes","blobs","blobBytes"}
 *
 * With events=true the answer is a stream: {"type":"progress","phase":"blobs"|"layers","done","total"?,"bytes"} a few times a second, then
 * {"type":"done","report":{...}} or {"type":"error",...}.  A check goes on when its reader goes away.
 *
 * Works while everything runs: a child of sandboxd hashes the blobs, the broker has each layer compared with its seal (quick: neither),
 * then it tells its layers, and the rest is looked up in one turn of the loop.  An error is what cannot be right: repairing removes it, and marks an image that lost
 * something as broken, so that its next use pulls it again.  A note is what costs room or a transfer: repairing takes what a
 * collection would take later.  What sandboxes use is never removed; the broker refuses it by itself.
 */
#ifndef API_IMAGES_FSCK_H
#define API_IMAGES_FSCK_H

struct api_call;

/** images_api_fsck() - POST /images/fsck; answers @call */
void images_api_fsck(struct api_call *call);

#endif
