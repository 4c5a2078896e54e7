// SPDX-License-Identifier: Apache-2.0
/* DOC: a pull: the request goes to sandboxd whole, its events come through a pipe and are copied as they are. */
#include "api/gateway.h"

#include "base/cleanup.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define COPY_BYTES (16u * 1024)

struct pulling {
	struct gateway *gw;
	struct http_request *req;
	uint64_t tag; /* 0: answered */
	int fd;	      /* the events, owned */
	struct loop_fd *source;
};

static void pulling_free(struct pulling *p)
{
	gw_client_cancel(p->gw->control, p->tag);
	loop_fd_remove(p->source);
	close_keep_errno(p->fd);
	free(p);
}

/* The closed pipe tells sandboxd that nobody waits any more. */
static void pulling_abort(void *user, struct http_request *req)
{
	(void)req;
	pulling_free(user);
}

static void on_events(void *arg, int fd, uint32_t events)
{
	struct pulling *p = arg;
	struct http_request *req = p->req;
	char data[COPY_BYTES];
	ssize_t n = read(fd, data, sizeof(data));

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		pulling_free(p);
		if (n == 0)
			http_response_end(req);
		else
			http_response_fail(req);
		return;
	}
	http_response_write(req, data, (size_t)n);
	if (http_response_queued(req) > HTTP_QUEUE_HIGH_BYTES)
		loop_fd_events(p->source, 0);
}

static void on_writable(void *user, struct http_request *req)
{
	struct pulling *p = user;

	(void)req;
	if (p->source)
		loop_fd_events(p->source, EPOLLIN);
}

static void answered(void *arg, struct gw_reply *reply, const struct sbx_err *err)
{
	struct pulling *p = arg;
	struct http_request *req = p->req;
	struct gw_http_reply head;

	p->tag = 0;
	if (err || reply->head->kind != GW_PULL_REPLY || reply->head->n_strings != GW_REPLY_STRINGS) {
		pulling_free(p);
		if (err)
			http_respond_error(req, err);
		else
			http_respond_code(req, SBX_E_PROTOCOL, "answer");
		return;
	}
	memcpy(&head, reply->head, sizeof(head));
	if (head.status != 200 || !reply->n_fds) {
		auto_free char *type = http_text_dup(reply->strings[GW_REPLY_CONTENT_TYPE]);

		pulling_free(p);
		if (!type || head.status < 400 || head.status > 599)
			http_respond_code(req, SBX_E_PROTOCOL, "answer");
		else
			http_respond(req, head.status, *type ? type : NULL, reply->strings[GW_REPLY_HEADERS],
				     reply->strings[GW_REPLY_BODY].data, reply->strings[GW_REPLY_BODY].len);
		return;
	}
	p->fd = take_fd(&reply->fds[0]);
	p->source = loop_fd_add(p->gw->loop, p->fd, EPOLLIN, on_events, p);
	if (!p->source) {
		pulling_free(p);
		http_respond_code(req, SBX_E_NO_MEMORY, "events");
		return;
	}
	http_response_begin(req, 200, "text/event-stream", HTTP_TEXT("Cache-Control: no-cache\r\n"), -1);
	http_response_flush(req);
}

static void body_is_here(void *user, struct http_request *req, const char *body, size_t n)
{
	struct pulling *p = user;
	struct gw_pull message = {.head = {.kind = GW_PULL}, .flags = gateway_flags(p->gw, req)};
	const struct http_text strings[GW_PULL_STRINGS] = {
		[GW_PULL_API_KEY] = http_request_header(req, "open-sandbox-api-key"),
		[GW_PULL_BODY] = {body, n},
	};
	struct sbx_err err = {0};

	p->tag = gw_client_send(p->gw->control, &message.head, sizeof(message), strings, GW_PULL_STRINGS, answered, p, &err);
	if (!p->tag) {
		pulling_free(p);
		http_respond_error(req, &err);
	}
}

void pass_pull(struct gateway *gw, struct http_request *req)
{
	static const struct http_request_ops ops = {
		.whole = body_is_here, .whole_max = GW_INLINE_BODY - 1, .writable = on_writable, .abort = pulling_abort};
	struct pulling *p = calloc(1, sizeof(*p));

	if (!p) {
		http_respond_code(req, SBX_E_NO_MEMORY, "request");
		return;
	}
	*p = (struct pulling){.gw = gw, .req = req, .fd = -1};
	http_request_accept(req, &ops, p);
}
