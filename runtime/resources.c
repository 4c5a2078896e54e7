// SPDX-License-Identifier: Apache-2.0
#include "runtime/resources.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/num.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* digits [. digits] [e digits]: what strtod() also takes (hex, inf, nan, signs, blanks) is refused. */
static int leading_number(const char *text, double *ret, const char **rest)
{
	size_t n = strspn(text, "0123456789");
	size_t digits = n;

	if (text[n] == '.') {
		size_t fraction = strspn(text + n + 1, "0123456789");
		digits += fraction;
		n += 1 + fraction;
	}
	if (!digits || n > 40)
		return -EINVAL;
	char number[48];
	memcpy(number, text, n);
	number[n] = '\0';
	*ret = strtod(number, NULL);
	*rest = text + n;
	return isfinite(*ret) ? 0 : -EINVAL;
}

int resources_memory(const char *text, uint64_t *ret_bytes)
{
	static const char prefixes[] = "kmgtpe";
	const char *unit;
	double value;

	text += strspn(text, " \t");
	if (leading_number(text, &value, &unit) < 0)
		return -EINVAL;
	unit += *unit == ' ';
	const char *prefix = *unit ? strchr(prefixes, *unit | 0x20) : NULL;
	if (prefix) {
		unit++;
		bool binary = (*unit | 0x20) == 'i';
		unit += binary;
		for (const char *p = prefixes; p <= prefix; p++)
			value *= binary ? 1024.0 : 1000.0;
	}
	unit += (*unit | 0x20) == 'b';
	unit += strspn(unit, " \t");
	if (*unit)
		return -EINVAL;
	*ret_bytes = value >= 0x1p62 ? UINT64_C(1) << 62 : (uint64_t)value;
	if (value > 0 && !*ret_bytes)
		*ret_bytes = 1;
	return 0;
}

int resources_disk(const char *text, uint32_t *ret_mib)
{
	uint64_t bytes = 0;
	int r = resources_memory(text, &bytes);

	if (r < 0)
		return r;
	if (bytes && (bytes < (uint64_t)LIMIT_DISK_MIN_MIB << 20 || bytes >> 20 > UINT32_MAX))
		return -ERANGE;
	*ret_mib = (uint32_t)(bytes >> 20);
	return 0;
}

int resources_cpu(const char *text, uint32_t *ret_millicores)
{
	const char *unit;
	double value;

	text += strspn(text, " \t");
	if (leading_number(text, &value, &unit) < 0)
		return -EINVAL;
	if (*unit == 'm')
		unit++;
	else
		value *= 1000;
	unit += strspn(unit, " \t");
	if (*unit || value <= 0)
		return -EINVAL;
	*ret_millicores = value < 1 ? 1 : value > 1e9 ? 1000000000u : (uint32_t)value;
	return 0;
}

int resources_count(const char *text, uint32_t *ret)
{
	uint32_t value = 0;

	text += strspn(text, " \t");
	size_t n = strcspn(text, " \t");
	if (num_u32(text, n, INT32_MAX, &value) < 0 || !value || text[n + strspn(text + n, " \t")])
		return -EINVAL;
	*ret = value;
	return 0;
}
