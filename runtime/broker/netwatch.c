/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps links, rules and addresses as they have to be.  Four netlink sockets and two timers; the first job after a message
 * about our own table is always to close the uplink.
 */
#include "config.h"

#include "runtime/broker/netwatch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/path.h"

#include "runtime/broker/fw_rules.h"
#include "runtime/broker/fwset.h"
#include "runtime/broker/links.h"
#include "runtime/broker/sysctl_record.h"

/* Docker and firewalld write many rules one by one; looking at each step would only see half of them. */
#define SETTLE_MS 250u
/* After a failure to restore: the uplink is down meanwhile. */
#define RETRY_MS  1000u

struct netwatch {
	struct loop *loop;
	struct links *links;
	struct fw_rules_config rules;
	const char *run_dir;
	struct netwatch_hooks hooks;
	struct fwset *fw; /* owned */
	int host_fd, router_fd, nft_fd, table_fd; /* owned */
	struct loop_fd *host_src, *router_src, *nft_src, *table_src;
	struct loop_timer *settle;
	struct loop_timer *retry, *reload;
	struct buf want; /* text of our table as it was after loading */
	struct links_host_addrs addrs;
	bool open;
	struct {
		bool ours, others, table;
	} seen; /* by the batch of nftables messages that is being read */
};

static void tell_lost(struct netwatch *w, const char *text)
{
	if (w->hooks.rules_lost)
		w->hooks.rules_lost(w->hooks.arg, text);
}

/* ---- sockets ---- */

static int open_watch(int netns_fd, int protocol, const uint32_t *groups, size_t n, struct sbx_err *err)
{
	struct sockaddr_nl at = {.nl_family = AF_NETLINK};
	int size = 1 << 20;
	auto_fd fd = netns_fd < 0 ? socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)
				  : links_netns_socket(netns_fd, AF_NETLINK, SOCK_RAW, protocol);

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, netns_fd < 0 ? errno : -fd, "netlink socket");
	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "bind netlink socket");
	for (size_t i = 0; i < n; i++)
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof(groups[i])) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "join netlink group %u", groups[i]);
	/* A small buffer only costs a full look after ENOBUFS. */
	ignore_result(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0);
	return take_fd(&fd);
}

typedef void message_handler(struct netwatch *w, const struct nlmsghdr *h);

/* Reads all that is there; Return: false when messages were lost or the socket is broken */
static bool read_messages(struct netwatch *w, int fd, message_handler *handler)
{
	static union {
		struct nlmsghdr head;
		uint8_t bytes[32768];
	} buf;

	for (;;) {
		ssize_t n = recv(fd, &buf, sizeof(buf), MSG_DONTWAIT);
		unsigned left = n > 0 ? (unsigned)n : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		for (struct nlmsghdr *h = &buf.head; handler && NLMSG_OK(h, left); h = NLMSG_NEXT(h, left))
			handler(w, h);
	}
}

/* ---- the router: links ---- */

static void on_link(struct netwatch *w, const struct nlmsghdr *h)
{
	const struct ifinfomsg *info = (const void *)((const uint8_t *)h + NLMSG_HDRLEN);

	if (h->nlmsg_type == RTM_DELLINK && h->nlmsg_len >= NLMSG_LENGTH(sizeof(*info)) && info->ifi_index > 0)
		w->hooks.link_gone(w->hooks.arg, (uint32_t)info->ifi_index);
}

/* Of a link's five notices or so only the one of its end is read. */
static int ends_only(int fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELLINK), 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static void router_ready(void *arg, int fd, uint32_t events)
{
	struct netwatch *w = arg;

	(void)events;
	if (!read_messages(w, fd, on_link))
		w->hooks.link_gone(w->hooks.arg, 0);
}

/* ---- the host: addresses, forwarding ---- */

static bool sysctl_exists(const char *path)
{
	char file[128];

	snprintf(file, sizeof(file), "/proc/sys/%s", path);
	return access(file, F_OK) == 0;
}

/*
 * Without a switch for single interfaces (6.17 and later) forwarding is one for the whole host, and a host that forwards
 * neither hears router advertisements nor keeps the default route that they gave it, but for interfaces with accept_ra 2.
 */
static int forward_everywhere(struct netwatch *w, struct sbx_err *err)
{
	struct if_nameindex *all = if_nameindex();
	char path[96], value[16];
	int r = 0;

	if (!all)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "interfaces of the host");
	for (const struct if_nameindex *i = all; r >= 0 && i->if_index; i++) {
		snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/accept_ra", i->if_name);
		if (path_read_head(AT_FDCWD, path, value, sizeof(value)) > 0 && *value == '1')
			r = sysctl_record_set(w->run_dir, path + strlen("/proc/sys/"), "2", err);
	}
	if_freenameindex(all);
	/* The host's own uplink end was told 0 and stays so; interfaces that come later are like those that are there. */
	if (r >= 0 && path_read_head(AT_FDCWD, "/proc/sys/net/ipv6/conf/default/accept_ra", value, sizeof(value)) > 0 && *value == '1')
		r = sysctl_record_set(w->run_dir, "net/ipv6/conf/default/accept_ra", "2", err);
	return r < 0 ? -1 : sysctl_record_set(w->run_dir, "net/ipv6/conf/all/forwarding", "1", err);
}

static int set_forwarding6(struct netwatch *w, struct sbx_err *err)
{
	struct links_if_list list;
	char path[96];

	if (links_out_ifs6(w->rules.allow6, w->rules.n_allow6, links_uplink_host(w->links), &list, err) < 0)
		return -1;
	for (uint32_t i = 0; i < list.n; i++) {
		snprintf(path, sizeof(path), "net/ipv6/conf/%s/force_forwarding", list.name[i]);
		if (!sysctl_exists(path))
			return forward_everywhere(w, err) < 0 ? -1 : 0;
		if (sysctl_record_set(w->run_dir, path, "1", err) < 0)
			return -1;
	}
	return 0;
}

static int set_forwarding(struct netwatch *w, struct sbx_err *err)
{
	struct links_if_list list;
	char path[96];

	if (links_out_ifs(w->rules.allow, w->rules.n_allow, links_uplink_host(w->links), &list, err) < 0)
		return -1;
	for (uint32_t i = 0; i < list.n; i++) {
		snprintf(path, sizeof(path), "net/ipv4/conf/%s/forwarding", list.name[i]);
		if (sysctl_record_set(w->run_dir, path, "1", err) < 0)
			return -1;
	}
	return w->rules.ipv6 ? set_forwarding6(w, err) : 0;
}

/* A network that no rule knows would be the internet to sandboxes: without it, nothing is open. */
static int host_addrs(const struct netwatch *w, struct links_host_addrs *ret, struct sbx_err *err)
{
	if (links_host_addrs(ret, err) < 0)
		return -1;
	if (!w->rules.ipv6 || !ret->lan6_truncated)
		return 0;
	return sbx_err_set(err, SBX_E_LIMIT, 0, "this host has addresses in more than %zu IPv6 networks: network.ipv6 cannot keep sandboxes out of them",
			   ARRAY_SIZE(ret->lan6));
}

static int follow_addrs(struct netwatch *w, struct sbx_err *err)
{
	struct links_host_addrs now;

	if (host_addrs(w, &now, err) < 0)
		return -1;
	if (now.n == w->addrs.n && !memcmp(now.addr, w->addrs.addr, now.n * sizeof(now.addr[0])) && now.n6 == w->addrs.n6 &&
	    !memcmp(now.addr6, w->addrs.addr6, now.n6 * sizeof(now.addr6[0])) && now.n_lan6 == w->addrs.n_lan6 &&
	    !memcmp(now.lan6, w->addrs.lan6, now.n_lan6 * sizeof(now.lan6[0])))
		return 0;
	if (fwset_hosts(w->fw, now.addr, now.n, err) < 0 || (w->rules.ipv6 && fwset_hosts6(w->fw, now.addr6, now.n6, now.lan6, now.n_lan6, err) < 0))
		return -1;
	w->addrs = now;
	return 0;
}

/* ---- the router: rules ---- */

/* Changes of our own come with our port: their notices are dropped before they are queued, a lease costs no wake-up. */
static int watch_table(struct netwatch *w, struct sbx_err *err)
{
	static const uint32_t groups[] = {NFNLGRP_NFTABLES};
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_pid)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(fwset_port_id(w->fw)), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	w->table_fd = open_watch(links_router_fd(w->links), NETLINK_NETFILTER, groups, ARRAY_SIZE(groups), err);
	if (w->table_fd < 0)
		return -1;
	if (setsockopt(w->table_fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "filter of notices about the router's rules");
	return 0;
}

/* The router's table: that of an earlier broker when it is the same and whole, else a new one. */
static int load_router(struct netwatch *w, bool adopt, struct sbx_err *err)
{
	uint64_t version = fw_rules_router_version(&w->rules);
	int ready = adopt ? fwset_ready(w->fw, version, err) : 0;
	struct sbx_err none;

	/* Another version's table, or none: leases that can be read from it are worth keeping, the rest is made anew anyway. */
	if (adopt && ready == 0 && w->hooks.fill)
		ignore_result(w->hooks.fill(w->hooks.arg, w->fw, NETWATCH_FILL_READ, &none));
	if (ready < 0 || (!ready && fw_rules_load_router(&w->rules, links_router_fd(w->links), err) < 0))
		return -1;
	if (fwset_hosts(w->fw, w->addrs.addr, w->addrs.n, err) < 0 || fwset_probe(w->fw, err) < 0 ||
	    (w->rules.ipv6 && fwset_hosts6(w->fw, w->addrs.addr6, w->addrs.n6, w->addrs.lan6, w->addrs.n_lan6, err) < 0))
		return -1;
	int filled = w->hooks.fill ? w->hooks.fill(w->hooks.arg, w->fw, ready ? NETWATCH_FILL_ADOPT : NETWATCH_FILL_FRESH, err) : 0;
	if (filled > 0)
		return load_router(w, false, err);
	if (filled < 0 || (!ready && fwset_release(w->fw, version, err) < 0))
		return -1;
	ignore_result(!read_messages(w, w->table_fd, NULL)); /* about what we loaded */
	return 0;
}

static void reload_router(void *arg)
{
	struct netwatch *w = arg;
	struct sbx_err err;

	if (load_router(w, false, &err) == 0) {
		log_info("rules of the router are back");
		return;
	}
	log_error("restore the router's rules: %s", err.msg);
	tell_lost(w, "the router's rules could not be restored; the network is closed");
	loop_timer_arm(w->reload, RETRY_MS);
}

static void on_table(struct netwatch *w, const struct nlmsghdr *h)
{
	w->seen.table |= (h->nlmsg_type >> 8) == NFNL_SUBSYS_NFTABLES;
}

static void table_ready(void *arg, int fd, uint32_t events)
{
	struct netwatch *w = arg;

	(void)events;
	w->seen.table = false;
	if (!read_messages(w, fd, on_table))
		w->seen.table = true;
	if (!w->seen.table)
		return;
	log_warn("the router's rules were changed by somebody: they are loaded anew");
	tell_lost(w, "the router's rules were changed; they are loaded anew");
	reload_router(w);
}

static void close_uplink(struct netwatch *w)
{
	struct sbx_err err;

	if (!w->open)
		return;
	w->open = false;
	if (links_uplink_set(w->links, false, &err) < 0)
		log_error("cannot take the uplink down: %s", err.msg);
}

static void host_ready(void *arg, int fd, uint32_t events)
{
	struct netwatch *w = arg;
	struct sbx_err err;

	(void)events;
	/* Content and losses mean the same: look at the whole. */
	ignore_result(!read_messages(w, fd, NULL));
	if (!follow_addrs(w, &err) && !set_forwarding(w, &err))
		return;
	/* An address of the host that the router does not know must not be reachable. */
	log_error("network of the host changed: %s", err.msg);
	close_uplink(w);
	tell_lost(w, "the host's addresses could not be followed; the network is closed");
	loop_timer_arm(w->retry, RETRY_MS);
}

/* ---- the host: rules ---- */

/* Attribute 1 of tables, chains, sets and rules is the name of the table. */
_Static_assert((int)NFTA_TABLE_NAME == 1 && (int)NFTA_CHAIN_TABLE == 1 && (int)NFTA_RULE_TABLE == 1 && (int)NFTA_SET_TABLE == 1 &&
		       (int)NFTA_SET_ELEM_LIST_TABLE == 1,
	       "nf_tables.h changed");

static bool names_table(const struct nlmsghdr *h, const char *name)
{
	const uint8_t *data = (const uint8_t *)h + NLMSG_HDRLEN;
	size_t len = h->nlmsg_len - (size_t)NLMSG_HDRLEN, at = (size_t)NLMSG_ALIGN(sizeof(struct nfgenmsg));
	struct nlattr a;

	while (at + sizeof(a) <= len) {
		memcpy(&a, data + at, sizeof(a));
		if (a.nla_len < sizeof(a) || a.nla_len > len - at)
			return false;
		if ((a.nla_type & NLA_TYPE_MASK) == NFTA_TABLE_NAME)
			return a.nla_len - sizeof(a) == strlen(name) + 1 && !memcmp(data + at + sizeof(a), name, strlen(name) + 1);
		at += (a.nla_len + 3u) & ~(size_t)3;
	}
	return false;
}

static bool touches_rules(const struct nlmsghdr *h)
{
	return (h->nlmsg_type >> 8) == NFNL_SUBSYS_NFTABLES && (h->nlmsg_type & 0xff) != NFT_MSG_NEWGEN;
}

static int load_all(struct netwatch *w, struct sbx_err *err)
{
	buf_clear(&w->want);
	if (fw_rules_load_host(&w->rules, err) < 0 || fw_rules_foreign(&w->rules, err) < 0)
		return -1;
	/* Our own messages, and perhaps somebody's in between: the comparison below finds the latter. */
	ignore_result(!read_messages(w, w->nft_fd, NULL));
	switch (fw_rules_host_list(&w->rules, &w->want, err)) {
	case 1:
		return 0;
	case 0:
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "our table is gone right after it was loaded");
	default:
		return -1;
	}
}

static void restore(struct netwatch *w)
{
	struct sbx_err err;

	if (!load_all(w, &err) && !follow_addrs(w, &err) && !set_forwarding(w, &err) && !links_uplink_set(w->links, true, &err)) {
		w->open = true;
		log_info("rules of the host are back, the network is open again");
		return;
	}
	log_error("restore the host's rules: %s", err.msg);
	close_uplink(w);
	tell_lost(w, "the host's rules could not be restored; the network is closed");
	loop_timer_arm(w->retry, RETRY_MS);
}

/* Whether our table is what we loaded. */
static bool intact(struct netwatch *w)
{
	auto_buf now = {.max = 1u << 20};
	struct sbx_err err;

	return fw_rules_host_list(&w->rules, &now, &err) == 1 && buf_used(&now) == buf_used(&w->want) &&
	       !memcmp(buf_peek(&now), buf_peek(&w->want), buf_used(&now));
}


static void on_nft(struct netwatch *w, const struct nlmsghdr *h)
{
	char name[64];

	if (!touches_rules(h))
		return;
	snprintf(name, sizeof(name), "sandboxd-%s", w->rules.instance);
	if (names_table(h, name))
		w->seen.ours = true;
	else
		w->seen.others = true;
}

static void nft_ready(void *arg, int fd, uint32_t events)
{
	struct netwatch *w = arg;

	(void)events;
	w->seen.ours = w->seen.others = false;
	if (!read_messages(w, fd, on_nft))
		w->seen.ours = true;
	if (w->seen.ours && w->open && !intact(w)) {
		close_uplink(w);
		log_warn("our rules on the host were changed or removed: the network is closed until they are back");
		tell_lost(w, "our rules on the host were removed; the network is closed until they are back");
		restore(w);
	}
	if (w->seen.others)
		loop_timer_arm(w->settle, SETTLE_MS);
}

static void settled(void *arg)
{
	struct netwatch *w = arg;
	struct sbx_err err;
	int r = fw_rules_foreign(&w->rules, &err);

	if (r < 0)
		log_warn("forward chains of others: %s", err.msg);
	else if (r)
		log_info("added accept rules for our uplink to forward chains that drop by default");
}

static void retry(void *arg)
{
	restore(arg);
}

/* ---- life ---- */

static int start(struct netwatch *w, struct sbx_err *err)
{
	/* NETCONF: writing ip_forward resets what was set for each interface. */
	static const uint32_t host_groups[] = {RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_NETCONF,
					       RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_NETCONF};
	const size_t n_host_groups = w->rules.ipv6 ? ARRAY_SIZE(host_groups) : ARRAY_SIZE(host_groups) / 2;
	static const uint32_t link_groups[] = {RTNLGRP_LINK};
	static const uint32_t nft_groups[] = {NFNLGRP_NFTABLES};

	/* Listening comes before looking, so that nothing is missed in between. */
	w->router_fd = open_watch(links_router_fd(w->links), NETLINK_ROUTE, link_groups, ARRAY_SIZE(link_groups), err);
	if (w->router_fd >= 0 && ends_only(w->router_fd) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "filter of notices about links");
	w->host_fd = w->router_fd < 0 ? -1 : open_watch(-1, NETLINK_ROUTE, host_groups, n_host_groups, err);
	w->nft_fd = w->host_fd < 0 ? -1 : open_watch(-1, NETLINK_NETFILTER, nft_groups, ARRAY_SIZE(nft_groups), err);
	if (w->nft_fd < 0)
		return -1;
	w->router_src = loop_fd_add(w->loop, w->router_fd, EPOLLIN, router_ready, w);
	w->host_src = loop_fd_add(w->loop, w->host_fd, EPOLLIN, host_ready, w);
	w->nft_src = loop_fd_add(w->loop, w->nft_fd, EPOLLIN, nft_ready, w);
	w->settle = loop_timer_new(w->loop, settled, w);
	w->retry = loop_timer_new(w->loop, retry, w);
	w->reload = loop_timer_new(w->loop, reload_router, w);
	w->fw = fwset_open(links_router_fd(w->links), err);
	if (w->fw)
		fwset_subnet6(w->fw, links_subnet6(w->links));
	if (!w->fw || watch_table(w, err) < 0)
		return -1;
	w->table_src = loop_fd_add(w->loop, w->table_fd, EPOLLIN, table_ready, w);
	if (!w->router_src || !w->host_src || !w->nft_src || !w->table_src || !w->settle || !w->retry || !w->reload)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "watch the network");
	if (host_addrs(w, &w->addrs, err) < 0 || load_router(w, true, err) < 0 ||
	    load_all(w, err) < 0 || set_forwarding(w, err) < 0 || links_uplink_set(w->links, true, err) < 0)
		return -1;
	w->open = true;
	return 0;
}

struct netwatch *netwatch_new(struct loop *loop, struct links *links, const struct fw_rules_config *rules, const char *run_dir,
			      const struct netwatch_hooks *hooks, struct sbx_err *err)
{
	struct netwatch *w = calloc(1, sizeof(*w));
	struct sbx_err second;

	if (!w) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "netwatch");
		return NULL;
	}
	w->loop = loop;
	w->links = links;
	w->rules = *rules;
	w->run_dir = run_dir;
	w->hooks = *hooks;
	w->host_fd = w->router_fd = w->nft_fd = w->table_fd = -1;
	if (!start(w, err))
		return w;
	/* An uplink that an earlier broker left up has perhaps no rules now.  The first error is the one to tell. */
	ignore_result(links_uplink_set(links, false, &second) < 0);
	netwatch_free(w);
	return NULL;
}

void netwatch_free(struct netwatch *watch)
{
	if (!watch)
		return;
	loop_fd_remove(watch->router_src);
	loop_fd_remove(watch->host_src);
	loop_fd_remove(watch->nft_src);
	loop_fd_remove(watch->table_src);
	loop_timer_free(watch->reload);
	fwset_free(watch->fw);
	close_keep_errno(watch->table_fd);
	loop_timer_free(watch->settle);
	loop_timer_free(watch->retry);
	close_keep_errno(watch->router_fd);
	close_keep_errno(watch->host_fd);
	close_keep_errno(watch->nft_fd);
	buf_free(&watch->want);
	free(watch);
}

const struct links_host_addrs *netwatch_hosts(const struct netwatch *watch)
{
	return &watch->addrs;
}

bool netwatch_open(const struct netwatch *watch)
{
	return watch->open;
}
