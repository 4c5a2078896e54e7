/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandboxd's side of sandbox-fetch
 *
 * One client is one sandbox-fetch process, for one registry host and one pull, or for the deny webhook.  It is started by whoever may (the monitor),
 * behind a hook.  Requests that come before it runs wait here.
 */
#ifndef IMAGES_FETCH_CLIENT_H
#define IMAGES_FETCH_CLIENT_H

#include "base/err.h"
#include "base/loop.h"
#include "images/fetch_msg.h"
#include "images/registry_auth.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fetch_client;

/* Told once whether the process runs; @auth_file_fd is the operator's credential file or -1, the callee's to close. */
typedef void fetch_started(void *to, int auth_file_fd, const struct sbx_err *err);

struct fetch_starter {
	void *arg;
	/* Starts a process on @socket, which stays the caller's; @started comes later, never from inside.  Return: 0 or -1 */
	int (*start)(void *arg, int socket, fetch_started *started, void *to, struct sbx_err *err);
};

struct fetch_client_config {
	struct loop *loop;
	const struct fetch_starter *starter; /* borrowed */
	const char *host;
	const char *path; /* of the repository; chooses among entries of the credential file */
	const struct registry_credentials *credentials; /* NULL: those of the credential file */
	bool posts; /* for fetch_client_post() alone; host and credentials mean nothing */
	void *arg;
	void (*done)(void *arg, const struct fetch_done *done);
	void (*lost)(void *arg, const struct sbx_err *err); /* it is gone; nothing more comes */
};

/** fetch_client_new() - Start a process for @config->host; Return: the client (fetch_client_free() it), or NULL with @err set */
struct fetch_client *fetch_client_new(const struct fetch_client_config *config, struct sbx_err *err) SBX_WUR;
/** fetch_client_free() - End the process; nothing more is told; NULL is fine; allowed in its callbacks */
void fetch_client_free(struct fetch_client *c);
/**
 * fetch_client_get() - Ask for a manifest or a blob
 * @c:		The client
 * @get:	Kind, tag, path, ref, offset and size; the magic is filled here
 * @fd:		Where the bytes go; duplicated
 * @err:	Filled on failure: LIMIT (FETCH_JOBS_MAX wait), SYSTEM, PEER_GONE
 *
 * Return: 0, or -1 with @err set
 */
int fetch_client_get(struct fetch_client *c, const struct fetch_get *get, int fd, struct sbx_err *err) SBX_WUR;
/**
 * fetch_client_post() - Have the deny webhook told
 * @c:		A client that posts; the POST before was answered
 * @tag:	Echoed
 * @signature:	What the sink may check it by, or ""
 * @body:	JSON
 * @n:		Its bytes
 * @err:	Filled on failure: LIMIT (too long, or one waits), NO_MEMORY, PEER_GONE
 *
 * Return: 0, or -1 with @err set
 */
int fetch_client_post(struct fetch_client *c, uint64_t tag, const char *signature, const char *body, size_t n, struct sbx_err *err) SBX_WUR;

#endif
