/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what is said with a Jupyter server: messages of a kernel's channels, and two answers of its REST interface
 *
 * Bytes in, a kind and a payload out; no I/O.  Server and kernel run inside the sandbox and are hostile: everything is
 * bounded by the caller, checked here, and concerns one context only.  Payloads have the form of a driver's frames
 * (code_frames.h), so that both ways of running code end in the same events.
 */
#ifndef API_EXECD_JUPYTER_MSG_H
#define API_EXECD_JUPYTER_MSG_H

#include "base/buf.h"
#include "base/err.h"
#include "base/num.h"

#include <stddef.h>

#define JUPYTER_NAME_SIZE 129 /* kernel names */
#define JUPYTER_ID_SIZE	  65  /* ids of sessions and kernels: hex digits and dashes, in fact UUIDs */

enum jupyter_kind {
	JUPYTER_NOTHING = 0, /* of another request, or of no use to us */
	JUPYTER_STDOUT,	     /* payload: text */
	JUPYTER_STDERR,	     /* payload: text */
	JUPYTER_RESULT,	     /* payload: list of MIME type and data in turn */
	JUPYTER_DISPLAY,     /* as RESULT */
	JUPYTER_ERROR,	     /* payload: list of name, value and lines of the traceback */
	JUPYTER_REPLY,	     /* the request was worked off */
	JUPYTER_REPLY_ERROR, /* it was, and failed; payload as ERROR */
	JUPYTER_IDLE,	     /* all output of the request has been sent */
	JUPYTER_INFO,	     /* the kernel answers */
	JUPYTER_DEAD,	     /* the kernel ended; payload: "dead" or "restarting" */
	JUPYTER_BAD,	     /* no message at all; payload: why */
	JUPYTER_KIND_COUNT
};

/**
 * jupyter_msg_read() - Read one message of the channels socket
 * @text:	JSON; escapes that no text of ours may hold (NUL, half of a pair) are replaced in place
 * @n:		Its bytes
 * @parent:	Id of the request whose messages count
 * @payload:	Appended to
 *
 * Return: what it is; BAD when it is none or memory is short
 */
enum jupyter_kind jupyter_msg_read(char *text, size_t n, const char *parent, struct buf *payload);
/** jupyter_kind_name() - Name of @kind; Return: static string */
const char *jupyter_kind_name(enum jupyter_kind kind);
/** jupyter_msg_execute() - Append the message that has @code run, as request @id of @session; Return: 0 or -ENOMEM */
int jupyter_msg_execute(struct buf *out, const char *session, const char *id, const char *code);
/** jupyter_msg_info() - Append the message that asks whether the kernel answers, as request @id of @session; Return: 0 or -ENOMEM */
int jupyter_msg_info(struct buf *out, const char *session, const char *id);
/** jupyter_msg_session() - Append the body that asks for a session of kernel @kernel at @path for @context; Return: 0 or -ENOMEM */
int jupyter_msg_session(struct buf *out, const char *kernel, const char *path, const char *context);

/**
 * jupyter_kernel_choose() - Find the kernel of a language among the kernel specifications
 * @body:	The answer, JSON
 * @n:		Its bytes
 * @language:	As the client names it, in any case
 * @ret:	Its name, which may stand in a JSON text and in a path
 * @err:	Filled on failure: EXECD_RUNTIME (there is none, or the answer makes no sense)
 *
 * The name "python3" is taken when no other kernel has the language: images that bring a kernel of their own want that one.
 *
 * Return: 0, or -1 with @err set
 */
int jupyter_kernel_choose(char *body, size_t n, const char *language, char ret[JUPYTER_NAME_SIZE], struct sbx_err *err) SBX_WUR;
/** jupyter_session_ids() - Read the ids of a new session and its kernel from @n bytes of @body; Return: 0, or -1 with @err set */
int jupyter_session_ids(char *body, size_t n, char ret_session[JUPYTER_ID_SIZE], char ret_kernel[JUPYTER_ID_SIZE],
			struct sbx_err *err) SBX_WUR;

/* A session that was asked for here, perhaps by a gateway that is gone. */
struct jupyter_ours {
	char session[JUPYTER_ID_SIZE];
	char context[UUID_SIZE];
};
/**
 * jupyter_sessions_ours() - Find the sessions that have a name of ours in the server's list
 * @body:	The answer, JSON
 * @n:		Its bytes
 * @ret:	Filled with what can be named in a path
 * @max:	At most so many
 *
 * Return: how many; 0 also when the answer makes no sense
 */
size_t jupyter_sessions_ours(char *body, size_t n, struct jupyter_ours *ret, size_t max);

#endif
