/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chains that IPv4 and IPv6 have alike, printed from a family's words: lookups of names, refusals, and what modes, rules and
 * leases lead to.  Where packets come in and what is never reached differs, and stands with its family.
 */
#include "config.h"

#include "runtime/broker/fw_rules_int.h"

#include <stdio.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/limits.h"

#include "runtime/broker/broker_msg.h"
#include "runtime/broker/egress_plan.h"
#include "runtime/broker/links.h"

/*
 * Names are asked of the name server, whichever address a sandbox with a policy asks: routes for LINKS_NAMES_MARK deliver it here
 * as it came, so that the answer has the asked address as its source.  Nothing of it is tracked: a flood leaves nothing behind.
 * A sandbox without a policy asks whom it wants; one whose policy has not come is refused with all else.
 */
void fw_rules_put_dns(struct buf *b, const struct fw_family *f, const char *name_server, const struct fw_rules_config *c)
{
	uint32_t rate = FAULT_POINT(f->fault_dns_rate) ? 10000000 : c->dns_per_second ? c->dns_per_second : DNS_DEFAULT_PER_SECOND;

	buf_printf(b, "\tchain dns%s {\n\t\t%s daddr %s goto dns%s_ours\n", f->chain, f->ip, name_server, f->chain);
	if (!FAULT_POINT(f->fault_dns))
		buf_printf(b,
			   "%s"
			   "\t\tmeta mark set %s saddr map @modes%s\n"
			   "\t\tmeta mark != { %u, %d } goto dns%s_ours\n"
			   "\t\tmeta mark set %u\n",
			   f->dns_to_many, f->ip, f->chain, LINKS_ROUTE_MARK, EGRESS_MODE_OPEN, f->chain, LINKS_ROUTE_MARK);
	buf_printf(b,
		   "\t\taccept\n"
		   "\t}\n"
		   "\tchain dns%s_ours {\n"
		   "\t\tmeta mark set %u\n"
		   "\t\tmeta l4proto udp update @dns_rate%s { %s saddr limit rate over %u/second burst %u packets } drop\n"
		   "\t\ttcp flags & (syn|ack) == syn update @dns_rate%s { %s saddr limit rate over %u/second burst %u packets } drop\n"
		   "\t\tnotrack\n"
		   "\t\taccept\n"
		   "\t}\n",
		   f->chain, LINKS_NAMES_MARK, f->chain, f->ip, rate, rate * 5 / 2, f->chain, f->ip, rate, rate * 5 / 2);
}

/* One chain for each reason, so that the log says it.  What the far side of a revoked flow still sends is reset, not logged. */
void fw_rules_put_refusals(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	const char *n = f->chain;

	buf_printf(b,
		   "\tchain no%s {\n"
		   "\t\tmeta mark set %u\n"
		   "\t\tmeta l4proto tcp reject with tcp reset\n"
		   "\t\tupdate @no_rate%s { %s saddr limit rate over %u/second burst %u packets } drop\n"
		   "\t\treject with icmpx type admin-prohibited\n"
		   "\t}\n",
		   n, LINKS_ROUTE_MARK, n, f->ip, REFUSALS_PER_SECOND, REFUSALS_PER_SECOND);
	for (unsigned reason = BROKER_REFUSED_NONE + 1; reason < BROKER_REFUSED_COUNT; reason++)
		buf_printf(b,
			   "\tchain no%s_%02u {\n"
			   "\t\tiifname \"%s\" goto no%s\n"
			   "\t\tupdate @log_rate%s { %s saddr limit rate over %u/second burst %u packets } goto no%s\n"
			   "\t\tlog prefix \"sbx%02u\" group %u snaplen %u\n"
			   "\t\tgoto no%s\n"
			   "\t}\n",
			   n, reason, c->uplink_router, n, n, f->ip, LOGS_PER_SECOND, LOGS_PER_SECOND * 2, n, reason, BROKER_LOG_GROUP,
			   BROKER_LOG_BYTES, n);
}

/* Jumps, with the word of the flow: `ct original` is the same whichever way this packet goes. */
static void put_port(struct buf *b, const struct fw_family *f, const char *what, unsigned reason)
{
	for (size_t i = 0; i < ARRAY_SIZE(f->tcp_udp) && f->tcp_udp[i]; i++)
		buf_printf(b, "\t\tmeta l4proto %s ct original proto-dst %s goto no%s_%02u\n", f->tcp_udp[i], what, f->chain, reason);
}

static void put_no_dot(struct buf *b, const struct fw_family *f)
{
	put_port(b, f, "853", BROKER_REFUSED_DOT);
}

static void put_no_quic(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	if (!c->quic)
		buf_printf(b, "\t\tmeta l4proto udp ct original proto-dst { 80, 443 } goto no%s_%02d\n", f->chain, BROKER_REFUSED_QUIC);
}

static void put_leases(struct buf *b, const struct fw_family *f)
{
	buf_printf(b, "\t\tct original %s saddr . ct original %s daddr @lease%s goto lease_pass%s\n", f->ip, f->ip, f->chain, f->chain);
	for (size_t i = 0; i < ARRAY_SIZE(f->tcp_udp) && f->tcp_udp[i]; i++)
		buf_printf(b, "\t\tmeta l4proto %s ct original %s saddr . ct original %s daddr . ct original proto-dst @lease%s_port goto port_pass%s\n",
			   f->tcp_udp[i], f->ip, f->ip, f->chain, f->chain);
}

/* What a sandbox's mode and rules lead to; chains come before those that go to them. */
void fw_rules_put_modes(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	/* What is not opened by a name need not be judged by one. */
	const char *n = f->chain, *known = c->gate ? "known" : "pass";
	char doh[64];

	buf_printf(b,
		   "\tchain pass%s {\n"
		   "\t\tct state new add @flows%s { %s saddr ct count over %u } goto no%s_%02d\n"
		   "\t\tct mark set ct original %s saddr map @stamps%s\n"
		   "\t\taccept\n"
		   "\t}\n"
		   "\tchain rule_pass%s {\n",
		   n, n, f->ip, LIMIT_FLOWS, n, BROKER_REFUSED_LIMIT, f->ip, n, n);
	put_no_dot(b, f);
	buf_printf(b, "\t\tgoto %s%s\n\t}\n\tchain port_pass%s {\n", known, n, n);
	put_no_quic(b, f, c);
	buf_printf(b, "\t\tgoto pass%s\n\t}\n\tchain lease_pass%s {\n", n, n);
	put_no_quic(b, f, c);
	put_no_dot(b, f);
	buf_printf(b, "\t\tgoto pass%s\n\t}\n\tchain open%s {\n", n, n);
	f->put_private(b);
	buf_printf(b, "\t\tgoto %s%s\n\t}\n\tchain names%s {\n", known, n, n);
	put_leases(b, f);
	f->put_private(b);
	put_no_quic(b, f, c);
	put_no_dot(b, f);
	snprintf(doh, sizeof(doh), "443 ct original %s daddr @%s", f->ip, f->doh_set);
	put_port(b, f, doh, BROKER_REFUSED_DOH);
	buf_printf(b, "\t\tgoto pass%s\n\t}\n\tchain leased%s {\n", n, n);
	put_leases(b, f);
	f->put_private(b);
	buf_printf(b, "\t\tgoto no%s_%02d\n\t}\n\tchain leased_port%s {\n", n, BROKER_REFUSED_NO_LEASE, n);
	put_leases(b, f);
	buf_printf(b, "\t\tgoto no%s_%02d\n\t}\n", n, BROKER_REFUSED_PORT);
}

/* The mark of the packet is where a map's word is kept; `no` puts the routing mark back. */
void fw_rules_put_rules(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	static const char *const base[][2] = {{"base", "leased"}, {"base_port", "leased_port"}};
	const int r = (int)EGRESS_MODE_RULES;
	const char *n = f->chain;

	for (size_t i = 0; i < ARRAY_SIZE(base); i++)
		buf_printf(b,
			   "\tchain %s%s {\n"
			   "\t\tmeta mark set ct original %s saddr map @modes%s\n"
			   "\t\tmeta mark vmap { %d : goto open%s, %d : goto names%s, %d : goto %s%s }\n"
			   "\t\tgoto no%s_%02d\n"
			   "\t}\n",
			   base[i][0], n, f->ip, n, r + EGRESS_MODE_OPEN, n, r + EGRESS_MODE_NAMES, n, r + EGRESS_MODE_LEASED, base[i][1], n,
			   n, BROKER_REFUSED_CLOSED);
	buf_printf(b,
		   "\tchain decided%s {\n"
		   "\t\tmeta mark vmap { %d : goto rule_pass%s, %d : goto no%s_%02d, %d : goto no%s_%02d, %d : goto base%s, %d : goto %s%s, "
		   "%d : goto base_port%s }\n"
		   "\t\tgoto no%s_%02d\n"
		   "\t}\n",
		   n, EGRESS_DECISION_PASS, n, EGRESS_DECISION_DENY_OPERATOR, n, BROKER_REFUSED_RULE_OPERATOR, EGRESS_DECISION_DENY_USER, n,
		   BROKER_REFUSED_RULE_USER, EGRESS_DECISION_NEXT, n, EGRESS_DECISION_PASS_PORT, c->gate ? "known" : "pass", n, EGRESS_DECISION_NEXT_PORT, n, n,
		   BROKER_REFUSED_CLOSED);
	buf_printf(b,
		   "\tchain lists%s {\n\t}\n"
		   "\tchain decide%s {\n"
		   "\t\tmeta mark < %d goto decided%s\n"
		   "\t\tgoto lists%s\n"
		   "\t}\n"
		   "\tchain rules%s {\n\t}\n",
		   n, n, EGRESS_DECISION_LIST, n, n, n);
}
