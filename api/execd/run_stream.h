/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the answer to a run of a session or of code: events, and a ping every three seconds
 *
 * Belongs to the run that answers with it.  Events are appended to `events` and leave together with run_stream_send();
 * before run_stream_begin() the request can still be answered with a status of its own.
 */
#ifndef API_EXECD_RUN_STREAM_H
#define API_EXECD_RUN_STREAM_H

#include "base/buf.h"
#include "base/err.h"
#include "base/http_server.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct agent_stream;
struct agent_stream_ops;
struct execd_box;

struct run_stream {
	struct http_request *req; /* NULL: the client is gone, or it was answered */
	struct loop_timer *ping;  /* owned */
	struct buf events;	  /* owned */
};

/** run_stream_init() - Answer @req with @s; Return: 0 or -ENOMEM */
int run_stream_init(struct run_stream *s, struct loop *loop, struct http_request *req);
/** run_stream_clear() - Release what @s holds; the request must have been answered or be gone */
void run_stream_clear(struct run_stream *s);
/** run_stream_now_ms() - The time stamp of an event */
int64_t run_stream_now_ms(void);
/** run_stream_begin() - Start the answer with `init` and @id, unless it has begun or nobody listens */
void run_stream_begin(struct run_stream *s, const char *id);
/** run_stream_send() - Send the collected events; Return: false when memory ran out and the answer was cut */
bool run_stream_send(struct run_stream *s);
/** run_stream_end() - Send what is left and end the answer */
void run_stream_end(struct run_stream *s);
/** run_stream_refuse() - Answer with @err, as a status when nothing was sent, else as an event named RUNTIME_ERROR */
void run_stream_refuse(struct run_stream *s, const struct sbx_err *err);
/** run_stream_full() - Whether the client has not taken so much that no more should be made */
bool run_stream_full(const struct run_stream *s);
/** run_stream_mkdir() - Ask for the directory @path and its parents; Return: the stream that @ops hears of, or NULL with @err set */
struct agent_stream *run_stream_mkdir(struct execd_box *box, const char *path, const struct agent_stream_ops *ops, void *arg,
				      struct sbx_err *err) SBX_WUR;

#endif
