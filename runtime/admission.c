// SPDX-License-Identifier: Apache-2.0
#include "runtime/admission.h"

#include "base/cleanup.h"
#include "base/num.h"
#include "base/path.h"
#include "base/settings.h"
#include "runtime/resources.h"

#include <fcntl.h>
#include <string.h>
#include <sys/sysinfo.h>

#define RESERVE_PIDS	 4096u	      /* for the host: its services, its users, and us */
#define RESERVE_MEMORY	 (256u << 20) /* at least, when none is configured */
#define DEFAULT_PART	 64u	      /* so many forks bombs of the default size fit; a Node or Java program has some 40 threads */
#define DEFAULT_PIDS_MIN 64u

static uint64_t read_number(const char *path)
{
	char text[32];
	uint64_t value;
	ssize_t n = path_read_head(AT_FDCWD, path, text, sizeof(text));

	return n > 0 && num_u64(text, strspn(text, "0123456789"), UINT64_MAX, &value) == 0 ? value : UINT64_MAX;
}

void admission_host_read(struct admission_host *ret)
{
	uint64_t pids = read_number("/proc/sys/kernel/pid_max"), threads = read_number("/proc/sys/kernel/threads-max");
	struct sysinfo info;

	ret->tasks = pids < threads ? pids : threads;
	ret->memory_bytes = sysinfo(&info) < 0 ? UINT64_MAX : (uint64_t)info.totalram * info.mem_unit;
}

static uint64_t less(uint64_t all, uint64_t reserve)
{
	return all == UINT64_MAX ? all : all > reserve ? all - reserve : 0;
}

uint64_t admission_pids(const struct settings *settings, const struct admission_host *host)
{
	uint64_t reserve = (uint64_t)settings->limits_reserve_pids;

	if (!reserve)
		reserve = host->tasks / 4 < RESERVE_PIDS ? host->tasks / 4 : RESERVE_PIDS;
	return less(host->tasks, reserve);
}

uint64_t admission_memory(const struct settings *settings, const struct admission_host *host)
{
	uint64_t reserve = 0;

	/* The text was checked when the daemon started. */
	if (resources_memory(settings->limits_reserve_memory, &reserve) < 0 || !reserve)
		reserve = host->memory_bytes / 16 > RESERVE_MEMORY ? host->memory_bytes / 16 : RESERVE_MEMORY;
	return less(host->memory_bytes, reserve);
}

uint32_t admission_default_pids(const struct settings *settings, const struct admission_host *host)
{
	uint64_t most = (uint64_t)settings->docker_pids_limit, part = admission_pids(settings, host) / DEFAULT_PART;

	part = part < DEFAULT_PIDS_MIN ? DEFAULT_PIDS_MIN : part;
	return (uint32_t)(part < most ? part : most);
}

/* ---- the table ---- */

static double pids_factor(const struct settings *s)
{
	return s->limits_pids_overcommit;
}

static double memory_factor(const struct settings *s)
{
	return s->limits_memory_overcommit;
}

static uint64_t pids_of(const struct admission_use *use)
{
	return use->pids;
}

static uint64_t memory_of(const struct admission_use *use)
{
	return use->memory_bytes;
}

static const struct {
	const char *what, *factor_name, *reserve_name, *per_sandbox;
	uint64_t (*capacity)(const struct settings *settings, const struct admission_host *host);
	double (*factor)(const struct settings *settings); /* 0: no sum */
	uint64_t (*of)(const struct admission_use *use);
} sums[] = {
	{"process limits", "limits.pids_overcommit", "limits.reserve_pids", "resourceLimits.pids", admission_pids, pids_factor, pids_of},
	{"memory limits, in bytes,", "limits.memory_overcommit", "limits.reserve_memory", "resourceLimits.memory", admission_memory,
	 memory_factor, memory_of},
};

int admission_check(const struct settings *settings, const struct admission_host *host, const struct admission_use *live,
		    const struct admission_use *more, struct sbx_err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(sums); i++) {
		uint64_t capacity = sums[i].capacity(settings, host), have = sums[i].of(live), want = sums[i].of(more);
		double factor = sums[i].factor(settings), most = (double)capacity * factor;

		if (factor <= 0 || capacity == UINT64_MAX || (double)have + (double)want <= most)
			continue;
		return sbx_err_set(err, SBX_E_HOST_FULL, 0, "the %s of all sandboxes would be %.0f of %.0f: end some, ask for less (%s), or raise %s or "
				   "lower %s", sums[i].what, (double)have + (double)want, most, sums[i].per_sandbox, sums[i].factor_name,
				   sums[i].reserve_name);
	}
	return 0;
}
