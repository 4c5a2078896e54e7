// SPDX-License-Identifier: Apache-2.0
/* DOC: the child of sandboxd that takes one blob in: blob_receive_main() of blob_store.h */
#include "images/blob_store.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/num.h"
#include "base/path.h"
#include "base/wallclock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES	(256u * 1024)
#define PROGRESS_MS	100u
#define NAME_SIZE	(sizeof("partial/") + 2 * DIGEST_BYTES)

struct receiving {
	uint8_t want[DIGEST_BYTES];
	uint64_t size;
	uint64_t done;
	uint64_t offset; /* in a file that holds more than the blob */
	bool from_file;
	char partial[NAME_SIZE], complete[NAME_SIZE];
	int fd;
	struct digest *digest;
	uint64_t told_mono_ms;
};

static int report(const struct receiving *r, enum blob_report_kind kind, const struct sbx_err *err)
{
	struct blob_report message = {.magic = BLOB_REPORT_MAGIC, .kind = kind, .bytes = r->done};
	ssize_t n;

	if (err) {
		message.status = (uint32_t)err->code;
		message.sys = (uint32_t)err->sys;
		snprintf(message.text, sizeof(message.text), "%.*s", (int)sizeof(message.text) - 1, err->msg);
	}
	do
		n = write(BLOB_FD_REPORT, &message, sizeof(message));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(message) ? 0 : -EPIPE;
}

static int open_partial(struct receiving *r, struct sbx_err *err)
{
	struct stat st;

	for (;;) {
		struct stat named;

		replace_fd(&r->fd, openat(BLOB_FD_DIR, r->partial, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
		/* a child of a sandboxd that was killed may still be taking in what its pipe holds: that is over soon */
		if (r->fd < 0 || flock(r->fd, LOCK_EX) < 0 || fstat(r->fd, &st) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "open a partial blob");
		if (fstatat(BLOB_FD_DIR, r->partial, &named, AT_SYMLINK_NOFOLLOW) == 0 && named.st_ino == st.st_ino)
			break;
		/* it was published or thrown away while we waited for the lock */
	}
	/* more than the whole is no prefix of it */
	if ((uint64_t)st.st_size > r->size && ftruncate(r->fd, 0) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "partial blob");
	for (ssize_t n = 1; n > 0; r->done += (uint64_t)n) {
		n = digest_step(r->digest, r->fd, BLOCK_BYTES, err);
		if (n < 0)
			return -1;
	}
	return 0;
}

static int take(struct receiving *r, const char *data, size_t n, struct sbx_err *err)
{
	if (n > r->size - r->done)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "more bytes came than the %llu of its descriptor",
				   (unsigned long long)r->size);
	if (digest_update(r->digest, data, n, err) < 0)
		return -1;
	int w = path_write_all(r->fd, data, n);
	if (w < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -w, "write a blob");
	r->done += n;
	if (FAULT_POINT("blob-bytes"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	uint64_t now = mono_ms();
	if (now - r->told_mono_ms < PROGRESS_MS)
		return 0;
	r->told_mono_ms = now;
	/* nobody listens: the pull was given up; what came is kept for the next one */
	return report(r, BLOB_REPORT_PROGRESS, NULL) < 0 ? sbx_err_set(err, SBX_E_PEER_GONE, 0, "given up") : 0;
}

static int receive_all(struct receiving *r, struct sbx_err *err)
{
	auto_free char *block = malloc(BLOCK_BYTES);

	if (!block)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "blob");
	for (;;) {
		size_t most = BLOCK_BYTES;

		if (r->from_file && r->size - r->done < most)
			most = (size_t)(r->size - r->done); /* what is behind it is something else */
		if (!most)
			break;
		ssize_t n = read(STDIN_FILENO, block, most);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "read a blob");
		if (n == 0)
			break;
		if (take(r, block, (size_t)n, err) < 0)
			return -1;
	}
	if (r->done < r->size)
		return sbx_err_set(err, SBX_E_PEER_GONE, 0, "%llu of %llu bytes came", (unsigned long long)r->done,
				   (unsigned long long)r->size);
	return 0;
}

static int publish(struct receiving *r, struct sbx_err *err)
{
	uint8_t is[DIGEST_BYTES];

	if (digest_finish(r->digest, is, err) < 0)
		return -1;
	if (memcmp(is, r->want, sizeof(is)) != 0) {
		char text[DIGEST_TEXT_SIZE];

		digest_format(is, text);
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the bytes that came have the digest %s", text);
	}
	auto_fd complete_dir = openat(BLOB_FD_DIR, "sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (complete_dir < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "blob store");
	if (FAULT_POINT("blob-verified") || fsync(r->fd) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "sync a blob");
	/* what has that name may be another's by now, who has not checked it: a failed import takes parts away */
	struct stat own, named;
	if (fstat(r->fd, &own) < 0 || fstatat(BLOB_FD_DIR, r->partial, &named, AT_SYMLINK_NOFOLLOW) < 0 || own.st_ino != named.st_ino ||
	    own.st_dev != named.st_dev)
		return sbx_err_set(err, SBX_E_PEER_GONE, 0, "a part of a blob was taken away while it came");
	if (FAULT_POINT("blob-synced") || fchmod(r->fd, 0400) < 0 || renameat(BLOB_FD_DIR, r->partial, BLOB_FD_DIR, r->complete) < 0 ||
	    FAULT_POINT("blob-named") || fsync(complete_dir) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "publish a blob");
	return 0;
}

/* Somebody else may have brought it meanwhile. */
static bool is_complete(struct receiving *r)
{
	struct stat st;

	if (fstatat(BLOB_FD_DIR, r->complete, &st, AT_SYMLINK_NOFOLLOW) < 0 || (uint64_t)st.st_size != r->size)
		return false;
	r->done = r->size;
	return true;
}

/* Several children may read one archive at once: each needs an offset of its own. */
static int reopen(const struct receiving *r, struct sbx_err *err)
{
	auto_fd own = open("/proc/self/fd/0", O_RDONLY | O_CLOEXEC);

	if (own < 0 || dup2(own, STDIN_FILENO) < 0 || lseek(STDIN_FILENO, (off_t)(r->offset + r->done), SEEK_SET) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open the file that holds a blob");
	return 0;
}

static int work(struct receiving *r, struct sbx_err *err)
{
	struct stat in;

	if (is_complete(r))
		return report(r, BLOB_REPORT_HAVE, NULL) < 0 ? sbx_err_set(err, SBX_E_PEER_GONE, 0, "given up") : 0;
	r->digest = digest_new(err);
	if (!r->digest || open_partial(r, err) < 0)
		return -1;
	if (report(r, BLOB_REPORT_HAVE, NULL) < 0)
		return sbx_err_set(err, SBX_E_PEER_GONE, 0, "given up");
	r->from_file = fstat(STDIN_FILENO, &in) == 0 && S_ISREG(in.st_mode);
	if (r->from_file && reopen(r, err) < 0)
		return -1;
	r->told_mono_ms = mono_ms();
	int rc = receive_all(r, err);
	if (rc == 0)
		rc = publish(r, err);
	/* what cannot become the blob by more bytes must not be continued */
	if (rc < 0 && err->code == SBX_E_IMAGE_INVALID)
		ignore_result(unlinkat(BLOB_FD_DIR, r->partial, 0) < 0); /* the next one hashes it and finds out */
	return rc;
}

int blob_receive_main(int argc, char **argv)
{
	struct receiving r = {.fd = -1};
	struct sbx_err err = {0};
	char hex[2 * DIGEST_BYTES + 1];

	signal(SIGPIPE, SIG_IGN);
	if (argc < 2 || argc > 3 || (argc == 3 && num_u64(argv[2], strlen(argv[2]), INT64_MAX / 2, &r.offset) < 0) ||
	    digest_parse(argv[0], strlen(argv[0]), r.want) < 0 ||
	    num_u64(argv[1], strlen(argv[1]), INT64_MAX, &r.size) < 0)
		return 2;
	hex_encode(r.want, DIGEST_BYTES, hex);
	snprintf(r.partial, sizeof(r.partial), "partial/%s", hex);
	snprintf(r.complete, sizeof(r.complete), "sha256/%s", hex);
	int rc = work(&r, &err);
	ignore_result(report(&r, BLOB_REPORT_END, rc < 0 ? &err : NULL) < 0); /* nobody may be left to hear it */
	digest_free(r.digest);
	close_keep_errno(r.fd);
	return rc < 0 ? 1 : 0;
}
