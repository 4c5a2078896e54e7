// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/labels.h"

#include <string.h>

#define LABEL_RESERVED "opensandbox.io/"
#define LABEL_NAME_MAX 63u
#define PREFIX_MAX     253u

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_lower_alnum(char c)
{
	return is_alnum(c) && !(c >= 'A' && c <= 'Z');
}

static bool is_name(const char *s, size_t n)
{
	if (!n || n > LABEL_NAME_MAX || !is_alnum(s[0]) || !is_alnum(s[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(s[i]) && s[i] != '-' && s[i] != '_' && s[i] != '.')
			return false;
	return true;
}

static bool is_subdomain(const char *s, size_t n)
{
	if (!n || n > PREFIX_MAX)
		return false;
	for (size_t i = 0; i < n;) {
		size_t end = i;

		while (end < n && s[end] != '.')
			end++;
		if (end == i || end - i > LABEL_NAME_MAX || !is_lower_alnum(s[i]) || !is_lower_alnum(s[end - 1]))
			return false;
		for (; i < end; i++)
			if (!is_lower_alnum(s[i]) && s[i] != '-')
				return false;
		if (end < n && ++i == n)
			return false; /* a dot at the end */
	}
	return true;
}

bool labels_is_reserved(const char *key)
{
	return !strncmp(key, LABEL_RESERVED, sizeof(LABEL_RESERVED) - 1);
}

int labels_check(const char *key, const char *value, struct sbx_err *err)
{
	const char *slash = strchr(key, '/');
	const char *name = slash ? slash + 1 : key;

	if (slash && !is_subdomain(key, (size_t)(slash - key)))
		return sbx_err_set(err, SBX_E_METADATA_LABEL, 0, "metadata: the prefix of the key \"%.80s\" is not a lower-case DNS name", key);
	if (!is_name(name, strlen(name)))
		return sbx_err_set(err, SBX_E_METADATA_LABEL, 0, "metadata: the key \"%.80s\" is not a label of 1 to 63 characters", key);
	if (value[0] && !is_name(value, strlen(value)))
		return sbx_err_set(err, SBX_E_METADATA_LABEL, 0,
				   "metadata: the value \"%.64s\" of \"%.64s\" is not a label of at most 63 characters", value, key);
	return 0;
}
