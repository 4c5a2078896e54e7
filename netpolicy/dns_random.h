/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: random bytes for many small askers
 *
 * getrandom(2) in blocks of 4 KiB; a byte that was handed out is overwritten.  For ids, ports and the case of letters.
 */
#ifndef NETPOLICY_DNS_RANDOM_H
#define NETPOLICY_DNS_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/** dns_random() - Fill @out with @n random bytes, at most 256 */
void dns_random(void *out, size_t n);
/** dns_random_below() - A random number below @end, which is at most 65536 */
uint32_t dns_random_below(uint32_t end);

#endif
