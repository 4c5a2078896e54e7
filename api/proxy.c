// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: ports of a sandbox.  44772 is answered by the execd handlers over the agent channel, 18080 by sandboxd, every
 * other by the service inside.  "/proxy/{port}" below 44772 leads to another port, as with the reference.
 */
#include "api/gateway.h"

#include "api/execd/execd.h"
#include "api/links.h"
#include "api/services.h"
#include "api/upstream.h"
#include "base/cleanup.h"
#include "base/num.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_EXEC   44772u
#define PORT_EGRESS 18080u
/* /proxy/44772/proxy/44772/... works and ends somewhere */
#define NESTED_MAX  16

/* A request that waits for sandboxd's word. */
struct opening {
	struct gateway *gw;
	struct http_request *req;
	uint64_t tag;
	uint32_t port;
	bool direct;
	uint32_t tail_lines;   /* not 0: the entrypoint's output is asked for */
	struct http_text path; /* in the request, or LOGS_PATH */
};

/* The entrypoint is the command whose id is zero. */
#define LOGS_PATH	  HTTP_TEXT("/command/00000000000000000000000000000000/logs")
#define LOGS_TAIL_DEFAULT 100u
#define LOGS_TAIL_MAX	  10000u

static struct link_credential credential_of(const struct gateway *gw, const struct http_request *req)
{
	return (struct link_credential){.api_key = http_request_header(req, "open-sandbox-api-key"),
					.execd_token = http_request_header(req, "x-execd-access-token"),
					.flags = gateway_flags(gw, req)};
}

static void exec_call(struct gateway *gw, struct http_request *req, const struct link *link, struct http_text path,
		      uint32_t tail_lines)
{
	struct http_text query = tail_lines ? HTTP_NO_TEXT : http_request_query(req);
	const struct execd_call call = {
		.req = req,
		.path = path.len ? path.data : "/",
		.path_len = path.len ? path.len : 1,
		.query = query.data,
		.query_len = query.len,
		.state = tail_lines && link->box ? GW_SANDBOX_RUNNING : link->state,
		.box = link->box,
		.tail_lines = tail_lines,
	};

	(void)gw;
	execd_handle(&call);
}

static void opening_abort(void *user, struct http_request *req)
{
	struct opening *o = user;

	(void)req;
	gw_client_cancel(o->gw->control, o->tag);
	free(o);
}

static void exec_opened(struct opening *o, struct gw_reply *reply)
{
	struct link_credential who = credential_of(o->gw, o->req);
	struct sbx_err err = {0};

	/* what opens the output does not open the port, so it is not remembered */
	const struct link *link = links_opened(o->gw->links, reply, o->tail_lines ? NULL : &who, &err);

	if (link)
		exec_call(o->gw, o->req, link, o->path, o->tail_lines);
	else
		http_respond_error(o->req, &err);
}

/* The sockets of @reply by family; -1 where there is none. */
static void take_sockets(struct gw_reply *reply, int *ret_inet_fd, int *ret_inet6_fd)
{
	*ret_inet_fd = *ret_inet6_fd = -1;
	for (size_t i = 0; i < reply->n_fds; i++) {
		int domain = 0;
		socklen_t n = sizeof(domain);

		if (getsockopt(reply->fds[i], SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
			continue;
		if (domain == AF_INET && *ret_inet_fd < 0)
			*ret_inet_fd = take_fd(&reply->fds[i]);
		else if (domain == AF_INET6 && *ret_inet6_fd < 0)
			*ret_inet6_fd = take_fd(&reply->fds[i]);
	}
}

static void port_opened(struct opening *o, struct gw_reply *reply)
{
	struct gw_open_reply open;
	struct upstream_config config = {.loop = o->gw->loop, .port = o->port, .path = o->path};

	struct sbx_err err = {0};

	memcpy(&open, reply->head, sizeof(open));
	config.counted = services_take(o->gw->services, open.sandbox_id, &err);
	if (!config.counted) {
		http_respond_error(o->req, &err);
		return;
	}
	config.addr = open.addr;
	if (o->direct)
		config.flags |= UPSTREAM_DIRECT;
	take_sockets(reply, &config.inet_fd, &config.inet6_fd);
	upstream_start(o->req, &config);
}

static void opened(void *arg, struct gw_reply *reply, const struct sbx_err *err)
{
	struct opening *o = arg;
	struct gw_open_reply open;

	if (err) {
		http_respond_error(o->req, err);
	} else if (reply->head->kind != GW_OPEN_REPLY || reply->head->n_strings != GW_OPENED_STRINGS) {
		http_respond_code(o->req, SBX_E_PROTOCOL, "answer");
	} else {
		memcpy(&open, reply->head, sizeof(open));
		if (open.status != 200)
			gateway_refuse(o->req, open.status, reply->strings[GW_OPENED_CODE], reply->strings[GW_OPENED_MESSAGE]);
		else if (o->port == PORT_EXEC)
			exec_opened(o, reply);
		else
			port_opened(o, reply);
	}
	free(o);
}

static void ask(struct gateway *gw, struct http_request *req, struct http_text id, uint32_t port, uint32_t tail_lines,
		struct http_text path)
{
	static const struct http_request_ops wait_ops = {.flags = HTTP_BODY_PAUSED, .abort = opening_abort};
	struct gw_open message = {.head = {.kind = GW_OPEN}, .port = port, .flags = gateway_flags(gw, req)};
	const struct http_text strings[GW_OPEN_STRINGS] = {
		[GW_OPEN_ID] = id,
		[GW_OPEN_API_KEY] = http_request_header(req, "open-sandbox-api-key"),
		[GW_OPEN_EXECD_TOKEN] = tail_lines ? HTTP_NO_TEXT : http_request_header(req, "x-execd-access-token"),
		[GW_OPEN_SECURE_TOKEN] = http_request_header(req, "opensandbox-secure-access"),
	};
	struct opening *o = calloc(1, sizeof(*o));
	struct sbx_err err = {0};

	message.what = tail_lines ? GW_OPEN_LOGS : port == PORT_EXEC ? GW_OPEN_EXEC : GW_OPEN_PORT;
	if (!o) {
		http_respond_code(req, SBX_E_NO_MEMORY, "proxy");
		return;
	}
	*o = (struct opening){.gw = gw,
			      .req = req,
			      .port = port,
			      .direct = http_request_listener(req) == GW_LISTENER_ENDPOINT,
			      .tail_lines = tail_lines,
			      .path = path};
	o->tag = gw_client_send(gw->control, &message.head, sizeof(message), strings, GW_OPEN_STRINGS, opened, o, &err);
	if (!o->tag) {
		free(o);
		http_respond_error(req, &err);
		return;
	}
	http_request_accept(req, &wait_ops, o);
}


/* ---- for the gateway's own use ---- */

struct inside {
	execd_port_done *done;
	void *arg;
};

static void inside_opened(void *arg, struct gw_reply *reply, const struct sbx_err *err)
{
	static const int none[2] = {-1, -1};
	struct inside i = *(struct inside *)arg;
	struct gw_open_reply open;
	struct sbx_err own;
	int fds[2];

	free(arg);
	if (!err && (reply->head->kind != GW_OPEN_REPLY || reply->head->n_strings != GW_OPENED_STRINGS)) {
		sbx_err_set(&own, SBX_E_PROTOCOL, 0, "answer of another kind");
		err = &own;
	}
	if (err) {
		i.done(i.arg, none, err);
		return;
	}
	memcpy(&open, reply->head, sizeof(open));
	if (open.status != 200) {
		struct http_text why = reply->strings[GW_OPENED_MESSAGE];

		sbx_err_set(&own, SBX_E_EXECD_RUNTIME, 0, "%.*s", (int)(why.len < 160 ? why.len : 160), why.data);
		i.done(i.arg, none, &own);
		return;
	}
	take_sockets(reply, &fds[0], &fds[1]);
	i.done(i.arg, fds, NULL);
}

void proxy_inside(void *arg, const uint8_t sandbox_id[16], const struct http_request *req, uint32_t port, execd_port_done *done,
		  void *done_arg)
{
	static const int none[2] = {-1, -1};
	struct gateway *gw = arg;
	struct gw_open message = {.head = {.kind = GW_OPEN}, .what = GW_OPEN_INSIDE, .port = port, .flags = gateway_flags(gw, req)};
	char id[UUID_SIZE];
	const struct http_text strings[GW_OPEN_STRINGS] = {
		[GW_OPEN_ID] = {id, UUID_SIZE - 1},
		[GW_OPEN_API_KEY] = http_request_header(req, "open-sandbox-api-key"),
		[GW_OPEN_EXECD_TOKEN] = http_request_header(req, "x-execd-access-token"),
	};
	struct inside *i = malloc(sizeof(*i));
	struct sbx_err err = {0};

	uuid_format(sandbox_id, id);
	if (i)
		*i = (struct inside){done, done_arg};
	else
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "socket");
	if (!i || !gw_client_send(gw->control, &message.head, sizeof(message), strings, GW_OPEN_STRINGS, inside_opened, i, &err)) {
		free(i);
		done(done_arg, none, &err);
	}
}

static struct link *link_of(struct gateway *gw, struct http_text id)
{
	char text[UUID_SIZE];
	uint8_t raw[16];

	if (id.len != UUID_SIZE - 1)
		return NULL;
	memcpy(text, id.data, UUID_SIZE - 1);
	text[UUID_SIZE - 1] = '\0';
	return uuid_parse(text, raw) < 0 ? NULL : links_find(gw->links, raw);
}

#define NOTE_EVERY_MS 1000u

static void noted(void *arg, struct gw_reply *reply, const struct sbx_err *err)
{
	(void)arg;
	(void)reply;
	(void)err; /* the next access is noted again */
}

/* Renew on access counts every request, also those for which sandboxd is not asked. */
static void note_access(struct gateway *gw, struct link *link)
{
	struct gw_stat message = {.head = {.kind = GW_ACCESS}};
	struct sbx_err err = {0};

	if (!(gw_client_flags(gw->control) & GW_HELLO_ACCESS) || !gw_client_up(gw->control) ||
	    (link->noted_ms && loop_now_ms(gw->loop) - link->noted_ms < NOTE_EVERY_MS))
		return;
	link->noted_ms = loop_now_ms(gw->loop);
	memcpy(message.sandbox_id, link->id, sizeof(message.sandbox_id));
	if (!gw_client_send(gw->control, &message.head, sizeof(message), NULL, 0, noted, NULL, &err))
		link->noted_ms = 0;
}

bool proxy_is_ours(uint32_t port)
{
	return port == PORT_EXEC || port == PORT_EGRESS;
}

void proxy_handle(struct gateway *gw, struct http_request *req, const struct route_match *route)
{
	struct link *link = link_of(gw, route->id);
	struct http_text path = route->path;
	uint32_t port = route->port;

	for (int i = 0; i < NESTED_MAX && port == PORT_EXEC; i++)
		if (!routes_proxy_path(path, &port, &path))
			break;
	if (!port) {
		http_respond_code(req, SBX_E_INVALID_PORT, "a port lies between 1 and 65535");
		return;
	}
	if (port == PORT_EXEC) {
		struct link_credential who = credential_of(gw, req);

		if (link && links_knows(link, &who) && (link->box || link->state != GW_SANDBOX_RUNNING)) {
			note_access(gw, link);
			exec_call(gw, req, link, path, 0);
			return;
		}
	} else if (port == PORT_EGRESS) {
		pass_egress(gw, req, route->id, path);
		return;
	} else {
		if (link && gw_client_up(gw->control) && link->state != GW_SANDBOX_RUNNING) {
			http_respond_code(req, SBX_E_NOT_READY, "the sandbox is %s",
					  link->state == GW_SANDBOX_PAUSED ? "paused" : link->state == GW_SANDBOX_PENDING ? "still being made" : "ended");
			return;
		}
		if (!upstream_check(req))
			return;
	}
	ask(gw, req, route->id, port, 0, path);
}

void proxy_logs(struct gateway *gw, struct http_request *req, const struct route_match *route)
{
	auto_free char *scope = NULL, *tail = NULL, *since = NULL;
	struct http_text query = http_request_query(req);
	uint32_t lines = LOGS_TAIL_DEFAULT;

	if (http_query_get(query, "scope", &scope) < 0 || http_query_get(query, "tail", &tail) < 0 ||
	    http_query_get(query, "since", &since) < 0) {
		http_respond_code(req, SBX_E_SCHEMA, "query: a broken percent escape");
		return;
	}
	/* sandboxd asks for the key before it says whether there is such a sandbox, and knows what is not offered */
	if (scope || since || route->id.len != UUID_SIZE - 1) {
		pass_lifecycle(gw, req);
		return;
	}
	if (tail && (num_u32(tail, strlen(tail), LOGS_TAIL_MAX, &lines) < 0 || !lines)) {
		http_respond_code(req, SBX_E_SCHEMA, "tail: must be a whole number from 1 to %u", LOGS_TAIL_MAX);
		return;
	}
	ask(gw, req, route->id, PORT_EXEC, lines, LOGS_PATH);
}
