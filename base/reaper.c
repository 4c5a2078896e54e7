// SPDX-License-Identifier: Apache-2.0
#include "base/reaper.h"

#include "base/cleanup.h"
#include "base/pidfd.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct dying {
	struct reaper *reaper;
	struct dying *next;
	int pidfd;
	struct loop_fd *source;
};

struct reaper {
	struct loop *loop;
	void (*idle)(void *arg);
	void *arg;
	struct dying *first;
};

static void reap(int pidfd)
{
	siginfo_t info;

	ignore_result(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) < 0); /* whoever is not gone yet goes with us */
	close_keep_errno(pidfd);
}

static void dying_free(struct dying *d)
{
	struct dying **at = &d->reaper->first;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	loop_fd_remove(d->source);
	reap(d->pidfd);
	free(d);
}

static void on_gone(void *arg, int fd, uint32_t events)
{
	struct dying *d = arg;
	struct reaper *r = d->reaper;

	(void)fd;
	(void)events;
	dying_free(d);
	if (!r->first && r->idle)
		r->idle(r->arg);
}

struct reaper *reaper_new(struct loop *loop, void (*idle)(void *arg), void *arg, struct sbx_err *err)
{
	struct reaper *r = calloc(1, sizeof(*r));

	if (!r) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "reaper");
		return NULL;
	}
	*r = (struct reaper){.loop = loop, .idle = idle, .arg = arg};
	return r;
}

void reaper_free(struct reaper *r)
{
	if (!r)
		return;
	while (r->first)
		dying_free(r->first);
	free(r);
}

void reaper_kill(struct reaper *r, int pidfd)
{
	struct dying *d = calloc(1, sizeof(*d));

	pidfd_kill(pidfd);
	if (d)
		*d = (struct dying){.reaper = r, .next = r->first, .pidfd = pidfd, .source = loop_fd_add(r->loop, pidfd, EPOLLIN, on_gone, d)};
	if (!d || !d->source) { /* without memory a zombie is the smaller evil */
		free(d);
		reap(pidfd);
		return;
	}
	r->first = d;
}

bool reaper_busy(const struct reaper *r)
{
	return r->first != NULL;
}
