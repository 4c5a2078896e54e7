/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the volumes of a create request
 *
 * Two passes.  The schema pass notes every wrong shape (422); the second checks values in list order and stops at the first
 * (400), so that what a client sees does not depend on the host.  The check of host paths is lexical only: it refuses what can
 * never be right.  The broker opens the path itself, beneath its own list and without following links.
 */
#ifndef API_VOLUMES_REQUEST_H
#define API_VOLUMES_REQUEST_H

#include "api/schema.h"
#include "base/err.h"

#include <stdbool.h>

struct sandbox_spec;
struct settings;

/** volumes_request_schema() - Note the faults in the shape of @volumes (array; NULL: none) at @at */
void volumes_request_schema(struct schema *s, const struct schema_at *at, const struct jv *volumes);

/**
 * volumes_request_take() - Check the values and put the volumes into a spec
 * @volumes:	Array that passed volumes_request_schema(); NULL: none
 * @settings:	storage.allowed_host_paths
 * @spec:	volumes and n_volumes are set; what was put there stays the spec's on failure too
 * @err:	Filled on failure: VOLUME_*, INVALID_REQUEST, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int volumes_request_take(const struct jv *volumes, const struct settings *settings, struct sandbox_spec *spec,
			 struct sbx_err *err) SBX_WUR;

/** volumes_request_size() - MiB of @text, NULL: of storage.volume_default_size, 0 when that is empty; Return: 0, or -1 with @err set */
int volumes_request_size(const char *text, const struct settings *settings, uint32_t *ret_mib, struct sbx_err *err);
/** volumes_request_claim_valid() - Whether @name may name a volume: [a-z0-9]([a-z0-9._-]*[a-z0-9])?, at most 63 bytes */
bool volumes_request_claim_valid(const char *name);

#endif
