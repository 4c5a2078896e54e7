// SPDX-License-Identifier: Apache-2.0
#include "netpolicy/policy.h"
#include "runtime/sandbox.h"

#include <stdlib.h>
#include <string.h>

void sandbox_pairs_free(struct sandbox_pair *pairs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(pairs[i].key);
		free(pairs[i].value);
	}
	free(pairs);
}

void sandbox_spec_free(struct sandbox_spec *spec)
{
	if (!spec)
		return;
	for (char **arg = spec->entrypoint; arg && *arg; arg++)
		free(*arg);
	free(spec->entrypoint);
	free(spec->image_uri);
	free(spec->image_user);
	if (spec->image_password)
		explicit_bzero(spec->image_password, strlen(spec->image_password));
	free(spec->image_password);
	sandbox_pairs_free(spec->env, spec->n_env);
	sandbox_pairs_free(spec->metadata, spec->n_metadata);
	for (size_t i = 0; i < spec->n_volumes; i++) {
		free(spec->volumes[i].name);
		free(spec->volumes[i].source);
		free(spec->volumes[i].sub_path);
		free(spec->volumes[i].mount_path);
	}
	free(spec->volumes);
	policy_free(spec->policy);
	free(spec->platform_os);
	free(spec->platform_arch);
	*spec = (struct sandbox_spec){0};
}
