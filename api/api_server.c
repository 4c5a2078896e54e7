// SPDX-License-Identifier: Apache-2.0
#include "api/api_server.h"

#include "api/auth.h"
#include "api/call.h"
#include "api/dispatch.h"
#include "api/egress_api.h"
#include "api/endpoint.h"
#include "api/gw_server.h"
#include "api/images_commit.h"
#include "api/images_gc.h"
#include "api/images_import.h"
#include "api/images_pull.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/num.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "runtime/sandbox.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* When a sandbox was last renewed by an access; a slot of the table is lost to another sandbox without harm. */
#define RENEWED_MAX 8192u

struct renewed {
	uint8_t id[16];
	uint64_t mono_ms; /* 0: never */
};

struct api_server {
	struct api_context context;
	struct renewed *renewed; /* owned, RENEWED_MAX; NULL: renew on access is off */
	struct gw_server *channel;
	struct images_imports *imports;
};

/* An answer that is still to be given: where it goes.  It outlives the connection and, at the end, the server. */
struct pending {
	struct gw_conn *conn; /* counted */
	uint64_t tag;
};

static struct pending *pending_new(struct gw_conn *conn, uint64_t tag)
{
	struct pending *p = malloc(sizeof(*p));

	if (p)
		*p = (struct pending){.conn = gw_conn_ref(conn), .tag = tag};
	return p;
}

static void pending_free(struct pending *p)
{
	gw_conn_unref(p->conn);
	free(p);
}

static struct http_text text_of(const char *s)
{
	return (struct http_text){s, strlen(s)};
}

/* Views for gw_conn_send(): content type, headers, body. */
static void answer_strings(const struct api_answer *answer, struct http_text out[GW_REPLY_STRINGS])
{
	out[GW_REPLY_CONTENT_TYPE] = text_of(answer->content_type);
	out[GW_REPLY_HEADERS] = text_of(answer->headers);
	out[GW_REPLY_BODY] = (struct http_text){answer->body, answer->body_len};
}

/* ---- lifecycle requests ---- */

static void http_answer(void *arg, const struct api_answer *answer)
{
	struct pending *p = arg;
	struct gw_http_reply reply = {.head = {.kind = GW_HTTP_REPLY, .tag = p->tag}, .status = answer->status,
				      .stream_bytes = answer->stream_bytes};
	struct http_text strings[GW_REPLY_STRINGS];

	answer_strings(answer, strings);
	gw_conn_send(p->conn, &reply.head, sizeof(reply), strings, GW_REPLY_STRINGS, &answer->stream_fd, answer->stream_fd > 0 ? 1 : 0);
	pending_free(p);
}

static void renew_on_access(struct api_server *server, const struct sandbox *s);

static void on_http(struct api_server *server, struct gw_conn *conn, const struct gw_http *msg, const struct http_text *strings)
{
	struct pending *p = pending_new(conn, msg->head.tag);
	const struct api_request request = {
		.method = strings[GW_HTTP_METHOD],
		.target = strings[GW_HTTP_TARGET],
		.host = strings[GW_HTTP_HOST],
		.origin = strings[GW_HTTP_ORIGIN],
		.api_key = strings[GW_HTTP_API_KEY],
		.content_type = strings[GW_HTTP_CONTENT_TYPE],
		.request_id = strings[GW_HTTP_REQUEST_ID],
		.client = strings[GW_HTTP_CLIENT],
		.accept = strings[GW_HTTP_ACCEPT],
		.last_event_id = strings[GW_HTTP_LAST_EVENT_ID],
		.sandbox = strings[GW_HTTP_SANDBOX],
		.egress_token = strings[GW_HTTP_EGRESS_TOKEN],
		.body = strings[GW_HTTP_BODY],
		.has_api_key = msg->flags & GW_HTTP_HAS_API_KEY,
		.unix_peer = msg->flags & GW_HTTP_UNIX_PEER,
	};

	if (!p) {
		log_error("out of memory: a request is not answered");
	} else if (msg->flags & GW_HTTP_EGRESS) {
		const struct sandbox *s = egress_api(&server->context, &request, http_answer, p);

		if (s)
			renew_on_access(server, s);
	} else {
		dispatch(&server->context, &request, http_answer, p);
	}
}

/* ---- renew on access ---- */

/* After every request to a sandbox that asked for it: its expiry becomes at least now + what it asked for. */
static void renew_on_access(struct api_server *server, const struct sandbox *s)
{
	uint64_t now = loop_now_ms(server->context.loop);
	uint32_t hash;
	struct sbx_err err = {0};

	if (!server->renewed || s->state != SANDBOX_RUNNING || !s->expires_wall_usec || !s->spec.renew_extend_s)
		return;
	memcpy(&hash, s->id, sizeof(hash)); /* ids are random */
	struct renewed *last = &server->renewed[hash % RENEWED_MAX];
	bool same = last->mono_ms && !memcmp(last->id, s->id, sizeof(last->id));
	if (same && now - last->mono_ms < (uint64_t)server->context.settings->renew_intent_min_interval_seconds * 1000)
		return;
	int64_t expires_wall_usec = wall_usec() + (int64_t)s->spec.renew_extend_s * 1000000;
	if (expires_wall_usec <= s->expires_wall_usec)
		return;
	if (!sandbox_renew(server->context.manager, s->id, expires_wall_usec, &err)) {
		log_warn("renew on access: sandbox %s: %s", s->id_text, err.msg);
		return;
	}
	memcpy(last->id, s->id, sizeof(last->id));
	last->mono_ms = now;
	log_debug("sandbox %s: renewed by an access", s->id_text);
}

static void on_access(struct api_server *server, struct gw_conn *conn, const struct gw_stat *msg)
{
	struct gw_access_reply reply = {.head = {.kind = GW_ACCESS_REPLY, .tag = msg->head.tag}};
	struct sbx_err err = {0};
	const struct sandbox *s = sandbox_find(server->context.manager, msg->sandbox_id, &err);

	if (s)
		renew_on_access(server, s);
	gw_conn_send(conn, &reply.head, sizeof(reply), NULL, 0, NULL, 0);
}

/* ---- GW_OPEN ---- */

static enum gw_sandbox_state gateway_state(enum sandbox_state state)
{
	switch (state) {
	case SANDBOX_PENDING:
		return GW_SANDBOX_PENDING;
	case SANDBOX_RUNNING:
		return GW_SANDBOX_RUNNING;
	case SANDBOX_PAUSING:
	case SANDBOX_PAUSED:
	case SANDBOX_RESUMING:
		/* a call that comes in between might be answered or not: say so at once instead */
		return GW_SANDBOX_PAUSED;
	case SANDBOX_STOPPING:
	case SANDBOX_TERMINATED:
	case SANDBOX_FAILED:
	case SANDBOX_NONE:
	case SANDBOX_STATE_COUNT:
	default:
		return GW_SANDBOX_ENDED;
	}
}

struct opening {
	struct pending *answer;
	struct api_server *server; /* only used while the connection is open, and it is closed before the server goes */
	struct gw_open_reply reply;
	char *log_file;	 /* owned */
	int fds[2];	 /* owned; PORT: what came so far */
	size_t n_fds;
};

static void opening_free(struct opening *o)
{
	for (size_t i = 0; i < o->n_fds; i++)
		close(o->fds[i]);
	pending_free(o->answer);
	free(o->log_file);
	free(o);
}

static void send_open(struct gw_conn *conn, struct gw_open_reply *reply, const struct sbx_err *err, const char *log_file,
		      const int *fds, size_t n_fds)
{
	const char *message = err ? err->msg : "";
	struct http_text strings[GW_OPENED_STRINGS] = {
		[GW_OPENED_CODE] = text_of(err ? sbx_err_api_code(err->code) : ""),
		[GW_OPENED_MESSAGE] = text_of(message[0] || !err ? message : sbx_err_meaning(err->code)),
		[GW_OPENED_LOG_FILE] = text_of(log_file ? log_file : ""),
	};

	reply->head.kind = GW_OPEN_REPLY;
	reply->status = err ? (uint32_t)sbx_err_status(err->code) : 200;
	gw_conn_send(conn, &reply->head, sizeof(*reply), strings, GW_OPENED_STRINGS, fds, n_fds);
}

static const struct sbx_err no_descriptor = {.code = SBX_E_PROTOCOL, .msg = "the broker's reply carries no descriptor"};

static void opened_exec(void *arg, const int *fds, size_t n, const struct sbx_err *err)
{
	struct opening *o = arg;

	if (!err->code && n != 2 && n != 4)
		err = &no_descriptor;
	send_open(o->answer->conn, &o->reply, err->code ? err : NULL, o->log_file, fds, err->code ? 0 : n);
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	opening_free(o);
}

static void opened_inet6(void *arg, const int *fds, size_t n, const struct sbx_err *err)
{
	struct opening *o = arg;

	/* a kernel without IPv6 is no reason to refuse the port: the first socket is there */
	for (size_t i = 0; i < n; i++) {
		if (!err->code && o->n_fds < ARRAY_SIZE(o->fds))
			o->fds[o->n_fds++] = fds[i];
		else
			close(fds[i]);
	}
	send_open(o->answer->conn, &o->reply, NULL, "", o->fds, o->n_fds);
	opening_free(o);
}

static void opened_inet(void *arg, const int *fds, size_t n, const struct sbx_err *err)
{
	struct opening *o = arg;

	if (err->code || !n || !gw_conn_is_open(o->answer->conn)) {
		send_open(o->answer->conn, &o->reply, err->code ? err : &no_descriptor, "", NULL, 0);
		for (size_t i = 0; i < n; i++)
			close(fds[i]);
		opening_free(o);
		return;
	}
	o->fds[o->n_fds++] = fds[0];
	for (size_t i = 1; i < n; i++)
		close(fds[i]);
	sandbox_open_socket(o->server->context.manager, o->reply.sandbox_id, AF_INET6, opened_inet6, o);
}

/* The texts that a client sees when it calls a sandbox that cannot answer. */
static int check_running(const struct sandbox *s, struct sbx_err *err)
{
	const char *why;

	switch (gateway_state(s->state)) {
	case GW_SANDBOX_RUNNING:
		return 0;
	case GW_SANDBOX_PENDING:
		why = "is still being made";
		break;
	case GW_SANDBOX_PAUSED:
		why = "is paused";
		break;
	case GW_SANDBOX_ENDED:
	case GW_SANDBOX_GONE:
	default:
		why = "has ended";
		break;
	}
	return sbx_err_set(err, SBX_E_NOT_READY, 0, "sandbox %s %s (%s)", s->id_text, why, sandbox_state_name(s->state));
}

static int open_check(struct api_server *server, const struct gw_open *msg, const struct http_text *strings,
		      struct gw_open_reply *reply, const struct sandbox **ret, struct sbx_err *err)
{
	const struct auth_credentials who = {
		.api_key = strings[GW_OPEN_API_KEY],
		.execd_token = strings[GW_OPEN_EXECD_TOKEN],
		.has_api_key = msg->flags & GW_HTTP_HAS_API_KEY,
		.unix_peer = msg->flags & GW_HTTP_UNIX_PEER,
	};
	char id_text[UUID_SIZE];
	uint8_t id[16];

	reply->state = GW_SANDBOX_GONE;
	/* a route of the lifecycle API: nothing is said before the key is seen */
	if (msg->what == GW_OPEN_LOGS && auth_lifecycle(&server->context, &who, NULL, err) < 0)
		return -1;
	if (strings[GW_OPEN_ID].len != UUID_SIZE - 1)
		return sbx_err_set(err, SBX_E_SANDBOX_NOT_FOUND, 0, "no sandbox has this id");
	memcpy(id_text, strings[GW_OPEN_ID].data, UUID_SIZE - 1);
	id_text[UUID_SIZE - 1] = '\0';
	if (uuid_parse(id_text, id) < 0)
		return sbx_err_set(err, SBX_E_SANDBOX_NOT_FOUND, 0, "no sandbox has this id");
	const struct sandbox *s = sandbox_find(server->context.manager, id, err);
	if (!s)
		return -1;
	memcpy(reply->sandbox_id, s->id, sizeof(reply->sandbox_id));
	reply->generation = s->generation;
	reply->state = gateway_state(s->state);
	reply->addr = s->addr;
	*ret = s;
	if (msg->what == GW_OPEN_EXEC)
		return auth_exec(&server->context, s, &who, err) < 0 ? -1 : check_running(s, err);
	if (msg->what == GW_OPEN_LOGS) {
		/* the agent lives on after the entrypoint, until the sandbox is removed */
		if (reply->state == GW_SANDBOX_ENDED && s->state != SANDBOX_STOPPING)
			return 0;
		return check_running(s, err);
	}
	if (msg->what == GW_OPEN_INSIDE && auth_exec(&server->context, s, &who, err) < 0)
		return -1;
	if ((msg->what != GW_OPEN_PORT && msg->what != GW_OPEN_INSIDE) || msg->port < 1 || msg->port > UINT16_MAX)
		return sbx_err_set(err, SBX_E_INVALID_PORT, 0, "the port %u is outside of 1 to 65535", msg->port);
	/* these two are answered outside: nothing inside may pose as them */
	if (msg->port == ENDPOINT_PORT_EXEC || msg->port == ENDPOINT_PORT_EGRESS)
		return sbx_err_set(err, SBX_E_INVALID_PORT, 0, "the port %u is not a service of the sandbox", msg->port);
	return check_running(s, err);
}

static void on_open(struct api_server *server, struct gw_conn *conn, const struct gw_open *msg, const struct http_text *strings)
{
	struct gw_open_reply reply = {.head = {.tag = msg->head.tag}};
	const struct sandbox *s = NULL;
	struct sbx_err err = {0};

	if (open_check(server, msg, strings, &reply, &s, &err) < 0) {
		send_open(conn, &reply, &err, "", NULL, 0);
		return;
	}
	if (msg->what != GW_OPEN_LOGS)
		renew_on_access(server, s);
	struct opening *o = calloc(1, sizeof(*o));
	struct pending *p = pending_new(conn, msg->head.tag);
	char *log_file = strdup(s->log_file ? s->log_file : "");
	if (!o || !p || !log_file) {
		free(o);
		if (p)
			pending_free(p);
		free(log_file);
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "out of memory");
		send_open(conn, &reply, &err, "", NULL, 0);
		return;
	}
	*o = (struct opening){.answer = p, .server = server, .reply = reply, .log_file = log_file};
	if (msg->what == GW_OPEN_EXEC || msg->what == GW_OPEN_LOGS)
		sandbox_open_exec(server->context.manager, s->id, opened_exec, o);
	else
		sandbox_open_socket(server->context.manager, s->id, AF_INET, opened_inet, o);
}

/* ---- GW_STAT ---- */

static void stat_done(void *arg, const struct sandbox_figures *f, const struct sbx_err *err)
{
	struct pending *p = arg;
	struct gw_stat_reply reply = {.head = {.kind = GW_STAT_REPLY, .tag = p->tag}, .status = 200};

	if (err->code || !f) {
		reply.status = (uint32_t)sbx_err_status(err->code);
	} else {
		reply.pids = f->pids;
		reply.memory_bytes = f->memory_bytes;
		reply.memory_limit_bytes = f->memory_limit_bytes;
		reply.cpu_usec = f->cpu_usec;
		reply.cpu_millicores = f->cpu_millicores;
		reply.mono_usec = f->mono_usec;
		reply.disk_used_bytes = f->disk_used_bytes;
		reply.disk_limit_bytes = f->disk_limit_bytes;
	}
	gw_conn_send(p->conn, &reply.head, sizeof(reply), NULL, 0, NULL, 0);
	pending_free(p);
}

static void on_stat(struct api_server *server, struct gw_conn *conn, const struct gw_stat *msg)
{
	struct pending *p = pending_new(conn, msg->head.tag);

	if (p)
		sandbox_stat(server->context.manager, msg->sandbox_id, stat_done, p);
	else
		log_error("out of memory: a request is not answered");
}

/* ---- GW_IMPORT ---- */

static void send_import(struct gw_conn *conn, struct gw_import_reply *reply, const struct api_answer *answer, int fd)
{
	struct http_text strings[GW_REPLY_STRINGS];

	answer_strings(answer, strings);
	reply->head.kind = GW_IMPORT_REPLY;
	reply->status = answer->status;
	gw_conn_send(conn, &reply->head, sizeof(*reply), strings, GW_REPLY_STRINGS, &fd, fd >= 0 ? 1 : 0);
}

static void send_import_error(struct gw_conn *conn, uint64_t tag, const struct sbx_err *err)
{
	struct gw_import_reply reply = {.head = {.tag = tag}};
	struct api_answer answer;
	auto_buf body = {0};

	api_error_answer(err, &body, &answer);
	send_import(conn, &reply, &answer, -1);
}

static void import_answer(void *arg, const struct api_answer *answer)
{
	struct pending *p = arg;
	struct gw_import_reply reply = {.head = {.tag = p->tag}};

	send_import(p->conn, &reply, answer, answer->stream_fd > 0 ? answer->stream_fd : -1);
	pending_free(p);
}

static void import_begin(struct api_server *server, struct gw_conn *conn, const struct gw_import *msg,
			 const struct http_text *strings)
{
	const struct auth_credentials who = {.api_key = strings[GW_IMPORT_API_KEY],
					     .has_api_key = msg->flags & GW_HTTP_HAS_API_KEY,
					     .unix_peer = msg->flags & GW_HTTP_UNIX_PEER};
	struct http_text target = strings[GW_IMPORT_TARGET], query = HTTP_NO_TEXT;
	const struct api_answer ready = {.status = 200, .content_type = "", .headers = "", .body = ""};
	struct gw_import_reply reply = {.head = {.tag = msg->head.tag}};
	struct sbx_err err = {0};
	auto_fd fd = -1;

	if (auth_lifecycle(&server->context, &who, NULL, &err) < 0) {
		send_import_error(conn, msg->head.tag, &err);
		return;
	}
	const char *mark = target.len ? memchr(target.data, '?', target.len) : NULL;
	if (mark)
		query = (struct http_text){mark + 1, target.len - (size_t)(mark + 1 - target.data)};
	struct images_import *import = images_import_begin(server->imports, query, conn, &fd, &err);
	if (!import) {
		send_import_error(conn, msg->head.tag, &err);
		return;
	}
	reply.handle = images_import_handle(import);
	reply.max_bytes = images_import_max_bytes(import);
	send_import(conn, &reply, &ready, fd);
}

static void on_import(struct api_server *server, struct gw_conn *conn, const struct gw_import *msg, const struct http_text *strings)
{
	struct sbx_err err = {0};

	if (msg->state == 0) {
		import_begin(server, conn, msg, strings);
		return;
	}
	struct images_import *import = images_import_find(server->imports, msg->handle, conn);
	if (!import) {
		sbx_err_set(&err, SBX_E_PROTOCOL, 0, "import: no such handle");
		send_import_error(conn, msg->head.tag, &err);
		return;
	}
	if (msg->state != 1) {
		images_import_drop(import);
		return;
	}
	struct pending *p = pending_new(conn, msg->head.tag);
	if (!p) {
		images_import_drop(import);
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "import");
		send_import_error(conn, msg->head.tag, &err);
		return;
	}
	images_import_done(import, import_answer, p);
}

/* ---- GW_PULL ---- */

static void on_pull(struct api_server *server, struct gw_conn *conn, const struct gw_pull *msg, const struct http_text *strings)
{
	const struct auth_credentials who = {.api_key = strings[GW_PULL_API_KEY],
					     .has_api_key = msg->flags & GW_HTTP_HAS_API_KEY,
					     .unix_peer = msg->flags & GW_HTTP_UNIX_PEER};
	struct gw_http_reply reply = {.head = {.kind = GW_PULL_REPLY, .tag = msg->head.tag}};
	struct api_answer answer = {.status = 200, .content_type = "", .headers = "", .body = ""};
	struct http_text texts[GW_REPLY_STRINGS], body = strings[GW_PULL_BODY];
	struct sbx_err err = {0};
	auto_buf error = {0};
	auto_fd fd = -1;

	if (auth_lifecycle(&server->context, &who, NULL, &err) < 0 ||
	    images_pull_begin(&server->context, body.data, body.len, &fd, &err) < 0)
		api_error_answer(&err, &error, &answer);
	answer_strings(&answer, texts);
	reply.status = answer.status;
	gw_conn_send(conn, &reply.head, sizeof(reply), texts, GW_REPLY_STRINGS, &fd, fd >= 0 ? 1 : 0);
}

/* ---- wiring ---- */

static void on_message(void *arg, struct gw_conn *conn, const struct gw_head *head, const struct http_text *strings)
{
	struct api_server *server = arg;
	const void *msg = head;

	/* gw_server has checked that the struct of the kind is there */
	switch ((enum gw_kind)head->kind) {
	case GW_HTTP:
		on_http(server, conn, msg, strings);
		break;
	case GW_OPEN:
		on_open(server, conn, msg, strings);
		break;
	case GW_STAT:
		on_stat(server, conn, msg);
		break;
	case GW_IMPORT:
		on_import(server, conn, msg, strings);
		break;
	case GW_PULL:
		on_pull(server, conn, msg, strings);
		break;
	case GW_ACCESS:
		on_access(server, conn, msg);
		break;
	case GW_NONE:
	case GW_HELLO:
	case GW_HELLO_REPLY:
	case GW_HTTP_REPLY:
	case GW_OPEN_REPLY:
	case GW_STATE:
	case GW_STAT_REPLY:
	case GW_IMPORT_REPLY:
	case GW_ACCESS_REPLY:
	case GW_PULL_REPLY:
	case GW_KIND_COUNT:
	default:
		break;
	}
}

static void on_closed(void *arg, struct gw_conn *conn)
{
	struct api_server *server = arg;

	images_imports_drop_owner(server->imports, conn);
}

void api_server_changed(void *arg, const struct sandbox *sandbox, bool gone)
{
	struct api_server *server = arg;
	struct gw_state msg = {.head = {.kind = GW_STATE}, .generation = sandbox->generation};

	if (!server)
		return;
	memcpy(msg.sandbox_id, sandbox->id, sizeof(msg.sandbox_id));
	msg.state = gone ? GW_SANDBOX_GONE : gateway_state(sandbox->state);
	gw_server_broadcast(server->channel, &msg.head, sizeof(msg));
}

struct api_server *api_server_new(const struct api_server_config *config, struct sbx_err *err)
{
	struct api_server *server = calloc(1, sizeof(*server));
	struct gw_server_hooks hooks = {.arg = server, .message = on_message, .closed = on_closed};

	if (!server) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "api server");
		return NULL;
	}
	server->context = (struct api_context){
		.loop = config->loop,
		.settings = config->settings,
		.manager = config->manager,
		.images = config->images,
		.pulls = config->pulls,
		.blobs = config->blobs,
		.broker = config->broker,
		.events = config->events,
		.api_key = config->api_key ? config->api_key : "",
		.insecure = config->insecure,
		.state_dir_fd = config->state_dir_fd,
	};
	hooks.hello_flags = (server->context.api_key[0] ? GW_HELLO_KEY_REQUIRED : 0u) | (config->insecure ? GW_HELLO_INSECURE : 0u);
	if (config->settings->renew_intent_enabled) {
		hooks.hello_flags |= GW_HELLO_ACCESS;
		server->renewed = calloc(RENEWED_MAX, sizeof(*server->renewed));
		if (!server->renewed) {
			free(server);
			sbx_err_set(err, SBX_E_NO_MEMORY, 0, "api server");
			return NULL;
		}
	}
	server->imports = images_imports_new(&server->context, err);
	server->context.imports = server->imports;
	if (server->imports)
		server->context.commits = images_commits_new(&server->context, err);
	if (server->context.commits)
		server->context.gc = images_gc_new(&server->context, err);
	if (server->context.gc)
		server->channel = gw_server_new(config->loop, config->control_fd, config->gateway_uid, &hooks, err);
	if (!server->channel) {
		images_gc_free(server->context.gc);
		images_commits_free(server->context.commits);
		images_imports_free(server->imports);
		free(server->renewed);
		free(server);
		return NULL;
	}
	images_pull_serve(&server->context);
	return server;
}

void api_server_pull_ended(struct api_server *server)
{
	if (server)
		images_gc_look(server->context.gc);
}

void api_server_free(struct api_server *server)
{
	if (!server)
		return;
	images_pull_serve(NULL);
	gw_server_free(server->channel);
	images_gc_free(server->context.gc);
	images_commits_free(server->context.commits);
	images_imports_free(server->imports);
	free(server->renewed);
	free(server);
}
