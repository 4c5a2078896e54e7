/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: starting sandbox-unpack
 *
 * One process in namespaces of its own (user, mount, pid, network, ipc, uts), root of a user namespace that maps 65,536 ids of
 * ours to 0 and up, in which the host can only be read.  It is taken for hostile as soon as it has read the first byte; as pid 1
 * of its namespace it leaves nothing behind.  images/unpack_result.h says what its descriptors are.
 */
#ifndef RUNTIME_UNPACKER_H
#define RUNTIME_UNPACKER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct broker;

struct unpacker_job {
	uint32_t base;	/* id that is its root */
	int in_fd;	/* its descriptor 0 */
	int target_fd;	/* 3: directory */
	const int *view_fds; /* 5 and up: directories, read-only */
	size_t n_views;
	int ready_fd; /* behind the views: readable when they are complete; 0 or less: they are, and there is none */
	int seal_fd; /* behind that: the file for the seal; 0 or less: none */
	bool nobody_moved; /* SEAL_NOBODY_SHOWN of images/unpack_result.h */
	char **argv;
};

/**
 * unpacker_start() - Start sandbox-unpack; Return: its pidfd, or -errno
 * @b:		The broker
 * @job:	What it gets; all descriptors stay the caller's
 * @ret_result_fd: Reading end of the pipe for its one result, non-blocking; the caller's
 */
int unpacker_start(struct broker *b, const struct unpacker_job *job, int *ret_result_fd);
/** unpacker_end() - Kill @pidfd of unpacker_start() and wait for its end, which is at once; the descriptor stays the caller's */
void unpacker_end(int pidfd);
/**
 * unpacker_judge() - Wait for a process that has ended, or is about to, and judge its one result
 * @pidfd:	Of unpacker_start(); stays the caller's
 * @result_fd:	Likewise
 * @ret:	struct unpack_result or struct capture_result; its numbers and digests are the word of a process that may be hostile,
 *		its text is printable
 * @size:	Of @ret
 * @magic:	What it begins with
 * @err:	Filled on failure; its text is that of the result when there is one
 *
 * Return: 0 when it says success and ended so, or -1 with @err set
 */
int unpacker_judge(int pidfd, int result_fd, void *ret, size_t size, uint32_t magic, struct sbx_err *err) SBX_WUR;

#endif
