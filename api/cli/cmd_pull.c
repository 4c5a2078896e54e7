// SPDX-License-Identifier: Apache-2.0
/* pull: a stream of events becomes bars on a terminal, and one line at the end */
#include "api/cli/client.h"
#include "api/cli/out.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EVENT_MAX  (8u * 1024 * 1024) /* 127 layers with their digests are 20 KiB; a check of the store tells up to 10,000 problems */
#define BAR_CELLS  24u
#define SHOWN_MAX  16u /* lines of layers; the rest is in the total */
#define ECHO_PAUSE 2000u

struct showing {
	bool bars; /* stderr is a terminal */
	bool quiet;
	unsigned lines; /* drawn last time */
	uint64_t said_mono_ms;
};

static uint64_t number(const struct jv *object, const char *name)
{
	int64_t n = 0;

	return jv_i64(jv_get(object, name), &n) == 0 && n > 0 ? (uint64_t)n : 0;
}

static void draw_line(const char *name, const char *state, uint64_t done, uint64_t total)
{
	char bar[BAR_CELLS + 1], done_text[32], total_text[32];
	uint64_t filled = total ? done * BAR_CELLS / total : 0;

	memset(bar, ' ', BAR_CELLS);
	memset(bar, '=', filled < BAR_CELLS ? filled : BAR_CELLS);
	bar[BAR_CELLS] = '\0';
	out_bytes(done, done_text, sizeof(done_text));
	out_bytes(total, total_text, sizeof(total_text));
	fprintf(stderr, "\033[2K%-14.14s %-10.10s [%s] %s / %s\n", name, state, bar, done_text, total_text);
}

static void draw_bars(struct showing *s, const struct jv *event)
{
	unsigned n = 0;

	if (s->lines)
		fprintf(stderr, "\033[%uA", s->lines);
	for (const struct jv *l = jv_first(jv_get(event, "layers")); l && n < SHOWN_MAX; l = jv_next(l), n++) {
		const char *digest = jv_str(jv_get(l, "digest")), *state = jv_str(jv_get(l, "state"));
		char name[16];

		/* hex digits only: what a server says is not trusted with a terminal */
		snprintf(name, sizeof(name), "%.12s", digest && strlen(digest) > 19 ? digest + 7 : "");
		for (char *c = name; *c; c++)
			*c = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'f') ? *c : '?';
		char word[12] = "";
		for (size_t i = 0; state && state[i] >= 'a' && state[i] <= 'z' && i < sizeof(word) - 1; i++)
			word[i] = state[i];
		draw_line(name, word, number(l, "bytes"), number(l, "size"));
	}
	draw_line("total", "", number(event, "bytes"), number(event, "total"));
	s->lines = n + 1;
}

/* Of a check: no end is known in bytes, so there is no bar. */
static void show_phase(struct showing *s, const struct jv *event)
{
	const char *phase = jv_str(jv_get(event, "phase"));
	uint64_t total = number(event, "total");
	char bytes[32], of[32] = "", word[12] = "";

	if (!s->bars && mono_ms() - s->said_mono_ms < ECHO_PAUSE)
		return;
	s->said_mono_ms = mono_ms();
	for (size_t i = 0; phase[i] >= 'a' && phase[i] <= 'z' && i < sizeof(word) - 1; i++)
		word[i] = phase[i];
	out_bytes(number(event, "bytes"), bytes, sizeof(bytes));
	if (total)
		snprintf(of, sizeof(of), " of %llu", (unsigned long long)total);
	if (s->bars && s->lines)
		fprintf(stderr, "\033[1A\033[2K");
	s->lines = 1;
	cli_say("%s: %llu%s, %s read", word, (unsigned long long)number(event, "done"), of, bytes);
}

static void show(struct showing *s, const struct jv *event)
{
	char done[32], total[32];

	if (!s->quiet && jv_str(jv_get(event, "phase")))
		show_phase(s, event);
	if (s->quiet || !jv_first(jv_get(event, "layers")))
		return;
	if (s->bars) {
		draw_bars(s, event);
		return;
	}
	if (mono_ms() - s->said_mono_ms < ECHO_PAUSE)
		return;
	s->said_mono_ms = mono_ms();
	out_bytes(number(event, "bytes"), done, sizeof(done));
	out_bytes(number(event, "total"), total, sizeof(total));
	cli_say("%s of %s", done, total);
}

static int take_error(const struct jv *event, struct sbx_err *err)
{
	const struct jv *error = jv_get(event, "error");
	const char *code = jv_str(jv_get(error, "code")), *message = jv_str(jv_get(error, "message"));
	enum sbx_err_code known = SBX_E_IMAGE_PULL_FAILED;

	for (unsigned i = 1; code && i < SBX_E_COUNT; i++)
		if (!strcmp(sbx_err_api_code((enum sbx_err_code)i), code)) {
			known = (enum sbx_err_code)i;
			break;
		}
	return sbx_err_set(err, known, 0, "%.220s", message ? message : "the pull failed");
}

/* One event. Return: 1 when it is the last, *@ret is then the image; 0 to go on; -1 with @err set */
static int take_event(struct showing *s, const char *line, size_t n, struct jv **ret, struct sbx_err *err)
{
	if (n < 6 || memcmp(line, "data: ", 6) != 0)
		return 0;
	auto_jv event = jv_parse(line + 6, n - 6, err);
	if (!event)
		return -1;
	const char *type = jv_str(jv_get(event, "type"));
	if (!type)
		return 0;
	if (!strcmp(type, "progress"))
		show(s, event);
	else if (!strcmp(type, "error"))
		return take_error(event, err);
	else if (!strcmp(type, "done")) {
		*ret = take_ptr(event);
		return 1;
	}
	return 0;
}

static int read_events(struct http_client *http, struct showing *s, struct jv **ret, struct sbx_err *err)
{
	auto_buf in = {.max = EVENT_MAX};

	for (;;) {
		char *room = buf_reserve(&in, 16384);
		const char *end;

		if (!room)
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, "an event without an end");
		ssize_t n = http_client_read(http, room, 16384, err);
		if (n < 0)
			return -1;
		if (n == 0)
			return sbx_err_set(err, SBX_E_PEER_GONE, 0, "the daemon ended the stream before it was done");
		buf_commit(&in, (size_t)n);
		while ((end = memchr(buf_peek(&in), '\n', buf_used(&in)))) {
			size_t len = (size_t)(end - buf_peek(&in));
			int r = take_event(s, buf_peek(&in), len, ret, err);

			if (r)
				return r < 0 ? -1 : 0;
			buf_consume(&in, len + 1);
			if (!buf_used(&in))
				break;
		}
	}
}

int client_events(struct http_client *http, bool quiet, struct jv **ret, struct sbx_err *err)
{
	struct showing s = {.bars = isatty(STDERR_FILENO) == 1, .quiet = quiet, .said_mono_ms = mono_ms()};

	return read_events(http, &s, ret, err);
}

static int write_auth(struct jw *w, const char *user, struct sbx_err *err)
{
	char password[4096];

	if (!fgets(password, sizeof(password), stdin))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "-u: the password is read from stdin, which is empty");
	password[strcspn(password, "\r\n")] = '\0';
	jw_key(w, "auth");
	jw_object(w);
	jw_key_str(w, "username", user);
	jw_key_str(w, "password", password);
	jw_object_end(w);
	explicit_bzero(password, sizeof(password));
	return 0;
}

static int pull(struct cli *cli, const char *image, const char *policy, const char *user, struct showing *s, struct jv **ret,
		struct sbx_err *err)
{
	struct http_client *http = client_http(cli, err);
	struct http_client_response response;
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (!http)
		return -1;
	jw_object(&w);
	jw_key_str(&w, "image", image);
	jw_key_str(&w, "policy", policy);
	if (user && write_auth(&w, user, err) < 0)
		return -1;
	jw_object_end(&w);
	const char *text = buf_str(&body);
	if (!text)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
	const struct http_client_request request = {.method = "POST",
						    .target = "/v1/images/pull",
						    .headers = "Content-Type: application/json\r\nAccept: text/event-stream\r\n",
						    .body = text,
						    .body_len = buf_used(&body)};
	http_client_timeout(http, 0); /* a registry may be slow, and what it does is told */
	int rc = client_begin(cli, http, &request, &response, err);
	if (rc == 0)
		rc = read_events(http, s, ret, err);
	http_client_timeout(http, CLIENT_TIMEOUT_MS);
	return rc;
}

int pull_for(struct cli *cli, const struct cli_args *args, struct sbx_err *err)
{
	const char *image = cli_text(args, "image"), *policy = cli_text(args, "pull");
	struct showing s = {.bars = isatty(STDERR_FILENO) == 1, .said_mono_ms = mono_ms()};
	auto_jv done = NULL;
	auto_jv found = NULL;

	if (!image || !strcmp(image, "host") || (policy && !strcmp(policy, "never")))
		return 0;
	if (client_image(cli, image, &found, err) == 0)
		return 0; /* whether it is asked for again is the daemon's to know */
	if (err->code != SBX_E_IMAGE_UNKNOWN)
		return -1;
	return pull(cli, image, policy ? policy : "default", NULL, &s, &done, err);
}

int cmd_pull(struct cli *cli, const struct cli_args *args)
{
	struct showing s = {.bars = isatty(STDERR_FILENO) == 1, .quiet = cli_flag(args, "quiet"), .said_mono_ms = mono_ms()};
	struct sbx_err err = {0};
	auto_jv root = NULL;
	char size[32];

	if (pull(cli, args->operands[0], cli_flag(args, "missing") ? "missing" : "always", cli_text(args, "user"), &s, &root, &err) < 0)
		return cli_fail(cli, &err);
	const struct jv *image = jv_get(root, "image");
	const char *name = jv_str(jv_get(image, "name"));
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, image);
	} else if (s.quiet) {
		printf("%s\n", name ? name : "");
	} else {
		out_bytes(number(image, "bytes"), size, sizeof(size));
		printf("%s  %s   (sandboxctl run --image %s -it)\n", name ? name : "", size, name ? name : "NAME");
	}
	return 0;
}
