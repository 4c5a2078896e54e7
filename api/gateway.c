// SPDX-License-Identifier: Apache-2.0
#include "api/gateway.h"

#include "base/cleanup.h"
#include "base/jv.h"

#include <string.h>

uint32_t gateway_flags(const struct gateway *gw, const struct http_request *req)
{
	uint32_t flags = 0;
	uid_t uid;

	if (http_request_header(req, "open-sandbox-api-key").data)
		flags |= GW_HTTP_HAS_API_KEY;
	if (http_request_peer_uid(req, &uid) && (uid == 0 || (gw->has_owner && uid == gw->socket_owner)))
		flags |= GW_HTTP_UNIX_PEER;
	return flags;
}

void gateway_refuse(struct http_request *req, unsigned status, struct http_text code, struct http_text message)
{
	auto_free char *code_text = http_text_dup(code), *message_text = http_text_dup(message);

	if (status != 401) {
		http_respond_json_error(req, status >= 400 && status <= 599 ? status : 500, code_text ? code_text : "",
					message_text ? message_text : "");
		return;
	}
	/* the published execd knows this member only */
	auto_buf body = {0};
	struct jw w = {.out = &body};
	jw_object(&w);
	jw_key_str(&w, "error", message_text ? message_text : "");
	jw_key_str(&w, "code", code_text ? code_text : "");
	jw_key_str(&w, "message", message_text ? message_text : "");
	jw_object_end(&w);
	http_respond(req, 401, "application/json", HTTP_NO_TEXT, body.failed ? "" : buf_peek(&body), buf_used(&body));
}

static bool has_secret(const struct http_request *req)
{
	return http_request_header(req, "open-sandbox-api-key").len || http_request_header(req, "x-execd-access-token").len ||
	       http_request_header(req, "opensandbox-egress-auth").len;
}

/* A page that has the key may read our answers; any other cannot even send (access_check). */
static void cors_lines(struct http_request *req, struct http_text origin)
{
	auto_buf lines = {0};

	if (!origin.len || http_header_add(&lines, "Access-Control-Allow-Origin", origin.data, origin.len) < 0)
		return;
	buf_puts(&lines, "Vary: Origin\r\nAccess-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Request-ID, "
			 "EXECD-COMMANDS-TAIL-CURSOR\r\n");
	if (!lines.failed)
		http_request_extra(req, (struct http_text){buf_peek(&lines), buf_used(&lines)});
}

/* A preflight carries no key itself: it is granted when it asks to send one. */
static bool preflight(struct http_request *req, const struct access_request *rq)
{
	struct http_text method = http_request_header(req, "access-control-request-method");
	struct http_text asked = http_request_header(req, "access-control-request-headers");
	auto_buf lines = {0};

	if (!http_request_is(req, "OPTIONS") || !rq->origin.len || !method.data || !access_foreign(rq))
		return false;
	if (!rq->key_required || !access_preflight_names_secret(asked)) {
		http_respond_code(req, SBX_E_FORBIDDEN_ORIGIN, "a web page of another origin may not call this API without a key");
		return true;
	}
	cors_lines(req, rq->origin);
	buf_puts(&lines, "Access-Control-Allow-Methods: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\nAccess-Control-Max-Age: 600\r\n");
	http_header_add(&lines, "Access-Control-Allow-Headers", asked.data, asked.len);
	http_respond(req, 200, NULL, (struct http_text){buf_peek(&lines), buf_used(&lines)}, NULL, 0);
	return true;
}

/*
 * Somebody followed a link, or a page embeds one, to an application in a sandbox.  The page behind the link cannot read
 * what comes, and without it no user interface could show what runs in a sandbox.  Not for our own APIs.
 */
static bool is_app_link(const struct http_request *req, const struct route_match *route)
{
	return http_request_listener(req) == GW_LISTENER_ENDPOINT && route->who == ROUTE_PROXY && !proxy_is_ours(route->port) &&
	       http_text_is_nocase(http_request_header(req, "sec-fetch-mode"), "navigate") &&
	       (http_request_is(req, "GET") || http_request_is(req, "HEAD"));
}

/* Returns false when the request was answered. */
static bool may_enter(struct gateway *gw, struct http_request *req, const struct route_match *route)
{
	struct sbx_err err = {0};
	uid_t uid;
	const struct access_request rq = {
		.host = http_request_header(req, "host"),
		.origin = http_request_header(req, "origin"),
		.fetch_site = http_request_header(req, "sec-fetch-site"),
		.local = http_request_local(req),
		.over_unix = http_request_peer_uid(req, &uid),
		.has_secret = has_secret(req),
		.key_required = gw_client_flags(gw->control) & GW_HELLO_KEY_REQUIRED,
		.app_link = is_app_link(req, route),
	};

	if (!rq.over_unix && preflight(req, &rq))
		return false;
	if (access_check(&gw->names, &rq, &err) < 0) {
		http_respond_error(req, &err);
		return false;
	}
	if (rq.origin.len && rq.has_secret)
		cors_lines(req, rq.origin);
	return true;
}

static void health(struct gateway *gw, struct http_request *req)
{
	static const char healthy[] = "{\"status\":\"healthy\"}";

	if (gw_client_up(gw->control))
		http_respond(req, 200, "application/json", HTTP_NO_TEXT, healthy, sizeof(healthy) - 1);
	else
		http_respond_code(req, SBX_E_PEER_GONE, "sandboxd does not answer; it is being restarted");
}

void gateway_handle(void *arg, struct http_request *req)
{
	struct gateway *gw = arg;
	struct route_match route;
	bool found = routes_match((enum gw_listener)http_request_listener(req), http_request_method(req), http_request_path(req), &route);

	if (!may_enter(gw, req, &route))
		return;
	if (!found) {
		http_respond_code(req, SBX_E_ROUTE_NOT_FOUND, "endpoints are /{sandbox id}/{port}/...");
		return;
	}
	/* the key is not asked for below a proxied port, so nothing may climb out of there */
	if (route.who == ROUTE_PROXY && http_request_listener(req) != GW_LISTENER_ENDPOINT && routes_has_dot_dot(http_request_path(req)))
		route.who = ROUTE_LIFECYCLE;
	switch (route.who) {
	case ROUTE_LOCAL:
		health(gw, req);
		break;
	case ROUTE_PROXY:
		proxy_handle(gw, req, &route);
		break;
	case ROUTE_LOGS:
		proxy_logs(gw, req, &route);
		break;
	case ROUTE_IMPORT:
		pass_import(gw, req);
		break;
	case ROUTE_PULL:
		pass_pull(gw, req);
		break;
	case ROUTE_LIFECYCLE:
	case ROUTE_NONE:
		pass_lifecycle(gw, req);
		break;
	}
}
