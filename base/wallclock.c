// SPDX-License-Identifier: Apache-2.0
#include "base/wallclock.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#define USEC_PER_SEC 1000000
#define YEAR_MIN     1
#define YEAR_MAX     9999

static struct timespec now_of(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts;
}

uint64_t mono_ms(void)
{
	struct timespec ts = now_of(CLOCK_MONOTONIC);

	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t mono_usec(void)
{
	struct timespec ts = now_of(CLOCK_MONOTONIC);

	return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

int64_t wall_usec(void)
{
	struct timespec ts = now_of(CLOCK_REALTIME);

	return (int64_t)ts.tv_sec * USEC_PER_SEC + ts.tv_nsec / 1000;
}

void rfc3339_format(int64_t usec, char out[RFC3339_SIZE])
{
	int64_t sec = usec / USEC_PER_SEC;
	int64_t frac = usec % USEC_PER_SEC;
	struct tm tm = {0};

	if (frac < 0) {
		frac += USEC_PER_SEC;
		sec--;
	}
	time_t t = (time_t)sec;
	gmtime_r(&t, &tm);
	size_t n = strftime(out, RFC3339_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, RFC3339_SIZE - n, frac ? ".%06dZ" : "Z", (int)frac);
}

struct scan {
	const char *p, *end;
};

static bool scan_char(struct scan *s, const char *set)
{
	if (s->p == s->end)
		return false;
	for (; *set; set++)
		if (*s->p == *set) {
			s->p++;
			return true;
		}
	return false;
}

static int scan_digits(struct scan *s, int n, int *ret)
{
	int v = 0;

	for (int i = 0; i < n; i++, s->p++) {
		if (s->p == s->end || !isdigit((unsigned char)*s->p))
			return -EINVAL;
		v = v * 10 + (*s->p - '0');
	}
	*ret = v;
	return 0;
}

static int scan_fraction(struct scan *s, int *ret_usec)
{
	int usec = 0, digits = 0;

	for (; s->p < s->end && isdigit((unsigned char)*s->p); s->p++, digits++)
		if (digits < 6)
			usec = usec * 10 + (*s->p - '0');
	for (int i = digits; i < 6; i++)
		usec *= 10;
	*ret_usec = usec;
	return digits ? 0 : -EINVAL;
}

static int scan_offset(struct scan *s, int *ret_seconds)
{
	int hours, minutes;

	*ret_seconds = 0;
	if (s->p == s->end || scan_char(s, "Zz"))
		return 0;
	int sign = *s->p == '-' ? -1 : 1;
	if (!scan_char(s, "+-") || scan_digits(s, 2, &hours))
		return -EINVAL;
	scan_char(s, ":");
	if (scan_digits(s, 2, &minutes) || hours > 23 || minutes > 59)
		return -EINVAL;
	*ret_seconds = sign * (hours * 3600 + minutes * 60);
	return 0;
}

static int parse_epoch(const char *text, size_t n, int64_t *ret)
{
	struct scan s = {text, text + n};
	int64_t sec = 0;
	int usec = 0;
	bool negative = scan_char(&s, "-");

	if (s.p == s.end)
		return -EINVAL;
	for (; s.p < s.end && isdigit((unsigned char)*s.p); s.p++) {
		sec = sec * 10 + (*s.p - '0');
		if (sec > INT64_MAX / USEC_PER_SEC / 10)
			return -ERANGE;
	}
	if (scan_char(&s, ".") && scan_fraction(&s, &usec))
		return -EINVAL;
	if (s.p != s.end)
		return -EINVAL;
	*ret = (sec * USEC_PER_SEC + usec) * (negative ? -1 : 1);
	return 0;
}

int rfc3339_parse(const char *text, size_t n, int64_t *ret_wall_usec)
{
	static const int days_in[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	struct scan s = {text, text + n};
	int year, month, day, hour = 0, minute = 0, second = 0, usec = 0, offset = 0;

	if (n < 10 || text[4] != '-')
		return parse_epoch(text, n, ret_wall_usec);
	if (scan_digits(&s, 4, &year) || !scan_char(&s, "-") || scan_digits(&s, 2, &month) || !scan_char(&s, "-") ||
	    scan_digits(&s, 2, &day))
		return -EINVAL;
	if (month < 1 || month > 12 || day < 1)
		return -EINVAL;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	if (day > days_in[month - 1] + (month == 2 && leap))
		return -EINVAL;
	if (s.p != s.end) {
		if (!scan_char(&s, "Tt ") || scan_digits(&s, 2, &hour) || !scan_char(&s, ":") || scan_digits(&s, 2, &minute))
			return -EINVAL;
		if (scan_char(&s, ":") && scan_digits(&s, 2, &second))
			return -EINVAL;
		if (scan_char(&s, ".,") && scan_fraction(&s, &usec))
			return -EINVAL;
		if (scan_offset(&s, &offset) || s.p != s.end)
			return -EINVAL;
	}
	if (hour > 23 || minute > 59 || second > 60)
		return -EINVAL;
	if (year < YEAR_MIN || year > YEAR_MAX)
		return -ERANGE;
	struct tm tm = {.tm_year = year - 1900,
			.tm_mon = month - 1,
			.tm_mday = day,
			.tm_hour = hour,
			.tm_min = minute,
			.tm_sec = second};
	*ret_wall_usec = ((int64_t)timegm(&tm) - offset) * USEC_PER_SEC + usec;
	return 0;
}
