/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: volumes
 *
 * Named volumes lie in <state dir>/volumes as ids V..V+65535 and are mapped to the slot's range, so that all sandboxes
 * agree on owners.  Host paths are named by the index of one of the broker's own storage.allowed_host_paths and a relative
 * path; their owner is mapped to root inside and nobody else is, so what a sandbox makes there belongs to that owner.
 * A file system that takes no id map is refused for writing and shown unmapped for reading.
 */
#ifndef RUNTIME_VOLUMES_H
#define RUNTIME_VOLUMES_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"

#include <stdbool.h>

struct broker;
struct slot;

/** volumes_claim_ok() - Whether @claim is a name of a volume: lower-case letters, digits, inner dots, dashes, underscores */
bool volumes_claim_ok(const char *claim);
/** volumes_check() - Whether the strings, kind and flags of @v may be looked at at all by @b; Return: 0, or -1 with @err set */
int volumes_check(const struct broker *b, const struct broker_volume *v, struct sbx_err *err) SBX_WUR;
/**
 * volumes_open() - Mount one volume for one sandbox
 * @b:			The broker
 * @s:			The slot it is for
 * @v:			Passed volumes_check()
 * @image_fd:		Mount of the volume's own image, borrowed; -1: it is a directory of the state directory or the host's
 * @ret_is_file:	Set to whether it is a regular file
 * @err:		Filled on failure: VOLUME_NOT_FOUND, VOLUME_HOST_PATH, VOLUME_SUB_PATH, VOLUME_CREATE_FAILED, HOST_LACKS
 *
 * Return: descriptor of the detached mount, the caller's; or -1 with @err set
 */
int volumes_open(struct broker *b, struct slot *s, const struct broker_volume *v, int image_fd, bool *ret_is_file,
		 struct sbx_err *err) SBX_WUR;
/** volumes_make() - Make the named volume @claim of @b; Return: 0, 1 when it existed, or -1 with @err set */
int volumes_make(struct broker *b, const char *claim, struct sbx_err *err) SBX_WUR;
/** volumes_drop() - Move the named volume @claim of @b to the trash; Return: 0, or -1 with @err set (VOLUME_NOT_FOUND, IMAGE_IN_USE) */
int volumes_drop(struct broker *b, const char *claim, struct sbx_err *err) SBX_WUR;

#endif
