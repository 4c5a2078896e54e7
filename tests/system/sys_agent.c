// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandbox-agent alone: commands, streams, limits, attacks from inside
 */
#include "tests/system/agent_harness.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "runtime/agent/agent_sys.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define FRAME_MS 60000 /* for a frame that has to come: a machine that is shared may stand still */

static void test_commands(struct harness *h)
{
	static const struct {
		const char *why, *command, *out, *err;
		int code;
	} cases[] = {
		{"output and exit code 0", "echo hello", "hello\n", "", 0},
		{"standard error apart", "echo a; echo b >&2", "a\n", "b\n", 0},
		{"its own output by name", "echo a >/proc/self/fd/1; echo b >/proc/self/fd/2; echo c >/proc/self/fd/1", "a\nc\n", "b\n", 0},
		{"by another user", "setpriv --reuid 1234 --regid 1234 --clear-groups sh -c 'echo a >/proc/self/fd/1'", "a\n", "", 0},
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
		{"the usual limit of descriptors", "ulimit -Sn", "1024\n", "", 0},
		{"what the agent may allocate bounds the agent only", "ulimit -Sd", "unlimited\n", "", 0},
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

	harness_fs_begin(h, r, req, strings);
	if (harness_finish(h, r, 60000) || !r->ended)
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

	harness_fs_begin(h, r, req, strings);
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
	if (harness_finish(h, r, 60000))
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
		const char *why, *path;
		const char *data;
		size_t n;
	} no_targets[] = {
		{"nothing", NULL, "", 0},
		{"no length", NULL, "xy", 2},
		{"a length beyond all bounds", NULL, "x\xff\xff\xff\xff", 5},
		{"a length beyond what came", NULL, "x\4\0\0\0", 5},
		{"too little for a target", NULL, "xabc\3\0\0\0", 8},
		{"a path said before", "/w/before", "x", 1},
	};
	for (size_t i = 0; i < ARRAY_SIZE(no_targets); i++) {
		is_int(put_file(h, &r, (struct agent_fs){.op = AGENT_FS_WRITE, .flags = AGENT_FS_TARGET_LAST}, no_targets[i].path, "", "",
				no_targets[i].data, no_targets[i].n),
		       -AGENT_BAD_REQUEST, "content without a target: %s", no_targets[i].why);
		harness_clear(&r);
	}
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
	static const struct harness_file files[] = {
		{"/w/deep/a.txt", "t", "TT"}, {"/w/deep/b.txt", "t", ""}, {"/w/deep/a.txt", "TTh", "TTh"},
		{"/w/none", "t", ""}, {"/w/deep/a.txt", "o", ""},
	};
	uint64_t counts[3] = {9, 9, 9};
	is_int(harness_run(h, &r, "printf nothing-here >/w/deep/b.txt; sed -i s/t/x/g /w/deep/b.txt; touch -d 2020-01-01 /w/deep/b.txt; "
			   "stat -c %i /w/deep/b.txt >/w/inode"), 0, "a file without the text");
	harness_clear(&r);
	harness_replace(h, &r, (struct agent_fs){.op = AGENT_FS_REPLACE}, files, ARRAY_SIZE(files));
	ok(r.end.reason == AGENT_FAILED_SYS && r.end.sys == ENOENT && !strcmp(r.text, "/w/none"), "replace ends at the first that fails");
	if (ok(r.n_out == sizeof(counts), "after a count each"))
		memcpy(counts, r.out, sizeof(counts));
	ok(counts[0] == 2 && counts[1] == 0 && counts[2] == 1, "of replacements");
	harness_clear(&r);
	is_int(harness_run(h, &r, "test $(stat -c %i /w/deep/b.txt) = $(cat /w/inode) && test $(stat -c %Y /w/deep/b.txt) = "
			   "$(date -d 2020-01-01 +%s); e=$?; rm /w/deep/b.txt /w/inode; exit $e"), 0, "a file without the text is left alone");
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
	harness_run(h, &r, "perl -e 'chdir \"/w\"; $n = 0; while ($n < 5000) { mkdir \"d\"; chdir(\"d\") or last; $n++ } print \"$n\\n\"'");
	is_str(r.out, "5000\n", "a tree of 5,000 levels");
	harness_clear(&r);
	is_int(fs(h, &r, (struct agent_fs){.op = AGENT_FS_RMTREE}, "/w", "/none", NULL), 0, "is removed");
	harness_clear(&r);
	is_int(harness_run(h, &r, "ls /w 2>&1"), 2, "and gone");
	harness_clear(&r);
}

/* Where no file can be put beside the old one, the old one is written: as a user who owns the file and not its directory. */
static void test_in_place(struct harness *h)
{
	static const struct harness_file files[] = {{"/ro/link", "second", "third"}};
	const struct agent_fs write_op = {.op = AGENT_FS_WRITE, .flags = AGENT_FS_UID, .uid = 1000};
	struct harness_result r;

	is_int(harness_run(h, &r, "mkdir /ro && echo first >/ro/file && chown user:extra /ro/file && chmod 0640 /ro/file && "
			   "ln -s file /ro/link && echo closed >/ro/other && ls -i /ro/file >/tmp/inode"), 0, "a directory of somebody else");
	harness_clear(&r);
	is_int(put_file(h, &r, write_op, "/ro/file", "", "", "second, and longer\n", 19), 0, "a file in a directory that may not be written");
	harness_clear(&r);
	is_int(harness_run(h, &r, "cat /ro/file; stat -c '%a %U %G' /ro/file; ls -i /ro/file | cmp - /tmp/inode && ls -A /ro"), 0, "looked at");
	is_str(r.out, "second, and longer\n640 user extra\nfile\nlink\nother\n", "is written where it is, with its owner and mode");
	harness_clear(&r);
	is_int(put_file(h, &r, write_op, "/ro/link", "", "", "second\n", 7), 0, "through a link, shorter");
	harness_clear(&r);
	harness_replace(h, &r, (struct agent_fs){.op = AGENT_FS_REPLACE, .flags = AGENT_FS_UID, .uid = 1000}, files, ARRAY_SIZE(files));
	ok(r.end.reason == AGENT_OK && r.end.value == 1, "and replaced in, through the link");
	harness_clear(&r);
	is_int(harness_run(h, &r, "cat /ro/file; stat -c '%a %U %G' /ro/file; readlink /ro/link; ls -i /ro/file | cmp - /tmp/inode && ls -A /ro"), 0,
	       "looked at");
	is_str(r.out, "third\n640 user extra\nfile\nfile\nlink\nother\n", "likewise, and the link is one");
	harness_clear(&r);
	is_int(put_file(h, &r, write_op, "/ro/new", "", "", "x", 1), EACCES, "a new file there is refused");
	harness_clear(&r);
	is_int(put_file(h, &r, write_op, "/ro/other", "", "", "x", 1), EACCES, "so is one of somebody else");
	harness_clear(&r);
	is_int(harness_run(h, &r, "cat /ro/other; rm -r /ro /tmp/inode"), 0, "which stays");
	is_str(r.out, "closed\n", "as it was");
	harness_clear(&r);
}

/* Counts the processes inside whose arguments hold @text. */
static int alive(struct harness *h, const char *text)
{
	char command[256];
	struct harness_result r;

	/* the pattern in brackets does not match the shell that carries it */
	snprintf(command, sizeof(command), "ps ax -o args= | grep -c '[%c]%s'", text[0], text + 1);
	harness_run(h, &r, command);
	int n = r.out ? (int)strtol(r.out, NULL, 10) : -1;
	harness_clear(&r);
	return n;
}

/* Looks until there are @want: a child that its parent has not yet forked, or a kill, is seen a moment later. */
static int alive_soon(struct harness *h, const char *text, int want)
{
	int n = alive(h, text);

	for (int i = 0; n != want && i < 200; i++) {
		poll(NULL, 0, 10);
		n = alive(h, text);
	}
	return n;
}

/* ---- drivers ---- */

static void begin_driver(struct harness *h, struct harness_result *r, const char *program, const char *text, uint32_t flags)
{
	const char *const args[] = {program, "--noprofile", "--norc", "-c", ". /proc/self/fd/197", NULL};
	const char *const env[] = {"A=own", "PICK=/bin/bash", NULL};

	h->driver_text = text;
	harness_begin(h, r, (struct agent_spec){.flags = AGENT_SPEC_DRIVER | flags}, "", args, env);
}

static void wait_stream(struct harness *h, const struct harness_result *r, uint16_t type)
{
	struct agent_frame f;
	static uint8_t payload[AGENT_OUT_FRAME];

	for (int i = 0; i < 50 && harness_recv(h, FRAME_MS, &f, payload) >= 0; i++)
		if (f.stream == r->stream && f.type == type)
			return;
	ok(false, "a frame of type %u", type);
}

static void test_driver(struct harness *h)
{
	static const struct {
		const char *why, *program, *text;
		uint32_t flags;
		const char *out, *err;
		int code;
	} cases[] = {
		{"what is told comes between the output around it", "bash",
		 "echo 1; echo told >&199; sleep 0.2; echo 2; exit 3", 0, "1\ntold\n2\n", NULL, 3},
		{"error output is apart", "bash", "echo o; echo e >&2; echo t >&199", 0, "o\nt\n", "e\n", 0},
		{"or with the output", "bash", "echo o; echo e >&2; echo t >&199", AGENT_SPEC_MERGE, "o\ne\nt\n", NULL, 0},
		{"the text cannot be changed", "bash", "(echo x >>/proc/self/fd/197) 2>/dev/null || echo sealed; echo x >&197", 0,
		 "sealed\n", NULL, 1},
		{"over the sandbox's environment", "bash", "echo $A $PATH", 0, "own /usr/local/bin:/usr/bin:/bin\n", NULL, 0},
		{"or without it", "bash", "echo $A ${HOME-none}", AGENT_SPEC_BARE_ENV, "own none\n", NULL, 0},
		{"the second name", "none-such\nbash", "echo second", 0, "second\n", NULL, 0},
		{"a name from the environment", "$NONE\n$PICK\nnone-such", "echo $0", 0, "/bin/bash\n", NULL, 0},
		{"a session of its own", "bash", "ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo yes", 0, "yes\n", NULL, 0},
	};
	struct harness_result r;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin_driver(h, &r, cases[i].program, cases[i].text, cases[i].flags);
		ok(!harness_finish(h, &r, 10000) && r.exited, "driver: %s: ends", cases[i].why);
		is_int(r.exit.code, cases[i].code, "driver: %s: code", cases[i].why);
		if (cases[i].out)
			is_str(r.out, cases[i].out, "driver: %s: output", cases[i].why);
		if (cases[i].err)
			is_str(r.err, cases[i].err, "driver: %s: error output", cases[i].why);
		harness_clear(&r);
	}
	begin_driver(h, &r, "none-such", "", 0);
	ok(!harness_finish(h, &r, 10000) && r.ended && r.end.reason == AGENT_FAILED_START && r.end.value == AGENT_STAGE_EXEC &&
		   r.end.sys == ENOENT,
	   "driver: no such program");
	harness_clear(&r);
	begin_driver(h, &r, "bash", "read -r line <&198; echo \"got $line\" >&199; read -r line <&198 || echo eof >&199", 0);
	harness_send(h, AGENT_STDIN, r.stream, 0, "hello\n", 6);
	harness_send(h, AGENT_STDIN_EOF, r.stream, 0, NULL, 0);
	ok(!harness_finish(h, &r, 10000), "driver: told something");
	is_str(r.out, "got hello\neof\n", "driver: it reads what it is told, to the end");
	harness_clear(&r);

	begin_driver(h, &r, "bash", "setsid sleep 801 & sleep 802 & echo up >&199; sleep 803", 0);
	wait_stream(h, &r, AGENT_DATA);
	is_int(alive_soon(h, "sleep 80[1-3]", 3), 3, "driver: it has children");
	harness_send(h, AGENT_DETACH, r.stream, 0, NULL, 0);
	is_int(alive_soon(h, "sleep 80[1-3]", 0), 0, "driver: DETACH ends its tree");
	harness_clear(&r);
	begin_driver(h, &r, "bash", "setsid sleep 804 & echo up >&199; sleep 805", 0);
	wait_stream(h, &r, AGENT_DATA);
	ok(!harness_attach(h), "another gateway comes");
	is_int(alive_soon(h, "sleep 80[45]", 0), 0, "driver: ATTACH ends it");
	harness_clear(&r);
}

/* ---- the end of commands ---- */

static void begin(struct harness *h, struct harness_result *r, const char *command, struct agent_spec spec)
{
	const char *const args[] = {command, NULL};

	spec.flags |= AGENT_SPEC_SHELL;
	harness_begin(h, r, spec, "", args, NULL);
}

/* Whoever passes a shell's output on comes behind it, and is part of the command; who only holds its output is not. */
static void test_tails(struct harness *h)
{
	static const struct {
		const char *why, *command, *want;
	} rows[] = {
		{"a filter that sleeps first", "exec > >(sleep 0.1; sed s/^/p:/); echo passed", "p:passed\n"},
		{"one of several processes", "exec > >(sleep 0.1; tr a-z A-Z | sed s/L//g); echo hello", "HEO\n"},
		{"one that takes its time for each line", "exec > >(while read l; do sleep 0.03; echo \"<$l>\"; done); echo a; echo b; echo c", "<a>\n<b>\n<c>\n"},
		{"on standard error", "exec 2> >(sleep 0.1; cat >&2); echo x >&2; echo y", "y\n"},
	};
	enum { TRIES = 5 };
	struct harness_result r;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		bool came = false;

		/* on a machine that stands still it may come too late */
		for (int n = 0; n < TRIES && !came; n++) {
			harness_run(h, &r, rows[i].command);
			came = r.exited && r.out && !strcmp(r.out, rows[i].want) && (i != 3 || (r.err && !strcmp(r.err, "x\n")));
			harness_clear(&r);
		}
		ok(came, "its output comes behind the shell: %s", rows[i].why);
	}
	is_int(harness_run(h, &r, "echo x | sleep 605 & echo done"), 0, "who is fed and never ends holds nobody up for ever");
	ok(r.out && !strcmp(r.out, "done\n"), "and what came before is there");
	harness_clear(&r);
	harness_run(h, &r, "pkill -f 'sleep 60[5]'");
	harness_clear(&r);
}

static void test_ends(struct harness *h)
{
	struct harness_result r, q;

	begin(h, &r, "setsid sh -c 'sleep 501 & sleep 502' & (sh -c 'setsid sleep 503 & exit' &); sleep 504",
	      (struct agent_spec){.timeout_ms = 300});
	ok(!harness_finish(h, &r, FRAME_MS), "a command with a timeout ends");
	ok(r.exited && r.exit.code == -1 && r.exit.signal == SIGKILL && (r.exit.flags & AGENT_EXIT_TIMEOUT),
	   "killed, and it says that it was the timeout");
	is_int(alive_soon(h, "sleep 50[1-4]", 0), 0, "children in sessions of their own and double forks died too");
	harness_clear(&r);

	is_int(harness_run(h, &r, "sleep 601 & setsid sh -c 'while :; do echo alive; sleep 0.1; done' & echo done"), 0,
	       "a command that leaves children");
	ok(strstr(r.out, "done"), "its output came");
	harness_clear(&r);
	is_int(alive(h, "sleep 601"), 1, "its children live on");
	harness_run(h, &r, "pkill -f 'sleep 601'; pkill -f 'echo alive'");
	harness_clear(&r);

	begin(h, &r, "trap 'echo got; exit 5' TERM; echo up; while :; do sleep 0.05; done", (struct agent_spec){0});
	struct agent_frame f;
	static uint8_t payload[AGENT_OUT_FRAME];
	for (int i = 0; i < 2; i++)
		harness_recv(h, FRAME_MS, &f, payload);
	is_int(harness_ask(h, &q, AGENT_INTERRUPT, 0, r.id, sizeof(r.id)), 0, "interrupt is answered");
	is_int(q.end.reason, AGENT_OK, "when the group is gone");
	harness_clear(&q);
	/* its EXIT came while the answer was waited for */
	is_int(harness_ask(h, &q, AGENT_STATUS, 0, r.id, sizeof(r.id)), 0, "status");
	ok(q.status_known && !q.status.running && q.status.code == 5 && (q.status.flags & AGENT_EXIT_INTERRUPTED),
	   "TERM could be caught");
	harness_clear(&q);
	harness_clear(&r);

	begin(h, &r, "trap '' TERM; echo up; sleep 700 & while :; do sleep 1; done", (struct agent_spec){0});
	for (int i = 0; i < 2; i++)
		harness_recv(h, FRAME_MS, &f, payload);
	int64_t before = sysx_mono_usec();
	is_int(harness_ask(h, &q, AGENT_INTERRUPT, 0, r.id, sizeof(r.id)), 0, "a group that ignores TERM");
	int64_t took = sysx_mono_usec() - before;
	ok(took > 2900000 && took < 30000000, "is killed after 3 s (%lld ms)", (long long)took / 1000);
	harness_clear(&q);
	is_int(harness_ask(h, &q, AGENT_INTERRUPT, 0, r.id, sizeof(r.id)), 0, "again");
	is_int(q.end.reason, AGENT_NOT_RUNNING, "not running");
	harness_clear(&q);
	harness_clear(&r);
	uint8_t none[AGENT_ID_BYTES] = {1};
	is_int(harness_ask(h, &q, AGENT_STATUS, 0, none, sizeof(none)), 0, "status of nothing");
	is_int(q.end.reason, AGENT_NO_SUCH_COMMAND, "no such command");
	harness_clear(&q);
}

static void wait_end(struct harness *h, const uint8_t *id, struct harness_result *q)
{
	for (int i = 0; i < 1000; i++) {
		harness_clear(q);
		if (harness_ask(h, q, AGENT_STATUS, 0, id, AGENT_ID_BYTES) || !q->status_known || !q->status.running)
			return;
		poll(NULL, 0, 20);
	}
}

/* ---- the child that waits in advance, and large requests ---- */

static void test_spare(struct harness *h)
{
	static const char find[] = "for p in /proc/[0-9]*; do n=${p#/proc/}; [ $n != 1 ] && grep -qs '^Uid:.65534' $p/status && kill -%s $n && echo $n; done";
	static const char *const how[] = {"STOP", "KILL"};
	char command[256];
	struct harness_result r, q = {0};

	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		snprintf(command, sizeof(command), find, how[i]);
		/* the command that hits takes one itself; the next one is made when another command has ended */
		char later[600];
		snprintf(later, sizeof(later), "sleep 2; %s > /tmp/hit", command);
		begin(h, &r, later, (struct agent_spec){.flags = AGENT_SPEC_BACKGROUND});
		harness_finish(h, &r, FRAME_MS);
		harness_run(h, &q, "exit 0");
		harness_clear(&q);
		wait_end(h, r.id, &q);
		harness_clear(&q);
		harness_clear(&r);
		ok(harness_run(h, &r, "cat /tmp/hit; exit 6") == 6, "a waiting child hit by %s stops no command", how[i]);
		ok(r.out && r.out[0] >= '1', "and it was hit");
		harness_clear(&r);
		is_int(harness_run(h, &r, "exit 7"), 7, "nor the one after it");
		harness_clear(&r);
	}
	static char big[LIMIT_SPAWN_STRING_BYTES + 16];
	const char *const env[] = {big, NULL}, *const args[] = {"echo ${#X}", NULL};
	memcpy(big, "X=", 2);
	memset(big + 2, 'y', 100000);
	harness_begin(h, &r, (struct agent_spec){.flags = AGENT_SPEC_SHELL}, "", args, env);
	harness_finish(h, &r, FRAME_MS);
	is_str(r.out, "100000\n", "an environment larger than a pipe");
	harness_clear(&r);
	memset(big + 2, 'y', LIMIT_SPAWN_STRING_BYTES);
	harness_begin(h, &r, (struct agent_spec){.flags = AGENT_SPEC_SHELL}, "", args, env);
	harness_finish(h, &r, FRAME_MS);
	ok(r.ended && r.end.reason == AGENT_BAD_REQUEST, "a string larger than the kernel takes is refused");
	harness_clear(&r);
	const char **many = calloc(8001, sizeof(*many));
	many[0] = "/inside";
	many[1] = "say";
	for (int i = 2; i < 8000; i++)
		many[i] = "a";
	harness_begin(h, &r, (struct agent_spec){0}, "", many, NULL);
	ok(!harness_finish(h, &r, FRAME_MS) && r.exited, "8,000 arguments");
	harness_clear(&r);
	free(many);
}

/* Takes frames until all @n have their last one; what they print is of no interest.  Return: how many got EXIT. */
static int finish_all(struct harness *h, struct harness_result *r, int n)
{
	static uint8_t payload[AGENT_OUT_FRAME];
	struct agent_frame f;
	int over = 0, exited = 0;

	while (over < n && harness_recv(h, 60000, &f, payload) >= 0)
		for (int k = 0; k < n; k++) {
			if (r[k].stream != f.stream || (f.type != AGENT_EXIT && f.type != AGENT_END))
				continue;
			over++;
			exited += f.type == AGENT_EXIT;
			if (f.type == AGENT_EXIT)
				memcpy(&r[k].exit, payload, sizeof(r[k].exit));
		}
	return exited;
}

/* Root of the sandbox against the process that starts its commands: it gets what it asks for, later. */
static void test_launcher(struct harness *h)
{
	static const char storm[] = "end=$((SECONDS+3)); while [ $SECONDS -lt $end ] && ! [ -e /tmp/storm.%s.over ]; do "
				    "for p in /proc/[0-9]*; do n=${p#/proc/}; "
				    "[ $n != 1 ] && grep -qs '^Uid:.65534' $p/status && kill -%s $n && echo $n >> /tmp/storm.%s; done; done";
	static const struct {
		const char *what, *command;
	} refused[] = {
		{"its memory", "cat /proc/$n/maps"}, {"its descriptors", "readlink /proc/$n/fd/0"}, {"its environment", "cat /proc/$n/environ"},
		{"its limits", "prlimit --pid $n --nofile=1:1"}, {"its processors", "taskset -p 1 $n"}, {"its cwd", "readlink /proc/$n/cwd"},
	};
	/* SEGV: the kernel ends whoever shares a memory with one that dumps its core, which nobody may here */
	static const char *const how[] = {"STOP", "KILL", "SEGV"};
	static const int by[] = {0, SIGKILL, SIGSEGV};
	enum { AT_ONCE = 12 };
	struct harness_result r, hits, many[AT_ONCE];
	char command[600];

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		harness_run(h, &r, "true"); /* at the latest now there is one */
		harness_clear(&r);
		snprintf(command, sizeof(command),
			 "for i in 1 2 3 4 5 6 7 8 9; do for p in /proc/[0-9]*; do n=${p#/proc/}; [ $n != 1 ] && grep -qs '^Uid:.65534' $p/status "
			 "&& kill -0 $n && { %s >/dev/null 2>&1; exit $((10 + !!$?)); }; done; sleep 0.3; done; exit 9",
			 refused[i].command);
		is_int(harness_run(h, &r, command), 11, "of the launcher nobody gets at %s", refused[i].what);
		harness_clear(&r);
	}
	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		int ended = 0, right = 0;

		snprintf(command, sizeof(command), storm, how[i], how[i], how[i]);
		begin(h, &hits, command, (struct agent_spec){.flags = AGENT_SPEC_BACKGROUND});
		harness_finish(h, &hits, 10000);
		snprintf(command, sizeof(command), "for i in $(seq 200); do [ -s /tmp/storm.%s ] && exit 3; sleep 0.1; done", how[i]);
		harness_run(h, &r, command);
		harness_clear(&r);
		for (int round = 0; round < 4; round++) {
			for (int k = 0; k < AT_ONCE; k++) {
				snprintf(command, sizeof(command), "exit %d", 20 + k);
				begin(h, &many[k], command, (struct agent_spec){0});
			}
			ended += finish_all(h, many, AT_ONCE);
			for (int k = 0; k < AT_ONCE; k++) {
				/* who is on the way to its exec has that id for a moment: then it is the one that is hit */
				right += many[k].exit.code == 20 + k || (by[i] && many[k].exit.signal == by[i]);
				harness_clear(&many[k]);
			}
		}
		is_int(ended, 4 * AT_ONCE, "under a storm of %s against the launcher every command ends", how[i]);
		is_int(right, 4 * AT_ONCE, "and as it should");
		/* the commands of those behind us are not to be hit */
		snprintf(command, sizeof(command), "touch /tmp/storm.%s.over", how[i]);
		harness_run(h, &r, command);
		harness_clear(&r);
		wait_end(h, hits.id, &r);
		harness_clear(&r);
		harness_clear(&hits);
		snprintf(command, sizeof(command), "test -s /tmp/storm.%s && exit 5", how[i]);
		is_int(harness_run(h, &r, command), 5, "and it was hit");
		harness_clear(&r);
	}
}

/*
 * The launcher is stopped, and not its child, which takes the next order all the same.  Of what prints nothing only the launcher
 * tells: it is woken for that, and not waited for until it is too old.
 */
static void test_launcher_stopped(struct harness *h)
{
	static const char stop[] = "for n in $(ls /proc | grep '^[0-9]' | sort -n); do [ $n != 1 ] && grep -qs '^Uid:.65534' /proc/$n/status "
				   "&& kill -STOP $n && echo $n > /tmp/stopped.pid && exit 3; done; exit 9";
	static const uint32_t flags[] = {0, AGENT_SPEC_BACKGROUND};
	static uint8_t payload[AGENT_OUT_FRAME];
	enum { TRIES = 5 };
	struct harness_result r, q;
	struct agent_frame f;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		bool woken = false;

		/* on a machine that stands still it may have become too old all the same */
		for (int n = 0; n < TRIES && !woken; n++) {
			harness_run(h, &r, "true"); /* at the latest now there is one */
			harness_clear(&r);
			bool stopped = harness_run(h, &r, stop) == 3;
			harness_clear(&r);
			begin(h, &r, "sleep 606", (struct agent_spec){.flags = flags[i]});
			int got = harness_recv(h, FRAME_MS, &f, payload);
			while (got >= 0 && f.stream != r.stream) /* of the try before */
				got = harness_recv(h, FRAME_MS, &f, payload);
			bool told = got >= 0 && f.type == AGENT_STARTED;
			woken = stopped && told && harness_run(h, &q, "kill -0 $(cat /tmp/stopped.pid) && exit 7") == 7;
			harness_clear(&q);
			harness_ask(h, &q, AGENT_INTERRUPT, 0, r.id, sizeof(r.id));
			harness_clear(&q);
			harness_clear(&r);
		}
		ok(woken, "a launcher that was stopped is woken to tell that a command has started, flags %x", flags[i]);
	}
}

/* INTERRUPT overtakes a command on its way to its exec, with and without the launcher. */
static void test_overtaken(struct harness *h)
{
	static const uint32_t flags[] = {0, AGENT_SPEC_STDIN};
	enum { ROUNDS = 12 };
	struct harness_result r, q;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		int over = 0;

		for (int k = 0; k < ROUNDS; k++) {
			begin(h, &r, "sleep 604", (struct agent_spec){.flags = flags[i]});
			harness_ask(h, &q, AGENT_INTERRUPT, 0, r.id, sizeof(r.id));
			harness_clear(&q);
			harness_ask(h, &q, AGENT_STATUS, 0, r.id, sizeof(r.id));
			over += q.status_known && !q.status.running && q.status.signal;
			harness_clear(&q);
			harness_clear(&r);
		}
		is_int(over, ROUNDS, "a command is over when its INTERRUPT is answered, however early that came");
	}
	int taken = 0, hit = 0;
	for (int k = 0; k < ROUNDS; k++) {
		begin(h, &r, "sleep 604", (struct agent_spec){0});
		harness_ask(h, &q, AGENT_SIGNAL, SIGTERM, r.id, sizeof(r.id));
		taken += q.ended && q.end.reason == AGENT_OK;
		harness_clear(&q);
		wait_end(h, r.id, &q);
		hit += q.status_known && q.status.signal == SIGTERM;
		harness_clear(&q);
		harness_clear(&r);
	}
	is_int(taken, ROUNDS, "a signal is taken, however early it comes");
	is_int(hit, ROUNDS, "and arrives");
	harness_run(h, &r, "pkill -f 'sleep 60[4]'");
	harness_clear(&r);
}

/* Waits for the end of @q; what it hears of @r meanwhile is kept.  Return: the exit code of @q, -1 when it does not end. */
static int exit_beside(struct harness *h, const struct harness_result *q, struct harness_result *r)
{
	static uint8_t payload[AGENT_OUT_FRAME];
	struct agent_frame f;
	struct agent_exit over;

	while (harness_recv(h, 60000, &f, payload) >= 0) {
		if (f.stream == r->stream)
			r->started |= f.type == AGENT_STARTED;
		if (f.stream != q->stream || f.type != AGENT_EXIT)
			continue;
		memcpy(&over, payload, sizeof(over));
		return over.code;
	}
	return -1;
}

/*
 * An exec that waits for a file system, played by a lease: the next command does not wait with it, and since it fails in the
 * end, it never started.
 */
static void test_still(struct harness *h)
{
	static const char set_up[] = "printf '\\177nothing' > /tmp/still && chmod 755 /tmp/still && (/inside lease /tmp/still > /tmp/still.out & "
				     "for i in $(seq 200); do [ -s /tmp/still.out ] && break; sleep 0.1; done); cat /tmp/still.out";
	static const char *const still[] = {"/tmp/still", NULL};
	struct harness_result r, q;

	harness_run(h, &q, set_up);
	if (!q.out || strcmp(q.out, "held\n") != 0) {
		ok(1, "an exec that stands still # SKIP no lease is given here: %s", q.out ? q.out : "");
		harness_clear(&q);
		return;
	}
	harness_clear(&q);
	harness_begin(h, &r, (struct agent_spec){0}, "", still, NULL);
	for (int k = 0; k < 3; k++) {
		begin(h, &q, "exit 3", (struct agent_spec){0});
		is_int(exit_beside(h, &q, &r), 3, "a command ends while the exec of another one stands still");
		harness_clear(&q);
	}
	begin(h, &q, "pkill -f '[i]nside lease'", (struct agent_spec){0}); /* whose end nobody waits for */
	ok(!harness_finish(h, &r, 60000) && r.ended && !r.started && r.end.reason == AGENT_FAILED_START && r.end.value == AGENT_STAGE_EXEC,
	   "and the exec fails: it was never said to have started (end %d, started %d, reason %u, stage %u, errno %d)", r.ended,
	   r.started, r.end.reason, (unsigned)r.end.value, r.end.sys);
	harness_clear(&r);
	harness_clear(&q);
}

/* ---- many at once ---- */

static void test_many(struct harness *h)
{
	enum { RUNNING = 400 };
	static struct harness_result r[RUNNING], q;
	int started = 0;

	for (int i = 0; i < RUNNING; i++) {
		begin(h, &r[i], "exec sleep 950", (struct agent_spec){.flags = AGENT_SPEC_BACKGROUND});
		started += !harness_finish(h, &r[i], FRAME_MS) && r[i].started;
		harness_clear(&r[i]);
	}
	is_int(started, RUNNING, "%d background commands, three descriptors each", RUNNING);
	is_int(harness_run(h, &q, "pkill -f '[s]leep 950'; exit 2"), 2, "and one more");
	harness_clear(&q);
	/* more finished ones than are kept: the oldest are forgotten, the newest are not */
	struct harness_result first = {0}, last = {0};
	for (int i = 0; i < (int)LIMIT_COMMANDS_KEPT + 50; i++) {
		const char *const args[] = {"/inside", "say", "x", NULL};

		harness_begin(h, &q, (struct agent_spec){0}, "", args, NULL);
		harness_finish(h, &q, FRAME_MS);
		memcpy(i ? last.id : first.id, q.id, sizeof(q.id));
		harness_clear(&q);
	}
	harness_ask(h, &q, AGENT_STATUS, 0, first.id, sizeof(first.id));
	is_int(q.end.reason, AGENT_NO_SUCH_COMMAND, "the oldest finished command is forgotten");
	harness_clear(&q);
	ok(!harness_ask(h, &q, AGENT_STATUS, 0, last.id, sizeof(last.id)) && q.status_known, "the newest is kept");
	harness_clear(&q);
}

/* ---- output ---- */

static int logs(struct harness *h, struct harness_result *q, const uint8_t *id, uint64_t offset)
{
	struct agent_logs req = {.offset = offset};

	memcpy(req.id, id, sizeof(req.id));
	return harness_ask(h, q, AGENT_LOGS, 0, &req, sizeof(req));
}

static void test_output(struct harness *h)
{
	struct harness_result r, q, slow;
	struct agent_frame f;
	static uint8_t payload[AGENT_OUT_FRAME];

	is_int(harness_run(h, &r, "/inside flood 1048576"), 0, "1 MiB of output");
	ok(r.n_out == 1048576 && !memchr(r.out, 'x', r.n_out), "every byte");
	logs(h, &q, r.id, 0);
	ok(q.n_out == 1048576 && q.end.value == 1048576, "is also in the spool");
	harness_clear(&q);
	harness_clear(&r);

	/* no credit is given: 256 KiB come, then it stands still, and others go on */
	begin(h, &slow, "/inside flood 2000000; echo end", (struct agent_spec){0});
	size_t got = 0;
	while (harness_recv(h, got < AGENT_WINDOW ? FRAME_MS : 300, &f, payload) >= 0)
		got += f.type == AGENT_STDOUT ? f.size : 0;
	is_int(got, AGENT_WINDOW, "without credit exactly the window comes");
	is_int(harness_run(h, &r, "echo quick"), 0, "another stream goes on");
	is_str(r.out, "quick\n", "with its output");
	harness_clear(&r);
	harness_send(h, AGENT_DETACH, slow.stream, 0, NULL, 0);
	wait_end(h, slow.id, &q);
	ok(q.status_known && q.status.code == 0 && q.status.output_bytes == 2000004, "once detached it runs to its end");
	harness_clear(&q);
	logs(h, &q, slow.id, 1999999);
	is_str(q.out, "yend\n", "and its output is kept");
	is_int(q.end.value, 2000004, "offsets count every byte");
	harness_clear(&q);
	harness_clear(&slow);

	begin(h, &r, "echo out; echo err >&2; exit 3", (struct agent_spec){.flags = AGENT_SPEC_BACKGROUND});
	ok(!harness_finish(h, &r, FRAME_MS) && r.started && r.ended && r.end.reason == AGENT_OK, "background answers at once");
	wait_end(h, r.id, &q);
	ok(q.status.background && q.status.code == 3, "status of a background command");
	is_str(q.text, "echo out; echo err >&2; exit 3", "its text");
	harness_clear(&q);
	logs(h, &q, r.id, 0);
	is_str(q.out, "out\nerr\n", "both streams in one log");
	harness_clear(&q);
	logs(h, &q, r.id, 100);
	ok(q.n_out == 0 && q.end.value == 100, "beyond the end nothing, the offset comes back");
	harness_clear(&q);
	harness_clear(&r);

	/* a child that prints without end must not keep the agent from anything else */
	begin(h, &r, "yes", (struct agent_spec){.flags = AGENT_SPEC_BACKGROUND});
	harness_finish(h, &r, FRAME_MS);
	is_int(harness_run(h, &q, "yes & echo beside"), 0, "with two endless printers a command runs");
	is_str(q.out && strstr(q.out, "beside") ? "beside" : "", "beside", "and prints");
	harness_clear(&q);
	is_int(harness_ask(h, &q, AGENT_INTERRUPT, 0, r.id, sizeof(r.id)), 0, "one can be interrupted");
	harness_clear(&q);
	harness_run(h, &q, "pkill yes");
	harness_clear(&q);
	harness_clear(&r);

	/* more than the ring holds */
	begin(h, &r, "/inside flood 70000000; echo END", (struct agent_spec){.flags = AGENT_SPEC_BACKGROUND});
	harness_finish(h, &r, FRAME_MS);
	wait_end(h, r.id, &q);
	is_int(q.status.output_bytes, 70000004, "70 MB were printed");
	harness_clear(&q);
	logs(h, &q, r.id, 69999999);
	is_str(q.out, "yEND\n", "the end is kept");
	harness_clear(&q);
	logs(h, &q, r.id, 0);
	ok(q.out && q.out[0] == '[' && strstr(q.out, "no longer kept"), "what was dropped is told");
	is_int(q.end.value, 70000004, "and the offset is right");
	harness_clear(&q);
	harness_clear(&r);
}

static void test_attach(struct harness *h)
{
	struct harness_result r, q;
	struct agent_frame f;
	static uint8_t payload[AGENT_OUT_FRAME];

	begin(h, &r, "/inside flood 3000000; sleep 0.2; echo end", (struct agent_spec){0});
	harness_recv(h, FRAME_MS, &f, payload);
	/* a gateway that died in the middle of reading; the next one attaches */
	is_int(harness_attach(h), 0, "a second gateway attaches over the rest of the first");
	is_int(harness_run(h, &q, "echo fresh"), 0, "its commands run");
	harness_clear(&q);
	wait_end(h, r.id, &q);
	ok(q.status.code == 0 && q.status.output_bytes == 3000004, "the first one's command went on, with all its output");
	harness_clear(&q);
	/* a malformed frame ends the attachment, not the agent */
	struct agent_frame bad = {.size = 0, .type = 77};
	harness_send(h, AGENT_EXEC, 5000, 1, "xx", 2);
	ok(write(h->exec_out, &bad, sizeof(bad)) == (ssize_t)sizeof(bad), "malformed frames are sent");
	is_int(harness_attach(h), 0, "attach again");
	is_int(harness_run(h, &q, "echo again"), 0, "and it runs");
	harness_clear(&q);
	static const struct {
		const char *why;
		uint16_t type;
		uint32_t value, n;
	} rows[] = {
		{"EXEC of nothing", AGENT_EXEC, 0, 0},	  {"EXEC cut short", AGENT_EXEC, 8, 8},
		{"EXEC of 2 GiB", AGENT_EXEC, 1u << 31, 8}, {"FS of nothing", AGENT_FS, 0, 0},
		{"LOGS without an id", AGENT_LOGS, 0, 3},   {"SIGNAL 999", AGENT_SIGNAL, 999, 16},
		{"STDIN to nobody", AGENT_STDIN, 0, 100},   {"MORE of nothing", AGENT_MORE, 0, 100},
		{"a frame for the agent's side only", AGENT_STDOUT, 0, 4}, {"START here", AGENT_START, 4, 4},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		static uint8_t junk[200];

		harness_send(h, rows[i].type, 90000 + (uint32_t)i, rows[i].value, junk, rows[i].n);
		ok(!harness_attach(h) && harness_run(h, &q, "exit 4") == 4, "%s does no harm", rows[i].why);
		harness_clear(&q);
	}
	harness_clear(&r);
}

/* ---- content beside the frames ---- */

#define BLOCK 65536u

/* Announces @told bytes of which @there are written; with as many of both, piece by piece as the FIFO takes them. */
static void send_bulk(struct harness *h, uint32_t stream, const uint8_t *data, size_t there, uint32_t told)
{
	while (there) {
		struct pollfd p = {.fd = h->bulk_out, .events = POLLOUT};
		ssize_t n = poll(&p, 1, FRAME_MS) == 1 ? write(h->bulk_out, data, there) : 0;

		if (n <= 0) {
			printf("# bulk.in takes nothing\n");
			break;
		}
		if (n == (ssize_t)there || told != there)
			harness_send(h, AGENT_BULK, stream, told, NULL, 0);
		else
			harness_send(h, AGENT_BULK, stream, (uint32_t)n, NULL, 0);
		if (told != there)
			return;
		data += n;
		there -= (size_t)n;
		told -= (uint32_t)n;
	}
	if (told)
		harness_send(h, AGENT_BULK, stream, told, NULL, 0);
}

/* Sends blocks as far as there is credit for them; Return: how many, when none has come for a while behind @least bytes. */
static unsigned send_blocks(struct harness *h, uint32_t stream, const uint8_t *data, uint64_t least)
{
	static uint8_t payload[AGENT_OUT_FRAME];
	uint32_t credit = AGENT_WINDOW;
	struct agent_frame f;
	unsigned n = 0;

	do
		for (; credit >= BLOCK + 100; credit -= BLOCK, n++) /* a frame is to follow */
			send_bulk(h, stream, data, BLOCK, BLOCK);
	while (n < 1000 && harness_recv(h, (uint64_t)n * BLOCK < least ? FRAME_MS : 500, &f, payload) >= 0 &&
	       f.type == AGENT_CREDIT && f.stream == stream && (credit += f.value));
	return n;
}

/* A child that takes nothing: what is meant for it waits, and what others send passes. */
static void test_bulk_stopped(struct harness *h, const uint8_t *content, unsigned fifo_bytes)
{
	static const char find[] = "for p in /proc/[0-9]*; do n=${p#/proc/}; [ $n != 1 ] && grep -qs '^Uid:.65533' $p/status && kill -%s $n && exit 3; done";
	const char *const stopped[] = {"/tmp/stopped", "", "", NULL}, *const where[] = {"/w/bulk", "", "", NULL};
	const struct agent_fs nobody = {.op = AGENT_FS_WRITE, .flags = AGENT_FS_UID, .uid = 65533}, write_op = {.op = AGENT_FS_WRITE};
	struct harness_result r, q;
	char command[300];

	ok(fcntl(h->bulk_out, F_SETPIPE_SZ, (int)fifo_bytes) == (int)fifo_bytes, "a FIFO of %u KiB", fifo_bytes / 1024);
	harness_fs_begin(h, &r, nobody, stopped);
	snprintf(command, sizeof(command), find, "STOP");
	for (int i = 0; i < 100 && harness_run(h, &q, command) != 3; i++)
		harness_clear(&q);
	harness_clear(&q);
	unsigned n = send_blocks(h, r.stream, content, 2 * AGENT_WINDOW);
	ok(n * BLOCK >= 2 * AGENT_WINDOW, "an upload whose child is stopped takes what pipe and FIFO hold (%u KiB), then nothing", n * BLOCK / 1024);
	harness_fs_begin(h, &q, write_op, where);
	send_bulk(h, q.stream, content, 60100, 60100);
	harness_send(h, AGENT_EOF, q.stream, 0, NULL, 0);
	ok(!harness_finish(h, &q, FRAME_MS) && q.end.reason == AGENT_OK, "another one passes it");
	harness_clear(&q);
	harness_send(h, AGENT_DATA, r.stream, 0, content, 100);
	harness_send(h, AGENT_EOF, r.stream, 0, NULL, 0);
	snprintf(command, sizeof(command), find, "CONT");
	h->beside = &r; /* its end may come first */
	is_int(harness_run(h, &q, command), 3, "the child goes on");
	h->beside = NULL;
	harness_clear(&q);
	ok(!harness_finish(h, &r, FRAME_MS) && r.end.reason == AGENT_OK, "and is told the end");
	harness_clear(&r);
	snprintf(command, sizeof(command), "cd /tmp; head -c %u stopped >one; for i in $(seq %u); do cat one; done >all; head -c 100 one >>all; cmp all stopped && cmp -n 60100 one /w/bulk",
		 BLOCK, n);
	is_int(harness_run(h, &q, command), 0, "every byte of both in its place");
	harness_clear(&q);
}

static void test_bulk(struct harness *h)
{
	struct harness_result r, q;
	const char *const where[] = {"/w/bulk", "", "", NULL}, *const half[] = {"/w/half", "", "", NULL}, *const read_it[] = {"/w/bulk", NULL};
	const struct agent_fs write_op = {.op = AGENT_FS_WRITE}, read_op = {.op = AGENT_FS_READ};
	static uint8_t content[200000], payload[AGENT_OUT_FRAME];
	struct agent_frame f;
	int left = -1;

	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (uint8_t)(i * 31 + i / 253);
	h->attach_flags = AGENT_ATTACH_BULK;
	ok(!harness_attach(h), "a gateway with a bulk channel");
	/* what a gateway leaves that is killed between the bytes and the frame, and in the middle of a download */
	ok(write(h->bulk_out, "stale bytes", 11) == 11 && !harness_attach(h), "bytes that nobody was told of, and the next gateway");
	harness_fs_begin(h, &r, write_op, where);
	for (size_t at = 0; at < sizeof(content); at += 50000)
		send_bulk(h, r.stream, content + at, 50000, 50000);
	harness_send(h, AGENT_EOF, r.stream, 0, NULL, 0);
	ok(!harness_finish(h, &r, FRAME_MS) && r.end.reason == AGENT_OK, "content beside the frames");
	harness_clear(&r);
	harness_fs_begin(h, &r, read_op, read_it);
	for (int i = 0; i < 5 && harness_recv(h, FRAME_MS, &f, payload) >= 0 && f.type != AGENT_BULK; i++)
		;
	is_int(f.type, AGENT_BULK, "a download begins");
	ok(!harness_attach(h) && !ioctl(h->bulk_in, FIONREAD, &left) && left == 0, "content of a download that was left is gone");
	harness_clear(&r);
	harness_fs_begin(h, &r, read_op, read_it);
	ok(!harness_finish(h, &r, FRAME_MS) && r.end.reason == AGENT_OK && r.n_out > sizeof(content) &&
		   !memcmp(r.out + r.n_out - sizeof(content), content, sizeof(content)), "every byte of the upload comes back");
	harness_clear(&r);

	/* two at once, and one that ends before its content does */
	harness_fs_begin(h, &r, write_op, where);
	harness_fs_begin(h, &q, write_op, half);
	send_bulk(h, r.stream, content, 30000, 30000);
	send_bulk(h, q.stream, content + 1, 20000, 20000);
	send_bulk(h, r.stream, content + 30000, 30000, 30000);
	harness_send(h, AGENT_DETACH, q.stream, 0, NULL, 0);
	send_bulk(h, q.stream, content + 1, 10000, 10000);
	harness_send(h, AGENT_DATA, r.stream, 0, content + 60000, 100);
	harness_send(h, AGENT_EOF, r.stream, 0, NULL, 0);
	ok(!harness_finish(h, &r, FRAME_MS) && r.end.reason == AGENT_OK, "uploads between each other");
	harness_clear(&r);
	harness_clear(&q);
	is_int(harness_run(h, &q, "test $(stat -c %s /w/bulk) = 60100 && ! ls -A /w | grep -e half -e sbx-"), 0, "one is whole, the other was never there");
	harness_clear(&q);

	test_bulk_stopped(h, content, 64 * 1024); /* as it is when a gateway may not enlarge it */
	test_bulk_stopped(h, content, 1024 * 1024);

	static const struct {
		const char *why;
		size_t there;
		uint32_t told;
	} rows[] = {{"content that is not there", 0, 5000}, {"less than announced", 4000, 5000}, {"more than the window", 60000, AGENT_WINDOW + 1},
		    {"four gigabytes", 0, UINT32_MAX}};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		harness_fs_begin(h, &r, write_op, half);
		send_bulk(h, r.stream, content, rows[i].there, rows[i].told);
		ok(!harness_attach(h) && harness_run(h, &q, "exit 6") == 6, "%s: the attachment ends and nothing else", rows[i].why);
		harness_clear(&q);
		harness_clear(&r);
	}
	is_int(harness_run(h, &q, "ls -A /w | grep -c -e half -e sbx-"), 1, "and leaves no file");
	harness_clear(&q);
	h->attach_flags = 0;
	ok(!harness_attach(h), "a gateway without one");
	harness_fs_begin(h, &r, write_op, half);
	send_bulk(h, r.stream, content, 100, 100);
	ok(!harness_attach(h) && harness_run(h, &q, "exit 7") == 7, "may not use it");
	harness_clear(&q);
	harness_clear(&r);
	harness_fs_begin(h, &r, read_op, read_it);
	ok(!harness_finish(h, &r, FRAME_MS) && r.end.reason == AGENT_OK && r.n_out > 60100 && !memcmp(r.out + r.n_out - 60100, content, 60100),
	   "and gets content in frames");
	harness_clear(&r);
}

/* ---- terminals and input ---- */

static void test_terminal(struct harness *h)
{
	struct harness_result r;
	const char *const cat[] = {"cat", NULL};

	begin(h, &r, "tty; stty size; test -t 0 && test -t 1 && echo terminal; echo $TERM; stat -c %U $(tty); read x; echo got $x; ls -l /proc/self/fd | grep -c pts",
	      (struct agent_spec){.flags = AGENT_SPEC_PTY, .rows = 30, .cols = 100});
	harness_send(h, AGENT_STDIN, r.stream, 0, "hi\n", 3);
	ok(!harness_finish(h, &r, FRAME_MS) && r.exited && r.exit.code == 0, "a command with a terminal ends");
	/* what was typed may be echoed between any two of them */
	static const char *const lines[] = {"/dev/pts/0\r\n", "30 100\r\n", "terminal\r\n", "xterm-256color\r\n", "root\r\n"};
	const char *at = r.out;
	for (size_t i = 0; at && i < ARRAY_SIZE(lines); i++)
		at = strstr(at, lines[i]);
	ok(at != NULL, "its own, of this size, of this user");
	ok(strstr(r.out, "got hi") != NULL, "what is typed arrives");
	if (!strstr(r.out, "got hi"))
		printf("# %s\n", r.out);
	harness_clear(&r);
	begin(h, &r, "trap 'stty size; exit 0' WINCH; echo up; while :; do sleep 0.05; done", (struct agent_spec){.flags = AGENT_SPEC_PTY});
	struct agent_frame f;
	static uint8_t payload[AGENT_OUT_FRAME];
	harness_recv(h, FRAME_MS, &f, payload);
	harness_recv(h, FRAME_MS, &f, payload);
	harness_send(h, AGENT_RESIZE, r.stream, 50u << 16 | 132, NULL, 0);
	ok(!harness_finish(h, &r, FRAME_MS) && strstr(r.out, "50 132"), "a resize arrives");
	harness_clear(&r);
	begin(h, &r, "sleep 800", (struct agent_spec){.flags = AGENT_SPEC_PTY});
	harness_recv(h, FRAME_MS, &f, payload);
	harness_send(h, AGENT_SIGNAL, r.stream, SIGINT, r.id, sizeof(r.id));
	ok(!harness_finish(h, &r, FRAME_MS) && r.exit.signal == SIGINT, "a signal reaches the foreground");
	harness_clear(&r);

	harness_begin(h, &r, (struct agent_spec){.flags = AGENT_SPEC_STDIN}, "", cat, NULL);
	harness_send(h, AGENT_STDIN, r.stream, 0, "one ", 4);
	harness_send(h, AGENT_STDIN, r.stream, 0, "two", 3);
	harness_send(h, AGENT_STDIN_EOF, r.stream, 0, NULL, 0);
	ok(!harness_finish(h, &r, FRAME_MS) && r.exit.code == 0, "cat ends with its input");
	is_str(r.out, "one two", "and gave it back");
	harness_clear(&r);
}

/* ---- who and where ---- */

static void test_identity(struct harness *h)
{
	static const struct {
		const char *why;
		struct agent_spec spec;
		const char *cwd, *command, *out;
		uint32_t stage;
	} rows[] = {
		{"a user of the image", {.flags = AGENT_SPEC_UID, .uid = 1000}, "", "id -u; id -G; echo $HOME; grep -h CapEff /proc/self/status",
		 "1000\n1000 1500\n/root\nCapEff:\t0000000000000000\n", 0},
		{"no capability can come back", {.flags = AGENT_SPEC_UID, .uid = 1000}, "", "grep -h CapBnd /proc/self/status",
		 "CapBnd:\t0000000000000000\n", 0},
		{"a uid that nobody has", {.flags = AGENT_SPEC_UID, .uid = 4321}, "", "id -u; id -G", "4321\n0\n", 0},
		{"a gid of one's own", {.flags = AGENT_SPEC_UID | AGENT_SPEC_GID, .uid = 1000, .gid = 77}, "", "id -g", "77\n", 0},
		{"a uid beyond the bound", {.flags = AGENT_SPEC_UID, .uid = 0xffffffff}, "", "id", NULL, AGENT_STAGE_USER},
		{"a uid that is not mapped", {.flags = AGENT_SPEC_UID, .uid = 70000}, "", "id", NULL, AGENT_STAGE_IDENTITY},
		{"a directory", {0}, "/usr/bin", "pwd", "/usr/bin\n", 0},
		{"a directory with a variable", {0}, "/$NAME/bin", "pwd", "/usr/bin\n", 0},
		{"a directory that is not there", {0}, "/none", "pwd", NULL, AGENT_STAGE_CWD},
		{"a file is no directory", {0}, "/etc/passwd", "pwd", NULL, AGENT_STAGE_CWD},
		{"a descriptor is no way out", {0}, "/proc/1/cwd", "pwd", NULL, AGENT_STAGE_CWD},
	};
	static const char *const env[] = {"NAME=usr", NULL};
	struct harness_result r;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct agent_spec spec = rows[i].spec;
		const char *const args[] = {rows[i].command, NULL};

		spec.flags |= AGENT_SPEC_SHELL;
		harness_begin(h, &r, spec, rows[i].cwd, args, env);
		harness_finish(h, &r, FRAME_MS);
		if (rows[i].out)
			is_str(r.out, rows[i].out, "%s", rows[i].why);
		else
			ok(r.ended && r.end.reason == AGENT_FAILED_START && r.end.value == rows[i].stage, "%s is refused (%u %u)",
			   rows[i].why, r.end.reason, (unsigned)r.end.value);
		harness_clear(&r);
	}
	const char *const nothing[] = {"no-such-program", NULL};
	harness_begin(h, &r, (struct agent_spec){0}, "", nothing, NULL);
	ok(!harness_finish(h, &r, FRAME_MS) && r.end.value == AGENT_STAGE_EXEC && r.end.sys == ENOENT, "a program that is not there");
	harness_clear(&r);
	harness_run(h, &r, "printf 'A=file\\nB=$A-x\\n# no\\nexport\\n PATH=/opt/x:$PATH \\n' >> /opt/opensandbox/.env");
	harness_clear(&r);
	const char *const own[] = {"C=own", "B=own", NULL};
	const char *const show[] = {"echo $A $B $C $PATH", NULL};
	harness_begin(h, &r, (struct agent_spec){.flags = AGENT_SPEC_SHELL}, "", show, own);
	harness_finish(h, &r, FRAME_MS);
	is_str(r.out, "file own own /opt/x:/usr/local/bin:/usr/bin:/bin\n", "sandbox < file < command");
	harness_clear(&r);
	harness_run(h, &r, "echo $B; rm /opt/opensandbox/.env; mkfifo /opt/opensandbox/.env");
	is_str(r.out, "base-x\n", "the file's values use the sandbox's environment");
	harness_clear(&r);
	is_int(harness_run(h, &r, "echo $A"), 0, "a FIFO in its place stops nothing");
	is_str(r.out, "base\n", "and is not read");
	harness_clear(&r);
}

/* ---- attacks from inside ---- */

static void no_line_with(struct harness *h, const char *command, const char *bad, const char *why)
{
	struct harness_result r;
	int lines = 0;

	harness_run(h, &r, command);
	for (char *line = r.out ? strtok(r.out, "\n") : NULL; line; line = strtok(NULL, "\n")) {
		ok(!strstr(line, bad), "%s: %s", why, line);
		lines++;
	}
	ok(lines > 8, "%s: %d were tried", why, lines);
	harness_clear(&r);
}

static void test_attacks(struct harness *h)
{
	struct harness_result r;

	no_line_with(h, "/inside attack | grep -v refused; /inside attack | sed 's/^/all /'", "DONE", "attack on pid 1");
	harness_run(h, &r, "/inside attack | grep -v refused");
	is_str(r.out, "", "each is refused for want of a right");
	harness_clear(&r);
	no_line_with(h, "/inside masks", "DONE", "hardening");
	no_line_with(h, "/inside masks", "READ", "hidden");
	harness_run(h, &r, "/inside sockets");
	is_str(r.out, "unix yes\ntcp yes\nudp yes\ntcp6 yes\nrtnetlink yes\nnetfilter no\nsock_diag no\nraw no\npacket no\nalg no\n"
	       "vsock no\nbluetooth no\nxdp no\nping no raw socket needed\n", "socket families");
	harness_clear(&r);
	harness_run(h, &r, "/inside climb");
	is_str(r.out, "same root\n", "climbing out of the root ends at the root");
	harness_clear(&r);
	/* the entrypoint is among them, so the sandbox ends; its agent does not */
	struct agent_status st;
	harness_run(h, &r, "kill -9 -1; exit 3");
	harness_clear(&r);
	is_int(harness_status(h, FRAME_MS, &st), AGENT_STATE_ENDED, "killing everybody ends the sandbox");
	ok(st.exit_signal == SIGKILL, "by the signal");
	is_int(harness_run(h, &r, "echo"), -2, "and leaves the agent, which answers");
	is_int(r.end.reason, AGENT_ENDED, "that it has ended");
	harness_clear(&r);
}

/* ---- images ---- */

static void hostile_image(const char *root)
{
	static const struct {
		const char *name, *target;
	} links[] = {{"proc", "/etc"}, {"dev", "../../../../tmp"}, {"etc/hosts", "/etc/passwd"}, {"data", "/proc/self"}};
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		snprintf(path, sizeof(path), "%s/%s", root, links[i].name);
		ok(!symlink(links[i].target, path), "the image has a link at %s", links[i].name);
	}
	snprintf(path, sizeof(path), "%s/sys", root);
	ok(!mkfifo(path, 0666), "and a FIFO at /sys");
	snprintf(path, sizeof(path), "%s/etc/resolv.conf", root);
	ok(!mkfifo(path, 0666), "and at /etc/resolv.conf");
}

static void fifo_passwd(const char *root)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/etc/passwd", root);
	ok(!unlink(path) && !mkfifo(path, 0666), "a FIFO at /etc/passwd");
	snprintf(path, sizeof(path), "%s/etc/group", root);
	ok(!unlink(path) && !symlink("/dev/zero", path), "a device behind /etc/group");
}

static void test_images(void)
{
	static struct harness h;
	static const char *const env[] = {"PATH=/bin:/usr/bin", NULL};
	static const char *const entry[] = {"/inside", "sleep", NULL};
	struct harness_result r;

	ok(!harness_up(&h, &(struct harness_opts){.image = hostile_image}), "a hostile image starts");
	is_int(harness_run(&h, &r, "test -d /proc/self && test -c /dev/null && test -d /sys/class && cat /etc/resolv.conf | wc -l"), 0,
	       "with its own /proc, /dev, /sys and resolv.conf");
	harness_clear(&r);
	harness_run(&h, &r, "head -1 /etc/hosts; id -u; ls -ld /proc | cut -c1; ls /tmp");
	is_str(r.out, "127.0.0.1\tlocalhost\n0\nd\n", "nothing went where the links point");
	harness_clear(&r);
	harness_stop(&h);
	ok(!harness_up(&h, &(struct harness_opts){.image = fifo_passwd}), "an image whose passwd never answers starts");
	const char *const bare[] = {"/inside", "say", "hi", NULL};
	harness_begin(&h, &r, (struct agent_spec){.flags = AGENT_SPEC_UID, .uid = 1000}, "", bare, NULL);
	harness_finish(&h, &r, FRAME_MS);
	is_str(r.out, "hi 1000 0\n", "its users are numbers");
	harness_clear(&r);
	is_int(fs(&h, &r, (struct agent_fs){.op = AGENT_FS_INFO}, "/inside", NULL, NULL), 0, "files work too");
	harness_clear(&r);
	harness_stop(&h);
	ok(!harness_launch(&h, &(struct harness_opts){.no_usr = true}), "an empty image launches");
	is_int(harness_start(&h, entry, env, "", ""), AGENT_STATE_RUNNING, "its one static program runs");
	is_int(harness_run(&h, &r, "echo no"), -2, "it has no shell");
	ok(r.end.reason == AGENT_FAILED_START && r.end.value == AGENT_STAGE_EXEC && r.end.sys == ENOENT, "which is said");
	harness_clear(&r);
	const char *const say[] = {"/inside", "say", "bare", NULL};
	harness_begin(&h, &r, (struct agent_spec){0}, "", say, NULL);
	harness_finish(&h, &r, FRAME_MS);
	is_str(r.out, "bare 0 0\n", "a program without a shell runs");
	harness_clear(&r);
	is_int(put_file(&h, &r, (struct agent_fs){.op = AGENT_FS_WRITE}, "/x", "", "", "1", 1), 0, "files work there");
	harness_clear(&r);
	harness_stop(&h);
	const struct harness_opts volumes = {.volume = {"/a/b", "/etc/one.conf", "/proc/x"}, .volume_file = {false, true, false}};
	ok(!harness_up(&h, &volumes), "volumes, made where they are missing");
	is_int(harness_run(&h, &r, "echo 1 > /a/b/f && echo 2 > /etc/one.conf && grep -c ' /a/b \\| /etc/one.conf ' /proc/mounts && test ! -d /proc/x"),
	       0, "are there; one at /proc/x lies below /proc");
	harness_clear(&r);
	harness_stop(&h);
	const struct harness_opts bad = {.volume = {"/../../etc"}};
	is_int(harness_launch(&h, &bad), -1, "a volume that climbs");
	ok(h.failed.stage == LAUNCH_STAGE_VOLUME && h.failed.sys == EINVAL, "is refused at its stage");
	harness_stop(&h);
}

/* ---- the entrypoint ---- */

static void test_entry(void)
{
	static struct harness h;
	static const char *const env[] = {"PATH=/bin:/usr/bin", "HOSTNAME=x", NULL};
	static const char *const script[] = {"sh", "-c", "id -u; echo $HOME; pwd; sleep 0.3; exit 9", NULL};
	static const char *const missing[] = {"/no/such", NULL};
	static const char *const forever[] = {"sleep", "900", NULL};
	static const uint8_t none[AGENT_ID_BYTES];
	struct agent_status st;
	struct harness_result r, q;

	ok(!harness_launch(&h, NULL), "a sandbox");
	harness_control(&h, AGENT_QUERY, 0);
	is_int(harness_status(&h, FRAME_MS, &st), AGENT_STATE_WAITING, "waits for START");
	is_int(harness_start(&h, script, env, "user", "/tmp"), AGENT_STATE_RUNNING, "its entrypoint runs");
	begin(&h, &r, "echo in; sleep 910", (struct agent_spec){0});
	is_int(harness_status(&h, FRAME_MS, &st), AGENT_STATE_ENDED, "and ends");
	ok(st.exit_code == 9 && st.exit_signal == 0 && st.ended_wall_usec > st.started_wall_usec, "with its code");
	ok(!harness_finish(&h, &r, FRAME_MS) && r.exit.signal == SIGKILL, "which kills every other command");
	logs(&h, &q, none, 0);
	is_str(q.out, "1000\n/home/user\n/tmp\n", "its output is kept: user, home and directory of START");
	harness_clear(&q);
	harness_control(&h, AGENT_QUERY, 0);
	is_int(harness_status(&h, FRAME_MS, &st), AGENT_STATE_ENDED, "it still answers");
	is_int(harness_run(&h, &q, "echo"), -2, "but starts nothing");
	is_int(q.end.reason, AGENT_ENDED, "for that reason");
	harness_clear(&q);
	harness_clear(&r);
	harness_stop(&h);

	ok(!harness_launch(&h, NULL), "a sandbox");
	is_int(harness_start(&h, missing, env, "", ""), AGENT_STATE_START_FAILED, "an entrypoint that is not there");
	harness_stop(&h);
	ok(!harness_launch(&h, NULL), "a sandbox");
	is_int(harness_start(&h, forever, env, "nobody-knows", ""), AGENT_STATE_START_FAILED, "a user that is not there");
	harness_stop(&h);
	ok(!harness_launch(&h, NULL), "a sandbox");
	is_int(harness_start(&h, forever, env, "1000:1500", ""), AGENT_STATE_RUNNING, "uid and gid");
	harness_run(&h, &r, "id -u; id -g; echo $HOME");
	is_str(r.out, "1000\n1500\n/home/user\n", "are those of every command");
	harness_clear(&r);
	harness_control(&h, AGENT_STOP, SIGTERM);
	is_int(harness_status(&h, FRAME_MS, &st), AGENT_STATE_ENDED, "STOP ends it");
	ok(st.exit_code == -1 && st.exit_signal == SIGTERM, "by the signal");
	harness_stop(&h);
}

/* ---- figures: `sys_agent bench`, not part of the test ---- */

static int by_value(const void *a, const void *b)
{
	return *(const int64_t *)a < *(const int64_t *)b ? -1 : 1;
}

static void figure(const char *what, int64_t *usec, size_t n)
{
	qsort(usec, n, sizeof(*usec), by_value);
	printf("%-28s p50 %6.3f ms  p99 %6.3f ms\n", what, (double)usec[n / 2] / 1000, (double)usec[n * 99 / 100] / 1000);
}

static void rollup(const struct harness *h)
{
	char path[64], line[256];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)h->pid);
	auto_file f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "Pss:", 4) || !strncmp(line, "Private_D", 9) || !strncmp(line, "Rss", 3))
			printf("%s", line);
}

static int bench(struct harness *h)
{
	static const char *const bash[] = {"true", NULL}, *const direct[] = {"/inside", "say", "x", NULL};
	static const char *const dash[] = {"sh", "-c", "true", NULL};
	static const struct {
		const char *what;
		const char *const *args;
		uint32_t flags;
		unsigned pause_ms;
	} rows[] = {
		{"bash -c true", bash, AGENT_SPEC_SHELL, 0},	 {"sh -c true", dash, 0, 0},
		{"a static program", direct, 0, 0},		 {"bash -c true, 10 ms apart", bash, AGENT_SPEC_SHELL, 10},
	};
	static int64_t usec[400];
	struct harness_result r;

	poll(NULL, 0, 6000); /* until the spare has gone */
	rollup(h);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(usec); k++) {
			int64_t before = sysx_mono_usec();

			harness_begin(h, &r, (struct agent_spec){.flags = rows[i].flags}, "", rows[i].args, NULL);
			if (harness_finish(h, &r, FRAME_MS))
				return 1;
			usec[k] = sysx_mono_usec() - before;
			harness_clear(&r);
			poll(NULL, 0, (int)rows[i].pause_ms);
		}
		figure(rows[i].what, usec, ARRAY_SIZE(usec));
	}
	for (size_t k = 0; k < ARRAY_SIZE(usec); k++) {
		int64_t before = sysx_mono_usec();

		fs(h, &r, (struct agent_fs){.op = AGENT_FS_INFO}, "/etc/passwd", NULL, NULL);
		usec[k] = sysx_mono_usec() - before;
		harness_clear(&r);
	}
	figure("info of a file", usec, ARRAY_SIZE(usec));
	auto_free char *big = calloc(1, 64 << 20);
	int64_t before = sysx_mono_usec();
	put_file(h, &r, (struct agent_fs){.op = AGENT_FS_WRITE}, "/tmp/big", "", "", big, 64 << 20);
	printf("64 MiB up %.1f ms\n", (double)(sysx_mono_usec() - before) / 1000);
	harness_clear(&r);
	before = sysx_mono_usec();
	fs(h, &r, (struct agent_fs){.op = AGENT_FS_READ}, "/tmp/big", NULL, NULL);
	printf("64 MiB down %.1f ms (the harness copies)\n", (double)(sysx_mono_usec() - before) / 1000);
	harness_clear(&r);
	rollup(h);
	return 0;
}

int main(int argc, char **argv)
{
	static struct harness h;

	if (!ok(!harness_up(&h, NULL), "a sandbox starts"))
		return tap_done();
	if (argc > 1 && !strcmp(argv[1], "bench")) {
		int r = bench(&h);

		harness_stop(&h);
		return r;
	}
	test_commands(&h);
	test_files(&h);
	test_in_place(&h);
	test_bulk(&h);
	test_driver(&h);
	test_ends(&h);
	test_tails(&h);
	test_spare(&h);
	test_launcher(&h);
	test_launcher_stopped(&h);
	test_still(&h);
	test_overtaken(&h);
	test_many(&h);
	test_output(&h);
	test_attach(&h);
	test_terminal(&h);
	test_identity(&h);
	test_attacks(&h);
	harness_stop(&h);
	test_images();
	test_entry();
	return tap_done();
}
