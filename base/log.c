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
#define WAYS	   8u /* places that a kind may have */

static_assert((LOG_PLACES & (LOG_PLACES - 1)) == 0, "a hash is cut to it");

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

/* Lines that may come, LOG_PER_SECOND given back each second. */
struct bucket {
	uint32_t used;	  /* lines of the burst that are not given back yet */
	uint64_t since_s; /* up to when they were given back */
};

/* Of the lines of one kind, or of several when all places that they may have are taken. */
struct place {
	uint64_t kind;
	struct bucket bucket;
	uint64_t n_left_out;
	char last[LAST_BYTES]; /* of those that were left out */
};

static struct place places[2][LOG_PLACES]; /* of lines about nobody, and of those about somebody: a crowd takes no place of the others */
static struct bucket about_somebody; /* lines that name a sandbox or slot, all together */
static uint64_t n_left_out;	     /* of all kinds */

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

static bool has_room(struct bucket *b, uint32_t burst, uint32_t per_second, uint64_t now_s)
{
	uint64_t more = (now_s - b->since_s) * per_second;

	b->used -= more < b->used ? (uint32_t)more : b->used;
	b->since_s = now_s;
	return b->used < burst;
}

static bool ends_in(const char *text, size_t len, const char *end)
{
	size_t n = strlen(end);

	return len >= n && !memcmp(text + len - n, end, n);
}

/*
 * Whom the line @text of the format @fmt is about: the word behind "sandbox " or "slot ".  Only where nothing but our own words stands
 * before it, as what comes from a client or a sandbox could name another one.
 */
static const char *subject_of(const char *fmt, const char *text, size_t *ret_len)
{
	size_t head = strcspn(fmt, "%");

	if (!fmt[head] || strnlen(text, head) < head || (!ends_in(fmt, head, "sandbox ") && !ends_in(fmt, head, "slot ")))
		return NULL;
	*ret_len = strcspn(text + head, " :;,()");
	return text + head;
}

static uint64_t mix(uint64_t hash, uint64_t more)
{
	hash = (hash ^ more) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

/* Its own place, or one at rest that it takes over, or one that it has to share. */
static struct place *place_of(struct place *table, uint64_t kind, uint64_t now_s)
{
	struct place *rests = NULL;
	size_t step = (size_t)(kind >> 40) | 1;

	for (size_t i = 0; i < WAYS; i++) {
		struct place *p = &table[(kind + i * step) & (LOG_PLACES - 1)];

		if (p->kind == kind)
			return p;
		if (!rests && !p->n_left_out && has_room(&p->bucket, 1, LOG_PER_SECOND, now_s))
			rests = p;
	}
	if (!rests)
		return &table[kind & (LOG_PLACES - 1)];
	rests->kind = kind;
	return rests;
}

static bool may_write(struct place *p, bool about, uint64_t now_s)
{
	if (!has_room(&p->bucket, LOG_BURST, LOG_PER_SECOND, now_s) ||
	    (about && !has_room(&about_somebody, LOG_SUBJECTS_BURST, LOG_SUBJECTS_PER_SECOND, now_s)))
		return false;
	p->bucket.used++;
	about_somebody.used += about;
	return true;
}

static void tell_left_out(uint64_t now_s)
{
	char text[LINE_BYTES];

	for (size_t i = 0; n_left_out && i < 2 * LOG_PLACES; i++) {
		struct place *p = &places[i / LOG_PLACES][i % LOG_PLACES];

		if (!p->n_left_out || !may_write(p, i >= LOG_PLACES, now_s))
			continue;
		snprintf(text, sizeof(text), "%llu more such lines were left out, the last one: %s", (unsigned long long)p->n_left_out, p->last);
		n_left_out -= p->n_left_out;
		p->n_left_out = 0;
		write_line(LOG_LEVEL_WARN, text);
	}
}

/* Whether a line of the format @fmt, written at @site, may come; if not, @text is what will be told of it. */
static bool admit(const void *site, const char *fmt, const char *text)
{
	struct timespec now;
	size_t len = 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	uint64_t now_s = (uint64_t)now.tv_sec, kind = mix((uintptr_t)site, (uintptr_t)fmt);
	tell_left_out(now_s);
	const char *subject = subject_of(fmt, text, &len);
	for (size_t i = 0; i < len; i++)
		kind = mix(kind, (unsigned char)subject[i]);
	struct place *p = place_of(places[subject != NULL], kind, now_s);
	if (may_write(p, subject != NULL, now_s))
		return true;
	p->n_left_out++;
	n_left_out++;
	snprintf(p->last, sizeof(p->last), "%.*s", LAST_BYTES - 1, text);
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
	if (len >= 0 && (level == LOG_LEVEL_DEBUG || admit(__builtin_return_address(0), fmt, text)))
		write_line(level, text);
	errno = saved;
}
