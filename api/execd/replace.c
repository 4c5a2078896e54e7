// SPDX-License-Identifier: Apache-2.0
/*
 * POST /files/replace: {"path": {"old": ..., "new": ...}, ...}, any number of files in one request.
 *
 *	body, in pieces ---> members, each read as a JSON text of its own ---> items
 *	end of the body ---> FS REPLACE, one child for all of them; items go to it as the content of an upload does
 *	                <--- a count for each file, END
 *
 * Nothing is replaced before the whole body was found acceptable.  No turn of the loop does more than one piece of the body, of the
 * items or of the answer: a request for 100,000 files holds up no other.
 */
#include "api/execd/execd_int.h"
#include "api/execd/fs_call.h"
#include "api/execd/members.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/num.h"

#include <string.h>

#define BAD_BODY    "error parsing request, MAYBE invalid body format. "
/* Of one request, as the agent gets them: some 150,000 files. */
#define ITEMS_BYTES (16u * 1024 * 1024)
/* Of all requests that are under way. */
#define HELD_BYTES  (64u * 1024 * 1024)
/* An answer with more members is not sorted: that would take too long. */
#define SORT_MAX    4096u
/* So much of the answer is made at once. */
#define ANSWER_STEP (32u * 1024)
#define PROBES_MAX  512u

struct replace {
	struct execd_box *box;
	struct http_request *req;
	struct agent_stream *stream;
	struct loop_timer *go_on; /* owned; the next step of the answer */
	struct members members; /* of the body */
	struct buf items;  /* struct agent_fs_replace, path, old text, new text */
	size_t sent, n_items, answered;
	uint32_t *names; /* owned; open addressing: offset of an item + 1 */
	size_t n_names;	 /* a power of two */
	uint64_t seed;
	struct buf counts; /* uint64_t each */
	uint32_t *order;   /* owned; offsets of the items, as they are answered */
	struct buf answer;
	bool verbose;
};

static size_t held_bytes;

static void replace_free(struct replace *r)
{
	held_bytes -= buf_used(&r->items);
	loop_timer_free(r->go_on);
	execd_box_unref(r->box);
	members_clear(&r->members);
	buf_free(&r->items);
	buf_free(&r->counts);
	buf_free(&r->answer);
	free(r->names);
	free(r->order);
	free(r);
}

/* Files that were done stay so. */
static void replace_refuse(struct replace *r, const struct sbx_err *err)
{
	agent_stream_detach(r->stream);
	execd_respond_err(r->req, err);
	replace_free(r);
}

/* ---- items ---- */

static struct agent_fs_replace item_at(const struct replace *r, size_t offset)
{
	struct agent_fs_replace item;

	memcpy(&item, buf_peek(&r->items) + offset, sizeof(item));
	return item;
}

static const char *path_at(const struct replace *r, size_t offset)
{
	return buf_peek(&r->items) + offset + sizeof(struct agent_fs_replace);
}

static size_t behind(const struct replace *r, size_t offset)
{
	struct agent_fs_replace item = item_at(r, offset);

	return offset + sizeof(item) + item.path_bytes + item.old_bytes + item.new_bytes;
}

static uint64_t hash(const struct replace *r, const char *name)
{
	uint64_t h = r->seed;

	for (; *name; name++) {
		h = (h ^ (unsigned char)*name) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return h;
}

/* Return: 0, -EEXIST when the name is there, -E2BIG when too many fall together. */
static int name_add(struct replace *r, size_t offset)
{
	const char *name = path_at(r, offset);
	size_t at = hash(r, name) & (r->n_names - 1);

	for (unsigned probes = 0; probes < PROBES_MAX; probes++, at = (at + 1) & (r->n_names - 1)) {
		if (!r->names[at]) {
			r->names[at] = (uint32_t)offset + 1;
			return 0;
		}
		if (!strcmp(path_at(r, r->names[at] - 1), name))
			return -EEXIST;
	}
	return -E2BIG;
}

/* Keeps the table at most half full. */
static int names_grow(struct replace *r)
{
	if (r->n_names > 2 * r->n_items)
		return 0;
	uint32_t *old = r->names;
	size_t n_old = r->n_names;
	r->n_names = n_old ? 4 * n_old : 64;
	r->names = calloc(r->n_names, sizeof(*r->names));
	int err = r->names ? 0 : -ENOMEM;
	for (size_t i = 0; !err && i < n_old; i++)
		if (old[i])
			err = name_add(r, old[i] - 1);
	free(old);
	return err;
}

static int string_member(const struct jv *object, const char *name, const char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_find(object, name);

	if (jv_is_set(v) && !jv_str(v))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "'%s' is not a string", name);
	*ret = jv_is_set(v) ? jv_str(v) : "";
	return 0;
}

static int item_add(struct replace *r, const char *path, const char *old_text, const char *new_text, struct sbx_err *err)
{
	size_t offset = buf_used(&r->items), n_path = strlen(path) + 1, n_old = strlen(old_text), n_new = strlen(new_text);
	struct agent_fs_replace item = {.path_bytes = (uint32_t)n_path, .old_bytes = (uint32_t)n_old, .new_bytes = (uint32_t)n_new};
	size_t n = sizeof(item) + n_path + n_old + n_new;

	if (n_path > LIMIT_PATH_BYTES)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "a path is longer than %u bytes", LIMIT_PATH_BYTES - 1);
	if (n_path + n_old + n_new > LIMIT_SPAWN_BYTES)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "one file may have %u bytes of path and texts", LIMIT_SPAWN_BYTES);
	if (offset + n > ITEMS_BYTES)
		return sbx_err_set(err, SBX_E_TOO_LARGE, 0, "one request may hold %u bytes of paths and texts", ITEMS_BYTES);
	if (held_bytes + n > HELD_BYTES)
		return sbx_err_set(err, SBX_E_OVERLOADED, 0, "other replacements are under way: try again");
	buf_append(&r->items, &item, sizeof(item));
	buf_append(&r->items, path, n_path);
	buf_append(&r->items, old_text, n_old);
	buf_append(&r->items, new_text, n_new);
	held_bytes += buf_used(&r->items) - offset;
	int e = r->items.failed ? -ENOMEM : names_grow(r);
	if (!e)
		e = name_add(r, offset);
	r->n_items++;
	if (e == -EEXIST)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "JSON: the member \"%.64s\" occurs twice", path);
	return !e ? 0 :
	       e == -ENOMEM ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "replacement") :
			      sbx_err_set(err, SBX_E_EXECD_BODY, 0, "the paths cannot be told apart quickly enough");
}

static int add_member(void *arg, const struct jv *v, struct sbx_err *err)
{
	const char *old_text, *new_text;

	if (string_member(v, "old", &old_text, err) < 0 || string_member(v, "new", &new_text, err) < 0)
		return -1;
	if (!*old_text)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "old content must not be empty");
	return item_add(arg, jv_name(v), old_text, new_text, err);
}

/* ---- the answer ---- */

static int by_path(const void *a, const void *b, void *arg)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return strcmp(path_at(arg, x), path_at(arg, y));
}

static uint64_t count_of(const struct replace *r, size_t i)
{
	uint64_t count;

	memcpy(&count, buf_peek(&r->counts) + i * sizeof(count), sizeof(count));
	return count;
}

/* Members one after the other, as far as the client takes them and one step at a time. */
static void answer_on(void *arg)
{
	struct replace *r = arg;

	if (http_response_queued(r->req) > HTTP_QUEUE_HIGH_BYTES)
		return; /* `writable` comes */
	buf_clear(&r->answer);
	if (!r->answered)
		buf_puts(&r->answer, "{");
	while (r->answered < r->n_items && buf_used(&r->answer) < ANSWER_STEP) {
		auto_buf value = {0};
		struct jw w = {.out = &value};
		const char *path = path_at(r, r->order[2 * r->answered]);

		jw_object(&w);
		jw_key(&w, path);
		jw_object(&w);
		jw_key_u64(&w, "replacedCount", count_of(r, r->order[2 * r->answered + 1]));
		jw_object_end(&w);
		jw_object_end(&w);
		if (r->answered++)
			buf_puts(&r->answer, ",");
		if (!value.failed) /* without the outer brackets */
			buf_append(&r->answer, buf_peek(&value) + 1, buf_used(&value) - 2);
		r->answer.failed |= value.failed;
	}
	bool whole = r->answered == r->n_items;
	if (whole)
		buf_puts(&r->answer, "}");
	if (r->answer.failed) {
		if (http_response_begun(r->req))
			http_response_fail(r->req);
		else
			http_respond_code(r->req, SBX_E_NO_MEMORY, "out of memory");
		replace_free(r);
		return;
	}
	if (whole && !http_response_begun(r->req)) {
		execd_respond_json(r->req, &r->answer);
		replace_free(r);
		return;
	}
	if (!http_response_begun(r->req))
		http_response_begin(r->req, 200, "application/json; charset=utf-8", HTTP_NO_TEXT, -1);
	http_response_write(r->req, buf_peek(&r->answer), buf_used(&r->answer));
	if (whole) {
		http_response_end(r->req);
		replace_free(r);
		return;
	}
	loop_timer_arm(r->go_on, 0);
}

static void respond(struct replace *r)
{
	size_t offset = 0;

	if (!r->verbose) {
		execd_respond_empty(r->req);
		replace_free(r);
		return;
	}
	r->order = calloc(r->n_items + 1, 2 * sizeof(*r->order)); /* where the item is, which count is its */
	if (!r->order) {
		http_respond_code(r->req, SBX_E_NO_MEMORY, "out of memory");
		replace_free(r);
		return;
	}
	for (uint32_t i = 0; i < r->n_items; i++, offset = behind(r, offset)) {
		r->order[2 * i] = (uint32_t)offset;
		r->order[2 * i + 1] = i;
	}
	if (r->n_items <= SORT_MAX)
		qsort_r(r->order, r->n_items, 2 * sizeof(*r->order), by_path, r);
	answer_on(r);
}

/* ---- the agent ---- */

static void push(struct replace *r)
{
	size_t n = buf_used(&r->items) - r->sent;
	struct sbx_err err;

	if (!n)
		return; /* EOF was sent */
	ssize_t took = agent_stream_offer(r->stream, buf_peek(&r->items) + r->sent, n, &err);
	if (took < 0)
		return; /* `lost` comes */
	r->sent += (size_t)took;
	if ((size_t)took == n)
		agent_stream_control(r->stream, AGENT_EOF, 0);
}

static void on_writable(void *arg)
{
	push(arg);
}

static void on_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct replace *r = arg;
	struct sbx_err err;

	(void)type;
	if (buf_used(&r->counts) + n > r->n_items * sizeof(uint64_t) || buf_append(&r->counts, data, n) < 0) {
		sbx_err_set(&err, SBX_E_PROTOCOL, 0, "the agent of the sandbox tells of more files than there are");
		replace_refuse(r, &err);
		return;
	}
	agent_stream_grant(r->stream, n);
}

static void on_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct replace *r = arg;
	struct sbx_err err;

	r->stream = NULL;
	if (end->reason != AGENT_OK) {
		fs_map_errno(AGENT_FS_REPLACE, end, text, n, &err);
		replace_refuse(r, &err);
	} else if (buf_used(&r->counts) != r->n_items * sizeof(uint64_t)) {
		sbx_err_set(&err, SBX_E_PROTOCOL, 0, "the agent of the sandbox ended before the last file");
		replace_refuse(r, &err);
	} else {
		respond(r);
	}
}

static void on_lost(void *arg, const struct sbx_err *why)
{
	struct replace *r = arg;

	r->stream = NULL;
	replace_refuse(r, why);
}

/* ---- the request ---- */

static void replace_body(void *user, struct http_request *req, const char *data, size_t n)
{
	struct replace *r = user;
	struct sbx_err err;

	(void)req;
	if (members_feed(&r->members, data, n, &err) < 0)
		replace_refuse(r, &err);
}

static void replace_body_end(void *user, struct http_request *req)
{
	static const struct agent_stream_ops ops = {.writable = on_writable, .data = on_data, .ended = on_ended, .lost = on_lost};
	static const struct fs_request all = {.op = AGENT_FS_REPLACE};
	struct replace *r = user;
	struct agent_client *agent;
	auto_buf payload = {0};
	struct sbx_err err;

	(void)req;
	if (members_end(&r->members, &err) < 0) {
		replace_refuse(r, &err);
		return;
	}
	if (!r->n_items) {
		respond(r);
		return;
	}
	agent = execd_box_agent(r->box, &err);
	if (agent && !fs_request_payload(&all, &payload, &err))
		r->stream = agent_stream_open(agent, AGENT_FS, 0, buf_peek(&payload), buf_used(&payload), &ops, r, &err);
	if (r->stream)
		push(r);
	else
		replace_refuse(r, &err);
}

static void replace_writable(void *user, struct http_request *req)
{
	struct replace *r = user;

	(void)req;
	if (r->order && !loop_timer_armed(r->go_on))
		loop_timer_arm(r->go_on, 0);
}

static void replace_abort(void *user, struct http_request *req)
{
	struct replace *r = user;

	(void)req;
	agent_stream_detach(r->stream);
	replace_free(r);
}

void files_replace(const struct execd_match *match)
{
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.body = replace_body, .body_end = replace_body_end, .writable = replace_writable, .abort = replace_abort};
	auto_free char *verbose = NULL;

	if (!execd_query_one(match->call, "verbose", &verbose))
		return;
	struct replace *r = calloc(1, sizeof(*r));
	if (r) {
		*r = (struct replace){.box = execd_box_ref(match->box), .req = match->call->req};
		r->members = (struct members){.each = add_member, .arg = r, .text_max = EXECD_BODY_BYTES};
		r->verbose = verbose && !strcmp(verbose, "true");
		random_bytes(&r->seed, sizeof(r->seed));
		r->go_on = loop_timer_new(match->box->x->loop, answer_on, r);
	}
	if (!r || !r->go_on) {
		if (r)
			replace_free(r);
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	http_request_accept(r->req, &ops, r);
}
