/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: which name servers to ask
 *
 * The configured ones, else those of /etc/resolv.conf, which is read again when its directory says that it changed.  At most
 * DNS_UPSTREAMS_MAX.  Each has a state: one that was silent DNS_STRIKES_DOWN times in a row or refuses connections is
 * asked last until a probe is answered.
 */
#ifndef NETPOLICY_DNS_UPSTREAM_H
#define NETPOLICY_DNS_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#define DNS_UPSTREAMS_MAX 10u
#define DNS_STRIKES_DOWN  2u

struct dns_upstream_state {
	bool down;
	bool no_mix;  /* does not repeat the case of letters: proven over TCP, or never once seen to */
	bool no_edns; /* refuses messages with an OPT record */
	unsigned strikes, good_spelling, bad_spelling;
};

struct dns_upstreams {
	struct sockaddr_storage addr[DNS_UPSTREAMS_MAX];
	struct dns_upstream_state state[DNS_UPSTREAMS_MAX];
	size_t n;
	bool configured; /* then resolv.conf is not looked at */
	const char *resolv_conf; /* borrowed */
	uint32_t own_addr; /* our own listener (host byte order): never asked */
	struct timespec changed; /* of resolv_conf as it was read */
	uint64_t inode;
};

/** dns_upstream_parse() - Read "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:53"; Return: 0 or -EINVAL */
int dns_upstream_parse(const char *text, struct sockaddr_storage *ret);
/** dns_upstreams_resolv() - Take the `nameserver` lines of the resolv.conf @text of @len bytes into @u; Return: their number */
size_t dns_upstreams_resolv(struct dns_upstreams *u, const char *text, size_t len);
/**
 * dns_upstreams_refresh() - Read @u->resolv_conf when it changed
 * @u:		The list; what cannot be read leaves it as it is
 *
 * Return: 1 when there are other servers now, 0 when not, -errno
 */
int dns_upstreams_refresh(struct dns_upstreams *u);
/**
 * dns_upstreams_choose() - Which one to ask next
 * @u:		The list
 * @used:	Bit per server that is not to be taken
 *
 * The first in order that is not down, else the first.
 *
 * Return: index, or -ENOENT when all were used
 */
int dns_upstreams_choose(const struct dns_upstreams *u, uint32_t used);
/** dns_upstreams_heard() - @upstream of @u answered */
void dns_upstreams_heard(struct dns_upstreams *u, unsigned upstream);
/** dns_upstreams_silent() - @upstream of @u did not answer in time, or (@refused) refuses; Return: whether it is worth a probe */
bool dns_upstreams_silent(struct dns_upstreams *u, unsigned upstream, bool refused);

#endif
