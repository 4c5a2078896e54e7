// SPDX-License-Identifier: Apache-2.0
#include "api/images_export.h"

#include "api/call.h"
#include "api/images_int.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "base/reaper.h"
#include "base/settings.h"
#include "images/blob_store.h"
#include "images/export_documents.h"
#include "images/export_stream.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/manifest.h"
#include "images/pull.h"
#include "runtime/broker_client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPORTS_MAX 4u /* each may hold an image's size of disk */
#define SAFE_FD	    64
#define PIPE_BYTES  (1024 * 1024)

struct layer_out {
	uint8_t key[DIGEST_BYTES];
	bool kept;	 /* its blob is in the store */
	uint64_t offset; /* else: in the spool */
};

struct export {
	const struct api_context *context;
	struct export *next;
	struct api_call *call; /* NULL: answered */
	char name[IMAGE_REF_TEXT_BYTES];
	uint32_t form; /* enum broker_unpack_form of what is packed anew */
	struct layer_out at[LIMIT_LAYERS];
	struct export_layer layer[LIMIT_LAYERS];
	size_t n, next_layer;
	char *config, *manifest; /* owned; the second: NULL to make one */
	size_t n_config, n_manifest;
	bool config_kept;
	uint8_t config_digest[DIGEST_BYTES], manifest_digest[DIGEST_BYTES];
	int read_fd, write_fd; /* the spool, or -1 */
	uint64_t spooled;
	int pidfd;
	struct loop_fd *source;
};

static struct export *exports;

bool images_exports_want_layer(const uint8_t key[DIGEST_BYTES])
{
	for (const struct export *e = exports; e; e = e->next)
		for (size_t i = 0; i < e->n; i++)
			if (!e->at[i].kept && !memcmp(e->at[i].key, key, DIGEST_BYTES))
				return true;
	return false;
}

bool images_exports_want_blob(const uint8_t digest[DIGEST_BYTES])
{
	for (const struct export *e = exports; e; e = e->next) {
		if (e->config_kept && !memcmp(e->config_digest, digest, DIGEST_BYTES))
			return true;
		for (size_t i = 0; i < e->n; i++)
			if (e->at[i].kept && !memcmp(e->layer[i].digest, digest, DIGEST_BYTES))
				return true;
	}
	return false;
}

static void export_free(struct export *e)
{
	for (struct export **at = &exports; *at; at = &(*at)->next) {
		if (*at != e)
			continue;
		*at = e->next;
		break;
	}
	loop_fd_remove(e->source);
	close_keep_errno(e->pidfd);
	close_keep_errno(e->read_fd);
	close_keep_errno(e->write_fd);
	free(e->config);
	free(e->manifest);
	free(e);
}

static void fail(struct export *e, struct sbx_err *err)
{
	struct api_call *call = e->call;

	sbx_err_wrap(err, "export");
	export_free(e);
	images_reply_error(call, err);
}

/* ---- the stream ---- */

struct plan {
	struct export_row rows[EXPORT_ROWS_MAX];
	size_t n;
	struct buf inline_bytes; /* owned */
};

static struct export_row *add_row(struct plan *p, const char *name, enum export_source source, uint64_t offset, uint64_t size,
				  const uint8_t *digest)
{
	struct export_row *row = &p->rows[p->n++];

	*row = (struct export_row){.source = source, .offset = offset, .size = size};
	snprintf(row->name, sizeof(row->name), "%s", name);
	if (digest)
		memcpy(row->digest, digest, DIGEST_BYTES);
	return row;
}

/* Return: 0, or -1 with @err set */
static int add_inline(struct plan *p, const char *name, const char *data, size_t n, struct sbx_err *err)
{
	uint8_t digest[DIGEST_BYTES];

	if (digest_bytes(data, n, digest, err) < 0)
		return -1;
	add_row(p, name, EXPORT_PLAN, buf_used(&p->inline_bytes), n, digest);
	return buf_append(&p->inline_bytes, data, n) < 0 ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export") : 0;
}

static void blob_name(const uint8_t digest[DIGEST_BYTES], char out[sizeof(((struct export_row *)0)->name)])
{
	char hex[2 * DIGEST_BYTES + 1];

	hex_encode(digest, DIGEST_BYTES, hex);
	snprintf(out, sizeof(((struct export_row *)0)->name), "blobs/sha256/%s", hex);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct export_row *)a)->name, ((const struct export_row *)b)->name);
}

static int add_blobs(struct export *e, struct plan *p, struct sbx_err *err)
{
	char name[sizeof(p->rows[0].name)];
	size_t first = p->n, kept = first;

	blob_name(e->manifest_digest, name);
	if (add_inline(p, name, e->manifest, e->n_manifest, err) < 0)
		return -1;
	blob_name(e->config_digest, name);
	if (add_inline(p, name, e->config, e->n_config, err) < 0)
		return -1;
	for (size_t i = 0; i < e->n; i++) {
		blob_name(e->layer[i].digest, name);
		add_row(p, name, e->at[i].kept ? EXPORT_BLOB : EXPORT_SPOOL, e->at[i].offset, e->layer[i].size, e->layer[i].digest);
	}
	/* sorted, and each once: an image may have the same layer twice */
	qsort(p->rows + first, p->n - first, sizeof(p->rows[0]), by_name);
	for (size_t i = first; i < p->n; i++)
		if (i == first || strcmp(p->rows[i].name, p->rows[kept - 1].name) != 0)
			p->rows[kept++] = p->rows[i];
	p->n = kept;
	return 0;
}

static int make_plan(struct export *e, struct plan *p, struct sbx_err *err)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	auto_buf index = {0};

	if (export_index(e->manifest_digest, e->n_manifest, e->name, &index, err) < 0 ||
	    add_inline(p, "oci-layout", layout, sizeof(layout) - 1, err) < 0 ||
	    add_inline(p, "index.json", buf_peek(&index), buf_used(&index), err) < 0)
		return -1;
	add_row(p, "blobs/", EXPORT_DIRECTORY, 0, 0, NULL);
	add_row(p, "blobs/sha256/", EXPORT_DIRECTORY, 0, 0, NULL);
	return add_blobs(e, p, err);
}

/* Into a memory file, where the offsets of what stands in it begin behind the rows.  Return: the file, or -1 with @err set */
static int write_plan(struct plan *p, struct sbx_err *err)
{
	const struct export_plan_head head = {EXPORT_PLAN_MAGIC, (uint32_t)p->n};
	uint64_t start = sizeof(head) + p->n * sizeof(p->rows[0]);
	auto_fd fd = memfd_create("export", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : path_write_all(fd, &head, sizeof(head));

	for (size_t i = 0; i < p->n; i++)
		if (p->rows[i].source == EXPORT_PLAN)
			p->rows[i].offset += start;
	if (r == 0)
		r = path_write_all(fd, p->rows, p->n * sizeof(p->rows[0]));
	if (r == 0)
		r = path_write_all(fd, buf_peek(&p->inline_bytes), buf_used(&p->inline_bytes));
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "plan") : take_fd(&fd);
}

_Noreturn static void be_child(int plan, int out, int blobs, int spool, int64_t stall_seconds)
{
	char name[] = "sandboxd", mode[] = EXPORT_STREAM_ARGUMENT, seconds[24];
	char *argv[] = {name, mode, seconds, NULL};
	sigset_t none;
	int a = fcntl(plan, F_DUPFD_CLOEXEC, SAFE_FD), b = fcntl(out, F_DUPFD_CLOEXEC, SAFE_FD), c = fcntl(blobs, F_DUPFD_CLOEXEC, SAFE_FD),
	    d = spool < 0 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : fcntl(spool, F_DUPFD_CLOEXEC, SAFE_FD);

	if (a < 0 || b < 0 || c < 0 || d < 0 || dup2(a, STDIN_FILENO) < 0 || dup2(b, STDOUT_FILENO) < 0 || dup2(d, EXPORT_FD_SPOOL) < 0 ||
	    dup2(c, EXPORT_FD_BLOBS) < 0 || syscall(SYS_close_range, EXPORT_FD_SPOOL + 1, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		_exit(127);
	snprintf(seconds, sizeof(seconds), "%lld", (long long)stall_seconds);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve("/proc/self/exe", argv, environ);
	_exit(127);
}

static void child_ended(void *arg, int fd, uint32_t events)
{
	struct export *e = arg;
	siginfo_t info = {0};

	(void)events;
	ignore_result(waitid(P_PIDFD, (id_t)fd, &info, WEXITED) < 0); /* readable: it has ended, and has said why */
	if (info.si_code == CLD_KILLED && info.si_status == SIGALRM)
		log_warn("export: %s: cut off, the client has read nothing for %lld s", e->name,
			 (long long)e->context->settings->images_export_stall_seconds);
	export_free(e);
}

/* Return: the reading end of the stream, or -1 with @err set; the export then lives until the child has ended */
static int start_child(struct export *e, int plan_fd, struct sbx_err *err)
{
	int out[2];

	if (pipe2(out, O_CLOEXEC) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "pipe");
	auto_fd read_end = out[0];
	auto_fd write_end = out[1];
	ignore_result(fcntl(write_end, F_SETPIPE_SZ, PIPE_BYTES) < 0); /* the user's share may be used up: it works with less */
	if (fcntl(read_end, F_SETFL, O_NONBLOCK) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "pipe");
	int pidfd = -1;
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
	if (pid == 0)
		be_child(plan_fd, write_end, blob_store_dir(e->context->blobs), e->read_fd, e->context->settings->images_export_stall_seconds);
	if (pid < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "clone");
	e->source = loop_fd_add(e->context->loop, pidfd, EPOLLIN, child_ended, e);
	if (!e->source) {
		int saved = errno;

		reaper_kill(image_pulls_reaper(e->context->pulls), pidfd);
		return sbx_err_set(err, SBX_E_SYSTEM, saved, "watch a child");
	}
	e->pidfd = pidfd;
	return take_fd(&read_end);
}

static void answer(struct export *e, int fd, uint64_t bytes)
{
	char headers[256], digest[DIGEST_TEXT_SIZE];
	struct api_call *call = e->call;

	digest_format(e->manifest_digest, digest);
	snprintf(headers, sizeof(headers), "ETag: \"%s\"\r\nContent-Disposition: attachment; filename=\"image.tar\"\r\n", digest);
	const struct api_answer reply = {.status = 200, .content_type = "application/x-tar", .headers = headers, .body = "",
					 .stream_fd = fd, .stream_bytes = bytes};
	e->call = NULL;
	api_reply(call, &reply);
}

static int make_documents(struct export *e, struct sbx_err *err)
{
	auto_buf config = {.max = MANIFEST_CONFIG_BYTES}, manifest = {.max = MANIFEST_MAX_BYTES};

	if (!e->config_kept) {
		if (export_config(NULL, e->config, e->n_config, e->layer, e->n, &config, err) < 0)
			return -1;
		free(e->config);
		e->n_config = buf_used(&config);
		e->config = strndup(buf_peek(&config), e->n_config);
	}
	if (!e->config || digest_bytes(e->config, e->n_config, e->config_digest, err) < 0)
		return e->config ? -1 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export");
	if (!e->manifest) {
		if (export_manifest(e->config_digest, e->n_config, e->layer, e->n, &manifest, err) < 0)
			return -1;
		e->n_manifest = buf_used(&manifest);
		e->manifest = strndup(buf_peek(&manifest), e->n_manifest);
	}
	return !e->manifest ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export") : digest_bytes(e->manifest, e->n_manifest, e->manifest_digest, err);
}

static int begin_stream(struct export *e, int *ret_fd, uint64_t *ret_bytes, struct sbx_err *err)
{
	auto_free struct plan *plan = calloc(1, sizeof(*plan));

	if (!plan)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export");
	if (make_documents(e, err) < 0)
		return -1;
	auto_fd plan_fd = make_plan(e, plan, err) < 0 ? -1 : write_plan(plan, err);
	buf_free(&plan->inline_bytes);
	if (plan_fd < 0)
		return -1;
	*ret_bytes = export_stream_bytes(plan->rows, plan->n);
	if (FAULT_POINT("export-planned"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	*ret_fd = start_child(e, plan_fd, err);
	return *ret_fd < 0 ? -1 : 0;
}

/* ---- layers that are packed anew ---- */

static void go_on(struct export *e);

static void captured(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct export *e = arg;
	struct sbx_err mine = *err;
	struct stat st;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!err->code) {
		const struct broker_capture_reply *r = &reply->capture_reply;
		struct export_layer *to = &e->layer[e->next_layer];

		/* its word: the bytes are hashed when they leave, here they only have to be there */
		if (fstat(e->read_fd, &st) < 0 || r->packed_bytes != (uint64_t)st.st_size - e->spooled)
			sbx_err_set(&mine, SBX_E_IMAGE_INVALID, 0, "layer %zu: what was packed is not what was said", e->next_layer);
		memcpy(to->digest, r->digest, DIGEST_BYTES);
		memcpy(to->diff_id, r->diff_id, DIGEST_BYTES);
		to->size = r->packed_bytes;
		e->at[e->next_layer].offset = e->spooled;
		e->spooled += r->packed_bytes;
		e->next_layer++;
	}
	if (mine.code)
		fail(e, &mine);
	else
		go_on(e);
}

static int capture(struct export *e, struct sbx_err *err)
{
	static const enum layer_form forms[] = {[BROKER_FORM_TAR] = LAYER_TAR, [BROKER_FORM_TAR_GZIP] = LAYER_GZIP, [BROKER_FORM_TAR_ZSTD] = LAYER_ZSTD};
	const struct settings *s = e->context->settings;
	struct broker_capture_req req = {
		.head = {.op = BROKER_OP_LAYER_CAPTURE, .size = sizeof(req)},
		.form = e->form,
		.max_bytes = (uint64_t)s->images_max_unpacked_bytes,
		.max_entries = (uint64_t)s->images_max_entries,
	};

	memcpy(req.key, e->at[e->next_layer].key, sizeof(req.key));
	e->layer[e->next_layer].form = forms[e->form];
	return broker_client_call(e->context->broker, &req, e->write_fd, captured, e, err);
}

static void go_on(struct export *e)
{
	struct sbx_err err = {0};
	uint64_t bytes = 0;
	int fd = -1;

	while (e->next_layer < e->n && e->at[e->next_layer].kept)
		e->next_layer++;
	if (e->next_layer < e->n) {
		if (capture(e, &err) < 0)
			fail(e, &err);
	} else if (begin_stream(e, &fd, &bytes, &err) < 0) {
		fail(e, &err);
	} else {
		answer(e, fd, bytes);
		close(fd);
	}
}

/* ---- the request ---- */

static int read_compression(struct http_text query, uint32_t *ret, struct sbx_err *err)
{
	static const struct {
		const char *name;
		uint32_t form;
	} forms[] = {{"keep", 0}, {"gzip", BROKER_FORM_TAR_GZIP}, {"zstd", BROKER_FORM_TAR_ZSTD}, {"none", BROKER_FORM_TAR}};
	auto_free char *text = NULL;

	*ret = 0;
	if (images_query_text(query, "compression", &text, err) < 0)
		return -1;
	if (!text)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (strcmp(text, forms[i].name) != 0)
			continue;
		*ret = forms[i].form;
		return 0;
	}
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "export: compression must be keep, gzip, zstd or none, not \"%.32s\"", text);
}

/* A document of the image that the blob store still has; NULL without error when it has not. */
static char *stored(const struct export *e, const char *digest_text, size_t max, size_t *ret_n)
{
	uint8_t digest[DIGEST_BYTES];
	struct sbx_err ignored = {0};
	char *data = NULL;

	if (!digest_text[0] || digest_parse(digest_text, strlen(digest_text), digest) < 0 ||
	    blob_store_read(e->context->blobs, digest, max, &data, ret_n, &ignored) < 0)
		return NULL;
	return data;
}

static bool is_oci(const char *manifest, size_t n)
{
	struct sbx_err ignored = {0};
	auto_jv root = jv_parse(manifest, n, &ignored);
	const char *type = jv_str(jv_get(root, "mediaType")), *config = jv_str(jv_get(jv_get(root, "config"), "mediaType"));

	return (!type || !strcmp(type, "application/vnd.oci.image.manifest.v1+json")) && config &&
	       !strcmp(config, "application/vnd.oci.image.config.v1+json");
}

static int take_config(struct export *e, const struct image *image, uint8_t (**ret_diff_ids)[DIGEST_BYTES], struct sbx_err *err)
{
	struct manifest_platform platform;
	struct image scratch = {0};
	auto_buf fresh = {0};

	e->config = stored(e, image->config, MANIFEST_CONFIG_BYTES, &e->n_config);
	if (e->config) {
		manifest_host_platform(&platform);
		int rc = manifest_config(e->config, e->n_config, &platform, e->n, &scratch, ret_diff_ids, err);
		image_clear(&scratch);
		return rc;
	}
	/* with no layers yet: those that are written replace it */
	if (export_config(image, NULL, 0, NULL, 0, &fresh, err) < 0)
		return -1;
	e->n_config = buf_used(&fresh);
	e->config = strndup(buf_peek(&fresh), e->n_config);
	return e->config ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export");
}

/* Which layers leave as they came, and whether that is true of the documents too. */
static int choose(struct export *e, const struct image *image, bool keep, struct sbx_err *err)
{
	auto_free uint8_t(*diff_ids)[DIGEST_BYTES] = NULL;
	bool all = keep;

	e->n = image->n_layers;
	if (take_config(e, image, &diff_ids, err) < 0)
		return -1;
	for (size_t i = 0; i < e->n; i++) {
		uint64_t size = 0;

		memcpy(e->at[i].key, image->layers[i], DIGEST_BYTES);
		e->at[i].kept = keep && diff_ids && image->blobs && image->blobs[i].form >= LAYER_TAR && image->blobs[i].form <= LAYER_ZSTD &&
				blob_store_size(e->context->blobs, image->blobs[i].digest, &size) == 0 && size == image->blobs[i].bytes;
		all &= e->at[i].kept;
		if (!e->at[i].kept)
			continue;
		memcpy(e->layer[i].digest, image->blobs[i].digest, DIGEST_BYTES);
		memcpy(e->layer[i].diff_id, diff_ids[i], DIGEST_BYTES);
		e->layer[i].size = size;
		e->layer[i].form = (enum layer_form)image->blobs[i].form;
	}
	e->config_kept = all;
	if (!all)
		return 0;
	e->manifest = stored(e, image->manifest, MANIFEST_MAX_BYTES, &e->n_manifest);
	if (e->manifest && !is_oci(e->manifest, e->n_manifest)) {
		free(e->manifest);
		e->manifest = NULL;
	}
	return 0;
}

static int begin(struct export *e, const struct image *image, struct http_text query, struct sbx_err *err)
{
	uint32_t form = 0;
	unsigned n = 0;

	for (const struct export *other = exports; other; other = other->next)
		n++;
	if (n >= EXPORTS_MAX)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "%u images are being exported, try again", n);
	snprintf(e->name, sizeof(e->name), "%s", image->name);
	if (read_compression(query, &form, err) < 0 || choose(e, image, !form, err) < 0)
		return -1;
	e->form = form ? form : BROKER_FORM_TAR_GZIP;
	if (!e->config_kept && images_spool(e->context, "export", &e->read_fd, &e->write_fd, err) < 0)
		return -1;
	e->next = exports;
	exports = e;
	return 0;
}

void images_api_export(struct api_call *call)
{
	const struct api_context *context = call->context;
	struct sbx_err err = {0};

	if (!context->images || !context->broker || !context->blobs) {
		api_reply_code(call, SBX_E_OVERLOADED, "the image store is not ready");
		return;
	}
	if (!strcmp(call->param[0], "host")) {
		api_reply_code(call, SBX_E_INVALID_REQUEST, "\"host\" is this machine's own /usr and cannot be exported");
		return;
	}
	const struct image *image = image_store_usable(context->images, call->param[0], &err);
	if (!image) {
		images_reply_error(call, &err);
		return;
	}
	struct export *e = calloc(1, sizeof(*e));
	if (!e) {
		api_reply_code(call, SBX_E_NO_MEMORY, "export");
		return;
	}
	*e = (struct export){.context = context, .call = call, .read_fd = -1, .write_fd = -1, .pidfd = -1};
	if (begin(e, image, call->query, &err) < 0)
		fail(e, &err);
	else
		go_on(e);
}
