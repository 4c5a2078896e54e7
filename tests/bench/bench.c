// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: `make bench`: what a client waits for, measured over HTTP against a running daemon, and the same work of peers in
 * alternation in the same run.  Prints p50 and p99 of every path beside the aim; it never passes or fails.
 *
 * One keep-alive connection, one write a request, answers read to their exact end; nothing is subtracted.
 */
#include "tests/bench/bench_http.h"
#include "tests/bench/bench_peer.h"

#include "base/cleanup.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLES_MAX 20000

struct series {
	const char *name;
	const char *unit;
	const char *aim;
	double value[SAMPLES_MAX];
	size_t n;
};

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void add(struct series *s, double value)
{
	if (s->n < SAMPLES_MAX)
		s->value[s->n++] = value;
}

static double percentile(struct series *s, double p)
{
	if (!s->n)
		return -1;
	qsort(s->value, s->n, sizeof(*s->value), compare_double);
	size_t i = (size_t)(p * (double)(s->n - 1) + 0.5);
	return s->value[i];
}

static double total_ms(const struct series *s)
{
	double sum = 0;

	for (size_t i = 0; i < s->n; i++)
		sum += s->value[i];
	return sum;
}

static void print_series(struct series *s)
{
	if (!s->n) {
		printf("%-52s not measured\n", s->name);
		return;
	}
	printf("%-52s p50 %9.3f  p99 %9.3f %-4s n=%-5zu aim %s\n", s->name, percentile(s, 0.50), percentile(s, 0.99), s->unit, s->n,
	       s->aim);
	fflush(stdout);
}

static double ms_since(uint64_t start_usec)
{
	return (double)(mono_usec() - start_usec) / 1000.0;
}

/* ---- the API calls that are timed ---- */

#define LIMITED ",\"disk\":\"1Gi\""
static char plain_body[512], limited_body[512];
static const char *create_body = plain_body;
static const char create_format[] =
	"{\"image\":{\"uri\":\"%s\"},\"entrypoint\":[\"tail\",\"-f\",\"/dev/null\"],\"timeout\":600,"
	"\"resourceLimits\":{\"cpu\":\"1\",\"memory\":\"256Mi\"%s},\"env\":{},\"metadata\":{\"bench\":\"yes\"}}";

static bool create(struct bench_conn *c, char id[UUID_SIZE])
{
	struct bench_answer a;

	if (bench_request(c, "POST", "/v1/sandboxes", create_body, &a) || a.status != 202) {
		fprintf(stderr, "bench: create answered %d: %.200s\n", a.status, a.body);
		return false;
	}
	return bench_json_string(&a, "id", id, UUID_SIZE) == 0;
}

static bool delete(struct bench_conn *c, const char *id)
{
	char path[256];
	struct bench_answer a;

	snprintf(path, sizeof(path), "/v1/sandboxes/%s", id);
	return bench_request(c, "DELETE", path, NULL, &a) == 0 && a.status == 204;
}

static bool ping(struct bench_conn *c, const char *id)
{
	char path[256];
	struct bench_answer a;

	snprintf(path, sizeof(path), "/sandboxes/%s/proxy/44772/ping", id);
	return bench_request(c, "GET", path, NULL, &a) == 0 && a.status == 200;
}

/* Runs a command; the answer is complete when the stream has closed, @ret_first_ms is when its output arrived. */
static bool command(struct bench_conn *c, const char *id, const char *text, double *ret_first_ms)
{
	char path[256], body[512];
	struct bench_answer a;

	snprintf(path, sizeof(path), "/sandboxes/%s/proxy/44772/command", id);
	snprintf(body, sizeof(body), "{\"command\":\"%s\"}", text);
	if (bench_request(c, "POST", path, body, &a) || a.status != 200)
		return false;
	if (ret_first_ms)
		*ret_first_ms = a.first_output_ms;
	return a.completed;
}

/* ---- the paths ---- */

static struct series create_202 = {.name = "create -> 202", .unit = "ms", .aim = "(part of the next)"};
static struct series create_ping = {.name = "create -> /ping answered", .unit = "ms", .aim = "1.5 (p99 8)"};
static struct series create_first = {.name = "create -> first command result (bash)", .unit = "ms", .aim = "3 (p99 10)"};
static struct series create_cold = {.name = "create -> first command result, pool empty", .unit = "ms", .aim = "5"};
static struct series exec_bash = {.name = "exec true, stream closed (bash)", .unit = "ms", .aim = "1.4 (p99 3)"};
static struct series code_cold = {.name = "code, fresh Python context to its first result", .unit = "ms", .aim = "120"};
static struct series code_warm = {.name = "code, 1+1 in a warm Python context", .unit = "ms", .aim = "1"};
static struct series code_js = {.name = "code, 1+1 in a warm JavaScript context", .unit = "ms", .aim = "(none set)"};
static struct series session_run = {.name = "session, `true`, stream closed", .unit = "ms", .aim = "(none set)"};
static struct series exec_sh = {.name = "exec true, stream closed (sh)", .unit = "ms", .aim = "0.8"};
static struct series delete_204 = {.name = "DELETE answered", .unit = "ms", .aim = "1"};
static struct series burst = {.name = "8 creates at once, all done", .unit = "ms", .aim = "15"};
static struct series sustained = {.name = "  each of these lives", .unit = "ms", .aim = "-"};
static struct series disk_without = {.name = "create -> 202, no disk limit", .unit = "ms", .aim = "(the yardstick)"};
static struct series disk_first = {.name = "disk: create -> first command result", .unit = "ms", .aim = "(not shown)"};
static struct series disk_with = {.name = "create -> 202, disk 1Gi", .unit = "ms", .aim = "1 more (p50)"};
static struct series disk_turns = {.name = "create -> 202, disk 1Gi, every other one", .unit = "ms", .aim = "(none set)"};
static struct series list_50 = {.name = "list of 50", .unit = "ms", .aim = "0.5"};
static struct series get_one = {.name = "GET one, one connection", .unit = "ms", .aim = "0.05 (20,000/s)"};

static void gap(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

/* One create with everything behind it; the gap lets the pool refill, as between the calls of a person or an agent. */
static bool one_life(struct bench_conn *c, unsigned gap_ms, struct series *to_202, struct series *to_ping, struct series *to_first)
{
	char id[UUID_SIZE];
	double first = 0;

	gap(gap_ms);
	uint64_t start = mono_usec();
	if (!create(c, id))
		return false;
	double t202 = ms_since(start);
	bool good = ping(c, id);
	double tping = ms_since(start);
	uint64_t before_command = mono_usec();
	good = good && command(c, id, "echo hello", &first);
	double tfirst = (double)(before_command - start) / 1000.0 + first;
	if (good) {
		if (to_202)
			add(to_202, t202);
		if (to_ping)
			add(to_ping, tping);
		add(to_first, tfirst);
	}
	start = mono_usec();
	if (delete(c, id))
		add(&delete_204, ms_since(start));
	return good;
}

static void measure_lives(struct bench_conn *c, size_t rounds)
{
	for (size_t i = 0; i < rounds && one_life(c, 20, &create_202, &create_ping, &create_first); i++)
		;
	print_series(&create_202);
	print_series(&create_ping);
	print_series(&create_first);
	print_series(&delete_204);
}

/* What the shell itself costs there: bash in the sandbox starts it over and over, with the sandbox's filter, group and files. */
static void measure_floor(struct bench_conn *c, const char *id, struct series *to)
{
	static const char loop[] = "a=$EPOCHREALTIME; for i in {1..20}; do bash -c true; done; b=$EPOCHREALTIME; echo $((${b/./}-${a/./}))";
	char path[256], body[512];
	struct bench_answer a;

	snprintf(path, sizeof(path), "/sandboxes/%s/proxy/44772/command", id);
	snprintf(body, sizeof(body), "{\"command\":\"%s\"}", loop);
	const char *text = bench_request(c, "POST", path, body, &a) || a.status != 200 ? NULL : strstr(a.body, "\"stdout\",\"text\":\"");
	uint32_t usec;

	if (!text)
		return;
	text += strlen("\"stdout\",\"text\":\"");
	if (!num_u32(text, strcspn(text, "\""), UINT32_MAX, &usec))
		add(to, (double)usec / 20 / 1000);
}

static void measure_exec(struct bench_conn *c, size_t rounds)
{
	static struct series bare = {.name = "  beside it: bash starting `bash -c true` inside", .unit = "ms", .aim = "(the floor)"};
	char id[UUID_SIZE];

	if (!create(c, id))
		return;
	for (size_t i = 0; i < rounds; i++) {
		uint64_t start = mono_usec();
		if (!command(c, id, "true", NULL))
			break;
		add(&exec_bash, ms_since(start));
		if (i % 30 == 29)
			measure_floor(c, id, &bare);
	}
	delete (c, id);
	print_series(&exec_bash);
	print_series(&bare);
}

/* Return: the context's id in @context. */
static bool code_context(struct bench_conn *c, const char *id, const char *language, char context[UUID_SIZE])
{
	char path[256], body[128];
	struct bench_answer a;

	snprintf(path, sizeof(path), "/sandboxes/%s/proxy/44772/code/context", id);
	snprintf(body, sizeof(body), "{\"language\":\"%s\"}", language);
	return !bench_request(c, "POST", path, body, &a) && a.status == 200 && !bench_json_string(&a, "id", context, UUID_SIZE);
}

static bool code_cell(struct bench_conn *c, const char *id, const char *context)
{
	char path[256], body[256];
	struct bench_answer a;

	snprintf(path, sizeof(path), "/sandboxes/%s/proxy/44772/code", id);
	snprintf(body, sizeof(body), "{\"code\":\"1+1\",\"context\":{\"id\":\"%s\"}}", context);
	return !bench_request(c, "POST", path, body, &a) && a.status == 200 && a.completed && strstr(a.body, "\"text\":\"2\"");
}

static void code_end(struct bench_conn *c, const char *id, const char *context)
{
	char path[256];
	struct bench_answer a;

	snprintf(path, sizeof(path), "/sandboxes/%s/proxy/44772/code/contexts/%s", id, context);
	if (bench_request(c, "DELETE", path, NULL, &a) || a.status != 200)
		fprintf(stderr, "bench: a context was not deleted\n");
}

static void measure_warm(struct bench_conn *c, const char *id, const char *language, size_t rounds, struct series *s)
{
	char context[UUID_SIZE];

	if (!code_context(c, id, language, context))
		return; /* the image has no such interpreter: "not measured" */
	for (size_t i = 0; i < rounds; i++) {
		uint64_t start = mono_usec();
		if (!code_cell(c, id, context))
			break;
		if (i) /* the first one also loads what the interpreter loads once */
			add(s, ms_since(start));
	}
	code_end(c, id, context);
}

static void measure_code(struct bench_conn *c, size_t rounds)
{
	char id[UUID_SIZE], context[UUID_SIZE], path[256];
	struct bench_answer a;

	if (!create(c, id))
		return;
	for (size_t i = 0; i < rounds / 10 + 1; i++) {
		uint64_t start = mono_usec();
		if (!code_context(c, id, "python", context) || !code_cell(c, id, context))
			break;
		add(&code_cold, ms_since(start));
		code_end(c, id, context);
	}
	measure_warm(c, id, "python", rounds, &code_warm);
	measure_warm(c, id, "javascript", rounds, &code_js);
	snprintf(path, sizeof(path), "/sandboxes/%s/proxy/44772/session", id);
	if (!bench_request(c, "POST", path, "{}", &a) && !bench_json_string(&a, "session_id", context, UUID_SIZE)) {
		snprintf(path, sizeof(path), "/sandboxes/%s/proxy/44772/session/%s/run", id, context);
		for (size_t i = 0; i < rounds; i++) {
			uint64_t start = mono_usec();
			if (bench_request(c, "POST", path, "{\"command\":\"true\"}", &a) || !a.completed)
				break;
			if (i)
				add(&session_run, ms_since(start));
		}
	}
	delete (c, id);
	print_series(&code_cold);
	print_series(&code_warm);
	print_series(&code_js);
	print_series(&session_run);
}

static void measure_burst(struct bench_target *t, size_t rounds)
{
	enum { WIDTH = 8 };
	struct bench_conn *c[WIDTH];
	char id[WIDTH][UUID_SIZE];
	size_t open = 0;

	for (; open < WIDTH; open++)
		if (!(c[open] = bench_connect(t)))
			break;
	for (size_t r = 0; open == WIDTH && r < rounds; r++) {
		struct bench_answer a;
		size_t done = 0;

		gap(60);
		uint64_t start = mono_usec();
		for (size_t i = 0; i < WIDTH; i++)
			if (bench_send(c[i], "POST", "/v1/sandboxes", create_body))
				break;
		for (size_t i = 0; i < WIDTH; i++)
			done += bench_receive(c[i], &a) == 0 && a.status == 202 && !bench_json_string(&a, "id", id[i], UUID_SIZE);
		double took = ms_since(start);
		if (done == WIDTH)
			add(&burst, took);
		for (size_t i = 0; i < WIDTH; i++)
			delete (c[i], id[i]);
	}
	while (open)
		bench_close(c[--open]);
	print_series(&burst);
}

/* Lives behind each other until the time is over; each reports how long it took. */
_Noreturn static void live_on(struct bench_target *t, unsigned seconds, int report)
{
	struct bench_conn *c = bench_connect(t);
	uint64_t end = mono_ms() + (uint64_t)seconds * 1000;
	char id[UUID_SIZE];

	while (c && mono_ms() < end) {
		uint64_t start = mono_usec();
		if (!create(c, id) || !command(c, id, "echo hello", NULL) || !delete (c, id))
			_exit(1);
		double took = ms_since(start);
		if (write(report, &took, sizeof(took)) != (ssize_t)sizeof(took))
			_exit(1);
	}
	_exit(!c);
}

/* Two clients, each create + echo + delete as fast as it goes; the client's own work is on the same processors. */
static void measure_sustained(struct bench_target *t, unsigned seconds)
{
	enum { CLIENTS = 2 };
	int report[2];
	size_t total = 0;
	double one;

	if (!seconds || pipe(report))
		return;
	fflush(stdout);
	for (int k = 0; k < CLIENTS; k++)
		if (fork() == 0)
			live_on(t, seconds, report[1]);
	close(report[1]);
	for (; read(report[0], &one, sizeof(one)) == (ssize_t)sizeof(one); total++)
		add(&sustained, one);
	close(report[0]);
	while (wait(NULL) > 0)
		;
	print_series(&sustained);
	printf("%-52s %.0f/s over %u s, %d clients                    aim 350/s\n", "create + exec + delete, sustained",
	       (double)total / seconds, seconds, CLIENTS);
}

/*
 * Idle is when no child waits for a next command any more, which one does for some seconds behind each command: when the number
 * of the agents' processes has not changed for longer than that.
 */
static void settle(const char *pids, struct bench_memory *ret)
{
	enum { STEP_MS = 200, STILL_MS = 6000, MOST_MS = 30000 };
	uint32_t last = UINT32_MAX;

	for (unsigned ms = 0, still = 0; ms < MOST_MS && still < STILL_MS; ms += STEP_MS, still += STEP_MS) {
		bench_memory_read(pids, ret);
		if (ret->n_agents != last)
			still = 0;
		last = ret->n_agents;
		gap(STEP_MS);
	}
	bench_memory_read(pids, ret);
}

static void measure_many(struct bench_conn *c, size_t n_sandboxes, size_t idle, const char *pids)
{
	char (*id)[UUID_SIZE] = calloc(n_sandboxes + idle, UUID_SIZE);
	char path[128];
	struct bench_answer a;
	struct bench_memory before, after;
	size_t made = 0;

	if (!id)
		return;
	for (; made < n_sandboxes && create(c, id[made]); made++)
		;
	for (size_t i = 0; made == n_sandboxes && i < 300; i++) {
		uint64_t start = mono_usec();
		if (bench_request(c, "GET", "/v1/sandboxes?pageSize=50", NULL, &a) || a.status != 200)
			break;
		add(&list_50, ms_since(start));
	}
	if (made) {
		snprintf(path, sizeof(path), "/v1/sandboxes/%s", id[0]);
		for (size_t i = 0; i < 10000; i++) {
			uint64_t start = mono_usec();
			if (bench_request(c, "GET", path, NULL, &a) || a.status != 200)
				break;
			add(&get_one, ms_since(start));
		}
	}
	print_series(&list_50);
	print_series(&get_one);
	if (get_one.n)
		printf("%-52s %.0f/s, one connection                         aim 20,000/s\n", "GET one",
		       1000.0 * (double)get_one.n / total_ms(&get_one));
	if (idle)
		settle(pids, &before);
	size_t first = made;
	for (; made < first + idle && create(c, id[made]); made++)
		;
	if (made > first) {
		settle(pids, &after);
		double n = (double)(made - first);
		printf("%-52s %.1f kB PSS, %.1f kB kernel (MemAvailable), n=%zu   aim 100 kB, 300 to 580 kB\n", "each idle sandbox",
		       (double)(after.agents_pss_kb - before.agents_pss_kb) / n,
		       ((double)before.available_kb - (double)after.available_kb) / n, made - first);
		double group_kb = bench_memory_group_kb();
		if (group_kb > 0)
			printf("%-52s %.1f kB of it for each memory group (one, or three with cgroup version 2), as this kernel is now\n", "",
			       group_kb);
		printf("%-52s %.1f MiB PSS of our processes                aim 20 MiB\n", "fixed memory", (double)after.daemons_pss_kb / 1024);
	}
	while (made)
		delete (c, id[--made]);
	free(id);
}

/* Kernel memory of @n sandboxes of the body that is set, each; they are gone again then. */
static double idle_kb(struct bench_conn *c, size_t n, const char *pids)
{
	char (*id)[UUID_SIZE] = calloc(n, UUID_SIZE);
	struct bench_memory before, after;
	size_t made = 0;

	if (!id)
		return 0;
	settle(pids, &before);
	for (; made < n && create(c, id[made]); made++)
		;
	settle(pids, &after);
	double each = made ? ((double)before.available_kb - (double)after.available_kb) / (double)made : 0;
	while (made)
		delete (c, id[--made]);
	free(id);
	return each;
}

/* With and without a limit by turns: the machine is the same for both.  Fifty each, since the pool follows what was asked for last. */
static void measure_disk(struct bench_conn *c, size_t rounds, size_t idle, const char *pids)
{
	enum { BLOCK = 50, WARM = 10, GAP_MS = 20 };
	bool good = true;

	for (size_t i = 0; good && i < 2 * rounds; i++) {
		bool limited = i / BLOCK % 2;

		create_body = limited ? limited_body : plain_body;
		struct series *to = i % BLOCK < WARM ? NULL : limited ? &disk_with : &disk_without;
		good = one_life(c, GAP_MS, to, NULL, &disk_first);
	}
	for (size_t i = 0; good && i < rounds; i++) {
		create_body = i % 2 ? limited_body : plain_body;
		good = one_life(c, GAP_MS, i % 2 ? &disk_turns : NULL, NULL, &disk_first);
	}
	print_series(&disk_without);
	print_series(&disk_with);
	print_series(&disk_turns);
	if (good && idle) {
		create_body = plain_body;
		double plain = idle_kb(c, idle, pids);
		create_body = limited_body;
		double limited = idle_kb(c, idle, pids);
		printf("%-52s %.1f kB of the kernel more than without (%.1f, MemAvailable), n=%zu\n", "each idle sandbox with disk 1Gi", limited - plain, plain,
		       idle);
	}
	create_body = plain_body;
}

static void measure_peers(struct bench_conn *c, size_t rounds)
{
	static struct series ours = {.name = "our create + `true` + delete beside peers", .unit = "ms", .aim = "-"};
	static struct series theirs[BENCH_PEER_COUNT];
	char id[UUID_SIZE];

	for (size_t r = 0; r < rounds; r++) {
		gap(20);
		uint64_t start = mono_usec();
		if (!create(c, id) || !command(c, id, "true", NULL))
			return;
		add(&ours, ms_since(start));
		delete (c, id);
		for (enum bench_peer p = 0; p < BENCH_PEER_COUNT; p++) {
			double ms = bench_peer_run(p);
			if (ms >= 0)
				add(&theirs[p], ms);
		}
	}
	print_series(&ours);
	for (enum bench_peer p = 0; p < BENCH_PEER_COUNT; p++) {
		theirs[p].name = bench_peer_name(p);
		theirs[p].unit = "ms";
		theirs[p].aim = "-";
		if (theirs[p].n) {
			print_series(&theirs[p]);
			printf("%-52s %.1f\n", "  ratio of the medians, peer / ours", percentile(&theirs[p], 0.5) / percentile(&ours, 0.5));
		} else {
			printf("%-52s not run: %s\n", bench_peer_name(p), bench_peer_why_not(p));
		}
	}
}

static void usage(void)
{
	fprintf(stderr, "usage: bench --host ADDR --port N --key KEY [--rounds N] [--idle N] [--seconds N] [--pids P,P,...] [--cold] [--sh] [--image NAME] [--only ROWS]\n"
			"Measures a running daemon; tests/bench/run.sh starts one and calls this.\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"host", required_argument, NULL, 'h'},	  {"port", required_argument, NULL, 'p'},
		{"key", required_argument, NULL, 'k'},	  {"rounds", required_argument, NULL, 'r'},
		{"idle", required_argument, NULL, 'i'},	  {"seconds", required_argument, NULL, 's'},
		{"pids", required_argument, NULL, 'P'},	  {"cold", no_argument, NULL, 'c'},
		{"sh", no_argument, NULL, 'S'},		  {"image", required_argument, NULL, 'I'},
		{"only", required_argument, NULL, 'o'},
		{NULL, 0, NULL, 0},
	};
	struct bench_target target = {.host = "127.0.0.1", .port = 8080, .key = ""};
	uint32_t rounds = 300, idle = 200, seconds = 20, port = 8080;
	const char *pids = "";
	const char *image = "host";
	const char *only = "lecbsmdp"; /* first letters of: lives, exec, code, burst, sustained, many, disk, peers */
	bool cold = false, sh = false;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		int bad = 0;
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
		case 'r':
			bad = num_u32(optarg, strlen(optarg), SAMPLES_MAX, &rounds);
			break;
		case 'i':
			bad = num_u32(optarg, strlen(optarg), 2000, &idle);
			break;
		case 's':
			bad = num_u32(optarg, strlen(optarg), 3600, &seconds);
			break;
		case 'P':
			pids = optarg;
			break;
		case 'c':
			cold = true;
			break;
		case 'S':
			sh = true;
			break;
		case 'o':
			only = optarg;
			break;
		case 'I':
			image = optarg;
			break;
		default:
			bad = 1;
		}
		if (bad) {
			usage();
			return 2;
		}
	}
	target.port = (uint16_t)port;
	snprintf(plain_body, sizeof(plain_body), create_format, image, "");
	snprintf(limited_body, sizeof(limited_body), create_format, image, LIMITED);
	struct bench_conn *c = bench_connect(&target);
	if (!c) {
		fprintf(stderr, "bench: no connection to %s:%u: %s\n", target.host, port, strerror(errno));
		return 1;
	}
	if (cold) { /* a daemon with pool.target = 0 */
		for (size_t i = 0; i < rounds && one_life(c, 20, NULL, NULL, &create_cold); i++)
			;
		print_series(&create_cold);
	} else if (sh) { /* a daemon whose image has no bash */
		char id[UUID_SIZE];
		if (!create(c, id))
			return 1;
		for (size_t i = 0; i < rounds; i++) {
			uint64_t start = mono_usec();
			if (!command(c, id, "true", NULL))
				break;
			add(&exec_sh, ms_since(start));
		}
		delete (c, id);
		print_series(&exec_sh);
	} else {
		if (strchr(only, 'l'))
			measure_lives(c, rounds);
		if (strchr(only, 'e'))
			measure_exec(c, rounds * 3);
		if (strchr(only, 'c'))
			measure_code(c, rounds);
		if (strchr(only, 'b'))
			measure_burst(&target, 40);
		if (strchr(only, 's'))
			measure_sustained(&target, seconds);
		if (strchr(only, 'm'))
			measure_many(c, 50, idle, pids);
		if (strchr(only, 'd'))
			measure_disk(c, rounds, idle / 4, pids);
		if (strchr(only, 'p'))
			measure_peers(c, rounds / 3);
	}
	bench_close(c);
	return 0;
}
