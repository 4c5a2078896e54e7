/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the state of a shell between two runs
 *
 * A run is a fresh bash; what makes runs one session is text: the bash of one run writes its variables, functions, options,
 * traps, directory and positional parameters into a pipe of its own when it exits, and the bash of the next run reads them
 * before the command.  So a command that exits, is killed or executes another program ends its run and not the session.
 *
 * The text comes from inside the sandbox and goes back there only.  Whoever forges it changes the variables of that very
 * session, which its commands may change anyway; how a run ended is never taken from it.
 */
#ifndef API_EXECD_SHELL_STATE_H
#define API_EXECD_SHELL_STATE_H

#include "base/buf.h"
#include "base/err.h"
#include "runtime/agent_msg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The environment of a large project has some 100 KiB. */
#define SHELL_STATE_BYTES (384u * 1024)

struct shell_state {
	struct buf text; /* of the last run that told one */
	bool known;	 /* text holds a state, which may not be empty */
	int last_code;	 /* $? for the next run */
};

/* One run's state as it arrives. */
struct shell_dump {
	struct buf text;
	char nonce[17];
	bool too_large;
};

struct shell_run {
	const char *command;
	const char *cwd;       /* NULL: where the session is */
	const char *first_cwd; /* NULL: the sandbox's; where the session begins */
	uint32_t timeout_ms;
	bool merge; /* one stream for both outputs */
};

/**
 * shell_state_payload() - The AGENT_EXEC payload of a run
 * @state:	What the runs before left
 * @run:	What to run
 * @id:		Of the command
 * @dump:	Emptied; its nonce is made anew
 * @out:	Appended to
 * @err:	Filled on failure: EXECD_BODY (too long for the kernel), NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int shell_state_payload(const struct shell_state *state, const struct shell_run *run, const uint8_t id[AGENT_ID_BYTES],
			struct shell_dump *dump, struct buf *out, struct sbx_err *err) SBX_WUR;
/** shell_dump_add() - Take @n bytes that the shell told */
void shell_dump_add(struct shell_dump *dump, const uint8_t *data, size_t n);
/** shell_dump_clear() - Release what @dump holds */
void shell_dump_clear(struct shell_dump *dump);
/**
 * shell_state_take() - The run is over: keep what it told, if that is complete
 * @state:	Changed
 * @dump:	Emptied
 * @code:	Exit code of the run, 128 and the signal when it was killed
 *
 * Return: false when the state was too large and the one before stays
 */
bool shell_state_take(struct shell_state *state, struct shell_dump *dump, int code);
/** shell_state_clear() - Release what @state holds */
void shell_state_clear(struct shell_state *state);

#endif
