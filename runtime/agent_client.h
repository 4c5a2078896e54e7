/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the gateway's side of one sandbox's exec channel
 *
 * Frames of runtime/agent_msg.h over two FIFO descriptors.  One client serves every request towards one sandbox; a
 * request is a stream.  Creating the client sends ATTACH with a fresh nonce; bytes before the matching ATTACHED are what
 * an earlier gateway left and are skipped.  Requests may be queued at once: the FIFO keeps their order behind ATTACH.
 *
 * Whatever the agent sends is hostile: a frame that breaks the layout, the credit or the order breaks this client (and
 * nothing else): every stream gets `lost` and the owner gets `broken`, once.  Nothing waits for ever: ATTACHED has a
 * deadline, and a request that the agent answers at once (`agent_stream_deadline()`) may have one as well.
 *
 * A stream object belongs to its requester from open to the first of ended, exited, replied or lost (the last callback,
 * after which the pointer is invalid), or until agent_stream_detach().  Callbacks run from the loop, never from inside
 * a call of this header.
 *
 * Runs in: sandbox-gateway (one loop).  The process must ignore SIGPIPE.
 */
#ifndef RUNTIME_AGENT_CLIENT_H
#define RUNTIME_AGENT_CLIENT_H

#include "base/err.h"
#include "base/loop.h"
#include "runtime/agent_msg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct agent_client;
struct agent_stream;

/* Any member may be NULL: the event is then ignored (a payload is granted back at once). */
struct agent_stream_ops {
	/* EXEC: the process runs */
	void (*started)(void *arg, const struct agent_started *started);
	/* @type is AGENT_STDOUT, AGENT_STDERR or AGENT_DATA; give the bytes back with agent_stream_grant() when consumed */
	void (*data)(void *arg, enum agent_type type, const uint8_t *data, size_t n);
	/* content stands in the pipe @fd: take up to @n bytes of it with splice(2) and return how many; what is left is offered
	 * again by agent_stream_pull(), or comes by `data`; NULL: all comes by `data` */
	size_t (*bulk)(void *arg, int fd, size_t n);
	/* the agent granted credit: agent_stream_room() grew */
	void (*writable)(void *arg);
	/* what arrived together with STARTED was handed out; not called when the stream has ended by then */
	void (*settled)(void *arg);
	/* last callbacks; exactly one of these four comes */
	void (*exited)(void *arg, const struct agent_exit *result);
	void (*replied)(void *arg, const struct agent_command_status *status, const char *text, size_t n);
	void (*ended)(void *arg, const struct agent_end *end, const char *text, size_t n);
	void (*lost)(void *arg, const struct sbx_err *why);
};

/* Called once when the channel is unusable; free the client from here or later. */
typedef void agent_client_broken(void *arg, const struct sbx_err *why);
/* @why is NULL when the agent is attached. */
typedef void agent_client_ready(void *arg, const struct sbx_err *why);

/**
 * agent_client_new() - Attach to the agent of one sandbox
 * @loop:	The gateway's loop; borrowed
 * @fds:	Write end of exec.in, read end of exec.out, write end of bulk.in, read end of bulk.out (the last two may be
 *		-1); taken over on success, made non-blocking
 * @broken:	Called at most once, never from inside this call
 * @arg:	Handed to @broken
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the client, or NULL with @err set
 */
struct agent_client *agent_client_new(struct loop *loop, const int fds[AGENT_CHANNEL_FDS], agent_client_broken *broken, void *arg,
				      struct sbx_err *err) SBX_WUR;
/** agent_client_free() - Every stream of @c gets `lost` with @why (NULL: PEER_GONE), no `broken`; @c may be NULL */
void agent_client_free(struct agent_client *c, const struct sbx_err *why);
/** agent_client_attached() - Whether the agent of @c said hello */
bool agent_client_attached(const struct agent_client *c);
/**
 * agent_client_wait() - Be told when the agent said hello
 * @c:		The client
 * @ready:	Called once from the loop (also when it is attached already), with the reason when it breaks before
 * @arg:	Handed to @ready; the key of agent_client_wait_cancel()
 * @err:	Filled on failure: LIMIT, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int agent_client_wait(struct agent_client *c, agent_client_ready *ready, void *arg, struct sbx_err *err) SBX_WUR;
/** agent_client_wait_cancel() - Forget the waiter of @c that was registered with @arg, if it is still there */
void agent_client_wait_cancel(struct agent_client *c, const void *arg);
/** agent_client_streams() - Streams in use on @c */
size_t agent_client_streams(const struct agent_client *c);

/**
 * agent_stream_open() - Begin a request
 * @c:		The client
 * @type:	AGENT_EXEC, AGENT_FS, AGENT_SIGNAL, AGENT_INTERRUPT, AGENT_STATUS or AGENT_LOGS
 * @value:	Of the first frame; for EXEC and FS ignored (it is @n)
 * @payload:	Whole payload; for EXEC and FS it may be longer than a frame and is split
 * @n:		Its bytes
 * @ops:	Borrowed for the life of the stream
 * @arg:	Handed to every callback
 * @err:	Filled on failure: LIMIT (LIMIT_STREAMS in use, or too much unsent), PEER_GONE (broken), NO_MEMORY
 *
 * Return: the stream, or NULL with @err set and nothing sent
 */
struct agent_stream *agent_stream_open(struct agent_client *c, enum agent_type type, uint32_t value, const void *payload,
				       size_t n, const struct agent_stream_ops *ops, void *arg, struct sbx_err *err) SBX_WUR;
/** agent_stream_deadline() - Give @s up (`lost` with NOT_READY, DETACH to the agent) when it has not ended in @ms; 0: never */
void agent_stream_deadline(struct agent_stream *s, uint32_t ms);
/** agent_stream_room() - Bytes that @s may send now: credit of the agent, bounded by what is unsent here */
size_t agent_stream_room(const struct agent_stream *s);
/**
 * agent_stream_send() - Queue bytes as DATA or STDIN frames of @s
 *
 * @n must be at most agent_stream_room().
 *
 * Return: 0, or -1 with @err set (PEER_GONE, NO_MEMORY)
 */
int agent_stream_send(struct agent_stream *s, enum agent_type type, const void *data, size_t n, struct sbx_err *err) SBX_WUR;
/**
 * agent_stream_offer() - Send content (DATA), as much of it as goes now without being kept here
 * @s:		An FS stream
 * @data:	Content
 * @n:		Its bytes
 * @err:	Filled on failure: NOT_READY
 *
 * Return: bytes taken (0 to @n; when fewer than @n, `writable` comes), or -1 with @err set
 */
ssize_t agent_stream_offer(struct agent_stream *s, const void *data, size_t n, struct sbx_err *err) SBX_WUR;
/**
 * agent_stream_splice() - Send content that need not pass through memory of this process
 * @s:		An FS stream
 * @move:	Called at most once, inside this call: moves up to @n bytes of content into the pipe @fd, returns how many, or a
 *		negative errno when it cannot be done this way
 * @arg:	Handed to @move
 * @n:		Bytes of content that there are
 *
 * Return: bytes taken (0 to @n; when fewer than @n, `writable` comes), or a negative errno: use agent_stream_offer()
 */
ssize_t agent_stream_splice(struct agent_stream *s, ssize_t (*move)(void *arg, int fd, size_t n), void *arg, size_t n) SBX_WUR;
/** agent_stream_credit() - Bytes of content that the agent has granted to @s and that were not sent yet */
size_t agent_stream_credit(const struct agent_stream *s);
/** agent_stream_pull() - The taker of `bulk` of @s has room again */
void agent_stream_pull(struct agent_stream *s);
/** agent_stream_control() - Queue a frame of @type (EOF, STDIN_EOF, RESIZE) with @value and no payload on @s */
void agent_stream_control(struct agent_stream *s, enum agent_type type, uint32_t value);
/** agent_stream_grant() - @n bytes that `data` brought were consumed: the agent may send as many more on @s */
void agent_stream_grant(struct agent_stream *s, size_t n);
/** agent_stream_widen() - @s, an FS stream, is going to bring much content: let more be under way, unless others have content too */
void agent_stream_widen(struct agent_stream *s);
/** agent_stream_detach() - Nobody listens any more: no further callback, @s is invalid; commands go on inside; NULL is fine */
void agent_stream_detach(struct agent_stream *s);

#endif
