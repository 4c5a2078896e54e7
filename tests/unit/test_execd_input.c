// SPDX-License-Identifier: Apache-2.0
/* What comes from the client: command bodies and multipart forms, good and bad. */
#include "tests/tap.h"

#include "api/execd/command_spec.h"
#include "api/execd/multipart.h"
#include "base/cleanup.h"
#include "base/limits.h"

#include <errno.h>
#include <stdlib.h>

/* ---- multipart ---- */

static void describe(const struct multipart *m, enum multipart_event event, struct buf *out, bool *in_data)
{
	if (event == MULTIPART_DATA) {
		if (!*in_data)
			buf_puts(out, "=");
		*in_data = true;
		buf_append(out, m->data, m->n);
		return;
	}
	if (event != MULTIPART_NEED_MORE)
		*in_data = false;
	if (event == MULTIPART_PART)
		buf_printf(out, "<%s%s>", m->name, m->has_filename ? "+" : "");
	else if (event == MULTIPART_PART_END)
		buf_puts(out, ";");
	else if (event == MULTIPART_END)
		buf_puts(out, ".");
	else if (event == MULTIPART_ERROR)
		buf_puts(out, "!");
}

/* Content that needs no step, as it is taken from a socket, when nothing is kept.  Return: bytes of it. */
static size_t take_plain(struct multipart *m, const char *body, size_t n, struct buf *out, bool *in_data)
{
	size_t plain = multipart_plain(m, body, n);

	m->data = body;
	m->n = plain;
	if (plain)
		describe(m, MULTIPART_DATA, out, in_data);
	return plain;
}

/* Feeds @step bytes at a time; "~" at the end means that the form was cut short. */
static void read_form(const char *type, const char *body, size_t n, size_t step, bool plainly, struct buf *out)
{
	struct multipart m;
	auto_buf input = {0};
	enum multipart_event event = MULTIPART_NEED_MORE;
	bool in_data = false;

	if (multipart_init(&m, type, strlen(type)) < 0) {
		buf_puts(out, "-");
		return;
	}
	for (size_t at = 0; at < n && event != MULTIPART_END; at += step) {
		size_t piece = n - at < step ? n - at : step;
		size_t plain = plainly && !buf_used(&input) ? take_plain(&m, body + at, piece, out, &in_data) : 0;

		buf_append(&input, body + at + plain, piece - plain);
		for (;;) {
			size_t used = 0, len = buf_used(&input);

			event = multipart_step(&m, len ? buf_peek(&input) : "", len, &used);
			describe(&m, event, out, &in_data);
			if (event == MULTIPART_ERROR)
				return;
			buf_consume(&input, used);
			if (event == MULTIPART_END || (event == MULTIPART_NEED_MORE && !used))
				break;
		}
	}
	if (event != MULTIPART_END)
		buf_puts(out, "~");
}

#define TYPE "multipart/form-data; boundary=XX"
#define HEAD(name) "Content-Disposition: form-data; name=\"" name "\"\r\n\r\n"

static void test_multipart(void)
{
	static const struct {
		const char *why, *type, *body, *want;
	} cases[] = {
		{"one part", TYPE, "--XX\r\n" HEAD("a") "hello\r\n--XX--\r\n", "<a>=hello;."},
		{"two parts", TYPE, "--XX\r\n" HEAD("a") "1\r\n--XX\r\n" HEAD("b") "2\r\n--XX--", "<a>=1;<b>=2;."},
		{"empty part", TYPE, "--XX\r\n" HEAD("a") "\r\n--XX--", "<a>;."},
		{"the empty line's end is the boundary's, too", TYPE, "--XX\r\n" HEAD("a") "--XX--", "<a>;."},
		{"file name", TYPE, "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n1\r\n--XX--", "<f+>=1;."},
		{"coded file name", TYPE,
		 "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename*=UTF-8''x\r\n\r\n1\r\n--XX--", "<f+>=1;."},
		{"quotes and backslashes", TYPE,
		 "--XX\r\nContent-Disposition: form-data; filename=\"a\\\"; name=z\"; name=\"f\"\r\n\r\n1\r\n--XX--", "<f+>=1;."},
		{"raw UTF-8 in the file name", TYPE,
		 "--XX\r\ncontent-disposition: form-data; name=\"f\"; filename=\"\xc3\xbc.txt\"\r\n\r\n1\r\n--XX--", "<f+>=1;."},
		{"other headers", TYPE,
		 "--XX\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n1\r\n--XX--",
		 "<f>=1;."},
		{"text that looks like a boundary", TYPE, "--XX\r\n" HEAD("a") "\r\n--XY\r\n--X\r\n--XXZ\r\n--XX--",
		 "<a>=\r\n--XY\r\n--X\r\n--XXZ;."},
		{"line ends only", TYPE, "--XX\r\n" HEAD("a") "\r\n\r\n\r\n--XX--", "<a>=\r\n\r\n;."},
		{"blanks behind the boundary", TYPE, "--XX \t\r\n" HEAD("a") "1\r\n--XX--", "<a>=1;."},
		{"preamble", TYPE, "ignore me\r\n--XX\r\n" HEAD("a") "1\r\n--XX--", "<a>=1;."},
		{"epilogue", TYPE, "--XX\r\n" HEAD("a") "1\r\n--XX--\r\n--XX\r\n" HEAD("b"), "<a>=1;."},
		{"no part", TYPE, "--XX--\r\n", "."},
		{"quoted boundary", "Multipart/Form-Data; charset=x; boundary=\"X X\"", "--X X\r\n" HEAD("a") "1\r\n--X X--", "<a>=1;."},
		{"empty body", TYPE, "", "~"},
		{"cut in the head", TYPE, "--XX\r\nContent-Dis", "~"},
		{"cut in the body", TYPE, "--XX\r\n" HEAD("a") "1\r\n--X", "<a>=1~"},
		{"bare line feed in the head", TYPE, "--XX\r\nContent-Disposition: form-data;\n name=\"a\"\r\n\r\n1\r\n--XX--", "!"},
		{"folded line", TYPE, "--XX\r\nContent-Disposition: form-data;\r\n name=\"a\"\r\n\r\n1\r\n--XX--", "!"},
		{"no disposition", TYPE, "--XX\r\nContent-Type: a/b\r\n\r\n1\r\n--XX--", "!"},
		{"two dispositions", TYPE,
		 "--XX\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b\r\n\r\n1\r\n--XX--", "!"},
		{"two names", TYPE, "--XX\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n1\r\n--XX--", "!"},
		{"no name", TYPE, "--XX\r\nContent-Disposition: form-data\r\n\r\n1\r\n--XX--", "!"},
		{"quote without end", TYPE, "--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n--XX--", "!"},
		{"encoded part", TYPE,
		 "--XX\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n--XX--", "!"},
		{"binary part", TYPE,
		 "--XX\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: binary\r\n\r\n1\r\n--XX--", "<a>=1;."},
		{"attachment", TYPE, "--XX\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--XX--", "!"},
		{"text before the boundary's line end", TYPE, "--XXfoo\r\n" HEAD("a") "1\r\n--XX--", "!"},
		{"no boundary parameter", "multipart/form-data", "", "-"},
		{"empty boundary", "multipart/form-data; boundary=\"\"", "", "-"},
		{"two boundaries", "multipart/form-data; boundary=a; boundary=b", "", "-"},
		{"boundary of 71 characters",
		 "multipart/form-data; boundary=12345678901234567890123456789012345678901234567890123456789012345678901", "", "-"},
		{"other multipart", "multipart/mixed; boundary=XX", "", "-"},
		{"not multipart", "application/json", "", "-"},
		{"nothing", "", "", "-"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (size_t step = 1; step < 300; step = step < 4 ? step + 1 : step * 3) {
			auto_buf out = {0}, plain = {0};

			read_form(cases[i].type, cases[i].body, strlen(cases[i].body), step, false, &out);
			is_str(buf_str(&out), cases[i].want, "form: %s, %zu at a time", cases[i].why, step);
			read_form(cases[i].type, cases[i].body, strlen(cases[i].body), step, true, &plain);
			is_str(buf_str(&plain), cases[i].want, "the same past the reader");
		}
}

static void test_multipart_bounds(void)
{
	size_t n = 64 * 1024;
	auto_free char *text = malloc(n);
	auto_buf out = {0}, body = {0};

	if (!ok(text != NULL, "memory"))
		return;
	memset(text, 'x', n);
	read_form(TYPE, text, n, 1000, false, &out);
	is_str(buf_str(&out), "!", "an endless preamble is refused");
	buf_clear(&out);
	buf_puts(&body, "--XX\r\nContent-Disposition: form-data; name=\"");
	buf_append(&body, text, n);
	read_form(TYPE, buf_peek(&body), buf_used(&body), 1000, false, &out);
	is_str(buf_str(&out), "!", "an endless part head is refused");
	buf_clear(&out);
	buf_clear(&body);
	for (unsigned i = 0; i <= MULTIPART_PARTS_MAX; i++)
		buf_puts(&body, "--XX\r\n" HEAD("a") "\r\n");
	read_form(TYPE, buf_peek(&body), buf_used(&body), 4096, false, &out);
	ok(buf_used(&out) && buf_peek(&out)[buf_used(&out) - 1] == '!', "one part too many is refused");
}

/*
 * Every place of a delimiter, in content that is full of its first and last byte and in content that has neither, and what
 * stands behind it cut off.
 */
static void test_multipart_search(void)
{
	static const char delimiter[] = "\r\n--X--Y\r", type[] = "multipart/form-data; boundary=X--Y";
	static const char *const fill[] = {"\rYY\r\n-Y", "zzzzzzz"};
	const size_t len = sizeof(delimiter) - 2; /* without the CR */
	unsigned wrong = 0;
	struct multipart m;
	char text[700];

	if (!ok(multipart_init(&m, type, strlen(type)) == 0, "a boundary that has hyphens"))
		return;
	m.state = MULTIPART_BODY;
	for (size_t n = 1; n < sizeof(text); n += n < 90 ? 1 : 17)
		for (size_t at = 0, with = 0; at <= n; at += with, with = !with) {
			for (size_t i = 0; i < sizeof(text); i++)
				text[i] = fill[with][i % 7];
			size_t put = n - at < len ? n - at : len;
			memcpy(text + at, delimiter, put);
			const char *end = text + n, *held = put < len ? text + at : NULL, *found = memmem(text, n, delimiter, len);
			/* the content itself may end in what could begin a delimiter */
			for (const char *p = end - (n < len - 1 ? n : len - 1); !found && p < end; p++)
				if (!memcmp(p, delimiter, (size_t)(end - p)) && (!held || p < held))
					held = p;
			size_t want = found ? (size_t)(found - text) : held ? (size_t)(held - text) : n;
			wrong += multipart_plain(&m, text, n) != want;
		}
	is_int(wrong, 0, "content up to a delimiter, wherever it stands");
}

/* ---- commands ---- */

struct parsed {
	struct agent_spec spec;
	struct buf text; /* strings joined by '|' */
};

static bool parse_payload(const struct buf *payload, struct parsed *p)
{
	const size_t head = sizeof(struct agent_exec) + sizeof(p->spec);

	if (buf_used(payload) < head)
		return false;
	memcpy(&p->spec, buf_peek(payload) + sizeof(struct agent_exec), sizeof(p->spec));
	if (buf_used(payload) != head + p->spec.string_bytes)
		return false;
	buf_clear(&p->text);
	for (size_t i = head; i < buf_used(payload); i++)
		buf_append(&p->text, buf_peek(payload)[i] ? buf_peek(payload) + i : "|", 1);
	return true;
}

static void test_command_bodies(void)
{
	static const struct {
		const char *why, *body, *strings;
		uint32_t flags, uid, gid, timeout_ms;
	} good[] = {
		{"only a command", "{\"command\":\"echo hi\"}", "|echo hi|", AGENT_SPEC_SHELL, 0, 0, 0},
		{"everything",
		 "{\"command\":\"x\",\"cwd\":\"/w\",\"background\":true,\"timeout\":1500,\"uid\":7,\"gid\":8,\"envs\":{\"A\":\"1\",\"B\":\"\"}}",
		 "/w|x|A=1|B=|", AGENT_SPEC_SHELL | AGENT_SPEC_BACKGROUND | AGENT_SPEC_UID | AGENT_SPEC_GID, 7, 8, 1500},
		{"nulls are absent",
		 "{\"command\":\"x\",\"cwd\":null,\"background\":null,\"timeout\":null,\"uid\":null,\"gid\":null,\"envs\":null}", "|x|",
		 AGENT_SPEC_SHELL, 0, 0, 0},
		{"unknown members", "{\"command\":\"x\",\"more\":[1,{}]}", "|x|", AGENT_SPEC_SHELL, 0, 0, 0},
		{"uid 0", "{\"command\":\"x\",\"uid\":0}", "|x|", AGENT_SPEC_SHELL | AGENT_SPEC_UID, 0, 0, 0},
		{"a very long timeout", "{\"command\":\"x\",\"timeout\":999999999999}", "|x|", AGENT_SPEC_SHELL, 0, 0, UINT32_MAX},
	};
	static const struct {
		const char *why, *body;
	} bad[] = {
		{"no command", "{}"},
		{"empty command", "{\"command\":\"\"}"},
		{"null command", "{\"command\":null}"},
		{"a number", "{\"command\":5}"},
		{"gid without uid", "{\"command\":\"x\",\"gid\":5}"},
		{"negative timeout", "{\"command\":\"x\",\"timeout\":-1}"},
		{"timeout with a fraction", "{\"command\":\"x\",\"timeout\":1.5}"},
		{"negative uid", "{\"command\":\"x\",\"uid\":-1}"},
		{"uid that the kernel reads as none", "{\"command\":\"x\",\"uid\":4294967295}"},
		{"uid as text", "{\"command\":\"x\",\"uid\":\"0\"}"},
		{"background as text", "{\"command\":\"x\",\"background\":\"yes\"}"},
		{"name with =", "{\"command\":\"x\",\"envs\":{\"A=B\":\"1\"}}"},
		{"empty name", "{\"command\":\"x\",\"envs\":{\"\":\"1\"}}"},
		{"value that is no string", "{\"command\":\"x\",\"envs\":{\"A\":1}}"},
		{"envs as a list", "{\"command\":\"x\",\"envs\":[]}"},
		{"NUL", "{\"command\":\"x\\u0000y\"}"},
		{"the same member twice", "{\"command\":\"x\",\"command\":\"y\"}"},
		{"a list", "[]"},
		{"no JSON", "echo"},
		{"nothing", ""},
	};
	static const uint8_t id[AGENT_ID_BYTES] = {1, 2, 3};
	struct parsed p = {0};
	struct sbx_err err;
	bool background;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		auto_buf payload = {0};

		int r = command_spec_from_json(good[i].body, strlen(good[i].body), id, &payload, &background, &err);
		if (!ok(r == 0 && parse_payload(&payload, &p), "command accepted: %s", good[i].why))
			continue;
		is_str(buf_str(&p.text), good[i].strings, "its strings: %s", good[i].why);
		ok(p.spec.flags == good[i].flags && p.spec.uid == good[i].uid && p.spec.gid == good[i].gid &&
			   p.spec.timeout_ms == good[i].timeout_ms && background == !!(good[i].flags & AGENT_SPEC_BACKGROUND),
		   "its numbers: %s", good[i].why);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		auto_buf payload = {0};

		int r = command_spec_from_json(bad[i].body, strlen(bad[i].body), id, &payload, &background, &err);
		ok(r == -1 && err.code == SBX_E_EXECD_BODY && !buf_used(&payload), "command refused: %s", bad[i].why);
	}
	buf_free(&p.text);
}

static void test_command_bounds(void)
{
	size_t n = LIMIT_SPAWN_STRING_BYTES;
	auto_free char *text = malloc(n + 1);
	static const uint8_t id[AGENT_ID_BYTES];
	struct sbx_err err;

	if (!ok(text != NULL, "memory"))
		return;
	memset(text, 'x', n);
	text[n] = '\0';
	struct command_pair env[5] = {{"A", text + 8}, {"B", text + 8}, {"C", text + 8}, {"D", text + 8}, {"E", text + 8}};
	auto_buf out = {0};
	struct command_spec spec = {.command = text};
	ok(command_spec_payload(&spec, id, &out, &err) < 0 && err.code == SBX_E_EXECD_BODY, "a string that execve refuses");
	spec.command = text + 1;
	ok(command_spec_payload(&spec, id, &out, &err) == 0, "the longest string that it takes");
	spec.env = env;
	spec.n_env = 5;
	ok(command_spec_payload(&spec, id, &out, &err) < 0 && err.code == SBX_E_EXECD_BODY, "more than one request may hold");
}

int main(void)
{
	test_multipart();
	test_multipart_bounds();
	test_multipart_search();
	test_command_bodies();
	test_command_bounds();
	return tap_done();
}
