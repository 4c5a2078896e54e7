/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a JSON object of any size, member by member as it arrives
 *
 * Finds where members end (brackets and strings are counted, nothing else is understood) and has each one read by the one
 * JSON reader as an object of its own, so what is no JSON is refused there.  Bytes behind the object are not looked at; a
 * body that is null is an object without members.  Names that occur twice are the caller's to find.
 */
#ifndef API_EXECD_MEMBERS_H
#define API_EXECD_MEMBERS_H

#include "base/buf.h"
#include "base/jv.h"

/* One member; jv_name() is its name.  Return: 0, or -1 with @err set, which ends the reading. */
typedef int members_fn(void *arg, const struct jv *member, struct sbx_err *err);

struct members { /* zeroed but for the first three */
	members_fn *each;
	void *arg;
	size_t text_max; /* of one member */
	int where;
	unsigned depth; /* of brackets, the object's own included */
	bool in_string, escaped, comma; /* comma: a member has to follow */
	struct buf text; /* the member that is being received; or a body that is no object */
};

/**
 * members_feed() - Read the next bytes
 * @m:		The reader
 * @data:	They
 * @n:		Their number
 * @err:	Filled on failure: EXECD_BODY, TOO_LARGE, NO_MEMORY, or what @m->each said
 *
 * Return: 0, or -1 with @err set; @m is then good for members_clear() only
 */
int members_feed(struct members *m, const char *data, size_t n, struct sbx_err *err) SBX_WUR;
/** members_end() - Nothing follows: was that all of an object?  Return: 0, or -1 with @err set (EXECD_BODY) */
int members_end(struct members *m, struct sbx_err *err) SBX_WUR;
/** members_clear() - Release what @m holds */
void members_clear(struct members *m);

#endif
