// SPDX-License-Identifier: Apache-2.0
#include "images/unpack_filter.h"

#include "base/cleanup.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#else
#error "add the audit architecture of this processor"
#endif

static const uint32_t allowed[] = {
	/* the blob, the tree, the result */
	__NR_read, __NR_write, __NR_pwrite64, __NR_lseek, __NR_openat, __NR_openat2, __NR_close, __NR_newfstatat, __NR_fstat,
	__NR_statx, __NR_getdents64, __NR_mkdirat, __NR_mknodat, __NR_symlinkat, __NR_linkat, __NR_unlinkat, __NR_fchown,
	__NR_fchownat, __NR_fchmod, __NR_utimensat, __NR_ftruncate, __NR_fsetxattr, __NR_fcntl, __NR_readlinkat, __NR_syncfs,
	/* captures and indexes */
	__NR_pread64, __NR_fgetxattr, __NR_flistxattr,
	/* libc and the decompressors */
	__NR_brk, __NR_mmap, __NR_munmap, __NR_mremap, __NR_mprotect, __NR_madvise, __NR_futex, __NR_getrandom,
	__NR_clock_gettime, __NR_getpid, __NR_rt_sigreturn, __NR_rt_sigprocmask, __NR_rt_sigaction, __NR_restart_syscall,
	__NR_exit, __NR_exit_group,
#ifdef __NR_open
	__NR_open,
#endif
#ifdef SBX_SANITIZED
	__NR_gettid, __NR_sigaltstack, __NR_tgkill, __NR_sched_yield, __NR_prctl, __NR_getrlimit, __NR_prlimit64,
	__NR_readlink, __NR_clone, __NR_wait4, __NR_ptrace,
#endif
};

int unpack_filter_load(struct sbx_err *err)
{
	struct sock_filter program[2 * ARRAY_SIZE(allowed) + 6];
	unsigned short n = 0;

	program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 1, 0);
	program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++) {
		program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
		program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);

	struct sock_fprog prog = {.len = n, .filter = program};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "confine the unpacker");
	return 0;
}
