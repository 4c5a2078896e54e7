/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one request towards a service inside a sandbox
 *
 * The request is written anew from what the parser read, never passed through: two readers that disagree about where a
 * message ends is how requests are smuggled.  Path, query, header values and content pass byte by byte.  The answer is
 * read by base/http1 and streamed; a checked WebSocket handshake becomes a raw tunnel.  The service is hostile: whatever
 * it answers, only its own client sees it.
 *
 * No total time-out: only connecting has one.
 */
#ifndef API_UPSTREAM_H
#define API_UPSTREAM_H

#include "api/services.h"
#include "base/buf.h"
#include "base/http_server.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stdint.h>

enum upstream_flags {
	UPSTREAM_DIRECT = 1u << 0, /* second origin: Host, Authorization and Cookie pass */
};

struct upstream_config {
	struct loop *loop;
	int inet_fd;	       /* unconnected TCP sockets in the sandbox's network, non-blocking or not; taken over; -1: none */
	int inet6_fd;
	uint32_t addr;	       /* the sandbox's own IPv4 address, host byte order */
	uint32_t port;
	unsigned flags;	       /* enum upstream_flags */
	struct http_text path; /* raw rest of the path; "" or starts with '/'; lives in the request */
	struct services_sandbox *counted; /* taken over: released with the connection; NULL: counted nowhere */
};

/** upstream_check() - Whether @req may be proxied; answers it and returns false when its upgrade is malformed */
bool upstream_check(struct http_request *req);
/** upstream_start() - Connect and pass @req on; the request is answered whatever happens */
void upstream_start(struct http_request *req, const struct upstream_config *config);
/** upstream_head() - Append the head of @req as the service gets it to @out, from what @config says; for upstream.c and tests */
void upstream_head(struct buf *out, const struct http_request *req, const struct upstream_config *config, bool upgrade);

#endif
