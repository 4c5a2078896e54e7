/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: broker-shells, the child that makes shells for the pool
 *
 * What a shell needs from the kernel (namespaces, groups, a link) takes milliseconds, some of them waiting for locks that the removal of
 * dead namespaces holds.  So for the pool a child of the broker does it, one shell after the other: it gets the number and generation of a
 * slot that the broker took, and hands back descriptors.  Everything that stays in a table stays in the broker: the child remembers nothing.
 * Its mount namespace has only /proc, /sys and the device nodes, and its copy of the broker's memory is small, so that a clone copies little.
 *
 * A create that finds the pool empty gets the next shell that is on its way, else one of its own by the same way.  One that this child
 * fails to make is made in the broker's own loop, and so are all where there is no pool: no sandbox depends on it.  While it has a slot, that
 * belongs to nobody else (slot->with_shells); when it fails or ends, what it may have made is found by name and undone, as after the end of a broker.
 * The next broker ends the one of the last before it looks at anything.
 */
#ifndef RUNTIME_SHELLS_H
#define RUNTIME_SHELLS_H

#include "base/err.h"

#include <stdbool.h>

struct broker;
struct slot;

/**
 * shells_init() - End the child that an earlier broker left, start our own
 * @b:		The broker: its directories, groups, links, programs and staging are there, its table of slots is not
 * @err:	Filled on failure: SYSTEM (the earlier one does not end), NO_MEMORY
 *
 * That our own does not start is only logged: shells are then made in the loop.
 *
 * Return: 0, or -1 with @err set
 */
int shells_init(struct broker *b, struct sbx_err *err) SBX_WUR;

/** shells_end_earlier() - Kill the child that a broker which is gone left, and wait for its end; @slots_fd: <run dir>/slots; Return: 0, or -1 with @err set */
int shells_end_earlier(int slots_fd, struct sbx_err *err) SBX_WUR;

/** shells_ask() - Have the shell of slot @s of @b made, whose create is nobody's yet; Return: false when the caller has to make it */
bool shells_ask(struct broker *b, struct slot *s);

#endif
