// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_users.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct fields {
	const char *at[7];
	size_t len[7];
	unsigned n;
};

int users_id(const char *text, size_t n, uint32_t *ret)
{
	uint64_t v = 0;

	if (!n || n > 10)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		v = v * 10 + (uint64_t)(text[i] - '0');
	}
	if (v > USERS_MAX_ID)
		return -EINVAL;
	*ret = (uint32_t)v;
	return 0;
}

/* Takes the next line from @*text and splits it at colons; Return: 0 at the end. */
static int next_line(const char **text, const char *end, unsigned *lines, struct fields *ret)
{
	const char *line = *text;

	if (line >= end || (*lines)++ >= USERS_LINES)
		return 0;
	const char *eol = memchr(line, '\n', (size_t)(end - line));
	const char *stop = eol ? eol : end;
	*text = eol ? eol + 1 : end;
	ret->n = 0;
	for (const char *s = line; ret->n < 7;) {
		const char *colon = memchr(s, ':', (size_t)(stop - s));
		const char *e = colon ? colon : stop;

		ret->at[ret->n] = s;
		ret->len[ret->n++] = (size_t)(e - s);
		if (!colon)
			break;
		s = colon + 1;
	}
	return 1;
}

static int field_is(const struct fields *f, unsigned i, const char *want)
{
	return f->len[i] == strlen(want) && !memcmp(f->at[i], want, f->len[i]);
}

static void copy_field(const struct fields *f, unsigned i, char *out, size_t size)
{
	/* a value that does not fit is left out rather than cut: half a path is another path */
	if (f->len[i] >= size || memchr(f->at[i], 0, f->len[i])) {
		*out = 0;
		return;
	}
	memcpy(out, f->at[i], f->len[i]);
	out[f->len[i]] = 0;
}

int users_find_passwd(const char *text, size_t n, const char *name, uint32_t uid, struct users_identity *ret)
{
	struct fields f;
	unsigned lines = 0;
	uint32_t u, g;

	for (const char *end = text + n; next_line(&text, end, &lines, &f);) {
		if (f.n < 4 || !f.len[0] || users_id(f.at[2], f.len[2], &u) || users_id(f.at[3], f.len[3], &g))
			continue;
		if (name ? !field_is(&f, 0, name) : u != uid)
			continue;
		ret->uid = u;
		ret->gid = g;
		copy_field(&f, 0, ret->name, sizeof(ret->name));
		ret->home[0] = 0;
		if (f.n > 5 && f.len[5] && f.at[5][0] == '/')
			copy_field(&f, 5, ret->home, sizeof(ret->home));
		return 0;
	}
	return -ENOENT;
}

int users_find_group(const char *text, size_t n, const char *name, uint32_t *ret)
{
	struct fields f;
	unsigned lines = 0;

	for (const char *end = text + n; next_line(&text, end, &lines, &f);)
		if (f.n >= 3 && f.len[0] && field_is(&f, 0, name) && !users_id(f.at[2], f.len[2], ret))
			return 0;
	return -ENOENT;
}

int users_group_name(const char *text, size_t n, uint32_t gid, char *out, size_t size)
{
	struct fields f;
	unsigned lines = 0;
	uint32_t g;

	for (const char *end = text + n; next_line(&text, end, &lines, &f);) {
		if (f.n < 3 || !f.len[0] || users_id(f.at[2], f.len[2], &g) || g != gid)
			continue;
		copy_field(&f, 0, out, size);
		return *out ? 0 : -ENOENT;
	}
	return -ENOENT;
}

static int lists_member(const char *list, size_t n, const char *name)
{
	size_t len = strlen(name);

	for (const char *end = list + n; list <= end;) {
		const char *comma = memchr(list, ',', (size_t)(end - list));
		size_t part = (size_t)((comma ? comma : end) - list);

		if (part == len && !memcmp(list, name, len))
			return 1;
		if (!comma)
			break;
		list = comma + 1;
	}
	return 0;
}

void users_add_groups(const char *text, size_t n, struct users_identity *id)
{
	struct fields f;
	unsigned lines = 0;
	uint32_t g;

	if (!id->name[0])
		return;
	for (const char *end = text + n; id->n_groups < USERS_GROUPS && next_line(&text, end, &lines, &f);)
		if (f.n >= 4 && !users_id(f.at[2], f.len[2], &g) && g != id->gid &&
		    lists_member(f.at[3], f.len[3], id->name))
			id->groups[id->n_groups++] = g;
}

int users_load(const char *path, char **ret, size_t *ret_n)
{
	struct stat st;
	auto_fd fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	*ret = NULL;
	*ret_n = 0;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	size_t size = st.st_size > (off_t)USERS_FILE_BYTES ? USERS_FILE_BYTES : (size_t)st.st_size;
	char *text = malloc(size + 1);
	if (!text)
		return -ENOMEM;
	size_t got = 0;
	for (ssize_t r; got < size && (r = read(fd, text + got, size - got)) > 0;)
		got += (size_t)r;
	text[got] = 0;
	*ret = text;
	*ret_n = got;
	return 0;
}

static int add_member_groups(struct users_identity *id)
{
	auto_free char *text = NULL;
	size_t n;
	int r = users_load("/etc/group", &text, &n);

	if (!r && text)
		users_add_groups(text, n, id);
	return r;
}

static int find_group(const char *spec, uint32_t *ret)
{
	auto_free char *text = NULL;
	size_t n;

	if (!users_id(spec, strlen(spec), ret))
		return 0;
	int r = users_load("/etc/group", &text, &n);
	return r ? r : text ? users_find_group(text, n, spec, ret) : -ENOENT;
}

int users_resolve_uid(uint32_t uid, const uint32_t *gid, struct users_identity *ret)
{
	auto_free char *text = NULL;
	size_t n;

	*ret = (struct users_identity){.uid = uid};
	if (uid > USERS_MAX_ID || (gid && *gid > USERS_MAX_ID))
		return -EINVAL;
	int r = users_load("/etc/passwd", &text, &n);
	if (r)
		return r;
	int known = text && !users_find_passwd(text, n, NULL, uid, ret);
	if (gid)
		ret->gid = *gid;
	return known ? add_member_groups(ret) : 0;
}

int users_resolve(const char *spec, struct users_identity *ret)
{
	auto_free char *text = NULL;
	char name[USERS_NAME_BYTES];
	const char *colon = strchr(spec, ':');
	size_t len = colon ? (size_t)(colon - spec) : strlen(spec), n;
	uint32_t uid, gid = 0;

	if (len >= sizeof(name))
		return -EINVAL;
	memcpy(name, spec, len);
	name[len] = 0;
	if (colon && colon[1]) {
		int r = find_group(colon + 1, &gid);

		if (r)
			return r;
	}
	const uint32_t *want_gid = colon && colon[1] ? &gid : NULL;
	if (!len)
		return users_resolve_uid(0, want_gid, ret);
	if (!users_id(name, len, &uid))
		return users_resolve_uid(uid, want_gid, ret);
	if (name[0] >= '0' && name[0] <= '9' && strspn(name, "0123456789") == len)
		return -EINVAL;
	*ret = (struct users_identity){0};
	int r = users_load("/etc/passwd", &text, &n);
	if (!r)
		r = text ? users_find_passwd(text, n, name, 0, ret) : -ENOENT;
	/* an image without passwd still has root */
	if (r == -ENOENT && !strcmp(name, "root"))
		r = 0;
	if (r)
		return r;
	if (want_gid) {
		ret->gid = gid;
		return 0; /* as Docker: a named group replaces the member groups */
	}
	return add_member_groups(ret);
}
