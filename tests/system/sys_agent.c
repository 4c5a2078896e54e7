// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandbox-agent alone: commands, streams, limits, attacks from inside
 */
#include "tests/system/agent_harness.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "runtime/agent/agent_sys.h"

static void test_commands(struct harness *h)
{
	static const struct {
		const char *why, *command, *out, *err;
		int code;
	} cases[] = {
		{"output and exit code 0", "echo hello", "hello\n", "", 0},
		{"standard error apart", "echo a; echo b >&2", "a\n", "b\n", 0},
		{"exit code", "exit 7", "", "", 7},
		{"unknown command", "no-such-thing 2>/dev/null", "", "", 127},
		{"killed by a signal", "kill -9 $$", "", "", -1},
		{"environment of the sandbox", "echo $A $HOME", "base /root\n", "", 0},
		{"not traced by the agent's descriptors", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 ", "", 0},
		{"standard input is empty", "cat; echo done", "done\n", "", 0},
		{"bash is preferred", "echo ${BASH_VERSION:+bash}", "bash\n", "", 0},
		{"identity", "id -u; id -g; id -G", "0\n0\n0\n", "", 0},
		{"capabilities", "grep CapEff /proc/self/status", "CapEff:\t00000000000405fb\n", "", 0},
		{"bounding set", "grep CapBnd /proc/self/status", "CapBnd:\t00000000000405fb\n", "", 0},
		{"no new privileges, filter", "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
		 "NoNewPrivs:\t1\nSeccomp:\t2\n", "", 0},
		{"umask and signals", "umask; grep -E '^Sig(Blk|Ign)' /proc/self/status",
		 "0022\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", "", 0},
		{"hostname", "cat /etc/hostname; uname -n", "sandbox\nsandbox\n", "", 0},
		{"name server", "head -1 /etc/resolv.conf", "nameserver 169.254.1.1\n", "", 0},
		{"pid 1 is the agent", "cat /proc/1/comm", "", "", 1},
	};
	struct harness_result r;

	for (size_t i = 0; i < ARRAY_SIZE(cases) - 1; i++) {
		int code = harness_run(h, &r, cases[i].command);

		is_int(code, cases[i].code, "%s: code", cases[i].why);
		if (code > -2) {
			is_str(r.out, cases[i].out, "%s: output", cases[i].why);
			is_str(r.err, cases[i].err, "%s: error output", cases[i].why);
		} else {
			printf("# end reason %u sys %d value %llu %s\n", r.end.reason, r.end.sys,
			       (unsigned long long)r.end.value, r.text);
		}
		harness_clear(&r);
	}
}

/* ---- files ---- */

static int fs(struct harness *h, struct harness_result *r, struct agent_fs req, const char *a, const char *b, const char *c)
{
	const char *const strings[] = {a, b, b ? c : NULL, NULL};

	harness_fs_begin(h, r, req, strings, NULL, NULL);
	if (harness_finish(h, r, 20000) || !r->ended)
		return -3;
	return r->end.reason == AGENT_OK ? 0 : r->end.reason == AGENT_FAILED_SYS ? r->end.sys : -(int)r->end.reason;
}

static int put_file(struct harness *h, struct harness_result *r, struct agent_fs req, const char *path, const char *owner,
		    const char *group, const void *data, size_t n)
{
	const char *const strings[] = {path, owner, group, NULL};
	const uint8_t *at = data;
	uint32_t window = AGENT_WINDOW;
	static uint8_t payload[AGENT_OUT_FRAME];
	struct agent_frame f;

	harness_fs_begin(h, r, req, strings, NULL, NULL);
	while (n && !r->ended) {
		uint32_t part = n < 4000 ? (uint32_t)n : 4000;

		if (window < part) {
			if (harness_recv(h, 20000, &f, payload) < 0)
				return -3;
			if (f.type == AGENT_CREDIT)
				window += f.value;
			continue;
		}
		harness_send(h, AGENT_DATA, r->stream, 0, at, part);
		at += part;
		n -= part;
		window -= part;
	}
	harness_send(h, AGENT_EOF, r->stream, 0, NULL, 0);
	if (harness_finish(h, r, 20000))
		return -3;
	return r->end.reason == AGENT_OK ? 0 : r->end.reason == AGENT_FAILED_SYS ? r->end.sys : -(int)r->end.reason;
}

struct record {
	struct agent_file_record head;
	const char *path, *owner, *group;
};

/* Takes record @i of the answer. */
static bool record_at(const struct harness_result *r, size_t i, struct record *ret)
{
	const char *at = r->out, *end = r->out + r->n_out;

	for (;; i--) {
		if (at + sizeof(ret->head) > end)
			return false;
		memcpy(&ret->head, at, sizeof(ret->head));
		ret->path = at + sizeof(ret->head);
		ret->owner = ret->path + ret->head.path_bytes;
		ret->group = ret->owner + ret->head.owner_bytes;
		if (!i)
			return true;
		at += ret->head.record_bytes;
	}
}

static void paths_of(const struct harness_result *r, char *out, size_t size)
{
	struct record rec;

	*out = 0;
	for (size_t i = 0; record_at(r, i, &rec); i++) {
		strncat(out, rec.path, size - strlen(out) - 1);
		strncat(out, " ", size - strlen(out) - 1);
	}
}

static void test_files(struct harness *h)
{
	struct harness_result r;
	struct record rec;
	char paths[1024];
	auto_free char *big = malloc(3000000);

	memset(big, 'x', 3000000);
	is_int(put_file(h, &r, (struct agent_fs){.op = AGENT_FS_WRITE, .flags = AGENT_FS_HAS_MODE, .mode = 0640}, "/w/deep/a.txt",
			"user", "1500", "one\ntwo\nthree\n", 14), 0, "upload makes parents");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_INFO}, "/w/deep/a.txt", "/w", NULL), 0, "info of two");
	ok(record_at(&r, 0, &rec) && rec.head.mode == 0640 && rec.head.size_bytes == 14 && !strcmp(rec.owner, "user") &&
		   !strcmp(rec.group, "extra") && rec.head.kind == AGENT_FILE_REGULAR, "mode, size, owner, group");
	ok(record_at(&r, 1, &rec) && rec.head.kind == AGENT_FILE_DIRECTORY && rec.head.index == 1 && rec.head.mode == 0755,
	   "parents are 0755");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_INFO}, "/w/none", NULL, NULL), ENOENT, "info of a missing file");
	is_str(r.text, "/w/none", "the path is named");
	harness_clear(&r);
	is_int(put_file(h, &r, (struct agent_fs){.op = AGENT_FS_WRITE}, "/w/big", "", "", big, 3000000), 0, "3 MB up");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_READ}, "/w/big", NULL, NULL), 0, "3 MB down");
	ok(record_at(&r, 0, &rec) && rec.head.mode == 0755 && r.n_out == 3000000 + rec.head.record_bytes &&
		   !memcmp(r.out + rec.head.record_bytes, big, 3000000), "every byte, mode 0755 when none was given");
	harness_clear(&r);
	static const struct {
		const char *why;
		uint32_t flags;
		uint64_t offset, length;
		const char *want;
	} reads[] = {
		{"whole", 0, 0, 0, "one\ntwo\nthree\n"},
		{"range", 0, 4, 3, "two"},
		{"from", 0, 8, 0, "three\n"},
		{"beyond", 0, 99, 0, ""},
		{"tail", AGENT_FS_TAIL, 0, 6, "three\n"},
		{"longer tail", AGENT_FS_TAIL, 0, 600, "one\ntwo\nthree\n"},
		{"second line", AGENT_FS_LINES, 2, 1, "two\n"},
		{"lines to the end", AGENT_FS_LINES, 2, 0, "two\nthree\n"},
		{"line beyond", AGENT_FS_LINES, 9, 0, ""},
		{"record alone", AGENT_FS_STAT_ONLY, 0, 0, ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(reads); i++) {
		int e = fs(h, &r, (struct agent_fs){.op = AGENT_FS_READ, .flags = reads[i].flags, .offset = reads[i].offset,
						    .length = reads[i].length}, "/w/deep/a.txt", NULL, NULL);
		ok(!e && record_at(&r, 0, &rec), "read %s", reads[i].why);
		is_str(r.out + rec.head.record_bytes, reads[i].want, "read %s: bytes", reads[i].why);
		harness_clear(&r);
	}
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_READ}, "/w", NULL, NULL), EISDIR, "a directory has no content");
	harness_clear(&r);
	is_int(put_file(h, &r, (struct agent_fs){.op = AGENT_FS_APPEND}, "/w/log", "", "", "a", 1), 0, "append makes it");
	harness_clear(&r);
	is_int(put_file(h, &r, (struct agent_fs){.op = AGENT_FS_APPEND}, "/w/log", "", "", "b", 1), 0, "append again");
	harness_clear(&r);
	harness_run(h, &r, "cat /w/log; stat -c ' %a' /w/log");
	is_str(r.out, "ab 644\n", "both, 0644");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_MKDIR, .flags = AGENT_FS_HAS_MODE, .mode = 01770}, "/w/d/e", "user", ""),
	       0, "mkdir -p");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_MKDIR, .flags = AGENT_FS_HAS_MODE, .mode = 0700}, "/w/d/e", "", ""), 0,
	       "again");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_CHMOD, .flags = AGENT_FS_HAS_MODE, .mode = 04711}, "/w/big", "user", "0"),
	       0, "chmod and chown");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_CHMOD}, "/w/big", "nosuch", ""), EINVAL, "unknown owner");
	harness_clear(&r);
	harness_run(h, &r, "stat -c '%a %U' /w/d/e /w/big; ln -s big /w/link; mkfifo /w/fifo; touch /w/d/z /w/d/.hid");
	is_str(r.out, "1770 user\n4711 user\n", "the leaf got them once, the setuid bit stays");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_LIST, .depth = 1}, "/w", NULL, NULL), 0, "list");
	paths_of(&r, paths, sizeof(paths));
	is_str(paths, "/w/big /w/d /w/deep /w/fifo /w/link /w/log ", "byte order, one level");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_LIST, .depth = 9}, "/w", NULL, NULL), 0, "list deeper");
	paths_of(&r, paths, sizeof(paths));
	is_str(paths, "/w/big /w/d /w/d/.hid /w/d/e /w/d/z /w/deep /w/deep/a.txt /w/fifo /w/link /w/log ", "pre-order");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_LIST, .depth = 1}, "/w/link", NULL, NULL), ELOOP, "list of a link");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_LIST, .depth = 1}, "/w/log", NULL, NULL), ENOTDIR, "list of a file");
	harness_clear(&r);
	static const struct {
		const char *pattern, *want;
	} searches[] = {
		{"*.txt", "/w/deep/a.txt "},	{"**/*.txt", "/w/deep/a.txt "}, {"deep/*.txt", "/w/deep/a.txt "},
		{"{log,z}", "/w/d/z /w/log "},	{"[l-m]*", "/w/link /w/log "},	{"*.py", ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(searches); i++) {
		is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_SEARCH}, "/w", searches[i].pattern, NULL), 0, "search %s",
		       searches[i].pattern);
		paths_of(&r, paths, sizeof(paths));
		is_str(paths, searches[i].want, "search %s finds", searches[i].pattern);
		harness_clear(&r);
	}
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_SEARCH}, "/w", "[a", NULL), -AGENT_BAD_REQUEST, "bad pattern");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_SEARCH}, "/none", "*", NULL), ENOENT, "search nowhere");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_MOVE}, "/w/log", "/m/n/log", NULL), 0, "move makes parents");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_MOVE}, "/m/n/log", "/w/big", NULL), EEXIST, "move onto something");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_MOVE}, "/w/d", "/dev/shm/d", NULL), 0, "move to another mount");
	harness_clear(&r);
	harness_run(h, &r, "ls -A /dev/shm/d; ls -d /w/d");
	is_str(r.out, ".hid\ne\nz\n", "the whole tree, and gone from where it was");
	harness_clear(&r);
	const char *const replace_path[] = {"/w/deep/a.txt", NULL};
	harness_fs_begin(h, &r, (struct agent_fs){.op = AGENT_FS_REPLACE}, replace_path, "t", "TT");
	ok(!harness_finish(h, &r, 20000) && r.end.reason == AGENT_OK && r.end.value == 2, "replace counts");
	harness_clear(&r);
	harness_run(h, &r, "cat /w/deep/a.txt; stat -c '%a %U %G' /w/deep/a.txt; ls -A /w/deep");
	is_str(r.out, "one\nTTwo\nTThree\n640 user extra\na.txt\n", "content, mode and owner kept, nothing left beside it");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_UNLINK}, "/w/none", "/w/link", NULL), 0, "unlink, one missing");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_UNLINK}, "/w", NULL, NULL), EISDIR, "unlink of a directory");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_READ}, "/w/fifo", NULL, NULL), EINVAL, "a FIFO has no content");
	harness_clear(&r);
	harness_run(h, &r, "perl -e 'chdir \"/w\"; $n = 0; while ($n < 20000) { mkdir \"d\"; chdir(\"d\") or last; $n++ } print \"$n\\n\"'");
	is_str(r.out, "20000\n", "a tree of 20,000 levels");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_RMTREE}, "/w", "/none", NULL), 0, "is removed");
	harness_clear(&r);
	is_int(harness_run(h, &r, "ls /w 2>&1"), 2, "and gone");
	harness_clear(&r);
}

int main(void)
{
	static struct harness h;

	if (!ok(!harness_up(&h, NULL), "a sandbox starts"))
		return tap_done();
	test_commands(&h);
	test_files(&h);
	harness_stop(&h);
	return tap_done();
}
