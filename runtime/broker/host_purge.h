/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: leaving the host as it was
 *
 * What `sandbox-broker --purge` does for one instance: ends every sandbox, removes its groups, router, uplink and rules (also
 * those in other programs' chains) and restores the sysctls.  Files of the state directory are not its business.
 */
#ifndef RUNTIME_HOST_PURGE_H
#define RUNTIME_HOST_PURGE_H

#include "base/err.h"
#include "runtime/broker/links.h"

/**
 * host_purge() - Undo everything that brokers of an instance changed on the host
 * @links:	Its instance, run directory and subnet
 * @err:	Filled on failure: the first thing that could not be undone; the rest is undone all the same
 *
 * No broker of the instance may run.  Nothing to undo is success.
 *
 * Return: 0, or -1 with @err set
 */
int host_purge(const struct links_config *links, struct sbx_err *err) SBX_WUR;

#endif
