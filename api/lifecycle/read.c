// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/lifecycle_api.h"

#include "api/lifecycle/lifecycle_int.h"
#include "api/render.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PAGE_SIZE_DEFAULT 20u
#define PAGE_SIZE_MAX	  200u

void lifecycle_api_get(struct api_call *call)
{
	const struct sandbox *sandbox = lifecycle_find(call);

	if (sandbox)
		lifecycle_reply_sandbox(call, 200, sandbox);
}

struct filter {
	bool any_state; /* no state was asked for */
	bool state[SANDBOX_STATE_COUNT];
	struct sandbox_pair pairs[LIMIT_METADATA];
	size_t n_pairs;
};

static void filter_free(struct filter *f)
{
	for (size_t i = 0; i < f->n_pairs; i++) {
		free(f->pairs[i].key);
		free(f->pairs[i].value);
	}
}

static int bad_metadata(struct sbx_err *err, const char *why)
{
	return sbx_err_set(err, SBX_E_INVALID_METADATA_FORMAT, 0, "metadata: bad query field: %s", why);
}

static char *decoded(struct http_text text)
{
	char *out = malloc(text.len + 1);

	if (out && http_decode(text, true, out, text.len + 1) < 0) {
		free(out);
		return NULL;
	}
	return out;
}

/* A later pair of the same key replaces the earlier one. */
static int add_pair(struct filter *f, char *key, char *value, struct sbx_err *err)
{
	for (size_t i = 0; i < f->n_pairs; i++) {
		if (strcmp(f->pairs[i].key, key) != 0)
			continue;
		free(key);
		free(f->pairs[i].value);
		f->pairs[i].value = value;
		return 0;
	}
	if (f->n_pairs == ARRAY_SIZE(f->pairs)) {
		free(key);
		free(value);
		return bad_metadata(err, "too many pairs");
	}
	f->pairs[f->n_pairs++] = (struct sandbox_pair){.key = key, .value = value};
	return 0;
}

/*
 * The value of ?metadata= after the URL layer: k=v(&k=v)*, each part percent-encoded once more.  Strict: a part without
 * "=" and an empty part are refused, or a filter with a slip in it would list everything.
 */
static int read_metadata(struct filter *f, const char *text, struct sbx_err *err)
{
	if (!text[strspn(text, " \t")])
		return 0;
	for (const char *p = text;; p++) {
		size_t n = strcspn(p, "&");
		const char *equals = memchr(p, '=', n);

		if (!equals)
			return bad_metadata(err, n ? "a part has no \"=\"" : "a part is empty");
		char *key = decoded((struct http_text){p, (size_t)(equals - p)});
		char *value = decoded((struct http_text){equals + 1, n - (size_t)(equals + 1 - p)});
		if (!key || !value) {
			free(key);
			free(value);
			return bad_metadata(err, "a percent escape is broken");
		}
		if (add_pair(f, key, value, err) < 0)
			return -1;
		p += n;
		if (!*p)
			return 0;
	}
}

static int read_states(struct filter *f, struct http_text query, struct sbx_err *err)
{
	struct http_text name, value;

	f->any_state = true;
	while (http_next_query(&query, &name, &value)) {
		auto_free char *key = decoded(name), *state = decoded(value);

		if (!key || !state)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the query has a broken percent escape");
		if (strcmp(key, "state") != 0)
			continue;
		f->any_state = false;
		/* a name that we do not know selects nothing */
		for (int i = SANDBOX_NONE + 1; i < SANDBOX_STATE_COUNT; i++)
			if (!strcasecmp(state, sandbox_state_name((enum sandbox_state)i)))
				f->state[i] = true;
	}
	return 0;
}

/* Equal, or equal when decoded once more: one published client encodes twice. */
static bool same_value(const char *asked, const char *have)
{
	if (!strcmp(asked, have))
		return true;
	if (!strchr(asked, '%'))
		return false;
	auto_free char *again = decoded((struct http_text){asked, strlen(asked)});
	return again && !strcmp(again, have);
}

static bool has_pair(const struct sandbox_spec *spec, const struct sandbox_pair *pair)
{
	for (size_t i = 0; i < spec->n_metadata; i++)
		if (same_value(pair->key, spec->metadata[i].key))
			return same_value(pair->value, spec->metadata[i].value);
	return false;
}

static bool selects(const struct filter *f, const struct sandbox *sandbox)
{
	if (!f->any_state && !f->state[sandbox->state])
		return false;
	for (size_t i = 0; i < f->n_pairs; i++)
		if (!has_pair(&sandbox->spec, &f->pairs[i]))
			return false;
	return true;
}

static void reply_list(struct api_call *call, const struct filter *f, uint32_t page, uint32_t page_size)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};
	uint64_t from = (uint64_t)(page - 1) * page_size;
	size_t total = 0;

	jw_object(&w);
	jw_key(&w, "items");
	jw_array(&w);
	for (const struct sandbox *s = sandbox_next(call->context->manager, NULL); s; s = sandbox_next(call->context->manager, s)) {
		if (!selects(f, s))
			continue;
		if (total >= from && total < from + page_size)
			render_sandbox(&w, s, RENDER_FULL);
		total++;
	}
	jw_array_end(&w);
	jw_key(&w, "pagination");
	render_pagination(&w, page, page_size, total);
	jw_object_end(&w);
	api_reply_json(call, 200, &body);
}

void lifecycle_api_list(struct api_call *call)
{
	struct filter f = {0};
	struct sbx_err err = {0};
	auto_free char *metadata = NULL;
	uint32_t page = 1, page_size = PAGE_SIZE_DEFAULT;

	if (lifecycle_query_count(call, "page", 1, INT32_MAX, &page) < 0 ||
	    lifecycle_query_count(call, "pageSize", 1, PAGE_SIZE_MAX, &page_size) < 0 ||
	    lifecycle_query_text(call, "metadata", &metadata) < 0)
		return;
	if (read_states(&f, call->query, &err) < 0 || (metadata && read_metadata(&f, metadata, &err) < 0))
		api_reply_error(call, &err);
	else
		reply_list(call, &f, page, page_size);
	filter_free(&f);
}
