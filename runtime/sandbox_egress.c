// SPDX-License-Identifier: Apache-2.0
#include "runtime/sandbox_int.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/settings.h"
#include "netpolicy/overlay.h"
#include "netpolicy/policy_json.h"
#include "netpolicy/policy_link.h"

#include <assert.h>
#include <string.h>

#define WAIT_TICK_MS 100u

/* The name server and the broker count the same leases against the same limits. */
static_assert(EGRESS_LEASES_SANDBOX == BROKER_PINS_SANDBOX && EGRESS_LEASES_ALL == BROKER_PINS_ALL, "limits of leases");

enum change_step {
	CHANGE_QUEUED = 0,
	CHANGE_WAITING, /* for dnsd */
	CHANGE_SETTING, /* dnsd has been asked */
	CHANGE_LOADING, /* the broker has been asked; when a sandbox is made, dnsd at the same time */
};

struct egress_change {
	struct egress_change *next;
	enum change_step step;
	sandbox_policy_make *make; /* NULL: what is in force is told again */
	sandbox_done *done;	   /* NULL: nobody waits any more */
	void *arg;
	void (*armed)(struct sandbox_entry *e, const struct sbx_err *err); /* the sandbox is being made */
	struct policy *user, *effective; /* owned; once made */
	uint64_t deadline_ms;
	uint64_t overlay_serial; /* of the operator's rules in `effective` */
	unsigned n_answers; /* still to come */
	struct sbx_err failed; /* the first of them that was bad */
};

static void pump(struct sandbox_entry *e);

/* ---- rows ---- */

const char *egress_row_text(const struct policy *policy, struct buf *out)
{
	struct jw w = {.out = out};

	if (policy)
		policy_json_write(policy, &w);
	return buf_str(out);
}

/* The policy that nothing gets past, for when the right one cannot be had. */
static struct policy *deny_all(void)
{
	struct policy *p = policy_new(false);
	struct sbx_err err;

	if (p && !policy_seal(p, &err))
		return p;
	log_error("out of memory: a policy is lost");
	abort();
}

struct policy *egress_row_read(const char *text, const char *id)
{
	struct sbx_err err = {0};

	if (!*text)
		return NULL;
	auto_jv v = jv_parse(text, strlen(text), &err);
	struct policy *p = v ? policy_json_read(v, 0, &err) : NULL;
	if (p)
		return p;
	log_error("sandbox %s: its stored policy does not read (%s); everything is denied", id, err.msg);
	return deny_all();
}

/* ---- effective policies ---- */

static const struct policy *effective_of(const struct sandbox_entry *e)
{
	return e->egress.effective ? e->egress.effective : e->manager->egress.none;
}

const struct policy *sandbox_effective_policy(const struct sandbox *sandbox)
{
	/* pub is the first member */
	return effective_of((const struct sandbox_entry *)(uintptr_t)sandbox);
}

static bool narrows_nothing(const struct policy *p)
{
	return policy_default_allow(p) && !policy_count(p);
}

static int check(const struct policy *p, struct sbx_err *err)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < policy_count(p); i++)
		n += policy_at(p, i)->kind == EGRESS_RULE_IPV4 || policy_at(p, i)->kind == EGRESS_RULE_IPV6;
	if (n > BROKER_POLICY_RULES)
		return sbx_err_set(err, SBX_E_TOO_LARGE, 0, "%u rules for addresses, the operator's counted, are more than %u", n,
				   BROKER_POLICY_RULES);
	return 0;
}

static struct policy *build(const struct sandbox_manager *m, const struct policy *user, struct sbx_err *err)
{
	const struct egress_manager *g = &m->egress;
	struct policy *p = policy_effective(overlay_policy(g->overlay), user, g->domain_ports, g->n_domain_ports, err);

	if (p && !check(p, err))
		return p;
	policy_free(p);
	return NULL;
}

bool egress_is_open(struct sandbox_entry *e)
{
	return narrows_nothing(effective_of(e));
}

int egress_check(struct sandbox_entry *e, struct sbx_err *err)
{
	if (!e->pub.spec.policy || e->egress.effective)
		return 0;
	e->egress.effective = build(e->manager, e->pub.spec.policy, err);
	return e->egress.effective ? 0 : -1;
}

/* ---- changes ---- */

static bool has_change(const struct sandbox_entry *e)
{
	return e->egress.first != NULL;
}

static struct egress_change *change_new(void)
{
	struct egress_change *c = calloc(1, sizeof(*c));

	return c;
}

static void change_free(struct egress_change *c)
{
	policy_free(c->user);
	policy_free(c->effective);
	free(c);
}

static void push_front(struct sandbox_entry *e, struct egress_change *c)
{
	c->next = e->egress.first;
	if (!e->egress.first)
		e->egress.last = &c->next;
	e->egress.first = c;
}

static void push_back(struct sandbox_entry *e, struct egress_change *c)
{
	c->next = NULL;
	*e->egress.last = c;
	e->egress.last = &c->next;
}

static struct egress_change *take_first(struct sandbox_entry *e)
{
	struct egress_change *c = e->egress.first;

	e->egress.first = c->next;
	if (!e->egress.first)
		e->egress.last = &e->egress.first;
	return c;
}

static void tell(struct egress_change *c, const struct sandbox *sandbox, const struct sbx_err *err)
{
	static const struct sbx_err none;
	sandbox_done *done = c->done;

	c->done = NULL;
	if (done)
		done(c->arg, err ? NULL : sandbox, err ? err : &none);
}

/* What a change was about to enforce, or what is in force. */
static const struct policy *wanted_by(const struct sandbox_entry *e, const struct egress_change *c)
{
	return c->effective ? c->effective : effective_of(e);
}

static int keep_row(struct sandbox_entry *e, const struct policy *user, struct sbx_err *err)
{
	auto_buf text = {0};
	const char *row = egress_row_text(user, &text);

	if (!row)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "policy");
	return state_store_set_policy(e->manager->store, e->pub.id_text, row, err);
}

/* Tried again by the timer; a change that succeeds before that makes it superfluous. */
static void reload_later(struct sandbox_entry *e)
{
	e->egress.retry = true;
	if (!loop_timer_armed(e->manager->egress.again))
		loop_timer_arm(e->manager->egress.again, EGRESS_RETRY_MS);
}

static void publish(struct sandbox_entry *e, struct egress_change *c)
{
	policy_free(e->pub.spec.policy);
	e->pub.spec.policy = take_ptr(c->user);
	policy_free(e->egress.effective);
	e->egress.effective = take_ptr(c->effective);
	e->egress.retry = e->egress.reload = false;
}

/* The change at the front has ended, well or badly; it is taken out and the next one begins. */
static void finish(struct sandbox_entry *e, const struct sbx_err *err)
{
	struct egress_change *c = take_first(e);
	struct sbx_err mine = *err;
	bool stale = c->overlay_serial != e->manager->egress.overlay_serial;

	if (c->armed) {
		void (*armed)(struct sandbox_entry *entry, const struct sbx_err *error) = c->armed;

		change_free(c);
		e->egress.reload |= !mine.code && stale;
		armed(e, &mine); /* may begin the end of e, which stays until the next turn of the loop */
		return;
	}
	if (c->make && !mine.code && keep_row(e, c->user, &mine) < 0)
		log_error("sandbox %s: %s", e->pub.id_text, mine.msg);
	if (mine.code && (!c->make || c->step > CHANGE_WAITING)) {
		/* Nobody knows how far it came: what is in force is told again. */
		if (c->make)
			log_warn("sandbox %s: policy not changed: %s", e->pub.id_text, mine.msg);
		reload_later(e);
		e->egress.reload |= c->make && mine.code != SBX_E_PEER_GONE;
	} else if (!mine.code && c->make) {
		publish(e, c);
	} else if (!mine.code) {
		e->egress.retry = false;
	}
	e->egress.reload |= stale;
	if (stale && c->make && !mine.code)
		egress_rebuild(e);
	e->n_calls++; /* keep it while the callback runs */
	tell(c, &e->pub, mine.code ? &mine : NULL);
	change_free(c);
	if (entry_call_ended(e))
		pump(e);
}

static void answered(struct sandbox_entry *e, const struct sbx_err *err)
{
	struct egress_change *c = e->egress.first;

	if (err->code && !c->failed.code)
		c->failed = *err;
	if (--c->n_answers == 0) {
		struct sbx_err result = c->failed;

		finish(e, &result);
	}
}

static void on_loaded(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;
	struct sbx_err mine = *err;

	(void)fds, (void)n_fds;
	if (!entry_call_ended(e))
		return;
	if (!err->code && (!reply || reply->head.op != BROKER_OP_POLICY))
		sbx_err_set(&mine, SBX_E_PROTOCOL, 0, "the broker answers something else");
	if (!mine.code && FAULT_POINT("egress-load"))
		sbx_err_set(&mine, SBX_E_SYSTEM, 0, "injected");
	answered(e, &mine);
}

static uint32_t fill_ports(const struct policy_rule *r, uint16_t out[BROKER_RULE_PORTS])
{
	uint32_t n = 0;

	/* policy_add() has counted them */
	for (uint32_t i = 0; i < r->n_ports; i++)
		for (uint32_t port = r->ports[i].first; port <= r->ports[i].last && n < BROKER_RULE_PORTS; port++)
			out[n++] = (uint16_t)port;
	return n;
}

/* One message for each BROKER_POLICY_PART rules of addresses, the last of which has it all applied. */
static int send_parts(struct sandbox_entry *e, struct egress_change *c, const struct policy *p, struct sbx_err *err)
{
	auto_free struct broker_policy *msg = calloc(1, sizeof(*msg));
	uint32_t flags = policy_default_allow(p) ? BROKER_POLICY_DEFAULT_ALLOW : 0, at = 0;
	bool last = false;

	if (!msg)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "policy");
	for (uint32_t i = 0; i < policy_count(p); i++)
		if (*policy_at(p, i)->name)
			flags |= BROKER_POLICY_NAMES;
	for (uint32_t first = 0; !last; first += msg->n_rules) {
		*msg = (struct broker_policy){
			.head = {.op = BROKER_OP_POLICY, .size = sizeof(*msg)}, .ref = entry_ref(e), .first = first};
		for (; at < policy_count(p) && msg->n_rules < BROKER_POLICY_PART; at++) {
			const struct policy_rule *r = policy_at(p, at);
			struct broker_ip_rule *to = &msg->rule[msg->n_rules];

			if (r->kind != EGRESS_RULE_IPV4 && (r->kind != EGRESS_RULE_IPV6 || !e->manager->settings->network_ipv6))
				continue;
			to->addr = r->kind == EGRESS_RULE_IPV4 ? r->addr : 0;
			if (r->kind == EGRESS_RULE_IPV6)
				to->addr6 = ip6_read(r->addr6);
			to->prefix = r->prefix;
			to->flags = (r->flags & EGRESS_RULE_ALLOW ? BROKER_RULE_ALLOW : 0) |
				    (r->flags & EGRESS_RULE_OPERATOR ? BROKER_RULE_OPERATOR : 0) |
				    (r->kind == EGRESS_RULE_IPV6 ? BROKER_RULE_IPV6 : 0);
			to->n_ports = fill_ports(r, to->port);
			msg->n_rules++;
		}
		last = at == policy_count(p);
		msg->flags = flags | (last ? BROKER_POLICY_LAST : 0);
		if (broker_client_call(e->manager->broker, msg, -1, on_loaded, e, err) < 0)
			return -1;
		e->n_calls++;
		c->n_answers++;
	}
	return 0;
}

static void load(struct sandbox_entry *e)
{
	struct egress_change *c = e->egress.first;
	struct sbx_err err = {0};

	c->step = CHANGE_LOADING;
	c->n_answers++; /* ours, so that the end comes behind the last message */
	if (send_parts(e, c, wanted_by(e, c), &err) < 0)
		log_error("sandbox %s: %s", e->pub.id_text, err.msg);
	answered(e, &err);
}

static void wait_for_dnsd(struct sandbox_entry *e)
{
	struct egress_change *c = e->egress.first;
	struct egress_manager *g = &e->manager->egress;

	if (!c->deadline_ms)
		c->deadline_ms = loop_now_ms(e->manager->loop) + EGRESS_WAIT_MS;
	c->step = CHANGE_WAITING;
	if (!loop_timer_armed(g->wait))
		loop_timer_arm(g->wait, WAIT_TICK_MS);
}

/* Whether the change at the front can do without dnsd's word: its next HELLO brings everything. */
static bool needs_dnsd(const struct sandbox_entry *e, const struct egress_change *c)
{
	if (c->armed)
		return !narrows_nothing(wanted_by(e, c));
	return c->make != NULL;
}

static void on_set(void *arg, const union egress_any *reply, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;

	(void)reply;
	if (!entry_call_ended(e))
		return;
	struct egress_change *c = e->egress.first;
	bool gone = err->code == SBX_E_PEER_GONE;
	if (c->step == CHANGE_LOADING) { /* both at once: a sandbox that is being made */
		static const struct sbx_err none;

		answered(e, gone && !needs_dnsd(e, c) ? &none : err);
	} else if (gone && needs_dnsd(e, c)) {
		wait_for_dnsd(e);
	} else if (err->code && !gone) {
		finish(e, err);
	} else {
		load(e);
	}
}

static int send_set(struct sandbox_entry *e, const struct policy *p, policy_link_done *done, struct sbx_err *err)
{
	struct policy_link_target target = {
		.ref = {e->pub.slot, e->pub.generation}, .addr = e->pub.addr, .policy_generation = ++e->egress.generation};

	memcpy(target.sandbox_id, e->pub.id, sizeof(target.sandbox_id));
	return policy_link_set(e->manager->egress.link, &target, p, done, e, err);
}

/* The change at the front, whose policies are made. */
static void begin(struct sandbox_entry *e)
{
	struct egress_change *c = e->egress.first;
	struct sbx_err err = {0};
	bool up = policy_link_up(e->manager->egress.link);

	c->failed = (struct sbx_err){0};
	if (!up && needs_dnsd(e, c)) {
		wait_for_dnsd(e);
		return;
	}
	if (!up) {
		load(e);
		return;
	}
	if (send_set(e, wanted_by(e, c), on_set, &err) < 0) {
		finish(e, &err);
		return;
	}
	e->n_calls++;
	c->step = CHANGE_SETTING;
	if (c->armed) {
		/* Nothing of it runs yet: both may be told at the same time. */
		c->n_answers++;
		load(e);
	}
}

static bool may_change(const struct sandbox_entry *e, struct sbx_err *err)
{
	switch (e->pub.state) {
	case SANDBOX_RUNNING:
	case SANDBOX_PAUSING:
	case SANDBOX_PAUSED:
	case SANDBOX_RESUMING:
		return true;
	case SANDBOX_NONE:
	case SANDBOX_PENDING:
	case SANDBOX_STOPPING:
	case SANDBOX_TERMINATED:
	case SANDBOX_FAILED:
	case SANDBOX_STATE_COUNT:
	default:
		sbx_err_set(err, SBX_E_NOT_READY, 0, "sandbox %s has ended (%s)", e->pub.id_text, sandbox_state_name(e->pub.state));
		return false;
	}
}

/* Makes the policies of the change at the front.  Return: whether there is something to do; else it was told and is gone. */
static bool make(struct sandbox_entry *e)
{
	struct egress_change *c = e->egress.first;
	struct sbx_err err = {0};

	c->overlay_serial = e->manager->egress.overlay_serial;
	if (may_change(e, &err)) {
		c->user = c->make(c->arg, e->pub.spec.policy, &err);
		if (c->user)
			c->effective = build(e->manager, c->user, &err);
		if (c->effective)
			return true;
	}
	take_first(e);
	e->n_calls++;
	tell(c, &e->pub, err.code ? &err : NULL);
	change_free(c);
	entry_call_ended(e);
	return false;
}

static void pump(struct sandbox_entry *e)
{
	for (;;) {
		struct egress_change *c = e->egress.first;

		if (e->removed || (c && c->step != CHANGE_QUEUED))
			return;
		if (e->egress.reload && e->pub.slot != BROKER_NO_SLOT && lifecycle_has_processes(e->pub.state) &&
		    e->pub.state != SANDBOX_PENDING) {
			c = change_new();
			if (!c) {
				reload_later(e);
				return;
			}
			e->egress.reload = false;
			c->overlay_serial = e->manager->egress.overlay_serial;
			push_front(e, c);
			begin(e);
			return;
		}
		if (!c || e->pub.state == SANDBOX_PENDING)
			return;
		e->n_calls++;
		bool begun = make(e);
		if (!entry_call_ended(e))
			return;
		if (begun) {
			begin(e);
			return;
		}
	}
}

void sandbox_change_policy(struct sandbox_manager *m, const uint8_t id[16], sandbox_policy_make *make_policy, sandbox_done *done, void *arg)
{
	struct sandbox_entry *e = manager_entry(m, id);
	struct sbx_err err = {0};
	struct egress_change *c = NULL;

	if (!m->ready)
		sbx_err_set(&err, SBX_E_PEER_GONE, 0, "the server is starting; try again");
	else if (!e || e->pub.state == SANDBOX_STOPPING)
		ignore_result(!sandbox_find(m, id, &err)); /* only the error is wanted */
	else if (!(c = change_new()))
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "policy");
	if (!c) {
		done(arg, NULL, &err);
		return;
	}
	c->make = make_policy;
	c->done = done;
	c->arg = arg;
	push_back(e, c);
	pump(e);
}

void egress_arm(struct sandbox_entry *e, void (*done)(struct sandbox_entry *e, const struct sbx_err *err))
{
	struct egress_change *c;
	struct sbx_err err = {0};

	if (egress_is_open(e)) {
		/*
		 * Open at the broker since its creation, and there is nothing to enforce: its start waits for nobody.  dnsd has the
		 * SET before the entrypoint is executed; when it is away, with its next HELLO.
		 */
		if (policy_link_up(e->manager->egress.link) && send_set(e, effective_of(e), NULL, &err) < 0)
			reload_later(e);
		err = (struct sbx_err){0};
		done(e, &err);
		return;
	}
	c = change_new();
	if (!c) {
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "policy");
		done(e, &err);
		return;
	}
	c->armed = done;
	c->overlay_serial = e->manager->egress.overlay_serial;
	push_front(e, c);
	begin(e);
}

void egress_running(struct sandbox_entry *e)
{
	pump(e);
}

void egress_adopted(struct sandbox_entry *e)
{
	e->egress.reload = true;
	pump(e);
}

void egress_ended(struct sandbox_entry *e, struct egress_ref ref)
{
	struct sbx_err gone;

	if (ref.slot != BROKER_NO_SLOT)
		policy_link_drop(e->manager->egress.link, ref);
	sbx_err_set(&gone, SBX_E_SANDBOX_NOT_FOUND, 0, "sandbox %s was ended meanwhile", e->pub.id_text);
	/* One that is under way stays in the list, for its answer. */
	while (has_change(e) && e->egress.first->step <= CHANGE_WAITING) {
		struct egress_change *c = take_first(e);

		tell(c, NULL, &gone);
		change_free(c);
	}
	for (struct egress_change *c = e->egress.first; c; c = c->next)
		tell(c, NULL, &gone);
}

void egress_entry_init(struct sandbox_entry *e)
{
	e->egress.last = &e->egress.first;
}

void egress_entry_clear(struct sandbox_entry *e)
{
	while (has_change(e))
		change_free(take_first(e));
	policy_free(e->egress.effective);
	e->egress.effective = NULL;
}

/* ---- dnsd comes, goes and tells ---- */

static void on_hello(void *arg)
{
	struct sandbox_manager *m = arg;
	size_t n = 0;

	for (struct sandbox_entry *e = m->newest; e; e = e->older) {
		const struct egress_change *c = e->egress.first;
		struct sbx_err err;

		if (e->pub.slot == BROKER_NO_SLOT || !lifecycle_has_processes(e->pub.state))
			continue;
		/* What is on its way to the broker is what will hold; should it fail, the old one is told again. */
		if (send_set(e, c && c->step == CHANGE_LOADING ? wanted_by(e, c) : effective_of(e), NULL, &err) < 0) {
			log_error("sandbox %s: policy for dnsd: %s", e->pub.id_text, err.msg);
			reload_later(e);
		} else {
			n++;
		}
	}
	policy_link_synced(m->egress.link);
	log_info("dnsd is here: policies of %zu sandboxes sent", n);
	for (struct sandbox_entry *e = m->newest, *older; e; e = older) {
		older = e->older;
		if (has_change(e) && e->egress.first->step == CHANGE_WAITING)
			begin(e);
	}
}

static void on_event(void *arg, const struct egress_event *event)
{
	struct sandbox_manager *m = arg;
	const struct sandbox_entry *e = manager_entry(m, event->sandbox_id);

	if (!e || e->pub.slot != event->ref.slot || e->pub.generation != event->ref.generation || !m->hooks.egress)
		return;
	m->hooks.egress(m->hooks.arg, &e->pub, event->policy_generation == e->egress.generation ? effective_of(e) : NULL, event);
}

void sandbox_denied(struct sandbox_manager *m, const uint8_t id[16], const char *line, size_t n)
{
	struct sandbox_entry *e = manager_entry(m, id);
	uint64_t second = loop_now_ms(m->loop) / 1000;

	if (!e || !e->control || e->pub.state != SANDBOX_RUNNING)
		return;
	if (e->egress.denied_ms != second) {
		e->egress.denied_ms = second;
		e->egress.n_denied = 0;
	}
	/* An agent that is behind misses lines, as it does beyond the rate: the journal has them. */
	if (e->egress.n_denied++ < EGRESS_DENIED_LINES)
		ignore_result(agent_control_denied(e->control, line, n));
}

static void on_wait(void *arg)
{
	struct sandbox_manager *m = arg;
	uint64_t now = loop_now_ms(m->loop);
	struct sbx_err late;
	bool more = false;

	sbx_err_set(&late, SBX_E_PEER_GONE, 0,
		    "the policy was not changed, the old one is in force: sandbox-dnsd is not running. It is started again by itself: try again in "
		    "some seconds; if that does not help, the server's log says why it ends");
	for (struct sandbox_entry *e = m->newest, *older; e; e = older) {
		older = e->older;
		if (!has_change(e) || e->egress.first->step != CHANGE_WAITING)
			continue;
		if (now >= e->egress.first->deadline_ms)
			finish(e, &late);
		else
			more = true;
	}
	if (more)
		loop_timer_arm(m->egress.wait, WAIT_TICK_MS);
}

static void on_again(void *arg)
{
	struct sandbox_manager *m = arg;

	for (struct sandbox_entry *e = m->newest, *older; e; e = older) {
		older = e->older;
		if (!e->egress.retry)
			continue;
		e->egress.retry = false;
		e->egress.reload = true;
		pump(e);
	}
}

/* ---- the operator's files ---- */

void egress_rebuild(struct sandbox_entry *e)
{
	struct sbx_err err = {0};
	struct policy *p = e->pub.spec.policy ? build(e->manager, e->pub.spec.policy, &err) : NULL;

	if (e->pub.spec.policy && !p) {
		log_error("sandbox %s: the operator's rules are not in force for it: %s", e->pub.id_text, err.msg);
		return;
	}
	policy_free(e->egress.effective);
	e->egress.effective = p;
}

static void on_overlay(void *arg)
{
	struct sandbox_manager *m = arg;
	struct sbx_err err = {0};
	struct policy *none = build(m, NULL, &err);

	if (!none) {
		log_error("operator's rules: %s; the old ones stay", err.msg);
		return;
	}
	policy_free(m->egress.none);
	m->egress.none = none;
	m->egress.overlay_serial++;
	for (struct sandbox_entry *e = m->newest, *older; e; e = older) {
		older = e->older;
		egress_rebuild(e);
		e->egress.reload = true;
		pump(e);
	}
}

/* ---- the manager ---- */

static int read_ports(struct egress_manager *g, const struct settings_texts *list, struct sbx_err *err)
{
	for (size_t i = 0; i < list->n; i++) {
		struct policy_ports *to = &g->domain_ports[g->n_domain_ports];

		if (g->n_domain_ports == EGRESS_RULE_PORTS || policy_ports_read(list->item[i], to) < 0)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
					   "egress.domain_ports: \"%.40s\" is no port or range such as \"8000-8003\", or one too many", list->item[i]);
		g->n_domain_ports++;
	}
	return 0;
}

int egress_manager_init(struct sandbox_manager *m, struct sbx_err *err)
{
	const struct settings *s = m->settings;
	struct egress_manager *g = &m->egress;

	g->wait = loop_timer_new(m->loop, on_wait, m);
	g->again = loop_timer_new(m->loop, on_again, m);
	if (!g->wait || !g->again)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "egress policies");
	if (read_ports(g, &s->egress_domain_ports, err) < 0)
		return -1;
	if (*s->egress_overlay_deny || *s->egress_overlay_allow) {
		g->overlay = overlay_new(m->loop, s->egress_overlay_deny, s->egress_overlay_allow, on_overlay, m, err);
		if (!g->overlay)
			return sbx_err_wrap(err, "egress");
	}
	g->none = build(m, NULL, err);
	return g->none ? 0 : sbx_err_wrap(err, "egress.overlay");
}

void egress_manager_clear(struct sandbox_manager *m)
{
	policy_link_free(m->egress.link);
	overlay_free(m->egress.overlay);
	policy_free(m->egress.none);
	loop_timer_free(m->egress.wait);
	loop_timer_free(m->egress.again);
	m->egress = (struct egress_manager){0};
}

int sandbox_manager_set_egress(struct sandbox_manager *m, int listen_fd, struct sbx_err *err)
{
	const struct policy_link_hooks hooks = {.arg = m, .hello = on_hello, .event = on_event};

	m->egress.link = policy_link_new(m->loop, listen_fd, (uid_t)m->settings->isolation_dnsd_uid, &hooks, err);
	return m->egress.link ? 0 : -1;
}

struct policy_link *sandbox_manager_link(struct sandbox_manager *m)
{
	return m->egress.link;
}
