/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: command-line options as a table
 *
 * For the programs that sandboxd starts: long options only, each writes one variable; --help and --version are there by
 * themselves.  No positional arguments.
 */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "base/err.h"

#include <stddef.h>

enum option_kind {
	OPTION_TEXT = 1, /* const char **: borrowed from argv */
	OPTION_FD,	 /* uint32_t *: number of a descriptor */
	OPTION_SWITCH,	 /* bool *: set to true */
};

struct option_row {
	const char *name; /* without the dashes */
	enum option_kind kind;
	void *target;
};

#define OPTIONS_GO_ON (-1)

/**
 * options_read() - Read the command line of a program
 * @argc:	As main() got it
 * @argv:	As main() got it
 * @rows:	The options
 * @n:		Number of rows, at most 16
 * @help:	Whole text of --help; goes to stderr when the command line is wrong
 *
 * Return: OPTIONS_GO_ON, or main()'s exit code: 0 after --help or --version, 2 for a wrong command line
 */
int options_read(int argc, char **argv, const struct option_row *rows, size_t n, const char *help) SBX_WUR;

#endif
