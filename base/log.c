// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static const char *log_program = "sandboxd";
static enum log_level log_threshold = LOG_LEVEL_INFO;

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARN] = "warn", [LOG_LEVEL_INFO] = "info", [LOG_LEVEL_DEBUG] = "debug"};

void log_init(const char *program, enum log_level level)
{
	log_program = program;
	log_threshold = level;
}

int log_level_from_name(const char *name)
{
	if (!strcasecmp(name, "warning"))
		return LOG_LEVEL_WARN;
	for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++)
		if (!strcasecmp(name, level_names[i]))
			return i;
	return -EINVAL;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	struct timespec now;
	struct tm tm;
	va_list ap;

	if (level > log_threshold)
		return;
	int saved = errno;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	size_t n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	int len = snprintf(line + n, sizeof(line) - n, ".%03ldZ %s %s: ", now.tv_nsec / 1000000, level_names[level],
			   log_program);
	size_t head = n + (size_t)len;
	errno = saved; /* a %m in the format means the caller's errno */
	va_start(ap, fmt);
	len = vsnprintf(line + head, sizeof(line) - head, fmt, ap);
	va_end(ap);
	size_t end = head + (len < 0 ? 0 : (size_t)len);
	if (end > sizeof(line) - 2)
		end = sizeof(line) - 2;
	for (size_t i = head; i < end; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[end++] = '\n';
	ignore_result(write(STDERR_FILENO, line, end) < 0); /* there is nowhere left to say it */
	errno = saved;
}
