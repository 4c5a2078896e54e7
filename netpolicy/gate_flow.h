/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one TLS connection until its name is judged
 *
 * Sees the client's packets one by one, before they are sent on, and says of each what to do with it.  What the server gets
 * is what was read here: a byte passes only in its order, and when it comes again it must be the same; everything else is
 * dropped, and TCP sends it again.  Bytes of an unfinished hello pass, because TCP would not send the next ones without.
 *
 * States, and what ends them:
 *   SILENT	no byte yet		the first byte
 *   HELLO	reads a hello		it is complete: JUDGE, once for each hello
 *   ASKED	JUDGE was said		gate_flow_allowed()
 *   ANSWER	the name is allowed	the client has acknowledged bytes of the server, so the hello has arrived and cannot be sent
 *					again as another one, and what follows is no second hello: RELEASE
 *   DENIED	everything is denied
 *
 * A flow that was released needs this no more: the kernel passes it on.  Pure but for the memory of the bytes: no I/O, no clock.
 */
#ifndef NETPOLICY_GATE_FLOW_H
#define NETPOLICY_GATE_FLOW_H

#include "netpolicy/tls_hello.h"

enum gate_said {
	GATE_DROP = 0, /* TCP sends it again */
	GATE_PASS,
	GATE_RELEASE, /* pass this and all that follow */
	GATE_JUDGE,   /* flow->hello says what was read; then gate_flow_allowed() or gate_flow_deny() */
	GATE_DENY,
	GATE_BEGIN, /* a SYN with which a record began: what the kernel still has of its ports is over */
	GATE_SAID_COUNT
};

enum gate_state { GATE_SILENT = 0, GATE_HELLO, GATE_ASKED, GATE_ANSWER, GATE_DENIED, GATE_STATE_COUNT };

enum gate_flags { GATE_FIN = 1u << 0, GATE_SYN = 1u << 1, GATE_RST = 1u << 2, GATE_ACK = 1u << 4, GATE_URG = 1u << 5, GATE_FLAGS = 0x3f };

struct gate_segment {
	uint32_t seq, ack;
	uint32_t flags;	     /* enum gate_flags, as TCP's */
	const uint8_t *data; /* borrowed */
	size_t len;
	uint64_t now_ms;
};

struct gate_flow {
	enum gate_state state;
	uint32_t first_seq; /* of the first byte */
	uint32_t first_ack;
	bool acked;	 /* first_ack is known */
	bool answered;	 /* the client has acknowledged bytes of the server */
	bool again;	 /* the second hello is being read, or was */
	bool full;	 /* more came than is kept */
	uint64_t since_ms; /* of the state */
	struct tls_hello hello; /* the last that was read */
	size_t hello_at; /* where in `bytes` it begins */
	uint8_t *bytes;	 /* owned */
	size_t n, room;
};

/** gate_flow_begin() - Begin (or begin again) @f with the SYN of @seq at @now_ms; @f is zero or was used before */
void gate_flow_begin(struct gate_flow *f, uint32_t seq, uint64_t now_ms);
/** gate_flow_clear() - Release the memory of @f */
void gate_flow_clear(struct gate_flow *f);
/**
 * gate_flow_segment() - Say what to do with a packet of the client
 * @f:		The flow
 * @seg:	The packet; no SYN
 * @max_bytes:	What @f may keep at most; when it needs more the packet is dropped
 *
 * Return: what to do; for DENY f->hello.wrong may say why
 */
enum gate_said gate_flow_segment(struct gate_flow *f, const struct gate_segment *seg, size_t max_bytes);
/** gate_flow_allowed() - The name of @f is allowed, after JUDGE; @watch: go on until the server has answered; Return: PASS or RELEASE */
enum gate_said gate_flow_allowed(struct gate_flow *f, bool watch, uint64_t now_ms);
/** gate_flow_deny() - Nothing of @f passes any more; its bytes are released */
void gate_flow_deny(struct gate_flow *f);
/** gate_flow_over() - Whether @f has stayed in its state for longer than it may at @now_ms */
bool gate_flow_over(const struct gate_flow *f, uint64_t now_ms);

#endif
