/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a create request, from JSON to a spec
 *
 * Two stages, as clients see them: create_request_schema() notes everything whose shape is wrong (422), and
 * create_request_take() checks the values in a fixed order and stops at the first that is not acceptable (400, 501).  What this
 * server does not offer is refused by name; members that nobody knows are read over.
 */
#ifndef API_LIFECYCLE_CREATE_REQUEST_H
#define API_LIFECYCLE_CREATE_REQUEST_H

#include "api/schema.h"
#include "base/err.h"

struct jv;
struct sandbox_spec;
struct settings;

/** create_request_schema() - Note in @s every fault in the shape of the request @body */
void create_request_schema(struct schema *s, const struct jv *body);

/**
 * create_request_take() - Check the values of a request and make a spec of it
 * @body:	Passed create_request_schema() without a fault
 * @settings:	Bounds and allow lists
 * @spec:	Zeroed; filled as far as it went; sandbox_spec_free() it on failure too
 * @err:	Filled on failure: the code that clients know for the member
 *
 * Return: 0, or -1 with @err set
 */
int create_request_take(const struct jv *body, const struct settings *settings, struct sandbox_spec *spec,
			struct sbx_err *err) SBX_WUR;

#endif
