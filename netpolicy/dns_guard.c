/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/dns_guard.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/num.h"

#define RANGES_MAX     64u
#define HOST_ADDRS_MAX 256u

struct dns_guard {
	const struct settings *settings; /* borrowed */
	struct policy_guards guards;
	struct policy_range sandboxes;
	struct policy_range allowed[RANGES_MAX];
	struct policy_range host[HOST_ADDRS_MAX];
	struct ip6_prefix allowed6[RANGES_MAX];
	struct ip6 host6[HOST_ADDRS_MAX], lan6[HOST_ADDRS_MAX];
	int fd; /* owned; rtnetlink */
	struct loop_fd *source;
};

enum egress_reason dns_guard_refuses(const struct dns_guard *g, const struct policy *policy, uint32_t addr)
{
	return policy_leads_to(policy, &g->guards, addr);
}

enum egress_reason dns_guard_refuses6(const struct dns_guard *g, const struct policy *policy, struct ip6 addr)
{
	return policy_leads_to6(policy, &g->guards, addr);
}

static int parse_range(const char *text, struct policy_range *ret)
{
	size_t n = strcspn(text, "/");
	char addr[INET_ADDRSTRLEN];
	uint32_t wire, bits = 32;

	if (n >= sizeof(addr))
		return -EINVAL;
	memcpy(addr, text, n);
	addr[n] = '\0';
	if (inet_pton(AF_INET, addr, &wire) != 1 || (text[n] && num_u32(text + n + 1, strlen(text + n + 1), 32, &bits) < 0))
		return -EINVAL;
	ret->prefix = bits;
	ret->addr = ntohl(wire) & (uint32_t)(UINT64_C(0xffffffff) << (32 - bits));
	return 0;
}

static void read_host(struct dns_guard *g)
{
	struct ifaddrs *list = NULL;
	size_t n = 0, n6 = 0;

	if (getifaddrs(&list) < 0) {
		log_warn("addresses of this host: %s; keeping those known", strerror(errno));
		return;
	}
	for (const struct ifaddrs *i = list; i && n < HOST_ADDRS_MAX && n6 < HOST_ADDRS_MAX; i = i->ifa_next) {
		struct sockaddr_in6 a6;
		struct sockaddr_in a;

		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET6) {
			memcpy(&a6, i->ifa_addr, sizeof(a6));
			g->host6[n6] = ip6_read(&a6.sin6_addr);
			g->lan6[n6] = ip6_lan(g->host6[n6]);
			n6++;
		}
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET)
			continue;
		memcpy(&a, i->ifa_addr, sizeof(a));
		g->host[n++] = (struct policy_range){ntohl(a.sin_addr.s_addr), 32};
	}
	g->guards.n_host = n;
	g->guards.n_host6 = g->guards.n_lan6 = n6;
	freeifaddrs(list);
}

static void addresses_changed(void *arg, int fd, uint32_t events)
{
	char buf[8192];
	struct dns_guard *g = arg;

	(void)events;
	/* What changed is not looked at; an overrun (ENOBUFS) means the same. */
	while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	read_host(g);
}

static int watch(struct dns_guard *g, struct loop *loop)
{
	struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};

	g->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (g->fd < 0 || bind(g->fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	g->source = loop_fd_add(loop, g->fd, EPOLLIN, addresses_changed, g);
	return g->source ? 0 : -errno;
}

static int take_settings(struct dns_guard *g, struct sbx_err *err)
{
	const struct settings_texts *list = &g->settings->network_allow_private;

	g->sandboxes.prefix = g->settings->subnet_prefix;
	g->sandboxes.addr = g->settings->subnet_addr;
	g->guards = (struct policy_guards){.host = g->host, .sandboxes = &g->sandboxes, .n_sandboxes = 1, .private_allowed = g->allowed,
					  .host6 = g->host6, .lan6 = g->lan6, .private_allowed6 = g->allowed6};
	if (g->settings->network_ipv6)
		g->guards.sandboxes6 = &g->settings->subnet6;
	for (size_t i = 0; i < list->n; i++) {
		if (i < RANGES_MAX && parse_range(list->item[i], &g->allowed[g->guards.n_private_allowed]) == 0)
			g->guards.n_private_allowed++;
		else if (i < RANGES_MAX && ip6_parse(list->item[i], &g->allowed6[g->guards.n_private_allowed6]) == 0)
			g->guards.n_private_allowed6++;
		else
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "network.allow_private: \"%.40s\" is no address or range",
					   list->item[i]);
	}
	return 0;
}

struct dns_guard *dns_guard_new(struct loop *loop, const struct settings *settings, struct sbx_err *err)
{
	struct dns_guard *g = calloc(1, sizeof(*g));
	int r;

	if (!g) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "address ranges");
		return NULL;
	}
	g->fd = -1;
	g->settings = settings;
	if (take_settings(g, err) < 0) {
		dns_guard_free(g);
		return NULL;
	}
	r = watch(g, loop);
	if (r < 0) {
		sbx_err_set(err, SBX_E_SYSTEM, -r, "watch this host's addresses");
		dns_guard_free(g);
		return NULL;
	}
	read_host(g);
	return g;
}

void dns_guard_free(struct dns_guard *guard)
{
	if (!guard)
		return;
	loop_fd_remove(guard->source);
	close_keep_errno(guard->fd);
	free(guard);
}
