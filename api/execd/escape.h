/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: names and long texts as they leave in execd answers
 *
 * File names and output are any bytes.  base/jv.h makes JSON text of them; here are the two other places where their
 * bytes meet a format: the file name of a download, and the cut through an overlong line.
 */
#ifndef API_EXECD_ESCAPE_H
#define API_EXECD_ESCAPE_H

#include "base/buf.h"

#include <stddef.h>

/**
 * escape_utf8_cut() - Where a long text may be cut without cutting a character
 * @text:	The text
 * @n:		Its bytes
 *
 * Return: @n, or up to 3 less when the last character is not complete yet
 */
size_t escape_utf8_cut(const char *text, size_t n);
/**
 * escape_attachment() - Append a Content-Disposition value for downloading @name (RFC 6266, RFC 5987) to @out
 *
 * A name of printable ASCII is quoted; any other is percent-encoded in both forms, so that no byte of it can end the
 * header line.
 */
void escape_attachment(struct buf *out, const char *name);

#endif
