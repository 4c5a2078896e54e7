// SPDX-License-Identifier: Apache-2.0
#include "api/images_fsck.h"

#include "api/call.h"
#include "api/images_events.h"
#include "api/images_int.h"
#include "api/images_layers.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/num.h"
#include "base/reaper.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "images/blob_store.h"
#include "images/image_store.h"
#include "images/pull.h"
#include "runtime/broker_client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define IMPORT_DIR    "import"
#define IMPORT_AGE_S  60 /* its files lose their names at once: an older name is what a kill -9 left */
#define PROGRESS_MS   200
#define PROBLEMS_MAX  10000u
#define SAFE_FD	      64
#define DETAIL_BYTES  200
#define DAMAGED	      (BROKER_LAYER_ODD | BROKER_LAYER_SEAL_LOST)
#define NOT_COMPARED  (BROKER_LAYER_HOST | BROKER_LAYER_UNSEALED | DAMAGED)

struct fsck {
	const struct api_context *context;
	struct api_call *call; /* NULL: answered, by a stream of events */
	struct images_events *events; /* NULL: none, or nobody reads them any more */
	uint64_t told_mono_ms;
	bool repair;
	struct digest_map layers; /* what the broker has */
	struct digest_map wrong;  /* blobs that are not what their names say */
	struct buf problems;
	struct jw w;
	unsigned n_problems, n_calls;
	uint64_t n_blobs, blob_bytes, n_strays;
	int pidfd, report_fd;
	struct loop_fd *source;
	bool verified, failed, acted;
	int64_t listed_wall_usec; /* when the list of layers was begun */
	/* layers, by the broker, after the blobs and before the list that counts */
	struct digest_map to_compare; /* with when each was made */
	const struct digest_entry *comparing;
	struct finding *findings; /* owned; of those that are not as they were unpacked, or could not be compared */
	size_t n_findings, n_to_compare, n_compared, n_unsealed;
	uint64_t compared_bytes;
	struct sbx_err err;
};

/* What a comparison found, kept until the turn that judges everything. */
struct finding {
	uint8_t key[DIGEST_BYTES];
	uint64_t made_s; /* another time: it was unpacked again meanwhile */
	bool altered;	 /* else nobody knows */
	char text[DETAIL_BYTES];
};

/* A LAYER_DROP under way, for what is said about it. */
struct drop {
	struct fsck *f;
	const char *kind, *level;
	uint8_t key[DIGEST_BYTES];
	const char *why; /* a finding's; "": the kind says it */
};

/* One for the process: it reads all that is stored. */
static struct fsck *running;

/* ---- telling ---- */

static void problem(struct fsck *f, const char *kind, const char *level, const char *what, bool repaired, const char *fmt, ...) SBX_PRINTF(6, 7);

static void problem(struct fsck *f, const char *kind, const char *level, const char *what, bool repaired, const char *fmt, ...)
{
	char detail[DETAIL_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(detail, sizeof(detail), fmt, ap);
	va_end(ap);
	if (f->n_problems++ >= PROBLEMS_MAX)
		return;
	sbx_printable(detail, sizeof(detail), detail, sizeof(detail)); /* names of files are whatever a hand put there */
	jw_object(&f->w);
	jw_key_str(&f->w, "kind", kind);
	jw_key_str(&f->w, "level", level);
	jw_key_str(&f->w, "what", what);
	jw_key_str(&f->w, "detail", detail);
	jw_key_bool(&f->w, "repaired", repaired);
	jw_object_end(&f->w);
	log_info("images: fsck: %s %s: %s%s", kind, what, detail, repaired ? " (repaired)" : "");
}

static void fsck_free(struct fsck *f)
{
	running = NULL;
	loop_fd_remove(f->source);
	close_keep_errno(f->report_fd);
	if (f->pidfd >= 0) /* it may have ended */
		reaper_kill(image_pulls_reaper(f->context->pulls), f->pidfd);
	digest_map_clear(&f->layers);
	digest_map_clear(&f->to_compare);
	digest_map_clear(&f->wrong);
	free(f->findings);
	buf_free(&f->problems);
	free(f);
}

static void fsck_end(struct fsck *f)
{
	struct api_call *call = f->call;
	struct images_events *events = f->events;
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (f->err.code) {
		struct sbx_err err = f->err;

		fsck_free(f);
		if (call)
			api_reply_error(call, &err);
		else if (events)
			images_events_finish(events, NULL, &err);
		return;
	}
	jw_object(&w);
	if (events) {
		jw_key_str(&w, "type", "done");
		jw_key(&w, "report");
		jw_object(&w);
	}
	jw_key_bool(&w, "repair", f->repair);
	jw_key(&w, "problems");
	jw_array(&w);
	jw_raw(&w, buf_peek(&f->problems), buf_used(&f->problems));
	jw_array_end(&w);
	jw_key_u64(&w, "images", image_store_count(f->context->images));
	size_t n = 0;
	for (const struct digest_entry *e = digest_map_next(&f->layers, NULL); e; e = digest_map_next(&f->layers, e))
		n += !(e->flags & BROKER_LAYER_HOST);
	jw_key_u64(&w, "layers", n);
	jw_key_u64(&w, "layersCompared", f->n_compared);
	jw_key_u64(&w, "layerBytes", f->compared_bytes);
	jw_key_u64(&w, "blobs", f->n_blobs);
	jw_key_u64(&w, "blobBytes", f->blob_bytes);
	if (events)
		jw_object_end(&w);
	jw_object_end(&w);
	body.failed |= f->problems.failed;
	fsck_free(f);
	if (call)
		api_reply_json(call, 200, &body);
	else if (events)
		images_events_end(events, &body);
}

/* A few times a second: how far what takes long has come. */
static void tell_progress(struct fsck *f, const char *phase, uint64_t done, uint64_t total, uint64_t bytes)
{
	uint64_t now = loop_now_ms(f->context->loop);
	auto_buf json = {0};
	struct jw w = {.out = &json};

	if (!f->events || (f->told_mono_ms && now - f->told_mono_ms < PROGRESS_MS))
		return;
	f->told_mono_ms = now;
	jw_object(&w);
	jw_key_str(&w, "type", "progress");
	jw_key_str(&w, "phase", phase);
	jw_key_u64(&w, "done", done);
	if (total)
		jw_key_u64(&w, "total", total);
	jw_key_u64(&w, "bytes", bytes);
	jw_object_end(&w);
	if (!json.failed)
		images_events_other(f->events, &json);
}

/* Whoever began a repair wants it to end, also without a reader. */
static void on_reader_gone(void *arg)
{
	struct fsck *f = arg;

	f->events = NULL;
}

/* The answer is a stream of events from here on.  Return: 0, or -1 with f->err set */
static int begin_events(struct fsck *f)
{
	int fd = -1;

	f->events = images_events_new(f->context, on_reader_gone, f, &fd, &f->err);
	if (!f->events)
		return -1;
	const struct api_answer answer = {
		.status = 200, .content_type = "text/event-stream", .headers = "Cache-Control: no-cache\r\n", .body = "", .stream_fd = fd};
	api_reply(f->call, &answer);
	f->call = NULL;
	close(fd);
	return 0;
}

/* ---- layers ---- */

static void dropped(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct drop *d = arg;
	struct fsck *f = d->f;
	char text[DIGEST_TEXT_SIZE];

	(void)reply;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	digest_format(d->key, text);
	problem(f, d->kind, d->level, text, !err->code, "%s%s%s", d->why, *d->why ? "; " : "", err->code ? err->msg : "removed");
	free(d);
	if (!--f->n_calls && f->acted)
		fsck_end(f);
}

static void drop_layer(struct fsck *f, const uint8_t key[DIGEST_BYTES], const char *kind, const char *level, const char *why)
{
	struct broker_layer_req req = {.head = {.op = BROKER_OP_LAYER_DROP, .size = sizeof(req)}};
	struct drop *d = calloc(1, sizeof(*d));
	struct sbx_err err = {0};
	char text[DIGEST_TEXT_SIZE];

	memcpy(req.key, key, sizeof(req.key));
	if (d) {
		*d = (struct drop){.f = f, .kind = kind, .level = level, .why = why};
		memcpy(d->key, key, sizeof(d->key));
	}
	if (d && broker_client_call(f->context->broker, &req, -1, dropped, d, &err) == 0) {
		f->n_calls++;
		return;
	}
	free(d);
	digest_format(key, text);
	problem(f, kind, level, text, false, "%s", d ? err.msg : "out of memory");
}

static const struct finding *find_finding(const struct fsck *f, const struct digest_entry *layer)
{
	for (size_t i = 0; i < f->n_findings; i++)
		if (!memcmp(f->findings[i].key, layer->digest, DIGEST_BYTES) && f->findings[i].made_s == layer->value)
			return &f->findings[i];
	return NULL;
}

/* An altered layer counts as lost for the images that have it, like one of another owner. */
static bool is_damaged(const struct fsck *f, const struct digest_entry *layer)
{
	const struct finding *found = find_finding(f, layer);

	return (layer->flags & DAMAGED) || (found && found->altered);
}

static void tell_altered(struct fsck *f, const uint8_t key[DIGEST_BYTES], const char *why)
{
	char text[DIGEST_TEXT_SIZE];

	digest_format(key, text);
	if (f->repair)
		drop_layer(f, key, "layer-altered", "error", why);
	else
		problem(f, "layer-altered", "error", text, false, "%s", why);
}

static void tell_finding(struct fsck *f, const struct finding *found)
{
	char text[DIGEST_TEXT_SIZE];

	if (found->altered) {
		tell_altered(f, found->key, found->text);
		return;
	}
	digest_format(found->key, text);
	problem(f, "layer-unread", "error", text, false, "it could not be compared: %s", found->text);
}

static void check_layers(struct fsck *f)
{
	char text[DIGEST_TEXT_SIZE];

	for (const struct digest_entry *e = digest_map_next(&f->layers, NULL); e; e = digest_map_next(&f->layers, e)) {
		bool odd = e->flags & BROKER_LAYER_ODD;
		bool orphan = !image_store_layer_used(f->context->images, e->digest) && !images_layer_wanted(f->context, e->digest) &&
			      !(e->flags & BROKER_LAYER_USED);

		const struct finding *found = find_finding(f, e);

		if (!(e->flags & BROKER_LAYER_HOST) && (e->flags & BROKER_LAYER_UNSEALED) && !odd)
			f->n_unsealed++;
		if (found && !odd) {
			tell_finding(f, found);
			continue;
		}
		if ((e->flags & BROKER_LAYER_SEAL_LOST) && !odd) {
			tell_altered(f, e->digest, "its seal is gone, so nobody can say");
			continue;
		}
		if ((e->flags & BROKER_LAYER_HOST) || (!odd && !orphan))
			continue;
		digest_format(e->digest, text);
		if (f->repair)
			drop_layer(f, e->digest, odd ? "layer-odd" : "layer-orphan", odd ? "error" : "note", "");
		else
			problem(f, odd ? "layer-odd" : "layer-orphan", odd ? "error" : "note", text, false, "%s",
				odd ? "not a directory, or of another owner than the store's" : "no image is made of it");
	}
	if (f->n_unsealed)
		problem(f, "layer-unsealed", "note", "layers/", false,
			"%zu layers were unpacked by an earlier version, which noted nothing to compare them with", f->n_unsealed);
}

static void swept(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct fsck *f = arg;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	problem(f, "layer-stray", "error", "layers/", !err->code, "%llu names that are no layers%s%s", (unsigned long long)f->n_strays,
		err->code ? ": " : "", err->code ? err->msg : reply->reply.sys ? ", removed" : "");
	if (!--f->n_calls && f->acted)
		fsck_end(f);
}

static void check_strays(struct fsck *f)
{
	const struct broker_plain_req req = {.head = {.op = BROKER_OP_LAYER_SWEEP, .size = sizeof(req)}};
	struct sbx_err err = {0};

	if (!f->n_strays)
		return;
	if (f->repair && broker_client_call(f->context->broker, &req, -1, swept, f, &err) == 0)
		f->n_calls++;
	else
		problem(f, "layer-stray", "error", "layers/", false, "%llu names that are no layers, half-made directories among them",
			(unsigned long long)f->n_strays);
}

/* ---- images ---- */

static bool blob_gone(const struct fsck *f, const char *text)
{
	uint8_t digest[DIGEST_BYTES];

	if (!text[0] || digest_parse(text, strlen(text), digest) < 0)
		return false;
	return digest_map_find(&f->wrong, digest) || blob_store_size(f->context->blobs, digest, NULL) < 0;
}

/* What it needs to be started. */
static size_t layers_lost(const struct fsck *f, const struct image *image)
{
	size_t lost = 0;

	for (size_t i = 0; i < image->n_layers; i++) {
		const struct digest_entry *e = digest_map_find(&f->layers, image->layers[i]);

		lost += !e || is_damaged(f, e);
	}
	return lost;
}

static void check_image(struct fsck *f, const struct image *image)
{
	struct sbx_err err = {0};
	size_t lost = layers_lost(f, image);

	/* its layers may have come after the listing was made */
	if (lost && image->created_wall_usec >= f->listed_wall_usec)
		return;
	if (lost && !image->broken) {
		bool marked = f->repair && image_store_set_broken(f->context->images, image->name, true, &err) == 0;

		problem(f, "image-broken", "error", image->name, marked, "%zu of %zu layers are missing or damaged%s", lost, image->n_layers,
			!marked ? "" : image->local ? "; marked: import or commit it again" : "; marked: its next use pulls it again");
	} else if (lost) {
		problem(f, "image-broken", "note", image->name, false, "%zu of %zu layers are missing or damaged, and it is marked", lost, image->n_layers);
	} else if (image->broken) {
		bool marked = f->repair && image_store_set_broken(f->context->images, image->name, false, &err) == 0;

		problem(f, "image-whole", "note", image->name, marked, "marked as broken, but all its layers are there");
	}
	if (blob_gone(f, image->manifest) || blob_gone(f, image->config))
		problem(f, "blob-missing", "note", image->name, false, "its manifest or configuration is not in the blob store: an export makes new ones");
}

static void bad_file(void *arg, const char *name, const char *why)
{
	struct fsck *f = arg;
	char what[DETAIL_BYTES];

	sbx_printable(name, SIZE_MAX, what, sizeof(what));
	problem(f, "index-file", "error", what, f->repair, "%s", why);
}

static void check_images(struct fsck *f)
{
	struct image_store *store = f->context->images;

	/* marking one writes it, but moves none */
	for (const struct image *i = image_store_next(store, NULL); i; i = image_store_next(store, i))
		check_image(f, i);
	int r = image_store_bad_files(store, f->repair, bad_file, f);
	if (r < 0)
		problem(f, "index-file", "error", "images/", false, "%s", strerrordesc_np(-r));
}

/* ---- the rest ---- */

static void check_imports(struct fsck *f)
{
	int fd = openat(f->context->state_dir_fd, IMPORT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	for (struct dirent *e; dir && (e = readdir(dir));) {
		char what[DETAIL_BYTES];
		struct stat st;

		if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || now.tv_sec - st.st_mtime < IMPORT_AGE_S)
			continue;
		sbx_printable(e->d_name, SIZE_MAX, what, sizeof(what));
		bool gone = f->repair && unlinkat(dirfd(dir), e->d_name, 0) == 0;
		problem(f, "import-stray", "note", what, gone, "a file that an import left, %lld bytes", (long long)st.st_size);
	}
}

static void check_partial(struct fsck *f)
{
	int64_t age_s = f->context->settings->images_gc_unused_seconds;
	uint64_t bytes = 0;

	/* younger ones are the next pull's */
	int r = f->repair ? blob_store_sweep_partial(f->context->blobs, age_s, false, &bytes) : 0;
	if (r)
		problem(f, "blob-partial", "note", "blobs/partial/", r > 0, r > 0 ? "%d begun blobs that nobody continued" : "error %d", r);
}

static void act(struct fsck *f)
{
	check_images(f);
	ignore_result(FAULT_POINT("fsck-marked"));
	check_layers(f);
	check_strays(f);
	check_imports(f);
	check_partial(f);
	f->acted = true;
	if (!f->n_calls)
		fsck_end(f);
}

static void on_listed(void *arg, struct digest_map *layers, uint64_t n_strays, const struct sbx_err *err)
{
	struct fsck *f = arg;

	f->err = *err;
	if (f->err.code) {
		fsck_end(f);
		return;
	}
	f->layers = *layers; /* taken over */
	*layers = (struct digest_map){0};
	f->n_strays = n_strays;
	act(f);
}

static void list(struct fsck *f)
{
	f->listed_wall_usec = wall_usec();
	if (!images_layers_list(f->context->broker, on_listed, f, &f->err))
		fsck_end(f);
}

/* ---- what layers hold, by the broker ---- */

static void compare_next(struct fsck *f);

static void note_finding(struct fsck *f, bool altered, const char *text)
{
	struct finding *more = realloc(f->findings, (f->n_findings + 1) * sizeof(*more));

	if (!more) {
		sbx_err_set(&f->err, SBX_E_NO_MEMORY, 0, "fsck");
		return;
	}
	f->findings = more;
	struct finding *found = &f->findings[f->n_findings++];
	*found = (struct finding){.made_s = f->comparing->value, .altered = altered};
	memcpy(found->key, f->comparing->digest, DIGEST_BYTES);
	snprintf(found->text, sizeof(found->text), "%s", text);
}

static void take_comparison(struct fsck *f, const union broker_any *reply, const struct sbx_err *err)
{
	if (err->code == SBX_E_IMAGE_NOT_FOUND) /* collected meanwhile */
		return;
	f->n_compared++;
	if (err->code) {
		note_finding(f, false, err->msg);
		return;
	}
	f->compared_bytes += reply->capture_reply.bytes;
	if (reply->capture_reply.kind == BROKER_LAYER_ALTERED)
		note_finding(f, true, reply->capture_reply.text);
	else if (reply->capture_reply.kind != BROKER_LAYER_SAME)
		note_finding(f, false, "no verdict");
}

static void on_compared(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct fsck *f = arg;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (err->code == SBX_E_PEER_GONE) /* and so is the list that we work on */
		f->err = *err;
	else
		take_comparison(f, reply, err);
	tell_progress(f, "layers", f->n_compared, f->n_to_compare, f->compared_bytes);
	compare_next(f);
}

/* One after the other: each reads all that the layer holds. */
static void compare_next(struct fsck *f)
{
	struct broker_layer_req req = {.head = {.op = BROKER_OP_LAYER_VERIFY, .size = sizeof(req)}};

	do
		f->comparing = digest_map_next(&f->to_compare, f->comparing);
	while (f->comparing && (f->comparing->flags & NOT_COMPARED));
	if (!f->err.code && !f->comparing) {
		list(f);
		return;
	}
	if (!f->err.code) {
		memcpy(req.key, f->comparing->digest, sizeof(req.key));
		if (broker_client_call(f->context->broker, &req, -1, on_compared, f, &f->err) == 0)
			return;
	}
	fsck_end(f);
}

static void on_first_list(void *arg, struct digest_map *layers, uint64_t n_strays, const struct sbx_err *err)
{
	struct fsck *f = arg;

	(void)n_strays;
	f->err = *err;
	if (f->err.code) {
		fsck_end(f);
		return;
	}
	f->to_compare = *layers; /* taken over */
	*layers = (struct digest_map){0};
	for (const struct digest_entry *e = digest_map_next(&f->to_compare, NULL); e; e = digest_map_next(&f->to_compare, e))
		f->n_to_compare += !(e->flags & NOT_COMPARED);
	compare_next(f);
}

static void compare_layers(struct fsck *f)
{
	if (!images_layers_list(f->context->broker, on_first_list, f, &f->err))
		fsck_end(f);
}

/* ---- blobs, by the child ---- */

static void take_verdict(struct fsck *f, const struct blob_verdict *v)
{
	struct blob_store *blobs = f->context->blobs;
	char text[DIGEST_TEXT_SIZE], what[DETAIL_BYTES];
	int r = -EAGAIN;

	if (v->kind == BLOB_VERDICT_END) {
		f->verified = true;
		return;
	}
	f->n_blobs++;
	f->blob_bytes += v->bytes;
	if (v->kind == BLOB_VERDICT_STRAY) {
		if (f->repair)
			r = blob_store_remove_stray(blobs, v->name);
		sbx_printable(v->name, SIZE_MAX, what, sizeof(what));
		problem(f, "blob-stray", "error", what, r == 0, "no blob has such a name, or it is no file");
	} else if (v->kind == BLOB_VERDICT_WRONG || v->kind == BLOB_VERDICT_UNREADABLE) {
		/* what could not be read today may be whole: it stays */
		bool wrong = v->kind == BLOB_VERDICT_WRONG;
		if (f->repair && wrong)
			r = blob_store_remove(blobs, v->digest);
		digest_format(v->digest, text);
		f->failed |= wrong && !digest_map_add(&f->wrong, v->digest);
		problem(f, "blob-wrong", "error", text, r == 0, "%s", wrong ? "its bytes have another digest" : "it cannot be read");
	}
}

static void on_verdicts(void *arg, int fd, uint32_t events)
{
	struct fsck *f = arg;
	struct blob_verdict v;
	ssize_t n;

	(void)events;
	/* each is one write below PIPE_BUF: whole or not at all */
	while ((n = read(fd, &v, sizeof(v))) == (ssize_t)sizeof(v) && v.magic == BLOB_VERDICT_MAGIC) {
		v.name[sizeof(v.name) - 1] = '\0';
		take_verdict(f, &v);
		tell_progress(f, "blobs", f->n_blobs, 0, f->blob_bytes);
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	loop_fd_remove(f->source);
	f->source = NULL;
	if (!f->verified || f->failed) {
		sbx_err_set(&f->err, SBX_E_SYSTEM, 0, "fsck: the blobs were not verified to the end");
		fsck_end(f);
		return;
	}
	compare_layers(f);
}

_Noreturn static void be_child(const struct blob_store *blobs, int report)
{
	char name[] = "sandboxd", mode[] = BLOB_VERIFY_ARGUMENT;
	char *argv[] = {name, mode, NULL}, *envp[] = {NULL};
	sigset_t none;
	int a = fcntl(blob_store_dir(blobs), F_DUPFD_CLOEXEC, SAFE_FD), b = fcntl(report, F_DUPFD_CLOEXEC, SAFE_FD);

	if (a < 0 || b < 0 || dup2(a, BLOB_FD_DIR) < 0 || dup2(b, BLOB_FD_REPORT) < 0 ||
	    syscall(SYS_close_range, BLOB_FD_REPORT + 1, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve("/proc/self/exe", argv, envp);
	_exit(127);
}

static int start_child(struct fsck *f, struct sbx_err *err)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "fsck: pipe");
	f->report_fd = fds[0];
	auto_fd write_end = fds[1];
	/* the child may wait for us, we not for it */
	if (fcntl(write_end, F_SETFL, 0) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "fsck: pipe");
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &f->pidfd, NULL, 0);
	if (pid == 0)
		be_child(f->context->blobs, write_end);
	if (pid < 0) {
		f->pidfd = -1;
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "fsck: start a child");
	}
	f->source = loop_fd_add(f->context->loop, f->report_fd, EPOLLIN, on_verdicts, f);
	return f->source ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "fsck");
}

/* ---- the request ---- */

void images_api_fsck(struct api_call *call)
{
	const struct api_context *context = call->context;
	struct sbx_err err = {0};
	bool repair = false, quick = false, events = false;

	if (!context->images || !context->blobs || !context->broker || !context->pulls) {
		api_reply_code(call, SBX_E_OVERLOADED, "the image store is not ready");
		return;
	}
	if (images_query_switch(call->query, "repair", &repair, &err) < 0 || images_query_switch(call->query, "quick", &quick, &err) < 0 ||
	    images_query_switch(call->query, "events", &events, &err) < 0) {
		api_reply_error(call, &err);
		return;
	}
	if (running) {
		api_reply_code(call, SBX_E_LIMIT, "the store is being checked");
		return;
	}
	struct fsck *f = calloc(1, sizeof(*f));
	if (!f) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	*f = (struct fsck){.context = context, .call = call, .repair = repair, .pidfd = -1, .report_fd = -1};
	f->w.out = &f->problems;
	running = f;
	/* what takes long first: the list of layers should be of now */
	if (events && begin_events(f) < 0)
		fsck_end(f);
	else if (quick)
		list(f);
	else if (start_child(f, &f->err) < 0)
		fsck_end(f);
}
