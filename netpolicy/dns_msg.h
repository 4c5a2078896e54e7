/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: DNS questions (RFC 1035 section 4.1, RFC 6891)
 *
 * Reads a question from a sandbox into a struct and builds the message to an upstream from that struct alone: nothing that a
 * sandbox wrote is passed on but name and type, and not even the name's upper and lower case.  Answers: dns_answer.h.
 *
 * No allocation, no I/O, no state.  Numbers are host byte order.
 */
#ifndef NETPOLICY_DNS_MSG_H
#define NETPOLICY_DNS_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_NAME_MAX	  255u /* RFC 1035 2.3.4, with length bytes and root */
#define DNS_TEXT_MAX	  256u /* the same as text with its NUL */
#define DNS_LABEL_MAX	  63u
#define DNS_HEAD_BYTES	  12u
#define DNS_QUERY_MAX	  512u	 /* a question with EDNS options fits; longer ones are refused */
#define DNS_SENT_MAX	  (DNS_HEAD_BYTES + DNS_NAME_MAX + 4u) /* header and question */
#define DNS_UDP_MIN	  512u	 /* RFC 1035 4.2.1 */
#define DNS_UDP_MAX	  1232u	 /* largest that no link on the way fragments */
#define DNS_ANSWER_MAX	  65535u /* RFC 1035 4.2.2 */

enum dns_rcode {
	DNS_NOERROR = 0,
	DNS_FORMERR = 1,
	DNS_SERVFAIL = 2,
	DNS_NXDOMAIN = 3,
	DNS_NOTIMP = 4,
	DNS_REFUSED = 5,
	DNS_BADVERS = 16, /* needs EDNS */
};

/* RFC 8914; DNS_EDE_NONE adds no option. */
enum dns_ede {
	DNS_EDE_BLOCKED = 15,
	DNS_EDE_PROHIBITED = 18,
	DNS_EDE_NO_AUTHORITY = 22,
	DNS_EDE_NETWORK = 23,
	DNS_EDE_NONE = 0xffff,
};

/* What becomes of a question by its type alone. */
enum dns_type_class {
	DNS_TYPES_REFUSED = 0, /* transfers, NULL, private use, what nobody knows */
	DNS_TYPES_PASS,
	DNS_TYPES_ADDRESS,	/* A: addresses are pinned */
	DNS_TYPES_ADDRESS6,	/* AAAA: empty where sandboxes have no IPv6 */
	DNS_TYPES_SERVICE,	/* HTTPS, SVCB: hints and keys are taken out */
	DNS_TYPES_ANY,		/* RFC 8482 */
};

enum dns_type {
	DNS_TYPE_A = 1,
	DNS_TYPE_NS = 2,
	DNS_TYPE_CNAME = 5,
	DNS_TYPE_SOA = 6,
	DNS_TYPE_PTR = 12,
	DNS_TYPE_HINFO = 13,
	DNS_TYPE_MX = 15,
	DNS_TYPE_TXT = 16,
	DNS_TYPE_AAAA = 28,
	DNS_TYPE_SRV = 33,
	DNS_TYPE_NAPTR = 35,
	DNS_TYPE_DNAME = 39,
	DNS_TYPE_OPT = 41,
	DNS_TYPE_DS = 43,
	DNS_TYPE_SSHFP = 44,
	DNS_TYPE_DNSKEY = 48,
	DNS_TYPE_TLSA = 52,
	DNS_TYPE_SVCB = 64,
	DNS_TYPE_HTTPS = 65,
	DNS_TYPE_ANY = 255,
	DNS_TYPE_CAA = 257,
};

struct dns_query {
	uint16_t id;
	bool recursion_desired;
	bool edns;
	bool odd; /* the name has bytes that no rule can name: all but letters, digits, hyphen and underscore */
	uint16_t udp_bytes; /* largest answer that the asker takes over UDP, DNS_UDP_MIN to DNS_UDP_MAX */
	uint16_t type, class;
	uint8_t name_len; /* with the root's zero byte; 0: none was read */
	uint8_t n_labels;
	uint8_t text_len;
	uint8_t name[DNS_NAME_MAX]; /* wire form, the asker's upper and lower case */
	char text[DNS_TEXT_MAX];    /* lower case, no last dot, "" for the root; what is odd in it is '?' */
};

/**
 * dns_query_parse() - Read a question
 * @data:	The message
 * @len:	Its length
 * @ret:	Filled as far as it was read; what dns_error_build() needs when the result is positive
 *
 * Return: 0; a positive enum dns_rcode that is to be answered; or -EBADMSG for what must not be answered at all (an
 * answer, or too short to have an id)
 */
int dns_query_parse(const uint8_t *data, size_t len, struct dns_query *ret);

/** dns_type_class() - What becomes of questions of @type */
enum dns_type_class dns_type_class(uint16_t type);

/**
 * dns_query_build() - Message to an upstream
 * @query:	The question
 * @id:		Random id
 * @mix:	DNS_NAME_MAX / 8 + 1 random bytes, one bit for the case of each letter; NULL: all lower case
 * @edns:	Whether an OPT record goes along
 * @out:	At least DNS_QUERY_MAX bytes; the name as sent begins at DNS_HEAD_BYTES
 *
 * Return: its length
 */
size_t dns_query_build(const struct dns_query *query, uint16_t id, const uint8_t *mix, bool edns, uint8_t *out);

/**
 * dns_error_build() - An answer without records
 * @query:	Parsed, perhaps in part
 * @rcode:	Why
 * @ede:	Reason for people (RFC 8914), or DNS_EDE_NONE; only an asker with EDNS sees it
 * @out:	At least DNS_QUERY_MAX bytes
 *
 * Return: its length
 */
size_t dns_error_build(const struct dns_query *query, enum dns_rcode rcode, enum dns_ede ede, uint8_t *out);

/**
 * dns_text_wire() - Wire form of a name
 * @text:	Without its last dot, @len bytes; labels of any bytes but dots
 * @len:	Length
 * @out:	DNS_NAME_MAX bytes
 *
 * Return: its length, or 0 when @text is no name
 */
size_t dns_text_wire(const char *text, size_t len, uint8_t *out);

/**
 * dns_name_text() - Lower-case text of a wire name
 * @name:	Checked wire form
 * @out:	DNS_TEXT_MAX bytes
 * @ret_odd:	Set when a byte had to become '?'; may be NULL
 *
 * Return: length of the text
 */
size_t dns_name_text(const uint8_t *name, char *out, bool *ret_odd);

#endif
