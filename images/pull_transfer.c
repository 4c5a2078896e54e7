// SPDX-License-Identifier: Apache-2.0
#include "images/pull_transfer.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIPE_BYTES (1024 * 1024)
#define SAFE_FD	   64

struct transfer {
	struct transfer_config config;
	struct loop_fd *report_source, *exit_source;
	int report_fd, pidfd, feed_fd; /* feed: until the first report */
	uint64_t had;
	bool has_ended; /* END was reported */
	struct sbx_err err;
};

__attribute__((noreturn)) static void be_child(const struct transfer_config *config, int in, int report)
{
	char digest[DIGEST_TEXT_SIZE], size[24], offset[24], name[] = "sandboxd", mode[] = BLOB_RECEIVE_ARGUMENT;
	char *argv[] = {name, mode, digest, size, offset, NULL};
	sigset_t none;

	digest_format(config->digest, digest);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)config->size);
	snprintf(offset, sizeof(offset), "%llu", (unsigned long long)config->file_offset);
	/* copies first, above every target */
	int a = fcntl(in, F_DUPFD_CLOEXEC, SAFE_FD), b = fcntl(blob_store_dir(config->blobs), F_DUPFD_CLOEXEC, SAFE_FD),
	    c = fcntl(report, F_DUPFD_CLOEXEC, SAFE_FD);
	if (a < 0 || b < 0 || c < 0 || dup2(a, 0) < 0 || dup2(b, BLOB_FD_DIR) < 0 || dup2(c, BLOB_FD_REPORT) < 0 ||
	    syscall(SYS_close_range, BLOB_FD_REPORT + 1, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve("/proc/self/exe", argv, environ);
	_exit(127);
}

void transfer_free(struct transfer *t)
{
	if (!t)
		return;
	loop_fd_remove(t->report_source);
	loop_fd_remove(t->exit_source);
	close_keep_errno(t->feed_fd);
	if (t->pidfd >= 0)
		reaper_kill(t->config.reaper, t->pidfd);
	close_keep_errno(t->report_fd);
	free(t);
}

static void take_report(struct transfer *t, const struct blob_report *report)
{
	struct sbx_err err = {0};

	switch ((enum blob_report_kind)report->kind) {
	case BLOB_REPORT_HAVE:
		t->had = report->bytes;
		t->config.progress(t->config.arg, report->bytes);
		if (t->feed_fd >= 0 && report->bytes < t->config.size &&
		    t->config.wanted(t->config.arg, report->bytes, t->feed_fd, &err) < 0)
			t->err = err; /* the pipe ends, and then the child */
		close_keep_errno(take_fd(&t->feed_fd));
		break;
	case BLOB_REPORT_PROGRESS:
		t->config.progress(t->config.arg, report->bytes);
		break;
	case BLOB_REPORT_END:
	default:
		t->has_ended = true;
		if (report->status && !t->err.code)
			sbx_err_set(&t->err, report->status < SBX_E_COUNT ? (enum sbx_err_code)report->status : SBX_E_PROTOCOL,
				    (int)report->sys, "%.*s", (int)strnlen(report->text, sizeof(report->text)), report->text);
		else if (!report->status)
			t->config.progress(t->config.arg, report->bytes);
		break;
	}
}

static void read_reports(struct transfer *t)
{
	struct blob_report report;

	while (read(t->report_fd, &report, sizeof(report)) == (ssize_t)sizeof(report))
		if (report.magic == BLOB_REPORT_MAGIC)
			take_report(t, &report);
}

static void on_report(void *arg, int fd, uint32_t events)
{
	struct transfer *t = arg;

	(void)fd;
	read_reports(t);
	if (events & (EPOLLHUP | EPOLLERR)) {
		loop_fd_remove(t->report_source);
		t->report_source = NULL;
	}
}

static void on_exit_of_child(void *arg, int fd, uint32_t events)
{
	struct transfer *t = arg;
	siginfo_t info = {0};

	(void)events;
	read_reports(t);
	loop_fd_remove(t->exit_source);
	t->exit_source = NULL;
	ignore_result(waitid(P_PIDFD, (id_t)fd, &info, WEXITED) < 0); /* readable: it has ended */
	close_keep_errno(take_fd(&t->pidfd));
	if (!t->has_ended && !t->err.code)
		sbx_err_set(&t->err, SBX_E_SYSTEM, 0, "the child that stores a blob was ended (%s %d)",
			    info.si_code == CLD_EXITED ? "exit" : "signal", info.si_status);
	t->config.ended(t->config.arg, &t->err, t->had > 0); /* frees t */
}

static int start(struct transfer *t, struct sbx_err *err)
{
	int in[2], report[2];

	if (pipe2(report, O_CLOEXEC) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "pipe");
	t->report_fd = report[0];
	auto_fd report_write = report[1];
	auto_fd in_read = -1;
	if (t->config.file < 0) {
		if (pipe2(in, O_CLOEXEC) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "pipe");
		in_read = in[0];
		t->feed_fd = in[1];
		ignore_result(fcntl(in_read, F_SETPIPE_SZ, PIPE_BYTES) < 0); /* the user's share may be used up: it works with less */
	}
	if (fcntl(t->report_fd, F_SETFL, O_NONBLOCK) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "pipe");
	int pidfd = -1;
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
	if (pid == 0)
		be_child(&t->config, t->config.file < 0 ? in_read : t->config.file, report_write);
	if (pid < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "clone");
	t->pidfd = pidfd;
	t->report_source = loop_fd_add(t->config.loop, t->report_fd, EPOLLIN, on_report, t);
	t->exit_source = loop_fd_add(t->config.loop, t->pidfd, EPOLLIN, on_exit_of_child, t);
	return t->report_source && t->exit_source ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "transfer");
}

struct transfer *transfer_new(const struct transfer_config *config, struct sbx_err *err)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "transfer");
		return NULL;
	}
	t->config = *config;
	t->report_fd = t->pidfd = t->feed_fd = -1;
	if (start(t, err) < 0) {
		transfer_free(t);
		return NULL;
	}
	return t;
}
