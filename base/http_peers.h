/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: connections by client address
 *
 * Counts what each address has open, so that one client cannot hold every connection of a server.  An IPv6 address counts by
 * its first 64 bits, which is what one client is given.  One hash table, one node for each address that has a connection.
 */
#ifndef BASE_HTTP_PEERS_H
#define BASE_HTTP_PEERS_H

#include <stdint.h>
#include <sys/socket.h>

#define HTTP_PEERS_BUCKETS 256u

struct http_peer {
	struct http_peer *next;
	uint64_t key; /* family and address */
	unsigned n;   /* open connections */
};

struct http_peers {
	struct http_peer *bucket[HTTP_PEERS_BUCKETS]; /* owned */
};

/** http_peers_enter() - One connection more from @addr; Return: its node, or NULL (not an internet address, or no memory) */
struct http_peer *http_peers_enter(struct http_peers *peers, const struct sockaddr_storage *addr);
/** http_peers_leave() - One less for @peer of @peers; NULL is fine; the last one releases it */
void http_peers_leave(struct http_peers *peers, struct http_peer *peer);

#endif
