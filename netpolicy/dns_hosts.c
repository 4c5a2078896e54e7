/* SPDX-License-Identifier: Apache-2.0 */
/* dns.static_hosts: "name=192.0.2.1", one address an item; several items with one name add up. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "netpolicy/dns_judge.h"
#include "netpolicy/fqdn.h"

struct host {
	uint8_t len;
	char name[FQDN_BYTES];
	uint32_t addr;
};

struct dns_hosts {
	size_t n;
	struct host host[];
};

static int read_item(const char *item, struct host *ret)
{
	const char *equal = strchr(item, '=');
	uint32_t wire;
	int len;

	if (!equal)
		return -EINVAL;
	len = fqdn_canonical(item, (size_t)(equal - item), ret->name);
	if (len < 0 || inet_pton(AF_INET, equal + 1, &wire) != 1)
		return -EINVAL;
	ret->len = (uint8_t)len;
	ret->addr = ntohl(wire);
	return 0;
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
			sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "dns.static_hosts: \"%.60s\" is not name=IPv4 address", list->item[i]);
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

size_t dns_hosts_find(const struct dns_hosts *hosts, const char *name, size_t len, uint32_t *out)
{
	size_t n = 0;

	for (size_t i = 0; i < hosts->n && n < DNS_HOSTS_ADDRS; i++)
		if (hosts->host[i].len == len && !memcmp(hosts->host[i].name, name, len))
			out[n++] = hosts->host[i].addr;
	return n;
}
