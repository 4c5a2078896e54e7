/* SPDX-License-Identifier: Apache-2.0 */
/* Ends every sandbox of an instance and removes what was made on the host for it. */
#include "config.h"

#include "runtime/broker/host_purge.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/wallclock.h"

#include "runtime/broker/cgroup.h"
#include "runtime/broker/fw_rules.h"
#include "runtime/broker/shells.h"
#include "runtime/broker/sysctl_record.h"

/* A killed process in an uninterruptible sleep must not hold the rest up for ever. */
#define END_MS 10000u

struct found {
	struct {
		uint32_t slot, generation;
	} group[LIMIT_SANDBOXES];
	size_t n;
};

static void take(void *arg, uint32_t slot, uint32_t generation)
{
	struct found *f = arg;

	if (f->n == ARRAY_SIZE(f->group))
		return;
	f->group[f->n].slot = slot;
	f->group[f->n++].generation = generation;
}

static int end_group(struct cgroup *cg, uint32_t slot, uint32_t generation, struct sbx_err *err)
{
	uint64_t until_ms = mono_ms() + END_MS;
	struct cgroup_slot cs;
	int r;

	cgroup_slot_init(&cs);
	/* A group that was only half made has nothing to watch; it can be removed all the same. */
	if (cgroup_adopt(cg, slot, generation, &cs, err) < 0)
		snprintf(cs.name, sizeof(cs.name), "s%u.%u", slot, generation);
	r = cgroup_kill(cg, &cs, err);
	while (!r && cgroup_populated(&cs) > 0 && mono_ms() < until_ms) {
		struct pollfd p = {.fd = cs.events_fd, .events = POLLPRI};

		ignore_result(poll(&p, 1, 1000) < 0); /* a signal only makes the loop look again */
	}
	if (!r)
		r = cgroup_remove(cg, &cs, err);
	cgroup_slot_close(&cs);
	return r;
}

static int end_groups(const char *instance, struct sbx_err *err)
{
	static struct found found;
	struct cgroup *cg = cgroup_open(instance, err);
	int r = cg ? cgroup_each(cg, take, &found, err) : -1;
	int failed = r;

	/* All are killed before any is waited for: they end side by side. */
	for (size_t i = 0; !r && i < found.n; i++) {
		struct cgroup_slot cs;

		cgroup_slot_init(&cs);
		snprintf(cs.name, sizeof(cs.name), "s%u.%u", found.group[i].slot, found.group[i].generation);
		if (cgroup_kill(cg, &cs, err) < 0)
			failed = -1;
	}
	for (size_t i = 0; !r && i < found.n; i++)
		if (end_group(cg, found.group[i].slot, found.group[i].generation, err) < 0)
			failed = -1;
	if (!failed)
		failed = cgroup_purge(cg, err);
	cgroup_free(cg);
	return failed;
}

static int end_network(const struct links_config *config, struct sbx_err *err)
{
	const struct fw_rules_config rules = {.instance = config->instance};
	struct links *links = links_open(config, err);
	int r = links ? links_purge(links, err) : -1;

	links_free(links);
	return fw_rules_purge_host(&rules, err) < 0 ? -1 : r;
}

/* Records and FIFOs of the slots are on a tmpfs of their own. */
static int end_mounts(const char *run_dir, struct sbx_err *err)
{
	char path[512];
	int n = snprintf(path, sizeof(path), "%s/slots", run_dir);

	if (n < 0 || (size_t)n >= sizeof(path))
		return sbx_err_set(err, SBX_E_SYSTEM, ENAMETOOLONG, "run directory");
	while (!umount2(path, MNT_DETACH))
		;
	return errno == EINVAL || errno == ENOENT ? 0 : sbx_err_set(err, SBX_E_SYSTEM, errno, "unmount %s", path);
}

/* It may be in the middle of a shell, whose groups the list of them would miss. */
static int end_shells(const char *run_dir, struct sbx_err *err)
{
	char path[512];
	int n = snprintf(path, sizeof(path), "%s/slots", run_dir);
	auto_fd slots = n < 0 || (size_t)n >= sizeof(path) ? -1 : open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return slots < 0 ? 0 : shells_end_earlier(slots, err);
}

static void note(int result, const struct sbx_err *one, struct sbx_err *err, int *ret)
{
	if (result >= 0)
		return;
	log_warn("purge: %s", one->msg);
	if (!*ret && err)
		*err = *one;
	*ret = -1;
}

int host_purge(const struct links_config *links, struct sbx_err *err)
{
	struct sbx_err one = {0};
	int ret = 0;

	note(end_shells(links->run_dir, &one), &one, err, &ret);
	note(end_groups(links->instance, &one), &one, err, &ret);
	note(end_network(links, &one), &one, err, &ret);
	note(sysctl_record_undo(links->run_dir, &one), &one, err, &ret);
	note(end_mounts(links->run_dir, &one), &one, err, &ret);
	return ret;
}
