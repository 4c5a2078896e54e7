/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: errors as values
 *
 * Two tiers.  Primitives in base/ return >= 0 or a negative errno and have no text.  Operations take a last parameter
 * `struct sbx_err *err`, return 0 (or a non-negative value) or -1, and fill the caller's struct.  The struct has a fixed
 * size and lives on the stack, so failing never allocates.  The codes stand in errors.def.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>

enum sbx_err_code {
	SBX_E_NONE = 0,
#define SBX_ERR(name, status, api, meaning) SBX_E_##name,
#include "base/errors.def"
#undef SBX_ERR
	SBX_E_COUNT
};

#define SBX_ERR_MSG_SIZE 240

struct sbx_err {
	enum sbx_err_code code;	    /* one of errors.def: what an API client may switch on */
	int sys;		    /* errno of the failing call, or 0 */
	char msg[SBX_ERR_MSG_SIZE]; /* outermost context first: "create sandbox s1: mount /proc: ..." */
};

#define SBX_WUR		    __attribute__((warn_unused_result))
#define SBX_PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))

/**
 * sbx_err_set() - Fill an error and return -1, so that `return sbx_err_set(...)` reads well
 * @err:	Filled; may be NULL when the caller does not want to know
 * @code:	One of errors.def
 * @sys:	errno of the failing call, or 0; its text is appended to the message
 * @fmt:	Names the object and the value; lower case, no full stop, no secret
 *
 * Return: -1 always
 */
int sbx_err_set(struct sbx_err *err, enum sbx_err_code code, int sys, const char *fmt, ...) SBX_PRINTF(4, 5);

/**
 * sbx_err_wrap() - Put context in front of an error's message and return -1
 * @err:	Already set; may be NULL
 * @fmt:	The context, without the colon
 *
 * Return: -1 always
 */
int sbx_err_wrap(struct sbx_err *err, const char *fmt, ...) SBX_PRINTF(2, 3);

/**
 * sbx_err_name() - Name of a code as written in errors.def
 * @code:	Any value; unknown ones give "UNKNOWN"
 *
 * Return: static string
 */
const char *sbx_err_name(enum sbx_err_code code);

/**
 * sbx_printable() - Copy a text that somebody else wrote, for a message: what is not printable ASCII becomes '?'
 * @text:	Borrowed; a NUL ends it
 * @n:		Bytes at most
 * @out:	May be @text itself
 * @size:	Of @out, with the NUL
 */
void sbx_printable(const char *text, size_t n, char *out, size_t size);

/**
 * sbx_err_api_code() - The `code` member that an API client sees
 * @code:	Any value; unknown ones give the general code
 *
 * Return: static string
 */
const char *sbx_err_api_code(enum sbx_err_code code);

/**
 * sbx_err_status() - The HTTP status that goes with a code
 * @code:	Any value; unknown ones give 500
 *
 * Return: 400..599
 */
int sbx_err_status(enum sbx_err_code code);

/**
 * sbx_err_meaning() - The sentence of errors.def, for the manual and for 5xx answers
 * @code:	Any value
 *
 * Return: static string
 */
const char *sbx_err_meaning(enum sbx_err_code code);

#endif
