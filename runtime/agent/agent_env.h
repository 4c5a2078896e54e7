/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: environments, and words with $VAR and ~ in them
 *
 * A set keeps pointers to NAME=value strings that its caller owns; a later one with the same name replaces the earlier.
 * Pure but for allocation.
 */
#ifndef RUNTIME_AGENT_AGENT_ENV_H
#define RUNTIME_AGENT_AGENT_ENV_H

#include <stddef.h>

#define ENV_FILE_BYTES (256u * 1024)
#define ENV_FILE_LINES 4096u

struct env_set {
	const char **at; /* owned; NULL-terminated: fit for execve */
	size_t n, room;
	struct env_line *lines; /* owned; what env_file() made, also where a later entry has replaced it */
};

/** env_put() - Lay @entry ("NAME=value", borrowed) over the set; Return: 0, -EINVAL (no name) or -ENOMEM */
int env_put(struct env_set *set, const char *entry);

/** env_put_row() - env_put() for @n strings, each behind the NUL of the one before; entries without a name are left out */
int env_put_row(struct env_set *set, const char *row, size_t n);

/** env_get() - The value of @name, or NULL */
const char *env_get(const struct env_set *set, const char *name, size_t name_len);

/**
 * env_expand() - Replace $NAME and ${NAME} in @n bytes of @text
 * @keep_unset:	A name that is not set stays as it is written; else it becomes empty
 * @ret:	Fresh memory
 *
 * Return: 0 or -ENOMEM
 */
int env_expand(const struct env_set *set, const char *text, size_t n, int keep_unset, char **ret);

/** env_path() - A path as a client names it: $NAME where set, then a leading ~ or ~/ as HOME; Return: 0 or -ENOMEM */
int env_path(const struct env_set *set, const char *text, char **ret);

/**
 * env_file() - Lay the lines of an environment file over @set
 * @base:	What $NAME in its values is expanded against; an unset name becomes empty
 *
 * A line is trimmed; empty ones, comments and lines without a name are passed over; quotes are kept as they are.
 *
 * Return: 0 or -ENOMEM
 */
int env_file(struct env_set *set, const struct env_set *base, const char *text, size_t n);

/** env_clear() - Free what @set owns; the strings that were put stay their owner's */
void env_clear(struct env_set *set);

#endif
