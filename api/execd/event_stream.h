/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the events of a run, to the byte
 *
 * An event is one line of JSON and an empty line; there is no "data:" in front.  Members come in the order type, text,
 * execution_time, timestamp, error, and empty or zero ones are left out.  Time stamps are milliseconds since 1970.
 * Functions append to a buffer and do no I/O; a failure shows in out->failed.
 */
#ifndef API_EXECD_EVENT_STREAM_H
#define API_EXECD_EVENT_STREAM_H

#include "base/buf.h"

#include <stdint.h>

#define EVENT_STREAM_CONTENT_TYPE "text/event-stream"
/* Proxies between us and the client must neither keep nor collect events. */
#define EVENT_STREAM_HEADERS	  "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"

/** event_text() - Append an event of @type with @n bytes of @text; @text becomes valid UTF-8 */
void event_text(struct buf *out, const char *type, const char *text, size_t n, int64_t wall_ms);
/** event_init() - Append `init` with the id of the run and the first `ping` */
void event_init(struct buf *out, const char *id, int64_t wall_ms);
/** event_ping() - Append `ping` */
void event_ping(struct buf *out, int64_t wall_ms);
/** event_line() - Append @type ("stdout" or "stderr") for one line without its end; an empty one has the text "\n" */
void event_line(struct buf *out, const char *type, const char *line, size_t n, int64_t wall_ms);
/** event_complete() - Append `execution_complete`; a time of 0 ms is left out */
void event_complete(struct buf *out, int64_t execution_ms, int64_t wall_ms);
/** event_error() - Append `error` with @name, @value and one line of @traceback */
void event_error(struct buf *out, const char *name, const char *value, const char *traceback, int64_t wall_ms);
/**
 * event_exit_text() - How an exit is told: "exit status 3", "signal: killed"
 * @code:	Exit code, used when @signal is 0
 * @signal:	Number of the signal that killed the process, or 0
 * @text:	Room
 * @size:	Its bytes; 64 are enough
 */
void event_exit_text(int32_t code, int32_t signal, char *text, size_t size);

#endif
