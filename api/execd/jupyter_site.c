// SPDX-License-Identifier: Apache-2.0
#include "api/execd/jupyter_int.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define ASK_MS	  10000u
#define SAID_MAX  4096u
#define CALLS_MAX 8u

/* The values stand one a line; a line that is cut off, or more lines, is nothing that we asked for. */
#define QUESTION "printf '%s\\n%s\\n%s\\n.' \"$EXECD_CODE_BACKEND\" \"$JUPYTER_HOST\" \"$JUPYTER_TOKEN\""

bool jupyter_may(const struct execd_box *box)
{
	return box->x->hooks.port && box->x->hooks.code_backend != EXECD_CODE_NATIVE;
}

/* ---- what the sandbox says ---- */

static char *next_line(char **at)
{
	char *line = *at, *end = strchr(line, '\n');

	if (!end)
		return NULL;
	*end = '\0';
	*at = end + 1;
	return line;
}

/* http://HOST[:PORT][/]: loopback only, since a socket of the sandbox leads nowhere that the sandbox's policy forbids, but the
 * token must not travel either. */
static const char *read_host(struct jupyter_site *site, const char *url)
{
	static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]", "0.0.0.0"};
	uint32_t port = 80;

	if (strncasecmp(url, "http://", 7) != 0)
		return "JUPYTER_HOST does not begin with http://";
	url += 7;
	size_t slash = strcspn(url, "/"), n = 0;
	for (size_t i = 0; i < ARRAY_SIZE(hosts) && !n; i++)
		if (!strncasecmp(url, hosts[i], strlen(hosts[i])) && strchr(":/", url[strlen(hosts[i])]))
			n = strlen(hosts[i]);
	if (!n)
		return "JUPYTER_HOST is not inside the sandbox";
	if (url[n] == ':' && (num_u32(url + n + 1, slash - n - 1, 65535, &port) < 0 || !port))
		return "JUPYTER_HOST has no port";
	size_t rest = strlen(url + slash);
	while (rest && url[slash + rest - 1] == '/')
		rest--;
	if (rest >= sizeof(site->base) || strspn(url + slash, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._~-") < rest)
		return "the path in JUPYTER_HOST makes no sense";
	memcpy(site->base, url + slash, rest);
	site->base[rest] = '\0';
	site->port = port;
	return NULL;
}

static const char *read_backend(struct jupyter_site *site, const char *word, enum execd_code_backend operator)
{
	static const char *const words[] = {[EXECD_CODE_AUTO] = "auto", [EXECD_CODE_NATIVE] = "native", [EXECD_CODE_JUPYTER] = "jupyter"};

	site->backend = operator;
	if (!*word)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcasecmp(word, words[i])) {
			site->backend = (enum execd_code_backend)i;
			return NULL;
		}
	return "EXECD_CODE_BACKEND is not auto, native or jupyter";
}

static const char *read_token(struct jupyter_site *site, const char *token)
{
	size_t n = strlen(token);

	if (n >= sizeof(site->token))
		return "JUPYTER_TOKEN is too long";
	for (size_t i = 0; i < n; i++)
		if (token[i] <= ' ' || token[i] > '~')
			return "JUPYTER_TOKEN holds what no header may";
	memcpy(site->token, token, n + 1);
	return NULL;
}

/* Nothing at all is a sandbox without a shell, which says nothing. */
static const char *read_answer(struct jupyter_site *site, enum execd_code_backend operator)
{
	size_t n = buf_used(&site->said);
	bool whole = n && !site->said.failed && !memchr(buf_peek(&site->said), 0, n) && buf_str(&site->said);
	char *at = whole ? site->said.data + site->said.head : NULL, *line[3] = {NULL, NULL, NULL};

	site->backend = operator;
	site->configured = false;
	if (!n)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(line) && at && (!i || line[i - 1]); i++)
		line[i] = next_line(&at);
	if (!line[2] || strcmp(at, ".") != 0)
		return "JUPYTER_HOST and JUPYTER_TOKEN cannot be read";
	const char *problem = read_backend(site, line[0], operator);
	if (problem || !*line[1] || !*line[2])
		return problem;
	problem = read_host(site, line[1]);
	if (!problem)
		problem = read_token(site, line[2]);
	site->configured = !problem;
	return problem;
}

/* Any of them may be removed meanwhile, by what another one's client then sends. */
static void tell_all(struct execd_box *box)
{
	struct code_context *c;

	do {
		for (c = box->contexts; c && !c->waits_for_site; c = c->next)
			;
		if (c) {
			c->waits_for_site = false;
			code_context_sited(c);
		}
	} while (c && box->site);
}

static void known(struct execd_box *box)
{
	struct jupyter_site *site = box->site;

	site->stream = NULL;
	site->problem = read_answer(site, box->x->hooks.code_backend);
	site->known = true;
	buf_free(&site->said);
	site->said.max = SAID_MAX;
	execd_box_ref(box);
	tell_all(box);
	execd_box_unref(box);
}

static void said(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct execd_box *box = arg;

	if (type == AGENT_STDOUT)
		buf_append(&box->site->said, data, n);
	agent_stream_grant(box->site->stream, n);
}

static void asked(void *arg, const struct agent_exit *result)
{
	struct execd_box *box = arg;

	if (result->code || result->signal)
		buf_clear(&box->site->said);
	known(box);
}

static void not_asked(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	(void)end;
	(void)text;
	(void)n;
	known(arg); /* there is no shell */
}

static void lost(void *arg, const struct sbx_err *why)
{
	(void)why;
	known(arg); /* the contexts hear of it by themselves */
}

static int ask(struct execd_box *box, struct sbx_err *err)
{
	static const struct agent_stream_ops ops = {.data = said, .exited = asked, .ended = not_asked, .lost = lost};
	static const char strings[] = "\0bash\nsh\0-c\0" QUESTION;
	struct agent_spec spec = {.flags = AGENT_SPEC_DRIVER, .n_args = 3, .string_bytes = sizeof(strings)};
	struct agent_client *agent = execd_box_agent(box, err);
	uint8_t id[AGENT_ID_BYTES];
	auto_buf payload = {0};

	if (!agent)
		return -1;
	random_bytes(id, sizeof(id));
	buf_append(&payload, id, sizeof(id));
	buf_append(&payload, &spec, sizeof(spec));
	buf_append(&payload, strings, sizeof(strings));
	if (payload.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "code context");
	box->site->stream = agent_stream_open(agent, AGENT_EXEC, 0, buf_peek(&payload), buf_used(&payload), &ops, box, err);
	if (!box->site->stream)
		return -1;
	agent_stream_deadline(box->site->stream, ASK_MS);
	return 0;
}

bool jupyter_site_ask(struct code_context *c, bool needed)
{
	struct execd_box *box = c->box;
	struct sbx_err err;

	if (!box->site) {
		box->site = calloc(1, sizeof(*box->site));
		if (!box->site)
			return true; /* jupyter_wanted() says so */
		box->site->said.max = SAID_MAX;
	}
	if (box->site->known && (box->site->configured || !needed))
		return true;
	c->waits_for_site = true;
	if (box->site->stream || ask(box, &err) == 0)
		return false;
	c->waits_for_site = false;
	return true;
}

int jupyter_wanted(const struct code_context *c, bool refused, bool *ret, struct sbx_err *err)
{
	const struct jupyter_site *site = c->box->site;
	bool only = !c->language->shell && !c->language->argv[0];

	*ret = false;
	if (!site || !site->known)
		return only ? sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, CODE_UNKNOWN_LANGUAGE, c->language->name) : 0;
	if (site->problem)
		return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, CODE_NO_RUNTIME " (%s)", site->problem);
	if (site->backend == EXECD_CODE_NATIVE || (site->backend == EXECD_CODE_AUTO && !site->configured))
		return only ? sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, CODE_UNKNOWN_LANGUAGE, c->language->name) : 0;
	if (!site->configured)
		return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0,
				   CODE_NO_RUNTIME " (a Jupyter server is asked for, and JUPYTER_HOST and JUPYTER_TOKEN do not say which)");
	*ret = only || refused || site->backend == EXECD_CODE_JUPYTER;
	return 0;
}

/* ---- what is said to the server beside the kernels' sockets ---- */

struct jupyter_call {
	struct execd_box *box; /* NULL: nobody cares any more */
	struct jupyter_call *next;
	struct jupyter_conn *conn; /* owned */
	char method[8], path[JUPYTER_PATH_SIZE];
};

static void call_free(struct jupyter_call *call)
{
	for (struct jupyter_call **at = call->box ? &call->box->site->calls : NULL; at && *at; at = &(*at)->next)
		if (*at == call) {
			*at = call->next;
			break;
		}
	jupyter_conn_free(call->conn);
	free(call);
}

static void call_ready(void *arg)
{
	struct jupyter_call *call = arg;

	jupyter_conn_ask(call->conn, call->method, call->path, NULL);
}

static void call_answered(void *arg, unsigned status, char *body, size_t n)
{
	(void)status; /* what comes of an interrupt is seen on the kernel's socket, and a session that is gone is what was wanted */
	(void)body;
	(void)n;
	call_free(arg);
}

static void call_closed(void *arg, const struct sbx_err *why)
{
	(void)why;
	call_free(arg);
}

static void call_opened(void *arg, const int fds[2], const struct sbx_err *err)
{
	static const struct jupyter_conn_ops ops = {.ready = call_ready, .answer = call_answered, .closed = call_closed};
	struct jupyter_call *call = arg;
	struct execd_box *box = call->box;

	if (err || !box) {
		for (int i = 0; !err && i < 2; i++)
			close_keep_errno(fds[i]);
		call_free(call);
		return;
	}
	const struct jupyter_conn_config config = {.loop = box->x->loop,
						   .fds = {fds[0], fds[1]},
						   .port = box->site->port,
						   .token = box->site->token,
						   .deadline_ms = ASK_MS};
	call->conn = jupyter_conn_new(&config, &ops, call);
	if (!call->conn)
		call_free(call);
}

void jupyter_call(struct execd_box *box, struct http_request *req, const char *method, const char *path)
{
	struct jupyter_call *call = NULL;
	size_t n = 0;

	for (call = box->site ? box->site->calls : NULL; call; call = call->next)
		n += !strcmp(call->method, method); /* interrupts must not keep sessions from being ended */
	/* a server that answers none of them must not cost the gateway its descriptors; a run that is to be interrupted ends all the same */
	call = box->agent && box->site && n < CALLS_MAX ? calloc(1, sizeof(*call)) : NULL;
	if (!call)
		return;
	call->box = box;
	call->next = box->site->calls;
	box->site->calls = call;
	snprintf(call->method, sizeof(call->method), "%s", method);
	snprintf(call->path, sizeof(call->path), "%s", path);
	box->x->hooks.port(box->x->hooks.arg, box->sandbox_id, req, box->site->port, call_opened, call);
}

void jupyter_site_free(struct execd_box *box)
{
	if (!box->site)
		return;
	agent_stream_detach(box->site->stream);
	for (struct jupyter_call *call = box->site->calls, *next; call; call = next) {
		next = call->next;
		call->box = NULL;
		if (call->conn) /* else its sockets are on their way */
			call_free(call);
	}
	buf_free(&box->site->said);
	free(take_ptr(box->site));
}
