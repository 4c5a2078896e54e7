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

#include "runtime/broker/links.h"

#include <stddef.h>
#include <sys/types.h>

struct broker;
struct broker_create;
struct slot;

/* What broker-shells (shells.h) tells of a shell that it made; the descriptors are beside it, in the order of enum launch_made_fd. */
struct launch_made {
	int32_t pid;
	uint32_t n_fds;
	uint64_t start_time;
	struct links_end link;
};

enum launch_made_fd { LAUNCH_MADE_PIDFD = 0, LAUNCH_MADE_SOCKET, LAUNCH_MADE_EVENTS, LAUNCH_MADE_OOM /* may be absent */, LAUNCH_MADE_FDS };

/**
 * launch_make() - Start to make the shell of slot @s of @b, which was slot_take()n
 *
 * Its create, when there is one, is armed as soon as the shell is ready.  A failure is answered to the create or logged, and
 * the slot is then on its way to FREE.
 */
void launch_make(struct broker *b, struct slot *s);
/**
 * launch_begin() - Make files, groups, process and link of a shell and send it what it needs; it answers on s->launch_fd
 * @b:		The broker, or its child broker-shells
 * @s:		The slot, its directory is open
 * @err:	Filled on failure: SYSTEM; @s tells what is there already
 *
 * Return: 0, or -1 with @err set
 */
int launch_begin(struct broker *b, struct slot *s, struct sbx_err *err) SBX_WUR;
/** launch_made_of() - Tell in @ret and @ret_fd (of LAUNCH_MADE_FDS; they stay those of @s) what launch_begin() made of @s; Return: how many descriptors */
size_t launch_made_of(const struct slot *s, struct launch_made *ret, int *ret_fd);
/** launch_taken_over() - The shell of slot @s of @b, which broker-shells made, is the broker's: @made, and the descriptors @fd, which are taken */
void launch_taken_over(struct broker *b, struct slot *s, const struct launch_made *made, const int *fd);
/** launch_given_up() - broker-shells will not make the shell of slot @s of @b, for @err: what there is of it is undone */
void launch_given_up(struct broker *b, struct slot *s, const struct sbx_err *err);
/** launch_from_pool() - Take from the pool of @b a shell that can serve @create, at best one with its root; Return: it, or NULL */
struct slot *launch_from_pool(struct broker *b, const struct broker_create *create);
/**
 * launch_coming() - Take from those on their way into the pool the shell that will be ready first
 * @b:		The broker
 *
 * It has no root yet.  The caller gives it a create; while it is with broker-shells, which hands it over by launch_taken_over(), no more than that.
 *
 * Return: its slot, or NULL: none is on its way
 */
struct slot *launch_coming(struct broker *b);
/** launch_not_for_pool() - Slot @s of @b no longer counts among those on their way into the pool */
void launch_not_for_pool(struct broker *b, struct slot *s);
/** launch_open() - Open the network of slot @s of @b where s->create wants no policy; Return: 0, or -1 with @err set */
int launch_open(struct broker *b, struct slot *s, struct sbx_err *err) SBX_WUR;
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
