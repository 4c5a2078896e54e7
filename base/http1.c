// SPDX-License-Identifier: Apache-2.0
#include "base/http1.h"

#include "base/cleanup.h"
#include "base/num.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

/* A method, two spaces and the version beside the target; methods that are longer are no methods. */
#define START_LINE_EXTRA 64u
/* Extensions and trailers are read over; nothing we know sends more. */
#define CHUNK_LINE_MAX	 4096u
#define TRAILERS_MAX	 64u
/* 15 hex digits cannot overflow 64 bits */
#define CHUNK_DIGITS_MAX 15u
/* 2^53: what JSON clients can count */
#define LENGTH_MAX	 ((uint64_t)1 << 53)

static const struct {
	const char *name;
	enum sbx_err_code code;
	const char *text;
} results[] = {
	[HTTP1_OK] = {"OK", SBX_E_NONE, ""},
	[HTTP1_MORE] = {"MORE", SBX_E_MALFORMED, "the message is cut off"},
	[HTTP1_DONE] = {"DONE", SBX_E_NONE, ""},
#define HTTP1_REFUSAL(n, c, t) [HTTP1_##n] = {#n, SBX_E_##c, t},
#include "base/http1.def"
#undef HTTP1_REFUSAL
};
static_assert(ARRAY_SIZE(results) == HTTP1_RESULT_COUNT, "a row for each result");

int http1_error(struct sbx_err *err, enum http1_result r)
{
	assert((unsigned)r < HTTP1_RESULT_COUNT);
	return sbx_err_set(err, results[r].code, 0, "%s", results[r].text);
}

const char *http1_result_name(enum http1_result r)
{
	return (unsigned)r < HTTP1_RESULT_COUNT ? results[r].name : "UNKNOWN";
}

/* ---- characters ---- */

static bool is_token_char(char c)
{
	/* one bit for each of the 128 ASCII characters: "!#$%&'*+-.^_`|~", digits and letters */
	static const uint32_t bits[4] = {0, 0x03ff6cfau, 0xc7fffffeu, 0x57ffffffu};
	unsigned char u = (unsigned char)c;

	return u < 128 && (bits[u / 32] >> (u % 32) & 1);
}

bool http1_is_token(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!is_token_char(s[i]))
			return false;
	return n > 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

/* Tab, visible ASCII, space and obs-text; no NUL, CR, LF or other control. */
static bool is_value_char(char c)
{
	unsigned char u = (unsigned char)c;

	return u == '\t' || (u >= 0x20 && u != 0x7f);
}

static bool is_value(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!is_value_char(s[i]))
			return false;
	return true;
}

static struct http1_span span(size_t off, size_t len)
{
	return (struct http1_span){(uint32_t)off, (uint32_t)len};
}

static bool text_is(const char *s, size_t n, const char *word)
{
	return n == strlen(word) && !strncasecmp(s, word, n);
}

/* ---- where the head ends ---- */

enum http1_result http1_scan(struct http1_scan *scan, const char *data, size_t n)
{
	while (scan->seen < n) {
		const char *lf = memchr(data + scan->seen, '\n', n - scan->seen);
		size_t end = lf ? (size_t)(lf - data) : n;

		/* bounds first, so that a head without any line end is refused too */
		if (scan->n_lines == 0 && end - scan->line_start > LIMIT_HTTP_TARGET_BYTES + START_LINE_EXTRA)
			return HTTP1_TARGET_TOO_LONG;
		if (end >= LIMIT_HTTP_HEAD_BYTES)
			return HTTP1_HEAD_TOO_LARGE;
		scan->seen = end;
		if (!lf)
			break;
		if (end == scan->line_start || data[end - 1] != '\r')
			return HTTP1_BARE_LF;
		scan->seen = end + 1;
		if (end - scan->line_start == 1) {
			scan->head_bytes = end + 1;
			return scan->n_lines ? HTTP1_OK : HTTP1_EMPTY_LINE;
		}
		scan->line_start = end + 1;
		/* the first line is not a header */
		if (++scan->n_lines > LIMIT_HTTP_HEADERS + 1)
			return HTTP1_TOO_MANY_HEADERS;
	}
	return HTTP1_MORE;
}

/* ---- header lines ---- */

/* Host: a name or address with an optional port; what else may stand there only confuses the next reader. */
static bool is_host(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
			    c == '_' || c == ':' || c == '[' || c == ']';
		if (!good)
			return false;
	}
	return true;
}

bool http1_list_has(const char *list, size_t n, const char *token, size_t t)
{
	for (size_t i = 0; i < n;) {
		while (i < n && (is_space(list[i]) || list[i] == ','))
			i++;
		size_t start = i;
		while (i < n && list[i] != ',')
			i++;
		size_t end = i;
		while (end > start && is_space(list[end - 1]))
			end--;
		if (end - start == t && t && !strncasecmp(list + start, token, t))
			return true;
	}
	return false;
}

bool http1_connection_names(const struct http1_head *head, const char *data, const char *token, size_t n)
{
	for (int i = -1; (i = http1_header(head, data, "connection", (uint32_t)(i + 1))) >= 0;)
		if (http1_list_has(data + head->headers[i].value.off, head->headers[i].value.len, token, n))
			return true;
	return false;
}

struct seen {
	bool host, length, coding;
};

/* The few headers that decide how the message is framed. */
static enum http1_result framing_header(struct http1_head *head, struct seen *seen, const char *name, size_t name_len,
					const char *data, struct http1_span value)
{
	const char *v = data + value.off;

	if (text_is(name, name_len, "host")) {
		if (seen->host)
			return HTTP1_HOST_TWICE;
		if (!is_host(v, value.len))
			return HTTP1_HOST_VALUE;
		seen->host = true;
		head->host = value;
	} else if (text_is(name, name_len, "content-length")) {
		if (seen->length)
			return HTTP1_LENGTH_TWICE;
		if (num_u64(v, value.len, LENGTH_MAX, &head->length) < 0)
			return HTTP1_LENGTH_VALUE;
		seen->length = true;
		head->flags |= HTTP1_HAS_LENGTH;
	} else if (text_is(name, name_len, "transfer-encoding")) {
		if (seen->coding)
			return HTTP1_CODING_TWICE;
		if (!text_is(v, value.len, "chunked"))
			return HTTP1_CODING_VALUE;
		seen->coding = true;
		head->flags |= HTTP1_CHUNKED;
	} else if (text_is(name, name_len, "expect")) {
		if (!text_is(v, value.len, "100-continue"))
			return HTTP1_EXPECT;
		head->flags |= HTTP1_EXPECT_CONTINUE;
	}
	return HTTP1_OK;
}

static enum http1_result header_line(struct http1_head *head, struct seen *seen, const char *data, size_t start, size_t end)
{
	if (is_space(data[start]))
		return HTTP1_FOLDED;
	const char *colon = memchr(data + start, ':', end - start);
	if (!colon)
		return HTTP1_NAME;
	size_t name_end = (size_t)(colon - data), value = name_end + 1, value_end = end;

	if (!http1_is_token(data + start, name_end - start))
		return HTTP1_NAME;
	if (!is_value(data + value, value_end - value))
		return HTTP1_VALUE;
	while (value < value_end && is_space(data[value]))
		value++;
	while (value_end > value && is_space(data[value_end - 1]))
		value_end--;
	if (head->n_headers == LIMIT_HTTP_HEADERS)
		return HTTP1_TOO_MANY_HEADERS;
	struct http1_header *h = &head->headers[head->n_headers++];
	h->name = span(start, name_end - start);
	h->value = span(value, value_end - value);
	return framing_header(head, seen, data + start, h->name.len, data, h->value);
}

/* All lines from `at` to the empty line that ends the n bytes. */
static enum http1_result header_lines(struct http1_head *head, struct seen *seen, const char *data, size_t at, size_t n)
{
	while (at + 2 < n) {
		const char *lf = memchr(data + at, '\n', n - at);
		if (!lf || lf == data + at || lf[-1] != '\r')
			return HTTP1_BARE_LF;
		size_t end = (size_t)(lf - data) - 1;
		if (end == at)
			return HTTP1_EMPTY_LINE; /* the head ended before its end: the caller miscounted */
		enum http1_result r = header_line(head, seen, data, at, end);
		if (r != HTTP1_OK)
			return r;
		at = end + 2;
	}
	if ((head->flags & HTTP1_CHUNKED) && (head->flags & HTTP1_HAS_LENGTH))
		return HTTP1_CODING_AND_LENGTH;
	if ((head->flags & HTTP1_CHUNKED) && head->minor == 0)
		return HTTP1_CODING_OLD;
	bool close = http1_connection_names(head, data, "close", 5);
	if (close || (head->minor == 0 && !http1_connection_names(head, data, "keep-alive", 10)))
		head->flags |= HTTP1_CLOSE;
	if (http1_connection_names(head, data, "upgrade", 7))
		head->flags |= HTTP1_UPGRADE;
	return HTTP1_OK;
}

static void head_init(struct http1_head *head)
{
	/* the header array is 3 KiB: only what n_headers counts is ever read */
	memset(head, 0, offsetof(struct http1_head, headers));
}

static enum http1_result version(struct http1_head *head, const char *s, size_t n)
{
	if (n != 8 || memcmp(s, "HTTP/", 5) != 0 || s[6] != '.')
		return HTTP1_START_LINE;
	if (s[5] != '1' || (s[7] != '0' && s[7] != '1'))
		return HTTP1_VERSION;
	head->minor = (uint8_t)(s[7] - '0');
	return HTTP1_OK;
}

/* End of the first line without its CR LF, or 0. */
static size_t first_line(const char *data, size_t n)
{
	const char *lf = n ? memchr(data, '\n', n) : NULL;

	return lf && lf > data && lf[-1] == '\r' ? (size_t)(lf - data) - 1 : 0;
}

static enum http1_result target(const char *s, size_t n)
{
	if (n > LIMIT_HTTP_TARGET_BYTES)
		return HTTP1_TARGET_TOO_LONG;
	if (n == 0 || (s[0] != '/' && !(n == 1 && s[0] == '*')))
		return HTTP1_TARGET;
	for (size_t i = 0; i < n; i++) {
		unsigned char u = (unsigned char)s[i];
		if (u <= ' ' || u == 0x7f || u == '#')
			return HTTP1_TARGET;
	}
	return HTTP1_OK;
}

enum http1_result http1_request(struct http1_head *head, const char *data, size_t n)
{
	size_t end = first_line(data, n);
	struct seen seen = {0};

	head_init(head);
	if (!end)
		return HTTP1_START_LINE;
	const char *sp = memchr(data, ' ', end);
	if (!sp)
		return HTTP1_START_LINE;
	size_t method_len = (size_t)(sp - data), at = method_len + 1;
	if (!http1_is_token(data, method_len))
		return HTTP1_METHOD;
	const char *sp2 = memchr(data + at, ' ', end - at);
	if (!sp2)
		return HTTP1_START_LINE;
	size_t target_len = (size_t)(sp2 - data) - at;
	enum http1_result r = version(head, sp2 + 1, end - (at + target_len + 1));
	if (r == HTTP1_OK)
		r = target(data + at, target_len);
	if (r != HTTP1_OK)
		return r;
	head->method = span(0, method_len);
	head->target = span(at, target_len);
	r = header_lines(head, &seen, data, end + 2, n);
	if (r == HTTP1_OK && head->minor == 1 && !seen.host)
		r = HTTP1_HOST_MISSING;
	return r;
}

enum http1_result http1_response(struct http1_head *head, const char *data, size_t n)
{
	size_t end = first_line(data, n);
	struct seen seen = {0};

	head_init(head);
	if (end < 12 || data[8] != ' ')
		return HTTP1_START_LINE;
	enum http1_result r = version(head, data, 8);
	if (r != HTTP1_OK)
		return r;
	for (size_t i = 9; i < 12; i++) {
		if (data[i] < '0' || data[i] > '9')
			return HTTP1_STATUS;
		head->status = (uint16_t)(head->status * 10 + (data[i] - '0'));
	}
	if (head->status < 100 || head->status > 599 || (end > 12 && data[12] != ' '))
		return HTTP1_STATUS;
	if (end > 13) {
		if (!is_value(data + 13, end - 13))
			return HTTP1_START_LINE;
		head->reason = span(13, end - 13);
	}
	return header_lines(head, &seen, data, end + 2, n);
}

int http1_header(const struct http1_head *head, const char *data, const char *name, uint32_t from)
{
	size_t n = strlen(name);

	for (uint32_t i = from; i < head->n_headers; i++)
		if (head->headers[i].name.len == n && !strncasecmp(data + head->headers[i].name.off, name, n))
			return (int)i;
	return -1;
}

/* ---- bodies ---- */

void http1_body_of_request(struct http1_body *body, const struct http1_head *head)
{
	*body = (struct http1_body){0};
	if (head->flags & HTTP1_CHUNKED)
		body->kind = HTTP1_BODY_CHUNKED;
	else if ((head->flags & HTTP1_HAS_LENGTH) && head->length) {
		body->kind = HTTP1_BODY_LENGTH;
		body->left = head->length;
	}
}

void http1_body_of_response(struct http1_body *body, const struct http1_head *head, bool to_head)
{
	*body = (struct http1_body){0};
	if (to_head || head->status < 200 || head->status == 204 || head->status == 304)
		return;
	http1_body_of_request(body, head);
	if (body->kind == HTTP1_BODY_NONE && !(head->flags & HTTP1_HAS_LENGTH))
		body->kind = HTTP1_BODY_UNTIL_CLOSE;
}

enum chunk_state { CHUNK_SIZE = 0, CHUNK_EXTENSION, CHUNK_SIZE_LF, CHUNK_DATA, CHUNK_CR, CHUNK_LF, TRAILER_START, TRAILER, TRAILER_LF,
		   LAST_LF, CHUNK_END };

/* One character of the framing between chunks. */
static enum http1_result chunk_char(struct http1_body *b, char c)
{
	switch ((enum chunk_state)b->state) {
	case CHUNK_SIZE: {
		int digit = hex_digit(c);

		if (digit >= 0) {
			if (++b->digits > CHUNK_DIGITS_MAX)
				return HTTP1_CHUNK_SIZE;
			b->left = b->left << 4 | (unsigned)digit;
			return HTTP1_OK;
		}
		if (!b->digits || (c != '\r' && c != ';' && !is_space(c)))
			return HTTP1_CHUNK_SIZE;
		b->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
		b->line_bytes = 0;
		return HTTP1_OK;
	}
	case CHUNK_EXTENSION:
		if (c == '\r')
			b->state = CHUNK_SIZE_LF;
		else if (++b->line_bytes > CHUNK_LINE_MAX || !is_value_char(c))
			return HTTP1_CHUNK_LINE;
		return HTTP1_OK;
	case CHUNK_SIZE_LF:
		if (c != '\n')
			return HTTP1_CHUNK_LINE;
		b->state = b->left ? CHUNK_DATA : TRAILER_START;
		b->digits = 0;
		return HTTP1_OK;
	case CHUNK_CR:
	case CHUNK_LF:
		if (c != (b->state == CHUNK_CR ? '\r' : '\n'))
			return HTTP1_CHUNK_END;
		b->state = b->state == CHUNK_CR ? CHUNK_LF : CHUNK_SIZE;
		return HTTP1_OK;
	case TRAILER_START:
		if (c == '\r') {
			b->state = LAST_LF;
			return HTTP1_OK;
		}
		if (++b->n_trailers > TRAILERS_MAX || !is_token_char(c))
			return HTTP1_CHUNK_LINE;
		b->line_bytes = 1;
		b->state = TRAILER;
		return HTTP1_OK;
	case TRAILER:
		if (c == '\r')
			b->state = TRAILER_LF;
		else if (++b->line_bytes > CHUNK_LINE_MAX || !is_value_char(c))
			return HTTP1_CHUNK_LINE;
		return HTTP1_OK;
	case TRAILER_LF:
	case LAST_LF:
		if (c != '\n')
			return HTTP1_CHUNK_LINE;
		b->state = b->state == LAST_LF ? CHUNK_END : TRAILER_START;
		return HTTP1_OK;
	case CHUNK_DATA:
	case CHUNK_END:
		break;
	}
	return HTTP1_CHUNK_LINE;
}

static size_t least(uint64_t a, size_t b)
{
	return a < b ? (size_t)a : b;
}

static enum http1_result chunked_next(struct http1_body *b, const char *data, size_t n, size_t *ret_used,
				      struct http1_span *ret_piece)
{
	size_t i = 0;
	enum http1_result r = HTTP1_OK;

	while (i < n && b->state != CHUNK_DATA && b->state != CHUNK_END && r == HTTP1_OK)
		r = chunk_char(b, data[i++]);
	*ret_used = i;
	if (r != HTTP1_OK)
		return r;
	if (b->state == CHUNK_END)
		return HTTP1_DONE;
	if (b->state != CHUNK_DATA || i == n)
		return HTTP1_MORE;
	size_t take = least(b->left, n - i);
	*ret_piece = span(i, take);
	*ret_used = i + take;
	b->left -= take;
	if (!b->left)
		b->state = CHUNK_CR;
	return HTTP1_OK;
}

enum http1_result http1_body_next(struct http1_body *b, const char *data, size_t n, size_t *ret_used,
				  struct http1_span *ret_piece)
{
	*ret_used = 0;
	*ret_piece = (struct http1_span){0};
	switch (b->kind) {
	case HTTP1_BODY_NONE:
		return HTTP1_DONE;
	case HTTP1_BODY_CHUNKED:
		return chunked_next(b, data, n, ret_used, ret_piece);
	case HTTP1_BODY_LENGTH:
		if (!b->left)
			return HTTP1_DONE;
		break;
	case HTTP1_BODY_UNTIL_CLOSE:
		break;
	}
	if (!n)
		return HTTP1_MORE;
	size_t take = b->kind == HTTP1_BODY_LENGTH ? least(b->left, n) : n;
	*ret_piece = span(0, take);
	*ret_used = take;
	if (b->kind == HTTP1_BODY_LENGTH)
		b->left -= take;
	return HTTP1_OK;
}

uint64_t http1_body_direct(const struct http1_body *b)
{
	return b->kind == HTTP1_BODY_LENGTH || (b->kind == HTTP1_BODY_CHUNKED && b->state == CHUNK_DATA) ? b->left : 0;
}

void http1_body_skip(struct http1_body *b, uint64_t n)
{
	assert(n <= b->left);
	b->left -= n;
	if (n && b->kind == HTTP1_BODY_CHUNKED && !b->left)
		b->state = CHUNK_CR;
}
