// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/root_ahead.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/path.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/disk.h"
#include "runtime/broker/idmap.h"
#include "runtime/broker/launch.h"
#include "runtime/broker/rootfs_mount.h"
#include "runtime/broker/slot.h"
#include "runtime/broker/trash.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define AHEAD_MOST 4u	     /* roots that wait, of all slots */
#define AHEAD_FREE 2u	     /* of free slots, where no shells wait at all */
#define AGAIN_MS   10000u    /* after a failure */
#define NAME_SIZE  16
#define UPPER_MODE 0755

struct ahead_root {
	struct slot *slot; /* NULL: this place is empty */
	int fd;		   /* the mount; -1: it was taken, and what it was exchanged for lies in its directory */
	struct broker_image image;
};

struct root_ahead {
	int dir_fd; /* <state dir>/roots */
	struct ahead_root root[AHEAD_MOST];
	struct broker_image wanted; /* n_layers 0: none */
	struct broker_image other;  /* what the last create wanted instead */
	const struct slot *serving; /* of the last create that asked; NULL: none has */
	uint64_t again_ms;	    /* nothing is mounted before */
};

static bool same(const struct broker_image *a, const struct broker_image *b)
{
	return a->n_layers == b->n_layers && !memcmp(a->layer, b->layer, sizeof(a->layer[0]) * a->n_layers);
}

static void copy(struct broker_image *to, const struct broker_image *from)
{
	to->n_layers = from->n_layers;
	memcpy(to->layer, from->layer, sizeof(from->layer[0]) * from->n_layers);
}

static bool has_layer(const struct broker_image *image, const uint8_t key[BROKER_KEY_BYTES])
{
	for (uint32_t i = 0; i < image->n_layers; i++)
		if (!memcmp(image->layer[i], key, BROKER_KEY_BYTES))
			return true;
	return false;
}

static struct ahead_root *root_of(const struct broker *b, const struct slot *s)
{
	for (size_t i = 0; i < AHEAD_MOST; i++)
		if (b->ahead->root[i].slot == s)
			return &b->ahead->root[i];
	return NULL;
}

static void dir_name(const struct slot *s, char name[NAME_SIZE])
{
	snprintf(name, NAME_SIZE, "%u", s->number);
}

/* Before its layers go, or when nobody waits: the kernel ends the mount here. */
static void end_root(struct broker *b, struct ahead_root *root)
{
	char name[NAME_SIZE];

	dir_name(root->slot, name);
	replace_fd(&root->fd, -1);
	int r = trash_put(b, b->ahead->dir_fd, name, slot_base(b, root->slot));
	if (r < 0 && r != -ENOENT)
		log_error("roots/%s stays until the next start: %s", name, strerror(-r));
	root->slot = NULL;
}

/* ---- whose turn comes next ---- */

/* It may still be taken: by the life that its slot is getting, or gets next. */
static bool may_serve(const struct ahead_root *root)
{
	const struct slot *s = root->slot;

	return root->fd >= 0 &&
	       (s->state == BROKER_SLOT_FREE || s->state == BROKER_SLOT_MAKING || (s->state == BROKER_SLOT_SHELL && !s->rooted));
}

static struct ahead_root *unwanted(const struct broker *b)
{
	for (size_t i = 0; i < AHEAD_MOST; i++) {
		struct ahead_root *root = &b->ahead->root[i];

		if (root->slot && (!may_serve(root) || !same(&root->image, &b->ahead->wanted)))
			return root;
	}
	return NULL;
}

/* A slot that should have a root and has none; NULL: none, or no place for it */
static struct slot *lacking(struct broker *b)
{
	const struct root_ahead *a = b->ahead;
	uint32_t n = 0;

	if (!a->wanted.n_layers || loop_now_ms(b->loop) < a->again_ms || !root_of(b, NULL))
		return NULL;
	for (struct slot *s = b->pool.first; s; s = s->next)
		if (!s->rooted && s->disk_fd < 0 && !root_of(b, s))
			return s;
	for (struct slot *s = b->settings.pool_target ? NULL : slot_next(b)->first; s && n < AHEAD_FREE; s = s->next, n++)
		if (!root_of(b, s))
			return s;
	return NULL;
}

/* A create is under way: its shell is at work, and its next message should find nobody busy. */
static bool busy(const struct broker *b)
{
	const struct slot *s = b->ahead->serving;

	return s && (s->state == BROKER_SLOT_MAKING || s->state == BROKER_SLOT_ARMING);
}

bool root_ahead_due(struct broker *b)
{
	return b->ahead && !busy(b) && (unwanted(b) || lacking(b));
}

/* ---- making one ---- */

/* As the directory of a life is made (launch.c): everything in it is its B's from the start. */
static int make_directory(struct broker *b, const struct slot *s, const char *name)
{
	idmap_act_as(slot_base(b, s));
	int r = mkdirat(b->ahead->dir_fd, name, 0700) < 0 ? -errno : 0;
	auto_fd dir = r < 0 ? r : path_open_beneath(b->ahead->dir_fd, name, O_RDONLY | O_DIRECTORY);
	if (dir >= 0 && (mkdirat(dir, "upper", UPPER_MODE) < 0 || mkdirat(dir, "work", 0700) < 0))
		r = -errno;
	idmap_act_as(0);
	return r < 0 ? r : take_fd(&dir);
}

static int make_root(struct broker *b, struct slot *s, struct ahead_root *root, struct sbx_err *err)
{
	char name[NAME_SIZE];

	dir_name(s, name);
	copy(&root->image, &b->ahead->wanted);
	root->slot = s;
	auto_fd dir = make_directory(b, s, name);
	if (dir < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -dir, "roots/%s", name);
	if (FAULT_POINT("root-ahead-directory"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	root->fd = rootfs_mount(b, s, &root->image, dir, err);
	if (root->fd < 0 || FAULT_POINT("root-ahead-mounted"))
		return root->fd < 0 ? -1 : sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	return 0;
}

void root_ahead_step(struct broker *b)
{
	struct sbx_err err = {0};

	if (!b->ahead || busy(b))
		return;
	struct ahead_root *root = unwanted(b);
	if (root) {
		end_root(b, root);
		return;
	}
	root = root_of(b, NULL);
	struct slot *s = root ? lacking(b) : NULL;
	if (!s)
		return;
	if (make_root(b, s, root, &err) == 0)
		return;
	log_warn("no root ahead of its create for slot %u: %s", s->number, err.msg);
	b->ahead->again_ms = loop_now_ms(b->loop) + AGAIN_MS;
	end_root(b, root);
}

/* ---- the creates ---- */

int root_ahead_take(struct broker *b, struct slot *s, const struct broker_image *image)
{
	struct ahead_root *root = b->ahead ? root_of(b, s) : NULL;
	char name[NAME_SIZE], life[32];

	if (!root || root->fd < 0 || !same(&root->image, image))
		return -1;
	dir_name(s, name);
	launch_dir_name(s, life);
	if (renameat2(b->ahead->dir_fd, name, b->sandboxes_fd, life, RENAME_EXCHANGE) < 0) {
		log_error("the root of slot %u that was mounted ahead cannot be used: %s", s->number, strerror(errno));
		b->ahead->again_ms = UINT64_MAX; /* nor will the next one */
		return -1;
	}
	if (FAULT_POINT("root-ahead-taken"))
		log_warn("slot %u: fault point", s->number); /* only a kill makes a difference here */
	return take_fd(&root->fd);
}

void root_ahead_note(struct broker *b, const struct slot *s, const struct broker_image *image)
{
	struct root_ahead *a = b->ahead;

	if (!a)
		return;
	a->serving = s;
	if (same(image, &a->wanted)) {
		a->other.n_layers = 0;
	} else if (!a->wanted.n_layers || same(image, &a->other)) {
		/* one create of another image does not make the roots that wait worthless, two in a row do */
		copy(&a->wanted, image);
		a->other.n_layers = 0;
	} else {
		copy(&a->other, image);
	}
}

void root_ahead_forget(struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	struct root_ahead *a = b->ahead;

	if (!a)
		return;
	if (has_layer(&a->wanted, key))
		a->wanted.n_layers = 0;
	if (has_layer(&a->other, key))
		a->other.n_layers = 0;
	for (size_t i = 0; i < AHEAD_MOST; i++)
		if (a->root[i].slot && has_layer(&a->root[i].image, key))
			end_root(b, &a->root[i]);
}

/* ---- start ---- */

/* An overlay's upper is mounted once: what an earlier broker made is of no use. */
static void sweep(struct broker *b, int dir_fd)
{
	auto_dir dir = path_dir(dir_fd);
	struct stat st;

	for (struct dirent *e; dir && (e = readdir(dir));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		int r = trash_put(b, dir_fd, e->d_name, st.st_uid);
		if (r < 0)
			log_error("roots/%.32s stays: %s", e->d_name, strerror(-r));
	}
}

int root_ahead_init(struct broker *b, struct sbx_err *err)
{
	auto_fd dir = path_make_dir(b->state_fd, "roots", 0, 0, 0700);

	if (dir < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -dir, "directory roots of the state directory (owner 0, mode 0700)");
	rootfs_spread(dir);
	sweep(b, dir);
	if (disk_by_quota(b))
		return 0;
	b->ahead = calloc(1, sizeof(*b->ahead));
	if (!b->ahead)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "roots");
	b->ahead->dir_fd = take_fd(&dir);
	for (size_t i = 0; i < AHEAD_MOST; i++)
		b->ahead->root[i].fd = -1;
	return 0;
}
