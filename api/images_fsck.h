/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: looking for what cannot be right in the store of images
 *
 *   POST /v1/images/fsck?repair=&quick=   200 {"repair","problems":[{"kind","level","what","detail","repaired"}...],
 *					    "images","layers","blobs","blobBytes"}
 *
 * Works while everything runs: the broker tells its layers, a child of sandboxd hashes the blobs (quick: it does not), the rest is
 * looked up in one turn of the loop.  An error is what cannot be right: repairing removes it, and marks an image that lost
 * something as broken, so that its next use pulls it again.  A note is what costs room or a transfer: repairing takes what a
 * collection would take later.  What sandboxes use is never removed; the broker refuses it by itself.
 */
#ifndef API_IMAGES_FSCK_H
#define API_IMAGES_FSCK_H

struct api_call;

/** images_api_fsck() - POST /images/fsck; answers @call */
void images_api_fsck(struct api_call *call);

#endif
