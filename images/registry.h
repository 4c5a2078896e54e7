/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the dialogue with one registry (OCI distribution-spec 1.1, "Pull")
 *
 * Runs in sandbox-fetch.  A job fetches one manifest or one blob: it answers challenges (once with fresh credentials, then
 * the refusal is final), follows redirects by hand (never from https to http; the token does not travel to another host),
 * goes on behind what came when a transfer breaks, waits and tries again on 429 and 5xx.  It refuses a reply whose length,
 * range or encoding is not what was asked for, before any of its bytes is passed on.
 */
#ifndef IMAGES_REGISTRY_H
#define IMAGES_REGISTRY_H

#include "base/err.h"
#include "images/fetch_msg.h"
#include "images/registry_auth.h"

#include <stdbool.h>

struct registry;

struct registry_config {
	const char *host; /* of the reference; "docker.io" stands for its registry */
	const struct registry_credentials *credentials;
	const char *ca_dir;  /* HOST/ca.crt below it is trusted for this host; "" for none */
	bool plain;	     /* http is allowed when the host does not speak TLS */
	unsigned stall_s, retries;
	void *arg;
	void (*done)(void *arg, const struct fetch_done *done);
};

/** registry_new() - Begin a dialogue with @config's host; its texts are copied; Return: it, or NULL with @err set */
struct registry *registry_new(const struct registry_config *config, struct sbx_err *err) SBX_WUR;
/** registry_free() - Release @r; jobs end without an answer; NULL is fine */
void registry_free(struct registry *r);
/**
 * registry_get() - Begin a job
 * @r:		The dialogue
 * @get:	What; kind MANIFEST or BLOB; checked here
 * @fd:		Where the bytes go; taken over whatever happens
 *
 * How it ends is told by done, perhaps before this returns.
 */
void registry_get(struct registry *r, const struct fetch_get *get, int fd);
/** registry_wait() - Work until something happens or @fd is readable; Return: whether @fd is readable */
bool registry_wait(struct registry *r, int fd);

#endif
