/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: from a reference to an image that can be started
 *
 *	endpoint (mirrors first) -> manifest, through an index -> configuration and layers, side by side -> unpacked -> index
 *
 * All of it runs in sandboxd's loop and never blocks: transfers are sandbox-fetch's, bytes are hashed, written and synced by
 * blob_receive_main() children, unpacking is the broker's.  This file reads the JSON of manifests, after their digest.
 *
 * One pull serves everybody who wants the same image with the same credentials; one transfer serves all pulls that need
 * its blob, one unpacking all that need its layer.  The last one who leaves a pull cancels it.  What came stays in the
 * blob store, so the next pull goes on where this one stopped, also after a kill -9.
 */
#ifndef IMAGES_PULL_H
#define IMAGES_PULL_H

#include "base/err.h"
#include "base/limits.h"
#include "base/loop.h"
#include "images/digest.h"
#include "images/fetch_client.h"

#include <stdbool.h>
#include <stdint.h>

struct blob_store;
struct image_pulls;
struct image_pull_ticket;
struct image_store;
struct settings;

#define IMAGE_PULLS_MAX	  16u /* at once; more are refused */
#define IMAGE_PULL_TICKETS_MAX 2048u

struct image_layer_job {
	uint8_t key[DIGEST_BYTES];
	int blob_fd;   /* stays the caller's */
	uint32_t form; /* enum layer_form */
	uint8_t diff_id[DIGEST_BYTES];		    /* all zero: not checked */
	uint8_t lower[LIMIT_LAYERS][DIGEST_BYTES]; /* keys of what it lies upon, lowest first; they are unpacked */
	size_t n_lower;
};

typedef void image_layer_done(void *to, bool present, uint64_t bytes, const struct sbx_err *err);

/* What pulls need of the layers above; every done comes later, once, never from inside the call. */
struct image_pull_hooks {
	void *arg;
	int (*layer_stat)(void *arg, const uint8_t key[DIGEST_BYTES], image_layer_done *done, void *to, struct sbx_err *err);
	int (*layer_unpack)(void *arg, const struct image_layer_job *job, image_layer_done *done, void *to, struct sbx_err *err);
	/* No image is made of it any more; kept when an export, a commit or a sandbox needs it.  Nobody waits for the answer. */
	void (*layer_drop)(void *arg, const uint8_t key[DIGEST_BYTES]);
	/* Whether an export or a commit needs the blob. */
	bool (*blob_wanted)(void *arg, const uint8_t digest[DIGEST_BYTES]);
};

struct image_pulls_config {
	struct loop *loop;
	const struct settings *settings; /* borrowed */
	struct image_store *images;	 /* borrowed */
	struct blob_store *blobs;	 /* borrowed */
	struct fetch_starter starter;
	struct image_pull_hooks hooks;
	void (*ended)(void *arg); /* a pull has ended, well or not; may be NULL */
	void *ended_arg;
};

enum image_pull_layer_state {
	IMAGE_LAYER_WAITING = 0,
	IMAGE_LAYER_PULLING,
	IMAGE_LAYER_PULLED,
	IMAGE_LAYER_UNPACKING,
	IMAGE_LAYER_READY,
	IMAGE_LAYER_STATE_COUNT
};

struct image_pull_layer {
	uint8_t digest[DIGEST_BYTES];
	uint64_t size, done; /* packed bytes */
	enum image_pull_layer_state state;
};

struct image_pull_progress {
	const char *endpoint; /* host that is asked */
	const struct image_pull_layer *layers; /* n_layers 0: the manifest is not here yet */
	size_t n_layers;
	uint64_t done, total; /* packed bytes of all layers */
};

struct image_pull_request {
	const char *ref;	/* any spelling */
	const struct registry_credentials *credentials; /* NULL: those of images.auth_file */
	void *arg;
	void (*progress)(void *arg, const struct image_pull_progress *progress); /* may be NULL */
	/* Last: with no error the image is in the store under @name (canonical).  The ticket is gone. */
	void (*done)(void *arg, const char *name, const struct sbx_err *err);
};

/* An image whose parts are in files of ours: an archive that is imported, the layer of a commit. */
struct image_pull_local {
	const void *manifest; /* copied; a manifest or an index, as it is, since its digest counts */
	size_t n_manifest;
	const char *type; /* media type that is said of it elsewhere; "": only the document says it */
	void *arg;	  /* lives until done was called, or the ticket was left */
	/*
	 * A blob that the store has not: *@ret_size bytes from *@ret_offset of *@ret_fd, which stays the callee's.  They are hashed
	 * before they are believed.  Return: 0, or -ENOENT
	 */
	int (*find)(void *arg, const uint8_t digest[DIGEST_BYTES], int *ret_fd, uint64_t *ret_offset, uint64_t *ret_size);
};

/** image_pulls_reaper() - Who ends the children of transfers; as long-lived as @set */
struct reaper *image_pulls_reaper(const struct image_pulls *set);
/** image_pulls_new() - Make the set; Return: it (image_pulls_free() it), or NULL with @err set */
struct image_pulls *image_pulls_new(const struct image_pulls_config *config, struct sbx_err *err) SBX_WUR;
/** image_pulls_free() - Break all off without telling anybody; NULL is fine */
void image_pulls_free(struct image_pulls *set);
/**
 * image_pull() - Pull an image, or join who pulls it
 * @set:	The set
 * @request:	Texts are copied
 * @err:	Filled on failure: INVALID_REQUEST (reference, credentials), LIMIT, SYSTEM, NO_MEMORY
 *
 * Return: a ticket, valid until done was called, or NULL with @err set and done never called
 */
struct image_pull_ticket *image_pull(struct image_pulls *set, const struct image_pull_request *request, struct sbx_err *err) SBX_WUR;
/**
 * image_pull_local() - Make an image of parts that are here; as a pull, but without a registry
 * @set:	The set
 * @request:	Its name is the image's, and has no digest; credentials are not looked at
 * @local:	Copied
 * @err:	Filled on failure: INVALID_REQUEST (name), IMAGE_INVALID (manifest), LIMIT, SYSTEM, NO_MEMORY
 *
 * When it fails, what it brought into the stores and no image uses is removed again.
 *
 * Return: a ticket, as image_pull(), or NULL with @err set and done never called
 */
struct image_pull_ticket *image_pull_local(struct image_pulls *set, const struct image_pull_request *request,
					   const struct image_pull_local *local, struct sbx_err *err) SBX_WUR;
/** image_pull_leave() - Wait no longer: done is not called; the last one who leaves cancels the pull */
void image_pull_leave(struct image_pull_ticket *ticket);
/** image_pulls_wants_layer() - Whether a pull under way has unpacked the layer @key, or will */
bool image_pulls_wants_layer(const struct image_pulls *set, const uint8_t key[DIGEST_BYTES]);
/** image_pulls_wants_blob() - Whether a pull under way has the blob @digest, or will */
bool image_pulls_wants_blob(const struct image_pulls *set, const uint8_t digest[DIGEST_BYTES]);

#endif
