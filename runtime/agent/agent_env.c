// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_env.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct env_line {
	struct env_line *next;
	char text[];
};

int env_put(struct env_set *set, const char *entry)
{
	const char *eq = strchr(entry, '=');

	if (!eq || eq == entry)
		return -EINVAL;
	size_t len = (size_t)(eq - entry) + 1;
	for (size_t i = 0; i < set->n; i++)
		if (!strncmp(set->at[i], entry, len)) {
			set->at[i] = entry;
			return 0;
		}
	if (set->n + 2 > set->room) {
		size_t room = set->room ? set->room * 2 : 32;
		void *p = realloc(set->at, room * sizeof(*set->at));

		if (!p)
			return -ENOMEM;
		set->at = p;
		set->room = room;
	}
	set->at[set->n++] = entry;
	set->at[set->n] = NULL;
	return 0;
}

int env_put_row(struct env_set *set, const char *row, size_t n)
{
	for (size_t i = 0; i < n; i++, row += strlen(row) + 1)
		if (env_put(set, row) == -ENOMEM)
			return -ENOMEM;
	return 0;
}

const char *env_get(const struct env_set *set, const char *name, size_t name_len)
{
	for (size_t i = 0; i < set->n; i++)
		if (!strncmp(set->at[i], name, name_len) && set->at[i][name_len] == '=')
			return set->at[i] + name_len + 1;
	return NULL;
}

static size_t name_length(const char *s, size_t n)
{
	size_t i = 0;

	while (i < n && ((s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= 'a' && s[i] <= 'z') || s[i] == '_' ||
			 (i && s[i] >= '0' && s[i] <= '9')))
		i++;
	return i;
}

/* One step of an expansion: what stands at @s and how many bytes of @s it covers. */
static size_t expand_step(const struct env_set *set, const char *s, size_t n, int keep_unset, const char **out,
			  size_t *out_len)
{
	size_t head = 1, name, tail = 0;

	*out = s;
	*out_len = 1;
	if (*s != '$' || n < 2)
		return 1;
	if (s[1] == '{') {
		head = 2;
		tail = 1;
	}
	name = name_length(s + head, n - head);
	if (!name || (tail && (head + name >= n || s[head + name] != '}')))
		return 1;
	const char *value = env_get(set, s + head, name);
	if (!value && keep_unset) {
		*out_len = head + name + tail;
		return *out_len;
	}
	*out = value ? value : "";
	*out_len = strlen(*out);
	return head + name + tail;
}

int env_expand(const struct env_set *set, const char *text, size_t n, int keep_unset, char **ret)
{
	size_t total = 0, len;
	const char *part;

	for (size_t i = 0; i < n; total += len)
		i += expand_step(set, text + i, n - i, keep_unset, &part, &len);
	char *out = malloc(total + 1);
	if (!out)
		return -ENOMEM;
	size_t at = 0;
	for (size_t i = 0; i < n; at += len) {
		i += expand_step(set, text + i, n - i, keep_unset, &part, &len);
		memcpy(out + at, part, len);
	}
	out[at] = 0;
	*ret = out;
	return 0;
}

int env_path(const struct env_set *set, const char *text, char **ret)
{
	char *path;
	int r = env_expand(set, text, strlen(text), 1, &path);

	if (r)
		return r;
	const char *home = env_get(set, "HOME", 4);
	if (path[0] == '~' && (!path[1] || path[1] == '/') && home) {
		size_t h = strlen(home), rest = strlen(path + 1);
		char *whole = malloc(h + rest + 1);

		if (!whole) {
			free(path);
			return -ENOMEM;
		}
		memcpy(whole, home, h);
		memcpy(whole + h, path + 1, rest + 1);
		free(path);
		path = whole;
	}
	*ret = path;
	return 0;
}

static int is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static int env_line(struct env_set *set, const struct env_set *base, const char *s, size_t n)
{
	char *value;

	while (n && is_space(*s)) {
		s++;
		n--;
	}
	while (n && is_space(s[n - 1]))
		n--;
	const char *eq = n && *s != '#' ? memchr(s, '=', n) : NULL;
	if (!eq || eq == s || memchr(s, 0, n))
		return 0;
	size_t key = (size_t)(eq - s) + 1;
	int r = env_expand(base, s + key, n - key, 0, &value);
	if (r)
		return r;
	size_t len = strlen(value);
	struct env_line *line = malloc(sizeof(*line) + key + len + 1);
	if (!line) {
		free(value);
		return -ENOMEM;
	}
	memcpy(line->text, s, key);
	memcpy(line->text + key, value, len + 1);
	free(value);
	line->next = set->lines;
	set->lines = line;
	return env_put(set, line->text);
}

int env_file(struct env_set *set, const struct env_set *base, const char *text, size_t n)
{
	size_t lines = 0;

	for (const char *end = text + n; text < end && lines++ < ENV_FILE_LINES;) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		const char *stop = eol ? eol : end;
		int r = env_line(set, base, text, (size_t)(stop - text));

		if (r)
			return r;
		text = eol ? eol + 1 : end;
	}
	return 0;
}

void env_clear(struct env_set *set)
{
	while (set->lines) {
		struct env_line *line = set->lines;

		set->lines = line->next;
		free(line);
	}
	free(set->at);
	*set = (struct env_set){0};
}
