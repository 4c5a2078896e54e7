// SPDX-License-Identifier: Apache-2.0
#include "runtime/state_store.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "runtime/state_schema.h" /* made by the build from runtime/schema */

#include <errno.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

#define BUSY_MS 10000 /* only a checkpoint in a child ever holds a lock, and briefly */

enum statement { ST_INSERT = 0, ST_UPDATE, ST_SET_POLICY, ST_REMOVE, ST_COUNT };

#define MUTABLE "state, reason, message, boot_id, slot, generation, addr, transition_wall_usec, expires_wall_usec, metadata, deleting"

static const char *const statement_text[ST_COUNT] = {
	[ST_INSERT] = "INSERT INTO sandbox (" MUTABLE ", id, created_wall_usec, spec, execd_token, egress_token, policy) "
		      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
	[ST_UPDATE] = "UPDATE sandbox SET (" MUTABLE ") = (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) WHERE id = ?12",
	[ST_SET_POLICY] = "UPDATE sandbox SET policy = ?2 WHERE id = ?1",
	[ST_REMOVE] = "DELETE FROM sandbox WHERE id = ?1",
};

struct state_store {
	sqlite3 *db;			 /* owned */
	sqlite3_stmt *statement[ST_COUNT]; /* owned */
	unsigned log_pages;
};

static int failed(const struct state_store *s, const char *what, struct sbx_err *err)
{
	bool full = s->db && sqlite3_errcode(s->db) == SQLITE_FULL;

	return sbx_err_set(err, full ? SBX_E_STATE_FULL : SBX_E_SYSTEM, full ? ENOSPC : 0, "state database: %s: %s", what,
			   s->db ? sqlite3_errmsg(s->db) : "no memory");
}

static int run(struct state_store *s, const char *sql, struct sbx_err *err)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : failed(s, sql, err);
}

static int user_version(struct state_store *s, int64_t *ret, struct sbx_err *err)
{
	sqlite3_stmt *st = NULL;
	int r = -1;

	if (sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
		*ret = sqlite3_column_int64(st, 0);
		r = 0;
	}
	sqlite3_finalize(st);
	return r < 0 ? failed(s, "read its version", err) : 0;
}

/* Version N is reached by state_schema[N - 1], all of it or nothing. */
static int migrate(struct state_store *s, struct sbx_err *err)
{
	int64_t version = 0;
	char set[48];

	if (user_version(s, &version, err) < 0)
		return -1;
	if (version < 0 || (size_t)version > ARRAY_SIZE(state_schema))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
				   "state database: written by a newer version (schema %lld, this one knows %zu)",
				   (long long)version, ARRAY_SIZE(state_schema));
	for (size_t i = (size_t)version; i < ARRAY_SIZE(state_schema); i++) {
		snprintf(set, sizeof(set), "PRAGMA user_version = %zu", i + 1);
		if (run(s, "BEGIN IMMEDIATE", err) < 0)
			return -1;
		if (run(s, state_schema[i], err) < 0 || run(s, set, err) < 0 || run(s, "COMMIT", err) < 0) {
			ignore_result(run(s, "ROLLBACK", NULL)); /* the first error is the one to tell */
			return -1;
		}
	}
	return 0;
}

static int on_log(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct state_store *s = arg;

	(void)db, (void)name;
	s->log_pages = pages < 0 ? 0 : (unsigned)pages;
	return SQLITE_OK;
}

static int open_database(struct state_store *s, const char *dir_path, struct sbx_err *err)
{
	char path[4096];

	if (snprintf(path, sizeof(path), "%s/sandboxd.db", dir_path) >= (int)sizeof(path))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, ENAMETOOLONG, "state directory");
	if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		return failed(s, path, err);
	sqlite3_busy_timeout(s->db, BUSY_MS);
	if (run(s, "PRAGMA journal_mode = WAL", err) < 0 || run(s, "PRAGMA synchronous = NORMAL", err) < 0 ||
	    run(s, "PRAGMA wal_autocheckpoint = 0", err) < 0 || run(s, "PRAGMA trusted_schema = OFF", err) < 0)
		return -1;
	return 0;
}

struct state_store *state_store_open(const char *dir_path, struct sbx_err *err)
{
	struct state_store *s = calloc(1, sizeof(*s));
	mode_t before = umask(0077); /* the rows hold tokens */
	bool good = s && open_database(s, dir_path, err) == 0 && migrate(s, err) == 0;

	umask(before);
	if (!s)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "state database");
	for (size_t i = 0; good && i < ST_COUNT; i++)
		if (sqlite3_prepare_v3(s->db, statement_text[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statement[i], NULL) !=
		    SQLITE_OK) {
			failed(s, statement_text[i], err);
			good = false;
		}
	if (!good) {
		state_store_close(s);
		return NULL;
	}
	sqlite3_wal_hook(s->db, on_log, s);
	return s;
}

void state_store_close(struct state_store *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < ST_COUNT; i++)
		sqlite3_finalize(s->statement[i]);
	sqlite3_close(s->db);
	free(s);
}

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
	/* Cannot fail but for memory, which sqlite3_step() then reports. */
	ignore_result(sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC));
}

static void bind_number(sqlite3_stmt *st, int at, int64_t v)
{
	ignore_result(sqlite3_bind_int64(st, at, v)); /* as above */
}

static void bind_mutable(sqlite3_stmt *st, const struct state_row *row)
{
	bind_text(st, 1, row->state);
	bind_text(st, 2, row->reason);
	bind_text(st, 3, row->message);
	bind_text(st, 4, row->boot_id);
	bind_number(st, 5, row->slot);
	bind_number(st, 6, row->generation);
	bind_number(st, 7, row->addr);
	bind_number(st, 8, row->transition_wall_usec);
	bind_number(st, 9, row->expires_wall_usec);
	bind_text(st, 10, row->metadata);
	bind_number(st, 11, row->deleting);
	bind_text(st, 12, row->id);
}

static int step(struct state_store *s, enum statement which, const char *what, struct sbx_err *err)
{
	sqlite3_stmt *st = s->statement[which];
	bool injected = FAULT_POINT("state-write");
	int r = injected ? SQLITE_FULL : sqlite3_step(st);

	if (injected)
		sbx_err_set(err, SBX_E_SYSTEM, 0, "state database: %s: injected", what);
	else if (r != SQLITE_DONE)
		failed(s, what, err);
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return r == SQLITE_DONE ? 0 : -1;
}

int state_store_insert(struct state_store *s, const struct state_row *row, struct sbx_err *err)
{
	sqlite3_stmt *st = s->statement[ST_INSERT];

	bind_mutable(st, row);
	bind_number(st, 13, row->created_wall_usec);
	bind_text(st, 14, row->spec);
	bind_text(st, 15, row->execd_token);
	bind_text(st, 16, row->egress_token);
	bind_text(st, 17, row->policy ? row->policy : "");
	return step(s, ST_INSERT, "add a sandbox", err);
}

int state_store_update(struct state_store *s, const struct state_row *row, struct sbx_err *err)
{
	bind_mutable(s->statement[ST_UPDATE], row);
	return step(s, ST_UPDATE, "change a sandbox", err);
}

int state_store_set_policy(struct state_store *s, const char *id, const char *policy, struct sbx_err *err)
{
	bind_text(s->statement[ST_SET_POLICY], 1, id);
	bind_text(s->statement[ST_SET_POLICY], 2, policy);
	return step(s, ST_SET_POLICY, "keep a policy", err);
}

int state_store_remove(struct state_store *s, const char *id, struct sbx_err *err)
{
	bind_text(s->statement[ST_REMOVE], 1, id);
	return step(s, ST_REMOVE, "remove a sandbox", err);
}

static const char *column_text(sqlite3_stmt *st, int at)
{
	const unsigned char *text = sqlite3_column_text(st, at);

	return text ? (const char *)text : "";
}

int state_store_each(struct state_store *s, int (*each)(void *arg, const struct state_row *row, struct sbx_err *err), void *arg,
		     struct sbx_err *err)
{
	static const char all[] = "SELECT " MUTABLE ", id, created_wall_usec, spec, execd_token, egress_token, policy FROM sandbox "
				  "ORDER BY created_wall_usec, id";
	sqlite3_stmt *st = NULL;
	int r;

	if (sqlite3_prepare_v2(s->db, all, -1, &st, NULL) != SQLITE_OK)
		return failed(s, "read the sandboxes", err);
	while ((r = sqlite3_step(st)) == SQLITE_ROW) {
		const struct state_row row = {
			.state = column_text(st, 0),
			.reason = column_text(st, 1),
			.message = column_text(st, 2),
			.boot_id = column_text(st, 3),
			.slot = sqlite3_column_int64(st, 4),
			.generation = sqlite3_column_int64(st, 5),
			.addr = sqlite3_column_int64(st, 6),
			.transition_wall_usec = sqlite3_column_int64(st, 7),
			.expires_wall_usec = sqlite3_column_int64(st, 8),
			.metadata = column_text(st, 9),
			.deleting = sqlite3_column_int64(st, 10) != 0,
			.id = column_text(st, 11),
			.created_wall_usec = sqlite3_column_int64(st, 12),
			.spec = column_text(st, 13),
			.execd_token = column_text(st, 14),
			.egress_token = column_text(st, 15),
			.policy = column_text(st, 16),
		};
		if (each(arg, &row, err) < 0) {
			sqlite3_finalize(st);
			return -1;
		}
	}
	sqlite3_finalize(st);
	return r == SQLITE_DONE ? 0 : failed(s, "read the sandboxes", err);
}

unsigned state_store_log_pages(const struct state_store *s)
{
	return s->log_pages;
}

int state_store_checkpoint(const char *dir_path, struct sbx_err *err)
{
	struct state_store s = {0};
	int r = open_database(&s, dir_path, err);

	/* PASSIVE never waits for the daemon's writes and never makes them wait. */
	if (!r && sqlite3_wal_checkpoint_v2(s.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) != SQLITE_OK)
		r = failed(&s, "checkpoint", err);
	sqlite3_close(s.db);
	return r;
}
