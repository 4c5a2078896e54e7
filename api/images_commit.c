// SPDX-License-Identifier: Apache-2.0
#include "api/images_commit.h"

#include "api/call.h"
#include "api/images_int.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/num.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "images/blob_store.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/layer_form.h"
#include "images/pull.h"
#include "images/pull_transfer.h"
#include "runtime/broker_client.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Each may hold as much disk as an image, and the broker reads so many trees at once. */
#define COMMITS_MAX   4u
#define CHANGES_MAX   256u
#define NOTE_MAX      1024u
#define FULL_BYTES    (4ull * 1024 * 1024) /* a disk with less is taken for full */

struct commit {
	struct images_commits *set;
	struct commit *next;
	struct api_call *call;
	uint8_t id[16];
	char id_text[UUID_SIZE];
	char name[IMAGE_REF_TEXT_BYTES]; /* canonical */
	char *image_uri;		 /* owned; what the sandbox was asked with: whose configuration is taken first */
	bool pause, flatten;
	char *message, *author, *workdir, *user; /* owned; NULL: not said */
	char **env, **entrypoint, **cmd;	 /* owned, NULL-terminated; NULL: not said */
	int write_fd, read_fd;
	uint8_t layer[LIMIT_LAYERS][DIGEST_BYTES]; /* what it lies upon, lowest first; the new one behind them */
	size_t n_layers;
	bool has_key, has_blob;
	uint8_t key[DIGEST_BYTES];
	uint8_t blob[DIGEST_BYTES], diff_id[DIGEST_BYTES];
	uint64_t packed, unpacked;
	struct transfer *transfer;
};

struct images_commits {
	const struct api_context *context;
	struct commit *first;
	unsigned n;
};

/* ---- the set ---- */

struct images_commits *images_commits_new(const struct api_context *context, struct sbx_err *err)
{
	struct images_commits *set = calloc(1, sizeof(*set));

	if (!set)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "commits");
	else
		set->context = context;
	return set;
}

static void list_free(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free(list);
}

static void commit_free(struct commit *c)
{
	for (struct commit **at = &c->set->first; *at; at = &(*at)->next) {
		if (*at != c)
			continue;
		*at = c->next;
		c->set->n--;
		break;
	}
	sandbox_release(c->set->context->manager, c->id);
	transfer_free(c->transfer);
	close_keep_errno(c->write_fd);
	close_keep_errno(c->read_fd);
	free(c->image_uri);
	free(c->message);
	free(c->author);
	free(c->workdir);
	free(c->user);
	list_free(c->env);
	list_free(c->entrypoint);
	list_free(c->cmd);
	free(c);
}

void images_commits_free(struct images_commits *set)
{
	if (!set)
		return;
	while (set->first) {
		struct api_call *call = set->first->call;

		commit_free(set->first);
		api_reply_code(call, SBX_E_PEER_GONE, "the server is being restarted");
	}
	free(set);
}

bool images_commits_want_layer(const struct images_commits *set, const uint8_t key[32])
{
	for (const struct commit *c = set->first; c; c = c->next) {
		if (c->has_key && !memcmp(c->key, key, DIGEST_BYTES))
			return true;
		for (size_t i = 0; i < c->n_layers; i++)
			if (!memcmp(c->layer[i], key, DIGEST_BYTES))
				return true;
	}
	return false;
}

bool images_commits_want_blob(const struct images_commits *set, const uint8_t digest[32])
{
	for (const struct commit *c = set->first; c; c = c->next)
		if (c->has_blob && !memcmp(c->blob, digest, DIGEST_BYTES))
			return true;
	return false;
}

/* ---- the end ---- */

static bool disk_is_full(const struct api_context *context)
{
	struct statvfs fs;

	return fstatvfs(context->state_dir_fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < FULL_BYTES;
}

static void fail(struct commit *c, const struct sbx_err *err)
{
	struct api_call *call = c->call;
	struct sbx_err mine = *err;

	/* a worker's errno does not come as far as here; while its file is still there, the disk says the same */
	if (mine.code == SBX_E_SYSTEM && (mine.sys == ENOSPC || disk_is_full(c->set->context))) {
		log_warn("commit of sandbox %s: %s", c->id_text, mine.msg);
		sbx_err_set(&mine, SBX_E_STATE_FULL, 0, "commit: the file system of the state directory is full");
	} else {
		sbx_err_wrap(&mine, "commit");
	}
	commit_free(c);
	api_reply_error(call, &mine);
}

static void fail_code(struct commit *c, enum sbx_err_code code, int sys, const char *text)
{
	struct sbx_err err = {0};

	sbx_err_set(&err, code, sys, "%s", text);
	fail(c, &err);
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

/* ---- the index ---- */

/* The image whose layers the sandbox was made from: under the name that was asked for if it still has them, else any. */
static const struct image *base_image(const struct commit *c)
{
	struct image_store *store = c->set->context->images;
	struct sbx_err ignored = {0};
	size_t n = c->n_layers;
	const struct image *named = c->image_uri ? image_store_find(store, c->image_uri, &ignored) : NULL;

	if (named && named->n_layers == n && !memcmp(named->layers, c->layer, n * DIGEST_BYTES))
		return named;
	for (const struct image *i = image_store_next(store, NULL); i; i = image_store_next(store, i))
		if (i->n_layers == n && !memcmp(i->layers, c->layer, n * DIGEST_BYTES))
			return i;
	return NULL;
}

static size_t name_length(const char *variable)
{
	return strcspn(variable, "=");
}

/* Borrowed strings of both, the later ones over those with the same name; Return: owned array, NULL when out of memory */
static char **merge_env(char *const *base, char *const *changes)
{
	size_t n = 0, at = 0;

	for (char *const *s = base; s && *s; s++)
		n++;
	for (char *const *s = changes; s && *s; s++)
		n++;
	char **all = calloc(n + 1, sizeof(*all));
	for (int pass = 0; all && pass < 2; pass++) {
		for (char *const *s = pass ? changes : base; s && *s; s++) {
			size_t k = 0;

			while (k < at && (name_length(all[k]) != name_length(*s) || strncmp(all[k], *s, name_length(*s)) != 0))
				k++;
			all[k] = *s;
			at += k == at;
		}
	}
	return all;
}

static int fill_blobs(const struct commit *c, const struct image *base, struct image *image)
{
	image->blobs = calloc(image->n_layers, sizeof(*image->blobs));
	if (!image->blobs)
		return -1;
	for (size_t i = 0; i + 1 < image->n_layers; i++) {
		if (base && base->blobs)
			image->blobs[i] = base->blobs[i];
		else
			image->blobs[i].unpacked = image_store_layer_bytes(c->set->context->images, image->layers[i]);
	}
	struct image_blob *last = &image->blobs[image->n_layers - 1];
	memcpy(last->digest, c->blob, DIGEST_BYTES);
	last->bytes = c->packed;
	last->unpacked = c->unpacked;
	last->form = LAYER_GZIP;
	for (size_t i = 0; i < image->n_layers; i++)
		image->bytes += image->blobs[i].unpacked;
	return 0;
}

/* Layers of the image that the new one replaces, once nobody else has them. */
static void drop_replaced(struct commit *c, uint8_t (*keys)[DIGEST_BYTES], size_t n)
{
	const struct api_context *context = c->set->context;

	for (size_t i = 0; i < n; i++)
		if (!image_store_layer_used(context->images, keys[i]))
			images_drop_layer(context, keys[i]);
}

static int put(struct commit *c, struct sbx_err *err)
{
	struct image_store *store = c->set->context->images;
	const struct image *base = base_image(c);
	auto_free uint8_t(*layers)[DIGEST_BYTES] = calloc(LIMIT_LAYERS + 1, sizeof(*layers));
	auto_free uint8_t(*old)[DIGEST_BYTES] = NULL;
	struct sbx_err ignored = {0};
	size_t n_old = 0, below = c->flatten ? 0 : c->n_layers;
	char none[] = "";
	auto_free char **env = merge_env(base ? base->env : NULL, c->env);
	struct image image = {
		.name = c->name,
		.layers = layers,
		.n_layers = below + 1,
		.env = env,
		.workdir = c->workdir ? c->workdir : base ? base->workdir : none,
		.user = c->user ? c->user : base ? base->user : none,
		.entrypoint = c->entrypoint ? c->entrypoint : base ? base->entrypoint : NULL,
		/* as in a Dockerfile: another entrypoint does not want the old one's arguments */
		.cmd = c->cmd ? c->cmd : base && !c->entrypoint ? base->cmd : NULL,
		.author = c->author,
		.comment = c->message,
		.created_wall_usec = wall_usec(),
		.local = true,
	};

	if (!layers || !env)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "image");
	memcpy(layers, c->layer, below * sizeof(*layers));
	memcpy(layers[below], c->key, sizeof(*layers));
	if (fill_blobs(c, c->flatten ? NULL : base, &image) < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "image");
	auto_free struct image_blob *blobs = image.blobs; /* to be released */
	(void)blobs; /* clang does not count the release as a use */
	const struct image *replaced = image_store_find(store, c->name, &ignored);
	if (replaced && !strcmp(replaced->name, c->name)) {
		old = calloc(replaced->n_layers, sizeof(*old));
		if (old) {
			n_old = replaced->n_layers;
			memcpy(old, replaced->layers, n_old * sizeof(*old));
		}
	}
	if (FAULT_POINT("commit-index"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (image_store_put(store, &image, err) < 0)
		return -1;
	ignore_result(FAULT_POINT("commit-indexed"));
	c->n_layers = 0; /* it holds nothing any more that is not the image's */
	c->has_key = c->has_blob = false;
	drop_replaced(c, old, n_old);
	return 0;
}

static void finish(struct commit *c)
{
	struct api_call *call = c->call;
	struct sbx_err err = {0};
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (put(c, &err) < 0) {
		fail(c, &err);
		return;
	}
	const struct image *image = image_store_find(c->set->context->images, c->name, &err);
	if (!image) {
		fail(c, &err);
		return;
	}
	log_info("sandbox %s: committed to %s", c->id_text, c->name);
	images_render(&w, image);
	commit_free(c);
	api_reply_json(call, 201, &body);
}

/* ---- the layer ---- */

static void on_unpacked(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct commit *c = arg;

	close_all(fds, n_fds);
	if (err->code) {
		fail(c, err);
		return;
	}
	if (reply->layer_reply.bytes)
		c->unpacked = reply->layer_reply.bytes;
	if (FAULT_POINT("commit-unpacked"))
		fail_code(c, SBX_E_SYSTEM, EIO, "fault point");
	else
		finish(c);
}

static void unpack(struct commit *c)
{
	const struct api_context *context = c->set->context;
	struct broker_layer_req req = {
		.head = {.op = BROKER_OP_LAYER_UNPACK, .size = sizeof(req)},
		.form = BROKER_FORM_TAR_GZIP,
		.n_lower = c->flatten ? 0 : (uint32_t)c->n_layers,
		.max_bytes = (uint64_t)context->settings->images_max_unpacked_bytes,
		.max_entries = (uint64_t)context->settings->images_max_entries,
	};
	struct sbx_err err = {0};
	auto_fd blob = blob_store_get(context->blobs, c->blob);

	if (blob < 0) {
		fail_code(c, SBX_E_SYSTEM, -blob, "open the packed layer");
		return;
	}
	memcpy(req.key, c->key, sizeof(req.key));
	memcpy(req.diff_id, c->diff_id, sizeof(req.diff_id));
	memcpy(req.lower, c->layer, req.n_lower * sizeof(req.lower[0]));
	if (broker_client_call(context->broker, &req, blob, on_unpacked, c, &err) < 0)
		fail(c, &err);
}

static void on_stored(void *arg, const struct sbx_err *err, bool resumed)
{
	struct commit *c = arg;
	struct sbx_err mine = {0};

	(void)resumed;
	transfer_free(c->transfer);
	c->transfer = NULL;
	close_keep_errno(take_fd(&c->read_fd)); /* the copy in the blob store is the one that counts */
	if (err->code)
		fail(c, err);
	else if (FAULT_POINT("commit-stored"))
		fail_code(c, SBX_E_SYSTEM, EIO, "fault point");
	else if (digest_chain(c->flatten || !c->n_layers ? NULL : c->layer[c->n_layers - 1], c->blob, c->key, &mine) < 0)
		fail(c, &mine);
	else {
		c->has_key = true;
		unpack(c);
	}
}

static int nothing_wanted(void *arg, uint64_t offset, int fd, struct sbx_err *err)
{
	(void)arg, (void)offset, (void)fd;
	return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the layer is a whole file");
}

static void no_progress(void *arg, uint64_t bytes)
{
	(void)arg, (void)bytes;
}

static void store(struct commit *c)
{
	const struct transfer_config config = {
		.loop = c->set->context->loop,
		.reaper = image_pulls_reaper(c->set->context->pulls),
		.blobs = c->set->context->blobs,
		.digest = c->blob,
		.size = c->packed,
		.file = c->read_fd,
		.arg = c,
		.wanted = nothing_wanted,
		.progress = no_progress,
		.ended = on_stored,
	};
	struct sbx_err err = {0};

	c->has_blob = true;
	c->transfer = transfer_new(&config, &err);
	if (!c->transfer)
		fail(c, &err);
}

/* ---- the capture ---- */

static void on_captured(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct commit *c = arg;

	close_all(fds, n_fds);
	close_keep_errno(take_fd(&c->write_fd));
	sandbox_release(c->set->context->manager, c->id);
	if (err->code) {
		fail(c, err);
		return;
	}
	/* its word: the blob store hashes the bytes, and unpacking them the tar */
	c->packed = reply->capture_reply.packed_bytes;
	c->unpacked = reply->capture_reply.bytes;
	memcpy(c->blob, reply->capture_reply.digest, sizeof(c->blob));
	memcpy(c->diff_id, reply->capture_reply.diff_id, sizeof(c->diff_id));
	if (FAULT_POINT("commit-captured"))
		fail_code(c, SBX_E_SYSTEM, EIO, "fault point");
	else
		store(c);
}

static int life_of(const struct commit *c, struct broker_slot_ref *ret, struct sbx_err *err)
{
	const struct sandbox *s = sandbox_find(c->set->context->manager, c->id, err);

	if (!s)
		return -1;
	if (s->slot == BROKER_NO_SLOT || s->state == SANDBOX_PENDING || s->state == SANDBOX_STOPPING)
		return sbx_err_set(err, SBX_E_NOT_RUNNING, 0, "sandbox %s is %s: its files cannot be read", s->id_text, sandbox_state_name(s->state));
	*ret = (struct broker_slot_ref){.slot = s->slot, .generation = s->generation};
	return 0;
}

static int make_file(struct commit *c, struct sbx_err *err)
{
	char path[40];
	/* it never has a name: nothing is left of it after a crash */
	auto_fd fd = openat(c->set->context->state_dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "file for the layer");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	c->write_fd = open(path, O_WRONLY | O_CLOEXEC);
	c->read_fd = open(path, O_RDONLY | O_CLOEXEC);
	return c->write_fd < 0 || c->read_fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "file for the layer") : 0;
}

static void on_layers(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct commit *c = arg;
	const struct api_context *context = c->set->context;
	struct broker_capture_req req = {
		.head = {.op = BROKER_OP_SANDBOX_CAPTURE, .size = sizeof(req)},
		.form = BROKER_FORM_TAR_GZIP,
		.max_bytes = (uint64_t)context->settings->images_max_unpacked_bytes,
		.max_entries = (uint64_t)context->settings->images_max_entries,
	};
	struct sbx_err mine = *err;

	close_all(fds, n_fds);
	if (!mine.code && (reply->sandbox_layers_reply.host_usr || !reply->sandbox_layers_reply.n_layers))
		sbx_err_set(&mine, SBX_E_INVALID_REQUEST, 0, "the image \"host\" is this machine's own /usr: what was made from it cannot be an image");
	if (!mine.code && life_of(c, &req.ref, &mine) == 0 && make_file(c, &mine) == 0) {
		c->n_layers = reply->sandbox_layers_reply.n_layers;
		memcpy(c->layer, reply->sandbox_layers_reply.layer, c->n_layers * sizeof(c->layer[0]));
		/* one more would be too many: all become one */
		c->flatten |= c->n_layers >= LIMIT_LAYERS;
		req.kind = c->flatten;
		if (broker_client_call(context->broker, &req, c->write_fd, on_captured, c, &mine) == 0)
			return;
	}
	fail(c, &mine);
}

static void on_held(void *arg, const struct sandbox *sandbox, const struct sbx_err *err)
{
	struct commit *c = arg;
	struct broker_slot_ref ref = {0};
	struct sbx_err mine = err ? *err : (struct sbx_err){0};

	(void)sandbox;
	if (!mine.code && FAULT_POINT("commit-held"))
		sbx_err_set(&mine, SBX_E_SYSTEM, EIO, "fault point");
	if (mine.code || life_of(c, &ref, &mine) < 0 ||
	    broker_client_slot(c->set->context->broker, BROKER_OP_SANDBOX_LAYERS, ref, 0, on_layers, c, &mine) < 0)
		fail(c, &mine);
}

/* ---- the request ---- */

static int known_members(const struct jv *object, const char *const *known, size_t n, const char *where, struct sbx_err *err)
{
	for (const struct jv *v = jv_first(object); v; v = jv_next(v)) {
		size_t i = 0;

		while (i < n && strcmp(known[i], jv_name(v)) != 0)
			i++;
		if (i == n)
			return sbx_err_set(err, SBX_E_SCHEMA, 0, "%s%.60s: not known", where, jv_name(v));
	}
	return 0;
}

static int take_text(const struct jv *object, const char *key, size_t max, char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_get(object, key);
	const char *text = jv_str(v);

	if (!jv_is_set(v))
		return 0;
	if (!text || strlen(text) > max)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "%s: a text of at most %zu bytes", key, max);
	*ret = strdup(text);
	return *ret ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "commit");
}

static int take_switch(const struct jv *object, const char *key, bool *ret, struct sbx_err *err)
{
	const struct jv *v = jv_get(object, key);

	return jv_is_set(v) && jv_bool(v, ret) < 0 ? sbx_err_set(err, SBX_E_SCHEMA, 0, "%s: true or false", key) : 0;
}

static int take_list(const struct jv *object, const char *key, size_t max, bool pairs, char ***ret, struct sbx_err *err)
{
	const struct jv *array = jv_get(object, key);
	size_t n = jv_count(array), at = 0;

	if (!jv_is_set(array))
		return 0;
	if (jv_type(array) != JV_ARRAY || n > max)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "config.%s: a list of at most %zu texts", key, max);
	*ret = calloc(n + 1, sizeof(**ret));
	if (!*ret)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "commit");
	for (const struct jv *v = jv_first(array); v; v = jv_next(v)) {
		const char *text = jv_str(v);

		if (!text || strlen(text) >= LIMIT_SPAWN_STRING_BYTES || (pairs && (text[0] == '=' || !strchr(text, '='))))
			return sbx_err_set(err, SBX_E_SCHEMA, 0, "config.%s: entry %zu is no %s", key, at, pairs ? "NAME=value" : "text");
		(*ret)[at] = strdup(text);
		if (!(*ret)[at++])
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "commit");
	}
	return 0;
}

static int take_config(struct commit *c, const struct jv *config, struct sbx_err *err)
{
	static const char *const known[] = {"env", "entrypoint", "cmd", "workdir", "user"};

	if (!jv_is_set(config))
		return 0;
	if (jv_type(config) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "config: an object");
	if (known_members(config, known, ARRAY_SIZE(known), "config.", err) < 0 ||
	    take_list(config, "env", CHANGES_MAX, true, &c->env, err) < 0 ||
	    take_list(config, "entrypoint", LIMIT_SPAWN_STRINGS, false, &c->entrypoint, err) < 0 ||
	    take_list(config, "cmd", LIMIT_SPAWN_STRINGS, false, &c->cmd, err) < 0 ||
	    take_text(config, "workdir", LIMIT_PATH_BYTES - 1, &c->workdir, err) < 0 || take_text(config, "user", 255, &c->user, err) < 0)
		return -1;
	if (c->workdir && c->workdir[0] && c->workdir[0] != '/')
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "config.workdir must be an absolute path");
	return 0;
}

static int take_name(struct commit *c, const struct jv *root, struct sbx_err *err)
{
	const char *text = jv_str(jv_get(root, "name"));
	struct image_ref ref;

	if (!text || !*text)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "name: the image's name is required");
	if (image_ref_parse(text, strlen(text), &ref, err) < 0)
		return -1;
	if (ref.host || ref.digest[0])
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the name \"%.64s\" cannot be given to an image", text);
	image_ref_canonical(&ref, c->name);
	return 0;
}

static int take_request(struct commit *c, const struct jv *root, struct sbx_err *err)
{
	static const char *const known[] = {"name", "pause", "flatten", "message", "author", "config"};

	if (jv_type(root) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_SCHEMA, 0, "body: a JSON object is required");
	if (known_members(root, known, ARRAY_SIZE(known), "", err) < 0 || take_name(c, root, err) < 0 ||
	    take_switch(root, "pause", &c->pause, err) < 0 || take_switch(root, "flatten", &c->flatten, err) < 0 ||
	    take_text(root, "message", NOTE_MAX, &c->message, err) < 0 || take_text(root, "author", NOTE_MAX, &c->author, err) < 0)
		return -1;
	return take_config(c, jv_get(root, "config"), err);
}

static int find_sandbox(struct commit *c, const char *id, struct sbx_err *err)
{
	if (uuid_parse(id, c->id) < 0)
		return sbx_err_set(err, SBX_E_SANDBOX_NOT_FOUND, 0, "no sandbox has the id \"%.64s\"", id);
	const struct sandbox *s = sandbox_find(c->set->context->manager, c->id, err);
	if (!s)
		return -1;
	memcpy(c->id_text, s->id_text, sizeof(c->id_text));
	for (const struct commit *other = c->set->first; other; other = other->next)
		if (other != c && !memcmp(other->id, c->id, sizeof(c->id)))
			return sbx_err_set(err, SBX_E_NOT_RUNNING, 0, "sandbox %s is being committed", c->id_text);
	if (s->spec.image_uri) {
		c->image_uri = strdup(s->spec.image_uri);
		if (!c->image_uri)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "commit");
	}
	return 0;
}

static void begin(struct commit *c)
{
	if (c->pause)
		sandbox_hold(c->set->context->manager, c->id, on_held, c);
	else
		on_held(c, NULL, NULL);
}

void images_api_commit(struct api_call *call)
{
	struct images_commits *set = call->context->commits;
	struct sbx_err err = {0};
	auto_jv root = NULL;

	if (!set || !call->context->images || !call->context->blobs || !call->context->broker) {
		api_reply_code(call, SBX_E_OVERLOADED, "the image store is not ready");
		return;
	}
	if (api_call_body(call, true, &root) < 0)
		return;
	if (set->n >= COMMITS_MAX) {
		api_reply_code(call, SBX_E_LIMIT, "%u commits are under way, try again", set->n);
		return;
	}
	struct commit *c = calloc(1, sizeof(*c));
	if (!c) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	c->set = set;
	c->call = call;
	c->pause = true;
	c->write_fd = c->read_fd = -1;
	c->next = set->first;
	set->first = c;
	set->n++;
	if (find_sandbox(c, call->param[0], &err) < 0 || take_request(c, root, &err) < 0) {
		/* not fail(): the sandbox may be another commit's to release */
		memset(c->id, 0, sizeof(c->id));
		commit_free(c);
		api_reply_error(call, &err);
		return;
	}
	begin(c);
}
