/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: refused packets as the kernel logs them
 *
 * Messages of NETLINK_NETFILTER, subsystem ULOG.  The attributes come from the kernel, the packet in them from a sandbox: both
 * are read with the same care.  No allocation, no I/O.
 */
#ifndef NETPOLICY_DNS_NFLOG_H
#define NETPOLICY_DNS_NFLOG_H

#include "base/ip6.h"

#include <stddef.h>
#include <stdint.h>

struct dns_packet {
	uint32_t refusal; /* number in the log's prefix */
	uint32_t source, target; /* IPv4, host byte order; of an IPv6 source the last word, which is it */
	struct ip6 target6; /* where target is 0 */
	uint8_t protocol;
	uint16_t port; /* of the target; 0: the protocol has none, or it is not in this fragment */
};

/**
 * dns_nflog_read() - Read the next logged packet of a datagram
 * @data:	The datagram
 * @len:	Its length
 * @at:		Where to go on; 0 at the beginning, moved behind what was read
 * @ret:	Filled on success
 *
 * Return: 1; 0 at the end; -EBADMSG: the message at @at is none of a packet or malformed, and was skipped when possible (else
 * @at is @len)
 */
int dns_nflog_read(const uint8_t *data, size_t len, size_t *at, struct dns_packet *ret);

#endif
