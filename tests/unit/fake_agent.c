// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/fake_agent.h"

#include "base/cleanup.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>

static void flush(struct fake_agent *a)
{
	while (buf_used(&a->unsent)) {
		ssize_t n = write(a->out_fd, buf_peek(&a->unsent), buf_used(&a->unsent));

		if (n <= 0)
			break;
		buf_consume(&a->unsent, (size_t)n);
	}
	loop_fd_events(a->out, buf_used(&a->unsent) ? EPOLLOUT : 0);
}

void fake_agent_raw(struct fake_agent *a, const void *data, size_t n)
{
	buf_append(&a->unsent, data, n);
	flush(a);
}

void fake_agent_send(struct fake_agent *a, enum agent_type type, uint32_t stream, uint32_t value, const void *payload, size_t n)
{
	struct agent_frame head = {.size = (uint32_t)n, .type = (uint16_t)type, .stream = stream, .value = value};

	buf_append(&a->unsent, &head, sizeof(head));
	buf_append(&a->unsent, payload, n);
	flush(a);
}

void fake_agent_attached(struct fake_agent *a)
{
	struct agent_attach attach = {.version = AGENT_VERSION, .flags = a->bulk_in_fd >= 0 ? AGENT_ATTACH_BULK : 0};

	memcpy(attach.nonce, a->nonce, sizeof(attach.nonce));
	fake_agent_send(a, AGENT_ATTACHED, 0, 0, &attach, sizeof(attach));
}

void fake_agent_end(struct fake_agent *a, uint32_t stream, enum agent_reason reason, int sys, uint64_t value, const char *text)
{
	uint8_t payload[sizeof(struct agent_end) + 256];
	struct agent_end end = {.reason = reason, .sys = sys, .value = value, .text_bytes = (uint32_t)strlen(text)};

	memcpy(payload, &end, sizeof(end));
	memcpy(payload + sizeof(end), text, end.text_bytes);
	fake_agent_send(a, AGENT_END, stream, 0, payload, sizeof(end) + end.text_bytes);
}

void fake_agent_started(struct fake_agent *a, uint32_t stream)
{
	struct agent_started started = {.pid = 7, .started_wall_usec = 1767225600000000};

	fake_agent_send(a, AGENT_STARTED, stream, 0, &started, sizeof(started));
}

void fake_agent_exit(struct fake_agent *a, uint32_t stream, int code, int signal, int ms)
{
	struct agent_exit result = {.code = signal ? -1 : code,
				    .signal = signal,
				    .started_wall_usec = 1767225600000000,
				    .ended_wall_usec = 1767225600000000 + ms * 1000LL};

	fake_agent_send(a, AGENT_EXIT, stream, 0, &result, sizeof(result));
}

size_t fake_agent_record(uint8_t *out, uint32_t index, const char *path, enum agent_file_kind kind, uint64_t size)
{
	struct agent_file_record head = {.kind = kind,
					 .mode = 0100644,
					 .index = index,
					 .size_bytes = size,
					 .modified_wall_usec = 1767225600000000,
					 .created_wall_usec = 1767225600000000,
					 .path_bytes = (uint32_t)strlen(path) + 1,
					 .owner_bytes = 5,
					 .group_bytes = 5};
	uint8_t *at = out + sizeof(head);

	head.record_bytes = (uint32_t)sizeof(head) + head.path_bytes + 10;
	memcpy(out, &head, sizeof(head));
	memcpy(at, path, head.path_bytes);
	memcpy(at + head.path_bytes, "root\0root", 10);
	return head.record_bytes;
}

static void bulk(struct fake_agent *a, const struct agent_frame *head);

static void request(struct fake_agent *a, const struct agent_frame *head, const uint8_t *payload, size_t n)
{
	bool splits = head->type == AGENT_EXEC || head->type == AGENT_FS;

	if (head->type == AGENT_ATTACH) {
		assert(n == sizeof(struct agent_attach));
		memcpy(a->nonce, payload, sizeof(a->nonce));
		if (!a->mute)
			fake_agent_attached(a);
		return;
	}
	if (head->type == AGENT_BULK) {
		bulk(a, head);
		return;
	}
	if (splits) {
		a->whole_head = *head;
		a->whole_left = head->value;
		buf_clear(&a->whole);
	}
	if (!splits && head->type != AGENT_MORE) {
		a->handler(a, head, payload, n);
		return;
	}
	assert(n <= a->whole_left && head->stream == a->whole_head.stream);
	buf_append(&a->whole, payload, n);
	a->whole_left -= n;
	if (!a->whole_left)
		a->handler(a, &a->whole_head, (const uint8_t *)buf_peek(&a->whole), buf_used(&a->whole));
}

static void can_read(void *arg, int fd, uint32_t events)
{
	struct fake_agent *a = arg;
	char chunk[65536];
	ssize_t n = read(fd, chunk, sizeof(chunk));

	if (n <= 0) {
		if (events & EPOLLHUP)
			loop_fd_events(a->in, 0);
		return;
	}
	buf_append(&a->received, chunk, (size_t)n);
	while (buf_used(&a->received) >= sizeof(struct agent_frame) && a->in) {
		struct agent_frame head;

		memcpy(&head, buf_peek(&a->received), sizeof(head));
		assert(sizeof(head) + head.size <= AGENT_IN_FRAME); /* the gateway's promise: whole frames of one write */
		assert(buf_used(&a->received) >= sizeof(head) + head.size);
		request(a, &head, (const uint8_t *)buf_peek(&a->received) + sizeof(head), head.size);
		buf_consume(&a->received, sizeof(head) + head.size);
	}
}

static void can_write(void *arg, int fd, uint32_t events)
{
	struct fake_agent *a = arg;

	(void)fd;
	if (events & EPOLLERR)
		buf_clear(&a->unsent);
	flush(a);
}

void fake_agent_listen(struct fake_agent *a, bool listen)
{
	loop_fd_events(a->in, listen ? EPOLLIN : 0);
}

void fake_agent_init(struct fake_agent *a, struct loop *loop, fake_agent_handler *handler, void *arg)
{
	int to_agent[2], from_agent[2];

	*a = (struct fake_agent){.loop = loop, .handler = handler, .arg = arg, .bulk_in_fd = -1, .bulk_out_fd = -1};
	if (pipe2(to_agent, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(from_agent, O_CLOEXEC | O_NONBLOCK) < 0)
		abort();
	a->in_fd = to_agent[0];
	a->gateway_fds[0] = to_agent[1];
	a->gateway_fds[1] = from_agent[0];
	a->gateway_fds[2] = a->gateway_fds[3] = -1;
	a->out_fd = from_agent[1];
	a->in = loop_fd_add(loop, a->in_fd, EPOLLIN, can_read, a);
	a->out = loop_fd_add(loop, a->out_fd, 0, can_write, a);
	assert(a->in && a->out);
}

void fake_agent_bulk(struct fake_agent *a)
{
	int to_agent[2], from_agent[2];

	if (pipe2(to_agent, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(from_agent, O_CLOEXEC | O_NONBLOCK) < 0)
		abort();
	a->bulk_in_fd = to_agent[0];
	a->gateway_fds[2] = to_agent[1];
	a->gateway_fds[3] = from_agent[0];
	a->bulk_out_fd = from_agent[1];
}

void fake_agent_bulk_send(struct fake_agent *a, uint32_t stream, const void *data, size_t n)
{
	ssize_t done = write(a->bulk_out_fd, data, n);

	assert(done == (ssize_t)n); /* tests write no more than fits */
	fake_agent_send(a, AGENT_BULK, stream, (uint32_t)n, NULL, 0);
}

/* What was announced is there: the frame comes behind the bytes. */
static void bulk(struct fake_agent *a, const struct agent_frame *head)
{
	struct agent_frame data = {.type = AGENT_DATA, .stream = head->stream};
	uint8_t *content = malloc(head->value);

	for (uint32_t have = 0; have < head->value;) {
		ssize_t n = read(a->bulk_in_fd, content + have, head->value - have);

		assert(n > 0);
		have += (uint32_t)n;
	}
	data.size = head->value;
	a->n_bulk += head->value;
	a->handler(a, &data, content, head->value);
	free(content);
}

void fake_agent_free(struct fake_agent *a)
{
	close_keep_errno(a->bulk_in_fd);
	close_keep_errno(a->bulk_out_fd);
	loop_fd_remove(a->in);
	loop_fd_remove(a->out);
	a->in = a->out = NULL;
	close_keep_errno(a->in_fd);
	close_keep_errno(a->out_fd);
	buf_free(&a->received);
	buf_free(&a->unsent);
	buf_free(&a->whole);
}
