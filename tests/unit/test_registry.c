// SPDX-License-Identifier: Apache-2.0
/* What a registry says, read: challenges, tokens, errors, credential files, manifests, configurations; and the blob store. */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "images/blob_store.h"
#include "images/image_store.h"
#include "images/manifest.h"
#include "images/registry_auth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HEX  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEX2 "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_challenge(void)
{
	static const struct {
		const char *why, *text;
		size_t n; /* 0: refused */
		enum registry_scheme scheme; /* of the first */
		const char *realm, *service;
	} rows[] = {
		{"bearer", "Bearer realm=\"https://a/token\",service=\"b\",scope=\"c\"", 1, REGISTRY_SCHEME_BEARER, "https://a/token", "b"},
		{"in any case, with spaces", "bEARER  Realm = \"https://a\" ,\tservice=b", 1, REGISTRY_SCHEME_BEARER, "https://a", "b"},
		{"an unknown parameter", "Bearer error=\"x\",realm=\"https://a\"", 1, REGISTRY_SCHEME_BEARER, "https://a", ""},
		{"an escaped quote", "Bearer realm=\"https://a/\\\"\"", 1, REGISTRY_SCHEME_BEARER, "https://a/\"", ""},
		{"basic", "Basic realm=\"r\"", 1, REGISTRY_SCHEME_BASIC, "r", ""},
		{"basic without a realm", "Basic", 1, REGISTRY_SCHEME_BASIC, "", ""},
		{"two in one line", "Basic realm=\"r\", Bearer realm=\"https://a\",service=\"b\"", 2, REGISTRY_SCHEME_BASIC, "r", ""},
		{"one that we do not know, alone", "Negotiate", 1, REGISTRY_SCHEME_OTHER, "", ""},
		{"one that we do not know, first", "Negotiate, Basic realm=x", 2, REGISTRY_SCHEME_OTHER, "", ""},
		{"empty", "", 0, 0, NULL, NULL},
		{"commas only", " , ,", 0, 0, NULL, NULL},
		{"no scheme", "realm=\"x\"", 0, 0, NULL, NULL},
		{"bearer without a realm", "Bearer service=\"x\"", 0, 0, NULL, NULL},
		{"bearer alone", "Bearer", 0, 0, NULL, NULL},
		{"bearer alone, behind others", "i,,bearer", 0, 0, NULL, NULL},
		{"bearer alone, before others", "Bearer, Basic realm=x", 0, 0, NULL, NULL},
		{"basic alone, before others", "Basic, Bearer realm=x", 2, REGISTRY_SCHEME_BASIC, "", ""},
		{"open quote", "Bearer realm=\"https://a", 0, 0, NULL, NULL},
		{"ends in an escape", "Bearer realm=\"a\\", 0, 0, NULL, NULL},
		{"realm twice", "Bearer realm=\"a\",realm=\"b\"", 0, 0, NULL, NULL},
		{"a control character", "Bearer realm=\"a\x01\"", 0, 0, NULL, NULL},
		{"a line end", "Bearer realm=\"a\r\nX: y\"", 0, 0, NULL, NULL},
		{"not ASCII", "Bearer realm=\"\xc3\xa4\"", 0, 0, NULL, NULL},
		{"no comma", "Bearer realm=\"a\" service=\"b\"", 0, 0, NULL, NULL},
		{"no value", "Bearer realm=", 0, 0, NULL, NULL},
		{"five schemes", "A, B, C, D, E", 0, 0, NULL, NULL},
	};
	struct registry_challenge got[REGISTRY_CHALLENGES_MAX];
	struct sbx_err err;
	size_t n;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		err = (struct sbx_err){0};
		int rc = registry_challenge_parse(rows[i].text, strlen(rows[i].text), got, &n, &err);

		if (!rows[i].n) {
			ok(rc < 0 && err.code == SBX_E_PROTOCOL, "challenge refused: %s", rows[i].why);
			continue;
		}
		ok(rc == 0 && n == rows[i].n && got[0].scheme == rows[i].scheme, "challenge: %s", rows[i].why);
		is_str(got[0].realm, rows[i].realm, "its realm: %s", rows[i].why);
		is_str(got[0].service, rows[i].service, "its service: %s", rows[i].why);
	}
	char longer[REGISTRY_CHALLENGE_BYTES + 10];
	memset(longer, 'a', sizeof(longer));
	ok(registry_challenge_parse(longer, sizeof(longer), got, &n, &err) < 0, "a challenge that is too long");
}

static void test_token(void)
{
	static const struct {
		const char *why, *text, *token;
	} rows[] = {
		{"token", "{\"token\":\"abc.d\",\"expires_in\":300}", "abc.d"},
		{"access_token", "{\"access_token\":\"x\"}", "x"},
		{"the first counts", "{\"token\":\"a\",\"access_token\":\"b\"}", "a"},
		{"none", "{\"expires_in\":300}", NULL},
		{"empty", "{\"token\":\"\"}", NULL},
		{"a number", "{\"token\":7}", NULL},
		{"a line end, which would begin another header", "{\"token\":\"a\\r\\nX: y\"}", NULL},
		{"a space", "{\"token\":\"a b\"}", NULL},
		{"no JSON", "token", NULL},
	};
	char *token = malloc(REGISTRY_TOKEN_BYTES);
	struct sbx_err err;

	for (size_t i = 0; token && i < ARRAY_SIZE(rows); i++) {
		err = (struct sbx_err){0};
		int rc = registry_token_parse(rows[i].text, strlen(rows[i].text), token, &err);

		if (rows[i].token)
			ok(rc == 0 && !strcmp(token, rows[i].token), "token: %s", rows[i].why);
		else
			ok(rc < 0 && err.code == SBX_E_PROTOCOL, "token refused: %s", rows[i].why);
	}
	free(token);
}

static void test_auth_file(void)
{
	static const struct {
		const char *why, *text, *host, *user, *password; /* user NULL: refused */
	} rows[] = {
		{"user and password", "{\"auths\":{\"r.test:5000\":{\"auth\":\"bWU6cHc=\"}}}", "r.test:5000", "me", "pw"},
		{"a colon in the password", "{\"auths\":{\"r.test\":{\"auth\":\"YTpiOmM=\"}}}", "r.test", "a", "b:c"},
		{"apart", "{\"auths\":{\"r.test\":{\"username\":\"u\",\"password\":\"p\"}}}", "r.test", "u", "p"},
		{"with a scheme and a path", "{\"auths\":{\"https://r.test/v1/\":{\"auth\":\"bWU6cHc=\"}}}", "r.test", "me", "pw"},
		{"Docker's old name", "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"bWU6cHc=\"}}}", "docker.io", "me", "pw"},
		{"another host's", "{\"auths\":{\"r.test\":{\"auth\":\"bWU6cHc=\"}}}", "other.test", "", ""},
		{"a host that begins alike", "{\"auths\":{\"r.test.evil\":{\"auth\":\"bWU6cHc=\"}}}", "r.test", "", ""},
		{"another port", "{\"auths\":{\"r.test:5000\":{\"auth\":\"bWU6cHc=\"}}}", "r.test:5001", "", ""},
		{"empty", "{}", "r.test", "", ""},
		{"an empty entry", "{\"auths\":{\"r.test\":{}}}", "r.test", "", ""},
		{"no base64", "{\"auths\":{\"r.test\":{\"auth\":\"!\"}}}", "r.test", NULL, NULL},
		{"no colon", "{\"auths\":{\"r.test\":{\"auth\":\"bWU=\"}}}", "r.test", NULL, NULL},
		{"an identity token", "{\"auths\":{\"r.test\":{\"identitytoken\":\"x\"}}}", "r.test", NULL, NULL},
		{"a helper that keeps all", "{\"auths\":{\"r.test\":{}},\"credsStore\":\"pass\"}", "r.test", NULL, NULL},
		{"a helper that keeps another's", "{\"auths\":{\"other.test\":{}},\"credsStore\":\"pass\"}", "r.test", "", ""},
		{"a helper beside a password", "{\"auths\":{\"r.test\":{\"auth\":\"bWU6cHc=\"}},\"credsStore\":\"pass\"}", "r.test", "me", "pw"},
		{"a part of the registry", "{\"auths\":{\"r.test/team\":{\"auth\":\"bWU6cHc=\"}}}", "r.test", "me", "pw"},
		{"the longest part", "{\"auths\":{\"r.test\":{\"auth\":\"YTpiOmM=\"},\"r.test/team/image\":{\"auth\":\"bWU6cHc=\"},"
		 "\"r.test/team\":{\"auth\":\"YTpiOmM=\"}}}", "r.test", "me", "pw"},
		{"another part", "{\"auths\":{\"r.test/tea\":{\"auth\":\"bWU6cHc=\"}}}", "r.test", "", ""},
		{"a part of another host", "{\"auths\":{\"x.test/team\":{\"auth\":\"bWU6cHc=\"}}}", "r.test", "", ""},
		{"a helper", "{\"credHelpers\":{\"r.test\":\"gcloud\"}}", "r.test", NULL, NULL},
		{"no JSON", "x", "r.test", NULL, NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct registry_credentials got;
		struct sbx_err err = {0};
		int rc = registry_auth_file(rows[i].text, strlen(rows[i].text), rows[i].host, "team/image", &got, &err);

		if (rows[i].user)
			ok(rc == 0 && !strcmp(got.user, rows[i].user) && !strcmp(got.password, rows[i].password), "credentials: %s", rows[i].why);
		else
			ok(rc < 0 && err.code == SBX_E_IMAGE_PULL_FAILED && !strstr(err.msg, "bWU"), "credentials refused: %s", rows[i].why);
	}
	static const struct {
		const char *user, *password, *want;
	} basics[] = {{"me", "pw", "Basic bWU6cHc="}, {"a", "", "Basic YTo="}, {"a", "b", "Basic YTpi"}, {"", "", "Basic Og=="}};
	for (size_t i = 0; i < ARRAY_SIZE(basics); i++) {
		struct registry_credentials c = {0};
		auto_buf out = {0};

		snprintf(c.user, sizeof(c.user), "%s", basics[i].user);
		snprintf(c.password, sizeof(c.password), "%s", basics[i].password);
		registry_basic(&c, &out);
		is_str(buf_str(&out), basics[i].want, "basic of %s:%s", basics[i].user, basics[i].password);
	}
	static const struct {
		const char *host;
		bool loopback;
	} hosts[] = {{"localhost", true},	 {"localhost:5000", true},   {"127.0.0.1:5000", true}, {"127.9.9.9", true},
		     {"[::1]:5000", true},	 {"127.0.0.1.evil", false},  {"127.evil.0.1", false},  {"localhost.evil", false},
		     {"10.0.0.1:5000", false}, {"docker.io", false}};
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++)
		ok(registry_is_loopback(hosts[i].host) == hosts[i].loopback, "%s is %sloopback", hosts[i].host, hosts[i].loopback ? "" : "not ");
	char text[64];
	static const char denied[] = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[31m\"}]}";
	registry_error_text(denied, sizeof(denied) - 1, text, sizeof(text));
	is_str(text, "no?[31m", "the message of an error, printable");
	registry_error_text("<html>", 6, text, sizeof(text));
	is_str(text, "", "none in a web page");
}

#define DESC(type, hex, size) "{\"mediaType\":\"" type "\",\"digest\":\"sha256:" hex "\",\"size\":" size "}"
#define OCI		      "application/vnd.oci.image."
#define CONFIG		      DESC(OCI "config.v1+json", HEX, "10")
#define LAYER		      DESC(OCI "layer.v1.tar+gzip", HEX2, "20")
#define MANIFEST(layers)      "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[" layers "]}"
#define PLATFORM(os, arch, variant, hex) \
	"{\"mediaType\":\"" OCI "manifest.v1+json\",\"digest\":\"sha256:" hex "\",\"size\":5,\"platform\":{\"os\":\"" os \
	"\",\"architecture\":\"" arch "\",\"variant\":\"" variant "\"}}"
#define INDEX(entries) "{\"schemaVersion\":2,\"manifests\":[" entries "]}"

static void test_manifest(void)
{
	static const struct {
		const char *why, *type, *text;
		enum manifest_kind kind; /* NONE: refused */
	} rows[] = {
		{"an image", OCI "manifest.v1+json", MANIFEST(LAYER), MANIFEST_IMAGE},
		{"parameters of the type", OCI "manifest.v1+json; charset=utf-8", MANIFEST(LAYER), MANIFEST_IMAGE},
		{"without a type", NULL, MANIFEST(LAYER), MANIFEST_IMAGE},
		{"two layers", "", MANIFEST(LAYER "," LAYER), MANIFEST_IMAGE},
		{"a plain layer", "", MANIFEST(DESC(OCI "layer.v1.tar", HEX2, "1")), MANIFEST_IMAGE},
		{"a zstd layer", "", MANIFEST(DESC(OCI "layer.v1.tar+zstd", HEX2, "1")), MANIFEST_IMAGE},
		{"an index", OCI "index.v1+json", INDEX(PLATFORM("linux", "amd64", "", HEX)), MANIFEST_INDEX},
		{"an empty index", OCI "index.v1+json", INDEX(""), MANIFEST_NONE},
		{"an image sent as an index", OCI "index.v1+json", MANIFEST(LAYER), MANIFEST_NONE},
		{"an index sent as an image", OCI "manifest.v1+json", INDEX(PLATFORM("linux", "amd64", "", HEX)), MANIFEST_NONE},
		{"neither", "", "{\"schemaVersion\":2}", MANIFEST_NONE},
		{"an array", "", "[]", MANIFEST_NONE},
		{"no version", "", "{\"config\":" CONFIG ",\"layers\":[" LAYER "]}", MANIFEST_NONE},
		{"a size of text", "", MANIFEST(DESC(OCI "layer.v1.tar", HEX2, "\"1\"")), MANIFEST_NONE},
		{"a size with a fraction", "", MANIFEST(DESC(OCI "layer.v1.tar", HEX2, "1.5")), MANIFEST_NONE},
		{"an empty layer", "", MANIFEST(DESC(OCI "layer.v1.tar", HEX2, "0")), MANIFEST_NONE},
		{"upper-case digest", "", MANIFEST(DESC(OCI "layer.v1.tar", "A123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "1")),
		 MANIFEST_NONE},
		{"layers of another kind", "", "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":{}}", MANIFEST_NONE},
		{"another type altogether", "text/html", MANIFEST(LAYER), MANIFEST_NONE},
	};
	const struct manifest_platform amd64 = {.os = "linux", .arch = "amd64"};
	struct manifest *m = malloc(sizeof(*m));

	for (size_t i = 0; m && i < ARRAY_SIZE(rows); i++) {
		struct sbx_err err = {0};
		int rc = manifest_parse(rows[i].text, strlen(rows[i].text), rows[i].type, &amd64, m, &err);

		if (rows[i].kind)
			ok(rc == 0 && m->kind == rows[i].kind, "manifest: %s (%s)", rows[i].why, err.msg);
		else
			ok(rc < 0 && err.code == SBX_E_IMAGE_INVALID, "manifest refused: %s", rows[i].why);
	}
	static const struct {
		const char *why, *variant, *arch, *entries;
		char first; /* of the digest that is chosen; 0: none */
	} choices[] = {
		{"the plain one before v3", "", "amd64", PLATFORM("linux", "amd64", "v3", HEX) "," PLATFORM("linux", "amd64", "", HEX2), '1'},
		{"v1 is plain", "", "amd64", PLATFORM("linux", "amd64", "v1", HEX2), '1'},
		{"v3 alone is not for any", "", "amd64", PLATFORM("linux", "amd64", "v3", HEX), 0},
		{"v8 is every arm64", "", "arm64", PLATFORM("linux", "arm64", "v8", HEX2), '1'},
		{"the variant that is wanted", "v3", "amd64", PLATFORM("linux", "amd64", "", HEX) "," PLATFORM("linux", "amd64", "v3", HEX2), '1'},
		{"an arm v7 takes v6 before v5", "v7", "arm", PLATFORM("linux", "arm", "v5", HEX) "," PLATFORM("linux", "arm", "v6", HEX2), '1'},
		{"an arm v6 does not take v7", "v6", "arm", PLATFORM("linux", "arm", "v7", HEX), 0},
		{"another system", "", "amd64", PLATFORM("windows", "amd64", "", HEX), 0},
	};
	for (size_t i = 0; m && i < ARRAY_SIZE(choices); i++) {
		struct manifest_platform want = {.os = "linux"};
		auto_buf text = {0};
		struct sbx_err err = {0};

		snprintf(want.arch, sizeof(want.arch), "%s", choices[i].arch);
		snprintf(want.variant, sizeof(want.variant), "%s", choices[i].variant);
		buf_printf(&text, "{\"schemaVersion\":2,\"manifests\":[%s]}", choices[i].entries);
		int rc = manifest_parse(buf_str(&text), buf_used(&text), NULL, &want, m, &err);
		if (choices[i].first)
			ok(rc == 0 && m->chosen.digest[0] == 0x11, "choice: %s", choices[i].why);
		else
			ok(rc < 0, "no choice: %s", choices[i].why);
	}
	free(m);
}

static void test_config(void)
{
	static const struct {
		const char *why, *text;
		bool good;
	} rows[] = {
		{"all of it",
		 "{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{\"Env\":[\"A=b\"],\"WorkingDir\":\"app\",\"User\":\"7\",\"Cmd\":[\"x\"],"
		 "\"Entrypoint\":null},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:" HEX "\"]}}", true},
		{"no config", "{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":{\"diff_ids\":[\"sha256:" HEX "\"]}}", true},
		{"no rootfs", "{\"os\":\"linux\",\"architecture\":\"amd64\"}", false},
		{"two diff ids", "{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":{\"diff_ids\":[\"sha256:" HEX "\",\"sha256:" HEX "\"]}}",
		 false},
		{"no platform", "{\"rootfs\":{\"diff_ids\":[\"sha256:" HEX "\"]}}", false},
		{"a command that is a text",
		 "{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{\"Cmd\":\"x\"},\"rootfs\":{\"diff_ids\":[\"sha256:" HEX "\"]}}", false},
		{"a config that is a list",
		 "{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":[],\"rootfs\":{\"diff_ids\":[\"sha256:" HEX "\"]}}", false},
	};
	const struct manifest_platform amd64 = {.os = "linux", .arch = "amd64"};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct image image = {0};
		uint8_t(*diff_ids)[DIGEST_BYTES] = NULL;
		struct sbx_err err = {0};
		int rc = manifest_config(rows[i].text, strlen(rows[i].text), &amd64, 1, &image, &diff_ids, &err);

		ok(rows[i].good ? rc == 0 && diff_ids : rc < 0 && err.code == SBX_E_IMAGE_INVALID, "configuration: %s (%s)", rows[i].why, err.msg);
		if (i == 0)
			ok(image.env && !strcmp(image.env[0], "A=b") && !strcmp(image.workdir, "/app") && !strcmp(image.user, "7") &&
				   image.cmd && !strcmp(image.cmd[0], "x") && !image.entrypoint,
			   "its members are taken; a relative directory begins at the root");
		free(diff_ids);
		image_clear(&image);
	}
}

/* Runs the receiving child with @data on a pipe; Return: its last report. */
static struct blob_report receive(const struct blob_store *store, const char *digest, const char *size, const char *data, size_t n)
{
	struct blob_report report = {0}, got;
	int in[2], out[2], status = 0;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		return report;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		char *args[] = {(char *)(uintptr_t)digest, (char *)(uintptr_t)size, NULL};
		int dir = fcntl(blob_store_dir(store), F_DUPFD, 64), source = fcntl(in[0], F_DUPFD, 64), sink = fcntl(out[1], F_DUPFD, 64);

		close(in[1]);
		if (dup2(dir, BLOB_FD_DIR) < 0 || dup2(source, 0) < 0 || dup2(sink, BLOB_FD_REPORT) < 0)
			_exit(3);
		_exit(blob_receive_main(2, args));
	}
	close(in[0]);
	close(out[1]);
	ignore_result(write(in[1], data, n) < 0); /* short of what the pipe holds */
	close(in[1]);
	while (read(out[0], &got, sizeof(got)) == (ssize_t)sizeof(got))
		report = got;
	close(out[0]);
	waitpid(pid, &status, 0);
	ok((report.status == 0) == (WIFEXITED(status) && WEXITSTATUS(status) == 0), "its exit says what its report says");
	return report;
}

static void count_one(void *arg, const uint8_t digest[DIGEST_BYTES], uint64_t bytes, int64_t used_wall_s)
{
	(void)digest, (void)used_wall_s;
	*(uint64_t *)arg += bytes;
}

static void test_blobs(void)
{
	static const char text[] = "hello";
	char dir[] = "/tmp/test_registry.XXXXXX", digest[DIGEST_TEXT_SIZE], path[200];
	struct sbx_err err = {0};
	uint8_t sum[DIGEST_BYTES], other[DIGEST_BYTES] = {1};
	uint64_t size = 0;
	struct stat st;

	if (!mkdtemp(dir))
		return;
	auto_fd state = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct blob_store *store = blob_store_open(state, &err);
	ok(store != NULL, "a store");
	if (!store || digest_bytes(text, 5, sum, &err) < 0)
		return;
	digest_format(sum, digest);
	is_int(blob_store_size(store, sum, NULL), -ENOENT, "nothing there");
	ok(receive(store, digest, "5", "hel", 3).status == SBX_E_PEER_GONE && blob_store_size(store, sum, NULL) == -ENOENT,
	   "fewer bytes are kept, and are no blob");
	ok(blob_store_partial_bytes(store, &size) == 0 && size == 3, "three bytes are begun");
	struct blob_report last = receive(store, digest, "5", "lo", 2);
	ok(last.status == 0 && last.bytes == 5 && blob_store_size(store, sum, &size) == 0 && size == 5, "the rest makes it whole");
	snprintf(path, sizeof(path), "%s/blobs/sha256/%s", dir, digest + 7);
	ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0400, "named by its digest, not to be written to");
	ok(receive(store, digest, "5", "", 0).status == 0, "once more is no error, and needs no bytes");
	char *data = NULL;
	size_t n = 0;
	ok(blob_store_read(store, sum, 5, &data, &n, &err) == 0 && n == 5 && !strcmp(data, text), "it reads back");
	free(data);
	ok(blob_store_read(store, sum, 4, &data, &n, &err) < 0 && err.code == SBX_E_LIMIT, "not beyond the bound");
	size = 0;
	ok(blob_store_each(store, count_one, &size) == 0 && size == 5, "a walk finds it");
	ok(blob_store_remove(store, sum) == 0 && blob_store_remove(store, sum) == -ENOENT, "removed once");
	ok(receive(store, digest, "5", "hellx", 5).status == SBX_E_IMAGE_INVALID && blob_store_size(store, sum, NULL) == -ENOENT,
	   "other bytes are no blob");
	ok(blob_store_partial_bytes(store, &size) == 0 && size == 0, "and are not kept");
	ok(receive(store, digest, "5", "helloo", 6).status == SBX_E_IMAGE_INVALID, "more bytes are refused");
	ok(receive(store, digest, "4", "hell", 4).status == SBX_E_IMAGE_INVALID, "a size that is not the blob's");
	digest_format(other, digest);
	ok(receive(store, digest, "9", "abc", 3).status == SBX_E_PEER_GONE && blob_store_sweep_partial(store, 3600, false, &size) == 0 &&
		   blob_store_sweep_partial(store, 0, true, &size) == 1 && size == 3 && blob_store_sweep_partial(store, 0, false, &size) == 1 && size == 3,
	   "begun ones are swept by age");
	is_int(blob_receive_main(1, NULL), 2, "without arguments");
	blob_store_close(store);
	/* the folders are empty now */
	static const char *const names[] = {"blobs/sha256", "blobs/partial", "blobs"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(state, names[i], AT_REMOVEDIR);
	rmdir(dir);
}

int main(void)
{
	log_init("test_registry", LOG_LEVEL_ERROR);
	test_challenge();
	test_token();
	test_auth_file();
	test_manifest();
	test_config();
	test_blobs();
	return tap_done();
}
