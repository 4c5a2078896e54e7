// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/freezer.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "runtime/broker/slot.h"

#include <string.h>

#define WAIT_MS 2000u
#define WAITS	64u

struct wait {
	struct broker *b; /* NULL: free */
	struct broker_slot_ref ref;
	struct broker_asker asker;
	bool freeze;
	int events_fd;
	struct loop_fd *source;
	struct loop_timer *deadline;
};

static struct wait waits[WAITS];

static void wait_end(struct wait *w)
{
	loop_fd_remove(w->source);
	loop_timer_free(w->deadline);
	close_keep_errno(w->events_fd);
	*w = (struct wait){.events_fd = -1};
}

/* Half frozen is neither Paused nor Running: back to Running.  The first error is the one to tell. */
static void take_back(struct broker *b, struct slot *s)
{
	struct sbx_err err;
	int fd = -1;

	if (cgroup_freeze_begin(b->cg, &s->cg, false, &fd, &err) < 0)
		log_error("slot %u neither freezes nor thaws: %s", s->number, err.msg);
	close_keep_errno(fd);
}

static int failed(struct broker *b, struct slot *s, bool freeze, struct sbx_err *err)
{
	if (freeze)
		take_back(b, s);
	err->code = freeze ? SBX_E_PAUSE_FAILED : SBX_E_RESUME_FAILED;
	return -1;
}

/* @sys 0: the kernel says that it is done. */
static void answer(struct wait *w, int sys)
{
	struct broker *b = w->b;
	struct slot *s = slot_by_ref(b, &w->ref);
	struct broker_asker asker = w->asker;
	bool freeze = w->freeze;
	struct sbx_err err = {0};

	wait_end(w);
	if (!s || (s->state != BROKER_SLOT_LIVE && s->state != BROKER_SLOT_FROZEN)) {
		sbx_err_set(&err, SBX_E_NOT_RUNNING, 0, "the sandbox ended meanwhile");
	} else if (sys) {
		sbx_err_set(&err, SBX_E_SYSTEM, sys, "%s slot %u", freeze ? "freeze" : "thaw", s->number);
		ignore_result(failed(b, s, freeze, &err));
	} else {
		(void)slot_set_state(b, s, freeze ? BROKER_SLOT_FROZEN : BROKER_SLOT_LIVE);
	}
	broker_freeze_done(b, &asker, err.code ? &err : NULL);
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct wait *w = arg;
	int r = cgroup_freeze_done(fd, w->freeze);

	(void)events;
	if (r)
		answer(w, r < 0 ? -r : 0);
}

static void too_late(void *arg)
{
	answer(arg, ETIMEDOUT);
}

int freezer_set(struct broker *b, struct slot *s, bool freeze, const struct broker_asker *asker, struct sbx_err *err)
{
	struct wait *w = NULL;

	for (size_t i = 0; i < WAITS; i++) {
		if (!waits[i].b)
			w = w ? w : &waits[i];
		else if (waits[i].ref.slot == s->number && waits[i].ref.generation == s->generation)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "slot %u is being frozen or thawed", s->number);
	}
	if (!w)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "%u sandboxes are being frozen or thawed", WAITS);
	*w = (struct wait){.events_fd = -1};
	int r = cgroup_freeze_begin(b->cg, &s->cg, freeze, &w->events_fd, err);
	if (r < 0) {
		wait_end(w);
		return failed(b, s, freeze, err);
	}
	w->b = b;
	w->ref = (struct broker_slot_ref){.slot = s->number, .generation = s->generation};
	w->asker = *asker;
	w->freeze = freeze;
	if (r > 0) {
		answer(w, 0);
		return 0;
	}
	w->deadline = loop_timer_new(b->loop, too_late, w);
	w->source = w->deadline ? loop_fd_add(b->loop, w->events_fd, EPOLLPRI, on_event, w) : NULL;
	if (!w->source) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "slot %u", s->number);
		wait_end(w);
		return failed(b, s, freeze, err);
	}
	loop_timer_arm(w->deadline, WAIT_MS);
	return 0;
}
