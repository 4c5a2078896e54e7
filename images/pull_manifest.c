// SPDX-License-Identifier: Apache-2.0
/*
 * The documents of a pull: index, manifest and configuration, by whichever way they come, and compared with what was asked for.
 */
#include "images/pull_int.h"

#include "base/cleanup.h"
#include "base/path.h"
#include "base/settings.h"
#include "images/blob_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A local pull's manifest, or what its index has chosen, in a file as if it had been fetched. */
int pull_manifest_local(struct pull *p, const void *data, size_t n, const char *type, struct sbx_err *err)
{
	p->manifest_fd = memfd_create("manifest", MFD_CLOEXEC);
	if (p->manifest_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "memory file");
	int r = path_write_all(p->manifest_fd, data, n);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "memory file") : pull_manifest_take(p, type, err);
}

static int take_chosen(struct pull *p, const struct manifest_blob *chosen, struct sbx_err *err)
{
	uint64_t offset = 0;
	int fd = -1;

	/* it was in an earlier archive, perhaps, and this one names it only: the store's is as good */
	if (blob_store_size(p->set->config.blobs, chosen->digest, NULL) == 0) {
		auto_free char *kept = NULL;
		size_t n = 0;

		return blob_store_read(p->set->config.blobs, chosen->digest, MANIFEST_MAX_BYTES, &kept, &n, err) < 0 ?
			       -1 : pull_manifest_local(p, kept, n, "", err);
	}
	if (pull_blob_local(p, chosen->digest, chosen->size, &fd, &offset, err) < 0)
		return -1;
	auto_free char *data = malloc((size_t)chosen->size + 1); /* the index's reader has bounded it */
	if (!data)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "manifest");
	for (size_t done = 0; done < chosen->size;) {
		ssize_t n = pread(fd, data + done, (size_t)chosen->size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? errno : EIO, "manifest");
		done += (size_t)n;
	}
	return pull_manifest_local(p, data, (size_t)chosen->size, "", err);
}

int pull_manifest_ask(struct pull *p, const char *ref, struct sbx_err *err)
{
	struct fetch_get get = {.head = {.kind = FETCH_MANIFEST, .tag = ++p->set->last_tag}};

	p->manifest_fd = memfd_create("manifest", MFD_CLOEXEC);
	if (p->manifest_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "memory file");
	snprintf(get.path, sizeof(get.path), "%s", p->ref.path);
	snprintf(get.ref, sizeof(get.ref), "%s", ref);
	p->manifest_tag = get.head.tag;
	return fetch_client_get(p->fetch, &get, p->manifest_fd, err);
}

/* A private copy: whoever filled the file may still write to it. */
static int read_manifest(int fd, char **ret, size_t *ret_len, struct sbx_err *err)
{
	struct stat st;
	size_t done = 0;

	if (fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "manifest");
	if (st.st_size < 1 || st.st_size > (off_t)MANIFEST_MAX_BYTES)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the manifest is empty or larger than 4 MiB");
	auto_free char *data = malloc((size_t)st.st_size);
	if (!data)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "manifest");
	while (done < (size_t)st.st_size) {
		ssize_t n = pread(fd, data + done, (size_t)st.st_size - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? errno : EIO, "manifest");
		done += (size_t)n;
	}
	*ret = take_ptr(data);
	*ret_len = done;
	return 0;
}

static int check_digest(const struct pull *p, const struct document *d, const struct manifest_blob *chosen, struct sbx_err *err)
{
	uint8_t wanted[DIGEST_BYTES];
	char text[DIGEST_TEXT_SIZE];
	bool has_wanted = true;

	if (chosen)
		memcpy(wanted, chosen->digest, sizeof(wanted));
	else
		has_wanted = p->ref.digest[0] && digest_parse(p->ref.digest, strlen(p->ref.digest), wanted) == 0;
	if (has_wanted && memcmp(wanted, d->digest, sizeof(wanted)) != 0) {
		digest_format(d->digest, text);
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the manifest that came has the digest %s, not the one that was asked for",
				   text);
	}
	if (chosen && chosen->size != d->size)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the index says %llu bytes of a manifest that has %llu",
				   (unsigned long long)chosen->size, (unsigned long long)d->size);
	return 0;
}

static int begin_content(struct pull *p, struct sbx_err *err)
{
	struct manifest *m = &p->manifest;
	char text[DIGEST_TEXT_SIZE];

	if (m->packed_bytes > (uint64_t)p->set->config.settings->images_max_unpacked_bytes)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "the layers have %llu bytes, more than images.max_unpacked_bytes",
				   (unsigned long long)m->packed_bytes);
	for (size_t i = 0; i < m->n_layers; i++) {
		if (digest_chain(i ? p->layer[i - 1].key : NULL, m->layer[i].digest, p->layer[i].key, err) < 0)
			return -1;
		memcpy(p->shown[i].digest, m->layer[i].digest, DIGEST_BYTES);
		p->shown[i].size = m->layer[i].size;
	}
	digest_format(m->config.digest, text);
	memcpy(p->image.config, text, sizeof(text));
	p->stage = STAGE_CONTENT;
	pull_soon(p->set);
	return 0;
}

int pull_manifest_take(struct pull *p, const char *type, struct sbx_err *err)
{
	struct manifest_platform platform;
	struct document *d = &p->document[p->n_documents];
	const struct manifest_blob chosen = p->manifest.chosen;
	bool inner = p->n_documents > 0;
	auto_free char *data = NULL;
	size_t n = 0;

	if (read_manifest(p->manifest_fd, &data, &n, err) < 0 || digest_bytes(data, n, d->digest, err) < 0)
		return -1;
	d->size = n;
	if (check_digest(p, d, inner ? &chosen : NULL, err) < 0)
		return -1;
	manifest_host_platform(&platform);
	if (manifest_parse(data, n, type, &platform, &p->manifest, err) < 0)
		return -1;
	d->fd = take_fd(&p->manifest_fd);
	p->n_documents++;
	digest_format(d->digest, p->image.manifest);
	if (p->manifest.kind == MANIFEST_IMAGE)
		return begin_content(p, err);
	if (inner)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the index names another index");
	memcpy(p->image.index, p->image.manifest, sizeof(p->image.index));
	digest_format(p->manifest.chosen.digest, p->image.manifest);
	if (p->is_local) {
		const struct manifest_blob to = p->manifest.chosen;

		return take_chosen(p, &to, err);
	}
	return pull_manifest_ask(p, p->image.manifest, err);
}

int pull_manifest_config(struct pull *p, struct sbx_err *err)
{
	struct manifest_platform platform;
	auto_free char *data = NULL;
	size_t n = 0;

	if (blob_store_read(p->set->config.blobs, p->manifest.config.digest, MANIFEST_CONFIG_BYTES, &data, &n, err) < 0)
		return -1;
	manifest_host_platform(&platform);
	if (manifest_config(data, n, &platform, p->manifest.n_layers, &p->image, &p->diff_ids, err) < 0)
		return -1;
	p->has_config = true;
	return 0;
}
