// SPDX-License-Identifier: Apache-2.0
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/ws.h"

#include <errno.h>

static void test_handshake(void)
{
	char accept[WS_ACCEPT_SIZE], key[WS_KEY_CHARS + 1];

	ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", accept);
	is_str(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the answer to the key of RFC 6455 1.3");
	ws_make_key(key);
	ok(ws_key_is_valid(key, strlen(key)), "a key made here is valid");
	ok(!ws_key_is_valid("dGhlIHNhbXBsZSBub25jZQ=", 23), "a short key is not");
	ok(!ws_key_is_valid("dGhlIHNhbXBsZSBub25jZQAA", 24), "nor one without its padding");
	ok(!ws_key_is_valid("dGhlIHNhbXBsZ\r\n:b25jZQ==", 24), "nor one with other characters");
}

/* Reads all of it `step` bytes at a time; says what happened as text. */
static void transcript(bool server, uint64_t max, const void *data, size_t n, size_t step, struct buf *out)
{
	struct ws_reader r;
	auto_free uint8_t *copy = malloc(n + 1);
	size_t at = 0, end = 0;
	enum ws_event e = WS_MORE;

	memcpy(copy, data, n);
	ws_reader_init(&r, server, max);
	buf_clear(out);
	while (e != WS_BAD && (e != WS_MORE || end < n)) {
		struct ws_piece piece = {0};
		size_t used;

		if (e == WS_MORE)
			end = end + step > n ? n : end + step;
		e = ws_read(&r, copy + at, end - at, &used, &piece);
		at += used;
		if (e == WS_DATA) {
			buf_append(out, piece.data, piece.n);
			if (piece.last)
				buf_puts(out, piece.opcode == WS_TEXT ? "|text " : "|binary ");
		} else if (e == WS_CONTROL) {
			buf_printf(out, "<%d:", (int)piece.opcode);
			buf_append(out, piece.data, piece.n);
			buf_puts(out, "> ");
			if (piece.opcode == WS_CLOSE)
				buf_printf(out, "closed %d ", piece.close_code);
		} else if (e == WS_BAD) {
			buf_printf(out, "bad %d", piece.close_code);
		}
	}
}

#define M  "\x37\xfa\x21\x3d" /* the mask of RFC 6455 5.7 */
#define Z  "\0\0\0\0"

static void test_frames(void)
{
	static const struct {
		const char *why;
		bool server;
		uint64_t max;
		const char *data;
		size_t n;
		const char *want;
	} cases[] = {
#define FRAME(text) text, sizeof(text) - 1
		{"masked text of the RFC", true, 0, FRAME("\x81\x85" M "\x7f\x9f\x4d\x51\x58"), "Hello|text "},
		{"unmasked text to a client", false, 0, FRAME("\x81\x05Hello"), "Hello|text "},
		{"fragments with a ping between", true, 0, FRAME("\x01\x83" Z "Hel\x89\x82" Z "hi\x80\x82" Z "lo"),
		 "Hel<9:hi> lo|text "},
		{"empty message", true, 0, FRAME("\x82\x80" Z), "|binary "},
		{"close with code", true, 0, FRAME("\x88\x84" Z "\x03\xe8" "by"), "<8:\x03\xe8" "by> closed 1000 "},
		{"close without code", true, 0, FRAME("\x88\x80" Z), "<8:> closed 1005 "},
		{"length in two bytes", false, 0, FRAME("\x82\x7e\x00\x7e" "0123456789012345678901234567890123456789012345678901234567890"
							 "12345678901234567890123456789012345678901234567890123456789012345"),
		 "012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
		 "012345|binary "},
		{"a client must mask", true, 0, FRAME("\x81\x05Hello"), "bad 1002"},
		{"a server must not", false, 0, FRAME("\x81\x85" Z "Hello"), "bad 1002"},
		{"reserved bit", true, 0, FRAME("\xc1\x80" Z), "bad 1002"},
		{"unknown opcode", true, 0, FRAME("\x83\x80" Z), "bad 1002"},
		{"unknown control opcode", true, 0, FRAME("\x8b\x80" Z), "bad 1002"},
		{"ping in fragments", true, 0, FRAME("\x09\x80" Z), "bad 1002"},
		{"ping too long", true, 0, FRAME("\x89\xfe\x00\x7e" Z), "bad 1002"},
		{"continuation of nothing", true, 0, FRAME("\x80\x80" Z), "bad 1002"},
		{"new message inside one", true, 0, FRAME("\x01\x80" Z "\x81\x80" Z), "bad 1002"},
		{"close of one byte", true, 0, FRAME("\x88\x81" Z "\x03"), "bad 1002"},
		{"close with a reserved code", true, 0, FRAME("\x88\x82" Z "\x03\xed"), "bad 1002"},
		{"length not in its shortest form", true, 0, FRAME("\x82\xfe\x00\x05" Z), "bad 1002"},
		{"long length not in its shortest form", true, 0, FRAME("\x82\xff\0\0\0\0\0\0\xff\xff" Z), "bad 1002"},
		{"length of 2^63", true, 0, FRAME("\x82\xff\x80\0\0\0\0\0\0\0" Z), "bad 1002"},
		{"message past the bound", true, 4, FRAME("\x82\x85" Z), "bad 1009"},
		{"fragments past the bound", true, 4, FRAME("\x02\x83" Z "abc\x80\x82" Z), "abcbad 1009"},
		{"lengths that wrap past the bound", true, 4, FRAME("\x02\x83" Z "abc\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff" Z),
		 "abcbad 1009"},
	};
	auto_buf out = {0};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (size_t step = 1; step <= 200; step += 199) {
			transcript(cases[i].server, cases[i].max, cases[i].data, cases[i].n, step, &out);
			is_str(buf_str(&out), cases[i].want, "by %zu: %s", step, cases[i].why);
		}
}

static void test_writing(void)
{
	static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 200000};
	auto_free char *data = malloc(200000);
	auto_buf wire = {0}, out = {0};

	memset(data, 'x', 200000);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (int server = 0; server < 2; server++) {
			buf_clear(&wire);
			is_int(ws_write(&wire, server, WS_BINARY, true, data, sizes[i]), 0, "write %zu bytes", sizes[i]);
			transcript(!server, 0, buf_peek(&wire), buf_used(&wire), 4096, &out);
			ok(buf_used(&out) == sizes[i] + 8 && !strcmp(buf_str(&out) + sizes[i], "|binary "), "and read them again");
		}
	buf_clear(&wire);
	is_int(ws_write(&wire, true, WS_PING, true, data, 126), -EINVAL, "a long ping is refused");
	is_int(ws_write(&wire, true, WS_PING, false, data, 1), -EINVAL, "and one that is not final");
	char reason[200];
	memset(reason, 'r', sizeof(reason));
	memcpy(reason + 121, "\xc3\xa9\xc3\xa9", 4);
	reason[199] = '\0';
	ws_write_close(&wire, true, 1011, reason);
	ok(buf_used(&wire) == 2 + 2 + 123, "a reason is cut to what fits");
	buf_clear(&wire);
	memcpy(reason + 122, "\xc3\xa9", 2);
	ws_write_close(&wire, true, 1011, reason);
	ok(buf_used(&wire) == 2 + 2 + 122, "and never inside a character");
}

int main(void)
{
	test_handshake();
	test_frames();
	test_writing();
	return tap_done();
}
