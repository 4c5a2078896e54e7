// SPDX-License-Identifier: Apache-2.0
#include "runtime/sandbox_int.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/wallclock.h"

#include <string.h>

/* ---- memory ---- */

struct sandbox_entry *entry_new(struct sandbox_manager *m)
{
	struct sandbox_entry *e = calloc(1, sizeof(*e));

	if (e) {
		e->manager = m;
		e->pub.slot = e->kept.slot = BROKER_NO_SLOT;
		e->pub.log_file = "";
		egress_entry_init(e);
	}
	return e;
}

static void waiters_free(struct waiter *w)
{
	while (w) {
		struct waiter *next = w->next;
		free(w);
		w = next;
	}
}

void entry_free(struct sandbox_entry *e)
{
	if (!e)
		return;
	pull_leave(e);
	agent_control_free(e->control);
	loop_timer_free(e->create_timer);
	start_plan_clear(&e->start);
	waiters_free(e->creator);
	waiters_free(e->changer);
	waiters_free(e->deleters);
	sandbox_spec_free(&e->pub.spec);
	egress_entry_clear(e);
	free(e);
}

struct waiter *waiter_new(sandbox_done *done, void *arg)
{
	struct waiter *w = malloc(sizeof(*w));

	if (w)
		*w = (struct waiter){.done = done, .arg = arg};
	return w;
}

/* Takes the list before the first call: a callback may add to it. */
void waiters_tell(struct waiter **list, const struct sandbox *sandbox, const struct sbx_err *err)
{
	static const struct sbx_err none;
	struct waiter *w = *list;

	*list = NULL;
	while (w) {
		struct waiter *next = w->next;
		w->done(w->arg, err ? NULL : sandbox, err ? err : &none);
		free(w);
		w = next;
	}
}

/* ---- tables ---- */

static size_t bucket_of(const uint8_t id[16])
{
	return ((size_t)id[0] << 8 | id[1]) % ENTRY_BUCKETS; /* ids are random */
}

struct sandbox_entry *manager_entry(const struct sandbox_manager *m, const uint8_t id[16])
{
	for (struct sandbox_entry *e = m->bucket[bucket_of(id)]; e; e = e->bucket_next)
		if (!memcmp(e->pub.id, id, 16))
			return e;
	return NULL;
}

static const char *env_of(const struct sandbox_spec *spec, const char *key)
{
	for (size_t i = 0; i < spec->n_env; i++)
		if (!strcmp(spec->env[i].key, key))
			return spec->env[i].value;
	return "";
}

int manager_adopt(struct sandbox_manager *m, struct sandbox_entry *e, struct sbx_err *err)
{
	if (expiry_set(m->expiry, &e->expiry, e->pub.expires_wall_usec) < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox");
	e->pub.log_file = env_of(&e->pub.spec, "EXECD_LOG_FILE");
	size_t b = bucket_of(e->pub.id);
	e->bucket_next = m->bucket[b];
	m->bucket[b] = e;
	e->older = m->newest;
	if (m->newest)
		m->newest->newer = e;
	else
		m->oldest = e;
	m->newest = e;
	m->n_entries++;
	return 0;
}

void entry_unlink(struct sandbox_entry *e)
{
	struct sandbox_manager *m = e->manager;

	expiry_clear(m->expiry, &e->expiry);
	for (struct sandbox_entry **at = &m->bucket[bucket_of(e->pub.id)]; *at; at = &(*at)->bucket_next)
		if (*at == e) {
			*at = e->bucket_next;
			break;
		}
	*(e->newer ? &e->newer->older : &m->newest) = e->older;
	*(e->older ? &e->older->newer : &m->oldest) = e->newer;
	m->n_entries--;
	e->removed = true;
}

void entry_changed(struct sandbox_entry *e, bool gone)
{
	const struct sandbox_hooks *hooks = &e->manager->hooks;

	if (hooks->changed)
		hooks->changed(hooks->arg, &e->pub, gone);
}

bool entry_call_ended(struct sandbox_entry *e)
{
	e->n_calls--;
	if (!e->removed)
		return true;
	if (!e->n_calls)
		entry_free(e);
	return false;
}

struct broker_slot_ref entry_ref(const struct sandbox_entry *e)
{
	return (struct broker_slot_ref){.slot = e->pub.slot, .generation = e->pub.generation};
}

/* ---- rows ---- */

static void row_of(const struct sandbox_entry *e, const char *spec, const char *metadata, bool deleting, struct state_row *row)
{
	const struct sandbox *s = &e->pub;
	uint32_t slot = s->slot == BROKER_NO_SLOT ? e->kept.slot : s->slot;

	*row = (struct state_row){
		.id = s->id_text,
		.state = sandbox_state_name(s->state),
		.reason = s->reason,
		.message = s->message,
		.boot_id = e->boot_id,
		.spec = spec,
		.metadata = metadata,
		.execd_token = s->execd_token,
		.egress_token = s->egress_token,
		.policy = "",
		.slot = slot == BROKER_NO_SLOT ? -1 : (int64_t)slot,
		.generation = s->slot == BROKER_NO_SLOT && slot != BROKER_NO_SLOT ? e->kept.generation : s->generation,
		.addr = s->addr,
		.created_wall_usec = s->created_wall_usec,
		.transition_wall_usec = s->transition_wall_usec,
		.expires_wall_usec = s->expires_wall_usec,
		.deleting = deleting,
	};
}

int entry_write(struct sandbox_entry *e, bool deleting, struct sbx_err *err)
{
	auto_buf metadata = {0};
	struct state_row row;

	row_write_metadata(&e->pub.spec, &metadata);
	const char *text = buf_str(&metadata);
	if (!text)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox");
	row_of(e, "", text, deleting, &row);
	return state_store_update(e->manager->store, &row, err);
}

int entry_insert(struct sandbox_entry *e, struct sbx_err *err)
{
	auto_buf spec = {0};
	auto_buf metadata = {0};
	auto_buf policy = {0};
	struct state_row row;

	row_write_spec(&e->pub.spec, &spec);
	row_write_metadata(&e->pub.spec, &metadata);
	const char *spec_text = buf_str(&spec), *metadata_text = buf_str(&metadata);
	row.policy = egress_row_text(e->pub.spec.policy, &policy);
	if (!spec_text || !metadata_text || !row.policy)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox");
	const char *policy_text = row.policy;
	row_of(e, spec_text, metadata_text, false, &row);
	row.policy = policy_text;
	return state_store_insert(e->manager->store, &row, err);
}

bool entry_move(struct sandbox_entry *e, enum lifecycle_event event, const char *reason, const char *message)
{
	enum sandbox_state to = lifecycle_next(e->pub.state, event);
	struct sbx_err err;

	if (to == SANDBOX_NONE)
		return false;
	log_debug("sandbox %s: %s: %s -> %s", e->pub.id_text, lifecycle_event_name(event), sandbox_state_name(e->pub.state),
		  sandbox_state_name(to));
	e->pub.state = to;
	snprintf(e->pub.reason, sizeof(e->pub.reason), "%s", reason);
	snprintf(e->pub.message, sizeof(e->pub.message), "%s", message);
	e->pub.transition_wall_usec = wall_usec();
	if (entry_write(e, to == SANDBOX_STOPPING, &err) < 0)
		log_error("sandbox %s: %s", e->pub.id_text, err.msg);
	entry_changed(e, false);
	return true;
}

void entry_remove(struct sandbox_entry *e)
{
	struct sbx_err err;

	if (state_store_remove(e->manager->store, e->pub.id_text, &err) < 0)
		log_error("sandbox %s: %s", e->pub.id_text, err.msg); /* found and finished at the next start */
	entry_unlink(e);
	entry_changed(e, true);
	e->n_calls++; /* keep it while the callbacks run */
	waiters_tell(&e->deleters, NULL, NULL);
	entry_call_ended(e);
}
