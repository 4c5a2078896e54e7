/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: mounts that the broker makes for sandboxes
 *
 * All are made on a staging tmpfs in the broker's own mount namespace (nothing is left when it dies), taken off again as
 * detached copies, and handed to a shell by descriptor.  Only these kinds exist: overlay of layers, the host's /usr, /dev,
 * volumes.  Each is nosuid and nodev but /dev, which has six nodes and is read-only.
 */
#ifndef RUNTIME_ROOTFS_MOUNT_H
#define RUNTIME_ROOTFS_MOUNT_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct slot;
struct broker_image;

/**
 * rootfs_records() - Make <run dir>/slots a tmpfs unless it lies on one already (/run does nearly everywhere)
 * @run_dir:	Absolute
 * @err:	Filled on failure: SYSTEM
 *
 * Records and FIFOs are made and removed for each sandbox: on ext4 that costs milliseconds, and a record is one write only on
 * a tmpfs.  Called in the host's mount namespace, before rootfs_enter(): it has to outlive the broker.
 *
 * Return: 0, or -1 with @err set
 */
int rootfs_records(const char *run_dir, struct sbx_err *err) SBX_WUR;
/** rootfs_spread() - Have what is made in the directory @fd lie apart from each other on the disk, where the file system can */
void rootfs_spread(int fd);
/** rootfs_enter() - Enter an own mount namespace; directories whose mounts are to be copied are opened after it; Return: 0 or -1, @err set */
int rootfs_enter(struct sbx_err *err) SBX_WUR;
/**
 * rootfs_init() - Prepare the staging tmpfs, /dev and, for the `host` image, /usr
 * @b:		The broker; gets stage_fd, upper_fd, has_usr; the working directory becomes the staging tmpfs
 * @err:	Filled on failure: SYSTEM, HOST_LACKS
 *
 * Return: 0, or -1 with @err set
 */
int rootfs_init(struct broker *b, struct sbx_err *err) SBX_WUR;
/** rootfs_leave_host() - In a child: a mount namespace with nothing but /proc, /sys and what rootfs_dev() of @b copies; Return: 0 or -errno */
int rootfs_leave_host(struct broker *b) SBX_WUR;
/** rootfs_dev() - A detached copy of the /dev tree of @b; Return: descriptor of the mount, the caller's, or -errno */
int rootfs_dev(struct broker *b) SBX_WUR;
/** rootfs_usr() - A detached copy of the host's /usr as @b shows it; Return: descriptor, the caller's, or -errno */
int rootfs_usr(struct broker *b) SBX_WUR;
/**
 * rootfs_helper() - The user namespace that maps layers (S) to slot @s of @b; made when it is first asked for
 *
 * It belongs to the slot for good: the next lives find it.
 *
 * Return: descriptor, the slot's; or -1 with @err set
 */
int rootfs_helper(struct broker *b, struct slot *s, struct sbx_err *err) SBX_WUR;
/**
 * rootfs_layer() - A detached, read-only copy of one layer
 * @b:		The broker
 * @s:		The slot whose ids its files get
 * @key:	Of the layer
 * @err:	Filled on failure: IMAGE_NOT_FOUND (it is not in the store), HOST_LACKS, SYSTEM
 *
 * Return: descriptor of the mount, the caller's; or -1 with @err set
 */
int rootfs_layer(struct broker *b, struct slot *s, const uint8_t *key, struct sbx_err *err) SBX_WUR;
/**
 * rootfs_overlay() - Mount the root of one sandbox
 * @b:		The broker
 * @s:		Its slot: upper and work are sandboxes/<slot>.<generation>/{upper,work}, nowhere else; gets the layers
 * @image:	Its layers, lowest first
 * @err:	Filled on failure: IMAGE_NOT_FOUND (a layer is missing), HOST_LACKS, SYSTEM
 *
 * Once in a life: `volatile` refuses an upper that was mounted before.  One that was mounted ahead (root_ahead.h) is taken if there is one.
 *
 * Return: descriptor of the detached mount, the caller's; or -1 with @err set
 */
int rootfs_overlay(struct broker *b, struct slot *s, const struct broker_image *image, struct sbx_err *err) SBX_WUR;
/**
 * rootfs_mount() - Mount a root for slot @s of @b that no life of it has asked for yet
 * @b:		The broker
 * @s:		The slot whose ids it gets; nothing of it changes but the layers it keeps
 * @image:	Its layers, lowest first
 * @files:	Directory with fresh upper and work, which are its B's
 * @err:	Filled on failure: as rootfs_overlay()
 *
 * Return: descriptor of the detached mount, the caller's; or -1 with @err set
 */
int rootfs_mount(struct broker *b, struct slot *s, const struct broker_image *image, int files, struct sbx_err *err) SBX_WUR;
/* Read-only, the files as the sandbox sees them but with its host ids; the descriptors are the caller's. */
struct rootfs_views {
	int upper_fd;  /* directory: what it has written, whiteouts and all */
	int below_fd;  /* directory: its layers as one */
	int merged_fd; /* directory: both as one */
};

/**
 * rootfs_views() - Look at the root of one sandbox from outside, without what is mounted in it
 * @b:		The broker
 * @s:		Its slot, which has its root; nothing of it is changed
 * @ret:	Filled
 * @err:	Filled on failure: SYSTEM, HOST_LACKS, IMAGE_NOT_FOUND
 *
 * The upper becomes the uppermost lower of an overlay that cannot be written: only so the kernel says what is hidden.
 *
 * Return: 0, or -1 with @err set
 */
int rootfs_views(struct broker *b, struct slot *s, struct rootfs_views *ret, struct sbx_err *err) SBX_WUR;
/** rootfs_attach() - Attach the detached mount @fd to the staging tmpfs of @b for a moment, one at a time; Return: 0 or -errno */
int rootfs_attach(struct broker *b, int fd) SBX_WUR;
/** rootfs_detach() - Take it off again; descriptors and copies of it stay */
void rootfs_detach(void);
/**
 * rootfs_clone() - Make a detached, restricted copy of one mount
 * @dir_fd:	Directory or file; with @name "" itself
 * @name:	Relative name, or ""
 * @read_only:	Whether nothing may be written through it
 * @ns_fd:	Helper user namespace for an id map, or -1
 *
 * Return: descriptor of the mount (private, nosuid, nodev), or -errno (-EINVAL: this file system takes no id map)
 */
int rootfs_clone(int dir_fd, const char *name, bool read_only, int ns_fd) SBX_WUR;

#endif
