// SPDX-License-Identifier: Apache-2.0
/* DOC: the child of sandboxd that hashes what is in the blob store: blob_verify_main() of blob_store.h */
#include "images/blob_store.h"

#include "base/cleanup.h"
#include "base/num.h"
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_BYTES (1024u * 1024)
#define NICE	   10

static int report(struct blob_verdict *verdict)
{
	ssize_t n;

	verdict->magic = BLOB_VERDICT_MAGIC;
	do
		n = write(BLOB_FD_REPORT, verdict, sizeof(*verdict));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(*verdict) ? 0 : -EPIPE;
}

static int hash_file(int fd, uint8_t is[DIGEST_BYTES], uint64_t *ret_bytes, struct sbx_err *err)
{
	struct digest *d = digest_new(err);
	ssize_t n = d ? 1 : -1;

	while (n > 0) {
		n = digest_step(d, fd, STEP_BYTES, err);
		*ret_bytes += n > 0 ? (uint64_t)n : 0;
	}
	int rc = n < 0 ? -1 : digest_finish(d, is, err);
	digest_free(d);
	return rc;
}

static void judge(int dir_fd, struct blob_verdict *v)
{
	uint8_t is[DIGEST_BYTES];
	struct sbx_err err = {0};
	struct stat st;
	auto_fd fd = openat(dir_fd, v->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool named = strlen(v->name) == 2 * DIGEST_BYTES && hex_decode(v->name, v->digest, sizeof(v->digest)) == 0;

	v->kind = BLOB_VERDICT_GOOD;
	if (fd < 0 && errno == ENOENT)
		return; /* removed meanwhile */
	if (!named || fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		v->kind = BLOB_VERDICT_STRAY;
	else if (hash_file(fd, is, &v->bytes, &err) < 0)
		v->kind = BLOB_VERDICT_UNREADABLE;
	else if (memcmp(is, v->digest, sizeof(is)) != 0)
		v->kind = BLOB_VERDICT_WRONG;
}

int blob_verify_main(void)
{
	struct blob_verdict end = {.kind = BLOB_VERDICT_END};
	auto_fd complete = openat(BLOB_FD_DIR, "sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_dir dir = complete < 0 ? NULL : path_dir(complete);

	/* it only reads and hashes; what it needs is open */
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	ignore_result(setpriority(PRIO_PROCESS, 0, NICE) < 0);
	if (!dir)
		return 1;
	for (struct dirent *e; (e = readdir(dir));) {
		struct blob_verdict v = {0};

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(v.name, sizeof(v.name), "%.*s", (int)sizeof(v.name) - 1, e->d_name);
		judge(complete, &v);
		if (report(&v) < 0)
			return 1;
	}
	return report(&end) < 0 ? 1 : 0;
}
