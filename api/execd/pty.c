// SPDX-License-Identifier: Apache-2.0
/*
 * Terminals: POST /pty makes a session, the first WebSocket on /pty/{id}/ws starts its shell.  The shell outlives the
 * socket; its last RING_BYTES of output are kept for whoever connects next.
 *
 *	server -> client   03 offset data   what was missed, at most once
 *	                   {"type":"connected",...}
 *	                   01 stdout, 02 stderr (pipe mode)
 *	                   {"type":"exit","exit_code":n[,"signal":n]}, close 1000
 *	client -> server   00 input; {"type":"stdin"|"eof"|"resize"|"signal"|"ping",...}
 *
 * A client that does not read stalls the shell, as a terminal does; one that gives no sign of life is dropped.
 */
#include "api/execd/command_spec.h"
#include "api/execd/execd_int.h"
#include "api/execd/fs_call.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"
#include "base/wallclock.h"
#include "base/ws.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#define MAX_SESSIONS   16u
#define IN_USE	       "the sandbox has 16 terminal sessions already, and all of them are in use"
#define RING_BYTES     (1024u * 1024)
#define MESSAGE_BYTES  (1024u * 1024)
#define TEXT_BYTES     (64u * 1024)
#define KEEPALIVE_MS   30000u
#define SILENCE_MS     60000u
#define START_MS       30000u
#define DEFAULT_ROWS   24
#define DEFAULT_COLS   80
#define CLOSE_TAKEN    4001
#define PTY_OUTPUT     1
#define PTY_ERRORS     2
#define PTY_REPLAY     3

/* No rc files, as the published server does; an image without bash gets its sh. */
#define DEFAULT_SHELL "command -v bash >/dev/null 2>&1 && exec bash --norc --noprofile; exec sh"

struct pty_socket {
	struct pty_session *session;
	struct http_request *req;
	struct ws_reader reader;
	struct buf text;      /* of the text message under way */
	struct buf stdin_;    /* input that waits for the agent's credit */
	bool in_message, ignore;
	bool eof;	      /* the client has no more input; told to the shell behind stdin_ */
	struct loop_timer *keepalive;
	uint64_t heard_ms;    /* when the client last gave a sign of life */
	uint64_t pinged_ms;
	size_t not_granted;
};

struct pty_session {
	struct execd_box *box; /* owns us */
	struct pty_session *next;
	char id[UUID_SIZE];
	char *cwd, *command;  /* owned; NULL: none */
	struct agent_stream *stream;
	uint8_t command_id[AGENT_ID_BYTES];
	bool pipes, deleted;
	uint8_t *ring;	      /* owned; RING_BYTES, NULL before the first output */
	uint64_t total;	      /* bytes of output ever */
	struct pty_socket *socket;
};

/* ---- sessions ---- */

static void session_free(struct pty_session *s)
{
	free(s->cwd);
	free(s->command);
	free(s->ring);
	free(s);
}

static void session_unlink(struct pty_session *s)
{
	for (struct pty_session **at = &s->box->ptys; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			s->box->n_ptys--;
			break;
		}
	session_free(s);
}

/* The first that was made of those that nobody has and in which nothing runs; NULL: there is none. */
static struct pty_session *session_oldest(const struct execd_box *box)
{
	struct pty_session *oldest = NULL;

	for (struct pty_session *s = box->ptys; s; s = s->next)
		if (!s->stream && !s->socket && !s->deleted)
			oldest = s;
	return oldest;
}

/* A deleted session goes when neither shell nor client is left. */
static void session_settle(struct pty_session *s)
{
	if (s->deleted && !s->stream && !s->socket)
		session_unlink(s);
}

static struct pty_session *session_find(const struct execd_match *match)
{
	for (struct pty_session *s = match->box->ptys; s; s = s->next)
		if (!s->deleted && !strcmp(s->id, match->params[0]))
			return s;
	http_respond_code(match->call->req, SBX_E_EXECD_CONTEXT_NOT_FOUND, "no terminal session %.64s", match->params[0]);
	return NULL;
}

static uint64_t ring_start(const struct pty_session *s)
{
	return s->total > RING_BYTES ? s->total - RING_BYTES : 0;
}

static void ring_add(struct pty_session *s, const uint8_t *data, size_t n)
{
	if (!s->ring)
		s->ring = malloc(RING_BYTES);
	for (size_t done = 0; s->ring && done < n;) {
		size_t at = (size_t)((s->total + done) % RING_BYTES);
		size_t part = n - done < RING_BYTES - at ? n - done : RING_BYTES - at;

		memcpy(s->ring + at, data + done, part);
		done += part;
	}
	s->total += n;
}

/* ---- sending to the client ---- */

static void send_frame(struct pty_socket *c, enum ws_opcode opcode, const void *data, size_t n)
{
	auto_buf frame = {0};

	/* out of memory: the frame is lost, which the ring makes good at the next connection */
	if (ws_write(&frame, true, opcode, true, data, n) == 0)
		http_response_write(c->req, buf_peek(&frame), buf_used(&frame));
}

static void send_output(struct pty_socket *c, uint8_t kind, const uint8_t *data, size_t n)
{
	auto_buf message = {0};

	buf_append(&message, &kind, 1);
	if (buf_append(&message, data, n) == 0)
		send_frame(c, WS_BINARY, buf_peek(&message), buf_used(&message));
}

static void send_text(struct pty_socket *c, struct buf *text)
{
	buf_append(text, "\n", 1);
	if (!text->failed)
		send_frame(c, WS_TEXT, buf_peek(text), buf_used(text));
}

static void send_error(struct pty_socket *c, const char *code, const char *message)
{
	auto_buf text = {0};
	struct jw w = {.out = &text};

	jw_object(&w);
	jw_key_str(&w, "type", "error");
	jw_key_str(&w, "error", message);
	jw_key_str(&w, "code", code);
	jw_object_end(&w);
	send_text(c, &text);
}

static void send_replay(struct pty_socket *c, uint64_t since)
{
	const struct pty_session *s = c->session;
	uint64_t from = since > ring_start(s) ? since : ring_start(s);
	auto_buf message = {0};
	uint8_t head[9] = {PTY_REPLAY};

	if (!s->ring || from >= s->total)
		return;
	for (int i = 0; i < 8; i++)
		head[1 + i] = (uint8_t)(from >> (56 - 8 * i));
	buf_append(&message, head, sizeof(head));
	while (from < s->total) {
		size_t at = (size_t)(from % RING_BYTES);
		size_t part = RING_BYTES - at;

		part = part < s->total - from ? part : (size_t)(s->total - from);
		buf_append(&message, s->ring + at, part);
		from += part;
	}
	if (!message.failed)
		send_frame(c, WS_BINARY, buf_peek(&message), buf_used(&message));
}

/* ---- life of a socket ---- */

static void socket_free(struct pty_socket *c)
{
	if (c->session)
		c->session->socket = NULL;
	loop_timer_free(c->keepalive);
	buf_free(&c->text);
	buf_free(&c->stdin_);
	free(c);
}

static void socket_close(struct pty_socket *c, uint16_t code, const char *reason)
{
	auto_buf frame = {0};

	if (ws_write_close(&frame, true, code, reason) == 0)
		http_response_write(c->req, buf_peek(&frame), buf_used(&frame));
	http_response_end(c->req);
	socket_free(c);
}

static void grant_held(struct pty_socket *c)
{
	if (c->session->stream && c->not_granted)
		agent_stream_grant(c->session->stream, c->not_granted);
	c->not_granted = 0;
}

/* The client is gone: from here on the shell is not stalled by it. */
static void socket_abort(void *user, struct http_request *req)
{
	struct pty_socket *c = user;
	struct pty_session *s = c->session;

	(void)req;
	grant_held(c);
	socket_free(c);
	session_settle(s);
}

static void socket_drop(struct pty_socket *c, uint16_t code, const char *reason)
{
	struct pty_session *s = c->session;

	grant_held(c);
	socket_close(c, code, reason);
	session_settle(s);
}

static void socket_keepalive(void *arg)
{
	struct pty_socket *c = arg;
	uint64_t now = mono_ms(), silence = now - c->heard_ms;

	if (silence >= SILENCE_MS) {
		socket_drop(c, WS_CLOSE_GOING_AWAY, "no sign of life");
		return;
	}
	if (now - c->pinged_ms >= KEEPALIVE_MS) {
		send_frame(c, WS_PING, "", 0);
		c->pinged_ms = now;
	}
	uint64_t ping_due = c->pinged_ms + KEEPALIVE_MS - now, end_due = SILENCE_MS - silence;
	loop_timer_arm(c->keepalive, ping_due < end_due ? ping_due : end_due);
}

/* ---- the shell ---- */

static void shell_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct pty_session *s = arg;
	struct pty_socket *c = s->socket;

	agent_stream_deadline(s->stream, 0);
	ring_add(s, data, n);
	if (!c) {
		agent_stream_grant(s->stream, n);
		return;
	}
	send_output(c, type == AGENT_STDERR ? PTY_ERRORS : PTY_OUTPUT, data, n);
	c->not_granted += n;
	if (http_response_queued(c->req) <= HTTP_QUEUE_HIGH_BYTES)
		grant_held(c);
}

static void shell_started(void *arg, const struct agent_started *started)
{
	struct pty_session *s = arg;

	(void)started;
	agent_stream_deadline(s->stream, 0);
}

static void feed_shell(struct pty_socket *c);

static void shell_writable(void *arg)
{
	struct pty_session *s = arg;

	if (s->socket)
		feed_shell(s->socket);
}

static void shell_exited(void *arg, const struct agent_exit *result)
{
	struct pty_session *s = arg;
	auto_buf text = {0};
	struct jw w = {.out = &text};

	s->stream = NULL;
	if (s->socket) {
		jw_object(&w);
		jw_key_str(&w, "type", "exit");
		jw_key_i64(&w, "exit_code", result->signal ? -1 : result->code);
		if (result->signal)
			jw_key_i64(&w, "signal", result->signal);
		jw_object_end(&w);
		send_text(s->socket, &text);
		socket_close(s->socket, WS_CLOSE_NORMAL, "process exited");
	}
	session_settle(s);
}

static void shell_failed(struct pty_session *s, const struct sbx_err *err)
{
	s->stream = NULL;
	if (s->socket) {
		send_error(s->socket, "START_FAILED", err->msg);
		socket_close(s->socket, WS_CLOSE_INTERNAL, "the shell is gone");
	}
	session_settle(s);
}

static void shell_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	const struct pty_session *s = arg;
	struct sbx_err err;

	if (end->reason == AGENT_FAILED_START && end->value == AGENT_STAGE_CWD)
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, end->sys > 0 ? end->sys : ENOENT, "working directory %.160s", s->cwd ? s->cwd : "");
	else
		execd_end_err(end, text, n, &err);
	shell_failed(arg, &err);
}

static void shell_lost(void *arg, const struct sbx_err *why)
{
	shell_failed(arg, why);
}

static int shell_start(struct pty_session *s, bool pipes, struct sbx_err *err)
{
	static const struct agent_stream_ops ops = {.started = shell_started,
						    .data = shell_data,
						    .writable = shell_writable,
						    .exited = shell_exited,
						    .ended = shell_ended,
						    .lost = shell_lost};
	struct command_spec spec = {.command = s->command ? s->command : DEFAULT_SHELL,
				    .cwd = s->cwd,
				    .flags = AGENT_SPEC_SHELL | (pipes ? AGENT_SPEC_STDIN : AGENT_SPEC_PTY),
				    .rows = DEFAULT_ROWS,
				    .cols = DEFAULT_COLS};
	auto_buf payload = {0};
	struct agent_client *agent = execd_box_agent(s->box, err);

	s->pipes = pipes;
	random_bytes(s->command_id, sizeof(s->command_id));
	if (!agent || command_spec_payload(&spec, s->command_id, &payload, err) < 0)
		return -1;
	s->stream = agent_stream_open(agent, AGENT_EXEC, 0, buf_peek(&payload), buf_used(&payload), &ops, s, err);
	if (!s->stream)
		return -1;
	agent_stream_deadline(s->stream, START_MS);
	return 0;
}

/* A signal needs no answer here: the shell's exit says what it did. */
static void shell_signal(struct pty_session *s, enum agent_type type, int signo)
{
	static const struct agent_stream_ops none = {0};
	struct sbx_err err;
	struct agent_client *agent = s->stream ? execd_box_agent(s->box, &err) : NULL;

	if (agent)
		ignore_result(!agent_stream_open(agent, type, (uint32_t)signo, s->command_id, sizeof(s->command_id), &none, NULL,
						 &err)); /* all streams in use: the client may try again */
}

/* ---- from the client ---- */

/* Sends what the agent has credit for; the socket is not read while something waits. */
static void feed_shell(struct pty_socket *c)
{
	struct agent_stream *stream = c->session->stream;
	struct sbx_err err;

	while (stream && buf_used(&c->stdin_)) {
		size_t room = agent_stream_room(stream), n = buf_used(&c->stdin_);

		n = n < room ? n : room;
		if (!n)
			return;
		if (agent_stream_send(stream, AGENT_STDIN, buf_peek(&c->stdin_), n, &err) < 0)
			break; /* `lost` comes */
		buf_consume(&c->stdin_, n);
	}
	buf_clear(&c->stdin_);
	if (stream && c->eof && c->session->pipes)
		agent_stream_control(stream, AGENT_STDIN_EOF, 0);
	c->eof = false;
	http_request_resume(c->req);
}

static void add_input(struct pty_socket *c, const void *data, size_t n)
{
	if (c->session->stream)
		buf_append(&c->stdin_, data, n);
}

static void on_signal(struct pty_socket *c, const struct jv *message)
{
	static const struct {
		const char *name;
		int signo;
	} signals[] = {{"SIGINT", SIGINT}, {"SIGTERM", SIGTERM}, {"SIGKILL", SIGKILL}, {"SIGQUIT", SIGQUIT}, {"SIGHUP", SIGHUP}};
	const char *name = jv_str(jv_find(message, "signal"));

	for (size_t i = 0; name && i < ARRAY_SIZE(signals); i++)
		if (!strcmp(signals[i].name, name)) {
			shell_signal(c->session, AGENT_SIGNAL, signals[i].signo);
			return;
		}
	send_error(c, "INVALID_FRAME", "unknown signal");
}

static void on_resize(struct pty_socket *c, const struct jv *message)
{
	int64_t cols, rows;

	if (jv_i64(jv_find(message, "cols"), &cols) < 0 || jv_i64(jv_find(message, "rows"), &rows) < 0 || cols <= 0 || rows <= 0 ||
	    cols > UINT16_MAX || rows > UINT16_MAX) {
		send_error(c, "INVALID_FRAME", "cols and rows are numbers above 0");
		return;
	}
	if (c->session->stream && !c->session->pipes)
		agent_stream_control(c->session->stream, AGENT_RESIZE, (uint32_t)rows << 16 | (uint32_t)cols);
}

static void on_text(struct pty_socket *c)
{
	struct sbx_err err;
	auto_jv message = jv_parse(buf_peek(&c->text), buf_used(&c->text), &err);
	const char *type = jv_str(jv_find(message, "type"));
	auto_buf pong = {0};

	if (!message)
		return; /* not JSON: passed over */
	if (type && !strcmp(type, "stdin")) {
		const char *data = jv_str(jv_find(message, "data"));

		if (data)
			add_input(c, data, strlen(data));
	} else if (type && !strcmp(type, "eof")) {
		/* ours: without it a program that reads to the end of a pipe would never end */
		c->eof = true;
		if (!buf_used(&c->stdin_))
			feed_shell(c);
	} else if (type && !strcmp(type, "resize")) {
		on_resize(c, message);
	} else if (type && !strcmp(type, "signal")) {
		on_signal(c, message);
	} else if (type && !strcmp(type, "ping")) {
		buf_puts(&pong, "{\"type\":\"pong\"}");
		send_text(c, &pong);
	} else {
		send_error(c, "INVALID_FRAME", "unknown type of message");
	}
}

static void on_piece(struct pty_socket *c, const struct ws_piece *piece)
{
	const uint8_t *data = piece->data;
	size_t n = piece->n;

	if (piece->opcode == WS_TEXT) {
		if (!c->in_message)
			buf_clear(&c->text);
		buf_append(&c->text, data, n);
		c->in_message = !piece->last;
		if (piece->last && c->text.failed)
			send_error(c, "INVALID_FRAME", "the message is too long");
		else if (piece->last)
			on_text(c);
		return;
	}
	if (!c->in_message && n) {
		c->ignore = *data != 0; /* only kind 0, input, comes from clients */
		c->in_message = true;
		data++;
		n--;
	}
	if (n && !c->ignore)
		add_input(c, data, n);
	if (piece->last)
		c->in_message = false;
}

static bool on_control(struct pty_socket *c, const struct ws_piece *piece)
{
	if (piece->opcode == WS_PING)
		send_frame(c, WS_PONG, piece->data, piece->n);
	if (piece->opcode != WS_CLOSE)
		return true;
	socket_drop(c, WS_CLOSE_NORMAL, "");
	return false;
}

static void socket_body(void *user, struct http_request *req, const char *data, size_t n)
{
	struct pty_socket *c = user;
	auto_free uint8_t *copy = malloc(n); /* the reader unmasks in place */
	size_t used = 0;
	struct ws_piece piece;

	c->heard_ms = mono_ms();
	if (!copy) {
		socket_drop(c, WS_CLOSE_INTERNAL, "out of memory");
		return;
	}
	memcpy(copy, data, n);
	for (size_t at = 0;; at += used) {
		enum ws_event event = ws_read(&c->reader, copy + at, n - at, &used, &piece);

		if (event == WS_MORE)
			break;
		if (event == WS_BAD) {
			socket_drop(c, piece.close_code, "protocol error");
			return;
		}
		if (event == WS_CONTROL && !on_control(c, &piece))
			return;
		if (event == WS_DATA)
			on_piece(c, &piece);
	}
	if (c->stdin_.failed) {
		send_error(c, "STDIN_WRITE_FAILED", "out of memory");
		buf_clear(&c->stdin_);
	}
	if (buf_used(&c->stdin_)) {
		http_request_pause(req);
		feed_shell(c);
	}
}

static void socket_body_end(void *user, struct http_request *req)
{
	(void)req;
	socket_drop(user, WS_CLOSE_NORMAL, "");
}

static void socket_writable(void *user, struct http_request *req)
{
	(void)req;
	grant_held(user);
}

/* ---- routes ---- */

struct wanted {
	char *cwd, *command;
};

static void create_release(struct fs_call *call)
{
	struct wanted *want = call->data;

	if (!want)
		return;
	free(want->cwd);
	free(want->command);
	free(want);
}

static int take_text(const struct jv *root, const char *name, char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_find(root, name);

	if (!jv_is_set(v))
		return 0;
	if (!jv_str(v))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "'%s' is not a string", name);
	if (!*jv_str(v))
		return 0;
	*ret = strdup(jv_str(v));
	return *ret ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "terminal");
}

static int create_parse(struct fs_call *call, const char *body, size_t n, struct sbx_err *err)
{
	struct wanted *want = calloc(1, sizeof(*want));
	struct sbx_err why;
	auto_jv root = n ? jv_parse_first(body, n, &why) : NULL;

	call->data = want;
	if (!want)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "terminal");
	if (!execd_box_agent(call->box, err))
		return -1;
	if (n && !root)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "error parsing request. %.160s", why.msg);
	if (root && jv_type(root) != JV_OBJECT && jv_type(root) != JV_NULL)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "error parsing request. the body is not an object");
	if (take_text(root, "cwd", &want->cwd, err) < 0 || take_text(root, "command", &want->command, err) < 0)
		return -1;
	if (call->box->n_ptys >= MAX_SESSIONS && !session_oldest(call->box))
		return sbx_err_set(err, SBX_E_LIMIT, 0, IN_USE);
	if (!want->cwd)
		return 0;
	struct fs_request r = {.op = AGENT_FS_MKDIR, .strings = (const char *const[]){want->cwd, "", ""}, .n_strings = 3};
	return fs_call_add(call, &r, err);
}

/* Whether there is room for one more, made by taking one that nobody uses where it has to be. */
static bool make_room(struct execd_box *box)
{
	struct pty_session *oldest = box->n_ptys >= MAX_SESSIONS ? session_oldest(box) : NULL;

	if (oldest)
		session_unlink(oldest);
	return box->n_ptys < MAX_SESSIONS;
}

static void create_finish(struct fs_call *call)
{
	struct wanted *want = call->data;
	uint8_t id[16];

	if (!make_room(call->box)) { /* there was, before the directory was made */
		call->status = (unsigned)sbx_err_status(SBX_E_LIMIT);
		jw_object(&call->writer);
		jw_key_str(&call->writer, "code", sbx_err_api_code(SBX_E_LIMIT));
		jw_key_str(&call->writer, "message", IN_USE);
		jw_object_end(&call->writer);
		return;
	}
	struct pty_session *s = calloc(1, sizeof(*s));
	if (!s) {
		call->body.failed = true;
		return;
	}
	*s = (struct pty_session){.box = call->box,
				  .next = call->box->ptys,
				  .cwd = take_ptr(want->cwd),
				  .command = take_ptr(want->command)};
	uuid_random(id);
	uuid_format(id, s->id);
	call->box->ptys = s;
	call->box->n_ptys++;
	call->status = 201;
	jw_object(&call->writer);
	jw_key_str(&call->writer, "session_id", s->id);
	jw_object_end(&call->writer);
}

void pty_create(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {
		.op = AGENT_FS_MKDIR, .parse = create_parse, .finish = create_finish, .release = create_release};
	struct fs_call *call = fs_call_new(match, &ops);

	if (call)
		fs_call_start(call);
}

void pty_get(const struct execd_match *match)
{
	const struct pty_session *s = session_find(match);
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (!s)
		return;
	jw_object(&w);
	jw_key_str(&w, "session_id", s->id);
	jw_key_bool(&w, "running", s->stream != NULL);
	jw_key_u64(&w, "output_offset", s->total);
	jw_object_end(&w);
	execd_respond_json(match->call->req, &body);
}

void pty_delete(const struct execd_match *match)
{
	struct pty_session *s = session_find(match);

	if (!s)
		return;
	execd_respond_empty(match->call->req);
	s->deleted = true;
	/* the job in front at once; the shell itself, should it stay, when TERM did not help */
	shell_signal(s, AGENT_SIGNAL, SIGKILL);
	shell_signal(s, AGENT_INTERRUPT, 0);
	session_settle(s);
}

static bool may_connect(const struct execd_call *call, const struct pty_session *s, bool takeover)
{
	struct http_text key = http_request_header(call->req, "Sec-WebSocket-Key");
	struct http_text version = http_request_header(call->req, "Sec-WebSocket-Version");
	bool upgrade = http_request_wants_upgrade(call->req, "websocket") && key.data && ws_key_is_valid(key.data, key.len) &&
		       http_text_is(version, "13");

	if (s->socket && !(takeover && upgrade)) {
		http_respond_code(call->req, SBX_E_EXECD_PTY_TAKEN, "another client holds this terminal");
		return false;
	}
	if (upgrade)
		return true;
	http_respond_code(call->req, SBX_E_EXECD_BODY, "this path takes a WebSocket upgrade request of version 13");
	return false;
}

static void send_hello(struct pty_socket *c)
{
	auto_buf text = {0};
	struct jw w = {.out = &text};

	jw_object(&w);
	jw_key_str(&w, "type", "connected");
	jw_key_str(&w, "session_id", c->session->id);
	jw_key_str(&w, "mode", c->session->pipes ? "pipe" : "pty");
	jw_object_end(&w);
	send_text(c, &text);
}

static void upgrade(struct pty_socket *c, const struct execd_call *call)
{
	static const struct http_request_ops ops = {
		.body = socket_body, .body_end = socket_body_end, .writable = socket_writable, .abort = socket_abort};
	struct http_text key = http_request_header(call->req, "Sec-WebSocket-Key");
	char key_text[WS_KEY_CHARS + 1], accept[WS_ACCEPT_SIZE], head[160];

	assert(key.len == WS_KEY_CHARS);
	memcpy(key_text, key.data, WS_KEY_CHARS);
	key_text[WS_KEY_CHARS] = '\0';
	ws_accept_key(key_text, accept);
	int n = snprintf(head, sizeof(head), "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n", accept);
	http_request_accept(call->req, &ops, c);
	http_response_upgrade(call->req, (struct http_text){head, (size_t)n});
}

static bool query_is(const struct execd_call *call, const char *name, const char *want)
{
	auto_free char *value = NULL;

	return http_query_get(execd_query(call), name, &value) == 0 && value && !strcmp(value, want);
}

void pty_connect(const struct execd_match *match)
{
	struct pty_session *s = session_find(match);
	auto_free char *since_text = NULL;
	uint64_t since = 0;
	struct sbx_err err;

	if (!s || !may_connect(match->call, s, query_is(match->call, "takeover", "1")))
		return;
	if (!execd_query_one(match->call, "since", &since_text))
		return;
	if (since_text && num_u64(since_text, strlen(since_text), UINT64_MAX, &since) < 0) {
		http_respond_code(match->call->req, SBX_E_EXECD_BODY, "'since' is not an offset");
		return;
	}
	struct pty_socket *c = calloc(1, sizeof(*c));
	if (c)
		c->keepalive = loop_timer_new(match->box->x->loop, socket_keepalive, c);
	if (!c || !c->keepalive) {
		free(c);
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	c->session = s;
	c->req = match->call->req;
	c->heard_ms = c->pinged_ms = mono_ms();
	c->text.max = TEXT_BYTES;
	ws_reader_init(&c->reader, true, MESSAGE_BYTES);
	upgrade(c, match->call);
	if (s->socket) {
		grant_held(s->socket);
		socket_close(s->socket, CLOSE_TAKEN, "TAKEN_OVER");
	}
	s->socket = c;
	send_replay(c, since);
	loop_timer_arm(c->keepalive, KEEPALIVE_MS);
	if (!s->stream && shell_start(s, query_is(match->call, "pty", "0"), &err) < 0) {
		shell_failed(s, &err);
		return;
	}
	send_hello(c);
}

void pty_free_all(struct execd_box *box)
{
	for (struct pty_session *s; (s = box->ptys);) {
		box->ptys = s->next;
		if (s->socket)
			socket_close(s->socket, WS_CLOSE_GOING_AWAY, "the sandbox has ended");
		agent_stream_detach(s->stream);
		session_free(s);
	}
	box->n_ptys = 0;
}
