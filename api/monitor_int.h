/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the files of the monitor share
 *
 * monitor_fetch.c starts sandbox-fetch processes when sandboxd asks: the one thing that it asks of root besides the broker.
 * The request has no text and no choice in it: the program, its configuration and its identity are the monitor's.
 */
#ifndef API_MONITOR_INT_H
#define API_MONITOR_INT_H

#include "api/monitor.h"
#include "base/loop.h"

#include <sys/types.h>

#define FIRST_SPARE_FD 32

struct fd_move {
	int from, to;
};

struct monitor_fetchers {
	const struct settings *settings; /* borrowed */
	struct loop *loop;		 /* borrowed */
	struct loop_fd *source;		 /* owned */
	int fd, daemon_fd;		 /* owned; a restarted sandboxd gets the same end */
	int self_fd, config_fd;		 /* borrowed */
	pid_t pid[MONITOR_FETCH_MAX];	 /* 0: free */
};

/** monitor_open_program() - Open @program beside the executable @self_fd, else in libexec; NULL: itself; Return: fd or -errno */
int monitor_open_program(int self_fd, const char *program);
/** monitor_move_fds() - In a child: move @n descriptors to their numbers, close-on-exec for all above; Return: NULL or the step that failed */
const char *monitor_move_fds(struct fd_move *moves, size_t n);

/** monitor_fetchers_init() - Zero @f, so that monitor_fetchers_clear() may be called */
void monitor_fetchers_init(struct monitor_fetchers *f);
/** monitor_fetchers_open() - Make the socket of @f and serve it in @loop; descriptors are borrowed; Return: 0, or -1 with @err set */
int monitor_fetchers_open(struct monitor_fetchers *f, struct loop *loop, const struct settings *settings, int self_fd, int config_fd,
			  struct sbx_err *err) SBX_WUR;
/** monitor_fetchers_ended() - The child @pid has ended with @status; perhaps it is one of @f */
void monitor_fetchers_ended(struct monitor_fetchers *f, pid_t pid, int status);
/** monitor_fetchers_clear() - Stop serving; processes end with their sockets */
void monitor_fetchers_clear(struct monitor_fetchers *f);

#endif
