/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IPv6 of the two rule sets.  The verdicts and their order are those of fw_rules.c; chains are named as there with a 6.
 *
 * No neighbour discovery passes: neighbours are permanent on both ends.  Of ICMP a sandbox may send echo requests and "not
 * reachable"; what comes back is what its connections need, "packet too big" among it.  No extension header passes.
 */
#include "config.h"

#include "runtime/broker/fw_rules_int.h"

#include "base/fault.h"
#include "base/limits.h"

#include "runtime/broker/broker_msg.h"
#include "runtime/broker/egress_plan.h"
#include "runtime/broker/links.h"

#define ECHO_HEAD_BYTES 8u

struct shown {
	char text[INET6_ADDRSTRLEN];
};

static struct shown shown(struct ip6 addr)
{
	struct shown s;

	ip6_text(addr, s.text);
	return s;
}

static void put_set(struct buf *b, const char *name, const struct ip6_prefix *list, size_t n, uint32_t min_prefix)
{
	size_t written = 0;

	buf_printf(b, "\tset %s {\n\t\ttype ipv6_addr\n\t\tflags interval\n\t\tauto-merge\n", name);
	for (size_t i = 0; i < n; i++)
		if (list[i].prefix >= min_prefix)
			buf_printf(b, "%s%s/%u", written++ ? ", " : "\t\telements = { ", shown(list[i].addr).text, list[i].prefix);
	buf_printf(b, "%s\t}\n", written ? " }\n" : "");
}

static void put_ranges(struct buf *b, const struct ip6_prefix *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_printf(b, "%s%s/%u", i ? ", " : "", shown(list[i].addr).text, list[i].prefix);
}

static void put_sets(struct buf *b, const struct fw_rules_config *c)
{
	static const char *const rates[] = {"dns_rate6", "echo_rate6", "no_rate6", "log_rate6"};

	put_set(b, "allow6", c->allow6, c->n_allow6, 0);
	put_set(b, "allow_host6", c->allow6, c->n_allow6, IP6_PREFIX_MAX);
	put_set(b, "doh6", c->doh6, c->n_doh6, 0);
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
		buf_printf(b, "\tset %s {\n\t\ttype ipv6_addr\n\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}\n", rates[i]);
	buf_printf(b,
		   "\tset host6 {\n\t\ttype ipv6_addr\n\t}\n"
		   "\tset lan6 {\n\t\ttype ipv6_addr\n\t}\n"
		   "\tmap modes6 {\n\t\ttype ipv6_addr : mark\n\t\tsize %u\n\t}\n"
		   "\tmap stamps6 {\n\t\ttype ipv6_addr : mark\n\t\tsize %u\n\t}\n"
		   "\tset current6 {\n\t\ttype ipv6_addr . mark\n\t\tsize %u\n\t}\n"
		   "\tmap rules6 {\n\t\ttype ipv6_addr . ipv6_addr . mark : mark\n\t}\n"
		   "\tset lease6 {\n\t\ttype ipv6_addr . ipv6_addr\n\t\tflags timeout\n\t}\n"
		   "\tset lease6_port {\n\t\ttype ipv6_addr . ipv6_addr . inet_service\n\t\tflags timeout\n\t}\n"
		   "\tset flows6 {\n\t\ttype ipv6_addr\n\t\tsize 65536\n\t\tflags dynamic\n\t}\n",
		   SOURCES_MAX, SOURCES_MAX, SOURCES_MAX);
}

/*
 * A source that is not the link's own has no route back through it.  From outside the default route would do for a sandbox's
 * address too: there it is named.  The fixed header says at once which header follows: anything but these three is an extension
 * header (routing, fragment, options) or a protocol that no rule opens.
 */
static void put_raw(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	buf_puts(b, "\tchain raw6 {\n");
	if (!FAULT_POINT("fw6-spoof"))
		buf_puts(b, "\t\tfib saddr . mark . iif oif missing drop\n");
	buf_printf(b,
		   "\t\tiifname \"%s\" ip6 saddr %s/%u drop\n"
		   "\t\tiifname \"%s\" accept\n",
		   c->uplink_router, shown(c->subnet6.addr).text, c->subnet6.prefix, c->uplink_router);
	if (!FAULT_POINT("fw6-headers"))
		buf_puts(b, "\t\tip6 nexthdr != { 6, 17, 58 } drop\n");
	buf_printf(b,
		   "\t\tip6 daddr ff00::/8 drop\n"
		   "\t\tip6 nexthdr 58 goto icmp6\n"
		   "\t\tudp dport 53 goto dns6\n"
		   "\t\ttcp dport 53 goto dns6\n");
	fw_rules_put_gate_raw(b, f, c);
	buf_printf(b,
		   "\t\taccept\n"
		   "\t}\n"
		   "\tchain icmp6 {\n"
		   "\t\ticmpv6 type != { 1, 128 } drop\n"
		   "\t\tip6 length > %u drop\n"
		   "\t\tupdate @echo_rate6 { ip6 saddr limit rate over %u/second burst %u packets } drop\n"
		   "\t\taccept\n"
		   "\t}\n",
		   ECHO_BYTES + ECHO_HEAD_BYTES, ECHO_PER_SECOND, ECHO_PER_SECOND * 2);
}

static void put_private(struct buf *b)
{
	size_t n;
	const struct ip6_prefix *list = ip6_private_list(&n);

	if (FAULT_POINT("fw6-private"))
		return;
	buf_puts(b, "\t\tct original ip6 daddr != @allow6 ct original ip6 daddr { ");
	put_ranges(b, list, n);
	/* Neighbours of the host have addresses of the internet; they are no more everybody's than those of 192.168.0.0/16. */
	buf_printf(b,
		   " } goto no6_%02d\n"
		   "\t\tct original ip6 daddr != @allow6 ct original ip6 daddr & ffff:ffff:ffff:ffff:: @lan6 goto no6_%02d\n",
		   BROKER_REFUSED_PRIVATE, BROKER_REFUSED_PRIVATE);
}

static const struct fw_family family6 = {
	.ip = "ip6", .chain = "6", .doh_set = "doh6", .tcp_udp = {"{ tcp, udp }"}, .dns_to_many = "",
	.fault_dns = "fw6-dns", .fault_dns_rate = "fw6-dns-rate", .put_private = put_private,
};

static void put_forward(struct buf *b, const struct fw_rules_config *c)
{
	const int r = (int)EGRESS_MODE_RULES;
	size_t n;
	const struct ip6_prefix *never = ip6_never_list(&n);

	buf_puts(b, "\tchain judge6 {\n");
	if (!FAULT_POINT("fw6-never")) {
		buf_puts(b, "\t\tct original ip6 daddr { ");
		put_ranges(b, never, n);
		buf_printf(b, " } goto no6_%02d\n", BROKER_REFUSED_METADATA);
	}
	if (!FAULT_POINT("fw6-sandbox"))
		buf_printf(b, "\t\tct original ip6 daddr %s/%u goto no6_%02d\n", shown(c->subnet6.addr).text, c->subnet6.prefix,
			   BROKER_REFUSED_SANDBOX);
	if (!FAULT_POINT("fw6-host"))
		buf_printf(b, "\t\tct original ip6 daddr @host6 ct original ip6 daddr != @allow_host6 goto no6_%02d\n", BROKER_REFUSED_HOST);
	buf_printf(b,
		   "\t\tct original protocol != { 6, 17, 58 } goto no6_%02d\n"
		   "\t\tct state new icmpv6 type != 128 goto no6_%02d\n"
		   "\t\tmeta mark set ct original ip6 saddr map @modes6\n"
		   "\t\tmeta mark vmap { %d : goto open6, %d : goto names6, %d : goto leased6, %d : goto rules6, %d : goto rules6, "
		   "%d : goto rules6 }\n"
		   "\t\tgoto no6_%02d\n"
		   "\t}\n",
		   BROKER_REFUSED_PROTOCOL, BROKER_REFUSED_PROTOCOL, EGRESS_MODE_OPEN, EGRESS_MODE_NAMES, EGRESS_MODE_LEASED,
		   r + EGRESS_MODE_OPEN, r + EGRESS_MODE_NAMES, r + EGRESS_MODE_LEASED, BROKER_REFUSED_CLOSED);
	buf_printf(b,
		   "\tchain inbound6 {\n"
		   "\t\tip6 daddr . ct mark @current6 accept\n"
		   "\t\tct state established,related goto judge6\n"
		   "\t}\n"
		   "\tchain forward6 {\n");
	fw_rules_put_gate_forward(b, &family6, c);
	buf_printf(b, "\t\tiifname \"%s\" goto inbound6\n", c->uplink_router);
	if (!FAULT_POINT("fw6-sandbox"))
		buf_printf(b, "\t\toifname != \"%s\" goto no6_%02d\n", c->uplink_router, BROKER_REFUSED_SANDBOX);
	buf_puts(b, "\t\tip6 saddr . ct mark @current6 accept\n");
	if (!FAULT_POINT("fw6-related"))
		buf_printf(b, "\t\tct state related goto no6_%02d\n", BROKER_REFUSED_PROTOCOL);
	buf_puts(b,
		 "\t\tgoto judge6\n"
		 "\t}\n"
		 /* Its own listener reports go to nobody. */
		 "\tchain output6 {\n"
		 "\t\ttype filter hook output priority raw; policy accept;\n"
		 "\t\tip6 daddr ff00::/8 drop\n"
		 "\t}\n");
}

void fw_rules6_router(struct buf *b, const struct fw_rules_config *c)
{
	put_sets(b, c);
	put_raw(b, &family6, c);
	fw_rules_put_dns(b, &family6, shown(links_router6(&c->subnet6)).text, c);
	fw_rules_put_refusals(b, &family6, c);
	fw_rules_put_modes(b, &family6, c);
	fw_rules_put_rules(b, &family6, c);
	fw_rules_put_gate(b, &family6, c);
	put_forward(b, c);
}

void fw_rules6_host_sets(struct buf *b, const struct fw_rules_config *c)
{
	put_set(b, "allow_host6", c->allow6, c->n_allow6, IP6_PREFIX_MAX);
}

void fw_rules6_host_prerouting(struct buf *b, const struct fw_rules_config *c)
{
	struct shown subnet = shown(c->subnet6.addr);

	buf_printf(b,
		   "\t\tiifname \"%s\" ip6 saddr != %s/%u drop\n"
		   "\t\tiifname \"%s\" meta nfproto != { ipv4, ipv6 } drop\n"
		   "\t\tiifname != \"%s\" ip6 saddr %s/%u drop\n",
		   c->uplink_host, subnet.text, c->subnet6.prefix, c->uplink_host, c->uplink_host, subnet.text, c->subnet6.prefix);
}
