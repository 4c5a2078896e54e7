/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers and tables of the host side that need no root: mount table, prefixes, id ranges, addresses. */
#include "config.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <errno.h>
#include <unistd.h>

#include "runtime/broker/cgroup_int.h"
#include "runtime/broker/fw_rules.h"
#include "runtime/broker/host_check.h"
#include "base/cleanup.h"
#include "base/settings.h"
#include "runtime/broker/links.h"
#include "runtime/broker/sysctl_record.h"
#include "tests/tap.h"

static const char hybrid[] =
	"25 1 0:23 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	"26 1 0:24 / /sys/fs/cgroup/cpu rw,relatime shared:5 master:3 - cgroup cgroup rw,cpu\n"
	"27 1 0:25 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n"
	"28 1 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
	"29 1 0:27 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n"
	"30 1 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

static const struct {
	const char *why, *text;
	int result;
	enum cgroup_tree tree;
	const char *mount;
} mounts[] = {
	{"hybrid: v2 tree", hybrid, 0, CGROUP_TREE_V2, "/sys/fs/cgroup/unified"},
	{"hybrid: memory", hybrid, 0, CGROUP_TREE_MEMORY, "/sys/fs/cgroup/memory"},
	{"hybrid: cpu is not cpuacct", hybrid, 0, CGROUP_TREE_CPU, "/sys/fs/cgroup/cpu"},
	{"co-mounted controllers", "1 1 0:1 / /c rw - cgroup c rw,cpu,cpuacct\n", 0, CGROUP_TREE_CPU, "/c"},
	{"cpuacct alone is no cpu", "1 1 0:1 / /c rw - cgroup c rw,cpuacct\n", 0, CGROUP_TREE_CPU, ""},
	{"a part of a tree is not its root", "1 1 0:1 /docker/x /c rw - cgroup2 c rw\n", 0, CGROUP_TREE_V2, ""},
	{"the first mount counts", "1 1 0:1 / /a rw - cgroup2 c rw\n2 1 0:1 / /b rw - cgroup2 c rw\n", 0, CGROUP_TREE_V2, "/a"},
	{"other file systems do not", "1 1 0:1 / / rw - ext4 /dev/a rw\n", 0, CGROUP_TREE_V2, ""},
	{"no separator", "1 1 0:1 / /a rw cgroup2 c rw\n", -EINVAL, CGROUP_TREE_V2, ""},
	{"cut after the separator", "1 1 0:1 / /a rw -\n", -EINVAL, CGROUP_TREE_V2, ""},
};

static const struct {
	const char *text;
	int result;
	uint32_t addr, prefix;
} prefixes[] = {
	{"10.0.0.0/8", 0, 0x0a000000, 8},
	{"10.1.2.3", 0, 0x0a010203, 32},
	{"0.0.0.0/0", 0, 0, 0},
	{"10.1.0.0/8", -EINVAL, 0, 0},
	{"10.0.0.0/33", -EINVAL, 0, 0},
	{"10.0.0.0/", -EINVAL, 0, 0},
	{"10.0.0/8", -EINVAL, 0, 0},
	{"010.0.0.0/8", -EINVAL, 0, 0},
	{"10.0.0.0/8 ", -EINVAL, 0, 0},
	{"10.0.0.0/8; flush ruleset", -EINVAL, 0, 0},
	{"", -EINVAL, 0, 0},
	{"::1/128", -EINVAL, 0, 0},
	{"10.0.0.0/+8", -EINVAL, 0, 0},
};

static const struct {
	const char *why, *file, *text;
	uint32_t first, count;
	int result;
	const char *says;
} ids[] = {
	{"nothing there", "passwd", "", 1900000000, 65536, 0, NULL},
	{"ordinary accounts", "passwd", "root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n", 1900000000, 65536, 0, NULL},
	{"an account inside", "passwd", "svc:x:1900000005:100::/:/bin/sh\n", 1900000000, 65536, -1, "1900000005 belongs to \"svc\""},
	{"a group inside", "group", "svc:x:1900000005:\n", 1900000000, 65536, -1, "group line 1"},
	{"our own account", "passwd", "sandboxd:x:1900000005:100::/:/bin/sh\n", 1900000000, 65536, 0, NULL},
	{"a range that overlaps", "subuid", "# comment\nlxd:1900065535:10\n", 1900000000, 65536, -1, "subuid line 2"},
	{"a range around ours", "subgid", "lxd:1800000000:300000000\n", 1900000000, 65536, -1, "of \"lxd\""},
	{"a range that ends before", "subuid", "lxd:1899999990:10\n", 1900000000, 65536, 0, NULL},
	{"a range that starts behind", "subuid", "lxd:1900065536:10\n", 1900000000, 65536, 0, NULL},
	{"our registered line", "subuid", "sandboxd:1900000000:65536\n", 1900000000, 65536, 0, NULL},
	{"the same range by another name is ours", "subuid", "1899:1900000000:65536\n", 1900000000, 65536, 0, NULL},
	{"a range of no length", "subuid", "lxd:1900000000:0\n", 1900000000, 65536, 0, NULL},
	{"a broken line is nobody's", "subuid", "lxd\nlxd:x:y\n", 1900000000, 65536, 0, NULL},
	{"ids of the system", "passwd", "", 0, 65536, -1, "are not in"},
	{"past 2^31", "passwd", "", 0x7fff0000, 0x20000, -1, "are not in"},
};

static int write_into(const char *dir, const char *name, const char *text)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	if (!f)
		return -1;
	fputs(text, f);
	return fclose(f);
}

static void test_ids(void)
{
	static const char *const names[] = {"passwd", "group", "subuid", "subgid"};
	char dir[] = "/tmp/test_hostside.XXXXXX", path[300];

	if (!ok(mkdtemp(dir) != NULL, "temporary directory"))
		return;
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		struct sbx_err err = {0};
		int r = 0;

		for (size_t k = 0; k < 4; k++)
			r |= write_into(dir, names[k], strcmp(names[k], ids[i].file) ? "" : ids[i].text);
		is_int(r, 0, "files written");
		is_int(host_check_ids_in(dir, ids[i].first, ids[i].count, "sandboxd", &err), ids[i].result, "ids: %s", ids[i].why);
		if (ids[i].says && !ok(strstr(err.msg, ids[i].says) != NULL, "ids: %s: the text says why", ids[i].why))
			printf("# %s\n", err.msg);
	}
	for (size_t k = 0; k < 4; k++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[k]);
		unlink(path);
	}
	rmdir(dir);
}

static void test_fields(void)
{
	uint64_t v = 0;

	is_int(cgroup_field("oom 1\noom_kill 7\n", "oom_kill", &v), 0, "field behind a line with the same start");
	is_int(v, 7, "its value");
	is_int(cgroup_field("oom_kill_disable 0\n", "oom_kill", &v), -ENOENT, "a longer word is another field");
	is_int(cgroup_field("", "x", &v), -ENOENT, "empty text");
	is_int(cgroup_controllers_parse("cpuset cpu io memory hugetlb pids rdma misc\n"), CGROUP_CPU | CGROUP_MEMORY | CGROUP_PIDS,
	       "controllers of a stock kernel");
	is_int(cgroup_controllers_parse("hugetlb\n"), 0, "controllers of the hybrid host");
	is_int(cgroup_controllers_parse("cpuset\n"), 0, "cpuset is not cpu");
}

static void test_addresses(void)
{
	struct links_config c = {.subnet_addr = 0x0ae70000, .subnet_prefix = 28};
	char name[IFNAMSIZ];

	is_int(links_addr(&c, 0), 0x0ae70001, "first address");
	is_int(links_addr(&c, 13), 0x0ae7000e, "last address of a /28");
	is_int(links_addr(&c, 14), 0, "none behind it");
	is_int(links_addr(&c, UINT32_MAX), 0, "nor for a slot that would wrap");
	links_name(UINT32_MAX, name);
	is_str(name, "sffffffff", "the longest interface name fits");
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *f = fopen(path, "we");
	ok(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s is written", path);
}

/* Restoring half a value would leave the host in a state that it never had. */
static void test_cut_records(void)
{
	static const struct {
		const char *why, *text;
	} cut[] = {
		{"the last line has no end", "net/ipv4/ip_forward 0\nnet/ipv4/conf/eth0/forwa"},
		{"a value is missing", "net/ipv4/ip_forward\n"},
		{"an empty value", "net/ipv4/ip_forward \n"},
		{"an empty line", "\n"},
		{"a path that leaves /proc/sys", "../../etc/passwd x\n"},
		{"an absolute path", "/etc/passwd x\n"},
	};
	char dir[] = "/tmp/sbx-record.XXXXXX", path[64];
	struct sbx_err err = {0};

	ok(mkdtemp(dir) != NULL, "a directory");
	snprintf(path, sizeof(path), "%s/sysctl", dir);
	is_int(sysctl_record_undo(dir, &err), 0, "no record: nothing to undo");
	for (size_t i = 0; i < ARRAY_SIZE(cut); i++) {
		put(dir, "sysctl", cut[i].text);
		is_int(sysctl_record_undo(dir, &err), -1, "cut record: %s", cut[i].why);
		ok(access(path, F_OK) == 0 && strstr(err.msg, path), "and it stays, named: %s", err.msg);
	}
	put(dir, "sysctl", "");
	is_int(sysctl_record_undo(dir, &err), 0, "an empty record is whole");
	ok(access(path, F_OK) < 0 && rmdir(dir) == 0, "and goes");
}

/* Directories that root owns, with others kept out or let in. */
static void test_host_paths(void)
{
	static char *const none[] = {NULL}, *const mine[] = {(char *)(uintptr_t)"/nothing/there"};
	struct settings_texts paths = {.n = 0, .item = (char **)(uintptr_t)none};
	struct host_check_context context = {.state_dir = "/tmp", .host_paths = &paths};
	char dir[] = "/var/tmp/sbx-paths.XXXXXX", inner[64];
	char *item[] = {inner};
	struct host_row row;

	is_int(host_check_row(HOST_CHECK_HOST_PATHS, &context, &row), 0, "row of the host paths");
	is_int(row.verdict, HOST_OK, "none is fine: %s", row.found);
	paths = (struct settings_texts){.n = 1, .item = (char **)(uintptr_t)mine};
	is_int(host_check_row(HOST_CHECK_HOST_PATHS, &context, &row), 0, "row of the host paths");
	is_int(row.verdict, HOST_OK, "one that is not there is fine: %s", row.found);
	if (geteuid()) {
		tap_skip("directories of root", "needs root");
		return;
	}
	ok(mkdtemp(dir) && chmod(dir, 0755) == 0, "a directory of root");
	snprintf(inner, sizeof(inner), "%s/data", dir);
	ok(mkdir(inner, 0755) == 0, "and one in it");
	paths = (struct settings_texts){.n = 1, .item = item};
	ok(host_check_row(HOST_CHECK_HOST_PATHS, &context, &row) == 0 && row.verdict == HOST_WARN, "others reach it: %s", row.found);
	ok(strstr(row.found, inner) && *row.costs && *row.mend, "named, with what to do");
	ok(chmod(dir, 0750) == 0 && host_check_row(HOST_CHECK_HOST_PATHS, &context, &row) == 0 && row.verdict == HOST_OK,
	   "behind a directory that keeps others out it is fine");
	ok(chmod(dir, 0755) == 0 && chown(inner, 1234, 1234) == 0 && host_check_row(HOST_CHECK_HOST_PATHS, &context, &row) == 0 &&
	   row.verdict == HOST_OK, "so is that of an ordinary user");
	ok(rmdir(inner) == 0 && rmdir(dir) == 0, "cleaned up");
}

int main(void)
{
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		struct cgroup_mounts m = {0};

		is_int(cgroup_detect_parse(mounts[i].text, &m), mounts[i].result, "mount table: %s", mounts[i].why);
		is_str(m.mount[mounts[i].tree], mounts[i].mount, "mount table: %s: where", mounts[i].why);
	}
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		struct fw_rules_prefix p = {0};

		is_int(fw_rules_parse_prefix(prefixes[i].text, &p), prefixes[i].result, "prefix \"%s\"", prefixes[i].text);
		ok(p.addr == prefixes[i].addr && p.prefix == prefixes[i].prefix, "prefix \"%s\": value", prefixes[i].text);
	}
	test_ids();
	test_fields();
	test_addresses();
	test_cut_records();
	test_host_paths();
	return tap_done();
}
