// SPDX-License-Identifier: Apache-2.0
#include "api/deny_hook.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/num.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "images/digest.h"
#include "images/fetch_msg.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BODY_MAX	 FETCH_POST_BYTES
#define ANSWER_MS	 15000u /* sandbox-fetch gives up after five seconds and says so; silent for longer it hangs */
#define TRIES		 4u
#define BREAKER_FAILURES 5u
#define BREAKER_MS	 30000u
#define RESTART_MS	 2000u
#define IDLE_MS		 60000u

struct waiting {
	struct waiting *next;
	size_t n;
	char body[];
};

/* What the timer is armed for. */
enum doing {
	IDLE = 0, /* nothing to send; the process ends when it stays so */
	ASKED,	  /* the first event is with sandbox-fetch */
	LATER,	  /* the first event is tried again, or the process started again */
	CLOSED,	  /* nothing is sent, and nothing kept */
};

struct deny_hook {
	struct loop *loop;
	const struct settings *settings;
	struct fetch_starter starter; /* start is NULL until it is known */
	struct fetch_client *client;  /* owned; NULL: not running */
	struct loop_timer *timer;
	struct waiting *first, **last;
	unsigned n_waiting, tries, failures;
	enum doing doing;
	uint64_t tag;
	bool said; /* that it fails */
	struct deny_hook_secret secret;
	struct deny_hook_counts counts;
};

/* ---- http[s]://host[:port][/path] ---- */

/* sandbox-fetch reads it again, with a library; what cannot be meant is refused here, at the start. */
static int check_url(const char *text, struct sbx_err *err)
{
	size_t scheme = !strncasecmp(text, "https://", 8) ? 8 : !strncasecmp(text, "http://", 7) ? 7 : 0;
	const char *host = text + scheme, *end = host + strcspn(host, "/?"), *name_end, *colon;
	uint32_t port = 1;
	bool good = scheme && *end != '?' && !strpbrk(text, " \t\r\n#\\\"");

	for (const char *c = text; *c; c++)
		good &= *c > ' ' && *c <= '~';
	name_end = *host == '[' ? memchr(host, ']', (size_t)(end - host)) : host;
	colon = good && name_end ? memchr(name_end, ':', (size_t)(end - name_end)) : NULL;
	good = good && name_end && (colon ? colon : end) > host && !memchr(host, '@', (size_t)(end - host));
	if (good && colon)
		good = num_u32(colon + 1, (size_t)(end - colon - 1), UINT16_MAX, &port) == 0 && port;
	return good ? 0 : sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
				      "egress.deny_webhook: \"%.100s\" is not http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]", text);
}

/* ---- events ---- */

static void write_body(const struct deny_hook *h, const struct journal_event *e, struct buf *out)
{
	struct jw w = {.out = out};
	char addr[INET6_ADDRSTRLEN] = "", text[SBX_ERR_MSG_SIZE], id[UUID_SIZE];
	struct in_addr in = {htonl(e->addr)};
	time_t s = (time_t)(e->wall_usec / 1000000);
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (e->addr)
		inet_ntop(AF_INET, &in, addr, sizeof(addr));
	else if (!ip6_none(e->addr6))
		ip6_text(e->addr6, addr);
	uuid_format(e->sandbox_id, id);
	jw_object(&w);
	jw_key_str(&w, "hostname", *e->name ? e->name : addr);
	jw_key_str(&w, "timestamp", text);
	jw_key_str(&w, "source", "opensandbox-egress");
	jw_key_str(&w, "sandboxId", id);
	jw_key_str(&w, "kind", journal_kind_name(e->kind));
	jw_key_str(&w, "reason", policy_reason_name(e->reason));
	if (*e->rule)
		jw_key_str(&w, "rule", e->rule);
	if (*addr)
		jw_key_str(&w, "address", addr);
	if (e->port)
		jw_key_i64(&w, "port", e->port);
	if (e->qtype)
		jw_key_i64(&w, "qtype", e->qtype);
	jw_key_i64(&w, "count", e->count);
	for (size_t i = 0; i < h->settings->egress_deny_webhook_attributes.n; i++) {
		const char *pair = h->settings->egress_deny_webhook_attributes.item[i], *value = strchr(pair, '=');

		snprintf(text, sizeof(text), "%.*s", (int)(value - pair), pair);
		jw_key_str(&w, text, value + 1);
	}
	jw_object_end(&w);
}

static void drop_first(struct deny_hook *h)
{
	struct waiting *w = h->first;

	h->first = w->next;
	if (!h->first)
		h->last = &h->first;
	h->n_waiting--;
	h->tries = 0;
	free(w);
}

/* ---- signing ---- */

int deny_hook_read_secret(const struct settings *settings, struct deny_hook_secret *ret, struct sbx_err *err)
{
	const char *path = settings->egress_deny_webhook_secret_file;
	struct stat st;

	ret->n = 0;
	if (!*path)
		return 0;
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "egress.deny_webhook_secret_file: %s", path);
	if (!S_ISREG(st.st_mode) || (st.st_mode & 077))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook_secret_file: %s is no file that its owner alone may read", path);
	uint8_t data[DENY_HOOK_SECRET_MAX + 2];
	ssize_t n = read(fd, data, sizeof(data));
	if (n < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "egress.deny_webhook_secret_file: %s", path);
	if (n && data[n - 1] == '\n')
		n--;
	if (n < (ssize_t)DENY_HOOK_SECRET_MIN || n > (ssize_t)DENY_HOOK_SECRET_MAX)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook_secret_file: %s has not between %u and %u bytes", path,
				   DENY_HOOK_SECRET_MIN, DENY_HOOK_SECRET_MAX);
	ret->n = (size_t)n;
	memcpy(ret->data, data, ret->n);
	explicit_bzero(data, sizeof(data));
	return 0;
}

int deny_hook_sign(const struct deny_hook_secret *secret, int64_t now_s, const char *body, size_t n, char out[FETCH_SIGNATURE_BYTES],
		   struct sbx_err *err)
{
	auto_buf text = {0};
	uint8_t mac[DIGEST_BYTES];
	char hex[DIGEST_TEXT_SIZE];

	buf_printf(&text, "%lld.", (long long)now_s);
	buf_append(&text, body, n);
	if (text.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "deny webhook");
	if (digest_hmac(secret->data, secret->n, buf_peek(&text), buf_used(&text), mac, err) < 0)
		return -1;
	digest_format(mac, hex);
	snprintf(out, FETCH_SIGNATURE_BYTES, "t=%lld,v1=%s", (long long)now_s, strchr(hex, ':') + 1);
	return 0;
}

/* ---- sending ---- */

static void send_first(struct deny_hook *h);

static void be(struct deny_hook *h, enum doing doing, uint64_t ms)
{
	h->doing = doing;
	loop_timer_arm(h->timer, ms);
}

static void next(struct deny_hook *h)
{
	if (h->first)
		send_first(h);
	else
		be(h, IDLE, IDLE_MS);
}

/* One line when it begins to fail and one when it is over, however many events there are. */
static void say_failed(struct deny_hook *h, unsigned http, const char *text)
{
	if (h->said)
		return;
	h->said = true;
	if (http)
		log_warn("deny webhook: the sink answered %u; such events are lost", http);
	else
		log_warn("deny webhook: %.200s; events are lost until that is mended", text);
}

/* @final: trying again would not help */
static void failed(struct deny_hook *h, unsigned http, const char *text, bool final)
{
	if (http >= 300 && http < 500) {
		/* It is there and does not want this one. */
		h->counts.refused++;
		h->failures = 0;
		say_failed(h, http, text);
		drop_first(h);
		next(h);
		return;
	}
	if (!final && ++h->tries < TRIES) {
		h->counts.retries++;
		be(h, LATER, 1000u << (h->tries - 1));
		return;
	}
	h->counts.failed++;
	say_failed(h, http, text);
	drop_first(h);
	if (++h->failures < BREAKER_FAILURES) {
		next(h);
		return;
	}
	h->failures = BREAKER_FAILURES - 1; /* the next one decides */
	log_warn("deny webhook: nothing is sent for %u s", BREAKER_MS / 1000);
	while (h->first) {
		drop_first(h);
		h->counts.dropped++;
	}
	be(h, CLOSED, BREAKER_MS);
}

static void on_done(void *arg, const struct fetch_done *done)
{
	struct deny_hook *h = arg;

	if (h->doing != ASKED || done->head.tag != h->tag)
		return;
	if (done->status == SBX_E_NONE && done->http >= 200 && done->http < 300) {
		if (h->said)
			log_info("deny webhook: events are taken again");
		h->said = false;
		h->failures = 0;
		h->counts.delivered++;
		drop_first(h);
		next(h);
		return;
	}
	bool untrusted = done->status == SBX_E_UNAUTHORIZED;
	h->counts.untrusted += untrusted;
	failed(h, done->status == SBX_E_NONE ? done->http : 0, done->text, untrusted);
}

static void on_lost(void *arg, const struct sbx_err *err)
{
	struct deny_hook *h = arg;

	fetch_client_free(h->client);
	h->client = NULL;
	if (h->doing == ASKED) {
		/* a try like others: an event that ends who posts it must not hold up those behind it for ever */
		failed(h, 0, err->msg, false);
	}
}

static void send_first(struct deny_hook *h)
{
	const struct fetch_client_config config = {
		.loop = h->loop, .starter = &h->starter, .posts = true, .arg = h, .done = on_done, .lost = on_lost};
	char signature[FETCH_SIGNATURE_BYTES] = "";
	struct sbx_err err = {0};

	if (!h->starter.start) {
		be(h, LATER, RESTART_MS);
		return;
	}
	if (!h->client)
		h->client = fetch_client_new(&config, &err);
	if (!h->client || (h->secret.n && deny_hook_sign(&h->secret, time(NULL), h->first->body, h->first->n, signature, &err) < 0) ||
	    fetch_client_post(h->client, ++h->tag, signature, h->first->body, h->first->n, &err) < 0) {
		log_warn("deny webhook: %s", err.msg);
		fetch_client_free(h->client);
		h->client = NULL;
		be(h, LATER, RESTART_MS);
		return;
	}
	be(h, ASKED, ANSWER_MS);
}

static void on_timer(void *arg)
{
	struct deny_hook *h = arg;

	switch (h->doing) {
	case IDLE:
		fetch_client_free(h->client);
		h->client = NULL;
		break;
	case ASKED:
		fetch_client_free(h->client);
		h->client = NULL;
		failed(h, 0, "sandbox-fetch does not answer", false);
		break;
	case LATER:
	case CLOSED:
		next(h);
		break;
	}
}

/* ---- from outside ---- */

void deny_hook_add(struct deny_hook *h, const struct journal_event *event)
{
	auto_buf body = {.max = BODY_MAX};
	struct waiting *w = NULL;

	if (!h || (!journal_is_denial(event) && event->kind != EGRESS_EVENT_TUNNEL_SUSPECTED) || (!*event->name && !event->addr && ip6_none(event->addr6)))
		return;
	if (h->doing != CLOSED && h->n_waiting < DENY_HOOK_QUEUE) {
		write_body(h, event, &body);
		if (!body.failed)
			w = malloc(sizeof(*w) + buf_used(&body));
	}
	if (!w) {
		h->counts.dropped++;
		return;
	}
	w->next = NULL;
	w->n = buf_used(&body);
	memcpy(w->body, buf_peek(&body), w->n);
	*h->last = w;
	h->last = &w->next;
	h->n_waiting++;
	if (h->doing == IDLE)
		send_first(h);
}

void deny_hook_set_starter(struct deny_hook *h, const struct fetch_starter *starter)
{
	if (h)
		h->starter = *starter;
}

const struct deny_hook_counts *deny_hook_counts(const struct deny_hook *h)
{
	static const struct deny_hook_counts none;

	return h ? &h->counts : &none;
}

static int check_attributes(const struct settings_texts *list, struct sbx_err *err)
{
	static const char *const ours[] = {"hostname", "timestamp", "source", "sandboxId", "kind", "reason", "rule", "address", "port", "qtype", "count"};

	for (size_t i = 0; i < list->n; i++) {
		const char *value = strchr(list->item[i], '=');
		size_t n = value ? (size_t)(value - list->item[i]) : 0;

		if (!n || n > 64)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook_attributes: \"%.60s\" is not NAME=VALUE", list->item[i]);
		for (size_t k = 0; k < ARRAY_SIZE(ours); k++)
			if (strlen(ours[k]) == n && !memcmp(ours[k], list->item[i], n))
				return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook_attributes: \"%s\" is a name of ours", ours[k]);
	}
	return 0;
}

/* Its own identity reads the file later; what is not there at all is said at the start. */
static int check_ca(const struct settings *s, struct sbx_err *err)
{
	if (*s->egress_deny_webhook_ca && access(s->egress_deny_webhook_ca, R_OK) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "egress.deny_webhook_ca: %s", s->egress_deny_webhook_ca);
	return 0;
}

int deny_hook_new(struct loop *loop, const struct settings *settings, const struct deny_hook_secret *secret, struct deny_hook **ret,
		  struct sbx_err *err)
{
	struct deny_hook *h;

	*ret = NULL;
	if (!*settings->egress_deny_webhook)
		return 0;
	if (check_url(settings->egress_deny_webhook, err) < 0 || check_attributes(&settings->egress_deny_webhook_attributes, err) < 0 ||
	    check_ca(settings, err) < 0)
		return -1;
	h = calloc(1, sizeof(*h));
	if (h) {
		*h = (struct deny_hook){.loop = loop, .settings = settings, .secret = *secret};
		h->last = &h->first;
		h->timer = loop_timer_new(loop, on_timer, h);
	}
	if (!h || !h->timer) {
		free(h);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "deny webhook");
	}
	*ret = h;
	return 0;
}

void deny_hook_free(struct deny_hook *h)
{
	if (!h)
		return;
	fetch_client_free(h->client);
	while (h->first)
		drop_first(h);
	loop_timer_free(h->timer);
	explicit_bzero(&h->secret, sizeof(h->secret));
	free(h);
}
