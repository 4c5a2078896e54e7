/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: file systems for image files
 *
 * mke2fs runs once for each size, as a child that has one descriptor, no capability, an id that owns nothing else and no
 * network.  What it wrote (76 KiB for 1 GiB, the rest is a hole) is kept as a template and copied into each new image: 0.2 ms
 * instead of a process.  Features are named one by one, so that neither mke2fs.conf nor a newer mke2fs decides.
 */
#ifndef RUNTIME_DISK_FORMAT_H
#define RUNTIME_DISK_FORMAT_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct disk_form {
	uint64_t bytes;
	uint32_t bytes_per_inode;
	bool journal; /* the image has to survive a crash of the host */
	bool reserve; /* all blocks of the file are taken at once; the file system in it is the same */
};

/** disk_format_ready() - Path of mke2fs on this host, or NULL */
const char *disk_format_ready(void);
/**
 * disk_format_template() - Make a file system of @form in a file without a name
 * @dir_fd:	Directory on the file system that images lie on
 * @form:	What it is like
 * @uid:	Id that mke2fs runs as
 * @err:	Filled on failure: HOST_LACKS (no mke2fs), STATE_FULL, SYSTEM
 *
 * Blocks until the child has ended, which is bounded by a limit of processor time.
 *
 * Return: descriptor, the caller's; or -1 with @err set
 */
int disk_format_template(int dir_fd, const struct disk_form *form, uid_t uid, struct sbx_err *err) SBX_WUR;
/** disk_format_copy() - Copy what is not a hole of @template_fd into the empty file @image_fd, of @bytes then; Return: 0 or -errno */
int disk_format_copy(int template_fd, int image_fd, uint64_t bytes) SBX_WUR;

#endif
