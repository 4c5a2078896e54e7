/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: how a registry wants to be convinced
 *
 * Pure readers, no I/O: the challenge of a 401 (RFC 7235 2.1 with the parameters of the registry token specification), the
 * answer of a token service, a docker-style credential file.  A challenge that does not follow the grammar is refused
 * whole, since its pieces decide where a password is sent.
 */
#ifndef IMAGES_REGISTRY_AUTH_H
#define IMAGES_REGISTRY_AUTH_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define REGISTRY_CHALLENGES_MAX	 4u
#define REGISTRY_CHALLENGE_BYTES 4096u
#define REGISTRY_TOKEN_BYTES	 (16u * 1024) /* Azure's have 3 KiB */
#define REGISTRY_TOKEN_BODY	 (256u * 1024)
#define REGISTRY_AUTH_FILE_BYTES (1024u * 1024)

enum registry_scheme { REGISTRY_SCHEME_OTHER = 0, REGISTRY_SCHEME_BASIC, REGISTRY_SCHEME_BEARER };

struct registry_challenge {
	enum registry_scheme scheme;
	char realm[1024];
	char service[256];
	char scope[512];
};

struct registry_credentials {
	char user[256];
	char password[8192]; /* both "": none */
};

/**
 * registry_challenge_parse() - Read one WWW-Authenticate line, which may hold several challenges
 * @text:	Value of the header
 * @n:		Its length
 * @ret:	Room for REGISTRY_CHALLENGES_MAX; of unknown schemes only that they were there is kept
 * @ret_n:	Challenges read
 * @err:	Filled on failure: PROTOCOL with what is wrong
 *
 * Return: 0, or -1 with @err set
 */
int registry_challenge_parse(const char *text, size_t n, struct registry_challenge *ret, size_t *ret_n, struct sbx_err *err) SBX_WUR;

/** registry_token_parse() - The token in a token service's JSON answer @data of @n bytes into @out; Return: 0 or -1 with @err set */
int registry_token_parse(const char *data, size_t n, char out[REGISTRY_TOKEN_BYTES], struct sbx_err *err) SBX_WUR;

/** registry_error_text() - The first message in a registry's JSON error @data of @n bytes into @out, printable; "" when it is none */
void registry_error_text(const char *data, size_t n, char *out, size_t size);

/**
 * registry_auth_file() - Look a host up in a docker-style credential file
 * @data:	Its content ({"auths": {HOST: {"auth": BASE64}}} or with "username" and "password")
 * @n:		Its length
 * @host:	"docker.io", "registry.example:5000"
 * @path:	Of the repository: an entry for a part of a registry ("registry.example/team") counts below it, the longest first
 * @ret:	Filled; both fields "" when the file has nothing for @host
 * @err:	Filled on failure: IMAGE_PULL_FAILED (not readable, or an entry of a kind that is not offered)
 *
 * Return: 0, or -1 with @err set
 */
int registry_auth_file(const char *data, size_t n, const char *host, const char *path, struct registry_credentials *ret,
		       struct sbx_err *err) SBX_WUR;

/** registry_basic() - Append "Basic <base64 of user:password>" of @c to @out */
void registry_basic(const struct registry_credentials *c, struct buf *out);
/** registry_is_loopback() - Whether @host ("name[:port]") is localhost or an address of this machine's own */
bool registry_is_loopback(const char *host);

#endif
