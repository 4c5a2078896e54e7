// SPDX-License-Identifier: Apache-2.0
/* DOC: the blocking client against a child that answers each request with the bytes that the test wrote down. */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/http_client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define PLAIN "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A:  b \r\n\r\nhi"

struct script {
	const char *answer;
	int closes; /* 1: after the answer; 2: when the next request is there, which it does not read */
};

static char path[64], dir[32];

/* Serves one connection after the other; an answer for each head that comes, and a request's body of 'x's is read over. */
static void serve(int listen_fd, const struct script *script, size_t n)
{
	for (size_t i = 0; i < n;) {
		int c = accept(listen_fd, NULL, NULL);

		for (bool open = true; open && i < n; i++) {
			char got[4096] = "";
			size_t len = 0;

			while (!strstr(got, "\r\n\r\n")) {
				ssize_t r = read(c, got + len, sizeof(got) - 1 - len);
				if (r <= 0)
					break;
				len += (size_t)r;
				got[len] = '\0';
			}
			/* a streamed body ends with the last chunk */
			while (strcasestr(got, "chunked") && !strstr(got, "0\r\n\r\n")) {
				ssize_t r = read(c, got + len, sizeof(got) - 1 - len);
				if (r <= 0)
					_exit(1);
				len += (size_t)r;
				got[len] = '\0';
			}
			if (write(c, script[i].answer, strlen(script[i].answer)) < 0)
				_exit(1);
			open = !script[i].closes;
			if (script[i].closes == 2)
				poll(&(struct pollfd){.fd = c, .events = POLLIN}, 1, -1);
		}
		close(c);
	}
	_exit(0);
}

static pid_t start(const struct script *script, size_t n)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(addr.sun_path, path, strlen(path) + 1);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 8) < 0)
		return -1;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		serve(fd, script, n);
	close(fd);
	return pid;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_answers(void)
{
	static const struct {
		const char *why;
		struct script script;
		unsigned status; /* 0: fails at the head */
		const char *body; /* NULL: fails in the body */
		enum sbx_err_code code;
	} cases[] = {
		{"length", {PLAIN, false}, 200, "hi", SBX_E_NONE},
		{"chunked", {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", false}, 200, "hi", SBX_E_NONE},
		{"until close", {"HTTP/1.0 200 OK\r\n\r\nhi", true}, 200, "hi", SBX_E_NONE},
		{"no body", {"HTTP/1.1 204 No\r\n\r\n", false}, 204, "", SBX_E_NONE},
		{"interim answers are passed over", {"HTTP/1.1 100 Continue\r\n\r\n" PLAIN, false}, 200, "hi", SBX_E_NONE},
		{"an error is an answer", {"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno", false}, 503, "no", SBX_E_NONE},
		{"cut length", {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", true}, 200, NULL, SBX_E_PEER_GONE},
		{"cut chunk", {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi", true}, 200, NULL, SBX_E_PEER_GONE},
		{"bad chunk", {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false}, 200, NULL, SBX_E_MALFORMED},
		{"more than the bound", {"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n123456789012", false}, 200, NULL, SBX_E_LIMIT},
		{"two lengths", {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", false}, 0, NULL, SBX_E_PROTOCOL},
		{"not HTTP", {"SSH-2.0-x\r\n\r\n", false}, 0, NULL, SBX_E_PROTOCOL},
		{"closed", {"", true}, 0, NULL, SBX_E_PEER_GONE},
	};
	const struct http_client_request rq = {.method = "GET", .target = "/"};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct http_client_response got = {0};
		struct sbx_err err = {0};
		auto_free char *body = NULL;
		pid_t pid = start(&cases[i].script, 1);
		struct http_client *c = http_client_open_unix(path, 5000, &err);
		int r = c ? http_client_begin(c, &rq, &got, &err) : -1;

		ok(r == (cases[i].status ? 0 : -1) && got.status == cases[i].status, "head: %s", cases[i].why);
		if (r == 0)
			r = http_client_body(c, 10, &body, NULL, &err);
		ok(cases[i].body ? r == 0 && !strcmp(body, cases[i].body) : r < 0 && err.code == cases[i].code, "body: %s (%s)",
		   cases[i].why, err.msg);
		http_client_free(c);
		stop(pid);
	}
}

static ssize_t source(void *arg, void *out, size_t size, struct sbx_err *err)
{
	int *left = arg;

	(void)err;
	if (!*left || size < 3)
		return 0;
	--*left;
	memcpy(out, "xyz", 3);
	return 3;
}

static void test_connection(void)
{
	static const struct script script[] = {{PLAIN, false}, {PLAIN, true}, {PLAIN, false}, {PLAIN, false}};
	const struct http_client_request rq = {.method = "GET", .target = "/"};
	int pieces = 3;
	const struct http_client_request streamed = {
		.method = "POST", .target = "/", .source = source, .source_arg = &pieces, .source_len = -1};
	struct http_client_response got;
	struct sbx_err err = {0};
	pid_t pid = start(script, ARRAY_SIZE(script));
	struct http_client *c = http_client_open_unix(path, 5000, &err);
	int good = 0;

	ok(c && http_client_begin(c, &rq, &got, &err) == 0, "first request");
	is_str(http_client_header(c, "x-a"), "b", "a header, trimmed, in any case");
	ok(!http_client_header(c, "x-b"), "an absent one");
	for (int i = 0; i < 2; i++)
		good += http_client_begin(c, &rq, &got, &err) == 0 && got.status == 200;
	is_int(good, 2, "the next ones, over an unread body and a connection that the server closed (%s)", err.msg);
	ok(http_client_begin(c, &streamed, &got, &err) == 0 && got.status == 200 && !pieces, "a streamed body (%s)", err.msg);
	http_client_free(c);
	stop(pid);

	static const struct script late[] = {{PLAIN, 2}, {PLAIN, 2}, {PLAIN, 2}};
	const struct http_client_request post = {.method = "POST", .target = "/"};
	pid = start(late, ARRAY_SIZE(late));
	c = http_client_open_unix(path, 5000, &err);
	good = 0;
	for (int i = 0; i < 2; i++)
		good += c && http_client_begin(c, &rq, &got, &err) == 0 && got.status == 200;
	is_int(good, 2, "a GET that crossed the end of its connection is sent again (%s)", err.msg);
	ok(c && http_client_begin(c, &post, &got, &err) < 0 && err.code == SBX_E_PEER_GONE, "a POST is not: it may have been done");
	http_client_free(c);
	stop(pid);

	static const struct script upgrade[] = {{"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw", true}};
	char raw[8] = "";
	pid = start(upgrade, 1);
	c = http_client_open_unix(path, 5000, &err);
	ok(c && http_client_begin(c, &rq, &got, &err) == 0 && got.status == 101, "an upgrade");
	ok(http_client_read(c, raw, sizeof(raw), &err) == 3 && !strcmp(raw, "raw") && http_client_read(c, raw, sizeof(raw), &err) == 0,
	   "gives raw bytes until the end");
	http_client_free(c);
	stop(pid);

	static const struct script silent[] = {{PLAIN, false}, {"", false}, {"", false}};
	pid = start(silent, ARRAY_SIZE(silent));
	c = http_client_open_unix(path, 100, &err);
	ok(c && http_client_begin(c, &rq, &got, &err) == 0, "a server");
	ok(http_client_begin(c, &rq, &got, &err) < 0 && err.sys == ETIMEDOUT, "that falls silent is given up (%s)", err.msg);
	http_client_free(c);
	stop(pid);
	unlink(path);
	ok(!http_client_open_unix(path, 100, &err) && err.sys == ENOENT, "no socket (%s)", err.msg);
}

int main(void)
{
	snprintf(dir, sizeof(dir), "/tmp/test_http_client.XXXXXX");
	if (!ok(mkdtemp(dir) != NULL, "scratch directory"))
		return tap_done();
	snprintf(path, sizeof(path), "%s/s", dir);
	test_answers();
	test_connection();
	unlink(path);
	rmdir(dir);
	return tap_done();
}
