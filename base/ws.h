/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: WebSocket handshake and frames (RFC 6455), server and client side
 *
 * Bytes in, events out, no I/O.  The reader unmasks in the caller's buffer and hands payload out in pieces as it arrives,
 * so a long message needs no memory here; a control frame (at most 125 bytes) is handed out whole.  A server accepts only
 * masked frames, a client only unmasked ones.  No extension is spoken: a set reserved bit is an error.
 */
#ifndef BASE_WS_H
#define BASE_WS_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WS_KEY_CHARS	24 /* of Sec-WebSocket-Key */
#define WS_ACCEPT_SIZE	29 /* of Sec-WebSocket-Accept, with the NUL */
#define WS_CONTROL_MAX	125u
#define WS_HEADER_MAX	14u

enum ws_opcode {
	WS_CONTINUATION = 0,
	WS_TEXT = 1,
	WS_BINARY = 2,
	WS_CLOSE = 8,
	WS_PING = 9,
	WS_PONG = 10,
};

enum ws_close_code {
	WS_CLOSE_NORMAL = 1000,
	WS_CLOSE_GOING_AWAY = 1001,
	WS_CLOSE_PROTOCOL = 1002,
	WS_CLOSE_UNACCEPTABLE = 1003,
	WS_CLOSE_NOT_UTF8 = 1007,
	WS_CLOSE_POLICY = 1008,
	WS_CLOSE_TOO_BIG = 1009,
	WS_CLOSE_INTERNAL = 1011,
};

enum ws_event {
	WS_MORE = 0,	  /* all bytes are used; more are needed */
	WS_DATA,	  /* a piece of a TEXT or BINARY message: opcode, data, n, `last` when the message is complete */
	WS_CONTROL,	  /* a whole CLOSE, PING or PONG: opcode, data, n */
	WS_BAD,		  /* the peer broke the protocol: close with code `close_code` */
};

struct ws_reader {
	bool server;	       /* set by ws_reader_init() */
	uint64_t message_max;  /* 0: none */
	uint8_t head[WS_HEADER_MAX];
	uint32_t head_len;
	uint64_t left;	       /* payload bytes of the frame to come */
	uint64_t message_bytes;
	uint8_t mask[4];
	uint32_t mask_at;
	bool in_frame, fin, in_message;
	uint8_t opcode;	       /* of the frame */
	uint8_t message_opcode;
	uint8_t control[WS_CONTROL_MAX];
	uint32_t control_len;
};

struct ws_piece {
	enum ws_opcode opcode; /* DATA: that of the message */
	const uint8_t *data;   /* into the caller's buffer, or (control) into the reader */
	size_t n;
	bool last;
	uint16_t close_code;   /* BAD: what to close with; CONTROL of CLOSE: what the peer said, 1005 when nothing */
};

/** ws_accept_key() - Answer to @key of WS_KEY_CHARS characters, into @out */
void ws_accept_key(const char *key, char out[WS_ACCEPT_SIZE]);
/** ws_key_is_valid() - Whether @n bytes at @key are 16 bytes in base64 */
bool ws_key_is_valid(const char *key, size_t n);
/** ws_make_key() - A fresh random key into @out, NUL-terminated */
void ws_make_key(char out[WS_KEY_CHARS + 1]);

/** ws_reader_init() - Start reading; @server: frames come from a client; @message_max: bytes of a message, 0 for no bound */
void ws_reader_init(struct ws_reader *r, bool server, uint64_t message_max);
/**
 * ws_read() - Take the next event out of the input
 * @r:		The reader
 * @data:	Input; unmasked in place
 * @n:		Its bytes
 * @ret_used:	Bytes used up
 * @ret:	Filled for all events but MORE
 *
 * Call again with the rest until WS_MORE.  After WS_BAD the connection is to be closed.
 *
 * Return: the event
 */
enum ws_event ws_read(struct ws_reader *r, uint8_t *data, size_t n, size_t *ret_used, struct ws_piece *ret);
/**
 * ws_write() - Append one frame to a buffer
 * @out:	Where to
 * @server:	Whether we are the server (no mask) or the client (fresh random mask)
 * @opcode:	Of the frame
 * @fin:	Whether the message ends with it
 * @data:	Payload
 * @n:		Its bytes; at most WS_CONTROL_MAX for control frames
 *
 * Return: 0, -EINVAL (control frame too long or not final) or -ENOMEM
 */
int ws_write(struct buf *out, bool server, enum ws_opcode opcode, bool fin, const void *data, size_t n);
/** ws_write_close() - Append a CLOSE frame with @code and @reason (cut to 123 bytes between characters); Return: 0 or -ENOMEM */
int ws_write_close(struct buf *out, bool server, uint16_t code, const char *reason);

#endif
