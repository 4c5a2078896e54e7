/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/tls_hello.h"

#include <errno.h>
#include <string.h>

#include "base/limits.h"

#define RECORD_HEAD	5u
#define RECORD_MAX	16384u /* RFC 8446 5.1 */
#define HANDSHAKE_HEAD	4u
#define SSL2_HEAD	3u
#define CCS_MAX		4u /* compatibility needs one */

enum { RECORD_CCS = 20, RECORD_ALERT = 21, RECORD_HANDSHAKE = 22, RECORD_DATA = 23, RECORD_LAST = 24 };
enum { HANDSHAKE_CLIENT_HELLO = 1 };
enum { EXT_SERVER_NAME = 0, EXT_EARLY_DATA = 42, EXT_ECH = 0xfe0d };
enum { NAME_HOST = 0 };

/* Reads forward only; a read beyond the end sets `failed` and gives zero or nothing. */
struct reader {
	const uint8_t *p;
	size_t left;
	bool failed;
};

static uint32_t take(struct reader *r, size_t bytes)
{
	uint32_t v = 0;

	if (r->failed || r->left < bytes) {
		r->failed = true;
		return 0;
	}
	for (size_t i = 0; i < bytes; i++)
		v = v << 8 | r->p[i];
	r->p += bytes;
	r->left -= bytes;
	return v;
}

static struct reader take_block(struct reader *r, size_t len)
{
	struct reader b = {r->p, len, false};

	if (r->failed || r->left < len) {
		r->failed = true;
		return (struct reader){NULL, 0, true};
	}
	r->p += len;
	r->left -= len;
	return b;
}

/* A block behind its length of @bytes bytes */
static struct reader take_vector(struct reader *r, size_t bytes)
{
	return take_block(r, take(r, bytes));
}

static enum tls_hello_found bad(struct tls_hello *h, const char *wrong)
{
	h->wrong = wrong;
	h->name_len = 0;
	h->name[0] = '\0';
	return h->found = TLS_HELLO_BAD;
}

/* RFC 6066 3: one host name.  An address is not permitted there; clients that send one are treated as if they had sent none. */
static const char *read_server_name(struct reader ext, struct tls_hello *h)
{
	struct reader list = take_vector(&ext, 2), text;
	uint32_t type = take(&list, 1);
	int n;

	text = take_vector(&list, 2);
	if (ext.failed || list.failed || ext.left)
		return "malformed server name";
	if (type != NAME_HOST)
		return "server name of an unknown type";
	if (list.left)
		return "more than one server name";
	/* No address has a canonical form but IPv4, whose last label is a number. */
	if (memchr(text.p, ':', text.left))
		return NULL;
	n = fqdn_canonical((const char *)text.p, text.left, h->name);
	if (n < 0)
		return "server name is none";
	if (fqdn_is_numeric(h->name)) {
		h->name[0] = '\0';
		return NULL;
	}
	h->name_len = (size_t)n;
	return NULL;
}

static const char *read_extensions(struct reader list, struct tls_hello *h)
{
	bool named = false;

	while (list.left) {
		uint32_t type = take(&list, 2);
		struct reader ext = take_vector(&list, 2);
		const char *wrong = NULL;

		if (list.failed)
			return "malformed extensions";
		if (type == EXT_SERVER_NAME) {
			wrong = named ? "more than one server name" : read_server_name(ext, h);
			named = true;
		} else if (type == EXT_EARLY_DATA) {
			h->early_data = true;
		} else if (type == EXT_ECH) {
			h->ech = true;
		}
		if (wrong)
			return wrong;
	}
	return NULL;
}

static enum tls_hello_found read_body(struct reader r, struct tls_hello *h)
{
	uint32_t version = take(&r, 2);
	struct reader session, suites, compression, extensions = {NULL, 0, false};
	const char *wrong;

	(void)take_block(&r, 32);
	session = take_vector(&r, 1);
	suites = take_vector(&r, 2);
	compression = take_vector(&r, 1);
	if (!r.failed && r.left)
		extensions = take_vector(&r, 2);
	if (r.failed || r.left || version >> 8 != 3 || session.left > 32 || !suites.left || suites.left % 2 || !compression.left)
		return bad(h, "malformed hello");
	wrong = read_extensions(extensions, h);
	if (wrong)
		return bad(h, wrong);
	return h->found = h->name_len ? TLS_HELLO_NAME : TLS_HELLO_NO_NAME;
}

/* What can be said of the first bytes, before there is a record's head */
static enum tls_hello_found read_first(const uint8_t *data, size_t len, struct tls_hello *h)
{
	/* Some servers let a warning pass before the hello: who reads it as another protocol misses the name. */
	if (data[0] >= RECORD_CCS && data[0] <= RECORD_LAST && data[0] != RECORD_HANDSHAKE)
		return bad(h, "another record before the hello");
	if (data[0] & 0x80) {
		if (len < SSL2_HEAD)
			return h->found = TLS_HELLO_MORE;
		return data[2] == HANDSHAKE_CLIENT_HELLO ? bad(h, "hello of SSL 2") : (h->found = TLS_HELLO_OTHER);
	}
	if (data[0] != RECORD_HANDSHAKE)
		return h->found = TLS_HELLO_OTHER;
	if (len > 1 && data[1] != 3)
		return bad(h, "record of an unknown version");
	return h->found = TLS_HELLO_MORE;
}

/* What is there of the handshake's bytes, taken out of their records */
struct gathered {
	size_t at;   /* in the stream: behind the last byte taken */
	size_t n;    /* in `bytes` */
	size_t left; /* of the record that @at is in */
	uint8_t bytes[LIMIT_TLS_HELLO];
};

/* Takes bytes until @g has @want of them.  Return: NULL, and g->n is less than @want when the stream is not so long; or what is wrong */
static const char *gather(const uint8_t *data, size_t len, struct gathered *g, size_t want)
{
	while (g->n < want) {
		size_t n;

		if (!g->left) {
			const uint8_t *p = data + g->at;
			size_t there = len - g->at;

			if (there && p[0] != RECORD_HANDSHAKE)
				return "another record within the hello";
			if (there > 1 && p[1] != 3)
				return "record of an unknown version";
			if (there < RECORD_HEAD)
				return NULL;
			g->left = (size_t)p[3] << 8 | p[4];
			if (!g->left || g->left > RECORD_MAX)
				return "record of an impossible length";
			g->at += RECORD_HEAD;
		}
		n = want - g->n;
		n = n < g->left ? n : g->left;
		n = n < len - g->at ? n : len - g->at;
		if (!n)
			return NULL;
		memcpy(g->bytes + g->n, data + g->at, n);
		g->n += n;
		g->at += n;
		g->left -= n;
	}
	return NULL;
}

enum tls_hello_found tls_hello_read(const uint8_t *data, size_t len, struct tls_hello *ret)
{
	struct gathered g;
	const char *wrong;
	size_t size;

	memset(ret, 0, sizeof(*ret));
	g.at = g.n = g.left = 0;
	if (!len)
		return ret->found = TLS_HELLO_MORE;
	if (read_first(data, len, ret) != TLS_HELLO_MORE || len < RECORD_HEAD)
		return ret->found;
	wrong = gather(data, len, &g, HANDSHAKE_HEAD);
	if (wrong)
		return bad(ret, wrong);
	if (g.n && g.bytes[0] != HANDSHAKE_CLIENT_HELLO)
		return bad(ret, "handshake does not begin with a hello");
	if (g.n < HANDSHAKE_HEAD)
		return len >= LIMIT_TLS_HELLO ? bad(ret, "hello is too long") : TLS_HELLO_MORE;
	size = HANDSHAKE_HEAD + ((size_t)g.bytes[1] << 16 | (size_t)g.bytes[2] << 8 | g.bytes[3]);
	if (size + RECORD_HEAD > LIMIT_TLS_HELLO)
		return bad(ret, "hello is too long");
	wrong = gather(data, len, &g, size);
	if (wrong)
		return bad(ret, wrong);
	if (g.at > LIMIT_TLS_HELLO || (g.n < size && len >= LIMIT_TLS_HELLO))
		return bad(ret, "hello is too long");
	if (g.n < size)
		return TLS_HELLO_MORE;
	/* A key may change behind it: nothing else may be in its record (RFC 8446 5.1). */
	if (g.left)
		return bad(ret, "more than a hello in its record");
	ret->used = g.at;
	return read_body((struct reader){g.bytes + HANDSHAKE_HEAD, size - HANDSHAKE_HEAD, false}, ret);
}

enum tls_after tls_hello_after(const uint8_t *data, size_t len, bool early, size_t *ret_at)
{
	unsigned n_ccs = 0;
	size_t at = 0;

	while (at < len) {
		const uint8_t *p = data + at;
		size_t there = len - at, size;

		if (p[0] == RECORD_ALERT || (p[0] == RECORD_DATA && !early))
			return TLS_AFTER_DONE;
		if (p[0] != RECORD_CCS && p[0] != RECORD_HANDSHAKE && p[0] != RECORD_DATA)
			return TLS_AFTER_BAD;
		if (there < RECORD_HEAD)
			return TLS_AFTER_MORE;
		size = (size_t)p[3] << 8 | p[4];
		if (p[0] == RECORD_HANDSHAKE) {
			/* An empty one would put off what it is. */
			if (!size)
				return TLS_AFTER_BAD;
			if (there == RECORD_HEAD)
				return TLS_AFTER_MORE;
			*ret_at = at;
			return p[RECORD_HEAD] == HANDSHAKE_CLIENT_HELLO ? TLS_AFTER_HELLO : TLS_AFTER_DONE;
		}
		if (p[0] == RECORD_CCS && (size != 1 || ++n_ccs > CCS_MAX))
			return TLS_AFTER_BAD;
		at += RECORD_HEAD + size;
	}
	return TLS_AFTER_MORE;
}
