// SPDX-License-Identifier: Apache-2.0
/*
 * The agent's side of the launcher: orders out, and what became of them.  An order's slot is
 *
 *	FREE -> USED (sent) -> LEAVING (its command has started or failed) -> FREE (the launcher has said its last of it)
 *	        USED -> LOST (its command is on its way, its launcher is gone) -> FREE (it has started or failed)
 */
#include "runtime/agent/agent_int.h"
#include "runtime/agent/agent_proc.h"
#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum launch_use { LAUNCH_FREE = 0, LAUNCH_USED, LAUNCH_LEAVING, LAUNCH_LOST };

/* Without its socket no order is taken any more; what is in it is lost with it. */
static void end_now(struct service *s)
{
	struct launcher *l = &s->launcher;

	service_unwatch(s, &l->sock);
	l->ending = true;
	kill(l->pid, SIGKILL);
	cmd_drop_ahead(s);
}

void launch_make(struct service *s)
{
	struct launcher *l = &s->launcher;
	int pair[2];

	if (l->pid && l->ending)
		return; /* when it is reaped */
	s->launcher_due = false;
	if (l->pid || s->dead || s->status.state != AGENT_STATE_RUNNING)
		return;
	if (!l->board) {
		l->board = mmap(NULL, sizeof(*l->board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (l->board == MAP_FAILED) {
			l->board = NULL;
			return; /* commands start without it */
		}
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	auto_fd theirs = pair[1], ours = pair[0];
	/* nobody else whom we fork has any business with it */
	ignore_result(madvise(l->board, sizeof(*l->board), MADV_DOFORK));
	pid_t pid = spawn_launcher(s->agent, theirs, l->board);
	ignore_result(madvise(l->board, sizeof(*l->board), MADV_DONTFORK));
	if (pid < 0)
		return; /* the sandbox is full: the next command tries for itself and says so */
	l->pid = pid;
	l->ending = false;
	l->until_mono_usec = sysx_mono_usec() + INT_SPARE_USEC;
	if (service_watch(s, &l->sock, ours, EPOLLIN)) {
		l->ending = true;
		kill(pid, SIGKILL);
	} else {
		ours = -1;
	}
}

void launch_drop(struct service *s)
{
	if (s->launcher.pid && !s->launcher.ending)
		end_now(s);
}

bool launch_reaped(struct service *s, pid_t pid)
{
	struct launcher *l = &s->launcher;
	int32_t waited = pid;

	if (l->board)
		atomic_compare_exchange_strong(&l->board->waits, &waited, 0);
	if (!l->pid || l->pid != pid)
		return false;
	service_unwatch(s, &l->sock);
	cmd_drop_ahead(s);
	l->pid = 0;
	bool used = false;
	for (uint32_t i = 0; i < SPAWN_SLOTS; i++) {
		if (l->use[i] == LAUNCH_LEAVING)
			l->use[i] = LAUNCH_FREE;
		used |= l->use[i] != LAUNCH_FREE;
	}
	if (!used && !munmap(l->board, sizeof(*l->board)))
		l->board = NULL;
	return true;
}

static int free_slot(struct launcher *l)
{
	for (uint32_t i = 0; i < SPAWN_SLOTS; i++)
		if (l->use[i] == LAUNCH_FREE || (l->use[i] == LAUNCH_LEAVING && l->board->slots[i].done))
			return (int)i;
	return -1;
}

static unsigned orders_out(const struct launcher *l)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < SPAWN_SLOTS; i++)
		n += l->use[i] == LAUNCH_USED;
	return n;
}

int launch_order(struct service *s, struct cmd *c, const uint8_t *bytes, uint32_t n, int out_fd, int err_fd)
{
	struct launcher *l = &s->launcher;
	int fd[2] = {out_fd, err_fd};
	unsigned fd_bytes = (err_fd >= 0 ? 2u : 1u) * (unsigned)sizeof(int);
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(fd))];
	} control = {0};

	if (!l->pid || l->ending || n > SPAWN_SPARE_BYTES)
		return -ENOENT;
	int i = free_slot(l);
	if (i < 0)
		return -EBUSY;
	struct spawn_slot *slot = &l->board->slots[i];
	l->serial += l->serial == UINT32_MAX ? 2u : 1u;
	slot->taken = SPAWN_TAKEN(l->serial, 0);
	slot->stage = 0;
	slot->done = 0;
	slot->tell = c->background; /* its END waits for nothing else */
	struct spawn_order order = {.slot = (uint32_t)i, .serial = l->serial, .merge = err_fd < 0, .tag = c->tag};
	struct iovec iov[2] = {{&order, sizeof(order)}, {(void *)(uintptr_t)bytes, n}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = (unsigned)CMSG_SPACE(fd_bytes)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = (unsigned)CMSG_LEN(fd_bytes);
	memcpy(CMSG_DATA(head), fd, fd_bytes);
	if (sendmsg(l->sock.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return -errno;
	int64_t now = sysx_mono_usec(), wait = INT_STARTED_USEC * (int64_t)(orders_out(l) + 1);
	l->use[i] = LAUNCH_USED;
	l->until_mono_usec = now + INT_SPARE_USEC;
	c->launched.slot = i;
	c->launched.serial = l->serial;
	c->launched.sent_mono_usec = now;
	c->launched.look_mono_usec = now + (c->background ? INT_LAUNCH_USEC : wait < INT_STARTED_MAX_USEC ? wait : INT_STARTED_MAX_USEC);
	return 0;
}

bool launch_learn(struct service *s, struct cmd *c)
{
	if (c->launched.slot >= 0 && !c->pid)
		c->pid = c->group = (pid_t)(uint32_t)s->launcher.board->slots[c->launched.slot].taken;
	if (c->pid && c->launched.due) {
		uint64_t due = c->launched.due;

		bool leads_session = c->pty || c->driver || c->entrypoint;

		c->launched.due = 0;
		/*
		 * It may not have come so far: who looks for its group, and finds none, takes it for ended.  Who leads a group
		 * cannot lead a session any more: that one makes its group itself, and is alone before that.
		 */
		if (!leads_session)
			ignore_result(setpgid(c->pid, c->pid));
		for (int sig = 1; due; sig++, due >>= 1)
			if ((due & 1) && kill(-c->group, sig) < 0 && leads_session)
				kill(c->pid, sig);
	}
	return c->pid != 0;
}

bool launch_take_back(struct service *s, struct cmd *c)
{
	struct launcher *l = &s->launcher;
	uint64_t untaken = SPAWN_TAKEN(c->launched.serial, 0);

	if (atomic_compare_exchange_strong(&l->board->slots[c->launched.slot].taken, &untaken, 0))
		return true;
	/* it may still be on its way to its exec, and fail: its slot stays its own until it is known */
	l->use[c->launched.slot] = LAUNCH_LOST;
	c->launched.lost = true;
	return false;
}

static uint64_t bit(int sig)
{
	return 1ull << (sig - 1);
}

void launch_signal(struct cmd *c, int sig)
{
	const uint64_t stops = bit(SIGSTOP) | bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU);

	/* as the kernel does with what is pending: the last word counts */
	if (sig == SIGCONT)
		c->launched.due &= ~stops;
	else if (bit(sig) & stops)
		c->launched.due &= ~bit(SIGCONT);
	c->launched.due |= bit(sig);
}

/* Whom the launcher waits for: it makes one child at a time.  What an earlier one has begun is not its business. */
static pid_t in_hand(const struct launcher *l)
{
	for (uint32_t i = 0; i < SPAWN_SLOTS; i++) {
		pid_t pid = (pid_t)(uint32_t)l->board->slots[i].taken;

		if (l->use[i] == LAUNCH_USED && pid && !l->board->slots[i].done)
			return pid;
	}
	return 0;
}

void launch_wake(const struct service *s)
{
	const struct launcher *l = &s->launcher;
	pid_t waits = l->board ? l->board->waits : 0;

	if (l->pid)
		kill(l->pid, SIGCONT);
	if (waits)
		kill(waits, SIGCONT);
}

bool launch_stands_still(struct service *s, int64_t now_usec)
{
	struct launcher *l = &s->launcher;

	if (!l->pid || l->ending || now_usec - l->still_mono_usec < INT_STILL_USEC)
		return false;
	pid_t before = l->still, child = in_hand(l);
	struct proc_look look;
	l->still_mono_usec = now_usec;
	l->still = 0;
	launch_wake(s);
	if (!child || proc_look(s->agent, child, &look) < 0 || look.executed || strchr("RZX", look.state))
		return false;
	l->still = child;
	return child == before;
}

uint32_t launch_failure(const struct service *s, const struct cmd *c, int32_t *ret_sys)
{
	const struct spawn_slot *slot = &s->launcher.board->slots[c->launched.slot];
	uint32_t stage = slot->stage;

	*ret_sys = slot->sys;
	return stage;
}

bool launch_executed(const struct service *s, const struct cmd *c)
{
	return s->launcher.board->slots[c->launched.slot].done;
}

void launch_over(struct service *s, struct cmd *c)
{
	struct launcher *l = &s->launcher;

	if (c->launched.slot < 0)
		return;
	l->use[c->launched.slot] = l->pid && l->use[c->launched.slot] == LAUNCH_USED ? LAUNCH_LEAVING : LAUNCH_FREE;
	free(c->launched.bytes);
	c->launched = (struct launched){.slot = -1};
}

void launch_read(struct service *s)
{
	struct agent_source *src = &s->launcher.sock;
	char bytes[64];

	while (src->fd >= 0 && src->ready) {
		ssize_t n = recv(src->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		/* its end is told by SIGCHLD */
		if (n <= 0)
			src->ready = 0;
	}
}
