/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: code contexts that a Jupyter server of the image runs
 *
 * Where the server is and what its token is say the variables JUPYTER_HOST and JUPYTER_TOKEN of the sandbox, read inside
 * it once (jupyter_site); EXECD_CODE_BACKEND there and `code.backend` of the configuration say whether it may be asked at
 * all.  A context's kernel is one session of that server and one channels socket:
 *
 *	context                    this                        server inside
 *	start -------------------> sockets from sandboxd ----> GET /api/kernelspecs, POST /api/sessions, the socket
 *	   frame H <-------------- kernel_info_reply <--------
 *	run ---------------------> execute_request ----------->
 *	   frames O, E, R, D <---- stream, execute_result, display_data
 *	   frame Z <-------------- execute_reply and status idle
 *
 * What comes is turned into the frames of a driver, so the rest of the context knows no difference.
 */
#ifndef API_EXECD_JUPYTER_H
#define API_EXECD_JUPYTER_H

#include "api/execd/code_int.h"

/** jupyter_may() - Whether the operator lets contexts of @box use a Jupyter server */
bool jupyter_may(const struct execd_box *box);
/**
 * jupyter_site_ask() - Find out what the sandbox says of its Jupyter server
 * @c:		A context that starts
 * @needed:	It cannot start without a server: ask again when there was none, for variables of files may have come since
 *
 * Return: true when it is known; else code_context_sited() is called for @c later
 */
bool jupyter_site_ask(struct code_context *c, bool needed);
/** jupyter_site_free() - Forget what is known of the sandbox of @box, and end what is still being said to its server */
void jupyter_site_free(struct execd_box *box);
/**
 * jupyter_wanted() - Whether @c is to be run by the server
 * @c:		A context whose site is known
 * @refused:	There is no interpreter for it in the image
 * @ret:	Written on success
 * @err:	Filled on failure: EXECD_RUNTIME (what the sandbox says makes no sense, or it has no server where one is needed)
 *
 * Return: 0, or -1 with @err set
 */
int jupyter_wanted(const struct code_context *c, bool refused, bool *ret, struct sbx_err *err) SBX_WUR;

/** jupyter_start() - Let the server start a kernel for @c, which is STARTING; frame H or code_context_failed() follows */
void jupyter_start(struct code_context *c);
/** jupyter_run() - Run @code as run @number of @c, whose kernel is ready; Return: 0 or -ENOMEM */
int jupyter_run(struct code_context *c, uint32_t number, const char *code);
/** jupyter_interrupt() - Let the server interrupt the kernel of @c, on behalf of @req */
void jupyter_interrupt(struct code_context *c, struct http_request *req);
/** jupyter_pause() - Read nothing from the kernel of @c (@on), or go on */
void jupyter_pause(struct code_context *c, bool on);
/**
 * jupyter_drop() - Let go of the kernel of @c, if it has one
 * @c:		The context
 * @req:	On behalf of whom the server is told to end the session; NULL: it is told with the next start of @c
 */
void jupyter_drop(struct code_context *c, struct http_request *req);
/** jupyter_held() - Bytes of unfinished messages for @c */
size_t jupyter_held(const struct code_context *c);
/** jupyter_free() - Release what @c keeps; jupyter_drop() came before */
void jupyter_free(struct code_context *c);

#endif
