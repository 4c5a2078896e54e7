/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: seccomp programs from tables (the only user of libseccomp)
 *
 * A program is a default action and rows.  It is compiled to a sealed memory file that holds an array of struct
 * sock_filter, so that a process without libseccomp can load it.  A name that the library does not know is an error
 * unless the row brings its number: a typing error must not become a hole.  A call that only other architectures have is skipped.
 */
#ifndef BASE_SYSFILTER_H
#define BASE_SYSFILTER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sysfilter_action {
	SYSFILTER_ALLOW = 0,
	SYSFILTER_ERRNO, /* fail with `sys`; 0 answers success without effect */
	SYSFILTER_KILL,	 /* the process */
};

enum sysfilter_compare { SYSFILTER_ANY = 0, SYSFILTER_EQUAL, SYSFILTER_NOT_EQUAL, SYSFILTER_MASKED_EQUAL, SYSFILTER_LESS, SYSFILTER_GREATER };

struct sysfilter_argument {
	unsigned index;
	enum sysfilter_compare compare; /* SYSFILTER_ANY ends the list */
	uint64_t value;			/* MASKED_EQUAL: the mask */
	uint64_t datum;			/* MASKED_EQUAL: (argument & value) == datum */
};

struct sysfilter_row {
	const char *name;
	int number; /* taken when the library does not know the name; 0: that is an error */
	enum sysfilter_action action;
	int sys;
	struct sysfilter_argument argument[2];
};

struct sysfilter {
	enum sysfilter_action otherwise; /* for calls in no row */
	int otherwise_sys;
	const struct sysfilter_row *row; /* borrowed */
	size_t n_rows;
};

/**
 * sysfilter_compile() - Compile a table
 * @filter:	The table
 * @ret_len:	Number of instructions
 * @err:	Filled on failure: SYSTEM, INVALID_REQUEST (unknown name)
 *
 * Calls of another architecture, x32 included, kill the process.
 *
 * Return: a sealed memory file with the instructions, the caller's; or -1 with @err set
 */
int sysfilter_compile(const struct sysfilter *filter, uint32_t *ret_len, struct sbx_err *err) SBX_WUR;

/**
 * sysfilter_load() - Load a compiled program into the calling process; needs CAP_SYS_ADMIN or no_new_privs
 * @fd:		What sysfilter_compile() returned
 * @len:	Its number of instructions
 *
 * Return: 0, or -errno
 */
int sysfilter_load(int fd, uint32_t len) SBX_WUR;

/** sysfilter_number() - Number of the system call @name here; Return: the number, or -ENOENT */
int sysfilter_number(const char *name);

#endif
