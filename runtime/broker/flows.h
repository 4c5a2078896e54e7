/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: connection entries of dead sandboxes
 *
 * Deleting the entries of one address means walking the kernel's whole table, which is shared by all network namespaces (11 ms
 * with 262144 buckets).  So it is not done at all while the router has no entry, and else for all waiting slots at once, in
 * a child: the broker's loop goes on.  A slot that waits is not given out.
 */
#ifndef RUNTIME_FLOWS_H
#define RUNTIME_FLOWS_H

#include "base/err.h"

#include <stdbool.h>

struct broker;
struct slot;

/** flows_init() - Make the state of @b; Return: 0 or -1 with @err set */
int flows_init(struct broker *b, struct sbx_err *err) SBX_WUR;
/**
 * flows_drop() - Delete the entries of a slot whose link is gone
 * @b:	The broker
 * @s:	In state DRAINING; slot_drain() is called again when it is done
 *
 * Return: whether there are none left now
 */
bool flows_drop(struct broker *b, struct slot *s);

#endif
