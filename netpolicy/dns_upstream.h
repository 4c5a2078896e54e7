/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: which name servers to ask
 *
 * The configured ones, else those of /etc/resolv.conf, which is read again when it changed.  At most DNS_UPSTREAMS_MAX.
 */
#ifndef NETPOLICY_DNS_UPSTREAM_H
#define NETPOLICY_DNS_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#define DNS_UPSTREAMS_MAX 10u

struct dns_upstreams {
	struct sockaddr_storage addr[DNS_UPSTREAMS_MAX];
	size_t n;
	bool configured; /* then resolv.conf is not looked at */
	const char *resolv_conf; /* borrowed */
	struct timespec changed; /* of resolv_conf as it was read */
	uint64_t inode;
};

/** dns_upstream_parse() - Read "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:53"; Return: 0 or -EINVAL */
int dns_upstream_parse(const char *text, struct sockaddr_storage *ret);
/** dns_upstreams_resolv() - Take the `nameserver` lines of the resolv.conf @text of @len bytes into @u; Return: their number */
size_t dns_upstreams_resolv(struct dns_upstreams *u, const char *text, size_t len);
/** dns_upstreams_refresh() - Read @u->resolv_conf when it changed; what cannot be read leaves @u as it is; Return: 0 or -errno */
int dns_upstreams_refresh(struct dns_upstreams *u);

#endif
