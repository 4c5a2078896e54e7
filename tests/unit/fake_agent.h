/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the agent's end of an exec channel, in the test's own process and loop
 *
 * Two pipes stand for the FIFOs.  Complete requests (with their MORE frames) are handed to the test's callback; what the
 * test sends back may be well-formed or not.
 */
#ifndef TESTS_UNIT_FAKE_AGENT_H
#define TESTS_UNIT_FAKE_AGENT_H

#include "base/buf.h"
#include "base/loop.h"
#include "runtime/agent_msg.h"

#include <stdbool.h>

struct fake_agent;
/* @head->size is the size of the whole request. */
typedef void fake_agent_handler(struct fake_agent *a, const struct agent_frame *head, const uint8_t *payload, size_t n);

struct fake_agent {
	struct loop *loop;
	int in_fd, out_fd; /* our ends */
	int gateway_fds[4]; /* as agent_client_new() takes them; without a bulk channel unless fake_agent_bulk() made one */
	int bulk_in_fd, bulk_out_fd; /* our ends; -1: none */
	size_t n_bulk;	    /* bytes that came that way; the handler sees them as DATA */
	struct loop_fd *in, *out;
	struct buf received, unsent;
	struct buf whole; /* of the request that MORE frames continue */
	struct agent_frame whole_head;
	size_t whole_left;
	bool mute; /* do not answer ATTACH */
	bool deaf; /* do not read */
	uint8_t nonce[AGENT_NONCE_BYTES];
	fake_agent_handler *handler;
	void *arg;
};

/** fake_agent_init() - Make the pipes; the gateway's ends are the caller's */
void fake_agent_init(struct fake_agent *a, struct loop *loop, fake_agent_handler *handler, void *arg);
/** fake_agent_bulk() - Make the bulk channel, too; before the client is made */
void fake_agent_bulk(struct fake_agent *a);
/** fake_agent_bulk_send() - Send content and the frame that announces it */
void fake_agent_bulk_send(struct fake_agent *a, uint32_t stream, const void *data, size_t n);
/** fake_agent_free() - Close our ends: the agent dies */
void fake_agent_free(struct fake_agent *a);
/** fake_agent_send() - Send one frame */
void fake_agent_send(struct fake_agent *a, enum agent_type type, uint32_t stream, uint32_t value, const void *payload, size_t n);
/** fake_agent_raw() - Send any bytes */
void fake_agent_raw(struct fake_agent *a, const void *data, size_t n);
/** fake_agent_attached() - Answer ATTACH */
void fake_agent_attached(struct fake_agent *a);
/** fake_agent_end() - Send END with @reason and @text */
void fake_agent_end(struct fake_agent *a, uint32_t stream, enum agent_reason reason, int sys, uint64_t value, const char *text);
/** fake_agent_started() - Send STARTED */
void fake_agent_started(struct fake_agent *a, uint32_t stream);
/** fake_agent_exit() - Send EXIT after @ms milliseconds of run time */
void fake_agent_exit(struct fake_agent *a, uint32_t stream, int code, int signal, int ms);
/** fake_agent_record() - Lay out a file record in @out; Return: its bytes */
size_t fake_agent_record(uint8_t *out, uint32_t index, const char *path, enum agent_file_kind kind, uint64_t size);
/** fake_agent_listen() - Read (again) or not, like an agent that hangs */
void fake_agent_listen(struct fake_agent *a, bool listen);

#endif
