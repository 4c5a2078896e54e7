/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: collecting what no image needs, by itself and when asked
 *
 *	broker's list of layers -> images that are too old or in the way (images/gc.h) -> layers and blobs that nobody
 *	names -> the broker's answers to what it was asked to drop -> told
 *
 * One collection at a time; the others wait.  Between the end of the list and the last removal nothing else runs in this
 * loop, so what is looked up is what is there.  Nothing is taken that a sandbox, a pull, an import or a commit needs, and the
 * broker refuses by itself what is mounted.
 *
 * By itself it looks at the disk some seconds after an image came or a pull ended, and each GC_CHECK_MS; what takes longer than
 * a statvfs is done only when the disk is too full or the last collection is an hour ago.
 */
#ifndef API_IMAGES_GC_H
#define API_IMAGES_GC_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct api_call;
struct api_context;
struct images_gc;

enum images_gc_mode {
	IMAGES_GC_AUTO = 1, /* what the settings say */
	IMAGES_GC_ASKED,    /* likewise, and answered */
	IMAGES_GC_PRUNE,    /* whatever no image needs, at once */
};

struct images_gc_request {
	enum images_gc_mode mode;
	bool dry_run;
	bool all;	     /* PRUNE: also images that no sandbox uses */
	uint64_t free_bytes; /* ASKED: at least so much; 0: as the disk wants */
};

/** images_gc_new() - Make the collector for @context, which is borrowed; Return: it (images_gc_free() it), or NULL with @err set */
struct images_gc *images_gc_new(const struct api_context *context, struct sbx_err *err) SBX_WUR;
/** images_gc_free() - End it; calls that wait are not answered; NULL is fine */
void images_gc_free(struct images_gc *gc);
/** images_gc_look() - Something may have filled the disk: have @gc look soon; NULL is fine */
void images_gc_look(struct images_gc *gc);
/** images_gc_run() - Collect as @request says and answer @call with what was taken */
void images_gc_run(struct images_gc *gc, const struct images_gc_request *request, struct api_call *call);

/** images_api_gc() - POST /images/gc; answers @call */
void images_api_gc(struct api_call *call);

#endif
