// SPDX-License-Identifier: Apache-2.0
#include "api/images_pull.h"

#include "api/images_events.h"
#include "api/images_int.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/settings.h"
#include "images/image_store.h"
#include "images/layer_form.h"
#include "runtime/broker_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who waits for a pull. */
struct waiting {
	const struct api_context *context;
	struct image_pull_ticket *ticket;
	struct images_events *events;
};

static void on_cancel(void *arg)
{
	struct waiting *w = arg;

	if (w->ticket)
		image_pull_leave(w->ticket);
	free(w);
}

static void on_progress(void *arg, const struct image_pull_progress *progress)
{
	struct waiting *w = arg;

	images_events_progress(w->events, progress);
}

static void on_pulled(void *arg, const char *name, const struct sbx_err *err)
{
	struct waiting *w = arg;
	struct sbx_err mine = *err;
	const struct image *image = mine.code ? NULL : image_store_find(w->context->images, name, &mine);

	images_events_finish(w->events, image, &mine);
	free(w);
}

/* ---- the request ---- */

struct wanted {
	const char *ref;
	const char *policy;
	bool has_auth;
	struct registry_credentials auth;
};

static int take_text(const struct jv *object, const char *key, char *out, size_t size, struct sbx_err *err)
{
	const char *text = jv_str(jv_get(object, key));

	if (!text || strlen(text) >= size)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "auth.%s: a text of at most %zu bytes is required", key, size - 1);
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int take_wanted(const struct jv *root, const char *configured, struct wanted *w, struct sbx_err *err)
{
	static const char *const known[] = {"image", "auth", "policy"};
	const struct jv *auth = jv_get(root, "auth"), *policy = jv_get(root, "policy");

	for (const struct jv *v = jv_first(root); v; v = jv_next(v)) {
		size_t i = 0;

		while (i < ARRAY_SIZE(known) && strcmp(known[i], jv_name(v)) != 0)
			i++;
		if (i == ARRAY_SIZE(known))
			return sbx_err_set(err, SBX_E_SCHEMA, 0, "%.60s: not known", jv_name(v));
	}
	w->ref = jv_str(jv_get(root, "image"));
	if (!w->ref || !*w->ref)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "image: a reference is required");
	if (jv_is_set(auth)) {
		if (take_text(auth, "username", w->auth.user, sizeof(w->auth.user), err) < 0 ||
		    take_text(auth, "password", w->auth.password, sizeof(w->auth.password), err) < 0)
			return -1;
		w->has_auth = true;
	}
	const char *text = jv_is_set(policy) ? jv_str(policy) : "always";
	if (!text || (strcmp(text, "always") != 0 && strcmp(text, "missing") != 0 && strcmp(text, "default") != 0))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "policy: always, missing or default");
	w->policy = !strcmp(text, "default") ? configured : text;
	return 0;
}

int images_pull_begin(const struct api_context *context, const char *body, size_t n, int *ret_fd, struct sbx_err *err)
{
	auto_jv root = NULL;
	struct wanted wanted = {0};
	struct sbx_err ignored = {0};

	if (!context->pulls)
		return sbx_err_set(err, SBX_E_OVERLOADED, 0, "the image store is not ready");
	root = jv_parse(body, n, err);
	if (!root || take_wanted(root, context->settings->images_pull_policy, &wanted, err) < 0)
		return -1;
	const struct image *here = image_store_usable(context->images, wanted.ref, &ignored);
	if (!here && !strcmp(wanted.policy, "never")) {
		*err = ignored;
		return -1;
	}
	if (!strcmp(wanted.policy, "always"))
		here = NULL;
	struct waiting *w = calloc(1, sizeof(*w));
	if (!w)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
	w->context = context;
	w->events = images_events_new(context, on_cancel, w, ret_fd, err);
	if (!w->events) {
		free(w);
		return -1;
	}
	if (here) {
		images_events_finish(w->events, here, NULL);
		free(w);
		return 0;
	}
	const struct image_pull_request request = {
		.ref = wanted.ref,
		.credentials = wanted.has_auth ? &wanted.auth : NULL,
		.arg = w,
		.progress = on_progress,
		.done = on_pulled,
	};
	w->ticket = image_pull(context->pulls, &request, err);
	explicit_bzero(&wanted.auth, sizeof(wanted.auth));
	if (w->ticket)
		return 0;
	close(*ret_fd);
	*ret_fd = -1;
	images_events_drop(w->events);
	free(w);
	return -1;
}

/* ---- the broker ---- */

static struct pull_broker {
	struct broker_client *client;
	const struct settings *settings;
	const struct api_context *context; /* who else needs layers and blobs; NULL before and after the API */
} pull_broker;

struct layer_call {
	image_layer_done *done;
	void *to;
	bool stat;
};

static void layer_answered(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct layer_call *call = arg;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (err->code)
		call->done(call->to, false, 0, err);
	else
		call->done(call->to, !call->stat || reply->layer_reply.present, reply->layer_reply.bytes, NULL);
	free(call);
}

static int layer_call(struct broker_layer_req *req, int fd, bool stat, image_layer_done *done, void *to, struct sbx_err *err)
{
	struct layer_call *call = calloc(1, sizeof(*call));

	if (!call)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "layer");
	*call = (struct layer_call){done, to, stat};
	if (broker_client_call(pull_broker.client, req, fd, layer_answered, call, err) < 0) {
		free(call);
		return -1;
	}
	return 0;
}

static int layer_stat(void *arg, const uint8_t key[DIGEST_BYTES], image_layer_done *done, void *to, struct sbx_err *err)
{
	struct broker_layer_req req = {.head = {.op = BROKER_OP_LAYER_STAT, .size = sizeof(req)}};

	(void)arg;
	memcpy(req.key, key, sizeof(req.key));
	return layer_call(&req, -1, true, done, to, err);
}

static int layer_unpack(void *arg, const struct image_layer_job *job, image_layer_done *done, void *to, struct sbx_err *err)
{
	static const uint32_t forms[] = {[LAYER_TAR] = BROKER_FORM_TAR, [LAYER_GZIP] = BROKER_FORM_TAR_GZIP, [LAYER_ZSTD] = BROKER_FORM_TAR_ZSTD};
	const struct pull_broker *b = arg;
	struct broker_layer_req req = {
		.head = {.op = BROKER_OP_LAYER_UNPACK, .size = sizeof(req)},
		.form = job->form < ARRAY_SIZE(forms) ? forms[job->form] : 0,
		.n_lower = (uint32_t)job->n_lower,
		.max_bytes = (uint64_t)b->settings->images_max_unpacked_bytes,
		.max_entries = (uint64_t)b->settings->images_max_entries,
	};

	if (job->n_lower > ARRAY_SIZE(req.lower))
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %u layers", BROKER_MAX_LAYERS);
	memcpy(req.key, job->key, sizeof(req.key));
	memcpy(req.diff_id, job->diff_id, sizeof(req.diff_id));
	memcpy(req.lower, job->lower, job->n_lower * sizeof(req.lower[0]));
	return layer_call(&req, job->blob_fd, false, done, to, err);
}

static void layer_drop(void *arg, const uint8_t key[DIGEST_BYTES])
{
	const struct pull_broker *b = arg;

	if (b->context) /* else the API is not there yet, or no more, and a collection finds it */
		images_drop_layer(b->context, key);
}

static bool blob_wanted(void *arg, const uint8_t digest[DIGEST_BYTES])
{
	const struct pull_broker *b = arg;

	return b->context && images_blob_wanted(b->context, digest);
}

void images_pull_serve(const struct api_context *context)
{
	pull_broker.context = context;
}

struct image_pull_hooks images_pull_hooks(struct broker_client *broker, const struct settings *settings)
{
	pull_broker = (struct pull_broker){.client = broker, .settings = settings};
	return (struct image_pull_hooks){.arg = &pull_broker,
					 .layer_stat = layer_stat,
					 .layer_unpack = layer_unpack,
					 .layer_drop = layer_drop,
					 .blob_wanted = blob_wanted};
}
