// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_spec.h"

#include "base/limits.h"

#include <errno.h>
#include <string.h>

int spec_frame(const uint8_t *data, size_t n, struct agent_frame *ret, const uint8_t **payload)
{
	struct agent_frame f;

	if (n < sizeof(f))
		return 0;
	memcpy(&f, data, sizeof(f));
	if (f.size > AGENT_IN_FRAME - sizeof(f) || f.zero || f.type == AGENT_NONE || f.type >= AGENT_ATTACHED)
		return -EPROTO;
	if (n < sizeof(f) + f.size)
		return 0;
	*ret = f;
	*payload = data + sizeof(f);
	return (int)(sizeof(f) + f.size);
}

const char *spec_next(const char *s)
{
	return s + strlen(s) + 1;
}

/* Counts the strings in @n bytes at @s, which must end with a NUL; one longer than the kernel takes is refused. */
static int count_strings(const char *s, size_t n)
{
	int count = 0;

	if (n && s[n - 1])
		return -EPROTO;
	for (const char *end = s + n; s < end; count++) {
		size_t len = strlen(s) + 1;

		if (len > LIMIT_SPAWN_STRING_BYTES)
			return -EPROTO;
		s += len;
	}
	return count;
}

int spec_read(const uint8_t *data, size_t n, int entrypoint, struct spec_view *ret)
{
	struct spec_view v;

	if (n < sizeof(v.spec))
		return -EPROTO;
	memcpy(&v.spec, data, sizeof(v.spec));
	const struct agent_spec *s = &v.spec;
	if (s->string_bytes > n - sizeof(*s) || s->string_bytes > LIMIT_SPAWN_BYTES)
		return -EPROTO;
	size_t rest = n - sizeof(*s) - s->string_bytes;
	if (s->flags & AGENT_SPEC_DRIVER ? entrypoint || !s->n_args || rest > AGENT_DRIVER_TEXT_MAX ||
						   (s->flags & (AGENT_SPEC_PTY | AGENT_SPEC_STDIN | AGENT_SPEC_BACKGROUND | AGENT_SPEC_SHELL))
					 : rest)
		return -EPROTO;
	if (s->n_args > LIMIT_SPAWN_STRINGS || s->n_env > LIMIT_SPAWN_STRINGS)
		return -EPROTO;
	if (!s->n_args && !entrypoint) /* only a sandbox may have nothing to run */
		return -EPROTO;
	if ((s->flags & AGENT_SPEC_SHELL) && s->n_args != 1)
		return -EPROTO;
	if ((s->flags & AGENT_SPEC_GID) && !(s->flags & AGENT_SPEC_UID))
		return -EPROTO;
	const char *text = (const char *)data + sizeof(*s);
	int count = count_strings(text, s->string_bytes);
	/* START names the user even where it is empty; a START without it is taken as the same */
	int fixed = count - (int)s->n_args - (int)s->n_env;
	if (count < 0 || (fixed != 1 && !(entrypoint && fixed == 2)))
		return -EPROTO;
	v.cwd = text;
	text = spec_next(text);
	v.user = "";
	if (fixed == 2) {
		v.user = text;
		text = spec_next(text);
	}
	v.args = text;
	for (uint32_t i = 0; i < s->n_args; i++)
		text = spec_next(text);
	v.env = text;
	v.text = data + sizeof(*s) + s->string_bytes;
	v.text_bytes = (uint32_t)rest;
	*ret = v;
	return 0;
}

int spec_read_fs(const uint8_t *data, size_t n, struct spec_fs *ret)
{
	struct spec_fs v;

	if (n < sizeof(v.fs))
		return -EPROTO;
	memcpy(&v.fs, data, sizeof(v.fs));
	const struct agent_fs *f = &v.fs;
	size_t rest = n - sizeof(*f);
	if (f->op == AGENT_FS_NONE || f->op >= AGENT_FS_OP_COUNT)
		return -EPROTO;
	if (f->string_bytes != rest || rest > LIMIT_API_BODY_BYTES)
		return -EPROTO;
	v.strings = (const char *)data + sizeof(*f);
	int count = count_strings(v.strings, f->string_bytes);
	if (count < 0 || (uint32_t)count != f->n_strings)
		return -EPROTO;
	*ret = v;
	return 0;
}
