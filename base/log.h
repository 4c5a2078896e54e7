/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: log lines on stderr
 *
 * One line per call: level, UTC time, program, message; control characters are replaced, so that no client can forge a
 * line.  Library functions log at debug only; the edge that drops an error logs it once.
 *
 * A sandbox or a client can make some lines come as often as it likes.  So of each kind LOG_BURST come at once and then
 * LOG_PER_SECOND each second; what is left out is counted, and told with the last line of its kind as soon as there is room again and
 * anything is logged.  A kind is a place in the source and, where the line begins with its name ("sandbox %s: ...", "of slot %u"), one
 * sandbox or slot: what one sandbox repeats hides no line about another.  A process remembers LOG_PLACES
 * kinds, so it writes LOG_PLACES * LOG_PER_SECOND lines each second at most, and apart from them LOG_PLACES that name a sandbox or slot:
 * of those come LOG_SUBJECTS_BURST at once and LOG_SUBJECTS_PER_SECOND all together.  Debug lines are what somebody asked for: they are not counted.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"

#define LOG_BURST		300u
#define LOG_PER_SECOND		2u
#define LOG_PLACES		128u
#define LOG_SUBJECTS_BURST	(16 * LOG_BURST)
#define LOG_SUBJECTS_PER_SECOND (32 * LOG_PER_SECOND)

enum log_level { LOG_LEVEL_ERROR = 1, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/**
 * log_init() - Name the program and set the threshold
 * @program:	Shown in each line; borrowed for the life of the process
 * @level:	Lines above it are dropped
 */
void log_init(const char *program, enum log_level level);

/**
 * log_level_from_name() - "error", "warn", "warning", "info", "debug", in any case
 * @name:	The word
 *
 * Return: the level, or -EINVAL
 */
int log_level_from_name(const char *name);

/**
 * log_line() - Write one line; use the log_* macros
 * @level:	Of the line
 * @fmt:	printf format, no trailing newline
 */
void log_line(enum log_level level, const char *fmt, ...) SBX_PRINTF(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
