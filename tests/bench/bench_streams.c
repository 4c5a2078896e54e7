// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: figures of the execd API: commands at once, content of files against a plain copy, terminals
 *
 * Against a daemon that runs, as tests/bench/bench.c.  --dir names a directory on the file system of the daemon's state, for
 * the plain copies.  Printed, never judged.
 */
#include "tests/bench/bench_http.h"

#include "base/cleanup.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTENT_BYTES (64u * 1024 * 1024)
#define TOUCHED	      4u
#define CONTENT_WARM  10u /* rounds before any is counted: see touch_memory() */
#define MANY_BOXES    50u
#define MANY_COMMANDS 200u
#define AT_ONCE	      16u

static struct bench_target target = {.host = "127.0.0.1", .key = ""};
static const char *image = "host";
static const char *shell = "bash"; /* which one runs the commands of that image */
static const char *floor_program;  /* NULL: that row is left out */

/* ---- series ---- */

struct series {
	const char *name, *aim;
	double at[4096];
	size_t n;
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void add(struct series *s, double value)
{
	if (s->n < ARRAY_SIZE(s->at))
		s->at[s->n++] = value;
}

static void print(struct series *s)
{
	if (!s->n) {
		printf("%-46s not measured\n", s->name);
		return;
	}
	qsort(s->at, s->n, sizeof(s->at[0]), by_value);
	printf("%-46s p50 %8.2f  p99 %8.2f ms  (%zu; aim %s)\n", s->name, s->at[s->n / 2], s->at[s->n * 99 / 100], s->n, s->aim);
	fflush(stdout);
}

static double ms_since(uint64_t start_usec)
{
	return (double)(mono_usec() - start_usec) / 1000;
}

/* ---- sandboxes and commands ---- */

static bool create(struct bench_conn *c, char id[UUID_SIZE])
{
	char body[512];
	struct bench_answer a;

	snprintf(body, sizeof(body),
		 "{\"image\":{\"uri\":\"%s\"},\"entrypoint\":[\"sleep\",\"100000\"],\"timeout\":3600,"
		 "\"resourceLimits\":{\"cpu\":\"2\",\"memory\":\"512Mi\"}}", image);
	a.status = 0;
	if (!bench_request(c, "POST", "/v1/sandboxes", body, &a) && a.status == 202 && !bench_json_string(&a, "id", id, UUID_SIZE))
		return true;
	fprintf(stderr, "bench_streams: no sandbox of image %s: status %d\n", image, a.status);
	return false;
}

static void delete(struct bench_conn *c, const char *id)
{
	char path[128];
	struct bench_answer a;

	snprintf(path, sizeof(path), "/v1/sandboxes/%s", id);
	if (bench_request(c, "DELETE", path, NULL, &a) < 0)
		fprintf(stderr, "bench: delete: %s\n", strerror(errno));
}

static int send_true(struct bench_conn *c, const char *id)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/sandboxes/%s/proxy/44772/command", id);
	return bench_send(c, "POST", path, "{\"command\":\"true\"}");
}

static bool receive_true(struct bench_conn *c)
{
	struct bench_answer a;

	return !bench_receive(c, &a) && a.status == 200 && a.completed;
}

static int dial(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(target.port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || inet_pton(AF_INET, target.host, &at.sin_addr) != 1 || connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		close_keep_errno(fd);
		return -1;
	}
	ignore_result(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))); /* else it is only slower */
	/* a host whose default paces (bbr) would have this client wait for a timer for each 64 KiB that it sends to itself */
	ignore_result(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5)); /* else it is only slower */
	return fd;
}

static bool write_all(int fd, const char *data, size_t n)
{
	while (n) {
		ssize_t r = write(fd, data, n);

		if (r <= 0)
			return false;
		data += r;
		n -= (size_t)r;
	}
	return true;
}

static void measure_floor(struct bench_conn *c, const char *id);

/* One of the clients of measure_rate(): what it takes from the two processors is not there for the daemon, so it does little. */
struct rater {
	int fd;
	size_t have;
	char in[4096];
};

/* Return: 1 with a whole answer to a command that went well, 0 when more is to come, -1 for anything else. */
static int rater_read(struct rater *r)
{
	static const char end[] = "\r\n0\r\n\r\n", good[] = "HTTP/1.1 200 ", complete[] = "\"execution_complete\"";
	ssize_t n = recv(r->fd, r->in + r->have, sizeof(r->in) - r->have, 0);

	if (n <= 0)
		return -1;
	r->have += (size_t)n;
	if (r->have < sizeof(end) - 1 || memcmp(r->in + r->have - (sizeof(end) - 1), end, sizeof(end) - 1) != 0)
		return r->have < sizeof(r->in) ? 0 : -1;
	bool well = !memcmp(r->in, good, sizeof(good) - 1) && memmem(r->in, r->have, complete, sizeof(complete) - 1);
	r->have = 0;
	return well ? 1 : -1;
}

static bool run_raters(const char *id, unsigned seconds, unsigned *ret_total, double *ret_spent)
{
	static const char body[] = "{\"command\":\"true\"}";
	static struct rater rater[AT_ONCE];
	struct pollfd fds[AT_ONCE];
	char request[512];
	unsigned live = 0;
	bool good = true;
	int n = snprintf(request, sizeof(request),
			 "POST /v1/sandboxes/%s/proxy/44772/command HTTP/1.1\r\nHost: localhost\r\nOPEN-SANDBOX-API-KEY: %s\r\n"
			 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			 id, target.key, sizeof(body) - 1, body);

	*ret_total = 0;
	for (unsigned i = 0; i < AT_ONCE; i++) {
		rater[i] = (struct rater){.fd = dial()};
		fds[i] = (struct pollfd){.fd = rater[i].fd, .events = POLLIN};
		good = good && rater[i].fd >= 0;
	}
	uint64_t start = mono_usec(), end = start + seconds * 1000000ull;
	for (unsigned i = 0; i < AT_ONCE && good; i++, live++)
		good = write_all(rater[i].fd, request, (size_t)n);
	while (good && live && poll(fds, AT_ONCE, 30000) > 0)
		for (unsigned i = 0; i < AT_ONCE && good; i++) {
			int got = fds[i].revents ? rater_read(&rater[i]) : 0;

			*ret_total += got > 0;
			good = got >= 0;
			if (got > 0 && mono_usec() < end) {
				good = write_all(rater[i].fd, request, (size_t)n);
			} else if (got > 0) {
				fds[i].fd = -1;
				live--;
			}
		}
	*ret_spent = ms_since(start) / 1000;
	for (unsigned i = 0; i < AT_ONCE; i++)
		close_keep_errno(rater[i].fd);
	return good && !live;
}

/* Sixteen clients, each with one command under way at any time. */
static void measure_rate(struct bench_conn *c, unsigned seconds)
{
	char id[UUID_SIZE];
	unsigned total;
	double spent;

	if (!create(c, id))
		return;
	bool good = run_raters(id, seconds, &total, &spent);
	if (good)
		printf("commands, 16 at once in one sandbox (%s) %*s %.0f/s  (aim %s)\n", shell, 6 - (int)strlen(shell), "", total / spent,
		       strcmp(shell, "bash") ? "1,800 with sh" : "1,000 with bash");
	else
		printf("commands, 16 at once in one sandbox (%s): a command failed\n", shell);
	fflush(stdout);
	if (floor_program)
		measure_floor(c, id);
	delete (c, id);
}

static void measure_many(struct bench_conn *c, unsigned rounds)
{
	static struct series all = {.name = "200 `true` at once in 50 sandboxes, all done", .aim = "250"};
	static char id[MANY_BOXES][UUID_SIZE];
	struct bench_conn *conn[MANY_COMMANDS] = {0};
	unsigned boxes = 0, lost = 0;

	while (boxes < MANY_BOXES && create(c, id[boxes]))
		boxes++;
	for (unsigned i = 0; i < MANY_COMMANDS; i++)
		conn[i] = bench_connect(&target);
	for (unsigned round = 0; boxes == MANY_BOXES && round < rounds + 1; round++) {
		uint64_t start = mono_usec();

		for (unsigned i = 0; i < MANY_COMMANDS; i++)
			lost += conn[i] ? send_true(conn[i], id[i % MANY_BOXES]) < 0 : 1;
		for (unsigned i = 0; i < MANY_COMMANDS; i++)
			lost += !conn[i] || !receive_true(conn[i]);
		if (round) /* the first one opens the channels */
			add(&all, ms_since(start));
	}
	for (unsigned i = 0; i < MANY_COMMANDS; i++)
		bench_close(conn[i]);
	while (boxes)
		delete (c, id[--boxes]);
	print(&all);
	printf("%-46s %u\n", "  of them lost", lost);
}

/* ---- content ---- */

/* Reads a head and @body bytes (or to the end of a body without content).  Return: the status, 0 on failure. */
static int read_answer(int fd, size_t body)
{
	static char in[256 * 1024];
	size_t have = 0;
	char *end = NULL;

	while (!end) {
		ssize_t n = read(fd, in + have, sizeof(in) - 1 - have);

		if (n <= 0)
			return 0;
		have += (size_t)n;
		in[have] = '\0';
		end = memmem(in, have, "\r\n\r\n", 4);
	}
	int status = have > 12 ? (in[9] - '0') * 100 + (in[10] - '0') * 10 + (in[11] - '0') : 0;
	for (size_t got = have - (size_t)(end + 4 - in); got < body;) {
		ssize_t n = read(fd, in, sizeof(in));

		if (n <= 0)
			return 0;
		got += (size_t)n;
	}
	return status;
}

static bool upload(int fd, const char *id, const char *content, size_t n)
{
	char head[512], parts[512];
	static const char tail[] = "\r\n--bench--\r\n";
	int parts_len = snprintf(parts, sizeof(parts),
				 "--bench\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"metadata\"\r\n"
				 "Content-Type: application/json\r\n\r\n{\"path\":\"/bench.bin\"}\r\n"
				 "--bench\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n");
	int head_len = snprintf(head, sizeof(head),
				"POST /v1/sandboxes/%s/proxy/44772/files/upload HTTP/1.1\r\nHost: localhost\r\nOPEN-SANDBOX-API-KEY: %s\r\n"
				"Content-Type: multipart/form-data; boundary=bench\r\nContent-Length: %zu\r\n\r\n",
				id, target.key, (size_t)parts_len + n + sizeof(tail) - 1);

	return write_all(fd, head, (size_t)head_len) && write_all(fd, parts, (size_t)parts_len) && write_all(fd, content, n) &&
	       write_all(fd, tail, sizeof(tail) - 1) && read_answer(fd, 0) == 200;
}

/* What the processors and the kernel give for the same processes in the same sandbox, without any protocol: see floor.c. */
static void measure_floor(struct bench_conn *c, const char *id)
{
	char path[128], body[128];
	struct bench_answer a;
	struct stat st;
	auto_fd program = open(floor_program, O_RDONLY | O_CLOEXEC), fd = dial();

	if (program < 0 || fd < 0 || fstat(program, &st) < 0)
		return;
	char *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, program, 0);
	bool there = bytes != MAP_FAILED && upload(fd, id, bytes, (size_t)st.st_size);
	if (bytes != MAP_FAILED)
		munmap(bytes, (size_t)st.st_size);
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/proxy/44772/files/permissions", id);
	if (!there || bench_request(c, "POST", path, "{\"/bench.bin\":{\"mode\":755}}", &a) < 0 || a.status != 200)
		return;
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/proxy/44772/command", id);
	snprintf(body, sizeof(body), "{\"command\":\"exec /bench.bin %s %u 3\"}", shell, AT_ONCE);
	if (bench_request(c, "POST", path, body, &a) < 0 || !a.completed)
		return;
	char *text = strstr(a.body, "\"text\":\"rate ");
	if (text)
		printf("  of `%s -c true` alone, without any protocol %*s %.0f/s  (the floor)\n", shell, 4 - (int)strlen(shell), "",
		       strtod(text + strlen("\"text\":\"rate "), NULL));
	fflush(stdout);
}

static bool download(int fd, const char *id, size_t n)
{
	char head[512];
	int len = snprintf(head, sizeof(head),
			   "GET /v1/sandboxes/%s/proxy/44772/files/download?path=/bench.bin HTTP/1.1\r\nHost: localhost\r\n"
			   "OPEN-SANDBOX-API-KEY: %s\r\n\r\n", id, target.key);

	return write_all(fd, head, (size_t)len) && read_answer(fd, n) == 200;
}

/* From memory into a file, as an upload ends; and from the file into memory. */
static void plain_copy(const char *dir, const char *content, size_t n, struct series *to, struct series *from)
{
	static char back[256 * 1024];
	char path[4096];

	snprintf(path, sizeof(path), "%s/bench.copy", dir);
	uint64_t start = mono_usec();
	auto_fd fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	for (size_t at = 0; at < n; at += sizeof(back)) /* in the pieces in which anything arrives */
		if (!write_all(fd, content + at, sizeof(back)))
			break;
	add(to, ms_since(start));
	start = mono_usec();
	for (off_t at = 0; pread(fd, back, sizeof(back), at) > 0; at += (off_t)sizeof(back))
		;
	add(from, ms_since(start));
	unlink(path);
}

/*
 * What the machine takes for as much memory as an upload needs.  A virtual machine that gives its free memory back to the
 * host (a balloon with free page reporting) gets it again page by page when it is touched: that has been thirty times what
 * it takes for memory that was in use a moment ago, and no upload can be faster.  Hence also the rounds that are not counted.
 * Each piece is held until the end, so that no round gets what was touched here.
 */
static void touch_memory(struct series *to, char *held[TOUCHED])
{
	for (unsigned i = 0; i < TOUCHED; i++) {
		uint64_t start = mono_usec();

		held[i] = mmap(NULL, CONTENT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (held[i] != MAP_FAILED)
			add(to, ms_since(start));
	}
}

static void measure_content(struct bench_conn *c, const char *dir, unsigned rounds)
{
	static struct series up = {.name = "upload of 64 MiB", .aim = "40"}, down = {.name = "download of 64 MiB", .aim = "21"},
			     copy = {.name = "  beside it: into a file, plainly", .aim = "-"},
			     back = {.name = "  beside it: out of the file, plainly", .aim = "-"},
			     touched = {.name = "  beside it: 64 MiB of memory touched first", .aim = "-"},
			     small = {.name = "upload of 1 KiB", .aim = "-"};
	char id[UUID_SIZE], *held[TOUCHED];
	char *content = mmap(NULL, CONTENT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (content == MAP_FAILED || !create(c, id))
		return;
	for (size_t i = 0; i < CONTENT_BYTES; i++)
		content[i] = (char)(i * 2654435761u >> 13);
	touch_memory(&touched, held);
	auto_fd fd = dial();
	for (unsigned i = 0; fd >= 0 && i < rounds + CONTENT_WARM; i++) {
		if (i == CONTENT_WARM)
			up.n = down.n = copy.n = back.n = 0;
		uint64_t start = mono_usec();

		if (!upload(fd, id, content, CONTENT_BYTES))
			break;
		add(&up, ms_since(start));
		start = mono_usec();
		if (!download(fd, id, CONTENT_BYTES))
			break;
		add(&down, ms_since(start));
		plain_copy(dir, content, CONTENT_BYTES, &copy, &back);
	}
	for (unsigned i = 0; fd >= 0 && i < rounds * 10; i++) {
		uint64_t start = mono_usec();

		if (!upload(fd, id, content, 1024))
			break;
		add(&small, ms_since(start));
	}
	delete (c, id);
	munmap(content, CONTENT_BYTES);
	for (unsigned i = 0; i < TOUCHED; i++)
		if (held[i] != MAP_FAILED)
			munmap(held[i], CONTENT_BYTES);
	print(&up);
	print(&copy);
	print(&down);
	print(&back);
	print(&touched);
	print(&small);
}

/* ---- terminals ---- */

static bool send_frame(int fd, const char *data, size_t n)
{
	char frame[140] = {(char)0x82, (char)(0x80 | (n + 1))};

	/* binary, masked with zeros; a 0 byte in front says that it is input */
	memcpy(frame + 7, data, n);
	return n < 100 && write_all(fd, frame, 7 + n);
}

static bool wait_for(int fd, const char *text)
{
	static char in[65536];
	size_t have = 0;

	for (;;) {
		ssize_t n = read(fd, in + have, sizeof(in) - have);

		if (n <= 0)
			return false;
		have += (size_t)n;
		if (memmem(in, have, text, strlen(text)))
			return true;
		if (have == sizeof(in))
			have = 0;
	}
}

static void measure_terminal(struct bench_conn *c, unsigned rounds)
{
	static struct series echo = {.name = "terminal: a key until its echo", .aim = "-"};
	char id[UUID_SIZE], path[128], session[UUID_SIZE], head[512], key[2] = "a";
	struct bench_answer a;

	if (!create(c, id))
		return;
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/proxy/44772/pty", id);
	auto_fd fd = dial();
	if (fd < 0 || bench_request(c, "POST", path, "{\"command\":\"cat >/dev/null\"}", &a) < 0 ||
	    bench_json_string(&a, "session_id", session, sizeof(session)))
		return;
	int len = snprintf(head, sizeof(head),
			   "GET %s/%s/ws HTTP/1.1\r\nHost: localhost\r\nOPEN-SANDBOX-API-KEY: %s\r\nConnection: Upgrade\r\n"
			   "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
			   path, session, target.key);
	bool good = write_all(fd, head, (size_t)len) && wait_for(fd, "connected");
	for (unsigned i = 0; good && i < rounds; i++) {
		uint64_t start = mono_usec();

		key[0] = (char)('a' + i % 26);
		good = send_frame(fd, i % 60 == 59 ? "\r" : key, 1) && wait_for(fd, i % 60 == 59 ? "\n" : key);
		if (good)
			add(&echo, ms_since(start));
	}
	delete (c, id);
	print(&echo);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"host", required_argument, NULL, 'h'},	  {"port", required_argument, NULL, 'p'},
						{"key", required_argument, NULL, 'k'},	  {"image", required_argument, NULL, 'I'},
						{"dir", required_argument, NULL, 'd'},	  {"rounds", required_argument, NULL, 'r'},
						{"seconds", required_argument, NULL, 's'}, {"only", required_argument, NULL, 'o'},
						{"shell", required_argument, NULL, 'S'}, {"floor", required_argument, NULL, 'f'},
						{NULL, 0, NULL, 0}};
	uint32_t port = 8080, rounds = 20, seconds = 5;
	const char *dir = "/var/tmp", *only = "ctrm"; /* first letters of: content, terminal, rate, many */
	int bad = 0;

	signal(SIGPIPE, SIG_IGN);
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1 && !bad;) {
		switch (o) {
		case 'h':
			target.host = optarg;
			break;
		case 'p':
			bad = num_u32(optarg, strlen(optarg), 65535, &port);
			break;
		case 'k':
			target.key = optarg;
			break;
		case 'I':
			image = optarg;
			break;
		case 'd':
			dir = optarg;
			break;
		case 'o':
			only = optarg;
			break;
		case 'S':
			shell = optarg;
			break;
		case 'f':
			floor_program = optarg;
			break;
		case 'r':
			bad = num_u32(optarg, strlen(optarg), 400, &rounds);
			break;
		case 's':
			bad = num_u32(optarg, strlen(optarg), 3600, &seconds);
			break;
		default:
			bad = 1;
		}
	}
	if (bad) {
		fprintf(stderr, "usage: bench_streams [--host ADDR] [--port N] [--key KEY] [--image NAME] [--dir DIR] [--rounds N] [--seconds N] [--only ROWS] [--shell NAME] [--floor PROGRAM]\n");
		return 2;
	}
	target.port = (uint16_t)port;
	struct bench_conn *c = bench_connect(&target);
	if (!c) {
		fprintf(stderr, "bench_streams: no connection to %s:%u: %s\n", target.host, port, strerror(errno));
		return 1;
	}
	if (strchr(only, 'c'))
		measure_content(c, dir, rounds);
	if (strchr(only, 't'))
		measure_terminal(c, rounds * 20);
	if (strchr(only, 'r'))
		measure_rate(c, seconds);
	if (strchr(only, 'm'))
		measure_many(c, rounds);
	bench_close(c);
	return 0;
}
