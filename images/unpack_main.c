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
#include "images/host_image.h"
#include "images/layer.h"
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
#define MAX_FDS		 1024u /* two a level while a directory is replaced */

struct request {
	bool host_skeleton;
	enum layer_form form;
	uint64_t max_bytes;
	uint64_t max_entries;
	uint64_t n_lower;
	struct layer_diff_id diff_id;
};

static int usage(FILE *to)
{
	fprintf(to, "usage: sandbox-unpack --form tar|gzip|zstd --max-bytes N --max-entries N [--lower N]\n"
		    "                      [--diff-id HEX]\n"
		    "       sandbox-unpack --host-skeleton\n"
		    "Started by sandbox-broker, one per layer: fd 0 the blob, fd 3 the target\n"
		    "directory, fd 4 a pipe for the result, from fd 5 the N layers below it.\n");
	return to == stdout ? 0 : 2;
}

static int parse(int argc, char **argv, struct request *r)
{
	static const struct option options[] = {
		{"form", required_argument, NULL, 'f'},	       {"max-bytes", required_argument, NULL, 'b'},
		{"max-entries", required_argument, NULL, 'e'}, {"host-skeleton", no_argument, NULL, 'H'},
		{"lower", required_argument, NULL, 'l'},       {"diff-id", required_argument, NULL, 'd'},
		{"help", no_argument, NULL, 'h'},	       {"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'f':
			r->form = layer_form_parse(optarg);
			if (r->form == LAYER_FORM_NONE)
				return usage(stderr);
			break;
		case 'b':
			if (num_u64(optarg, strlen(optarg), INT64_MAX, &r->max_bytes) < 0)
				return usage(stderr);
			break;
		case 'e':
			if (num_u64(optarg, strlen(optarg), UINT32_MAX, &r->max_entries) < 0)
				return usage(stderr);
			break;
		case 'l':
			if (num_u64(optarg, strlen(optarg), UNPACK_MAX_LOWER, &r->n_lower) < 0)
				return usage(stderr);
			break;
		case 'd':
			r->diff_id.wanted = true;
			if (strlen(optarg) != 2 * DIGEST_BYTES || hex_decode(optarg, r->diff_id.is, DIGEST_BYTES) < 0)
				return usage(stderr);
			break;
		case 'H':
			r->host_skeleton = true;
			break;
		case 'h':
			exit(usage(stdout));
		case 'V':
			puts("sandbox-unpack " PACKAGE_VERSION);
			exit(0);
		default:
			return usage(stderr);
		}
	}
	if (optind != argc || r->host_skeleton == (r->form != LAYER_FORM_NONE) ||
	    (!r->host_skeleton && (!r->max_bytes || !r->max_entries)))
		return usage(stderr);
	return 0;
}

static int check_inherited(const struct request *r, struct sbx_err *err)
{
	struct stat st;

	if (fstat(UNPACK_TARGET_FD, &st) < 0 || !S_ISDIR(st.st_mode))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "fd %d is not a directory", UNPACK_TARGET_FD);
	if (fstat(UNPACK_RESULT_FD, &st) < 0 || !(S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "fd %d is not a pipe", UNPACK_RESULT_FD);
	for (int i = 0; i < (int)r->n_lower; i++)
		if (fstat(UNPACK_LOWER_FD + i, &st) < 0 || !S_ISDIR(st.st_mode))
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, "fd %d is not a directory", UNPACK_LOWER_FD + i);
	return 0;
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
		{RLIMIT_FSIZE, r->host_skeleton ? HOST_IMAGE_MAX_BYTES : r->max_bytes},
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
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "become undumpable");
	return 0;
}

static int work(struct request *r, struct layer_counts *counts, struct sbx_err *err)
{
	auto_fd host_root = -1;
	int lower[UNPACK_MAX_LOWER];

	for (size_t i = 0; i < r->n_lower; i++)
		lower[i] = UNPACK_LOWER_FD + (int)i;
	if (set_limits(r, err) < 0)
		return -1;
	if (r->host_skeleton) {
		host_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (host_root < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "open /");
	}
	/* before the filter: the library reads its configuration */
	if (r->diff_id.wanted && !(r->diff_id.digest = digest_new(err)))
		return -1;
	if (unpack_filter_load(err) < 0)
		return -1;
	if (r->host_skeleton)
		return host_image_build(host_root, UNPACK_TARGET_FD, counts, err);
	if (layer_apply(STDIN_FILENO, r->form, UNPACK_TARGET_FD, r->max_entries, r->max_bytes, lower, r->n_lower, &r->diff_id,
			counts, err) < 0)
		return -1;
	/* the layer is published by a rename and must not be empty after a power cut */
	if (syncfs(UNPACK_TARGET_FD) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "sync the layer");
	return 0;
}

static int report(const struct layer_counts *counts, const struct sbx_err *err)
{
	struct unpack_result result = {
		.magic = UNPACK_RESULT_MAGIC,
		.status = (int32_t)err->code,
		.entries = counts->entries,
		.bytes = counts->bytes,
	};
	ssize_t n;

	for (size_t i = 0; err->code && err->msg[i] && i < sizeof(result.text) - 1; i++) {
		unsigned char c = (unsigned char)err->msg[i];

		result.text[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
	}
	do
		n = write(UNPACK_RESULT_FD, &result, sizeof(result));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(result) ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct request r = {0};
	struct layer_counts counts = {0};
	struct sbx_err err = {0};
	int rc = parse(argc, argv, &r);

	if (rc != 0)
		return rc;
	if (check_inherited(&r, &err) < 0) {
		fprintf(stderr, "sandbox-unpack: %s\n", err.msg);
		return 2;
	}
	if (work(&r, &counts, &err) < 0 && err.code == SBX_E_NONE)
		err.code = SBX_E_SYSTEM;
	if (report(&counts, &err) < 0)
		return 1;
	return err.code ? 1 : 0;
}
