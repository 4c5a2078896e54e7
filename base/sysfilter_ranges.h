/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: seccomp programs, run and made short
 *
 * libseccomp gives every system call of a table instructions of its own, some 700 for ours, and the kernel translates all of
 * them each time a process loads the program: a tenth of what starting a command costs.  Numbers that follow each
 * other mostly have the same answer, so the same decision fits in a search over ranges.
 *
 * Pure: no library, no system call.
 */
#ifndef BASE_SYSFILTER_RANGES_H
#define BASE_SYSFILTER_RANGES_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>

/**
 * sysfilter_run() - What the kernel would answer
 * @code:	The program
 * @n:		Its instructions
 * @data:	The call
 *
 * Knows the instructions that libseccomp and sysfilter_shorten() use.
 *
 * Return: the action (SECCOMP_RET_...), or -EINVAL for a program that is not of these or does not end
 */
int64_t sysfilter_run(const struct sock_filter *code, size_t n, const struct seccomp_data *data);

/**
 * sysfilter_shorten() - Make a program that looks at number and architecture only as short as it can be
 * @code:	The program; replaced by one that answers every call alike
 * @n:		Its instructions
 * @arch:	The one architecture (AUDIT_ARCH_...) whose numbers it tells apart; all others have one answer
 *
 * A program that looks at anything else, or would not get shorter, stays as it is.
 *
 * Return: instructions now
 */
size_t sysfilter_shorten(struct sock_filter *code, size_t n, uint32_t arch);

#endif
