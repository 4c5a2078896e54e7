// SPDX-License-Identifier: Apache-2.0
#include "api/access.h"

#include "base/cleanup.h"
#include "base/http1.h"
#include "base/settings.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* The host of "host:port", "[::1]:port" or "host", without brackets. */
static struct http_text host_part(struct http_text t)
{
	if (t.len && t.data[0] == '[') {
		const char *end = memchr(t.data, ']', t.len);
		return end ? (struct http_text){t.data + 1, (size_t)(end - t.data) - 1} : HTTP_NO_TEXT;
	}
	const char *colon = t.len ? memchr(t.data, ':', t.len) : NULL;
	if (colon)
		t.len = (size_t)(colon - t.data);
	return t;
}

static bool same_nocase(struct http_text a, struct http_text b)
{
	return a.data && b.data && a.len == b.len && !strncasecmp(a.data, b.data, a.len);
}

static struct http_text text_of(const char *s)
{
	return (struct http_text){s, strlen(s)};
}

static int add_name(struct access_names *names, const char *value)
{
	const char *scheme = strstr(value, "://");
	struct http_text t = text_of(scheme ? scheme + 3 : value);
	const char *slash = memchr(t.data, '/', t.len);

	if (slash)
		t.len = (size_t)(slash - t.data);
	t = host_part(t);
	if (!t.len)
		return 0;
	char **grown = reallocarray(names->name, names->n + 1, sizeof(*grown));
	char *copy = http_text_dup(t);
	if (grown)
		names->name = grown;
	if (!grown || !copy) {
		free(copy);
		return -1;
	}
	names->name[names->n++] = copy;
	return 0;
}

int access_names_of(const struct settings *s, struct access_names *ret, struct sbx_err *err)
{
	struct access_names names = {0};
	bool bad = add_name(&names, s->server_public_host) < 0 || add_name(&names, s->server_eip) < 0 ||
		   add_name(&names, s->docker_host_ip) < 0 || add_name(&names, s->server_host) < 0;

	for (size_t i = 0; i < s->server_hostnames.n && !bad; i++)
		bad = add_name(&names, s->server_hostnames.item[i]) < 0;
	if (bad) {
		access_names_clear(&names);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "names of the server");
	}
	*ret = names;
	return 0;
}

void access_names_clear(struct access_names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->name[i]);
	free(names->name);
	*names = (struct access_names){0};
}

static bool host_is_ours(const struct access_names *names, const struct access_request *rq)
{
	struct http_text host = host_part(rq->host);

	if (!host.len)
		return false;
	if (http_text_is_nocase(host, "localhost") || same_nocase(host, host_part(text_of(rq->local))))
		return true;
	/* loopback has many spellings in one listener: 127.0.0.1 and ::1 cannot be rebound to anything else */
	if (http_text_is(host, "127.0.0.1") || http_text_is(host, "::1"))
		return true;
	for (size_t i = 0; i < names->n; i++)
		if (same_nocase(host, text_of(names->name[i])))
			return true;
	return false;
}

bool access_foreign(const struct access_request *rq)
{
	static const char scheme[] = "http://";
	const size_t n = sizeof(scheme) - 1;

	if (rq->fetch_site.data && !(rq->app_link && !rq->origin.data) && !http_text_is_nocase(rq->fetch_site, "none") &&
	    !http_text_is_nocase(rq->fetch_site, "same-origin"))
		return true;
	if (!rq->origin.data)
		return false;
	/* the same origin: scheme, host and port as in Host */
	if (rq->origin.len <= n || strncasecmp(rq->origin.data, scheme, n) != 0)
		return true;
	return !same_nocase((struct http_text){rq->origin.data + n, rq->origin.len - n}, rq->host);
}

int access_check(const struct access_names *names, const struct access_request *rq, struct sbx_err *err)
{
	/* A browser cannot open a Unix socket, and its permissions say who may. */
	if (rq->over_unix)
		return 0;
	if (!host_is_ours(names, rq))
		return sbx_err_set(err, SBX_E_MISDIRECTED, 0, "the Host header names no address of this server; see server.hostnames");
	if (access_foreign(rq) && !(rq->has_secret && rq->key_required))
		return sbx_err_set(err, SBX_E_FORBIDDEN_ORIGIN, 0, "a web page of another origin may not call this API without a key");
	return 0;
}

bool access_preflight_names_secret(struct http_text asked)
{
	static const char *const secrets[] = {"open-sandbox-api-key", "x-execd-access-token", "opensandbox-egress-auth"};

	for (size_t i = 0; i < ARRAY_SIZE(secrets) && asked.data; i++)
		if (http1_list_has(asked.data, asked.len, secrets[i], strlen(secrets[i])))
			return true;
	return false;
}
