/* SPDX-License-Identifier: Apache-2.0 */
/* DNS codec and upstream addresses: tables of messages, each with what must come of it. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "netpolicy/dns_msg.h"
#include "netpolicy/dns_upstream.h"
#include "tests/tap.h"

#define BYTES(s) (const uint8_t *)(s), sizeof(s) - 1
#define QNAME	 "\x03www\x04test\x00"
#define HEAD(flags, qd, an, ns, ar) "\x12\x34" flags "\x00" qd "\x00" an "\x00" ns "\x00" ar
#define PLAIN	 HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") QNAME "\x00\x01\x00\x01"

static const struct {
	const char *why;
	const uint8_t *data;
	size_t len;
	int result;
} queries[] = {
	{"plain question", BYTES(PLAIN), 0},
	{"empty", BYTES(""), -EBADMSG},
	{"half a header", BYTES("\x12\x34\x01\x00\x00\x01"), -EBADMSG},
	{"an answer is never answered", BYTES(HEAD("\x81\x80", "\x01", "\x00", "\x00", "\x00") QNAME "\x00\x01\x00\x01"), -EBADMSG},
	{"no question", BYTES(HEAD("\x01\x00", "\x00", "\x00", "\x00", "\x00")), DNS_FORMERR},
	{"two questions", BYTES(HEAD("\x01\x00", "\x02", "\x00", "\x00", "\x00") QNAME "\x00\x01\x00\x01" QNAME "\x00\x01\x00\x01"), DNS_FORMERR},
	{"records in the answer section", BYTES(HEAD("\x01\x00", "\x01", "\x01", "\x00", "\x00") QNAME "\x00\x01\x00\x01"), DNS_FORMERR},
	{"name runs out", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") "\x03ww"), DNS_FORMERR},
	{"no type", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") QNAME), DNS_FORMERR},
	{"compressed name", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") "\xc0\x0c\x00\x01\x00\x01"), DNS_FORMERR},
	{"label of 64", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") "\x40xxx\x00\x00\x01\x00\x01"), DNS_FORMERR},
	{"bytes behind the question", BYTES(PLAIN "x"), DNS_FORMERR},
	{"notify", BYTES(HEAD("\x21\x00", "\x01", "\x00", "\x00", "\x00") QNAME "\x00\x01\x00\x01"), DNS_NOTIMP},
	{"transfer", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") QNAME "\x00\xfc\x00\x01"), DNS_REFUSED},
	{"chaos class", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") QNAME "\x00\x10\x00\x03"), DNS_REFUSED},
	{"type OPT asked for", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") QNAME "\x00\x29\x00\x01"), DNS_REFUSED},
	{"EDNS", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00"), 0},
	{"EDNS with an option", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x00"), 0},
	{"EDNS twice", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x02") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"), DNS_FORMERR},
	{"EDNS not at the root", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x01x\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"), DNS_FORMERR},
	{"EDNS version 1", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x01\x00\x00\x00\x00"), DNS_BADVERS},
	{"EDNS length runs out", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\xff\xff"), DNS_FORMERR},
};

#define ANSWER(flags, an, ns, ar) "\xab\xcd" flags "\x00\x01\x00" an "\x00" ns "\x00" ar "\x03wWw\x04test\x00\x00\x01\x00\x01"
#define RR_A "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"

static const struct {
	const char *why;
	const uint8_t *data;
	size_t len;
	int result;
} answers[] = {
	{"one address, other case", BYTES(ANSWER("\x81\x80", "\x01", "\x00", "\x00") RR_A), 0},
	{"nothing known", BYTES(ANSWER("\x81\x83", "\x00", "\x00", "\x00")), 0},
	{"cut", BYTES(ANSWER("\x83\x80", "\x05", "\x00", "\x00") "\xc0"), 0},
	{"another id", BYTES("\xab\xce\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00" QNAME "\x00\x01\x00\x01"), -EAGAIN},
	{"a question", BYTES(ANSWER("\x01\x00", "\x00", "\x00", "\x00")), -EAGAIN},
	{"another name", BYTES("\xab\xcd\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x03wwx\x04test\x00\x00\x01\x00\x01"), -EAGAIN},
	{"another type", BYTES("\xab\xcd\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00" QNAME "\x00\x1c\x00\x01"), -EAGAIN},
	{"another class", BYTES("\xab\xcd\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00" QNAME "\x00\x01\x00\x03"), -EAGAIN},
	{"no question", BYTES("\xab\xcd\x81\x80\x00\x00\x00\x00\x00\x00\x00\x00"), -EAGAIN},
	{"empty", BYTES(""), -EAGAIN},
	{"fewer records than said", BYTES(ANSWER("\x81\x80", "\x02", "\x00", "\x00") RR_A), -EBADMSG},
	{"bytes behind the last record", BYTES(ANSWER("\x81\x80", "\x01", "\x00", "\x00") RR_A "x"), -EBADMSG},
	{"pointer to itself", BYTES(ANSWER("\x81\x80", "\x01", "\x00", "\x00") "\xc0\x1b\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"), -EBADMSG},
	{"pointer forwards", BYTES(ANSWER("\x81\x80", "\x01", "\x00", "\x00") "\xc0\x25\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"), -EBADMSG},
	{"pointer into the header", BYTES(ANSWER("\x81\x80", "\x01", "\x00", "\x00") "\xc0\x04\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"), -EBADMSG},
	{"two pointers in a circle", BYTES(ANSWER("\x81\x80", "\x02", "\x00", "\x00") "\x01x\xc0\x1d\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01" RR_A), -EBADMSG},
	{"data length runs out", BYTES(ANSWER("\x81\x80", "\x01", "\x00", "\x00") "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x05\xc0\x00\x02\x01"), -EBADMSG},
	{"reserved label type", BYTES(ANSWER("\x81\x80", "\x01", "\x00", "\x00") "\x80\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"), -EBADMSG},
	{"a broken additional section", BYTES(ANSWER("\x81\x80", "\x01", "\x00", "\x01") RR_A "\x00"), -EBADMSG},
};

static const struct {
	const char *text;
	int result, family;
	uint16_t port;
} upstreams[] = {
	{"192.0.2.1", 0, AF_INET, 53},	   {"192.0.2.1:5353", 0, AF_INET, 5353},
	{"2001:db8::1", 0, AF_INET6, 53},  {"[2001:db8::1]:5353", 0, AF_INET6, 5353},
	{"[2001:db8::1]", 0, AF_INET6, 53}, {"fe80::1%lo", 0, AF_INET6, 53},
	{"", -EINVAL, 0, 0},		   {"192.0.2.1:", -EINVAL, 0, 0},
	{"192.0.2.1:0", -EINVAL, 0, 0},	   {"192.0.2.1:65536", -EINVAL, 0, 0},
	{"192.0.2.256", -EINVAL, 0, 0},	   {"dns.test", -EINVAL, 0, 0},
	{"[2001:db8::1", -EINVAL, 0, 0},   {"[2001:db8::1]x", -EINVAL, 0, 0},
	{"fe80::1%nosuchif0", -EINVAL, 0, 0},
};

static void test_query_values(void)
{
	struct dns_query q;
	uint8_t out[DNS_QUERY_MAX];
	static const char edns[] =
		HEAD("\x01\x10", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x1c\x00\x01\x00\x00\x29\xff\xff\x00\x00\x80\x00\x00\x00";
	size_t n;

	is_int(dns_query_parse(BYTES(edns), &q), 0, "a question with everything");
	ok(q.id == 0x1234 && q.type == 28 && q.class == 1 && q.edns && q.dnssec_ok && q.checking_disabled && q.recursion_desired,
	   "its values");
	is_int(q.udp_bytes, DNS_UDP_MAX, "65535 bytes over UDP are brought down");
	n = dns_query_build(&q, 0xabcd, out);
	ok(n == 12 + 10 + 4 + 11 && out[0] == 0xab && out[1] == 0xcd, "message to the upstream: %zu bytes", n);
	ok(!memcmp(out + 12, QNAME, 10), "the name as it was written");
	ok(out[3] == 0x10 && out[11] == 1, "CD goes on, one additional record");
}

static void test_answer_build(void)
{
	static const char answer_text[] = ANSWER("\x81\x80", "\x01", "\x00", "\x01") RR_A "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
	static uint8_t out[DNS_ANSWER_MAX];
	struct dns_answer a;
	struct dns_query q;
	size_t n;

	is_int(dns_query_parse(BYTES(PLAIN), &q), 0, "question");
	is_int(dns_answer_check(BYTES(answer_text), &q, 0xabcd, &a), 0, "answer with an OPT record");
	n = dns_answer_build((const uint8_t *)answer_text, &a, &q, q.udp_bytes, out);
	is_int(n, 12 + 10 + 4 + 16, "the upstream's OPT is not passed to an asker without EDNS");
	ok(out[0] == 0x12 && out[1] == 0x34 && !memcmp(out + 12, QNAME, 10), "the asker's id and spelling are back");
	ok(out[7] == 1 && out[11] == 0 && !memcmp(out + 26, RR_A, 16), "the record is there");
	n = dns_answer_build((const uint8_t *)answer_text, &a, &q, 40, out);
	ok(n == 26 && (out[2] & 2) && out[7] == 0, "too long for the asker: empty, with TC");
	q.edns = true;
	n = dns_answer_build((const uint8_t *)answer_text, &a, &q, q.udp_bytes, out);
	ok(n == 42 + 11 && out[11] == 1, "an asker with EDNS gets our OPT");
}

static void test_errors(void)
{
	uint8_t out[DNS_QUERY_MAX];
	struct dns_query q;
	size_t n;

	is_int(dns_query_parse(BYTES(PLAIN), &q), 0, "question");
	n = dns_error_build(&q, DNS_SERVFAIL, out);
	ok(n == 26 && out[0] == 0x12 && out[1] == 0x34 && (out[3] & 15) == DNS_SERVFAIL && (out[2] & 0x80), "SERVFAIL repeats the question");
	is_int(dns_query_parse(BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") "\x03ww"), &q), DNS_FORMERR, "broken question");
	n = dns_error_build(&q, DNS_FORMERR, out);
	ok(n == 12 && out[5] == 0, "FORMERR without the broken question");
	q.edns = true;
	n = dns_error_build(&q, DNS_BADVERS, out);
	ok(n == 12 + 11 && (out[3] & 15) == 0 && out[12 + 5] == 1, "BADVERS is in the OPT record");
}

static void test_long_name(void)
{
	uint8_t msg[12 + 260 + 4] = {0x12, 0x34, 1, 0, 0, 1};
	struct dns_query q;
	size_t at = 12;

	for (int i = 0; i < 127; i++) {
		msg[at++] = 1;
		msg[at++] = 'a';
	}
	msg[at] = 0; /* 255 octets */
	msg[at + 2] = msg[at + 4] = 1;
	is_int(dns_query_parse(msg, at + 5, &q), 0, "a name of 255 octets");
	is_int(q.name_len, 255, "its length");
	msg[at] = 1;
	msg[at + 1] = 'a';
	msg[at + 2] = 0;
	msg[at + 4] = msg[at + 6] = 1;
	is_int(dns_query_parse(msg, at + 7, &q), DNS_FORMERR, "one of 257 is refused");
}

static void test_resolv(void)
{
	static const char text[] = "# nameserver 192.0.2.9\nsearch x.test\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 # c\n"
				   "nameserver bad\nnameserverx 192.0.2.3\nnameserver 192.0.2.2";
	struct dns_upstreams u = {0};

	is_int(dns_upstreams_resolv(&u, text, sizeof(text) - 1), 3, "three servers of a resolv.conf");
	ok(u.addr[0].ss_family == AF_INET && u.addr[1].ss_family == AF_INET6 && u.addr[2].ss_family == AF_INET, "their families");
	is_int(dns_upstreams_resolv(&u, "", 0), 0, "an empty file has none");
	u.resolv_conf = "/nonexistent/resolv.conf";
	is_int(dns_upstreams_refresh(&u), -ENOENT, "a missing file is told");
}

int main(void)
{
	struct dns_query q, asked;
	struct dns_answer a;
	char text[40];

	for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++)
		is_int(dns_query_parse(queries[i].data, queries[i].len, &q), queries[i].result, "question: %s", queries[i].why);
	is_int(dns_query_parse(BYTES(PLAIN), &asked), 0, "what is asked");
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		is_int(dns_answer_check(answers[i].data, answers[i].len, &asked, 0xabcd, &a), answers[i].result, "answer: %s", answers[i].why);
	for (size_t i = 0; i < sizeof(upstreams) / sizeof(upstreams[0]); i++) {
		struct sockaddr_storage to;
		struct sockaddr_in v4;

		is_int(dns_upstream_parse(upstreams[i].text, &to), upstreams[i].result, "upstream \"%s\"", upstreams[i].text);
		if (upstreams[i].result)
			continue;
		memcpy(&v4, &to, sizeof(v4)); /* the port is at the same place in both */
		ok(to.ss_family == upstreams[i].family && ntohs(v4.sin_port) == upstreams[i].port, "upstream \"%s\": value", upstreams[i].text);
	}
	dns_name_text((const uint8_t *)"\x03w\nw\x04test", 10, text, sizeof(text));
	is_str(text, "w?w.test.", "a name in the log has no control characters");
	test_query_values();
	test_answer_build();
	test_errors();
	test_long_name();
	test_resolv();
	return tap_done();
}
