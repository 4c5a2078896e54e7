/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: DNS messages (RFC 1035 section 4.1, RFC 6891)
 *
 * Reads a question from a sandbox into a struct, builds the message to the upstream from that struct alone (nothing that a
 * sandbox wrote is passed on but the name), and checks an answer before it is given back: same id, same question, every
 * record inside the message, every compression pointer backwards.  The answer and authority sections go back as they came,
 * at the offset that they had, so that their pointers stay right; the additional section is made anew.
 *
 * No allocation, no I/O, no state.  Numbers are host byte order.
 */
#ifndef NETPOLICY_DNS_MSG_H
#define NETPOLICY_DNS_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_NAME_MAX	  255u /* RFC 1035 2.3.4, with length bytes and root */
#define DNS_LABEL_MAX	  63u
#define DNS_HEAD_BYTES	  12u
#define DNS_QUERY_MAX	  512u	 /* a question with EDNS options fits; longer ones are refused */
#define DNS_UDP_MIN	  512u	 /* RFC 1035 4.2.1 */
#define DNS_UDP_MAX	  1232u	 /* largest that no link on the way fragments */
#define DNS_ANSWER_MAX	  65535u /* RFC 1035 4.2.2 */
#define DNS_RECORDS_MAX	  4096u	 /* of one answer; real ones have below 500 */

enum dns_rcode {
	DNS_NOERROR = 0,
	DNS_FORMERR = 1,
	DNS_SERVFAIL = 2,
	DNS_NXDOMAIN = 3,
	DNS_NOTIMP = 4,
	DNS_REFUSED = 5,
	DNS_BADVERS = 16, /* needs EDNS */
};

enum dns_type { DNS_TYPE_A = 1, DNS_TYPE_OPT = 41, DNS_TYPE_IXFR = 251, DNS_TYPE_AXFR = 252 };

struct dns_query {
	uint16_t id;
	bool recursion_desired, checking_disabled, authentic_data;
	bool edns, dnssec_ok;
	uint16_t udp_bytes; /* largest answer that the asker takes over UDP, DNS_UDP_MIN to DNS_UDP_MAX */
	uint16_t type, class;
	uint8_t name_len; /* with the root's zero byte */
	uint8_t name[DNS_NAME_MAX]; /* wire form, the asker's upper and lower case */
};

struct dns_answer {
	enum dns_rcode rcode;
	bool truncated;
	uint16_t n_answer, n_authority;
	size_t end; /* offset behind the authority section */
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

/**
 * dns_query_build() - Message to an upstream
 * @query:	The question
 * @id:		Random id
 * @out:	At least DNS_QUERY_MAX bytes
 *
 * Return: its length
 */
size_t dns_query_build(const struct dns_query *query, uint16_t id, uint8_t *out);

/**
 * dns_answer_check() - Check an upstream's answer
 * @data:	The message
 * @len:	Its length
 * @query:	What was asked
 * @id:		The id that it was asked with
 * @ret:	Filled on success
 *
 * Return: 0; -EAGAIN when it is no answer to this question (forged or late: wait on); -EBADMSG when it is one but broken
 */
int dns_answer_check(const uint8_t *data, size_t len, const struct dns_query *query, uint16_t id, struct dns_answer *ret);

/**
 * dns_answer_build() - The answer for the asker
 * @data:	Checked message of the upstream
 * @answer:	From dns_answer_check()
 * @query:	What was asked; the asker's id and spelling are restored
 * @max:	Largest length: the asker's udp_bytes, or DNS_ANSWER_MAX over TCP; longer ones go out empty with the TC bit
 * @out:	Room for @max bytes
 *
 * Return: its length
 */
size_t dns_answer_build(const uint8_t *data, const struct dns_answer *answer, const struct dns_query *query, size_t max,
			uint8_t *out);

/**
 * dns_error_build() - An answer without records
 * @query:	Parsed, perhaps in part
 * @rcode:	Why
 * @out:	At least DNS_QUERY_MAX bytes
 *
 * Return: its length
 */
size_t dns_error_build(const struct dns_query *query, enum dns_rcode rcode, uint8_t *out);

/** dns_name_text() - Write the wire name @name of @len bytes as printable text into @out of @size, cut when too long */
void dns_name_text(const uint8_t *name, size_t len, char *out, size_t size);

#endif
