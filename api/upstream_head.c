// SPDX-License-Identifier: Apache-2.0
/* DOC: which header lines pass to a service inside, and which do not. */
#include "api/upstream.h"

#include "base/cleanup.h"
#include "base/http1.h"

#include <string.h>

enum drop { DROP_ALWAYS, DROP_ON_API };

/* Hop by hop; framing, which is written anew; our own secrets; and on the API's origin what belongs to the API's client. */
static const struct {
	const char *name;
	enum drop when;
} dropped[] = {
	{"connection", DROP_ALWAYS},
	{"keep-alive", DROP_ALWAYS},
	{"proxy-authenticate", DROP_ALWAYS},
	{"proxy-authorization", DROP_ALWAYS},
	{"proxy-connection", DROP_ALWAYS},
	{"te", DROP_ALWAYS},
	{"trailer", DROP_ALWAYS},
	{"transfer-encoding", DROP_ALWAYS},
	{"upgrade", DROP_ALWAYS},
	{"content-length", DROP_ALWAYS},
	{"expect", DROP_ALWAYS},
	{"host", DROP_ALWAYS},
	{"open-sandbox-api-key", DROP_ALWAYS},
	{"x-execd-access-token", DROP_ALWAYS},
	{"opensandbox-egress-auth", DROP_ALWAYS},
	{"opensandbox-secure-access", DROP_ALWAYS},
	{"authorization", DROP_ON_API},
	{"cookie", DROP_ON_API},
};

static bool is_dropped(struct http_text name, bool direct)
{
	for (size_t i = 0; i < ARRAY_SIZE(dropped); i++)
		if (http_text_is_nocase(name, dropped[i].name))
			return dropped[i].when == DROP_ALWAYS || !direct;
	return false;
}

/* Whether one of the Connection headers names it. */
static bool is_hop_named(const struct http_request *req, struct http_text name)
{
	size_t n = http_request_n_headers(req);

	for (size_t i = 0; i < n; i++) {
		struct http_text header, value;

		http_request_header_at(req, i, &header, &value);
		if (http_text_is_nocase(header, "connection") && http1_list_has(value.data, value.len, name.data, name.len))
			return true;
	}
	return false;
}

static void line(struct buf *out, const char *name, struct http_text value)
{
	buf_puts(out, name);
	buf_puts(out, ": ");
	buf_append(out, value.data, value.len);
	buf_puts(out, "\r\n");
}

static struct http_text text_of(const char *s)
{
	return (struct http_text){s, strlen(s)};
}

/* On the API's origin: added where the client did not say it, as the reference does. */
static void forwarded_api(struct buf *out, const struct http_request *req)
{
	const char *peer = http_request_peer_ip(req);

	if (!http_request_header(req, "x-forwarded-proto").data)
		buf_puts(out, "X-Forwarded-Proto: http\r\n");
	if (!http_request_header(req, "x-forwarded-host").data && http_request_header(req, "host").len)
		line(out, "X-Forwarded-Host", http_request_header(req, "host"));
	if (!http_request_header(req, "x-forwarded-for").data && *peer)
		line(out, "X-Forwarded-For", text_of(peer));
}

/* On the second origin: first known address, then the peer's. */
static void forwarded_direct(struct buf *out, const struct http_request *req)
{
	struct http_text first = http_request_header(req, "x-forwarded-for");
	const char *peer = http_request_peer_ip(req);

	if (!first.len)
		first = http_request_header(req, "x-real-ip");
	if (first.len) {
		const char *comma = memchr(first.data, ',', first.len);
		if (comma)
			first.len = (size_t)(comma - first.data);
	}
	buf_puts(out, "X-Forwarded-Proto: http\r\n");
	if (!*peer)
		return;
	buf_puts(out, "X-Forwarded-For: ");
	if (first.len) {
		buf_append(out, first.data, first.len);
		buf_puts(out, ", ");
	}
	else {
		buf_printf(out, "%s, ", peer);
	}
	buf_printf(out, "%s\r\n", peer);
}

static bool is_forwarded(struct http_text name)
{
	return http_text_is_nocase(name, "x-forwarded-for") || http_text_is_nocase(name, "x-forwarded-proto") ||
	       http_text_is_nocase(name, "x-forwarded-host");
}

void upstream_head(struct buf *out, const struct http_request *req, const struct upstream_config *config, bool upgrade)
{
	bool direct = config->flags & UPSTREAM_DIRECT;
	struct http_text method = http_request_method(req), query = http_request_query(req);
	size_t n = http_request_n_headers(req);
	int64_t length = http_request_body_length(req);

	buf_append(out, method.data, method.len);
	buf_puts(out, config->path.len ? " " : " /");
	buf_append(out, config->path.data, config->path.len);
	if (query.data) {
		buf_puts(out, "?");
		buf_append(out, query.data, query.len);
	}
	buf_puts(out, " HTTP/1.1\r\n");
	if (direct && http_request_header(req, "host").data)
		line(out, "Host", http_request_header(req, "host"));
	else
		buf_printf(out, "Host: 127.0.0.1:%u\r\n", config->port);
	for (size_t i = 0; i < n; i++) {
		struct http_text name, value;

		http_request_header_at(req, i, &name, &value);
		if (is_dropped(name, direct) || is_hop_named(req, name) || (direct && is_forwarded(name)))
			continue;
		buf_append(out, name.data, name.len);
		buf_puts(out, ": ");
		buf_append(out, value.data, value.len);
		buf_puts(out, "\r\n");
	}
	if (direct)
		forwarded_direct(out, req);
	else if (!upgrade)
		forwarded_api(out, req);
	if (upgrade)
		buf_puts(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
	else
		buf_puts(out, "Connection: close\r\n");
	if (length < 0)
		buf_puts(out, "Transfer-Encoding: chunked\r\n");
	else if (length > 0 || http_request_header(req, "content-length").data)
		buf_printf(out, "Content-Length: %lld\r\n", (long long)length);
	buf_puts(out, "\r\n");
}
