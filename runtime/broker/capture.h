/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: trees that become layers, and archives that are looked into
 *
 * Both are the work of sandbox-unpack (images/unpack_result.h) in namespaces of its own; the broker opens the tree, starts
 * the worker, and passes on what it says.  What it says is checked by nobody here: who uses the bytes hashes them.
 */
#ifndef RUNTIME_CAPTURE_H
#define RUNTIME_CAPTURE_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"

#include <stdbool.h>
#include <stddef.h>

struct broker;
struct broker_asker;
struct slot;

/* What a capture reads; the descriptors stay the caller's. */
struct capture_tree {
	int tree_fd;	/* directory: root of a read-only copy of its own (rootfs_clone()) */
	int below_fd;	/* one view of the layers below, or -1 (layer_capture.h) */
	int merged_fd;	/* the tree upon them, or -1 */
	uint32_t base;	/* id that is 0 in the layer: b->layer_base, slot_base() */
	const char *const *skip; /* paths that are left out */
	size_t n_skip;
	uint8_t key[BROKER_KEY_BYTES]; /* a layer of the store that must not go away meanwhile; all zero: none */
	struct broker_slot_ref ref; /* a life whose files must not go away meanwhile; slot BROKER_NO_SLOT: none */
};

/**
 * capture_start() - Start to write a tree as a layer; the answer to @asker comes later, as a struct broker_capture_reply
 * @b:		The broker
 * @req:	Form and bounds
 * @tree:	What to read
 * @out_fd:	Regular file, write-only
 * @asker:	Copied
 * @err:	Filled on failure: IMAGE_INVALID (not such a file), LIMIT (too many at once), SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int capture_start(struct broker *b, const struct broker_capture_req *req, const struct capture_tree *tree, int out_fd,
		  const struct broker_asker *asker, struct sbx_err *err) SBX_WUR;
/** capture_layer() - capture_start() for a layer of the store, LAYER_CAPTURE; Return: 0, or -1 with @err set (IMAGE_NOT_FOUND) */
int capture_layer(struct broker *b, const struct broker_capture_req *req, int out_fd, const struct broker_asker *asker,
		  struct sbx_err *err) SBX_WUR;
/**
 * capture_sandbox() - capture_start() for what a sandbox has written, SANDBOX_CAPTURE
 * @b:		The broker
 * @s:		Its slot, LIVE or FROZEN; when it ends before the capture, that has failed
 * @req:	Form, bounds, and whether all layers are to be one
 * @out_fd:	Regular file, write-only
 * @asker:	Copied
 * @err:	Filled on failure: INVALID_REQUEST (made from the `host` image), IMAGE_INVALID, LIMIT, SYSTEM
 *
 * Left out: what each start writes anew (names of the host, name servers), /run/sandbox, and the file of variables for commands,
 * which may hold tokens.  What is mounted (volumes, /proc, /dev) is not in an upper.
 *
 * Return: 0, or -1 with @err set
 */
int capture_sandbox(struct broker *b, struct slot *s, const struct broker_capture_req *req, int out_fd, const struct broker_asker *asker,
		    struct sbx_err *err) SBX_WUR;
/** capture_index() - Start to look into an archive, ARCHIVE_INDEX; Return: 0, or -1 with @err set */
int capture_index(struct broker *b, const struct broker_capture_req *req, int file_fd, const struct broker_asker *asker,
		  struct sbx_err *err) SBX_WUR;
/**
 * capture_verify() - Start to compare a layer with its seal, LAYER_VERIFY; the answer to @asker comes later, as a struct broker_capture_reply
 * @b:		The broker
 * @req:	Its key
 * @asker:	Copied
 * @err:	Filled on failure: IMAGE_NOT_FOUND (no such layer, or none with a seal), LIMIT (one is being compared), SYSTEM
 *
 * The layer is not dropped meanwhile.
 *
 * Return: 0, or -1 with @err set
 */
int capture_verify(struct broker *b, const struct broker_layer_req *req, const struct broker_asker *asker, struct sbx_err *err) SBX_WUR;
/** capture_cancel() - End what the connection @number asked for: nobody is left who could use it */
void capture_cancel(struct broker *b, uint64_t number);
/** capture_uses_layer() - Whether a capture of @b reads the layer @key */
bool capture_uses_layer(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES]);
/** capture_end_life() - End what reads the files of the life @ref, which has ended: its asker gets NOT_RUNNING */
void capture_end_life(struct broker *b, const struct broker_slot_ref *ref);
/** capture_uses_life() - Whether a capture of @b reads the files of the life @ref */
bool capture_uses_life(const struct broker *b, const struct broker_slot_ref *ref);

#endif
