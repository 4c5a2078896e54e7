// SPDX-License-Identifier: Apache-2.0
#include "images/manifest.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "images/image_store.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum role { ROLE_NONE = 0, ROLE_INDEX, ROLE_IMAGE, ROLE_CONFIG, ROLE_LAYER, ROLE_REFUSED };

#define OCI    "application/vnd.oci.image."
#define DOCKER "application/vnd.docker."

static const struct type_row {
	const char *name;
	enum role role;
	enum layer_form form;
	const char *refusal;
} types[] = {
	{OCI "index.v1+json", ROLE_INDEX, LAYER_FORM_NONE, NULL},
	{DOCKER "distribution.manifest.list.v2+json", ROLE_INDEX, LAYER_FORM_NONE, NULL},
	{OCI "manifest.v1+json", ROLE_IMAGE, LAYER_FORM_NONE, NULL},
	{DOCKER "distribution.manifest.v2+json", ROLE_IMAGE, LAYER_FORM_NONE, NULL},
	{OCI "config.v1+json", ROLE_CONFIG, LAYER_FORM_NONE, NULL},
	{DOCKER "container.image.v1+json", ROLE_CONFIG, LAYER_FORM_NONE, NULL},
	{OCI "layer.v1.tar", ROLE_LAYER, LAYER_TAR, NULL},
	{OCI "layer.v1.tar+gzip", ROLE_LAYER, LAYER_GZIP, NULL},
	{OCI "layer.v1.tar+zstd", ROLE_LAYER, LAYER_ZSTD, NULL},
	{DOCKER "image.rootfs.diff.tar", ROLE_LAYER, LAYER_TAR, NULL},
	{DOCKER "image.rootfs.diff.tar.gzip", ROLE_LAYER, LAYER_GZIP, NULL},
	{DOCKER "image.rootfs.diff.tar.zstd", ROLE_LAYER, LAYER_ZSTD, NULL},
	{DOCKER "distribution.manifest.v1+json", ROLE_REFUSED, LAYER_FORM_NONE, "schema 1 manifests are not taken"},
	{DOCKER "distribution.manifest.v1+prettyjws", ROLE_REFUSED, LAYER_FORM_NONE, "schema 1 manifests are not taken"},
	{DOCKER "image.rootfs.foreign.diff.tar.gzip", ROLE_REFUSED, LAYER_FORM_NONE, "foreign layers are not taken"},
	{DOCKER "image.rootfs.foreign.diff.tar", ROLE_REFUSED, LAYER_FORM_NONE, "foreign layers are not taken"},
	{OCI "layer.nondistributable.v1.tar", ROLE_REFUSED, LAYER_FORM_NONE, "foreign layers are not taken"},
	{OCI "layer.nondistributable.v1.tar+gzip", ROLE_REFUSED, LAYER_FORM_NONE, "foreign layers are not taken"},
	{OCI "layer.nondistributable.v1.tar+zstd", ROLE_REFUSED, LAYER_FORM_NONE, "foreign layers are not taken"},
	{OCI "layer.v1.tar+encrypted", ROLE_REFUSED, LAYER_FORM_NONE, "encrypted layers are not taken"},
	{OCI "layer.v1.tar+gzip+encrypted", ROLE_REFUSED, LAYER_FORM_NONE, "encrypted layers are not taken"},
	{OCI "layer.v1.tar+zstd+encrypted", ROLE_REFUSED, LAYER_FORM_NONE, "encrypted layers are not taken"},
};

static int invalid(struct sbx_err *err, const char *what)
{
	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s", what);
}

static const struct type_row *find_type(const char *name, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strlen(types[i].name) == n && !memcmp(types[i].name, name, n))
			return &types[i];
	return NULL;
}

/* A row that may stand here: of one of the two roles. */
static int check_type(const char *name, size_t n, enum role a, enum role b, const struct type_row **ret, struct sbx_err *err)
{
	const struct type_row *row = find_type(name, n);

	if (row && row->role == ROLE_REFUSED)
		return invalid(err, row->refusal);
	if (!row || (row->role != a && row->role != b))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "media type \"%.*s\" is no %s", n > 100 ? 100 : (int)n, name,
				   a == ROLE_LAYER    ? "layer of a container image" :
				   a == ROLE_CONFIG   ? "configuration of a container image" :
							"image manifest or index");
	*ret = row;
	return 0;
}

void manifest_host_platform(struct manifest_platform *ret)
{
	*ret = (struct manifest_platform){.os = "linux"};
#if defined(__x86_64__)
	snprintf(ret->arch, sizeof(ret->arch), "amd64");
#elif defined(__aarch64__)
	snprintf(ret->arch, sizeof(ret->arch), "arm64");
#else
#error "manifest.c: name the architecture as images do"
#endif
}

/* --- descriptors --- */

static int read_digest(const struct jv *object, uint8_t ret[DIGEST_BYTES], struct sbx_err *err)
{
	const char *text = jv_str(jv_get(object, "digest"));

	if (!text)
		return invalid(err, "a descriptor has no digest");
	if (digest_parse(text, strlen(text), ret) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "digest \"%.80s\" is not sha256 with 64 hex digits", text);
	return 0;
}

static int read_descriptor(const struct jv *object, enum role a, enum role b, struct manifest_blob *ret, struct sbx_err *err)
{
	const struct jv *media = jv_get(object, "mediaType");
	const struct type_row *row = NULL;
	const char *name = jv_str(media);
	int64_t size = 0;

	if (jv_type(object) != JV_OBJECT || !name)
		return invalid(err, "a descriptor has no media type");
	if (check_type(name, strlen(name), a, b, &row, err) < 0 || read_digest(object, ret->digest, err) < 0)
		return -1;
	if (jv_i64(jv_get(object, "size"), &size) < 0 || size < 0 || (uint64_t)size > MANIFEST_BLOB_MAX_BYTES)
		return invalid(err, "a descriptor has no size, or an impossible one");
	ret->size = (uint64_t)size;
	ret->form = row->form;
	return 0;
}

/* --- index --- */

static const char *text_or_empty(const struct jv *v)
{
	const char *text = jv_str(v);

	return text ? text : "";
}

static bool is_attestation(const struct jv *entry)
{
	return !strcmp(text_or_empty(jv_get(jv_get(entry, "annotations"), "vnd.docker.reference.type")), "attestation-manifest");
}

/* How well a variant fits; 0: not at all.  Without a wish the plainest one that any such processor runs is taken. */
static unsigned rate_variant(const char *arch, const char *want, const char *has)
{
	if (!strcmp(want, has))
		return 4;
	if (*want) {
		/* an arm of version N runs what was made for an earlier one; the later the better */
		bool arm = !strcmp(arch, "arm") && want[0] == 'v' && has[0] == 'v' && want[1] && has[1] && !want[2] && !has[2];

		return arm && has[1] < want[1] && has[1] > '4' ? (unsigned)(has[1] - '4') : 0;
	}
	return (!strcmp(arch, "amd64") && !strcmp(has, "v1")) || (!strcmp(arch, "arm64") && !strcmp(has, "v8")) ? 3 : 0;
}

static unsigned rate_platform(const struct jv *entry, const struct manifest_platform *want)
{
	const struct jv *platform = jv_get(entry, "platform");

	if (strcmp(text_or_empty(jv_get(platform, "os")), want->os) != 0 ||
	    strcmp(text_or_empty(jv_get(platform, "architecture")), want->arch) != 0)
		return 0;
	return rate_variant(want->arch, want->variant, text_or_empty(jv_get(platform, "variant")));
}

static int parse_index(const struct jv *root, const struct manifest_platform *want, struct manifest *ret, struct sbx_err *err)
{
	const struct jv *list = jv_get(root, "manifests"), *best = NULL;
	unsigned best_rate = 0;

	if (jv_type(list) != JV_ARRAY || jv_count(list) > MANIFEST_INDEX_MAX)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the index has no list of at most %u manifests", MANIFEST_INDEX_MAX);
	for (const struct jv *entry = jv_first(list); entry; entry = jv_next(entry)) {
		unsigned rate = is_attestation(entry) ? 0 : rate_platform(entry, want);

		if (rate > best_rate) {
			best_rate = rate;
			best = entry;
		}
	}
	if (!best)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the index has no image for %s/%s%s%s", want->os, want->arch,
				   *want->variant ? "/" : "", want->variant);
	if (read_descriptor(best, ROLE_IMAGE, ROLE_IMAGE, &ret->chosen, err) < 0)
		return -1;
	if (ret->chosen.size > MANIFEST_MAX_BYTES)
		return invalid(err, "the index names a manifest that is too large");
	ret->kind = MANIFEST_INDEX;
	return 0;
}

/* --- manifest --- */

static int parse_image(const struct jv *root, struct manifest *ret, struct sbx_err *err)
{
	const struct jv *layers = jv_get(root, "layers");
	size_t n = jv_count(layers);

	if (read_descriptor(jv_get(root, "config"), ROLE_CONFIG, ROLE_CONFIG, &ret->config, err) < 0)
		return sbx_err_wrap(err, "configuration");
	if (!ret->config.size || ret->config.size > MANIFEST_CONFIG_BYTES)
		return invalid(err, "the configuration's size is impossible");
	if (jv_type(layers) != JV_ARRAY || n < 1 || n > LIMIT_LAYERS)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%zu layers: an image has 1 to %u", n, LIMIT_LAYERS);
	for (const struct jv *v = jv_first(layers); v; v = jv_next(v)) {
		struct manifest_blob *layer = &ret->layer[ret->n_layers];

		if (read_descriptor(v, ROLE_LAYER, ROLE_LAYER, layer, err) < 0)
			return sbx_err_wrap(err, "layer %zu", ret->n_layers);
		if (!layer->size)
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "layer %zu is empty", ret->n_layers);
		ret->packed_bytes += layer->size;
		ret->n_layers++;
	}
	ret->kind = MANIFEST_IMAGE;
	return 0;
}

/* Which of the two it is: the answer's type, the document's own and its members must say the same. */
static int decide_kind(const struct jv *root, const char *type, size_t type_len, enum role *ret, struct sbx_err *err)
{
	const char *own = jv_str(jv_get(root, "mediaType"));
	const struct type_row *by_answer = NULL, *by_document = NULL;
	bool has_layers = jv_is_set(jv_get(root, "layers")) || jv_is_set(jv_get(root, "config"));
	bool has_manifests = jv_is_set(jv_get(root, "manifests"));
	int64_t version = 0;

	if (type_len && check_type(type, type_len, ROLE_INDEX, ROLE_IMAGE, &by_answer, err) < 0)
		return -1;
	if (jv_is_set(jv_get(root, "fsLayers")))
		return invalid(err, "schema 1 manifests are not taken");
	if (jv_i64(jv_get(root, "schemaVersion"), &version) < 0 || version != 2)
		return version == 1 ? invalid(err, "schema 1 manifests are not taken") : invalid(err, "schemaVersion is not 2");
	if (jv_is_set(jv_get(root, "mediaType")) && !own)
		return invalid(err, "mediaType is no string");
	if (own && check_type(own, strlen(own), ROLE_INDEX, ROLE_IMAGE, &by_document, err) < 0)
		return -1;
	if (by_answer && by_document && by_answer != by_document)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "sent as \"%.*s\", but says that it is \"%.80s\"",
				   type_len > 80 ? 80 : (int)type_len, type, own);
	if (has_layers == has_manifests)
		return invalid(err, has_layers ? "both a manifest and an index" : "neither a manifest nor an index");
	enum role by_members = has_layers ? ROLE_IMAGE : ROLE_INDEX;
	if ((by_answer && by_answer->role != by_members) || (by_document && by_document->role != by_members))
		return invalid(err, "its members are not those of its media type");
	*ret = by_members;
	return 0;
}

int manifest_parse(const void *data, size_t n, const char *type, const struct manifest_platform *want, struct manifest *ret,
		   struct sbx_err *err)
{
	size_t type_len = type ? strcspn(type, "; \t") : 0;
	enum role role = ROLE_NONE;

	memset(ret, 0, sizeof(*ret));
	if (n > MANIFEST_MAX_BYTES)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "manifest: more than %u bytes", MANIFEST_MAX_BYTES);
	/* named before its JSON is looked at: a signed schema 1 manifest, or a web page, may not even be JSON */
	const struct type_row *row = NULL;
	if (type_len && check_type(type, type_len, ROLE_INDEX, ROLE_IMAGE, &row, err) < 0)
		return sbx_err_wrap(err, "manifest");
	auto_jv root = jv_parse(data, n, err);
	if (!root) {
		if (err->code == SBX_E_MALFORMED)
			err->code = SBX_E_IMAGE_INVALID;
		return sbx_err_wrap(err, "manifest");
	}
	if (jv_type(root) != JV_OBJECT)
		return invalid(err, "manifest: no JSON object");
	if (decide_kind(root, type, type_len, &role, err) < 0)
		return sbx_err_wrap(err, "manifest");
	if ((role == ROLE_INDEX ? parse_index(root, want, ret, err) : parse_image(root, ret, err)) < 0) {
		memset(ret, 0, sizeof(*ret));
		return sbx_err_wrap(err, role == ROLE_INDEX ? "index" : "manifest");
	}
	return 0;
}

/* --- configuration --- */

static int take_text(const struct jv *object, const char *key, const char *before, size_t max, char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_get(object, key);
	const char *text = jv_is_set(v) ? jv_str(v) : "";

	if (!text || strlen(text) > max)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s is no text of at most %zu bytes", key, max);
	free(*ret);
	if (asprintf(ret, "%s%s", *text && text[0] != before[0] ? before : "", text) < 0) {
		*ret = NULL;
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "image configuration");
	}
	return 0;
}

static int take_list(const struct jv *object, const char *key, bool pairs, char ***ret, struct sbx_err *err)
{
	const struct jv *list = jv_get(object, key);
	size_t n = jv_count(list), i = 0;

	if (!jv_is_set(list) || (jv_type(list) == JV_ARRAY && !n))
		return 0;
	if (jv_type(list) != JV_ARRAY || n > LIMIT_SPAWN_STRINGS)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s is no list of at most %u texts", key, LIMIT_SPAWN_STRINGS);
	char **texts = calloc(n + 1, sizeof(*texts));
	if (!texts)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "image configuration");
	*ret = texts; /* released with the image */
	for (const struct jv *v = jv_first(list); v; v = jv_next(v)) {
		const char *text = jv_str(v);

		if (!text || strlen(text) >= LIMIT_SPAWN_STRING_BYTES || (pairs && (text[0] == '=' || !strchr(text, '='))))
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s: entry %zu is not %s", key, i, pairs ? "NAME=value" : "a text");
		texts[i] = strdup(text);
		if (!texts[i++])
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "image configuration");
	}
	return 0;
}

static int take_diff_ids(const struct jv *root, size_t n_layers, uint8_t (**ret)[DIGEST_BYTES], struct sbx_err *err)
{
	const struct jv *list = jv_get(jv_get(root, "rootfs"), "diff_ids");
	size_t i = 0;

	if (jv_type(list) != JV_ARRAY || jv_count(list) != n_layers)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "rootfs.diff_ids does not name the %zu layers of the manifest", n_layers);
	uint8_t(*ids)[DIGEST_BYTES] = calloc(n_layers, sizeof(*ids));
	if (!ids)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "image configuration");
	for (const struct jv *v = jv_first(list); v; v = jv_next(v), i++) {
		const char *text = jv_str(v);

		if (!text || digest_parse(text, strlen(text), ids[i]) < 0) {
			free(ids);
			return invalid(err, "rootfs.diff_ids: not sha256 with 64 hex digits");
		}
	}
	*ret = ids;
	return 0;
}

static int check_config_platform(const struct jv *root, const struct manifest_platform *want, struct sbx_err *err)
{
	const char *os = text_or_empty(jv_get(root, "os")), *arch = text_or_empty(jv_get(root, "architecture"));

	if (strcmp(os, want->os) != 0 || strcmp(arch, want->arch) != 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the image is for \"%.30s/%.30s\", this machine runs %s/%s", os, arch,
				   want->os, want->arch);
	return 0;
}

int manifest_config(const void *data, size_t n, const struct manifest_platform *want, size_t n_layers, struct image *image,
		    uint8_t (**ret_diff_ids)[DIGEST_BYTES], struct sbx_err *err)
{
	if (n > MANIFEST_CONFIG_BYTES)
		return invalid(err, "image configuration: too large");
	auto_jv root = jv_parse(data, n, err);
	if (!root) {
		if (err->code == SBX_E_MALFORMED)
			err->code = SBX_E_IMAGE_INVALID;
		return sbx_err_wrap(err, "image configuration");
	}
	const struct jv *config = jv_get(root, "config");
	if (jv_is_set(config) && jv_type(config) != JV_OBJECT)
		return invalid(err, "image configuration: config is no object");
	if (check_config_platform(root, want, err) < 0 ||
	    take_text(config, "WorkingDir", "/", LIMIT_PATH_BYTES - 2, &image->workdir, err) < 0 ||
	    take_text(config, "User", "", 255, &image->user, err) < 0 || take_list(config, "Env", true, &image->env, err) < 0 ||
	    take_list(config, "Entrypoint", false, &image->entrypoint, err) < 0 ||
	    take_list(config, "Cmd", false, &image->cmd, err) < 0 || take_diff_ids(root, n_layers, ret_diff_ids, err) < 0)
		return sbx_err_wrap(err, "image configuration");
	return 0;
}
