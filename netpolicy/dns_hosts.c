/* SPDX-License-Identifier: Apache-2.0 */
/* dns.static_hosts: "name=192.0.2.1" or "name=2001:db8::1", one address an item; several items with one name add up. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "netpolicy/dns_answer.h"
#include "netpolicy/dns_judge.h"
#include "netpolicy/fqdn.h"

struct host {
	uint8_t len;
	char name[FQDN_BYTES];
	uint32_t addr; /* 0: addr6 */
	struct ip6 addr6;
};

struct dns_hosts {
	size_t n;
	struct host host[];
};

static int read_item(const char *item, struct host *ret)
{
	const char *equal = strchr(item, '=');
	struct in6_addr wire6;
	struct in_addr wire;
	int len;

	if (!equal)
		return -EINVAL;
	len = fqdn_canonical(item, (size_t)(equal - item), ret->name);
	if (len < 0)
		return -EINVAL;
	ret->len = (uint8_t)len;
	ret->addr = inet_pton(AF_INET, equal + 1, &wire) == 1 ? ntohl(wire.s_addr) : 0;
	ret->addr6 = !ret->addr && inet_pton(AF_INET6, equal + 1, &wire6) == 1 ? ip6_read(&wire6) : (struct ip6){0};
	/* Neither 0.0.0.0 nor :: is the address of a host. */
	return ret->addr || !ip6_none(ret->addr6) ? 0 : -EINVAL;
}

struct dns_hosts *dns_hosts_new(const struct settings *settings, struct sbx_err *err)
{
	const struct settings_texts *list = &settings->dns_static_hosts;
	struct dns_hosts *h = calloc(1, sizeof(*h) + list->n * sizeof(h->host[0]));

	if (!h) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "static hosts");
		return NULL;
	}
	for (size_t i = 0; i < list->n; i++) {
		if (read_item(list->item[i], &h->host[h->n++]) < 0) {
			sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "dns.static_hosts: \"%.60s\" is not name=address", list->item[i]);
			free(h);
			return NULL;
		}
	}
	return h;
}

void dns_hosts_free(struct dns_hosts *hosts)
{
	free(hosts);
}

bool dns_hosts_find(const struct dns_hosts *hosts, const char *name, size_t len, struct dns_answer *answer)
{
	bool known = false;

	for (size_t i = 0; i < hosts->n; i++) {
		const struct host *h = &hosts->host[i];

		if (h->len != len || memcmp(h->name, name, len) != 0)
			continue;
		known = true;
		if (h->addr && answer->type == DNS_TYPE_A && answer->n_addrs < DNS_ADDRS_MAX)
			answer->addr[answer->n_addrs++] = h->addr;
		else if (!h->addr && answer->type == DNS_TYPE_AAAA && answer->n_addrs < DNS_ADDRS6_MAX)
			answer->addr6[answer->n_addrs++] = h->addr6;
	}
	return known;
}
