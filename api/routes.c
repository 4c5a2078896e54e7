// SPDX-License-Identifier: Apache-2.0
#include "api/routes.h"

#include "base/cleanup.h"
#include "base/num.h"

#include <string.h>

enum listener_name { LISTENER_API = GW_LISTENER_API, LISTENER_ENDPOINT = GW_LISTENER_ENDPOINT };
enum mount_name { MOUNT_ROOT, MOUNT_BOTH };

static const struct {
	enum listener_name listener;
	const char *method, *pattern;
	enum mount_name mounts;
	enum route_who who;
	const char *who_name, *auth, *text;
} routes[] = {
#define ROUTE(l, m, p, mounts, who, auth, text) {LISTENER_##l, m, p, MOUNT_##mounts, ROUTE_##who, #who, #auth, text},
#include "api/routes.def"
#undef ROUTE
};

static bool take_prefix(struct http_text *path, const char *prefix, size_t n)
{
	if (path->len < n || memcmp(path->data, prefix, n) != 0)
		return false;
	path->data += n;
	path->len -= n;
	return true;
}

static struct http_text take_segment(struct http_text *path)
{
	const char *slash = path->len ? memchr(path->data, '/', path->len) : NULL;
	struct http_text segment = {path->data, slash ? (size_t)(slash - path->data) : path->len};

	path->data += segment.len;
	path->len -= segment.len;
	return segment;
}

/* Digits only; a number that is no port is still a route of this shape, and answered as such. */
static bool take_port(struct http_text *path, uint32_t *ret_port)
{
	struct http_text digits = take_segment(path);

	if (!digits.len)
		return false;
	for (size_t i = 0; i < digits.len; i++)
		if (digits.data[i] < '0' || digits.data[i] > '9')
			return false;
	if (num_u32(digits.data, digits.len, 65535, ret_port) < 0)
		*ret_port = 0;
	return true;
}

static bool matches(const char *pattern, struct http_text path, struct route_match *ret)
{
	for (const char *p = pattern; *p;) {
		size_t plain = strcspn(p, "{");

		if (plain) {
			if (!take_prefix(&path, p, plain))
				return false;
			p += plain;
		} else if (!strncmp(p, "{id}", 4)) {
			ret->id = take_segment(&path);
			if (!ret->id.len)
				return false;
			p += 4;
		} else if (!strncmp(p, "{port}", 6)) {
			if (!take_port(&path, &ret->port))
				return false;
			p += 6;
		} else { /* {path}, always last */
			ret->path = path;
			return !path.len || path.data[0] == '/';
		}
	}
	return !path.len;
}

bool routes_match(enum gw_listener listener, struct http_text method, struct http_text path, struct route_match *ret)
{
	enum listener_name at = listener == GW_LISTENER_ENDPOINT ? LISTENER_ENDPOINT : LISTENER_API;
	struct http_text below = path;
	bool has_v1 = take_prefix(&below, "/v1", 3) && (!below.len || below.data[0] == '/');

	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (routes[i].listener != at || (strcmp(routes[i].method, "*") != 0 && !http_text_is(method, routes[i].method)))
			continue;
		*ret = (struct route_match){.who = routes[i].who};
		if (matches(routes[i].pattern, path, ret))
			return true;
		*ret = (struct route_match){.who = routes[i].who};
		if (routes[i].mounts == MOUNT_BOTH && has_v1 && matches(routes[i].pattern, below, ret))
			return true;
	}
	*ret = (struct route_match){0};
	if (at == LISTENER_API)
		ret->who = ROUTE_LIFECYCLE; /* "*" of OPTIONS */
	return at == LISTENER_API;
}

bool routes_proxy_path(struct http_text path, uint32_t *ret_port, struct http_text *ret_rest)
{
	struct route_match m = {0};

	if (!matches("/proxy/{port}{path}", path, &m))
		return false;
	*ret_port = m.port;
	*ret_rest = m.path;
	return true;
}

bool routes_has_dot_dot(struct http_text path)
{
	auto_free char *decoded = malloc(path.len + 1);

	return !decoded || http_decode(path, false, decoded, path.len + 1) < 0 || strstr(decoded, "..");
}

void routes_print(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++)
		fprintf(out, "%-9s %-7s %-46s %-9s %-5s %s\n", routes[i].listener == LISTENER_API ? "api" : "endpoint",
			routes[i].method, routes[i].pattern, routes[i].who_name, routes[i].auth, routes[i].text);
}
