// SPDX-License-Identifier: Apache-2.0
/* passwd, group and environment files of a hostile image. */
#include "runtime/agent/agent_env.h"
#include "runtime/agent/agent_users.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct users_identity id = {0};
	struct env_set base = {0}, set = {0};
	const char *text = (const char *)data;
	char name[USERS_NAME_BYTES];
	uint32_t gid;

	if (!users_find_passwd(text, size, NULL, 1000, &id) && (id.uid != 1000 || memchr(id.name, 0, sizeof(id.name)) == NULL))
		abort();
	if (!users_find_passwd(text, size, "user", 0, &id) && (id.uid > USERS_MAX_ID || id.gid > USERS_MAX_ID))
		abort();
	users_add_groups(text, size, &id);
	if (id.n_groups > USERS_GROUPS)
		abort();
	if (!users_find_group(text, size, "user", &gid) && gid > USERS_MAX_ID)
		abort();
	if (!users_group_name(text, size, 10, name, sizeof(name)) && !memchr(name, 0, sizeof(name)))
		abort();
	if (env_put(&base, "A=1") || env_file(&set, &base, text, size))
		abort();
	for (size_t i = 0; i < set.n; i++)
		if (!strchr(set.at[i], '='))
			abort();
	env_clear(&set);
	env_clear(&base);
	return 0;
}
