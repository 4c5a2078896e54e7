/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the broker's own capabilities
 *
 * One table of what it keeps, with the reason; everything else leaves all its sets.  A sandbox is not affected: a new user
 * namespace starts with its own full sets, from which launch_child.c and the agent go down.
 */
#ifndef RUNTIME_CAPSET_H
#define RUNTIME_CAPSET_H

#include "base/err.h"

#include <stdbool.h>

/**
 * capset_keep_broker() - Drop every capability that the broker's table does not keep
 * @err:	Filled on failure: SYSTEM, or HOST_LACKS naming a needed one that this process does not have
 *
 * Also locks SECBIT_NO_SETUID_FIXUP, so that a change of the effective user (the owner of a new namespace) keeps them.
 *
 * Return: 0, or -1 with @err set
 */
int capset_keep_broker(struct sbx_err *err) SBX_WUR;

/** capset_drop_all() - Drop every capability, the bounding and ambient sets included; Return: 0 or -errno */
int capset_drop_all(void) SBX_WUR;

/** capset_has_resource() - Whether we have CAP_SYS_RESOURCE, which many containers keep back: a mounted ext4 is made larger with it */
bool capset_has_resource(void);

#endif
