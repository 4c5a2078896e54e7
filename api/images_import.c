// SPDX-License-Identifier: Apache-2.0
#include "api/images_import.h"

#include "api/images_events.h"
#include "api/images_int.h"
#include "api/lifecycle/word_split.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/num.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "images/archive_image.h"
#include "images/digest.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/pull.h"
#include "runtime/broker_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Each may hold as much disk as an image: an operator imports one after another. */
#define IMPORTS_MAX 4u
/* What one turn of the loop spends on a digest: under a millisecond also without SHA instructions. */
#define DIGEST_STEP_BYTES (256u * 1024)
#define ENV_MAX		  256u
#define IMPORT_DIR	  "import"

struct images_import {
	struct images_imports *set;
	struct images_import *next;
	const void *owner; /* compared only */
	uint64_t handle;
	bool finishing; /* done was called */
	int fd;		/* read-only, owned */
	struct image image;
	uint32_t form; /* enum broker_unpack_form; 0: look at the first bytes */
	uint64_t bytes; /* of the body */
	enum archive_kind kind; /* asked for; ARCHIVE_UNKNOWN: find out */
	char *ref; /* owned; which image of an archive, or NULL */
	bool has_config; /* the query says how a root file system is started */
	bool wants_events;
	struct images_events *events;
	struct archive_image archive;
	struct image_pull_ticket *ticket;
	struct digest *digest;
	struct loop_timer *timer;
	bool has_key;
	uint8_t key[DIGEST_BYTES];
	api_answer_fn *answer;
	void *answer_arg;
};

struct images_imports {
	const struct api_context *context;
	struct images_import *first;
	unsigned n;
};

struct images_imports *images_imports_new(const struct api_context *context, struct sbx_err *err)
{
	struct images_imports *set = calloc(1, sizeof(*set));

	if (!set) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "imports");
		return NULL;
	}
	set->context = context;
	return set;
}

static void import_free(struct images_import *import)
{
	for (struct images_import **at = &import->set->first; *at; at = &(*at)->next) {
		if (*at != import)
			continue;
		*at = import->next;
		import->set->n--;
		break;
	}
	if (import->ticket)
		image_pull_leave(import->ticket);
	images_events_drop(import->events);
	archive_image_clear(&import->archive);
	free(import->ref);
	close_keep_errno(import->fd);
	image_clear(&import->image);
	digest_free(import->digest);
	loop_timer_free(import->timer);
	free(import);
}

void images_imports_free(struct images_imports *set)
{
	if (!set)
		return;
	while (set->first)
		import_free(set->first);
	free(set);
}

uint64_t images_import_handle(const struct images_import *import)
{
	return import->handle;
}

uint64_t images_import_max_bytes(const struct images_import *import)
{
	return (uint64_t)import->set->context->settings->images_max_unpacked_bytes;
}

struct images_import *images_import_find(struct images_imports *set, uint64_t handle, const void *owner)
{
	for (struct images_import *i = set->first; i; i = i->next)
		if (i->handle == handle && i->owner == owner && !i->finishing)
			return i;
	return NULL;
}

bool images_imports_wants(const struct images_imports *set, const uint8_t key[32])
{
	for (const struct images_import *i = set->first; i; i = i->next)
		if (i->has_key && !memcmp(i->key, key, DIGEST_BYTES))
			return true;
	return false;
}

void images_import_drop(struct images_import *import)
{
	import_free(import);
}

void images_imports_drop_owner(struct images_imports *set, const void *owner)
{
	for (struct images_import *i = set->first, *next; i; i = next) {
		next = i->next;
		if (i->owner == owner && !i->finishing)
			import_free(i);
	}
}

/* ---- begin ---- */

static int read_form(struct http_text query, uint32_t *ret, struct sbx_err *err)
{
	static const struct {
		const char *name;
		enum broker_unpack_form form;
	} forms[] = {{"tar", BROKER_FORM_TAR},		{"tar.gz", BROKER_FORM_TAR_GZIP}, {"tgz", BROKER_FORM_TAR_GZIP},
		     {"tar.zst", BROKER_FORM_TAR_ZSTD}, {"tar.zstd", BROKER_FORM_TAR_ZSTD}};
	auto_free char *text = NULL;

	*ret = 0;
	if (images_query_text(query, "format", &text, err) < 0)
		return -1;
	if (!text)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (strcmp(text, forms[i].name) != 0)
			continue;
		*ret = forms[i].form;
		return 0;
	}
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: format must be tar, tar.gz or tar.zst, not \"%.32s\"", text);
}

static int read_kind(struct http_text query, struct images_import *import, struct sbx_err *err)
{
	auto_free char *text = NULL;

	if (images_query_text(query, "kind", &text, err) < 0 || images_query_text(query, "ref", &import->ref, err) < 0 ||
	    images_query_switch(query, "events", &import->wants_events, err) < 0)
		return -1;
	if (text && strcmp(text, "auto") != 0 && !(import->kind = archive_kind_parse(text)))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: kind must be auto, rootfs, oci or docker, not \"%.32s\"", text);
	if (import->ref && import->kind == ARCHIVE_ROOTFS)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: a root file system has no images to choose from by ref");
	return 0;
}

/* An archive may bring its own; a root file system has none. */
static int need_name(const struct images_import *import, struct sbx_err *err)
{
	return import->image.name ? 0 : sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: name is required: %s", import->kind > ARCHIVE_ROOTFS ?
						    "the archive says none" : "a root file system has none of its own");
}

static int read_name(struct http_text query, struct image *image, struct sbx_err *err)
{
	auto_free char *text = NULL;
	char canonical[IMAGE_REF_TEXT_BYTES];
	struct image_ref ref;

	if (images_query_text(query, "name", &text, err) < 0)
		return -1;
	if (!text)
		return 0;
	if (!text[0])
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: name is required, or must be left out");
	if (image_ref_parse(text, strlen(text), &ref, err) < 0)
		return -1;
	if (ref.host || ref.digest[0])
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: the name \"%.64s\" cannot be given to an image",  text);
	image_ref_canonical(&ref, canonical);
	image->name = strdup(canonical);
	return image->name ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "import");
}

static int read_env(struct http_text query, struct image *image, struct sbx_err *err)
{
	struct http_text name, value;
	size_t n = 0;

	image->env = calloc(ENV_MAX + 1, sizeof(*image->env));
	if (!image->env)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "import");
	while (http_next_query(&query, &name, &value)) {
		if (!http_text_is(name, "env"))
			continue;
		char *text = malloc(value.len + 1);
		if (!text)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "import");
		if (http_decode(value, true, text, value.len + 1) < 0 || !strchr(text, '=') || text[0] == '=' || n == ENV_MAX) {
			free(text);
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: env must be NAME=value, at most %u times", ENV_MAX);
		}
		image->env[n++] = text;
	}
	return 0;
}

static int read_config(struct http_text query, struct images_import *import, struct sbx_err *err)
{
	struct image *image = &import->image;
	auto_free char *cmd = NULL;

	if (read_env(query, image, err) < 0 || images_query_text(query, "workdir", &image->workdir, err) < 0 ||
	    images_query_text(query, "user", &image->user, err) < 0 || images_query_text(query, "cmd", &cmd, err) < 0)
		return -1;
	if (image->workdir && image->workdir[0] && (image->workdir[0] != '/' || strlen(image->workdir) >= LIMIT_PATH_BYTES))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: workdir must be an absolute path");
	if (image->user && strlen(image->user) > 255)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: user is too long");
	import->has_config = import->image.env[0] || image->workdir || image->user || (cmd && cmd[0]);
	if (cmd && cmd[0] && word_split(cmd, LIMIT_SPAWN_STRINGS, &image->cmd, err) < 0)
		return -1;
	if (!image->workdir)
		image->workdir = strdup("");
	if (!image->user)
		image->user = strdup("");
	return image->workdir && image->user ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "import");
}

int images_spool(const struct api_context *context, const char *purpose, int *ret_read, int *ret_write, struct sbx_err *err)
{
	int state_dir_fd = context->state_dir_fd;
	uint64_t number = 0;
	char name[64];

	random_bytes(&number, sizeof(number));
	if (mkdirat(state_dir_fd, IMPORT_DIR, 0700) < 0 && errno != EEXIST)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s: mkdir", purpose);
	snprintf(name, sizeof(name), IMPORT_DIR "/%016llx", (unsigned long long)number);
	auto_fd write_fd = openat(state_dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (write_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s: open", purpose);
	auto_fd read_fd = openat(state_dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	int saved = errno;
	unlinkat(state_dir_fd, name, 0);
	if (read_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, saved, "%s: open", purpose);
	*ret_read = take_fd(&read_fd);
	*ret_write = take_fd(&write_fd);
	return 0;
}

struct images_import *images_import_begin(struct images_imports *set, struct http_text query, const void *owner,
					  int *ret_write_fd, struct sbx_err *err)
{
	if (!set->context->images || !set->context->broker) {
		sbx_err_set(err, SBX_E_OVERLOADED, 0, "import: the image store is not ready");
		return NULL;
	}
	if (set->n >= IMPORTS_MAX) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "import: %u are under way, try again", set->n);
		return NULL;
	}
	struct images_import *import = calloc(1, sizeof(*import));
	if (!import) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "import");
		return NULL;
	}
	import->set = set;
	import->fd = -1;
	import->archive.fd = -1;
	import->owner = owner;
	import->next = set->first;
	set->first = import;
	set->n++;
	do
		random_bytes(&import->handle, sizeof(import->handle));
	while (!import->handle);
	if (read_name(query, &import->image, err) < 0 || read_form(query, &import->form, err) < 0 ||
	    read_kind(query, import, err) < 0 || read_config(query, import, err) < 0 ||
	    (import->kind == ARCHIVE_ROOTFS && need_name(import, err) < 0) ||
	    images_spool(set->context, "import", &import->fd, ret_write_fd, err) < 0) {
		import_free(import);
		return NULL;
	}
	return import;
}

/* ---- done ---- */

/* With @image, of the store or our own, or with @err. */
static void finish(struct images_import *import, const struct image *image, const struct sbx_err *err)
{
	api_answer_fn *answer = import->answer;
	void *arg = import->answer_arg;
	struct api_answer reply;
	auto_buf body = {0};

	if (import->events) {
		struct images_events *events = import->events;

		import->events = NULL;
		images_events_finish(events, err ? NULL : image, err);
		import_free(import);
		return;
	}
	if (err) {
		api_error_answer(err, &body, &reply);
	} else {
		struct jw w = {.out = &body};

		images_render(&w, image);
		const char *text = buf_str(&body);
		reply = (struct api_answer){.status = text ? 201 : 500,
					    .content_type = "application/json",
					    .headers = "",
					    .body = text ? text : "{}",
					    .body_len = text ? buf_used(&body) : 2};
	}
	import_free(import);
	answer(arg, &reply);
}

static void finish_code(struct images_import *import, enum sbx_err_code code, int sys, const char *text)
{
	struct sbx_err err = {0};

	sbx_err_set(&err, code, sys, "import: %s", text);
	finish(import, NULL, &err);
}

static void put(struct images_import *import, const struct broker_layer_reply *reply)
{
	struct sbx_err err = {0};

	import->image.layers = calloc(1, sizeof(*import->image.layers));
	if (!import->image.layers) {
		finish_code(import, SBX_E_NO_MEMORY, 0, "out of memory");
		return;
	}
	memcpy(import->image.layers[0], import->key, DIGEST_BYTES);
	import->image.n_layers = 1;
	import->image.bytes = reply->bytes;
	import->image.created_wall_usec = wall_usec();
	import->image.local = true;
	if (FAULT_POINT("import-put"))
		finish_code(import, SBX_E_SYSTEM, EIO, "fault point");
	else if (image_store_put(import->set->context->images, &import->image, &err) < 0)
		finish(import, NULL, &err);
	else
		finish(import, &import->image, NULL);
}

/* broker_client_free() drops its calls and comes before the set goes only at the end of the process, so @arg is alive. */
static void unpacked(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct images_import *import = arg;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (err->code)
		finish(import, NULL, err);
	else
		put(import, &reply->layer_reply);
}

static int sniff_form(int fd, uint32_t *ret)
{
	uint8_t first[4] = {0};

	if (pread(fd, first, sizeof(first), 0) < 0)
		return -errno;
	if (first[0] == 0x1f && first[1] == 0x8b)
		*ret = BROKER_FORM_TAR_GZIP;
	else if (!memcmp(first, "\x28\xb5\x2f\xfd", 4))
		*ret = BROKER_FORM_TAR_ZSTD;
	else
		*ret = BROKER_FORM_TAR;
	return 0;
}

static void unpack(struct images_import *import)
{
	const struct api_context *context = import->set->context;
	struct broker_layer_req req = {
		.head = {.op = BROKER_OP_LAYER_UNPACK, .size = sizeof(req)},
		.form = import->form,
		.max_bytes = (uint64_t)context->settings->images_max_unpacked_bytes,
		.max_entries = (uint64_t)context->settings->images_max_entries,
	};
	struct sbx_err err = {0};

	import->has_key = true;
	memcpy(req.key, import->key, sizeof(req.key));
	if (lseek(import->fd, 0, SEEK_SET) < 0)
		finish_code(import, SBX_E_SYSTEM, errno, "seek");
	else if (broker_client_call(context->broker, &req, import->fd, unpacked, import, &err) < 0)
		finish(import, NULL, &err);
}

static void digest_turn(void *arg)
{
	struct images_import *import = arg;
	uint8_t blob[DIGEST_BYTES];
	struct sbx_err err = {0};
	ssize_t n = digest_step(import->digest, import->fd, DIGEST_STEP_BYTES, &err);

	if (n > 0) {
		loop_timer_arm(import->timer, 0);
		return;
	}
	if (n < 0 || digest_finish(import->digest, blob, &err) < 0 || digest_chain(NULL, blob, import->key, &err) < 0)
		finish(import, NULL, &err);
	else
		unpack(import);
}

/* A second descriptor, for writing too: only after the question whether anybody else has one. */
static int open_whole(const struct images_import *import)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", import->fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

static void begin_rootfs(struct images_import *import)
{
	struct sbx_err err = {0};

	if (need_name(import, &err) < 0 || !(import->digest = digest_new(&err)))
		finish(import, NULL, &err);
	else if (!(import->timer = loop_timer_new(import->set->context->loop, digest_turn, import)))
		finish_code(import, SBX_E_NO_MEMORY, 0, "out of memory");
	else
		loop_timer_arm(import->timer, 0);
}

/* ---- archives of images ---- */

static void on_progress(void *arg, const struct image_pull_progress *progress)
{
	struct images_import *import = arg;

	images_events_progress(import->events, progress);
}

static void on_made(void *arg, const char *name, const struct sbx_err *err)
{
	struct images_import *import = arg;
	struct sbx_err mine = *err;
	const struct image *image = mine.code ? NULL : image_store_find(import->set->context->images, name, &mine);

	import->ticket = NULL;
	if (!image)
		sbx_err_wrap(&mine, "import");
	finish(import, image, image ? NULL : &mine);
}

static int begin_archive(struct images_import *import, const struct broker_capture_reply *reply, struct sbx_err *err)
{
	struct archive_table table;

	if (import->has_config)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "import: env, workdir, user and cmd are for root file systems; an image has its own");
	if (!import->set->context->pulls)
		return sbx_err_set(err, SBX_E_OVERLOADED, 0, "the image store is not ready");
	if (archive_table_load(import->fd, reply->bytes, reply->entries, &table, err) < 0 ||
	    archive_image_choose(import->fd, &table, import->kind, import->ref, &import->archive, err) < 0)
		return -1;
	if (!import->image.name && import->archive.name[0] && !(import->image.name = strdup(import->archive.name)))
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "import");
	if (need_name(import, err) < 0)
		return -1;
	if (FAULT_POINT("import-indexed"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	const struct image_pull_request request = {
		.ref = import->image.name, .arg = import, .progress = import->events ? on_progress : NULL, .done = on_made};
	const struct image_pull_local local = {.manifest = import->archive.manifest,
					       .n_manifest = import->archive.n_manifest,
					       .type = import->archive.type,
					       .arg = &import->archive,
					       .find = archive_image_find};
	import->ticket = image_pull_local(import->set->context->pulls, &request, &local, err);
	return import->ticket ? 0 : -1;
}

static void indexed(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct images_import *import = arg;
	struct sbx_err mine = {0};

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (err->code) {
		mine = *err;
		sbx_err_wrap(&mine, "import");
		finish(import, NULL, &mine);
		return;
	}
	uint32_t kind = reply->capture_reply.kind;
	if (kind == ARCHIVE_ROOTFS && !import->kind && !import->ref) {
		auto_fd whole = open_whole(import);

		import->kind = ARCHIVE_ROOTFS;
		/* it may have begun to unpack the archive behind itself */
		if (whole < 0 || ftruncate(whole, (off_t)import->bytes) < 0)
			finish_code(import, SBX_E_SYSTEM, errno, "truncate");
		else
			begin_rootfs(import);
		return;
	}
	if ((kind != ARCHIVE_OCI && kind != ARCHIVE_DOCKER) || (import->kind && kind != (uint32_t)import->kind)) {
		finish_code(import, SBX_E_IMAGE_INVALID, 0, "no archive of images: a ref is for OCI layouts and docker save");
		return;
	}
	import->kind = (enum archive_kind)kind;
	if (begin_archive(import, &reply->capture_reply, &mine) < 0) {
		sbx_err_wrap(&mine, "archive");
		finish(import, NULL, &mine);
	}
}

static void ask_index(struct images_import *import)
{
	const struct api_context *context = import->set->context;
	uint64_t entries = (uint64_t)context->settings->images_max_entries;
	struct broker_capture_req req = {
		.head = {.op = BROKER_OP_ARCHIVE_INDEX, .size = sizeof(req)},
		.form = import->form,
		.kind = import->kind,
		.max_bytes = (uint64_t)context->settings->images_max_unpacked_bytes,
		.max_entries = entries < ARCHIVE_ENTRIES_MAX ? entries : ARCHIVE_ENTRIES_MAX,
	};
	struct sbx_err err = {0};
	auto_fd whole = open_whole(import);

	if (whole < 0)
		finish_code(import, SBX_E_SYSTEM, errno, "open again");
	else if (broker_client_call(context->broker, &req, whole, indexed, import, &err) < 0)
		finish(import, NULL, &err);
}

/* ---- */

static void on_cancel(void *arg)
{
	struct images_import *import = arg;

	import->events = NULL;
	/* a call to the broker is under way otherwise; its answer finds an import that nobody waits for */
	if (import->ticket)
		import_free(import);
}

static void nobody(void *arg, const struct api_answer *answer)
{
	(void)arg, (void)answer;
}

/* The answer is a stream of events from here on.  Return: 0, or -1 with @err set */
static int begin_events(struct images_import *import, struct sbx_err *err)
{
	int fd = -1;

	import->events = images_events_new(import->set->context, on_cancel, import, &fd, err);
	if (!import->events)
		return -1;
	const struct api_answer answer = {
		.status = 200, .content_type = "text/event-stream", .headers = "Cache-Control: no-cache\r\n", .body = "", .stream_fd = fd};
	import->answer(import->answer_arg, &answer);
	import->answer = nobody;
	close(fd);
	return 0;
}

void images_import_done(struct images_import *import, api_answer_fn *answer, void *arg)
{
	struct sbx_err err = {0};
	struct stat st;

	import->answer = answer;
	import->answer_arg = arg;
	import->finishing = true;
	/* EAGAIN: somebody has it open for writing, and could change what was digested before it is unpacked */
	if (fcntl(import->fd, F_SETLEASE, F_RDLCK) < 0) {
		if (errno == EAGAIN)
			finish_code(import, SBX_E_PROTOCOL, 0, "the file is still open for writing");
		else
			finish_code(import, SBX_E_SYSTEM, errno, "lease");
		return;
	}
	/*
	 * It was a question only: kept, a lease would turn any later open for writing into SIGIO for us.  The file has no name
	 * and the only descriptor is this one, so no writer can come after the answer.
	 */
	if (fcntl(import->fd, F_SETLEASE, F_UNLCK) < 0)
		finish_code(import, SBX_E_SYSTEM, errno, "lease");
	else if (fstat(import->fd, &st) < 0)
		finish_code(import, SBX_E_SYSTEM, errno, "stat");
	else if (!st.st_size)
		finish_code(import, SBX_E_IMAGE_INVALID, 0, "the body is empty");
	else if ((uint64_t)st.st_size > images_import_max_bytes(import))
		finish_code(import, SBX_E_TOO_LARGE, 0, "larger than images.max_unpacked_bytes");
	else if (!import->form && sniff_form(import->fd, &import->form) < 0)
		finish_code(import, SBX_E_SYSTEM, errno, "read");
	else if (import->wants_events && begin_events(import, &err) < 0)
		finish(import, NULL, &err);
	else {
		import->bytes = (uint64_t)st.st_size;
		if (import->kind == ARCHIVE_ROOTFS)
			begin_rootfs(import);
		else
			ask_index(import);
	}
}
