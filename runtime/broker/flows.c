// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/flows.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/slot.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define GATHER_MS 100u /* so long slots are gathered for one walk of the table */

struct flows {
	struct loop_timer *timer;
	int pidfd; /* of the child that walks; -1: none */
	struct loop_fd *source;
	bool in_walk[LIMIT_SANDBOXES];
	bool waiting[LIMIT_SANDBOXES];
};

static void walk_ended(void *arg, int fd, uint32_t events)
{
	struct broker *b = arg;
	struct flows *f = b->flows;
	siginfo_t info = {0};

	(void)events;
	bool good = waitid(P_PIDFD, (id_t)fd, &info, WEXITED) == 0 && info.si_code == CLD_EXITED && info.si_status == 0;
	loop_fd_remove(f->source);
	f->source = NULL;
	replace_fd(&f->pidfd, -1);
	if (!good)
		log_error("connections of dead sandboxes could not be deleted; their slots stay closed and it is tried again");
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		if (!f->in_walk[i])
			continue;
		f->in_walk[i] = false;
		b->slot[i].flows_gone = good;
		slot_drain(b, &b->slot[i]);
	}
}

/* The child: one walk, then it ends; it inherits the loop's descriptors and touches none of them. */
_Noreturn static void walk(struct broker *b)
{
	static uint32_t addr[LIMIT_SANDBOXES];
	struct sbx_err err = {0};
	size_t n = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++)
		if (b->flows->in_walk[i])
			addr[n++] = b->slot[i].addr;
	if (links_conntrack_drop_many(b->links, addr, n, &err) < 0) {
		log_error("%s", err.msg);
		_exit(1);
	}
	_exit(0);
}

static void start_walk(void *arg)
{
	struct broker *b = arg;
	struct flows *f = b->flows;

	if (f->pidfd >= 0)
		return; /* the next one starts when slots ask again */
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		f->in_walk[i] = f->waiting[i] && b->slot[i].state == BROKER_SLOT_DRAINING;
		f->waiting[i] = false;
	}
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &f->pidfd, NULL, 0);
	if (pid == 0)
		walk(b);
	f->source = pid < 0 ? NULL : loop_fd_add(b->loop, f->pidfd, EPOLLIN, walk_ended, b);
	if (f->source)
		return;
	log_error("no child to delete connections: %s", strerror(errno));
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		f->waiting[i] = f->waiting[i] || f->in_walk[i];
		f->in_walk[i] = false;
	}
	replace_fd(&f->pidfd, -1);
}

bool flows_drop(struct broker *b, struct slot *s)
{
	struct flows *f = b->flows;
	struct sbx_err err = {0};

	if (FAULT_POINT("drain-conntrack") || s->flows_gone)
		return true;
	if (f->in_walk[s->number])
		return false;
	/* Nothing of this sandbox can be added any more: its link is gone. */
	int entries = links_conntrack_count(b->links, &err);
	if (entries == 0)
		return true;
	if (entries < 0)
		log_error("%s", err.msg);
	f->waiting[s->number] = true;
	if (!loop_timer_armed(f->timer) && f->pidfd < 0)
		loop_timer_arm(f->timer, slots_free(b) ? GATHER_MS : 0);
	return false;
}

int flows_init(struct broker *b, struct sbx_err *err)
{
	b->flows = calloc(1, sizeof(*b->flows));
	if (b->flows)
		b->flows->timer = loop_timer_new(b->loop, start_walk, b);
	if (!b->flows || !b->flows->timer)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "flows");
	b->flows->pidfd = -1;
	return 0;
}
