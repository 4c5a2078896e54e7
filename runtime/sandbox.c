// SPDX-License-Identifier: Apache-2.0
/*
 * The life of a sandbox, as steps that are undone in the opposite order:
 *
 *   create:  volumes of its own -> row Pending -> broker CREATE -> policy in force -> control channel, START -> agent says
 *            RUNNING -> row Running -> answer
 *   undo:    broker KILL -> row Failed (the host's failure) or no row (the client's)
 *   delete:  row deleting -> broker KILL -> volumes of its own -> no row -> answer
 *
 * A kill -9 between any two of them leaves a row and perhaps a slot; recover.c finishes what was begun.
 */
#include "runtime/sandbox_int.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "runtime/resources.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define KILL_RETRY_MS 2000u
#define PULL_WAIT_MS  10000u /* then a create whose image is being pulled is answered Pending */
#define CREATES_MAX   3u /* a create that ends the broker each time is not tried for ever */

/* ---- end ---- */

/* A volume that this sandbox made and that ends with it. */
static bool own_volume(const struct sandbox_volume *v)
{
	return v->kind == SANDBOX_VOLUME_NAMED && v->create && v->remove_at_end;
}

static bool sized_volume(const struct sandbox_volume *v)
{
	return v->kind == SANDBOX_VOLUME_NAMED && v->create && v->size_mib;
}

static int ask_volume(struct sandbox_entry *e, enum broker_op op, const struct sandbox_volume *v, broker_client_done *done,
		      struct sbx_err *err)
{
	struct broker_volume_req req = {.head = {.op = op, .size = sizeof(req)}};

	if (strlen(v->source) >= sizeof(req.claim))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "volume name \"%.60s\" is too long", v->source);
	memcpy(req.claim, v->source, strlen(v->source));
	req.size_mib = op == BROKER_OP_VOLUME_MAKE ? v->size_mib : 0;
	req.at_least = op == BROKER_OP_VOLUME_MAKE && v->size_asked;
	if (broker_client_call(e->manager->broker, &req, -1, done, e, err) < 0)
		return -1;
	e->n_calls++;
	return 0;
}

static void on_dropped(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;

	(void)reply, (void)fds, (void)n_fds;
	e->n_drops--;
	if (!entry_call_ended(e))
		return;
	if (err->code == SBX_E_PEER_GONE)
		return; /* recover.c goes on */
	if (err->code && err->code != SBX_E_VOLUME_NOT_FOUND)
		log_warn("sandbox %s: its volume stays: %s", e->pub.id_text, err->msg);
	if (e->n_drops)
		return;
	e->dropped = true;
	entry_remove(e);
}

/* Whether the removal of volumes is under way; its last answer removes the entry. */
static bool drop_volumes(struct sandbox_entry *e)
{
	struct sbx_err err;

	if (e->n_drops)
		return true;
	for (size_t i = 0; !e->dropped && i < e->pub.spec.n_volumes; i++) {
		const struct sandbox_volume *v = &e->pub.spec.volumes[i];
		if (!own_volume(v))
			continue;
		if (ask_volume(e, BROKER_OP_VOLUME_DROP, v, on_dropped, &err) < 0)
			log_warn("sandbox %s: its volume %s stays: %s", e->pub.id_text, v->source, err.msg);
		else
			e->n_drops++;
	}
	return e->n_drops > 0;
}

void entry_gone(struct sandbox_entry *e)
{
	egress_ended(e, (struct egress_ref){e->pub.slot, e->pub.generation});
	agent_control_free(e->control);
	e->control = NULL;
	e->pub.slot = e->kept.slot = BROKER_NO_SLOT;
	e->pub.addr = 0;
	if (e->undo && e->pub.state == SANDBOX_FAILED && !e->deleters) {
		struct sbx_err err;

		e->undo = false;
		if (entry_write(e, false, &err) < 0)
			log_error("sandbox %s: %s", e->pub.id_text, err.msg);
		return;
	}
	if (!drop_volumes(e))
		entry_remove(e);
}

static void on_killed(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;

	(void)reply, (void)fds, (void)n_fds;
	e->killing = false;
	if (!entry_call_ended(e))
		return;
	if (!err->code || err->code == SBX_E_SANDBOX_NOT_FOUND) { /* already gone is success */
		ignore_result(FAULT_POINT("delete-killed"));
		entry_gone(e);
		return;
	}
	if (err->code == SBX_E_PEER_GONE)
		return; /* recover_begin() goes on when the broker is back */
	log_error("sandbox %s: end it: %s", e->pub.id_text, err->msg);
	struct sbx_err shown;
	sbx_err_set(&shown, SBX_E_DELETE_FAILED, 0, "the sandbox could not be ended yet; it is tried again");
	waiters_tell(&e->deleters, NULL, &shown);
	loop_timer_arm(e->manager->retry, KILL_RETRY_MS);
}

void entry_kill(struct sandbox_entry *e)
{
	struct sbx_err err;

	if (e->killing || e->creating)
		return; /* on_created() ends what it finds unwanted */
	bool kept = e->pub.slot == BROKER_NO_SLOT && e->kept.slot != BROKER_NO_SLOT;
	if (e->pub.slot == BROKER_NO_SLOT && !kept) {
		entry_gone(e);
		return;
	}
	if (broker_client_slot(e->manager->broker, kept ? BROKER_OP_FILES_DROP : BROKER_OP_SANDBOX_KILL, kept ? e->kept : entry_ref(e), 0,
			       on_killed, e, &err) < 0) {
		log_error("sandbox %s: end it: %s", e->pub.id_text, err.msg);
		loop_timer_arm(e->manager->retry, KILL_RETRY_MS);
		return;
	}
	e->killing = true;
	e->n_calls++;
}

static bool wants_kill(const struct sandbox_entry *e)
{
	return e->pub.state == SANDBOX_STOPPING || e->undo;
}

static void retry_kills(void *arg)
{
	struct sandbox_manager *m = arg;

	for (struct sandbox_entry *e = m->newest, *older; e; e = older) {
		older = e->older;
		if (wants_kill(e))
			entry_kill(e);
	}
}

void entry_delete(struct sandbox_entry *e)
{
	struct sbx_err gone;

	sbx_err_set(&gone, SBX_E_SANDBOX_NOT_FOUND, 0, "sandbox %s was deleted meanwhile", e->pub.id_text);
	entry_move(e, LIFECYCLE_DELETE, "CONTAINER_STOPPING", "the sandbox is being removed");
	ignore_result(FAULT_POINT("delete-marked"));
	loop_timer_disarm(e->create_timer);
	pull_leave(e);
	expiry_clear(e->manager->expiry, &e->expiry);
	/* Their callbacks may not free this entry: it is in the tables until the kill is answered. */
	waiters_tell(&e->creator, NULL, &gone);
	waiters_tell(&e->changer, NULL, &gone);
	entry_kill(e);
}

static void on_expired(void *arg, struct expiry_node *node)
{
	struct sandbox_entry *e = (struct sandbox_entry *)((uintptr_t)node - offsetof(struct sandbox_entry, expiry));

	(void)arg;
	log_info("sandbox %s: its time is over", e->pub.id_text);
	entry_delete(e);
}

static void on_clock_set(void *arg, int64_t by_usec)
{
	struct sandbox_manager *m = arg;
	struct sbx_err err;

	log_warn("the clock was set from before 2020: deadlines move by %lld s", (long long)(by_usec / 1000000));
	for (struct sandbox_entry *e = m->newest; e; e = e->older) {
		struct sandbox *s = &e->pub;

		if (!s->expires_wall_usec || s->expires_wall_usec >= WALL_SANE_USEC || s->state == SANDBOX_STOPPING)
			continue;
		s->expires_wall_usec += by_usec;
		if (expiry_set(m->expiry, &e->expiry, s->expires_wall_usec) < 0)
			log_error("sandbox %s: no memory for its deadline", s->id_text);
		if (entry_write(e, false, &err) < 0)
			log_error("sandbox %s: %s", s->id_text, err.msg);
	}
}

/* ---- what the agent says ---- */

/*
 * Ends a create that failed.  @err decides: the client's failure leaves no record, the host's one does for a while.  What a
 * registry says is the client's to read, whatever status it is answered with.
 */
static void create_failed(struct sandbox_entry *e, const struct sbx_err *err)
{
	struct sandbox_manager *m = e->manager;
	bool hosts = sbx_err_status(err->code) >= 500 && err->code != SBX_E_IMAGE_PULL_FAILED;
	struct sbx_err told = *err;

	loop_timer_disarm(e->create_timer);
	if (hosts)
		log_error("sandbox %s: create: %s", e->pub.id_text, err->msg);
	e->undo = true;
	start_plan_clear(&e->start);
	if ((hosts && m->settings->lifecycle_failure_ttl_seconds) || !e->creator) {
		int64_t until = wall_usec() + m->settings->lifecycle_failure_ttl_seconds * 1000000;
		if (!e->pub.expires_wall_usec || e->pub.expires_wall_usec > until)
			e->pub.expires_wall_usec = until;
		if (expiry_set(m->expiry, &e->expiry, e->pub.expires_wall_usec) < 0)
			log_error("sandbox %s: no memory for its deadline", e->pub.id_text);
		entry_move(e, LIFECYCLE_NOT_MADE, REASON_NOT_MADE,
			   hosts ? "the host could not make the sandbox; the server's log says why" : err->msg);
	} else {
		entry_move(e, LIFECYCLE_DELETE, REASON_NOT_MADE, err->msg);
	}
	waiters_tell(&e->creator, NULL, &told);
	entry_kill(e);
}

void entry_fail(struct sandbox_entry *e, const struct sbx_err *err)
{
	create_failed(e, err);
}

static void start_failed(struct sandbox_entry *e, const struct agent_status *status)
{
	static const char *const stages[] = {
		[AGENT_STAGE_NONE] = "start it",   [AGENT_STAGE_SPEC] = "read the start message",
		[AGENT_STAGE_FORK] = "fork",	   [AGENT_STAGE_CGROUP] = "enter the limits",
		[AGENT_STAGE_USER] = "user",	   [AGENT_STAGE_CWD] = "working directory",
		[AGENT_STAGE_IDENTITY] = "change the identity", [AGENT_STAGE_FILTER] = "load the system call filter",
		[AGENT_STAGE_EXEC] = "entrypoint",
	};
	const struct sandbox_spec *spec = &e->pub.spec;
	struct sbx_err err;

	switch (status->stage) {
	case AGENT_STAGE_EXEC:
		sbx_err_set(&err, SBX_E_INVALID_REQUEST, status->sys, "entrypoint \"%.100s\" cannot be started in image \"%.60s\"",
			    spec->entrypoint && spec->entrypoint[0] ? spec->entrypoint[0] : "", spec->image_uri);
		break;
	case AGENT_STAGE_USER:
		sbx_err_set(&err, SBX_E_IMAGE_INVALID, status->sys, "image \"%.100s\" names a user that it does not have",
			    spec->image_uri);
		break;
	case AGENT_STAGE_CWD:
		sbx_err_set(&err, SBX_E_IMAGE_INVALID, status->sys, "working directory of image \"%.100s\"", spec->image_uri);
		break;
	default:
		sbx_err_set(&err, SBX_E_START_FAILED, status->sys, "start of the entrypoint: %s",
			    status->stage < ARRAY_SIZE(stages) ? stages[status->stage] : "unknown stage");
	}
	create_failed(e, &err);
}

static void created(struct sandbox_entry *e)
{
	ignore_result(FAULT_POINT("create-started"));
	loop_timer_disarm(e->create_timer);
	start_plan_clear(&e->start);
	entry_move(e, LIFECYCLE_STARTED, REASON_RUNNING, "the sandbox is up");
	ignore_result(FAULT_POINT("create-running"));
	waiters_tell(&e->creator, &e->pub, NULL);
	egress_running(e);
}

static bool looks_killed(const struct agent_status *status)
{
	/* A shell in between reports the end of its child by 128 + signal. */
	return status->exit_signal == SIGKILL || status->exit_code == 128 + SIGKILL;
}

static void tell_end(struct sandbox_entry *e, const struct agent_status *status)
{
	char message[SBX_ERR_MSG_SIZE];

	if (!status->exit_signal && !status->exit_code) {
		entry_move(e, LIFECYCLE_FINISHED, REASON_EXITED, "the entrypoint finished with exit code 0");
		return;
	}
	if (looks_killed(status) && e->oom_kills)
		snprintf(message, sizeof(message), "out of memory (limit %llu bytes): the entrypoint was killed, exit code 137",
			 (unsigned long long)e->pub.spec.memory_bytes);
	else if (!status->exit_signal)
		snprintf(message, sizeof(message), "the entrypoint ended with exit code %d", status->exit_code);
	else
		snprintf(message, sizeof(message), "the entrypoint was killed by signal %d, exit code %d", status->exit_signal,
			 128 + status->exit_signal);
	entry_move(e, LIFECYCLE_DIED, REASON_ERROR, message);
}

static bool may_end(const struct sandbox_entry *e)
{
	return !e->removed && lifecycle_has_processes(e->pub.state) && e->pub.state != SANDBOX_STOPPING;
}

static void close_fds(const int *fds, size_t n);

static void on_end_stat(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;

	close_fds(fds, n_fds);
	e->asking_oom = false;
	if (!entry_call_ended(e))
		return;
	if (!err->code && reply->stat_reply.oom_kills > e->oom_kills)
		e->oom_kills = reply->stat_reply.oom_kills;
	if (may_end(e))
		tell_end(e, &e->ended);
}

static void entrypoint_ended(struct sandbox_entry *e, const struct agent_status *status)
{
	/* It may end before its start was seen: a start and an end are then two steps at once. */
	if (e->pub.state == SANDBOX_PENDING)
		created(e);
	if (e->asking_oom || !may_end(e))
		return;
	/* The broker's event of the out-of-memory kill may come after the end that it caused: the counter is asked. */
	if (looks_killed(status) && !e->oom_kills &&
	    broker_client_slot(e->manager->broker, BROKER_OP_SANDBOX_STAT, entry_ref(e), 0, on_end_stat, e, NULL) == 0) {
		e->ended = *status;
		e->asking_oom = true;
		e->n_calls++;
		return;
	}
	tell_end(e, status);
}

static void on_status(void *arg, const struct agent_status *status)
{
	struct sandbox_entry *e = arg;

	if (!status) {
		/* The broker's EXITED event follows when pid 1 is gone; a channel that only misbehaves is of no use either. */
		agent_control_free(e->control);
		e->control = NULL;
		if (e->pub.state == SANDBOX_PENDING) {
			struct sbx_err err;
			sbx_err_set(&err, SBX_E_START_FAILED, 0, "the sandbox's first process ended while it was started");
			create_failed(e, &err);
		}
		return;
	}
	switch ((enum agent_state)status->state) {
	case AGENT_STATE_WAITING:
		break;
	case AGENT_STATE_RUNNING:
		if (e->pub.state == SANDBOX_PENDING)
			created(e);
		break;
	case AGENT_STATE_START_FAILED:
		if (e->pub.state == SANDBOX_PENDING)
			start_failed(e, status);
		break;
	case AGENT_STATE_ENDED:
		entrypoint_ended(e, status);
		break;
	}
}

static void close_fds(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close_keep_errno(fds[i]);
}

/* Takes the two descriptors over. */
static int take_control(struct sandbox_entry *e, const int *fds, size_t n_fds, struct sbx_err *err)
{
	if (n_fds != 2) {
		close_fds(fds, n_fds);
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the broker sent %zu descriptors for a control channel", n_fds);
	}
	for (size_t i = 0; i < 2; i++) {
		int flags = fcntl(fds[i], F_GETFL);
		if (flags >= 0 && !(flags & O_NONBLOCK))
			ignore_result(fcntl(fds[i], F_SETFL, flags | O_NONBLOCK) < 0); /* a FIFO of ours takes it */
	}
	agent_control_free(e->control);
	e->control = agent_control_new(e->manager->loop, fds[0], fds[1], on_status, e, err);
	return e->control ? 0 : -1;
}

static void on_control(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;
	struct sbx_err mine;

	(void)reply;
	e->opening = false;
	if (!entry_call_ended(e)) {
		close_fds(fds, n_fds);
		return;
	}
	if (err->code) {
		log_warn("sandbox %s: open its control channel: %s", e->pub.id_text, err->msg);
		return;
	}
	if (take_control(e, fds, n_fds, &mine) < 0 || agent_control_query(e->control, &mine) < 0)
		log_error("sandbox %s: %s", e->pub.id_text, mine.msg);
}

void entry_open_control(struct sandbox_entry *e)
{
	struct sbx_err err;

	if (e->opening || e->control)
		return;
	if (broker_client_slot(e->manager->broker, BROKER_OP_CHANNEL_OPEN, entry_ref(e), BROKER_CHANNEL_CONTROL, on_control, e,
			       &err) < 0) {
		log_error("sandbox %s: %s", e->pub.id_text, err.msg);
		return;
	}
	e->opening = true;
	e->n_calls++;
}

/* ---- create ---- */

/* The policy is in force: the first instruction of the sandbox may run. */
static void on_policy_armed(struct sandbox_entry *e, const struct sbx_err *err)
{
	struct sbx_err mine = *err;

	ignore_result(FAULT_POINT("create-policy"));
	if (e->pub.state != SANDBOX_PENDING || e->killing || e->undo)
		return; /* deleted, expired, or its first process ended: whoever did that ends it */
	if (err->code) {
		sbx_err_wrap(&mine, "networkPolicy");
		create_failed(e, &mine);
		return;
	}
	const struct agent_start start = {
		.cwd = e->start.cwd,
		.user = e->start.user,
		.args = (const char *const *)e->start.args,
		.env = (const char *const *)e->start.env,
		.flags = e->start.flags,
	};
	if (!e->control)
		sbx_err_set(&mine, SBX_E_START_FAILED, 0, "the sandbox's first process ended while it was started");
	if (!e->control || agent_control_start(e->control, &start, &mine) < 0)
		create_failed(e, &mine);
}

static void on_created(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;
	struct sbx_err mine = *err;

	e->creating = false;
	if (!entry_call_ended(e)) {
		close_fds(fds, n_fds);
		return;
	}
	if (!err->code) {
		e->pub.slot = reply->create_reply.ref.slot;
		e->pub.generation = reply->create_reply.ref.generation;
		e->pub.addr = reply->create_reply.addr;
	}
	ignore_result(FAULT_POINT("create-armed"));
	if (e->pub.state != SANDBOX_PENDING) { /* deleted, expired or given up meanwhile */
		close_fds(fds, n_fds);
		entry_kill(e);
		return;
	}
	if (err->code == SBX_E_PEER_GONE && e->n_creates < CREATES_MAX)
		return; /* recover.c asks again when it has seen what the new broker found */
	if (err->code) {
		create_failed(e, &mine);
		return;
	}
	if (take_control(e, fds, n_fds, &mine) < 0)
		create_failed(e, &mine);
	else
		egress_arm(e, on_policy_armed);
}

static void ask_create(struct sandbox_entry *e, const struct broker_create *msg)
{
	struct sbx_err err;

	e->creating = true;
	e->n_calls++;
	e->n_creates++;
	if (broker_client_call(e->manager->broker, msg, -1, on_created, e, &err) < 0) {
		e->creating = false;
		e->n_calls--;
		create_failed(e, &err);
		return;
	}
	ignore_result(FAULT_POINT("create-asked"));
}

static void on_create_slow(void *arg)
{
	struct sandbox_entry *e = arg;
	struct sbx_err err;

	snprintf(e->pub.reason, sizeof(e->pub.reason), "%s", REASON_STARTING);
	if (entry_write(e, false, &err) < 0)
		log_error("sandbox %s: %s", e->pub.id_text, err.msg);
	waiters_tell(&e->creator, &e->pub, NULL);
}

static void fill_new(struct sandbox_entry *e)
{
	struct sandbox *s = &e->pub;

	uuid_random(s->id);
	uuid_format(s->id, s->id_text);
	s->state = SANDBOX_PENDING;
	snprintf(s->reason, sizeof(s->reason), "%s", REASON_SCHEDULED);
	snprintf(s->message, sizeof(s->message), "the sandbox is being made");
	s->created_wall_usec = wall_usec();
	s->transition_wall_usec = s->created_wall_usec;
	if (s->spec.timeout_s >= 0 &&
	    (__builtin_mul_overflow(s->spec.timeout_s, (int64_t)1000000, &s->expires_wall_usec) ||
	     __builtin_add_overflow(s->expires_wall_usec, s->created_wall_usec, &s->expires_wall_usec)))
		s->expires_wall_usec = INT64_MAX;
	memcpy(e->boot_id, e->manager->boot_id, sizeof(e->boot_id));
}

/* Everything up to the first effect. */
/* The new one is in no table yet.  What is left of one that ended takes nothing. */
static int admit(struct sandbox_manager *m, const struct sandbox_entry *e, struct sbx_err *err)
{
	const struct admission_use more = {.pids = e->pub.spec.pids_max, .memory_bytes = e->pub.spec.memory_bytes};
	struct admission_use live = {0};

	for (const struct sandbox_entry *other = m->newest; other; other = other->older) {
		if (!lifecycle_has_processes(other->pub.state))
			continue;
		live.pids += other->pub.spec.pids_max;
		live.memory_bytes += other->pub.spec.memory_bytes;
	}
	return admission_check(m->settings, &m->host, &live, &more, err);
}

static int prepare(struct sandbox_manager *m, struct sandbox_entry *e, struct broker_create *msg, struct sbx_err *err)
{
	if (!m->ready)
		return sbx_err_set(err, SBX_E_PEER_GONE, 0, "the server is starting; try again");
	if (m->n_entries >= LIMIT_SANDBOXES)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "there are already %u sandboxes", LIMIT_SANDBOXES);
	fill_new(e);
	e->wants_pull = pull_wanted(e);
	if (e->wants_pull)
		snprintf(e->pub.message, sizeof(e->pub.message), "the image is being pulled");
	if (egress_check(e, err) < 0 || launch_plan(m, e, msg, err) < 0 || admit(m, e, err) < 0)
		return -1;
	e->create_timer = loop_timer_new(m->loop, on_create_slow, e);
	return e->create_timer ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "create a sandbox");
}

/* The row and the tables; the entry is owned by them when it returns 0. */
static int enter(struct sandbox_entry *e, struct sbx_err *err)
{
	struct sandbox_manager *m = e->manager;

	if (entry_insert(e, err) < 0)
		return -1;
	ignore_result(FAULT_POINT("create-row"));
	if (manager_adopt(m, e, err) < 0) {
		ignore_result(state_store_remove(m->store, e->pub.id_text, NULL)); /* the first error is the one to tell */
		return -1;
	}
	entry_changed(e, false);
	uint64_t wait = (uint64_t)m->settings->lifecycle_create_wait_seconds * 1000;
	loop_timer_arm(e->create_timer, e->wants_pull && wait > PULL_WAIT_MS ? PULL_WAIT_MS : wait);
	return 0;
}

/* An entry that never came into the tables. */
static void give_up(struct sandbox_entry *e, const struct sbx_err *err)
{
	struct sbx_err told = *err;

	waiters_tell(&e->creator, NULL, &told);
	e->removed = true;
	if (!e->n_calls)
		entry_free(e);
}

static void on_volume_made(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err);

/*
 * Volumes that are to end with the sandbox are made before its row, so that the row knows which of them were there before:
 * those are not its to remove.  What a kill -9 in here leaves is an empty volume.  Those with a size too: making one takes longer.
 */
static bool make_next_volume(struct sandbox_entry *e, struct sbx_err *err)
{
	for (; e->n_drops < e->pub.spec.n_volumes; e->n_drops++) {
		const struct sandbox_volume *v = &e->pub.spec.volumes[e->n_drops];
		if (own_volume(v) || sized_volume(v))
			return ask_volume(e, BROKER_OP_VOLUME_MAKE, v, on_volume_made, err) == 0;
	}
	e->n_drops = 0;
	return false;
}

static void on_volume_made(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;
	struct sbx_err mine = *err;

	(void)fds, (void)n_fds;
	if (!entry_call_ended(e))
		return;
	if (!err->code) {
		if (reply->reply.sys == EEXIST)
			e->pub.spec.volumes[e->n_drops].remove_at_end = false;
		e->n_drops++;
		if (make_next_volume(e, &mine))
			return;
	}
	if (mine.code || enter(e, &mine) < 0) {
		give_up(e, &mine);
		return;
	}
	if (e->wants_pull)
		pull_begin(e);
	else if (broker_client_hello(e->manager->broker))
		entry_ask_again(e);
}

void sandbox_create(struct sandbox_manager *m, struct sandbox_spec *spec, sandbox_done *done, void *arg)
{
	struct sandbox_entry *e = entry_new(m);
	auto_free struct broker_create *msg = malloc(sizeof(*msg));
	struct sbx_err err = {0};

	if (e) {
		e->pub.spec = *spec;
		*spec = (struct sandbox_spec){0};
		e->creator = waiter_new(done, arg);
	}
	sandbox_spec_free(spec);
	if (!e || !msg || !e->creator) {
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "create a sandbox");
		entry_free(e);
		done(arg, NULL, &err);
		return;
	}
	if (prepare(m, e, msg, &err) < 0) {
		give_up(e, &err);
		return;
	}
	if (make_next_volume(e, &err))
		return;
	if (err.code || enter(e, &err) < 0) {
		give_up(e, &err);
		return;
	}
	if (e->wants_pull)
		pull_begin(e);
	else if (broker_client_hello(m->broker))
		ask_create(e, msg);
	/* else recover.c asks when the broker is back; the timer answers when that takes too long */
}

void entry_ask_again(struct sandbox_entry *e)
{
	auto_free struct broker_create *msg = malloc(sizeof(*msg));
	struct sbx_err err;

	if (!msg)
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "create a sandbox");
	if (!msg || launch_plan(e->manager, e, msg, &err) < 0)
		create_failed(e, &err);
	else
		ask_create(e, msg);
}

/* ---- delete, pause, resume ---- */

/* The entry for a request, or @done is told why not. */
static struct sandbox_entry *wanted(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	struct sbx_err err = {0};
	struct sandbox_entry *e = manager_entry(m, id);

	if (e && m->ready)
		return e;
	if (!m->ready)
		sbx_err_set(&err, SBX_E_PEER_GONE, 0, "the server is starting; try again");
	else
		ignore_result(!sandbox_find(m, id, &err)); /* only the error is wanted */
	done(arg, NULL, &err);
	return NULL;
}

void sandbox_delete(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	struct sandbox_entry *e = wanted(m, id, done, arg);
	struct sbx_err err = {0};

	if (!e)
		return;
	struct waiter *w = waiter_new(done, arg);
	if (!w) {
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "delete a sandbox");
		done(arg, NULL, &err);
		return;
	}
	w->next = e->deleters;
	e->deleters = w;
	entry_delete(e);
}

struct change {
	enum broker_op op;
	enum lifecycle_event begin, good, bad;
	enum sbx_err_code refused, failed;
	const char *verb, *good_reason, *good_message, *bad_reason, *bad_message;
};

/*
 * Of a pause, and of a hold: one that has REASON_HELD from its beginning, since whoever finds the freezer closed must know why.
 */
static const struct change freeze_change = {
	.op = BROKER_OP_SANDBOX_FREEZE,
	.begin = LIFECYCLE_PAUSE,
	.good = LIFECYCLE_FROZEN,
	.bad = LIFECYCLE_NOT_FROZEN,
	.refused = SBX_E_NOT_RUNNING,
	.failed = SBX_E_PAUSE_FAILED,
	.verb = "pause",
	.good_reason = REASON_PAUSED,
	.good_message = "the sandbox is frozen",
	.bad_reason = REASON_RUNNING,
	.bad_message = "the sandbox is up",
};

static const struct change resume_change = {
	.op = BROKER_OP_SANDBOX_THAW,
	.begin = LIFECYCLE_RESUME,
	.good = LIFECYCLE_THAWED,
	.bad = LIFECYCLE_NOT_THAWED,
	.refused = SBX_E_NOT_PAUSED,
	.failed = SBX_E_RESUME_FAILED,
	.verb = "resume",
	.good_reason = REASON_RUNNING,
	.good_message = "the sandbox is up",
	.bad_reason = REASON_PAUSED,
	.bad_message = "the sandbox is frozen",
};

static void change_answered(struct sandbox_entry *e, const struct change *c, const struct sbx_err *err)
{
	bool held = !strcmp(e->pub.reason, REASON_HELD);

	if (!err->code) {
		bool holds = held && c == &freeze_change;

		/* Refused when the sandbox ended or was deleted meanwhile: whoever did that told our waiter. */
		if (entry_move(e, c->good, holds ? REASON_HELD : c->good_reason,
			       holds ? "the sandbox is frozen while its files are read" : c->good_message))
			waiters_tell(&e->changer, &e->pub, NULL);
	} else {
		struct sbx_err told = *err;

		log_warn("sandbox %s: %s: %s", e->pub.id_text, c->verb, err->msg);
		if (told.code != SBX_E_PEER_GONE && sbx_err_status(told.code) >= 500)
			told.code = c->failed;
		/* one that was held stays known as that: it is let go on when the broker is back */
		entry_move(e, c->bad, held && c == &resume_change ? REASON_HELD : c->bad_reason, c->bad_message);
		waiters_tell(&e->changer, NULL, &told);
	}
	if (!e->changer)
		return;
	struct sbx_err ended;
	sbx_err_set(&ended, c->refused, 0, "sandbox %s: %s: it ended meanwhile", e->pub.id_text, c->verb);
	waiters_tell(&e->changer, NULL, &ended);
}

static void on_frozen(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;

	(void)reply;
	close_fds(fds, n_fds);
	if (entry_call_ended(e))
		change_answered(e, &freeze_change, err);
}

static void on_resumed(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;

	(void)reply;
	close_fds(fds, n_fds);
	if (entry_call_ended(e))
		change_answered(e, &resume_change, err);
}

/* @reason: of the sandbox from now on; NULL: as it was */
static void change(struct sandbox_manager *m, const uint8_t id[16], const struct change *c, const char *reason, sandbox_done *done,
		   void *arg)
{
	struct sandbox_entry *e = wanted(m, id, done, arg);
	struct sbx_err err = {0};

	if (!e)
		return;
	if (lifecycle_next(e->pub.state, c->begin) == SANDBOX_NONE) {
		sbx_err_set(&err, c->refused, 0, "sandbox %s is %s: %s is not possible", e->pub.id_text,
			    sandbox_state_name(e->pub.state), c->verb);
		done(arg, NULL, &err);
		return;
	}
	struct waiter *w = waiter_new(done, arg);
	if (!w) {
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "%s a sandbox", c->verb);
		done(arg, NULL, &err);
		return;
	}
	entry_move(e, c->begin, reason ? reason : e->pub.reason, e->pub.message);
	e->changer = w;
	e->n_calls++;
	broker_client_done *answered = c == &freeze_change ? on_frozen : on_resumed;
	if (broker_client_slot(m->broker, c->op, entry_ref(e), 0, answered, e, &err) < 0) {
		e->n_calls--;
		change_answered(e, c, &err);
	}
}

void sandbox_pause(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	change(m, id, &freeze_change, NULL, done, arg);
}

void sandbox_resume(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	change(m, id, &resume_change, NULL, done, arg);
}

void sandbox_hold(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	struct sandbox_entry *e = manager_entry(m, id);

	/* it stands still already; a second hold while one lasts would be ended by the first one's release */
	if (e && m->ready && !e->held && (e->pub.state == SANDBOX_PAUSED || ((e->pub.state == SANDBOX_TERMINATED || e->pub.state == SANDBOX_FAILED) && e->pub.slot != BROKER_NO_SLOT))) {
		const struct sbx_err none = {0};

		done(arg, &e->pub, &none);
		return;
	}
	if (e && m->ready && e->pub.state == SANDBOX_RUNNING)
		e->held = true;
	change(m, id, &freeze_change, REASON_HELD, done, arg);
}

static void released(void *arg, const struct sandbox *sandbox, const struct sbx_err *err)
{
	(void)arg, (void)sandbox;
	if (err->code && err->code != SBX_E_NOT_PAUSED)
		log_warn("a sandbox that was held for a commit: %s", err->msg);
}

void sandbox_release(struct sandbox_manager *m, const uint8_t id[16])
{
	struct sandbox_entry *e = manager_entry(m, id);

	if (!e || !e->held)
		return;
	e->held = false;
	if (e->pub.state == SANDBOX_PAUSED && !strcmp(e->pub.reason, REASON_HELD))
		change(m, id, &resume_change, NULL, released, NULL);
}

/* ---- the manager ---- */

static void on_event(void *arg, const struct broker_event_msg *event)
{
	struct sandbox_manager *m = arg;
	struct sandbox_entry *e = manager_entry(m, event->sandbox_id);

	if (event->head.op == BROKER_EVENT_LIMIT) {
		log_warn("broker: %.*s", (int)sizeof(event->text), event->text);
		return;
	}
	/* An event of another life of the slot, or of a sandbox whose create is not answered yet, says nothing about e. */
	if (!e || e->pub.slot != event->ref.slot || e->pub.generation != event->ref.generation)
		return;
	if (event->head.op == BROKER_EVENT_OOM) {
		e->oom_kills = event->oom_kills ? event->oom_kills : e->oom_kills + 1;
		log_info("sandbox %s: out of memory, %llu killed so far", e->pub.id_text, (unsigned long long)e->oom_kills);
		return;
	}
	if (event->head.op != BROKER_EVENT_EXITED || e->killing || e->undo || e->pub.state == SANDBOX_STOPPING)
		return;
	if (e->pub.state == SANDBOX_PENDING) {
		struct sbx_err err;
		sbx_err_set(&err, SBX_E_START_FAILED, 0, "the sandbox's first process ended while it was started");
		create_failed(e, &err);
		return;
	}
	entry_move(e, LIFECYCLE_DIED, REASON_ERROR, "the sandbox's first process was killed from outside");
}

static void on_ready(void *arg, const struct broker_hello_reply *hello)
{
	recover_begin(arg, hello);
}

static int open_state(struct sandbox_manager *m, int state_dir_fd, struct sbx_err *err)
{
	char link[48], path[4096];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", state_dir_fd);
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "state directory");
	path[n] = '\0';
	m->store = state_store_open(path, err);
	return m->store ? 0 : -1;
}

static int check_default_limits(const struct settings *settings, struct sbx_err *err)
{
	uint64_t memory;
	uint32_t cpu, disk;

	if (*settings->storage_volume_default_size && resources_disk(settings->storage_volume_default_size, &disk) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "storage.volume_default_size \"%s\" is not a size such as 10Gi, of %uMi at least",
				   settings->storage_volume_default_size, LIMIT_DISK_MIN_MIB);
	if (*settings->limits_default_disk && resources_disk(settings->limits_default_disk, &disk) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "limits.default_disk \"%s\" is not a size such as 2Gi, of %uMi at least",
				   settings->limits_default_disk, LIMIT_DISK_MIN_MIB);
	if (*settings->limits_default_memory && resources_memory(settings->limits_default_memory, &memory) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "limits.default_memory \"%s\" is not a size such as 512Mi",
				   settings->limits_default_memory);
	if (*settings->limits_reserve_memory && resources_memory(settings->limits_reserve_memory, &memory) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "limits.reserve_memory \"%s\" is not a size such as 1Gi",
				   settings->limits_reserve_memory);
	if (*settings->limits_default_cpu && resources_cpu(settings->limits_default_cpu, &cpu) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "limits.default_cpu \"%s\" is not a number such as 2 or 500m",
				   settings->limits_default_cpu);
	return 0;
}

struct sandbox_manager *sandbox_manager_new(struct loop *loop, const struct settings *settings, struct broker_client *broker,
					    int state_dir_fd, const struct sandbox_hooks *hooks, struct sbx_err *err)
{
	struct sandbox_manager *m = calloc(1, sizeof(*m));

	if (!m) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox manager");
		return NULL;
	}
	*m = (struct sandbox_manager){.loop = loop, .settings = settings, .broker = broker, .hooks = *hooks};
	admission_host_read(&m->host);
	m->expiry = expiry_new(loop, on_expired, m, err);
	if (m->expiry)
		expiry_on_clock_set(m->expiry, on_clock_set);
	m->retry = loop_timer_new(loop, retry_kills, m);
	if (!m->retry)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox manager");
	if (!m->expiry || !m->retry || egress_manager_init(m, err) < 0 || check_default_limits(settings, err) < 0 || open_state(m, state_dir_fd, err) < 0 ||
	    recover_load(m, err) < 0) {
		sandbox_manager_free(m);
		return NULL;
	}
	const struct broker_client_hooks broker_hooks = {.arg = m, .ready = on_ready, .event = on_event};
	broker_client_set_hooks(broker, &broker_hooks);
	return m;
}

void sandbox_manager_set_images(struct sandbox_manager *m, struct image_store *images, struct image_pulls *pulls)
{
	m->images = images;
	m->pulls = pulls;
}

bool sandbox_manager_ready(const struct sandbox_manager *m)
{
	return m->ready;
}

bool sandbox_manager_image_used(const struct sandbox_manager *m, const char *uri)
{
	for (const struct sandbox_entry *e = m->newest; e; e = e->older)
		if (e->pub.slot != BROKER_NO_SLOT && e->pub.spec.image_uri && !strcmp(e->pub.spec.image_uri, uri))
			return true;
	return false;
}

unsigned sandbox_manager_log_pages(const struct sandbox_manager *m)
{
	return state_store_log_pages(m->store);
}

void sandbox_manager_free(struct sandbox_manager *m)
{
	static const struct broker_client_hooks none;

	if (!m)
		return;
	broker_client_set_hooks(m->broker, &none);
	while (m->newest) {
		struct sandbox_entry *e = m->newest;
		m->newest = e->older;
		if (m->expiry)
			expiry_clear(m->expiry, &e->expiry);
		entry_free(e); /* calls under way end with the broker client, which the caller frees next */
	}
	egress_manager_clear(m);
	loop_timer_free(m->retry);
	expiry_free(m->expiry);
	state_store_close(m->store);
	free(m);
}
