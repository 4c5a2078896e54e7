/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: manifests, indexes and configurations of images
 *
 * Reads the three JSON documents of an image (OCI image-spec 1.1, Docker "image manifest version 2, schema 2") from raw bytes
 * whose digest the caller has checked or computed.  Nothing is guessed: the media type of the answer, the one in the
 * document and its members must agree (CVE-2021-41190 is what happens otherwise), layers are of kinds that the unpacker
 * knows, digests are sha256, sizes are bounded.  What is refused is refused by its name: schema 1, foreign layers,
 * artifacts, encrypted layers.
 */
#ifndef IMAGES_MANIFEST_H
#define IMAGES_MANIFEST_H

#include "base/err.h"
#include "base/limits.h"
#include "images/digest.h"
#include "images/layer_form.h"

#include <stddef.h>
#include <stdint.h>

#define MANIFEST_MAX_BYTES	(4u * 1024 * 1024) /* what registries themselves take */
#define MANIFEST_CONFIG_BYTES	(8u * 1024 * 1024) /* the longest histories stay below 200 KiB */
#define MANIFEST_BLOB_MAX_BYTES (1ull << 40)
#define MANIFEST_INDEX_MAX	1024u /* entries of an index; docker.io/library images have 20 */
#define MANIFEST_TYPE_BYTES	128

/* What to ask a registry for, as the value of an Accept header. */
#define MANIFEST_ACCEPT \
	"application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " \
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

enum manifest_kind { MANIFEST_NONE = 0, MANIFEST_IMAGE, MANIFEST_INDEX };

struct manifest_blob {
	uint8_t digest[DIGEST_BYTES];
	uint64_t size;
	enum layer_form form; /* LAYER_FORM_NONE for what is no layer */
};

struct manifest_platform {
	char os[32];
	char arch[32];
	char variant[32]; /* "" for none */
};

struct manifest {
	enum manifest_kind kind;
	struct manifest_blob chosen; /* INDEX: the manifest for the wanted platform */
	struct manifest_blob config; /* IMAGE */
	struct manifest_blob layer[LIMIT_LAYERS]; /* IMAGE; lowest first */
	size_t n_layers;
	uint64_t packed_bytes; /* IMAGE: all layers together */
};

struct image;

/** manifest_host_platform() - Fill @ret with what this machine runs ("linux", "amd64", "") */
void manifest_host_platform(struct manifest_platform *ret);

/**
 * manifest_parse() - Read a manifest or an index
 * @data:	Raw bytes
 * @n:		Their number; more than MANIFEST_MAX_BYTES is refused
 * @type:	Media type that came with them (parameters are cut off); NULL or "": only the document says it
 * @want:	Platform to choose from an index
 * @ret:	Written on success
 * @err:	Filled on failure: IMAGE_INVALID (says what is wrong, or what is not taken), NO_MEMORY
 *
 * In an index, attestations and entries for unknown platforms are passed over.
 *
 * Return: 0, or -1 with @err set
 */
int manifest_parse(const void *data, size_t n, const char *type, const struct manifest_platform *want, struct manifest *ret,
		   struct sbx_err *err) SBX_WUR;

/**
 * manifest_config() - Read the configuration of an image
 * @data:	Raw bytes
 * @n:		Their number
 * @want:	Platform that it must be for
 * @n_layers:	Layers of the manifest; the configuration must name as many
 * @image:	env, workdir, user, entrypoint and cmd are filled; the rest stays
 * @ret_diff_ids: @n_layers digests of the unpacked layers, lowest first; the caller's to free()
 * @err:	Filled on failure: IMAGE_INVALID, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int manifest_config(const void *data, size_t n, const struct manifest_platform *want, size_t n_layers, struct image *image,
		    uint8_t (**ret_diff_ids)[DIGEST_BYTES], struct sbx_err *err) SBX_WUR;

#endif
