/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: links of the sandboxes
 *
 * All veths end in one router network namespace per instance, bind-mounted at <run dir>/router so that it outlives the
 * broker.  One veth pair, the uplink, leads from the host into it.  A sandbox has one veth, whose other end is born inside
 * its namespace: a /32 address there, a /32 route and a permanent neighbour in the router, no ARP on either side, no IPv6
 * on it.  The gateway and name server is LINKS_GATEWAY for all of them; the address lies on the router's lo.
 * With network.ipv6 a link carries a /128 of subnet6 besides, by the same means: permanent neighbours, no link-local address on
 * any end of ours or of the sandbox, no router advertisement sent or heard.
 * The router's routes are for packets with LINKS_ROUTE_MARK only, which the packet filter gives: where the filter's rules were
 * flushed nothing is forwarded, not even between two sandboxes.
 *
 * Interface names are made from the generation, so they are never used again.  Deleting a veth by netlink blocks for 15
 * to 35 ms: links are never deleted, they go with the sandbox's namespace, and netwatch.h tells when.
 *
 * Runs in: the broker (root, single thread: it enters other network namespaces and comes back within one call).
 */
#ifndef RUNTIME_LINKS_H
#define RUNTIME_LINKS_H

#include "base/err.h"
#include "base/ip6.h"

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LINKS_GATEWAY	     0xa9fe0101u /* 169.254.1.1, host byte order */
#define LINKS_NAMES_MARK     0x54u	 /* questions for the name server, whatever their address: delivered to it in the router */
#define LINKS_GATEWAY6	     ((struct ip6){UINT64_C(0xfe80) << 48, 0x5342u}) /* next hop in a sandbox; an address of no interface */
#define LINKS_ROUTE_MARK     0x53u	 /* packets without it have no route in the router: fw_rules.c gives it */
#define LINKS_GATE_MARK	     0x55u	 /* on their way to the gate of TLS names */
#define LINKS_GATE	     "sbxgate" /* its interface in the router */
#define LINKS_PEER_IFINDEX   2		 /* of eth0 in every sandbox */
#define LINKS_DEFAULT_SUBNET 0x0ae70000u /* 10.231.0.0/16: rarely used by others */
#define LINKS_DEFAULT_PREFIX 16u

struct fw_rules_prefix;

struct links_config {
	const char *instance; /* borrowed; [a-z0-9-], at most 32 */
	const char *run_dir;  /* borrowed; absolute */
	uint32_t subnet_addr; /* host byte order */
	uint32_t subnet_prefix;
	bool ipv6;
	struct ip6_prefix subnet6; /* at most 96 bits */
};

struct links_end {
	uint32_t ifindex; /* of the router's end, in the router namespace */
	char ifname[IFNAMSIZ];
	uint8_t gateway_mac[6]; /* for the permanent neighbour inside */
	uint8_t own_mac[6];	/* of eth0 inside */
};

struct links;

/**
 * links_open() - Make the router namespace and the uplink, or adopt those that exist
 * @config:	Copied; the strings are borrowed for the life of the result
 * @err:	Filled on failure: INVALID_REQUEST (subnet overlaps a route of the host), SYSTEM
 *
 * The router forwards nothing yet: fw_rules_load_router() comes before links_uplink_set(true).
 *
 * Return: the links (links_free() them), or NULL with @err set
 */
struct links *links_open(const struct links_config *config, struct sbx_err *err) SBX_WUR;
/** links_free() - Close what @links holds open; namespaces and links stay; NULL is fine */
void links_free(struct links *links);
/** links_purge() - Unmount the router namespace of @links and delete its uplink (uninstall, end of a test); Return: 0 or -1, @err set */
int links_purge(struct links *links, struct sbx_err *err) SBX_WUR;
/** links_subnet6() - The IPv6 addresses of the sandboxes, or NULL when there are none */
const struct ip6_prefix *links_subnet6(const struct links *links);
/** links_router_fd() - The router's network namespace; borrowed from @links */
int links_router_fd(const struct links *links);
/** links_uplink_host() - Name of the host's end of the uplink of @links */
const char *links_uplink_host(const struct links *links);
/** links_uplink_router() - Name of the router's end of the uplink of @links */
const char *links_uplink_router(const struct links *links);
/** links_uplink_set() - Take the uplink of @links up (with its routes) or down; Return: 0, or -1 with @err set */
int links_uplink_set(struct links *links, bool up, struct sbx_err *err) SBX_WUR;

/**
 * links_addr() - Address of a slot: the subnet's address + 1 + slot
 * @config:	Subnet
 * @slot:	Slot number
 *
 * Return: host byte order, or 0 when the subnet has no room for this slot
 */
uint32_t links_addr(const struct links_config *config, uint32_t slot);

/**
 * links_attach() - Give a new network namespace its veth
 * @links:	The links
 * @pid:	A process in the namespace (in the broker's pid namespace); it has just been cloned
 * @generation:	Of the slot; names the interface
 * @addr:	Address of the slot, host byte order
 * @ret:	Filled on success
 * @err:	Filled on failure: SYSTEM
 *
 * The child then sets the sysctls of its namespace, brings eth0 up and adds address, neighbour and default route (agent_net.c).
 *
 * Return: 0, or -1 with @err set; what was made goes with the namespace
 */
int links_attach(struct links *links, pid_t pid, uint32_t generation, uint32_t addr, struct links_end *ret, struct sbx_err *err) SBX_WUR;
/** links_again() - In a child: a socket of its own to the router's rtnetlink for @links, since answers are not to be shared; Return: 0, or -1 with @err set */
int links_again(struct links *links, struct sbx_err *err) SBX_WUR;
/** links_socket() - Descriptor of that socket of @links; @links keeps it */
int links_socket(const struct links *links);
/** links_present() - Whether interface @ifindex still exists in the router of @links; Return: 1, 0 or -errno */
int links_present(struct links *links, uint32_t ifindex);
/** links_name() - Write the router's interface name for @generation into @name */
void links_name(uint32_t generation, char name[IFNAMSIZ]);
/** links_find() - Index of the interface of @generation in the router of @links; Return: index, 0 when there is none, -errno */
int links_find(struct links *links, uint32_t generation);

/**
 * links_conntrack_drop() - Delete every connection of one sandbox's address in the router and wait for the kernel's word
 * @links:	The links
 * @addr:	Address of the slot, host byte order
 * @err:	Filled on failure: SYSTEM
 *
 * Call it after the sandbox's link is gone and before its slot is given out again.
 *
 * Return: entries deleted, or -1 with @err set
 */
int links_conntrack_drop(struct links *links, uint32_t addr, struct sbx_err *err) SBX_WUR;

/** links_conntrack_drop_many() - links_conntrack_drop() for @n addresses with one walk of the table; same results */
int links_conntrack_drop_many(struct links *links, const uint32_t *addr, size_t n, struct sbx_err *err) SBX_WUR;
/* A connection by its first packet; the source is the sandbox's IPv4 address also where @dst is 0 and @dst6 counts. */
typedef void links_conntrack_found(void *arg, uint32_t src, uint32_t dst, struct ip6 dst6, uint32_t mark);
/**
 * links_conntrack_each() - Tell of all connections in the router
 * @links:	The links
 * @sock:	Of links_conntrack_open(); after a failure it may not be used again
 * @found:	Called with source, destination in host byte order (0: @dst6) and mark
 * @arg:	Handed to it
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int links_conntrack_each(const struct links *links, int sock, links_conntrack_found *found, void *arg, struct sbx_err *err) SBX_WUR;
struct links_flow {
	uint32_t src, dst; /* host byte order; dst 0: IPv6 */
	struct ip6 dst6;   /* with the address of src in subnet6 as source */
	uint16_t sport, dport;
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
};
/**
 * links_conntrack_open() - A socket for links_conntrack_each() and links_conntrack_mark()
 * @links:	The links
 * @err:	Filled on failure: SYSTEM
 *
 * Keep it: when one of its kind is closed, the kernel waits for an RCU grace period (10 ms and more) while it holds the lock
 * that every change of the router's table needs.  One process at a time may use it.
 *
 * Return: descriptor, or -1 with @err set
 */
int links_conntrack_open(struct links *links, struct sbx_err *err) SBX_WUR;
/** links_conntrack_mark() - The mark of the connection @flow of a router of @links by the socket @sock into @ret; Return: 0, -ENOENT (there is none) or -errno */
int links_conntrack_mark(const struct links *links, int sock, const struct links_flow *flow, uint32_t *ret);
/** links_conntrack_count() - Connections in the router of @links, all sandboxes together (microseconds); Return: count, or -1, @err set */
int links_conntrack_count(struct links *links, struct sbx_err *err) SBX_WUR;

/**
 * links_dns_sockets() - Make the listeners of sandbox-dnsd: the gateway address, port 53, in the router namespace
 * @links:	The links
 * @ret_udp_fd:	UDP, non-blocking, with IP_PKTINFO; the caller's
 * @ret_tcp_fd:	TCP, listening, non-blocking; the caller's
 * @err:	Filled on failure: SYSTEM
 *
 * Made again for each caller: sockets of a dead dnsd do not stand in the way (SO_REUSEADDR, SO_REUSEPORT).
 *
 * Return: 0, or -1 with @err set
 */
int links_dns_sockets(struct links *links, int *ret_udp_fd, int *ret_tcp_fd, struct sbx_err *err) SBX_WUR;
/** links_dns_sockets6() - As links_dns_sockets() for the router's IPv6 address, with IPV6_RECVPKTINFO; only with network.ipv6 */
int links_dns_sockets6(struct links *links, int *ret_udp_fd, int *ret_tcp_fd, struct sbx_err *err) SBX_WUR;
/**
 * links_gate() - Make the interface of the gate of TLS names, in the place of one that is there, or take that away
 * @links:	The links
 * @on:		Make it
 * @ret_fd:	With @on: its other end (non-blocking; the caller's); the interface lives as long as a copy of it
 * @err:	Filled on failure: HOST_LACKS (no /dev/net/tun), SYSTEM
 *
 * What carries LINKS_GATE_MARK is routed to it; while it is not there such packets have no route.
 *
 * Return: 0, or -1 with @err set
 */
int links_gate(struct links *links, bool on, int *ret_fd, struct sbx_err *err) SBX_WUR;
/** links_router6() - The router's own IPv6 address within @subnet6: name server and sender of what it refuses */
struct ip6 links_router6(const struct ip6_prefix *subnet6);

/**
 * links_netns_socket() - Make a socket in another network namespace
 * @netns_fd:	The namespace
 * @family:	AF_INET, AF_INET6 or AF_NETLINK
 * @type:	As for socket(2); CLOEXEC and NONBLOCK are added
 * @protocol:	As for socket(2)
 *
 * Return: descriptor, or -errno.  Aborts the process when the way back fails: nothing may run in the wrong namespace.
 */
int links_netns_socket(int netns_fd, int family, int type, int protocol);

/**
 * links_check_subnet() - Refuse a subnet that a route of the host covers in part or whole (default routes aside)
 * @addr:	Host byte order
 * @prefix:	Bits
 * @own_dev:	Routes through this interface are ours; may be NULL
 * @err:	Filled: INVALID_REQUEST naming the route, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int links_check_subnet(uint32_t addr, uint32_t prefix, const char *own_dev, struct sbx_err *err) SBX_WUR;

struct links_host_addrs {
	uint32_t addr[256]; /* host byte order, without 127.0.0.0/8 */
	uint32_t n;
	struct ip6 addr6[256]; /* without ::1 */
	uint32_t n6;
	struct ip6 lan6[256]; /* networks around them, 64 bits */
	uint32_t n_lan6;
	bool lan6_truncated; /* it has more networks: nothing else closes them */
	bool truncated; /* the host has more: their ranges stay closed by the private and input rules only */
};
/** links_host_addrs() - Addresses of the host's interfaces (called in the host's namespace) into @ret; Return: 0 or -1, @err set */
int links_host_addrs(struct links_host_addrs *ret, struct sbx_err *err) SBX_WUR;


#define LINKS_IFS_MAX 32
struct links_if_list {
	char name[LINKS_IFS_MAX][IFNAMSIZ];
	uint32_t n;
};
/**
 * links_out_ifs() - Interfaces of the host that sandboxes' packets leave by: those of the default routes and of the allowed prefixes
 * @allow:	network.allow_private
 * @n_allow:	Their number
 * @uplink:	Our own uplink; always the first of the list
 * @ret:	Filled; more than LINKS_IFS_MAX are cut, then those do not forward
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int links_out_ifs(const struct fw_rules_prefix *allow, size_t n_allow, const char *uplink, struct links_if_list *ret,
		  struct sbx_err *err) SBX_WUR;

/**
 * links_out_ifs6() - As links_out_ifs() for IPv6
 * @allow:	Those of network.allow_private
 * @n_allow:	Their number
 * @uplink:	Our own uplink; always the first of the list
 * @ret:	Filled
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int links_out_ifs6(const struct ip6_prefix *allow, size_t n_allow, const char *uplink, struct links_if_list *ret,
		   struct sbx_err *err) SBX_WUR;

/** links_try_lo_up() - Bring lo up in the calling process's network namespace (a probe's own); Return: 0 or -1 */
int links_try_lo_up(void);
/** links_try_gate() - Make the interface of the gate of TLS names in the calling process's network namespace (a probe's own); Return: 0 or -1 */
int links_try_gate(void);
/** links_try_veth() - Make a veth pair in the calling process's network namespace (a probe's own); Return: 0 or -1 */
int links_try_veth(void);

#endif
