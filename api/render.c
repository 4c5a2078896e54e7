// SPDX-License-Identifier: Apache-2.0
#include "api/render.h"

#include "base/wallclock.h"
#include "runtime/sandbox.h"

#include <string.h>

void render_instant(struct jw *w, const char *key, int64_t wall_usec)
{
	char text[RFC3339_SIZE];

	rfc3339_format(wall_usec, text);
	jw_key_str(w, key, text);
}

static void render_status(struct jw *w, const struct sandbox *sandbox)
{
	jw_key(w, "status");
	jw_object(w);
	jw_key_str(w, "state", sandbox_state_name(sandbox->state));
	jw_key_str(w, "reason", sandbox->reason[0] ? sandbox->reason : NULL);
	jw_key_str(w, "message", sandbox->message[0] ? sandbox->message : NULL);
	render_instant(w, "lastTransitionAt", sandbox->transition_wall_usec);
	jw_object_end(w);
}

void render_sandbox(struct jw *w, const struct sandbox *sandbox, enum render_form form)
{
	const struct sandbox_spec *spec = &sandbox->spec;

	jw_object(w);
	jw_key_str(w, "id", sandbox->id_text);
	if (form == RENDER_FULL && spec->image_uri) {
		jw_key(w, "image");
		jw_object(w);
		jw_key_str(w, "uri", spec->image_uri);
		jw_object_end(w);
	}
	render_status(w, sandbox);
	if (spec->platform_os && spec->platform_arch) {
		jw_key(w, "platform");
		jw_object(w);
		jw_key_str(w, "os", spec->platform_os);
		jw_key_str(w, "arch", spec->platform_arch);
		jw_object_end(w);
	}
	if (spec->n_metadata) {
		jw_key(w, "metadata");
		jw_object(w);
		for (size_t i = 0; i < spec->n_metadata; i++)
			jw_key_str(w, spec->metadata[i].key, spec->metadata[i].value);
		jw_object_end(w);
	}
	jw_key(w, "entrypoint");
	jw_array(w);
	for (char *const *arg = spec->entrypoint; arg && *arg; arg++)
		jw_str(w, *arg);
	jw_array_end(w);
	if (sandbox->expires_wall_usec)
		render_instant(w, "expiresAt", sandbox->expires_wall_usec);
	render_instant(w, "createdAt", sandbox->created_wall_usec);
	jw_object_end(w);
}

void render_pagination(struct jw *w, uint32_t page, uint32_t page_size, size_t total)
{
	uint64_t pages = (total + page_size - 1) / page_size;

	jw_object(w);
	jw_key_u64(w, "page", page);
	jw_key_u64(w, "pageSize", page_size);
	jw_key_u64(w, "totalItems", total);
	jw_key_u64(w, "totalPages", pages);
	jw_key_bool(w, "hasNextPage", page < pages);
	jw_object_end(w);
}

bool render_is_secret_name(const char *name)
{
	static const char *const parts[] = {"SECRET", "TOKEN", "PASSWORD", "PASSWD", "KEY", "CREDENTIAL"};

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (strcasestr(name, parts[i]))
			return true;
	return false;
}
