// SPDX-License-Identifier: Apache-2.0
#include "api/execd/event_stream.h"

#include "base/jv.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

void event_text(struct buf *out, const char *type, const char *text, size_t n, int64_t wall_ms)
{
	struct jw w = {.out = out};

	jw_object(&w);
	jw_key_str(&w, "type", type);
	if (n) {
		jw_key(&w, "text");
		jw_strn(&w, text, n);
	}
	jw_key_i64(&w, "timestamp", wall_ms);
	jw_object_end(&w);
	buf_append(out, "\n\n", 2);
}

void event_ping(struct buf *out, int64_t wall_ms)
{
	event_text(out, "ping", "pong", 4, wall_ms);
}

void event_init(struct buf *out, const char *id, int64_t wall_ms)
{
	event_text(out, "init", id, strlen(id), wall_ms);
	event_ping(out, wall_ms);
}

void event_line(struct buf *out, const char *type, const char *line, size_t n, int64_t wall_ms)
{
	event_text(out, type, n ? line : "\n", n ? n : 1, wall_ms);
}

void event_complete(struct buf *out, int64_t execution_ms, int64_t wall_ms)
{
	struct jw w = {.out = out};

	jw_object(&w);
	jw_key_str(&w, "type", "execution_complete");
	if (execution_ms > 0)
		jw_key_i64(&w, "execution_time", execution_ms);
	jw_key_i64(&w, "timestamp", wall_ms);
	jw_object_end(&w);
	buf_append(out, "\n\n", 2);
}

void event_error(struct buf *out, const char *name, const char *value, const char *traceback, int64_t wall_ms)
{
	struct jw w = {.out = out};

	jw_object(&w);
	jw_key_str(&w, "type", "error");
	jw_key_i64(&w, "timestamp", wall_ms);
	jw_key(&w, "error");
	jw_object(&w);
	jw_key_str(&w, "ename", name);
	jw_key_str(&w, "evalue", value);
	jw_key(&w, "traceback");
	jw_array(&w);
	jw_str(&w, traceback);
	jw_array_end(&w);
	jw_object_end(&w);
	jw_object_end(&w);
	buf_append(out, "\n\n", 2);
}

void event_exit_text(int32_t code, int32_t signal, char *text, size_t size)
{
	static const struct {
		int signo;
		const char *name;
	} names[] = {
		{SIGHUP, "hangup"},   {SIGINT, "interrupt"},	      {SIGQUIT, "quit"},
		{SIGILL, "illegal instruction"}, {SIGTRAP, "trace/breakpoint trap"}, {SIGABRT, "aborted"},
		{SIGBUS, "bus error"}, {SIGFPE, "floating point exception"}, {SIGKILL, "killed"},
		{SIGUSR1, "user defined signal 1"}, {SIGSEGV, "segmentation fault"}, {SIGUSR2, "user defined signal 2"},
		{SIGPIPE, "broken pipe"}, {SIGALRM, "alarm clock"}, {SIGTERM, "terminated"},
	};

	if (!signal) {
		snprintf(text, size, "exit status %d", code);
		return;
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].signo == signal) {
			snprintf(text, size, "signal: %s", names[i].name);
			return;
		}
	snprintf(text, size, "signal: signal %d", signal);
}
