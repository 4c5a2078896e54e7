/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: image references
 *
 * [registry[:port]/]path[:tag][@sha256:digest], with Docker's short forms: no registry means docker.io, a path of one
 * part there is below library/, no tag and no digest means :latest.  The word "host" alone is the embedded image.  Two
 * references name the same image when their canonical texts are equal.
 */
#ifndef IMAGES_IMAGE_REF_H
#define IMAGES_IMAGE_REF_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define IMAGE_REF_NAME_BYTES 256 /* registry and path together, with the NUL (the registry's own bound is 255) */
#define IMAGE_REF_TAG_BYTES  129
#define IMAGE_REF_DIGEST_BYTES 72
#define IMAGE_REF_TEXT_BYTES (IMAGE_REF_NAME_BYTES + IMAGE_REF_TAG_BYTES + IMAGE_REF_DIGEST_BYTES + 2)

struct image_ref {
	bool host;				   /* the embedded image; all other fields are empty */
	char registry[IMAGE_REF_NAME_BYTES];	   /* "docker.io", "localhost:5000" */
	char path[IMAGE_REF_NAME_BYTES];	   /* "library/debian" */
	char tag[IMAGE_REF_TAG_BYTES];		   /* "" when only a digest was given */
	char digest[IMAGE_REF_DIGEST_BYTES];	   /* "sha256:..." or "" */
};

/**
 * image_ref_parse() - Read a reference
 * @text:	As a client wrote it; need not be NUL-terminated
 * @n:		Its length
 * @ret:	Written on success
 * @err:	Filled on failure: INVALID_REQUEST, with what is wrong
 *
 * Return: 0, or -1 with @err set
 */
int image_ref_parse(const char *text, size_t n, struct image_ref *ret, struct sbx_err *err) SBX_WUR;

/** image_ref_canonical() - Write the full text of @ref ("docker.io/library/debian:12", "host") into @out */
void image_ref_canonical(const struct image_ref *ref, char out[IMAGE_REF_TEXT_BYTES]);

/** image_ref_familiar() - Like image_ref_canonical(), but in the short form that people type ("debian:12") */
void image_ref_familiar(const struct image_ref *ref, char out[IMAGE_REF_TEXT_BYTES]);

#endif
