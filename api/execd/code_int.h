/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: code contexts
 *
 * A context is an interpreter of its own and what it remembers; bash is a fresh shell for each run, as in a session.
 *
 *   COLD -- start --> STARTING -- ready --> IDLE <-- run, its end --> RUNNING
 *     ^------------------------ the interpreter ended --------------------'
 *
 * A context that is COLD stays listed and starts again, empty, with its next run.  One run at a time: code_context_run()
 * is called only when `run` is NULL.
 *
 * The interpreter is a process of ours with a driver (`stream`), or a kernel of the image's Jupyter server (`jupyter`, see
 * jupyter.h).  Which one is decided at each start.
 */
#ifndef API_EXECD_CODE_INT_H
#define API_EXECD_CODE_INT_H

#include "api/execd/code_frames.h"
#include "api/execd/execd_int.h"
#include "api/execd/run_stream.h"
#include "api/execd/shell_state.h"
#include "base/num.h"

#define CODE_ARGS_MAX 12u
#define CODE_NAME_SIZE 33
#define CODE_NO_RUNTIME "error running codes language runtime server not configured, please check your image runtime"
#define CODE_UNKNOWN_LANGUAGE "error running codes unknown language: %.64s"

struct code_jupyter;

struct code_language {
	const char *name;
	bool shell;			/* bash: no driver, a shell for each run */
	const char *argv[CODE_ARGS_MAX]; /* as AGENT_SPEC_DRIVER takes them; NULL ends them.  None, and no shell: only Jupyter has it */
	const unsigned char *text;	/* of the driver */
	size_t n_text;
	bool told; /* of an interrupt by a frame as well */
};

enum code_state { CODE_COLD = 0, CODE_STARTING, CODE_IDLE, CODE_RUNNING };

struct code_run {
	struct code_context *context;
	struct run_stream out;
	char *code; /* owned */
	uint64_t begun_ms;
	uint32_t timeout_ms; /* 0: none */
	bool sent, counted; /* the code was handed over; execution_count was */
	bool begun;	    /* the driver said so: a signal is for this run */
	char tail[2][4];    /* the beginning of a character, of each raw output */
	size_t n_tail[2];
};

struct code_context {
	struct execd_box *box; /* owns us */
	struct code_context *next;
	char id[UUID_SIZE];
	const struct code_language *language; /* of the table, or `own` */
	struct code_language own;
	char own_name[CODE_NAME_SIZE];
	char *cwd; /* owned; NULL: the sandbox's */
	bool standard;	 /* the language's default context */
	bool proven;	 /* it was ready once */
	bool cwd_made;
	bool refused; /* the driver said that it cannot serve here, or there is no interpreter */
	bool waits_for_site;
	bool by_jupyter; /* this start is the server's */
	struct http_request *req; /* on whose behalf it starts; NULL: nobody waits any more */
	struct code_jupyter *jupyter; /* owned; NULL: never used */
	enum code_state state;
	uint32_t count;	  /* of runs */
	uint32_t restarts;
	struct agent_stream *stream;
	uint8_t command_id[AGENT_ID_BYTES];
	struct code_frames frames;
	struct buf unsent; /* code that waits for the agent's credit */
	struct buf said;   /* what the interpreter printed before it was ready */
	struct buf death;  /* how it ended while nobody ran anything */
	size_t not_granted;
	struct shell_state shell;
	struct shell_dump dump;
	struct code_run *run; /* owned; NULL: none */
	/* who waits for it to be ready; @err is NULL when it is.  May be NULL. */
	void (*ready)(void *arg, const struct sbx_err *err);
	void *ready_arg;
	struct loop_timer *patience; /* owned; since an interrupt */
	struct loop_timer *asked;    /* owned; since one was told by a frame: its signal follows */
	struct loop_timer *limit;    /* owned; of a run with a timeout */
	unsigned interrupts;
	unsigned busy; /* depth of callbacks that use it */
	bool gone;     /* freed when busy is 0 */
};

/** code_language_offered() - Whether there may be contexts of @name in @box: a driver, or perhaps a Jupyter kernel */
bool code_language_offered(const struct execd_box *box, const char *name);
/** code_context_find() - The context of @id in @box; Return: it or NULL */
struct code_context *code_context_find(const struct execd_box *box, const char *id);
/** code_context_standard() - The default context of language @name in @box; Return: it or NULL */
struct code_context *code_context_standard(const struct execd_box *box, const char *name);
/** code_context_new() - A COLD context of language @name, which is offered, in @box's list; Return: NULL with @err set (LIMIT, NO_MEMORY) */
struct code_context *code_context_new(struct execd_box *box, const char *name, const char *cwd, struct sbx_err *err) SBX_WUR;
/** code_context_start() - Have @c ready on behalf of @req; what waits for it hears of it later or, when it cannot be tried, now */
void code_context_start(struct code_context *c, struct http_request *req);
/** code_context_run() - Run @r, which becomes @c's; @c starts first when it is COLD */
void code_context_run(struct code_context *c, struct code_run *r);
/** code_context_interrupt() - As a user's interrupt key, on behalf of @req; the run of @c ends for certain within ten seconds */
void code_context_interrupt(struct code_context *c, struct http_request *req);
/** code_context_grant() - The client took output: let more come */
void code_context_grant(struct code_context *c);
/** code_context_remove() - End @c and its run, and forget it; @req: on behalf of whom, NULL: nobody in particular */
void code_context_remove(struct code_context *c, struct http_request *req);

/* ---- for jupyter_*.c ---- */

/** code_context_enter() - Keep @c's memory until code_context_leave(): a handler may end a request whose connection brings the next one */
void code_context_enter(struct code_context *c);
/** code_context_leave() - See code_context_enter(); @c may be gone */
void code_context_leave(struct code_context *c);
/** code_context_sited() - What the sandbox says of its Jupyter server is known: @c goes on starting */
void code_context_sited(struct code_context *c);
/** code_context_failed() - @c cannot be started */
void code_context_failed(struct code_context *c, const struct sbx_err *err);
/** code_context_died() - What ran @c has ended; @how is a half sentence */
void code_context_died(struct code_context *c, const char *how);
/** code_context_frame() - Take a frame of a driver (code_frames.h) for @c; Return: 0, -EPROTO, or -ECANCELED when @c is gone */
int code_context_frame(struct code_context *c, char type, const void *payload, size_t n) SBX_WUR;
/** code_context_holds_too_much() - Whether what is kept of unfinished values for all contexts of @box has passed its bound */
bool code_context_holds_too_much(const struct execd_box *box);
/** code_context_flush() - Send what the frames for @c brought, and let more come */
void code_context_flush(struct code_context *c);

#endif
