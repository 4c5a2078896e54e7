// SPDX-License-Identifier: Apache-2.0
#include "api/images_events.h"

#include "api/images_int.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "images/image_store.h"
#include "images/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct images_events {
	void (*cancel)(void *arg); /* NULL: the last event was given */
	void *arg;
	struct loop_fd *source;
	int fd;
	struct buf out; /* what the pipe did not take */
	bool last;	/* the final event is in it */
};

void images_events_drop(struct images_events *s)
{
	if (!s)
		return;
	loop_fd_remove(s->source);
	close_keep_errno(s->fd);
	buf_free(&s->out);
	free(s);
}

/* Return: false when nobody reads any more */
static bool flush(struct images_events *s)
{
	while (buf_used(&s->out)) {
		ssize_t n = write(s->fd, buf_peek(&s->out), buf_used(&s->out));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0)
			break;
		buf_consume(&s->out, (size_t)n);
	}
	loop_fd_events(s->source, buf_used(&s->out) ? EPOLLOUT : 0);
	return true;
}

static void on_pipe(void *arg, int fd, uint32_t events)
{
	struct images_events *s = arg;

	(void)fd;
	if ((events & (EPOLLERR | EPOLLHUP)) || !flush(s) || (s->last && !buf_used(&s->out))) {
		void (*cancel)(void *to) = s->cancel;
		void *to = s->arg;

		images_events_drop(s);
		if (cancel)
			cancel(to);
	}
}

static void add_event(struct images_events *s, const struct buf *json)
{
	buf_puts(&s->out, "data: ");
	buf_append(&s->out, buf_peek(json), buf_used(json));
	buf_puts(&s->out, "\n\n");
}

void images_events_progress(struct images_events *s, const struct image_pull_progress *p)
{
	static const char *const states[IMAGE_LAYER_STATE_COUNT] = {
		[IMAGE_LAYER_WAITING] = "waiting", [IMAGE_LAYER_PULLING] = "pulling", [IMAGE_LAYER_PULLED] = "pulled",
		[IMAGE_LAYER_UNPACKING] = "unpacking", [IMAGE_LAYER_READY] = "ready"};
	auto_buf json = {0};
	struct jw w = {.out = &json};
	char digest[DIGEST_TEXT_SIZE];

	if (buf_used(&s->out))
		return; /* a slow reader misses some of these, never the last event */
	jw_object(&w);
	jw_key_str(&w, "type", "progress");
	jw_key_str(&w, "endpoint", p->endpoint);
	jw_key_u64(&w, "bytes", p->done);
	jw_key_u64(&w, "total", p->total);
	jw_key(&w, "layers");
	jw_array(&w);
	for (size_t i = 0; i < p->n_layers; i++) {
		digest_format(p->layers[i].digest, digest);
		jw_object(&w);
		jw_key_str(&w, "digest", digest);
		jw_key_u64(&w, "size", p->layers[i].size);
		jw_key_u64(&w, "bytes", p->layers[i].done);
		jw_key_str(&w, "state", states[p->layers[i].state]);
		jw_object_end(&w);
	}
	jw_array_end(&w);
	jw_object_end(&w);
	add_event(s, &json);
	flush(s); /* a reader that is gone is seen by the loop */
}

void images_events_other(struct images_events *s, const struct buf *object)
{
	if (buf_used(&s->out))
		return;
	add_event(s, object);
	flush(s);
}

void images_events_end(struct images_events *s, const struct buf *object)
{
	s->cancel = NULL;
	add_event(s, object);
	s->last = true;
	/* also when the pipe takes it at once: freed from the loop, never from here */
	loop_fd_events(s->source, EPOLLOUT);
}

void images_events_finish(struct images_events *s, const struct image *image, const struct sbx_err *err)
{
	auto_buf json = {0};
	struct jw w = {.out = &json};

	jw_object(&w);
	if (image) {
		jw_key_str(&w, "type", "done");
		jw_key(&w, "image");
		images_render(&w, image);
	} else {
		auto_buf body = {0};

		api_error_body(err, &body); /* an object of its own: its members are taken over */
		jw_key_str(&w, "type", "error");
		jw_key(&w, "error");
		jw_raw(&w, buf_peek(&body), buf_used(&body));
	}
	jw_object_end(&w);
	images_events_end(s, &json);
}

struct images_events *images_events_new(const struct api_context *context, void (*cancel)(void *arg), void *arg, int *ret_fd,
					struct sbx_err *err)
{
	struct images_events *s = calloc(1, sizeof(*s));
	int fds[2];

	if (!s || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		sbx_err_set(err, s ? SBX_E_SYSTEM : SBX_E_NO_MEMORY, s ? errno : 0, "pipe for events");
		free(s);
		return NULL;
	}
	s->cancel = cancel;
	s->arg = arg;
	s->fd = fds[1];
	s->source = loop_fd_add(context->loop, s->fd, 0, on_pipe, s);
	if (!s->source) {
		close(fds[0]);
		images_events_drop(s);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "events");
		return NULL;
	}
	*ret_fd = fds[0];
	return s;
}
