// SPDX-License-Identifier: Apache-2.0
#include "tests/tap.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"
#include "base/reaper.h"
#include "base/wallclock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_numbers(void)
{
	static const struct {
		const char *why, *text;
		uint64_t max;
		int want;
		uint64_t value;
	} cases[] = {
		{"plain", "42", 100, 0, 42},
		{"at the bound", "100", 100, 0, 100},
		{"past the bound", "101", 100, -ERANGE, 0},
		{"empty", "", 100, -EINVAL, 0},
		{"sign", "+1", 100, -EINVAL, 0},
		{"minus", "-1", 100, -EINVAL, 0},
		{"space", " 1", 100, -EINVAL, 0},
		{"hex", "0x1", 100, -EINVAL, 0},
		{"largest", "18446744073709551615", UINT64_MAX, 0, UINT64_MAX},
		{"one more wraps", "18446744073709551616", UINT64_MAX, -ERANGE, 0},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t v = 0;
		int r = num_u64(cases[i].text, strlen(cases[i].text), cases[i].max, &v);
		ok(r == cases[i].want && v == cases[i].value, "num_u64: %s", cases[i].why);
	}
}

static void test_printable(void)
{
	static const struct {
		const char *why, *text;
		size_t n;
		const char *want;
	} cases[] = {
		{"plain", "a b~", 4, "a b~"},
		{"control characters and escapes", "a\n\033[2Jb\177", 9, "a??[2Jb?"},
		{"what is not ASCII, octet by octet", "\303\244", 2, "??"},
		{"no more than is given", "abcdef", 3, "abc"},
		{"a NUL ends it", "ab\0cd", 5, "ab"},
		{"no more than there is room for", "0123456789", SIZE_MAX, "01234567"},
		{"nothing", "", SIZE_MAX, ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char out[9], same[16] = "";

		sbx_printable(cases[i].text, cases[i].n, out, sizeof(out));
		ok(!strcmp(out, cases[i].want), "sbx_printable: %s: %s", cases[i].why, out);
		memcpy(same, cases[i].text, strnlen(cases[i].text, cases[i].n));
		sbx_printable(same, SIZE_MAX, same, sizeof(out));
		ok(!strcmp(same, cases[i].want), "and in place");
	}
}

static void test_instants(void)
{
	static const struct {
		const char *why, *text;
		int want;
		const char *again;
	} cases[] = {
		{"zulu", "2030-01-01T00:00:00Z", 0, "2030-01-01T00:00:00Z"},
		{"offset east", "2031-05-04T12:00:00+08:00", 0, "2031-05-04T04:00:00Z"},
		{"milliseconds", "2030-01-01T00:00:00.196Z", 0, "2030-01-01T00:00:00.196000Z"},
		{"nanoseconds are cut", "2030-01-01T00:00:00.123456789Z", 0, "2030-01-01T00:00:00.123456Z"},
		{"naive is UTC", "2030-01-01T00:00:00", 0, "2030-01-01T00:00:00Z"},
		{"date only", "2030-01-01", 0, "2030-01-01T00:00:00Z"},
		{"epoch seconds", "1893456000", 0, "2030-01-01T00:00:00Z"},
		{"leap day", "2028-02-29T00:00:00Z", 0, "2028-02-29T00:00:00Z"},
		{"no leap day", "2027-02-29T00:00:00Z", -EINVAL, NULL},
		{"month 13", "2027-13-01T00:00:00Z", -EINVAL, NULL},
		{"trailing bytes", "2030-01-01T00:00:00Zx", -EINVAL, NULL},
		{"word", "tomorrow at noon", -EINVAL, NULL},
		{"year 0", "0000-01-01T00:00:00Z", -ERANGE, NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[RFC3339_SIZE];
		int64_t usec = 0;
		int r = rfc3339_parse(cases[i].text, strlen(cases[i].text), &usec);
		is_int(r, cases[i].want, "rfc3339_parse: %s", cases[i].why);
		rfc3339_format(usec, text);
		if (cases[i].again)
			is_str(text, cases[i].again, "rfc3339_format: %s", cases[i].why);
	}
}

static void test_errors(void)
{
	struct sbx_err err = {0};

	is_int(sbx_err_set(&err, SBX_E_SYSTEM, ENOENT, "open %s", "/x"), -1, "sbx_err_set returns -1");
	sbx_err_wrap(&err, "create %d", 7);
	is_str(err.msg, "create 7: open /x: No such file or directory", "context stands in front");
	for (int c = 1; c < SBX_E_COUNT; c++) {
		enum sbx_err_code code = (enum sbx_err_code)c;
		ok(sbx_err_status(code) >= 400 && *sbx_err_api_code(code) && *sbx_err_meaning(code), "row %s is whole",
		   sbx_err_name(code));
	}
}

static void test_buffer(void)
{
	auto_buf b = {.max = 1000};

	for (int i = 0; i < 100; i++) {
		buf_printf(&b, "%d,", i);
		if (i % 3 == 0)
			buf_consume(&b, 2);
	}
	ok(!b.failed, "appending and consuming stays below the bound");
	for (int i = 0; i < 1000 && !b.failed; i++)
		buf_puts(&b, "0123456789");
	ok(b.failed && buf_used(&b) <= 1000, "the bound holds and is said");
}

static void test_ids(void)
{
	uint8_t id[16], again[16];
	char text[UUID_SIZE];

	uuid_random(id);
	uuid_format(id, text);
	ok(uuid_parse(text, again) == 0 && !memcmp(id, again, 16), "an id survives its text %s", text);
	ok(uuid_parse("6f0c1f7e-2b0d-4a53-9c1e-0c6f5d1b2a9", again) < 0, "one digit short");
	ok(uuid_parse("6f0c1f7e+2b0d-4a53-9c1e-0c6f5d1b2a90", again) < 0, "another sign");
}

struct seen {
	struct loop *loop;
	struct loop_timer *timers[3];
	int order[8], n;
	struct loop_fd *source;
};

static void on_timer(void *arg)
{
	struct seen *s = arg;

	s->order[s->n++] = 1;
	loop_timer_disarm(s->timers[1]); /* disarming another from a handler */
}

static void on_second(void *arg)
{
	struct seen *s = arg;

	s->order[s->n++] = 2;
}

static void on_last(void *arg)
{
	struct seen *s = arg;

	s->order[s->n++] = 3;
	loop_quit(s->loop, 5);
}

static void on_fd(void *arg, int fd, uint32_t events)
{
	struct seen *s = arg;
	char c;

	(void)events;
	ignore_result(read(fd, &c, 1) < 0); /* the test only counts the call */
	s->order[s->n++] = 9;
	loop_fd_remove(s->source);
}

static void test_loop(void)
{
	struct seen s = {.loop = loop_new(NULL)};
	int pipe_fd[2];

	if (!ok(s.loop && pipe(pipe_fd) == 0, "a loop"))
		return;
	s.timers[0] = loop_timer_new(s.loop, on_timer, &s);
	s.timers[1] = loop_timer_new(s.loop, on_second, &s);
	s.timers[2] = loop_timer_new(s.loop, on_last, &s);
	s.source = loop_fd_add(s.loop, pipe_fd[0], EPOLLIN, on_fd, &s);
	loop_timer_arm(s.timers[2], 30);
	loop_timer_arm(s.timers[1], 20);
	loop_timer_arm(s.timers[0], 5);
	ok(write(pipe_fd[1], "xy", 2) == 2, "two bytes wait");
	is_int(loop_run(s.loop), 5, "loop_run returns the code of loop_quit");
	ok(s.n == 3 && s.order[0] == 9 && s.order[1] == 1 && s.order[2] == 3,
	   "removed source and disarmed timer stay silent, the rest come in order");
	for (int i = 0; i < 3; i++)
		loop_timer_free(s.timers[i]);
	loop_free(s.loop);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

static void on_idle(void *arg)
{
	++*(int *)arg;
}

/* A child that does not end by itself. */
static pid_t start_child(int *ret_pidfd)
{
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, ret_pidfd, NULL, 0);

	if (pid == 0)
		for (;;)
			pause();
	return (pid_t)pid;
}

static void test_reaper(void)
{
	struct loop *loop = loop_new(NULL);
	int idle = 0, pidfd[3] = {-1, -1, -1};
	struct reaper *r = reaper_new(loop, on_idle, &idle, NULL);
	pid_t pid[3];

	if (!ok(loop && r, "a reaper"))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(pid); i++)
		pid[i] = start_child(&pidfd[i]);
	ok(!reaper_busy(r), "nobody dies yet");
	reaper_kill(r, pidfd[0]);
	reaper_kill(r, pidfd[1]);
	ok(reaper_busy(r) && !idle, "killing does not wait");
	for (int i = 0; i < 100 && reaper_busy(r); i++)
		ignore_result(loop_once(loop, 1000) < 0); /* the loop's own error would show as a reaper that stays busy */
	is_int(idle, 1, "told once, when the last is gone");
	ok(waitpid(pid[0], NULL, WNOHANG) < 0 && errno == ECHILD && waitpid(pid[1], NULL, WNOHANG) < 0 && errno == ECHILD, "both are reaped");
	reaper_kill(r, pidfd[2]);
	reaper_free(r);
	is_int(idle, 1, "a reaper that is gone tells nothing");
	ok(waitpid(pid[2], NULL, 0) == pid[2] || errno == ECHILD, "and what it killed has died");
	loop_free(loop);
}

/* Lines of @text with @what in them; what is left out of them is added to *ret_left_out. */
static unsigned lines_with(const char *text, const char *what, uint64_t *ret_left_out)
{
	unsigned n = 0;

	for (const char *line = text; *line;) {
		size_t len = strcspn(line, "\n");
		const char *start = strstr(line, "test: "), *more = strstr(line, " more such lines were left out, the last one: ");
		uint64_t left = 0;

		if (more && more < line + len && start && num_u64(start + 6, (size_t)(more - start - 6), UINT64_MAX, &left) == 0)
			*ret_left_out += left;
		else
			n += memmem(line, len, what, strlen(what)) != NULL;
		line += len + (line[len] == '\n');
	}
	return n;
}

/* @crowd sandboxes of which one line is written a thousand times each; Return: how many of those lines, and of others after them, came. */
static unsigned lines_of_crowd(unsigned crowd, unsigned *ret_other)
{
	static char text[1u << 20];
	int file = memfd_create("log", MFD_CLOEXEC), stderr_fd = dup(STDERR_FILENO);

	*ret_other = 0;
	if (file < 0 || stderr_fd < 0 || dup2(file, STDERR_FILENO) < 0)
		return 0;
	for (unsigned i = 0; i < crowd * LOG_BURST; i++)
		log_warn("slot %u: crowded", i % crowd);
	log_error("broken: %u", crowd);
	dup2(stderr_fd, STDERR_FILENO);
	close(stderr_fd);
	ssize_t n = pread(file, text, sizeof(text) - 1, 0);
	text[n < 0 ? 0 : n] = '\0';
	close(file);
	*ret_other = lines_with(text, "broken: ", &(uint64_t){0});
	unsigned all = 0;
	for (const char *at = text; (at = strchr(at, '\n')); at++)
		all++;
	return all - *ret_other; /* with what tells of those that were left out */
}

static void test_log_crowd(void)
{
	const unsigned most = LOG_SUBJECTS_BURST + 60 * LOG_SUBJECTS_PER_SECOND; /* a minute: much more than it takes */
	unsigned other;
	unsigned n = lines_of_crowd(60, &other);

	ok(n >= LOG_SUBJECTS_BURST - LOG_BURST - 3 && n < most, "of 18000 lines about 60 slots what all may have together is written: %u", n);
	ok(other == 1, "and what is about none of them still is");
}

static void test_log_bound(void)
{
	/* kinds may share a place with the one that floods, but not all of them */
	static const char *const others[] = {"other a %u", "other b %u", "other c %u", "other d %u", "other e %u", "other f %u", "other g %u", "other h %u"};
	static char text[1u << 20];
	size_t size = 0;
	int pair[2], stderr_fd = dup(STDERR_FILENO);
	uint64_t left_out = 0;

	if (!ok(stderr_fd >= 0 && pipe2(pair, O_NONBLOCK | O_CLOEXEC) == 0 && fcntl(pair[1], F_SETPIPE_SZ, 1 << 20) > 0 && dup2(pair[1], STDERR_FILENO) >= 0, "a log to read"))
		return;
	log_init("test", LOG_LEVEL_INFO);
	/* one sandbox says one thing of itself and of another */
	for (unsigned i = 0; i < 1002; i++)
		log_error("sandbox %s is noisy%s", i == 1000 ? "quiet" : i == 1001 ? "quiet2:" : "loud", i < 1000 ? " and names sandbox quiet" : "");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
		log_warn(others[i], i);
#pragma GCC diagnostic pop
	for (int i = 0; i < 300 && lines_with(text, "loud is noisy", &left_out) + left_out < 1000; i++) {
		poll(NULL, 0, 100);
		log_error("the next one");
		ssize_t n = read(pair[0], text + size, sizeof(text) - 1 - size);
		size += n > 0 ? (size_t)n : 0;
		left_out = 0; /* counted anew, from the first line on */
	}
	log_init("test", LOG_LEVEL_DEBUG);
	for (unsigned i = 0; i < 2 * LOG_BURST; i++)
		log_debug("step %u", i);
	ssize_t n = read(pair[0], text + size, sizeof(text) - 1 - size);
	dup2(stderr_fd, STDERR_FILENO);
	size += n > 0 ? (size_t)n : 0;
	close(stderr_fd);
	close(pair[0]);
	close(pair[1]);
	left_out = 0;
	unsigned noisy = lines_with(text, "loud is noisy", &left_out), other = lines_with(text, "other ", &(uint64_t){0});
	ok(noisy >= LOG_BURST && noisy < 1000, "of 1000 lines of one kind a burst is written: %u", noisy);
	ok(lines_with(text, "sandbox quiet is noisy", &(uint64_t){0}) == 1 && lines_with(text, "sandbox quiet2: is noisy", &(uint64_t){0}) == 1,
	   "the same said of other sandboxes is not held back");
	ok(other >= 1, "what is of another kind is not held back: %u of 8", other);
	ok(left_out >= 1000 - noisy && left_out <= 1000 - noisy + 8, "and what was left out is counted: %llu", (unsigned long long)left_out);
	ok(lines_with(text, "step ", &(uint64_t){0}) == 2 * LOG_BURST, "debug lines are not bounded");
}

int main(void)
{
	test_reaper();
	test_numbers();
	test_printable();
	test_instants();
	test_errors();
	test_buffer();
	test_ids();
	test_loop();
	test_log_bound();
	test_log_crowd();
	return tap_done();
}
