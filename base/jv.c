// SPDX-License-Identifier: Apache-2.0
#include "base/jv.h"

#include "base/cleanup.h"
#include "base/limits.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* cJSON copies a number into 64 bytes and silently reads no further; no number that means anything is longer. */
#define NUMBER_BYTES_MAX 60u
/* In cJSON's type, far from its own bits: the text of the number has a fraction or an exponent. */
#define NOT_INTEGER	 (1 << 16)
#define EXACT_MAX	 9007199254740992.0 /* 2^53: every integer up to here is itself in a double */

/* ---- the checking pass ---- */

struct check {
	const uint8_t *at, *end, *start;
	uint32_t values;
	const char *why; /* set once, at the first fault */
};

static bool fault(struct check *c, const char *why)
{
	if (!c->why)
		c->why = why;
	return false;
}

static void skip_space(struct check *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
}

static bool is_digit(const struct check *c)
{
	return c->at < c->end && *c->at >= '0' && *c->at <= '9';
}

static bool skip_digits(struct check *c)
{
	if (!is_digit(c))
		return fault(c, "a number lacks digits");
	while (is_digit(c))
		c->at++;
	return true;
}

static bool check_number(struct check *c)
{
	const uint8_t *from = c->at;
	bool zero;

	if (*c->at == '-')
		c->at++;
	zero = is_digit(c) && *c->at == '0';
	if (!skip_digits(c))
		return false;
	if (zero && c->at - from > 1 + (*from == '-'))
		return fault(c, "a number has a leading zero");
	if (c->at < c->end && *c->at == '.') {
		c->at++;
		if (!skip_digits(c))
			return false;
	}
	if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) {
		c->at++;
		if (c->at < c->end && (*c->at == '+' || *c->at == '-'))
			c->at++;
		if (!skip_digits(c))
			return false;
	}
	if ((size_t)(c->at - from) > NUMBER_BYTES_MAX)
		return fault(c, "a number is too long");
	return true;
}

/* Length of the UTF-8 sequence at @p (RFC 3629: no overlong form, no surrogate, nothing past U+10FFFF); 0: none. */
static size_t utf8_length(const uint8_t *p, size_t n)
{
	static const struct {
		uint8_t from, to, second_from, second_to, len;
	} rows[] = {
		{0x00, 0x7f, 0, 0, 1},	     {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (p[0] < rows[i].from || p[0] > rows[i].to)
			continue;
		if (rows[i].len > n)
			return 0;
		if (rows[i].len > 1 && (p[1] < rows[i].second_from || p[1] > rows[i].second_to))
			return 0;
		for (size_t k = 2; k < rows[i].len; k++)
			if ((p[k] & 0xc0) != 0x80)
				return 0;
		return rows[i].len;
	}
	return 0;
}

static bool read_hex4(struct check *c, uint32_t *ret)
{
	uint32_t v = 0;

	if (c->end - c->at < 4)
		return fault(c, "an escape is cut short");
	for (int i = 0; i < 4; i++) {
		uint8_t ch = *c->at++;
		uint32_t digit;

		if (ch >= '0' && ch <= '9')
			digit = ch - (uint32_t)'0';
		else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f')
			digit = (ch | 0x20u) - (uint32_t)'a' + 10;
		else
			return fault(c, "an escape has a letter that is no hex digit");
		v = v << 4 | digit;
	}
	*ret = v;
	return true;
}

/* Behind "\u". */
static bool check_unicode_escape(struct check *c)
{
	uint32_t v, low;

	if (!read_hex4(c, &v))
		return false;
	if (!v)
		return fault(c, "a string holds a NUL");
	if (v >= 0xdc00 && v <= 0xdfff)
		return fault(c, "a string holds a lone surrogate");
	if (v < 0xd800 || v > 0xdbff)
		return true;
	if (c->end - c->at < 2 || c->at[0] != '\\' || c->at[1] != 'u')
		return fault(c, "a string holds a lone surrogate");
	c->at += 2;
	if (!read_hex4(c, &low))
		return false;
	if (low < 0xdc00 || low > 0xdfff)
		return fault(c, "a string holds a lone surrogate");
	return true;
}

static bool check_escape(struct check *c)
{
	if (c->at == c->end)
		return fault(c, "an escape is cut short");
	uint8_t ch = *c->at++;
	if (ch == 'u')
		return check_unicode_escape(c);
	if (!ch || !strchr("\"\\/bfnrt", ch))
		return fault(c, "a string has an unknown escape");
	return true;
}

static bool check_string(struct check *c)
{
	if (c->at == c->end || *c->at != '"')
		return fault(c, "a string must start here");
	c->at++;
	while (c->at < c->end) {
		if (*c->at == '"') {
			c->at++;
			return true;
		}
		if (*c->at == '\\') {
			c->at++;
			if (!check_escape(c))
				return false;
			continue;
		}
		if (*c->at < 0x20)
			return fault(c, "a string holds a control character");
		size_t n = utf8_length(c->at, (size_t)(c->end - c->at));
		if (!n)
			return fault(c, "the text is not UTF-8");
		c->at += n;
	}
	return fault(c, "a string is not closed");
}

static bool check_word(struct check *c, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n) != 0)
		return fault(c, "no JSON value starts like this");
	c->at += n;
	return true;
}

static bool check_scalar(struct check *c)
{
	switch (*c->at) {
	case '"':
		return check_string(c);
	case 't':
		return check_word(c, "true");
	case 'f':
		return check_word(c, "false");
	case 'n':
		return check_word(c, "null");
	default:
		if (*c->at != '-' && !is_digit(c))
			return fault(c, "no JSON value starts like this");
		return check_number(c);
	}
}

/* `"name" :` in front of a member's value. */
static bool check_name(struct check *c)
{
	skip_space(c);
	if (!check_string(c))
		return false;
	skip_space(c);
	if (c->at == c->end || *c->at != ':')
		return fault(c, "a colon is missing");
	c->at++;
	return true;
}

/* Open brackets instead of recursion: depth is bounded by the stack's size. */
struct brackets {
	char open[LIMIT_JSON_DEPTH];
	size_t depth;
};

/*
 * Behind a value or an opening bracket: closes what ends here, then steps over the comma and a member's name to the next
 * value.  @first: nothing stands behind the bracket yet.  Return: false at a fault and at the end of the text (depth 0).
 */
static bool next_value(struct check *c, struct brackets *b, bool first)
{
	while (b->depth) {
		bool object = b->open[b->depth - 1] == '{';

		skip_space(c);
		if (c->at == c->end)
			return fault(c, "the text ends too early");
		if (*c->at == (object ? '}' : ']')) {
			c->at++;
			b->depth--;
			first = false;
			continue;
		}
		if (!first && *c->at++ != ',')
			return fault(c, "a comma or a closing bracket is missing");
		return !object || check_name(c);
	}
	return false;
}

static bool check_value(struct check *c)
{
	struct brackets b = {.depth = 0};
	bool opened;

	do {
		skip_space(c);
		if (c->at == c->end)
			return fault(c, "the text ends too early");
		if (++c->values > JV_VALUES_MAX)
			return fault(c, "the text has too many values");
		opened = *c->at == '{' || *c->at == '[';
		if (opened && b.depth == sizeof(b.open))
			return fault(c, "the text is nested too deeply");
		if (opened)
			b.open[b.depth++] = (char)*c->at++;
		else if (!check_scalar(c))
			return false;
	} while (next_value(c, &b, opened));
	return !c->why;
}

/* @ret_used: where the value ends, when something may follow it; else NULL. */
static int check_text(const void *data, size_t len, size_t *ret_used, struct sbx_err *err)
{
	struct check c = {.at = data, .start = data};

	if (!len)
		return sbx_err_set(err, SBX_E_MALFORMED, 0, "JSON: the body is empty");
	c.end = c.start + len;
	if (check_value(&c)) {
		if (ret_used)
			*ret_used = (size_t)(c.at - c.start);
		skip_space(&c);
		if (!ret_used && c.at < c.end)
			fault(&c, "something follows the value");
	}
	if (c.why)
		return sbx_err_set(err, SBX_E_MALFORMED, 0, "JSON: %s (byte %zu)", c.why, (size_t)(c.at - c.start));
	return 0;
}

int jv_check(const void *data, size_t len, struct sbx_err *err)
{
	return check_text(data, len, NULL, err);
}

/* ---- the tree ---- */

static const cJSON *node(const struct jv *v)
{
	return (const cJSON *)(const void *)v;
}

static const struct jv *value(const cJSON *item)
{
	return (const struct jv *)(const void *)item;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Return: 0, -EEXIST with *@ret_name, or -ENOMEM */
static int find_duplicate(const cJSON *object, const char **ret_name)
{
	size_t n = jv_count(value(object)), i = 0;

	if (n < 2)
		return 0;
	auto_free const char **names = calloc(n, sizeof(*names));
	if (!names)
		return -ENOMEM;
	for (const cJSON *child = object->child; child && i < n; child = child->next)
		names[i++] = child->string;
	qsort(names, n, sizeof(*names), compare_names);
	for (i = 1; i < n; i++) {
		if (strcmp(names[i - 1], names[i]) != 0)
			continue;
		*ret_name = names[i];
		return -EEXIST;
	}
	return 0;
}

/* Depth is at most LIMIT_JSON_DEPTH: the checking pass has seen to it. */
static int refuse_bad_tree(const cJSON *item, struct sbx_err *err)
{
	const char *name = NULL;

	if (cJSON_IsNumber(item) && !isfinite(item->valuedouble))
		return sbx_err_set(err, SBX_E_MALFORMED, 0, "JSON: a number is too large");
	if (cJSON_IsObject(item)) {
		int r = find_duplicate(item, &name);

		if (r == -ENOMEM)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "JSON");
		if (r < 0)
			return sbx_err_set(err, SBX_E_MALFORMED, 0, "JSON: the member \"%.64s\" occurs twice", name);
	}
	for (const cJSON *child = item->child; child; child = child->next)
		if (refuse_bad_tree(child, err) < 0)
			return -1;
	return 0;
}

/* @len bytes that were checked. */
static struct jv *build(const void *data, size_t len, struct sbx_err *err)
{
	cJSON *root = cJSON_ParseWithLength(data, len);
	if (!root) {
		/* the text is well-formed, so this is memory */
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "JSON");
		return NULL;
	}
	if (refuse_bad_tree(root, err) < 0) {
		cJSON_Delete(root);
		return NULL;
	}
	return (struct jv *)(void *)root;
}

/* The next number in a text that was checked, from @at; what stands in strings is none. */
static const uint8_t *next_number(const uint8_t *at, const uint8_t *end)
{
	for (bool quoted = false; at < end; at++) {
		if (quoted && *at == '\\')
			at++;
		else if (*at == '"')
			quoted = !quoted;
		else if (!quoted && (*at == '-' || (*at >= '0' && *at <= '9')))
			break;
	}
	return at;
}

/* Numbers of the tree are those of the text, in its order. */
static const uint8_t *mark_numbers(cJSON *item, const uint8_t *at, const uint8_t *end)
{
	if (cJSON_IsNumber(item)) {
		for (at = next_number(at, end); at < end && memchr("+-.0123456789Ee", *at, 15); at++)
			if (*at == '.' || *at == 'e' || *at == 'E')
				item->type |= NOT_INTEGER;
	}
	for (cJSON *child = item->child; child; child = child->next)
		at = mark_numbers(child, at, end);
	return at;
}

struct jv *jv_parse(const void *data, size_t len, struct sbx_err *err)
{
	return jv_check(data, len, err) < 0 ? NULL : build(data, len, err);
}

struct jv *jv_parse_first(const void *data, size_t len, struct sbx_err *err)
{
	size_t used;

	struct jv *root = check_text(data, len, &used, err) < 0 ? NULL : build(data, used, err);
	if (root)
		mark_numbers((cJSON *)(void *)root, data, (const uint8_t *)data + used);
	return root;
}

void jv_free(struct jv *root)
{
	cJSON_Delete((cJSON *)(void *)root);
}

enum jv_type jv_type(const struct jv *v)
{
	if (!v)
		return JV_ABSENT;
	switch (node(v)->type & 0xff) {
	case cJSON_False:
	case cJSON_True:
		return JV_BOOL;
	case cJSON_Number:
		return JV_NUMBER;
	case cJSON_String:
		return JV_STRING;
	case cJSON_Array:
		return JV_ARRAY;
	case cJSON_Object:
		return JV_OBJECT;
	default:
		return JV_NULL;
	}
}

const char *jv_type_name(enum jv_type type)
{
	static const char *const names[] = {
		[JV_ABSENT] = "nothing", [JV_NULL] = "null",	 [JV_BOOL] = "boolean",	 [JV_NUMBER] = "number",
		[JV_STRING] = "string",	 [JV_ARRAY] = "array", [JV_OBJECT] = "object",
	};
	return (size_t)type < ARRAY_SIZE(names) ? names[type] : "unknown";
}

bool jv_is_set(const struct jv *v)
{
	return v && jv_type(v) != JV_NULL;
}

const struct jv *jv_get(const struct jv *object, const char *name)
{
	if (jv_type(object) != JV_OBJECT)
		return NULL;
	return value(cJSON_GetObjectItemCaseSensitive(node(object), name));
}

const struct jv *jv_find(const struct jv *object, const char *name)
{
	const struct jv *exact = jv_get(object, name);

	if (exact || jv_type(object) != JV_OBJECT)
		return exact;
	for (const struct jv *v = jv_first(object); v; v = jv_next(v))
		if (!strcasecmp(jv_name(v), name))
			return v;
	return NULL;
}

const struct jv *jv_first(const struct jv *container)
{
	return container ? value(node(container)->child) : NULL;
}

const struct jv *jv_next(const struct jv *v)
{
	return value(node(v)->next);
}

const char *jv_name(const struct jv *v)
{
	return v && node(v)->string ? node(v)->string : "";
}

size_t jv_count(const struct jv *container)
{
	size_t n = 0;

	for (const struct jv *v = jv_first(container); v; v = jv_next(v))
		n++;
	return n;
}

const char *jv_str(const struct jv *v)
{
	return jv_type(v) == JV_STRING ? node(v)->valuestring : NULL;
}

int jv_bool(const struct jv *v, bool *ret)
{
	if (jv_type(v) != JV_BOOL)
		return -EINVAL;
	*ret = cJSON_IsTrue(node(v));
	return 0;
}

int jv_double(const struct jv *v, double *ret)
{
	if (jv_type(v) != JV_NUMBER)
		return -EINVAL;
	*ret = node(v)->valuedouble;
	return 0;
}

int jv_i64(const struct jv *v, int64_t *ret)
{
	double d, whole;

	if (jv_double(v, &d) < 0 || modf(d, &whole) != 0.0 || (node(v)->type & NOT_INTEGER))
		return -EINVAL;
	/* 2^53 itself may have been 2^53 + 1 in the text */
	if (d >= EXACT_MAX || d <= -EXACT_MAX)
		return -ERANGE;
	*ret = (int64_t)d;
	return 0;
}

/* ---- the writer ---- */

static void before_value(struct jw *w)
{
	if (w->comma)
		buf_append(w->out, ",", 1);
	w->comma = true;
}

void jw_object(struct jw *w)
{
	before_value(w);
	buf_append(w->out, "{", 1);
	w->comma = false;
}

void jw_object_end(struct jw *w)
{
	buf_append(w->out, "}", 1);
	w->comma = true;
}

void jw_array(struct jw *w)
{
	before_value(w);
	buf_append(w->out, "[", 1);
	w->comma = false;
}

void jw_array_end(struct jw *w)
{
	buf_append(w->out, "]", 1);
	w->comma = true;
}

/* Bytes of @p that can be copied as they are. */
static size_t plain_run(const uint8_t *p, size_t n)
{
	size_t i = 0;

	while (i < n && p[i] >= 0x20 && p[i] < 0x7f && p[i] != '"' && p[i] != '\\' && p[i] != '<' && p[i] != '>' && p[i] != '&')
		i++;
	return i;
}

/* A line of NULs is 655,360 of these while everybody waits: no printf here. */
static void append_ascii(struct buf *out, uint8_t ch)
{
	static const char named[] = "\"\"\\\\\nn\rr\tt\bb\ff"; /* pairs: character, letter */
	static const char digits[] = "0123456789abcdef";
	char text[6] = {'\\', 'u', '0', '0', digits[ch >> 4], digits[ch & 15]};

	for (size_t i = 0; ch && i + 1 < sizeof(named); i += 2) {
		if ((uint8_t)named[i] != ch)
			continue;
		text[1] = named[i + 1];
		buf_append(out, text, 2);
		return;
	}
	if (ch == 0x7f)
		buf_append(out, &ch, 1);
	else
		buf_append(out, text, sizeof(text));
}

static void append_string(struct buf *out, const char *s, size_t n)
{
	const uint8_t *p = (const uint8_t *)s;

	buf_append(out, "\"", 1);
	while (n) {
		size_t step = plain_run(p, n);

		if (step) {
			buf_append(out, p, step);
		} else if (*p < 0x80) {
			append_ascii(out, *p);
			step = 1;
		} else {
			step = utf8_length(p, n);
			if (!step) {
				buf_puts(out, "\\ufffd");
				step = 1;
			} else if (step == 3 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] & 0xfe) == 0xa8) {
				/* U+2028 and U+2029 end a line in JavaScript */
				buf_puts(out, p[2] == 0xa8 ? "\\u2028" : "\\u2029");
			} else {
				buf_append(out, p, step);
			}
		}
		p += step;
		n -= step;
	}
	buf_append(out, "\"", 1);
}

void jw_key(struct jw *w, const char *key)
{
	before_value(w);
	append_string(w->out, key, strlen(key));
	buf_append(w->out, ":", 1);
	w->comma = false;
}

void jw_strn(struct jw *w, const char *s, size_t n)
{
	before_value(w);
	append_string(w->out, s, n);
}

void jw_str(struct jw *w, const char *s)
{
	jw_strn(w, s, strlen(s));
}

void jw_i64(struct jw *w, int64_t v)
{
	before_value(w);
	buf_printf(w->out, "%lld", (long long)v);
}

void jw_u64(struct jw *w, uint64_t v)
{
	before_value(w);
	buf_printf(w->out, "%llu", (unsigned long long)v);
}

void jw_double(struct jw *w, double v)
{
	char text[40];

	before_value(w);
	if (!isfinite(v))
		v = 0;
	double whole = v > -1e15 && v < 1e15 ? (double)(int64_t)v : 0;
	int first = 1;
	if (!(whole < v) && !(whole > v)) {
		snprintf(text, sizeof(text), "%.0f", v); /* 100, not 1e+02 */
		first = 18;
	}
	for (int digits = first; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		double back = strtod(text, NULL);
		if (!(back < v) && !(back > v))
			break;
	}
	buf_puts(w->out, text);
}

void jw_bool(struct jw *w, bool v)
{
	before_value(w);
	buf_puts(w->out, v ? "true" : "false");
}

void jw_raw(struct jw *w, const char *json, size_t n)
{
	before_value(w);
	buf_append(w->out, json, n);
}

/* jv_parse() has bounded the depth. */
void jw_value(struct jw *w, const struct jv *v)
{
	enum jv_type type = jv_type(v);
	int64_t whole = 0;
	double number = 0;
	bool yes = false;

	switch (type) {
	case JV_OBJECT:
	case JV_ARRAY:
		(type == JV_OBJECT ? jw_object : jw_array)(w);
		for (const struct jv *m = jv_first(v); m; m = jv_next(m)) {
			if (type == JV_OBJECT)
				jw_key(w, jv_name(m));
			jw_value(w, m);
		}
		(type == JV_OBJECT ? jw_object_end : jw_array_end)(w);
		break;
	case JV_STRING:
		jw_str(w, jv_str(v));
		break;
	case JV_BOOL:
		ignore_result(jv_bool(v, &yes)); /* it is one */
		jw_bool(w, yes);
		break;
	case JV_NUMBER:
		if (jv_i64(v, &whole) == 0) {
			jw_i64(w, whole);
			break;
		}
		ignore_result(jv_double(v, &number)); /* it is one */
		jw_double(w, number);
		break;
	case JV_NULL:
	case JV_ABSENT:
	default:
		jw_raw(w, "null", 4);
	}
}

void jw_key_str(struct jw *w, const char *key, const char *s)
{
	if (!s)
		return;
	jw_key(w, key);
	jw_str(w, s);
}

void jw_key_strs(struct jw *w, const char *key, char *const *list)
{
	if (!list || !*list)
		return;
	jw_key(w, key);
	jw_array(w);
	for (; *list; list++)
		jw_str(w, *list);
	jw_array_end(w);
}

void jw_key_i64(struct jw *w, const char *key, int64_t v)
{
	jw_key(w, key);
	jw_i64(w, v);
}

void jw_key_u64(struct jw *w, const char *key, uint64_t v)
{
	jw_key(w, key);
	jw_u64(w, v);
}

void jw_key_bool(struct jw *w, const char *key, bool v)
{
	jw_key(w, key);
	jw_bool(w, v);
}
