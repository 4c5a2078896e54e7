/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: children that were killed, until they are gone
 *
 * A SIGKILL is an order, not an end: a child in the middle of an fsync() of a slow disk may take seconds to die.  Nobody waits for
 * it in a loop; its pidfd becomes readable when it is gone, and only then it is reaped.
 */
#ifndef BASE_REAPER_H
#define BASE_REAPER_H

#include "base/loop.h"

struct reaper;

/**
 * reaper_new() - Make one
 * @loop:	Lives longer than the reaper
 * @idle:	Called when the last child is gone; may be NULL
 * @arg:	Handed to @idle
 * @err:	Filled on failure: NO_MEMORY
 *
 * Return: the reaper (reaper_free() it), or NULL with @err set
 */
struct reaper *reaper_new(struct loop *loop, void (*idle)(void *arg), void *arg, struct sbx_err *err) SBX_WUR;
/** reaper_free() - Forget those that are still dying, whom the end of this process reaps; NULL is fine */
void reaper_free(struct reaper *r);
/** reaper_kill() - Kill the child behind @pidfd, which is taken over, and reap it when it is gone; never waits */
void reaper_kill(struct reaper *r, int pidfd);
/** reaper_busy() - Whether a child of @r is still dying */
bool reaper_busy(const struct reaper *r);

#endif
