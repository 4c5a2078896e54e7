/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandboxd asks the monitor for sandbox-fetch processes
 *
 * Answers come in the order of the requests.  After a restart of sandboxd answers to the one before may still come: tags say whose
 * they are.
 */
#ifndef API_FETCH_CHANNEL_H
#define API_FETCH_CHANNEL_H

#include "base/err.h"
#include "base/loop.h"
#include "images/fetch_client.h"

struct fetch_channel;

/** fetch_channel_new() - Serve @fd (MONITOR_FD_FETCH, borrowed) in @loop; Return: the channel, or NULL with @err set */
struct fetch_channel *fetch_channel_new(struct loop *loop, int fd, struct sbx_err *err) SBX_WUR;
/** fetch_channel_free() - Ask no more; what was asked for is not told; NULL is fine */
void fetch_channel_free(struct fetch_channel *c);
/** fetch_channel_starter() - The hook for fetch_client.h; valid as long as @c */
struct fetch_starter fetch_channel_starter(struct fetch_channel *c);

#endif
