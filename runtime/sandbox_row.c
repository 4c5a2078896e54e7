// SPDX-License-Identifier: Apache-2.0
#include "runtime/sandbox_int.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"

#include <string.h>

/* 64-bit figures travel as decimal text: a JSON number is exact to 2^53 only. */
static void key_u64_text(struct jw *w, const char *key, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	jw_key_str(w, key, text);
}

static void write_pairs(struct jw *w, const struct sandbox_pair *pairs, size_t n)
{
	jw_object(w);
	for (size_t i = 0; i < n; i++)
		jw_key_str(w, pairs[i].key, pairs[i].value);
	jw_object_end(w);
}

static void write_volumes(struct jw *w, const struct sandbox_spec *spec)
{
	jw_key(w, "volumes");
	jw_array(w);
	for (size_t i = 0; i < spec->n_volumes; i++) {
		const struct sandbox_volume *v = &spec->volumes[i];

		jw_object(w);
		jw_key_i64(w, "kind", v->kind);
		jw_key_str(w, "name", v->name);
		jw_key_str(w, "source", v->source);
		jw_key_str(w, "sub_path", v->sub_path);
		jw_key_str(w, "mount_path", v->mount_path);
		jw_key_bool(w, "read_only", v->read_only);
		jw_key_bool(w, "create", v->create);
		jw_key_bool(w, "remove_at_end", v->remove_at_end);
		jw_key_i64(w, "size_mib", v->size_mib);
		jw_key_bool(w, "size_asked", v->size_asked);
		jw_object_end(w);
	}
	jw_array_end(w);
}

void row_write_spec(const struct sandbox_spec *spec, struct buf *out)
{
	struct jw w = {.out = out};

	jw_object(&w);
	jw_key_str(&w, "image", spec->image_uri);
	jw_key(&w, "entrypoint");
	jw_array(&w);
	for (char **arg = spec->entrypoint; arg && *arg; arg++)
		jw_str(&w, *arg);
	jw_array_end(&w);
	jw_key(&w, "env");
	write_pairs(&w, spec->env, spec->n_env);
	write_volumes(&w, spec);
	jw_key_str(&w, "os", spec->platform_os);
	jw_key_str(&w, "arch", spec->platform_arch);
	jw_key_i64(&w, "timeout_s", spec->timeout_s);
	key_u64_text(&w, "memory_bytes", spec->memory_bytes);
	jw_key_i64(&w, "cpu_millicores", spec->cpu_millicores);
	jw_key_i64(&w, "pids_max", spec->pids_max);
	jw_key_i64(&w, "disk_mib", spec->disk_mib);
	jw_key_i64(&w, "renew_extend_s", spec->renew_extend_s);
	jw_key_bool(&w, "image_entrypoint", spec->image_entrypoint);
	jw_object_end(&w);
}

void row_write_metadata(const struct sandbox_spec *spec, struct buf *out)
{
	struct jw w = {.out = out};

	write_pairs(&w, spec->metadata, spec->n_metadata);
}

/* ---- back ---- */

static int broken(const char *what, struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_PROTOCOL, 0, "stored sandbox: %s", what);
}

/* A copy of the string member; absent ones become @or_else, which may be NULL. */
static int read_text(const struct jv *object, const char *key, const char *or_else, char **ret, struct sbx_err *err)
{
	const char *text = jv_str(jv_get(object, key));

	if (!text)
		text = or_else;
	if (!text)
		return 0;
	*ret = strdup(text);
	return *ret ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "stored sandbox");
}

static int64_t read_number(const struct jv *object, const char *key)
{
	int64_t v = 0;

	return jv_i64(jv_get(object, key), &v) < 0 ? 0 : v;
}

static bool read_bool(const struct jv *object, const char *key)
{
	bool v = false;

	return jv_bool(jv_get(object, key), &v) == 0 && v;
}

static int read_pairs(const struct jv *object, struct sandbox_pair **ret, size_t *ret_n, struct sbx_err *err)
{
	size_t n = jv_count(object);

	if (jv_type(object) != JV_OBJECT)
		return broken("a member is not an object", err);
	*ret = calloc(n ? n : 1, sizeof(**ret));
	if (!*ret)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "stored sandbox");
	for (const struct jv *v = jv_first(object); v; v = jv_next(v)) {
		struct sandbox_pair *p = &(*ret)[(*ret_n)++];

		p->key = strdup(jv_name(v));
		p->value = strdup(jv_str(v) ? jv_str(v) : "");
		if (!p->key || !p->value)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "stored sandbox");
	}
	return 0;
}

static int read_entrypoint(const struct jv *array, struct sandbox_spec *ret, struct sbx_err *err)
{
	size_t n = 0;

	ret->entrypoint = calloc(jv_count(array) + 1, sizeof(*ret->entrypoint));
	if (!ret->entrypoint)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "stored sandbox");
	for (const struct jv *v = jv_first(array); v; v = jv_next(v)) {
		if (!jv_str(v))
			return broken("entrypoint", err);
		ret->entrypoint[n] = strdup(jv_str(v));
		if (!ret->entrypoint[n++])
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "stored sandbox");
	}
	return 0;
}

static int read_volumes(const struct jv *array, struct sandbox_spec *ret, struct sbx_err *err)
{
	size_t n = jv_count(array);

	ret->volumes = calloc(n ? n : 1, sizeof(*ret->volumes));
	if (!ret->volumes)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "stored sandbox");
	for (const struct jv *v = jv_first(array); v; v = jv_next(v)) {
		struct sandbox_volume *out = &ret->volumes[ret->n_volumes++];

		out->kind = read_number(v, "kind") == SANDBOX_VOLUME_HOST ? SANDBOX_VOLUME_HOST : SANDBOX_VOLUME_NAMED;
		out->read_only = read_bool(v, "read_only");
		out->create = read_bool(v, "create");
		out->remove_at_end = read_bool(v, "remove_at_end");
		out->size_mib = (uint32_t)read_number(v, "size_mib");
		out->size_asked = read_bool(v, "size_asked");
		if (read_text(v, "name", "", &out->name, err) < 0 || read_text(v, "source", "", &out->source, err) < 0 ||
		    read_text(v, "sub_path", "", &out->sub_path, err) < 0 ||
		    read_text(v, "mount_path", "", &out->mount_path, err) < 0)
			return -1;
	}
	return 0;
}

static int read_spec(const struct jv *root, const struct jv *metadata, struct sandbox_spec *ret, struct sbx_err *err)
{
	const char *memory = jv_str(jv_get(root, "memory_bytes"));

	if (read_text(root, "image", "", &ret->image_uri, err) < 0 || read_text(root, "os", NULL, &ret->platform_os, err) < 0 ||
	    read_text(root, "arch", NULL, &ret->platform_arch, err) < 0 ||
	    read_entrypoint(jv_get(root, "entrypoint"), ret, err) < 0 ||
	    read_pairs(jv_get(root, "env"), &ret->env, &ret->n_env, err) < 0 ||
	    read_pairs(metadata, &ret->metadata, &ret->n_metadata, err) < 0 ||
	    read_volumes(jv_get(root, "volumes"), ret, err) < 0)
		return -1;
	if (memory && num_u64(memory, strlen(memory), UINT64_MAX, &ret->memory_bytes) < 0)
		return broken("memory_bytes", err);
	ret->timeout_s = read_number(root, "timeout_s");
	ret->cpu_millicores = (uint32_t)read_number(root, "cpu_millicores");
	ret->pids_max = (uint32_t)read_number(root, "pids_max");
	ret->disk_mib = (uint32_t)read_number(root, "disk_mib");
	ret->renew_extend_s = (uint32_t)read_number(root, "renew_extend_s");
	ret->image_entrypoint = read_bool(root, "image_entrypoint");
	return 0;
}

int row_read_spec(const char *spec_json, const char *metadata_json, struct sandbox_spec *ret, struct sbx_err *err)
{
	struct sandbox_spec spec = {0};

	auto_jv root = jv_parse(spec_json, strlen(spec_json), err);
	auto_jv metadata = root ? jv_parse(metadata_json, strlen(metadata_json), err) : NULL;
	if (!root || !metadata || read_spec(root, metadata, &spec, err) < 0) {
		sandbox_spec_free(&spec);
		return -1;
	}
	*ret = spec;
	return 0;
}
