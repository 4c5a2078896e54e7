/* SPDX-License-Identifier: Apache-2.0 */
/* DNS codec and upstream addresses: tables of messages, each with what must come of it. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/settings.h"
#include "netpolicy/dns_answer.h"
#include "netpolicy/dns_cache.h"
#include "netpolicy/dns_judge.h"
#include "netpolicy/dns_lease.h"
#include "netpolicy/dns_limits.h"
#include "netpolicy/dns_nflog.h"
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
	{"transfer", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") QNAME "\x00\xfc\x00\x01"), 0},
	{"chaos class", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") QNAME "\x00\x10\x00\x03"), DNS_REFUSED},
	{"a record that is no OPT", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02\x03\x04"), DNS_FORMERR},
	{"EDNS", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00"), 0},
	{"EDNS with an option", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x00"), 0},
	{"EDNS twice", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x02") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"), DNS_FORMERR},
	{"EDNS not at the root", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x01x\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"), DNS_FORMERR},
	{"EDNS version 1", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x01\x00\x00\x00\x00"), DNS_BADVERS},
	{"EDNS length runs out", BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\xff\xff"), DNS_FORMERR},
};

#define ANSWER(flags, an, ns, ar) "\xab\xcd" flags "\x00\x01\x00" an "\x00" ns "\x00" ar "\x03wWw\x04test\x00\x00\x01\x00\x01"
#define RR_A	      "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"
#define OK	      "\x81\x80"
#define PTR_IS(where) where "\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"

/* Is it the answer to "wWw.test A" with id abcd? */
static const struct {
	const char *why;
	const uint8_t *data;
	size_t len;
	int result;
} checks[] = {
	{"the answer", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") RR_A), 0},
	{"nothing known", BYTES(ANSWER("\x81\x83", "\x00", "\x00", "\x00")), 0},
	{"cut", BYTES(ANSWER("\x83\x80", "\x05", "\x00", "\x00") "\xc0"), 0},
	{"other case", BYTES("\xab\xcd\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x04test\x00\x00\x01\x00\x01"), -EILSEQ},
	{"another id", BYTES("\xab\xce\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x03wWw\x04test\x00\x00\x01\x00\x01"), -EAGAIN},
	{"a question", BYTES(ANSWER("\x01\x00", "\x00", "\x00", "\x00")), -EAGAIN},
	{"another name", BYTES("\xab\xcd\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x03wWx\x04test\x00\x00\x01\x00\x01"), -EAGAIN},
	{"another type", BYTES("\xab\xcd\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x03wWw\x04test\x00\x00\x1c\x00\x01"), -EAGAIN},
	{"another class", BYTES("\xab\xcd\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x03wWw\x04test\x00\x00\x01\x00\x03"), -EAGAIN},
	{"no question", BYTES("\xab\xcd\x81\x80\x00\x00\x00\x00\x00\x00\x00\x00"), -EAGAIN},
	{"no question, but FORMERR", BYTES("\xab\xcd\x81\x81\x00\x00\x00\x00\x00\x00\x00\x00"), 0},
	{"empty", BYTES(""), -EAGAIN},
	{"ends in the question", BYTES("\xab\xcd\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x03wWw\x04test\x00\x00\x01"), -EAGAIN},
};

#define CNAME_TO(owner, target, n) owner "\x00\x05\x00\x01\x00\x00\x00\x3c\x00" n target

/* What comes out of it: result, links, addresses. */
static const struct {
	const char *why;
	const uint8_t *data;
	size_t len;
	int result;
	unsigned links, addrs;
} reads[] = {
	{"one address", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") RR_A), 0, 0, 1},
	{"the owner written out, other case", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") PTR_IS("\x03WWW\x04tesT\x00")), 0, 0, 1},
	{"an address of another name is not taken", BYTES(ANSWER(OK, "\x02", "\x00", "\x00") RR_A PTR_IS("\x04""evil\xc0\x10")), 0, 0, 1},
	{"only another name's address", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") PTR_IS("\x04""evil\xc0\x10")), 0, 0, 0},
	{"an address in the additional section is not taken", BYTES(ANSWER(OK, "\x00", "\x00", "\x01") RR_A), 0, 0, 0},
	{"an address in the authority section is not taken", BYTES(ANSWER(OK, "\x00", "\x01", "\x00") RR_A), 0, 0, 0},
	{"another class", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") "\xc0\x0c\x00\x01\x00\x03\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"), 0, 0, 0},
	{"a chain of one", BYTES(ANSWER(OK, "\x02", "\x00", "\x00") CNAME_TO("\xc0\x0c", "\x01y\xc0\x10", "\x04") PTR_IS("\xc0\x26")), 0, 1, 1},
	{"a chain in the wrong order", BYTES(ANSWER(OK, "\x02", "\x00", "\x00") PTR_IS("\x01y\xc0\x10") CNAME_TO("\xc0\x0c", "\x01y\xc0\x10", "\x04")), 0, 1, 1},
	{"the chain's end is somebody else", BYTES(ANSWER(OK, "\x02", "\x00", "\x00") CNAME_TO("\xc0\x0c", "\x01y\xc0\x10", "\x04") PTR_IS("\x01z\xc0\x10")), 0, 1, 0},
	{"a name that points to itself", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") CNAME_TO("\xc0\x0c", "\xc0\x0c", "\x02")), -ELOOP, 0, 0},
	{"a circle of two", BYTES(ANSWER(OK, "\x02", "\x00", "\x00") CNAME_TO("\xc0\x0c", "\x01y\xc0\x10", "\x04") CNAME_TO("\xc0\x26", "\xc0\x0c", "\x02")), -ELOOP, 0, 0},
	{"fewer records than said", BYTES(ANSWER(OK, "\x02", "\x00", "\x00") RR_A), -EBADMSG, 0, 0},
	{"bytes behind the last record", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") RR_A "x"), -EBADMSG, 0, 0},
	{"an address of five bytes", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x05\xc0\x00\x02\x01\x01"), -EBADMSG, 0, 0},
	{"pointer to itself", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") PTR_IS("\xc0\x1a")), -EBADMSG, 0, 0},
	{"pointer forwards", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") PTR_IS("\xc0\x25")), -EBADMSG, 0, 0},
	{"pointer into the header", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") PTR_IS("\xc0\x04")), -EBADMSG, 0, 0},
	{"two pointers in a circle", BYTES(ANSWER(OK, "\x02", "\x00", "\x00") PTR_IS("\x01x\xc0\x1c") RR_A), -EBADMSG, 0, 0},
	{"data length runs out", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x05\xc0\x00\x02\x01"), -EBADMSG, 0, 0},
	{"reserved label type", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") PTR_IS("\x80\x0c")), -EBADMSG, 0, 0},
	{"a broken additional section", BYTES(ANSWER(OK, "\x01", "\x00", "\x01") RR_A "\x00"), -EBADMSG, 0, 0},
	{"the target of a chain runs into the next record", BYTES(ANSWER(OK, "\x01", "\x00", "\x00") CNAME_TO("\xc0\x0c", "\x05y", "\x02")), -EBADMSG, 0, 0},
};

static void ask_www(struct dns_query *q, uint8_t *sent, uint16_t type)
{
	static const char text[] = HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") "\x03wWw\x04test\x00\x00\x01\x00\x01";

	is_int(dns_query_parse(BYTES(text), q), 0, "what is asked");
	q->type = type;
	dns_query_build(q, 0xabcd, NULL, false, sent);
	memcpy(sent + DNS_HEAD_BYTES, q->name, q->name_len);
}

static void test_answers(void)
{
	static struct dns_records records;
	static struct dns_answer a;
	uint8_t sent[DNS_QUERY_MAX];
	struct dns_query q;

	ask_www(&q, sent, DNS_TYPE_A);
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
		is_int(dns_answer_check(checks[i].data, checks[i].len, sent, &a), checks[i].result, "is it the answer: %s", checks[i].why);
	for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
		is_int(dns_answer_read(reads[i].data, reads[i].len, &q, &a, &records), reads[i].result, "answer: %s", reads[i].why);
		if (!reads[i].result)
			ok(a.n_links == reads[i].links && a.n_addrs == reads[i].addrs, "%s: %u links, %u addresses", reads[i].why, a.n_links,
			   a.n_addrs);
	}
}

static void test_answers6(void)
{
	static const char short_text[] = HEAD("\x81\x80", "\x01", "\x01", "\x00", "\x00") "\x03wWw\x04test\x00\x00\x1c\x00\x01"
					 "\xc0\x0c\x00\x1c\x00\x01\x00\x00\x00\x3c\x00\x0f" "123456789012345";
	static struct dns_records records;
	static struct dns_answer a, b;
	uint8_t sent[DNS_QUERY_MAX], out[DNS_UDP_MAX + 512];
	struct dns_query q;

	ask_www(&q, sent, DNS_TYPE_AAAA);
	a = (struct dns_answer){.type = DNS_TYPE_AAAA, .n_addrs = DNS_ADDRS6_MAX};
	for (unsigned i = 0; i < DNS_ADDRS6_MAX; i++)
		a.addr6[i] = (struct ip6){UINT64_C(0x20010db800000000), i + 1};
	size_t n = dns_answer_build(&a, NULL, &q, 60, sizeof(out), out);
	is_int(dns_answer_read(out, n, &q, &b, &records), 0, "16 IPv6 addresses are written so that they can be read");
	ok(b.n_addrs == DNS_ADDRS6_MAX && !memcmp(a.addr6, b.addr6, sizeof(a.addr6)) && !records.n && b.ttl_s == 60, "and are the same");
	is_int(dns_answer_addr_bytes(&b), sizeof(b.addr6), "their bytes");
	ok(dns_answer_build(&a, NULL, &q, 60, n - 1, out) < n && out[2] & 2, "one byte less room: TC");
	is_int(dns_answer_read(BYTES(short_text), &q, &b, &records), -EBADMSG, "an IPv6 address of 15 bytes");
}

#define SVC_HEAD "\xab\xcd\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x03wWw\x04test\x00\x00\x41\x00\x01\xc0\x0c\x00\x41\x00\x01\x00\x00\x00\x3c\x00"
#define ALPN_H2_H3 "\x00\x01\x00\x06\x02h2\x02h3"
#define ALPN_H3	   "\x00\x01\x00\x03\x02h3"
#define HINT4	   "\x00\x04\x00\x04\x0a\x09\x00\x05"
#define ECH	   "\x00\x05\x00\x03xyz"
#define HINT6	   "\x00\x06\x00\x10" "0123456789abcdef"

static const struct {
	const char *why;
	const uint8_t *data;
	size_t len;
	int result;
	size_t kept; /* bytes of record data; 0: no record */
} services[] = {
	{"priority and name only", BYTES(SVC_HEAD "\x03\x00\x01\x00"), 0, 3},
	{"h3 goes, h2 stays", BYTES(SVC_HEAD "\x0d\x00\x01\x00" ALPN_H2_H3), 0, 10},
	{"hints and key go", BYTES(SVC_HEAD "\x2c\x00\x01\x00" "\x00\x01\x00\x03\x02h2" HINT4 ECH HINT6 ""), -EBADMSG, 0},
	{"hints and key go, lengths right", BYTES(SVC_HEAD "\x2d\x00\x01\x00" "\x00\x01\x00\x03\x02h2" HINT4 ECH HINT6), 0, 10},
	{"only h3: the list goes", BYTES(SVC_HEAD "\x0a\x00\x01\x00" ALPN_H3), 0, 3},
	{"only h3 and no default: nothing left to speak", BYTES(SVC_HEAD "\x0e\x00\x01\x00" ALPN_H3 "\x00\x02\x00\x00"), 0, 0},
	{"a mandatory key that goes", BYTES(SVC_HEAD "\x10\x00\x01\x00" "\x00\x00\x00\x02\x00\x05" ECH), 0, 0},
	{"keys out of order", BYTES(SVC_HEAD "\x12\x00\x01\x00" ECH HINT4), -EBADMSG, 0},
	{"value runs out", BYTES(SVC_HEAD "\x08\x00\x01\x00" "\x00\x05\x00\x09x"), -EBADMSG, 0},
	{"protocol name runs out", BYTES(SVC_HEAD "\x0a\x00\x01\x00" "\x00\x01\x00\x03\x05h2"), -EBADMSG, 0},
};

static void test_services(void)
{
	static struct dns_records records;
	static struct dns_answer a;
	uint8_t sent[DNS_QUERY_MAX];
	struct dns_query q;

	ask_www(&q, sent, DNS_TYPE_HTTPS);
	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
		is_int(dns_answer_read(services[i].data, services[i].len, &q, &a, &records), services[i].result, "HTTPS: %s", services[i].why);
		if (!services[i].result)
			is_int((long)(records.n ? records.len - 2 : 0), (long)services[i].kept, "HTTPS: %s: what is left", services[i].why);
	}
}

static void test_limits(void)
{
	struct dns_limits l;
	char name[80];
	unsigned n = 0, suspect = 0, stopped = 0, after = 0;
	bool first;

	dns_limits_init(&l, 1000);
	while (dns_bucket_take(&l.questions, 1000, DNS_RATE_PER_SECOND, DNS_RATE_BURST))
		n++;
	is_int(n, DNS_RATE_BURST, "a burst at once, then none");
	ok(dns_bucket_take(&l.questions, 1005, DNS_RATE_PER_SECOND, DNS_RATE_BURST), "5 ms later one more");
	ok(!dns_bucket_take(&l.questions, 1005, DNS_RATE_PER_SECOND, DNS_RATE_BURST), "and no second");
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "x%u", i);
		stopped += dns_limits_child(&l, 60000, 3, dns_hash(name, strlen(name), 0), name, strlen(name), &first) == DNS_BRAKE_STOP;
	}
	ok(stopped > 700 && stopped <= 1000, "of 3000 short names below a wildcard 2000 pass in a minute: %u do not", stopped);
	is_int(dns_limits_child(&l, 60000, 3, dns_hash("x1", 2, 0), "x1", 2, &first), DNS_BRAKE_FREE, "one that was asked before passes");
	is_int(dns_limits_child(&l, 120000, 3, dns_hash("x2999", 5, 0), "x2999", 5, &first), DNS_BRAKE_FREE, "and in the next minute all");
	stopped = n = 0;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "%08xabcdefgh1j2k3l4m5n6o7p8q9r0s.%08xzyxwvut7s6r5q4p3", i * 2654435761u, i * 40503u);
		switch (dns_limits_child(&l, 180000, 4, dns_hash(name, strlen(name), 0), name, strlen(name), &first)) {
		case DNS_BRAKE_FREE:
			n += (unsigned)strlen(name);
			break;
		case DNS_BRAKE_SUSPECT:
			suspect++;
			break;
		case DNS_BRAKE_STOP:
			stopped++;
			break;
		}
	}
	ok(suspect == 1 && stopped > 0 && n <= DNS_CHILD_BURST + DNS_CHILD_BURST / 50, "names like data: told once, %u bytes pass, %u names do not", n, stopped);
	for (uint64_t ms = 180000; ms < 240000; ms += 20) {
		snprintf(name, sizeof(name), "%016lxabcdefgh1j2k3l4m5n6o7p8q9r0s", (unsigned long)ms * 0x9e3779b97f4a7c15u);
		if (dns_limits_child(&l, ms, 5, dns_hash(name, strlen(name), 0), name, strlen(name), &first) != DNS_BRAKE_STOP)
			after += (unsigned)strlen(name);
	}
	ok(after > DNS_CHILD_BURST && after <= (DNS_CHILD_BURST + DNS_CHILD_MINUTE) * 51 / 50, "in a minute burst and refill: %u bytes", after);
	ok(!dns_looks_like_data("www.static.images", 17) && !dns_looks_like_data("eu-central-1.compute.internal", 29), "names of people pass");
	dns_limits_free(&l);
}

static uint64_t lease_until(struct dns_leases *t, struct dns_sandbox *s, uint32_t addr)
{
	uint32_t at = 0;
	const struct dns_lease *r = dns_leases_find(t, s, addr, &at);

	return r ? r->until_ms : 0;
}

/* What a policy takes away is known until the kernel has closed it, whoever dies meanwhile. */
static void test_leases_shut(void)
{
	static const uint8_t boot[16] = {1};
	struct dns_sandbox s = {.ref = {3, 7}}, again = {.ref = {3, 7}};
	struct dns_lease_want w = {.addr = 0xc0000201, .name = "a.test", .name_len = 6, .flags = DNS_LEASE_PINNED, .until_ms = 100000, .now_ms = 10};
	char path[] = "/tmp/test_dns.XXXXXX";
	int fd = mkstemp(path);
	struct sbx_err err;
	struct dns_leases *t = dns_leases_open(fd, boot, 10, &err);
	uint32_t at = 0;
	bool grows;

	unlink(path);
	ignore_result(dns_leases_take(t, &s, &w, &grows));
	w.name = "b.test";
	ignore_result(dns_leases_take(t, &s, &w, &grows));
	ok(dns_leases_next(t, &s, &at) && !dns_leases_shut(t, &s, at) && s.n_leases == 1, "another name keeps the address: nothing to close");
	at = 0;
	ok(dns_leases_next(t, &s, &at) && dns_leases_shut(t, &s, at) && s.n_leases == 1, "the last one: to be closed, and known until it is");
	dns_leases_shut_asked(t, at, 1);
	dns_leases_close(t);

	t = dns_leases_open(fd, boot, 20, &err);
	at = 0;
	const struct dns_lease *r = dns_leases_adopt(t, &again) == 1 ? dns_leases_next(t, &again, &at) : NULL;
	ok(r && (r->flags & DNS_LEASE_CLOSING), "the next process knows that it is to be closed");
	dns_leases_shut_done(t, &again, 1);
	ok(again.n_leases == 1 && dns_leases_shut(t, &again, at), "an answer to nobody's question closes nothing, and it can be asked for again");
	dns_leases_shut_asked(t, at, 2);
	w.now_ms = 20;
	ok(!dns_leases_take(t, &again, &w, &grows) && grows && !(r->flags & DNS_LEASE_CLOSING), "allowed again, it goes to the kernel again");
	dns_leases_shut_done(t, &again, 2);
	ok(again.n_leases == 1, "and the answer to the old question does not end it");
	ok(dns_leases_shut(t, &again, at), "taken away once more");
	dns_leases_shut_asked(t, at, 3);
	dns_leases_shut_done(t, &again, 2);
	is_int(again.n_leases, 1, "an older answer is not its end");
	dns_leases_shut_done(t, &again, 3);
	is_int(again.n_leases, 0, "closed, it is forgotten");
	dns_leases_close(t);
	close(fd);
}

static uint16_t flags_of(struct dns_leases *t, struct dns_sandbox *s, uint32_t addr)
{
	uint32_t at = 0;
	const struct dns_lease *r = dns_leases_find(t, s, addr, &at);

	return r ? r->flags : 0;
}

/* What gives way to another one is open until the kernel has closed it, and known as long. */
static void test_leases_give_way(void)
{
	static const uint8_t boot[16] = {1};
	struct dns_sandbox s = {.ref = {3, 7}}, again = {.ref = {3, 7}};
	struct dns_lease_want w = {.name = "a.test", .name_len = 6, .flags = DNS_LEASE_PINNED, .until_ms = 100000, .now_ms = 10};
	char path[] = "/tmp/test_dns.XXXXXX";
	int fd = mkstemp(path);
	struct sbx_err err;
	struct dns_leases *t = dns_leases_open(fd, boot, 10, &err);
	uint32_t given_way = 0, at = 0, refused;
	bool grows;

	unlink(path);
	w.addr6 = (struct ip6){UINT64_C(0x2001) << 48, 1};
	ignore_result(dns_leases_take(t, &s, &w, &grows));
	w.addr6 = (struct ip6){0};
	for (w.addr = 0x0b000001; w.addr < 0x0b000000 + DNS_LEASES_SANDBOX; w.addr++)
		ignore_result(dns_leases_take(t, &s, &w, &grows));
	w.addr = 0;
	w.addr6 = (struct ip6){UINT64_C(0x2001) << 48, 1};
	ok(s.lease_elements == DNS_LEASES_SANDBOX && !dns_leases_make_room(t, &s, &w, &given_way), "an IPv6 address that is there needs no room");
	w.addr6.lo = 2;
	ok(dns_leases_make_room(t, &s, &w, &given_way) && given_way && dns_leases_at(t, given_way)->addr6.lo == 1 && !dns_leases_make_room(t, &s, &w, &given_way),
	   "another one needs that of one");
	given_way = 0;
	dns_leases_next(t, &s, &given_way);
	dns_leases_shut_asked(t, given_way, 5);
	ok(!dns_leases_take(t, &s, &w, &grows), "which is there at once");
	dns_leases_close(t);

	/* The broker was killed, and so was this process. */
	t = dns_leases_open(fd, boot, 20, &err);
	dns_leases_adopt(t, &again);
	const struct dns_lease *r = dns_leases_next(t, &again, &at);
	ok(r && r->addr6.lo == 1 && (r->flags & DNS_LEASE_CLOSING) && again.lease_elements == DNS_LEASES_SANDBOX && again.closing_elements == 1,
	   "the next process knows that one is to be closed, ahead of all others");
	ok(!dns_leases_keep(t, &again, at) && (r->flags & DNS_LEASE_CLOSING), "and keeps it closing: there is no room");
	w.addr6.lo = 1;
	ok(dns_leases_take(t, &again, &w, &grows) == -ENOSPC, "asked for again, it is one more");
	uint32_t newest = 0, first = at;
	at = 0;
	while (dns_leases_next(t, &again, &at))
		newest = at;
	ok(dns_leases_shut(t, &again, newest) && dns_leases_keep(t, &again, first) && !(r->flags & DNS_LEASE_CLOSING) && again.closing_elements == 1,
	   "when another one is taken away, it is kept");
	at = 0;
	dns_leases_next(t, &again, &at);
	dns_leases_shut_asked(t, at, 9);
	dns_leases_shut_done(t, &again, 9);
	ok(again.closing_elements == 0 && again.lease_elements == DNS_LEASES_SANDBOX, "what the kernel has closed is gone");
	/* Nobody answers: as much again may wait, and then nothing more is opened. */
	w.addr6 = (struct ip6){0};
	for (w.addr = 0x0c000000, refused = 0; w.addr < 0x0c000000 + DNS_LEASES_SANDBOX + 5; w.addr++) {
		while (dns_leases_make_room(t, &again, &w, &given_way))
			;
		refused += dns_leases_take(t, &again, &w, &grows) == -ENOSPC;
	}
	ok(refused == 5 && again.closing_elements == DNS_LEASES_SANDBOX && again.lease_elements == DNS_LEASES_SANDBOX, "who has as much to close waits: %u", refused);
	dns_leases_drop(t, &again);
	ok(again.closing_elements == 0 && again.lease_elements == 0 && again.n_leases == 0, "a sandbox that is gone has none");
	dns_leases_close(t);
	close(fd);
}

static void test_leases(void)
{
	static const uint8_t boot[16] = {1}, other_boot[16] = {2};
	static const uint16_t port[] = {443, 8443}, wide[DNS_LEASE_PORTS] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
	struct dns_sandbox s = {.ref = {3, 7}}, again = {.ref = {3, 7}}, stranger = {.ref = {3, 8}};
	struct dns_lease_want w = {.addr = 0xc0000201, .name = "a.test", .name_len = 6, .flags = DNS_LEASE_PINNED, .until_ms = 100000, .now_ms = 10};
	char path[] = "/tmp/test_dns.XXXXXX";
	int fd = mkstemp(path);
	struct sbx_err err;
	struct dns_leases *t = dns_leases_open(fd, boot, 10, &err);
	uint32_t at = 0, many = 0, given_way;
	bool grows;

	unlink(path);
	ok(t && !dns_leases_take(t, &s, &w, &grows) && grows, "a new address goes to the kernel");
	w.until_ms = 90000;
	ok(!dns_leases_take(t, &s, &w, &grows) && !grows && lease_until(t, &s, w.addr) == 100000, "a shorter lease does not shorten");
	w.name = "b.test";
	ok(!dns_leases_take(t, &s, &w, &grows) && !grows, "another name with the same address: the kernel has it");
	w.port = port;
	w.n_ports = 2;
	ok(!dns_leases_take(t, &s, &w, &grows) && grows && s.n_leases == 3, "with other ports it is another opening");
	w.n_ports = 0;
	w.name = "c.test";
	ok(!dns_leases_take(t, &s, &w, &grows) && s.lease_elements == 5, "an address opened by two ports counts two");
	for (const struct dns_lease *r; (r = dns_leases_next(t, &s, &at)) && strcmp(r->name, "a.test") != 0;)
		;
	ok(at && !dns_leases_shut(t, &s, at), "one owner goes, another stays: not closed");
	at = 0;
	for (const struct dns_lease *r; (r = dns_leases_next(t, &s, &at)) && strcmp(r->name, "c.test") != 0;)
		;
	ok(at && lease_until(t, &s, w.addr) == 100000, "who stays inherits the longer lease");
	dns_leases_close(t);

	t = dns_leases_open(fd, boot, 20, &err);
	is_int(dns_leases_count(t), 3, "the next process finds them");
	ok(dns_leases_adopt(t, &stranger) == 0 && dns_leases_adopt(t, &again) == 3, "the same life of the slot gets them, the next does not");
	dns_leases_orphans(t);
	is_int(dns_leases_count(t), 3, "nothing else was there");
	dns_leases_expire(t, &again, 100000 + DNS_LEASE_GRACE_MS);
	is_int(again.n_leases, 0, "their time ends");
	w.until_ms = 300000;
	for (uint32_t i = 0; i < DNS_LEASES_SANDBOX + 10; i++) {
		w.addr = 0x0b000000 + i;
		while (dns_leases_make_room(t, &again, &w, &given_way))
			many += given_way != 0;
		if (dns_leases_take(t, &again, &w, &grows))
			break;
	}
	ok(many == 10 && again.lease_elements == DNS_LEASES_SANDBOX && again.closing_elements == 10 && flags_of(t, &again, 0x0b000000) & DNS_LEASE_CLOSING &&
	   !(flags_of(t, &again, 0x0b00000a) & DNS_LEASE_CLOSING), "the oldest give way, and are known until they are closed: %u", many);
	w.addr = 2;
	w.port = wide;
	w.n_ports = DNS_LEASE_PORTS;
	ok(dns_leases_take(t, &again, &w, &grows) == -ENOSPC, "sixteen ports do not fit without room");
	for (many = 0; dns_leases_make_room(t, &again, &w, &given_way);)
		many += given_way != 0;
	ok(many == DNS_LEASE_PORTS && !dns_leases_take(t, &again, &w, &grows) && again.lease_elements == DNS_LEASES_SANDBOX,
	   "sixteen whole addresses give way for them: %u", many);
	w.n_ports = 0;
	many = 10;
	dns_leases_drop(t, &again);
	ok(again.lease_elements == 0 && again.closing_elements == 0, "nothing is left to count");
	w.addr = 1;
	ignore_result(dns_leases_take(t, &again, &w, &grows));
	dns_leases_close(t);
	for (off_t i = 1; i < DNS_LEASES_SANDBOX + 1024; i++)
		many += pwrite(fd, "\xff\xff", 2, i * 512 + 34) != 2;
	is_int(many, 10, "broken records");
	t = dns_leases_open(fd, boot, 20, &err);
	ok(t && dns_leases_count(t) == 0, "is not believed");
	dns_leases_close(t);
	t = dns_leases_open(fd, other_boot, 20, &err);
	ok(t && dns_leases_count(t) == 0, "nor is what another boot wrote");
	dns_leases_close(t);
	close(fd);
}

static void test_cache(void)
{
	struct dns_cache *c = dns_cache_new();
	struct dns_sandbox a = {.ref = {1, 1}, .addr = 1}, b = {.ref = {2, 2}, .addr = 2};
	static struct dns_answer answer = {.type = DNS_TYPE_A, .n_addrs = 1, .addr = {0xc0000201}}, got;
	uint8_t sent[DNS_QUERY_MAX];
	struct dns_query q;
	uint32_t ttl;

	ask_www(&q, sent, DNS_TYPE_A);
	dns_cache_put(c, &a, &q, 1000, &answer, 60);
	ok(dns_cache_get(c, &a, &q, 31000, &got, &ttl) && got.addr[0] == 0xc0000201 && ttl == 30, "half a minute later: %u s left", ttl);
	ok(!dns_cache_get(c, &b, &q, 31000, &got, &ttl), "another sandbox does not see it");
	q.type = DNS_TYPE_MX;
	ok(!dns_cache_get(c, &a, &q, 31000, &got, &ttl), "nor does another type");
	q.type = DNS_TYPE_A;
	a.policy_generation++;
	ok(!dns_cache_get(c, &a, &q, 31000, &got, &ttl), "nor is it there after a change of policy");
	dns_cache_put(c, &a, &q, 1000, &answer, 60);
	ok(!dns_cache_get(c, &a, &q, 61000, &got, &ttl) && !a.n_cached, "nor after its time");
	for (uint32_t i = 0; i < 3 * DNS_CACHE_SANDBOX; i++) {
		q.text_len = (uint8_t)snprintf(q.text, sizeof(q.text), "n%u.test", i);
		dns_cache_put(c, &a, &q, 1000, &answer, 60);
	}
	is_int(a.n_cached, DNS_CACHE_SANDBOX, "it is bounded");
	dns_cache_drop(c, &a);
	ok(!a.cached && !a.n_cached, "and emptied");
	dns_cache_free(c);
}

#define NLMSG(type, len)     len "\x00\x00\x00" type "\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" "\x02\x00\x00\x01"
#define PREFIX_ATTR	     "\x0a\x00\x0a\x00sbx05\x00\x00\x00"
#define PAYLOAD_HEAD	     "\x1c\x00\x09\x00"
#define PACKET		     "\x45\x00\x00\x3c\x00\x00\x40\x00\x40\x06\x00\x00\x0a\xd5\x00\x02\xc0\x00\x02\x07\x12\x34\x01\xbb"

static const struct {
	const char *why;
	const uint8_t *data;
	size_t len;
	int result;
} logged[] = {
	{"a packet", BYTES(NLMSG("\x00", "\x3c") PREFIX_ATTR PAYLOAD_HEAD PACKET), 1},
	{"the end", BYTES(""), 0},
	{"half a header", BYTES("\x10\x00\x00"), -EBADMSG},
	{"length beyond the datagram", BYTES(NLMSG("\x00", "\x40") PREFIX_ATTR PAYLOAD_HEAD PACKET), -EBADMSG},
	{"length below a header", BYTES(NLMSG("\x00", "\x08") PREFIX_ATTR PAYLOAD_HEAD PACKET), -EBADMSG},
	{"another message", BYTES(NLMSG("\x01", "\x3c") PREFIX_ATTR PAYLOAD_HEAD PACKET), -EBADMSG},
	{"another prefix", BYTES(NLMSG("\x00", "\x3c") "\x0a\x00\x0a\x00xyz05\x00\x00\x00" PAYLOAD_HEAD PACKET), -EBADMSG},
	{"a prefix that is no number", BYTES(NLMSG("\x00", "\x3c") "\x0a\x00\x0a\x00sbx0x\x00\x00\x00" PAYLOAD_HEAD PACKET), -EBADMSG},
	{"no prefix", BYTES(NLMSG("\x00", "\x30") PAYLOAD_HEAD PACKET), -EBADMSG},
	{"no packet", BYTES(NLMSG("\x00", "\x20") PREFIX_ATTR), -EBADMSG},
	{"an attribute longer than the message", BYTES(NLMSG("\x00", "\x3c") PREFIX_ATTR "\xff\x00\x09\x00" PACKET), -EBADMSG},
	{"an attribute shorter than its head", BYTES(NLMSG("\x00", "\x3c") PREFIX_ATTR "\x02\x00\x09\x00" PACKET), -EBADMSG},
	{"a packet of IPv6 of 24 bytes", BYTES(NLMSG("\x00", "\x3c") PREFIX_ATTR PAYLOAD_HEAD "\x65\x00\x00\x3c\x00\x00\x40\x00\x40\x06\x00\x00\x0a\xd5\x00\x02\xc0\x00\x02\x07\x12\x34\x01\xbb"), -EBADMSG},
	{"a header longer than the packet", BYTES(NLMSG("\x00", "\x3c") PREFIX_ATTR PAYLOAD_HEAD "\x4f\x00\x00\x3c\x00\x00\x40\x00\x40\x06\x00\x00\x0a\xd5\x00\x02\xc0\x00\x02\x07\x12\x34\x01\xbb"), -EBADMSG},
};

static void test_log(void)
{
	struct dns_packet p;
	size_t at = 0;

	for (size_t i = 0; i < sizeof(logged) / sizeof(logged[0]); i++) {
		at = 0;
		is_int(dns_nflog_read(logged[i].data, logged[i].len, &at, &p), logged[i].result, "logged: %s", logged[i].why);
		ok(at <= logged[i].len && (at || !logged[i].len), "logged: %s: goes on", logged[i].why);
	}
	at = 0;
	dns_nflog_read(logged[0].data, logged[0].len, &at, &p);
	static const uint8_t six[] = NLMSG("\x00", "\x54") PREFIX_ATTR "\x34\x00\x09\x00" "\x60\x00\x00\x00\x00\x14\x06\x40"
				     "\xfd\x53\x42\x58\x00\x00\x00\xd5\x00\x00\x00\x00\x0a\xd5\x00\x02"
				     "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" "\x9c\x40\x01\xbb\x00\x00\x00";
	struct dns_packet p6;
	size_t at6 = 0;
	is_int(dns_nflog_read(six, sizeof(six), &at6, &p6), 1, "logged: a packet of IPv6");
	ok(p6.source == 0x0ad50002 && !p6.target && p6.target6.hi == UINT64_C(0x20010db800000000) && p6.target6.lo == 7 && p6.protocol == 6 && p6.port == 443,
	   "its source is named by the last word, its target whole");
	ok(p.refusal == 5 && p.source == 0x0ad50002 && p.target == 0xc0000207 && p.protocol == 6 && p.port == 443, "its values");
}

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
	uint8_t out[DNS_QUERY_MAX], mix[DNS_NAME_MAX / 8 + 1];
	static const char edns[] =
		HEAD("\x01\x10", "\x01", "\x00", "\x00", "\x01") QNAME "\x00\x1c\x00\x01\x00\x00\x29\xff\xff\x00\x00\x80\x00\x00\x04\x00\x08\x00\x00";
	static const char odd[] = HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") "\x07www.bad\x04tESt\x00\x00\x01\x00\x01";
	size_t n;

	is_int(dns_query_parse(BYTES(edns), &q), 0, "a question with everything");
	ok(q.id == 0x1234 && q.type == 28 && q.class == 1 && q.edns && q.recursion_desired && !q.odd && q.n_labels == 2, "its values");
	is_str(q.text, "www.test", "its name");
	is_int(q.udp_bytes, DNS_UDP_MAX, "65535 bytes over UDP are brought down");
	n = dns_query_build(&q, 0xabcd, NULL, true, out);
	ok(n == 12 + 10 + 4 + 11 && out[0] == 0xab && out[1] == 0xcd, "message to the upstream: %zu bytes", n);
	ok(!memcmp(out + 12, QNAME, 10), "the name in lower case");
	ok(out[2] == 1 && out[3] == 0 && out[11] == 1 && out[n - 1] == 0, "neither CD, DO nor options go on");
	memset(mix, 0xff, sizeof(mix));
	dns_query_build(&q, 1, mix, false, out);
	ok(!memcmp(out + 12, "\x03WWW\x04TEST\x00", 10), "the name in random case");
	is_int(dns_query_parse(BYTES(odd), &q), 0, "a label with a dot");
	ok(q.odd && !strcmp(q.text, "www?bad.test"), "reads like no other name: %s", q.text);
	ok(dns_text_wire("www.test", 8, out) == 10 && !memcmp(out, QNAME, 10), "text to wire");
	ok(!dns_text_wire("www..test", 9, out) && !dns_text_wire(".", 1, out) && !dns_text_wire("a.", 2, out), "empty labels are none");
}

static void test_answer_build(void)
{
	static const char answer_text[] = ANSWER("\x81\x80", "\x01", "\x00", "\x01") RR_A "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
	static const char chain_text[] = ANSWER(OK, "\x02", "\x00", "\x00") CNAME_TO("\xc0\x0c", "\x01y\xc0\x10", "\x04") PTR_IS("\xc0\x26");
	static const char none_text[] = ANSWER("\x81\x83", "\x00", "\x01", "\x00")
		"\xc0\x10\x00\x06\x00\x01\x00\x00\x0e\x10\x00\x18\xc0\x0c\xc0\x0c\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\x2a";
	static uint8_t out[DNS_ANSWER_MAX], sent[DNS_QUERY_MAX];
	static struct dns_records records;
	static struct dns_answer a;
	struct dns_query q;
	size_t n;

	ask_www(&q, sent, DNS_TYPE_A);
	is_int(dns_answer_read(BYTES(answer_text), &q, &a, &records), 0, "answer with an OPT record");
	n = dns_answer_build(&a, NULL, &q, 60, q.udp_bytes, out);
	is_int((long)n, 12 + 10 + 4 + 16, "the upstream's OPT is not passed to an asker without EDNS");
	ok(out[0] == 0x12 && out[1] == 0x34 && !memcmp(out + 12, "\x03wWw\x04test", 9), "the asker's id and spelling are back");
	ok(out[7] == 1 && out[11] == 0 && !memcmp(out + 26, RR_A, 16), "the record is there");
	n = dns_answer_build(&a, NULL, &q, 60, 40, out);
	ok(n == 26 && (out[2] & 2) && out[7] == 0, "too long for the asker: empty, with TC");
	q.edns = true;
	n = dns_answer_build(&a, NULL, &q, 60, q.udp_bytes, out);
	ok(n == 42 + 11 && out[11] == 1, "an asker with EDNS gets our OPT");
	is_int(dns_answer_read(BYTES(chain_text), &q, &a, &records), 0, "a chain");
	n = dns_answer_build(&a, NULL, &q, 60, q.udp_bytes, out);
	is_int(dns_answer_read(out, n, &q, &a, &records), 0, "is written so that it reads the same");
	ok(a.n_links == 1 && a.n_addrs == 1 && a.ttl_s == 60, "link and address");
	is_int(dns_answer_read(BYTES(none_text), &q, &a, &records), 0, "no such name, with SOA");
	ok(a.soa_len && a.ttl_s == 42 && a.rcode == DNS_NXDOMAIN, "for as long as the SOA says: %u s", a.ttl_s);
	n = dns_answer_build(&a, NULL, &q, 42, q.udp_bytes, out);
	ok(!dns_answer_read(out, n, &q, &a, &records) && a.soa_len && a.ttl_s == 42 && out[9] == 1, "and so it is told");
	n = dns_any_build(&q, out);
	ok(n > 40 && out[7] == 1 && !memcmp(out + 26 + 2, "\x00\x0d", 2), "ANY gets one HINFO");
}

static void test_errors(void)
{
	uint8_t out[DNS_QUERY_MAX];
	struct dns_query q;
	size_t n;

	is_int(dns_query_parse(BYTES(PLAIN), &q), 0, "question");
	n = dns_error_build(&q, DNS_SERVFAIL, DNS_EDE_NETWORK, out);
	ok(n == 26 && out[0] == 0x12 && out[1] == 0x34 && (out[3] & 15) == DNS_SERVFAIL && (out[2] & 0x80), "SERVFAIL repeats the question");
	q.edns = true;
	n = dns_error_build(&q, DNS_NXDOMAIN, DNS_EDE_BLOCKED, out);
	ok(n == 26 + 17 && !memcmp(out + n - 6, "\x00\x0f\x00\x02\x00\x0f", 6), "the reason is in the OPT record");
	ok((out[3] & 0x80) && !out[9], "with RA and without SOA");
	is_int(dns_query_parse(BYTES(HEAD("\x01\x00", "\x01", "\x00", "\x00", "\x00") "\x03ww"), &q), DNS_FORMERR, "broken question");
	n = dns_error_build(&q, DNS_FORMERR, DNS_EDE_NONE, out);
	ok(n == 12 && out[5] == 0, "FORMERR without the broken question");
	q.edns = true;
	n = dns_error_build(&q, DNS_BADVERS, DNS_EDE_NONE, out);
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

static void test_upstreams(void)
{
	struct dns_upstreams u = {.n = 3};

	is_int(dns_upstreams_choose(&u, 0), 0, "the first server is asked first");
	is_int(dns_upstreams_choose(&u, 1), 1, "then the second");
	is_int(dns_upstreams_choose(&u, 7), -ENOENT, "then none");
	ok(dns_upstreams_silent(&u, 0, false), "one that was silent is worth a probe");
	is_int(dns_upstreams_choose(&u, 0), 0, "and still asked");
	dns_upstreams_silent(&u, 0, false);
	is_int(dns_upstreams_choose(&u, 0), 1, "after the second time it is asked last");
	is_int(dns_upstreams_choose(&u, 6), 0, "but asked");
	dns_upstreams_heard(&u, 0);
	is_int(dns_upstreams_choose(&u, 0), 0, "until it answers again");
	u = (struct dns_upstreams){.own_addr = 0xa9fe0101};
	is_int((long)dns_upstreams_resolv(&u, "nameserver 169.254.1.1\nnameserver 192.0.2.1\n", 43), 1, "our own listener is not asked");
}

static void test_hosts(void)
{
	static char items[][32] = {"Both.test=192.0.2.1", "both.test=2001:db8::1", "both.test=192.0.2.2", "six.test=2001:db8::2",
				   "XN--bcher-kva.test=192.0.2.3"};
	static char wrong[][32] = {"a.test", "a.test=", "a.test=b.test", "=192.0.2.1", "a.test=0.0.0.0", "a.test=::", "a.test=192.0.2.1/24",
				   "a.test=fe80::1%lo", "a.test=[2001:db8::1]"};
	char *list[ARRAY_SIZE(items)];
	static const struct {
		const char *name;
		uint16_t type;
		bool known;
		unsigned n;
	} rows[] = {
		{"both.test", DNS_TYPE_A, true, 2}, {"both.test", DNS_TYPE_AAAA, true, 1}, {"both.test", DNS_TYPE_TXT, true, 0},
		{"six.test", DNS_TYPE_A, true, 0},  {"six.test", DNS_TYPE_AAAA, true, 1},  {"other.test", DNS_TYPE_A, false, 0},
		{"x.both.test", DNS_TYPE_A, false, 0}, {"xn--bcher-kva.test", DNS_TYPE_A, true, 1},
	};
	struct settings s = {.dns_static_hosts = {.item = list, .n = ARRAY_SIZE(list)}};
	struct sbx_err err = {0};

	for (size_t i = 0; i < ARRAY_SIZE(items); i++)
		list[i] = items[i];
	struct dns_hosts *h = dns_hosts_new(&s, &err);

	ok(h != NULL, "static hosts of both families: %s", err.msg);
	for (size_t i = 0; h && i < ARRAY_SIZE(rows); i++) {
		struct dns_answer a = {.type = rows[i].type};

		is_int(dns_hosts_find(h, rows[i].name, strlen(rows[i].name), &a), rows[i].known, "static: %s, type %u, is known", rows[i].name, rows[i].type);
		is_int(a.n_addrs, rows[i].n, "static: %s, type %u, addresses", rows[i].name, rows[i].type);
	}
	struct dns_answer a = {.type = DNS_TYPE_AAAA};

	ok(h && dns_hosts_find(h, "six.test", 8, &a) && a.addr6[0].hi == UINT64_C(0x20010db800000000) && a.addr6[0].lo == 2, "static: its IPv6 address");
	dns_hosts_free(h);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		list[0] = wrong[i];
		s.dns_static_hosts.n = 1;
		h = dns_hosts_new(&s, &err);
		ok(!h && strstr(err.msg, "dns.static_hosts"), "static: \"%s\" is refused", wrong[i]);
		dns_hosts_free(h);
	}
}

int main(void)
{
	struct dns_query q;

	for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++)
		is_int(dns_query_parse(queries[i].data, queries[i].len, &q), queries[i].result, "question: %s", queries[i].why);
	for (size_t i = 0; i < sizeof(upstreams) / sizeof(upstreams[0]); i++) {
		struct sockaddr_storage to;
		struct sockaddr_in v4;

		is_int(dns_upstream_parse(upstreams[i].text, &to), upstreams[i].result, "upstream \"%s\"", upstreams[i].text);
		if (upstreams[i].result)
			continue;
		memcpy(&v4, &to, sizeof(v4)); /* the port is at the same place in both */
		ok(to.ss_family == upstreams[i].family && ntohs(v4.sin_port) == upstreams[i].port, "upstream \"%s\": value", upstreams[i].text);
	}
	test_query_values();
	test_answers();
	test_answers6();
	test_services();
	test_answer_build();
	test_errors();
	test_long_name();
	test_resolv();
	test_upstreams();
	test_limits();
	test_leases();
	test_leases_shut();
	test_leases_give_way();
	test_cache();
	test_log();
	test_hosts();
	return tap_done();
}
