// SPDX-License-Identifier: Apache-2.0
#include "base/config_file.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

/* How a table came to be decides who may add to it (TOML 1.0 "Table", "Inline Table"). */
enum origin {
	ORIGIN_IMPLIED = 1, /* a parent in somebody's [a.b.c]: may still be opened by [a.b] */
	ORIGIN_HEADER,	    /* [a.b]: may not be opened again */
	ORIGIN_DOTTED,	    /* made by a dotted key: only dotted keys of the same table add to it */
	ORIGIN_INLINE,	    /* complete */
	ORIGIN_HEADER_LIST, /* array of [[a]] tables */
};

struct reader {
	const char *name;
	const char *at, *end;
	unsigned line;
	struct sbx_err *err;
};

#define KEY_PARTS_MAX CONFIG_DEPTH_MAX

struct key_path {
	char *part[KEY_PARTS_MAX]; /* owned */
	size_t n;
};

static void key_path_clear(struct key_path *k)
{
	while (k->n)
		free(k->part[--k->n]);
}
#define auto_key __attribute__((cleanup(key_path_clear))) struct key_path

SBX_PRINTF(2, 3) static int bad(struct reader *r, const char *fmt, ...)
{
	char what[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return sbx_err_set(r->err, SBX_E_INVALID_REQUEST, 0, "%s:%u: %s", r->name, r->line, what);
}

static int no_memory(struct reader *r)
{
	return sbx_err_set(r->err, SBX_E_NO_MEMORY, 0, "%s:%u: out of memory", r->name, r->line);
}

/* ---- the tree ---- */

void config_free(struct config_value *v)
{
	if (!v)
		return;
	for (size_t i = 0; i < v->n_members; i++)
		config_free(v->member[i]); /* depth is bounded by CONFIG_DEPTH_MAX */
	free(v->member);
	free(v->key);
	free(v->text);
	free(v);
}

static struct config_value *value_new(const struct reader *r, enum config_type type)
{
	struct config_value *v = calloc(1, sizeof(*v));

	if (v) {
		v->type = type;
		v->line = r->line;
	}
	return v;
}

/* Takes @child over, also on failure. */
static int add_member(struct reader *r, struct config_value *parent, const char *key, struct config_value *child)
{
	if (key) {
		child->key = strdup(key);
		if (!child->key) {
			config_free(child);
			return no_memory(r);
		}
	}
	/* Room is a power of two: grown when the count reaches one. */
	size_t n = parent->n_members;
	if ((n & (n - 1)) == 0) {
		struct config_value **more = reallocarray(parent->member, n ? n * 2 : 1, sizeof(struct config_value *));
		if (!more) {
			config_free(child);
			return no_memory(r);
		}
		parent->member = more;
	}
	parent->member[parent->n_members++] = child;
	return 0;
}

static struct config_value *find_member(const struct config_value *table, const char *key)
{
	for (size_t i = 0; i < table->n_members; i++)
		if (!strcmp(table->member[i]->key, key))
			return table->member[i];
	return NULL;
}

const struct config_value *config_get(const struct config_value *table, const char *key)
{
	return table && table->type == CONFIG_TABLE ? find_member(table, key) : NULL;
}

const char *config_type_name(enum config_type type)
{
	static const char *const names[] = {
		[CONFIG_NONE] = "nothing", [CONFIG_TEXT] = "a string",	 [CONFIG_INTEGER] = "an integer",
		[CONFIG_FLOAT] = "a number", [CONFIG_BOOL] = "true or false", [CONFIG_ARRAY] = "an array",
		[CONFIG_TABLE] = "a table",
	};
	_Static_assert(ARRAY_SIZE(names) == CONFIG_TYPE_COUNT, "a name for each type");

	return (unsigned)type < CONFIG_TYPE_COUNT ? names[type] : "unknown";
}

static struct config_value *add_table(struct reader *r, struct config_value *parent, const char *key, enum origin origin)
{
	struct config_value *t = value_new(r, CONFIG_TABLE);

	if (!t) {
		no_memory(r);
		return NULL;
	}
	t->origin = origin;
	return add_member(r, parent, key, t) < 0 ? NULL : t;
}

/* ---- characters ---- */

static int peek(const struct reader *r)
{
	return r->at < r->end ? (unsigned char)*r->at : -1;
}

static bool take(struct reader *r, char c)
{
	if (peek(r) != (unsigned char)c)
		return false;
	r->at++;
	return true;
}

static void skip_blanks(struct reader *r)
{
	while (peek(r) == ' ' || peek(r) == '\t')
		r->at++;
}

static bool is_control(int c)
{
	return (c >= 0 && c < 0x20 && c != '\t') || c == 0x7f;
}

static int skip_comment(struct reader *r)
{
	if (peek(r) != '#')
		return 0;
	while (peek(r) >= 0 && peek(r) != '\n') {
		if (is_control(peek(r)) && !(peek(r) == '\r' && r->at + 1 < r->end && r->at[1] == '\n'))
			return bad(r, "a control character in a comment");
		r->at++;
	}
	return 0;
}

/* The rest of a line: blanks, perhaps a comment, then its end or the end of the file. */
static int end_line(struct reader *r)
{
	skip_blanks(r);
	if (skip_comment(r) < 0)
		return -1;
	take(r, '\r');
	if (peek(r) < 0)
		return 0;
	if (!take(r, '\n'))
		return bad(r, "something stands behind the value or header");
	r->line++;
	return 0;
}

/* Inside arrays: blanks, comments and line ends. */
static int skip_space(struct reader *r)
{
	for (;;) {
		skip_blanks(r);
		if (skip_comment(r) < 0)
			return -1;
		take(r, '\r');
		if (!take(r, '\n'))
			return 0;
		r->line++;
	}
}

/* RFC 3629: the length of the sequence at @s, or 0 when it is not well-formed. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;

	if (len < 2 || len > n)
		return len == 1 ? 1 : 0;
	uint32_t code = s[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	return code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : len;
}

static int put_code(struct buf *out, uint32_t code)
{
	char b[4];

	if (code < 0x80)
		return buf_append(out, &(char){(char)code}, 1);
	if (code < 0x800) {
		b[0] = (char)(0xc0 | code >> 6);
		b[1] = (char)(0x80 | (code & 0x3f));
		return buf_append(out, b, 2);
	}
	if (code < 0x10000) {
		b[0] = (char)(0xe0 | code >> 12);
		b[1] = (char)(0x80 | (code >> 6 & 0x3f));
		b[2] = (char)(0x80 | (code & 0x3f));
		return buf_append(out, b, 3);
	}
	b[0] = (char)(0xf0 | code >> 18);
	b[1] = (char)(0x80 | (code >> 12 & 0x3f));
	b[2] = (char)(0x80 | (code >> 6 & 0x3f));
	b[3] = (char)(0x80 | (code & 0x3f));
	return buf_append(out, b, 4);
}

static int read_escape(struct reader *r, struct buf *out)
{
	static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
	int c = peek(r);
	const char *which = c > 0 ? strchr(from, c) : NULL;

	r->at += c >= 0;
	if (which)
		return buf_append(out, &to[which - from], 1) < 0 ? no_memory(r) : 0;
	if (c != 'u' && c != 'U')
		return bad(r, "an unknown escape in a string");
	size_t digits = c == 'u' ? 4 : 8;
	uint8_t raw[4] = {0};
	if ((size_t)(r->end - r->at) < digits || hex_decode(r->at, raw + (4 - digits / 2), digits / 2) < 0)
		return bad(r, "a \\%c escape needs %zu hexadecimal digits", c, digits);
	r->at += digits;
	uint32_t code = (uint32_t)raw[0] << 24 | (uint32_t)raw[1] << 16 | (uint32_t)raw[2] << 8 | raw[3];
	if (!code || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return bad(r, "an escape names no usable character");
	return put_code(out, code) < 0 ? no_memory(r) : 0;
}

/* At the opening quote; the text comes out allocated. */
static int read_string(struct reader *r, char **ret)
{
	char quote = *r->at++;
	auto_buf out = {0};

	if (peek(r) == quote && r->at + 1 < r->end && r->at[1] == quote)
		return bad(r, "strings over several lines are not read here");
	while (!take(r, quote)) {
		int c = peek(r);
		if (c < 0 || c == '\n')
			return bad(r, "a string is not closed");
		if (is_control(c))
			return bad(r, "a control character in a string");
		if (c == '\\' && quote == '"') {
			r->at++;
			if (read_escape(r, &out) < 0)
				return -1;
			continue;
		}
		size_t len = utf8_length((const unsigned char *)r->at, (size_t)(r->end - r->at));
		if (!len)
			return bad(r, "a string is not valid UTF-8");
		if (buf_append(&out, r->at, len) < 0)
			return no_memory(r);
		r->at += len;
	}
	*ret = strdup(buf_used(&out) ? buf_str(&out) : "");
	return *ret ? 0 : no_memory(r);
}

/* ---- keys ---- */

static bool is_bare(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static int read_key_part(struct reader *r, char **ret)
{
	const char *start = r->at;

	if (peek(r) == '"' || peek(r) == '\'')
		return read_string(r, ret);
	while (is_bare(peek(r)))
		r->at++;
	if (r->at == start)
		return bad(r, peek(r) == '=' ? "a key is missing before \"=\"" : "a key is expected here");
	*ret = strndup(start, (size_t)(r->at - start));
	return *ret ? 0 : no_memory(r);
}

static int read_key(struct reader *r, struct key_path *key)
{
	do {
		skip_blanks(r);
		if (key->n == KEY_PARTS_MAX)
			return bad(r, "a key has more than %u parts", KEY_PARTS_MAX);
		if (read_key_part(r, &key->part[key->n]) < 0)
			return -1;
		key->n++;
		skip_blanks(r);
	} while (take(r, '.'));
	return 0;
}

/* ---- values ---- */

static int read_value(struct reader *r, struct config_value **ret, unsigned depth);

static int read_pair(struct reader *r, struct config_value *table, unsigned depth);

static int read_array(struct reader *r, struct config_value *array, unsigned depth)
{
	for (;;) {
		struct config_value *v = NULL;

		if (skip_space(r) < 0)
			return -1;
		if (take(r, ']'))
			return 0;
		if (peek(r) < 0)
			return bad(r, "the array that begins in line %u is not closed", array->line);
		if (read_value(r, &v, depth + 1) < 0 || add_member(r, array, NULL, v) < 0 || skip_space(r) < 0)
			return -1;
		if (!take(r, ',') && peek(r) != ']')
			return bad(r, "the array that begins in line %u needs \",\" or \"]\" here", array->line);
	}
}

static int read_inline_table(struct reader *r, struct config_value *table, unsigned depth)
{
	skip_blanks(r);
	if (take(r, '}'))
		return 0;
	for (;;) {
		if (read_pair(r, table, depth + 1) < 0)
			return -1;
		skip_blanks(r);
		if (take(r, '}'))
			return 0;
		if (!take(r, ','))
			return bad(r, "an inline table needs \",\" or \"}\" here, on the same line");
	}
}

/* The word without TOML's single underscores between digits; false when one stands elsewhere or the word is too long. */
static bool plain_number(const char *word, size_t n, char *out, size_t size)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		if (word[i] == '_') {
			bool between = i && i + 1 < n && word[i - 1] >= '0' && word[i - 1] <= '9' && word[i + 1] >= '0' &&
				       word[i + 1] <= '9';
			if (!between)
				return false;
			continue;
		}
		if (len + 1 >= size)
			return false;
		out[len++] = word[i];
	}
	out[len] = '\0';
	return true;
}

/* [+-] digits [. digits] [e [+-] digits], no leading zero */
static bool float_shape(const char *s)
{
	size_t digits;

	s += *s == '+' || *s == '-';
	digits = strspn(s, "0123456789");
	if (!digits || (s[0] == '0' && digits > 1))
		return false;
	s += digits;
	if (*s == '.') {
		digits = strspn(++s, "0123456789");
		if (!digits)
			return false;
		s += digits;
	}
	if (*s == 'e' || *s == 'E') {
		s++;
		s += *s == '+' || *s == '-';
		digits = strspn(s, "0123456789");
		if (!digits)
			return false;
		s += digits;
	}
	return !*s;
}

static int read_number(struct reader *r, struct config_value *v, const char *word, size_t n)
{
	char plain[64];

	if (!plain_number(word, n, plain, sizeof(plain)))
		return bad(r, "\"%.*s\" is not a value", (int)(n > 60 ? 60 : n), word);
	size_t sign = plain[0] == '+' || plain[0] == '-';
	if (strspn(plain + sign, "0123456789") == strlen(plain + sign) && plain[sign]) {
		if (plain[sign] == '0' && plain[sign + 1])
			return bad(r, "\"%s\" begins with a zero", plain);
		const char *digits = plain[0] == '+' ? plain + 1 : plain;
		if (num_i64(digits, strlen(digits), &v->integer) < 0)
			return bad(r, "\"%s\" is too large", plain);
		v->type = CONFIG_INTEGER;
		v->real = (double)v->integer;
		return 0;
	}
	if (!float_shape(plain))
		return bad(r, "\"%s\" is not a value; a text needs quotes", plain);
	v->type = CONFIG_FLOAT;
	v->real = strtod(plain, NULL); /* the C locale: no program of ours calls setlocale() */
	return isfinite(v->real) ? 0 : bad(r, "\"%s\" is too large", plain);
}

static int read_word(struct reader *r, struct config_value *v)
{
	const char *start = r->at;

	while (is_bare(peek(r)) || peek(r) == '+' || peek(r) == '.' || peek(r) == ':')
		r->at++;
	size_t n = (size_t)(r->at - start);
	if (!n)
		return bad(r, "a value is expected here");
	if ((n == 4 && !memcmp(start, "true", 4)) || (n == 5 && !memcmp(start, "false", 5))) {
		v->type = CONFIG_BOOL;
		v->boolean = n == 4;
		return 0;
	}
	return read_number(r, v, start, n);
}

static int read_value_into(struct reader *r, struct config_value *v, unsigned depth)
{
	switch (peek(r)) {
	case '"':
	case '\'':
		v->type = CONFIG_TEXT;
		return read_string(r, &v->text);
	case '[':
		r->at++;
		v->type = CONFIG_ARRAY;
		return read_array(r, v, depth);
	case '{':
		r->at++;
		v->type = CONFIG_TABLE;
		v->origin = ORIGIN_INLINE;
		return read_inline_table(r, v, depth);
	default:
		return read_word(r, v);
	}
}

static int read_value(struct reader *r, struct config_value **ret, unsigned depth)
{
	if (depth > CONFIG_DEPTH_MAX)
		return bad(r, "values are nested deeper than %u levels", CONFIG_DEPTH_MAX);
	struct config_value *v = value_new(r, CONFIG_NONE);
	if (!v)
		return no_memory(r);
	if (read_value_into(r, v, depth) < 0) {
		config_free(v);
		return -1;
	}
	*ret = v;
	return 0;
}

/* Follows or makes the tables of a dotted key below @table; NULL with the error set. */
static struct config_value *walk_dotted(struct reader *r, struct config_value *table, const struct key_path *key)
{
	for (size_t i = 0; i + 1 < key->n; i++) {
		struct config_value *next = find_member(table, key->part[i]);

		if (!next)
			next = add_table(r, table, key->part[i], ORIGIN_DOTTED);
		else if (next->type != CONFIG_TABLE || next->origin != ORIGIN_DOTTED) {
			bad(r, "\"%s\" was given before in line %u", key->part[i], next->line);
			return NULL;
		}
		if (!next)
			return NULL;
		table = next;
	}
	return table;
}

/* key = value, without the end of the line */
static int read_pair(struct reader *r, struct config_value *table, unsigned depth)
{
	auto_key key = {0};
	struct config_value *v = NULL;

	if (read_key(r, &key) < 0)
		return -1;
	if (!take(r, '='))
		return bad(r, "\"=\" is missing behind the key \"%s\"", key.part[key.n - 1]);
	skip_blanks(r);
	if (depth + key.n > CONFIG_DEPTH_MAX)
		return bad(r, "values are nested deeper than %u levels", CONFIG_DEPTH_MAX);
	struct config_value *into = walk_dotted(r, table, &key);
	if (!into)
		return -1;
	const char *last = key.part[key.n - 1];
	const struct config_value *before = find_member(into, last);
	if (before)
		return bad(r, "\"%s\" was given before in line %u", last, before->line);
	if (read_value(r, &v, depth + (unsigned)key.n) < 0)
		return -1;
	return add_member(r, into, last, v);
}

/* ---- headers ---- */

/* One step of [a.b.c] that is not the last: tables are implied, of an array of tables the newest is meant. */
static struct config_value *step_into(struct reader *r, struct config_value *table, const char *part)
{
	struct config_value *next = find_member(table, part);

	if (!next)
		return add_table(r, table, part, ORIGIN_IMPLIED);
	if (next->origin == ORIGIN_HEADER_LIST)
		return next->member[next->n_members - 1];
	if (next->type != CONFIG_TABLE || next->origin == ORIGIN_INLINE) {
		bad(r, "\"%s\" is no table: see line %u", part, next->line);
		return NULL;
	}
	return next;
}

static struct config_value *open_table(struct reader *r, struct config_value *parent, const char *part)
{
	struct config_value *t = find_member(parent, part);

	if (!t)
		return add_table(r, parent, part, ORIGIN_HEADER);
	if (t->type != CONFIG_TABLE || t->origin != ORIGIN_IMPLIED) {
		bad(r, "\"%s\" was given before in line %u", part, t->line);
		return NULL;
	}
	t->origin = ORIGIN_HEADER;
	t->line = r->line;
	return t;
}

static struct config_value *open_list(struct reader *r, struct config_value *parent, const char *part)
{
	struct config_value *list = find_member(parent, part);

	if (!list) {
		list = value_new(r, CONFIG_ARRAY);
		if (!list) {
			no_memory(r);
			return NULL;
		}
		list->origin = ORIGIN_HEADER_LIST;
		if (add_member(r, parent, part, list) < 0)
			return NULL;
	} else if (list->origin != ORIGIN_HEADER_LIST) {
		bad(r, "\"%s\" was given before in line %u", part, list->line);
		return NULL;
	}
	return add_table(r, list, NULL, ORIGIN_HEADER);
}

/* At "[": the table that the following pairs belong to, or NULL with the error set. */
static struct config_value *read_header(struct reader *r, struct config_value *root)
{
	auto_key key = {0};
	struct config_value *t = root;

	r->at++;
	bool list = take(r, '[');
	if (read_key(r, &key) < 0)
		return NULL;
	if (!take(r, ']') || (list && !take(r, ']'))) {
		bad(r, "a table header is not closed");
		return NULL;
	}
	for (size_t i = 0; t && i + 1 < key.n; i++)
		t = step_into(r, t, key.part[i]);
	if (!t)
		return NULL;
	return list ? open_list(r, t, key.part[key.n - 1]) : open_table(r, t, key.part[key.n - 1]);
}

static int read_all(struct reader *r, struct config_value *root)
{
	struct config_value *table = root;

	while (r->at < r->end) {
		skip_blanks(r);
		int c = peek(r);
		if (c == '[') {
			table = read_header(r, root);
			if (!table)
				return -1;
		} else if (c >= 0 && c != '#' && c != '\n' && c != '\r' && read_pair(r, table, 1) < 0) {
			return -1;
		}
		if (end_line(r) < 0)
			return -1;
	}
	return 0;
}

struct config_value *config_parse(const char *name, const char *text, size_t n, struct sbx_err *err)
{
	struct reader r = {.name = name, .at = text, .end = text + n, .line = 1, .err = err};

	if (n > CONFIG_FILE_MAX) {
		sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: larger than %u bytes", name, CONFIG_FILE_MAX);
		return NULL;
	}
	if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		r.at += 3;
	struct config_value *root = value_new(&r, CONFIG_TABLE);
	if (!root) {
		no_memory(&r);
		return NULL;
	}
	root->origin = ORIGIN_HEADER;
	if (read_all(&r, root) < 0) {
		config_free(root);
		return NULL;
	}
	return root;
}

struct config_value *config_read(const char *path, struct sbx_err *err)
{
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	auto_buf text = {.max = CONFIG_FILE_MAX + 4096};

	if (fd < 0) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "configuration file %s", path);
		return NULL;
	}
	for (;;) {
		char *room = buf_reserve(&text, 4096);
		ssize_t n = room ? read(fd, room, 4096) : 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			sbx_err_set(err, SBX_E_SYSTEM, errno, "configuration file %s", path);
			return NULL;
		}
		if (!n)
			break;
		buf_commit(&text, (size_t)n);
	}
	return config_parse(path, buf_used(&text) ? buf_peek(&text) : "", text.failed ? CONFIG_FILE_MAX + 1 : buf_used(&text), err);
}
