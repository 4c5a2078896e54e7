/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: from a raw target to who answers it
 *
 * Routing looks at the raw bytes: an encoded slash never makes a new segment, and the part behind a proxied port is handed
 * on as it came.
 */
#ifndef API_ROUTES_H
#define API_ROUTES_H

#include "api/gw_msg.h"
#include "base/http_server.h"

#include <stdio.h>

enum route_who { ROUTE_NONE = 0, ROUTE_LOCAL, ROUTE_LIFECYCLE, ROUTE_IMPORT, ROUTE_PULL, ROUTE_PROXY, ROUTE_LOGS };

struct route_match {
	enum route_who who;
	struct http_text id;   /* raw segment */
	uint32_t port;	       /* PROXY: 0 when outside of 1 to 65535 */
	struct http_text path; /* raw rest behind the port; "" or starts with '/' */
};

/**
 * routes_match() - Find the first row for a request
 * @listener:	Where it came in; the Unix listener serves what the API listener does
 * @method:	Of the request
 * @path:	Raw path without query
 * @ret:	Views into @path
 *
 * Return: true; false when the listener has no such route (only the endpoint listener)
 */
bool routes_match(enum gw_listener listener, struct http_text method, struct http_text path, struct route_match *ret);
/** routes_proxy_path() - Take "/proxy/{port}{rest}" apart, as it is nested below port 44772; Return: whether @path is one */
bool routes_proxy_path(struct http_text path, uint32_t *ret_port, struct http_text *ret_rest);
/** routes_has_dot_dot() - Whether the decoded @path holds ".."; a path that cannot be decoded counts as if */
bool routes_has_dot_dot(struct http_text path);
/** routes_print() - The table to @out, one line a row */
void routes_print(FILE *out);

#endif
