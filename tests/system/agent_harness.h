/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandbox-agent for real, without the broker
 *
 * Plays the broker (namespaces, descriptors, the launch handshake) and the gateway (frames) in one test program.  Needs root.
 * The root directory of a sandbox is made by the test; the link is a veth inside the sandbox's own network namespace.
 */
#ifndef TESTS_SYSTEM_AGENT_HARNESS_H
#define TESTS_SYSTEM_AGENT_HARNESS_H

#include "runtime/agent_msg.h"
#include "runtime/broker/launch_sync.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define HARNESS_B 0x6e200000u /* host id of root inside; ids of its own, beside those of an installed daemon */
#define HARNESS_A 0x6e1f1234u

struct harness_opts {
	bool no_usr;	       /* an empty image: no shell, no libc */
	bool pooled_check;     /* wait between SHELL and ARM */
	void (*image)(const char *root); /* puts hostile things into the root directory */
	const char *volume[4]; /* mount paths; each gets an empty directory of the harness */
	bool volume_file[4];
};

struct harness {
	pid_t pid; /* of pid 1 inside, seen from here */
	int launch_fd, control_in, control_out, exec_in, exec_out, bulk_in, bulk_out; /* control_in: what we read */
	char dir[64], root[80];
	uint32_t next_stream;
	struct harness_result *beside; /* whose frames are kept while another one is waited for; NULL: nobody's */
	uint32_t attach_flags; /* of ATTACH */
	const char *driver_text; /* of the next EXEC with DRIVER; NULL: empty */
	uint8_t buf[2 * AGENT_OUT_FRAME];
	size_t have;
	struct launch_answer failed; /* of the launch */
};

struct harness_result { /* of one EXEC, FS, LOGS, ... stream */
	uint32_t stream;
	uint8_t id[AGENT_ID_BYTES];
	bool started, exited, ended, status_known;
	struct agent_started start;
	struct agent_exit exit;
	struct agent_end end;
	struct agent_command_status status;
	char text[512]; /* of END or STATUS_REPLY */
	char *out, *err; /* owned; NUL-terminated; DATA counts as out */
	size_t n_out, n_err;
};

/** harness_launch() - Make a sandbox up to ARMED; Return: 0, or -1 with @h->failed */
int harness_launch(struct harness *h, const struct harness_opts *opts);
/** harness_start() - START with /bin/sleep or what is given, then ATTACH; Return: the state that the agent reports */
int harness_start(struct harness *h, const char *const *argv, const char *const *env, const char *user, const char *cwd);
/** harness_up() - harness_launch() and harness_start() of `sleep infinity` with PATH and A=base; Return: 0 or -1 */
int harness_up(struct harness *h, const struct harness_opts *opts);
/** harness_stop() - Kill the sandbox and remove its directory */
void harness_stop(struct harness *h);
/** harness_send() - One frame on the exec channel */
void harness_send(struct harness *h, uint16_t type, uint32_t stream, uint32_t value, const void *data, size_t n);
/** harness_recv() - The next frame, within @ms; Return: payload bytes, or -1 when none came */
int harness_recv(struct harness *h, int ms, struct agent_frame *f, uint8_t *payload);
/** harness_status() - The next status record of the control channel, within @ms; Return: its state or -1 */
int harness_status(struct harness *h, int ms, struct agent_status *ret);
/** harness_control() - A frame on the control channel */
void harness_control(struct harness *h, uint16_t type, uint32_t value);
/** harness_attach() - ATTACH with a fresh nonce, all before the answer is skipped; Return: 0 or -1 */
int harness_attach(struct harness *h);
/** harness_begin() - Send EXEC for `sh -c @command` (or @args when @spec lacks SHELL); fills @r->stream and @r->id */
void harness_begin(struct harness *h, struct harness_result *r, struct agent_spec spec, const char *cwd,
		   const char *const *args, const char *const *env);
/** harness_fs_begin() - Send FS with @strings */
void harness_fs_begin(struct harness *h, struct harness_result *r, struct agent_fs fs, const char *const *strings);
struct harness_file {
	const char *path, *old_text, *new_text;
};
/** harness_replace() - @fs, a REPLACE, in @n @files; waits for its end; the counts are in @r->out */
void harness_replace(struct harness *h, struct harness_result *r, struct agent_fs fs, const struct harness_file *files, size_t n);
/** harness_finish() - Take frames until @r has its last one; gives credit; Return: 0, or -1 after @ms without it */
int harness_finish(struct harness *h, struct harness_result *r, int ms);
/** harness_run() - Run a shell command to its end; Return: its exit code, -1 by signal, -2 not started, -3 no answer */
int harness_run(struct harness *h, struct harness_result *r, const char *command);
/** harness_ask() - STATUS, LOGS, INTERRUPT or SIGNAL about command @id */
int harness_ask(struct harness *h, struct harness_result *r, uint16_t type, uint32_t value, const void *payload, size_t n);
/** harness_clear() - Free what @r holds */
void harness_clear(struct harness_result *r);

#endif
