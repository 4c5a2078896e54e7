/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what jupyter_site.c and jupyter_kernel.c share
 */
#ifndef API_EXECD_JUPYTER_INT_H
#define API_EXECD_JUPYTER_INT_H

#include "api/execd/jupyter.h"
#include "api/execd/jupyter_conn.h"
#include "api/execd/jupyter_msg.h"

#define JUPYTER_BASE_SIZE 128
#define JUPYTER_PATH_SIZE (JUPYTER_BASE_SIZE + JUPYTER_ID_SIZE + 128)

struct jupyter_call;

/* What one sandbox says of its server. */
struct jupyter_site {
	bool known, configured;
	enum execd_code_backend backend;
	const char *problem; /* static; NULL: none */
	uint32_t port;
	char base[JUPYTER_BASE_SIZE]; /* path in front of /api */
	char token[513];
	struct agent_stream *stream; /* while it is asked */
	struct buf said;
	struct jupyter_call *calls; /* owned */
};

/** jupyter_call() - Send one request to the server of @box on behalf of @req; nobody waits for the answer */
void jupyter_call(struct execd_box *box, struct http_request *req, const char *method, const char *path);

#endif
