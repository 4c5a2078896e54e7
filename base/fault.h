/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: fault points
 *
 * A build with --enable-fault-points asks at each named point whether the test wants this process to fail or to be
 * killed there.  The wish stands in the environment variable SBX_FAULT as NAME:fail, NAME:kill or NAME:stop, optionally
 * with :N for the N-th passage, or in the file named by SBX_FAULT_FILE (read at each point, so a test can arm a running
 * process).  In any other build the macro is the constant false.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include "config.h"

#include <stdbool.h>

/**
 * fault_wanted() - Whether the operation at this point is to fail; kills or stops the process when that is wanted
 * @name:	The point; lower-case words joined by dashes
 *
 * Return: true when the caller has to behave as if its next system call had failed with EIO
 */
bool fault_wanted(const char *name);

#ifdef SBX_FAULT_POINTS
#define FAULT_POINT(name) fault_wanted(name)
#else
#define FAULT_POINT(name) false
#endif

#endif
