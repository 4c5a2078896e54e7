// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include "api/images_api.h"

#include "api/images_commit.h"
#include "api/images_export.h"
#include "api/images_import.h"
#include "api/images_int.h"
#include "api/render.h"
#include "api/volumes_request.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/pull.h"
#include "runtime/broker_client.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Sandboxes that a refusal names. */
#define USERS_NAMED 4u

int images_query_text(struct http_text query, const char *name, char **ret, struct sbx_err *err)
{
	int r = http_query_get(query, name, ret);

	if (r == -ENOMEM)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "query");
	if (r < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the query has a broken percent escape");
	return 0;
}

/* ---- images ---- */

void images_render(struct jw *w, const struct image *image)
{
	static const uint8_t unknown[DIGEST_BYTES];
	char familiar[IMAGE_REF_TEXT_BYTES], text[DIGEST_TEXT_SIZE];
	struct image_ref ref;
	struct sbx_err err = {0};

	jw_object(w);
	if (!image_ref_parse(image->name, strlen(image->name), &ref, &err)) {
		image_ref_familiar(&ref, familiar);
		jw_key_str(w, "name", familiar);
	} else {
		jw_key_str(w, "name", image->name);
	}
	jw_key_str(w, "ref", image->name);
	render_instant(w, "createdAt", image->created_wall_usec);
	render_instant(w, "lastUsedAt", image->used_wall_usec);
	jw_key_u64(w, "bytes", image->bytes);
	if (image->local)
		jw_key_bool(w, "local", true);
	if (image->broken)
		jw_key_bool(w, "broken", true);
	jw_key(w, "layers");
	jw_array(w);
	for (size_t i = 0; i < image->n_layers; i++) {
		digest_format(image->layers[i], text);
		jw_str(w, text);
	}
	jw_array_end(w);
	jw_key_str(w, "workdir", image->workdir && image->workdir[0] ? image->workdir : NULL);
	jw_key_str(w, "user", image->user && image->user[0] ? image->user : NULL);
	jw_key_str(w, "author", image->author);
	jw_key_str(w, "comment", image->comment);
	jw_key_strs(w, "env", image->env);
	jw_key_strs(w, "entrypoint", image->entrypoint);
	jw_key_strs(w, "cmd", image->cmd);
	jw_key_str(w, "manifest", image->manifest[0] ? image->manifest : NULL);
	jw_key_str(w, "index", image->index[0] ? image->index : NULL);
	jw_key_str(w, "config", image->config[0] ? image->config : NULL);
	if (image->blobs) {
		uint64_t packed = 0;

		jw_key(w, "blobs");
		jw_array(w);
		for (size_t i = 0; i < image->n_layers; i++) {
			digest_format(image->blobs[i].digest, text);
			jw_object(w);
			/* of an imported layer no packed form was kept */
			jw_key_str(w, "digest", memcmp(image->blobs[i].digest, unknown, sizeof(unknown)) ? text : NULL);
			jw_key_u64(w, "bytes", image->blobs[i].bytes);
			jw_key_u64(w, "unpackedBytes", image->blobs[i].unpacked);
			jw_object_end(w);
			packed += image->blobs[i].bytes;
		}
		jw_array_end(w);
		jw_key_u64(w, "packedBytes", packed);
	}
	jw_object_end(w);
}

static struct image_store *store_of(struct api_call *call)
{
	if (!call->context->images)
		api_reply_code(call, SBX_E_OVERLOADED, "the image store is not ready");
	return call->context->images;
}

void images_api_list(struct api_call *call)
{
	struct image_store *store = store_of(call);
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (!store)
		return;
	jw_object(&w);
	jw_key(&w, "items");
	jw_array(&w);
	for (const struct image *i = image_store_next(store, NULL); i; i = image_store_next(store, i))
		images_render(&w, i);
	jw_array_end(&w);
	jw_object_end(&w);
	api_reply_json(call, 200, &body);
}

/* In a path an image that is not there is 404; in a create request the same thing is a bad value. */
void images_reply_error(struct api_call *call, struct sbx_err *err)
{
	if (err->code == SBX_E_IMAGE_NOT_FOUND)
		err->code = SBX_E_IMAGE_UNKNOWN;
	api_reply_error(call, err);
}

void images_api_get(struct api_call *call)
{
	struct image_store *store = store_of(call);
	struct sbx_err err = {0};
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (!store)
		return;
	const struct image *image = image_store_find(store, call->param[0], &err);
	if (!image) {
		images_reply_error(call, &err);
		return;
	}
	images_render(&w, image);
	api_reply_json(call, 200, &body);
}

/* Whether @s will be made from the image that its request names: while it is Pending nothing else is known. */
static bool names_image(const struct api_context *context, const struct sandbox *s, const struct image *image)
{
	struct sbx_err ignored = {0};

	return s->spec.image_uri && image_store_find(context->images, s->spec.image_uri, &ignored) == image;
}

static bool uses_image(const struct api_context *context, const struct sandbox *s, const struct image *image)
{
	static const uint8_t unknown[sizeof(s->image_key)];
	/* one that has ended keeps its root until it is removed, as long as it has a slot */
	bool ended = s->state == SANDBOX_TERMINATED || s->state == SANDBOX_FAILED;

	if (ended && s->slot == BROKER_NO_SLOT)
		return false;
	/* what the name means may have changed since: the layers say what it was made from */
	if (memcmp(s->image_key, unknown, sizeof(unknown)) != 0)
		return !memcmp(s->image_key, image->layers[image->n_layers - 1], sizeof(s->image_key));
	return names_image(context, s, image);
}

bool images_in_use(const struct api_context *context, const struct image *image)
{
	for (const struct sandbox *s = sandbox_next(context->manager, NULL); s; s = sandbox_next(context->manager, s))
		if (uses_image(context, s, image))
			return true;
	return false;
}

static bool has_other_name(struct image_store *store, const struct image *image)
{
	for (const struct image *i = image_store_next(store, NULL); i; i = image_store_next(store, i))
		if (i != image && !memcmp(i->layers[i->n_layers - 1], image->layers[image->n_layers - 1], DIGEST_BYTES))
			return true;
	return false;
}

int images_may_remove(const struct api_context *context, const struct image *image, struct sbx_err *err)
{
	bool other = has_other_name(context->images, image);
	auto_buf ids = {0};
	unsigned n = 0;

	for (const struct sandbox *s = sandbox_next(context->manager, NULL); s; s = sandbox_next(context->manager, s)) {
		/* a further name of what a sandbox uses may go, but not the one that a sandbox waits to be made from */
		if (!uses_image(context, s, image) || (other && !(s->state == SANDBOX_PENDING && names_image(context, s, image))))
			continue;
		if (n++ < USERS_NAMED)
			buf_printf(&ids, "%s%s", n > 1 ? ", " : "", s->id_text);
	}
	if (!n)
		return 0;
	const char *text = buf_str(&ids);
	return sbx_err_set(err, SBX_E_IMAGE_IN_USE, 0, "%u sandbox%s use%s the image: %s%s", n, n == 1 ? "" : "es", n == 1 ? "s" : "",
			   text ? text : "", n > USERS_NAMED ? ", ..." : "");
}

bool images_layer_wanted(const struct api_context *context, const uint8_t key[32])
{
	/* an import of the same bytes has found the layer there, or is about to */
	return images_exports_want_layer(key) || (context->imports && images_imports_wants(context->imports, key)) ||
	       (context->pulls && image_pulls_wants_layer(context->pulls, key)) ||
	       (context->commits && images_commits_want_layer(context->commits, key));
}

bool images_blob_wanted(const struct api_context *context, const uint8_t digest[32])
{
	return images_exports_want_blob(digest) || (context->pulls && image_pulls_wants_blob(context->pulls, digest)) ||
	       (context->commits && images_commits_want_blob(context->commits, digest));
}

bool images_image_wanted(const struct api_context *context, const struct image *image)
{
	for (size_t i = 0; i < image->n_layers; i++)
		if (!images_layer_wanted(context, image->layers[i]))
			return false;
	return true;
}

static void layer_dropped(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	(void)arg;
	(void)reply;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	/* a sandbox still uses it, or it is gone: a collection looks again */
	if (err->code && err->code != SBX_E_IMAGE_IN_USE && err->code != SBX_E_IMAGE_NOT_FOUND)
		log_warn("image: a layer that nobody uses was not removed: %s", err->msg);
}

void images_drop_layer(const struct api_context *context, const uint8_t key[32])
{
	struct broker_layer_req req = {.head = {.op = BROKER_OP_LAYER_DROP, .size = sizeof(req)}};
	struct sbx_err err = {0};

	memcpy(req.key, key, sizeof(req.key));
	if (images_layer_wanted(context, key))
		return;
	if (!context->broker || broker_client_call(context->broker, &req, -1, layer_dropped, NULL, &err) < 0)
		log_warn("image: a layer that nobody uses was not removed: %s", err.msg);
}

static void drop_layer(void *arg, const uint8_t key[DIGEST_BYTES])
{
	images_drop_layer(arg, key);
}

void images_api_delete(struct api_call *call)
{
	struct image_store *store = store_of(call);
	struct api_context context = *call->context;
	struct sbx_err err = {0};

	if (!store)
		return;
	const struct image *image = image_store_find(store, call->param[0], &err);
	if (!image) {
		images_reply_error(call, &err);
		return;
	}
	if (images_may_remove(call->context, image, &err) < 0) {
		api_reply_error(call, &err);
		return;
	}
	if (image_store_remove(store, call->param[0], drop_layer, &context, &err) < 0)
		images_reply_error(call, &err);
	else
		api_reply_empty(call, 204);
}

/* ---- volumes ---- */

static bool volume_in_use(const struct api_context *context, const char *claim)
{
	for (const struct sandbox *s = sandbox_next(context->manager, NULL); s; s = sandbox_next(context->manager, s))
		for (size_t i = 0; i < s->spec.n_volumes; i++)
			if (s->spec.volumes[i].kind == SANDBOX_VOLUME_NAMED && !strcmp(s->spec.volumes[i].source, claim))
				return true;
	return false;
}

/* Whether an earlier volume of the walk has the same claim. */
static bool seen_before(const struct api_context *context, const struct sandbox *until, size_t index)
{
	const char *claim = until->spec.volumes[index].source;

	for (const struct sandbox *s = sandbox_next(context->manager, NULL); s; s = sandbox_next(context->manager, s)) {
		for (size_t i = 0; i < s->spec.n_volumes; i++) {
			if (s == until && i == index)
				return false;
			if (s->spec.volumes[i].kind == SANDBOX_VOLUME_NAMED && !strcmp(s->spec.volumes[i].source, claim))
				return true;
		}
	}
	return false;
}

void images_api_volumes(struct api_call *call)
{
	const struct api_context *context = call->context;
	auto_buf body = {0};
	struct jw w = {.out = &body};

	jw_object(&w);
	jw_key(&w, "items");
	jw_array(&w);
	for (const struct sandbox *s = sandbox_next(context->manager, NULL); s; s = sandbox_next(context->manager, s)) {
		for (size_t i = 0; i < s->spec.n_volumes; i++) {
			if (s->spec.volumes[i].kind != SANDBOX_VOLUME_NAMED || seen_before(context, s, i))
				continue;
			jw_object(&w);
			jw_key_str(&w, "name", s->spec.volumes[i].source);
			jw_key_bool(&w, "inUse", true);
			jw_object_end(&w);
		}
	}
	jw_array_end(&w);
	jw_object_end(&w);
	api_reply_json(call, 200, &body);
}

/* A call and what to answer when the broker has done it. */
struct volume_step {
	struct api_call *call;
	enum broker_op op;
	char claim[BROKER_CLAIM_BYTES];
};

static void volume_done(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct volume_step *step = arg;
	struct sbx_err copy = *err;
	auto_buf body = {0};
	struct jw w = {.out = &body};

	(void)reply;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (err->code) {
		if (copy.code == SBX_E_VOLUME_NOT_FOUND)
			copy.code = SBX_E_VOLUME_UNKNOWN;
		api_reply_error(step->call, &copy);
	} else if (step->op == BROKER_OP_VOLUME_DROP) {
		api_reply_empty(step->call, 204);
	} else {
		jw_object(&w);
		jw_key_str(&w, "name", step->claim);
		jw_object_end(&w);
		api_reply_json(step->call, 201, &body);
	}
	free(step);
}

static void volume_call(struct api_call *call, enum broker_op op, const char *claim, uint32_t size_mib, bool at_least)
{
	struct broker_volume_req req = {.head = {.op = op, .size = sizeof(req)}, .size_mib = size_mib, .at_least = at_least};
	struct sbx_err err = {0};

	if (!claim || !volumes_request_claim_valid(claim)) {
		api_reply_code(call, SBX_E_INVALID_REQUEST, "a volume's name is lower-case letters, digits and ._-, at most %u",
			       BROKER_CLAIM_BYTES - 1);
		return;
	}
	if (!call->context->broker) {
		api_reply_code(call, SBX_E_OVERLOADED, "the broker is not connected");
		return;
	}
	if (op == BROKER_OP_VOLUME_DROP && volume_in_use(call->context, claim)) {
		api_reply_code(call, SBX_E_VOLUME_IN_USE, "a sandbox uses the volume \"%s\"", claim);
		return;
	}
	struct volume_step *step = calloc(1, sizeof(*step));
	if (!step) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	step->call = call;
	step->op = op;
	snprintf(step->claim, sizeof(step->claim), "%s", claim);
	snprintf(req.claim, sizeof(req.claim), "%s", claim);
	if (broker_client_call(call->context->broker, &req, -1, volume_done, step, &err) < 0) {
		free(step);
		api_reply_error(call, &err);
	}
}

void images_api_volume_make(struct api_call *call)
{
	auto_free char *name = NULL;
	auto_free char *size = NULL;
	struct sbx_err err = {0};
	uint32_t mib = 0;

	if (images_query_text(call->query, "name", &name, &err) < 0 || images_query_text(call->query, "size", &size, &err) < 0 ||
	    volumes_request_size(size, call->context->settings, &mib, &err) < 0)
		api_reply_error(call, &err);
	else
		volume_call(call, BROKER_OP_VOLUME_MAKE, name, mib, size != NULL);
}

void images_api_volume_drop(struct api_call *call)
{
	volume_call(call, BROKER_OP_VOLUME_DROP, call->param[0], 0, false);
}

/* ---- the host ---- */

#define HOST_ROWS_MAX 64u

struct host_step {
	struct api_call *call;
	struct broker_client *broker;
	struct buf rows; /* owned; JSON objects with commas between */
	struct jw writer;
	uint32_t next;
	bool ok;
};

static void host_row(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err);

static void host_finish(struct host_step *step, const struct sbx_err *err)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (err) {
		api_reply_error(step->call, err);
	} else {
		jw_object(&w);
		jw_key_bool(&w, "ok", step->ok);
		jw_key(&w, "rows");
		jw_array(&w);
		jw_raw(&w, buf_peek(&step->rows), buf_used(&step->rows));
		jw_array_end(&w);
		jw_object_end(&w);
		if (step->rows.failed)
			body.failed = true;
		api_reply_json(step->call, 200, &body);
	}
	buf_free(&step->rows);
	free(step);
}

static void host_ask(struct host_step *step)
{
	struct broker_plain_req req = {.head = {.op = BROKER_OP_HOST_ROW, .size = sizeof(req)}, .arg = step->next++};
	struct sbx_err err = {0};

	if (broker_client_call(step->broker, &req, -1, host_row, step, &err) < 0)
		host_finish(step, &err);
}

static void host_row(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	static const char *const verdicts[] = {[BROKER_HOST_OK] = "ok", [BROKER_HOST_WARN] = "warn", [BROKER_HOST_FAIL] = "fail"};
	struct host_step *step = arg;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (err->code) {
		host_finish(step, err);
		return;
	}
	const struct broker_host_reply *row = &reply->host_reply;
	uint32_t verdict = row->verdict >= BROKER_HOST_OK && row->verdict <= BROKER_HOST_FAIL ? row->verdict : BROKER_HOST_FAIL;
	step->ok &= verdict != BROKER_HOST_FAIL;
	jw_object(&step->writer);
	jw_key_str(&step->writer, "name", row->name);
	jw_key_str(&step->writer, "verdict", verdicts[verdict]);
	jw_key_str(&step->writer, "found", row->found);
	jw_key_str(&step->writer, "costs", row->costs[0] ? row->costs : NULL);
	jw_key_str(&step->writer, "mend", row->mend[0] ? row->mend : NULL);
	jw_object_end(&step->writer);
	if (row->last || step->next >= HOST_ROWS_MAX)
		host_finish(step, NULL);
	else
		host_ask(step);
}

void images_api_host(struct api_call *call)
{
	struct host_step *step = call->context->broker ? calloc(1, sizeof(*step)) : NULL;

	if (!step) {
		api_reply_code(call, SBX_E_OVERLOADED, "the broker is not connected");
		return;
	}
	step->call = call;
	step->broker = call->context->broker;
	step->writer.out = &step->rows;
	step->ok = true;
	host_ask(step);
}

void images_api_version(struct api_call *call)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};

	jw_object(&w);
	jw_key_str(&w, "version", PACKAGE_VERSION);
	jw_key_str(&w, "api", "v1");
	jw_object_end(&w);
	api_reply_json(call, 200, &body);
}
