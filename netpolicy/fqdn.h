/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: names of the DNS as policies compare them
 *
 * The canonical form is lower case, A-labels, without the last dot: labels of letters, digits, hyphen and underscore, 1 to
 * 63 bytes each, 253 in all.  Everything else that can be asked (a dot or a blank inside of a label, raw bytes) has no
 * canonical form, so no rule can ever mean it.  Pure functions, no allocation.
 */
#ifndef NETPOLICY_FQDN_H
#define NETPOLICY_FQDN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FQDN_TEXT_MAX 253u /* RFC 1035 2.3.4: 255 with length bytes and root */
#define FQDN_BYTES    256u /* a canonical name with its NUL */

/**
 * fqdn_canonical() - Bring an ASCII name into canonical form
 * @text:	The name, in any case, perhaps with one last dot
 * @len:	Its length
 * @out:	Written on success
 *
 * Return: length of the name in @out; -EINVAL for what is no name, also the root; -ENAMETOOLONG for labels or names too long
 */
int fqdn_canonical(const char *text, size_t len, char out[FQDN_BYTES]);

/** fqdn_is_numeric() - Whether the last label of the canonical @name reads as a number, as in 10.1 or 0x7f.1: no host name */
bool fqdn_is_numeric(const char *name);

/** fqdn_is_below() - Whether the canonical @name of @len bytes lies below @parent, at any depth and not @parent itself */
bool fqdn_is_below(const char *name, size_t len, const char *parent);

#endif
