// SPDX-License-Identifier: Apache-2.0
/* A reference that is accepted must read back from its canonical and its familiar text as itself. */
#include "images/image_ref.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_ref ref;
	struct image_ref again;
	struct sbx_err err;
	char text[IMAGE_REF_TEXT_BYTES];

	if (image_ref_parse((const char *)data, size, &ref, &err) < 0) {
		assert(err.code == SBX_E_INVALID_REQUEST && strlen(err.msg) < sizeof(err.msg));
		return 0;
	}
	image_ref_canonical(&ref, text);
	assert(image_ref_parse(text, strlen(text), &again, &err) == 0 && !memcmp(&ref, &again, sizeof(ref)));
	image_ref_familiar(&ref, text);
	/* "host" spelled out as a registry image has a tag, so it stays one */
	assert(image_ref_parse(text, strlen(text), &again, &err) == 0 && !memcmp(&ref, &again, sizeof(ref)));
	return 0;
}
