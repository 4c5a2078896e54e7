/* SPDX-License-Identifier: Apache-2.0 */
/* Which hierarchies this host has mounted, and what the v2 tree controls. */
#include "config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"

#include "runtime/broker/cgroup_int.h"

/* Whether the comma-separated list [list, list + n) holds @word. */
static bool list_has(const char *list, size_t n, const char *word)
{
	size_t want = strlen(word);

	while (n) {
		const char *comma = memchr(list, ',', n);
		size_t len = comma ? (size_t)(comma - list) : n;

		if (len == want && !memcmp(list, word, len))
			return true;
		if (!comma)
			return false;
		n -= len + 1;
		list += len + 1;
	}
	return false;
}

static const struct {
	enum cgroup_tree tree;
	const char *option;
} v1_trees[] = {
	{CGROUP_TREE_MEMORY, "memory"},
	{CGROUP_TREE_PIDS, "pids"},
	{CGROUP_TREE_CPU, "cpu"},
	{CGROUP_TREE_DEVICES, "devices"},
};

/* One line: "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue", see proc(5). */
static int parse_line(const char *line, size_t n, struct cgroup_mounts *ret)
{
	const char *field[16];
	size_t len[16], n_fields = 0, sep = 0;

	while (n && n_fields < ARRAY_SIZE(field)) {
		const char *space = memchr(line, ' ', n);
		size_t word = space ? (size_t)(space - line) : n;

		field[n_fields] = line;
		len[n_fields] = word;
		if (n_fields >= 6 && !sep && word == 1 && *line == '-')
			sep = n_fields;
		n_fields++;
		if (!space)
			break;
		line += word + 1;
		n -= word + 1;
	}
	if (!sep || n_fields < sep + 4)
		return -EINVAL;
	/* A bind mount of a part of a tree is not its root. */
	if (len[3] != 1 || len[4] >= CGROUP_PATH_SIZE)
		return 0;
	if (len[sep + 1] == 7 && !memcmp(field[sep + 1], "cgroup2", 7)) {
		if (!*ret->mount[CGROUP_TREE_V2])
			memcpy(ret->mount[CGROUP_TREE_V2], field[4], len[4]);
		return 0;
	}
	if (len[sep + 1] != 6 || memcmp(field[sep + 1], "cgroup", 6))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(v1_trees); i++) {
		char *mount = ret->mount[v1_trees[i].tree];

		if (!*mount && list_has(field[sep + 3], len[sep + 3], v1_trees[i].option))
			memcpy(mount, field[4], len[4]);
	}
	return 0;
}

int cgroup_detect_parse(const char *text, struct cgroup_mounts *ret)
{
	memset(ret->mount, 0, sizeof(ret->mount));
	while (*text) {
		const char *end = strchrnul(text, '\n');
		int r = parse_line(text, (size_t)(end - text), ret);

		if (r < 0)
			return r;
		text = *end ? end + 1 : end;
	}
	return 0;
}

uint32_t cgroup_controllers_parse(const char *text)
{
	static const struct {
		const char *word;
		uint32_t features;
	} words[] = {
		{"memory", CGROUP_MEMORY},
		{"pids", CGROUP_PIDS},
		{"cpu", CGROUP_CPU},
	};
	uint32_t mask = 0;

	while (*text) {
		size_t n = strcspn(text, " \n");

		for (size_t i = 0; i < ARRAY_SIZE(words); i++)
			if (n == strlen(words[i].word) && !memcmp(text, words[i].word, n))
				mask |= words[i].features;
		text += n;
		text += strspn(text, " \n");
	}
	return mask;
}

bool cgroup_swap_present(void)
{
	char text[4096];
	int n = cgroup_read(AT_FDCWD, "/proc/swaps", text, sizeof(text));
	const char *line = n > 0 ? strchr(text, '\n') : NULL;

	/* The first line is the heading.  When it cannot be read, assume the worse. */
	return n < 0 || (line && line[1] != '\0');
}

int cgroup_detect(struct cgroup_mounts *ret, struct sbx_err *err)
{
	struct cgroup_mounts mounts = {0};
	auto_buf text = {.max = 4u << 20};
	auto_fd fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	char controllers[512], path[CGROUP_PATH_SIZE];

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open /proc/self/mountinfo");
	for (;;) {
		char *room = buf_reserve(&text, 65536);
		ssize_t n = room ? read(fd, room, 65536) : -1;

		if (n < 0)
			return sbx_err_set(err, room ? SBX_E_SYSTEM : SBX_E_NO_MEMORY, room ? errno : 0,
					   "read /proc/self/mountinfo");
		buf_commit(&text, (size_t)n);
		if (!n)
			break;
	}
	if (!buf_str(&text) || cgroup_detect_parse(buf_str(&text), &mounts) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "cannot read the mount table");
	if (!*mounts.mount[CGROUP_TREE_V2])
		return sbx_err_set(err, SBX_E_HOST_LACKS, 0,
				   "no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified");
	cgroup_join_path(path, mounts.mount[CGROUP_TREE_V2], "cgroup.controllers");
	if (cgroup_read(AT_FDCWD, path, controllers, sizeof(controllers)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "read %s", path);
	mounts.v2_controllers = cgroup_controllers_parse(controllers);
	*ret = mounts;
	return 0;
}
