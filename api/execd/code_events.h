/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the events that only code has: execution_count, result, error with a traceback
 *
 * As event_stream.h: appended to a buffer, no I/O.
 */
#ifndef API_EXECD_CODE_EVENTS_H
#define API_EXECD_CODE_EVENTS_H

#include "api/execd/code_frames.h"
#include "base/buf.h"

#include <stdint.h>

/* Longest event: a published client's line buffer ends at 4 MiB. */
#define CODE_EVENT_BYTES (4u * 1024 * 1024 - 4096)

/** code_event_count() - Append `execution_count` */
void code_event_count(struct buf *out, uint32_t count, int64_t wall_ms);
/**
 * code_event_result() - Append `result`
 * @out:	Appended to
 * @list:	MIME types and data in turn; text/plain goes by the name `text` as well
 * @wall_ms:	Time stamp
 *
 * Data that would make the event longer than CODE_EVENT_BYTES is left out, images before others and the largest first, and a
 * `stderr` event says so.
 */
void code_event_result(struct buf *out, struct code_list list, int64_t wall_ms);
/** code_event_error() - Append `error` with @name, @value and the strings of @traceback, which may be empty */
void code_event_error(struct buf *out, const char *name, size_t name_n, const char *value, size_t value_n,
		      struct code_list traceback, int64_t wall_ms);

#endif
