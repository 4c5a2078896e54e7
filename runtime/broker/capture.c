// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/capture.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/pidfd.h"
#include "images/unpack_result.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/layers.h"
#include "runtime/broker/rootfs_mount.h"
#include "runtime/broker/slot.h"
#include "runtime/broker/unpacker.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define NUMBER_TEXT  24
#define SKIP_MAX     32u /* LAYER_CAPTURE_SKIP_MAX */
#define PLACES	     (BROKER_MAX_CAPTURES + 1)
#define VERIFY_MAX_ENTRIES "100000000" /* more than any layer may have been unpacked with */
#define ARGS_MAX     (16u + 2 * SKIP_MAX)

struct capture {
	struct broker *b;
	int pidfd, result_fd;
	struct loop_fd *source;
	struct broker_asker asker;
	uint8_t key[BROKER_KEY_BYTES];
	struct broker_slot_ref ref;
};

static const char *const form_names[] = {[BROKER_FORM_TAR] = "tar", [BROKER_FORM_TAR_GZIP] = "gzip", [BROKER_FORM_TAR_ZSTD] = "zstd"};
static const char *const kind_names[] = {NULL, NULL, "oci", "docker"}; /* enum archive_kind */

static bool is_of(const struct capture *c, const struct broker_slot_ref *ref)
{
	return c->ref.slot == ref->slot && c->ref.generation == ref->generation;
}

static void capture_free(struct capture *c)
{
	for (size_t i = 0; i < PLACES; i++)
		if (c->b->capture[i] == c)
			c->b->capture[i] = NULL;
	loop_fd_remove(c->source);
	close_keep_errno(c->pidfd);
	close_keep_errno(c->result_fd);
	free(c);
}

static void capture_ended(void *arg, int fd, uint32_t events)
{
	struct capture *c = arg;
	struct capture_result result = {0};
	struct broker_capture_reply answer = {0};
	struct sbx_err err = {0};

	(void)fd;
	(void)events;
	struct broker *b = c->b;
	int r = unpacker_judge(c->pidfd, c->result_fd, &result, sizeof(result), CAPTURE_RESULT_MAGIC, &err);
	/* a dead life's files are being removed: who knows what of them was still there; most often that is why we end */
	struct slot *s = c->ref.slot != BROKER_NO_SLOT ? slot_by_ref(b, &c->ref) : NULL;
	if (c->ref.slot != BROKER_NO_SLOT && (!s || (s->state != BROKER_SLOT_LIVE && s->state != BROKER_SLOT_FROZEN)))
		r = sbx_err_set(&err, SBX_E_NOT_RUNNING, 0, "the sandbox ended while its files were read");
	if (r == 0 && FAULT_POINT("capture-ended"))
		r = sbx_err_set(&err, SBX_E_SYSTEM, EIO, "fault point");
	if (r == 0) {
		answer.entries = result.entries;
		answer.bytes = result.bytes;
		answer.packed_bytes = result.packed_bytes;
		answer.kind = result.kind;
		memcpy(answer.digest, result.digest, sizeof(answer.digest));
		memcpy(answer.diff_id, result.diff_id, sizeof(answer.diff_id));
		snprintf(answer.text, sizeof(answer.text), "%s", result.text); /* a difference */
	}
	broker_capture_done(b, &c->asker, r < 0 ? &err : NULL, &answer);
	capture_free(c);
	if (s)
		slot_drain(b, s); /* perhaps it waited for us */
}

static int check_file(int fd, int mode, struct sbx_err *err)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, errno, "file");
	if (!S_ISREG(st.st_mode) || (flags & O_ACCMODE) != mode || (flags & O_PATH))
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "not a regular file opened for %s", mode == O_WRONLY ? "writing only" : "reading and writing");
	return 0;
}

static int check_bounds(const struct broker *b, const struct broker_capture_req *req, struct sbx_err *err)
{
	if (req->max_bytes <= (uint64_t)b->settings.images_max_unpacked_bytes && req->max_entries <= (uint64_t)b->settings.images_max_entries)
		return 0;
	return sbx_err_set(err, SBX_E_LIMIT, 0, "bounds above images.max_unpacked_bytes or images.max_entries");
}

static int start(struct broker *b, const struct unpacker_job *job, const struct capture_tree *tree, const struct broker_asker *asker,
		 struct sbx_err *err)
{
	bool verify = job->nobody_moved;
	struct capture **place = NULL;

	for (size_t i = verify ? BROKER_MAX_CAPTURES : 0; i < (verify ? PLACES : BROKER_MAX_CAPTURES) && !place; i++)
		place = b->capture[i] ? NULL : &b->capture[i];
	if (!place && verify)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "a layer is being compared; try again");
	if (!place)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "%d layers and archives are being read; try again", BROKER_MAX_CAPTURES);
	struct capture *c = calloc(1, sizeof(*c));
	if (!c)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "capture");
	*c = (struct capture){.b = b, .pidfd = -1, .result_fd = -1, .asker = *asker, .ref = {.slot = BROKER_NO_SLOT}};
	if (tree) {
		memcpy(c->key, tree->key, sizeof(c->key));
		c->ref = tree->ref;
	}
	c->pidfd = unpacker_start(b, job, &c->result_fd);
	c->source = c->pidfd < 0 ? NULL : loop_fd_add(b->loop, c->pidfd, EPOLLIN, capture_ended, c);
	if (!c->source) {
		sbx_err_set(err, SBX_E_SYSTEM, c->pidfd < 0 ? -c->pidfd : errno, "start sandbox-unpack");
		if (c->pidfd >= 0) /* nobody would wait for it */
			unpacker_end(c->pidfd);
		capture_free(c);
		return -1;
	}
	*place = c;
	return 0;
}

int capture_start(struct broker *b, const struct broker_capture_req *req, const struct capture_tree *tree, int out_fd,
		  const struct broker_asker *asker, struct sbx_err *err)
{
	char program[] = "sandbox-unpack", o_capture[] = "--capture", o_bytes[] = "--max-bytes", o_entries[] = "--max-entries";
	char o_views[] = "--views", o_skip[] = "--skip";
	char max_bytes[NUMBER_TEXT], max_entries[NUMBER_TEXT], form[8];
	char *argv[ARGS_MAX] = {program, o_capture, form, o_bytes, max_bytes, o_entries, max_entries};
	const int views[2] = {tree->below_fd, tree->merged_fd};
	size_t n = 7;

	if (check_file(out_fd, O_WRONLY, err) < 0 || check_bounds(b, req, err) < 0)
		return -1;
	if (tree->n_skip > SKIP_MAX)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "%zu paths to skip", tree->n_skip);
	snprintf(form, sizeof(form), "%s", form_names[req->form]);
	snprintf(max_bytes, sizeof(max_bytes), "%llu", (unsigned long long)req->max_bytes);
	snprintf(max_entries, sizeof(max_entries), "%llu", (unsigned long long)req->max_entries);
	if (tree->below_fd >= 0)
		argv[n++] = o_views;
	for (size_t i = 0; i < tree->n_skip; i++) {
		argv[n++] = o_skip;
		argv[n++] = (char *)(uintptr_t)tree->skip[i]; /* execve() changes nothing behind its const */
	}
	const struct unpacker_job job = {.base = tree->base, .in_fd = out_fd, .target_fd = tree->tree_fd, .view_fds = views,
					 .n_views = tree->below_fd >= 0 ? 2 : 0, .argv = argv};
	return start(b, &job, tree, asker, err);
}

int capture_layer(struct broker *b, const struct broker_capture_req *req, int out_fd, const struct broker_asker *asker,
		  struct sbx_err *err)
{
	char name[BROKER_KEY_HEX];

	layers_name(req->key, name);
	if (!layers_present(b, req->key))
		return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "layer %.12s is not in the store", name);
	auto_fd mount = rootfs_clone(b->layers_fd, name, true, -1);
	auto_fd fd = mount < 0 ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, mount < 0 ? -mount : errno, "layer %.12s", name);
	struct capture_tree tree = {.tree_fd = fd, .below_fd = -1, .merged_fd = -1, .base = b->layer_base, .ref = {.slot = BROKER_NO_SLOT}};
	memcpy(tree.key, req->key, sizeof(tree.key));
	return capture_start(b, req, &tree, out_fd, asker, err);
}

int capture_verify(struct broker *b, const struct broker_layer_req *req, const struct broker_asker *asker, struct sbx_err *err)
{
	char program[] = "sandbox-unpack", o_verify[] = "--verify", o_entries[] = "--max-entries", max_entries[] = VERIFY_MAX_ENTRIES;
	char *argv[] = {program, o_verify, o_entries, max_entries, NULL};
	char name[BROKER_KEY_HEX];

	layers_name(req->key, name);
	if (!layers_present(b, req->key))
		return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "layer %.12s is not in the store", name);
	auto_fd seal = layers_seal_open(b, req->key);
	if (seal < 0)
		return seal == -ENOENT ? sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "layer %.12s has no seal", name)
				       : sbx_err_set(err, SBX_E_SYSTEM, -seal, "seal of layer %.12s", name);
	auto_fd mount = rootfs_clone(b->layers_fd, name, true, -1);
	auto_fd fd = mount < 0 ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, mount < 0 ? -mount : errno, "layer %.12s", name);
	struct capture_tree tree = {.ref = {.slot = BROKER_NO_SLOT}};
	memcpy(tree.key, req->key, sizeof(tree.key));
	const struct unpacker_job job = {.base = b->layer_base, .in_fd = seal, .target_fd = fd, .nobody_moved = true, .argv = argv};
	return start(b, &job, &tree, asker, err);
}

/* Relative to the sandbox's root. */
static const char *const not_captured[] = {"etc/resolv.conf", "etc/hosts", "etc/hostname", "opt/opensandbox/.env", "run/sandbox"};

int capture_sandbox(struct broker *b, struct slot *s, const struct broker_capture_req *req, int out_fd, const struct broker_asker *asker,
		    struct sbx_err *err)
{
	struct rootfs_views views = {-1, -1, -1};

	if (s->host_usr || !s->n_layers || layers_is_host_key(s->use->layer[0]))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the image \"host\" is this machine's own /usr: what was made from it cannot be an image");
	if (rootfs_views(b, s, &views, err) < 0)
		return -1;
	bool flat = req->kind == 1;
	const struct capture_tree tree = {
		.tree_fd = flat ? views.merged_fd : views.upper_fd,
		.below_fd = flat ? -1 : views.below_fd,
		.merged_fd = flat ? -1 : views.merged_fd,
		.base = slot_base(b, s),
		.skip = not_captured,
		.n_skip = ARRAY_SIZE(not_captured),
		.ref = {.slot = s->number, .generation = s->generation},
	};
	int rc = capture_start(b, req, &tree, out_fd, asker, err);
	close_keep_errno(views.upper_fd);
	close_keep_errno(views.below_fd);
	close_keep_errno(views.merged_fd);
	return rc;
}

int capture_index(struct broker *b, const struct broker_capture_req *req, int file_fd, const struct broker_asker *asker,
		  struct sbx_err *err)
{
	char program[] = "sandbox-unpack", o_index[] = "--index", o_bytes[] = "--max-bytes", o_entries[] = "--max-entries", o_kind[] = "--kind";
	char max_bytes[NUMBER_TEXT], max_entries[NUMBER_TEXT], form[8], kind[8];
	char *argv[ARGS_MAX] = {program, o_index, form, o_bytes, max_bytes, o_entries, max_entries};

	if (check_file(file_fd, O_RDWR, err) < 0 || check_bounds(b, req, err) < 0)
		return -1;
	snprintf(form, sizeof(form), "%s", form_names[req->form]);
	snprintf(max_bytes, sizeof(max_bytes), "%llu", (unsigned long long)req->max_bytes);
	snprintf(max_entries, sizeof(max_entries), "%llu", (unsigned long long)req->max_entries);
	if (req->kind) {
		snprintf(kind, sizeof(kind), "%s", kind_names[req->kind]);
		argv[7] = o_kind;
		argv[8] = kind;
	}
	const struct unpacker_job job = {.base = b->layer_base, .in_fd = file_fd, .target_fd = b->null_fd, .argv = argv};
	return start(b, &job, NULL, asker, err);
}

void capture_cancel(struct broker *b, uint64_t number)
{
	for (size_t i = 0; i < PLACES; i++)
		if (b->capture[i] && b->capture[i]->asker.connection == number) /* its end is noticed as any other */
			pidfd_kill(b->capture[i]->pidfd);
}

void capture_end_life(struct broker *b, const struct broker_slot_ref *ref)
{
	for (size_t i = 0; i < PLACES; i++)
		if (b->capture[i] && is_of(b->capture[i], ref))
			pidfd_kill(b->capture[i]->pidfd);
}

bool capture_uses_layer(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	for (size_t i = 0; i < PLACES; i++)
		if (b->capture[i] && !memcmp(b->capture[i]->key, key, BROKER_KEY_BYTES))
			return true;
	return false;
}

bool capture_uses_life(const struct broker *b, const struct broker_slot_ref *ref)
{
	for (size_t i = 0; i < PLACES; i++)
		if (b->capture[i] && is_of(b->capture[i], ref))
			return true;
	return false;
}
