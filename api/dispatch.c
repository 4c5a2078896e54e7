// SPDX-License-Identifier: Apache-2.0
#include "api/dispatch.h"

#include "api/auth.h"
#include "api/images_api.h"
#include "api/images_commit.h"
#include "api/images_export.h"
#include "api/images_fsck.h"
#include "api/images_gc.h"
#include "api/lifecycle/lifecycle_api.h"
#include "base/cleanup.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENT_BYTES_MAX 1024u
#define ALLOW_BYTES	  128

enum route_flags {
	API_ROUTE_ROOT_ONLY = 1u << 0,
	API_ROUTE_OPEN = 1u << 1,
};

static const struct route {
	const char *method, *pattern;
	unsigned flags;
	void (*handler)(struct api_call *call);
} routes[] = {
#define API_ROUTE(method, pattern, flags, handler) {method, pattern, flags, handler},
#include "api/routes_api.def"
#undef API_ROUTE
};

/* Decoded parameters of one match. */
struct params {
	char text[API_PARAMS_MAX][SEGMENT_BYTES_MAX];
	size_t n;
};

static struct http_text text_of(const char *s)
{
	return (struct http_text){s, strlen(s)};
}

/* Whether @path (raw) is @pattern; a slash at its end does not matter. */
static bool match(const char *pattern, struct http_text path, struct params *params)
{
	struct http_text want = text_of(pattern), want_part, part;

	params->n = 0;
	while (http_next_segment(&want, &want_part)) {
		if (!http_next_segment(&path, &part))
			return false;
		if (!http_text_is(want_part, "{}")) {
			if (part.len != want_part.len || memcmp(part.data, want_part.data, part.len) != 0)
				return false;
			continue;
		}
		ssize_t n = params->n < API_PARAMS_MAX ? http_decode(part, false, params->text[params->n], SEGMENT_BYTES_MAX) : -1;
		if (n <= 0)
			return false;
		params->n++;
	}
	return !path.len || (path.len == 1 && path.data[0] == '/');
}

static bool strip_v1(struct http_text *path)
{
	if (path->len < 3 || memcmp(path->data, "/v1", 3) != 0 || (path->len > 3 && path->data[3] != '/'))
		return false;
	path->data += 3;
	path->len -= 3;
	return true;
}

static bool method_fits(const struct http_text *method, const char *want)
{
	/* HEAD is GET whose body the gateway does not send */
	return http_text_is(*method, want) || (http_text_is(*method, "HEAD") && !strcmp(want, "GET"));
}

/* The route for path and method; NULL: @allow lists the methods that the path takes, "" when there is no such path. */
static const struct route *find_route(const struct api_request *request, struct http_text path, struct params *params,
				      char allow[ALLOW_BYTES])
{
	bool below_v1 = strip_v1(&path);

	allow[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		size_t n = strlen(allow);

		if ((below_v1 && (routes[i].flags & API_ROUTE_ROOT_ONLY)) || !match(routes[i].pattern, path, params))
			continue;
		if (method_fits(&request->method, routes[i].method))
			return &routes[i];
		snprintf(allow + n, ALLOW_BYTES - n, "%s%s", n ? ", " : "", routes[i].method);
	}
	return NULL;
}

static void refuse_method(struct api_call *call, const char *allow)
{
	const struct sbx_err err = {.code = SBX_E_METHOD_NOT_ALLOWED, .msg = "the path does not take this method"};
	auto_buf body = {0}, headers = {0};

	api_error_body(&err, &body);
	buf_printf(&headers, "Allow: %s\r\n", allow);
	const char *text = buf_str(&body), *lines = buf_str(&headers);
	if (!text || !lines) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	const struct api_answer answer = {.status = 405,
					  .content_type = "application/json",
					  .headers = lines,
					  .body = text,
					  .body_len = buf_used(&body)};
	api_reply(call, &answer);
}

static void run(struct api_call *call, const struct api_request *request)
{
	const char *query = memchr(request->target.data, '?', request->target.len);
	struct http_text path = request->target;
	struct params params = {.n = 0};
	struct sbx_err err = {0};
	char allow[ALLOW_BYTES];

	if (query) {
		path.len = (size_t)(query - path.data);
		call->query = (struct http_text){query + 1, request->target.len - path.len - 1};
	}
	const struct route *route = find_route(request, path, &params, allow);
	const struct auth_credentials who = {.api_key = request->api_key,
					     .origin = request->origin,
					     .has_api_key = request->has_api_key,
					     .unix_peer = request->unix_peer};
	if (!(route && (route->flags & API_ROUTE_OPEN)) &&
	    auth_lifecycle(call->context, &who, &call->authorised_by_key, &err) < 0) {
		api_reply_error(call, &err);
		return;
	}
	if (!route) {
		if (allow[0])
			refuse_method(call, allow);
		else
			api_reply_code(call, SBX_E_ROUTE_NOT_FOUND, "no such path");
		return;
	}
	for (size_t i = 0; i < API_PARAMS_MAX; i++)
		call->param[i] = i < params.n ? params.text[i] : "";
	route->handler(call);
}

void dispatch(const struct api_context *context, const struct api_request *request, api_answer_fn *answer, void *arg)
{
	static const char no_memory[] = "{\"code\":\"GENERAL::UNKNOWN_ERROR\",\"message\":\"out of memory\"}";
	struct api_call *call = calloc(1, sizeof(*call));

	if (!call) {
		const struct api_answer failed = {.status = 500,
						  .content_type = "application/json",
						  .headers = "",
						  .body = no_memory,
						  .body_len = sizeof(no_memory) - 1};
		answer(arg, &failed);
		return;
	}
	*call = (struct api_call){.context = context, .answer = answer, .answer_arg = arg, .request = request, .in_handler = true};
	run(call, request);
	call->in_handler = false;
	call->request = NULL;
	call->query = HTTP_NO_TEXT;
	for (size_t i = 0; i < API_PARAMS_MAX; i++)
		call->param[i] = "";
	if (call->ended)
		free(call);
}

void dispatch_print_routes(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++)
		fprintf(out, "%-6s %-40s %s%s\n", routes[i].method, routes[i].pattern,
			routes[i].flags & API_ROUTE_ROOT_ONLY ? "root only " : "", routes[i].flags & API_ROUTE_OPEN ? "no key" : "");
}
