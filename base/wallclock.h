/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: clocks
 *
 * Wall time is microseconds since 1970 (`_wall_usec`), monotonic time is milliseconds or microseconds since boot
 * (`mono_ms`, `_mono_usec`).  The two are never compared.
 */
#ifndef BASE_WALLCLOCK_H
#define BASE_WALLCLOCK_H

#include <stddef.h>
#include <stdint.h>

#define RFC3339_SIZE 40
/* 2020-01-01: a clock before it was never set since the machine came up. */
#define WALL_SANE_USEC (INT64_C(1577836800) * 1000000)

/** mono_ms() - CLOCK_MONOTONIC in milliseconds */
uint64_t mono_ms(void);
/** mono_usec() - CLOCK_MONOTONIC in microseconds */
uint64_t mono_usec(void);
/** wall_usec() - CLOCK_REALTIME in microseconds since 1970 */
int64_t wall_usec(void);
/** rfc3339_format() - Write @wall_usec as 2030-01-01T00:00:00[.ffffff]Z into @out; years 0 to 9999 */
void rfc3339_format(int64_t wall_usec, char out[RFC3339_SIZE]);
/**
 * rfc3339_parse() - Read an instant: RFC 3339 with offset or Z, naive (taken as UTC), date only, or epoch seconds
 * @text:		The text; need not be NUL-terminated
 * @n:			Its length in bytes
 * @ret_wall_usec:	Microseconds since 1970; fraction digits past the sixth are cut
 *
 * Return: 0, or -EINVAL (not an instant), -ERANGE (outside years 1 to 9999)
 */
int rfc3339_parse(const char *text, size_t n, int64_t *ret_wall_usec);

#endif
