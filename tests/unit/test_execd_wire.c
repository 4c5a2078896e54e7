// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: the execd API on the wire: raw HTTP in, a fake agent behind, raw HTTP out, compared to the byte
 *
 * Volatile parts are masked in what came out: time stamps become T, command ids ID, request ids and dates go away.  Time passes
 * when a test says so.
 */
#include "tests/tap.h"
#include "tests/unit/fake_agent.h"

#include "api/execd/execd.h"
#include "base/cleanup.h"
#include "base/http_server.h"
#include "base/log.h"
#include "base/num.h"
#include "base/wallclock.h"
#include "base/ws.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>

static struct loop *loop;
static struct http_server *server;
static struct execd *execd;
static struct execd_box *box;
static struct fake_agent agent;
static enum gw_sandbox_state state = GW_SANDBOX_RUNNING;
static int n_broken, client = -1;
static struct buf reply;

/* ---- the clock, which only pass() moves: the linker puts these in the place of base/wallclock.c ---- */

/* Far behind the real one, so that the loop's timer descriptor is always ready and the heap of timers alone decides. */
static uint64_t clock_ms = 1000;
uint64_t __wrap_mono_ms(void);
uint64_t __wrap_mono_usec(void);

uint64_t __wrap_mono_ms(void)
{
	return clock_ms;
}

uint64_t __wrap_mono_usec(void)
{
	return clock_ms * 1000;
}

/* ---- the fake agent's script ---- */

static struct buf seen;	    /* requests as text */
static struct buf uploaded; /* bytes of uploads */
static uint32_t replacing;  /* stream of a REPLACE whose files come */
static uint32_t last_stream;
static uint8_t last_id[AGENT_ID_BYTES];
static uint32_t last_stopped; /* stream that was detached */
static uint64_t last_credit;
static bool hold;	      /* do not answer: the test does */

static void put_strings(const char *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_append(&seen, from[i] ? from + i : "|", 1);
}

static void play_command(uint32_t stream, const char *command, uint32_t flags)
{
	fake_agent_started(&agent, stream);
	if (flags & AGENT_SPEC_BACKGROUND) {
		fake_agent_end(&agent, stream, AGENT_OK, 0, 0, "");
	} else if (!strcmp(command, "lines")) {
		fake_agent_send(&agent, AGENT_STDOUT, stream, 0, "a\n\nb\r", 5);
		fake_agent_send(&agent, AGENT_STDERR, stream, 0, "oops", 4);
		fake_agent_send(&agent, AGENT_STDOUT, stream, 0, "\nc\rd", 4);
		fake_agent_exit(&agent, stream, 0, 0, 41);
	} else if (!strcmp(command, "fail")) {
		fake_agent_exit(&agent, stream, 3, 0, 1);
	} else if (!strcmp(command, "killed")) {
		fake_agent_exit(&agent, stream, 0, 9, 1);
	} else if (strcmp(command, "wait")) {
		fake_agent_exit(&agent, stream, 0, 0, 0);
	}
}

static void on_exec(uint32_t stream, const uint8_t *payload, size_t n)
{
	struct agent_spec spec;
	const char *strings = (const char *)payload + sizeof(struct agent_exec) + sizeof(spec);

	memcpy(last_id, payload, sizeof(last_id));
	memcpy(&spec, payload + sizeof(struct agent_exec), sizeof(spec));
	buf_puts(&seen, "exec ");
	put_strings(strings, n - sizeof(struct agent_exec) - sizeof(spec));
	buf_puts(&seen, "\n");
	if (hold)
		return;
	if (!strcmp(strings, "/nowhere"))
		fake_agent_end(&agent, stream, AGENT_FAILED_START, -ENOENT, AGENT_STAGE_CWD, "");
	else if (!strcmp(strings, "/noshell"))
		fake_agent_end(&agent, stream, AGENT_FAILED_START, EPERM, AGENT_STAGE_IDENTITY, "");
	else
		play_command(stream, strings + strlen(strings) + 1, spec.flags);
}

static void send_records(uint32_t stream, const struct agent_fs *fs, const char *strings)
{
	uint8_t record[512];

	for (uint32_t i = 0; i < fs->n_strings; i++, strings += strlen(strings) + 1) {
		if (strstr(strings, "missing")) {
			fake_agent_end(&agent, stream, AGENT_FAILED_SYS, ENOENT, 0, strings);
			return;
		}
		size_t n = fake_agent_record(record, i, strings, AGENT_FILE_REGULAR, 17);
		fake_agent_send(&agent, AGENT_DATA, stream, 0, record, n);
	}
	fake_agent_end(&agent, stream, AGENT_OK, 0, 0, "");
}

static void send_file(uint32_t stream, const struct agent_fs *fs, const char *path)
{
	static const char content[] = "0123456789\r\nline two\nline three\n";
	uint64_t size = sizeof(content) - 1, first = fs->offset, n = fs->length ? fs->length : size;
	uint8_t record[512 + sizeof(content)];
	bool dir = strstr(path, "dir") != NULL;
	size_t used = fake_agent_record(record, 0, path, dir ? AGENT_FILE_DIRECTORY : AGENT_FILE_REGULAR, size);

	if (fs->flags & AGENT_FS_LINES) {
		first = 0;
		n = size;
	}
	if (fs->flags & AGENT_FS_TAIL)
		first = size - n;
	if (first < size && !dir) {
		n = n < size - first ? n : size - first;
		memcpy(record + used, content + first, n);
		used += n;
	}
	fake_agent_send(&agent, AGENT_DATA, stream, 0, record, used);
	fake_agent_end(&agent, stream, AGENT_OK, 0, 0, "");
}

static void on_fs(uint32_t stream, const uint8_t *payload, size_t n)
{
	struct agent_fs fs;
	const char *strings = (const char *)payload + sizeof(fs);

	memcpy(&fs, payload, sizeof(fs));
	buf_printf(&seen, "fs%u mode=%o depth=%u ", fs.op, fs.flags & AGENT_FS_HAS_MODE ? fs.mode : 01234567, fs.depth);
	put_strings(strings, n - sizeof(fs));
	buf_puts(&seen, "\n");
	if (hold)
		return;
	switch ((enum agent_fs_op)fs.op) {
	case AGENT_FS_INFO:
	case AGENT_FS_LIST:
		send_records(stream, &fs, strings);
		return;
	case AGENT_FS_SEARCH:
		if (!strcmp(strings + strlen(strings) + 1, "[")) {
			fake_agent_end(&agent, stream, AGENT_BAD_REQUEST, 0, 0, "invalid pattern [: syntax error in pattern");
			return;
		}
		fs.n_strings = 1;
		send_records(stream, &fs, strings);
		return;
	case AGENT_FS_READ:
		if (strstr(strings, "missing"))
			fake_agent_end(&agent, stream, AGENT_FAILED_SYS, ENOENT, 0, strings);
		else
			send_file(stream, &fs, strings);
		return;
	case AGENT_FS_REPLACE: /* counts when EOF comes */
		replacing = stream;
		return;
	case AGENT_FS_WRITE:
		if (fs.n_strings && strstr(strings, "/dir"))
			fake_agent_end(&agent, stream, AGENT_FAILED_SYS, EISDIR, 0, strings);
		return; /* END when EOF comes */
	case AGENT_FS_MOVE:
		fake_agent_end(&agent, stream, strstr(strings + strlen(strings) + 1, "taken") ? AGENT_FAILED_SYS : AGENT_OK, EEXIST, 0, "/taken");
		return;
	case AGENT_FS_NONE:
	case AGENT_FS_APPEND:
	case AGENT_FS_MKDIR:
	case AGENT_FS_UNLINK:
	case AGENT_FS_RMTREE:
	case AGENT_FS_CHMOD:
	case AGENT_FS_OP_COUNT:
	default:
		if (strstr(strings, "missing"))
			fake_agent_end(&agent, stream, AGENT_FAILED_SYS, ENOENT, 0, "/missing");
		else if (fs.op != AGENT_FS_APPEND)
			fake_agent_end(&agent, stream, AGENT_OK, 0, 0, "");
	}
}

static void on_question(const struct agent_frame *head, const uint8_t *payload)
{
	static const char text[] = "make test";
	uint8_t out[sizeof(struct agent_command_status) + sizeof(text)];
	struct agent_command_status status = {.code = payload[0] == 0xaa ? 2 : 0,
					      .running = payload[0] == 0xbb,
					      .text_bytes = sizeof(text) - 1,
					      .started_wall_usec = 1767225600123456,
					      .ended_wall_usec = 1767225601000000,
					      .output_bytes = 10};

	if (payload[0] == 0xff) {
		fake_agent_end(&agent, head->stream, AGENT_NO_SUCH_COMMAND, 0, 0, "");
	} else if (head->type == AGENT_STATUS) {
		memcpy(out, &status, sizeof(status));
		memcpy(out + sizeof(status), text, status.text_bytes);
		fake_agent_send(&agent, AGENT_STATUS_REPLY, head->stream, 0, out, sizeof(status) + status.text_bytes);
	} else if (head->type == AGENT_LOGS) {
		fake_agent_send(&agent, AGENT_DATA, head->stream, 0, "4567", 4);
		fake_agent_send(&agent, AGENT_DATA, head->stream, 0, "89", 2);
		fake_agent_end(&agent, head->stream, AGENT_OK, 0, 10, "");
	} else {
		fake_agent_end(&agent, head->stream, payload[0] == 0xaa ? AGENT_NOT_RUNNING : AGENT_OK, 0, 0, "");
	}
}

/* Each file got as many replacements as its path has bytes; one that is "/missing" ends it. */
static void replaced(uint32_t stream)
{
	uint64_t sum = 0;

	for (size_t at = 0; at < buf_used(&uploaded);) {
		struct agent_fs_replace item;
		const char *path = buf_peek(&uploaded) + at + sizeof(item);

		memcpy(&item, buf_peek(&uploaded) + at, sizeof(item));
		if (!strcmp(path, "/missing")) {
			fake_agent_end(&agent, stream, AGENT_FAILED_SYS, ENOENT, 0, path);
			return;
		}
		uint64_t n = strlen(path);
		sum += n;
		fake_agent_send(&agent, AGENT_DATA, stream, 0, &n, sizeof(n));
		at += sizeof(item) + item.path_bytes + item.old_bytes + item.new_bytes;
	}
	fake_agent_end(&agent, stream, AGENT_OK, 0, sum, "");
}

static void on_request(struct fake_agent *a, const struct agent_frame *head, const uint8_t *payload, size_t n)
{
	last_stream = head->type == AGENT_EXEC || head->type == AGENT_FS ? head->stream : last_stream;
	switch (head->type) {
	case AGENT_EXEC:
		on_exec(head->stream, payload, n);
		return;
	case AGENT_FS:
		on_fs(head->stream, payload, n);
		return;
	case AGENT_STDIN:
		buf_append(&uploaded, payload, n);
		return;
	case AGENT_RESIZE:
		buf_printf(&seen, "resize %ux%u\n", head->value & 0xffff, head->value >> 16);
		return;
	case AGENT_SIGNAL:
		buf_printf(&seen, "signal %u\n", head->value);
		fake_agent_end(a, head->stream, AGENT_OK, 0, 0, "");
		return;
	case AGENT_DATA:
		buf_append(&uploaded, payload, n);
		if (!hold)
			fake_agent_send(a, AGENT_CREDIT, head->stream, (uint32_t)n, NULL, 0);
		return;
	case AGENT_EOF:
		if (head->stream == replacing) {
			replacing = 0;
			replaced(head->stream);
			return;
		}
		buf_puts(&uploaded, ";");
		fake_agent_end(a, head->stream, AGENT_OK, 0, 0, "");
		return;
	case AGENT_DETACH:
		last_stopped = head->stream;
		return;
	case AGENT_CREDIT:
		last_credit += head->value;
		return;
	default:
		on_question(head, payload);
	}
}

/* ---- gateway ---- */

static void handler(void *arg, struct http_request *req)
{
	struct http_text path = http_request_path(req), query = http_request_query(req);
	struct execd_call call = {.req = req,
				  .path = path.data,
				  .path_len = path.len,
				  .query = query.data,
				  .query_len = query.len,
				  .state = state,
				  .box = box};

	(void)arg;
	execd_handle(&call);
}

static void box_broken(void *arg, const struct sbx_err *why)
{
	(void)arg;
	n_broken++;
	execd_box_free(box, why);
	box = NULL;
}

static uint64_t fake_cpu_usec;

static void fake_stat(void *arg, const uint8_t sandbox_id[16], execd_stat_done *done, void *done_arg)
{
	struct gw_stat_reply stat = {.memory_bytes = 64u << 20,
				     .memory_limit_bytes = 256u << 20,
				     .cpu_millicores = 2000,
				     .mono_usec = (int64_t)clock_ms * 1000,
				     .cpu_usec = fake_cpu_usec};

	(void)arg;
	(void)sandbox_id;
	fake_cpu_usec += 10000000;
	done(done_arg, &stat, NULL);
}

static void box_up(const char *log_file)
{
	static const uint8_t id[16] = {1};
	struct sbx_err err;

	fake_agent_init(&agent, loop, on_request, NULL);
	fake_agent_bulk(&agent);
	box = execd_box_new(execd, id, agent.gateway_fds, log_file, box_broken, NULL, &err);
	if (!box)
		printf("Bail out! %s\n", err.msg);
}

static void box_down(void)
{
	execd_box_free(box, NULL);
	box = NULL;
	fake_agent_free(&agent);
}

/* ---- client ---- */

static void turn(int times)
{
	while (times--)
		loop_once(loop, 0);
}

/* The clock goes on by @ms, and what is due then happens. */
static void pass(uint64_t ms)
{
	clock_ms += ms;
	turn(4);
}

static void client_open(void)
{
	int pair[2];

	if (client >= 0)
		close(client);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ||
	    http_server_connection(server, pair[1], 0) < 0)
		abort();
	client = pair[0];
	buf_clear(&reply);
	buf_clear(&seen);
	buf_clear(&uploaded);
}

static void client_send(const char *data, size_t n)
{
	while (n) {
		ssize_t done = send(client, data, n, MSG_NOSIGNAL);

		if (done > 0) {
			data += done;
			n -= (size_t)done;
		} else if (errno != EAGAIN) {
			return;
		}
		turn(3);
	}
}

static void client_read(void)
{
	char chunk[65536];
	ssize_t n;

	turn(6);
	while ((n = read(client, chunk, sizeof(chunk))) > 0) {
		buf_append(&reply, chunk, (size_t)n);
		turn(3);
	}
}

static void remove_line(char *text, const char *name)
{
	char *at = strstr(text, name), *end = at ? strstr(at, "\r\n") : NULL;

	if (end)
		memmove(at, end + 2, strlen(end + 2) + 1);
}

/* Replaces what follows @before up to a character outside of @set. */
static void mask(char *text, const char *before, const char *set, const char *with)
{
	for (char *at = text; (at = strstr(at, before));) {
		at += strlen(before);
		size_t n = strspn(at, set);

		if (n < strlen(with))
			continue;
		memcpy(at, with, strlen(with));
		memmove(at + strlen(with), at + n, strlen(at + n) + 1);
	}
}

static bool is_event(const char *chunk, size_t n)
{
	return n > 2 && (const char *)memmem(chunk, n, "\n\n", 2) == chunk + n - 2;
}

/* Chunk sizes are checked by de-chunking; the body stays.  A chunk of a stream of events is one of them. */
static bool dechunk(char *text)
{
	char *body = strstr(text, "\r\n\r\n"), *out;
	bool events = strstr(text, "Content-Type: text/event-stream\r\n");

	if (!strstr(text, "Transfer-Encoding: chunked\r\n") || !body)
		return true;
	char *at = out = body + 4;
	for (;;) {
		char *end = at + strspn(at, "0123456789abcdef");
		size_t n = 0;

		for (; at < end; at++)
			n = n * 16 + (size_t)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
		if (strncmp(end, "\r\n", 2))
			return false;
		at = end + 2;
		if (!n) {
			bool good = !strncmp(at, "\r\n", 2);
			*out = '\0';
			return good;
		}
		if (events && !is_event(at, n))
			return false;
		memmove(out, at, n);
		out += n;
		at += n;
		if (strncmp(at, "\r\n", 2))
			return false;
		at += 2;
	}
}

static const char *masked(void)
{
	char *text = (char *)(uintptr_t)buf_str(&reply);

	if (!dechunk(text))
		memcpy(text, "bad chunks: ", 12);
	remove_line(text, "X-Request-ID:");
	remove_line(text, "Date:");
	remove_line(text, "Server:");
	mask(text, "\"timestamp\":", "0123456789", "T");
	mask(text, "\"type\":\"init\",\"text\":\"", "0123456789abcdef-", "ID");
	return text;
}

static const char *ask(const char *request)
{
	client_open();
	client_send(request, strlen(request));
	client_read();
	return masked();
}

#define POST(path, body_) "POST " path " HTTP/1.1\r\nHost: x\r\nContent-Length: " body_
static const char *post(const char *path, const char *body)
{
	static char request[4096];

	snprintf(request, sizeof(request), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", path, strlen(body), body);
	return request;
}

#define STREAM_HEAD \
	"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nCache-Control: no-cache\r\n" \
	"X-Accel-Buffering: no\r\nConnection: keep-alive\r\n\r\n"
#define INIT  "{\"type\":\"init\",\"text\":\"ID\",\"timestamp\":T}\n\n{\"type\":\"ping\",\"text\":\"pong\",\"timestamp\":T}\n\n"
#define EMPTY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#define JSON  "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
#define INFO(path) \
	"{\"path\":\"" path "\",\"type\":\"file\",\"size\":17,\"modified_at\":\"2026-01-01T00:00:00Z\"," \
	"\"created_at\":\"2026-01-01T00:00:00Z\",\"owner\":\"root\",\"group\":\"root\",\"mode\":644}"

/* The head's lines may come in any order; the body and the status may not differ. */
static void body_is(const char *got, const char *status, const char *body, const char *what)
{
	const char *at = strstr(got, "\r\n\r\n");

	if (!ok(!strncmp(got, status, strlen(status)) && at && !strcmp(at + 4, body), "%s", what))
		printf("#   got: %s\n#  want: %s ... %s\n", got, status, body);
}

static void test_ping(void)
{
	is_str(ask("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "ping waits for the hello and is 200 with length 0");
	is_str(ask("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "and again");
	state = GW_SANDBOX_PAUSED;
	body_is(ask("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 503",
		"{\"code\":\"SANDBOX::NOT_READY\",\"message\":\"the sandbox is paused; resume it first\"}", "ping of a paused sandbox");
	state = GW_SANDBOX_RUNNING;
	body_is(ask("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404",
		"{\"code\":\"GENERAL::NOT_FOUND\",\"message\":\"no such path or method\"}", "unknown path");
	body_is(ask("PUT /command HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), "HTTP/1.1 404",
		"{\"code\":\"GENERAL::NOT_FOUND\",\"message\":\"no such path or method\"}", "wrong method");
	body_is(ask("POST /v1/isolated/session HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), "HTTP/1.1 503",
		"{\"code\":\"ISOLATION_UNAVAILABLE\",\"message\":\"isolated sessions are not offered by this server\"}", "not offered");
	ok(strstr(ask("GET /v1/isolated/capabilities HTTP/1.1\r\nHost: x\r\n\r\n"), "{\"available\":false,"), "capabilities");
}

/* What the published server does before it looks at who asks for what. */
static void test_ways(void)
{
	static const struct {
		const char *why, *request, *status, *part;
	} cases[] = {
		{"a slash behind a path", "GET /ping/ HTTP/1.1\r\n", "HTTP/1.1 301 ", "Location: ../ping\r\n"},
		{"deeper, with a query", "GET /files/info/?path=%2Fa HTTP/1.1\r\n", "HTTP/1.1 301 ", "Location: ../info?path=%2Fa\r\n"},
		{"of another method", "DELETE /pty/x/ HTTP/1.1\r\n", "HTTP/1.1 307 ", "Location: ../x\r\n"},
		{"of a path that is none", "GET /nothing/ HTTP/1.1\r\n", "HTTP/1.1 404 ", "NOT_FOUND"},
		{"of the wrong method", "PUT /ping/ HTTP/1.1\r\n", "HTTP/1.1 404 ", "NOT_FOUND"},
		{"two of them", "GET /ping// HTTP/1.1\r\n", "HTTP/1.1 404 ", "NOT_FOUND"},
		{"an encoded one", "GET /ping%2F HTTP/1.1\r\n", "HTTP/1.1 404 ", "NOT_FOUND"},
		{"HEAD is not routed", "HEAD /ping HTTP/1.1\r\n", "HTTP/1.1 404 ", ""},
		{"an encoded slash splits", "GET /command/status%2Fzz HTTP/1.1\r\n", "HTTP/1.1 404 ", "command not found: zz"},
		{"no port", "GET /proxy//x HTTP/1.1\r\n", "HTTP/1.1 400 ", "port is required"},
		{"a port that is no number", "GET /proxy/abc/x HTTP/1.1\r\n", "HTTP/1.1 400 ", "the port is not a number"},
		{"nothing but /proxy", "GET /proxy HTTP/1.1\r\n", "HTTP/1.1 404 ", "NOT_FOUND"},
		{"isolated sessions", "POST /v1/isolated/session HTTP/1.1\r\n", "HTTP/1.1 503 ", "ISOLATION_UNAVAILABLE"},
		{"their files", "GET /v1/isolated/session/x/diff HTTP/1.1\r\n", "HTTP/1.1 503 ", "ISOLATION_UNAVAILABLE"},
		{"a pattern that is none", "GET /files/search?path=/a&pattern=%5B HTTP/1.1\r\n", "HTTP/1.1 500 ",
		 "{\"code\":\"RUNTIME_ERROR\",\"message\":\"invalid pattern [: syntax error in pattern\"}"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char request[256];

		snprintf(request, sizeof(request), "%sHost: x\r\n\r\n", cases[i].request);
		const char *got = ask(request);
		if (!ok(!strncmp(got, cases[i].status, strlen(cases[i].status)) && strstr(got, cases[i].part), "way: %s", cases[i].why))
			printf("# %s\n", got);
	}
}

static void test_bodies(void)
{
	is_str(ask(post("/command", "{\"COMMAND\":\"x\",\"Cwd\":\"/tmp\"}")), STREAM_HEAD INIT "{\"type\":\"execution_complete\",\"timestamp\":T}\n\n",
	       "names of members in any case");
	is_str(buf_str(&seen), "exec /tmp|x|\n", "are understood");
	is_str(ask(post("/command", "{\"COMMAND\":\"y\",\"command\":\"x\"}")), STREAM_HEAD INIT "{\"type\":\"execution_complete\",\"timestamp\":T}\n\n",
	       "with the exact one first");
	is_str(buf_str(&seen), "exec |x|\n", "as it must be");
	is_str(ask(post("/files/mv", "[{\"src\":\"/a\",\"dest\":\"/b\"}] {\"and\" more")), EMPTY, "bytes behind the value are not read");
	is_str(ask(post("/files/permissions", "{\"/a\":{\"Mode\":600,\"OWNER\":null}}trailing")), EMPTY, "nor here");
	is_str(buf_str(&seen), "fs11 mode=600 depth=0 /a|||\n", "the value itself is");
}

static void test_commands(void)
{
	is_str(ask(post("/command", "{\"command\":\"lines\"}")),
	       STREAM_HEAD INIT "{\"type\":\"stdout\",\"text\":\"a\",\"timestamp\":T}\n\n{\"type\":\"stdout\",\"text\":\"\\n\",\"timestamp\":T}\n\n"
				"{\"type\":\"stdout\",\"text\":\"b\",\"timestamp\":T}\n\n{\"type\":\"stdout\",\"text\":\"c\",\"timestamp\":T}\n\n"
				"{\"type\":\"stdout\",\"text\":\"d\",\"timestamp\":T}\n\n{\"type\":\"stderr\",\"text\":\"oops\",\"timestamp\":T}\n\n"
				"{\"type\":\"execution_complete\",\"execution_time\":41,\"timestamp\":T}\n\n",
	       "a run, to the byte");
	is_str(buf_str(&seen), "exec |lines|\n", "what the agent was asked for");
	is_str(ask(post("/command", "{\"command\":\"fail\"}")),
	       STREAM_HEAD INIT "{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"CommandExecError\",\"evalue\":\"3\","
				"\"traceback\":[\"exit status 3\"]}}\n\n",
	       "a failure has an error and no complete");
	is_str(ask(post("/command", "{\"command\":\"killed\"}")),
	       STREAM_HEAD INIT "{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"CommandExecError\",\"evalue\":\"-1\","
				"\"traceback\":[\"signal: killed\"]}}\n\n",
	       "killed by a signal");
	is_str(ask(post("/command", "{\"command\":\"wait\",\"background\":true}")),
	       STREAM_HEAD INIT "{\"type\":\"execution_complete\",\"timestamp\":T}\n\n", "a background command");
	body_is(ask(post("/command", "{\"command\":\"true\",\"cwd\":\"/nowhere\"}")), "HTTP/1.1 400",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"invalid request, validation error: working directory /nowhere: No such file or "
		"directory\"}",
		"a directory that is not there");
	ok(strstr(ask(post("/command", "{\"command\":\"true\",\"cwd\":\"/noshell\"}")), INIT "{\"type\":\"error\""),
	   "a command that cannot be started: init, then error");
	body_is(ask(post("/command", "{}")), "HTTP/1.1 400",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"invalid request, validation error 'command' is required\"}", "no command");
	ok(!strncmp(ask("POST /command HTTP/1.0\r\nContent-Length: 18\r\n\r\n{\"command\":\"true\"}"), "HTTP/1.", 7) &&
		   !strstr(buf_str(&reply), "chunked"),
	   "a client of HTTP/1.0 gets no chunks");
	ok(strstr(ask("POST /command HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		      "9\r\n{\"command\r\n9\r\n\":\"true\"}\r\n0\r\n\r\n"),
		  "execution_complete"),
	   "a chunked body");
}

static void test_questions(void)
{
#define AA "aa000000000000000000000000000000"
#define BB "bb000000000000000000000000000000"
#define FF "ff000000000000000000000000000000"
	body_is(ask("GET /command/status/" AA " HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200",
		"{\"id\":\"" AA "\",\"content\":\"make test\",\"running\":false,\"exit_code\":2,\"error\":\"exit status 2\","
		"\"started_at\":\"2026-01-01T00:00:00.123456Z\",\"finished_at\":\"2026-01-01T00:00:01Z\"}",
		"status of a finished command");
	body_is(ask("GET /command/status/" BB " HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200",
		"{\"id\":\"" BB "\",\"content\":\"make test\",\"running\":true,\"started_at\":\"2026-01-01T00:00:00.123456Z\"}",
		"status of a running one");
	body_is(ask("GET /command/status/" FF " HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"command not found: " FF "\"}", "status of no command");
	body_is(ask("GET /command/status/nope HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"command not found: nope\"}", "an id that is none");
	const char *logs = ask("GET /command/" AA "/logs?cursor=4 HTTP/1.1\r\nHost: x\r\n\r\n");
	body_is(logs, "HTTP/1.1 200", "456789", "logs from a cursor");
	ok(strstr(logs, "EXECD-COMMANDS-TAIL-CURSOR: 10\r\n"), "with the next one");
	logs = ask("GET /command/" AA "/logs?cursor=77 HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(strstr(logs, "EXECD-COMMANDS-TAIL-CURSOR: 77\r\n") && strstr(logs, "Content-Length: 0\r\n"), "a cursor behind the end");
	body_is(ask("GET /command/" FF "/logs HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"command not found: " FF "\"}", "logs of no command");
	ok(!strncmp(ask("GET /command/" AA "/logs?cursor=-1 HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400", 12), "a negative cursor");
	is_str(ask("DELETE /command?id=" BB " HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "interrupt");
	body_is(ask("DELETE /command?id=" AA " HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 500",
		"{\"code\":\"RUNTIME_ERROR\",\"message\":\"command session " AA " is not running\"}", "interrupt of a finished command");
	body_is(ask("DELETE /command?id=" FF " HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 500",
		"{\"code\":\"RUNTIME_ERROR\",\"message\":\"error interruptting code context. no such session\"}", "interrupt of no command");
	body_is(ask("DELETE /command?id=00000000000000000000000000000000 HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 500",
		"{\"code\":\"RUNTIME_ERROR\",\"message\":\"error interruptting code context. no such session\"}",
		"the entrypoint cannot be interrupted");
	body_is(ask("DELETE /command HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400",
		"{\"code\":\"MISSING_QUERY\",\"message\":\"missing query parameter 'id'\"}", "interrupt without an id");
}

#define BAD_JSON "{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"error parsing request, MAYBE invalid body format. "

static void test_replace(void)
{
	static const struct {
		const char *why, *body, *status, *want; /* want: how the answer's body begins */
	} cases[] = {
		{"one file", "{\"/a\":{\"old\":\"x\",\"new\":\"yy\"}}  ", "HTTP/1.1 200", "{\"/a\":{\"replacedCount\":2}}"},
		{"sorted", " {\"/bb\":{\"old\":\"x\"}, \"/a\" : {\"OLD\":\"x\",\"new\":null}}garbage", "HTTP/1.1 200",
		 "{\"/a\":{\"replacedCount\":2},\"/bb\":{\"replacedCount\":3}}"},
		{"names and texts of all kinds", "{\"/\\\"},{\\\\\":{\"old\":\"}\\\",[\",\"new\":\"]]\",\"more\":[{}]}}", "HTTP/1.1 200",
		 "{\"/\\\"},{\\\\\":{\"replacedCount\":6}}"},
		{"no file", "{ \n}", "HTTP/1.1 200", "{}"},
		{"null", "null", "HTTP/1.1 200", "{}"},
		{"nothing to look for", "{\"/a\":{\"old\":\"\",\"new\":\"yy\"}}", "HTTP/1.1 400",
		 "{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"old content must not be empty\"}"},
		{"a missing file", "{\"/a\":{\"old\":\"x\"},\"/missing\":{\"old\":\"x\"}}", "HTTP/1.1 404", "{\"code\":\"FILE_NOT_FOUND\""},
		{"twice the same", "{\"/a\":{\"old\":\"x\"},\"/\\u0061\":{\"old\":\"x\"}}", "HTTP/1.1 400", BAD_JSON},
		{"a list", "[]", "HTTP/1.1 400", BAD_JSON},
		{"no body", "", "HTTP/1.1 400", BAD_JSON},
		{"cut", "{\"/a\":{\"old\":\"x\"}", "HTTP/1.1 400", BAD_JSON},
		{"a comma too many", "{\"/a\":{\"old\":\"x\"},}", "HTTP/1.1 400", BAD_JSON},
		{"a comma too early", "{,\"/a\":{\"old\":\"x\"}}", "HTTP/1.1 400", BAD_JSON},
		{"a comma alone", "{,}", "HTTP/1.1 400", BAD_JSON},
		{"other brackets", "{\"/a\":{\"old\":\"x\"}]", "HTTP/1.1 400", BAD_JSON},
		{"brackets crossed", "{\"/a\":[{\"old\":\"x\"]}}", "HTTP/1.1 400", BAD_JSON},
		{"no comma", "{\"/a\":{\"old\":\"x\"}\"/b\":{\"old\":\"x\"}}", "HTTP/1.1 400", BAD_JSON},
		{"a name alone", "{\"/a\"}", "HTTP/1.1 400", BAD_JSON},
		{"not a string", "{\"/a\":{\"old\":5}}", "HTTP/1.1 400", BAD_JSON},
		{"a NUL", "{\"/a\":{\"old\":\"\\u0000\"}}", "HTTP/1.1 400", BAD_JSON},
	};

	is_str(ask(post("/files/replace", cases[0].body)), EMPTY, "replace");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *got = ask(post("/files/replace?verbose=true", cases[i].body)), *body = strstr(got, "\r\n\r\n");

		if (!ok(!strncmp(got, cases[i].status, 12) && body && !strncmp(body + 4, cases[i].want, strlen(cases[i].want)),
			"replace: %s", cases[i].why))
			printf("# %s\n", got);
	}
}

/* More than one frame, one piece of a body and one step of an answer hold. */
static void test_replace_many(void)
{
	auto_buf body = {0}, want = {0}, request = {0};
	unsigned n = 20000;

	for (unsigned i = 0; i < n; i++) {
		buf_printf(&body, "%s\"/w/%05u\":{\"old\":\"needle %u\",\"new\":\"\"}", i ? "," : "{", i, i);
		buf_printf(&want, "%s\"/w/%05u\":{\"replacedCount\":8}", i ? "," : "{", i);
	}
	buf_puts(&body, "}");
	buf_puts(&want, "}");
	buf_printf(&request, "POST /files/replace?verbose=true HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", buf_used(&body));
	buf_append(&request, buf_peek(&body), buf_used(&body));
	client_open();
	client_send(buf_peek(&request), buf_used(&request));
	for (int i = 0; i < 20000 && !strstr(buf_str(&reply), "\r\n0\r\n\r\n"); i++)
		client_read();
	/* without the lines of the chunks */
	auto_buf got = {0};
	const char *at = strstr(buf_str(&reply), "\r\n\r\n");
	for (size_t size = 1; at && size;) {
		at += got.len ? 2 : 4;
		for (size = 0; hex_digit(*at) >= 0; at++)
			size = size * 16 + (size_t)hex_digit(*at);
		at += 2;
		buf_append(&got, at, size);
		at += size;
	}
	ok(buf_used(&got) == buf_used(&want) && !memcmp(buf_peek(&got), buf_peek(&want), buf_used(&want)), "%u files in one request (%zu of %zu)",
	   n, buf_used(&got), buf_used(&want));
}

static void test_files(void)
{
	is_str(ask("GET /files/info?path=%2Fb&path=/a+c HTTP/1.1\r\nHost: x\r\n\r\n"),
	       JSON "Content-Length: 319\r\n\r\n{\"/a c\":" INFO("/a c") ",\"/b\":" INFO("/b") "}", "info, sorted by name");
	body_is(ask("GET /files/info?path=/b&path=/missing HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404",
		"{\"code\":\"FILE_NOT_FOUND\",\"message\":\"file not found. /missing\"}", "info of a missing file");
	body_is(ask("GET /files/info HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200", "{}", "info of nothing");
	body_is(ask("GET /files/search?path=/w&pattern=*.txt HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200", "[" INFO("/w") "]", "search");
	body_is(ask("GET /files/search HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400",
		"{\"code\":\"MISSING_QUERY\",\"message\":\"missing query parameter 'path'\"}", "search without a path");
	body_is(ask("GET /directories/list?path=/w&depth=3 HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200", "[" INFO("/w") "]", "list");
	ok(strstr(buf_str(&seen), "depth=3"), "with its depth");
	ok(!strncmp(ask("GET /directories/list?path=/w&depth=-1 HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400", 12), "bad depth");
	is_str(ask("DELETE /files?path=/a&path=/b HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "delete");
	is_str(buf_str(&seen), "fs8 mode=1234567 depth=0 /a|/b|\n", "is one request");
	is_str(ask("DELETE /directories?path=/a HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "delete a directory");
	is_str(ask(post("/files/permissions", "{\"/a\":{\"mode\":755,\"owner\":\"nobody\",\"group\":null},\"/b\":{}}  ")), EMPTY,
	       "permissions");
	is_str(buf_str(&seen), "fs11 mode=755 depth=0 /a|nobody||\nfs11 mode=1234567 depth=0 /b|||\n", "one request a file, in order");
	body_is(ask(post("/files/permissions", "{\"/missing\":{\"mode\":755},\"/b\":{}}")), "HTTP/1.1 404",
		"{\"code\":\"FILE_NOT_FOUND\",\"message\":\"file not found. /missing\"}", "a missing file ends the row");
	is_str(buf_str(&seen), "fs11 mode=755 depth=0 /missing|||\n", "and the rest is not done");
	is_str(ask(post("/files/permissions", "null")), EMPTY, "permissions of nothing");
	is_str(ask(post("/directories", "{\"/d\":{\"mode\":4755}}")), EMPTY, "make a directory");
	is_str(buf_str(&seen), "fs7 mode=4755 depth=0 /d|||\n", "with its mode");
	ok(!strncmp(ask(post("/directories", "{\"/d\":{\"mode\":798}}")), "HTTP/1.1 500", 12), "a mode that is not octal");
	is_str(ask(post("/files/mv", "[{\"src\":\"/a\",\"dest\":\"/b\"}]  ")), EMPTY, "move");
	body_is(ask(post("/files/mv", "[{\"src\":\"/a\",\"dest\":\"/taken\"}]")), "HTTP/1.1 500",
		"{\"code\":\"RUNTIME_ERROR\",\"message\":\"destination path already exists: /taken\"}", "move onto a file");
	test_replace();
}


#define CONTENT "0123456789\r\nline two\nline three\n"

static void test_download(void)
{
	const char *got = ask("GET /files/download?path=/w/a.txt HTTP/1.1\r\nHost: x\r\n\r\n");

	body_is(got, "HTTP/1.1 200", CONTENT, "download");
	ok(strstr(got, "Content-Length: 32\r\n") && strstr(got, "Content-Disposition: attachment; filename=\"a.txt\"\r\n") &&
		   strstr(got, "Accept-Ranges: bytes\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n") &&
		   strstr(got, "Content-Type: application/octet-stream\r\n"),
	   "its head");
	got = ask("GET /files/download?path=/w/a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=2-5\r\n\r\n");
	body_is(got, "HTTP/1.1 206", "2345", "a range");
	ok(strstr(got, "Content-Range: bytes 2-5/32\r\n") && strstr(got, "Content-Length: 4\r\n"), "its head");
	body_is(ask("GET /files/download?path=/w/a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=-6\r\n\r\n"), "HTTP/1.1 206", "three\n",
		"the last bytes");
	got = ask("GET /files/download?path=/w/a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=32-\r\n\r\n");
	body_is(got, "HTTP/1.1 416", "{\"code\":\"UNKNOWN\",\"message\":\"the file has no bytes in this range\"}", "beyond the end");
	ok(strstr(got, "Content-Range: bytes */32\r\n"), "says the size");
	body_is(ask("GET /files/download?path=/w/a.txt HTTP/1.1\r\nHost: x\r\nRange: lines=1\r\n\r\n"), "HTTP/1.1 416",
		"{\"code\":\"UNKNOWN\",\"message\":\"the Range header is not 'bytes=first-last'\"}", "a range that is none");
	got = ask("GET /files/download?path=/w/a.txt&offset=1&limit=9 HTTP/1.1\r\nHost: x\r\n\r\n");
	body_is(got, "HTTP/1.1 200", "0123456789\nline two\nline three", "lines");
	ok(strstr(got, "Content-Type: text/plain; charset=utf-8\r\n"), "are text");
	ok(!strncmp(ask("GET /files/download?path=/w/a.txt&offset=0 HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400", 12), "line 0");
	ok(!strncmp(ask("GET /files/download?path=/w/a.txt&limit=1 HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n"), "HTTP/1.1 400",
		    12),
	   "lines and a range");
	body_is(ask("GET /files/download?path=/missing HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404",
		"{\"code\":\"FILE_NOT_FOUND\",\"message\":\"file not found. /missing\"}", "a missing file");
	body_is(ask("GET /files/download?path=/dir HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"path is a directory: /dir\"}", "a directory");
	static const struct {
		const char *since;
		int status;
	} dates[] = {
		{"Thu, 01 Jan 2026 00:00:00 GMT", 304},	 {"Fri, 02 Jan 2026 00:00:00 GMT", 304}, {"Wed, 31 Dec 2025 23:59:59 GMT", 200},
		{"Thursday, 01-Jan-26 00:00:00 GMT", 304}, {"Thu Jan  1 00:00:00 2026", 304},	 {"Wed Dec 31 23:59:59 2025", 200},
		{"yesterday", 200},			 {"Fri, 02 Jan 2026 00:00:00 GMT+1", 200}, {"Fri, 02 Jan 2026", 200},
	};
	for (size_t i = 0; i < ARRAY_SIZE(dates); i++) {
		char request[200];

		snprintf(request, sizeof(request), "GET /files/download?path=/a HTTP/1.1\r\nHost: x\r\nIf-Modified-Since: %s\r\n\r\n", dates[i].since);
		const char *answer = ask(request);
		ok(strlen(answer) > 9 && !strncmp(answer + 9, dates[i].status == 304 ? "304" : "200", 3), "not modified since %s: %d", dates[i].since, dates[i].status);
		if (dates[i].status == 304)
			body_is(answer, "HTTP/1.1 304", "", "nothing behind it");
	}
}

/* ---- uploads ---- */

#define META(json) \
	"--B\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"metadata\"\r\nContent-Type: application/json\r\n\r\n" \
	json "\r\n"
#define FILE_PART(content) \
	"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a b\"\r\nContent-Type: text/plain\r\n\r\n" content "\r\n"
#define FORM_END "--B--\r\n"

static const char *send_form(const char *form, bool chunked)
{
	auto_buf request = {0};
	size_t n = strlen(form);

	buf_puts(&request, "POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n");
	if (!chunked)
		buf_printf(&request, "Content-Length: %zu\r\n\r\n%s", n, form);
	else
		buf_puts(&request, "Transfer-Encoding: chunked\r\n\r\n");
	for (size_t at = 0; chunked && at < n; at += 7)
		buf_printf(&request, "%zx\r\n%.*s\r\n", n - at < 7 ? n - at : 7, (int)(n - at < 7 ? n - at : 7), form + at);
	if (chunked)
		buf_puts(&request, "0\r\n\r\n");
	client_open();
	client_send(buf_str(&request), buf_used(&request));
	client_read();
	return masked();
}

static void test_uploads(void)
{
	static const struct {
		const char *why, *form, *status, *code, *uploaded;
	} cases[] = {
		{"one file", META("{\"path\":\"/w/a\",\"mode\":755}") FILE_PART("hello") FORM_END, "HTTP/1.1 200", "", "hello;"},
		{"two files", META("{\"path\":\"/a\"}") FILE_PART("1") META("{\"path\":\"/b\"}") FILE_PART("2") FORM_END, "HTTP/1.1 200", "",
		 "1;2;"},
		{"all metadata first", META("{\"path\":\"/a\"}") META("{\"path\":\"/b\"}") FILE_PART("1") FILE_PART("2") FORM_END,
		 "HTTP/1.1 200", "", "1;2;"},
		{"an empty file", META("{\"path\":\"/a\",\"owner\":null,\"group\":null}") FILE_PART("") FORM_END, "HTTP/1.1 200", "", ";"},
		{"no metadata", FILE_PART("1") FORM_END, "HTTP/1.1 400", "INVALID_FILE_METADATA\",\"message\":\"metadata file is missing", "1"},
		{"no file", META("{\"path\":\"/a\"}") FORM_END, "HTTP/1.1 400", "INVALID_FILE_CONTENT\",\"message\":\"file is missing", ""},
		{"nothing", FORM_END, "HTTP/1.1 400", "INVALID_FILE_METADATA", ""},
		{"a file too many", META("{\"path\":\"/a\"}") FILE_PART("1") FILE_PART("2") FORM_END, "HTTP/1.1 400",
		 "INVALID_FILE\",\"message\":\"metadata and file count mismatch: 1 vs 2", "1;2"},
		{"metadata too many", META("{\"path\":\"/a\"}") FILE_PART("1") META("{\"path\":\"/b\"}") FORM_END, "HTTP/1.1 400",
		 "INVALID_FILE\",\"message\":\"metadata and file count mismatch: 2 vs 1", "1;"},
		{"bad metadata", META("{path}") FILE_PART("1") FORM_END, "HTTP/1.1 400", "INVALID_FILE_METADATA", ""},
		{"no path", META("{\"mode\":644}") FILE_PART("1") FORM_END, "HTTP/1.1 400", "INVALID_FILE_METADATA", ""},
		{"mode 888", META("{\"path\":\"/a\",\"mode\":888}") FILE_PART("1") FORM_END, "HTTP/1.1 500", "RUNTIME_ERROR", ""},
		{"onto a directory", META("{\"path\":\"/dir\"}") FILE_PART("1") FORM_END, "HTTP/1.1 500", "RUNTIME_ERROR", NULL},
		{"cut short", META("{\"path\":\"/a\"}") "--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nhalf", "HTTP/1.1 400",
		 "INVALID_FILE", NULL},
		{"bad metadata behind its file", FILE_PART("1") META("{path}") FORM_END, "HTTP/1.1 400", "INVALID_FILE_METADATA", "1"},
		{"more files before their metadata than may wait",
		 FILE_PART("1") FILE_PART("2") FILE_PART("3") FILE_PART("4") FILE_PART("5") FILE_PART("6") FILE_PART("7") FILE_PART("8")
			 FILE_PART("9") META("{\"path\":\"/a\"}") FORM_END,
		 "HTTP/1.1 400", "INVALID_FILE\",\"message\":\"more than 8 files before their metadata", "12345678"},
		{"no form", "hello", "HTTP/1.1 400", "INVALID_FILE\",\"message\":\"multipart form is empty", ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (int chunked = 0; chunked < 2; chunked++) {
			const char *got = send_form(cases[i].form, chunked);

			if (!ok(!strncmp(got, cases[i].status, 12) && strstr(got, cases[i].code), "upload%s: %s", chunked ? " in chunks" : "",
				cases[i].why))
				printf("# %s\n", got);
			if (cases[i].uploaded)
				is_str(buf_str(&uploaded), cases[i].uploaded, "what arrived: %s", cases[i].why);
		}
	is_str(send_form(META("{\"path\":\"/w/a\",\"mode\":755}") FILE_PART("x") FORM_END, false), EMPTY, "an upload's answer is empty");
	is_str(buf_str(&seen), "fs5 mode=755 depth=0 /w/a|||\n", "and asks for a file with its mode");
	body_is(ask(post("/files/upload", "{}")), "HTTP/1.1 400",
		"{\"code\":\"INVALID_FILE\",\"message\":\"multipart form is empty\"}", "not multipart");
}

/* What is said behind the content of a file that came before its metadata; "" when it is not well-formed.  Moves *@at behind it. */
static const char *target_at(size_t *at, uint32_t *ret_mode)
{
	size_t left = buf_used(&uploaded) - *at;
	const char *text = buf_peek(&uploaded) + *at;
	struct agent_fs fs;
	uint32_t n;

	if (left < sizeof(fs))
		return "";
	memcpy(&fs, text, sizeof(fs));
	if (left - sizeof(fs) < fs.string_bytes + sizeof(n) + 1 || fs.op != AGENT_FS_WRITE || fs.n_strings != 3)
		return "";
	memcpy(&n, text + sizeof(fs) + fs.string_bytes, sizeof(n));
	*at += sizeof(fs) + fs.string_bytes + sizeof(n) + 1;
	*ret_mode = fs.mode;
	return n == sizeof(fs) + fs.string_bytes && buf_peek(&uploaded)[*at - 1] == ';' ? text + sizeof(fs) : "";
}

/* A file that comes before its metadata goes to the agent all the same; where it belongs is told behind it. */
static void test_upload_late(void)
{
	for (int chunked = 0; chunked < 2; chunked++) {
		uint32_t mode[2] = {0};
		size_t at = 3;

		const char *got = send_form(FILE_PART("1") FILE_PART("22") META("{\"path\":\"/w/a\",\"mode\":755}")
						    META("{\"path\":\"/b\",\"owner\":\"u\"}") META("{\"path\":\"/c\"}") FILE_PART("3") FORM_END,
					    chunked);
		is_str(got, EMPTY, "files before their metadata%s", chunked ? " in chunks" : "");
		ok(buf_used(&uploaded) > at && !memcmp(buf_peek(&uploaded), "122", at), "their content goes as it comes");
		is_str(target_at(&at, &mode[0]), "/w/a", "the first metadata is the first file's");
		is_str(target_at(&at, &mode[1]), "/b", "and the second the second's");
		ok(mode[0] == 0755 && mode[1] == 0, "with their modes");
		is_str(buf_str(&uploaded) + at, "3;", "a pair behind them is a pair as any");
	}
	auto_buf request = {0};
	buf_puts(&request, "POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n"
			   "Content-Length: 1000\r\n\r\n" FILE_PART("1"));
	client_open();
	client_send(buf_str(&request), buf_used(&request));
	turn(20);
	last_stopped = 0;
	close(client);
	client = -1;
	turn(6);
	ok(last_stopped && last_stopped == last_stream, "a client that goes away takes its file along");
}

/* Large content goes from the socket into the pipe; what looks like its end is looked at, wherever a piece ends. */
static void test_upload_spliced(bool chunked)
{
	static const size_t sizes[] = {700000, 20000, 0, 300000};
	static const char *const looks[] = {"\r\n--", "\r\n--Bx", "\r\n-", "\r", "\r\r\n--B:"};
	auto_buf form = {0}, want = {0}, request = {0};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		buf_puts(&form, META("{\"path\":\"/a\"}") "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n");
		for (size_t n = 0, k = 0; n < sizes[i]; k++) {
			static char piece[120000];
			size_t len = (size_t)snprintf(piece, sizeof(piece), "%0*zu%s", (int)(k * 37813 % 100000 + 1), k,
						      looks[k % ARRAY_SIZE(looks)]);

			buf_append(&form, piece, len);
			buf_append(&want, piece, len);
			n += len;
		}
		buf_puts(&form, "\r\n");
		buf_puts(&want, ";");
	}
	buf_puts(&form, FORM_END);
	buf_puts(&request, "POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n");
	if (!chunked)
		buf_printf(&request, "Content-Length: %zu\r\n\r\n", buf_used(&form));
	else
		buf_puts(&request, "Transfer-Encoding: chunked\r\n\r\n");
	for (size_t at = 0, n; at < buf_used(&form); at += n) {
		n = chunked && buf_used(&form) - at > 41234 ? 41234 : buf_used(&form) - at;
		if (chunked)
			buf_printf(&request, "%zx\r\n", n);
		buf_append(&request, buf_peek(&form) + at, n);
		if (chunked)
			buf_puts(&request, "\r\n");
	}
	if (chunked)
		buf_puts(&request, "0\r\n\r\n");
	for (size_t step = 33333; step < 3000000; step *= 6) {
		size_t before = agent.n_bulk;

		client_open();
		for (size_t at = 0; at < buf_used(&request); at += step)
			client_send(buf_peek(&request) + at, buf_used(&request) - at < step ? buf_used(&request) - at : step);
		for (int i = 0; i < 1000 && !buf_used(&reply); i++)
			client_read();
		ok(!strncmp(buf_str(&reply), "HTTP/1.1 200", 12), "%s, %zu bytes at a time", chunked ? "chunks" : "a length", step);
		ok(buf_used(&uploaded) == buf_used(&want) && !memcmp(buf_peek(&uploaded), buf_peek(&want), buf_used(&want)),
		   "every byte arrives, and none of the form (%zu of %zu)", buf_used(&uploaded), buf_used(&want));
		ok(agent.n_bulk - before > 500000, "most of it past the frames");
	}
}

/* An agent that takes nothing stops the sender, not the server. */
static void test_upload_stalls(void)
{
	static const char head[] = "POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n"
				   "Content-Length: 100000000\r\n\r\n" META("{\"path\":\"/big\"}")
				   "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n";
	static char block[65536];
	size_t sent = 0;

	hold = true;
	client_open();
	client_send(head, sizeof(head) - 1);
	memset(block, 'u', sizeof(block));
	for (int idle = 0; idle < 50;) {
		ssize_t n = send(client, block, sizeof(block), MSG_NOSIGNAL);

		sent += n > 0 ? (size_t)n : 0;
		idle = n > 0 ? 0 : idle + 1;
		turn(4);
	}
	is_int(buf_used(&uploaded), AGENT_WINDOW, "the agent gets one window and no more");
	ok(sent < AGENT_WINDOW + (2u << 20), "the client is stopped after %zu bytes", sent);
	is_str((client_read(), buf_str(&reply)), "", "without an answer");
	fake_agent_send(&agent, AGENT_CREDIT, last_stream, 100000, NULL, 0);
	turn(20);
	is_int(buf_used(&uploaded), AGENT_WINDOW + 100000, "credit lets exactly that much through");
	close(client);
	client = -1;
	turn(6);
	is_int(last_stopped, last_stream, "a client that goes away cancels the file");
	hold = false;
}

/* ---- streams that do not run smoothly ---- */

static void test_disconnect(void)
{
	client_open();
	client_send(post("/command", "{\"command\":\"wait\"}"), strlen(post("/command", "{\"command\":\"wait\"}")));
	client_read();
	ok(strstr(buf_str(&reply), "\"init\""), "a command runs");
	close(client);
	client = -1;
	turn(8);
	is_int(last_stopped, last_stream, "its client goes: the agent is told");
	is_str(ask("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "and the sandbox still answers");
}

static void test_slow_reader(void)
{
	static char block[16384];
	static const char request[] = POST("/command", "18\r\n\r\n{\"command\":\"wait\"}");
	uint32_t stream;

	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = i % 100 == 99 ? '\n' : 'y';
	client_open();
	client_send(request, sizeof(request) - 1);
	turn(6);
	stream = last_stream;
	last_credit = 0;
	/* an agent that honours its window: it stops when no credit comes */
	size_t window = AGENT_WINDOW, total = 0;
	for (int idle = 0; idle < 30; idle++) {
		window += last_credit;
		last_credit = 0;
		if (window >= sizeof(block)) {
			fake_agent_send(&agent, AGENT_STDOUT, stream, 0, block, sizeof(block));
			window -= sizeof(block);
			total += sizeof(block);
			idle = 0;
		}
		turn(4);
	}
	ok(total < 4u << 20, "a client that does not read stops its command after %zu bytes", total);
	client_open(); /* the stalled one is given up, another is served */
	is_str(ask("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "others go on");
	is_int(n_broken, 0, "and the channel is fine");
}

static void test_pings(void)
{
	static const char request[] = POST("/command", "18\r\n\r\n{\"command\":\"wait\"}");
	static const struct {
		uint64_t ms;
		int pings;
	} steps[] = {{0, 1}, {2999, 1}, {1, 2}, {2999, 2}, {1, 3}};

	client_open();
	client_send(request, sizeof(request) - 1);
	turn(4);
	for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
		int pings = 0;

		pass(steps[i].ms);
		client_read();
		for (const char *at = buf_str(&reply); (at = strstr(at, "pong")); at++)
			pings++;
		is_int(pings, steps[i].pings, "a silent command is pinged at once and every 3 s: step %u", i);
	}
	fake_agent_exit(&agent, last_stream, 0, 0, 3500);
	client_read();
	ok(strstr(masked(), "\"execution_time\":3500,\"timestamp\":T}\n\n") != NULL, "and ends as soon as it ends");
}

static void test_end_of_sandbox(void)
{
	static const char request[] = POST("/command", "18\r\n\r\n{\"command\":\"wait\"}");

	client_open();
	client_send(request, sizeof(request) - 1);
	turn(6);
	fake_agent_send(&agent, AGENT_STDOUT, last_stream, 0, "half", 4);
	turn(4);
	fake_agent_free(&agent);
	for (int i = 0; i < 6; i++)
		loop_once(loop, 0);
	client_read();
	is_str(masked(),
	       STREAM_HEAD INIT "{\"type\":\"stdout\",\"text\":\"half\",\"timestamp\":T}\n\n"
				"{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"CommandExecError\",\"evalue\":\"-1\","
				"\"traceback\":[\"the sandbox has ended\"]}}\n\n",
	       "a sandbox that ends tells its streams, which end well-formed");
	is_int(n_broken, 1, "the gateway is told");
	body_is(ask("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 503",
		"{\"code\":\"SANDBOX::NOT_READY\",\"message\":\"the sandbox is not reachable at the moment\"}", "later calls fail at once");
	n_broken = 0;
	box_up(NULL);
}

static void test_hostile_agent(void)
{
	static const char request[] = POST("/command", "18\r\n\r\n{\"command\":\"wait\"}");
	uint8_t junk[64];

	client_open();
	client_send(request, sizeof(request) - 1);
	turn(6);
	memset(junk, 0xee, sizeof(junk));
	fake_agent_raw(&agent, junk, sizeof(junk));
	turn(4);
	client_read();
	is_int(n_broken, 1, "a forged frame ends the channel");
	ok(strstr(masked(), "CommandExecError") && strstr(buf_str(&reply), "\"evalue\":\"-1\""), "and the stream with an error event");
	n_broken = 0;
	fake_agent_free(&agent);
	box_up(NULL);

	hold = true;
	client_open();
	client_send("GET /files/info?path=/a HTTP/1.1\r\nHost: x\r\n\r\n", 45);
	turn(6);
	fake_agent_send(&agent, AGENT_DATA, last_stream, 0, junk, sizeof(junk));
	turn(4);
	client_read();
	ok(!strncmp(masked(), "HTTP/1.1 500", 12), "a malformed record fails its request");
	is_int(last_stopped, last_stream, "which is given up");
	hold = false;
	is_str(ask("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "and no other");
}

static void test_metrics(void)
{
	client_open();
	client_send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 35);
	for (int i = 0; i < 200 && !buf_used(&reply); i++, client_read())
		pass(50);
	body_is(masked(), "HTTP/1.1 200",
		"{\"cpu_count\":2,\"cpu_used_pct\":100,\"mem_total_mib\":256,\"mem_used_mib\":64,\"timestamp\":T}", "metrics");
	client_open();
	client_send("GET /metrics/watch HTTP/1.1\r\nHost: x\r\n\r\n", 41);
	for (int i = 0; i < 200 && !strstr(buf_str(&reply), "memory_used_in_mib"); i++, client_read())
		pass(50);
	const char *text = buf_str(&reply);
	ok(strstr(text, "\"memory_used_in_mib\":64,\"timestamp\":") && strstr(text, "}\n\n"), "watched, under both sets of names");
}

/* ---- terminals ---- */

#define WS_HEAD "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

static void ws_send(enum ws_opcode opcode, const char *data, size_t n)
{
	auto_buf frame = {0};

	if (ws_write(&frame, false, opcode, true, data, n) == 0)
		client_send(buf_peek(&frame), buf_used(&frame));
	turn(4);
}

static void ws_text(const char *text)
{
	ws_send(WS_TEXT, text, strlen(text));
}

/* Frames since the last call, as "kind:text|", behind the head of the 101. */
static const char *ws_frames(struct buf *out)
{
	struct ws_reader reader;
	struct ws_piece piece;
	size_t used;

	client_read();
	char *text = (char *)(uintptr_t)buf_str(&reply), *head = strstr(text, "\r\n\r\n");
	size_t skip = !strncmp(text, "HTTP/", 5) && head ? (size_t)(head + 4 - text) : 0;
	buf_clear(out);
	ws_reader_init(&reader, false, 0);
	for (size_t at = skip; at < buf_used(&reply);) {
		enum ws_event event = ws_read(&reader, (uint8_t *)(uintptr_t)buf_peek(&reply) + at, buf_used(&reply) - at, &used, &piece);

		at += used;
		if (event == WS_MORE || event == WS_BAD)
			break;
		if (piece.opcode == WS_CLOSE)
			buf_printf(out, "close%u|", piece.close_code);
		else if (piece.opcode == WS_BINARY)
			buf_printf(out, "%u:%.*s|", piece.data[0], (int)(piece.n - (piece.data[0] == 3 ? 9 : 1)),
				   (const char *)piece.data + (piece.data[0] == 3 ? 9 : 1));
		else
			buf_printf(out, "%.*s|", (int)piece.n, (const char *)piece.data);
	}
	buf_clear(&reply);
	return buf_str(out);
}

static void test_terminal(void)
{
	auto_buf out = {0};
	char id[40] = "", request[512], want[256];

	hold = true;
	ask(post("/pty", "{\"command\":\"htop\"}"));
	char *at = strstr((char *)(uintptr_t)buf_str(&reply), "\"session_id\":\"");
	ok(!strncmp(buf_str(&reply), "HTTP/1.1 201", 12) && at, "a terminal session is made");
	if (!at)
		return;
	memcpy(id, at + 14, 36);
	is_str(buf_str(&seen), "", "nothing is started yet");
	ok(!strncmp(ask("POST /pty HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), "HTTP/1.1 201", 12), "an empty body will do");
	ok(!strncmp(ask(post("/pty", "null")), "HTTP/1.1 201", 12), "so will null");
	ok(!strncmp(ask(post("/pty", "[]")), "HTTP/1.1 400", 12), "a list will not");
	ok(!strncmp(ask(post("/pty", "\"x\"")), "HTTP/1.1 400", 12), "nor a text");

	snprintf(request, sizeof(request), "GET /pty/%s/ws HTTP/1.1\r\n" WS_HEAD, id);
	client_open();
	client_send(request, strlen(request));
	client_read();
	ok(!strncmp(buf_str(&reply), "HTTP/1.1 101", 12) && strstr(buf_str(&reply), "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
	   "the handshake");
	snprintf(want, sizeof(want), "{\"type\":\"connected\",\"session_id\":\"%s\",\"mode\":\"pty\"}\n|", id);
	is_str(ws_frames(&out), want, "then who is connected");
	is_str(buf_str(&seen), "exec |htop|\n", "and the shell is started");
	uint32_t shell = last_stream;
	fake_agent_started(&agent, shell);
	fake_agent_send(&agent, AGENT_STDOUT, shell, 0, "$ ", 2);
	is_str(ws_frames(&out), "1:$ |", "output");
	ws_send(WS_BINARY, "\0ls\n", 4);
	ws_text("{\"type\":\"stdin\",\"data\":\"pwd\\n\"}");
	ws_send(WS_BINARY, "\7ignored", 8);
	is_str(buf_str(&uploaded), "ls\npwd\n", "input, in both forms");
	ws_text("{\"type\":\"resize\",\"cols\":120,\"rows\":40}");
	ws_text("{\"type\":\"signal\",\"signal\":\"SIGINT\"}");
	is_str(buf_str(&seen), "exec |htop|\nresize 120x40\nsignal 2\n", "resize and signal");
	ws_text("{\"type\":\"ping\"}");
	ws_text("no json");
	ws_text("{\"type\":\"dance\"}");
	is_str(ws_frames(&out),
	       "{\"type\":\"pong\"}\n|{\"type\":\"error\",\"error\":\"unknown type of message\",\"code\":\"INVALID_FRAME\"}\n|",
	       "pong, and what is not understood");

	int first = client;
	client = -1;
	body_is(ask(request), "HTTP/1.1 409", "{\"code\":\"ALREADY_CONNECTED\",\"message\":\"another client holds this terminal\"}",
		"a second client is refused");
	snprintf(request, sizeof(request), "GET /pty/%s/ws?takeover=1&since=1 HTTP/1.1\r\n" WS_HEAD, id);
	client_open();
	client_send(request, strlen(request));
	ok(strstr(ws_frames(&out), "3: |{\"type\":\"connected\"") == buf_str(&out), "unless it takes over; it sees what it missed");
	char old[64];
	ssize_t n = read(first, old, sizeof(old));
	ok(n == 14 && !memcmp(old, "\x88\x0c\x0f\xa1TAKEN_OVER", 14), "the first one is told");
	close(first);

	fake_agent_send(&agent, AGENT_STDOUT, shell, 0, "bye", 3);
	fake_agent_exit(&agent, shell, 5, 0, 10);
	is_str(ws_frames(&out), "1:bye|{\"type\":\"exit\",\"exit_code\":5}\n|close1000|", "the exit, then the close");
	client_open();
	client_send(request, strlen(request));
	turn(6);
	fake_agent_started(&agent, last_stream);
	fake_agent_exit(&agent, last_stream, 0, 15, 10);
	ok(strstr(ws_frames(&out), "{\"type\":\"exit\",\"exit_code\":-1,\"signal\":15}\n|close1000|"), "a signal is named");
	snprintf(request, sizeof(request), "GET /pty/%s HTTP/1.1\r\nHost: x\r\n\r\n", id);
	snprintf(want, sizeof(want), "{\"session_id\":\"%s\",\"running\":false,\"output_offset\":5}", id);
	body_is(ask(request), "HTTP/1.1 200", want, "the session stays");
	snprintf(request, sizeof(request), "DELETE /pty/%s HTTP/1.1\r\nHost: x\r\n\r\n", id);
	is_str(ask(request), EMPTY, "until it is deleted");
	ok(!strncmp(ask(request), "HTTP/1.1 404", 12), "once");
	hold = false;
}

/* A terminal whose client may be gone: pings, and an end when nothing comes back. */
static void test_terminal_silence(void)
{
	static const struct {
		uint64_t ms;
		bool pong;
		const char *want;
	} steps[] = {
		{29999, false, ""}, {1, false, "|"},	    {29999, true, ""},		{1, false, "|"},
		{30000, false, "|"}, {29998, false, ""}, {1, false, "close1001|"},
	};
	auto_buf out = {0};
	char request[512];

	hold = true;
	ask(post("/pty", "{}"));
	char *at = strstr((char *)(uintptr_t)buf_str(&reply), "\"session_id\":\"");
	snprintf(request, sizeof(request), "GET /pty/%.36s/ws HTTP/1.1\r\n" WS_HEAD, at ? at + 14 : "");
	client_open();
	client_send(request, strlen(request));
	ok(strstr(ws_frames(&out), "connected") != NULL, "a terminal's client");
	fake_agent_started(&agent, last_stream);
	turn(4);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		pass(steps[i].ms);
		is_str(ws_frames(&out), steps[i].want, "pinged every 30 s, closed after 60 s without a sign: step %zu", i);
		if (steps[i].pong)
			ws_send(WS_PONG, "", 0);
	}
	hold = false;
}

/* Whoever comes first has the last place, also when the other one was there to ask before. */
static void test_terminals_full(void)
{
	enum { MOST = 16 };
	char request[512];
	int held[MOST];

	box_down(); /* and with it all terminals */
	box_up(NULL);
	hold = true;
	for (int i = 0; i < MOST; i++) {
		ask(post("/pty", "{}"));
		char *at = strstr((char *)(uintptr_t)buf_str(&reply), "\"session_id\":\"");
		snprintf(request, sizeof(request), "GET /pty/%.36s/ws HTTP/1.1\r\n" WS_HEAD, at ? at + 14 : "");
		client_open();
		if (i < MOST - 1)
			client_send(request, strlen(request));
		else
			client_send(post("/pty", "{\"cwd\":\"/late\"}"), strlen(post("/pty", "{\"cwd\":\"/late\"}")));
		turn(4);
		held[i] = client;
		client = -1;
	}
	uint32_t making = last_stream;
	client_open(); /* the last one is in use, too */
	client_send(request, strlen(request));
	client_read();
	ok(!strncmp(buf_str(&reply), "HTTP/1.1 101", 12), "as many terminals as may be, all of them in use");
	fake_agent_end(&agent, making, AGENT_OK, 0, 0, "");
	close(client);
	client = held[MOST - 1];
	buf_clear(&reply);
	client_read();
	ok(strstr(buf_str(&reply), "{\"code\":\"GENERAL::OVERLOADED\",\"message\":\"the sandbox has 16 terminal sessions already, and all of them are in use\"}"),
	   "and not one more");
	for (int i = 0; i < MOST - 1; i++)
		close(held[i]);
	turn(4);
	hold = false;
}

/* ---- sessions and code: the test plays the shell and the interpreter ---- */

static void start_ask(const char *request)
{
	client_open();
	client_send(request, strlen(request));
	turn(6);
}

static const char *end_ask(void)
{
	turn(6);
	client_read();
	return masked();
}

/* The value of the JSON member @name of what was answered, in a buffer of its own. */
static const char *member(const char *name)
{
	static char value[64];
	char key[64];

	snprintf(key, sizeof(key), "\"%s\":\"", name);
	const char *at = strstr(buf_str(&reply), key);
	snprintf(value, sizeof(value), "%.*s", at ? (int)strcspn(at + strlen(key), "\"") : 0, at ? at + strlen(key) : "");
	return value;
}

#define SEND(type, literal) fake_agent_send(&agent, type, last_stream, 0, literal, sizeof(literal) - 1)
#define COMPLETE	    "{\"type\":\"execution_complete\",\"timestamp\":T}\n\n"

static void test_sessions(void)
{
	char run[96], gone[160];

	hold = true;
	body_is(ask(post("/session", "{")), "HTTP/1.1 400",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"error parsing request. JSON: the text ends too early (byte 1)\"}", "a session of no JSON");
	ask("POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
	ok(strlen(member("session_id")) == 36, "a session without a body");
	snprintf(run, sizeof(run), "/session/%s/run", member("session_id"));
	snprintf(gone, sizeof(gone), "DELETE /session/%s HTTP/1.1\r\nHost: x\r\n\r\n", member("session_id"));

	start_ask(post(run, "{\"command\":\"c d\",\"timeout\":500}"));
	ok(!strncmp(buf_str(&seen), "exec |bash|--noprofile|--norc|-c|c d|BASH_ENV=/proc/self/fd/197|", 62), "what the agent was asked for");
	fake_agent_started(&agent, last_stream);
	SEND(AGENT_STDOUT, "a\n\nb\r");
	SEND(AGENT_STDOUT, "\nc");
	fake_agent_exit(&agent, last_stream, 0, 0, 41);
	is_str(end_ask(),
	       STREAM_HEAD INIT "{\"type\":\"stdout\",\"text\":\"a\",\"timestamp\":T}\n\n{\"type\":\"stdout\",\"text\":\"\\n\",\"timestamp\":T}\n\n"
				"{\"type\":\"stdout\",\"text\":\"b\",\"timestamp\":T}\n\n{\"type\":\"stdout\",\"text\":\"c\",\"timestamp\":T}\n\n"
				"{\"type\":\"execution_complete\",\"execution_time\":41,\"timestamp\":T}\n\n",
	       "a run in a session, to the byte");
	start_ask(post(run, "{\"command\":\"x\"}"));
	fake_agent_started(&agent, last_stream);
	fake_agent_exit(&agent, last_stream, 7, 0, 0);
	is_str(end_ask(), STREAM_HEAD INIT "{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"CommandExecError\",\"evalue\":\"7\","
					   "\"traceback\":[\"exit status 7\"]}}\n\n",
	       "a failure");
	start_ask(post(run, "{\"command\":\"x\",\"timeout\":500}"));
	fake_agent_started(&agent, last_stream);
	struct agent_exit late = {.code = -1, .signal = 9, .flags = AGENT_EXIT_TIMEOUT};
	fake_agent_send(&agent, AGENT_EXIT, last_stream, 0, &late, sizeof(late));
	is_str(end_ask(), STREAM_HEAD INIT "{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"CommandExecError\",\"evalue\":\"-1\","
					   "\"traceback\":[\"timeout after 500ms\"]}}\n\n",
	       "a timeout");
	start_ask(post(run, "{\"command\":\"x\"}"));
	fake_agent_end(&agent, last_stream, AGENT_FAILED_START, ENOENT, AGENT_STAGE_EXEC, "");
	is_str(end_ask(), STREAM_HEAD INIT "{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"RUNTIME_ERROR\",\"evalue\":"
					   "\"error running in session. the image has no bash, which sessions need\",\"traceback\":[]}}\n\n",
	       "an image without bash");
	start_ask(post(run, "{\"command\":\"x\",\"cwd\":\"/nowhere\"}"));
	fake_agent_end(&agent, last_stream, AGENT_FAILED_START, ENOENT, AGENT_STAGE_CWD, "");
	body_is(end_ask(), "HTTP/1.1 400",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"invalid request. working directory /nowhere: No such file or directory\"}",
		"a directory that is not there");
	body_is(ask(post(run, "{\"command\":\"x\",\"timeout\":-1}")), "HTTP/1.1 400",
		"{\"code\":\"INVALID_REQUEST_BODY\",\"message\":\"invalid request. 'timeout' is not a number of milliseconds\"}", "a negative timeout");
	start_ask(post(run, "{\"command\":\"x\"}"));
	fake_agent_started(&agent, last_stream);
	turn(4);
	uint32_t stream = last_stream;
	client_open();
	turn(6);
	is_int((int)last_stopped, (int)stream, "a client that leaves takes its run with it");
	is_str(ask(gone), EMPTY, "delete");
	body_is(ask(post(run, "{\"command\":\"x\"}")), "HTTP/1.1 500",
		"{\"code\":\"RUNTIME_ERROR\",\"message\":\"error running in session. context not found\"}", "it is gone");
	ok(strstr(ask(gone), "HTTP/1.1 404") && strstr(buf_str(&reply), "CONTEXT_NOT_FOUND"), "for delete as well");
	hold = false;
}

static void test_code(void)
{
	char cell[128], busy[128], body[128], want[256], again[128], interrupt[128];

	hold = true;
	start_ask(post("/code/context", "{\"language\":\"python\"}"));
	ok(!strncmp(buf_str(&seen), "exec |$EXECD_PYTHON\npython3\npython|-c|", 38), "an interpreter is asked for");
	uint32_t stream = last_stream;
	fake_agent_started(&agent, stream);
	SEND(AGENT_DATA, "H\6\0\0\0003.11.2");
	const char *got = end_ask();
	snprintf(body, sizeof(body), "{\"id\":\"%s\",\"language\":\"python\"}", member("id"));
	body_is(got, "HTTP/1.1 200", body, "a context");
	snprintf(cell, sizeof(cell), "{\"code\":\"2+2\",\"context\":{\"id\":\"%s\"}}", member("id"));
	snprintf(busy, sizeof(busy), "%s", cell);
	snprintf(again, sizeof(again), "GET /code/contexts/%s HTTP/1.1\r\nHost: x\r\n\r\n", member("id"));
	snprintf(interrupt, sizeof(interrupt), "DELETE /code?id=%s HTTP/1.1\r\nHost: x\r\n\r\n", member("id"));
	body_is(ask(again), "HTTP/1.1 200", body, "it is there");
	snprintf(want, sizeof(want), "[%s]", body);
	body_is(ask("GET /code/contexts?language=python HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200", want, "in the list");
	body_is(ask("GET /code/contexts?language=go HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200", "[]", "by language");

	last_stream = stream;
	start_ask(post("/code", cell));
	ok(buf_used(&uploaded) == 12 && !memcmp(buf_peek(&uploaded), "X\7\0\0\0\1\0\0\0" "2+2", 12), "the cell is handed over");
	SEND(AGENT_STDOUT, "raw \303");
	SEND(AGENT_DATA, "O\2\0\0\0a\nE\1\0\0\0e");
	SEND(AGENT_STDOUT, "\274\n");
	SEND(AGENT_DATA, "R\24\0\0\0\1\0\0\0001\3\0\0\0a/b\4\0\0\0<");
	SEND(AGENT_DATA, "b>4");
	SEND(AGENT_DATA, "Z\5\0\0\0\1\0\0\0009Z\5\0\0\0\1\0\0\0001");
	is_str(end_ask(),
	       STREAM_HEAD INIT "{\"type\":\"stdout\",\"text\":\"raw \",\"timestamp\":T}\n\n"
				"{\"type\":\"stdout\",\"text\":\"a\\n\",\"timestamp\":T}\n\n{\"type\":\"stderr\",\"text\":\"e\",\"timestamp\":T}\n\n"
				"{\"type\":\"stdout\",\"text\":\"\303\274\\n\",\"timestamp\":T}\n\n"
				"{\"type\":\"execution_count\",\"execution_count\":1,\"timestamp\":T}\n\n"
				"{\"type\":\"result\",\"timestamp\":T,\"results\":{\"a/b\":\"\\u003cb\\u003e4\"}}\n\n" COMPLETE,
	       "a run, to the byte; the end of another run is none");
	start_ask(post("/code", cell));
	int other = client;
	client = -1;
	is_str(ask(post("/code", busy)),
	       STREAM_HEAD INIT "{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"RUNTIME_ERROR\",\"evalue\":\"session is busy\","
				"\"traceback\":[]}}\n\n",
	       "one run at a time");
	is_str(ask(interrupt), EMPTY, "an interrupt is answered at once");
	ok(!strstr(buf_str(&seen), "signal 2"), "and waits until the driver says that the run has begun");
	last_stream = stream;
	SEND(AGENT_DATA, "B\5\0\0\0\1\0\0\0009B\5\0\0\0\1\0\0\0002");
	turn(20);
	ok(strstr(buf_str(&seen), "signal 2"), "then it is a signal to the interpreter");
	close(client);
	client = other;
	buf_clear(&reply);
	last_stream = stream;
	SEND(AGENT_DATA, "Z\43\0\0\0\1\0\0\0002\11\0\0\0NameError\1\0\0\0x\10\0\0\0line one");
	is_str(end_ask(),
	       STREAM_HEAD INIT "{\"type\":\"execution_count\",\"execution_count\":2,\"timestamp\":T}\n\n"
				"{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"NameError\",\"evalue\":\"x\","
				"\"traceback\":[\"line one\"]}}\n\n" COMPLETE,
	       "an error, to the byte");
	start_ask(post("/code", cell));
	fake_agent_exit(&agent, stream, 0, 9, 0);
	is_str(end_ask(),
	       STREAM_HEAD INIT "{\"type\":\"execution_count\",\"execution_count\":3,\"timestamp\":T}\n\n"
				"{\"type\":\"error\",\"timestamp\":T,\"error\":{\"ename\":\"KernelDied\",\"evalue\":\"the python interpreter ended "
				"(signal: killed); the context was restarted and its state is lost\",\"traceback\":[]}}\n\n" COMPLETE,
	       "an interpreter that dies");
	start_ask(post("/code", cell));
	ok(last_stream != stream, "the next run starts another one");
	fake_agent_started(&agent, last_stream);
	SEND(AGENT_DATA, "H\1\0\0\0003?");
	got = end_ask();
	ok(strstr(got, "\"ename\":\"KernelDied\"") && strstr(got, "it broke the driver's protocol") && last_stopped == last_stream,
	   "a frame that is none ends it");
	start_ask(post("/code", "{\"code\":\"1\",\"context\":{\"language\":\"java\"}}"));
	fake_agent_end(&agent, last_stream, AGENT_FAILED_START, ENOENT, AGENT_STAGE_EXEC, "");
	body_is(end_ask(), "HTTP/1.1 500",
		"{\"code\":\"RUNTIME_ERROR\",\"message\":\"error running codes language runtime server not configured, please check your image "
		"runtime\"}",
		"no interpreter");
	body_is(ask("GET /code/contexts?language=java HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200", "[]", "and no context of it");
	body_is(ask(post("/code", "{\"code\":\"1\",\"context\":{\"language\":\"ruby\"}}")), "HTTP/1.1 500",
		"{\"code\":\"RUNTIME_ERROR\",\"message\":\"error running codes unknown language: ruby\"}", "a language that is none");
	body_is(ask(post("/code", "{\"code\":\"1\",\"context\":{\"id\":\"nope\"}}")), "HTTP/1.1 500",
		"{\"code\":\"RUNTIME_ERROR\",\"message\":\"error running codes context not found\"}", "a context that is none");
	is_str(ask("DELETE /code/contexts?language=python HTTP/1.1\r\nHost: x\r\n\r\n"), EMPTY, "delete by language");
	body_is(ask("DELETE /code/contexts HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400",
		"{\"code\":\"MISSING_QUERY\",\"message\":\"missing query parameter 'language'\"}", "of no language");
	ok(strstr(ask(again), "HTTP/1.1 404") && strstr(buf_str(&reply), "\"CONTEXT_NOT_FOUND\""), "it is gone");
	hold = false;
	body_is(ask(post("/code", "{\"code\":\"lines\"}")) , "HTTP/1.1 200",
		INIT "{\"type\":\"stdout\",\"text\":\"a\",\"timestamp\":T}\n\n{\"type\":\"stdout\",\"text\":\"\\n\",\"timestamp\":T}\n\n"
		     "{\"type\":\"stdout\",\"text\":\"b\",\"timestamp\":T}\n\n{\"type\":\"stdout\",\"text\":\"c\",\"timestamp\":T}\n\n"
		     "{\"type\":\"stdout\",\"text\":\"d\",\"timestamp\":T}\n\n{\"type\":\"stderr\",\"text\":\"oops\",\"timestamp\":T}\n\n"
		     "{\"type\":\"execution_complete\",\"execution_time\":41,\"timestamp\":T}\n\n",
		"without a language it is a command");
}

static void test_request_log(void)
{
	box_down();
	box_up("/tmp/log");
	ask("GET /ping?secret=1 HTTP/1.1\r\nHost: x\r\n\r\n");
	ask("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int i = 0; i < 200 && !strchr(buf_str(&uploaded), ';'); i++)
		pass(50);
	is_str(buf_str(&seen), "fs6 mode=1234567 depth=0 /tmp/log|||\n", "the request log is appended to");
	char *text = (char *)(uintptr_t)buf_str(&uploaded);
	mask(text, "\"ts\":\"", "0123456789-T:.Z", "W");
	is_str(text,
	       "{\"level\":\"info\",\"ts\":\"W\",\"msg\":\"Requested: GET - /ping\"}\n"
	       "{\"level\":\"info\",\"ts\":\"W\",\"msg\":\"Requested: GET - /nothing\"}\n;",
	       "a line for each request, without queries");
}

int main(void)
{
	struct execd_hooks hooks = {.stat = fake_stat};
	struct http_server_config config = {.handler = handler};
	struct sbx_err err;

	signal(SIGPIPE, SIG_IGN);
	log_init("test", LOG_LEVEL_ERROR);
	loop = loop_new(&err);
	server = loop ? http_server_new(loop, &config, &err) : NULL;
	execd = server ? execd_new(loop, &hooks, &err) : NULL;
	if (!execd)
		return 1;
	box_up(NULL);
	test_ping();
	test_ways();
	test_bodies();
	test_commands();
	test_questions();
	test_files();
	test_download();
	test_replace_many();
	test_uploads();
	test_upload_late();
	test_upload_spliced(false);
	test_upload_spliced(true);
	test_upload_stalls();
	test_disconnect();
	test_slow_reader();
	test_pings();
	test_end_of_sandbox();
	test_hostile_agent();
	test_metrics();
	test_terminal();
	test_terminal_silence();
	test_terminals_full();
	test_sessions();
	test_code();
	test_request_log();
	if (client >= 0)
		close(client);
	turn(4);
	box_down();
	turn(4);
	http_server_free(server);
	execd_free(execd);
	loop_free(loop);
	buf_free(&reply);
	buf_free(&seen);
	buf_free(&uploaded);
	return tap_done();
}
