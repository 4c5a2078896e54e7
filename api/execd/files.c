// SPDX-License-Identifier: Apache-2.0
#include "api/execd/execd_int.h"
#include "api/execd/file_info.h"
#include "api/execd/fs_call.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"

#include <errno.h>
#include <string.h>

#define BAD_BODY "error parsing request, MAYBE invalid body format. "
#define BAD_RECORD "the agent of the sandbox sent a malformed file record"
/* Deep enough for any tree that a client could read; the agent bounds what it walks. */
#define MAX_DEPTH 4096u

/* ---- repeated `path` parameters ---- */

static void free_strings(char **strings, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(strings[i]);
	free(strings);
}

/* Owned array of decoded values; the head's bound keeps it small.  Return: false with the request answered. */
static bool query_paths(const struct execd_call *call, char ***ret_paths, size_t *ret_n)
{
	struct http_text rest = execd_query(call), name, value;
	char **paths = NULL;
	size_t n = 0;

	while (http_next_query(&rest, &name, &value)) {
		char key[8];

		if (http_decode(name, true, key, sizeof(key)) < 0 || strcmp(key, "path"))
			continue;
		char **more = reallocarray(paths, n + 1, sizeof(*paths));
		paths = more ? more : paths;
		char *path = more ? malloc(value.len + 1) : NULL;
		if (!path) {
			free_strings(paths, n);
			http_respond_code(call->req, SBX_E_NO_MEMORY, "out of memory");
			return false;
		}
		paths[n++] = path;
		if (http_decode(value, true, path, value.len + 1) < 0) {
			free_strings(paths, n);
			http_respond_code(call->req, SBX_E_EXECD_BODY, "query parameter 'path' is not well-formed");
			return false;
		}
	}
	*ret_paths = paths;
	*ret_n = n;
	return true;
}

/* One request that names all paths of the query. */
static void delete_paths(const struct execd_match *match, const struct fs_call_ops *ops)
{
	char **paths;
	size_t n;
	struct sbx_err err;

	if (!query_paths(match->call, &paths, &n))
		return;
	if (!n) {
		http_respond_code(match->call->req, SBX_E_EXECD_MISSING_QUERY, "missing query parameter 'path'");
		return;
	}
	struct fs_call *call = fs_call_new(match, ops);
	struct fs_request r = {.op = ops->op, .strings = (const char *const *)paths, .n_strings = n};
	int added = call ? fs_call_add(call, &r, &err) : -1;
	free_strings(paths, n);
	if (!call)
		return;
	if (added < 0)
		fs_call_refuse(call, &err);
	else
		fs_call_start(call);
}

void files_delete(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {.op = AGENT_FS_UNLINK};

	delete_paths(match, &ops);
}

void files_remove_dirs(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {.op = AGENT_FS_RMTREE};

	delete_paths(match, &ops);
}

/* ---- info: an object keyed by the paths as asked, in byte order ---- */

static int info_data(struct fs_call *call, const uint8_t *data, size_t n, struct sbx_err *err)
{
	while (n) {
		struct file_info info;
		int used = file_info_read(data, n, &info);

		if (used < 0 || info.head.index >= call->n_names || buf_used(&call->parts[info.head.index]))
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, BAD_RECORD);
		struct jw w = {.out = &call->parts[info.head.index]};
		file_info_write(&w, &info);
		data += used;
		n -= (size_t)used;
	}
	return 0;
}

static int by_name(const void *a, const void *b, void *names)
{
	char *const *n = names;

	return strcmp(n[*(const size_t *)a], n[*(const size_t *)b]);
}

/* Members sorted, each name once: a path that was asked for twice has one answer. */
static void write_members(struct fs_call *call)
{
	size_t *order = calloc(call->n_names + 1, sizeof(*order));

	if (!order) {
		call->body.failed = true;
		return;
	}
	for (size_t i = 0; i < call->n_names; i++)
		order[i] = i;
	qsort_r(order, call->n_names, sizeof(*order), by_name, call->names);
	jw_object(&call->writer);
	for (size_t i = 0; i < call->n_names; i++) {
		const struct buf *part = &call->parts[order[i]];

		if (part->failed)
			call->body.failed = true;
		if (!buf_used(part) || (i && !strcmp(call->names[order[i]], call->names[order[i - 1]])))
			continue;
		jw_key(&call->writer, call->names[order[i]]);
		jw_raw(&call->writer, buf_peek(part), buf_used(part));
	}
	jw_object_end(&call->writer);
	free(order);
}

void files_info(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {.op = AGENT_FS_INFO, .data = info_data, .finish = write_members};
	struct sbx_err err;
	char **paths;
	size_t n;

	if (!query_paths(match->call, &paths, &n))
		return;
	if (!n) {
		struct buf empty = {0};

		buf_puts(&empty, "{}");
		execd_respond_json(match->call->req, &empty);
		buf_free(&empty);
		return;
	}
	struct fs_call *call = fs_call_new(match, &ops);
	if (!call) {
		free_strings(paths, n);
		return;
	}
	call->names = paths;
	call->n_names = n;
	call->parts = calloc(n, sizeof(*call->parts));
	struct fs_request r = {.op = AGENT_FS_INFO, .strings = (const char *const *)paths, .n_strings = n};
	if (!call->parts)
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "file request");
	if (!call->parts || fs_call_add(call, &r, &err) < 0)
		fs_call_refuse(call, &err);
	else
		fs_call_start(call);
}

/* ---- search and list: an array of records, as they come ---- */

static int records_data(struct fs_call *call, const uint8_t *data, size_t n, struct sbx_err *err)
{
	if (!call->writer.comma && !call->streaming && !buf_used(&call->body))
		jw_array(&call->writer);
	while (n) {
		struct file_info info;
		int used = file_info_read(data, n, &info);

		if (used < 0)
			return sbx_err_set(err, SBX_E_PROTOCOL, 0, BAD_RECORD);
		file_info_write(&call->writer, &info);
		data += used;
		n -= (size_t)used;
	}
	return 0;
}

static void records_finish(struct fs_call *call)
{
	if (!call->streaming && !buf_used(&call->body))
		jw_array(&call->writer);
	jw_array_end(&call->writer);
}

static void start_records(const struct execd_match *match, const struct fs_call_ops *ops, const struct fs_request *r)
{
	struct sbx_err err;
	struct fs_call *call = fs_call_new(match, ops);

	if (!call)
		return;
	if (fs_call_add(call, r, &err) < 0)
		fs_call_refuse(call, &err);
	else
		fs_call_start(call);
}

void files_search(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {.op = AGENT_FS_SEARCH, .data = records_data, .finish = records_finish};
	auto_free char *path = NULL, *pattern = NULL;

	if (!execd_query_path(match->call, "path", &path) || !execd_query_one(match->call, "pattern", &pattern))
		return;
	const char *strings[] = {path, pattern && *pattern ? pattern : "**"};
	struct fs_request r = {.op = AGENT_FS_SEARCH, .strings = strings, .n_strings = 2};
	start_records(match, &ops, &r);
}

void files_list(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {.op = AGENT_FS_LIST, .data = records_data, .finish = records_finish};
	auto_free char *path = NULL, *depth_text = NULL;
	uint32_t depth = 1;

	if (!execd_query_path(match->call, "path", &path) || !execd_query_one(match->call, "depth", &depth_text))
		return;
	if (depth_text && num_u32(depth_text, strlen(depth_text), UINT32_MAX, &depth) < 0) {
		http_respond_code(match->call->req, SBX_E_EXECD_BODY, "'depth' is not a number of levels");
		return;
	}
	const char *strings[] = {path};
	struct fs_request r = {.op = AGENT_FS_LIST,
			       .depth = depth < MAX_DEPTH ? depth : MAX_DEPTH,
			       .strings = strings,
			       .n_strings = 1};
	start_records(match, &ops, &r);
}

/* ---- bodies ---- */

static struct jv *parse_body(const char *body, size_t n, enum jv_type want, struct sbx_err *err)
{
	struct sbx_err why;
	struct jv *root = jv_parse_first(body, n, &why);

	if (!root) {
		sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "%.160s", why.msg);
		return NULL;
	}
	if (jv_type(root) == want || jv_type(root) == JV_NULL)
		return root;
	sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "the body is %s, not %s", jv_type_name(jv_type(root)),
		    jv_type_name(want));
	jv_free(root);
	return NULL;
}

/* An optional string member; "" when it is absent. */
static int optional_string(const struct jv *object, const char *name, const char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_find(object, name);

	if (jv_is_set(v) && !jv_str(v))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'%s' is not a string", name);
	*ret = jv_is_set(v) ? jv_str(v) : "";
	return 0;
}

static int required_string(const struct jv *object, const char *name, const char **ret, struct sbx_err *err)
{
	if (optional_string(object, name, ret, err) < 0)
		return -1;
	if (**ret)
		return 0;
	return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "invalid request, validation error '%s' is required", name);
}

/* ---- permissions and directories: {"path": {mode, owner, group}} ---- */

static int parse_modes(struct fs_call *call, const char *body, size_t n, struct sbx_err *err)
{
	auto_jv root = parse_body(body, n, JV_OBJECT, err);

	if (!root)
		return -1;
	for (const struct jv *v = jv_first(root); v; v = jv_next(v)) {
		const char *strings[3] = {jv_name(v)};
		struct fs_request r = {.op = call->ops->op, .strings = strings, .n_strings = 3};
		bool has_mode;

		if (jv_is_set(v) && jv_type(v) != JV_OBJECT)
			return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "the value of a path is not an object");
		if (!*strings[0])
			return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "invalid request, validation error a path is empty");
		if (optional_string(v, "owner", &strings[1], err) < 0 || optional_string(v, "group", &strings[2], err) < 0)
			return -1;
		int e = file_info_mode(jv_find(v, "mode"), &r.mode, &has_mode);
		if (e == -EBADMSG)
			return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'mode' is not a whole number");
		if (e < 0)
			return sbx_err_set(err, SBX_E_EXECD_RUNTIME, 0, "'mode' of %.120s is not octal digits", strings[0]);
		r.flags = has_mode ? AGENT_FS_HAS_MODE : 0;
		if (fs_call_add(call, &r, err) < 0)
			return -1;
	}
	return 0;
}

static void start_with_body(const struct execd_match *match, const struct fs_call_ops *ops)
{
	struct fs_call *call = fs_call_new(match, ops);

	if (call)
		fs_call_start(call);
}

void files_permissions(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {.op = AGENT_FS_CHMOD, .parse = parse_modes};

	start_with_body(match, &ops);
}

void files_make_dirs(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {.op = AGENT_FS_MKDIR, .parse = parse_modes};

	start_with_body(match, &ops);
}

/* ---- mv: [{src, dest}] ---- */

static int parse_moves(struct fs_call *call, const char *body, size_t n, struct sbx_err *err)
{
	auto_jv root = parse_body(body, n, JV_ARRAY, err);

	if (!root)
		return -1;
	for (const struct jv *v = jv_first(root); v; v = jv_next(v)) {
		const char *strings[2];
		struct fs_request r = {.op = AGENT_FS_MOVE, .strings = strings, .n_strings = 2};

		if (required_string(v, "src", &strings[0], err) < 0 || required_string(v, "dest", &strings[1], err) < 0 ||
		    fs_call_add(call, &r, err) < 0)
			return -1;
	}
	return 0;
}

void files_move(const struct execd_match *match)
{
	static const struct fs_call_ops ops = {.op = AGENT_FS_MOVE, .parse = parse_moves};

	start_with_body(match, &ops);
}
