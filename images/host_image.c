// SPDX-License-Identifier: Apache-2.0
#include "images/host_image.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "images/tree_writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Folders below /etc have far fewer levels; the bound is for a host whose /etc links into something odd. */
#define MAX_COPY_DEPTH 16u

/* What of the host's /etc is copied: a folder, and a pattern for the names in it.  Nothing else ever is. */
static const struct {
	const char *dir;
	const char *pattern;
} etc_list[] = {
	{"etc", "nsswitch.conf"},
	{"etc", "ld.so.cache"},
	{"etc", "ld.so.conf"},
	{"etc", "ld.so.conf.d"},
	{"etc", "alternatives"}, /* awk, java, cc, pager ... are links through it */
	{"etc/ssl", "certs"},
	{"etc", "ca-certificates"},
	{"etc", "ca-certificates.conf"},
	{"etc", "java-*"},
	{"etc", "python3*"},
	{"etc", "perl"},
	{"etc", "localtime"},
	{"etc", "timezone"},
	{"etc", "mime.types"},
	{"etc", "fonts"},
	{"etc", "matplotlibrc"}, /* Debian keeps it here, and without it the library does not load */
	{"etc", "protocols"},
	{"etc", "services"},
	{"etc", "os-release"},
};

/* Folders of the image.  /usr is only the place where the host's is bound. */
static const struct {
	const char *path;
	uint32_t mode;
	uint32_t uid;
} folders[] = {
	{"", 0755, 0},		 {"etc", 0755, 0},	 {"usr", 0755, 0},	{"dev", 0755, 0},      {"proc", 0555, 0},
	{"sys", 0555, 0},	 {"run", 0755, 0},	 {"run/lock", 01777, 0}, {"tmp", 01777, 0},    {"root", 0700, 0},
	{"home", 0755, 0},	 {"home/sandbox", 0750, 1000}, {"opt", 0755, 0}, {"srv", 0755, 0},     {"mnt", 0755, 0},
	{"media", 0755, 0},	 {"var", 0755, 0},	 {"var/tmp", 01777, 0}, {"var/lib", 0755, 0},  {"var/cache", 0755, 0},
	{"var/log", 0755, 0},	 {"var/spool", 0755, 0}, {"opt/opensandbox", 0755, 0},
	{"run/sandbox", 0755, 0}, /* where each finds the log of its denials: a mount point here is none to make in its upper */
};

/* Files that are made, never copied: the host's have names, addresses or users that are nobody's business inside. */
static const struct {
	const char *path;
	const char *text;
	uint32_t mode;
} made[] = {
	{"etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"
		       "sandbox:x:1000:1000::/home/sandbox:/bin/bash\n"
		       "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", 0644},
	{"etc/group", "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n", 0644},
	/* Every sandbox has it: here it costs none of them directories in its upper.  Any user inside may append to it. */
	{"opt/opensandbox/.env", "", 0666},
	/* etc/hosts, hostname and resolv.conf are each sandbox's own: what is not here needs no whiteout there. */
};

static const char *const usr_links[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"};

struct copy {
	struct tree_writer *w;
	struct sbx_err *err;
};

static int put(struct tree_writer *w, const struct tree_entry *entry, const void *data, struct sbx_err *err)
{
	if (tree_begin(w, entry, err) < 0)
		return -1;
	if (entry->size > 0 && tree_data(w, 0, data, (size_t)entry->size, err) < 0)
		return -1;
	if (tree_owner(w, err) < 0)
		return -1;
	return tree_end(w, err);
}

static int make_folders(struct tree_writer *w, struct sbx_err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		const struct tree_entry e = {.path = folders[i].path, .kind = TREE_DIRECTORY, .mode = folders[i].mode,
					     .uid = folders[i].uid, .gid = folders[i].uid};

		if (put(w, &e, NULL, err) < 0)
			return -1;
	}
	return 0;
}

static int make_files(struct tree_writer *w, struct sbx_err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		const struct tree_entry e = {.path = made[i].path, .kind = TREE_FILE, .mode = made[i].mode,
					     .size = strlen(made[i].text)};

		if (put(w, &e, made[i].text, err) < 0)
			return -1;
	}
	const struct tree_entry links[] = {{.path = "var/run", .kind = TREE_SYMLINK, .target = "/run"},
					   {.path = "var/lock", .kind = TREE_SYMLINK, .target = "/run/lock"}};
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (put(w, &links[i], NULL, err) < 0)
			return -1;
	return 0;
}

static int make_usr_links(int host_root_fd, struct tree_writer *w, struct sbx_err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(usr_links); i++) {
		char target[64];
		ssize_t n = readlinkat(host_root_fd, usr_links[i], target, sizeof(target) - 1);

		if (n < 0 && errno == ENOENT)
			continue;
		target[n > 0 ? n : 0] = '\0';
		const char *relative = target + (target[0] == '/');
		if (n <= 0 || strncmp(relative, "usr/", 4) != 0)
			return sbx_err_set(err, SBX_E_HOST_LACKS, 0,
					   "/%s is not a link into /usr: the host image needs a merged /usr", usr_links[i]);
		const struct tree_entry e = {.path = usr_links[i], .kind = TREE_SYMLINK, .target = relative};
		if (put(w, &e, NULL, err) < 0)
			return -1;
	}
	return 0;
}

static int copy_file(struct copy *c, int dir_fd, const char *name, const char *to)
{
	struct stat st;
	uint64_t offset = 0;
	/* without O_NONBLOCK a FIFO of that name would stop us here */
	auto_fd fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return errno == EACCES || errno == ENOENT || errno == ELOOP ?
			       0 :
			       sbx_err_set(c->err, SBX_E_SYSTEM, errno, "read /%s", to);
	if (fstat(fd, &st) < 0)
		return sbx_err_set(c->err, SBX_E_SYSTEM, errno, "stat /%s", to);
	if (!S_ISREG(st.st_mode) || !(st.st_mode & S_IROTH))
		return 0;
	const struct tree_entry e = {.path = to, .kind = TREE_FILE, .mode = st.st_mode & 0755, .size = (uint64_t)st.st_size,
				     .mtime_s = st.st_mtim.tv_sec, .mtime_ns = (uint32_t)st.st_mtim.tv_nsec};
	if (tree_begin(c->w, &e, c->err) < 0)
		return -1;
	while (offset < e.size) {
		char block[65536];
		size_t want = e.size - offset < sizeof(block) ? (size_t)(e.size - offset) : sizeof(block);
		ssize_t n = read(fd, block, want);

		if (n < 0)
			return sbx_err_set(c->err, SBX_E_SYSTEM, errno, "read /%s", to);
		if (n == 0) /* it became shorter while it was read; the rest stays a hole */
			break;
		if (tree_data(c->w, offset, block, (size_t)n, c->err) < 0)
			return -1;
		offset += (uint64_t)n;
	}
	if (tree_owner(c->w, c->err) < 0)
		return -1;
	return tree_end(c->w, c->err);
}

static int copy_link(struct copy *c, int dir_fd, const char *name, const char *to)
{
	char target[LIMIT_PATH_BYTES];
	ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);

	if (n <= 0)
		return 0;
	target[n] = '\0';
	const struct tree_entry e = {.path = to, .kind = TREE_SYMLINK, .target = target};
	return put(c->w, &e, NULL, c->err);
}

static int copy_tree(struct copy *c, int parent_fd, const char *name, const char *to, unsigned int depth);

static int copy_any(struct copy *c, int dir_fd, const char *name, const char *to, unsigned int depth)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* gone meanwhile, or not for us */
	if (S_ISLNK(st.st_mode))
		return copy_link(c, dir_fd, name, to);
	if (S_ISDIR(st.st_mode))
		return copy_tree(c, dir_fd, name, to, depth + 1);
	return S_ISREG(st.st_mode) ? copy_file(c, dir_fd, name, to) : 0;
}

/* Opens a folder that anybody may enter and list; -1 without error text when it is not such a one. */
static int open_public_dir(int parent_fd, const char *name)
{
	struct stat st;
	auto_fd fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0 || (st.st_mode & (S_IROTH | S_IXOTH)) != (S_IROTH | S_IXOTH))
		return -1;
	return take_fd(&fd);
}

static int copy_tree(struct copy *c, int parent_fd, const char *name, const char *to, unsigned int depth)
{
	if (depth > MAX_COPY_DEPTH)
		return sbx_err_set(c->err, SBX_E_LIMIT, 0, "/%s is more than %u folders deep", to, MAX_COPY_DEPTH);
	int fd = open_public_dir(parent_fd, name);
	if (fd < 0)
		return 0;
	auto_dir dir = fdopendir(fd);
	if (!dir) {
		int saved = errno;

		close_keep_errno(fd);
		return sbx_err_set(c->err, SBX_E_SYSTEM, saved, "list /%s", to);
	}
	const struct tree_entry e = {.path = to, .kind = TREE_DIRECTORY, .mode = 0755};
	if (put(c->w, &e, NULL, c->err) < 0)
		return -1;
	for (struct dirent *d; (d = readdir(dir));) {
		char path[LIMIT_PATH_BYTES];

		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", to, d->d_name) >= sizeof(path))
			continue;
		if (copy_any(c, dirfd(dir), d->d_name, path, depth) < 0)
			return -1;
	}
	return 0;
}

/* Opens "etc" or "etc/ssl" part by part, so that every folder on the way is checked. */
static int open_list_dir(int host_root_fd, const char *path)
{
	char part[64];
	auto_fd at = fcntl(host_root_fd, F_DUPFD_CLOEXEC, 3);

	while (*path && at >= 0) {
		size_t n = strcspn(path, "/");

		snprintf(part, sizeof(part), "%.*s", (int)n, path);
		replace_fd(&at, open_public_dir(at, part));
		path += n + (path[n] == '/');
	}
	return take_fd(&at);
}

static int copy_listed(struct copy *c, int host_root_fd, size_t row)
{
	int fd = open_list_dir(host_root_fd, etc_list[row].dir);

	if (fd < 0)
		return 0;
	auto_dir dir = fdopendir(fd);
	if (!dir) {
		close_keep_errno(fd);
		return sbx_err_set(c->err, SBX_E_NO_MEMORY, 0, "list /%s", etc_list[row].dir);
	}
	for (struct dirent *d; (d = readdir(dir));) {
		char path[LIMIT_PATH_BYTES];

		if (fnmatch(etc_list[row].pattern, d->d_name, FNM_PERIOD) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", etc_list[row].dir, d->d_name);
		if (copy_any(c, dirfd(dir), d->d_name, path, 0) < 0)
			return -1;
	}
	return 0;
}

static void free_writer(struct tree_writer *const *w)
{
	tree_writer_free(*w);
}

int host_image_build(int host_root_fd, int root_fd, struct layer_counts *ret, struct sbx_err *err)
{
	__attribute__((cleanup(free_writer))) struct tree_writer *w =
		tree_writer_new(root_fd, HOST_IMAGE_MAX_ENTRIES, HOST_IMAGE_MAX_BYTES, err);
	struct copy c = {.w = w, .err = err};

	*ret = (struct layer_counts){0};
	if (!w)
		return -1;
	int rc = make_folders(w, err);
	if (rc == 0)
		rc = make_usr_links(host_root_fd, w, err);
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(etc_list); i++)
		rc = copy_listed(&c, host_root_fd, i);
	/* last, so that nothing of the host can take their place */
	if (rc == 0)
		rc = make_files(w, err);
	if (rc == 0)
		rc = tree_finish(w, err);
	ret->entries = tree_entries(w);
	ret->bytes = tree_bytes(w);
	return rc;
}
