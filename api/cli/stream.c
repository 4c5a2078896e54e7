// SPDX-License-Identifier: Apache-2.0
#include "api/cli/stream.h"

#include "api/cli/client.h"

#include "base/cleanup.h"
#include "base/wallclock.h"
#include "base/ws.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

#define BLOCK	 32768
#define TEXT_MAX 65536

enum { KIND_STDIN = 0, KIND_STDOUT = 1, KIND_STDERR = 2, KIND_REPLAY = 3, KIND_NONE = 255 };

static volatile sig_atomic_t end_signal, window_changed;

static void on_signal(int signo)
{
	if (signo == SIGWINCH)
		window_changed = 1;
	else if (!end_signal)
		end_signal = signo;
}

static void held_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGWINCH);
}

void stream_signals_hold(void)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t set;

	held_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct sigaction old;

		/* nohup: what was ignored stays ignored */
		if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
	}
}

int stream_signal(void)
{
	struct timespec none = {0};
	sigset_t open;
	int signo;

	sigemptyset(&open);
	ignore_result(ppoll(NULL, 0, &none, &open) < 0); /* lets what is pending be delivered; EINTR is the point of it */
	signo = end_signal;
	end_signal = 0;
	return signo;
}

/* --- the terminal --- */

static struct termios saved_terminal;
static bool terminal_is_raw;

static void terminal_raw(void)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &saved_terminal) < 0)
		return;
	raw = saved_terminal;
	cfmakeraw(&raw);
	terminal_is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

static void terminal_restore(void)
{
	if (terminal_is_raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_terminal);
	terminal_is_raw = false;
}

/* --- the socket --- */

struct stream {
	const struct stream_spec *spec;
	struct stream_result *result;
	struct http_client *http; /* owned */
	struct ws_reader reader;
	struct buf out;	 /* frames that the socket did not take yet */
	struct buf text; /* of the text message under way */
	uint8_t kind;	 /* of the binary message under way */
	unsigned int skip; /* bytes of a replay's offset still to come */
	bool in_message, ended, connected, stdin_done;
	uint64_t next_tick_mono_ms;
};

/*
 * Never waits: a daemon that waits for us to read its output reads nothing, and if we waited for it to read, both would wait
 * for ever.
 */
static int flush_out(struct stream *s, struct sbx_err *err)
{
	while (buf_used(&s->out)) {
		ssize_t n = send(http_client_fd(s->http), buf_peek(&s->out), buf_used(&s->out), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0) {
			/* it closed: what it said before is still to be read, and ends the stream */
			if (errno == EPIPE || errno == ECONNRESET) {
				buf_clear(&s->out);
				return 0;
			}
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "send to the daemon");
		}
		buf_consume(&s->out, (size_t)n);
	}
	return 0;
}

static int send_frame(struct stream *s, enum ws_opcode opcode, const void *data, size_t n, struct sbx_err *err)
{
	if (ws_write(&s->out, false, opcode, true, data, n) < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "frame");
	return flush_out(s, err);
}

static int send_text(struct stream *s, const char *text, struct sbx_err *err)
{
	return send_frame(s, WS_TEXT, text, strlen(text), err);
}

static int send_size(struct stream *s, struct sbx_err *err)
{
	struct winsize size;
	char text[80];

	window_changed = 0;
	if (!s->spec->tty || ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row)
		return 0;
	snprintf(text, sizeof(text), "{\"type\":\"resize\",\"cols\":%u,\"rows\":%u}", size.ws_col, size.ws_row);
	return send_text(s, text, err);
}

static int write_all(int fd, const uint8_t *data, size_t n, struct sbx_err *err)
{
	while (n > 0) {
		ssize_t did = write(fd, data, n);

		if (did < 0 && errno == EAGAIN) {
			/* stdout may be somebody's non-blocking pipe */
			struct pollfd p = {.fd = fd, .events = POLLOUT};

			ignore_result(poll(&p, 1, -1) < 0); /* an interrupt only makes it try again */
			continue;
		}
		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "write output");
		data += did;
		n -= (size_t)did;
	}
	return 0;
}

static int take_text(struct stream *s, struct sbx_err *err)
{
	auto_jv root = jv_parse(buf_peek(&s->text), buf_used(&s->text), err);
	const char *type = jv_str(jv_get(root, "type"));
	int64_t code = -1, signo;

	buf_clear(&s->text);
	if (!root)
		return sbx_err_wrap(err, "answer of the daemon");
	if (type && !strcmp(type, "connected")) {
		s->connected = true;
		return send_size(s, err);
	}
	if (type && !strcmp(type, "exit")) {
		if (jv_i64(jv_get(root, "exit_code"), &code) < 0 || code < -1 || code > 255)
			code = -1;
		s->ended = true;
		s->result->killed = code < 0;
		/* a daemon of before does not say which */
		if (jv_i64(jv_get(root, "signal"), &signo) < 0 || signo < 1 || signo >= NSIG)
			signo = SIGKILL;
		s->result->exit_code = code < 0 ? 128 + (int)signo : (int)code;
	}
	if (type && !strcmp(type, "error")) {
		const char *what = jv_str(jv_get(root, "error"));
		const char *code_name = jv_str(jv_get(root, "code"));

		/* a program that closed its stdin, or a daemon that does not know a frame, is no reason to stop */
		if (code_name && (!strcmp(code_name, "STDIN_WRITE_FAILED") || !strcmp(code_name, "INVALID_FRAME")))
			return 0;
		return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, "%.200s", what ? what : "the sandbox refused");
	}
	return 0;
}

static int take_data(struct stream *s, const struct ws_piece *p, struct sbx_err *err)
{
	const uint8_t *data = p->data;
	size_t n = p->n;

	if (p->opcode == WS_TEXT) {
		if (buf_used(&s->text) + n > TEXT_MAX)
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, "a message of the daemon is too long");
		buf_append(&s->text, data, n);
		return p->last ? take_text(s, err) : 0;
	}
	if (!s->in_message && n > 0) {
		s->kind = data[0];
		s->skip = s->kind == KIND_REPLAY ? 8 : 0;
		s->in_message = true;
		data++;
		n--;
	}
	size_t dropped = n < s->skip ? n : s->skip;
	s->skip -= (unsigned int)dropped;
	data += dropped;
	n -= dropped;
	if (p->last)
		s->in_message = false;
	if (n == 0 || s->kind == KIND_NONE || s->kind == KIND_STDIN || s->kind > KIND_REPLAY)
		return 0;
	if (!s->result->first_output_mono_usec)
		s->result->first_output_mono_usec = mono_usec();
	return write_all(s->kind == KIND_STDERR ? STDERR_FILENO : STDOUT_FILENO, data, n, err);
}

static int take_control(struct stream *s, const struct ws_piece *p, struct sbx_err *err)
{
	if (p->opcode == WS_PING)
		return send_frame(s, WS_PONG, p->data, p->n, err);
	if (p->opcode == WS_CLOSE && !s->ended)
		return sbx_err_set(err, SBX_E_PEER_GONE, 0, "the daemon closed the connection (code %u)", p->close_code);
	return 0;
}

static int take_input(struct stream *s, struct sbx_err *err)
{
	uint8_t block[BLOCK];
	ssize_t n = http_client_read(s->http, block, sizeof(block), err);
	size_t at = 0;

	if (n < 0)
		return -1;
	if (n == 0)
		return s->ended ? 0 : sbx_err_set(err, SBX_E_PEER_GONE, 0, "the connection to the sandbox broke off");
	while (at < (size_t)n && !s->ended) {
		struct ws_piece piece = {0};
		size_t used = 0;
		enum ws_event event = ws_read(&s->reader, block + at, (size_t)n - at, &used, &piece);

		at += used;
		if (event == WS_BAD)
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the daemon broke the WebSocket protocol");
		if (event == WS_DATA && take_data(s, &piece, err) < 0)
			return -1;
		if (event == WS_CONTROL && take_control(s, &piece, err) < 0)
			return -1;
		if (event == WS_MORE)
			break;
	}
	return 0;
}

static int pass_stdin(struct stream *s, struct sbx_err *err)
{
	uint8_t block[BLOCK];
	ssize_t n = read(STDIN_FILENO, block + 1, sizeof(block) - 1);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		s->stdin_done = true;
		return send_text(s, "{\"type\":\"eof\"}", err);
	}
	block[0] = KIND_STDIN;
	return send_frame(s, WS_BINARY, block, (size_t)n + 1, err);
}

/* Milliseconds until the next tick; -1: none is due ever. */
static int ms_to_tick(const struct stream_spec *spec, uint64_t next_tick_mono_ms)
{
	uint64_t now = mono_ms();

	if (!spec->tick)
		return -1;
	return next_tick_mono_ms <= now ? 0 : (int)(next_tick_mono_ms - now);
}

/* One wait with the signals let in; Return: as ppoll(), 0 when interrupted. */
static int wait_once(struct pollfd *fds, nfds_t n, int ms)
{
	const struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	sigset_t open;

	sigemptyset(&open);
	int rc = ppoll(fds, n, ms < 0 ? NULL : &ts, &open);
	if (rc < 0) /* what revents hold then means nothing */
		for (nfds_t i = 0; i < n; i++)
			fds[i].revents = 0;
	return rc < 0 && errno == EINTR ? 0 : rc;
}

static void tick(const struct stream_spec *spec, uint64_t *next_tick_mono_ms)
{
	if (!spec->tick || mono_ms() < *next_tick_mono_ms)
		return;
	*next_tick_mono_ms = mono_ms() + spec->tick_ms;
	spec->tick(spec->tick_arg);
}

int stream_wait(struct http_client *http, const struct stream_spec *spec, uint64_t *next_tick_mono_ms)
{
	struct pollfd p = {.fd = http_client_fd(http), .events = POLLIN};

	for (;;) {
		bool pending = http_client_pending(http);
		int rc = wait_once(&p, 1, pending ? 0 : ms_to_tick(spec, *next_tick_mono_ms));

		if (end_signal) {
			int signo = end_signal;

			end_signal = 0;
			return signo;
		}
		tick(spec, next_tick_mono_ms);
		/* an error of the wait shows itself at the read */
		if (pending || rc != 0)
			return 0;
	}
}

static int carry(struct stream *s, struct sbx_err *err)
{
	while (!s->ended) {
		/* more input is taken when the last is on its way */
		bool with_stdin = s->spec->pass_stdin && s->connected && !s->stdin_done && !buf_used(&s->out);
		short events = buf_used(&s->out) ? POLLIN | POLLOUT : POLLIN;
		bool pending = http_client_pending(s->http);
		struct pollfd fds[2] = {{.fd = http_client_fd(s->http), .events = events},
					{.fd = with_stdin ? STDIN_FILENO : -1, .events = POLLIN}};

		if (wait_once(fds, 2, pending ? 0 : ms_to_tick(s->spec, s->next_tick_mono_ms)) < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "wait");
		if (end_signal) {
			s->result->signal = end_signal;
			end_signal = 0;
			return 0;
		}
		if (window_changed && s->connected && send_size(s, err) < 0)
			return -1;
		tick(s->spec, &s->next_tick_mono_ms);
		if ((fds[0].revents & POLLOUT) && flush_out(s, err) < 0)
			return -1;
		if (((fds[0].revents & ~POLLOUT) || pending) && take_input(s, err) < 0)
			return -1;
		if (fds[1].revents && !s->ended && pass_stdin(s, err) < 0)
			return -1;
	}
	return 0;
}

/* --- a session --- */

static int session_make(struct cli *cli, const struct stream_spec *spec, char session[UUID_SIZE], struct sbx_err *err)
{
	char target[160];
	auto_buf body = {0};
	struct jw w = {.out = &body};
	struct jv *answer = NULL;

	jw_object(&w);
	jw_key_str(&w, "cwd", spec->workdir);
	jw_key_str(&w, "command", spec->command);
	jw_object_end(&w);
	snprintf(target, sizeof(target), "/sandboxes/%s/proxy/44772/pty", spec->id);
	if (client_call(cli, "POST", target, &body, &answer, err) < 0)
		return -1;
	const char *id = jv_str(jv_get(answer, "session_id"));
	uint8_t raw[16];
	int rc = id && uuid_parse(id, raw) == 0 ? 0 : sbx_err_set(err, SBX_E_PROTOCOL, 0, "the daemon gave no session");
	if (rc == 0)
		uuid_format(raw, session);
	jv_free(answer);
	return rc;
}

static int session_connect(struct cli *cli, struct stream *s, const char *session, struct sbx_err *err)
{
	char key[WS_KEY_CHARS + 1];
	char accept[WS_ACCEPT_SIZE];
	char target[200];
	char headers[256];
	struct http_client_request request = {.method = "GET", .target = target, .headers = headers};
	struct http_client_response response;

	ws_make_key(key);
	snprintf(target, sizeof(target), "/sandboxes/%s/proxy/44772/pty/%s/ws?pty=%d", s->spec->id, session, s->spec->tty);
	snprintf(headers, sizeof(headers),
		 "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", key);
	s->http = client_connect(cli, err);
	if (!s->http || client_begin(cli, s->http, &request, &response, err) < 0)
		return -1;
	ws_accept_key(key, accept);
	const char *got = http_client_header(s->http, "Sec-WebSocket-Accept");
	if (response.status != 101 || !got || strcmp(got, accept) != 0)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the daemon did not open a WebSocket (status %u)", response.status);
	http_client_timeout(s->http, 0);
	ws_reader_init(&s->reader, false, 0);
	return 0;
}

static void session_drop(struct cli *cli, const char *id, const char *session)
{
	char target[200];
	struct sbx_err ignored;

	snprintf(target, sizeof(target), "/sandboxes/%s/proxy/44772/pty/%s", id, session);
	/* the sandbox may be gone, and the session with it */
	ignore_result(client_call(cli, "DELETE", target, NULL, NULL, &ignored) < 0);
}

int stream_run(struct cli *cli, const struct stream_spec *spec, struct stream_result *ret, struct sbx_err *err)
{
	struct stream s = {.spec = spec, .result = ret, .kind = KIND_NONE, .next_tick_mono_ms = mono_ms() + spec->tick_ms};
	char session[UUID_SIZE];

	*ret = (struct stream_result){0};
	if (session_make(cli, spec, session, err) < 0)
		return -1;
	int rc = session_connect(cli, &s, session, err);
	if (rc == 0) {
		if (spec->tty)
			terminal_raw();
		rc = carry(&s, err);
		terminal_restore();
	}
	http_client_free(s.http);
	buf_free(&s.out);
	buf_free(&s.text);
	session_drop(cli, spec->id, session);
	return rc;
}
