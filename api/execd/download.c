// SPDX-License-Identifier: Apache-2.0
/*
 * GET /files/download.  The agent sends one record, then bytes.  The record decides the head of the answer: size, range,
 * not a directory.  Content-Length promises what the record said; a file that shrinks meanwhile cuts the connection, a
 * file that grows is cut at the promise.
 */
#include "api/execd/escape.h"
#include "api/execd/execd_int.h"
#include "api/execd/file_info.h"
#include "api/execd/fs_call.h"
#include "api/execd/range.h"
#include "base/cleanup.h"
#include "base/num.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* Content below this is over before more of it under way would help. */
#define WIDE_LEAST (1024u * 1024)

struct download {
	struct execd_box *box;
	struct http_request *req;
	struct agent_stream *stream;
	struct range range;
	bool has_range, by_lines, answered;
	uint64_t left; /* bytes promised and not sent */
	struct range_lines lines;
	size_t not_granted;
};

static void download_free(struct download *d)
{
	execd_box_unref(d->box);
	free(d);
}

static void download_fail(struct download *d, const struct sbx_err *err)
{
	agent_stream_detach(d->stream);
	if (d->answered)
		http_response_fail(d->req);
	else
		execd_respond_err(d->req, err);
	download_free(d);
}

static void http_date(int64_t wall_usec, char *text, size_t size)
{
	time_t seconds = (time_t)(wall_usec / 1000000);
	struct tm tm;

	*text = '\0';
	if (gmtime_r(&seconds, &tm)) /* the C locale's names are HTTP's */
		strftime(text, size, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

static void out_of_range(struct download *d, uint64_t size)
{
	char range[64], body[] = "{\"code\":\"UNKNOWN\",\"message\":\"the file has no bytes in this range\"}";
	int n = snprintf(range, sizeof(range), "Content-Range: bytes */%" PRIu64 "\r\n", size);

	agent_stream_detach(d->stream);
	http_respond(d->req, 416, "application/json; charset=utf-8", (struct http_text){range, (size_t)n}, body,
		     sizeof(body) - 1);
	download_free(d);
}

/* RFC 9110 5.6.7: the form that is written, and the two that are still read.  What is no date is as if it were not there. */
static bool not_modified(const struct download *d, int64_t wall_usec)
{
	static const char *const forms[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"};
	struct http_text since = http_request_header(d->req, "If-Modified-Since");
	char text[64];

	if (!since.len || since.len >= sizeof(text))
		return false;
	memcpy(text, since.data, since.len);
	text[since.len] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		struct tm tm = {0};
		const char *end = strptime(text, forms[i], &tm); /* no process of ours sets a locale */

		if (end && !*end)
			return wall_usec / 1000000 <= timegm(&tm);
	}
	return false;
}

/* Starts the answer; false when it is complete already (and @d is gone). */
static bool download_head(struct download *d, const struct file_info *info)
{
	auto_buf name = {0}, headers = {0};
	const char *slash = strrchr(info->path, '/');
	uint64_t first, n, size = info->head.size_bytes;
	char date[64];

	if (d->by_lines) {
		http_response_begin(d->req, 200, "text/plain; charset=utf-8", HTTP_NO_TEXT, -1);
		d->left = UINT64_MAX;
		d->answered = true;
		return true;
	}
	if (range_resolve(&d->range, size, &first, &n) < 0) {
		out_of_range(d, size);
		return false;
	}
	escape_attachment(&name, slash && slash[1] ? slash + 1 : info->path);
	http_header_add(&headers, "Content-Disposition", buf_peek(&name), buf_used(&name));
	bool partial = d->has_range && size;
	http_date(info->head.modified_wall_usec, date, sizeof(date));
	if (partial)
		buf_printf(&headers, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", first, first + n - 1, size);
	else
		buf_printf(&headers, "Accept-Ranges: bytes\r\nLast-Modified: %s\r\n", date);
	struct http_text lines = {buf_peek(&headers), buf_used(&headers)};
	if (headers.failed || (!partial && not_modified(d, info->head.modified_wall_usec))) {
		agent_stream_detach(d->stream);
		if (headers.failed)
			http_respond_code(d->req, SBX_E_NO_MEMORY, "out of memory");
		else
			http_respond(d->req, 304, NULL, lines, NULL, 0);
		download_free(d);
		return false;
	}
	http_response_begin(d->req, partial ? 206 : 200, "application/octet-stream", lines, (int64_t)n);
	d->left = n;
	d->answered = true;
	if (n >= WIDE_LEAST)
		agent_stream_widen(d->stream);
	return true;
}

static void download_bytes(struct download *d, const uint8_t *data, size_t n)
{
	auto_buf text = {0};

	if (d->by_lines) {
		range_lines(&d->lines, (const char *)data, n, &text);
		if (buf_used(&text))
			http_response_write(d->req, buf_peek(&text), buf_used(&text));
		return;
	}
	n = n < d->left ? n : (size_t)d->left;
	d->left -= n;
	if (n)
		http_response_write(d->req, data, n);
}

static void download_data(void *arg, enum agent_type type, const uint8_t *data, size_t n)
{
	struct download *d = arg;
	size_t record = 0;
	struct sbx_err err;

	(void)type;
	if (!d->answered) {
		struct file_info info;
		int used = file_info_read(data, n, &info);

		if (used < 0) {
			sbx_err_set(&err, SBX_E_PROTOCOL, 0, "the agent of the sandbox sent a malformed file record");
			download_fail(d, &err);
			return;
		}
		if (info.head.kind == AGENT_FILE_DIRECTORY) {
			sbx_err_set(&err, SBX_E_EXECD_BODY, 0, "path is a directory: %.160s", info.path);
			download_fail(d, &err);
			return;
		}
		if (!download_head(d, &info))
			return;
		record = (size_t)used;
		agent_stream_deadline(d->stream, 0);
	}
	if (n > record)
		download_bytes(d, data + record, n - record);
	d->not_granted += n;
	if (http_response_queued(d->req) <= HTTP_QUEUE_HIGH_BYTES) {
		agent_stream_grant(d->stream, d->not_granted);
		d->not_granted = 0;
	}
}

/* Content that goes from the sandbox's pipe into the client's socket as it is. */
static size_t download_bulk(void *arg, int fd, size_t n)
{
	struct download *d = arg;

	if (!d->answered || d->by_lines)
		return 0;
	size_t took = http_response_splice(d->req, fd, n < d->left ? n : (size_t)d->left);
	d->left -= took;
	if (took)
		agent_stream_grant(d->stream, took);
	return took;
}

static void download_writable(void *user, struct http_request *req)
{
	struct download *d = user;

	(void)req;
	if (!d->stream)
		return;
	agent_stream_pull(d->stream);
	if (!d->stream)
		return;
	agent_stream_grant(d->stream, d->not_granted);
	d->not_granted = 0;
}

static void download_ended(void *arg, const struct agent_end *end, const char *text, size_t n)
{
	struct download *d = arg;
	struct sbx_err err;

	d->stream = NULL;
	if (end->reason != AGENT_OK) {
		fs_map_errno(AGENT_FS_READ, end, text, n, &err);
		download_fail(d, &err);
	} else if (!d->answered) {
		sbx_err_set(&err, SBX_E_PROTOCOL, 0, "the agent of the sandbox sent no file record");
		download_fail(d, &err);
	} else {
		http_response_end(d->req); /* closes the connection when fewer bytes came than promised */
		download_free(d);
	}
}

static void download_lost(void *arg, const struct sbx_err *why)
{
	struct download *d = arg;

	d->stream = NULL;
	download_fail(d, why);
}

static void download_abort(void *user, struct http_request *req)
{
	struct download *d = user;

	(void)req;
	agent_stream_detach(d->stream);
	download_free(d);
}

/* ---- what is asked for ---- */

static bool read_lines(const struct execd_call *call, const char *name, bool *ret_set, uint64_t *ret)
{
	auto_free char *text = NULL;

	if (!execd_query_one(call, name, &text))
		return false;
	if (!text)
		return true;
	if (num_u64(text, strlen(text), INT64_MAX, ret) == 0 && *ret) {
		*ret_set = true;
		return true;
	}
	http_respond_code(call->req, SBX_E_EXECD_BODY, "'%s' is not a line number or count of at least 1", name);
	return false;
}

/* Fills @r; false with the request answered. */
static bool read_window(const struct execd_call *call, struct download *d, struct fs_request *r)
{
	struct http_text range = http_request_header(call->req, "Range");
	uint64_t first = 1, count = 0;

	if (!read_lines(call, "offset", &d->by_lines, &first) || !read_lines(call, "limit", &d->by_lines, &count))
		return false;
	d->has_range = range.data != NULL;
	if (d->by_lines) {
		if (d->has_range)
			http_respond_code(call->req, SBX_E_EXECD_BODY, "lines and a Range header cannot be combined");
		r->flags = AGENT_FS_LINES;
		r->offset = first;
		r->length = count;
		return !d->has_range;
	}
	if (!d->has_range)
		return true;
	if (range_parse(range.data, range.len, &d->range) < 0) {
		http_respond_code(call->req, SBX_E_EXECD_RANGE, "the Range header is not 'bytes=first-last'");
		return false;
	}
	if (d->range.kind == RANGE_LAST) {
		r->flags = AGENT_FS_TAIL;
		r->length = d->range.last;
	} else {
		r->offset = d->range.first;
		r->length = d->range.last == UINT64_MAX ? 0 : d->range.last - d->range.first + 1;
	}
	return true;
}

static int download_open(struct download *d, const struct fs_request *r, struct sbx_err *err)
{
	static const struct agent_stream_ops ops = {.data = download_data, .bulk = download_bulk, .ended = download_ended, .lost = download_lost};
	auto_buf payload = {0};
	struct agent_client *agent = execd_box_agent(d->box, err);

	if (!agent || fs_request_payload(r, &payload, err) < 0)
		return -1;
	d->stream = agent_stream_open(agent, AGENT_FS, 0, buf_peek(&payload), buf_used(&payload), &ops, d, err);
	if (!d->stream)
		return -1;
	agent_stream_deadline(d->stream, EXECD_ANSWER_MS);
	return 0;
}

void download_file(const struct execd_match *match)
{
	static const struct http_request_ops ops = {
		.flags = HTTP_KEEP_ON_HALF_CLOSE,
		.writable = download_writable, .abort = download_abort};
	auto_free char *path = NULL;
	struct fs_request r = {.op = AGENT_FS_READ, .n_strings = 1};
	struct sbx_err err;

	if (!execd_query_path(match->call, "path", &path))
		return;
	struct download *d = calloc(1, sizeof(*d));
	if (!d) {
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	*d = (struct download){.box = execd_box_ref(match->box), .req = match->call->req};
	const char *strings[] = {path};
	r.strings = strings;
	if (!read_window(match->call, d, &r)) {
		download_free(d);
		return;
	}
	if (download_open(d, &r, &err) < 0)
		download_fail(d, &err);
	else
		http_request_accept(d->req, &ops, d);
}
