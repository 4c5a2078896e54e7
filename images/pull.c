// SPDX-License-Identifier: Apache-2.0
/*
 * Whatever happens only notes what it changes and arms one timer; on_pump() then looks at every pull and does the next steps.
 * So nothing is freed while somebody above still uses it, and the order in which answers come does not matter.
 */
#include "images/pull.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/path.h"
#include "base/reaper.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "images/blob_store.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/manifest.h"
#include "images/pull_transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNPACKS_MAX	  3u /* of pulls, at once: the broker has four places, for imports too */
#define UNPACK_TRIES	  50u
#define BUSY_RETRY_MS	  200u
#define PROGRESS_MS	  150u
#define ENDPOINTS_MAX	  9u
#define DOCUMENTS_MAX	  2u /* index, manifest */

enum stage { STAGE_MANIFEST = 1, STAGE_CONTENT };

/* One blob that is on its way; at most one for a digest. */
struct blob_job {
	struct image_pulls *set;
	struct blob_job *next;
	struct pull *owner; /* borrowed */
	uint8_t digest[DIGEST_BYTES];
	uint64_t size, done;
	int file; /* borrowed from the owner; -1: from the registry */
	uint64_t file_offset;
	bool counted; /* among those of images.parallel_blobs */
	struct transfer *transfer;
	uint64_t tag; /* of the GET under way; 0: none */
	bool ended, resumed, again;
	struct sbx_err err, fetch_err;
};

struct unpacking {
	struct image_pulls *set;
	struct unpacking *next;
	uint64_t pull_id; /* who asked */
	uint8_t key[DIGEST_BYTES];
};

struct stat_call {
	struct image_pulls *set;
	uint64_t pull_id;
	size_t index;
};

struct layer {
	uint8_t key[DIGEST_BYTES];
	uint64_t unpacked;
	unsigned tries;
	uint64_t not_before_mono_ms;
	bool asked; /* the broker was asked whether it is there */
	bool asking;
};

struct document {
	uint8_t digest[DIGEST_BYTES];
	uint64_t size;
	int fd; /* memory file */
};

struct image_pull_ticket {
	struct pull *pull;
	struct image_pull_ticket *next;
	struct image_pull_request request; /* its texts are gone */
};

struct pull {
	struct image_pulls *set;
	struct pull *next;
	uint64_t id;
	struct image_ref ref;
	char name[IMAGE_REF_TEXT_BYTES];
	struct registry_credentials credentials;
	bool has_credentials;
	char endpoint[ENDPOINTS_MAX][FETCH_HOST_BYTES];
	size_t n_endpoints, at_endpoint;
	enum stage stage;
	struct image_pull_ticket *tickets;
	size_t n_tickets;
	struct fetch_client *fetch;
	uint64_t manifest_tag;
	int manifest_fd; /* memory file that is being filled, or -1 */
	struct document document[DOCUMENTS_MAX];
	size_t n_documents;
	struct manifest manifest;
	bool has_config;
	struct image image;
	uint8_t (*diff_ids)[DIGEST_BYTES];
	struct image_pull_layer shown[LIMIT_LAYERS];
	struct layer layer[LIMIT_LAYERS];
	struct sbx_err err; /* why this endpoint failed */
	bool is_local;
	bool made; /* the image is in the store */
	struct image_pull_local local; /* its manifest: only while it begins */
};

/* What a local pull has put into the stores. */
struct brought {
	struct brought *next;
	uint8_t blob[DOCUMENTS_MAX + 1 + LIMIT_LAYERS][DIGEST_BYTES];
	uint8_t key[LIMIT_LAYERS][DIGEST_BYTES];
	size_t n_blobs, n_keys;
};

struct image_pulls {
	struct image_pulls_config config;
	struct reaper *reaper; /* of the children that receive blobs */
	struct brought *brought; /* owned; of failed imports, to be taken out when nobody can add to it any more */
	struct pull *pulls;
	struct blob_job *jobs;
	struct unpacking *unpackings;
	struct loop_timer *pump, *progress, *busy;
	uint64_t last_id, last_tag;
	unsigned n_pulls, n_tickets;
};

static void pump_soon(struct image_pulls *set)
{
	loop_timer_arm(set->pump, 0);
}

static void note_failure(struct pull *p, const struct sbx_err *err)
{
	if (!p->err.code)
		p->err = *err;
	pump_soon(p->set);
}

static struct pull *find_pull(const struct image_pulls *set, uint64_t id)
{
	for (struct pull *p = set->pulls; p; p = p->next)
		if (p->id == id)
			return p;
	return NULL;
}

/* ---- blobs ---- */

static struct blob_job *find_job(const struct image_pulls *set, const uint8_t digest[DIGEST_BYTES])
{
	for (struct blob_job *j = set->jobs; j; j = j->next)
		if (!memcmp(j->digest, digest, DIGEST_BYTES))
			return j;
	return NULL;
}

static void job_free(struct blob_job *job)
{
	for (struct blob_job **at = &job->set->jobs; *at; at = &(*at)->next) {
		if (*at != job)
			continue;
		*at = job->next;
		break;
	}
	transfer_free(job->transfer);
	free(job);
}

static int job_wanted(void *arg, uint64_t offset, int fd, struct sbx_err *err)
{
	struct blob_job *job = arg;
	struct pull *p = job->owner;
	struct fetch_get get = {.head = {.kind = FETCH_BLOB}, .offset = offset, .size = job->size};
	char text[DIGEST_TEXT_SIZE];

	digest_format(job->digest, text);
	snprintf(get.path, sizeof(get.path), "%s", p->ref.path);
	snprintf(get.ref, sizeof(get.ref), "%s", text);
	get.head.tag = ++job->set->last_tag;
	if (!p->fetch || fetch_client_get(p->fetch, &get, fd, err) < 0)
		return p->fetch ? -1 : sbx_err_set(err, SBX_E_PEER_GONE, 0, "sandbox-fetch is gone");
	job->tag = get.head.tag;
	return 0;
}

static void job_progress(void *arg, uint64_t bytes)
{
	struct blob_job *job = arg;

	job->done = bytes;
}

static void job_ended(void *arg, const struct sbx_err *err, bool resumed)
{
	struct blob_job *job = arg;

	job->err = *err;
	job->resumed = resumed;
	job->ended = true;
	transfer_free(job->transfer);
	job->transfer = NULL;
	pump_soon(job->set);
}

static int job_start(struct blob_job *job, struct sbx_err *err)
{
	const struct transfer_config config = {
		.loop = job->set->config.loop,
		.reaper = job->set->reaper,
		.blobs = job->set->config.blobs,
		.digest = job->digest,
		.size = job->size,
		.file = job->file,
		.file_offset = job->file_offset,
		.arg = job,
		.wanted = job_wanted,
		.progress = job_progress,
		.ended = job_ended,
	};

	job->ended = false;
	job->err = job->fetch_err = (struct sbx_err){0};
	job->tag = 0;
	job->transfer = transfer_new(&config, err);
	return job->transfer ? 0 : -1;
}

static int job_new(struct pull *p, const uint8_t digest[DIGEST_BYTES], uint64_t size, int file, uint64_t offset, bool counted,
		   struct sbx_err *err)
{
	struct blob_job *job = calloc(1, sizeof(*job));

	if (!job)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
	job->set = p->set;
	job->owner = p;
	job->size = size;
	job->file = file;
	job->file_offset = offset;
	job->counted = counted;
	memcpy(job->digest, digest, DIGEST_BYTES);
	job->next = p->set->jobs;
	p->set->jobs = job;
	if (job_start(job, err) < 0) {
		job_free(job);
		return -1;
	}
	return 0;
}

/* Looks at a job whose child has ended; it may begin again, or wait for what sandbox-fetch has to say. */
static void job_settle(struct blob_job *job)
{
	struct pull *p = job->owner;
	struct sbx_err err = job->err;
	char text[DIGEST_TEXT_SIZE];

	if (!err.code) {
		job_free(job);
		return;
	}
	if (err.code == SBX_E_PEER_GONE && job->tag)
		return; /* bytes are missing, and DONE will say why */
	if (err.code == SBX_E_PEER_GONE && job->fetch_err.code)
		err = job->fetch_err;
	/* the bytes of an earlier try may have been the wrong ones: the child has thrown them away */
	if (err.code == SBX_E_IMAGE_INVALID && job->resumed && !job->again) {
		job->again = true;
		if (job_start(job, &err) == 0)
			return;
	}
	digest_format(job->digest, text);
	if (err.code == SBX_E_PEER_GONE)
		err.code = p->is_local ? SBX_E_IMAGE_INVALID : SBX_E_IMAGE_PULL_FAILED;
	sbx_err_wrap(&err, "blob %.19s", text);
	job_free(job);
	note_failure(p, &err);
}

static unsigned jobs_of(const struct pull *p)
{
	unsigned n = 0;

	for (const struct blob_job *j = p->set->jobs; j; j = j->next)
		n += j->owner == p && j->counted;
	return n;
}

static int find_local(struct pull *p, const uint8_t digest[DIGEST_BYTES], uint64_t size, int *ret_fd, uint64_t *ret_offset,
		      struct sbx_err *err)
{
	char text[DIGEST_TEXT_SIZE];
	uint64_t is = 0;

	digest_format(digest, text);
	if (p->local.find(p->local.arg, digest, ret_fd, ret_offset, &is) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "blob %s is not there", text);
	if (is != size)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "blob %s has %llu bytes, its descriptor says %llu", text,
				   (unsigned long long)is, (unsigned long long)size);
	return 0;
}

/*
 * Return: 1 when the blob is in the store, 0 when it is on its way or waits for its turn, -1 with @err set
 */
static int need_blob(struct pull *p, const uint8_t digest[DIGEST_BYTES], uint64_t size, int file, struct sbx_err *err)
{
	uint64_t is = 0;
	int r = blob_store_size(p->set->config.blobs, digest, &is);

	if (r == 0 && is != size)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "a descriptor says %llu bytes of a blob that has %llu",
				   (unsigned long long)size, (unsigned long long)is);
	if (r == 0)
		return 1;
	if (r != -ENOENT)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "blob store");
	bool counted = file < 0;
	uint64_t offset = 0;
	if (find_job(p->set, digest) || (counted && jobs_of(p) >= (unsigned)p->set->config.settings->images_parallel_blobs))
		return 0;
	if (p->is_local && counted && find_local(p, digest, size, &file, &offset, err) < 0)
		return -1;
	return job_new(p, digest, size, file, offset, counted, err);
}

/* ---- the manifest ---- */

static int take_manifest(struct pull *p, const char *type, struct sbx_err *err);

/* A local pull's manifest, or what its index has chosen, in a file as if it had been fetched. */
static int take_local(struct pull *p, const void *data, size_t n, const char *type, struct sbx_err *err)
{
	p->manifest_fd = memfd_create("manifest", MFD_CLOEXEC);
	if (p->manifest_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "memory file");
	int r = path_write_all(p->manifest_fd, data, n);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "memory file") : take_manifest(p, type, err);
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
			       -1 : take_local(p, kept, n, "", err);
	}
	if (find_local(p, chosen->digest, chosen->size, &fd, &offset, err) < 0)
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
	return take_local(p, data, (size_t)chosen->size, "", err);
}

static int ask_manifest(struct pull *p, const char *ref, struct sbx_err *err)
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
	pump_soon(p->set);
	return 0;
}

static int take_manifest(struct pull *p, const char *type, struct sbx_err *err)
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
	return ask_manifest(p, p->image.manifest, err);
}

/* ---- configuration and layers ---- */

static int take_config(struct pull *p, struct sbx_err *err)
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

static void on_layer_stat(void *to, bool present, uint64_t bytes, const struct sbx_err *err)
{
	struct stat_call *call = to;
	struct pull *p = find_pull(call->set, call->pull_id);

	if (p) {
		struct layer *layer = &p->layer[call->index];

		layer->asking = false;
		if (err && err->code) {
			note_failure(p, err);
		} else {
			layer->asked = true;
			if (present) {
				layer->unpacked = bytes;
				p->shown[call->index].state = IMAGE_LAYER_READY;
				p->shown[call->index].done = p->shown[call->index].size;
			}
			pump_soon(p->set);
		}
	}
	free(call);
}

static int ask_layer(struct pull *p, size_t index, struct sbx_err *err)
{
	struct image_pulls *set = p->set;
	struct stat_call *call = calloc(1, sizeof(*call));

	if (!call)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
	*call = (struct stat_call){set, p->id, index};
	if (set->config.hooks.layer_stat(set->config.hooks.arg, p->layer[index].key, on_layer_stat, call, err) < 0) {
		free(call);
		return -1;
	}
	p->layer[index].asking = true;
	return 0;
}

static struct unpacking *find_unpacking(const struct image_pulls *set, const uint8_t key[DIGEST_BYTES])
{
	for (struct unpacking *u = set->unpackings; u; u = u->next)
		if (!memcmp(u->key, key, DIGEST_BYTES))
			return u;
	return NULL;
}

static bool lower_at_least(const struct pull *p, size_t index, enum image_pull_layer_state state)
{
	for (size_t i = 0; i < index; i++)
		if (p->shown[i].state < state)
			return false;
	return true;
}

/* The broker is busy with this or other layers, or was restarted: ask it again what is there. */
static bool may_unpack_again(struct pull *p, size_t index, const struct sbx_err *err)
{
	struct layer *layer = &p->layer[index];

	bool begun_upon = err->code == SBX_E_IMAGE_NOT_FOUND && !lower_at_least(p, index, IMAGE_LAYER_READY); /* one of those failed */
	if ((err->code != SBX_E_LIMIT || !strstr(err->msg, "being unpacked")) && err->code != SBX_E_PEER_GONE && !begun_upon)
		return false;
	if (++layer->tries > UNPACK_TRIES)
		return false;
	layer->asked = false;
	layer->not_before_mono_ms = loop_now_ms(p->set->config.loop) + BUSY_RETRY_MS;
	p->shown[index].state = IMAGE_LAYER_PULLED;
	loop_timer_arm(p->set->busy, BUSY_RETRY_MS + 1);
	return true;
}

static void on_layer_unpacked(void *to, bool present, uint64_t bytes, const struct sbx_err *err)
{
	struct unpacking *u = to;
	struct image_pulls *set = u->set;

	(void)present;
	for (struct unpacking **at = &set->unpackings; *at; at = &(*at)->next) {
		if (*at != u)
			continue;
		*at = u->next;
		break;
	}
	for (struct pull *p = set->pulls; p; p = p->next) {
		for (size_t i = 0; p->stage == STAGE_CONTENT && i < p->manifest.n_layers; i++) {
			if (memcmp(p->layer[i].key, u->key, DIGEST_BYTES) != 0 || p->shown[i].state == IMAGE_LAYER_READY)
				continue;
			if (!err || !err->code) {
				p->layer[i].unpacked = bytes;
				p->shown[i].state = IMAGE_LAYER_READY;
			} else if (p->id == u->pull_id && !may_unpack_again(p, i, err)) {
				struct sbx_err mine = *err;

				sbx_err_wrap(&mine, "layer %zu", i);
				note_failure(p, &mine);
			} else if (p->id != u->pull_id && p->shown[i].state == IMAGE_LAYER_UNPACKING) {
				p->shown[i].state = IMAGE_LAYER_PULLED; /* it tries itself, with its own diff id */
			}
		}
	}
	free(u);
	pump_soon(set);
}

static int unpack_layer(struct pull *p, size_t index, struct sbx_err *err)
{
	struct image_pulls *set = p->set;
	unsigned n = 0;

	for (const struct unpacking *u = set->unpackings; u; u = u->next)
		n++;
	if (find_unpacking(set, p->layer[index].key)) {
		p->shown[index].state = IMAGE_LAYER_UNPACKING;
		return 0;
	}
	if (n >= UNPACKS_MAX || loop_now_ms(set->config.loop) < p->layer[index].not_before_mono_ms)
		return 0;
	auto_fd blob = blob_store_get(set->config.blobs, p->manifest.layer[index].digest);
	if (blob < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -blob, "open a blob");
	struct unpacking *u = calloc(1, sizeof(*u));
	if (!u)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
	*u = (struct unpacking){.set = set, .pull_id = p->id};
	memcpy(u->key, p->layer[index].key, DIGEST_BYTES);
	struct image_layer_job *job = calloc(1, sizeof(*job));
	if (!job) {
		free(u);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
	}
	job->blob_fd = blob;
	job->form = (uint32_t)p->manifest.layer[index].form;
	memcpy(job->key, u->key, DIGEST_BYTES);
	memcpy(job->diff_id, p->diff_ids[index], DIGEST_BYTES);
	for (job->n_lower = 0; job->n_lower < index; job->n_lower++)
		memcpy(job->lower[job->n_lower], p->layer[job->n_lower].key, DIGEST_BYTES);
	int rc = set->config.hooks.layer_unpack(set->config.hooks.arg, job, on_layer_unpacked, u, err);
	free(job);
	if (rc < 0) {
		free(u);
		return -1;
	}
	u->next = set->unpackings;
	set->unpackings = u;
	p->shown[index].state = IMAGE_LAYER_UNPACKING;
	return 0;
}

static int advance_layer(struct pull *p, size_t index, struct sbx_err *err)
{
	struct image_pull_layer *shown = &p->shown[index];
	const struct manifest_blob *blob = &p->manifest.layer[index];
	struct layer *layer = &p->layer[index];

	if (shown->state == IMAGE_LAYER_READY || layer->asking || loop_now_ms(p->set->config.loop) < layer->not_before_mono_ms)
		return 0;
	if (!layer->asked)
		return ask_layer(p, index, err);
	if (shown->state == IMAGE_LAYER_UNPACKING)
		return 0;
	if (shown->state != IMAGE_LAYER_PULLED) {
		int there = need_blob(p, blob->digest, blob->size, -1, err);

		if (there < 0)
			return -1;
		shown->state = there ? IMAGE_LAYER_PULLED : find_job(p->set, blob->digest) ? IMAGE_LAYER_PULLING : IMAGE_LAYER_WAITING;
		if (!there)
			return 0;
		shown->done = shown->size;
	}
	/*
	 * Begun in their order: an opaque directory hides names that only the layers below can tell.  The broker knows those that are
	 * under way, and has this one wait for them when the rest of it is unpacked.
	 */
	return p->has_config && lower_at_least(p, index, IMAGE_LAYER_UNPACKING) ? unpack_layer(p, index, err) : 0;
}

/* ---- the end ---- */

static bool pull_wants_layer(const struct pull *p, const uint8_t key[DIGEST_BYTES])
{
	for (size_t i = 0; p->stage == STAGE_CONTENT && i < p->manifest.n_layers; i++)
		if (!memcmp(p->layer[i].key, key, DIGEST_BYTES))
			return true;
	return false;
}

static bool pull_wants_blob(const struct pull *p, const uint8_t digest[DIGEST_BYTES])
{
	for (size_t i = 0; i < p->n_documents; i++)
		if (!memcmp(p->document[i].digest, digest, DIGEST_BYTES))
			return true;
	if (p->stage != STAGE_CONTENT)
		return false;
	if (!memcmp(p->manifest.config.digest, digest, DIGEST_BYTES))
		return true;
	for (size_t i = 0; i < p->manifest.n_layers; i++)
		if (!memcmp(p->manifest.layer[i].digest, digest, DIGEST_BYTES))
			return true;
	return false;
}

static void tell_progress(struct pull *p)
{
	struct image_pull_progress progress = {.endpoint = p->endpoint[p->at_endpoint],
					       .layers = p->shown,
					       .n_layers = p->stage == STAGE_CONTENT ? p->manifest.n_layers : 0,
					       .total = p->manifest.packed_bytes};

	for (size_t i = 0; i < progress.n_layers; i++) {
		const struct blob_job *job = p->shown[i].state == IMAGE_LAYER_PULLING ? find_job(p->set, p->shown[i].digest) : NULL;

		if (job)
			p->shown[i].done = job->done;
		progress.done += p->shown[i].done;
	}
	for (struct image_pull_ticket *t = p->tickets; t; t = t->next)
		if (t->request.progress)
			t->request.progress(t->request.arg, &progress);
}

/* Everything that belongs to one try of one endpoint. */
static void clear_try(struct pull *p)
{
	for (struct blob_job *j = p->set->jobs, *next; j; j = next) {
		next = j->next;
		if (j->owner == p)
			job_free(j);
	}
	fetch_client_free(p->fetch);
	p->fetch = NULL;
	p->manifest_tag = 0;
	close_keep_errno(take_fd(&p->manifest_fd));
	for (size_t i = 0; i < p->n_documents; i++)
		close_keep_errno(p->document[i].fd);
	p->n_documents = 0;
	image_clear(&p->image);
	free(p->diff_ids);
	p->diff_ids = NULL;
	p->has_config = false;
	memset(&p->manifest, 0, sizeof(p->manifest));
	memset(p->shown, 0, sizeof(p->shown));
	memset(p->layer, 0, sizeof(p->layer));
	p->stage = STAGE_MANIFEST;
	p->err = (struct sbx_err){0};
}

static void note_brought(const struct pull *p, struct brought *ret)
{
	for (size_t i = 0; i < p->n_documents; i++)
		memcpy(ret->blob[ret->n_blobs++], p->document[i].digest, DIGEST_BYTES);
	if (p->stage != STAGE_CONTENT)
		return;
	memcpy(ret->blob[ret->n_blobs++], p->manifest.config.digest, DIGEST_BYTES);
	for (size_t i = 0; i < p->manifest.n_layers; i++) {
		memcpy(ret->blob[ret->n_blobs++], p->manifest.layer[i].digest, DIGEST_BYTES);
		if (p->shown[i].state == IMAGE_LAYER_READY || p->shown[i].state == IMAGE_LAYER_UNPACKING)
			memcpy(ret->key[ret->n_keys++], p->layer[i].key, DIGEST_BYTES);
	}
}

/* Nobody comes back for what a failed import left, as for a pull that broke off. */
static void drop_one(struct image_pulls *set, const struct brought *had)
{
	for (size_t i = 0; i < had->n_blobs; i++)
		if (!image_store_blob_used(set->config.images, had->blob[i]) && !image_pulls_wants_blob(set, had->blob[i]) &&
		    !set->config.hooks.blob_wanted(set->config.hooks.arg, had->blob[i]))
			blob_store_forget(set->config.blobs, had->blob[i]);
	for (size_t i = had->n_keys; i-- > 0;)
		if (!image_store_layer_used(set->config.images, had->key[i]) && !image_pulls_wants_layer(set, had->key[i]))
			set->config.hooks.layer_drop(set->config.hooks.arg, had->key[i]);
}

/* One of its layers, good itself, can still be in the broker's hands when another one ends the import. */
static bool being_unpacked(const struct image_pulls *set, const struct brought *had)
{
	for (size_t i = 0; i < had->n_keys; i++)
		if (find_unpacking(set, had->key[i]))
			return true;
	return false;
}

/* Not before the children that were killed are gone, and the unpacking is answered: each could still publish what it holds. */
static void drop_brought(struct image_pulls *set)
{
	if (reaper_busy(set->reaper))
		return;
	for (struct brought **at = &set->brought, *had; (had = *at) != NULL;) {
		if (being_unpacked(set, had)) {
			at = &had->next;
			continue;
		}
		*at = had->next;
		drop_one(set, had);
		free(had);
	}
}

static void pull_free(struct pull *p)
{
	struct image_pulls *set = p->set;
	struct brought *had = p->is_local && !p->made ? calloc(1, sizeof(*had)) : NULL; /* without memory: a collection finds it */

	if (had) {
		note_brought(p, had);
		had->next = set->brought;
		set->brought = had;
	}
	for (struct pull **at = &set->pulls; *at; at = &(*at)->next) {
		if (*at != p)
			continue;
		*at = p->next;
		set->n_pulls--;
		break;
	}
	clear_try(p);
	while (p->tickets) {
		struct image_pull_ticket *t = p->tickets;

		p->tickets = t->next;
		set->n_tickets--;
		free(t);
	}
	explicit_bzero(&p->credentials, sizeof(p->credentials));
	free(p);
	drop_brought(set);
	pump_soon(set); /* others may have waited for what it did */
}

/* Tells everybody, then nobody is left to leave. */
static void end_pull(struct pull *p, const struct sbx_err *err)
{
	struct image_pull_ticket *tickets = p->tickets;
	struct image_pulls *set = p->set;
	struct sbx_err told = err ? *err : (struct sbx_err){0};
	char name[IMAGE_REF_TEXT_BYTES];

	memcpy(name, p->name, sizeof(name));
	p->tickets = NULL;
	pull_free(p);
	while (tickets) {
		struct image_pull_ticket *t = tickets;

		tickets = t->next;
		t->pull = NULL;
		set->n_tickets--;
		t->request.done(t->request.arg, name, &told);
		free(t);
	}
	if (set->config.ended)
		set->config.ended(set->config.ended_arg);
}

/* What an image that this one replaces was made of, and nothing else is. */
static void drop_replaced(struct image_pulls *set, uint8_t (*keys)[DIGEST_BYTES], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!image_store_layer_used(set->config.images, keys[i]) && !image_pulls_wants_layer(set, keys[i]))
			set->config.hooks.layer_drop(set->config.hooks.arg, keys[i]);
}

static uint64_t known_size(struct image_store *store, const uint8_t key[DIGEST_BYTES])
{
	for (const struct image *i = image_store_next(store, NULL); i; i = image_store_next(store, i))
		for (size_t k = 0; i->blobs && k < i->n_layers; k++)
			if (!memcmp(i->layers[k], key, DIGEST_BYTES) && i->blobs[k].unpacked)
				return i->blobs[k].unpacked;
	return 0;
}

static int put_image(struct pull *p, struct sbx_err *err)
{
	struct image_pulls *set = p->set;
	struct image *image = &p->image;
	size_t n = p->manifest.n_layers, n_old = 0;
	auto_free uint8_t(*old_keys)[DIGEST_BYTES] = NULL;
	struct sbx_err ignored = {0};

	image->name = strdup(p->name);
	image->layers = calloc(n, sizeof(*image->layers));
	image->blobs = calloc(n, sizeof(*image->blobs));
	if (!image->name || !image->layers || !image->blobs)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
	image->n_layers = n;
	image->created_wall_usec = wall_usec();
	image->local = p->is_local;
	for (size_t i = 0; i < n; i++) {
		memcpy(image->layers[i], p->layer[i].key, DIGEST_BYTES);
		memcpy(image->blobs[i].digest, p->manifest.layer[i].digest, DIGEST_BYTES);
		image->blobs[i].bytes = p->manifest.layer[i].size;
		image->blobs[i].form = (uint32_t)p->manifest.layer[i].form;
		image->blobs[i].unpacked = p->layer[i].unpacked ? p->layer[i].unpacked : known_size(set->config.images, p->layer[i].key);
		image->bytes += image->blobs[i].unpacked;
	}
	if (image->bytes > (uint64_t)set->config.settings->images_max_unpacked_bytes)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "the image is larger than images.max_unpacked_bytes");
	const struct image *old = image_store_find(set->config.images, p->name, &ignored);
	if (old && !strcmp(old->name, p->name)) {
		old_keys = calloc(old->n_layers, sizeof(*old_keys));
		if (old_keys) {
			n_old = old->n_layers;
			memcpy(old_keys, old->layers, n_old * sizeof(*old_keys));
		}
	}
	if (image_store_put(set->config.images, image, err) < 0)
		return -1;
	drop_replaced(set, old_keys, n_old);
	return 0;
}

/* Return: 1 when the pull has ended, 0 when it goes on, -1 with @err set */
static int advance(struct pull *p, struct sbx_err *err)
{
	bool all = true;

	if (p->stage != STAGE_CONTENT)
		return 0;
	for (size_t i = 0; i < p->n_documents; i++) {
		int there = need_blob(p, p->document[i].digest, p->document[i].size, p->document[i].fd, err);

		if (there < 0)
			return -1;
		all &= there > 0;
	}
	if (!p->has_config) {
		int there = need_blob(p, p->manifest.config.digest, p->manifest.config.size, -1, err);

		if (there < 0 || (there > 0 && take_config(p, err) < 0))
			return -1;
	}
	for (size_t i = 0; i < p->manifest.n_layers; i++) {
		if (advance_layer(p, i, err) < 0)
			return -1;
		all &= p->shown[i].state == IMAGE_LAYER_READY;
	}
	if (!all || !p->has_config)
		return 0;
	if (FAULT_POINT("image-put"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (put_image(p, err) < 0)
		return -1;
	p->made = true;
	tell_progress(p);
	end_pull(p, NULL);
	return 1;
}

static void on_fetched(void *arg, const struct fetch_done *done);
static void on_fetch_lost(void *arg, const struct sbx_err *err);

static int begin_try(struct pull *p, struct sbx_err *err)
{
	const struct fetch_client_config config = {
		.loop = p->set->config.loop,
		.starter = &p->set->config.starter,
		.host = p->endpoint[p->at_endpoint],
		.path = p->ref.path,
		/* a mirror is another registry: what was given for this one is not for it */
		.credentials = p->has_credentials && p->at_endpoint + 1 == p->n_endpoints ? &p->credentials : NULL,
		.arg = p,
		.done = on_fetched,
		.lost = on_fetch_lost,
	};

	if (p->is_local)
		return take_local(p, p->local.manifest, p->local.n_manifest, p->local.type, err);
	p->fetch = fetch_client_new(&config, err);
	if (!p->fetch)
		return -1;
	return ask_manifest(p, p->ref.digest[0] ? p->ref.digest : p->ref.tag, err);
}

static void on_fetched(void *arg, const struct fetch_done *done)
{
	struct pull *p = arg;
	struct sbx_err err = {0};

	if (done->status)
		sbx_err_set(&err, (enum sbx_err_code)done->status, 0, "%s", done->text);
	if (done->head.tag == p->manifest_tag) {
		p->manifest_tag = 0;
		if (err.code || take_manifest(p, done->type, &err) < 0)
			note_failure(p, &err);
		return;
	}
	for (struct blob_job *j = p->set->jobs; j; j = j->next) {
		if (!j->tag || j->tag != done->head.tag)
			continue;
		j->tag = 0;
		j->fetch_err = err;
		pump_soon(p->set);
	}
}

static void on_fetch_lost(void *arg, const struct sbx_err *err)
{
	struct pull *p = arg;

	for (struct blob_job *j = p->set->jobs; j; j = j->next)
		if (j->owner == p)
			j->tag = 0;
	note_failure(p, err);
}

/* The next endpoint, or the end.  Return: whether the pull has ended */
static bool failed_try(struct pull *p)
{
	struct sbx_err err = p->err;

	while (p->at_endpoint + 1 < p->n_endpoints) {
		log_info("image %s: %s: %s; asking the next", p->name, p->endpoint[p->at_endpoint], err.msg);
		clear_try(p);
		p->at_endpoint++;
		err = (struct sbx_err){0};
		if (begin_try(p, &err) == 0)
			return false;
	}
	log_warn("image %s: %s: %s", p->name, p->is_local ? "import" : "pull", err.msg);
	/* what the host lacks stays what it is; everything else is the pull's */
	if (!p->is_local && err.code != SBX_E_SYSTEM && err.code != SBX_E_NO_MEMORY && err.code != SBX_E_LIMIT)
		err.code = SBX_E_IMAGE_PULL_FAILED;
	char familiar[IMAGE_REF_TEXT_BYTES];
	image_ref_familiar(&p->ref, familiar);
	sbx_err_wrap(&err, "image \"%.80s\"", familiar);
	end_pull(p, &err);
	return true;
}

static void on_pump(void *arg)
{
	struct image_pulls *set = arg;
	bool changed;

	drop_brought(set);
	for (struct blob_job *j = set->jobs, *next; j; j = next) {
		next = j->next;
		if (j->ended)
			job_settle(j);
	}
	do {
		changed = false;
		for (struct pull *p = set->pulls; p && !changed; p = p->next) {
			struct sbx_err err = {0};

			if (p->err.code) {
				changed = failed_try(p);
			} else {
				int r = advance(p, &err);

				changed = r > 0;
				if (r < 0)
					note_failure(p, &err);
			}
		}
		/* a callback may have changed the list: from the start */
	} while (changed);
}

static void on_progress_time(void *arg)
{
	struct image_pulls *set = arg;
	bool any = false;

	for (struct pull *p = set->pulls; p; p = p->next) {
		tell_progress(p);
		any = true;
	}
	if (any)
		loop_timer_arm(set->progress, PROGRESS_MS);
}

/* ---- the set ---- */

struct image_pulls *image_pulls_new(const struct image_pulls_config *config, struct sbx_err *err)
{
	struct image_pulls *set = calloc(1, sizeof(*set));

	if (set) {
		set->config = *config;
		set->pump = loop_timer_new(config->loop, on_pump, set);
		set->progress = loop_timer_new(config->loop, on_progress_time, set);
		set->busy = loop_timer_new(config->loop, on_pump, set);
		set->reaper = reaper_new(config->loop, on_pump, set, err);
	}
	if (!set || !set->reaper || !set->pump || !set->progress || !set->busy) {
		image_pulls_free(set);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pulls");
		return NULL;
	}
	return set;
}

void image_pulls_free(struct image_pulls *set)
{
	if (!set)
		return;
	while (set->pulls) {
		set->pulls->is_local = false; /* whom it would tell may be gone: a collection finds what it left */
		pull_free(set->pulls);
	}
	while (set->unpackings) {
		struct unpacking *u = set->unpackings;

		set->unpackings = u->next;
		free(u);
	}
	while (set->brought) {
		struct brought *had = set->brought;

		set->brought = had->next;
		free(had);
	}
	reaper_free(set->reaper);
	loop_timer_free(set->pump);
	loop_timer_free(set->progress);
	loop_timer_free(set->busy);
	free(set);
}

static void add_endpoint(struct pull *p, const char *host)
{
	if (p->n_endpoints < ENDPOINTS_MAX)
		snprintf(p->endpoint[p->n_endpoints++], sizeof(p->endpoint[0]), "%s", host);
}

static void choose_endpoints(struct pull *p)
{
	const struct settings_texts *mirrors = &p->set->config.settings->images_mirrors;
	size_t n = strlen(p->ref.registry);

	for (size_t i = 0; i < mirrors->n && p->n_endpoints + 1 < ENDPOINTS_MAX; i++)
		if (!strncmp(mirrors->item[i], p->ref.registry, n) && mirrors->item[i][n] == '=' &&
		    strlen(mirrors->item[i] + n + 1) < FETCH_HOST_BYTES)
			add_endpoint(p, mirrors->item[i] + n + 1);
	add_endpoint(p, p->ref.registry);
}

static bool same_credentials(const struct pull *p, const struct registry_credentials *c)
{
	if (p->has_credentials != (c != NULL))
		return false;
	return !c || (!strcmp(p->credentials.user, c->user) && !strcmp(p->credentials.password, c->password));
}

static struct pull *new_pull(struct image_pulls *set, const struct image_ref *ref, const struct registry_credentials *c,
			     const struct image_pull_local *local, struct sbx_err *err)
{
	if (set->n_pulls >= IMAGE_PULLS_MAX) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "%u images are being pulled; try again", set->n_pulls);
		return NULL;
	}
	struct pull *p = calloc(1, sizeof(*p));
	if (!p) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
		return NULL;
	}
	p->set = set;
	p->id = ++set->last_id;
	p->ref = *ref;
	p->manifest_fd = -1;
	p->stage = STAGE_MANIFEST;
	image_ref_canonical(ref, p->name);
	if (c) {
		p->credentials = *c;
		p->has_credentials = true;
	}
	if (local) {
		p->is_local = true;
		p->local = *local;
		add_endpoint(p, "archive");
	} else {
		choose_endpoints(p);
	}
	p->next = set->pulls;
	set->pulls = p;
	set->n_pulls++;
	if (begin_try(p, err) < 0) {
		pull_free(p);
		return NULL;
	}
	return p;
}

static struct image_pull_ticket *begin_ticket(struct image_pulls *set, const struct image_pull_request *request,
					      const struct image_pull_local *local, struct sbx_err *err)
{
	char canonical[IMAGE_REF_TEXT_BYTES];
	struct image_ref ref;
	struct pull *p = set->pulls;

	if (image_ref_parse(request->ref, strlen(request->ref), &ref, err) < 0)
		return NULL;
	if (ref.host) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"host\" is the embedded image: nothing is pulled for it");
		return NULL;
	}
	if (set->n_tickets >= IMAGE_PULL_TICKETS_MAX) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "%u requests wait for images; try again", set->n_tickets);
		return NULL;
	}
	struct image_pull_ticket *t = calloc(1, sizeof(*t));
	if (!t) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
		return NULL;
	}
	image_ref_canonical(&ref, canonical);
	while (p && (local || p->is_local || strcmp(p->name, canonical) != 0 || !same_credentials(p, request->credentials) || p->err.code))
		p = p->next;
	if (!p)
		p = new_pull(set, &ref, local ? NULL : request->credentials, local, err);
	if (!p) {
		free(t);
		return NULL;
	}
	t->pull = p;
	t->request = *request;
	t->request.ref = NULL;
	t->request.credentials = NULL;
	t->next = p->tickets;
	p->tickets = t;
	set->n_tickets++;
	if (request->progress)
		loop_timer_arm(set->progress, PROGRESS_MS);
	return t;
}

struct image_pull_ticket *image_pull(struct image_pulls *set, const struct image_pull_request *request, struct sbx_err *err)
{
	return begin_ticket(set, request, NULL, err);
}

struct image_pull_ticket *image_pull_local(struct image_pulls *set, const struct image_pull_request *request,
					   const struct image_pull_local *local, struct sbx_err *err)
{
	struct image_ref ref;

	if (image_ref_parse(request->ref, strlen(request->ref), &ref, err) < 0)
		return NULL;
	if (ref.digest[0]) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.100s\" is no name with a tag", request->ref);
		return NULL;
	}
	return begin_ticket(set, request, local, err);
}

void image_pull_leave(struct image_pull_ticket *ticket)
{
	struct pull *p = ticket->pull;

	for (struct image_pull_ticket **at = &p->tickets; *at; at = &(*at)->next) {
		if (*at != ticket)
			continue;
		*at = ticket->next;
		p->set->n_tickets--;
		free(ticket);
		break;
	}
	if (!p->tickets) {
		log_info("image %s: the pull is cancelled: nobody waits for it", p->name);
		pull_free(p);
	}
}

struct reaper *image_pulls_reaper(const struct image_pulls *set)
{
	return set->reaper;
}

bool image_pulls_wants_layer(const struct image_pulls *set, const uint8_t key[DIGEST_BYTES])
{
	for (const struct pull *p = set->pulls; p; p = p->next)
		if (pull_wants_layer(p, key))
			return true;
	return false;
}

bool image_pulls_wants_blob(const struct image_pulls *set, const uint8_t digest[DIGEST_BYTES])
{
	for (const struct pull *p = set->pulls; p; p = p->next)
		if (pull_wants_blob(p, digest))
			return true;
	return false;
}
