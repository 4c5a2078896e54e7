// SPDX-License-Identifier: Apache-2.0
#include "base/sysfilter.h"

#include "base/cleanup.h"
#include "base/sysfilter_ranges.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void release(scmp_filter_ctx *ctx)
{
	if (*ctx)
		seccomp_release(*ctx);
}

static uint32_t action_of(enum sysfilter_action action, int sys)
{
	switch (action) {
	case SYSFILTER_ALLOW:
		return SCMP_ACT_ALLOW;
	case SYSFILTER_ERRNO:
		return SCMP_ACT_ERRNO((uint32_t)sys & 0xffffu);
	case SYSFILTER_KILL:
		break;
	}
	return SCMP_ACT_KILL_PROCESS;
}

static enum scmp_compare compare_of(enum sysfilter_compare compare)
{
	switch (compare) {
	case SYSFILTER_EQUAL:
		return SCMP_CMP_EQ;
	case SYSFILTER_NOT_EQUAL:
		return SCMP_CMP_NE;
	case SYSFILTER_LESS:
		return SCMP_CMP_LT;
	case SYSFILTER_GREATER:
		return SCMP_CMP_GT;
	case SYSFILTER_MASKED_EQUAL:
	case SYSFILTER_ANY:
		break;
	}
	return SCMP_CMP_MASKED_EQ;
}

static int add_row(scmp_filter_ctx ctx, const struct sysfilter_row *row, uint32_t otherwise, struct sbx_err *err)
{
	struct scmp_arg_cmp cmp[ARRAY_SIZE(row->argument)];
	unsigned n = 0;
	uint32_t action = action_of(row->action, row->sys);
	int number = seccomp_syscall_resolve_name(row->name);

	if (number == __NR_SCMP_ERROR && row->number)
		number = row->number;
	if (number == __NR_SCMP_ERROR)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "seccomp table: no system call is named %s", row->name);
	if (number < 0 || action == otherwise)
		return 0; /* a pseudo number: another architecture has it, this one does not */
	for (; n < ARRAY_SIZE(row->argument) && row->argument[n].compare != SYSFILTER_ANY; n++) {
		const struct sysfilter_argument *a = &row->argument[n];

		cmp[n] = (struct scmp_arg_cmp){.arg = a->index, .op = compare_of(a->compare), .datum_a = a->value, .datum_b = a->datum};
	}
	int r = seccomp_rule_add_array(ctx, action, number, n, cmp);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "seccomp table: row %s", row->name);
	return 0;
}

static bool is_conditional(const struct sysfilter_row *row)
{
	return row->argument[0].compare != SYSFILTER_ANY;
}

/* Compiles the rows that look at arguments (@conditional) or the others; Return: a memory file, -1 with @err set. */
static int compile_part(const struct sysfilter *filter, bool conditional, uint32_t otherwise, struct sbx_err *err)
{
	__attribute__((cleanup(release))) scmp_filter_ctx ctx = seccomp_init(otherwise);

	if (!ctx)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "seccomp filter");
	int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree by number, not a list */
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "seccomp attributes");
	for (size_t i = 0; i < filter->n_rows; i++)
		if (is_conditional(&filter->row[i]) == conditional && add_row(ctx, &filter->row[i], otherwise, err) < 0)
			return -1;
	auto_fd fd = memfd_create("filter", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "memory file for a seccomp filter");
	r = seccomp_export_bpf(ctx, fd);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "compile a seccomp filter");
	return take_fd(&fd);
}

/* Reads what compile_part() made behind @used instructions of @code; Return: instructions, or -1 with @err set. */
static ssize_t read_part(int fd, struct sock_filter code[BPF_MAXINSNS], size_t used, struct sbx_err *err)
{
	ssize_t n = pread(fd, code + used, (BPF_MAXINSNS - used) * sizeof(*code), 0);

	if (n <= 0)
		return sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? errno : EFBIG, "read a seccomp filter");
	return (ssize_t)((size_t)n / sizeof(*code));
}

/*
 * libseccomp cannot say "allowed, but not with these arguments": a row with arguments and one without for the same call
 * exclude each other, and the complement of a 32-bit comparison cannot be written.  So the refusals by argument are a
 * program of their own that allows the rest, and the table by number follows it: each "allow" of the first becomes a
 * jump to the start of the second, which is then made short (sysfilter_ranges.h).  The kernel sees one program (and still caches calls that are always allowed).
 */
int sysfilter_compile(const struct sysfilter *filter, uint32_t *ret_len, struct sbx_err *err)
{
	auto_free struct sock_filter *code = calloc(BPF_MAXINSNS, sizeof(*code));
	bool any = false;
	ssize_t first = 0;

	if (!code)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "seccomp filter");
	for (size_t i = 0; i < filter->n_rows; i++)
		any |= is_conditional(&filter->row[i]);
	if (any) {
		auto_fd fd = compile_part(filter, true, SCMP_ACT_ALLOW, err);

		first = fd < 0 ? -1 : read_part(fd, code, 0, err);
		if (first < 0)
			return -1;
	}
	for (ssize_t i = 0; i < first; i++)
		if (code[i].code == (BPF_RET | BPF_K) && code[i].k == SECCOMP_RET_ALLOW)
			code[i] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, (uint32_t)(first - 1 - i));
	auto_fd table = compile_part(filter, false, action_of(filter->otherwise, filter->otherwise_sys), err);
	ssize_t second = table < 0 ? -1 : read_part(table, code, (size_t)first, err);
	if (second < 0)
		return -1;
	second = (ssize_t)sysfilter_shorten(code + first, (size_t)second, seccomp_arch_native());
	auto_fd fd = memfd_create("filter", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t size = (size_t)(first + second) * sizeof(*code);
	if (fd < 0 || write(fd, code, size) != (ssize_t)size ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "memory file for a seccomp filter");
	*ret_len = (uint32_t)(first + second);
	return take_fd(&fd);
}

int sysfilter_load(int fd, uint32_t len)
{
	auto_free struct sock_filter *code = calloc(len ? len : 1, sizeof(*code));
	struct sock_fprog program = {.len = (unsigned short)len, .filter = code};

	if (!code)
		return -ENOMEM;
	if (len > BPF_MAXINSNS || pread(fd, code, len * sizeof(*code), 0) != (ssize_t)(len * sizeof(*code)))
		return -EINVAL;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}

int sysfilter_number(const char *name)
{
	int number = seccomp_syscall_resolve_name(name);

	return number < 0 ? -ENOENT : number;
}
