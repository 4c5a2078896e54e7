/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup version 1 with a v2 tree beside it.  Limits live in the v1 hierarchies, where agent and tenants have one group each
 * ("<name>.agent", "<name>.tenant") directly below the instance's, but that the memory of all agents is counted in one group,
 * `agents`; freezing, killing and time come from the v2 tree.  Device access is one list for all sandboxes.
 */
#include "config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/num.h"

#include "runtime/broker/cgroup_int.h"

static const struct {
	const char *file;
	enum cgroup_tree tree;
} knobs[] = {
#define CGROUP_KNOB(id, feature, v2, tree_, v1) [CGROUP_KNOB_##id] = {(v1), (tree_)},
#include "runtime/broker/cgroup_knobs.def"
#undef CGROUP_KNOB
};

static const struct {
	enum cgroup_tree tree;
	uint32_t feature;
	const char *probe; /* exists in each group when the kernel can do it */
	enum { STAYS, SHARES, OWNS } agent; /* where the broker is, in the group of all agents, in one of its own */
} trees[] = {
	/* A memory group costs up to 150 kB of the kernel (ARCHITECTURE.md), too much for one process that RLIMIT_DATA bounds as well. */
	{CGROUP_TREE_MEMORY, CGROUP_MEMORY, "memory.limit_in_bytes", SHARES},
	{CGROUP_TREE_PIDS, CGROUP_PIDS, "pids.max", OWNS},
	{CGROUP_TREE_CPU, CGROUP_CPU, "cpu.cfs_quota_us", STAYS},
};

#define DEVICES_LEAF "tenants"
#define AGENTS_LEAF  "agents" /* the broker's own name: a sandbox's begins with s */
#define TCP_FILE     "memory.kmem.tcp.limit_in_bytes" /* despite its name all of IP */

/* The nodes of a sandbox's /dev and its devpts; nothing can be made there, this is the second lock. */
static const char *const device_list[] = {
	"c 1:3 rw", "c 1:5 rw", "c 1:7 rw", "c 1:8 rw", "c 1:9 rw", "c 5:0 rw", "c 5:2 rw", "c 136:* rw",
};

static int open_devices(struct cgroup *cg, const char *mount, struct sbx_err *err)
{
	int root, r = 0;

	if (cgroup_open_root(cg, CGROUP_TREE_DEVICES, mount, err) < 0)
		return -1;
	root = cg->root_fd[CGROUP_TREE_DEVICES];
	if (mkdirat(root, DEVICES_LEAF, 0755) < 0)
		r = errno == EEXIST ? 1 : -errno;
	/* An adopted group keeps its list: emptying it now would cut sandboxes off for a moment. */
	if (!r)
		r = cgroup_write(root, DEVICES_LEAF "/devices.deny", "a");
	for (size_t i = 0; !r && i < ARRAY_SIZE(device_list); i++)
		r = cgroup_write(root, DEVICES_LEAF "/devices.allow", device_list[i]);
	if (r < 0) {
		/* A half-written list must not be adopted by the next start. */
		ignore_result(cgroup_rmdir(root, DEVICES_LEAF) < 0);
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "device list in %s", mount);
	}
	cg->features |= CGROUP_DEVICES;
	return 0;
}

static int v1_open(struct cgroup *cg, const struct cgroup_mounts *mounts, struct sbx_err *err)
{
	cgroup_join_path(cg->root_path, mounts->mount[CGROUP_TREE_V2], cg->instance_dir);
	if (cgroup_open_root(cg, CGROUP_TREE_V2, mounts->mount[CGROUP_TREE_V2], err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(trees); i++) {
		const char *mount = mounts->mount[trees[i].tree];

		if (!*mount)
			continue;
		if (cgroup_open_root(cg, trees[i].tree, mount, err) < 0)
			return -1;
		if (!faccessat(cg->root_fd[trees[i].tree], trees[i].probe, F_OK, 0))
			cg->features |= trees[i].feature;
		if (trees[i].agent == SHARES && mkdirat(cg->root_fd[trees[i].tree], AGENTS_LEAF, 0755) < 0 && errno != EEXIST)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "make the agents' group in %s", mount);
	}
	if (*mounts->mount[CGROUP_TREE_DEVICES] && open_devices(cg, mounts->mount[CGROUP_TREE_DEVICES], err) < 0)
		return -1;
	if (cg->features & CGROUP_MEMORY) {
		/* Absent with swapaccount=0; without swap space there is nothing that could be exceeded. */
		if (!cgroup_swap_present() ||
		    !faccessat(cg->root_fd[CGROUP_TREE_MEMORY], "memory.memsw.limit_in_bytes", F_OK, 0))
			cg->features |= CGROUP_SWAP;
		/* Counts children too; fails once there are some, and is the default of new kernels. */
		ignore_result(cgroup_write(cg->root_fd[CGROUP_TREE_MEMORY], "memory.use_hierarchy", "1") < 0);
		/* Without effect here, but the first group to be counted makes the kernel patch its code: now, not in a create. */
		ignore_result(cgroup_write(cg->root_fd[CGROUP_TREE_MEMORY], TCP_FILE, "-1") < 0);
	}
	cg->features |= CGROUP_FREEZE | CGROUP_KILL;
	return 0;
}

static const char *leaf_name(char out[CGROUP_LEAF_SIZE], const char *name, const char *leaf)
{
	snprintf(out, CGROUP_LEAF_SIZE, "%s.%s", name, leaf);
	return out;
}

static int open_tasks(int root_fd, const char *dir)
{
	char path[CGROUP_PATH_SIZE];
	int fd = openat(root_fd, cgroup_join_path(path, dir, "tasks"), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int make_tree(struct cgroup *cg, struct cgroup_slot *cs, size_t i)
{
	int root = cg->root_fd[trees[i].tree], fd;
	char leaf[CGROUP_LEAF_SIZE];

	if (mkdirat(root, leaf_name(leaf, cs->name, "tenant"), 0755) < 0)
		return -errno;
	fd = open_tasks(root, leaf);
	if (fd < 0)
		return fd;
	cs->tenant_fd[cs->n_tenant++] = fd;
	if (trees[i].agent == STAYS)
		return 0;
	if (trees[i].agent == OWNS && mkdirat(root, leaf_name(leaf, cs->name, "agent"), 0755) < 0)
		return -errno;
	fd = open_tasks(root, trees[i].agent == OWNS ? leaf : AGENTS_LEAF);
	if (fd < 0)
		return fd;
	cs->join_fd[cs->n_join++] = fd;
	return 0;
}

static int v1_make(struct cgroup *cg, struct cgroup_slot *cs, uid_t agent_uid, struct sbx_err *err)
{
	int r = 0;

	(void)agent_uid; /* the descriptors were opened by root, and the opener's credentials count */
	for (size_t i = 0; !r && i < ARRAY_SIZE(trees); i++)
		if (cg->features & trees[i].feature)
			r = make_tree(cg, cs, i);
	if (!r && (cg->features & CGROUP_DEVICES)) {
		int fd = open_tasks(cg->root_fd[CGROUP_TREE_DEVICES], DEVICES_LEAF);

		if (fd >= 0)
			cs->join_fd[cs->n_join++] = fd;
		else
			r = fd;
	}
	if (!r) {
		cs->into_fd = openat(cg->root_fd[CGROUP_TREE_V2], cs->name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		r = cs->into_fd < 0 ? -errno : 0;
	}
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "make v1 groups of %s", cs->name) : 0;
}

static int v1_watch_oom(struct cgroup *cg, struct cgroup_slot *cs, struct sbx_err *err)
{
	char leaf[CGROUP_LEAF_SIZE], path[CGROUP_PATH_SIZE], line[64];
	int root = cg->root_fd[CGROUP_TREE_MEMORY], r;
	auto_fd control = -1;
	auto_fd event = -1;

	if (!(cg->features & CGROUP_MEMORY))
		return 0;
	leaf_name(leaf, cs->name, "tenant");
	control = openat(root, cgroup_join_path(path, leaf, "memory.oom_control"), O_RDONLY | O_CLOEXEC);
	if (control < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open cgroup %s", path);
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (event < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "eventfd");
	snprintf(line, sizeof(line), "%d %d", event, control);
	r = cgroup_write(root, cgroup_join_path(path, leaf, "cgroup.event_control"), line);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "watch cgroup %s", path);
	cs->oom_fd = take_fd(&event);
	return 0;
}

static int v1_write(struct cgroup *cg, const char *name, const char *leaf, enum cgroup_tree tree, const char *file, const char *value)
{
	char dir[CGROUP_LEAF_SIZE], path[CGROUP_PATH_SIZE];

	return cgroup_write(cg->root_fd[tree], cgroup_join_path(path, leaf_name(dir, name, leaf), file), value);
}

static int limit_sockets(struct cgroup *cg, const char *name, const char *leaf)
{
	char value[24];

	snprintf(value, sizeof(value), "%llu", (unsigned long long)LIMIT_SOCKET_BYTES);
	return v1_write(cg, name, leaf, CGROUP_TREE_MEMORY, TCP_FILE, value);
}

static int v1_knob(struct cgroup *cg, const char *name, const char *leaf, enum cgroup_knob knob, const char *value)
{
	int r = v1_write(cg, name, leaf, knobs[knob].tree, knobs[knob].file, value);

	/* The limit must not pass the one with swap: when it is raised, that one goes first. */
	if (r == -EINVAL && knob == CGROUP_KNOB_MEMORY) {
		r = v1_write(cg, name, leaf, CGROUP_TREE_MEMORY, knobs[CGROUP_KNOB_SWAP].file, value);
		if (!r)
			r = v1_write(cg, name, leaf, CGROUP_TREE_MEMORY, knobs[knob].file, value);
	}
	/* Not part of the limit above, unlike in v2.  Kernels without it count no sockets at all. */
	if (!r && knob == CGROUP_KNOB_MEMORY)
		ignore_result(limit_sockets(cg, name, leaf) < 0);
	/* No accounting of swap, and no swap: v1_open() has checked. */
	return r == -ENOENT && knob == CGROUP_KNOB_SWAP ? 0 : r;
}

static int v1_cpu(struct cgroup *cg, const char *name, uint64_t quota_usec, uint64_t period_usec)
{
	char value[24];
	int r;

	snprintf(value, sizeof(value), "%llu", (unsigned long long)period_usec);
	r = v1_write(cg, name, "tenant", CGROUP_TREE_CPU, "cpu.cfs_period_us", value);
	if (r < 0)
		return r;
	snprintf(value, sizeof(value), "%llu", (unsigned long long)quota_usec);
	return v1_knob(cg, name, "tenant", CGROUP_KNOB_CPU, value);
}

static int open_leaf(struct cgroup *cg, const struct cgroup_slot *cs, enum cgroup_tree tree)
{
	char leaf[CGROUP_LEAF_SIZE];
	int fd = openat(cg->root_fd[tree], leaf_name(leaf, cs->name, "tenant"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int oom_kills_of(int dir, uint64_t *ret)
{
	char text[256];
	int r = cgroup_read(dir, "memory.oom_control", text, sizeof(text));

	return r < 0 ? r : cgroup_field(text, "oom_kill", ret);
}

static int v1_oom_kills(struct cgroup *cg, const struct cgroup_slot *cs, uint64_t *ret)
{
	auto_fd dir = open_leaf(cg, cs, CGROUP_TREE_MEMORY);
	uint64_t events;

	/* EAGAIN: nobody has signalled, the count is wanted all the same. */
	if (cs->oom_fd >= 0 && read(cs->oom_fd, &events, sizeof(events)) < 0 && errno != EAGAIN)
		return -errno;
	return dir < 0 ? dir : oom_kills_of(dir, ret);
}

static int stat_memory(struct cgroup *cg, const struct cgroup_slot *cs, struct cgroup_figures *ret)
{
	auto_fd dir = open_leaf(cg, cs, CGROUP_TREE_MEMORY);
	uint64_t inactive = 0;
	char text[8192];
	int r = dir < 0 ? dir : cgroup_read_u64(dir, "memory.usage_in_bytes", &ret->memory_bytes);

	r = r ? r : cgroup_read_u64(dir, "memory.limit_in_bytes", &ret->memory_limit_bytes);
	r = r ? r : cgroup_read_u64(dir, "memory.max_usage_in_bytes", &ret->memory_peak_bytes);
	r = r ? r : oom_kills_of(dir, &ret->oom_kills);
	if (r)
		return r;
	if (cgroup_read(dir, "memory.stat", text, sizeof(text)) > 0 && !cgroup_field(text, "total_inactive_file", &inactive))
		ret->memory_bytes -= inactive < ret->memory_bytes ? inactive : ret->memory_bytes;
	/* v1 writes "none" as the largest page-aligned number. */
	if (ret->memory_limit_bytes >= (UINT64_C(1) << 62))
		ret->memory_limit_bytes = UINT64_MAX;
	return 0;
}

static int stat_pids(struct cgroup *cg, const struct cgroup_slot *cs, struct cgroup_figures *ret)
{
	auto_fd dir = open_leaf(cg, cs, CGROUP_TREE_PIDS);
	uint64_t pids, max;
	int r = dir < 0 ? dir : cgroup_read_u64(dir, "pids.current", &pids);

	r = r ? r : cgroup_read_u64(dir, "pids.max", &max);
	if (r)
		return r;
	ret->pids = (uint32_t)pids;
	ret->pids_max = max > UINT32_MAX ? 0 : (uint32_t)max;
	return 0;
}

static int stat_cpu(struct cgroup *cg, const struct cgroup_slot *cs, struct cgroup_figures *ret)
{
	auto_fd dir = open_leaf(cg, cs, CGROUP_TREE_CPU);
	uint64_t period;
	int64_t quota;
	char text[32];
	int r = dir < 0 ? dir : cgroup_read(dir, "cpu.cfs_quota_us", text, sizeof(text));

	if (r < 0)
		return r;
	r = num_i64(text, strcspn(text, "\n"), &quota);
	r = r ? r : cgroup_read_u64(dir, "cpu.cfs_period_us", &period);
	if (!r && quota > 0 && period)
		ret->cpu_millicores = (uint32_t)((uint64_t)quota * 1000 / period);
	return r;
}

static int v1_stat(struct cgroup *cg, const struct cgroup_slot *cs, struct cgroup_figures *ret)
{
	int r = 0;

	if (cg->features & CGROUP_MEMORY)
		r = stat_memory(cg, cs, ret);
	if (!r && (cg->features & CGROUP_PIDS))
		r = stat_pids(cg, cs, ret);
	if (!r && (cg->features & CGROUP_CPU))
		r = stat_cpu(cg, cs, ret);
	return r;
}

static int v1_remove(struct cgroup *cg, const char *name)
{
	char leaf[CGROUP_LEAF_SIZE];
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(trees); i++) {
		int root = cg->root_fd[trees[i].tree];

		if (root < 0)
			continue;
		r = cgroup_rmdir(root, leaf_name(leaf, name, "tenant"));
		/* also where it shares one: broker and sandbox may be of before that */
		if (!r && trees[i].agent != STAYS)
			r = cgroup_rmdir(root, leaf_name(leaf, name, "agent"));
	}
	return r;
}

static int v1_purge(struct cgroup *cg)
{
	int r = cg->root_fd[CGROUP_TREE_DEVICES] < 0 ? 0 : cgroup_rmdir(cg->root_fd[CGROUP_TREE_DEVICES], DEVICES_LEAF);

	for (size_t i = 0; i < ARRAY_SIZE(trees); i++)
		if (trees[i].agent == SHARES && cg->root_fd[trees[i].tree] >= 0) {
			int one = cgroup_rmdir(cg->root_fd[trees[i].tree], AGENTS_LEAF);

			r = r ? r : one;
		}
	return r;
}

const struct cgroup_backend cgroup_backend_v1 = {
	.version = 1,
	.agent_limits = CGROUP_PIDS,
	.oom_epoll = EPOLLIN,
	.open = v1_open,
	.make = v1_make,
	.watch_oom = v1_watch_oom,
	.knob = v1_knob,
	.cpu = v1_cpu,
	.stat = v1_stat,
	.oom_kills = v1_oom_kills,
	.remove = v1_remove,
	.purge = v1_purge,
};
