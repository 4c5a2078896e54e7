// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: what the tests of sandbox-agent run inside a sandbox: static, so that it also is the one file of an empty image
 *
 *   inside attack    every attack on pid 1, one line each: name and "refused" or what it got
 *   inside masks     what /proc, /sys, mounts and namespaces allow
 *   inside sockets   which families and types a socket can have
 *   inside climb     tries to leave the root with chroot
 *   inside say TEXT  prints TEXT and its own standing
 *   inside flood N   writes N bytes of 'y'
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Any of the errnos by which the kernel or the filter says no; another one would mean that the attack got further. */
static void tell(const char *name, long r)
{
	int e = errno;

	if (r < 0 && (e == EPERM || e == EACCES || e == EROFS || e == ENOSYS))
		printf("%s refused\n", name);
	else if (r < 0)
		printf("%s errno %d\n", name, e);
	else
		printf("%s DONE %ld\n", name, r);
}

static void try_open(const char *path, int flags)
{
	tell(path, open(path, flags));
}

static void attack(void)
{
	struct rlimit lim = {8, 8}, cpu = {1, 1};
	char byte = 0, text[64];
	struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
	cpu_set_t set;

	tell("ptrace", ptrace(PTRACE_SEIZE, 1, 0, 0));
	try_open("/proc/1/mem", O_RDWR);
	try_open("/proc/1/environ", O_RDONLY);
	try_open("/proc/1/maps", O_RDONLY);
	try_open("/proc/1/fd/3", O_RDWR);
	try_open("/proc/1/ns/user", O_RDONLY);
	tell("readlink exe", readlink("/proc/1/exe", text, sizeof(text)));
	try_open("/proc/1/exe", O_RDONLY);
	try_open("/proc/1/root/etc", O_RDONLY);
	int pidfd = (int)syscall(434, 1, 0);
	if (pidfd < 0)
		tell("pidfd_open", pidfd);
	else
		tell("pidfd_getfd", syscall(438, pidfd, 3, 0));
	tell("prlimit nofile", prlimit(1, RLIMIT_NOFILE, &lim, NULL));
	tell("prlimit cpu", prlimit(1, RLIMIT_CPU, &cpu, NULL));
	tell("kill usr1", kill(1, SIGUSR1));
	tell("kill stop", kill(1, SIGSTOP));
	tell("kill kill", kill(1, SIGKILL));
	int fd = open("/proc/1/oom_score_adj", O_WRONLY);
	tell("oom_score_adj", fd < 0 ? fd : write(fd, "1000", 4));
	tell("setpriority", setpriority(PRIO_PROCESS, 1, 19));
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	tell("sched_setaffinity", sched_setaffinity(1, sizeof(set), &set));
	tell("process_vm_readv", process_vm_readv(1, &here, 1, &there, 1, 0));
	tell("process_vm_writev", process_vm_writev(1, &here, 1, &there, 1, 0));
	/* setrlimit of cores is answered and has no effect */
	lim = (struct rlimit){0, 0};
	int r = setrlimit(RLIMIT_CORE, &lim);
	getrlimit(RLIMIT_CORE, &lim);
	printf("core limit %s\n", !r && lim.rlim_cur == 1 && lim.rlim_max == 1 ? "refused" : "DONE");
}

static void hidden(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY | O_NONBLOCK);

	if (fd < 0)
		printf("%s %s\n", path, errno == ENOENT ? "absent" : "refused");
	else
		printf("%s %s\n", path, read(fd, &byte, 1) > 0 ? "READ" : "empty");
}

static void writes(const char *path)
{
	int fd = open(path, O_WRONLY);
	long r = fd < 0 ? fd : write(fd, "1", 1);

	tell(path, r);
}

static void masks(void)
{
	static const char *const hide[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kallsyms", "/proc/kmsg",
					   "/proc/sched_debug", "/proc/kpagecount", "/proc/slabinfo", "/proc/vmallocinfo"};
	static const char *const ro[] = {"/proc/sys/kernel/shmmax", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches",
					 "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"};

	for (size_t i = 0; i < sizeof(hide) / sizeof(*hide); i++)
		hidden(hide[i]);
	for (size_t i = 0; i < sizeof(ro) / sizeof(*ro); i++)
		writes(ro[i]);
	tell("create in /dev", open("/dev/x", O_CREAT | O_WRONLY, 0600));
	tell("mknod", mknod("/tmp/mem", S_IFCHR | 0600, 0x101));
	tell("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
	tell("umount /proc", umount2("/proc", MNT_DETACH));
	tell("umount mask", umount2("/proc/kcore", MNT_DETACH));
	tell("unshare user", unshare(CLONE_NEWUSER));
	tell("unshare mount", unshare(CLONE_NEWNS));
	tell("clone user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
	tell("setns", setns(open("/proc/self/ns/net", O_RDONLY), CLONE_NEWNET));
	tell("sethostname", sethostname("x", 1));
	tell("keyctl", syscall(SYS_keyctl, 0, -3, 0));
	tell("bpf", syscall(SYS_bpf, 0, 0, 0));
	tell("io_uring", syscall(425, 1, 0));
	tell("userfaultfd", syscall(SYS_userfaultfd, 0));
	tell("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, 0, 0));
}

static void sockets(void)
{
	static const struct {
		const char *name;
		int family, type, protocol;
	} rows[] = {
		{"unix", AF_UNIX, SOCK_STREAM, 0},    {"tcp", AF_INET, SOCK_STREAM, 0},	  {"udp", AF_INET, SOCK_DGRAM, 0},
		{"tcp6", AF_INET6, SOCK_STREAM, 0},   {"rtnetlink", AF_NETLINK, SOCK_RAW, 0}, {"netfilter", AF_NETLINK, SOCK_RAW, 12},
		{"sock_diag", AF_NETLINK, SOCK_RAW, 4}, {"raw", AF_INET, SOCK_RAW, 1},	  {"packet", AF_PACKET, SOCK_RAW, 0},
		{"alg", 38, SOCK_SEQPACKET, 0},	      {"vsock", 40, SOCK_STREAM, 0},	  {"bluetooth", 31, SOCK_RAW, 0},
		{"xdp", 44, SOCK_RAW, 0},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		int fd = socket(rows[i].family, rows[i].type, rows[i].protocol);

		printf("%s %s\n", rows[i].name, fd >= 0 ? "yes" : "no");
	}
	int fd = socket(AF_INET, SOCK_DGRAM, 1 /* ICMP */);
	printf("ping %s\n", fd >= 0 || errno == EACCES ? "no raw socket needed" : "no");
}

static int climb(void)
{
	struct stat before, after;
	int fd = open("/", O_RDONLY | O_DIRECTORY);

	stat("/", &before);
	mkdir("/tmp/jail", 0755);
	if (chroot("/tmp/jail") < 0 || fchdir(fd) < 0)
		return printf("no chroot: %s\n", strerror(errno));
	for (int i = 0; i < 200; i++)
		if (chdir("..") < 0)
			return printf("chdir: %s\n", strerror(errno));
	if (chroot(".") < 0)
		return printf("second chroot: %s\n", strerror(errno));
	stat("/", &after);
	printf("%s\n", before.st_dev == after.st_dev && before.st_ino == after.st_ino ? "same root" : "OUT");
	return 0;
}

static int flood(long n)
{
	static char block[65536];

	memset(block, 'y', sizeof(block));
	while (n > 0) {
		ssize_t r = write(1, block, n < (long)sizeof(block) ? (size_t)n : sizeof(block));

		if (r <= 0)
			return 1;
		n -= r;
	}
	return 0;
}

/* Who opens @path then waits for us, as for a file system that does not answer. */
static int lease(const char *path)
{
	int fd = open(path, O_RDWR);
	int r = fd < 0 || signal(SIGIO, SIG_IGN) == SIG_ERR ? -1 : fcntl(fd, F_SETLEASE, F_WRLCK);

	printf("%s\n", r < 0 ? strerror(errno) : "held");
	fflush(stdout);
	if (!r)
		pause();
	return r < 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOFBF, 16384);
	if (!strcmp(what, "attack"))
		attack();
	else if (!strcmp(what, "masks"))
		masks();
	else if (!strcmp(what, "sockets"))
		sockets();
	else if (!strcmp(what, "climb"))
		climb();
	else if (!strcmp(what, "flood") && argc > 2)
		return flood(strtol(argv[2], NULL, 10));
	else if (!strcmp(what, "sleep"))
		pause();
	else if (!strcmp(what, "lease") && argc > 2)
		return lease(argv[2]);
	else if (!strcmp(what, "say") && argc > 2)
		printf("%s %d %d\n", argv[2], (int)getuid(), (int)getgid());
	else
		return 2;
	return 0;
}
