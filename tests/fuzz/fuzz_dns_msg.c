/* SPDX-License-Identifier: Apache-2.0 */
/* First byte 0: a question of a sandbox; else an answer to the question whose length the second byte gives. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "netpolicy/dns_msg.h"
#include "netpolicy/dns_upstream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_question(const uint8_t *data, size_t size)
{
	uint8_t out[DNS_QUERY_MAX];
	struct dns_query q, again;
	int r = dns_query_parse(data, size, &q);

	if (r < 0)
		return;
	assert(dns_error_build(&q, DNS_SERVFAIL, out) <= sizeof(out));
	if (r)
		return;
	/* What goes to the upstream is a question that reads the same. */
	size_t n = dns_query_build(&q, 7, out);

	assert(n <= sizeof(out) && !dns_query_parse(out, n, &again));
	assert(again.id == 7 && again.type == q.type && again.name_len == q.name_len && !memcmp(again.name, q.name, q.name_len));
}

static void fuzz_answer(const uint8_t *data, size_t size, size_t question)
{
	static uint8_t out[DNS_ANSWER_MAX];
	struct dns_query q;
	struct dns_answer a, again;

	if (size < question || dns_query_parse(data, question, &q))
		return;
	data += question;
	size -= question;
	if (size < 2 || dns_answer_check(data, size, &q, (uint16_t)(data[0] << 8 | data[1]), &a))
		return;
	size_t n = dns_answer_build(data, &a, &q, q.udp_bytes, out);

	assert(n <= q.udp_bytes);
	n = dns_answer_build(data, &a, &q, sizeof(out), out);
	assert(n <= sizeof(out) && !dns_answer_check(out, n, &q, q.id, &again));
	assert(again.n_answer == a.n_answer && again.n_authority == a.n_authority);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dns_upstreams u = {0};
	char text[32];

	dns_upstreams_resolv(&u, (const char *)data, size);
	dns_name_text(data, size, text, sizeof(text));
	if (size >= 1 && !data[0])
		fuzz_question(data + 1, size - 1);
	else if (size >= 2)
		fuzz_answer(data + 2, size - 2, data[1]);
	return 0;
}
