// SPDX-License-Identifier: Apache-2.0
#include "api/execd/jupyter_msg.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define VERSION "5.3"

static const char *const kind_names[] = {
	[JUPYTER_NOTHING] = "nothing", [JUPYTER_STDOUT] = "stdout",	[JUPYTER_STDERR] = "stderr",
	[JUPYTER_RESULT] = "result",   [JUPYTER_DISPLAY] = "display",	[JUPYTER_ERROR] = "error",
	[JUPYTER_REPLY] = "reply",     [JUPYTER_REPLY_ERROR] = "reply with an error", [JUPYTER_IDLE] = "idle",
	[JUPYTER_INFO] = "info",       [JUPYTER_DEAD] = "dead",		[JUPYTER_BAD] = "bad",
};
static_assert(ARRAY_SIZE(kind_names) == JUPYTER_KIND_COUNT, "a name for each kind");

const char *jupyter_kind_name(enum jupyter_kind kind)
{
	return kind < JUPYTER_KIND_COUNT ? kind_names[kind] : "?";
}

/* ---- reading ---- */

static int unit_of(const char *at, size_t n)
{
	int value = 0;

	if (n < 6 || at[0] != '\\' || at[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++) {
		int digit = hex_digit(at[i]);

		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/* Code may print a NUL or half of a surrogate pair, and a kernel passes it on: our reader would refuse the whole message. */
static void mend_escapes(char *text, size_t n)
{
	for (size_t i = 0; i < n;) {
		int unit = text[i] == '\\' ? unit_of(text + i, n - i) : -1;

		if (unit < 0) {
			i += text[i] == '\\' ? 2 : 1;
			continue;
		}
		bool high = unit >= 0xd800 && unit < 0xdc00, low = unit >= 0xdc00 && unit < 0xe000;
		int second = high ? unit_of(text + i + 6, n - i - 6) : -1;
		if (second >= 0xdc00 && second < 0xe000)
			i += 6;
		else if (high || low || !unit)
			memcpy(text + i + 2, "fffd", 4);
		i += 6;
	}
}

static struct jv *read_json(char *text, size_t n, struct sbx_err *err)
{
	mend_escapes(text, n);
	return jv_parse(text, n, err);
}

static void put_string(struct buf *out, const char *text, size_t n)
{
	uint8_t size[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};

	buf_append(out, size, sizeof(size));
	buf_append(out, text, n);
}

static void put_text(struct buf *out, const char *text)
{
	put_string(out, text, strlen(text));
}

/* Clients take strings only: what is JSON becomes its text. */
static void put_bundle(struct buf *out, const struct jv *data)
{
	for (const struct jv *m = jv_first(data); m; m = jv_next(m)) {
		auto_buf text = {0};
		struct jw w = {.out = &text};

		put_text(out, jv_name(m));
		if (jv_str(m)) {
			put_text(out, jv_str(m));
			continue;
		}
		jw_value(&w, m);
		put_string(out, buf_peek(&text), buf_used(&text));
		out->failed |= text.failed;
	}
}

static const char *text_of(const struct jv *object, const char *name, const char *otherwise)
{
	const char *text = jv_str(jv_get(object, name));

	return text ? text : otherwise;
}

static void put_error(struct buf *out, const struct jv *content)
{
	put_text(out, text_of(content, "ename", !strcmp(text_of(content, "status", ""), "aborted") ? "Aborted" : "Error"));
	put_text(out, text_of(content, "evalue", ""));
	for (const struct jv *line = jv_first(jv_get(content, "traceback")); line; line = jv_next(line))
		if (jv_str(line))
			put_text(out, jv_str(line));
}

static enum jupyter_kind read_output(const char *type, const struct jv *content, struct buf *payload)
{
	if (!strcmp(type, "stream")) {
		const char *text = text_of(content, "text", "");

		buf_puts(payload, text);
		return strcmp(text_of(content, "name", ""), "stderr") ? JUPYTER_STDOUT : JUPYTER_STDERR;
	}
	if (!strcmp(type, "execute_result") || !strcmp(type, "display_data") || !strcmp(type, "update_display_data")) {
		put_bundle(payload, jv_get(content, "data"));
		return *type == 'e' ? JUPYTER_RESULT : JUPYTER_DISPLAY;
	}
	if (!strcmp(type, "error")) {
		put_error(payload, content);
		return JUPYTER_ERROR;
	}
	if (!strcmp(type, "status") && !strcmp(text_of(content, "execution_state", ""), "idle"))
		return JUPYTER_IDLE;
	return JUPYTER_NOTHING;
}

static enum jupyter_kind read_reply(const char *type, const struct jv *content, struct buf *payload)
{
	if (!strcmp(type, "kernel_info_reply"))
		return JUPYTER_INFO;
	if (strcmp(type, "execute_reply") != 0)
		return JUPYTER_NOTHING;
	if (!strcmp(text_of(content, "status", "ok"), "ok"))
		return JUPYTER_REPLY;
	put_error(payload, content);
	return JUPYTER_REPLY_ERROR;
}

static enum jupyter_kind read_message(const struct jv *root, const char *parent, struct buf *payload)
{
	const char *type = text_of(jv_get(root, "header"), "msg_type", text_of(root, "msg_type", ""));
	const char *channel = text_of(root, "channel", "");
	const struct jv *content = jv_get(root, "content");
	const char *state = text_of(content, "execution_state", "");

	/* of the server itself, about no request */
	if (!strcmp(channel, "iopub") && !strcmp(type, "status") && (!strcmp(state, "dead") || !strcmp(state, "restarting"))) {
		buf_puts(payload, state);
		return JUPYTER_DEAD;
	}
	if (strcmp(text_of(jv_get(root, "parent_header"), "msg_id", ""), parent) != 0)
		return JUPYTER_NOTHING;
	if (!strcmp(channel, "iopub"))
		return read_output(type, content, payload);
	return strcmp(channel, "shell") ? JUPYTER_NOTHING : read_reply(type, content, payload);
}

enum jupyter_kind jupyter_msg_read(char *text, size_t n, const char *parent, struct buf *payload)
{
	struct sbx_err err;
	auto_jv root = read_json(text, n, &err);

	if (!root || jv_type(root) != JV_OBJECT) {
		buf_puts(payload, root ? "it is no object" : err.msg);
		return JUPYTER_BAD;
	}
	enum jupyter_kind kind = read_message(root, parent, payload);
	return payload->failed ? JUPYTER_BAD : kind;
}

/* ---- writing ---- */

static void begin_message(struct jw *w, const char *session, const char *id, const char *type)
{
	char date[RFC3339_SIZE];

	rfc3339_format(wall_usec(), date);
	jw_object(w);
	jw_key(w, "header");
	jw_object(w);
	jw_key_str(w, "msg_id", id);
	jw_key_str(w, "session", session);
	jw_key_str(w, "username", "sandbox");
	jw_key_str(w, "date", date);
	jw_key_str(w, "msg_type", type);
	jw_key_str(w, "version", VERSION);
	jw_object_end(w);
	jw_key(w, "parent_header");
	jw_object(w);
	jw_object_end(w);
	jw_key(w, "metadata");
	jw_object(w);
	jw_object_end(w);
	jw_key_str(w, "channel", "shell");
	jw_key(w, "buffers");
	jw_array(w);
	jw_array_end(w);
	jw_key(w, "content");
	jw_object(w);
}

static int end_message(struct jw *w)
{
	jw_object_end(w);
	jw_object_end(w);
	return w->out->failed ? -ENOMEM : 0;
}

int jupyter_msg_execute(struct buf *out, const char *session, const char *id, const char *code)
{
	struct jw w = {.out = out};

	begin_message(&w, session, id, "execute_request");
	jw_key_str(&w, "code", code);
	jw_key_bool(&w, "silent", false);
	jw_key_bool(&w, "store_history", true);
	jw_key(&w, "user_expressions");
	jw_object(&w);
	jw_object_end(&w);
	jw_key_bool(&w, "allow_stdin", false);
	/* nothing of ours waits behind it, and what comes right after an error must not be aborted with the queue */
	jw_key_bool(&w, "stop_on_error", false);
	return end_message(&w);
}

int jupyter_msg_info(struct buf *out, const char *session, const char *id)
{
	struct jw w = {.out = out};

	begin_message(&w, session, id, "kernel_info_request");
	return end_message(&w);
}

/* In front of the context's id in the name of its session.  What has another name belongs to somebody inside. */
#define OUR_NAME "sandboxd-"

int jupyter_msg_session(struct buf *out, const char *kernel, const char *path, const char *context)
{
	char name[sizeof(OUR_NAME) + UUID_SIZE];
	struct jw w = {.out = out};

	snprintf(name, sizeof(name), OUR_NAME "%s", context);

	jw_object(&w);
	jw_key_str(&w, "path", path);
	jw_key_str(&w, "name", name);
	jw_key_str(&w, "type", "notebook");
	jw_key(&w, "kernel");
	jw_object(&w);
	jw_key_str(&w, "name", kernel);
	jw_object_end(&w);
	jw_object_end(&w);
	return out->failed ? -ENOMEM : 0;
}

/* ---- REST ---- */

static bool take_name(const char *name, const char *more, size_t size, char *ret)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
	size_t n = name ? strlen(name) : 0;

	if (!n || n >= size)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!strchr(good, name[i]) && !strchr(more, name[i]))
			return false;
	memcpy(ret, name, n + 1);
	return true;
}

int jupyter_kernel_choose(char *body, size_t n, const char *language, char ret[JUPYTER_NAME_SIZE], struct sbx_err *err)
{
	struct sbx_err bad;
	auto_jv root = read_json(body, n, &bad);
	const struct jv *specs = jv_get(root, "kernelspecs");
	bool found = false;

	if (jv_type(specs) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, "the Jupyter server's list of kernels makes no sense%s%.80s",
				   root ? "" : ": ", root ? "" : bad.msg);
	for (const struct jv *spec = jv_first(specs); spec; spec = jv_next(spec)) {
		const char *has = text_of(jv_get(spec, "spec"), "language", "");
		bool spare = !strcmp(jv_name(spec), "python3");

		if (!strcasecmp(has, language) && !(found && spare) && take_name(jv_name(spec), "._", JUPYTER_NAME_SIZE, ret)) {
			found = true;
			if (!spare)
				break;
		}
	}
	return found ? 0 : sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, "the Jupyter server has no kernel of the language %.32s", language);
}

int jupyter_session_ids(char *body, size_t n, char ret_session[JUPYTER_ID_SIZE], char ret_kernel[JUPYTER_ID_SIZE], struct sbx_err *err)
{
	struct sbx_err bad;
	auto_jv root = read_json(body, n, &bad);

	if (take_name(jv_str(jv_get(root, "id")), "", JUPYTER_ID_SIZE, ret_session) &&
	    take_name(jv_str(jv_get(jv_get(root, "kernel"), "id")), "", JUPYTER_ID_SIZE, ret_kernel))
		return 0;
	return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, "the Jupyter server's answer about a session makes no sense%s%.80s",
			   root ? "" : ": ", root ? "" : bad.msg);
}

static bool is_ours(const struct jv *session, struct jupyter_ours *ret)
{
	const char *name = jv_str(jv_get(session, "name"));
	uint8_t raw[16];

	if (!name || strncmp(name, OUR_NAME, strlen(OUR_NAME)) != 0 || strlen(name) != strlen(OUR_NAME) + UUID_SIZE - 1 ||
	    uuid_parse(name + strlen(OUR_NAME), raw) < 0)
		return false;
	memcpy(ret->context, name + strlen(OUR_NAME), UUID_SIZE);
	return take_name(jv_str(jv_get(session, "id")), "", JUPYTER_ID_SIZE, ret->session);
}

size_t jupyter_sessions_ours(char *body, size_t n, struct jupyter_ours *ret, size_t max)
{
	struct sbx_err bad;
	auto_jv root = read_json(body, n, &bad);
	size_t found = 0;

	if (!root || jv_type(root) != JV_ARRAY)
		return 0;
	for (const struct jv *v = jv_first(root); v && found < max; v = jv_next(v))
		found += jv_type(v) == JV_OBJECT && is_ours(v, &ret[found]);
	return found;
}
