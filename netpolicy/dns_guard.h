/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: addresses that a name may not lead to
 *
 * A name server of the internet that answers with an address of our own network turns an allowed name into a way inside
 * (rebinding).  Loopback, link-local, this host and other sandboxes are taken out of every answer; private ranges stay when
 * an address rule of the sandbox or network.allow_private names them.  The kernel's rules refuse the same (policy.h); this is so that the agent is told "there is no address" and an event says why.
 */
#ifndef NETPOLICY_DNS_GUARD_H
#define NETPOLICY_DNS_GUARD_H

#include "base/err.h"
#include "base/ip6.h"
#include "base/loop.h"
#include "base/settings.h"
#include "netpolicy/policy.h"

struct dns_guard;

/**
 * dns_guard_new() - Take ranges from the configuration and this host's addresses from the kernel
 * @loop:	Addresses are read again when the kernel says that they changed
 * @settings:	network.allow_private and the sandboxes' subnet; borrowed
 * @err:	Filled on failure: INVALID_REQUEST, SYSTEM, NO_MEMORY
 *
 * Return: the guard, or NULL with @err set
 */
struct dns_guard *dns_guard_new(struct loop *loop, const struct settings *settings, struct sbx_err *err) SBX_WUR;
/** dns_guard_free() - Release @guard; NULL is fine */
void dns_guard_free(struct dns_guard *guard);
/**
 * dns_guard_refuses() - Why a name may not lead to an address
 * @guard:	The guard
 * @policy:	Of the sandbox; NULL: none
 * @addr:	IPv4, host byte order
 *
 * Return: METADATA, HOST, SANDBOX, PRIVATE, or NONE when it may
 */
enum egress_reason dns_guard_refuses(const struct dns_guard *guard, const struct policy *policy, uint32_t addr);

/** dns_guard_refuses6() - dns_guard_refuses() for an IPv6 address; forms of IPv4 addresses and NAT64 are METADATA */
enum egress_reason dns_guard_refuses6(const struct dns_guard *guard, const struct policy *policy, struct ip6 addr);

#endif
