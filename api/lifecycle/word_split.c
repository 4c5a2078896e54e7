// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/word_split.h"

#include "base/cleanup.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void word_list_free(char **words)
{
	if (!words)
		return;
	for (char **w = words; *w; w++)
		free(*w);
	free(words);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n';
}

/*
 * Copies one word to @out, which has room for all of the text.  Return: its length, -1: an open quote.  *@text is moved
 * behind the word.
 */
static ssize_t read_word(const char **text, char *out)
{
	const char *p = *text;
	char quote = '\0';
	size_t n = 0;

	for (; *p && (quote || !is_blank(*p)); p++) {
		if (quote == '\'') {
			if (*p == '\'')
				quote = '\0';
			else
				out[n++] = *p;
			continue;
		}
		if (*p == '\\') {
			if (!p[1])
				return -1;
			if (p[1] == '\n') { /* the line goes on */
				p++;
				continue;
			}
			if (quote && !strchr("$`\"\\", p[1]))
				out[n++] = '\\';
			out[n++] = *++p;
			continue;
		}
		if (quote ? *p == quote : (*p == '\'' || *p == '"')) {
			quote = quote ? '\0' : *p;
			continue;
		}
		out[n++] = *p;
	}
	if (quote)
		return -1;
	*text = p;
	return (ssize_t)n;
}

static int add_word(char ***list, size_t n, const char *text, size_t len)
{
	/* grows by doubling: at 1, 2, 4, ... the array is full; one more is for the NULL */
	if (!(n & (n - 1))) {
		size_t room = n ? 2 * n : 1;
		char **bigger = realloc(*list, (room + 1) * sizeof(**list));

		if (!bigger)
			return -1;
		*list = bigger;
	}
	(*list)[n] = strndup(text, len);
	(*list)[n + 1] = NULL;
	return (*list)[n] ? 0 : -1;
}

int word_split(const char *text, unsigned max, char ***ret, struct sbx_err *err)
{
	auto_free char *word = malloc(strlen(text) + 1);
	char **list = NULL;
	size_t n = 0;

	if (!word)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "entrypoint");
	for (;;) {
		while (is_blank(*text))
			text++;
		if (!*text)
			break;
		ssize_t len = read_word(&text, word);
		if (len < 0) {
			word_list_free(list);
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint: a quote or backslash is left open");
		}
		if (n == max) {
			word_list_free(list);
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint: more than %u arguments", max);
		}
		if (add_word(&list, n, word, (size_t)len) < 0) {
			word_list_free(list);
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "entrypoint");
		}
		n++;
	}
	if (!n)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint: there is no word in it");
	*ret = list;
	return (int)n;
}
