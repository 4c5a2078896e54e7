/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: /etc/passwd and /etc/group of the image
 *
 * Both are hostile: read as a regular file, without following a link, without blocking on a FIFO, at most
 * USERS_FILE_BYTES and USERS_LINES; a line that is not well-formed is passed over.  An id above USERS_MAX_ID does not
 * exist.  Runs in a child with the tenant's root directory, never in pid 1 itself.
 */
#ifndef RUNTIME_AGENT_AGENT_USERS_H
#define RUNTIME_AGENT_AGENT_USERS_H

#include <stddef.h>
#include <stdint.h>

#define USERS_FILE_BYTES (1024u * 1024)
#define USERS_LINES	 10000u
#define USERS_MAX_ID	 0x7ffffffeu
#define USERS_GROUPS	 64u
#define USERS_HOME_BYTES 256u
#define USERS_NAME_BYTES 64u

struct users_identity {
	uint32_t uid;
	uint32_t gid;
	uint32_t n_groups;
	uint32_t groups[USERS_GROUPS];
	char home[USERS_HOME_BYTES]; /* "" when passwd does not tell */
	char name[USERS_NAME_BYTES]; /* "" when passwd does not tell */
};

/** users_id() - Read @n bytes as an id of at most USERS_MAX_ID; Return: 0 or -EINVAL */
int users_id(const char *text, size_t n, uint32_t *ret);

/**
 * users_find_passwd() - Find a user in the text of a passwd file
 * @name:	The name, or NULL to look for @uid
 * @ret:	uid, gid, home and name are filled
 *
 * Return: 0 or -ENOENT
 */
int users_find_passwd(const char *text, size_t n, const char *name, uint32_t uid, struct users_identity *ret);

/** users_find_group() - The gid of group @name in the text of a group file; Return: 0 or -ENOENT */
int users_find_group(const char *text, size_t n, const char *name, uint32_t *ret);

/** users_group_name() - The name of @gid into @out (at most @size bytes with the NUL); Return: 0 or -ENOENT */
int users_group_name(const char *text, size_t n, uint32_t gid, char *out, size_t size);

/** users_add_groups() - Add the groups that list @id->name as a member to @id->groups, up to USERS_GROUPS */
void users_add_groups(const char *text, size_t n, struct users_identity *id);

/** users_load() - Read the file @path into fresh memory; Return: 0 with *@ret_n 0 when it is absent or not acceptable */
int users_load(const char *path, char **ret, size_t *ret_n);

/**
 * users_resolve() - Who "name", "uid", "name:group" or "uid:gid" is in this image
 *
 * An unknown number gets gid 0 and no groups, as Docker does; an unknown name is an error.
 *
 * Return: 0, -ENOENT or -EINVAL
 */
int users_resolve(const char *spec, struct users_identity *ret);

/** users_resolve_uid() - The same for a number; @gid overrides the primary group unless it is NULL */
int users_resolve_uid(uint32_t uid, const uint32_t *gid, struct users_identity *ret);

#endif
