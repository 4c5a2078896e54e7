/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Router namespace, uplink and veths.  The only file that includes libnl-3; connection tracking, which it does not speak,
 * goes through links_conntrack.c.
 */
#include "config.h"

#include "runtime/broker/links.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/veth.h>
#include <netinet/in.h>
#include <netlink/addr.h>
#include <netlink/cache.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/route.h>
#include <netlink/route/rule.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/path.h"

#include "runtime/broker/fw_rules.h"

/* Both ends of the transfer net of the uplink; seen by nobody but the two routing tables. */
#define UPLINK_HOST_ADDR   0xa9fefd01u /* 169.254.253.1 */
#define UPLINK_ROUTER_ADDR 0xa9fefd02u
/* Next hops only: no interface has them. */
#define UPLINK_HOST_ADDR6   ((struct ip6){UINT64_C(0xfe80) << 48, 0x53420001u})
#define UPLINK_ROUTER_ADDR6 ((struct ip6){UINT64_C(0xfe80) << 48, 0x53420002u})
#define ROUTE_RULE_PRIO	   100u
#define ROUTER_FILE	   "router"
#define ROUTER_UPLINK	   "uplink"
#define LO		   1
#define OWN_IFINDEX	   0x40000000u /* and the generation's bits below it: positive, apart from what the kernel chooses, and not used again for 2^30 lives */
#define TOGETHER_MAX	   5
#define GATE_QUEUE	   4096u /* packets that wait for sandbox-dnsd: two seconds of one sandbox at its bound */

static const uint8_t gateway_mac[6] = {0x02, 0x53, 0x42, 0x58, 0x00, 0x01};
static const uint8_t uplink_host_mac[6] = {0x02, 0x53, 0x42, 0x58, 0x00, 0x02};
static const uint8_t uplink_router_mac[6] = {0x02, 0x53, 0x42, 0x58, 0x00, 0x03};

struct links {
	struct links_config config;
	int host_fd;		/* owned; our own network namespace */
	int router_fd;		/* owned */
	struct nl_sock *host;	/* owned; rtnetlink of the host */
	struct nl_sock *router; /* owned; rtnetlink of the router */
	char uplink[IFNAMSIZ];
};

#define NL_CLEANUP(type, put) \
	static inline void cleanup_##type(struct type *const *p) \
	{ \
		if (*p) \
			put(*p); \
	}
NL_CLEANUP(nl_addr, nl_addr_put)
NL_CLEANUP(nl_msg, nlmsg_free)
NL_CLEANUP(nl_cache, nl_cache_free)
NL_CLEANUP(rtnl_link, rtnl_link_put)
NL_CLEANUP(rtnl_addr, rtnl_addr_put)
NL_CLEANUP(rtnl_neigh, rtnl_neigh_put)
NL_CLEANUP(rtnl_route, rtnl_route_put)
NL_CLEANUP(rtnl_rule, rtnl_rule_put)
#define auto_nl(type) __attribute__((cleanup(cleanup_##type))) struct type *

static int fail_nl(struct sbx_err *err, int nl, const char *what)
{
	return sbx_err_set(err, SBX_E_SYSTEM, 0, "%s: %s", what, nl_geterror(nl));
}

/* ---- namespaces ---- */

/* Everything below it would be done to the wrong host: there is no way to go on. */
static void come_back(int home_fd)
{
	if (setns(home_fd, CLONE_NEWNET) < 0)
		abort();
}

int links_netns_socket(int netns_fd, int family, int type, int protocol)
{
	auto_fd home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int fd;

	if (home < 0 || setns(netns_fd, CLONE_NEWNET) < 0)
		return -errno;
	fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
	if (fd < 0)
		fd = -errno;
	come_back(home);
	return fd;
}

struct netns_sysctl {
	const char *path;
	const char *value;
	bool optional; /* a kernel without IPv6 has none of these */
};

/* /proc/sys/net shows the namespace of the process that looks. */
static int set_sysctls(int netns_fd, const struct netns_sysctl *list, size_t n)
{
	auto_fd home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int r = 0;

	if (home < 0 || setns(netns_fd, CLONE_NEWNET) < 0)
		return -errno;
	for (size_t i = 0; !r && i < n; i++) {
		r = path_write_file(AT_FDCWD, list[i].path, list[i].value, strlen(list[i].value));
		if (r == -ENOENT && list[i].optional)
			r = 0;
	}
	come_back(home);
	return r;
}

static int open_nl(struct nl_sock **ret, int netns_fd, struct sbx_err *err)
{
	auto_fd home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct nl_sock *sock = nl_socket_alloc();
	int r;

	if (!sock)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "netlink socket");
	if (home < 0 || setns(netns_fd, CLONE_NEWNET) < 0) {
		nl_socket_free(sock);
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "enter network namespace");
	}
	r = nl_connect(sock, NETLINK_ROUTE);
	come_back(home);
	if (r < 0) {
		nl_socket_free(sock);
		return fail_nl(err, r, "rtnetlink");
	}
	*ret = sock;
	return 0;
}

/* A process of its own makes the namespace, so that this one never leaves its own without a way back. */
static int make_router(const char *path, struct sbx_err *err)
{
	auto_fd file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int status = 0;
	pid_t pid;

	if (file < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make %s", path);
	pid = fork();
	if (pid < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "fork");
	if (!pid)
		_exit(unshare(CLONE_NEWNET) < 0 || mount("/proc/self/ns/net", path, NULL, MS_BIND, NULL) < 0 ? errno & 0x7f : 0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		unlink(path);
		return sbx_err_set(err, SBX_E_SYSTEM, WIFEXITED(status) ? WEXITSTATUS(status) : EINTR,
				   "make router namespace at %s", path);
	}
	return 0;
}

static bool is_netns(int fd)
{
	struct stat st, own;

	/* All nsfs files are on one device; a left-over plain file is not on it. */
	return fstat(fd, &st) == 0 && stat("/proc/self/ns/net", &own) == 0 && st.st_dev == own.st_dev;
}

static int open_router(struct links *links, struct sbx_err *err)
{
	char path[512];
	int n = snprintf(path, sizeof(path), "%s/" ROUTER_FILE, links->config.run_dir);

	if (n < 0 || (size_t)n >= sizeof(path))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "run directory's path is too long");
	for (int attempt = 0; attempt < 2; attempt++) {
		auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

		if (fd >= 0 && is_netns(fd)) {
			links->router_fd = take_fd(&fd);
			return 0;
		}
		if (fd < 0 && errno != ENOENT)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "open %s", path);
		if (fd >= 0 && unlink(path) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "remove %s", path);
		if (make_router(path, err) < 0)
			return -1;
	}
	return sbx_err_set(err, SBX_E_SYSTEM, 0, "%s is not a network namespace", path);
}

/* ---- single objects ---- */

static struct nl_addr *mac_addr(const uint8_t mac[6])
{
	uint8_t copy[6];

	memcpy(copy, mac, 6);
	return nl_addr_build(AF_LLC, copy, 6);
}

static struct nl_addr *ip_addr(uint32_t addr, uint32_t prefix)
{
	uint32_t wire = htonl(addr);
	struct nl_addr *a = nl_addr_build(AF_INET, &wire, sizeof(wire));

	if (a)
		nl_addr_set_prefixlen(a, (int)prefix);
	return a;
}

static struct nl_addr *ip6_addr(struct ip6 addr, uint32_t prefix)
{
	uint8_t wire[16];

	ip6_write(addr, wire);
	struct nl_addr *a = nl_addr_build(AF_INET6, wire, sizeof(wire));
	if (a)
		nl_addr_set_prefixlen(a, (int)prefix);
	return a;
}

static int ifindex_of(struct nl_sock *sock, const char *name)
{
	auto_nl(rtnl_link) link = NULL;
	int r = rtnl_link_get_kernel(sock, 0, name, &link);

	return r < 0 ? r : rtnl_link_get_ifindex(link);
}

static int set_up(struct nl_sock *sock, int ifindex, bool up)
{
	auto_nl(rtnl_link) change = rtnl_link_alloc();

	if (!change)
		return -NLE_NOMEM;
	rtnl_link_set_ifindex(change, ifindex);
	if (up)
		rtnl_link_set_flags(change, IFF_UP);
	else
		rtnl_link_unset_flags(change, IFF_UP);
	return rtnl_link_change(sock, change, change, 0);
}

/* Sends @msg, which is freed, and waits for the answer. */
static int send_one(struct nl_sock *sock, struct nl_msg *msg)
{
	return msg ? nl_send_sync(sock, msg) : -NLE_NOMEM;
}

static struct nl_msg *new_neigh(int ifindex, struct nl_addr *dst, const uint8_t mac[6])
{
	auto_nl(rtnl_neigh) neigh = rtnl_neigh_alloc();
	auto_nl(nl_addr) lladdr = mac_addr(mac);
	struct nl_msg *msg = NULL;

	if (!neigh || !dst || !lladdr)
		return NULL;
	rtnl_neigh_set_ifindex(neigh, ifindex);
	rtnl_neigh_set_state(neigh, NUD_PERMANENT);
	rtnl_neigh_set_dst(neigh, dst);
	rtnl_neigh_set_lladdr(neigh, lladdr);
	return rtnl_neigh_build_add_request(neigh, NLM_F_CREATE | NLM_F_REPLACE, &msg) < 0 ? NULL : msg;
}

static int add_neigh(struct nl_sock *sock, int ifindex, uint32_t addr, const uint8_t mac[6])
{
	auto_nl(nl_addr) dst = ip_addr(addr, 32);

	return send_one(sock, new_neigh(ifindex, dst, mac));
}

static int add_neigh6(struct nl_sock *sock, int ifindex, struct ip6 addr, const uint8_t mac[6])
{
	auto_nl(nl_addr) dst = ip6_addr(addr, IP6_PREFIX_MAX);

	return send_one(sock, new_neigh(ifindex, dst, mac));
}

struct route {
	int ifindex, family;
	uint32_t table;
	struct nl_addr *to, *gateway; /* borrowed; gateway NULL: the destination is on the link, or with LO local */
};

static struct nl_msg *new_route(const struct route *v)
{
	auto_nl(rtnl_route) route = rtnl_route_alloc();
	struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
	bool local = v->ifindex == LO;
	struct nl_msg *msg = NULL;

	if (!route || !v->to || !hop || rtnl_route_set_dst(route, v->to) < 0) {
		if (hop)
			rtnl_route_nh_free(hop);
		return NULL;
	}
	rtnl_route_nh_set_ifindex(hop, v->ifindex);
	if (v->gateway) {
		rtnl_route_nh_set_gateway(hop, v->gateway);
		rtnl_route_nh_set_flags(hop, RTNH_F_ONLINK);
	}
	rtnl_route_add_nexthop(route, hop);
	rtnl_route_set_family(route, (uint8_t)v->family);
	rtnl_route_set_table(route, v->table);
	rtnl_route_set_scope(route, local ? RT_SCOPE_HOST : v->gateway || v->family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
	rtnl_route_set_protocol(route, RTPROT_STATIC);
	rtnl_route_set_type(route, local ? RTN_LOCAL : RTN_UNICAST);
	return rtnl_route_build_add_request(route, NLM_F_CREATE | NLM_F_REPLACE, &msg) < 0 ? NULL : msg;
}

/* Every address is local, or behind the gate, for what the packet filter marks so. */
static int add_mark_route(struct nl_sock *sock, int family, uint32_t table, int ifindex)
{
	auto_nl(nl_addr) all = family == AF_INET ? ip_addr(0, 0) : ip6_addr((struct ip6){0}, 0);

	return send_one(sock, new_route(&(struct route){.ifindex = ifindex, .family = family, .table = table, .to = all}));
}

/* @via 0: the destination is on the link. */
static int add_route(struct nl_sock *sock, int ifindex, uint32_t dst, uint32_t prefix, uint32_t via)
{
	auto_nl(nl_addr) to = ip_addr(dst, prefix);
	auto_nl(nl_addr) gateway = via ? ip_addr(via, 32) : NULL;

	if (via && !gateway)
		return -NLE_NOMEM;
	return send_one(sock, new_route(&(struct route){ifindex, AF_INET, RT_TABLE_MAIN, to, gateway}));
}

static int add_route6(struct nl_sock *sock, int ifindex, struct ip6_prefix dst, struct ip6 via)
{
	auto_nl(nl_addr) to = ip6_addr(dst.addr, dst.prefix);
	auto_nl(nl_addr) gateway = ip6_none(via) ? NULL : ip6_addr(via, IP6_PREFIX_MAX);

	if (!ip6_none(via) && !gateway)
		return -NLE_NOMEM;
	return send_one(sock, new_route(&(struct route){ifindex, AF_INET6, RT_TABLE_MAIN, to, gateway}));
}

static int put_lo_addr(struct nl_sock *sock, struct nl_addr *local)
{
	auto_nl(rtnl_addr) a = rtnl_addr_alloc();
	int r;

	if (!a || !local)
		return -NLE_NOMEM;
	rtnl_addr_set_ifindex(a, 1);
	if (rtnl_addr_set_local(a, local) < 0)
		return -NLE_INVAL;
	r = rtnl_addr_add(sock, a, 0);
	return r == -NLE_EXIST ? 0 : r;
}

static int add_lo_addr(struct nl_sock *sock, uint32_t addr)
{
	auto_nl(nl_addr) local = ip_addr(addr, 32);

	return put_lo_addr(sock, local);
}

static int add_lo_addr6(struct nl_sock *sock, struct ip6 addr)
{
	auto_nl(nl_addr) local = ip6_addr(addr, IP6_PREFIX_MAX);

	return put_lo_addr(sock, local);
}

/* ---- veth ---- */

struct veth {
	const char *name;
	const uint8_t *mac;
	uint32_t ifindex; /* 0: the kernel chooses */
	bool up;
	const char *peer_name;
	const uint8_t *peer_mac;
	uint32_t peer_ifindex; /* 0: the kernel chooses */
	int peer_netns_fd;     /* -1: by pid */
	pid_t peer_pid;
};

/* By default as many as there may be processors: some kilobytes each, for packets that one sandbox's few senders put into one. */
static int one_queue(struct nl_msg *msg)
{
	int r = nla_put_u32(msg, IFLA_NUM_TX_QUEUES, 1);

	return r < 0 ? r : nla_put_u32(msg, IFLA_NUM_RX_QUEUES, 1);
}

/*
 * One RTM_NEWLINK makes both ends, the far one in its namespace from birth.  Written by hand on libnl's message functions:
 * its veth object cannot say NOARP and index for the peer.  The peer cannot be brought up here (ENOTCONN).
 */
static struct nl_msg *new_veth(const struct veth *v)
{
	auto_nl(nl_msg) msg = nlmsg_alloc_simple(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
	uint32_t noarp = FAULT_POINT("veth-arp") ? 0 : IFF_NOARP;
	struct ifinfomsg end = {.ifi_family = AF_UNSPEC, .ifi_flags = noarp | (v->up ? IFF_UP : 0u), .ifi_index = (int)v->ifindex};
	struct ifinfomsg peer = {.ifi_family = AF_UNSPEC, .ifi_flags = noarp, .ifi_index = (int)v->peer_ifindex};
	struct nlattr *info, *data, *nest;

	end.ifi_change = IFF_NOARP | (v->up ? IFF_UP : 0u);
	peer.ifi_change = IFF_NOARP;
	if (!msg || nlmsg_append(msg, &end, sizeof(end), NLMSG_ALIGNTO) < 0 || nla_put_string(msg, IFLA_IFNAME, v->name) < 0 ||
	    nla_put(msg, IFLA_ADDRESS, 6, v->mac) < 0 || one_queue(msg) < 0)
		return NULL;
	info = nla_nest_start(msg, IFLA_LINKINFO);
	if (!info || nla_put_string(msg, IFLA_INFO_KIND, "veth") < 0)
		return NULL;
	data = nla_nest_start(msg, IFLA_INFO_DATA);
	nest = data ? nla_nest_start(msg, VETH_INFO_PEER) : NULL;
	if (!nest || nlmsg_append(msg, &peer, sizeof(peer), NLMSG_ALIGNTO) < 0 ||
	    nla_put_string(msg, IFLA_IFNAME, v->peer_name) < 0 || nla_put(msg, IFLA_ADDRESS, 6, v->peer_mac) < 0 || one_queue(msg) < 0)
		return NULL;
	if (v->peer_netns_fd >= 0 ? nla_put_u32(msg, IFLA_NET_NS_FD, (uint32_t)v->peer_netns_fd) < 0
				  : nla_put_u32(msg, IFLA_NET_NS_PID, (uint32_t)v->peer_pid) < 0)
		return NULL;
	nla_nest_end(msg, nest);
	nla_nest_end(msg, data);
	nla_nest_end(msg, info);
	return take_ptr(msg);
}

static int add_veth(struct nl_sock *sock, const struct veth *v)
{
	return send_one(sock, new_veth(v));
}

/* All in one message to the kernel; which answers each that fails, and the last.  Frees them.  Return: 0, or the first error, as libnl has it */
static int send_together(struct nl_sock *sock, struct nl_msg *const msg[TOGETHER_MAX], size_t n)
{
	union {
		struct nlmsghdr head;
		char bytes[4096];
	} answer;
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct iovec iov[TOGETHER_MAX];
	struct msghdr all = {.msg_name = &kernel, .msg_namelen = sizeof(kernel), .msg_iov = iov, .msg_iovlen = n};
	int first = 0, r = 0;

	for (size_t i = 0; i < n; i++) {
		struct nlmsghdr *h = msg[i] ? nlmsg_hdr(msg[i]) : NULL;

		if (!h) {
			r = -NLE_NOMEM;
			break;
		}
		h->nlmsg_flags |= (uint16_t)(NLM_F_REQUEST | (i + 1 == n ? NLM_F_ACK : 0));
		h->nlmsg_seq = (uint32_t)i + 1;
		iov[i] = (struct iovec){.iov_base = h, .iov_len = NLMSG_ALIGN(h->nlmsg_len)};
	}
	if (r == 0 && sendmsg(nl_socket_get_fd(sock), &all, 0) < 0)
		r = -nl_syserr2nlerr(errno);
	for (bool last = r < 0; !last;) {
		ssize_t got = recv(nl_socket_get_fd(sock), &answer, sizeof(answer), 0);
		const struct nlmsgerr *e = NLMSG_DATA(&answer.head);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < (ssize_t)NLMSG_LENGTH(sizeof(*e)) || answer.head.nlmsg_type != NLMSG_ERROR) {
			r = got < 0 ? -nl_syserr2nlerr(errno) : -NLE_MSG_TOOSHORT;
			break;
		}
		if (e->error && !first)
			first = -nl_syserr2nlerr(e->error);
		last = answer.head.nlmsg_seq == n;
	}
	for (size_t i = 0; i < n; i++)
		nlmsg_free(msg[i]);
	return r < 0 ? r : first;
}

/* ---- uplink and router ---- */

/* Two instances must not take each other's interface: the name carries a hash of the instance's. */
static void uplink_name(const char *instance, char name[IFNAMSIZ])
{
	uint32_t hash = 2166136261u;

	for (const char *c = instance; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 16777619u;
	snprintf(name, IFNAMSIZ, "sbx%08xu", hash);
}

static const struct netns_sysctl no_ipv6_sysctls[] = {
	{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "1", true},
	{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "1", true},
};

/* No interface makes itself an address or believes what it hears; addr_gen_mode 1 is "none". */
static const struct netns_sysctl ipv6_sysctls[] = {
	{"/proc/sys/net/ipv6/conf/all/addr_gen_mode", "1", false},
	{"/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1", false},
	{"/proc/sys/net/ipv6/conf/all/accept_ra", "0", false},
	{"/proc/sys/net/ipv6/conf/default/accept_ra", "0", false},
	{"/proc/sys/net/ipv6/conf/all/accept_redirects", "0", false},
	{"/proc/sys/net/ipv6/conf/default/accept_redirects", "0", false},
	{"/proc/sys/net/ipv6/conf/all/accept_source_route", "-1", false},
	{"/proc/sys/net/ipv6/conf/default/accept_source_route", "-1", false},
	{"/proc/sys/net/ipv6/conf/default/accept_dad", "0", false},
	{"/proc/sys/net/ipv6/conf/all/forwarding", "1", false},
	{"/proc/sys/net/ipv6/conf/default/forwarding", "1", false},
	{"/proc/sys/net/ipv6/fwmark_reflect", "1", false},
	{"/proc/sys/net/ipv6/icmp/ratelimit", "0", false},
	{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "0", false},
	{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "0", false},
};

static const struct netns_sysctl router_sysctls[] = {
	{"/proc/sys/net/ipv4/ip_forward", "1", false},
	/* What the router says itself goes back by the mark of what it answers. */
	{"/proc/sys/net/ipv4/fwmark_reflect", "1", false},
	/* A refusal is told at once; the packet filter counts them for each sandbox instead. */
	{"/proc/sys/net/ipv4/icmp_ratelimit", "0", false},
	{"/proc/sys/net/ipv4/conf/all/accept_redirects", "0", false},
	{"/proc/sys/net/ipv4/conf/default/accept_redirects", "0", false},
	{"/proc/sys/net/ipv4/conf/all/send_redirects", "0", false},
	{"/proc/sys/net/ipv4/conf/default/send_redirects", "0", false},
	{"/proc/sys/net/ipv4/conf/all/accept_source_route", "0", false},
	{"/proc/sys/net/ipv4/conf/default/accept_source_route", "0", false},
	/* The fib rule of the raw chain checks sources; two checks would have to agree. */
	{"/proc/sys/net/ipv4/conf/all/rp_filter", "0", false},
	{"/proc/sys/net/ipv4/conf/default/rp_filter", "0", false},
	{"/proc/sys/net/ipv4/conf/all/arp_ignore", "8", false},
	{"/proc/sys/net/ipv4/conf/default/arp_ignore", "8", false},
};

static struct rtnl_rule *route_rule(int family, uint32_t prio, uint32_t table)
{
	struct rtnl_rule *rule = rtnl_rule_alloc();

	if (!rule)
		return NULL;
	rtnl_rule_set_family(rule, family);
	rtnl_rule_set_prio(rule, prio);
	rtnl_rule_set_table(rule, table);
	rtnl_rule_set_action(rule, FR_ACT_TO_TBL);
	return rule;
}

/* The routes stay in the main table, but only marked packets are shown it. */
static int guard_routes(struct nl_sock *sock, int family)
{
	static const struct {
		uint32_t prio, table;
	} open_rules[] = {{32766, RT_TABLE_MAIN}, {32767, RT_TABLE_DEFAULT}};
	static const struct {
		uint32_t mark, table;
	} marked[] = {{LINKS_ROUTE_MARK, RT_TABLE_MAIN}, {LINKS_NAMES_MARK, LINKS_NAMES_MARK}, {LINKS_GATE_MARK, LINKS_GATE_MARK}};
	int r;

	if (FAULT_POINT("links-guard"))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(marked); i++) {
		auto_nl(rtnl_rule) rule = route_rule(family, ROUTE_RULE_PRIO, marked[i].table);

		if (!rule)
			return -NLE_NOMEM;
		rtnl_rule_set_mark(rule, marked[i].mark);
		rtnl_rule_set_mask(rule, UINT32_MAX);
		r = rtnl_rule_add(sock, rule, NLM_F_CREATE | NLM_F_EXCL);
		if (r < 0 && r != -NLE_EXIST)
			return r;
	}
	for (size_t i = 0; i < ARRAY_SIZE(open_rules); i++) {
		auto_nl(rtnl_rule) rule = route_rule(family, open_rules[i].prio, open_rules[i].table);

		r = rule ? rtnl_rule_delete(sock, rule, 0) : -NLE_NOMEM;
		if (r < 0 && r != -NLE_OBJ_NOTFOUND)
			return r;
	}
	return 0;
}

static int prepare_router6(struct links *links, struct sbx_err *err)
{
	int r;

	if (!links->config.ipv6) {
		r = set_sysctls(links->router_fd, no_ipv6_sysctls, ARRAY_SIZE(no_ipv6_sysctls));
		return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "sysctls of the router namespace") : 0;
	}
	r = set_sysctls(links->router_fd, ipv6_sysctls, ARRAY_SIZE(ipv6_sysctls));
	if (r < 0)
		return sbx_err_set(err, SBX_E_HOST_LACKS, -r, "network.ipv6 = true, but this kernel has no IPv6 or it is switched off");
	r = guard_routes(links->router, AF_INET6);
	if (r < 0)
		return fail_nl(err, r, "IPv6 routing rules of the router");
	r = add_lo_addr6(links->router, links_router6(&links->config.subnet6));
	if (r < 0)
		return fail_nl(err, r, "IPv6 address of the router");
	r = add_mark_route(links->router, AF_INET6, LINKS_NAMES_MARK, LO);
	return r < 0 ? fail_nl(err, r, "route of the questions for names by IPv6") : 0;
}

static int prepare_router(struct links *links, struct sbx_err *err)
{
	int r = set_sysctls(links->router_fd, router_sysctls, ARRAY_SIZE(router_sysctls));

	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "sysctls of the router namespace");
	r = set_up(links->router, 1, true);
	if (r < 0)
		return fail_nl(err, r, "bring the router's lo up");
	r = guard_routes(links->router, AF_INET);
	if (r < 0)
		return fail_nl(err, r, "routing rules of the router");
	r = add_lo_addr(links->router, LINKS_GATEWAY);
	if (r < 0)
		return fail_nl(err, r, "gateway address of the router");
	r = add_mark_route(links->router, AF_INET, LINKS_NAMES_MARK, LO);
	return r < 0 ? fail_nl(err, r, "route of the questions for names") : prepare_router6(links, err);
}

/* Without it the kernel refuses every route with a gateway, and says no more than "invalid". */
static int check_loopback(struct sbx_err *err)
{
	struct ifreq req = {.ifr_name = "lo"};
	auto_fd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &req) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "ask for the loopback interface");
	return req.ifr_flags & IFF_UP ? 0 : sbx_err_set(err, SBX_E_HOST_LACKS, 0, "the loopback interface is down: ip link set lo up");
}

/* The host's end: no address of its own, so that nothing of the host listens on it. */
static int prepare_uplink6(const struct links *links, struct sbx_err *err)
{
	static const struct {
		const char *name, *value;
	} list[] = {{"addr_gen_mode", "1"}, {"accept_ra", "0"}, {"accept_redirects", "0"}, {"disable_ipv6", "0"}};
	size_t first = links->config.ipv6 ? 0 : ARRAY_SIZE(list) - 1;
	char path[96];
	int r = 0;

	for (size_t i = first; !r && i < ARRAY_SIZE(list); i++) {
		snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", links->uplink, list[i].name);
		r = path_write_file(AT_FDCWD, path, links->config.ipv6 ? list[i].value : "1", 1);
	}
	if (r == -ENOENT && !links->config.ipv6)
		return 0;
	return r < 0 ? sbx_err_set(err, links->config.ipv6 ? SBX_E_HOST_LACKS : SBX_E_SYSTEM, -r, "write %s", path) : 0;
}

static int open_uplink(struct links *links, struct sbx_err *err)
{
	struct veth v = {.name = links->uplink, .mac = uplink_host_mac, .peer_name = ROUTER_UPLINK,
			 .peer_mac = uplink_router_mac, .peer_netns_fd = links->router_fd};
	int host = ifindex_of(links->host, links->uplink), router = ifindex_of(links->router, ROUTER_UPLINK), r;

	if (host > 0 && router > 0)
		return prepare_uplink6(links, err);
	/* An interface without its other half in our router belongs to somebody else, or to a router that is gone and took it. */
	if (host > 0)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "interface %s exists and is not ours", links->uplink);
	r = add_veth(links->host, &v);
	if (r < 0)
		return fail_nl(err, r, "make the uplink");
	return prepare_uplink6(links, err);
}

static int uplink_up6(struct links *links, int host, int router)
{
	static const struct ip6_prefix all;
	int r = add_neigh6(links->host, host, UPLINK_ROUTER_ADDR6, uplink_router_mac);

	r = r < 0 ? r : add_neigh6(links->router, router, UPLINK_HOST_ADDR6, uplink_host_mac);
	r = r < 0 ? r : add_route6(links->host, host, links->config.subnet6, UPLINK_ROUTER_ADDR6);
	return r < 0 ? r : add_route6(links->router, router, all, UPLINK_HOST_ADDR6);
}

static int uplink_up(struct links *links, int host, int router)
{
	int r = set_up(links->router, router, true);

	r = r < 0 ? r : set_up(links->host, host, true);
	r = r < 0 ? r : add_neigh(links->host, host, UPLINK_ROUTER_ADDR, uplink_router_mac);
	r = r < 0 ? r : add_neigh(links->router, router, UPLINK_HOST_ADDR, uplink_host_mac);
	r = r < 0 ? r : add_route(links->host, host, links->config.subnet_addr, links->config.subnet_prefix, UPLINK_ROUTER_ADDR);
	r = r < 0 ? r : add_route(links->router, router, 0, 0, UPLINK_HOST_ADDR);
	return r < 0 || !links->config.ipv6 ? r : uplink_up6(links, host, router);
}

int links_uplink_set(struct links *links, bool up, struct sbx_err *err)
{
	int host = ifindex_of(links->host, links->uplink), router = ifindex_of(links->router, ROUTER_UPLINK), r;

	if (up && check_loopback(err) < 0)
		return -1;
	if (host < 0 || router < 0)
		return fail_nl(err, host < 0 ? host : router, "find the uplink");
	/* Down: the kernel removes the routes through it. */
	r = up ? uplink_up(links, host, router) : set_up(links->host, host, false);
	return r < 0 ? fail_nl(err, r, up ? "take the uplink up" : "take the uplink down") : 0;
}

static int check_subnet6(struct links *links, struct sbx_err *err);

struct links *links_open(const struct links_config *config, struct sbx_err *err)
{
	struct links *links = calloc(1, sizeof(*links));

	if (!links) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "links");
		return NULL;
	}
	links->config = *config;
	links->router_fd = -1;
	links->host_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	uplink_name(config->instance, links->uplink);
	if (links->host_fd < 0)
		sbx_err_set(err, SBX_E_SYSTEM, errno, "open own network namespace");
	else if (!links_check_subnet(config->subnet_addr, config->subnet_prefix, links->uplink, err) && !open_router(links, err) &&
		 !open_nl(&links->host, links->host_fd, err) && !open_nl(&links->router, links->router_fd, err) &&
		 !check_subnet6(links, err) && !prepare_router(links, err) && !open_uplink(links, err))
		return links;
	sbx_err_wrap(err, "network of instance %s", config->instance);
	links_free(links);
	return NULL;
}

void links_free(struct links *links)
{
	if (!links)
		return;
	if (links->host)
		nl_socket_free(links->host);
	if (links->router)
		nl_socket_free(links->router);
	close_keep_errno(links->host_fd);
	close_keep_errno(links->router_fd);
	free(links);
}

int links_purge(struct links *links, struct sbx_err *err)
{
	char path[512];
	int host = ifindex_of(links->host, links->uplink), r = 0;

	if (host > 0) {
		auto_nl(rtnl_link) link = rtnl_link_alloc();

		if (!link)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "uplink");
		rtnl_link_set_ifindex(link, host);
		r = rtnl_link_delete(links->host, link);
	}
	snprintf(path, sizeof(path), "%s/" ROUTER_FILE, links->config.run_dir);
	if (umount2(path, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "unmount %s", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "remove %s", path);
	return r < 0 ? fail_nl(err, r, "remove the uplink") : 0;
}

const struct ip6_prefix *links_subnet6(const struct links *links)
{
	return links->config.ipv6 ? &links->config.subnet6 : NULL;
}

struct ip6 links_router6(const struct ip6_prefix *subnet6)
{
	return ip6_of_slot(subnet6, LINKS_GATEWAY); /* no sandbox's: their IPv4 addresses are others */
}

int links_router_fd(const struct links *links)
{
	return links->router_fd;
}

const char *links_uplink_host(const struct links *links)
{
	return links->uplink;
}

const char *links_uplink_router(const struct links *links)
{
	(void)links; /* the router is its own namespace: one name does for all instances */
	return ROUTER_UPLINK;
}

/* ---- sandboxes ---- */

uint32_t links_addr(const struct links_config *config, uint32_t slot)
{
	uint64_t size = UINT64_C(1) << (32 - config->subnet_prefix);

	/* Neither the first nor the last address of the subnet: some programs take these for broadcasts. */
	return slot + UINT64_C(2) < size ? config->subnet_addr + 1 + slot : 0;
}

void links_name(uint32_t generation, char name[IFNAMSIZ])
{
	snprintf(name, IFNAMSIZ, "s%08x", generation);
}

/* The link, who is at its other end, and the way there: the index is ours, so none has to wait for the one before. */
static int make_link(struct links *links, const struct veth *v, uint32_t addr)
{
	const int index = (int)v->ifindex;
	auto_nl(nl_addr) four = ip_addr(addr, 32);
	auto_nl(nl_addr) six = links->config.ipv6 ? ip6_addr(ip6_of_slot(&links->config.subnet6, addr), IP6_PREFIX_MAX) : NULL;
	struct nl_msg *msg[TOGETHER_MAX] = {new_veth(v), new_neigh(index, four, v->peer_mac),
					    new_route(&(struct route){index, AF_INET, RT_TABLE_MAIN, four, NULL})};

	if (!links->config.ipv6)
		return send_together(links->router, msg, 3);
	msg[3] = new_neigh(index, six, v->peer_mac);
	msg[4] = new_route(&(struct route){index, AF_INET6, RT_TABLE_MAIN, six, NULL});
	return send_together(links->router, msg, 5);
}

int links_attach(struct links *links, pid_t pid, uint32_t generation, uint32_t addr, struct links_end *ret, struct sbx_err *err)
{
	struct links_end end = {.ifindex = OWN_IFINDEX | (generation & (OWN_IFINDEX - 1))};
	struct veth v = {.name = end.ifname, .mac = gateway_mac, .ifindex = end.ifindex, .up = true, .peer_name = "eth0", .peer_mac = end.own_mac,
			 .peer_ifindex = LINKS_PEER_IFINDEX, .peer_netns_fd = -1, .peer_pid = pid};
	uint32_t wire = htonl(addr);
	int r;

	memcpy(end.gateway_mac, gateway_mac, 6);
	end.own_mac[0] = 0x02;
	memcpy(end.own_mac + 2, &wire, 4);
	links_name(generation, end.ifname);
	if (FAULT_POINT("links-attach"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "make link %s", end.ifname);
	r = make_link(links, &v, addr);
	if (r < 0)
		return fail_nl(err, r, "make link of the sandbox");
	*ret = end;
	return 0;
}

int links_again(struct links *links, struct sbx_err *err)
{
	struct nl_sock *router = NULL;

	if (open_nl(&router, links->router_fd, err) < 0)
		return -1;
	nl_socket_free(links->router);
	links->router = router;
	return 0;
}

int links_socket(const struct links *links)
{
	return nl_socket_get_fd(links->router);
}

int links_find(struct links *links, uint32_t generation)
{
	char name[IFNAMSIZ];
	int r;

	links_name(generation, name);
	r = ifindex_of(links->router, name);
	if (r == -NLE_NODEV || r == -NLE_OBJ_NOTFOUND)
		return 0;
	return r < 0 ? -EIO : r;
}

int links_present(struct links *links, uint32_t ifindex)
{
	auto_nl(rtnl_link) link = NULL;
	int r = rtnl_link_get_kernel(links->router, (int)ifindex, NULL, &link);

	if (r == -NLE_NODEV || r == -NLE_OBJ_NOTFOUND)
		return 0;
	return r < 0 ? -EIO : 1;
}

static int dns_socket(struct links *links, int type, struct sbx_err *err)
{
	/* Whatever address a sandbox asks: IP_TRANSPARENT lets the answer have it as its source. */
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(INADDR_ANY)};
	auto_fd fd = links_netns_socket(links->router_fd, AF_INET, type, 0);
	int on = 1;
	uint32_t mark = LINKS_ROUTE_MARK;

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -fd, "socket of the name server");
	if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 || setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof(on)) < 0 ||
	    (type == SOCK_DGRAM && setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) < 0) ||
	    bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 || (type == SOCK_STREAM && listen(fd, 256) < 0))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "bind the name server's socket");
	return take_fd(&fd);
}

/* ---- the gate of TLS names ---- */

/* It belongs to the namespace of who opens it.  Return: descriptor or -errno */
static int open_tun_here(void)
{
	struct ifreq req = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	auto_fd fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", LINKS_GATE);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &req) < 0)
		return -errno;
	return take_fd(&fd);
}

static int open_tun(int router_fd)
{
	auto_fd home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int fd;

	if (home < 0 || setns(router_fd, CLONE_NEWNET) < 0)
		return -errno;
	fd = open_tun_here();
	come_back(home);
	return fd;
}

int links_try_gate(void)
{
	auto_fd fd = open_tun_here();

	return fd < 0 ? -1 : 0;
}

static int drop_link(struct nl_sock *sock, const char *name)
{
	auto_nl(rtnl_link) link = NULL;
	int r = rtnl_link_get_kernel(sock, 0, name, &link);

	if (r < 0)
		return r == -NLE_OBJ_NOTFOUND || r == -NLE_NODEV ? 0 : r;
	return rtnl_link_delete(sock, link);
}

static int gate_up(struct links *links)
{
	auto_nl(rtnl_link) change = rtnl_link_alloc();
	int ifindex = ifindex_of(links->router, LINKS_GATE), r;

	if (!change || ifindex < 0)
		return change ? ifindex : -NLE_NOMEM;
	rtnl_link_set_ifindex(change, ifindex);
	rtnl_link_set_flags(change, IFF_UP);
	/* As long as any that comes in: nothing is cut or refused on this way. */
	rtnl_link_set_mtu(change, 65535);
	rtnl_link_set_txqlen(change, GATE_QUEUE);
	r = rtnl_link_change(links->router, change, change, 0);
	r = r < 0 ? r : add_mark_route(links->router, AF_INET, LINKS_GATE_MARK, ifindex);
	return r < 0 || !links->config.ipv6 ? r : add_mark_route(links->router, AF_INET6, LINKS_GATE_MARK, ifindex);
}

int links_gate(struct links *links, bool on, int *ret_fd, struct sbx_err *err)
{
	auto_fd fd = -1;
	int r = drop_link(links->router, LINKS_GATE);

	if (r < 0)
		return fail_nl(err, r, "take the former gate of TLS names away");
	if (!on)
		return 0;
	fd = open_tun(links->router_fd);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_HOST_LACKS, -fd, "egress.tls_gate needs /dev/net/tun (modprobe tun), or set it to off");
	r = gate_up(links);
	if (r < 0)
		return fail_nl(err, r, "interface of the gate of TLS names");
	*ret_fd = take_fd(&fd);
	return 0;
}

int links_dns_sockets(struct links *links, int *ret_udp_fd, int *ret_tcp_fd, struct sbx_err *err)
{
	auto_fd udp = dns_socket(links, SOCK_DGRAM, err);
	auto_fd tcp = udp < 0 ? -1 : dns_socket(links, SOCK_STREAM, err);

	if (udp < 0 || tcp < 0)
		return -1;
	*ret_udp_fd = take_fd(&udp);
	*ret_tcp_fd = take_fd(&tcp);
	return 0;
}

static int dns_socket6(struct links *links, int type, struct sbx_err *err)
{
	struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(53)}; /* any address, as dns_socket() */
	auto_fd fd = links_netns_socket(links->router_fd, AF_INET6, type, 0);
	int on = 1;
	uint32_t mark = LINKS_ROUTE_MARK;

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -fd, "IPv6 socket of the name server");
	if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &on, sizeof(on)) < 0 ||
	    (type == SOCK_DGRAM && setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on)) < 0) ||
	    bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 || (type == SOCK_STREAM && listen(fd, 256) < 0))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "bind the name server's IPv6 socket");
	return take_fd(&fd);
}

int links_dns_sockets6(struct links *links, int *ret_udp_fd, int *ret_tcp_fd, struct sbx_err *err)
{
	auto_fd udp = dns_socket6(links, SOCK_DGRAM, err);
	auto_fd tcp = udp < 0 ? -1 : dns_socket6(links, SOCK_STREAM, err);

	if (udp < 0 || tcp < 0)
		return -1;
	*ret_udp_fd = take_fd(&udp);
	*ret_tcp_fd = take_fd(&tcp);
	return 0;
}

/* ---- the host's routes and addresses ---- */

static uint32_t mask_of(uint32_t prefix)
{
	return prefix ? ~UINT32_C(0) << (32 - prefix) : 0;
}

struct overlap_search {
	uint32_t addr, prefix;
	int own_ifindex;
	uint32_t found_addr, found_prefix;
	struct ip6_prefix subnet6, found6;
	bool found;
};

static void check_route(struct nl_object *object, void *arg)
{
	struct rtnl_route *route = (struct rtnl_route *)object;
	struct overlap_search *search = arg;
	struct nl_addr *dst = rtnl_route_get_dst(route);
	struct rtnl_nexthop *hop = rtnl_route_nexthop_n(route, 0);
	uint32_t wire, addr, prefix, shorter;

	if (!dst || nl_addr_get_len(dst) != sizeof(wire) || rtnl_route_get_table(route) == RT_TABLE_LOCAL)
		return;
	if (hop && search->own_ifindex > 0 && rtnl_route_nh_get_ifindex(hop) == search->own_ifindex)
		return;
	memcpy(&wire, nl_addr_get_binary_addr(dst), sizeof(wire));
	addr = ntohl(wire);
	prefix = nl_addr_get_prefixlen(dst);
	/* The default route, also split in two as VPNs do, covers everything by intent. */
	if (prefix <= 1)
		return;
	shorter = prefix < search->prefix ? prefix : search->prefix;
	if ((addr & mask_of(shorter)) != (search->addr & mask_of(shorter)) || search->found)
		return;
	search->found = true;
	search->found_addr = addr;
	search->found_prefix = prefix;
}

int links_check_subnet(uint32_t addr, uint32_t prefix, const char *own_dev, struct sbx_err *err)
{
	struct overlap_search search = {.addr = addr, .prefix = prefix};
	auto_nl(nl_cache) routes = NULL;
	char text[INET_ADDRSTRLEN], other[INET_ADDRSTRLEN];
	struct nl_sock *sock;
	uint32_t wire = htonl(addr);
	int r;

	inet_ntop(AF_INET, &wire, text, sizeof(text));
	if (prefix < 8 || prefix > 28 || (addr & ~mask_of(prefix)))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "network.subnet %s/%u: want a prefix of 8 to 28 with no host bits",
				   text, prefix);
	sock = nl_socket_alloc();
	if (!sock)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "netlink socket");
	r = nl_connect(sock, NETLINK_ROUTE);
	if (!r && own_dev)
		search.own_ifindex = ifindex_of(sock, own_dev);
	if (!r)
		r = rtnl_route_alloc_cache(sock, AF_INET, 0, &routes);
	nl_socket_free(sock);
	if (r < 0)
		return fail_nl(err, r, "list the host's routes");
	nl_cache_foreach(routes, check_route, &search);
	if (!search.found)
		return 0;
	wire = htonl(search.found_addr);
	inet_ntop(AF_INET, &wire, other, sizeof(other));
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
			   "network.subnet %s/%u overlaps the host's route to %s/%u: choose another one", text, prefix, other,
			   search.found_prefix);
}

/* Another instance's route lies beside ours or is refused here; default routes cover everything by intent. */
static void check_route6(struct nl_object *object, void *arg)
{
	struct rtnl_route *route = (struct rtnl_route *)object;
	struct overlap_search *search = arg;
	struct nl_addr *dst = rtnl_route_get_dst(route);
	struct rtnl_nexthop *hop = rtnl_route_nexthop_n(route, 0);
	struct ip6_prefix to;

	if (!dst || nl_addr_get_len(dst) != sizeof(struct in6_addr) || rtnl_route_get_table(route) == RT_TABLE_LOCAL ||
	    rtnl_route_get_type(route) != RTN_UNICAST || (hop && search->own_ifindex > 0 && rtnl_route_nh_get_ifindex(hop) == search->own_ifindex))
		return;
	to = (struct ip6_prefix){ip6_read(nl_addr_get_binary_addr(dst)), nl_addr_get_prefixlen(dst)};
	if (to.prefix > 3 && (to.prefix < search->subnet6.prefix ? ip6_in(search->subnet6.addr, &to) : ip6_in(to.addr, &search->subnet6))) {
		search->found = true;
		search->found6 = to;
	}
}

static int check_subnet6(struct links *links, struct sbx_err *err)
{
	struct overlap_search search = {.subnet6 = links->config.subnet6, .own_ifindex = ifindex_of(links->host, links->uplink)};
	char ours[INET6_ADDRSTRLEN], other[INET6_ADDRSTRLEN];
	auto_nl(nl_cache) routes = NULL;
	int r;

	if (!links->config.ipv6)
		return 0;
	r = rtnl_route_alloc_cache(links->host, AF_INET6, 0, &routes);
	if (r < 0)
		return fail_nl(err, r, "list the host's IPv6 routes");
	nl_cache_foreach(routes, check_route6, &search);
	if (!search.found)
		return 0;
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "network.subnet_v6 %s/%u overlaps the host's route to %s/%u: choose another one",
			   ip6_text(search.subnet6.addr, ours), search.subnet6.prefix, ip6_text(search.found6.addr, other), search.found6.prefix);
}

static void take_lan6(struct ip6 lan, struct links_host_addrs *list)
{
	if (ip6_none(lan) || ip6_in_lan(lan, list->lan6, list->n_lan6))
		return;
	if (list->n_lan6 == ARRAY_SIZE(list->lan6))
		list->lan6_truncated = true;
	else
		list->lan6[list->n_lan6++] = lan;
}

static void take_addr6(const struct nl_addr *local, struct links_host_addrs *list)
{
	struct ip6 addr = ip6_read(nl_addr_get_binary_addr(local));

	if (ip6_same(addr, (struct ip6){0, 1}))
		return;
	take_lan6(ip6_lan(addr), list);
	for (uint32_t i = 0; i < list->n6; i++)
		if (ip6_same(list->addr6[i], addr))
			return;
	if (list->n6 == ARRAY_SIZE(list->addr6))
		list->truncated = true;
	else
		list->addr6[list->n6++] = addr;
}

static void take_addr(struct nl_object *object, void *arg)
{
	struct nl_addr *local = rtnl_addr_get_local((struct rtnl_addr *)object);
	struct links_host_addrs *list = arg;
	uint32_t wire, addr;

	if (local && nl_addr_get_len(local) == sizeof(struct in6_addr))
		take_addr6(local, list);
	if (!local || nl_addr_get_len(local) != sizeof(wire))
		return;
	memcpy(&wire, nl_addr_get_binary_addr(local), sizeof(wire));
	addr = ntohl(wire);
	if (addr >> 24 == 127)
		return;
	for (uint32_t i = 0; i < list->n; i++)
		if (list->addr[i] == addr)
			return;
	if (list->n == ARRAY_SIZE(list->addr))
		list->truncated = true;
	else
		list->addr[list->n++] = addr;
}

int links_host_addrs(struct links_host_addrs *ret, struct sbx_err *err)
{
	struct nl_sock *sock = nl_socket_alloc();
	auto_nl(nl_cache) addrs = NULL;
	int r;

	if (!sock)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "netlink socket");
	r = nl_connect(sock, NETLINK_ROUTE);
	if (!r)
		r = rtnl_addr_alloc_cache(sock, &addrs);
	nl_socket_free(sock);
	if (r < 0)
		return fail_nl(err, r, "list the host's addresses");
	memset(ret, 0, sizeof(*ret));
	nl_cache_foreach(addrs, take_addr, ret);
	return 0;
}

struct out_search {
	const struct fw_rules_prefix *allow;
	const struct ip6_prefix *allow6;
	size_t n_allow;
	struct nl_sock *sock;
	struct links_if_list *list;
};

static void take_if(struct out_search *search, int ifindex)
{
	auto_nl(rtnl_link) link = NULL;
	struct links_if_list *list = search->list;
	const char *name;

	if (ifindex <= 1 || list->n == LINKS_IFS_MAX || rtnl_link_get_kernel(search->sock, ifindex, NULL, &link) < 0)
		return;
	name = rtnl_link_get_name(link);
	for (uint32_t i = 0; i < list->n; i++)
		if (!strcmp(list->name[i], name))
			return;
	snprintf(list->name[list->n++], IFNAMSIZ, "%s", name);
}

static void take_route(struct nl_object *object, void *arg)
{
	struct rtnl_route *route = (struct rtnl_route *)object;
	struct out_search *search = arg;
	struct nl_addr *dst = rtnl_route_get_dst(route);
	uint32_t wire = 0, addr, prefix = dst ? nl_addr_get_prefixlen(dst) : 0;
	bool wanted = prefix <= 1;

	if (rtnl_route_get_table(route) == RT_TABLE_LOCAL || rtnl_route_get_type(route) != RTN_UNICAST)
		return;
	if (dst && nl_addr_get_len(dst) == sizeof(wire))
		memcpy(&wire, nl_addr_get_binary_addr(dst), sizeof(wire));
	addr = ntohl(wire);
	for (size_t i = 0; !wanted && i < search->n_allow; i++) {
		uint32_t shorter = prefix < search->allow[i].prefix ? prefix : search->allow[i].prefix;

		wanted = (addr & mask_of(shorter)) == (search->allow[i].addr & mask_of(shorter));
	}
	for (int i = 0; wanted && i < rtnl_route_get_nnexthops(route); i++)
		take_if(search, rtnl_route_nh_get_ifindex(rtnl_route_nexthop_n(route, i)));
}

static void take_route6(struct nl_object *object, void *arg)
{
	struct rtnl_route *route = (struct rtnl_route *)object;
	struct out_search *search = arg;
	struct nl_addr *dst = rtnl_route_get_dst(route);
	struct ip6_prefix to = {.prefix = dst ? nl_addr_get_prefixlen(dst) : 0};
	bool wanted = to.prefix <= 3; /* 2000::/3 is a default route too */

	if (rtnl_route_get_table(route) == RT_TABLE_LOCAL || rtnl_route_get_type(route) != RTN_UNICAST)
		return;
	if (dst && nl_addr_get_len(dst) == sizeof(struct in6_addr))
		to.addr = ip6_read(nl_addr_get_binary_addr(dst));
	for (size_t i = 0; !wanted && i < search->n_allow; i++)
		wanted = to.prefix < search->allow6[i].prefix ? ip6_in(search->allow6[i].addr, &to) : ip6_in(to.addr, &search->allow6[i]);
	for (int i = 0; wanted && i < rtnl_route_get_nnexthops(route); i++)
		take_if(search, rtnl_route_nh_get_ifindex(rtnl_route_nexthop_n(route, i)));
}

static int out_ifs(struct out_search *search, int family, const char *uplink, struct sbx_err *err)
{
	auto_nl(nl_cache) routes = NULL;
	int r;

	search->sock = nl_socket_alloc();
	if (!search->sock)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "netlink socket");
	memset(search->list, 0, sizeof(*search->list));
	snprintf(search->list->name[search->list->n++], IFNAMSIZ, "%s", uplink);
	r = nl_connect(search->sock, NETLINK_ROUTE);
	if (!r)
		r = rtnl_route_alloc_cache(search->sock, family, 0, &routes);
	if (!r)
		nl_cache_foreach(routes, family == AF_INET ? take_route : take_route6, search);
	nl_socket_free(search->sock);
	return r < 0 ? fail_nl(err, r, "list the host's routes") : 0;
}

int links_out_ifs6(const struct ip6_prefix *allow, size_t n_allow, const char *uplink, struct links_if_list *ret, struct sbx_err *err)
{
	struct out_search search = {.allow6 = allow, .n_allow = n_allow, .list = ret};

	return out_ifs(&search, AF_INET6, uplink, err);
}

int links_out_ifs(const struct fw_rules_prefix *allow, size_t n_allow, const char *uplink, struct links_if_list *ret,
		  struct sbx_err *err)
{
	struct out_search search = {.allow = allow, .n_allow = n_allow, .list = ret};

	return out_ifs(&search, AF_INET, uplink, err);
}

int links_try_lo_up(void)
{
	struct nl_sock *sock = nl_socket_alloc();
	int r = sock && !nl_connect(sock, NETLINK_ROUTE) ? set_up(sock, 1, true) : -1;

	if (sock)
		nl_socket_free(sock);
	return r < 0 ? -1 : 0;
}

int links_try_veth(void)
{
	struct veth v = {.name = "probe0", .mac = uplink_host_mac, .peer_name = "probe1", .peer_mac = uplink_router_mac};
	struct nl_sock *sock = nl_socket_alloc();
	auto_fd here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int r = -1;

	v.peer_netns_fd = here;
	if (sock && here >= 0 && !nl_connect(sock, NETLINK_ROUTE))
		r = add_veth(sock, &v) < 0 ? -1 : 0;
	if (sock)
		nl_socket_free(sock);
	return r;
}
