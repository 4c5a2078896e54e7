/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the system calls that sandbox-unpack may make
 *
 * A parser of hostile archives needs files beneath one directory and memory, nothing else: no socket, no process, no
 * mount, no signal to others.  Everything that is not listed answers ENOSYS; another architecture's calls kill.
 */
#ifndef IMAGES_UNPACK_FILTER_H
#define IMAGES_UNPACK_FILTER_H

#include "base/err.h"

/** unpack_filter_load() - Confine this process for the rest of its life; Return: 0, or -1 with @err set */
int unpack_filter_load(struct sbx_err *err) SBX_WUR;

#endif
