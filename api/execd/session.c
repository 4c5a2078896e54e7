// SPDX-License-Identifier: Apache-2.0
/*
 * Bash sessions.  A session is its state (shell_state.h) and the runs that wait for it; runs of one session follow each
 * other in the order in which they came.
 *
 *	client                    gateway                       agent
 *	POST /session/{id}/run -> EXEC (driver) --------------> bash, state and command
 *	         init, ping <---- STARTED <-------------------
 *	             stdout <---- STDOUT <-------------------- lines of both outputs
 *	                          DATA <---------------------- state, when the shell exits
 *	  complete or error <---- EXIT <----------------------
 *
 * A client that goes away ends its run, and so does DELETE; the state from before the run stays.
 */
#include "api/execd/event_stream.h"
#include "api/execd/execd_int.h"
#include "api/execd/line_split.h"
#include "api/execd/run_stream.h"
#include "api/execd/shell_state.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/num.h"

#include <errno.h>
#include <string.h>

#define MAX_SESSIONS	   64u
/* Of all sessions of one sandbox: what the gateway keeps for it. */
#define STATES_BYTES	   (4u * 1024 * 1024)
#define MAX_WAITING	   16u
#define START_MS	   30000u
#define SESSION_TIMEOUT_MS 86400000u /* when none is asked for */
#define INTERRUPT_MS	   15000u
#define BAD_BODY	   "error parsing request. "
#define INVALID		   "invalid request. "
#define NO_SUCH_SESSION	   "error running in session. context not found" /* the published text */

struct session_run {
	struct session *session; /* NULL once it was deleted */
	struct execd_box *box;
	struct session_run *next; /* that waits behind this one */
	struct run_stream out;
	struct agent_stream *stream; /* NULL while it waits */
	uint8_t id[AGENT_ID_BYTES];
	char *command, *cwd; /* owned; cwd NULL: none */
	uint32_t timeout_ms;
	struct shell_dump dump;
	struct line_split lines;
	int64_t now_ms;
	size_t not_granted;
};

struct session {
	struct execd_box *box; /* owns us */
	struct session *next;
	char id[UUID_SIZE];
	char *cwd; /* owned; NULL: the sandbox's */
	struct shell_state state;
	struct session_run *runs; /* the first one runs, the others wait */
};

static void start_next(struct session *s);

/* ---- sessions ---- */

static struct session *session_find(const struct execd_box *box, const char *id)
{
	for (struct session *s = box->sessions; s; s = s->next)
		if (!strcmp(s->id, id))
			return s;
	return NULL;
}

static void session_free(struct session *s)
{
	shell_state_clear(&s->state);
	free(s->cwd);
	free(s);
}

static void session_unlink(struct session *s)
{
	for (struct session **at = &s->box->sessions; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			s->box->n_sessions--;
			return;
		}
}

/* The last used is the first in the list. */
static void session_used(struct session *s)
{
	struct session **at = &s->box->sessions;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	s->next = s->box->sessions;
	s->box->sessions = s;
}

/* Of those in which nothing runs the one that was used before all others; NULL: there is none. */
static struct session *session_oldest(const struct execd_box *box)
{
	struct session *oldest = NULL;

	for (struct session *s = box->sessions; s; s = s->next)
		if (!s->runs)
			oldest = s;
	return oldest;
}

static size_t states_bytes(const struct execd_box *box)
{
	size_t sum = 0;

	for (const struct session *s = box->sessions; s; s = s->next)
		sum += buf_used(&s->state.text);
	return sum;
}

void session_free_all(struct execd_box *box)
{
	for (struct session *s; (s = box->sessions);) {
		box->sessions = s->next;
		box->n_sessions--;
		/* runs were answered when their streams were lost */
		session_free(s);
	}
}

/* ---- a run ---- */

/* Answered or abandoned; the next one of the session begins. */
static void run_free(struct session_run *r)
{
	struct session *s = r->session;

	for (struct session_run **at = s ? &s->runs : NULL; at && *at; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	run_stream_clear(&r->out);
	shell_dump_clear(&r->dump);
	line_split_clear(&r->lines);
	free(r->command);
	free(r->cwd);
	execd_box_unref(r->box);
	free(r);
	if (s)
		start_next(s);
}

static void line_to_event(void *arg, const char *line, size_t n)
{
	struct session_run *r = arg;

	event_line(&r->out.events, "stdout", line, n, r->now_ms);
}

static void flush_lines(struct session_run *r)
{
	r->now_ms = run_stream_now_ms();
	line_split_finish(&r->lines, line_to_event, r);
}

static void run_started(void *arg, const struct agent_started *started)
{
	struct session_run *r = arg;

	(void)started;
	agent_stream_deadline(r->stream, 0);
	run_stream_begin(&r->out, r->session->id);
	run_stream_send(&r->out);
}

/* What is being told by all shells of one sandbox at this moment. */
static size_t dumps_bytes(const struct execd_box *box)
{
	size_t sum = 0;

	for (const struct session *s = box->sessions; s; s = s->next)
		sum += s->runs ? buf_used(&s->runs->dump.text) : 0;
	return sum;
}

static void run_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct session_run *r = arg;

	if (type == AGENT_DATA) {
		if (dumps_bytes(r->box) + n > STATES_BYTES)
			r->dump.too_large = true;
		else
			shell_dump_add(&r->dump, data, n);
		agent_stream_grant(r->stream, n);
		return;
	}
	r->now_ms = run_stream_now_ms();
	line_split_feed(&r->lines, (const char *)data, n, line_to_event, r);
	if (!run_stream_send(&r->out)) {
		agent_stream_detach(r->stream);
		run_free(r);
		return;
	}
	r->not_granted += n;
	if (!run_stream_full(&r->out)) {
		agent_stream_grant(r->stream, r->not_granted);
		r->not_granted = 0;
	}
}

static void run_writable(void *user, struct http_request *req)
{
	struct session_run *r = user;

	(void)req;
	if (!r->stream)
		return;
	agent_stream_grant(r->stream, r->not_granted);
	r->not_granted = 0;
}

static void keep_state(struct session_run *r, int code)
{
	struct session *s = r->session;
	static const char note[] = "the state of this session became too large: the one from before this run stays";
	size_t others = states_bytes(s->box) - buf_used(&s->state.text);

	if (others + buf_used(&r->dump.text) > STATES_BYTES)
		r->dump.too_large = true;
	if (!shell_state_take(&s->state, &r->dump, code))
		event_line(&r->out.events, "stderr", note, sizeof(note) - 1, run_stream_now_ms());
}

static void put_end(struct session_run *r, const struct agent_exit *result)
{
	char value[16], text[64];
	int64_t now = run_stream_now_ms();

	if (result->flags & AGENT_EXIT_TIMEOUT) {
		snprintf(text, sizeof(text), "timeout after %ums", r->timeout_ms);
		event_error(&r->out.events, "CommandExecError", "-1", text, now);
	} else if (!result->code && !result->signal) {
		event_complete(&r->out.events, (result->ended_wall_usec - result->started_wall_usec) / 1000, now);
	} else {
		snprintf(value, sizeof(value), "%d", result->signal ? -1 : result->code);
		event_exit_text(result->code, result->signal, text, sizeof(text));
		event_error(&r->out.events, "CommandExecError", value, text, now);
	}
}

static void run_exited(void *arg, const struct agent_exit *result)
{
	struct session_run *r = arg;

	r->stream = NULL;
	flush_lines(r);
	keep_state(r, result->signal ? 128 + result->signal : result->code);
	put_end(r, result);
	run_stream_end(&r->out);
	run_free(r);
}

static void run_fail(struct session_run *r, const struct sbx_err *err)
{
	r->stream = NULL;
	flush_lines(r);
	run_stream_refuse(&r->out, err);
	run_free(r);
}

static void run_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct session_run *r = arg;
	struct sbx_err err;
	int len = n < 160 ? (int)n : 160;

	if (end->reason == AGENT_FAILED_START && end->value == AGENT_STAGE_CWD) {
		sbx_err_set(&err, SBX_E_EXECD_BODY, end->sys > 0 ? end->sys : ENOENT, INVALID "working directory %s",
			    r->cwd ? r->cwd : r->session->cwd ? r->session->cwd : "");
	} else if (end->reason == AGENT_FAILED_START && end->value == AGENT_STAGE_EXEC && end->sys == ENOENT) {
		/* as the published server: the stream begins before it is known */
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "error running in session. the image has no bash, which sessions need");
		run_stream_begin(&r->out, r->session->id);
	} else if (end->reason == AGENT_FAILED_START) {
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, end->sys > 0 ? end->sys : EIO, "error running in session. start bash%s%.*s",
			    len ? ": " : "", len, text);
		run_stream_begin(&r->out, r->session->id);
	} else {
		execd_end_err(end, text, n, &err);
	}
	run_fail(r, &err);
}

static void run_lost(void *arg, const struct sbx_err *why)
{
	run_fail(arg, why);
}

static void start_next(struct session *s)
{
	static const struct agent_stream_ops ops = {
		.started = run_started, .data = run_data, .exited = run_exited, .ended = run_ended, .lost = run_lost};
	struct session_run *r = s->runs;
	struct sbx_err err;
	auto_buf payload = {0};

	if (!r || r->stream)
		return;
	struct shell_run run = {
		.command = r->command, .cwd = r->cwd, .first_cwd = s->cwd, .timeout_ms = r->timeout_ms, .merge = true};
	struct agent_client *agent = execd_box_agent(r->box, &err);
	random_bytes(r->id, sizeof(r->id));
	if (agent && shell_state_payload(&s->state, &run, r->id, &r->dump, &payload, &err) == 0)
		r->stream = agent_stream_open(agent, AGENT_EXEC, 0, buf_peek(&payload), buf_used(&payload), &ops, r, &err);
	if (!r->stream) {
		run_fail(r, &err);
		return;
	}
	agent_stream_deadline(r->stream, START_MS);
}

/* The client is gone: so is its run, with all that it started in it. */
static void run_abort(void *user, struct http_request *req)
{
	struct session_run *r = user;

	(void)req;
	r->out.req = NULL;
	agent_stream_detach(r->stream);
	run_free(r);
}

static int get_text(const struct jv *root, const char *name, char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_find(root, name);

	if (!jv_is_set(v))
		return 0;
	if (!jv_str(v))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'%s' is %s, not a string", name, jv_type_name(jv_type(v)));
	if (!*jv_str(v))
		return 0;
	*ret = strdup(jv_str(v));
	return *ret ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "session");
}

static int parse_run(struct session_run *r, const char *body, size_t n, struct sbx_err *err)
{
	auto_jv root = execd_body_object(body, n, BAD_BODY, err);
	int64_t ms = 0;

	if (!root || get_text(root, "command", &r->command, err) < 0 || get_text(root, "cwd", &r->cwd, err) < 0)
		return -1;
	const struct jv *timeout = jv_find(root, "timeout");
	if (jv_is_set(timeout) && (jv_i64(timeout, &ms) < 0 || ms < 0))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'timeout' is not a number of milliseconds");
	if (!r->command)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'command' is required");
	if (r->cwd && strlen(r->cwd) >= LIMIT_PATH_BYTES)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'cwd' is longer than %u bytes", LIMIT_PATH_BYTES - 1);
	r->timeout_ms = !ms ? SESSION_TIMEOUT_MS : ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
	return 0;
}

struct run_ask { /* until the body is here */
	struct execd_box *box;
	char id[UUID_SIZE];
};

static void ask_free(struct run_ask *ask)
{
	execd_box_unref(ask->box);
	free(ask);
}

static void ask_abort(void *user, struct http_request *req)
{
	(void)req;
	ask_free(user);
}

static int queue_run(const struct run_ask *ask, struct session_run *r, struct sbx_err *err)
{
	struct session *s = session_find(ask->box, ask->id);
	size_t waiting = 0;

	if (!s)
		return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, NO_SUCH_SESSION);
	struct session_run **at = &s->runs;
	for (; *at; at = &(*at)->next)
		waiting++;
	if (waiting > MAX_WAITING)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "session is busy: %zu runs wait for it already", waiting - 1);
	*at = r;
	r->session = s;
	session_used(s);
	return 0;
}

static void ask_body(void *user, struct http_request *req, const char *body, size_t n)
{
	static const struct http_request_ops ops = {.writable = run_writable, .abort = run_abort};
	struct run_ask *ask = user;
	struct session_run *r = calloc(1, sizeof(*r));
	struct sbx_err err;

	if (!r || run_stream_init(&r->out, ask->box->x->loop, req) < 0) {
		free(r);
		ask_free(ask);
		http_respond_code(req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	r->box = execd_box_ref(ask->box);
	bool good = parse_run(r, body, n, &err) == 0 && queue_run(ask, r, &err) == 0;
	ask_free(ask);
	if (!good) {
		run_stream_refuse(&r->out, &err);
		run_free(r);
		return;
	}
	http_request_accept(req, &ops, r);
	start_next(r->session);
}

void session_run(const struct execd_match *match)
{
	static const struct http_request_ops ops = {.whole = ask_body, .whole_max = EXECD_CODE_BYTES, .abort = ask_abort};
	struct run_ask *ask = calloc(1, sizeof(*ask));

	if (!ask) {
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	ask->box = execd_box_ref(match->box);
	snprintf(ask->id, sizeof(ask->id), "%s", match->params[0]);
	if (strlen(match->params[0]) >= sizeof(ask->id))
		*ask->id = '\0'; /* no session's */
	http_request_accept(match->call->req, &ops, ask);
}

/* ---- POST /session ---- */

struct creation {
	struct execd_box *box;
	struct http_request *req;
	struct agent_stream *stream;
	struct session *session; /* owned until it is in the list */
};

static void creation_free(struct creation *c)
{
	if (c->session)
		session_free(c->session);
	execd_box_unref(c->box);
	free(c);
}

static void creation_refuse(struct creation *c, const struct sbx_err *err)
{
	execd_respond_err(c->req, err);
	creation_free(c);
}

static void creation_done(struct creation *c)
{
	struct session *s = take_ptr(c->session);
	struct session *oldest = c->box->n_sessions >= MAX_SESSIONS ? session_oldest(c->box) : NULL;
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (oldest) { /* nobody deletes what he has forgotten */
		session_unlink(oldest);
		session_free(oldest);
	}
	s->box = c->box;
	s->next = c->box->sessions;
	c->box->sessions = s;
	c->box->n_sessions++;
	jw_object(&w);
	jw_key_str(&w, "session_id", s->id);
	jw_object_end(&w);
	execd_respond_json(c->req, &body);
	creation_free(c);
}

static void made_dir(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct creation *c = arg;
	struct sbx_err err;

	c->stream = NULL;
	if (end->reason == AGENT_OK) {
		creation_done(c);
		return;
	}
	execd_end_err(end, text, n, &err);
	creation_refuse(c, &err);
}

static void creation_lost(void *arg, const struct sbx_err *why)
{
	creation_refuse(arg, why);
}

static void creation_abort(void *user, struct http_request *req)
{
	struct creation *c = user;

	(void)req;
	agent_stream_detach(c->stream);
	creation_free(c);
}

static int parse_creation(struct creation *c, const char *body, size_t n, struct sbx_err *err)
{
	static const char space[] = " \t\r\n";

	while (n && strchr(space, *body)) {
		body++;
		n--;
	}
	if (!n)
		return 0; /* some clients send no body at all */
	auto_jv root = execd_body_object(body, n, BAD_BODY, err);
	if (!root || get_text(root, "cwd", &c->session->cwd, err) < 0)
		return -1;
	if (c->session->cwd && strlen(c->session->cwd) >= LIMIT_PATH_BYTES)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'cwd' is longer than %u bytes", LIMIT_PATH_BYTES - 1);
	return 0;
}

static void creation_body(void *user, struct http_request *req, const char *body, size_t n)
{
	static const struct agent_stream_ops ops = {.ended = made_dir, .lost = creation_lost};
	struct creation *c = user;
	uint8_t id[16];
	struct sbx_err err;

	(void)req;
	uuid_random(id);
	uuid_format(id, c->session->id);
	if (parse_creation(c, body, n, &err) < 0) {
		creation_refuse(c, &err);
	} else if (!execd_box_agent(c->box, &err)) {
		creation_refuse(c, &err);
	} else if (c->box->n_sessions >= MAX_SESSIONS && !session_oldest(c->box)) {
		sbx_err_set(&err, SBX_E_LIMIT, 0, "the sandbox has %u sessions already, and all of them are in use", MAX_SESSIONS);
		creation_refuse(c, &err);
	} else if (!c->session->cwd) {
		creation_done(c);
	} else {
		c->stream = run_stream_mkdir(c->box, c->session->cwd, &ops, c, &err);
		if (!c->stream)
			creation_refuse(c, &err);
	}
}

void session_create(const struct execd_match *match)
{
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.whole = creation_body, .whole_max = EXECD_BODY_BYTES, .abort = creation_abort};
	struct creation *c = calloc(1, sizeof(*c));

	if (c)
		*c = (struct creation){.box = execd_box_ref(match->box),
				       .req = match->call->req,
				       .session = calloc(1, sizeof(*c->session))};
	if (!c || !c->session) {
		if (c)
			creation_free(c);
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	http_request_accept(match->call->req, &ops, c);
}

/* ---- DELETE /session/{id} ---- */

/* Ends @r as the kill that it is. */
static void kill_run(struct session_run *r)
{
	static const struct agent_exit killed = {.code = -1, .signal = 9};

	agent_stream_detach(r->stream);
	r->stream = NULL;
	r->session = NULL;
	flush_lines(r);
	put_end(r, &killed);
	run_stream_end(&r->out);
	run_free(r);
}

void session_delete(const struct execd_match *match)
{
	struct session *s = session_find(match->box, match->params[0]);
	struct sbx_err err;

	if (!s) {
		http_respond_code(match->call->req, SBX_E_EXECD_CONTEXT_NOT_FOUND, "session %.64s not found", match->params[0]);
		return;
	}
	session_unlink(s);
	struct session_run *r = take_ptr(s->runs);
	for (struct session_run *next; r; r = next) {
		next = r->next;
		if (r->stream) {
			run_stream_begin(&r->out, s->id);
			kill_run(r);
			continue;
		}
		r->session = NULL;
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, NO_SUCH_SESSION);
		run_stream_refuse(&r->out, &err);
		run_free(r);
	}
	session_free(s);
	execd_respond_empty(match->call->req);
}

/* ---- DELETE /command?id= with a session's id: its run ends, the session stays ---- */

struct interrupt {
	struct execd_box *box;
	struct http_request *req;
	struct agent_stream *stream;
};

static void interrupt_free(struct interrupt *i)
{
	execd_box_unref(i->box);
	free(i);
}

static void interrupt_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct interrupt *i = arg;
	struct sbx_err err;

	if (end->reason == AGENT_OK || end->reason == AGENT_NOT_RUNNING) {
		execd_respond_empty(i->req);
	} else {
		execd_end_err(end, text, n, &err);
		execd_respond_err(i->req, &err);
	}
	interrupt_free(i);
}

static void interrupt_lost(void *arg, const struct sbx_err *why)
{
	struct interrupt *i = arg;

	execd_respond_err(i->req, why);
	interrupt_free(i);
}

static void interrupt_abort(void *user, struct http_request *req)
{
	struct interrupt *i = user;

	(void)req;
	agent_stream_detach(i->stream);
	interrupt_free(i);
}

bool session_interrupt(const struct execd_match *match, const char *id)
{
	static const struct agent_stream_ops stream_ops = {.ended = interrupt_ended, .lost = interrupt_lost};
	static const struct http_request_ops ops = {.flags = HTTP_KEEP_ON_HALF_CLOSE, .abort = interrupt_abort};
	struct session *s = session_find(match->box, id);
	struct http_request *req = match->call->req;
	struct sbx_err err;

	if (!s)
		return false;
	if (!s->runs || !s->runs->stream) {
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "command session %s is not running", s->id);
		execd_respond_err(req, &err);
		return true;
	}
	struct agent_client *agent = execd_box_agent(match->box, &err);
	struct interrupt *i = agent ? calloc(1, sizeof(*i)) : NULL;
	if (!i) {
		http_respond_code(req, agent ? SBX_E_NO_MEMORY : SBX_E_NOT_READY, agent ? "out of memory" : "the sandbox has ended");
		return true;
	}
	*i = (struct interrupt){.box = execd_box_ref(match->box), .req = req};
	i->stream = agent_stream_open(agent, AGENT_INTERRUPT, 0, s->runs->id, sizeof(s->runs->id), &stream_ops, i, &err);
	if (!i->stream) {
		interrupt_free(i);
		execd_respond_err(req, &err);
		return true;
	}
	agent_stream_deadline(i->stream, INTERRUPT_MS);
	http_request_accept(req, &ops, i);
	return true;
}
