// SPDX-License-Identifier: Apache-2.0
/*
 * POST /files/upload: pairs of a `metadata` part (JSON: path, owner, group, mode) and a `file` part, matched by order.
 *
 *	client          gateway                          agent
 *	metadata -----> queue of targets
 *	file ---------> FS WRITE, DATA... --------------> spools, then puts the file in place
 *	        <------ body paused while no credit <---- CREDIT
 *	end of part --> EOF ----------------------------> END; only then the next part is looked at
 *
 * Content is never kept here beyond INPUT_BYTES.  A file part whose metadata has not come yet goes to the agent without a
 * target, which is sent behind it (AGENT_FS_TARGET_LAST): until then the content lies in a file without a name inside, at the
 * sandbox's expense, and is gone with the request.
 */
#include "api/execd/execd_int.h"
#include "api/execd/file_info.h"
#include "api/execd/fs_call.h"
#include "api/execd/multipart.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"

#include <string.h>

/* Enough to keep the FIFO towards the agent filled. */
#define INPUT_BYTES	(128u * 1024)
/* Enough to see whether the end of the last piece began a boundary. */
#define JOIN_BYTES	256u
/* Content below this is copied. */
#define SPLICE_LEAST	(16u * 1024)
#define METADATA_BYTES	(32u * 1024)
#define PENDING_TARGETS 256u
/* Each holds a process inside and one of the sandbox's streams. */
#define PENDING_FILES	8u

enum part_kind { PART_OTHER = 0, PART_METADATA, PART_FILE };

/* A file whose metadata has not come, or has come and is being sent. */
struct late_file {
	struct upload *upload;
	struct agent_stream *stream;
	struct buf target; /* what is left to be sent */
};

struct upload {
	struct execd_box *box;
	struct http_request *req;
	struct agent_stream *stream; /* of the file part that is being read; maybe that of a late file */
	struct late_file late[PENDING_FILES]; /* ring; the first has its metadata when `waiting` */
	size_t first_late, n_late;
	struct multipart form;
	struct buf input;
	struct buf metadata; /* of the current part */
	struct buf *targets; /* owned ring: FS payloads of metadata whose file has not come */
	size_t first_target, n_targets;
	enum part_kind part;
	unsigned n_metadata, n_files;
	bool waiting;	 /* for the agent: END of a file */
	bool complete;	 /* the whole body is here */
	bool paused;
	bool stalled; /* the agent took less than it was offered; `writable` comes */
	bool copies;  /* content of this client cannot be spliced */
	uint64_t seen; /* bytes of the body that are dealt with */
};

static void upload_free(struct upload *u)
{
	for (size_t i = 0; u->targets && i < PENDING_TARGETS; i++)
		buf_free(&u->targets[i]);
	free(u->targets);
	for (size_t i = 0; i < PENDING_FILES; i++)
		buf_free(&u->late[i].target);
	buf_free(&u->input);
	buf_free(&u->metadata);
	execd_box_unref(u->box);
	free(u);
}

static struct late_file *late_at(struct upload *u, size_t i)
{
	return &u->late[(u->first_late + i) % PENDING_FILES];
}

/* Whether the file part that is being read has no metadata yet. */
static bool reads_late(struct upload *u)
{
	return u->n_late && u->stream && late_at(u, u->n_late - 1)->stream == u->stream;
}

static void give_up(struct upload *u)
{
	if (!reads_late(u))
		agent_stream_detach(u->stream);
	for (size_t i = 0; i < u->n_late; i++)
		agent_stream_detach(late_at(u, i)->stream);
}

/* What was written by earlier pairs stays; the file under way is given up. */
static void upload_refuse(struct upload *u, const struct sbx_err *err)
{
	give_up(u);
	execd_respond_err(u->req, err);
	upload_free(u);
}

/* ---- parts ---- */

static int string_member(const struct jv *object, const char *name, const char **ret, struct sbx_err *err)
{
	const struct jv *v = jv_find(object, name);

	if (jv_is_set(v) && !jv_str(v))
		return sbx_err_set(err, SBX_E_EXECD_FILE_METADATA, 0, "'%s' of the metadata is not a string", name);
	*ret = jv_is_set(v) ? jv_str(v) : "";
	return 0;
}

static int read_metadata(const struct buf *text, struct buf *payload, struct sbx_err *err)
{
	struct sbx_err why;
	auto_jv root = jv_parse_first(buf_peek(text), buf_used(text), &why);
	const char *strings[3];
	struct fs_request r = {.op = AGENT_FS_WRITE, .strings = strings, .n_strings = 3};
	bool has_mode;

	if (!root || jv_type(root) != JV_OBJECT)
		return sbx_err_set(err, SBX_E_EXECD_FILE_METADATA, 0, "the metadata is not a JSON object: %.120s",
				   root ? jv_type_name(jv_type(root)) : why.msg);
	if (string_member(root, "path", &strings[0], err) < 0 || string_member(root, "owner", &strings[1], err) < 0 ||
	    string_member(root, "group", &strings[2], err) < 0)
		return -1;
	if (!*strings[0])
		return sbx_err_set(err, SBX_E_EXECD_FILE_METADATA, 0, "metadata path is empty");
	int e = file_info_mode(jv_find(root, "mode"), &r.mode, &has_mode);
	if (e < 0)
		return sbx_err_set(err, e == -EBADMSG ? SBX_E_EXECD_FILE_METADATA : SBX_E_EXECD_RUNTIME, 0,
				   "'mode' of the metadata is not octal digits");
	r.flags = has_mode ? AGENT_FS_HAS_MODE : 0;
	return fs_request_payload(&r, payload, err);
}

/* Sends what is left of a late file's target, and the word that it is complete. */
static int late_push(struct late_file *f, struct sbx_err *err)
{
	while (buf_used(&f->target)) {
		ssize_t took = agent_stream_offer(f->stream, buf_peek(&f->target), buf_used(&f->target), err);

		if (took <= 0)
			return (int)took; /* `writable` comes */
		buf_consume(&f->target, (size_t)took);
	}
	agent_stream_control(f->stream, AGENT_EOF, 0);
	return 0;
}

static int late_target(struct upload *u, struct sbx_err *err)
{
	struct late_file *f = late_at(u, 0);

	if (read_metadata(&u->metadata, &f->target, err) < 0)
		return -1;
	buf_clear(&u->metadata);
	uint32_t n = (uint32_t)buf_used(&f->target);
	if (n > AGENT_FS_TARGET_MAX)
		return sbx_err_set(err, SBX_E_EXECD_FILE_METADATA, 0, "metadata is longer than %u bytes", AGENT_FS_TARGET_MAX);
	if (buf_append(&f->target, &n, sizeof(n)) < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "upload");
	u->n_metadata++;
	u->waiting = true;
	return late_push(f, err);
}

static int metadata_over(struct upload *u, struct sbx_err *err)
{
	if (u->n_late)
		return late_target(u, err);
	if (u->n_targets == PENDING_TARGETS)
		return sbx_err_set(err, SBX_E_EXECD_INVALID_FILE, 0, "more than %u metadata parts before their files",
				   PENDING_TARGETS);
	struct buf *payload = &u->targets[(u->first_target + u->n_targets) % PENDING_TARGETS];
	buf_clear(payload);
	if (read_metadata(&u->metadata, payload, err) < 0)
		return -1;
	u->n_targets++;
	u->n_metadata++;
	buf_clear(&u->metadata);
	return 0;
}

static void pump(struct upload *u);

static void file_writable(void *arg)
{
	struct upload *u = arg;

	bool in_socket = u->stalled && !buf_used(&u->input); /* what comes next */

	u->stalled = false;
	if (!in_socket) {
		pump(u);
		return;
	}
	u->paused = false;
	http_request_pull(u->req);
}

static void file_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct upload *u = arg;
	struct sbx_err err;

	u->stream = NULL;
	if (end->reason != AGENT_OK) {
		fs_map_errno(AGENT_FS_WRITE, end, text, n, &err);
		upload_refuse(u, &err);
		return;
	}
	if (!u->waiting) {
		sbx_err_set(&err, SBX_E_PROTOCOL, 0, "the agent of the sandbox ended a file before its end");
		upload_refuse(u, &err);
		return;
	}
	u->waiting = false;
	pump(u);
}

static void file_lost(void *arg, const struct sbx_err *why)
{
	struct upload *u = arg;

	u->stream = NULL;
	upload_refuse(u, why);
}

static void late_writable(void *arg)
{
	struct late_file *f = arg;
	struct upload *u = f->upload;
	struct sbx_err err;

	if (u->stream == f->stream)
		file_writable(u);
	else if (buf_used(&f->target) && late_push(f, &err) < 0)
		upload_refuse(u, &err);
}

static void late_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct late_file *f = arg;
	struct upload *u = f->upload;
	struct sbx_err err;

	if (u->stream == f->stream)
		u->stream = NULL;
	f->stream = NULL;
	if (end->reason != AGENT_OK || f != late_at(u, 0) || !u->waiting || buf_used(&f->target)) {
		if (end->reason != AGENT_OK)
			fs_map_errno(AGENT_FS_WRITE, end, text, n, &err);
		else
			sbx_err_set(&err, SBX_E_PROTOCOL, 0, "the agent of the sandbox ended a file before its end");
		upload_refuse(u, &err);
		return;
	}
	u->first_late = (u->first_late + 1) % PENDING_FILES;
	u->n_late--;
	u->waiting = false;
	pump(u);
}

static void late_lost(void *arg, const struct sbx_err *why)
{
	struct late_file *f = arg;
	struct upload *u = f->upload;

	if (u->stream == f->stream)
		u->stream = NULL;
	f->stream = NULL;
	upload_refuse(u, why);
}

/* The file comes before its metadata. */
static int late_begin(struct upload *u, struct agent_client *agent, struct sbx_err *err)
{
	static const struct agent_stream_ops ops = {.writable = late_writable, .ended = late_ended, .lost = late_lost};
	const struct fs_request r = {.op = AGENT_FS_WRITE, .flags = AGENT_FS_TARGET_LAST};
	auto_buf payload = {0};

	if (u->n_late == PENDING_FILES)
		return sbx_err_set(err, SBX_E_EXECD_INVALID_FILE, 0, "more than %u files before their metadata", PENDING_FILES);
	if (fs_request_payload(&r, &payload, err) < 0)
		return -1;
	struct late_file *f = late_at(u, u->n_late);
	f->upload = u;
	buf_clear(&f->target);
	f->stream = u->stream = agent_stream_open(agent, AGENT_FS, 0, buf_peek(&payload), buf_used(&payload), &ops, f, err);
	u->n_late += u->stream != NULL;
	return u->stream ? 0 : -1;
}

static int file_begin(struct upload *u, struct sbx_err *err)
{
	static const struct agent_stream_ops ops = {.writable = file_writable, .ended = file_ended, .lost = file_lost};
	struct agent_client *agent = execd_box_agent(u->box, err);

	u->n_files++;
	if (!agent)
		return -1;
	if (!u->n_targets)
		return late_begin(u, agent, err);
	struct buf *payload = &u->targets[u->first_target];
	struct agent_fs head;
	int64_t length = http_request_body_length(u->req);
	memcpy(&head, buf_peek(payload), sizeof(head));
	head.length = length > 0 ? (uint64_t)length - u->seen : 0; /* the most that can come; 0: not known */
	memcpy(payload->data + payload->head, &head, sizeof(head));
	u->stream = agent_stream_open(agent, AGENT_FS, 0, buf_peek(payload), buf_used(payload), &ops, u, err);
	buf_clear(payload);
	u->first_target = (u->first_target + 1) % PENDING_TARGETS;
	u->n_targets--;
	return u->stream ? 0 : -1;
}

static int part_begin(struct upload *u, struct sbx_err *err)
{
	u->part = PART_OTHER;
	buf_clear(&u->metadata);
	if (!strcmp(u->form.name, "metadata"))
		u->part = PART_METADATA;
	if (strcmp(u->form.name, "file"))
		return 0;
	u->part = PART_FILE;
	return file_begin(u, err);
}

/* Takes up to u->form.n bytes; *ret_taken is less when the agent has no credit for more. */
static int part_data(struct upload *u, size_t *ret_taken, struct sbx_err *err)
{
	size_t n = u->form.n;

	*ret_taken = n;
	if (u->part == PART_METADATA) {
		if (buf_used(&u->metadata) + n > METADATA_BYTES)
			return sbx_err_set(err, SBX_E_EXECD_FILE_METADATA, 0, "metadata is longer than %u bytes", METADATA_BYTES);
		return buf_append(&u->metadata, u->form.data, n) < 0 ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "upload") : 0;
	}
	if (u->part != PART_FILE)
		return 0;
	ssize_t took = agent_stream_offer(u->stream, u->form.data, n, err);
	if (took < 0)
		return -1;
	*ret_taken = (size_t)took;
	u->stalled = *ret_taken < n;
	return 0;
}

static int part_over(struct upload *u, struct sbx_err *err)
{
	enum part_kind part = u->part;

	u->part = PART_OTHER;
	if (part == PART_METADATA)
		return metadata_over(u, err);
	if (part == PART_FILE && reads_late(u)) {
		u->stream = NULL;
	} else if (part == PART_FILE) {
		u->waiting = true;
		agent_stream_control(u->stream, AGENT_EOF, 0);
	}
	return 0;
}

/* ---- the form ---- */

static void form_over(struct upload *u)
{
	struct sbx_err err = {0};

	if (!u->n_metadata)
		sbx_err_set(&err, SBX_E_EXECD_FILE_METADATA, 0, "metadata file is missing");
	else if (!u->n_files)
		sbx_err_set(&err, SBX_E_EXECD_FILE_CONTENT, 0, "file is missing");
	else if (u->n_metadata != u->n_files)
		sbx_err_set(&err, SBX_E_EXECD_INVALID_FILE, 0, "metadata and file count mismatch: %u vs %u", u->n_metadata,
			    u->n_files);
	if (err.code) {
		upload_refuse(u, &err);
		return;
	}
	execd_respond_empty(u->req);
	upload_free(u);
}

static int form_event(struct upload *u, enum multipart_event event, size_t *used, struct sbx_err *err)
{
	switch (event) {
	case MULTIPART_PART:
		return part_begin(u, err);
	case MULTIPART_DATA:
		return part_data(u, used, err);
	case MULTIPART_PART_END:
		return part_over(u, err);
	case MULTIPART_ERROR:
		return sbx_err_set(err, SBX_E_EXECD_INVALID_FILE, 0, "%s", u->form.wrong);
	case MULTIPART_NEED_MORE:
	case MULTIPART_END:
		break;
	}
	return 0;
}

static void read_more(struct upload *u)
{
	if (u->paused && buf_used(&u->input) < INPUT_BYTES / 2) {
		u->paused = false;
		http_request_resume(u->req);
	}
}

/*
 * Goes through @n bytes until input, credit or the agent's word is missing.  Return: false when the request is over and
 * @u gone; else *@ret_used are dealt with.
 */
static bool go_through(struct upload *u, const char *in, size_t n, size_t *ret_used)
{
	struct sbx_err err;

	*ret_used = 0;
	while (!u->waiting && !u->stalled) {
		size_t used = 0;
		enum multipart_event event = multipart_step(&u->form, in + *ret_used, n - *ret_used, &used);
		bool stuck = event == MULTIPART_NEED_MORE && !used;

		if (form_event(u, event, &used, &err) < 0) {
			upload_refuse(u, &err);
			return false;
		}
		*ret_used += used;
		u->seen += used;
		if (event == MULTIPART_END && u->complete) {
			form_over(u);
			return false;
		}
		if (stuck && u->complete) {
			sbx_err_set(&err, SBX_E_EXECD_INVALID_FILE, 0,
				    u->form.state == MULTIPART_PREAMBLE ? "multipart form is empty" : "the form is cut short");
			upload_refuse(u, &err);
			return false;
		}
		if (stuck || event == MULTIPART_END)
			break;
	}
	return true;
}

/* Goes on with what was kept. */
static void pump(struct upload *u)
{
	size_t n = buf_used(&u->input), used;

	if (!go_through(u, n ? buf_peek(&u->input) : "", n, &used))
		return;
	buf_consume(&u->input, used);
	read_more(u);
}

static bool keep(struct upload *u, const char *data, size_t n)
{
	struct sbx_err err;

	if (buf_append(&u->input, data, n) == 0)
		return true;
	sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "upload");
	upload_refuse(u, &err);
	return false;
}

/*
 * Content goes to the agent from where it was received.  Only what cannot go yet is kept: the end of a piece, which may be
 * the beginning of a boundary, and what the agent does not take now.
 */
static void upload_body(void *user, struct http_request *req, const char *data, size_t n)
{
	struct upload *u = user;
	size_t old = buf_used(&u->input), joined = n < JOIN_BYTES ? n : JOIN_BYTES, used;

	if (old) {
		/* what was kept, with enough behind it to see whether it begins a boundary */
		if (!keep(u, data, joined) || !go_through(u, buf_peek(&u->input), old + joined, &used))
			return;
		buf_consume(&u->input, used);
		size_t left = buf_used(&u->input);
		if (left <= joined) {
			data += joined - left;
			n -= joined - left;
			buf_clear(&u->input);
		} else {
			/* a head that is not complete, or nothing can go now */
			if (!keep(u, data + joined, n - joined) ||
			    !go_through(u, buf_peek(&u->input), buf_used(&u->input), &used))
				return;
			buf_consume(&u->input, used);
			n = 0;
		}
	}
	if (n) {
		if (!go_through(u, data, n, &used) || (n > used && !keep(u, data + used, n - used)))
			return;
	}
	if (buf_used(&u->input) >= INPUT_BYTES && !u->paused) {
		u->paused = true;
		http_request_pause(req);
	}
}

static ssize_t move_arrived(void *arg, int fd, size_t n)
{
	return http_request_splice(arg, fd, n);
}

/* Large content goes from the client's socket into the agent's pipe as it is; only its last bytes come by upload_body(). */
static void upload_arrived(void *user, struct http_request *req)
{
	struct upload *u = user;
	const char *data = "";

	if (u->copies || u->part != PART_FILE || buf_used(&u->input) || u->waiting || u->stalled)
		return;
	size_t credit = agent_stream_credit(u->stream);
	if (credit < SPLICE_LEAST) {
		u->stalled = u->paused = true;
		http_request_pause(req);
		return;
	}
	size_t n = http_request_peek(req, credit, &data);
	size_t plain = multipart_plain(&u->form, data, n);
	if (plain < SPLICE_LEAST)
		return;
	ssize_t took = agent_stream_splice(u->stream, move_arrived, req, plain);
	u->copies = took < 0;
	if (took < 0)
		return;
	u->seen += (size_t)took;
	u->stalled = (size_t)took < plain;
	if (u->stalled) {
		u->paused = true;
		http_request_pause(req);
	}
}

static void upload_body_end(void *user, struct http_request *req)
{
	struct upload *u = user;

	(void)req;
	u->complete = true;
	pump(u);
}

static void upload_abort(void *user, struct http_request *req)
{
	struct upload *u = user;

	(void)req;
	give_up(u);
	upload_free(u);
}

void upload_files(const struct execd_match *match)
{
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.body = upload_body, .arrived = upload_arrived, .body_end = upload_body_end, .abort = upload_abort};
	struct http_request *req = match->call->req;
	struct http_text type = http_request_header(req, "Content-Type");
	struct multipart form;

	if (!type.data || multipart_init(&form, type.data, type.len) < 0) {
		http_respond_code(req, SBX_E_EXECD_INVALID_FILE, "multipart form is empty");
		return;
	}
	struct upload *u = calloc(1, sizeof(*u));
	struct buf *targets = u ? calloc(PENDING_TARGETS, sizeof(*targets)) : NULL;
	if (!targets) {
		free(u);
		http_respond_code(req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	*u = (struct upload){.box = execd_box_ref(match->box), .req = req, .form = form, .targets = targets};
	http_request_accept(req, &ops, u);
}
