// SPDX-License-Identifier: Apache-2.0
#include "images/export_stream.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAR_BLOCK   512u
#define COPY_BYTES  (256u * 1024)
#define END_BLOCKS  2u
#define OCTAL_SIZES (1ull << 33) /* eleven octal digits */

/* POSIX.1-1988 tar, as every reader takes it; sizes beyond 8 GiB in base 256. */
struct tar_head {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6], version[2], owner[32],
		group[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct tar_head) == TAR_BLOCK, "a tar head is one block");

uint64_t export_row_bytes(const struct export_row *row)
{
	return TAR_BLOCK + (row->size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
}

uint64_t export_stream_bytes(const struct export_row *rows, size_t n)
{
	uint64_t bytes = (uint64_t)END_BLOCKS * TAR_BLOCK;

	for (size_t i = 0; i < n; i++)
		bytes += export_row_bytes(&rows[i]);
	return bytes;
}

static unsigned patience_s;

/* Who does not read holds one of few places: with SIGALRM this process ends, and the answer is cut off. */
static int put(const void *data, size_t n)
{
	alarm(patience_s);
	int r = path_write_all(STDOUT_FILENO, data, n);
	alarm(0);
	return r;
}

static int put_head(const struct export_row *row)
{
	bool directory = row->source == EXPORT_DIRECTORY;
	struct tar_head h = {.type = directory ? '5' : '0', .magic = "ustar", .version = {'0', '0'}};
	unsigned sum = 0;

	memcpy(h.name, row->name, strnlen(row->name, sizeof(row->name)));
	memcpy(h.mode, directory ? "0000755" : "0000644", sizeof(h.mode));
	memcpy(h.uid, "0000000", sizeof(h.uid));
	memcpy(h.gid, "0000000", sizeof(h.gid));
	memcpy(h.mtime, "00000000000", sizeof(h.mtime));
	if (row->size < OCTAL_SIZES) {
		snprintf(h.size, sizeof(h.size), "%011llo", (unsigned long long)row->size);
	} else {
		h.size[0] = (char)0x80;
		for (unsigned i = 0; i < 8; i++)
			h.size[11 - i] = (char)(row->size >> (8 * i));
	}
	memset(h.checksum, ' ', sizeof(h.checksum));
	for (size_t i = 0; i < sizeof(h); i++)
		sum += ((const unsigned char *)&h)[i];
	snprintf(h.checksum, sizeof(h.checksum), "%06o", sum);
	return put(&h, sizeof(h));
}

static int read_at(int fd, void *out, size_t n, uint64_t offset)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = pread(fd, (char *)out + done, n - done, (off_t)(offset + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -ENODATA;
		done += (size_t)r;
	}
	return 0;
}

static int put_content(const struct export_row *row, int fd, char *block, struct sbx_err *err)
{
	static const char zeros[TAR_BLOCK];
	uint8_t is[DIGEST_BYTES];
	struct digest *d = digest_new(err);
	int r = 0;

	if (!d)
		return -1;
	for (uint64_t done = 0; r == 0 && done < row->size;) {
		size_t part = row->size - done < COPY_BYTES ? (size_t)(row->size - done) : COPY_BYTES;

		r = read_at(fd, block, part, row->offset + done);
		if (r == 0 && digest_update(d, block, part, err) < 0) {
			digest_free(d);
			return -1;
		}
		if (r == 0 && FAULT_POINT("export-bytes"))
			r = -EIO;
		if (r == 0)
			r = put(block, part);
		done += part;
	}
	if (r == 0 && row->size % TAR_BLOCK)
		r = put(zeros, TAR_BLOCK - row->size % TAR_BLOCK);
	int finished = digest_finish(d, is, err);
	digest_free(d);
	if (r < 0)
		return sbx_err_set(err, r == -EPIPE ? SBX_E_PEER_GONE : SBX_E_SYSTEM, -r, "%s", row->name);
	if (finished < 0)
		return -1;
	if (memcmp(is, row->digest, sizeof(is)) != 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "%s: its bytes have changed", row->name);
	return 0;
}

static int put_row(const struct export_row *row, char *block, struct sbx_err *err)
{
	char path[sizeof("sha256/") + 2 * DIGEST_BYTES];
	auto_fd blob = -1;
	int fd = -1, r = put_head(row);

	if (r < 0)
		return sbx_err_set(err, r == -EPIPE ? SBX_E_PEER_GONE : SBX_E_SYSTEM, -r, "%s", row->name);
	switch ((enum export_source)row->source) {
	case EXPORT_PLAN:
		fd = STDIN_FILENO;
		break;
	case EXPORT_SPOOL:
		fd = EXPORT_FD_SPOOL;
		break;
	case EXPORT_BLOB:
		memcpy(path, "sha256/", sizeof("sha256/"));
		hex_encode(row->digest, DIGEST_BYTES, path + sizeof("sha256/") - 1);
		blob = openat(EXPORT_FD_BLOBS, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (blob < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", row->name);
		fd = blob;
		break;
	case EXPORT_DIRECTORY:
	default:
		return 0;
	}
	return put_content(row, fd, block, err);
}

static int stream(struct sbx_err *err)
{
	static const char end[END_BLOCKS * TAR_BLOCK];
	struct export_plan_head head;
	auto_free char *block = malloc(COPY_BYTES);
	auto_free struct export_row *rows = calloc(EXPORT_ROWS_MAX, sizeof(*rows));

	if (!block || !rows)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "export");
	if (read_at(STDIN_FILENO, &head, sizeof(head), 0) < 0 || head.magic != EXPORT_PLAN_MAGIC || head.n > EXPORT_ROWS_MAX ||
	    read_at(STDIN_FILENO, rows, head.n * sizeof(*rows), sizeof(head)) < 0)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the plan of an export");
	for (uint32_t i = 0; i < head.n; i++)
		if (put_row(&rows[i], block, err) < 0)
			return -1;
	int r = put(end, sizeof(end));
	return r < 0 ? sbx_err_set(err, r == -EPIPE ? SBX_E_PEER_GONE : SBX_E_SYSTEM, -r, "the end") : 0;
}

int export_stream_main(const char *stall_seconds)
{
	uint64_t seconds = 0;
	struct sbx_err err = {0};
	sigset_t alarms;

	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	if (signal(SIGALRM, SIG_DFL) == SIG_ERR || sigprocmask(SIG_UNBLOCK, &alarms, NULL) < 0) {
		log_error("export: SIGALRM: %s", strerrordesc_np(errno));
		return 1;
	}
	if (num_u64(stall_seconds, strlen(stall_seconds), INT32_MAX, &seconds) < 0 || !seconds)
		return 2;
	patience_s = (unsigned)seconds;
	if (stream(&err) == 0)
		return 0;
	if (err.code != SBX_E_PEER_GONE)
		log_error("export: %s", err.msg);
	return 1;
}
