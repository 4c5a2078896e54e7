/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the texts of resourceLimits
 *
 * Published clients are lenient here, so the readers take a superset: numbers with a fraction, decimal and binary units in
 * any case up to exa, a single blank in front of the unit.  What cannot be read is told, so that the caller may ignore it with a note;
 * what can be read but is beyond any machine is clamped.
 */
#ifndef RUNTIME_RESOURCES_H
#define RUNTIME_RESOURCES_H

#include <stdint.h>

/** resources_memory() - "512Mi", "1.5GB", "1073741824" into bytes; 0 means no limit; Return: 0 or -EINVAL */
int resources_memory(const char *text, uint64_t *ret_bytes);
/** resources_cpu() - "2", "0.5", "500m" into thousandths of a processor, at least 1; Return: 0 or -EINVAL (also <= 0) */
int resources_cpu(const char *text, uint32_t *ret_millicores);
/**
 * resources_disk() - A size as for memory into MiB for "disk"; 0 means no limit
 *
 * Rounded down, so that a limit is never more than what was asked for.
 *
 * Return: 0, -EINVAL, or -ERANGE: less than LIMIT_DISK_MIN_MIB, or more than a file system can be (the caller refuses it)
 */
int resources_disk(const char *text, uint32_t *ret_mib);
/** resources_count() - A positive whole number, for "pids"; Return: 0 or -EINVAL */
int resources_count(const char *text, uint32_t *ret);

#endif
