/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "netpolicy/overlay.h"

#define FILE_BYTES_MAX (4u << 20)
/* An editor writes, closes and renames: read once it is quiet, and well within the two seconds that a change may take. */
#define QUIET_MS 50u

struct overlay {
	char *path[2]; /* owned; deny, allow */
	struct policy *policy; /* owned */
	void (*changed)(void *arg);
	void *arg;
	int inotify_fd; /* owned */
	struct loop_fd *source;
	struct loop_timer *quiet; /* owned */
};

static int read_line(const char *path, unsigned line, const char *text, uint32_t flags, struct policy *p, struct sbx_err *err)
{
	struct policy_rule rule;
	struct target t;

	if (target_parse(text, &t, err))
		return sbx_err_wrap(err, "%s:%u", path, line);
	policy_rule_set(&rule, &t, text, flags);
	return policy_add(p, &rule, err);
}

static int read_file(const char *path, uint32_t flags, struct policy *p, struct sbx_err *err)
{
	auto_free char *text = NULL;
	auto_file in = NULL;
	struct stat st;
	size_t size = 0;
	auto_fd fd = -1;
	ssize_t n;

	if (!*path)
		return 0;
	/* Not by what it opens: a FIFO would block. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "%s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: not a regular file, or larger than %u bytes", path, FILE_BYTES_MAX);
	in = fdopen(fd, "r");
	if (!in)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "%s", path);
	fd = -1;
	for (unsigned line = 1; (n = getline(&text, &size, in)) >= 0; line++) {
		char *start = text + strspn(text, " \t\r");

		while (n && strchr(" \t\r\n", text[n - 1]))
			text[--n] = '\0';
		if (!*start || *start == '#')
			continue;
		if (read_line(path, line, start, flags, p, err))
			return -1;
	}
	return ferror(in) ? sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", path) : 0;
}

static struct policy *read_both(const struct overlay *o, struct sbx_err *err)
{
	struct policy *p = policy_new(false);

	if (!p)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "operator's rules");
	else if (!read_file(o->path[0], EGRESS_RULE_OPERATOR, p, err) &&
		 !read_file(o->path[1], EGRESS_RULE_OPERATOR | EGRESS_RULE_ALLOW, p, err) && !policy_seal(p, err))
		return p;
	policy_free(p);
	return NULL;
}

int overlay_names(const char *path, struct policy **ret, struct sbx_err *err)
{
	struct policy *p = NULL;

	*ret = NULL;
	if (!*path)
		return 0;
	p = policy_new(false);
	if (!p)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "%s", path);
	int r = read_file(path, EGRESS_RULE_ALLOW, p, err);
	for (uint32_t i = 0; r == 0 && i < policy_count(p); i++)
		if (!*policy_at(p, i)->name)
			r = sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: \"%.60s\" is an address, names are wanted", path, policy_at(p, i)->text);
	if (r == 0)
		r = policy_seal(p, err);
	if (r == 0)
		*ret = p;
	else
		policy_free(p);
	return r;
}

static bool same(const struct policy *a, const struct policy *b)
{
	bool equal = policy_count(a) == policy_count(b);

	for (uint32_t i = 0; equal && i < policy_count(a); i++)
		equal = policy_at(a, i)->flags == policy_at(b, i)->flags && !strcmp(policy_at(a, i)->text, policy_at(b, i)->text);
	return equal;
}

static void reload(void *arg)
{
	struct overlay *o = arg;
	struct sbx_err err = {0};
	struct policy *p = read_both(o, &err);

	if (!p) {
		log_error("operator's rules: %s; the old ones stay", err.msg);
		return;
	}
	if (same(p, o->policy)) {
		policy_free(p);
		return;
	}
	policy_free(o->policy);
	o->policy = p;
	log_info("operator's rules: %u are in force", policy_count(p));
	o->changed(o->arg);
}

static void on_inotify(void *arg, int fd, uint32_t events)
{
	_Alignas(struct inotify_event) char buf[4096];
	struct overlay *o = arg;

	(void)events;
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	loop_timer_arm(o->quiet, QUIET_MS);
}

static int watch(struct overlay *o, const char *path, struct sbx_err *err)
{
	const char *slash = strrchr(path, '/');
	auto_free char *dir = NULL;

	if (!slash)
		return 0;
	dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!dir)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "operator's rules");
	if (inotify_add_watch(o->inotify_fd, dir, IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "watch %s for %s", dir, slash + 1);
	return 0;
}

struct overlay *overlay_new(struct loop *loop, const char *deny_path, const char *allow_path, void (*changed)(void *arg), void *arg,
			    struct sbx_err *err)
{
	struct overlay *o = calloc(1, sizeof(*o));

	if (!o) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "operator's rules");
		return NULL;
	}
	*o = (struct overlay){.changed = changed, .arg = arg};
	o->path[0] = strdup(deny_path);
	o->path[1] = strdup(allow_path);
	o->quiet = loop_timer_new(loop, reload, o);
	o->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (o->inotify_fd >= 0)
		o->source = loop_fd_add(loop, o->inotify_fd, EPOLLIN, on_inotify, o);
	if (!o->path[0] || !o->path[1] || !o->quiet || !o->source)
		sbx_err_set(err, SBX_E_SYSTEM, errno, "operator's rules");
	else if (!watch(o, o->path[0], err) && !watch(o, o->path[1], err)) /* first watched, then read: no change is lost */
		o->policy = read_both(o, err);
	if (o->policy)
		return o;
	overlay_free(o);
	return NULL;
}

void overlay_free(struct overlay *o)
{
	if (!o)
		return;
	loop_fd_remove(o->source);
	close_keep_errno(o->inotify_fd);
	loop_timer_free(o->quiet);
	policy_free(o->policy);
	free(o->path[0]);
	free(o->path[1]);
	free(o);
}

const struct policy *overlay_policy(const struct overlay *o)
{
	return o ? o->policy : NULL;
}
