/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the sandbox's own end of its link, by raw netlink, and the sysctls of its network
 *
 * Runs once, as root of the outer user namespace, before anything of a tenant exists and before /proc/sys is made read-only.  The
 * sysctls are written here and not by the broker because the names of all namespaces' sysctls are equal: in one /proc for all
 * each look-up compares with those of every other sandbox.
 */
#ifndef RUNTIME_AGENT_AGENT_NET_H
#define RUNTIME_AGENT_AGENT_NET_H

#include "runtime/broker/launch_sync.h"

/**
 * net_setup() - Sysctls, lo and eth0 up, the address, the gateway's permanent neighbour, the default route
 * @setup:	What the broker says
 * @proc_fd:	A /proc whose sys may be written
 *
 * Return: 0 or -errno
 */
int net_setup(const struct launch_setup *setup, int proc_fd);

#endif
