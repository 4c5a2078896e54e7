// SPDX-License-Identifier: Apache-2.0
#include "images/registry_auth.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- challenge --- */

struct reader {
	const char *at, *end;
};

static bool is_tchar(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static void skip_space(struct reader *r)
{
	while (r->at < r->end && (*r->at == ' ' || *r->at == '\t'))
		r->at++;
}

static size_t take_token(struct reader *r, const char **ret)
{
	*ret = r->at;
	while (r->at < r->end && is_tchar(*r->at))
		r->at++;
	return (size_t)(r->at - *ret);
}

static int odd(struct sbx_err *err, const char *what)
{
	return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the registry's challenge: %s", what);
}

/* The value behind "=": a token or a quoted string, into @out. */
static int take_value(struct reader *r, char *out, size_t size, struct sbx_err *err)
{
	size_t n = 0;
	bool quoted = r->at < r->end && *r->at == '"';

	if (quoted)
		r->at++;
	while (r->at < r->end && (quoted ? *r->at != '"' : is_tchar(*r->at))) {
		char c = *r->at++;

		if (quoted && c == '\\') {
			if (r->at == r->end)
				return odd(err, "it ends in an escape");
			c = *r->at++;
		}
		if (c < 0x20 || c > 0x7e)
			return odd(err, "a control character, or one that is not ASCII");
		if (n + 1 >= size)
			return odd(err, "a value is too long");
		out[n++] = c;
	}
	if (quoted && (r->at == r->end || *r->at++ != '"'))
		return odd(err, "a quote is not closed");
	if (!quoted && !n)
		return odd(err, "a parameter has no value");
	out[n] = '\0';
	return 0;
}

static int take_parameter(struct reader *r, const char *name, size_t n, struct registry_challenge *c, unsigned *seen,
			  struct sbx_err *err)
{
	const struct {
		const char *name;
		char *to;
		size_t size;
	} known[] = {
		{"realm", c->realm, sizeof(c->realm)},
		{"service", c->service, sizeof(c->service)},
		{"scope", c->scope, sizeof(c->scope)},
	};
	char unused[REGISTRY_CHALLENGE_BYTES];

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strlen(known[i].name) != n || strncasecmp(known[i].name, name, n) != 0)
			continue;
		if (*seen & 1u << i)
			return odd(err, "a parameter comes twice");
		*seen |= 1u << i;
		return take_value(r, known[i].to, known[i].size, err);
	}
	return take_value(r, unused, sizeof(unused), err);
}

/* Parameters of one challenge; ends before the scheme of the next. */
static int take_parameters(struct reader *r, struct registry_challenge *c, struct sbx_err *err)
{
	unsigned seen = 0;

	for (bool first = true;; first = false) {
		struct reader before = *r;
		const char *name;

		skip_space(r);
		if (!first) {
			if (r->at == r->end)
				return 0;
			if (*r->at != ',')
				return odd(err, "no comma between two parameters");
			while (r->at < r->end && (*r->at == ',' || *r->at == ' ' || *r->at == '\t'))
				r->at++;
		}
		if (r->at == r->end)
			return 0;
		size_t n = take_token(r, &name);
		skip_space(r);
		if (n && r->at < r->end && *r->at == '=') {
			r->at++;
			skip_space(r);
			if (take_parameter(r, name, n, c, &seen, err) < 0)
				return -1;
			continue;
		}
		if (!n)
			return odd(err, "a character that no parameter has");
		if (first)
			return odd(err, "a parameter without a value");
		*r = before; /* the next scheme */
		return 0;
	}
}

int registry_challenge_parse(const char *text, size_t n, struct registry_challenge *ret, size_t *ret_n, struct sbx_err *err)
{
	struct reader r = {text, text + n};

	*ret_n = 0;
	if (n > REGISTRY_CHALLENGE_BYTES)
		return odd(err, "it is too long");
	for (;;) {
		const char *scheme;

		while (r.at < r.end && (*r.at == ',' || *r.at == ' ' || *r.at == '\t'))
			r.at++;
		if (r.at == r.end)
			break;
		size_t len = take_token(&r, &scheme);
		if (!len)
			return odd(err, "no scheme");
		if (*ret_n == REGISTRY_CHALLENGES_MAX)
			return odd(err, "too many schemes");
		struct registry_challenge *c = &ret[(*ret_n)++];
		*c = (struct registry_challenge){0};
		if (len == 5 && !strncasecmp(scheme, "basic", 5))
			c->scheme = REGISTRY_SCHEME_BASIC;
		else if (len == 6 && !strncasecmp(scheme, "bearer", 6))
			c->scheme = REGISTRY_SCHEME_BEARER;
		else if (r.at == r.end || *r.at == ',')
			continue; /* "Negotiate" alone */
		if (r.at < r.end && *r.at != ' ' && *r.at != ',')
			return odd(err, "no space behind the scheme");
		if (r.at < r.end && *r.at == ' ' && take_parameters(&r, c, err) < 0)
			return -1;
		if (c->scheme == REGISTRY_SCHEME_BEARER && !c->realm[0])
			return odd(err, "a bearer challenge without a realm");
	}
	return *ret_n ? 0 : odd(err, "it is empty");
}

/* --- token --- */

int registry_token_parse(const char *data, size_t n, char out[REGISTRY_TOKEN_BYTES], struct sbx_err *err)
{
	auto_jv root = jv_parse(data, n, err);

	if (!root) {
		err->code = SBX_E_PROTOCOL;
		return sbx_err_wrap(err, "the token service's answer");
	}
	const char *token = jv_str(jv_get(root, "token"));
	if (!token || !*token)
		token = jv_str(jv_get(root, "access_token"));
	if (!token || !*token)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the token service's answer holds no token");
	size_t len = strlen(token);
	if (len >= REGISTRY_TOKEN_BYTES)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the token is too long");
	for (size_t i = 0; i < len; i++)
		if (token[i] <= ' ' || token[i] > '~') /* it becomes part of a header line */
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the token holds a character that no header may hold");
	memcpy(out, token, len + 1);
	return 0;
}

void registry_error_text(const char *data, size_t n, char *out, size_t size)
{
	struct sbx_err ignored = {0};
	auto_jv root = n ? jv_parse(data, n, &ignored) : NULL;
	const struct jv *first = jv_first(jv_get(root, "errors"));
	const char *text = jv_str(jv_get(first, "message"));

	out[0] = '\0';
	if (!text || !*text)
		text = jv_str(jv_get(first, "code"));
	if (!text || !*text)
		text = jv_str(jv_get(root, "details"));
	if (text)
		sbx_printable(text, strlen(text), out, size);
}

/* --- credential file --- */

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void registry_basic(const struct registry_credentials *c, struct buf *out)
{
	auto_buf plain = {0};

	buf_printf(&plain, "%s:%s", c->user, c->password);
	buf_puts(out, "Basic ");
	const uint8_t *p = (const uint8_t *)buf_peek(&plain);
	for (size_t i = 0, n = buf_used(&plain); i < n; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
		const char four[4] = {base64_digits[v >> 18], base64_digits[v >> 12 & 63],
				      i + 1 < n ? base64_digits[v >> 6 & 63] : '=', i + 2 < n ? base64_digits[v & 63] : '='};

		buf_append(out, four, sizeof(four));
	}
	if (plain.failed)
		out->failed = true;
}

/* Return: bytes, or -1 */
static ssize_t base64_decode(const char *text, char *out, size_t size)
{
	uint32_t bits = 0;
	unsigned n_bits = 0;
	size_t n = 0;

	for (; *text && *text != '='; text++) {
		const char *at = strchr(base64_digits, *text);

		if (!at)
			return -1;
		bits = bits << 6 | (uint32_t)(at - base64_digits);
		n_bits += 6;
		if (n_bits < 8)
			continue;
		n_bits -= 8;
		if (n == size)
			return -1;
		out[n++] = (char)(bits >> n_bits & 0xff);
	}
	return text[strspn(text, "=")] || strlen(text) > 2 ? -1 : (ssize_t)n;
}

static int failed(const char *host, const char *what, struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_IMAGE_PULL_FAILED, 0, "images.auth_file: %s for %.80s", what, host);
}

static int take_auth(const char *auth, const char *host, struct registry_credentials *ret, struct sbx_err *err)
{
	char plain[sizeof(ret->user) + sizeof(ret->password)];
	ssize_t n = base64_decode(auth, plain, sizeof(plain) - 1);

	if (n < 0 || memchr(plain, '\0', (size_t)n))
		return failed(host, "\"auth\" is not base64 of a user and a password", err);
	plain[n] = '\0';
	char *colon = strchr(plain, ':');
	if (!colon || (size_t)(colon - plain) >= sizeof(ret->user) || strlen(colon + 1) >= sizeof(ret->password))
		return failed(host, "\"auth\" is not base64 of a user and a password", err);
	*colon = '\0';
	memcpy(ret->user, plain, strlen(plain) + 1);
	memcpy(ret->password, colon + 1, strlen(colon + 1) + 1);
	return 0;
}

static int take_entry(const struct jv *entry, const char *host, struct registry_credentials *ret, struct sbx_err *err)
{
	const char *auth = jv_str(jv_get(entry, "auth")), *user = jv_str(jv_get(entry, "username")),
		   *password = jv_str(jv_get(entry, "password")), *identity = jv_str(jv_get(entry, "identitytoken"));

	if (identity && *identity)
		return failed(host, "identity tokens are not offered", err);
	if (auth && *auth)
		return take_auth(auth, host, ret, err);
	if (!user || !password)
		return 0;
	if (strlen(user) >= sizeof(ret->user) || strlen(password) >= sizeof(ret->password))
		return failed(host, "user or password is too long", err);
	memcpy(ret->user, user, strlen(user) + 1);
	memcpy(ret->password, password, strlen(password) + 1);
	return 0;
}

static bool same_host(const char *name, size_t n, const char *host)
{
	static const char *const hub[] = {"docker.io", "index.docker.io", "registry-1.docker.io"};

	if (n == strlen(host) && !strncasecmp(name, host, n))
		return true;
	for (size_t i = 0; !strcmp(host, "docker.io") && i < ARRAY_SIZE(hub); i++)
		if (n == strlen(hub[i]) && !strncasecmp(name, hub[i], n))
			return true;
	return false;
}

/*
 * How well a name of the file ("https://index.docker.io/v1/", "registry.example", podman's "registry.example/team") fits the
 * repository @path of @host; 0: not at all.
 */
static size_t fits(const char *name, const char *host, const char *path)
{
	const char *from = strstr(name, "://");

	from = from ? from + 3 : name;
	size_t n = strcspn(from, "/");
	if (!same_host(from, n, host))
		return 0;
	const char *below = from + n + strspn(from + n, "/");
	n = strlen(below);
	while (n && below[n - 1] == '/')
		n--;
	if (!n || (n == 2 && (!strncmp(below, "v1", n) || !strncmp(below, "v2", n))))
		return 1;
	return !strncmp(below, path, n) && (!path[n] || path[n] == '/') ? 1 + n : 0;
}

int registry_auth_file(const char *data, size_t n, const char *host, const char *path, struct registry_credentials *ret, struct sbx_err *err)
{
	auto_jv root = jv_parse(data, n, err);
	const struct jv *best = NULL;
	size_t best_fit = 0;

	*ret = (struct registry_credentials){0};
	if (!root) {
		err->code = SBX_E_IMAGE_PULL_FAILED;
		return sbx_err_wrap(err, "images.auth_file");
	}
	for (const struct jv *v = jv_first(jv_get(root, "auths")); v; v = jv_next(v)) {
		size_t fit = fits(jv_name(v), host, path);

		if (fit > best_fit) {
			best_fit = fit;
			best = v;
		}
	}
	if (best && take_entry(best, host, ret, err) < 0)
		return -1;
	if (ret->user[0] || ret->password[0])
		return 0;
	for (const struct jv *v = jv_first(jv_get(root, "credHelpers")); v; v = jv_next(v))
		if (fits(jv_name(v), host, path))
			return failed(host, "credential helpers are not offered (give a user and a password, or \"auth\" in the file)", err);
	/* what docker login leaves when a helper keeps the secret: an entry with nothing in it */
	if (best && jv_str(jv_get(root, "credsStore")))
		return failed(host, "credsStore is not offered (give a user and a password, or \"auth\" in the file)", err);
	return 0;
}

bool registry_is_loopback(const char *host)
{
	char name[256];
	size_t n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	unsigned part = 0;

	if (n >= sizeof(name))
		return false;
	memcpy(name, host, n);
	name[n] = '\0';
	if (!strcasecmp(name, "localhost") || !strcmp(name, "[::1]"))
		return true;
	if (strncmp(name, "127.", 4) != 0)
		return false;
	/* an address, not a name that begins like one */
	for (const char *c = name; *c; c++) {
		if (*c == '.')
			part++;
		else if (*c < '0' || *c > '9')
			return false;
	}
	return part == 3;
}
