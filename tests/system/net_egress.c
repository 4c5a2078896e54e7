// SPDX-License-Identifier: Apache-2.0
/*
 * The packet half of egress policies: what a sandbox reaches under a policy, what it does not, and what happens to live flows when
 * the policy changes.  Rows carry the numbers of the contract's table.  SBX_FAULT=NAME:fail takes a guard away:
 * egress-cut (sockets of revoked flows), fw-dns (questions to any name server are ours), fw-fragments, fw-echo-size,
 * fw-dns-rate.
 */
#include "tests/system/egress_world.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DENY  0u
#define ALLOW BROKER_RULE_ALLOW
#define OPER  BROKER_RULE_OPERATOR
#define MIN   60000u

static struct btc t;
static struct world w;
static bool quick; /* EGRESS_QUICK: an emulated machine; fewer rounds, no times */

static bool refused(int e)
{
	return e == ECONNREFUSED || e == EHOSTUNREACH || e == EACCES || e == ENETUNREACH || e == ECONNRESET;
}

#define is_refused(e, ...) is_refused_((e), __LINE__, __VA_ARGS__)
__attribute__((format(printf, 3, 4))) static void is_refused_(int e, int line, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!ok(refused(e), "%s: refused at once", text))
		printf("# line %d: %s\n", line, e ? strerror(e) : "reached");
}

static void elements(char *out, size_t size)
{
	world_run(w.router_fd, "for s in modes stamps rules ports; do nft list map inet sandboxd $s; done; "
		  "for s in current lease lease_port; do nft list set inet sandboxd $s; done", out, size);
}

static unsigned mentions(const struct box *box)
{
	static char out[1 << 16];
	char addr[16];
	unsigned n = 0;
	struct in_addr in = {htonl(box->made.addr)};

	elements(out, sizeof(out));
	snprintf(addr, sizeof(addr), "%s ", inet_ntoa(in));
	for (const char *p = out; (p = strstr(p, addr)); p += strlen(addr))
		n++;
	return n;
}

/* ---- who reaches what ---- */

static void without_policy(void)
{
	struct box box;

	if (!ok(box_make(&w, &box, false) == 0, "94: a sandbox whose policy has not come"))
		return;
	is_refused(tcp_try(&w, box.net_fd, A_OK, 80, NULL), "94: its first packet");
	is_refused(udp_try(&w, box.net_fd, A_OK, 53), "94: by UDP");
	is_refused(ping_try(&w, box.net_fd, A_OK, 8), "94: by an echo request");
	ok(mentions(&box) == 0, "94: the kernel has nothing for it");
	ok(policy_set(&w, &box, BROKER_POLICY_DEFAULT_ALLOW, NULL, 0, NULL) == 0, "default allow comes");
	ok(tcp_try(&w, box.net_fd, A_OK, 80, NULL) == 0, "and it reaches the world");
	box_end(&w, &box);
}

static void default_deny(struct box *box)
{
	ok(policy_set(&w, box, 0, NULL, 0, NULL) == 0, "default deny");
	world_seen(&w, 0);
	is_refused(tcp_try(&w, box->net_fd, A_OK, 80, NULL), "71: TCP by address");
	is_refused(udp_try(&w, box->net_fd, A_OK, 5432), "71: UDP by address");
	is_refused(ping_try(&w, box->net_fd, A_OK, 8), "71: an echo request");
	is_refused(udp_try(&w, box->net_fd, A_OK, 443), "71: QUIC by address");
	is_refused(tcp_try(&w, box->net_fd, A_DOH, 443, NULL), "71: DNS over HTTPS by address");
	is_refused(tcp_try(&w, box->net_fd, A_DOH, 853, NULL), "71: DNS over TLS by address");
	ok(udp_quiet(&w, box->net_fd, A_DOH, 53) != 0, "71: another name server is not reached");
	ok(world_seen(&w, A_OK) == 0, "71: nothing arrived");
}

static void leases(struct box *box)
{
	ok(pin_set(&w, box, BROKER_OP_PIN, A_OK, 0, MIN) == 0, "80: an address is leased");
	ok(tcp_try(&w, box->net_fd, A_OK, 80, NULL) == 0, "80: its port 80 is open");
	ok(tcp_try(&w, box->net_fd, A_OK, 22, NULL) == 0, "80: its port 22 too");
	ok(udp_try(&w, box->net_fd, A_OK, 5432) == 0, "80: and UDP");
	ok(ping_try(&w, box->net_fd, A_OK, 8) == 0, "80: and echo requests");
	is_refused(tcp_try(&w, box->net_fd, A_OK, 853, NULL), "80: TCP 853");
	is_refused(udp_try(&w, box->net_fd, A_OK, 853), "80: UDP 853");
	is_refused(udp_try(&w, box->net_fd, A_OK, 443), "80: UDP 443");
	is_refused(udp_try(&w, box->net_fd, A_OK, 80), "80: UDP 80");
	is_refused(tcp_try(&w, box->net_fd, A_OTH, 80, NULL), "80: another address");
	ok(pin_set(&w, box, BROKER_OP_UNPIN, A_OK, 0, 0) == 0, "the lease ends");
	is_refused(tcp_try(&w, box->net_fd, A_OK, 80, NULL), "80: after it");
	ok(pin_set(&w, box, BROKER_OP_PIN, A_OK, 80, MIN) == 0, "a lease of one port");
	ok(tcp_try(&w, box->net_fd, A_OK, 80, NULL) == 0, "its port is open");
	is_refused(tcp_try(&w, box->net_fd, A_OK, 22, NULL), "another port");
	is_refused(ping_try(&w, box->net_fd, A_OK, 8), "an echo request beside a leased port");
	ok(pin_set(&w, box, BROKER_OP_UNPIN, A_OK, 80, 0) == 0, "it ends");
}

static void thousand_leases(struct box *box)
{
	uint32_t all = quick ? 100 : 1000;
	int failed = 0;

	for (uint32_t i = 1; i <= all; i++) {
		if (pin_set(&w, box, BROKER_OP_PIN, A_MANY + i, 0, MIN) != 0 || tcp_try(&w, box->net_fd, A_MANY + i, 80, NULL) != 0)
			failed++;
		if (i % 100 == 0)
			world_drain(&w, 80);
	}
	ok(failed == 0, "72: %u addresses, each reached right after it was leased (%d failed)", all, failed);
	for (uint32_t i = 1; i <= all; i++)
		failed += pin_set(&w, box, BROKER_OP_UNPIN, A_MANY + i, 0, 0) != 0;
	ok(failed == 0, "72: and all end");
}

static void refused_pins(struct box *box)
{
	static const struct {
		const char *why;
		uint32_t addr;
	} rows[] = {
		{"metadata", A_META}, {"the gateway", 0xa9fe0101}, {"a private address", A_PRIV}, {"192.168.0.0/16", 0xc0a80707},
		{"100.64.0.0/10", 0x64400101}, {"loopback", 0x7f000001}, {"the host", A_HOST}, {"multicast", 0xe00000fb},
		{"broadcast", 0xffffffff}, {"172.16.0.0/12", 0xac1f0001}, {"0.0.0.1", 1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		ok(pin_set(&w, box, BROKER_OP_PIN, rows[i].addr, 0, MIN) == SBX_E_INVALID_REQUEST, "49: no lease for %s", rows[i].why);
	ok(pin_set(&w, box, BROKER_OP_PIN, box->made.addr + 1, 0, MIN) == SBX_E_INVALID_REQUEST, "49: nor for another sandbox");
	struct box stale = *box;
	stale.made.ref.generation++;
	ok(pin_set(&w, &stale, BROKER_OP_PIN, A_OK, 0, MIN) == SBX_E_SANDBOX_NOT_FOUND, "90: nor for another life of the slot");
	const struct broker_ip_rule rule = rule_v4(A_PRIV, 32, ALLOW, 0, NULL);
	ok(policy_set(&w, box, 0, &rule, 1, NULL) == 0, "50: a rule names the private address");
	ok(tcp_try(&w, box->net_fd, A_PRIV, 80, NULL) == 0, "50: it is reached");
	ok(pin_set(&w, box, BROKER_OP_PIN, A_PRIV, 0, MIN) == 0, "50: a name may lead to it then");
	is_refused(tcp_try(&w, box->net_fd, A_PRIV + 1, 80, NULL), "50: its neighbour");
	ok(pin_set(&w, box, BROKER_OP_UNPIN, A_PRIV, 0, 0) == 0, "50: that lease ends");
}

static void caps(struct box *box)
{
	int good = 0, r = 0;

	for (uint32_t i = 0; i < BROKER_PINS_SANDBOX && r == 0; i++, good += r == 0)
		r = pin_set(&w, box, BROKER_OP_PIN, 0x01010000 + i + 1, 0, MIN);
	ok(good == (int)BROKER_PINS_SANDBOX, "70: %d leases", good);
	ok(pin_set(&w, box, BROKER_OP_PIN, 0x02020202, 0, MIN) == SBX_E_LIMIT, "70: and not one more");
	ok(pin_set(&w, box, BROKER_OP_PIN, 0x01010001, 0, 2 * MIN) == 0, "70: one that is there is renewed");
	ok(pin_set(&w, box, BROKER_OP_UNPIN, 0x01010001, 0, 0) == 0, "70: one ends");
	ok(pin_set(&w, box, BROKER_OP_PIN, 0x02020202, 0, MIN) == 0, "70: and there is room for one");
}

static void rules(struct box *box)
{
	const uint16_t web[] = {80, 443}, dot[] = {853}, ssh[] = {22};
	const struct broker_ip_rule r73[] = {rule_v4(0xc6336400, 24, ALLOW, 0, NULL), rule_v4(A_OTH, 32, DENY, 0, NULL)};
	const struct broker_ip_rule r74[] = {rule_v4(A_OTH, 32, ALLOW, 0, NULL), rule_v4(A_OTH, 32, DENY, 0, NULL)};
	const struct broker_ip_rule r75[] = {rule_v4(0xc6336400, 24, DENY, 0, NULL)};
	const struct broker_ip_rule r30[] = {rule_v4(A_OTH, 32, ALLOW | OPER, 0, NULL), rule_v4(0xc6336400, 24, DENY, 0, NULL)};
	const struct broker_ip_rule op[] = {rule_v4(0, 0, DENY | OPER, 0, NULL), rule_v4(A_OTH, 32, ALLOW | OPER, 0, NULL)};
	const struct broker_ip_rule port[] = {rule_v4(A_OK, 32, ALLOW, 2, web), rule_v4(A_OTH, 32, ALLOW, 1, dot),
					      rule_v4(0xc6336400, 24, DENY, 1, ssh)};

	ok(policy_set(&w, box, 0, r73, 2, NULL) == 0, "73: a net is open but for one address");
	ok(tcp_try(&w, box->net_fd, A_OK, 80, NULL) == 0, "73: the net");
	is_refused(tcp_try(&w, box->net_fd, A_OTH, 80, NULL), "73: the address");
	is_refused(tcp_try(&w, box->net_fd, A_OK, 853, NULL), "73: port 853 of the net");
	ok(udp_try(&w, box->net_fd, A_OK, 443) == 0, "73: a rule by address opens UDP 443");
	ok(policy_set(&w, box, 0, r74, 2, NULL) == 0, "74: allow and deny for one address");
	is_refused(tcp_try(&w, box->net_fd, A_OTH, 80, NULL), "74: deny wins");
	ok(policy_set(&w, box, BROKER_POLICY_DEFAULT_ALLOW | BROKER_POLICY_NAMES, r75, 1, NULL) == 0 &&
	   pin_set(&w, box, BROKER_OP_PIN, A_OK, 0, MIN) == 0, "75: a denied net, and a name that leads into it");
	is_refused(tcp_try(&w, box->net_fd, A_OK, 80, NULL), "75: the address");
	ok(tcp_try(&w, box->net_fd, A_MANY + 1, 80, NULL) == 0, "76: what nothing denies is open by address");
	pin_set(&w, box, BROKER_OP_UNPIN, A_OK, 0, 0);
	ok(policy_set(&w, box, 0, r30, 2, NULL) == 0, "30: the operator allows what the user denies");
	ok(tcp_try(&w, box->net_fd, A_OTH, 80, NULL) == 0, "30: it is open");
	is_refused(tcp_try(&w, box->net_fd, A_OK, 80, NULL), "30: its neighbour");
	ok(policy_set(&w, box, BROKER_POLICY_DEFAULT_ALLOW, op, 2, NULL) == 0, "30: the operator denies all");
	is_refused(tcp_try(&w, box->net_fd, A_OTH, 80, NULL), "30: an operator's allow does not help");
	ok(policy_set(&w, box, 0, port, 3, NULL) == 0, "ports in rules");
	ok(tcp_try(&w, box->net_fd, A_OK, 80, NULL) == 0 && tcp_try(&w, box->net_fd, A_OK, 443, NULL) == 0, "the named ones are open");
	is_refused(tcp_try(&w, box->net_fd, A_OK, 8080, NULL), "another one");
	is_refused(tcp_try(&w, box->net_fd, A_OK, 22, NULL), "one that a wider rule denies");
	is_refused(ping_try(&w, box->net_fd, A_OK, 8), "an echo request to ports");
	ok(tcp_try(&w, box->net_fd, A_OTH, 853, NULL) == 0, "853 is open when it is named");
}

static void default_allow(struct box *box)
{
	const uint32_t doh = A_DOH;

	ok(policy_set(&w, box, BROKER_POLICY_DEFAULT_ALLOW, NULL, 0, NULL) == 0, "default allow without rules");
	ok(tcp_try(&w, box->net_fd, A_OK, 853, NULL) == 0 && udp_try(&w, box->net_fd, A_OK, 443) == 0 &&
	   tcp_try(&w, box->net_fd, doh, 443, NULL) == 0, "has nothing to get round: 853, QUIC and DNS over HTTPS pass");
	ok(policy_set(&w, box, BROKER_POLICY_DEFAULT_ALLOW | BROKER_POLICY_NAMES, NULL, 0, NULL) == 0, "default allow with names");
	ok(tcp_try(&w, box->net_fd, A_OTH, 80, NULL) == 0 && tcp_try(&w, box->net_fd, A_OTH, 443, NULL) == 0, "76: addresses are open");
	is_refused(tcp_try(&w, box->net_fd, A_OTH, 853, NULL), "DNS over TLS");
	is_refused(udp_try(&w, box->net_fd, A_OTH, 853), "DNS over QUIC");
	is_refused(udp_try(&w, box->net_fd, A_OTH, 443), "QUIC");
	is_refused(tcp_try(&w, box->net_fd, doh, 443, NULL), "a listed DNS over HTTPS server");
	ok(tcp_try(&w, box->net_fd, doh, 80, NULL) == 0, "its other ports are open");
	is_refused(tcp_try(&w, box->net_fd, A_META, 80, NULL), "51: metadata");
	is_refused(tcp_try(&w, box->net_fd, A_PRIV, 80, NULL), "51: a private address");
	is_refused(udp_try(&w, box->net_fd, 0xc0a80707, 7), "51: another one");
}

static void neighbours(struct box *a, struct box *b)
{
	const struct broker_ip_rule all = rule_v4(0, 0, ALLOW, 0, NULL);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(80)};
	auto_fd inside = sock_in(&w, b->net_fd, AF_INET, SOCK_STREAM, 0);
	auto_fd host = sock_in(&w, w.home_fd, AF_INET, SOCK_STREAM, 0);

	ok(bind(inside, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(inside, 5) == 0, "another sandbox listens");
	at.sin_port = htons(22);
	ok(bind(host, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(host, 5) == 0, "the host listens");
	ok(policy_set(&w, a, BROKER_POLICY_DEFAULT_ALLOW, &all, 1, NULL) == 0, "83: a rule that allows everything");
	is_refused(tcp_try(&w, a->net_fd, b->made.addr, 80, NULL), "83: another sandbox");
	is_refused(udp_try(&w, a->net_fd, b->made.addr, 80), "83: another sandbox by UDP");
	is_refused(tcp_try(&w, a->net_fd, A_HOST, 22, NULL), "83: the host's ssh");
	is_refused(tcp_try(&w, a->net_fd, 0xa9fe0101, 22, NULL), "83: the gateway");
	is_refused(tcp_try(&w, a->net_fd, 0xa9fefd01, 22, NULL), "83: the host's end of the uplink");
	is_refused(tcp_try(&w, a->net_fd, A_META, 80, NULL), "83: metadata");
	ok(tcp_try(&w, a->net_fd, A_PRIV, 80, NULL) == 0, "83: but a private address, which the rule names");
}

/* ---- attacks with raw sockets, as a tenant with CAP_NET_RAW could ---- */

static void raw_ip(const struct box *box, uint32_t src, uint32_t dst, uint8_t protocol, uint16_t frag, unsigned ihl)
{
	uint8_t buf[64] = {0};
	struct iphdr *ip = (void *)buf;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(dst)};
	auto_fd fd = sock_in(&w, box->net_fd, AF_INET, SOCK_RAW, IPPROTO_RAW);
	int mark = 0x53;

	*ip = (struct iphdr){.version = 4, .ihl = ihl & 15u, .tot_len = htons((uint16_t)(ihl * 4 + 12)), .id = htons(7), .frag_off = htons(frag),
			     .ttl = 64, .protocol = protocol, .saddr = htonl(src), .daddr = htonl(dst)};
	for (unsigned i = 20; i < ihl * 4; i++)
		buf[i] = 1; /* no-operation options */
	buf[ihl * 4 + 3] = 7; /* destination port of UDP or TCP */
	buf[ihl * 4 + 5] = 12;
	setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	ignore_result(sendto(fd, buf, ihl * 4 + 12, 0, (struct sockaddr *)&to, sizeof(to)));
}

/* One datagram in two pieces, as a sandbox would send them that hopes that only the first one is looked at. */
static void fragments(const struct box *box, uint32_t dst)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(dst)};
	auto_fd fd = sock_in(&w, box->net_fd, AF_INET, SOCK_RAW, IPPROTO_RAW);

	for (unsigned i = 0; i < 2; i++) {
		uint8_t buf[36] = {0};

		*(struct iphdr *)(void *)buf = (struct iphdr){.version = 4, .ihl = 5, .tot_len = htons(36), .id = htons(77),
							      .frag_off = htons(i ? 2 : 0x2000), .ttl = 64, .protocol = 17,
							      .saddr = htonl(box->made.addr), .daddr = htonl(dst)};
		if (!i) {
			buf[21] = 99; /* ports 99 and 7, 32 bytes, no checksum */
			buf[23] = 7;
			buf[25] = 32;
		}
		ignore_result(sendto(fd, buf, sizeof(buf), 0, (struct sockaddr *)&to, sizeof(to)));
	}
}

static void frame(const struct box *box, uint32_t dst, uint16_t type)
{
	uint8_t buf[60] = {0};
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(type), .sll_ifindex = 2, .sll_halen = 6,
				 .sll_addr = {0x02, 0x53, 0x42, 0x58, 0x00, 0x01}};
	auto_fd fd = sock_in(&w, box->net_fd, AF_PACKET, SOCK_DGRAM, htons(type));

	if (type == ETH_P_IP) {
		*(struct iphdr *)(void *)buf = (struct iphdr){.version = 4, .ihl = 5, .tot_len = htons(32), .ttl = 64, .protocol = 17,
							      .saddr = htonl(box->made.addr), .daddr = htonl(dst)};
		uint32_t sum = 0;
		for (int i = 0; i < 10; i++)
			sum += (uint32_t)buf[2 * i] << 8 | buf[2 * i + 1];
		sum = (sum & 0xffff) + (sum >> 16);
		sum = ~(sum + (sum >> 16));
		buf[10] = (uint8_t)(sum >> 8);
		buf[11] = (uint8_t)sum;
		buf[23] = 7;
		buf[25] = 12;
	} else {
		buf[0] = 0x60;
	}
	for (int i = 0; i < 5; i++)
		ignore_result(sendto(fd, buf, 32, 0, (struct sockaddr *)&to, sizeof(to)));
}

static void raw_attacks(struct box *a, struct box *b)
{
	static const uint8_t others[] = {2, 41, 47, 50, 51, 103, 132, 136, 255};

	ok(policy_set(&w, a, 0, NULL, 0, NULL) == 0 && pin_set(&w, a, BROKER_OP_PIN, A_OK, 0, MIN) == 0 &&
	   policy_set(&w, b, BROKER_POLICY_DEFAULT_ALLOW, NULL, 0, NULL) == 0, "one address is leased; the neighbour is open");
	world_seen(&w, 0);
	frame(a, A_OTH, ETH_P_IP);
	ok(world_seen(&w, A_OTH) == 0, "81: frames of a packet socket to another address");
	frame(a, A_OK, ETH_P_IP);
	ok(world_wait(&w, A_OK, 1) > 0, "81: the same to the leased address arrive");
	raw_ip(a, a->made.addr, A_OTH, 17, 0, 5);
	raw_ip(a, a->made.addr, A_OTH, 6, 0, 5);
	ok(world_seen(&w, A_OTH) == 0, "81: raw packets with the router's own mark (SO_MARK)");
	raw_ip(a, b->made.addr, A_OTH, 17, 0, 5);
	raw_ip(a, A_HOST, A_OTH, 17, 0, 5);
	raw_ip(a, 0xa9fe0101, A_OTH, 17, 0, 5);
	raw_ip(a, 0x7f000001, A_OTH, 17, 0, 5);
	raw_ip(a, b->made.addr, A_OK, 17, 0, 5);
	ok(world_seen(&w, A_OTH) == 0, "82: with the neighbour's, the host's, the gateway's address as source");
	raw_ip(a, a->made.addr, A_OK, 17, 0, 6);
	ok(world_seen(&w, A_OK) == 0, "IP options, even to the leased address");
	fragments(a, A_OK);
	ok(world_seen(&w, A_OK) == 0, "fragments that are a whole datagram together");
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		raw_ip(a, a->made.addr, A_OK, others[i], 0, 5);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		raw_ip(b, b->made.addr, A_OK, others[i], 0, 5);
	ok(world_seen(&w, A_OK) == 0, "SCTP, GRE, ESP, AH, 6in4 and others, leased or open");
	raw_ip(a, a->made.addr, A_OK, 17, 0, 5);
	ok(world_wait(&w, A_OK, 1) == 1, "and plain UDP made the same way arrives");
	frame(a, A_OK, ETH_P_IPV6);
	frame(a, A_OK, ETH_P_ARP);
	ok(world_sh(a->net_fd, "ip -6 addr show dev eth0 | grep -q inet6") != 0, "85: no IPv6 address");
	ok(world_sh(w.router_fd, "nft list chain inet sandboxd raw | grep -q 'meta nfproto != ipv4 drop'") == 0, "85: IPv6 frames end in the router");
	ok(udp_quiet(&w, b->net_fd, 0xe00000fb, 5353) != 0 && udp_quiet(&w, b->net_fd, 0xffffffff, 67) != 0, "multicast and broadcast");
	ok(ping_try(&w, b->net_fd, A_OK, 1400) == 0, "an echo request of 1,400 bytes");
	ok(ping_quiet(&w, b->net_fd, A_OK, 1401) == ETIMEDOUT, "one of 1,401 does not pass");
	unsigned arrived = 0;
	for (int i = 0; i < 100; i++)
		raw_ip(b, b->made.addr, A_OK, 17, 0, 5);
	ok(world_wait(&w, A_OK, 100) == 100, "100 datagrams made by hand arrive");
	long start = now_ms();
	auto_fd ping = sock_in(&w, b->net_fd, AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(A_OK)};
	for (int i = 0; i < 200; i++) {
		uint8_t echo[16] = {8};

		ignore_result(sendto(ping, echo, sizeof(echo), 0, (struct sockaddr *)&to, sizeof(to)));
	}
	/* 20 at once and 10 a second from then on, however long this took */
	arrived = world_seen(&w, A_OK);
	ok(arrived > 0 && arrived <= 40 + (unsigned)(now_ms() - start) / 100, "a ping tunnel: %u of 200 echo requests pass", arrived);
}

/* ---- live flows ---- */

/*
 * Whether the socket @fd of a sandbox was ended with its revoked flow: by its end itself, or by the router's answer to a packet that
 * it still sent (an acknowledgement that was put off).
 */
static bool cut_off(int fd, int *ret)
{
	return wait_error(fd, 0, ret) >= 0 && (*ret == ECONNABORTED || *ret == ECONNRESET);
}

/* A lease that is over soon, and a connection made within it: on a machine that stands still the next try has longer. */
static bool brief_lease(const struct box *box, uint32_t addr, struct flow *f)
{
	for (uint32_t ms = 1500; ms <= 24000; ms *= 2) {
		if (pin_set(&w, box, BROKER_OP_PIN, addr, 0, ms) != 0)
			return false;
		if (flow_open(&w, f, box, addr))
			return true;
		flow_close(f);
	}
	return false;
}

static void live_flows(struct box *box)
{
	struct flow f, g, idle;
	int e = 0;

	ok(policy_set(&w, box, 0, NULL, 0, NULL) == 0 && brief_lease(box, A_OTH, &f), "86: a connection to an address with a brief lease");
	ok(closes(&w, box, A_OTH, 8080), "86: the lease ends for new ones");
	ok(flow_lives(&f), "86: the old one goes on, both ways");
	flow_close(&f);

	ok(pin_set(&w, box, BROKER_OP_PIN, A_OK, 0, 10 * MIN) == 0 && flow_open(&w, &f, box, A_OK), "88: a connection");
	const struct broker_ip_rule other = rule_v4(A_MANY, 24, ALLOW, 0, NULL);
	uint32_t mark[2] = {0, 0};
	int lost = 0;
	for (int i = 0; i < 20; i++) {
		lost += policy_set(&w, box, 0, &other, 1, &mark[i % 2]) != 0;
		lost += !moves(f.in, f.out);
		lost += policy_set(&w, box, 0, &other, 1, &mark[i % 2]) != 0;
		lost += !moves(f.out, f.in);
	}
	ok(lost == 0 && mark[0] != mark[1], "88: 40 unrelated policies with new marks: nothing is lost, either way (%d)", lost);
	ok(tcp_try(&w, box->net_fd, A_OK, 80, NULL) == 0, "88: the leased address is open as before");
	ok(wait_error(f.in, 300, &e) == -1, "88: no socket was ended");

	/* revocation: one flow sends, one only receives, one is idle, one is UDP */
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(5432), .sin_addr.s_addr = htonl(A_OK)};
	auto_fd udp = sock_in(&w, box->net_fd, AF_INET, SOCK_DGRAM, 0);
	ok(connect(udp, (struct sockaddr *)&to, sizeof(to)) == 0 && send(udp, "x", 1, 0) == 1 && flow_open(&w, &g, box, A_OK) &&
	   flow_open(&w, &idle, box, A_OK), "89: flows that send, receive, wait, and UDP");
	poll(NULL, 0, 300); /* acknowledgements that were put off would tell the sender of the end as well */
	ok(pin_set(&w, box, BROKER_OP_UNPIN, A_OK, 0, 0) == 0, "89: the lease is taken away");
	long start = now_ms();
	ok(policy_set(&w, box, 0, &other, 1, NULL) == 0, "89: and the policy comes anew");
	const struct {
		const char *what;
		int fd;
	} ends[] = {{"the one that sends", f.in}, {"the one that receives", g.in}, {"the idle one", idle.in}, {"the UDP one", udp}};
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		bool ended = cut_off(ends[i].fd, &e);

		ok(ended, "89: %s ended (%ld ms: %s)", ends[i].what, now_ms() - start, strerror(e));
	}
	world_seen(&w, 0);
	ignore_result(send(g.out, "push", 4, MSG_NOSIGNAL));
	int ms = wait_error(g.out, 0, &e);
	ok(ms >= 0 && e == ECONNRESET, "89: the far side is reset when it sends (%d ms: %s)", ms, strerror(e));
	flow_close(&f);
	flow_close(&g);
	flow_close(&idle);
	/* TCP resets of the router are all that may have gone out */
	is_refused(udp_try(&w, box->net_fd, A_OK, 5432), "89: and new packets");
}

/* Without the socket's end: what the router does on its own when either side sends. */
static void router_alone(struct box *box)
{
	struct flow f, g;
	int e = 0;

	ok(policy_set(&w, box, 0, NULL, 0, NULL) == 0 && pin_set(&w, box, BROKER_OP_PIN, A_OK, 0, MIN) == 0 && flow_open(&w, &f, box, A_OK) &&
	   flow_open(&w, &g, box, A_OK), "two connections");
	/* what narrows is the lease; that nobody sends POLICY keeps the broker from ending sockets */
	ok(pin_set(&w, box, BROKER_OP_UNPIN, A_OK, 0, 0) == 0, "the lease ends");
	ok(moves(f.in, f.out), "the mark is still current: it goes on");
	char command[200];
	struct in_addr in = {htonl(box->made.addr)};
	snprintf(command, sizeof(command), "m=$(nft list set inet sandboxd current | grep -o '%s . 0x[0-9a-f]*' | tail -n 1); "
		 "nft \"delete element inet sandboxd current { $m }\"", inet_ntoa(in));
	kill(t.pid, SIGSTOP); /* it would put its own table back at once */
	ok(world_sh(w.router_fd, command) == 0, "the mark is taken out by hand");
	ignore_result(send(f.in, "x", 1, MSG_NOSIGNAL));
	bool reset = wait_error(f.in, 0, &e) >= 0 && (e == ECONNRESET || e == ECONNREFUSED);
	ok(reset, "the sandbox's next packet is reset (%s)", strerror(e));
	ignore_result(send(g.out, "x", 1, MSG_NOSIGNAL));
	reset = wait_error(g.out, 0, &e) >= 0 && e == ECONNRESET;
	ok(reset, "the far side's next packet is reset (%s)", strerror(e));
	flow_close(&f);
	flow_close(&g);
	kill(t.pid, SIGCONT);
	ok(policy_set(&w, box, 0, NULL, 0, NULL) == 0, "and the policy can be changed afterwards");
}

/* Asks which addresses have live connections; how many of @box are told, and whether @addr is one of them. */
static unsigned flows_told(const struct box *box, uint32_t addr, bool *ret_found)
{
	struct broker_plain_req req = {0};
	union broker_any any;
	bool last = false;
	unsigned n = 0;

	*ret_found = false;
	btc_send(&t, w.dnsd_fd, &req, sizeof(req), BROKER_OP_FLOWS, -1);
	while (!last && btc_recv(w.dnsd_fd, &any, NULL, WAIT_MS) == sizeof(any.flows_reply) && any.flows_reply.status == 0) {
		last = any.flows_reply.last;
		for (uint32_t i = 0; i < any.flows_reply.n_flows; i++) {
			bool mine = any.flows_reply.flow[i].ref.slot == box->made.ref.slot &&
				    any.flows_reply.flow[i].ref.generation == box->made.ref.generation;

			n += mine;
			*ret_found |= mine && any.flows_reply.flow[i].addr == addr;
		}
	}
	*ret_found = *ret_found && last;
	return last ? n : 0;
}

/* More connections than one turn of the broker's loop tells. */
static void many_flows(struct box *box)
{
	const uint32_t all = quick ? 1200 : 3000; /* of 203.0.112.0/20; LIMIT_FLOWS are let through */
	auto_fd fd = sock_in(&w, box->net_fd, AF_INET, SOCK_DGRAM, 0);
	unsigned told = 0;
	bool found;

	ok(policy_set(&w, box, BROKER_POLICY_DEFAULT_ALLOW, NULL, 0, NULL) == 0, "a sandbox that may do all");
	for (long end = now_ms() + WAIT_MS; told < all && now_ms() < end;) {
		for (uint32_t i = 0; i < all; i++) {
			struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(0xcb007000u + i)};

			ignore_result(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
		}
		told = flows_told(box, 0xcb007000u + all - 1, &found);
	}
	ok(told >= all && found, "87: %u of %u addresses with connections are told", told, all);
	ok(pin_set(&w, box, BROKER_OP_PIN, A_OK, 0, MIN) == 0 && pin_set(&w, box, BROKER_OP_UNPIN, A_OK, 0, 0) == 0, "and the channel goes on");
	world_seen(&w, 0);
}

static void flows_listed(struct box *box)
{
	struct flow f;
	bool found;

	long start = now_ms();
	ok(brief_lease(box, A_OTH, &f), "87: a connection to an address with a brief lease");
	long lease_end = now_ms() + (now_ms() - start > 1400 ? 24000 : 1500);
	flows_told(box, A_OTH, &found);
	ok(found, "87: the broker tells that it lives");
	ok(pin_set(&w, box, BROKER_OP_PIN, A_OTH, 0, 6 * MIN) == 0, "87: the lease is renewed");
	while (now_ms() < lease_end)
		poll(NULL, 0, 100);
	ok(tcp_try(&w, box->net_fd, A_OTH, 80, NULL) == 0, "87: a new connection after the first lease's end");
	ok(pin_set(&w, box, BROKER_OP_PIN, A_OTH, 0, 1000) == 0, "43: a shorter lease comes");
	poll(NULL, 0, 1500);
	ok(tcp_try(&w, box->net_fd, A_OTH, 80, NULL) == 0, "43: and does not shorten it");
	ok(pin_set(&w, box, BROKER_OP_UNPIN, A_OTH, 0, 0) == 0, "it ends");
	flow_close(&f);
}

/* ---- questions to other name servers ---- */

/* One question from @box to @addr, answered through the socket of the name server as sandbox-dnsd does it. */
static const char *ask_udp(const struct box *box, int server, uint32_t addr, int *ret_ifindex)
{
	static union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(addr)}, from = {0};
	auto_fd fd = sock_in(&w, box->net_fd, AF_INET, SOCK_DGRAM, 0);
	char text[16];
	struct iovec iov = {text, sizeof(text)};
	struct msghdr msg = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	struct pollfd p[2] = {{.fd = server, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	struct in_pktinfo info = {0};

	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 || send(fd, "question", 8, 0) != 8)
		return "not sent";
	if (poll(p, 1, WAIT_MS) != 1 || recvmsg(server, &msg, MSG_DONTWAIT) != 8)
		return "did not come to the name server";
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
			memcpy(&info, CMSG_DATA(c), sizeof(info));
	if (ntohl(from.sin_addr.s_addr) != box->made.addr || ntohl(info.ipi_spec_dst.s_addr) != addr)
		return "came with other addresses";
	*ret_ifindex = info.ipi_ifindex;
	iov.iov_len = 6;
	memcpy(text, "answer", 6);
	info.ipi_ifindex = 0;
	memcpy(CMSG_DATA(&control.head), &info, sizeof(info));
	if (sendmsg(server, &msg, MSG_DONTWAIT) != 6)
		return "not answered";
	/* a connected socket takes only what comes from the asked address */
	return poll(&p[1], 1, WAIT_MS) == 1 && recv(fd, text, sizeof(text), MSG_DONTWAIT) == 6 ? NULL : "the answer did not come from the asked address";
}

static const char *ask_tcp(const struct box *box, int server, uint32_t addr)
{
	struct pollfd p = {.fd = server, .events = POLLIN};
	struct sockaddr_in local = {0}, from = {0};
	socklen_t n_local = sizeof(local), n_from = sizeof(from);
	int in = -1;

	if (tcp_try(&w, box->net_fd, addr, 53, &in) != 0)
		return "no connection";
	auto_fd near = in;
	if (poll(&p, 1, WAIT_MS) != 1)
		return "nothing to accept";
	auto_fd far = accept4(server, (struct sockaddr *)&from, &n_from, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (far < 0 || getsockname(far, (struct sockaddr *)&local, &n_local) < 0 || ntohl(local.sin_addr.s_addr) != addr ||
	    ntohl(from.sin_addr.s_addr) != box->made.addr)
		return "accepted with other addresses";
	return moves(near, far) && moves(far, near) ? NULL : "no bytes pass";
}

static int tracked(void)
{
	char text[32] = "";

	world_run(w.router_fd, "cat /proc/sys/net/netfilter/nf_conntrack_count", text, sizeof(text));
	return (int)strtol(text, NULL, 10);
}

static void other_resolvers(struct box *box, struct box *open)
{
	static const struct {
		const char *what;
		uint32_t addr;
	} rows[] = {
		{"the gateway", 0xa9fe0101}, {"8.8.8.8", A_DOH}, {"an address where nobody is", A_MANY + 99}, {"a private address", A_PRIV},
		{"metadata", A_META}, {"the host", A_HOST}, {"a leased address", A_OK},
	};
	const struct broker_ip_rule rule = rule_v4(A_MANY, 24, ALLOW, 0, NULL), deny = rule_v4(A_DOH, 32, DENY, 0, NULL);
	const struct {
		const char *what;
		uint32_t flags;
		const struct broker_ip_rule *rule;
	} policies[] = {{"default deny", 0, NULL},
			{"a rule that allows the asked", 0, &rule},
			{"default allow with names", BROKER_POLICY_DEFAULT_ALLOW | BROKER_POLICY_NAMES, NULL},
			{"default allow with a denied address", BROKER_POLICY_DEFAULT_ALLOW, &deny}};
	struct broker_plain_req req = {0};
	union broker_any any;
	int fds[2] = {-1, -1}, ifindex = 0, other = 0, before;

	btc_send(&t, w.dnsd_fd, &req, sizeof(req), BROKER_OP_DNS_SOCKETS, -1);
	if (!ok(btc_recv(w.dnsd_fd, &any, fds, WAIT_MS) > 0 && fds[0] >= 0 && fds[1] >= 0, "38: sockets of the name server"))
		return;
	ok(policy_set(&w, open, BROKER_POLICY_DEFAULT_ALLOW, NULL, 0, NULL) == 0, "38: the neighbour has no policy");
	for (size_t k = 0; k < ARRAY_SIZE(policies); k++) {
		ok(policy_set(&w, box, policies[k].flags, policies[k].rule, policies[k].rule ? 1 : 0, NULL) == 0 &&
		   pin_set(&w, box, BROKER_OP_PIN, A_OK, 0, MIN) == 0, "38: %s", policies[k].what);
		before = tracked();
		for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
			world_seen(&w, 0);
			const char *u = ask_udp(box, fds[0], rows[i].addr, &other), *s = ask_tcp(box, fds[1], rows[i].addr);

			ok(!u && !s && (!ifindex || ifindex == other), "38: %s is asked by UDP and TCP and answers itself", rows[i].what);
			if (u || s)
				printf("# UDP: %s; TCP: %s\n", u ? u : "fine", s ? s : "fine");
			ifindex = other;
			if (world_seen(&w, rows[i].addr))
				ok(false, "38: something of it arrived at %s", rows[i].what);
		}
		ok(tracked() <= before, "38: no connection entry of it is left (%d before, %d now)", before, tracked());
	}
	ok(policy_set(&w, box, 0, NULL, 0, NULL) == 0, "38: default deny again");
	is_refused(tcp_try(&w, box->net_fd, A_DOH, 853, NULL), "38: port 853 of a name server");
	is_refused(udp_try(&w, box->net_fd, A_DOH, 853), "38: and by UDP");
	ok(udp_try(&w, open->net_fd, A_DOH, 53) == 0 && tcp_try(&w, open->net_fd, A_DOH, 53, NULL) == 0, "38: without a policy the asked server itself is reached");
	/* a stream to the server itself, from before the policy, has lost it */
	int stream = -1, e = 0;
	bool ended = tcp_try(&w, open->net_fd, A_DOH, 53, &stream) == 0 && policy_set(&w, open, 0, NULL, 0, NULL) == 0 && cut_off(stream, &e);
	ok(ended, "38: a stream to it ends with the policy that comes (%s)", strerror(e));
	close_keep_errno(stream);
	ok(!ask_udp(open, fds[0], A_DOH, &other) && other != ifindex, "38: and its questions come by its own link from now on");
	ok(policy_set(&w, open, BROKER_POLICY_DEFAULT_ALLOW, NULL, 0, NULL) == 0, "38: no policy again");
	pin_set(&w, box, BROKER_OP_UNPIN, A_OK, 0, 0);
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
}

/* A sandbox that asks as fast as it can (UDP, to the gateway and to others), while another one asks now and then. */
static void question_flood(struct box *box, struct box *quiet)
{
	struct broker_plain_req req = {0};
	union broker_any any;
	int fds[2] = {-1, -1};
	long asked = 0, answered = 0, flooded = 0, tries = 0, start = now_ms();
	int entries = tracked();

	btc_send(&t, w.dnsd_fd, &req, sizeof(req), BROKER_OP_DNS_SOCKETS, -1);
	if (!ok(btc_recv(w.dnsd_fd, &any, fds, WAIT_MS) > 0 && fds[0] >= 0 && fds[1] >= 0 && policy_set(&w, box, 0, NULL, 0, NULL) == 0 &&
		policy_set(&w, quiet, 0, NULL, 0, NULL) == 0, "66: sockets of the name server, two sandboxes with policies"))
		return;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		static const uint32_t addr[] = {0xa9fe0101, A_DOH};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int fd = sock_in(&w, box->net_fd, AF_INET, SOCK_DGRAM, 0);
		for (unsigned i = 0;; i++) {
			struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(addr[i % 2])};

			ignore_result(sendto(fd, "question", 8, 0, (struct sockaddr *)&to, sizeof(to)));
		}
	}
	auto_fd near = sock_in(&w, quiet->net_fd, AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(A_DOH)};
	struct pollfd p = {.fd = fds[0], .events = POLLIN};
	ignore_result(connect(near, (struct sockaddr *)&to, sizeof(to)));
	/* Until the flood has more behind it than may come at once.  Queues of the machine may drop a question: it is asked again. */
	for (long end = start + WAIT_MS; (asked < 100 || flooded < 1500) && answered == asked && now_ms() < end; poll(NULL, 0, 5)) {
		struct sockaddr_in from = {0};
		socklen_t size;
		long again = 0;
		char text[16];

		for (asked++; answered < asked && now_ms() < end; poll(&p, 1, 100)) {
			if (now_ms() >= again) {
				tries += send(near, "question", 8, 0) == 8;
				again = now_ms() + 1000;
			}
			for (ssize_t n = 1; n > 0;) {
				size = sizeof(from);
				n = recvfrom(fds[0], text, sizeof(text), MSG_DONTWAIT, (struct sockaddr *)&from, &size);
				if (n > 0 && ntohl(from.sin_addr.s_addr) == quiet->made.addr)
					answered = asked;
				flooded += n > 0 && ntohl(from.sin_addr.s_addr) == box->made.addr;
			}
		}
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	long ms = now_ms() - start;
	ok(asked >= 100 && answered == asked, "66: beside a flood of questions %ld of %ld of another sandbox come to the name server (%ld sent)", answered, asked, tries);
	ok(flooded >= 1500 && flooded <= 1100 + ms * 4 / 10, "66: %ld of the flood in %ld ms: its share", flooded, ms);
	ok(tracked() <= entries, "66: and it left no connection entry");
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
}

/* ---- the log ---- */

/*
 * Reads logged packets as somebody without rights until one from @src to @dst comes; what other packets of earlier steps still
 * lead to is passed over.  Its prefix into @prefix; Return: milliseconds, -1: none
 */
static int read_log(int fd, uint32_t src, uint32_t dst, char prefix[32])
{
	static uint8_t buf[4096];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	long start = now_ms();

	while (poll(&p, 1, WAIT_MS) == 1) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		size_t at = NLMSG_HDRLEN + sizeof(struct nfgenmsg);
		uint32_t ends[2] = {0, 0};

		prefix[0] = '\0';
		while (n > 0 && at + 4 <= (size_t)n) {
			const struct nlattr *a = (const void *)(buf + at);

			if (a->nla_len < 4)
				break;
			if ((a->nla_type & NLA_TYPE_MASK) == NFULA_PREFIX)
				snprintf(prefix, 32, "%s", (const char *)a + 4);
			if ((a->nla_type & NLA_TYPE_MASK) == NFULA_PAYLOAD)
				memcpy(ends, buf + at + 4 + 12, sizeof(ends));
			at += (a->nla_len + 3u) & ~3u;
		}
		if (ntohl(ends[0]) == src && ntohl(ends[1]) == dst)
			return (int)(now_ms() - start);
	}
	return -1;
}

static void the_log(struct box *box, struct box *other)
{
	static const uint16_t one[] = {22};
	const struct broker_ip_rule rule[] = {rule_v4(A_OTH, 32, DENY, 0, NULL), rule_v4(A_OTH + 1, 32, DENY | OPER, 0, NULL),
					      rule_v4(A_OTH + 2, 32, ALLOW, 1, one)};
	const struct {
		enum broker_refusal reason;
		uint32_t addr;
		uint16_t port;
		bool udp;
	} rows[] = {
		{BROKER_REFUSED_METADATA, A_META, 80, false}, {BROKER_REFUSED_HOST, A_HOST, 22, false},
		{BROKER_REFUSED_SANDBOX, other->made.addr, 80, false}, {BROKER_REFUSED_PRIVATE, A_PRIV, 80, false},
		{BROKER_REFUSED_RULE_USER, A_OTH, 80, false}, {BROKER_REFUSED_RULE_OPERATOR, A_OTH + 1, 80, false},
		{BROKER_REFUSED_PORT, A_OTH + 2, 80, false}, {BROKER_REFUSED_DOT, A_OK, 853, false},
		{BROKER_REFUSED_QUIC, A_OK, 443, true}, {BROKER_REFUSED_NO_LEASE, A_MANY + 9, 80, false},
	};
	struct broker_plain_req req = {0};
	union broker_any any;
	char prefix[32], want[32];
	int fds[2] = {-1, -1};

	btc_send(&t, w.dnsd_fd, &req, sizeof(req), BROKER_OP_LOG_SOCKET, -1);
	ok(btc_recv(w.dnsd_fd, &any, fds, WAIT_MS) == sizeof(any.reply) && any.reply.status == 0 && fds[0] >= 0, "the socket of the log");
	ok(policy_set(&w, box, 0, rule, 3, NULL) == 0 && pin_set(&w, box, BROKER_OP_PIN, A_OK, 0, MIN) == 0, "a policy with reasons");
	poll(NULL, 0, 1500); /* the limit of earlier refusals */
	while (recv(fds[0], want, sizeof(want), MSG_DONTWAIT | MSG_TRUNC) > 0)
		;
	ok(syscall(SYS_setresuid, -1, 65534, -1) == 0, "read without rights");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int e = 0;

		if (syscall(SYS_setresuid, -1, 0, -1) < 0)
			abort();
		if (rows[i].udp) {
			e = udp_try(&w, box->net_fd, rows[i].addr, rows[i].port);
		} else {
			e = tcp_try(&w, box->net_fd, rows[i].addr, rows[i].port, NULL);
		}
		if (syscall(SYS_setresuid, -1, 65534, -1) < 0)
			abort();
		int ms = read_log(fds[0], box->made.addr, rows[i].addr, prefix);
		snprintf(want, sizeof(want), "sbx%02d", (int)rows[i].reason);
		ok(refused(e) && !strcmp(prefix, want) && ms >= 0, "refused with the reason %s, logged %d ms later", prefix, ms);
		if (strcmp(prefix, want) != 0)
			printf("# want %s, errno %s\n", want, strerror(e));
	}
	if (syscall(SYS_setresuid, -1, 0, -1) < 0)
		abort();
	/* rate: a flood logs a few packets only */
	int n = 0;
	auto_fd udp = sock_in(&w, box->net_fd, AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(A_MANY + 9)};
	struct pollfd p = {.fd = fds[0], .events = POLLIN};
	long start = now_ms();
	for (int i = 0; i < 300; i++)
		ignore_result(sendto(udp, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
	poll(&p, 1, WAIT_MS);
	poll(NULL, 0, 100);
	while (recv(fds[0], prefix, sizeof(prefix), MSG_DONTWAIT | MSG_TRUNC) > 0)
		n++;
	/* 40 at once and 20 a second from then on, however long this took */
	ok(n > 0 && n <= 60 + (now_ms() - start) / 50, "300 refusals: %d are logged", n);
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	btc_send(&t, w.dnsd_fd, &req, sizeof(req), BROKER_OP_LOG_SOCKET, -1);
	ok(btc_recv(w.dnsd_fd, &any, fds, WAIT_MS) == sizeof(any.reply) && any.reply.status == 0, "the next name server gets it again");
	close_keep_errno(fds[0]);
}

/* ---- the kernel and a plain model agree ---- */

static bool model(const struct broker_ip_rule *rule, size_t n, bool default_allow, uint32_t addr, uint16_t port)
{
	for (int tier = 0; tier < 4; tier++)
		for (size_t i = 0; i < n; i++) {
			uint32_t mask = rule[i].prefix ? ~0u << (32 - rule[i].prefix) : 0;
			bool allow = rule[i].flags & ALLOW, oper = rule[i].flags & OPER, hit = !rule[i].n_ports;

			if ((oper ? 0 : 2) + (allow ? 1 : 0) != tier || (addr & mask) != rule[i].addr)
				continue;
			for (uint32_t p = 0; p < rule[i].n_ports; p++)
				hit |= rule[i].port[p] == port;
			if (hit)
				return allow && !(port == 853 && !rule[i].n_ports);
		}
	return default_allow;
}

static void differential(struct box *box)
{
	static const uint16_t port_of[] = {7, 22, 853, 5432};
	unsigned seed = 12345, wrong = 0, n_probes = 0, passed = 0;

	for (int round = 0; round < (quick ? 5 : 25); round++) {
		struct broker_ip_rule rule[8];
		size_t n = 1 + (size_t)(rand_r(&seed) % 8);
		bool open_default = rand_r(&seed) % 2;

		for (size_t i = 0; i < n; i++) {
			uint32_t prefix = 24 + (uint32_t)(rand_r(&seed) % 9), addr = A_MANY | (uint32_t)(rand_r(&seed) & 15);
			uint32_t n_ports = rand_r(&seed) % 3 ? 0 : 1 + (uint32_t)(rand_r(&seed) % 2);
			uint16_t port[2] = {port_of[rand_r(&seed) % 4], port_of[rand_r(&seed) % 4]};

			rule[i] = rule_v4(addr & (prefix ? ~0u << (32 - prefix) : 0), prefix, (uint32_t)rand_r(&seed) & (ALLOW | OPER), n_ports, port);
		}
		if (policy_set(&w, box, open_default ? BROKER_POLICY_DEFAULT_ALLOW : 0, rule, n, NULL) != 0)
			wrong++;
		for (int k = 0; k < 12; k++) {
			uint32_t addr = A_MANY | (uint32_t)(rand_r(&seed) & 15);
			uint16_t port = port_of[rand_r(&seed) % 4];
			bool want = model(rule, n, open_default, addr, port), got = udp_try(&w, box->net_fd, addr, port) == 0;

			n_probes++;
			passed += got;
			if (want != got && wrong++ < 3)
				printf("# round %d: 203.0.113.%u:%u is %s\n", round, addr & 255, port, got ? "open" : "closed");
		}
	}
	ok(wrong == 0, "kernel and a plain model agree on %u probes (%u passed, %u wrong)", n_probes, passed, wrong);
}

/* ---- the end of a sandbox ---- */

static void the_end(void)
{
	struct broker_ip_rule rule = rule_v4(A_OK, 32, ALLOW, 0, NULL);
	struct box box, next;
	int spared = 0;

	if (!ok(box_make(&w, &box, false) == 0 && policy_set(&w, &box, 0, &rule, 1, NULL) == 0 && pin_set(&w, &box, BROKER_OP_PIN, A_OTH, 0, 10 * MIN) == 0 &&
		tcp_try(&w, box.net_fd, A_OTH, 80, NULL) == 0, "93: a sandbox with rules, a lease and a connection"))
		return;
	ok(mentions(&box) >= 4, "93: the kernel has %u elements for it", mentions(&box));
	box_end(&w, &box);
	for (long end = now_ms() + WAIT_MS; mentions(&box) && now_ms() < end;)
		poll(NULL, 0, 50);
	ok(mentions(&box) == 0, "93: after its end none");
	/* slots are taken oldest first: the address comes again after the other 63 */
	for (int i = 0; i < 80 && spared == 0; i++) {
		if (box_make(&w, &next, false) != 0)
			break;
		if (next.made.addr == box.made.addr) {
			spared = 1;
			is_refused(tcp_try(&w, next.net_fd, A_OTH, 80, NULL), "93: the next one with its address: the leased address");
			is_refused(tcp_try(&w, next.net_fd, A_OK, 80, NULL), "93: and the allowed one");
		}
		box_end(&w, &next);
	}
	ok(spared == 1, "93: the address was given out again");
}

/* Elements of any sandbox of ours, which all have addresses 10.1xx.x.x. */
static bool all_gone(void)
{
	static char out[1 << 16];

	for (long end = now_ms() + WAIT_MS; now_ms() < end; poll(NULL, 0, 50)) {
		elements(out, sizeof(out));
		if (!strstr(out, " 10.1"))
			return true;
	}
	printf("# %s\n", out);
	return false;
}

/* Whether @value of the one counter of generations and marks comes for the second time. */
static bool seen_twice(uint32_t value)
{
	static uint8_t seen[1 << 17];
	uint8_t bit = (uint8_t)(1u << (value & 7)), *at = &seen[(value >> 3) & (sizeof(seen) - 1)];
	bool twice = *at & bit;

	*at |= bit;
	return twice;
}

/* EGRESS_STORM: how many sandboxes. */
static void storm(void)
{
	static struct box box[10];
	const struct broker_ip_rule rule = rule_v4(A_MANY, 24, ALLOW, 0, NULL);
	const char *text = getenv("EGRESS_STORM");
	long rounds = text ? strtol(text, NULL, 10) / 10 : quick ? 1 : 20;
	long made = 0, leaked = 0, again = 0;

	for (long round = 0; round < rounds; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(box); i++) {
			uint32_t next = 0;

			made += box_make(&w, &box[i], false) == 0;
			leaked += tcp_try(&w, box[i].net_fd, A_OK, 80, NULL) == 0;
			leaked += policy_set(&w, &box[i], 0, &rule, i % 2, &next) != 0;
			leaked += pin_set(&w, &box[i], BROKER_OP_PIN, A_PRIV + 1, 0, MIN) == 0;
			leaked += pin_set(&w, &box[i], BROKER_OP_PIN, A_OTH, i % 3 ? 0 : 80, 60 * MIN) != 0;
			leaked += tcp_try(&w, box[i].net_fd, A_OK, 80, NULL) == 0;
			again += seen_twice(box[i].made.ref.generation) + seen_twice(next);
		}
		for (size_t i = 0; i < ARRAY_SIZE(box); i++)
			box_end(&w, &box[i]);
	}
	ok(made == rounds * 10 && leaked == 0, "94: %ld sandboxes with default deny, the first packet before and after the policy: %ld passed", made, leaked);
	ok(again == 0, "93: no generation and no mark was given twice (%ld)", again);
	ok(all_gone(), "93: nothing of them is left in the router's sets");
}

/* EGRESS_ESSENTIAL: what no kernel may get wrong, for an emulated one that has a minute. */
static void essential(void)
{
	const struct broker_ip_rule rule = rule_v4(A_MANY, 24, ALLOW, 0, NULL);
	struct broker_plain_req req = {0};
	union broker_any any;
	int fds[2] = {-1, -1}, ifindex = 0, e = 0;
	struct box box, open;
	struct flow f;

	if (!ok(box_make(&w, &box, false) == 0 && box_make(&w, &open, true) == 0, "a sandbox with a policy to come, and one without"))
		return;
	is_refused(tcp_try(&w, box.net_fd, A_OK, 80, NULL), "94: the first packet before the policy");
	ok(tcp_try(&w, open.net_fd, A_OK, 80, NULL) == 0, "without a policy the world is open");
	is_refused(tcp_try(&w, open.net_fd, A_META, 80, NULL), "51: but not metadata");
	is_refused(tcp_try(&w, open.net_fd, box.made.addr, 80, NULL), "83: nor another sandbox");
	ok(policy_set(&w, &box, 0, &rule, 1, NULL) == 0, "default deny, with a rule for a net");
	is_refused(tcp_try(&w, box.net_fd, A_OK, 80, NULL), "71: TCP by address");
	is_refused(udp_try(&w, box.net_fd, A_OK, 5432), "71: UDP by address");
	ok(udp_try(&w, box.net_fd, A_MANY + 1, 5432) == 0, "73: what the rule opens");
	ok(pin_set(&w, &box, BROKER_OP_PIN, A_OK, 0, MIN) == 0 && tcp_try(&w, box.net_fd, A_OK, 80, NULL) == 0, "80: what a name opens");
	is_refused(udp_try(&w, box.net_fd, A_OK, 443), "80: not for QUIC");
	is_refused(tcp_try(&w, box.net_fd, A_OK, 853, NULL), "80: nor for DNS over TLS");
	ok(pin_set(&w, &box, BROKER_OP_PIN, A_OK, 0, 2 * MIN) == 0, "44: and is renewed");
	btc_send(&t, w.dnsd_fd, &req, sizeof(req), BROKER_OP_DNS_SOCKETS, -1);
	const char *why = btc_recv(w.dnsd_fd, &any, fds, WAIT_MS) > 0 && fds[0] >= 0 && fds[1] >= 0 ? NULL : "no sockets";
	why = why ? why : ask_udp(&box, fds[0], A_DOH, &ifindex);
	why = why ? why : ask_tcp(&box, fds[1], A_DOH);
	ok(!why, "38: another name server is asked, ours answers (%s)", why ? why : "UDP and TCP");
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	ok(flow_open(&w, &f, &box, A_OK) && policy_set(&w, &box, 0, &rule, 1, NULL) == 0 && flow_lives(&f), "88: a flow lives through a new policy");
	bool ended = pin_set(&w, &box, BROKER_OP_UNPIN, A_OK, 0, 0) == 0 && policy_set(&w, &box, 0, NULL, 0, NULL) == 0 && cut_off(f.in, &e);
	ok(ended, "89: a narrowed one ends it (%s)", strerror(e));
	flow_close(&f);
	box_end(&w, &box);
	box_end(&w, &open);
}

int main(void)
{
	struct box a, b;

	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	quick = getenv("EGRESS_QUICK") != NULL;
	if (!ok(world_start(&w, &t, "egress", "[pool]\ntarget = 2\n[egress]\ntls_gate = \"off\"\ndoh_addresses = [\"8.8.8.8\"]\n") == 0, "a broker and a world"))
		goto out;
	if (getenv("EGRESS_ESSENTIAL")) {
		essential();
		goto out;
	}
	without_policy();
	if (box_make(&w, &a, true) != 0 || box_make(&w, &b, true) != 0) {
		ok(false, "two sandboxes");
		goto out;
	}
	ok(tcp_try(&w, a.net_fd, A_OK, 80, NULL) == 0, "without a policy the world is open");
	default_deny(&a);
	leases(&a);
	thousand_leases(&a);
	refused_pins(&a);
	rules(&a);
	default_allow(&a);
	neighbours(&a, &b);
	other_resolvers(&a, &b);
	question_flood(&a, &b);
	raw_attacks(&a, &b);
	live_flows(&a);
	flows_listed(&a);
	the_log(&a, &b);
	differential(&a);
	router_alone(&a);
	many_flows(&b);
	if (!quick)
		caps(&b);
	box_end(&w, &a);
	box_end(&w, &b);
	if (!quick)
		the_end();
	storm();
out:
	world_stop(&w, tap_failed > 0);
	return tap_done();
}
