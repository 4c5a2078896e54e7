// SPDX-License-Identifier: Apache-2.0
#include "api/execd/jupyter_int.h"

#include "api/execd/escape.h"
#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A kernel of the Java virtual machine on a loaded host. */
#define START_MS  60000u
/* A server that has just begun to listen does not answer everything yet; a kernel may miss the first question. */
#define AGAIN_MS  1000u
/* The server may take requests before it hears the channel on which their output comes: a kernel is ready when that has told of a
 * request as well, or when it has said nothing for so many seconds while the other one answered. */
#define IDLE_TRIES 5u
/* One of the two messages that end a run has come; behind it the other one is not far, unless the kernel lies. */
#define SETTLE_MS 10000u
/* A driver's output frame is not longer either. */
#define PIECE_BYTES 65536u

/* Of those that nobody owns any more, so many are looked at each time a kernel starts; a sandbox has 24 contexts. */
#define OURS_MAX 64u

enum step { NO_STEP = 0, LIST, STALE, SPECS, SESSION, SOCKET, INFO, READY };

struct ticket {
	struct code_context *c; /* NULL: nobody waits for the sockets any more */
};

struct code_jupyter {
	struct ticket *ticket;	   /* while sandboxd is asked; the answer frees it */
	struct jupyter_conn *conn; /* owned */
	struct loop_timer *timer;  /* owned */
	enum step step;
	char kernel_name[JUPYTER_NAME_SIZE];
	char session[JUPYTER_ID_SIZE], kernel[JUPYTER_ID_SIZE]; /* "": none */
	char stale[JUPYTER_ID_SIZE];			       /* a session that is to be ended first; "": none */
	char msg_id[33];				       /* of the request whose messages count */
	uint32_t number;				       /* of the run */
	bool running, replied, idle;			       /* the latter two: of that request */
	unsigned asked;					       /* how often whether it answers */
	struct buf error; /* list of the run's error */
};

/* ---- ends ---- */

static void quiet(struct code_jupyter *j)
{
	if (j->ticket)
		j->ticket->c = NULL;
	j->ticket = NULL;
	jupyter_conn_free(take_ptr(j->conn));
	loop_timer_disarm(j->timer);
	buf_free(&j->error);
	j->step = NO_STEP;
	j->running = false;
	if (*j->session)
		memcpy(j->stale, j->session, sizeof(j->stale));
	j->session[0] = '\0';
}

static void not_started(struct code_context *c, const char *what)
{
	struct sbx_err err;

	quiet(c->jupyter);
	sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "error running codes %s", what);
	code_context_failed(c, &err);
}

void jupyter_drop(struct code_context *c, struct http_request *req)
{
	struct code_jupyter *j = c->jupyter;
	char path[JUPYTER_PATH_SIZE];

	if (!j)
		return;
	quiet(j);
	if (!req || !*j->stale || !c->box->site)
		return;
	snprintf(path, sizeof(path), "%s/api/sessions/%s", c->box->site->base, j->stale);
	j->stale[0] = '\0';
	jupyter_call(c->box, req, "DELETE", path);
}

void jupyter_free(struct code_context *c)
{
	if (!c->jupyter)
		return;
	quiet(c->jupyter);
	loop_timer_free(c->jupyter->timer);
	free(take_ptr(c->jupyter));
}

size_t jupyter_held(const struct code_context *c)
{
	return c->jupyter && c->jupyter->conn ? jupyter_conn_held(c->jupyter->conn) : 0;
}

void jupyter_pause(struct code_context *c, bool on)
{
	if (c->jupyter->conn)
		jupyter_conn_pause(c->jupyter->conn, on);
}

/* ---- frames ---- */

static void tell(struct code_context *c, char type, const void *payload, size_t n)
{
	ignore_result(code_context_frame(c, type, payload, n) < 0); /* frames of ours are well-formed, and a context that is gone needs none */
}

static void tell_output(struct code_context *c, char type, const char *text, size_t n)
{
	while (n) {
		size_t piece = n > PIECE_BYTES ? escape_utf8_cut(text, PIECE_BYTES) : n;

		piece = piece ? piece : PIECE_BYTES; /* it is no UTF-8 anyway */
		tell(c, type, text, piece);
		text += piece;
		n -= piece;
	}
}

static void tell_note(struct code_context *c, const char *what, const char *why)
{
	char note[256];
	int n = snprintf(note, sizeof(note), "[%s%s%.120s]\n", what, *why ? ": " : "", why);

	tell(c, 'E', note, (size_t)n);
}

/* A list that begins with the number of the run. */
static void tell_list(struct code_context *c, char type, const struct buf *list)
{
	char digits[12];
	auto_buf whole = {0};
	uint8_t size[4] = {(uint8_t)snprintf(digits, sizeof(digits), "%u", c->jupyter->number)};

	buf_append(&whole, size, sizeof(size));
	buf_puts(&whole, digits);
	buf_append(&whole, buf_peek(list), buf_used(list));
	if (!whole.failed)
		tell(c, type, buf_peek(&whole), buf_used(&whole));
}

static void run_over(struct code_context *c)
{
	struct code_jupyter *j = c->jupyter;
	struct buf error = j->error;

	j->error = (struct buf){0};
	j->running = false;
	loop_timer_disarm(j->timer);
	tell_list(c, 'Z', &error);
	buf_free(&error);
}

static void run_settles(struct code_context *c)
{
	struct code_jupyter *j = c->jupyter;

	if (j->replied && j->idle)
		run_over(c);
	else
		loop_timer_arm(j->timer, SETTLE_MS);
}

static void keep_error(struct code_jupyter *j, struct buf *payload)
{
	if (buf_used(&j->error))
		return;
	j->error = *payload;
	*payload = (struct buf){0};
}

static void run_message(struct code_context *c, enum jupyter_kind kind, struct buf *payload)
{
	struct code_jupyter *j = c->jupyter;

	switch (kind) {
	case JUPYTER_STDOUT:
	case JUPYTER_STDERR:
		tell_output(c, kind == JUPYTER_STDERR ? 'E' : 'O', buf_peek(payload), buf_used(payload));
		break;
	case JUPYTER_RESULT:
		tell_list(c, 'R', payload);
		break;
	case JUPYTER_DISPLAY:
		tell(c, 'D', buf_peek(payload), buf_used(payload));
		break;
	case JUPYTER_REPLY_ERROR:
	case JUPYTER_REPLY:
		j->replied = true;
		if (kind == JUPYTER_REPLY_ERROR)
			keep_error(j, payload);
		run_settles(c);
		break;
	case JUPYTER_ERROR:
		keep_error(j, payload);
		break;
	case JUPYTER_IDLE:
		j->idle = true;
		run_settles(c);
		break;
	case JUPYTER_BAD:
		tell_note(c, "a message of the Jupyter server cannot be read", buf_used(payload) && !payload->failed ? buf_str(payload) : "");
		break;
	case JUPYTER_NOTHING:
	case JUPYTER_INFO:
	case JUPYTER_DEAD:
	case JUPYTER_KIND_COUNT:
	default:
		break;
	}
}

/* ---- the socket ---- */

static void ask_info(struct code_context *c)
{
	struct code_jupyter *j = c->jupyter;
	auto_buf text = {0};

	if (jupyter_msg_info(&text, c->id, j->msg_id) == 0)
		jupyter_conn_send(j->conn, buf_peek(&text), buf_used(&text));
	loop_timer_arm(j->timer, AGAIN_MS);
}

static void new_request(struct code_jupyter *j)
{
	uint8_t id[16];

	random_bytes(id, sizeof(id));
	hex_encode(id, sizeof(id), j->msg_id);
}

static void opened(void *arg)
{
	struct code_context *c = arg;

	c->jupyter->step = INFO;
	c->jupyter->replied = c->jupyter->idle = false;
	c->jupyter->asked = 0;
	new_request(c->jupyter);
	ask_info(c);
}

static void dead(struct code_context *c, const char *how)
{
	struct code_jupyter *j = c->jupyter;
	bool starting = j->step != READY;
	char text[160];

	snprintf(text, sizeof(text), "%.159s", how);
	if (starting) {
		not_started(c, text);
		return;
	}
	quiet(j);
	code_context_died(c, text);
}

static void answers(struct code_context *c)
{
	struct code_jupyter *j = c->jupyter;

	j->step = READY;
	loop_timer_disarm(j->timer);
	jupyter_conn_deadline(j->conn, 0);
	tell(c, 'H', "", 0);
}

static void message(void *arg, char *text, size_t n)
{
	struct code_context *c = arg;
	struct code_jupyter *j = c->jupyter;
	auto_buf payload = {0};

	code_context_enter(c);
	enum jupyter_kind kind = jupyter_msg_read(text, n, j->msg_id, &payload);
	if (kind == JUPYTER_DEAD) {
		dead(c, buf_used(&payload) == 4 ? "the kernel is dead" : "the kernel restarted");
	} else if (j->step == INFO) {
		j->replied |= kind == JUPYTER_INFO;
		j->idle |= kind == JUPYTER_IDLE;
		if (j->replied && j->idle)
			answers(c);
	} else if (j->running) {
		run_message(c, kind, &payload);
	}
	code_context_flush(c);
	code_context_leave(c);
}

static void skipped(void *arg, uint64_t bytes)
{
	struct code_context *c = arg;
	char size[64];

	code_context_enter(c);
	snprintf(size, sizeof(size), "%llu bytes", (unsigned long long)bytes);
	if (c->jupyter->running)
		tell_note(c, "a message of the Jupyter server is too large and was left out", size);
	code_context_flush(c);
	code_context_leave(c);
}

static void holding(void *arg)
{
	struct code_context *c = arg;

	code_context_enter(c);
	if (code_context_holds_too_much(c->box))
		dead(c, "the unfinished values of this sandbox are too large");
	code_context_leave(c);
}

static void closed(void *arg, const struct sbx_err *why)
{
	struct code_context *c = arg;

	code_context_enter(c);
	dead(c, why->msg);
	code_context_leave(c);
}

static void ask_specs(struct code_context *c);

/* Nothing came for a while. */
static void timer_over(void *arg)
{
	struct code_context *c = arg;
	struct code_jupyter *j = c->jupyter;

	code_context_enter(c);
	if (j->running)
		run_over(c);
	else if (j->step == SPECS)
		ask_specs(c);
	else if (j->step == INFO && j->replied && ++j->asked >= IDLE_TRIES)
		answers(c);
	else if (j->step == INFO)
		ask_info(c);
	code_context_leave(c);
}

/* ---- starting ---- */

static void ask_specs(struct code_context *c)
{
	char path[JUPYTER_PATH_SIZE];

	c->jupyter->step = SPECS;
	snprintf(path, sizeof(path), "%s/api/kernelspecs", c->box->site->base);
	jupyter_conn_ask(c->jupyter->conn, "GET", path, NULL);
}

/* A client that left while its kernel started, and a gateway that was killed, leave a session at the server. */
static void ready(void *arg)
{
	struct code_context *c = arg;
	char path[JUPYTER_PATH_SIZE];

	c->jupyter->step = LIST;
	snprintf(path, sizeof(path), "%s/api/sessions", c->box->site->base);
	jupyter_conn_ask(c->jupyter->conn, "GET", path, NULL);
}

static bool is_owned(const struct code_context *c, const struct jupyter_ours *ours)
{
	for (const struct code_context *x = c->box->contexts; x; x = x->next) {
		const struct code_jupyter *j = x->jupyter;

		/* the answer that tells of a session comes behind its place in the list */
		if (j && x != c && (!strcmp(j->session, ours->session) || (j->step == SESSION && !strcmp(x->id, ours->context))))
			return true;
	}
	return false;
}

static void end_unowned(struct code_context *c, const struct jupyter_ours *ours)
{
	char path[JUPYTER_PATH_SIZE];

	if (is_owned(c, ours))
		return;
	if (!strcmp(ours->context, c->id)) { /* one at the same path would be given to us again */
		memcpy(c->jupyter->stale, ours->session, sizeof(ours->session));
		return;
	}
	snprintf(path, sizeof(path), "%s/api/sessions/%.64s", c->box->site->base, ours->session);
	if (c->req)
		jupyter_call(c->box, c->req, "DELETE", path);
}

static void got_list(struct code_context *c, unsigned status, char *body, size_t n)
{
	struct code_jupyter *j = c->jupyter;
	static struct jupyter_ours ours[OURS_MAX];
	char path[JUPYTER_PATH_SIZE];

	/* what is wrong with a server that does not answer this is told by its answer to the next question */
	size_t found = status == 200 ? jupyter_sessions_ours(body, n, ours, OURS_MAX) : 0;
	for (size_t i = 0; i < found; i++)
		end_unowned(c, &ours[i]);
	if (!*j->stale) {
		ask_specs(c);
		return;
	}
	j->step = STALE;
	snprintf(path, sizeof(path), "%s/api/sessions/%s", c->box->site->base, j->stale);
	j->stale[0] = '\0';
	jupyter_conn_ask(j->conn, "DELETE", path, NULL);
}

static void ask_session(struct code_context *c)
{
	struct code_jupyter *j = c->jupyter;
	auto_buf body = {0}, path = {0};
	char target[JUPYTER_PATH_SIZE];

	/* the directory is one of the server's tree; where that is the whole sandbox it becomes the kernel's */
	buf_printf(&path, "%s%s%s.ipynb", c->cwd ? c->cwd + strspn(c->cwd, "/") : "", c->cwd ? "/" : "", c->id);
	snprintf(target, sizeof(target), "%s/api/sessions", c->box->site->base);
	if (path.failed || jupyter_msg_session(&body, j->kernel_name, buf_str(&path), c->id) < 0 || !buf_str(&body)) {
		not_started(c, "out of memory");
		return;
	}
	j->step = SESSION;
	jupyter_conn_ask(j->conn, "POST", target, buf_str(&body));
}

static void got_specs(struct code_context *c, unsigned status, char *body, size_t n)
{
	struct code_jupyter *j = c->jupyter;
	struct sbx_err err;

	if (status >= 500) {
		loop_timer_arm(j->timer, AGAIN_MS);
		return;
	}
	if (status != 200) {
		not_started(c, status == 401 || status == 403 ? "the Jupyter server refuses the token" : "the Jupyter server has no list of kernels");
	} else if (jupyter_kernel_choose(body, n, c->language->name, j->kernel_name, &err) < 0) {
		not_started(c, err.msg);
	} else {
		ask_session(c);
	}
}

static void got_session(struct code_context *c, unsigned status, char *body, size_t n)
{
	struct code_jupyter *j = c->jupyter;
	char text[80], target[JUPYTER_PATH_SIZE];
	struct sbx_err err;

	if (status != 200 && status != 201) {
		snprintf(text, sizeof(text), "the Jupyter server does not start a kernel (status %u)", status);
		not_started(c, text);
	} else if (jupyter_session_ids(body, n, j->session, j->kernel, &err) < 0) {
		j->session[0] = '\0';
		not_started(c, err.msg);
	} else {
		j->step = SOCKET;
		snprintf(target, sizeof(target), "%s/api/kernels/%s/channels?session_id=%s", c->box->site->base, j->kernel, c->id);
		jupyter_conn_upgrade(j->conn, target);
	}
}

static void answer(void *arg, unsigned status, char *body, size_t n)
{
	struct code_context *c = arg;

	code_context_enter(c);
	switch (c->jupyter->step) {
	case LIST:
		got_list(c, status, body, n);
		break;
	case STALE:
		ask_specs(c);
		break;
	case SPECS:
		got_specs(c, status, body, n);
		break;
	case SESSION:
		got_session(c, status, body, n);
		break;
	case NO_STEP:
	case SOCKET:
	case INFO:
	case READY:
	default:
		break;
	}
	code_context_leave(c);
}

static void got_sockets(void *arg, const int fds[2], const struct sbx_err *err)
{
	static const struct jupyter_conn_ops ops = {.ready = ready,	.answer = answer,   .opened = opened, .message = message,
						    .skipped = skipped, .holding = holding, .closed = closed};
	struct ticket *ticket = arg;
	struct code_context *c = ticket->c;

	free(ticket);
	if (!c || err || !c->box->site) {
		for (int i = 0; !err && i < 2; i++)
			close_keep_errno(fds[i]);
		if (c) {
			code_context_enter(c);
			c->jupyter->ticket = NULL;
			not_started(c, err ? err->msg : "the sandbox has ended");
			code_context_leave(c);
		}
		return;
	}
	const struct jupyter_conn_config config = {.loop = c->box->x->loop,
						   .fds = {fds[0], fds[1]},
						   .port = c->box->site->port,
						   .token = c->box->site->token,
						   .deadline_ms = START_MS};
	c->jupyter->ticket = NULL;
	c->jupyter->conn = jupyter_conn_new(&config, &ops, c);
	if (!c->jupyter->conn) {
		code_context_enter(c);
		not_started(c, "out of memory");
		code_context_leave(c);
	}
}

void jupyter_start(struct code_context *c)
{
	const struct execd_hooks *hooks = &c->box->x->hooks;
	struct ticket *ticket = calloc(1, sizeof(*ticket));

	if (!c->jupyter) {
		c->jupyter = calloc(1, sizeof(*c->jupyter));
		if (c->jupyter)
			c->jupyter->timer = loop_timer_new(c->box->x->loop, timer_over, c);
	}
	if (!ticket || !c->jupyter || !c->jupyter->timer || !c->req) {
		struct sbx_err err;

		free(ticket);
		sbx_err_set(&err, c->req ? SBX_E_NO_MEMORY : SBX_E_EXECD_RUNTIME, 0, "error running codes the client is gone");
		code_context_failed(c, &err);
		return;
	}
	ticket->c = c;
	c->jupyter->ticket = ticket;
	hooks->port(hooks->arg, c->box->sandbox_id, c->req, c->box->site->port, got_sockets, ticket);
}

int jupyter_run(struct code_context *c, uint32_t number, const char *code)
{
	struct code_jupyter *j = c->jupyter;
	auto_buf text = {0};

	new_request(j);
	if (jupyter_msg_execute(&text, c->id, j->msg_id, code) < 0)
		return -ENOMEM;
	j->number = number;
	j->running = true;
	j->replied = j->idle = false;
	jupyter_conn_send(j->conn, buf_peek(&text), buf_used(&text));
	return 0;
}

void jupyter_interrupt(struct code_context *c, struct http_request *req)
{
	char path[JUPYTER_PATH_SIZE];

	snprintf(path, sizeof(path), "%s/api/kernels/%s/interrupt", c->box->site->base, c->jupyter->kernel);
	jupyter_call(c->box, req, "POST", path);
}
