// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 1024
#define LAST_BYTES 256

static_assert(LOG_KINDS == 64, "6 bits of the hash of a format");

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

/* Of one kind of lines, or of several that share the place. */
struct kind {
	uint32_t used;	  /* lines of the burst that are not given back yet */
	uint64_t since_s; /* up to when they were given back */
	uint64_t n_left_out;
	char last[LAST_BYTES]; /* of those that were left out */
};

static struct kind kinds[LOG_KINDS];
static uint64_t n_left_out; /* of all kinds */

static void write_line(enum log_level level, const char *text)
{
	char line[LINE_BYTES];
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	size_t head = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	int len = snprintf(line + head, sizeof(line) - head, ".%03ldZ %s %s: ", now.tv_nsec / 1000000, level_names[level], log_program);
	head += (size_t)len;
	size_t end = head + strnlen(text, sizeof(line) - head - 1);
	memcpy(line + head, text, end - head);
	for (size_t i = head; i < end; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[end++] = '\n';
	ignore_result(write(STDERR_FILENO, line, end) < 0); /* there is nowhere left to say it */
}

static void give_back(struct kind *k, uint64_t now_s)
{
	uint64_t more = (now_s - k->since_s) * LOG_PER_SECOND;

	k->used -= more < k->used ? (uint32_t)more : k->used;
	k->since_s = now_s;
}

static void tell_left_out(struct kind *k)
{
	char text[LINE_BYTES];

	snprintf(text, sizeof(text), "%llu more such lines were left out, the last one: %s", (unsigned long long)k->n_left_out, k->last);
	k->used++;
	n_left_out -= k->n_left_out;
	k->n_left_out = 0;
	write_line(LOG_LEVEL_WARN, text);
}

/* Whether a line of the format @fmt may be written; if not, @text is what will be told of it. */
static bool admit(const char *fmt, const char *text)
{
	struct kind *k = &kinds[((uintptr_t)fmt * UINT64_C(0x9e3779b97f4a7c15)) >> 58];
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	for (size_t i = 0; n_left_out && i < LOG_KINDS; i++) {
		if (!kinds[i].n_left_out)
			continue;
		give_back(&kinds[i], (uint64_t)now.tv_sec);
		if (kinds[i].used < LOG_BURST)
			tell_left_out(&kinds[i]);
	}
	give_back(k, (uint64_t)now.tv_sec);
	if (k->used < LOG_BURST) {
		k->used++;
		return true;
	}
	k->n_left_out++;
	n_left_out++;
	snprintf(k->last, sizeof(k->last), "%.*s", LAST_BYTES - 1, text);
	return false;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char text[LINE_BYTES];
	va_list ap;

	if (level > log_threshold)
		return;
	int saved = errno; /* a %m in the format means the caller's errno */
	va_start(ap, fmt);
	int len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len >= 0 && (level == LOG_LEVEL_DEBUG || admit(fmt, text)))
		write_line(level, text);
	errno = saved;
}
