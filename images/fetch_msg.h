/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: messages between sandboxd and sandbox-fetch
 *
 * SOCK_SEQPACKET, one fixed struct a message; texts are NUL-terminated within their field.  sandbox-fetch talks to one
 * registry host for one pull and ends with its socket.
 *
 *	sandboxd            sandbox-fetch
 *	SETUP          ->                          host and credentials, once, first
 *	GET (fd)       ->                          at most FETCH_JOBS_MAX at once
 *	               <-   DONE                   one for each GET, in any order
 *
 * A process that gets a POST instead of SETUP sends events to egress.deny_webhook, which it knows from its own configuration:
 *
 *	POST           ->                          one at a time
 *	               <-   DONE                   http is what the sink answered
 *
 * What is fetched goes into the descriptor: a memory file for a manifest, a pipe for a blob, from the offset on.
 * sandboxd believes nothing of it: sizes and digests are checked by whoever reads the other end, and the texts of DONE
 * are shown to people only.
 */
#ifndef IMAGES_FETCH_MSG_H
#define IMAGES_FETCH_MSG_H

#include <stdint.h>

#define FETCH_MAGIC	   0x31544546u /* "FET1" */
#define FETCH_JOBS_MAX	   32u
#define FETCH_HOST_BYTES   256u
#define FETCH_PATH_BYTES   256u
#define FETCH_REF_BYTES	   136u
#define FETCH_USER_BYTES   256u
#define FETCH_SECRET_BYTES 8192u
#define FETCH_TEXT_BYTES   200u
#define FETCH_POST_BYTES   8192u
#define FETCH_SIGNATURE_BYTES 128u

enum fetch_kind { FETCH_SETUP = 1, FETCH_MANIFEST, FETCH_BLOB, FETCH_DONE, FETCH_POST };

struct fetch_head {
	uint32_t magic;
	uint32_t kind; /* enum fetch_kind */
	uint64_t tag;  /* of the GET or POST, echoed in DONE */
};

struct fetch_setup {
	struct fetch_head head;
	char host[FETCH_HOST_BYTES];	   /* "registry.example:5000" */
	char user[FETCH_USER_BYTES];	   /* "" with an empty password: none */
	char password[FETCH_SECRET_BYTES];
};

struct fetch_get {
	struct fetch_head head;
	uint64_t offset; /* BLOB: first byte that is wanted */
	uint64_t size;	 /* BLOB: of the whole */
	char path[FETCH_PATH_BYTES]; /* "library/debian" */
	char ref[FETCH_REF_BYTES];   /* tag or digest */
};

struct fetch_done {
	struct fetch_head head;
	uint32_t status; /* 0, or an enum sbx_err_code */
	uint32_t http;	 /* last status, 0: none */
	uint64_t bytes;
	char type[128];	 /* MANIFEST: media type as sent */
	char text[FETCH_TEXT_BYTES]; /* printable */
};

struct fetch_post {
	struct fetch_head head;
	uint32_t n; /* bytes of body */
	uint32_t zero;
	char signature[FETCH_SIGNATURE_BYTES]; /* a header's value; "": none */
	char body[FETCH_POST_BYTES];
};

union fetch_any {
	struct fetch_head head;
	struct fetch_post post;
	struct fetch_setup setup;
	struct fetch_get get;
	struct fetch_done done;
};

#endif
