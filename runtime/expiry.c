// SPDX-License-Identifier: Apache-2.0
#include "runtime/expiry.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <errno.h>
#include <sys/timerfd.h>

struct expiry {
	struct loop_fd *source; /* owned */
	int timer_fd;
	expiry_handler *handler;
	expiry_clock_set *clock_set; /* NULL: nobody asks */
	void *arg;
	struct expiry_node **heap; /* owned */
	size_t n, cap;
	int64_t armed_wall_usec; /* what the timer is set to; 0: not set */
	int64_t offset_usec;	 /* wall less monotonic time, when last looked */
};

static void put(struct expiry *e, size_t i, struct expiry_node *node)
{
	e->heap[i] = node;
	node->place = i + 1;
}

static void sift_up(struct expiry *e, size_t i)
{
	struct expiry_node *node = e->heap[i];

	while (i && e->heap[(i - 1) / 2]->due_wall_usec > node->due_wall_usec) {
		put(e, i, e->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	put(e, i, node);
}

static void sift_down(struct expiry *e, size_t i)
{
	struct expiry_node *node = e->heap[i];

	for (size_t child; (child = 2 * i + 1) < e->n; i = child) {
		if (child + 1 < e->n && e->heap[child + 1]->due_wall_usec < e->heap[child]->due_wall_usec)
			child++;
		if (e->heap[child]->due_wall_usec >= node->due_wall_usec)
			break;
		put(e, i, e->heap[child]);
	}
	put(e, i, node);
}

static void take_out(struct expiry *e, struct expiry_node *node)
{
	size_t i = node->place - 1;
	struct expiry_node *last = e->heap[--e->n];

	node->place = 0;
	if (last == node)
		return;
	put(e, i, last);
	sift_up(e, i);
	sift_down(e, last->place - 1);
}

static void follow(struct expiry *e)
{
	int64_t due = e->n ? e->heap[0]->due_wall_usec : 0;

	if (due == e->armed_wall_usec)
		return;
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(due / 1000000), .tv_nsec = (long)(due % 1000000) * 1000}};
	if (due < 0)
		when.it_value = (struct timespec){.tv_nsec = 1}; /* before 1970: at once */
	if (timerfd_settime(e->timer_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &when, NULL) == 0)
		e->armed_wall_usec = due;
}

/*
 * A deadline is on the wall clock, and whoever sets that means it.  But a clock before 2020 never told the time: when it is
 * set at last, what was 60 seconds away is still that.
 */
static void look_at_clock(struct expiry *e)
{
	int64_t mono = (int64_t)mono_usec(), now = wall_usec(), before = e->offset_usec;

	e->offset_usec = now - mono;
	if (e->clock_set && before + mono < WALL_SANE_USEC && now >= WALL_SANE_USEC)
		e->clock_set(e->arg, e->offset_usec - before);
}

static void on_timer(void *arg, int fd, uint32_t events)
{
	struct expiry *e = arg;
	uint64_t ticks;

	(void)events;
	/* ECANCELED: the clock was set; the deadlines are compared again all the same. */
	ignore_result(read(fd, &ticks, sizeof(ticks)) < 0);
	e->armed_wall_usec = 0;
	look_at_clock(e);
	while (e->n && e->heap[0]->due_wall_usec <= wall_usec()) {
		struct expiry_node *node = e->heap[0];

		take_out(e, node);
		e->handler(e->arg, node);
	}
	follow(e);
}

struct expiry *expiry_new(struct loop *loop, expiry_handler *handler, void *arg, struct sbx_err *err)
{
	struct expiry *e = calloc(1, sizeof(*e));

	if (!e) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "deadlines");
		return NULL;
	}
	*e = (struct expiry){.handler = handler, .arg = arg, .offset_usec = wall_usec() - (int64_t)mono_usec()};
	e->timer_fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (e->timer_fd >= 0)
		e->source = loop_fd_add(loop, e->timer_fd, EPOLLIN, on_timer, e);
	if (!e->source) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "timer for deadlines");
		expiry_free(e);
		return NULL;
	}
	return e;
}

void expiry_on_clock_set(struct expiry *e, expiry_clock_set *clock_set)
{
	e->clock_set = clock_set;
}

void expiry_free(struct expiry *e)
{
	if (!e)
		return;
	loop_fd_remove(e->source);
	close_keep_errno(e->timer_fd);
	free(e->heap);
	free(e);
}

int expiry_set(struct expiry *e, struct expiry_node *node, int64_t due_wall_usec)
{
	expiry_clear(e, node);
	look_at_clock(e); /* before a deadline by the clock as it is now is among those by the clock as it was */
	if (!due_wall_usec)
		return 0;
	if (e->n == e->cap) {
		size_t cap = e->cap ? e->cap * 2 : 64;
		struct expiry_node **heap = reallocarray(e->heap, cap, sizeof(*heap));
		if (!heap)
			return -ENOMEM;
		e->heap = heap;
		e->cap = cap;
	}
	node->due_wall_usec = due_wall_usec;
	put(e, e->n++, node);
	sift_up(e, node->place - 1);
	follow(e);
	return 0;
}

void expiry_clear(struct expiry *e, struct expiry_node *node)
{
	if (!node->place)
		return;
	take_out(e, node);
	follow(e);
}

const struct expiry_node *expiry_first(const struct expiry *e)
{
	return e->n ? e->heap[0] : NULL;
}
