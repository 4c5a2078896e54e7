/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: watch over links, rules and addresses
 *
 * Listens to rtnetlink in the router (a sandbox's link is gone: its namespace is), to rtnetlink in the host (addresses
 * changed: the router's set of host addresses follows) and to nftables in the host (our table is gone or changed by others:
 * the uplink goes down first, the rules come back, then it goes up again), and to nftables in the router (changed by
 * somebody else: the table is loaded and filled anew; without it nothing has a route).  Everything runs in the broker's loop.
 * A lost message (ENOBUFS) counts as "everything may have changed".
 */
#ifndef RUNTIME_NETWATCH_H
#define RUNTIME_NETWATCH_H

#include "base/err.h"
#include "base/loop.h"

#include <stdint.h>

struct links;
struct fw_rules_config;
struct fwset;
struct links_host_addrs;
struct netwatch;

enum netwatch_fill {
	NETWATCH_FILL_READ,  /* a table of another version, or none: read what is worth keeping; it is replaced whatever is returned */
	NETWATCH_FILL_ADOPT, /* the table of an earlier broker: compare it with what is known */
	NETWATCH_FILL_FRESH, /* a new table, through which nothing is let before this returns: put everything in */
};

struct netwatch_hooks {
	void *arg;
	/* A link of the router is gone; @ifindex 0: some may be gone, ask links_present() for each. */
	void (*link_gone)(void *arg, uint32_t ifindex);
	/* The host's rules were lost or could not be restored; @text says which, for BROKER_EVENT_LIMIT. */
	void (*rules_lost)(void *arg, const char *text);
	/*
	 * What belongs to the sandboxes in the router's table, by @fw, which stays valid for the life of the watch.  Return: 0, 1
	 * (ADOPT: it is not what it should be; a fresh one is loaded), or -1 with @err set.
	 */
	int (*fill)(void *arg, struct fwset *fw, enum netwatch_fill what, struct sbx_err *err);
};

/**
 * netwatch_new() - Load all rules, take the uplink up, and keep both so
 * @loop:	The broker's loop
 * @links:	Open links; borrowed
 * @rules:	Copied
 * @run_dir:	Where changed sysctls are recorded (sysctl_record.h); borrowed
 * @hooks:	Copied
 * @err:	Filled on failure
 *
 * Return: the watch, or NULL with @err set (then the uplink is down)
 */
struct netwatch *netwatch_new(struct loop *loop, struct links *links, const struct fw_rules_config *rules, const char *run_dir,
			      const struct netwatch_hooks *hooks, struct sbx_err *err) SBX_WUR;
/** netwatch_free() - Stop watching; rules and uplink stay as they are; NULL is fine */
void netwatch_free(struct netwatch *watch);
/** netwatch_hosts() - Addresses of the host as the router of @watch knows them; borrowed */
const struct links_host_addrs *netwatch_hosts(const struct netwatch *watch);
/** netwatch_open() - Whether the uplink of @watch is up, that is: sandboxes reach the outside */
bool netwatch_open(const struct netwatch *watch);

#endif
