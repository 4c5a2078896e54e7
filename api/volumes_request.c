// SPDX-License-Identifier: Apache-2.0
#include "api/volumes_request.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/settings.h"
#include "runtime/broker/broker_msg.h"
#include "runtime/resources.h"
#include "runtime/sandbox.h"

#include <stdlib.h>
#include <string.h>

#define VOLUME_NAME_BYTES 63u /* a DNS label */

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_dns_label(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > VOLUME_NAME_BYTES || !is_lower_alnum(s[0]) || !is_lower_alnum(s[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_lower_alnum(s[i]) && s[i] != '-')
			return false;
	return true;
}

bool volumes_request_claim_valid(const char *name)
{
	size_t n = strlen(name);

	if (!n || n >= BROKER_CLAIM_BYTES || !is_lower_alnum(name[0]) || !is_lower_alnum(name[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_lower_alnum(name[i]) && !strchr("._-", name[i]))
			return false;
	return true;
}

/* ---- shape ---- */

static const char *const backends[] = {"host", "pvc", "ossfs"};

static void pvc_schema(struct schema *s, const struct schema_at *at, const struct jv *pvc)
{
	const struct schema_at here = {.up = at, .name = "pvc"};

	schema_str_needed(s, &here, pvc, "claimName");
	schema_bool(s, &here, pvc, "createIfNotExists", true);
	schema_bool(s, &here, pvc, "deleteOnSandboxTermination", false);
	schema_str(s, &here, pvc, "storageClass");
	schema_str(s, &here, pvc, "storage");
	schema_array(s, &here, pvc, "accessModes");
}

static void volume_schema(struct schema *s, const struct schema_at *at, const struct jv *v)
{
	unsigned n = 0;

	if (jv_type(v) != JV_OBJECT) {
		schema_fault(s, at, "model_type", "must be an object");
		return;
	}
	const char *name = schema_str_needed(s, at, v, "name");
	if (name && !is_dns_label(name)) {
		const struct schema_at here = {.up = at, .name = "name"};

		schema_fault(s, &here, "string_pattern_mismatch", "must be a DNS label of at most 63 characters");
	}
	const char *path = schema_str_needed(s, at, v, "mountPath");
	if (path && path[0] != '/') {
		const struct schema_at here = {.up = at, .name = "mountPath"};

		schema_fault(s, &here, "string_pattern_mismatch", "must be an absolute path");
	}
	schema_bool(s, at, v, "readOnly", false);
	schema_str(s, at, v, "subPath");
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		n += schema_object(s, at, v, backends[i]) != NULL;
	if (n != 1)
		schema_fault(s, at, "value_error", "exactly one of host, pvc and ossfs must be given");
	const struct jv *host = schema_object(s, at, v, "host");
	const struct schema_at host_at = {.up = at, .name = "host"};
	const char *source = host ? schema_str_needed(s, &host_at, host, "path") : NULL;
	if (source && source[0] != '/') {
		const struct schema_at here = {.up = &host_at, .name = "path"};

		schema_fault(s, &here, "string_pattern_mismatch", "must be an absolute path");
	}
	const struct jv *pvc = schema_object(s, at, v, "pvc");
	if (pvc)
		pvc_schema(s, at, pvc);
}

void volumes_request_schema(struct schema *s, const struct schema_at *at, const struct jv *volumes)
{
	size_t i = 0;

	for (const struct jv *v = jv_first(volumes); v; v = jv_next(v), i++) {
		const struct schema_at here = {.up = at, .index = i};

		volume_schema(s, &here, v);
	}
}

/* ---- values ---- */

static bool has_dot_segment(const char *path)
{
	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");

		if (n == 2 && p[0] == '.' && p[1] == '.')
			return true;
		p += n;
		p += *p == '/';
	}
	return false;
}

static bool has_control(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return true;
	return false;
}

static int check_mount_path(const char *path, struct sbx_err *err)
{
	/* where our own things lie inside; a volume above or on them would replace what the agent relies on */
	static const char *const kept[] = {"/proc", "/sys", "/dev", "/opt/opensandbox"};

	if (strlen(path) >= BROKER_MOUNT_BYTES || has_control(path) || has_dot_segment(path))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "volume: mountPath \"%.64s\" is not acceptable", path);
	if (path[strspn(path, "/.")] == '\0')
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "volume: mountPath must not be the root");
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		size_t n = strlen(kept[i]);

		if (!strncmp(path, kept[i], n) && (path[n] == '/' || !path[n]))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "volume: mountPath must not lie in %s", kept[i]);
	}
	return 0;
}

static int check_sub_path(const char *sub, struct sbx_err *err)
{
	if (sub[0] == '/')
		return sbx_err_set(err, SBX_E_VOLUME_SUB_PATH, 0, "volume: subPath \"%.64s\" must be relative", sub);
	if (has_dot_segment(sub))
		return sbx_err_set(err, SBX_E_VOLUME_SUB_PATH, 0, "volume: subPath \"%.64s\" leaves its volume", sub);
	if (strlen(sub) >= BROKER_REL_BYTES || has_control(sub))
		return sbx_err_set(err, SBX_E_VOLUME_SUB_PATH, 0, "volume: subPath is longer than %u bytes or has control characters",
				   BROKER_REL_BYTES - 1);
	return 0;
}

/* Whether @path is @allowed or lies below it; a boundary is a whole segment. */
static bool is_below(const char *path, const char *allowed)
{
	size_t n = strlen(allowed);

	while (n > 1 && allowed[n - 1] == '/')
		n--;
	if (n == 1 && allowed[0] == '/')
		return true;
	return !strncmp(path, allowed, n) && (!path[n] || path[n] == '/');
}

static int check_host_path(const char *path, const struct settings *settings, struct sbx_err *err)
{
	size_t n = strlen(path);

	if (strstr(path, "/..") || strstr(path, "//") || (n > 1 && path[n - 1] == '/') || has_control(path) || strstr(path, "/./"))
		return sbx_err_set(err, SBX_E_VOLUME_HOST_PATH, 0, "volume: host path \"%.100s\" is not in its plain form", path);
	for (size_t i = 0; i < settings->storage_allowed_host_paths.n; i++) {
		const char *allowed = settings->storage_allowed_host_paths.item[i];

		if (!is_below(path, allowed))
			continue;
		if (n - strlen(allowed) >= BROKER_REL_BYTES && n > strlen(allowed))
			return sbx_err_set(err, SBX_E_VOLUME_HOST_PATH, 0, "volume: host path is longer than %u bytes below \"%.64s\"",
					   BROKER_REL_BYTES - 1, allowed);
		return 0;
	}
	return sbx_err_set(err, SBX_E_VOLUME_NOT_ALLOWED, 0,
			   "volume: host path \"%.100s\" is not below storage.allowed_host_paths%s", path,
			   settings->storage_allowed_host_paths.n ? "" : " (which is empty, so none is)");
}

int volumes_request_size(const char *text, const struct settings *settings, uint32_t *ret_mib, struct sbx_err *err)
{
	if (!text) {
		if (resources_disk(settings->storage_volume_default_size, ret_mib) < 0)
			*ret_mib = 0; /* empty: what else it could be was refused at the start */
		return 0;
	}
	if (resources_disk(text, ret_mib) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "volume: the size \"%.32s\" is not a quantity of at least %uMi", text, LIMIT_DISK_MIN_MIB);
	return 0;
}

static int take_pvc(const struct jv *pvc, const struct settings *settings, struct sandbox_volume *out, struct sbx_err *err)
{
	const char *claim = jv_str(schema_member(pvc, "claimName"));
	const char *storage = jv_str(schema_member(pvc, "storage"));
	bool create = true, remove = false;

	if (!volumes_request_claim_valid(claim))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
				   "volume: claimName \"%.64s\" must be lower-case letters, digits and ._-, at most %u", claim,
				   BROKER_CLAIM_BYTES - 1);
	jv_bool(schema_member(pvc, "createIfNotExists"), &create);
	jv_bool(schema_member(pvc, "deleteOnSandboxTermination"), &remove);
	out->kind = SANDBOX_VOLUME_NAMED;
	out->source = strdup(claim);
	out->create = create;
	out->remove_at_end = remove;
	out->size_asked = storage != NULL;
	if (volumes_request_size(storage, settings, &out->size_mib, err) < 0)
		return -1;
	return out->source ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "volume");
}

static int take_volume(const struct jv *v, const struct settings *settings, struct sandbox_spec *spec, struct sbx_err *err)
{
	const char *name = jv_str(schema_member(v, "name"));
	const char *path = jv_str(schema_member(v, "mountPath"));
	const char *sub = jv_str(schema_member(v, "subPath"));
	const struct jv *host = schema_member(v, "host"), *pvc = schema_member(v, "pvc");

	for (size_t i = 0; i < spec->n_volumes; i++)
		if (!strcmp(spec->volumes[i].name, name))
			return sbx_err_set(err, SBX_E_VOLUME_DUPLICATE, 0, "volume: the name \"%s\" occurs twice", name);
	if (check_mount_path(path, err) < 0 || (sub && check_sub_path(sub, err) < 0))
		return -1;
	for (size_t i = 0; i < spec->n_volumes; i++)
		if (!strcmp(spec->volumes[i].mount_path, path))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "volume: the mountPath \"%.100s\" occurs twice", path);
	if (jv_is_set(schema_member(v, "ossfs")))
		return sbx_err_set(err, SBX_E_VOLUME_UNSUPPORTED, 0, "volume: ossfs is not offered");

	struct sandbox_volume *out = &spec->volumes[spec->n_volumes++];
	*out = (struct sandbox_volume){.name = NULL};
	jv_bool(schema_member(v, "readOnly"), &out->read_only);
	out->name = strdup(name);
	out->mount_path = strdup(path);
	out->sub_path = strdup(sub ? sub : "");
	if (!out->name || !out->mount_path || !out->sub_path)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "volume");
	if (jv_is_set(pvc))
		return take_pvc(pvc, settings, out, err);
	const char *source = jv_str(schema_member(host, "path"));
	if (check_host_path(source, settings, err) < 0)
		return -1;
	out->kind = SANDBOX_VOLUME_HOST;
	out->create = true;
	out->source = strdup(source);
	return out->source ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "volume");
}

int volumes_request_take(const struct jv *volumes, const struct settings *settings, struct sandbox_spec *spec, struct sbx_err *err)
{
	size_t n = jv_count(volumes);

	if (!n)
		return 0;
	if (n > LIMIT_VOLUMES)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "volumes: %zu are more than the %u that one sandbox may have", n,
				   LIMIT_VOLUMES);
	spec->volumes = calloc(n, sizeof(*spec->volumes));
	if (!spec->volumes)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "volumes");
	for (const struct jv *v = jv_first(volumes); v; v = jv_next(v))
		if (take_volume(v, settings, spec, err) < 0)
			return -1;
	return 0;
}
