// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/fake_manager.h"

#include "base/cleanup.h"
#include "base/wallclock.h"
#include "netpolicy/policy.h"
#include "runtime/broker_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HELD_MAX 16u
/* Everything happens at the same instant, so that golden answers can be compared as text. */
#define FAKE_NOW_WALL_USEC INT64_C(1936148521123456)

struct fake_state fake;

struct sandbox_manager {
	struct sandbox_hooks hooks;
	struct sandbox *list[FAKE_SANDBOXES_MAX]; /* oldest first */
	size_t n;
	struct {
		sandbox_done *done;
		void *arg;
		const struct sandbox *sandbox;
	} held[HELD_MAX];
	unsigned n_held;
};

static struct sandbox_manager the_manager;

struct sandbox_manager *fake_manager_new(const struct sandbox_hooks *hooks)
{
	the_manager.hooks = *hooks;
	return &the_manager;
}

static void remove_at(size_t i)
{
	sandbox_spec_free(&the_manager.list[i]->spec);
	free(the_manager.list[i]);
	memmove(&the_manager.list[i], &the_manager.list[i + 1], (--the_manager.n - i) * sizeof(the_manager.list[0]));
}

void fake_manager_reset(void)
{
	while (the_manager.n)
		remove_at(the_manager.n - 1);
	fake.last = NULL;
	fake.created = 0;
}

struct sandbox *fake_newest(void)
{
	return the_manager.n ? the_manager.list[the_manager.n - 1] : NULL;
}

static void tell(const struct sandbox *s, bool gone)
{
	if (the_manager.hooks.changed)
		the_manager.hooks.changed(the_manager.hooks.arg, s, gone);
}

void fake_set_state(enum sandbox_state state, const char *reason)
{
	struct sandbox *s = fake_newest();

	if (!s)
		abort();
	s->state = state;
	snprintf(s->reason, sizeof(s->reason), "%s", reason);
	tell(s, false);
}

static void end(sandbox_done *done, void *arg, const struct sandbox *s)
{
	static const struct sbx_err none;

	if (fake.hold && the_manager.n_held < HELD_MAX) {
		the_manager.held[the_manager.n_held].done = done;
		the_manager.held[the_manager.n_held].arg = arg;
		the_manager.held[the_manager.n_held++].sandbox = s;
		return;
	}
	done(arg, s, &none);
}

unsigned fake_release(void)
{
	static const struct sbx_err none;
	unsigned n = the_manager.n_held;

	fake.hold = false;
	for (unsigned i = 0; i < n; i++)
		the_manager.held[i].done(the_manager.held[i].arg, the_manager.held[i].sandbox, &none);
	the_manager.n_held = 0;
	return n;
}

static bool fails(sandbox_done *done, void *arg)
{
	struct sbx_err err = fake.fail_next;

	if (!err.code)
		return false;
	fake.fail_next.code = SBX_E_NONE;
	done(arg, NULL, &err);
	return true;
}

static struct sandbox *find(const uint8_t id[16], struct sbx_err *err)
{
	for (size_t i = 0; i < the_manager.n; i++)
		if (!memcmp(the_manager.list[i]->id, id, 16))
			return the_manager.list[i];
	sbx_err_set(err, SBX_E_SANDBOX_NOT_FOUND, 0, "no sandbox has this id");
	return NULL;
}

void sandbox_create(struct sandbox_manager *m, struct sandbox_spec *spec, sandbox_done *done, void *arg)
{
	struct sandbox *s = calloc(1, sizeof(*s));

	(void)m;
	if (!s)
		abort();
	if (fails(done, arg)) {
		sandbox_spec_free(spec);
		free(s);
		return;
	}
	if (the_manager.n == FAKE_SANDBOXES_MAX)
		remove_at(0);
	s->spec = *spec;
	*spec = (struct sandbox_spec){0};
	/* ids that can be foretold: 00000000-0000-4000-8000-<count> */
	s->id[6] = 0x40;
	s->id[8] = 0x80;
	s->id[15] = (uint8_t)++fake.created;
	uuid_format(s->id, s->id_text);
	s->state = SANDBOX_RUNNING;
	snprintf(s->reason, sizeof(s->reason), "CONTAINER_RUNNING");
	s->created_wall_usec = FAKE_NOW_WALL_USEC + fake.created;
	s->transition_wall_usec = s->created_wall_usec;
	if (s->spec.timeout_s >= 0)
		s->expires_wall_usec = s->created_wall_usec + s->spec.timeout_s * 1000000;
	snprintf(s->execd_token, sizeof(s->execd_token), "exec-token-%u", fake.created);
	snprintf(s->egress_token, sizeof(s->egress_token), "egress-token-%u", fake.created);
	s->slot = fake.created;
	s->generation = 100 + fake.created;
	s->addr = 0x0ad50000u + fake.created;
	s->log_file = "/var/log/execd.log";
	the_manager.list[the_manager.n++] = s;
	fake.last = &s->spec;
	tell(s, false);
	end(done, arg, s);
}

void sandbox_delete(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	struct sbx_err err = {0};
	struct sandbox *s = find(id, &err);

	(void)m;
	if (!s) {
		done(arg, NULL, &err);
		return;
	}
	if (fails(done, arg))
		return;
	for (size_t i = 0; i < the_manager.n; i++) {
		if (the_manager.list[i] != s)
			continue;
		tell(s, true);
		remove_at(i);
		break;
	}
	end(done, arg, NULL);
}

static void move(const uint8_t id[16], enum sandbox_state from, enum sandbox_state to, enum sbx_err_code refusal,
		 sandbox_done *done, void *arg)
{
	struct sbx_err err = {0};
	struct sandbox *s = find(id, &err);

	if (s && s->state != from)
		sbx_err_set(&err, refusal, 0, "sandbox is %s", sandbox_state_name(s->state));
	if (err.code) {
		done(arg, NULL, &err);
		return;
	}
	if (fails(done, arg))
		return;
	s->state = to;
	snprintf(s->reason, sizeof(s->reason), to == SANDBOX_PAUSED ? "CONTAINER_PAUSED" : "CONTAINER_RUNNING");
	tell(s, false);
	end(done, arg, s);
}

void sandbox_pause(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	(void)m;
	move(id, SANDBOX_RUNNING, SANDBOX_PAUSED, SBX_E_NOT_RUNNING, done, arg);
}

void sandbox_resume(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	(void)m;
	move(id, SANDBOX_PAUSED, SANDBOX_RUNNING, SBX_E_NOT_PAUSED, done, arg);
}

const struct sandbox *sandbox_renew(struct sandbox_manager *m, const uint8_t id[16], int64_t expires_wall_usec, struct sbx_err *err)
{
	struct sandbox *s = find(id, err);

	(void)m;
	if (!s)
		return NULL;
	if (expires_wall_usec <= wall_usec())
		sbx_err_set(err, SBX_E_EXPIRATION_INVALID, 0, "the new expiry is not in the future");
	else if (!s->expires_wall_usec)
		sbx_err_set(err, SBX_E_EXPIRATION_MANUAL, 0, "the sandbox has no expiry");
	else
		s->expires_wall_usec = expires_wall_usec;
	return err->code ? NULL : s;
}

static void set_pair(struct sandbox_spec *spec, const char *key, const char *value)
{
	size_t i = 0;

	while (i < spec->n_metadata && strcmp(spec->metadata[i].key, key) != 0)
		i++;
	if (i < spec->n_metadata) {
		free(spec->metadata[i].key);
		free(spec->metadata[i].value);
		memmove(&spec->metadata[i], &spec->metadata[i + 1], (--spec->n_metadata - i) * sizeof(*spec->metadata));
	}
	if (!value)
		return;
	spec->metadata = realloc(spec->metadata, (spec->n_metadata + 1) * sizeof(*spec->metadata));
	if (!spec->metadata)
		abort();
	spec->metadata[spec->n_metadata++] = (struct sandbox_pair){.key = strdup(key), .value = strdup(value)};
}

const struct sandbox *sandbox_patch_metadata(struct sandbox_manager *m, const uint8_t id[16], const struct sandbox_pair *pairs,
					     size_t n, struct sbx_err *err)
{
	struct sandbox *s = find(id, err);

	(void)m;
	for (size_t i = 0; s && i < n; i++)
		set_pair(&s->spec, pairs[i].key, pairs[i].value);
	return s;
}

void sandbox_change_policy(struct sandbox_manager *m, const uint8_t id[16], sandbox_policy_make *make, sandbox_done *done, void *arg)
{
	struct sbx_err err = {0};
	struct sandbox *s = find(id, &err);
	struct policy *p;

	(void)m;
	if (!s) {
		done(arg, NULL, &err);
		return;
	}
	p = make(arg, s->spec.policy, &err);
	if (!p && err.code) {
		done(arg, NULL, &err);
		return;
	}
	if (fails(done, arg)) {
		policy_free(p);
		return;
	}
	if (p) {
		policy_free(s->spec.policy);
		s->spec.policy = p;
	}
	end(done, arg, s);
}

struct policy_link *sandbox_manager_link(struct sandbox_manager *m)
{
	(void)m;
	return NULL;
}

const struct policy *sandbox_effective_policy(const struct sandbox *sandbox)
{
	static struct policy *open;
	struct sbx_err err;

	if (!open) {
		open = policy_new(true);
		if (!open || policy_seal(open, &err))
			abort();
	}
	return sandbox->spec.policy ? sandbox->spec.policy : open;
}

void sandbox_denied(struct sandbox_manager *m, const uint8_t id[16], const char *line, size_t n)
{
	(void)m;
	(void)id;
	snprintf(fake.denied, sizeof(fake.denied), "%.*s", (int)n, line);
	fake.n_denied++;
}

const struct sandbox *sandbox_find(struct sandbox_manager *m, const uint8_t id[16], struct sbx_err *err)
{
	(void)m;
	return find(id, err);
}

const struct sandbox *sandbox_next(struct sandbox_manager *m, const struct sandbox *after)
{
	(void)m;
	for (size_t i = the_manager.n; i > 0; i--)
		if (!after || after == the_manager.list[i - 1])
			return after ? (i > 1 ? the_manager.list[i - 2] : NULL) : the_manager.list[i - 1];
	return NULL;
}

size_t sandbox_count(const struct sandbox_manager *m)
{
	return m->n;
}

void sandbox_open_exec(struct sandbox_manager *m, const uint8_t id[16], sandbox_fds_done *done, void *arg)
{
	static const struct sbx_err none;
	int fds[2];

	(void)m;
	(void)id;
	if (pipe(fds) < 0)
		abort();
	const int ends[2] = {fds[1], fds[0]};
	done(arg, ends, 2, &none);
}

void sandbox_open_socket(struct sandbox_manager *m, const uint8_t id[16], int family, sandbox_fds_done *done, void *arg)
{
	static const struct sbx_err none;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)m;
	(void)id;
	if (fd < 0) {
		struct sbx_err err = {0};

		sbx_err_set(&err, SBX_E_SYSTEM, errno, "socket");
		done(arg, NULL, 0, &err);
		return;
	}
	done(arg, &fd, 1, &none);
}

void sandbox_stat(struct sandbox_manager *m, const uint8_t id[16], sandbox_figures_done *done, void *arg)
{
	static const struct sbx_err none;
	struct sbx_err err = {0};
	const struct sandbox_figures figures = {.memory_bytes = 4096, .memory_limit_bytes = 8192, .cpu_usec = 7, .cpu_millicores = 500,
						.pids = 3, .mono_usec = 11};

	(void)m;
	if (find(id, &err))
		done(arg, &figures, &none);
	else
		done(arg, NULL, &err);
}

/* ---- the broker: answers at once, unless told to wait ---- */

static broker_client_done *held_unpack;
static void *held_unpack_arg;
static union broker_any held_reply;

void fake_unpacked(void)
{
	static const struct sbx_err none;

	fake.hold_unpack = false;
	held_unpack(held_unpack_arg, &held_reply, NULL, 0, &none);
}

int broker_client_call(struct broker_client *c, const void *msg, int fd, broker_client_done *done, void *arg, struct sbx_err *err)
{
	static const struct sbx_err none;
	const struct broker_head *head = msg;
	union broker_any reply = {.head = *head};

	(void)c;
	(void)fd;
	fake.broker_calls++;
	memcpy(&fake.last_request, msg, head->size);
	if (fake.fail_next.code) {
		*err = fake.fail_next;
		fake.fail_next.code = SBX_E_NONE;
		return -1;
	}
	if (head->op == BROKER_OP_ARCHIVE_INDEX) {
		reply.capture_reply.kind = 1; /* a root file system */
		fake.broker_calls--;
		done(arg, &reply, NULL, 0, &none);
		return 0;
	}
	if (head->op == BROKER_OP_LAYER_UNPACK)
		reply.layer_reply.bytes = fake.layer_bytes;
	if (head->op == BROKER_OP_HOST_ROW) {
		const struct broker_plain_req *req = msg;

		reply.host_reply.row = req->arg;
		reply.host_reply.last = req->arg == 1;
		reply.host_reply.verdict = req->arg == 1 ? BROKER_HOST_FAIL : BROKER_HOST_OK;
		snprintf(reply.host_reply.name, sizeof(reply.host_reply.name), "row.%u", req->arg);
		snprintf(reply.host_reply.found, sizeof(reply.host_reply.found), "seen");
		snprintf(reply.host_reply.costs, sizeof(reply.host_reply.costs), "%s", req->arg == 1 ? "much" : "");
	}
	if (head->op == BROKER_OP_LAYER_UNPACK && fake.hold_unpack) {
		held_unpack = done;
		held_unpack_arg = arg;
		held_reply = reply;
		return 0;
	}
	done(arg, &reply, NULL, 0, &none);
	return 0;
}

void sandbox_hold(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg)
{
	sandbox_pause(m, id, done, arg);
}

void sandbox_release(struct sandbox_manager *m, const uint8_t id[16])
{
	(void)m, (void)id;
}

int broker_client_slot(struct broker_client *c, enum broker_op op, struct broker_slot_ref ref, uint32_t arg_value,
		       broker_client_done *done, void *arg, struct sbx_err *err)
{
	const struct broker_slot_req req = {.head = {.op = op, .size = sizeof(req)}, .ref = ref, .arg = arg_value};

	return broker_client_call(c, &req, -1, done, arg, err);
}
