// SPDX-License-Identifier: Apache-2.0
#include "api/images_gc.h"

#include "api/call.h"
#include "api/images_int.h"
#include "api/images_layers.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "images/blob_store.h"
#include "images/digest_map.h"
#include "images/gc.h"
#include "images/image_store.h"
#include "images/pull.h"
#include "runtime/broker_client.h"
#include "runtime/resources.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define GC_SOON_MS  2000u
#define GC_CHECK_MS 300000u
#define GC_EACH_MS  3600000u
/* A disk that is full tells so with every request. */
#define GC_AGAIN_MS 10000u
#define LAYER_COUNTED (1u << 31) /* of a dry run: beside enum broker_layer_flags */

struct gc_run {
	struct images_gc *gc;
	struct gc_run *next; /* waits behind it */
	struct images_gc_request request;
	struct api_call *call; /* NULL: nobody waits */
	struct digest_map layers; /* what the broker has */
	const struct image **gone; /* owned; of a dry run: pretend_chosen() */
	size_t n_gone;
	struct digest_map counted; /* of a dry run: blobs that would be gone by now */
	struct buf images;	  /* JSON of those that go, with commas between */
	struct jw writer;
	uint64_t want_bytes, total_bytes, available_bytes;
	uint64_t n_images, image_bytes, n_layers, n_blobs, blob_bytes, n_partial, partial_bytes, n_kept;
	unsigned n_calls; /* LAYER_DROPs under way */
	bool acted;
	struct sbx_err err;
};

struct images_gc {
	const struct api_context *context;
	struct gc_run *runs; /* the first is under way */
	struct images_layers *listing;
	struct loop_timer *timer;
	uint64_t last_mono_ms; /* of the last collection, 0: none */
	bool soon;	       /* the timer is armed for a look: more changes do not put it off */
};

static uint64_t min_age(const struct images_gc *gc)
{
	return (uint64_t)gc->context->settings->images_gc_min_age_seconds;
}

/* ---- the end of a run ---- */

static void run_next(struct images_gc *gc);

static void write_result(struct gc_run *run, struct buf *body)
{
	struct jw w = {.out = body};
	uint64_t used = run->total_bytes - run->available_bytes;

	jw_object(&w);
	jw_key_bool(&w, "dryRun", run->request.dry_run);
	jw_key(&w, "images");
	jw_array(&w);
	jw_raw(&w, buf_peek(&run->images), buf_used(&run->images));
	jw_array_end(&w);
	jw_key_u64(&w, "layers", run->n_layers);
	jw_key_u64(&w, "blobs", run->n_blobs + run->n_partial);
	jw_key_u64(&w, "bytes", run->blob_bytes + run->partial_bytes);
	jw_key_u64(&w, "imageBytes", run->image_bytes);
	jw_key(&w, "disk");
	jw_object(&w);
	jw_key_u64(&w, "bytes", run->total_bytes);
	jw_key_u64(&w, "availableBytes", run->available_bytes);
	jw_key_u64(&w, "usedPercent", run->total_bytes ? used / (run->total_bytes / 100 + 1) : 0);
	jw_key_u64(&w, "wantedBytes", run->want_bytes);
	jw_object_end(&w);
	jw_object_end(&w);
	if (run->images.failed)
		body->failed = true;
}

static void log_result(const struct gc_run *run)
{
	if (run->err.code)
		log_warn("images: collection: %s", run->err.msg);
	else if (!run->request.dry_run && (run->n_images || run->n_layers || run->n_blobs || run->n_partial))
		log_info("images: collected %llu images, %llu layers, %llu blobs", (unsigned long long)run->n_images,
			 (unsigned long long)run->n_layers, (unsigned long long)(run->n_blobs + run->n_partial));
	if (!run->err.code && run->want_bytes > run->image_bytes + run->blob_bytes + run->partial_bytes && !run->call)
		log_warn("images: the disk of the state directory is fuller than images.gc_high_percent, and no more may be collected");
}

static void run_free(struct gc_run *run)
{
	digest_map_clear(&run->layers);
	digest_map_clear(&run->counted);
	buf_free(&run->images);
	free(run);
}

static void run_end(struct gc_run *run)
{
	struct images_gc *gc = run->gc;
	auto_buf body = {0};

	log_result(run);
	gc->runs = run->next;
	if (run->call && run->err.code) {
		api_reply_error(run->call, &run->err);
	} else if (run->call) {
		write_result(run, &body);
		api_reply_json(run->call, 200, &body);
	}
	run_free(run);
	run_next(gc);
}

/* ---- layers ---- */

static void layer_dropped(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct gc_run *run = arg;

	(void)reply;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!err->code)
		run->n_layers++;
	else if (err->code != SBX_E_IMAGE_NOT_FOUND)
		run->n_kept++;
	if (err->code && err->code != SBX_E_IMAGE_NOT_FOUND && err->code != SBX_E_IMAGE_IN_USE)
		log_warn("images: a layer that nobody needs was not removed: %s", err->msg);
	if (!--run->n_calls && run->acted)
		run_end(run);
}

static void drop_layer(void *arg, const uint8_t key[DIGEST_BYTES])
{
	struct gc_run *run = arg;
	const struct api_context *context = run->gc->context;
	struct broker_layer_req req = {.head = {.op = BROKER_OP_LAYER_DROP, .size = sizeof(req)}};
	struct sbx_err err = {0};

	if (images_layer_wanted(context, key))
		return;
	if (run->request.dry_run) {
		struct digest_entry *e = digest_map_find(&run->layers, key);

		/* the broker would say that it has no such layer, or needs it */
		if (e && !(e->flags & (BROKER_LAYER_USED | LAYER_COUNTED)))
			run->n_layers++;
		if (e)
			e->flags |= LAYER_COUNTED;
		return;
	}
	memcpy(req.key, key, sizeof(req.key));
	if (broker_client_call(context->broker, &req, -1, layer_dropped, run, &err) < 0)
		log_warn("images: a layer that nobody needs was not removed: %s", err.msg);
	else
		run->n_calls++;
}

/* Of those that the broker listed: named by no image, used by nobody, and not just unpacked for a pull that goes on later. */
static void drop_orphans(struct gc_run *run, uint64_t age_s)
{
	const struct image_store *store = run->gc->context->images;
	int64_t now_s = wall_usec() / 1000000;

	for (const struct digest_entry *e = digest_map_next(&run->layers, NULL); e; e = digest_map_next(&run->layers, e)) {
		if ((e->flags & (BROKER_LAYER_HOST | BROKER_LAYER_USED)) || image_store_layer_used(store, e->digest))
			continue;
		if (now_s - (int64_t)e->value >= (int64_t)age_s)
			drop_layer(run, e->digest);
	}
}

/* ---- blobs ---- */

struct blob_walk {
	struct gc_run *run;
	int64_t now_s, age_s;
	bool failed;
};

static void drop_blob(void *arg, const uint8_t digest[DIGEST_BYTES], uint64_t bytes, int64_t used_wall_s)
{
	struct blob_walk *walk = arg;
	struct gc_run *run = walk->run;
	const struct api_context *context = run->gc->context;

	if (walk->now_s - used_wall_s < walk->age_s || image_store_blob_used(context->images, digest) ||
	    images_blob_wanted(context, digest) || digest_map_find(&run->counted, digest))
		return;
	if (run->request.dry_run && !digest_map_add(&run->counted, digest)) {
		walk->failed = true;
		return;
	}
	int r = run->request.dry_run ? 0 : FAULT_POINT("gc-blob") ? -EIO : blob_store_remove(context->blobs, digest);
	if (r < 0) {
		log_warn("images: a blob that nobody needs stays: %s", strerrordesc_np(-r));
		return;
	}
	run->n_blobs++;
	run->blob_bytes += bytes;
}

static int drop_blobs(struct gc_run *run, uint64_t age_s, struct sbx_err *err)
{
	struct blob_walk walk = {.run = run, .now_s = wall_usec() / 1000000, .age_s = (int64_t)age_s};
	struct blob_store *blobs = run->gc->context->blobs;
	uint64_t bytes = 0;
	int r = blob_store_each(blobs, drop_blob, &walk);

	if (walk.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "collection of images");
	if (r == 0)
		r = blob_store_sweep_partial(blobs, (int64_t)age_s, run->request.dry_run, &bytes);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "blob store");
	if (!run->request.dry_run) {
		run->n_partial += (uint64_t)r;
		run->partial_bytes += bytes;
	} else if ((uint64_t)r >= run->n_partial) { /* they are all still there: the walk that takes more has them all */
		run->n_partial = (uint64_t)r;
		run->partial_bytes = bytes;
	}
	return 0;
}

/* ---- images ---- */

/* A life uses all layers of its image; so does an image that another one lies upon, and removing that would free nothing. */
static bool lives(const struct gc_run *run, const struct image *image)
{
	for (size_t i = 0; i < image->n_layers; i++) {
		const struct digest_entry *e = digest_map_find(&run->layers, image->layers[i]);

		if (!e || !(e->flags & BROKER_LAYER_USED))
			return false;
	}
	return true;
}

static void tell_image(struct gc_run *run, const struct gc_candidate *c)
{
	run->n_images++;
	run->image_bytes += c->bytes;
	if (run->request.mode == IMAGES_GC_PRUNE) {
		jw_str(&run->writer, c->image->name);
		return;
	}
	jw_object(&run->writer);
	jw_key_str(&run->writer, "name", c->image->name);
	jw_key_str(&run->writer, "reason", gc_reason_name(c->reason));
	jw_key_u64(&run->writer, "bytes", c->bytes);
	char text[RFC3339_SIZE];
	rfc3339_format(c->image->used_wall_usec, text);
	jw_key_str(&run->writer, "lastUsedAt", text);
	jw_object_end(&run->writer);
}

/* A dry run: until the end of this turn the store counts as if they had gone, so what follows decides as it would then. */
static int pretend_chosen(struct gc_run *run, const struct gc_candidate *list, size_t n, struct sbx_err *err)
{
	run->gone = calloc(n + 1, sizeof(*run->gone));
	if (!run->gone)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "collection of images");
	for (size_t i = 0; i < n; i++) {
		if (list[i].reason == GC_KEEP)
			continue;
		if (image_store_pretend_gone(run->gc->context->images, list[i].image, drop_layer, run, err) < 0)
			return -1;
		run->gone[run->n_gone++] = list[i].image;
		tell_image(run, &list[i]);
	}
	return 0;
}

static void pretend_back(struct gc_run *run)
{
	while (run->n_gone)
		image_store_pretend_back(run->gc->context->images, run->gone[--run->n_gone]);
	free(run->gone);
	run->gone = NULL;
}

/* Removing one moves the others in the store: so names first, then the removals. */
static int remove_chosen(struct gc_run *run, const struct gc_candidate *list, size_t n, struct sbx_err *err)
{
	size_t n_names = 0;
	int rc = 0;
	char **names = calloc(n + 1, sizeof(*names));

	for (size_t i = 0; names && i < n; i++) {
		if (list[i].reason == GC_KEEP)
			continue;
		tell_image(run, &list[i]);
		names[n_names] = strdup(list[i].image->name);
		if (!names[n_names++])
			rc = -1;
	}
	if (!names || rc < 0)
		rc = sbx_err_set(err, SBX_E_NO_MEMORY, 0, "collection of images");
	for (size_t i = 0; rc == 0 && i < n_names; i++) {
		if (FAULT_POINT("gc-image"))
			rc = sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
		else
			rc = image_store_remove(run->gc->context->images, names[i], drop_layer, run, err);
	}
	for (size_t i = 0; i < n_names; i++)
		free(names[i]);
	free(names);
	return rc;
}

static int collect_images(struct gc_run *run, struct sbx_err *err)
{
	const struct api_context *context = run->gc->context;
	const struct settings *s = context->settings;
	size_t n = image_store_count(context->images), at = 0;
	const struct gc_rules rules = {
		.now_wall_usec = wall_usec(),
		.min_age_s = run->request.free_bytes ? 0 : (int64_t)min_age(run->gc),
		.max_age_s = s->images_gc_max_age_seconds,
		.want_bytes = run->want_bytes > run->blob_bytes + run->partial_bytes ? run->want_bytes - run->blob_bytes - run->partial_bytes : 0,
		.all = run->request.mode == IMAGES_GC_PRUNE,
	};
	uint64_t bytes = 0;

	if (run->request.mode == IMAGES_GC_PRUNE && !run->request.all)
		return 0;
	struct gc_candidate *list = calloc(n + 1, sizeof(*list));
	if (!list)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "collection of images");
	for (const struct image *i = image_store_next(context->images, NULL); i && at < n; i = image_store_next(context->images, i)) {
		list[at].image = i;
		list[at++].used = lives(run, i) || images_in_use(context, i) || images_image_wanted(context, i);
	}
	int rc = gc_plan(context->images, list, at, &rules, &bytes, err);
	if (rc >= 0)
		rc = run->request.dry_run ? pretend_chosen(run, list, at, err) : remove_chosen(run, list, at, err);
	free(list);
	return rc;
}

static void look_at_disk(struct gc_run *run)
{
	const struct settings *s = run->gc->context->settings;
	struct statvfs fs;

	if (fstatvfs(run->gc->context->state_dir_fd, &fs) < 0)
		return; /* nothing is wanted then */
	/* as df counts: what only root may fill is neither used nor there */
	run->available_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	run->total_bytes = (uint64_t)(fs.f_blocks > fs.f_bfree ? fs.f_blocks - fs.f_bfree : 0) * fs.f_frsize + run->available_bytes;
	run->want_bytes = run->request.free_bytes ? run->request.free_bytes :
		gc_wanted_bytes(run->total_bytes, run->available_bytes, (unsigned)s->images_gc_high_percent, (unsigned)s->images_gc_low_percent);
}

static int take_all(struct gc_run *run, struct sbx_err *err)
{
	uint64_t junk_s = (uint64_t)run->gc->context->settings->images_gc_unused_seconds;

	look_at_disk(run);
	if (run->request.mode == IMAGES_GC_PRUNE)
		junk_s = 0;
	else if (run->want_bytes && junk_s > min_age(run->gc))
		junk_s = min_age(run->gc);
	/* what nobody names goes first: it may be enough */
	if (drop_blobs(run, junk_s, err) < 0 || collect_images(run, err) < 0)
		return -1;
	ignore_result(FAULT_POINT("gc-layers"));
	drop_orphans(run, junk_s);
	/* the blobs of images that went just now are young, yet nobody wants them */
	return run->n_images ? drop_blobs(run, run->request.mode == IMAGES_GC_PRUNE ? 0 : min_age(run->gc), err) : 0;
}

static int act(struct gc_run *run, struct sbx_err *err)
{
	int rc = take_all(run, err);

	pretend_back(run);
	return rc;
}

/* ---- running ---- */

static void on_listed(void *arg, struct digest_map *layers, uint64_t n_strays, const struct sbx_err *err)
{
	struct gc_run *run = arg;
	struct images_gc *gc = run->gc;

	(void)n_strays;
	gc->listing = NULL;
	if (err->code) {
		run->err = *err;
	} else {
		run->layers = *layers; /* taken over */
		*layers = (struct digest_map){0};
		if (!run->request.dry_run)
			gc->last_mono_ms = loop_now_ms(gc->context->loop);
		ignore_result(act(run, &run->err) < 0); /* the run's end tells */
	}
	run->acted = true;
	if (!run->n_calls)
		run_end(run);
}

static void run_next(struct images_gc *gc)
{
	struct gc_run *run = gc->runs;
	struct sbx_err err = {0};

	if (!run)
		return;
	gc->listing = images_layers_list(gc->context->broker, on_listed, run, &err);
	if (gc->listing)
		return;
	run->err = err;
	run_end(run);
}

static int run_add(struct images_gc *gc, const struct images_gc_request *request, struct api_call *call)
{
	struct gc_run *run = calloc(1, sizeof(*run)), **at = &gc->runs;

	if (!run)
		return -1;
	run->gc = gc;
	run->request = *request;
	run->call = call;
	run->writer.out = &run->images;
	while (*at)
		at = &(*at)->next;
	*at = run;
	if (gc->runs == run)
		run_next(gc);
	return 0;
}

void images_gc_run(struct images_gc *gc, const struct images_gc_request *request, struct api_call *call)
{
	if (run_add(gc, request, call) < 0)
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
}

static void on_timer(void *arg)
{
	static const struct images_gc_request automatic = {.mode = IMAGES_GC_AUTO};
	struct images_gc *gc = arg;
	uint64_t now = loop_now_ms(gc->context->loop);
	struct gc_run look = {.gc = gc};

	gc->soon = false;
	/* what filled the disk during a run may be missing in it */
	loop_timer_arm(gc->timer, gc->runs ? GC_AGAIN_MS : GC_CHECK_MS);
	if (gc->runs || !gc->context->broker)
		return;
	look_at_disk(&look);
	bool again = gc->last_mono_ms && now - gc->last_mono_ms < (look.want_bytes ? GC_AGAIN_MS : GC_EACH_MS);
	if (again && look.want_bytes)
		loop_timer_arm(gc->timer, GC_AGAIN_MS);
	if (again)
		return;
	if (run_add(gc, &automatic, NULL) < 0)
		log_warn("images: collection: out of memory");
}

void images_gc_look(struct images_gc *gc)
{
	if (!gc || gc->soon)
		return;
	gc->soon = true;
	loop_timer_arm(gc->timer, GC_SOON_MS);
}

static void on_change(void *arg)
{
	images_gc_look(arg);
}

struct images_gc *images_gc_new(const struct api_context *context, struct sbx_err *err)
{
	struct images_gc *gc = calloc(1, sizeof(*gc));

	if (gc)
		gc->timer = loop_timer_new(context->loop, on_timer, gc);
	if (!gc || !gc->timer) {
		free(gc);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "collection of images");
		return NULL;
	}
	gc->context = context;
	if (context->images)
		image_store_on_change(context->images, on_change, gc);
	loop_timer_arm(gc->timer, GC_CHECK_MS);
	return gc;
}

void images_gc_free(struct images_gc *gc)
{
	if (!gc)
		return;
	if (gc->context->images)
		image_store_on_change(gc->context->images, NULL, NULL);
	images_layers_free(gc->listing);
	while (gc->runs) {
		struct gc_run *run = gc->runs;

		gc->runs = run->next;
		if (run->call)
			api_reply_code(run->call, SBX_E_PEER_GONE, "the server is being restarted");
		run_free(run); /* the broker's client is freed after us, and forgets its calls */
	}
	loop_timer_free(gc->timer);
	free(gc);
}

/* ---- the request ---- */

int images_query_switch(struct http_text query, const char *name, bool *ret, struct sbx_err *err)
{
	auto_free char *text = NULL;

	*ret = false;
	if (images_query_text(query, name, &text, err) < 0)
		return -1;
	if (text && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: true or false", name);
	*ret = text && !strcmp(text, "true");
	return 0;
}

void images_api_gc(struct api_call *call)
{
	struct images_gc_request request = {.mode = IMAGES_GC_ASKED};
	auto_free char *bytes = NULL;
	struct sbx_err err = {0};

	if (!call->context->gc || !call->context->images || !call->context->blobs || !call->context->pulls || !call->context->broker) {
		api_reply_code(call, SBX_E_OVERLOADED, "the image store is not ready");
		return;
	}
	if (images_query_switch(call->query, "dryRun", &request.dry_run, &err) < 0 ||
	    images_query_text(call->query, "free", &bytes, &err) < 0) {
		api_reply_error(call, &err);
		return;
	}
	if (bytes && resources_memory(bytes, &request.free_bytes) < 0) {
		api_reply_code(call, SBX_E_INVALID_REQUEST, "free: a size such as 2Gi");
		return;
	}
	images_gc_run(call->context->gc, &request, call);
}
