// SPDX-License-Identifier: Apache-2.0
/* The parts of sandbox-agent that need no sandbox, compiled for the host. */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "runtime/agent/agent_env.h"
#include "runtime/agent/agent_glob.h"
#include "runtime/agent/agent_spec.h"
#include "runtime/agent/agent_words.h"
#include "runtime/agent/agent_spool.h"
#include "runtime/agent/agent_users.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void test_frames(void)
{
	static const struct {
		const char *why;
		struct agent_frame f;
		size_t have;
		int want;
	} rows[] = {
		{"whole", {.size = 4, .type = AGENT_STDIN}, 20, 20},
		{"without payload", {.type = AGENT_STDIN_EOF}, 16, 16},
		{"half a head", {.size = 4, .type = AGENT_STDIN}, 15, 0},
		{"half a payload", {.size = 4, .type = AGENT_STDIN}, 19, 0},
		{"largest", {.size = AGENT_IN_FRAME - 16, .type = AGENT_DATA}, AGENT_IN_FRAME, AGENT_IN_FRAME},
		{"too large", {.size = AGENT_IN_FRAME - 15, .type = AGENT_DATA}, 16, -EPROTO},
		{"size wraps", {.size = UINT32_MAX, .type = AGENT_DATA}, 16, -EPROTO},
		{"no type", {.size = 0}, 16, -EPROTO},
		{"a type of our own answers", {.type = AGENT_EXIT}, 16, -EPROTO},
		{"zero is not zero", {.type = AGENT_EOF, .zero = 1}, 16, -EPROTO},
	};
	static uint8_t data[AGENT_IN_FRAME];
	struct agent_frame f;
	const uint8_t *payload;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		memcpy(data, &rows[i].f, sizeof(rows[i].f));
		is_int(spec_frame(data, rows[i].have, &f, &payload), rows[i].want, "frame: %s", rows[i].why);
	}
}

static void test_specs(void)
{
	static const struct {
		const char *why;
		struct agent_spec spec;
		const char *strings;
		size_t n;
		int entrypoint, want;
	} rows[] = {
		{"a command", {.n_args = 2, .n_env = 1}, "/w\0a\0b\0X=1", 11, 0, 0},
		{"a START with a user", {.n_args = 1}, "/w\0user\0a", 10, 1, 0},
		{"a START without", {.n_args = 1}, "/w\0a", 5, 1, 0},
		{"an EXEC with a user", {.n_args = 1}, "/w\0user\0a", 10, 0, -EPROTO},
		{"no argument", {.n_args = 0}, "/w", 3, 0, -EPROTO},
		{"fewer strings than told", {.n_args = 3}, "/w\0a\0b", 7, 0, -EPROTO},
		{"more strings than told", {.n_args = 1}, "/w\0a\0b", 7, 0, -EPROTO},
		{"no NUL at the end", {.n_args = 1}, "/w\0a", 4, 0, -EPROTO},
		{"a shell has one argument", {.n_args = 2, .flags = AGENT_SPEC_SHELL}, "\0a\0b", 5, 0, -EPROTO},
		{"gid without uid", {.n_args = 1, .flags = AGENT_SPEC_GID}, "\0a", 3, 0, -EPROTO},
		{"counts that wrap", {.n_args = UINT32_MAX, .n_env = 2}, "\0a", 3, 0, -EPROTO},
	};
	struct spec_view v;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint8_t data[128];
		struct agent_spec s = rows[i].spec;

		s.string_bytes = (uint32_t)rows[i].n;
		memcpy(data, &s, sizeof(s));
		memcpy(data + sizeof(s), rows[i].strings, rows[i].n);
		is_int(spec_read(data, sizeof(s) + rows[i].n, rows[i].entrypoint, &v), rows[i].want, "spec: %s", rows[i].why);
		if (i == 0)
			ok(!strcmp(v.cwd, "/w") && !strcmp(v.args, "a") && !strcmp(v.env, "X=1"), "its strings");
		if (i == 1)
			ok(!strcmp(v.user, "user") && !strcmp(v.args, "a"), "its user");
	}
	auto_free uint8_t *big = calloc(1, LIMIT_SPAWN_BYTES + 64);
	struct agent_spec s = {.n_args = 1, .string_bytes = LIMIT_SPAWN_STRING_BYTES + 2};
	memcpy(big, &s, sizeof(s));
	memset(big + sizeof(s) + 1, 'a', LIMIT_SPAWN_STRING_BYTES);
	is_int(spec_read(big, sizeof(s) + s.string_bytes, 0, &v), -EPROTO, "spec: an argument longer than the kernel takes");
	is_int(spec_read(big, sizeof(s) - 1, 0, &v), -EPROTO, "spec: half a head");
}

static void test_fs_specs(void)
{
	uint8_t data[256];
	struct spec_fs v;
	struct agent_fs fs = {.op = AGENT_FS_MOVE, .n_strings = 2, .string_bytes = 6};

	memcpy(data, &fs, sizeof(fs));
	memcpy(data + sizeof(fs), "/a\0/b", 6);
	is_int(spec_read_fs(data, sizeof(fs) + 6, &v), 0, "file request");
	ok(!strcmp(v.strings, "/a") && !strcmp(v.strings + 3, "/b"), "its strings");
	is_int(spec_read_fs(data, sizeof(fs) + 5, &v), -EPROTO, "file request: cut");
	is_int(spec_read_fs(data, sizeof(fs) + 7, &v), -EPROTO, "file request: more behind it");
	fs.string_bytes = UINT32_MAX;
	memcpy(data, &fs, sizeof(fs));
	is_int(spec_read_fs(data, sizeof(fs) + 6, &v), -EPROTO, "file request: a size that wraps");
	fs = (struct agent_fs){.op = AGENT_FS_OP_COUNT};
	memcpy(data, &fs, sizeof(fs));
	is_int(spec_read_fs(data, sizeof(fs), &v), -EPROTO, "file request: no such operation");
}

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "# comment\n"
			     "short:x:5\n"
			     "big:x:4294967295:0::/:/\n"
			     "neg:x:-1:0::/:/\n"
			     "bound:x:2147483646:5::/b:/\n"
			     "rel:x:7:7::home:/bin/sh\n"
			     "user:x:1000:1001:A,B:/home/user:/bin/sh\n"
			     "user:x:2000:2000::/other:/bin/sh\n"
			     ":x:3:3::/:/\n"
			     "last:x:9:9::/last:/bin/sh";
static const char group[] = "root:x:0:\nwheel:x:10:root,user\nlong:x:11:users,xuser\nuser:x:1001:user\nends:x:12:other,user\nbad:x:x:user\n";

static void test_users(void)
{
	static const struct {
		const char *why, *name;
		uint32_t uid;
		int want;
		uint32_t want_uid, want_gid;
		const char *home;
	} rows[] = {
		{"by name, the first line counts", "user", 0, 0, 1000, 1001, "/home/user"},
		{"by uid", NULL, 1000, 0, 1000, 1001, "/home/user"},
		{"without a newline at the end", "last", 0, 0, 9, 9, "/last"},
		{"a home that is not absolute is none", "rel", 0, 0, 7, 7, ""},
		{"the largest id", "bound", 0, 0, 2147483646, 5, "/b"},
		{"an id beyond it does not exist", "big", 0, -ENOENT, 0, 0, NULL},
		{"a negative id does not exist", "neg", 0, -ENOENT, 0, 0, NULL},
		{"a short line", "short", 0, -ENOENT, 0, 0, NULL},
		{"no empty name", "", 0, -ENOENT, 0, 0, NULL},
		{"nobody", "nobody", 0, -ENOENT, 0, 0, NULL},
	};
	struct users_identity id;
	uint32_t gid = 0;
	char name[USERS_NAME_BYTES];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		id = (struct users_identity){0};
		is_int(users_find_passwd(passwd, sizeof(passwd) - 1, rows[i].name, rows[i].uid, &id), rows[i].want, "passwd: %s",
		       rows[i].why);
		if (!rows[i].want)
			ok(id.uid == rows[i].want_uid && id.gid == rows[i].want_gid && !strcmp(id.home, rows[i].home),
			   "passwd: %s: fields", rows[i].why);
	}
	id = (struct users_identity){.gid = 1001, .name = "user"};
	users_add_groups(group, sizeof(group) - 1, &id);
	ok(id.n_groups == 2 && id.groups[0] == 10 && id.groups[1] == 12, "groups that list the user, not its own, not look-alikes");
	ok(!users_find_group(group, sizeof(group) - 1, "wheel", &gid) && gid == 10, "group by name");
	is_int(users_find_group(group, sizeof(group) - 1, "bad", &gid), -ENOENT, "group with a bad number");
	ok(!users_group_name(group, sizeof(group) - 1, 10, name, sizeof(name)) && !strcmp(name, "wheel"), "group by number");

	/* more lines than are read */
	auto_free char *many = malloc(USERS_LINES * 2 + 64);
	memset(many, '\n', USERS_LINES * 2);
	memcpy(many + USERS_LINES * 2, "late:x:1:1::/:/\n", 17);
	is_int(users_find_passwd(many, USERS_LINES * 2 + 16, "late", 0, &id), -ENOENT, "lines beyond the bound are not read");

	char dir[] = "/tmp/sbx-users-XXXXXX", path[64];
	if (!ok(mkdtemp(dir) != NULL, "a directory"))
		return;
	auto_free char *text = NULL;
	size_t n = 1;
	snprintf(path, sizeof(path), "%s/fifo", dir);
	ok(!mkfifo(path, 0600) && !users_load(path, &text, &n) && !text && !n, "a FIFO is not read and does not block");
	unlink(path);
	ok(!symlink("/etc/passwd", path) && !users_load(path, &text, &n) && !text, "nor what a link leads to");
	unlink(path);
	auto_fd fd = open(path, O_RDWR | O_CREAT, 0600);
	ok(fd >= 0 && !ftruncate(fd, 5 << 20) && !users_load(path, &text, &n) && n == USERS_FILE_BYTES, "1 MiB of a large one");
	unlink(path);
	rmdir(dir);
}

static void test_env(void)
{
	struct env_set base = {0}, set = {0};
	char *text = NULL;
	static const struct {
		const char *in, *kept, *emptied;
	} rows[] = {
		{"$A/x", "1/x", "1/x"},	     {"${A}x", "1x", "1x"},   {"$NO/x", "$NO/x", "/x"}, {"${NO}x", "${NO}x", "x"},
		{"$", "$", "$"},	     {"a$", "a$", "a$"},      {"${", "${", "${"},	{"${A", "${A", "${A"},
		{"$1", "$1", "$1"},	     {"$$A", "$1", "$1"},     {"${}", "${}", "${}"},	{"plain", "plain", "plain"},
		{"$A$B", "12", "12"},	     {"\"$A\"", "\"1\"", "\"1\""},
	};
	static const struct {
		const char *in, *out;
	} paths[] = {{"~", "/h"}, {"~/x", "/h/x"}, {"~user/x", "~user/x"}, {"/a/~", "/a/~"}, {"$A/$NO", "1/$NO"}, {"", ""}};

	ok(!env_put(&base, "A=1") && !env_put(&base, "B=2") && !env_put(&base, "HOME=/h"), "entries");
	is_int(env_put(&base, "=x"), -EINVAL, "an entry without a name");
	is_int(env_put(&base, "x"), -EINVAL, "an entry without a value");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ok(!env_expand(&base, rows[i].in, strlen(rows[i].in), 1, &text), "expand %s", rows[i].in);
		is_str(text, rows[i].kept, "unset names kept");
		free(take_ptr(text));
		ok(!env_expand(&base, rows[i].in, strlen(rows[i].in), 0, &text), "expand %s", rows[i].in);
		is_str(text, rows[i].emptied, "unset names empty");
		free(take_ptr(text));
	}
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		ok(!env_path(&base, paths[i].in, &text), "path %s", paths[i].in);
		is_str(text, paths[i].out, "path %s expands", paths[i].in);
		free(take_ptr(text));
	}
	static const char file[] = "# comment\n\n A=file \nC=$A:${B}\nexport\nD='q'\nA=last\n=no\nE=";
	ok(!env_put(&set, "A=1") && !env_file(&set, &base, file, sizeof(file) - 1), "a file");
	is_str(env_get(&set, "A", 1), "last", "later lines win");
	is_str(env_get(&set, "C", 1), "1:2", "values use the base");
	is_str(env_get(&set, "D", 1), "'q'", "quotes are kept");
	is_str(env_get(&set, "E", 1), "", "an empty value");
	is_int(set.n, 4, "nothing else");
	ok(set.at[set.n] == NULL, "fit for execve");
	env_clear(&set);
	env_clear(&base);
}

static void test_globs(void)
{
	static const struct {
		const char *pattern, *path;
		int want; /* 1, 0, or a negative errno of the pattern */
	} rows[] = {
		{"*.txt", "a.txt", 1},	       {"*.txt", "d/e/a.txt", 1},   {"**/*.txt", "d/e/a.txt", 1},
		{"**/*.txt", "a.txt", 1},      {"sub/*.py", "sub/a.py", 1}, {"sub/*.py", "x/sub/a.py", 0},
		{"**/sub/*.py", "x/sub/a.py", 1}, {"a/**/z", "a/z", 1},	    {"a/**/z", "a/b/c/z", 1},
		{"a/**", "a/b/c", 1},	       {"a/**/b/**/c", "a/x/b/y/b/z/c", 1}, {"a/*/c", "a/b/b/c", 0},
		{"**", "any/thing", 1},	       {"*", ".hidden", 1},	    {"?", "a", 1},
		{"?", "\xc3\xbc", 1},	       {"?", "ab", 0},		    {"[abc]", "b", 1},
		{"[a-c]x", "bx", 1},	       {"[!a-c]", "b", 0},	    {"[^a]", "b", 1},
		{"[]]", "]", 1},	       {"[a\\-c]", "-", 1},	    {"\\*", "*", 1},
		{"\\*", "a", 0},	       {"{a,b}", "b", 1},	    {"{a,b{c,d}}x", "bdx", 1},
		{"{a,b{c,d}}x", "bx", 0},      {"{,a}b", "b", 1},	    {"[{]", "{", 1},
		{"!(*.txt)", "a.py", 1},       {"!(*.txt)", "a.txt", 0},    {"", "a", 0},
		{"[", "a", -EINVAL},	       {"{a", "a", -EINVAL},	    {"a}", "a", -EINVAL},
		{"a\\", "a", -EINVAL},	       {"[z-a]", "a", -EINVAL},
		{"*a*a*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0},
		{"**/a/**/a/**/a/**/a/**/b", "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a", 0},
		{"{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", "aaaaaaaaa", -E2BIG},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct glob g;
		int r = glob_compile(rows[i].pattern, &g);

		is_int(r ? r : glob_match(&g, rows[i].path), rows[i].want, "glob %s on %s", rows[i].pattern, rows[i].path);
		if (!r)
			glob_clear(&g);
	}
}

static void test_spool(void)
{
	struct spool s;
	auto_fd fd = memfd_create("spool", MFD_CLOEXEC);
	auto_free uint8_t *data = malloc(1 << 20), *back = malloc(1 << 20);
	uint64_t from;
	struct stat st;

	for (size_t i = 0; i < 1 << 20; i++)
		data[i] = (uint8_t)(i * 31 >> 3);
	spool_init(&s);
	spool_append(&s, fd, data, 1000);
	ok(!fstat(fd, &st) && st.st_blocks == 0, "small output touches no file");
	ok(spool_read(&s, fd, 10, back, 1 << 20, &from) == 990 && !memcmp(back, data + 10, 990), "and is read back");
	spool_append(&s, fd, data + 1000, 9000);
	ok(spool_read(&s, fd, 0, back, 1 << 20, &from) == 10000 && !memcmp(back, data, 10000), "more of it goes to the file, whole");
	for (int i = 0; i < 70; i++)
		spool_append(&s, fd, data, 1 << 20);
	is_int(s.total, 10000 + (70 << 20), "offsets count on");
	is_int(s.start, s.total - LIMIT_SPOOL_BYTES, "the ring keeps the last bytes");
	ssize_t n = spool_read(&s, fd, 0, back, 1 << 20, &from);
	ok(n > 0 && from == s.start, "reading what is gone begins at the oldest byte");
	uint64_t at = (from - 10000) % (1 << 20);
	ok(!memcmp(back, data + at, (size_t)n < (1 << 20) - at ? (size_t)n : (1 << 20) - at), "which is the right one");
	is_int(spool_read(&s, fd, s.total, back, 10, &from), 0, "nothing beyond the end");
	spool_drop(&s, fd);
	ok(!fstat(fd, &st) && st.st_blocks == 0, "dropping gives the space back");
	spool_append(&s, -1, data, 5000);
	ok(s.total == 5000 && s.start == 5000, "what cannot be written is lost, and counted");
	spool_drop(&s, -1);
}

/* All commands of a sandbox together: regions are what bounds the file. */
static void test_spool_regions(void)
{
	static struct spool many[SPOOL_REGIONS + 1];
	static const uint8_t data[2 * SPOOL_HEAD];
	auto_fd fd = memfd_create("spool", MFD_CLOEXEC);
	struct stat st;

	for (size_t i = 0; i < SPOOL_REGIONS; i++) {
		spool_init(&many[i]);
		spool_append(&many[i], fd, data, sizeof(data));
	}
	spool_init(&many[SPOOL_REGIONS]);
	ok(spool_wants_region(&many[SPOOL_REGIONS], sizeof(data)), "one more command finds no region");
	spool_append(&many[SPOOL_REGIONS], fd, data, sizeof(data));
	ok(!fstat(fd, &st) && (uint64_t)st.st_size <= SPOOL_REGIONS * LIMIT_SPOOL_BYTES, "and makes the file no larger than %u regions", SPOOL_REGIONS);
	is_int(many[SPOOL_REGIONS].total, sizeof(data), "its output counts");
	spool_drop(&many[0], fd);
	ok(!spool_wants_region(&many[SPOOL_REGIONS], sizeof(data)), "until another one is forgotten");
	for (size_t i = 0; i <= SPOOL_REGIONS; i++)
		spool_drop(&many[i], fd);
}

static void test_words(void)
{
	static const struct {
		const char *why, *text;
		int want;
		const char *joined; /* the words with '|' between them */
	} cases[] = {
		{"plain words", "/only a  b", 3, "/only|a|b"},
		{"blanks around", "  /only\t", 1, "/only"},
		{"single quotes keep all", "/only 'a $b \\ \"c'", 2, "/only|a $b \\ \"c"},
		{"double quotes keep blanks", "/only \"a b\"c", 2, "/only|a bc"},
		{"an escaped quote", "/only \"a\\\"b\"", 2, "/only|a\"b"},
		{"an escaped blank", "/only a\\ b", 2, "/only|a b"},
		{"an empty word", "/only ''", 2, "/only|"},
		{"= behind the program", "/only a=b", 2, "/only|a=b"},
		{"an assignment needs a shell", "A=b /only", -EINVAL, NULL},
		{"a variable needs a shell", "/only $HOME", -EINVAL, NULL},
		{"also in double quotes", "/only \"$HOME\"", -EINVAL, NULL},
		{"a pipe needs a shell", "/only | x", -EINVAL, NULL},
		{"a list needs a shell", "/only;x", -EINVAL, NULL},
		{"a pattern needs a shell", "/only *", -EINVAL, NULL},
		{"a redirection needs a shell", "/only >x", -EINVAL, NULL},
		{"a line break needs a shell", "/only\nx", -EINVAL, NULL},
		{"an open quote", "/only 'a", -EINVAL, NULL},
		{"a backslash at the end", "/only \\", -EINVAL, NULL},
		{"nothing", "", -EINVAL, NULL},
		{"blanks only", "  ", -EINVAL, NULL},
		{"too many", "a b c d e f", -E2BIG, NULL},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char text[64], joined[64] = "";
		const char *argv[6];

		snprintf(text, sizeof(text), "%s", cases[i].text);
		int n = words_split(text, argv, 6);
		is_int(n, cases[i].want, "words: %s", cases[i].why);
		for (int k = 0; k < n; k++)
			snprintf(joined + strlen(joined), sizeof(joined) - strlen(joined), "%s%s", k ? "|" : "", argv[k]);
		if (cases[i].joined)
			is_str(joined, cases[i].joined, "words: %s, their bytes", cases[i].why);
	}
}

int main(void)
{
	test_words();
	test_frames();
	test_specs();
	test_fs_specs();
	test_users();
	test_env();
	test_globs();
	test_spool();
	test_spool_regions();
	return tap_done();
}
