/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: numbers and small text
 *
 * Every number that comes from text goes through these readers: whole text, no sign games, no overflow.  Also the random
 * ids and the constant-time comparison that keys and tokens need.
 */
#ifndef BASE_NUM_H
#define BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UUID_SIZE 37 /* with the NUL */

/** num_u64() - Read all @n bytes of @text as a decimal number in [0, @max]; Return: 0, -EINVAL or -ERANGE */
int num_u64(const char *text, size_t n, uint64_t max, uint64_t *ret);
/** num_u32() - Like num_u64() for 32 bits */
int num_u32(const char *text, size_t n, uint32_t max, uint32_t *ret);
/** num_i64() - Read all @n bytes of @text as a decimal number with an optional minus; Return: 0, -EINVAL or -ERANGE */
int num_i64(const char *text, size_t n, int64_t *ret);
/** random_bytes() - Fill @out with @n bytes from getrandom(2); never fails (aborts when the kernel has none) */
void random_bytes(void *out, size_t n);
/** hex_encode() - Write @n bytes of @data as 2 * @n lower-case digits and a NUL into @out */
void hex_encode(const void *data, size_t n, char *out);
/** hex_digit() - Value of one hex digit in either case; Return: 0 to 15, or -EINVAL */
int hex_digit(char c);
/** hex_decode() - Read exactly 2 * @n lower- or upper-case hex digits; Return: 0 or -EINVAL */
int hex_decode(const char *text, void *out, size_t n);
/** uuid_format() - Write @id as a lower-case UUID into @out */
void uuid_format(const uint8_t id[16], char out[UUID_SIZE]);
/** uuid_parse() - Read a lower- or upper-case UUID of exactly 36 characters; Return: 0 or -EINVAL */
int uuid_parse(const char *text, uint8_t id[16]);
/** uuid_random() - A fresh version-4 id into @id */
void uuid_random(uint8_t id[16]);
/** same_secret() - Compare @n bytes of @a and @b in a time that does not depend on them */
bool same_secret(const void *a, const void *b, size_t n);

#endif
