// SPDX-License-Identifier: Apache-2.0
#include "base/pidfd.h"

#include "base/cleanup.h"

#include <signal.h>
#include <sys/syscall.h>

int pidfd_of(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : (int)fd;
}

int pidfd_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

void pidfd_kill(int pidfd)
{
	if (pidfd >= 0)
		ignore_result(pidfd_signal(pidfd, SIGKILL)); /* it may just have ended */
}
