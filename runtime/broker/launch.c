// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/launch.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/disk.h"
#include "runtime/broker/egress.h"
#include "runtime/broker/idmap.h"
#include "runtime/broker/launch_child.h"
#include "runtime/broker/launch_sync.h"
#include "runtime/broker/rootfs_mount.h"
#include "runtime/broker/shells.h"
#include "runtime/broker/slot.h"
#include "runtime/broker/volumes.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define UPPER_MODE	0755
#define HOSTNAME_DIGITS 8 /* of the sandbox id's text: unique enough for a prompt */
#define BARE_DIVISOR	8 /* such a part of the pool stays without a root, for volumes and for other images than the last */
#define RETIRE_CREATES	4 /* in a row of one image: then shells that wait with the root of another one are replaced */

static_assert(LAUNCH_MAX_VOLUMES == BROKER_MAX_VOLUMES, "the shell takes as many volumes as a request has");
static_assert(LAUNCH_FD_TENANT_CGROUP + CGROUP_TENANT_MAX == LAUNCH_SETUP_FDS_MAX, "room for the tenants' groups");

static const char *const fifo_names[] = {"control.in", "control.out", "exec.in", "exec.out", "bulk.in", "bulk.out"};

static const char *const stage_names[LAUNCH_STAGE_COUNT] = {
	[LAUNCH_STAGE_NONE] = "start", [LAUNCH_STAGE_CGROUP] = "joining its groups", [LAUNCH_STAGE_ATTRIBUTES] = "inherited attributes",
	[LAUNCH_STAGE_EXEC] = "executing the agent", [LAUNCH_STAGE_NETWORK] = "network", [LAUNCH_STAGE_STAGING] = "staging mounts",
	[LAUNCH_STAGE_PROC] = "/proc", [LAUNCH_STAGE_DEV] = "/dev", [LAUNCH_STAGE_USERNS] = "inner user namespace",
	[LAUNCH_STAGE_ROOT] = "root file system", [LAUNCH_STAGE_VOLUME] = "volume", [LAUNCH_STAGE_ETC] = "files of /etc",
	[LAUNCH_STAGE_MASK] = "masked paths", [LAUNCH_STAGE_IDENTITY] = "identity", [LAUNCH_STAGE_FILTER] = "system call filter",
};

void launch_dir_name(const struct slot *s, char name[32])
{
	snprintf(name, 32, "%u.%u", s->number, s->generation);
}

/* ---- what a life has on disk and in the run directory ---- */

/* Made anew for each life: somebody may still hold an end of the last tenant's. */
static int make_fifos(const struct slot *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(fifo_names); i++) {
		if (unlinkat(s->dir_fd, fifo_names[i], 0) < 0 && errno != ENOENT)
			return -errno;
		if (mkfifoat(s->dir_fd, fifo_names[i], 0600) < 0)
			return -errno;
	}
	return 0;
}

/* Everything of a life belongs to its B from the start: the trash worker, which is nobody else, can remove it. */
static int make_directories(struct broker *b, const struct slot *s, const char *name)
{
	if (mkdirat(b->sandboxes_fd, name, 0700) < 0)
		return -errno;
	auto_fd dir = path_open_beneath(b->sandboxes_fd, name, O_RDONLY | O_DIRECTORY);
	int r = dir < 0 ? dir : disk_tag(b, s, dir);
	if (r < 0)
		return r;
	if (dir >= 0 && (mkdirat(dir, "upper", UPPER_MODE) < 0 || mkdirat(dir, "work", 0700) < 0))
		return -errno;
	return take_fd(&dir);
}

static int make_spool(int dir)
{
	int fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd < 0 ? -errno : fd;
	fd = openat(dir, "spool", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 && unlinkat(dir, "spool", 0) < 0) {
		close_keep_errno(fd);
		fd = -1;
	}
	return fd < 0 ? -errno : fd;
}

static int make_files(struct broker *b, struct slot *s, int *ret_spool_fd)
{
	char name[32];

	launch_dir_name(s, name);
	s->has_files = true;
	idmap_act_as(slot_base(b, s));
	auto_fd dir = make_directories(b, s, name);
	*ret_spool_fd = dir < 0 ? dir : make_spool(dir);
	idmap_act_as(0);
	return *ret_spool_fd < 0 ? *ret_spool_fd : 0;
}

int launch_channel(const struct slot *s, uint32_t channel, int ret_fd[LAUNCH_CHANNEL_FDS])
{
	size_t first = channel == BROKER_CHANNEL_CONTROL ? 0 : 2, n = channel == BROKER_CHANNEL_CONTROL ? 2 : LAUNCH_CHANNEL_FDS;

	/* The agent holds both ends of each, so no open waits; ENXIO: the agent is gone. */
	for (size_t i = 0; i < n; i++) {
		int direction = i % 2 ? O_RDONLY : O_WRONLY;

		ret_fd[i] = openat(s->dir_fd, fifo_names[first + i], direction | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
		if (ret_fd[i] >= 0)
			continue;
		if (errno == ENOENT && i == 2)
			return 2; /* a sandbox from before there was a bulk channel */
		int failed = -errno;
		while (i)
			close(ret_fd[--i]);
		return failed;
	}
	return (int)n;
}

static void close_all(int *fd, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close_keep_errno(fd[i]);
}

/* ---- the root, when the image is known or guessed ---- */

/* Root, /usr and volumes into @fd, in the order of launch_sync.h; Return: 0, or -1 with @err set; *n of @fd are open. */
static int mounts(struct broker *b, struct slot *s, const struct broker_image *image, const struct broker_create *c,
		  struct launch_root *root, int *fd, size_t *n, struct sbx_err *err)
{
	fd[*n] = rootfs_overlay(b, s, image, err);
	if (fd[*n] < 0)
		return -1;
	++*n;
	if (image->host_usr) {
		fd[*n] = rootfs_usr(b);
		if (fd[*n] < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, -fd[*n], "/usr of the host image");
		++*n;
	}
	for (uint32_t i = 0; c && i < c->n_volumes; i++) {
		bool is_file = false;

		fd[*n] = volumes_open(b, s, &c->volume[i], disk_volume_fd(s, i), &is_file, err);
		if (fd[*n] < 0)
			return -1;
		++*n;
		root->volume[i].read_only = !!(c->volume[i].flags & BROKER_VOLUME_READ_ONLY);
		root->volume[i].is_file = is_file;
		memcpy(root->volume[i].path, c->volume[i].mount_path, sizeof(root->volume[i].path));
	}
	root->n_volumes = c ? c->n_volumes : 0;
	return 0;
}

/* Kept output counts as well: the spool from before there was a limit is replaced by one on the disk. */
static int spool_on_disk(struct broker *b, struct slot *s, struct launch_root *root, int *fd, size_t *n, struct sbx_err *err)
{
	auto_fd dir = openat(s->disk_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	idmap_act_as(slot_base(b, s));
	fd[*n] = dir < 0 ? -errno : make_spool(dir);
	idmap_act_as(0);
	if (fd[*n] < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -fd[*n], "spool on the disk of slot %u", s->number);
	++*n;
	root->flags |= LAUNCH_ROOT_SPOOL;
	return 0;
}

/* @c: whose volumes; NULL: nobody's yet */
static int give_root(struct broker *b, struct slot *s, const struct broker_image *image, const struct broker_create *c, struct sbx_err *err)
{
	int fd[3 + BROKER_MAX_VOLUMES];
	size_t n = 0;
	struct launch_root root = {.msg = LAUNCH_ROOT, .flags = image->host_usr ? LAUNCH_ROOT_HOST_USR : 0};

	snprintf(root.nameserver, sizeof(root.nameserver), "%u.%u.%u.%u", b->settings.gateway_addr >> 24,
		 b->settings.gateway_addr >> 16 & 0xff, b->settings.gateway_addr >> 8 & 0xff, b->settings.gateway_addr & 0xff);
	s->host_usr = image->host_usr;
	int r = mounts(b, s, image, c, &root, fd, &n, err);
	if (r == 0 && s->disk_fd >= 0)
		r = spool_on_disk(b, s, &root, fd, &n, err);
	if (r == 0) {
		struct iovec iov = {.iov_base = &root, .iov_len = sizeof(root)};

		r = fdpass_send(s->launch_fd, &iov, 1, fd, n);
		if (r < 0)
			r = sbx_err_set(err, SBX_E_SYSTEM, -r, "root of slot %u", s->number);
	}
	close_all(fd, n);
	return r;
}

/* ---- messages of the shell: our own code up to ARMED, yet read as if it were not ---- */

static void launch_failed(struct broker *b, struct slot *s, const struct sbx_err *err)
{
	if (s->create)
		broker_create_done(b, s, err);
	else
		log_error("shell of slot %u: %s", s->number, err->msg);
	slot_kill(b, s);
}

void launch_end(struct slot *s)
{
	loop_fd_remove(s->launch_source);
	s->launch_source = NULL;
	replace_fd(&s->launch_fd, -1);
	loop_timer_free(s->deadline);
	s->deadline = NULL;
}

static void too_late(void *arg)
{
	struct slot *s = arg;
	struct sbx_err err;

	sbx_err_set(&err, SBX_E_START_FAILED, 0, "slot %u was %s for %u s", s->number, slot_state_name(s->state), BROKER_LAUNCH_MS / 1000);
	launch_failed(s->broker, s, &err);
}

void launch_not_for_pool(struct broker *b, struct slot *s)
{
	b->n_making -= s->for_pool;
	s->for_pool = false;
}

static void into_pool(struct broker *b, struct slot *s)
{
	loop_timer_disarm(s->deadline);
	launch_not_for_pool(b, s);
	(void)slot_set_state(b, s, BROKER_SLOT_SHELL);
	slot_list_push(&b->pool, s);
}

/* Some shells are left without a root. */
static bool root_wanted(const struct broker *b)
{
	uint32_t bare = 0;

	for (const struct slot *s = b->pool.first; s; s = s->next)
		bare += !s->rooted;
	return b->likely.n_layers && bare >= (uint32_t)b->settings.pool_target / BARE_DIVISOR;
}

static void shell_ready(struct broker *b, struct slot *s)
{
	struct sbx_err err;

	s->is_shell = true;
	cgroup_slot_close_entry(&s->cg);
	if (s->state != BROKER_SLOT_MAKING)
		return;
	/* in a turn of its own: a request waits for one of the two at most */
	if (!root_wanted(b)) {
		into_pool(b, s);
		return;
	}
	int r = b->likely.disk_mib && s->disk_fd < 0 ? disk_take(b, s, b->likely.disk_mib, &err) : 1;
	if (r == 0)
		return; /* launch_disk_done() goes on */
	if (r < 0 || give_root(b, s, &b->likely, NULL, &err) < 0) {
		b->likely.n_layers = 0; /* until a create says what the image is now */
		launch_failed(b, s, &err);
	}
}

static void root_ready(struct broker *b, struct slot *s)
{
	s->rooted = true;
	if (s->state == BROKER_SLOT_MAKING)
		into_pool(b, s);
}

static void armed(struct broker *b, struct slot *s)
{
	struct sbx_err err = {0};

	launch_end(s);
	if (slot_watch_cgroup(b, s, &err) < 0 || slot_set_state(b, s, BROKER_SLOT_LIVE) < 0) {
		if (!err.code)
			sbx_err_set(&err, SBX_E_SYSTEM, 0, "record of slot %u", s->number);
		launch_failed(b, s, &err);
		return;
	}
	broker_create_done(b, s, NULL);
}

static void refused(struct broker *b, struct slot *s, const struct launch_answer *answer)
{
	const char *stage = answer->stage < LAUNCH_STAGE_COUNT ? stage_names[answer->stage] : "an unknown step";
	int sys = answer->sys > 0 && answer->sys < 4096 ? answer->sys : 0;
	struct sbx_err err;

	if (answer->stage == LAUNCH_STAGE_VOLUME)
		sbx_err_set(&err, SBX_E_START_FAILED, sys, "volume %u cannot be mounted at its place inside", answer->detail);
	else
		sbx_err_set(&err, SBX_E_START_FAILED, sys, "the shell failed at: %s (%u)", stage, answer->detail);
	launch_failed(b, s, &err);
}

static void on_answer(void *arg, int fd, uint32_t events)
{
	struct slot *s = arg;
	struct launch_answer answer;
	struct sbx_err err;

	(void)events;
	ssize_t n = fdpass_recv(fd, &answer, sizeof(answer), NULL, 0, NULL);
	if (n == -EAGAIN)
		return;
	if (n == sizeof(answer) && answer.msg == LAUNCH_SHELL && !s->is_shell) {
		shell_ready(s->broker, s);
		return;
	}
	if (n == sizeof(answer) && answer.msg == LAUNCH_ROOTED && s->is_shell && !s->rooted && s->n_layers) {
		root_ready(s->broker, s);
		return;
	}
	if (n == sizeof(answer) && answer.msg == LAUNCH_ARMED && s->rooted && s->state == BROKER_SLOT_ARMING) {
		armed(s->broker, s);
		return;
	}
	if (n == sizeof(answer) && answer.msg == LAUNCH_FAILED) {
		refused(s->broker, s, &answer);
		return;
	}
	if (n == 0)
		sbx_err_set(&err, SBX_E_START_FAILED, 0, "the shell of slot %u ended while %s", s->number, slot_state_name(s->state));
	else
		sbx_err_set(&err, SBX_E_PROTOCOL, n < 0 ? (int)-n : 0, "the shell of slot %u does not keep the protocol", s->number);
	launch_failed(s->broker, s, &err);
}

/* ---- first phase: the shell ---- */

/*
 * The namespaces belong to B, not to host root: what the kernel counts per user (inotify, signals, mlocked memory of pipes)
 * is then the sandbox's own.  NO_SETUID_FIXUP keeps the capabilities over the change.
 */
static pid_t clone_as(uid_t owner, int into_cgroup_fd, int *ret_pidfd)
{
	struct clone_args args = {
		.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD |
			 CLONE_CLEAR_SIGHAND,
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.exit_signal = SIGCHLD,
	};

	if (into_cgroup_fd >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (unsigned)into_cgroup_fd;
	}
	if (!FAULT_POINT("launch-owner") && seteuid(owner) < 0)
		return -errno;
	long pid = syscall(SYS_clone3, &args, sizeof(args));
	int failed = pid < 0 ? -errno : 0;
	if (pid != 0 && seteuid(0) < 0)
		abort(); /* nothing may go on with the wrong identity */
	return failed ? failed : (pid_t)pid;
}

static int write_maps(const struct broker *b, const struct slot *s)
{
	struct idmap_row row[] = {
		{.inside = 0, .outside = slot_base(b, s), .count = BROKER_IDS_PER_SLOT},
		{.inside = BROKER_AGENT_INSIDE, .outside = slot_agent_id(b, s), .count = 1},
	};

	return idmap_write(s->pid, row, row, ARRAY_SIZE(row));
}

static int clone_shell(struct broker *b, struct slot *s, struct sbx_err *err)
{
	uint32_t mapped = LAUNCH_MAPPED; /* it executes the agent while we make its link */
	struct iovec iov = {.iov_base = &mapped, .iov_len = sizeof(mapped)};
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "launch socket");
	s->launch_fd = pair[0];
	auto_fd theirs = pair[1];
	s->pid = clone_as(slot_base(b, s), s->cg.into_fd, &s->pidfd);
	if (s->pid == 0) {
		struct launch_child child = {.socket = theirs,
					     .agent_fd = b->agent_fd,
					     .null_fd = b->null_fd,
					     .join_fd = s->cg.join_fd,
					     .n_join = s->cg.n_join};
		launch_child_run(&child);
	}
	if (s->pid < 0) {
		int sys = -s->pid;

		s->pid = 0;
		s->pidfd = -1;
		return sbx_err_set(err, SBX_E_SYSTEM, sys, "make the namespaces of slot %u", s->number);
	}
	if (!b->is_shells && slot_adopt_pid(b, s, err) < 0)
		return -1;
	s->start_time = slot_start_time(s->pid);
	int r = b->is_shells ? 0 : slot_set_state(b, s, BROKER_SLOT_MAKING); /* now with the pid */
	if (r == 0)
		r = write_maps(b, s);
	if (r == 0)
		r = fdpass_send(s->launch_fd, &iov, 1, NULL, 0);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "id maps of slot %u", s->number) : 0;
}

static int send_setup(struct broker *b, struct slot *s, int spool_fd, struct sbx_err *err)
{
	struct launch_setup setup = {
		.msg = LAUNCH_SETUP,
		.slot = s->number,
		.addr = htonl(s->addr),
		.gateway_addr = htonl(b->settings.gateway_addr),
		.agent_uid = BROKER_AGENT_INSIDE,
		.cgroup_version = cgroup_version(b->cg),
		.n_cgroup_fds = (uint32_t)s->cg.n_tenant,
		.filter_agent_len = b->filter_len[PROFILE_AGENT],
		.filter_payload_len = b->filter_len[PROFILE_PAYLOAD],
		.peer_ifindex = LINKS_PEER_IFINDEX,
	};
	int fd[LAUNCH_SETUP_FDS_MAX];
	size_t n_own = 0; /* descriptors made here, the first of fd */
	int r = 0;

	memcpy(setup.gateway_mac, s->link.gateway_mac, sizeof(setup.gateway_mac));
	memcpy(setup.own_mac, s->link.own_mac, sizeof(setup.own_mac));
	if (b->links_config.ipv6) {
		setup.ipv6 = 1;
		ip6_write(ip6_of_slot(&b->links_config.subnet6, s->addr), setup.addr6);
		ip6_write(LINKS_GATEWAY6, setup.gateway6);
	}
	for (; n_own < ARRAY_SIZE(fifo_names) && r == 0; n_own++) {
		/* read-write, so that the agent never sees an end of file while a daemon is restarted */
		fd[n_own] = openat(s->dir_fd, fifo_names[n_own], O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
		r = fd[n_own] < 0 ? -errno : 0;
	}
	auto_fd dev = r == 0 ? rootfs_dev(b) : r;
	if (dev < 0)
		r = dev;
	fd[LAUNCH_FD_SPOOL] = spool_fd;
	fd[LAUNCH_FD_DEV] = dev;
	fd[LAUNCH_FD_FILTER_AGENT] = b->filter_fd[PROFILE_AGENT];
	fd[LAUNCH_FD_FILTER_PAYLOAD] = b->filter_fd[PROFILE_PAYLOAD];
	for (int i = 0; i < s->cg.n_tenant; i++)
		fd[LAUNCH_FD_TENANT_CGROUP + i] = s->cg.tenant_fd[i];
	struct iovec iov = {.iov_base = &setup, .iov_len = sizeof(setup)};
	if (r == 0)
		r = fdpass_send(s->launch_fd, &iov, 1, fd, (size_t)(LAUNCH_FD_TENANT_CGROUP + s->cg.n_tenant));
	close_all(fd, n_own);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "set up the shell of slot %u", s->number) : 0;
}

int launch_begin(struct broker *b, struct slot *s, struct sbx_err *err)
{
	auto_fd spool = -1;
	int r = make_fifos(s);

	if (r == 0)
		r = make_files(b, s, &spool);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "files of slot %u", s->number);
	if (FAULT_POINT("launch-files"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (cgroup_make(b->cg, s->number, s->generation, slot_agent_id(b, s), &s->cg, err) < 0)
		return -1;
	s->has_cgroup = true;
	if (b->is_shells && FAULT_POINT("shells-cgroup"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (FAULT_POINT("launch-cgroup") || clone_shell(b, s, err) < 0 || FAULT_POINT("launch-clone"))
		return err->code ? -1 : sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (links_attach(b->links, s->pid, s->generation, s->addr, &s->link, err) < 0)
		return -1;
	s->has_link = true;
	if (FAULT_POINT("launch-link") || (b->is_shells && FAULT_POINT("shells-link")))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	return send_setup(b, s, spool, err);
}

/* From here on it speaks. */
static int listen_to(struct broker *b, struct slot *s, struct sbx_err *err)
{
	s->deadline = loop_timer_new(b->loop, too_late, s);
	s->launch_source = loop_fd_add(b->loop, s->launch_fd, EPOLLIN, on_answer, s);
	if (!s->deadline || !s->launch_source)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "slot %u", s->number);
	loop_timer_arm(s->deadline, BROKER_LAUNCH_MS);
	return 0;
}

size_t launch_made_of(const struct slot *s, struct launch_made *ret, int *ret_fd)
{
	*ret = (struct launch_made){.pid = s->pid, .start_time = s->start_time, .link = s->link, .n_fds = LAUNCH_MADE_OOM};
	ret_fd[LAUNCH_MADE_PIDFD] = s->pidfd;
	ret_fd[LAUNCH_MADE_SOCKET] = s->launch_fd;
	ret_fd[LAUNCH_MADE_EVENTS] = s->cg.events_fd;
	if (s->cg.oom_fd >= 0)
		ret_fd[ret->n_fds++] = s->cg.oom_fd;
	return ret->n_fds;
}

void launch_taken_over(struct broker *b, struct slot *s, const struct launch_made *made, const int *fd)
{
	struct sbx_err err = {0};

	s->with_shells = false;
	s->has_files = s->has_cgroup = s->has_link = true;
	s->pid = made->pid;
	s->start_time = made->start_time;
	s->link = made->link;
	s->pidfd = fd[LAUNCH_MADE_PIDFD];
	s->launch_fd = fd[LAUNCH_MADE_SOCKET];
	cgroup_slot_take(&s->cg, s->number, s->generation, fd[LAUNCH_MADE_EVENTS], made->n_fds > LAUNCH_MADE_OOM ? fd[LAUNCH_MADE_OOM] : -1);
	/* here and not when a request waits */
	if (slot_adopt_pid(b, s, &err) < 0 || slot_set_state(b, s, BROKER_SLOT_MAKING) < 0 || rootfs_helper(b, s, &err) < 0 || listen_to(b, s, &err) < 0) {
		if (!err.code)
			sbx_err_set(&err, SBX_E_SYSTEM, 0, "record of slot %u", s->number);
		launch_failed(b, s, &err);
	} else if (s->create) {
		launch_arm(b, s);
	}
}

static void make_here(struct broker *b, struct slot *s)
{
	struct sbx_err err = {0};

	if (rootfs_helper(b, s, &err) < 0 || launch_begin(b, s, &err) < 0 || listen_to(b, s, &err) < 0)
		launch_failed(b, s, &err);
	/* the shell takes one message after the other: what comes next is done while it is being made */
	else if (s->create)
		launch_arm(b, s);
}

int launch_open(struct broker *b, struct slot *s, struct sbx_err *err)
{
	return s->create->flags & BROKER_CREATE_EGRESS_OPEN ? egress_open(b, s, err) : 0;
}

/* No create fails because a helper of ours did: it goes on with another slot, which is made in the loop. */
static bool try_again(struct broker *b, struct slot *s)
{
	struct sbx_err err = {0};
	struct slot *next = s->second_try ? NULL : slot_take(b, &err);

	if (!next)
		return false;
	next->create = take_ptr(s->create);
	next->creator = s->creator;
	next->second_try = true;
	if (launch_open(b, next, &err) < 0)
		launch_failed(b, next, &err);
	else
		make_here(b, next);
	return true;
}

void launch_given_up(struct broker *b, struct slot *s, const struct sbx_err *err)
{
	s->with_shells = false;
	slot_find_rest(b, s);
	if (s->create && try_again(b, s))
		slot_kill(b, s);
	else
		launch_failed(b, s, err);
}

void launch_make(struct broker *b, struct slot *s)
{
	s->for_pool = !s->create;
	b->n_making += s->for_pool;
	if (!b->settings.pool_target || !shells_ask(b, s))
		make_here(b, s);
}

/* ---- second phase: the sandbox ---- */

static uint32_t allowed_lacks(uint32_t flags)
{
	uint32_t mask = 0;

	mask |= flags & BROKER_CREATE_NO_MEMORY_LIMIT ? CGROUP_MEMORY : 0u;
	mask |= flags & BROKER_CREATE_NO_PIDS_LIMIT ? CGROUP_PIDS : 0u;
	mask |= flags & BROKER_CREATE_NO_CPU_LIMIT ? CGROUP_CPU : 0u;
	mask |= flags & BROKER_CREATE_NO_SWAP_LIMIT ? CGROUP_SWAP : 0u;
	return mask;
}

static int limit(struct broker *b, struct slot *s, struct sbx_err *err)
{
	struct cgroup_limits limits = {
		.memory_bytes = s->create->memory_bytes,
		.pids_max = s->create->pids_max ? s->create->pids_max : (uint32_t)b->settings.docker_pids_limit,
		.cpu_millicores = s->create->cpu_millicores,
	};

	if (!s->create->pids_max && b->settings.limits_default_pids)
		limits.pids_max = (uint32_t)b->settings.limits_default_pids;
	return cgroup_limit(b->cg, &s->cg, &limits, allowed_lacks(s->create->flags), err) < 0 ? -1 : 0;
}

static void note_use(struct slot *s)
{
	const struct broker_create *c = s->create;

	memcpy(s->sandbox_id, c->sandbox_id, sizeof(s->sandbox_id));
	s->bare = !c->n_volumes && !s->disk_mib;
	for (uint32_t i = 0; i < c->n_volumes; i++)
		if (c->volume[i].kind == BROKER_VOLUME_NAMED)
			memcpy(s->use->claim[s->n_claims++], c->volume[i].claim, sizeof(s->use->claim[0]));
}

static bool has_image(const struct slot *s, bool host_usr, uint32_t disk_mib, uint32_t n_layers, const void *layers)
{
	return s->host_usr == host_usr && s->disk_mib == disk_mib && s->n_layers == n_layers && !memcmp(s->use->layer, layers, sizeof(s->use->layer[0]) * n_layers);
}

static bool fits(const struct broker *b, const struct slot *s, const struct broker_create *c)
{
	return !c->n_volumes && has_image(s, c->flags & BROKER_CREATE_HOST_USR, disk_of_root(b, c->disk_mib), c->n_layers, c->layer);
}

struct slot *launch_from_pool(struct broker *b, const struct broker_create *c)
{
	struct slot *bare = NULL;

	for (struct slot *s = b->pool.first; s; s = s->next) {
		if (s->rooted && fits(b, s, c)) {
			slot_list_remove(&b->pool, s);
			return s;
		}
		if (!s->rooted && !bare)
			bare = s;
	}
	if (bare)
		slot_list_remove(&b->pool, bare);
	return bare;
}

struct slot *launch_coming(struct broker *b)
{
	struct slot *first = NULL;

	for (uint32_t i = 0; b->n_making && i < b->n_slots; i++) {
		struct slot *s = &b->slot[i];

		if (s->for_pool && !s->n_layers && !s->disk_waits && (!first || s->generation < first->generation))
			first = s;
	}
	if (first)
		launch_not_for_pool(b, first);
	return first;
}

struct slot *launch_stale(const struct broker *b)
{
	const struct broker_image *now = &b->likely;

	for (struct slot *s = now->n_layers && b->n_likely_creates >= RETIRE_CREATES ? b->pool.first : NULL; s; s = s->next)
		if (s->rooted && !has_image(s, now->host_usr, now->disk_mib, now->n_layers, now->layer))
			return s;
	return NULL;
}

static void note_image(struct broker *b, const struct broker_create *c)
{
	bool host_usr = c->flags & BROKER_CREATE_HOST_USR;
	size_t bytes = sizeof(c->layer[0]) * c->n_layers;
	uint32_t disk_mib = disk_of_root(b, c->disk_mib);
	bool same = b->likely.disk_mib == disk_mib && b->likely.n_layers == c->n_layers && b->likely.host_usr == host_usr && !memcmp(b->likely.layer, c->layer, bytes);

	b->n_likely_creates = same ? b->n_likely_creates + 1 : 1;
	b->likely.n_layers = c->n_layers;
	b->likely.host_usr = host_usr;
	b->likely.disk_mib = disk_mib;
	disk_note(b, c->disk_mib);
	memcpy(b->likely.layer, c->layer, bytes);
}

/* By the broker: nothing in the sandbox has the power to do it once it has its root. */
static int name_host(const struct broker *b, const struct slot *s, const char *name)
{
	if (setns(s->pidfd, CLONE_NEWUTS) < 0)
		return -errno;
	int r = sethostname(name, strlen(name)) < 0 ? -errno : 0;
	if (setns(b->utsns_fd, CLONE_NEWUTS) < 0)
		abort(); /* nothing may go on in the wrong namespace */
	return r;
}

static int arm_shell(struct broker *b, struct slot *s, struct sbx_err *err)
{
	struct launch_arm arm = {.msg = LAUNCH_ARM};
	struct iovec iov = {.iov_base = &arm, .iov_len = sizeof(arm)};
	char id[UUID_SIZE];

	note_use(s);
	note_image(b, s->create);
	int r = slot_set_state(b, s, BROKER_SLOT_ARMING);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "record of slot %u", s->number);
	if (limit(b, s, err) < 0 || disk_limit(b, s, s->create->disk_mib, err) < 0)
		return -1;
	if (FAULT_POINT("arm-mounts"))
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "fault point");
	if (!s->rooted && give_root(b, s, &b->likely, s->create, err) < 0)
		return -1;
	disk_forget(s);
	uuid_format(s->sandbox_id, id);
	snprintf(arm.hostname, sizeof(arm.hostname), "%.*s", HOSTNAME_DIGITS, id);
	r = name_host(b, s, arm.hostname);
	if (r == 0)
		r = fdpass_send(s->launch_fd, &iov, 1, NULL, 0);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "arm the shell of slot %u", s->number);
	loop_timer_arm(s->deadline, BROKER_LAUNCH_MS);
	return 0;
}

/* Return: 1, it has what it needs; 0, it waits; or -1 with @err set */
static int needs_disk(struct broker *b, struct slot *s, struct sbx_err *err)
{
	uint32_t mib = disk_of_root(b, s->create->disk_mib);

	int r = !mib || s->disk_fd >= 0 ? 1 : disk_take(b, s, mib, err);
	if (r > 0)
		r = disk_volumes(b, s, err);
	if (r)
		return r;
	/* the shell's own messages change nothing from here on */
	r = slot_set_state(b, s, BROKER_SLOT_ARMING);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "record of slot %u", s->number);
	loop_timer_arm(s->deadline, BROKER_LAUNCH_MS);
	return 0;
}

void launch_arm(struct broker *b, struct slot *s)
{
	struct sbx_err err = {0};
	int r = needs_disk(b, s, &err);

	if (r < 0 || (r > 0 && arm_shell(b, s, &err) < 0))
		launch_failed(b, s, &err);
}

void launch_disk_done(struct broker *b, struct slot *s, const struct sbx_err *failed)
{
	struct sbx_err err = {0};

	s->disk_waits = s->volume_waits = false;
	if (s->state != BROKER_SLOT_MAKING && s->state != BROKER_SLOT_ARMING)
		return; /* it is ending; disk_end() has given the disk back or will */
	if (failed) {
		b->likely.n_layers = s->create ? b->likely.n_layers : 0; /* until a create says what the image is now */
		launch_failed(b, s, failed);
	} else if (s->create) {
		launch_arm(b, s);
	} else if (!root_wanted(b) || give_root(b, s, &b->likely, NULL, &err) < 0) {
		b->likely.n_layers = 0;
		launch_failed(b, s, &err);
	}
}
