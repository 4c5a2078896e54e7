/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: TAP from C tests
 *
 * Print a line per check; tap_done() prints the plan and gives main()'s return value.  Checks never stop the program, so
 * one run shows every failure.
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int tap_count, tap_failed;

__attribute__((format(printf, 4, 5), unused)) static bool tap_check(bool good, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (!good) {
		tap_failed++;
		printf("# failed at %s:%d\n", file, line);
	}
	fflush(stdout);
	return good;
}

/* ok(condition, format, ...) - one check */
#define ok(cond, ...) tap_check((cond), __FILE__, __LINE__, __VA_ARGS__)
/* is_str(got, want, format, ...) - equal strings; both are shown when they differ */
#define is_str(got, want, ...) \
	do { \
		const char *got_ = (got), *want_ = (want); \
		if (!ok(got_ && want_ && !strcmp(got_, want_), __VA_ARGS__)) \
			printf("#   got: %s\n#  want: %s\n", got_ ? got_ : "(null)", want_ ? want_ : "(null)"); \
	} while (0)
/* is_int(got, want, format, ...) - equal numbers; both are shown when they differ */
#define is_int(got, want, ...) \
	do { \
		long long got_ = (long long)(got), want_ = (long long)(want); \
		if (!ok(got_ == want_, __VA_ARGS__)) \
			printf("#   got: %lld\n#  want: %lld\n", got_, want_); \
	} while (0)

__attribute__((unused)) static void tap_skip(const char *what, const char *why)
{
	printf("ok %d - %s # SKIP %s\n", ++tap_count, what, why);
	fflush(stdout); /* else a child that is forked next says it as well */
}

__attribute__((unused)) static int tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed ? 1 : 0;
}

#endif
