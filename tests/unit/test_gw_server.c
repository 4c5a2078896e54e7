// SPDX-License-Identifier: Apache-2.0
/*
 * sandboxd's end of the gateway channel over a real socket: good messages are answered, bad ones end the connection.
 */
#include "tests/tap.h"

#include "api/api_server.h"
#include "api/gw_msg.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/http_server.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "images/image_store.h"
#include "tests/unit/fake_manager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define KEY "secret-key"
#define ID1 "00000000-0000-4000-8000-000000000001"

static struct loop *loop;
static struct settings settings;
static struct api_server *server;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_len;
static int listen_fd;

struct reply {
	ssize_t len;
	union {
		struct gw_head head;
		struct gw_hello_reply hello;
		struct gw_http_reply http;
		struct gw_open_reply open;
		struct gw_stat_reply stat;
		struct gw_state state;
		struct gw_import_reply import;
		char bytes[GW_MESSAGE_MAX];
	} u;
	int fds[4];
	size_t n_fds;
};

static void turn(void)
{
	for (int i = 0; i < 10; i++)
		loop_once(loop, 0);
}

static int dial(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, address_len) < 0)
		abort();
	turn();
	return fd;
}

static struct http_text text_of(const char *s)
{
	return (struct http_text){s, strlen(s)};
}

static void send_msg(int fd, struct gw_head *head, size_t size, const struct http_text *strings, uint32_t n, const int *fds, size_t n_fds)
{
	struct iovec iov[GW_MAX_STRINGS + 1] = {{.iov_base = head, .iov_len = size}};
	size_t n_iov = 1;

	head->magic = head->magic ? head->magic : GW_MAGIC;
	head->n_strings = n;
	for (uint32_t i = 0; i < n; i++) {
		head->length[i] = (uint32_t)strings[i].len;
		if (i + 1 == n && head->body_fd)
			continue;
		iov[n_iov].iov_base = (void *)(uintptr_t)strings[i].data;
		iov[n_iov++].iov_len = strings[i].len;
	}
	if (fdpass_send(fd, iov, n_iov, fds, n_fds) < 0)
		abort();
	turn();
}

static void recv_msg(int fd, struct reply *r)
{
	memset(r, 0, sizeof(*r));
	r->len = fdpass_recv(fd, &r->u, sizeof(r->u), r->fds, ARRAY_SIZE(r->fds), &r->n_fds);
}

static void drop_fds(struct reply *r)
{
	for (size_t i = 0; i < r->n_fds; i++)
		close(r->fds[i]);
}

static void greet(int fd)
{
	struct gw_hello hello = {.head = {.kind = GW_HELLO, .tag = 1}, .version = GW_VERSION};
	struct reply r;

	send_msg(fd, &hello.head, sizeof(hello), NULL, 0, NULL, 0);
	recv_msg(fd, &r);
	ok(r.len == sizeof(struct gw_hello_reply) && r.u.head.kind == GW_HELLO_REPLY && r.u.head.tag == 1 &&
		   r.u.hello.version == GW_VERSION && r.u.hello.flags == GW_HELLO_KEY_REQUIRED,
	   "hello is answered and says that a key is needed");
}

static void ask_http(int fd, const char *method, const char *target, struct http_text body, int body_fd)
{
	struct gw_http msg = {.head = {.kind = GW_HTTP, .tag = 7, .body_fd = body_fd >= 0}, .flags = GW_HTTP_HAS_API_KEY};
	const struct http_text strings[GW_HTTP_STRINGS] = {
		[GW_HTTP_METHOD] = text_of(method),
		[GW_HTTP_TARGET] = text_of(target),
		[GW_HTTP_HOST] = text_of("localhost:8080"),
		[GW_HTTP_ORIGIN] = text_of(""),
		[GW_HTTP_API_KEY] = text_of(KEY),
		[GW_HTTP_REQUEST_ID] = text_of("rid"),
		[GW_HTTP_CONTENT_TYPE] = text_of("application/json"),
		[GW_HTTP_CLIENT] = text_of("127.0.0.1:9"),
		[GW_HTTP_BODY] = body,
	};

	send_msg(fd, &msg.head, sizeof(msg), strings, GW_HTTP_STRINGS, &body_fd, body_fd >= 0);
}

#define CREATE "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"true\"],\"resourceLimits\":{}}"

static void test_http(int fd)
{
	struct reply r;

	ask_http(fd, "POST", "/v1/sandboxes", text_of(CREATE), -1);
	recv_msg(fd, &r);
	ok(r.u.head.kind == GW_STATE && r.u.state.state == GW_SANDBOX_RUNNING && r.u.state.generation == 101,
	   "the change comes before the answer");
	recv_msg(fd, &r);
	ok(r.u.head.kind == GW_HTTP_REPLY && r.u.head.tag == 7 && r.u.http.status == 202, "create is answered by its tag");
	const char *strings = r.u.bytes + sizeof(struct gw_http_reply);
	size_t at = r.u.head.length[GW_REPLY_CONTENT_TYPE];
	ok(r.u.head.n_strings == GW_REPLY_STRINGS && at == 16 && !memcmp(strings, "application/json", 16), "content type");
	ok(!memcmp(strings + at, "Location: /v1/sandboxes/" ID1 "\r\n", r.u.head.length[GW_REPLY_HEADERS]), "headers");
	ok(!memcmp(strings + at + r.u.head.length[GW_REPLY_HEADERS], "{\"id\":", 6), "body");
}

static int make_memfd(const char *data, size_t n, unsigned seals)
{
	int fd = memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || write(fd, data, n) != (ssize_t)n || (seals && fcntl(fd, F_ADD_SEALS, seals) < 0))
		abort();
	return fd;
}

static void test_large(int fd)
{
	size_t n = 200000;
	auto_free char *body = malloc(n);
	struct reply r;

	if (!body)
		abort();
	memset(body, ' ', n);
	memcpy(body, CREATE, sizeof(CREATE) - 1);
	auto_fd memfd = make_memfd(body, n, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	ask_http(fd, "POST", "/v1/sandboxes", (struct http_text){body, n}, memfd);
	recv_msg(fd, &r);
	recv_msg(fd, &r);
	is_int(r.u.http.status, 202, "a body in a sealed memfd");
	for (int i = 0; i < 60; i++) {
		auto_buf big = {0};

		buf_puts(&big, "{\"image\":{\"uri\":\"host\"},\"resourceLimits\":{},\"entrypoint\":[\"x\"");
		for (int k = 0; k < 200; k++)
			buf_puts(&big, ",\"0123456789\"");
		buf_puts(&big, "]}");
		ask_http(fd, "POST", "/v1/sandboxes", text_of(buf_str(&big)), -1);
		recv_msg(fd, &r);
		recv_msg(fd, &r);
	}
	ask_http(fd, "GET", "/v1/sandboxes?pageSize=200", text_of(""), -1);
	recv_msg(fd, &r);
	struct stat st;
	ok(r.u.head.body_fd == 1 && r.n_fds == 1 && !fstat(r.fds[0], &st) &&
		   st.st_size == (off_t)r.u.head.length[GW_REPLY_BODY] && st.st_size > GW_INLINE_BODY,
	   "a long list comes in a memfd");
	ok(r.n_fds == 1 && (fcntl(r.fds[0], F_GET_SEALS) & F_SEAL_WRITE), "that is sealed");
	drop_fds(&r);
}

static void ask_open(int fd, uint32_t what, uint32_t port, const char *id, const char *key, const char *exec_token, uint32_t flags)
{
	struct gw_open msg = {.head = {.kind = GW_OPEN, .tag = 9}, .what = what, .port = port, .flags = flags};
	const struct http_text strings[GW_OPEN_STRINGS] = {
		[GW_OPEN_ID] = text_of(id),
		[GW_OPEN_API_KEY] = text_of(key),
		[GW_OPEN_EXECD_TOKEN] = text_of(exec_token),
		[GW_OPEN_SECURE_TOKEN] = text_of(""),
	};

	send_msg(fd, &msg.head, sizeof(msg), strings, GW_OPEN_STRINGS, NULL, 0);
}

static void test_open(int fd)
{
	static const struct {
		const char *why;
		uint32_t what, port;
		const char *id, *key, *token;
		uint32_t flags;
		enum sandbox_state state;
		unsigned status;
		const char *code;
		size_t n_fds;
	} cases[] = {
		{"exec with its token", GW_OPEN_EXEC, 44772, ID1, "", "exec-token-1", 0, SANDBOX_RUNNING, 200, "", 2},
		{"exec with the key", GW_OPEN_EXEC, 44772, ID1, KEY, "", GW_HTTP_HAS_API_KEY, SANDBOX_RUNNING, 200, "", 2},
		{"exec with the key as token (Go)", GW_OPEN_EXEC, 44772, ID1, "", KEY, 0, SANDBOX_RUNNING, 200, "", 2},
		{"exec over the Unix socket", GW_OPEN_EXEC, 44772, ID1, "", "", GW_HTTP_UNIX_PEER, SANDBOX_RUNNING, 200, "", 2},
		{"exec without anything", GW_OPEN_EXEC, 44772, ID1, "", "", 0, SANDBOX_RUNNING, 401, "UNAUTHORIZED", 0},
		{"exec with a wrong token", GW_OPEN_EXEC, 44772, ID1, "", "exec-token-2", 0, SANDBOX_RUNNING, 401, "UNAUTHORIZED", 0},
		{"exec with the egress token", GW_OPEN_EXEC, 44772, ID1, "", "egress-token-1", 0, SANDBOX_RUNNING, 401, "UNAUTHORIZED", 0},
		{"exec with a wrong key", GW_OPEN_EXEC, 44772, ID1, "x", "", GW_HTTP_HAS_API_KEY, SANDBOX_RUNNING, 401, "UNAUTHORIZED", 0},
		{"exec while paused", GW_OPEN_EXEC, 44772, ID1, KEY, "", 0, SANDBOX_PAUSED, 503, "SANDBOX::NOT_READY", 0},
		{"exec while pending", GW_OPEN_EXEC, 44772, ID1, KEY, "", 0, SANDBOX_PENDING, 503, "SANDBOX::NOT_READY", 0},
		{"exec after the end", GW_OPEN_EXEC, 44772, ID1, KEY, "", 0, SANDBOX_TERMINATED, 503, "SANDBOX::NOT_READY", 0},
		{"a paused one says nothing without a token", GW_OPEN_EXEC, 44772, ID1, "", "", 0, SANDBOX_PAUSED, 401, "UNAUTHORIZED", 0},
		{"output with the key", GW_OPEN_LOGS, 44772, ID1, KEY, "", GW_HTTP_HAS_API_KEY, SANDBOX_RUNNING, 200, "", 2},
		{"output after the end", GW_OPEN_LOGS, 44772, ID1, KEY, "", GW_HTTP_HAS_API_KEY, SANDBOX_TERMINATED, 200, "", 2},
		{"output of a failed one", GW_OPEN_LOGS, 44772, ID1, KEY, "", GW_HTTP_HAS_API_KEY, SANDBOX_FAILED, 200, "", 2},
		{"output while it is removed", GW_OPEN_LOGS, 44772, ID1, KEY, "", GW_HTTP_HAS_API_KEY, SANDBOX_STOPPING, 503,
		 "SANDBOX::NOT_READY", 0},
		{"output while paused", GW_OPEN_LOGS, 44772, ID1, KEY, "", GW_HTTP_HAS_API_KEY, SANDBOX_PAUSED, 503, "SANDBOX::NOT_READY", 0},
		{"output with the exec token", GW_OPEN_LOGS, 44772, ID1, "", "exec-token-1", 0, SANDBOX_RUNNING, 401, "MISSING_API_KEY", 0},
		{"output with a wrong key", GW_OPEN_LOGS, 44772, ID1, "x", "", GW_HTTP_HAS_API_KEY, SANDBOX_RUNNING, 401, "INVALID_API_KEY", 0},
		{"output of nothing, without a key", GW_OPEN_LOGS, 44772, "", "", "", 0, SANDBOX_RUNNING, 401, "MISSING_API_KEY", 0},
		{"a user port is open", GW_OPEN_PORT, 8000, ID1, "", "", 0, SANDBOX_RUNNING, 200, "", 2},
		{"a user port while paused", GW_OPEN_PORT, 8000, ID1, "", "", 0, SANDBOX_PAUSED, 503, "SANDBOX::NOT_READY", 0},
		{"44772 is no user port", GW_OPEN_PORT, 44772, ID1, KEY, "", 0, SANDBOX_RUNNING, 400, "DOCKER::INVALID_PORT", 0},
		{"18080 is no user port", GW_OPEN_PORT, 18080, ID1, KEY, "", 0, SANDBOX_RUNNING, 400, "DOCKER::INVALID_PORT", 0},
		{"port 0", GW_OPEN_PORT, 0, ID1, KEY, "", 0, SANDBOX_RUNNING, 400, "DOCKER::INVALID_PORT", 0},
		{"port 65536", GW_OPEN_PORT, 65536, ID1, KEY, "", 0, SANDBOX_RUNNING, 400, "DOCKER::INVALID_PORT", 0},
		{"nothing known", 77, 80, ID1, KEY, "", 0, SANDBOX_RUNNING, 400, "DOCKER::INVALID_PORT", 0},
		{"an unknown id", GW_OPEN_PORT, 80, "00000000-0000-4000-8000-0000000000ff", KEY, "", 0, SANDBOX_RUNNING, 404,
		 "DOCKER::SANDBOX_NOT_FOUND", 0},
		{"no id", GW_OPEN_PORT, 80, "", KEY, "", 0, SANDBOX_RUNNING, 404, "DOCKER::SANDBOX_NOT_FOUND", 0},
		{"an id of the right length", GW_OPEN_PORT, 80, "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz", KEY, "", 0, SANDBOX_RUNNING, 404,
		 "DOCKER::SANDBOX_NOT_FOUND", 0},
	};
	struct reply r;

	fake_manager_reset();
	ask_http(fd, "POST", "/v1/sandboxes", text_of(CREATE), -1);
	recv_msg(fd, &r);
	recv_msg(fd, &r);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char code[64] = "";

		fake_set_state(cases[i].state, "X");
		recv_msg(fd, &r); /* the change */
		ask_open(fd, cases[i].what, cases[i].port, cases[i].id, cases[i].key, cases[i].token, cases[i].flags);
		recv_msg(fd, &r);
		if (r.len >= (ssize_t)sizeof(r.u.open) && r.u.head.length[GW_OPENED_CODE] < sizeof(code))
			memcpy(code, r.u.bytes + sizeof(r.u.open), r.u.head.length[GW_OPENED_CODE]);
		if (!ok(r.u.head.kind == GW_OPEN_REPLY && r.u.head.tag == 9 && r.u.open.status == cases[i].status &&
				r.n_fds == cases[i].n_fds && !strcmp(code, cases[i].code),
			"open: %s", cases[i].why))
			printf("# status %u, code %s, %zu descriptors\n", r.u.open.status, code, r.n_fds);
		if (cases[i].status == 200)
			ok(r.u.open.generation == 101 && r.u.open.addr == 0x0ad50001u, "and it says which life and address");
		drop_fds(&r);
	}
}

static void test_stat(int fd)
{
	struct gw_stat msg = {.head = {.kind = GW_STAT, .tag = 4}};
	struct reply r;

	memcpy(msg.sandbox_id, fake_newest()->id, 16);
	send_msg(fd, &msg.head, sizeof(msg), NULL, 0, NULL, 0);
	recv_msg(fd, &r);
	ok(r.u.head.kind == GW_STAT_REPLY && r.u.stat.status == 200 && r.u.stat.memory_bytes == 4096 && r.u.stat.pids == 3, "figures");
	msg.sandbox_id[0] = 0xff;
	send_msg(fd, &msg.head, sizeof(msg), NULL, 0, NULL, 0);
	recv_msg(fd, &r);
	is_int(r.u.stat.status, 404, "figures of nothing");
}

/* Every malformed message ends its connection and no other. */
static void test_malformed(int good_fd)
{
	static const struct {
		const char *why;
		uint32_t magic, kind, n_strings;
		size_t size;
		uint32_t length0;
		bool greet, body_fd;
	} cases[] = {
		{"bad magic", 0xdeadbeef, GW_STAT, 0, sizeof(struct gw_stat), 0, true, false},
		{"an unknown kind", GW_MAGIC, 99, 0, sizeof(struct gw_stat), 0, true, false},
		{"a kind that only we send", GW_MAGIC, GW_STATE, 0, sizeof(struct gw_state), 0, true, false},
		{"shorter than a head", GW_MAGIC, GW_STAT, 0, 12, 0, true, false},
		{"shorter than its struct", GW_MAGIC, GW_STAT, 0, sizeof(struct gw_head), 0, true, false},
		{"bytes behind the strings", GW_MAGIC, GW_STAT, 0, sizeof(struct gw_stat) + 8, 0, true, false},
		{"too few strings", GW_MAGIC, GW_OPEN, 1, sizeof(struct gw_open), 0, true, false},
		{"too many strings", GW_MAGIC, GW_STAT, 1, sizeof(struct gw_stat), 0, true, false},
		{"a length past the message", GW_MAGIC, GW_OPEN, GW_OPEN_STRINGS, sizeof(struct gw_open), 1, true, false},
		{"a length that wraps", GW_MAGIC, GW_OPEN, GW_OPEN_STRINGS, sizeof(struct gw_open), UINT32_MAX, true, false},
		{"a body where none may be", GW_MAGIC, GW_STAT, 0, sizeof(struct gw_stat), 0, true, true},
		{"a request before hello", GW_MAGIC, GW_STAT, 0, sizeof(struct gw_stat), 0, false, false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		auto_fd fd = dial();
		union {
			struct gw_head head;
			char bytes[1024];
		} u = {.head = {.magic = cases[i].magic, .kind = cases[i].kind, .n_strings = cases[i].n_strings,
				.body_fd = cases[i].body_fd, .length = {cases[i].length0}}};
		const struct iovec iov = {.iov_base = &u, .iov_len = cases[i].size};
		struct reply r;

		if (cases[i].greet)
			greet(fd);
		if (fdpass_send(fd, &iov, 1, &listen_fd, cases[i].body_fd) < 0)
			abort();
		turn();
		recv_msg(fd, &r);
		is_int(r.len, 0, "closed: %s", cases[i].why);
	}
	static const struct {
		const char *why;
		unsigned seals;
		size_t size, said;
	} bodies[] = {
		{"a memfd without seals", 0, 100, 100},
		{"a memfd that may shrink", F_SEAL_WRITE | F_SEAL_GROW, 100, 100},
		{"a memfd shorter than it is said", F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, 100, 5000},
		{"a body past the limit", F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, 3 << 20, 3 << 20},
		{"an empty memfd", F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, 100, 0},
	};
	auto_free char *space = calloc(1, 3 << 20);
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		auto_fd fd = dial(), memfd = make_memfd(space, bodies[i].size, bodies[i].seals);
		struct reply r;

		greet(fd);
		ask_http(fd, "POST", "/v1/sandboxes", (struct http_text){space, bodies[i].said}, memfd);
		recv_msg(fd, &r);
		is_int(r.len, 0, "closed: %s", bodies[i].why);
	}
	test_stat(good_fd);
}

static void ask_import(int fd, uint32_t state, uint64_t handle, const char *target, const char *key)
{
	struct gw_import msg = {.head = {.kind = GW_IMPORT, .tag = 5}, .state = state, .flags = GW_HTTP_HAS_API_KEY, .handle = handle};
	const struct http_text strings[GW_IMPORT_STRINGS] = {[GW_IMPORT_TARGET] = text_of(target), [GW_IMPORT_API_KEY] = text_of(key)};

	send_msg(fd, &msg.head, sizeof(msg), strings, GW_IMPORT_STRINGS, NULL, 0);
}

static const char *body_of(struct reply *r)
{
	static char text[4096];
	size_t skip = sizeof(struct gw_import_reply) + r->u.head.length[0] + r->u.head.length[1];

	snprintf(text, sizeof(text), "%.*s", (int)r->u.head.length[2], r->u.bytes + skip);
	return text;
}

/* Ends with the reply of `done` in @r. */
static void import_one(int fd, const char *target, const char *data, size_t n, bool keep_open, struct reply *r)
{
	ask_import(fd, 0, 0, target, KEY);
	recv_msg(fd, r);
	if (r->u.import.status != 200 || r->n_fds != 1) {
		drop_fds(r);
		return;
	}
	uint64_t handle = r->u.import.handle;
	if (write(r->fds[0], data, n) != (ssize_t)n)
		abort();
	char c;
	ok(read(r->fds[0], &c, 1) < 0 && errno == EBADF, "the file is write-only");
	if (!keep_open)
		close(r->fds[0]);
	int held = r->fds[0];
	ask_import(fd, 1, handle, "", "");
	for (int i = 0; i < 20; i++)
		turn();
	recv_msg(fd, r);
	if (keep_open)
		close(held);
}

static void test_import(int fd)
{
	static const struct {
		const char *why, *target, *key;
		unsigned status;
		const char *part;
	} refusals[] = {
		{"no key", "/v1/images/import?name=a", "", 401, "MISSING_API_KEY"},
		{"a wrong key", "/v1/images/import?name=a", "x", 401, "INVALID_API_KEY"},
		{"no name", "/v1/images/import?kind=rootfs", KEY, 400, "name is required"},
		{"an unknown kind", "/v1/images/import?name=a&kind=zip", KEY, 400, "kind"},
		{"one of a root file system", "/v1/images/import?name=a&kind=rootfs&ref=b", KEY, 400, "ref"},
		{"an empty name", "/v1/images/import?name=", KEY, 400, "name is required"},
		{"a name that climbs", "/v1/images/import?name=../x", KEY, 400, ""},
		{"the embedded image's name", "/v1/images/import?name=host", KEY, 400, "cannot be given"},
		{"a digest", "/v1/images/import?name=a@sha256:0000000000000000000000000000000000000000000000000000000000000000", KEY, 400,
		 "cannot be given"},
		{"an unknown format", "/v1/images/import?name=a&format=zip", KEY, 400, "format"},
		{"env without =", "/v1/images/import?name=a&env=x", KEY, 400, "NAME=value"},
		{"a relative workdir", "/v1/images/import?name=a&workdir=x", KEY, 400, "workdir"},
		{"an open quote in cmd", "/v1/images/import?name=a&cmd=%27x", KEY, 400, "open"},
	};
	struct reply r;

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		ask_import(fd, 0, 0, refusals[i].target, refusals[i].key);
		recv_msg(fd, &r);
		if (!ok(r.u.import.status == refusals[i].status && strstr(body_of(&r), refusals[i].part) && !r.n_fds,
			"import refused: %s", refusals[i].why))
			printf("# %u %s\n", r.u.import.status, body_of(&r));
		drop_fds(&r);
	}
	import_one(fd, "/v1/images/import?name=tiny:1&env=A%3D1&workdir=/w&user=u&cmd=sh%20-l", "0123456789", 10, false, &r);
	ok(r.u.import.status == 201 && strstr(body_of(&r), "\"name\":\"tiny:1\",\"ref\":\"docker.io/library/tiny:1\"") &&
		   strstr(body_of(&r), "\"cmd\":[\"sh\",\"-l\"]") && strstr(body_of(&r), "\"env\":[\"A=1\"]"),
	   "import: %s", body_of(&r));
	is_int(fake.last_request.layer_req.form, BROKER_FORM_TAR, "plain tar by its first bytes");
	uint8_t key[32];
	memcpy(key, fake.last_request.layer_req.key, 32);
	import_one(fd, "/v1/images/import?name=tiny:2", "\x1f\x8b\x08 456789", 10, false, &r);
	ok(r.u.import.status == 201 && fake.last_request.layer_req.form == BROKER_FORM_TAR_GZIP, "gzip by its first bytes");
	ok(memcmp(key, fake.last_request.layer_req.key, 32) != 0, "other bytes have another key");
	import_one(fd, "/v1/images/import?name=tiny:3&format=tar.zst", "0123456789", 10, false, &r);
	ok(fake.last_request.layer_req.form == BROKER_FORM_TAR_ZSTD && !memcmp(key, fake.last_request.layer_req.key, 32),
	   "the same bytes have the same key");
	unsigned before = fake.broker_calls;
	import_one(fd, "/v1/images/import?name=bad", "0123456789", 10, true, &r);
	ok(r.u.import.status == 500 && fake.broker_calls == before, "refused while a writer is left");
	import_one(fd, "/v1/images/import?name=bad", "", 0, false, &r);
	ok(r.u.import.status == 400 && strstr(body_of(&r), "IMAGE::INVALID"), "an empty body");
	ask_import(fd, 1, 12345, "", "");
	recv_msg(fd, &r);
	is_int(r.u.import.status, 500, "an unknown handle");
	ask_http(fd, "GET", "/v1/images/tiny:2", text_of(""), -1);
	recv_msg(fd, &r);
	is_int(r.u.http.status, 200, "get an image");
	ask_http(fd, "GET", "/v1/images/docker.io%2Flibrary%2Ftiny:2", text_of(""), -1);
	recv_msg(fd, &r);
	is_int(r.u.http.status, 200, "by its full name, encoded");
	ask_http(fd, "DELETE", "/v1/images/tiny:1", text_of(""), -1);
	recv_msg(fd, &r);
	is_int(r.u.http.status, 204, "remove an image");
	is_int(fake.broker_calls, before, "its layer is still used by another");
	ask_http(fd, "POST", "/v1/sandboxes",
		 text_of("{\"image\":{\"uri\":\"docker.io/library/tiny:2\"},\"entrypoint\":[\"true\"],\"resourceLimits\":{}}"), -1);
	recv_msg(fd, &r);
	recv_msg(fd, &r);
	ask_http(fd, "DELETE", "/v1/images/tiny:2", text_of(""), -1);
	recv_msg(fd, &r);
	is_int(r.u.http.status, 409, "an image in use stays, by whatever name");
	fake_set_state(SANDBOX_TERMINATED, "CONTAINER_EXITED");
	recv_msg(fd, &r);
	ask_http(fd, "DELETE", "/v1/images/tiny:2", text_of(""), -1);
	recv_msg(fd, &r);
	is_int(r.u.http.status, 409, "an ended sandbox keeps its root, so the image stays");
	fake_newest()->slot = BROKER_NO_SLOT;
	/* an import of the same bytes as tiny:3, under another name, while tiny:3 is removed */
	fake.hold_unpack = true;
	ask_import(fd, 0, 0, "/v1/images/import?name=tiny:4", KEY);
	recv_msg(fd, &r);
	uint64_t handle = r.u.import.handle;
	if (r.n_fds != 1 || write(r.fds[0], "0123456789", 10) != 10)
		abort();
	drop_fds(&r);
	ask_import(fd, 1, handle, "", "");
	turn();
	before = fake.broker_calls;
	ask_http(fd, "DELETE", "/v1/images/tiny:3", text_of(""), -1);
	recv_msg(fd, &r);
	ok(r.u.http.status == 204 && fake.broker_calls == before, "a layer that an import waits for is not dropped");
	fake_unpacked();
	recv_msg(fd, &r);
	ok(r.u.head.kind == GW_IMPORT_REPLY && r.u.import.status == 201, "and the import ends well");
	ask_http(fd, "DELETE", "/v1/images/tiny:2", text_of(""), -1);
	recv_msg(fd, &r);
	ok(r.u.http.status == 204 && fake.broker_calls == before + 1 && fake.last_request.head.op == BROKER_OP_LAYER_DROP,
	   "the last user's layer is dropped");
	ask_http(fd, "GET", "/v1/images/tiny:2", text_of(""), -1);
	recv_msg(fd, &r);
	is_int(r.u.http.status, 404, "it is gone");
	ask_http(fd, "DELETE", "/v1/images/tiny:4", text_of(""), -1);
	recv_msg(fd, &r);
	is_int(r.u.http.status, 204, "remove the last");
	/* a connection that ends takes its unfinished imports along: the bound is reached only by living ones */
	for (int round = 0; round < 3; round++) {
		auto_fd other = dial();

		greet(other);
		for (int i = 0; i < 4; i++) {
			ask_import(other, 0, 0, "/v1/images/import?name=x", KEY);
			recv_msg(other, &r);
			drop_fds(&r);
		}
		is_int(r.u.import.status, 200, "four at once");
		ask_import(other, 0, 0, "/v1/images/import?name=x", KEY);
		recv_msg(other, &r);
		is_int(r.u.import.status, 503, "a fifth is refused");
		close(take_fd(&other));
		turn();
	}
}

static void ask_access(int fd)
{
	struct gw_stat msg = {.head = {.kind = GW_ACCESS, .tag = 6}};
	struct reply r;

	memcpy(msg.sandbox_id, fake_newest()->id, 16);
	send_msg(fd, &msg.head, sizeof(msg), NULL, 0, NULL, 0);
	recv_msg(fd, &r);
	ok(r.u.head.kind == GW_ACCESS_REPLY && r.u.head.tag == 6, "an access is acknowledged");
}

/* The second server: renew on access is on. */
static void test_access(void)
{
	static const char opted_in[] = "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"true\"],\"resourceLimits\":{},\"timeout\":60,"
				       "\"extensions\":{\"access.renew.extend.seconds\":\"300\"}}";
	struct gw_hello hello = {.head = {.kind = GW_HELLO}, .version = GW_VERSION};
	auto_fd fd = dial();
	struct reply r;

	send_msg(fd, &hello.head, sizeof(hello), NULL, 0, NULL, 0);
	recv_msg(fd, &r);
	is_int(r.u.hello.flags, GW_HELLO_KEY_REQUIRED | GW_HELLO_ACCESS, "hello asks for accesses");
	fake_manager_reset();
	ask_http(fd, "POST", "/v1/sandboxes", text_of(opted_in), -1);
	recv_msg(fd, &r);
	struct sandbox *s = fake_newest();
	int64_t now = wall_usec();
	s->expires_wall_usec = now + 60000000;
	ask_access(fd);
	ok(s->expires_wall_usec >= now + 300000000 && s->expires_wall_usec < now + 310000000, "it is renewed by 300 s");
	s->expires_wall_usec = now + 60000000;
	ask_access(fd);
	is_int(s->expires_wall_usec, now + 60000000, "not again within the interval");
	fake_manager_reset();
	ask_http(fd, "POST", "/v1/sandboxes", text_of(opted_in), -1);
	recv_msg(fd, &r);
	s = fake_newest();
	s->id[0] = 9; /* another sandbox: no interval runs */
	s->expires_wall_usec = now + 60000000;
	s->state = SANDBOX_PAUSED;
	ask_access(fd);
	is_int(s->expires_wall_usec, now + 60000000, "a paused one is not renewed");
	s->state = SANDBOX_RUNNING;
	s->spec.renew_extend_s = 0;
	ask_access(fd);
	is_int(s->expires_wall_usec, now + 60000000, "nor one that did not ask for it");
	s->spec.renew_extend_s = 300;
	s->expires_wall_usec = now + 900000000;
	ask_access(fd);
	is_int(s->expires_wall_usec, now + 900000000, "never made shorter");
	s->expires_wall_usec = 0;
	ask_access(fd);
	is_int(s->expires_wall_usec, 0, "nor given an expiry");
	s->expires_wall_usec = now + 60000000;
	char id[UUID_SIZE];
	uuid_format(s->id, id);
	ask_open(fd, GW_OPEN_LOGS, 44772, id, KEY, "", GW_HTTP_HAS_API_KEY);
	recv_msg(fd, &r);
	drop_fds(&r);
	is_int(s->expires_wall_usec, now + 60000000, "reading its output is no access");
	ask_open(fd, GW_OPEN_PORT, 80, id, "", "", 0);
	recv_msg(fd, &r);
	drop_fds(&r);
	ok(s->expires_wall_usec > now + 290000000, "a request to a user port is");
}

int main(void)
{
	struct sbx_err err = {0};
	char dir[] = "/tmp/test_gw_server.XXXXXX";
	auto_fd dir_fd = mkdtemp(dir) ? open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC) : -1;
	static const struct sandbox_hooks none;

	log_init("test", LOG_LEVEL_ERROR);
	loop = loop_new(&err);
	listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	address_len = sizeof(address);
	/* an abstract name that the kernel chooses */
	if (!loop || dir_fd < 0 || listen_fd < 0 || settings_defaults(&settings, &err) < 0 ||
	    bind(listen_fd, (const struct sockaddr *)&address, sizeof(sa_family_t)) < 0 || listen(listen_fd, 8) < 0 ||
	    getsockname(listen_fd, (struct sockaddr *)&address, &address_len) < 0) {
		printf("Bail out! %s\n", err.msg);
		return 1;
	}
	struct image_store *images = image_store_open(dir_fd, &err);
	const struct api_server_config config = {
		.loop = loop,
		.settings = &settings,
		.manager = fake_manager_new(&none),
		.images = images,
		.broker = (struct broker_client *)&fake,
		.control_fd = listen_fd,
		.state_dir_fd = dir_fd,
		.gateway_uid = geteuid(),
		.api_key = KEY,
	};
	server = api_server_new(&config, &err);
	if (!server || !images) {
		printf("Bail out! %s\n", err.msg);
		return 1;
	}
	const struct sandbox_hooks hooks = {.arg = server, .changed = api_server_changed};
	fake_manager_new(&hooks);
	int fd = dial();
	greet(fd);
	test_http(fd);
	test_large(fd);
	test_open(fd);
	test_stat(fd);
	test_malformed(fd);
	test_import(fd);
	/* a create that is answered after its gateway, and then the server, went away */
	fake.hold = true;
	ask_http(fd, "POST", "/v1/sandboxes", text_of(CREATE), -1);
	close(fd);
	turn();
	api_server_free(server);
	fake_manager_new(&none);
	is_int(fake_release(), 1, "an answer for nobody is dropped");
	if (settings_set(&settings, "renew_intent.enabled", "true", &err) < 0 || !(server = api_server_new(&config, &err)))
		printf("Bail out! %s\n", err.msg);
	else
		test_access();
	api_server_free(server);
	fake_manager_reset();
	image_store_close(images);
	settings_free(&settings);
	loop_free(loop);
	close(listen_fd);
	ok(!unlinkat(dir_fd, "import", AT_REMOVEDIR) && !unlinkat(dir_fd, "images", AT_REMOVEDIR) && !rmdir(dir),
	   "no file of an import or image is left");
	return tap_done();
}
