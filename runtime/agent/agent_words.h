/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a command text where there is no shell
 *
 * An image may hold one static program and nothing else.  A command for it is split into words here, as a shell would do with
 * plain words and quotes; a text that asks a shell for more is not run at all.
 */
#ifndef RUNTIME_AGENT_WORDS_H
#define RUNTIME_AGENT_WORDS_H

#include <stddef.h>

/**
 * words_split() - Split a command text into arguments, in place
 * @text:	Is overwritten: the words end in NUL within it
 * @argv:	Filled with pointers into @text and a NULL
 * @max:	Room in @argv, with the NULL
 *
 * Quotes and backslashes as in POSIX sh 2.2; anything that a shell would expand or act on (redirection, pipes, lists,
 * variables, patterns, comments, assignments) is refused.
 *
 * Return: the number of words (at least 1), or -EINVAL (needs a shell, or a quote is open) or -E2BIG
 */
int words_split(char *text, const char **argv, size_t max);

#endif
