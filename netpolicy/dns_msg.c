/* SPDX-License-Identifier: Apache-2.0 */
/* Codec of DNS questions: one cursor, bounded everywhere. */
#include "config.h"

#include "netpolicy/dns_msg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#include "netpolicy/dns_msg_int.h"

/*
 * A pointer may only lead to before where its own run of labels began, and what is read there must end before that place too: a
 * name is made of bytes that came before it.  So each jump makes the rest shorter; the 255 octets bound the copy, and with
 * them the number of jumps that lead to a label.
 */
bool dns_take_name(struct dns_cursor *c, bool pointers, uint8_t *name, uint8_t *ret_len)
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

bool dns_take_head(struct dns_cursor *c, struct dns_head *h)
{
	return dns_take_u16(c, &h->id) && dns_take_u16(c, &h->flags) && dns_take_u16(c, &h->n_question) &&
	       dns_take_u16(c, &h->n_answer) && dns_take_u16(c, &h->n_authority) && dns_take_u16(c, &h->n_additional);
}

bool dns_same_name(const uint8_t *a, const uint8_t *b, size_t n)
{
	/* Length bytes are below 64, so they are no letters. */
	for (size_t i = 0; i < n; i++)
		if (dns_lower(a[i]) != dns_lower(b[i]))
			return false;
	return true;
}

/* What rules can name (fqdn.h); a dot within a label would read like two labels. */
static bool plain(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

size_t dns_name_text(const uint8_t *name, char *out, bool *ret_odd)
{
	size_t used = 0;
	bool odd = false;

	for (size_t at = 0; name[at];) {
		size_t n = name[at++];

		if (used)
			out[used++] = '.';
		for (; n; n--, at++) {
			bool good = plain(name[at]);

			out[used++] = good ? (char)dns_lower(name[at]) : '?';
			odd |= !good;
		}
	}
	out[used] = '\0';
	if (ret_odd)
		*ret_odd = odd;
	return used;
}

size_t dns_text_wire(const char *text, size_t len, uint8_t *out)
{
	size_t used = 0;

	if (len + 2 > DNS_NAME_MAX)
		return 0;
	while (len) {
		const char *dot = memchr(text, '.', len);
		size_t n = dot ? (size_t)(dot - text) : len;

		if (!n || n > DNS_LABEL_MAX || (dot && n + 1 == len))
			return 0;
		out[used++] = (uint8_t)n;
		memcpy(out + used, text, n);
		used += n;
		text += n + (dot != NULL);
		len -= n + (dot != NULL);
	}
	out[used++] = 0;
	return used;
}

/*
 * The only record that may stand behind a question is OPT (RFC 6891): class is the size, the upper half of the ttl extended
 * rcode and version.  Its options are not looked at: none is passed on.
 */
static int take_edns(struct dns_cursor *c, uint16_t n, struct dns_query *q)
{
	for (uint16_t i = 0; i < n; i++) {
		uint16_t type, size, ttl_high, ttl_low, len;
		uint8_t name_len;

		if (!dns_take_name(c, false, NULL, &name_len) || !dns_take_u16(c, &type) || !dns_take_u16(c, &size) ||
		    !dns_take_u16(c, &ttl_high) || !dns_take_u16(c, &ttl_low) || !dns_take_u16(c, &len) || !dns_skip(c, len))
			return DNS_FORMERR;
		if (type != DNS_TYPE_OPT || q->edns || name_len != 1)
			return DNS_FORMERR;
		q->edns = true;
		q->udp_bytes = (uint16_t)(size < DNS_UDP_MIN ? DNS_UDP_MIN : size > DNS_UDP_MAX ? DNS_UDP_MAX : size);
		if (ttl_high & 0xff)
			return DNS_BADVERS;
	}
	return c->at == c->len ? 0 : DNS_FORMERR;
}

int dns_query_parse(const uint8_t *data, size_t len, struct dns_query *ret)
{
	struct dns_cursor c = {data, len, 0};
	struct dns_head h;

	memset(ret, 0, offsetof(struct dns_query, name));
	ret->text[0] = '\0';
	ret->udp_bytes = DNS_UDP_MIN;
	if (!dns_take_head(&c, &h) || (h.flags & DNS_FLAG_QR))
		return -EBADMSG;
	ret->id = h.id;
	ret->recursion_desired = h.flags & DNS_FLAG_RD;
	if (h.flags & DNS_OPCODE)
		return DNS_NOTIMP;
	if (len > DNS_QUERY_MAX || h.n_question != 1 || h.n_answer || h.n_authority || h.n_additional > 1)
		return DNS_FORMERR;
	if (!dns_take_name(&c, false, ret->name, &ret->name_len))
		return DNS_FORMERR;
	if (!dns_take_u16(&c, &ret->type) || !dns_take_u16(&c, &ret->class)) {
		ret->name_len = 0;
		return DNS_FORMERR;
	}
	ret->text_len = (uint8_t)dns_name_text(ret->name, ret->text, &ret->odd);
	for (size_t at = 0; ret->name[at]; at += ret->name[at] + 1u)
		ret->n_labels++;
	int r = take_edns(&c, h.n_additional, ret);

	if (r)
		return r;
	return ret->class == 1 ? 0 : DNS_REFUSED;
}

static const struct {
	uint16_t type;
	uint8_t class;
} types[] = {
	{DNS_TYPE_A, DNS_TYPES_ADDRESS},
	{DNS_TYPE_NS, DNS_TYPES_PASS},
	{DNS_TYPE_CNAME, DNS_TYPES_PASS},
	{DNS_TYPE_SOA, DNS_TYPES_PASS},
	{10, DNS_TYPES_REFUSED}, /* NULL */
	{DNS_TYPE_PTR, DNS_TYPES_PASS},
	{DNS_TYPE_HINFO, DNS_TYPES_REFUSED},
	{DNS_TYPE_MX, DNS_TYPES_PASS},
	{DNS_TYPE_TXT, DNS_TYPES_PASS},
	{DNS_TYPE_AAAA, DNS_TYPES_ADDRESS6},
	{DNS_TYPE_SRV, DNS_TYPES_PASS},
	{DNS_TYPE_NAPTR, DNS_TYPES_PASS},
	{DNS_TYPE_DNAME, DNS_TYPES_REFUSED},
	{DNS_TYPE_OPT, DNS_TYPES_REFUSED},
	{DNS_TYPE_DS, DNS_TYPES_PASS},
	{DNS_TYPE_SSHFP, DNS_TYPES_PASS},
	{DNS_TYPE_DNSKEY, DNS_TYPES_PASS},
	{DNS_TYPE_TLSA, DNS_TYPES_PASS},
	{DNS_TYPE_SVCB, DNS_TYPES_SERVICE},
	{DNS_TYPE_HTTPS, DNS_TYPES_SERVICE},
	{251, DNS_TYPES_REFUSED}, /* IXFR */
	{252, DNS_TYPES_REFUSED}, /* AXFR */
	{DNS_TYPE_ANY, DNS_TYPES_ANY},
	{DNS_TYPE_CAA, DNS_TYPES_PASS},
};

enum dns_type_class dns_type_class(uint16_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (types[i].type == type)
			return (enum dns_type_class)types[i].class;
	return DNS_TYPES_REFUSED;
}

static size_t put_head(uint8_t *out, uint16_t id, unsigned flags, unsigned n_question, unsigned n_answer, unsigned n_authority,
		       unsigned n_additional)
{
	size_t at = dns_put_u16(out, 0, id);

	at = dns_put_u16(out, at, flags);
	at = dns_put_u16(out, at, n_question);
	at = dns_put_u16(out, at, n_answer);
	at = dns_put_u16(out, at, n_authority);
	return dns_put_u16(out, at, n_additional);
}

size_t dns_put_opt(uint8_t *out, size_t at, unsigned rcode, enum dns_ede ede)
{
	out[at++] = 0;
	at = dns_put_u16(out, at, DNS_TYPE_OPT);
	at = dns_put_u16(out, at, DNS_UDP_MAX);
	at = dns_put_u16(out, at, rcode >> 4 << 8);
	at = dns_put_u16(out, at, 0);
	at = dns_put_u16(out, at, ede == DNS_EDE_NONE ? 0 : 6);
	if (ede == DNS_EDE_NONE)
		return at;
	at = dns_put_u16(out, at, 15);
	at = dns_put_u16(out, at, 2);
	return dns_put_u16(out, at, (unsigned)ede);
}

size_t dns_query_build(const struct dns_query *query, uint16_t id, const uint8_t *mix, bool edns, uint8_t *out)
{
	size_t at = put_head(out, id, DNS_FLAG_RD, 1, 0, 0, edns);

	/* A length byte is below 64, so it is no letter. */
	for (size_t i = 0; i < query->name_len; i++) {
		uint8_t c = dns_lower(query->name[i]);

		if (mix && c >= 'a' && c <= 'z' && (mix[i / 8] >> (i % 8) & 1))
			c = (uint8_t)(c & 0xdf);
		out[at++] = c;
	}
	at = dns_put_u16(out, at, query->type);
	at = dns_put_u16(out, at, query->class);
	return edns ? dns_put_opt(out, at, 0, DNS_EDE_NONE) : at;
}

size_t dns_put_answer_head(uint8_t *out, const struct dns_query *q, unsigned flags, unsigned n_answer, unsigned n_authority)
{
	size_t at;

	flags |= DNS_FLAG_QR | DNS_FLAG_RA | (q->recursion_desired ? DNS_FLAG_RD : 0);
	at = put_head(out, q->id, flags, q->name_len ? 1 : 0, n_answer, n_authority, q->edns);
	if (!q->name_len)
		return at;
	memcpy(out + at, q->name, q->name_len);
	at = dns_put_u16(out, at + q->name_len, q->type);
	return dns_put_u16(out, at, q->class);
}

size_t dns_error_build(const struct dns_query *query, enum dns_rcode rcode, enum dns_ede ede, uint8_t *out)
{
	size_t at = dns_put_answer_head(out, query, (unsigned)rcode & DNS_RCODE, 0, 0);

	return query->edns ? dns_put_opt(out, at, (unsigned)rcode, ede) : at;
}
