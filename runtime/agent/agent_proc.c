// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_proc.h"

#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define TAG_BASE   (1ull << 50)
#define MAX_PASSES 64
#define FORKED_NOT_EXECUTED 0x40u /* PF_FORKNOEXEC of the kernel's flags in /proc/PID/stat */

struct entry {
	pid_t pid, ppid, pgid;
	uint32_t flags; /* the kernel's PF_ */
	char state;
	uint8_t member;
	uint8_t stopped;
};

struct table {
	struct entry *at; /* owned */
	size_t n, room;
};

uint64_t proc_tag(uint32_t serial)
{
	return TAG_BASE + serial;
}

static pid_t parse_pid(const char *s)
{
	uint32_t v;

	return users_id(s, strlen(s), &v) ? 0 : (pid_t)v;
}

/* Takes the number at *@at and steps over the space behind it; 0 for what is none, as tpgid is -1 without a terminal. */
static uint32_t take_number(char **at)
{
	char *number = *at, *end = strchr(number, ' ');
	uint32_t v;

	if (!end)
		return 0;
	*end = 0;
	*at = end + 1;
	return users_id(number, strlen(number), &v) ? 0 : v;
}

/* "pid (comm) S ppid pgrp session tty tpgid flags ...": comm may hold anything: fields are taken behind the last parenthesis. */
static int read_stat(int proc_fd, const char *name, struct entry *e)
{
	char path[32], text[512];

	snprintf(path, sizeof(path), "%.16s/stat", name);
	auto_fd fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -1;
	text[n] = 0;
	char *s = strrchr(text, ')');
	if (!s || strlen(s) < 5)
		return -1;
	e->state = s[2];
	s += 4;
	e->ppid = (pid_t)take_number(&s);
	e->pgid = (pid_t)take_number(&s);
	for (int other = 0; other < 3; other++)
		take_number(&s);
	e->flags = take_number(&s);
	return 0;
}

static int table_add(struct table *t, const struct entry *e)
{
	if (t->n == t->room) {
		size_t room = t->room ? t->room * 2 : 64;
		void *p = realloc(t->at, room * sizeof(*t->at));

		if (!p)
			return -ENOMEM;
		t->at = p;
		t->room = room;
	}
	t->at[t->n++] = *e;
	return 0;
}

static int table_read(int proc_fd, struct table *t)
{
	int fd = openat(proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_dir dir = fd < 0 ? NULL : fdopendir(fd);

	t->n = 0;
	if (!dir) {
		close_keep_errno(fd);
		return -errno;
	}
	for (struct dirent *d; (d = readdir(dir));) {
		struct entry e = {.pid = parse_pid(d->d_name)};

		if (e.pid <= 1 || read_stat(proc_fd, d->d_name, &e) < 0)
			continue;
		int r = table_add(t, &e);
		if (r)
			return r;
	}
	return 0;
}

static int carries_tag(pid_t pid, uint64_t tag)
{
	struct rlimit lim;

	return !prlimit(pid, RLIMIT_RTTIME, NULL, &lim) && lim.rlim_max == tag;
}

static int is_member(const struct table *t, pid_t pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->at[i].pid == pid)
			return t->at[i].member;
	return 0;
}

/* Marks root, tagged processes and, until nothing changes, children of members. */
static void mark_members(struct table *t, pid_t root, uint64_t tag)
{
	int changed = 1;

	for (size_t i = 0; i < t->n; i++)
		t->at[i].member = t->at[i].pid == root || carries_tag(t->at[i].pid, tag);
	while (changed) {
		changed = 0;
		for (size_t i = 0; i < t->n; i++)
			if (!t->at[i].member && t->at[i].ppid > 1 && is_member(t, t->at[i].ppid))
				changed = t->at[i].member = 1;
	}
}

static void signal_members(const struct table *t, int sig)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->at[i].member)
			kill(t->at[i].pid, sig);
}

void proc_kill_tree(const struct agent *a, pid_t root, uint64_t tag)
{
	struct table t = {0};

	/* stop everything that can still fork; a pass that finds all members stopped (or dead) ends the search */
	for (int pass = 0; pass < MAX_PASSES; pass++) {
		size_t running = 0;

		if (table_read(a->proc_fd, &t))
			break;
		mark_members(&t, root, tag);
		for (size_t i = 0; i < t.n; i++) {
			if (!t.at[i].member || strchr("TtZX", t.at[i].state))
				continue;
			running++;
			kill(t.at[i].pid, SIGSTOP);
		}
		if (!running)
			break;
	}
	signal_members(&t, SIGKILL);
	if (root > 0) {
		kill(-root, SIGKILL);
		kill(root, SIGKILL);
	}
	free(t.at);
}

pid_t proc_group_member(const struct agent *a, pid_t pgid)
{
	struct table t = {0};
	pid_t found = 0;

	if (kill(-pgid, 0) < 0 && errno == ESRCH)
		return 0;
	if (!table_read(a->proc_fd, &t))
		for (size_t i = 0; i < t.n && !found; i++)
			if (t.at[i].pgid == pgid && !strchr("ZX", t.at[i].state))
				found = t.at[i].pid;
	free(t.at);
	return found;
}

int proc_look(const struct agent *a, pid_t pid, struct proc_look *ret)
{
	struct entry e = {.pid = pid};
	char name[16];

	snprintf(name, sizeof(name), "%d", pid);
	if (read_stat(a->proc_fd, name, &e) < 0)
		return -ESRCH;
	*ret = (struct proc_look){.state = e.state, .executed = !(e.flags & FORKED_NOT_EXECUTED)};
	return 0;
}

#define CHILDREN_BYTES 4096 /* of the list of one process, as much as one read(2) gives: its oldest 800, more are not looked at */

/* Adds the children of @pid to @to, of which @n are there; with @tag only those who carry it.  Return: how many there are then. */
static size_t add_children(const struct agent *a, pid_t pid, uint64_t tag, pid_t to[PROC_TAIL_MAX], size_t n)
{
	char path[64], text[CHILDREN_BYTES], *at = text;

	snprintf(path, sizeof(path), "%d/task/%d/children", pid, pid);
	auto_fd fd = openat(a->proc_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (got <= 0)
		return n;
	text[got] = 0;
	/* each number has a space behind it: one that was cut has none */
	while (n < PROC_TAIL_MAX && strchr(at, ' ')) {
		pid_t child = (pid_t)take_number(&at);

		if (child > 1 && (!tag || carries_tag(child, tag)))
			to[n++] = child;
	}
	return n;
}

/*
 * The mount that descriptor @fd of @pid is from, 0 when that is not told: that of the kernel's pipes has none but pipes.  A link
 * in /proc/PID/fd would say it too, but that directory is its owner's; this one is for all who may look into the process.
 */
static uint32_t mount_of(const struct agent *a, pid_t pid, int fd)
{
	static const char label[] = "mnt_id:\t";
	char path[48], text[256];
	uint32_t id;

	snprintf(path, sizeof(path), "%d/fdinfo/%d", pid, fd);
	auto_fd file = openat(a->proc_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = 0;
	const char *number = strstr(text, label);
	if (!number)
		return 0;
	number += sizeof(label) - 1;
	return users_id(number, strspn(number, "0123456789"), &id) ? 0 : id;
}

void proc_tail(const struct agent *a, uint64_t tag, int pipe_fd, struct proc_tail *ret)
{
	pid_t pids[PROC_TAIL_MAX];
	uint32_t pipes = mount_of(a, 1, pipe_fd);
	size_t n = add_children(a, 1, tag, pids, 0);

	*ret = (struct proc_tail){0};
	for (size_t i = 0; i < n; i++) {
		struct proc_look look;

		if (proc_look(a, pids[i], &look) < 0 || strchr("ZX", look.state))
			continue;
		ret->at_work |= strchr("RD", look.state) != NULL;
		ret->fed |= pipes && mount_of(a, pids[i], 0) == pipes;
		n = add_children(a, pids[i], 0, pids, n);
	}
}
