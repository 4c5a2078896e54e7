// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes as an agent sends them, after its hello: to a channel with a started command (stream 64), a file request (65), a
 * status question (66) and a detached command (67).  Whatever comes, each stream hears at most one last word, and never
 * more bytes than it granted.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "runtime/agent_client.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct heard {
	size_t bytes;
	unsigned last_words;
};

static void on_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct heard *h = arg;

	assert(type == AGENT_STDOUT || type == AGENT_STDERR || type == AGENT_DATA);
	assert(n && data[0] + data[n - 1] >= 0);
	h->bytes += n;
	assert(h->bytes <= AGENT_WINDOW && !h->last_words);
}

static void on_exited(void *arg, const struct agent_exit *result)
{
	struct heard *h = arg;

	(void)result;
	assert(!h->last_words++);
}

static void on_replied(void *arg, const struct agent_command_status *status, const char *text, size_t n)
{
	struct heard *h = arg;

	assert(status->text_bytes == n && (!n || text[n - 1] + 0 >= -128));
	assert(!h->last_words++);
}

static void on_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct heard *h = arg;

	assert(end->text_bytes == n && end->sys >= 0 && (!n || text[n - 1] + 0 >= -128));
	assert(!h->last_words++);
}

static void on_lost(void *arg, const struct sbx_err *why)
{
	struct heard *h = arg;

	assert(why->code != SBX_E_NONE);
	assert(!h->last_words++);
}

/* Takes half of what is announced, as a client that is slower than the file. */
static size_t on_bulk(void *arg, int fd, size_t n)
{
	struct heard *h = arg;
	char content[512];

	assert(n <= AGENT_WINDOW && !h->last_words);
	n = n / 2 < sizeof(content) ? n / 2 : sizeof(content);
	ssize_t got = n ? read(fd, content, n) : 0;
	h->bytes += got > 0 ? (size_t)got : 0;
	return got > 0 ? (size_t)got : 0;
}

static void on_broken(void *arg, const struct sbx_err *why)
{
	unsigned *broken = arg;

	(void)why;
	assert(!(*broken)++);
}

static void say_hello(int in_fd, int out_fd)
{
	char request[sizeof(struct agent_frame) + sizeof(struct agent_attach)];
	struct agent_frame head;

	if (read(in_fd, request, sizeof(request)) != (ssize_t)sizeof(request))
		abort();
	memcpy(&head, request, sizeof(head));
	head.type = AGENT_ATTACHED;
	memcpy(request, &head, sizeof(head));
	if (write(out_fd, request, sizeof(request)) < 0)
		abort();
}

static void send_started(int out_fd, uint32_t stream)
{
	struct {
		struct agent_frame head;
		struct agent_started body;
	} frame = {{.size = sizeof(frame.body), .type = AGENT_STARTED, .stream = stream}, {.pid = 7}};

	if (write(out_fd, &frame, sizeof(frame)) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct agent_stream_ops ops = {
		.data = on_data, .bulk = on_bulk, .exited = on_exited, .replied = on_replied, .ended = on_ended, .lost = on_lost};
	static const enum agent_type types[] = {AGENT_EXEC, AGENT_FS, AGENT_STATUS, AGENT_EXEC};
	static struct loop *loop;
	struct agent_stream *streams[ARRAY_SIZE(types)];
	struct heard heard[ARRAY_SIZE(types)] = {0};
	char payload[64] = {0}, content[1024] = {0};
	int to_agent[2], from_agent[2], bulk_in[2], bulk_out[2];
	unsigned broken = 0;
	struct sbx_err err;

	if (!loop) {
		signal(SIGPIPE, SIG_IGN);
		log_init("fuzz", LOG_LEVEL_ERROR);
		loop = loop_new(&err);
	}
	if (!loop || pipe2(to_agent, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(from_agent, O_CLOEXEC | O_NONBLOCK) < 0 ||
	    pipe2(bulk_in, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(bulk_out, O_CLOEXEC | O_NONBLOCK) < 0 ||
	    write(bulk_out[1], content, sizeof(content)) < 0)
		abort();
	const int ends[AGENT_CHANNEL_FDS] = {to_agent[1], from_agent[0], bulk_in[1], bulk_out[0]};
	struct agent_client *client = agent_client_new(loop, ends, on_broken, &broken, &err);
	assert(client);
	say_hello(to_agent[0], from_agent[1]);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		streams[i] = agent_stream_open(client, types[i], 0, payload, sizeof(payload), &ops, &heard[i], &err);
		assert(streams[i]);
	}
	send_started(from_agent[1], 64);
	loop_once(loop, 0);
	agent_stream_detach(streams[3]);
	for (size_t at = 0; at < size && !broken;) {
		ssize_t n = write(from_agent[1], data + at, size - at);

		at += n > 0 ? (size_t)n : 0;
		loop_once(loop, 0);
		loop_once(loop, 0);
		if (n <= 0)
			break;
	}
	assert(!heard[3].last_words && !heard[3].bytes); /* nobody listens there */
	agent_client_free(client, NULL);
	for (size_t i = 0; i < 3; i++)
		assert(heard[i].last_words == 1);
	loop_once(loop, 0);
	close(to_agent[0]);
	close(from_agent[1]);
	close(bulk_in[0]);
	close(bulk_out[1]);
	return 0;
}
