/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the rows of the state, in SQLite
 *
 * The only file that knows SQLite.  WAL with synchronous=NORMAL: a commit survives the daemon, not a power cut (which ends
 * the sandboxes anyway).  Commits do not fsync; checkpoints do, so they are not made here but by a child that runs
 * state_store_checkpoint() when the log has grown.  The schema's versions are runtime/schema/NNNN.sql, embedded.
 */
#ifndef RUNTIME_STATE_STORE_H
#define RUNTIME_STATE_STORE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct state_store;

/* One row of the table `sandbox`; texts are borrowed during the call. */
struct state_row {
	const char *id, *state, *reason, *message, *boot_id, *spec, *metadata, *execd_token, *egress_token, *policy;
	int64_t slot; /* -1: none */
	int64_t generation, addr;
	int64_t created_wall_usec, transition_wall_usec, expires_wall_usec;
	bool deleting;
};

/**
 * state_store_open() - Open or make the database and bring its schema up to date
 * @dir_path:	Folder, which this process may enter and write
 * @err:	Filled on failure: SYSTEM, or INVALID_REQUEST when a newer version wrote it
 *
 * Return: the store (state_store_close() it), or NULL with @err set
 */
struct state_store *state_store_open(const char *dir_path, struct sbx_err *err) SBX_WUR;
/** state_store_close() - Close @s; NULL is fine */
void state_store_close(struct state_store *s);
/** state_store_insert() - Add @row; Return: 0, or -1 with @err set (SYSTEM: also when the disk is full) */
int state_store_insert(struct state_store *s, const struct state_row *row, struct sbx_err *err) SBX_WUR;
/** state_store_update() - Write all columns of the row with @row->id but spec, tokens, policy and created; Return: 0 or -1 with @err */
int state_store_update(struct state_store *s, const struct state_row *row, struct sbx_err *err) SBX_WUR;
/** state_store_set_policy() - Write the column `policy` of the row with @id; Return: 0, or -1 with @err set */
int state_store_set_policy(struct state_store *s, const char *id, const char *policy, struct sbx_err *err) SBX_WUR;
/** state_store_remove() - Remove the row with @id; none is fine; Return: 0, or -1 with @err set */
int state_store_remove(struct state_store *s, const char *id, struct sbx_err *err) SBX_WUR;
/**
 * state_store_each() - Call @each for every row, oldest first
 * @s:		The store; @each must not change it
 * @each:	Returns 0 to go on, -1 with its error set to stop
 * @arg:	Handed to @each
 * @err:	Filled on failure
 *
 * Return: 0, or -1 with @err set
 */
int state_store_each(struct state_store *s, int (*each)(void *arg, const struct state_row *row, struct sbx_err *err), void *arg,
		     struct sbx_err *err) SBX_WUR;
/** state_store_log_pages() - Pages in the write-ahead log of @s since the last checkpoint that emptied it */
unsigned state_store_log_pages(const struct state_store *s);
/** state_store_checkpoint() - In a child: move the log of the database in @dir_path into its file; Return: 0 or -1 with @err */
int state_store_checkpoint(const char *dir_path, struct sbx_err *err) SBX_WUR;

#endif
