/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the JSON documents of an image that leaves, as OCI image-spec 1.1 has them
 *
 * The same image gives the same bytes.  Of an image that was pulled or imported with its configuration, all of that is
 * kept but rootfs.diff_ids, which must be those of the layers as they are written.
 */
#ifndef IMAGES_EXPORT_DOCUMENTS_H
#define IMAGES_EXPORT_DOCUMENTS_H

#include "base/buf.h"
#include "base/err.h"
#include "images/digest.h"
#include "images/layer_form.h"

#include <stddef.h>
#include <stdint.h>

struct image;

struct export_layer {
	uint8_t digest[DIGEST_BYTES];
	uint8_t diff_id[DIGEST_BYTES];
	uint64_t size;
	enum layer_form form;
};

/**
 * export_config() - Write a configuration
 * @image:	Start-up data, used when there is no @old
 * @old:	The configuration that the image came with, or NULL
 * @n_old:	Its bytes
 * @layers:	diff_id of each, lowest first
 * @n:		How many
 * @out:	Empty; gets the JSON
 * @err:	Filled on failure: IMAGE_INVALID (@old is no configuration), NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int export_config(const struct image *image, const char *old, size_t n_old, const struct export_layer *layers, size_t n,
		  struct buf *out, struct sbx_err *err) SBX_WUR;
/** export_manifest() - Write the manifest of @n @layers and the configuration @config of @config_size bytes; Return: 0 or -1, NO_MEMORY */
int export_manifest(const uint8_t config[DIGEST_BYTES], uint64_t config_size, const struct export_layer *layers, size_t n,
		    struct buf *out, struct sbx_err *err) SBX_WUR;
/** export_index() - Write the index.json of a layout with the one manifest @digest of @size bytes, which is called @name; Return: 0 or -1 */
int export_index(const uint8_t digest[DIGEST_BYTES], uint64_t size, const char *name, struct buf *out, struct sbx_err *err) SBX_WUR;

#endif
