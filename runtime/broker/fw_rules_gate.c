/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of the gate of TLS names.  What a sandbox with rules for names sends to port 443 gets LINKS_GATE_MARK, and so leads to
 * LINKS_GATE, until its connection carries the label: which it gets with the packet that sandbox-dnsd writes back with
 * BROKER_GATE_RELEASE, or with its first packet when a rule for addresses opens it or there are no rules for names.
 *
 * A SYN passes the gate before connection tracking, the rest behind it: nothing is tracked that no rule has opened yet.  What comes
 * back from the gate meets the chain `forward` as any packet does.  Without a reader of LINKS_GATE nothing passes.
 */
#include "config.h"

#include "runtime/broker/fw_rules_int.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/limits.h"

#include "runtime/broker/broker_msg.h"
#include "runtime/broker/egress_plan.h"
#include "runtime/broker/links.h"

#define GATE_LABEL 1 /* bit of the connection's label: it is released */
#define OVER_LABEL 2 /* its ports were used again: nothing of its client passes any more */
#define GATE_PORT  443
#define HOPS	   64 /* of what passed: how far it gets is not the sandbox's to choose */

static const char *hops_of(const struct fw_family *f)
{
	return *f->chain ? "hoplimit" : "ttl";
}

void fw_rules_put_gate(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	static const char *const kinds[] = {"syn", "more"};
	const int r = (int)EGRESS_MODE_RULES;
	const char *n = f->chain;

	if (!c->gate)
		return;
	buf_printf(b,
		   "\tset gate_rate%s {\n\t\ttype %s_addr\n\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}\n"
		   "\tchain gate_out%s {\n"
		   "\t\tmeta mark set %u\n"
		   "\t\tupdate @gate_rate%s { %s saddr limit rate over %u/second burst %u packets } drop\n"
		   "\t\taccept\n"
		   "\t}\n",
		   n, *n ? "ipv6" : "ipv4", n, LINKS_GATE_MARK, n, f->ip, LIMIT_GATE_PACKETS, LIMIT_GATE_PACKETS);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		buf_printf(b,
			   "\tchain gate_%s%s {\n"
			   "\t\tmeta mark set %s saddr map @modes%s\n"
			   "\t\tmeta mark { %d, %d, %d, %d } %sgoto gate_out%s\n"
			   "\t\tmeta mark set %u\n"
			   "\t\taccept\n"
			   "\t}\n",
			   kinds[i], n, f->ip, n, EGRESS_MODE_NAMES, EGRESS_MODE_LEASED, r + EGRESS_MODE_NAMES, r + EGRESS_MODE_LEASED,
			   i ? "" : "notrack ", n, LINKS_ROUTE_MARK);
	/* On the way through the router a hop is counted before the hook of `forward`. */
	buf_printf(b,
		   "\tchain gate_in%s {\n"
		   "\t\t%s %s %d goto no%s\n"
		   "\t\t%s %s set %d\n"
		   "\t}\n"
		   "\tchain known%s {\n"
		   "\t\tct label set %d\n"
		   "\t\tgoto pass%s\n"
		   "\t}\n",
		   n, f->ip, hops_of(f), BROKER_GATE_DENY - 1, n, f->ip, hops_of(f), HOPS, n, GATE_LABEL, n);
}

void fw_rules_put_gate_raw(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	if (c->gate)
		buf_printf(b, "\t\ttcp dport %d tcp flags & (fin|syn|rst|ack) == syn goto gate_syn%s\n", GATE_PORT, f->chain);
}

void fw_rules_put_gate_forward(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	if (c->gate)
		buf_printf(b, "\t\toifname \"" LINKS_GATE "\" meta mark %u accept\n\t\tiifname \"" LINKS_GATE "\" jump gate_in%s\n", LINKS_GATE_MARK,
			   f->chain);
}

void fw_rules_put_gate_hook(struct buf *b, const struct fw_rules_config *c)
{
	if (!c->gate || FAULT_POINT("fw-gate"))
		return;
	/*
	 * Connection tracking lets a SYN of ports that it knows pass, and takes the answer for its old connection's, with its label: when the
	 * server reset that one, say.  Where it agrees that the ports are free it has made a new one by here.  A SYN that is sent again needs
	 * no way when the server has answered the first.  Another one, with which sandbox-dnsd began its record of the flow, ends the old
	 * connection: else what follows of that one, or is on its way here already, would be read as the beginning of this one.
	 */
	const bool again = FAULT_POINT("fw-gate-again"), over = FAULT_POINT("fw-gate-over"); /* no guard: a test's */
	buf_printf(b,
		   "\tchain gate_again {\n"
		   "\t\tip ttl %d ct label set %d\n"
		   "\t\tip6 hoplimit %d ct label set %d\n"
		   "\t\tdrop\n"
		   "\t}\n"
		   "\tchain gate_back {\n"
		   "\t\tct label %d drop\n"
		   "%s"
		   "\t\tip ttl %d ct label set %d\n"
		   "\t\tip6 hoplimit %d ct label set %d\n"
		   "\t\taccept\n"
		   "\t}\n"
		   "\tchain gate {\n"
		   "\t\ttype filter hook prerouting priority mangle; policy accept;\n"
		   "\t\tiifname \"" LINKS_GATE "\" goto gate_back\n"
		   "\t\tiifname { \"lo\", \"%s\" } accept\n"
		   "\t\tmeta mark != %u accept\n"
		   "\t\tmeta l4proto != tcp accept\n"
		   "\t\ttcp dport != %d accept\n"
		   "\t\tct label %d drop\n"
		   "\t\tct label %d accept\n"
		   "\t\tct state invalid drop\n"
		   "%s"
		   "\t\tgoto gate_more\n"
		   "\t}\n",
		   over ? 0 : BROKER_GATE_BEGIN, OVER_LABEL, over ? 0 : BROKER_GATE_BEGIN, OVER_LABEL, OVER_LABEL,
		   again ? "" : "\t\ttcp flags & (fin|syn|rst|ack) == syn ct state established goto gate_again\n", BROKER_GATE_RELEASE, GATE_LABEL,
		   BROKER_GATE_RELEASE, GATE_LABEL, c->uplink_router, LINKS_ROUTE_MARK, GATE_PORT, OVER_LABEL, GATE_LABEL,
		   c->ipv6 ? "\t\tmeta nfproto ipv6 goto gate_more6\n" : "");
}
