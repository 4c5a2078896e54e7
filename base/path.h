/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: names that somebody else chose, opened beneath a directory
 *
 * Every relative name goes through openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS: no
 * "..", no link, no absolute name leads out, also while somebody renames directories.  There is no fallback for kernels
 * without openat2 (before 5.6): these helpers then fail with -ENOSYS.
 */
#ifndef BASE_PATH_H
#define BASE_PATH_H

#include "base/err.h"

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/**
 * path_rel_ok() - Whether a relative name may be looked up at all
 * @rel:	NUL-terminated; "" is the directory itself and is fine
 *
 * Refused: a leading slash, an empty, "." or ".." component, control bytes, a component of more than 255 bytes.
 *
 * Return: true when it may
 */
bool path_rel_ok(const char *rel);

/**
 * path_open_beneath() - Open a relative name below a directory without following any link
 * @dir_fd:	The directory
 * @rel:	The name; "" opens the directory itself anew
 * @flags:	As for open(2); O_CLOEXEC is added
 *
 * Return: the descriptor, or -errno (-EXDEV or -ELOOP: the name leads out or over a link)
 */
int path_open_beneath(int dir_fd, const char *rel, int flags) SBX_WUR;

/**
 * path_make_beneath() - Open a relative directory below another and make what is missing on the way
 * @dir_fd:	The directory
 * @rel:	The name, path_rel_ok()
 * @mode:	Of the directories that are made
 *
 * Each directory that is made belongs to the owner and group of its parent.  An existing name that is no directory is
 * -ENOTDIR.
 *
 * Return: an O_PATH descriptor, or -errno
 */
int path_make_beneath(int dir_fd, const char *rel, mode_t mode) SBX_WUR;

/**
 * path_make_dir() - Make one directory with an owner, or take the existing one when its owner and mode are right
 * @dir_fd:	Parent
 * @name:	One component
 * @uid:	Owner
 * @gid:	Group
 * @mode:	Permission bits, whatever the umask
 *
 * Return: a descriptor (O_DIRECTORY), or -errno (-EEXIST: there is something else of that name)
 */
int path_make_dir(int dir_fd, const char *name, uid_t uid, gid_t gid, mode_t mode) SBX_WUR;

/**
 * path_dir() - Read the directory @dir_fd, which stays the caller's with its offset
 * @dir_fd:	A directory; O_PATH is enough
 *
 * Return: a stream, closedir() it; or NULL and errno
 */
DIR *path_dir(int dir_fd) SBX_WUR;

/**
 * path_write_file() - Write a short text into an existing file (of /proc or a cgroup) with one write(2)
 * @dir_fd:	Directory that @name is relative to
 * @name:	The file
 * @text:	What to write
 * @len:	Its length
 *
 * Return: 0, or -errno
 */
int path_write_file(int dir_fd, const char *name, const char *text, size_t len) SBX_WUR;

/**
 * path_write_all() - write(2) until everything is written
 * @fd:	A blocking file or pipe
 * @data:	What to write
 * @n:		Bytes
 *
 * Return: 0, or -errno with an unknown part written
 */
int path_write_all(int fd, const void *data, size_t n) SBX_WUR;

/**
 * path_read_file() - Read a short file whole
 * @dir_fd:	Directory that @name is relative to
 * @name:	The file
 * @out:	Filled and NUL-terminated
 * @size:	Of @out; a longer file is -EFBIG
 *
 * Return: length, or -errno
 */
ssize_t path_read_file(int dir_fd, const char *name, char *out, size_t size) SBX_WUR;

/**
 * path_read_head() - Read the beginning of a file of the kernel's, whose length the caller cannot know
 * @dir_fd:	Directory that @name is relative to
 * @name:	The file
 * @out:	Filled and NUL-terminated
 * @size:	Of @out, at least 1; what does not fit is cut
 *
 * Return: length of what is in @out, or -errno
 */
ssize_t path_read_head(int dir_fd, const char *name, char *out, size_t size) SBX_WUR;

#endif
