/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what a TLS client says before anything is encrypted
 *
 * Reads the bytes that a client sends first, as they stand in the stream: the ClientHello (RFC 8446 4.1.2, RFC 5246 7.4.1.2) in
 * as many records as it pleases, and the headers of the records behind it.  Strict: what two readers could understand in two
 * ways (two names, a list of names, a name that is none, bytes behind the end) is refused, never guessed.
 *
 * The name has the canonical form of fqdn.h: the one that rules and questions for names have.  Pure functions: no allocation, no I/O.
 */
#ifndef NETPOLICY_TLS_HELLO_H
#define NETPOLICY_TLS_HELLO_H

#include "netpolicy/fqdn.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tls_hello_found {
	TLS_HELLO_NONE = 0,
	TLS_HELLO_MORE,	   /* so far it is the beginning of a hello */
	TLS_HELLO_NAME,	   /* a whole hello with one name */
	TLS_HELLO_NO_NAME, /* a whole hello without one, or with an address for one */
	TLS_HELLO_OTHER,   /* the first bytes are those of another protocol */
	TLS_HELLO_BAD,	   /* begins as TLS and is no acceptable hello */
	TLS_HELLO_COUNT
};

struct tls_hello {
	enum tls_hello_found found;
	const char *wrong; /* BAD: static text; else NULL */
	bool early_data;   /* application data may follow before the server has answered */
	bool ech;	   /* it has an encrypted hello, or the grease of one; the name is the outer one */
	size_t used;	   /* NAME, NO_NAME: bytes of the stream up to the end of the hello's last record */
	size_t name_len;
	char name[FQDN_BYTES]; /* NAME: canonical; else "" */
};

/**
 * tls_hello_read() - Read a hello from the beginning of a client's stream
 * @data:	The stream
 * @len:	How much of it is known
 * @ret:	Always filled
 *
 * More than LIMIT_TLS_HELLO bytes are BAD as soon as a length says so, not only when they are there.
 *
 * Return: ret->found
 */
enum tls_hello_found tls_hello_read(const uint8_t *data, size_t len, struct tls_hello *ret);

enum tls_after {
	TLS_AFTER_NONE = 0,
	TLS_AFTER_MORE,	 /* the next record has not begun */
	TLS_AFTER_DONE,	 /* the next record is none that could be another hello */
	TLS_AFTER_HELLO, /* another hello begins: a server asked for it (RFC 8446 4.1.4) */
	TLS_AFTER_BAD,
};

/**
 * tls_hello_after() - See what follows a hello
 * @data:	The stream from the end of the hello's last record on
 * @len:	How much of it is known
 * @early:	The hello announced early data: application data says nothing, it is passed over
 * @ret_at:	HELLO: where it begins
 *
 * Return: what follows; the compatibility records of RFC 8446 appendix D.4 are passed over
 */
enum tls_after tls_hello_after(const uint8_t *data, size_t len, bool early, size_t *ret_at);

#endif
