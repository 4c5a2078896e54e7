/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup version 2: one tree.  A sandbox's group distributes its controllers to the leaves `agent` and `tenant`, so no
 * process may ever sit in the group itself (cgroups(7), "no internal processes").
 */
#include "config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "base/num.h"

#include "runtime/broker/cgroup_int.h"

static const char *const knob_file[] = {
#define CGROUP_KNOB(id, feature, v2, tree, v1) [CGROUP_KNOB_##id] = (v2),
#include "runtime/broker/cgroup_knobs.def"
#undef CGROUP_KNOB
};

/* Leaf for our own processes where a group that they sit in has to give controllers to children. */
#define OWN_LEAF "own"
/* Processes that are being forked while we move them come up in the next round. */
#define MOVE_ROUNDS 16

static bool is_delegated(const char *path)
{
	char value[4];

	return getxattr(path, "user.delegate", value, sizeof(value)) > 0 ||
	       getxattr(path, "trusted.delegate", value, sizeof(value)) > 0;
}

/* The path of the group that we were started in, from the "0::/..." line. */
static int own_path(const char *mount, char out[CGROUP_PATH_SIZE])
{
	char text[4096], *line;
	int n = cgroup_read(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text));

	if (n < 0)
		return n;
	line = !strncmp(text, "0::", 3) ? text : strstr(text, "\n0::");
	if (!line)
		return -ENOENT;
	line = strchr(line, '/');
	if (!line)
		return -ENOENT;
	*strchrnul(line, '\n') = '\0';
	n = snprintf(out, CGROUP_PATH_SIZE, "%s%s", mount, strcmp(line, "/") ? line : "");
	return n < 0 || n >= CGROUP_PATH_SIZE ? -ENAMETOOLONG : 0;
}

/* A service manager gave us a part of the tree: stay in it.  A restarted broker is born in the leaf `own` below that part. */
static void choose_base(const char *mount, char base[CGROUP_PATH_SIZE])
{
	size_t n;

	if (!own_path(mount, base)) {
		n = strlen(base);
		if (n > sizeof(OWN_LEAF) && !strcmp(base + n - sizeof(OWN_LEAF), "/" OWN_LEAF))
			base[n - sizeof(OWN_LEAF)] = '\0';
		if (strcmp(base, mount) && is_delegated(base))
			return;
	}
	snprintf(base, CGROUP_PATH_SIZE, "%s", mount);
}

static int move_round(int base_fd, size_t *ret_moved)
{
	char text[32768], *pid = text;
	int r = cgroup_read(base_fd, "cgroup.procs", text, sizeof(text));

	*ret_moved = 0;
	while (r >= 0 && *pid) {
		char *end = strchrnul(pid, '\n');
		bool last = !*end;

		*end = '\0';
		/* Gone in the meantime, or a kernel thread that stays: the next round or the caller's write tells. */
		int one = cgroup_write(base_fd, OWN_LEAF "/cgroup.procs", pid);

		if (one < 0 && one != -ESRCH && one != -EINVAL)
			return one;
		(*ret_moved)++;
		pid = last ? end : end + 1;
	}
	return r < 0 ? r : 0;
}

static int move_own(int base_fd)
{
	size_t moved = 1;
	int r = mkdirat(base_fd, OWN_LEAF, 0755) < 0 && errno != EEXIST ? -errno : 0;

	for (int round = 0; !r && moved && round < MOVE_ROUNDS; round++)
		r = move_round(base_fd, &moved);
	return r;
}

static int enable(int dir_fd, uint32_t controllers)
{
	char text[64];

	snprintf(text, sizeof(text), "%s%s%s", controllers & CGROUP_MEMORY ? "+memory " : "", controllers & CGROUP_PIDS ? "+pids " : "",
		 controllers & CGROUP_CPU ? "+cpu" : "");
	return *text ? cgroup_write(dir_fd, "cgroup.subtree_control", text) : 0;
}

static int controllers_of(int dir_fd, uint32_t *ret)
{
	char text[512];
	int r = cgroup_read(dir_fd, "cgroup.controllers", text, sizeof(text));

	if (r >= 0)
		*ret = cgroup_controllers_parse(text);
	return r < 0 ? r : 0;
}

static int v2_open(struct cgroup *cg, const struct cgroup_mounts *mounts, struct sbx_err *err)
{
	char base[CGROUP_PATH_SIZE];
	uint32_t controllers = 0;
	auto_fd base_fd = -1;
	int r;

	choose_base(mounts->mount[CGROUP_TREE_V2], base);
	base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = base_fd < 0 ? -errno : controllers_of(base_fd, &controllers);
	if (!r)
		r = enable(base_fd, controllers);
	/* EBUSY: the group has processes (ours, when it was delegated to us or is the root of a container). */
	if (r == -EBUSY) {
		r = move_own(base_fd);
		if (!r)
			r = enable(base_fd, controllers);
	}
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "give controllers to children of %s", base);
	cgroup_join_path(cg->root_path, base, cg->instance_dir);
	if (cgroup_open_root(cg, CGROUP_TREE_V2, base, err) < 0)
		return -1;
	r = enable(cg->root_fd[CGROUP_TREE_V2], controllers);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "give controllers to children of %s", cg->root_path);
	cg->features = controllers | CGROUP_FREEZE | CGROUP_KILL;
	/* The file exists only in children of the root and only with CONFIG_SWAP; without swap there is nothing to limit. */
	if ((controllers & CGROUP_MEMORY) &&
	    (!cgroup_swap_present() || !faccessat(cg->root_fd[CGROUP_TREE_V2], "memory.swap.max", F_OK, 0)))
		cg->features |= CGROUP_SWAP;
	return 0;
}

static int leaf_path(char out[CGROUP_PATH_SIZE], const char *name, const char *leaf, const char *file)
{
	int n = snprintf(out, CGROUP_PATH_SIZE, "%s/%s/%s", name, leaf, file);

	return n < 0 || n >= CGROUP_PATH_SIZE ? -ENAMETOOLONG : 0;
}

static int give_entry(int dir_fd, const char *path, uid_t uid)
{
	return fchownat(dir_fd, path, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int v2_make(struct cgroup *cg, struct cgroup_slot *cs, uid_t agent_uid, struct sbx_err *err)
{
	int root = cg->root_fd[CGROUP_TREE_V2];
	auto_fd dir = openat(root, cs->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	int r = dir < 0 ? -errno : enable(dir, cg->features);

	if (!r && (mkdirat(dir, "agent", 0755) < 0 || mkdirat(dir, "tenant", 0755) < 0))
		r = -errno;
	/* The agent moves its children: the kernel asks for write permission on the target and on the common ancestor. */
	if (!r)
		r = give_entry(dir, "cgroup.procs", agent_uid);
	if (!r)
		r = give_entry(dir, "tenant/cgroup.procs", agent_uid);
	if (!r) {
		cs->into_fd = openat(dir, "agent", O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		cs->tenant_fd[0] = openat(dir, "tenant", O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		cs->n_tenant = 1;
		r = cs->into_fd < 0 || cs->tenant_fd[0] < 0 ? -errno : 0;
	}
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "make cgroup %s", cs->name) : 0;
}

static int v2_watch_oom(struct cgroup *cg, struct cgroup_slot *cs, struct sbx_err *err)
{
	char path[CGROUP_PATH_SIZE];

	if (!(cg->features & CGROUP_MEMORY))
		return 0;
	if (leaf_path(path, cs->name, "tenant", "memory.events") < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, ENAMETOOLONG, "cgroup %s", cs->name);
	cs->oom_fd = openat(cg->root_fd[CGROUP_TREE_V2], path, O_RDONLY | O_CLOEXEC);
	return cs->oom_fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "open cgroup %s", path) : 0;
}

static int v2_knob(struct cgroup *cg, const char *name, const char *leaf, enum cgroup_knob knob, const char *value)
{
	char path[CGROUP_PATH_SIZE];
	int r = leaf_path(path, name, leaf, knob_file[knob]);

	if (!r)
		r = cgroup_write(cg->root_fd[CGROUP_TREE_V2], path, value);
	/* Without CONFIG_SWAP there is no such file, and no swap either: v2_open() has checked. */
	return r == -ENOENT && knob == CGROUP_KNOB_SWAP ? 0 : r;
}

static int v2_cpu(struct cgroup *cg, const char *name, uint64_t quota_usec, uint64_t period_usec)
{
	char value[48];

	snprintf(value, sizeof(value), "%llu %llu", (unsigned long long)quota_usec, (unsigned long long)period_usec);
	return v2_knob(cg, name, "tenant", CGROUP_KNOB_CPU, value);
}

static int v2_oom_kills(struct cgroup *cg, const struct cgroup_slot *cs, uint64_t *ret)
{
	char text[512];
	ssize_t n = pread(cs->oom_fd, text, sizeof(text) - 1, 0);

	(void)cg;
	if (n < 0)
		return -errno;
	text[n] = '\0';
	return cgroup_field(text, "oom_kill", ret);
}

static int v2_stat_memory(int dir, struct cgroup_figures *ret)
{
	char text[8192];
	uint64_t inactive = 0;
	int r = cgroup_read_u64(dir, "memory.current", &ret->memory_bytes);

	if (!r)
		r = cgroup_read_u64(dir, "memory.max", &ret->memory_limit_bytes);
	if (!r && cgroup_read(dir, "memory.stat", text, sizeof(text)) > 0 && !cgroup_field(text, "inactive_file", &inactive))
		ret->memory_bytes -= inactive < ret->memory_bytes ? inactive : ret->memory_bytes;
	/* memory.peak came with 5.19. */
	if (!r && cgroup_read_u64(dir, "memory.peak", &ret->memory_peak_bytes) < 0)
		ret->memory_peak_bytes = ret->memory_bytes;
	return r;
}

static int v2_stat_cpu(int dir, struct cgroup_figures *ret)
{
	char text[64];
	uint64_t quota, period;
	int r = cgroup_read(dir, "cpu.max", text, sizeof(text));
	size_t n;

	if (r < 0)
		return r;
	n = strcspn(text, " ");
	if (!strncmp(text, "max", 3))
		return 0;
	if (num_u64(text, n, UINT64_MAX / 1000, &quota) < 0 || text[n] != ' ' ||
	    num_u64(text + n + 1, strcspn(text + n + 1, "\n"), UINT64_MAX, &period) < 0 || !period)
		return -EPROTO;
	ret->cpu_millicores = (uint32_t)(quota * 1000 / period);
	return 0;
}

static int v2_stat(struct cgroup *cg, const struct cgroup_slot *cs, struct cgroup_figures *ret)
{
	char path[CGROUP_PATH_SIZE];
	auto_fd dir = openat(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, cs->name, "tenant"),
			     O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t pids = 0, pids_max = 0;
	int r = dir < 0 ? -errno : 0;

	if (!r && (cg->features & CGROUP_MEMORY))
		r = v2_stat_memory(dir, ret);
	if (!r && (cg->features & CGROUP_MEMORY))
		r = v2_oom_kills(cg, cs, &ret->oom_kills);
	if (!r && (cg->features & CGROUP_PIDS)) {
		r = cgroup_read_u64(dir, "pids.current", &pids);
		r = r ? r : cgroup_read_u64(dir, "pids.max", &pids_max);
	}
	if (!r && (cg->features & CGROUP_CPU))
		r = v2_stat_cpu(dir, ret);
	ret->pids = (uint32_t)pids;
	ret->pids_max = pids_max > UINT32_MAX ? 0 : (uint32_t)pids_max;
	return r;
}

static int v2_remove(struct cgroup *cg, const char *name)
{
	char path[CGROUP_PATH_SIZE];
	int r = cgroup_rmdir(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, name, "tenant"));

	return r ? r : cgroup_rmdir(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, name, "agent"));
}

static int v2_purge(struct cgroup *cg)
{
	(void)cg;
	return 0;
}

const struct cgroup_backend cgroup_backend_v2 = {
	.version = 2,
	.agent_limits = CGROUP_MEMORY | CGROUP_PIDS,
	.oom_epoll = EPOLLPRI,
	.open = v2_open,
	.make = v2_make,
	.watch_oom = v2_watch_oom,
	.knob = v2_knob,
	.cpu = v2_cpu,
	.stat = v2_stat,
	.oom_kills = v2_oom_kills,
	.remove = v2_remove,
	.purge = v2_purge,
};
