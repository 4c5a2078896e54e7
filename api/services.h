/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: how many connections to services inside each sandbox are open
 *
 * All sandboxes share the gateway's connections and descriptors.  One whose service holds its clients, or whose clients
 * hold its service, gets its share of them and no more, so that the others' services and their APIs stay reachable.
 */
#ifndef API_SERVICES_H
#define API_SERVICES_H

#include "base/err.h"

#include <stdint.h>

struct services;
struct services_sandbox;

/** services_new() - Nothing is open; at most @max connections of one sandbox at once; Return: it, or NULL with @err set */
struct services *services_new(unsigned max, struct sbx_err *err) SBX_WUR;
/** services_free() - Release @services, whose connections are all closed; NULL is fine */
void services_free(struct services *services);
/** services_take() - One connection more to sandbox @id; Return: what services_release() gets, or NULL with @err set (LIMIT, NO_MEMORY) */
struct services_sandbox *services_take(struct services *services, const uint8_t id[16], struct sbx_err *err) SBX_WUR;
/** services_release() - A connection is closed; NULL @sandbox is fine */
void services_release(struct services_sandbox *sandbox);

#endif
