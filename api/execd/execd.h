/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the execd API (port 44772 of a sandbox), answered by the gateway
 *
 * The gateway has already routed the request, checked the token and found the sandbox.  execd_handle() answers it: from
 * the sandbox's agent (commands, files, terminals), from the cgroup figures (metrics), or with a typed refusal.  No
 * server runs inside the sandbox for any of this.
 *
 *   gateway                      execd_box                     sandbox-agent
 *   GW_OPEN_REPLY {fds} -------> execd_box_new() ---ATTACH---> FIFO
 *   request -------------------> execd_handle() ---EXEC/FS---> ...
 *   GW_STATE paused, ended ----> execd_call.state / execd_box_free()
 *
 * One box per life of a sandbox (sandbox id and generation); the gateway keeps the table of them.
 */
#ifndef API_EXECD_EXECD_H
#define API_EXECD_EXECD_H

#include "api/gw_msg.h"
#include "base/err.h"
#include "base/loop.h"

#include <stddef.h>
#include <stdint.h>

struct execd;
struct execd_box;
struct http_request;

/* @stat is NULL when @err is set. */
typedef void execd_stat_done(void *arg, const struct gw_stat_reply *stat, const struct sbx_err *err);

/* @fds: unconnected TCP sockets of the sandbox's network, IPv4 and IPv6 (-1: none), which are now the callee's; not looked at when
 * @err is set. */
typedef void execd_port_done(void *arg, const int fds[2], const struct sbx_err *err);

/* Who runs code: our drivers where the image has the interpreter, else a Jupyter server of the image; drivers only; that server only. */
enum execd_code_backend { EXECD_CODE_AUTO = 0, EXECD_CODE_NATIVE, EXECD_CODE_JUPYTER };

/* What the last lines of a command's output are looked for in. */
#define EXECD_TAIL_BYTES (1024u * 1024)

struct execd_hooks {
	void *arg;
	/* Ask sandboxd for the cgroup figures (GW_STAT).  @done comes exactly once, also when sandboxd is gone. */
	void (*stat)(void *arg, const uint8_t sandbox_id[16], execd_stat_done *done, void *done_arg);
	/*
	 * Ask sandboxd for sockets to @port of the sandbox on behalf of who sent @req, whose credentials are read before this
	 * returns.  @done comes exactly once.  NULL: nothing inside is ever spoken to.
	 */
	void (*port)(void *arg, const uint8_t sandbox_id[16], const struct http_request *req, uint32_t port, execd_port_done *done,
		     void *done_arg);
	enum execd_code_backend code_backend;
};

struct execd_call {
	struct http_request *req;    /* head complete; the body may still be arriving */
	const char *path;	     /* raw (percent-encoded) path below the endpoint, begins with '/'; not NUL-terminated */
	size_t path_len;
	const char *query;	     /* raw, without '?'; not NUL-terminated; NULL is fine when the length is 0 */
	size_t query_len;
	enum gw_sandbox_state state; /* anything but RUNNING is answered 503 at once */
	struct execd_box *box;	     /* NULL allowed unless @state is RUNNING */
	uint32_t tail_lines;	     /* logs: not 0 gives the last lines only, of at most EXECD_TAIL_BYTES */
};

/** execd_new() - The part that all sandboxes share; @hooks is copied; Return: it, or NULL with @err set */
struct execd *execd_new(struct loop *loop, const struct execd_hooks *hooks, struct sbx_err *err) SBX_WUR;
/** execd_free() - Release @x; all its boxes must be free; NULL is fine */
void execd_free(struct execd *x);

/**
 * execd_box_new() - Attach to one sandbox
 * @x:		The shared part
 * @sandbox_id:	Copied
 * @fds:	Ends of the exec channel, as agent_client_new() takes them; taken over on success
 * @log_file:	EXECD_LOG_FILE of the sandbox, or "" or NULL; copied
 * @broken:	Called at most once, from the loop, when the channel is unusable: free the box (a later request opens anew)
 * @arg:	Handed to @broken
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the box, or NULL with @err set
 */
struct execd_box *execd_box_new(struct execd *x, const uint8_t sandbox_id[16], const int fds[4],
				const char *log_file, void (*broken)(void *arg, const struct sbx_err *why), void *arg,
				struct sbx_err *err) SBX_WUR;
/** execd_box_free() - Open requests of @box end with @why (NULL: the sandbox ended); NULL @box is fine */
void execd_box_free(struct execd_box *box, const struct sbx_err *why);

/**
 * execd_handle() - Answer one request
 * @call:	Borrowed for the call; the request is answered now or later, whatever happens
 *
 * Unknown paths and wrong methods are 404 with a JSON body.
 */
void execd_handle(const struct execd_call *call);

#endif
