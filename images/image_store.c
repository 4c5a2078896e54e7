// SPDX-License-Identifier: Apache-2.0
#include "images/image_store.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "base/wallclock.h"
#include "images/digest_map.h"
#include "images/image_ref.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define INDEX_VERSION	 1
#define FILE_NAME_SIZE	 (2 * DIGEST_BYTES + sizeof(".json"))
#define TEMPORARY	 ".new"
/* A file holds one image's start-up data: the longest argument list that we start, twice. */
#define MAX_FILE_BYTES	 (2 * (size_t)LIMIT_API_BODY_BYTES)
#define MAX_STRINGS	 LIMIT_SPAWN_STRINGS

struct image_store {
	int dir_fd;
	struct image *images; /* owned, sorted by name */
	size_t n, cap;
	struct digest_map layers; /* keys, with how many images have them; value: unpacked bytes */
	struct digest_map blobs;  /* manifests, configurations, packed layers */
	image_store_changed *changed;
	void *changed_arg;
};

static void strings_free(char **strings)
{
	for (char **s = strings; s && *s; s++)
		free(*s);
	free(strings);
}

void image_clear(struct image *image)
{
	if (!image)
		return;
	free(image->name);
	free(image->layers);
	strings_free(image->env);
	free(image->workdir);
	free(image->user);
	strings_free(image->entrypoint);
	strings_free(image->cmd);
	free(image->blobs);
	free(image->author);
	free(image->comment);
	*image = (struct image){0};
}

static int no_memory(struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "image index");
}

static char **strings_copy(char *const *from, bool *failed)
{
	size_t n = 0;

	if (!from)
		return NULL;
	while (from[n])
		n++;
	char **to = calloc(n + 1, sizeof(*to));
	for (size_t i = 0; to && i < n; i++) {
		to[i] = strdup(from[i]);
		if (!to[i]) {
			strings_free(to);
			to = NULL;
		}
	}
	if (!to)
		*failed = true;
	return to;
}

static char *text_copy(const char *from, bool *failed)
{
	char *to = from ? strdup(from) : NULL;

	*failed |= from && !to;
	return to;
}

static int image_copy(struct image *to, const struct image *from, struct sbx_err *err)
{
	bool failed = false;

	*to = (struct image){.n_layers = from->n_layers, .created_wall_usec = from->created_wall_usec,
			     .used_wall_usec = from->used_wall_usec, .bytes = from->bytes, .local = from->local,
			     .broken = from->broken};
	to->name = strdup(from->name);
	to->workdir = strdup(from->workdir ? from->workdir : "");
	to->user = strdup(from->user ? from->user : "");
	to->layers = calloc(from->n_layers, sizeof(*to->layers));
	to->env = strings_copy(from->env, &failed);
	to->entrypoint = strings_copy(from->entrypoint, &failed);
	to->cmd = strings_copy(from->cmd, &failed);
	to->author = text_copy(from->author, &failed);
	to->comment = text_copy(from->comment, &failed);
	to->blobs = from->blobs ? calloc(from->n_layers, sizeof(*to->blobs)) : NULL;
	if (failed || !to->name || !to->workdir || !to->user || !to->layers || (from->blobs && !to->blobs)) {
		image_clear(to);
		return no_memory(err);
	}
	memcpy(to->layers, from->layers, from->n_layers * sizeof(*to->layers));
	if (from->blobs)
		memcpy(to->blobs, from->blobs, from->n_layers * sizeof(*to->blobs));
	memcpy(to->index, from->index, sizeof(to->index));
	memcpy(to->manifest, from->manifest, sizeof(to->manifest));
	memcpy(to->config, from->config, sizeof(to->config));
	return 0;
}

/* --- the file form --- */

static void write_strings(struct jw *w, const char *key, char *const *strings)
{
	if (!strings)
		return;
	jw_key(w, key);
	jw_array(w);
	for (; *strings; strings++)
		jw_str(w, *strings);
	jw_array_end(w);
}

static void write_origin(struct jw *w, const struct image *image)
{
	jw_key_str(w, "index", image->index[0] ? image->index : NULL);
	jw_key_str(w, "manifest", image->manifest[0] ? image->manifest : NULL);
	jw_key_str(w, "config", image->config[0] ? image->config : NULL);
	if (!image->blobs)
		return;
	jw_key(w, "blobs");
	jw_array(w);
	for (size_t i = 0; i < image->n_layers; i++) {
		char text[DIGEST_TEXT_SIZE];

		digest_format(image->blobs[i].digest, text);
		jw_object(w);
		jw_key_str(w, "digest", text);
		jw_key_u64(w, "bytes", image->blobs[i].bytes);
		jw_key_u64(w, "unpacked", image->blobs[i].unpacked);
		jw_key_u64(w, "form", image->blobs[i].form);
		jw_object_end(w);
	}
	jw_array_end(w);
}

static void image_write(struct buf *out, const struct image *image)
{
	struct jw w = {.out = out};

	jw_object(&w);
	jw_key_i64(&w, "version", INDEX_VERSION);
	jw_key_str(&w, "name", image->name);
	jw_key(&w, "layers");
	jw_array(&w);
	for (size_t i = 0; i < image->n_layers; i++) {
		char hex[2 * DIGEST_BYTES + 1];

		hex_encode(image->layers[i], DIGEST_BYTES, hex);
		jw_str(&w, hex);
	}
	jw_array_end(&w);
	write_strings(&w, "env", image->env);
	jw_key_str(&w, "workdir", image->workdir);
	jw_key_str(&w, "user", image->user);
	write_strings(&w, "entrypoint", image->entrypoint);
	write_strings(&w, "cmd", image->cmd);
	jw_key_i64(&w, "created_wall_usec", image->created_wall_usec);
	jw_key_u64(&w, "bytes", image->bytes);
	jw_key_str(&w, "author", image->author);
	jw_key_str(&w, "comment", image->comment);
	if (image->local)
		jw_key_bool(&w, "local", true);
	if (image->broken)
		jw_key_bool(&w, "broken", true);
	write_origin(&w, image);
	jw_object_end(&w);
}

static int read_strings(const struct jv *array, char ***ret, struct sbx_err *err)
{
	if (!jv_is_set(array))
		return 0;
	size_t n = jv_count(array);
	if (jv_type(array) != JV_ARRAY || n > MAX_STRINGS)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "member \"%s\" is no list of strings", jv_name(array));
	char **strings = calloc(n + 1, sizeof(*strings));
	size_t i = 0;
	if (!strings)
		return no_memory(err);
	for (const struct jv *v = jv_first(array); v; v = jv_next(v)) {
		const char *text = jv_str(v);

		strings[i] = text ? strdup(text) : NULL;
		if (!strings[i++]) {
			strings_free(strings);
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "member \"%s\" is no list of strings", jv_name(array));
		}
	}
	*ret = strings;
	return 0;
}

static int read_text(const struct jv *object, const char *key, char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_get(object, key);
	const char *text = jv_is_set(v) ? jv_str(v) : "";

	if (!text)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "member \"%s\" is no string", key);
	*ret = strdup(text);
	return *ret ? 0 : no_memory(err);
}

static int read_layers(const struct jv *array, struct image *image, struct sbx_err *err)
{
	size_t n = jv_count(array);

	if (jv_type(array) != JV_ARRAY || n < 1 || n > LIMIT_LAYERS)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "no list of 1 to %u layers", LIMIT_LAYERS);
	image->layers = calloc(n, sizeof(*image->layers));
	if (!image->layers)
		return no_memory(err);
	for (const struct jv *v = jv_first(array); v; v = jv_next(v)) {
		const char *hex = jv_str(v);

		if (!hex || strlen(hex) != 2 * DIGEST_BYTES || hex_decode(hex, image->layers[image->n_layers], DIGEST_BYTES) < 0)
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "a layer's key is not 64 hex digits");
		image->n_layers++;
	}
	return 0;
}

static int read_digest_text(const struct jv *root, const char *key, char out[DIGEST_TEXT_SIZE], struct sbx_err *err)
{
	const struct jv *v = jv_get(root, key);
	const char *text = jv_str(v);
	uint8_t digest[DIGEST_BYTES];

	if (!jv_is_set(v))
		return 0;
	if (!text || digest_parse(text, strlen(text), digest) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "member \"%s\" is no digest", key);
	digest_format(digest, out);
	return 0;
}

static int read_origin(const struct jv *root, struct image *image, struct sbx_err *err)
{
	const struct jv *blobs = jv_get(root, "blobs");
	size_t i = 0;

	if (read_digest_text(root, "index", image->index, err) < 0 || read_digest_text(root, "manifest", image->manifest, err) < 0 ||
	    read_digest_text(root, "config", image->config, err) < 0)
		return -1;
	if (!jv_is_set(blobs))
		return 0;
	if (jv_type(blobs) != JV_ARRAY || jv_count(blobs) != image->n_layers)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "member \"blobs\" does not name each layer");
	image->blobs = calloc(image->n_layers, sizeof(*image->blobs));
	if (!image->blobs)
		return no_memory(err);
	for (const struct jv *v = jv_first(blobs); v; v = jv_next(v), i++) {
		const char *text = jv_str(jv_get(v, "digest"));
		int64_t bytes = 0, form = 0, unpacked = 0;

		if (!text || digest_parse(text, strlen(text), image->blobs[i].digest) < 0 || jv_i64(jv_get(v, "bytes"), &bytes) < 0 ||
		    bytes < 0 || jv_i64(jv_get(v, "form"), &form) < 0 || form < 0 || form > UINT32_MAX ||
		    jv_i64(jv_get(v, "unpacked"), &unpacked) < 0 || unpacked < 0)
			return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "member \"blobs\": entry %zu", i);
		image->blobs[i].bytes = (uint64_t)bytes;
		image->blobs[i].form = (uint32_t)form;
		image->blobs[i].unpacked = (uint64_t)unpacked;
	}
	return 0;
}

static int read_switch(const struct jv *root, const char *key, bool *ret, struct sbx_err *err)
{
	const struct jv *v = jv_get(root, key);

	if (jv_is_set(v) && jv_bool(v, ret) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "member \"%s\" is neither true nor false", key);
	return 0;
}

static int image_read(const void *data, size_t n, struct image *image, struct sbx_err *err)
{
	auto_jv root = jv_parse(data, n, err);
	struct image_ref ref;
	char canonical[IMAGE_REF_TEXT_BYTES];
	int64_t number = 0;

	if (!root)
		return -1;
	if (jv_i64(jv_get(root, "version"), &number) < 0 || number != INDEX_VERSION)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "not version %d of the index", INDEX_VERSION);
	if (read_text(root, "name", &image->name, err) < 0 || read_text(root, "workdir", &image->workdir, err) < 0 ||
	    read_text(root, "user", &image->user, err) < 0)
		return -1;
	if (image_ref_parse(image->name, strlen(image->name), &ref, err) < 0)
		return -1;
	image_ref_canonical(&ref, canonical);
	if (strcmp(canonical, image->name) != 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "name \"%.100s\" is not canonical", image->name);
	if (read_layers(jv_get(root, "layers"), image, err) < 0 || read_strings(jv_get(root, "env"), &image->env, err) < 0 ||
	    read_strings(jv_get(root, "entrypoint"), &image->entrypoint, err) < 0 ||
	    read_strings(jv_get(root, "cmd"), &image->cmd, err) < 0)
		return -1;
	if (jv_i64(jv_get(root, "created_wall_usec"), &image->created_wall_usec) < 0 ||
	    jv_i64(jv_get(root, "bytes"), &number) < 0 || number < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "no creation time or size");
	image->bytes = (uint64_t)number;
	if (jv_is_set(jv_get(root, "author")) && read_text(root, "author", &image->author, err) < 0)
		return -1;
	if (jv_is_set(jv_get(root, "comment")) && read_text(root, "comment", &image->comment, err) < 0)
		return -1;
	if (read_switch(root, "local", &image->local, err) < 0 || read_switch(root, "broken", &image->broken, err) < 0)
		return -1;
	return read_origin(root, image, err);
}

/* --- the folder --- */

static int file_name(const char *canonical, char out[FILE_NAME_SIZE], struct sbx_err *err)
{
	uint8_t digest[DIGEST_BYTES];

	if (digest_bytes(canonical, strlen(canonical), digest, err) < 0)
		return -1;
	hex_encode(digest, DIGEST_BYTES, out);
	memcpy(out + 2 * DIGEST_BYTES, ".json", sizeof(".json"));
	return 0;
}

static int load_file(struct image_store *store, const char *name, struct image *image, struct sbx_err *err)
{
	struct stat st;
	auto_fd fd = openat(store->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	auto_free char *data = NULL;
	size_t done = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open");
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || (size_t)st.st_size > MAX_FILE_BYTES)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "not a regular file of at most %zu bytes", MAX_FILE_BYTES);
	size_t size = (size_t)st.st_size;
	data = malloc(size + 1);
	if (!data)
		return no_memory(err);
	while (done < size) {
		ssize_t n = read(fd, data + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? errno : EIO, "read");
		done += (size_t)n;
	}
	image->used_wall_usec = (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000;
	return image_read(data, size, image, err);
}

/* ---- what images are made of, counted ---- */

typedef int count_fn(struct image_store *store, struct digest_map *map, const uint8_t digest[DIGEST_BYTES], uint64_t bytes);

static int count_one(struct image_store *store, struct digest_map *map, const uint8_t digest[DIGEST_BYTES], uint64_t bytes)
{
	struct digest_entry *e = digest_map_add(map, digest);

	(void)store;
	if (e && bytes)
		e->value = bytes;
	return e ? 0 : -ENOMEM;
}

static int uncount_one(struct image_store *store, struct digest_map *map, const uint8_t digest[DIGEST_BYTES], uint64_t bytes)
{
	(void)store, (void)bytes;
	digest_map_drop(map, digest);
	return 0;
}

static uint64_t layer_bytes(const struct image *image, size_t index)
{
	/* an image without blobs has one layer, whose size is the image's */
	return image->blobs ? image->blobs[index].unpacked : image->bytes / image->n_layers;
}

/* With room for all reserved before, the counting ones cannot fail. */
static int each_part(struct image_store *store, const struct image *image, count_fn *fn)
{
	const char *texts[] = {image->index, image->manifest, image->config};
	uint8_t digest[DIGEST_BYTES];
	int r = 0;

	for (size_t i = 0; i < image->n_layers && r == 0; i++)
		r = fn(store, &store->layers, image->layers[i], layer_bytes(image, i));
	for (size_t i = 0; image->blobs && i < image->n_layers && r == 0; i++)
		r = fn(store, &store->blobs, image->blobs[i].digest, 0);
	for (size_t i = 0; i < ARRAY_SIZE(texts) && r == 0; i++)
		if (texts[i][0] && digest_parse(texts[i], strlen(texts[i]), digest) == 0)
			r = fn(store, &store->blobs, digest, 0);
	return r;
}

static int reserve_parts(struct image_store *store, const struct image *image, struct sbx_err *err)
{
	if (digest_map_reserve(&store->layers, image->n_layers) < 0 || digest_map_reserve(&store->blobs, image->n_layers + 3) < 0)
		return no_memory(err);
	return 0;
}

static void tell_changed(const struct image_store *store)
{
	if (store->changed)
		store->changed(store->changed_arg);
}

/* Where @canonical is, or where it belongs. */
static size_t position(const struct image_store *store, const char *canonical, bool *ret_there)
{
	size_t low = 0;
	size_t high = store->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = strcmp(store->images[mid].name, canonical);

		if (order == 0) {
			*ret_there = true;
			return mid;
		}
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	*ret_there = false;
	return low;
}

static int make_room(struct image_store *store, const struct image *image, struct sbx_err *err)
{
	if (reserve_parts(store, image, err) < 0)
		return -1;
	if (store->n < store->cap)
		return 0;
	size_t cap = store->cap ? store->cap * 2 : 16;
	struct image *more = reallocarray(store->images, cap, sizeof(*more));
	if (!more)
		return no_memory(err);
	store->images = more;
	store->cap = cap;
	return 0;
}

/* Takes @image over; room was made before. */
static void keep(struct image_store *store, struct image *image)
{
	bool there;
	size_t at = position(store, image->name, &there);

	ignore_result(each_part(store, image, count_one) < 0); /* room was reserved: it cannot fail */
	if (there) {
		ignore_result(each_part(store, &store->images[at], uncount_one) < 0); /* likewise */
		image_clear(&store->images[at]);
	} else {
		memmove(&store->images[at + 1], &store->images[at], (store->n - at) * sizeof(*image));
		store->n++;
	}
	store->images[at] = *image;
	*image = (struct image){0};
}

static bool is_index_name(const char *name)
{
	size_t n = strlen(name);

	return n == FILE_NAME_SIZE - 1 && !strcmp(name + 2 * DIGEST_BYTES, ".json");
}

static int load_all(struct image_store *store, struct sbx_err *err)
{
	auto_dir dir = path_dir(store->dir_fd);

	if (!dir)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "list the image index");
	for (struct dirent *e; (e = readdir(dir));) {
		struct image image = {0};
		struct sbx_err why = {0};
		char expected[FILE_NAME_SIZE];

		if (!strcmp(e->d_name, TEMPORARY)) /* a put that was killed: never answered for */
			unlinkat(store->dir_fd, e->d_name, 0);
		if (!is_index_name(e->d_name))
			continue;
		if (load_file(store, e->d_name, &image, &why) < 0 || file_name(image.name, expected, &why) < 0 ||
		    strcmp(expected, e->d_name) != 0) {
			log_warn("image index: %s is skipped: %s", e->d_name, why.code ? why.msg : "holds another name");
			image_clear(&image);
			continue;
		}
		if (make_room(store, &image, err) < 0) {
			image_clear(&image);
			return -1;
		}
		keep(store, &image);
	}
	return 0;
}

struct image_store *image_store_open(int state_dir_fd, struct sbx_err *err)
{
	struct image_store *store = calloc(1, sizeof(*store));

	if (!store) {
		no_memory(err);
		return NULL;
	}
	store->dir_fd = -1;
	if (mkdirat(state_dir_fd, "images", 0700) < 0 && errno != EEXIST)
		sbx_err_set(err, SBX_E_SYSTEM, errno, "make the image index");
	else if ((store->dir_fd = openat(state_dir_fd, "images", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
		sbx_err_set(err, SBX_E_SYSTEM, errno, "open the image index");
	else if (load_all(store, err) == 0)
		return store;
	image_store_close(store);
	return NULL;
}

void image_store_close(struct image_store *store)
{
	if (!store)
		return;
	for (size_t i = 0; i < store->n; i++)
		image_clear(&store->images[i]);
	free(store->images);
	digest_map_clear(&store->layers);
	digest_map_clear(&store->blobs);
	close_keep_errno(store->dir_fd);
	free(store);
}

static int save(struct image_store *store, const struct image *image, struct sbx_err *err)
{
	auto_buf text = {.max = MAX_FILE_BYTES};
	char name[FILE_NAME_SIZE];

	image_write(&text, image);
	if (text.failed)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "image \"%.100s\": entry of the index is too large", image->name);
	if (file_name(image->name, name, err) < 0)
		return -1;
	auto_fd fd = openat(store->dir_fd, TEMPORARY, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "write the image index");
	int rc = path_write_all(fd, buf_peek(&text), buf_used(&text));
	if (rc == 0 && (fsync(fd) < 0 || renameat(store->dir_fd, TEMPORARY, store->dir_fd, name) < 0 || fsync(store->dir_fd) < 0))
		rc = -errno;
	if (rc < 0) {
		unlinkat(store->dir_fd, TEMPORARY, 0);
		return sbx_err_set(err, SBX_E_SYSTEM, -rc, "write the image index");
	}
	return 0;
}

static int canonical_of(const char *text, char out[IMAGE_REF_TEXT_BYTES], struct sbx_err *err)
{
	struct image_ref ref;

	if (image_ref_parse(text, strlen(text), &ref, err) < 0)
		return -1;
	image_ref_canonical(&ref, out);
	return 0;
}

int image_store_put(struct image_store *store, const struct image *image, struct sbx_err *err)
{
	char canonical[IMAGE_REF_TEXT_BYTES];
	struct image copy;

	if (canonical_of(image->name, canonical, err) < 0)
		return -1;
	if (strcmp(canonical, image->name) != 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "image name \"%.100s\" is not canonical", image->name);
	if (!strcmp(canonical, "host"))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"host\" is the embedded image; choose another name");
	if (image->n_layers < 1 || image->n_layers > LIMIT_LAYERS)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "an image has 1 to %u layers, not %zu", LIMIT_LAYERS,
				   image->n_layers);
	if (image_copy(&copy, image, err) < 0)
		return -1;
	if (make_room(store, &copy, err) < 0 || save(store, &copy, err) < 0) {
		image_clear(&copy);
		return -1;
	}
	copy.used_wall_usec = wall_usec(); /* as the file's time says */
	keep(store, &copy);
	tell_changed(store);
	return 0;
}

/* An image of the same repository, under whatever tag, whose manifest or index has the digest. */
static const struct image *find_digest(const struct image_store *store, const struct image_ref *ref)
{
	for (size_t i = 0; i < store->n; i++) {
		const struct image *image = &store->images[i];
		struct image_ref other;
		struct sbx_err ignored = {0};

		if (strcmp(image->manifest, ref->digest) != 0 && strcmp(image->index, ref->digest) != 0)
			continue;
		if (image_ref_parse(image->name, strlen(image->name), &other, &ignored) == 0 && !strcmp(other.registry, ref->registry) &&
		    !strcmp(other.path, ref->path))
			return image;
	}
	return NULL;
}

const struct image *image_store_find(struct image_store *store, const char *ref_text, struct sbx_err *err)
{
	char canonical[IMAGE_REF_TEXT_BYTES];
	struct image_ref ref;
	bool there;

	if (image_ref_parse(ref_text, strlen(ref_text), &ref, err) < 0)
		return NULL;
	image_ref_canonical(&ref, canonical);
	size_t at = position(store, canonical, &there);
	if (there)
		return &store->images[at];
	const struct image *by_digest = ref.digest[0] ? find_digest(store, &ref) : NULL;
	if (!by_digest)
		sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0,
			    "image \"%.60s\" is not here; pull it: sandboxctl pull %.50s, or import it: sandboxctl image import FILE %.50s",
			    ref_text, ref_text, ref.digest[0] ? "NAME" : ref_text);
	return by_digest;
}

const struct image *image_store_next(struct image_store *store, const struct image *after)
{
	if (!store->n)
		return NULL;
	const struct image *next = after ? after + 1 : store->images;
	return next < store->images + store->n ? next : NULL;
}

const struct image *image_store_usable(struct image_store *store, const char *ref_text, struct sbx_err *err)
{
	const struct image *image = image_store_find(store, ref_text, err);

	if (!image || !image->broken)
		return image;
	sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "image \"%.60s\" is damaged (see sandboxctl image fsck); %s", ref_text,
		    image->local ? "import or commit it again" : "pull it again");
	return NULL;
}

void image_store_touch(struct image_store *store, const struct image *image)
{
	struct image *mine = &store->images[image - store->images];
	int64_t now = wall_usec();
	char name[FILE_NAME_SIZE];
	struct sbx_err ignored = {0};

	if (now >= mine->used_wall_usec && now - mine->used_wall_usec < IMAGE_USED_STEP_S * INT64_C(1000000))
		return;
	mine->used_wall_usec = now;
	/* lost is at most the time of one use */
	if (file_name(mine->name, name, &ignored) == 0)
		ignore_result(utimensat(store->dir_fd, name, NULL, AT_SYMLINK_NOFOLLOW) < 0);
}

int image_store_set_broken(struct image_store *store, const char *name, bool broken, struct sbx_err *err)
{
	bool there;
	size_t at = position(store, name, &there);

	if (!there)
		return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "image \"%.100s\" is not here", name);
	if (store->images[at].broken == broken)
		return 0;
	store->images[at].broken = broken;
	if (save(store, &store->images[at], err) < 0) {
		store->images[at].broken = !broken;
		return -1;
	}
	tell_changed(store);
	return 0;
}

void image_store_on_change(struct image_store *store, image_store_changed *changed, void *arg)
{
	store->changed = changed;
	store->changed_arg = arg;
}

size_t image_store_count(const struct image_store *store)
{
	return store->n;
}

size_t image_store_n_layers(const struct image_store *store)
{
	size_t n = 0;

	for (const struct digest_entry *e = digest_map_next(&store->layers, NULL); e; e = digest_map_next(&store->layers, e))
		n++;
	return n;
}

uint64_t image_store_layer_bytes(const struct image_store *store, const uint8_t key[DIGEST_BYTES])
{
	const struct digest_entry *e = digest_map_find(&store->layers, key);

	return e ? e->value : 0;
}

uint32_t image_store_layer_refs(const struct image_store *store, const uint8_t key[DIGEST_BYTES])
{
	const struct digest_entry *e = digest_map_find(&store->layers, key);

	return e ? e->count : 0;
}

int image_store_bad_files(struct image_store *store, bool repair, void (*each)(void *arg, const char *name, const char *why), void *arg)
{
	auto_dir dir = path_dir(store->dir_fd);
	int n = 0;

	if (!dir)
		return -errno;
	for (struct dirent *e; (e = readdir(dir));) {
		struct image image = {0};
		struct sbx_err why = {0};
		char expected[FILE_NAME_SIZE];

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		bool good = is_index_name(e->d_name) && load_file(store, e->d_name, &image, &why) == 0 &&
			    file_name(image.name, expected, &why) == 0 && !strcmp(expected, e->d_name);
		image_clear(&image);
		if (good)
			continue;
		n++;
		each(arg, e->d_name, why.code ? why.msg : "no entry of the index");
		if (repair && unlinkat(store->dir_fd, e->d_name, 0) < 0 && unlinkat(store->dir_fd, e->d_name, AT_REMOVEDIR) < 0)
			return -errno;
	}
	return n;
}

bool image_store_layer_used(const struct image_store *store, const uint8_t key[DIGEST_BYTES])
{
	return digest_map_find(&store->layers, key) != NULL;
}

bool image_store_blob_used(const struct image_store *store, const uint8_t digest[DIGEST_BYTES])
{
	return digest_map_find(&store->blobs, digest) != NULL;
}

int image_store_tag(struct image_store *store, const char *ref_text, const char *name, struct sbx_err *err)
{
	const struct image *found = image_store_find(store, ref_text, err);
	char canonical[IMAGE_REF_TEXT_BYTES];
	struct image_ref ref;
	struct image copy;

	if (!found || image_ref_parse(name, strlen(name), &ref, err) < 0)
		return -1;
	if (ref.host || ref.digest[0])
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.100s\" is no name with a tag", name);
	image_ref_canonical(&ref, canonical);
	if (!strcmp(found->name, canonical))
		return 0;
	if (image_copy(&copy, found, err) < 0)
		return -1;
	free(copy.name);
	copy.name = strdup(canonical);
	int rc = copy.name ? image_store_put(store, &copy, err) : no_memory(err);
	image_clear(&copy);
	return rc;
}

static void uncount(struct image_store *store, const struct image *gone, void (*orphan)(void *arg, const uint8_t key[DIGEST_BYTES]), void *arg)
{
	ignore_result(each_part(store, gone, uncount_one) < 0); /* takes no memory */
	for (size_t i = 0; orphan && i < gone->n_layers; i++)
		if (!image_store_layer_used(store, gone->layers[i]))
			orphan(arg, gone->layers[i]);
}

int image_store_pretend_gone(struct image_store *store, const struct image *image, void (*orphan)(void *arg, const uint8_t key[DIGEST_BYTES]),
			     void *arg, struct sbx_err *err)
{
	/* for the way back, which must not fail */
	if (reserve_parts(store, image, err) < 0)
		return -1;
	uncount(store, image, orphan, arg);
	return 0;
}

void image_store_pretend_back(struct image_store *store, const struct image *image)
{
	/* a name that is counted down to nothing keeps its place: no memory is needed */
	if (each_part(store, image, count_one) < 0)
		log_error("images: counts of \"%.100s\" are wrong until the next start", image->name);
}

int image_store_remove(struct image_store *store, const char *ref_text,
		       void (*orphan)(void *arg, const uint8_t key[DIGEST_BYTES]), void *arg, struct sbx_err *err)
{
	char name[FILE_NAME_SIZE];
	const struct image *found = image_store_find(store, ref_text, err);

	if (!found || file_name(found->name, name, err) < 0)
		return -1;
	if ((unlinkat(store->dir_fd, name, 0) < 0 && errno != ENOENT) || fsync(store->dir_fd) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "remove image \"%.100s\" from the index", found->name);
	size_t at = (size_t)(found - store->images);
	struct image gone = store->images[at];
	memmove(&store->images[at], &store->images[at + 1], (store->n - at - 1) * sizeof(gone));
	store->n--;
	uncount(store, &gone, orphan, arg);
	image_clear(&gone);
	tell_changed(store);
	return 0;
}
