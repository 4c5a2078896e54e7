/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: asking upstreams
 *
 * A `try` is one question on its way to one upstream.  Over UDP it leaves through one of DNS_SOCKETS connected sockets of that
 * upstream, taken in random order and opened anew now and then, with a random id and random upper and lower case; only
 * an answer with the same source, port, id and spelling is its answer.  An id or a question that does not fit counts as
 * forged, and a socket that got DNS_FORGED_MAX of them is given up with its port: what was asked through it goes over TCP.
 *
 * Nothing here knows sandboxes or policies.  A try is embedded in its owner and must be ended before that goes away.
 */
#ifndef NETPOLICY_DNS_EXCHANGE_H
#define NETPOLICY_DNS_EXCHANGE_H

#include "base/err.h"
#include "base/loop.h"
#include "netpolicy/dns_answer.h"
#include "netpolicy/dns_upstream.h"

#include <stdint.h>

#define DNS_SOCKETS    64u /* of one upstream */
#define DNS_FORGED_MAX 16u
#define DNS_TCP_OUT_MAX 256u /* connections to upstreams at once */

struct dns_exchange;
struct dns_tcp_out;

enum dns_outcome {
	DNS_OUT_ANSWER = 1, /* data holds a message that dns_answer_check() liked; perhaps truncated */
	DNS_OUT_SPELLING,   /* the same but for upper and lower case; the try goes on */
	DNS_OUT_FORGED,	    /* somebody guesses: ask over TCP; the try is over */
	DNS_OUT_FAILED,	    /* nobody serves there, or the connection broke; the try is over */
};

struct dns_try {
	struct dns_try *next, *prev; /* within its socket's bucket */
	void *owner;
	struct dns_socket *socket; /* NULL: not over UDP */
	struct dns_tcp_out *tcp;   /* NULL: not over TCP */
	uint8_t upstream;
	bool over_tcp;
	bool mixed; /* asked with random case */
	bool edns;
	uint16_t id;
	uint64_t began_usec;
	uint8_t sent[DNS_SENT_MAX];
};

/* @answer holds rcode and truncated. */
typedef void dns_exchange_handler(void *arg, struct dns_try *t, enum dns_outcome outcome, const uint8_t *data, size_t len,
				  const struct dns_answer *answer);
/* Called at the end of each handler of the loop, for what is sent in one go. */
typedef void dns_exchange_turn(void *arg);

/**
 * dns_exchange_new() - Make one
 * @loop:	The loop
 * @upstreams:	Borrowed; dns_exchange_changed() when the list is another one
 * @handler:	Gets every outcome
 * @turn:	Called after a batch of them
 * @arg:	For both
 * @err:	Filled on failure: NO_MEMORY
 *
 * Return: the exchange or NULL with @err set
 */
struct dns_exchange *dns_exchange_new(struct loop *loop, struct dns_upstreams *upstreams, dns_exchange_handler *handler,
				      dns_exchange_turn *turn, void *arg, struct sbx_err *err) SBX_WUR;
/** dns_exchange_free() - Close everything of @x; all tries must have been ended; NULL is fine */
void dns_exchange_free(struct dns_exchange *x);

/**
 * dns_exchange_udp() - Begin a try over UDP
 * @x:		The exchange
 * @t:		Not in use; @owner is set by the caller
 * @query:	What to ask
 * @upstream:	Index of the list
 *
 * It leaves with dns_exchange_flush().
 *
 * Return: 0 or -errno
 */
int dns_exchange_udp(struct dns_exchange *x, struct dns_try *t, const struct dns_query *query, unsigned upstream) SBX_WUR;
/** dns_exchange_tcp() - Begin the try @t of @query to @upstream over a connection of its own, asked by @x; Return: 0 or -errno */
int dns_exchange_tcp(struct dns_exchange *x, struct dns_try *t, const struct dns_query *query, unsigned upstream) SBX_WUR;
/** dns_exchange_end() - Forget @t; one that is not under way is left alone */
void dns_exchange_end(struct dns_exchange *x, struct dns_try *t);
/** dns_exchange_active() - Whether @t is under way */
bool dns_exchange_active(const struct dns_try *t);
/** dns_exchange_flush() - Send what was begun in @x since the last call */
void dns_exchange_flush(struct dns_exchange *x);
/** dns_exchange_changed() - The list of upstreams of @x is another one: every socket is closed, every try gets DNS_OUT_FAILED */
void dns_exchange_changed(struct dns_exchange *x);
/** dns_exchange_forged() - Messages that were not believed by @x since its start */
uint64_t dns_exchange_forged(const struct dns_exchange *x);

#endif
