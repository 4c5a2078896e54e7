// SPDX-License-Identifier: Apache-2.0
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "images/digest.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/layer.h"
#include "images/tree_writer.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void test_ref_good(void)
{
	static const struct {
		const char *why, *text, *canonical, *familiar;
	} rows[] = {
		{"the embedded image", "host", "host", "host"},
		{"a tagged host is an ordinary name", "host:1", "docker.io/library/host:1", "host:1"},
		{"short name", "debian", "docker.io/library/debian:latest", "debian:latest"},
		{"tag", "debian:12", "docker.io/library/debian:12", "debian:12"},
		{"organisation", "grafana/loki", "docker.io/grafana/loki:latest", "grafana/loki:latest"},
		{"spelled out", "docker.io/library/debian:12", "docker.io/library/debian:12", "debian:12"},
		{"registry without library", "docker.io/debian", "docker.io/library/debian:latest", "debian:latest"},
		{"old name of the registry", "index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"},
		{"port is no tag", "localhost:5000/a", "localhost:5000/a:latest", "localhost:5000/a:latest"},
		{"port and tag", "reg.example:5000/a/b:v1.2-x_y", "reg.example:5000/a/b:v1.2-x_y",
		 "reg.example:5000/a/b:v1.2-x_y"},
		{"localhost without port", "localhost/a", "localhost/a:latest", "localhost/a:latest"},
		{"IPv6 registry", "[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a:latest", "[2001:db8::1]:5000/a:latest"},
		{"a short form that would name a registry", "docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"},
		{"likewise below library", "library/a.b/c", "docker.io/library/a.b/c:latest", "library/a.b/c:latest"},
		{"joints", "a.b_c__d-e---f", "docker.io/library/a.b_c__d-e---f:latest", "a.b_c__d-e---f:latest"},
		{"digest alone has no tag",
		 "a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		 "docker.io/library/a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		 "a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		{"tag and digest",
		 "a:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		 "docker.io/library/a:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		 "a:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct image_ref ref;
		struct image_ref again;
		struct sbx_err err = {0};
		char text[IMAGE_REF_TEXT_BYTES] = "";

		ok(image_ref_parse(rows[i].text, strlen(rows[i].text), &ref, &err) == 0, "%s: read", rows[i].why);
		image_ref_canonical(&ref, text);
		is_str(text, rows[i].canonical, "%s: canonical", rows[i].why);
		ok(image_ref_parse(text, strlen(text), &again, &err) == 0 && !memcmp(&again, &ref, sizeof(ref)),
		   "%s: the canonical text reads back the same", rows[i].why);
		image_ref_familiar(&ref, text);
		is_str(text, rows[i].familiar, "%s: familiar", rows[i].why);
		ok(image_ref_parse(text, strlen(text), &again, &err) == 0 && !memcmp(&again, &ref, sizeof(ref)),
		   "%s: the familiar text reads back the same", rows[i].why);
	}
}

static void test_ref_bad(void)
{
	static const struct {
		const char *why, *text;
	} rows[] = {
		{"empty", ""},
		{"upper case", "Debian"},
		{"upper case in the path", "reg.example/Debian"},
		{"space", "a b"},
		{"leading slash", "/a"},
		{"trailing slash", "a/"},
		{"double slash", "a//b"},
		{"dots only", ".."},
		{"dots in the path", "a/../b"},
		{"leading dash", "-a"},
		{"trailing joint", "a-"},
		{"three underscores", "a___b"},
		{"two dots", "a..b"},
		{"empty tag", "a:"},
		{"tag begins with a dot", "a:.x"},
		{"tag with a slash", "a:b/c"},
		{"two tags", "a:b:c"},
		{"empty digest", "a@"},
		{"short digest", "a@sha256:00"},
		{"other algorithm", "a@md5:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		{"upper-case digest", "a@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"},
		{"digest of nothing", "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		{"port is no number", "reg.example:x/a"},
		{"port too long", "reg.example:123456/a"},
		{"port missing", "reg.example:/a"},
		{"registry alone", "reg.example/"},
		{"open bracket", "[2001:db8::1/a"},
		{"newline", "a\nb"},
		{"UTF-8", "d\xc3\xa9"},
	};
	struct image_ref ref;
	struct sbx_err err;
	char big[1000];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		err = (struct sbx_err){0};
		ok(image_ref_parse(rows[i].text, strlen(rows[i].text), &ref, &err) < 0 && err.code == SBX_E_INVALID_REQUEST,
		   "%s is refused", rows[i].why);
	}
	memset(big, 'a', sizeof(big));
	ok(image_ref_parse(big, sizeof(big), &ref, &err) < 0, "1000 bytes are refused");
	ok(image_ref_parse(big, 256, &ref, &err) < 0, "a name of 256 bytes is refused");
	ok(image_ref_parse(big, 230, &ref, &err) == 0, "a name of 230 bytes is accepted");
	ok(image_ref_parse("a\0b", 3, &ref, &err) < 0, "NUL is refused");
}

static void test_digest(void)
{
	static const char abc_text[] = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
	uint8_t abc[DIGEST_BYTES];
	uint8_t other[DIGEST_BYTES];
	uint8_t chain[DIGEST_BYTES];
	uint8_t again[DIGEST_BYTES];
	char text[DIGEST_TEXT_SIZE];
	struct sbx_err err = {0};

	ok(digest_bytes("abc", 3, abc, &err) == 0, "digest of abc");
	digest_format(abc, text);
	is_str(text, abc_text, "is that of FIPS 180-2");
	ok(digest_parse(text, strlen(text), other) == 0 && !memcmp(abc, other, DIGEST_BYTES), "text reads back");
	ok(digest_parse(text, strlen(text) - 1, other) < 0, "one digit less is refused");

	static const char what[] = "what do ya want for nothing?";
	ok(digest_hmac("Jefe", 4, what, sizeof(what) - 1, other, &err) == 0, "HMAC of a text");
	digest_format(other, text);
	is_str(text, "sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", "is that of RFC 4231, case 2");

	struct digest *d = digest_new(&err);
	auto_fd fd = memfd_create("blob", MFD_CLOEXEC);
	ok(d && fd >= 0 && write(fd, "abc", 3) == 3 && lseek(fd, 0, SEEK_SET) == 0, "a file with the same bytes");
	if (d) {
		is_int(digest_step(d, fd, 2, &err), 2, "two bytes in one step");
		is_int(digest_step(d, fd, 100, &err), 1, "then the last");
		is_int(digest_step(d, fd, 100, &err), 0, "then the end");
		ok(digest_finish(d, other, &err) == 0 && !memcmp(abc, other, DIGEST_BYTES), "gives the same digest");
	}
	digest_free(d);

	ok(digest_chain(NULL, abc, chain, &err) == 0 && digest_chain(chain, abc, again, &err) == 0 &&
		   memcmp(chain, again, DIGEST_BYTES) != 0 && memcmp(chain, abc, DIGEST_BYTES) != 0,
	   "a layer's key depends on what is below it");
}

static void test_paths(void)
{
	static const struct {
		const char *why, *path, *want; /* want NULL: refused */
	} rows[] = {
		{"plain", "a/b", "a/b"},
		{"dot slash", "./a", "a"},
		{"dots and slashes", "a/.//./b/", "a/b"},
		{"root", ".", ""},
		{"root with slash", "./", ""},
		{"empty", "", ""},
		{"three dots are a name", "a/.../b", "a/.../b"},
		{"two dots at the start of a name", "..a", "..a"},
		{"absolute", "/a", NULL},
		{"parent", "..", NULL},
		{"parent inside", "a/../b", NULL},
		{"parent at the end", "a/..", NULL},
	};
	char out[4096];
	struct sbx_err err;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		err = (struct sbx_err){0};
		int rc = tree_path_clean(rows[i].path, out, &err);

		if (rows[i].want)
			is_str(rc == 0 ? out : "(refused)", rows[i].want, "path: %s", rows[i].why);
		else
			ok(rc < 0 && err.code == SBX_E_IMAGE_INVALID, "path: %s is refused", rows[i].why);
	}
	is_int(layer_form_parse("zstd"), LAYER_ZSTD, "form zstd");
	is_int(layer_form_parse("xz"), LAYER_FORM_NONE, "form xz is not offered");
}

static char *one_env[] = {(char[]){"PATH=/bin"}, (char[]){"A=\"x\"\n"}, NULL};
static char *one_cmd[] = {(char[]){"/bin/sh"}, NULL};
static int orphans;

static void count_orphan(void *arg, const uint8_t key[DIGEST_BYTES])
{
	orphans += *(int *)arg + (key[0] == 2);
}

static int open_state(char *dir)
{
	return mkdtemp(dir) ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

static void remove_state(const char *dir, int fd)
{
	char path[4200];
	auto_dir d = NULL;

	snprintf(path, sizeof(path), "%s/images", dir);
	d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));)
		if (e->d_name[0] != '.' || e->d_name[1] == 'n')
			unlinkat(dirfd(d), e->d_name, 0);
	unlinkat(fd, "images", AT_REMOVEDIR);
	rmdir(dir);
}

static void test_store(void)
{
	char dir[] = "/tmp/test_images.XXXXXX";
	auto_fd state = open_state(dir);
	struct sbx_err err = {0};
	uint8_t two[2][DIGEST_BYTES] = {{1}, {2}};
	struct image image = {.name = (char[]){"docker.io/library/debian:12"}, .layers = two, .n_layers = 2, .env = one_env,
			      .workdir = (char[]){"/w"}, .user = (char[]){"1000:1000"}, .cmd = one_cmd, .created_wall_usec = 5,
			      .bytes = 1ull << 40};
	struct image small = {.name = (char[]){"docker.io/library/base:1"}, .layers = two, .n_layers = 1};
	int zero = 0;

	struct image_store *s = image_store_open(state, &err);
	ok(s != NULL, "an empty state directory opens: %s", err.msg);
	ok(image_store_next(s, NULL) == NULL, "and has no image");
	ok(image_store_put(s, &image, &err) == 0, "put: %s", err.msg);
	ok(image_store_put(s, &small, &err) == 0, "put a second that shares a layer");
	image_store_close(s);

	s = image_store_open(state, &err);
	const struct image *got = s ? image_store_find(s, "debian:12", &err) : NULL;
	ok(got != NULL, "found after opening again, by its short name");
	if (got) {
		is_str(got->env[1], one_env[1], "odd text survives");
		is_int(got->n_layers, 2, "both layers");
		ok(!memcmp(got->layers, two, sizeof(two)), "with their keys");
		ok(got->entrypoint == NULL && !strcmp(got->cmd[0], "/bin/sh") && !got->cmd[1], "cmd without entrypoint");
		ok(got->bytes == 1ull << 40 && got->created_wall_usec == 5, "numbers");
	}
	got = image_store_next(s, NULL);
	is_str(got ? got->name : "", "docker.io/library/base:1", "the list is sorted by name");
	got = image_store_next(s, got);
	ok(got && !image_store_next(s, got), "and has two");

	ok(!image_store_find(s, "debian", &err) && err.code == SBX_E_IMAGE_NOT_FOUND && strstr(err.msg, "sandboxctl image import"),
	   "debian:latest is not debian:12, and the error says what to type");
	ok(!image_store_find(s, "NO", &err) && err.code == SBX_E_INVALID_REQUEST, "what is no reference is said to be none");
	image.name = (char[]){"debian:12"};
	ok(image_store_put(s, &image, &err) < 0 && err.code == SBX_E_INVALID_REQUEST, "a name that is not canonical is refused");
	image.name = (char[]){"host"};
	ok(image_store_put(s, &image, &err) < 0 && err.code == SBX_E_INVALID_REQUEST, "host is refused");
	image.name = (char[]){"docker.io/library/debian:12"};
	image.n_layers = 0;
	ok(image_store_put(s, &image, &err) < 0 && err.code == SBX_E_INVALID_REQUEST, "no layer is refused");

	ok(image_store_remove(s, "debian:12", count_orphan, &zero, &err) == 0, "remove");
	is_int(orphans, 1, "only the layer that nobody shares is an orphan");
	ok(image_store_remove(s, "debian:12", NULL, NULL, &err) < 0 && err.code == SBX_E_IMAGE_NOT_FOUND, "it is gone");
	image_store_close(s);

	/* what an interrupted or a meddling hand leaves */
	auto_fd images = openat(state, "images", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char name[80];
	memset(name, 'a', 64);
	memcpy(name + 64, ".json", 6);
	auto_fd bad = openat(images, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok(bad >= 0 && write(bad, "{\"version\":1", 12) == 12, "a cut-off file is put there");
	auto_fd tmp = openat(images, ".new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok(tmp >= 0, "and a temporary one");
	s = image_store_open(state, &err);
	ok(s && image_store_find(s, "base:1", &err) && !image_store_next(s, image_store_next(s, NULL)),
	   "the good image is there, the cut-off one is skipped");
	ok(faccessat(images, ".new", F_OK, 0) < 0, "the temporary one is gone");
	image_store_close(s);
	remove_state(dir, state);
}

int main(void)
{
	log_init("test_images", LOG_LEVEL_ERROR);
	test_ref_good();
	test_ref_bad();
	test_digest();
	test_paths();
	test_store();
	return tap_done();
}
