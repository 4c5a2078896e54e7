// SPDX-License-Identifier: Apache-2.0
#include "base/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

int num_u64(const char *text, size_t n, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (!n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(text[i] - '0'), &v))
			return -ERANGE;
	}
	if (v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int num_u32(const char *text, size_t n, uint32_t max, uint32_t *ret)
{
	uint64_t v = 0;
	int r = num_u64(text, n, max, &v);

	if (!r)
		*ret = (uint32_t)v;
	return r;
}

int num_i64(const char *text, size_t n, int64_t *ret)
{
	bool negative = n && text[0] == '-';
	uint64_t v = 0;
	int r = num_u64(text + negative, n - negative, (uint64_t)INT64_MAX, &v);

	if (!r)
		*ret = negative ? -(int64_t)v : (int64_t)v;
	return r;
}

void random_bytes(void *out, size_t n)
{
	for (size_t got = 0; got < n;) {
		ssize_t r = getrandom((char *)out + got, n - got, 0);
		if (r < 0 && errno != EINTR)
			abort();
		if (r > 0)
			got += (size_t)r;
	}
}

void hex_encode(const void *data, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *bytes = data;

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[2 * n] = '\0';
}

int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -EINVAL;
}

int hex_decode(const char *text, void *out, size_t n)
{
	uint8_t *bytes = out;

	for (size_t i = 0; i < n; i++) {
		int high = hex_digit(text[2 * i]);
		int low = high < 0 ? -EINVAL : hex_digit(text[2 * i + 1]);
		if (low < 0)
			return -EINVAL;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

void uuid_format(const uint8_t id[16], char out[UUID_SIZE])
{
	static const uint8_t group[] = {4, 2, 2, 2, 6};
	size_t at = 0;

	for (size_t g = 0, i = 0; g < sizeof(group); i += group[g++]) {
		if (g)
			out[at++] = '-';
		hex_encode(id + i, group[g], out + at);
		at += 2u * group[g];
	}
}

int uuid_parse(const char *text, uint8_t id[16])
{
	char digits[33];
	size_t n = 0;

	if (strnlen(text, UUID_SIZE) != UUID_SIZE - 1)
		return -EINVAL;
	for (size_t i = 0; i < UUID_SIZE - 1; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		if (dash != (text[i] == '-'))
			return -EINVAL;
		if (!dash)
			digits[n++] = text[i];
	}
	return hex_decode(digits, id, 16);
}

void uuid_random(uint8_t id[16])
{
	random_bytes(id, 16);
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40); /* RFC 9562 5.4: version 4 */
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80); /* RFC 9562 4.1: variant */
}

bool same_secret(const void *a, const void *b, size_t n)
{
	const volatile uint8_t *x = a, *y = b;
	uint8_t diff = 0;

	for (size_t i = 0; i < n; i++)
		diff |= (uint8_t)(x[i] ^ y[i]);
	return diff == 0;
}
