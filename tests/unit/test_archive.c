// SPDX-License-Identifier: Apache-2.0
/* Archives of images: names, capture of a tree, documents of an export. */
#include "tests/tap.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "images/archive_index.h"
#include "images/export_documents.h"
#include "images/export_stream.h"
#include "images/image_store.h"
#include "images/layer_capture.h"
#include "images/manifest.h"
#include "images/tar_io.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_names(void)
{
	static const struct {
		const char *why, *name;
		bool known;
	} rows[] = {
		{"layout", "oci-layout", true},
		{"index", "index.json", true},
		{"docker", "manifest.json", true},
		{"blob", "blobs/sha256/" HEX64, true},
		{"another algorithm", "blobs/sha512/" HEX64 HEX64, true},
		{"a blob without an algorithm", "blobs/" HEX64, false},
		{"a blob that is no hex", "blobs/sha256/xyz", false},
		{"a file below a blob", "blobs/sha256/" HEX64 "/x", false},
		{"layer of old", HEX64 "/layer.tar", true},
		{"something beside it", HEX64 "/other", false},
		{"configuration", HEX64 ".json", true},
		{"layer of skopeo", HEX64 ".tar", true},
		{"layer of ko", HEX64 ".tar.gz", true},
		{"configuration of ko", "sha256:" HEX64, true},
		{"hex alone", HEX64, false},
		{"a root file system's", "etc/passwd", false},
		{"nothing", "", false},
		{"one too many", "index.json.", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		ok(archive_name_known(rows[i].name) == rows[i].known, "name: %s", rows[i].why);
	for (enum archive_kind k = ARCHIVE_ROOTFS; k < ARCHIVE_KIND_COUNT; k++)
		ok(archive_kind_parse(archive_kind_name(k)) == k, "kind %s", archive_kind_name(k));
	ok(archive_kind_parse("unknown") == ARCHIVE_UNKNOWN && archive_kind_parse("zip") == ARCHIVE_UNKNOWN, "no kind");
}

/* ---- capture ---- */

static char place[] = "/tmp/test_archive.XXXXXX";

static int make_dir(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", place, name);
	return mkdir(path, 0755);
}

static int make_file(const char *name, const char *text)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", place, name);
	auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static int open_dir(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", place, name);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* "name name name" of a layer, with "=target" behind links. */
static void list(int fd, enum layer_form form, struct buf *out)
{
	const struct tar_reader_config config = {.fd = fd, .form = form, .max_bytes = 1 << 24};
	struct sbx_err err = {0};
	struct tar_entry e;

	lseek(fd, 0, SEEK_SET);
	auto_tar_reader *r = tar_reader_new(&config, &err);
	while (r && tar_reader_next(r, &e, &err) > 0)
		buf_printf(out, "%s%s%s%s", buf_used(out) ? " " : "", e.path, e.hard_link || e.symlink ? "=" : "",
			   e.hard_link ? e.hard_link : e.symlink ? e.symlink : "");
	if (err.code)
		buf_printf(out, " (%s)", err.msg);
}

static int capture(struct layer_capture *what, const char *tree, enum layer_form form, struct layer_captured *ret, int *ret_fd,
		   struct sbx_err *err)
{
	auto_fd tree_fd = open_dir(tree);

	*ret_fd = memfd_create("layer", MFD_CLOEXEC);
	what->tree_fd = tree_fd;
	what->out_fd = *ret_fd;
	what->form = form;
	if (!what->max_entries)
		what->max_entries = 1000;
	if (!what->max_bytes)
		what->max_bytes = 1 << 20;
	return layer_capture(what, ret, err);
}

static void test_capture_forms(void)
{
	struct layer_captured first, again;
	struct sbx_err err = {0};
	uint8_t plain[DIGEST_BYTES];

	for (enum layer_form form = LAYER_TAR; form <= LAYER_ZSTD; form++) {
		struct layer_capture what = {.below_fd = -1, .merged_fd = -1};
		int fd = -1, other = -1;
		struct stat st;
		auto_buf names = {0};

		ok(capture(&what, "tree", form, &first, &fd, &err) == 0, "capture in form %u: %s", form, err.msg);
		ok(capture(&what, "tree", form, &again, &other, &err) == 0 && !memcmp(&first, &again, sizeof(first)), "twice the same bytes");
		ok(fstat(fd, &st) == 0 && (uint64_t)st.st_size == first.packed_bytes, "as long as said");
		if (form == LAYER_TAR)
			memcpy(plain, first.diff_id, sizeof(plain));
		ok(!memcmp(plain, first.diff_id, sizeof(plain)) && (form == LAYER_TAR) == !memcmp(plain, first.digest, sizeof(plain)),
		   "the diff id is that of the tar");
		list(fd, form, &names);
		is_str(buf_str(&names), "./ d/ d/a d/b=d/a d/fifo opq/ opq/new z=nowhere", "sorted, links to the first name");
		close(fd);
		close(other);
	}
}

static void test_capture_views(void)
{
	auto_fd below = open_dir("below");
	auto_fd merged = open_dir("merged");
	static const char *const skip[] = {"d/fifo", "z"};
	struct layer_capture what = {.below_fd = below, .merged_fd = merged, .skip = skip, .n_skip = ARRAY_SIZE(skip)};
	struct layer_captured got;
	struct sbx_err err = {0};
	auto_buf names = {0};
	auto_fd fd = -1;

	ok(capture(&what, "tree", LAYER_TAR, &got, &fd, &err) == 0, "capture with views: %s", err.msg);
	list(fd, LAYER_TAR, &names);
	is_str(buf_str(&names), "./ d/ d/a d/b=d/a opq/ opq/.wh.file opq/new opq/.wh.old", "what the merged view lacks is hidden; skipped paths are not there");
}

static void test_capture_refusals(void)
{
	static const struct {
		const char *why, *tree;
		uint64_t max_entries, max_bytes;
		enum sbx_err_code code;
		const char *text;
	} rows[] = {
		{"a name that would hide", "odd", 0, 0, SBX_E_IMAGE_INVALID, "rename it"},
		{"too many entries", "tree", 3, 0, SBX_E_LIMIT, "entries"},
		{"too many bytes", "tree", 0, 4, SBX_E_LIMIT, "bytes"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct layer_capture what = {.below_fd = -1, .merged_fd = -1, .max_entries = rows[i].max_entries, .max_bytes = rows[i].max_bytes};
		struct layer_captured got;
		struct sbx_err err = {0};
		auto_fd fd = -1;
		int rc = capture(&what, rows[i].tree, LAYER_GZIP, &got, &fd, &err);

		ok(rc < 0 && err.code == rows[i].code && strstr(err.msg, rows[i].text), "capture refuses %s: %s", rows[i].why, err.msg);
	}
}

static void test_capture(void)
{
	char link_path[256], to[256];

	if (!mkdtemp(place) || make_dir("tree") < 0 || make_dir("tree/d") < 0 || make_dir("tree/opq") < 0 || make_dir("below") < 0 ||
	    make_dir("below/opq") < 0 || make_dir("below/d") < 0 || make_dir("merged") < 0 || make_dir("merged/opq") < 0 ||
	    make_dir("merged/d") < 0 || make_dir("odd") < 0 || make_file("odd/.wh.x", "") < 0 || make_file("tree/d/a", "12345678") < 0 ||
	    make_file("tree/opq/new", "") < 0 || make_file("below/opq/old", "") < 0 || make_file("below/opq/file", "") < 0 ||
	    make_file("below/d/seen", "") < 0 || make_file("merged/d/seen", "") < 0 || make_file("merged/opq/new", "") < 0) {
		ok(false, "make the trees");
		return;
	}
	snprintf(link_path, sizeof(link_path), "%s/tree/d/a", place);
	snprintf(to, sizeof(to), "%s/tree/d/b", place);
	ok(link(link_path, to) == 0, "a hard link");
	snprintf(to, sizeof(to), "%s/tree/z", place);
	ok(symlink("nowhere", to) == 0, "a link to nowhere");
	snprintf(to, sizeof(to), "%s/tree/d/fifo", place);
	ok(mkfifo(to, 0600) == 0, "a FIFO, which is not opened");
	test_capture_forms();
	test_capture_views();
	test_capture_refusals();
	char command[320];
	snprintf(command, sizeof(command), "%s", place);
	const char *const argv[] = {"rm", "-rf", command, NULL};
	pid_t pid = fork();
	if (pid == 0) {
		execvp("rm", (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	ok(pid > 0, "removed");
}

/* ---- documents ---- */

static void test_documents(void)
{
	static const char old[] = "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Labels\":{\"a<b\":\"1\"},\"Env\":[\"A=1\"],\"Cmd\":null},"
				  "\"history\":[{\"created_by\":\"x\",\"empty_layer\":true}],\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"old\"]}}";
	struct export_layer layer = {.digest = {1}, .diff_id = {2}, .size = 3, .form = LAYER_ZSTD};
	const char *env[] = {"A=1", NULL};
	struct image image = {.env = (char **)(uintptr_t)env, .workdir = (char *)(uintptr_t) "/w", .user = (char *)(uintptr_t) ""};
	auto_buf config = {0}, fresh = {0}, manifest = {0}, index = {0};
	struct manifest_platform platform;
	static struct manifest m;
	struct sbx_err err = {0};
	uint8_t digest[DIGEST_BYTES];

	ok(export_config(&image, old, strlen(old), &layer, 1, &config, &err) == 0, "a configuration that is kept: %s", err.msg);
	auto_jv root = jv_parse(buf_peek(&config), buf_used(&config), &err);
	ok(jv_str(jv_get(jv_get(jv_get(root, "config"), "Labels"), "a<b")) && jv_count(jv_get(root, "history")) == 1, "keeps what we do not know");
	const char *diff_id = jv_str(jv_first(jv_get(jv_get(root, "rootfs"), "diff_ids")));
	ok(diff_id && !strncmp(diff_id, "sha256:0200", 11), "but for its diff ids");
	ok(export_config(&image, NULL, 0, &layer, 1, &fresh, &err) == 0, "a new one");
	auto_jv made = jv_parse(buf_peek(&fresh), buf_used(&fresh), &err);
	is_str(jv_str(jv_get(jv_get(made, "config"), "WorkingDir")), "/w", "has what the image says");
	ok(export_config(&image, "[]", 2, &layer, 1, &fresh, &err) < 0 && err.code == SBX_E_IMAGE_INVALID, "no object is refused");

	manifest_host_platform(&platform);
	ok(digest_bytes(buf_peek(&config), buf_used(&config), digest, &err) == 0 &&
	   export_manifest(digest, buf_used(&config), &layer, 1, &manifest, &err) == 0, "a manifest");
	ok(manifest_parse(buf_peek(&manifest), buf_used(&manifest), "", &platform, &m, &err) == 0 && m.kind == MANIFEST_IMAGE &&
	   m.n_layers == 1 && m.layer[0].form == LAYER_ZSTD && m.layer[0].size == 3, "which reads back: %s", err.msg);
	ok(export_index(digest, 7, "docker.io/library/a:12", &index, &err) == 0 &&
	   manifest_parse(buf_peek(&index), buf_used(&index), "", &platform, &m, &err) == 0 && m.kind == MANIFEST_INDEX && m.chosen.size == 7,
	   "and an index for this machine: %s", err.msg);

	const struct export_row rows[] = {{.size = 0}, {.size = 1}, {.size = 512}};
	ok(export_row_bytes(&rows[0]) == 512 && export_row_bytes(&rows[1]) == 1024 && export_row_bytes(&rows[2]) == 1024 &&
	   export_stream_bytes(rows, 3) == 512 + 1024 + 1024 + 1024, "the length of a stream");
}

int main(void)
{
	test_names();
	test_capture();
	test_documents();
	return tap_done();
}
