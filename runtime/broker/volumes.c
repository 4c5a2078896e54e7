// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/volumes.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/path.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/disk_worker.h"
#include "runtime/broker/idmap.h"
#include "runtime/broker/rootfs_mount.h"
#include "runtime/broker/slot.h"
#include "runtime/broker/trash.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define VOLUME_MODE 0755

static bool is_inner(char c)
{
	return c == '.' || c == '_' || c == '-';
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool volumes_claim_ok(const char *claim)
{
	size_t n = strnlen(claim, BROKER_CLAIM_BYTES);

	if (n == 0 || n == BROKER_CLAIM_BYTES || !is_alnum(claim[0]) || !is_alnum(claim[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(claim[i]) && !is_inner(claim[i]))
			return false;
	return true;
}

int volumes_check(const struct broker *b, const struct broker_volume *v, struct sbx_err *err)
{
	if (v->zero || (v->flags & ~(uint32_t)(BROKER_VOLUME_READ_ONLY | BROKER_VOLUME_MAKE)))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "volume with unknown flags");
	if (v->kind == BROKER_VOLUME_NAMED ? !volumes_claim_ok(v->claim) || v->host_root != 0 : v->claim[0] != '\0')
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "name of a volume");
	if (v->kind != BROKER_VOLUME_NAMED && v->kind != BROKER_VOLUME_HOST)
		return sbx_err_set(err, SBX_E_VOLUME_UNSUPPORTED, 0, "volume of kind %u", v->kind);
	if (v->kind == BROKER_VOLUME_HOST && v->host_root >= b->n_host_roots)
		return sbx_err_set(err, SBX_E_VOLUME_NOT_ALLOWED, 0, "allowed host path %u of %u", v->host_root, b->n_host_roots);
	if (!path_rel_ok(v->rel))
		return sbx_err_set(err, SBX_E_VOLUME_HOST_PATH, 0, "path of a volume leaves it");
	if (!path_rel_ok(v->sub))
		return sbx_err_set(err, SBX_E_VOLUME_SUB_PATH, 0, "subPath leaves its volume");
	if (v->mount_path[0] != '/')
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "mount path is not absolute");
	return 0;
}

/* One step of the way: @rel below @dir_fd, made when that was asked for. */
static int step(int dir_fd, const char *rel, bool make)
{
	int fd = path_open_beneath(dir_fd, rel, O_PATH);

	return fd == -ENOENT && make ? path_make_beneath(dir_fd, rel, VOLUME_MODE) : fd;
}

static int root_of(struct broker *b, const struct broker_volume *v, struct sbx_err *err)
{
	struct stat st;

	if (v->kind == BROKER_VOLUME_NAMED) {
		int fd = path_open_beneath(b->volumes_fd, v->claim, O_PATH | O_DIRECTORY);

		if (fd == -ENOENT && (v->flags & BROKER_VOLUME_MAKE)) {
			if (volumes_make(b, v->claim, err) < 0)
				return -1;
			fd = path_open_beneath(b->volumes_fd, v->claim, O_PATH | O_DIRECTORY);
		}
		if (fd < 0)
			return sbx_err_set(err, SBX_E_VOLUME_NOT_FOUND, -fd, "volume %s", v->claim);
		/* one with an image, published since disk_volumes() looked: its directory is not its content */
		if (fstat(fd, &st) < 0 || st.st_uid == 0) {
			close(fd);
			return sbx_err_set(err, SBX_E_VOLUME_NOT_FOUND, 0, "volume %s is being made", v->claim);
		}
		return fd;
	}
	const struct host_root *root = &b->host_root[v->host_root];
	/* Opened anew by its own absolute path, so that what the administrator mounts there later is what is shown. */
	int fd = open(root->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? sbx_err_set(err, SBX_E_VOLUME_HOST_PATH, errno, "allowed host path %s", root->path) : fd;
}

static int find(struct broker *b, const struct broker_volume *v, int image_fd, struct sbx_err *err)
{
	bool make = v->flags & BROKER_VOLUME_MAKE;
	auto_fd root = image_fd < 0 ? root_of(b, v, err) : openat(image_fd, DISK_VOLUME_DIR, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (root < 0 && image_fd >= 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "image of the volume %s", v->claim);

	if (root < 0)
		return -1;
	auto_fd at = step(root, v->rel, make);
	/* a link or a mount of another kind on the way: the request's fault, not the host's */
	if (at == -ELOOP || at == -EXDEV || at == -ENOTDIR)
		return sbx_err_set(err, SBX_E_VOLUME_NOT_ALLOWED, -at, "volume path %s", v->rel);
	if (at < 0)
		return sbx_err_set(err, at == -ENOENT ? SBX_E_VOLUME_NOT_FOUND : make ? SBX_E_VOLUME_CREATE_FAILED : SBX_E_VOLUME_HOST_PATH,
				   -at, "volume path %s", v->rel);
	if (!v->sub[0])
		return take_fd(&at);
	int fd = step(at, v->sub, make || v->kind == BROKER_VOLUME_NAMED);
	return fd < 0 ? sbx_err_set(err, SBX_E_VOLUME_SUB_PATH, -fd, "subPath %s", v->sub) : fd;
}

/* Whose files are shown as whose: the whole range of named volumes, or only the owner of a host directory, as root. */
static int map_of(struct broker *b, struct slot *s, const struct broker_volume *v, const struct stat *st, struct sbx_err *err)
{
	uint32_t base = slot_base(b, s);
	struct idmap_row uid = {.inside = st->st_uid, .outside = base, .count = 1};
	struct idmap_row gid = {.inside = st->st_gid, .outside = base, .count = 1};

	if (v->kind == BROKER_VOLUME_HOST)
		return idmap_namespace(&uid, &gid, 1, err);
	uid = (struct idmap_row){.inside = b->volume_base, .outside = base, .count = BROKER_IDS_PER_SLOT};
	if (s->volume_ns_fd < 0)
		s->volume_ns_fd = idmap_namespace(&uid, &uid, 1, err);
	return s->volume_ns_fd < 0 ? -1 : fcntl(s->volume_ns_fd, F_DUPFD_CLOEXEC, 0);
}

static int open_one(struct broker *b, struct slot *s, const struct broker_volume *v, int image_fd, bool *ret_is_file, struct sbx_err *err)
{
	struct stat st;
	bool read_only = v->flags & BROKER_VOLUME_READ_ONLY;
	auto_fd at = find(b, v, image_fd, err);

	if (at < 0)
		return -1;
	if (fstat(at, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "volume");
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return sbx_err_set(err, SBX_E_VOLUME_HOST_PATH, 0, "volume is neither a directory nor a regular file");
	*ret_is_file = S_ISREG(st.st_mode);
	auto_fd ns = map_of(b, s, v, &st, err);
	if (ns < 0)
		return -1;
	int fd = FAULT_POINT("volume-unmapped") ? rootfs_clone(at, "", read_only, -1) : rootfs_clone(at, "", read_only, ns);
	if (fd == -EINVAL && read_only)
		fd = rootfs_clone(at, "", true, -1);
	if (fd == -EINVAL)
		return sbx_err_set(err, SBX_E_HOST_LACKS, 0,
				   "the file system of the volume takes no id map: it can be mounted read-only, not for writing");
	return fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -fd, "mount of a volume") : fd;
}

int volumes_open(struct broker *b, struct slot *s, const struct broker_volume *v, int image_fd, bool *ret_is_file, struct sbx_err *err)
{
	if (image_fd < 0)
		return open_one(b, s, v, -1, ret_is_file, err);
	/* copies are taken of attached mounts only */
	int r = rootfs_attach(b, image_fd);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "mount of the volume %s", v->claim);
	int fd = open_one(b, s, v, image_fd, ret_is_file, err);
	rootfs_detach();
	return fd;
}

int volumes_make(struct broker *b, const char *claim, struct sbx_err *err)
{
	int fd = path_open_beneath(b->volumes_fd, claim, O_RDONLY | O_DIRECTORY); /* perhaps with an owner that a sandbox gave it */
	int existed = fd >= 0;

	if (fd == -ENOENT)
		fd = path_make_dir(b->volumes_fd, claim, b->volume_base, b->volume_base, VOLUME_MODE);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_VOLUME_CREATE_FAILED, -fd, "volume %s", claim);
	close(fd);
	return existed;
}

int volumes_drop(struct broker *b, const char *claim, struct sbx_err *err)
{
	if (slot_claim_used(b, claim))
		return sbx_err_set(err, SBX_E_IMAGE_IN_USE, 0, "a sandbox uses the volume %s", claim);
	int r = trash_put(b, b->volumes_fd, claim, b->volume_base);
	if (r == -ENOENT)
		return sbx_err_set(err, SBX_E_VOLUME_NOT_FOUND, 0, "volume %s", claim);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "volume %s", claim) : 0;
}
