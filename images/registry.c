// SPDX-License-Identifier: Apache-2.0
#include "images/registry.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/num.h"
#include "base/wallclock.h"
#include "images/image_ref.h"
#include "images/manifest.h"
#include "images/registry_http.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define REDIRECTS_MAX	  5u
#define ERROR_BODY_BYTES  (16u * 1024)
#define BACKOFF_FIRST_MS  300u
#define BACKOFF_LAST_MS	  8000u
#define RETRY_AFTER_MAX_S 60u /* who wants longer is told to the person who waits */
#define IDLE_WAIT_MS	  60000
#define UNANSWERED_TRIES  1u
#define TEXT_BYTES	  512u /* of a message, before it is cut to FETCH_TEXT_BYTES */

/* What the reply that is coming in is used for. */
enum reply_use { USE_NONE = 0, USE_CONTENT, USE_SKIP /* content up to where we are */, USE_ERROR, USE_NOTHING };

struct job {
	struct registry *r;
	struct job *next;
	struct fetch_get get;
	int fd;
	uint64_t done;	 /* BLOB: bytes of the blob behind its start that are passed on or were there */
	uint64_t skip;	 /* bytes of this reply that we have already */
	struct buf body; /* MANIFEST, or the text of an error */
	char type[MANIFEST_TYPE_BYTES];
	struct registry_url url; /* "" before the first */
	bool foreign;
	bool fresh;	/* credentials were made for this very attempt */
	bool waiting;	/* for its time, or for a token */
	bool wants_token;
	unsigned redirects, tries;
	uint64_t not_before_mono_ms;
	enum reply_use use;
	unsigned status;
	char why[TEXT_BYTES]; /* why a callback stopped the transfer; "" else */
	unsigned retry_after_s;
	struct registry_challenge challenge;
	bool challenged;
	bool sink_failed;
};

struct registry {
	struct registry_config config;
	char host[256];
	char ca_file[1400]; /* "" for none */
	struct registry_credentials credentials;
	struct registry_http *http;
	char scheme[8]; /* "https", then perhaps "http" */
	struct job *jobs;
	bool answered;		  /* it has said something, once */
	struct buf authorization; /* value of the header that requests carry; empty: none */
	/* the token request under way */
	struct job *token_for;
	struct buf token_body;
	unsigned token_status;
	bool token_too_long;
};

static bool has_credentials(const struct registry *r)
{
	return r->credentials.user[0] || r->credentials.password[0];
}

static void job_free(struct job *j)
{
	for (struct job **at = &j->r->jobs; *at; at = &(*at)->next) {
		if (*at != j)
			continue;
		*at = j->next;
		break;
	}
	close_keep_errno(j->fd);
	buf_free(&j->body);
	free(j);
}

static void end_job(struct job *j, enum sbx_err_code code, const char *text)
{
	struct fetch_done done = {
		.head = {.magic = FETCH_MAGIC, .kind = FETCH_DONE, .tag = j->get.head.tag},
		.status = (uint32_t)code,
		.http = j->status,
		.bytes = j->done,
	};
	struct registry *r = j->r;

	snprintf(done.type, sizeof(done.type), "%s", j->type);
	sbx_printable(text, strlen(text), done.text, sizeof(done.text));
	job_free(j); /* closes the pipe before anybody is told */
	r->config.done(r->config.arg, &done);
}

__attribute__((format(printf, 2, 3))) static void fail_job(struct job *j, const char *fmt, ...)
{
	char text[TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	end_job(j, SBX_E_IMAGE_PULL_FAILED, text);
}

/* ---- the reply ---- */

static bool stop(struct job *j, const char *why)
{
	snprintf(j->why, sizeof(j->why), "%s", why);
	return false;
}

/* "bytes 5-9/10" for the part that was asked for */
static bool range_fits(const char *text, uint64_t from, uint64_t size)
{
	char expected[96];

	snprintf(expected, sizeof(expected), "bytes %llu-%llu/%llu", (unsigned long long)from, (unsigned long long)size - 1,
		 (unsigned long long)size);
	if (!strcasecmp(text, expected))
		return true;
	snprintf(expected, sizeof(expected), "bytes %llu-%llu/*", (unsigned long long)from, (unsigned long long)size - 1);
	return !strcasecmp(text, expected);
}

static bool content_begins(struct job *j, const struct registry_reply *reply)
{
	if (reply->encoding[0] && strcasecmp(reply->encoding, "identity") != 0)
		return stop(j, "the answer is encoded although that was not asked for");
	if (j->get.head.kind == FETCH_MANIFEST) {
		if (reply->length > (int64_t)MANIFEST_MAX_BYTES)
			return stop(j, "the manifest is larger than 4 MiB");
		snprintf(j->type, sizeof(j->type), "%s", reply->type);
		buf_clear(&j->body);
		j->use = USE_CONTENT;
		return true;
	}
	uint64_t rest = j->get.size - j->done;
	bool part = reply->status == 206;
	if (part && (!j->done || !range_fits(reply->range, j->done, j->get.size)))
		return stop(j, "the range that came is not the one that was asked for");
	if (reply->length >= 0 && (uint64_t)reply->length != (part ? rest : j->get.size))
		return stop(j, "the length of the answer is not that of the blob");
	j->skip = part ? 0 : j->done;
	j->use = USE_CONTENT;
	return true;
}

static void take_challenges(struct job *j, const struct registry_reply *reply)
{
	struct registry_challenge all[REGISTRY_CHALLENGES_MAX];
	struct sbx_err err = {0};
	size_t n;

	j->challenged = false;
	for (size_t i = 0; i < reply->n_www; i++) {
		if (registry_challenge_parse(reply->www[i], strlen(reply->www[i]), all, &n, &err) < 0) {
			stop(j, err.msg);
			continue;
		}
		for (size_t k = 0; k < n; k++) {
			bool better = !j->challenged || (j->challenge.scheme == REGISTRY_SCHEME_BASIC && all[k].scheme == REGISTRY_SCHEME_BEARER);

			if (all[k].scheme == REGISTRY_SCHEME_OTHER || !better)
				continue;
			j->challenge = all[k];
			j->challenged = true;
		}
	}
	if (j->challenged)
		j->why[0] = '\0';
	else if (!j->why[0])
		stop(j, reply->n_www ? "the registry asks for a kind of login that is not offered" :
				       "the registry refuses without saying which login it takes");
}

static bool on_head(void *arg, const struct registry_reply *reply)
{
	struct job *j = arg;
	uint32_t seconds;

	j->status = reply->status;
	j->r->answered = true;
	j->fresh = j->fresh && reply->status == 401; /* what was accepted once may run out, and is then made again */
	j->use = USE_ERROR;
	buf_clear(&j->body);
	j->retry_after_s = 0;
	if (num_u32(reply->retry_after, strlen(reply->retry_after), 86400, &seconds) == 0)
		j->retry_after_s = seconds;
	if (reply->status == 200 || reply->status == 206)
		return content_begins(j, reply);
	if (reply->status == 401 && !j->foreign)
		take_challenges(j, reply);
	if (reply->status >= 300 && reply->status < 400) {
		struct registry_url to;
		struct sbx_err err = {0};

		j->use = USE_NOTHING;
		if (!reply->location[0])
			return stop(j, "a redirect without a target");
		if (++j->redirects > REDIRECTS_MAX)
			return stop(j, "too many redirects");
		if (registry_url_read(j->url.text, reply->location, &to, &err) < 0)
			return stop(j, err.msg);
		if (!strcmp(j->url.scheme, "https") && strcmp(to.scheme, "https") != 0)
			return stop(j, "a redirect from https to http is not followed");
		/* what a registry without TLS names is not made safer by refusing http, but its host must be its own or have TLS */
		if (strcmp(to.scheme, "http") == 0 && strcasecmp(to.host, j->url.host) != 0 && !registry_is_loopback(j->r->host))
			return stop(j, "a redirect to another host without TLS is not followed");
		j->foreign = strcasecmp(to.host, j->r->host) != 0 || strcmp(to.scheme, j->r->scheme) != 0;
		j->url = to;
	}
	return true;
}

static bool pass_on(struct job *j, const char *data, size_t n)
{
	while (n > 0) {
		ssize_t w = write(j->fd, data, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			j->sink_failed = true;
			return stop(j, "sandboxd takes no more of the blob");
		}
		data += w;
		n -= (size_t)w;
		j->done += (size_t)w;
	}
	return true;
}

static bool on_body(void *arg, const char *data, size_t n)
{
	struct job *j = arg;

	if (j->use == USE_NOTHING)
		return true;
	if (j->use == USE_ERROR) {
		if (buf_used(&j->body) + n <= ERROR_BODY_BYTES)
			buf_append(&j->body, data, n);
		return true;
	}
	if (j->get.head.kind == FETCH_MANIFEST) {
		if (buf_used(&j->body) + n > MANIFEST_MAX_BYTES)
			return stop(j, "the manifest is larger than 4 MiB");
		buf_append(&j->body, data, n);
		return !j->body.failed;
	}
	size_t over = j->skip < n ? (size_t)j->skip : n;
	j->skip -= over;
	data += over;
	n -= over;
	if (n > j->get.size - j->done)
		return stop(j, "more bytes come than the blob has");
	if (n)
		j->tries = 0; /* it moves */
	return pass_on(j, data, n);
}

/* ---- what follows ---- */

static void start(struct job *j);

static void try_again(struct job *j, const char *why, unsigned least_s)
{
	uint64_t delay = BACKOFF_FIRST_MS;

	/* who never answered is mistyped or down: that is said soon, since somebody waits */
	unsigned most = j->r->answered || j->r->config.retries < UNANSWERED_TRIES ? j->r->config.retries : UNANSWERED_TRIES;
	if (j->tries >= most) {
		fail_job(j, "%.150s (tried %u times)", why, j->tries + 1);
		return;
	}
	for (unsigned i = 0; i < j->tries && delay < BACKOFF_LAST_MS; i++)
		delay *= 2;
	j->tries++;
	if (delay > BACKOFF_LAST_MS)
		delay = BACKOFF_LAST_MS;
	if (delay < (uint64_t)least_s * 1000)
		delay = (uint64_t)least_s * 1000;
	j->waiting = true;
	j->not_before_mono_ms = mono_ms() + delay;
	/* from the beginning: where a redirect led may hold for minutes only */
	j->url.text[0] = '\0';
	j->redirects = 0;
}

static void refused(struct job *j)
{
	char said[120];

	registry_error_text(buf_peek(&j->body), buf_used(&j->body), said, sizeof(said));
	if (j->foreign)
		fail_job(j, "the place that the registry leads to answers %u", j->status);
	else if (j->status == 404)
		fail_job(j, "%s has no %s:%.80s%s%s", j->r->host, j->get.path, j->get.ref, *said ? ": " : "", said);
	else if (j->status == 401 || j->status == 403)
		fail_job(j, "%s refuses%s%s%s", j->r->host, has_credentials(j->r) ? " these credentials" : "; a login may be needed",
			 *said ? ": " : "", said);
	else
		fail_job(j, "%s answers %u%s%s", j->r->host, j->status, *said ? ": " : "", said);
}

static void content_ended(struct job *j)
{
	if (j->get.head.kind == FETCH_MANIFEST) {
		if (j->body.failed)
			fail_job(j, "out of memory");
		else if (!pass_on(j, buf_peek(&j->body), buf_used(&j->body)))
			fail_job(j, "%s", j->why);
		else
			end_job(j, SBX_E_NONE, "");
		return;
	}
	if (j->done < j->get.size)
		try_again(j, "the transfer ended before the end of the blob", 0);
	else
		end_job(j, SBX_E_NONE, "");
}

static void ask_token(struct job *j);

static void unauthorised(struct job *j)
{
	struct registry *r = j->r;

	if (!j->challenged) {
		fail_job(j, "%s: %s", r->host, j->why);
		return;
	}
	if (j->fresh) {
		refused(j);
		return;
	}
	if (j->challenge.scheme == REGISTRY_SCHEME_BASIC) {
		if (!has_credentials(r)) {
			refused(j);
			return;
		}
		buf_clear(&r->authorization);
		registry_basic(&r->credentials, &r->authorization);
		j->fresh = true;
		start(j);
		return;
	}
	j->wants_token = true;
	j->waiting = true;
	ask_token(j);
}

static void reply_ended(struct job *j)
{
	switch (j->status) {
	case 200:
	case 206:
		content_ended(j);
		break;
	case 401:
		if (j->foreign)
			refused(j);
		else
			unauthorised(j);
		break;
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		start(j);
		break;
	case 408:
	case 429:
	case 500:
	case 502:
	case 503:
	case 504:
		if (j->retry_after_s > RETRY_AFTER_MAX_S) {
			fail_job(j, "%s answers %u and asks to wait %u seconds", j->r->host, j->status, j->retry_after_s);
		} else {
			char why[120], said[80];

			registry_error_text(buf_peek(&j->body), buf_used(&j->body), said, sizeof(said));
			snprintf(why, sizeof(why), "the registry answers %u%s%s", j->status, *said ? ": " : "", said);
			try_again(j, why, j->retry_after_s);
		}
		break;
	default:
		refused(j);
	}
}

static void on_done(void *arg, enum registry_end end, const char *text)
{
	struct job *j = arg;

	/*
	 * A proxy that makes no tunnel to it, a port that closes on the first byte of TLS, nobody at port 443 of a name without a
	 * port: all that says the same as a server without TLS.
	 */
	if ((end == REGISTRY_END_BROKEN || end == REGISTRY_END_UNREACHABLE) && !j->foreign && !j->r->answered && j->r->config.plain && !strcmp(j->url.scheme, "https"))
		end = REGISTRY_END_NO_TLS;
	switch (end) {
	case REGISTRY_END_DONE:
		reply_ended(j);
		return;
	case REGISTRY_END_NO_TLS:
		if (!j->foreign && j->r->config.plain && !strcmp(j->r->scheme, "https")) {
			memcpy(j->r->scheme, "http", sizeof("http"));
			j->url.text[0] = '\0';
			start(j);
			return;
		}
		/* another job may have found out meanwhile */
		if (!j->foreign && !strcmp(j->url.scheme, "https") && !strcmp(j->r->scheme, "http")) {
			j->url.text[0] = '\0';
			start(j);
			return;
		}
		fail_job(j, "%s: %s%s", j->url.host, text,
			 j->foreign ? "" : "; for a registry without TLS see images.insecure_registries");
		return;
	case REGISTRY_END_UNTRUSTED:
		fail_job(j, "%s: %s; for a private CA see images.ca_dir", j->url.host, text);
		return;
	case REGISTRY_END_UNREACHABLE:
	case REGISTRY_END_BROKEN:
		try_again(j, text, 0);
		return;
	case REGISTRY_END_STOPPED:
	case REGISTRY_END_REFUSED:
	default:
		fail_job(j, "%s: %s", j->url.host, j->why[0] ? j->why : text);
	}
}

/* ---- requests ---- */

static int first_url(struct job *j, struct sbx_err *err)
{
	const struct registry *r = j->r;
	char text[1024];

	snprintf(text, sizeof(text), "%s://%s/v2/%s/%s/%s", r->scheme, r->host, j->get.path,
		 j->get.head.kind == FETCH_MANIFEST ? "manifests" : "blobs", j->get.ref);
	j->foreign = false;
	return registry_url_read(NULL, text, &j->url, err);
}

static void start(struct job *j)
{
	struct registry *r = j->r;
	struct sbx_err err = {0};

	j->waiting = false;
	j->use = USE_NONE;
	j->why[0] = '\0';
	if (!j->url.text[0] && first_url(j, &err) < 0) {
		fail_job(j, "%s", err.msg);
		return;
	}
	/* what we hold was made for the registry itself: nobody else sees it */
	const char *authorization = !j->foreign && buf_used(&r->authorization) ? buf_str(&r->authorization) : NULL;
	const struct registry_transfer_spec spec = {
		.url = j->url.text,
		.accept = j->get.head.kind == FETCH_MANIFEST ? MANIFEST_ACCEPT : NULL,
		.authorization = authorization,
		.range_from = j->get.head.kind == FETCH_BLOB && j->done ? j->done : REGISTRY_NO_RANGE,
		.ca_file = !j->foreign && r->ca_file[0] ? r->ca_file : NULL,
		.stall_s = r->config.stall_s,
		.direct = registry_is_loopback(j->url.host),
		.foreign = j->foreign && !registry_is_loopback(r->host),
		.arg = j,
		.head = on_head,
		.body = on_body,
		.done = on_done,
	};
	if (registry_http_start(r->http, &spec, &err) < 0)
		fail_job(j, "%s", err.msg);
}

/* ---- tokens ---- */

static bool token_head(void *arg, const struct registry_reply *reply)
{
	struct registry *r = arg;

	r->token_status = reply->status;
	return true;
}

static bool token_body(void *arg, const char *data, size_t n)
{
	struct registry *r = arg;

	if (buf_used(&r->token_body) + n > REGISTRY_TOKEN_BODY) {
		r->token_too_long = true;
		return false;
	}
	buf_append(&r->token_body, data, n);
	return true;
}

/* Everybody who waits for a token gets this one, or this failure. */
static void token_ended(struct registry *r, const char *failure)
{
	r->token_for = NULL;
	for (struct job *j = r->jobs, *next; j; j = next) {
		next = j->next;
		if (!j->wants_token)
			continue;
		j->wants_token = false;
		j->waiting = false;
		if (failure) {
			fail_job(j, "%s", failure);
			continue;
		}
		j->fresh = true;
		j->waiting = true;
		j->not_before_mono_ms = 0;
	}
}

static void token_done(void *arg, enum registry_end end, const char *text)
{
	struct registry *r = arg;
	char failure[TEXT_BYTES], said[100];
	auto_free char *token = malloc(REGISTRY_TOKEN_BYTES);
	struct sbx_err err = {0};

	if (end != REGISTRY_END_DONE || r->token_status != 200) {
		registry_error_text(buf_peek(&r->token_body), buf_used(&r->token_body), said, sizeof(said));
		if (end != REGISTRY_END_DONE)
			snprintf(failure, sizeof(failure), "the token service of %s: %.100s", r->host,
				 r->token_too_long ? "its answer is too long" : text);
		else if (r->token_status == 401 || r->token_status == 403)
			snprintf(failure, sizeof(failure), "%s refuses%s%s%s", r->host,
				 has_credentials(r) ? " these credentials" : "; a login may be needed", *said ? ": " : "", said);
		else
			snprintf(failure, sizeof(failure), "the token service of %s answers %u%s%s", r->host, r->token_status,
				 *said ? ": " : "", said);
		token_ended(r, failure);
		return;
	}
	if (!token || registry_token_parse(buf_peek(&r->token_body), buf_used(&r->token_body), token, &err) < 0) {
		snprintf(failure, sizeof(failure), "%s: %.150s", r->host, token ? err.msg : "out of memory");
		token_ended(r, failure);
		return;
	}
	buf_clear(&r->authorization);
	buf_printf(&r->authorization, "Bearer %s", token);
	token_ended(r, NULL);
}

static int token_url(struct registry *r, const struct job *j, struct registry_url *ret, struct sbx_err *err)
{
	char scope[FETCH_PATH_BYTES + 32];
	auto_buf text = {.max = REGISTRY_URL_BYTES};

	/* never more than we need, whatever the challenge proposes */
	snprintf(scope, sizeof(scope), "repository:%s:pull", j->get.path);
	auto_free char *service = registry_url_escape(j->challenge.service);
	auto_free char *scope_escaped = registry_url_escape(scope);
	if (!service || !scope_escaped)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "token");
	if (registry_url_read(NULL, j->challenge.realm, ret, err) < 0)
		return sbx_err_wrap(err, "the realm");
	if (!strcmp(ret->scheme, "http") && strcmp(r->scheme, "http") != 0)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the realm has no TLS although the registry has");
	if (!strcmp(ret->scheme, "http") && strcasecmp(ret->host, r->host) != 0 && !registry_is_loopback(r->host))
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the realm is on another host and has no TLS");
	buf_printf(&text, "%s%c%s%s%sscope=%s", ret->text, strchr(ret->text, '?') ? '&' : '?', *service ? "service=" : "", service,
		   *service ? "&" : "", scope_escaped);
	const char *whole = buf_str(&text);
	if (!whole)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the realm is too long");
	return registry_url_read(NULL, whole, ret, err);
}

static void ask_token(struct job *j)
{
	struct registry *r = j->r;
	auto_buf basic = {0};
	struct registry_url url;
	struct sbx_err err = {0};

	if (r->token_for)
		return; /* it is being asked for */
	if (token_url(r, j, &url, &err) < 0) {
		char text[TEXT_BYTES];

		snprintf(text, sizeof(text), "%s: %.150s", r->host, err.msg);
		token_ended(r, text);
		return;
	}
	if (has_credentials(r))
		registry_basic(&r->credentials, &basic);
	buf_clear(&r->token_body);
	r->token_status = 0;
	r->token_too_long = false;
	bool same = !strcasecmp(url.host, r->host);
	const struct registry_transfer_spec spec = {
		.url = url.text,
		.authorization = buf_used(&basic) ? buf_str(&basic) : NULL,
		.range_from = REGISTRY_NO_RANGE,
		/* a private registry's token service has the same private authority behind it */
		.ca_file = r->ca_file[0] ? r->ca_file : NULL,
		.stall_s = r->config.stall_s,
		.direct = registry_is_loopback(url.host),
		.foreign = !same && !registry_is_loopback(r->host),
		.arg = r,
		.head = token_head,
		.body = token_body,
		.done = token_done,
	};
	r->token_for = j;
	if (registry_http_start(r->http, &spec, &err) < 0)
		token_ended(r, err.msg);
}

/* ---- the dialogue ---- */

struct registry *registry_new(const struct registry_config *config, struct sbx_err *err)
{
	struct registry *r = calloc(1, sizeof(*r));

	if (!r) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "registry");
		return NULL;
	}
	r->config = *config;
	r->credentials = *config->credentials;
	memcpy(r->scheme, "https", sizeof("https"));
	snprintf(r->host, sizeof(r->host), "%s", !strcmp(config->host, "docker.io") ? "registry-1.docker.io" : config->host);
	if (config->ca_dir[0]) {
		snprintf(r->ca_file, sizeof(r->ca_file), "%s/%s/ca.crt", config->ca_dir, r->host);
		if (access(r->ca_file, F_OK) < 0)
			r->ca_file[0] = '\0';
	}
	r->config.host = r->config.ca_dir = NULL;
	r->config.credentials = NULL;
	r->http = registry_http_new(err);
	if (!r->http) {
		free(r);
		return NULL;
	}
	return r;
}

void registry_free(struct registry *r)
{
	if (!r)
		return;
	registry_http_free(r->http);
	while (r->jobs)
		job_free(r->jobs);
	buf_free(&r->authorization);
	buf_free(&r->token_body);
	explicit_bzero(&r->credentials, sizeof(r->credentials));
	free(r);
}

static bool text_is_good(const char *text, size_t size, const char *more)
{
	size_t n = strnlen(text, size);

	if (!n || n == size)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= '0' && text[i] <= '9') ||
		      strchr(more, text[i])))
			return false;
	return true;
}

void registry_get(struct registry *r, const struct fetch_get *get, int fd)
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j) {
		const struct fetch_done done = {.head = {.magic = FETCH_MAGIC, .kind = FETCH_DONE, .tag = get->head.tag},
						.status = SBX_E_NO_MEMORY, .text = "out of memory"};

		close_keep_errno(fd);
		r->config.done(r->config.arg, &done);
		return;
	}
	*j = (struct job){.r = r, .get = *get, .fd = fd, .done = get->offset, .next = r->jobs};
	r->jobs = j;
	if (!text_is_good(get->path, sizeof(get->path), "._-/") || !text_is_good(get->ref, sizeof(get->ref), "._-:") ||
	    get->offset > get->size || strstr(get->path, "..")) {
		end_job(j, SBX_E_PROTOCOL, "a request that is not well-formed");
		return;
	}
	start(j);
}

bool registry_wait(struct registry *r, int fd)
{
	uint64_t now = mono_ms();
	int timeout = IDLE_WAIT_MS;

	for (struct job *j = r->jobs, *next; j; j = next) {
		next = j->next;
		if (!j->waiting || j->wants_token)
			continue;
		if (j->not_before_mono_ms <= now) {
			start(j); /* at worst it ends: then only this one leaves the list */
			continue;
		}
		if (j->not_before_mono_ms - now < (uint64_t)timeout)
			timeout = (int)(j->not_before_mono_ms - now);
	}
	return registry_http_wait(r->http, fd, timeout);
}
