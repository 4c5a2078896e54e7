/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: which extended attributes a layer keeps
 *
 * user.* is the image's own.  security.capability is a right that the kernel gives only within a user namespace that owns the file,
 * and none below nosuid.  POSIX ACLs name ids of the container: whoever writes and whoever reads one does so in the user namespace
 * of the layer's ids, so that the kernel maps those within as it maps owners, also through an idmapped mount.  Everything else steers
 * something of the host (trusted.overlay.*, user.overlay.*, security.selinux, security.ima, ...) and is dropped.
 */
#ifndef IMAGES_XATTR_RULES_H
#define IMAGES_XATTR_RULES_H

#include <stdbool.h>
#include <stddef.h>

enum xattr_rule {
	XATTR_DROP = 0,
	XATTR_KEEP,
	XATTR_ACL,	   /* system.posix_acl_access */
	XATTR_DEFAULT_ACL, /* system.posix_acl_default: also the children of a directory get it when they are made */
};

/** xattr_rule() - What a layer does with the attribute @name */
enum xattr_rule xattr_rule(const char *name);
/** xattr_acl_ok() - Whether @n bytes of @value are an ACL that names no id beyond a sandbox's; the kernel checks the rest */
bool xattr_acl_ok(const void *value, size_t n);

#endif
