// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_glob.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- one segment ---- */

/* Bytes of one character at @s: UTF-8 where it is well-formed enough, else a byte. */
static size_t char_bytes(const char *s, size_t n)
{
	unsigned char c = (unsigned char)*s;
	size_t want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;

	if (want > n)
		return 1;
	for (size_t i = 1; i < want; i++)
		if (((unsigned char)s[i] & 0xc0) != 0x80)
			return 1;
	return want;
}

/*
 * Reads the class at @p ("[" included).  Return: its length in the pattern, 0 when it is not well-formed.  Sets
 * *@ret_hit to whether @c is in it.
 */
static size_t match_class(const char *p, size_t n, unsigned char c, bool *ret_hit)
{
	bool negate = false, hit = false, any = false;
	size_t i = 1;

	if (i < n && (p[i] == '!' || p[i] == '^')) {
		negate = true;
		i++;
	}
	while (i < n && (p[i] != ']' || !any)) {
		unsigned char low, high;

		if (p[i] == '\\' && ++i >= n)
			return 0;
		low = high = (unsigned char)p[i++];
		if (i + 1 < n && p[i] == '-' && p[i + 1] != ']') {
			i++;
			if (p[i] == '\\' && ++i >= n)
				return 0;
			high = (unsigned char)p[i++];
		}
		if (high < low)
			return 0;
		hit |= c >= low && c <= high;
		any = true;
	}
	if (i >= n)
		return 0;
	*ret_hit = hit != negate;
	return i + 1;
}

/* One element of the pattern but `*` against the text.  Return: bytes of the pattern, 0 when it does not match. */
static size_t match_one(const char *p, size_t pn, const char *s, size_t sn, size_t *ret_taken)
{
	bool hit = false;

	if (!sn)
		return 0;
	*ret_taken = 1;
	if (*p == '?') {
		*ret_taken = char_bytes(s, sn);
		return 1;
	}
	if (*p == '[') {
		size_t n = match_class(p, pn, (unsigned char)*s, &hit);

		return hit ? n : 0;
	}
	if (*p == '\\' && pn > 1)
		return p[1] == *s ? 2 : 0;
	return *p == *s ? 1 : 0;
}

/* Going back to the last `*` only is enough: an earlier one can take nothing that the last cannot. */
static bool match_segment(const char *p, size_t pn, const char *s, size_t sn)
{
	size_t pi = 0, si = 0, star = SIZE_MAX, star_s = 0;

	for (;;) {
		size_t taken = 0, used = 0;

		if (pi < pn && p[pi] == '*') {
			star = ++pi;
			star_s = si;
			continue;
		}
		if (pi == pn && si == sn)
			return true;
		if (pi < pn)
			used = match_one(p + pi, pn - pi, s + si, sn - si, &taken);
		if (used) {
			pi += used;
			si += taken;
			continue;
		}
		if (star == SIZE_MAX || star_s >= sn)
			return false;
		pi = star;
		si = ++star_s;
	}
}

/* ---- a path ---- */

static size_t segment(const char *s)
{
	size_t i = 0;

	while (s[i] && s[i] != '/') {
		if (s[i] == '\\' && s[i + 1])
			i++;
		i++;
	}
	return i;
}

static const char *behind(const char *s, size_t n)
{
	return s[n] == '/' ? s + n + 1 : s + n;
}

/* The same for segments: `**` is what `*` is for characters. */
static bool match_path(const char *p, const char *s)
{
	const char *star = NULL, *star_s = NULL;

	for (;;) {
		size_t pn = segment(p), sn = strcspn(s, "/");

		if (pn == 2 && !memcmp(p, "**", 2)) {
			p = star = behind(p, pn);
			star_s = s;
			if (!*p)
				return true;
			continue;
		}
		if (!*p && !*s)
			return true;
		if (*p && *s && match_segment(p, pn, s, sn)) {
			p = behind(p, pn);
			s = behind(s, sn);
			continue;
		}
		if (!star || !*star_s)
			return false;
		star_s = behind(star_s, strcspn(star_s, "/"));
		p = star;
		s = star_s;
	}
}

bool glob_match(const struct glob *g, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *text = g->base_only && slash ? slash + 1 : path;
	bool hit = false;

	for (size_t i = 0; i < g->n && !hit; i++)
		hit = match_path(g->alt[i], text);
	return hit != g->negate;
}

/* ---- compilation ---- */

/* Length of the element at @p, so that braces within classes and behind backslashes are not taken for braces; 0: bad. */
static size_t element(const char *p)
{
	bool hit;

	if (*p == '\\')
		return p[1] ? 2 : 0;
	if (*p == '[')
		return match_class(p, strlen(p), 0, &hit);
	return 1;
}

static int check(const char *p)
{
	int depth = 0;

	while (*p) {
		size_t n = element(p);

		if (!n)
			return -EINVAL;
		if (n == 1 && *p == '{')
			depth++;
		if (n == 1 && *p == '}' && --depth < 0)
			return -EINVAL;
		p += n;
	}
	return depth ? -EINVAL : 0;
}

/* Where the first brace of @p opens, or NULL; the pattern has been checked. */
static const char *first_brace(const char *p)
{
	while (*p && *p != '{')
		p += element(p);
	return *p ? p : NULL;
}

static int put_joined(struct glob *g, const char *a, size_t an, const char *b, size_t bn, const char *c)
{
	size_t cn = strlen(c);
	char *text;

	if (g->n >= GLOB_ALTERNATIVES || an + bn + cn > GLOB_PATTERN_BYTES)
		return -E2BIG;
	text = malloc(an + bn + cn + 1);
	if (!text)
		return -ENOMEM;
	memcpy(text, a, an);
	memcpy(text + an, b, bn);
	memcpy(text + an + bn, c, cn + 1);
	g->alt[g->n++] = text;
	return 0;
}

/* Replaces alternative @at, which has a brace at @open, by one for each part of that brace. */
static int split_brace(struct glob *g, size_t at, const char *open)
{
	char *whole = g->alt[at];
	const char *part = open + 1, *close = part;
	int depth = 0, r = 0;

	/* the end first: what follows it is the tail of every part */
	for (const char *p = part; !(depth == 0 && *p == '}'); p += element(p)) {
		depth += *p == '{';
		depth -= *p == '}';
		close = p + element(p);
	}
	g->alt[at] = g->alt[--g->n];
	depth = 0;
	for (const char *p = part; !r; p += element(p)) {
		if (depth == 0 && (*p == ',' || p == close)) {
			r = put_joined(g, whole, (size_t)(open - whole), part, (size_t)(p - part), close + 1);
			part = p + 1;
			if (p == close)
				break;
		}
		depth += *p == '{';
		depth -= *p == '}';
	}
	free(whole);
	return r;
}

static int expand(struct glob *g)
{
	for (size_t i = 0; i < g->n;) {
		const char *open = first_brace(g->alt[i]);

		if (!open) {
			i++;
			continue;
		}
		int r = split_brace(g, i, open);
		if (r)
			return r;
	}
	return 0;
}

int glob_compile(const char *pattern, struct glob *ret)
{
	size_t n = strlen(pattern);

	*ret = (struct glob){0};
	if (n > GLOB_PATTERN_BYTES)
		return -E2BIG;
	if (n >= 3 && pattern[0] == '!' && pattern[1] == '(' && pattern[n - 1] == ')') {
		ret->negate = true;
		pattern += 2;
		n -= 3;
	}
	while (n > 3 && !strncmp(pattern, "**/", 3)) {
		/* the search goes to any depth anyway */
		if (memchr(pattern + 3, '/', n - 3))
			break;
		pattern += 3;
		n -= 3;
	}
	int r = put_joined(ret, pattern, n, "", 0, "");
	if (!r)
		r = check(ret->alt[0]);
	ret->base_only = !r && !strchr(ret->alt[0], '/');
	if (!r)
		r = expand(ret);
	if (r)
		glob_clear(ret);
	return r;
}

void glob_clear(struct glob *g)
{
	while (g->n)
		free(g->alt[--g->n]);
}
