// SPDX-License-Identifier: Apache-2.0
#include "base/sysfilter_ranges.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LONG_JUMP 255u /* a conditional jump reaches no further */

static bool taken(const struct sock_filter *f, uint32_t a)
{
	switch (BPF_OP(f->code)) {
	case BPF_JEQ:
		return a == f->k;
	case BPF_JGT:
		return a > f->k;
	case BPF_JGE:
		return a >= f->k;
	default:
		return a & f->k; /* BPF_JSET */
	}
}

int64_t sysfilter_run(const struct sock_filter *code, size_t n, const struct seccomp_data *data)
{
	uint32_t a = 0;

	/* jumps go forward only, so it ends */
	for (size_t at = 0; at < n; at++) {
		const struct sock_filter *f = &code[at];

		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			if (f->k % 4 || f->k > sizeof(*data) - 4)
				return -EINVAL;
			memcpy(&a, (const char *)data + f->k, 4);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= f->k;
			break;
		case BPF_JMP | BPF_JA:
			at += f->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
		case BPF_JMP | BPF_JGT | BPF_K:
		case BPF_JMP | BPF_JGE | BPF_K:
		case BPF_JMP | BPF_JSET | BPF_K:
			at += taken(f, a) ? f->jt : f->jf;
			break;
		case BPF_RET | BPF_K:
			return f->k;
		default:
			return -EINVAL;
		}
	}
	return -EINVAL;
}

/* The answer for @first and all that follow it up to the next range. */
struct range {
	uint32_t first, action;
};

static int by_first(const void *a, const void *b)
{
	uint32_t x = ((const struct range *)a)->first, y = ((const struct range *)b)->first;

	return x < y ? -1 : x > y;
}

/* A program that only compares answers alike between the constants that it compares with. */
static size_t find_ranges(const struct sock_filter *code, size_t n, uint32_t arch, struct range *ranges)
{
	size_t all = 0, kept = 0;

	ranges[all++].first = 0;
	for (size_t i = 0; i < n; i++) {
		bool loads = code[i].code == (BPF_LD | BPF_W | BPF_ABS);

		if ((loads && code[i].k != offsetof(struct seccomp_data, nr) && code[i].k != offsetof(struct seccomp_data, arch)) ||
		    BPF_CLASS(code[i].code) == BPF_ALU || (BPF_CLASS(code[i].code) == BPF_JMP && BPF_OP(code[i].code) == BPF_JSET))
			return 0;
		if (BPF_CLASS(code[i].code) != BPF_JMP || BPF_OP(code[i].code) == BPF_JA)
			continue;
		ranges[all++].first = code[i].k;
		if (code[i].k != UINT32_MAX)
			ranges[all++].first = code[i].k + 1;
	}
	qsort(ranges, all, sizeof(*ranges), by_first);
	for (size_t i = 0; i < all; i++) {
		struct seccomp_data data = {.nr = (int)ranges[i].first, .arch = arch};
		int64_t action = sysfilter_run(code, n, &data);

		if (action < 0)
			return 0;
		if (kept && ranges[kept - 1].action == (uint32_t)action)
			continue;
		ranges[kept++] = (struct range){ranges[i].first, (uint32_t)action};
	}
	return kept;
}

/* A search tree over @n ranges.  Return: its instructions, also without @out. */
static size_t put_tree(const struct range *ranges, size_t n, struct sock_filter *out)
{
	if (n == 1) {
		if (out)
			*out = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, ranges->action);
		return 1;
	}
	size_t half = n / 2, below = put_tree(ranges, half, NULL), head = below > LONG_JUMP ? 2 : 1;
	if (out && head == 1) {
		out[0] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ranges[half].first, (uint8_t)below, 0);
	} else if (out) {
		out[0] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ranges[half].first, 0, 1);
		out[1] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, (uint32_t)below);
	}
	if (out)
		put_tree(ranges, half, out + head);
	return head + below + put_tree(ranges + half, n - half, out ? out + head + below : NULL);
}

/* Return: what all architectures but @arch are answered, -EINVAL when they are told apart. */
static int64_t find_elsewhere(const struct sock_filter *code, size_t n, uint32_t arch)
{
	struct seccomp_data data = {.arch = ~arch};
	int64_t action = sysfilter_run(code, n, &data);

	for (size_t i = 0; i < n; i++) {
		data.arch = code[i].k;
		if (BPF_CLASS(code[i].code) == BPF_JMP && code[i].k != arch && sysfilter_run(code, n, &data) != action)
			return -EINVAL;
	}
	return action;
}

size_t sysfilter_shorten(struct sock_filter *code, size_t n, uint32_t arch)
{
	auto_free struct range *ranges = calloc(2 * n + 1, sizeof(*ranges));
	size_t n_ranges = ranges ? find_ranges(code, n, arch, ranges) : 0;
	int64_t elsewhere = find_elsewhere(code, n, arch);

	if (!n_ranges || elsewhere < 0 || 4 + put_tree(ranges, n_ranges, NULL) >= n)
		return n;
	code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arch, 1, 0);
	code[2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, (uint32_t)elsewhere);
	code[3] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	return 4 + put_tree(ranges, n_ranges, code + 4);
}
