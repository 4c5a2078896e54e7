// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: the pure parts of sessions and code: frames of a driver, events, the state of a shell
 */
#include "tests/tap.h"

#include "api/execd/code_events.h"
#include "api/execd/shell_state.h"

#include <errno.h>
#include <stdlib.h>

/* ---- frames ---- */

static struct buf seen;

static int note(void *arg, char type, const uint8_t *payload, size_t n)
{
	(void)arg;
	buf_printf(&seen, "%c%zu:", type, n);
	buf_append(&seen, payload, n < 32 ? n : 32);
	buf_puts(&seen, ";");
	return type == 'F' ? 7 : 0;
}

#define BYTES(literal) (literal), sizeof(literal) - 1

static void test_frames(void)
{
	static const struct {
		const char *why, *data;
		size_t n;
		int result;
		const char *seen;
	} cases[] = {
		{"nothing", BYTES(""), 0, ""},
		{"one frame", BYTES("O\3\0\0\0abc"), 0, "O3:abc;"},
		{"two and the beginning of one", BYTES("O\1\0\0\0aE\0\0\0\0Z\4\0"), 0, "O1:a;E0:;"},
		{"a frame that is not complete", BYTES("O\3\0\0\0ab"), 0, ""},
		{"a type that is none", BYTES("X\0\0\0\0"), -EPROTO, ""},
		{"at once, without its length", BYTES("O\0\0\0\0?"), -EPROTO, "O0:;"},
		{"too long for output", BYTES("O\1\0\4\0"), -EPROTO, ""},
		{"too long for a hello", BYTES("H\1\20\0\0"), -EPROTO, ""},
		{"too long for a result", BYTES("R\1\0\120\0"), -EPROTO, ""},
		{"the sink ends it", BYTES("F\0\0\0\0O\0\0\0\0"), -ECANCELED, "F0:;"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (size_t piece = 1; piece <= cases[i].n + 1; piece += cases[i].n ? cases[i].n : 1) {
			struct code_frames f = {{0}};
			int r = 0;

			buf_clear(&seen);
			for (size_t at = 0; at < cases[i].n && !r; at += piece)
				r = code_frames_feed(&f, (const uint8_t *)cases[i].data + at,
						     piece < cases[i].n - at ? piece : cases[i].n - at, note, NULL);
			is_int(r, cases[i].result, "%s, by %zu: result", cases[i].why, piece);
			is_str(buf_str(&seen), cases[i].seen, "%s, by %zu: frames", cases[i].why, piece);
			code_frames_clear(&f);
		}
	}
	struct buf out = {0};
	ok(!code_frames_cell(&out, 258, "1+1") && buf_used(&out) == 12 && !memcmp(buf_peek(&out), "X\7\0\0\0\2\1\0\0" "1+1", 12),
	   "a cell, with its number");
	buf_clear(&out);
	ok(!code_frames_interrupt(&out, 258) && buf_used(&out) == 9 && !memcmp(buf_peek(&out), "I\4\0\0\0\2\1\0\0", 9), "an interrupt, with its number");
	buf_free(&out);
}

/* ---- events ---- */

static struct code_list list_of(struct buf *b, const char *const *strings)
{
	for (; *strings; strings++) {
		uint32_t n = (uint32_t)strlen(*strings);
		uint8_t size[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};

		buf_append(b, size, 4);
		buf_append(b, *strings, n);
	}
	const uint8_t *at = (const uint8_t *)buf_peek(b);

	return (struct code_list){at, at + buf_used(b)};
}

static void test_events(void)
{
	static const struct {
		const char *why;
		const char *strings[9];
		const char *want;
	} cases[] = {
		{"text goes by two names", {"text/plain", "4", NULL}, "{\"text\":\"4\",\"text/plain\":\"4\"}"},
		{"sorted, escaped", {"text/plain", "a", "text/html", "<b>", "image/png", "aGk=", NULL},
		 "{\"image/png\":\"aGk=\",\"text\":\"a\",\"text/html\":\"\\u003cb\\u003e\",\"text/plain\":\"a\"}"},
		{"a name once", {"a/b", "1", "a/b", "2", NULL}, "{\"a/b\":\"1\"}"},
		{"a name without data", {"a/b", "1", "c/d", NULL}, "{\"a/b\":\"1\"}"},
		{"no name", {"", "1", NULL}, "{}"},
		{"bytes that are no text", {"text/html", "\xff", NULL}, "{\"text/html\":\"\\ufffd\"}"},
		{"nothing", {NULL}, "{}"},
	};
	char want[512];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf b = {0}, out = {0};

		code_event_result(&out, list_of(&b, cases[i].strings), 5);
		snprintf(want, sizeof(want), "{\"type\":\"result\",\"timestamp\":5,\"results\":%s}\n\n", cases[i].want);
		is_str(buf_str(&out), want, "result: %s", cases[i].why);
		buf_free(&b);
		buf_free(&out);
	}
	struct buf b = {0}, out = {0};
	static const char *const lines[] = {"one", "t\"wo", NULL};
	code_event_error(&out, "E", 1, "v", 1, list_of(&b, lines), 5);
	is_str(buf_str(&out), "{\"type\":\"error\",\"timestamp\":5,\"error\":{\"ename\":\"E\",\"evalue\":\"v\",\"traceback\":[\"one\",\"t\\\"wo\"]}}\n\n",
	       "an error with its lines");
	buf_clear(&out);
	code_event_error(&out, "E", 1, "", 0, (struct code_list){NULL, NULL}, 5);
	is_str(buf_str(&out), "{\"type\":\"error\",\"timestamp\":5,\"error\":{\"ename\":\"E\",\"evalue\":\"\",\"traceback\":[]}}\n\n", "without any");
	buf_clear(&out);
	code_event_count(&out, 3, 5);
	is_str(buf_str(&out), "{\"type\":\"execution_count\",\"execution_count\":3,\"timestamp\":5}\n\n", "a count");
	buf_clear(&out);
	buf_clear(&b);

	/* escaping makes a byte six: more than a client's line buffer takes */
	char *big = malloc(1u << 20);
	memset(big, '<', 1u << 20);
	big[(1u << 20) - 1] = '\0';
	const char *const strings[] = {"text/html", big, "text/plain", "small", NULL};
	code_event_result(&out, list_of(&b, strings), 5);
	const char *text = buf_str(&out);
	ok(strstr(text, "\"stderr\"") == text + 8 && strstr(text, "text/html of 1048575 bytes is too large") &&
		   strstr(text, "\"results\":{\"text\":\"small\",\"text/plain\":\"small\"}"),
	   "what is too large is left out, and that is told (%zu bytes)", buf_used(&out));
	free(big);
	buf_free(&b);
	buf_free(&out);
}

/* ---- the state of a shell ---- */

static const uint8_t id[AGENT_ID_BYTES] = {1};

/* Lays out a run; Return: the text that the shell reads first, NUL-terminated in @out */
static const char *boot_of(const struct shell_state *state, struct shell_run run, struct shell_dump *dump, struct buf *out,
			   struct agent_spec *ret_spec)
{
	static struct sbx_err err;

	buf_clear(out);
	if (shell_state_payload(state, &run, id, dump, out, &err) < 0)
		return err.msg;
	memcpy(ret_spec, buf_peek(out) + sizeof(struct agent_exec), sizeof(*ret_spec));
	return buf_str(out) + sizeof(struct agent_exec) + sizeof(*ret_spec) + ret_spec->string_bytes;
}

static void tell(struct shell_dump *dump, const char *before, const char *text, const char *end)
{
	char all[512];

	snprintf(all, sizeof(all), "%s#S%s\n%s#%s%s\n", before, dump->nonce, text, end, dump->nonce);
	shell_dump_add(dump, (const uint8_t *)all, strlen(all));
}

static void test_state(void)
{
	struct shell_state state = {.known = false};
	struct shell_dump dump = {.too_large = false};
	struct buf out = {0};
	struct agent_spec spec;

	const char *boot = boot_of(&state, (struct shell_run){.command = "echo 'hi'", .first_cwd = "/w", .merge = true}, &dump, &out, &spec);
	const char *strings = buf_peek(&out) + sizeof(struct agent_exec) + sizeof(spec);
	ok(!memcmp(strings, "/w\0bash\0--noprofile\0--norc\0-c\0echo 'hi'\0BASH_ENV=/proc/self/fd/197\0", spec.string_bytes),
	   "the command is what the client wrote");
	is_int((int)spec.flags, AGENT_SPEC_DRIVER | AGENT_SPEC_MERGE, "over the sandbox's environment");
	ok(strstr(boot, dump.nonce) && !strstr(boot, "builtin eval"), "nothing to restore");

	tell(&dump, "", "x='a'\n", "OK");
	ok(shell_state_take(&state, &dump, 7) && state.known, "a state is taken");
	is_str(buf_str(&state.text), "x='a'\n", "without its marks");
	boot = boot_of(&state, (struct shell_run){.command = "y", .first_cwd = "/w"}, &dump, &out, &spec);
	strings = buf_peek(&out) + sizeof(struct agent_exec) + sizeof(spec);
	is_str(strings, "", "the state knows the directory");
	is_int((int)spec.flags, AGENT_SPEC_DRIVER | AGENT_SPEC_BARE_ENV, "and the environment");
	ok(strstr(boot, "x='\\''a'\\''\n") && strstr(boot, "__osb_done 7 "), "it is quoted, and $? is there");
	boot = boot_of(&state, (struct shell_run){.command = "y", .cwd = "/other", .first_cwd = "/w"}, &dump, &out, &spec);
	strings = buf_peek(&out) + sizeof(struct agent_exec) + sizeof(spec);
	ok(!strcmp(strings, "/other") && strstr(boot, "__osb_cd() { :; }") && strstr(boot, "builtin cd -P ."), "a directory of the run's own");
	boot_of(&state, (struct shell_run){.command = "trap x EXIT"}, &dump, &out, &spec);
	strings = buf_peek(&out) + sizeof(struct agent_exec) + sizeof(spec);
	ok(memmem(strings, spec.string_bytes, BYTES("trap x EXIT\n{ ( \\__osb_dump \"$?\"")), "a command with traps tells its state at its end");

	static const struct {
		const char *why, *before, *text, *end;
		bool taken;
		const char *want;
	} cases[] = {
		{"a shell that was killed while it told", "", "z=1\n", "O", true, "x='a'\n"},
		{"the last of two counts", "#S", "z=2\n", "OK", true, "z=2\n"},
		{"a mark without the nonce in a value", "", "v='\n#S\n#OK\n'\n", "OK", true, "v='\n#S\n#OK\n'\n"},
		{"an empty state", "", "", "OK", true, ""},
		{"what is disabled", "enable -n printf\nenable -n [\n", "z=3\n", "OK", true, "enable -n printf\nenable -n [\nz=3\n"},
		{"text before the mark", "rm x\nenable -n printf\n", "z=4\n", "OK", true, "z=4\n"},
		{"behind what is disabled", "enable -n a\nrm x\n", "z=5\n", "OK", true, "enable -n a\nz=5\n"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		shell_dump_clear(&dump);
		tell(&dump, cases[i].before, cases[i].text, cases[i].end);
		is_int(shell_state_take(&state, &dump, 0), cases[i].taken, "%s: taken", cases[i].why);
		is_str(buf_str(&state.text), cases[i].want, "%s: kept", cases[i].why);
	}
	shell_dump_clear(&dump);
	tell(&dump, "enable -n builtin\nenable -n x;rm\nenable -n :\n", "z='6'\n", "OK");
	ok(shell_state_take(&state, &dump, 3), "names that are disabled");
	boot = boot_of(&state, (struct shell_run){.command = "y"}, &dump, &out, &spec);
	ok(strstr(boot, "'builtin enable -n builtin :'") && !strstr(boot, "rm") && !strstr(boot, "return \"$1\"\n}\n__osb_cd"),
	   "are disabled last, and nothing that is no name");
	/* every run may tell its state more than twice */
	char *filler = malloc(SHELL_STATE_BYTES);
	memset(filler, 'f', SHELL_STATE_BYTES);
	for (int i = 0; i < 5; i++) {
		tell(&dump, "", "early=1\n", "OK");
		shell_dump_add(&dump, (const uint8_t *)filler, SHELL_STATE_BYTES / 2);
	}
	free(filler);
	tell(&dump, "", "x=9\n", "OK");
	ok(shell_state_take(&state, &dump, 0), "states of one run beyond the bound");
	is_str(buf_str(&state.text), "x=9\n", "the last one counts");
	static const struct {
		const char *command;
		bool watched;
	} watch[] = {
		{"exec ls", true},	      {"a; exec -a x ls", true}, {"if x; then exec\ty; fi", true}, {"! exec y", true},
		{"exec >x", false},	      {"exec 3>x", false},	 {"exec {fd}>x", false},	   {"find . -exec ls {} +", false},
		{"docker exec x y", false},   {"execute x", false},	 {"exec", false},		   {"trap x EXIT", true},
		{"trap 'exit 3' TERM", true}, {"trap x 0", true},	 {"trap x ERR", false},		   {"exit 3", false},
	};
	for (size_t i = 0; i < sizeof(watch) / sizeof(watch[0]); i++) {
		boot = boot_of(&state, (struct shell_run){.command = watch[i].command}, &dump, &out, &spec);
		is_int(strstr(boot, "' DEBUG\n") != NULL, watch[i].watched, "watched: %s", watch[i].command);
	}
	tell(&dump, "", "", "OK");
	ok(shell_state_take(&state, &dump, 0), "an empty one again");
	shell_dump_add(&dump, (const uint8_t *)"#S\0\n", 4);
	ok(shell_state_take(&state, &dump, 0), "something else");
	is_str(buf_str(&state.text), "", "changes nothing");
	char *big = calloc(1, 2 * SHELL_STATE_BYTES + 1);
	shell_dump_add(&dump, (const uint8_t *)big, 2 * SHELL_STATE_BYTES + 1);
	ok(!shell_state_take(&state, &dump, 0), "a flood is told");
	ok(shell_state_take(&state, &dump, 0), "once");
	memset(big, '"', 200u * 1024);
	big[200u * 1024] = '\0';
	boot = boot_of(&state, (struct shell_run){.command = big}, &dump, &out, &spec);
	strings = buf_peek(&out) + sizeof(struct agent_exec) + sizeof(spec);
	ok(memmem(strings, spec.string_bytes, BYTES("; $__osb_long\"")) && strstr(boot, "__osb_long='\"\""),
	   "a command that is too long for an argument is a variable");
	size_t n_huge = AGENT_DRIVER_TEXT_MAX / 4;
	char *huge = malloc(n_huge + 1);
	memset(huge, '\'', n_huge);
	huge[n_huge] = '\0';
	ok(strstr(boot_of(&state, (struct shell_run){.command = huge}, &dump, &out, &spec), "too long"), "one that is too long for that is refused");
	free(huge);
	free(big);
	shell_state_clear(&state);
	shell_dump_clear(&dump);
	buf_free(&out);
}

int main(void)
{
	test_frames();
	test_events();
	test_state();
	buf_free(&seen);
	return tap_done();
}
