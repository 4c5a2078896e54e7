/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a command request (JSON) as the payload of AGENT_EXEC
 *
 * Pure: text in, bytes out.  A member that is null counts as absent; unknown members are passed over.  Stricter than the
 * published server, which no known client notices: one whole JSON text, names of members in their exact case, no member
 * twice, no NUL.
 */
#ifndef API_EXECD_COMMAND_SPEC_H
#define API_EXECD_COMMAND_SPEC_H

#include "base/buf.h"
#include "base/err.h"
#include "runtime/agent_msg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct command_pair {
	const char *name;
	const char *value;
};

/* What AGENT_EXEC starts; strings are borrowed. */
struct command_spec {
	const char *command; /* run by the shell */
	const char *cwd;     /* NULL: the sandbox's */
	const struct command_pair *env;
	size_t n_env;
	uint32_t flags; /* enum agent_spec_flags */
	uint32_t uid, gid, timeout_ms;
	uint16_t rows, cols;
};

/**
 * command_spec_payload() - Lay out struct agent_exec, struct agent_spec and the strings
 * @spec:	What to start
 * @id:		Of the command
 * @out:	Appended to
 * @err:	Filled on failure: EXECD_BODY (too long for the kernel), NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int command_spec_payload(const struct command_spec *spec, const uint8_t id[AGENT_ID_BYTES], struct buf *out,
			 struct sbx_err *err) SBX_WUR;
/**
 * command_spec_from_json() - Read a POST /command body into such a payload
 * @body:	The body
 * @n:		Its bytes
 * @id:		Of the command
 * @out:	Appended to
 * @ret_background: Whether the caller asked for a background command
 * @err:	Filled on failure: EXECD_BODY, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int command_spec_from_json(const char *body, size_t n, const uint8_t id[AGENT_ID_BYTES], struct buf *out, bool *ret_background,
			   struct sbx_err *err) SBX_WUR;

#endif
