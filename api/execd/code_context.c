// SPDX-License-Identifier: Apache-2.0
#include "api/execd/code_int.h"

#include "api/execd/code_drivers.h"
#include "api/execd/code_events.h"
#include "api/execd/escape.h"
#include "api/execd/event_stream.h"
#include "api/execd/jupyter.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "base/wallclock.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define MAX_CONTEXTS 24u
/* A machine virtual machine on a loaded host; a missing program is told at once. */
#define START_MS     60000u
#define PATIENCE_MS  5000u
#define ASKED_MS     20u
#define SAID_BYTES   2048u
/* Frames that are not complete, and states of shells, of all contexts of one sandbox. */
#define HELD_BYTES   (8u * 1024 * 1024)

#define PYTHON_BOOT "import os;exec(compile(os.fdopen(197,'rb').read(),'<driver>','exec'))"

#define NODE_BOOT \
	"require('vm').runInThisContext((f=>{const t=f.readFileSync(197,'utf8');f.closeSync(197);return t})(require('fs'))," \
	"{filename:'<driver>'})(require,(n,o)=>o?eval('import(n,o)'):import(n))" /* old ones do not parse the second argument */

/* The module that makes a stream of a number is closed to other code without its opening here. */
#define JAVA_ARGS                                                                                                          \
	"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "--add-opens",                                 \
		"java.base/java.io=ALL-UNNAMED", "--add-modules", "jdk.jshell", "--source", "11", "/proc/self/fd/197"

/* The driver is built by the image's own compiler, so it has to be a file for a moment: in a directory of the context's user. */
#define GO_BOOT                                                                                                            \
	"command -v go >/dev/null || { printf 'no go command'; exit 127; }\n"                                                     \
	"d=$(mktemp -d \"${TMPDIR:-/tmp}/go-context.XXXXXX\") && cat /proc/self/fd/197 >\"$d/driver.go\" || exit 1\n"             \
	"go build -o \"$d/driver\" \"$d/driver.go\" && exec \"$d/driver\" \"$d\"\nrm -rf \"$d\"\nexit 1\n"
#define NO_SUCH_PROGRAM 127

static const struct code_language languages[] = {
	{"python", false, {"$EXECD_PYTHON\npython3\npython", "-c", PYTHON_BOOT}, code_driver_python, sizeof(code_driver_python), false},
	{"javascript", false, {"node\nnodejs", "-e", NODE_BOOT}, code_driver_javascript, sizeof(code_driver_javascript), true},
	{"typescript", false, {"node\nnodejs", "-e", NODE_BOOT, "typescript"}, code_driver_javascript, sizeof(code_driver_javascript), true},
	{"java", false, {JAVA_ARGS}, code_driver_java, sizeof(code_driver_java), false},
	{"go", false, {"bash\nsh", "-c", GO_BOOT}, code_driver_go, sizeof(code_driver_go), false},
	{"bash", true, {NULL}, NULL, 0, false},
};

static const struct code_language *language_find(const char *name)
{
	for (size_t i = 0; i < sizeof(languages) / sizeof(languages[0]); i++)
		if (!strcmp(languages[i].name, name))
			return &languages[i];
	return NULL;
}

/* A kernel's language has any name. */
bool code_language_offered(const struct execd_box *box, const char *name)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+#._-";

	return language_find(name) || (jupyter_may(box) && strlen(name) < CODE_NAME_SIZE && strspn(name, good) == strlen(name));
}

/* ---- the list ---- */

struct code_context *code_context_find(const struct execd_box *box, const char *id)
{
	for (struct code_context *c = box->contexts; c; c = c->next)
		if (!strcmp(c->id, id))
			return c;
	return NULL;
}

struct code_context *code_context_standard(const struct execd_box *box, const char *name)
{
	for (struct code_context *c = box->contexts; c; c = c->next)
		if (c->standard && !strcmp(c->language->name, name))
			return c;
	return NULL;
}

static void patience_over(void *arg);
static void asked_over(void *arg);
static void limit_over(void *arg);

struct code_context *code_context_new(struct execd_box *box, const char *name, const char *cwd, struct sbx_err *err)
{
	uint8_t id[16];

	if (box->n_contexts >= MAX_CONTEXTS) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "the sandbox has %u code contexts already", MAX_CONTEXTS);
		return NULL;
	}
	struct code_context *c = calloc(1, sizeof(*c));
	if (c) {
		c->patience = loop_timer_new(box->x->loop, patience_over, c);
		c->asked = loop_timer_new(box->x->loop, asked_over, c);
		c->limit = loop_timer_new(box->x->loop, limit_over, c);
		c->cwd = cwd && *cwd ? strdup(cwd) : NULL;
	}
	if (!c || !c->patience || !c->asked || !c->limit || (cwd && *cwd && !c->cwd)) {
		if (c) {
			loop_timer_free(c->patience);
			loop_timer_free(c->asked);
			loop_timer_free(c->limit);
			free(c->cwd);
			free(c);
		}
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "code context");
		return NULL;
	}
	c->box = box;
	c->language = language_find(name);
	if (!c->language) {
		snprintf(c->own_name, sizeof(c->own_name), "%s", name);
		c->own.name = c->own_name;
		c->language = &c->own;
	}
	c->said.max = SAID_BYTES;
	uuid_random(id);
	uuid_format(id, c->id);
	c->next = box->contexts;
	box->contexts = c;
	box->n_contexts++;
	return c;
}

static void context_free(struct code_context *c)
{
	loop_timer_free(c->patience);
	loop_timer_free(c->asked);
	loop_timer_free(c->limit);
	code_frames_clear(&c->frames);
	buf_free(&c->unsent);
	buf_free(&c->said);
	buf_free(&c->death);
	shell_state_clear(&c->shell);
	shell_dump_clear(&c->dump);
	jupyter_free(c);
	free(c->cwd);
	free(c);
}

void code_context_enter(struct code_context *c)
{
	c->busy++;
}

void code_context_leave(struct code_context *c)
{
	c->busy--;
	if (c->gone && !c->busy)
		context_free(c);
}

/* ---- the end of a run ---- */

static void put_raw(struct code_run *r, const char *type, const char *text, size_t n)
{
	if (n && r->out.req && r->sent)
		event_text(&r->out.events, type, text, n, run_stream_now_ms());
}

static void flush_tails(struct code_run *r)
{
	for (int i = 0; i < 2; i++) {
		put_raw(r, i ? "stderr" : "stdout", r->tail[i], r->n_tail[i]);
		r->n_tail[i] = 0;
	}
}

static void put_count(struct code_context *c)
{
	if (!c->run->counted && c->run->out.req)
		code_event_count(&c->run->out.events, c->count, run_stream_now_ms());
	c->run->counted = true;
}

static void put_error(struct code_context *c, const char *name, const char *value)
{
	static const struct code_list no_lines = {NULL, NULL};

	if (c->run->out.req)
		code_event_error(&c->run->out.events, name, strlen(name), value, strlen(value), no_lines, run_stream_now_ms());
}

static void free_run(struct code_context *c)
{
	struct code_run *r = take_ptr(c->run);

	loop_timer_disarm(c->limit);
	run_stream_clear(&r->out);
	free(r->code);
	free(r);
}

/* Everything but the last event was put. */
static void finish_run(struct code_context *c, enum code_state next)
{
	struct code_run *r = c->run;

	loop_timer_disarm(c->patience);
	loop_timer_disarm(c->asked);
	c->interrupts = 0;
	c->state = next;
	buf_free(&c->unsent);
	event_complete(&r->out.events, (int64_t)(mono_ms() - r->begun_ms), run_stream_now_ms());
	run_stream_end(&r->out);
	free_run(c);
	code_context_grant(c);
}

static void refuse_run(struct code_context *c, const struct sbx_err *err)
{
	run_stream_refuse(&c->run->out, err);
	free_run(c);
}

/* ---- ready, or not ---- */

static void hand_over(struct code_context *c);

static void tell_ready(struct code_context *c, const struct sbx_err *err)
{
	void (*ready)(void *, const struct sbx_err *) = c->ready;

	c->ready = NULL;
	if (ready)
		ready(c->ready_arg, err);
}

static void now_ready(struct code_context *c)
{
	if (c->stream)
		agent_stream_deadline(c->stream, 0);
	c->req = NULL;
	c->state = CODE_IDLE;
	c->proven = true;
	buf_free(&c->said);
	c->said.max = SAID_BYTES;
	tell_ready(c, NULL);
	if (c->run)
		hand_over(c);
}

/* It is COLD again.  A default context that never was ready is not listed either. */
static void start_failed(struct code_context *c, const struct sbx_err *err)
{
	c->state = CODE_COLD;
	c->stream = NULL;
	c->req = NULL;
	c->waits_for_site = false;
	code_frames_clear(&c->frames);
	loop_timer_disarm(c->patience);
	loop_timer_disarm(c->asked);
	c->interrupts = 0;
	if (c->run)
		refuse_run(c, err);
	tell_ready(c, err);
	if (c->standard && !c->proven && !c->gone)
		code_context_remove(c, NULL);
}

void code_context_failed(struct code_context *c, const struct sbx_err *err)
{
	start_failed(c, err);
}

/* Who runs it is no more; nothing is heard of it. */
static void drop_engine(struct code_context *c, struct http_request *req)
{
	agent_stream_detach(take_ptr(c->stream));
	jupyter_drop(c, req);
}

/* A fresh shell for each run. */
static bool is_shell(const struct code_context *c)
{
	return c->language->shell && !c->by_jupyter;
}

static bool has_engine(const struct code_context *c)
{
	return c->stream || c->by_jupyter;
}

static void exit_text(const struct agent_exit *result, char *text, size_t size)
{
	event_exit_text(result->code, result->signal, text, size);
}

static void choose_engine(struct code_context *c);

/* The image has no interpreter that a driver of ours could use.  Perhaps it has a Jupyter server. */
static void fall_back(struct code_context *c)
{
	c->refused = true;
	if (!jupyter_may(c->box) || jupyter_site_ask(c, true))
		choose_engine(c);
}

static void no_runtime(struct code_context *c)
{
	struct sbx_err err;
	size_t n = buf_used(&c->said);

	if (n)
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, CODE_NO_RUNTIME " (%.*s)", n < 100 ? (int)n : 100, buf_peek(&c->said));
	else
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, CODE_NO_RUNTIME);
	start_failed(c, &err);
}

static void died_starting(struct code_context *c, const char *how)
{
	struct sbx_err err;
	size_t n = buf_used(&c->said);

	if (c->refused) {
		fall_back(c);
		return;
	}
	sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "error running codes the %s interpreter ended before it was ready: %s%s%.*s",
		    c->language->name, how, n ? ": " : "", n < 120 ? (int)n : 120, n ? buf_peek(&c->said) : "");
	start_failed(c, &err);
}

static void died(struct code_context *c, const char *how)
{
	char text[160];

	c->stream = NULL;
	if (c->state == CODE_STARTING) {
		died_starting(c, how);
		return;
	}
	code_frames_clear(&c->frames);
	c->restarts++;
	if (c->state != CODE_RUNNING) {
		/* the next run says so */
		buf_clear(&c->death);
		buf_puts(&c->death, how);
		c->state = CODE_COLD;
		c->count = 0;
		return;
	}
	snprintf(text, sizeof(text), "the %s interpreter ended (%s); the context was restarted and its state is lost",
		 c->language->name, how);
	flush_tails(c->run);
	put_count(c);
	put_error(c, "KernelDied", text);
	c->count = 0;
	finish_run(c, CODE_COLD);
}

/* The driver sent what no driver of ours sends, or cannot go on. */
static void give_up(struct code_context *c, const char *why)
{
	drop_engine(c, NULL);
	died(c, why);
}

void code_context_died(struct code_context *c, const char *how)
{
	died(c, how);
}

/* ---- what the driver tells ---- */

static bool number_is(struct code_list *list, uint32_t want)
{
	char text[12];
	const char *got;
	size_t n;
	int len = snprintf(text, sizeof(text), "%u", want);

	return code_list_next(list, &got, &n) && n == (size_t)len && !memcmp(got, text, n);
}

static void told_end(struct code_context *c, struct code_list list)
{
	const char *name, *value;
	size_t name_n, value_n;

	if (c->state != CODE_RUNNING || !c->run->sent || !number_is(&list, c->count))
		return; /* of a run that is over */
	flush_tails(c->run);
	put_count(c);
	if (code_list_next(&list, &name, &name_n)) {
		if (!code_list_next(&list, &value, &value_n)) {
			value = "";
			value_n = 0;
		}
		if (c->run->out.req)
			code_event_error(&c->run->out.events, name, name_n, value, value_n, list, run_stream_now_ms());
	}
	finish_run(c, CODE_IDLE);
}

static void told_result(struct code_context *c, char type, struct code_list list)
{
	if (c->state != CODE_RUNNING || !c->run->sent || (type == 'R' && !number_is(&list, c->count)))
		return;
	flush_tails(c->run);
	if (type == 'R')
		put_count(c);
	if (c->run->out.req)
		code_event_result(&c->run->out.events, list, run_stream_now_ms());
}

static void send_interrupt(struct code_context *c);

/* An interrupt before that would have been nobody's. */
static void told_begun(struct code_context *c, struct code_list list)
{
	if (c->state != CODE_RUNNING || !c->run->sent || c->run->begun || !number_is(&list, c->count))
		return;
	c->run->begun = true;
	if (c->interrupts)
		send_interrupt(c);
}

static void told_output(struct code_context *c, char type, const uint8_t *text, size_t n)
{
	if (c->state == CODE_RUNNING)
		put_raw(c->run, type == 'E' ? "stderr" : "stdout", (const char *)text, n);
}

static int take_frame(void *arg, char type, const uint8_t *payload, size_t n)
{
	struct code_context *c = arg;
	struct code_list list = {payload, payload + n};

	switch (type) {
	case 'O':
	case 'E':
		told_output(c, type, payload, n);
		break;
	case 'H':
		if (c->state != CODE_STARTING)
			return -EPROTO;
		now_ready(c);
		break;
	case 'F':
		if (c->state != CODE_STARTING)
			return -EPROTO;
		c->refused = true;
		buf_clear(&c->said);
		buf_append(&c->said, payload, n < SAID_BYTES ? n : SAID_BYTES);
		break;
	default:
		if (!code_list_check(list) || c->state == CODE_STARTING)
			return -EPROTO;
		if (type == 'B')
			told_begun(c, list);
		else if (type == 'Z')
			told_end(c, list);
		else
			told_result(c, type, list);
		break;
	}
	return c->gone ? -ECANCELED : 0;
}

int code_context_frame(struct code_context *c, char type, const void *payload, size_t n)
{
	return c->gone ? -ECANCELED : take_frame(c, type, payload, n);
}

void code_context_flush(struct code_context *c)
{
	if (!c->gone && c->run)
		run_stream_send(&c->run->out);
	if (!c->gone)
		code_context_grant(c);
}

/* ---- what comes from the agent ---- */

void code_context_grant(struct code_context *c)
{
	if (c->by_jupyter && c->jupyter)
		jupyter_pause(c, c->run && run_stream_full(&c->run->out));
	if (!c->stream || !c->not_granted || (c->run && run_stream_full(&c->run->out)))
		return;
	agent_stream_grant(c->stream, c->not_granted);
	c->not_granted = 0;
}

/* Output of children and of C libraries: bytes, cut between characters where a read has cut through one. */
static void raw_output(struct code_context *c, int which, const char *data, size_t n)
{
	struct code_run *r = c->run;
	auto_buf whole = {0};

	if (c->state == CODE_STARTING)
		buf_append(&c->said, data, n < SAID_BYTES - buf_used(&c->said) ? n : SAID_BYTES - buf_used(&c->said));
	if (c->state != CODE_RUNNING)
		return; /* of a child that outlived its run */
	if (r->n_tail[which]) {
		buf_append(&whole, r->tail[which], r->n_tail[which]);
		buf_append(&whole, data, n);
		if (whole.failed)
			return;
		data = buf_peek(&whole);
		n = buf_used(&whole);
	}
	size_t cut = escape_utf8_cut(data, n);
	put_raw(r, which ? "stderr" : "stdout", data, cut);
	r->n_tail[which] = n - cut < sizeof(r->tail[which]) ? n - cut : 0;
	memcpy(r->tail[which], data + cut, r->n_tail[which]);
}

bool code_context_holds_too_much(const struct execd_box *box)
{
	size_t sum = 0;

	for (const struct code_context *c = box->contexts; c; c = c->next)
		sum += buf_used(&c->frames.held) + buf_used(&c->dump.text) + buf_used(&c->shell.text) + jupyter_held(c);
	return sum > HELD_BYTES;
}

static void context_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct code_context *c = arg;

	code_context_enter(c);
	c->not_granted += n;
	if (type != AGENT_DATA) {
		raw_output(c, type == AGENT_STDERR, (const char *)data, n);
	} else if (is_shell(c)) {
		shell_dump_add(&c->dump, data, n);
		c->dump.too_large |= code_context_holds_too_much(c->box);
	} else {
		int r = code_frames_feed(&c->frames, data, n, take_frame, c);

		if (r && !c->gone)
			give_up(c, r == -ENOMEM ? "out of memory" : "it broke the driver's protocol");
		else if (!c->gone && buf_used(&c->frames.held) && code_context_holds_too_much(c->box))
			give_up(c, "the unfinished values of this sandbox are too large");
	}
	code_context_flush(c);
	code_context_leave(c);
}

static void context_started(void *arg, const struct agent_started *started)
{
	struct code_context *c = arg;

	(void)started;
	if (is_shell(c))
		agent_stream_deadline(c->stream, 0);
}

static void send_code(void *arg)
{
	struct code_context *c = arg;
	struct sbx_err err;

	while (buf_used(&c->unsent)) {
		size_t room = agent_stream_room(c->stream), n = buf_used(&c->unsent);

		n = n < room ? n : room;
		if (!n || agent_stream_send(c->stream, AGENT_STDIN, buf_peek(&c->unsent), n, &err) < 0)
			return; /* `lost` comes, or `writable` */
		buf_consume(&c->unsent, n);
	}
	buf_free(&c->unsent);
}

/* A shell's run is over with its process. */
static void shell_exited(struct code_context *c, const struct agent_exit *result)
{
	char value[16], text[64];

	c->stream = NULL;
	if (!shell_state_take(&c->shell, &c->dump, result->signal ? 128 + result->signal : result->code) && c->run) {
		static const char note[] = "[the state became too large: the one from before this run stays]\n";

		put_raw(c->run, "stderr", note, sizeof(note) - 1);
	}
	if (c->state == CODE_STARTING) {
		c->shell.last_code = 0;
		c->state = CODE_IDLE;
		c->proven = true;
		tell_ready(c, NULL);
		if (c->run)
			hand_over(c);
		return;
	}
	flush_tails(c->run);
	put_count(c);
	exit_text(result, text, sizeof(text));
	snprintf(value, sizeof(value), "%d", result->signal ? -1 : result->code);
	struct code_list line = {NULL, NULL};
	auto_buf traceback = {0};
	uint8_t size[4] = {(uint8_t)strlen(text)};
	buf_append(&traceback, size, 4);
	buf_puts(&traceback, text);
	if (!traceback.failed)
		line = (struct code_list){(const uint8_t *)buf_peek(&traceback),
					  (const uint8_t *)buf_peek(&traceback) + buf_used(&traceback)};
	const char *name = c->interrupts ? "KeyboardInterrupt" : "CommandExecError";
	if ((result->code || result->signal) && c->run->out.req)
		code_event_error(&c->run->out.events, name, strlen(name), value, strlen(value), line, run_stream_now_ms());
	finish_run(c, CODE_IDLE);
}

static void context_exited(void *arg, const struct agent_exit *result)
{
	struct code_context *c = arg;
	char how[64];

	code_context_enter(c);
	exit_text(result, how, sizeof(how));
	if (is_shell(c)) {
		shell_exited(c, result);
	} else {
		c->refused |= c->state == CODE_STARTING && result->code == NO_SUCH_PROGRAM;
		died(c, how);
	}
	code_context_leave(c);
}

static void context_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct code_context *c = arg;
	struct sbx_err err;

	code_context_enter(c);
	bool no_program = end->reason == AGENT_FAILED_START && end->value == AGENT_STAGE_EXEC &&
			  (end->sys == ENOENT || end->sys == ENOTDIR);

	c->stream = NULL;
	if (no_program)
		sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, CODE_NO_RUNTIME);
	else
		execd_end_err(end, text, n, &err);
	if (c->state == CODE_STARTING && no_program) {
		fall_back(c);
	} else if (c->state == CODE_RUNNING) {
		c->state = CODE_IDLE; /* a shell that could not be started */
		refuse_run(c, &err);
	} else {
		start_failed(c, &err);
	}
	code_context_leave(c);
}

static void context_lost(void *arg, const struct sbx_err *why)
{
	struct code_context *c = arg;

	code_context_enter(c);
	c->stream = NULL;
	if (c->state == CODE_RUNNING) {
		c->state = CODE_COLD;
		refuse_run(c, why);
	} else {
		start_failed(c, why);
	}
	code_context_leave(c);
}

/* ---- starting ---- */

static const struct agent_stream_ops context_ops = {.started = context_started,
						    .data = context_data,
						    .writable = send_code,
						    .exited = context_exited,
						    .ended = context_ended,
						    .lost = context_lost};

static void put_spec(struct buf *out, const struct code_context *c)
{
	auto_buf strings = {0};
	struct agent_spec spec = {.flags = AGENT_SPEC_DRIVER};
	const char *cwd = c->cwd ? c->cwd : "";

	buf_append(&strings, cwd, strlen(cwd) + 1);
	for (; c->language->argv[spec.n_args]; spec.n_args++)
		buf_append(&strings, c->language->argv[spec.n_args], strlen(c->language->argv[spec.n_args]) + 1);
	spec.string_bytes = (uint32_t)buf_used(&strings);
	buf_append(out, c->command_id, sizeof(c->command_id));
	buf_append(out, &spec, sizeof(spec));
	buf_append(out, buf_peek(&strings), buf_used(&strings));
	buf_append(out, c->language->text, c->language->n_text);
	out->failed |= strings.failed;
}

static int open_process(struct code_context *c, const char *command, struct sbx_err *err)
{
	struct shell_run run = {.command = command, .first_cwd = c->cwd};
	auto_buf payload = {0};
	struct agent_client *agent = execd_box_agent(c->box, err);

	if (!agent)
		return -1;
	random_bytes(c->command_id, sizeof(c->command_id));
	if (!is_shell(c))
		put_spec(&payload, c);
	else if (shell_state_payload(&c->shell, &run, c->command_id, &c->dump, &payload, err) < 0)
		return -1;
	if (payload.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "code context");
	c->not_granted = 0;
	c->stream = agent_stream_open(agent, AGENT_EXEC, 0, buf_peek(&payload), buf_used(&payload), &context_ops, c, err);
	return c->stream ? 0 : -1;
}

static void start_process(struct code_context *c)
{
	struct sbx_err err;

	/* for a shell: is there one? */
	if (open_process(c, ":", &err) < 0) {
		start_failed(c, &err);
		return;
	}
	agent_stream_deadline(c->stream, START_MS);
}

static void start_engine(struct code_context *c)
{
	if (c->by_jupyter)
		jupyter_start(c);
	else
		start_process(c);
}

static void made_dir(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct code_context *c = arg;
	struct sbx_err err;

	code_context_enter(c);
	c->stream = NULL;
	if (end->reason == AGENT_OK) {
		c->cwd_made = true;
		start_engine(c);
	} else {
		execd_end_err(end, text, n, &err);
		start_failed(c, &err);
	}
	code_context_leave(c);
}

static void choose_engine(struct code_context *c)
{
	static const struct agent_stream_ops dir_ops = {.ended = made_dir, .lost = context_lost};
	struct sbx_err err;

	c->by_jupyter = false;
	if (jupyter_may(c->box) && jupyter_wanted(c, c->refused, &c->by_jupyter, &err) < 0) {
		start_failed(c, &err);
	} else if (c->refused && !c->by_jupyter) {
		no_runtime(c);
	} else if (!c->cwd || c->cwd_made) {
		start_engine(c);
	} else {
		c->stream = run_stream_mkdir(c->box, c->cwd, &dir_ops, c, &err);
		if (!c->stream)
			start_failed(c, &err);
	}
}

void code_context_sited(struct code_context *c)
{
	code_context_enter(c);
	if (c->state == CODE_STARTING)
		choose_engine(c);
	code_context_leave(c);
}

void code_context_start(struct code_context *c, struct http_request *req)
{
	bool only_jupyter = c->language == &c->own;

	code_context_enter(c);
	c->state = CODE_STARTING;
	c->refused = c->by_jupyter = false;
	c->req = req;
	buf_clear(&c->said);
	if (!jupyter_may(c->box) || jupyter_site_ask(c, only_jupyter))
		choose_engine(c);
	code_context_leave(c);
}

/* ---- running ---- */

/* It ended between two runs: whoever runs something next has to know. */
static void put_death(struct code_context *c)
{
	char note[192];

	if (!buf_used(&c->death))
		return;
	int n = snprintf(note, sizeof(note), "[the %s interpreter had ended (%.*s); it was restarted and its state is lost]\n",
			 c->language->name, (int)buf_used(&c->death), buf_peek(&c->death));
	put_raw(c->run, "stderr", note, (size_t)n);
	buf_free(&c->death);
}

/* The interpreter is ready for the code of c->run. */
static void hand_over(struct code_context *c)
{
	struct code_run *r = c->run;
	struct sbx_err err;

	c->state = CODE_RUNNING;
	c->count++;
	if (c->interrupts) { /* it came while the interpreter started */
		run_stream_begin(&r->out, c->id);
		put_count(c);
		put_error(c, "KeyboardInterrupt", "");
		finish_run(c, CODE_IDLE);
		return;
	}
	if (is_shell(c)) {
		if (open_process(c, r->code, &err) < 0) {
			c->state = CODE_IDLE;
			refuse_run(c, &err);
			return;
		}
	} else if ((c->by_jupyter ? jupyter_run(c, c->count, r->code) : code_frames_cell(&c->unsent, c->count, r->code)) < 0) {
		buf_free(&c->unsent);
		c->state = CODE_IDLE;
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "code");
		refuse_run(c, &err);
		return;
	}
	r->sent = true;
	run_stream_begin(&r->out, c->id);
	put_death(c);
	run_stream_send(&r->out);
	free(take_ptr(r->code));
	if (!is_shell(c))
		send_code(c);
}

void code_context_run(struct code_context *c, struct code_run *r)
{
	code_context_enter(c);
	c->run = r;
	r->context = c;
	r->begun_ms = mono_ms();
	if (r->timeout_ms)
		loop_timer_arm(c->limit, r->timeout_ms);
	if (c->state == CODE_IDLE)
		hand_over(c);
	else if (c->state == CODE_COLD)
		code_context_start(c, r->out.req);
	code_context_leave(c);
}

/* ---- interrupt ---- */

static void send_signal(struct code_context *c, int signo)
{
	static const struct agent_stream_ops none = {0};
	struct sbx_err err;
	struct agent_client *agent = execd_box_agent(c->box, &err);

	if (agent)
		ignore_result(!agent_stream_open(agent, AGENT_SIGNAL, (uint32_t)signo, c->command_id, sizeof(c->command_id), &none,
						 NULL, &err)); /* the next step follows in any case */
}

/*
 * A driver whose loop runs reads the frame and ends its cell: nothing can hit the next one, or the moment in which vm takes its
 * watch for signals on or off, where a signal is lost or ends the process.  One that does not is in a cell that does not
 * wait, and the signal is for that.
 */
static void send_interrupt(struct code_context *c)
{
	/* whole or not at all: what is not sent when its run is over is dropped */
	if (c->language->told && !buf_used(&c->unsent) && agent_stream_room(c->stream) >= 2 * CODE_FRAME_HEAD &&
	    !code_frames_interrupt(&c->unsent, c->count)) {
		send_code(c);
		loop_timer_arm(c->asked, ASKED_MS);
	} else {
		send_signal(c, SIGINT);
	}
}

static void asked_over(void *arg)
{
	struct code_context *c = arg;

	if (c->state != CODE_RUNNING || !has_engine(c))
		return;
	code_context_enter(c);
	send_signal(c, SIGINT);
	code_context_leave(c);
}

static void patience_over(void *arg)
{
	struct code_context *c = arg;

	if (c->state != CODE_RUNNING || !has_engine(c))
		return;
	code_context_enter(c);
	if (c->interrupts++ < 2) {
		if (c->stream)
			send_interrupt(c);
		loop_timer_arm(c->patience, PATIENCE_MS);
	} else if (is_shell(c)) {
		static const struct agent_exit killed = {.code = -1, .signal = SIGKILL};

		agent_stream_detach(c->stream);
		shell_exited(c, &killed);
	} else {
		give_up(c, "killed, because it did not end at an interrupt");
	}
	code_context_leave(c);
}

void code_context_interrupt(struct code_context *c, struct http_request *req)
{
	if (!c->run)
		return;
	c->interrupts++;
	if (c->state != CODE_RUNNING || !has_engine(c))
		return; /* it has not begun: see hand_over() */
	if (c->by_jupyter)
		jupyter_interrupt(c, req);
	else if (is_shell(c) || c->run->begun)
		send_interrupt(c); /* else when it has begun */
	if (!loop_timer_armed(c->patience))
		loop_timer_arm(c->patience, PATIENCE_MS);
}

/* As if its client had interrupted it, and told as such. */
static void limit_over(void *arg)
{
	struct code_context *c = arg;
	char note[96];

	if (!c->run)
		return;
	code_context_enter(c);
	int n = snprintf(note, sizeof(note), "[interrupted after the timeout of %u ms]\n", c->run->timeout_ms);
	put_raw(c->run, "stderr", note, (size_t)n);
	code_context_interrupt(c, NULL);
	code_context_flush(c);
	code_context_leave(c);
}

/* ---- the end of a context ---- */

void code_context_remove(struct code_context *c, struct http_request *req)
{
	struct sbx_err err;

	if (c->gone)
		return;
	for (struct code_context **at = &c->box->contexts; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			c->box->n_contexts--;
			break;
		}
	code_context_enter(c);
	c->gone = true;
	c->req = NULL;
	c->waits_for_site = false;
	drop_engine(c, req);
	sbx_err_set(&err, SBX_E_EXECD_RUNTIME, 0, "error running codes context not found");
	if (c->run && c->run->sent) {
		flush_tails(c->run);
		put_error(c, "KernelDied", "the context was deleted");
		finish_run(c, CODE_COLD);
	} else if (c->run) {
		refuse_run(c, &err);
	}
	tell_ready(c, &err);
	code_context_leave(c);
}

void code_free_all(struct execd_box *box)
{
	while (box->contexts)
		code_context_remove(box->contexts, NULL);
	jupyter_site_free(box);
}
