// SPDX-License-Identifier: Apache-2.0
#include "base/http_peers.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool key_of(const struct sockaddr_storage *addr, uint64_t *ret)
{
	struct sockaddr_in6 in6;
	struct sockaddr_in in;
	uint32_t v4;

	if (addr->ss_family == AF_INET) {
		memcpy(&in, addr, sizeof(in));
		*ret = in.sin_addr.s_addr;
		return true;
	}
	if (addr->ss_family != AF_INET6)
		return false;
	memcpy(&in6, addr, sizeof(in6));
	memcpy(&v4, in6.sin6_addr.s6_addr + 12, sizeof(v4));
	if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
		*ret = v4;
	else
		memcpy(ret, in6.sin6_addr.s6_addr, sizeof(*ret)); /* no /64 of somebody's begins with 32 zero bits but ::1's own */
	return true;
}

static struct http_peer **place(struct http_peers *peers, uint64_t key)
{
	return &peers->bucket[(key * UINT64_C(0x9e3779b97f4a7c15)) >> 56];
}

struct http_peer *http_peers_enter(struct http_peers *peers, const struct sockaddr_storage *addr)
{
	uint64_t key;

	if (!key_of(addr, &key))
		return NULL;
	struct http_peer **head = place(peers, key), *p = *head;
	while (p && p->key != key)
		p = p->next;
	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p)
			return NULL;
		p->key = key;
		p->next = *head;
		*head = p;
	}
	p->n++;
	return p;
}

void http_peers_leave(struct http_peers *peers, struct http_peer *peer)
{
	if (!peer || --peer->n)
		return;
	struct http_peer **at = place(peers, peer->key);
	while (*at != peer)
		at = &(*at)->next;
	*at = peer->next;
	free(peer);
}
