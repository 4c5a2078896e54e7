/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the API says about a file
 *
 * Records come from the agent (struct agent_file_record) and are checked like any hostile input.  Strings of a record are
 * borrowed from the bytes it was read from.
 */
#ifndef API_EXECD_FILE_INFO_H
#define API_EXECD_FILE_INFO_H

#include "base/jv.h"
#include "runtime/agent_msg.h"

#include <stddef.h>
#include <stdint.h>

struct file_info {
	struct agent_file_record head;
	const char *path, *owner, *group;
};

/**
 * file_info_read() - Take one record off a payload
 * @data:	The bytes
 * @n:		Their number
 * @ret:	Filled on success; borrows from @data
 *
 * Return: bytes of the record, or -EBADMSG
 */
int file_info_read(const uint8_t *data, size_t n, struct file_info *ret);
/** file_info_write() - Write @info as a JSON object with every member that clients need */
void file_info_write(struct jw *w, const struct file_info *info);
/**
 * file_info_mode() - Read a mode as clients write it: a number whose decimal digits are octal (755 is rwxr-xr-x)
 * @v:		The member; absent, null and 0 mean "leave it"
 * @ret_mode:	Permission bits with setuid, setgid and sticky
 * @ret_set:	Whether one was given
 *
 * Return: 0, -EBADMSG (no whole number), or -EINVAL (a digit 8 or 9, negative, more than 7777)
 */
int file_info_mode(const struct jv *v, uint32_t *ret_mode, bool *ret_set);

#endif
