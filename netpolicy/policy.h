/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the rules of one sandbox, and what they say
 *
 * A policy is a list of rules and a default.  policy_new(), policy_add() for each rule in order, policy_seal(), and then it
 * never changes: a change makes a new one.
 *
 * Names: the first rule in order that matches decides; an exact name and a wildcard have the same rank.  "*.a.test" matches
 * everything below a.test and not a.test.  No rule matches: the default.
 * Addresses: tiers decide, not the order: operator deny, operator allow, user deny, user allow, default; within a tier any
 * rule that covers the address counts, and the one named in a verdict is the first of them.
 * Ports: an allow rule without ports opens all TCP and UDP ports but 853; with ports only these.  A deny has none.
 *
 * A look-up takes no memory and at most one probe per label; its cost does not grow with the number of rules.  The hash is
 * seeded with random bytes, so that who writes the rules cannot make them collide.
 */
#ifndef NETPOLICY_POLICY_H
#define NETPOLICY_POLICY_H

#include "base/err.h"
#include "netpolicy/egress_msg.h"
#include "netpolicy/target.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_PORT_DOT 853u

struct policy_ports {
	uint16_t first, last;
};

struct policy_rule {
	enum egress_rule_kind kind;
	uint32_t flags; /* enum egress_rule_flags */
	const char *name; /* DOMAIN, WILDCARD (without "*."): canonical; else "" */
	uint32_t addr;	  /* IPV4: host byte order, host bits 0 */
	uint8_t addr6[16]; /* IPV6: host bits 0 */
	uint8_t prefix;	   /* IPV4, IPV6: bits */
	uint8_t n_ports;   /* 0: all but 853 */
	const struct policy_ports *ports;
	const char *text; /* as the client wrote it, without blanks around */
};

struct policy;

struct policy_verdict {
	bool allow;
	uint32_t rule; /* index in the policy, or EGRESS_NO_RULE */
	enum egress_reason reason;
};

/** policy_new() - An empty policy with a default; Return: policy_free() it; NULL when out of memory */
struct policy *policy_new(bool default_allow);
/** policy_free() - Release @p; NULL is fine */
void policy_free(struct policy *p);
/**
 * policy_add() - Append a copy of a rule
 * @p:		Not yet sealed
 * @rule:	What it points to is copied
 * @err:	Filled on failure: LIMIT, NO_MEMORY, INVALID_REQUEST (ports of a deny, too many or reversed ports)
 *
 * Return: 0, or -1 with @err set
 */
int policy_add(struct policy *p, const struct policy_rule *rule, struct sbx_err *err) SBX_WUR;
/** policy_rule_set() - Make @ret a rule for @target that was written as @text, with @flags; it borrows from both */
void policy_rule_set(struct policy_rule *ret, const struct target *target, const char *text, uint32_t flags);
/** policy_seal() - Build the index of @p; Return: 0, or -1 with @err set (NO_MEMORY) */
int policy_seal(struct policy *p, struct sbx_err *err) SBX_WUR;
/** policy_count() - Rules of @p */
uint32_t policy_count(const struct policy *p);
/** policy_at() - Rule @index of @p, in order; valid as long as @p */
const struct policy_rule *policy_at(const struct policy *p, uint32_t index);
/** policy_default_allow() - What happens where no rule matches */
bool policy_default_allow(const struct policy *p);

/**
 * policy_decide_name() - May this name be resolved?
 * @p:		Sealed
 * @name:	Canonical form (fqdn_canonical())
 * @len:	Its length; 0 (the root, or a name without canonical form) matches no rule
 *
 * Return: the verdict; its reason is RULE or DEFAULT
 */
struct policy_verdict policy_decide_name(const struct policy *p, const char *name, size_t len);

/** policy_rule_port() - Whether the allow rule @rule opens @port; 853 only when it is named */
bool policy_rule_port(const struct policy_rule *rule, uint16_t port);

/* What the host adds to the rules of every sandbox.  All ranges are IPv4, host byte order. */
struct policy_range {
	uint32_t addr, prefix;
};
struct policy_guards {
	const struct policy_range *host; /* addresses of the host; open to rules are those that private_allowed names alone */
	size_t n_host;
	const struct policy_range *sandboxes;
	size_t n_sandboxes;
	const struct policy_range *private_allowed; /* network.allow_private */
	size_t n_private_allowed;
	bool quic; /* UDP to 443 and 80 passes also under rules for names */
	const struct policy_range *doh; /* DNS over HTTPS: closed at port 443 where all is allowed and rules for names deny */
	size_t n_doh;
	const struct ip6 *host6;
	size_t n_host6;
	const struct ip6 *lan6; /* networks of the host, 64 bits: closed until named, as private ranges are */
	size_t n_lan6;
	const struct ip6_prefix *sandboxes6; /* NULL: sandboxes have no IPv6, and reach none of it */
	const struct ip6_prefix *private_allowed6;
	size_t n_private_allowed6;
	const struct ip6_prefix *doh6;
	size_t n_doh6;
};

/**
 * policy_guard() - What is denied at this address whatever the rules say
 * @guards:	The host's; NULL: only what is denied everywhere
 * @addr:	IPv4, host byte order
 *
 * Return: METADATA (also loopback, multicast, this-network, broadcast), HOST, SANDBOX, or NONE
 */
enum egress_reason policy_guard(const struct policy_guards *guards, uint32_t addr);
/** policy_guard6() - policy_guard() for an IPv6 address */
enum egress_reason policy_guard6(const struct policy_guards *guards, struct ip6 addr);
/** policy_is_private() - Whether @addr lies in a private or shared range that is closed unless a rule or the configuration names it */
bool policy_is_private(uint32_t addr);

struct policy_flow {
	uint32_t addr; /* IPv4, host byte order; 0: addr6 */
	uint16_t port;
	uint8_t protocol;    /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP */
	uint32_t lease_rule; /* name rule that opened this address, EGRESS_NO_RULE: none */
	struct ip6 addr6;
};

/**
 * policy_decide_addr() - May this flow pass?  The plain statement of what the packet filter does
 * @p:		Sealed
 * @guards:	The host's; NULL: only what is denied everywhere
 * @flow:	Address, port and the lease
 *
 * Order: guards, operator deny, operator allow, user deny, user allow, lease, private ranges, default.  Where rules name names,
 * what would get round them is denied: QUIC to what a name opened, port 853 where no rule says it, both under a default allow,
 * and there port 443 of the DoH addresses.
 *
 * Return: the verdict
 */
struct policy_verdict policy_decide_addr(const struct policy *p, const struct policy_guards *guards, const struct policy_flow *flow);

/**
 * policy_addr_decides() - Whether rules for addresses decide, whichever way, so that no name matters
 * @p:		Sealed
 * @addr:	IPv4, host byte order; 0: @addr6
 * @addr6:	IPv6
 * @port:	Of TCP; an allow rule for other ports decides nothing
 *
 * Return: whether one does, after what policy_guard() never lets through
 */
bool policy_addr_decides(const struct policy *p, uint32_t addr, struct ip6 addr6, uint16_t port);
/** policy_addr_named() - Whether an allow rule of addresses covers @addr, so that a name may lead there even if it is private */
bool policy_addr_named(const struct policy *p, uint32_t addr);

/**
 * policy_leads_to() - May a name that is allowed lead to this address?
 * @p:		Sealed; NULL: none
 * @guards:	The host's
 * @addr:	IPv4, host byte order
 *
 * Return: NONE, or why the address is taken out of the answer: what policy_guard() says, or PRIVATE where neither the
 * configuration nor a rule names it
 */
enum egress_reason policy_leads_to(const struct policy *p, const struct policy_guards *guards, uint32_t addr);
/** policy_leads_to6() - policy_leads_to() for an IPv6 address; forms of IPv4 addresses and NAT64 are METADATA */
enum egress_reason policy_leads_to6(const struct policy *p, const struct policy_guards *guards, struct ip6 addr);

/** policy_reason_name() - "rule", "default", "metadata" ... as events show it; "unknown" for what is none */
const char *policy_reason_name(enum egress_reason reason);

#endif
