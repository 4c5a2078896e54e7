/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one command inside a sandbox, its bytes carried both ways
 *
 * The command runs in a session of the execd API (/pty) and its bytes come over a WebSocket: with a terminal of the
 * sandbox's own, or with three pipes, so that output is exact.  The caller's own terminal never goes into the sandbox.
 * Signals are taken only while this waits: an interrupt is never lost between two calls.
 */
#ifndef API_CLI_STREAM_H
#define API_CLI_STREAM_H

#include "api/cli/cli.h"
#include "base/num.h"

#include <stdint.h>

struct http_client;

struct stream_spec {
	const char *id;			 /* of the sandbox */
	const char *command;		 /* for its shell; NULL: an interactive shell */
	const char *workdir;		 /* NULL: the sandbox's own */
	bool tty;
	bool pass_stdin;
	void (*tick)(void *arg);	 /* called every @tick_ms while it runs; may be NULL */
	void *tick_arg;
	unsigned int tick_ms;
};

struct stream_result {
	int exit_code;	   /* 0..255, 128 + signal */
	bool killed;	   /* by a signal that the sandbox did not name */
	int signal;	   /* that ended the wait here: SIGINT, SIGTERM, SIGHUP; 0: none */
	uint64_t first_output_mono_usec; /* 0: it printed nothing */
};

/** stream_signals_hold() - Block SIGINT, SIGTERM, SIGHUP and SIGWINCH but for the waits of stream_run() */
void stream_signals_hold(void);
/** stream_signal() - The first of SIGINT, SIGTERM and SIGHUP that has come and was not told yet; 0: none */
int stream_signal(void);
/**
 * stream_wait() - Wait until a connection has something to read
 * @http:	The connection
 * @spec:	Whose ticks go on meanwhile
 * @next_tick_mono_ms: When the next is due; kept between the calls
 *
 * Return: 0, or the signal that ended the wait
 */
int stream_wait(struct http_client *http, const struct stream_spec *spec, uint64_t *next_tick_mono_ms);
/**
 * stream_run() - Run one command and carry its bytes until it ends or a signal comes
 * @cli:	Whose daemon
 * @spec:	What and how
 * @ret:	How it ended
 * @err:	Filled on failure
 *
 * Return: 0, or -1 with @err set
 */
int stream_run(struct cli *cli, const struct stream_spec *spec, struct stream_result *ret, struct sbx_err *err) SBX_WUR;

#endif
