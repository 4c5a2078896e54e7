// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include "api/execd/execd_int.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- boxes ---- */

struct execd *execd_new(struct loop *loop, const struct execd_hooks *hooks, struct sbx_err *err)
{
	struct execd *x = calloc(1, sizeof(*x));

	if (!x) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "execd");
		return NULL;
	}
	*x = (struct execd){.loop = loop, .hooks = *hooks};
	return x;
}

void execd_free(struct execd *x)
{
	free(x);
}

struct execd_box *execd_box_new(struct execd *x, const uint8_t sandbox_id[16], const int fds[4],
				const char *log_file, void (*broken)(void *arg, const struct sbx_err *why), void *arg,
				struct sbx_err *err)
{
	struct execd_box *box = calloc(1, sizeof(*box));

	if (!box) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox channel");
		return NULL;
	}
	*box = (struct execd_box){.x = x, .refs = 1};
	memcpy(box->sandbox_id, sandbox_id, sizeof(box->sandbox_id));
	if (log_file && *log_file)
		box->log = request_log_new(box, log_file);
	box->agent = agent_client_new(x->loop, fds, broken, arg, err);
	if (!box->agent) {
		request_log_free(box->log);
		free(box);
		return NULL;
	}
	return box;
}

void execd_box_free(struct execd_box *box, const struct sbx_err *why)
{
	struct agent_client *agent;

	if (!box || !box->agent)
		return;
	agent = box->agent;
	box->agent = NULL;
	agent_client_free(agent, why);
	pty_free_all(box);
	session_free_all(box);
	code_free_all(box);
	request_log_free(box->log);
	box->log = NULL;
	execd_box_unref(box);
}

struct jv *execd_body_object(const char *body, size_t n, const char *lead, struct sbx_err *err)
{
	struct sbx_err why;
	auto_jv root = jv_parse_first(body, n, &why);

	if (root && jv_type(root) == JV_NULL) { /* nothing is set, as in an empty object */
		jv_free(root);
		root = jv_parse("{}", 2, &why);
	}
	if (!root)
		sbx_err_set(err, SBX_E_EXECD_BODY, 0, "%s%.160s", lead, why.msg);
	else if (jv_type(root) != JV_OBJECT)
		sbx_err_set(err, SBX_E_EXECD_BODY, 0, "%sthe body is not an object", lead);
	else
		return take_ptr(root);
	return NULL;
}

struct execd_box *execd_box_ref(struct execd_box *box)
{
	box->refs++;
	return box;
}

void execd_box_unref(struct execd_box *box)
{
	if (box && !--box->refs)
		free(box);
}

struct agent_client *execd_box_agent(const struct execd_box *box, struct sbx_err *err)
{
	if (!box->agent)
		sbx_err_set(err, SBX_E_NOT_READY, 0, "the sandbox has ended");
	return box->agent;
}

/* ---- answers ---- */

void execd_respond_empty(struct http_request *req)
{
	http_respond(req, 200, NULL, HTTP_NO_TEXT, NULL, 0);
}

void execd_respond_json(struct http_request *req, struct buf *body)
{
	if (body->failed) {
		http_respond_code(req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	http_respond(req, 200, "application/json; charset=utf-8", HTTP_NO_TEXT, buf_peek(body), buf_used(body));
}

/*
 * What failed inside the sandbox is told in full: the path is the client's own, and the errno is the sandbox's.  What
 * failed on our side (SYSTEM, PROTOCOL, NO_MEMORY) is the server's general sentence.
 */
void execd_respond_err(struct http_request *req, const struct sbx_err *err)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (err->code != SBX_E_EXECD_RUNTIME) {
		http_respond_error(req, err);
		return;
	}
	jw_object(&w);
	jw_key_str(&w, "code", sbx_err_api_code(err->code));
	jw_key_str(&w, "message", err->msg);
	jw_object_end(&w);
	http_respond(req, (unsigned)sbx_err_status(err->code), "application/json; charset=utf-8", HTTP_NO_TEXT,
		     body.failed ? "" : buf_peek(&body), buf_used(&body));
}

/* The agent's text is part of a JSON answer and of a log line: printable characters, bounded by sbx_err. */
void execd_end_err(const struct agent_end *end, const char *text, size_t n, struct sbx_err *err)
{
	int len = n < 160 ? (int)n : 160;

	switch ((enum agent_reason)end->reason) {
	case AGENT_FAILED_SYS:
		if (end->sys == ENOENT)
			sbx_err_set(err, SBX_E_EXECD_FILE_NOT_FOUND, 0, "file not found. %.*s", len, text);
		else
			sbx_err_set(err, SBX_E_EXECD_RUNTIME, end->sys > 0 ? end->sys : EIO, "error accessing file: %.*s", len,
				    text);
		return;
	case AGENT_FAILED_START:
		sbx_err_set(err, SBX_E_EXECD_RUNTIME, end->sys > 0 ? end->sys : 0, "start: %.*s", len, text);
		return;
	case AGENT_BAD_REQUEST:
		sbx_err_set(err, SBX_E_EXECD_BODY, 0, "invalid request, validation error: %.*s", len, text);
		return;
	case AGENT_BUSY:
		sbx_err_set(err, SBX_E_LIMIT, 0, "the sandbox serves as many requests as it can; try again");
		return;
	case AGENT_ENDED:
		sbx_err_set(err, SBX_E_NOT_READY, 0, "the sandbox has ended");
		return;
	case AGENT_NO_SUCH_COMMAND:
		sbx_err_set(err, SBX_E_EXECD_COMMAND_NOT_FOUND, 0, "command not found");
		return;
	case AGENT_NOT_RUNNING:
		sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, "the command is not running");
		return;
	case AGENT_OK:
		break;
	}
	sbx_err_set(err, SBX_E_PROTOCOL, 0, "the agent of the sandbox gave no reason");
}

/* ---- queries and ids ---- */

struct http_text execd_query(const struct execd_call *call)
{
	return call->query_len ? (struct http_text){call->query, call->query_len} : HTTP_NO_TEXT;
}

bool execd_query_one(const struct execd_call *call, const char *name, char **ret_value)
{
	int r = http_query_get(execd_query(call), name, ret_value);

	if (r == 0)
		return true;
	if (r == -ENOMEM)
		http_respond_code(call->req, SBX_E_NO_MEMORY, "out of memory");
	else
		http_respond_code(call->req, SBX_E_EXECD_BODY, "query parameter '%s' is not well-formed", name);
	return false;
}

bool execd_query_path(const struct execd_call *call, const char *name, char **ret_value)
{
	if (!execd_query_one(call, name, ret_value))
		return false;
	if (*ret_value && **ret_value)
		return true;
	free(*ret_value);
	*ret_value = NULL;
	http_respond_code(call->req, SBX_E_EXECD_MISSING_QUERY, "missing query parameter '%s'", name);
	return false;
}

int execd_parse_id(const char *text, uint8_t id[16])
{
	static const uint8_t entrypoint[16];
	int r = strlen(text) == EXECD_ID_SIZE - 1 ? hex_decode(text, id, 16) : uuid_parse(text, id);

	/* to the agent this id is the entrypoint, whose end is the sandbox's end: no client may name it */
	return r < 0 || !memcmp(id, entrypoint, sizeof(entrypoint)) ? -EINVAL : 0;
}

/* ---- /ping ---- */

struct ping {
	struct http_request *req;
	struct execd_box *box;
};

static void ping_free(struct ping *p)
{
	execd_box_unref(p->box);
	free(p);
}

static void ping_ready(void *arg, const struct sbx_err *why)
{
	struct ping *p = arg;

	if (why)
		execd_respond_err(p->req, why);
	else
		execd_respond_empty(p->req);
	ping_free(p);
}

static void ping_abort(void *user, struct http_request *req)
{
	struct ping *p = user;

	(void)req;
	if (p->box->agent)
		agent_client_wait_cancel(p->box->agent, p);
	ping_free(p);
}

static void ping(const struct execd_match *match)
{
	static const struct http_request_ops ops = {.flags = HTTP_KEEP_ON_HALF_CLOSE, .abort = ping_abort};
	struct http_request *req = match->call->req;
	struct sbx_err err;

	if (agent_client_attached(match->box->agent)) {
		execd_respond_empty(req);
		return;
	}
	struct ping *p = calloc(1, sizeof(*p));
	if (!p) {
		http_respond_code(req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	*p = (struct ping){.req = req, .box = execd_box_ref(match->box)};
	if (agent_client_wait(match->box->agent, ping_ready, p, &err) < 0) {
		ping_free(p);
		execd_respond_err(req, &err);
		return;
	}
	http_request_accept(req, &ops, p);
}

/* ---- interrupt: the id may be anybody's ---- */

static void interrupt(const struct execd_match *match)
{
	auto_free char *id = NULL;

	if (!execd_query_path(match->call, "id", &id))
		return;
	if (!code_interrupt(match, id) && !session_interrupt(match, id))
		command_interrupt(match);
}

/* ---- what is not offered ---- */

static void no_isolation(const struct execd_match *match)
{
	http_respond_code(match->call->req, SBX_E_EXECD_ISOLATION, "isolated sessions are not offered by this server");
}

/* What is a port at all went elsewhere before it came here. */
static void bad_port(const struct execd_match *match)
{
	const struct execd_call *call = match->call;
	size_t prefix = sizeof("/proxy/") - 1;
	bool named = call->path_len > prefix && call->path[prefix] != '/';

	http_respond_code(call->req, SBX_E_INVALID_PORT, "%s", named ? "the port is not a number" : "port is required");
}

static void capabilities(const struct execd_match *match)
{
	struct buf body = {0};
	struct jw w = {.out = &body};

	jw_object(&w);
	jw_key_bool(&w, "available", false);
	jw_key_str(&w, "isolator", "none");
	jw_key_str(&w, "version", PACKAGE_VERSION);
	jw_key_str(&w, "message", "isolated sessions are not offered by this server");
	jw_key_bool(&w, "setpriv_available", false);
	jw_key_bool(&w, "userns_available", false);
	jw_key_bool(&w, "commit_supported", false);
	jw_key_bool(&w, "diff_supported", false);
	jw_object_end(&w);
	execd_respond_json(match->call->req, &body);
	buf_free(&body);
}

/* ---- routes: "{}" is one segment, "*" the rest; the first row that fits serves ---- */

static const struct execd_route {
	const char *method; /* NULL: any */
	const char *path;
	execd_handler *handler;
} routes[] = {
	{"GET", "/ping", ping},
	{"POST", "/command", command_run},
	{"DELETE", "/command", interrupt},
	{"GET", "/command/status/{}", command_status},
	{"GET", "/command/{}/logs", command_logs},
	{"GET", "/files/info", files_info},
	{"DELETE", "/files", files_delete},
	{"POST", "/files/permissions", files_permissions},
	{"POST", "/files/mv", files_move},
	{"GET", "/files/search", files_search},
	{"POST", "/files/replace", files_replace},
	{"POST", "/files/upload", upload_files},
	{"GET", "/files/download", download_file},
	{"GET", "/directories/list", files_list},
	{"POST", "/directories", files_make_dirs},
	{"DELETE", "/directories", files_remove_dirs},
	{"GET", "/metrics", metrics_get},
	{"GET", "/metrics/watch", metrics_watch},
	{"POST", "/pty", pty_create},
	{"GET", "/pty/{}", pty_get},
	{"DELETE", "/pty/{}", pty_delete},
	{"GET", "/pty/{}/ws", pty_connect},
	{"DELETE", "/code", interrupt},
	{"POST", "/session", session_create},
	{"POST", "/session/{}/run", session_run},
	{"DELETE", "/session/{}", session_delete},
	{"POST", "/code", code_run},
	{"POST", "/code/context", code_context_create},
	{"GET", "/code/contexts", code_context_list},
	{"DELETE", "/code/contexts", code_context_delete_all},
	{"GET", "/code/contexts/{}", code_context_get},
	{"DELETE", "/code/contexts/{}", code_context_delete},
	{"GET", "/v1/isolated/capabilities", capabilities},
	{NULL, "/v1/isolated/*", no_isolation},
	{NULL, "/proxy/*", bad_port},
};

/* Segments of @path are NUL-terminated in place when the row fits; nothing is changed when it does not. */
static bool route_fits(const char *pattern, char *path, const char **params)
{
	size_t n_params = 0;
	char *cut[EXECD_PARAMS_MAX];

	for (; *pattern; pattern++) {
		if (*pattern == '*')
			break;
		if (*pattern != '{') {
			if (*pattern != *path++)
				return false;
			continue;
		}
		size_t n = strcspn(path, "/");
		if (!n || n_params == EXECD_PARAMS_MAX)
			return false;
		params[n_params] = path;
		path += n;
		cut[n_params++] = path;
		pattern++; /* the closing brace */
	}
	if (!*pattern && *path)
		return false;
	for (size_t i = 0; i < n_params; i++)
		*cut[i] = '\0';
	return true;
}

static const struct execd_route *route_find(const struct execd_call *call, char *path, struct execd_match *match)
{
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if ((!routes[i].method || http_request_is(call->req, routes[i].method)) &&
		    route_fits(routes[i].path, path, match->params))
			return &routes[i];
	return NULL;
}

/* "/ping/" is "/ping" in the published server, by way of the client; relative, because we do not know what stands in front. */
static bool redirect(const struct execd_call *call, char *path, struct execd_match *match)
{
	size_t n = strlen(path), last = call->path_len;
	auto_buf target = {0}, headers = {0};

	if (n < 2 || path[n - 1] != '/' || !last || call->path[--last] != '/')
		return false;
	path[n - 1] = '\0';
	if (!route_find(call, path, match))
		return false;
	size_t first = last;
	while (first && call->path[first - 1] != '/')
		first--;
	buf_printf(&target, "../%.*s", (int)(last - first), call->path + first);
	if (call->query_len)
		buf_printf(&target, "?%.*s", (int)call->query_len, call->query);
	if (target.failed || http_header_add(&headers, "Location", buf_peek(&target), buf_used(&target)) < 0)
		return false;
	http_respond(call->req, http_request_is(call->req, "GET") ? 301 : 307, NULL,
		     (struct http_text){buf_peek(&headers), buf_used(&headers)}, NULL, 0);
	return true;
}

void execd_handle(const struct execd_call *call)
{
	struct execd_match match = {.call = call, .box = call->box};
	char path[LIMIT_PATH_BYTES];

	http_response_name_charset(call->req);
	if (call->state != GW_SANDBOX_RUNNING || !call->box || !call->box->agent) {
		http_respond_code(call->req, SBX_E_NOT_READY, "the sandbox is %s",
				  call->state == GW_SANDBOX_PAUSED    ? "paused; resume it first"
				  : call->state == GW_SANDBOX_PENDING ? "not started yet"
				  : call->state == GW_SANDBOX_RUNNING ? "not reachable at the moment"
								      : "not running any more");
		return;
	}
	if (call->box->log)
		request_log_add(call->box->log, call);
	if (http_decode((struct http_text){call->path, call->path_len}, false, path, sizeof(path)) < 0) {
		http_respond_code(call->req, SBX_E_ROUTE_NOT_FOUND, "no such path");
		return;
	}
	const struct execd_route *route = route_find(call, path, &match);
	if (!route) {
		if (!redirect(call, path, &match))
			http_respond_code(call->req, SBX_E_ROUTE_NOT_FOUND, "no such path or method");
		return;
	}
	/* A handler may break the box; its memory stays until the handler is done. */
	execd_box_ref(call->box);
	route->handler(&match);
	execd_box_unref(call->box);
}
