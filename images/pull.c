// SPDX-License-Identifier: Apache-2.0
/* The pulls of the daemon: who waits for which, each one's steps from the first endpoint to the image, and what is left behind. */
#include "images/pull_int.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/reaper.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "images/blob_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_MS 150u

void pull_soon(struct image_pulls *set)
{
	loop_timer_arm(set->pump, 0);
}

void pull_note_failure(struct pull *p, const struct sbx_err *err)
{
	if (!p->err.code)
		p->err = *err;
	pull_soon(p->set);
}

struct pull *pull_by_id(const struct image_pulls *set, uint64_t id)
{
	for (struct pull *p = set->pulls; p; p = p->next)
		if (p->id == id)
			return p;
	return NULL;
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
		const struct blob_job *job = p->shown[i].state == IMAGE_LAYER_PULLING ? pull_blob_job(p->set, p->shown[i].digest) : NULL;

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
			pull_blob_free(j);
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
		if (pull_layer_unpacking(set, had->key[i]))
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
	pull_soon(set); /* others may have waited for what it did */
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
		int there = pull_blob_need(p, p->document[i].digest, p->document[i].size, p->document[i].fd, err);

		if (there < 0)
			return -1;
		all &= there > 0;
	}
	if (!p->has_config) {
		int there = pull_blob_need(p, p->manifest.config.digest, p->manifest.config.size, -1, err);

		if (there < 0 || (there > 0 && pull_manifest_config(p, err) < 0))
			return -1;
	}
	for (size_t i = 0; i < p->manifest.n_layers; i++) {
		if (pull_layer_advance(p, i, err) < 0)
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
		return pull_manifest_local(p, p->local.manifest, p->local.n_manifest, p->local.type, err);
	p->fetch = fetch_client_new(&config, err);
	if (!p->fetch)
		return -1;
	return pull_manifest_ask(p, p->ref.digest[0] ? p->ref.digest : p->ref.tag, err);
}

static void on_fetched(void *arg, const struct fetch_done *done)
{
	struct pull *p = arg;
	struct sbx_err err = {0};

	if (done->status)
		sbx_err_set(&err, (enum sbx_err_code)done->status, 0, "%s", done->text);
	if (done->head.tag == p->manifest_tag) {
		p->manifest_tag = 0;
		if (err.code || pull_manifest_take(p, done->type, &err) < 0)
			pull_note_failure(p, &err);
		return;
	}
	for (struct blob_job *j = p->set->jobs; j; j = j->next) {
		if (!j->tag || j->tag != done->head.tag)
			continue;
		j->tag = 0;
		j->fetch_err = err;
		pull_soon(p->set);
	}
}

static void on_fetch_lost(void *arg, const struct sbx_err *err)
{
	struct pull *p = arg;

	for (struct blob_job *j = p->set->jobs; j; j = j->next)
		if (j->owner == p)
			j->tag = 0;
	pull_note_failure(p, err);
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
			pull_blob_settle(j);
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
					pull_note_failure(p, &err);
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
	if (p->n_endpoints < PULL_ENDPOINTS_MAX)
		snprintf(p->endpoint[p->n_endpoints++], sizeof(p->endpoint[0]), "%s", host);
}

static void choose_endpoints(struct pull *p)
{
	const struct settings_texts *mirrors = &p->set->config.settings->images_mirrors;
	size_t n = strlen(p->ref.registry);

	for (size_t i = 0; i < mirrors->n && p->n_endpoints + 1 < PULL_ENDPOINTS_MAX; i++)
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
