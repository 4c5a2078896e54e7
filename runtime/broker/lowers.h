/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the layers of an image, mapped to one slot and ready to be mounted over
 *
 * An overlay makes its own copies of the mounts that it is given, so those of one life serve the next of the same slot and image
 * as they are: a read-only copy of each layer with the slot's id map, attached to nothing.  What is saved is not making them, which
 * takes 10 us, but ending them: each end of a mount waits for an RCU grace period, 60 us on an idle machine and milliseconds on a
 * busy one.  Sets that are not wanted any more are ended when nobody waits.
 *
 * The kernel takes detached mounts and descriptors of lowers from 6.15 on; before, and for more layers than are kept, the mounts
 * are attached for the moment of the overlay's mount (rootfs_mount.c).
 *
 * A set is as of one time of change of <state dir>/layers: whatever comes or goes there makes every set stale, so a layer that was
 * dropped, or made again under its key, is never shown.  Until it is ended, a set keeps the (emptied) directory of a dropped layer.
 */
#ifndef RUNTIME_LOWERS_H
#define RUNTIME_LOWERS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct broker_image;
struct slot;

#define LOWERS_MOST 32u /* layers of an image that are kept */

/**
 * lowers_get() - The layers of @image as slot @s of @b sees them
 * @b:		The broker
 * @s:		The slot; keeps them
 * @image:	Its layers, lowest first
 * @ret_fd:	Set to its n_layers descriptors, borrowed until the next call
 * @err:	Filled on failure: as rootfs_layer()
 *
 * Return: 1; 0, they cannot be kept (too many, or not by this kernel); or -1 with @err set
 */
int lowers_get(struct broker *b, struct slot *s, const struct broker_image *image, const int **ret_fd, struct sbx_err *err) SBX_WUR;
/** lowers_refuse() - The kernel of @b took no detached layers: lowers_get() returns 0 from now on */
void lowers_refuse(struct broker *b);
/** lowers_stale() - Whether @b has sets to be ended */
bool lowers_stale(const struct broker *b);
/** lowers_tidy() - End one of them; waits for the kernel */
void lowers_tidy(struct broker *b);

#endif
