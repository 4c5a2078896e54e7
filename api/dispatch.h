/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: from a request to its handler
 *
 * The order is fixed: who are you (401, 403), is there such a path (404), does it take this method (405 with Allow), then
 * the handler.  A caller without a key learns nothing about paths.  The path is parted on its raw bytes and each
 * segment decoded once, so an encoded slash never makes a new segment.
 */
#ifndef API_DISPATCH_H
#define API_DISPATCH_H

#include "api/call.h"

#include <stdio.h>

/**
 * dispatch() - Answer one request
 * @context:	Borrowed until the answer
 * @request:	Borrowed for the call
 * @answer:	Called exactly once, perhaps before this returns
 * @arg:	Handed to @answer
 */
void dispatch(const struct api_context *context, const struct api_request *request, api_answer_fn *answer, void *arg);

/** dispatch_print_routes() - One line a route to @out, for the manual and its test */
void dispatch_print_routes(FILE *out);

#endif
