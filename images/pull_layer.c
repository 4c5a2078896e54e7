// SPDX-License-Identifier: Apache-2.0
/*
 * The layers of pulls: what the broker has, what has to be fetched for it, and what it unpacks, each layer once for all who want it.
 */
#include "images/pull_int.h"

#include "base/cleanup.h"
#include "images/blob_store.h"

#include <stdlib.h>
#include <string.h>

#define UNPACKS_MAX   3u /* of pulls, at once: the broker has four places, for imports too */
#define UNPACK_TRIES  50u
#define BUSY_RETRY_MS 200u

struct stat_call {
	struct image_pulls *set;
	uint64_t pull_id;
	size_t index;
};

static void take_stat(struct pull *p, size_t index, bool present, uint64_t bytes, const struct sbx_err *err)
{
	struct layer *layer = &p->layer[index];

	layer->asking = false;
	if (err && err->code) {
		pull_note_failure(p, err);
		return;
	}
	layer->asked = true;
	if (present) {
		layer->unpacked = bytes;
		p->shown[index].state = IMAGE_LAYER_READY;
		p->shown[index].done = p->shown[index].size;
	}
	pull_soon(p->set);
}

static void on_layer_stat(void *to, bool present, uint64_t bytes, const struct sbx_err *err)
{
	struct stat_call *call = to;
	struct pull *p = pull_by_id(call->set, call->pull_id);

	if (p)
		take_stat(p, call->index, present, bytes, err);
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

struct unpacking *pull_layer_unpacking(const struct image_pulls *set, const uint8_t key[DIGEST_BYTES])
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
				pull_note_failure(p, &mine);
			} else if (p->id != u->pull_id && p->shown[i].state == IMAGE_LAYER_UNPACKING) {
				p->shown[i].state = IMAGE_LAYER_PULLED; /* it tries itself, with its own diff id */
			}
		}
	}
	free(u);
	pull_soon(set);
}

static int unpack_layer(struct pull *p, size_t index, struct sbx_err *err)
{
	struct image_pulls *set = p->set;
	unsigned n = 0;

	for (const struct unpacking *u = set->unpackings; u; u = u->next)
		n++;
	if (pull_layer_unpacking(set, p->layer[index].key)) {
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

int pull_layer_advance(struct pull *p, size_t index, struct sbx_err *err)
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
		int there = pull_blob_need(p, blob->digest, blob->size, -1, err);

		if (there < 0)
			return -1;
		shown->state = there ? IMAGE_LAYER_PULLED : pull_blob_job(p->set, blob->digest) ? IMAGE_LAYER_PULLING : IMAGE_LAYER_WAITING;
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
