/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: frames between a code context's driver and the gateway
 *
 * One byte of type, the payload's length in four bytes (little endian), the payload.  To the driver `X`: the number
 * of the run in four bytes, then the code; and to those that ask for it `I`: the number of a run that is interrupted, besides
 * the signal.  From the driver:
 *
 *	H version            ready
 *	F reason             it cannot serve here, and ends
 *	B n                  run n has begun: an interrupt from now on is its own
 *	O text, E text       standard output, standard error: what the language itself wrote
 *	R n, {mime, data}... the value of run n
 *	D {mime, data}...    something shown: a figure, display()
 *	Z n                  run n is over
 *	Z n, name, value, traceback...   run n failed
 *
 * The payloads of R, D and Z are lists of strings, each with its length in four bytes; n is written in decimal digits.
 * All of it comes from inside the sandbox: code can write to the driver's descriptors, and fools only its own context.
 */
#ifndef API_EXECD_CODE_FRAMES_H
#define API_EXECD_CODE_FRAMES_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CODE_FRAME_HEAD	 5u
#define CODE_OUTPUT_MAX	 (256u * 1024)	     /* O, E */
#define CODE_HELLO_MAX	 4096u		     /* H, F */
#define CODE_LIST_MAX	 (5u * 1024 * 1024)  /* R, D, Z: drivers keep to 4 MiB of data */

struct code_frames {
	struct buf held; /* the beginning of a frame */
};

/* Return: 0 to go on, anything else ends the feeding with that. */
typedef int code_frame_sink(void *arg, char type, const uint8_t *payload, size_t n);

/**
 * code_frames_feed() - Take what the driver told
 * @f:		The decoder; zeroed is the start
 * @data:	Bytes
 * @n:		Their number
 * @sink:	Gets each whole frame; the payload is valid during the call
 * @arg:	Handed to @sink
 *
 * Return: 0, -EPROTO (no frame can be like this), -ENOMEM, or what @sink returned; after that only code_frames_clear()
 */
int code_frames_feed(struct code_frames *f, const uint8_t *data, size_t n, code_frame_sink *sink, void *arg) SBX_WUR;
/** code_frames_clear() - Forget what @f holds */
void code_frames_clear(struct code_frames *f);
/** code_frames_cell() - Append the frame that has the driver run @code as run @number; Return: 0 or -ENOMEM */
int code_frames_cell(struct buf *out, uint32_t number, const char *code);
/** code_frames_interrupt() - Append the frame that says that run @number is interrupted; Return: 0 or -ENOMEM */
int code_frames_interrupt(struct buf *out, uint32_t number);

struct code_list {
	const uint8_t *at, *end; /* borrowed */
};

/** code_list_next() - Take the next string; Return: false when none is left or the rest is not well-formed */
bool code_list_next(struct code_list *list, const char **ret, size_t *ret_n);
/** code_list_check() - Whether @list is well-formed to its end */
bool code_list_check(struct code_list list);

#endif
