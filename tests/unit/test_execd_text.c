// SPDX-License-Identifier: Apache-2.0
/* What leaves for the client, to the byte: lines, events, names, line windows. */
#include "tests/tap.h"

#include "api/execd/escape.h"
#include "api/execd/event_stream.h"
#include "api/execd/file_info.h"
#include "api/execd/line_split.h"
#include "api/execd/range.h"
#include "base/cleanup.h"
#include "base/limits.h"

#include <errno.h>
#include <stdlib.h>

/* ---- lines ---- */

static void show_line(void *arg, const char *line, size_t n)
{
	struct buf *out = arg;

	buf_puts(out, "[");
	buf_append(out, line, n);
	buf_puts(out, "]");
}

static void split_in_steps(const char *text, size_t n, size_t step, struct buf *out)
{
	struct line_split s = {0};

	for (size_t at = 0; at < n; at += step)
		line_split_feed(&s, text + at, n - at < step ? n - at : step, show_line, out);
	line_split_finish(&s, show_line, out);
}

static void test_lines(void)
{
	static const struct {
		const char *why, *text, *want;
	} cases[] = {
		{"the published example", "a\n\nb\r\nc\rd", "[a][][b][c][d]"},
		{"the smoke test's example", "a\n\nb\n\n\nc\n", "[a][][b][][][c]"},
		{"nothing", "", ""},
		{"one empty line", "\n", "[]"},
		{"a carriage return alone", "\r", "[]"},
		{"a pair is one end", "\r\n", "[]"},
		{"LF CR is two ends", "a\n\rb", "[a][][b]"},
		{"CR CR LF is two ends", "a\r\r\nb", "[a][][b]"},
		{"a progress bar", "10%\r20%\r30%\n", "[10%][20%][30%]"},
		{"no end at the end", "last", "[last]"},
		{"a pair at the end", "x\r\n", "[x]"},
		{"two pairs", "x\r\n\r\ny", "[x][][y]"},
		{"bytes that are no text", "\xff\xfe\n\x01", "[\xff\xfe][\x01]"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (size_t step = 1; step <= 8; step++) {
			auto_buf out = {0};

			split_in_steps(cases[i].text, strlen(cases[i].text), step, &out);
			is_str(buf_str(&out), cases[i].want, "lines: %s, %zu bytes at a time", cases[i].why, step);
		}
}

static void count_line(void *arg, const char *line, size_t n)
{
	size_t *count = arg;

	(void)line;
	count[0]++;
	count[1] += n;
	if (n > count[2])
		count[2] = n;
}

static void test_long_line(void)
{
	size_t n = 3 * LIMIT_EVENT_LINE_BYTES + 17, count[3] = {0};
	auto_free char *text = malloc(n);
	struct line_split s = {0};

	if (!ok(text != NULL, "memory"))
		return;
	for (size_t i = 0; i < n; i++) /* two-byte characters, so that the bound falls into the middle of one */
		text[i] = i % 2 ? '\xa9' : '\xc3';
	text[n - 1] = '\n';
	line_split_feed(&s, text, 1, count_line, count);
	for (size_t at = 1; at < n; at += 32768)
		line_split_feed(&s, text + at, n - at < 32768 ? n - at : 32768, count_line, count);
	line_split_finish(&s, count_line, count);
	is_int(count[0], 4, "a line beyond the bound comes in pieces");
	is_int(count[1], n - 1, "no byte of it is lost");
	ok(count[2] <= LIMIT_EVENT_LINE_BYTES && count[2] % 2 == 0, "pieces are bounded and end between characters");

	memset(count, 0, sizeof(count));
	memset(text, 'x', LIMIT_EVENT_LINE_BYTES);
	line_split_feed(&s, text, LIMIT_EVENT_LINE_BYTES, count_line, count);
	line_split_feed(&s, "\n", 1, count_line, count);
	line_split_finish(&s, count_line, count);
	is_int(count[0], 1, "a line of exactly the bound has no empty rest");
}

static void test_utf8_cut(void)
{
	static const struct {
		const char *why, *text;
		size_t want;
	} cases[] = {
		{"ASCII", "abc", 3},
		{"whole character", "a\xc3\xa9", 3},
		{"half of two", "ab\xc3", 2},
		{"one of three", "ab\xe2", 2},
		{"two of three", "ab\xe2\x82", 2},
		{"three of four", "ab\xf0\x9f\x98", 2},
		{"four of four", "a\xf0\x9f\x98\x80", 5},
		{"only continuation bytes", "\x80\x80\x80\x80", 4},
		{"empty", "", 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		is_int(escape_utf8_cut(cases[i].text, strlen(cases[i].text)), cases[i].want, "cut: %s", cases[i].why);
}

/* ---- events ---- */

static void test_events(void)
{
	auto_buf out = {0};

	event_init(&out, "0f3c9a71d2e84b6f9a1b7c5d3e2f1a00", 1767225600000);
	is_str(buf_str(&out),
	       "{\"type\":\"init\",\"text\":\"0f3c9a71d2e84b6f9a1b7c5d3e2f1a00\",\"timestamp\":1767225600000}\n\n"
	       "{\"type\":\"ping\",\"text\":\"pong\",\"timestamp\":1767225600000}\n\n",
	       "init and its ping");
	buf_clear(&out);
	event_line(&out, "stdout", "", 0, 5);
	is_str(buf_str(&out), "{\"type\":\"stdout\",\"text\":\"\\n\",\"timestamp\":5}\n\n", "an empty line is a line feed");
	buf_clear(&out);
	event_line(&out, "stderr", "a<b>&\"\\\x01\x7f\t\xe2\x80\xa8", 13, 5);
	is_str(buf_str(&out),
	       "{\"type\":\"stderr\",\"text\":\"a\\u003cb\\u003e\\u0026\\\"\\\\\\u0001\x7f\\t\\u2028\",\"timestamp\":5}\n\n", "escapes");
	buf_clear(&out);
	event_line(&out, "stdout", "\xff\xc3\xa9\xed\xa0\x80", 6, 5);
	is_str(buf_str(&out), "{\"type\":\"stdout\",\"text\":\"\\ufffd\xc3\xa9\\ufffd\\ufffd\\ufffd\",\"timestamp\":5}\n\n",
	       "bytes that are no UTF-8 are replaced one by one");
	buf_clear(&out);
	event_line(&out, "stdout", "a\0b", 3, 5);
	is_str(buf_str(&out), "{\"type\":\"stdout\",\"text\":\"a\\u0000b\",\"timestamp\":5}\n\n", "a NUL does not end the text");
	buf_clear(&out);
	event_complete(&out, 41, 1767225600041);
	is_str(buf_str(&out), "{\"type\":\"execution_complete\",\"execution_time\":41,\"timestamp\":1767225600041}\n\n", "complete");
	buf_clear(&out);
	event_complete(&out, 0, 7);
	is_str(buf_str(&out), "{\"type\":\"execution_complete\",\"timestamp\":7}\n\n", "a time of 0 ms is left out");
	buf_clear(&out);
	event_error(&out, "CommandExecError", "3", "exit status 3", 1767225600041);
	is_str(buf_str(&out),
	       "{\"type\":\"error\",\"timestamp\":1767225600041,\"error\":{\"ename\":\"CommandExecError\",\"evalue\":\"3\","
	       "\"traceback\":[\"exit status 3\"]}}\n\n",
	       "error");
}

static void test_exit_text(void)
{
	static const struct {
		int code, signal;
		const char *want;
	} cases[] = {{3, 0, "exit status 3"}, {-1, 9, "signal: killed"}, {-1, 15, "signal: terminated"},
		     {-1, 2, "signal: interrupt"}, {-1, 11, "signal: segmentation fault"}, {-1, 40, "signal: signal 40"}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[64];

		event_exit_text(cases[i].code, cases[i].signal, text, sizeof(text));
		is_str(text, cases[i].want, "exit of %d by signal %d", cases[i].code, cases[i].signal);
	}
}

/* ---- names ---- */

static void test_attachment(void)
{
	static const struct {
		const char *why, *name, *want;
	} cases[] = {
		{"plain", "a.txt", "attachment; filename=\"a.txt\""},
		{"blank", "a b", "attachment; filename=\"a b\""},
		{"not ASCII", "\xc3\xbc.txt", "attachment; filename=\"%C3%BC.txt\"; filename*=UTF-8''%C3%BC.txt"},
		{"quote", "a\"b", "attachment; filename=\"a%22b\"; filename*=UTF-8''a%22b"},
		{"header injection", "a\r\nX: y", "attachment; filename=\"a%0D%0AX%3A%20y\"; filename*=UTF-8''a%0D%0AX%3A%20y"},
		{"percent", "100%", "attachment; filename=\"100%25\"; filename*=UTF-8''100%25"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		auto_buf out = {0};

		escape_attachment(&out, cases[i].name);
		is_str(buf_str(&out), cases[i].want, "attachment: %s", cases[i].why);
	}
}

/* ---- ranges ---- */

static void test_ranges(void)
{
	static const struct {
		const char *why, *text;
		uint64_t size;
		int parse, resolve;
		uint64_t first, n;
	} cases[] = {
		{"first ten", "bytes=0-9", 100, 0, 0, 0, 10},
		{"open end", "bytes=90-", 100, 0, 0, 90, 10},
		{"the last", "bytes=-5", 100, 0, 0, 95, 5},
		{"more than there is", "bytes=-500", 100, 0, 0, 0, 100},
		{"end beyond the file", "bytes=95-1000", 100, 0, 0, 95, 5},
		{"first of several", "bytes=1-2,5-6", 100, 0, 0, 1, 2},
		{"blanks and case", " Bytes= 1-2 ", 100, 0, 0, 1, 2},
		{"start at the end", "bytes=100-", 100, 0, -ERANGE, 0, 0},
		{"nothing of the end", "bytes=-0", 100, 0, -ERANGE, 0, 0},
		{"empty file", "bytes=0-9", 0, 0, 0, 0, 0},
		{"largest number", "bytes=0-18446744073709551614", 3, 0, 0, 0, 3},
		{"overflow", "bytes=0-18446744073709551616", 3, -EINVAL, 0, 0, 0},
		{"backwards", "bytes=5-4", 100, -EINVAL, 0, 0, 0},
		{"no dash", "bytes=5", 100, -EINVAL, 0, 0, 0},
		{"no numbers", "bytes=-", 100, -EINVAL, 0, 0, 0},
		{"sign", "bytes=+1-2", 100, -EINVAL, 0, 0, 0},
		{"other unit", "lines=1-2", 100, -EINVAL, 0, 0, 0},
		{"words", "bytes=a-b", 100, -EINVAL, 0, 0, 0},
		{"nothing", "", 100, -EINVAL, 0, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct range range;
		uint64_t first, n;

		is_int(range_parse(cases[i].text, strlen(cases[i].text), &range), cases[i].parse, "range: %s", cases[i].why);
		if (cases[i].parse)
			continue;
		int r = range_resolve(&range, cases[i].size, &first, &n);
		ok(r == cases[i].resolve && (r || (first == cases[i].first && n == cases[i].n)), "range applied: %s", cases[i].why);
	}
}

static void test_line_window(void)
{
	static const struct {
		const char *why, *text, *want;
	} cases[] = {
		{"three lines", "a\nb\nc\n", "a\nb\nc"},
		{"no end at the end", "a\nb", "a\nb"},
		{"pairs", "a\r\nb\r\n", "a\nb"},
		{"several returns", "a\r\r\nb", "a\nb"},
		{"a return inside stays", "a\rb\n", "a\rb"},
		{"empty lines stay", "\n\na\n", "\n\na"},
		{"empty line at the end", "a\n\n", "a\n"},
		{"nothing", "", ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (size_t step = 1; step < 5; step++) {
			auto_buf out = {0};
			struct range_lines s = {0};
			size_t n = strlen(cases[i].text);

			for (size_t at = 0; at < n; at += step)
				range_lines(&s, cases[i].text + at, n - at < step ? n - at : step, &out);
			is_str(buf_str(&out), cases[i].want, "line window: %s, %zu at a time", cases[i].why, step);
		}
}

/* ---- records ---- */

static size_t make_record(uint8_t *out, const char *path, const char *owner, const char *group, uint32_t kind, uint32_t mode)
{
	struct agent_file_record head = {
		.kind = kind,
		.mode = mode,
		.size_bytes = 17,
		.modified_wall_usec = 1767225600500000,
		.created_wall_usec = 1767225600000000,
		.uid = 1000,
		.gid = 1001,
		.path_bytes = (uint32_t)strlen(path) + 1,
		.owner_bytes = (uint16_t)(strlen(owner) + 1),
		.group_bytes = (uint16_t)(strlen(group) + 1),
	};

	head.record_bytes = (uint32_t)sizeof(head) + head.path_bytes + head.owner_bytes + head.group_bytes;
	memcpy(out, &head, sizeof(head));
	memcpy(out + sizeof(head), path, head.path_bytes);
	memcpy(out + sizeof(head) + head.path_bytes, owner, head.owner_bytes);
	memcpy(out + sizeof(head) + head.path_bytes + head.owner_bytes, group, head.group_bytes);
	return head.record_bytes;
}

static void test_records(void)
{
	uint8_t record[512];
	struct file_info info;
	auto_buf out = {0};
	struct jw w = {.out = &out};
	size_t n = make_record(record, "/w/a.txt", "root", "", AGENT_FILE_REGULAR, 0104644);

	is_int(file_info_read(record, sizeof(record), &info), n, "a record is read");
	file_info_write(&w, &info);
	is_str(buf_str(&out),
	       "{\"path\":\"/w/a.txt\",\"type\":\"file\",\"size\":17,\"modified_at\":\"2026-01-01T00:00:00.500000Z\","
	       "\"created_at\":\"2026-01-01T00:00:00Z\",\"owner\":\"root\",\"group\":\"1001\",\"mode\":644}",
	       "and written with every member, a missing name as the number");
	for (size_t cut = 0; cut < n; cut++)
		if (file_info_read(record, cut, &info) >= 0)
			ok(false, "a record cut to %zu bytes is refused", cut);

	static const struct {
		const char *why;
		size_t at;
		uint8_t byte;
	} lies[] = {
		{"kind 0", offsetof(struct agent_file_record, kind), 0},
		{"kind 9", offsetof(struct agent_file_record, kind), 9},
		{"a path without its NUL", offsetof(struct agent_file_record, path_bytes), 8},
		{"a path of no bytes", offsetof(struct agent_file_record, path_bytes), 0},
		{"a record that is too short", offsetof(struct agent_file_record, record_bytes), 3},
		{"NUL inside the path", sizeof(struct agent_file_record) + 2, 0},
	};
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		uint8_t copy[512];

		memcpy(copy, record, sizeof(copy));
		copy[lies[i].at] = lies[i].byte;
		is_int(file_info_read(copy, n, &info), -EBADMSG, "record refused: %s", lies[i].why);
	}
}

static void test_modes(void)
{
	static const struct {
		const char *json;
		int want;
		uint32_t mode;
		bool set;
	} cases[] = {
		{"755", 0, 0755, true}, {"644", 0, 0644, true}, {"4755", 0, 04755, true}, {"0", 0, 0, false},
		{"null", 0, 0, false},	{"7", 0, 07, true},	{"8", -EINVAL, 0, false}, {"798", -EINVAL, 0, false},
		{"-1", -EINVAL, 0, false}, {"10000", -EINVAL, 0, false}, {"644.5", -EBADMSG, 0, false}, {"\"755\"", -EBADMSG, 0, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t mode = 0;
		bool set = false;
		struct sbx_err err;
		auto_jv v = jv_parse(cases[i].json, strlen(cases[i].json), &err);
		int r = file_info_mode(v, &mode, &set);

		ok(r == cases[i].want && (r || (mode == cases[i].mode && set == cases[i].set)), "mode %s", cases[i].json);
	}
}

int main(void)
{
	test_lines();
	test_long_line();
	test_utf8_cut();
	test_events();
	test_exit_text();
	test_attachment();
	test_ranges();
	test_line_window();
	test_records();
	test_modes();
	return tap_done();
}
