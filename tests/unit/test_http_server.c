// SPDX-License-Identifier: Apache-2.0
/* DOC: the HTTP server through real sockets: what a client sends is written to one end, what it would read is compared. */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/http_server.h"
#include "base/wallclock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static struct loop *loop;
static struct http_server *server;
static struct http_request *held; /* a request that waits for the test */
static int aborts, ends, writables;
static char got[1 << 20];
static size_t got_len, streamed;
static char seen_body[65536];
static size_t seen_len;

static void echo(void *user, struct http_request *req, const char *body, size_t n)
{
	(void)user;
	http_respond(req, 200, "text/plain", HTTP_NO_TEXT, body, n);
}

static void on_abort(void *user, struct http_request *req)
{
	(void)user;
	if (held == req)
		held = NULL;
	aborts++;
}

static void on_body(void *user, struct http_request *req, const char *data, size_t n)
{
	(void)user;
	streamed += n;
	if (seen_len + n < sizeof(seen_body)) {
		memcpy(seen_body + seen_len, data, n);
		seen_len += n;
	}
	if (http_request_is(req, "PUT"))
		http_request_pause(req);
}

static void on_end(void *user, struct http_request *req)
{
	(void)user;
	ends++;
	if (http_response_begun(req))
		http_response_end(req);
	else
		http_respond(req, 200, NULL, HTTP_NO_TEXT, NULL, 0);
}

static void on_writable(void *user, struct http_request *req)
{
	(void)user;
	(void)req;
	writables++;
}

static void tunnel_echo(void *user, struct http_request *req, const char *data, size_t n)
{
	(void)user;
	http_response_write(req, data, n);
}

static const struct http_request_ops whole_ops = {.whole = echo, .whole_max = 100, .abort = on_abort, .flags = HTTP_KEEP_ON_HALF_CLOSE};
static const struct http_request_ops hold_ops = {.abort = on_abort, .writable = on_writable};
static const struct http_request_ops patient_ops = {.abort = on_abort, .flags = HTTP_KEEP_ON_HALF_CLOSE};
static const struct http_request_ops stream_ops = {.body = on_body, .body_end = on_end, .abort = on_abort};
static const struct http_request_ops tunnel_ops = {.body = tunnel_echo, .body_end = on_end, .abort = on_abort};

static void handler(void *arg, struct http_request *req)
{
	struct http_text path = http_request_path(req);

	(void)arg;
	if (http_text_is(path, "/echo")) {
		http_request_accept(req, &whole_ops, NULL);
	} else if (http_text_is(path, "/hold") || http_text_is(path, "/patient")) {
		held = req;
		http_request_accept(req, http_text_is(path, "/hold") ? &hold_ops : &patient_ops, NULL);
	} else if (http_text_is(path, "/stream")) {
		held = req;
		http_request_accept(req, &stream_ops, NULL);
	} else if (http_text_is(path, "/tunnel") && http_request_wants_upgrade(req, "echo")) {
		http_request_accept(req, &tunnel_ops, NULL);
		http_response_upgrade(req, HTTP_TEXT("Upgrade: echo\r\nConnection: Upgrade\r\n"));
	} else if (http_text_is(path, "/empty")) {
		http_respond(req, 202, NULL, HTTP_NO_TEXT, NULL, 0);
	} else {
		http_respond_code(req, SBX_E_ROUTE_NOT_FOUND, "no \"such\" <p\303\244th>\n\303");
	}
}

static int connect_pair(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0 ||
	    http_server_connection(server, pair[0], 7) < 0)
		return -1;
	got_len = 0;
	got[0] = '\0';
	return pair[1];
}

/* Lets the server work until nothing happens any more (or max_ms passed), reading what it answers. */
static bool turn(int fd, int quiet_ms, int max_ms)
{
	uint64_t until = mono_ms() + (uint64_t)max_ms;
	bool open = true;

	for (bool busy = true; busy && mono_ms() < until;) {
		busy = loop_once(loop, quiet_ms) > 0;
		for (ssize_t r; open && fd >= 0 && (r = recv(fd, got + got_len, sizeof(got) - 1 - got_len, 0)) != -1;) {
			if (r == 0) {
				open = false;
				break;
			}
			got_len += (size_t)r;
			busy = true;
		}
	}
	got[got_len] = '\0';
	return open;
}

static bool say(int fd, const char *text)
{
	if (*text && send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
		return false;
	return turn(fd, 5, 2000);
}

static int count(const char *needle)
{
	int n = 0;

	for (const char *p = got; (p = strstr(p, needle)); p++)
		n++;
	return n;
}

static void test_answers(void)
{
	static const struct {
		const char *why, *text, *want;
		bool open;
		int answers;
	} cases[] = {
		{"empty success says so", "POST /empty HTTP/1.1\r\nHost: a\r\n\r\n", "Content-Length: 0\r\n", true, 1},
		{"an error is JSON", "GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
		 "{\"code\":\"GENERAL::NOT_FOUND\",\"message\":\"no \\\"such\\\" \\u003cp\303\244th\\u003e\\n\\ufffd\"}", true, 1},
		{"the request id comes back", "GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id:  my id \r\n\r\n",
		 "X-Request-ID: my id\r\n", true, 1},
		{"two requests in one write", "GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n", "404", true, 2},
		{"bodies and the next request",
		 "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none"
		 "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ntw\r\n1\r\no\r\n0\r\n\r\n"
		 "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nthree", "\r\n\r\nthree", true, 3},
		{"chunked body", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ntw\r\n1\r\no\r\n0\r\n\r\n",
		 "\r\n\r\ntwo", true, 1},
		{"a small body that nobody took is read over",
		 "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /y HTTP/1.1\r\nHost: a\r\n\r\n", "404", true, 2},
		{"Connection: close", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
		 "Connection: close\r\n", false, 1},
		{"1.0 closes", "GET /x HTTP/1.0\r\n\r\n", "404", false, 1},
		{"1.0 keep-alive", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "Connection: keep-alive\r\n", true, 1},
		{"HEAD has the length and no body", "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n", "Content-Length: 79\r\n", true, 1},
		{"a malformed head", "GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "HTTP/1.1 400 ", false, 1},
		{"its error is JSON", "GET /x HTTP/1.1\nHost: a\r\n\r\n", "{\"code\":\"GENERAL::MALFORMED_REQUEST\"", false, 1},
		{"a malformed chunk", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 400 ",
		 false, 1},
		{"smuggling: the rest is not a request",
		 "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /empty HTTP/1.1\r\nHost: a\r\n\r\n",
		 "HTTP/1.1 400 ", false, 1},
		{"a body past the handler's bound", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", "HTTP/1.1 413 ",
		 false, 1},
		{"Expect is answered before the body", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
		 "HTTP/1.1 100 Continue\r\n\r\n", true, 1},
		{"Expect is not answered when the body is not wanted",
		 "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", "HTTP/1.1 404 ", false, 1},
		{"OPTIONS reaches the handler", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "404", true, 1},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		auto_fd fd = connect_pair();
		bool open = say(fd, cases[i].text);
		bool good = strstr(got, cases[i].want) && open == cases[i].open && count("HTTP/1.1 ") == cases[i].answers;
		if (!ok(good, "%s", cases[i].why))
			printf("# open %d, got: %s\n", open, got);
	}
	turn(-1, 5, 500);
}

static void test_slow(void)
{
	auto_fd fd = connect_pair();
	uint64_t begin = mono_ms();
	bool open = true;

	for (const char *p = "GET /x HTTP/1.1\r\nHost: abcdefghijklmnopqrstuvwxyz"; *p && open; p++) {
		ignore_result(send(fd, p, 1, MSG_NOSIGNAL)); /* the server may have closed: that is what is tested */
		open = turn(fd, 20, 20);
	}
	open = open && turn(fd, 300, 1000);
	ok(!open && strstr(got, "HTTP/1.1 408 ") && mono_ms() - begin < 2500, "a head that drips in is cut off after its time");

	auto_fd silent = connect_pair();
	ok(!turn(silent, 300, 1000), "a connection that says nothing is closed");
	auto_fd stalled = connect_pair();
	say(stalled, "POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
	aborts = 0;
	open = turn(stalled, 400, 1500);
	ok(!open && aborts == 1 && strstr(got, "HTTP/1.1 408 "), "a body that stalls is given up, and the handler knows");
	auto_fd idle = connect_pair();
	ok(say(idle, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n") && !turn(idle, 400, 1500), "an idle connection is closed");
}

static void test_streaming(void)
{
	auto_fd fd = connect_pair();

	say(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(held && !got_len, "a handler may answer later");
	http_response_begin(held, 200, "text/event-stream", HTTP_NO_TEXT, -1);
	http_response_write(held, "one", 3);
	turn(fd, 5, 500);
	ok(strstr(got, "Transfer-Encoding: chunked\r\n") && strstr(got, "\r\n\r\n3\r\none\r\n"), "each write leaves at once as a chunk");
	http_response_write(held, "two", 3);
	http_response_end(held);
	held = NULL;
	ok(turn(fd, 5, 500) && strstr(got, "3\r\ntwo\r\n0\r\n\r\n"), "the end is the last chunk");
	got_len = 0;
	say(fd, "GET /hold HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	http_response_begin(held, 200, NULL, HTTP_NO_TEXT, -1);
	http_response_write(held, "old", 3);
	http_response_end(held);
	held = NULL;
	ok(!turn(fd, 5, 500) && strstr(got, "\r\n\r\nold") && strstr(got, "Connection: close"), "a 1.0 client reads until the end");

	auto_fd slow = connect_pair();
	static char block[65536];
	say(slow, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	http_response_begin(held, 200, NULL, HTTP_NO_TEXT, 40 * 65536);
	size_t sent = 0;
	while (sent < sizeof(block) * 40 && http_response_queued(held) < HTTP_QUEUE_HIGH_BYTES) {
		http_response_write(held, block, sizeof(block));
		sent += sizeof(block);
	}
	ok(sent < sizeof(block) * 40, "a client that does not read fills the queue (%zu)", sent);
	writables = 0;
	turn(slow, 5, 1000);
	if (!ok(writables == 1 && !http_response_queued(held), "and reading empties it, which the handler is told once"))
		printf("# told %d times, %zu queued, %zu read\n", writables, http_response_queued(held), got_len);
	aborts = 0;
	close(take_fd(&slow));
	turn(-1, 5, 500);
	ok(aborts == 1 && !held, "a client that vanishes is noticed while nothing is written");

	auto_fd half = connect_pair();
	say(half, "GET /patient HTTP/1.1\r\nHost: a\r\n\r\n");
	shutdown(half, SHUT_WR);
	turn(half, 5, 500);
	ok(held != NULL, "half a close leaves a request alone whose handler said so");
	http_respond(held, 200, NULL, HTTP_NO_TEXT, "hi", 2);
	held = NULL;
	ok(!turn(half, 5, 500) && strstr(got, "\r\n\r\nhi"), "and it is answered");
	aborts = 0;
	auto_fd gone = connect_pair();
	say(gone, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	shutdown(gone, SHUT_WR);
	turn(gone, 5, 500);
	ok(aborts == 1, "any other is aborted");
}

static void test_upload(void)
{
	auto_fd fd = connect_pair();
	static char block[200000];
	size_t sent = 0, n = 3000000;

	streamed = 0;
	ends = 0;
	say(fd, "PUT /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 20000 && sent < n; i++) {
		size_t want = n - sent < sizeof(block) ? n - sent : sizeof(block);
		ssize_t r = send(fd, block, want, MSG_NOSIGNAL);
		if (r > 0)
			sent += (size_t)r;
		loop_once(loop, 0);
		loop_once(loop, 0);
		if (r < 0 && i > 200)
			break;
	}
	ok(streamed < 200000 && sent < n, "a paused upload stalls the client (%zu handed over, %zu sent)", streamed, sent);
	for (int i = 0; i < 100000 && ends == 0; i++) {
		size_t want = n - sent < sizeof(block) ? n - sent : sizeof(block);
		ssize_t r = want ? send(fd, block, want, MSG_NOSIGNAL) : 0;
		if (r > 0)
			sent += (size_t)r;
		if (held)
			http_request_resume(held);
		loop_once(loop, 10);
	}
	held = NULL;
	ok(turn(fd, 5, 500) && streamed == n && ends == 1, "resumed, all %zu bytes arrive", streamed);
	ok(strstr(got, "HTTP/1.1 200 ") != NULL, "and the answer comes");
}

static void test_tunnel(void)
{
	auto_fd fd = connect_pair();

	ends = 0;
	ok(say(fd, "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\nearly"), "open");
	ok(strstr(got, "HTTP/1.1 101 ") && strstr(got, "\r\n\r\nearly"), "an upgrade is a raw tunnel, early bytes included");
	say(fd, "more\r\n\r\n");
	ok(strstr(got, "earlymore\r\n\r\n") != NULL, "bytes pass as they are");
	shutdown(fd, SHUT_WR);
	ok(!turn(fd, 5, 500) && ends == 1, "the client's end is told once");
	auto_fd no = connect_pair();
	say(no, "GET /tunnel HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\n\r\n");
	ok(strstr(got, "404") != NULL, "no upgrade without Connection: upgrade");
}

static void test_limit(void)
{
	int fds[12];

	turn(-1, 5, 500);
	is_int(http_server_n_connections(server), 0, "all earlier connections are gone");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = connect_pair();
	say(fds[11], "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(strstr(got, "HTTP/1.1 503 ") && strstr(got, "Retry-After: 1\r\n") && strstr(got, "GENERAL::OVERLOADED"),
	   "one connection too many is told so");
	got_len = 0;
	say(fds[0], "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(strstr(got, "HTTP/1.1 404 ") != NULL, "the others are served");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	turn(-1, 5, 500);
	is_int(http_server_n_connections(server), 0, "and leave nothing");
}

static void test_text(void)
{
	static const struct {
		const char *text;
		bool plus;
		const char *want;
	} cases[] = {
		{"a%20b+c", false, "a b+c"}, {"a%20b+c", true, "a b c"}, {"%2e%2E%2f", false, "../"}, {"%25%32%35", false, "%25"},
		{"%", false, NULL}, {"%4", false, NULL}, {"%zz", false, NULL}, {"a%00b", false, NULL}, {"", true, ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char out[32];
		ssize_t n = http_decode((struct http_text){cases[i].text, strlen(cases[i].text)}, cases[i].plus, out, sizeof(out));
		ok(cases[i].want ? n >= 0 && !strcmp(out, cases[i].want) : n == -EINVAL, "decode '%s'", cases[i].text);
	}
	char small[3];
	is_int(http_decode(HTTP_TEXT("abc"), false, small, sizeof(small)), -ENAMETOOLONG, "decode keeps its bound");
	struct http_text query = HTTP_TEXT("&a=1&b&=x&path=%2Ftmp+x&path=2");
	auto_free char *value = NULL;
	ok(http_query_get(query, "path", &value) == 0 && value && !strcmp(value, "/tmp x"), "the first of two values");
	auto_free char *none = NULL;
	ok(http_query_get(query, "c", &none) == 0 && !none, "an absent parameter");
	struct http_text path = HTTP_TEXT("/a//b%2Fc/"), segment;
	const char *want[] = {"a", "", "b%2Fc", ""};
	size_t n = 0;
	while (http_next_segment(&path, &segment) && n < ARRAY_SIZE(want) && http_text_is(segment, want[n]))
		n++;
	is_int(n, 4, "segments of a raw path");
	auto_buf b = {0};
	is_int(http_header_add(&b, "X", "a\r\nB: c", 7), -EINVAL, "a header cannot be split by its value");
}

/* A client at @ip of the loopback net, connected to @to. */
static int connect_from(const char *ip, const struct sockaddr_in *to)
{
	struct sockaddr_in from = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (inet_pton(AF_INET, ip, &from.sin_addr) != 1 || bind(fd, (const struct sockaddr *)&from, sizeof(from)) < 0 ||
	    connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -1;
	return fd;
}

static void test_addresses(void)
{
	const struct http_server_config config = {.max_connections = 100, .max_per_address = 3, .handler = handler};
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(at);
	struct sbx_err err = {0};
	int fds[5], other, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct http_server *own = http_server_new(loop, &config, &err), *before = server;

	ok(own && bind(listener, (const struct sockaddr *)&at, n) == 0 && listen(listener, 16) == 0 &&
	   getsockname(listener, (struct sockaddr *)&at, &n) == 0 && http_server_listen(own, listener, 0, &err) == 0, "a server with three for each address");
	server = own;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = connect_from("127.0.0.1", &at);
	other = connect_from("127.0.0.2", &at);
	turn(-1, 10, 50);
	got_len = 0;
	say(fds[4], "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(strstr(got, "HTTP/1.1 503 ") && strstr(got, "server.limit_per_address"), "the fifth of one address is told what bounds it");
	got_len = 0;
	say(fds[0], "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(strstr(got, "HTTP/1.1 404 ") != NULL, "its first is served");
	got_len = 0;
	say(other, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(strstr(got, "HTTP/1.1 404 ") != NULL, "so is another address");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	turn(-1, 10, 100);
	fds[0] = connect_from("127.0.0.1", &at);
	turn(-1, 5, 50);
	got_len = 0;
	say(fds[0], "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(strstr(got, "HTTP/1.1 404 ") != NULL, "with its connections closed the address is served again");
	close(fds[0]);
	close(other);
	http_server_free(own);
	close(listener);
	server = before;
}

int main(void)
{
	struct sbx_err err = {0};
	struct http_server_config config = {.max_connections = 11, .head_ms = 300, .idle_ms = 300, .handler = handler};

	loop = loop_new(&err);
	server = loop ? http_server_new(loop, &config, &err) : NULL;
	if (!ok(server != NULL, "server"))
		return tap_done();
	test_text();
	test_answers();
	test_streaming();
	test_upload();
	test_tunnel();
	test_slow();
	test_limit();
	test_addresses();
	http_server_free(server);
	loop_free(loop);
	return tap_done();
}
