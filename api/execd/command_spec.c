// SPDX-License-Identifier: Apache-2.0
#include "api/execd/command_spec.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"

#include <string.h>

#define BAD_BODY "error parsing request, MAYBE invalid body format. "
#define INVALID	 "invalid request, validation error "
#define MAX_ID	 65535u /* a sandbox has 65536 ids */

static int put_string(struct buf *out, const char *s, uint32_t *n_bytes, struct sbx_err *err)
{
	size_t n = strlen(s) + 1;

	if (n > LIMIT_SPAWN_STRING_BYTES)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "a string has %zu bytes, the kernel takes %u", n - 1,
				   LIMIT_SPAWN_STRING_BYTES - 1);
	if (n > LIMIT_SPAWN_BYTES - *n_bytes)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "command and environment have more than %u bytes",
				   LIMIT_SPAWN_BYTES);
	if (buf_append(out, s, n) < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "command");
	*n_bytes += (uint32_t)n;
	return 0;
}

static int put_env(struct buf *out, const struct command_pair *pair, uint32_t *n_bytes, struct sbx_err *err)
{
	auto_buf line = {0};

	buf_puts(&line, pair->name);
	buf_puts(&line, "=");
	buf_puts(&line, pair->value);
	const char *text = buf_str(&line);
	if (!text)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "command");
	return put_string(out, text, n_bytes, err);
}

int command_spec_payload(const struct command_spec *spec, const uint8_t id[AGENT_ID_BYTES], struct buf *out,
			 struct sbx_err *err)
{
	struct agent_exec exec;
	struct agent_spec head = {
		.n_args = 1,
		.n_env = (uint32_t)spec->n_env,
		.flags = spec->flags,
		.uid = spec->uid,
		.gid = spec->gid,
		.timeout_ms = spec->timeout_ms,
		.rows = spec->rows,
		.cols = spec->cols,
	};
	auto_buf strings = {0};

	if (spec->n_env > LIMIT_SPAWN_STRINGS)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "more than %u variables", LIMIT_SPAWN_STRINGS);
	memcpy(exec.id, id, sizeof(exec.id));
	if (put_string(&strings, spec->cwd ? spec->cwd : "", &head.string_bytes, err) < 0 ||
	    put_string(&strings, spec->command, &head.string_bytes, err) < 0)
		return -1;
	for (size_t i = 0; i < spec->n_env; i++)
		if (put_env(&strings, &spec->env[i], &head.string_bytes, err) < 0)
			return -1;
	if (buf_append(out, &exec, sizeof(exec)) < 0 || buf_append(out, &head, sizeof(head)) < 0 ||
	    buf_append(out, buf_peek(&strings), buf_used(&strings)) < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "command");
	return 0;
}

/* ---- JSON ---- */

static int get_string(const struct jv *root, const char *name, const char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_find(root, name);

	if (jv_is_set(v) && jv_type(v) != JV_STRING)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'%s' is %s, not a string", name,
				   jv_type_name(jv_type(v)));
	*ret = jv_is_set(v) ? jv_str(v) : NULL;
	return 0;
}

static int get_id(const struct jv *root, const char *name, uint32_t *ret, bool *ret_set, struct sbx_err *err)
{
	const struct jv *v = jv_find(root, name);
	int64_t value;

	*ret_set = jv_is_set(v);
	if (!*ret_set)
		return 0;
	if (jv_i64(v, &value) < 0 || value < 0 || value > UINT32_MAX)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'%s' is not a user or group number", name);
	if (value > MAX_ID)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'%s' is above %u, the last one of a sandbox", name, MAX_ID);
	*ret = (uint32_t)value;
	return 0;
}

static int get_identity(const struct jv *root, struct command_spec *spec, struct sbx_err *err)
{
	bool has_uid, has_gid;

	if (get_id(root, "uid", &spec->uid, &has_uid, err) < 0 || get_id(root, "gid", &spec->gid, &has_gid, err) < 0)
		return -1;
	if (has_gid && !has_uid)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "uid is required when gid is provided");
	spec->flags |= (has_uid ? AGENT_SPEC_UID : 0u) | (has_gid ? AGENT_SPEC_GID : 0u);
	return 0;
}

static int get_timeout(const struct jv *root, uint32_t *ret_ms, struct sbx_err *err)
{
	const struct jv *v = jv_find(root, "timeout");
	int64_t ms = 0;

	if (jv_is_set(v) && (jv_i64(v, &ms) < 0 || ms < 0))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'timeout' is not a number of milliseconds");
	*ret_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms; /* 49 days */
	return 0;
}

static int get_background(const struct jv *root, struct command_spec *spec, struct sbx_err *err)
{
	const struct jv *v = jv_find(root, "background");
	bool background = false;

	if (jv_is_set(v) && jv_bool(v, &background) < 0)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'background' is not a boolean");
	spec->flags |= background ? AGENT_SPEC_BACKGROUND : 0u;
	return 0;
}

static int get_env(const struct jv *root, struct command_pair **ret_env, size_t *ret_n, struct sbx_err *err)
{
	const struct jv *envs = jv_find(root, "envs");
	size_t n = 0;

	if (!jv_is_set(envs))
		return 0;
	if (jv_type(envs) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'envs' is not an object");
	auto_free struct command_pair *env = calloc(jv_count(envs) + 1, sizeof(*env));
	if (!env)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "command");
	for (const struct jv *v = jv_first(envs); v; v = jv_next(v)) {
		const char *name = jv_name(v);

		if (jv_type(v) == JV_NULL)
			continue;
		if (!jv_str(v))
			return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "a value of 'envs' is not a string");
		if (!*name || strchr(name, '='))
			return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "a name in 'envs' is empty or has a '='");
		env[n++] = (struct command_pair){name, jv_str(v)};
	}
	*ret_env = take_ptr(env);
	*ret_n = n;
	return 0;
}

int command_spec_from_json(const char *body, size_t n, const uint8_t id[AGENT_ID_BYTES], struct buf *out, bool *ret_background,
			   struct sbx_err *err)
{
	struct command_spec spec = {.flags = AGENT_SPEC_SHELL};
	auto_free struct command_pair *env = NULL;
	struct sbx_err parse_err;
	auto_jv root = jv_parse_first(body, n, &parse_err);

	if (!root)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "%.160s", parse_err.msg);
	if (jv_type(root) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "the body is not an object");
	if (get_string(root, "command", &spec.command, err) < 0 || get_string(root, "cwd", &spec.cwd, err) < 0 ||
	    get_identity(root, &spec, err) < 0 || get_timeout(root, &spec.timeout_ms, err) < 0 ||
	    get_background(root, &spec, err) < 0 || get_env(root, &env, &spec.n_env, err) < 0)
		return -1;
	if (!spec.command || !*spec.command)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'command' is required");
	if (spec.cwd && strlen(spec.cwd) >= LIMIT_PATH_BYTES)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, INVALID "'cwd' is longer than %u bytes", LIMIT_PATH_BYTES - 1);
	spec.env = env;
	*ret_background = spec.flags & AGENT_SPEC_BACKGROUND;
	return command_spec_payload(&spec, id, out, err);
}
