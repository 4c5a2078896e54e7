// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/bench_http.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/http1.h"
#include "base/jv.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct bench_conn {
	struct bench_target target;
	int fd;
	uint64_t sent_usec;
	struct buf in;	 /* bytes as they came */
	struct buf body; /* of the current answer */
};

struct bench_conn *bench_connect(const struct bench_target *target)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(target->port)};
	struct bench_conn *c = calloc(1, sizeof(*c));
	int one = 1;

	if (!c)
		return NULL;
	c->target = *target;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (inet_pton(AF_INET, target->host, &to.sin_addr) != 1 || c->fd < 0 ||
	    connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		bench_close(c);
		return NULL;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return c;
}

void bench_close(struct bench_conn *c)
{
	if (!c)
		return;
	close_keep_errno(c->fd);
	buf_free(&c->in);
	buf_free(&c->body);
	free(c);
}

int bench_send(struct bench_conn *c, const char *method, const char *path, const char *body)
{
	auto_buf out = {0};
	size_t n = body ? strlen(body) : 0;

	buf_printf(&out, "%s %s HTTP/1.1\r\nHost: %s:%u\r\n", method, path, c->target.host, c->target.port);
	if (*c->target.key)
		buf_printf(&out, "OPEN-SANDBOX-API-KEY: %s\r\n", c->target.key);
	if (body)
		buf_printf(&out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", n);
	buf_printf(&out, "\r\n%s", body ? body : "");
	if (out.failed)
		return -ENOMEM;
	c->sent_usec = mono_usec();
	for (size_t done = 0; done < buf_used(&out);) {
		ssize_t r = send(c->fd, buf_peek(&out) + done, buf_used(&out) - done, MSG_NOSIGNAL);
		if (r < 0)
			return -errno;
		done += (size_t)r;
	}
	return 0;
}

static int read_more(struct bench_conn *c)
{
	char *to = buf_reserve(&c->in, 65536);
	ssize_t r = to ? recv(c->fd, to, 65536, 0) : -1;

	if (!to)
		return -ENOMEM;
	if (r <= 0)
		return r < 0 ? -errno : -ECONNRESET;
	buf_commit(&c->in, (size_t)r);
	return 0;
}

/* Looks at the events that became whole lines since the last call. */
static void note_events(struct bench_conn *c, size_t *seen, struct bench_answer *ret)
{
	const char *text = buf_used(&c->body) ? buf_peek(&c->body) : "";

	for (const char *end; (end = memchr(text + *seen, '\n', buf_used(&c->body) - *seen));) {
		size_t n = (size_t)(end - text) - *seen;
		auto_jv event = n ? jv_parse(text + *seen, n, NULL) : NULL;
		const char *type = jv_str(jv_get(event, "type"));
		*seen += n + 1;
		if (!type)
			continue;
		if (!strcmp(type, "stdout") && ret->first_output_ms <= 0)
			ret->first_output_ms = (double)(mono_usec() - c->sent_usec) / 1000.0;
		if (!strcmp(type, "execution_complete"))
			ret->completed = true;
	}
}

static int read_head(struct bench_conn *c, struct http1_head *head)
{
	struct http1_scan scan = {0};
	enum http1_result r;

	while ((r = http1_scan(&scan, buf_used(&c->in) ? buf_peek(&c->in) : "", buf_used(&c->in))) == HTTP1_MORE) {
		int e = read_more(c);
		if (e)
			return e;
	}
	if (r == HTTP1_OK)
		r = http1_response(head, buf_peek(&c->in), scan.head_bytes);
	if (r != HTTP1_OK)
		return -EPROTO;
	buf_consume(&c->in, scan.head_bytes);
	return 0;
}

int bench_receive(struct bench_conn *c, struct bench_answer *ret)
{
	struct http1_head head;
	struct http1_body body;
	size_t seen = 0;
	int e = read_head(c, &head);

	if (e)
		return e;
	*ret = (struct bench_answer){.status = head.status};
	http1_body_of_response(&body, &head, false);
	buf_clear(&c->body);
	for (enum http1_result r = body.kind == HTTP1_BODY_NONE ? HTTP1_DONE : HTTP1_MORE; r != HTTP1_DONE;) {
		struct http1_span piece = {0, 0};
		size_t used = 0;

		r = http1_body_next(&body, buf_used(&c->in) ? buf_peek(&c->in) : "", buf_used(&c->in), &used, &piece);
		if (piece.len) {
			buf_append(&c->body, buf_peek(&c->in) + piece.off, piece.len);
			note_events(c, &seen, ret);
		}
		buf_consume(&c->in, used);
		if (r == HTTP1_MORE && (e = read_more(c)) != 0)
			return e;
		if (r != HTTP1_OK && r != HTTP1_MORE && r != HTTP1_DONE)
			return -EPROTO;
	}
	ret->body_bytes = buf_used(&c->body);
	ret->body = buf_str(&c->body);
	return ret->body ? 0 : -ENOMEM;
}

int bench_request(struct bench_conn *c, const char *method, const char *path, const char *body, struct bench_answer *ret)
{
	int e = bench_send(c, method, path, body);

	return e ? e : bench_receive(c, ret);
}

int bench_json_string(const struct bench_answer *a, const char *key, char *out, size_t size)
{
	auto_jv root = jv_parse(a->body, a->body_bytes, NULL);
	const char *text = jv_str(jv_get(root, key));

	if (!text || strlen(text) >= size)
		return -EINVAL;
	snprintf(out, size, "%s", text);
	return 0;
}

/* The number behind "@label" in a /proc file of "Label:   N kB" lines. */
static uint64_t proc_kb(const char *path, const char *label)
{
	char line[256];
	uint64_t kb = 0;
	auto_file f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, label, strlen(label))) {
			const char *digits = line + strlen(label) + strspn(line + strlen(label), " \t");
			ignore_result(num_u64(digits, strspn(digits, "0123456789"), UINT64_MAX, &kb)); /* stays 0 */
			break;
		}
	return kb;
}

static bool is_agent(const char *pid)
{
	char path[64], name[32] = "";

	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	auto_file f = fopen(path, "re");
	return f && fgets(name, sizeof(name), f) && !strncmp(name, "sandbox-agent", 13);
}

static double group_kernel_kb(void)
{
	return (double)proc_kb("/proc/meminfo", "SUnreclaim:") + (double)proc_kb("/proc/meminfo", "Percpu:");
}

double bench_memory_group_kb(void)
{
	enum { GROUPS = 128 };
	char name[64];
	int made = 0;
	double before = group_kernel_kb(), after;
	auto_fd top = open("/sys/fs/cgroup/memory", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (top < 0)
		replace_fd(&top, open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (; made < GROUPS; made++) {
		snprintf(name, sizeof(name), "sandboxd-bench.%d.%d", getpid(), made);
		if (mkdirat(top, name, 0755) < 0)
			break;
	}
	after = group_kernel_kb();
	for (int i = 0; i < made; i++) {
		snprintf(name, sizeof(name), "sandboxd-bench.%d.%d", getpid(), i);
		ignore_result(unlinkat(top, name, AT_REMOVEDIR) < 0);
	}
	return made == GROUPS ? (after - before) / GROUPS : -1;
}

void bench_memory_read(const char *pids, struct bench_memory *ret)
{
	char path[64];
	auto_dir proc = opendir("/proc");

	*ret = (struct bench_memory){.available_kb = proc_kb("/proc/meminfo", "MemAvailable:")};
	for (struct dirent *e; proc && (e = readdir(proc));) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9' || !is_agent(e->d_name))
			continue;
		ret->n_agents++;
		snprintf(path, sizeof(path), "/proc/%.20s/smaps_rollup", e->d_name);
		ret->agents_pss_kb += proc_kb(path, "Pss:");
	}
	for (const char *p = pids; *p;) {
		size_t n = strcspn(p, ",");
		snprintf(path, sizeof(path), "/proc/%.*s/smaps_rollup", (int)(n < 20 ? n : 20), p);
		ret->daemons_pss_kb += proc_kb(path, "Pss:");
		p += n + (p[n] == ',');
	}
}
