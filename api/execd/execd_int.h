/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the files of api/execd share
 *
 * A request in progress is an "op" of the file that serves it: it holds a reference to its box, the HTTP request until
 * that is answered or aborted, and at most one agent stream.  The rule that keeps them apart from each other's memory:
 * whoever answers the request or gets `abort` detaches the stream; whoever gets the stream's last callback answers the
 * request.  After both the op is freed.
 */
#ifndef API_EXECD_EXECD_INT_H
#define API_EXECD_EXECD_INT_H

#include "api/execd/execd.h"
#include "base/http_server.h"
#include "runtime/agent_client.h"

#include <stdbool.h>

#define EXECD_PARAMS_MAX 2u
/* Longest JSON body: a replacement of a text of half a megabyte, old and new. */
#define EXECD_BODY_BYTES (1024u * 1024)
#define EXECD_CODE_BYTES (2u * 1024 * 1024) /* a script of 1 MiB, escaped */
/* An agent that lives answers a question about a command or a file in microseconds; a swapping host needs longer. */
#define EXECD_ANSWER_MS	 30000u
#define EXECD_ID_SIZE	 33 /* 32 hex digits and the NUL */

struct request_log;
struct pty_session;
struct session;
struct code_context;
struct jupyter_site;

struct execd {
	struct loop *loop; /* borrowed */
	struct execd_hooks hooks;
};

struct execd_box {
	struct execd *x;
	unsigned refs;
	struct agent_client *agent; /* owned; NULL once the box was freed by its owner */
	uint8_t sandbox_id[16];
	struct request_log *log;      /* owned; NULL: none wanted */
	struct pty_session *ptys;     /* owned list */
	size_t n_ptys;
	struct session *sessions;     /* owned list */
	size_t n_sessions;
	struct code_context *contexts; /* owned list */
	size_t n_contexts;
	struct jupyter_site *site;    /* owned; NULL: not asked for yet */
	struct gw_stat_reply sample;  /* of the last figures; mono_usec 0: none */
};

/* A call whose path matched; params are decoded path segments. */
struct execd_match {
	const struct execd_call *call;
	struct execd_box *box; /* running and attached or about to be */
	const char *params[EXECD_PARAMS_MAX];
};

typedef void execd_handler(const struct execd_match *match);

struct jv;

/**
 * execd_body_object() - Read a body that begins with one JSON object; null is an empty one
 * @body:	Its bytes
 * @n:		Their number
 * @lead:	What the message of a refusal begins with: the published server's words, which differ by group of calls
 * @err:	Filled on failure: EXECD_BODY
 *
 * Return: the object, the caller's to jv_free(), or NULL with @err set
 */
struct jv *execd_body_object(const char *body, size_t n, const char *lead, struct sbx_err *err);
/** execd_box_ref() - Keep @box's memory; Return: @box */
struct execd_box *execd_box_ref(struct execd_box *box);
/** execd_box_unref() - Let go of @box; NULL is fine */
void execd_box_unref(struct execd_box *box);
/** execd_box_agent() - The channel of @box; Return: NULL with @err set (NOT_READY) when the sandbox has ended */
struct agent_client *execd_box_agent(const struct execd_box *box, struct sbx_err *err);

/** execd_respond_empty() - Answer 200 with Content-Length 0 and end @req */
void execd_respond_empty(struct http_request *req);
/** execd_respond_json() - Answer 200 with the JSON in @body (500 when it failed) and end @req */
void execd_respond_json(struct http_request *req, struct buf *body);
/** execd_respond_err() - Answer with @err's status, code and message, which the client may see, and end @req */
void execd_respond_err(struct http_request *req, const struct sbx_err *err);
/**
 * execd_end_err() - Turn a request's end into an error
 * @end:	From the agent; reason is not OK
 * @text:	Its text: the path, or what was wrong
 * @n:		Its bytes
 * @err:	Filled
 */
void execd_end_err(const struct agent_end *end, const char *text, size_t n, struct sbx_err *err);
/** execd_query() - The call's raw query */
struct http_text execd_query(const struct execd_call *call);
/**
 * execd_query_one() - A query parameter that may be missing
 * @call:	The call
 * @name:	Its name
 * @ret_value:	Owned string, or NULL when it is absent
 *
 * Return: true, or false with the request answered
 */
bool execd_query_one(const struct execd_call *call, const char *name, char **ret_value);
/** execd_query_path() - Like execd_query_one(), but 400 MISSING_QUERY when it is absent or empty */
bool execd_query_path(const struct execd_call *call, const char *name, char **ret_value);
/** execd_parse_id() - Read a command id (32 hex digits, or a UUID; never the entrypoint's) into @id; Return: 0 or -EINVAL */
int execd_parse_id(const char *text, uint8_t id[16]);

/* ---- handlers, by file ---- */

/** command_run() - POST /command */
void command_run(const struct execd_match *match);
/** command_run_json() - As POST /command with @body, for a request whose own body was taken already */
void command_run_json(struct execd_box *box, struct http_request *req, const char *body, size_t n);
/** command_interrupt() - DELETE /command */
void command_interrupt(const struct execd_match *match);
/** command_status() - GET /command/status/{id} */
void command_status(const struct execd_match *match);
/** command_logs() - GET /command/{id}/logs */
void command_logs(const struct execd_match *match);
/** files_info() - GET /files/info */
void files_info(const struct execd_match *match);
/** files_delete() - DELETE /files */
void files_delete(const struct execd_match *match);
/** files_permissions() - POST /files/permissions */
void files_permissions(const struct execd_match *match);
/** files_move() - POST /files/mv */
void files_move(const struct execd_match *match);
/** files_search() - GET /files/search */
void files_search(const struct execd_match *match);
/** files_replace() - POST /files/replace */
void files_replace(const struct execd_match *match);
/** files_list() - GET /directories/list */
void files_list(const struct execd_match *match);
/** files_make_dirs() - POST /directories */
void files_make_dirs(const struct execd_match *match);
/** files_remove_dirs() - DELETE /directories */
void files_remove_dirs(const struct execd_match *match);
/** upload_files() - POST /files/upload */
void upload_files(const struct execd_match *match);
/** download_file() - GET /files/download */
void download_file(const struct execd_match *match);
/** metrics_get() - GET /metrics */
void metrics_get(const struct execd_match *match);
/** metrics_watch() - GET /metrics/watch */
void metrics_watch(const struct execd_match *match);

/** pty_create() - POST /pty */
void pty_create(const struct execd_match *match);
/** pty_get() - GET /pty/{id} */
void pty_get(const struct execd_match *match);
/** pty_delete() - DELETE /pty/{id} */
void pty_delete(const struct execd_match *match);
/** pty_connect() - GET /pty/{id}/ws */
void pty_connect(const struct execd_match *match);
/** pty_free_all() - The terminals of @box, whose streams are over, go with it */
void pty_free_all(struct execd_box *box);

/** code_run() - POST /code */
void code_run(const struct execd_match *match);
/** code_context_create() - POST /code/context */
void code_context_create(const struct execd_match *match);
/** code_context_list() - GET /code/contexts */
void code_context_list(const struct execd_match *match);
/** code_context_delete_all() - DELETE /code/contexts */
void code_context_delete_all(const struct execd_match *match);
/** code_context_get() - GET /code/contexts/{id} */
void code_context_get(const struct execd_match *match);
/** code_context_delete() - DELETE /code/contexts/{id} */
void code_context_delete(const struct execd_match *match);
/** code_interrupt() - Interrupt context @id; Return: false when there is no such context, with nothing answered */
bool code_interrupt(const struct execd_match *match, const char *id);
/** code_free_all() - The contexts of @box go with it */
void code_free_all(struct execd_box *box);
/** session_create() - POST /session */
void session_create(const struct execd_match *match);
/** session_run() - POST /session/{id}/run */
void session_run(const struct execd_match *match);
/** session_delete() - DELETE /session/{id} */
void session_delete(const struct execd_match *match);
/** session_interrupt() - End the run of session @id; Return: false when there is no such session, with nothing answered */
bool session_interrupt(const struct execd_match *match, const char *id);
/** session_free_all() - The sessions of @box, whose streams are over, go with it */
void session_free_all(struct execd_box *box);

/** request_log_new() - Append request lines to @path inside @box; Return: NULL when out of memory */
struct request_log *request_log_new(struct execd_box *box, const char *path);
/** request_log_free() - Drop what was not written; NULL is fine */
void request_log_free(struct request_log *log);
/** request_log_add() - Note one request; never waits; lines beyond the bound are dropped and counted */
void request_log_add(struct request_log *log, const struct execd_call *call);

#endif
