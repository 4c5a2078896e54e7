// SPDX-License-Identifier: Apache-2.0
#include "images/xattr_rules.h"

#include "images/tree_writer.h"

#include <endian.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/xattr.h>
#include <string.h>

/* More than any file system stores in a block. */
#define ACL_ENTRIES_MAX 8192u

enum xattr_rule xattr_rule(const char *name)
{
	if (!strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS))
		return XATTR_ACL;
	if (!strcmp(name, XATTR_NAME_POSIX_ACL_DEFAULT))
		return XATTR_DEFAULT_ACL;
	if (!strcmp(name, "security.capability"))
		return XATTR_KEEP;
	return !strncmp(name, "user.", 5) && strncmp(name, "user.overlay.", 13) != 0 ? XATTR_KEEP : XATTR_DROP;
}

bool xattr_acl_ok(const void *value, size_t n)
{
	struct posix_acl_xattr_header head;
	struct posix_acl_xattr_entry entry;
	const char *at = value;

	if (n < sizeof(head) || (n - sizeof(head)) % sizeof(entry) || (n - sizeof(head)) / sizeof(entry) > ACL_ENTRIES_MAX)
		return false;
	memcpy(&head, at, sizeof(head));
	if (le32toh(head.a_version) != POSIX_ACL_XATTR_VERSION)
		return false;
	for (at += sizeof(head); at < (const char *)value + n; at += sizeof(entry)) {
		memcpy(&entry, at, sizeof(entry));
		unsigned tag = le16toh(entry.e_tag);

		if ((tag == ACL_USER || tag == ACL_GROUP) && le32toh(entry.e_id) > TREE_MAX_ID)
			return false;
	}
	return true;
}
