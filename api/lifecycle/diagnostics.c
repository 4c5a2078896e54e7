// SPDX-License-Identifier: Apache-2.0
/*
 * What people read about one sandbox.  All of it comes from the record; the output of the entrypoint lies inside the
 * sandbox and is fetched by the gateway, which has the channel to it.
 */
#include "api/lifecycle/lifecycle_api.h"

#include "api/lifecycle/lifecycle_int.h"
#include "api/render.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/wallclock.h"
#include "runtime/sandbox.h"

#include <string.h>

#define DEPRECATED "Deprecation: true\r\n"

static void put_instant(struct buf *out, const char *label, int64_t instant_wall_usec)
{
	char text[RFC3339_SIZE];

	rfc3339_format(instant_wall_usec, text);
	buf_printf(out, "%-14s %s\n", label, text);
}

/* Values come from clients: a control character in one would forge lines or drive the reader's terminal. */
static void put_clean(struct buf *out, const char *text)
{
	for (; *text; text++) {
		char c = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;

		buf_append(out, &c, 1);
	}
}

static void put_pair(struct buf *out, const char *key, const char *value)
{
	buf_puts(out, "  ");
	put_clean(out, key);
	buf_puts(out, "=");
	put_clean(out, render_is_secret_name(key) ? "***" : value);
	buf_puts(out, "\n");
}

static void put_resources(struct buf *out, const struct sandbox_spec *spec)
{
	buf_puts(out, "Resources:\n");
	if (spec->cpu_millicores)
		buf_printf(out, "  cpu          %u.%02u cores\n", spec->cpu_millicores / 1000, spec->cpu_millicores % 1000 / 10);
	else
		buf_puts(out, "  cpu          default\n");
	if (spec->memory_bytes)
		buf_printf(out, "  memory       %llu MiB\n", (unsigned long long)(spec->memory_bytes >> 20));
	else
		buf_puts(out, "  memory       default\n");
	if (spec->pids_max)
		buf_printf(out, "  pids         %u\n", spec->pids_max);
	else
		buf_puts(out, "  pids         default\n");
	if (spec->disk_mib)
		buf_printf(out, "  disk         %u MiB\n", spec->disk_mib);
	else
		buf_puts(out, "  disk         no limit\n");
}

static void put_inspect(struct buf *out, const struct sandbox *s)
{
	const struct sandbox_spec *spec = &s->spec;
	bool paused = s->state == SANDBOX_PAUSED || s->state == SANDBOX_PAUSING || s->state == SANDBOX_RESUMING;

	buf_printf(out, "%-14s %.12s\n", "ID:", s->id_text);
	buf_printf(out, "%-14s sandbox-%s\n", "Name:", s->id_text);
	buf_printf(out, "%-14s ", "Image:");
	put_clean(out, spec->image_uri ? spec->image_uri : "");
	buf_printf(out, "\n%-14s %s\n", "Status:", sandbox_state_name(s->state));
	buf_printf(out, "%-14s %s\n", "Running:", s->state == SANDBOX_RUNNING ? "true" : "false");
	buf_printf(out, "%-14s %s\n", "Paused:", paused ? "true" : "false");
	buf_printf(out, "%-14s %s\n", "Reason:", s->reason);
	buf_printf(out, "%-14s ", "Message:");
	put_clean(out, s->message);
	buf_puts(out, "\n");
	put_instant(out, "Created:", s->created_wall_usec);
	put_instant(out, "Changed:", s->transition_wall_usec);
	if (s->expires_wall_usec)
		put_instant(out, "Expires:", s->expires_wall_usec);
	buf_printf(out, "%-14s", "Entrypoint:");
	for (char *const *arg = spec->entrypoint; arg && *arg; arg++) {
		buf_puts(out, " ");
		put_clean(out, *arg);
	}
	buf_puts(out, "\n");
	put_resources(out, spec);
	buf_puts(out, "Network:\n");
	if (s->addr)
		buf_printf(out, "  eth0         %u.%u.%u.%u\n", s->addr >> 24, s->addr >> 16 & 255, s->addr >> 8 & 255, s->addr & 255);
	buf_puts(out, "Volumes:\n");
	for (size_t i = 0; i < spec->n_volumes; i++) {
		buf_puts(out, "  ");
		put_clean(out, spec->volumes[i].mount_path);
		buf_puts(out, " <- ");
		put_clean(out, spec->volumes[i].source);
		buf_puts(out, spec->volumes[i].read_only ? " (ro)\n" : " (rw)\n");
	}
	buf_puts(out, "Labels:\n");
	for (size_t i = 0; i < spec->n_metadata; i++)
		put_pair(out, spec->metadata[i].key, spec->metadata[i].value);
	buf_puts(out, "Environment:\n");
	for (size_t i = 0; i < spec->n_env; i++)
		put_pair(out, spec->env[i].key, spec->env[i].value);
}

static void put_events(struct buf *out, const struct sandbox *s)
{
	char created[RFC3339_SIZE], changed[RFC3339_SIZE];

	rfc3339_format(s->created_wall_usec, created);
	rfc3339_format(s->transition_wall_usec, changed);
	buf_printf(out, "%s  created   image ", created);
	put_clean(out, s->spec.image_uri ? s->spec.image_uri : "");
	buf_printf(out, "\n%s  %-9s %s", changed, sandbox_state_name(s->state), s->reason);
	if (s->message[0]) {
		buf_puts(out, ": ");
		put_clean(out, s->message);
	}
	buf_puts(out, "\n");
}

static bool wants_scope(struct api_call *call, char **ret_scope, bool *answered)
{
	*answered = lifecycle_query_text(call, "scope", ret_scope) < 0;
	return !*answered && *ret_scope;
}

void lifecycle_api_logs(struct api_call *call)
{
	auto_free char *since = NULL;

	/* the plain text form never gets here: the gateway reads the entrypoint's output through the agent */
	if (!lifecycle_find(call) || lifecycle_query_text(call, "since", &since) < 0)
		return;
	if (since)
		api_reply_code(call, SBX_E_API_NOT_SUPPORTED, "since: the output carries no time stamps; use tail");
	else
		api_reply_code(call, SBX_E_DIAGNOSTICS_UNSUPPORTED, "logs by scope are not offered; ask without scope");
}

/* An inspect that waits for the figures of the cgroup; the text is ready but for them. */
struct inspect {
	struct api_call *call;
	struct buf text;
};

static void inspect_figures(void *arg, const struct sandbox_figures *f, const struct sbx_err *err)
{
	struct inspect *step = arg;

	/* a sandbox that ended has none: the text says so by not having the section */
	if (!err->code) {
		buf_printf(&step->text, "Usage:\n  memory       %llu MiB\n  peak         %llu MiB\n  processes    %u\n",
			   (unsigned long long)(f->memory_bytes >> 20), (unsigned long long)(f->memory_peak_bytes >> 20), f->pids);
		if (f->disk_used_bytes || f->disk_limit_bytes)
			buf_printf(&step->text, "  disk         %llu of %llu MiB, %llu of %llu inodes\n", (unsigned long long)(f->disk_used_bytes >> 20),
				   (unsigned long long)(f->disk_limit_bytes >> 20), (unsigned long long)f->disk_used_inodes,
				   (unsigned long long)f->disk_limit_inodes);
		buf_printf(&step->text, "OOM kills:     %llu\n", (unsigned long long)f->oom_kills);
	}
	api_reply_text(step->call, &step->text, "");
	buf_free(&step->text);
	free(step);
}

void lifecycle_api_inspect(struct api_call *call)
{
	const struct sandbox *s = lifecycle_find(call);
	struct inspect *step;

	if (!s)
		return;
	step = calloc(1, sizeof(*step));
	if (!step) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	step->call = call;
	put_inspect(&step->text, s);
	sandbox_stat(call->context->manager, s->id, inspect_figures, step);
}

static void reply_events_json(struct api_call *call, const char *scope, struct buf *text)
{
	static const char *const scopes[] = {"container", "lifecycle", "runtime", "network", "process", "all"};
	auto_buf body = {0};
	struct jw w = {.out = &body};
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(scopes); i++)
		known |= !strcmp(scope, scopes[i]);
	if (!known) {
		api_reply_code(call, SBX_E_INVALID_REQUEST, "scope: container, lifecycle, runtime, network, process or all");
		return;
	}
	jw_object(&w);
	jw_key_str(&w, "sandboxId", call->param[0]);
	jw_key_str(&w, "kind", "events");
	jw_key_str(&w, "scope", scope);
	jw_key_str(&w, "delivery", "inline");
	jw_key_str(&w, "contentType", "text/plain; charset=utf-8");
	jw_key(&w, "content");
	/* the record knows of the sandbox's life only: of its network and processes there is nothing to tell */
	bool other = !strcmp(scope, "network") || !strcmp(scope, "process");
	jw_strn(&w, other ? "" : buf_peek(text), other ? 0 : buf_used(text));
	jw_key_bool(&w, "truncated", false);
	jw_object_end(&w);
	api_reply_json(call, 200, &body);
}

void lifecycle_api_events(struct api_call *call)
{
	auto_free char *scope = NULL;
	auto_buf out = {0};
	uint32_t limit = 50;
	bool answered;
	bool by_scope = wants_scope(call, &scope, &answered);

	if (answered || lifecycle_query_count(call, "limit", 1, 500, &limit) < 0)
		return;
	const struct sandbox *s = lifecycle_find(call);
	if (!s)
		return;
	put_events(&out, s);
	if (by_scope)
		reply_events_json(call, scope, &out);
	else
		api_reply_text(call, &out, DEPRECATED);
}

void lifecycle_api_summary(struct api_call *call)
{
	uint32_t tail = 50, limit = 20;
	auto_buf out = {0};

	if (lifecycle_query_count(call, "tail", 1, 10000, &tail) < 0 ||
	    lifecycle_query_count(call, "event_limit", 1, 500, &limit) < 0)
		return;
	const struct sandbox *s = lifecycle_find(call);
	if (!s)
		return;
	buf_printf(&out, "==== sandbox %s ====\n\n---- INSPECT ----\n", s->id_text);
	put_inspect(&out, s);
	buf_puts(&out, "\n---- EVENTS ----\n");
	put_events(&out, s);
	buf_printf(&out, "\n---- LOGS ----\nsee /sandboxes/%s/diagnostics/logs\n", s->id_text);
	api_reply_text(call, &out, "");
}
