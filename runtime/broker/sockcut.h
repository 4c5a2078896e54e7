/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: ending the sockets of a sandbox whose flows a new policy revokes
 *
 * The router refuses the next packet of a revoked flow; a process that only receives would never send one.  So after a policy
 * that may be narrower a child of the broker enters each sandbox's network namespace, lists its TCP and connected UDP sockets
 * (sock_diag), judges their far ends by the same policy and destroys those that lost: the process gets ECONNABORTED at once.
 * The far side gets a reset with its next packet, by the router.  A flow that the router has judged since is left alone: the
 * child's tables are older than it may be.
 *
 * Where the kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY) only the router's part is left.
 */
#ifndef RUNTIME_SOCKCUT_H
#define RUNTIME_SOCKCUT_H

#include "base/err.h"
#include "base/ip6.h"

#include <stdbool.h>
#include <stdint.h>

/* One connected socket; addresses and ports in host byte order. */
struct sockcut_ends {
	uint32_t near_addr, addr; /* addr 0: addr6 is the far end */
	struct ip6 addr6;
	uint16_t near_port, port;
	uint8_t protocol;
};

/* Whether this socket is to end. */
typedef bool sockcut_judge(void *arg, const struct sockcut_ends *ends);

/**
 * sockcut_here() - Judge and end sockets of the calling process's network namespace
 * @judge:	Called for each socket
 * @arg:	Handed to it
 *
 * Return: sockets ended, or -errno
 */
int sockcut_here(sockcut_judge *judge, void *arg);

#endif
