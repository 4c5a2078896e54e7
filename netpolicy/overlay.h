/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the operator's rules, for every sandbox
 *
 * Two files, one target a line; blank lines and those that begin with "#" are passed over.  What stands in the deny file is
 * denied, what stands in the allow file is allowed, in front of all rules of a sandbox; a file that is not there is empty.
 * Both are read again when one of them changes (inotify on their directories): all of it, or nothing when a line is wrong.
 */
#ifndef NETPOLICY_OVERLAY_H
#define NETPOLICY_OVERLAY_H

#include "base/err.h"
#include "base/loop.h"
#include "netpolicy/policy.h"

struct overlay;

/**
 * overlay_new() - Read the files and watch them
 * @loop:	The loop
 * @deny_path:	Absolute; "" for none; copied
 * @allow_path:	Likewise
 * @changed:	Called after another policy is in force
 * @arg:	Handed to @changed
 * @err:	Filled on failure: INVALID_REQUEST (file, line and why), SYSTEM, NO_MEMORY
 *
 * Return: overlay_free() it; NULL with @err set
 */
struct overlay *overlay_new(struct loop *loop, const char *deny_path, const char *allow_path, void (*changed)(void *arg), void *arg,
			    struct sbx_err *err) SBX_WUR;
/** overlay_free() - Stop watching; NULL is fine */
void overlay_free(struct overlay *o);
/** overlay_policy() - What the files say, sealed; valid until the next change; NULL for NULL */
const struct policy *overlay_policy(const struct overlay *o);

/**
 * overlay_names() - Read a file of names, one a line, as overlay files are written
 * @path:	The file; "": none; one that is not there is empty
 * @ret:	A sealed policy that allows these names and nothing else (policy_free() it); NULL for no file
 * @err:	Filled on failure: INVALID_REQUEST (a line that is no name, also an address), SYSTEM, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int overlay_names(const char *path, struct policy **ret, struct sbx_err *err) SBX_WUR;

#endif
