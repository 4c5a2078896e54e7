// SPDX-License-Identifier: Apache-2.0
/* What a collection takes, and the counting behind it. */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "images/digest_map.h"
#include "images/gc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW_S 1000000

static void key_of(unsigned n, uint8_t out[DIGEST_BYTES])
{
	memset(out, 0, DIGEST_BYTES);
	memcpy(out, &n, sizeof(n));
	/* the first bytes are the hash: some collide on purpose */
	out[0] &= 0x0f;
	out[31] = (uint8_t)n;
}

static void test_map(void)
{
	struct digest_map map = {0};
	uint8_t key[DIGEST_BYTES];
	unsigned wrong = 0, n = 0;

	for (unsigned i = 0; i < 5000; i++) {
		key_of(i, key);
		struct digest_entry *e = digest_map_add(&map, key);
		if (e)
			e->value = i;
		if (i % 3 == 0)
			wrong += !digest_map_add(&map, key);
	}
	for (unsigned i = 0; i < 5000; i++) {
		key_of(i, key);
		const struct digest_entry *e = digest_map_find(&map, key);
		wrong += !e || e->value != i || e->count != (i % 3 == 0 ? 2 : 1);
	}
	is_int(wrong, 0, "5,000 digests are found again, with their counts");
	for (unsigned i = 0; i < 5000; i++) {
		key_of(i, key);
		wrong += digest_map_drop(&map, key) != (i % 3 == 0 ? 1 : 0);
	}
	for (const struct digest_entry *e = digest_map_next(&map, NULL); e; e = digest_map_next(&map, e))
		n++;
	ok(!wrong && n == 1667, "counting down leaves those that were named twice: %u", n);
	key_of(7, key);
	ok(!digest_map_find(&map, key) && digest_map_drop(&map, key) == 0, "what is named no more is not found, nor counted below none");
	struct digest_entry *again = digest_map_add(&map, key);
	ok(again && again->count == 1 && again->value == 0, "named again it begins anew");
	digest_map_clear(&map);
	ok(!digest_map_find(&map, key) && !digest_map_next(&map, NULL), "an empty map has nothing");
}

/* a: base+app, b: base+tool, c: base alone; local: an import; each with its last use. */
static const struct row {
	const char *name;
	unsigned layer[2], n_layers;
	uint64_t unpacked[2];
	int64_t used_s;
	bool local, used;
} rows[] = {
	{"docker.io/library/a:1", {1, 2}, 2, {100, 10}, NOW_S - 5000, false, false},
	{"docker.io/library/b:1", {1, 3}, 2, {100, 20}, NOW_S - 9000, false, false},
	{"docker.io/library/c:1", {1}, 1, {100}, NOW_S - 7000, false, false},
	{"docker.io/library/d:1", {4}, 1, {1000}, NOW_S - 99999, true, false},
	{"docker.io/library/e:1", {5}, 1, {2000}, NOW_S - 99998, false, true},
	{"docker.io/library/f:1", {6}, 1, {3000}, NOW_S - 10, false, false},
};

static struct image_store *make_store(int state, struct gc_candidate list[ARRAY_SIZE(rows)])
{
	struct sbx_err err = {0};
	struct image_store *s = image_store_open(state, &err);
	int bad = 0;

	for (size_t i = 0; s && i < ARRAY_SIZE(rows); i++) {
		uint8_t layers[2][DIGEST_BYTES];
		struct image_blob blobs[2] = {0};
		char name[64], text[DIGEST_TEXT_SIZE];
		struct image image = {.name = name, .layers = layers, .n_layers = rows[i].n_layers, .local = rows[i].local, .blobs = blobs};

		snprintf(name, sizeof(name), "%s", rows[i].name);
		for (unsigned k = 0; k < rows[i].n_layers; k++) {
			key_of(rows[i].layer[k], layers[k]);
			blobs[k].unpacked = rows[i].unpacked[k];
			blobs[k].bytes = 1;
			key_of(100 + rows[i].layer[k], blobs[k].digest);
		}
		key_of(1000 + (unsigned)i, blobs[0].digest);
		digest_format(blobs[0].digest, text);
		memcpy(image.manifest, text, sizeof(text));
		key_of(100 + rows[i].layer[0], blobs[0].digest);
		bad += image_store_put(s, &image, &err) < 0;
	}
	ok(s && !bad, "a store of %zu images: %s", ARRAY_SIZE(rows), err.msg);
	size_t n = 0;
	for (const struct image *i = s ? image_store_next(s, NULL) : NULL; i && n < ARRAY_SIZE(rows); i = image_store_next(s, i), n++) {
		((struct image *)(uintptr_t)i)->used_wall_usec = rows[n].used_s * 1000000; /* as if the files were of that time */
		list[n] = (struct gc_candidate){.image = i, .used = rows[n].used};
	}
	return s;
}

static void chosen_text(const struct gc_candidate *list, size_t n, char *out, size_t size)
{
	*out = '\0';
	for (size_t i = 0; i < n; i++) {
		size_t at = strlen(out);

		if (list[i].reason != GC_KEEP)
			snprintf(out + at, size - at, "%c:%s:%llu ", list[i].image->name[18], gc_reason_name(list[i].reason),
				 (unsigned long long)list[i].bytes);
	}
}

static void test_plan(void)
{
	static const struct {
		const char *why;
		struct gc_rules rules;
		const char *want;
		uint64_t bytes;
	} cases[] = {
		{"nothing is asked for", {.min_age_s = 600}, "", 0},
		{"room: the least recently used first, what others have frees nothing", {.min_age_s = 600, .want_bytes = 21}, "b:space:21 ", 21},
		{"more room: the last owner frees the shared layer", {.min_age_s = 600, .want_bytes = 22},
		 "b:space:21 c:space:0 a:space:112 ", 133},
		{"young ones, local ones and used ones stay however much is wanted", {.min_age_s = 600, .want_bytes = 1 << 30},
		 "b:space:21 c:space:0 a:space:112 ", 133},
		{"without a lowest age the youngest goes too", {.want_bytes = 1 << 30}, "b:space:21 c:space:0 a:space:112 f:space:3001 ", 3134},
		{"age", {.min_age_s = 600, .max_age_s = 8000}, "b:age:21 ", 21},
		{"age below the lowest age", {.min_age_s = 600, .max_age_s = 1}, "b:age:21 c:age:0 a:age:112 ", 133},
		{"all: whatever is unused, local ones too", {.min_age_s = 600, .all = true},
		 "d:unused:1001 b:unused:21 c:unused:0 a:unused:112 f:unused:3001 ", 4135},
		{"a clock that was set back makes nothing old", {.now_wall_usec = 5, .max_age_s = 1, .want_bytes = 1 << 30}, "", 0},
	};
	char dir[] = "/tmp/test_gc.XXXXXX", command[64];
	struct gc_candidate list[ARRAY_SIZE(rows)] = {0};
	struct sbx_err err = {0};

	auto_fd state = mkdtemp(dir) ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	struct image_store *s = make_store(state, list);
	for (size_t i = 0; s && i < ARRAY_SIZE(cases); i++) {
		struct gc_rules rules = cases[i].rules;
		uint64_t bytes = 0;
		char text[256];

		if (!rules.now_wall_usec)
			rules.now_wall_usec = (int64_t)NOW_S * 1000000;
		ok(gc_plan(s, list, ARRAY_SIZE(list), &rules, &bytes, &err) >= 0 && bytes == cases[i].bytes, "%s: %llu bytes", cases[i].why,
		   (unsigned long long)bytes);
		chosen_text(list, ARRAY_SIZE(list), text, sizeof(text));
		is_str(text, cases[i].want, "%s", cases[i].why);
	}
	uint8_t key[DIGEST_BYTES];
	key_of(1, key);
	ok(s && image_store_layer_used(s, key) && image_store_layer_refs(s, key) == 3 && image_store_layer_bytes(s, key) == 100, "a shared layer is counted");
	ok(s && image_store_remove(s, "b:1", NULL, NULL, &err) == 0 && image_store_layer_refs(s, key) == 2, "less by one that goes");
	key_of(3, key);
	ok(s && !image_store_layer_used(s, key), "and its own is used no more");
	key_of(103, key);
	ok(s && !image_store_blob_used(s, key), "nor its packed form");
	ok(s && image_store_set_broken(s, "docker.io/library/a:1", true, &err) == 0 && image_store_find(s, "a:1", &err), "a broken image is still found");
	ok(s && !image_store_usable(s, "a:1", &err) && err.code == SBX_E_IMAGE_INVALID && strstr(err.msg, "pull it again"), "but not usable: %s", err.msg);
	image_store_close(s);
	s = image_store_open(state, &err);
	const struct image *again = s ? image_store_find(s, "a:1", &err) : NULL;
	ok(again && again->broken && !again->local && image_store_count(s) == 5, "which is kept");
	again = s ? image_store_find(s, "d:1", &err) : NULL;
	ok(again && again->local && !again->broken, "as is that one is local");
	ok(s && image_store_set_broken(s, "docker.io/library/a:1", false, &err) == 0 && image_store_usable(s, "a:1", &err), "mended it is usable");
	image_store_close(s);
	snprintf(command, sizeof(command), "%s/images", dir);
	auto_dir d = opendir(command);
	for (struct dirent *e; d && (e = readdir(d));)
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	unlinkat(state, "images", AT_REMOVEDIR);
	rmdir(dir);
}

static void test_wanted(void)
{
	static const struct {
		const char *why;
		uint64_t total, available;
		unsigned high, low;
		uint64_t want;
	} cases[] = {
		{"below the mark", 1000, 200, 85, 80, 0},
		{"at the mark", 1000, 150, 85, 80, 0},
		{"above: down to the low one", 1000, 100, 85, 80, 100},
		{"a low mark above the high one is the high one", 1000, 100, 85, 95, 50},
		{"off", 1000, 0, 0, 0, 0},
		{"full", 1000, 0, 100, 80, 0},
		{"more available than there is", 1000, 2000, 85, 80, 0},
		{"a very large disk", UINT64_MAX, 0, 50, 40, UINT64_MAX - (UINT64_MAX / 100 * 40 + UINT64_MAX % 100 * 40 / 100)},
		{"nothing known", 0, 0, 85, 80, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ok(gc_wanted_bytes(cases[i].total, cases[i].available, cases[i].high, cases[i].low) == cases[i].want, "%s", cases[i].why);
}

int main(void)
{
	log_init("test_gc", LOG_LEVEL_ERROR);
	test_map();
	test_wanted();
	test_plan();
	return tap_done();
}
