// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/shells.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/path.h"
#include "base/pidfd.h"
#include "base/sysfilter.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/launch.h"
#include "runtime/broker/launch_child.h"
#include "runtime/broker/rootfs_mount.h"
#include "runtime/broker/slot.h"

#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PID_FILE    "shells" /* beside the slots' directories: who makes shells for them */
#define OLD_END_MS  10000    /* a dead child's last system call may wait for the kernel's network locks */
#define STUCK_MS    BROKER_LAUNCH_MS
#define FAILURES_MAX 3u	     /* in a row, without a shell between them: then shells are made in the loop for a while */
#define LEAVE_MS    10000u
#define KEEP_MAX    32
#define ERROR_BYTES 160

struct shells {
	int sock; /* -1: no child */
	int pidfd;
	struct loop_fd *source, *end;
	struct loop_timer *stuck;
	uint32_t n_asked;
	uint32_t failures; /* in a row */
	uint64_t again_ms; /* nothing is asked for before */
	bool preloaded;	   /* is_preloaded(), when the broker started */
};

/* Both sides are this very program. */
struct shells_request {
	uint32_t slot;
	uint32_t generation;
	uint32_t addr;
};

struct shells_answer {
	uint32_t slot;
	uint32_t generation;
	int32_t code; /* enum sbx_err_code; 0: it is made */
	int32_t sys;
	char text[ERROR_BYTES];
	struct launch_made made;
};

struct pid_record {
	int32_t pid;
	uint32_t zero;
	uint64_t start_time;
};

/* ---- the child ---- */

/* Nothing of the broker's clients, sandboxes and children is held by this process: when those end, that is seen at once. */
static int close_others(const struct broker *b, int sock, int parent)
{
	int keep[KEEP_MAX] = {0, 1, 2, sock, parent, b->sandboxes_fd, b->slots_fd, b->null_fd, b->agent_fd, b->stage_fd,
			      b->filter_fd[PROFILE_AGENT], b->filter_fd[PROFILE_PAYLOAD], b->filter_fd[PROFILE_BROKER]};
	size_t n = 13;

	n += cgroup_roots(b->cg, keep + n);
	keep[n++] = links_socket(b->links);
	return launch_child_close_others(keep, n);
}

/* What is preloaded may stand in for any function of libc's, so a clone would run it. */
static bool is_preloaded(void)
{
#ifdef __SANITIZE_ADDRESS__ /* a library that stands in front as well */
	return true;
#else
	return getenv("LD_PRELOAD") || access("/etc/ld.so.preload", F_OK) == 0;
#endif
}

static bool holds(const struct dl_phdr_info *object, uintptr_t address)
{
	for (size_t i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];

		if (part->p_type == PT_LOAD && address - object->dlpi_addr - part->p_vaddr < part->p_memsz)
			return true;
	}
	return false;
}

/*
 * What a clone has runs nothing but our own code and libc's until it executes the agent (launch_child.c), unless something is preloaded: the other libraries are
 * two thirds of the areas that the kernel would copy and take down again for each.
 */
static int leave_to_us(struct dl_phdr_info *object, size_t size, void *arg)
{
	const uintptr_t needed[] = {(uintptr_t)launch_child_run, (uintptr_t)getpid, getauxval(AT_BASE), getauxval(AT_SYSINFO_EHDR)};
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;

	(void)size;
	(void)arg;
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (holds(object, needed[i]))
			return 0;
	for (size_t i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];
		uintptr_t from = (object->dlpi_addr + part->p_vaddr) & ~page, to = (object->dlpi_addr + part->p_vaddr + part->p_memsz + page) & ~page;

		if (part->p_type == PT_LOAD)
			ignore_result(madvise((void *)from, to - from, MADV_DONTFORK)); /* only speed depends on it */
	}
	return 0;
}

static int note_pid(const struct broker *b)
{
	struct pid_record record = {.pid = getpid(), .start_time = slot_start_time(getpid())};
	auto_fd fd = openat(b->slots_fd, PID_FILE, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	return pwrite(fd, &record, sizeof(record), 0) == (ssize_t)sizeof(record) ? 0 : -EIO;
}

static void make_one(struct broker *b, int sock, const struct shells_request *request)
{
	struct shells_answer answer = {.slot = request->slot, .generation = request->generation};
	struct iovec iov = {.iov_base = &answer, .iov_len = sizeof(answer)};
	struct slot s = {.broker = b, .number = request->slot, .generation = request->generation, .addr = request->addr,
			 .pidfd = -1, .launch_fd = -1, .mounts_fd = -1, .disk_fd = -1, .layer_ns_fd = -1, .volume_ns_fd = -1};
	struct sbx_err err = {0};
	int fd[LAUNCH_MADE_FDS];
	char name[16];

	cgroup_slot_init(&s.cg);
	snprintf(name, sizeof(name), "%u", s.number);
	s.dir_fd = path_open_beneath(b->slots_fd, name, O_RDONLY | O_DIRECTORY);
	int r = s.dir_fd < 0 ? sbx_err_set(&err, SBX_E_SYSTEM, -s.dir_fd, "directory of slot %u", s.number) : launch_begin(b, &s, &err);
	size_t n = r < 0 ? 0 : launch_made_of(&s, &answer.made, fd);
	if (r < 0) {
		/* Its group and its files are the broker's to undo; the process is ours. */
		pidfd_kill(s.pidfd);
		answer.code = (int32_t)err.code;
		answer.sys = err.sys;
		snprintf(answer.text, sizeof(answer.text), "%.*s", ERROR_BYTES - 1, err.msg);
	}
	if (FAULT_POINT("shells-answer") || fdpass_send(sock, &iov, 1, fd, n) < 0)
		_exit(1); /* the broker finds what was made by its name */
	close_keep_errno(s.pidfd);
	close_keep_errno(s.launch_fd);
	close_keep_errno(s.dir_fd);
	cgroup_slot_close(&s.cg);
}

static int child_prepare(struct broker *b, int sock, int parent, struct sbx_err *err)
{
	sigset_t none;

	/* The shells are our children and nobody waits for them here: the broker has their pidfds. */
	signal(SIGCHLD, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_NAME, "broker-shells", 0, 0, 0);
	int r = note_pid(b);
	if (r == 0 && links_again(b->links, err) < 0)
		return -1;
	if (r == 0)
		r = close_others(b, sock, parent);
	if (r == 0)
		r = rootfs_leave_host(b);
	if (!b->shells->preloaded)
		dl_iterate_phdr(leave_to_us, NULL);
	/* a restarted one has inherited it */
	if (r == 0 && !b->running)
		r = sysfilter_load(b->filter_fd[PROFILE_BROKER], b->filter_len[PROFILE_BROKER]);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "prepare") : 0;
}

_Noreturn static void child(struct broker *b, int sock, int parent)
{
	struct sbx_err err = {0};

	b->is_shells = true;
	if (child_prepare(b, sock, parent, &err) < 0) {
		log_error("broker-shells: %s", err.msg);
		_exit(1);
	}
	for (;;) {
		struct pollfd p[] = {{.fd = sock, .events = POLLIN}, {.fd = parent, .events = POLLIN}};
		struct shells_request request;

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			_exit(1);
		if (p[1].revents)
			_exit(0);
		ssize_t n = p[0].revents ? fdpass_recv(sock, &request, sizeof(request), NULL, 0, NULL) : -EAGAIN;
		if (n == sizeof(request))
			make_one(b, sock, &request);
		else if (n != -EAGAIN)
			_exit(0); /* the broker is gone, or wants another one */
	}
}

/* ---- the broker's side ---- */

static void forget_child(struct shells *m)
{
	loop_fd_remove(m->source);
	loop_fd_remove(m->end);
	m->source = m->end = NULL;
	replace_fd(&m->sock, -1);
	replace_fd(&m->pidfd, -1);
	loop_timer_disarm(m->stuck);
	m->n_asked = 0;
}

static void note_failure(struct broker *b)
{
	if (++b->shells->failures >= FAILURES_MAX)
		b->shells->again_ms = loop_now_ms(b->loop) + LEAVE_MS;
}

static void on_end(void *arg, int fd, uint32_t events)
{
	struct broker *b = arg;
	struct shells *m = b->shells;
	siginfo_t info = {0};
	struct sbx_err err = {0};

	(void)events;
	ignore_result(waitid(P_PIDFD, (id_t)fd, &info, WEXITED));
	log_warn("broker-shells ended (%s %d)", info.si_code == CLD_EXITED ? "status" : "signal", info.si_status);
	forget_child(m);
	note_failure(b);
	sbx_err_set(&err, SBX_E_START_FAILED, 0, "the process that made it ended");
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++)
		if (b->slot[i].with_shells)
			launch_given_up(b, &b->slot[i], &err);
}

/* Its end, which then comes through the loop, is the one way back for all that it has. */
static void end_child(struct shells *m)
{
	pidfd_kill(m->pidfd);
}

static void on_stuck(void *arg)
{
	struct broker *b = arg;

	log_error("broker-shells has done nothing for %u s", STUCK_MS / 1000);
	end_child(b->shells);
}

static void on_answer(void *arg, int sock, uint32_t events)
{
	struct broker *b = arg;
	struct shells *m = b->shells;
	struct shells_answer answer;
	struct sbx_err err = {0};
	int fd[LAUNCH_MADE_FDS];
	size_t n_fds = 0;

	(void)events;
	ssize_t n = fdpass_recv(sock, &answer, sizeof(answer), fd, LAUNCH_MADE_FDS, &n_fds);
	if (n == -EAGAIN)
		return;
	const struct broker_slot_ref ref = {.slot = answer.slot, .generation = answer.generation};
	struct slot *s = n == sizeof(answer) ? slot_by_ref(b, &ref) : NULL;
	if (!s || !s->with_shells || (!answer.code && n_fds != answer.made.n_fds)) {
		for (size_t i = 0; i < n_fds; i++)
			close(fd[i]);
		loop_fd_remove(m->source); /* it is ending, or not in its right mind */
		m->source = NULL;
		end_child(m);
		return;
	}
	m->n_asked--;
	if (m->n_asked)
		loop_timer_arm(m->stuck, STUCK_MS);
	else
		loop_timer_disarm(m->stuck);
	if (answer.code) {
		note_failure(b);
		answer.text[ERROR_BYTES - 1] = '\0';
		sbx_err_set(&err, (enum sbx_err_code)answer.code, answer.sys, "%s", answer.text);
		launch_given_up(b, s, &err);
		return;
	}
	m->failures = 0;
	launch_taken_over(b, s, &answer.made, fd);
}

static int start(struct broker *b)
{
	struct shells *m = b->shells;
	int pair[2], pidfd = -1;

	auto_fd parent = pidfd_of(getpid());
	if (parent < 0)
		return parent;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	auto_fd ours = pair[0];
	auto_fd theirs = pair[1];
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
	if (pid < 0)
		return -errno;
	if (pid == 0)
		child(b, theirs, parent);
	m->sock = take_fd(&ours);
	m->pidfd = pidfd;
	m->end = loop_fd_add(b->loop, pidfd, EPOLLIN, on_end, b);
	m->source = m->end ? loop_fd_add(b->loop, m->sock, EPOLLIN, on_answer, b) : NULL;
	if (m->source)
		return 0;
	siginfo_t info;
	end_child(m);
	ignore_result(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
	forget_child(m);
	return -ENOMEM;
}

bool shells_ask(struct broker *b, struct slot *s)
{
	struct shells *m = b->shells;
	struct shells_request request = {.slot = s->number, .generation = s->generation, .addr = s->addr};
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};

	if (loop_now_ms(b->loop) < m->again_ms)
		return false;
	if (m->sock < 0) {
		int r = start(b);

		if (r < 0) {
			log_error("broker-shells: %s", strerror(-r));
			m->again_ms = loop_now_ms(b->loop) + LEAVE_MS;
		}
	}
	if (m->sock < 0 || !m->source || fdpass_send(m->sock, &iov, 1, NULL, 0) < 0)
		return false;
	s->with_shells = true;
	if (!m->n_asked++)
		loop_timer_arm(m->stuck, STUCK_MS);
	return true;
}

/* Killed and gone before the records are read: what it was about to make is there by then, or never will be. */
int shells_end_earlier(int slots_fd, struct sbx_err *err)
{
	struct pid_record record = {0};
	auto_fd file = openat(slots_fd, PID_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (file < 0 || read(file, &record, sizeof(record)) != (ssize_t)sizeof(record) || record.pid <= 0 || !record.start_time)
		return 0;
	auto_fd pidfd = pidfd_of(record.pid);
	if (pidfd < 0 || slot_start_time(record.pid) != record.start_time)
		return 0;
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	pidfd_kill(pidfd);
	int r = poll(&p, 1, OLD_END_MS);
	return r > 0 ? 0 : sbx_err_set(err, SBX_E_SYSTEM, r < 0 ? errno : ETIMEDOUT, "process %d of an earlier broker does not end", (int)record.pid);
}

int shells_init(struct broker *b, struct sbx_err *err)
{
	if (shells_end_earlier(b->slots_fd, err) < 0)
		return -1;
	b->shells = calloc(1, sizeof(*b->shells));
	if (b->shells)
		b->shells->stuck = loop_timer_new(b->loop, on_stuck, b);
	if (!b->shells || !b->shells->stuck)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "broker-shells");
	b->shells->sock = b->shells->pidfd = -1;
	b->shells->preloaded = is_preloaded();
	if (b->settings.pool_target == 0)
		return 0; /* nobody will ask */
	int r = start(b);
	if (r < 0)
		log_error("broker-shells: %s", strerror(-r));
	return 0;
}
