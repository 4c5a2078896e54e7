// SPDX-License-Identifier: Apache-2.0
/* Seals of layers: digests of contents however they come, and what a comparison tells.  tests/system/images_fsck.sh has the rest. */
#include "config.h"

#include "tests/tap.h"

#include "base/cleanup.h"
#include "images/dir_names.h"
#include "images/seal_content.h"
#include "images/tree_seal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE	(300u * 1024 + 17)
#define ENTRIES 1000u

static uint8_t content[SIZE];

/* One file of SIZE bytes with holes, as pieces of @piece bytes; zeros are given when @zeros is set. */
static bool digest_in_pieces(struct seal_content *c, size_t piece, bool zeros, uint8_t out[DIGEST_BYTES])
{
	struct sbx_err err = {0};

	if (seal_content_begin(c, &err) < 0)
		return false;
	for (size_t at = 0; at < SIZE; at += piece) {
		size_t n = SIZE - at < piece ? SIZE - at : piece;
		bool empty = true;

		for (size_t i = 0; i < n; i++)
			empty &= !content[at + i];
		if ((!empty || zeros) && seal_content_add(c, at, content + at, n, &err) < 0)
			return false;
	}
	return seal_content_end(c, SIZE, out, &err) == 0;
}

static void test_content(void)
{
	static const size_t pieces[] = {1, 7, 512, 4096, 10240, 65536, 65537, 131072, SIZE};
	struct sbx_err err = {0};
	struct seal_content *c = seal_content_new(&err);
	uint8_t first[DIGEST_BYTES], is[DIGEST_BYTES];
	uint64_t bytes = 0;

	if (!ok(c, "made"))
		return;
	for (size_t i = 0; i < SIZE; i++)
		content[i] = i < 70000 || (i > 200000 && i < 200100) ? (uint8_t)(i * 31 + i / 256) : 0;
	content[SIZE - 1] = 1;
	ok(digest_in_pieces(c, SIZE, true, first), "in one piece");
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		ok(digest_in_pieces(c, pieces[i], true, is) && !memcmp(is, first, sizeof(is)), "in pieces of %zu", pieces[i]);
		ok(digest_in_pieces(c, pieces[i], false, is) && !memcmp(is, first, sizeof(is)), "without the zeros of %zu", pieces[i]);
	}
	auto_fd fd = memfd_create("content", MFD_CLOEXEC);
	ok(ftruncate(fd, SIZE) == 0 && pwrite(fd, content, 70000, 0) == 70000 && pwrite(fd, content + 200001, 99, 200001) == 99 &&
	   pwrite(fd, content + SIZE - 1, 1, SIZE - 1) == 1, "a file with holes");
	ok(seal_content_read(c, fd, SIZE, is, &bytes, &err) == 0 && !memcmp(is, first, sizeof(is)), "is the same when it is read");
	ok(bytes > 70000 && bytes <= SIZE, "%llu bytes were", (unsigned long long)bytes);
	content[200050] ^= 1;
	ok(digest_in_pieces(c, 4096, true, is) && memcmp(is, first, sizeof(is)) != 0, "one bit is another digest");
	content[200050] ^= 1;
	memmove(content + 65536 * 2, content, 65536);
	memset(content, 0, 65536);
	ok(digest_in_pieces(c, 4096, true, is) && memcmp(is, first, sizeof(is)) != 0, "a block at another place is another digest");
	ok(seal_content_begin(c, &err) == 0 && seal_content_add(c, 100, "ab", 2, &err) == 0 && seal_content_add(c, 101, "c", 1, &err) < 0,
	   "content that goes backwards is refused");
	seal_content_free(c);
}

static void test_list(void)
{
	struct sbx_err err = {0};
	struct seal_list *list = seal_list_new(&err);
	struct seal_known known = {0};
	unsigned wrong = 0;

	if (!ok(list, "list"))
		return;
	for (uint64_t i = 1; i <= 20000; i++) {
		known.inode = i * 4096;
		memcpy(known.digest, &i, sizeof(i));
		seal_list_put(list, &known);
	}
	for (uint64_t i = 1; i <= 20000; i++) {
		const struct seal_known *found = seal_list_find(list, i * 4096);
		wrong += !found || memcmp(found->digest, &i, sizeof(i)) != 0;
	}
	is_int(wrong, 0, "20,000 inodes are found again");
	known = (struct seal_known){.inode = 4096, .plain = true};
	seal_list_put(list, &known);
	const struct seal_known *found = seal_list_find(list, 4096);
	ok(found && found->plain && !found->digest[0], "a number that is taken again stands for the new file");
	ok(!seal_list_find(list, 1) && !seal_list_find(list, 0), "others are not there");
	known.inode = 0;
	seal_list_put(list, &known);
	ok(!seal_list_find(list, 0), "no inode is none");
	seal_list_free(list);
}

/* ---- trees ---- */

static char place[] = "/tmp/test_seal.XXXXXX";

/* Return: exit code of a shell in the directory @in, or -1 */
static int shell_in(const char *in, const char *what)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		if (chdir(in) < 0 || !freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(126);
		execl("/bin/sh", "sh", "-c", what, (char *)NULL);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int shell(const char *what)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/tree", place);
	return shell_in(path, what);
}

static int open_tree(void)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/tree", place);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int make_seal(void)
{
	struct sbx_err err = {0};
	auto_fd tree = open_tree();
	auto_fd fd = memfd_create("seal", MFD_CLOEXEC);

	if (tree_seal_write(tree, NULL, ENTRIES, fd, &err) == 0)
		return take_fd(&fd);
	printf("# %s\n", err.msg);
	return -1;
}

static int compare(int seal, char difference[SEAL_TEXT_BYTES], struct sbx_err *err)
{
	struct seal_counts counts;
	auto_fd tree = open_tree();

	return lseek(seal, 0, SEEK_SET) < 0 ? -1 : tree_seal_compare(tree, seal, ENTRIES, false, &counts, difference, err);
}

/* @how: for messages */
static void check_rows(int seal, const char *how)
{
	static const struct {
		const char *why, *change, *told, *undo;
	} rows[] = {
		{"nothing", "true", "", "true"},
		{"a name at the end", "touch zz", "\"zz\": was not in the layer", "rm zz"},
		{"a name in front", "touch -- +", "\"+\": was not in the layer", "rm -- +"},
		{"a name that sorts before a slash", "touch d+", "\"d+\": was not in the layer", "rm d+"},
		{"a deep name", "touch d/e/x", "\"d/e/x\": was not in the layer", "rm d/e/x"},
		{"the last name gone", "mv z ../z", "\"z\": is gone", "mv ../z z"},
		{"a directory gone", "mv d ../d", "\"d\": is gone", "mv ../d d"},
		{"mode of the root", "chmod 711 .", "\"/\": mode 0711, was 0755", "chmod 755 ."},
		{"sticky", "chmod 1755 d", "\"d\": mode 1755, was 0755", "chmod 755 d"},
		{"one more name of a file", "ln z y", "\"y\": was not in the layer", "rm y"},
		{"empty becomes zeros", "truncate -s 1 empty", "\"empty\": size 1, was 0", "truncate -s 0 empty; touch -d @7 empty"},
		{"zeros become a hole", "cp -p zeros ../keep && truncate -s 0 zeros && truncate -s 200000 zeros && touch -r ../keep zeros", "", "true"},
		{"a time", "touch -d @5.000000001 z", "\"z\": its time of modification is another", "touch -d @7.000000009 z"},
	};
	char difference[SEAL_TEXT_BYTES];
	struct sbx_err err = {0};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ok(shell(rows[i].change) == 0, "%s%s", rows[i].why, how);
		ok(compare(seal, difference, &err) == 0, "%s%s: compared", rows[i].why, how);
		/* making and undoing a name leaves the directory's time */
		bool later = !*rows[i].told && strstr(difference, "time of modification");
		ok(later || (!*rows[i].told ? !*difference : !strncmp(difference, rows[i].told, strlen(rows[i].told))), "%s%s: \"%s\"", rows[i].why, how, difference);
		ok(shell(rows[i].undo) == 0, "%s%s: undone", rows[i].why, how);
	}
}

#ifdef SBX_FAULT_POINTS
static bool same_bytes(int a, int b)
{
	static char one[SIZE], other[SIZE];
	ssize_t n = pread(a, one, sizeof(one), 0);

	return n > 0 && (size_t)n < sizeof(one) && pread(b, other, sizeof(other), 0) == n && !memcmp(one, other, (size_t)n);
}
#endif

static void test_trees(void)
{
	const char *made = "umask 022; chmod 755 .; mkdir -p d/e; echo a >d.e; echo b >d/e/f; echo c >z; ln d/e/f d/g; ln -s z link; mkfifo fifo;"
			   "touch -d @7 empty; dd if=/dev/zero of=zeros bs=1000 count=200; touch -d @7.000000009 z";
	char path[64];

	bool is_made = mkdtemp(place);
	snprintf(path, sizeof(path), "%s/tree", place);
	if (!ok(is_made && mkdir(path, 0755) == 0 && shell(made) == 0, "a tree"))
		return;
	auto_fd seal = make_seal();
	ok(seal >= 0, "its seal");
	check_rows(seal, "");
#ifdef SBX_FAULT_POINTS
	auto_fd whole = make_seal();
	setenv("SBX_FAULT", "dir-names-part:fail", 1);
	auto_fd parts = make_seal();
	ok(same_bytes(parts, whole), "directories that are read in parts of four names: the same seal");
	check_rows(parts, ", in parts");
	unsetenv("SBX_FAULT");
#else
	tap_skip("directories that are read in parts", "no fault points");
#endif
}

/* All names of a directory, in parts of whatever size, are those of one reading. */
static void test_parts(void)
{
	static const size_t sizes[] = {1, 25, 100, 1000, 30000, DIR_NAMES_MAX_BYTES};
	struct sbx_err err = {0};
	struct dir_name *all = NULL;
	size_t n = 0;

	ok(shell("mkdir ../names && cd ../names && i=0 && while [ $i -lt 700 ]; do i=$((i + 1)); : >$((i * 7919 % 1009)).$i; done") == 0, "a directory of 700 names");
	char path[64];
	snprintf(path, sizeof(path), "%s/names", place);
	auto_fd dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok(dir_names_read(dir, "", 699, &all, &n, &err) < 0 && err.code == SBX_E_LIMIT, "699 of them at most: %s", err.msg);
	if (!ok(dir_names_read(dir, "", 700, &all, &n, &err) == 0 && n == 700, "read whole"))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct dir_names_part part = {.more = true};
		size_t at = 0, n_parts = 0;
		bool same = true;
		char after[256] = "";

		while (part.more && same) {
			same = dir_names_part(dir, "", at ? after : NULL, sizes[i], &part, &err) == 0 && part.n > 0 && at + part.n <= n;
			for (size_t k = 0; same && k < part.n; k++)
				same = !strcmp(part.names[k].text, all[at + k].text);
			if (!same)
				break;
			at += part.n;
			n_parts++;
			snprintf(after, sizeof(after), "%s", part.names[part.n - 1].text);
			dir_names_free(part.names, part.n);
		}
		ok(same && at == n && (n_parts == 1) == (sizes[i] >= 30000), "in %zu parts of %zu bytes: the same", n_parts, sizes[i]);
	}
	dir_names_free(all, n);
}

/* The seal itself: cut at each length, changed at each byte, and with a good tail behind nonsense. */
static void test_damage(void)
{
	char difference[SEAL_TEXT_BYTES];
	unsigned passed = 0, other = 0, n = 0;
	struct stat st;
	auto_fd seal = make_seal();

	if (!ok(seal >= 0 && fstat(seal, &st) == 0 && st.st_size > 1000, "a seal"))
		return;
	size_t size = (size_t)st.st_size;
	auto_free char *whole = malloc(size);
	if (!whole || pread(seal, whole, size, 0) != (ssize_t)size)
		return;
	for (size_t at = 0; at < size; at += at < 200 || at > size - 60 ? 1 : 13, n++) {
		struct sbx_err err = {0};
		auto_fd bad = memfd_create("bad", MFD_CLOEXEC);
		char byte = (char)(whole[at] ^ 0x40);

		if (write(bad, whole, size) != (ssize_t)size || pwrite(bad, &byte, 1, (off_t)at) != 1)
			break;
		passed += compare(bad, difference, &err) == 0;
		other += err.code != SBX_E_IMAGE_INVALID;
		err = (struct sbx_err){0};
		if (ftruncate(bad, (off_t)at) < 0)
			break;
		passed += compare(bad, difference, &err) == 0;
		other += err.code != SBX_E_IMAGE_INVALID;
	}
	ok(n > 200 && !passed && !other, "%u damaged ones: %u pass, %u are told as something else", n, passed, other);
	struct sbx_err err = {0};
	ok(compare(seal, difference, &err) == 0 && !*difference, "the whole one is good: \"%s\"", difference);
}

int main(void)
{
	char command[96];

	test_content();
	test_list();
	test_trees();
	test_parts();
	test_damage();
	snprintf(command, sizeof(command), "rm -rf %s", place);
	ok(shell_in("/", command) == 0, "nothing is left");
	return tap_done();
}
