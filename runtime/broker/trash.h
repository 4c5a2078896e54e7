/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: trash
 *
 * What a dead sandbox left is a hostile tree.  The broker only renames it into <state dir>/trash; a worker removes it, in a
 * user namespace that maps nothing but the id ranges of slots, layers and volumes, with the trash as its root directory
 * and no network.  The worker never recurses: a directory that is not empty is moved to the top of the trash, so depth
 * costs nothing, and a worker that is killed goes on where it stopped.  A child of it is the last who has the mounts of a
 * sandbox that ended, and lets them go.
 */
#ifndef RUNTIME_TRASH_H
#define RUNTIME_TRASH_H

#include "base/err.h"

#include <stdint.h>

struct broker;

/**
 * trash_put() - Move a directory into the trash and wake the worker
 * @b:		The broker
 * @dir_fd:	Parent of the directory
 * @name:	Its name, one component
 * @owner:	First id of its range; it gets this owner when it has another, so that the worker may enter
 *
 * Return: 0, -ENOENT when there is no such directory, or -errno
 */
int trash_put(struct broker *b, int dir_fd, const char *name, uint32_t owner) SBX_WUR;
/** trash_mounts() - Have the worker's child close @fd, a mount namespace that nobody is in any more; -1: nothing to do.  Takes @fd */
void trash_mounts(struct broker *b, int fd);
/** trash_init() - Make the state of the trash of @b; Return: 0 or -ENOMEM */
int trash_init(struct broker *b) SBX_WUR;
/** trash_start() - Empty what an earlier broker of @b left; later trash_put()s start the worker by themselves */
void trash_start(struct broker *b);

#endif
