// SPDX-License-Identifier: Apache-2.0
#include "api/execd/members.h"

#include "base/cleanup.h"

#include <string.h>

#define BAD_BODY "error parsing request, MAYBE invalid body format. "
#define BLANK	 " \t\r\n"

enum where { BEFORE_OBJECT = 0, IN_OBJECT, BEHIND_OBJECT, NO_OBJECT };

static bool is_blank(char c)
{
	return c && strchr(BLANK, c);
}

/* One member, name and value, is in m->text. */
static int member_over(struct members *m, bool last, struct sbx_err *err)
{
	auto_buf text = {0};
	struct sbx_err why;
	size_t n = buf_used(&m->text), blank = 0;

	while (blank < n && is_blank(buf_peek(&m->text)[blank]))
		blank++;
	if (blank == n && last && !m->comma) {
		buf_clear(&m->text);
		return 0; /* an empty object */
	}
	buf_puts(&text, "{");
	if (n)
		buf_append(&text, buf_peek(&m->text), n);
	buf_puts(&text, "}");
	buf_clear(&m->text);
	if (text.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "members of an object");
	auto_jv root = jv_parse(buf_peek(&text), buf_used(&text), &why);
	if (!root)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "%.160s", why.msg);
	const struct jv *v = jv_first(root);
	if (!v || jv_next(v))
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "JSON: a member is expected");
	m->comma = !last;
	return m->each(m->arg, v, err);
}

/* Whether @c ends a member; what is in strings and deeper brackets does not.  What is no JSON is found when it is read. */
static bool ends_member(struct members *m, char c)
{
	if (m->in_string) {
		m->in_string = m->escaped || c != '"';
		m->escaped = !m->escaped && c == '\\';
		return false;
	}
	if (c == '"')
		m->in_string = true;
	else if (c == '{' || c == '[')
		m->depth++;
	else if (c == '}' || c == ']')
		m->depth--;
	return !m->depth || (c == ',' && m->depth == 1);
}

static int keep(struct members *m, const char *data, size_t n, struct sbx_err *err)
{
	if (buf_used(&m->text) + n > m->text_max)
		return sbx_err_set(err, SBX_E_TOO_LARGE, 0, "a member of the body is longer than %zu bytes", m->text_max);
	return n && buf_append(&m->text, data, n) < 0 ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "members of an object") : 0;
}

int members_feed(struct members *m, const char *data, size_t n, struct sbx_err *err)
{
	size_t i = 0, from;

	while (i < n && m->where == BEFORE_OBJECT && is_blank(data[i]))
		i++;
	if (i < n && m->where == BEFORE_OBJECT) {
		m->where = data[i] == '{' ? IN_OBJECT : NO_OBJECT;
		i += m->where == IN_OBJECT;
		m->depth = 1;
	}
	if (m->where == NO_OBJECT)
		return keep(m, data + i, n - i, err);
	for (from = i; i < n && m->where == IN_OBJECT; i++) {
		if (!ends_member(m, data[i]))
			continue;
		bool last = !m->depth;
		if (last && data[i] != '}')
			return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "JSON: brackets that do not match");
		if (keep(m, data + from, i - from, err) < 0 || member_over(m, last, err) < 0)
			return -1;
		from = i + 1;
		if (last)
			m->where = BEHIND_OBJECT; /* what follows the value is not looked at */
	}
	return m->where == IN_OBJECT && i > from ? keep(m, data + from, i - from, err) : 0;
}

int members_end(struct members *m, struct sbx_err *err)
{
	struct sbx_err why;

	if (m->where == BEHIND_OBJECT)
		return 0;
	if (m->where == IN_OBJECT)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "JSON: the text ends too early");
	size_t n = buf_used(&m->text);
	auto_jv root = jv_parse_first(n ? buf_peek(&m->text) : "", n, &why);
	if (!root)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "%.160s", why.msg);
	if (jv_type(root) == JV_NULL)
		return 0;
	return sbx_err_set(err, SBX_E_EXECD_BODY, 0, BAD_BODY "the body is %s, not %s", jv_type_name(jv_type(root)),
			   jv_type_name(JV_OBJECT));
}

void members_clear(struct members *m)
{
	buf_free(&m->text);
}
