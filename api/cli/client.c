// SPDX-License-Identifier: Apache-2.0
#include "api/cli/client.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define PAGE		200u
#define START_WAIT_MS	10000u
#define START_RETRY_MS	100

struct client {
	struct http_client *http; /* owned */
};

void client_free(struct cli *cli)
{
	if (!cli->client)
		return;
	http_client_free(cli->client->http);
	free(cli->client);
	cli->client = NULL;
}

static struct http_client *connect_url(const char *url, struct sbx_err *err)
{
	char host[256];
	uint32_t port = 80;
	const char *at = url;
	const char *end;
	size_t n;

	if (!strncmp(at, "https://", 8)) {
		sbx_err_set(err, SBX_E_NOT_IMPLEMENTED, 0, "%.200s: TLS is not offered; use a tunnel, or the Unix socket", url);
		return NULL;
	}
	if (!strncmp(at, "http://", 7))
		at += 7;
	if (*at == '[') {
		at++;
		end = strchr(at, ']');
		n = end ? (size_t)(end - at) : 0;
		end = end ? end + 1 : at;
	} else {
		n = strcspn(at, ":/");
		end = at + n;
	}
	if (n == 0 || n >= sizeof(host)) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.200s\" is no address like http://127.0.0.1:8080", url);
		return NULL;
	}
	memcpy(host, at, n);
	host[n] = '\0';
	if (*end == ':') {
		size_t digits = strcspn(end + 1, "/");

		if (num_u32(end + 1, digits, 65535, &port) < 0 || port == 0) {
			sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.200s\" has no port between 1 and 65535", url);
			return NULL;
		}
		end += 1 + digits;
	}
	if (*end && strcmp(end, "/") != 0 && strcmp(end, "/v1") != 0 && strcmp(end, "/v1/") != 0) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.200s\": a path is not expected in the address", url);
		return NULL;
	}
	struct http_client *http = http_client_open_tcp(host, port, CLIENT_TIMEOUT_MS, err);
	if (!http && err->code == SBX_E_SYSTEM) {
		int sys = err->sys;

		sbx_err_set(err, SBX_E_PEER_GONE, sys, "no daemon at %.200s", url);
	}
	return http;
}

struct http_client *client_connect(struct cli *cli, struct sbx_err *err)
{
	if (cli->url)
		return connect_url(cli->url, err);
	struct http_client *http = http_client_open_unix(cli->socket, CLIENT_TIMEOUT_MS, err);
	if (http || err->code != SBX_E_SYSTEM)
		return http;
	int sys = err->sys;
	if (sys == EACCES || sys == EPERM)
		sbx_err_set(err, SBX_E_PEER_GONE, 0,
			    "%.200s is not for you: run as root, have server.unix_socket_owner set to you, or use --url and --key",
			    cli->socket);
	else
		sbx_err_set(err, SBX_E_PEER_GONE, 0, "no daemon answers at %.200s", cli->socket);
	return NULL;
}

struct http_client *client_http(struct cli *cli, struct sbx_err *err)
{
	if (!cli->client) {
		cli->client = calloc(1, sizeof(*cli->client));
		if (!cli->client) {
			sbx_err_set(err, SBX_E_NO_MEMORY, 0, "connection");
			return NULL;
		}
	}
	if (!cli->client->http)
		cli->client->http = client_connect(cli, err);
	return cli->client->http;
}

/* The code of errors.def that has this status and this API code; several share one: the first is good enough for hints. */
static enum sbx_err_code code_of(unsigned int status, const char *api_code)
{
	for (int c = 1; c < SBX_E_COUNT; c++)
		if (sbx_err_status((enum sbx_err_code)c) == (int)status &&
		    !strcmp(sbx_err_api_code((enum sbx_err_code)c), api_code))
			return (enum sbx_err_code)c;
	return status == 401 ? SBX_E_INVALID_API_KEY : status < 500 ? SBX_E_INVALID_REQUEST : SBX_E_SYSTEM;
}

/* Reads an answer that is no success into an error. */
static int read_error(struct http_client *http, unsigned int status, struct sbx_err *err)
{
	auto_free char *body = NULL;
	size_t n = 0;
	struct sbx_err ignored;

	if (http_client_body(http, 65536, &body, &n, &ignored) < 0)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the daemon answered %u", status);
	auto_jv root = jv_parse(body, n, &ignored);
	const char *code = jv_str(jv_get(root, "code"));
	const char *message = jv_str(jv_get(root, "message"));
	const struct jv *detail = jv_get(root, "detail");

	if (!message && jv_type(detail) == JV_ARRAY)
		message = jv_str(jv_get(jv_first(detail), "msg"));
	if (!message)
		message = jv_str(jv_get(root, "error"));
	if (!message && !root && n) { /* port 18080 answers a line of text */
		body[strcspn(body, "\r\n")] = '\0';
		message = body;
	}
	return sbx_err_set(err, code_of(status, code ? code : ""), 0, "%.220s", message ? message : "the daemon refused");
}

int client_begin(struct cli *cli, struct http_client *http, const struct http_client_request *request,
		 struct http_client_response *ret, struct sbx_err *err)
{
	auto_buf headers = {0};
	struct http_client_request with_key = *request;

	if (cli->key)
		buf_printf(&headers, "OPEN-SANDBOX-API-KEY: %s\r\n", cli->key);
	if (request->headers)
		buf_puts(&headers, request->headers);
	with_key.headers = buf_str(&headers);
	if (!with_key.headers)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
	if (http_client_begin(http, &with_key, ret, err) < 0)
		return -1;
	if (ret->status / 100 != 2 && ret->status != 101)
		return read_error(http, ret->status, err);
	return 0;
}

int client_call(struct cli *cli, const char *method, const char *target, struct buf *body, struct jv **ret, struct sbx_err *err)
{
	struct http_client *http = client_http(cli, err);
	struct http_client_request request = {.method = method, .target = target, .headers = "Accept: application/json\r\n"};
	struct http_client_response response;
	auto_free char *answer = NULL;
	size_t n = 0;

	if (!http)
		return -1;
	if (body) {
		if (body->failed)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
		request.headers = "Accept: application/json\r\nContent-Type: application/json\r\n";
		request.body = buf_peek(body);
		request.body_len = buf_used(body);
	}
	if (client_begin(cli, http, &request, &response, err) < 0)
		return -1;
	if (http_client_body(http, CLIENT_BODY_MAX, &answer, &n, err) < 0)
		return -1;
	if (!ret)
		return 0;
	*ret = NULL;
	if (n == 0)
		return 0;
	*ret = jv_parse(answer, n, err);
	return *ret ? 0 : sbx_err_wrap(err, "answer of the daemon");
}

int client_create(struct cli *cli, struct buf *body, struct jv **ret, struct sbx_err *err)
{
	uint64_t give_up_mono_ms = mono_ms() + START_WAIT_MS;

	while (client_call(cli, "POST", "/v1/sandboxes", body, ret, err) < 0) {
		if (err->code != SBX_E_OVERLOADED || !strstr(err->msg, "starting") || mono_ms() >= give_up_mono_ms)
			return -1;
		/* nothing can be waited for: the daemon says when it is asked */
		ignore_result(poll(NULL, 0, START_RETRY_MS) < 0);
	}
	return 0;
}

int client_image(struct cli *cli, const char *image, struct jv **ret, struct sbx_err *err)
{
	auto_buf target = {0};

	buf_puts(&target, "/v1/images/");
	client_escape(&target, image);
	const char *text = buf_str(&target);
	return text ? client_call(cli, "GET", text, NULL, ret, err) : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
}

void client_escape(struct buf *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.~", c);

		if (plain)
			buf_append(out, text, 1);
		else
			buf_printf(out, "%%%02X", c);
	}
}

int client_walk(struct cli *cli, const char *filter, int (*visit)(void *arg, const struct jv *item), void *arg, struct sbx_err *err)
{
	for (unsigned int page = 1;; page++) {
		auto_buf target = {0};
		struct jv *root = NULL;
		bool more = false;
		int rc = 0;

		buf_printf(&target, "/v1/sandboxes?page=%u&pageSize=%u%s", page, PAGE, filter);
		const char *text = buf_str(&target);
		if (!text)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
		if (client_call(cli, "GET", text, NULL, &root, err) < 0)
			return -1;
		for (const struct jv *item = jv_first(jv_get(root, "items")); item && rc == 0; item = jv_next(item))
			rc = visit(arg, item);
		if (jv_bool(jv_get(jv_get(root, "pagination"), "hasNextPage"), &more) < 0)
			more = false;
		jv_free(root);
		if (rc != 0 || !more)
			return rc;
	}
}

struct search {
	const char *text;
	size_t n;
	unsigned int by_name, by_id;
	char name_id[UUID_SIZE], id[UUID_SIZE], other[UUID_SIZE];
};

static int search_one(void *arg, const struct jv *item)
{
	struct search *s = arg;
	const char *id = jv_str(jv_get(item, "id"));
	const char *name = jv_str(jv_get(jv_get(item, "metadata"), "name"));

	if (!id || strlen(id) >= UUID_SIZE)
		return 0;
	if (name && !strcmp(name, s->text) && s->by_name++ == 0)
		snprintf(s->name_id, sizeof(s->name_id), "%s", id);
	if (!strncmp(id, s->text, s->n)) {
		if (s->by_id++ == 0)
			snprintf(s->id, sizeof(s->id), "%s", id);
		else
			snprintf(s->other, sizeof(s->other), "%s", id);
	}
	return 0;
}

int client_find(struct cli *cli, const char *text, char out[UUID_SIZE], struct sbx_err *err)
{
	struct search s = {.text = text, .n = strlen(text)};
	uint8_t id[16];

	if (uuid_parse(text, id) == 0) {
		uuid_format(id, out);
		return 0;
	}
	if (client_walk(cli, "", search_one, &s, err) < 0)
		return -1;
	if (s.by_id == 1 || s.by_name == 1) {
		snprintf(out, UUID_SIZE, "%s", s.by_id == 1 ? s.id : s.name_id);
		return 0;
	}
	if (s.by_id > 1)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.40s\" begins %u ids, such as %s and %s; type more of it", text,
				   s.by_id, s.id, s.other);
	if (s.by_name > 1)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%u sandboxes have the name \"%.60s\"; use an id", s.by_name, text);
	return sbx_err_set(err, SBX_E_SANDBOX_NOT_FOUND, 0, "no sandbox has the id or name \"%.60s\"", text);
}
