/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: HTTP and TLS towards a registry or the deny webhook: the only user of libcurl
 *
 * Linked into sandbox-fetch alone, because Debian's libcurl resolves names in threads.  Transfers run side by side;
 * redirects are never followed here, cookies, netrc and content decoding are off, only http and https exist.  One reply
 * is told as head, body pieces, end.
 */
#ifndef IMAGES_REGISTRY_HTTP_H
#define IMAGES_REGISTRY_HTTP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGISTRY_URL_BYTES	 8192u
#define REGISTRY_HEAD_BYTES	 (64u * 1024) /* all header lines of one reply together */
#define REGISTRY_WWW_MAX	 4u
#define REGISTRY_NO_RANGE	 UINT64_MAX

struct registry_http;
struct registry_transfer;

struct registry_reply {
	unsigned status;
	int64_t length; /* Content-Length, -1: not sent */
	char type[128];
	char encoding[32];
	char range[128];
	char retry_after[64];
	char location[REGISTRY_URL_BYTES];
	char www[REGISTRY_WWW_MAX][4097];
	size_t n_www;
};

enum registry_end {
	REGISTRY_END_DONE = 0,	  /* the whole reply came */
	REGISTRY_END_STOPPED,	  /* a callback wanted no more */
	REGISTRY_END_NO_TLS,	  /* it does not speak TLS */
	REGISTRY_END_UNTRUSTED,	  /* its certificate does not hold */
	REGISTRY_END_UNREACHABLE, /* no name, no connection */
	REGISTRY_END_BROKEN,	  /* cut short, stalled, reset: may be tried again */
	REGISTRY_END_REFUSED,	  /* not HTTP, too large a head, an address that may not be used: final */
};

struct registry_transfer_spec {
	const char *url;
	const char *accept;	   /* NULL: none */
	const char *authorization; /* value of the header; NULL: none */
	uint64_t range_from;	   /* REGISTRY_NO_RANGE: the whole */
	const char *ca_file;	   /* trusted beside the system's; NULL: none */
	unsigned stall_s;	   /* without a byte: BROKEN */
	unsigned total_s;	   /* for all of it: BROKEN; 0: no bound */
	const char *post;	   /* a POST of JSON with this body instead of a GET; NULL: none */
	size_t post_len;
	const char *signature;	   /* value of the header by which a sink knows who posts; NULL: none */
	bool direct;		   /* no proxy, whatever the environment says */
	bool foreign;		   /* not the registry's own host: loopback and link-local addresses are refused */
	void *arg;
	/* Once, before the first byte of the body or at the end; Return: whether to go on. */
	bool (*head)(void *arg, const struct registry_reply *reply);
	/* Return: whether to go on. */
	bool (*body)(void *arg, const char *data, size_t n);
	/* Last; the transfer is released after it, and another may be started from here. */
	void (*done)(void *arg, enum registry_end end, const char *text);
};

struct registry_url {
	char text[REGISTRY_URL_BYTES]; /* whole, normalised */
	char scheme[16];
	char host[256]; /* with the port when it was written */
};

/** registry_http_new() - Make the engine; Return: it, or NULL with @err set */
struct registry_http *registry_http_new(struct sbx_err *err) SBX_WUR;
/** registry_http_free() - Release @h; transfers end without their callbacks; NULL is fine */
void registry_http_free(struct registry_http *h);
/** registry_http_start() - Begin a GET or POST; what @spec points to is copied or not needed later; Return: 0, or -1 with @err set */
int registry_http_start(struct registry_http *h, const struct registry_transfer_spec *spec, struct sbx_err *err) SBX_WUR;
/**
 * registry_http_wait() - Let transfers go on until something happens
 * @h:		The engine
 * @fd:		Also ends the wait when it is readable; -1: none
 * @timeout_ms:	At most
 *
 * Return: whether @fd is readable
 */
bool registry_http_wait(struct registry_http *h, int fd, int timeout_ms);

/**
 * registry_url_read() - Take a URL apart
 * @base:	Absolute URL that a relative @text is resolved against; NULL: @text must be absolute
 * @text:	The URL
 * @ret:	Filled
 * @err:	Filled on failure: PROTOCOL (not http or https, with a user, with a control character, too long)
 *
 * Return: 0, or -1 with @err set
 */
int registry_url_read(const char *base, const char *text, struct registry_url *ret, struct sbx_err *err) SBX_WUR;
/** registry_url_escape() - @text percent-encoded for a query, in memory for the caller to free(); NULL: out of memory */
char *registry_url_escape(const char *text) SBX_WUR;

#endif
