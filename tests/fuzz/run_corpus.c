// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: runs one fuzz target over every file of its corpus and prints TAP, so that the corpus is an ordinary test and
 * needs no fuzzing engine.  Argument: the corpus directory, or $srcdir/tests/fuzz/corpus/<program name without fuzz_>.
 */
/* With an engine (tests/fuzz/run.sh) main() is the engine's. */
#ifndef SBX_FUZZERS
#include "tests/tap.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(int dir_fd, const char *name)
{
	struct stat st;
	auto_fd fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	/* an exact allocation, so that ASan sees one byte too far */
	auto_free uint8_t *data = malloc((size_t)st.st_size + !st.st_size);
	if (!data || read(fd, data, (size_t)st.st_size) != st.st_size)
		return -1;
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	ok(true, "corpus %s", name);
	return 1;
}

int main(int argc, char **argv)
{
	char path[4096];
	const char *srcdir = getenv("srcdir");
	const char *stem = strstr(argv[0], "fuzz_");
	int files = 0;

	if (argc > 1)
		snprintf(path, sizeof(path), "%s", argv[1]);
	else
		snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".", stem ? stem + 5 : "none");
	auto_dir dir = opendir(path);
	if (dir)
		for (struct dirent *e; (e = readdir(dir));)
			if (e->d_name[0] != '.')
				files += run_file(dirfd(dir), e->d_name) > 0;
	ok(files > 0, "%s holds inputs", path);
	return tap_done();
}
#endif
