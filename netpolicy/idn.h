/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: international names; the only user of libidn2
 *
 * Who links netpolicy/idn.o adds $(IDN2_LIBS).  sandbox-dnsd does not: what reaches it is in A-labels already.
 */
#ifndef NETPOLICY_IDN_H
#define NETPOLICY_IDN_H

#include "base/err.h"

#include <stddef.h>

/**
 * idn_to_ascii() - UTS 46 (non-transitional) to A-labels
 * @text:	UTF-8, NUL-terminated, bounded by the caller
 * @out:	Written on success
 * @size:	Its size
 *
 * Return: 0, -EINVAL for what is no international name, -ENAMETOOLONG, -ENOMEM
 */
int idn_to_ascii(const char *text, char *out, size_t size) SBX_WUR;

#endif
