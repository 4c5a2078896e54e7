// SPDX-License-Identifier: Apache-2.0
#include "api/execd/code_events.h"

#include "api/execd/event_stream.h"
#include "base/jv.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAX_TYPES 24u

struct datum {
	const char *name;
	size_t name_n;
	const char *data; /* NULL: left out */
	size_t n;
};

void code_event_count(struct buf *out, uint32_t count, int64_t wall_ms)
{
	struct jw w = {.out = out};

	jw_object(&w);
	jw_key_str(&w, "type", "execution_count");
	jw_key_i64(&w, "execution_count", count);
	jw_key_i64(&w, "timestamp", wall_ms);
	jw_object_end(&w);
	buf_append(out, "\n\n", 2);
}

static int compare(const struct datum *a, const char *name, size_t n)
{
	int r = memcmp(a->name, name, a->name_n < n ? a->name_n : n);

	return r ? r : (a->name_n > n) - (a->name_n < n);
}

/* Keeps @all sorted by name, each name once. */
static size_t insert(struct datum *all, size_t count, struct datum d)
{
	size_t at = count;

	if (!d.name_n || d.name_n > 127 || memchr(d.name, 0, d.name_n))
		return count;
	while (at && compare(&all[at - 1], d.name, d.name_n) > 0)
		at--;
	if (count == MAX_TYPES || (at && !compare(&all[at - 1], d.name, d.name_n)))
		return count;
	memmove(all + at + 1, all + at, (count - at) * sizeof(*all));
	all[at] = d;
	return count + 1;
}

static size_t read_types(struct code_list list, struct datum *all)
{
	struct datum d;
	size_t count = 0;

	while (code_list_next(&list, &d.name, &d.name_n) && code_list_next(&list, &d.data, &d.n)) {
		count = insert(all, count, d);
		if (d.name_n == 10 && !memcmp(d.name, "text/plain", 10))
			count = insert(all, count, (struct datum){"text", 4, d.data, d.n});
	}
	return count;
}

static void put_result(struct buf *out, const struct datum *all, size_t count, int64_t wall_ms)
{
	struct jw w = {.out = out};
	char name[128];

	jw_object(&w);
	jw_key_str(&w, "type", "result");
	jw_key_i64(&w, "timestamp", wall_ms);
	jw_key(&w, "results");
	jw_object(&w);
	for (size_t i = 0; i < count; i++) {
		if (!all[i].data)
			continue;
		memcpy(name, all[i].name, all[i].name_n);
		name[all[i].name_n] = '\0';
		jw_key(&w, name);
		jw_strn(&w, all[i].data, all[i].n);
	}
	jw_object_end(&w);
	jw_object_end(&w);
	buf_append(out, "\n\n", 2);
}

static bool is_image(const struct datum *d)
{
	return d->name_n > 6 && !memcmp(d->name, "image/", 6);
}

/* The largest image; the largest of all when there is none. */
static struct datum *largest(struct datum *all, size_t count)
{
	struct datum *found = NULL;

	for (size_t i = 0; i < count; i++)
		if (all[i].data && all[i].n &&
		    (!found || (is_image(&all[i]) == is_image(found) ? all[i].n > found->n : is_image(&all[i]))))
			found = &all[i];
	return found;
}

void code_event_result(struct buf *out, struct code_list list, int64_t wall_ms)
{
	struct datum all[MAX_TYPES], *dropped;
	size_t count = read_types(list, all), before = buf_used(out);
	char note[256];

	put_result(out, all, count, wall_ms);
	while (buf_used(out) - before > CODE_EVENT_BYTES && (dropped = largest(all, count))) {
		out->len -= buf_used(out) - before;
		int n = snprintf(note, sizeof(note), "[%.*s of %zu bytes is too large and was left out]\n", (int)dropped->name_n,
				 dropped->name, dropped->n);
		dropped->data = NULL;
		event_text(out, "stderr", note, (size_t)n, wall_ms);
		before = buf_used(out);
		put_result(out, all, count, wall_ms);
	}
}

void code_event_error(struct buf *out, const char *name, size_t name_n, const char *value, size_t value_n,
		      struct code_list traceback, int64_t wall_ms)
{
	struct jw w = {.out = out};
	const char *line;
	size_t n;

	jw_object(&w);
	jw_key_str(&w, "type", "error");
	jw_key_i64(&w, "timestamp", wall_ms);
	jw_key(&w, "error");
	jw_object(&w);
	jw_key(&w, "ename");
	jw_strn(&w, name, name_n < 1024 ? name_n : 1024);
	jw_key(&w, "evalue");
	jw_strn(&w, value, value_n < CODE_OUTPUT_MAX ? value_n : CODE_OUTPUT_MAX);
	jw_key(&w, "traceback");
	jw_array(&w);
	/* escaping makes a byte at most six */
	for (size_t sum = 0; code_list_next(&traceback, &line, &n) && (sum += n) <= CODE_EVENT_BYTES / 8;)
		jw_strn(&w, line, n);
	jw_array_end(&w);
	jw_object_end(&w);
	jw_object_end(&w);
	buf_append(out, "\n\n", 2);
}
