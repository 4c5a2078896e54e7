/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: pulls from inside: what pull.c, pull_blob.c, pull_manifest.c and pull_layer.c share
 *
 * Whatever happens only notes what it changes and calls pull_soon(); pull.c then looks at every pull and does the next steps.  So
 * nothing is freed while somebody above still uses it, and the order in which answers come does not matter.  Blobs and layers may
 * be wanted by several pulls: a job belongs to one of them, and the others look into the store when it is over.
 */
#ifndef IMAGES_PULL_INT_H
#define IMAGES_PULL_INT_H

#include "images/pull.h"

#include "base/limits.h"
#include "base/loop.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/manifest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PULL_ENDPOINTS_MAX 9u
#define PULL_DOCUMENTS_MAX 2u /* index, manifest */

struct fetch_client;
struct reaper;
struct transfer;

enum stage { STAGE_MANIFEST = 1, STAGE_CONTENT };

/* One blob that is on its way; at most one for a digest. */
struct blob_job {
	struct image_pulls *set;
	struct blob_job *next;
	struct pull *owner; /* borrowed */
	uint8_t digest[DIGEST_BYTES];
	uint64_t size, done;
	int file; /* borrowed from the owner; -1: from the registry */
	uint64_t file_offset;
	bool counted; /* among those of images.parallel_blobs */
	struct transfer *transfer;
	uint64_t tag; /* of the GET under way; 0: none */
	bool ended, resumed, again;
	struct sbx_err err, fetch_err;
};

struct unpacking {
	struct image_pulls *set;
	struct unpacking *next;
	uint64_t pull_id; /* who asked */
	uint8_t key[DIGEST_BYTES];
};

struct layer {
	uint8_t key[DIGEST_BYTES];
	uint64_t unpacked;
	unsigned tries;
	uint64_t not_before_mono_ms;
	bool asked; /* the broker was asked whether it is there */
	bool asking;
};

struct document {
	uint8_t digest[DIGEST_BYTES];
	uint64_t size;
	int fd; /* memory file */
};

struct image_pull_ticket {
	struct pull *pull;
	struct image_pull_ticket *next;
	struct image_pull_request request; /* its texts are gone */
};

struct pull {
	struct image_pulls *set;
	struct pull *next;
	uint64_t id;
	struct image_ref ref;
	char name[IMAGE_REF_TEXT_BYTES];
	struct registry_credentials credentials;
	bool has_credentials;
	char endpoint[PULL_ENDPOINTS_MAX][FETCH_HOST_BYTES];
	size_t n_endpoints, at_endpoint;
	enum stage stage;
	struct image_pull_ticket *tickets;
	size_t n_tickets;
	struct fetch_client *fetch;
	uint64_t manifest_tag;
	int manifest_fd; /* memory file that is being filled, or -1 */
	struct document document[PULL_DOCUMENTS_MAX];
	size_t n_documents;
	struct manifest manifest;
	bool has_config;
	struct image image;
	uint8_t (*diff_ids)[DIGEST_BYTES];
	struct image_pull_layer shown[LIMIT_LAYERS];
	struct layer layer[LIMIT_LAYERS];
	struct sbx_err err; /* why this endpoint failed */
	bool is_local;
	bool made; /* the image is in the store */
	struct image_pull_local local; /* its manifest: only while it begins */
};

/* What a local pull has put into the stores. */
struct brought {
	struct brought *next;
	uint8_t blob[PULL_DOCUMENTS_MAX + 1 + LIMIT_LAYERS][DIGEST_BYTES];
	uint8_t key[LIMIT_LAYERS][DIGEST_BYTES];
	size_t n_blobs, n_keys;
};

struct image_pulls {
	struct image_pulls_config config;
	struct reaper *reaper; /* of the children that receive blobs */
	struct brought *brought; /* owned; of failed imports, to be taken out when nobody can add to it any more */
	struct pull *pulls;
	struct blob_job *jobs;
	struct unpacking *unpackings;
	struct loop_timer *pump, *progress, *busy;
	uint64_t last_id, last_tag;
	unsigned n_pulls, n_tickets;
};

/* ---- pull.c ---- */

/** pull_soon() - Have every pull of @set looked at in the next turn of the loop */
void pull_soon(struct image_pulls *set);
/** pull_note_failure() - This try of @p has failed with @err, unless it had before */
void pull_note_failure(struct pull *p, const struct sbx_err *err);
/** pull_by_id() - The pull @id of @set, or NULL: it has ended */
struct pull *pull_by_id(const struct image_pulls *set, uint64_t id);

/* ---- pull_blob.c ---- */

/** pull_blob_job() - The job that brings @digest, or NULL */
struct blob_job *pull_blob_job(const struct image_pulls *set, const uint8_t digest[DIGEST_BYTES]);
/** pull_blob_free() - End @job, wherever it is; what came is kept for the next one */
void pull_blob_free(struct blob_job *job);
/** pull_blob_settle() - Look at @job, whose child has ended; it may begin again, or wait for what sandbox-fetch has to say */
void pull_blob_settle(struct blob_job *job);
/** pull_blob_local() - Where in the files of the local pull @p the blob is; Return: 0, or -1 with @err set */
int pull_blob_local(struct pull *p, const uint8_t digest[DIGEST_BYTES], uint64_t size, int *ret_fd, uint64_t *ret_offset,
		    struct sbx_err *err) SBX_WUR;
/**
 * pull_blob_need() - Have a blob brought, unless it is there or on its way
 * @p:		For whom
 * @digest:	Which
 * @size:	What its descriptor says
 * @file:	Where its bytes are, for what has been fetched already; -1: the registry or the archive has them
 * @err:	Filled on failure
 *
 * Return: 1 when the blob is in the store, 0 when it is on its way or waits for its turn, -1 with @err set
 */
int pull_blob_need(struct pull *p, const uint8_t digest[DIGEST_BYTES], uint64_t size, int file, struct sbx_err *err) SBX_WUR;

/* ---- pull_manifest.c ---- */

/** pull_manifest_ask() - Ask the registry for the manifest @ref, a tag or a digest; Return: 0, or -1 with @err set */
int pull_manifest_ask(struct pull *p, const char *ref, struct sbx_err *err) SBX_WUR;
/** pull_manifest_local() - Take @n bytes of @data as the manifest of a local pull; Return: 0, or -1 with @err set */
int pull_manifest_local(struct pull *p, const void *data, size_t n, const char *type, struct sbx_err *err) SBX_WUR;
/** pull_manifest_take() - Take what is in p->manifest_fd: the content follows, or what an index has chosen; Return: 0, or -1 with @err set */
int pull_manifest_take(struct pull *p, const char *type, struct sbx_err *err) SBX_WUR;
/** pull_manifest_config() - Take the configuration, which is in the store; Return: 0, or -1 with @err set */
int pull_manifest_config(struct pull *p, struct sbx_err *err) SBX_WUR;

/* ---- pull_layer.c ---- */

/** pull_layer_advance() - The next step of layer @index: ask for it, pull it, have it unpacked; Return: 0, or -1 with @err set */
int pull_layer_advance(struct pull *p, size_t index, struct sbx_err *err) SBX_WUR;
/** pull_layer_unpacking() - The unpacking of the layer @key that is under way, or NULL */
struct unpacking *pull_layer_unpacking(const struct image_pulls *set, const uint8_t key[DIGEST_BYTES]);

#endif
