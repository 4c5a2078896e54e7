// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandbox-unpack, see unpack_result.h for how it is called
 *
 * Stages: check what was inherited; rlimits; filter; work; one result.  It knows no path but "/" (only for
 * --host-skeleton, before the filter) and opens nothing that is not beneath fd 3 or, there, the host's /etc.
 */
#include "config.h"

#include "base/cleanup.h"
#include "base/num.h"
#include "images/archive_index.h"
#include "images/host_image.h"
#include "images/layer.h"
#include "images/layer_capture.h"
#include "images/tree_seal.h"
#include "images/unpack_filter.h"
#include "images/unpack_result.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* zstd's largest window (128 MiB) twice, the names of a million directories, and libc. */
#define MAX_MEMORY_BYTES (1024ull * 1024 * 1024)
#define MAX_CPU_SECONDS	 3600u
#define MAX_FDS		 1024u /* two a level while a directory is replaced, three a level in a capture */
#define VERIFY_NICE	 10 /* it reads the whole store, and nobody waits for a sandbox meanwhile */
#define ENTRY_OVERHEAD	 4096u /* of an entry in a tar, with names of some length */

enum work { WORK_NONE = 0, WORK_UNPACK, WORK_HOST_SKELETON, WORK_CAPTURE, WORK_INDEX, WORK_VERIFY };

struct request {
	enum work work;
	enum layer_form form;
	uint64_t max_bytes;
	uint64_t max_entries;
	uint64_t n_lower;
	bool wait; /* the layers below are not complete yet */
	bool seal; /* a file for the seal is there */
	struct layer_diff_id diff_id;
	bool views;
	uint32_t kind; /* enum archive_kind */
	const char *skip[LAYER_CAPTURE_SKIP_MAX];
	size_t n_skip;
};

/* What is reported, of either form. */
struct report {
	struct layer_counts counts;
	struct capture_result captured;
	char difference[SEAL_TEXT_BYTES];
};

static int usage(FILE *to)
{
	fprintf(to, "usage: sandbox-unpack --form tar|gzip|zstd --max-bytes N --max-entries N\n"
		    "                      [--lower N] [--diff-id HEX] [--wait] [--seal]\n"
		    "       sandbox-unpack --host-skeleton\n"
		    "       sandbox-unpack --capture tar|gzip|zstd --max-bytes N --max-entries N\n"
		    "                      [--views] [--skip PATH]...\n"
		    "       sandbox-unpack --index tar|gzip|zstd --max-bytes N --max-entries N\n"
		    "                      [--kind oci|docker]\n"
		    "       sandbox-unpack --verify --max-entries N\n"
		    "Started by sandbox-broker, one per layer: fd 0 the blob, fd 3 the target\n"
		    "directory, fd 4 a pipe for the result, from fd 5 the N layers below it,\n"
		    "behind them, with --wait, a pipe that says when they are complete,\n"
		    "behind that, with --seal, the file that becomes the layer's seal.\n"
		    "--capture: fd 0 the file to write, fd 3 the tree, fd 5 and 6 the views.\n"
		    "--index: fd 0 the archive, which the table is appended to.\n"
		    "--verify: fd 0 the seal of the layer fd 3, read-only; they are compared.\n");
	return to == stdout ? 0 : 2;
}

/* What is to be done is said once. */
static bool set_work(struct request *r, enum work work)
{
	bool first = !r->work;

	r->work = work;
	return first;
}

static bool set_form(struct request *r, enum work work, const char *text)
{
	r->form = layer_form_parse(text);
	return set_work(r, work) && r->form != LAYER_FORM_NONE;
}

static bool set_diff_id(struct layer_diff_id *diff_id, const char *text)
{
	diff_id->wanted = true;
	return strlen(text) == 2 * DIGEST_BYTES && hex_decode(text, diff_id->is, DIGEST_BYTES) >= 0;
}

static bool set_number(uint64_t *number, const char *text, uint64_t max)
{
	return num_u64(text, strlen(text), max, number) >= 0;
}

static bool add_skip(struct request *r, const char *path)
{
	if (r->n_skip == LAYER_CAPTURE_SKIP_MAX)
		return false;
	r->skip[r->n_skip++] = path;
	return true;
}

static bool take_option(struct request *r, int letter, const char *value)
{
	switch (letter) {
	case 'f':
		return set_form(r, WORK_UNPACK, value);
	case 'c':
		return set_form(r, WORK_CAPTURE, value);
	case 'i':
		return set_form(r, WORK_INDEX, value);
	case 'y':
		return set_work(r, WORK_VERIFY);
	case 'H':
		return set_work(r, WORK_HOST_SKELETON);
	case 'w':
		return r->wait = true;
	case 'S':
		return r->seal = true;
	case 'v':
		return r->views = true;
	case 's':
		return add_skip(r, value);
	case 'k':
		return (r->kind = archive_kind_parse(value)) != 0;
	case 'b':
		return set_number(&r->max_bytes, value, INT64_MAX);
	case 'e':
		return set_number(&r->max_entries, value, UINT32_MAX);
	case 'l':
		return set_number(&r->n_lower, value, UNPACK_MAX_LOWER);
	case 'd':
		return set_diff_id(&r->diff_id, value);
	case 'h':
		exit(usage(stdout));
	case 'V':
		puts("sandbox-unpack " PACKAGE_VERSION);
		exit(0);
	default:
		return false;
	}
}

/* Whether all is there that the work needs, and nothing that is for another one. */
static bool fits_together(const struct request *r)
{
	bool bounded = r->work != WORK_HOST_SKELETON;

	if (!r->work || (bounded && !r->max_entries) || (bounded && r->work != WORK_VERIFY && !r->max_bytes))
		return false;
	if (r->work != WORK_CAPTURE && (r->views || r->n_skip))
		return false;
	if (r->work != WORK_INDEX && r->kind)
		return false;
	if (r->work != WORK_UNPACK && (r->n_lower || r->diff_id.wanted || r->wait || r->seal))
		return false;
	return !r->wait || r->n_lower;
}

static int parse(int argc, char **argv, struct request *r)
{
	static const struct option options[] = {
		{"form", required_argument, NULL, 'f'},	       {"max-bytes", required_argument, NULL, 'b'},
		{"max-entries", required_argument, NULL, 'e'}, {"host-skeleton", no_argument, NULL, 'H'},
		{"lower", required_argument, NULL, 'l'},       {"diff-id", required_argument, NULL, 'd'},
		{"help", no_argument, NULL, 'h'},	       {"version", no_argument, NULL, 'V'},
		{"capture", required_argument, NULL, 'c'},     {"views", no_argument, NULL, 'v'},
		{"skip", required_argument, NULL, 's'},	       {"index", required_argument, NULL, 'i'},
		{"kind", required_argument, NULL, 'k'},	       {"wait", no_argument, NULL, 'w'},
		{"seal", no_argument, NULL, 'S'},	       {"verify", no_argument, NULL, 'y'},
		{NULL, 0, NULL, 0},
	};
	int letter;

	while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(r, letter, optarg))
			return usage(stderr);
	return optind == argc && fits_together(r) ? 0 : usage(stderr);
}

/* Descriptors from UNPACK_LOWER_FD on: the layers below, then what is wanted of these two. */
static int ready_fd(const struct request *r)
{
	return r->wait ? UNPACK_LOWER_FD + (int)r->n_lower : -1;
}

static int seal_fd(const struct request *r)
{
	return r->seal ? UNPACK_LOWER_FD + (int)r->n_lower + r->wait : -1;
}

static int check_inherited(const struct request *r, struct sbx_err *err)
{
	struct stat st;

	if (r->work != WORK_INDEX && (fstat(UNPACK_TARGET_FD, &st) < 0 || !S_ISDIR(st.st_mode)))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "fd %d is not a directory", UNPACK_TARGET_FD);
	if (fstat(UNPACK_RESULT_FD, &st) < 0 || !(S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "fd %d is not a pipe", UNPACK_RESULT_FD);
	if (r->wait && (fstat(ready_fd(r), &st) < 0 || !S_ISFIFO(st.st_mode)))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "fd %d is not a pipe", ready_fd(r));
	if (r->seal && (fstat(seal_fd(r), &st) < 0 || !S_ISREG(st.st_mode)))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "fd %d is not a file", seal_fd(r));
	for (int i = 0; i < (r->views ? 2 : (int)r->n_lower); i++)
		if (fstat(UNPACK_LOWER_FD + i, &st) < 0 || !S_ISDIR(st.st_mode))
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, "fd %d is not a directory", UNPACK_LOWER_FD + i);
	return 0;
}

/* A packed layer is smaller than its content, but for what cannot be packed; an index stands behind up to two forms of its archive. */
static rlim_t max_file_bytes(const struct request *r)
{
	switch (r->work) {
	case WORK_HOST_SKELETON:
		return HOST_IMAGE_MAX_BYTES;
	case WORK_CAPTURE:
		return r->max_bytes + r->max_bytes / 16 + r->max_entries * ENTRY_OVERHEAD;
	case WORK_INDEX:
		return 2 * r->max_bytes + ARCHIVE_TABLE_MAX_BYTES;
	case WORK_VERIFY:
		return 0;
	case WORK_UNPACK:
	case WORK_NONE:
	default: {
		/* files are bounded by the writer; the seal, which is one file, by the number of names */
		uint64_t seal = r->seal ? r->max_entries * SEAL_RECORD_BYTES : 0;

		return seal > r->max_bytes ? seal : r->max_bytes;
	}
	}
}

static int set_limits(const struct request *r, struct sbx_err *err)
{
	const struct {
		__rlimit_resource_t what;
		rlim_t value;
	} limits[] = {
#ifndef SBX_SANITIZED /* the sanitizers reserve terabytes */
		{RLIMIT_AS, MAX_MEMORY_BYTES},
#endif
		{RLIMIT_CPU, MAX_CPU_SECONDS},
		{RLIMIT_NOFILE, MAX_FDS},
		{RLIMIT_FSIZE, max_file_bytes(r)},
		{RLIMIT_CORE, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		struct rlimit rl;

		if (getrlimit(limits[i].what, &rl) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "read a resource limit");
		/* lower, never raise: the starter may have been stricter */
		if (rl.rlim_max == RLIM_INFINITY || rl.rlim_max > limits[i].value)
			rl.rlim_max = limits[i].value;
		rl.rlim_cur = rl.rlim_max;
		if (setrlimit(limits[i].what, &rl) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "set a resource limit");
	}
	/* a file past its limit is an error to report, not a death */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	umask(0);
	if (r->work == WORK_VERIFY && setpriority(PRIO_PROCESS, 0, VERIFY_NICE) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "be nice");
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "become undumpable");
	return 0;
}

static int unpack(const struct request *r, struct layer_counts *counts, struct sbx_err *err)
{
	int lower[UNPACK_MAX_LOWER];

	for (size_t i = 0; i < r->n_lower; i++)
		lower[i] = UNPACK_LOWER_FD + (int)i;
	const struct layer_unpack what = {
		.blob_fd = STDIN_FILENO,
		.form = r->form,
		.root_fd = UNPACK_TARGET_FD,
		.max_entries = r->max_entries,
		.max_bytes = r->max_bytes,
		.lower_fds = lower,
		.n_lower = r->n_lower,
		.ready_fd = ready_fd(r),
		.diff_id = &r->diff_id,
		.seal_fd = seal_fd(r),
	};
	if (layer_apply(&what, counts, err) < 0)
		return -1;
	/* the layer is published by a rename and must not be empty after a power cut; its seal is on the same file system */
	if (syncfs(UNPACK_TARGET_FD) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "sync the layer");
	return 0;
}

static int capture(const struct request *r, struct capture_result *ret, struct sbx_err *err)
{
	const struct layer_capture what = {
		.tree_fd = UNPACK_TARGET_FD,
		.below_fd = r->views ? UNPACK_LOWER_FD : -1,
		.merged_fd = r->views ? UNPACK_LOWER_FD + 1 : -1,
		.out_fd = STDIN_FILENO,
		.form = r->form,
		.max_entries = r->max_entries,
		.max_bytes = r->max_bytes,
		.skip = r->skip,
		.n_skip = r->n_skip,
	};
	struct layer_captured done;

	if (layer_capture(&what, &done, err) < 0)
		return -1;
	ret->entries = done.entries;
	ret->bytes = done.bytes;
	ret->packed_bytes = done.packed_bytes;
	memcpy(ret->digest, done.digest, sizeof(ret->digest));
	memcpy(ret->diff_id, done.diff_id, sizeof(ret->diff_id));
	return 0;
}

static int look_into(const struct request *r, struct capture_result *ret, struct sbx_err *err)
{
	struct archive_index_result done;

	if (archive_index(STDIN_FILENO, r->form, r->kind, r->max_entries, r->max_bytes, &done, err) < 0)
		return -1;
	ret->entries = done.n_members;
	ret->bytes = done.table_offset;
	ret->kind = done.kind;
	return 0;
}

static int verify(const struct request *r, struct report *ret, struct sbx_err *err)
{
	struct seal_counts counts;

	int rc = tree_seal_compare(UNPACK_TARGET_FD, STDIN_FILENO, r->max_entries, true, &counts, ret->difference, err);
	if (rc < 0 && err->code == SBX_E_IMAGE_INVALID) { /* a verdict too, unlike the word of a process that was killed */
		snprintf(ret->difference, sizeof(ret->difference), "%.150s", err->msg);
		*err = (struct sbx_err){0};
	} else if (rc < 0) {
		return -1;
	}
	ret->captured.entries = counts.entries;
	ret->captured.bytes = counts.bytes;
	ret->captured.kind = *ret->difference ? SEAL_ALTERED : SEAL_SAME;
	return 0;
}

static int work(struct request *r, struct report *ret, struct sbx_err *err)
{
	auto_fd host_root = -1;

	if (set_limits(r, err) < 0)
		return -1;
	if (r->work == WORK_HOST_SKELETON) {
		host_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (host_root < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "open /");
	}
	/* before the filter: the library reads its configuration when it is first used */
	r->diff_id.digest = digest_new(err);
	if (!r->diff_id.digest || unpack_filter_load(err) < 0)
		return -1;
	switch (r->work) {
	case WORK_HOST_SKELETON:
		return host_image_build(host_root, UNPACK_TARGET_FD, &ret->counts, err);
	case WORK_CAPTURE:
		return capture(r, &ret->captured, err);
	case WORK_INDEX:
		return look_into(r, &ret->captured, err);
	case WORK_VERIFY:
		return verify(r, ret, err);
	case WORK_UNPACK:
	case WORK_NONE:
	default:
		return unpack(r, &ret->counts, err);
	}
}

static int send_report(const struct request *r, const struct report *report, const struct sbx_err *err)
{
	struct capture_result captured = report->captured;
	struct unpack_result unpacked = {
		.magic = UNPACK_RESULT_MAGIC,
		.status = (int32_t)err->code,
		.entries = report->counts.entries,
		.bytes = report->counts.bytes,
	};
	bool other = r->work == WORK_CAPTURE || r->work == WORK_INDEX || r->work == WORK_VERIFY;
	const void *data = other ? (const void *)&captured : (const void *)&unpacked;
	size_t size = other ? sizeof(captured) : sizeof(unpacked);
	ssize_t n;

	captured.magic = CAPTURE_RESULT_MAGIC;
	captured.status = (int32_t)err->code;
	sbx_printable(err->code ? err->msg : report->difference, SIZE_MAX, captured.text, sizeof(captured.text));
	sbx_printable(err->code ? err->msg : "", SIZE_MAX, unpacked.text, sizeof(unpacked.text));
	do
		n = write(UNPACK_RESULT_FD, data, size);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)size ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct request r = {0};
	struct report report = {0};
	struct sbx_err err = {0};
	int rc = parse(argc, argv, &r);

	if (rc != 0)
		return rc;
	if (check_inherited(&r, &err) < 0) {
		fprintf(stderr, "sandbox-unpack: %s\n", err.msg);
		return 2;
	}
	if (work(&r, &report, &err) < 0 && err.code == SBX_E_NONE)
		err.code = SBX_E_SYSTEM;
	if (send_report(&r, &report, &err) < 0)
		return 1;
	return err.code ? 1 : 0;
}
