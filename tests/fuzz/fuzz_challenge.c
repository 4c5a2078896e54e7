// SPDX-License-Identifier: Apache-2.0
/* What is accepted holds no character that a header or a URL could not: it decides where a password goes. */
#include "images/registry_auth.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct registry_challenge got[REGISTRY_CHALLENGES_MAX];
	static struct registry_credentials credentials;
	static char token[REGISTRY_TOKEN_BYTES];
	struct sbx_err err = {0};
	char text[64];
	size_t n = 0;

	if (registry_challenge_parse((const char *)data, size, got, &n, &err) == 0) {
		assert(n >= 1 && n <= REGISTRY_CHALLENGES_MAX);
		for (size_t i = 0; i < n; i++) {
			const char *const fields[] = {got[i].realm, got[i].service, got[i].scope};

			assert(got[i].scheme != REGISTRY_SCHEME_BEARER || got[i].realm[0]);
			for (size_t k = 0; k < 3; k++)
				for (const char *c = fields[k]; *c; c++)
					assert(*c >= 0x20 && *c <= 0x7e);
		}
	}
	if (registry_token_parse((const char *)data, size, token, &err) == 0)
		for (const char *c = token; *c; c++)
			assert(*c > ' ' && *c <= '~');
	registry_error_text((const char *)data, size, text, sizeof(text));
	for (const char *c = text; *c; c++)
		assert(*c >= ' ' && *c <= '~');
	if (registry_auth_file((const char *)data, size, "r.test", "team/image", &credentials, &err) == 0)
		assert(memchr(credentials.user, 0, sizeof(credentials.user)) && memchr(credentials.password, 0, sizeof(credentials.password)));
	return 0;
}
