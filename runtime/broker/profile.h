/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the system call programs, compiled once at start from profile.def
 *
 * Chosen by number, never sent by anybody.
 */
#ifndef RUNTIME_PROFILE_H
#define RUNTIME_PROFILE_H

#include "base/err.h"

#include <stdint.h>

enum profile_program { PROFILE_AGENT = 0, PROFILE_PAYLOAD, PROFILE_BROKER, PROFILE_COUNT };

/**
 * profile_compile() - Compile one program
 * @program:	Which
 * @ret_len:	Number of instructions, at most LAUNCH_MAX_FILTER
 * @err:	Filled on failure: SYSTEM, INVALID_REQUEST (an unknown name stands in the table), LIMIT
 *
 * Return: a sealed memory file with the instructions, the caller's; or -1 with @err set
 */
int profile_compile(enum profile_program program, uint32_t *ret_len, struct sbx_err *err) SBX_WUR;

#endif
