/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: file requests to the agent: their layout, and calls that are a row of them
 *
 * struct fs_request lays out one AGENT_FS payload.  struct fs_call serves an HTTP request by sending its payloads one
 * after the other; the first that fails ends the call with its error.
 */
#ifndef API_EXECD_FS_CALL_H
#define API_EXECD_FS_CALL_H

#include "api/execd/execd_int.h"
#include "base/buf.h"
#include "base/jv.h"

/* Fields that are zero are not asked for.  Strings are borrowed. */
struct fs_request {
	enum agent_fs_op op;
	uint32_t flags; /* enum agent_fs_flags */
	uint32_t mode, depth;
	uint64_t offset, length;
	const char *const *strings;
	size_t n_strings;
};

/** fs_request_payload() - Lay out @r behind the content of @out; Return: 0, or -1 with @err set (EXECD_BODY, NO_MEMORY) */
int fs_request_payload(const struct fs_request *r, struct buf *out, struct sbx_err *err) SBX_WUR;

struct fs_call;

struct fs_call_ops {
	enum agent_fs_op op; /* names the errors that mean something else for one operation */
	/* JSON body into requests with fs_call_add(); NULL: no body is read, they were added before. */
	int (*parse)(struct fs_call *call, const char *body, size_t n, struct sbx_err *err);
	/* A DATA frame; NULL: none may come. */
	int (*data)(struct fs_call *call, const uint8_t *data, size_t n, struct sbx_err *err);
	/* All succeeded: write the answer's body; NULL: 200 without a body. */
	void (*finish)(struct fs_call *call);
	/* Releases call->data, however the call ended; NULL: nothing to release. */
	void (*release)(struct fs_call *call);
};

struct fs_call {
	const struct fs_call_ops *ops;
	struct execd_box *box;
	struct http_request *req;
	struct agent_stream *stream;
	struct buf *payloads; /* owned array */
	size_t n_payloads, next;
	size_t not_granted;
	struct buf body;   /* of the answer */
	struct jw writer;  /* into body */
	char **names;	   /* owned: paths as asked, or NULL */
	struct buf *parts; /* owned: the answer's members by name, or NULL */
	size_t n_names;
	bool streaming;
	unsigned status; /* of a good answer with a body; 0: 200 */
	void *data;	 /* of the ops; owned by them until finish */
};

/** fs_call_new() - Begin serving @match->call with @ops; Return: the call, or NULL with the request answered */
struct fs_call *fs_call_new(const struct execd_match *match, const struct fs_call_ops *ops);
/** fs_call_add() - Queue one request; Return: 0, or -1 with @err set */
int fs_call_add(struct fs_call *call, const struct fs_request *r, struct sbx_err *err) SBX_WUR;
/** fs_call_start() - Read the body, or send the first request when there is none to read */
void fs_call_start(struct fs_call *call);
/** fs_call_refuse() - Answer with @err and release @call */
void fs_call_refuse(struct fs_call *call, const struct sbx_err *err);
/** fs_call_free() - Release @call, whose request was answered */
void fs_call_free(struct fs_call *call);

/** fs_map_errno() - What @end of an operation @op means to the client, into @err */
void fs_map_errno(enum agent_fs_op op, const struct agent_end *end, const char *text, size_t n, struct sbx_err *err);

#endif
