// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/layers.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "base/pidfd.h"
#include "images/unpack_result.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/capture.h"
#include "runtime/broker/rootfs_mount.h"
#include "runtime/broker/slot.h"
#include "runtime/broker/trash.h"
#include "runtime/broker/unpacker.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define LAYER_MODE	  0755
#define HOST_IMAGE_MS	  60000
#define SEALED_ATTRIBUTE "trusted.sandboxd.sealed"
#define WORKING_PREFIX	  "new."
#define WORKER_ARGS	  14
#define NUMBER_TEXT	  24

struct unpack {
	struct broker *b;
	uint8_t key[BROKER_KEY_BYTES];
	uint32_t n_lower;
	uint8_t lower[BROKER_MAX_LAYERS - 1][BROKER_KEY_BYTES]; /* must not go away meanwhile */
	char name[sizeof(WORKING_PREFIX) + BROKER_KEY_HEX]; /* of the directory being filled */
	int pidfd, result_fd;
	int ready_fd; /* layers below are still being unpacked: written to when all are there; else -1 */
	int seal_fd; /* the file in seals/ with the same name */
	int ready_read_fd; /* its other end: kept, so that writing is no signal when the worker has just ended */
	bool orphaned; /* one of those failed */
	struct loop_fd *source;
	struct broker_asker asker;
};

static const char *const form_names[] = {[BROKER_FORM_TAR] = "tar", [BROKER_FORM_TAR_GZIP] = "gzip", [BROKER_FORM_TAR_ZSTD] = "zstd"};

void layers_name(const uint8_t key[BROKER_KEY_BYTES], char name[2 * BROKER_KEY_BYTES + 1])
{
	hex_encode(key, BROKER_KEY_BYTES, name);
}

bool layers_present(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	char name[BROKER_KEY_HEX];
	struct stat st;

	layers_name(key, name);
	return fstatat(b->layers_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* Directories of the layers below one that is unpacked, each the root of a read-only copy of its own. */
struct lower {
	int fds[UNPACK_MAX_LOWER];
	size_t n;
};

static void lower_close(struct lower *l)
{
	for (size_t i = 0; i < l->n; i++)
		close_keep_errno(l->fds[i]);
}
#define auto_lower __attribute__((cleanup(lower_close))) struct lower

static const struct unpack *find_unpack(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	for (size_t i = 0; i < BROKER_MAX_UNPACKS; i++)
		if (b->unpack[i] && !memcmp(b->unpack[i]->key, key, BROKER_KEY_BYTES))
			return b->unpack[i];
	return NULL;
}

/*
 * One that is still being unpacked is opened where that happens: it stays the same directory when it gets its name.  Nobody looks into
 * it before it is complete: the worker first unpacks what needs no other layer, and waits then.
 */
static int lower_open(struct broker *b, const struct broker_layer_req *req, struct lower *ret, bool *ret_wait, struct sbx_err *err)
{
	char name[sizeof(((struct unpack *)0)->name)];

	*ret_wait = false;
	for (uint32_t i = 0; i < req->n_lower; i++) {
		layers_name(req->lower[i], name);
		const struct unpack *working = layers_present(b, req->lower[i]) ? NULL : find_unpack(b, req->lower[i]);
		if (!working && !layers_present(b, req->lower[i]))
			return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "lower layer %.12s is not in the store", name);
		if (working)
			memcpy(name, working->name, sizeof(name));
		*ret_wait |= working != NULL;
		auto_fd mount = rootfs_clone(b->layers_fd, name, true, -1);
		int fd = mount < 0 ? mount : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, mount < 0 ? -mount : errno, "lower layer %.12s", name);
		ret->fds[ret->n++] = fd;
	}
	return 0;
}

/* Starts the program on an empty directory; Return: its pidfd, or -errno. */
static int start_worker(struct broker *b, const char *dir_name, int blob_fd, const struct lower *lower, int ready_fd, int seal_fd,
			char **argv, int *ret_result_fd)
{
	/* A detached copy of the one directory: ".." of its root leads nowhere. */
	auto_fd mount = rootfs_clone(b->layers_fd, dir_name, false, -1);
	if (mount < 0)
		return mount;
	auto_fd target = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (target < 0)
		return -errno;
	const struct unpacker_job job = {.base = b->layer_base, .in_fd = blob_fd, .target_fd = target,
					 .view_fds = lower->fds, .n_views = lower->n, .ready_fd = ready_fd, .seal_fd = seal_fd, .argv = argv};
	return unpacker_start(b, &job, ret_result_fd);
}

/* One rename publishes; who came first wins, and both had the same verified blobs. */
static int publish(struct broker *b, const char *from, const uint8_t *key, struct sbx_err *err)
{
	char name[BROKER_KEY_HEX];

	layers_name(key, name);
	if (FAULT_POINT("layer-publish"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (renameat2(b->layers_fd, from, b->layers_fd, name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EEXIST)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "publish layer %.12s", name);
	return trash_put(b, b->layers_fd, from, b->layer_base) < 0 ? sbx_err_set(err, SBX_E_SYSTEM, EIO, "layer %.12s", name) : 0;
}

static int make_target(struct broker *b, const char *name, struct sbx_err *err)
{
	int r = trash_put(b, b->layers_fd, name, b->layer_base); /* of an attempt that was cut off */
	int fd = r < 0 && r != -ENOENT ? r : path_make_dir(b->layers_fd, name, b->layer_base, b->layer_base, LAYER_MODE);

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -fd, "directory for a layer");
	close(fd);
	return 0;
}

/* ---- seals ---- */

int layers_seal_open(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	char name[BROKER_KEY_HEX];

	layers_name(key, name);
	return path_open_beneath(b->seals_fd, name, O_RDONLY);
}

/* The worker, which is nobody of the host, gets this one descriptor. */
static int seal_make(struct broker *b, const char *name, struct sbx_err *err)
{
	if (unlinkat(b->seals_fd, name, 0) < 0 && errno != ENOENT) /* of an attempt that was cut off */
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "file for a seal");
	int fd = openat(b->seals_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "file for a seal") : fd;
}

/* Before the layer: whatever ends us between the two leaves a seal without a layer, which is swept, and never the other way round. */
static int seal_publish(struct broker *b, const char *from, const uint8_t *key, struct sbx_err *err)
{
	char name[BROKER_KEY_HEX];

	layers_name(key, name);
	/* who came first has published both */
	int r = layers_present(b, key) ? unlinkat(b->seals_fd, from, 0) : renameat(b->seals_fd, from, b->seals_fd, name);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "publish the seal of layer %.12s", name) : 0;
}

/* On the layer, before it has its name.  Where the file system has no such attributes, a seal that is missing later says nothing. */
static void seal_note(struct broker *b, const char *dir_name)
{
	auto_fd dir = path_open_beneath(b->layers_fd, dir_name, O_RDONLY | O_DIRECTORY);

	int r = dir < 0 ? dir : fsetxattr(dir, SEALED_ATTRIBUTE, "1", 1, 0) < 0 ? -errno : 0;

	if (r < 0 && r != -EOPNOTSUPP)
		log_warn("layer %s does not say that it has a seal: %s", dir_name, strerrordesc_np(-r));
}

static bool seal_noted(const struct broker *b, const char *dir_name)
{
	auto_fd dir = path_open_beneath(b->layers_fd, dir_name, O_RDONLY | O_DIRECTORY);

	return dir >= 0 && fgetxattr(dir, SEALED_ATTRIBUTE, NULL, 0) >= 0;
}

/* ---- LAYER_UNPACK ---- */

static void unpack_free(struct unpack *u)
{
	for (size_t i = 0; i < BROKER_MAX_UNPACKS; i++)
		if (u->b->unpack[i] == u)
			u->b->unpack[i] = NULL;
	loop_fd_remove(u->source);
	close_keep_errno(u->pidfd);
	close_keep_errno(u->result_fd);
	close_keep_errno(u->ready_fd);
	close_keep_errno(u->ready_read_fd);
	close_keep_errno(u->seal_fd);
	free(u);
}

/* All that it made. */
static void unpack_remove(const struct unpack *u)
{
	struct broker *b = u->b;
	int r = trash_put(b, b->layers_fd, u->name, b->layer_base);

	if (r < 0 && r != -ENOENT)
		log_error("unfinished layer %s stays until the next start", u->name);
	if (unlinkat(b->seals_fd, u->name, 0) < 0 && errno != ENOENT)
		log_error("unfinished seal %s stays until the next start", u->name);
}

static void unpack_drop(struct unpack *u)
{
	unpack_remove(u);
	unpack_free(u);
}

static bool lowers_present(const struct broker *b, const struct unpack *u)
{
	for (uint32_t k = 0; k < u->n_lower; k++)
		if (!layers_present(b, u->lower[k]))
			return false;
	return true;
}

static bool has_lower(const struct unpack *u, const uint8_t key[BROKER_KEY_BYTES])
{
	for (uint32_t k = 0; k < u->n_lower; k++)
		if (!memcmp(u->lower[k], key, BROKER_KEY_BYTES))
			return true;
	return false;
}

/* The layer @key is there now, or will not be: whoever waits for it goes on or ends. */
static void tell_waiting(struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	for (size_t i = 0; i < BROKER_MAX_UNPACKS; i++) {
		struct unpack *u = b->unpack[i];

		if (!u || u->ready_fd < 0 || !has_lower(u, key))
			continue;
		if (!layers_present(b, key)) {
			u->orphaned = true;
			pidfd_kill(u->pidfd);
		} else if (lowers_present(b, u)) {
			ignore_result(write(u->ready_fd, "!", 1) != 1); /* into an empty pipe whose other end we have */
		} else {
			continue;
		}
		close_keep_errno(take_fd(&u->ready_fd));
	}
}

static void unpack_ended(void *arg, int fd, uint32_t events)
{
	struct unpack *u = arg;
	struct unpack_result result = {0};
	struct sbx_err err = {0};

	(void)fd;
	(void)events;
	/* It was pid 1 of its namespace: nothing that runs as S is left. */
	int r = unpacker_judge(u->pidfd, u->result_fd, &result, sizeof(result), UNPACK_RESULT_MAGIC, &err);
	if (r == 0 && !lowers_present(u->b, u)) /* it was told to wait */
		r = sbx_err_set(&err, SBX_E_IMAGE_INVALID, 0, "sandbox-unpack did not wait for the layers below");
	if (u->orphaned)
		r = sbx_err_set(&err, SBX_E_LIMIT, 0, "a layer below was being unpacked, and failed");
	if (r == 0 && FAULT_POINT("layer-unpacked"))
		r = sbx_err_set(&err, SBX_E_SYSTEM, EIO, "fault point");
	if (r == 0)
		r = seal_publish(u->b, u->name, u->key, &err);
	if (r == 0)
		seal_note(u->b, u->name);
	if (r == 0)
		r = publish(u->b, u->name, u->key, &err);
	if (r < 0) /* before the answer, as who asked may look */
		unpack_remove(u);
	broker_unpack_done(u->b, &u->asker, r < 0 ? &err : NULL, result.bytes, result.entries);
	tell_waiting(u->b, u->key);
	unpack_free(u);
}

static struct unpack **free_place(struct broker *b, const uint8_t *key, struct sbx_err *err)
{
	struct unpack **place = NULL;

	for (size_t i = 0; i < BROKER_MAX_UNPACKS; i++) {
		if (b->unpack[i] && !memcmp(b->unpack[i]->key, key, BROKER_KEY_BYTES)) {
			sbx_err_set(err, SBX_E_LIMIT, 0, "this layer is being unpacked");
			return NULL;
		}
		if (!b->unpack[i])
			place = &b->unpack[i];
	}
	if (!place)
		sbx_err_set(err, SBX_E_LIMIT, 0, "%d layers are being unpacked", BROKER_MAX_UNPACKS);
	return place;
}

static int check_blob(int fd, struct sbx_err *err)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, errno, "blob");
	if (!S_ISREG(st.st_mode) || (flags & O_ACCMODE) != O_RDONLY || (flags & O_PATH))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "the blob is not a regular file opened for reading only");
	return 0;
}

int layers_unpack(struct broker *b, const struct broker_layer_req *req, int blob_fd, const struct broker_asker *asker,
		  struct sbx_err *err)
{
	static const uint8_t no_diff_id[BROKER_KEY_BYTES];
	char max_bytes[NUMBER_TEXT], max_entries[NUMBER_TEXT], n_lower[NUMBER_TEXT], hex[BROKER_KEY_HEX], diff_id[BROKER_KEY_HEX];
	char program[] = "sandbox-unpack", o_form[] = "--form", o_bytes[] = "--max-bytes", o_entries[] = "--max-entries";
	char o_lower[] = "--lower", o_diff_id[] = "--diff-id", o_wait[] = "--wait", o_seal[] = "--seal";
	char form[8];
	auto_lower lower = {.n = 0};
	int ready[2];
	bool wait = false;

	struct unpack **place = free_place(b, req->key, err);
	if (!place || check_blob(blob_fd, err) < 0 || lower_open(b, req, &lower, &wait, err) < 0)
		return -1;
	struct unpack *u = calloc(1, sizeof(*u));
	if (!u)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "unpack");
	*u = (struct unpack){.b = b, .pidfd = -1, .result_fd = -1, .ready_fd = -1, .ready_read_fd = -1, .seal_fd = -1, .asker = *asker};
	memcpy(u->key, req->key, sizeof(u->key));
	u->n_lower = req->n_lower;
	memcpy(u->lower, req->lower, sizeof(u->lower));
	layers_name(req->key, hex);
	snprintf(u->name, sizeof(u->name), WORKING_PREFIX "%s", hex);
	snprintf(form, sizeof(form), "%s", form_names[req->form]);
	snprintf(max_bytes, sizeof(max_bytes), "%llu", (unsigned long long)req->max_bytes);
	snprintf(max_entries, sizeof(max_entries), "%llu", (unsigned long long)req->max_entries);
	snprintf(n_lower, sizeof(n_lower), "%zu", lower.n);
	char *argv[WORKER_ARGS] = {program, o_form, form, o_bytes, max_bytes, o_entries, max_entries, o_lower, n_lower, NULL};
	size_t n_args = 9;
	if (memcmp(req->diff_id, no_diff_id, sizeof(no_diff_id)) != 0) {
		layers_name(req->diff_id, diff_id);
		argv[n_args++] = o_diff_id;
		argv[n_args++] = diff_id;
	}
	argv[n_args++] = o_seal;
	if (wait) {
		argv[n_args++] = o_wait;
		if (pipe2(ready, O_CLOEXEC) < 0) {
			sbx_err_set(err, SBX_E_SYSTEM, errno, "unpack");
			unpack_free(u);
			return -1;
		}
		u->ready_read_fd = ready[0];
		u->ready_fd = ready[1];
	}
	if (make_target(b, u->name, err) < 0 || (u->seal_fd = seal_make(b, u->name, err)) < 0) {
		unpack_drop(u);
		return -1;
	}
	u->pidfd = start_worker(b, u->name, blob_fd, &lower, u->ready_read_fd, u->seal_fd, argv, &u->result_fd);
	u->source = u->pidfd < 0 ? NULL : loop_fd_add(b->loop, u->pidfd, EPOLLIN, unpack_ended, u);
	if (!u->source) {
		sbx_err_set(err, SBX_E_SYSTEM, u->pidfd < 0 ? -u->pidfd : errno, "start sandbox-unpack");
		if (u->pidfd >= 0) /* nobody would wait for it */
			unpacker_end(u->pidfd);
		unpack_drop(u);
		return -1;
	}
	*place = u;
	return 0;
}

static bool lower_used(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	for (size_t i = 0; i < BROKER_MAX_UNPACKS; i++)
		for (uint32_t k = 0; b->unpack[i] && k < b->unpack[i]->n_lower; k++)
			if (!memcmp(b->unpack[i]->lower[k], key, BROKER_KEY_BYTES))
				return true;
	return false;
}

int layers_drop(struct broker *b, const uint8_t key[BROKER_KEY_BYTES], struct sbx_err *err)
{
	char name[BROKER_KEY_HEX];

	layers_name(key, name);
	bool host = b->has_host_image && !memcmp(b->host_key, key, BROKER_KEY_BYTES);
	if (!host)
		slot_layer_forget(b, key); /* a shell that only waits does not use it */
	if (host || slot_layer_used(b, key) || lower_used(b, key) || capture_uses_layer(b, key))
		return sbx_err_set(err, SBX_E_IMAGE_IN_USE, 0, "layer %.12s is in use", name);
	int r = FAULT_POINT("layer-drop") ? -EIO : trash_put(b, b->layers_fd, name, b->layer_base);
	/* no layer at all, though it has the name of one: the worker takes directories */
	if (r == -ENOTDIR || r == -ELOOP)
		r = unlinkat(b->layers_fd, name, 0) < 0 ? -errno : 0;
	/* after the layer: a layer without one would look like an earlier version's */
	if ((r == 0 || r == -ENOENT) && unlinkat(b->seals_fd, name, 0) < 0 && errno != ENOENT)
		log_warn("seal of layer %.12s stays: %s", name, strerrordesc_np(errno));
	if (r == -ENOENT)
		return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "layer %.12s is not in the store", name);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "layer %.12s", name) : 0;
}

/* ---- the host image ---- */

/*
 * Its /etc is a copy of what the host has today, so each start builds it again.  The key starts with these bytes, so that the
 * skeletons of earlier starts are known; the rest is random: no blob's digest is chosen by us.
 */
static const uint8_t host_key_start[] = {0, 0, 0, 0, 'h', 'o', 's', 't'};

int layers_host_image(struct broker *b, struct sbx_err *err)
{
	static const char name[] = WORKING_PREFIX "host";
	char program[] = "sandbox-unpack", option[] = "--host-skeleton";
	char *argv[] = {program, option, NULL};
	const struct lower none = {.n = 0};
	struct unpack_result result = {0};
	auto_fd result_fd = -1;

	if (make_target(b, name, err) < 0)
		return -1;
	auto_fd pidfd = start_worker(b, name, b->null_fd, &none, -1, -1, argv, &result_fd);
	if (pidfd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -pidfd, "start sandbox-unpack");
	struct pollfd wait = {.fd = pidfd, .events = POLLIN};
	if (poll(&wait, 1, HOST_IMAGE_MS) != 1) {
		pidfd_kill(pidfd);
		sbx_err_set(err, SBX_E_SYSTEM, ETIME, "sandbox-unpack --host-skeleton");
	} else if (unpacker_judge(pidfd, result_fd, &result, sizeof(result), UNPACK_RESULT_MAGIC, err) == 0) {
		memcpy(b->host_key, host_key_start, sizeof(host_key_start));
		random_bytes(b->host_key + sizeof(host_key_start), sizeof(b->host_key) - sizeof(host_key_start));
		if (publish(b, name, b->host_key, err) == 0) {
			b->has_host_image = true;
			memcpy(b->likely.layer[0], b->host_key, BROKER_KEY_BYTES); /* until the first create says something else */
			b->likely.n_layers = 1;
			b->likely.host_usr = b->has_usr;
			return 0;
		}
	}
	ignore_result(trash_put(b, b->layers_fd, name, b->layer_base)); /* the failure that counts is in err */
	return sbx_err_wrap(err, "host image");
}

/* ---- what is there ---- */

/* Directories that somebody fills or builds right now, by name. */
static bool is_working(const struct broker *b, const char *name)
{
	for (size_t i = 0; i < BROKER_MAX_UNPACKS; i++)
		if (b->unpack[i] && !strcmp(b->unpack[i]->name, name))
			return true;
	return false;
}

static bool key_of_name(const char *name, uint8_t key[BROKER_KEY_BYTES])
{
	return strlen(name) == BROKER_KEY_HEX - 1 && hex_decode(name, key, BROKER_KEY_BYTES) == 0;
}

bool layers_is_host_key(const uint8_t key[BROKER_KEY_BYTES])
{
	return !memcmp(key, host_key_start, sizeof(host_key_start));
}

static void list_row(struct broker *b, const char *name, struct broker_layers_reply *out)
{
	struct broker_layer_row *row = &out->row[out->n];
	struct stat st, seal;

	if (!key_of_name(name, row->key) || fstatat(b->layers_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		out->n_strays += !is_working(b, name);
		memset(row, 0, sizeof(*row));
		return;
	}
	if (!S_ISDIR(st.st_mode) || st.st_uid - b->layer_base >= BROKER_IDS_PER_SLOT || st.st_gid - b->layer_base >= BROKER_IDS_PER_SLOT)
		row->flags |= BROKER_LAYER_ODD;
	if (layers_is_host_key(row->key))
		row->flags |= BROKER_LAYER_HOST;
	if (slot_layer_lives(b, row->key) || lower_used(b, row->key) || capture_uses_layer(b, row->key))
		row->flags |= BROKER_LAYER_USED;
	if (fstatat(b->seals_fd, name, &seal, AT_SYMLINK_NOFOLLOW) < 0)
		row->flags |= seal_noted(b, name) ? BROKER_LAYER_SEAL_LOST : BROKER_LAYER_UNSEALED;
	row->made_wall_s = st.st_ctim.tv_sec;
	out->n++;
}

int layers_list(struct broker *b, uint64_t cursor, struct broker_layers_reply *ret, struct sbx_err *err)
{
	auto_dir dir = path_dir(b->layers_fd);
	unsigned seen = 0;

	if (!dir)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "list the layers");
	ret->last = 1;
	if (cursor)
		seekdir(dir, (long)cursor);
	for (struct dirent *e; (e = readdir(dir));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		list_row(b, e->d_name, ret);
		ret->cursor = (uint64_t)telldir(dir);
		if (++seen == BROKER_LAYER_ROWS) {
			ret->last = 0; /* perhaps: then the next part is empty */
			break;
		}
	}
	return 0;
}

/* Seals whose layer was not published, or went without them. */
static void sweep_seals(struct broker *b)
{
	auto_dir dir = path_dir(b->seals_fd);

	for (struct dirent *e; dir && (e = readdir(dir));) {
		uint8_t key[BROKER_KEY_BYTES];
		bool wanted = key_of_name(e->d_name, key) ? layers_present(b, key) : is_working(b, e->d_name);

		if (wanted || !strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(b->seals_fd, e->d_name, 0) < 0)
			log_warn("seals/%.80s belongs to no layer and stays: %s", e->d_name, strerrordesc_np(errno));
	}
}

int layers_sweep(struct broker *b)
{
	auto_dir dir = path_dir(b->layers_fd);
	int n = 0;

	if (!dir)
		return 0;
	for (struct dirent *e; (e = readdir(dir));) {
		uint8_t key[BROKER_KEY_BYTES];
		bool stale = !strncmp(e->d_name, WORKING_PREFIX, strlen(WORKING_PREFIX)) && !is_working(b, e->d_name);

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (key_of_name(e->d_name, key))
			stale = layers_is_host_key(key) && !slot_layer_used(b, key) &&
				(!b->has_host_image || memcmp(key, b->host_key, sizeof(key)) != 0);
		else
			stale |= !is_working(b, e->d_name); /* nobody but us writes here: a hand did */
		if (!stale)
			continue;
		n++;
		/* what is no directory goes at once: the worker empties directories */
		if (unlinkat(b->layers_fd, e->d_name, 0) < 0 && trash_put(b, b->layers_fd, e->d_name, b->layer_base) < 0)
			log_error("stale layer %s stays until the next start", e->d_name);
	}
	sweep_seals(b);
	return n;
}
