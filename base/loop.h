/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the event loop
 *
 * One epoll loop per process.  Sources are descriptors, timers (one heap, one timerfd on CLOCK_MONOTONIC) and signals
 * (one signalfd).  Handlers run to completion and never block.  A source may be removed from any handler, also its own:
 * its memory is released only after the current batch of events, so a stale event never meets freed memory.  A
 * descriptor is taken out of epoll before it is closed: loop_fd_remove() comes before close(), always.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/err.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

struct loop;
struct loop_fd;
struct loop_timer;

typedef void loop_fd_handler(void *arg, int fd, uint32_t events);
typedef void loop_timer_handler(void *arg);
typedef void loop_signal_handler(void *arg, const struct signalfd_siginfo *info);

/** loop_new() - Make a loop; Return: the loop (loop_free() it) or NULL with @err set */
struct loop *loop_new(struct sbx_err *err) SBX_WUR;
/** loop_free() - Release @loop and all its sources; descriptors of callers stay open */
void loop_free(struct loop *loop);
/** loop_run() - Serve events of @loop until loop_quit(); Return: the code given to loop_quit() */
int loop_run(struct loop *loop);
/** loop_once() - Serve one batch, waiting at most @timeout_ms (-1: for ever); Return: events served or -errno */
int loop_once(struct loop *loop, int timeout_ms);
/** loop_quit() - Let loop_run() of @loop return @code after the current batch */
void loop_quit(struct loop *loop, int code);

/**
 * loop_fd_add() - Watch a descriptor, level-triggered
 * @loop:	The loop
 * @fd:		Stays the caller's; must be loop_fd_remove()d before it is closed
 * @events:	EPOLLIN, EPOLLOUT, EPOLLRDHUP or 0; EPOLLERR and EPOLLHUP always come
 * @handler:	Called with the ready events
 * @arg:	Handed to @handler
 *
 * Return: the source, or NULL (errno says why)
 */
struct loop_fd *loop_fd_add(struct loop *loop, int fd, uint32_t events, loop_fd_handler *handler, void *arg) SBX_WUR;
/** loop_fd_events() - Change what @source waits for to @events; no system call when it is the same */
void loop_fd_events(struct loop_fd *source, uint32_t events);
/** loop_fd_remove() - Stop watching; @source may be NULL; safe inside any handler */
void loop_fd_remove(struct loop_fd *source);

/** loop_timer_new() - Make a timer of @loop, not armed, that calls @handler with @arg; Return: timer or NULL (no memory) */
struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_handler *handler, void *arg) SBX_WUR;
/** loop_timer_arm() - Let @timer fire once, @delay_ms from now (0: in the next batch); re-arming moves it */
void loop_timer_arm(struct loop_timer *timer, uint64_t delay_ms);
/** loop_timer_disarm() - Let @timer not fire; NULL is fine */
void loop_timer_disarm(struct loop_timer *timer);
/** loop_timer_armed() - Whether @timer will fire */
bool loop_timer_armed(const struct loop_timer *timer);
/** loop_timer_free() - Release @timer; NULL is fine; safe inside any handler */
void loop_timer_free(struct loop_timer *timer);

/**
 * loop_signal() - Handle a signal in the loop; it is blocked for the process (children must unblock before exec)
 * @loop:	The loop
 * @signo:	The signal
 * @handler:	Called for each delivery (SIGCHLD may stand for several children: reap until none is left)
 * @arg:	Handed to @handler
 *
 * Return: 0, or -1 with @err set
 */
int loop_signal(struct loop *loop, int signo, loop_signal_handler *handler, void *arg, struct sbx_err *err) SBX_WUR;

/** loop_now_ms() - CLOCK_MONOTONIC in milliseconds, read once per batch of @loop */
uint64_t loop_now_ms(struct loop *loop);

#endif
