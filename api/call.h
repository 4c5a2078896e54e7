/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one request to the API, from routing to its answer
 *
 * A struct api_call is made for each request and ends with exactly one api_reply_*() call, which releases it.  The request's
 * own texts (body, query, parameters) are borrowed: they are valid only until the handler returns.  What an
 * asynchronous handler needs later it copies or looks up again.  A callback that comes after the server was freed may only
 * reply: the answer then goes nowhere.
 */
#ifndef API_CALL_H
#define API_CALL_H

#include "base/buf.h"
#include "base/err.h"
#include "base/http_server.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct broker_client;
struct egress_events;
struct blob_store;
struct image_pulls;
struct image_store;
struct images_commits;
struct images_gc;
struct images_imports;
struct jv;
struct sandbox_manager;
struct settings;

#define API_PARAMS_MAX 2u

/* What every handler may use; owned by the server. */
struct api_context {
	struct loop *loop;
	const struct settings *settings;
	struct sandbox_manager *manager;
	struct image_store *images;	/* NULL: none */
	struct image_pulls *pulls;	/* NULL: none */
	struct blob_store *blobs;	/* NULL: none */
	struct broker_client *broker;	/* NULL: none */
	struct images_imports *imports;	/* NULL: none */
	struct images_commits *commits;	/* NULL: none */
	struct images_gc *gc;		/* NULL: none */
	struct egress_events *events;	/* NULL: none */
	const char *api_key;		/* never NULL; "": none is configured */
	bool insecure;
	int state_dir_fd;
};

/* How a request arrived, as the gateway says it. */
struct api_request {
	struct http_text method, target, host, origin, api_key, content_type, request_id, client, body;
	struct http_text accept, last_event_id;
	struct http_text sandbox, egress_token; /* of a request for port 18080 */
	bool has_api_key; /* the header was there, perhaps empty */
	bool unix_peer;	  /* over the Unix socket from a uid that is allowed */
};

/* The answer; every pointer is valid during the call only. */
struct api_answer {
	uint32_t status;
	const char *content_type; /* "" for none */
	const char *headers;	  /* "Name: value\r\n"..., "" for none */
	const char *body;
	size_t body_len;
	int stream_fd; /* the answer goes on in this pipe; borrowed; 0 or below: none */
	uint64_t stream_bytes; /* so many bytes come through it, fewer are a broken answer; 0: it says itself when it is over */
};
typedef void api_answer_fn(void *arg, const struct api_answer *answer);

struct api_call {
	const struct api_context *context;
	api_answer_fn *answer;
	void *answer_arg;
	/* valid until the handler returns */
	const struct api_request *request;
	struct http_text query;
	const char *param[API_PARAMS_MAX]; /* decoded path segments that the pattern left open; "" when not there */
	bool authorised_by_key;
	bool in_handler;
	bool ended; /* answered while in the handler: released when it returns */
};

/** api_reply() - Answer @call with @answer and release it */
void api_reply(struct api_call *call, const struct api_answer *answer);
/** api_reply_json() - Answer @call with @status and the JSON text in @body; 500 when @body failed for lack of memory */
void api_reply_json(struct api_call *call, uint32_t status, struct buf *body);
/** api_reply_text() - Answer @call with @status 200 and the plain text in @body, with header lines @headers ("" for none) */
void api_reply_text(struct api_call *call, struct buf *body, const char *headers);
/** api_reply_empty() - Answer @call with @status and no body */
void api_reply_empty(struct api_call *call, uint32_t status);
/** api_reply_error() - Answer @call with the JSON {"code","message"} of @err; a 5xx that tells of our insides stays vague */
void api_reply_error(struct api_call *call, const struct sbx_err *err);
/** api_reply_code() - Answer @call with the error @code and a message that the client may see */
void api_reply_code(struct api_call *call, enum sbx_err_code code, const char *fmt, ...) SBX_PRINTF(3, 4);

/**
 * api_call_body() - Read the request's body as JSON; answers the call when it cannot
 * @call:	A call in its handler
 * @required:	Whether an empty body is an error (SCHEMA); otherwise it gives NULL in *@ret
 * @ret:	Root of the document (jv_free() it), or NULL
 *
 * Return: 0, or -1 after having answered (MALFORMED, SCHEMA)
 */
int api_call_body(struct api_call *call, bool required, struct jv **ret) SBX_WUR;

/** api_error_body() - Write {"code","message"} of @err into @out as a client may see it */
void api_error_body(const struct sbx_err *err, struct buf *out);

/**
 * api_error_answer() - The whole answer for @err
 * @err:	The error
 * @body:	Empty; holds the answer's text, so it must live as long as *@ret is used
 * @ret:	Filled; its body is never empty, also when memory is out
 */
void api_error_answer(const struct sbx_err *err, struct buf *body, struct api_answer *ret);

#endif
