// SPDX-License-Identifier: Apache-2.0
/* Manifests, indexes and configurations: what is accepted keeps its promises. */
#include "images/image_store.h"
#include "images/manifest.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct manifest_platform platform = {.os = "linux", .arch = "amd64"};
	static struct manifest m;
	struct image image = {0};
	uint8_t(*diff_ids)[DIGEST_BYTES] = NULL;
	struct sbx_err err = {0};

	if (manifest_parse(data, size, NULL, &platform, &m, &err) == 0) {
		assert(m.kind == MANIFEST_INDEX || (m.kind == MANIFEST_IMAGE && m.n_layers >= 1 && m.n_layers <= LIMIT_LAYERS));
		assert(m.kind != MANIFEST_INDEX || m.chosen.size <= MANIFEST_MAX_BYTES);
		for (size_t i = 0; i < m.n_layers; i++)
			assert(m.layer[i].size && m.layer[i].size <= MANIFEST_BLOB_MAX_BYTES && m.layer[i].form != LAYER_FORM_NONE);
	} else {
		assert(err.code == SBX_E_IMAGE_INVALID || err.code == SBX_E_NO_MEMORY);
	}
	if (manifest_config(data, size, &platform, 1, &image, &diff_ids, &err) == 0) {
		assert(diff_ids && image.workdir && (!image.workdir[0] || image.workdir[0] == '/') && image.user);
		for (char **e = image.env; e && *e; e++)
			assert(strchr(*e, '=') && **e != '=');
	}
	free(diff_ids);
	image_clear(&image);
	return 0;
}
