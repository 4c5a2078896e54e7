/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: which images a collection takes
 *
 * Pure: images, when each was used last, who must stay, and what is asked for, into a choice.  What no sandbox uses may go;
 * what no registry brings back goes only when somebody asked for all.  The least recently used goes first.  An image frees
 * the layers that no other image has, so its gain is known only when those in front of it are chosen.
 */
#ifndef IMAGES_GC_H
#define IMAGES_GC_H

#include "base/err.h"
#include "images/image_store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gc_reason {
	GC_KEEP = 0,
	GC_AGE,	   /* not used for too long */
	GC_SPACE,  /* room is wanted */
	GC_UNUSED, /* all that is unused was asked for */
	GC_REASON_COUNT
};

struct gc_candidate {
	const struct image *image; /* borrowed */
	bool used;		   /* a sandbox, a snapshot or something under way needs it */
	enum gc_reason reason;	   /* the result */
	uint64_t bytes;		   /* the result: what its removal frees, as far as sizes are known */
};

struct gc_rules {
	int64_t now_wall_usec;
	int64_t min_age_s;   /* used later than this: kept, unless all are asked for */
	int64_t max_age_s;   /* 0: no image is too old */
	uint64_t want_bytes; /* to be freed; 0: none */
	bool all;	     /* whatever is unused, local ones too */
};

/**
 * gc_plan() - Choose
 * @store:	What the images belong to; not changed
 * @list:	The images; sorted by their last use on return
 * @n:		How many
 * @rules:	What is asked for
 * @ret_bytes:	What the chosen ones free together
 * @err:	Filled on failure: NO_MEMORY
 *
 * Return: how many are chosen, or -1 with @err set
 */
int gc_plan(const struct image_store *store, struct gc_candidate *list, size_t n, const struct gc_rules *rules, uint64_t *ret_bytes,
	    struct sbx_err *err) SBX_WUR;

/**
 * gc_wanted_bytes() - How much to free on a file system
 * @total:	Its bytes
 * @available:	Bytes that may still be written
 * @high_percent: Fuller than this it must get emptier; 0: never
 * @low_percent: Until it is at most so full
 *
 * Return: bytes, 0 when it is not too full
 */
uint64_t gc_wanted_bytes(uint64_t total, uint64_t available, unsigned high_percent, unsigned low_percent);

/** gc_reason_name() - "age", "space", "unused"; "keep" for what stays */
const char *gc_reason_name(enum gc_reason reason);

#endif
