// SPDX-License-Identifier: Apache-2.0
#include "images/fetch_post.h"

#include "images/registry_auth.h"
#include "images/registry_http.h"

#include <stdlib.h>
#include <string.h>

#define TRY_S	     5u
#define IDLE_WAIT_MS 60000
#define ANSWER_MAX   65536u /* of a sink's answer, which is thrown away */

struct fetch_poster {
	struct fetch_poster_config config;
	struct registry_http *http;
	struct registry_url url;
	bool busy;
	uint64_t tag;
	unsigned status;
	size_t came;
};

static void tell(struct fetch_poster *p, uint64_t tag, enum sbx_err_code code, const char *text)
{
	struct fetch_done done = {
		.head = {.magic = FETCH_MAGIC, .kind = FETCH_DONE, .tag = tag}, .status = (uint32_t)code, .http = code ? 0 : p->status};

	sbx_printable(text, strlen(text), done.text, sizeof(done.text));
	p->config.done(p->config.arg, &done);
}

static bool on_head(void *arg, const struct registry_reply *reply)
{
	struct fetch_poster *p = arg;

	p->status = reply->status;
	return true;
}

static bool on_body(void *arg, const char *data, size_t n)
{
	struct fetch_poster *p = arg;

	(void)data;
	p->came += n;
	return p->came <= ANSWER_MAX;
}

static void on_done(void *arg, enum registry_end end, const char *text)
{
	struct fetch_poster *p = arg;
	/* The status is the answer, however much is said behind it. */
	bool answered = p->status && (end == REGISTRY_END_DONE || end == REGISTRY_END_STOPPED || end == REGISTRY_END_BROKEN);

	p->busy = false;
	tell(p, p->tag, answered ? SBX_E_NONE : end == REGISTRY_END_UNTRUSTED ? SBX_E_UNAUTHORIZED : SBX_E_PEER_GONE, answered ? "" : text);
}

void fetch_poster_post(struct fetch_poster *p, const struct fetch_post *post)
{
	const struct registry_transfer_spec spec = {
		.url = p->url.text,
		.range_from = REGISTRY_NO_RANGE,
		.ca_file = *p->config.ca_file ? p->config.ca_file : NULL,
		.stall_s = TRY_S,
		.total_s = TRY_S,
		.post = post->body,
		.post_len = post->n,
		.signature = *post->signature ? post->signature : NULL,
		.direct = registry_is_loopback(p->url.host),
		.arg = p,
		.head = on_head,
		.body = on_body,
		.done = on_done,
	};
	struct sbx_err err = {0};

	if (p->busy) {
		tell(p, post->head.tag, SBX_E_LIMIT, "one at a time");
		return;
	}
	p->tag = post->head.tag;
	p->status = 0;
	p->came = 0;
	p->busy = registry_http_start(p->http, &spec, &err) == 0;
	if (!p->busy)
		tell(p, p->tag, err.code, err.msg);
}

bool fetch_poster_wait(struct fetch_poster *p, int fd)
{
	return registry_http_wait(p->http, fd, IDLE_WAIT_MS);
}

struct fetch_poster *fetch_poster_new(const struct fetch_poster_config *config, struct sbx_err *err)
{
	struct fetch_poster *p = calloc(1, sizeof(*p));

	if (!p) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "deny webhook");
		return NULL;
	}
	p->config = *config;
	if (registry_url_read(NULL, config->url, &p->url, err) < 0)
		sbx_err_wrap(err, "egress.deny_webhook");
	else
		p->http = registry_http_new(err);
	if (p->http)
		return p;
	fetch_poster_free(p);
	return NULL;
}

void fetch_poster_free(struct fetch_poster *p)
{
	if (!p)
		return;
	registry_http_free(p->http);
	free(p);
}
