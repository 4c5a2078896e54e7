/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the cursor over a DNS message that dns_msg.c and dns_answer.c share
 *
 * Checked reads; a failed one leaves the cursor wherever it was, and the message is given up whole.
 */
#ifndef NETPOLICY_DNS_MSG_INT_H
#define NETPOLICY_DNS_MSG_INT_H

#include "netpolicy/dns_msg.h"

/* Header bits, RFC 1035 4.1.1 and RFC 4035 3. */
#define DNS_FLAG_QR 0x8000u
#define DNS_FLAG_TC 0x0200u
#define DNS_FLAG_RD 0x0100u
#define DNS_FLAG_RA 0x0080u
#define DNS_OPCODE  0x7800u
#define DNS_RCODE   0x000fu

struct dns_cursor {
	const uint8_t *data;
	size_t len, at;
};

struct dns_head {
	uint16_t id, flags, n_question, n_answer, n_authority, n_additional;
};

static inline bool dns_take_u16(struct dns_cursor *c, uint16_t *ret)
{
	if (c->len - c->at < 2)
		return false;
	*ret = (uint16_t)(c->data[c->at] << 8 | c->data[c->at + 1]);
	c->at += 2;
	return true;
}

static inline bool dns_skip(struct dns_cursor *c, size_t n)
{
	if (c->len - c->at < n)
		return false;
	c->at += n;
	return true;
}

static inline size_t dns_put_u16(uint8_t *out, size_t at, unsigned value)
{
	out[at] = (uint8_t)(value >> 8);
	out[at + 1] = (uint8_t)value;
	return at + 2;
}

static inline size_t dns_put_u32(uint8_t *out, size_t at, uint32_t value)
{
	return dns_put_u16(out, dns_put_u16(out, at, value >> 16), value & 0xffff);
}

static inline uint8_t dns_lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/** dns_take_head() - Read the header at the beginning of @c into @h */
bool dns_take_head(struct dns_cursor *c, struct dns_head *h);
/**
 * dns_take_name() - Read a name at the cursor
 * @c:		The cursor; behind the name afterwards
 * @pointers:	Whether it may be compressed
 * @name:	DNS_NAME_MAX bytes, or NULL to check only
 * @ret_len:	Its length on the wire when not compressed; may be NULL
 *
 * Return: whether there was one
 */
bool dns_take_name(struct dns_cursor *c, bool pointers, uint8_t *name, uint8_t *ret_len);
/** dns_same_name() - Compare @n bytes of the wire names @a and @b without regard to case (RFC 4343) */
bool dns_same_name(const uint8_t *a, const uint8_t *b, size_t n);
/** dns_put_answer_head() - Header and question of an answer to @q with @flags besides QR, RA and RD; Return: bytes written */
size_t dns_put_answer_head(uint8_t *out, const struct dns_query *q, unsigned flags, unsigned n_answer, unsigned n_authority);
/** dns_put_opt() - Our OPT record at @at with the upper bits of @rcode and the reason @ede; Return: offset behind it */
size_t dns_put_opt(uint8_t *out, size_t at, unsigned rcode, enum dns_ede ede);
/* Bytes that dns_put_opt() writes at most. */
#define DNS_OPT_BYTES 17u

#endif
