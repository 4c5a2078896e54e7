/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: an image file as a file system of its own
 *
 * A sparse ext4 image behind a loop device.  The device is cleared by the kernel when the last mount of it goes (autoclear), and
 * mounts are made detached: whoever is killed leaves neither.  Only our kernel ever writes the file, and only root can open it.
 */
#ifndef RUNTIME_DISK_LOOP_H
#define RUNTIME_DISK_LOOP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum disk_loop_flags { DISK_LOOP_DISCARD = 1u << 0 /* removed files give their space back at once */ };

/** disk_loop_ready() - Whether this host has loop devices and ext4; Return: 0, or -errno with the lacking part's name in @what */
int disk_loop_ready(const char **what) SBX_WUR;
/**
 * disk_loop_mount() - Attach an image to a free loop device and mount it
 * @image_fd:	The image, opened for reading and writing
 * @flags:	Mask of enum disk_loop_flags
 * @err:	Filled on failure: HOST_LACKS (no loop devices), SYSTEM
 *
 * An image that is attached already is mounted from that device: two of them on one file would destroy it.  The first attaching
 * holds a lock on the file for as long as the device has it, so this holds for other processes too.
 * Direct I/O where the file's own file system takes it: contents are then not kept in memory twice.
 *
 * Return: descriptor of the detached mount (nosuid, nodev), or -1 with @err set
 */
int disk_loop_mount(int image_fd, unsigned flags, struct sbx_err *err) SBX_WUR;
/**
 * disk_loop_again() - Mount an image that is mounted already once more, without waiting for anything
 * @image_fd:	The image, opened for reading and writing
 * @dev:	Its device when that is known, else 0; set when it was found
 * @name:	How the image's path ends, "/<directory>/<name>": which devices are worth a look when it is not known
 * @err:	Filled on failure: SYSTEM; EBUSY: no device has the image
 *
 * Return: as disk_loop_mount()
 */
int disk_loop_again(int image_fd, dev_t *dev, const char *name, struct sbx_err *err) SBX_WUR;
/**
 * disk_loop_grow() - Let the file system of an image fill the file, which was made longer
 * @image_fd:	The image, opened for reading and writing; perhaps mounted by others, who go on
 * @bytes:	Size of the file
 * @flags:	As for disk_loop_mount()
 * @err:	Filled on failure: HOST_LACKS, SYSTEM
 *
 * Needs CAP_SYS_RESOURCE.  What a kill cuts off is finished by the next call; the file must not be made shorter again.
 *
 * Return: 0, or -1 with @err set
 */
int disk_loop_grow(int image_fd, uint64_t bytes, unsigned flags, struct sbx_err *err) SBX_WUR;
/** disk_loop_filled() - Whether the file system of @image_fd fills its @bytes */
bool disk_loop_filled(int image_fd, uint64_t bytes);
/**
 * disk_loop_throw_away() - Close @mount_fd of a file system whose content nobody wants, the caller's no more
 *
 * What is not written yet is dropped, not written first; still it can take a second: never in a loop.
 */
void disk_loop_throw_away(int mount_fd);

#endif
