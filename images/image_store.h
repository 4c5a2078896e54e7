/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the index of images
 *
 * One JSON file an image below <sandboxd state>/images, named by the SHA-256 of the canonical reference, written beside
 * and renamed, so that a reader or a crash sees the old or the new one.  The index says which layers (keys of the
 * broker's layer store) make an image and how it wants to be started; it holds no file content.  Only sandboxd writes it.
 * A file that cannot be read is skipped with a log line, never guessed at.
 */
#ifndef IMAGES_IMAGE_STORE_H
#define IMAGES_IMAGE_STORE_H

#include "base/err.h"
#include "images/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a layer came from, as far as that is known. */
struct image_blob {
	uint8_t digest[DIGEST_BYTES]; /* of the packed layer, in the blob store unless it was pruned */
	uint64_t bytes;
	uint64_t unpacked; /* 0: not known */
	uint32_t form;	   /* enum layer_form */
};

struct image {
	char *name;		/* owned; canonical reference (image_ref_canonical()) */
	uint8_t (*layers)[DIGEST_BYTES]; /* owned; keys, lowest first */
	size_t n_layers;	/* 1 .. LIMIT_LAYERS */
	char **env;		/* owned, NULL-terminated "NAME=value"; NULL for none */
	char *workdir;		/* owned; "" for none */
	char *user;		/* owned; "name", "uid", "uid:gid"; "" for root */
	char **entrypoint;	/* owned, NULL-terminated; NULL for none */
	char **cmd;		/* owned, NULL-terminated; NULL for none */
	char *author, *comment; /* owned; of a commit; NULL for none */
	int64_t created_wall_usec;
	int64_t used_wall_usec; /* last use, to within IMAGE_USED_STEP_S; kept as the time of the index file, not in it */
	uint64_t bytes;		/* unpacked */
	bool local;		/* made here, from a file or by a commit: no registry brings it back */
	bool broken;		/* something of it is missing or wrong (fsck): it cannot be started, a pull mends it */
	/* Of a pulled image; all empty for one that was imported as a root file system. */
	char index[DIGEST_TEXT_SIZE];	 /* what the name led to when that is an index, else "" */
	char manifest[DIGEST_TEXT_SIZE]; /* "sha256:..." of the manifest, in the blob store */
	char config[DIGEST_TEXT_SIZE];
	struct image_blob *blobs; /* owned; n_layers of them, or NULL */
};

/* A use is written down so often at most. */
#define IMAGE_USED_STEP_S 60

struct image_store;

/* Something was added, replaced or removed. */
typedef void image_store_changed(void *arg);

/** image_clear() - Release what @image owns and zero it; NULL is fine */
void image_clear(struct image *image);

/**
 * image_store_open() - Open the index, making its folder when it is missing
 * @state_dir_fd:	sandboxd's own folder; borrowed only during the call
 * @err:		Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the store with all readable images loaded (image_store_close() it), or NULL with @err set
 */
struct image_store *image_store_open(int state_dir_fd, struct sbx_err *err) SBX_WUR;
/** image_store_close() - Release @store; NULL is fine */
void image_store_close(struct image_store *store);

/**
 * image_store_put() - Add an image, or replace the one with its name
 * @store:	The store
 * @image:	Copied; name must be canonical
 * @err:	Filled on failure: INVALID_REQUEST (name, number of layers), SYSTEM, NO_MEMORY
 *
 * The file is synced before it is renamed: an image that was answered for survives a power cut.
 *
 * Return: 0, or -1 with @err set and the index unchanged
 */
int image_store_put(struct image_store *store, const struct image *image, struct sbx_err *err) SBX_WUR;

/**
 * image_store_find() - Look an image up by any spelling of its reference
 * @store:	The store
 * @ref_text:	"debian", "docker.io/library/debian:latest" ...; with a digest, the image whose manifest or index has it
 * @err:	Filled on failure: INVALID_REQUEST (not a reference), IMAGE_NOT_FOUND (says what to type)
 *
 * Return: the image, owned by the store and valid until the next put or remove; NULL with @err set
 */
const struct image *image_store_find(struct image_store *store, const char *ref_text, struct sbx_err *err) SBX_WUR;

/**
 * image_store_usable() - image_store_find(), but for images that are broken
 * @store:	The store
 * @ref_text:	Any spelling
 * @err:	Filled on failure: also IMAGE_INVALID (it is broken, and why that is no loss)
 *
 * Return: as image_store_find()
 */
const struct image *image_store_usable(struct image_store *store, const char *ref_text, struct sbx_err *err) SBX_WUR;
/** image_store_touch() - @image of @store is being used now */
void image_store_touch(struct image_store *store, const struct image *image);
/** image_store_set_broken() - Mark the image @name (canonical) as broken, or no more; Return: 0, or -1 with @err set */
int image_store_set_broken(struct image_store *store, const char *name, bool broken, struct sbx_err *err) SBX_WUR;
/** image_store_on_change() - Have @changed called with @arg after each change of @store; it must not change the store itself */
void image_store_on_change(struct image_store *store, image_store_changed *changed, void *arg);
/** image_store_count() - How many images @store holds */
size_t image_store_count(const struct image_store *store);
/** image_store_n_layers() - How many different layers the images of @store are made of */
size_t image_store_n_layers(const struct image_store *store);
/** image_store_layer_bytes() - Unpacked size of the layer @key of @store, 0 when that is not known */
uint64_t image_store_layer_bytes(const struct image_store *store, const uint8_t key[DIGEST_BYTES]);
/** image_store_layer_refs() - How many images of @store are made of the layer @key, one with it twice counted twice */
uint32_t image_store_layer_refs(const struct image_store *store, const uint8_t key[DIGEST_BYTES]);
/**
 * image_store_bad_files() - Files of the folder that are no image: what fsck reports
 * @store:	The store
 * @repair:	Remove them
 * @each:	Called with each one's name and what is wrong with it
 * @arg:	Handed to @each
 *
 * Return: how many, or -errno
 */
int image_store_bad_files(struct image_store *store, bool repair, void (*each)(void *arg, const char *name, const char *why),
			  void *arg);

/** image_store_layer_used() - Whether an image of @store is made of the layer @key */
bool image_store_layer_used(const struct image_store *store, const uint8_t key[DIGEST_BYTES]);
/** image_store_blob_used() - Whether an image of @store names the blob @digest: manifest, configuration or packed layer */
bool image_store_blob_used(const struct image_store *store, const uint8_t digest[DIGEST_BYTES]);
/**
 * image_store_pretend_gone() - Count as if an image were removed, so that a dry run asks the same questions as a real one
 * @store:	The store; nothing of it is changed but its counts, and image_store_pretend_back() must follow in the same turn
 * @image:	Of @store
 * @orphan:	As of image_store_remove()
 * @arg:	Handed to @orphan
 * @err:	Filled on failure: NO_MEMORY; nothing is changed then
 *
 * Return: 0, or -1 with @err set
 */
int image_store_pretend_gone(struct image_store *store, const struct image *image, void (*orphan)(void *arg, const uint8_t key[DIGEST_BYTES]),
			     void *arg, struct sbx_err *err) SBX_WUR;
/** image_store_pretend_back() - Undo image_store_pretend_gone() of @image */
void image_store_pretend_back(struct image_store *store, const struct image *image);
/**
 * image_store_tag() - Give an image a further name
 * @store:	The store
 * @ref_text:	Any spelling of its name
 * @name:	The new name; an image that has it already loses it
 * @err:	Filled on failure: INVALID_REQUEST (not a reference, or one with a digest), IMAGE_NOT_FOUND, SYSTEM, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int image_store_tag(struct image_store *store, const char *ref_text, const char *name, struct sbx_err *err) SBX_WUR;

/** image_store_next() - Walk the images of @store by name: NULL for @after gives the first; Return: NULL at the end */
const struct image *image_store_next(struct image_store *store, const struct image *after);

/**
 * image_store_remove() - Forget an image
 * @store:		The store
 * @ref_text:		Any spelling
 * @orphan:		Called for each layer key that no remaining image uses, before this returns; may be NULL
 * @arg:		Handed to @orphan
 * @err:		Filled on failure: INVALID_REQUEST, IMAGE_NOT_FOUND, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int image_store_remove(struct image_store *store, const char *ref_text,
		       void (*orphan)(void *arg, const uint8_t key[DIGEST_BYTES]), void *arg, struct sbx_err *err) SBX_WUR;

#endif
