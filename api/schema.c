// SPDX-License-Identifier: Apache-2.0
#include "api/schema.h"

#include "api/call.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES_MAX 64 /* of the member names that we know */

void schema_init(struct schema *s)
{
	*s = (struct schema){0};
	s->writer.out = &s->detail;
}

void schema_free(struct schema *s)
{
	if (s)
		buf_free(&s->detail);
}

static void write_location(struct jw *w, const struct schema_at *at)
{
	if (!at)
		return;
	write_location(w, at->up);
	if (at->name)
		jw_str(w, at->name);
	else
		jw_u64(w, at->index);
}

/* "volumes.0.name"; the root ("body", "query") is left out unless it is all there is */
static void location_text(char *out, size_t size, const struct schema_at *at)
{
	size_t n;

	if (!at->up) {
		snprintf(out, size, "%s", at->name);
		return;
	}
	if (at->up->up) {
		location_text(out, size, at->up);
		n = strlen(out);
		snprintf(out + n, size - n, ".");
	} else {
		out[0] = '\0';
	}
	n = strlen(out);
	if (at->name)
		snprintf(out + n, size - n, "%.64s", at->name);
	else
		snprintf(out + n, size - n, "%zu", at->index);
}

void schema_fault(struct schema *s, const struct schema_at *at, const char *type, const char *fmt, ...)
{
	char text[120], where[112];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!s->n) {
		location_text(where, sizeof(where), at);
		snprintf(s->first, sizeof(s->first), "%s: %s", where, text);
	}
	if (s->n++ >= SCHEMA_FAULTS_MAX)
		return;
	jw_object(&s->writer);
	jw_key_str(&s->writer, "type", type);
	jw_key(&s->writer, "loc");
	jw_array(&s->writer);
	write_location(&s->writer, at);
	jw_array_end(&s->writer);
	jw_key_str(&s->writer, "msg", text);
	jw_object_end(&s->writer);
}

bool schema_reply(struct schema *s, struct api_call *call)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};

	if (!s->n)
		return false;
	jw_object(&w);
	jw_key_str(&w, "code", sbx_err_api_code(SBX_E_SCHEMA));
	jw_key_str(&w, "message", s->first);
	jw_key(&w, "detail");
	jw_array(&w);
	jw_raw(&w, buf_peek(&s->detail), buf_used(&s->detail));
	jw_array_end(&w);
	jw_object_end(&w);
	if (s->detail.failed)
		body.failed = true;
	api_reply_json(call, (uint32_t)sbx_err_status(SBX_E_SCHEMA), &body);
	return true;
}

const struct jv *schema_member(const struct jv *object, const char *name)
{
	const struct jv *v = jv_get(object, name);
	char snake[NAME_BYTES_MAX];
	size_t n = 0;

	if (v)
		return v;
	for (const char *p = name; *p && n + 2 < sizeof(snake); p++) {
		if (isupper((unsigned char)*p))
			snake[n++] = '_';
		snake[n++] = (char)tolower((unsigned char)*p);
	}
	snake[n] = '\0';
	return strcmp(snake, name) != 0 ? jv_get(object, snake) : NULL;
}

static const struct jv *typed(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name,
			      enum jv_type type, const char *fault)
{
	const struct jv *v = schema_member(object, name);

	if (!jv_is_set(v))
		return NULL;
	if (jv_type(v) == type)
		return v;
	const struct schema_at here = {.up = at, .name = name};
	schema_fault(s, &here, fault, "must be of type %s, not %s", jv_type_name(type), jv_type_name(jv_type(v)));
	return NULL;
}

const struct jv *schema_object(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name)
{
	return typed(s, at, object, name, JV_OBJECT, "dict_type");
}

const struct jv *schema_array(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name)
{
	return typed(s, at, object, name, JV_ARRAY, "list_type");
}

const char *schema_str(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name)
{
	return jv_str(typed(s, at, object, name, JV_STRING, "string_type"));
}

const char *schema_str_needed(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name)
{
	if (!jv_is_set(schema_member(object, name))) {
		const struct schema_at here = {.up = at, .name = name};

		schema_fault(s, &here, "missing", "is required");
		return NULL;
	}
	return schema_str(s, at, object, name);
}

bool schema_bool(struct schema *s, const struct schema_at *at, const struct jv *object, const char *name, bool fallback)
{
	bool b = fallback;

	jv_bool(typed(s, at, object, name, JV_BOOL, "bool_type"), &b); /* anything else leaves the fallback */
	return b;
}
