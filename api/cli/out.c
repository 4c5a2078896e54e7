// SPDX-License-Identifier: Apache-2.0
#include "api/cli/out.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct out_table {
	size_t n_columns, n_cells, cap;
	size_t width[OUT_MAX_COLUMNS];
	char **cells; /* owned, each owned */
	bool failed;
};

struct out_table *out_table_new(const char *const *heads)
{
	struct out_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	while (heads[t->n_columns] && t->n_columns < OUT_MAX_COLUMNS)
		t->n_columns++;
	for (size_t i = 0; i < t->n_columns; i++)
		out_table_cell(t, heads[i]);
	return t;
}

/* Columns on a terminal: UTF-8 continuation bytes take none. */
static size_t shown_width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

void out_table_cell(struct out_table *t, const char *text)
{
	char *copy = strdup(text && *text ? text : "-");
	size_t column = t->n_cells % t->n_columns;

	if (t->n_cells == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 64;
		char **more = realloc(t->cells, cap * sizeof(*more));

		if (more) {
			t->cells = more;
			t->cap = cap;
		}
	}
	if (!copy || t->n_cells == t->cap) {
		free(copy);
		t->failed = true;
		return;
	}
	for (char *c = copy; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	if (shown_width(copy) > t->width[column])
		t->width[column] = shown_width(copy);
	t->cells[t->n_cells++] = copy;
}

void out_table_drop(struct out_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}

int out_table_print(struct out_table *t)
{
	int rc = t->failed ? -1 : 0;

	for (size_t i = 0; !t->failed && i < t->n_cells; i++) {
		size_t column = i % t->n_columns;

		fputs(t->cells[i], stdout);
		if (column + 1 < t->n_columns)
			printf("%*s", (int)(t->width[column] - shown_width(t->cells[i]) + 2), "");
		else
			putchar('\n');
	}
	out_table_drop(t);
	return rc;
}

/* --- JSON, YAML --- */

static void put_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c == '\n')
			fputs("\\n", stdout);
		else if (c == '\t')
			fputs("\\t", stdout);
		else if (c < 0x20 || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void put_scalar(const struct jv *v)
{
	int64_t number;
	double real = 0;
	bool truth = false;

	switch (jv_type(v)) {
	case JV_STRING:
		put_string(jv_str(v));
		break;
	case JV_NUMBER:
		if (jv_i64(v, &number) == 0)
			printf("%" PRId64, number);
		else if (jv_double(v, &real) == 0)
			printf("%.17g", real);
		break;
	case JV_BOOL:
		if (jv_bool(v, &truth) == 0)
			fputs(truth ? "true" : "false", stdout);
		break;
	case JV_ABSENT:
	case JV_NULL:
	case JV_ARRAY:
	case JV_OBJECT:
	default:
		fputs("null", stdout);
		break;
	}
}

static bool is_container(const struct jv *v)
{
	return jv_type(v) == JV_ARRAY || jv_type(v) == JV_OBJECT;
}

/* The reader bounds the depth (LIMIT_JSON_DEPTH), so this recursion is bounded too. */
static void put_json(const struct jv *v, int depth)
{
	bool object = jv_type(v) == JV_OBJECT;

	if (!is_container(v)) {
		put_scalar(v);
		return;
	}
	if (!jv_first(v)) {
		fputs(object ? "{}" : "[]", stdout);
		return;
	}
	putchar(object ? '{' : '[');
	for (const struct jv *m = jv_first(v); m; m = jv_next(m)) {
		printf("\n%*s", 2 * (depth + 1), "");
		if (object) {
			put_string(jv_name(m));
			fputs(": ", stdout);
		}
		put_json(m, depth + 1);
		if (jv_next(m))
			putchar(',');
	}
	printf("\n%*s%c", 2 * depth, "", object ? '}' : ']');
}

static bool is_plain_key(const char *key)
{
	if (!*key)
		return false;
	for (const char *c = key; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_' || (c > key && *c >= '0' && *c <= '9')))
			return false;
	/* what YAML 1.1 readers take for a boolean or null */
	static const char *const words[] = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "Y", "N"};
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(key, words[i]))
			return false;
	return true;
}

/* Strings stay in double quotes: JSON's are YAML's. */
static void put_yaml(const struct jv *v, int depth, bool in_list)
{
	bool first = true;

	for (const struct jv *m = jv_first(v); m; m = jv_next(m)) {
		/* the first member of a list's item stands behind its dash */
		if (!(first && in_list))
			printf("%*s", 2 * depth, "");
		first = false;
		if (jv_type(v) == JV_ARRAY) {
			fputs("- ", stdout);
		} else {
			if (is_plain_key(jv_name(m)))
				fputs(jv_name(m), stdout);
			else
				put_string(jv_name(m));
			putchar(':');
		}
		if (is_container(m) && jv_first(m)) {
			bool list = jv_type(v) == JV_ARRAY;

			if (!list)
				putchar('\n');
			put_yaml(m, depth + 1, list);
			continue;
		}
		if (jv_type(v) != JV_ARRAY)
			putchar(' ');
		if (is_container(m))
			fputs(jv_type(m) == JV_ARRAY ? "[]" : "{}", stdout);
		else
			put_scalar(m);
		putchar('\n');
	}
}

void out_value(enum cli_format format, const struct jv *value)
{
	if (format == CLI_YAML && is_container(value) && jv_first(value)) {
		put_yaml(value, 0, false);
		return;
	}
	put_json(value, 0);
	putchar('\n');
}

/* --- lists of what was done --- */

void out_done_begin(struct out_done *d, const struct cli *cli)
{
	*d = (struct out_done){.format = cli->format};
	d->w.out = &d->json;
	jw_array(&d->w);
}

void out_done_add(struct out_done *d, const char *name, const char *shown)
{
	if (d->format == CLI_TABLE)
		printf("%s\n", shown);
	else
		jw_str(&d->w, name);
}

void out_done_end(struct out_done *d)
{
	struct sbx_err err;

	jw_array_end(&d->w);
	if (d->format != CLI_TABLE) {
		auto_jv root = jv_parse(buf_peek(&d->json), buf_used(&d->json), &err);

		if (root)
			out_value(d->format, root);
	}
	buf_free(&d->json);
}

/* --- figures --- */

void out_age(int64_t wall, char *out, size_t size)
{
	int64_t seconds = (wall_usec() - wall) / 1000000;
	const char *in = seconds < 0 ? "in " : "";

	if (seconds < 0)
		seconds = -seconds;
	if (seconds < 120)
		snprintf(out, size, "%s%" PRId64 "s", in, seconds);
	else if (seconds < 120 * 60)
		snprintf(out, size, "%s%" PRId64 "m", in, seconds / 60);
	else if (seconds < 48 * 3600)
		snprintf(out, size, "%s%" PRId64 "h", in, seconds / 3600);
	else
		snprintf(out, size, "%s%" PRId64 "d", in, seconds / 86400);
}

void out_age_text(const char *rfc3339, char *out, size_t size)
{
	int64_t wall;

	if (rfc3339 && rfc3339_parse(rfc3339, strlen(rfc3339), &wall) == 0)
		out_age(wall, out, size);
	else
		snprintf(out, size, "-");
}

void out_bytes(uint64_t bytes, char *out, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t unit = 0;
	double value = (double)bytes;

	while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(out, size, value < 10 && unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}
