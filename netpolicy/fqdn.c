/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "netpolicy/fqdn.h"

#define LABEL_MAX 63u

/* The canonical byte for one of a label, or 0 when no label of ours has it. */
static char label_byte(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c + ('a' - 'A'));
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')
		return (char)c;
	return 0;
}

int fqdn_canonical(const char *text, size_t len, char out[FQDN_BYTES])
{
	char name[FQDN_BYTES];
	size_t label = 0, n = 0;

	if (len && text[len - 1] == '.')
		len--;
	if (!len)
		return -EINVAL;
	if (len > FQDN_TEXT_MAX)
		return -ENAMETOOLONG;
	for (; n < len; n++) {
		if (text[n] == '.') {
			if (!label)
				return -EINVAL;
			label = 0;
			name[n] = '.';
			continue;
		}
		name[n] = label_byte((unsigned char)text[n]);
		if (!name[n])
			return -EINVAL;
		if (++label > LABEL_MAX)
			return -ENAMETOOLONG;
	}
	if (!label)
		return -EINVAL;
	memcpy(out, name, n);
	out[n] = '\0';
	return (int)n;
}

bool fqdn_is_numeric(const char *name)
{
	const char *dot = strrchr(name, '.');
	const char *last = dot ? dot + 1 : name;
	bool hex = last[0] == '0' && last[1] == 'x';
	size_t n = strlen(last), want = strspn(hex ? last + 2 : last, hex ? "0123456789abcdef" : "0123456789");

	return n && want == n - (hex ? 2 : 0);
}

bool fqdn_is_below(const char *name, size_t len, const char *parent)
{
	size_t n = strlen(parent);

	return len > n + 1 && name[len - n - 1] == '.' && !memcmp(name + len - n, parent, n);
}
