// SPDX-License-Identifier: Apache-2.0
#include "base/config_file.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sbx_err err;
	struct config_value *tree = config_parse("fuzz", (const char *)data, size, &err);

	config_free(tree);
	return 0;
}
