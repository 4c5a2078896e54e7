/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the two cgroup backends share
 *
 * A tree is one mounted hierarchy.  root_fd[t] is the instance's group in it.  On v2 there is one tree.  In the v2 tree a
 * sandbox is a directory "s<slot>.<generation>"; on v2 it has the leaves `agent` and `tenant`, on the hybrid host it is a leaf
 * and the v1 trees have "<name>.tenant" and (pids) "<name>.agent".  The v2 directory is made first and removed last, so it is there
 * whenever any other is.
 */
#ifndef RUNTIME_CGROUP_INT_H
#define RUNTIME_CGROUP_INT_H

#include "runtime/broker/cgroup.h"

enum cgroup_tree {
	CGROUP_TREE_V2 = 0,
	CGROUP_TREE_MEMORY,
	CGROUP_TREE_PIDS,
	CGROUP_TREE_CPU,
	CGROUP_TREE_DEVICES,
	CGROUP_TREE_COUNT
};

enum cgroup_knob {
#define CGROUP_KNOB(id, feature, v2, tree, v1) CGROUP_KNOB_##id,
#include "runtime/broker/cgroup_knobs.def"
#undef CGROUP_KNOB
	CGROUP_KNOB_COUNT
};

#define CGROUP_PATH_SIZE 512
#define CGROUP_LEAF_SIZE 48
/* The agent holds frames and writes spools; 256 tasks cover LIMIT_STREAMS with their helpers. */
#define CGROUP_AGENT_MEMORY_BYTES (64ull * 1024 * 1024)
#define CGROUP_AGENT_PIDS	  256u

struct cgroup_mounts {
	char mount[CGROUP_TREE_COUNT][CGROUP_PATH_SIZE]; /* "" when there is none */
	uint32_t v2_controllers;			 /* mask of enum cgroup_feature that the v2 tree has */
};

struct cgroup_backend;

struct cgroup {
	const struct cgroup_backend *backend;
	uint32_t features;
	int root_fd[CGROUP_TREE_COUNT]; /* owned; -1 when the tree is not used */
	char root_path[CGROUP_PATH_SIZE];
	int purge_fd[CGROUP_TREE_COUNT]; /* owned; the parent of root_fd */
	char instance_dir[CGROUP_LEAF_SIZE + 16];
};

/* Differences only; what is equal in both stands in cgroup.c. */
struct cgroup_backend {
	uint32_t version;
	uint32_t agent_limits; /* mask of enum cgroup_feature: the agent has a group of its own there */
	uint32_t oom_epoll;
	int (*open)(struct cgroup *cg, const struct cgroup_mounts *mounts, struct sbx_err *err);
	int (*make)(struct cgroup *cg, struct cgroup_slot *cs, uid_t agent_uid, struct sbx_err *err);
	int (*watch_oom)(struct cgroup *cg, struct cgroup_slot *cs, struct sbx_err *err);
	int (*knob)(struct cgroup *cg, const char *name, const char *leaf, enum cgroup_knob knob, const char *value);
	int (*cpu)(struct cgroup *cg, const char *name, uint64_t quota_usec, uint64_t period_usec);
	int (*stat)(struct cgroup *cg, const struct cgroup_slot *cs, struct cgroup_figures *ret);
	int (*oom_kills)(struct cgroup *cg, const struct cgroup_slot *cs, uint64_t *ret);
	int (*remove)(struct cgroup *cg, const char *name); /* all but the v2 directory itself */
	int (*purge)(struct cgroup *cg);
};

extern const struct cgroup_backend cgroup_backend_v1;
extern const struct cgroup_backend cgroup_backend_v2;

/** cgroup_detect() - Find the mounted hierarchies in /proc/self/mountinfo into @ret; Return: 0, or -1 with @err set */
int cgroup_detect(struct cgroup_mounts *ret, struct sbx_err *err) SBX_WUR;
/** cgroup_detect_parse() - The parser of cgroup_detect(): mountinfo @text; fills mount[] of @ret; Return: 0 or -EINVAL */
int cgroup_detect_parse(const char *text, struct cgroup_mounts *ret);
/** cgroup_controllers_parse() - Mask of enum cgroup_feature in the word list @text of a cgroup.controllers file */
uint32_t cgroup_controllers_parse(const char *text);
/** cgroup_swap_present() - Whether the host has swap space in use */
bool cgroup_swap_present(void);

/** cgroup_open_root() - Make and open @dir below @parent_path for @tree of @cg; Return: 0, or -1 with @err set */
int cgroup_open_root(struct cgroup *cg, enum cgroup_tree tree, const char *parent_path, struct sbx_err *err) SBX_WUR;
/** cgroup_write() - Write @value to @path below @dir_fd in one call; Return: 0 or -errno */
int cgroup_write(int dir_fd, const char *path, const char *value) SBX_WUR;
/** cgroup_read() - Read @path below @dir_fd into @buf of @size with a NUL; Return: length or -errno */
int cgroup_read(int dir_fd, const char *path, char *buf, size_t size) SBX_WUR;
/** cgroup_read_u64() - The number in @path below @dir_fd, "max" is UINT64_MAX; Return: 0 or -errno */
int cgroup_read_u64(int dir_fd, const char *path, uint64_t *ret) SBX_WUR;
/** cgroup_field() - The number behind word @key at the start of a line of @text; Return: 0 or -ENOENT */
int cgroup_field(const char *text, const char *key, uint64_t *ret) SBX_WUR;
/** cgroup_rmdir() - Remove @path below @dir_fd; gone is fine; Return: 0 or -errno */
int cgroup_rmdir(int dir_fd, const char *path) SBX_WUR;
/** cgroup_join_path() - Write @dir "/" @file into @out of CGROUP_PATH_SIZE; Return: @out */
const char *cgroup_join_path(char *out, const char *dir, const char *file);

#endif
