/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: writes a file tree beneath one directory, whatever the names say
 *
 * Every entry is reached from the root descriptor with openat2 beneath it, without following any symbolic link, and made
 * by (parent descriptor, last name).  Names are relative; an absolute one, `..`, a symbolic link among the ancestors or a
 * name that is too long or too deep is refused as IMAGE_INVALID.  A later entry replaces an earlier one of its name; a
 * directory meeting a directory is kept.  Device nodes other than whiteouts (0/0) are refused, and so are owners outside
 * 0..65535.  Limits on entries and bytes are counted here.  It reads no archive and knows none.
 */
#ifndef IMAGES_TREE_WRITER_H
#define IMAGES_TREE_WRITER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TREE_MAX_DEPTH	     256u /* components of a path; real images stay below 60 */
#define TREE_MAX_XATTRS	     64u
#define TREE_MAX_XATTR_BYTES (64u * 1024)
#define TREE_MAX_DEFAULT_ACLS 4096u
#define TREE_MAX_ID	     65535u /* the id range of a sandbox */

enum tree_kind {
	TREE_NONE = 0,
	TREE_FILE,
	TREE_DIRECTORY,
	TREE_SYMLINK,
	TREE_HARD_LINK,
	TREE_FIFO,
	TREE_WHITEOUT, /* hides what lower layers have of this name; what this layer has of it stays */
	TREE_OPAQUE,   /* path is a directory: hides all that lower layers have in it */
};

struct tree_entry {
	const char *path; /* relative; "" or "." is the root itself */
	enum tree_kind kind;
	uint32_t mode; /* permission bits with setuid, setgid, sticky: kept, inert below nosuid mounts */
	uint64_t uid;
	uint64_t gid;
	int64_t mtime_s;
	uint32_t mtime_ns;
	const char *target; /* SYMLINK: its text; HARD_LINK: path of the entry that it shares */
	uint64_t size;	    /* FILE: apparent size */
};

struct tree_writer;

/**
 * tree_writer_new() - Start writing beneath a directory
 * @root_fd:	Open directory that nobody else writes to; borrowed until tree_writer_free()
 * @max_entries: Entries at most; more is LIMIT
 * @max_bytes:	Bytes of content at most, also the largest apparent size of one file; more is LIMIT
 * @err:	Filled on failure: NO_MEMORY
 *
 * Return: the writer, or NULL with @err set
 */
struct tree_writer *tree_writer_new(int root_fd, uint64_t max_entries, uint64_t max_bytes, struct sbx_err *err) SBX_WUR;
/** tree_writer_free() - Close what is open; what was written stays; NULL is fine */
void tree_writer_free(struct tree_writer *w);

/**
 * tree_begin() - Make one entry, replacing what has its name
 * @w:		The writer
 * @entry:	Borrowed during the call
 * @err:	Filled on failure: IMAGE_INVALID (the entry), LIMIT, NO_MEMORY, SYSTEM
 *
 * A FILE is open for tree_data() afterwards.  Missing ancestors are made as root:root 0755.
 *
 * Return: 0, or -1 with @err set
 */
int tree_begin(struct tree_writer *w, const struct tree_entry *entry, struct sbx_err *err) SBX_WUR;
/** tree_data() - Write @n bytes of @data at @offset into the FILE just begun; Return: 0, or -1 (LIMIT, SYSTEM) */
int tree_data(struct tree_writer *w, uint64_t offset, const void *data, size_t n, struct sbx_err *err) SBX_WUR;
/** tree_owner() - Set owner and mode of the entry just begun; after its data, before its attributes; Return: 0 or -1 */
int tree_owner(struct tree_writer *w, struct sbx_err *err) SBX_WUR;
/**
 * tree_xattr() - Set one extended attribute of the entry just begun
 * @w:		The writer
 * @name:	What xattr_rules.h keeps is set, a default ACL by tree_finish(); every other name is dropped without error
 * @value:	Its bytes
 * @n:		At most TREE_MAX_XATTR_BYTES
 * @err:	Filled on failure: IMAGE_INVALID (too many, too long, an ACL that is none), LIMIT, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int tree_xattr(struct tree_writer *w, const char *name, const void *value, size_t n, struct sbx_err *err) SBX_WUR;
/** tree_end() - Set size and time of the entry just begun and close it; Return: 0, or -1 with @err set */
int tree_end(struct tree_writer *w, struct sbx_err *err) SBX_WUR;
/**
 * tree_hide() - Hide what a lower layer has in this layer's opaque directories; for each of them, after the last entry
 * @w:		The writer
 * @lower_fd:	Directory of the lower layer; borrowed
 * @err:	Filled on failure: LIMIT (whiteouts count as entries), SYSTEM
 *
 * The overlay's own mark is an attribute that only real root may write, and the unpacker is not that.  So each name that the
 * lower layer has there and this one has not becomes a whiteout: the same view, from plain files.
 *
 * Return: 0, or -1 with @err set
 */
int tree_hide(struct tree_writer *w, int lower_fd, struct sbx_err *err) SBX_WUR;
/**
 * tree_adopt() - Give directories that no entry named the looks of those that they cover; after the last entry and tree_hide()
 * @w:		The writer
 * @lower_fds:	Directories of the layers below, lowest first; borrowed
 * @n_lower:	How many
 * @err:	Filled on failure: SYSTEM, LIMIT, NO_MEMORY
 *
 * A layer may hold "tmp/x" without "tmp".  The overlay shows the owner, mode, time and attributes of the topmost layer's
 * directory, so without this a root:root 0755 one would cover a world-writable /tmp.  What covers nothing keeps root:root 0755 and
 * gets the time 0, so that a tree does not depend on when it was unpacked.
 *
 * Return: 0, or -1 with @err set
 */
int tree_adopt(struct tree_writer *w, const int *lower_fds, size_t n_lower, struct sbx_err *err) SBX_WUR;
/** tree_finish() - Set default ACLs and the times of all directories, which their content had changed; Return: 0, or -1 with @err set */
int tree_finish(struct tree_writer *w, struct sbx_err *err) SBX_WUR;

/** tree_seal() - From now on note the digests of files, for tree_seal_end(); Return: 0, or -1 with @err set */
int tree_seal(struct tree_writer *w, struct sbx_err *err) SBX_WUR;
/**
 * tree_seal_end() - Write the seal of the whole tree, after tree_finish()
 * @w:		The writer, tree_seal() was called before its first entry
 * @fd:		Empty regular file, opened for writing
 * @err:	Filled on failure: LIMIT, NO_MEMORY, SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int tree_seal_end(struct tree_writer *w, int fd, struct sbx_err *err) SBX_WUR;

/** tree_entries() - Entries written so far */
uint64_t tree_entries(const struct tree_writer *w);
/** tree_bytes() - Bytes of content written so far */
uint64_t tree_bytes(const struct tree_writer *w);

/**
 * tree_path_clean() - Check a name from an archive and bring it into the form that this file uses
 * @path:	As the archive has it
 * @out:	"a/b/c" without empty or "." parts; "" for the root; room for LIMIT_PATH_BYTES
 * @err:	Filled on failure: IMAGE_INVALID (absolute, "..", too long, too deep)
 *
 * Return: 0, or -1 with @err set
 */
int tree_path_clean(const char *path, char *out, struct sbx_err *err) SBX_WUR;

#endif
