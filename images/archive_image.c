// SPDX-License-Identifier: Apache-2.0
#include "images/archive_image.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/jv.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OCI_TYPE    "application/vnd.oci.image."
#define DOCKER_TYPE "application/vnd.docker.distribution.manifest."
#define NAMES_TEXT  160

void archive_image_clear(struct archive_image *image)
{
	archive_table_clear(&image->table);
	free(image->manifest);
	*image = (struct archive_image){.fd = -1};
}

int archive_image_find(void *arg, const uint8_t digest[DIGEST_BYTES], int *ret_fd, uint64_t *ret_offset, uint64_t *ret_size)
{
	const struct archive_image *image = arg;
	const struct archive_member *m = archive_table_blob(&image->table, digest);

	if (!m)
		return -ENOENT;
	*ret_fd = image->fd;
	*ret_offset = m->offset;
	*ret_size = m->size;
	return 0;
}

static int invalid(struct sbx_err *err, const char *what)
{
	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s", what);
}

/* A small member, whole; NUL-terminated behind its last byte. */
static int read_member(const struct archive_image *image, const struct archive_member *m, size_t max, char **ret, struct sbx_err *err)
{
	if (m->size > max)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "\"%.100s\" has more than %zu bytes", m->name, max);
	auto_free char *data = malloc((size_t)m->size + 1);
	if (!data)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive");
	for (size_t done = 0; done < m->size;) {
		ssize_t n = pread(image->fd, data + done, (size_t)m->size - done, (off_t)(m->offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? errno : EIO, "read the archive");
		done += (size_t)n;
	}
	data[m->size] = '\0';
	*ret = take_ptr(data);
	return 0;
}

static struct jv *read_json(const struct archive_image *image, const char *name, struct sbx_err *err)
{
	const struct archive_member *m = archive_table_find(&image->table, name);
	auto_free char *data = NULL;

	if (!m) {
		sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the archive has no %s", name);
		return NULL;
	}
	if (read_member(image, m, MANIFEST_MAX_BYTES, &data, err) < 0)
		return NULL;
	struct jv *root = jv_parse(data, (size_t)m->size, err);
	if (!root) {
		if (err->code == SBX_E_MALFORMED)
			err->code = SBX_E_IMAGE_INVALID;
		sbx_err_wrap(err, "%s", name);
	}
	return root;
}

static const char *text_or_empty(const struct jv *v)
{
	const char *text = jv_str(v);

	return text ? text : "";
}

static void add_name(char names[NAMES_TEXT], const char *name)
{
	size_t n = strlen(names);

	snprintf(names + n, NAMES_TEXT - n, "%s%s", n ? ", " : "", *name ? name : "(no name)");
}

/* Whether the archive's @name is what the user calls @ref: as it is, or as references. */
static bool same_name(const char *name, const char *ref)
{
	char a[IMAGE_REF_TEXT_BYTES], b[IMAGE_REF_TEXT_BYTES];
	struct image_ref parsed;
	struct sbx_err ignored = {0};

	if (!*name)
		return false;
	if (!strcmp(name, ref))
		return true;
	if (image_ref_parse(name, strlen(name), &parsed, &ignored) < 0)
		return false;
	image_ref_canonical(&parsed, a);
	if (image_ref_parse(ref, strlen(ref), &parsed, &ignored) < 0)
		return false;
	image_ref_canonical(&parsed, b);
	return !strcmp(a, b);
}

static void suggest(struct archive_image *image, const char *name)
{
	struct image_ref ref;
	struct sbx_err ignored = {0};

	/* "latest" alone is a tag of something that has no name here */
	if (!*name || strlen(name) >= sizeof(image->name) || !(strchr(name, ':') || strchr(name, '/')) ||
	    image_ref_parse(name, strlen(name), &ref, &ignored) < 0 || ref.host || ref.digest[0])
		return;
	image_ref_canonical(&ref, image->name);
}

/* ---- OCI ---- */

#define REF_NAME	"org.opencontainers.image.ref.name"
#define CONTAINERD_NAME "io.containerd.image.name"

static bool is_candidate(const struct jv *entry)
{
	static const char *const types[] = {OCI_TYPE "manifest.v1+json", OCI_TYPE "index.v1+json", DOCKER_TYPE "v2+json",
					    DOCKER_TYPE "list.v2+json"};
	const char *type = text_or_empty(jv_get(entry, "mediaType"));

	if (!strcmp(text_or_empty(jv_get(jv_get(entry, "annotations"), "vnd.docker.reference.type")), "attestation-manifest"))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(type, types[i]))
			return true;
	return false;
}

static const char *annotated(const struct jv *entry, const char *key)
{
	return text_or_empty(jv_get(jv_get(entry, "annotations"), key));
}

static bool entry_has_name(const struct jv *entry, const char *ref)
{
	return same_name(annotated(entry, REF_NAME), ref) || same_name(annotated(entry, CONTAINERD_NAME), ref);
}

static int take_entry(struct archive_image *image, const struct jv *entry, struct sbx_err *err)
{
	const char *text = text_or_empty(jv_get(entry, "digest")), *type = text_or_empty(jv_get(entry, "mediaType"));
	uint8_t digest[DIGEST_BYTES], is[DIGEST_BYTES];
	int64_t size = 0;

	if (digest_parse(text, strlen(text), digest) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "index.json: digest \"%.80s\" is not sha256 with 64 hex digits", text);
	const struct archive_member *m = archive_table_blob(&image->table, digest);
	if (!m)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "index.json names %s, which is not in the archive", text);
	if (jv_i64(jv_get(entry, "size"), &size) < 0 || size < 0 || (uint64_t)size != m->size)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "index.json: %s has %llu bytes, another size is said", text,
				   (unsigned long long)m->size);
	if (read_member(image, m, MANIFEST_MAX_BYTES, &image->manifest, err) < 0)
		return -1;
	image->n_manifest = (size_t)m->size;
	if (digest_bytes(image->manifest, image->n_manifest, is, err) < 0)
		return -1;
	if (memcmp(is, digest, sizeof(is)) != 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s: the bytes have another digest", text);
	snprintf(image->type, sizeof(image->type), "%s", type);
	suggest(image, *annotated(entry, CONTAINERD_NAME) ? annotated(entry, CONTAINERD_NAME) : annotated(entry, REF_NAME));
	return 0;
}

/* index.json itself is the list of one image's platforms. */
static int take_whole(struct archive_image *image, const struct jv *first, struct sbx_err *err)
{
	const struct archive_member *m = archive_table_find(&image->table, "index.json");

	if (read_member(image, m, MANIFEST_MAX_BYTES, &image->manifest, err) < 0)
		return -1;
	image->n_manifest = (size_t)m->size;
	suggest(image, *annotated(first, CONTAINERD_NAME) ? annotated(first, CONTAINERD_NAME) : annotated(first, REF_NAME));
	return 0;
}

static int check_layout(const struct archive_image *image, struct sbx_err *err)
{
	auto_jv layout = read_json(image, "oci-layout", err);

	if (!layout)
		return -1;
	const char *version = text_or_empty(jv_get(layout, "imageLayoutVersion"));
	return strncmp(version, "1.", 2) == 0 ? 0 :
		       sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "oci-layout: version \"%.20s\" is not known", version);
}

static int choose_oci(struct archive_image *image, const char *ref, struct sbx_err *err)
{
	const struct jv *chosen = NULL;
	char names[NAMES_TEXT] = "";
	size_t n = 0, n_candidates = 0;
	bool one_name = true;

	if (check_layout(image, err) < 0)
		return -1;
	auto_jv root = read_json(image, "index.json", err);
	if (!root)
		return -1;
	const struct jv *list = jv_get(root, "manifests");
	if (jv_type(list) != JV_ARRAY || jv_count(list) > MANIFEST_INDEX_MAX)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "index.json has no list of at most %u manifests", MANIFEST_INDEX_MAX);
	for (const struct jv *entry = jv_first(list); entry; entry = jv_next(entry)) {
		if (!is_candidate(entry))
			continue;
		n_candidates++;
		add_name(names, *annotated(entry, CONTAINERD_NAME) ? annotated(entry, CONTAINERD_NAME) : annotated(entry, REF_NAME));
		if (ref && !entry_has_name(entry, ref))
			continue;
		if (chosen)
			one_name &= !strcmp(annotated(chosen, REF_NAME), annotated(entry, REF_NAME)) &&
				    !strcmp(annotated(chosen, CONTAINERD_NAME), annotated(entry, CONTAINERD_NAME)) &&
				    jv_is_set(jv_get(chosen, "platform")) && jv_is_set(jv_get(entry, "platform"));
		else
			chosen = entry;
		n++;
	}
	if (!*names)
		return invalid(err, "index.json names no image");
	if (!n)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the archive has no image \"%.60s\"; it has %s", ref, names);
	if (n == 1)
		return take_entry(image, chosen, err);
	if (!one_name)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the archive has %zu images, choose one by ref: %s", n, names);
	if (n == n_candidates) /* what else is in it names no platform of ours */
		return take_whole(image, chosen, err);
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the archive has %zu images for platforms beside others; export one alone", n);
}

/* ---- docker save ---- */

static bool docker_has_name(const struct jv *entry, const char *ref)
{
	for (const struct jv *tag = jv_first(jv_get(entry, "RepoTags")); tag; tag = jv_next(tag))
		if (same_name(text_or_empty(tag), ref))
			return true;
	return false;
}

static const char *docker_name(const struct jv *entry)
{
	return text_or_empty(jv_first(jv_get(entry, "RepoTags")));
}

static const struct archive_member *docker_member(const struct archive_image *image, const struct jv *path, struct sbx_err *err)
{
	const char *name = text_or_empty(path);
	const struct archive_member *m = archive_table_find(&image->table, name);

	if (!m)
		sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "manifest.json names \"%.80s\", which is not in the archive", name);
	return m;
}

static void write_descriptor(struct jw *w, const struct archive_member *m, const char *type)
{
	char text[DIGEST_TEXT_SIZE];

	digest_format(m->digest, text);
	jw_object(w);
	jw_key_str(w, "mediaType", type);
	jw_key_u64(w, "size", m->size);
	jw_key_str(w, "digest", text);
	jw_object_end(w);
}

static int take_docker(struct archive_image *image, const struct jv *entry, struct sbx_err *err)
{
	static const char *const layer_types[] = {[LAYER_TAR] = OCI_TYPE "layer.v1.tar", [LAYER_GZIP] = OCI_TYPE "layer.v1.tar+gzip",
						  [LAYER_ZSTD] = OCI_TYPE "layer.v1.tar+zstd"};
	const struct jv *layers = jv_get(entry, "Layers");
	const struct archive_member *config = docker_member(image, jv_get(entry, "Config"), err);
	auto_buf out = {.max = MANIFEST_MAX_BYTES};
	struct jw w = {.out = &out};

	if (!config)
		return -1;
	if (jv_type(layers) != JV_ARRAY || jv_count(layers) < 1 || jv_count(layers) > LIMIT_LAYERS)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "manifest.json: no list of 1 to %u layers", LIMIT_LAYERS);
	jw_object(&w);
	jw_key_i64(&w, "schemaVersion", 2);
	jw_key_str(&w, "mediaType", OCI_TYPE "manifest.v1+json");
	jw_key(&w, "config");
	write_descriptor(&w, config, OCI_TYPE "config.v1+json");
	jw_key(&w, "layers");
	jw_array(&w);
	for (const struct jv *v = jv_first(layers); v; v = jv_next(v)) {
		const struct archive_member *m = docker_member(image, v, err);

		if (!m)
			return -1;
		write_descriptor(&w, m, layer_types[m->form]);
	}
	jw_array_end(&w);
	jw_object_end(&w);
	image->n_manifest = buf_used(&out);
	image->manifest = out.failed ? NULL : strndup(buf_peek(&out), image->n_manifest);
	if (!image->manifest)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive");
	suggest(image, docker_name(entry));
	return 0;
}

static int choose_docker(struct archive_image *image, const char *ref, struct sbx_err *err)
{
	const struct jv *chosen = NULL;
	char names[NAMES_TEXT] = "";
	size_t n = 0;
	auto_jv root = read_json(image, "manifest.json", err);

	if (!root)
		return -1;
	if (jv_type(root) != JV_ARRAY || !jv_count(root) || jv_count(root) > MANIFEST_INDEX_MAX)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "manifest.json is no list of 1 to %u images", MANIFEST_INDEX_MAX);
	for (const struct jv *entry = jv_first(root); entry; entry = jv_next(entry)) {
		add_name(names, docker_name(entry));
		if (ref && !docker_has_name(entry, ref))
			continue;
		chosen = entry;
		n++;
	}
	if (n == 1)
		return take_docker(image, chosen, err);
	if (!n)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the archive has no image \"%.60s\"; it has %s", ref, names);
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the archive has %zu images, choose one by ref: %s", n, names);
}

int archive_image_choose(int fd, struct archive_table *table, enum archive_kind kind, const char *ref, struct archive_image *ret,
			 struct sbx_err *err)
{
	*ret = (struct archive_image){.fd = fd, .table = *table};
	*table = (struct archive_table){0};
	int rc = kind == ARCHIVE_OCI ? choose_oci(ret, ref, err) : choose_docker(ret, ref, err);
	if (rc < 0)
		archive_image_clear(ret);
	return rc;
}
