/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: pausing and resuming without waiting
 *
 * The kernel freezes most groups before the write returns.  One with a process that it cannot stop (a dead file server) may
 * never get there, so the answer waits for the group's event, two seconds at most, while the broker serves the others.  A pause
 * that was not reached is taken back.
 */
#ifndef RUNTIME_FREEZER_H
#define RUNTIME_FREEZER_H

#include "base/err.h"
#include "runtime/broker/broker_int.h"

#include <stdbool.h>

/**
 * freezer_set() - Stop or go on with every process of a slot's life; answered by broker_freeze_done()
 * @b:		The broker
 * @s:		LIVE or FROZEN; becomes the other one when the kernel says so
 * @freeze:	Which
 * @asker:	Who waits
 * @err:	Filled: LIMIT (one is under way, or too many are), PAUSE_FAILED, RESUME_FAILED
 *
 * Return: 0, or -1 with @err set and nothing to come
 */
int freezer_set(struct broker *b, struct slot *s, bool freeze, const struct broker_asker *asker, struct sbx_err *err) SBX_WUR;

#endif
