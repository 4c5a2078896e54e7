// SPDX-License-Identifier: Apache-2.0
/*
 * The seal of a layer as a hostile unpacker could have written it, beside a small tree.  The digest at the end is made here, or nothing
 * would get past it.
 */
#include "base/cleanup.h"
#include "images/digest.h"
#include "images/tree_seal.h"

#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int tree_fd = -1;
static char place[] = "/tmp/fuzz_seal.XXXXXX";

static void remove_tree(void)
{
	ignore_result(unlinkat(tree_fd, "d/f", 0) < 0); /* a leftover in /tmp is all that it would be */
	ignore_result(unlinkat(tree_fd, "d", AT_REMOVEDIR) < 0);
	ignore_result(rmdir(place) < 0);
}

static void make_tree(void)
{
	assert(mkdtemp(place));
	tree_fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert(tree_fd >= 0 && mkdirat(tree_fd, "d", 0755) == 0);
	auto_fd fd = openat(tree_fd, "d/f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert(fd >= 0 && write(fd, "x", 1) == 1);
	atexit(remove_tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seal_tail tail = {.path_n = SEAL_TAIL};
	char difference[SEAL_TEXT_BYTES];
	struct seal_counts counts;
	struct sbx_err err = {0};
	auto_fd seal = memfd_create("seal", MFD_CLOEXEC);

	if (tree_fd < 0)
		make_tree();
	assert(digest_bytes(data, size, tail.digest, &err) == 0);
	assert(write(seal, data, size) == (ssize_t)size && write(seal, &tail, sizeof(tail)) == sizeof(tail) && lseek(seal, 0, SEEK_SET) == 0);
	int rc = tree_seal_compare(tree_fd, seal, 100, false, &counts, difference, &err);
	assert(rc == 0 || err.code == SBX_E_IMAGE_INVALID);
	assert(memchr(difference, 0, sizeof(difference)));
	/* the tree's times are of now: no input can know them */
	assert(rc < 0 || *difference);
	return 0;
}
