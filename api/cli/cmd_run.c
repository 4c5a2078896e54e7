// SPDX-License-Identifier: Apache-2.0
/* run and exec */
#include "api/cli/client.h"
#include "api/cli/egress.h"
#include "api/cli/spec.h"
#include "api/cli/stream.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* A throw-away sandbox outlives a killed sandboxctl by no more than this; while it runs, its end is moved on. */
#define THROW_AWAY_S 600u
#define RENEW_MS     200000u
#define END_POLL_MS  20
#define MADE_POLL_MS 200

/* --- the command line that runs inside --- */

static int write_exports(const struct cli_args *args, struct buf *out, struct sbx_err *err)
{
	const char *text;
	const char *value;
	char name[256];
	size_t at = 0;

	while ((text = cli_next(args, "env", &at))) {
		if (spec_env(text, name, &value, err) < 0)
			return -1;
		if (!value)
			continue;
		if (name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")] ||
		    (name[0] >= '0' && name[0] <= '9'))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "-e %.60s: a shell cannot set that name", name);
		const char *const words[] = {value, NULL};
		/* an assignment is quoted behind its "=" */
		buf_printf(out, "export %s=", name);
		spec_quote(out, words);
		buf_puts(out, "; ");
	}
	return 0;
}

static int shell_line(const struct cli_args *args, const char *const *words, bool tty, bool pass_stdin, struct buf *out,
		      struct sbx_err *err)
{
	const char *term = getenv("TERM");

	if (tty) {
		const char *const one[] = {term && *term ? term : "xterm-256color", NULL};

		buf_puts(out, "export TERM=");
		spec_quote(out, one);
		buf_puts(out, "; ");
	}
	/* run gives -e to the sandbox, exec only to its command */
	if (!strcmp(args->command->name, "exec") && write_exports(args, out, err) < 0)
		return -1;
	if (words[0]) {
		buf_puts(out, "exec ");
		spec_quote(out, words);
	} else {
		buf_puts(out, "command -v bash >/dev/null 2>&1 && exec bash; exec sh");
	}
	if (!pass_stdin && !tty)
		buf_puts(out, " </dev/null");
	return out->failed ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "command line") : 0;
}

/* --- another user: by POST /command, whose events are lines --- */

struct events {
	struct buf line;
	char command[80]; /* its id */
	int exit_code, signal;
	bool ended, killed;
};

static int signal_of(const char *text)
{
	static const struct {
		const char *name;
		int number;
	} names[] = {{"killed", SIGKILL}, {"terminated", SIGTERM}, {"interrupt", SIGINT}, {"hangup", SIGHUP}, {"quit", SIGQUIT},
		     {"aborted", SIGABRT}, {"segmentation fault", SIGSEGV}, {"broken pipe", SIGPIPE}, {"bus error", SIGBUS},
		     {"illegal instruction", SIGILL}, {"floating point exception", SIGFPE}, {"alarm clock", SIGALRM},
		     {"trace/breakpoint trap", SIGTRAP}, {"user defined signal 1", SIGUSR1}, {"user defined signal 2", SIGUSR2}};

	static const char by_number[] = "signal: signal ";
	uint32_t number;

	for (size_t i = 0; text && i < ARRAY_SIZE(names); i++)
		if (strstr(text, names[i].name))
			return names[i].number;
	if (text && !strncmp(text, by_number, strlen(by_number)) &&
	    num_u32(text + strlen(by_number), strlen(text + strlen(by_number)), NSIG - 1, &number) == 0 && number)
		return (int)number;
	return SIGKILL;
}

static void take_event(struct events *e)
{
	struct sbx_err ignored;
	auto_jv root = jv_parse(buf_peek(&e->line), buf_used(&e->line), &ignored);
	const char *type = jv_str(jv_get(root, "type"));
	const char *text = jv_str(jv_get(root, "text"));
	const struct jv *error = jv_get(root, "error");
	int64_t code;

	if (!type)
		return;
	if ((!strcmp(type, "stdout") || !strcmp(type, "stderr")) && text) {
		FILE *to = type[3] == 'o' ? stdout : stderr;

		fputs(text, to);
		if (strcmp(text, "\n") != 0)
			fputc('\n', to);
		fflush(to);
	} else if (!strcmp(type, "init") && text) {
		snprintf(e->command, sizeof(e->command), "%s", text);
	} else if (!strcmp(type, "execution_complete")) {
		e->ended = true;
	} else if (!strcmp(type, "error")) {
		const char *value = jv_str(jv_get(error, "evalue"));
		const char *trace = jv_str(jv_first(jv_get(error, "traceback")));

		e->ended = true;
		if (value && num_i64(value, strlen(value), &code) == 0 && code >= 0 && code < 256) {
			e->exit_code = (int)code;
		} else if (value && !strcmp(value, "-1")) {
			e->killed = true;
			e->exit_code = 128 + signal_of(trace);
		} else {
			cli_say("%s", value ? value : "the command could not be started");
			e->exit_code = CLI_EXIT_DAEMON;
		}
	}
}

static int take_block(struct events *e, const char *block, size_t n, struct sbx_err *err)
{
	for (size_t from = 0; from < n;) {
		const char *end = memchr(block + from, '\n', n - from);
		size_t to = end ? (size_t)(end - block) : n;

		buf_append(&e->line, block + from, to - from);
		if (e->line.failed)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "a line of output is too long");
		if (end) {
			take_event(e);
			buf_clear(&e->line);
		}
		from = to + (end != NULL);
	}
	return 0;
}

static int read_events(struct http_client *http, const struct stream_spec *spec, struct events *e, struct sbx_err *err)
{
	uint64_t next_tick_mono_ms = mono_ms() + spec->tick_ms;
	char block[32768];
	ssize_t n;

	do {
		e->signal = stream_wait(http, spec, &next_tick_mono_ms);
		if (e->signal)
			return 0;
		n = http_client_read(http, block, sizeof(block), err);
		if (n < 0 || (n > 0 && take_block(e, block, (size_t)n, err) < 0))
			return -1;
	} while (n > 0);
	return e->ended ? 0 : sbx_err_set(err, SBX_E_PEER_GONE, 0, "the output broke off");
}

/* A command does not end with the connection that started it. */
static void interrupt_command(struct cli *cli, const char *id, const char *command)
{
	auto_buf target = {0};
	struct sbx_err ignored;

	buf_printf(&target, "/sandboxes/%s/proxy/44772/command?id=", id);
	client_escape(&target, command);
	if (buf_str(&target))
		ignore_result(client_call(cli, "DELETE", buf_str(&target), NULL, NULL, &ignored) < 0); /* it may have ended */
}

static int write_user(const char *user, struct jw *w, struct sbx_err *err)
{
	uint32_t id;
	size_t n = strcspn(user, ":");

	if (num_u32(user, n, 65535, &id) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "-u %.60s: not UID or UID:GID, each 0 to 65535", user);
	jw_key_u64(w, "uid", id);
	if (!user[n])
		return 0;
	if (num_u32(user + n + 1, strlen(user + n + 1), 65535, &id) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "-u %.60s: not UID or UID:GID, each 0 to 65535", user);
	jw_key_u64(w, "gid", id);
	return 0;
}

static int command_body(const struct cli_args *args, const char *line, bool background, struct buf *body, struct sbx_err *err)
{
	const char *timeout = cli_text(args, "timeout");
	const char *user = cli_text(args, "user");
	struct jw w = {.out = body};
	uint64_t seconds;

	jw_object(&w);
	jw_key_str(&w, "command", line);
	jw_key_str(&w, "cwd", cli_text(args, "workdir"));
	if (background)
		jw_key_bool(&w, "background", true);
	if (timeout && !strcmp(args->command->name, "exec")) {
		if (spec_seconds(timeout, &seconds, err) < 0)
			return -1;
		jw_key_u64(&w, "timeout", seconds * 1000);
	}
	if (user && write_user(user, &w, err) < 0)
		return -1;
	jw_object_end(&w);
	return body->failed ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request") : 0;
}

static int command_begin(struct cli *cli, struct http_client *http, const char *id, struct buf *body, struct sbx_err *err)
{
	char target[160];
	struct http_client_response response;
	const struct http_client_request request = {.method = "POST", .target = target, .headers = "Content-Type: application/json\r\n",
						    .body = buf_peek(body), .body_len = buf_used(body)};

	snprintf(target, sizeof(target), "/sandboxes/%s/proxy/44772/command", id);
	http_client_timeout(http, 0);
	return client_begin(cli, http, &request, &response, err);
}

static int command_run(struct cli *cli, const struct cli_args *args, const struct stream_spec *spec, struct stream_result *ret,
		       struct sbx_err *err)
{
	struct events e = {.line = {.max = 64u * 1024 * 1024}};
	auto_buf body = {0};
	struct http_client *http = client_connect(cli, err);
	int rc = -1;

	*ret = (struct stream_result){0};
	if (http && command_body(args, spec->command, false, &body, err) == 0 && command_begin(cli, http, spec->id, &body, err) == 0)
		rc = read_events(http, spec, &e, err);
	http_client_free(http);
	if (rc == 0 && e.signal && *e.command)
		interrupt_command(cli, spec->id, e.command);
	buf_free(&e.line);
	ret->exit_code = e.exit_code;
	ret->killed = e.killed;
	ret->signal = e.signal;
	return rc;
}

/* --- both ways --- */

struct job {
	const char *id;
	bool tty, pass_stdin;
	void (*tick)(void *arg);
	void *tick_arg;
	unsigned int tick_ms;
};

static int run_job(struct cli *cli, const struct cli_args *args, const char *const *words, const struct job *job,
		   struct stream_result *ret, struct sbx_err *err)
{
	auto_buf line = {0};
	bool by_command = cli_flag(args, "user") || (!strcmp(args->command->name, "exec") && cli_flag(args, "timeout"));

	if (by_command && (job->tty || job->pass_stdin))
		return sbx_err_set(err, SBX_E_NOT_IMPLEMENTED, 0, "-i and -t do not go with --user or --timeout of exec");
	if (shell_line(args, words, job->tty, job->pass_stdin || by_command, &line, err) < 0)
		return -1;
	const char *text = buf_str(&line);
	if (!text)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "command line");
	const struct stream_spec spec = {.id = job->id, .command = text, .workdir = cli_text(args, "workdir"), .tty = job->tty,
					 .pass_stdin = job->pass_stdin, .tick = job->tick, .tick_arg = job->tick_arg,
					 .tick_ms = job->tick_ms};
	if (by_command)
		return command_run(cli, args, &spec, ret, err);
	int rc = stream_run(cli, &spec, ret, err);
	/* all sessions of the sandbox are taken: commands without stdin have another way, whose output comes by lines */
	if (rc < 0 && err->code == SBX_E_OVERLOADED && strstr(err->msg, "sessions") && !job->tty && !job->pass_stdin)
		return command_run(cli, args, &spec, ret, err);
	return rc;
}

/* Moves *text, "NAME   value", to its value; Return: length of the value, 0 when there is no text. */
static int word_length(const char **text, size_t name)
{
	size_t n;

	if (!*text) {
		*text = "";
		return 0;
	}
	*text += name;
	*text += strspn(*text, " ");
	n = strcspn(*text, "\n");
	return n < 40 ? (int)n : 40;
}

/* After a SIGKILL from inside: was it the memory limit?  The daemon's own words, when it has some. */
static void explain_kill(struct cli *cli, const char *id)
{
	char target[160];
	struct http_client *http;
	const struct http_client_request request = {.method = "GET", .target = target};
	struct http_client_response response;
	struct sbx_err ignored;
	auto_free char *text = NULL;

	snprintf(target, sizeof(target), "/v1/sandboxes/%s/diagnostics/inspect", id);
	http = client_http(cli, &ignored);
	if (!http || client_begin(cli, http, &request, &response, &ignored) < 0 ||
	    http_client_body(http, 1u << 20, &text, NULL, &ignored) < 0)
		return;
	const char *oom = strstr(text, "\nOOM kills:");
	const char *memory = strstr(text, "\n  memory ");
	const char *peak = strstr(text, "\n  peak ");
	if (!oom || oom[11 + strspn(oom + 11, " ")] == '0')
		return;
	int n_memory = word_length(&memory, 10);
	int n_peak = word_length(&peak, 8);
	cli_say("killed: out of memory (limit %.*s, peak %.*s); raise it with -m", n_memory, memory, n_peak, peak);
}

/* --- run --- */

struct throw_away {
	struct cli *cli;
	const char *id;
};

static void keep_alive(void *arg)
{
	const struct throw_away *t = arg;
	char target[160];
	char when[RFC3339_SIZE];
	auto_buf body = {0};
	struct jw w = {.out = &body};
	struct sbx_err ignored;

	rfc3339_format(wall_usec() + (int64_t)THROW_AWAY_S * 1000000, when);
	jw_object(&w);
	jw_key_str(&w, "expiresAt", when);
	jw_object_end(&w);
	snprintf(target, sizeof(target), "/v1/sandboxes/%s/renew-expiration", t->id);
	/* when it fails the sandbox ends earlier, and the stream says so */
	ignore_result(client_call(t->cli, "POST", target, &body, NULL, &ignored) < 0);
}

static int drop_sandbox(struct cli *cli, const char *id, struct sbx_err *err)
{
	char target[160];

	snprintf(target, sizeof(target), "/v1/sandboxes/%s", id);
	if (client_call(cli, "DELETE", target, NULL, NULL, err) < 0 && err->code != SBX_E_SANDBOX_NOT_FOUND)
		return sbx_err_wrap(err, "remove sandbox %.8s", id);
	return 0;
}

static int keep_id(void *arg, const struct jv *item)
{
	const char *id = jv_str(jv_get(item, "id"));

	if (id)
		snprintf(arg, UUID_SIZE, "%s", id);
	return id != NULL;
}

/* A create that failed may have left a record of why, which is for clients that did not see the error; we did. */
static void drop_failed(struct cli *cli, const char *label)
{
	char filter[80];
	char id[UUID_SIZE] = "";
	struct sbx_err ignored;

	snprintf(filter, sizeof(filter), "&metadata=" SPEC_RUN_LABEL "%%3D%s", label);
	if (client_walk(cli, filter, keep_id, id, &ignored) > 0)
		ignore_result(drop_sandbox(cli, id, &ignored) < 0); /* it ends with its time otherwise */
}

/* A create whose image comes slowly is answered before the sandbox is there. */
static int wait_until_made(struct cli *cli, const char *id, struct sbx_err *err)
{
	char target[160];
	bool said = false;

	snprintf(target, sizeof(target), "/v1/sandboxes/%s", id);
	for (;;) {
		auto_jv root = NULL;

		if (stream_signal())
			return sbx_err_set(err, SBX_E_SYSTEM, EINTR, "the image was still being pulled");
		if (client_call(cli, "GET", target, NULL, &root, err) < 0)
			return -1;
		const struct jv *status = jv_get(root, "status");
		const char *state = jv_str(jv_get(status, "state")), *message = jv_str(jv_get(status, "message"));
		if (!state || !strcmp(state, "Failed"))
			return sbx_err_set(err, SBX_E_IMAGE_PULL_FAILED, 0, "%.200s", message ? message : "the sandbox was not made");
		if (strcmp(state, "Pending") != 0)
			return 0;
		if (!said && message)
			cli_say("%s", message);
		said = true;
		/* the API has no call that waits for a state */
		ignore_result(poll(NULL, 0, MADE_POLL_MS) < 0);
	}
}

static int make_sandbox(struct cli *cli, const struct cli_args *args, const char *const *entrypoint, char id[UUID_SIZE],
			struct sbx_err *err)
{
	uint8_t random[8];
	char label[2 * sizeof(random) + 1];
	const struct spec_extra extra = {.entrypoint = entrypoint, .default_timeout_s = THROW_AWAY_S, .run_label = label};
	auto_buf body = {0};
	struct jv *answer = NULL;
	uint8_t raw[16];

	random_bytes(random, sizeof(random));
	hex_encode(random, sizeof(random), label);
	if (spec_create(args, &extra, &body, err) < 0)
		return -1;
	if (client_create(cli, &body, &answer, err) < 0) {
		if (err->code == SBX_E_START_FAILED)
			drop_failed(cli, label);
		return -1;
	}
	const char *text = jv_str(jv_get(answer, "id"));
	int rc = text && uuid_parse(text, raw) == 0 ? 0 : sbx_err_set(err, SBX_E_PROTOCOL, 0, "the daemon gave no id");
	if (rc == 0)
		uuid_format(raw, id);
	const char *state = jv_str(jv_get(jv_get(answer, "status"), "state"));
	bool pending = state && !strcmp(state, "Pending");
	jv_free(answer);
	if (rc == 0 && pending && wait_until_made(cli, id, err) < 0) {
		struct sbx_err ignored;

		ignore_result(drop_sandbox(cli, id, &ignored) < 0); /* it ends with its time otherwise */
		return -1;
	}
	return rc;
}

static double ms_between(uint64_t from_usec, uint64_t to_usec)
{
	return to_usec > from_usec ? (double)(to_usec - from_usec) / 1000.0 : 0.0;
}

/* The end of what is no terminal would not be one inside: the command would wait for ever. */
static bool has_terminal(void)
{
	bool has = isatty(STDIN_FILENO) == 1;

	if (!has)
		cli_say("-t: stdin is no terminal; use -i alone");
	return has;
}

/* Return: exit code, or -1 with @err set. */
static int run_in(struct cli *cli, const struct cli_args *args, const char *const *words, const char *id, struct sbx_err *err)
{
	struct throw_away keep = {.cli = cli, .id = id};
	struct stream_result result;
	bool stdin_tty = isatty(STDIN_FILENO) == 1;
	/* no command and a terminal: what is wanted is a shell to type in */
	bool tty = cli_flag(args, "tty") || (!words[0] && stdin_tty);
	const struct job job = {.id = id, .tty = tty, .pass_stdin = tty || cli_flag(args, "interactive") || !words[0],
				.tick = cli_flag(args, "timeout") ? NULL : keep_alive, .tick_arg = &keep, .tick_ms = RENEW_MS};

	if (run_job(cli, args, words, &job, &result, err) < 0)
		return -1;
	if (result.signal)
		return 128 + result.signal;
	if (result.exit_code == 128 + SIGKILL)
		explain_kill(cli, id);
	return result.exit_code;
}

/* Whether what failed is the start of the shell that commands run in; the other ways in do not need one. */
static bool lacks_shell(const struct cli_args *args, const char *const *words, const struct sbx_err *err)
{
	return err->code == SBX_E_EXECD_RUNTIME && !strncmp(err->msg, "start:", 6) && words[0] && !cli_flag(args, "interactive") &&
	       !cli_flag(args, "tty");
}

/* --- an image without a shell: the command is the sandbox's first process --- */

static int print_logs(struct cli *cli, const char *id, struct sbx_err *err)
{
	char target[160];
	const struct http_client_request request = {.method = "GET", .target = target};
	struct http_client_response response;
	struct http_client *http = client_http(cli, err);
	char block[16384];
	ssize_t n;

	snprintf(target, sizeof(target), "/v1/sandboxes/%s/diagnostics/logs?tail=10000", id);
	if (!http || client_begin(cli, http, &request, &response, err) < 0)
		return -1;
	while ((n = http_client_read(http, block, sizeof(block), err)) > 0)
		fwrite(block, 1, (size_t)n, stdout);
	return n < 0 ? -1 : 0;
}

/* The daemon's sentence about the end of an entrypoint has its exit code last. */
static int exit_code_of(const char *message)
{
	const char *at = message ? strstr(message, "exit code ") : NULL;
	uint32_t code;

	return at && num_u32(at + 10, strspn(at + 10, "0123456789"), 255, &code) == 0 ? (int)code : CLI_EXIT_DAEMON;
}

/* Return: exit code, or -1 with @err set. */
static int wait_for_end(struct cli *cli, const char *id, struct sbx_err *err)
{
	char target[160];

	snprintf(target, sizeof(target), "/v1/sandboxes/%s", id);
	for (;;) {
		struct jv *root = NULL;
		int signo = stream_signal();

		if (signo)
			return 128 + signo;
		if (client_call(cli, "GET", target, NULL, &root, err) < 0)
			return -1;
		const struct jv *status = jv_get(root, "status");
		const char *state = jv_str(jv_get(status, "state"));
		bool ended = state && (!strcmp(state, "Terminated") || !strcmp(state, "Failed"));
		int code = ended ? exit_code_of(jv_str(jv_get(status, "message"))) : 0;

		jv_free(root);
		if (ended)
			return print_logs(cli, id, err) < 0 ? -1 : code;
		/* the API has no call that waits for an end */
		ignore_result(poll(NULL, 0, END_POLL_MS) < 0);
	}
}

static int run_as_entrypoint(struct cli *cli, const struct cli_args *args, const char *const *words, struct sbx_err *err)
{
	char id[UUID_SIZE];
	struct sbx_err ignored;

	if (make_sandbox(cli, args, words, id, err) < 0)
		return -1;
	int code = wait_for_end(cli, id, err);
	if (drop_sandbox(cli, id, &ignored) < 0)
		cli_fail(cli, &ignored);
	return code;
}

int cmd_run(struct cli *cli, const struct cli_args *args)
{
	static const char *const wait[] = {SPEC_WAIT, NULL};
	const char *image_command[256];
	const char *const *words = args->operands;
	struct jv *keep = NULL;
	struct sbx_err err = {0};
	char id[UUID_SIZE];
	uint64_t began = mono_usec();

	if (cli_flag(args, "tty") && !has_terminal())
		return CLI_EXIT_USAGE;
	/* before signals are held: Ctrl-C ends the pull, and there is no sandbox yet */
	if (pull_for(cli, args, &err) < 0) {
		cli_fail(cli, &err);
		return CLI_EXIT_DAEMON;
	}
	/* from here a signal waits until it can be answered by removing the sandbox */
	stream_signals_hold();
	if (args->n_operands == 0 && !cli_flag(args, "tty") && !isatty(STDIN_FILENO)) {
		if (spec_image_command(cli, cli_text(args, "image"), image_command, ARRAY_SIZE(image_command), &keep, &err) < 0) {
			cli_fail(cli, &err);
			return CLI_EXIT_DAEMON;
		}
		words = image_command;
	}
	if (make_sandbox(cli, args, wait, id, &err) < 0) {
		jv_free(keep);
		cli_fail(cli, &err);
		return CLI_EXIT_DAEMON;
	}
	uint64_t created = mono_usec();
	struct sbx_err drop_err = {0};
	int signo = stream_signal();
	int code = signo ? 128 + signo : run_in(cli, args, words, id, &err);
	uint64_t ran = mono_usec();
	egress_note(cli, args, id);
	if (drop_sandbox(cli, id, &drop_err) < 0) {
		cli_fail(cli, &drop_err);
		cli_say("it ends by itself in %u minutes at most", THROW_AWAY_S / 60);
	}
	uint64_t dropped = mono_usec();
	if (code < 0 && lacks_shell(args, words, &err))
		code = run_as_entrypoint(cli, args, words, &err);
	jv_free(keep);
	if (code < 0)
		cli_fail(cli, &err);
	if (code < 0 || (drop_err.code && code == 0))
		code = CLI_EXIT_DAEMON;
	if (cli_flag(args, "timings"))
		cli_say("timings: create %.1f ms   command %.1f ms   delete %.1f ms", ms_between(began, created),
			ms_between(created, ran), ms_between(ran, dropped));
	return code;
}

/* --- exec --- */

static int exec_detached(struct cli *cli, const struct cli_args *args, const char *id, struct sbx_err *err)
{
	auto_buf line = {0};
	auto_buf body = {0};
	auto_free char *answer = NULL;
	struct http_client *http = client_connect(cli, err);
	size_t n = 0;
	int rc = -1;

	if (http && shell_line(args, args->operands + 1, false, true, &line, err) == 0 && buf_str(&line) &&
	    command_body(args, buf_str(&line), true, &body, err) == 0 && command_begin(cli, http, id, &body, err) == 0)
		rc = http_client_body(http, 1u << 20, &answer, &n, err);
	http_client_free(http);
	if (rc < 0)
		return -1;
	char *end = memchr(answer, '\n', n);
	auto_jv first = jv_parse(answer, end ? (size_t)(end - answer) : n, err);
	const char *command = jv_str(jv_get(first, "text"));
	if (!command)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the daemon gave no command id");
	printf("%s\n", command);
	return 0;
}

int cmd_exec(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	struct stream_result result;
	char id[UUID_SIZE];
	bool tty = cli_flag(args, "tty");
	struct job job = {.id = id, .tty = tty, .pass_stdin = tty || cli_flag(args, "interactive")};

	if (client_find(cli, args->operands[0], id, &err) < 0) {
		cli_fail(cli, &err);
		return CLI_EXIT_DAEMON;
	}
	if (cli_flag(args, "detach")) {
		if (exec_detached(cli, args, id, &err) == 0)
			return 0;
		cli_fail(cli, &err);
		return CLI_EXIT_DAEMON;
	}
	if (tty && !has_terminal())
		return CLI_EXIT_USAGE;
	stream_signals_hold();
	if (run_job(cli, args, args->operands + 1, &job, &result, &err) < 0) {
		cli_fail(cli, &err);
		return CLI_EXIT_DAEMON;
	}
	if (result.signal) /* the session is dropped, and its processes with it */
		return 128 + result.signal;
	if (result.exit_code == 128 + SIGKILL)
		explain_kill(cli, id);
	return result.exit_code;
}
