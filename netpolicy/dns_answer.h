/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: DNS answers
 *
 * An upstream's answer is believed in three steps.  dns_answer_check(): it is an answer to exactly this question.
 * dns_answer_read(): from the asked name along its CNAME records, at most DNS_LINKS_MAX, to records of the asked type; what
 * belongs to no name of that chain is not looked at, and one malformed byte anywhere gives up the whole message.
 * dns_answer_build(): what the sandbox gets is written anew from what was read.
 *
 * No allocation, no I/O; not re-entrant.  Addresses and numbers are host byte order.
 */
#ifndef NETPOLICY_DNS_ANSWER_H
#define NETPOLICY_DNS_ANSWER_H

#include "base/ip6.h"
#include "netpolicy/dns_msg.h"

#define DNS_LINKS_MAX	 16u
#define DNS_ADDRS_MAX	 64u
#define DNS_ADDRS6_MAX	 16u /* an answer has either kind */
#define DNS_INDEX_MAX	 512u  /* records of the answer section that are looked at; real answers have below 100 */
#define DNS_NAMES_BYTES	 (DNS_LINKS_MAX * DNS_NAME_MAX + 2 * DNS_NAME_MAX + 20)
#define DNS_RECORDS_BYTES 32768u /* of one answer, names written out; longer ones are cut to what fits */

/* Small enough to be kept while addresses are being pinned and in the cache; @names holds only names_len bytes. */
struct dns_answer {
	enum dns_rcode rcode;
	bool truncated;
	uint8_t n_links;
	uint8_t n_addrs;
	uint8_t n_stripped; /* filled by who strips addresses */
	uint16_t type;
	uint32_t ttl_s; /* smallest of all that is in it; of the SOA record when there is nothing else */
	uint16_t names_len;
	uint16_t link_at[DNS_LINKS_MAX]; /* offset of each CNAME's target in names */
	uint16_t soa_len; /* 0: none; else the SOA record's data is at soa_at in names */
	uint16_t soa_at;
	uint8_t soa_skip; /* bytes of the last name of the chain in front of the SOA record's owner */
	union {
		uint32_t addr[DNS_ADDRS_MAX];	   /* of type A */
		struct ip6 addr6[DNS_ADDRS6_MAX]; /* of type AAAA */
	};
	uint8_t names[DNS_NAMES_BYTES];
};

/* Records of types without addresses: for each u16 length and data.  Valid until the next answer is read. */
struct dns_records {
	uint16_t n;
	size_t len;
	uint8_t data[DNS_RECORDS_BYTES];
};

/**
 * dns_answer_check() - Whether a message is the answer to a question
 * @data:	The message
 * @len:	Its length
 * @sent:	The question as it was sent, the first DNS_SENT_MAX bytes from dns_query_build()
 * @ret:	rcode and truncated are filled when the result is 0 or -EILSEQ
 *
 * Return: 0; -EAGAIN when it is no answer to this question (forged or late: wait on); -EILSEQ when it is one but for the case of
 * letters in the name
 */
int dns_answer_check(const uint8_t *data, size_t len, const uint8_t *sent, struct dns_answer *ret);

/**
 * dns_answer_read() - Read a checked answer that is not truncated
 * @data:	The message
 * @len:	Its length
 * @query:	What was asked
 * @ret:	Filled on success; NXDOMAIN and an answer without records are successes
 * @records:	Filled for types other than A and AAAA
 *
 * Return: 0; -EBADMSG (malformed), -ELOOP (more than DNS_LINKS_MAX links, or a circle)
 */
int dns_answer_read(const uint8_t *data, size_t len, const struct dns_query *query, struct dns_answer *ret,
		    struct dns_records *records);

/**
 * dns_answer_build() - The answer for the asker
 * @answer:	Read, or made by hand
 * @records:	NULL: none
 * @query:	The asker's
 * @ttl_s:	Written into every record
 * @max:	Largest length: the asker's udp_bytes, or DNS_ANSWER_MAX over TCP; longer ones go out empty with the TC bit
 * @out:	Room for @max bytes
 *
 * Return: its length
 */
size_t dns_answer_build(const struct dns_answer *answer, const struct dns_records *records, const struct dns_query *query,
			uint32_t ttl_s, size_t max, uint8_t *out);

/** dns_any_build() - What ANY gets instead of everything (RFC 8482): one HINFO record, into @out of DNS_QUERY_MAX bytes; Return: length */
size_t dns_any_build(const struct dns_query *query, uint8_t *out);

/** dns_answer_copy() - Copy the used part of @from to @to */
void dns_answer_copy(struct dns_answer *to, const struct dns_answer *from);

/** dns_answer_addr_bytes() - Bytes of the addresses of @answer */
size_t dns_answer_addr_bytes(const struct dns_answer *answer);
/** dns_answer_bytes() - Bytes of @answer that are used, from its beginning */
size_t dns_answer_bytes(const struct dns_answer *answer);

#endif
