// SPDX-License-Identifier: Apache-2.0
#include "images/registry_http.h"

#include "base/cleanup.h"
#include "base/num.h"
#include "config.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_S 20L

struct registry_http {
	CURLM *multi;
	struct registry_transfer *first;
	bool proxied; /* the environment names a proxy */
};

struct registry_transfer {
	struct registry_http *http;
	struct registry_transfer *next;
	CURL *easy;
	struct curl_slist *headers;
	struct registry_transfer_spec spec; /* callbacks and flags; its texts are gone */
	struct registry_reply reply;
	size_t head_bytes;
	bool told, stopped, address_refused, head_too_large;
	char error[CURL_ERROR_SIZE];
};

static bool environment_has_proxy(void)
{
	static const char *const names[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (getenv(names[i]) && *getenv(names[i]))
			return true;
	return false;
}

struct registry_http *registry_http_new(struct sbx_err *err)
{
	struct registry_http *h = calloc(1, sizeof(*h));

	if (h && curl_global_init(CURL_GLOBAL_DEFAULT) == 0)
		h->multi = curl_multi_init();
	if (!h || !h->multi) {
		free(h);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "HTTP engine");
		return NULL;
	}
	h->proxied = environment_has_proxy();
	return h;
}

static void transfer_free(struct registry_transfer *t)
{
	for (struct registry_transfer **at = &t->http->first; *at; at = &(*at)->next) {
		if (*at != t)
			continue;
		*at = t->next;
		break;
	}
	if (t->easy) {
		curl_multi_remove_handle(t->http->multi, t->easy);
		curl_easy_cleanup(t->easy);
	}
	curl_slist_free_all(t->headers);
	free(t);
}

void registry_http_free(struct registry_http *h)
{
	if (!h)
		return;
	while (h->first)
		transfer_free(h->first);
	curl_multi_cleanup(h->multi);
	curl_global_cleanup();
	free(h);
}

/* ---- what comes ---- */

static void keep(char *out, size_t size, const char *value, size_t n)
{
	if (n >= size)
		n = 0; /* too long to be meant */
	memcpy(out, value, n);
	out[n] = '\0';
}

static void take_header(struct registry_reply *r, const char *name, size_t name_len, const char *value, size_t n)
{
	const struct {
		const char *name;
		char *to;
		size_t size;
	} rows[] = {
		{"content-type", r->type, sizeof(r->type)},
		{"content-encoding", r->encoding, sizeof(r->encoding)},
		{"content-range", r->range, sizeof(r->range)},
		{"retry-after", r->retry_after, sizeof(r->retry_after)},
		{"location", r->location, sizeof(r->location)},
	};
	uint64_t length;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (strlen(rows[i].name) == name_len && !strncasecmp(rows[i].name, name, name_len))
			keep(rows[i].to, rows[i].size, value, n);
	if (name_len == 14 && !strncasecmp(name, "content-length", 14) && num_u64(value, n, INT64_MAX, &length) == 0)
		r->length = (int64_t)length;
	if (name_len == 16 && !strncasecmp(name, "www-authenticate", 16) && r->n_www < REGISTRY_WWW_MAX)
		keep(r->www[r->n_www++], sizeof(r->www[0]), value, n);
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
	struct registry_transfer *t = arg;
	size_t n = size * count;
	const char *colon;

	t->head_bytes += n;
	if (t->head_bytes > REGISTRY_HEAD_BYTES) {
		t->head_too_large = true;
		return 0;
	}
	if (n >= 5 && !memcmp(data, "HTTP/", 5)) { /* the one behind an interim reply counts */
		t->reply = (struct registry_reply){.length = -1};
		return n;
	}
	while (n && (data[n - 1] == '\n' || data[n - 1] == '\r'))
		n--;
	colon = memchr(data, ':', n);
	if (colon) {
		const char *value = colon + 1, *end = data + n;

		while (value < end && (*value == ' ' || *value == '\t'))
			value++;
		while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
			end--;
		take_header(&t->reply, data, (size_t)(colon - data), value, (size_t)(end - value));
	}
	return size * count;
}

static bool tell_head(struct registry_transfer *t)
{
	long status = 0;

	if (t->told)
		return !t->stopped;
	t->told = true;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	t->reply.status = status > 0 && status < 1000 ? (unsigned)status : 0;
	if (!t->spec.head(t->spec.arg, &t->reply))
		t->stopped = true;
	return !t->stopped;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
	struct registry_transfer *t = arg;

	if (!tell_head(t))
		return 0;
	if (!t->spec.body(t->spec.arg, data, size * count)) {
		t->stopped = true;
		return 0;
	}
	return size * count;
}

/* A registry may send us elsewhere, but not into this machine's own services or to a cloud's metadata. */
static bool address_is_inside(const struct sockaddr *a, size_t n)
{
	if (a->sa_family == AF_INET && n >= sizeof(struct sockaddr_in)) {
		uint32_t v = ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr);

		return v >> 24 == 127 || v >> 24 == 0 || v >> 16 == 0xa9fe;
	}
	if (a->sa_family == AF_INET6 && n >= sizeof(struct sockaddr_in6)) {
		const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;

		return IN6_IS_ADDR_LOOPBACK(six) || IN6_IS_ADDR_LINKLOCAL(six) || IN6_IS_ADDR_UNSPECIFIED(six) ||
		       IN6_IS_ADDR_V4MAPPED(six);
	}
	return true;
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct registry_transfer *t = arg;

	(void)purpose;
	if (t->spec.foreign && !t->http->proxied && address_is_inside(&address->addr, address->addrlen)) {
		t->address_refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* ---- start ---- */

static int add_header(struct registry_transfer *t, const char *name, const char *value)
{
	auto_free char *line = NULL;

	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return -ENOMEM;
	}
	struct curl_slist *more = curl_slist_append(t->headers, line);
	if (!more)
		return -ENOMEM;
	t->headers = more;
	return 0;
}

static bool set_options(struct registry_transfer *t, const struct registry_transfer_spec *spec)
{
	CURL *e = t->easy;
	bool ok = true;

#define SET(option, value) ok = curl_easy_setopt(e, option, value) == CURLE_OK && ok
	SET(CURLOPT_URL, spec->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_HTTP_CONTENT_DECODING, 0L);
	SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT, CONNECT_S);
	SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
	SET(CURLOPT_LOW_SPEED_TIME, (long)spec->stall_s);
	SET(CURLOPT_BUFFERSIZE, 256L * 1024);
	SET(CURLOPT_USERAGENT, "sandboxd/" PACKAGE_VERSION);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
	SET(CURLOPT_ERRORBUFFER, t->error);
	SET(CURLOPT_PRIVATE, t);
	if (spec->foreign) /* a connection that was made for the registry itself was not asked about */
		SET(CURLOPT_FRESH_CONNECT, 1L);
	if (spec->direct)
		SET(CURLOPT_PROXY, "");
	if (spec->ca_file)
		SET(CURLOPT_CAINFO, spec->ca_file);
	if (spec->range_from != REGISTRY_NO_RANGE) {
		char range[32];

		snprintf(range, sizeof(range), "%llu-", (unsigned long long)spec->range_from);
		SET(CURLOPT_RANGE, range);
	}
	if (spec->total_s)
		SET(CURLOPT_TIMEOUT, (long)spec->total_s);
	if (spec->post) {
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE, (long)spec->post_len);
		SET(CURLOPT_COPYPOSTFIELDS, spec->post);
		ok = add_header(t, "Content-Type", "application/json") == 0 && add_header(t, "Expect", "") == 0 && ok;
		if (spec->signature)
			ok = add_header(t, "X-Sandboxd-Signature", spec->signature) == 0 && ok;
	}
	if (spec->accept)
		ok = add_header(t, "Accept", spec->accept) == 0 && ok;
	if (spec->authorization)
		ok = add_header(t, "Authorization", spec->authorization) == 0 && ok;
	if (t->headers)
		SET(CURLOPT_HTTPHEADER, t->headers);
#undef SET
	return ok;
}

int registry_http_start(struct registry_http *h, const struct registry_transfer_spec *spec, struct sbx_err *err)
{
	struct registry_transfer *t = calloc(1, sizeof(*t));

	if (!t)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "HTTP request");
	t->http = h;
	t->next = h->first;
	h->first = t;
	t->spec = *spec;
	t->spec.url = t->spec.accept = t->spec.authorization = t->spec.ca_file = t->spec.post = t->spec.signature = NULL;
	t->reply.length = -1;
	t->easy = curl_easy_init();
	if (!t->easy || !set_options(t, spec) || curl_multi_add_handle(h->multi, t->easy) != CURLM_OK) {
		transfer_free(t);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "HTTP request");
	}
	return 0;
}

/* ---- progress ---- */

static enum registry_end end_of(const struct registry_transfer *t, CURLcode code)
{
	if (code == CURLE_OK)
		return REGISTRY_END_DONE;
	if (t->stopped)
		return REGISTRY_END_STOPPED;
	if (t->address_refused || t->head_too_large)
		return REGISTRY_END_REFUSED;
	switch ((int)code) {
	case CURLE_SSL_CONNECT_ERROR:
		return REGISTRY_END_NO_TLS;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		return REGISTRY_END_UNTRUSTED;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		return REGISTRY_END_UNREACHABLE;
	case CURLE_PARTIAL_FILE:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
		return REGISTRY_END_BROKEN;
	default:
		return REGISTRY_END_REFUSED;
	}
}

static void finish(struct registry_transfer *t, CURLcode code)
{
	struct registry_transfer_spec spec = t->spec;
	char text[160];

	if (code == CURLE_OK && !tell_head(t))
		code = CURLE_WRITE_ERROR;
	enum registry_end end = end_of(t, code);
	if (t->address_refused)
		snprintf(text, sizeof(text), "it leads to an address of this machine or its network's own");
	else if (t->head_too_large)
		snprintf(text, sizeof(text), "the head of its answer is too large");
	else
		snprintf(text, sizeof(text), "%.150s", t->error[0] ? t->error : curl_easy_strerror(code));
	transfer_free(t);
	spec.done(spec.arg, end, text);
}

bool registry_http_wait(struct registry_http *h, int fd, int timeout_ms)
{
	struct curl_waitfd extra = {.fd = fd, .events = CURL_WAIT_POLLIN};
	int running = 0, left = 0;
	CURLMsg *message;

	curl_multi_perform(h->multi, &running);
	while ((message = curl_multi_info_read(h->multi, &left))) {
		struct registry_transfer *t = NULL;
		CURLcode code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		finish(t, code);
		timeout_ms = 0; /* what was started from there wants its first turn */
	}
	curl_multi_poll(h->multi, fd >= 0 ? &extra : NULL, fd >= 0 ? 1 : 0, timeout_ms, NULL);
	return extra.revents != 0;
}

/* ---- URLs ---- */

static void cleanup_url(CURLU *const *u)
{
	curl_url_cleanup(*u);
}

static int get_part(CURLU *u, CURLUPart part, unsigned flags, char *out, size_t size)
{
	char *text = NULL;
	CURLUcode rc = curl_url_get(u, part, &text, flags);
	size_t n = rc == CURLUE_OK ? strlen(text) : 0;

	if (rc == CURLUE_OK && n < size)
		memcpy(out, text, n + 1);
	curl_free(text);
	return rc != CURLUE_OK ? -ENOENT : n < size ? 0 : -ENAMETOOLONG;
}

int registry_url_read(const char *base, const char *text, struct registry_url *ret, struct sbx_err *err)
{
	__attribute__((cleanup(cleanup_url))) CURLU *u = curl_url();
	char user[8], port[16], name[200];

	if (!u)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "URL");
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c > '~')
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, "a URL with a control character, a space or one that is not ASCII");
	if (base && curl_url_set(u, CURLUPART_URL, base, 0) != CURLUE_OK)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "a URL that cannot be read");
	/* other schemes are read too, so that they can be refused by their name */
	if (curl_url_set(u, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME | CURLU_PATH_AS_IS) != CURLUE_OK ||
	    get_part(u, CURLUPART_SCHEME, 0, ret->scheme, sizeof(ret->scheme)) < 0)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "a URL that cannot be read");
	if (strcmp(ret->scheme, "https") != 0 && strcmp(ret->scheme, "http") != 0)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the scheme \"%s\" is not followed", ret->scheme);
	if (get_part(u, CURLUPART_USER, 0, user, sizeof(user)) != -ENOENT)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "a URL that carries a user");
	if (get_part(u, CURLUPART_HOST, 0, name, sizeof(name)) < 0 ||
	    get_part(u, CURLUPART_URL, 0, ret->text, sizeof(ret->text)) < 0)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "a URL without a host, or too long");
	bool has_port = get_part(u, CURLUPART_PORT, 0, port, sizeof(port)) == 0;
	snprintf(ret->host, sizeof(ret->host), "%s%s%s", name, has_port ? ":" : "", has_port ? port : "");
	return 0;
}

char *registry_url_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0);
	char *copy = escaped ? strdup(escaped) : NULL;

	curl_free(escaped);
	return copy;
}
