/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the parts of sandbox-gateway share
 *
 * One struct, wired by gateway_main.c.  A request goes: access rules, route, then one of pass.c (sandboxd answers),
 * proxy.c (a port of a sandbox) or the local answers of gateway.c.
 */
#ifndef API_GATEWAY_H
#define API_GATEWAY_H

#include "api/access.h"
#include "api/execd/execd.h"
#include "api/gw_client.h"
#include "api/routes.h"
#include "base/http_server.h"
#include "base/loop.h"

#include <sys/types.h>

struct links;
struct services;

struct gateway {
	struct loop *loop;
	struct gw_client *control;
	struct execd *execd;
	struct links *links;
	struct services *services;
	struct http_server *http;
	struct access_names names;
	bool has_owner;	   /* socket_owner is set */
	uid_t socket_owner; /* of api.sock: needs no key there, as root */
};

/** gateway_handle() - http_handler of all listeners; @arg is the struct gateway */
void gateway_handle(void *arg, struct http_request *req);
/** gateway_flags() - enum gw_http_flags of @req */
uint32_t gateway_flags(const struct gateway *gw, const struct http_request *req);
/** gateway_refuse() - End @req with the JSON error that sandboxd gave as @code and @message */
void gateway_refuse(struct http_request *req, unsigned status, struct http_text code, struct http_text message);

/** pass_lifecycle() - Collect the body of @req and let sandboxd answer it */
void pass_lifecycle(struct gateway *gw, struct http_request *req);
/** pass_egress() - Let sandboxd answer @req, which is for port 18080 of the sandbox @id; @path is what stands behind the port */
void pass_egress(struct gateway *gw, struct http_request *req, struct http_text id, struct http_text path);
/** pass_import() - Stream the body of @req into the file that sandboxd gives */
void pass_import(struct gateway *gw, struct http_request *req);
/** pass_pull() - Let sandboxd pull what the body of @req asks for, and stream its events */
void pass_pull(struct gateway *gw, struct http_request *req);
/** proxy_is_ours() - Whether @port is answered outside of the sandbox */
bool proxy_is_ours(uint32_t port);
/** proxy_handle() - Answer @req from the port that @route names; the views of @route lie in the request */
void proxy_handle(struct gateway *gw, struct http_request *req, const struct route_match *route);

/**
 * proxy_inside() - Get sockets to a service inside, for what the gateway itself has to say to it
 * @arg:	struct gateway
 * @sandbox_id:	Of which sandbox
 * @req:	On whose behalf; it has to show what port 44772 asks for
 * @port:	Of the service
 * @done:	Called once, now or later
 * @done_arg:	Handed to it
 */
void proxy_inside(void *arg, const uint8_t sandbox_id[16], const struct http_request *req, uint32_t port, execd_port_done *done,
		  void *done_arg);
/** proxy_logs() - Answer @req with the output of the entrypoint of the sandbox that @route names; key or Unix peer only */
void proxy_logs(struct gateway *gw, struct http_request *req, const struct route_match *route);

#endif
