// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: the gateway between a client, a sandboxd that this test plays, and a service that this test plays, all in one loop.
 */
#include "tests/tap.h"

#include "api/execd/execd.h"
#include "api/gateway.h"
#include "api/links.h"
#include "api/services.h"
#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SERVICES_MAX 3u
#define ID "0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a"

static struct loop *loop;
static struct gateway gw;
static char path[64];
static int control_listen_fd = -1, control_fd = -1;
static struct loop_fd *control_source, *control_listen_source;
static int opens, passes;
static uint32_t open_status = 200, open_state = GW_SANDBOX_RUNNING;
static char last_method[32], last_target[256], last_body[2048];
static bool mute;

/* ---- sandboxd ---- */

static void reply(const void *head, size_t size, struct gw_head *filled, const char *const *strings, size_t n, const int *fds, size_t n_fds)
{
	char message[8192];
	size_t at = size;

	filled->magic = GW_MAGIC;
	filled->n_strings = (uint32_t)n;
	for (size_t i = 0; i < n; i++) {
		filled->length[i] = (uint32_t)strlen(strings[i]);
		memcpy(message + at, strings[i], strlen(strings[i]));
		at += strlen(strings[i]);
	}
	memcpy(message, head, size);
	struct iovec iov = {message, at};
	ok(fdpass_send(control_fd, &iov, 1, fds, n_fds) == 0, "sandboxd sends");
}

static void string_of(const char *message, const struct gw_head *head, size_t fixed, unsigned which, char *out, size_t size)
{
	size_t at = fixed;

	for (unsigned i = 0; i < which; i++)
		at += head->length[i];
	size_t n = head->length[which] < size - 1 ? head->length[which] : size - 1;
	memcpy(out, message + at, n);
	out[n] = '\0';
}

static void sandboxd_message(const char *message)
{
	struct gw_head head;

	memcpy(&head, message, sizeof(head));
	if (head.kind == GW_HELLO) {
		struct gw_hello_reply r = {.head = {.kind = GW_HELLO_REPLY, .tag = head.tag}, .version = GW_VERSION,
					   .flags = GW_HELLO_KEY_REQUIRED};
		reply(&r, sizeof(r), &r.head, NULL, 0, NULL, 0);
	} else if (head.kind == GW_HTTP) {
		struct gw_http_reply r = {.head = {.kind = GW_HTTP_REPLY, .tag = head.tag}, .status = 202};
		const char *strings[] = {"application/json", "X-Extra: yes\r\n", "{\"a\":1}"};

		passes++;
		string_of(message, &head, sizeof(struct gw_http), GW_HTTP_METHOD, last_method, sizeof(last_method));
		string_of(message, &head, sizeof(struct gw_http), GW_HTTP_TARGET, last_target, sizeof(last_target));
		if (!head.body_fd)
			string_of(message, &head, sizeof(struct gw_http), GW_HTTP_BODY, last_body, sizeof(last_body));
		else
			snprintf(last_body, sizeof(last_body), "file of %u", head.length[GW_HTTP_BODY]);
		if (!mute)
			reply(&r, sizeof(r), &r.head, strings, 3, NULL, 0);
	} else if (head.kind == GW_OPEN) {
		struct gw_open_reply r = {.head = {.kind = GW_OPEN_REPLY, .tag = head.tag}, .status = open_status, .generation = 7,
					  .state = open_state};
		const char *good[] = {"", "", ""}, *bad[] = {"UNAUTHORIZED", "no \"token\"", ""};
		auto_fd in = -1, in6 = -1;

		opens++;
		uuid_parse(ID, r.sandbox_id);
		in = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		in6 = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int fds[] = {in, in6};
		reply(&r, sizeof(r), &r.head, open_status == 200 ? good : bad, 3, fds, open_status != 200 ? 0 : in6 < 0 ? 1 : 2);
	}
}

static void control_event(void *arg, int fd, uint32_t events)
{
	static char message[GW_MESSAGE_MAX];
	int fds[2];
	size_t n_fds;

	(void)arg;
	(void)events;
	for (ssize_t n; (n = fdpass_recv(fd, message, sizeof(message), fds, 2, &n_fds)) > 0;) {
		sandboxd_message(message);
		while (n_fds)
			close(fds[--n_fds]);
	}
}

static void control_accept(void *arg, int fd, uint32_t events)
{
	(void)arg;
	(void)events;
	loop_fd_remove(control_source);
	close_keep_errno(control_fd);
	control_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	control_source = loop_fd_add(loop, control_fd, EPOLLIN, control_event, NULL);
}

static void control_close(void)
{
	loop_fd_remove(control_source);
	control_source = NULL;
	close_keep_errno(take_fd(&control_fd));
}

/* ---- the service inside: says what it got and answers as told ---- */

static int service_listen_fd = -1, service_fd = -1;
static struct loop_fd *service_source;
static unsigned service_port;
static const char *service_answer = "";
static bool service_closes = true, service_ended;
static char service_got[65536];
static size_t service_got_len;

static void service_event(void *arg, int fd, uint32_t events)
{
	(void)arg;
	(void)events;
	ssize_t n = recv(fd, service_got + service_got_len, sizeof(service_got) - 1 - service_got_len, MSG_DONTWAIT);
	if (n <= 0) {
		service_ended = n == 0;
		loop_fd_remove(service_source); /* HUP cannot be masked */
		service_source = NULL;
		return;
	}
	bool first = !service_got_len;
	service_got_len += (size_t)n;
	service_got[service_got_len] = '\0';
	if (!first || !*service_answer)
		return;
	ok(send(fd, service_answer, strlen(service_answer), MSG_NOSIGNAL) > 0, "the service answers");
	if (service_closes)
		shutdown(fd, SHUT_WR);
}

static void service_accept(void *arg, int fd, uint32_t events)
{
	(void)arg;
	(void)events;
	loop_fd_remove(service_source);
	close_keep_errno(service_fd);
	service_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	service_got_len = 0;
	service_ended = false;
	service_source = loop_fd_add(loop, service_fd, EPOLLIN, service_event, NULL);
}

static int service_start(int family)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_storage got = {0};
	socklen_t n = sizeof(got);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, family == AF_INET ? (struct sockaddr *)&in : (struct sockaddr *)&in6,
			   family == AF_INET ? sizeof(in) : sizeof(in6)) < 0 ||
	    listen(fd, 8) < 0 || getsockname(fd, (struct sockaddr *)&got, &n) < 0) {
		close_keep_errno(fd);
		return -1;
	}
	memcpy(&in, &got, sizeof(in));
	service_port = ntohs(in.sin_port); /* at the same place in both families */
	return fd;
}

/* ---- the client ---- */

static char got[1 << 20];
static size_t got_len;

static bool turn(int fd, int quiet_ms)
{
	uint64_t until = mono_ms() + 3000;
	bool open = true;

	for (bool busy = true; busy && mono_ms() < until;) {
		busy = loop_once(loop, quiet_ms) > 0;
		for (ssize_t r; open && fd >= 0 && (r = recv(fd, got + got_len, sizeof(got) - 1 - got_len, MSG_DONTWAIT)) != -1;) {
			if (r == 0)
				open = false;
			else
				got_len += (size_t)r;
			busy = true;
		}
	}
	got[got_len] = '\0';
	return open;
}

static int client(unsigned listener)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ||
	    http_server_connection(gw.http, pair[0], listener) < 0)
		return -1;
	got_len = 0;
	got[0] = '\0';
	return pair[1];
}

static bool say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text) && turn(fd, 20);
}

static bool once(unsigned listener, const char *text)
{
	auto_fd fd = client(listener);

	return say(fd, text);
}

static bool has(const char *what)
{
	return strstr(got, what) != NULL;
}

/* ---- tests ---- */

static void test_lifecycle(void)
{
	once(0, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok(has("HTTP/1.1 200 ") && has("{\"status\":\"healthy\"}"), "health");
	once(0, "POST /v1/sandboxes?x=%2F HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\nX-Request-ID: r1\r\n\r\n{\"b\":2}");
	ok(has("HTTP/1.1 202 ") && has("X-Extra: yes\r\n") && has("X-Request-ID: r1\r\n") && has("\r\n\r\n{\"a\":1}"),
	   "sandboxd's answer comes back");
	is_str(last_method, "POST", "method");
	is_str(last_target, "/v1/sandboxes?x=%2F", "raw target");
	is_str(last_body, "{\"b\":2}", "body");
	auto_fd fd = client(0);
	static char big[60000];
	memset(big, 'x', sizeof(big));
	say(fd, "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n");
	for (size_t at = 0; at < sizeof(big);) {
		ssize_t n = send(fd, big + at, sizeof(big) - at, MSG_NOSIGNAL);
		if (n > 0)
			at += (size_t)n;
		loop_once(loop, 0);
	}
	turn(fd, 20);
	is_str(last_body, "file of 60000", "a long body travels as a file");
	passes = 0;
	once(0, "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n");
	ok(has("HTTP/1.1 413 ") && !passes, "a body past the bound is refused here");
	mute = true;
	auto_fd gone = client(0);
	say(gone, "GET /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n");
	close(take_fd(&gone));
	turn(-1, 20);
	is_int(http_server_n_connections(gw.http), 1, "a client that left while sandboxd thinks leaves nothing");
	mute = false;
}

static void test_proxy(void)
{
	char text[1024];

	service_answer = "HTTP/1.1 201 Made\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/; Domain=x; Secure\r\nConnection: X-Hop\r\n"
			 "X-Hop: 1\r\nContent-Encoding: gzip\r\n\r\nhi";
	snprintf(text, sizeof(text),
		 "POST /v1/sandboxes/" ID "/proxy/%u/a%%2Fb/../c?q=%%20&q=+ HTTP/1.1\r\nHost: localhost:1\r\n\r\n", service_port);
	passes = 0;
	once(0, text);
	ok(passes == 1 && has("HTTP/1.1 202 "), "a path that climbs is not proxied but asked for the key");
	snprintf(text, sizeof(text),
		 "POST /v1/sandboxes/" ID "/proxy/%u/a%%2Fb//c?q=%%20&q=+ HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: secret\r\n"
		 "Cookie: c\r\nOPEN-SANDBOX-API-KEY: k\r\nConnection: keep-alive, X-Hop-Temp\r\nX-Hop-Temp: t\r\nUpgrade: h2c\r\n"
		 "X-EXECD-ACCESS-TOKEN: e\r\nOPENSANDBOX-EGRESS-AUTH: g\r\nX-Trace: one\r\nX-Trace: two\r\nContent-Length: 3\r\n\r\nabc",
		 service_port);
	once(0, text);
	ok(has("HTTP/1.1 201 ") && has("\r\n\r\nhi"), "the answer passes");
	ok(has("Set-Cookie: a=1; Path=/v1/sandboxes/" ID "/proxy/") && has("Set-Cookie: b=2; Secure; Path=/v1/sandboxes/") && !has("Domain"),
	   "cookies stay below the service's path");
	ok(has("Content-Encoding: gzip\r\n") && !has("X-Hop"), "but for what is hop by hop");
	ok(!strncmp(service_got, "POST /a%2Fb//c?q=%20&q=+ HTTP/1.1\r\n", 35), "path and query byte by byte");
	ok(strstr(service_got, "X-Trace: one\r\nX-Trace: two\r\n") && strstr(service_got, "\r\n\r\nabc"), "headers and body");
	ok(!strcasestr(service_got, "secret") && !strcasestr(service_got, "cookie") && !strcasestr(service_got, "api-key") &&
		   !strcasestr(service_got, "x-hop") && !strcasestr(service_got, "upgrade") && !strcasestr(service_got, "token") &&
		   !strcasestr(service_got, "egress"),
	   "no secret, no hop-by-hop header");
	ok(strstr(service_got, "X-Forwarded-Host: localhost:1\r\n") && strstr(service_got, "X-Forwarded-Proto: http\r\n"),
	   "where it came from is added");
	snprintf(text, sizeof(text),
		 "PUT /" ID "/%u/x HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: basic\r\nCookie: c\r\nOPEN-SANDBOX-API-KEY: k\r\n"
		 "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		 service_port);
	once(1, text);
	ok(strstr(service_got, "Host: localhost:1\r\n") && strstr(service_got, "Authorization: basic\r\n") &&
		   strstr(service_got, "Cookie: c\r\n") && !strstr(service_got, "API-KEY"),
	   "the second origin passes Host, Authorization and Cookie, never the key");
	ok(has("Set-Cookie: b=2; Path=/; Domain=x; Secure\r\n") && !has("Content-Security-Policy"), "and answers as they are");
	ok(strstr(service_got, "Transfer-Encoding: chunked\r\n") && strstr(service_got, "\r\n3\r\nabc\r\n0\r\n\r\n"), "a chunked body");
}

static void test_bad_services(struct loop_fd *listening)
{
	static const struct {
		const char *why, *answer, *want;
	} cases[] = {
		{"no answer", "", NULL},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "\r\n2\r\nhi\r\n0\r\n\r\n"},
		{"until close", "HTTP/1.0 200 OK\r\n\r\nhi", "\r\n2\r\nhi\r\n0\r\n\r\n"},
		{"interim first", "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "\r\n\r\nhi"},
		{"304", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "HTTP/1.1 304 "},
		{"401 passes", "HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 401 "},
		{"more than it said", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", "\r\n\r\nhi"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 502 "},
		{"both framings", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi", "HTTP/1.1 502 "},
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 502 "},
		{"an upgrade that nobody asked for", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "HTTP/1.1 502 "},
		{"closed without an answer", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 502 "},
	};
	char text[256];

	snprintf(text, sizeof(text), "GET /" ID "/%u/ HTTP/1.1\r\nHost: localhost\r\n\r\n", service_port);
	for (size_t i = 1; i < ARRAY_SIZE(cases); i++) {
		service_answer = cases[i].answer;
		once(1, text);
		if (!ok(has(cases[i].want), "service: %s", cases[i].why))
			printf("# got: %s\n", got);
	}
	service_answer = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi";
	ok(!once(1, text) && has("\r\n\r\nhi"), "service: a cut answer cuts the client off");
	service_answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi";
	ok(!once(1, text) && !has("0\r\n\r\n"), "service: a cut chunk never looks complete");
	service_answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
	snprintf(text, sizeof(text), "HEAD /" ID "/%u/ HTTP/1.1\r\nHost: localhost\r\n\r\n", service_port);
	ok(once(1, text) && has("Content-Length: 5\r\n") && !strncmp(service_got, "HEAD / ", 7), "service: HEAD");
	loop_fd_remove(listening);
	close(take_fd(&service_listen_fd));
	ok(once(1, text) && has("HTTP/1.1 502 "), "service: nothing listens");
}

static void test_inet6(void)
{
	char text[256];

	service_listen_fd = service_start(AF_INET6);
	struct loop_fd *source = service_listen_fd < 0 ? NULL : loop_fd_add(loop, service_listen_fd, EPOLLIN, service_accept, NULL);
	if (!source) {
		tap_skip("a service on ::1 is reached", "no IPv6 here");
		return;
	}
	service_answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv6";
	snprintf(text, sizeof(text), "GET /" ID "/%u/ HTTP/1.1\r\nHost: localhost\r\n\r\n", service_port);
	once(1, text);
	ok(has("\r\n\r\nv6"), "a service on ::1 is reached");
	loop_fd_remove(source);
	close(take_fd(&service_listen_fd));
}

static void test_tunnel(void)
{
	char text[512];

	service_listen_fd = service_start(AF_INET);
	struct loop_fd *source = loop_fd_add(loop, service_listen_fd, EPOLLIN, service_accept, NULL);
	service_closes = false;
	service_answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: p\r\n\r\nfirst";
	snprintf(text, sizeof(text),
		 "GET /sandboxes/" ID "/proxy/%u/ws?x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
		 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: p, q\r\n\r\n",
		 service_port);
	auto_fd fd = client(0);
	say(fd, text);
	ok(has("HTTP/1.1 101 ") && has("Sec-WebSocket-Protocol: p\r\n") && has("\r\n\r\nfirst"), "WebSocket: handshake");
	ok(strstr(service_got, "GET /ws?x ") && strstr(service_got, "Upgrade: websocket\r\n") &&
		   strstr(service_got, "Sec-WebSocket-Protocol: p, q\r\n"),
	   "WebSocket: the service sees it");
	say(fd, "\x81\x05raw!!");
	ok(strstr(service_got, "\r\n\r\n\x81\x05raw!!") != NULL, "WebSocket: bytes in");
	ok(send(service_fd, "more", 4, MSG_NOSIGNAL) == 4 && turn(fd, 20) && has("firstmore"), "WebSocket: bytes out");
	shutdown(fd, SHUT_WR);
	turn(fd, 20);
	ok(service_ended, "WebSocket: half a close reaches the service");
	ok(send(service_fd, "last", 4, MSG_NOSIGNAL) == 4, "WebSocket: which may still send");
	shutdown(service_fd, SHUT_WR);
	ok(!turn(fd, 20) && has("firstmorelast"), "WebSocket: until it ends");
	service_answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			 "Sec-WebSocket-Accept: AAAALMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
	once(0, text);
	ok(has("HTTP/1.1 502 "), "WebSocket: a wrong accept key is no handshake");
	snprintf(text, sizeof(text),
		 "GET /sandboxes/" ID "/proxy/%u/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		 service_port);
	once(0, text);
	ok(has("HTTP/1.1 400 "), "WebSocket: a handshake without key is refused here");
	loop_fd_remove(source);
	close(take_fd(&service_listen_fd));
}

/* What clients hold open in one sandbox is bounded, and free again as they leave. */
static void test_services_bound(void)
{
	static const uint8_t other[16] = {0x0a, 1}; /* in the same bucket */
	int held[SERVICES_MAX], inside[SERVICES_MAX];
	struct sbx_err err = {0};
	char text[256];

	service_listen_fd = service_start(AF_INET);
	struct loop_fd *source = loop_fd_add(loop, service_listen_fd, EPOLLIN, service_accept, NULL);
	service_answer = "";
	snprintf(text, sizeof(text), "GET /sandboxes/" ID "/proxy/%u/wait HTTP/1.1\r\nHost: localhost\r\n\r\n", service_port);
	for (size_t i = 0; i < SERVICES_MAX; i++) {
		held[i] = client(0);
		ok(say(held[i], text) && !got_len, "connection %zu waits for the service", i + 1);
		loop_fd_remove(service_source); /* the service lets none of them go */
		service_source = NULL;
		inside[i] = take_fd(&service_fd);
	}
	once(0, text);
	ok(has("HTTP/1.1 503 ") && has("GENERAL::OVERLOADED") && has("3 connections to services"), "one more is refused");
	struct services_sandbox *another = services_take(gw.services, other, &err);
	ok(another != NULL, "another sandbox has its own share");
	services_release(another);
	close(held[0]);
	turn(-1, 20);
	auto_fd again = client(0);
	ok(say(again, text) && !got_len, "who leaves makes room");
	for (size_t i = 1; i < SERVICES_MAX; i++)
		close(held[i]);
	for (size_t i = 0; i < SERVICES_MAX; i++)
		close(inside[i]);
	close(take_fd(&again));
	turn(-1, 20);
	loop_fd_remove(source);
	close(take_fd(&service_listen_fd));
}

static void test_refusals(void)
{
	open_status = 401;
	once(0, "GET /sandboxes/" ID "/proxy/44772/ping HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok(has("HTTP/1.1 401 ") && has("{\"error\":\"no \\\"token\\\"\",\"code\":\"UNAUTHORIZED\",\"message\":\"no \\\"token\\\"\"}"), "sandboxd's refusal is the answer");
	open_status = 200;
	once(0, "GET /sandboxes/" ID "/proxy/0/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok(has("HTTP/1.1 400 ") && has("INVALID_PORT"), "port 0");
	opens = 0;
	once(0, "GET /sandboxes/" ID "/proxy/44772/proxy/44772/proxy/70000/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok(has("HTTP/1.1 400 ") && !opens, "a nested port is checked too");
	once(1, "GET /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok(has("HTTP/1.1 404 "), "the second origin has no API");
}

static void test_restart(void)
{
	auto_fd fd = client(0);

	mute = true;
	say(fd, "GET /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok(!got_len, "sandboxd thinks");
	control_close();
	turn(fd, 20);
	ok(has("HTTP/1.1 503 ") && has("try again"), "and dies: what waited is told");
	mute = false;
	uint64_t until = mono_ms() + 3000;
	while (!gw_client_up(gw.control) && mono_ms() < until)
		loop_once(loop, 50);
	once(0, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok(has("HTTP/1.1 200 "), "the channel comes back by itself");
	control_close();
	once(0, "GET /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok(has("HTTP/1.1 202 "), "a request that comes meanwhile waits for it");
	static const char junk[sizeof(struct gw_head)] = "junk";
	ok(send(control_fd, junk, sizeof(junk), MSG_NOSIGNAL) > 0, "sandboxd goes mad");
	turn(-1, 20);
	control_close();
	until = mono_ms() + 3000;
	do
		loop_once(loop, 50);
	while (!gw_client_up(gw.control) && mono_ms() < until);
	ok(gw_client_up(gw.control), "a malformed message only costs the channel");
}

/* ---- wiring ---- */

static void on_up(void *arg, uint32_t flags)
{
	(void)arg;
	(void)flags;
	links_forget_credentials(gw.links);
}

static void on_state(void *arg, const struct gw_state *state)
{
	(void)arg;
	links_changed(gw.links, state);
}

static void no_stat(void *arg, const uint8_t id[16], execd_stat_done *done, void *done_arg)
{
	struct sbx_err err = {0};

	(void)arg;
	(void)id;
	sbx_err_set(&err, SBX_E_NOT_READY, 0, "none");
	done(done_arg, NULL, &err);
}

static bool start(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct sbx_err err = {0};
	const struct gw_client_hooks hooks = {.up = on_up, .state = on_state};
	const struct execd_hooks execd_hooks = {.stat = no_stat};
	struct http_server_config config = {.handler = gateway_handle, .arg = &gw};

	snprintf(path, sizeof(path), "/tmp/test_gateway.%d.sock", (int)getpid());
	memcpy(addr.sun_path, path, strlen(path) + 1);
	unlink(path);
	control_listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (bind(control_listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(control_listen_fd, 4) < 0)
		return false;
	loop = loop_new(&err);
	gw.loop = loop;
	gw.execd = execd_new(loop, &execd_hooks, &err);
	gw.links = links_new(gw.execd, &err);
	gw.services = services_new(SERVICES_MAX, &err);
	gw.control = gw_client_new(loop, path, &hooks, &err);
	gw.http = http_server_new(loop, &config, &err);
	control_listen_source = loop_fd_add(loop, control_listen_fd, EPOLLIN, control_accept, NULL);
	return gw.links && gw.services && gw.control && gw.http && control_listen_source;
}

int main(void)
{
	if (!ok(start(), "start")) {
		unlink(path);
		return tap_done();
	}
	once(0, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
	turn(-1, 50);
	ok(gw_client_up(gw.control), "hello");
	test_lifecycle();
	service_listen_fd = service_start(AF_INET);
	struct loop_fd *source = loop_fd_add(loop, service_listen_fd, EPOLLIN, service_accept, NULL);
	test_proxy();
	test_bad_services(source);
	test_inet6();
	test_tunnel();
	test_services_bound();
	test_refusals();
	test_restart();
	http_server_free(gw.http);
	services_free(gw.services);
	links_free(gw.links);
	gw_client_free(gw.control);
	execd_free(gw.execd);
	control_close();
	loop_fd_remove(service_source);
	loop_fd_remove(control_listen_source);
	close_keep_errno(service_fd);
	loop_free(loop);
	close(control_listen_fd);
	unlink(path);
	return tap_done();
}
