/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the sandbox's own end of its link, by raw netlink
 *
 * Runs once, as root of the outer user namespace, before anything of a tenant exists.  The sysctls of the namespace are the
 * broker's work (runtime/broker/links.h).
 */
#ifndef RUNTIME_AGENT_AGENT_NET_H
#define RUNTIME_AGENT_AGENT_NET_H

#include "runtime/broker/launch_sync.h"

/** net_setup() - lo and eth0 up, the address, the gateway's permanent neighbour, the default route; Return: 0 or -errno */
int net_setup(const struct launch_setup *setup);

#endif
