// SPDX-License-Identifier: Apache-2.0
#include "api/egress_api.h"

#include "api/auth.h"
#include "api/egress_events.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/num.h"
#include "base/settings.h"
#include "netpolicy/policy_json.h"
#include "runtime/sandbox.h"

#include <stdlib.h>
#include <string.h>

#define NO_MATCH "no matching targets found" /* published clients look for it */
#define RESET	 "the policy was reset to default deny"

struct where {
	const struct api_context *context;
	api_answer_fn *answer;
	void *arg;
};

static void reply(const struct where *at, uint32_t status, const char *type, const char *headers, const char *body, size_t n)
{
	const struct api_answer answer = {.status = status, .content_type = type, .headers = headers, .body = body, .body_len = n};

	at->answer(at->arg, &answer);
}

static void reply_text(const struct where *at, uint32_t status, const char *headers, const char *text)
{
	auto_buf line = {0};

	/* It may quote what a client sent, and be shown on a terminal. */
	for (; *text; text++)
		buf_append(&line, (unsigned char)*text < ' ' || *text == 0x7f ? "?" : text, 1);
	buf_puts(&line, "\n");
	const char *body = buf_str(&line);
	reply(at, status, "text/plain; charset=utf-8", headers, body ? body : "out of memory\n", body ? buf_used(&line) : 14);
}

/* Plain text: published clients show it as it is.  What happened inside stays in the log. */
static void reply_error(const struct where *at, const struct sbx_err *err)
{
	int status = sbx_err_status(err->code);
	bool theirs = status < 500 || err->code == SBX_E_NOT_READY || err->code == SBX_E_PEER_GONE;

	reply_text(at, (uint32_t)status, "", theirs ? err->msg : sbx_err_meaning(err->code));
}

static const char *mode_of(const struct policy *p)
{
	if (p && policy_count(p))
		return "enforcing";
	return !p || policy_default_allow(p) ? "allow_all" : "deny_all";
}

/* What a client should hear although it is not wrong. */
static void write_warnings(const struct policy *p, bool ipv6, struct jw *w)
{
	char text[SBX_ERR_MSG_SIZE];
	bool any = false;

	for (uint32_t i = 0; p && i < policy_count(p); i++) {
		const struct policy_rule *r = policy_at(p, i);

		if (r->kind == EGRESS_RULE_WILDCARD && r->flags & EGRESS_RULE_ALLOW && !strchr(r->name, '.'))
			snprintf(text, sizeof(text), "egress[%u]: %.100s covers every name below a top-level domain", i, r->text);
		else if (r->kind == EGRESS_RULE_IPV6 && r->flags & EGRESS_RULE_ALLOW && !ipv6)
			snprintf(text, sizeof(text), "egress[%u]: %.100s opens nothing: sandboxes have no IPv6", i, r->text);
		else
			continue;
		if (!any) {
			jw_key(w, "warnings");
			jw_array(w);
		}
		any = true;
		jw_str(w, text);
	}
	if (any)
		jw_array_end(w);
}

static void reply_status(const struct where *at, const struct sandbox *s, const char *reason)
{
	const struct policy *p = s->spec.policy;
	auto_buf out = {0};
	struct jw w = {.out = &out};

	jw_object(&w);
	jw_key_str(&w, "status", "ok");
	jw_key_str(&w, "mode", mode_of(p));
	jw_key_str(&w, "enforcementMode", "dns+nft");
	jw_key_str(&w, "reason", reason);
	jw_key(&w, "policy");
	policy_json_write(p, &w);
	write_warnings(p, at->context->settings->network_ipv6, &w);
	jw_object_end(&w);
	const char *body = buf_str(&out);
	if (body)
		reply(at, 200, "application/json", "", body, buf_used(&out));
	else
		reply_text(at, 500, "", "out of memory");
}

/* ---- changes ---- */

struct changing {
	struct where at;
	struct policy *policy;	/* owned; POST: the whole, PATCH: the new rules */
	struct jv *targets;	/* owned; DELETE */
	uint32_t rules_max;
	const char *reason;	/* static; NULL: none */
};

static void changing_free(struct changing *c)
{
	policy_free(c->policy);
	jv_free(c->targets);
	free(c);
}

static struct policy *make_whole(void *arg, const struct policy *now, struct sbx_err *err)
{
	struct changing *c = arg;

	(void)now, (void)err;
	return take_ptr(c->policy);
}

static struct policy *make_merged(void *arg, const struct policy *now, struct sbx_err *err)
{
	struct changing *c = arg;

	return policy_merge(now, c->policy, c->rules_max, err);
}

static struct policy *make_without(void *arg, const struct policy *now, struct sbx_err *err)
{
	struct changing *c = arg;
	uint32_t removed = 0;
	struct policy *p = policy_without(now, c->targets, &removed, err);

	if (!p || removed)
		return p;
	c->reason = NO_MATCH;
	policy_free(p);
	return NULL;
}

static void on_changed(void *arg, const struct sandbox *sandbox, const struct sbx_err *err)
{
	struct changing *c = arg;

	if (sandbox)
		reply_status(&c->at, sandbox, c->reason);
	else
		reply_error(&c->at, err);
	changing_free(c);
}

static bool is_blank(struct http_text body)
{
	size_t n = 0;

	while (n < body.len && strchr(" \t\r\n", body.data[n]) && body.data[n])
		n++;
	return n == body.len;
}

/* What the body asks for, into @c.  Return: how it is made when its turn comes, or NULL with @err set */
static sandbox_policy_make *read_change(struct changing *c, const struct api_request *request, struct sbx_err *err)
{
	bool patch = http_text_is(request->method, "PATCH"), remove = http_text_is(request->method, "DELETE");
	auto_jv body = NULL;

	if (is_blank(request->body) && !patch && !remove) {
		c->reason = RESET;
		c->policy = policy_json_read(NULL, c->rules_max, err);
		return c->policy ? make_whole : NULL;
	}
	if (is_blank(request->body)) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the body must be a non-empty array of %s", remove ? "targets" : "rules");
		return NULL;
	}
	body = jv_parse(request->body.data, request->body.len, err);
	if (!body) {
		sbx_err_wrap(err, "invalid policy");
		return NULL;
	}
	if (remove) {
		/* Only its form is looked at here: what it removes is decided when its turn comes. */
		uint32_t removed;
		struct policy *tried = policy_without(NULL, body, &removed, err);

		policy_free(tried);
		if (tried)
			c->targets = take_ptr(body);
		return tried ? make_without : NULL;
	}
	c->policy = patch ? policy_json_read_rules(body, c->rules_max, err) : policy_json_read(body, c->rules_max, err);
	if (!c->policy) {
		sbx_err_wrap(err, patch ? "invalid merged policy" : "invalid policy");
		return NULL;
	}
	return patch ? make_merged : make_whole;
}

static void change(const struct where *at, const struct api_request *request, const struct sandbox *s)
{
	struct changing *c = calloc(1, sizeof(*c));
	sandbox_policy_make *make;
	struct sbx_err err = {0};

	if (!c) {
		reply_text(at, 500, "", "out of memory");
		return;
	}
	*c = (struct changing){.at = *at, .rules_max = (uint32_t)at->context->settings->egress_max_rules};
	make = read_change(c, request, &err);
	if (!make) {
		changing_free(c);
		reply_error(at, &err);
		return;
	}
	sandbox_change_policy(at->context->manager, s->id, make, on_changed, c);
}

/* ---- routes ---- */

static const struct {
	const char *method;
	bool changes;
} policy_methods[] = {{"GET", false}, {"POST", true}, {"PUT", true}, {"PATCH", true}, {"DELETE", true}};

static void policy_route(const struct where *at, const struct api_request *request, const struct sandbox *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(policy_methods); i++) {
		if (!http_text_is(request->method, policy_methods[i].method))
			continue;
		if (policy_methods[i].changes)
			change(at, request, s);
		else
			reply_status(at, s, NULL);
		return;
	}
	reply_text(at, 405, "Allow: GET, POST, PUT, PATCH, DELETE\r\n", "the path does not take this method");
}

static bool is_below(struct http_text path, const char *what)
{
	size_t n = strlen(what);

	return path.len >= n && !memcmp(path.data, what, n) && (path.len == n || path.data[n] == '/');
}

/* Not offered yet, and said so before anything is read: a secret that is sent all the same is not kept anywhere. */
static void vault_route(const struct where *at, const struct api_request *request, struct http_text path)
{
	bool whole = path.len == strlen("/credential-vault") || path.len == strlen("/credential-vault/");
	static const char *const methods[] = {"GET", "POST", "PATCH", "DELETE"};

	for (size_t i = 0; i < (whole ? ARRAY_SIZE(methods) : 1); i++) {
		if (http_text_is(request->method, methods[i])) {
			reply_text(at, 412, "", "the credential vault is not offered by this server");
			return;
		}
	}
	reply_text(at, 405, whole ? "Allow: GET, POST, PATCH, DELETE\r\n" : "Allow: GET\r\n", "the path does not take this method");
}

static void events_route(const struct where *at, const struct api_request *request, const struct sandbox *s, const char *query)
{
	struct http_text rest = HTTP_NO_TEXT;
	struct sbx_err err = {0};
	struct api_answer answer;
	auto_buf body = {0};

	if (!http_text_is(request->method, "GET")) {
		reply_text(at, 405, "Allow: GET\r\n", "the path does not take this method");
		return;
	}
	if (query)
		rest = (struct http_text){query + 1, request->target.len - (size_t)(query + 1 - request->target.data)};
	if (egress_events_answer(at->context->events, s, request, rest, &body, &answer, &err) < 0) {
		reply_error(at, &err);
		return;
	}
	at->answer(at->arg, &answer);
	if (answer.stream_fd > 0)
		close_keep_errno(answer.stream_fd);
}

static const struct sandbox *find(const struct api_context *context, struct http_text id, struct sbx_err *err)
{
	char text[UUID_SIZE];
	uint8_t raw[16];

	sbx_err_set(err, SBX_E_SANDBOX_NOT_FOUND, 0, "no sandbox has this id");
	if (id.len != UUID_SIZE - 1)
		return NULL;
	memcpy(text, id.data, UUID_SIZE - 1);
	text[UUID_SIZE - 1] = '\0';
	return uuid_parse(text, raw) < 0 ? NULL : sandbox_find(context->manager, raw, err);
}

const struct sandbox *egress_api(const struct api_context *context, const struct api_request *request, api_answer_fn *answer, void *arg)
{
	const struct where at = {.context = context, .answer = answer, .arg = arg};
	const struct auth_credentials who = {.api_key = request->api_key,
					     .egress_token = request->egress_token,
					     .has_api_key = request->has_api_key,
					     .unix_peer = request->unix_peer};
	const char *query = memchr(request->target.data, '?', request->target.len);
	struct http_text path = {request->target.data, query ? (size_t)(query - request->target.data) : request->target.len};
	struct sbx_err err = {0};
	const struct sandbox *s = find(context, request->sandbox, &err);

	if (path.len > 1 && path.data[path.len - 1] == '/')
		path.len--;
	if (!s) {
		reply_error(&at, &err);
		return NULL;
	}
	if (http_text_is(path, "/healthz")) {
		reply(&at, 200, "text/plain; charset=utf-8", "", "ok", 2);
		return NULL;
	}
	if (http_text_is(path, "/credential-vault/_active")) {
		/* what the proxy beside it would read; never from outside */
		if (http_text_is(request->method, "GET"))
			reply_text(&at, 403, "", "not from here");
		else
			reply_text(&at, 405, "Allow: GET\r\n", "the path does not take this method");
		return NULL;
	}
	if (auth_egress(context, s, &who, &err) < 0) {
		reply_error(&at, &err);
		return NULL;
	}
	if (http_text_is(path, "/policy"))
		policy_route(&at, request, s);
	else if (http_text_is(path, "/events"))
		events_route(&at, request, s, query);
	else if (is_below(path, "/credential-vault"))
		vault_route(&at, request, path);
	else
		reply_text(&at, 404, "", "no such path");
	return sandbox_find(context->manager, s->id, NULL);
}
