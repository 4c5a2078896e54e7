// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: requests that sandboxd answers: whole, with an answer that goes on in a pipe, or (imports) with the body streamed into
 * a file that it gave.
 */
#include "api/gateway.h"

#include "base/cleanup.h"
#include "base/limits.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- lifecycle ---- */

struct passing {
	struct gateway *gw;
	struct http_request *req;
	uint64_t tag; /* 0: not sent yet */
	bool egress;
	struct http_text id, path; /* EGRESS; in the request */
};

/* ---- an answer that goes on: sandboxd writes into a pipe, which ends with the client or with sandboxd ---- */

#define STREAM_CHUNK 16384u

struct streaming {
	struct http_request *req;
	struct loop_fd *source;
	int fd;
	bool counted;
	uint64_t left; /* counted: bytes that have to come */
};

static void streaming_free(struct streaming *s)
{
	loop_fd_remove(s->source);
	close_keep_errno(s->fd);
	free(s);
}

static void streaming_abort(void *user, struct http_request *req)
{
	(void)req;
	streaming_free(user);
}

static void streaming_writable(void *user, struct http_request *req)
{
	struct streaming *s = user;

	(void)req;
	loop_fd_events(s->source, EPOLLIN);
}

static void streaming_ready(void *arg, int fd, uint32_t events)
{
	struct streaming *s = arg;
	char data[STREAM_CHUNK];
	ssize_t n = read(fd, data, sizeof(data));

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && (!s->counted || (uint64_t)n <= s->left)) {
		s->left -= s->counted ? (uint64_t)n : 0;
		http_response_write(s->req, data, (size_t)n);
		if (http_response_queued(s->req) > HTTP_QUEUE_HIGH_BYTES)
			loop_fd_events(s->source, 0);
		return;
	}
	struct http_request *req = s->req;
	bool broken = n != 0 || s->left;

	streaming_free(s);
	if (broken)
		http_response_fail(req);
	else
		http_response_end(req);
}

static void answer_stream(struct gateway *gw, struct http_request *req, unsigned status, const struct http_text *strings, int fd,
			  uint64_t bytes)
{
	static const struct http_request_ops ops = {.abort = streaming_abort, .writable = streaming_writable};
	auto_free char *type = http_text_dup(strings[GW_REPLY_CONTENT_TYPE]);
	struct streaming *s = calloc(1, sizeof(*s));

	if (s)
		*s = (struct streaming){.req = req, .fd = fd, .counted = bytes > 0, .left = bytes};
	if (s && type)
		s->source = loop_fd_add(gw->loop, fd, EPOLLIN, streaming_ready, s);
	if (!s || !s->source) {
		free(s);
		close_keep_errno(fd);
		http_respond_code(req, SBX_E_NO_MEMORY, "stream");
		return;
	}
	http_request_accept(req, &ops, s);
	http_response_begin(req, status, *type ? type : NULL, strings[GW_REPLY_HEADERS], bytes ? (int64_t)bytes : -1);
	http_response_flush(req);
	if (strings[GW_REPLY_BODY].len)
		http_response_write(req, strings[GW_REPLY_BODY].data, strings[GW_REPLY_BODY].len);
}

/* ---- whole answers ---- */


static void passing_abort(void *user, struct http_request *req)
{
	struct passing *p = user;

	(void)req;
	gw_client_cancel(p->gw->control, p->tag);
	free(p);
}

static void answer_with(struct http_request *req, unsigned status, const struct http_text strings[GW_REPLY_STRINGS])
{
	auto_free char *type = http_text_dup(strings[GW_REPLY_CONTENT_TYPE]);

	if (!type || status < 200 || status > 599) {
		http_respond_code(req, SBX_E_PROTOCOL, "answer");
		return;
	}
	http_respond(req, status, *type ? type : NULL, strings[GW_REPLY_HEADERS], strings[GW_REPLY_BODY].data,
		     strings[GW_REPLY_BODY].len);
}

static void passed(void *arg, struct gw_reply *reply, const struct sbx_err *err)
{
	struct passing *p = arg;
	struct http_request *req = p->req;
	struct gateway *gw = p->gw;
	struct gw_http_reply head;
	struct sbx_err odd = {0};

	free(p);
	if (!err && (reply->head->kind != GW_HTTP_REPLY || reply->head->n_strings != GW_REPLY_STRINGS)) {
		sbx_err_set(&odd, SBX_E_PROTOCOL, 0, "answer of another kind");
		err = &odd;
	}
	if (err) {
		http_respond_error(req, err);
		return;
	}
	memcpy(&head, reply->head, sizeof(head));
	if (reply->n_fds == 1 && !head.head.body_fd && head.status == 200)
		answer_stream(gw, req, head.status, reply->strings, take_fd(&reply->fds[0]), head.stream_bytes);
	else
		answer_with(req, head.status, reply->strings);
}

static struct http_text text_of(const char *s)
{
	return (struct http_text){s, strlen(s)};
}

static void body_is_here(void *user, struct http_request *req, const char *body, size_t n)
{
	struct passing *p = user;
	struct gw_http message = {.head = {.kind = GW_HTTP}, .flags = gateway_flags(p->gw, req),
				  .listener = http_request_listener(req)};
	struct http_text site = http_request_header(req, "sec-fetch-site");
	struct http_text origin = http_request_header(req, "origin");
	struct sbx_err err = {0};
	struct http_text target = http_request_target(req);
	auto_buf marked = {0}, rest = {0};

	if (http_text_is_nocase(site, "cross-site")) {
		buf_puts(&marked, "!");
		buf_append(&marked, origin.data, origin.len);
		origin = (struct http_text){buf_peek(&marked), buf_used(&marked)};
	}
	if (p->egress) {
		struct http_text query = http_request_query(req);

		message.flags |= GW_HTTP_EGRESS;
		buf_append(&rest, p->path.len ? p->path.data : "/", p->path.len ? p->path.len : 1);
		if (query.data) {
			buf_puts(&rest, "?");
			buf_append(&rest, query.data, query.len);
		}
		target = (struct http_text){buf_peek(&rest), buf_used(&rest)};
	}
	const struct http_text strings[GW_HTTP_STRINGS] = {
		[GW_HTTP_METHOD] = http_request_method(req),
		[GW_HTTP_TARGET] = target,
		[GW_HTTP_HOST] = http_request_header(req, "host"),
		[GW_HTTP_ORIGIN] = origin,
		[GW_HTTP_API_KEY] = http_request_header(req, "open-sandbox-api-key"),
		[GW_HTTP_REQUEST_ID] = text_of(http_request_id(req)),
		[GW_HTTP_CONTENT_TYPE] = http_request_header(req, "content-type"),
		[GW_HTTP_CLIENT] = text_of(http_request_peer(req)),
		[GW_HTTP_SANDBOX] = p->id,
		[GW_HTTP_ACCEPT] = http_request_header(req, "accept"),
		[GW_HTTP_LAST_EVENT_ID] = http_request_header(req, "last-event-id"),
		[GW_HTTP_EGRESS_TOKEN] = p->egress ? http_request_header(req, "opensandbox-egress-auth") : HTTP_NO_TEXT,
		[GW_HTTP_BODY] = {body, n},
	};
	p->tag = gw_client_send(p->gw->control, &message.head, sizeof(message), strings, GW_HTTP_STRINGS, passed, p, &err);
	if (!p->tag) {
		free(p);
		http_respond_error(req, &err);
	}
}

static void pass(struct gateway *gw, struct http_request *req, bool egress, struct http_text id, struct http_text path)
{
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE, .whole = body_is_here, .whole_max = LIMIT_API_BODY_BYTES, .abort = passing_abort};
	static const struct http_request_ops egress_ops = { /* its errors are lines of text */
		.flags = HTTP_KEEP_ON_HALF_CLOSE | HTTP_TEXT_ERRORS, .whole = body_is_here, .whole_max = LIMIT_API_BODY_BYTES,
		.abort = passing_abort};
	struct passing *p = calloc(1, sizeof(*p));

	if (!p) {
		http_respond_code(req, SBX_E_NO_MEMORY, "request");
		return;
	}
	*p = (struct passing){.gw = gw, .req = req, .egress = egress, .id = id, .path = path};
	http_request_accept(req, egress ? &egress_ops : &ops, p);
}

void pass_lifecycle(struct gateway *gw, struct http_request *req)
{
	pass(gw, req, false, HTTP_NO_TEXT, HTTP_NO_TEXT);
}

void pass_egress(struct gateway *gw, struct http_request *req, struct http_text id, struct http_text path)
{
	pass(gw, req, true, id, path);
}

/* ---- import ---- */

struct importing {
	struct gateway *gw;
	struct http_request *req;
	uint64_t tag, handle, bytes, max_bytes;
	int fd;
};

static const struct http_text no_strings[GW_IMPORT_STRINGS];

/* sandboxd forgets what came so far; it answers nothing to that. */
static void import_break_off(struct importing *im)
{
	struct gw_import message = {.head = {.kind = GW_IMPORT}, .state = 2, .handle = im->handle, .bytes = im->bytes};
	struct sbx_err ignored = {0};

	gw_client_cancel(im->gw->control, im->tag);
	if (im->fd >= 0) /* not sent: the channel is down, and sandboxd forgot it by itself */
		ignore_result(gw_client_send(im->gw->control, &message.head, sizeof(message), no_strings, GW_IMPORT_STRINGS, NULL,
					     NULL, &ignored) == 0);
	close_keep_errno(im->fd);
	free(im);
}

static void import_abort(void *user, struct http_request *req)
{
	(void)req;
	import_break_off(user);
}

static void import_fail(struct importing *im, const struct sbx_err *err)
{
	struct http_request *req = im->req;

	import_break_off(im);
	http_respond_error(req, err);
}

static void import_bytes(void *user, struct http_request *req, const char *data, size_t n)
{
	struct importing *im = user;
	struct sbx_err err = {0};

	(void)req;
	im->bytes += n;
	if (im->bytes > im->max_bytes) {
		sbx_err_set(&err, SBX_E_TOO_LARGE, 0, "the archive is larger than %llu bytes", (unsigned long long)im->max_bytes);
		import_fail(im, &err);
		return;
	}
	/* a file on the state disk: the page cache takes it, and the disk's speed is the client's */
	for (size_t at = 0; at < n;) {
		ssize_t w = write(im->fd, data + at, n - at);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			sbx_err_set(&err, SBX_E_SYSTEM, errno, "write the archive");
			import_fail(im, &err);
			return;
		}
		at += (size_t)w;
	}
}

static void import_answered(void *arg, struct gw_reply *reply, const struct sbx_err *err)
{
	struct importing *im = arg;
	struct http_request *req = im->req;
	struct gateway *gw = im->gw;
	struct gw_import_reply head;

	free(im);
	if (err) {
		http_respond_error(req, err);
		return;
	}
	if (reply->head->kind != GW_IMPORT_REPLY || reply->head->n_strings != GW_REPLY_STRINGS) {
		http_respond_code(req, SBX_E_PROTOCOL, "answer");
		return;
	}
	memcpy(&head, reply->head, sizeof(head));
	if (reply->n_fds == 1 && head.status == 200)
		answer_stream(gw, req, head.status, reply->strings, take_fd(&reply->fds[0]), 0);
	else
		answer_with(req, head.status, reply->strings);
}

static void import_complete(void *user, struct http_request *req)
{
	struct importing *im = user;
	struct gw_import message = {.head = {.kind = GW_IMPORT}, .state = 1, .flags = gateway_flags(im->gw, req),
				    .handle = im->handle, .bytes = im->bytes};
	struct sbx_err err = {0};

	/* sandboxd refuses a file that somebody can still write to */
	close_keep_errno(take_fd(&im->fd));
	im->tag = gw_client_send(im->gw->control, &message.head, sizeof(message), no_strings, GW_IMPORT_STRINGS, import_answered, im,
				 &err);
	if (!im->tag)
		import_fail(im, &err);
}

static void import_begun(void *arg, struct gw_reply *reply, const struct sbx_err *err)
{
	static const struct http_request_ops ops = {.flags = HTTP_KEEP_ON_HALF_CLOSE,
						    .body = import_bytes,
						    .body_end = import_complete,
						    .abort = import_abort};
	struct importing *im = arg;
	struct http_request *req = im->req;
	struct gw_import_reply head;

	im->tag = 0;
	if (err || reply->head->kind != GW_IMPORT_REPLY) {
		free(im);
		if (err)
			http_respond_error(req, err);
		else
			http_respond_code(req, SBX_E_PROTOCOL, "answer");
		return;
	}
	memcpy(&head, reply->head, sizeof(head));
	if (head.status != 200 || !reply->n_fds) {
		free(im);
		if (reply->head->n_strings == GW_REPLY_STRINGS)
			answer_with(req, head.status, reply->strings);
		else
			http_respond_code(req, SBX_E_PROTOCOL, "answer");
		return;
	}
	im->fd = take_fd(&reply->fds[0]);
	im->handle = head.handle;
	im->max_bytes = head.max_bytes;
	http_request_accept(req, &ops, im);
}

void pass_import(struct gateway *gw, struct http_request *req)
{
	static const struct http_request_ops wait_ops = {.flags = HTTP_KEEP_ON_HALF_CLOSE | HTTP_BODY_PAUSED, .abort = import_abort};
	struct gw_import message = {.head = {.kind = GW_IMPORT}, .flags = gateway_flags(gw, req)};
	const struct http_text strings[GW_IMPORT_STRINGS] = {
		[GW_IMPORT_TARGET] = http_request_target(req),
		[GW_IMPORT_API_KEY] = http_request_header(req, "open-sandbox-api-key"),
	};
	struct importing *im = calloc(1, sizeof(*im));
	struct sbx_err err = {0};

	if (!im) {
		http_respond_code(req, SBX_E_NO_MEMORY, "request");
		return;
	}
	*im = (struct importing){.gw = gw, .req = req, .fd = -1};
	im->tag = gw_client_send(gw->control, &message.head, sizeof(message), strings, GW_IMPORT_STRINGS, import_begun, im, &err);
	if (!im->tag) {
		free(im);
		http_respond_error(req, &err);
		return;
	}
	http_request_accept(req, &wait_ops, im);
}
