/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: processes by descriptor
 *
 * A number may name another process by the time it is used; a pidfd names one process for as long as it is open.  glibc has these
 * calls from 2.36 on only.
 */
#ifndef BASE_PIDFD_H
#define BASE_PIDFD_H

#include "base/err.h"

#include <sys/types.h>

/**
 * pidfd_of() - Open the process @pid, which need not be a child
 * @pid:	Its number; whether it is still the process that was meant is the caller's to check, with the pidfd open
 *
 * Return: a pidfd (close-on-exec), or -errno (ESRCH: there is none)
 */
int pidfd_of(pid_t pid) SBX_WUR;

/**
 * pidfd_signal() - Send @sig to the process behind @pidfd
 * @pidfd:	Borrowed
 * @sig:	A signal
 *
 * A zombie counts as there.  An order, not an end: @pidfd becomes readable when the process is gone.
 *
 * Return: 0, or -errno (ESRCH: it was reaped already)
 */
int pidfd_signal(int pidfd, int sig) SBX_WUR;

/**
 * pidfd_kill() - SIGKILL for the process behind @pidfd, where nothing is left to do about a failure
 * @pidfd:	Borrowed; a child of ours, or one that we may signal: then all that can fail is that it is gone already.  -1: nothing is done
 *
 * Its end is seen as any other end is; base/reaper.h waits for it.
 */
void pidfd_kill(int pidfd);

#endif
