/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the root monitor (`sandboxd --standalone`) and what its children find
 *
 * The monitor takes the locks, makes the run directory and the listening sockets, and starts and restarts sandbox-broker,
 * sandboxd --daemon, sandbox-gateway and sandbox-dnsd.  It reads no byte from anybody but struct monitor_fetch from sandboxd,
 * for which it starts one sandbox-fetch (monitor_fetch.c).  Each child is started as
 *
 *	PROGRAM [--daemon] --config /proc/self/fd/3
 *
 * with the effective settings in descriptor 3 (state_dir, run_dir and instance among them; without the API key for all but
 * sandboxd), stderr as the log, SIGTERM at the monitor's end, and the descriptors below.  A child that ends with status MONITOR_EXIT_CONFIG will not get
 * better by being started again: the monitor ends.  sandboxd and dnsd call isolate_self() with getppid() as the parent.
 */
#ifndef API_MONITOR_H
#define API_MONITOR_H

#include "base/err.h"
#include "base/settings.h"

#include <stdint.h>

#define MONITOR_EXIT_CONFIG 78 /* EX_CONFIG of sysexits.h */

enum monitor_fd {
	MONITOR_FD_CONFIG = 3, /* all */
	/* sandbox-gateway: listening sockets, non-blocking */
	MONITOR_FD_API = 4,
	MONITOR_FD_ENDPOINT = 5,
	MONITOR_FD_UNIX = 6,
	/* sandboxd --daemon */
	MONITOR_FD_CONTROL = 4, /* listening SOCK_SEQPACKET of control.sock */
	MONITOR_FD_READY = 5,	/* a byte is written when requests can be served */
	MONITOR_FD_POLICY = 7,	/* listening SOCK_SEQPACKET of policy.sock, for sandbox-dnsd */
	MONITOR_FD_FETCH = 6,	/* SOCK_SEQPACKET: struct monitor_fetch with a socket, for each sandbox-fetch that is wanted */
	/* sandbox-fetch */
	MONITOR_FD_FETCHER = 4, /* its socket to sandboxd */
};

#define MONITOR_FETCH_MAGIC 0x48435446u
#define MONITOR_FETCH_MAX   32u /* sandbox-fetch processes at once */

/* sandboxd -> monitor with one descriptor, and back: with the credential file opened by root when there is one. */
struct monitor_fetch {
	uint32_t magic;
	int32_t sys; /* reply: 0 or an errno */
	uint64_t tag;
};

/**
 * monitor_run() - Be the monitor until SIGTERM or SIGINT
 * @settings:	Loaded; state_dir may be relative; changed: the chosen ports, the key
 * @err:	Filled on failure: what a person has to do is in the message
 *
 * Return: 0 after a clean shutdown (sandboxes go on), or -1 with @err set
 */
int monitor_run(struct settings *settings, struct sbx_err *err) SBX_WUR;

/**
 * monitor_purge() - End all sandboxes of this instance and undo what it changed on the host
 * @settings:	As for monitor_run(); the daemon must not run
 * @err:	Filled on failure
 *
 * Images, volumes and the key stay.
 *
 * Return: 0, or -1 with @err set
 */
int monitor_purge(struct settings *settings, struct sbx_err *err) SBX_WUR;

#endif
