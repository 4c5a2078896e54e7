/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the parts of sandbox-dnsd, as they know each other
 *
 * One question: dns_proxy.c or dns_tcp.c receives it, dns_question.c judges it and answers at once what it can, dns_lookup.c
 * asks upstreams through dns_exchange.c, has the addresses opened by dnsd_broker.c and answers.  dnsd_policy.c gets the
 * policies from sandboxd and carries the events of dnsd_event.c, into which dnsd_log.c puts refused packets.
 *
 * Every handler of the loop that may have produced something ends with dnsd_turn(), which sends what was collected:
 * questions to upstreams, pins to the broker, answers to sandboxes.
 */
#ifndef NETPOLICY_DNSD_INT_H
#define NETPOLICY_DNSD_INT_H

#include "base/loop.h"
#include "base/settings.h"
#include "netpolicy/dns_cache.h"
#include "netpolicy/dns_exchange.h"
#include "netpolicy/dns_guard.h"
#include "netpolicy/dns_judge.h"
#include "netpolicy/dns_lease.h"
#include "netpolicy/dns_sandbox.h"
#include "netpolicy/dns_upstream.h"

#include <netinet/in.h>

struct dnsd_broker;
struct dnsd_policy;
struct dnsd_events;
struct dnsd_log;
struct dnsd_gate;
struct dns_proxy;
struct dns_tcp;
struct dns_conn;
struct dns_lookup;
struct dns_lookups;

struct dnsd_counts {
	uint64_t questions, answered, denied, failed, rate_limited, pins, pin_failures, rebind_stripped, tunnel_suspected;
	uint64_t packets_denied, cached, upstream_usec_sum, upstream_count, wrong_link, events_lost;
	uint64_t sni_allowed, sni_denied, sni_unmatched;
};

struct dnsd {
	struct loop *loop;
	struct settings settings;
	bool unlimited; /* dns.limits = false: a benchmark */
	struct dns_upstreams upstreams;
	struct dns_sandboxes *sandboxes;
	struct dns_cache *cache;
	struct dns_leases *leases;
	struct dns_guard *guard;
	struct dns_doh *doh;
	struct dns_hosts *hosts;
	struct dns_exchange *exchange;
	struct dns_lookups *lookups;
	struct dns_proxy *proxy;
	struct dns_tcp *tcp;
	struct dnsd_broker *broker;
	struct dnsd_policy *policy;
	struct dnsd_events *events;
	struct dnsd_log *log;
	struct dnsd_gate *gate;
	struct dnsd_counts counts;
	uint8_t out[2 + DNS_ANSWER_MAX]; /* an answer is built at out + 2 */
};

/** dnsd_turn() - Send everything that was collected in this turn of the loop */
void dnsd_turn(struct dnsd *d);

/* Who waits for an answer. */
struct dns_asker {
	struct dns_asker *next;
	struct dns_conn *conn; /* over TCP; NULL: over UDP, or the connection is gone */
	bool over_tcp;
	struct sockaddr_in from; /* over IPv6: the IPv4 address of the same sandbox */
	bool over6;
	struct in6_addr via6;
	struct in_addr via; /* what it asked, and what must be the source of the answer */
	struct dns_query query;
};

/* ---- dns_proxy.c: UDP ---- */

/** dns_proxy_new() - The UDP side of @d, without a socket yet; Return: it or NULL with @err set */
struct dns_proxy *dns_proxy_new(struct dnsd *d, struct sbx_err *err) SBX_WUR;
/** dns_proxy_free() - Close it; NULL is fine */
void dns_proxy_free(struct dns_proxy *proxy);
/** dns_proxy_listen() - Serve @udp_fd (taken over) in place of the one served before; Return: 0, or -1 with @err set */
int dns_proxy_listen(struct dns_proxy *proxy, int udp_fd, struct sbx_err *err) SBX_WUR;
/** dns_proxy_listen6() - As dns_proxy_listen() for the IPv6 socket @udp_fd; Return: 0, or -1 with @err set */
int dns_proxy_listen6(struct dns_proxy *proxy, int udp_fd, struct sbx_err *err) SBX_WUR;
/** dns_proxy_reply() - Queue the @len bytes at d->out + 2 for @to */
void dns_proxy_reply(struct dns_proxy *proxy, const struct dns_asker *to, size_t len);
/** dns_proxy_flush() - Send the queue */
void dns_proxy_flush(struct dns_proxy *proxy);
/** dns_source_of6() - The IPv4 address of the sandbox that asks as @from6, with its port, into @ret; Return: false when it is none */
bool dns_source_of6(const struct dnsd *d, const struct sockaddr_in6 *from6, struct sockaddr_in *ret);
/** dns_admit() - Which sandbox @from is, when it may ask through link @ifindex (0: unknown) now; counts; Return: NULL when not */
struct dns_sandbox *dns_admit(struct dnsd *d, const struct sockaddr_in *from, uint32_t ifindex, bool *ret_over_rate);
/** dns_reply() - Give the @len bytes at d->out + 2 to @to, over UDP or TCP */
void dns_reply(struct dnsd *d, const struct dns_asker *to, size_t len);
/** dns_room() - Largest answer for @to */
size_t dns_room(const struct dns_asker *to);

/* ---- dns_tcp.c ---- */

/** dns_tcp_new() - The TCP side of @d, without a socket yet; Return: it or NULL with @err set */
struct dns_tcp *dns_tcp_new(struct dnsd *d, struct sbx_err *err) SBX_WUR;
/** dns_tcp_free() - Close everything; NULL is fine */
void dns_tcp_free(struct dns_tcp *tcp);
/** dns_tcp_listen() - Serve @tcp_fd (taken over) in place of the one served before; Return: 0, or -1 with @err set */
int dns_tcp_listen(struct dns_tcp *tcp, int tcp_fd, struct sbx_err *err) SBX_WUR;
/** dns_tcp_listen6() - As dns_tcp_listen() for the IPv6 socket @tcp_fd; Return: 0, or -1 with @err set */
int dns_tcp_listen6(struct dns_tcp *tcp, int tcp_fd, struct sbx_err *err) SBX_WUR;
/** dns_tcp_reply() - Send the @len bytes at d->out + 2 over @conn */
void dns_tcp_reply(struct dns_conn *conn, size_t len);
/** dns_tcp_drop() - Close the connections of @s */
void dns_tcp_drop(struct dns_tcp *tcp, const struct dns_sandbox *s);

/* ---- dns_question.c ---- */

/** dns_judge() - What the policy of @s says to the name @text of @len bytes; @odd: it has no canonical form */
struct dns_verdict dns_judge(const struct dnsd *d, const struct dns_sandbox *s, const char *text, size_t len, bool odd);
/** dns_question() - Judge the parsed question of @asker, which is copied when it must wait, and answer it now or later */
void dns_question(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *asker);
/** dns_answer_denied() - Tell @asker "no such name" because of @v */
void dns_answer_denied(struct dnsd *d, const struct dns_sandbox *s, const struct dns_asker *asker, const struct dns_verdict *v);

/* ---- dns_lookup.c ---- */

/** dns_lookups_new() - Make room for look-ups; Return: NULL with @err set */
struct dns_lookups *dns_lookups_new(struct dnsd *d, struct sbx_err *err) SBX_WUR;
/** dns_lookups_free() - Release it; all sandboxes are gone; NULL is fine */
void dns_lookups_free(struct dns_lookups *ls);
/** dns_lookup_begin() - Ask an upstream for @asker, or let it wait with who asked the same before */
void dns_lookup_begin(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *asker);
/** dns_lookup_local() - Let the addresses of @answer be opened for the name and answer @asker, without an upstream */
void dns_lookup_local(struct dnsd *d, struct dns_sandbox *s, const struct dns_asker *asker, const struct dns_answer *answer);
/** dns_lookup_pinned() - The broker answered the pin of @l: @status 0 when the kernel has it */
void dns_lookup_pinned(struct dns_lookup *l, int status);
/** dns_lookup_drop() - Forget all look-ups of @s, which is gone */
void dns_lookup_drop(struct dnsd *d, struct dns_sandbox *s);
/** dns_lookup_conn_gone() - Nobody waits on @conn any more */
void dns_lookup_conn_gone(struct dns_sandbox *s, const struct dns_conn *conn);
/** dns_exchange_outcome() - Handler of the exchange */
dns_exchange_handler dns_exchange_outcome;
/** dns_reload_upstreams() - Read resolv.conf again if it changed */
void dns_reload_upstreams(struct dnsd *d);

/* ---- dnsd_broker.c ---- */

/** dnsd_broker_new() - Connect to the broker, now and whenever it comes back; Return: NULL with @err set */
struct dnsd_broker *dnsd_broker_new(struct dnsd *d, struct sbx_err *err) SBX_WUR;
/** dnsd_broker_free() - Close it; NULL is fine */
void dnsd_broker_free(struct dnsd_broker *b);

struct dnsd_pin {
	const struct dns_sandbox *sandbox;
	const uint32_t *addr;
	const struct ip6 *addr6; /* it instead, unless NULL; at most DNS_ADDRS6_MAX */
	uint32_t n_addrs;
	const uint16_t *port;
	uint32_t n_ports;
	uint32_t lease_ms;
};

/** dnsd_pin_of() - A pin that names the address and ports of @lease of @s, which must stay meanwhile */
struct dnsd_pin dnsd_pin_of(const struct dns_sandbox *s, const struct dns_lease *lease);

/**
 * dnsd_broker_pin() - Ask for addresses to be opened
 * @b:		The broker's channel
 * @pin:	What; copied
 * @lookup:	Told with dns_lookup_pinned(); NULL: nobody
 *
 * Return: a ticket for dnsd_broker_forget(), or -errno when there is no broker: it will not be told
 */
int dnsd_broker_pin(struct dnsd_broker *b, const struct dnsd_pin *pin, struct dns_lookup *lookup);
/* A question to close addresses, for who asked it. */
struct dnsd_unpin {
	struct egress_ref ref;
	uint64_t serial; /* dns_leases_shut_asked() */
	uint64_t waiter; /* 0: nobody waits for it */
};

/** dnsd_broker_unpin() - Ask for addresses of @pin to be closed; dnsd_policy_unpinned() gets @unpin, NULL: nobody; Return: 0 or -errno */
int dnsd_broker_unpin(struct dnsd_broker *b, const struct dnsd_pin *pin, const struct dnsd_unpin *unpin);
/** dnsd_broker_forget() - Who waited for @ticket is gone */
void dnsd_broker_forget(struct dnsd_broker *b, int ticket);
/** dnsd_broker_flush() - Send what was collected */
void dnsd_broker_flush(struct dnsd_broker *b);

/* ---- dnsd_policy.c ---- */

/** dnsd_policy_new() - Connect to sandboxd, now and whenever it comes back; Return: NULL with @err set */
struct dnsd_policy *dnsd_policy_new(struct dnsd *d, struct sbx_err *err) SBX_WUR;
/** dnsd_policy_free() - Close it; NULL is fine */
void dnsd_policy_free(struct dnsd_policy *p);
/** dnsd_policy_unpinned() - The broker answered @unpin, or is gone (@status is SBX_E_PEER_GONE) */
void dnsd_policy_unpinned(struct dnsd_policy *p, const struct dnsd_unpin *unpin, int status);
/** dnsd_policy_close() - Ask for the record @index of @s to be closed, which gave way; asked again until it is, or its time is over */
void dnsd_policy_close(struct dnsd_policy *p, struct dns_sandbox *s, uint32_t index);
/** dnsd_policy_close_rest() - Ask again for what is to be closed and is not known to be, but for what a change of policy waits with */
void dnsd_policy_close_rest(struct dnsd_policy *p);
/** dnsd_policy_broker_up() - There is a broker again: what is still to be closed is asked for, ahead of anything else */
void dnsd_policy_broker_up(struct dnsd_policy *p);
/** dnsd_policy_event() - Send @e; Return: 0, -EAGAIN: sandboxd is behind, or another -errno: it is not there */
int dnsd_policy_event(struct dnsd_policy *p, const struct egress_event *e);
/** dnsd_policy_retry() - Something was made in the run directory: perhaps the socket of sandboxd */
void dnsd_policy_retry(struct dnsd_policy *p);
/** dnsd_broker_retry() - Something was made in the run directory: perhaps the broker's socket */
void dnsd_broker_retry(struct dnsd_broker *b);

/* ---- dnsd_event.c ---- */

struct dnsd_note {
	enum egress_event_kind kind;
	enum egress_reason reason;
	uint32_t rule;
	const char *name;
	size_t name_len;
	uint16_t qtype, rcode;
	const uint32_t *addrs;
	const struct ip6 *addrs6; /* it instead, unless NULL */
	uint32_t n_addrs;
	uint32_t addr; /* of a packet */
	struct ip6 addr6; /* it instead */
	uint16_t port;
	uint8_t protocol;
	uint32_t count; /* 0 is 1 */
	const char *text;
};

/** dnsd_events_new() - Make room for events; Return: NULL with @err set */
struct dnsd_events *dnsd_events_new(struct dnsd *d, struct sbx_err *err) SBX_WUR;
/** dnsd_events_free() - Release it; NULL is fine */
void dnsd_events_free(struct dnsd_events *e);
/** dnsd_event() - Tell @n about @s: the first of its kind at once, more within a second as one */
void dnsd_event(struct dnsd *d, const struct dns_sandbox *s, const struct dnsd_note *n);

/** dnsd_events_flush() - Send what was kept while sandboxd was away or behind */
void dnsd_events_flush(struct dnsd_events *e);
/** dnsd_events_policy() - @s gets @policy of @generation in place of the one that it still has: so do events that name a rule */
void dnsd_events_policy(struct dnsd_events *e, const struct dns_sandbox *s, const struct policy *policy, uint64_t generation);
/** dnsd_events_held() - How many are kept */
uint32_t dnsd_events_held(const struct dnsd_events *e);

/* ---- dnsd_log.c ---- */

/** dnsd_log_new() - The reader of refused packets, without a socket yet; Return: NULL with @err set */
struct dnsd_log *dnsd_log_new(struct dnsd *d, struct sbx_err *err) SBX_WUR;
/** dnsd_log_free() - Close it; NULL is fine */
void dnsd_log_free(struct dnsd_log *log);
/** dnsd_log_socket() - Read packets from @fd (taken over) from now on; -1: from none, so that the kernel gives them to another */
void dnsd_log_socket(struct dnsd_log *log, int fd);

/* ---- dnsd_gate.c ---- */

/** dnsd_gate_new() - The gate of TLS names, without an interface yet; Return: NULL with @err set (INVALID_REQUEST: egress.tls_gate) */
struct dnsd_gate *dnsd_gate_new(struct dnsd *d, struct sbx_err *err) SBX_WUR;
/** dnsd_gate_free() - Close it; NULL is fine */
void dnsd_gate_free(struct dnsd_gate *g);
/** dnsd_gate_wanted() - Whether egress.tls_gate is on: the broker has an interface for @g */
bool dnsd_gate_wanted(const struct dnsd_gate *g);
/** dnsd_gate_device() - Judge the packets of @fd (taken over) from now on; -1: of none */
void dnsd_gate_device(struct dnsd_gate *g, int fd);

#endif
