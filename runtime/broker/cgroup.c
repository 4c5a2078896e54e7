/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the cgroup interface that both backends share: names, freezing, killing, limits, removal. */
#include "config.h"

#include "runtime/broker/cgroup.h"

#include <ctype.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/num.h"
#include "base/path.h"
#include "base/wallclock.h"

#include "runtime/broker/cgroup_int.h"

/* A frozen process answers at once; one in an uninterruptible sleep (dead NFS) may not: then the pause fails. */
#define FREEZE_WAIT_MS 2000u

static const struct {
	uint32_t feature;
	const char *name;
} feature_names[] = {
	{CGROUP_MEMORY, "memory limit"},
	{CGROUP_SWAP, "limit on swap"},
	{CGROUP_PIDS, "limit on processes"},
	{CGROUP_CPU, "cpu limit"},
};

static const uint32_t knob_feature[] = {
#define CGROUP_KNOB(id, feature, v2, tree, v1) [CGROUP_KNOB_##id] = (feature),
#include "runtime/broker/cgroup_knobs.def"
#undef CGROUP_KNOB
};
_Static_assert(ARRAY_SIZE(knob_feature) == CGROUP_KNOB_COUNT, "a row of cgroup_knobs.def has no feature");

const char *cgroup_join_path(char *out, const char *dir, const char *file)
{
	int n = snprintf(out, CGROUP_PATH_SIZE, "%s/%s", dir, file);

	/* A cut path must not name something else. */
	if (n < 0 || n >= CGROUP_PATH_SIZE)
		*out = '\0';
	return out;
}

int cgroup_write(int dir_fd, const char *path, const char *value)
{
	return path_write_file(dir_fd, path, value, strlen(value));
}

int cgroup_read(int dir_fd, const char *path, char *buf, size_t size)
{
	return (int)path_read_head(dir_fd, path, buf, size);
}

static int text_u64(const char *text, uint64_t *ret)
{
	size_t n = strspn(text, "0123456789");

	if (!strncmp(text, "max", 3)) {
		*ret = UINT64_MAX;
		return 0;
	}
	return num_u64(text, n, UINT64_MAX, ret);
}

int cgroup_read_u64(int dir_fd, const char *path, uint64_t *ret)
{
	char text[64];
	int n = cgroup_read(dir_fd, path, text, sizeof(text));

	return n < 0 ? n : text_u64(text, ret);
}

int cgroup_field(const char *text, const char *key, uint64_t *ret)
{
	size_t n = strlen(key);

	while (*text) {
		if (!strncmp(text, key, n) && text[n] == ' ')
			return text_u64(text + n + 1, ret) < 0 ? -ENOENT : 0;
		text = strchrnul(text, '\n');
		text += *text == '\n';
	}
	return -ENOENT;
}

int cgroup_rmdir(int dir_fd, const char *path)
{
	if (unlinkat(dir_fd, path, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int cgroup_open_root(struct cgroup *cg, enum cgroup_tree tree, const char *parent_path, struct sbx_err *err)
{
	auto_fd parent = open(parent_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (parent < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open %s", parent_path);
	if (mkdirat(parent, cg->instance_dir, 0755) < 0 && errno != EEXIST)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make %s/%s", parent_path, cg->instance_dir);
	cg->root_fd[tree] = openat(parent, cg->instance_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (cg->root_fd[tree] < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open %s/%s", parent_path, cg->instance_dir);
	cg->purge_fd[tree] = take_fd(&parent);
	return 0;
}

static bool instance_ok(const char *instance)
{
	size_t n = strlen(instance);

	for (size_t i = 0; i < n; i++)
		if (!islower((unsigned char)instance[i]) && !isdigit((unsigned char)instance[i]) && instance[i] != '-')
			return false;
	return n && n <= 32;
}

struct cgroup *cgroup_open(const char *instance, struct sbx_err *err)
{
	struct cgroup_mounts mounts;
	const uint32_t usable = CGROUP_MEMORY | CGROUP_PIDS;
	struct cgroup *cg;

	if (!instance_ok(instance)) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "instance name \"%.40s\" is not [a-z0-9-]{1,32}", instance);
		return NULL;
	}
	if (cgroup_detect(&mounts, err) < 0)
		return NULL;
	cg = calloc(1, sizeof(*cg));
	if (!cg) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "cgroup instance");
		return NULL;
	}
	for (int t = 0; t < CGROUP_TREE_COUNT; t++)
		cg->root_fd[t] = cg->purge_fd[t] = -1;
	snprintf(cg->instance_dir, sizeof(cg->instance_dir), "sandboxd-%s", instance);
	/* With v1 controllers mounted the v2 tree lacks them: whoever has memory and pids is the better backend. */
	cg->backend = (mounts.v2_controllers & usable) == usable || !*mounts.mount[CGROUP_TREE_MEMORY] ? &cgroup_backend_v2
												       : &cgroup_backend_v1;
	if (cg->backend->open(cg, &mounts, err) < 0) {
		sbx_err_wrap(err, "cgroups of instance %s", instance);
		cgroup_free(cg);
		return NULL;
	}
	return cg;
}

void cgroup_free(struct cgroup *cg)
{
	if (!cg)
		return;
	for (int t = 0; t < CGROUP_TREE_COUNT; t++) {
		replace_fd(&cg->root_fd[t], -1);
		replace_fd(&cg->purge_fd[t], -1);
	}
	free(cg);
}

uint32_t cgroup_version(const struct cgroup *cg)
{
	return cg->backend->version;
}

uint32_t cgroup_features(const struct cgroup *cg)
{
	return cg->features;
}

const char *cgroup_root_path(const struct cgroup *cg)
{
	return cg->root_path;
}

/* The group that holds all sandboxes: the kernel charges each of its ancestors. */
int cgroup_limit_all(struct cgroup *cg, uint64_t pids, uint64_t memory_bytes, struct sbx_err *err)
{
	bool v2 = cg->backend->version == 2;
	const struct {
		uint32_t feature;
		int root_fd;
		const char *file;
		uint64_t value;
	} knobs[] = {
		{CGROUP_PIDS, cg->root_fd[v2 ? CGROUP_TREE_V2 : CGROUP_TREE_PIDS], "pids.max", pids},
		{CGROUP_MEMORY, cg->root_fd[v2 ? CGROUP_TREE_V2 : CGROUP_TREE_MEMORY], v2 ? "memory.max" : "memory.limit_in_bytes", memory_bytes},
	};

	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++) {
		char value[24];

		if (!(cg->features & knobs[i].feature) || FAULT_POINT("cgroup-all"))
			continue;
		if (knobs[i].value == UINT64_MAX)
			snprintf(value, sizeof(value), "%s", v2 || knobs[i].feature == CGROUP_PIDS ? "max" : "-1");
		else
			snprintf(value, sizeof(value), "%llu", (unsigned long long)knobs[i].value);
		int r = cgroup_write(knobs[i].root_fd, knobs[i].file, value);
		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, -r, "set %s of %s to %s", knobs[i].file, cg->root_path, value);
	}
	return 0;
}

uint32_t cgroup_oom_epoll(const struct cgroup *cg)
{
	return cg->backend->oom_epoll;
}

void cgroup_slot_init(struct cgroup_slot *cs)
{
	memset(cs, 0, sizeof(*cs));
	cs->into_fd = cs->events_fd = cs->oom_fd = -1;
	for (int i = 0; i < CGROUP_JOIN_MAX; i++)
		cs->join_fd[i] = -1;
	for (int i = 0; i < CGROUP_TENANT_MAX; i++)
		cs->tenant_fd[i] = -1;
}

void cgroup_slot_close_entry(struct cgroup_slot *cs)
{
	replace_fd(&cs->into_fd, -1);
	for (int i = 0; i < CGROUP_JOIN_MAX; i++)
		replace_fd(&cs->join_fd[i], -1);
	for (int i = 0; i < CGROUP_TENANT_MAX; i++)
		replace_fd(&cs->tenant_fd[i], -1);
	cs->n_join = cs->n_tenant = 0;
}

void cgroup_slot_close(struct cgroup_slot *cs)
{
	cgroup_slot_close_entry(cs);
	replace_fd(&cs->events_fd, -1);
	replace_fd(&cs->oom_fd, -1);
	cgroup_slot_init(cs);
}

static void slot_name(struct cgroup_slot *cs, uint32_t slot, uint32_t generation)
{
	snprintf(cs->name, sizeof(cs->name), "s%u.%u", slot, generation);
}

void cgroup_slot_take(struct cgroup_slot *cs, uint32_t slot, uint32_t generation, int events_fd, int oom_fd)
{
	cgroup_slot_init(cs);
	slot_name(cs, slot, generation);
	cs->events_fd = events_fd;
	cs->oom_fd = oom_fd;
}

_Static_assert(CGROUP_TREE_COUNT == CGROUP_ROOTS_MAX, "a root for each tree");

size_t cgroup_roots(const struct cgroup *cg, int *ret_fd)
{
	size_t n = 0;

	for (int t = 0; t < CGROUP_TREE_COUNT; t++)
		if (cg->root_fd[t] >= 0)
			ret_fd[n++] = cg->root_fd[t];
	return n;
}

static int open_events(struct cgroup *cg, struct cgroup_slot *cs, struct sbx_err *err)
{
	char path[CGROUP_PATH_SIZE];

	cs->events_fd = openat(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, cs->name, "cgroup.events"),
			       O_RDONLY | O_CLOEXEC);
	if (cs->events_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open cgroup %s/%s", cg->root_path, path);
	return cg->backend->watch_oom(cg, cs, err);
}

/* So that a bomb of the tenants cannot take the agent, and a bug of the agent cannot take the host. */
static int limit_agent(struct cgroup *cg, const char *name, struct sbx_err *err)
{
	uint32_t own = cg->features & cg->backend->agent_limits;
	char value[24];
	int r = 0;

	if (own & CGROUP_MEMORY) {
		snprintf(value, sizeof(value), "%llu", CGROUP_AGENT_MEMORY_BYTES);
		r = cg->backend->knob(cg, name, "agent", CGROUP_KNOB_MEMORY, value);
	}
	if (!r && (own & CGROUP_PIDS)) {
		snprintf(value, sizeof(value), "%u", CGROUP_AGENT_PIDS);
		r = cg->backend->knob(cg, name, "agent", CGROUP_KNOB_PIDS, value);
	}
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "limits of the agent in cgroup %s", name) : 0;
}

int cgroup_make(struct cgroup *cg, uint32_t slot, uint32_t generation, uid_t agent_uid, struct cgroup_slot *cs,
		struct sbx_err *err)
{
	slot_name(cs, slot, generation);
	if (mkdirat(cg->root_fd[CGROUP_TREE_V2], cs->name, 0755) < 0) {
		int sys = errno;

		sbx_err_set(err, sys == EEXIST ? SBX_E_LIMIT : SBX_E_SYSTEM, sys, "make cgroup %s/%s", cg->root_path, cs->name);
		cgroup_slot_init(cs);
		return -1;
	}
	if (!FAULT_POINT("cgroup-make") && !cg->backend->make(cg, cs, agent_uid, err) && !limit_agent(cg, cs->name, err) &&
	    !open_events(cg, cs, err))
		return 0;
	/* Nothing was in the groups yet, so this removal cannot find them busy; its own error would hide the first one. */
	ignore_result(cgroup_remove(cg, cs, NULL) < 0);
	cgroup_slot_close(cs);
	return -1;
}

int cgroup_adopt(struct cgroup *cg, uint32_t slot, uint32_t generation, struct cgroup_slot *cs, struct sbx_err *err)
{
	slot_name(cs, slot, generation);
	if (open_events(cg, cs, err) < 0) {
		cgroup_slot_close(cs);
		return -1;
	}
	return 0;
}

static uint32_t wanted(const struct cgroup_limits *limits)
{
	return (limits->memory_bytes ? (uint32_t)(CGROUP_MEMORY | CGROUP_SWAP) : 0) | (limits->pids_max ? CGROUP_PIDS : 0u) |
	       (limits->cpu_millicores ? CGROUP_CPU : 0u);
}

static int refuse_lack(uint32_t lack, struct sbx_err *err)
{
	char names[160] = "";

	for (size_t i = 0, used = 0; i < ARRAY_SIZE(feature_names); i++) {
		if (!(lack & feature_names[i].feature))
			continue;
		int n = snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "", feature_names[i].name);

		used += n > 0 ? (size_t)n : 0;
	}
	return sbx_err_set(err, SBX_E_HOST_LACKS, 0, "this host cannot enforce: %s (sandboxctl doctor says more)", names);
}

static int set_knob(struct cgroup *cg, const struct cgroup_slot *cs, enum cgroup_knob knob, uint64_t number, struct sbx_err *err)
{
	char value[24];
	int r;

	if (!(cg->features & knob_feature[knob]))
		return 0;
	snprintf(value, sizeof(value), "%llu", (unsigned long long)number);
	r = cg->backend->knob(cg, cs->name, "tenant", knob, value);
	if (r == -EBUSY) /* version 1: it holds more than that already */
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the limit %s is below what an empty sandbox takes; ask for more, such as 64m", value);
	if (r == -EINVAL || r == -ERANGE)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, -r, "the kernel refuses the limit %s", value);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "set limit %s in cgroup %s", value, cs->name) : 0;
}

static int limit_cpu(struct cgroup *cg, const struct cgroup_slot *cs, uint32_t millicores, struct sbx_err *err)
{
	/* The kernel takes no quota below 1 ms: a small share gets the longest period that it takes instead. */
	uint64_t period_usec = millicores < 10 ? 1000000 : 100000;
	int r = cg->backend->cpu(cg, cs->name, period_usec / 1000 * millicores, period_usec);

	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "set cpu limit %um in cgroup %s", millicores, cs->name) : 0;
}

int cgroup_limit(struct cgroup *cg, const struct cgroup_slot *cs, const struct cgroup_limits *limits, uint32_t allow_lack,
		 struct sbx_err *err)
{
	uint32_t lack = wanted(limits) & ~cg->features;

	if (lack & ~allow_lack)
		return refuse_lack(lack & ~allow_lack, err);
	if (FAULT_POINT("cgroup-limit"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "set limits in cgroup %s", cs->name);
	if (limits->memory_bytes && (set_knob(cg, cs, CGROUP_KNOB_MEMORY, limits->memory_bytes, err) < 0 ||
				     set_knob(cg, cs, CGROUP_KNOB_SWAP, cg->backend->version == 2 ? 0 : limits->memory_bytes, err) < 0))
		return -1;
	if (limits->pids_max && set_knob(cg, cs, CGROUP_KNOB_PIDS, limits->pids_max, err) < 0)
		return -1;
	if (limits->cpu_millicores && (cg->features & CGROUP_CPU) && limit_cpu(cg, cs, limits->cpu_millicores, err) < 0)
		return -1;
	return (int)lack;
}

/* Value of @key in an open cgroup.events: 1, 0 or -errno. */
static int events_value(int fd, const char *key)
{
	char text[128];
	uint64_t value;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return -errno;
	text[n] = '\0';
	return cgroup_field(text, key, &value) < 0 ? -EPROTO : value != 0;
}

int cgroup_freeze_done(int events_fd, bool freeze)
{
	int r = events_value(events_fd, "frozen");

	return r < 0 ? r : (r != 0) == freeze;
}

int cgroup_freeze_begin(struct cgroup *cg, const struct cgroup_slot *cs, bool freeze, int *ret_events_fd, struct sbx_err *err)
{
	const char *what = freeze ? "freeze" : "thaw";
	char path[CGROUP_PATH_SIZE];
	/* A description of its own: the event must stay visible for the loop that watches events_fd. */
	auto_fd events = openat(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, cs->name, "cgroup.events"),
				O_RDONLY | O_CLOEXEC);
	int r = events < 0 ? -errno : 0;

	if (!r && !(freeze && FAULT_POINT("freeze-stuck")))
		r = cgroup_write(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, cs->name, "cgroup.freeze"), freeze ? "1" : "0");
	if (!r)
		r = cgroup_freeze_done(events, freeze);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "%s cgroup %s", what, cs->name);
	*ret_events_fd = take_fd(&events);
	return r;
}

static int set_frozen(struct cgroup *cg, const struct cgroup_slot *cs, bool freeze, struct sbx_err *err)
{
	uint64_t until_ms = mono_ms() + FREEZE_WAIT_MS, now_ms;
	auto_fd events = -1;
	int r = cgroup_freeze_begin(cg, cs, freeze, &events, err);

	while (r == 0) {
		struct pollfd p = {.fd = events, .events = POLLPRI};

		now_ms = mono_ms();
		if (now_ms >= until_ms || (poll(&p, 1, (int)(until_ms - now_ms)) < 0 && errno != EINTR))
			return sbx_err_set(err, SBX_E_SYSTEM, now_ms >= until_ms ? ETIMEDOUT : errno, "%s cgroup %s", freeze ? "freeze" : "thaw",
					   cs->name);
		r = cgroup_freeze_done(events, freeze);
		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, -r, "%s cgroup %s", freeze ? "freeze" : "thaw", cs->name);
	}
	return r < 0 ? -1 : 0;
}

int cgroup_freeze(struct cgroup *cg, const struct cgroup_slot *cs, struct sbx_err *err)
{
	if (!FAULT_POINT("cgroup-freeze") && !set_frozen(cg, cs, true, err))
		return 0;
	/* Half frozen is neither Paused nor Running: back to Running.  The first error is the one to tell. */
	struct sbx_err second;

	ignore_result(set_frozen(cg, cs, false, &second) < 0);
	return -1;
}

int cgroup_thaw(struct cgroup *cg, const struct cgroup_slot *cs, struct sbx_err *err)
{
	return set_frozen(cg, cs, false, err);
}

int cgroup_frozen(struct cgroup *cg, const struct cgroup_slot *cs, struct sbx_err *err)
{
	char path[CGROUP_PATH_SIZE];
	uint64_t value;
	int r = cgroup_read_u64(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, cs->name, "cgroup.freeze"), &value);

	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "read cgroup %s", path) : value != 0;
}

int cgroup_kill(struct cgroup *cg, const struct cgroup_slot *cs, struct sbx_err *err)
{
	char path[CGROUP_PATH_SIZE];
	int r = cgroup_write(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, cs->name, "cgroup.kill"), "1");

	if (r < 0 && r != -ENOENT && r != -ENODEV)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "kill cgroup %s", cs->name);
	return 0;
}

int cgroup_populated(const struct cgroup_slot *cs)
{
	int r = cs->events_fd < 0 ? 0 : events_value(cs->events_fd, "populated");

	return r == -ENODEV || r == -ENOENT ? 0 : r;
}

int cgroup_stat(struct cgroup *cg, const struct cgroup_slot *cs, struct cgroup_figures *ret, struct sbx_err *err)
{
	struct cgroup_figures figures = {.memory_limit_bytes = UINT64_MAX};
	char path[CGROUP_PATH_SIZE], text[1024];
	int r = cgroup_read(cg->root_fd[CGROUP_TREE_V2], cgroup_join_path(path, cs->name, "cpu.stat"), text, sizeof(text));

	if (r >= 0)
		r = cgroup_field(text, "usage_usec", &figures.cpu_usec);
	if (r >= 0)
		r = cg->backend->stat(cg, cs, &figures);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "read figures of cgroup %s", cs->name);
	*ret = figures;
	return 0;
}

int cgroup_oom_kills(struct cgroup *cg, const struct cgroup_slot *cs, uint64_t *ret)
{
	return cg->features & CGROUP_MEMORY ? cg->backend->oom_kills(cg, cs, ret) : -EOPNOTSUPP;
}

int cgroup_remove(struct cgroup *cg, struct cgroup_slot *cs, struct sbx_err *err)
{
	int r = cgroup_populated(cs);

	/* Half of a group with a process in it would be neither usable nor removable. */
	r = r > 0 ? -EBUSY : r;
	if (!r && *cs->name)
		r = cg->backend->remove(cg, cs->name);
	if (!r && *cs->name)
		r = cgroup_rmdir(cg->root_fd[CGROUP_TREE_V2], cs->name);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "remove cgroup %s", cs->name);
	cgroup_slot_close(cs);
	return 0;
}

int cgroup_discard(struct cgroup *cg, uint32_t slot, uint32_t generation, struct sbx_err *err)
{
	struct cgroup_slot cs;

	cgroup_slot_init(&cs);
	slot_name(&cs, slot, generation);
	if (cgroup_kill(cg, &cs, err) < 0)
		return -1;
	int r = cg->backend->remove(cg, cs.name);
	if (!r)
		r = cgroup_rmdir(cg->root_fd[CGROUP_TREE_V2], cs.name);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "remove cgroup %s", cs.name) : 0;
}

/* "s12.345": both numbers, nothing behind. */
static bool parse_name(const char *name, uint32_t *slot, uint32_t *generation)
{
	const char *dot = strchr(name, '.');

	return *name == 's' && dot && !num_u32(name + 1, (size_t)(dot - name - 1), UINT32_MAX, slot) &&
	       !num_u32(dot + 1, strlen(dot + 1), UINT32_MAX, generation);
}

int cgroup_each(struct cgroup *cg, cgroup_found *found, void *arg, struct sbx_err *err)
{
	auto_dir dir = path_dir(cg->root_fd[CGROUP_TREE_V2]);
	const struct dirent *entry;
	uint32_t slot, generation;

	if (!dir)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "list %s", cg->root_path);
	while ((entry = readdir(dir)))
		if (parse_name(entry->d_name, &slot, &generation))
			found(arg, slot, generation);
	return 0;
}

int cgroup_purge(struct cgroup *cg, struct sbx_err *err)
{
	int r = cg->backend->purge(cg);

	for (int t = CGROUP_TREE_COUNT - 1; t >= 0; t--) {
		int one = cg->purge_fd[t] < 0 ? 0 : cgroup_rmdir(cg->purge_fd[t], cg->instance_dir);

		r = r ? r : one;
	}
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "remove cgroup %s", cg->root_path) : 0;
}
