/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what all sandboxes together may be promised
 *
 * A limit of one sandbox says nothing about a thousand.  A create is refused when the limits of all that live, with the new
 * one, would exceed a sum of the table in admission.c: processes against what the kernel can number less a reserve, and memory
 * against what the host has less a reserve, each times an overcommit factor of the configuration.  These sums are promises; what
 * is really taken is bounded by the group that holds all sandboxes (cgroup_limit_all()), which keeps the reserves for the host.
 *
 * No sum here: descriptors (the broker refuses by its own RLIMIT_NOFILE), mounts (the kernel counts them by mount namespace, so
 * each sandbox has its own bound), connections (LIMIT_FLOWS for each source, in the router's rules).
 */
#ifndef RUNTIME_ADMISSION_H
#define RUNTIME_ADMISSION_H

#include "base/err.h"

#include <stdint.h>

struct settings;

/* Of this host. */
struct admission_host {
	uint64_t tasks;	       /* the lesser of kernel.pid_max and kernel.threads-max */
	uint64_t memory_bytes; /* physical */
};

/* Sums over sandboxes, or what one asks for. */
struct admission_use {
	uint64_t pids, memory_bytes;
};

/** admission_host_read() - Fill @ret from /proc and sysinfo(2); what cannot be read counts as unbounded */
void admission_host_read(struct admission_host *ret);
/** admission_default_pids() - Limit of a sandbox that asks for none: a 64th of what @host can number, 64 to docker.pids_limit */
uint32_t admission_default_pids(const struct settings *settings, const struct admission_host *host);
/** admission_pids() - Processes that all sandboxes together may have: @host less limits.reserve_pids; 0: none at all */
uint64_t admission_pids(const struct settings *settings, const struct admission_host *host);
/** admission_memory() - Bytes that all sandboxes together may use: @host less limits.reserve_memory; 0: none at all */
uint64_t admission_memory(const struct settings *settings, const struct admission_host *host);
/**
 * admission_check() - Whether one more fits
 * @settings:	Reserves and overcommit factors
 * @host:	What there is
 * @live:	Sums of those that live
 * @more:	What the new one asks for
 * @err:	Filled: HOST_FULL, naming the sum and the settings that raise it
 *
 * Return: 0, or -1 with @err set
 */
int admission_check(const struct settings *settings, const struct admission_host *host, const struct admission_use *live,
		    const struct admission_use *more, struct sbx_err *err) SBX_WUR;

#endif
