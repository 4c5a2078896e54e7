// SPDX-License-Identifier: Apache-2.0
#include "base/isolate.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#define X32_BIT	 0x40000000u
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#else
#error "isolate.c: name the audit architecture"
#endif

#define SANDBOXD (1u << ISOLATE_SANDBOXD)
#define GATEWAY	 (1u << ISOLATE_GATEWAY)
#define DNSD	 (1u << ISOLATE_DNSD)
#define FETCH	 (1u << ISOLATE_FETCH)
#define ALL	 (SANDBOXD | GATEWAY | DNSD | FETCH)

/*
 * What none of them has a use for and a taken-over one would want.  Most of it needs capabilities that are gone; the filter is
 * there for the day when a kernel bug gives them back.  Numbers exist on all kernels that we build for.
 */
static const struct {
	int number;
	unsigned denied_to;
} denied[] = {
	/* other processes */
	{SYS_ptrace, ALL},
	{SYS_process_vm_readv, ALL},
	{SYS_process_vm_writev, ALL},
	{SYS_pidfd_getfd, ALL},
	{SYS_kcmp, ALL},
	/* namespaces and mounts */
	{SYS_unshare, ALL},
	{SYS_setns, ALL},
	{SYS_mount, ALL},
	{SYS_umount2, ALL},
	{SYS_pivot_root, ALL},
	{SYS_chroot, ALL},
	{SYS_open_tree, ALL},
	{SYS_move_mount, ALL},
	{SYS_fsopen, ALL},
	{SYS_fsconfig, ALL},
	{SYS_fsmount, ALL},
	{SYS_fspick, ALL},
	{SYS_mount_setattr, ALL},
	{SYS_name_to_handle_at, ALL},
	{SYS_open_by_handle_at, ALL},
	/* the kernel itself */
	{SYS_init_module, ALL},
	{SYS_finit_module, ALL},
	{SYS_delete_module, ALL},
	{SYS_kexec_load, ALL},
	{SYS_bpf, ALL},
	{SYS_perf_event_open, ALL},
	{SYS_userfaultfd, ALL},
	{SYS_io_uring_setup, ALL},
	{SYS_io_uring_enter, ALL},
	{SYS_io_uring_register, ALL},
	{SYS_keyctl, ALL},
	{SYS_add_key, ALL},
	{SYS_request_key, ALL},
	{SYS_swapon, ALL},
	{SYS_swapoff, ALL},
	{SYS_reboot, ALL},
	{SYS_acct, ALL},
	{SYS_quotactl, ALL},
	{SYS_sethostname, ALL},
	{SYS_setdomainname, ALL},
	{SYS_settimeofday, ALL},
	{SYS_clock_settime, ALL},
	{SYS_adjtimex, ALL},
	{SYS_personality, ALL},
#ifdef SYS_iopl
	{SYS_iopl, ALL},
	{SYS_ioperm, ALL},
#endif
	/* starting anything */
	{SYS_execve, GATEWAY | DNSD | FETCH},
	{SYS_execveat, GATEWAY | DNSD | FETCH},
#ifdef SYS_fork
	{SYS_fork, GATEWAY | DNSD | FETCH},
#endif
	{SYS_clone, GATEWAY | DNSD},
	/* leaving names behind */
	{SYS_mknodat, DNSD | FETCH},
	{SYS_unlinkat, DNSD | FETCH},
	{SYS_renameat2, DNSD | FETCH},
	{SYS_mkdirat, DNSD | FETCH},
};

static const struct {
	const char *name;
	rlim_t nofile;
} processes[ISOLATE_COUNT] = {
	[ISOLATE_SANDBOXD] = {"sandboxd", 65536},
	[ISOLATE_GATEWAY] = {"gateway", 65536},
	[ISOLATE_DNSD] = {"dnsd", 8192},
	[ISOLATE_FETCH] = {"fetch", 1024},
};

static int failed(const char *step, int sys, struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_SYSTEM, sys, "give up privilege: %s", step);
}

static int change_identity(uid_t id, struct sbx_err *err)
{
	if (geteuid() != 0)
		return 0;
	if (!id)
		return sbx_err_set(err, SBX_E_SYSTEM, EINVAL, "give up privilege: no identity to change to");
	/* The bounding set needs CAP_SETPCAP, so it goes first.  EINVAL ends the list of what this kernel knows. */
	for (unsigned long c = 0; c < 64 && prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
		if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0)
			return failed("bounding set", errno, err);
	if (setgroups(0, NULL) < 0)
		return failed("supplementary groups", errno, err);
	if (setresgid(id, id, id) < 0)
		return failed("group", errno, err);
	if (setresuid(id, id, id) < 0)
		return failed("user", errno, err);
	return 0;
}

/* After the change of identity nothing should be left; what is (a start with securebits) goes here. */
static int drop_capabilities(struct sbx_err *err)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {{0}};

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return failed("ambient capabilities", errno, err);
	if (syscall(SYS_capset, &head, none) < 0)
		return failed("capabilities", errno, err);
	return 0;
}

static int set_limits(enum isolate_process process, struct sbx_err *err)
{
	const struct rlimit no_core = {0, 0};
	struct rlimit files;

	if (setrlimit(RLIMIT_CORE, &no_core) < 0)
		return failed("core limit", errno, err);
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return failed("descriptor limit", errno, err);
	files.rlim_cur = files.rlim_max < processes[process].nofile ? files.rlim_max : processes[process].nofile;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		return failed("descriptor limit", errno, err);
	return 0;
}

static int close_door(pid_t parent, struct sbx_err *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return failed("no_new_privs", errno, err);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return failed("dumpable", errno, err);
	if (!parent)
		return 0;
	/* The change of identity has cleared it (prctl(2)), so it is set here; the parent may be gone already. */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) < 0)
		return failed("signal of the parent's end", errno, err);
	if (getppid() != parent)
		return failed("the parent is gone", 0, err);
	return 0;
}

#define MAX_INSTRUCTIONS (2 * ARRAY_SIZE(denied) + 24)

struct program {
	struct sock_filter code[MAX_INSTRUCTIONS];
	unsigned short n;
};

static void add(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	p->code[p->n++] = (struct sock_filter){code, jt, jf, k};
}

#define LOAD(field)  add(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field), 0, 0)
#define ANSWER(what) add(p, BPF_RET | BPF_K, (what), 0, 0)
#define DENY	     (SECCOMP_RET_ERRNO | (EPERM & SECCOMP_RET_DATA))

static void build_filter(struct program *p, unsigned bit)
{
	LOAD(arch);
	add(p, BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0);
	ANSWER(SECCOMP_RET_KILL_PROCESS);
	LOAD(nr);
#ifdef X32_BIT
	add(p, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
	ANSWER(SECCOMP_RET_KILL_PROCESS);
#endif
	for (size_t i = 0; i < ARRAY_SIZE(denied); i++) {
		if (!(denied[i].denied_to & bit))
			continue;
		add(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)denied[i].number, 0, 1);
		ANSWER(DENY);
	}
	/* clone3's flags lie in memory, which a filter cannot read: the C library falls back to clone on ENOSYS. */
	add(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
	ANSWER(SECCOMP_RET_ERRNO | (ENOSYS & SECCOMP_RET_DATA));
	add(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3);
	add(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args[0]), 0, 0);
	add(p, BPF_JMP | BPF_JSET | BPF_K,
	    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP, 0, 1);
	ANSWER(DENY);
	ANSWER(SECCOMP_RET_ALLOW);
}

static int load_filter(enum isolate_process process, struct sbx_err *err)
{
	struct program p = {0};

	build_filter(&p, 1u << process);
	const struct sock_fprog prog = {.len = p.n, .filter = p.code};
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) < 0)
		return failed("system call filter", errno, err);
	return 0;
}

int isolate_self(enum isolate_process process, uid_t id, pid_t parent, struct sbx_err *err)
{
	if (change_identity(id, err) < 0 || drop_capabilities(err) < 0 || set_limits(process, err) < 0 ||
	    close_door(parent, err) < 0 || load_filter(process, err) < 0)
		return sbx_err_wrap(err, "%s", processes[process].name);
	return 0;
}
