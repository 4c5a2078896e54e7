// SPDX-License-Identifier: Apache-2.0
#include "images/export_documents.h"

#include "base/jv.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/manifest.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define OCI "application/vnd.oci.image."

static int finish(const struct buf *out, struct sbx_err *err)
{
	return out->failed ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export") : 0;
}

/* ---- configuration ---- */

static void write_rootfs(struct jw *w, const struct export_layer *layers, size_t n)
{
	char text[DIGEST_TEXT_SIZE];

	jw_key(w, "rootfs");
	jw_object(w);
	jw_key_str(w, "type", "layers");
	jw_key(w, "diff_ids");
	jw_array(w);
	for (size_t i = 0; i < n; i++) {
		digest_format(layers[i].diff_id, text);
		jw_str(w, text);
	}
	jw_array_end(w);
	jw_object_end(w);
}

static void write_fresh(struct jw *w, const struct image *image)
{
	struct manifest_platform platform;
	time_t seconds = (time_t)(image->created_wall_usec / 1000000);
	char created[32] = "";
	struct tm tm;

	manifest_host_platform(&platform);
	if (gmtime_r(&seconds, &tm) && strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", &tm))
		jw_key_str(w, "created", created);
	jw_key_str(w, "architecture", platform.arch);
	jw_key_str(w, "os", platform.os);
	jw_key(w, "config");
	jw_object(w);
	jw_key_str(w, "User", image->user && *image->user ? image->user : NULL);
	jw_key_strs(w, "Env", image->env);
	jw_key_strs(w, "Entrypoint", image->entrypoint);
	jw_key_strs(w, "Cmd", image->cmd);
	jw_key_str(w, "WorkingDir", image->workdir && *image->workdir ? image->workdir : NULL);
	jw_object_end(w);
}

int export_config(const struct image *image, const char *old, size_t n_old, const struct export_layer *layers, size_t n,
		  struct buf *out, struct sbx_err *err)
{
	struct jw w = {.out = out};
	auto_jv root = NULL;

	if (old && !(root = jv_parse(old, n_old, err)))
		return -1;
	if (root && jv_type(root) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the configuration is no object");
	jw_object(&w);
	for (const struct jv *m = jv_first(root); m; m = jv_next(m)) {
		if (!strcmp(jv_name(m), "rootfs"))
			continue;
		jw_key(&w, jv_name(m));
		jw_value(&w, m);
	}
	if (!root)
		write_fresh(&w, image);
	write_rootfs(&w, layers, n);
	jw_object_end(&w);
	return finish(out, err);
}

/* ---- manifest and index ---- */

static void begin_descriptor(struct jw *w, const char *type, const uint8_t digest[DIGEST_BYTES], uint64_t size)
{
	char text[DIGEST_TEXT_SIZE];

	digest_format(digest, text);
	jw_object(w);
	jw_key_str(w, "mediaType", type);
	jw_key_str(w, "digest", text);
	jw_key_u64(w, "size", size);
}

int export_manifest(const uint8_t config[DIGEST_BYTES], uint64_t config_size, const struct export_layer *layers, size_t n,
		    struct buf *out, struct sbx_err *err)
{
	static const char *const types[] = {[LAYER_FORM_NONE] = OCI "layer.v1.tar", [LAYER_TAR] = OCI "layer.v1.tar",
					    [LAYER_GZIP] = OCI "layer.v1.tar+gzip", [LAYER_ZSTD] = OCI "layer.v1.tar+zstd"};
	struct jw w = {.out = out};

	jw_object(&w);
	jw_key_i64(&w, "schemaVersion", 2);
	jw_key_str(&w, "mediaType", OCI "manifest.v1+json");
	jw_key(&w, "config");
	begin_descriptor(&w, OCI "config.v1+json", config, config_size);
	jw_object_end(&w);
	jw_key(&w, "layers");
	jw_array(&w);
	for (size_t i = 0; i < n; i++) {
		begin_descriptor(&w, types[layers[i].form], layers[i].digest, layers[i].size);
		jw_object_end(&w);
	}
	jw_array_end(&w);
	jw_object_end(&w);
	return finish(out, err);
}

int export_index(const uint8_t digest[DIGEST_BYTES], uint64_t size, const char *name, struct buf *out, struct sbx_err *err)
{
	struct manifest_platform platform;
	struct jw w = {.out = out};
	struct image_ref ref;

	if (image_ref_parse(name, strlen(name), &ref, err) < 0)
		return -1;
	manifest_host_platform(&platform);
	jw_object(&w);
	jw_key_i64(&w, "schemaVersion", 2);
	jw_key_str(&w, "mediaType", OCI "index.v1+json");
	jw_key(&w, "manifests");
	jw_array(&w);
	begin_descriptor(&w, OCI "manifest.v1+json", digest, size);
	jw_key(&w, "platform");
	jw_object(&w);
	jw_key_str(&w, "architecture", platform.arch);
	jw_key_str(&w, "os", platform.os);
	jw_object_end(&w);
	jw_key(&w, "annotations");
	jw_object(&w);
	/* the first is what skopeo, umoci and buildah call an image in a layout, the second what containerd and Docker take for its name */
	jw_key_str(&w, "org.opencontainers.image.ref.name", *ref.tag ? ref.tag : "latest");
	jw_key_str(&w, "io.containerd.image.name", name);
	jw_object_end(&w);
	jw_object_end(&w);
	jw_array_end(&w);
	jw_object_end(&w);
	return finish(out, err);
}
