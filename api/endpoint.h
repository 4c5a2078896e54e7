/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: where a port of a sandbox is reached from outside
 *
 * Two forms.  Through the API port: B/sandboxes/{id}/proxy/{port}, B being the configured public address, else the Host that
 * the client used.  Direct: H:P2/{id}/{port} on the endpoint port, a second origin, H being the host part alone.  Neither
 * carries a scheme or /v1, and both end in /{port}: clients rely on it.
 */
#ifndef API_ENDPOINT_H
#define API_ENDPOINT_H

#include "base/buf.h"
#include "base/http_server.h"

#include <stdbool.h>
#include <stdint.h>

struct settings;

#define ENDPOINT_PORT_EXEC   44772u
#define ENDPOINT_PORT_EGRESS 18080u

/** endpoint_direct_port() - TCP port of the second listener as @settings say */
uint32_t endpoint_direct_port(const struct settings *settings);

/**
 * endpoint_text() - Write the endpoint of one port
 * @out:	The text goes here
 * @settings:	Public addresses and ports
 * @host:	The Host header of the request; "" (a Unix peer) gives the configured address
 * @id:		The sandbox's id
 * @port:	1 to 65535
 * @server_proxy: The form through the API port
 */
void endpoint_text(struct buf *out, const struct settings *settings, struct http_text host, const char *id, uint32_t port,
		   bool server_proxy);

#endif
