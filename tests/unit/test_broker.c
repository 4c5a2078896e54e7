// SPDX-License-Identifier: Apache-2.0
/* The broker's pure parts: names, request layouts, the table of system calls. */
#include "config.h"

#include "base/cleanup.h"
#include "base/path.h"
#include "base/sysfilter.h"
#include "base/sysfilter_ranges.h"
#include "runtime/broker/broker_decode.h"
#include "runtime/broker/launch_sync.h"
#include "runtime/broker/profile.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void test_names(void)
{
	static const struct {
		const char *why, *rel;
		bool want;
	} rows[] = {
		{"the directory itself", "", true},
		{"one component", "a", true},
		{"two", "a/b", true},
		{"dots within a name", "a..b/...", true},
		{"spaces and UTF-8", "a b/\xc3\xa4", true},
		{"absolute", "/a", false},
		{"up", "..", false},
		{"up in the middle", "a/../b", false},
		{"up at the end", "a/..", false},
		{"dot", "./a", false},
		{"empty component", "a//b", false},
		{"trailing slash", "a/", false},
		{"newline", "a\nb", false},
		{"delete character", "a\177", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		ok(path_rel_ok(rows[i].rel) == rows[i].want, "name: %s", rows[i].why);
}

static void test_beneath(void)
{
	char dir[] = "/tmp/sbx-path.XXXXXX";
	struct stat st;

	if (!ok(mkdtemp(dir) != NULL, "directory"))
		return;
	auto_fd fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_fd made = path_make_beneath(fd, "a/b/c", 0755);
	ok(made >= 0 && fstatat(fd, "a/b/c", &st, 0) == 0 && S_ISDIR(st.st_mode), "missing directories are made");
	ok(symlinkat("/etc", fd, "link") == 0 && symlinkat("..", fd, "a/up") == 0, "links");
	static const struct {
		const char *rel;
		int want;
	} rows[] = {{"a/b", 0}, {"link", -ELOOP}, {"link/passwd", -ELOOP}, {"a/up", -ELOOP}, {"a/up/etc", -ELOOP}, {"../etc", -EXDEV}, {"/etc", -EXDEV}, {"none", -ENOENT}};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int r = path_open_beneath(fd, rows[i].rel, O_PATH);

		ok(rows[i].want ? r == rows[i].want : r >= 0, "open %s: %d", rows[i].rel, r);
		close_keep_errno(r);
	}
	ok(path_make_beneath(fd, "link/x", 0755) < 0 && fstatat(AT_FDCWD, "/etc/x", &st, 0) < 0, "nothing is made through a link");
	ok(path_make_beneath(fd, "a/../../x", 0755) == -EINVAL, "nor through dots");
	char command[64];
	snprintf(command, sizeof(command), "%s", dir);
	auto_fd only_path = path_open_beneath(fd, "a", O_PATH | O_DIRECTORY);
	unsigned n[2] = {0};
	for (unsigned i = 0; i < 2; i++) {
		auto_dir names = path_dir(only_path);

		while (names && readdir(names))
			n[i]++;
	}
	ok(n[0] == 4 && n[1] == 4, "a directory is read from its beginning each time: %u and %u names", n[0], n[1]);
	ok(!path_dir(-1) && errno == EBADF, "and says why it cannot be");
	unlinkat(fd, "link", 0);
	unlinkat(fd, "a/up", 0);
	unlinkat(fd, "a/b/c", AT_REMOVEDIR);
	unlinkat(fd, "a/b", AT_REMOVEDIR);
	unlinkat(fd, "a", AT_REMOVEDIR);
	rmdir(dir);
}

static void test_decode(void)
{
	static union broker_any any;
	struct sbx_err err;
	static const struct {
		const char *why;
		size_t at; /* byte of a valid create that is set to 0xff */
	} bad[] = {
		{"flags", offsetof(struct broker_create, flags) + 1},
		{"layer count", offsetof(struct broker_create, n_layers)},
		{"volume count", offsetof(struct broker_create, n_volumes)},
		{"layer behind the last", offsetof(struct broker_create, layer) + BROKER_KEY_BYTES},
		{"volume behind the last", offsetof(struct broker_create, volume) + sizeof(struct broker_volume)},
		{"byte behind the NUL", offsetof(struct broker_create, volume) + offsetof(struct broker_volume, rel) + 10},
	};

	for (size_t i = 0; i <= ARRAY_SIZE(bad); i++) {
		memset(&any, 0, sizeof(any));
		any.head = (struct broker_head){.magic = BROKER_MAGIC, .op = BROKER_OP_SANDBOX_CREATE, .size = sizeof(any.create)};
		any.create.n_layers = 1;
		any.create.n_volumes = 1;
		if (i < ARRAY_SIZE(bad))
			((unsigned char *)&any)[bad[i].at] = 0xff;
		int r = broker_decode(&any, sizeof(any.create), 0, &err);
		ok(i == ARRAY_SIZE(bad) ? r == 0 : r < 0, "create: %s", i < ARRAY_SIZE(bad) ? bad[i].why : "a good one passes");
	}
	ok(broker_decode(&any, sizeof(any.create), 1, &err) < 0, "create: a descriptor too many");
	ok(broker_decode(&any, sizeof(any.create) - 1, 0, &err) < 0, "create: a byte too few");
}

/* ---- the programs, each call in a child that loaded one ---- */

static int call_in_child(enum profile_program program, int (*call)(void))
{
	struct sbx_err err;
	uint32_t len = 0;
	int status;

	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		int fd = profile_compile(program, &len, &err);

		if (fd < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sysfilter_load(fd, len) < 0)
			_exit(250);
		int r = call();
		_exit(r < 0 ? errno : 0);
	}
	if (waitpid(pid, &status, 0) < 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int sys_unshare(void) { return unshare(CLONE_NEWUSER); }
static int sys_clone_user(void) { return (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0); }
static int sys_clone3(void) { return (int)syscall(SYS_clone3, NULL, 0); }
static int sys_mount(void) { return (int)syscall(SYS_mount, NULL, NULL, NULL, 0, NULL); }
static int sys_bpf(void) { return (int)syscall(SYS_bpf, 0, NULL, 0); }
static int sys_io_uring(void) { return (int)syscall(SYS_io_uring_setup, 1, NULL); }
static int sys_keyctl(void) { return (int)syscall(SYS_keyctl, 0, 0, 0, 0, 0); }
static int sys_unknown(void) { return (int)syscall(999, 0); }
static int sys_tiocsti(void) { return ioctl(0, TIOCSTI, ""); }
static int sys_tiocsti_high(void) { return (int)syscall(SYS_ioctl, 0, 0x100000000ul | TIOCSTI, ""); }
static int sys_raw(void) { return socket(AF_INET, SOCK_RAW, 1); }
static int sys_raw_flags(void) { return socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, 1); }
static int sys_packet(void) { return socket(AF_PACKET, SOCK_DGRAM, 0); }
static int sys_alg(void) { return socket(38, SOCK_SEQPACKET, 0); }
static int sys_vsock(void) { return socket(40, SOCK_STREAM, 0); }
static int sys_netlink(void) { return socket(AF_NETLINK, SOCK_RAW, 0); }
static int sys_netlink_nft(void) { return socket(AF_NETLINK, SOCK_RAW, 12); }
static int sys_inet(void) { return socket(AF_INET, SOCK_STREAM, 0); }
static int sys_unix_pair(void) { int fd[2]; return socketpair(AF_UNIX, SOCK_STREAM, 0, fd); }
static int sys_core(void) { struct rlimit l = {0, 0}; return setrlimit(RLIMIT_CORE, &l); }
static int sys_x32(void) { return (int)syscall(0x40000000 | 39); }

static void test_profile(void)
{
	/* clang-format off */
	static const struct { const char *why; int (*call)(void); int payload, agent; } rows[] = {
		{"unshare(NEWUSER)", sys_unshare, EPERM, -2},
		{"clone(NEWUSER)", sys_clone_user, EPERM, -2},
		{"clone3 is not there for tenants", sys_clone3, ENOSYS, -2},
		{"mount", sys_mount, EPERM, EPERM},
		{"bpf", sys_bpf, EPERM, EPERM},
		{"io_uring is not there", sys_io_uring, ENOSYS, ENOSYS},
		{"keyctl", sys_keyctl, EPERM, EPERM},
		{"an unknown number", sys_unknown, ENOSYS, ENOSYS},
		{"TIOCSTI", sys_tiocsti, EPERM, EPERM},
		{"TIOCSTI with a bit in the upper half", sys_tiocsti_high, EPERM, EPERM},
		{"raw socket", sys_raw, EPERM, -2},
		{"raw socket with flags", sys_raw_flags, EPERM, -2},
		{"AF_PACKET", sys_packet, EAFNOSUPPORT, -2},
		{"AF_ALG", sys_alg, EAFNOSUPPORT, -2},
		{"AF_VSOCK", sys_vsock, EAFNOSUPPORT, -2},
		{"netlink route", sys_netlink, 0, 0},
		{"netlink netfilter", sys_netlink_nft, EPROTONOSUPPORT, -2},
		{"AF_INET", sys_inet, 0, 0},
		{"socketpair", sys_unix_pair, 0, 0},
		{"core limit 0 is answered without effect", sys_core, 0, -2},
#ifdef __x86_64__
		{"x32 kills", sys_x32, 1000 + SIGSYS, 1000 + SIGSYS},
#endif
	};
	/* clang-format on */
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int r = call_in_child(PROFILE_PAYLOAD, rows[i].call);

		ok(r == rows[i].payload, "payload: %s (%d)", rows[i].why, r);
		if (rows[i].agent == -2)
			continue;
		r = call_in_child(PROFILE_AGENT, rows[i].call);
		ok(r == rows[i].agent, "agent: %s (%d)", rows[i].why, r);
	}
	for (int p = 0; p < PROFILE_COUNT; p++) {
		struct sbx_err err = {0};
		uint32_t len = 0;
		auto_fd fd = profile_compile((enum profile_program)p, &len, &err);

		ok(fd >= 0 && len > 0 && len <= LAUNCH_MAX_FILTER, "program %d: %u instructions %s", p, len, err.msg);
		ok(fd >= 0 && pwrite(fd, "", 1, 0) < 0, "program %d is sealed", p);
	}
	ok(call_in_child(PROFILE_BROKER, sys_bpf) == EPERM && call_in_child(PROFILE_BROKER, sys_inet) == 0 &&
		   call_in_child(PROFILE_BROKER, sys_clone3) == EINVAL,
	   "the broker's own program denies only what no sandbox needs");
}

/* ---- programs made short ---- */

#define ARCH 0xc000003eu

/* A table as libseccomp writes it: the architecture, x32, a comparison and an answer for each number. */
static size_t list_program(struct sock_filter *code, size_t n_numbers, uint32_t step, uint32_t seed)
{
	size_t n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4);
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	for (size_t i = 0; i < n_numbers; i++) {
		seed = seed * 1103515245 + 12345;
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)i * step, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, seed & 0x70000 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | 1);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 38);
	return n;
}

static unsigned count_differences(const struct sock_filter *a, size_t n_a, const struct sock_filter *b, size_t n_b)
{
	static const uint32_t far[] = {0x3fffffff, 0x40000000, 0x40000001, 0x400003e7, 0x7fffffff, 0x80000000, UINT32_MAX};
	unsigned different = 0;

	for (uint32_t nr = 0; nr < 3000 + ARRAY_SIZE(far); nr++)
		for (uint32_t arch = ARCH - 1; arch <= ARCH + 1; arch++) {
			struct seccomp_data data = {.nr = (int)(nr < 3000 ? nr : far[nr - 3000]), .arch = arch};
			int64_t want = sysfilter_run(a, n_a, &data);

			different += want < 0 || sysfilter_run(b, n_b, &data) != want;
		}
	return different;
}

static void test_short_programs(void)
{
	static const struct { const char *why; size_t numbers; uint32_t step; size_t most; } rows[] = {
		{"nothing in it", 0, 1, 7}, {"a table without holes", 400, 1, 300}, {"as many ranges as numbers", 1000, 2, 4096},
		{"far apart", 300, 9, 4096},
	};
	static struct sock_filter code[4096], was[4096];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		size_t before = list_program(code, rows[i].numbers, rows[i].step, (uint32_t)i);

		memcpy(was, code, sizeof(code));
		size_t n = sysfilter_shorten(code, before, ARCH);
		ok(n <= before && n <= rows[i].most, "%s: %zu instructions of %zu", rows[i].why, n, before);
		is_int(count_differences(was, before, code, n), 0, "with the same answers");
	}
	size_t n = list_program(code, 400, 1, 1);
	code[n - 1] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16);
	code[n] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
	is_int(sysfilter_shorten(code, n + 1, ARCH), n + 1, "a program that looks at arguments stays");
	n = list_program(code, 400, 1, 1);
	is_int(sysfilter_shorten(code, n - 1, ARCH), n - 1, "so does one that does not end");
	n = list_program(code, 400, 1, 1);
	code[1].k = ARCH + 5;
	code[2] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 0, 1);
	is_int(sysfilter_shorten(code, n, ARCH), n, "and one for two architectures");
	for (int p = 0; p < PROFILE_COUNT; p++) {
		struct sbx_err err = {0};
		uint32_t len = 0;
		auto_fd fd = profile_compile((enum profile_program)p, &len, &err);

		ok(fd >= 0 && pread(fd, code, sizeof(code), 0) == (ssize_t)(len * sizeof(*code)), "program %d: %u instructions", p, len);
#ifdef __x86_64__
		struct seccomp_data x32 = {.nr = 0x40000000 + 39, .arch = ARCH}, i386 = {.nr = 20, .arch = 0x40000003u};

		ok(sysfilter_run(code, len, &x32) == SECCOMP_RET_KILL_PROCESS && sysfilter_run(code, len, &i386) == SECCOMP_RET_KILL_PROCESS,
		   "other architectures are killed");
#endif
	}
}

int main(void)
{
	test_names();
	test_beneath();
	test_decode();
	test_profile();
	test_short_programs();
	return tap_done();
}
