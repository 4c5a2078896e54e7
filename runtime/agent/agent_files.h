/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: file operations, in a child with the tenant's identity
 *
 * files_main() is all that such a child does.  It talks to the agent over one SOCK_SEQPACKET descriptor: whole frames out
 * (DATA, then one END).  The content of an upload, and of a download of more than a few pages, goes through a pipe, so that
 * the agent can pass it on without touching it.  An upload is complete when a struct files_complete came over the socket
 * and as many bytes as it says over the pipe; a socket that ends before means that it was given up.  READ's content stands
 * whole in the pipe before END is sent.  REPLACE's files come as the content of an upload does.  The child may block as long as it likes: a FIFO or a stale mount stops this
 * child and nothing else.
 */
#ifndef RUNTIME_AGENT_AGENT_FILES_H
#define RUNTIME_AGENT_AGENT_FILES_H

#include "runtime/agent/agent.h"
#include "runtime/agent/agent_env.h"
#include "runtime/agent/agent_spec.h"

#define FILES_SOCKET_FD 3
#define FILES_PIPE_FD	4 /* WRITE, APPEND: to read from; READ: to write to; else not open */

struct files_complete {
	uint64_t bytes;
};

struct files_job {
	struct agent_fs fs;
	const char *strings;
	struct env_set env; /* what $NAME and ~ in paths mean */
	uint64_t value;	    /* of END */
	uint8_t *out;	    /* one frame being filled */
	uint32_t have;
	char *passwd, *group; /* owned; the image's files, read when first asked for */
	size_t passwd_n, group_n;
	const char *blame; /* path as the client gave it, for END */
};

/** files_main() - Enter the sandbox as @who, do @request and exit */
__attribute__((noreturn)) void files_main(const struct agent *a, const struct users_identity *who, const struct spec_fs *request);

/* agent_files.c, for agent_walk.c */

/** files_record() - Send what lstat(2) says about @path; @shown: the path in the record; Return: 0 or -errno */
int files_record(struct files_job *job, int dir_fd, const char *path, const char *shown, uint32_t index);
/** files_keep_xattrs() - Give @to_fd the extended attributes of @from but those of the system; Return: 0 or -errno */
int files_keep_xattrs(const char *from, int to_fd);
/** files_write_all() - write(2) until all of @data went to @fd; Return: 0 or -errno */
int files_write_all(int fd, const uint8_t *data, size_t n);
/** files_data() - Send @n bytes of content */
void files_data(struct files_job *job, const void *data, size_t n);

/* agent_walk.c */

/** walk_list() - LIST: the tree beneath @path to @depth levels, pre-order, names in byte order; Return: 0 or -errno */
int walk_list(struct files_job *job, const char *path, uint32_t depth);
/** walk_search() - SEARCH: everything beneath @path but directories that @pattern matches; Return: 0, -EINVAL for the pattern, -errno */
int walk_search(struct files_job *job, const char *path, const char *pattern);
/** walk_remove() - RMTREE: of any depth, without recursion; a missing @path is fine; Return: 0 or -errno */
int walk_remove(const char *path);
/** walk_copy() - Copy the tree @from to @to, which is not there; Return: 0 or -errno */
int walk_copy(const char *from, const char *to);

#endif
