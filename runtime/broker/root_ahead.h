/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: roots that are mounted before anybody asks
 *
 * Most of what the mount of an overlay takes is what overlayfs makes and tries in its work directory, with caches that others have
 * filled: 0.4 ms, of which 0.17 remain when it is done again and again.  So when it is quiet the broker mounts roots for the slots
 * whose turn comes next, of the image that creates ask for: shells that wait without a root; without a pool, the slots that are taken next.  Such a
 * root belongs to its slot, as the ids in it do, and its upper and work are <state dir>/roots/<slot>.  A life that wants the same image
 * and no disk of its own gets it by one rename, which exchanges that directory with the one of the life: from then on nothing tells
 * it from a root that was mounted for this life.  Any other life leaves it where it is and gets its own.
 *
 * A root has one life at most.  One that is not wanted any more is ended, and its directory goes into the trash: another image is
 * wanted, its slot was taken by somebody else, a layer of it is dropped.  The mounts end with the broker; what lies in roots/ when one
 * starts is put into the trash.  Where project quotas bound the lives, whose directories have to be theirs from the start, there are none.
 */
#ifndef RUNTIME_ROOT_AHEAD_H
#define RUNTIME_ROOT_AHEAD_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct broker_image;
struct slot;

/**
 * root_ahead_init() - Open <state dir>/roots, put what an earlier broker left there into the trash
 * @b:		The broker: its directories and its trash are there
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int root_ahead_init(struct broker *b, struct sbx_err *err) SBX_WUR;
/**
 * root_ahead_take() - The root that waits for slot @s of @b, if it is of @image
 *
 * Its upper and work are in the directory of the life of @s then.
 *
 * Return: descriptor of the mount, the caller's; or -1: there is none, and nothing has changed
 */
int root_ahead_take(struct broker *b, struct slot *s, const struct broker_image *image);
/** root_ahead_note() - The create of slot @s of @b had to ask for the root of @image: no shell waited with it */
void root_ahead_note(struct broker *b, const struct slot *s, const struct broker_image *image);
/** root_ahead_due() - Whether root_ahead_step() of @b has something to do */
bool root_ahead_due(struct broker *b);
/** root_ahead_step() - End one root of @b that is not wanted, or mount one that is; for a quiet moment */
void root_ahead_step(struct broker *b);
/** root_ahead_forget() - End the roots of @b that use the layer @key, and mount no more */
void root_ahead_forget(struct broker *b, const uint8_t key[BROKER_KEY_BYTES]);

#endif
