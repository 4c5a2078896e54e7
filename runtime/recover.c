// SPDX-License-Identifier: Apache-2.0
/*
 * What survives a restart: rows (what was wanted) and the broker's slots (what is there).  They are compared at start and
 * whenever the broker comes back:
 *
 *   row               slot        then
 *   ---------------   ---------   ----------------------------------------------------------------
 *   deleting          there       kill again, then remove the row
 *   deleting          -           remove the row
 *   Pending           any         made by a sandboxd that is gone: kill what is there; the row goes, or says Failed when a
 *                                 client was told of it
 *   Pending           any         being made by this sandboxd: kill what is there, ask the new broker again
 *   has processes     there       adopt: state from the freezer, control channel, status of the entrypoint
 *   has processes     -           Failed: its processes are gone (HOST_REBOOTED when the boot is another one)
 *   none              there       kill
 *
 * Files that a life left which ended without us (a reboot, a purge) are listed too: they stay as long as their row does.
 */
#include "runtime/sandbox_int.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/settings.h"
#include "base/wallclock.h"

#include <string.h>

/* ---- rows into entries ---- */

static int load_row(void *arg, const struct state_row *row, struct sbx_err *err)
{
	struct sandbox_manager *m = arg;
	struct sandbox_entry *e = entry_new(m);
	struct sandbox *s = e ? &e->pub : NULL;

	if (!e)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "load the state");
	s->state = lifecycle_state_from_name(row->state);
	if (uuid_parse(row->id, s->id) < 0 || s->state == SANDBOX_NONE ||
	    row_read_spec(row->spec, row->metadata, &s->spec, err) < 0) {
		/* Left as it is for whoever looks into it; without an entry its slot is ended below. */
		log_error("state database: the row of sandbox \"%.40s\" cannot be read and is passed over", row->id);
		entry_free(e);
		return 0;
	}
	uuid_format(s->id, s->id_text);
	if (row->deleting)
		s->state = SANDBOX_STOPPING;
	snprintf(s->reason, sizeof(s->reason), "%s", row->reason);
	snprintf(s->message, sizeof(s->message), "%s", row->message);
	snprintf(e->boot_id, sizeof(e->boot_id), "%s", row->boot_id);
	snprintf(s->execd_token, sizeof(s->execd_token), "%s", row->execd_token);
	snprintf(s->egress_token, sizeof(s->egress_token), "%s", row->egress_token);
	s->spec.policy = egress_row_read(row->policy, s->id_text);
	egress_rebuild(e);
	s->created_wall_usec = row->created_wall_usec;
	s->transition_wall_usec = row->transition_wall_usec;
	s->expires_wall_usec = row->expires_wall_usec;
	/* By a clock that has been set since: as long again as it was at first. */
	if (s->expires_wall_usec && s->expires_wall_usec < WALL_SANE_USEC && wall_usec() >= WALL_SANE_USEC)
		s->expires_wall_usec += wall_usec() - s->created_wall_usec;
	if (row->slot >= 0 && row->slot < BROKER_NO_SLOT) {
		s->slot = (uint32_t)row->slot;
		s->generation = (uint32_t)row->generation;
		s->addr = (uint32_t)row->addr;
	}
	if (manager_adopt(m, e, err) < 0) {
		entry_free(e);
		return -1;
	}
	return 0;
}

int recover_load(struct sandbox_manager *m, struct sbx_err *err)
{
	return state_store_each(m->store, load_row, m, err);
}

/* ---- a slot that the broker has ---- */

static void on_stray_killed(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	(void)arg, (void)reply, (void)fds, (void)n_fds;
	if (err->code && err->code != SBX_E_PEER_GONE)
		log_error("end a sandbox without a row: %s", err->msg);
}

static void kill_stray(struct sandbox_manager *m, const struct broker_list_reply *slot)
{
	char id[UUID_SIZE];
	struct sbx_err err;

	uuid_format(slot->sandbox_id, id);
	log_info("sandbox %s: no row wants it, it is ended", id);
	if (broker_client_slot(m->broker, BROKER_OP_SANDBOX_KILL, slot->ref, 0, on_stray_killed, m, &err) < 0)
		log_error("end a sandbox without a row: %s", err.msg);
}

/* The freezer decides between Running and Paused, whatever was under way when a process of ours was killed. */
static void follow_freezer(struct sandbox_entry *e, bool frozen)
{
	if (frozen) {
		const char *reason = strcmp(e->pub.reason, REASON_HELD) ? REASON_PAUSED : REASON_HELD;

		entry_move(e, LIFECYCLE_PAUSE, reason, "the sandbox is frozen");
		entry_move(e, LIFECYCLE_FROZEN, reason, "the sandbox is frozen");
		entry_move(e, LIFECYCLE_NOT_THAWED, reason, "the sandbox is frozen");
	} else {
		entry_move(e, LIFECYCLE_RESUME, REASON_RUNNING, "the sandbox is up");
		entry_move(e, LIFECYCLE_THAWED, REASON_RUNNING, "the sandbox is up");
		entry_move(e, LIFECYCLE_NOT_FROZEN, REASON_RUNNING, "the sandbox is up");
	}
}

static bool needs_follow(const struct sandbox_entry *e, bool frozen)
{
	enum sandbox_state s = e->pub.state;

	return frozen ? s == SANDBOX_RUNNING || s == SANDBOX_PAUSING || s == SANDBOX_RESUMING :
			s == SANDBOX_PAUSED || s == SANDBOX_PAUSING || s == SANDBOX_RESUMING;
}

/* Left-overs of a life: a row that is not being removed keeps them. */
static void adopt_files(struct sandbox_manager *m, const struct broker_list_reply *slot)
{
	struct sbx_err err;

	for (const struct sandbox_entry *e = m->newest; e; e = e->older) {
		struct broker_slot_ref ref = e->pub.slot != BROKER_NO_SLOT ? entry_ref(e) : e->kept;

		if (ref.slot == slot->ref.slot && ref.generation == slot->ref.generation)
			return;
	}
	if (broker_client_slot(m->broker, BROKER_OP_FILES_DROP, slot->ref, 0, on_stray_killed, m, &err) < 0)
		log_error("remove files without a row: %s", err.msg);
}

static void adopt_slot(struct sandbox_manager *m, const struct broker_list_reply *slot)
{
	static const uint8_t nobody[16];
	struct sandbox_entry *e;

	if (slot->state == BROKER_SLOT_KEPT) {
		adopt_files(m, slot);
		return;
	}
	if (slot->state != BROKER_SLOT_ARMING && slot->state != BROKER_SLOT_LIVE && slot->state != BROKER_SLOT_FROZEN &&
	    slot->state != BROKER_SLOT_DYING)
		return; /* belongs to nobody, or to nobody any more */
	if (!memcmp(slot->sandbox_id, nobody, sizeof(nobody)))
		return;
	e = manager_entry(m, slot->sandbox_id);
	if (e && e->creating) {
		e->seen = true;
		return; /* its answer is still to come */
	}
	bool same = e && e->pub.slot == slot->ref.slot && e->pub.generation == slot->ref.generation;
	/* Also a create whose answer was lost: its entrypoint was never started. */
	if (!same) {
		if (slot->state != BROKER_SLOT_DYING)
			kill_stray(m, slot);
		return;
	}
	e->seen = true;
	e->oom_kills = slot->oom_kills;
	memcpy(e->pub.image_key, slot->top_layer, sizeof(e->pub.image_key));
	/* A pause or resume of this process that waits for its answer knows better than a listing that was made before it. */
	if (!e->changer && needs_follow(e, slot->state == BROKER_SLOT_FROZEN))
		follow_freezer(e, slot->state == BROKER_SLOT_FROZEN);
}

/* ---- when the listing is complete ---- */

static void undo_create(struct sandbox_manager *m, struct sandbox_entry *e)
{
	bool told = !strcmp(e->pub.reason, REASON_STARTING);

	e->undo = true;
	if (told) {
		e->pub.expires_wall_usec = wall_usec() + m->settings->lifecycle_failure_ttl_seconds * 1000000;
		if (expiry_set(m->expiry, &e->expiry, e->pub.expires_wall_usec) < 0)
			log_error("sandbox %s: no memory for its deadline", e->pub.id_text);
		entry_move(e, LIFECYCLE_NOT_MADE, REASON_NOT_MADE, "the server was restarted while it made the sandbox");
	} else {
		entry_move(e, LIFECYCLE_DELETE, REASON_NOT_MADE, "the server was restarted while it made the sandbox");
	}
	entry_kill(e);
}

/* The broker has no such life: at most its files are there. */
static void lose_slot(struct sandbox_entry *e)
{
	if (e->pub.slot == BROKER_NO_SLOT)
		return;
	e->kept = entry_ref(e);
	e->pub.slot = BROKER_NO_SLOT;
	e->pub.addr = 0;
}

static void processes_gone(struct sandbox_manager *m, struct sandbox_entry *e)
{
	bool rebooted = strcmp(e->boot_id, m->boot_id) != 0;

	lose_slot(e);
	entry_move(e, LIFECYCLE_DIED, rebooted ? REASON_REBOOTED : REASON_ERROR,
		   rebooted ? "the host was restarted" : "its processes ended while the server was down");
}

static void settle(struct sandbox_manager *m, struct sandbox_entry *e)
{
	if (e->creating || e->killing || e->ticket)
		return;
	if (!e->seen && !lifecycle_has_processes(e->pub.state))
		lose_slot(e); /* ended long ago */
	if (e->pub.state == SANDBOX_STOPPING || e->undo) {
		if (!e->seen)
			lose_slot(e);
		entry_kill(e);
	} else if (e->pub.state == SANDBOX_PENDING && !e->creator) {
		if (!e->seen)
			lose_slot(e);
		undo_create(m, e);
	} else if (e->pub.state == SANDBOX_PENDING) {
		if (!e->seen && e->pub.slot == BROKER_NO_SLOT)
			entry_ask_again(e);
		else if (!e->seen)
			undo_create(m, e);
	} else if (!e->seen && lifecycle_has_processes(e->pub.state)) {
		processes_gone(m, e);
	} else if (e->seen && lifecycle_has_processes(e->pub.state)) {
		entry_open_control(e);
		egress_adopted(e);
	}
}

static void list_begin(struct sandbox_manager *m);

static void list_complete(struct sandbox_manager *m)
{
	size_t kept = 0;

	m->listing = false;
	if (m->list_again) {
		m->list_again = false;
		list_begin(m);
		return;
	}
	for (struct sandbox_entry *e = m->newest, *older; e; e = older) {
		older = e->older;
		settle(m, e);
	}
	for (const struct sandbox_entry *e = m->newest; e; e = e->older)
		kept += e->seen;
	if (!m->ready)
		log_info("state: %zu sandboxes known, %zu of them have processes", m->n_entries, kept);
	m->ready = true;
	/* held by a sandboxd that is gone: nobody else lets them go on */
	for (struct sandbox_entry *e = m->newest, *older; e; e = older) {
		older = e->older;
		if (e->seen && !e->held && e->pub.state == SANDBOX_PAUSED && !strcmp(e->pub.reason, REASON_HELD)) {
			e->held = true;
			sandbox_release(m, e->pub.id);
		}
	}
}

static void on_list(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_manager *m = arg;

	(void)fds, (void)n_fds;
	if (err->code) {
		m->listing = false;
		m->list_again = false;
		/* PEER_GONE: asked again at the next hello.  Anything else means that we do not understand each other. */
		if (err->code != SBX_E_PEER_GONE)
			log_error("broker: list the sandboxes: %s", err->msg);
		return;
	}
	if (reply->list_reply.ref.slot == BROKER_NO_SLOT)
		list_complete(m);
	else if (!m->list_again)
		adopt_slot(m, &reply->list_reply);
}

static void list_begin(struct sandbox_manager *m)
{
	const struct broker_plain_req req = {.head = {.op = BROKER_OP_SANDBOX_LIST, .size = sizeof(req)}};
	struct sbx_err err;

	for (struct sandbox_entry *e = m->newest; e; e = e->older)
		e->seen = false;
	if (broker_client_call(m->broker, &req, -1, on_list, m, &err) < 0) {
		log_error("broker: list the sandboxes: %s", err.msg);
		return;
	}
	m->listing = true;
}

void recover_begin(struct sandbox_manager *m, const struct broker_hello_reply *hello)
{
	hex_encode(hello->boot_id, sizeof(hello->boot_id), m->boot_id);
	if (m->listing)
		m->list_again = true;
	else
		list_begin(m);
}
