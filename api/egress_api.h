/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: port 18080 of a sandbox, answered by sandboxd
 *
 *   GET, POST, PUT, PATCH, DELETE /policy    GET /healthz    GET /events    /credential-vault... (refused: not offered)
 *
 * Answers are the status object with the policy that is in force, errors a line of plain text that names the bad rule.  An
 * answer to a change comes when the kernel and dnsd have it and its row is written.
 */
#ifndef API_EGRESS_API_H
#define API_EGRESS_API_H

#include "api/call.h"

struct policy;
struct sandbox;

/**
 * egress_api() - Answer one request
 * @context:	As for dispatch()
 * @request:	Its `sandbox` names whom it is for, its target begins behind the port; borrowed during the call
 * @answer:	Called once, perhaps before this returns
 * @arg:	Handed to @answer
 *
 * Return: the sandbox when the request was let in, so that it counts as an access; else NULL
 */
const struct sandbox *egress_api(const struct api_context *context, const struct api_request *request, api_answer_fn *answer, void *arg);

#endif
