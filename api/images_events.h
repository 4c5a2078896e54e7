/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the events of a pull, an import or a check, for a client who waits
 *
 * A pipe whose other end the gateway copies as text/event-stream: {"type":"progress",...} any number of times, then one
 * {"type":"done","image":{...}} or {"type":"error","error":{"code","message"}}.  A slow reader misses some of the progress,
 * never the last event; one who goes away is told to the owner by cancel, once, and not after the last event.
 */
#ifndef API_IMAGES_EVENTS_H
#define API_IMAGES_EVENTS_H

#include "api/call.h"
#include "base/buf.h"
#include "base/err.h"

struct image;
struct image_pull_progress;
struct images_events;

/**
 * images_events_new() - Make a stream
 * @context:	The server's; borrowed
 * @cancel:	Nobody reads any more: the stream is gone when this is called
 * @arg:	Handed to @cancel
 * @ret_fd:	Reading end, the caller's to close
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the stream, which ends with images_events_finish() or images_events_drop(); or NULL with @err set
 */
struct images_events *images_events_new(const struct api_context *context, void (*cancel)(void *arg), void *arg, int *ret_fd,
					struct sbx_err *err) SBX_WUR;
/** images_events_progress() - Tell of @progress; for struct image_pull_request, whose arg need not be the stream */
void images_events_progress(struct images_events *events, const struct image_pull_progress *progress);
/** images_events_finish() - Send the last event: @image, or @err when that is NULL; the stream then ends by itself */
void images_events_finish(struct images_events *events, const struct image *image, const struct sbx_err *err);
/** images_events_other() - Send progress that is no pull's: @object, which has a "type"; left out when the reader is slow */
void images_events_other(struct images_events *events, const struct buf *object);
/** images_events_end() - Send @object, "type" "done", as the last event; the stream then ends by itself */
void images_events_end(struct images_events *events, const struct buf *object);
/** images_events_drop() - Close without a last event; cancel is not called; NULL is fine */
void images_events_drop(struct images_events *events);

#endif
