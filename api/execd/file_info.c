// SPDX-License-Identifier: Apache-2.0
#include "api/execd/file_info.h"

#include "base/limits.h"
#include "base/wallclock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A string of @bytes with its NUL at the end and nowhere else. */
static const char *take_string(const uint8_t **at, size_t bytes)
{
	const char *s = (const char *)*at;

	if (!bytes || memchr(s, '\0', bytes) != s + bytes - 1)
		return NULL;
	*at += bytes;
	return s;
}

int file_info_read(const uint8_t *data, size_t n, struct file_info *ret)
{
	struct file_info info;
	const uint8_t *at = data + sizeof(info.head);

	if (n < sizeof(info.head))
		return -EBADMSG;
	memcpy(&info.head, data, sizeof(info.head));
	size_t strings = (size_t)info.head.path_bytes + info.head.owner_bytes + info.head.group_bytes;
	if (info.head.record_bytes > n || info.head.record_bytes != sizeof(info.head) + strings ||
	    info.head.path_bytes > LIMIT_PATH_BYTES)
		return -EBADMSG;
	if (info.head.kind < AGENT_FILE_REGULAR || info.head.kind > AGENT_FILE_OTHER)
		return -EBADMSG;
	info.path = take_string(&at, info.head.path_bytes);
	info.owner = info.path ? take_string(&at, info.head.owner_bytes) : NULL;
	info.group = info.owner ? take_string(&at, info.head.group_bytes) : NULL;
	if (!info.group)
		return -EBADMSG;
	*ret = info;
	return (int)info.head.record_bytes;
}

static void write_time(struct jw *w, const char *key, int64_t wall_usec)
{
	char text[RFC3339_SIZE];

	rfc3339_format(wall_usec, text);
	jw_key_str(w, key, text);
}

/* A name, or the number as text when the image's passwd has none. */
static void write_owner(struct jw *w, const char *key, const char *name, uint32_t id)
{
	char number[16];

	snprintf(number, sizeof(number), "%u", id);
	jw_key_str(w, key, *name ? name : number);
}

void file_info_write(struct jw *w, const struct file_info *info)
{
	static const char *const kinds[] = {
		[AGENT_FILE_REGULAR] = "file",
		[AGENT_FILE_DIRECTORY] = "directory",
		[AGENT_FILE_SYMLINK] = "symlink",
		[AGENT_FILE_OTHER] = "other",
	};
	uint32_t mode = info->head.mode & 0777;

	jw_object(w);
	jw_key_str(w, "path", info->path);
	jw_key_str(w, "type", kinds[info->head.kind]);
	jw_key_u64(w, "size", info->head.size_bytes);
	write_time(w, "modified_at", info->head.modified_wall_usec);
	write_time(w, "created_at", info->head.created_wall_usec);
	write_owner(w, "owner", info->owner, info->head.uid);
	write_owner(w, "group", info->group, info->head.gid);
	jw_key_u64(w, "mode", (mode >> 6) * 100 + (mode >> 3 & 7) * 10 + (mode & 7));
	jw_object_end(w);
}

int file_info_mode(const struct jv *v, uint32_t *ret_mode, bool *ret_set)
{
	int64_t digits = 0;
	uint32_t mode = 0;

	if (jv_is_set(v) && jv_i64(v, &digits) < 0)
		return -EBADMSG;
	if (digits < 0 || digits > 7777)
		return -EINVAL;
	*ret_set = digits != 0;
	for (int64_t scale = 1000; scale; scale /= 10) {
		int64_t digit = digits / scale % 10;

		if (digit > 7)
			return -EINVAL;
		mode = mode << 3 | (uint32_t)digit;
	}
	*ret_mode = mode;
	return 0;
}
