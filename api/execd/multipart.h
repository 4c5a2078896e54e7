/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: multipart/form-data (RFC 7578), read piece by piece
 *
 * The caller keeps the bytes; multipart_step() looks at what is there and says what it is and how much of it is used up.
 * Nothing is copied but part headers, so memory does not grow with the body.  Bounded: preamble, part head, number of
 * parts.  Refused: bare LF in a part head, folded lines, a part without or with two Content-Disposition, a repeated
 * parameter, an encoded part.
 */
#ifndef API_EXECD_MULTIPART_H
#define API_EXECD_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

#define MULTIPART_BOUNDARY_MAX 70u /* RFC 2046 5.1.1 */
#define MULTIPART_NAME_MAX     64u
#define MULTIPART_HEAD_MAX     (16u * 1024)
#define MULTIPART_PREAMBLE_MAX 4096u
#define MULTIPART_PARTS_MAX    20000u

enum multipart_state { MULTIPART_PREAMBLE = 0, MULTIPART_HEAD, MULTIPART_BODY, MULTIPART_EPILOGUE, MULTIPART_BROKEN };

enum multipart_event {
	MULTIPART_NEED_MORE = 0, /* with `used` 0: more input is needed; else drop these bytes and step again */
	MULTIPART_PART,		 /* a part begins: name, has_filename */
	MULTIPART_DATA,		 /* data and n: bytes of the part, pointing into the input */
	MULTIPART_PART_END,
	MULTIPART_END,	 /* the closing boundary was seen; what follows is ignored */
	MULTIPART_ERROR, /* `wrong` says what; the state stays broken */
};

struct multipart {
	enum multipart_state state;
	char delimiter[4 + MULTIPART_BOUNDARY_MAX + 1]; /* CR LF - - boundary */
	size_t delimiter_len;
	size_t preamble_bytes;
	size_t lead; /* at the start of a part's body: bytes of the empty line's end, which may belong to a delimiter */
	unsigned n_parts;
	/* of the current part */
	char name[MULTIPART_NAME_MAX];
	bool has_filename;
	/* of the last step */
	const char *data; /* borrowed from the input */
	size_t n;
	const char *wrong;
};

/**
 * multipart_init() - Prepare for a body
 * @m:		Filled
 * @content_type: Value of the Content-Type header; need not be NUL-terminated
 * @len:	Its bytes
 *
 * Return: 0, or -EINVAL when it is not multipart/form-data with an acceptable boundary
 */
int multipart_init(struct multipart *m, const char *content_type, size_t len);
/**
 * multipart_step() - Look at the next bytes
 * @m:		The reader
 * @in:		What arrived and was not used yet
 * @len:	Its bytes
 * @ret_used:	Bytes at the front of @in that the caller must drop before the next call
 *
 * Return: the event.  On MULTIPART_NEED_MORE with nothing used and the body at its end, the body was cut short.
 */
enum multipart_event multipart_step(struct multipart *m, const char *in, size_t len, size_t *ret_used);
/**
 * multipart_plain() - How much of what comes next is content of the part, whatever follows it
 * @m:		The reader; not changed
 * @in:		What arrived and was not used yet
 * @len:	Its bytes
 *
 * Return: bytes at the front of @in that may be dropped without a step; 0: multipart_step() decides
 */
size_t multipart_plain(const struct multipart *m, const char *in, size_t len);

#endif
