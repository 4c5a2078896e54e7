// SPDX-License-Identifier: Apache-2.0
#include "api/endpoint.h"

#include "base/settings.h"

#include <string.h>

uint32_t endpoint_direct_port(const struct settings *settings)
{
	if (settings->server_endpoint_port < 0)
		return (uint32_t)settings->server_port + 1;
	return (uint32_t)settings->server_endpoint_port;
}

static struct http_text text_of(const char *s)
{
	return (struct http_text){s, strlen(s)};
}

/* "https://gw.example/osb/" -> "gw.example/osb" */
static struct http_text without_scheme(struct http_text t)
{
	const char *mark = memmem(t.data, t.len, "://", 3);

	if (mark) {
		t.len -= (size_t)(mark + 3 - t.data);
		t.data = mark + 3;
	}
	while (t.len && t.data[t.len - 1] == '/')
		t.len--;
	return t;
}

/* "gw.example:8080/osb" -> "gw.example"; "[::1]:8080" -> "[::1]"; a bare IPv6 address is put in brackets by the caller */
static struct http_text host_part(struct http_text t)
{
	const char *slash = memchr(t.data, '/', t.len);

	if (slash)
		t.len = (size_t)(slash - t.data);
	if (t.len && t.data[0] == '[') {
		const char *end = memchr(t.data, ']', t.len);

		if (end)
			t.len = (size_t)(end - t.data) + 1;
		return t;
	}
	const char *colon = memchr(t.data, ':', t.len);
	if (colon && !memchr(colon + 1, ':', t.len - (size_t)(colon + 1 - t.data)))
		t.len = (size_t)(colon - t.data);
	return t;
}

static void append_host(struct buf *out, struct http_text host)
{
	bool bare6 = host.len && host.data[0] != '[' && memchr(host.data, ':', host.len);

	if (bare6)
		buf_puts(out, "[");
	buf_append(out, host.data, host.len);
	if (bare6)
		buf_puts(out, "]");
}

/* What we listen on, for a client that sent no Host of its own. */
static struct http_text listen_host(const struct settings *settings)
{
	const char *host = settings->server_host;

	if (!host[0] || !strcmp(host, "0.0.0.0") || !strcmp(host, "::"))
		return text_of("127.0.0.1");
	return text_of(host);
}

static void append_base(struct buf *out, const struct settings *settings, struct http_text host)
{
	/* server.eip is given out as it is, perhaps with port and path: that is what operators of the reference wrote there */
	if (settings->server_eip[0]) {
		struct http_text eip = without_scheme(text_of(settings->server_eip));

		buf_append(out, eip.data, eip.len);
		return;
	}
	if (!settings->server_public_host[0] && host.len) {
		buf_append(out, host.data, host.len);
		return;
	}
	append_host(out, settings->server_public_host[0] ? text_of(settings->server_public_host) : listen_host(settings));
	buf_printf(out, ":%u", (unsigned)settings->server_port);
}

static struct http_text direct_host(const struct settings *settings, struct http_text host)
{
	if (settings->server_public_host[0])
		return text_of(settings->server_public_host);
	if (settings->server_eip[0])
		return host_part(without_scheme(text_of(settings->server_eip)));
	if (settings->docker_host_ip[0])
		return text_of(settings->docker_host_ip);
	return host.len ? host_part(host) : listen_host(settings);
}

void endpoint_text(struct buf *out, const struct settings *settings, struct http_text host, const char *id, uint32_t port,
		   bool server_proxy)
{
	if (server_proxy) {
		append_base(out, settings, host);
		buf_printf(out, "/sandboxes/%s/proxy/%u", id, (unsigned)port);
		return;
	}
	append_host(out, direct_host(settings, host));
	buf_printf(out, ":%u/%s/%u", (unsigned)endpoint_direct_port(settings), id, (unsigned)port);
}
