/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the address rules of a policy mean, once for the kernel and once for ourselves
 *
 * Between rules tiers decide: operator deny, operator allow, user deny, user allow.  A plan holds one node for each address
 * and prefix that a rule names, with the decision that all rules covering it give together; so the longest node that holds
 * an address is the whole answer, and the kernel finds it with one hash lookup a prefix length (fwset.h).  A node whose
 * rules name ports points to a list of ports with a decision each and one for the rest.
 *
 * Pure: no system calls, no globals.
 */
#ifndef RUNTIME_EGRESS_PLAN_H
#define RUNTIME_EGRESS_PLAN_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values are data of the kernel's maps; those of the router's rule text in fw_rules.c must be the same. */
enum egress_decision {
	EGRESS_DECISION_NONE = 0,
	EGRESS_DECISION_PASS,	       /* all ports but 853 */
	EGRESS_DECISION_DENY_OPERATOR,
	EGRESS_DECISION_DENY_USER,
	EGRESS_DECISION_NEXT,	       /* as if there were no rule */
	EGRESS_DECISION_PASS_PORT,     /* this port, also 853 */
	EGRESS_DECISION_NEXT_PORT,     /* as NEXT, but a refusal says that another port is open */
	EGRESS_DECISION_LIST = 256,    /* this and above: number of a list of ports */
};

enum egress_mode {
	EGRESS_MODE_NONE = 0, /* closed */
	EGRESS_MODE_OPEN,     /* default allow, no rules by name */
	EGRESS_MODE_NAMES,    /* default allow, rules by name: nothing may get round them */
	EGRESS_MODE_LEASED,   /* default deny */
};
#define EGRESS_MODE_RULES 16u /* added: it has nodes */

#define EGRESS_LIST_MAX	 256u /* lists of ports in one policy */
#define EGRESS_STEPS_MAX 256u /* ports in one list */

struct egress_node {
	uint32_t addr; /* host byte order, host bits 0 */
	uint32_t prefix;
	uint32_t decision; /* enum egress_decision, or a list's number */
};

struct egress_node6 {
	struct ip6_prefix net;
	uint32_t decision;
};

struct egress_port {
	uint32_t list;
	uint32_t port; /* 0: all others, and echo requests */
	uint32_t decision;
};

struct egress_plan {
	struct egress_node *node; /* owned; by prefix, then address */
	size_t n_nodes;
	struct egress_node6 *node6; /* owned; as node, of the rules for IPv6 */
	size_t n_nodes6;
	struct egress_port *port; /* owned; by list, then port */
	size_t n_ports;
};

/**
 * egress_plan_make() - Work out the nodes of a policy
 * @rule:	The rules; values were checked by broker_decode()
 * @n:		At most BROKER_POLICY_RULES
 * @ret:	Filled; egress_plan_clear() it
 * @err:	Filled: LIMIT (too many ports or lists), NO_MEMORY
 *
 * Return: 0, or -1 with @err set and @ret empty
 */
int egress_plan_make(const struct broker_ip_rule *rule, size_t n, struct egress_plan *ret, struct sbx_err *err) SBX_WUR;
/** egress_plan_clear() - Free what @plan holds and make it empty */
void egress_plan_clear(struct egress_plan *plan);

/**
 * egress_plan_decide() - What the rules of a plan say of one flow
 * @plan:	The plan
 * @addr:	Far end, host byte order
 * @protocol:	IPPROTO_*
 * @port:	Far port; 0 for echo requests
 *
 * Return: PASS, DENY_OPERATOR, DENY_USER, NEXT, PASS_PORT or NEXT_PORT
 */
enum egress_decision egress_plan_decide(const struct egress_plan *plan, uint32_t addr, unsigned protocol, uint16_t port);
/** egress_plan_decide6() - egress_plan_decide() for an IPv6 address */
enum egress_decision egress_plan_decide6(const struct egress_plan *plan, struct ip6 addr, unsigned protocol, uint16_t port);
/** egress_plan_names6() - egress_plan_names() for an IPv6 address */
bool egress_plan_names6(const struct egress_plan *plan, struct ip6 addr);
/** egress_plan_names() - Whether some rule of @plan that allows covers @addr, so that a private address may be leased too */
bool egress_plan_names(const struct egress_plan *plan, uint32_t addr);

#endif
