// SPDX-License-Identifier: Apache-2.0
/* DOC: who answers which target, and who may ask: the matrix of Host, Origin, key and route. */
#include "tests/tap.h"

#include "api/access.h"
#include "api/routes.h"
#include "base/cleanup.h"

static struct http_text text_of(const char *s)
{
	return s ? (struct http_text){s, strlen(s)} : HTTP_NO_TEXT;
}

static void test_match(void)
{
	static const struct {
		const char *why;
		enum gw_listener listener;
		const char *method, *path;
		enum route_who who; /* NONE: no route */
		const char *id;
		unsigned port;
		const char *rest;
	} cases[] = {
		{"health", GW_LISTENER_API, "GET", "/health", ROUTE_LOCAL, NULL, 0, NULL},
		{"health is at the root only", GW_LISTENER_API, "GET", "/v1/health", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"health with another method", GW_LISTENER_API, "POST", "/health", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"create", GW_LISTENER_API, "POST", "/v1/sandboxes", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"create at the root", GW_LISTENER_API, "POST", "/sandboxes", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"Unix listener", GW_LISTENER_UNIX, "POST", "/sandboxes", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"import", GW_LISTENER_API, "POST", "/v1/images/import", ROUTE_IMPORT, NULL, 0, NULL},
		{"unknown path", GW_LISTENER_API, "GET", "/nothing", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"star", GW_LISTENER_API, "OPTIONS", "*", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"proxy", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/80/a/b", ROUTE_PROXY, "x", 80, "/a/b"},
		{"proxy below /v1", GW_LISTENER_API, "PATCH", "/v1/sandboxes/x/proxy/44772/ping", ROUTE_PROXY, "x", 44772, "/ping"},
		{"proxy without a path", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/80", ROUTE_PROXY, "x", 80, ""},
		{"proxy with a slash", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/80/", ROUTE_PROXY, "x", 80, "/"},
		{"an encoded slash is no segment", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/80/a%2Fb%20c", ROUTE_PROXY, "x", 80,
		 "/a%2Fb%20c"},
		{"an encoded slash in the id", GW_LISTENER_API, "GET", "/sandboxes/x%2Fproxy/80/a", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"port with letters", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/80a/b", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"port with a sign", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/+80/b", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"no port", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"port past 65535", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/65536/b", ROUTE_PROXY, "x", 0, "/b"},
		{"port of many digits", GW_LISTENER_API, "GET", "/sandboxes/x/proxy/99999999999999999999/b", ROUTE_PROXY, "x", 0, "/b"},
		{"no id", GW_LISTENER_API, "GET", "/sandboxes//proxy/80/b", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"/v1x is not /v1", GW_LISTENER_API, "GET", "/v1x/sandboxes/x/proxy/80/b", ROUTE_LIFECYCLE, NULL, 0, NULL},
		{"direct", GW_LISTENER_ENDPOINT, "GET", "/x/80/a?b", ROUTE_PROXY, "x", 80, "/a?b"},
		{"direct root", GW_LISTENER_ENDPOINT, "GET", "/x/80", ROUTE_PROXY, "x", 80, ""},
		{"no API on the second origin", GW_LISTENER_ENDPOINT, "GET", "/v1/sandboxes", ROUTE_NONE, NULL, 0, NULL},
		{"no create there", GW_LISTENER_ENDPOINT, "POST", "/sandboxes", ROUTE_NONE, NULL, 0, NULL},
		{"nor health", GW_LISTENER_ENDPOINT, "GET", "/health", ROUTE_NONE, NULL, 0, NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct route_match m;
		bool found = routes_match(cases[i].listener, text_of(cases[i].method), text_of(cases[i].path), &m);
		bool good = found ? m.who == cases[i].who : cases[i].who == ROUTE_NONE;
		if (good && cases[i].who == ROUTE_PROXY)
			good = http_text_is(m.id, cases[i].id) && m.port == cases[i].port && m.path.len == strlen(cases[i].rest) &&
			       !memcmp(m.path.data, cases[i].rest, m.path.len);
		ok(good, "route: %s", cases[i].why);
	}
	struct http_text rest;
	uint32_t port = 0;
	ok(routes_proxy_path(text_of("/proxy/8000/x/y"), &port, &rest) && port == 8000 && http_text_is(rest, "/x/y"), "nested port");
	ok(!routes_proxy_path(text_of("/proxy"), &port, &rest) && !routes_proxy_path(text_of("/proxyx/1"), &port, &rest), "none");
}

static void test_dot_dot(void)
{
	static const struct {
		const char *path;
		bool want;
	} cases[] = {
		{"/a/b", false}, {"/a/./b", false}, {"/a/../b", true}, {"/a/%2e%2e/b", true}, {"/a/.%2E/b", true}, {"/a..b", true},
		{"/a%2e", false}, {"/a/%zz", true}, {"/a/%00", true}, {"/%252e%252e/", false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ok(routes_has_dot_dot(text_of(cases[i].path)) == cases[i].want, "..: %s", cases[i].path);
}

enum { OK = 0, E421 = SBX_E_MISDIRECTED, E403 = SBX_E_FORBIDDEN_ORIGIN };

static void test_access(void)
{
	static char listed[] = "sbx.example";
	char *list[] = {listed};
	const struct access_names names = {list, 1};
	static const struct {
		const char *why, *host, *origin, *site;
		bool over_unix, secret, key_required;
		int want;
		bool app_link;
	} cases[] = {
		{"address we listen on", "192.0.2.1:8080", NULL, NULL, false, false, true, OK, false},
		{"localhost", "localhost:8080", NULL, NULL, false, false, true, OK, false},
		{"localhost in capitals", "LOCALHOST", NULL, NULL, false, false, true, OK, false},
		{"loopback", "127.0.0.1", NULL, NULL, false, false, true, OK, false},
		{"IPv6 loopback", "[::1]:8080", NULL, NULL, false, false, true, OK, false},
		{"configured name", "SBX.example:1", NULL, NULL, false, false, true, OK, false},
		{"other name", "evil.example", NULL, NULL, false, false, true, E421, false},
		{"other name with a key", "evil.example", NULL, NULL, false, true, true, E421, false},
		{"name that only begins like ours", "sbx.example.evil", NULL, NULL, false, false, true, E421, false},
		{"localhost below another name", "localhost.evil", NULL, NULL, false, false, true, E421, false},
		{"other address", "192.0.2.9:8080", NULL, NULL, false, false, true, E421, false},
		{"no Host", NULL, NULL, NULL, false, false, true, E421, false},
		{"empty Host", "", NULL, NULL, false, false, true, E421, false},
		{"broken brackets", "[::1", NULL, NULL, false, false, true, E421, false},
		{"any Host over the Unix socket", "x", "http://evil", "cross-site", true, false, true, OK, false},
		{"same origin", "localhost:8080", "http://localhost:8080", "same-origin", false, false, true, OK, false},
		{"same host, other port", "localhost:8080", "http://localhost:3000", NULL, false, false, true, E403, false},
		{"same host over TLS", "localhost:8080", "https://localhost:8080", NULL, false, false, true, E403, false},
		{"foreign page", "localhost:8080", "http://evil.example", NULL, false, false, true, E403, false},
		{"foreign page with a key", "localhost:8080", "http://evil.example", NULL, false, true, true, OK, false},
		{"foreign page, no key wanted", "localhost:8080", "http://evil.example", NULL, false, true, false, E403, false},
		{"null origin", "localhost:8080", "null", NULL, false, false, true, E403, false},
		{"empty origin", "localhost:8080", "", NULL, false, false, true, E403, false},
		{"cross-site without Origin", "localhost:8080", NULL, "cross-site", false, false, true, E403, false},
		{"same-site without Origin", "localhost:8080", NULL, "same-site", false, false, true, E403, false},
		{"typed by the user", "localhost:8080", NULL, "none", false, false, true, OK, false},
		{"a link to an application", "localhost:8080", NULL, "cross-site", false, false, true, OK, true},
		{"not with an Origin", "localhost:8080", "http://evil.example", "cross-site", false, false, true, E403, true},
		{"nor to another Host", "evil.example", NULL, "cross-site", false, false, true, E421, true},
		{"claims same-origin, Origin says no", "localhost:8080", "http://evil.example", "same-origin", false, false, true, E403, false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct access_request rq = {.host = text_of(cases[i].host), .origin = text_of(cases[i].origin),
						  .fetch_site = text_of(cases[i].site), .local = "192.0.2.1:8080",
						  .over_unix = cases[i].over_unix, .has_secret = cases[i].secret,
						  .key_required = cases[i].key_required, .app_link = cases[i].app_link};
		struct sbx_err err = {0};
		int r = access_check(&names, &rq, &err);
		ok(r == (cases[i].want ? -1 : 0) && (int)err.code == cases[i].want, "access: %s", cases[i].why);
	}
	ok(access_preflight_names_secret(text_of("content-type, Open-Sandbox-Api-Key")), "a preflight that asks to send the key");
	ok(!access_preflight_names_secret(text_of("content-type, x-open-sandbox-api-key")), "one that does not");
}

int main(void)
{
	test_match();
	test_dot_dot();
	test_access();
	return tap_done();
}
