/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sysctls changed on the host, with their old values
 *
 * One line per change in <run dir>/sysctl: "<path below /proc/sys> <old value>".  The line is written before the change, so
 * that a crash between both undoes nothing that was not wanted.  A value that was already right is neither changed nor
 * recorded.  The oldest value of a path is the one that is recorded and restored; forwarding of an interface is left on when the
 * whole host has become a router meanwhile.
 */
#ifndef RUNTIME_SYSCTL_RECORD_H
#define RUNTIME_SYSCTL_RECORD_H

#include "base/err.h"

/**
 * sysctl_record_set() - Set a sysctl of the host and remember what it was
 * @run_dir:	Absolute path of the run directory
 * @path:	Below /proc/sys, for example "net/ipv4/conf/eth0/forwarding"
 * @value:	New value without newline
 * @err:	Filled on failure: SYSTEM
 *
 * Return: 1 when it was changed, 0 when it was so already, or -1 with @err set
 */
int sysctl_record_set(const char *run_dir, const char *path, const char *value, struct sbx_err *err) SBX_WUR;
/**
 * sysctl_record_undo() - Restore every recorded value, last change first, and drop the record
 * @run_dir:	Absolute path of the run directory
 * @err:	Filled on failure: SYSTEM naming the first path that could not be restored; the others are restored
 *
 * A path that no longer exists (its interface is gone) and a missing record are fine.
 *
 * Return: number restored, or -1 with @err set
 */
int sysctl_record_undo(const char *run_dir, struct sbx_err *err) SBX_WUR;

#endif
