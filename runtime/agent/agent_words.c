// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_words.h"

#include <errno.h>
#include <string.h>

#define NEEDS_SHELL "|&;<>()$`*?[]#~!{}\n"

/* Copies one quoted or plain run of a word from *from to *to. */
static int take_run(char **from, char **to, int first_word)
{
	char *f = *from, *t = *to;
	char quote = *f;

	if (quote == '\'') {
		for (f++; *f && *f != '\''; f++)
			*t++ = *f;
	} else if (quote == '"') {
		for (f++; *f && *f != '"'; f++) {
			if (*f == '$' || *f == '`')
				return -EINVAL;
			if (*f == '\\' && f[1] && strchr("\\\"$`", f[1]))
				f++;
			*t++ = *f;
		}
	} else if (quote == '\\') {
		if (!*++f)
			return -EINVAL;
		*t++ = *f;
	} else {
		if (strchr(NEEDS_SHELL, quote) || (first_word && quote == '='))
			return -EINVAL;
		*t++ = quote;
	}
	if (!*f)
		return -EINVAL; /* a quote is open */
	*from = f + 1;
	*to = t;
	return 0;
}

int words_split(char *text, const char **argv, size_t max)
{
	char *from = text, *to = text;
	size_t n = 0;

	for (;;) {
		from += strspn(from, " \t");
		if (!*from)
			break;
		if (n + 1 >= max)
			return -E2BIG;
		argv[n] = to;
		while (*from && *from != ' ' && *from != '\t') {
			int r = take_run(&from, &to, n == 0);

			if (r)
				return r;
		}
		/* the NUL may fall on the blank that ended the word: step over that one first */
		if (*from)
			from++;
		*to++ = '\0';
		n++;
	}
	argv[n] = NULL;
	return n ? (int)n : -EINVAL;
}
