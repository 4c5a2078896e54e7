// SPDX-License-Identifier: Apache-2.0
#include "runtime/sandbox_int.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/wallclock.h"

#include <errno.h>
#include <string.h>

static void close_fds(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close_keep_errno(fds[i]);
}

/* ---- renew, metadata ---- */

const struct sandbox *sandbox_renew(struct sandbox_manager *m, const uint8_t id[16], int64_t expires_wall_usec, struct sbx_err *err)
{
	struct sandbox_entry *e = manager_entry(m, id);

	if (!e)
		return sandbox_find(m, id, err);
	if (expires_wall_usec <= wall_usec()) {
		sbx_err_set(err, SBX_E_EXPIRATION_INVALID, 0, "expiresAt is not in the future");
		return NULL;
	}
	if (!e->pub.expires_wall_usec) {
		sbx_err_set(err, SBX_E_EXPIRATION_MANUAL, 0, "sandbox %s never expires", e->pub.id_text);
		return NULL;
	}
	if (e->pub.state == SANDBOX_STOPPING)
		return sandbox_find(m, id, err);
	int64_t before = e->pub.expires_wall_usec;
	e->pub.expires_wall_usec = expires_wall_usec;
	if (entry_write(e, false, err) < 0) {
		e->pub.expires_wall_usec = before;
		return NULL;
	}
	if (expiry_set(m->expiry, &e->expiry, expires_wall_usec) < 0) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "renew a sandbox");
		return NULL;
	}
	return &e->pub;
}

static const struct sandbox_pair *find_pair(const struct sandbox_pair *pairs, size_t n, const char *key)
{
	/* The last one of a name counts. */
	for (size_t i = n; i; i--)
		if (!strcmp(pairs[i - 1].key, key))
			return &pairs[i - 1];
	return NULL;
}

static int add_pair(struct sandbox_pair *to, size_t *n, const char *key, const char *value)
{
	to[*n] = (struct sandbox_pair){strdup(key), strdup(value)};
	(*n)++;
	return to[*n - 1].key && to[*n - 1].value ? 0 : -ENOMEM;
}

static int merge_pairs(const struct sandbox_spec *spec, const struct sandbox_pair *patch, size_t n_patch,
		       struct sandbox_pair **ret, size_t *ret_n)
{
	struct sandbox_pair *out = calloc(spec->n_metadata + n_patch + 1, sizeof(*out));
	size_t n = 0;
	int r = out ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < spec->n_metadata; i++) {
		const struct sandbox_pair *old = &spec->metadata[i], *now = find_pair(patch, n_patch, old->key);
		if (!now || now->value)
			r = add_pair(out, &n, old->key, now ? now->value : old->value);
	}
	for (size_t i = 0; !r && i < n_patch; i++)
		if (find_pair(patch, n_patch, patch[i].key) == &patch[i] && patch[i].value &&
		    !find_pair(spec->metadata, spec->n_metadata, patch[i].key))
			r = add_pair(out, &n, patch[i].key, patch[i].value);
	if (r) {
		if (out)
			sandbox_pairs_free(out, n);
		return r;
	}
	*ret = out;
	*ret_n = n;
	return 0;
}

const struct sandbox *sandbox_patch_metadata(struct sandbox_manager *m, const uint8_t id[16], const struct sandbox_pair *pairs,
					     size_t n, struct sbx_err *err)
{
	struct sandbox_entry *e = manager_entry(m, id);
	struct sandbox_pair *merged = NULL;
	size_t n_merged = 0;

	if (!e || e->pub.state == SANDBOX_STOPPING)
		return sandbox_find(m, id, err);
	struct sandbox_spec *spec = &e->pub.spec;
	if (merge_pairs(spec, pairs, n, &merged, &n_merged) < 0) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "metadata");
		return NULL;
	}
	if (n_merged > LIMIT_METADATA && n_merged > spec->n_metadata) {
		sandbox_pairs_free(merged, n_merged);
		sbx_err_set(err, SBX_E_METADATA_LABEL, 0, "metadata: more than %u keys", LIMIT_METADATA);
		return NULL;
	}
	struct sandbox_pair *old = spec->metadata;
	size_t n_old = spec->n_metadata;
	spec->metadata = merged;
	spec->n_metadata = n_merged;
	if (entry_write(e, false, err) < 0) {
		spec->metadata = old;
		spec->n_metadata = n_old;
		sandbox_pairs_free(merged, n_merged);
		return NULL;
	}
	sandbox_pairs_free(old, n_old);
	return &e->pub;
}

/* ---- look-ups ---- */

const struct sandbox *sandbox_find(struct sandbox_manager *m, const uint8_t id[16], struct sbx_err *err)
{
	struct sandbox_entry *e = manager_entry(m, id);
	char text[UUID_SIZE];

	/* A sandbox that is being removed has no name any more; a second DELETE of it waits for the first all the same. */
	if (e && e->pub.state != SANDBOX_STOPPING)
		return &e->pub;
	uuid_format(id, text);
	sbx_err_set(err, SBX_E_SANDBOX_NOT_FOUND, 0, "sandbox %s not found", text);
	return NULL;
}

const struct sandbox *sandbox_next(struct sandbox_manager *m, const struct sandbox *after)
{
	/* pub is the first member */
	const struct sandbox_entry *e = after ? ((const struct sandbox_entry *)(uintptr_t)after)->older : m->newest;

	while (e && e->pub.state == SANDBOX_STOPPING)
		e = e->older;
	return e ? &e->pub : NULL;
}

size_t sandbox_count(const struct sandbox_manager *m)
{
	return m->n_entries;
}

/* ---- descriptors and figures ---- */

struct fds_call {
	struct sandbox_entry *e;
	sandbox_fds_done *done;
	void *arg;
};

static void on_fds(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct fds_call call = *(struct fds_call *)arg;

	(void)reply;
	free(arg);
	call.done(call.arg, fds, n_fds, err);
	ignore_result(entry_call_ended(call.e)); /* nothing follows */
}

/* The agent outlives the entrypoint until the sandbox is removed: what the entrypoint wrote can be read until then. */
static bool keeps_output(const struct sandbox_entry *e, enum broker_op op)
{
	return op == BROKER_OP_CHANNEL_OPEN && (e->pub.state == SANDBOX_TERMINATED || e->pub.state == SANDBOX_FAILED) &&
	       e->pub.slot != BROKER_NO_SLOT;
}

static void open_fds(struct sandbox_manager *m, const uint8_t id[16], enum broker_op op, uint32_t value, sandbox_fds_done *done,
		     void *arg)
{
	struct sbx_err err = {0};
	struct sandbox_entry *e = manager_entry(m, id);

	if (!e || e->pub.state == SANDBOX_STOPPING) {
		ignore_result(!sandbox_find(m, id, &err)); /* only the error is wanted */
	} else if (e->pub.state != SANDBOX_RUNNING && !keeps_output(e, op)) {
		sbx_err_set(&err, SBX_E_NOT_READY, 0, "sandbox %s is %s", e->pub.id_text, sandbox_state_name(e->pub.state));
	} else {
		struct fds_call *call = malloc(sizeof(*call));

		if (!call) {
			sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "open a channel");
		} else {
			*call = (struct fds_call){e, done, arg};
			e->n_calls++;
			if (broker_client_slot(m->broker, op, entry_ref(e), value, on_fds, call, &err) == 0)
				return;
			e->n_calls--;
			free(call);
		}
	}
	done(arg, NULL, 0, &err);
}

void sandbox_open_exec(struct sandbox_manager *m, const uint8_t id[16], sandbox_fds_done *done, void *arg)
{
	open_fds(m, id, BROKER_OP_CHANNEL_OPEN, BROKER_CHANNEL_EXEC, done, arg);
}

void sandbox_open_socket(struct sandbox_manager *m, const uint8_t id[16], int family, sandbox_fds_done *done, void *arg)
{
	open_fds(m, id, BROKER_OP_SOCKET_OPEN, (uint32_t)family, done, arg);
}

struct figures_call {
	struct sandbox_entry *e;
	sandbox_figures_done *done;
	void *arg;
};

static void on_stat(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct figures_call call = *(struct figures_call *)arg;
	struct sandbox_figures figures = {0};

	free(arg);
	close_fds(fds, n_fds);
	if (reply)
		figures = (struct sandbox_figures){
			.memory_bytes = reply->stat_reply.memory_bytes,
			.memory_limit_bytes = reply->stat_reply.memory_limit_bytes == UINT64_MAX ?
						      reply->stat_reply.host_memory_bytes :
						      reply->stat_reply.memory_limit_bytes,
			.memory_peak_bytes = reply->stat_reply.memory_peak_bytes,
			.cpu_usec = reply->stat_reply.cpu_usec,
			.oom_kills = reply->stat_reply.oom_kills,
			.cpu_millicores = reply->stat_reply.cpu_millicores ? reply->stat_reply.cpu_millicores :
									     reply->stat_reply.n_cpus * 1000,
			.pids = reply->stat_reply.pids,
			.disk_used_bytes = reply->stat_reply.disk_used_bytes,
			.disk_limit_bytes = reply->stat_reply.disk_limit_bytes,
			.disk_used_inodes = reply->stat_reply.disk_used_inodes,
			.disk_limit_inodes = reply->stat_reply.disk_limit_inodes,
			.mono_usec = (int64_t)mono_usec(),
		};
	call.done(call.arg, err->code ? NULL : &figures, err);
	ignore_result(entry_call_ended(call.e)); /* nothing follows */
}

void sandbox_stat(struct sandbox_manager *m, const uint8_t id[16], sandbox_figures_done *done, void *arg)
{
	struct sbx_err err = {0};
	struct sandbox_entry *e = manager_entry(m, id);
	struct figures_call *call = NULL;

	if (!e || e->pub.state == SANDBOX_STOPPING)
		ignore_result(!sandbox_find(m, id, &err)); /* only the error is wanted */
	else if (e->pub.slot == BROKER_NO_SLOT)
		sbx_err_set(&err, SBX_E_NOT_READY, 0, "sandbox %s is %s", e->pub.id_text, sandbox_state_name(e->pub.state));
	else if (!(call = malloc(sizeof(*call))))
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "figures");
	if (call) {
		*call = (struct figures_call){e, done, arg};
		e->n_calls++;
		if (broker_client_slot(m->broker, BROKER_OP_SANDBOX_STAT, entry_ref(e), 0, on_stat, call, &err) == 0)
			return;
		e->n_calls--;
		free(call);
	}
	done(arg, NULL, &err);
}
