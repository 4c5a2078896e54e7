/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one string into arguments, with the shell's quoting and nothing else of it
 *
 * Space, tab and newline part words; '...', "..." and \ quote as in POSIX (XCU 2.2); in double quotes \ quotes only $ ` " \
 * and a newline.  No expansion, no operators, no comments: those characters are ordinary.
 */
#ifndef API_LIFECYCLE_WORD_SPLIT_H
#define API_LIFECYCLE_WORD_SPLIT_H

#include "base/err.h"

/**
 * word_split() - Part @text into words
 * @text:	The string
 * @max:	Words at most
 * @ret:	Owned NULL-terminated array, each word owned; untouched on failure
 * @err:	Filled on failure: INVALID_REQUEST (open quote, no word, too many), NO_MEMORY
 *
 * Return: the number of words, or -1 with @err set
 */
int word_split(const char *text, unsigned max, char ***ret, struct sbx_err *err) SBX_WUR;

/** word_list_free() - Release a NULL-terminated array of owned strings; NULL is fine */
void word_list_free(char **words);

#endif
