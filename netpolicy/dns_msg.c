/* SPDX-License-Identifier: Apache-2.0 */
/* Codec of DNS messages: one cursor, one walk over records, bounded everywhere. */
#include "config.h"

#include "netpolicy/dns_msg.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Header bits, RFC 1035 4.1.1 and RFC 4035 3. */
#define FLAG_QR 0x8000u
#define FLAG_TC 0x0200u
#define FLAG_RD 0x0100u
#define FLAG_RA 0x0080u
#define FLAG_AD 0x0020u
#define FLAG_CD 0x0010u
#define OPCODE	0x7800u
#define RCODE	0x000fu
#define EDNS_DO 0x8000u
#define OPT_BYTES 11u

struct cursor {
	const uint8_t *data;
	size_t len, at;
};

static bool take_u16(struct cursor *c, uint16_t *ret)
{
	if (c->len - c->at < 2)
		return false;
	*ret = (uint16_t)(c->data[c->at] << 8 | c->data[c->at + 1]);
	c->at += 2;
	return true;
}

static bool skip(struct cursor *c, size_t n)
{
	if (c->len - c->at < n)
		return false;
	c->at += n;
	return true;
}

static size_t put_u16(uint8_t *out, size_t at, unsigned value)
{
	out[at] = (uint8_t)(value >> 8);
	out[at + 1] = (uint8_t)value;
	return at + 2;
}

/*
 * Reads a name at the cursor into @name (NULL: only checks it).  A pointer may only lead to before where its own run of labels
 * began, and what is read there must end before that place too: a name is made of bytes that came before it, never of its own
 * record, which changes when the message is rebuilt.  So each jump makes the rest shorter; the 255 octets bound the copy.
 */
static bool take_name(struct cursor *c, bool pointers, uint8_t *name, uint8_t *ret_len)
{
	size_t at = c->at, barrier = c->at, end = c->len, used = 0, behind = 0;

	for (;;) {
		if (at >= end)
			return false;
		uint8_t n = c->data[at];

		if ((n & 0xc0) == 0xc0) {
			size_t to;

			if (!pointers || at + 1 >= end)
				return false;
			to = (size_t)(n & 0x3f) << 8 | c->data[at + 1];
			if (to >= barrier || to < DNS_HEAD_BYTES)
				return false;
			behind = behind ? behind : at + 2;
			end = barrier;
			at = barrier = to;
			continue;
		}
		if (n > DNS_LABEL_MAX || end - at < n + 1u || used + n + 1u > DNS_NAME_MAX)
			return false;
		if (name)
			memcpy(name + used, c->data + at, n + 1u);
		used += n + 1u;
		at += n + 1u;
		if (!n)
			break;
	}
	c->at = behind ? behind : at;
	if (ret_len)
		*ret_len = (uint8_t)used;
	return true;
}

struct head {
	uint16_t id, flags, n_question, n_answer, n_authority, n_additional;
};

static bool take_head(struct cursor *c, struct head *h)
{
	return take_u16(c, &h->id) && take_u16(c, &h->flags) && take_u16(c, &h->n_question) && take_u16(c, &h->n_answer) &&
	       take_u16(c, &h->n_authority) && take_u16(c, &h->n_additional);
}

struct record {
	uint16_t type, class, ttl_high, ttl_low, len;
	bool at_root;
};

static bool take_record(struct cursor *c, struct record *r)
{
	uint8_t name_len;

	if (!take_name(c, true, NULL, &name_len))
		return false;
	r->at_root = name_len == 1;
	return take_u16(c, &r->type) && take_u16(c, &r->class) && take_u16(c, &r->ttl_high) && take_u16(c, &r->ttl_low) &&
	       take_u16(c, &r->len) && skip(c, r->len);
}

/* The OPT record of a question: class is the size, the upper half of the ttl is extended rcode and version. */
static int take_edns(struct cursor *c, uint16_t n, struct dns_query *q)
{
	for (uint16_t i = 0; i < n; i++) {
		struct record r;

		if (!take_record(c, &r))
			return DNS_FORMERR;
		if (r.type != DNS_TYPE_OPT)
			continue;
		if (q->edns || !r.at_root)
			return DNS_FORMERR;
		q->edns = true;
		q->dnssec_ok = r.ttl_low & EDNS_DO;
		q->udp_bytes = (uint16_t)(r.class < DNS_UDP_MIN ? DNS_UDP_MIN : r.class > DNS_UDP_MAX ? DNS_UDP_MAX : r.class);
		if (r.ttl_high & 0xff)
			return DNS_BADVERS;
	}
	return c->at == c->len ? 0 : DNS_FORMERR;
}

int dns_query_parse(const uint8_t *data, size_t len, struct dns_query *ret)
{
	struct cursor c = {data, len, 0};
	struct head h;

	memset(ret, 0, sizeof(*ret));
	ret->udp_bytes = DNS_UDP_MIN;
	if (!take_head(&c, &h) || (h.flags & FLAG_QR))
		return -EBADMSG;
	ret->id = h.id;
	ret->recursion_desired = h.flags & FLAG_RD;
	ret->checking_disabled = h.flags & FLAG_CD;
	ret->authentic_data = h.flags & FLAG_AD;
	if (h.flags & OPCODE)
		return DNS_NOTIMP;
	if (len > DNS_QUERY_MAX || h.n_question != 1 || h.n_answer || h.n_authority || h.n_additional > 2)
		return DNS_FORMERR;
	if (!take_name(&c, false, ret->name, &ret->name_len))
		return DNS_FORMERR;
	if (!take_u16(&c, &ret->type) || !take_u16(&c, &ret->class)) {
		ret->name_len = 0;
		return DNS_FORMERR;
	}
	int r = take_edns(&c, h.n_additional, ret);

	if (r)
		return r;
	/* Transfers and other classes have no business with a stub resolver. */
	if (ret->class != 1 || ret->type == DNS_TYPE_AXFR || ret->type == DNS_TYPE_IXFR || !ret->type || ret->type == DNS_TYPE_OPT)
		return DNS_REFUSED;
	return 0;
}

static size_t put_head(uint8_t *out, uint16_t id, unsigned flags, unsigned n_question, unsigned n_answer, unsigned n_authority,
		       unsigned n_additional)
{
	size_t at = put_u16(out, 0, id);

	at = put_u16(out, at, flags);
	at = put_u16(out, at, n_question);
	at = put_u16(out, at, n_answer);
	at = put_u16(out, at, n_authority);
	return put_u16(out, at, n_additional);
}

static size_t put_question(uint8_t *out, size_t at, const struct dns_query *q)
{
	memcpy(out + at, q->name, q->name_len);
	at = put_u16(out, at + q->name_len, q->type);
	return put_u16(out, at, q->class);
}

static size_t put_opt(uint8_t *out, size_t at, unsigned extended_rcode, bool dnssec_ok)
{
	out[at++] = 0;
	at = put_u16(out, at, DNS_TYPE_OPT);
	at = put_u16(out, at, DNS_UDP_MAX);
	at = put_u16(out, at, extended_rcode << 8);
	at = put_u16(out, at, dnssec_ok ? EDNS_DO : 0);
	return put_u16(out, at, 0);
}

size_t dns_query_build(const struct dns_query *query, uint16_t id, uint8_t *out)
{
	unsigned flags = FLAG_RD | (query->checking_disabled ? FLAG_CD : 0) | (query->authentic_data ? FLAG_AD : 0);
	size_t at = put_head(out, id, flags, 1, 0, 0, 1);

	at = put_question(out, at, query);
	return put_opt(out, at, 0, query->dnssec_ok);
}

/* RFC 4343: ASCII letters only; length bytes are below 64, so they are no letters. */
static bool same_name(const uint8_t *a, const uint8_t *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t x = a[i], y = b[i];

		x = (uint8_t)(x >= 'A' && x <= 'Z' ? x | 0x20 : x);
		y = (uint8_t)(y >= 'A' && y <= 'Z' ? y | 0x20 : y);
		if (x != y)
			return false;
	}
	return true;
}

static bool skip_records(struct cursor *c, size_t n)
{
	struct record r;

	for (size_t i = 0; i < n; i++)
		if (!take_record(c, &r))
			return false;
	return true;
}

int dns_answer_check(const uint8_t *data, size_t len, const struct dns_query *query, uint16_t id, struct dns_answer *ret)
{
	struct cursor c = {data, len, 0};
	struct dns_answer answer = {0};
	uint8_t name[DNS_NAME_MAX], name_len;
	uint16_t type, class;
	struct head h;

	if (len > DNS_ANSWER_MAX || !take_head(&c, &h) || !(h.flags & FLAG_QR) || h.id != id || (h.flags & OPCODE) || h.n_question != 1)
		return -EAGAIN;
	if (!take_name(&c, false, name, &name_len) || !take_u16(&c, &type) || !take_u16(&c, &class))
		return -EAGAIN;
	if (name_len != query->name_len || !same_name(name, query->name, name_len) || type != query->type || class != query->class)
		return -EAGAIN;
	answer.rcode = (enum dns_rcode)(h.flags & RCODE);
	answer.truncated = h.flags & FLAG_TC;
	answer.n_answer = h.n_answer;
	answer.n_authority = h.n_authority;
	answer.end = c.at;
	if (answer.truncated) {
		/* Whatever is in it is cut somewhere; the question is asked again over TCP. */
		answer.n_answer = answer.n_authority = 0;
		*ret = answer;
		return 0;
	}
	if ((size_t)h.n_answer + h.n_authority + h.n_additional > DNS_RECORDS_MAX || !skip_records(&c, (size_t)h.n_answer + h.n_authority))
		return -EBADMSG;
	answer.end = c.at;
	if (!skip_records(&c, h.n_additional) || c.at != c.len)
		return -EBADMSG;
	*ret = answer;
	return 0;
}

size_t dns_answer_build(const uint8_t *data, const struct dns_answer *answer, const struct dns_query *query, size_t max,
			uint8_t *out)
{
	size_t head = DNS_HEAD_BYTES + query->name_len + 4u, opt = query->edns ? OPT_BYTES : 0, at;
	bool cut = answer->truncated || answer->end + opt > max;
	unsigned upstream = (unsigned)data[2] << 8 | data[3];
	unsigned flags = FLAG_QR | FLAG_RA | (query->recursion_desired ? FLAG_RD : 0) | (upstream & FLAG_AD) |
			 (query->checking_disabled ? FLAG_CD : 0) | (unsigned)answer->rcode | (cut ? FLAG_TC : 0);

	assert(answer->end >= head && max >= head + opt);
	put_head(out, query->id, flags, 1, cut ? 0 : answer->n_answer, cut ? 0 : answer->n_authority, query->edns);
	at = put_question(out, DNS_HEAD_BYTES, query);
	if (!cut) {
		memcpy(out + at, data + at, answer->end - at);
		at = answer->end;
	}
	return query->edns ? put_opt(out, at, 0, query->dnssec_ok) : at;
}

size_t dns_error_build(const struct dns_query *query, enum dns_rcode rcode, uint8_t *out)
{
	unsigned flags = FLAG_QR | FLAG_RA | (query->recursion_desired ? FLAG_RD : 0) | ((unsigned)rcode & RCODE);
	size_t at = put_head(out, query->id, flags, query->name_len ? 1 : 0, 0, 0, query->edns);

	if (query->name_len)
		at = put_question(out, at, query);
	return query->edns ? put_opt(out, at, (unsigned)rcode >> 4, query->dnssec_ok) : at;
}

void dns_name_text(const uint8_t *name, size_t len, char *out, size_t size)
{
	size_t at = 0, used = 0;

	assert(size > 8);
	while (at < len && name[at]) {
		size_t n = name[at++];

		for (size_t i = 0; i < n && at < len && used + 2 < size; i++, at++)
			out[used++] = isalnum(name[at]) || name[at] == '-' || name[at] == '_' ? (char)name[at] : '?';
		if (used + 2 >= size)
			break;
		out[used++] = '.';
	}
	if (!used)
		out[used++] = '.';
	out[used] = '\0';
}
