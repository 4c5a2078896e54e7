/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what sandboxd answers
 *
 * Ties the requests that the gateway passes on (gw_server) to the lifecycle, image and volume handlers.  Lives in
 * sandboxd's loop: a handler never blocks; what takes time answers later, by its tag.  When the gateway goes away, work that
 * was begun goes on and its answer is dropped.
 */
#ifndef API_API_SERVER_H
#define API_API_SERVER_H

#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>

struct api_server;
struct broker_client;
struct egress_events;
struct blob_store;
struct image_pulls;
struct image_store;
struct sandbox;
struct sandbox_manager;
struct settings;

struct api_server_config {
	struct loop *loop;		   /* borrowed */
	const struct settings *settings;   /* borrowed */
	struct sandbox_manager *manager;   /* borrowed */
	struct image_pulls *pulls;  /* borrowed; NULL: nothing is pulled */
	struct blob_store *blobs;   /* borrowed; NULL: none */
	struct image_store *images;	   /* borrowed; NULL: image routes answer 503 */
	struct broker_client *broker;	   /* borrowed; NULL: import and host routes answer 503 */
	struct egress_events *events;	   /* borrowed; NULL in tests only */
	int control_fd;			   /* listening SOCK_SEQPACKET of control.sock; stays the caller's */
	int state_dir_fd;		   /* sandboxd's own folder: import/ is below it; stays the caller's */
	unsigned int gateway_uid;	   /* the only peer that is heard, besides our own uid */
	const char *api_key;		   /* borrowed; "" or NULL: none is configured */
	bool insecure;			   /* the operator wrote down that loopback needs no key */
};

/**
 * api_server_new() - Begin to accept the gateway
 * @config:	Copied; what it points at is borrowed for the server's life
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the server (api_server_free() it), or NULL with @err set
 */
struct api_server *api_server_new(const struct api_server_config *config, struct sbx_err *err) SBX_WUR;

/** api_server_free() - Close every channel of @server; callbacks that still come from the manager find it gone */
void api_server_free(struct api_server *server);

/** api_server_pull_ended() - A pull has ended, perhaps because the disk is full; NULL is fine */
void api_server_pull_ended(struct api_server *server);

/**
 * api_server_changed() - Tell the gateway that a sandbox changed: sandbox_hooks.changed
 * @server:	A struct api_server, as void so that it fits the hook; NULL (not made yet) is fine
 * @sandbox:	The sandbox
 * @gone:	It is being removed from the listing
 */
void api_server_changed(void *server, const struct sandbox *sandbox, bool gone);

#endif
