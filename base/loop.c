// SPDX-License-Identifier: Apache-2.0
#include "base/loop.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define LOOP_BATCH	64
#define LOOP_MAX_SIGNAL 65
#define NOT_ARMED	SIZE_MAX

struct loop_fd {
	struct loop *loop;
	int fd;
	uint32_t events;
	bool dead;
	loop_fd_handler *handler;
	void *arg;
	struct loop_fd *next_dead;
};

struct loop_timer {
	struct loop *loop;
	uint64_t due_ms;
	uint64_t round; /* of timers_fire() in which it was armed */
	size_t heap_index; /* NOT_ARMED when not in the heap */
	bool dead;
	loop_timer_handler *handler;
	void *arg;
	struct loop_timer *next_dead;
};

struct loop {
	int epoll_fd, timer_fd, signal_fd;
	struct loop_fd *timer_source, *signal_source; /* owned */
	struct loop_timer **heap;		      /* owned; a binary heap by due_ms */
	size_t n_heap, cap_heap;
	uint64_t round;		 /* of timers_fire() */
	uint64_t timerfd_due_ms; /* what timer_fd is set to; 0: not set */
	uint64_t now_ms;
	sigset_t signals;
	struct {
		loop_signal_handler *handler;
		void *arg;
	} on_signal[LOOP_MAX_SIGNAL];
	struct loop_fd *dead_fds;
	struct loop_timer *dead_timers;
	bool quit;
	int quit_code;
};

/* ---- timers: a heap, so that arming and firing cost O(log n) and the timerfd is touched only when the head moves ---- */

static void heap_put(struct loop *loop, size_t i, struct loop_timer *t)
{
	loop->heap[i] = t;
	t->heap_index = i;
}

static void heap_up(struct loop *loop, size_t i)
{
	struct loop_timer *t = loop->heap[i];

	while (i && loop->heap[(i - 1) / 2]->due_ms > t->due_ms) {
		heap_put(loop, i, loop->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(loop, i, t);
}

static void heap_down(struct loop *loop, size_t i)
{
	struct loop_timer *t = loop->heap[i];

	for (size_t child; (child = 2 * i + 1) < loop->n_heap; i = child) {
		if (child + 1 < loop->n_heap && loop->heap[child + 1]->due_ms < loop->heap[child]->due_ms)
			child++;
		if (loop->heap[child]->due_ms >= t->due_ms)
			break;
		heap_put(loop, i, loop->heap[child]);
	}
	heap_put(loop, i, t);
}

static void heap_remove(struct loop_timer *t)
{
	struct loop *loop = t->loop;
	size_t i = t->heap_index;

	t->heap_index = NOT_ARMED;
	struct loop_timer *last = loop->heap[--loop->n_heap];
	if (last == t)
		return;
	heap_put(loop, i, last);
	heap_up(loop, i);
	heap_down(loop, last->heap_index);
}

static void timerfd_follow_heap(struct loop *loop)
{
	uint64_t due = loop->n_heap ? loop->heap[0]->due_ms : 0;

	/* An earlier wake-up than needed is harmless and saves a system call for timers that are always disarmed. */
	if (!due || (loop->timerfd_due_ms && loop->timerfd_due_ms <= due))
		return;
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(due / 1000), .tv_nsec = (long)(due % 1000) * 1000000}};
	if (timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0)
		loop->timerfd_due_ms = due;
}

static void timers_fire(void *arg, int fd, uint32_t events)
{
	struct loop *loop = arg;
	uint64_t expirations;

	(void)events;
	ignore_result(read(fd, &expirations, sizeof(expirations)) < 0); /* EAGAIN: another batch read it */
	loop->timerfd_due_ms = 0;
	loop->round++;
	while (loop->n_heap && loop->heap[0]->due_ms <= loop->now_ms) {
		struct loop_timer *t = loop->heap[0];

		if (t->round == loop->round)
			break; /* armed by one of these handlers, with no delay: the descriptors have their turn first */
		heap_remove(t);
		t->handler(t->arg);
	}
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_handler *handler, void *arg)
{
	struct loop_timer *t = calloc(1, sizeof(*t));

	if (t)
		*t = (struct loop_timer){.loop = loop, .heap_index = NOT_ARMED, .handler = handler, .arg = arg};
	return t;
}

void loop_timer_arm(struct loop_timer *t, uint64_t delay_ms)
{
	struct loop *loop = t->loop;

	loop_timer_disarm(t);
	if (loop->n_heap == loop->cap_heap) {
		size_t cap = loop->cap_heap ? loop->cap_heap * 2 : 64;
		struct loop_timer **heap = reallocarray(loop->heap, cap, sizeof(*heap));
		if (!heap)
			abort(); /* a deadline that silently never comes would be worse than a restart */
		loop->heap = heap;
		loop->cap_heap = cap;
	}
	t->due_ms = mono_ms() + delay_ms;
	t->round = loop->round;
	heap_put(loop, loop->n_heap++, t);
	heap_up(loop, t->heap_index);
}

void loop_timer_disarm(struct loop_timer *t)
{
	if (t && t->heap_index != NOT_ARMED)
		heap_remove(t);
}

bool loop_timer_armed(const struct loop_timer *t)
{
	return t && t->heap_index != NOT_ARMED;
}

void loop_timer_free(struct loop_timer *t)
{
	if (!t || t->dead)
		return;
	loop_timer_disarm(t);
	t->dead = true;
	t->next_dead = t->loop->dead_timers;
	t->loop->dead_timers = t;
}

/* ---- descriptors ---- */

struct loop_fd *loop_fd_add(struct loop *loop, int fd, uint32_t events, loop_fd_handler *handler, void *arg)
{
	struct loop_fd *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct loop_fd){.loop = loop, .fd = fd, .events = events, .handler = handler, .arg = arg};
	struct epoll_event ev = {.events = events, .data.ptr = s};
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		free(s);
		return NULL;
	}
	return s;
}

void loop_fd_events(struct loop_fd *s, uint32_t events)
{
	if (s->dead || s->events == events)
		return;
	struct epoll_event ev = {.events = events, .data.ptr = s};
	if (epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev) == 0)
		s->events = events;
}

void loop_fd_remove(struct loop_fd *s)
{
	if (!s || s->dead)
		return;
	epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->dead = true;
	s->next_dead = s->loop->dead_fds;
	s->loop->dead_fds = s;
}

/* ---- signals ---- */

static void signals_read(void *arg, int fd, uint32_t events)
{
	struct loop *loop = arg;
	struct signalfd_siginfo info;

	(void)events;
	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo < LOOP_MAX_SIGNAL && loop->on_signal[info.ssi_signo].handler)
			loop->on_signal[info.ssi_signo].handler(loop->on_signal[info.ssi_signo].arg, &info);
}

int loop_signal(struct loop *loop, int signo, loop_signal_handler *handler, void *arg, struct sbx_err *err)
{
	if (signo <= 0 || signo >= LOOP_MAX_SIGNAL)
		return sbx_err_set(err, SBX_E_SYSTEM, EINVAL, "signal %d", signo);
	loop->on_signal[signo].handler = handler;
	loop->on_signal[signo].arg = arg;
	sigaddset(&loop->signals, signo);
	if (sigprocmask(SIG_BLOCK, &loop->signals, NULL) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "block signal %d", signo);
	int fd = signalfd(loop->signal_fd, &loop->signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "signalfd");
	if (loop->signal_fd < 0) {
		loop->signal_fd = fd;
		loop->signal_source = loop_fd_add(loop, fd, EPOLLIN, signals_read, loop);
		if (!loop->signal_source)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "watch signalfd");
	}
	return 0;
}

/* ---- the loop ---- */

struct loop *loop_new(struct sbx_err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "event loop");
		return NULL;
	}
	loop->signal_fd = -1;
	sigemptyset(&loop->signals);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	loop->now_ms = mono_ms();
	if (loop->epoll_fd >= 0 && loop->timer_fd >= 0)
		loop->timer_source = loop_fd_add(loop, loop->timer_fd, EPOLLIN, timers_fire, loop);
	if (!loop->timer_source) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "event loop");
		loop_free(loop);
		return NULL;
	}
	return loop;
}

static void free_dead(struct loop *loop)
{
	for (struct loop_fd *s; (s = loop->dead_fds);) {
		loop->dead_fds = s->next_dead;
		free(s);
	}
	for (struct loop_timer *t; (t = loop->dead_timers);) {
		loop->dead_timers = t->next_dead;
		free(t);
	}
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	loop_fd_remove(loop->timer_source);
	loop_fd_remove(loop->signal_source);
	free_dead(loop);
	close_keep_errno(loop->timer_fd);
	close_keep_errno(loop->signal_fd);
	close_keep_errno(loop->epoll_fd);
	free(loop->heap);
	free(loop);
}

int loop_once(struct loop *loop, int timeout_ms)
{
	struct epoll_event ready[LOOP_BATCH];

	timerfd_follow_heap(loop);
	int n = epoll_wait(loop->epoll_fd, ready, LOOP_BATCH, timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	loop->now_ms = mono_ms();
	for (int i = 0; i < n; i++) {
		struct loop_fd *s = ready[i].data.ptr;

		if (!s->dead)
			s->handler(s->arg, s->fd, ready[i].events);
	}
	free_dead(loop);
	return n;
}

int loop_run(struct loop *loop)
{
	loop->quit = false;
	while (!loop->quit) {
		int r = loop_once(loop, -1);
		if (r < 0)
			return r;
	}
	return loop->quit_code;
}

void loop_quit(struct loop *loop, int code)
{
	loop->quit = true;
	loop->quit_code = code;
}

uint64_t loop_now_ms(struct loop *loop)
{
	return loop->now_ms;
}
