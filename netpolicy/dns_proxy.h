/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the forwarder
 *
 * Takes questions from UDP and TCP listeners, asks upstreams over UDP from a fresh socket each (random port and id, connected,
 * so that only the asked address can answer), over TCP when the answer was cut, the next server when one is silent or
 * fails, and says SERVFAIL when all do.  Bounded: DNS_PENDING_MAX questions, DNS_PENDING_PER_SOURCE of one sandbox,
 * DNS_TCP_MAX connections.  A sandbox over its rate or share gets no answer (UDP) or a closed connection (TCP); others do
 * not notice.  Nothing is cached.
 */
#ifndef NETPOLICY_DNS_PROXY_H
#define NETPOLICY_DNS_PROXY_H

#include "base/err.h"
#include "base/loop.h"
#include "netpolicy/dns_upstream.h"

#include <stdint.h>

#define DNS_PENDING_MAX	       512u
#define DNS_PENDING_PER_SOURCE 64u
#define DNS_TCP_MAX	       128u
#define DNS_TCP_PER_SOURCE     8u
/* Questions a second of one source, and how many it may ask at once; package managers ask some hundred names in a burst. */
#define DNS_RATE_PER_SECOND 200u
#define DNS_RATE_BURST	    500u

struct dns_proxy;

struct dns_proxy_counts {
	uint64_t questions, answers, failures, refused, over_rate, forged;
};

/** dns_proxy_new() - A forwarder in @loop that asks @upstreams (borrowed, may change); Return: proxy or NULL with @err set */
struct dns_proxy *dns_proxy_new(struct loop *loop, struct dns_upstreams *upstreams, struct sbx_err *err) SBX_WUR;
/** dns_proxy_free() - Close everything; NULL is fine */
void dns_proxy_free(struct dns_proxy *proxy);
/**
 * dns_proxy_listen() - Serve a pair of listeners, in place of those served before
 * @proxy:	The forwarder
 * @udp_fd:	Taken over; IP_PKTINFO is set on it
 * @tcp_fd:	Taken over; listening
 * @err:	Filled on failure: SYSTEM
 *
 * Questions that are being asked are answered through the new socket.
 *
 * Return: 0, or -1 with @err set and the old listeners still served
 */
int dns_proxy_listen(struct dns_proxy *proxy, int udp_fd, int tcp_fd, struct sbx_err *err) SBX_WUR;
/** dns_proxy_counts() - Counters of @proxy since its start */
const struct dns_proxy_counts *dns_proxy_counts(const struct dns_proxy *proxy);

#endif
