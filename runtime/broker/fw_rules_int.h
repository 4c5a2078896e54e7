/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the texts of the rules share
 *
 * fw_rules.c has the tables and what is of IPv4 only, fw_rules6.c what network.ipv6 adds, fw_rules_chains.c the chains that both
 * have alike.  They are printed for each: a word of an IPv4 packet means nothing in an IPv6 one.
 */
#ifndef RUNTIME_FW_RULES_INT_H
#define RUNTIME_FW_RULES_INT_H

#include "base/buf.h"
#include "runtime/broker/fw_rules.h"

#define DNS_DEFAULT_PER_SECOND 400u
#define ECHO_BYTES	       1400u
#define ECHO_PER_SECOND	       10u
#define LOGS_PER_SECOND	       20u
#define REFUSALS_PER_SECOND    200u /* by ICMP, a sandbox; the kernel sends 1,000 in all by default */
#define SOURCES_MAX	       8192u /* four times LIMIT_SANDBOXES: what is deleted counts until its transaction ends */

struct fw_family {
	const char *ip;		    /* selects a packet's addresses */
	const char *chain;	    /* ends the names of its chains and sets */
	const char *doh_set;
	const char *tcp_udp[2];	    /* one rule for each word */
	const char *dns_to_many;    /* rule of lookups sent to no single address, or "" */
	const char *fault_dns, *fault_dns_rate;
	void (*put_private)(struct buf *b); /* refuses what is never the internet unless network.allow_private has it */
};

/** fw_rules_put_dns() - Append to @b the chains of lookups of family @f: @name_server is its own address, @c has the rate */
void fw_rules_put_dns(struct buf *b, const struct fw_family *f, const char *name_server, const struct fw_rules_config *c);
/** fw_rules_put_refusals() - Append to @b the chains that refuse, one for each reason; @f: the family, @c: names the uplink */
void fw_rules_put_refusals(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c);
/** fw_rules_put_modes() - Append to @b what modes and leases of family @f lead to; @c says whether QUIC is let through */
void fw_rules_put_modes(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c);
/** fw_rules_put_rules() - Append to @b what the rules of a policy lead to; @f: the family, @c says whether there is a gate */
void fw_rules_put_rules(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c);
/** fw_rules_put_gate() - With c->gate, append to @b the chains of the gate of TLS names for the family @f */
void fw_rules_put_gate(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c);
/** fw_rules_put_gate_raw() - Append to @b, within the chain of new packets of @f, what leads to the gate if @c has one */
void fw_rules_put_gate_raw(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c);
/** fw_rules_put_gate_forward() - Append to @b, within the chain of forwarded packets of @f, the way to the gate and back if @c has one */
void fw_rules_put_gate_forward(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c);
/** fw_rules_put_gate_hook() - Append to @b the chain that leads tracked packets to the gate if @c has one, for all families */
void fw_rules_put_gate_hook(struct buf *b, const struct fw_rules_config *c);
/** fw_rules6_router() - Append sets and chains of the router's table to @b; `raw6` and `forward6` are where packets come in */
void fw_rules6_router(struct buf *b, const struct fw_rules_config *c);
/** fw_rules6_host_sets() - Append the sets of the host's table to @b */
void fw_rules6_host_sets(struct buf *b, const struct fw_rules_config *c);
/** fw_rules6_host_prerouting() - Append to @b what the host refuses to believe about sources */
void fw_rules6_host_prerouting(struct buf *b, const struct fw_rules_config *c);

#endif
