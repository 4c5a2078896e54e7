// SPDX-License-Identifier: Apache-2.0
/* DOC: the exec channel against a well-behaved and against a hostile agent. */
#include "tests/tap.h"
#include "tests/unit/fake_agent.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/wallclock.h"
#include "runtime/agent_client.h"

#include <fcntl.h>
#include <signal.h>

static struct loop *loop;

/* What a stream heard, as text. */
struct heard {
	struct buf text;
	struct agent_stream *stream;
	size_t bytes;
	unsigned n_calls; /* of data */
	size_t longest;	  /* of them */
	bool grant;
	bool over;
	int sink; /* `bulk` splices there at most sink_room bytes; -1: nowhere */
	size_t sink_room, spliced;
};

static void on_started(void *arg, const struct agent_started *started)
{
	struct heard *h = arg;

	buf_printf(&h->text, "started(%u) ", started->pid);
}

static void on_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct heard *h = arg;

	if (n < 16)
		buf_printf(&h->text, "%s(%.*s) ", type == AGENT_STDERR ? "err" : type == AGENT_STDOUT ? "out" : "data", (int)n,
			   (const char *)data);
	h->bytes += n;
	h->n_calls++;
	h->longest = n > h->longest ? n : h->longest;
	if (h->grant)
		agent_stream_grant(h->stream, n);
}

static void on_writable(void *arg)
{
	struct heard *h = arg;

	buf_puts(&h->text, "writable ");
}

static void on_exited(void *arg, const struct agent_exit *result)
{
	struct heard *h = arg;

	buf_printf(&h->text, "exit(%d,%d)", result->code, result->signal);
	h->over = true;
}

static void on_replied(void *arg, const struct agent_command_status *status, const char *text, size_t n)
{
	struct heard *h = arg;

	buf_printf(&h->text, "status(%u,%.*s)", status->running, (int)n, text);
	h->over = true;
}

static void on_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct heard *h = arg;

	buf_printf(&h->text, "end(%u,%.*s)", end->reason, (int)n, text);
	h->over = true;
}

static void on_lost(void *arg, const struct sbx_err *why)
{
	struct heard *h = arg;

	buf_printf(&h->text, "lost(%s)", sbx_err_name(why->code));
	h->over = true;
}

static size_t on_bulk(void *arg, int fd, size_t n)
{
	struct heard *h = arg;
	ssize_t r = 0;

	if (n > h->sink_room)
		n = h->sink_room;
	if (n)
		r = splice(fd, NULL, h->sink, NULL, n, SPLICE_F_NONBLOCK);
	if (r <= 0)
		return 0;
	h->spliced += (size_t)r;
	h->sink_room -= (size_t)r;
	if (h->grant)
		agent_stream_grant(h->stream, (size_t)r);
	return (size_t)r;
}

static const struct agent_stream_ops heard_ops = {.bulk = on_bulk, .started = on_started,
						  .data = on_data,
						  .writable = on_writable,
						  .exited = on_exited,
						  .replied = on_replied,
						  .ended = on_ended,
						  .lost = on_lost};

/* The channel under test. */
struct bench {
	struct fake_agent agent;
	struct agent_client *client;
	char broken[SBX_ERR_MSG_SIZE];
	int n_broken;
	struct buf requests; /* "type/stream/bytes " of what the agent got */
	uint32_t last_stream;
	size_t data_bytes;
};

static void on_request(struct fake_agent *a, const struct agent_frame *head, const uint8_t *payload, size_t n)
{
	struct bench *b = a->arg;

	(void)payload;
	if (head->type == AGENT_DATA || head->type == AGENT_STDIN) {
		b->data_bytes += n;
		return;
	}
	b->last_stream = head->stream;
	buf_printf(&b->requests, "%u/%zu ", head->type, n);
}

static void on_broken(void *arg, const struct sbx_err *why)
{
	struct bench *b = arg;

	b->n_broken++;
	snprintf(b->broken, sizeof(b->broken), "%s", why->msg);
}

static void turn(int times)
{
	while (times--)
		loop_once(loop, 0);
}

static void bench_init_with(struct bench *b, bool bulk)
{
	struct sbx_err err;

	*b = (struct bench){0};
	fake_agent_init(&b->agent, loop, on_request, b);
	if (bulk)
		fake_agent_bulk(&b->agent);
	b->client = agent_client_new(loop, b->agent.gateway_fds, on_broken, b, &err);
	if (!b->client)
		printf("Bail out! %s\n", err.msg);
}

static void bench_init(struct bench *b)
{
	bench_init_with(b, false);
}

static void bench_free(struct bench *b)
{
	agent_client_free(b->client, NULL);
	fake_agent_free(&b->agent);
	buf_free(&b->requests);
	turn(2);
}

static struct agent_stream *open_on(struct bench *b, enum agent_type type, size_t n, struct heard *h)
{
	auto_free char *payload = calloc(1, n + 1);
	struct sbx_err err;

	*h = (struct heard){0};
	h->stream = agent_stream_open(b->client, type, 9, payload, n, &heard_ops, h, &err);
	if (!h->stream)
		buf_printf(&h->text, "refused(%s)", sbx_err_name(err.code));
	turn(4);
	return h->stream;
}

static void heard_is(struct heard *h, const char *want, const char *what)
{
	is_str(buf_str(&h->text), want, "%s", what);
	buf_free(&h->text);
}

/* ---- the ordinary life ---- */

static void ready(void *arg, const struct sbx_err *why)
{
	int *told = arg;

	*told = why ? -1 : 1;
}

static void test_life(void)
{
	struct bench b;
	struct heard h;
	int told = 0;
	struct sbx_err err;

	bench_init(&b);
	ok(!agent_client_attached(b.client), "not attached before the agent said hello");
	ok(agent_client_wait(b.client, ready, &told, &err) == 0 && !told, "a waiter is not told inside the call");
	open_on(&b, AGENT_EXEC, 100, &h);
	ok(agent_client_attached(b.client) && told == 1, "attached; the waiter was told");
	fake_agent_started(&b.agent, b.last_stream);
	fake_agent_send(&b.agent, AGENT_STDOUT, b.last_stream, 0, "one", 3);
	fake_agent_send(&b.agent, AGENT_STDERR, b.last_stream, 0, "two", 3);
	fake_agent_exit(&b.agent, b.last_stream, 3, 0, 1);
	turn(3);
	heard_is(&h, "started(7) out(one) err(two) exit(3,0)", "a run");
	is_int(agent_client_streams(b.client), 0, "its stream is free");

	open_on(&b, AGENT_STATUS, AGENT_ID_BYTES, &h);
	uint8_t reply[sizeof(struct agent_command_status) + 4];
	struct agent_command_status status = {.running = 1, .text_bytes = 4};
	memcpy(reply, &status, sizeof(status));
	memcpy(reply + sizeof(status), "true", 4);
	fake_agent_send(&b.agent, AGENT_STATUS_REPLY, b.last_stream, 0, reply, sizeof(reply));
	turn(3);
	heard_is(&h, "status(1,true)", "a status");

	open_on(&b, AGENT_FS, 300000, &h);
	turn(40);
	ok(strstr(buf_str(&b.requests), "19/300000"), "a long request arrives whole, in frames of one write each");
	fake_agent_send(&b.agent, AGENT_DATA, b.last_stream, 0, "abc", 3);
	fake_agent_end(&b.agent, b.last_stream, AGENT_FAILED_SYS, 2, 0, "/x");
	turn(3);
	heard_is(&h, "data(abc) end(1,/x)", "a file request");

	told = 0;
	ok(agent_client_wait(b.client, ready, &told, &err) == 0 && !told, "waiting on an attached channel");
	turn(2);
	is_int(told, 1, "is over in the next batch");
	is_int(b.n_broken, 0, "nothing broke");
	bench_free(&b);
}

/* A sandbox gets its share of a turn of the loop, however much it has to say: 16 frames, and output in slices of 4 KiB. */
static void test_turns(void)
{
	static uint8_t zeros[30000];
	struct bench a, b;
	struct heard ha, hb;
	unsigned most = 0, turns = 0, at_other = 0;

	bench_init(&a);
	bench_init(&b);
	open_on(&a, AGENT_EXEC, 100, &ha);
	open_on(&b, AGENT_EXEC, 100, &hb);
	ha.grant = true;
	hb.grant = true;
	fake_agent_started(&a.agent, a.last_stream);
	fake_agent_started(&b.agent, b.last_stream);
	turn(3);
	for (int i = 0; i < 200; i++)
		fake_agent_send(&a.agent, AGENT_STDOUT, a.last_stream, 0, "x", 1);
	fake_agent_send(&b.agent, AGENT_STDOUT, b.last_stream, 0, "y", 1);
	fake_agent_exit(&a.agent, a.last_stream, 0, 0, 1);
	while (!ha.over && turns < 100) {
		unsigned before = ha.n_calls;

		loop_once(loop, 10);
		turns++;
		most = ha.n_calls - before > most ? ha.n_calls - before : most;
		if (hb.n_calls && !at_other)
			at_other = ha.n_calls;
	}
	ok(ha.over && ha.n_calls == 200 && strstr(buf_str(&ha.text), "exit(0,0)"), "200 frames and the end come in order, in %u turns", turns);
	ok(most <= 16, "at most %u of them in one", most);
	ok(hb.n_calls == 1 && at_other <= 32, "the other sandbox is heard after %u of them", at_other);
	buf_free(&ha.text);

	open_on(&a, AGENT_EXEC, 100, &ha);
	ha.grant = true;
	fake_agent_started(&a.agent, a.last_stream);
	fake_agent_send(&a.agent, AGENT_STDERR, a.last_stream, 0, zeros, sizeof(zeros));
	fake_agent_send(&a.agent, AGENT_STDOUT, a.last_stream, 0, "last", 4);
	fake_agent_exit(&a.agent, a.last_stream, 0, 0, 1);
	turn(30);
	ok(ha.over && ha.bytes == sizeof(zeros) + 4 && ha.longest == 4096, "a long frame comes whole, in slices of %zu", ha.longest);
	heard_is(&ha, "started(7) out(last) exit(0,0)", "and what is behind it in its order");
	bench_free(&a);
	bench_free(&b);
	buf_free(&hb.text); /* the end of its client was told, too */
}

static void test_resynchronise(void)
{
	struct bench b;
	struct heard h;
	struct agent_frame head = {.size = 30000, .type = AGENT_STDOUT, .stream = 64};
	char rest[2000];

	bench_init(&b);
	b.agent.mute = true;
	open_on(&b, AGENT_EXEC, 10, &h);
	memset(rest, 'z', sizeof(rest));
	/* half a frame of the gateway before, whole frames, and our nonce where it means nothing */
	fake_agent_raw(&b.agent, rest, 777);
	fake_agent_raw(&b.agent, &head, sizeof(head));
	fake_agent_raw(&b.agent, rest, sizeof(rest));
	fake_agent_raw(&b.agent, b.agent.nonce, sizeof(b.agent.nonce));
	fake_agent_raw(&b.agent, rest, 3);
	turn(3);
	ok(!agent_client_attached(b.client) && !b.n_broken, "what an earlier gateway left is skipped");
	fake_agent_attached(&b.agent);
	fake_agent_started(&b.agent, b.last_stream);
	fake_agent_exit(&b.agent, b.last_stream, 0, 0, 1);
	turn(3);
	ok(agent_client_attached(b.client), "up to the hello that holds our nonce");
	heard_is(&h, "started(7) exit(0,0)", "and the request goes on");
	bench_free(&b);

	bench_init(&b);
	b.agent.mute = true;
	turn(3);
	struct agent_attach attach = {.version = AGENT_VERSION};
	memcpy(attach.nonce, b.agent.nonce, sizeof(attach.nonce));
	struct agent_frame hello = {.size = sizeof(attach), .type = AGENT_ATTACHED};
	for (size_t i = 0; i < sizeof(hello) + sizeof(attach); i++) { /* byte by byte */
		const char *from = i < sizeof(hello) ? (const char *)&hello + i : (const char *)&attach + i - sizeof(hello);
		fake_agent_raw(&b.agent, from, 1);
		turn(2);
	}
	ok(agent_client_attached(b.client), "a hello that comes byte by byte");
	bench_free(&b);
}

/* ---- credit ---- */

static void test_credit_towards_us(void)
{
	struct bench b;
	struct heard h;
	char chunk[16384];

	memset(chunk, 'x', sizeof(chunk));
	bench_init(&b);
	open_on(&b, AGENT_EXEC, 10, &h);
	h.grant = true;
	uint32_t stream = b.last_stream;
	fake_agent_started(&b.agent, stream);
	for (size_t i = 0; i < 4 * AGENT_WINDOW / sizeof(chunk); i++) {
		fake_agent_send(&b.agent, AGENT_STDOUT, stream, 0, chunk, sizeof(chunk));
		turn(3);
	}
	is_int(h.bytes, 4 * AGENT_WINDOW, "a reader that takes everything gets everything");
	ok(strstr(buf_str(&b.requests), "50/0 ") != NULL, "because credit went back");
	is_int(b.n_broken, 0, "and nothing broke");
	bench_free(&b);
	buf_free(&h.text);

	bench_init(&b);
	open_on(&b, AGENT_EXEC, 10, &h);
	fake_agent_started(&b.agent, b.last_stream);
	for (size_t i = 0; i <= AGENT_WINDOW / sizeof(chunk); i++) {
		fake_agent_send(&b.agent, AGENT_STDOUT, b.last_stream, 0, chunk, sizeof(chunk));
		turn(3);
	}
	is_int(h.bytes, AGENT_WINDOW, "an agent that sends more than it may is cut at the window");
	ok(b.n_broken == 1 && strstr(b.broken, "more output"), "and its channel ends");
	heard_is(&h, "started(7) lost(PROTOCOL)", "with word to the request");
	bench_free(&b);
}

static void test_credit_from_us(void)
{
	struct bench b;
	struct heard h;
	struct sbx_err err;
	static char bytes[AGENT_WINDOW];

	bench_init(&b);
	open_on(&b, AGENT_FS, 10, &h);
	is_int(agent_stream_room(h.stream), AGENT_WINDOW, "an upload begins with one window");
	ok(agent_stream_send(h.stream, AGENT_DATA, bytes, sizeof(bytes), &err) == 0, "send it");
	is_int(agent_stream_room(h.stream), 0, "then there is no room");
	turn(50);
	is_int(b.data_bytes, AGENT_WINDOW, "all of it arrives");
	fake_agent_send(&b.agent, AGENT_CREDIT, b.last_stream, 1000, NULL, 0);
	turn(3);
	is_int(agent_stream_room(h.stream), 1000, "credit makes room");
	heard_is(&h, "writable ", "and the upload hears of it");
	agent_stream_detach(h.stream);
	turn(3);
	ok(strstr(buf_str(&b.requests), "23/0 ") != NULL, "a detached upload tells the agent");
	bench_free(&b);
}

static void test_deaf_agent(void)
{
	struct bench b;
	struct heard h[3];
	struct sbx_err err;
	static char bytes[AGENT_WINDOW];

	bench_init(&b);
	turn(3);
	fake_agent_listen(&b.agent, false);
	for (size_t i = 0; i < 3; i++)
		open_on(&b, AGENT_FS, 10, &h[i]);
	for (size_t i = 0; i < 3; i++) {
		size_t room = agent_stream_room(h[i].stream);

		ok(agent_stream_send(h[i].stream, AGENT_DATA, bytes, room, &err) == 0, "upload %zu queues %zu bytes", i, room);
	}
	struct heard more;
	unsigned opened = 0;
	for (unsigned i = 0; i < 40 && open_on(&b, AGENT_EXEC, LIMIT_SPAWN_BYTES, &more); i++) {
		agent_stream_detach(more.stream);
		opened++;
	}
	ok(opened < 8, "an agent that does not read has %u large requests queued, then they are refused", opened);
	ok(!b.n_broken, "without an end of the channel");
	buf_free(&more.text);
	fake_agent_listen(&b.agent, true);
	turn(1000);
	ok(b.data_bytes > 0 && !b.n_broken, "when it reads again, all goes on");
	bench_free(&b);
	for (size_t i = 0; i < 3; i++)
		buf_free(&h[i].text);
}

/* ---- content over the bulk channel ---- */

static void test_bulk_up(void)
{
	struct bench b;
	struct heard h[7]; /* more than the FIFO holds windows of */
	struct sbx_err err;
	static char bytes[2 * AGENT_WINDOW];
	size_t sent = 0;

	bench_init_with(&b, true);
	open_on(&b, AGENT_FS, 10, &h[0]);
	ok(agent_stream_offer(h[0].stream, bytes, 100, &err) == 100, "a little content");
	turn(3);
	ok(b.data_bytes == 100 && !b.agent.n_bulk, "goes in a frame");
	for (int i = 0; i < 200 && sent + 100 < AGENT_WINDOW; i++) {
		ssize_t n = agent_stream_offer(h[0].stream, bytes, sizeof(bytes), &err);

		sent += n > 0 ? (size_t)n : 0;
		turn(2);
	}
	turn(3);
	is_int(sent + 100, AGENT_WINDOW, "more is taken as long as there is credit");
	ok(b.data_bytes == AGENT_WINDOW && b.agent.n_bulk == sent, "and goes past the frames");
	is_int(agent_stream_offer(h[0].stream, bytes, 5000, &err), 0, "without credit nothing goes");
	fake_agent_send(&b.agent, AGENT_CREDIT, b.last_stream, 9000, NULL, 0);
	turn(3);
	ok(strstr(buf_str(&h[0].text), "writable"), "with credit the upload is told");
	is_int(agent_stream_offer(h[0].stream, bytes, sizeof(bytes), &err), 9000, "and goes on");
	turn(3);

	fake_agent_listen(&b.agent, false);
	size_t taken = 0;
	for (size_t i = 1; i < ARRAY_SIZE(h); i++) {
		open_on(&b, AGENT_FS, 10, &h[i]);
		for (ssize_t n = 1; n > 0;) {
			n = agent_stream_offer(h[i].stream, bytes, AGENT_WINDOW, &err);
			taken += n > 0 ? (size_t)n : 0;
		}
	}
	struct heard *last = &h[ARRAY_SIZE(h) - 1];
	ok(taken > 0 && taken < (ARRAY_SIZE(h) - 1) * AGENT_WINDOW, "an agent that does not read takes what the FIFO holds (%zu), then nothing", taken);
	buf_free(&last->text);
	fake_agent_listen(&b.agent, true);
	turn(20);
	ok(last->text.len && !b.n_broken, "when it reads again the last upload is told");
	bench_free(&b);
	for (size_t i = 0; i < ARRAY_SIZE(h); i++)
		buf_free(&h[i].text);

	bench_init_with(&b, true);
	b.agent.bulk_in_fd = -b.agent.bulk_in_fd; /* says hello without it */
	open_on(&b, AGENT_FS, 10, &h[0]);
	ok(agent_stream_offer(h[0].stream, bytes, 50000, &err) == 50000, "an agent from before the bulk channel");
	turn(20);
	ok(b.data_bytes == 50000 && !b.agent.n_bulk, "gets frames");
	b.agent.bulk_in_fd = -b.agent.bulk_in_fd;
	bench_free(&b);
	buf_free(&h[0].text);
}

static void test_bulk_down(void)
{
	struct bench b;
	struct heard h, other;
	static char bytes[60000], back[60000];
	int sink[2];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i * 7 + i / 251);
	if (pipe2(sink, O_CLOEXEC | O_NONBLOCK) < 0)
		abort();
	bench_init_with(&b, true);
	open_on(&b, AGENT_FS, 10, &h);
	h.sink = sink[1];
	h.sink_room = 50000;
	fake_agent_bulk_send(&b.agent, b.last_stream, bytes, sizeof(bytes));
	turn(3);
	ok(h.spliced == 50000 && !h.bytes && !b.n_broken, "content goes to its client without being read; the rest waits");
	h.sink_room = 4000;
	agent_stream_pull(h.stream);
	is_int(h.spliced, 54000, "until the client can take more");
	uint32_t stream = b.last_stream;
	open_on(&b, AGENT_FS, 10, &other);
	other.sink = -1;
	fake_agent_bulk_send(&b.agent, b.last_stream, "other", 5);
	turn(3);
	ok(h.bytes == 6000 && !b.n_broken, "or until another stream's content has to pass: then it is read");
	fake_agent_end(&b.agent, b.last_stream, AGENT_OK, 0, 0, "");
	turn(3);
	heard_is(&other, "data(other) end(0,)", "which gets its own, before its end");
	fake_agent_bulk_send(&b.agent, stream, bytes, 3000);
	fake_agent_end(&b.agent, stream, AGENT_OK, 0, 0, "");
	turn(3);
	ok(h.bytes == 9000 && h.over && !b.n_broken, "the end comes behind all content");
	ok(read(sink[0], back, sizeof(back)) == 54000 && !memcmp(bytes, back, 54000), "all in order");
	buf_free(&h.text);

	open_on(&b, AGENT_FS, 10, &h);
	h.sink = -1;
	stream = b.last_stream;
	fake_agent_bulk_send(&b.agent, stream, bytes, 30000);
	turn(3);
	agent_stream_detach(h.stream);
	fake_agent_bulk_send(&b.agent, stream, bytes, 20000);
	turn(3);
	open_on(&b, AGENT_FS, 10, &other);
	other.sink = -1;
	fake_agent_bulk_send(&b.agent, b.last_stream, "next", 4);
	fake_agent_end(&b.agent, b.last_stream, AGENT_OK, 0, 0, "");
	turn(3);
	heard_is(&other, "data(next) end(0,)", "content of one who has gone is thrown away, and only that");
	is_int(b.n_broken, 0, "nothing broke");
	bench_free(&b);
	buf_free(&h.text);

	static char much[AGENT_WIDE_WINDOW];
	bench_init_with(&b, true);
	open_on(&b, AGENT_FS, 10, &h);
	h.sink = -1;
	fake_agent_send(&b.agent, AGENT_DATA, b.last_stream, 0, "x", 1); /* the agent is attached when it comes */
	turn(3);
	agent_stream_widen(h.stream);
	turn(3);
	fake_agent_bulk_send(&b.agent, b.last_stream, much, sizeof(much) - 1);
	turn(3);
	ok(!h.over && !b.n_broken, "who expects much content may have more of it under way");
	fake_agent_bulk_send(&b.agent, b.last_stream, much, 1);
	turn(3);
	is_int(b.n_broken, 1, "and no more than that");
	bench_free(&b);
	buf_free(&h.text);
	close(sink[0]);
	close(sink[1]);
}

static void test_bulk_forged(void)
{
	static const struct {
		const char *why;
		enum agent_type open;
		bool bulk;
		uint32_t there, announced;
		size_t payload;
		const char *want;
	} cases[] = {
		{"content that is not there", AGENT_FS, true, 0, 100, 0, "not there"},
		{"less content than announced", AGENT_FS, true, 99, 100, 0, "not there"},
		{"more content than granted", AGENT_FS, true, 100, AGENT_WINDOW + 1, 0, "more output"},
		{"no content", AGENT_FS, true, 100, 0, 0, "no request asked"},
		{"four gigabytes", AGENT_FS, true, 100, UINT32_MAX, 0, "more output"},
		{"content of a command", AGENT_EXEC, true, 100, 100, 0, "no request asked"},
		{"content of a question", AGENT_STATUS, true, 100, 100, 0, "no request asked"},
		{"an announcement with a payload", AGENT_FS, true, 100, 100, 8, "no known kind"},
		{"content without a bulk channel", AGENT_FS, false, 0, 100, 0, "no request asked"},
	};
	static const char bytes[256];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (int sinks = 0; sinks < 2; sinks++) {
			struct bench b;
			struct heard h;
			struct agent_frame frame = {.type = AGENT_BULK, .size = (uint32_t)cases[i].payload, .value = cases[i].announced};

			bench_init_with(&b, cases[i].bulk);
			open_on(&b, cases[i].open, AGENT_ID_BYTES, &h);
			h.sink = -1;
			frame.stream = b.last_stream;
			if (cases[i].there && write(b.agent.bulk_out_fd, bytes, cases[i].there) < 0)
				abort();
			fake_agent_raw(&b.agent, &frame, sizeof(frame));
			fake_agent_raw(&b.agent, bytes, cases[i].payload);
			if (sinks && h.stream) /* somebody must ask for it before it is missed */
				fake_agent_end(&b.agent, b.last_stream, AGENT_OK, 0, 0, "");
			turn(4);
			ok(b.n_broken == 1 && strstr(b.broken, cases[i].want), "hostile agent: %s (%s)", cases[i].why, b.broken);
			ok(h.over && strstr(buf_str(&h.text), "lost(PROTOCOL)"), "and its request is told: %s", cases[i].why);
			bench_free(&b);
			buf_free(&h.text);
		}
}

/* ---- hostile agents: each frame breaks its own channel and no other ---- */

static void test_forged_frames(void)
{
	static const struct {
		const char *why;
		enum agent_type open;
		bool started;
		struct agent_frame frame; /* stream: 1 = the open one */
		size_t n;
		const char *want;
	} cases[] = {
		{"zero field set", AGENT_EXEC, true, {.type = AGENT_STDOUT, .zero = 1, .stream = 1}, 4, "head"},
		{"too large", AGENT_EXEC, true, {.size = AGENT_OUT_FRAME, .type = AGENT_STDOUT, .stream = 1}, 0, "head"},
		{"size of four gigabytes", AGENT_EXEC, true, {.size = UINT32_MAX, .type = AGENT_STDOUT, .stream = 1}, 0, "head"},
		{"unknown type", AGENT_EXEC, true, {.type = 999, .stream = 1}, 0, "no known kind"},
		{"a gateway's frame", AGENT_EXEC, true, {.type = AGENT_EXEC, .stream = 1}, 0, "no known kind"},
		{"a second hello", AGENT_EXEC, true, {.type = AGENT_ATTACHED, .stream = 1}, 24, "no known kind"},
		{"hello on stream 0", AGENT_EXEC, true, {.type = AGENT_ATTACHED}, 24, "never was"},
		{"stream of the future", AGENT_EXEC, true, {.type = AGENT_STDOUT, .stream = 77777}, 4, "never was"},
		{"output before the start", AGENT_EXEC, false, {.type = AGENT_STDOUT, .stream = 1}, 4, "no request asked"},
		{"exit before the start", AGENT_EXEC, false, {.type = AGENT_EXIT, .stream = 1}, sizeof(struct agent_exit), "exit out"},
		{"a second start", AGENT_EXEC, true, {.type = AGENT_STARTED, .stream = 1}, sizeof(struct agent_started), "start out"},
		{"empty output", AGENT_EXEC, true, {.type = AGENT_STDOUT, .stream = 1}, 0, "no request asked"},
		{"file bytes on a command", AGENT_EXEC, true, {.type = AGENT_DATA, .stream = 1}, 4, "no request asked"},
		{"output on a file request", AGENT_FS, false, {.type = AGENT_STDOUT, .stream = 1}, 4, "no request asked"},
		{"start of a file request", AGENT_FS, false, {.type = AGENT_STARTED, .stream = 1}, 16, "start out"},
		{"exit of a file request", AGENT_FS, false, {.type = AGENT_EXIT, .stream = 1}, 32, "exit out"},
		{"status of a command", AGENT_EXEC, true, {.type = AGENT_STATUS_REPLY, .stream = 1}, 64, "status out"},
		{"short status", AGENT_STATUS, false, {.type = AGENT_STATUS_REPLY, .stream = 1}, 8, "status out"},
		{"status with a text that is not there", AGENT_STATUS, false, {.type = AGENT_STATUS_REPLY, .stream = 1}, 60, "does not fit"},
		{"short exit", AGENT_EXEC, true, {.type = AGENT_EXIT, .stream = 1}, 8, "exit out"},
		{"short end", AGENT_EXEC, true, {.type = AGENT_END, .stream = 1}, 8, "short end"},
		{"end with text that was not announced", AGENT_EXEC, true, {.type = AGENT_END, .stream = 1}, 30, "end that does not"},
		{"credit of nothing", AGENT_FS, false, {.type = AGENT_CREDIT, .stream = 1}, 0, "credit"},
		{"credit without end", AGENT_FS, false, {.type = AGENT_CREDIT, .stream = 1, .value = UINT32_MAX}, 0, "credit"},
		{"credit with a payload", AGENT_FS, false, {.type = AGENT_CREDIT, .stream = 1, .value = 1}, 4, "no known kind"},
		{"credit for a question", AGENT_STATUS, false, {.type = AGENT_CREDIT, .stream = 1, .value = 1}, 0, "credit"},
	};
	static const uint8_t zeros[128];
	struct bench good;
	struct heard good_heard;

	bench_init(&good);
	open_on(&good, AGENT_EXEC, 10, &good_heard);
	fake_agent_started(&good.agent, good.last_stream);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bench b;
		struct heard h;
		struct agent_frame frame = cases[i].frame;

		bench_init(&b);
		open_on(&b, cases[i].open, AGENT_ID_BYTES, &h);
		if (cases[i].started)
			fake_agent_started(&b.agent, b.last_stream);
		if (frame.stream == 1)
			frame.stream = b.last_stream;
		if (!frame.size)
			frame.size = (uint32_t)cases[i].n;
		fake_agent_raw(&b.agent, &frame, sizeof(frame));
		fake_agent_raw(&b.agent, zeros, cases[i].n);
		turn(4);
		ok(b.n_broken == 1 && strstr(b.broken, cases[i].want), "hostile agent: %s (%s)", cases[i].why, b.broken);
		ok(h.over && strstr(buf_str(&h.text), "lost(PROTOCOL)"), "and its request is told: %s", cases[i].why);
		bench_free(&b);
		buf_free(&h.text);
	}
	fake_agent_exit(&good.agent, good.last_stream, 0, 0, 1);
	turn(3);
	heard_is(&good_heard, "started(7) exit(0,0)", "a sandbox beside them all noticed nothing");
	bench_free(&good);
}

static void test_stale_frames(void)
{
	struct bench b;
	struct heard h;
	char chunk[16384] = {0};

	bench_init(&b);
	open_on(&b, AGENT_EXEC, 10, &h);
	uint32_t stream = b.last_stream;
	fake_agent_started(&b.agent, stream);
	turn(3);
	agent_stream_detach(h.stream);
	buf_free(&h.text);
	for (size_t i = 0; i < AGENT_WINDOW / sizeof(chunk); i++)
		fake_agent_send(&b.agent, AGENT_STDOUT, stream, 0, chunk, sizeof(chunk));
	fake_agent_exit(&b.agent, stream, 0, 0, 1);
	turn(40);
	is_int(b.n_broken, 0, "what was under way when a client went is thrown away");
	open_on(&b, AGENT_EXEC, 10, &h);
	ok(b.last_stream != stream, "the number is not used again at once");
	for (size_t i = 0; i < 2 * AGENT_WINDOW / sizeof(chunk); i++) {
		fake_agent_send(&b.agent, AGENT_STDOUT, stream, 0, chunk, sizeof(chunk));
		turn(2);
	}
	is_int(b.n_broken, 1, "but an agent that goes on for ever is cut off");
	bench_free(&b);
	buf_free(&h.text);
}

static void test_end_of_agent(void)
{
	struct bench b;
	struct heard h;

	bench_init(&b);
	open_on(&b, AGENT_EXEC, 10, &h);
	fake_agent_started(&b.agent, b.last_stream);
	fake_agent_send(&b.agent, AGENT_STDOUT, b.last_stream, 0, "last", 4);
	fake_agent_free(&b.agent); /* its frames are in the pipe */
	turn(6);
	heard_is(&h, "started(7) out(last) lost(NOT_READY)", "the last words of an agent are read before its end is told");
	is_int(b.n_broken, 1, "the owner is told once");
	struct sbx_err err;
	ok(!agent_stream_open(b.client, AGENT_EXEC, 0, "", 0, &heard_ops, &h, &err) && err.code == SBX_E_NOT_READY,
	   "later requests are refused");
	agent_client_free(b.client, NULL);
	buf_free(&b.requests);
	turn(2);
}

static void test_bounds(void)
{
	struct bench b;
	struct heard h[LIMIT_STREAMS + 1];
	size_t n = 0;

	bench_init(&b);
	while (n <= LIMIT_STREAMS && open_on(&b, AGENT_EXEC, 10, &h[n]))
		n++;
	ok(n < LIMIT_STREAMS && n >= LIMIT_STREAMS - 8, "%zu commands at once, then", n);
	heard_is(&h[n], "refused(LIMIT)", "the next is refused");
	struct heard question;
	ok(open_on(&b, AGENT_INTERRUPT, AGENT_ID_BYTES, &question) != NULL, "but an interrupt still gets through");
	struct sbx_err why = {.code = SBX_E_NOT_READY};
	agent_client_free(b.client, &why);
	heard_is(&question, "lost(NOT_READY)", "freeing the channel tells every request");
	for (size_t i = 0; i < n; i++) {
		if (!h[i].over)
			ok(false, "request %zu was told", i);
		buf_free(&h[i].text);
	}
	is_int(b.n_broken, 0, "and not the one who frees it");
	b.client = NULL;
	bench_free(&b);
}

static void test_deadline(void)
{
	struct bench b;
	struct heard h;

	bench_init(&b);
	open_on(&b, AGENT_STATUS, AGENT_ID_BYTES, &h);
	agent_stream_deadline(h.stream, 20);
	for (uint64_t until = mono_ms() + 2000; !h.over && mono_ms() < until;)
		loop_once(loop, 50);
	heard_is(&h, "lost(NOT_READY)", "an agent that never answers is not waited for");
	turn(3);
	ok(strstr(buf_str(&b.requests), "23/0 ") != NULL, "and is told that nobody listens");
	is_int(b.n_broken, 0, "the channel stays");
	bench_free(&b);
}

int main(void)
{
	struct sbx_err err;

	signal(SIGPIPE, SIG_IGN);
	log_init("test", LOG_LEVEL_ERROR);
	loop = loop_new(&err);
	if (!loop)
		return 1;
	test_life();
	test_turns();
	test_resynchronise();
	test_credit_towards_us();
	test_credit_from_us();
	test_deaf_agent();
	test_bulk_up();
	test_bulk_down();
	test_bulk_forged();
	test_forged_frames();
	test_stale_frames();
	test_end_of_agent();
	test_bounds();
	test_deadline();
	loop_free(loop);
	return tap_done();
}
