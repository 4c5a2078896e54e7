/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: launch, the broker's half (the order is drawn in launch_sync.h)
 *
 * Two phases.  launch_make() makes a shell, with a root when one is likely to be wanted; launch_arm() gives a shell its sandbox.
 * Both only start: the shell's answers come through the loop.  A shell serves one sandbox once; whatever fails in it ends the slot's life.
 */
#ifndef RUNTIME_LAUNCH_H
#define RUNTIME_LAUNCH_H

#include "base/err.h"

#include <stdint.h>

struct broker;
struct broker_create;
struct slot;

/**
 * launch_make() - Start to make the shell of slot @s of @b, which was slot_take()n
 *
 * Its create, when there is one, is armed as soon as the shell is ready.  A failure is answered to the create or logged, and
 * the slot is then on its way to FREE.
 */
void launch_make(struct broker *b, struct slot *s);
/** launch_from_pool() - Take from the pool of @b a shell that can serve @create, at best one with its root; Return: it, or NULL */
struct slot *launch_from_pool(struct broker *b, const struct broker_create *create);
/** launch_stale() - A waiting shell of @b whose root nobody has asked for lately; Return: it, or NULL */
struct slot *launch_stale(const struct broker *b);
/** launch_arm() - Make the shell of slot @s of @b what s->create asks for; a failure is answered to the create */
void launch_arm(struct broker *b, struct slot *s);
/** launch_disk_done() - Slot @s of @b, which waited, has its disk, or @failed says why it has none */
void launch_disk_done(struct broker *b, struct slot *s, const struct sbx_err *failed);
/** launch_end() - Close the launch socket of @s and forget its deadline */
void launch_end(struct slot *s);
#define LAUNCH_CHANNEL_FDS 4u
/**
 * launch_channel() - Open the host's ends of a channel
 * @s:		A live slot
 * @channel:	enum broker_channel
 * @ret_fd:	CONTROL: {write, read}; EXEC: {write, read, bulk write, bulk read}, the last two only when the sandbox has them
 *
 * Return: how many descriptors, or -errno
 */
int launch_channel(const struct slot *s, uint32_t channel, int ret_fd[LAUNCH_CHANNEL_FDS]) SBX_WUR;
/** launch_dir_name() - Name of the files of @s below sandboxes/ */
void launch_dir_name(const struct slot *s, char name[32]);

#endif
