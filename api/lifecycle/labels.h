/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: metadata label rules
 *
 * key = [prefix/]name; prefix is a lower-case DNS subdomain of at most 253 bytes, name at most 63 bytes of letters, digits and
 * -_. with a letter or digit at both ends.  A value is empty or has the form of a name.  opensandbox.io/ is reserved.
 */
#ifndef API_LIFECYCLE_LABELS_H
#define API_LIFECYCLE_LABELS_H

#include "base/err.h"

#include <stdbool.h>

/** labels_is_reserved() - Whether @key lies under the reserved prefix */
bool labels_is_reserved(const char *key);
/**
 * labels_check() - Check one pair
 * @key:	The key
 * @value:	The value
 * @err:	Filled on failure: METADATA_LABEL, which names the key or the value
 *
 * Return: 0, or -1 with @err set
 */
int labels_check(const char *key, const char *value, struct sbx_err *err) SBX_WUR;

#endif
