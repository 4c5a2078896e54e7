/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the socket with the refused packets
 *
 * The router's rules log what they refuse to group BROKER_LOG_GROUP (nflog), few a second and source, cut to the heads.  The
 * broker binds and configures the socket, which needs CAP_NET_ADMIN; reading it needs nothing, so sandbox-dnsd gets it.  The
 * kernel asks for the capability of the sender too: who has the socket cannot configure it.
 */
#ifndef RUNTIME_NETLOG_H
#define RUNTIME_NETLOG_H

#include "base/err.h"

/**
 * netlog_open() - Make the socket
 * @router_fd:	The router's network namespace
 * @err:	Filled on failure: SYSTEM (EBUSY: another socket has the group)
 *
 * Return: descriptor (the caller's, non-blocking), or -1 with @err set
 */
int netlog_open(int router_fd, struct sbx_err *err) SBX_WUR;

#endif
