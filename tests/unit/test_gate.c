/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate of TLS names: hellos as clients and attackers write them, in every split of records and segments, and the flow that
 * carries them, packet by packet.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "netpolicy/gate_packet.h"
#include "netpolicy/gate_table.h"
#include "tests/tap.h"

/* ---- a hello from its parts ---- */

enum odd {
	PLAIN = 0,
	TWO_EXTENSIONS = 1u << 0, /* server_name twice */
	TWO_NAMES = 1u << 1,	  /* two names in its list */
	OTHER_TYPE = 1u << 2,
	LIST_SHORT = 1u << 3, /* the list ends within the name */
	LIST_LONG = 1u << 4,
	EXT_TAIL = 1u << 5, /* a byte behind the list */
	NO_EXTENSIONS = 1u << 6, /* none at all, as clients of 1999 */
	EARLY = 1u << 7,
	ECH = 1u << 8,
	BODY_TAIL = 1u << 9,
	EXT_CUT = 1u << 10, /* the last extension is shorter than it says */
	SESSION_LONG = 1u << 11,
	SUITES_ODD = 1u << 12,
	SUITES_NONE = 1u << 13,
	COMPRESSION_NONE = 1u << 14,
	VERSION_2 = 1u << 15,
	NO_SNI = 1u << 16,
	EMPTY_SNI = 1u << 17,
	NAME_LAST = 1u << 18, /* behind other extensions */
	GREASE = 1u << 19,
	EMPTY_LIST = 1u << 20,
	ZERO_NAME_FIRST = 1u << 21, /* a second name of no bytes */
};

struct bytes {
	uint8_t p[70000];
	size_t n;
};

static void put(struct bytes *b, uint32_t v, size_t bytes)
{
	while (bytes--)
		b->p[b->n++] = (uint8_t)(v >> (8 * bytes));
}

static void put_raw(struct bytes *b, const void *p, size_t n)
{
	if (n)
		memcpy(b->p + b->n, p, n);
	b->n += n;
}

static size_t open_length(struct bytes *b, size_t bytes)
{
	b->n += bytes;
	return b->n;
}

static void close_length(struct bytes *b, size_t at, size_t bytes, int wrong)
{
	size_t len = (size_t)((long)(b->n - at) + wrong);

	for (size_t i = 0; i < bytes; i++)
		b->p[at - bytes + i] = (uint8_t)(len >> (8 * (bytes - 1 - i)));
}

static void put_sni(struct bytes *b, const char *name, size_t len, uint32_t odd)
{
	size_t ext, list, text;

	put(b, 0, 2);
	ext = open_length(b, 2);
	if (odd & EMPTY_SNI) {
		close_length(b, ext, 2, 0);
		return;
	}
	list = open_length(b, 2);
	if (!(odd & EMPTY_LIST)) {
		put(b, odd & OTHER_TYPE ? 7 : 0, 1);
		text = open_length(b, 2);
		put_raw(b, name, len);
		close_length(b, text, 2, 0);
		if (odd & (TWO_NAMES | ZERO_NAME_FIRST)) {
			put(b, 0, 1);
			put(b, odd & TWO_NAMES ? 6 : 0, 2);
			put_raw(b, "b.test", odd & TWO_NAMES ? 6 : 0);
		}
	}
	close_length(b, list, 2, odd & LIST_SHORT ? -1 : odd & LIST_LONG ? 1 : 0);
	if (odd & EXT_TAIL)
		put(b, 0, 1);
	close_length(b, ext, 2, 0);
}

static void put_extensions(struct bytes *b, const char *name, size_t len, uint32_t odd, size_t padding)
{
	size_t all = open_length(b, 2), ext;

	if (odd & GREASE)
		put(b, 0x0a0a0000, 4);
	if (odd & NAME_LAST) {
		put(b, 0x002b0003, 4);
		put(b, 0x020304, 3);
	}
	if (!(odd & NO_SNI))
		put_sni(b, name, len, odd);
	if (odd & TWO_EXTENSIONS)
		put_sni(b, "b.test", 6, 0);
	if (odd & EARLY)
		put(b, 0x002a0000, 4);
	if (odd & ECH) {
		put(b, 0xfe0d0004, 4);
		put(b, 0, 4);
	}
	if (padding) {
		put(b, 21, 2);
		ext = open_length(b, 2);
		memset(b->p + b->n, 0, padding);
		b->n += padding;
		close_length(b, ext, 2, 0);
	}
	if (odd & EXT_CUT)
		put(b, 0x00170005, 4);
	close_length(b, all, 2, 0);
}

/* The handshake message */
static void put_hello(struct bytes *b, const char *name, size_t len, uint32_t odd, size_t padding)
{
	size_t body;

	put(b, 1, 1);
	body = open_length(b, 3);
	put(b, odd & VERSION_2 ? 0x0200 : 0x0303, 2);
	for (size_t i = 0; i < 32; i++)
		put(b, (uint32_t)i, 1);
	put(b, odd & SESSION_LONG ? 33 : 0, 1);
	if (odd & SESSION_LONG)
		for (size_t i = 0; i < 33; i++)
			put(b, 7, 1);
	put(b, odd & SUITES_NONE ? 0 : odd & SUITES_ODD ? 3 : 2, 2);
	put(b, 0x1301, odd & SUITES_NONE ? 0 : odd & SUITES_ODD ? 3 : 2);
	put(b, odd & COMPRESSION_NONE ? 0 : 1, 1);
	put(b, 0, odd & COMPRESSION_NONE ? 0 : 1);
	if (!(odd & NO_EXTENSIONS))
		put_extensions(b, name, len, odd, padding);
	if (odd & BODY_TAIL)
		put(b, 0, 1);
	close_length(b, body, 3, 0);
}

static void put_records(struct bytes *b, const struct bytes *message, size_t each)
{
	for (size_t at = 0; at < message->n;) {
		size_t n = message->n - at < each ? message->n - at : each;

		put(b, 0x160301, 3);
		put(b, (uint32_t)n, 2);
		put_raw(b, message->p + at, n);
		at += n;
	}
}

static struct bytes message, stream;

static void make(const char *name, size_t len, uint32_t odd, size_t padding, size_t each)
{
	message.n = stream.n = 0;
	put_hello(&message, name, len, odd, padding);
	put_records(&stream, &message, each);
}

/* ---- whole hellos ---- */

#define NAME(text) text, sizeof(text) - 1

static const struct {
	const char *why, *name;
	size_t len;
	uint32_t odd;
	size_t padding;
	enum tls_hello_found want;
	const char *want_name;
} hellos[] = {
	{"a name", NAME("a.test"), PLAIN, 0, TLS_HELLO_NAME, "a.test"},
	{"capitals", NAME("A.TeSt"), PLAIN, 0, TLS_HELLO_NAME, "a.test"},
	{"one last dot", NAME("a.test."), PLAIN, 0, TLS_HELLO_NAME, "a.test"},
	{"an international name in A-labels", NAME("xn--mnchen-3ya.example"), PLAIN, 0, TLS_HELLO_NAME, "xn--mnchen-3ya.example"},
	{"underscores", NAME("_a._tcp.test"), PLAIN, 0, TLS_HELLO_NAME, "_a._tcp.test"},
	{"single label", NAME("db"), PLAIN, 0, TLS_HELLO_NAME, "db"},
	{"a name behind other extensions", NAME("a.test"), NAME_LAST, 0, TLS_HELLO_NAME, "a.test"},
	{"grease before it", NAME("a.test"), GREASE, 0, TLS_HELLO_NAME, "a.test"},
	{"early data", NAME("a.test"), EARLY, 0, TLS_HELLO_NAME, "a.test"},
	{"encrypted hello, or the grease of one", NAME("a.test"), ECH, 0, TLS_HELLO_NAME, "a.test"},
	{"post-quantum size", NAME("a.test"), PLAIN, 1700, TLS_HELLO_NAME, "a.test"},
	{"12 KiB", NAME("a.test"), PLAIN, 12000, TLS_HELLO_NAME, "a.test"},
	{"more than 16 KiB", NAME("a.test"), PLAIN, 16500, TLS_HELLO_BAD, ""},
	{"60 KiB", NAME("a.test"), PLAIN, 60000, TLS_HELLO_BAD, ""},
	{"no name", NAME(""), NO_SNI, 0, TLS_HELLO_NO_NAME, ""},
	{"no extensions", NAME(""), NO_EXTENSIONS, 0, TLS_HELLO_NO_NAME, ""},
	{"IPv4 for a name", NAME("198.51.100.7"), PLAIN, 0, TLS_HELLO_NO_NAME, ""},
	{"short IPv4 for a name", NAME("127.1"), PLAIN, 0, TLS_HELLO_NO_NAME, ""},
	{"hexadecimal IPv4 for a name", NAME("0x7f000001"), PLAIN, 0, TLS_HELLO_NO_NAME, ""},
	{"IPv6 for a name", NAME("2001:db8::7"), PLAIN, 0, TLS_HELLO_NO_NAME, ""},
	{"name with a port", NAME("a.test:443"), PLAIN, 0, TLS_HELLO_NO_NAME, ""},
	{"server name twice", NAME("a.test"), TWO_EXTENSIONS, 0, TLS_HELLO_BAD, ""},
	{"two names in one list", NAME("a.test"), TWO_NAMES, 0, TLS_HELLO_BAD, ""},
	{"a second name of no bytes", NAME("a.test"), ZERO_NAME_FIRST, 0, TLS_HELLO_BAD, ""},
	{"another type of name", NAME("a.test"), OTHER_TYPE, 0, TLS_HELLO_BAD, ""},
	{"list ends within the name", NAME("a.test"), LIST_SHORT, 0, TLS_HELLO_BAD, ""},
	{"list ends behind its extension", NAME("a.test"), LIST_LONG, 0, TLS_HELLO_BAD, ""},
	{"a byte behind the list", NAME("a.test"), EXT_TAIL, 0, TLS_HELLO_BAD, ""},
	{"empty server name extension", NAME(""), EMPTY_SNI, 0, TLS_HELLO_BAD, ""},
	{"empty list", NAME(""), EMPTY_LIST, 0, TLS_HELLO_BAD, ""},
	{"empty name", NAME(""), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a NUL within", NAME("a.test\0.evil.test"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a NUL at the end", NAME("a.test\0"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a NUL first", NAME("\0a.test"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"only a dot", NAME("."), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"two last dots", NAME("a.test.."), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a first dot", NAME(".a.test"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"an empty label", NAME("a..test"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a blank", NAME("a.test "), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a wildcard", NAME("*.test"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"UTF-8", NAME("m\xc3\xbcnchen.example"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a slash", NAME("a.test/"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a label of 64", NAME("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test"), PLAIN, 0, TLS_HELLO_BAD, ""},
	{"a byte behind the extensions", NAME("a.test"), BODY_TAIL, 0, TLS_HELLO_BAD, ""},
	{"an extension that is cut", NAME("a.test"), EXT_CUT, 0, TLS_HELLO_BAD, ""},
	{"a session of 33 bytes", NAME("a.test"), SESSION_LONG, 0, TLS_HELLO_BAD, ""},
	{"half a cipher suite", NAME("a.test"), SUITES_ODD, 0, TLS_HELLO_BAD, ""},
	{"no cipher suite", NAME("a.test"), SUITES_NONE, 0, TLS_HELLO_BAD, ""},
	{"no compression method", NAME("a.test"), COMPRESSION_NONE, 0, TLS_HELLO_BAD, ""},
	{"version 2", NAME("a.test"), VERSION_2, 0, TLS_HELLO_BAD, ""},
};

/* In records of every size that matters, and from every prefix: MORE until the end, and never another verdict on the way */
static void check_hello(size_t i, size_t each)
{
	struct tls_hello h = {0};
	bool steady = true;

	make(hellos[i].name, hellos[i].len, hellos[i].odd, hellos[i].padding, each);
	tls_hello_read(stream.p, stream.n, &h);
	if (h.found == TLS_HELLO_NAME || h.found == TLS_HELLO_NO_NAME) {
		const struct tls_hello whole = h;

		steady = whole.used == stream.n;
		for (size_t n = 0; n < stream.n; n += stream.n > 2000 ? 97 : 1)
			steady &= tls_hello_read(stream.p, n, &h) == TLS_HELLO_MORE;
		/* What comes behind it changes nothing. */
		stream.p[stream.n] = 0x17;
		steady &= tls_hello_read(stream.p, stream.n + 1, &h) == whole.found && h.used == whole.used && !strcmp(h.name, whole.name);
		steady &= h.early_data == !!(hellos[i].odd & EARLY) && h.ech == !!(hellos[i].odd & ECH);
	}
	ok(h.found == hellos[i].want && !strcmp(h.name, hellos[i].want_name) && steady && h.name_len == strlen(h.name) &&
		   (h.found == TLS_HELLO_BAD) == !!h.wrong,
	   "%s, in records of %zu bytes%s%s", hellos[i].why, each, h.wrong ? ": " : "", h.wrong ? h.wrong : "");
}

static void check_hellos(void)
{
	for (size_t i = 0; i < sizeof(hellos) / sizeof(hellos[0]); i++) {
		check_hello(i, 16384);
		/* One byte a record makes of 517 bytes 3 KiB; what is longer than the bound is refused for that. */
		if (hellos[i].padding < 2000) {
			check_hello(i, 1);
			check_hello(i, 40);
		}
	}
}

/* ---- records ---- */

#define HEX(text) text, sizeof(text) - 1

static const struct {
	const char *why, *bytes;
	size_t len;
	enum tls_hello_found want;
} firsts[] = {
	{"nothing", HEX(""), TLS_HELLO_MORE},
	{"one byte", HEX("\x16"), TLS_HELLO_MORE},
	{"half a head", HEX("\x16\3\1\2"), TLS_HELLO_MORE},
	{"HTTP", HEX("GET / HTTP/1.1\r\n"), TLS_HELLO_OTHER},
	{"SSH", HEX("SSH-2.0-x\r\n"), TLS_HELLO_OTHER},
	{"SSL 2", HEX("\x80\x2e\1\3\1"), TLS_HELLO_BAD},
	{"perhaps SSL 2", HEX("\x80\x2e"), TLS_HELLO_MORE},
	{"binary, not SSL 2", HEX("\x80\x2e\4"), TLS_HELLO_OTHER},
	{"version 2 of records", HEX("\x16\2"), TLS_HELLO_BAD},
	{"an alert first", HEX("\x15\3\1\0\2\1\0"), TLS_HELLO_BAD},
	{"a change of ciphers first", HEX("\x14\3\1\0\1\1"), TLS_HELLO_BAD},
	{"data first", HEX("\x17\3\3\0\1\1"), TLS_HELLO_BAD},
	{"heartbeat first", HEX("\x18\3\3\0\1\1"), TLS_HELLO_BAD},
	{"an empty record", HEX("\x16\3\1\0\0"), TLS_HELLO_BAD},
	{"a record of 16,385 bytes", HEX("\x16\3\1\x40\1"), TLS_HELLO_BAD},
	{"a server's hello", HEX("\x16\3\1\0\4\2\0\0\0"), TLS_HELLO_BAD},
	{"a hello request", HEX("\x16\3\1\0\1\0"), TLS_HELLO_BAD},
	{"a hello of 16 MiB", HEX("\x16\3\1\x40\0\1\xff\xff\xff"), TLS_HELLO_BAD},
	{"an alert within", HEX("\x16\3\1\0\1\1\x15\3\1\0\2\1\0"), TLS_HELLO_BAD},
	{"data within", HEX("\x16\3\1\0\2\1\0\x17"), TLS_HELLO_BAD},
	{"another version within", HEX("\x16\3\1\0\1\1\x16\4"), TLS_HELLO_BAD},
	{"an empty record within", HEX("\x16\3\1\0\1\1\x16\3\1\0\0"), TLS_HELLO_BAD},
	{"a hello of nothing", HEX("\x16\3\1\0\4\1\0\0\0"), TLS_HELLO_BAD},
};

static const struct {
	const char *why, *bytes;
	size_t len;
	bool early;
	enum tls_after want;
} afters[] = {
	{"nothing", HEX(""), false, TLS_AFTER_MORE},
	{"data", HEX("\x17"), false, TLS_AFTER_DONE},
	{"an alert", HEX("\x15"), false, TLS_AFTER_DONE},
	{"a key exchange", HEX("\x16\3\3\0\x46\x10"), false, TLS_AFTER_DONE},
	{"a certificate", HEX("\x16\3\3\2\0\x0b"), false, TLS_AFTER_DONE},
	{"a second hello", HEX("\x16\3\3\2\0\1"), false, TLS_AFTER_HELLO},
	{"a handshake that says not which", HEX("\x16\3\3\2\0"), false, TLS_AFTER_MORE},
	{"an empty handshake", HEX("\x16\3\3\0\0"), false, TLS_AFTER_BAD},
	{"compatibility", HEX("\x14\3\3\0\1\1"), false, TLS_AFTER_MORE},
	{"compatibility, then data", HEX("\x14\3\3\0\1\1\x17"), false, TLS_AFTER_DONE},
	{"compatibility, then a second hello", HEX("\x14\3\3\0\1\1\x16\3\3\2\0\1"), false, TLS_AFTER_HELLO},
	{"compatibility without end", HEX("\x14\3\3\0\1\1\x14\3\3\0\1\1\x14\3\3\0\1\1\x14\3\3\0\1\1\x14\3\3\0\1\1"), false, TLS_AFTER_BAD},
	{"compatibility of two bytes", HEX("\x14\3\3\0\2\1\1"), false, TLS_AFTER_BAD},
	{"early data", HEX("\x17\3\3\0\2ab"), true, TLS_AFTER_MORE},
	{"early data, then a second hello", HEX("\x17\3\3\0\2ab\x16\3\3\2\0\1"), true, TLS_AFTER_HELLO},
	{"early data, half", HEX("\x17\3\3\0\x20" "ab"), true, TLS_AFTER_MORE},
	{"another protocol", HEX("GET"), false, TLS_AFTER_BAD},
};

static void check_records(void)
{
	struct tls_hello h;
	size_t at = 0;

	for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++)
		ok(tls_hello_read((const uint8_t *)firsts[i].bytes, firsts[i].len, &h) == firsts[i].want, "first: %s", firsts[i].why);
	for (size_t i = 0; i < sizeof(afters) / sizeof(afters[0]); i++)
		ok(tls_hello_after((const uint8_t *)afters[i].bytes, afters[i].len, afters[i].early, &at) == afters[i].want, "then: %s",
		   afters[i].why);
	make(NAME("a.test"), PLAIN, 0, 16384);
	/* Another message in the record of the hello */
	put(&message, 0x0b000000, 4);
	stream.n = 0;
	put_records(&stream, &message, 16384);
	ok(tls_hello_read(stream.p, stream.n, &h) == TLS_HELLO_BAD, "more than a hello in its record");
}

/* ---- flows ---- */

#define ISN  0xfffffff0u /* wraps within the hello */
#define PEER 5000u

static struct gate_flow flow;
static uint64_t now;

static enum gate_said packet(size_t at, const void *data, size_t len, uint32_t ack, uint32_t flags)
{
	const struct gate_segment seg = {.seq = ISN + 1 + (uint32_t)at, .ack = ack, .flags = GATE_ACK | flags, .data = data, .len = len, .now_ms = now};

	return gate_flow_segment(&flow, &seg, 1 << 20);
}

static void begin(void)
{
	now = 1000;
	gate_flow_begin(&flow, ISN, now);
	make(NAME("a.test"), PLAIN, 300, 16384);
}

static void check_flow(void)
{
	enum gate_said said = GATE_PASS;
	static const uint8_t finished[] = {0x14, 3, 3, 0, 1, 1, 0x17, 3, 3, 0, 2, 1, 2};
	size_t at;

	begin();
	ok(packet(0, NULL, 0, PEER, 0) == GATE_PASS, "flow: an acknowledgement passes");
	ok(packet(0, stream.p, stream.n, PEER, 0) == GATE_JUDGE && !strcmp(flow.hello.name, "a.test"), "flow: the hello is judged");
	ok(gate_flow_allowed(&flow, true, now) == GATE_PASS, "flow: it passes, and the flow is not given away");
	ok(packet(0, stream.p, stream.n, PEER, 0) == GATE_PASS, "flow: the same again passes");
	ok(packet(stream.n, NULL, 0, PEER + 900, 0) == GATE_PASS, "flow: the server has answered");
	ok(packet(stream.n, finished, sizeof(finished), PEER + 1200, 0) == GATE_RELEASE, "flow: and the handshake goes on: the kernel's");

	begin();
	for (at = 0; at < stream.n && said == GATE_PASS; at++)
		said = packet(at, stream.p + at, 1, PEER, 0);
	ok(said == GATE_JUDGE && at == stream.n, "flow: byte by byte all pass until the last");
	ok(gate_flow_allowed(&flow, false, now) == GATE_RELEASE, "flow: where nobody watches it is released at once");

	begin();
	ok(packet(100, stream.p + 100, 50, PEER, 0) == GATE_DROP, "flow: what is ahead of its turn is dropped");
	ok(packet(0, stream.p, 100, PEER, 0) == GATE_PASS && packet(50, stream.p + 50, stream.n - 50, PEER, 0) == GATE_JUDGE,
	   "flow: an overlap of the same bytes is fine");
	begin();
	packet(0, stream.p, 100, PEER, 0);
	stream.p[20] ^= 1;
	ok(packet(0, stream.p, stream.n, PEER, 0) == GATE_DENY && flow.hello.wrong, "flow: an overlap of others is denied");
	ok(packet(0, NULL, 0, PEER, 0) == GATE_DENY, "flow: and stays denied");
	begin();
	packet(0, stream.p, stream.n, PEER, 0);
	gate_flow_allowed(&flow, true, now);
	make(NAME("b.test"), PLAIN, 300, 16384);
	ok(packet(0, stream.p, stream.n, PEER, 0) == GATE_DENY, "flow: another hello in place of the judged one, before the server has answered");
	begin();
	packet(0, stream.p, stream.n, PEER, 0);
	gate_flow_allowed(&flow, true, now);
	ok(packet(stream.n, finished, sizeof(finished), PEER, 0) == GATE_PASS, "flow: more before the server's answer: not yet the kernel's");
	ok(packet(stream.n + sizeof(finished), NULL, 0, PEER + 1, 0) == GATE_RELEASE, "flow: with the answer it is");
	begin();
	ok(packet(0, stream.p, 10, PEER, GATE_URG) == GATE_DENY, "flow: urgent data");
	begin();
	ok(packet((size_t)-1, stream.p, 1, PEER, 0) == GATE_DROP, "flow: a byte before the first");
	ok(packet((size_t)-1, NULL, 0, PEER, 0) == GATE_PASS, "flow: a probe before the first");
	ok(packet(0, NULL, 0, PEER, GATE_RST) == GATE_PASS && packet(0, NULL, 0, PEER, GATE_FIN) == GATE_PASS, "flow: an end passes");
	begin();
	ok(packet(0, "GET / HTTP", 10, PEER, 0) == GATE_JUDGE && flow.hello.found == TLS_HELLO_OTHER, "flow: another protocol is judged too");
	gate_flow_clear(&flow);
}

/* The server asks for another hello: it is judged as the first was. */
static void second(const char *name, size_t len, const char *why)
{
	struct bytes *first = malloc(sizeof(*first));

	if (!first) {
		ok(false, "memory");
		return;
	}
	begin();
	*first = stream;
	packet(0, first->p, first->n, PEER, 0);
	gate_flow_allowed(&flow, true, now);
	packet(first->n, NULL, 0, PEER + 99, 0);
	make(name, len, PLAIN, 0, 16384);
	ok(packet(first->n, "\x14\3\3\0\1\1", 6, PEER + 99, 0) == GATE_PASS, "second hello: compatibility passes");
	ok(packet(first->n + 6, stream.p, 30, PEER + 99, 0) == GATE_PASS &&
		   packet(first->n + 36, stream.p + 30, stream.n - 30, PEER + 99, 0) == GATE_JUDGE && !strcmp(flow.hello.name, name),
	   "second hello: %s: judged", why);
	ok(gate_flow_allowed(&flow, true, now) == GATE_PASS, "second hello: allowed, and watched again");
	ok(packet(first->n + 6 + stream.n, "\x17\3\3\0\1", 5, PEER + 99, 0) == GATE_PASS, "second hello: the first answer is none to it");
	ok(packet(first->n + 11 + stream.n, NULL, 0, PEER + 200, 0) == GATE_RELEASE, "second hello: its own is");
	free(first);
}

static void check_second(void)
{
	size_t at;

	second("a.test", 6, "the same name");
	second("b.test", 6, "another name");
	begin();
	at = stream.n;
	packet(0, stream.p, at, PEER, 0);
	gate_flow_allowed(&flow, true, now);
	packet(at, stream.p, stream.n, PEER + 9, 0);
	gate_flow_allowed(&flow, true, now);
	ok(packet(2 * at, stream.p, stream.n, PEER + 19, 0) == GATE_DENY, "second hello: a third is denied");
	gate_flow_clear(&flow);
}

static void check_bounds(void)
{
	static uint8_t zeros[1400] = {0x17, 3, 3, 0x40, 0};
	enum gate_said said = GATE_PASS;
	size_t at;

	begin();
	packet(0, stream.p, 10, PEER, 0);
	now += LIMIT_GATE_HELLO_MS;
	ok(!gate_flow_over(&flow, now) && gate_flow_over(&flow, now + 1), "bounds: a hello has ten seconds");
	begin();
	ok(!gate_flow_over(&flow, now + LIMIT_GATE_HELLO_MS + 1), "bounds: before its first byte there is time");
	begin();
	const struct gate_segment seg = {.seq = ISN + 1, .flags = GATE_ACK, .data = stream.p, .len = 10, .now_ms = now};
	ok(gate_flow_segment(&flow, &seg, 100) == GATE_DROP && !flow.bytes, "bounds: without room nothing is kept, and nothing passes");
	/* Early data: passed over up to the bound, then the flow is released when the server has answered. */
	begin();
	make(NAME("a.test"), EARLY, 0, 16384);
	packet(0, stream.p, stream.n, PEER, 0);
	gate_flow_allowed(&flow, true, now);
	for (at = stream.n; at < LIMIT_GATE_STREAM + 3000 && said == GATE_PASS; at += sizeof(zeros)) {
		memset(zeros, 0, 5);
		/* two records of 16,384 and one that does not end */
		for (size_t i = 0; i < sizeof(zeros); i++) {
			size_t in = (at - stream.n + i) % (16384 + 5);

			zeros[i] = in == 0 ? 0x17 : in == 1 || in == 2 ? 3 : in == 3 ? 0x40 : 0;
		}
		said = packet(at, zeros, sizeof(zeros), PEER, 0);
	}
	ok(said == GATE_DROP && flow.n <= LIMIT_GATE_STREAM, "bounds: early data waits for the answer");
	ok(packet(at - sizeof(zeros), zeros, sizeof(zeros), PEER + 1, 0) == GATE_RELEASE, "bounds: and goes on with it");
	begin();
	make(NAME("a.test"), PLAIN, 17000, 1000);
	said = GATE_PASS;
	for (at = 0; at < stream.n && said == GATE_PASS; at += 500)
		said = packet(at, stream.p + at, 500, PEER, 0);
	ok(said == GATE_JUDGE && flow.hello.found == TLS_HELLO_BAD && at <= 2000, "bounds: a hello that says it is too long is judged at once");
	gate_flow_clear(&flow);
}

/* ---- packets ---- */

static size_t make_packet(uint8_t *p, bool six, size_t data)
{
	const size_t head = six ? 40 : 20, len = head + 20 + data;
	uint8_t *tcp = p + head;

	memset(p, 0, len);
	p[0] = six ? 0x60 : 0x45;
	if (six) {
		p[5] = (uint8_t)(20 + data);
		p[6] = 6;
		p[23] = 1;
		p[39] = 2;
	} else {
		p[3] = (uint8_t)len;
		p[9] = 6;
		p[12] = 10;
		p[15] = 1;
		p[16] = 198;
		p[19] = 20;
	}
	tcp[0] = 0x9c;
	tcp[1] = 0x40;
	tcp[2] = 1;
	tcp[3] = 0xbb;
	tcp[7] = 7;
	tcp[11] = 9;
	tcp[12] = 5 << 4;
	tcp[13] = GATE_ACK;
	return len;
}

static const struct {
	const char *why;
	bool six;
	size_t at; /* of the byte that is changed */
	uint8_t to;
	size_t cut; /* bytes missing at the end */
	bool good;
} packets[] = {
	{"IPv4", false, 8, 64, 0, true},
	{"IPv6", true, 7, 64, 0, true},
	{"IPv4 options", false, 0, 0x46, 0, false},
	{"version 5", false, 0, 0x55, 0, false},
	{"more fragments", false, 6, 0x20, 0, false},
	{"a later fragment", false, 7, 1, 0, false},
	{"do not fragment", false, 6, 0x40, 0, true},
	{"IPv4, UDP", false, 9, 17, 0, false},
	{"IPv6, an extension header", true, 6, 0, 0, false},
	{"longer than it is", false, 3, 60, 0, false},
	{"shorter than its head", false, 3, 30, 0, false},
	{"IPv6, longer than it is", true, 5, 50, 0, false},
	{"TCP's head shorter than a head", false, 20 + 12, 4 << 4, 0, false},
	{"TCP's head longer than the packet", false, 20 + 12, 15 << 4, 0, false},
	{"a byte less", false, 8, 64, 1, false},
	{"half", true, 7, 64, 40, false},
};

static void check_packets(void)
{
	uint8_t p[128];
	struct gate_packet got;

	for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
		size_t len = make_packet(p, packets[i].six, 5);

		p[packets[i].at] = packets[i].to;
		ok((gate_packet_read(p, len - packets[i].cut, &got) == 0) == packets[i].good, "packet: %s", packets[i].why);
		if (packets[i].good)
			ok(got.port == 443 && got.source_port == 40000 && got.seg.seq == 7 && got.seg.ack == 9 && got.seg.len == 5 && got.len == len &&
				   got.seg.flags == GATE_ACK && (got.source != 0) != packets[i].six,
			   "packet: %s: its parts", packets[i].why);
	}
}

/* ---- the table of flows ---- */

static struct gate_entry *table_begin(struct gate_table *t, uint32_t sandbox, uint16_t source_port, uint64_t now_ms)
{
	const struct gate_key key = {.sandbox_addr = sandbox, .target = 0xc6336414, .source_port = source_port, .port = 443};
	struct gate_entry *e = gate_table_find(t, &key);

	if (!e)
		e = gate_table_add(t, &key, now_ms);
	if (e)
		gate_table_begin(t, e, source_port, now_ms);
	return e;
}

static bool table_has(const struct gate_table *t, uint32_t sandbox, uint16_t source_port)
{
	return gate_table_find(t, &(struct gate_key){.sandbox_addr = sandbox, .target = 0xc6336414, .source_port = source_port, .port = 443}) != NULL;
}

static struct gate_table *table_full(uint32_t sandbox, uint64_t now_ms)
{
	struct gate_table *t = gate_table_new();

	uint16_t n = 0;

	while (n < LIMIT_GATE_FLOWS && table_begin(t, sandbox, n, now_ms))
		n++;
	ok(n == LIMIT_GATE_FLOWS, "table: it takes what a sandbox may have");
	return t;
}

static void check_table(void)
{
	enum { ONE = 0x0aff0001, OTHER = 0x0aff0002 };
	static uint8_t half[100] = {0x16, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc, 3, 3};
	struct gate_table *t = table_full(ONE, 1000);
	struct gate_entry *e;
	struct gate_segment seg = {.seq = 1, .flags = GATE_ACK, .data = half, .len = sizeof(half)};

	ok(!table_begin(t, ONE, 1000, 1000 + GATE_EVICT_MS), "table: a sandbox at its bound begins nothing while its flows are young");
	ok(table_begin(t, OTHER, 1, 1000 + GATE_EVICT_MS) != NULL, "table: another one does");
	ok(table_begin(t, ONE, 1000, 1001 + GATE_EVICT_MS) && !table_has(t, ONE, 0) && table_has(t, ONE, 1) && table_has(t, OTHER, 1),
	   "table: later its own oldest one gives way");
	ok(gate_table_count(t) == LIMIT_GATE_FLOWS + 1, "table: no other one");
	gate_table_free(t);

	/* Who begins its first flow anew all the time, and so has the oldest entry with the youngest time. */
	t = gate_table_new();
	table_begin(t, OTHER, 1, 1000);
	for (uint16_t i = 0; i < LIMIT_GATE_FLOWS; i++)
		table_begin(t, ONE, i, 2000);
	table_begin(t, OTHER, 1, 2000 + GATE_EVICT_MS);
	ok(table_begin(t, ONE, 1000, 2001 + GATE_EVICT_MS) != NULL, "table: what another sandbox begins anew takes no room from this one");
	table_begin(t, ONE, 1, 3000 + GATE_EVICT_MS);
	ok(table_begin(t, ONE, 1001, 3001 + GATE_EVICT_MS) && table_has(t, ONE, 1) && !table_has(t, ONE, 2), "table: nor does what it begins anew itself");
	gate_table_free(t);

	/* One that has spoken is not silent, and gives way to none; the next one does. */
	t = table_full(ONE, 1000);
	e = gate_table_find(t, &(struct gate_key){.sandbox_addr = ONE, .target = 0xc6336414, .source_port = 0, .port = 443});
	seg.now_ms = 1000 + GATE_EVICT_MS;
	ok(gate_flow_segment(&e->flow, &seg, gate_table_may_keep(t, e)) == GATE_PASS && e->flow.room > 0, "table: one says half of a hello");
	gate_table_kept(t, e, 0);
	ok(gate_table_may_keep(t, e) == LIMIT_GATE_BYTES, "table: what it may keep is its sandbox's");
	ok(table_begin(t, ONE, 1000, 1001 + GATE_EVICT_MS) && table_has(t, ONE, 0) && !table_has(t, ONE, 1), "table: it stays, the next silent one goes");
	const size_t room = e->flow.room;
	e = gate_table_find(t, &(struct gate_key){.sandbox_addr = ONE, .target = 0xc6336414, .source_port = 2, .port = 443});
	ok(gate_table_may_keep(t, e) == LIMIT_GATE_BYTES - room, "table: others of its sandbox may keep less");
	ok(gate_table_sweep(t, 1000 + GATE_EVICT_MS + LIMIT_GATE_HELLO_MS) == LIMIT_GATE_FLOWS, "table: nothing is over yet");
	ok(gate_table_sweep(t, 1001 + GATE_EVICT_MS + LIMIT_GATE_HELLO_MS) == LIMIT_GATE_FLOWS - 1 && !table_has(t, ONE, 0), "table: the half hello is");
	ok(gate_table_may_keep(t, e) == LIMIT_GATE_BYTES, "table: and its bytes are free again");
	ok(gate_table_sweep(t, 1002 + GATE_EVICT_MS + LIMIT_GATE_IDLE_MS) == 0, "table: in the end all are");
	gate_table_free(t);
	gate_table_free(NULL);
}

int main(void)
{
	check_table();
	check_packets();
	check_hellos();
	check_records();
	check_flow();
	check_second();
	check_bounds();
	return tap_done();
}
