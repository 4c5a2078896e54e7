// SPDX-License-Identifier: Apache-2.0
#include "api/execd/multipart.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

/* ---- header values: token; name=token; name="quoted" ---- */

struct cursor {
	const char *at, *end;
};

static bool is_token(char c)
{
	return c > ' ' && c < 0x7f && !strchr("()<>@,;:\\\"/[]?=", c);
}

static void skip_blank(struct cursor *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t'))
		c->at++;
}

static size_t take_token(struct cursor *c, const char **ret)
{
	*ret = c->at;
	while (c->at < c->end && is_token(*c->at))
		c->at++;
	return (size_t)(c->at - *ret);
}

/* Copies what fits; a longer value is cut, which no caller mistakes for a known name. */
static bool take_quoted(struct cursor *c, char *out, size_t size, size_t *ret_len)
{
	size_t n = 0;

	for (c->at++; c->at < c->end && *c->at != '"'; c->at++) {
		if (*c->at == '\\' && c->at + 1 < c->end && (c->at[1] == '"' || c->at[1] == '\\'))
			c->at++;
		if (n + 1 < size)
			out[n] = *c->at;
		n++;
	}
	if (c->at == c->end)
		return false;
	c->at++;
	out[n < size ? n : size - 1] = '\0';
	*ret_len = n;
	return true;
}

/*
 * The next "; name=value"; false at the end or when it is malformed (then *ret_bad is set).  @value holds at most
 * @size - 1 bytes, *ret_len is the true length.
 */
static bool next_param(struct cursor *c, const char **ret_name, size_t *ret_name_len, char *value, size_t size,
		       size_t *ret_len, bool *ret_bad)
{
	*ret_bad = false;
	skip_blank(c);
	while (c->at < c->end && *c->at == ';') { /* an empty parameter ("; ;") is passed over */
		c->at++;
		skip_blank(c);
	}
	if (c->at == c->end)
		return false;
	*ret_name_len = take_token(c, ret_name);
	if (!*ret_name_len || c->at == c->end || *c->at != '=')
		*ret_bad = true;
	if (*ret_bad)
		return false;
	c->at++;
	if (c->at < c->end && *c->at == '"') {
		*ret_bad = !take_quoted(c, value, size, ret_len);
	} else {
		const char *token;

		*ret_len = take_token(c, &token);
		size_t kept = *ret_len < size ? *ret_len : size - 1;
		memcpy(value, token, kept);
		value[kept] = '\0';
		*ret_bad = !*ret_len;
	}
	skip_blank(c);
	if (c->at < c->end && *c->at != ';')
		*ret_bad = true;
	return !*ret_bad;
}

static bool token_is(const char *token, size_t n, const char *want)
{
	return n == strlen(want) && !strncasecmp(token, want, n);
}

int multipart_init(struct multipart *m, const char *content_type, size_t len)
{
	struct cursor c = {content_type, content_type + len};
	char value[MULTIPART_BOUNDARY_MAX + 2];
	const char *name;
	size_t name_len, n;
	bool bad;

	*m = (struct multipart){0};
	skip_blank(&c);
	n = take_token(&c, &name);
	if (!token_is(name, n, "multipart") || c.at == c.end || *c.at != '/')
		return -EINVAL;
	c.at++;
	n = take_token(&c, &name);
	if (!token_is(name, n, "form-data"))
		return -EINVAL;
	while (next_param(&c, &name, &name_len, value, sizeof(value), &n, &bad)) {
		if (!token_is(name, name_len, "boundary"))
			continue;
		if (m->delimiter_len || !n || n > MULTIPART_BOUNDARY_MAX || memchr(value, '\0', n))
			return -EINVAL;
		memcpy(m->delimiter, "\r\n--", 4);
		memcpy(m->delimiter + 4, value, n);
		m->delimiter_len = 4 + n;
	}
	return bad || !m->delimiter_len ? -EINVAL : 0;
}

/* ---- the body ---- */

static enum multipart_event broken(struct multipart *m, const char *wrong)
{
	m->state = MULTIPART_BROKEN;
	m->wrong = wrong;
	return MULTIPART_ERROR;
}

/*
 * What follows a delimiter: "--" ends the form, blanks and CR LF begin a part.  Return: bytes of it, 0 when more input is
 * needed, -1 when this is no delimiter after all (its text goes on).
 */
static ssize_t delimiter_tail(const char *at, size_t n, bool *ret_last)
{
	size_t i = 0;

	if (n < 2)
		return 0;
	*ret_last = at[0] == '-' && at[1] == '-';
	if (*ret_last)
		return 2;
	while (i < n && i < 64 && (at[i] == ' ' || at[i] == '\t'))
		i++;
	if (i == 64)
		return -1;
	if (n - i < 2)
		return i < n && at[i] != '\r' ? -1 : 0;
	return at[i] == '\r' && at[i + 1] == '\n' ? (ssize_t)i + 2 : -1;
}

static enum multipart_event delimiter_passed(struct multipart *m, bool last, enum multipart_event otherwise)
{
	if (last) {
		m->state = MULTIPART_EPILOGUE;
		return otherwise;
	}
	if (++m->n_parts > MULTIPART_PARTS_MAX)
		return broken(m, "the form has too many parts");
	m->state = MULTIPART_HEAD;
	return otherwise;
}

static enum multipart_event step_preamble(struct multipart *m, const char *in, size_t len, size_t *used)
{
	/* the first delimiter needs no line end in front of it */
	const char *dash = m->delimiter + 2;
	size_t dash_len = m->delimiter_len - 2;
	bool last = false;

	if (!m->preamble_bytes && len < dash_len)
		return MULTIPART_NEED_MORE;
	bool at_start = !m->preamble_bytes && !memcmp(in, dash, dash_len);
	const char *found = at_start ? in : memmem(in, len, m->delimiter, m->delimiter_len);
	size_t skip = at_start ? dash_len : m->delimiter_len;
	if (!found) {
		size_t keep = m->delimiter_len - 1;

		*used = len > keep ? len - keep : 0;
		m->preamble_bytes += *used;
		return m->preamble_bytes > MULTIPART_PREAMBLE_MAX ? broken(m, "the form does not begin with its boundary")
								   : MULTIPART_NEED_MORE;
	}
	size_t before = (size_t)(found - in);
	ssize_t tail = delimiter_tail(found + skip, len - before - skip, &last);
	if (tail < 0)
		return broken(m, "the form does not begin with its boundary");
	if (!tail)
		return MULTIPART_NEED_MORE;
	*used = before + skip + (size_t)tail;
	enum multipart_event event = delimiter_passed(m, last, MULTIPART_NEED_MORE);
	return event == MULTIPART_NEED_MORE && last ? MULTIPART_END : event;
}

static const char *read_disposition(struct multipart *m, const char *value, size_t len)
{
	struct cursor c = {value, value + len};
	char text[MULTIPART_NAME_MAX];
	const char *name;
	size_t name_len, n = 0;
	bool bad, has_name = false;

	skip_blank(&c);
	name_len = take_token(&c, &name);
	if (!token_is(name, name_len, "form-data"))
		return "a part is not form-data";
	while (next_param(&c, &name, &name_len, text, sizeof(text), &n, &bad)) {
		if (token_is(name, name_len, "filename") || token_is(name, name_len, "filename*")) {
			m->has_filename = true;
		} else if (token_is(name, name_len, "name")) {
			if (has_name)
				return "a part has two names";
			if (n >= sizeof(m->name))
				return "the name of a part is too long";
			has_name = true;
			memcpy(m->name, text, n + 1);
		}
	}
	if (bad)
		return "a part has a malformed Content-Disposition";
	return has_name ? NULL : "a part has no name";
}

static const char *read_part_line(struct multipart *m, const char *line, size_t len, bool *seen)
{
	const char *colon = memchr(line, ':', len);
	struct cursor c = {line, line + len};
	const char *name, *token;

	if (memchr(line, '\n', len) || memchr(line, '\r', len) || memchr(line, '\0', len))
		return "a part has a malformed header";
	size_t name_len = take_token(&c, &name);
	if (!colon || !name_len || c.at != colon)
		return "a part has a malformed header";
	c.at++;
	if (token_is(name, name_len, "content-disposition")) {
		if (*seen)
			return "a part has two Content-Disposition headers";
		*seen = true;
		return read_disposition(m, c.at, (size_t)(c.end - c.at));
	}
	if (!token_is(name, name_len, "content-transfer-encoding"))
		return NULL;
	skip_blank(&c);
	size_t n = take_token(&c, &token);
	bool plain = token_is(token, n, "binary") || token_is(token, n, "8bit") || token_is(token, n, "7bit");
	return plain ? NULL : "a part is encoded";
}

static enum multipart_event step_head(struct multipart *m, const char *in, size_t len, size_t *used)
{
	bool seen = false;
	size_t at = 0;

	m->name[0] = '\0';
	m->has_filename = false;
	for (;;) {
		const char *end = memmem(in + at, len - at, "\r\n", 2);

		if (!end)
			return len > MULTIPART_HEAD_MAX ? broken(m, "the head of a part is too long") : MULTIPART_NEED_MORE;
		size_t n = (size_t)(end - (in + at));
		if (at + n > MULTIPART_HEAD_MAX)
			return broken(m, "the head of a part is too long");
		if (!n)
			break;
		const char *wrong = read_part_line(m, in + at, n, &seen);
		if (wrong)
			return broken(m, wrong);
		at += n + 2;
	}
	if (!seen)
		return broken(m, "a part has no Content-Disposition");
	/* The line end of the empty line stays: an empty body is followed by a delimiter that begins with it. */
	*used = at;
	m->state = MULTIPART_BODY;
	m->lead = 2;
	return MULTIPART_PART;
}

typedef uint8_t bytes32 __attribute__((vector_size(32)));

/* Bytes of a block that is looked at at once. */
#define BLOCK 128u

/*
 * Passes over the blocks from @at on in which no place has the delimiter's first byte, and its last one @gap bytes behind
 * it.  Return: where the first other block begins, or the rest that is too short for one.
 */
static inline __attribute__((always_inline)) size_t pass_blocks(const char *in, size_t at, size_t len, const char *delimiter, size_t gap)
{
	bytes32 first, last;

	memset(&first, delimiter[0], sizeof(first));
	memset(&last, delimiter[gap], sizeof(last));
	for (; len - at >= BLOCK + gap; at += BLOCK) {
		bytes32 hit = {0};
		uint64_t parts[sizeof(hit) / sizeof(uint64_t)];

		for (size_t i = 0; i < BLOCK; i += sizeof(hit)) {
			bytes32 a, b;

			memcpy(&a, in + at + i, sizeof(a));
			memcpy(&b, in + at + i + gap, sizeof(b));
			hit |= (bytes32)(a == first) & (bytes32)(b == last);
		}
		memcpy(parts, &hit, sizeof(parts));
		if (parts[0] | parts[1] | parts[2] | parts[3])
			break;
	}
	return at;
}

typedef size_t pass_fn(const char *in, size_t at, size_t len, const char *delimiter, size_t gap);

static size_t pass_plainly(const char *in, size_t at, size_t len, const char *delimiter, size_t gap)
{
	return pass_blocks(in, at, len, delimiter, gap);
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static size_t pass_widely(const char *in, size_t at, size_t len, const char *delimiter, size_t gap)
{
	return pass_blocks(in, at, len, delimiter, gap);
}

static pass_fn *passer(void)
{
	return __builtin_cpu_supports("avx2") ? pass_widely : pass_plainly;
}
#else
static pass_fn *passer(void)
{
	return pass_plainly;
}
#endif

/*
 * What memmem() would find.  That takes its time for each byte, and every byte of every upload comes through here; two bytes
 * of the delimiter, its first and its last, are looked for in many places at once.  Content that was made to have them
 * everywhere is as slow as memmem(): a delimiter has no other CR, so that no place is compared twice.
 */
static const char *find_delimiter(const struct multipart *m, const char *in, size_t len)
{
	pass_fn *pass = passer();
	size_t gap = m->delimiter_len - 1, at = 0;

	for (; len - at >= BLOCK + gap; at += BLOCK) {
		at = pass(in, at, len, m->delimiter, gap);
		if (len - at < BLOCK + gap)
			break;
		for (const char *p = in + at; p < in + at + BLOCK; p++)
			if (*p == m->delimiter[0] && !memcmp(p, m->delimiter, m->delimiter_len))
				return p;
	}
	return memmem(in + at, len - at, m->delimiter, m->delimiter_len);
}

/* Bytes at the end of @in that may be the beginning of a delimiter; all else is data. */
static size_t held_back(const struct multipart *m, const char *in, size_t len)
{
	size_t most = len < m->delimiter_len - 1 ? len : m->delimiter_len - 1;
	const char *end = in + len, *at = end - most;

	while ((at = memchr(at, '\r', (size_t)(end - at)))) {
		if (!memcmp(at, m->delimiter, (size_t)(end - at)))
			return (size_t)(end - at);
		at++;
	}
	return 0;
}

static enum multipart_event step_body(struct multipart *m, const char *in, size_t len, size_t *used)
{
	bool last = false;
	const char *found = find_delimiter(m, in, len);

	if (found == in) {
		ssize_t tail = delimiter_tail(in + m->delimiter_len, len - m->delimiter_len, &last);

		if (!tail)
			return MULTIPART_NEED_MORE;
		if (tail > 0) {
			*used = m->delimiter_len + (size_t)tail;
			m->lead = 0;
			return delimiter_passed(m, last, MULTIPART_PART_END);
		}
		found = NULL;
		if (!m->lead) { /* not a delimiter: its first byte is data, the search goes on behind it */
			m->data = in;
			m->n = *used = 1;
			return MULTIPART_DATA;
		}
	}
	size_t n = found ? (size_t)(found - in) : len - held_back(m, in, len);
	if (m->lead) {
		/* what is no delimiter at the very start is the empty line's end, which is not data */
		if (len < m->delimiter_len && !memcmp(in, m->delimiter, len))
			return MULTIPART_NEED_MORE;
		*used = m->lead;
		m->lead = 0;
		return MULTIPART_NEED_MORE;
	}
	if (!n)
		return MULTIPART_NEED_MORE;
	m->data = in;
	m->n = *used = n;
	return MULTIPART_DATA;
}

size_t multipart_plain(const struct multipart *m, const char *in, size_t len)
{
	if (m->state != MULTIPART_BODY || m->lead)
		return 0;
	const char *found = find_delimiter(m, in, len);
	return found ? (size_t)(found - in) : len - held_back(m, in, len);
}

enum multipart_event multipart_step(struct multipart *m, const char *in, size_t len, size_t *ret_used)
{
	*ret_used = 0;
	switch (m->state) {
	case MULTIPART_PREAMBLE:
		return step_preamble(m, in, len, ret_used);
	case MULTIPART_HEAD:
		return step_head(m, in, len, ret_used);
	case MULTIPART_BODY:
		return step_body(m, in, len, ret_used);
	case MULTIPART_EPILOGUE:
		*ret_used = len;
		return MULTIPART_END;
	case MULTIPART_BROKEN:
		break;
	}
	return MULTIPART_ERROR;
}
