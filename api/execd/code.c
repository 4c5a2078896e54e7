// SPDX-License-Identifier: Apache-2.0
/*
 * Code: contexts and runs.
 *
 *	client                    gateway                      agent
 *	POST /code -------------> EXEC (driver), once -------> interpreter
 *	                          DATA hello <----------------
 *	         init, ping <---- STDIN cell ---------------->
 *	     stdout, stderr <---- DATA, STDOUT, STDERR <------
 *	      count, result <---- DATA <----------------------
 *	[error], complete <------ DATA end <------------------
 *
 * A client that goes away leaves its run running: the context's state is worth more than its output.
 */
#include "api/execd/code_int.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"

#include "api/execd/event_stream.h"

#include <string.h>

#define BAD_BODY "error parsing request, MAYBE invalid body format. "
#define INVALID	 "invalid request, validation error "
#define RUNNING	 "error running codes "

struct ask { /* a request until its body is here */
	struct execd_box *box;
};

static void ask_free(struct ask *ask)
{
	execd_box_unref(ask->box);
	free(ask);
}

static void ask_abort(void *user, struct http_request *req)
{
	(void)req;
	ask_free(user);
}

static void ask_body(const struct execd_match *match, const struct http_request_ops *ops)
{
	struct ask *ask = calloc(1, sizeof(*ask));

	if (!ask) {
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	ask->box = execd_box_ref(match->box);
	http_request_accept(match->call->req, ops, ask);
}

/* "" when it is absent. */
static int get_text(const struct jv *root, const char *name, const char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_find(root, name);

	if (jv_is_set(v) && !jv_str(v))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'%s' is %s, not a string", name, jv_type_name(jv_type(v)));
	*ret = jv_is_set(v) ? jv_str(v) : "";
	return 0;
}

/* These have no contexts. */
static bool is_command(const char *language)
{
	return !strcmp(language, "command") || !strcmp(language, "background-command");
}

static int refuse_language(const char *language, struct sbx_err *err)
{
	if (!strcmp(language, "sql"))
		return sbx_err_set(err, SBX_E_NOT_IMPLEMENTED, 0, RUNNING "language sql is not offered by this server");
	return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, RUNNING "unknown language: %.64s", language);
}

/* ---- POST /code ---- */

static void run_writable(void *user, struct http_request *req)
{
	struct code_run *r = user;

	(void)req;
	code_context_grant(r->context);
}

/* The client is gone; the code goes on. */
static void run_abort(void *user, struct http_request *req)
{
	struct code_run *r = user;

	(void)req;
	r->out.req = NULL;
	r->context->req = NULL;
	loop_timer_disarm(r->out.ping);
	code_context_grant(r->context);
}

static void refuse(struct http_request *req, const struct sbx_err *err)
{
	execd_respond_err(req, err);
}

/* One run at a time: init, and an error that clients know as one to try again after. */
static void respond_busy(struct http_request *req, const struct code_context *c)
{
	static const struct sbx_err busy = {.code = SBX_E_EXECD_RUNTIME, .msg = "session is busy"};
	struct run_stream out = {0};

	if (run_stream_init(&out, c->box->x->loop, req) < 0) {
		http_respond_code(req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	run_stream_begin(&out, c->id);
	run_stream_refuse(&out, &busy);
	run_stream_clear(&out);
}

static void run_in(struct code_context *c, struct http_request *req, const char *code, uint32_t timeout_ms)
{
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.writable = run_writable, .abort = run_abort};

	if (c->run || c->ready) {
		respond_busy(req, c);
		return;
	}
	struct code_run *r = calloc(1, sizeof(*r));
	if (r) {
		r->code = strdup(code);
		r->timeout_ms = timeout_ms;
	}
	if (!r || !r->code || run_stream_init(&r->out, c->box->x->loop, req) < 0) {
		if (r)
			free(r->code);
		free(r);
		http_respond_code(req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	http_request_accept(req, &ops, r);
	code_context_run(c, r);
}

/* The command's own members are read where those of POST /command are. */
static void run_command(struct execd_box *box, struct http_request *req, const struct jv *root, const char *code, bool background)
{
	static const char *const passed[] = {"timeout", "envs"};
	auto_buf body = {0};
	struct jw w = {.out = &body};

	jw_object(&w);
	jw_key_str(&w, "command", code);
	jw_key_bool(&w, "background", background);
	for (size_t i = 0; i < ARRAY_SIZE(passed); i++) {
		const struct jv *v = jv_find(root, passed[i]);

		if (jv_is_set(v)) {
			jw_key(&w, passed[i]);
			jw_value(&w, v);
		}
	}
	jw_object_end(&w);
	if (body.failed)
		http_respond_code(req, SBX_E_NO_MEMORY, "out of memory");
	else
		command_run_json(box, req, buf_peek(&body), buf_used(&body));
}

static struct code_context *standard_context(struct execd_box *box, const char *name, struct sbx_err *err)
{
	if (!strcmp(name, "sql") || !code_language_offered(box, name)) {
		refuse_language(name, err);
		return NULL;
	}
	struct code_context *c = code_context_standard(box, name);
	if (c)
		return c;
	c = code_context_new(box, name, NULL, err);
	if (c)
		c->standard = true;
	return c;
}

static int get_timeout(const struct jv *root, uint32_t *ret_ms, struct sbx_err *err)
{
	const struct jv *timeout = jv_find(root, "timeout");
	int64_t ms = 0;

	if (jv_is_set(timeout) && (jv_i64(timeout, &ms) < 0 || ms < 0))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'timeout' is not a number of milliseconds");
	*ret_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
	return 0;
}

/* An interpreter that runs has its environment. */
static int check_envs(const struct jv *root, struct sbx_err *err)
{
	const struct jv *envs = jv_find(root, "envs");

	if (jv_is_set(envs) && (jv_type(envs) != JV_OBJECT || jv_first(envs)))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'envs' is for commands: a context has the environment that it started with");
	return 0;
}

static int run_request(struct execd_box *box, struct http_request *req, const char *body, size_t n, struct sbx_err *err)
{
	auto_jv root = execd_body_object(body, n, BAD_BODY, err);
	const struct jv *context = jv_find(root, "context");
	const char *code, *id = "", *language = "";
	uint32_t timeout_ms;

	if (!root || get_text(root, "code", &code, err) < 0)
		return -1;
	if (jv_is_set(context) && jv_type(context) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'context' is not an object");
	if (get_text(context, "id", &id, err) < 0 || get_text(context, "language", &language, err) < 0)
		return -1;
	if (!*code)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'code' is required");
	if (!execd_box_agent(box, err) || get_timeout(root, &timeout_ms, err) < 0)
		return -1;
	if (!*id && (!*language || is_command(language))) {
		run_command(box, req, root, code, *language == 'b');
		return 0;
	}
	if (check_envs(root, err) < 0)
		return -1;
	struct code_context *c = *id ? code_context_find(box, id) : standard_context(box, language, err);
	if (!c)
		return *id ? sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, RUNNING "context not found") : -1;
	run_in(c, req, code, timeout_ms);
	return 0;
}

static void run_body(void *user, struct http_request *req, const char *body, size_t n)
{
	struct ask *ask = user;
	struct sbx_err err;

	if (run_request(ask->box, req, body, n, &err) < 0)
		refuse(req, &err);
	ask_free(ask);
}

void code_run(const struct execd_match *match)
{
	static const struct http_request_ops ops = {.whole = run_body, .whole_max = EXECD_CODE_BYTES, .abort = ask_abort};

	ask_body(match, &ops);
}

/* ---- contexts ---- */

static void put_context(struct jw *w, const struct code_context *c, bool with_cwd)
{
	jw_object(w);
	jw_key_str(w, "id", c->id);
	jw_key_str(w, "language", c->language->name);
	if (with_cwd)
		jw_key_str(w, "cwd", c->cwd);
	jw_object_end(w);
}

static void respond_context(struct http_request *req, const struct code_context *c, bool with_cwd)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};

	put_context(&w, c, with_cwd);
	execd_respond_json(req, &body);
}

struct creation {
	struct http_request *req; /* NULL: the client is gone */
	struct code_context *context;
};

static void creation_ready(void *arg, const struct sbx_err *err)
{
	struct creation *c = arg;

	/* whose id nobody knows */
	if (err || !c->req)
		code_context_remove(c->context, c->req);
	if (c->req && err)
		refuse(c->req, err);
	else if (c->req)
		respond_context(c->req, c->context, true);
	free(c);
}

static void creation_abort(void *user, struct http_request *req)
{
	struct creation *c = user;

	(void)req;
	c->req = NULL;
	c->context->req = NULL;
}

static int create_request(struct execd_box *box, struct http_request *req, const char *body, size_t n, struct sbx_err *err)
{
	static const struct http_request_ops ops = {.flags = HTTP_KEEP_ON_HALF_CLOSE, .abort = creation_abort};
	auto_jv root = execd_body_object(body, n, BAD_BODY, err);
	const char *name, *cwd;

	if (!root || get_text(root, "language", &name, err) < 0 || get_text(root, "cwd", &cwd, err) < 0)
		return -1;
	if (!*name)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'language' is required");
	if (strlen(cwd) >= LIMIT_PATH_BYTES)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'cwd' is longer than %u bytes", LIMIT_PATH_BYTES - 1);
	if (is_command(name))
		return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, "unsupported language context operation: %s", name);
	if (!strcmp(name, "sql") || !code_language_offered(box, name))
		return refuse_language(name, err);
	if (!execd_box_agent(box, err))
		return -1;
	struct creation *creation = calloc(1, sizeof(*creation));
	struct code_context *c = creation ? code_context_new(box, name, cwd, err) : NULL;
	if (!c) {
		if (!creation)
			sbx_err_set(err, SBX_E_NO_MEMORY, 0, "code context");
		free(creation);
		return -1;
	}
	*creation = (struct creation){.req = req, .context = c};
	c->ready = creation_ready;
	c->ready_arg = creation;
	http_request_accept(req, &ops, creation);
	code_context_start(c, req);
	return 0;
}

static void create_body(void *user, struct http_request *req, const char *body, size_t n)
{
	struct ask *ask = user;
	struct sbx_err err;

	if (create_request(ask->box, req, body, n, &err) < 0)
		refuse(req, &err);
	ask_free(ask);
}

void code_context_create(const struct execd_match *match)
{
	static const struct http_request_ops ops = {
		.whole = create_body, .whole_max = EXECD_BODY_BYTES, .abort = ask_abort};

	ask_body(match, &ops);
}

/* The `language` parameter.  Return: false with the request answered. */
static bool get_filter(const struct execd_match *match, bool required, char **ret)
{
	bool good = required ? execd_query_path(match->call, "language", ret) : execd_query_one(match->call, "language", ret);
	struct sbx_err err;

	if (good && *ret && (is_command(*ret) || !strcmp(*ret, "sql"))) {
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "unsupported language context operation: %s", *ret);
		execd_respond_err(match->call->req, &err);
		free(take_ptr(*ret));
		return false;
	}
	return good;
}

void code_context_list(const struct execd_match *match)
{
	auto_free char *filter = NULL;
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (!get_filter(match, false, &filter))
		return;
	jw_array(&w);
	for (const struct code_context *c = match->box->contexts; c; c = c->next)
		if (!c->ready && (!filter || !*filter || !strcmp(filter, c->language->name)))
			put_context(&w, c, false);
	jw_array_end(&w);
	execd_respond_json(match->call->req, &body);
}

void code_context_delete_all(const struct execd_match *match)
{
	auto_free char *filter = NULL;

	if (!get_filter(match, true, &filter))
		return;
	for (struct code_context *c = match->box->contexts, *next; c; c = next) {
		next = c->next;
		if (!strcmp(filter, c->language->name))
			code_context_remove(c, match->call->req);
	}
	execd_respond_empty(match->call->req);
}

static struct code_context *find_or_refuse(const struct execd_match *match)
{
	struct code_context *c = code_context_find(match->box, match->params[0]);

	if (!c)
		http_respond_code(match->call->req, SBX_E_EXECD_CONTEXT_NOT_FOUND, "context %.64s not found", match->params[0]);
	return c;
}

void code_context_get(const struct execd_match *match)
{
	struct code_context *c = find_or_refuse(match);

	if (c)
		respond_context(match->call->req, c, false);
}

void code_context_delete(const struct execd_match *match)
{
	struct code_context *c = find_or_refuse(match);

	if (!c)
		return;
	code_context_remove(c, match->call->req);
	execd_respond_empty(match->call->req);
}

bool code_interrupt(const struct execd_match *match, const char *id)
{
	struct code_context *c = code_context_find(match->box, id);

	if (!c)
		return false;
	code_context_interrupt(c, match->call->req);
	execd_respond_empty(match->call->req);
	return true;
}
