/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: which web pages and names may reach this server
 *
 * A page of another origin can send requests here with the user's browser, and a name that its owner points at 127.0.0.1
 * makes our address a part of that owner's origin.  So a TCP request must name, in Host, an address we listen on,
 * localhost or a configured name (421), and a request of a foreign page must carry a header that only somebody with the
 * key can set (403).  Where no key is wanted, foreign pages are refused altogether.
 */
#ifndef API_ACCESS_H
#define API_ACCESS_H

#include "base/buf.h"
#include "base/err.h"
#include "base/http_server.h"

#include <stdbool.h>

struct settings;

struct access_names {
	char **name; /* owned, lower case, without port */
	size_t n;
};

struct access_request {
	struct http_text host;		 /* header; data NULL when absent */
	struct http_text origin;	 /* header */
	struct http_text fetch_site;	 /* Sec-Fetch-Site */
	const char *local;		 /* "127.0.0.1:8080": what the client connected to */
	bool over_unix;
	bool has_secret;		 /* shows a key or a token, right or wrong */
	bool key_required;		 /* a key is configured */
	bool app_link;			 /* a link to a service on the second origin was followed: it changes nothing there */
};

/** access_names_of() - Names that Host may carry besides addresses, from @settings; Return: 0 or -1 with @err set */
int access_names_of(const struct settings *settings, struct access_names *ret, struct sbx_err *err) SBX_WUR;
/** access_names_clear() - Release what @names owns */
void access_names_clear(struct access_names *names);
/**
 * access_check() - Whether the request may go on
 * @names:	Configured names
 * @request:	What it says about itself
 * @err:	Filled when refused: MISDIRECTED (Host), FORBIDDEN_ORIGIN
 *
 * Return: 0, or -1 with @err set
 */
int access_check(const struct access_names *names, const struct access_request *request, struct sbx_err *err) SBX_WUR;
/** access_foreign() - Whether @request comes from a page of another origin */
bool access_foreign(const struct access_request *request);
/** access_preflight_names_secret() - Whether the list of header names @asked holds one of our secrets' headers */
bool access_preflight_names_secret(struct http_text asked);

#endif
