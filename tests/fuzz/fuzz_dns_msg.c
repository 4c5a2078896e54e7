/* SPDX-License-Identifier: Apache-2.0 */
/* First byte 0: a question of a sandbox; else an answer to the question whose length the second byte gives. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "netpolicy/dns_answer.h"
#include "netpolicy/dns_upstream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_question(const uint8_t *data, size_t size)
{
	uint8_t out[DNS_QUERY_MAX], wire[DNS_NAME_MAX];
	struct dns_query q, again;
	int r = dns_query_parse(data, size, &q);

	if (r < 0)
		return;
	assert(dns_error_build(&q, DNS_SERVFAIL, DNS_EDE_NETWORK, out) <= sizeof(out));
	if (r)
		return;
	assert(dns_any_build(&q, out) <= sizeof(out));
	/* What goes to the upstream is a question that reads the same. */
	size_t n = dns_query_build(&q, 7, NULL, true, out);

	assert(n <= sizeof(out) && !dns_query_parse(out, n, &again));
	assert(again.id == 7 && again.type == q.type && again.name_len == q.name_len && !strcmp(again.text, q.text));
	/* A name that rules can mean is the same name as text. */
	if (!q.odd && q.text_len)
		assert(dns_text_wire(q.text, q.text_len, wire) == q.name_len && !memcmp(wire, again.name, q.name_len));
}

static void fuzz_answer(const uint8_t *data, size_t size, size_t question)
{
	static uint8_t out[DNS_ANSWER_MAX], sent[DNS_QUERY_MAX];
	static struct dns_records records;
	static struct dns_answer a, again;
	struct dns_query q;

	if (size < question || dns_query_parse(data, question, &q))
		return;
	data += question;
	size -= question;
	if (size < 2)
		return;
	dns_query_build(&q, (uint16_t)(data[0] << 8 | data[1]), NULL, true, sent);
	dns_answer_check(data, size, sent, &a);
	if (dns_answer_read(data, size, &q, &a, &records))
		return;
	assert(a.n_links <= DNS_LINKS_MAX && a.n_addrs <= DNS_ADDRS_MAX && a.names_len <= sizeof(a.names));
	size_t n = dns_answer_build(&a, &records, &q, 60, q.udp_bytes, out);

	assert(n <= q.udp_bytes);
	/* What the sandbox gets reads the same. */
	n = dns_answer_build(&a, &records, &q, 60, sizeof(out), out);
	uint16_t n_records = records.n;

	assert(n <= sizeof(out));
	if (out[2] & 2)
		return;
	assert(!dns_answer_read(out, n, &q, &again, &records));
	assert(again.n_links == a.n_links && again.n_addrs == a.n_addrs && records.n == n_records);
	assert(!memcmp(again.addr, a.addr, a.n_addrs * sizeof(a.addr[0])));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dns_upstreams u = {0};

	dns_upstreams_resolv(&u, (const char *)data, size);
	if (size >= 1 && !data[0])
		fuzz_question(data + 1, size - 1);
	else if (size >= 2)
		fuzz_answer(data + 2, size - 2, data[1]);
	return 0;
}
