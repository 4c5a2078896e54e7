/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: deadlines on the wall clock
 *
 * One timerfd on CLOCK_REALTIME with TFD_TIMER_CANCEL_ON_SET for the earliest deadline of all, so that a step of the clock
 * is seen at once; deadlines also count while the daemon was down or the sandbox is Paused.
 */
#ifndef RUNTIME_EXPIRY_H
#define RUNTIME_EXPIRY_H

#include "base/loop.h"

#include <stddef.h>
#include <stdint.h>

struct expiry;

/* A deadline, inside the object that it belongs to; zeroed is "none". */
struct expiry_node {
	int64_t due_wall_usec;
	size_t place; /* private: index in the heap plus 1; 0: not in it */
};

/* The deadline of @node has come; it is no longer set. */
typedef void expiry_handler(void *arg, struct expiry_node *node);

/* The clock stood before 2020 and was set: it jumped by @by_usec.  Deadlines before 2020 are the callee's to move. */
typedef void expiry_clock_set(void *arg, int64_t by_usec);

/** expiry_new() - Deadlines on @loop, told to @handler with @arg; Return: NULL with @err set (SYSTEM, NO_MEMORY) */
struct expiry *expiry_new(struct loop *loop, expiry_handler *handler, void *arg, struct sbx_err *err) SBX_WUR;
/** expiry_on_clock_set() - Tell @clock_set, with the handler's arg, when a clock before 2020 is set; seen while @e has a deadline */
void expiry_on_clock_set(struct expiry *e, expiry_clock_set *clock_set);
/** expiry_free() - Release @e; nodes are the callers' */
void expiry_free(struct expiry *e);
/** expiry_set() - Set or move the deadline of @node to @due_wall_usec (0: none); Return: 0 or -ENOMEM */
int expiry_set(struct expiry *e, struct expiry_node *node, int64_t due_wall_usec) SBX_WUR;
/** expiry_clear() - Take the deadline of @node away; fine when it has none */
void expiry_clear(struct expiry *e, struct expiry_node *node);
/** expiry_first() - The node of @e whose deadline comes first, or NULL */
const struct expiry_node *expiry_first(const struct expiry *e);

#endif
