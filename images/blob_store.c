// SPDX-License-Identifier: Apache-2.0
#include "images/blob_store.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEX_SIZE (2 * DIGEST_BYTES + 1)

struct blob_store {
	int dir_fd;
	int complete_fd;
	int partial_fd;
};

static int open_folder(int at, const char *name, int *ret, struct sbx_err *err)
{
	if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "blob store: make %s", name);
	*ret = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return *ret < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "blob store: open %s", name) : 0;
}

struct blob_store *blob_store_open(int state_dir_fd, struct sbx_err *err)
{
	struct blob_store *store = calloc(1, sizeof(*store));

	if (!store) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "blob store");
		return NULL;
	}
	*store = (struct blob_store){.dir_fd = -1, .complete_fd = -1, .partial_fd = -1};
	if (open_folder(state_dir_fd, "blobs", &store->dir_fd, err) < 0 ||
	    open_folder(store->dir_fd, "sha256", &store->complete_fd, err) < 0 ||
	    open_folder(store->dir_fd, "partial", &store->partial_fd, err) < 0) {
		blob_store_close(store);
		return NULL;
	}
	return store;
}

void blob_store_close(struct blob_store *store)
{
	if (!store)
		return;
	close_keep_errno(store->partial_fd);
	close_keep_errno(store->complete_fd);
	close_keep_errno(store->dir_fd);
	free(store);
}

int blob_store_dir(const struct blob_store *store)
{
	return store->dir_fd;
}

int blob_store_size(const struct blob_store *store, const uint8_t digest[DIGEST_BYTES], uint64_t *ret)
{
	char name[HEX_SIZE];
	struct stat st;

	hex_encode(digest, DIGEST_BYTES, name);
	if (fstatat(store->complete_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < 0)
		return -ENOENT;
	if (ret)
		*ret = (uint64_t)st.st_size;
	return 0;
}

int blob_store_get(const struct blob_store *store, const uint8_t digest[DIGEST_BYTES])
{
	char name[HEX_SIZE];

	hex_encode(digest, DIGEST_BYTES, name);
	int fd = openat(store->complete_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int blob_store_read(const struct blob_store *store, const uint8_t digest[DIGEST_BYTES], size_t max, char **ret_data,
		    size_t *ret_len, struct sbx_err *err)
{
	uint64_t size = 0;
	size_t done = 0;
	auto_fd fd = blob_store_get(store, digest);
	int r = fd < 0 ? fd : blob_store_size(store, digest, &size);

	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "open a blob");
	if (size > max)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "a blob of %llu bytes, %zu are the bound", (unsigned long long)size, max);
	auto_free char *data = malloc((size_t)size + 1);
	if (!data)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "blob");
	while (done < size) {
		ssize_t n = read(fd, data + done, (size_t)size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? errno : EIO, "read a blob");
		done += (size_t)n;
	}
	data[done] = '\0';
	*ret_data = take_ptr(data);
	*ret_len = done;
	return 0;
}

int blob_store_remove(struct blob_store *store, const uint8_t digest[DIGEST_BYTES])
{
	char name[HEX_SIZE];

	hex_encode(digest, DIGEST_BYTES, name);
	return unlinkat(store->complete_fd, name, 0) < 0 ? -errno : 0;
}

void blob_store_forget(struct blob_store *store, const uint8_t digest[DIGEST_BYTES])
{
	char name[HEX_SIZE];

	hex_encode(digest, DIGEST_BYTES, name);
	if ((unlinkat(store->complete_fd, name, 0) < 0 && errno != ENOENT) || (unlinkat(store->partial_fd, name, 0) < 0 && errno != ENOENT))
		log_warn("blob %.12s is left for a collection: %s", name, strerror(errno));
}

int blob_store_remove_stray(struct blob_store *store, const char *name)
{
	if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	if (unlinkat(store->complete_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	return unlinkat(store->complete_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int blob_store_each(const struct blob_store *store,
		    void (*each)(void *arg, const uint8_t digest[DIGEST_BYTES], uint64_t bytes, int64_t used_wall_s), void *arg)
{
	auto_dir dir = path_dir(store->complete_fd);

	if (!dir)
		return -errno;
	for (struct dirent *e; (e = readdir(dir));) {
		uint8_t digest[DIGEST_BYTES];
		struct stat st;

		if (strlen(e->d_name) != HEX_SIZE - 1 || hex_decode(e->d_name, digest, sizeof(digest)) < 0)
			continue;
		if (fstatat(store->complete_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			each(arg, digest, (uint64_t)st.st_size, st.st_mtime);
	}
	return 0;
}

int blob_store_partial_bytes(const struct blob_store *store, uint64_t *ret)
{
	auto_dir dir = path_dir(store->partial_fd);

	*ret = 0;
	if (!dir)
		return -errno;
	for (struct dirent *e; (e = readdir(dir));) {
		struct stat st;

		if (e->d_name[0] != '.' && fstatat(store->partial_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			*ret += (uint64_t)st.st_size;
	}
	return 0;
}

int blob_store_sweep_partial(struct blob_store *store, int64_t older_than_s, bool dry_run, uint64_t *ret_bytes)
{
	auto_dir dir = path_dir(store->partial_fd);
	struct timespec now;
	int n = 0;

	if (ret_bytes)
		*ret_bytes = 0;
	if (!dir)
		return -errno;
	clock_gettime(CLOCK_REALTIME, &now);
	for (struct dirent *e; (e = readdir(dir));) {
		struct stat st;
		auto_fd fd = e->d_name[0] == '.' ? -1 : openat(store->partial_fd, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

		if (fd < 0 || fstat(fd, &st) < 0 || now.tv_sec - st.st_mtime < older_than_s || flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		if (!dry_run && unlinkat(store->partial_fd, e->d_name, 0) < 0)
			return -errno;
		n++;
		if (ret_bytes)
			*ret_bytes += (uint64_t)st.st_size;
	}
	return n;
}
